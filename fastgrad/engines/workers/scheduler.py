"""The loop's calls of f in parallel: chunks of points for a number of processes, or for a map."""

import math
import os
import reprlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.quotients import join
from fastgrad.differences.validation import warn_caller
from fastgrad.engines import loop
from fastgrad.engines.progress import blocks
from fastgrad.engines.workers import processes
from fastgrad.engines.workers.messages import (
    SharedFunction,
    WorkItem,
    WorkResult,
    single_blas_thread,
)
from fastgrad.engines.workers.verification import VerifiedFunction, verified
from fastgrad.typing import Array, Map, Report, Values

Item = TypeVar("Item")
Result = TypeVar("Result")

WORTHWHILE_SECONDS = 0.1
"""Duration of calls of f from which processes pay."""

MAX_START_SECONDS = 10.0
"""How long this process evaluates f alone, at most, while processes start."""

MIN_CHUNK_SECONDS, MAX_CHUNK_SECONDS = 0.01, 0.2
"""What a chunk is to take: many times a task's overhead of half a millisecond, and short enough
that workers end together."""

MAX_CHUNK_BYTES = 16_000
"""What a chunk's values take at most: what a pipe takes in one go, so that a worker that is killed
does not leave half a message, for the rest of which its parent would wait."""


class WorkerPool:
    """Workers that evaluate functions until they are closed, each with a copy of x of its own.

    Processes start when they are first worth it, and serve until then. They get f once; a
    map is given f and x with every chunk. With any number of workers, 1 included, the values have
    the same bits, because the threads of BLAS are held everywhere: their number changes its sums.

    Parameters
    ----------
    workers : int or map-like
        A number of processes, -1 for all cores; 1 is this process. Or ``map(function, items)``
        that calls a function for each item anywhere, such as the `map` of an executor, of a
        multiprocessing pool, or of `fastgrad.cluster.dask_map`.

    Raises
    ------
    TypeError, ValueError
        If workers is neither a number nor callable, or 0, or below -1.
    """

    def __init__(self, workers: int | Map) -> None:
        self._map = workers if callable(workers) else None
        self._number = 0 if callable(workers) else count(workers)
        self._pool: processes.ProcessPool | None = None
        self._shared: SharedFunction | None = None
        self._verified: VerifiedFunction | None = None
        self._seconds = 0.0

    def close(self, kill: bool = False) -> None:
        """Let go of the processes."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.close(kill)

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
        each = np.repeat(places, points.shape[1]), points.reshape(-1, 1)
        parts = []
        with single_blas_thread(), closing(self._parts(f, x, *each, shape)) as arriving:
            for part in arriving:
                parts.append(part)
                if report is not None:
                    report(len(part) / points.shape[1])
        return join(parts).reshape(*points.shape, *shape)

    def _parts(
        self,
        f: Callable[[Any], Any],
        x: Array,
        places: NDArray[np.intp],
        points: Array,
        shape: tuple[int, ...],
    ) -> Generator[Array]:
        """Yield the values of chunk after chunk of points, one at each place, in order."""
        number = len(places)

        def here(start: int, stop: int | None = None) -> Iterable[Array]:
            return blocks(loop.values, f, x, places[start:stop], points[start:stop], shape)

        if self._number == 1 or not number or not (self._map or processes.may_start()):
            yield from here(0)
            return
        if self._shared is None or not self._shared.is_of(f):
            self._shared = SharedFunction(f, x)
        item = self._shared.item(f, x, places, points, shape)
        if self._verified is None or not self._verified.serves(self._shared, item):
            self._verified = verified(self._shared, f, x, item)
        function = self._verified
        if item.index in self._shared.refused or not self._pays(function.seconds * number):
            yield from here(0)
            return
        done = 0
        for fresh in (False, True) if function.fingerprints else ():
            self._shared.prepare()
            if not self._map:
                pool = self._pool = self._pool or processes.process_pool(self._number, fresh)
                end = time.monotonic() + MAX_START_SECONDS
                while done < number and not pool.ready.done() and time.monotonic() < end:
                    stop = min(number, done + max(1, int(MIN_CHUNK_SECONDS / function.seconds)))
                    yield from here(done, stop)
                    done = stop
            for values in self._results(function, item, done):
                done += len(values)
                yield values
            if done == number or self._map:
                break
            # Processes that have worked before may know f's modules as they were then.
            is_reused = pool.is_reused
            self.close(kill=is_reused)
            if not is_reused:
                break
        if done < number:
            self._shared.refused.add(item.index)
            reason = (
                "it has another value in a worker; it is random, or reads x in a module's global"
                if function.fingerprints
                else "it is nan, infinite or raises where all elements are moved a little at once"
            )
            warn_caller(
                f"f is evaluated by this process alone: {reason}, so that a worker's values "
                "cannot be trusted; let f compute with its argument, or pass workers=None"
            )
            yield from here(done)

    def _pays(self, seconds: float) -> bool:
        """Return whether workers pay, for calls of f that take so long after all others."""
        if self._map:
            return True
        self._seconds += seconds
        if self._pool:
            return seconds >= MIN_CHUNK_SECONDS
        return self._seconds >= WORTHWHILE_SECONDS

    def _results(self, function: VerifiedFunction, item: WorkItem, done: int) -> Generator[Array]:
        """Yield the workers' values from a point on; end where a worker's f is another function."""
        largest = max(1, MAX_CHUNK_BYTES // max(1, item.points.itemsize * math.prod(item.shape)))
        sizes = _sizes(len(item.places) - done, function.seconds, self._number, largest)
        ends = accumulate(sizes, initial=done)
        parts = [item.part(start, stop) for start, stop in pairwise(ends)]
        results: Any = None
        try:
            evaluate: Any = self._pool.map if self._pool else self._map
            results = evaluate(function, parts)
            for part, result in paired(parts, results, WorkResult):
                result.raise_failure()
                if result.values is None:
                    return
                if result.start != part.start or len(result.values) != len(part.places):
                    raise ValueError(
                        "workers returned the answer to another chunk; pass a callable that "
                        "returns results in the order of its items, as map does"
                    )
                yield result.values
        except BaseException:
            self.close()
            raise
        finally:
            if hasattr(results, "close"):
                results.close()  # whatever has not begun is cancelled


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


def paired(
    items: Sequence[Item], results: Any, kind: type[Result]
) -> Iterator[tuple[Item, Result]]:
    """Yield each item with its result; refuse what a map must not return.

    Raises
    ------
    TypeError, ValueError
        If the results cannot be iterated over, are of another type, or too few or too many.
    """
    remedy = "pass a callable that returns function(item) for each item, as map does"
    try:
        arriving = iter(results)
    except TypeError:
        raise TypeError(
            f"workers returned {reprlib.repr(results)}, which holds no results; {remedy}"
        ) from None
    number = 0
    for result in arriving:
        if not isinstance(result, kind):
            raise TypeError(
                f"workers returned {reprlib.repr(result)}, which is no result of function; {remedy}"
            )
        if number < len(items):
            yield items[number], result
        number += 1
    if number != len(items):
        raise ValueError(f"workers returned {number} results for {len(items)} items; {remedy}")


def _sizes(places: int, each: float, workers: int, most: int) -> Iterator[int]:
    """Yield the sizes of chunks: smaller towards the end, so that all workers end together.

    A map, whose workers nobody can count, has 0 of them.
    """
    shares = 2 * workers or 10_000
    shortest = MIN_CHUNK_SECONDS if workers else MAX_CHUNK_SECONDS / 2
    while places:
        size = min(places / shares, MAX_CHUNK_SECONDS / each)
        size = min(places, most, max(1, int(max(size, shortest / each))))
        yield size
        places -= size
