"""Jumps: whether f changes between points where its slope does not say so, as rounded values do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgrad.differences.quotients import moved
from fastgrad.interrupts import raise_interrupt
from fastgrad.typing import Array, Values

if TYPE_CHECKING:
    from fastgrad.differences.problem import Problem

ASIDE = (-0.97, -0.71, -0.43, -0.19, 0.11, 0.37, 0.59, 0.89)
"""Where f is looked at, in units of the wide step: no simple ratios, which periods may have."""

FLAT = 2.0**-20
"""Part of the wide step over which f is constant, if it is piecewise."""

ALIKE = 8
"""Times the spread of slopes beyond which changes are not explained by it."""

CALLS = 2 * len(ASIDE)
"""How often f is called."""


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
        How f is evaluated: 16 times, no farther away than with the wide step.
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
    d = problem.scheme.derivative
    # Slopes that are exact to a hundredth of what they are to explain.
    slope = contradiction * wide ** (d - 1)
    if not slope > 0:
        return False
    beside = _beside(problem, values, place, wide, 100 * rounding / slope, shape)
    if beside is None:
        return False
    where, found = beside[0], beside[1][..., output]
    with np.errstate(all="ignore"):
        slopes = np.diff(found)[:, 0] / np.diff(where)[:, 0]
        changes = np.diff(found[:, 0]) / np.diff(where[:, 0])
        unexplained = np.median(abs(changes - (slopes[1:] + slopes[:-1]) / 2))
        # Slopes of waves are alike by accident at times; a jump within a narrow pair spoils one.
        spread = np.sort(abs(slopes - np.median(slopes)))[-3]
        return bool(unexplained > ALIKE * spread + slope / 16)


def is_flat(
    problem: Problem,
    values: Values,
    place: int,
    wide: float,
    shape: tuple[int, ...] = (),
    output: int = 0,
) -> bool:
    """Say whether f is constant around x, but for jumps: it has values, and no slopes.

    Parameters
    ----------
    problem, values, place, wide, shape, output
        As for `jumps`.
    """
    beside = _beside(problem, values, place, wide, wide * FLAT, shape)
    if beside is None:
        return False
    found = beside[1][..., output]
    return bool((found[:, 0] == found[:, 1]).all() and len(np.unique(found)) > 1)


def _beside(
    problem: Problem,
    values: Values,
    place: int,
    wide: float,
    narrow: float,
    shape: tuple[int, ...],
) -> tuple[Array, Array] | None:
    """Return pairs of points within the wide step, ``(pairs, 2)``, and f ``(pairs, 2, outputs)``.

    None if there is no room for them, or f cannot be called there.
    """
    x, here = problem.x, np.array([place])
    [(scheme, _, (wide,))] = [
        part for part in problem.partition_of(here, np.array([wide])) if len(part[1])
    ]
    spacing = float(np.spacing(abs(x.view(np.ndarray).reshape(-1)[place])))
    narrow = max(narrow, 4 * spacing)
    offsets = np.array([*scheme.outer, 0.0])
    lowest, highest = wide * offsets.min(), wide * offsets.max() - narrow
    if not 0 < 32 * narrow < highest - lowest:
        return None
    middle, half = (lowest + highest) / 2, (highest - lowest) / 2
    asides = [middle + half * c + n for c in ASIDE for n in (0.0, narrow)]
    points = moved(x, here, asides, 1.0)
    if problem.bounds is not None:  # rounding may lead outside
        points = np.clip(points, problem.bounds[0][place], problem.bounds[1][place])
    try:
        measured = values(problem.f, x, here, points, shape)
    except Exception as error:
        raise_interrupt(error)
        return None
    found = np.asarray(measured.reshape(len(ASIDE), 2, -1), float)
    return points.reshape(len(ASIDE), 2).astype(float), found
