"""The check along random directions, by a few calls of f for any number of parameters.

Let e be the error of a gradient, of length |e|. Along a direction v of independent normal
numbers, gradient times v is wrong by e v, a normal number of standard deviation |e|. If errors of
up to tau pass, one of length |e| passes k directions with the probability

    P(miss) = erf(tau / (sqrt(2) |e|))**k,

whatever the number of parameters, and wherever in them the error is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fastgrad.checking.noise import Noise
from fastgrad.checking.numerical import CLEAR, largest_magnitude
from fastgrad.checking.probe import EXTRAPOLATED, ROUGH, OneSided, one_sided, unit_of
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.directional import move, restoration
from fastgrad.typing import Array

COUNT = 8
"""Directions: with 8, what is missed at most once in 1e9 is ten times what a direction allows."""

MISS = 1e-9
"""The probability for which the report says how large an error may be missed."""


@dataclass(frozen=True, eq=False)
class Direction:
    """The derivative of f along a direction, by both sides.

    Attributes
    ----------
    claimed : float
        The gradient times v.
    error : float
        What the difference quotient along v is larger by.
    allowed : float
        What the latter may be wrong by itself: truncation and round-off.
    refuted : bool
        Whether the gradient is wrong.
    sides : OneSided, optional
        What a closer look told: with a kink at x, nothing of the gradient.
    slopes : pair of float
        Those from below and from above, then.
    line : list of array
        The direction v.
    """

    claimed: float
    error: float
    allowed: float
    refuted: bool = True
    sides: OneSided | None = None
    slopes: tuple[float, float] = (math.nan, math.nan)
    line: Sequence[Array] = ()

    @property
    def has_kink(self) -> bool:
        """Whether f is not smooth along it at x, or smaller steps tell something else.

        Where several kinks meet, what backpropagation returns may lie beside both slopes.
        """
        return not self.is_smooth or (self.sides is not None and self.sides.is_excused)

    @property
    def is_smooth(self) -> bool:
        """Whether f has no kink or jump at x along it."""
        return self.sides is None or self.sides.is_smooth

    @property
    def agrees(self) -> bool:
        """Whether both are the same within what is allowed."""
        return not (self.refuted or self.has_kink)


def random_direction(
    parts: Sequence[Part],
    random: np.random.Generator,
    subject: GradientUnderTest | None = None,
    s: float = 1.0,
) -> list[Array]:
    """Return a direction, independent normal numbers, for the arrays of these parts.

    Longer where a step s of it would be lost in the rounding of x, if a subject is given.
    """
    directions = []
    for part in parts:
        v = random.standard_normal(part.x.shape).astype(part.claim.dtype, copy=False)
        step = s if subject is None else subject.steps(part, s)
        directions.append(v if isinstance(step, float) else v * (step / s))
    return directions


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


def check_direction(
    subject: GradientUnderTest,
    parts: Sequence[Part],
    line: Sequence[Array],
    noise: Noise,
    slack: float = 0.0,
) -> Direction:
    """Return what both sides say along a direction: by five calls of f.

    If they differ, and f is not smooth along it, by some more calls at smaller steps.
    """
    s = step_along(noise)
    along = Along(subject, parts, line, 2 * s)
    with np.errstate(all="ignore"):
        up, down, far_up, far_down = (along.remainder(t) for t in (s, -s, 2 * s, -2 * s))
        near, far = (up - down) / (2 * s), (far_up - far_down) / (4 * s)
        claimed, rounding = along.claimed(s)
        error = along.unit * (near + (near - far) / 3)
        truncation = along.unit * min(abs(far - near) / 3 * EXTRAPOLATED, CLEAR * abs(claimed))
        allowed = truncation + 1.5 * noise.level / s + rounding
        if abs(error) <= allowed + slack:
            return Direction(claimed, error, allowed, refuted=False)
        rough = along.unit * abs(far_up - 4 * up - 4 * down + far_down)
        hidden = 2 * rough / s  # by a kink that the noise may hide
        if rough <= ROUGH * noise.level and abs(error) > allowed + slack + hidden:
            return Direction(claimed, error, allowed + hidden)
        return along.judge(noise.level, 4 * s, s)


@dataclass(eq=False)
class DirectionalCheck:
    """A check along random directions: what is checked, along which, and what came of it.

    Attributes
    ----------
    subject : GradientUnderTest
    parts : sequence of Part
        The arrays that are moved, all at once.
    noise : Noise
        How exact values of f are.
    slack : float
        An error that is accepted in any case.
    lines : sequence of directions
        Each an array for each part.
    results : list of Direction
        Of the first lines, or of all: what has been measured so far.
    is_unexplained : bool
        Whether it is known that what differs is a fault.
    """

    subject: GradientUnderTest
    parts: Sequence[Part]
    noise: Noise
    slack: float
    lines: Sequence[Sequence[Array]]
    results: list[Direction] = field(default_factory=list)
    is_unexplained: bool = False

    @classmethod
    def drawn(
        cls,
        subject: GradientUnderTest,
        parts: Sequence[Part],
        noise: Noise,
        slack: float,
        random: np.random.Generator,
        count: int = COUNT,
    ) -> "DirectionalCheck":
        """Draw directions, and measure nothing yet."""
        s = step_along(noise)
        lines = [random_direction(parts, random, subject, s) for _ in range(count)]
        return cls(subject, parts, noise, slack, lines)

    def of(self, subject: GradientUnderTest) -> "DirectionalCheck":
        """Return the same directions for another function or gradient of such parts."""
        parts = [part for part in subject.parts if part.x.size]
        return DirectionalCheck(subject, parts, self.noise, self.slack, self.lines)

    def measure(self) -> "DirectionalCheck":
        """Measure along the directions, up to one along which f has a kink at x.

        Nearly all directions have such a kink, and none tells anything.
        """
        for line in self.lines:
            result = check_direction(self.subject, self.parts, line, self.noise, self.slack)
            self.results.append(result)
            if result.has_kink:
                break
        return self

    @property
    def agrees(self) -> bool:
        """Whether all results agree, and these are half of the directions at least."""
        enough = 2 * len(self.results) >= len(self.lines)
        return enough and all(result.agrees for result in self.results)

    @property
    def has_kinks(self) -> bool:
        """Whether f has a kink along one of them."""
        return any(result.has_kink for result in self.results)

    @property
    def refutes(self) -> bool:
        """Whether the gradient is wrong along one of them."""
        return any(result.refuted and not result.has_kink for result in self.results)

    def summary(self) -> str:
        """Say how large an error is missed how improbably, if all results agree."""
        return sentence(self.results, length_of(self.parts))


def length_of(parts: Sequence[Part]) -> float:
    """Return the length of the gradient that is checked."""
    with np.errstate(all="ignore"):
        return _norm(np.array([_norm(part.claim) for part in parts]))


def _norm(values: Array) -> float:
    """Return the length of a vector of any size: its squares may over- or underflow."""
    largest = largest_magnitude(values) or 1.0
    return largest * float(np.linalg.norm(values / largest))


class Along:
    """What a claimed gradient leaves of f along a direction v: ``f(x + t v) - f(x) - t g v``.

    All of it in a unit in which f is about 1, at x or the largest step ``top`` away, and with the
    displacement that x really makes.
    """

    def __init__(
        self,
        subject: GradientUnderTest,
        parts: Sequence[Part],
        directions: Sequence[Array],
        top: float,
    ) -> None:
        self.subject, self.parts, self.directions = subject, parts, directions
        self._originals = [part.x.view(np.ndarray).copy() for part in parts]
        self.here = subject.value()
        ends = [-top, top]
        values = evaluate_along(parts, directions, ends, subject.value)
        self._known = dict(zip(ends, values, strict=True))
        self.unit = unit_of(np.array([self.here, *values]))

    def _value(self, t: float) -> Any:
        if t not in self._known:
            [self._known[t]] = evaluate_along(self.parts, self.directions, [t], self.subject.value)
        return self._known[t]

    def remainder(self, t: float) -> float:
        """Return what is left at x + t v."""
        rest = float((self._value(t) - self.here) / self.unit)
        for part, went in zip(self.parts, self._displacements(t), strict=True):
            rest -= float((part.claim / self.unit) @ went)
        return rest

    def claimed(self, s: float) -> tuple[float, float]:
        """Return the gradient times v, and how far rounding of the gradient may change that."""
        total, rounding = 0.0, []
        for part, went in zip(self.parts, self._displacements(s), strict=True):
            terms = part.claim * (went / s)
            total += float(terms.sum())
            rounding.append(32 * part.claim_eps * _norm(terms))
        return total, _norm(np.array(rounding))

    def judge(self, level: float, top: float, s: float) -> Direction:
        """Return what one-sided quotients tell, from the top step down, of the gradient along v.

        Which is rounded as at the step s.
        """
        least = 0.0
        for original, direction in zip(self._originals, self.directions, strict=True):
            moved = direction != 0
            if moved.any():
                lengths = abs(direction[moved])
                spacing = np.spacing(abs(original[moved])).astype(direction.dtype)
                shares = spacing / np.maximum(lengths, 0.125 * lengths.max())
                least = max(least, float(np.median(shares)))
        tiny = float(np.finfo(np.float64).tiny)
        sides = one_sided(
            lambda t: (t, self.remainder(t)), level / self.unit, top, max(least, tiny)
        )
        claimed, rounding = self.claimed(s)
        error, allowed = self.unit * sides.closest, self.unit * sides.smallest_error + rounding
        refuted = sides.refuted and not abs(error) <= rounding
        slopes = claimed + self.unit * sides.below, claimed + self.unit * sides.above
        return Direction(claimed, error, allowed, refuted, sides, slopes, self.directions)

    def _displacements(self, t: float) -> list[Array]:
        """Return by how much x really moves: what is stored is rounded."""
        return [
            (
                (original + t * direction).astype(original.dtype).astype(direction.dtype) - original
            ).reshape(-1)
            for original, direction in zip(self._originals, self.directions, strict=True)
        ]


def disagreeing(check: DirectionalCheck, random: np.random.Generator) -> Sequence[Part]:
    """Return the parts whose gradient does not pass, each moved alone; all, if none stands out."""
    subject, noise, s = check.subject, check.noise, step_along(check.noise)

    def passes(part: Part) -> bool:
        direction = random_direction([part], random, subject, s)
        return check_direction(subject, [part], direction, noise, check.slack).agrees

    return [part for part in check.parts if not (passes(part) and passes(part))] or check.parts


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
    low, high = min(direction.allowed for direction in directions) or 1e-300, 1e308
    if not np.isfinite(low):
        return math.inf
    while high > 1.01 * low:
        middle = math.sqrt(low) * math.sqrt(high)
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
