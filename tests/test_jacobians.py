"""Derivatives of functions of many numbers are right, and of the shape that is promised."""

import hypothesis.extra.numpy as hnp
import numba
import numpy as np
import pytest
from counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import JIT

from fastgrad import jacobian, schemes
from fastgrad.differences import measured_steps, quotients

REPEATABLE = settings(derandomize=True, deadline=None)
EPS = np.finfo(float).eps


@REPEATABLE
@given(
    out=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
    inside=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
    seed=st.integers(0, 2**32 - 1),
)
def test_linear_maps_are_their_own_jacobians(out, inside, seed):
    generator = np.random.default_rng(seed)
    A = generator.uniform(-1, 1, out + inside)
    x = generator.uniform(-1, 1, inside)
    result = jacobian(lambda x: np.tensordot(A, x, x.ndim), x)
    assert result.shape == out + inside
    # Sums of at most 9 terms, each at most 1, rounded 10 times, at two points; divided by 2h with
    # h at least 8e-6 / sqrt(2).
    assert (abs(result - A) <= 9 * 10 * EPS / 5e-6).all()


@pytest.mark.parametrize(
    "scheme", ["central", "forward", "backward", "complex", schemes.central(4)]
)
def test_every_scheme_serves(scheme):
    x = np.random.default_rng(0).normal(size=4)
    result = jacobian(lambda x: np.stack([np.sin(x), np.exp(x)]), x, scheme=scheme)
    expected = np.stack([np.diag(np.cos(x)), np.diag(np.exp(x))])
    # The least accurate, forward: sqrt(eps) times second derivatives of a few.
    assert result.shape == (2, 4, 4)
    np.testing.assert_allclose(result, expected, atol=1e-6)
    if scheme == "complex":
        np.testing.assert_allclose(result, expected, rtol=4 * EPS, atol=0)


def test_a_function_of_one_number_has_its_gradient_as_jacobian():
    x = np.array([3.0, 4.0])
    np.testing.assert_allclose(jacobian(lambda x: (x**2).sum(), x), 2 * x, rtol=1e-9)
    assert jacobian(lambda x: (x**2).sum(), x).shape == (2,)
    assert jacobian(lambda x: x**2, np.array(3.0)).shape == ()
    assert jacobian(lambda x: [float(x), 2.0], np.array(3.0)).tolist() == [1, 0]
    assert jacobian(lambda x: x.reshape(1, 2), x).shape == (1, 2, 2)


def test_structures_give_structures():
    x = {"W": np.ones((2, 3)), "b": (np.array(2.0),)}
    result = jacobian(lambda x, k: k * x["b"][0] * x["W"].sum(axis=0), x, args=(3.0,))
    assert result["W"].shape == (3, 2, 3)
    assert result["b"][0].shape == (3,)
    np.testing.assert_allclose(result["b"][0], 6, rtol=1e-9)


def test_f_may_ignore_its_argument_in_any_layout_and_return_the_same_array():
    x = np.random.default_rng(0).normal(size=(4, 6))[::2, ::-2].T
    before, out = x.copy(), np.empty(x.shape)

    def f(_):
        out[...] = x**2
        return out

    result = jacobian(f, x)
    assert x.tobytes() == before.tobytes()
    expected = np.zeros((3, 2, 3, 2))
    for i in np.ndindex(3, 2):
        expected[i + i] = 2 * x[i]
    np.testing.assert_allclose(result, expected, atol=1e-8)


def test_the_type_is_that_of_the_values():
    x = np.array([1.0, 2.0])
    assert jacobian(lambda x: x.astype("f4"), x).dtype == np.float32
    assert jacobian(lambda x: x, x.astype("f4")).dtype == np.float32
    assert jacobian(lambda x: (100 * x).astype("u1"), x, 0.5).tolist() == [[100, 0], [0, 100]]


def test_float32_has_the_digits_of_float32():
    x = np.float32([0.5, 1.0, 2.0])
    expected = np.diag(np.exp(x))
    # eps**(2/3) = 2.4e-5, times a few for values up to 7.
    np.testing.assert_allclose(jacobian(np.exp, x), expected, atol=1e-3)


