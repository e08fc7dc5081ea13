"""Values of f that are remembered: at points that are asked for again, for all its numbers."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import join
from fastgrad.engines.selection import Evaluator
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.typing import Array, Moves, Report, Values


class RememberedValues:
    """A way of evaluating f that remembers the values at points of an element.

    Parameters
    ----------
    values : callable
        The way of evaluating f.

    Attributes
    ----------
    evaluations : int
        How many values have been asked of it by `of_one`, and were not asked again.
    """

    def __init__(self, values: Values) -> None:
        self._values, self.evaluations = values, 0
        self._known: dict[tuple[float, ...], Array] = {}

    def of_one(
        self, f: Callable[[Any], Any], x: Array, place: int, points: list[float]
    ) -> list[float] | None:
        """Return f where an element is moved to some points; None if these are no doubles."""
        try:
            found = self._values(f, x, Moves(np.array([place]), np.array([points])))
        except Exception as error:  # it is not defined there
            raise_interrupt(error)
            return None
        self.evaluations += len(points)
        self._known[place, *points] = found
        return found[0].tolist() if found.dtype == np.float64 else None

    def __call__(self, f: Callable[[Any], Any], x: Array, moves: Moves) -> Array:
        """Evaluate f as `Values` says, but for what is known."""
        if not self._known:
            return self._values(f, x, moves)
        parts = []
        for k, row in enumerate(moves.points.tolist()):
            part = self._known.pop((int(moves.places[k]), *row), None)
            if part is None:
                part = self._values(f, x, moves.part(slice(k, k + 1)))
            else:
                self.evaluations -= part.size
            parts.append(part)
        return join(parts)


class ValuesOfEach:
    """The numbers that f returns, as if each came from a function of its own, evaluated once.

    Parameters
    ----------
    evaluator : Evaluator
    given : Problem
        Of f, which returns an array.
    shape : tuple of int
        Its shape.

    Attributes
    ----------
    problem : Problem
        With an x for each of the numbers, an array ``(*shape, *x.shape)``.
    evaluations : int
        How often f was evaluated.
    """

    def __init__(self, evaluator: Evaluator, given: Problem, shape: tuple[int, ...]) -> None:
        self._evaluator, self._x, self._shape = evaluator, given.x, shape
        self.evaluations = 0
        self._known: dict[tuple[int, complex], Array] = {}
        outputs = math.prod(shape)

        def for_each(numbers: Any) -> Any:
            return np.tile(numbers, outputs) if isinstance(numbers, np.ndarray) else numbers

        self.problem = given.replaced(
            x=np.broadcast_to(given.x.view(np.ndarray), shape + given.x.shape).copy(),
            steps=for_each(given.steps),
            bounds=given.bounds and tuple(map(for_each, given.bounds)),
        )

    def values(self, report: Report | None) -> Values:
        """Return how each number is evaluated, as `Evaluator.values` does for f."""
        return partial(self._values, self._evaluator.values(report))

    def _values(self, values: Values, f: Callable[[Any], Any], _: Array, moves: Moves) -> Array:
        outputs, elements = np.divmod(moves.places, self._x.size)
        rows = [*zip(elements.tolist(), moves.points.tolist(), strict=True)]
        new = dict.fromkeys((j, point) for j, row in rows for point in row)
        new = {key: None for key in new if key not in self._known}
        if new:
            places, points = zip(*new, strict=True)
            column = np.array(points, moves.points.dtype)[:, np.newaxis]
            x = self._x if column.dtype.kind == "f" else self._x.astype(column.dtype)
            found = values(f, x, Moves(np.array(places), column, self._shape))
            self._known.update(zip(new, found.reshape(len(new), -1), strict=True))
            self.evaluations += len(new)
        return np.array(
            [
                [self._known[j, point][output] for point in row]
                for output, (j, row) in zip(outputs.tolist(), rows, strict=True)
            ]
        ).reshape(moves.points.shape)
