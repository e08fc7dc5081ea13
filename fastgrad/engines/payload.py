"""How do f and x get into another process, tied to each other as they are here? In one payload."""

import hashlib
import io
import pickle
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from fastgrad.engines import loop
from fastgrad.engines.holding import one_thread

Array = NDArray[Any]
Chunk = tuple[int, int]
"""The first place, and the one after the last."""

_kept = threading.local()
"""The problem that this thread unpickled last. Each thread moves an x of its own."""


@dataclass(frozen=True)
class Answer:
    """What a worker returns for a chunk.

    Attributes
    ----------
    fingerprints : tuple of str
        Of f at the task's test points, as this worker's copy computes it.
    values : array or None
        f at the chunk's points.
    failure : tuple (bytes, str) or None
        Instead of values: the exception that f raised, pickled, and its traceback.
    """

    fingerprints: tuple[str, ...]
    values: Array | None
    failure: tuple[bytes, str] | None = None


class Task:
    """Evaluates chunks of points with its own copy of f and x, wherever it is unpickled.

    Parameters
    ----------
    f, x
        Pickled together, so that an f that reads x elsewhere (in a closure, in an attribute, in a
        global of the main program) reads the copy that is moved.
    places : array (n,)
    points : array (n, m)
        As `fastgrad.differences.Values` takes them.
    tests : list of arrays (n,)
        The test points: values for all places at once.
    shape : tuple of int
        What f returns.

    Raises
    ------
    TypeError
        If f cannot be pickled.
    """

    def __init__(
        self,
        f: Callable[[Any], Any],
        x: Array,
        places: NDArray[np.intp],
        points: Array,
        tests: list[Array],
        shape: tuple[int, ...],
    ) -> None:
        self.key = uuid4().hex
        things = (f, x, places, points, tests, shape, np.geterr())
        self.payload = _dumps(things, _owner(x))

    def __call__(self, chunk: Chunk) -> Answer:
        """Return f at the chunk's points."""
        import cloudpickle

        fingerprints: tuple[str, ...] = ()
        try:
            if getattr(_kept, "key", None) != self.key:
                _kept.key = None
                f, x, places, points, tests, shape, errors = pickle.loads(self.payload)
                with one_thread(), np.errstate(**errors):
                    found = tuple(fingerprint_at(f, x, places, test)[0] for test in tests)
                _kept.problem = f, x, places, points, shape, errors, found
                _kept.key = self.key
            f, x, places, points, shape, errors, fingerprints = _kept.problem
            part = slice(*chunk)
            # After f has been unpickled, and with it the libraries whose threads are held.
            with one_thread(), np.errstate(**errors):
                values = loop.values(f, x, places[part], points[part], shape)
                return Answer(fingerprints, values)
        except Exception as error:
            text = traceback.format_exc()
            try:
                pickled = cloudpickle.dumps(error)
                pickle.loads(pickled)
            except Exception:  # such as one whose constructor takes other arguments
                replacement = RuntimeError(f"f raised {type(error).__name__}: {error}")
                pickled = cloudpickle.dumps(replacement)
            return Answer(fingerprints, None, (pickled, text))


class WorkerTraceback(Exception):
    """Where in a worker an exception was raised: the cause of the same exception here."""

    def __str__(self) -> str:
        """Return the traceback as Python prints it."""
        return f'\n"""\n{self.args[0]}"""'


def raise_here(failure: tuple[bytes, str]) -> None:
    """Raise the exception that f raised in a worker."""
    pickled, text = failure
    raise pickle.loads(pickled) from WorkerTraceback(text)


def fingerprint_at(
    f: Callable[[Any], Any], x: Array, places: NDArray[np.intp], targets: Array
) -> tuple[str, bool]:
    """Return what tells f's value apart where all places are moved at once, and if it is finite.

    x is bit-identical afterwards. What f raises is a fingerprint, too.
    """
    elements = x.view(np.ndarray).flat
    old = elements[places]
    try:
        elements[places] = targets
        value = np.array(f(x))
        finite = bool(np.all(value - value == 0))
    except Exception as error:
        return f"{type(error).__name__}: {error}", False
    finally:
        elements[places] = old  # one assignment, which no interrupt can divide
    # The padding of a longdouble is not part of its value; an object's bytes are addresses.
    plain = value.dtype.char not in "gGO"
    content = value.tobytes() if plain else repr(value.tolist()).encode()
    header = f"{value.dtype.str}{value.shape}".encode()
    return hashlib.blake2b(header + content, digest_size=16).hexdigest(), finite


def _dumps(things: object, owner: Any) -> bytes:
    """Pickle, by value what cannot be imported elsewhere, and views of the owner as views."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, thing: Any) -> Any:
            if type(thing) is np.ndarray and thing is not owner and _owner(thing) is owner:
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
