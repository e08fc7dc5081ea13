"""The check along random directions, by a few calls of f for any number of parameters.

Let e be the error of a gradient, of length |e|. Along a direction v of independent numbers, uniform
and of variance 1, gradient times v is wrong by e v, whose density is 1 / (sqrt(6) |e|) at most:
1 / (2 sqrt(3)) is that of one number, and sqrt(2) times as much the most that sums of them have
(Ball 1986). If errors of up to tau pass, one of length |e| passes k directions with the probability

    P(miss) = (sqrt(2 / 3) tau / |e|)**k

at most, whatever the number of parameters, and wherever in them the error is. That a quotient is
wrong, too, by its truncation, makes it no larger: no interval is more likely. So a quotient that
agrees to what f is rounded by needs no second one. Nor does one of a single side, where a kink is
on the other; as either of the two may agree, what it may be wrong by counts twice.

References
----------
K. Ball, "Cube slicing in R^n", Proceedings of the American Mathematical Society 97 (1986), 465-473.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from fastgrad.checking.noise import (
    ANALYTIC_ROUNDING_EPS,
    EXTRAPOLATION_SHARE,
    Direction,
    Noise,
    Path,
    evaluate_along,
    extrapolate,
)
from fastgrad.checking.numerical import MAX_QUOTIENT_CHANGE, MAX_TRUNCATION_SHARE, largest_magnitude
from fastgrad.checking.probe import ROUGHNESS_FACTOR, Probe, probe
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.directional import restorer
from fastgrad.typing import Array

DIRECTION_COUNT = 8
"""Directions: with 8, what is missed at most once in 1e9 is ten times what a direction allows."""

MISS_PROBABILITY = 1e-9
"""The probability for which the report says how large an error may be missed."""

KINK_DIVISOR = 16.0
"""By what the step is divided where kinks may be in its way."""

SHARE_PER_DIRECTION = 0.05
"""Share of a check's progress that is reported for a direction."""

SPARE_DIRECTIONS = 2
"""Directions in place of others that cross kinks at the smallest step, too."""

UNSCALED = 1e-140, 1e140
"""Between which lengths the squares of a vector's elements neither over- nor underflow."""


def random_direction(
    parts: Sequence[Part],
    random: np.random.Generator,
    subject: GradientUnderTest | None = None,
    s: float = 1.0,
) -> list[Array]:
    """Return a direction, uniform numbers of variance 1, for the arrays of these parts.

    Longer where a step s of it would be lost in the rounding of x, if a subject is given.
    """
    steps = [s if subject is None else subject.steps(part, s) for part in parts]
    return _direction(parts, random, s, steps)


def _direction(
    parts: Sequence[Part], random: np.random.Generator, s: float, steps: Sequence[float | Array]
) -> list[Array]:
    """Return a direction, longer where steps are than s."""
    directions = []
    for part, step in zip(parts, steps, strict=True):
        v = random.random(part.x.shape)  # five times faster than normal numbers
        v -= 0.5
        v *= math.sqrt(12)
        v = v.astype(part.analytic.dtype, copy=False)
        directions.append(v if isinstance(step, float) else v * (step / s))
    return directions


def step_along(noise: Noise) -> float:
    """Return the step in units of v, a power of two: 16 times the root of the relative noise.

    All parameters move at once, so that kinks are near: a smaller step than the best one for
    smooth functions, the cube root, crosses fewer of them.
    """
    return float(min(2.0 ** np.round(np.log2(16 * noise.relative**0.5)), 2.0**-6))


