"""What is a worker asked, and what does it answer? Points of x, and the values of f there."""

import hashlib
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.typing import Array


@dataclass(frozen=True, eq=False)
class Situation:
    """Which array is moved, and where all arrays are meanwhile.

    Attributes
    ----------
    index : int
        The array's place in x, if x is a structure of arrays; else 0.
    instead : array or None
        What f is given in its place, such as a complex copy of it.
    contents : dict
        What is in those arrays, by their index, that are not as they were when f was sent.
    """

    index: int
    instead: Array | None
    contents: dict[int, Array]


@dataclass(frozen=True, eq=False)
class Trial:
    """Points that tell whether a copy of f sees x move: at each, all places are moved at once.

    Attributes
    ----------
    key : str
        What it is known by.
    situation : Situation
        Where x is otherwise.
    places : array (n,)
        The elements that are moved, as indices in C order.
    targets : list of arrays (n,)
        Where to.
    """

    key: str
    situation: Situation
    places: NDArray[np.intp]
    targets: list[Array]


@dataclass(frozen=True, eq=False)
class Errand:
    """The points at which f is to be evaluated.

    Attributes
    ----------
    situation : Situation
        Where x is.
    places, points, shape
        As `fastgrad.typing.Values` takes them.
    trial : Trial or None
        What is to be answered, too.
    errors : dict
        What NumPy does about floating-point errors, as `numpy.geterr` returns it.
    start : int
        The number of the first place among all that workers share.
    """

    situation: Situation
    places: NDArray[np.intp]
    points: Array
    shape: tuple[int, ...]
    trial: Trial | None
    errors: dict[str, Any]
    start: int = 0

    def part(self, start: int, stop: int) -> "Errand":
        """Return the errand for some of the places."""
        some = slice(start, stop)
        return replace(self, places=self.places[some], points=self.points[some], start=start)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a worker returns for an errand.

    Attributes
    ----------
    worker : int
        The number of its process.
    fingerprints : tuple of str
        Of f at the trial's points, as this worker's copy computes it; none without a trial.
    values : array or None
        f at the points.
    failure : tuple (bytes, str) or None
        Instead of values: the exception that f raised, pickled, and its traceback.
    start : int
        The errand's: what it is the answer to.
    """

    worker: int
    fingerprints: tuple[str, ...]
    values: Array | None
    failure: tuple[bytes, str] | None = None
    start: int = 0


class WorkerTraceback(Exception):
    """Where in a worker an exception was raised: the cause of the same exception here."""

    def __str__(self) -> str:
        """Return the traceback as Python prints it."""
        return f'\n"""\n{self.args[0]}"""'


def failure_of(error: Exception) -> tuple[bytes, str]:
    """Return an exception so that it can travel."""
    import cloudpickle

    text = traceback.format_exc()
    try:
        pickled = cloudpickle.dumps(error)
        pickle.loads(pickled)
    except Exception:  # such as one whose constructor takes other arguments
        replacement = RuntimeError(f"f raised {type(error).__name__}: {error}")
        pickled = cloudpickle.dumps(replacement)
    return pickled, text


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
