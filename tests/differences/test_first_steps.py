"""Extrapolations begin with steps that stay inside, and inside of all of their range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import differentiate, directional_derivative, hessian, jacobian
from fastgrad.adaptive import FIRST_STEP
from fastgrad.differences.bounds import first_steps
from fastgrad.differences.problem import problems
from fastgrad.differences.quotients import moved
from fastgrad.schemes import central

REPEATABLE = settings(derandomize=True, deadline=None)


@st.composite
def points_in_bounds(draw):
    """Draw x and its bounds, of any magnitude, also at them or a few roundings away from them."""
    dtype = draw(st.sampled_from([np.float32, np.float64, np.longdouble]))
    numbers = st.floats(-1e6, 1e6, width=32)
    lower, upper = sorted((draw(numbers), draw(numbers)))
    if upper - lower < 1e-3 * abs(lower) + 1e-6:
        upper = lower + 1e-3 * abs(lower) + 1e-6
    share = draw(st.sampled_from([0, 1e-12, 1e-7, 1e-3, 0.3, 1 - 1e-3, 1 - 1e-7, 1]))
    x = np.clip(dtype(lower + share * (upper - lower)), dtype(lower), dtype(upper))
    return np.array([x], dtype), (float(dtype(lower)), float(dtype(upper)))


@REPEATABLE
@given(where=points_in_bounds(), accuracy=st.sampled_from([2, 4]))
def test_even_the_largest_steps_stay_inside(where, accuracy):
    x, bounds = where
    [problem] = problems(
        lambda x: 0.0, x, FIRST_STEP, scheme=central(accuracy), relative=True, bounds=bounds
    )
    first = np.broadcast_to(problem.steps, 1)
    parts = first_steps(problem.scheme, x, np.array([0]), first, problem.bounds)
    [(scheme, chosen, begin, most)] = parts
    assert chosen.tolist() == [0]
    assert begin[0] <= most[0]
    assert begin[0] <= first[0]
    for step in (begin[0], most[0]):
        assert np.log2(float(step)) == int(np.log2(float(step)))
        points = moved(x, np.array([0]), scheme.offsets, step)
        assert ((points >= bounds[0]) & (points <= bounds[1])).all()


@pytest.mark.filterwarnings("ignore:h is 'auto', but no step suits f")
@settings(REPEATABLE, max_examples=40)
@given(where=points_in_bounds())
@pytest.mark.parametrize(
    "derive",
    [
        lambda f, x, bounds: differentiate(f, x, bounds=bounds),
        lambda f, x, bounds: jacobian(f, x, bounds=bounds),
        lambda f, x, bounds: hessian(f, x, bounds=bounds),
        lambda f, x, bounds: directional_derivative(f, x, np.array([-3.7]), bounds=bounds),
    ],
)
def test_no_function_is_called_outside(derive, where):
    x, bounds = where
    before = x.copy()

    def f(x):
        assert bounds[0] <= x[0] <= bounds[1]
        return x[0] * x[0] / 1e6

    derive(f, x, bounds)
    assert x[0] == before[0]
    assert np.signbit(x[0]) == np.signbit(before[0])
