"""Does the ladder of steps go where the error is less, and end?"""

import numpy as np
import pytest

from fastgrad.differences import richardson
from fastgrad.differences.jumps import CALLS
from fastgrad.differences.problem import problems
from fastgrad.differences.richardson import Ladder, contradicts, nothing_yet, step_at
from fastgrad.engines import loop
from fastgrad.schemes import central, forward


def climb(f, x, first, scheme=None, tolerance=0.0, most=1e6):
    """Return the outcome, and the steps that were taken."""
    scheme = scheme or central()
    x = np.array([x])
    [problem] = problems(f, x, 1e-4, scheme=scheme)
    steps = []

    def record(f, x, places, points, shape=()):
        steps.extend((points[0][::2] - x[0]).tolist())
        return loop.values(f, x, places, points, shape)

    climber = Ladder(problem, record, f(x), scheme)
    outcome = climber.climb(np.array([0]), np.array([first]), np.array([most]), tolerance)
    assert climber.evaluations == 2 * len(steps)
    return outcome, steps


def test_it_goes_down_where_truncation_is_large():
    outcome, steps = climb(lambda x: float(np.sin(20 * x[0])), 1.0, 0.5)
    np.testing.assert_allclose(steps, 0.5 * step_at(np.arange(len(steps))), rtol=1e-10)
    assert len(steps) > richardson.START
    assert abs(outcome.values[0] - 20 * np.cos(20)) <= outcome.errors[0]


def test_it_goes_up_where_rounding_is_large_but_not_above_the_largest_step():
    _, steps = climb(lambda x: float(np.sin(x[0])), 1.0, 2.0**-12)
    rungs = np.array([0, 1, 2, 3, -1])
    np.testing.assert_allclose(steps[: richardson.START + 1], 2.0**-12 * step_at(rungs), rtol=1e-10)
    _, steps = climb(lambda x: float(np.sin(x[0])), 1.0, 2.0**-12, most=2.0**-12)
    assert max(steps) == 2.0**-12


@pytest.mark.parametrize("f", [lambda x: np.nan, lambda x: 1.0, lambda x: float(x[0] > 1)])
def test_it_ends(f):
    _, steps = climb(f, 1.0, 0.25)
    # The last one is looked at for more jumps, at pairs of points.
    assert len(steps) <= richardson.MOST + CALLS // 2


def test_a_tolerance_ends_it_early():
    _, all_steps = climb(lambda x: float(np.exp(x[0])), 1.0, 0.25)
    outcome, steps = climb(lambda x: float(np.exp(x[0])), 1.0, 0.25, tolerance=1e-5)
    assert len(steps) < len(all_steps)
    assert outcome.errors[0] <= 1e-5 * np.e


def test_powers_of_the_step_are_those_of_the_scheme():
    def powers(scheme):
        [problem] = problems(lambda x: 0.0, np.ones(1), 1e-4, scheme=scheme)
        return Ladder(problem, loop.values, 0.0, scheme).powers[:3]

    assert powers(central()) == [2, 4, 6]
    assert powers(central(4)) == [4, 6, 8]
    assert powers(central(2, derivative=2)) == [2, 4, 6]
    assert powers(forward()) == [1, 2, 3]
    assert powers(forward(2)) == [2, 3, 4]


def test_contradictions_are_differences_beyond_both_errors():
    def outcome(value, error):
        found = nothing_yet(np.ones(1))
        found.values[0], found.errors[0] = value, error
        return found

    assert contradicts(outcome(1.0, 0.1), outcome(2.0, 0.5))[0]
    assert not contradicts(outcome(1.0, 0.6), outcome(2.0, 0.5))[0]
    assert not contradicts(outcome(1.0, 0.6), nothing_yet(np.ones(1)))[0]
