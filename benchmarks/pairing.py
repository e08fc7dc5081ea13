"""How do calls compare on a noisy machine? In alternating short rounds, by median and minimum."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

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


@dataclass(frozen=True)
class Ratio:
    """How many times as long one call takes as another, by medians and by minima."""

    medians: float
    minima: float

    def __str__(self) -> str:
        """Return both, with three digits."""
        return f"{self.medians:.3g} (medians), {self.minima:.3g} (minima)"


def compare(calls: Mapping[str, Call], rounds: int = 15) -> dict[str, Times]:
    """Time each call in turn, A B C A B C ..., so that a disturbance falls on all of them.

    Before the first round each is called three times, untimed, which compiles and warms up. Each
    block begins, after a pause, with one more untimed call, which wakes the library's threads.

    Parameters
    ----------
    calls : mapping of str to callable
        What is compared, by name.
    rounds : int
        How many blocks of each are timed.

    Returns
    -------
    dict of str to Times
        With `rounds` times the calls that fit into `BLOCK` seconds.
    """
    blocks = {name: _calls_per_block(call) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            time.sleep(PAUSE)
            if blocks[name] > 1:
                call()
            seconds[name] += [stopwatch(call) for _ in range(blocks[name])]
    return {name: Times(values) for name, values in seconds.items()}


def ratio(times: Times, to: Times) -> Ratio:
    """Return the first time over the second."""
    return Ratio(times.median / to.median, times.minimum / to.minimum)


def stopwatch(call: Call) -> float:
    """Return the seconds that one call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _calls_per_block(call: Call) -> int:
    """Warm up, and see how many calls fit into a block."""
    time.sleep(PAUSE)
    call()
    shortest = min(stopwatch(call) for _ in range(2))
    return max(1, round(BLOCK / shortest))
