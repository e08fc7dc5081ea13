"""How is compiled work spread over threads? In short chunks, handed out in order."""

import threading
import time
from collections.abc import Callable

Work = Callable[[slice], None]

LONGEST = 0.05
"""Seconds that a thread computes at a time: Ctrl-C waits for it."""

SHORTEST = 2e-4
"""Seconds of a thread's work that are worth handing out."""

WORTH_THREADS = 5e-4
"""Seconds of work from which threads pay: starting one takes up to 0.1 ms."""

GROWTH = 8
"""How many times as many items a thread may take as the time before: they may take longer."""


def spread(new_work: Callable[[], Work], items: int, threads: int) -> None:
    """Do a number of items, as many at a time as take a moment, on as many threads as pay.

    The threads live as long as the call, so that nothing is left behind, not even in a process that
    is forked later. The calling thread is one of them.

    Parameters
    ----------
    new_work : callable
        Returns, for a thread, a function that does a slice of the items and lets go of the GIL.
    items, threads : int

    Raises
    ------
    BaseException
        What the work raised: of several exceptions that of the first item. Items after it may have
        been done or not.
    """
    chunks = _Chunks(items, threads)
    work = new_work()
    count = chunks.do(work, 1, Exception, until=WORTH_THREADS / 4)
    others = []
    if chunks.remaining_seconds > WORTH_THREADS:
        others = [
            threading.Thread(target=chunks.do, args=(new_work(), count, BaseException), daemon=True)
            for _ in range(min(threads - 1, items - chunks.start))
        ]
    try:
        for thread in others:
            thread.start()
        chunks.do(work, count, Exception)
    finally:
        chunks.stopped = True
        for thread in others:
            if thread.ident is not None:
                thread.join()
    if chunks.failures:
        raise min(chunks.failures, key=lambda failure: failure[0])[1]


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
        all threads have ended.
    """

    def __init__(self, items: int, threads: int) -> None:
        self.items, self.threads = items, threads
        self.start, self.seconds, self.stopped = 0, 0.0, False
        self.failures: list[tuple[int, BaseException]] = []
        self._taking = threading.Lock()

    @property
    def remaining_seconds(self) -> float:
        """About how long the rest takes one thread; nothing if no more is to be taken."""
        return 0.0 if self.stopped else (self.items - self.start) * self.seconds

    def do(
        self, work: Work, count: int, caught: type[BaseException], until: float = float("inf")
    ) -> int:
        """Take chunks, the first of so many items, and do them for some seconds.

        Exceptions of the type that is caught are noted for later. The calling thread lets others
        pass, for it is there that Ctrl-C strikes. Returns how many items to take next.
        """
        spent = 0.0
        while spent < until:
            with self._taking:
                chunk = slice(self.start, min(self.start + count, self.items))
                if self.stopped or chunk.start == chunk.stop:
                    break
                self.start = chunk.stop
            began = time.perf_counter()
            try:
                work(chunk)
            except caught as error:
                self.stopped = True
                self.failures.append((chunk.start, error))
                break
            elapsed = time.perf_counter() - began
            spent += elapsed
            self.seconds = elapsed / (chunk.stop - chunk.start)
            share = self.remaining_seconds / (4 * self.threads) if self.threads > 1 else LONGEST
            moment = min(max(share, SHORTEST), LONGEST)
            count = max(1, int(min(moment / self.seconds, GROWTH * count)))
        return count
