"""Random directions miss as much as they say, and no more."""

import math

import numpy as np
import pytest

from benchmarks.cases.backward import LayeredNet, faulty_batch
from fastgrad import check_gradient
from fastgrad.checking.noise import measure_noise
from fastgrad.checking.random_directions import (
    check_direction,
    miss_probability,
    random_direction,
    smallest_error,
    step_along,
)
from fastgrad.checking.subject import as_gradient_under_test


@pytest.mark.parametrize("error", [[1.0], [1.0, 1.0], np.arange(-4.0, 6.0)])
def test_errors_are_missed_with_the_stated_probability_at_most(error):
    """20,000 errors of length 1 against 3 directions: within four standard deviations.

    Two equal elements are missed most often: nearly as often as is said, if little is allowed.
    """
    taus, error, length = (0.1, 0.2, 0.3), np.array(error), np.linalg.norm(error)
    subject = as_gradient_under_test(np.sum, np.ones(error.size), None, error, (), "auto")
    random = np.random.default_rng(0)
    directions = [random_direction(subject.parts, random)[0] for _ in range(60_000)]
    along = (np.array(directions) @ error / length).reshape(-1, 3)
    missed = (abs(along) <= taus).all(axis=1).mean()
    expected = miss_probability(taus, 1.0)
    deviation = math.sqrt(expected * (1 - expected) / 20_000)
    assert missed <= expected + 4 * deviation
    if len(error) == 2:  # 1 - tau / (2 sqrt(6)) times as often along each
        share = math.prod(1 - tau / (2 * math.sqrt(6)) for tau in taus)
        assert abs(missed - share * expected) <= 4 * deviation


@pytest.mark.parametrize("miss", [1e-3, 1e-9])
def test_the_smallest_error_is_missed_with_that_probability(miss):
    taus = (1e-9, 2e-9, 5e-3, 1e-9, 4e-9)
    error = smallest_error(taus, miss)
    assert miss / 2 < miss_probability(taus, error) <= miss


def test_directions_agree_with_a_right_gradient_within_what_they_allow():
    x, t = faulty_batch()
    for dtype in (np.float64, np.float32):
        net = LayeredNet([9, 6, 7], "tanh", "cross entropy", dtype=dtype)
        subject = as_gradient_under_test(net, x.astype(dtype), t, None, (), "auto")
        noise, random = measure_noise(subject, None), np.random.default_rng(0)
        for _ in range(50):
            found = check_direction(
                subject, subject.parts, random_direction(subject.parts, random), noise
            )
            assert found.agrees
            # The step is 16 times the root of the relative noise, so the round-off is a
            # sixteenth of that root for a loss of 1, and the truncation error far below.
            assert found.error < step_along(noise)


def test_an_error_of_the_stated_length_is_found(repeats):
    """Each of the errors is missed less than once in 1e9."""
    x, t = faulty_batch()
    net = LayeredNet([9, 6, 7], "tanh", "cross entropy")
    report = check_gradient(net, x=x, t=t, fast=True)
    words = report.findings[0].split("An error of length ")[1]
    length = float(words.split(",")[0])
    random = np.random.default_rng(0)
    for _ in range(repeats(2, 20)):
        right = net.gradient(x, t)
        error = {name: random.normal(size=values.shape) for name, values in right.items()}
        size = math.sqrt(sum(float((values**2).sum()) for values in error.values()))
        wrong = {name: right[name] + 10 * length / size * error[name] for name in right}
        assert not check_gradient(net, x=x, t=t, gradient=wrong, fast=True)


def test_only_the_parameter_concerned_is_checked_in_full():
    x, t = faulty_batch()
    net = LayeredNet([9, 6, 7], "tanh", "cross entropy")
    gradient = net.gradient(x, t)
    gradient["b2"] = -gradient["b2"]
    report = check_gradient(net, x=x, t=t, gradient=gradient, fast=True)
    assert not report
    assert [row.name for row in report.rows] == ["b2"]
    assert "W1, b1 and W2 agreed along random directions" in report.summary


def _along_one_element(f, claim):
    """Return what a direction of length 1 says of a function of one element at 0, near f = 1."""
    subject = as_gradient_under_test(
        lambda x: 1 + f(x[0]), np.zeros(1), None, np.array([claim]), (), "loop"
    )
    noise = measure_noise(subject, None)
    return check_direction(subject, subject.parts, [np.ones(1)], noise), noise


def test_kinks_that_no_fourth_difference_shows_do_not_contradict_what_a_smaller_step_tells():
    """They are as far above x as below, bend alike, and change quotients by 2e-7 from 1e-8 on."""

    def f(t):
        return t + 1e-6 * (np.maximum(t - 1e-8, 0) - np.maximum(-t - 1e-8, 0))

    right, noise = _along_one_element(f, 1.0)
    # At the smallest step, which crosses none of them, the noise of f hides more than that.
    hidden = 256 * noise.level / step_along(noise)
    assert right.agrees
    assert right.error < 1.01 * hidden
    wrong, _ = _along_one_element(f, 1 + 3 * hidden)
    assert wrong.contradicts


def test_one_side_judges_where_a_kink_is_on_the_other_one():
    """It is known to 2 level / s, and counts twice, for either side may agree by chance."""

    def f(t):
        return t + np.maximum(t, 0) / 8

    for claim in (1.0, 1.125):
        found, noise = _along_one_element(f, claim)
        assert found.agrees
        assert found.error < 1.01 * 4 * noise.level / step_along(noise)
    for claim in (1 - 1e-6, 1.03, 1.125 + 1e-6):
        found, _ = _along_one_element(f, claim)
        assert not found.agrees
