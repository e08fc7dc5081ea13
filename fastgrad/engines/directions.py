"""Comparisons of slopes with f along directions that are drawn at random.

Along a direction r, f changes by what all its slopes g say,

    f(x + s r) - f(x - s r)  =  2 s sum_i g_i r_i,

up to truncation, which falls with the cube of s, and to rounding. A fault in any element makes the
two sides differ. The elements of r have either sign and magnitudes from 3/4 to 1: faults of several
elements, even equal ones, hardly ever cancel, as they would in one of two directions of elements 1
and -1 (R. Freivalds, 1977).

A difference is looked at again with smaller steps: what falls only in proportion is a fault, or a
kink that the quotients pass; what vanishes is truncation, or a kink that the direction passes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from fastgrad.engines import loop
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.schemes import Scheme
from fastgrad.typing import Array, Places

EPS = float(np.finfo(np.float64).eps)

ROUNDINGS = 6
"""How many times its unit the rounding error of a difference of f may be."""

MIN_STEP_ULPS = 8
"""By how many units in its last place an element is moved at least."""

FIRST_STEP_DIVISOR = 48
"""How many times smaller than h the first step along a direction is. All elements move together,
by a distance of ``sqrt(n)`` steps: in a net of 40,000 weights truncation is then as small as
rounding, with 24 it is four times as large. Rounding hides no error of 1e-9 of the loss."""

STEP_RATIO = 4
"""How many times smaller each further step is."""

MAX_STEPS = 4
"""How many steps along a direction are tried."""

MAX_DIRECTIONS = 3
"""How many directions are tried until two agree."""

CLEAR_FACTOR = 8
"""How many times less than rounding may do the two sides differ by, if one direction is enough."""


@dataclass(eq=False)
class NearbyValues:
    """Values of f at moved points.

    Attributes
    ----------
    f, x, h, scheme
        As the engine has been given them; x of float64. It is moved in place, and bit-identical
        after each call of f.
    magnitude : float
        The sum of the magnitudes of all that f adds up.
    own_magnitude : float
        What the rounding of the engine's differences is relative to, for each element.
    eps : float
        The relative precision of the numbers that f computes with.
    noise : float
        By how much rounding was seen to change differences of f.
    takes_any : bool
        Whether f computes with what it is given, be that x or another array of one axis.
    """

    f: Callable[[Array], Any]
    x: Array
    h: float
    scheme: Scheme
    magnitude: float
    own_magnitude: float
    eps: float = EPS
    noise: float = 0.0
    takes_any: bool = False

    def __post_init__(self) -> None:
        self.saved = self.x.copy(order="K")
        self.base = self.saved.reshape(-1)
        self.unit, self.own_unit = self.eps * self.magnitude, self.eps * self.own_magnitude
        self.spacing = MIN_STEP_ULPS * float(np.spacing(abs(self.base).max(initial=0)))

    def at(self, point: Array) -> float:
        """Return f at a point, an array (elements of x,); nan if it raises there."""
        try:
            x = point if self.takes_any else self.x
            if x is not point:
                x[...] = point.reshape(x.shape)
            with np.errstate(all="ignore"):
                return float(np.asarray(self.f(x)).reshape(()))
        except Exception as error:  # whatever it is, the quotients are not to blame
            raise_interrupt(error)
            return np.nan
        finally:
            if not self.takes_any:
                self.x[...] = self.saved

    def quotients(self, places: Places, h: float) -> Array:
        """Return f's own quotients of some elements, by calls for each."""
        with np.errstate(all="ignore"):
            looped = loop.gradient(self.f, self.x, h, places, self.scheme)
        return np.asarray(looped.reshape(-1)[places], np.float64)

    def steps(self, step: float, least: float) -> Any:
        """Return a step along a direction; for each element, if one of the least would be lost."""
        if self.spacing <= least:
            return step
        return np.maximum(step, MIN_STEP_ULPS * np.spacing(abs(self.base)))

    def note_noise(self, size: float) -> None:
        """Note by how much rounding has changed a difference."""
        if np.isfinite(size):
            self.noise = max(self.noise, size)

    def rounding_of_slopes(self, slopes: Array, *steps: float) -> Array:
        """Return by how much rounding may part slopes that were measured with two steps."""
        rounding = ROUNDINGS * self.own_unit + self.noise + 4 * EPS * abs(slopes * self.base)
        return np.asarray(rounding * sum(1 / step for step in steps))


