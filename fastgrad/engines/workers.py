"""The loop's calls of f in parallel: by processes of this machine, or by a map-like callable.

A `WorkerPool` divides the points to which elements of x are moved into chunks, sends them out, and
collects f's values in order, with the same bits for any number of workers. f and its arrays are
sent once, as a `SharedFunction`; a `WorkItem` goes out for each chunk, and a `WorkResult` comes
back.

A copy of f that reads another array than the one that is moved would give differences of zero, at
single elements maybe. So at a test point every element is moved, each by another fraction of one of
its steps: a copy that misses any move has another value, and is not believed.

>>> import numpy as np
>>> from fastgrad import numerical_gradient
>>> numerical_gradient(lambda x: (x**2).sum(), np.arange(3.0), engine="loop", workers=map).round(6)
array([0., 2., 4.])
"""

import io
import math
import os
import pickle
import reprlib
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import uuid4

import numpy as np

from fastgrad.differences.arguments import Call, leaves, warn_caller
from fastgrad.differences.quotients import join
from fastgrad.engines import loop, processes
from fastgrad.jit.concurrency import single_blas_thread
from fastgrad.typing import Array, Map, Moves, Places, Report, Values

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

MAX_SEARCH_CALLS = 16
"""Calls of f by which test points are looked for where f's domain ends at x."""

LONG_CALL_SECONDS = 0.1
"""What a call of f takes from which one test point is enough."""


class WorkItem(NamedTuple):
    """Moves of x at which f is to be evaluated, the first of them the start-th of all.

    Contents are what is in all arrays of f, or nothing, as long as that is what was sent with f;
    errors what NumPy does about floating-point errors, as `numpy.geterr` returns it.
    """

    start: int
    moves: Moves
    contents: list[bytes]
    errors: dict[str, Any]

    def part(self, start: int, stop: int | None = None) -> "WorkItem":
        """Return the item for some of the moves, by default for all from the start-th on."""
        return self._replace(start=start, moves=self.moves.part(slice(start, stop)))

    def values_here(self, f: Callable[[Any], Any], x: Array) -> Iterator[Array]:
        """Yield f at the points, as this process computes it, in blocks."""
        return loop.in_blocks(loop.values, f, x, self.moves)


class WorkResult(NamedTuple):
    """What a worker returns for an item: its start, and f at its points.

    The values are None if the worker's f is another function, or has raised: then failure is the
    exception, pickled, and its traceback.
    """

    start: int
    values: Array | None
    failure: tuple[bytes, str] | None = None


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
        self, report: Report | None, f: Callable[[Any], Any], x: Array, moves: Moves
    ) -> Array:
        """Return f at the points, and report how far that has come."""
        if self._number != 1:
            processes.require_packages()
        parts: list[Array] = []
        with single_blas_thread(), closing(self._parts(f, x, moves)) as arriving:
            for part in arriving:
                parts.append(part)
                if report is not None:
                    report(len(part) / moves.points.shape[1])
        return join(parts).reshape(*moves.points.shape, *moves.shape)

    def _parts(self, f: Callable[[Any], Any], x: Array, moves: Moves) -> Generator[Array]:
        """Yield f at one point after the other: by workers while they are trusted, then here."""
        function = self._shared(f, x, moves)
        whole, done, number = WorkItem(0, moves.singly(), [], {**np.geterr()}), 0, moves.points.size
        if function is not None:
            with closing(self._by_workers(function, whole)) as arriving:
                for part in arriving:
                    yield part
                    done += len(part)
            if done < number:
                self._refuse(function)
        if done < number or not number:
            yield from whole.part(done).values_here(f, x)

    def _shared(self, f: Callable[[Any], Any], x: Array, moves: Moves) -> "SharedFunction | None":
        """Return f as workers get it, if they pay for calls of f that take so long after others."""
        may_share = self._number != 1 and (self._map or processes.may_start())
        if not (may_share and self._is_trusted and moves.points.size):
            return None
        if self._function is None or not self._function.serves(f, x, moves.places):
            self._function = SharedFunction(f, x, moves)
        seconds = self._function.seconds * moves.points.size
        self._seconds += seconds
        if self._is_started:
            pays = seconds >= WORTHWHILE_SECONDS / 10
        else:
            pays = self._map is not None or self._seconds >= WORTHWHILE_SECONDS
        return self._function if pays else None

    def _by_workers(self, function: "SharedFunction", whole: WorkItem) -> Generator[Array]:
        """Yield the values of chunks of points; end where a worker's f is another function."""
        done, number = 0, len(whole.moves.places)
        evaluate = self._map or partial(processes.map_in_processes, self._number)
        # Processes that have worked before may know f's modules as they were then.
        attempts = (False,) if self._map else (False, True)
        for fresh in attempts if function.is_finite else ():
            whole = whole._replace(contents=function.prepare())
            if not self._map:
                for values in self._until_started(function, whole.part(done), fresh):
                    yield values
                    done += len(values)
            size = _chunk_size(number - done, function.seconds, self._number, whole)
            items = [whole.part(k, k + size) for k in range(done, number, size)]
            results: Any = evaluate(function, items)
            try:
                for values in _trusted_values(results, items):
                    yield values
                    done += len(values)
            finally:
                if hasattr(results, "close"):
                    results.close()  # whatever has not begun is cancelled
            if done == number:
                return

    def _until_started(
        self, function: "SharedFunction", item: WorkItem, fresh: bool
    ) -> Iterator[Array]:
        """Start processes, and yield what this one computes of an item until one of them works."""
        ready, self._is_started = processes.start(self._number, fresh), True
        end, done = time.monotonic() + MAX_START_SECONDS, 0
        values = item.values_here(function.f, function.arrays[0])
        while done < len(item.moves.places) and not ready.is_set() and time.monotonic() < end:
            yield (part := next(values))
            done += len(part)

    def _refuse(self, function: "SharedFunction") -> None:
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


