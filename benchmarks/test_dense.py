"""What does one gradient cost in the 47 s case? 784-100-10, 100 dense random samples."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

from benchmarks.accuracy import EXTENDED, exact_quotients, roundoff_bound
from benchmarks.book_loop import LoopRun, run_loop, sample_loop
from benchmarks.conftest import Record
from benchmarks.pairing import compare, ratio
from benchmarks.problems import Problem, gradients, jax_gradient, pytorch_gradient, random_problem

# Rounding moves the loss by a few units in its last place, as the sum over the samples does;
# eps L / h stands for one unit in each of the two losses.
UNITS = 4


@pytest.fixture(scope="module")
def problem(smoke: bool) -> Problem:
    return random_problem(20, 49, 10) if smoke else random_problem()


@pytest.fixture(scope="module")
def loop_runs(problem: Problem) -> list[LoopRun]:
    """Collect the runs of the loop, the latest at the end; the first is a sample."""
    return [sample_loop(problem)]


def test_book_loop(
    benchmark: Any,
    record: Record,
    problem: Problem,
    loop_runs: list[LoopRun],
    extrapolate: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = sample_loop if extrapolate else run_loop
    with capsys.disabled():  # show the progress bar
        result = benchmark.pedantic(run, (problem,), rounds=1)
    loop_runs.append(result)
    record(the_loop=result.summary)
    _check(record, problem, result.entries, result.quotients, UNITS * _bound(problem))


def test_direct(benchmark: Any, record: Record, problem: Problem, loop_runs: list[LoopRun]) -> None:
    call = partial(problem.net.numerical_gradient, problem.x, problem.t, engine="direct")
    result = benchmark.pedantic(call, rounds=5, warmup_rounds=1)
    _check_against_loop(record, problem, result.buffer, loop_runs[-1])
    _check(record, problem, None, result.buffer, UNITS * _bound(problem))
    if benchmark.stats:
        record(times_faster_than_the_loop=loop_runs[-1].times.median / benchmark.stats["median"])


def test_response(
    benchmark: Any, record: Record, problem: Problem, loop_runs: list[LoopRun]
) -> None:
    result = benchmark(problem.net.numerical_gradient, problem.x, problem.t)
    record(evaluations="4 shifts of each hidden unit and logit, a sample")
    _check_against_loop(record, problem, result.buffer, loop_runs[-1])
    _check(record, problem, None, result.buffer, 1e-14)
    if benchmark.stats:
        record(times_faster_than_the_loop=loop_runs[-1].times.median / benchmark.stats["median"])


def test_backpropagation(benchmark: Any, record: Record, problem: Problem) -> None:
    result = benchmark(problem.net.gradient, problem.x, problem.t)
    numerical = problem.net.numerical_gradient(problem.x, problem.t)
    record(deviation_from_response=float(abs(result.buffer - numerical.buffer).max()))


@pytest.mark.parametrize(
    ("module", "gradient"), [("torch", pytorch_gradient), ("jax", jax_gradient)]
)
def test_automatic_differentiation(
    benchmark: Any,
    record: Record,
    problem: Problem,
    module: str,
    gradient: Callable[[Problem], Callable[[], list[object]]],
) -> None:
    pytest.importorskip(module)
    result = benchmark(gradient(problem))
    flat = np.concatenate([np.asarray(values).ravel() for values in result])
    deviation = float(abs(flat - problem.net.gradient(problem.x, problem.t).buffer).max())
    record(deviation_from_backpropagation=deviation)
    assert deviation <= 1e-14


def test_response_beside_the_others(record: Record, problem: Problem, smoke: bool) -> None:
    calls = gradients(problem)
    times = compare(calls, 1 if smoke else 15)
    for name in calls:
        record(
            **{
                f"{name}, milliseconds": f"{1e3 * times[name].median:.3g} (median), "
                f"{1e3 * times[name].minimum:.3g} (minimum)"
            }
        )
        if name != "response":
            record(**{f"response over {name}": ratio(times["response"], times[name])})


def _bound(problem: Problem) -> float:
    return roundoff_bound(problem.net.loss(problem.x, problem.t))


def _check_against_loop(
    record: Record, problem: Problem, gradient: np.ndarray, run: LoopRun
) -> None:
    """Record and bound the deviation from the loop; it is the loop's rounding error."""
    bound, deviation = _bound(problem), run.deviation(gradient)
    record(loop=run.summary, deviation_from_the_loop=deviation, eps_L_over_h=bound)
    assert deviation <= UNITS * bound


def _check(
    record: Record,
    problem: Problem,
    entries: np.ndarray | None,
    quotients: np.ndarray,
    tolerance: float,
) -> None:
    """Record and bound the largest error against the exact quotient, if it can be evaluated."""
    if not EXTENDED:
        return
    exact = exact_quotients(problem)
    known = np.arange(len(quotients)) if entries is None else entries
    error = float(exact.errors(known, quotients).max())
    record(error_against_exact_quotient=error, judged_at=f"{len(exact.entries)} parameters")
    assert error <= tolerance
