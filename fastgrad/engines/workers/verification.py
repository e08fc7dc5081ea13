"""Verification of workers: a copy of f must have the values that f has here, before it is believed.

A copy of f that reads another array than the one that is moved would give differences of zero, at
single elements maybe. So at a test point every element is moved, each by another fraction of one of
its steps: a copy that misses any move has another value.
"""

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from fastgrad.engines import loop
from fastgrad.engines.workers.messages import (
    SharedFunction,
    WorkItem,
    WorkResult,
    failure,
    single_blas_thread,
)
from fastgrad.typing import Array

LONG_CALL_SECONDS = 0.1
"""What a call of f takes from which one test point is enough."""


@dataclass(frozen=True, eq=False)
class VerifiedFunction:
    """A shared function, and points that tell whether a copy of it sees x move.

    Attributes
    ----------
    shared : SharedFunction
    item : WorkItem
        With each column of its points all its places are moved at once.
    fingerprints : list of str
        What tells f's values there apart, as they are in this process; none if they are not finite,
        which tells nothing.
    seconds : float
        What a call of f takes here.
    key : str
        What the check is known by.
    """

    shared: SharedFunction
    item: WorkItem
    fingerprints: list[str]
    seconds: float
    key: str = field(default_factory=lambda: uuid4().hex)

    def serves(self, shared: SharedFunction, item: WorkItem) -> bool:
        """Return whether all places of a function's item are moved in the check."""
        same = self.shared is shared and self.item.index == item.index
        plain = self.item.replacement is item.replacement is None
        return same and plain and bool(np.isin(item.places, self.item.places).all())

    def __call__(self, item: WorkItem) -> WorkResult:
        """Return f at an item's points, in a worker, if its copy of f has passed the check."""
        try:
            copy = self.shared.copy()
            # After f has been unpickled, and with it the libraries whose threads are held.
            with single_blas_thread(), np.errstate(**item.errors):
                if copy.passed != self.key:
                    f, x = copy.put(self.item)
                    tests = self.item.points.T
                    if [_fingerprint(f, x, self.item.places, at) for at in tests] != (
                        self.fingerprints
                    ):
                        return WorkResult(item.start, None)
                    copy.passed = self.key
                f, x = copy.put(item)
                values = loop.values(f, x, item.places, item.points, item.shape)
                return WorkResult(item.start, values)
        except Exception as error:
            return WorkResult(item.start, None, failure(error))


def verified(
    shared: SharedFunction, f: Callable[[Any], Any], x: Array, item: WorkItem
) -> VerifiedFunction:
    """Choose test points between x and the points to which elements are moved; evaluate f there."""
    random = np.random.default_rng(0)
    places, points = item.places, item.points
    elements, number = x.view(np.ndarray).reshape(-1)[places], len(places)
    tests: list[Array] = []
    fingerprints: list[str] = []
    seconds = math.inf
    # Not a second one if it costs too much; the first may be that slow only once.
    while len(tests) < 2 and all(fingerprints) and not (tests and seconds > LONG_CALL_SECONDS):
        targets = points[np.arange(number), random.integers(points.shape[1], size=number)]
        fractions = random.uniform(0.5, 1, number).astype(points.real.dtype)
        with np.errstate(all="ignore"):
            tests.append((elements + fractions * (targets - elements)).astype(points.dtype))
        start = time.perf_counter()
        fingerprints.append(_fingerprint(f, x, places, tests[-1]))
        seconds = min(seconds, time.perf_counter() - start)
    if not all(fingerprints):
        fingerprints = []
    tested = replace(item, points=np.stack(tests, axis=1))
    return VerifiedFunction(shared, tested, fingerprints, max(seconds, 1e-9))


def _fingerprint(
    f: Callable[[Any], Any], x: Array, places: NDArray[np.intp], targets: Array
) -> str:
    """Return what tells f's value apart where all places are moved at once; "" if not finite.

    x is bit-identical afterwards. Where f raises, it has no finite value.
    """
    elements = x.view(np.ndarray)
    old = elements.copy()
    try:
        elements.flat[places] = targets
        value = np.array(f(x))
        if not np.all(value - value == 0):
            return ""
    except Exception:
        return ""
    finally:
        elements[...] = old  # one assignment, which no interrupt can divide
    # The padding of a longdouble is not part of its value; an object's bytes are addresses.
    plain = value.dtype.char not in "gGO"
    content = value.tobytes() if plain else repr(value.tolist()).encode()
    header = f"{value.dtype.str}{value.shape}".encode()
    return hashlib.blake2b(header + content, digest_size=16).hexdigest()
