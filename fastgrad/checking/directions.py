"""Does a gradient pass along random directions? A few calls of f for any number of parameters.

Let e be the error of a gradient, of length |e|. Along a direction v of independent normal
numbers, gradient times v is wrong by e v, a normal number of standard deviation |e|. If errors of
up to tau pass, one of length |e| passes k directions with the probability

    P(miss) = erf(tau / (sqrt(2) |e|))**k,

whatever the number of parameters, and wherever in them the error is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.noise import Noise
from fastgrad.checking.subject import Part, Subject
from fastgrad.line import move, restoration

Array = NDArray[Any]

COUNT = 8
"""Directions: with 8, what is missed at most once in 1e9 is ten times what a direction allows."""

MISS = 1e-9
"""The probability for which the report says how large an error may be missed."""


@dataclass(frozen=True)
class Direction:
    """The derivative of f along a random direction, by both sides.

    Attributes
    ----------
    claimed, measured : float
        The gradient times v, and the difference quotient along v.
    allowed : float
        What the latter may be wrong by itself: truncation and round-off.
    """

    claimed: float
    measured: float
    allowed: float

    def agrees(self, slack: float = 0.0) -> bool:
        """Return whether both are the same within that, and what else is allowed."""
        return abs(self.claimed - self.measured) <= self.allowed + slack


def draw(parts: Sequence[Part], random: np.random.Generator) -> list[Array]:
    """Return a direction, independent normal numbers, for the arrays of these parts."""
    return [
        random.standard_normal(part.x.shape).astype(part.claim.dtype, copy=False) for part in parts
    ]


def step_along(noise: Noise) -> float:
    """Return the step in units of v, a power of two: 16 times the root of the relative noise.

    All parameters move at once, so that kinks are near: a smaller step than the best one for
    smooth functions, the cube root, crosses fewer of them.
    """
    return float(min(2.0 ** np.round(np.log2(16 * noise.relative**0.5)), 2.0**-6))


def evaluate_along(
    parts: Sequence[Part], directions: Sequence[Array], steps: Sequence[float],
    value: Callable[[], Any],
) -> list[Any]:  # fmt: skip
    """Return a value where the parts' arrays are moved by each of the steps; they come back."""
    arrays = [part.x for part in parts]
    put_back, originals = restoration(arrays)
    try:
        values = []
        for step in steps:
            move(arrays, originals, [*directions], step, [None] * len(arrays))
            values.append(value())
        return values
    finally:
        put_back()


def measure(
    subject: Subject, parts: Sequence[Part], directions: Sequence[Array], noise: Noise
) -> Direction:
    """Return what both sides say along a direction; four calls of f."""
    s = step_along(noise)
    f = evaluate_along(parts, directions, (s, -s, 2 * s, -2 * s), subject.value)
    near, far = (f[0] - f[1]) / (2 * s), (f[2] - f[3]) / (4 * s)
    truncation = abs(far - near) / 3
    claimed, rounding = 0.0, 0.0
    for part, direction in zip(parts, directions, strict=True):
        went = _displacement(part.x, direction, s)
        claimed += float(part.claim @ went)
        eps = 32 * part.claim_eps
        rounding += (eps * float(np.linalg.norm(part.claim * went))) ** 2
    allowed = 2 * truncation + 1.5 * noise.level / s + math.sqrt(rounding)
    return Direction(claimed, float(near + (near - far) / 3), float(allowed))


def _displacement(x: Array, direction: Array, s: float) -> Array:
    """Return by how much x really moves, in units of s: what is stored in float32 is rounded."""
    if x.dtype == direction.dtype:
        return direction.reshape(-1)
    original = x.view(np.ndarray)
    up, down = ((original + step * direction).astype(x.dtype) for step in (s, -s))
    went: Array = (up.astype(direction.dtype) - down) / (2 * s)
    return went.reshape(-1)


def disagreeing(
    subject: Subject, noise: Noise, random: np.random.Generator, slack: float = 0.0
) -> list[Part]:
    """Return the parts whose gradient does not pass, each moved alone; all, if none stands out."""

    def passes(part: Part) -> bool:
        return measure(subject, [part], draw([part], random), noise).agrees(slack)

    parts = [part for part in subject.parts if part.x.size]
    return [part for part in parts if not (passes(part) and passes(part))] or parts


def sentence(directions: Sequence[Direction], length: float) -> str:
    """Say how large an error is missed how improbably.

    Parameters
    ----------
    directions : sequence of Direction
        All of which agree.
    length : float
        That of the gradient.
    """
    least = smallest_error(directions)
    relative = f", {least / length:.0e} of the gradient's," if length else ""
    return (
        f"{len(directions)} random directions agree. An error of length {least:.1e}{relative} or "
        f"more is missed with a probability below {MISS:.0e}."
    )


def smallest_error(directions: Sequence[Direction], miss: float = MISS) -> float:
    """Return the length from which errors are missed with this probability at most."""
    low = min(direction.allowed for direction in directions) or 1e-300
    high = low
    while miss_probability(directions, high) > miss:
        high *= 2
    while high > 1.01 * low:
        middle = math.sqrt(low * high)
        if miss_probability(directions, middle) > miss:
            low = middle
        else:
            high = middle
    return high


def miss_probability(directions: Sequence[Direction], error: float) -> float:
    """Return the probability that all directions pass an error of this length."""
    return math.prod(
        math.erf(direction.allowed / (math.sqrt(2) * error)) for direction in directions
    )
