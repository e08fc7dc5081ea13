"""The choice between one thread and several for launches, by the time that launches take.

A launch ends when its last thread does. Where another process computes, a thread may have to wait
for its turn, some milliseconds, and all others for it: a launch of a tenth of a millisecond then
takes 40 times as long as on one thread. So launches are timed. When they have taken as much longer
than they can as one thread would, kernels run on one thread for a while, and then it is tried
again. Results do not depend on it.
"""

import time
from collections.abc import Callable, Hashable

MIN_REST_SECONDS, MAX_REST_SECONDS = 0.05, 2.0
"""Seconds for which one thread computes, the first time and at most: each time twice as many."""

LAUNCHES_JUDGED = 32
"""About how many launches are judged together: a single one may be late anywhere."""

MAX_KINDS = 256
"""Of how many kinds of launch it is known how long they take."""


class Pace:
    """The times of launches, and what follows from them.

    Parameters
    ----------
    clock : callable
        Returns the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.clock = clock
        self._best: dict[Hashable, float] = {}
        self._taken = self._possible = 0.0  # seconds of a launch, as means over the last ones
        self._rest, self._rest_ends = MIN_REST_SECONDS, 0.0
        self._late = (0.0, 0.0)  # these two means when launches were found to be late
        # Launches on one thread since then, and for them the sums of the same seconds.
        self._alone = 0, 0.0, 0.0

    @property
    def on_one_thread(self) -> bool:
        """Whether one thread is to compute now."""
        return self.clock() < self._rest_ends

    def note(self, kind: Hashable, seconds: float, threads: int) -> None:
        """Note how long a launch on several threads has taken.

        Parameters
        ----------
        kind : hashable
            What launches that do the same work have in common.
        seconds : float
        threads : int
            On how many.
        """
        if len(self._best) >= MAX_KINDS:
            self._best.clear()
        best = self._best[kind] = min(self._best.get(kind, seconds), seconds)
        self._taken += (seconds - self._taken) / LAUNCHES_JUDGED
        self._possible += (best - self._possible) / LAUNCHES_JUDGED
        if self._taken > threads * self._possible:
            now = self.clock()
            again = now - self._rest_ends < self._rest
            self._rest = min(2 * self._rest, MAX_REST_SECONDS) if again else MIN_REST_SECONDS
            self._rest_ends = now + self._rest
            self._late = self._taken, self._possible
            self._taken = self._possible = 0.0
            self._alone = 0, 0.0, 0.0

    def note_one_thread(self, kind: Hashable, seconds: float) -> None:
        """Note how long one thread has taken; if others were faster even late, they go on."""
        launches, taken, possible = self._alone
        launches, taken = launches + 1, taken + seconds
        possible += self._best.get(kind, seconds)
        self._alone = launches, taken, possible
        if launches == LAUNCHES_JUDGED and taken * self._late[1] > possible * self._late[0]:
            self._rest_ends = 0.0
            self._best.clear()  # nobody was late: there is more work than there was
