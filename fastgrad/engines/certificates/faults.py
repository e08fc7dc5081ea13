"""Searches for the elements whose slopes differ from f, by halving directions.

A fault is seldom alone: it spoils a unit, a row, or all elements of some kind. So from the one that
is found, rows, columns and so on are halved as long as parts of them differ.
"""

import numpy as np

from fastgrad.engines.certificates.directions import Direction, Directions, Slopes
from fastgrad.typing import Places

MAX_SLICES = 8
"""In so many rows, or an eighth of all, faults are looked for; if in more, all are suspected."""


def find_faulty_element(
    directions: Directions, slopes: Slopes, direction: Direction, step: float
) -> int | None:
    """Halve a direction along which f differs until one element is left."""
    part = np.flatnonzero(direction.r)
    residual, _ = directions.residual(direction, step, slopes)
    while len(part) > 1:
        halves = part[: len(part) // 2], part[len(part) // 2 :]
        first, _ = directions.residual(directions.part(direction, halves[0]), step, slopes)
        if not np.isfinite(first):
            return None
        of_halves = first, residual - first
        larger = int(abs(of_halves[1]) > abs(of_halves[0]))
        part, residual = halves[larger], of_halves[larger]
    return int(part[0]) if part.size else None


def find_faulty_block(directions: Directions, slopes: Slopes, place: int, step: float) -> Places:
    """Return the elements in all rows, columns and so on in which f differs, as at a place."""
    shape = directions.values.x.shape or (1,)
    numbers = np.arange(directions.values.base.size).reshape(shape)
    index = np.unravel_index(place, shape)

    def differs(part: Places) -> bool:
        direction = directions.part(directions.draw(), part)
        residual, tolerance = directions.residual(direction, step, slopes)
        return not abs(residual) <= tolerance

    def slices(axis: int, known: int) -> Places:
        """Halve an array along an axis, as long as parts differ; all of it, if many do."""
        length = shape[axis]
        waiting, faulty = [np.arange(length)], {known}
        while waiting:
            these = waiting.pop()
            part = np.take(numbers, these, axis).reshape(-1)
            if not any(differs(part) for _ in range(2)):
                continue
            if len(these) == 1:
                faulty.add(int(these[0]))
            else:
                waiting += [these[len(these) // 2 :], these[: len(these) // 2]]
            if len(faulty) + len(waiting) > max(MAX_SLICES, length // 8):
                return np.arange(length)
        return np.array(sorted(faulty), np.intp)

    blocks = [slices(axis, int(i)) for axis, i in enumerate(index)]
    return np.asarray(numbers[np.ix_(*blocks)].reshape(-1))
