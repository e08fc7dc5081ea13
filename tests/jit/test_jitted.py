"""Constants that numba has taken: the engine reads of globals what a call of f reads."""

import re
import sys
import types

import numba
import numpy as np
import pytest
from lanes import lanes_of, numbers, require_lanes, require_same_bits
from oracle import JIT

from fastgrad import numerical_gradient
from fastgrad.jit import jitted

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
    [("Fortran", False), ("strided", True), ("turned", False)],
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


def test_where_an_exception_lay_in_memory_is_no_part_of_its_code():
    """Another may have lain there before; then numba numbers it."""
    names = "@.const.pickledata.14", "@.const.pickledata.14.10", "@.const.pickledata.15.sha1.11"
    assert {re.sub(jitted.COMPILATION_NUMBERS, "", name) for name in names} == {"@.const."}
