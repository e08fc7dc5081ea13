"""One-sided difference quotients over steps from large to small, and whether they refute a claim.

With a claimed derivative c, let ``r(t) = f(x + t) - f(x) - c t``. If c is right and f smooth, then
``r(t) / t`` falls with t, until the noise of f's values, by 2 levels / t, hides it. If c is wrong
by d, it stays at d on both sides. At a kink the two sides have limits of their own, between which c
may be; next to one, the limits show at steps that do not reach it.

Where f is smooth, the mean of both sides is known much better than each: its error falls with the
square of t.

So a claim is refuted by the steps at which both sides' limits are known best, and only if no
smaller step shows something else: what a claim is wrong by at large steps alone, the function
explains, such as a kink on both sides of x, or an oscillation.

The noise at x is not that at ``x + t``, where f may add up larger terms; where these cancel, its
values do not tell. So it is measured around the points that would refute a claim.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.noise import AROUND, DEVIATIONS, deviation

Array = NDArray[np.floating]

Limit = tuple[float, float, int]
"""A limit, how wrong it may be, and from which of the steps it comes."""

RATIO = 8.0
"""Of neighbouring steps."""

RUNGS = 40
"""Steps at most."""

CLEAR = 8.0
"""Times its noise that a limit has to be, for a quotient to tell whether it is left."""

LOST = 8.0
"""Times what a quotient is that its noise has to be, for smaller steps to tell nothing."""


@dataclass(frozen=True)
class OneSided:
    """What one-sided quotients tell of a claim; all as the difference to it.

    Attributes
    ----------
    below, above : float
        The limits from both sides; nan where f has none.
    errors : pair of float
        How wrong these may be.
    step : float
        The larger of the two steps that they come from.
    refuted : bool
        Whether 0 is not between them, by more than the errors.
    both, error : float
        The mean of both sides, where it is known best, and how wrong it may be: by a kink, too.
    """

    below: float
    above: float
    errors: tuple[float, float]
    step: float
    refuted: bool
    both: float = np.nan
    error: float = np.inf

    @property
    def closest(self) -> float:
        """What lies between the limits and is next to the claim: 0, if it is between them."""
        if self.error <= sum(self.errors):
            return self.both
        limits = [limit for limit in (self.below, self.above) if not np.isnan(limit)]
        if not limits:
            return float("nan")
        return float(np.clip(0.0, min(limits), max(limits)))

    @property
    def smallest_error(self) -> float:
        """What the closest limit may be wrong by."""
        return float(np.nanmin([self.error, sum(self.errors), np.inf]))

    @property
    def has_kink(self) -> bool:
        """Whether the limits differ by more than twice their errors."""
        return bool(abs(self.above - self.below) > 2 * sum(self.errors))


def one_sided(
    remainder: Callable[[float], tuple[float, float]], noise: float, top: float, least: float
) -> OneSided:
    """Return what the one-sided quotients tell, from steps that fall from the top one.

    Parameters
    ----------
    remainder : callable
        ``t -> (t, r(t))``, with the t that x really goes; nan where f has no value.
    noise : float
        By how much a value may be wrong.
    top, least : float
        The largest and the smallest step.
    """
    steps: list[float] = []
    sides: tuple[list[float], list[float]] = ([], [])
    hidden: list[float] = []
    lost = 0
    with np.errstate(all="ignore"):
        for k in range(RUNGS):
            step = top / RATIO**k
            if step < least or lost == 2:
                break
            lengths = []
            for side, t in zip(sides, (-step, step), strict=True):
                length, rest = remainder(t)
                side.append(rest / length if length else float("nan"))
                lengths.append(abs(length))
            steps.append(step)
            hidden.append(2 * noise / (min(lengths) or float("nan")))
            seen = np.nan_to_num([abs(s) for side in sides for s in side[-2:]], nan=np.inf)
            lost = lost + 1 if hidden[-1] > LOST * seen.max() else 0
        below, above = np.array(sides[0]), np.array(sides[1])
        errors = np.array(hidden)
        refuted = True
        while refuted:
            limits = _limits(below, above, errors)
            if limits[0] is None and limits[1] is None:
                return OneSided(np.nan, np.nan, (np.nan, np.nan), least, False)
            refuted = _are_refuted(below, above, limits, errors)
            if refuted:
                rise = np.zeros(len(errors))
                for k in {limit[2] for limit in limits if limit is not None}:
                    there = 2 * _noise_at(remainder, steps[k], least) / steps[k]
                    rise[k] = np.fmax(there - errors[k], 0)
                errors += rise
                limits = [
                    limit and (limit[0], limit[1] + float(rise[limit[2]]), limit[2])
                    for limit in limits
                ]
                if _are_refuted(below, above, limits, errors):
                    break
        lower, upper, both = limits
    none = (float("nan"), float("nan"), 0)
    (first, first_error, i), (second, second_error, j) = lower or none, upper or none
    step = steps[min(i, j)] if lower and upper else steps[max(i, j)]
    mean, error = both[:2] if both else (float("nan"), float("inf"))
    return OneSided(first, second, (first_error, second_error), step, refuted, mean, error)


def _noise_at(
    remainder: Callable[[float], tuple[float, float]], step: float, least: float
) -> float:
    """Return how exact values are a step away on either side; 0 where x has no points for that."""
    if step * (AROUND[1] - AROUND[0]) < least:
        return 0.0
    points = step * AROUND
    spreads = []
    for side in (-1, 1):
        lengths, rests = np.array([remainder(side * t) for t in points]).T
        # What rounding x + t changes is no noise.
        slopes = np.gradient(rests, lengths)
        spreads.append(deviation(rests - slopes * (lengths - side * points)))
    return DEVIATIONS * max(spreads)


def _limits(below: Array, above: Array, hidden: Array) -> list[Limit | None]:
    """Return the limits of both sides, and that of their mean."""
    return [_limit(below, hidden), _limit(above, hidden), _limit_of_both(below, above, hidden)]


def _are_refuted(below: Array, above: Array, limits: list[Limit | None], hidden: Array) -> bool:
    """Return whether the limits of both sides refute the claim, or that of their mean does."""
    lower, upper, both = limits
    return _is_refuted([(below, lower), (above, upper)], hidden) or (
        both is not None and _is_refuted([((below + above) / 2, both)], hidden)
    )


def _limit(quotients: Array, hidden: Array) -> Limit | None:
    """Return a side's quotient where it is known best, with its error, and at which step."""
    error = np.full(len(quotients), np.inf)
    # Of a smooth function a quotient is wrong by a seventh of what the larger step changes it by.
    error[1:] = hidden[1:] + abs(np.diff(quotients))
    error[~np.isfinite(error)] = np.inf
    if not np.isfinite(error).any():
        return None
    best = int(np.argmin(error))
    return float(quotients[best]), float(error[best]), best


