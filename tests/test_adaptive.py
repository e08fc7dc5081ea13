"""Gradients of differentiate are right, their errors honest, and x is as it was."""

import dataclasses

import hypothesis.extra.numpy as hnp
import mpmath
import numpy as np
import pytest
from counting import counted
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import differentiate, numerical_gradient, schemes

REPEATABLE = settings(derandomize=True, deadline=None)
EPS = np.finfo(float).eps

SMOOTH = {
    "exp": (np.exp, mpmath.exp),
    "sine": (np.sin, mpmath.sin),
    "root": (lambda x: np.sqrt(1 + x**2), lambda x: mpmath.sqrt(1 + x**2)),
    "peak": (lambda x: 1 / (1 + x**2), lambda x: 1 / (1 + x**2)),
    "tanh": (np.tanh, mpmath.tanh),
}


def at(f, x, **options):
    """Differentiate a function of one number."""
    return differentiate(lambda a: f(a[()]), np.array(x), **options)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("scheme", ["central", "forward", "backward", schemes.central(4)])
def test_errors_are_honest_for_smooth_functions(name, scheme):
    f, exact = SMOOTH[name]
    x = np.random.default_rng(0).normal(scale=2, size=40)
    found = differentiate(lambda x: float(f(x).sum()), x, scheme=scheme)
    true = np.array([float(mpmath.diff(exact, value)) for value in x])
    assert (abs(found.gradient - true) <= found.error).all()
    # The sum is about 40 large, its rounding eps * 40 / h.
    assert (found.error <= 1e-8).all()


@REPEATABLE
@given(
    x=hnp.arrays(np.float64, st.integers(1, 4), elements=st.floats(-10, 10)),
    seed=st.integers(0, 2**32 - 1),
)
def test_polynomials_are_exact_up_to_rounding(x, seed):
    a, b, c = np.random.default_rng(seed).uniform(-1, 1, (3, x.size))
    found = differentiate(lambda x: float((a * x**3 + b * x**2 + c * x).sum()), x)
    exact = 3 * a * x**2 + 2 * b * x + c
    assert (abs(found.gradient - exact) <= found.error).all()


def test_the_result_is_frozen_and_says_how():
    f = counted(lambda x: float((x**2).sum()))
    found = differentiate(f, np.array([1.0, 3.0]))
    assert found.evaluations == f.calls
    assert found.engine == "loop"
    assert found.seconds > 0
    assert (found.step > 0).all()
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.gradient = 0


def test_only_elements_that_are_not_good_enough_are_evaluated_again():
    calls = []

    def f(x):
        calls.append(x.copy())
        return float(x[0] ** 2 + np.sin(40 * x[1]))

    x = np.array([1.0, 1.0])
    differentiate(f, x)
    moved = np.array([point != x for point in calls]).sum(axis=0)
    assert moved[0] < moved[1]


def test_tolerance_saves_evaluations():
    few, many = at(np.exp, 1.0, tolerance=1e-6), at(np.exp, 1.0)
    assert few.evaluations < many.evaluations
    assert abs(few.gradient - np.e) <= few.error <= 1e-6 * np.e


def test_x_may_be_a_structure_and_f_have_arguments():
    x = {"a": np.array([1.0, 2.0]), "b": (np.array(3.0),)}
    found = differentiate(lambda x, k: float(k * (x["a"] ** 2).sum() * x["b"][0]), x, args=(2,))
    np.testing.assert_allclose(found.gradient["a"], 12 * x["a"], rtol=1e-12)
    np.testing.assert_allclose(found.gradient["b"][0], 10, rtol=1e-12)
    assert found.error["a"].shape == (2,)
    assert found.step["b"][0].shape == ()


def test_f_may_ignore_its_argument_and_any_layout_serves():
    x = np.random.default_rng(0).normal(size=(4, 6))[::2, ::-2].T
    before = x.copy()
    found = differentiate(lambda _: float(np.sin(x).sum()), x)
    assert x.tobytes() == before.tobytes()
    assert found.gradient.strides == np.zeros_like(x).strides
    assert (abs(found.gradient - np.cos(x)) <= found.error).all()


@pytest.mark.parametrize("fatal", [1, 2, 5, 9, 10, 12])
def test_x_is_restored_and_the_exception_passes_unchanged(fatal):
    x, error = np.array([0.1, -2.0]), KeyboardInterrupt("mine")
    before = x.tobytes()

    fail = counted(lambda x: float(np.exp(x).sum()), fatal, error)
    with pytest.raises(KeyboardInterrupt) as raised:
        differentiate(fail, x)
    assert raised.value is error
    assert x.tobytes() == before


