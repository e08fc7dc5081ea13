"""A closer look tells a wrong gradient from a kink and from a step that is too large."""

import numpy as np
import pytest

from fastgrad.checking.noise import measure_noise
from fastgrad.checking.probe import one_sided, probe_element
from fastgrad.checking.subject import as_gradient_under_test


def probed(f, x, analytic, h=1e-4):
    subject = as_gradient_under_test(
        lambda x: f(float(x[0])), np.array([x]), None, np.ones(1), (), "auto"
    )
    # The noise of a smooth function of size 1, wherever x is.
    smooth = as_gradient_under_test(
        lambda x: float(np.sin(x[0])), np.ones(1), None, np.ones(1), (), "auto"
    )
    return probe_element(subject, subject.parts[0], 0, analytic, measure_noise(smooth, None), h)


def test_smooth_functions_contradict_what_is_wrong():
    assert not probed(np.exp, 0.5, np.exp(0.5)).contradicts
    found = probed(np.exp, 0.5, np.exp(0.5) + 1e-8)
    assert found.contradicts
    assert found.kind == "smooth"
    assert abs(found.value - np.exp(0.5)) <= found.error


@pytest.mark.parametrize("place", [-1.3e-4, -3e-5, -1e-7, 0.0, 1e-9, 2e-6, 9e-5])
@pytest.mark.parametrize("jump", [-2.0, 0.5])
def test_kinks_explain_what_lies_between_the_one_sided_derivatives(place, jump):
    """f has the slope 0.25 on the left of the kink, and 0.25 + jump on the right."""

    def f(x):
        return 0.25 * x + jump * max(x - place, 0.0)

    right = 0.25 + jump * (place < 0)
    assert not probed(f, 0.0, right).contradicts
    assert probed(f, 0.0, right + 2 * abs(jump)).contradicts
    assert probed(f, 0.0, right - 2 * abs(jump)).contradicts


def test_a_kink_is_found_where_it_is():
    found = probed(lambda x: max(x - 3e-5, 0.0), 0.0, 0.0)
    assert found.kind == "kink"
    # To a few percent of the spacing of the closer points, h / 5.
    assert found.distance == pytest.approx(3e-5, abs=2e-5)
    assert probed(abs, 0.0, 0.5).distance == 0


def test_what_varies_within_the_step_is_no_kink():
    found = probed(lambda x: np.sin(1e5 * x), 0.3, 1e5 * np.cos(1e5 * 0.3))
    assert found.kind == "step"
    assert not found.contradicts


EPS = float(np.finfo(float).eps)


def tell(f, analytic, noise=4 * EPS):
    def remainder(offsets):
        values = np.array([f(t) for t in offsets.tolist()])
        return offsets, values - f(0.0) - analytic * offsets

    return one_sided(remainder, noise, 1e-3, 1e-300)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_smooth_functions_refute_what_is_wrong(scale):
    def f(t):
        return np.sin(0.3 + t / scale)

    right = np.cos(0.3) / scale
    assert not tell(f, right).refuted
    assert tell(f, right * (1 + 1e-4)).refuted
    assert abs(tell(f, right).closest) <= tell(f, right).smallest_error


@pytest.mark.parametrize("place", [0.0, 1e-10, 3e-5])
def test_between_the_slopes_of_a_kink_at_x_all_is_right_and_next_to_it_one_is(place):
    def f(t):
        return 2 * t + abs(t - place)

    assert not tell(f, 1.0).refuted
    assert not (tell(f, 2.5).refuted if place == 0 else False)
    assert tell(f, 0.99).refuted
    assert tell(f, 3.01).refuted
    if place == 3e-5:  # f's slope at x is 1, whatever it is at larger steps
        assert tell(f, 2.5).refuted
        assert tell(f, 1.01).refuted


def test_kinks_on_both_sides_excuse_what_larger_steps_contradict():
    assert not tell(lambda t: max(abs(t) - 1e-7, 0.0) + max(t - 1e-7, 0.0), 0.0).refuted
    assert not tell(lambda t: min(max(t, -1e-9), 1e-9), 1.0, 1e-25).refuted


def test_where_one_side_has_no_values_the_other_one_tells():
    def f(t):
        return np.sqrt(t) * t + t if t >= 0 else np.nan

    assert not tell(f, 1.0).refuted
    assert tell(f, 1.01).refuted
    assert np.isnan(tell(f, 1.0).below)


def test_what_noise_hides_is_not_refuted():
    random = np.random.default_rng(0)
    values = {}

    def f(t):
        return t + values.setdefault(t, 1e-6 * random.normal())

    assert not tell(f, 1.0001, 4e-6).refuted
    assert tell(f, 1.1, 4e-6).refuted
