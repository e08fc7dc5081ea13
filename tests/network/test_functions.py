"""The book's functions give the book's numbers, without its traps, and are traced like NumPy."""

import math
import re

import hypothesis.extra.numpy as hnp
import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import explain, numerical_gradient, reference
from fastgrad.network import functions
from fastgrad.network.functions import (
    cross_entropy_error,
    identity_function,
    numerical_diff,
    numerical_gradient_2d,
    relu,
    relu_grad,
    sigmoid,
    sigmoid_grad,
    softmax,
    softmax_loss,
    step_function,
    sum_squared_error,
)


def relu_grad_of_the_book(x):
    slopes = np.zeros_like(x)
    slopes[x >= 0] = 1
    return slopes


ACTIVATIONS = {
    "identity_function": (identity_function, lambda x: x),
    "step_function": (step_function, lambda x: np.array(x > 0, dtype=int)),
    "sigmoid": (sigmoid, reference.sigmoid),
    "sigmoid_grad": (
        sigmoid_grad,
        lambda x: (1.0 - reference.sigmoid(x)) * reference.sigmoid(x),
    ),
    "relu": (relu, lambda x: np.maximum(0, x)),
    "relu_grad": (relu_grad, relu_grad_of_the_book),
    "softmax": (softmax, reference.softmax),
}
"""Each function, and the book's formula."""

LOSSES = {
    "sum_squared_error": (sum_squared_error, lambda y, t: 0.5 * np.sum((y - t) ** 2)),
    "cross_entropy_error": (
        lambda y, t: cross_entropy_error(softmax(y), t),
        lambda y, t: reference.cross_entropy_error(reference.softmax(y), t),
    ),
    "softmax_loss": (
        softmax_loss,
        lambda y, t: reference.cross_entropy_error(reference.softmax(y), t),
    ),
}

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


@pytest.mark.parametrize("name", ACTIVATIONS)
@REPEATABLE
@given(x=st.one_of(moderate_arrays(np.float64, 700), moderate_arrays(np.float32)))
def test_activations_equal_the_books_bit_for_bit(name, x):
    function, books = ACTIVATIONS[name]
    for values in (x, x.T, np.where(x > 0, x, 0)):  # a kink and a jump are at 0
        before = values.copy()
        result, expected = function(values), books(values)
        np.testing.assert_array_equal(result, expected, strict=True)
        assert result.strides == expected.strides
        np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("dtype", [np.int8, np.int32, np.int64])
def test_what_the_book_computes_in_whole_numbers_stays_whole(dtype):
    x = np.array([-3, 0, 5], dtype)
    for name in ("step_function", "relu", "relu_grad"):
        function, books = ACTIVATIONS[name]
        np.testing.assert_array_equal(function(x), books(x), strict=True)


def test_activations_of_nan():
    assert step_function(np.nan) == 0
    assert relu_grad(np.nan) == 0
    assert np.isnan(relu(np.nan))
    assert np.isnan(sigmoid_grad(np.nan))


def test_the_identity_is_the_array_itself():
    x = np.ones(3)
    assert identity_function(x) is x


@pytest.mark.parametrize("function", [sigmoid, softmax])
@pytest.mark.parametrize("dtype", [bool, np.int8, np.uint8, np.int64])
def test_integers_and_booleans_are_taken_as_float64(function, dtype):
    x = np.array([0, 1, 1], dtype)
    np.testing.assert_array_equal(function(x), function(x.astype(float)), strict=True)


@pytest.mark.parametrize("x", [0, 0.0, False, np.float32(0), np.array(0.0)])
def test_sigmoid_takes_single_numbers(x):
    assert sigmoid(x) == 0.5
    assert np.ndim(sigmoid(x)) == 0