class Verdict(Enum):
    """The result of a comparison along a direction."""

    AGREES = 1
    DIFFERS = 2
    MAY_DIFFER = 3
    UNCLEAR = 4


@dataclass(eq=False)
class Slopes:
    """Slopes of all elements, and the step at which they were measured; 0 for what is left out."""

    g: Array
    step: float


class Move(NamedTuple):
    """A move along a direction both ways: f above and below x, and by how much elements moved."""

    above: float
    below: float
    moved: Array


@dataclass(eq=False)
class Direction:
    """A direction, an array (elements of x,), and the moves along it so far, by their steps."""

    r: Array
    seen: dict[float, Move] = field(default_factory=dict)


class Comparison(NamedTuple):
    """The verdict of a direction, and the step at which it was reached.

    It is clear if the two sides differ by much less than rounding may do.
    """

    verdict: Verdict
    direction: Direction
    step: float
    is_clear: bool = False


class Directions:
    """The directions along which f has been compared with slopes.

    Parameters
    ----------
    values : NearbyValues
    one_suffices : bool
        Whether a second direction is not looked at where the first one agrees clearly.

    Attributes
    ----------
    left_out : int array
        Elements that are not moved.
    last : Comparison
        What was seen last.
    """

    def __init__(self, values: NearbyValues, *, one_suffices: bool) -> None:
        self.values = values
        self.one_suffices = one_suffices
        self.random = np.random.default_rng()
        self.left_out: Places = np.zeros(0, np.intp)
        self.drawn: list[Direction] = []
        self.last: Comparison

    def leave_out(self, places: Places) -> None:
        """Draw other directions, along which these elements are not moved."""
        is_left_out = np.zeros(self.values.base.size, bool)
        is_left_out[self.left_out] = is_left_out[places] = True
        self.left_out = np.flatnonzero(is_left_out)
        self.drawn.clear()

    def draw(self) -> Direction:
        """Return a new direction."""
        # With few passes through memory: there may be millions of elements.
        r = self.random.integers(-(2**31), 2**31, self.values.base.size, np.int32) * 2.0**-33
        r += np.copysign(0.75, r)
        r[self.left_out] = 0
        return Direction(r)

    def slopes(self, slopes: Array, step: float) -> Slopes:
        """Return slopes to compare, which were measured with this step."""
        slopes = slopes.copy()
        slopes[self.left_out] = 0
        return Slopes(slopes, step)

    def begin(self, slopes: Array, step: float) -> Slopes:
        """Return slopes to compare; a first direction, at the smallest step, counts as unclear."""
        self.drawn.append(self.draw())
        smallest = self.values.h / FIRST_STEP_DIVISOR / STEP_RATIO**MAX_STEPS
        self.last = Comparison(Verdict.UNCLEAR, self.drawn[-1], smallest)
        return self.slopes(slopes, step)

    def agree(self, slopes: Slopes, *, if_unclear: bool | None = None) -> bool | None:
        """Say whether slopes are those along two directions, or clearly those along one.

        If one remains unclear, another is drawn, unless an answer is given for that.
        """
        verdicts: list[Verdict] = []
        for k in range(MAX_DIRECTIONS):
            if k == len(self.drawn):
                self.drawn.append(self.draw())
            self.last = self.compare(self.drawn[k], slopes)
            verdict = self.last.verdict
            verdicts.append(verdict)
            if verdict is Verdict.DIFFERS:
                return False
            if verdict is not Verdict.AGREES and if_unclear is not None:
                return if_unclear
            if verdicts[-2:] == [Verdict.AGREES] * 2:
                return True
            if self.one_suffices and self.last.is_clear and len(verdicts) == 1:
                return True
        doubts = verdicts.count(Verdict.MAY_DIFFER)
        return False if doubts > verdicts.count(Verdict.AGREES) else None

    def compare(self, direction: Direction, slopes: Slopes) -> Comparison:
        """Compare slopes along a direction, with smaller steps if they seem to differ."""
        step = self.values.h / FIRST_STEP_DIVISOR
        residuals: list[float] = []
        before_tolerance = np.nan
        for _ in range(MAX_STEPS):
            residual, tolerance = self.residual(direction, step, slopes)
            # As much as a fault would be off here.
            before = residuals[-1] / STEP_RATIO if residuals else np.nan
            change = abs(residual - before)
            if abs(residual) <= tolerance:
                if change <= max(tolerance / 4, before_tolerance / STEP_RATIO):
                    return Comparison(Verdict.MAY_DIFFER, direction, STEP_RATIO * step)
                is_clear = CLEAR_FACTOR * abs(residual) <= tolerance
                return Comparison(Verdict.AGREES, direction, step, is_clear)
            in_proportion = change <= tolerance + before_tolerance / STEP_RATIO
            twice = (
                len(residuals) > 1
                and abs(residuals[-1] - residuals[-2] / STEP_RATIO) <= abs(residuals[-1]) / 4
            )
            roughly = twice and change <= abs(residual) / 4
            # The least of those before, as it would be here if it were in proportion.
            scaled = [abs(r) * STEP_RATIO ** (k - len(residuals)) for k, r in enumerate(residuals)]
            least = min(scaled, default=0)
            if (in_proportion or roughly) and abs(residual) <= 2 * least:
                return Comparison(Verdict.DIFFERS, direction, step)  # steps do not matter to noise
            residuals.append(residual)
            before_tolerance, step = tolerance, step / STEP_RATIO
        sizes = np.abs(residuals)
        if STEP_RATIO**2 * sizes.min() > sizes.max():  # the same at any step: it must be rounding
            self.values.note_noise(float(sizes.max()))
        return Comparison(Verdict.UNCLEAR, direction, step)

    def residual(self, direction: Direction, step: float, slopes: Slopes) -> tuple[float, float]:
        """Return by how much f changes beyond what slopes say; and what rounding may do.

        Elements are moved by numbers that they can hold, and slopes multiplied by just these.
        """
        values = self.values
        above, below, moved = self.move(direction, step)
        share = slopes.g * moved
        # Where f is 0 at x, it is not at the moved points.
        magnitude = abs(above) + abs(below) + float(abs(share).sum())
        rounding = ROUNDINGS * max(values.unit, values.eps * magnitude) + 3 * values.noise
        # Each quotient has the rounding of its own difference, and of the step that x can hold.
        rounding += 2 * values.own_unit / slopes.step * float(np.linalg.norm(moved))
        rounding += 2 * EPS / slopes.step * float(np.linalg.norm(share * values.base))
        return above - below - float(share.sum()), rounding

    def move(self, direction: Direction, step: float) -> Move:
        """Move x along a direction both ways, if that has not been done."""
        if step not in direction.seen:
            values = self.values
            smallest = values.h / FIRST_STEP_DIVISOR / STEP_RATIO**MAX_STEPS
            far = values.steps(step, smallest) * direction.r
            up, down = values.base + far, values.base - far
            above, below = values.at(up), values.at(down)
            up -= down
            direction.seen[step] = Move(above, below, up)
        return direction.seen[step]

    def find_fault(self, slopes: Slopes) -> int | None:
        """Halve the last direction, along which f differs, until one element is left."""
        _, direction, step, _ = self.last
        part = np.flatnonzero(direction.r)
        residual, _ = self.residual(direction, step, slopes)
        while len(part) > 1:
            halves = part[: len(part) // 2], part[len(part) // 2 :]
            r = np.zeros_like(direction.r)
            r[halves[0]] = direction.r[halves[0]]
            first, _ = self.residual(Direction(r), step, slopes)
            if not np.isfinite(first):
                return None
            of_halves = first, residual - first
            larger = int(abs(of_halves[1]) > abs(of_halves[0]))
            part, residual = halves[larger], of_halves[larger]
        return int(part[0]) if part.size else None

    def measure_noise(self, slopes: Slopes) -> None:
        """Measure by how much rounding changes f, by moves that are too small for anything else."""
        values = self.values
        tiny = 4 * np.spacing(np.maximum(abs(values.base), values.h))
        for _ in range(2):
            far = tiny * self.draw().r
            up, down = values.base + far, values.base - far
            values.note_noise(float(abs(values.at(up) - values.at(down) - slopes.g @ (up - down))))
