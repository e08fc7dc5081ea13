"""Verification of workers: a copy of f must have the values that f has here, before it is believed.

A copy of f that reads another array than the one that is moved would give differences of zero, at
single elements maybe. So at a test point every element is moved, each by another fraction of one of
its steps: a copy that misses any move has another value.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from fastgrad.engines.workers.messages import (
    ArrayState,
    ConsistencyCheck,
    SharedFunction,
    fingerprint_at,
)
from fastgrad.typing import Array

LONG_CALL_SECONDS = 0.1
"""What a call of f takes from which one test point is enough."""


@dataclass(frozen=True, eq=False)
class Verification:
    """A check, what it gives in this process, and who has passed it.

    Attributes
    ----------
    check : ConsistencyCheck
    fingerprints : tuple of str, or None
        Those of f at the test points; None if f has no finite value, which tells nothing.
    seconds : float
        What a call of f takes.
    passed : set of int
        The processes whose f is known to be the same.
    """

    check: ConsistencyCheck
    fingerprints: tuple[str, ...] | None
    seconds: float
    passed: set[int] = field(default_factory=set)


class Verifier:
    """The verifications of one function.

    Attributes
    ----------
    refused : set of int
        The arrays, by their index, whose values workers are not trusted with.
    """

    def __init__(self, shared: SharedFunction) -> None:
        self._shared = shared
        self._done: list[Verification] = []
        self.refused: set[int] = set()

    def verification(
        self, f: Callable[[Any], Any], x: Array, places: NDArray[np.intp], points: Array
    ) -> Verification:
        """Return one in which all these places are moved: an earlier one, or a new one."""
        state = self._shared.state(f, x)
        for known in self._done:
            before = known.check.state
            same = before.index == state.index and before.replacement is state.replacement is None
            if same and np.isin(places, known.check.places).all():
                return known
        self._done.append(_verification(f, x, places, points, state))
        return self._done[-1]

    def forget(self) -> None:
        """Forget which workers were verified."""
        for known in self._done:
            known.passed.clear()


def _verification(
    f: Callable[[Any], Any],
    x: Array,
    places: NDArray[np.intp],
    points: Array,
    state: ArrayState,
) -> Verification:
    """Choose test points between x and the points to which elements are moved; evaluate f there."""
    random = np.random.default_rng(0)
    elements = x.view(np.ndarray).reshape(-1)[places]
    tests: list[Array] = []
    fingerprints: list[str] = []
    seconds = np.inf
    finite = True
    while finite and len(tests) < 2 and not (tests and seconds > LONG_CALL_SECONDS):
        # Not a second one if it costs too much; the first may be that slow only once.
        targets = points[np.arange(len(points)), random.integers(points.shape[1], size=len(points))]
        fractions = random.uniform(0.5, 1, len(points)).astype(points.real.dtype)
        with np.errstate(all="ignore"):
            tests.append((elements + fractions * (targets - elements)).astype(points.dtype))
        start = time.perf_counter()
        fingerprint, finite = fingerprint_at(f, x, places, tests[-1])
        seconds = min(seconds, time.perf_counter() - start)
        fingerprints.append(fingerprint)
    check = ConsistencyCheck(uuid4().hex, state, places, tests)
    return Verification(check, tuple(fingerprints) if finite else None, float(seconds))
