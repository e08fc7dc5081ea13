"""How many threads kernels run on, and locks that are free in a forked child.

**Threads.** A launch ends when its last thread does. Where another process computes, a thread may
have to wait for its turn, some milliseconds, and all others for it: a launch of a tenth of a
millisecond then takes 40 times as long as on one thread. So launches are timed (`Pace`). When they
have taken as much longer than they can as one thread would, kernels run on one thread for a while,
and then it is tried again. Results do not depend on it.

**Forks.** A fork takes locks, and releases them on both sides. The child has one thread. What
another thread of its parent held when it was forked would stay held in it for ever, and the memory
that the lock guards half changed.
"""

import os
import sys
import time
from collections.abc import Callable, Hashable, Iterator
from threading import RLock
from typing import Any

from fastgrad.interrupts import uninterrupted


def thread_count() -> int:
    """Return how many threads compiled code uses now, as `numba.set_num_threads` has it.

    `numba.get_num_threads` takes a lock of `multiprocessing` at each call. Ctrl-C between taking it
    and entering the block that lets go of it leaves it taken, and every other thread that asks
    waits for ever. Once numba's threads have started, what counts them is called without that lock.
    """
    import numba

    parallel = sys.modules.get("numba.np.ufunc.parallel")  # numba does not promise these names
    count = getattr(parallel, "_get_num_threads", None)
    if count is not None and getattr(parallel, "_is_initialized", False):
        return int(count())
    with uninterrupted():
        return int(numba.get_num_threads())


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


# Forks --------------------------------------------------------------------------------------------

exclusive = RLock()
"""Held while kernels run: one launch at a time in a process.

numba's workqueue threading layer aborts the process when two Python threads launch parallel
kernels at once, and a net's work arrays serve one call at a time."""

_locks: list[Any] = [RLock()]
"""In the order in which they are taken, where one is taken while another is held. The first lets
one thread fork at a time."""

importing = RLock()
"""Held while a module is imported in the midst of a computation: Python's own lock on a module that
another thread imports would be held in the child for ever."""

_held: list[Any] = []


def free_after_fork(lock: Any) -> None:
    """Register a lock that forks wait for, under which no code of users' runs.

    The locks of numba's compiler and of LLVM need not be named; they are taken after it.
    """
    _locks.append(lock)


free_after_fork(importing)
# A process is forked between kernels, never while another thread compiles or runs one.
free_after_fork(exclusive)


def _all_locks() -> Iterator[Any]:
    """Iterate over all locks, numba's among them if it has been imported."""
    yield from _locks
    for module, path in (
        ("numba.core.compiler_lock", ["global_compiler_lock"]),
        ("llvmlite.binding.ffi", ["lib", "_lock", "_lock"]),
    ):
        lock: Any = sys.modules.get(module)
        for name in path:
            lock = getattr(lock, name, None)  # numba does not promise these names
        if hasattr(lock, "acquire"):
            yield lock


def _take() -> None:
    for lock in _all_locks():
        lock.acquire()
        _held.append(lock)


def _let_go() -> None:
    held = _held.copy()
    _held.clear()
    for lock in reversed(held):
        lock.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_take, after_in_parent=_let_go, after_in_child=_let_go)
