"""What is sent to workers and comes back, and how f and x travel tied to each other."""

import io
import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.trees import Call, leaves
from fastgrad.interrupts import uninterrupted
from fastgrad.jit.concurrency import free_after_fork
from fastgrad.typing import Array


@dataclass(frozen=True, eq=False)
class WorkItem:
    """Points at which f is to be evaluated.

    Attributes
    ----------
    index : int
        Which array is moved, by its place in x if x is a structure of arrays; else 0.
    replacement : array or None
        What f is given instead of it, such as a complex copy.
    contents : list of arrays
        What is in all arrays; nothing, if they are as they were when f was sent.
    places, points, shape
        As `fastgrad.typing.Values` takes them.
    errors : dict
        What NumPy does about floating-point errors, as `numpy.geterr` returns it.
    start : int
        The number of the first place among all that workers share.
    """

    index: int
    replacement: Array | None
    contents: list[Array]
    places: NDArray[np.intp]
    points: Array
    shape: tuple[int, ...]
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
    values : array or None
        f at the points; None if the worker's f is another function, or has raised.
    failure : tuple (bytes, str) or None
        The exception that f raised, pickled, and its traceback.
    """

    start: int
    values: Array | None
    failure: tuple[bytes, str] | None = None

    def raise_failure(self) -> None:
        """Raise the exception that f raised in the worker, if it did, because of its traceback."""
        if self.failure is not None:
            pickled, text = self.failure
            raise pickle.loads(pickled) from Exception(f'\n"""\n{text}"""')


class SharedFunction:
    """f and the arrays that are moved, sent to each worker once.

    Parameters
    ----------
    f : callable
        A `Call` if x is a structure: then it is shared as a function of all arrays in it.
    x : array
        What is moved.

    Attributes
    ----------
    refused : set of int
        The arrays, by their index, whose values workers are not trusted with.
    """

    def __init__(self, f: Callable[[Any], Any], x: Array) -> None:
        self.f, self.arrays = f, [x]
        if isinstance(f, Call):
            whole = f.moved if f.whole is None else f.whole
            self.arrays = [array for _, array in leaves(whole)]
        self.refused: set[int] = set()
        self._sent: list[Array] = []
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

    def item(
        self,
        f: Callable[[Any], Any],
        x: Array,
        places: NDArray[np.intp],
        points: Array,
        shape: tuple[int, ...] = (),
    ) -> WorkItem:
        """Return the item for f, x and all the points, with all arrays as they are now."""
        moved = f.moved if isinstance(f, Call) else self.arrays[0]
        [index, *_] = [k for k, array in enumerate(self.arrays) if array is moved]
        contents = _copies(self.arrays)
        if [a.tobytes() for a in contents] == [a.tobytes() for a in self._sent]:
            contents = []
        replacement = None if x is moved else x
        return WorkItem(index, replacement, contents, places, points, shape, {**np.geterr()})

    def prepare(self) -> None:
        """Pickle f and the arrays, in one piece: what f reads of them elsewhere is what is moved.

        Raises
        ------
        TypeError
            If f cannot be pickled.
        """
        if not self._pickled:
            pickled = _dumps(self.f, self.arrays)
            self._sent, self._pickled = _copies(self.arrays), pickled

    def copy(self) -> "WorkerCopy":
        """Return this thread's copy, in a worker."""
        if _copy.key != self._key:
            _copy.key = _copy.passed = ""
            _copy.f, _copy.arrays = pickle.loads(self._pickled)
            _copy.sent = _copies(_copy.arrays)
            _copy.key = self._key
        return _copy


class WorkerCopy(threading.local):
    """The f and the arrays that a thread has unpickled last; each thread moves its own.

    Attributes
    ----------
    key : str
        That of the function.
    passed : str
        That of the check that it has passed last.
    """

    key = passed = ""
    f: Callable[[Any], Any]
    arrays: list[Array]
    sent: list[Array]

    def put(self, item: WorkItem) -> tuple[Callable[[Any], Any], Array]:
        """Put all arrays where they are to be; return the function of the one that is moved."""
        for array, content in zip(self.arrays, item.contents or self.sent, strict=True):
            if array.shape != content.shape:  # by f itself, which is refused as it is here
                array.shape = content.shape
            array.view(np.ndarray)[...] = content
        f, x = self.f, self.arrays[item.index]
        if isinstance(f, Call) and f.whole is not None:
            f = Call(f.f, (*f.args,), f.whole, x)
        return f, x if item.replacement is None else item.replacement.copy()


_copy = WorkerCopy()


def _copies(arrays: list[Array]) -> list[Array]:
    """Return what is in the arrays."""
    return [array.view(np.ndarray).copy() for array in arrays]


def failure(error: Exception) -> tuple[bytes, str]:
    """Return an exception so that it can travel, and its traceback."""
    import cloudpickle

    text = traceback.format_exc()
    try:
        pickled = cloudpickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # such as one whose constructor takes other arguments
        pickled = pickle.dumps(RuntimeError(f"f raised {type(error).__name__}: {error}"))
    return pickled, text


def _dumps(f: Callable[[Any], Any], arrays: list[Array]) -> bytes:
    """Pickle, by value what cannot be imported elsewhere, and views of the arrays as views."""
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


_lock = threading.Lock()
free_after_fork(_lock)
_holders = 0
_limits: Any = None


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Let BLAS and OpenMP compute with one thread in this process, on behalf of workers.

    With more, workers would fight for the cores; and BLAS's sums depend on the number of its
    threads. Blocks of several Python threads may overlap: the last to end gives the threads back.
    Without threadpoolctl, which all workers need, nothing is held.
    """
    global _holders, _limits
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        yield
        return
    held = False
    try:
        # Python drops an interrupt that strikes while threadpoolctl lists the libraries.
        with _lock, uninterrupted():
            if not _holders:
                _limits = threadpool_limits(limits=1)
            _holders += 1
            held = True
        yield
    finally:
        if held:
            with _lock, uninterrupted():
                _holders -= 1
                if not _holders:
                    _limits.restore_original_limits()
