"""Do hard problems cost digits? Large pixels and weights, certain predictions, any step."""

from typing import Any

from benchmarks.accuracy import hard_problems, mpmath_quotients, roundoff_bound
from benchmarks.conftest import Record


def test_hard_problems(benchmark: Any, record: Record, smoke: bool) -> None:
    problems = list(hard_problems())[:: 7 if smoke else 1]
    gradients = benchmark.pedantic(
        lambda: [
            problem.net.numerical_gradient(problem.x, problem.t, h) for _, problem, h in problems
        ],
        rounds=1,
    )
    for (name, problem, h), gradient in zip(problems, gradients, strict=True):
        error = mpmath_quotients(problem, 6, h).error(gradient.buffer)
        largest = float(abs(gradient.buffer).max())
        record(**{f"error over largest entry, {name}": error / largest})
        # Where the step is too large for the response, direct takes over, with its rounding.
        loss = problem.net.loss(problem.x, problem.t)
        assert error <= max(1e-11 * largest, 4 * roundoff_bound(loss, h))
        if h <= 1e-5:
            assert error <= 1e-13 * largest
