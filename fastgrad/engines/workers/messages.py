"""What is sent to workers and comes back, and the check that a copy of f sees x move.

A copy of f that reads another array than the one that is moved would give differences of zero, at
single elements maybe. So at a test point every element is moved, each by another fraction of one of
its steps: a copy that misses any move has another value, and is not believed.
"""

import io
import math
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.trees import Call, leaves
from fastgrad.engines import loop
from fastgrad.jit.concurrency import single_blas_thread
from fastgrad.typing import Array

LONG_CALL_SECONDS = 0.1
"""What a call of f takes from which one test point is enough."""


class WorkItem(NamedTuple):
    """Places and points at which f is to be evaluated, the first of them the start-th of all.

    Contents are what is in all arrays of f, or nothing, as long as that is what was sent with f;
    errors what NumPy does about floating-point errors, as `numpy.geterr` returns it.
    """

    start: int
    places: NDArray[np.intp]
    points: Array
    shape: tuple[int, ...]
    contents: list[bytes]
    errors: dict[str, Any]

    def part(self, start: int, stop: int) -> "WorkItem":
        """Return the item for some of the places."""
        some = slice(start, stop)
        return self._replace(start=start, places=self.places[some], points=self.points[some])


class WorkResult(NamedTuple):
    """What a worker returns for an item: its start, and f at its points.

    The values are None if the worker's f is another function, or has raised: then failure is the
    exception, pickled, and its traceback.
    """

    start: int
    values: Array | None
    failure: tuple[bytes, str] | None = None


class SharedFunction:
    """f and its arrays, sent to each worker once, with points that tell whether f sees x move.

    If f is a `Call` of a structure, its arrays are all in that. Its seconds are what a call takes
    here; if it is not finite at the points, they tell nothing.
    """

    def __init__(
        self, f: Callable[[Any], Any], x: Array, places: NDArray[np.intp], points: Array
    ) -> None:
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

        # Not a second one if it costs too much; the first may be that slow only once.
        while len(self.tests) < 2 and not (self.tests and self.seconds > LONG_CALL_SECONDS):
            targets = points[np.arange(number), random.integers(points.shape[1], size=number)]
            fractions = random.uniform(0.5, 1, number).astype(points.real.dtype)
            with np.errstate(all="ignore"):
                self.tests.append((elements + fractions * (targets - elements)).astype(x.dtype))
            self.fingerprints.append(_fingerprint(timed, x, places, self.tests[-1]))
        self.is_finite = None not in self.fingerprints

    def serves(self, f: Callable[[Any], Any], x: Array, places: NDArray[np.intp]) -> bool:
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
                values = loop.values(f, arrays[0], item.places, item.points, item.shape)
                return WorkResult(item.start, values)
        except Exception as error:
            return WorkResult(item.start, None, _failure(error))


_copy = threading.local()
"""The key of the function that a worker's thread has checked last; f and the arrays of its copy."""


def _fingerprint(f: Callable[[Any], Any], x: Array, places: NDArray[np.intp], test: Array) -> Any:
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
