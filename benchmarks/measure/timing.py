"""Times of calls that take turns in short blocks, by median and minimum."""

import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from threadpoolctl import threadpool_limits

Call = Callable[[], object]

PAUSE = 0.02
"""Seconds between blocks: idle threads of one library spin for a while before they sleep, on the
cores that the other library needs."""

BLOCK = 0.03
"""Seconds that a block of calls is to last, at least one call."""


@dataclass(frozen=True)
class Times:
    """The seconds of single calls.

    Attributes
    ----------
    seconds : list of float
        In the order of the calls.
    """

    seconds: list[float]

    @property
    def median(self) -> float:
        """The middle one: what a user sees on this machine, its other work included."""
        return median(self.seconds)

    @property
    def minimum(self) -> float:
        """The shortest one: what the code needs when nothing disturbs it."""
        return min(self.seconds)

    @property
    def total(self) -> float:
        """All of them together."""
        return sum(self.seconds)

    @property
    def milliseconds(self) -> str:
        """The median and, in brackets, the minimum."""
        return f"{1e3 * self.median:.3g} ({1e3 * self.minimum:.3g})"


@dataclass(frozen=True)
class Ratio:
    """How many times as long one call takes as another, by medians and by minima."""

    medians: float
    minima: float

    def __str__(self) -> str:
        """Return both, with three digits."""
        return f"{_three_digits(self.medians)} (medians), {_three_digits(self.minima)} (minima)"


def compare(calls: Mapping[str, Call], rounds: int = 15) -> dict[str, Times]:
    """Time each call in turn, A B C A B C ..., so that a disturbance falls on all of them.

    Each is first called twice, untimed, which compiles and warms up. Each block begins with a pause
    and, unless the calls are long, with one more untimed call, which wakes the library's threads.

    Parameters
    ----------
    calls : mapping of str to callable
        What is compared, by name.
    rounds : int
        How many blocks of each are timed.

    Returns
    -------
    dict of str to Times
    """
    warm = {name: min(stopwatch(call), stopwatch(call)) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            if warm[name] < BLOCK:
                call()
            seconds[name] += _block(call)
    return {name: Times(values) for name, values in seconds.items()}


def blas_threads() -> list[int]:
    """Return the numbers of BLAS threads that are tried: one, and one for each core."""
    return sorted({1, os.cpu_count() or 1})


def best_blas_threads(call: Call, rounds: int = 5) -> int:
    """Return with how many BLAS threads a call takes shortest, of some in turns."""
    shortest = dict.fromkeys(blas_threads(), math.inf)
    for _ in range(rounds):
        for threads, seconds in shortest.items():
            with threadpool_limits(threads, "blas"):
                shortest[threads] = min(seconds, stopwatch(call))
    return min(shortest, key=lambda threads: shortest[threads])


def ratio(times: Times, to: Times) -> Ratio:
    """Return the first time over the second."""
    return Ratio(times.median / to.median, times.minimum / to.minimum)


def stopwatch(call: Call) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _three_digits(value: float) -> str:
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.3g}"


def _block(call: Call) -> list[float]:
    """Time single calls until the block is over."""
    end, seconds = time.perf_counter() + BLOCK, [stopwatch(call)]
    while time.perf_counter() < end:
        seconds.append(stopwatch(call))
    return seconds