def _trusted_values(results: Any, items: list[WorkItem]) -> Iterator[Array]:
    """Yield the values in results; end where a worker's f is another function.

    What f has raised in a worker is raised here.
    """
    for result, item in zip(checked(results, WorkResult, len(items)), items, strict=True):
        if result.failure is not None:
            pickled, text = result.failure
            raise pickle.loads(pickled) from Exception(f'\n"""\n{text}"""')
        if result.values is None:
            return
        if result.start != item.start or len(result.values) != len(item.moves.places):
            raise ValueError(
                "workers returned the answer to another chunk; pass a callable that returns "
                "results in the order of its items, as map does"
            )
        yield result.values


def _chunk_size(number: int, seconds: float, workers: int, item: WorkItem) -> int:
    """Return how many of so many points are a chunk; of a map, nobody can count the workers."""
    share = number / (CHUNKS_PER_WORKER * workers) if workers else number
    most = MAX_CHUNK_BYTES / (item.moves.points.itemsize * max(1, math.prod(item.moves.shape)))
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


class SharedFunction:
    """f and its arrays, sent to each worker once, with points that tell whether f sees x move.

    If f is a `Call` of a structure, its arrays are all in that. Its seconds are what a call takes
    here; if it is not finite at the points, they tell nothing.
    """

    def __init__(self, f: Callable[[Any], Any], x: Array, moves: Moves) -> None:
        places, points, _ = moves
        whole = f.whole if isinstance(f, Call) else None
        self.f, self.places = f, places
        self.arrays = [x, *(array for _, array in leaves(whole or ()) if array is not x)]
        self.key, self.pickled = uuid4().hex, b""
        self.contents, self.has_changed = self._contents(), False
        self.tests: list[Array] = []
        self.fingerprints: list[Any] = []
        self.seconds = math.inf
        random = np.random.default_rng(0)
        elements, number = x.view(np.ndarray).reshape(-1)[places], len(places)

        def timed(x: Array) -> Any:
            start = time.perf_counter()
            try:
                return f(x)
            finally:
                self.seconds = min(self.seconds, time.perf_counter() - start)

        columns: Places | None = None
        # Not a second one if it costs too much; the first may be that slow only once.
        while len(self.tests) < 2 and not (self.tests and self.seconds > LONG_CALL_SECONDS):
            drawn = random.integers(points.shape[1], size=number)
            targets = points[np.arange(number), drawn if columns is None else columns]
            fractions = random.uniform(0.5, 1, number).astype(points.real.dtype)
            with np.errstate(all="ignore"):
                self.tests.append((elements + fractions * (targets - elements)).astype(x.dtype))
            self.fingerprints.append(_fingerprint(timed, x, places, self.tests[-1]))
            if self.fingerprints == [None] and columns is None:
                columns = _columns_inside(timed, x, moves)
                if columns is not None:  # on the side of x on which f has a value
                    self.tests, self.fingerprints = [], []
        self.is_finite = None not in self.fingerprints

    def serves(self, f: Callable[[Any], Any], x: Array, places: Places) -> bool:
        """Return whether it is f, moving x, and the check moves all the places."""
        same = f is self.f and x is self.arrays[0] and bool(np.isin(places, self.places).all())
        return same and (self.pickled != b"" or self.contents == self._contents())

    def prepare(self) -> list[bytes]:
        """Pickle f and the arrays, the first time; return the `contents` of items.

        In one piece, so that what f reads of the arrays elsewhere is what is moved.
        """
        if not self.pickled:
            self.pickled = _dumps(self.f, self.arrays)
        contents = self._contents()
        self.has_changed |= contents != self.contents
        return contents if self.has_changed else []

    def _contents(self) -> list[bytes]:
        """Return what is in each array, as bytes."""
        return [array.view(np.ndarray).tobytes() for array in self.arrays]

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels."""
        names = ("key", "pickled", "places", "tests", "fingerprints")
        return {name: getattr(self, name) for name in names}

    def __call__(self, item: WorkItem) -> WorkResult:
        """Return f at an item's points, in a worker, if its copy of f has passed the check."""
        try:
            is_new = getattr(_copy, "key", "") != self.key
            if is_new:
                _copy.key = ""
                _copy.f, _copy.arrays = pickle.loads(self.pickled)
            f, arrays = _copy.f, _copy.arrays
            # After f has been unpickled, and with it the libraries whose threads are held.
            with single_blas_thread(), np.errstate(**item.errors):
                if is_new:
                    found = [_fingerprint(f, arrays[0], self.places, test) for test in self.tests]
                    if found != self.fingerprints:
                        return WorkResult(item.start, None)
                    _copy.key = self.key
                for array, content in zip(arrays, item.contents, strict=False):
                    plain = array.view(np.ndarray)
                    plain[...] = np.frombuffer(content, array.dtype).reshape(array.shape)
                values = loop.values(f, arrays[0], item.moves)
                return WorkResult(item.start, values)
        except Exception as error:
            return WorkResult(item.start, None, _failure(error))


