"""Error estimates of differentiate are honest where f looks smooth and is not."""

import math

import numpy as np
import pytest

from benchmarks.measure.honesty import SMOOTH, is_wrong, rough, waves
from fastgrad import differentiate, schemes


def at(f, x, **options):
    return differentiate(lambda a: f(float(a[()])), np.array(x), **options)


@pytest.mark.parametrize("cases", [waves(120, 1), rough(80, 1)], ids=["waves", "rough"])
def test_hardly_any_derivative_is_off_by_more_than_ten_times_its_estimate(cases):
    assert sum(is_wrong(case) for case in cases) <= 1


def test_arguments_that_f_rounds_to_float32_are_jumps_and_no_slopes_of_their_own():
    draw, wrong = np.random.default_rng(0), 0
    for k in range(120):
        f, derivative = [*SMOOTH.values()][k % len(SMOOTH)]
        u, s = draw.normal(), 10 ** draw.uniform(-3, 3)
        found = at(lambda x, f=f, s=s: float(f(float(np.float32(x / s)))), u * s)
        wrong += not abs(found.gradient - derivative(u) / s) <= 10 * found.error
    assert wrong <= 1


@pytest.mark.parametrize(
    ("w", "p", "x"), [(100, 0, 0.5), (100, 0.3, 100.0), (128 * np.pi, 0, 0.5), (1000, 1, 7.0)]
)
def test_waves_that_fit_into_the_steps_are_seen(w, p, x):
    found = at(lambda x: np.sin(w * x + p), x)
    exact = w * np.cos(w * x + p)
    assert abs(found.gradient - exact) <= 10 * found.error
    assert found.error < 1e-3 * w


def test_rounded_values_have_the_derivative_that_they_are_rounded_from():
    for x in (0.1, 0.5, 0.9):
        for f, tolerance in (
            (lambda x: round(float(np.exp(x)), 5), 1e-2),
            (lambda x: float(np.exp(np.float32(x))), 1e-3),
            (lambda x: float(f"{np.exp(x):.6g}"), 1e-2),
            (lambda x: float(np.float32(np.exp(x))) + 1e-3 * x**2, 1e-2),
        ):
            found = at(f, x)
            assert abs(found.gradient / np.exp(x) - 1) < tolerance
            assert abs(found.gradient - np.exp(x)) <= 10 * found.error + 2e-3 * x


@pytest.mark.parametrize(
    ("f", "options"),
    [
        (np.cbrt, {}),
        (np.sign, {}),
        (np.sqrt, {"bounds": (0, None)}),
        (lambda x: np.sqrt(max(x, 0)), {"scheme": "forward"}),
        (lambda x: x * np.log(x) if x > 0 else 0.0, {"bounds": (0, None)}),
    ],
)
def test_an_infinite_slope_has_an_infinite_error(f, options):
    assert at(f, 0.0, **options).error == np.inf


def test_second_derivatives_near_0_do_not_underflow():
    for x in (1e-250, -1e-160, 5e-324, 0.0):
        found = at(lambda x: x * x, x, scheme=schemes.central(2, derivative=2))
        assert abs(found.gradient - 2) <= found.error < 1e-9
        found = at(np.exp, x)
        assert abs(found.gradient - 1) <= found.error < 1e-9


@pytest.mark.parametrize(
    ("f", "x", "exact"),
    [
        (math.asin, 0.999999, (1 - 0.999999**2) ** -0.5),
        (math.log1p, -1 + 2.0**-20, 2.0**20),
        (math.exp, 700.0, math.exp(700)),
        (lambda x: 1 / (1 + math.exp(-1e4 * (x - 1))), 1.0, 2500.0),
    ],
)
def test_where_f_raises_smaller_steps_are_taken(f, x, exact):
    found = at(f, x)
    assert abs(found.gradient - exact) <= found.error < 1e-3 * exact


def test_an_f_that_raises_everywhere_is_heard():
    error = ZeroDivisionError("mine")

    def f(x):
        if x != 1:
            raise error
        return x

    with pytest.raises(ZeroDivisionError) as raised:
        at(f, 1.0)
    assert raised.value is error


