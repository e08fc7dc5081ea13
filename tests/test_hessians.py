"""Second derivatives are right and symmetric, and x is as it was."""

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from counting import counted
from curved import smooth, smooths_hessian
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import hessian, schemes

REPEATABLE = settings(derandomize=True, deadline=None)
EPS = np.finfo(float).eps


@REPEATABLE
@given(shape=hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), seed=st.integers(0, 2**32 - 1))
def test_quadratic_forms_are_exact_up_to_rounding(shape, seed):
    generator = np.random.default_rng(seed)
    n = int(np.prod(shape))
    A = generator.uniform(-1, 1, (n, n))
    A = A + A.T
    x = np.array(generator.uniform(-1, 1, shape))
    result = hessian(lambda x: x.ravel() @ A @ x.ravel() / 2, x)
    assert result.shape == shape + shape
    square = result.reshape(n, n)
    assert (square == square.T).all()
    # Values of at most 81, rounded 20 times, at four points, over h**2 with h above 1e-4.
    assert (abs(square - A) <= 81 * 20 * EPS * 4 / (4 * 1e-8)).all()


def test_second_derivatives_of_smooth_functions():
    x = np.array([0.3, -0.7, 1.2])
    result = hessian(lambda x: np.exp(x[0]) * np.sin(x[1]) + x[2] ** 4 * x[0], x)
    e, s, c = np.exp(x[0]), np.sin(x[1]), np.cos(x[1])
    expected = np.array(
        [
            [e * s, e * c, 4 * x[2] ** 3],
            [e * c, -e * s, 0],
            [4 * x[2] ** 3, 0, 12 * x[2] ** 2 * x[0]],
        ]
    )
    # sqrt(eps) = 1.5e-8 for the balanced step, times fourth derivatives of some ten.
    np.testing.assert_allclose(result, expected, atol=1e-6)


def test_f_may_ignore_its_argument_in_any_layout():
    x = np.random.default_rng(0).normal(size=(4, 6))[::2, ::-3].T
    before = x.copy()
    result = hessian(lambda _: float((x**3).sum()), x)
    assert x.tobytes() == before.tobytes()
    expected = np.zeros(x.shape + x.shape)
    for i in np.ndindex(x.shape):
        expected[i + i] = 6 * x[i]
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_f_is_called_as_often_as_said():
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        return float((x**2).sum())

    hessian(f, np.ones(5), 1e-4)
    # f(x) for its precision and once for the diagonal, two for each element, four for each pair.
    assert calls == 2 + 2 * 5 + 4 * 10
    calls = 0
    hessian(f, np.ones(5))
    # Measured at two steps for each element.
    assert calls == 1 + 2 * 2 * 5 + 4 * 10


def test_bounds_are_never_left_and_mixed_derivatives_stay_right():
    def f(x):
        assert (x >= 0).all()
        assert x[1] <= 1
        return np.exp(x[0] * x[1] + x[2])

    x = np.array([0.0, 1.0, 0.5])
    result = hessian(f, x, bounds=([0, 0, 0], [np.inf, 1, np.inf]))
    g = np.array([x[1], x[0], 1.0])
    twice = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])
    expected = f(x) * (np.outer(g, g) + twice)
    # One-sided second differences: 11 / 12 h**2 times fourth derivatives, and 10 eps / h**2.
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_float32_has_half_of_its_digits():
    x = np.float32([0.5, 1.0])
    result = hessian(lambda x: np.exp(x).prod(), x)
    assert result.dtype == np.float32
    # sqrt(eps) = 3.5e-4, times values of 4.5 and a few.
    np.testing.assert_allclose(result, np.exp(1.5) * np.ones((2, 2)), atol=2e-2)


@pytest.mark.parametrize("fatal", [1, 2, 4, 7, 10])
def test_x_is_restored_and_the_exception_passes_unchanged(fatal):
    x, error = np.array([0.1, -0.0]), KeyboardInterrupt("mine")
    before = x.tobytes()
    with pytest.raises(KeyboardInterrupt) as raised:
        hessian(counted(lambda x: 1.0, fatal, error), x)
    assert raised.value is error
    assert x.tobytes() == before


def test_arguments_steps_and_compiled_functions():
    numba = pytest.importorskip("numba")

    @numba.njit
    def f(x, k):
        return k * x[0] ** 2 * x[1]

    x = np.array([1.0, 2.0])
    for options in ({}, {"engine": "loop"}, {"h": 1e-3}, {"h": np.array([1e-3, 1e-4])}):
        result = hessian(f, x, args=(3.0,), **options)
        np.testing.assert_allclose(result, [[12, 6], [6, 0]], atol=1e-5)