@pytest.mark.parametrize(
    "function", [sigmoid, softmax, sigmoid_grad, step_function, relu, relu_grad]
)
@pytest.mark.parametrize("x", [[1j], ["1"], [None]])
def test_what_is_no_real_number_is_refused(function, x):
    with pytest.raises(TypeError, match=r"x has dtype .* does not hold real numbers; pass"):
        function(x)


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


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_of_scores_equal_the_books_bit_for_bit(name, dtype):
    loss, books = LOSSES[name]
    rng = np.random.default_rng(0)
    y, labels = 5 * rng.normal(size=(20, 10)).astype(dtype), rng.integers(0, 10, 20)
    targets = [np.eye(10)[labels], np.eye(10, dtype=np.float32)[labels]]
    targets.append(np.eye(10, dtype=np.uint8)[labels])
    if name != "sum_squared_error":
        targets.append(labels)
    for t in targets:
        batches = [(y, t)] if t.ndim == 1 else [(y, t), (y[3], t[3]), (y[:1], t[3:4]), (y.T, t.T)]
        for batch in batches:
            result, expected = loss(*batch), books(*batch)
            assert (result, type(result)) == (expected, type(expected))


def test_squares_of_integers_do_not_wrap_around():
    y = np.array([1, 200], np.uint8)
    assert sum_squared_error(y, y[::-1]) == 199**2
    assert sum_squared_error([True, False], [True, True]) == 0.5


@pytest.mark.parametrize(
    ("y", "t"), [((10, 10), (10,)), ((10, 1), (10,)), ((2, 3), (3, 2)), ((1,), (3,)), ((2, 3), 2)]
)
def test_targets_that_the_book_would_broadcast_are_refused(y, t):
    with pytest.raises(ValueError, match=r"t has shape .* but y has shape .* one-hot"):
        sum_squared_error(np.ones(y), np.ones(t))


def test_a_row_of_targets_is_a_batch_of_one():
    assert sum_squared_error(np.array([[1.0, 2.0]]), np.array([0.0, 1.0])) == 1


def test_a_single_target_is_that_of_all_numbers():
    assert sum_squared_error(np.array([[1.0, 2.0]]), 1) == 0.5


@pytest.mark.parametrize("x", [3.0, np.ones((0, 3)), np.ones((2, 2, 2))])
def test_a_loss_of_scores_without_rows_names_them(x):
    with pytest.raises(ValueError, match=r"x has shape .* pass shape"):
        softmax_loss(x, 0)


def test_a_star_import_brings_what_the_books_does():
    names = {}
    exec("from fastgrad.network.functions import *", names)
    assert {*ACTIVATIONS, *LOSSES, "np"} <= names.keys()
    assert names["np"] is np
    assert all(hasattr(functions, name) for name in functions.__all__)


# Traced like plain NumPy --------------------------------------------------------------------------

X, T = np.random.default_rng(1).normal(size=(12, 9)), np.eye(4)[np.arange(12) % 4]
W, V = (np.random.default_rng(size).normal(size=(size, 8)) / 2 for size in (9, 4))


@pytest.mark.usefixtures("cheap_functions_traced")
@pytest.mark.parametrize("name", [*ACTIVATIONS, *LOSSES])
def test_functions_are_traced_as_a_readers_own(name, capsys):
    gradients, texts = [], []
    for function, loss in zip(
        ACTIVATIONS.get(name, (np.tanh, np.tanh)),
        LOSSES.get(name, (softmax_loss,) * 2),
        strict=True,
    ):

        def f(weights, function=function, loss=loss):
            a = X @ weights
            return loss(function(a) * a @ V.T, T)

        gradients.append(numerical_gradient(f, W.copy(), engine="traced"))
        explain(f, W.copy())
        texts.append(re.sub(r"[0-9.e-]+ s\b", "", capsys.readouterr().out))
    assert gradients[0].tobytes() == gradients[1].tobytes()
    assert np.abs(gradients[0]).max() > 1e-3
    assert texts[0].startswith("Traced:")
    assert texts[0] == texts[1]


# Difference quotients -----------------------------------------------------------------------------


def diff_of_the_book(f, x):
    return (f(x + 1e-4) - f(x - 1e-4)) / (2 * 1e-4)


@pytest.mark.parametrize(
    "x", [5, 5.0, np.float32(5), np.arange(3), np.arange(3.0), np.ones((2, 2), np.float32), True]
)
@pytest.mark.parametrize("f", [lambda x: 0.01 * x**2 + 0.1 * x, np.sin, lambda x: x])
def test_a_quotient_of_one_variable_is_the_books(f, x):
    result, expected = numerical_diff(f, x), diff_of_the_book(f, x)
    assert type(result) is type(expected)
    np.testing.assert_array_equal(result, expected, strict=True)


