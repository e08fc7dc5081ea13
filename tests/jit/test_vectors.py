"""The vectors of kernels compute, lane by lane, what their plain Python forms say."""

import operator

import mpmath
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad.jit import kernel as vectors
from fastgrad.jit.kernel import (
    JIT,
    LANES_PER_VECTOR,
    OPTIONS,
    exp,
    larger,
    limited,
    load,
    load_part,
    magnitude,
    nearest,
    padded,
    power_of_two,
    repeat,
    smaller,
    store,
    store_part,
    total,
    where_negative,
)

EPS = float(np.finfo(np.float64).eps)
REPEATABLE = settings(derandomize=True, deadline=None, max_examples=50)
SPECIAL = [0.0, -0.0, 1.0, -1.0, np.nan, np.inf, -np.inf, 5e-324, -5e-324, 1e308, -1e308]


def compiled(function):
    """Compile a kernel as the package's kernels are; with the JIT off, it is the plain function."""
    return numba.njit(**OPTIONS)(function)


def lanes_of(*values):
    """Return arrays of whole vectors in which the values, one list an array, meet as they stand."""
    size = padded(len(values[0]))
    return [np.resize(np.array(column, np.float64), size) for column in values]


def pairs():
    """Return two arrays in which every special value meets every other."""
    x, y = np.meshgrid(SPECIAL, SPECIAL)
    return lanes_of(x.ravel(), y.ravel())


def apply_one(function, x):
    """Return function(x): compiled, vector by vector, and as plain Python, number by number."""
    plain = getattr(function, "py_func", function)

    @compiled
    def kernel(x, result):
        for i in range(0, x.size, LANES_PER_VECTOR):
            store(result, i, function(load(x, i)))

    result = np.zeros_like(x)
    kernel(x, result)
    with np.errstate(all="ignore"):
        return result, np.array([*map(plain, x)])


def apply_two(function, x, y):
    """Return function(x, y): compiled, vector by vector, and plain, number by number."""

    @compiled
    def kernel(x, y, result):
        for i in range(0, x.size, LANES_PER_VECTOR):
            store(result, i, function(load(x, i), load(y, i)))

    result = np.zeros_like(x)
    with np.errstate(all="ignore"):
        kernel(x, y, result)
        return result, np.array([*map(function, x, y)])


def test_a_vector_fills_a_register():
    assert LANES_PER_VECTOR in ((2, 4, 8) if JIT else (1,))
    assert LANES_PER_VECTOR * 8 == vectors.VECTOR_BYTES


@pytest.mark.parametrize(
    "length",
    [0, 1, LANES_PER_VECTOR - 1, LANES_PER_VECTOR, LANES_PER_VECTOR + 1, 10 * LANES_PER_VECTOR],
)
def test_lengths_are_padded_to_whole_vectors(length):
    assert padded(length) % LANES_PER_VECTOR == 0
    assert 0 <= padded(length) - length < LANES_PER_VECTOR


@pytest.mark.parametrize("operation", [operator.add, operator.sub, operator.mul, operator.truediv])
def test_operators_work_lane_by_lane(operation):
    x, y = pairs()

    # numba compiles the symbols, not a function that it is given.
    kernels = {
        operator.add: lambda x, y: x + y,
        operator.sub: lambda x, y: x - y,
        operator.mul: lambda x, y: x * y,
        operator.truediv: lambda x, y: x / y,
    }
    result, _ = apply_two(compiled(kernels[operation]), x, y)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(result, operation(x, y))


@pytest.mark.parametrize("number", [3.0, -0.5, np.nan, np.inf])
def test_operators_take_a_number_on_either_side(number):
    (x,) = lanes_of(SPECIAL)

    @compiled
    def kernel(x, number, result):
        for i in range(0, x.size, LANES_PER_VECTOR):
            store(result[0], i, load(x, i) + number)
            store(result[1], i, number + load(x, i))
            store(result[2], i, load(x, i) - number)
            store(result[3], i, number - load(x, i))
            store(result[4], i, load(x, i) * number)
            store(result[5], i, number * load(x, i))
            store(result[6], i, load(x, i) / number)
            store(result[7], i, number / load(x, i))

    result = np.zeros((8, len(x)))
    with np.errstate(all="ignore"):
        kernel(x, number, result)
        expected = [
            x + number,
            number + x,
            x - number,
            number - x,
            x * number,
            number * x,
            x / number,
            number / x,
        ]
    np.testing.assert_array_equal(result, expected)


