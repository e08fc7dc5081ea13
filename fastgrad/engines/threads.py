"""Threads for compiled work, in short chunks that are handed out in order."""

import os
import threading
import time
from collections.abc import Callable
from functools import partial
from queue import Empty, SimpleQueue

Work = Callable[[slice], None]

LONGEST = 0.05
"""Seconds that a thread computes at a time: Ctrl-C waits for it."""

SHORTEST = 1e-4
"""Seconds of a thread's work that are worth handing out: some times as long as that takes."""

WORTH_THREADS = 3e-4
"""Seconds of work from which threads pay: some times as long as it takes to wake one and to make
copies for it."""

GROWTH = 8
"""How many times as many items a thread may take as the time before: they may take longer."""

FIRST = 128
"""How many times the grain a thread may take at first, where it is known how long items take."""

IDLE = 1.0
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
    if seconds is not None and items * seconds < WORTH_THREADS and items <= FIRST * grain:
        began = time.perf_counter()
        work(slice(0, items))
        return (time.perf_counter() - began) / max(1, items)
    most = threads()
    chunks = _Chunks(items, most, grain, seconds)
    if seconds is None:
        chunks.do(work, Exception, until=WORTH_THREADS / 4)
    try:
        if chunks.remaining_seconds >= WORTH_THREADS:
            for _ in range(min(most - 1, -(-(items - chunks.start) // grain))):
                _helpers.hand_over(partial(chunks.share, new_work))
        chunks.do(work, Exception)
    finally:
        chunks.end()
    if chunks.failures:
        raise min(chunks.failures, key=lambda failure: failure[0])[1]
    return chunks.seconds


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
        self._count(1)
        try:
            return self._tasks.get(timeout=IDLE)
        finally:
            self._count(-1)

    def _count(self, change: int) -> None:
        with self._counting:
            self._idle += change


_helpers = _Helpers()


def _forget_helpers() -> None:
    """Begin anew in a forked process, which has none of its parent's threads."""
    global _helpers
    _helpers = _Helpers()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_helpers)


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
        self._most = grain if seconds is None else FIRST * grain
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
                share = self.remaining_seconds / (2 * self.threads) if self.threads > 1 else LONGEST
                moment = min(max(share, SHORTEST), LONGEST, left)
                count = max(1, round(min(moment / self.seconds, self._most) / self.grain)) * count
            self._most = max(self._most, GROWTH * count)
            chunk = slice(self.start, min(self.start + count, self.items))
            self.start = chunk.stop
        return chunk