def test_an_empty_x_has_an_empty_hessian():
    assert hessian(lambda x: 1.0, np.zeros((0, 2))).shape == (0, 2, 0, 2)


@pytest.mark.parametrize(
    ("f", "x", "error", "message"),
    [
        (lambda x: 1.0, {"a": np.ones(2, int)}, TypeError, "int64"),
        (lambda x: 1.0, "1.0", TypeError, "np.asarray"),
        (lambda x: 1j, np.ones(2), TypeError, "complex128"),
    ],
)
def test_what_is_wrong_is_said(f, x, error, message):
    with pytest.raises(error, match=message):
        hessian(f, x)


@pytest.mark.parametrize(
    ("scheme", "error", "calls"),
    [
        # Truncation of some h**2, h**4 or h times higher derivatives of some ten; rounding of some
        # eps / h**2, or eps / h for the complex step: balanced, but for what is measured.
        ("central", 1e-6, 1 + 3 * 2 * 3 + 4 * 3),
        (schemes.central(4), 1e-8, 1 + 6 * 2 * 3 + 16 * 3),
        ("forward", 1e-3, 100),
        ("backward", 1e-3, 100),
        ("complex", 1e-9, 1 + 2 * 6 + 7),  # seven see whether f is analytic
    ],
)
def test_schemes_are_applied_twice(scheme, error, calls):
    x = np.array([0.3, -0.7, 1.2])
    f = counted(smooth)
    result = hessian(f, x, scheme=scheme)
    np.testing.assert_allclose(result, smooths_hessian(x), rtol=0, atol=error)
    assert f.calls <= calls


def test_forward_differences_take_a_quarter_of_the_calls():
    counts = []
    for scheme in ("central", "forward"):
        f = counted(lambda x: float((x**2).prod()))
        hessian(f, np.linspace(1, 2, 12), 1e-4, scheme=scheme)
        counts.append(f.calls)
    assert counts[1] < 0.45 * counts[0]  # of many elements a quarter


def test_several_numbers_have_a_hessian_each():
    x = np.array([0.3, -0.7, 1.2])
    result = hessian(lambda x: np.stack([smooth(x), 2 * smooth(x)]).reshape(1, 2), x)
    assert result.shape == (1, 2, 3, 3)
    for k in range(2):
        np.testing.assert_allclose(result[0, k], (k + 1) * smooths_hessian(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"scheme": "complex"}, {"scheme": "forward"}, {"h": 1e-4}])
def test_structures_have_blocks(options):
    values = [0.3, -0.7, 1.2]
    x = {"a": np.array(values[:1]), "b": (np.array(values[1]), np.array([values[2:]]))}
    before = repr(x)
    result = hessian(
        lambda x: smooth(np.concatenate([x["a"], [x["b"][0]], x["b"][1][0]])), x, **options
    )
    assert result["a"]["a"].shape == (1, 1)
    assert result["b"][1]["a"].shape == (1, 1, 1)
    rows = [
        [np.ravel(block)[0] for block in (row["a"], *row["b"])]
        for row in (result["a"], *result["b"])
    ]
    np.testing.assert_allclose(rows, smooths_hessian(values), rtol=0, atol=1e-3)
    assert repr(x) == before


def test_workers_stacks_and_bounds_serve_all_schemes():
    x = np.array([0.3, -0.7, 1.2])
    expected = hessian(smooth, x, 1e-4)
    assert (hessian(smooth, x, 1e-4, workers=map_in_order) == expected).all()
    stacked = hessian(lambda s: np.array([smooth(x) for x in s]), x, 1e-4, vectorized=True)
    np.testing.assert_allclose(stacked, expected, rtol=0, atol=1e-8)
    for scheme in ("central", "forward", "complex", schemes.central(4)):
        result = hessian(smooth, x, scheme=scheme, bounds=(x, x + 1))
        np.testing.assert_allclose(result, smooths_hessian(x), rtol=0, atol=1e-2)


def map_in_order(function, items):
    return map(function, items)


def test_schemes_for_second_derivatives_are_refused():
    with pytest.raises(ValueError, match="applied twice"):
        hessian(smooth, np.ones(3), scheme=schemes.central(2, 2))
