"""Gradients of the book's later nets, with one BLAS thread and with all, beside the book's loop."""

import io
import re
import time
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from benchmarks.measure.traced import Errors, measure_errors
from fastgrad import check_gradient, explain, numerical_gradient
from fastgrad.jit.interrupts import OutOfTimeError, ending_at
from fastgrad.typing import Array

CALLS = 5
"""How many calls of f are timed; the shortest counts."""

LONG = 2.0
"""Seconds of a gradient, in the mean over arrays, from which there is one round with each number of
threads."""

TOO_LONG = 20.0
"""Seconds of all gradients of a net with one BLAS thread from which no more threads are tried."""

MAX_SHARE, SHORTEST, LONGEST = 0.2, 5.0, 45.0
"""Share of the loop's time after which a gradient is given up: it then counts as that long; but not
before and not after so many seconds."""

MAX_CHECK_SECONDS = 45.0
"""Seconds after which a check is to end with what it has compared."""

EXACT_PER_ARRAY = 4
"""How many elements of each array are computed in extended precision."""

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
        By the name of the array: its gradient alone, without what is computed of others in advance.
    whole : ArrayRun
        All of them, one after the other.
    threads : int
        With how many BLAS threads all of them took shortest.
    deviation : float
        The largest from the loop's quotients, in units of eps L / h.
    errors : Errors
        Of the loop and of fastgrad beside extended precision: which of the two deviates.
    reasons : dict of str
        Why arrays are left to the loop, by their names.
    """

    call: float
    arrays: Mapping[str, ArrayRun]
    whole: ArrayRun
    threads: int
    deviation: float
    errors: Errors
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
    alone: dict[str, list[float]] = {name: [] for name in params}
    together: dict[int, float] = {}
    deviation = 0.0
    for threads in blas_threads():
        with threadpool_limits(threads, "blas"):
            words = f"{case.title}, BLAS threads: {threads}"
            found = _gradients(case, limits, reasons, rounds, words, progress)
        reasons |= found.reasons
        looped = {name: params[name].size * element for name in reasons}
        for name, taken in (looped | found.alone).items():
            alone[name].append(taken)
        together[threads] = found.together + sum(looped.values())
        if found.first.count():
            deviation = max(deviation, loop.deviation(found.first))
        if found.together > TOO_LONG:
            break
    arrays = {}
    for name, values in params.items():
        shortest = min(alone[name])
        is_whole = name in reasons or shortest <= limits[name]
        arrays[name] = ArrayRun(values.size, values.size * element, shortest, is_whole)
    best = min(together, key=lambda threads: together[threads])
    is_whole = all(run.is_whole for run in arrays.values())
    whole = ArrayRun(loop.parameters, loop.times.median, together[best], is_whole)
    progress(f"{case.title}: extended precision")
    errors = measure_errors(case, min(per_array, EXACT_PER_ARRAY))
    unit = roundoff_bound(case.loss(case.x))
    call = min(calls.values())
    return NetRun(call, arrays, whole, best, deviation / unit, errors, reasons)


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
    alone : dict of float
        The shortest seconds of each array's, by name; above its limit where it was given up.
    together : float
        Those of all of them, one after the other at the same parameters.
    first : masked array
        The first ones, flat: those at the parameters as they were.
    reasons : dict of str
        Why others are left to the loop.
    """

    alone: dict[str, float]
    together: float
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
    """Compute the gradient of each array by itself, and of all one after the other, in rounds.

    From one round to the next, parameters follow these gradients.

    Parameters
    ----------
    limits : dict of float
        After how many seconds the gradient of an array is given up.
    left : container of str
        Arrays that are left out.
    """
    first = np.ma.MaskedArray(np.zeros(sum(values.size for values in case.arrays)), mask=True)
    ends = np.cumsum([values.size for values in case.arrays])
    wheres = [slice(end - v.size, end) for v, end in zip(case.arrays, ends, strict=True)]
    params = dict(zip(case.names, case.arrays, strict=True))
    alone, reasons = dict[str, float](), dict[str, str]()
    for (name, values), where in zip(params.items(), wheres, strict=True):
        if name in left:
            continue
        progress(f"{words}: {name}")
        try:
            alone[name], quotients = _shortest(case.loss, {name: values}, limits, rounds)
        except RuntimeWarning as warning:
            reasons[name] = re.split(r"traced: |; ", str(warning))[1]
            continue
        if quotients:
            first[where] = quotients[name].reshape(-1)
    progress(f"{words}: all")
    together, _ = _shortest(case.loss, {name: params[name] for name in alone}, limits, rounds)
    return _Found(alone, together, first, reasons)


def _shortest(
    loss: Callable[[Array], Any],
    params: Mapping[str, Array],
    limits: Mapping[str, float],
    rounds: int,
) -> tuple[float, dict[str, Array]]:
    """Return the seconds of the shortest round, and the gradients of the first one.

    In a thread of its own: fastgrad keeps for each thread what it computes in advance, so nothing
    that was computed with another array is taken for this one's.
    """
    saved = {name: values.copy() for name, values in params.items()}
    taken: list[float] = []
    first: dict[str, Array] = {}
    try:
        with ThreadPoolExecutor(1) as thread:
            while len(taken) < rounds and max(taken, default=0.0) <= LONG * len(params):
                seconds, gradients = thread.submit(_round, loss, params, limits).result()
                taken.append(seconds)
                first = first or gradients
                for name, step in gradients.items():
                    params[name][...] -= RATE * step
    finally:
        for name, before in saved.items():
            params[name][...] = before
    return min(taken), first


def _round(
    loss: Callable[[Array], Any], params: Mapping[str, Array], limits: Mapping[str, float]
) -> tuple[float, dict[str, Array]]:
    """Return the seconds of the gradients of some arrays, and those that were not given up."""
    seconds, gradients = 0.0, dict[str, Array]()
    for name, values in params.items():
        begin = time.perf_counter()
        try:
            with ending_at(time.monotonic() + limits[name]), warnings.catch_warnings():
                warnings.filterwarnings("error", "f is called .* cannot be traced")
                gradients[name] = numerical_gradient(loss, values)
        except OutOfTimeError:
            pass  # as its seconds tell
        seconds += time.perf_counter() - begin
    return seconds, gradients
