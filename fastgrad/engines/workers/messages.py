"""What is sent to workers and comes back, and how f and x travel tied to each other."""

import hashlib
import io
import os
import pickle
import threading
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.trees import Call, leaves
from fastgrad.engines import loop
from fastgrad.engines.workers.blas import single_blas_thread
from fastgrad.typing import Array


@dataclass(frozen=True, eq=False)
class ArrayState:
    """Where all arrays are while one of them is moved.

    Attributes
    ----------
    index : int
        Which one is moved, by its place in x if x is a structure of arrays; else 0.
    replacement : array or None
        What f is given instead of it, such as a complex copy.
    contents : dict
        By index, what is in those arrays that are not as they were at first.
    """

    index: int
    replacement: Array | None
    contents: dict[int, Array]


@dataclass(frozen=True, eq=False)
class ConsistencyCheck:
    """Points that tell whether a copy of f sees x move: at each, all places are moved at once.

    Attributes
    ----------
    key : str
        What it is known by.
    state : ArrayState
    places : array (n,)
        The elements that are moved, as indices in C order.
    targets : list of arrays (n,)
        Where to.
    """

    key: str
    state: ArrayState
    places: NDArray[np.intp]
    targets: list[Array]


@dataclass(frozen=True, eq=False)
class WorkItem:
    """Points at which f is to be evaluated.

    Attributes
    ----------
    state : ArrayState
    places, points, shape
        As `fastgrad.typing.Values` takes them.
    check : ConsistencyCheck or None
        What is to be answered, too.
    errors : dict
        What NumPy does about floating-point errors, as `numpy.geterr` returns it.
    start : int
        The number of the first place among all that workers share.
    """

    state: ArrayState
    places: NDArray[np.intp]
    points: Array
    shape: tuple[int, ...]
    check: ConsistencyCheck | None
    errors: dict[str, Any]
    start: int = 0

    def part(self, start: int, stop: int) -> "WorkItem":
        """Return the item for some of the places."""
        some = slice(start, stop)
        return replace(self, places=self.places[some], points=self.points[some], start=start)


@dataclass(frozen=True, eq=False)
class WorkResult:
    """What a worker returns for an item.

    Attributes
    ----------
    start : int
        The item's.
    worker : int
        The number of its process.
    fingerprints : tuple of str
        Of f at the points of the check, as this worker's copy computes it; none without a check.
    values : array or None
        f at the points.
    failure : tuple (bytes, str) or None
        Instead of values: the exception that f raised, pickled, and its traceback.
    """

    start: int
    worker: int
    fingerprints: tuple[str, ...]
    values: Array | None
    failure: tuple[bytes, str] | None = None

    def raise_failure(self) -> None:
        """Raise the exception that f raised in the worker, if it did."""
        if self.failure is not None:
            pickled, text = self.failure
            raise pickle.loads(pickled) from WorkerTraceback(text)


class WorkerTraceback(Exception):
    """Where in a worker an exception was raised: the cause of the same exception here."""

    def __str__(self) -> str:
        """Return the traceback as Python prints it."""
        return f'\n"""\n{self.args[0]}"""'


class SharedFunction:
    """f and the arrays that are moved, sent to each worker once; there it answers any `WorkItem`.

    Parameters
    ----------
    f : callable
        A `Call` if x is a structure: then it is shared as a function of all arrays in it.
    x : array
        What is moved.
    """

    def __init__(self, f: Callable[[Any], Any], x: Array) -> None:
        self.f, self.arrays = f, [x]
        if isinstance(f, Call):
            whole = f.moved if f.whole is None else f.whole
            self.arrays = [array for _, array in leaves(whole)]
        self._originals = [array.view(np.ndarray).copy() for array in self.arrays]
        self._key, self._pickled = uuid4().hex, b""

    def __getstate__(self) -> dict[str, Any]:
        """Return what travels."""
        return {"_key": self._key, "_pickled": self._pickled}

    def is_of(self, f: Callable[[Any], Any]) -> bool:
        """Return whether f is this function, with any array of its structure moved."""
        if f is self.f or not (isinstance(f, Call) and isinstance(self.f, Call)):
            return f is self.f
        same = f.f is self.f.f and f.whole is not None and f.whole is self.f.whole
        return same and [*map(id, f.args)] == [*map(id, self.f.args)]

    def prepare(self) -> None:
        """Pickle f and the arrays, in one piece: what f reads of them elsewhere is what is moved.

        Raises
        ------
        TypeError
            If f cannot be pickled.
        """
        if not self._pickled:
            first = {k: self._originals[k] for k in self._changed()}
            owners = [_owner(array) for array in self.arrays]
            self._pickled = _dumps((self.f, self.arrays, first), owners)

    def state(self, f: Callable[[Any], Any], x: Array) -> ArrayState:
        """Return which array f is a function of, and where all arrays are now."""
        moved = f.moved if isinstance(f, Call) else self.arrays[0]
        [index, *_] = [k for k, array in enumerate(self.arrays) if array is moved]
        return ArrayState(index, None if x is moved else x, self._changed())

    def _changed(self) -> dict[int, Array]:
        """Return copies of the arrays that have other bits than at first, by their index."""
        pairs = zip((a.view(np.ndarray) for a in self.arrays), self._originals, strict=True)
        return {
            k: now.copy()
            for k, (now, first) in enumerate(pairs)
            if now.tobytes() != first.tobytes()
        }

    def __call__(self, item: WorkItem) -> WorkResult:
        """Return f at the item's points, in a worker."""
        fingerprints: tuple[str, ...] = ()
        try:
            if getattr(_kept, "key", "") != self._key:
                _kept.key = ""
                _kept.copy = _WorkerCopy(*pickle.loads(self._pickled))
                _kept.key = self._key
            # After f has been unpickled, and with it the libraries whose threads are held.
            with single_blas_thread(), np.errstate(**item.errors):
                fingerprints = _kept.copy.fingerprints(item.check)
                values = _kept.copy.values(item)
                return WorkResult(item.start, os.getpid(), fingerprints, values)
        except Exception as error:
            return WorkResult(item.start, os.getpid(), fingerprints, None, _failure(error))