def test_magnitudes_are_absolute_values():
    (x,) = lanes_of(SPECIAL)
    result, plain = apply_one(magnitude, x)
    np.testing.assert_array_equal(result, plain)
    assert not np.signbit(result).any()


@pytest.mark.parametrize("choose", [larger, smaller], ids=["larger", "smaller"])
def test_the_larger_or_smaller_of_two_is_taken_and_the_second_beside_a_nan(choose):
    x, y = pairs()
    result, plain = apply_two(choose, x, y)
    np.testing.assert_array_equal(result, plain)
    beside_nan = np.isnan(x) | np.isnan(y)
    np.testing.assert_array_equal(result[beside_nan], y[beside_nan])


def test_where_negative_chooses_between_two_vectors():
    x, y = pairs()

    @compiled
    def kernel(x, y, result):
        for i in range(0, x.size, LANES_PER_VECTOR):
            store(result, i, where_negative(load(x, i), load(y, i), load(x, i)))

    result = np.zeros_like(x)
    kernel(x, y, result)
    np.testing.assert_array_equal(result, [*map(where_negative, x, y, x)])
    # Neither a nan nor a negative zero is below zero.
    np.testing.assert_array_equal(result[np.isnan(x) | (x == 0)], x[np.isnan(x) | (x == 0)])


def test_limits_hold_lane_by_lane_and_nan_stays_nan():
    (x,) = lanes_of([*SPECIAL, 2.5, -2.5, 2.0, -3.0])

    @compiled
    def kernel(x, result):
        for i in range(0, x.size, LANES_PER_VECTOR):
            store(result, i, limited(load(x, i), -3.0, 2.0))

    result = np.zeros_like(x)
    kernel(x, result)
    np.testing.assert_array_equal(result, np.clip(x, -3.0, 2.0))


def test_numbers_are_rounded_to_the_nearest_whole_and_to_the_even_of_two():
    generator = np.random.default_rng(0)
    halves = np.arange(-8.0, 8.0, 0.5)
    (x,) = lanes_of([*halves, *generator.uniform(-(2.0**50), 2.0**50, 50), 2.0**50 + 0.5, np.nan])
    result, plain = apply_one(nearest, x)
    np.testing.assert_array_equal(result, plain)


def test_powers_of_two_are_exact_over_all_normal_exponents():
    (k,) = lanes_of(np.arange(-1022.0, 1024.0))
    result, plain = apply_one(power_of_two, k)
    np.testing.assert_array_equal(result, np.ldexp(1.0, k.astype(int)))
    np.testing.assert_array_equal(plain, result)


@REPEATABLE
@given(
    values=st.lists(
        st.floats(allow_nan=False), min_size=LANES_PER_VECTOR, max_size=LANES_PER_VECTOR
    )
)
def test_a_total_adds_the_lanes_in_order(values):
    x = np.array(values)
    result = np.zeros(1)
    with np.errstate(all="ignore"):
        kernel_of_total(x, result)
        np.testing.assert_array_equal(result[0], sum(map(total, x), start=0.0))


@compiled
def kernel_of_total(x, result):
    result[0] = total(load(x, 0))


@pytest.mark.parametrize("number", SPECIAL)
def test_a_number_is_repeated_in_every_lane(number):
    @compiled
    def kernel(number, result):
        store(result, 0, repeat(number))

    result = np.zeros(LANES_PER_VECTOR)
    kernel(number, result)
    assert result.tobytes() == np.full(LANES_PER_VECTOR, number).tobytes()


@pytest.mark.parametrize("start", range(LANES_PER_VECTOR + 1))
def test_vectors_are_loaded_and_stored_at_any_element(start):
    @compiled
    def kernel(source, start, target):
        store(target, start, load(source, start))

    source = np.arange(1.0, 2 * LANES_PER_VECTOR + 1)
    target = np.zeros(2 * LANES_PER_VECTOR)
    kernel(source, start, target)
    expected = np.zeros(2 * LANES_PER_VECTOR)
    expected[start : start + LANES_PER_VECTOR] = source[start : start + LANES_PER_VECTOR]
    assert target.tolist() == expected.tolist()


