"""Richardson extrapolation of a smooth function with respect to one element, in single numbers.

What `fastgrad.differences.richardson` does for many elements and any function takes some hundred
operations on arrays, which for a few elements cost more than most functions. Here is the part of
it that smooth functions need. Whatever else is seen ends it: what is not certain to have the same
result is left to the arrays.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from fastgrad.differences.quotients import join
from fastgrad.differences.richardson import (
    BEND_POWERS,
    DEVIATION_FACTOR,
    DIVERGENCE_ERROR,
    ERROR_FLOOR,
    MIN_NOISE_STEPS,
    RATIO,
    REMAINDER_FACTOR,
    ROUNDING_FACTOR,
    SMALLEST_SPACING,
    SMOOTH_ERROR,
    START,
    SUFFICIENT_STEPS,
    TRUNCATION_FACTOR,
    step_at,
)
from fastgrad.interrupts import raise_interrupt
from fastgrad.schemes import central_quotient
from fastgrad.typing import Array, Places, Values

EPS = 2.0**-52
"""The precision of doubles."""

LARGEST_SIZE, SMALLEST_STEP = 1e100, 1e-100
"""Of x and f, and of the first step: nothing overflows, or is lost at the end of the range."""

STEPS = {
    k: float(step_at(np.array([k]))[0]) for k in range(-SUFFICIENT_STEPS, SUFFICIENT_STEPS + 1)
}
"""The sequence of steps, in units of the first one."""


class Remembered:
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
            found = self._values(f, x, np.array([place]), np.array([points]))
        except Exception as error:  # it is not defined there
            raise_interrupt(error)
            return None
        self.evaluations += len(points)
        self._known[place, *points] = found
        return found[0].tolist() if found.dtype == np.float64 else None

    def __call__(
        self,
        f: Callable[[Any], Any],
        x: Array,
        places: Places,
        points: Array,
        shape: tuple[int, ...] = (),
    ) -> Array:
        """Evaluate f as `Values` says, but for what is known."""
        if not self._known:
            return self._values(f, x, places, points, shape)
        rows = zip(places.tolist(), points.tolist(), strict=True)
        found = [self._known.pop((place, *row), None) for place, row in rows]
        self.evaluations -= sum(part.size for part in found if part is not None)
        return join(
            [
                self._values(f, x, places[k : k + 1], points[k : k + 1], shape)
                if part is None
                else part
                for k, part in enumerate(found)
            ]
        )


class Run(NamedTuple):
    """Neighbouring quotients, from that at step ``first`` to ``last``; what they extrapolate to.

    Attributes
    ----------
    value, truncation, round_off : float
        The limit, its estimated error, and the bound of what rounding costs.
    """

    first: int
    last: int
    value: float
    truncation: float
    round_off: float


class Limit(NamedTuple):
    """The best of all runs, and its error, with what the second best one says."""

    run: Run
    error: float


class Tableau:
    """Richardson tableau: quotients at steps with neighbouring numbers, and all runs of neighbours.

    Parameters
    ----------
    powers : pair of int
        The first two powers of h in the quotients' truncation errors.
    """

    def __init__(self, powers: tuple[int, int]) -> None:
        first, second = powers
        each = [first + k * (second - first) for k in range(SUFFICIENT_STEPS)]
        self.gains = [1 / (RATIO**-power - 1) for power in each]
        self.power = first
        self.quotients: dict[int, float] = {}
        self.noise: dict[int, float] = {}
        self.runs: list[Run] = []
        self._limits: dict[tuple[int, int], tuple[float, float]] = {}

    def add(self, k: int, quotient: float, noise: float) -> None:
        """Add the quotient at step k, larger or smaller than the others, and the runs with it.

        A run's limit follows from those of the runs without its first, and without its last
        quotient; the weights have alternating signs, so that their sizes add up likewise.
        """
        limits = self._limits
        limits[k, k] = quotient, noise
        others = [*self.quotients]
        self.quotients[k], self.noise[k] = quotient, noise
        for other in sorted(others, key=lambda other: abs(other - k)):
            first, last = min(k, other), max(k, other)
            gain = self.gains[last - first - 1]
            value, bound = limits[first + 1, last]
            before, its_bound = limits[first, last - 1]
            limit = value + (value - before) * gain
            bound += (bound + its_bound) * gain
            truncation = max(abs(limit - value), abs(limit - before))
            limits[first, last] = limit, bound
            self.runs.append(Run(first, last, limit, truncation, bound))

    def limit(self) -> Limit:
        """Return the limit by the run whose error is least.

        As `fastgrad.differences.richardson.limits` chooses it.
        """
        return self._best([run.truncation + run.round_off for run in self.runs], self._excess())

    def checked_limit(self) -> Limit | None:
        """Return the same, where no smaller steps contradict; None if larger ones know better."""
        excess, errors, rivals = self._excess(), [], []
        slack = {k: noise * (DEVIATION_FACTOR + excess) for k, noise in self.noise.items()}
        for run in self.runs:
            own = run.truncation + run.round_off
            beyond = self._unexplained(run, own, slack)
            errors.append(own + beyond)
            if beyond:
                rivals.append((run, beyond))
        found = self._best(errors, excess)
        best = found.run
        for run, beyond in rivals:
            if run.last < best.last and beyond > abs(run.value - best.value) / 2:
                return None
        return found

    def _best(self, errors: list[float], excess: float) -> Limit:
        run = self.runs[errors.index(min(errors))]
        return Limit(run, sorted(errors)[1] + excess * run.round_off)

    def _excess(self) -> float:
        """Return how many times the noise f has beyond its bound, 0 if it keeps to it."""
        excess = _tenth_excess(self.runs)
        if excess:
            best = min(self.runs, key=lambda run: run.truncation + run.round_off)
            since = min(best.first, max(self.quotients) + 1 - MIN_NOISE_STEPS)
            if since > min(self.quotients):
                excess = min(excess, _tenth_excess([r for r in self.runs if r.first >= since]))
        return excess

    def _unexplained(self, run: Run, own: float, slack: dict[int, float]) -> float:
        """Return how much farther than it may be a quotient at a smaller step is from the limit."""
        most, limit = 0.0, run.value
        for k in range(run.last + 1, max(slack) + 1):
            off = abs(self.quotients[k] - limit)
            if off > slack[k] + DEVIATION_FACTOR * own:
                ratio = RATIO**self.power
                scale = max(
                    abs(self.quotients[j] - limit) / ratio**j
                    for j in range(run.first, run.last + 1)
                )
                if off > slack[k] + DEVIATION_FACTOR * own + TRUNCATION_FACTOR * scale * ratio**k:
                    most = max(most, off)
        return most


def _tenth_excess(runs: list[Run]) -> float:
    times = sorted([run.truncation / run.round_off for run in runs])[len(runs) // 10]
    return 2 * times if times > 1 else 0.0


def derivative(
    evaluate: Callable[[list[float]], list[float] | None],
    x: float,
    base: float,
    first: float,
    tolerance: float,
) -> tuple[float, float, float] | None:
    """Return the derivative of f, its error, and the smallest step that it is made of.

    By central quotients at steps that are chosen as
    `fastgrad.differences.richardson.RichardsonTableau` chooses them.

    Parameters
    ----------
    evaluate : callable
        What returns f where the element is moved to some points; None where it is not defined.
    x : float
        Where the element is.
    base : float
        f at x.
    first : float
        The step to begin with, rounded down to a power of two.
    tolerance : float
        The relative error that is small enough.

    Returns
    -------
    triple of float, or None
        None if f does not look smooth there, or there is anything else to be looked at.
    """
    if not (abs(x) < LARGEST_SIZE and abs(base) < LARGEST_SIZE > first > SMALLEST_STEP):
        return None
    first = math.ldexp(1.0, math.frexp(first)[1] - 1)
    quotients, bends = Tableau(central_quotient.error_powers), Tableau(BEND_POWERS)
    steps: dict[int, float] = {}
    new, upwards, stalled, error = range(START), False, 0, math.inf
    value = step = math.nan
    while len(steps) < SUFFICIENT_STEPS:
        for k in new:
            steps[k] = (abs(x) + first * STEPS[k]) - abs(x)
        values = evaluate([point for k in new for point in (x + steps[k], x - steps[k])])
        if values is None or not all(abs(each) < LARGEST_SIZE for each in values):
            return None
        if (len(new) > 1 and _may_be_rounded(values[0])) or steps[new[-1]] < 2 * math.ulp(x):
            return None
        for k, above, below in zip(new, values[::2], values[1::2], strict=True):
            quotient = (above - below) / (2 * steps[k])
            magnitude = max(abs(above), abs(below)) + abs(x) * abs(quotient)
            noise = (EPS * magnitude + SMALLEST_SPACING) / steps[k]
            quotients.add(k, quotient, noise)
            bends.add(k, ((above - base) + (below - base)) / (2 * steps[k]), 2 * noise)
        found, jump = quotients.checked_limit(), bends.limit()
        if found is None or not found.run.value:
            return None
        run, new_error = found
        if run.truncation > SMOOTH_ERROR * abs(run.value):
            new_error += (REMAINDER_FACTOR - 1) * run.truncation
        new_error += max(abs(jump.run.value) - jump.error, _spike(bends, run), 0.0)
        stalled = 0 if new_error < error / 2 else stalled + 1
        # Larger steps may improve what has been found, and are not believed if they contradict.
        rejected = upwards and abs(run.value - value) > new_error + error
        if not (upwards and (rejected or new_error >= error)):
            value, error, step = run.value, new_error, steps[run.last]
        upwards = run.round_off > run.truncation and run.first == min(steps)
        relative = new_error / abs(run.value)
        near = new_error < ROUNDING_FACTOR * run.round_off
        done = rejected or relative <= max(tolerance, ERROR_FLOOR * EPS)
        enough = (stalled > 0 and near) or len(steps) == SUFFICIENT_STEPS
        done |= relative < SMOOTH_ERROR and enough
        done |= 4 * run.round_off > new_error and not upwards
        if done:
            explained = new_error <= 4 * run.round_off or relative <= DIVERGENCE_ERROR
            limited = upwards and relative > EPS**0.5
            rough = not near and stalled > 0 and relative > tolerance
            return None if limited or rough or not explained else (value, error, step)
        new = (
            range(min(steps) - 1, min(steps)) if upwards else range(max(steps) + 1, max(steps) + 2)
        )
    return None


def _spike(bends: Tableau, run: Run) -> float:
    """Return by how much f bends more where the run ends than farther away; 0 if it does not."""
    narrow, *wide = (abs(bends.quotients[k]) for k in range(run.last, run.first - 1, -1))
    return narrow - bends.noise[run.last] if narrow >= max(wide) else 0.0


def _may_be_rounded(value: float) -> bool:
    """Say whether a value of f has so few digits that f may round its values itself."""
    if not value:
        return True
    fraction, _ = math.frexp(value)
    if int(fraction * 2**53) % 2**9 == 0:
        return True
    scaled = abs(value) * 10.0 ** (12 - math.ceil(math.log10(abs(value))))
    return abs(scaled - round(scaled)) <= 2e-3