def test_f_is_given_what_the_book_gives_it():
    given = []
    assert numerical_diff(lambda x: given.append(x) or math.exp(x), 0) == pytest.approx(1)
    assert [*map(type, given)] == [float, float]
    assert given == [1e-4, -1e-4]


def test_an_f_that_returns_the_same_array_each_time_is_differenced_all_the_same():
    memory = np.empty(3)
    x = np.arange(3.0)
    result = numerical_diff(lambda x: np.multiply(x, x, out=memory), x)
    np.testing.assert_array_equal(result, diff_of_the_book(np.square, x))


@pytest.mark.parametrize("x", [1e14, np.array([0.0, -1e14]), np.float16(4), np.array([1, 10**14])])
def test_a_lost_step_is_warned_of(x):
    with pytest.warns(RuntimeWarning, match=r"the step of 0.0001 is lost .* pass"):
        result = numerical_diff(np.square, x)
    np.testing.assert_array_equal(result, diff_of_the_book(np.square, x), strict=True)


def test_infinite_numbers_have_no_step_to_lose():
    with np.errstate(invalid="ignore"):
        assert np.isnan(numerical_diff(np.square, np.array([np.inf, np.nan, 1.0]))[:2]).all()


@pytest.mark.parametrize("x", [[1.0], "1", None, {"a": 1}, np.array(["1"]), 10**400])
def test_what_no_step_can_be_added_to_is_refused(x):
    with pytest.raises(TypeError, match=r"x is .*, to which no step of 0.0001 can be added; pass"):
        numerical_diff(np.sin, x)


@pytest.mark.parametrize("value", [None, "a", [1.0]])
def test_what_has_no_differences_is_refused(value):
    with pytest.raises(TypeError, match=r"f returned .*, of which no difference can be taken; let"):
        numerical_diff(lambda x: value, 1.0)


def gradient_2d_of_the_book(f, x):
    return np.array([reference.numerical_gradient(f, row) for row in x])


@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_row_is_a_point(dtype, order):
    x = np.random.default_rng(0).normal(size=(5, 2)).astype(dtype, order=order)
    before = x.tobytes()
    f = lambda point: point[0] ** 2 * np.exp(point[1])  # noqa: E731
    result = numerical_gradient_2d(f, x)
    assert x.tobytes() == before
    assert result.flags.f_contiguous == x.flags.f_contiguous
    np.testing.assert_array_equal(result, gradient_2d_of_the_book(f, x), strict=True)
    np.testing.assert_array_equal(numerical_gradient_2d(f, x[1]), result[1], strict=True)


def test_f_may_read_the_rows_elsewhere():
    x = np.random.default_rng(0).normal(size=(3, 2))
    f = lambda _: np.sum(x**3)  # noqa: E731
    np.testing.assert_array_equal(numerical_gradient_2d(f, x), gradient_2d_of_the_book(f, x))


def test_points_of_many_variables_are_traced_one_by_one():
    x = np.random.default_rng(0).normal(size=(2, 40))
    inputs = np.random.default_rng(1).normal(size=(40, 500))
    f = lambda point: np.sum(np.tanh(point @ inputs) ** 2)  # noqa: E731
    expected = [numerical_gradient(f, row.copy()) for row in x]
    np.testing.assert_array_equal(numerical_gradient_2d(f, x), expected)


@pytest.mark.parametrize("shape", [(), (2, 2, 2)])
def test_points_of_other_axes_are_refused(shape):
    with pytest.raises(ValueError, match=r"x has shape .* pass an array of shape \(points"):
        numerical_gradient_2d(np.sum, np.ones(shape))


@pytest.mark.parametrize("x", [[[1.0, 2.0]], np.arange(4).reshape(2, 2), np.ones((2, 2), "e")])
def test_points_that_cannot_be_moved_are_refused(x):
    with pytest.raises(TypeError, match=r"x (is a list|has dtype).*; pass"):
        numerical_gradient_2d(np.sum, x)


def test_no_points_have_no_gradients():
    assert numerical_gradient_2d(np.sum, np.ones((0, 3))).shape == (0, 3)
