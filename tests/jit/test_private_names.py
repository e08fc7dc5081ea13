"""Names that numba and CPython do not promise: where they may stand, and what goes on without them.

Without one of `WRITING`, kernels are compiled without vectors and launches of their own; without
one of `LANES`, compiled functions are evaluated at one point at a time; without one of
`DISPATCHERS`, in the plain loop; without one of `THREADS`, forks and counts do with less.
"""

import ast
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numba
import numpy as np
import pytest
from oracle import JIT

import fastgrad
from fastgrad import numerical_gradient
from fastgrad.jit import concurrency, kernel

TEMPLATES = "numba.core.typing.templates:"
WRITING = [
    *(f"numba.core.base:BaseContext.{name}" for name in ("make_array", "make_tuple")),
    "numba.core.base:BaseContext.get_dummy_value",
    "numba.core.callconv:CPUCallConv.get_function_type",
    "numba.core.callconv:CPUCallConv.call_function",
    *(f"numba.core.cgutils:{name}" for name in ("alloca_once", "alloca_once_value")),
    *(f"numba.core.cgutils:{name}" for name in ("for_range", "get_null_value")),
    *(f"numba.core.cgutils:{name}" for name in ("get_or_insert_function", "unpack_tuple")),
    "numba.core.codegen:JITCodeLibrary.get_pointer_to_function",
    "numba.core.cpu:CPUContext.call_conv",
    "numba.core.registry:cpu_target",
    *(TEMPLATES + name for name in ("ConcreteTemplate", "infer_global")),
    *(f"numba.np.ufunc.workqueue:{name}" for name in ("get_num_threads", "parallel_for")),
]

LANES = [
    *(f"numba.core.cgutils:{name}" for name in ("get_or_insert_function", "unpack_tuple")),
    "numba.core.errors:TypingError",
    "numba.core.imputils:lower_constant",
    "numba.core.typeconv.castgraph:Conversion",
    *(TEMPLATES + name for name in ("AbstractTemplate", "AttributeTemplate", "bound_function")),
    "numba.np.arrayobj:intrin_alloc",
    "numba.np.arrayobj:populate_array",
    "numba.core.base:BaseContext.compile_internal",
]

LANES_LATER = [
    *(f"numba.core.base:BaseContext.{name}" for name in ("add_linking_libs", "cast")),
    "numba.core.base:BaseContext.get_function",
    "numba.core.cpu:CPUContext.nrt",
]
"""More that are missed only when a function is compiled for lanes, after a second."""

DISPATCHERS = [
    "numba.core.dispatcher:Dispatcher",
    "numba.core.dispatcher:Dispatcher.get_call_template",
    "numba.core.dispatcher:_FunctionCompiler.fold_argument_types",
    "numba.core.registry:cpu_target",
    "numba.core.codegen:CPUCodeLibrary.get_llvm_str",
]

THREADS = [
    "numba.core.compiler_lock:global_compiler_lock",
    "llvmlite.binding.ffi:lib",
    "numba.np.ufunc.parallel:_get_num_threads",
    "numba.np.ufunc.parallel:_is_initialized",
]

LOADING = ["numba.np.arraymath:_check_blas", "numba.np.linalg:ensure_blas"]
"""Without one, numba loads SciPy."""

KNOWN = {
    name.replace(":", ".")
    for name in (*WRITING, *LANES, *LANES_LATER, *DISPATCHERS, *THREADS, *LOADING)
}

PUBLIC = {"numba.types", "numba.extending", "llvmlite.ir"}
"""Modules that numba and llvmlite document."""

ON_OBJECTS = {
    "_getvalue": "numba's structures",
    "_can_compile": "dispatchers",
    "_compiler": "dispatchers",
}
"""Underscored attributes in jit/, and what has them. Where one is missing, what
uses it fails, as it does without the other names of its file."""

