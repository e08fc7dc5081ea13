"""How is the loop spread over workers? In chunks of places, by processes or by any map."""

import math
import multiprocessing
import os
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences import Map, Report, Values
from fastgrad.engines import loop
from fastgrad.engines.holding import one_thread
from fastgrad.engines.payload import Answer, Chunk, Task, fingerprint_at, raise_here

Array = NDArray[Any]

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


def over(workers: int | Map, report: Report | None = None) -> Values:
    """Return a way of evaluating f by workers, each of which moves a copy of x of its own.

    Parameters
    ----------
    workers : int or map-like
        A number of processes, -1 for all cores; 1 is this process. Or ``map(function, items)``
        that calls a function for each item anywhere, such as the `map` of an executor, of a
        multiprocessing pool, or of `fastgrad.cluster.dask_map`.
    report : callable, optional
        Called with the number of elements that have been evaluated since the last time.

    Returns
    -------
    callable
        A `fastgrad.differences.Values`. With any number of workers, 1 included, the bits are the
        same, because the threads of BLAS are held everywhere: their number changes its sums. A
        map is given f and x with every chunk; processes get them once.

    Raises
    ------
    TypeError, ValueError
        If workers is neither a number nor callable, or 0, or below -1.
    """
    chosen = workers if callable(workers) else count(workers)

    def values(
        f: Callable[[Any], Any],
        x: Array,
        places: NDArray[np.intp],
        points: Array,
        shape: tuple[int, ...] = (),
    ) -> Array:
        if chosen != 1:
            from fastgrad.engines.processes import require_packages

            require_packages()
        with one_thread():
            parts = []
            with closing(_parts(chosen, f, x, places, points, shape)) as arriving:
                for part in arriving:
                    parts.append(part)
                    if report is not None:
                        report(len(part))
            return join(parts)

    return values


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


def join(parts: list[Array]) -> Array:
    """Return arrays of values as one, of the type that they would have if collected at once."""
    if len({part.dtype for part in parts}) == 1:
        return np.concatenate(parts)
    mixed = np.array([value for part in parts for value in part.reshape(-1)])
    if mixed.dtype.kind in "biu":
        mixed = mixed.astype(object)
    return mixed.reshape(-1, *parts[0].shape[1:])


def _parts(
    workers: int | Map,
    f: Callable[[Any], Any],
    x: Array,
    places: NDArray[np.intp],
    points: Array,
    shape: tuple[int, ...],
) -> Generator[Array]:
    """Yield the values of chunk after chunk, in order."""

    def here(start: int, stop: int | None = None) -> Array:
        return loop.values(f, x, places[start:stop], points[start:stop], shape)

    if workers == 1 or not points.size or _has_no_processes(workers):
        yield here(0)
        return
    tests, expected, seconds = _test(f, x, places, points)
    refusal = "it is nan, infinite or raises where all elements are moved a little at once"
    done = 0
    if expected is not None:
        each = max(seconds * points.shape[1], 1e-9)
        if not callable(workers):
            from fastgrad.engines import processes

            if each * len(places) < WORTHWHILE:
                yield here(0)
                return
            if not processes.prepare():
                done = min(len(places), int(STARTING / each))
                if done:
                    yield here(0, done)
        most = max(1, LARGEST // max(1, points[:1].nbytes * math.prod(shape)))
        sizes = _sizes(len(places) - done, each, workers, most)
        chunks = [*pairwise(accumulate(sizes, initial=done))]
        task = Task(f, x, places, points, tests, shape)
        refusal = "it has another value in a worker; it is random, or reads x in a module's global"
        with closing(_answers(workers, task, chunks, expected)) as arriving:
            for values in arriving:
                done += len(values)
                yield values
    if done < len(places):
        _warn(
            f"f is evaluated by this process alone: {refusal}, so that a worker's values cannot "
            "be trusted; let f compute with its argument, or pass workers=None"
        )
        yield here(done)


def _test(
    f: Callable[[Any], Any], x: Array, places: NDArray[np.intp], points: Array
) -> tuple[list[Array], tuple[str, ...] | None, float]:
    """Choose points that tell whether f sees x move in a worker, and evaluate f there.

    A copy of f that reads another array than the one that is moved would give differences of zero,
    at single elements maybe. At a test point every element is moved, each by another fraction of
    one of its steps, so that a copy that misses any move has another value.

    Returns
    -------
    tests : list of arrays (n,)
        The points.
    expected : tuple of str, or None
        The fingerprints of f there; None if f has no finite value, which tells nothing.
    seconds : float
        What an evaluation takes.
    """
    random = np.random.default_rng(0)
    elements = x.view(np.ndarray).reshape(-1)[places]
    tests, expected, seconds = [], [], np.inf
    for _ in range(2):
        targets = points[np.arange(len(points)), random.integers(points.shape[1], size=len(points))]
        fractions = random.uniform(0.5, 1, len(points)).astype(points.real.dtype)
        with np.errstate(all="ignore"):
            tests.append((elements + fractions * (targets - elements)).astype(points.dtype))
        start = time.perf_counter()
        fingerprint, finite = fingerprint_at(f, x, places, tests[-1])
        took = time.perf_counter() - start
        if not finite:
            return tests, None, took
        expected.append(fingerprint)
        seconds = min(seconds, took)
        if took > SHORTEST * 10:
            break  # A second one would cost too much; the first may be that slow only once.
    return tests, tuple(expected), seconds


def _sizes(places: int, each: float, workers: int | Map, most: int) -> Iterator[int]:
    """Yield the sizes of chunks: smaller towards the end, so that all workers end together."""
    shares = 10_000 if callable(workers) else 2 * workers
    shortest = LONGEST / 2 if callable(workers) else SHORTEST
    while places:
        size = min(places / shares, LONGEST / each)
        size = min(places, most, max(1, int(max(size, shortest / each))))
        yield size
        places -= size


def _answers(
    workers: int | Map, task: Task, chunks: list[Chunk], expected: tuple[str, ...]
) -> Generator[Array]:
    """Yield the workers' values; end where a worker's f is another function."""
    with _mapping(workers, task) as (mapped, function):
        answers = mapped(function, chunks)
        try:
            for (start, stop), answer in zip(chunks, answers, strict=True):
                if answer.fingerprints and answer.fingerprints != expected:
                    return
                if answer.failure is not None:
                    raise_here(answer.failure)
                if answer.values is None or len(answer.values) != stop - start:
                    raise ValueError(
                        "workers returned the answer to another chunk; pass a callable that "
                        "returns results in the order of its items, as map does"
                    )
                yield answer.values
        finally:
            if hasattr(answers, "close"):
                answers.close()  # whatever has not begun is cancelled


@contextmanager
def _mapping(workers: int | Map, task: Task) -> Iterator[tuple[Map, Callable[[Chunk], Answer]]]:
    """Give a map, and the function to map: of processes of our own, each gets the task once."""
    if callable(workers):
        yield workers, task
        return
    from fastgrad.engines import processes

    with processes.pool(workers, _install, task) as mapped:
        yield mapped, _answer


def _install(task: Task) -> None:
    global _installed
    _installed = task


def _answer(chunk: Chunk) -> Answer:
    return _installed(chunk)


def _has_no_processes(workers: int | Map) -> bool:
    """Say whether processes are asked for by one that must not start any, as a pool's worker."""
    return not callable(workers) and multiprocessing.current_process().daemon


def _warn(message: str) -> None:
    """Warn in the name of whoever called fastgrad."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("fastgrad."):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)