_kept = threading.local()
"""The copy that this thread unpickled last. Each thread moves an x of its own."""


class _WorkerCopy:
    """A worker's own f and arrays.

    Parameters
    ----------
    f, arrays
        As they were when they were pickled.
    first : dict
        By index, what was in arrays at first, if it was something else.
    """

    def __init__(
        self, f: Callable[[Any], Any], arrays: list[Array], first: dict[int, Array]
    ) -> None:
        self._f, self._arrays = f, arrays
        plain = [array.view(np.ndarray) for array in arrays]
        self._originals = [first[k] if k in first else now.copy() for k, now in enumerate(plain)]
        self._known: dict[str, tuple[str, ...]] = {}

    def values(self, item: WorkItem) -> Array:
        """Return f at the item's points."""
        f, x = self._put(item.state)
        return loop.values(f, x, item.places, item.points, item.shape)

    def fingerprints(self, check: ConsistencyCheck | None) -> tuple[str, ...]:
        """Return those of f at the points of a check."""
        if check is None:
            return ()
        if check.key not in self._known:
            f, x = self._put(check.state)
            self._known[check.key] = tuple(
                fingerprint_at(f, x, check.places, targets)[0] for targets in check.targets
            )
        return self._known[check.key]

    def _put(self, state: ArrayState) -> tuple[Callable[[Any], Any], Array]:
        """Put all arrays where they are to be; return the function of the one that is moved."""
        for index, (array, original) in enumerate(zip(self._arrays, self._originals, strict=True)):
            array.view(np.ndarray)[...] = state.contents.get(index, original)
        f, x = self._f, self._arrays[state.index]
        if isinstance(f, Call) and f.whole is not None:
            f = Call(f.f, (*f.args,), f.whole, x)
        return f, x if state.replacement is None else state.replacement.copy()


def fingerprint_at(
    f: Callable[[Any], Any], x: Array, places: NDArray[np.intp], targets: Array
) -> tuple[str, bool]:
    """Return what tells f's value apart where all places are moved at once, and if it is finite.

    x is bit-identical afterwards. What f raises is a fingerprint, too.
    """
    elements = x.view(np.ndarray)
    old = elements.copy()
    try:
        elements.flat[places] = targets
        value = np.array(f(x))
        finite = bool(np.all(value - value == 0))
    except Exception as error:
        return f"{type(error).__name__}: {error}", False
    finally:
        elements[...] = old  # one assignment, which no interrupt can divide
    # The padding of a longdouble is not part of its value; an object's bytes are addresses.
    plain = value.dtype.char not in "gGO"
    content = value.tobytes() if plain else repr(value.tolist()).encode()
    header = f"{value.dtype.str}{value.shape}".encode()
    return hashlib.blake2b(header + content, digest_size=16).hexdigest(), finite


def _failure(error: Exception) -> tuple[bytes, str]:
    """Return an exception so that it can travel, and its traceback."""
    import cloudpickle

    text = traceback.format_exc()
    try:
        pickled = cloudpickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # such as one whose constructor takes other arguments
        pickled = pickle.dumps(RuntimeError(f"f raised {type(error).__name__}: {error}"))
    return pickled, text


def _dumps(things: object, owners: Sequence[Any]) -> bytes:
    """Pickle, by value what cannot be imported elsewhere, and views of the owners as views."""
    import cloudpickle

    known = {id(owner) for owner in owners}

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]  # it has no types
        def reducer_override(self, thing: Any) -> Any:
            if type(thing) is np.ndarray and id(thing) not in known:
                owner = _owner(thing)
                if id(owner) in known:
                    offset = thing.ctypes.data - owner.ctypes.data
                    return _view, (owner, offset, thing.shape, thing.strides, thing.dtype)
            return super().reducer_override(thing)

    file = io.BytesIO()
    try:
        Pickler(file).dump(things)
    except Exception as error:
        raise TypeError(
            f"f, or what it reads, cannot be sent to a worker: {error}; let f read it "
            "from an argument or a file instead, or pass workers=None"
        ) from error
    return file.getvalue()


def _owner(array: Any) -> Any:
    """Return the array whose memory this one looks at.

    Pickled by itself a view becomes a copy: net.params["W1"], a view of all parameters, would no
    longer be what the net computes with.
    """
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    # What is not contiguous is laid out anew, where offsets and strides would be others.
    return owner if owner.flags.forc else array


def _view(
    owner: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], dtype: np.dtype[Any]
) -> Array:
    """Return a view of the owner's memory."""
    memory = owner.view(np.ndarray)
    if not memory.flags.c_contiguous:
        memory = memory.T
    return np.ndarray(shape, dtype, memory, offset, strides)
