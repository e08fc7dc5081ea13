"""The sequence of steps goes where the error is less, and ends."""

import numpy as np
import pytest

from fastgrad.differences import adaptive_steps
from fastgrad.differences.adaptive_steps import Extrapolation, contradicts
from fastgrad.differences.problem import problems
from fastgrad.differences.richardson import step_at
from fastgrad.differences.rounding import JUMP_CALLS
from fastgrad.engines import loop
from fastgrad.schemes import central, forward


def extrapolate(f, x, first, scheme=None, tolerance=0.0, most=None):
    """Return the outcome, and the steps that were taken."""
    scheme = scheme or central()
    x = np.array([x])
    bounds = None if most is None else (x - most * (1 + 1e-12), x + most * (1 + 1e-12))
    [problem] = problems(f, x, 1e-4, scheme=scheme, bounds=bounds)
    steps = []

    def record(f, x, moves):
        steps.extend((moves.points[0][::2] - x[0]).tolist())
        return loop.values(f, x, moves)

    extrapolation = Extrapolation(problem, record, f(x), tolerance)
    outcome = extrapolation.extrapolate(np.array([0]), np.array([first]))
    assert extrapolation.evaluations == 2 * len(steps)
    return outcome, steps


def test_it_goes_down_where_truncation_is_large():
    outcome, steps = extrapolate(lambda x: float(np.sin(20 * x[0])), 1.0, 0.5)
    np.testing.assert_allclose(steps, 0.5 * step_at(np.arange(len(steps))), rtol=1e-10)
    assert len(steps) > adaptive_steps.FIRST_STEPS
    assert abs(outcome.values[0] - 20 * np.cos(20)) <= outcome.errors[0]


def test_it_goes_up_where_rounding_is_large_but_not_above_the_largest_step():
    _, steps = extrapolate(lambda x: float(np.sin(x[0])), 1.0, 2.0**-12)
    rungs = np.array([0, 1, 2, 3, -1])
    np.testing.assert_allclose(
        steps[: adaptive_steps.FIRST_STEPS + 1], 2.0**-12 * step_at(rungs), rtol=1e-10
    )
    _, steps = extrapolate(lambda x: float(np.sin(x[0])), 1.0, 2.0**-12, most=2.0**-12)
    assert max(steps) == 2.0**-12


@pytest.mark.parametrize("f", [lambda x: np.nan, lambda x: 1.0, lambda x: float(x[0] > 1)])
def test_it_ends(f):
    _, steps = extrapolate(f, 1.0, 0.25)
    # The last one is looked at for more jumps, at pairs of points.
    assert len(steps) <= adaptive_steps.MAX_STEPS + JUMP_CALLS // 2


def test_a_tolerance_ends_it_early():
    _, all_steps = extrapolate(lambda x: float(np.exp(x[0])), 1.0, 0.25)
    outcome, steps = extrapolate(lambda x: float(np.exp(x[0])), 1.0, 0.25, tolerance=1e-5)
    assert len(steps) < len(all_steps)
    assert outcome.errors[0] <= 1e-5 * np.e


def test_powers_of_the_step_are_those_of_the_scheme():
    schemes = central(), central(4), central(2, derivative=2), forward(), forward(2)
    powers = [scheme.error_powers for scheme in schemes]
    assert powers == [(2, 4), (4, 6), (2, 4), (1, 2), (2, 3)]


def test_contradictions_are_differences_beyond_both_errors():
    one, tenth = np.ones(1), np.full(1, 0.1)
    assert contradicts(one, tenth, 2 * one, 5 * tenth)[0]
    assert not contradicts(one, 6 * tenth, 2 * one, 5 * tenth)[0]
    assert not contradicts(one, 6 * tenth, np.nan * one, np.inf * one)[0]
