"""Do hard problems cost digits? Large pixels and weights, certain predictions, any step."""

from benchmarks.accuracy import hard_problems, mpmath_quotients, roundoff_bound
from benchmarks.conftest import Record


def test_hard_problems(record: Record, smoke: bool) -> None:
    for name, problem, h in list(hard_problems())[:: 7 if smoke else 1]:
        gradient = problem.net.numerical_gradient(problem.x, problem.t, h).buffer
        error = mpmath_quotients(problem, 6, h).error(gradient)
        largest = float(abs(gradient).max())
        record(**{f"error over largest entry, {name}": error / largest})
        # Where the step is too large for the response, direct takes over, with its rounding.
        loss = problem.net.loss(problem.x, problem.t)
        assert error <= max(1e-11 * largest, 4 * roundoff_bound(loss, h))
        if h <= 1e-5:
            assert error <= 1e-13 * largest
