"""How do f and x get into another process, tied to each other as they are here? In one payload."""

import io
import os
import pickle
import threading
from collections.abc import Callable, Sequence
from typing import Any
from uuid import uuid4

import numpy as np

from fastgrad.engines import loop
from fastgrad.engines.errand import Answer, Errand, Situation, failure_of, fingerprint_at
from fastgrad.engines.holding import one_thread
from fastgrad.structures import Call
from fastgrad.typing import Array

_kept = threading.local()
"""The copy that this thread unpickled last. Each thread moves an x of its own."""


class Task:
    """Runs errands with its own copy of f and x, wherever it is unpickled.

    Parameters
    ----------
    f : callable
        A `Call` if x is a structure.
    arrays : sequence of arrays
        What is moved: x, or the arrays in it. They are pickled together with f, so that an f that
        reads them elsewhere (in a closure, in an attribute, in a global of the main program) reads
        the copies that are moved.

    Raises
    ------
    TypeError
        If f cannot be pickled.
    """

    def __init__(self, f: Callable[[Any], Any], arrays: Sequence[Array]) -> None:
        self.key = uuid4().hex
        self.payload = _dumps((f, [*arrays]), [_owner(array) for array in arrays])

    def __call__(self, errand: Errand) -> Answer:
        """Return f at the errand's points."""
        fingerprints: tuple[str, ...] = ()
        try:
            if getattr(_kept, "key", None) != self.key:
                _kept.key = None
                _kept.copy = Copy(*pickle.loads(self.payload))
                _kept.key = self.key
            # After f has been unpickled, and with it the libraries whose threads are held.
            with one_thread(), np.errstate(**errand.errors):
                fingerprints = _kept.copy.fingerprints(errand)
                values = _kept.copy.values(errand)
                return Answer(os.getpid(), fingerprints, values, start=errand.start)
        except Exception as error:
            return Answer(os.getpid(), fingerprints, None, failure_of(error), errand.start)


class Copy:
    """A worker's own f and x.

    Parameters
    ----------
    f : callable
    arrays : list of arrays
        As `Task` takes them.
    """

    def __init__(self, f: Callable[[Any], Any], arrays: list[Array]) -> None:
        self.f, self.arrays = f, arrays
        self.originals = [array.view(np.ndarray).copy() for array in arrays]
        self.known: dict[str, tuple[str, ...]] = {}

    def fingerprints(self, errand: Errand) -> tuple[str, ...]:
        """Return those of f at the points of the errand's trial."""
        trial = errand.trial
        if trial is None:
            return ()
        if trial.key not in self.known:
            f, x = self.put(trial.situation)
            self.known[trial.key] = tuple(
                fingerprint_at(f, x, trial.places, targets)[0] for targets in trial.targets
            )
        return self.known[trial.key]

    def values(self, errand: Errand) -> Array:
        """Return f at the errand's points."""
        f, x = self.put(errand.situation)
        return loop.values(f, x, errand.places, errand.points, errand.shape)

    def put(self, situation: Situation) -> tuple[Callable[[Any], Any], Array]:
        """Put all arrays where they are to be; return the function of the one that is moved."""
        for index, (array, original) in enumerate(zip(self.arrays, self.originals, strict=True)):
            array.view(np.ndarray)[...] = situation.contents.get(index, original)
        f, x = self.f, self.arrays[situation.index]
        if isinstance(f, Call) and f.whole is not None:
            f = Call(f.f, (*f.args,), f.whole, x)
        return f, x if situation.instead is None else situation.instead.copy()


class Whole:
    """A task with its errand: what a map is given as its function, of a first and a last place."""

    def __init__(self, task: Task, errand: Errand) -> None:
        self.task, self.errand = task, errand

    def __call__(self, chunk: tuple[int, int]) -> Answer:
        """Return f at the points of the places from the first to the one before the last."""
        return self.task(self.errand.part(*chunk))


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