def test_at_a_kink_the_error_reaches_to_both_slopes():
    for f, slopes in ((abs, (-1, 1)), (lambda x: max(x, 0.0), (0, 1))):
        found = at(f, 0.0)
        for slope in slopes:
            assert abs(found.gradient - slope) <= found.error * (1 + 1e-12)


def test_a_peak_that_is_narrower_than_the_first_steps_is_found():
    found = at(lambda x: np.exp(-((1e4 * (x - 1)) ** 2)), 1 + 3e-5)
    u = (1 + 3e-5) - 1
    exact = -2e8 * u * np.exp(-((1e4 * u) ** 2))
    assert abs(found.gradient - exact) <= found.error < 1e-6 * abs(exact)


@pytest.mark.parametrize("power", [0.1, 1 / 3, 0.5])
def test_at_a_cusp_the_slopes_cancel_and_no_limit_is_claimed(power):
    found = differentiate(lambda x: abs(x[0]) ** power, np.zeros(1))
    assert found.status == "no limit"
    assert found.error > 1
    with pytest.warns(RuntimeWarning, match="no step suits f"):
        numerical_gradient(lambda x: abs(x[0]) ** power, np.zeros(1), "auto")


def test_a_peak_far_narrower_than_the_first_steps_is_found():
    # tanh((4020 x + 1)**2): the steps begin at 1/4, from where all but f(x) itself is flat.
    found = differentiate(lambda x: np.tanh((4020 * x[0] + 1) ** 2), np.zeros(1))
    np.testing.assert_allclose(found.gradient, 4020 * 2 / np.cosh(1) ** 2, rtol=1e-9)
    kink = differentiate(lambda x: np.tanh(8.46 * abs(x[0])), np.zeros(1))
    assert kink.status == "no limit"
    assert kink.error > 7


@pytest.mark.parametrize("distance", [0.3, 1e-2, 1e-5])
def test_a_kink_nearby_is_stepped_under(distance):
    found = at(lambda x: max(float(x) - 1, 0.0), 1 - distance)
    assert found.gradient == 0
    found = at(lambda x: max(float(x) - 1, 0.0), 1 + distance)
    assert abs(found.gradient - 1) <= found.error < 1e-6


@pytest.mark.parametrize("level", [1e-3, 1e-6, 1e-9])
def test_noise_that_is_not_rounding_is_in_the_error(level):
    inside = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        found = at(lambda x, g=generator: float(np.sin(x)) + level * g.normal(), 1.0)
        inside += abs(found.gradient - np.cos(1)) <= found.error
    # Of noise of an unknown size there are a dozen samples: four fifths are what can be had.
    assert inside >= 16


def test_the_edge_of_the_domain_is_kept_away_from():
    with np.errstate(all="ignore"):
        for x in (1e-9, 1e-3, 1.0):
            found = at(np.log, x)
            assert abs(found.gradient - 1 / x) <= found.error <= 1e-11 / x
        shifted = at(lambda x: np.log(x - 5), 5.001)
        close = at(lambda x: np.log(x - 5), 5 + 2.0**-20)
    assert abs(close.gradient - 2**20) <= close.error <= 1e-3 * close.gradient
    assert abs(shifted.gradient - 1 / (5.001 - 5)) <= shifted.error <= 1e-6 * shifted.gradient


def test_offsets_may_be_in_any_order():
    scheme = schemes.Scheme((-2, 1, -1, 2), (1, 8, -8, -1), 12)
    for x in (0.0, 1.0):
        found = at(np.exp, x, scheme=scheme)
        assert abs(found.gradient - np.exp(x)) <= found.error < 1e-11


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_where_there_is_no_derivative_the_error_is_infinite(value):
    found = at(lambda x: value, 0.5)
    assert np.isnan(found.gradient)
    assert found.error == np.inf
    assert found.status == "no limit"


@pytest.mark.parametrize("x", [0.0, 1e-9, 0.5, 1 - 1e-9, 1.0])
def test_bounds_are_never_left(x):
    def f(x):
        assert 0 <= x <= 1
        return np.exp(x)

    found = at(f, x, bounds=(0, 1))
    assert abs(found.gradient - np.exp(x)) <= found.error <= 1e-9


