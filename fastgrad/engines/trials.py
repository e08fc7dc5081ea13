"""Does a copy of f see x move? A trial tells, before a worker's values are believed."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from fastgrad.engines.errand import Errand, Situation, Trial, fingerprint_at
from fastgrad.engines.payload import Task
from fastgrad.structures import Call, leaves
from fastgrad.typing import Array

LONG = 0.1
"""Seconds of a call of f from which one test point is enough."""


@dataclass(frozen=True, eq=False)
class Expected:
    """A trial, and what it gives in this process.

    A copy of f that reads another array than the one that is moved would give differences of zero,
    at single elements maybe. At a test point every element is moved, each by another fraction of
    one of its steps, so that a copy that misses any move has another value.

    Attributes
    ----------
    key : str
        What the trial is known by.
    where : Where
        Where x is otherwise.
    places : array (n,)
        The elements that are moved.
    targets : list of arrays (n,)
        The test points.
    fingerprints : tuple of str, or None
        Those of f there; None if f has no finite value, which tells nothing.
    seconds : float
        What a call of f takes.
    passed : set of int
        The processes whose f is known to be the same.
    """

    key: str
    where: "Where"
    places: NDArray[np.intp]
    targets: list[Array]
    fingerprints: tuple[str, ...] | None
    seconds: float
    passed: set[int] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class Where:
    """Which array is moved, by its index, and what f is given instead; copies of all arrays."""

    index: int
    instead: Array | None
    contents: list[Array]


class Sent:
    """A function that workers have a copy of, and what is known of their copies.

    Parameters
    ----------
    f : callable
        A `Call` if x is a structure: then the copies serve all arrays in it.
    x : array
        What is moved.
    """

    def __init__(self, f: Callable[[Any], Any], x: Array) -> None:
        self.f = f
        self.arrays = [x]
        if isinstance(f, Call):
            whole = f.moved if f.whole is None else f.whole
            self.arrays = [array for _, array in leaves(whole)]
        self.refused: set[int] = set()
        self._trials: list[Expected] = []
        self._contents = [array.view(np.ndarray).copy() for array in self.arrays]
        self._pickled = self._contents
        self._task: Task | None = None

    def is_of(self, f: Callable[[Any], Any]) -> bool:
        """Say whether f is this function, with any array of its structure moved."""
        if f is self.f or not (isinstance(f, Call) and isinstance(self.f, Call)):
            return f is self.f
        same = f.f is self.f.f and f.whole is not None and f.whole is self.f.whole
        return same and [*map(id, f.args)] == [*map(id, self.f.args)]

    def task(self) -> Task:
        """Return what workers need once."""
        if self._task is None:
            self._pickled = self._current()
            self._task = Task(self.f, self.arrays)
        return self._task

    def where(self, f: Callable[[Any], Any], x: Array) -> Where:
        """Return where x is now, and which array of it f is a function of."""
        moved = f.moved if isinstance(f, Call) else self.arrays[0]
        [index, *_] = [k for k, array in enumerate(self.arrays) if array is moved]
        return Where(index, None if x is moved else x, self._current())

    def situation(self, where: Where) -> Situation:
        """Return the same for those who have the task."""
        changed = {
            k: now
            for k, (now, before) in enumerate(zip(where.contents, self._pickled, strict=True))
            if now is not before
        }
        return Situation(where.index, where.instead, changed)

    def expected(
        self, f: Callable[[Any], Any], x: Array, places: NDArray[np.intp], points: Array
    ) -> Expected:
        """Return a trial in which all these places are moved: an earlier one, or a new one."""
        where = self.where(f, x)
        for known in self._trials:
            same = known.where.index == where.index and known.where.instead is where.instead is None
            if same and np.isin(places, known.places).all():
                return known
        self._trials.append(_tried(f, x, places, points, where))
        return self._trials[-1]

    def trial(self, expected: Expected) -> Trial:
        """Return what those who have the task need to take it."""
        situation = self.situation(expected.where)
        return Trial(expected.key, situation, expected.places, expected.targets)

    def errand(
        self,
        f: Callable[[Any], Any],
        x: Array,
        places: NDArray[np.intp],
        points: Array,
        shape: tuple[int, ...],
        expected: Expected | None,
    ) -> Errand:
        """Return what those who have the task are asked; a trial first, if one is expected."""
        self.task()
        situation = self.situation(self.where(f, x))
        trial = None if expected is None else self.trial(expected)
        return Errand(situation, places, points, shape, trial, {**np.geterr()})

    def forget(self) -> None:
        """Take it that no process has passed any trial."""
        for known in self._trials:
            known.passed.clear()

    def _current(self) -> list[Array]:
        """Return copies of all arrays; the last ones of those that have the same bits still."""
        plain = [array.view(np.ndarray) for array in self.arrays]
        self._contents = [
            last if now.tobytes() == last.tobytes() else now.copy()
            for now, last in zip(plain, self._contents, strict=True)
        ]
        return self._contents


def _tried(
    f: Callable[[Any], Any],
    x: Array,
    places: NDArray[np.intp],
    points: Array,
    where: Where,
) -> Expected:
    """Choose test points between x and the points to which elements are moved; evaluate f there."""
    random = np.random.default_rng(0)
    elements = x.view(np.ndarray).reshape(-1)[places]
    tests: list[Array] = []
    found: list[str] = []
    seconds = np.inf
    finite = True
    while finite and len(tests) < 2 and not (tests and seconds > LONG):
        # Not a second one if it costs too much; the first may be that slow only once.
        targets = points[np.arange(len(points)), random.integers(points.shape[1], size=len(points))]
        fractions = random.uniform(0.5, 1, len(points)).astype(points.real.dtype)
        with np.errstate(all="ignore"):
            tests.append((elements + fractions * (targets - elements)).astype(points.dtype))
        start = time.perf_counter()
        fingerprint, finite = fingerprint_at(f, x, places, tests[-1])
        seconds = min(seconds, time.perf_counter() - start)
        found.append(fingerprint)
    prints = tuple(found) if finite else None
    return Expected(uuid4().hex, where, places, tests, prints, float(seconds))
