"""Derivatives along a direction are right, and x is as it was, bit for bit."""

import random

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import directional_derivative, hessian, hessian_vector_product, schemes

REPEATABLE = settings(derandomize=True, deadline=None)
EPS = np.finfo(float).eps


@REPEATABLE
@given(
    shape=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
    length=st.sampled_from([1e-6, 1.0, 1e6]),
    seed=st.integers(0, 2**32 - 1),
)
def test_linear_functions_are_exact_up_to_rounding(shape, length, seed):
    generator = np.random.default_rng(seed)
    a, x, v = (np.array(part) for part in generator.uniform(-1, 1, (3, *shape)))
    before = x.tobytes()
    result = directional_derivative(lambda x: (a * x).sum(), x, length * v)
    assert x.tobytes() == before
    # Values of at most 9, rounded 10 times, x itself once, over twice the farthest shift, which is
    # 5e-6 or more where v is 1; the result is proportional to v's length.
    bound = 9 * 11 * EPS / 5e-6 * length * abs(v).max()
    assert abs(result - length * (a * v).sum()) <= bound


@pytest.mark.parametrize(
    "scheme", ["central", "forward", "backward", "complex", schemes.central(4)]
)
def test_every_scheme_serves(scheme):
    x, v = np.random.default_rng(0).normal(size=(2, 5))
    slope = directional_derivative(lambda x: np.sin(x).sum(), x, v, scheme=scheme)
    assert abs(slope - np.cos(x) @ v) < 1e-6
    if scheme == "complex":
        assert abs(slope - np.cos(x) @ v) < 20 * EPS


def test_a_function_of_many_numbers_keeps_its_shape():
    x, v = np.random.default_rng(0).normal(size=(2, 2, 3))
    result = directional_derivative(lambda x: (x**2).T, x, v)
    assert result.shape == (3, 2)
    np.testing.assert_allclose(result, (2 * x * v).T, atol=1e-9)
    single = directional_derivative(lambda x: x.astype("f4").sum(), x, v)
    assert single.dtype == np.float32


def test_structures_are_moved_as_a_whole():
    x = {"W": np.array([1.0, 2.0]), "b": [np.array(3.0)]}
    v = {"W": np.array([1, 0]), "b": [np.array(2.0)]}
    slope = directional_derivative(lambda x, k: k * x["W"].sum() * x["b"][0], x, v, args=(2.0,))
    assert abs(slope - 2 * (3 + 3 * 2)) < 1e-8
    assert x["W"].tolist() == [1, 2]


def test_few_calls_are_made_and_f_may_ignore_its_argument():
    x = np.random.default_rng(0).normal(size=(40, 50))[::-2, ::3].T
    v = np.ones(x.shape)
    before, calls = x.tobytes(), 0

    def f(_):
        nonlocal calls
        calls += 1
        return float(np.sin(x).sum())

    slope = directional_derivative(f, x, v)
    assert calls == 7  # f(x), and three quotients
    assert x.tobytes() == before
    # eps**(2/3) of a sum of 340 terms.
    assert abs(slope - np.cos(x).sum()) < 340 * 1e-10


def test_the_smallest_direction_has_a_slope():
    slope = directional_derivative(lambda x: 1e30 * x.sum(), np.ones(2), np.array([5e-324, 0]))
    # v itself, and what x is moved by, are exact; part of v is eps large, and rounds x.
    assert abs(slope - 1e30 * 5e-324) <= 0.5 * 1e30 * 5e-324


def test_no_direction_gives_no_slope():
    assert directional_derivative(lambda x: x.sum(), np.ones(3), np.zeros(3)) == 0


def test_what_is_not_moved_keeps_its_bits():
    x = np.array([-0.0, np.nan, 1.0])
    seen = []
    directional_derivative(lambda x: seen.append(x.tobytes()[:16]) or x[2], x, np.array([0, 0, 1]))
    assert set(seen) == {x.tobytes()[:16]}


@pytest.mark.parametrize("x", [[0.0, 0.5], [0.0, 1.0], [1e-9, 0.5], [0.5, 0.5]])
def test_bounds_are_never_left(x):
    def f(x):
        assert ((x >= 0) & (x <= 1)).all()
        return np.exp(x).sum()

    x, v = np.array(x), np.array([1.0, -2.0])
    slope = directional_derivative(f, x, v, bounds=(0, 1))
    assert abs(slope - np.exp(x) @ v) < 1e-6


def test_a_direction_that_leads_nowhere_is_refused():
    with pytest.raises(ValueError, match="out of bounds"):
        directional_derivative(lambda x: 1.0, np.zeros(2), np.array([1.0, -1.0]), bounds=(0, 1))


@pytest.mark.parametrize(
    ("v", "h", "error", "message"),
    [
        (np.ones(3), "auto", ValueError, r"v has shape \(3,\)"),
        (np.ones(2) * 1j, "auto", TypeError, "complex128"),
        (np.array([1, np.nan]), "auto", ValueError, "not finite"),
        (np.ones(2), 0, ValueError, "positive"),
        (np.ones(2), "best", TypeError, "'best'"),
        (np.ones(2), 1e-20, ValueError, "lost"),
    ],
)
def test_what_is_wrong_is_said_before_f_is_called(v, h, error, message):
    calls = []
    with pytest.raises(error, match=message):
        directional_derivative(lambda x: calls.append(1) or 1.0, np.ones(2), v, h)
    # Whether a step is lost is seen on the line, whose values are looked at first.
    assert len(calls) <= (message == "lost")