def test_far_too_large_and_small_first_steps_are_noticed():
    for f, derivative, x in (
        (lambda x: np.sin(1e6 * x), lambda x: 1e6 * mpmath.cos(1e6 * x), 1.0),
        (np.cos, lambda x: -mpmath.sin(x), 1e-6),
    ):
        found, exact = at(f, x), float(derivative(mpmath.mpf(x)))
        assert abs(found.gradient - exact) <= found.error <= 1e-5 * abs(exact)


def test_float32_has_the_errors_of_float32():
    x = np.float32([0.5, 1.0, 2.0])
    found = differentiate(lambda x: np.exp(x).sum(), x)
    assert found.gradient.dtype == np.float32
    assert (abs(found.gradient - np.exp(x.astype(float))) <= found.error).all()
    assert (found.error <= 1e-4).all()


@pytest.mark.parametrize("x", [-1.98778, 3.61847, -3.92607])
def test_flat_tails_far_out_are_not_taken_for_the_derivative(x):
    x = np.array(x, np.float32)
    found = differentiate(lambda x: np.exp(-(x[()] ** 2) / 2), x)
    exact = -x.astype(float) * np.exp(-(x.astype(float) ** 2) / 2)
    assert abs(found.gradient - exact) <= found.error < 1e-3 * abs(exact)


def test_float32_values_of_a_float64_x_are_noticed():
    found = at(lambda x: np.float32(np.exp(x)), 1.0)
    assert abs(found.gradient - np.e) <= found.error
    assert 1e-8 < found.error < 1e-4


def test_the_complex_step_needs_one_evaluation_an_element_and_seven_for_all():
    """f itself, and six that see whether it is analytic."""
    f = counted(lambda x: np.exp(x).sum())
    x = np.array([0.0, 1.0])
    found = differentiate(f, x, scheme="complex")
    assert found.evaluations == f.calls == 2 + 7
    assert (abs(found.gradient - np.exp(x)) <= found.error).all()
    assert (found.error <= 1e-14).all()


def test_integers_and_constants_have_derivatives():
    assert differentiate(lambda x: 3, np.ones(2)).gradient.tolist() == [0, 0]
    assert (differentiate(lambda x: 3, np.ones(2)).error < 1e-14).all()


def test_an_empty_x_is_not_evaluated():
    found = differentiate(lambda x: 1 / 0, np.zeros((0, 3)))
    assert found.gradient.shape == (0, 3)
    assert found.evaluations == 0


@pytest.mark.parametrize("h", [1.0, 0.1, np.array([0.5, 1e-3])])
def test_the_first_step_may_be_given(h):
    x = np.array([0.0, 1.0])
    points = []

    def f(x):
        points.append(x.copy())
        return float(np.exp(x).sum())

    found = differentiate(f, x, h)
    assert (abs(found.gradient - np.exp(x)) <= found.error).all()
    first = points[1][0] - x[0]
    assert np.max(h) / 2 < first <= np.max(h)
    assert np.log2(first) == int(np.log2(first))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tolerance": -1}, "tolerance is -1"),
        ({"tolerance": np.nan}, "tolerance is nan"),
        ({"engine": "traced"}, "serves numerical_gradient alone"),
        ({"engine": "none"}, "does not exist"),
        ({"relative": True}, "leave out relative"),
        ({"h": 0}, "positive"),
        ({"bounds": (2, 3)}, "outside of its bounds"),
    ],
)
def test_wrong_values_are_refused_before_f_is_called(options, message):
    f = counted(lambda x: 1.0)
    with pytest.raises(ValueError, match=message):
        differentiate(f, np.ones(2), **options)
    assert f.calls == 0


@pytest.mark.parametrize(
    ("x", "options", "error", "message"),
    [
        (["1"], {}, TypeError, "np.asarray"),
        (np.ones(2), {"tolerance": "1"}, TypeError, "tolerance is '1'"),
        (np.ones(2), {"h": "best"}, TypeError, "'best'"),
        (np.ones(2, dtype=int), {}, TypeError, "astype"),
        (np.array([1.0, np.inf]), {}, ValueError, r"x\[1\] is inf"),
    ],
)
def test_wrong_types_are_refused_before_f_is_called(x, options, error, message):
    f = counted(lambda x: 1.0)
    with pytest.raises(error, match=message):
        differentiate(f, x, **options)
    assert f.calls == 0