def direction_path(
    subject: GradientUnderTest, parts: Sequence[Part], direction: Direction, here: Any = None
) -> tuple[Path, float]:
    """Return the path along a direction, and how far rounding may change what is claimed of it.

    What x moves beside the direction, for what is stored is rounded, is part of f's noise, as
    `fastgrad.checking.noise.with_terms` tells it: of independent roundings, a tenth at most.

    Parameters
    ----------
    subject, parts, direction
    here : number, optional
        What f is at x, if it is known.
    """
    kept = _, originals = restorer([part.x for part in parts])
    slopes = [part.analytic * v.reshape(-1) for part, v in zip(parts, direction, strict=True)]
    rounding = [
        ANALYTIC_ROUNDING_EPS * part.analytic_eps * _norm(terms)
        for part, terms in zip(parts, slopes, strict=True)
    ]

    def along(offsets: Array) -> tuple[Array, Array]:
        values = evaluate_along(parts, direction, offsets.tolist(), subject.value, kept)
        return offsets, np.array(values)

    def least() -> float:
        shares = [
            float(np.median(np.spacing(abs(original[moved])).astype(v.dtype) / _lengths(v[moved])))
            for original, v in zip(originals, direction, strict=True)
            if (moved := v != 0).any()
        ]
        return max(shares, default=0.0)

    analytic = float(sum(terms.sum() for terms in slopes))
    known = {} if here is None else {0.0: (0.0, here)}
    return Path(along, analytic, least, known), _norm(np.array(rounding))


def _lengths(moved: Array) -> Array:
    """Return by how much elements move, those that hardly do aside."""
    lengths: Array = np.maximum(abs(moved), 0.125 * abs(moved).max())
    return lengths


def check_direction(
    subject: GradientUnderTest,
    parts: Sequence[Part],
    direction: Direction,
    noise: Noise,
    slack: float = 0.0,
) -> Probe:
    """Return what both sides say along a direction: by two calls of f if that is what is claimed.

    Otherwise by two or three more, and where f is not smooth there, by as many at smaller steps,
    which cross fewer kinks, unless there is one at x; and if that does not help, by some more.
    """
    line = Line.of(subject, parts, direction)
    return line.check(noise, slack) or line.probe(noise, slack)