def test_bounds_are_never_left():
    def f(x):
        assert (x >= 0).all()
        return np.exp(x) * [1, 2, 3]

    x = np.array([0.0, 1e-9, 1.0])
    result = jacobian(f, x, bounds=(0, np.inf))
    np.testing.assert_allclose(result, np.diag(np.exp(x) * [1, 2, 3]), atol=1e-7)


@pytest.mark.parametrize("fatal", [1, 2, 4])
def test_x_is_restored_and_the_exception_passes_unchanged(fatal):
    x, error = np.array([0.1, -0.0]), KeyboardInterrupt("mine")
    before = x.tobytes()
    with pytest.raises(KeyboardInterrupt) as raised:
        jacobian(counted(lambda x: x, fatal, error), x)
    assert raised.value is error
    assert x.tobytes() == before


def test_empty_arrays_have_empty_jacobians():
    assert jacobian(lambda x: np.ones(3), np.zeros(0)).shape == (3, 0)
    assert jacobian(lambda x: np.ones(0), np.zeros(2)).shape == (0, 2)


def test_many_elements_are_differenced_in_blocks(monkeypatch):
    x = np.arange(5.0)
    for module in (quotients, measured_steps):
        monkeypatch.setattr(module, "BLOCK_DERIVATIVES", 7)
    for h in (1e-4, "auto"):
        np.testing.assert_allclose(jacobian(lambda x: x**2, x, h), np.diag(2 * x), atol=1e-8)


def test_scipys_least_squares_takes_it_as_jac():
    optimize = pytest.importorskip("scipy.optimize")
    t = np.linspace(0, 2, 15)
    true = np.array([2.0, -1.3, 0.4])
    y = true[0] * np.exp(true[1] * t) + true[2]

    def residuals(p):
        return p[0] * np.exp(p[1] * t) + p[2] - y

    fit = optimize.least_squares(residuals, [1.0, -1.0, 0.0], jac=lambda p: jacobian(residuals, p))
    np.testing.assert_allclose(fit.x, true, atol=1e-8)
    assert fit.njev is not None


def test_compiled_functions_are_served_unless_they_return_arrays_of_different_shapes():
    @numba.njit
    def f(x):  # np.outer would be compiled for six seconds
        products = np.empty((x.size, x.size))
        for i in range(x.size):
            for j in range(x.size):
                products[i, j] = (x[i] * x[j]) ** 2
        return products[: 2 if x[0] > 3 else 3]

    x, eye = np.array([0.5, 1.0, 2.0]), np.eye(3)
    slopes = eye[:, np.newaxis] * x[:, np.newaxis] + x[:, np.newaxis, np.newaxis] * eye
    result = jacobian(f, x)
    exact = 2 * np.outer(x, x)[..., np.newaxis] * slopes
    np.testing.assert_allclose(result, exact, atol=1e-7)  # 4 h**2 x of truncation
    assert result.tobytes() == jacobian(f, x, engine="compiled").tobytes()
    assert result.tobytes() == jacobian(f, x, engine="loop").tobytes()
    if JIT:
        with pytest.raises(ValueError, match="arrays of different shapes"):
            jacobian(f, [3.0, 1.0, 2.0], engine="compiled")


@pytest.mark.parametrize(
    ("f", "options", "error", "message"),
    [
        (lambda x: "no", {}, TypeError, "must return real numbers"),
        (lambda x: x + 1j, {}, TypeError, "complex128"),
        (lambda x: x, {"engine": "traced"}, ValueError, "numerical_gradient alone"),
        (lambda x: x, {"engine": "none"}, ValueError, "does not exist"),
        (lambda x: x, {"h": "best"}, TypeError, "'best'"),
        (lambda x: x, {"h": -1}, ValueError, "positive"),
        (lambda x: x, {"relative": True}, ValueError, "leave out relative"),
        (lambda x: x[: 1 + (x[0] > 1)], {}, ValueError, "of one shape"),
        (3, {}, TypeError, "cannot be called"),
    ],
)
def test_what_is_wrong_is_said(f, options, error, message):
    x = np.ones(2)
    with pytest.raises(error, match=message):
        jacobian(f, x, **options)
    assert x.tolist() == [1, 1]


def test_infinite_elements_are_refused():
    with pytest.raises(ValueError, match=r"x\[1\] is inf"):
        jacobian(lambda x: x, np.array([1.0, np.inf]))