@pytest.mark.parametrize("shape", [(3, 2 * LANES_PER_VECTOR + 1), (2, 3, 2 * LANES_PER_VECTOR + 1)])
def test_vectors_are_loaded_and_stored_anywhere_in_a_matrix(shape):
    @compiled
    def copy(source, place, target):
        store(target, place, load(source, place))

    source = np.arange(1.0, np.prod(shape) + 1).reshape(shape)
    for row in np.ndindex(shape[:-1]):
        for start in range(LANES_PER_VECTOR + 2):
            target, plain = np.zeros(shape), np.zeros(shape)
            copy(source, (*row, start), target)
            for lane in range(LANES_PER_VECTOR):
                store(plain, (*row, start + lane), load(source, (*row, start + lane)))
            expected = np.zeros(shape)
            expected[row][start : start + LANES_PER_VECTOR] = source[row][
                start : start + LANES_PER_VECTOR
            ]
            assert target.tolist() == plain.tolist() == expected.tolist()


@compiled
def copy_part(source, start, count, target):
    store(target, 0, load_part(source, start, count))


@compiled
def write_part(target, start, count, vector):
    store_part(target, start, count, load(vector, 0))


@pytest.mark.parametrize("count", range(LANES_PER_VECTOR + 3))
@pytest.mark.parametrize("start", [0, 1, LANES_PER_VECTOR])
def test_part_of_a_vector_is_loaded_before_zeros(start, count):
    # The array ends with the part, as the last row of a matrix does.
    source = np.arange(1.0, start + min(count, LANES_PER_VECTOR) + 1)
    target = np.full(LANES_PER_VECTOR, -1.0)
    copy_part(source, start, count, target)
    lanes = range(LANES_PER_VECTOR)
    assert target.tolist() == [load_part(source, start + i, count - i) for i in lanes]
    assert target[: min(count, LANES_PER_VECTOR)].tolist() == source[start:].tolist()
    assert not target[count:].any()


@pytest.mark.parametrize("count", range(LANES_PER_VECTOR + 3))
@pytest.mark.parametrize("start", [0, 1, LANES_PER_VECTOR])
def test_part_of_a_vector_is_stored_and_the_rest_left_alone(start, count):
    vector = np.arange(1.0, LANES_PER_VECTOR + 1)
    target = np.full(3 * LANES_PER_VECTOR, -1.0)
    write_part(target, start, count, vector)
    expected = np.full(3 * LANES_PER_VECTOR, -1.0)
    width = min(count, LANES_PER_VECTOR)
    expected[start : start + width] = vector[:width]
    assert target.tolist() == expected.tolist()
    plain = np.full(3 * LANES_PER_VECTOR, -1.0)
    for i in range(LANES_PER_VECTOR):
        store_part(plain, start + i, count - i, vector[i])
    assert plain.tolist() == expected.tolist()


def test_of_a_negative_count_nothing_is_loaded_or_stored():
    vector, target = np.arange(1.0, LANES_PER_VECTOR + 1), np.full(LANES_PER_VECTOR, -1.0)
    write_part(target, 0, -2, vector)
    assert (target == -1).all()
    copy_part(vector, 0, -2, target)
    assert not target.any()


def exponents():
    """Return points all over the range of exp, near zero, and around the roundings of its k."""
    generator = np.random.default_rng(0)
    k = generator.integers(-1020, 1022, 200)
    return np.concatenate(
        [
            np.linspace(-708.0, 709.0, 400),
            generator.uniform(-708.0, 709.0, 400),
            (k + 0.5) * np.log(2.0),
            k * np.log(2.0),
            generator.normal(size=200) * 10.0 ** generator.integers(-12, 1, 200),
            [0.0, -0.0, 1.0, -1.0, -708.0, 709.0],
        ]
    )


def test_e_to_the_x_is_exact_to_two_eps():
    (x,) = lanes_of(exponents())
    result, plain = apply_one(exp, x)
    with mpmath.workdps(30):
        exact = [mpmath.exp(mpmath.mpf(float(value))) for value in x]
        for values in (result, plain):
            errors = [abs(mpmath.mpf(float(v)) / e - 1) for v, e in zip(values, exact, strict=True)]
            # The series is rounded once by eps/2, and what its argument and its second factor
            # were rounded by adds less than that: one unit in the last place, or eps at most.
            assert max(errors) <= 2 * EPS
    assert result[x == 0].tolist() == [1.0] * int((x == 0).sum())


def test_e_to_the_x_is_limited_outside_its_range_and_nan_stays_nan():
    (x,) = lanes_of([-np.inf, -1e308, -709.0, -708.0, 709.0, 710.0, 1e308, np.inf, np.nan])
    result, plain = apply_one(exp, x)
    low, high = result[3], result[4]
    expected = np.where(np.isnan(x), np.nan, np.where(x < 0, low, high))
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_allclose(plain, result, rtol=2 * EPS)
    assert 0 < low < 4e-308
    assert np.isfinite(high)
