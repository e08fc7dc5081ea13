"""Constants that numba has taken: the engine reads of globals what a call of f reads."""

import os
import pkgutil
import subprocess
import sys
import types

import numba
import numpy as np
import pytest
from lanes import lanes_of, numbers, require_lanes, require_same_bits
from oracle import JIT

from fastgrad import numerical_gradient

pytestmark = pytest.mark.skipif(not JIT, reason="numba takes no constants here")

ORDERS = {
    "Fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, 1)[:, ::2],
    "turned": lambda x: x.reshape(2, 3, 2).transpose(2, 0, 1),
}


def scaled(factor, inner=None):
    """Return a jitted function of a global factor, the globals, and what it calls, if anything."""
    names = {"FACTOR": factor, "inner": inner or numba.njit(lambda x: (x**2).sum())}
    exec("def f(x):\n    return FACTOR * inner(x)\n", names)
    return numba.njit(names["f"]), names


@pytest.mark.parametrize(
    ("order", "compiled"),
    [("Fortran", True), ("Fortran", False), ("strided", True), ("turned", False)],
)
def test_the_globals_are_those_of_a_call_of_f_whatever_the_order_of_x(order, compiled):
    f, names = scaled(2.0)
    x = ORDERS[order](numbers(3, 4))
    if compiled:
        f(x)  # with 2, and for ever
    else:
        f(numbers(2))  # for other types than those of x
    names["FACTOR"] = 5.0
    result = numerical_gradient(f, x, engine="compiled")
    np.testing.assert_allclose(result, (4.0 if compiled else 10.0) * x, rtol=1e-9)
    require_same_bits(f, x)


def test_code_that_is_declared_for_several_other_types_is_left_to_numbas_choice():
    f = numba.njit(["f8(f8[::1], f4)", "f8(f8[::1], f8)"])(lambda x, a: (x * (a / 3)).sum())
    x = numbers(3)
    require_same_bits(f, x, args=(np.float32(0.1),))
    expected = numerical_gradient(f, x, args=(1,), engine="loop")
    assert numerical_gradient(f, x, args=(1,)).tobytes() == expected.tobytes()
    with pytest.raises(ValueError, match="it is declared for several other types"):
        numerical_gradient(f, x, args=(1,), engine="compiled")


@pytest.mark.usefixtures("lanes_at_once")
def test_lanes_serve_the_first_function_with_broadcasts_of_a_process(monkeypatch):
    # numba then names another line in the message of the exception that f raises.
    from numba.core.registry import cpu_target

    f = numba.njit(lambda x: ((x[1:] - x[:-1]) ** 2).sum())
    monkeypatch.setattr(cpu_target.target_context, "cached_internal_func", {})
    f(numbers(9))
    require_same_bits(f, numbers(9))
    require_lanes(f)


@pytest.mark.usefixtures("lanes_at_once")
@pytest.mark.parametrize("changed", ["nothing", "a global", "a global of what f calls", "a module"])
def test_lanes_are_left_out_where_a_constant_has_changed(changed, monkeypatch):
    module = types.ModuleType("settings")
    module.FACTOR = 1.0
    monkeypatch.setitem(sys.modules, "settings", module)
    names = {"FACTOR": 2.0, "settings": module}
    exec("def inner(x):\n    return FACTOR * settings.FACTOR * x.sum() ** 2\n", names)
    f, outer = scaled(3.0, numba.njit(names["inner"]))
    x = numbers(40)
    f(x)
    if changed == "a global":
        outer["FACTOR"] = 7.0
    elif changed == "a global of what f calls":
        names["FACTOR"] = 7.0
    elif changed == "a module":
        module.FACTOR = 7.0
    require_same_bits(f, x)
    require_same_bits(f, x)
    if changed == "nothing":
        require_lanes(f)
    else:
        assert lanes_of(f) is None


def test_functions_that_are_inlined_are_left_to_the_loop():
    names = {"FACTOR": 2.0}
    exec("def f(x):\n    return FACTOR * x.sum()\n", names)
    f = numba.njit(inline="always")(names["f"])
    x = numbers(3)
    f(x)
    names["FACTOR"] = 5.0
    assert numerical_gradient(f, x).round(6).tolist() == [2, 2, 2]
    with pytest.raises(ValueError, match="it is inlined"):
        numerical_gradient(f, x, engine="compiled")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        ("numba.core.dispatcher:_FunctionCompiler", "fold_argument_types"),
        ("numba.core.dispatcher:Dispatcher", "get_call_template"),
        ("numba.core.registry", "cpu_target"),
        ("numba.np.numpy_support", "as_dtype"),
        ("numba.core.codegen:CPUCodeLibrary", "get_llvm_str"),
    ],
)
def test_names_of_numbas_that_vanish_leave_the_plain_loop(owner, name, monkeypatch):
    f, _ = scaled(2.0)
    x = numbers(3)
    f(x)
    place = pkgutil.resolve_name(owner)
    with monkeypatch.context() as without:
        for each in getattr(place, "__mro__", [place]):
            if name in vars(each):
                without.delattr(each, name)
        with pytest.raises(ValueError, match="cannot serve f: numba said"):
            numerical_gradient(f, x, engine="compiled")
        result = numerical_gradient(f, x)
    assert result.tobytes() == numerical_gradient(f, x, engine="loop").tobytes()


WITHOUT = """
import ast, importlib, pathlib, sys
import numba, numpy as np
import fastgrad
from fastgrad.engines import compilation

compilation.WORTH_LANES = -np.inf
package = pathlib.Path(fastgrad.__file__).parent
files = [*(package / "engines" / "lanes").glob("*.py"), package / "jit" / "vectors.py"]
names = set()
for file in files:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module.split(".")[0] in ("numba", "llvmlite"):
            names |= {(node.module, alias.name) for alias in node.names}
x = np.arange(1.0, 4.0)
tried = 0
for module, name in sorted(names):
    owner = importlib.import_module(module)
    kept = getattr(owner, name)
    if type(kept) is type(sys):
        continue  # a module stays importable
    for each in list(sys.modules):
        if each.startswith("fastgrad.engines.lanes") or each == "fastgrad.jit.vectors":
            del sys.modules[each]
    compilation._lanes_loop.cache_clear()
    delattr(owner, name)
    try:
        assert compilation._lanes_loop() is None, name
    finally:
        setattr(owner, name, kept)
    tried += 1
f = numba.njit(lambda x: (x**2).sum())
for _ in range(2):  # the module was not found, and is not looked for again
    assert fastgrad.numerical_gradient(f, x).round(6).tolist() == [2, 4, 6]
(kept,) = vars(f)[compilation.KEPT].values()
assert kept.lanes(f) is None
print(tried)
"""


def test_lanes_are_left_out_where_a_name_of_numbas_has_vanished():
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 15
