"""Expressions of arrays, in lanes, have the bits that they have for one point at a time."""

import warnings

import numba
import numpy as np
import pytest
from lanes import lanes_of, numbers, require_lanes, require_same_bits
from oracle import JIT

from fastgrad.schemes import central

pytestmark = [
    pytest.mark.skipif(not JIT, reason="numba compiles nothing here"),
    pytest.mark.usefixtures("lanes_at_once"),
]


def table(x):
    rows = x[:6].reshape(2, 3)
    squares = rows * rows[0] - 1.5
    return (squares + squares.T.copy().T).sum() / x.size + squares.T[1, 0] + rows.mean()


def transcendental(x):
    return (np.exp(-(x[1:] ** 2)) * np.sin(3 * x[:-1]) + np.log(x[1:]) / np.sqrt(1 + x[1:])).sum()


def reductions(x):
    y = x * 1.5
    return (
        y.sum() * np.mean(y) + x[:2].prod() + y.max() - np.min(y) + np.argmax(y)
        + np.std(x)  # by its variance
    )  # fmt: skip


def running_sums(x):
    return np.cumsum(x * 1.5)[-1] * x[1]


def choices(x):
    positive = (x > 0.5) * x
    return positive.sum() + np.maximum(x, 0.7).sum() + x[x > 0.9].sum() - np.sign(x - 1).sum()


def own_arrays(x):
    y = np.zeros_like(x)
    y[1:] = x[:-1]
    y[0] = 0.5
    y[:] = y * x + 2
    return y[1] + y.sum() - y[2] * y[0]


def of_several_types(x):
    whole = np.arange(x.size)
    return (x * whole + x * whole.astype(np.float32) - (whole > 2) * x // 0.3).sum()


def sums_along_axes(x):
    return np.sum(x[:4].reshape(2, 2), axis=0)[1]


FUNCTIONS = [
    *(table, transcendental, reductions, choices, own_arrays, of_several_types),
    *(running_sums, sums_along_axes),
]

IN_LANES_SINCE = {running_sums: (0, 68), sums_along_axes: (0, 68)}
"""The version of numba in which functions are known to be typed for lanes, if not all do."""


@pytest.mark.parametrize("f", FUNCTIONS)
def test_bits_are_those_of_the_loop(f):
    jitted = numba.njit(f)
    for size in (6, 37):
        for scheme in (central(), central(4)):
            require_same_bits(jitted, numbers(size), scheme=scheme)
    if lanes_of(jitted) is None and numba.version_info.short < IN_LANES_SINCE.get(f, (0,)):
        pytest.skip("numba has no such function of arrays of lanes yet; the bits are right")
    require_lanes(jitted)
    for value in (np.nan, 1e200, 0.0):  # the first and the squares of the second are not ordered
        x = numbers(20)
        x[4] = value
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # of quotients that are not finite
            require_same_bits(jitted, x, h=1e-4, relative=True)
    require_lanes(jitted)


def test_nan_counts_in_functions_that_look_for_it(repeats):
    # In arrays of numbers, that is; numba writes other code for those of other types.
    functions = [lambda x: np.max(x) + x[0], lambda x: np.sum(np.sort(x)) + x[0]]
    for f in functions[: repeats(1, 2)]:
        jitted = numba.njit(f)
        require_same_bits(jitted, numbers(20))
        x = numbers(20)
        x[4] = np.nan
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            require_same_bits(jitted, x)


def test_further_arguments_and_constants_are_served():
    constant = numbers(7, seed=1)

    @numba.njit
    def residuals(x, target, power):
        return (np.abs(target - x * constant) ** power).sum()

    require_same_bits(residuals, numbers(7), args=(numbers(7, seed=2), 1.5))
    require_lanes(residuals)


def test_shapes_that_do_not_fit_raise_what_numba_raises():
    f = numba.njit(lambda x, y: (x + y).sum())
    for _ in range(2):
        with pytest.raises(ValueError, match="broadcast"):
            require_same_bits(f, numbers(7), args=(numbers(6),))
    require_same_bits(f, numbers(7), args=(numbers(7),))


def test_what_lanes_cannot_do_with_an_array_is_done_by_numbers():
    norm = numba.njit(lambda x: np.linalg.norm(x * 2))
    require_same_bits(norm, numbers(9))
    assert lanes_of(norm) is None
