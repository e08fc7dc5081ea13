"""Does the response keep up with autograd on other batches? On real digits, and on a wide net."""

import pytest

from benchmarks.accuracy import EXTENDED, exact_quotients
from benchmarks.conftest import Record
from benchmarks.pairing import compare, ratio
from benchmarks.problems import Problem, gradients, mnist_problem, random_problem


@pytest.mark.parametrize("hidden", [50, 100])
def test_mnist_batch(record: Record, hidden: int, smoke: bool) -> None:
    _compare(record, mnist_problem(20 if smoke else 100, hidden), smoke)


def test_wide_net(record: Record, smoke: bool) -> None:
    problem = random_problem(30, 49, 40) if smoke else random_problem(1000, hidden=1000)
    _compare(record, problem, smoke)


def _compare(record: Record, problem: Problem, smoke: bool) -> None:
    calls = gradients(problem)
    times = compare(calls, 1 if smoke else 15)
    record(problem=problem)
    for name, others in times.items():
        record(**{f"{name}, milliseconds (median)": 1e3 * others.median})
        if name != "response":
            record(**{f"response over {name}": ratio(times["response"], others)})
    gradient = problem.net.numerical_gradient(problem.x, problem.t).buffer
    if EXTENDED:
        error = exact_quotients(problem, per_array=4).error(gradient)
        record(error_against_exact_quotient=error)
        assert error <= 1e-14
