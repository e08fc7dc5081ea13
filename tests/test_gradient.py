"""numerical_gradient takes what the textbook takes, and refuses what it gets wrong."""

import re
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import (
    directional_derivative,
    hessian,
    hessian_vector_product,
    jacobian,
    numerical_gradient,
    reference,
)
from fastgrad.engines.selection import ENGINES

H = 1e-4
REPEATABLE = settings(derandomize=True, deadline=None)


def square(x):
    return (x**2).sum()


@pytest.mark.parametrize("engine", ["auto", "loop"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, ">f4", ">f8"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 3)])
def test_the_gradient_is_the_books_bit_for_bit(engine, dtype, shape):
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    x = np.asarray(x, dtype, order="F")
    before = x.tobytes("A")
    result = numerical_gradient(square, x, engine=engine)
    expected = reference.numerical_gradient(square, x)
    assert result.tobytes("A") == expected.tobytes("A")
    assert (result.dtype, result.strides) == (x.dtype, x.strides)
    assert x.tobytes("A") == before


def test_the_step_can_be_chosen():
    x = np.array([1.0, 2.0])
    for h in (1e-3, np.float32(0.5), np.float64(0.25), 1):
        expected = reference.numerical_gradient(square, x, float(h))
        assert numerical_gradient(square, x, h).tolist() == expected.tolist()


@REPEATABLE
@given(scale=st.floats(-4, 4), seed=st.integers(0, 2**32 - 1))
def test_the_gradient_is_linear_in_f(scale, seed):
    x = np.random.default_rng(seed).normal(size=4)
    plain = numerical_gradient(square, x)
    scaled = numerical_gradient(lambda x: scale * square(x) + 3, x)
    # Each value of f is rounded at each product and sum, twice an element, and divided by 2h.
    eps, size = np.finfo(float).eps, abs(scale) * (square(x) + 1) + 3
    assert np.abs(scaled - scale * plain).max() <= 8 * eps * size / H


def test_a_network_like_closure_reads_the_array_elsewhere():
    class Net:
        def __init__(self):
            self.params = {"W": np.array([[1.0, -2.0]])}

        def loss(self):
            return square(self.params["W"])

    net = Net()
    result = numerical_gradient(lambda _: net.loss(), net.params["W"])
    assert result.round(8).tolist() == [[2, -4]]


def test_matrices_stay_matrices():
    with pytest.warns(PendingDeprecationWarning, match="matrix subclass"):
        x = np.matrix([[1.0, 2.0], [3.0, 4.0]])
    result = numerical_gradient(lambda x: np.square(x).sum(), x)
    assert type(result) is np.matrix
    assert result.round(8).tolist() == [[2, 4], [6, 8]]


def test_longdouble_arrays_are_served():
    x = np.array([1.0, 2.0], np.longdouble)
    assert numerical_gradient(square, x).dtype == np.longdouble


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 2)])
def test_an_empty_x_gives_an_empty_gradient_and_no_call(shape):
    def refuse(x):
        raise AssertionError("called")

    x = np.zeros(shape, np.float32)
    result = numerical_gradient(refuse, x)
    assert result is not x
    assert (result.shape, result.dtype) == (shape, np.float32)


@pytest.mark.parametrize("dtype", ["int64", "uint8", "bool", "float16", "object", "<U3", "M8[s]"])
def test_dtypes_that_cannot_hold_the_step_are_refused(dtype):
    match = rf"x has dtype {re.escape(str(np.dtype(dtype)))}, which cannot hold a step of 0.0001; "
    with pytest.raises(TypeError, match=match + r"pass x\.astype\(float\)"):
        numerical_gradient(square, np.zeros(2, dtype))


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_arrays_are_refused(dtype):
    with pytest.raises(TypeError, match=r"x has dtype complex.*, but .* real x only"):
        numerical_gradient(square, np.zeros(2, dtype))


@pytest.mark.parametrize("x", [["1"], ([True],), True, "1.0", None])
def test_what_is_no_array_is_refused_with_the_remedy(x: Any):
    match = r"x\S* is a \w+, .*pass np\.asarray\(x, dtype=float\)"
    with pytest.raises(TypeError, match=match):
        numerical_gradient(square, x)


def test_a_read_only_x_is_refused():
    x = np.zeros(2)
    x.flags.writeable = False
    with pytest.raises(ValueError, match=r"x is read-only, but .* in place; .* x\.copy\(\)"):
        numerical_gradient(square, x)
    with pytest.raises(ValueError, match="x is read-only"):
        numerical_gradient(square, np.broadcast_to(np.zeros(1), (3,)))


