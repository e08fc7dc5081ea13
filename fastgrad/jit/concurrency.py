"""Threads: how many compute, how they share work, and locks that a forked child finds free.

**Threads.** A launch ends when its last thread does. Where another process computes, a thread may
have to wait for its turn, some milliseconds, and all others for it: a launch of a tenth of a
millisecond then takes 40 times as long as on one thread. So launches are timed (`Pace`). When they
have taken as much longer than they can as one thread would, kernels run on one thread for a while,
and then it is tried again. Results do not depend on it.

**Chunks.** What lets go of the GIL is done by Python's threads, which take short chunks of it in
order: Ctrl-C strikes between two, and a thread that is late holds nobody up. BLAS, which they may
call, has one thread meanwhile.

**Forks.** A fork takes locks, and releases them on both sides. The child has one thread. What
another thread of its parent held when it was forked would stay held in it for ever, and the memory
that the lock guards half changed.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from queue import Empty, SimpleQueue
from threading import RLock
from typing import Any
from weakref import WeakSet, ref

from fastgrad.jit.interrupts import uninterrupted


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


# Work in chunks -----------------------------------------------------------------------------------

Work = Callable[[slice], None]

MAX_CHUNK_SECONDS = 0.05
"""Seconds that a thread computes at a time: Ctrl-C waits for it."""

MIN_CHUNK_SECONDS = 1e-4
"""Seconds of a thread's work that are worth handing out: some times as long as that takes."""

MIN_SHARED_SECONDS = 3e-4
"""Seconds of work from which threads pay: some times as long as it takes to wake one and to make
copies for it."""

MIN_SHARED_NUMPY_SECONDS = 6e-3
"""The same of work in NumPy: between its functions threads wait for each other's Python code."""

MAX_CHUNK_GROWTH = 8
"""How many times as many items a thread may take as the time before: they may take longer."""

FIRST_CHUNK_GRAINS = 128
"""How many times the grain a thread may take at first, where it is known how long items take."""

IDLE_SECONDS = 1.0
"""Seconds that a thread waits for more work before it ends: starting one takes much longer than
waking one."""


