"""How is the loop spread over workers? In chunks of points, by processes or by any map."""

import math
import multiprocessing
import os
import reprlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastgrad.arguments import warn_caller
from fastgrad.differences import join
from fastgrad.engines import loop
from fastgrad.engines.errand import Answer, Errand, raise_here
from fastgrad.engines.holding import one_thread
from fastgrad.engines.payload import Task, Whole
from fastgrad.engines.trials import Expected, Sent
from fastgrad.progress import blocks
from fastgrad.typing import Array, Map, Report, Values

Chunk = tuple[int, int]
"""The first point, and the one after the last."""

Item = TypeVar("Item")
Result = TypeVar("Result")

WORTHWHILE = 0.1
"""Seconds of calls of f from which processes of our own pay."""

STARTING = 0.1
"""Seconds until the first pool's processes are there; this process works meanwhile."""

SHORTEST, LONGEST = 0.01, 0.2
"""Seconds that a chunk is to take: many times a task's overhead of half a millisecond, and short
enough that workers end together."""

LARGEST = 16_000
"""Bytes of a chunk's values: what a pipe takes in one go, so that a worker that is killed does not
leave half a message, which a pool would wait for."""

_installed: Task
"""In a process of our own: what it works on."""


class Crew:
    """Workers that evaluate functions during a ``with`` block, each with a copy of x of its own.

    Processes start when they are first worth it, and serve until the block ends, for another
    function, or f raises. They get f once; a map is given f and x with every chunk. With any number
    of workers, 1 included, the values have the same bits, because the threads of BLAS are held
    everywhere: their number changes its sums.

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
        self._workers = workers if callable(workers) else count(workers)
        self._held, self._holds = ExitStack(), False  # BLAS's threads
        self._pool = ExitStack()  # our processes
        self._submit: Map | None = None
        self._sent: Sent | None = None
        self._seconds = 0.0

    def __enter__(self) -> "Crew":
        """Begin the block. Nothing starts yet."""
        return self

    def __exit__(self, *error: Any) -> None:
        """End all processes, and give BLAS its threads back."""
        with self._held:
            self._dismiss(*error)

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
        if self._workers != 1:
            from fastgrad.engines.processes import require_packages

            require_packages()
        if not self._holds:
            self._held.enter_context(one_thread())
            self._holds = True
        parts = []
        told = report is not None
        with closing(self._parts(f, x, places, points, shape, told)) as arriving:
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
        told: bool,
    ) -> Generator[Array]:
        """Yield the values of chunk after chunk of points, in order; often, if someone is told."""
        each_place, each_point = np.repeat(places, points.shape[1]), points.reshape(-1, 1)
        number = len(each_place)

        def here(start: int, stop: int | None = None) -> Iterable[Array]:
            some = each_place[start:stop], each_point[start:stop], shape
            return blocks(loop.values, f, x, *some) if told else [loop.values(f, x, *some)]

        if self._workers == 1 or not number or _has_no_processes(self._workers):
            yield from here(0)
            return
        if self._sent is None or not self._sent.is_of(f):
            self._dismiss()
            self._sent = Sent(f, x)
        expected = self._sent.expected(f, x, places, points)
        index = expected.where.index
        each, done = max(expected.seconds, 1e-9), 0
        if index in self._sent.refused or not self._pays(each * number):
            yield from here(0)
            return
        refusal = "it is nan, infinite or raises where all elements are moved a little at once"
        if expected.fingerprints is not None:
            done = self._meanwhile(number, each)
            if done:
                yield from here(0, done)
            most = max(1, LARGEST // max(1, points.itemsize * math.prod(shape)))
            sizes = _sizes(number - done, each, self._workers, most)
            chunks = [*pairwise(accumulate(sizes, initial=done))]
            refusal = (
                "it has another value in a worker; it is random, or reads x in a module's global"
            )
            all_passed = len(expected.passed) == self._workers
            errand = self._sent.errand(
                f, x, each_place, each_point, shape, None if all_passed else expected
            )
            with closing(self._answers(errand, chunks, expected)) as arriving:
                for values in arriving:
                    done += len(values)
                    yield values
        if done < number:
            self._sent.refused.add(index)
            warn_caller(
                f"f is evaluated by this process alone: {refusal}, so that a worker's values "
                "cannot be trusted; let f compute with its argument, or pass workers=None"
            )
            yield from here(done)

    def _pays(self, seconds: float) -> bool:
        """Say whether workers are worth it, for so many seconds of calls of f after all before."""
        if callable(self._workers):
            return True
        self._seconds += seconds
        return self._seconds >= WORTHWHILE if self._submit is None else seconds >= SHORTEST

    def _meanwhile(self, number: int, each: float) -> int:
        """Return how many points this process evaluates while the first processes start."""
        if callable(self._workers) or self._submit is not None:
            return 0
        from fastgrad.engines import processes

        return 0 if processes.prepare() else min(number, int(STARTING / each))

    def _answers(self, errand: Errand, chunks: list[Chunk], expected: Expected) -> Generator[Array]:
        """Yield the workers' values; end where a worker's f is another function."""
        answers: Any = None
        try:
            answers = self._sent_out(errand, chunks)
            for (start, stop), answer in paired(chunks, answers, Answer):
                if answer.fingerprints and answer.fingerprints != expected.fingerprints:
                    self._dismiss()
                    return
                other = answer.start != start
                if answer.failure is not None and not other:
                    raise_here(answer.failure)
                if other or answer.values is None or len(answer.values) != stop - start:
                    raise ValueError(
                        "workers returned the answer to another chunk; pass a callable that "
                        "returns results in the order of its items, as map does"
                    )
                expected.passed.add(answer.worker)
                yield answer.values
        except BaseException as error:
            self._dismiss(type(error), error, error.__traceback__)
            raise
        finally:
            if hasattr(answers, "close"):
                answers.close()  # whatever has not begun is cancelled

    def _sent_out(self, errand: Errand, chunks: list[Chunk]) -> Any:
        """Return the answers to come, in order."""
        assert self._sent is not None
        task = self._sent.task()
        if callable(self._workers):
            return self._workers(Whole(task, errand), chunks)
        if self._submit is None:
            from fastgrad.engines import processes

            pool = processes.pool(self._workers, _install, task)
            self._submit = self._pool.enter_context(pool)
        return self._submit(_answer, [errand.part(*chunk) for chunk in chunks])

    def _dismiss(self, *error: Any) -> None:
        """End the processes: killed, if some are still at work."""
        pool, self._pool, self._submit = self._pool, ExitStack(), None
        if self._sent is not None:
            self._sent.forget()
        pool.__exit__(*(error or (None, None, None)))


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


def _sizes(places: int, each: float, workers: int | Map, most: int) -> Iterator[int]:
    """Yield the sizes of chunks: smaller towards the end, so that all workers end together."""
    shares = 10_000 if callable(workers) else 2 * workers
    shortest = LONGEST / 2 if callable(workers) else SHORTEST
    while places:
        size = min(places / shares, LONGEST / each)
        size = min(places, most, max(1, int(max(size, shortest / each))))
        yield size
        places -= size


def _install(task: Task) -> None:
    global _installed
    _installed = task


def _answer(errand: Errand) -> Answer:
    return _installed(errand)


def _has_no_processes(workers: int | Map) -> bool:
    """Say whether processes are asked for by one that must not start any, as a pool's worker."""
    return not callable(workers) and multiprocessing.current_process().daemon
