"""x is the user's: an f that writes into it is refused, and x is as it was, at every entry."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastgrad
from fastgrad import check_gradient, numerical_gradient, slope_test
from fastgrad.differences.guard import guarded, is_unchanged

Array = NDArray[np.float64]


def softmax_in_place(x: Any) -> Any:
    x -= x.max()
    return np.log(np.exp(x).sum())


def once_in_a_while(call: int) -> Callable[[Array], float]:
    """Write into the first element at one call, which may be its own turn."""
    calls = 0

    def f(x: Array) -> float:
        nonlocal calls
        calls += 1
        if calls == call:
            x[0] += 1
        return float((x**2).sum())

    return f


def lifted(x: Array) -> float:
    """Write into an element before its turn, where the one before it is moved beyond it."""
    x[1:] = np.maximum(x[1:], x[:-1])
    return float((x**2).sum())


def to_and_fro() -> Callable[[Array], float]:
    sign = -1.0

    def f(x: Array) -> float:
        nonlocal sign
        sign = -sign
        x += sign
        return float((x**2).sum())

    return f


WAYS: dict[str, Callable[[Any, Array], object]] = {
    "numerical_gradient": lambda f, x: numerical_gradient(f, x),
    "loop": lambda f, x: numerical_gradient(f, x, engine="loop"),
    "auto": lambda f, x: numerical_gradient(f, x, "auto"),
    "traced": lambda f, x: numerical_gradient(f, x, engine="traced"),
    "workers": lambda f, x: numerical_gradient(f, x, workers=1),
    "map": lambda f, x: numerical_gradient(f, x, workers=map),
    "complex": lambda f, x: numerical_gradient(f, x, 1e-20, scheme="complex"),
    "differentiate": lambda f, x: fastgrad.differentiate(f, x),
    "jacobian": lambda f, x: fastgrad.jacobian(f, x),
    "hessian": lambda f, x: fastgrad.hessian(f, x),
    "directional": lambda f, x: fastgrad.directional_derivative(f, x, np.ones(x.shape)),
    "hvp": lambda f, x: fastgrad.hessian_vector_product(f, x, np.ones(x.shape)),
    "check_gradient": lambda f, x: check_gradient(f, x, np.ones(x.shape)),
    "fast check": lambda f, x: check_gradient(f, x, np.ones(x.shape), fast=True),
    "slope_test": lambda f, x: slope_test(f, x, np.ones(x.shape)),
    "Gradient": lambda f, x: fastgrad.Gradient(f)(x),
    "a part of x": lambda f, x: numerical_gradient(lambda p: p[0].sum() + f(p[1]), (np.ones(3), x)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("n", [3, 90])
def test_an_f_that_writes_into_its_argument_is_refused_and_x_is_as_it_was(way: str, n: int) -> None:
    if way == "hessian" and n > 3:
        pytest.skip("n**2 calls")
    x = np.random.default_rng(n).normal(size=n)
    before = x.copy()
    with pytest.raises(ValueError, match=r"f changes x|it changes x"):
        WAYS[way](softmax_in_place, x)
    assert x.tobytes() == before.tobytes()


@pytest.mark.parametrize("n", [20, 700])
@pytest.mark.parametrize("engine", ["loop", "auto"])
@pytest.mark.parametrize("kind", [*range(1, 10), "lifted", "to and fro"])
def test_writes_at_some_calls_or_taken_back_later_are_noticed(
    kind: str | int, engine: str, n: int
) -> None:
    written = {"lifted": lifted, "to and fro": to_and_fro()}
    f = once_in_a_while(kind) if isinstance(kind, int) else written[kind]
    x = np.arange(float(n))
    if kind == "lifted":
        x[3] = x[2]
    before = x.copy()
    try:
        got = numerical_gradient(f, x, engine=engine)
    except ValueError as refusal:
        assert "f changes x" in str(refusal)  # noqa: PT017
    else:
        assert engine == "auto"  # which may do with fewer calls
        np.testing.assert_allclose(got, 2 * x, atol=1e-3)
    assert x.tobytes() == before.tobytes()


def test_an_f_that_keeps_the_moved_element_from_where_it_is_moved_to_is_refused() -> None:
    x = np.array([3.0, 5e-5])  # of which the second is negative only where it is lowered

    def projected(x: Array) -> float:
        np.maximum(x, 0, out=x)
        return float((x**2).sum())

    with pytest.raises(ValueError, match="f changes x"):
        numerical_gradient(projected, x, engine="loop")
    assert x.tolist() == [3.0, 5e-5]


def test_what_f_writes_into_the_moved_element_alone_is_its_own() -> None:
    mask = np.arange(12) % 5 == 2
    x = np.where(mask, 0.0, np.linspace(1, 2, 12))

    def pruned(x: Array) -> float:
        x[mask] = 0
        return float((x**2).sum())

    np.testing.assert_allclose(numerical_gradient(pruned, x), 2 * x, rtol=1e-8, atol=1e-12)


def test_an_exception_of_f_passes_and_x_is_as_it_was_whatever_f_has_done_to_it() -> None:
    x = {"a": np.array([[1.0, -0.0], [np.nan, 2.0]]), "b": [np.ones(3)]}
    arrays, names = [x["a"], x["b"][0]], [*x]
    before = [array.copy() for array in arrays]

    def f(p: Any) -> float:
        p["a"][...] = 7
        p["b"][0][1] = 5
        p["a"].shape = (4,)
        p["b"][0] = np.zeros(3)
        p["a"].flags.writeable = False
        del p["a"]
        p["c"] = 1
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        numerical_gradient(f, x)
    assert [*x] == names
    assert [x["a"] is arrays[0], x["b"][0] is arrays[1]] == [True, True]
    for array, old in zip(arrays, before, strict=True):
        assert array.shape == old.shape
        assert array.tobytes() == old.tobytes()
        assert array.flags.writeable


@pytest.mark.filterwarnings("ignore:f is random")
def test_an_f_that_puts_another_array_into_x_is_refused() -> None:
    x = {"W": np.ones(3), "b": np.ones(2)}
    arrays = [*x.values()]

    def f(p: dict[str, Array]) -> float:
        p["b"] = p["b"] - 0.1
        return float(p["W"].sum() + p["b"].sum())

    with pytest.raises(ValueError, match=r"f changes x.*copy"):
        numerical_gradient(f, x)
    assert [a is b for a, b in zip(x.values(), arrays, strict=True)] == [True, True]


def test_a_gradient_within_f_of_the_same_x_is_no_write() -> None:
    x = np.array([1.0, 2.0, 3.0])

    def slope(x: Array) -> float:
        return float(numerical_gradient(lambda x: float((x**3).sum()), x, engine="loop").sum())

    np.testing.assert_allclose(numerical_gradient(slope, x), 6 * x, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["f4", "f8", "g", ">f8", "c16"])
@pytest.mark.parametrize("layout", ["plain", "strided", "Fortran"])
def test_arrays_are_compared_by_their_bits_but_for_those_of_nan(dtype: str, layout: str) -> None:
    base = np.zeros((6, 8), dtype)
    array = {"plain": base[:3], "strided": base[::2, ::2], "Fortran": base.T[:4]}[layout]
    array[...] = np.random.default_rng(0).normal(size=array.shape)
    array[0, 0], array[1, 1] = 0.0, np.nan
    before = array.copy()
    assert is_unchanged(array, before)
    array[0, 0] = -array[0, 0]
    assert not is_unchanged(array, before)
    array[0, 0] = before[0, 0]
    array.real[1, 1] = -array.real[1, 1]
    assert is_unchanged(array, before)
    array[1, 1] = 1
    assert not is_unchanged(array, before)


def test_the_guard_lets_pass_what_is_no_array() -> None:
    for x in (None, 3, "x", [1, "a"], {"a": {1}}, np.arange(3), [[]]):
        with guarded(None, x, None):
            pass


@pytest.mark.parametrize("way", [way for way in WAYS if way != "complex"])
def test_an_f_that_gives_x_another_shape_is_refused(way: str) -> None:
    def f(x: Array) -> float:
        if x.ndim == 2:
            x.shape = (6,)
        return float((x**2).sum())

    x = np.arange(6.0).reshape(2, 3).copy()
    with pytest.raises(ValueError, match=r"gives .* the shape \(6,\)|cannot be traced"):
        WAYS[way](f, x)
    assert np.array_equal(x, np.arange(6.0).reshape(2, 3))