@pytest.mark.parametrize("f", [None, 3.0, np.zeros(2)])
def test_f_must_be_callable(f: Any):
    with pytest.raises(TypeError, match=rf"f is a {type(f).__name__}, which cannot be called"):
        numerical_gradient(f, np.zeros(2))


@pytest.mark.parametrize("h", [True, None, "1e-4", 1e-4j, np.array(1e-4j)])
def test_the_step_must_be_a_real_number(h: Any):
    with pytest.raises(TypeError, match=r"h is .* of type .*, but the step is a real number"):
        numerical_gradient(square, np.zeros(2), h)


@pytest.mark.parametrize("h", [0, -1e-4, np.nan, np.inf, -np.inf])
def test_the_step_must_be_positive_and_finite(h):
    with pytest.raises(ValueError, match=rf"h is {float(h)}, but the step is positive and finite"):
        numerical_gradient(square, np.zeros(2), h)


@pytest.mark.parametrize(("h", "dtype"), [(1e39, np.float32), (2e38, np.float32), (1e308, float)])
def test_a_step_beyond_the_dtype_is_refused(h, dtype):
    with pytest.raises(ValueError, match=r"h is .*, too large for x's dtype float"):
        numerical_gradient(square, np.zeros(2, dtype), h)


def test_a_step_lost_in_float32_is_named_with_its_element():
    x = np.ones((2, 3), np.float32)
    x[1, 0] = x[1, 2] = 4096
    match = r"x\[1, 0\] is 4096.0, .*float32 has a spacing of 0.000488.*0.0001 is lost; pass x.ast"
    with pytest.warns(RuntimeWarning, match=match) as said:
        got = numerical_gradient(square, x)
    assert [warning.filename for warning in said] == [__file__]
    with np.errstate(all="ignore"):
        assert got.tobytes() == reference.numerical_gradient(square, x).tobytes()
    with pytest.raises(ValueError, match=match):
        numerical_gradient(square, x, scheme="forward")
    assert numerical_gradient(square, x.astype(float)).shape == x.shape


@pytest.mark.parametrize(("value", "h"), [(1e13, 1e-4), (1.0, 1e-17), (-1.0, 1e-16)])
def test_a_step_lost_in_float64_asks_for_a_larger_one(value, h):
    match = rf"x is {re.escape(str(value))}, .*; pass a larger h"
    with pytest.warns(RuntimeWarning, match=match):
        numerical_gradient(square, np.array(value), h)
    with pytest.raises(ValueError, match=match):
        numerical_gradient(square, np.array(value), np.array([h]).reshape(()), bounds=(-1e20, 1e20))


