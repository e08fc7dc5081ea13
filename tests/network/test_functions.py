"""Do sigmoid, softmax and cross_entropy_error give the book's values, without its traps?"""

import math

import hypothesis.extra.numpy as hnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import reference
from fastgrad.network.functions import cross_entropy_error, sigmoid, softmax

REPEATABLE = settings(derandomize=True, deadline=None)
EPS = np.finfo(float).eps
FLOATS = [np.float16, np.float32, np.float64, np.longdouble]


def moderate_arrays(dtype, largest=80, **shape):
    """Arrays on which the book's formulas do not overflow in float32 or float64."""
    bits = np.dtype(dtype).itemsize * 8
    return hnp.arrays(
        dtype,
        hnp.array_shapes(max_dims=3, max_side=6, **shape),
        elements=st.floats(-largest, largest, width=bits),
    )


@REPEATABLE
@given(x=st.one_of(moderate_arrays(np.float64, 700), moderate_arrays(np.float32)))
def test_sigmoid_equals_the_books_bit_for_bit(x):
    result = sigmoid(x)
    assert result.dtype == x.dtype
    np.testing.assert_array_equal(result, reference.sigmoid(x), strict=True)


@pytest.mark.parametrize("x", [-700.0, -50.0, -1.0, 0.0, 1e-9, 1.0, 30.0])
def test_sigmoid_agrees_with_extended_precision(x):
    exact = 1 / (1 + mpmath.exp(-mpmath.mpf(x)))
    # exp within 4 units in the last place (NumPy's own limit), and two more roundings.
    assert abs(mpmath.mpf(float(sigmoid(x))) - exact) <= 6 * EPS * exact


@pytest.mark.parametrize("dtype", FLOATS)
def test_sigmoid_of_huge_numbers_is_zero_or_one_without_a_warning(dtype):
    largest = np.finfo(dtype).max
    x = np.array([-largest, -np.inf, largest, np.inf], dtype)
    with np.errstate(all="raise"):
        result = sigmoid(x)
    assert result.dtype == dtype
    assert result.tolist() == [0, 0, 1, 1]


def test_sigmoid_of_nan_is_nan():
    assert np.isnan(sigmoid(np.nan))


@pytest.mark.parametrize("function", [sigmoid, softmax])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64])
def test_integers_and_booleans_are_taken_as_float64(function, dtype):
    x = np.array([0, 1, 1], dtype)
    np.testing.assert_array_equal(function(x), function(x.astype(float)), strict=True)


@pytest.mark.parametrize("x", [0, 0.0, False, np.float32(0), np.array(0.0)])
def test_sigmoid_takes_single_numbers(x):
    assert sigmoid(x) == 0.5
    assert np.ndim(sigmoid(x)) == 0


@pytest.mark.parametrize("function", [sigmoid, softmax])
@pytest.mark.parametrize("x", [[1j], ["1"], [None]])
def test_what_is_no_real_number_is_refused(function, x):
    with pytest.raises(TypeError, match=r"x has dtype .* does not hold real numbers; pass"):
        function(x)


@REPEATABLE
@given(x=st.one_of(moderate_arrays(np.float64), moderate_arrays(np.float32)))
def test_softmax_equals_the_books_bit_for_bit(x):
    np.testing.assert_array_equal(softmax(x), reference.softmax(x), strict=True)


@REPEATABLE
@given(x=moderate_arrays(np.float64, 1e300))
def test_rows_of_softmax_are_probabilities_that_sum_to_one(x):
    result = softmax(x)
    assert (result >= 0).all()
    # K divisions and K - 1 additions, each within eps / 2 of at most 1; the sum once more.
    assert np.abs(result.sum(axis=-1) - 1).max() <= 1.5 * x.shape[-1] * EPS


def test_softmax_neither_overflows_nor_warns():
    with np.errstate(all="raise"):
        assert softmax([1e300, -1e300, 1e300]).tolist() == [0.5, 0, 0.5]
        assert softmax([-np.inf, 0.0]).tolist() == [0, 1]


def test_softmax_works_over_the_last_axis():
    x = np.arange(24.0).reshape(2, 3, 4) ** 1.5
    np.testing.assert_array_equal(softmax(x)[1, 2], softmax(x[1, 2]))


def test_softmax_of_a_single_number_is_one():
    assert softmax(3.0) == 1


def test_cross_entropy_of_a_hand_made_case():
    y = [[0.25, 0.75], [0.5, 0.5]]
    expected = -(math.log(0.75 + 1e-7) + math.log(0.5 + 1e-7)) / 2
    assert cross_entropy_error(y, [1, 0]) == pytest.approx(expected, rel=4 * EPS, abs=0)


@pytest.mark.parametrize("form", ["one-hot", "soft", "indices", "uint8"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_cross_entropy_equals_the_books_bit_for_bit(form, dtype):
    rng = np.random.default_rng(0)
    y = softmax(rng.normal(size=(20, 10))).astype(dtype)
    labels = rng.integers(0, 10, 20)
    t = {
        "one-hot": np.eye(10)[labels],
        "soft": softmax(rng.normal(size=(20, 10))),
        "indices": labels,
        "uint8": labels.astype(np.uint8),
    }[form]
    result = cross_entropy_error(y, t)
    assert result.dtype == dtype
    assert result == reference.cross_entropy_error(y, t)


def test_a_column_of_labels_is_read_as_indices():
    y = softmax(np.random.default_rng(0).normal(size=(4, 3)))
    t = np.array([0, 2, 1, 1])
    assert cross_entropy_error(y, t[:, np.newaxis]) == cross_entropy_error(y, t)
    assert reference.cross_entropy_error(y, t[:, np.newaxis]) != cross_entropy_error(y, t)


@pytest.mark.parametrize("t", [2, [2], [0, 0, 1], [[0, 0, 1]]])
def test_a_one_dimensional_y_is_a_batch_of_one(t):
    y = [0.1, 0.2, 0.7]
    assert cross_entropy_error(y, t) == cross_entropy_error([y], [2])


def test_a_probability_of_zero_has_a_finite_loss():
    expected = -math.log(1e-7)
    assert cross_entropy_error([0.0, 1.0], 0) == pytest.approx(expected, rel=2 * EPS, abs=0)


@pytest.mark.parametrize("shape", [(), (0, 3), (3, 0), (2, 2, 2)])
def test_cross_entropy_refuses_y_without_rows(shape):
    with pytest.raises(ValueError, match=r"y has shape .* pass shape"):
        cross_entropy_error(np.ones(shape), 0)


def test_cross_entropy_passes_on_what_is_wrong_with_t():
    with pytest.raises(ValueError, match=r"t\[0\] is 3, but the class indices go from 0 to 2"):
        cross_entropy_error([[0.1, 0.2, 0.7]], [3])


def test_cross_entropy_refuses_complex_probabilities():
    with pytest.raises(TypeError, match="y has dtype complex128"):
        cross_entropy_error([[0.5j, 0.5]], [0])