OF_CPYTHON = {
    "sys._getframe",
    "sys._current_frames",
    "os._exit",
    "functools._lru_cache_wrapper",
    "_thread.get_ident",
    "_thread.RLock",
    "_thread._local",
}
"""Documented, or the type of a documented object; they may stand anywhere."""

OF_NAMED_TUPLES = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}
"""Documented, too: an underscore keeps them apart from fields."""

PACKAGE = Path(fastgrad.__file__).parent


def private_names(file: Path) -> Iterator[str]:
    """Yield the private names of other packages that a file imports or asks for."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                package, _, rest = node.module.partition(".")
                inner = package in ("numba", "llvmlite") and rest and node.module not in PUBLIC
                if (inner or "._" in f".{name}") and package not in ("fastgrad", "__future__"):
                    yield name
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if ".core" in alias.name)
        elif isinstance(node, ast.Constant) and str(node.value).startswith(("numba.", "llvmlite.")):
            yield node.value
        elif isinstance(node, ast.Attribute):
            holder, name = ast.unparse(node.value), node.attr
            if holder == "context":
                yield f"context.{name}"
            elif holder == "cgutils":
                yield f"numba.core.cgutils.{name}"
            elif name.startswith("_") and not (
                name.startswith("__") or name in OF_NAMED_TUPLES or holder in OWN
            ):
                yield f"{holder}.{name}"


OWN = {"self", "cls", "other", "inner"}
"""How fastgrad's own objects are called where their attributes are asked for."""


def test_private_names_stand_behind_the_fence_and_in_the_table():
    known_methods = {name.rpartition(".")[2] for name in KNOWN if "Context." in name}
    outside, unknown = [], []
    for file in sorted(PACKAGE.rglob("*.py")):
        fenced = file.is_relative_to(PACKAGE / "jit")
        for name in {*private_names(file)} - OF_CPYTHON:
            last = name.rpartition(".")[2]
            if name.startswith("context."):
                known = last in known_methods | CONTEXTS
            elif last.startswith("_"):
                known = name in KNOWN or last in ON_OBJECTS
            else:
                known = name in KNOWN or any(each.startswith(f"{name}.") for each in KNOWN)
            own = file.name == "parameters.py" and last == "_bind"
            if not own and not fenced:
                outside.append((file.name, name))
            if not own and not known:
                unknown.append((file.name, name))
    assert not outside, "private names outside jit/"
    assert not unknown, "private names that the table lacks"


CONTEXTS = {"codegen", "error_model", "resolve_function_type", "typing_context"}
"""What else is asked of numba's contexts: lanes alone, or vectors when they are imported, do."""