def _limit_of_both(below: Array, above: Array, hidden: Array) -> Limit | None:
    """Return the mean of both sides where it is known best, with its error, and at which step.

    A kink of size J at x makes the difference of the sides J at every step, where that of a smooth
    function falls with the step.
    """
    mean, difference = (below + above) / 2, above - below
    error = np.full(len(mean), np.inf)
    kink = abs(RATIO * difference[1:] - difference[:-1]) / (RATIO - 1)
    error[1:] = hidden[1:] + abs(np.diff(mean)) / 2 + kink
    error[~np.isfinite(error)] = np.inf
    if not np.isfinite(error).any():
        return None
    best = int(np.argmin(error))
    return float(mean[best]), float(error[best]), best


def _is_refuted(sides: list[tuple[Array, Limit | None]], hidden: Array) -> bool:
    """Return whether all limits differ from 0 to the same side, and no smaller step says more."""
    known = [(quotients, *limit) for quotients, limit in sides if limit is not None]
    signs = {np.sign(value) if abs(value) > error else 0.0 for _, value, error, _ in known}
    sign = signs.pop()
    if signs or not sign:
        return False
    if any(_is_open(quotients, value, best, hidden) for quotients, value, _, best in known):
        return False
    nearest = min(abs(value) for _, value, _, _ in known)
    return all(
        bool(np.all(~(sign * quotients[best + 1 :] + hidden[best + 1 :] < nearest / 2)))
        for quotients, _, _, best in known
    )


def _is_open(quotients: Array, limit: float, best: int, hidden: Array) -> bool:
    """Return whether quotients leave their limit and still change at the last clear step.

    By kinks so close to x that noise hides what is nearer.
    """
    clear = np.flatnonzero(hidden < abs(limit) / CLEAR)
    if not clear.size or clear[-1] <= best:
        return False
    last, before = quotients[clear[-1]], quotients[clear[-1] - 1]
    change = hidden[clear[-1]] + hidden[clear[-1] - 1]
    return bool(abs(last - limit) > abs(limit) / 8 and abs(last - before) > change)