@dataclass(frozen=True, eq=False)
class Line:
    """A path along a direction, and how far rounding may change what is claimed of it."""

    path: Path
    rounding: float

    @classmethod
    def of(
        cls,
        subject: GradientUnderTest,
        parts: Sequence[Part],
        direction: Direction,
        here: Any = None,
    ) -> "Line":
        """Return that of these parts along a direction; here is f at x, if it is known."""
        with np.errstate(all="ignore"):
            return cls(*direction_path(subject, parts, direction, here))

    @np.errstate(all="ignore")
    def check(self, noise: Noise, slack: float, first: int = 0) -> Probe | None:
        """Return what steps tell that may cross no kinks, or that x is at one; None if none does.

        Parameters
        ----------
        noise : Noise
        slack : float
        first : int
            Which of the three steps is the first; 0 is the largest one.
        """
        path, before = self.path, math.nan
        contradicting: Probe | None = None
        for k in range(first, 3):
            step = step_along(noise) / KINK_DIVISOR**k
            _, (up, down) = path(step * np.array([1.0, -1.0]))
            near, error = (up - down) / (2 * step), noise.level / step + self.rounding
            if contradicting and abs(contradicting.value - near) <= contradicting.error + error:
                return contradicting
            if abs(path.analytic - near) <= error + slack:  # whatever its truncation: see above
                told = path.analytic, float(near), float(error)
                return Probe("smooth", *told, float(near), float(near), step, contradicts=False)
            _, (far_up, far_down) = path(step * np.array([2.0, -2.0]))
            far = (far_up - far_down) / (4 * step)
            value, truncation, round_off = extrapolate(near, far, step, noise.level)
            error = (
                min(EXTRAPOLATION_SHARE * truncation, MAX_TRUNCATION_SHARE * abs(path.analytic))
                + round_off
                + self.rounding
            )
            told = path.analytic, float(value), float(error)
            if abs(path.analytic - value) <= error + slack:
                return Probe("smooth", *told, float(near), float(near), step, contradicts=False)
            _, [here] = path(np.zeros(1))
            bend = (up - here) + (down - here)
            rough = abs((far_up - here) + (far_down - here) - 4 * bend)
            if rough <= ROUGHNESS_FACTOR * noise.level:
                error += 2 * float(rough) / step  # by a kink that the noise may hide
                off = abs(path.analytic - value) - slack
                told = path.analytic, float(value), float(error)
                found = Probe("smooth", *told, float(near), float(near), step, not off <= error)
                if off <= error or 3 * truncation <= round_off:
                    return found
                # Many kinks may look smooth; what they do to a value changes with the step.
                contradicting = None if off <= error + 3 * truncation else found
                if k == 2:
                    return contradicting
            elif agreeing := self._by_one_side(step, noise.level, slack):
                return agreeing
            # Of a kink at x the bend is in proportion to the step, of what is smooth to its square.
            is_clear = abs(bend) > ROUGHNESS_FACTOR * noise.level
            if is_clear and abs(KINK_DIVISOR * bend - before) <= MAX_QUOTIENT_CHANGE * abs(before):
                below, above = float((here - down) / step), float((up - here) / step)
                return Probe("kink", *told, below, above, step, contradicts=False)
            before = bend
        return None

    def _by_one_side(self, step: float, level: float, slack: float) -> Probe | None:
        """Return what one side tells if it is straight and agrees: a kink is on the other one.

        Its error counts twice, for either of the two sides may agree by chance.
        """
        path, hidden = self.path, 2 * level / step
        for way in (-step, step):
            _, (here, near, far) = path(way * np.arange(3.0))
            quotient, change = (near - here) / way, abs(far - 2 * near + here) / (2 * step)
            error = hidden + change + self.rounding
            is_straight = change <= hidden <= abs(quotient) / 2  # next to a jump noise hides all
            if is_straight and abs(path.analytic - quotient) <= error + slack:
                told = path.analytic, float(quotient), 2 * float(error)
                return Probe("step", *told, float(quotient), float(quotient), step, False)
        return None

    def probe(self, noise: Noise, slack: float) -> Probe:
        """Return what a closer look tells, at the smallest of the steps and below."""
        s = step_along(noise)
        return probe(self.path, noise.level, s / KINK_DIVISOR**2, 4 * s, self.rounding + slack)


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
    directions : list of Direction
        Those along which it is checked, as far as they have been drawn.
    count : int
        How many there are to be.
    draw : callable or None
        Returns one more.
    spares : int
        How many of them may take the place of others.
    results : list of Probe
        Of the first directions, or of all: what has been measured so far.
    taken : callable or None
        Returns what f's slope along a direction has beside what is claimed, and what that may be
        wrong by.
    is_unexplained : bool
        Whether it is known that what differs is a fault.
    """

    subject: GradientUnderTest
    parts: Sequence[Part]
    noise: Noise
    slack: float
    directions: list[Direction]
    count: int
    draw: Callable[[], Direction] | None = None
    spares: int = 0
    results: list[Probe] = field(default_factory=list)
    taken: Callable[[Direction], tuple[float, float]] | None = None
    is_unexplained: bool = False

    @classmethod
    def drawn(
        cls,
        subject: GradientUnderTest,
        parts: Sequence[Part],
        noise: Noise,
        slack: float,
        random: np.random.Generator,
        count: int = DIRECTION_COUNT,
    ) -> "DirectionalCheck":
        """Say how directions are drawn, and measure nothing yet."""
        s = step_along(noise)
        draw = partial(_direction, parts, random, s, [subject.steps(part, s) for part in parts])
        return cls(subject, parts, noise, slack, [], count, draw, SPARE_DIRECTIONS)

    def of(self, subject: GradientUnderTest) -> "DirectionalCheck":
        """Return the same directions for another function or gradient of such parts."""
        parts = [part for part in subject.parts if part.x.size]
        return replace(self, subject=subject, parts=parts, spares=0, results=[])

    def measure(self, *, to_end: bool = False) -> "DirectionalCheck":
        """Measure along the directions, up to one along which f has a kink at x.

        Nearly all directions have such a kink, and none tells anything. One that crosses a kink
        next to x at all steps makes way for another; what the largest step crosses along one, is
        as near to x along others. Unless it is to go on to the end, it ends with a direction that
        says that the gradient is wrong, too.
        """
        here, first, smaller = None, 0, step_along(self.noise)
        for k in range(len(self.results), self.count):
            if k == len(self.directions) and self.draw is not None:
                self.directions.append(self.draw())
            line = self._line(self.directions[k], here)
            result = line.check(self.noise, self.slack, first)
            while result is None and self.spares and self.draw is not None:
                self.directions[k], self.spares = self.draw(), self.spares - 1
                line = self._line(self.directions[k], line.path.here)
                result = line.check(self.noise, self.slack, first)
            result = result or line.probe(self.noise, self.slack)
            self.results.append(result)
            self.subject.tell(SHARE_PER_DIRECTION)
            if not result.is_smooth or (result.contradicts and not to_end):
                break
            here, first = line.path.here, int(result.step < smaller)
        return self

    def _line(self, direction: Direction, here: Any) -> Line:
        """Return the path along a direction, and what is claimed of it."""
        line = Line.of(self.subject, self.parts, direction, here)
        if self.taken is None:
            return line
        slope, error = self.taken(direction)
        line.path.analytic += slope
        return replace(line, rounding=line.rounding + error)

    @property
    def agrees(self) -> bool:
        """Whether all results agree, and these are half of the directions at least."""
        enough = 2 * len(self.results) >= self.count
        return enough and all(result.agrees for result in self.results)

    @property
    def has_kinks(self) -> bool:
        """Whether f has a kink along one of them."""
        return any(not result.is_smooth for result in self.results)

    @property
    def refutes(self) -> bool:
        """Whether the gradient is wrong along one of them."""
        return any(result.contradicts and result.is_smooth for result in self.results)

    def summary(self) -> str:
        """Say how large an error is missed how improbably, if all results agree."""
        length = length_of(self.parts)
        least = smallest_error([result.error for result in self.results])
        relative = f", {least / length:.0e} of the gradient's," if length else ""
        return (
            f"{len(self.results)} random directions agree. An error of length {least:.1e}"
            f"{relative} or more is missed with a probability below {MISS_PROBABILITY:.0e}."
        )


def length_of(parts: Sequence[Part]) -> float:
    """Return the length of the gradient that is checked."""
    with np.errstate(all="ignore"):
        return _norm(np.array([_norm(part.analytic) for part in parts]))


def _norm(values: Array) -> float:
    """Return the length of a vector of any size: its squares may over- or underflow."""
    length = float(np.sqrt(np.einsum("i,i", values, values)))
    if UNSCALED[0] < length < UNSCALED[1]:
        return length
    largest = largest_magnitude(values) or 1.0
    return largest * float(np.linalg.norm(values / largest))


def disagreeing(check: DirectionalCheck, random: np.random.Generator) -> Sequence[Part]:
    """Return the parts whose gradient does not pass, each moved alone; all, if none stands out."""
    subject, noise, s = check.subject, check.noise, step_along(check.noise)

    def passes(part: Part) -> bool:
        direction = random_direction([part], random, subject, s)
        return check_direction(subject, [part], direction, noise, check.slack).agrees

    return [part for part in check.parts if not (passes(part) and passes(part))] or check.parts


def smallest_error(allowed: Sequence[float], miss: float = MISS_PROBABILITY) -> float:
    """Return the length from which errors are missed with this probability at most.

    Parameters
    ----------
    allowed : sequence of float
        Up to which size an error passes along each direction.
    miss : float
    """
    low, high = min(allowed) or 1e-300, 1e308
    if not np.isfinite(low):
        return math.inf
    while high > 1.01 * low:
        middle = math.sqrt(low) * math.sqrt(high)
        if miss_probability(allowed, middle) > miss:
            low = middle
        else:
            high = middle
    return high


def miss_probability(allowed: Sequence[float], error: float) -> float:
    """Return the most that the probability is that all directions pass an error of this length."""
    return math.prod(min(1.0, math.sqrt(2 / 3) * tau / error) for tau in allowed)