WITHOUT = """
import pkgutil, sys
from contextlib import contextmanager
import numba, numpy as np
import fastgrad
from fastgrad import numerical_gradient
from fastgrad.jit import jitted
from test_private_names import LANES, LANES_LATER, WRITING

@contextmanager
def missing(name, *packages):
    "Let a name be missing, and files be read again that may use it."
    for each in [*sys.modules]:
        if each.startswith(packages):
            module = sys.modules.pop(each)
            package, _, last = each.rpartition(".")
            if package in sys.modules:
                vars(sys.modules[package]).pop(last, None)
    module, _, path = name.partition(":")
    *classes, last = path.split(".")
    owner = pkgutil.resolve_name(":".join([module, *classes]))
    holders = [each for each in getattr(owner, "__mro__", [owner]) if last in vars(each)]
    kept = [vars(each)[last] for each in holders]
    assert kept, name
    for each in holders:
        delattr(each, last)
    try:
        yield
    finally:
        for each, value in zip(holders, kept):
            setattr(each, last, value)

jitted.LANES_SECONDS = -np.inf
x = np.arange(1.0, 6.0)
f = numba.njit(lambda x: np.mean(x**2) + np.exp(x[0]))
first = numerical_gradient(f, x[:4], engine="compiled")
(loop,) = vars(f)[jitted.LOOPS_ATTRIBUTE].values()
for name in LANES + LANES_LATER[: int(sys.argv[1])]:
    loop._lanes.clear()
    with missing(name, "fastgrad.jit.lanes", "fastgrad.jit.instructions"):
        assert loop.lanes(f) is None, name
    assert numerical_gradient(f, x[:4], engine="compiled").tobytes() == first.tobytes()

for name in WRITING:
    with missing(name, "fastgrad.jit.instructions"):
        try:
            import fastgrad.jit.instructions
        except Exception:
            continue
        raise AssertionError(name)

for each in [*sys.modules]:  # or modules that are loaded keep their kernels
    if each.startswith("fastgrad"):
        del sys.modules[each]
sys.modules["fastgrad.jit.instructions"] = None  # importing it fails from now on
import fastgrad
net = fastgrad.TwoLayerNet(20, 7, 3)
samples, labels = np.random.default_rng(0).random((5, 20)), np.arange(5) % 3
exact = net.gradient(samples, labels)
for engine in ("response", "direct"):
    quotients = net.numerical_gradient(samples, labels, engine=engine)
    assert abs(quotients.buffer - exact.buffer).max() < 1e-8, engine
from fastgrad.jit import matrix_products
c, out = np.ones((2, 600, 24)), np.empty((10, 24))
for sign in (1, -1):  # in integers
    matrix_products.sum_polynomials(out, np.full((600, 9), sign * 1.0), c, exact=1)
    assert abs(out[:-1] - sign * 1200).max() < 1e-9
a, b = np.random.default_rng(1).random((9, 5, 30)), np.random.default_rng(2).random((30, 7))
assert abs(matrix_products.multiply_versions(a, b) - a @ b).max() < 1e-12
from fastgrad.jit.kernel import HAND_WRITTEN, LANES_PER_VECTOR
assert not HAND_WRITTEN and LANES_PER_VECTOR == 1
assert numerical_gradient(lambda x: (x**2).sum(), x).round(6).tolist() == (2 * x).tolist()
"""


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
def test_without_a_name_kernels_are_compiled_otherwise_and_no_function_for_lanes(repeats):
    paths = [str(Path(__file__).parent), *sys.path]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(repeats(0, 9))],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr


def remove(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    module, _, path = name.partition(":")
    *classes, last = path.split(".")
    owner = pkgutil.resolve_name(":".join([module, *classes]))
    for each in getattr(owner, "__mro__", [owner]):
        if last in vars(each):
            monkeypatch.delattr(each, last)


@pytest.mark.skipif(not JIT, reason="nothing is compiled")
@pytest.mark.parametrize("name", DISPATCHERS)
def test_without_a_name_of_dispatchers_the_loop_is_taken(name, monkeypatch):
    f, x = numba.njit(lambda x: (x**3).sum()), np.arange(1.0, 4.0)
    f(x)
    with monkeypatch.context() as without:
        remove(name, without)
        with pytest.raises((ValueError, TypeError), match="pass engine='auto' or 'loop'"):
            numerical_gradient(f, x, engine="compiled")
        result = numerical_gradient(f, x)
    assert result.tobytes() == numerical_gradient(f, x, engine="loop").tobytes()


@pytest.mark.parametrize("name", THREADS)
def test_without_a_name_of_threads_they_are_counted_and_other_locks_are_found(name, monkeypatch):
    before = numba.get_num_threads()
    monkeypatch.setattr(numba, "get_num_threads", lambda: before)  # which itself needs them
    remove(name, monkeypatch)
    assert concurrency.thread_count() == before
    own = concurrency._locks
    assert [*concurrency._all_locks()][: len(own)] == own


def test_without_names_of_loading_numba_loads_scipy_itself(monkeypatch):
    ensure = numba.np.linalg.ensure_blas
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "numba.np.arraymath", None)
        kernel._spare_scipy()
    assert numba.np.linalg.ensure_blas is ensure
    remove("numba.np.linalg:ensure_blas", monkeypatch)
    kernel._spare_scipy()