@REPEATABLE
@given(
    value=st.one_of(
        st.floats(-1e5, 1e5, width=32), st.sampled_from([2047.0, 2048.0, 1024.0, 1, 0])
    ),
    exponent=st.integers(-52, -3),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_a_step_is_warned_of_exactly_when_it_leaves_a_point_unmoved(value, exponent, dtype):
    x, h = np.array([value], dtype), 1.1 * 2.0**exponent
    points = []

    def record(x):
        points.append(x[0])
        return 0.0

    reference.numerical_gradient(record, x, h)
    if x[0] in points:
        with pytest.warns(RuntimeWarning, match="is lost"):
            numerical_gradient(record, x, h, engine="loop")
    else:
        numerical_gradient(record, x, h, engine="loop")


def test_a_step_that_double_precision_saves_from_being_lost_is_accepted():
    # Rounded to float32 first, h would be half a spacing, and 2048 + h would tie back to 2048.
    x = np.array(2048, np.float32)
    assert numerical_gradient(lambda x: 0.0, x, 2.0**-13 * (1 + 1e-8), engine="loop") == 0


def test_an_infinite_element_is_refused():
    with pytest.raises(ValueError, match=r"x\[1\] is -inf, which no step changes"):
        numerical_gradient(square, np.array([1.0, -np.inf]))


def test_an_unknown_engine_is_refused_with_the_known_ones_named():
    names = ".*".join(f"'{name}'" for name in ["auto", *ENGINES])
    with pytest.raises(ValueError, match=rf"engine is 'turbo', which .*pass one of {names}"):
        numerical_gradient(square, np.zeros(2), engine="turbo")


def test_nothing_is_evaluated_before_all_arguments_are_right():
    def refuse(x):
        raise AssertionError("called")

    with pytest.raises(ValueError, match="engine"):
        numerical_gradient(refuse, np.zeros(2), engine="turbo")
    with pytest.raises(ValueError, match="is lost"):
        numerical_gradient(refuse, np.array([1.0, 1e20]), scheme="forward")


@pytest.mark.parametrize("engine", ["loop", "auto"])
@pytest.mark.parametrize("n", [2, 30])
def test_gradient_descent_with_a_learning_rate_of_ten_goes_where_the_books_goes(engine, n):
    ways = [partial(numerical_gradient, engine=engine), reference.numerical_gradient]
    ends = []
    for way in ways:
        x = np.linspace(-3.0, 4.0, n)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for _ in range(30):
                x -= 10.0 * way(square, x)
        ends.append(x)
    assert abs(ends[0]).max() > 1e12
    if engine == "loop":
        assert ends[0].tobytes() == ends[1].tobytes()


@pytest.mark.parametrize("options", [{}, {"engine": "loop"}, {"workers": 1}])
def test_quotients_of_steps_that_are_lost_are_the_books(options):
    x = np.random.default_rng(0).normal(size=40) * 10.0 ** np.arange(-20, 20)
    f = lambda x: np.cbrt(x).sum()  # noqa: E731
    with pytest.warns(RuntimeWarning, match=r"x\[\d+\] is .* is lost"):
        got = numerical_gradient(f, x, **options)
    assert got.tobytes() == reference.numerical_gradient(f, x).tobytes()


@pytest.mark.parametrize(("value", "quotient"), [(np.nan, "nan"), (np.inf, "inf")])
def test_one_warning_names_the_first_quotient_that_is_not_finite(value, quotient):
    x = np.zeros((2, 2))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = numerical_gradient(lambda x: value if x[1].max() > 0 else x.sum(), x)
    (warning,) = caught
    assert warning.category is RuntimeWarning
    assert warning.filename == __file__
    assert f"at x[1, 0] is {quotient}, the first of 2 that are not finite" in str(warning.message)
    assert np.isfinite(result[0]).all()
    assert not np.isfinite(result[1]).any()


def roots(x):
    with np.errstate(invalid="ignore"):
        return np.sqrt(x)


BESIDE = {
    "jacobian": (lambda x: jacobian(roots, x), r"derivative of f\(x\)\[1, 0\] by x\[0, 0\] .* 6 "),
    "sparse": (
        lambda x: jacobian(roots, x, sparsity=np.eye(6)).toarray(),
        r"derivative of f\(x\)\[1, 0\] by x\[1, 0\] .* 1 ",
    ),
    "hessian": (
        lambda x: hessian(lambda x: roots(x["b"]), {"b": x})["b"]["b"],
        r"second derivative of f\(x\)\[1, 0\] by x\['b'\]\[0, 0\] and x\['b'\]\[0, 0\] .* 36 ",
    ),
    "sparse hessian": (
        lambda x: hessian(lambda x: roots(x)[1, 0] + 0 * x[0, 0], x, sparsity=np.eye(6)).toarray(),
        r"second derivative by x\[0, 0\] and x\[0, 0\] .* 6 ",
    ),
    "product": (
        lambda x: hessian_vector_product(lambda x: roots(x).sum(), x, np.ones_like(x)),
        r"product at x\[0, 0\] .* 6 ",
    ),
    "directional": (
        lambda x: directional_derivative(roots, x, np.ones_like(x)),
        r"derivative of f\(x\)\[1, 0\] along v .* 1 ",
    ),
}


@pytest.mark.parametrize("way", BESIDE)
def test_other_derivatives_name_the_first_that_is_not_finite(way):
    derivative, named = BESIDE[way]
    x = np.array([[1.0, 2.0], [-1.0, 3.0], [4.0, 5.0]])
    message = named.replace(".*", "is nan, the first of") + "that are not finite"
    with pytest.warns(RuntimeWarning, match=message) as caught:
        result = derivative(x)
    assert {warning.filename for warning in caught} == {__file__}
    assert np.isnan(result).any()


def test_a_nan_element_gives_nan_quotients_and_the_warning():
    x = np.array([1.0, np.nan])
    with pytest.warns(RuntimeWarning, match=r"at x\[0\] is nan, the first of 2"):
        result = numerical_gradient(square, x)
    assert np.isnan(result).all()
    with pytest.warns(RuntimeWarning, match=r"at x is nan, the first of 1"):
        numerical_gradient(square, np.array(np.nan))


def test_an_array_of_one_element_is_taken_for_a_number():
    x = np.array([3.0, 4.0])
    result = numerical_gradient(lambda x: (x**2).sum(keepdims=True), x)
    np.testing.assert_array_equal(result, reference.numerical_gradient(square, x))


def test_x_is_whole_after_an_exception_of_f():
    x = np.array([3.0, 4.0])
    with pytest.raises(ZeroDivisionError):
        numerical_gradient(lambda x: 1 / 0, x)
    assert x.tolist() == [3, 4]