@pytest.mark.parametrize(
    ("f", "x", "exact", "within"),
    [
        (np.sin, 1e8, np.cos(1e8), 1e-5),
        (np.sin, -1.2345e12, np.cos(1.2345e12), 0.1),
        (np.sin, 1.2345e15, np.cos(1.2345e15), np.inf),  # one step is 1/8 there
        (lambda x: x + np.sin(x), 1e8, 1 + np.cos(1e8), 1e-5),
        (lambda x: np.cos(x) / x, 1e8, -np.sin(1e8) / 1e8, 0.1),
        (lambda x: np.sin(1e9 * x), 0.3, 1e9 * np.cos(1e9 * 0.3), 1e-4),
        (lambda x: 1 / (1 + np.exp(1e10 - x)), 1e10, 0.25, 1e-3),
    ],
)
def test_f_may_vary_over_distances_far_smaller_than_x(f, x, exact, within):
    with np.errstate(over="ignore"):
        found = at(f, x)
    assert abs(found.gradient - exact) <= found.error
    assert found.error <= within * abs(exact) or within == np.inf


@pytest.mark.parametrize(
    ("f", "x", "exact"),
    [
        (lambda x: float(f"{(x / 0.8) ** 3 - 2 * x / 0.8 - 1:.4g}"), 0.0367, -2.5),
        (lambda x: math.floor(9 / (1 + x * x)) / 9, 0.0857, -0.17),
        (lambda x: math.tanh(round(x, 1)), 0.0717, 0.99),
    ],
)
def test_a_plateau_around_x_is_no_derivative_of_0(f, x, exact):
    found = at(f, x)
    assert abs(found.gradient - exact) <= 10 * found.error


@pytest.mark.parametrize(
    ("f", "x", "exact"),
    [
        (lambda x: round(math.sin(4.1 * x), 5), 13.9, 4.1 * math.cos(4.1 * 13.9)),
        (lambda x: round((x / 100) ** 3 - x / 50, 4), -1.84, 3e-6 * 1.84**2 - 0.02),
        (lambda x: float(np.float32(np.log1p(x * x))), -3.05, -6.1 / (1 + 3.05**2)),
        (lambda x: float(np.float16(np.exp(x))), 0.3, math.exp(0.3)),
        (lambda x: float(f"{np.exp(3 * x):.5e}"), 1.0, 3 * math.exp(3)),
    ],
)
def test_rounding_is_seen_from_few_values(f, x, exact):
    found = at(f, x)
    assert 1e-9 * abs(exact) < found.error < 0.1 * abs(exact)
    assert abs(found.gradient - exact) <= found.error
    assert found.evaluations <= 50


def test_how_far_f_changes_is_not_the_largest_slope_times_the_largest_step():
    # Steps of 1 / 8 do not resolve the sine there.
    for x in np.random.default_rng(0).uniform(8e14, 2e15, 5):
        found = at(np.sin, x)
        assert abs(found.gradient - np.cos(x)) <= 10 * found.error


@pytest.mark.parametrize("power", [1.2, 1.5, 1.7, 1.9])
@pytest.mark.parametrize("x", [1e-16, 1e-13, 1e-10])
def test_next_to_an_unbounded_second_derivative_no_slope_is_claimed(power, x):
    # Beside 1 the power is lost at steps of x's size, and larger ones see an even function.
    found = at(lambda x: 1 + abs(x) ** power, x)
    exact = power * x ** (power - 1)
    assert abs(found.gradient - exact) <= found.error


@pytest.mark.parametrize("height", [1e-6, 1e-3, 1.0])
def test_a_small_kink_is_seen_in_a_function_that_bends(height):
    # The slope jumps by 2 * height at x, from the middle to both sides by one.
    found = at(lambda x: np.sin(x) + height * abs(x - 1), 1.0)
    assert height <= found.error < 10 * height
    assert abs(found.gradient - np.cos(1)) <= found.error


def test_larger_steps_do_not_hide_that_values_are_rounded():
    # Far out values have 12 digits and more, with 5 decimals, which is no short number any more.
    found = at(lambda x: round(float(x**3 - 2 * x), 5), -1.26)
    exact = 3 * 1.26**2 - 2
    assert abs(found.gradient - exact) <= 10 * found.error < 1e-4
