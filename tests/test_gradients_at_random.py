"""Right gradients of random functions pass every check, errors that differences see do not."""

import numpy as np
import pytest

from benchmarks.cases.random_gradients import (
    KINDS,
    example,
    mean_of_standardised,
    planted,
    primitives,
)
from benchmarks.measure.checking import rates
from fastgrad import check_gradient, slope_test


@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_right_gradients_pass_and_errors_of_one_element_do_not(kind):
    """``python -m benchmarks random_gradients`` tries more."""
    found = rates((example(seed) for seed in range(kind, 80, len(KINDS))), every=2)
    for rate in found.values():
        assert rate.right == 20
        assert not rate.names


def test_elementary_functions_pass_in_every_form():
    """``python -m benchmarks random_gradients`` tries the others, too."""
    pytest.importorskip("scipy")
    found = rates([*primitives()][::14])
    assert sum(rate.wrong for rate in found.values()) > 20
    for rate in found.values():
        assert not rate.names


def test_slopes_see_an_error_of_a_hundredth_in_the_largest_element():
    """In ordinary functions; an element's share in a random direction is seldom small."""
    tried = 0
    for seed in range(3, 120, 4):
        given = example(seed)
        gradient = np.array(given.gradient, float)
        if planted(given, np.random.default_rng(0)) is None:
            continue
        place = np.unravel_index(np.argmax(abs(gradient)), gradient.shape)
        gradient[place] *= 1.01
        assert not slope_test(given.f, given.x, gradient, seed=0), given.name
        tried += 1
    assert tried > 15


@pytest.mark.parametrize("size", [0.0, 1e-4])
def test_terms_that_cancel_are_rounded_by_more_than_values_tell(size):
    """The gradient is rounding, about 1e-17, and so are f's values, in proportion to x."""
    for seed in range(4):
        random = np.random.default_rng([77, seed])
        f, x, gradient, _ = mean_of_standardised(random)
        x = size * random.normal(size=x.shape)
        assert check_gradient(f, x, gradient)
        assert check_gradient(f, x, gradient, fast=True)
        assert slope_test(f, x, gradient, seed=0)
        gradient[0] += 1e-12
        assert not check_gradient(f, x, gradient)
        assert not slope_test(f, x, gradient, seed=0)


def test_rounding_of_steps_is_not_taken_for_noise():
    """Next to the minimum of squares, where steps are rounded by more than f is."""
    given = example(62359)
    assert check_gradient(given.f, given.x, given.gradient)
    assert not check_gradient(given.f, given.x, planted(given, np.random.default_rng(2359)))


@pytest.mark.parametrize("size", [1e-8, 1e-12, 1e-16])
def test_what_noise_hides_is_not_claimed_to_be_seen(size):
    """Terms that cancel next to 0: values of f at x are smaller than the noise a step away."""
    found = []
    for seed in range(3):
        random = np.random.default_rng([77, seed])
        f, x, gradient, _ = mean_of_standardised(random)
        x = size * random.normal(size=x.shape)
        assert check_gradient(f, x, gradient)
        gradient[0] += 1e-12
        report = check_gradient(f, x, gradient)
        assert not report or "as far as the differences can tell" in report.summary
        found.append(bool(report))
    assert not all(found)


def test_the_mean_of_both_sides_does_not_judge_at_a_kink():
    """Where x is 1e-13 from a kink, it may fall with the step as that of a smooth function does."""
    given = example(12925)
    for fast in (False, True):
        assert check_gradient(given.f, given.x, given.gradient, fast=fast)