def test_a_structure_needs_directions_of_its_form():
    with pytest.raises(ValueError, match="form"):
        directional_derivative(lambda x: 1.0, {"a": np.ones(2)}, {"b": np.ones(2)})


@pytest.mark.parametrize("fatal", [1, 2, 3])
@pytest.mark.parametrize("function", [directional_derivative, hessian_vector_product])
def test_x_is_restored_and_the_exception_passes_unchanged(function, fatal):
    x = {"a": np.array([0.1, -0.0]), "b": np.array(7.0)}
    v = {"a": np.array([1.0, 3.0]), "b": np.array(0.3)}
    before, error = (x["a"].tobytes(), x["b"].tobytes()), KeyboardInterrupt("mine")
    with pytest.raises(KeyboardInterrupt) as raised:
        function(counted(lambda x: 1.0, fatal, error), x, v)
    assert raised.value is error
    assert (x["a"].tobytes(), x["b"].tobytes()) == before


@pytest.mark.parametrize("function", [directional_derivative, hessian_vector_product])
def test_x_is_restored_wherever_an_interrupt_strikes(function, strike):
    parts = [np.random.default_rng(k).normal(size=3) for k in range(40)]
    before, dice = [part.tobytes() for part in parts], random.Random(0)
    v = [np.ones(3) for _ in parts]
    for _ in range(40):
        seconds = dice.uniform(2e-4, 8e-3)
        strike(seconds, lambda: function(lambda x: float(x[0][0] * x[1][0]), parts, v))
        assert [part.tobytes() for part in parts] == before


def test_a_hessians_x_is_restored_wherever_an_interrupt_strikes(strike):
    x, dice = np.random.default_rng(0).normal(size=6), random.Random(0)
    before = x.tobytes()
    for _ in range(40):
        strike(dice.uniform(2e-4, 8e-3), lambda: hessian(lambda x: float(x[0] * x[1]), x))
        assert x.tobytes() == before


@REPEATABLE
@given(shape=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), seed=st.integers(0, 2**32 - 1))
def test_products_of_quadratic_forms_are_exact_up_to_rounding(shape, seed):
    generator = np.random.default_rng(seed)
    n = int(np.prod(shape))
    A = generator.uniform(-1, 1, (n, n))
    A = A + A.T
    x, v = (np.array(part) for part in generator.uniform(-1, 1, (2, *shape)))
    before = x.tobytes()
    result = hessian_vector_product(lambda x: x.ravel() @ A @ x.ravel() / 2, x, v)
    assert x.tobytes() == before
    assert result.shape == shape
    # Values of at most 81, rounded 20 times, at four points, over 4 h h with both above 5e-5 of a
    # shift of 1.
    assert (abs(result.ravel() - A @ v.ravel()) <= 81 * 20 * EPS * 4 / 4 / 25e-10).all()


def test_products_of_structures_float32_and_compiled_functions():
    numba = pytest.importorskip("numba")
    x, v = {"a": np.array([1.0, 2.0])}, {"a": np.array([1.0, 1.0])}
    result = hessian_vector_product(lambda x: x["a"][0] ** 2 * x["a"][1], x, v)
    np.testing.assert_allclose(result["a"], [6, 2], atol=1e-6)

    @numba.njit
    def f(x, k):
        return k * np.exp(x[0]) * x[1]

    x = np.array([0.5, 1.0])
    expected = 2 * np.exp(0.5) * np.array([2.0, 1.0])
    result = hessian_vector_product(f, x, np.ones(2), args=(2.0,))
    np.testing.assert_allclose(result, expected, atol=1e-6)
    single = hessian_vector_product(
        f.py_func if hasattr(f, "py_func") else f, x.astype("f4"), np.ones(2), args=(2.0,)
    )
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=5e-2)


def test_a_product_needs_a_function_of_one_number():
    with pytest.raises(ValueError, match="single number"):
        hessian_vector_product(lambda x: x, np.ones(2), np.ones(2))


@pytest.mark.parametrize(
    ("f", "x", "slope", "within"),
    [
        (lambda x: np.sin(1e6 * x).sum(), 0.3, 1e6 * np.cos(3e5), 1e-7),
        (lambda x: np.sin(x).sum(), 1e8, np.cos(1e8), 1e-5),
        (lambda x: float(np.square(x.astype("f4")).sum()), 0.7, 1.4, 1e-6),
        (lambda x: round(float(np.square(x).sum()), 6), 0.7, 1.4, 1e-6),
    ],
)
def test_the_step_is_measured(f, x, slope, within):
    found = directional_derivative(f, np.array([x]), np.array([2.0]))
    assert abs(found - 2 * slope) <= within * abs(2 * slope)


@pytest.mark.parametrize("w", [1e-3, 1.0, 100.0])
def test_steps_of_products_are_measured(w):
    x, v = np.array([0.3, 0.5]), np.array([1.0, -2.0])
    found = hessian_vector_product(lambda x: np.sin(w * x[0]) * np.exp(w * x[1] / 9), x, v)
    a, b = np.sin(w * x[0]), np.exp(w * x[1] / 9)
    mixed = w * w / 9 * np.cos(w * x[0]) * b
    exact = np.array([[-w * w * a * b, mixed], [mixed, w * w / 81 * a * b]]) @ v
    assert (abs(found - exact) <= 1e-5 * abs(exact).max()).all()
