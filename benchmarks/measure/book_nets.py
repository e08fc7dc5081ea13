"""Gradients of the book's later nets, with one BLAS thread and with all, beside the book's loop."""

import io
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.cases.learners_nets import Case
from benchmarks.measure.accuracy import SEED, roundoff_bound
from benchmarks.measure.book_loop import run_loop
from benchmarks.measure.timing import stopwatch
from fastgrad import explain, numerical_gradient
from fastgrad.typing import Array

CALLS = 5
"""How many calls of f are timed; the shortest counts."""

LONG = 2.0
"""Seconds of a gradient from which it is computed once, without warming up."""


@dataclass(frozen=True)
class ArraysRun:
    """What was measured of the gradients of some arrays.

    Attributes
    ----------
    call, loop, gradient : float
        Seconds: of a call of f; of the loop, extrapolated from the elements that it visited; and of
        what fastgrad does, verification included, the loop where that is it.
    deviation : float
        The largest from the loop's quotients, in units of eps L / h.
    reasons : dict of list of str
        The names of the arrays that are left to the loop, by the reason.
    threads : dict of int
        The number of BLAS threads with which each of the times was the shortest.
    """

    call: float
    loop: float
    gradient: float
    deviation: float
    reasons: Mapping[str, list[str]]
    threads: Mapping[str, int]


def measure_arrays(case: Case, per_array: int, rounds: int) -> ArraysRun:
    """Time each side with one BLAS thread and with all of them, and take its best.

    Parameters
    ----------
    case : Case
    per_array : int
        How many elements of each array the loop visits.
    rounds : int
        How many gradients of an array are computed, if that does not take long.
    """
    runs = {}
    for count in sorted({1, os.cpu_count() or 1}):
        with threadpool_limits(count, "blas"):
            runs[count] = _measure(case, per_array, rounds)

    def best(name: str) -> int:
        return min(runs, key=lambda count: float(getattr(runs[count], name)))

    threads = {name: best(name) for name in ("call", "loop", "gradient")}
    return ArraysRun(
        runs[threads["call"]].call,
        runs[threads["loop"]].loop,
        runs[threads["gradient"]].gradient,
        max(run.deviation for run in runs.values()),
        runs[threads["gradient"]].reasons,
        threads,
    )


def total(runs: list[ArraysRun]) -> ArraysRun:
    """Return the figures of several groups of arrays of one net together."""
    return ArraysRun(
        min(run.call for run in runs),
        sum(run.loop for run in runs),
        sum(run.gradient for run in runs),
        max(run.deviation for run in runs),
        {reason: names for run in runs for reason, names in run.reasons.items()},
        {},
    )


def _measure(case: Case, per_array: int, rounds: int) -> ArraysRun:
    call = partial(case.loss, case.x)
    call()
    loops, gradients, deviation = 0.0, 0.0, 0.0
    reasons: dict[str, list[str]] = {}
    unit = roundoff_bound(case.loss(case.x))
    for name, values in zip(case.names, case.arrays, strict=True):
        entries = np.random.default_rng(SEED).permutation(values.size)[:per_array]
        visited = run_loop(case.loss, [values], entries)
        loop = median(visited.seconds) * values.size
        loops += loop
        reason = why_left_to_loop(case.loss, values)
        if reason:
            reasons.setdefault(reason, []).append(name)
            gradients += loop
            continue
        seconds, gradient = _timed(partial(numerical_gradient, case.loss, values), rounds)
        gradients += seconds
        deviation = max(deviation, visited.deviation(gradient.reshape(-1)) / unit)
    shortest = min(stopwatch(call) for _ in range(CALLS))
    return ArraysRun(shortest, loops, gradients, deviation, reasons, {})


def why_left_to_loop(f: Callable[[Array], Any], x: Array) -> str:
    """Return why the gradient by x is not traced; "" if it is."""
    with redirect_stdout(io.StringIO()) as said:
        explain(f, x)
    text = said.getvalue()
    return "" if text.startswith("Traced") else text.strip().splitlines()[-1]


def _timed(compute: Callable[[], Array], rounds: int) -> tuple[float, Array]:
    """Return the seconds of the shortest of some calls, and the last one's result."""
    results: list[Array] = []

    def call() -> None:
        results[:] = [compute()]

    seconds = [stopwatch(call)]
    if seconds[0] < LONG:
        seconds += [stopwatch(call) for _ in range(rounds)]
    return min(seconds), results[0]
