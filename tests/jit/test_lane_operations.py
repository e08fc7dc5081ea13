"""Every operation on lanes has the bits of the operation on numbers, lane by lane."""

import math

import numba
import numpy as np
import pytest
from oracle import JIT

if not JIT:
    pytest.skip("numba compiles nothing here", allow_module_level=True)

from fastgrad.jit import lanes_loop  # noqa: F401  (numba learns the operations)
from fastgrad.jit.lanes import POINTS_AT_ONCE, as_lanes, disagreements, store_lanes

SPECIAL = [0.0, -0.0, 1.0, -1.0, 2.0, -2.5, 1e-310, 1e300, -1e300, np.inf, -np.inf, np.nan, 0.5]


def points():
    """Return points of two coordinates, whose number is a multiple of `POINTS_AT_ONCE`.

    In the first groups of as many, one coordinate is the same, or the other, or both.
    """
    rng = np.random.default_rng(0)
    same = [(value,) * POINTS_AT_ONCE for value in SPECIAL]
    other = rng.uniform(0.5, 2.0, (len(SPECIAL), POINTS_AT_ONCE))
    groups = [(same, other), (other, same), (same, same[::-1])]
    alike = np.concatenate([np.reshape(group, (2, -1)).T for group in groups])
    special = [(a, b) for a in SPECIAL for b in SPECIAL]
    drawn = [*rng.normal(size=(200, 2)), *rng.uniform(-5, 5, (200, 2)), *rng.random((200, 2))]
    chosen = np.array([*alike, *special, *drawn])
    return chosen[: len(chosen) // POINTS_AT_ONCE * POINTS_AT_ONCE]


def in_lanes(f, results):
    """Compile what evaluates a function of several results in lanes, and counts disagreements.

    Coordinates that are the same at all points of a group are marked so.
    """

    @numba.njit
    def run(numbers, out):
        before = disagreements()
        for k, value in enumerate(f(as_lanes(numbers))):
            store_lanes(out[k], 0, value)
        return disagreements() - before

    def evaluate(chosen):
        out = np.empty((results, len(chosen)))
        counted = []
        for start in range(0, len(chosen), POINTS_AT_ONCE):
            some = np.empty((results, POINTS_AT_ONCE))
            lanes = chosen[start : start + POINTS_AT_ONCE].T
            marks = 1.0 * (lanes.view(np.int64) != lanes[:, :1].view(np.int64)).any(axis=1)
            numbers = np.ascontiguousarray(np.column_stack([marks, lanes[:, 0], lanes]))
            numbers[marks == 0, 2:] = numbers[marks == 1, 1] = 1234.5  # which nobody should read
            counted.append(run(numbers, some))
            out[:, start : start + POINTS_AT_ONCE] = some
        return out, counted

    return evaluate


def arithmetic(x):
    a, b = x[0], x[1]
    c = a
    c += b
    d = a
    d -= 2
    e = a
    e *= b
    return (a + b, a - b, a * b, -a, +b, abs(a), c, d, e, a + 1, 3 - b, True * a, 0.1 * b)


def quotients(x):
    a, b = x[0], x[1]
    c = a
    c /= b
    return (a / b, 1 / b, a / 3, a // b, a % b, a // 0.3, 2.5 % b, c)


def powers(x):
    a, b = x[0], x[1]
    n = 5
    return (a**2, a**3, a**0, a**1, a**7, a**b, a**0.5, 2**b, a ** (n - 2), pow(a, b))


def inverse_powers(x):
    return (x[0] ** -1, x[0] ** -2, x[1] ** -3)


def extremes(x):
    a, b = x[0], x[1]
    return (max(a, b), min(a, b), max(a, 0), min(1.0, b), max(a, b, 0.5), min(a, 1, b, -0.5))


def of_math(x):
    a, b = x[0], x[1]
    return (
        math.sqrt(a), math.fabs(a), math.sin(a), math.cos(a), math.tan(a), math.exp(a),
        math.expm1(a), math.log(a), math.log1p(a), math.log2(a), math.log10(a), math.sinh(a),
        math.cosh(a), math.tanh(a), math.asin(a), math.acos(a), math.atan(a), math.atan2(a, b),
        math.hypot(a, b), math.copysign(a, b), math.erf(a), math.erfc(b),
    )  # fmt: skip


def of_numpy(x):
    a, b = x[0], x[1]
    return (
        np.sqrt(a), np.abs(a), np.sin(a), np.cos(b), np.tan(a), np.exp(a), np.expm1(b), np.log(a),
        np.log1p(b), np.tanh(a), np.arctan(a), np.arctan2(a, b), np.hypot(a, b), np.maximum(a, b),
        np.minimum(a, 0.0), np.fmax(a, b), np.fmin(b, a), np.sign(a), np.square(a), np.power(a, b),
        np.floor(a), np.ceil(b), np.rint(a), np.copysign(a, b), np.deg2rad(a), np.add(a, b),
    )  # fmt: skip


@pytest.mark.parametrize(
    "f", [arithmetic, quotients, powers, inverse_powers, extremes, of_math, of_numpy]
)
def test_values_are_those_of_numbers(f):
    # NumPy's rules of division, so that there is a value at every point.
    jitted = numba.njit(error_model="numpy")(f)
    chosen = points()
    if f is inverse_powers:  # numba raises ZeroDivisionError all the same
        chosen = chosen[(abs(chosen) > 1e-3).all(axis=1)]
        chosen = chosen[: len(chosen) // POINTS_AT_ONCE * POINTS_AT_ONCE]
    expected = np.array([jitted(point) for point in chosen]).T
    found, counted = in_lanes(jitted, len(expected))(chosen)
    assert counted == [0] * len(counted)
    for some, wanted in zip(found, expected, strict=True):
        assert ((some.view(np.int64) == wanted.view(np.int64)) | np.isnan(wanted)).all()
        assert (np.isnan(some) == np.isnan(wanted)).all()


def decisions(x):
    a, b = x[0], x[1]
    return (
        1.0 * (a < b), 1.0 * (a <= b), 1.0 * (a > b), 1.0 * (a >= b), 1.0 * (a == b),
        1.0 * (a != b), 1.0 * (a < 1), 1.0 * (b <= 0.5), 1.0 * (not a), 1.0 * np.isnan(a),
        1.0 * math.isinf(b), 1.0 * np.isfinite(a),
    )  # fmt: skip


def whole_numbers(x):
    a, b = x[0], x[1]
    return (1.0 * int(a), 1.0 * math.floor(b), 1.0 * math.ceil(a), 1.0 * round(b), 1.0 * bool(a))


@pytest.mark.parametrize("f", [decisions, whole_numbers])
def test_decisions_are_the_first_points_and_counted_where_others_differ(f):
    jitted = numba.njit(f)
    chosen = points()
    if f is whole_numbers:
        chosen = chosen[(abs(chosen) < 1e9).all(axis=1)]
        chosen = chosen[: len(chosen) // POINTS_AT_ONCE * POINTS_AT_ONCE]
    expected = np.array([jitted(point) for point in chosen]).T
    found, counted = in_lanes(jitted, len(expected))(chosen)
    groups = expected.reshape(len(expected), -1, POINTS_AT_ONCE)
    assert (found.reshape(groups.shape) == groups[:, :, :1]).all()
    differ = (groups != groups[:, :, :1]).any(axis=(0, 2))
    unordered = np.isnan(chosen).reshape(-1, 2 * POINTS_AT_ONCE).any(axis=1)
    assert [count > 0 for count in counted] == (differ | unordered).tolist()
    same = np.repeat(
        chosen[::POINTS_AT_ONCE][~np.isnan(chosen[::POINTS_AT_ONCE]).any(axis=1)],
        POINTS_AT_ONCE,
        axis=0,
    )
    expected = np.array([jitted(point) for point in same]).T
    found, counted = in_lanes(jitted, len(expected))(same)
    assert found.tobytes() == expected.tobytes()
    assert not any(counted)


def test_division_by_zero_is_counted_where_python_raises():
    f = in_lanes(numba.njit(lambda x: (x[0] / x[1],)), 1)
    chosen = np.ones((2 * POINTS_AT_ONCE, 2))
    chosen[-1, 1] = 0.0
    found, counted = f(chosen)
    assert (found[0, :-1] == 1).all()
    assert [count > 0 for count in counted] == [False, True]


def in_memory(x):
    a, b = x[0], x[1]
    some = [a, b]
    for i in range(9):
        some.append(some[i] + some[i + 1])
    work = np.zeros(5, x.dtype)
    like = np.empty_like(x)
    for i in range(2):
        like[i] = x[1 - i]
        work[2 * i + 1] = like[i] * i
    chosen = {1: a, 2: work[1] + b}
    return some[-1], work[3], work[0], like[0], chosen[2], np.full(3, a)[2], x.copy()[1], x[::-1][0]


def test_lanes_may_be_kept_in_lists_arrays_and_dicts():
    jitted = numba.njit(in_memory)
    chosen = points()
    expected = np.array([jitted(point) for point in chosen]).T
    found, counted = in_lanes(jitted, len(expected))(chosen)
    assert not any(counted)
    assert np.array_equal(found, expected, equal_nan=True)
