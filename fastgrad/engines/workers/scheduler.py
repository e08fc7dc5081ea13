"""The loop's calls of f in parallel: chunks of points for a number of processes, or for a map."""

import math
import os
import pickle
import reprlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.quotients import join
from fastgrad.differences.validation import warn_caller
from fastgrad.engines import loop
from fastgrad.engines.progress import blocks
from fastgrad.engines.workers import processes
from fastgrad.engines.workers.messages import SharedFunction, WorkItem, WorkResult
from fastgrad.jit.concurrency import single_blas_thread
from fastgrad.typing import Array, Map, Report, Values

Result = TypeVar("Result")

WORTHWHILE_SECONDS = 0.1
"""Duration of calls of f from which processes pay; a tenth of that if they run already."""

MAX_START_SECONDS = 10.0
"""How long this process evaluates f alone, at most, while processes start."""

CHUNKS_PER_WORKER = 8
"""So many at least, so that workers end together."""

MAX_CHUNK_SECONDS = 0.1
"""What a chunk is to take at most: many times a task's overhead of half a millisecond."""

MAX_CHUNK_BYTES = 16_000
"""What a chunk's values take at most: what a pipe takes in one go, so that a worker that is killed
does not leave half a message, for the rest of which its parent would wait."""


class WorkerPool:
    """Workers that evaluate functions, each with a copy of x of its own: processes, or a map's.

    With any number of them, 1 included, which is this process, the values have the same bits,
    because the threads of BLAS are held everywhere: their number changes its sums.
    """

    def __init__(self, workers: int | Map) -> None:
        self._map = workers if callable(workers) else None
        self._number = 0 if callable(workers) else count(workers)
        self._function: SharedFunction | None = None
        self._seconds, self._is_trusted, self._is_started = 0.0, True, False

    def values(self, report: Report | None = None) -> Values:
        """Return the way of evaluating f; report is told of how many elements that is done."""
        return partial(self._values, report)

    def _values(
        self,
        report: Report | None,
        f: Callable[[Any], Any],
        x: Array,
        places: NDArray[np.intp],
        points: Array,
        shape: tuple[int, ...] = (),
    ) -> Array:
        if self._number != 1:
            processes.require_packages()
        each, single = np.repeat(places, points.shape[1]), points.reshape(-1, 1)
        parts: list[Array] = []
        done = 0

        def here() -> Iterator[Array]:
            return blocks(loop.values, f, x, each[done:], single[done:], shape)

        def keep(part: Array) -> None:
            nonlocal done
            parts.append(part)
            done += len(part)
            if report is not None:
                report(len(part) / points.shape[1])

        with single_blas_thread():
            function = self._shared(f, x, places, points)
            if function is not None:
                item = WorkItem(0, each, single, shape, [], {**np.geterr()})
                with closing(self._by_workers(function, item, here)) as arriving:
                    for part in arriving:
                        keep(part)
                if done < len(each):
                    self._refuse(function)
            if done < len(each) or not parts:
                for part in here():
                    keep(part)
        return join(parts).reshape(*points.shape, *shape)

    def _shared(
        self, f: Callable[[Any], Any], x: Array, places: NDArray[np.intp], points: Array
    ) -> SharedFunction | None:
        """Return f as workers get it, if they pay for calls of f that take so long after others."""
        may_share = self._number != 1 and (self._map or processes.may_start())
        if not (may_share and self._is_trusted and points.size):
            return None
        if self._function is None or not self._function.serves(f, x, places):
            self._function = SharedFunction(f, x, places, points)
        seconds = self._function.seconds * points.size
        self._seconds += seconds
        if self._is_started:
            pays = seconds >= WORTHWHILE_SECONDS / 10
        else:
            pays = self._map is not None or self._seconds >= WORTHWHILE_SECONDS
        return self._function if pays else None

    def _by_workers(
        self, function: SharedFunction, whole: WorkItem, here: Callable[[], Iterator[Array]]
    ) -> Generator[Array]:
        """Yield the values of chunks of points; end where a worker's f is another function.

        While processes start, those that are evaluated here.
        """
        done, number = 0, len(whole.places)
        evaluate = self._map or partial(processes.map_in_processes, self._number)
        # Processes that have worked before may know f's modules as they were then.
        attempts = (False,) if self._map else (False, True)
        for fresh in attempts if function.is_finite else ():
            whole = whole._replace(contents=function.prepare())
            if not self._map:
                ready, self._is_started = processes.start(self._number, fresh), True
                end, values = time.monotonic() + MAX_START_SECONDS, here()
                while done < number and not ready.is_set() and time.monotonic() < end:
                    yield (part := next(values))
                    done += len(part)
            size = _chunk_size(number - done, function.seconds, self._number, whole)
            items = [whole.part(k, k + size) for k in range(done, number, size)]
            results: Any = evaluate(function, items)
            try:
                arriving = checked(results, WorkResult, len(items))
                for result, item in zip(arriving, items, strict=True):
                    if result.failure is not None:
                        pickled, text = result.failure
                        raise pickle.loads(pickled) from Exception(f'\n"""\n{text}"""')
                    if result.values is None:
                        break
                    if result.start != item.start or len(result.values) != len(item.places):
                        raise ValueError(
                            "workers returned the answer to another chunk; pass a callable that "
                            "returns results in the order of its items, as map does"
                        )
                    yield result.values
                    done += len(result.values)
                else:
                    return
            finally:
                if hasattr(results, "close"):
                    results.close()  # whatever has not begun is cancelled

    def _refuse(self, function: SharedFunction) -> None:
        """Trust no worker any more, and say why."""
        self._is_trusted = False
        reason = "it is nan, infinite or raises where all elements are moved a little at once"
        if function.is_finite:
            reason = (
                "it has another value in a worker; it is random, or reads x in a module's global"
            )
        warn_caller(
            f"f is evaluated by this process alone: {reason}, so that a worker's values cannot be "
            "trusted; let f compute with its argument, or pass workers=None"
        )


def _chunk_size(number: int, seconds: float, workers: int, item: WorkItem) -> int:
    """Return how many of so many points are a chunk; of a map, nobody can count the workers."""
    share = number / (CHUNKS_PER_WORKER * workers) if workers else number
    most = MAX_CHUNK_BYTES / (item.points.itemsize * max(1, math.prod(item.shape)))
    return max(1, int(min(share, most, MAX_CHUNK_SECONDS / max(seconds, 1e-9))))


def count(workers: Any) -> int:
    """Return the number of workers that is asked for."""
    remedy = "pass a number of processes, -1 for all cores, or a map-like callable such as pool.map"
    if isinstance(workers, bool) or not isinstance(workers, (int, np.integer)):
        raise TypeError(f"workers is {workers!r} of type {type(workers).__name__}; {remedy}")
    number = int(workers)
    if number < 1 and number != -1:
        raise ValueError(f"workers is {number}; {remedy}")
    if number > 0:
        return number
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def checked(results: Any, kind: type[Result], number: int) -> Iterator[Result]:
    """Yield a map's results for so many items; refuse what a map must not return."""
    remedy = "pass a callable that returns function(item) for each item, as map does"
    arrived = 0
    for result in results if isinstance(results, Iterable) else [results]:
        if not isinstance(result, kind):
            raise TypeError(
                f"workers returned {reprlib.repr(result)}, which is no result of function; {remedy}"
            )
        arrived += 1
        if arrived <= number:
            yield result
    if arrived != number:
        raise ValueError(f"workers returned {arrived} results for {number} items; {remedy}")
