"""Gradients of the book's later nets, with one BLAS thread and with all, beside the book's loop."""

import io
import re
import time
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.cases.learners_nets import Case
from benchmarks.measure.accuracy import roundoff_bound, sampled_entries
from benchmarks.measure.book_loop import run_loop
from benchmarks.measure.timing import blas_threads, stopwatch
from fastgrad import check_gradient, explain, numerical_gradient
from fastgrad.interrupts import OutOfTimeError, ending_at
from fastgrad.typing import Array

CALLS = 5
"""How many calls of f are timed; the shortest counts."""

LONG = 2.0
"""Seconds of a gradient from which it is computed once with each number of threads."""

TOO_LONG = 20.0
"""Seconds of all gradients of a net with one BLAS thread from which no more threads are tried."""

MAX_SHARE, SHORTEST, LONGEST = 0.2, 5.0, 45.0
"""Share of the loop's time after which a gradient is given up: it then counts as that long; but not
before and not after so many seconds."""

MAX_CHECK_SECONDS = 45.0
"""Seconds after which a check is to end with what it has compared."""

RATE = 0.01
"""The learning rate of the step between two gradients: each has new parameters, as in training."""

Progress = Callable[[str], object]
"""Is told what comes next, as words."""


@dataclass(frozen=True)
class ArrayRun:
    """What was measured of the gradient of an array, or of several, one after the other.

    Attributes
    ----------
    elements : int
    loop, gradient : float
        Seconds: of the loop, extrapolated from the elements that it visited; and of what fastgrad
        does, verification included, the loop where that is it.
    is_whole : bool
        Whether it was measured to its end: else it takes longer.
    """

    elements: int
    loop: float
    gradient: float
    is_whole: bool

    @property
    def times_faster(self) -> float:
        """The loop's time over fastgrad's."""
        return self.loop / self.gradient


@dataclass(frozen=True)
class NetRun:
    """What was measured of a net, each side with the number of BLAS threads that suits it best.

    Attributes
    ----------
    call : float
        Seconds of a call of its loss.
    arrays : dict of ArrayRun
        By the name of the array.
    whole : ArrayRun
        All of them.
    threads : int
        With how many BLAS threads the gradients took shortest.
    deviation : float
        The largest from the loop's quotients, in units of eps L / h.
    reasons : dict of str
        Why arrays are left to the loop, by their names.
    """

    call: float
    arrays: Mapping[str, ArrayRun]
    whole: ArrayRun
    threads: int
    deviation: float
    reasons: Mapping[str, str]


@dataclass(frozen=True)
class CheckRun:
    """What a check of a net's own backpropagation said, and took.

    Attributes
    ----------
    right : bool
    seconds : float
    calls : int
        Of the loss.
    is_whole : bool
        Whether it was over in time.
    """

    right: bool
    seconds: float
    calls: int
    is_whole: bool


def measure_net(case: Case, per_array: int, rounds: int, progress: Progress) -> NetRun:
    """Time a call of the loss, the loop and fastgrad with one BLAS thread and with all of them.

    Parameters
    ----------
    case : Case
    per_array : int
        How many elements of each array the loop visits.
    rounds : int
        How many gradients of an array are computed, if that does not take long.
    progress : callable
    """
    params = dict(zip(case.names, case.arrays, strict=True))
    progress(f"{case.title}: the loop")
    entries = np.array([place for place, _, _ in sampled_entries(params, per_array)])
    calls, loops = {}, {}
    for threads in blas_threads():
        with threadpool_limits(threads, "blas"):
            loops[threads] = run_loop(case.loss, case.arrays, entries)
            calls[threads] = min(stopwatch(partial(case.loss, case.x)) for _ in range(CALLS))
    loop = min(loops.values(), key=lambda run: run.times.median)
    element = loop.times.median / loop.parameters
    limits = {
        name: min(max(MAX_SHARE * values.size * element, SHORTEST), LONGEST)
        for name, values in params.items()
    }
    reasons: dict[str, str] = {}
    seconds: dict[int, dict[str, float]] = {}
    deviation = 0.0
    for threads in blas_threads():
        with threadpool_limits(threads, "blas"):
            words = f"{case.title}, BLAS threads: {threads}"
            found = _gradients(case, limits, reasons, rounds, words, progress)
        reasons |= found.reasons
        looped = {name: params[name].size * element for name in reasons}
        seconds[threads] = looped | found.seconds
        if found.first.count():
            deviation = max(deviation, loop.deviation(found.first))
        if sum(found.seconds.values()) > TOO_LONG:
            break
    best = min(seconds, key=lambda threads: sum(seconds[threads].values()))
    arrays = {}
    for name, values in params.items():
        shortest = min(taken[name] for taken in seconds.values())
        is_whole = name in reasons or shortest <= limits[name]
        arrays[name] = ArrayRun(values.size, values.size * element, shortest, is_whole)
    total = sum(seconds[best].values())
    is_whole = all(run.is_whole for run in arrays.values())
    whole = ArrayRun(loop.parameters, loop.times.median, total, is_whole)
    unit = roundoff_bound(case.loss(case.x))
    return NetRun(min(calls.values()), arrays, whole, best, deviation / unit, reasons)