def test_compiled_functions_are_served():
    numba = pytest.importorskip("numba")

    @numba.njit
    def f(x):
        return np.exp(x).sum()

    x = np.array([0.5, 1.0, 2.0])
    found, looped = differentiate(f, x), differentiate(f, x, engine="loop")
    np.testing.assert_array_equal(found.gradient, looped.gradient)
    np.testing.assert_array_equal(found.error, looped.error)
    assert found.evaluations == looped.evaluations
    assert looped.engine == "loop"


@pytest.mark.parametrize("accuracy", [2, 4, 8])
@pytest.mark.parametrize("order", range(3, 12))
def test_errors_of_high_derivatives_cover_what_is_wrong(order, accuracy):
    scheme = schemes.central(accuracy, order)
    for x in (0.1, 0.5, 3.0):
        found = differentiate(np.sin, x, scheme=scheme)
        assert abs(found.gradient - np.sin(x + order * np.pi / 2)) <= found.error


@pytest.mark.parametrize("h", [1e-20, 1e-3, 0.5])
@pytest.mark.parametrize("x", [1.0, np.array([0.3, 2.0])])
def test_a_given_complex_step_is_as_exact_as_it_says(h, x):
    seen = []
    found = differentiate(
        lambda x: (x**3).sum(), x, h, scheme="complex", progress=lambda *done: seen.append(done)
    )
    assert (abs(found.gradient - 3 * x**2) <= found.error).all()
    assert found.error.max() < 1e-13 + h**2
    analytic = 6 if h < 1e-10 else 7  # calls that see whether f is
    assert found.evaluations == 1 + analytic + 2 * np.size(x)
    assert seen[-1] == (np.size(x), np.size(x))


def test_a_notebook_shows_a_table_of_the_first_derivatives():
    found = differentiate(
        lambda x: (x["a"] ** 2).sum() + x["b"].sum(), {"a": np.arange(20.0), "b": np.ones(1)}
    )
    html = found._repr_html_()
    assert html.startswith("<p>21 derivatives by ")
    assert html.count("<tr>") == 11
    assert "<td>x[&#x27;a&#x27;][9]</td><td>18</td>" in html
    assert "<td>x</td><td>6</td>" in differentiate(lambda x: x**2, np.array(3.0))._repr_html_()


def test_where_f_is_nan_on_one_side_the_other_one_is_taken_and_named():
    def f(x):
        return np.where(x >= 0, np.exp(x), np.nan).sum()

    with pytest.warns(RuntimeWarning, match=r"one side of x\[1\]: the derivatives"):
        found = differentiate(f, np.array([1.0, 0.0]))
    np.testing.assert_allclose(found.gradient, [np.e, 1], rtol=1e-9)
    assert (abs(found.gradient - [np.e, 1]) <= found.error).all()
    assert (found.status == "converged").all()
    with pytest.warns(RuntimeWarning, match=r"one side of x\[0\]"):
        assert differentiate(lambda x: f(-x), np.zeros(1)).gradient == pytest.approx(-1)
    assert np.isnan(differentiate(lambda x: x[0] if x[0] == 0 else np.nan, np.zeros(1)).gradient)


@pytest.mark.parametrize("x", [1e-16, -1e-13])
def test_x_near_0_is_no_scale_of_f_where_it_leaves_no_digits(x):
    # f rounds to 2e-16: over a quarter of x it hardly changes.
    found = at(lambda x: 0.5 + np.sin(x + 0.5), x)
    assert found.status == "converged"
    assert abs(found.gradient - np.cos(x + 0.5)) <= found.error < 1e-11
    assert found.evaluations < 40  # of two first steps


@pytest.mark.parametrize(
    ("f", "x", "exact"),
    [
        (lambda x: np.maximum(x, 0), np.array(-0.5), 0.0),
        (lambda x: np.sin(np.sin(x)), np.array(100.0), np.cos(np.sin(100)) * np.cos(100)),
        (lambda x: np.sin(x), np.array(0.25, np.float32), np.cos(0.25)),
    ],
)
def test_slopes_of_0_waves_and_float32_converge_to_half_of_their_digits(f, x, exact):
    found = differentiate(lambda x: f(x[()]), x)
    assert found.status == "converged"
    assert abs(found.gradient - exact) <= found.error


def test_what_is_0_all_around_but_not_seen_from_afar_may_be_lost_inside_f():
    # cos rounds to 1 at 1e-9; where f really is 0, out to 1e-3, it looks the same.
    for f in (lambda x: np.log(np.cos(x)), lambda x: x * (abs(x) > 1e-3)):
        found = at(f, 1e-12)
        assert found.gradient == 0
        assert found.status == "no limit"
