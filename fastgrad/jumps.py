"""Jumps: whether f changes between points where its slope does not say so, as rounded values do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences import Values, moved

if TYPE_CHECKING:
    from fastgrad.problem import Problem

Array = NDArray[Any]

ASIDE = (-0.93, -0.61, -0.29, 0.11, 0.37, 0.83)
"""Where f is looked at, in units of the wide step: no simple ratios, which periods may have."""


def jumps(
    problem: Problem,
    values: Values,
    place: int,
    wide: float,
    contradiction: float,
    rounding: float,
    shape: tuple[int, ...] = (),
    output: int = 0,
) -> bool:
    """Say whether f jumps around x, where its quotients at a wide and at a small step contradict.

    A function that is computed in float32, rounded or printed is constant, or smooth, between its
    jumps: its slopes there leave its changes from point to point unexplained, nearly everywhere.
    If f really has a peak, a kink or waves at x, slopes and changes agree in most places, or the
    slopes differ from each other by as much.

    Parameters
    ----------
    problem : Problem
        With a real scheme.
    values : callable
        How f is evaluated: 12 times, no farther away than with the wide step.
    place : int
        The element, as an index into x in C order.
    wide : float
        The wide step, at which the quotient is to be believed if f jumps.
    contradiction : float
        By how much the derivatives differ.
    rounding : float
        How wrong a value of f may be by rounding.
    shape : tuple of int
        The shape of what f returns.
    output : int
        Which of these numbers is looked at.

    Returns
    -------
    bool
        False, too, where f cannot be called.
    """
    x, here = problem.x, np.array([place])
    [(scheme, _, (wide,))] = [
        part for part in problem.divided(here, np.array([wide])) if len(part[1])
    ]
    spacing = float(np.spacing(abs(x.view(np.ndarray).reshape(-1)[place])))
    # Slopes that are exact to a hundredth of what they are to explain.
    slope = contradiction * wide ** (scheme.derivative - 1)
    narrow = max(100 * rounding / slope, 4 * spacing) if slope > 0 else 0.0
    offsets = np.array([*scheme.outer, 0.0])
    lowest, highest = wide * offsets.min(), wide * offsets.max() - narrow
    if not 0 < 32 * narrow < highest - lowest:
        return False
    middle, half = (lowest + highest) / 2, (highest - lowest) / 2
    asides = [middle + half * c + n for c in ASIDE for n in (0.0, narrow)]
    points = moved(x, here, asides, 1.0)
    if problem.bounds is not None:  # rounding may lead outside
        points = np.clip(points, problem.bounds[0][place], problem.bounds[1][place])
    try:
        measured = values(problem.f, x, here, points, shape)
    except Exception:
        return False
    found = np.asarray(measured.reshape(len(ASIDE), 2, -1)[:, :, output], float)
    where = points.reshape(len(ASIDE), 2).astype(float)
    with np.errstate(all="ignore"):
        slopes = np.diff(found)[:, 0] / np.diff(where)[:, 0]
        changes = np.diff(found[:, 0]) / np.diff(where[:, 0])
        unexplained = np.median(abs(changes - (slopes[1:] + slopes[:-1]) / 2))
        return bool(unexplained > 2 * np.median(abs(np.diff(slopes))) + slope / 16)