def together(runs: Sequence[ArrayRun]) -> ArrayRun:
    """Return the figures of several arrays, one after the other."""
    return ArrayRun(
        sum(run.elements for run in runs),
        sum(run.loop for run in runs),
        sum(run.gradient for run in runs),
        all(run.is_whole for run in runs),
    )


def why_left_to_loop(f: Callable[[Array], Any], x: Array) -> str:
    """Return why the gradient by x is not traced; "" if it is."""
    with redirect_stdout(io.StringIO()) as said:
        explain(f, x)
    text = said.getvalue()
    return "" if text.startswith("Traced") else text.strip().splitlines()[-1]


def measure_check(case: Case, threads: int, *, fast: bool) -> CheckRun:
    """Check the net's backpropagation, with so many BLAS threads."""
    with threadpool_limits(threads, "blas"):
        start = time.perf_counter()
        report = check_gradient(
            case.net, x=case.x, t=case.t, fast=fast, max_seconds=MAX_CHECK_SECONDS
        )
        seconds = time.perf_counter() - start
        return CheckRun(bool(report), seconds, report.evaluations, seconds < MAX_CHECK_SECONDS)


@dataclass(frozen=True)
class _Found:
    """Gradients of the arrays of a net.

    Attributes
    ----------
    seconds : dict of float
        The shortest, by name; above its limit where it was given up.
    first : masked array
        The first ones, flat: those at the parameters as they were.
    reasons : dict of str
        Why others are left to the loop.
    """

    seconds: dict[str, float]
    first: Any
    reasons: dict[str, str]


def _gradients(
    case: Case,
    limits: Mapping[str, float],
    left: Container[str],
    rounds: int,
    words: str,
    progress: Progress,
) -> _Found:
    """Compute the gradients of all arrays, one after the other, and follow them, in rounds.

    Parameters
    ----------
    limits : dict of float
        After how many seconds the gradient of an array is given up.
    left : container of str
        Arrays that are left out.
    """
    saved = [values.copy() for values in case.arrays]
    size = sum(values.size for values in saved)
    found = _Found({}, np.ma.MaskedArray(np.zeros(size), mask=True), {})
    for number in range(rounds):
        steps, end = [], 0
        for name, values in zip(case.names, case.arrays, strict=True):
            start, end = end, end + values.size
            is_done = found.seconds.get(name, 0.0) > LONG
            if name in left or name in found.reasons or is_done:
                continue
            progress(f"{words}: {name}")
            begin = time.perf_counter()
            try:
                with ending_at(time.monotonic() + limits[name]), warnings.catch_warnings():
                    warnings.filterwarnings("error", "f is called .* cannot be traced")
                    steps.append((values, numerical_gradient(case.loss, values)))
                if number == 0:
                    found.first[start:end] = steps[-1][1].reshape(-1)
            except RuntimeWarning as warning:
                found.reasons[name] = re.split(r"traced: |; ", str(warning))[1]
                continue
            except OutOfTimeError:
                pass  # as its seconds tell
            seconds = time.perf_counter() - begin
            found.seconds[name] = min(seconds, found.seconds.get(name, seconds))
        for values, step in steps:
            values -= RATE * step
    for values, before in zip(case.arrays, saved, strict=True):
        values[...] = before
    return found