def spread(
    new_work: Callable[[], Work],
    items: int,
    threads: Callable[[], int],
    grain: int = 1,
    seconds: float | None = None,
) -> float:
    """Do a number of items, as many at a time as take a moment, on as many threads as pay.

    The calling thread is one of them. The others wait a second for more, and end.

    Parameters
    ----------
    new_work : callable
        Returns, for a thread, a function that does a slice of the items and lets go of the GIL.
    items : int
    threads : callable
        Returns how many threads there may be; asked if there is enough to do for several.
    grain : int
        How many items are done in the time of one: chunks are multiples of it.
    seconds : float, optional
        About how long an item takes, if that is known. If not, a few are done to see.

    Returns
    -------
    float
        How many seconds an item took.

    Raises
    ------
    BaseException
        What the work raised: of several exceptions that of the first item. Items after it may have
        been done or not.
    """
    work = new_work()
    is_short = seconds is not None and items * seconds < MIN_SHARED_SECONDS
    if is_short and items <= FIRST_CHUNK_GRAINS * grain:
        began = time.perf_counter()
        work(slice(0, items))
        return (time.perf_counter() - began) / max(1, items)
    most = threads()
    chunks = _Chunks(items, most, grain, seconds)
    if seconds is None:
        chunks.do(work, Exception, until=MIN_SHARED_SECONDS / 4)
    try:
        if chunks.remaining_seconds >= MIN_SHARED_SECONDS:
            for _ in range(min(most - 1, -(-(items - chunks.start) // grain))):
                _helpers.hand_over(partial(chunks.share, new_work))
        chunks.do(work, Exception)
    finally:
        chunks.end()
    if chunks.failures:
        raise min(chunks.failures, key=lambda failure: failure[0])[1]
    return chunks.seconds


def in_threads(
    function: Callable[[Any], Any], items: Sequence[Any], seconds: float | None = None
) -> list[Any]:
    """Return what a function that lets go of the GIL returns for each item, in order.

    Threads share the items if that pays; each sees the caller's context. BLAS has one thread
    meanwhile wherever there are several items, for its results may depend on how many it has. Where
    BLAS cannot be held, one thread does all: BLAS's own would wait for each other's cores. About
    how many seconds each takes, if that is known, need not be found out by the first ones.
    """
    if len(items) < 2:
        return [function(item) for item in items]
    results: list[Any] = [None] * len(items)
    variables = copy_context()

    def work(chunk: slice) -> None:
        for k in range(chunk.start, chunk.stop):
            results[k] = function(items[k])

    def new_work() -> Work:
        own = variables.copy()  # no two threads can run in one
        return lambda chunk: own.run(work, chunk)

    is_short = seconds is not None and len(items) * seconds < MIN_SHARED_NUMPY_SECONDS
    with single_blas_thread(is_listed_once=True) as is_held:
        threads = core_count if is_held and not is_short else lambda: 1
        spread(new_work, len(items), threads, seconds=seconds)
    return results


def core_count() -> int:
    """Return how many threads compiled code uses, or would use: numba need not be loaded for it."""
    if getattr(sys.modules.get("numba.np.ufunc.parallel"), "_is_initialized", False):
        return thread_count()
    wanted = os.environ.get("NUMBA_NUM_THREADS", "")
    if wanted.isdigit():
        return max(1, int(wanted))
    if hasattr(os, "sched_getaffinity"):  # on Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _Helpers:
    """Threads that do tasks, as many at once as there are.

    No thread may be in time for a task; so it must not be needed, and do nothing when it is late.
    """

    def __init__(self) -> None:
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._idle = 0
        self._counting = threading.Lock()

    def hand_over(self, task: Callable[[], None]) -> None:
        """Let a thread do a task; start one if there are more tasks than waiting threads."""
        self._tasks.put(task)
        if self._tasks.qsize() > self._idle:
            threading.Thread(target=self._serve, daemon=True, name="fastgrad").start()

    def _serve(self) -> None:
        """Do tasks until there has been none for a while."""
        while True:
            try:
                task = self._wait()
            except Empty:
                return
            task()
            del task  # with the arrays that it holds

    def _wait(self) -> Callable[[], None]:
        """Return the next task; raise Empty if none comes for a while."""
        self._count(1)
        try:
            return self._tasks.get(timeout=IDLE_SECONDS)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        """Count how many helpers wait for a task."""
        with self._counting:
            self._idle += change


_helpers = _Helpers()


def _forget_helpers() -> None:
    """Begin anew in a forked process, which has none of its parent's threads."""
    global _helpers
    _helpers = _Helpers()


class _Chunks:
    """What is still to be done, and what failed.

    Attributes
    ----------
    start : int
        The first item that nobody has taken.
    seconds : float
        How long an item took last.
    stopped : bool
        Whether no more is to be taken.
    failures : list of (int, exception)
        With the start of the chunk. All chunks before the first have been taken, and are done when
        the work has ended.
    """

    def __init__(self, items: int, threads: int, grain: int, seconds: float | None) -> None:
        self.items, self.threads, self.grain = items, threads, grain
        self.start, self.seconds, self.stopped = 0, seconds or 0.0, False
        self.failures: list[tuple[int, BaseException]] = []
        self._most = grain if seconds is None else FIRST_CHUNK_GRAINS * grain
        self._sharing = 0
        self._left: SimpleQueue[None] = SimpleQueue()
        self._changing = threading.Lock()

    @property
    def remaining_seconds(self) -> float:
        """About how long the rest takes one thread; nothing if no more is to be taken."""
        return 0.0 if self.stopped else (self.items - self.start) * self.seconds

    def share(self, new_work: Callable[[], Work]) -> None:
        """Take part in the work, unless it has ended by now."""
        with self._changing:
            if self.stopped:
                return
            self._sharing += 1
        try:
            self.do(new_work(), BaseException)
        except BaseException as error:
            self._fail(self.start, error)
        finally:
            self._left.put(None)

    def end(self) -> None:
        """Take no more chunks, and wait for those that others have taken."""
        with self._changing:
            self.stopped = True
        for _ in range(self._sharing):
            self._left.get()

    def do(self, work: Work, caught: type[BaseException], until: float = float("inf")) -> None:
        """Take chunks and do them, for some seconds.

        Exceptions of the type that is caught are noted for later. The calling thread lets others
        pass, for it is there that Ctrl-C strikes.
        """
        spent = 0.0
        while spent < until and (chunk := self._take(until - spent)):
            began = time.perf_counter()
            try:
                work(chunk)
            except caught as error:
                self._fail(chunk.start, error)
                break
            elapsed = time.perf_counter() - began
            spent += elapsed
            self.seconds = elapsed / (chunk.stop - chunk.start)

    def _fail(self, start: int, error: BaseException) -> None:
        """Note an error, and let no further chunk begin."""
        self.stopped = True
        self.failures.append((start, error))

    def _take(self, left: float) -> slice | None:
        """Return the next items, for at most so many seconds; None if there are none."""
        with self._changing:
            if self.stopped or self.start == self.items:
                return None
            count = self.grain
            if self.seconds:
                # Half of what each would get of the rest, for the next may take longer than known.
                moment = min(left, MAX_CHUNK_SECONDS)
                if self.threads > 1:
                    share = self.remaining_seconds / (2 * self.threads)
                    moment = min(moment, max(share, MIN_CHUNK_SECONDS))
                count = max(1, round(min(moment / self.seconds, self._most) / self.grain)) * count
            self._most = max(self._most, MAX_CHUNK_GROWTH * count)
            chunk = slice(self.start, min(self.start + count, self.items))
            self.start = chunk.stop
        return chunk


# BLAS's threads -----------------------------------------------------------------------------------


class _Holder:
    """A block that holds BLAS to one thread, for as long as it runs, however it ends."""


_holders: WeakSet[_Holder] = WeakSet()
_limits: list[Any] = []
_blas: Any = None
"""What tells the BLAS libraries that were loaded at first how many threads they have."""

_changing_limits = threading.Lock()

_around: ContextVar[Callable[[], _Holder | None]] = ContextVar("around", default=lambda: None)
"""A weak reference to the block around, if there is one."""


@contextmanager
def single_blas_thread(*, is_listed_once: bool = False) -> Iterator[bool]:
    """Let BLAS and OpenMP compute with one thread in this process; say whether they do.

    With more, this process's threads, or its workers, would fight for the cores; and BLAS's sums
    depend on the number of its threads. Blocks of several Python threads may overlap: the last to
    end gives the threads back. Without threadpoolctl, which all workers need, nothing is held.

    Parameters
    ----------
    is_listed_once : bool
        Whether BLAS's libraries are listed at the first call alone, when NumPy's has been loaded:
        to list all that are loaded now takes longer than a small replay.
    """
    global _blas
    if is_listed_once and _around.get()() in _holders:  # which ends later
        yield _blas is None or len(_blas) > 0
        return
    try:
        from threadpoolctl import ThreadpoolController, threadpool_limits
    except ModuleNotFoundError:
        yield False
        return
    holder = _Holder()
    try:
        # Python drops an interrupt that strikes while threadpoolctl lists the libraries.
        with _changing_limits, uninterrupted():
            if is_listed_once and _blas is None:
                _blas = ThreadpoolController().select(user_api="blas")
            if not is_listed_once:
                _limits.append(threadpool_limits(limits=1))
            elif not _holders:
                _limits.append(_blas.limit(limits=1))
            _holders.add(holder)
        token = _around.set(ref(holder))
        try:
            yield not is_listed_once or len(_blas) > 0
        finally:
            _around.reset(token)
    finally:
        with _changing_limits, uninterrupted():
            _holders.discard(holder)
            while _limits and not _holders:
                _limits.pop().restore_original_limits()


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
free_after_fork(_changing_limits)
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
    """Take all locks before a fork."""
    for lock in _all_locks():
        lock.acquire()
        _held.append(lock)


def _let_go() -> None:
    """Let go of all locks after a fork."""
    held = _held.copy()
    _held.clear()
    for lock in reversed(held):
        lock.release()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(before=_take, after_in_parent=_let_go, after_in_child=_let_go)
    os.register_at_fork(after_in_child=_forget_helpers)