_copy = threading.local()
"""The key of the function that a worker's thread has checked last; f and the arrays of its copy."""


def _fingerprint(f: Callable[[Any], Any], x: Array, places: Places, test: Array) -> Any:
    """Return what tells f's value apart where all places are moved at once; None if not finite.

    x is bit-identical afterwards. Where f raises, it has no finite value.
    """
    elements = x.view(np.ndarray)
    old = elements.copy()
    try:
        elements.flat[places] = test
        value = np.array(f(x))
        if not np.all(value - value == 0):
            return None
    except Exception:
        return None
    finally:
        elements[...] = old  # one assignment, which no interrupt can divide
    # The padding of a longdouble is not part of its value; an object's bytes are addresses.
    plain = value.dtype.char not in "gGO"
    return value.dtype.str, value.shape, value.tobytes() if plain else repr(value.tolist())


def _columns_inside(f: Callable[[Any], Any], x: Array, moves: Moves) -> Places | None:
    """Return for each element which of its points f has a value at, as far as some calls tell.

    Those of about the same value are moved together, since it is so that they may be at one end of
    f's domain.
    """
    places, points, _ = moves
    left = [np.argsort(x.view(np.ndarray).reshape(-1)[places])]
    columns, calls = np.zeros(len(places), np.intp), 0
    ends = {int(np.argmax(points[0])), int(np.argmin(points[0]))} if x.dtype.kind == "f" else ()
    while left:
        some = left.pop()
        for column in ends:
            calls += 1
            if _fingerprint(f, x, places[some], points[some, column]) is not None:
                columns[some] = column
                break
        else:
            if len(some) == 1 or calls >= MAX_SEARCH_CALLS:
                return None
            left += [some[: len(some) // 2], some[len(some) // 2 :]]
    return columns


def _failure(error: Exception) -> tuple[bytes, str]:
    """Return an exception so that it can travel, and its traceback."""
    import cloudpickle

    try:
        pickled = cloudpickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # such as one whose constructor takes other arguments
        pickled = pickle.dumps(RuntimeError(f"f raised {type(error).__name__}: {error}"))
    return pickled, "".join(traceback.format_exception(error))


def _dumps(f: Callable[[Any], Any], arrays: list[Array]) -> bytes:
    """Pickle, by value what cannot be imported elsewhere, and views of the arrays as views.

    By itself a view becomes a copy: net.params["W1"], a view of all parameters, would no longer be
    what the net computes with.
    """
    import cloudpickle

    owners = {id(owner): owner for owner in map(_owner, arrays)}

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, thing: Any) -> Any:
            if type(thing) is np.ndarray and id(thing) not in owners:
                owner = _owner(thing)
                if id(owner) in owners:
                    offset = thing.ctypes.data - owner.ctypes.data
                    return _view, (owner, offset, thing.shape, thing.strides, thing.dtype)
            return super().reducer_override(thing)

    file = io.BytesIO()
    try:
        Pickler(file).dump((f, arrays))
    except Exception as error:
        raise TypeError(
            f"f, or what it reads, cannot be sent to a worker: {error}; let f read it "
            "from an argument or a file instead, or pass workers=None"
        ) from error
    return file.getvalue()


def _owner(array: Any) -> Any:
    """Return the array whose memory this one looks at."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    # What is not contiguous is laid out anew, where offsets and strides would be others.
    return owner if owner.flags.forc else array


def _view(owner: Any, offset: int, shape: Any, strides: Any, dtype: Any) -> Array:
    """Return a view of the owner's memory."""
    return np.ndarray(shape, dtype, owner.view(np.ndarray).ravel("K"), offset, strides)
