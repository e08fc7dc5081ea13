"""One-sided quotients refute what no smaller step excuses, and nothing else."""

import numpy as np
import pytest

from fastgrad.checking.probe import one_sided

EPS = float(np.finfo(float).eps)


def tell(f, claim, noise=4 * EPS):
    here = f(0.0)
    return one_sided(lambda t: (t, f(t) - here - claim * t), noise, 1e-3, 1e-300)


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
