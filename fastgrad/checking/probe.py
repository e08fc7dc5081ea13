"""A closer look at f along one element: whether its gradient is wrong, or the difference is.

One-sided difference quotients over steps from large to small tell whether they refute a claim.

With a claimed derivative c, let ``r(t) = f(x + t) - f(x) - c t``. If c is right and f smooth, then
``r(t) / t`` falls with t, until the noise of f's values, by 2 levels / t, hides it. If c is wrong
by d, it stays at d on both sides. At a kink the two sides have limits of their own, between which c
may be; next to one, the limits show at steps that do not reach it.

Where f is smooth, the mean of both sides is known much better than each: its error falls with the
square of t.

So a claim is refuted by the steps at which both sides' limits are known best, and only if no
smaller step shows something else: what a claim is wrong by at large steps alone, the function
explains, such as a kink on both sides of x, or an oscillation.

Where f follows a power of t below 1, as a root does at 0, the slope is infinite, and refutes every
claim if it is so on both sides, with one sign. Where f jumps at x, quotients on that side are
unbounded, and say nothing of the slope beside it. There the slopes between neighbouring steps take
their place, and a claim is right only if it is one of the two: between the slopes beside a jump
there is no subgradient.

Where f's domain ends next to x, quotients at larger steps are those of one side alone. Between x
and the edge central ones judge, unless noise hides them; then the other side does, if its quotients
have a limit: those of a root or a logarithm still grow.

The noise at x is not that at ``x + t``, where f may add up larger terms; where these cancel, its
values do not tell. So it is measured around the points that would refute a claim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from fastgrad.checking.noise import (
    EXTRAPOLATION_SHARE,
    FOURTH_DIFFERENCE,
    MIN_NOISE,
    STEP_MULTIPLES,
    Noise,
    Path,
    element_path,
    extrapolate,
    noise_along,
    noise_around,
    spread_over,
)
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.typing import Array

Kind = Literal["smooth", "kink", "jump", "step", "unclear"]

ROUGHNESS_FACTOR = 16.0
"""Times the noise from which a fourth difference shows that f is not smooth over the points."""

MAX_STEP_FACTOR = 16.0
"""Times h that the largest of the steps is at which one-sided quotients are taken."""

MAX_SMOOTH_STEP_FACTOR = 256.0
"""The same where f is smooth, but for noise, at h, and as smooth at larger steps."""

CLEAR_SHARE = 0.125
"""Share of the slopes that a quotient next to the edge of f's domain may be wrong by to judge."""

MIN_GROWTH_FACTOR = 16.0
"""Times the noise that a quotient's growth from one step to the next has to be to be seen."""

MIN_GROWTH_RATIO = 0.8
"""Ratio of neighbouring growths from which quotients have no limit in sight: a logarithm's is 1."""

SINGLE_KINK_SHARE = 0.6
"""Share of the second differences that a single kink has, and a curve of degree 5 has not."""


@dataclass(frozen=True)
class Probe:
    """What f does near x along a path.

    Attributes
    ----------
    kind : {"smooth", "kink", "jump", "step", "unclear"}
        Smooth over twice the step to both sides; or with a kink there; or with a jump at x; or not
        smooth at this step without either, so that only a smaller step shows the derivative; or
        such that one-sided quotients contradict the claim, but not those at the smallest steps.
    analytic : float
        What is claimed.
    value, error : float
        The derivative, and how wrong it may be; at a kink the value next to the claim that lies
        between the one-sided derivatives.
    below, above : float
        The one-sided difference quotients; at a jump the slopes beside it.
    step : float
        By which step they were taken.
    contradicts : bool
        Whether what is claimed cannot be the derivative, nor lie between the one-sided ones.
    distance : float
        Where the kink is, as seen from x; 0 if it is at x, or there is none.
    """

    kind: Kind
    analytic: float
    value: float
    error: float
    below: float
    above: float
    step: float
    contradicts: bool
    distance: float = 0.0

    @property
    def is_smooth(self) -> bool:
        """Whether f has a derivative at x, as far as it can be told."""
        return self.kind in ("smooth", "step")

    @property
    def agrees(self) -> bool:
        """Whether the claim is that derivative."""
        return self.is_smooth and not self.contradicts


def probe_element(
    subject: GradientUnderTest, part: Part, place: int, analytic: float, noise: Noise, h: float
) -> Probe:
    """Return whether f contradicts a claimed derivative, from calls along one element.

    Nothing is contradicted before the noise of f has been measured along this element, too.
    """
    step = subject.steps(part, h)
    h = step if isinstance(step, float) else float(step.reshape(-1)[place])
    path = element_path(subject, part, place, analytic)
    found = probe(path, noise.level, h, MAX_STEP_FACTOR * h)
    if found.contradicts:
        own = noise_along(path, h)
        if found.kind == "smooth":
            own = max(own, noise_around(path, found.step))
        if own > noise.level:
            found = probe(path, own, h, MAX_STEP_FACTOR * h)
    if found.kind == "step" and (distance := _kink(path, h)) is not None:
        return replace(found, kind="kink", distance=distance)
    return found


def probe(path: Path, level: float, h: float, top: float, slack: float = 0.0) -> Probe:
    """Return whether f contradicts a claimed derivative, from calls along a path.

    From f at the multiples of h / 2 up to 2 h the central quotients are extrapolated. If the fourth
    differences are no larger than the noise, f is smooth there, and these quotients judge. What
    hides below a fourth difference D, such as a small kink, changes them by 2 D / h at most.

    If f is not smooth, one-sided quotients at falling steps enclose the derivative, if there is
    one, and what backpropagation may return at a kink: a number between the two one-sided
    derivatives.

    Parameters
    ----------
    path : Path
    level : float
        By how much a value of f may be wrong.
    h : float
        The step.
    top : float
        The largest step of one-sided quotients.
    slack : float
        What the claim may be wrong by, besides.
    """
    offsets, values = path(_grid(path, h))
    with np.errstate(all="ignore"):
        smooth = _smooth(path.analytic, offsets, values, level, slack)
    if smooth is None:
        return probe_up_to_edge(path, level, top, slack)
    found, is_certain = smooth
    if is_certain:
        return found
    sides = probe_sides(path, level, _farthest(path, level, h), slack)
    return sides if sides.contradicts else found


def probe_up_to_edge(path: Path, level: float, top: float, slack: float = 0.0) -> Probe:
    """Return what one-sided quotients tell, and others where f's domain ends next to x.

    Between x and the edge central quotients tell it, if noise does not hide them; what the sides
    tell has to agree with these. Otherwise the sides tell it, unless f's slope still grows there.
    """
    sides, h = probe_sides(path, level, top, slack), top / MAX_STEP_FACTOR

    def has_values(step: float) -> bool:
        return bool(np.isfinite(path(2 * step * np.array([-1.0, 1.0]))[1]).all())

    least = 8 * path.least
    if not (0 < least < h and has_values(least)) or has_values(h):
        return sides
    inside, outside = np.log2(least), np.log2(h)
    while outside - inside > 1:
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if has_values(2.0**middle) else (inside, middle)
    step = float(2.0 ** np.floor(inside))  # x goes by such ones without rounding
    with np.errstate(all="ignore"):
        # From its best step down to the edge a quotient may change by as much at each step.
        left = max(1.0, float(np.log(sides.step / step) / np.log(RATIO)))
        is_open = abs(path.analytic - sides.value) <= (1 + left) * sides.error
        is_open &= np.isnan(sides.below) != np.isnan(sides.above)
        while step >= least:
            offsets, values = path(_grid(path, step))
            smooth = _smooth(path.analytic, offsets, values, level, slack)
            size = max(abs(path.analytic), *abs(np.diff(values) / np.diff(offsets)))
            if smooth is not None and smooth[0].error <= CLEAR_SHARE * size:
                found = smooth[0]
                agrees = abs(sides.value - found.value) <= found.error
                return sides if sides.contradicts and agrees and not is_open else found
            if smooth is not None or not level / step <= size:
                break
            step /= RATIO
        if sides.contradicts and (is_open or _may_grow(path, level, h)):
            return replace(sides, kind="unclear", contradicts=False)
    return sides


def _may_grow(path: Path, level: float, h: float) -> bool:
    """Say whether a claim is a slope to which f's quotients may still grow at smaller steps."""
    steps = h * RATIO ** -np.arange(MAX_STEPS)
    steps = steps[steps > 8 * path.least]
    for way in (-1.0, 1.0):
        lengths, values = path(np.append(0.0, way * steps))
        quotients = (values[1:] - values[0]) / lengths[1:]
        growths = np.diff(quotients)
        clear = np.flatnonzero(abs(growths) * steps[1:] > MIN_GROWTH_FACTOR * level)[-POWER_STEPS:]
        # Those of a smooth function fall by the ratio of the steps.
        if len(clear) == POWER_STEPS and (np.diff(clear) == 1).all():
            last, before = growths[clear[1:]], growths[clear[:-1]]
            if (last / before > MIN_GROWTH_RATIO).all():
                end = quotients[clear[-1] + 1]
                return bool((path.analytic - end) * last[-1] >= 0)
    return False


def _grid(path: Path, h: float) -> Array:
    """Return nine offsets around x, at least half a step apart."""
    return max(h / 2, 8 * path.least) * np.arange(-4, 5)


def _smooth(
    analytic: float, offsets: Array, values: Array, level: float, slack: float
) -> tuple[Probe, bool] | None:
    """Return what central quotients tell if f is smooth there, and whether that is certain.

    It is not if only a kink that the noise may hide explains what the claim differs by.
    """
    unit = unit_of(values)
    f, level = values / unit, level / unit
    rough = float(np.max(abs(np.convolve(f, FOURTH_DIFFERENCE, mode="valid"))))
    if not rough <= ROUGHNESS_FACTOR * level:
        return None
    (far, near), (below, above) = (
        [(f[j] - f[i]) / (offsets[j] - offsets[i]) for i, j in pairs]
        for pairs in (((0, 8), (2, 6)), ((2, 4), (4, 6)))
    )
    h = float(offsets[6] - offsets[2]) / 2
    value, truncation, round_off = extrapolate(near, far, h, level)
    least = EXTRAPOLATION_SHARE * truncation + round_off
    told = unit * np.array([value, least + 2 * rough / h, below, above], float)
    if not np.isfinite(told).all():
        return None
    value, error, below, above = told.tolist()
    contradicts = not abs(analytic - value) <= error + slack
    found = Probe("smooth", analytic, value, error, below, above, h, contradicts)
    return found, contradicts or bool(abs(analytic - value) <= unit * least + slack)


def probe_sides(path: Path, level: float, top: float, slack: float = 0.0) -> Probe:
    """Return what one-sided quotients tell, from the top step down."""
    _, (here, *ends) = path(top * np.array([0.0, -1.0, 1.0]))
    unit = unit_of(np.array([here, *ends]))

    def remainder(offsets: Array) -> tuple[Array, Array]:
        lengths, values = path(offsets)
        return lengths, (values - here) / unit - path.analytic / unit * lengths

    with np.errstate(all="ignore"):
        sides = one_sided(remainder, level / unit, top, 4 * path.least)
        value, below, above = (
            float(path.analytic + unit * rest) for rest in (sides.closest, sides.below, sides.above)
        )
        error = float(unit * sides.smallest_error)
        refuted = sides.refuted and not abs(unit * sides.closest) <= slack
    kind: Kind = "step"
    if sides.is_excused:
        kind = "unclear"
    elif sides.jumps:
        kind = "jump"
    elif sides.has_kink:
        kind = "kink"
    wrong = refuted or not np.isfinite(sides.closest)
    return Probe(kind, path.analytic, value, error, below, above, sides.step, wrong)


def _farthest(path: Path, level: float, h: float) -> float:
    """Return the largest step over which f is smooth but for this noise; twice h if none is."""
    step = MAX_SMOOTH_STEP_FACTOR * h
    while step > 4 * h and spread_over(path, step) > 2 * level:
        step /= 4
    return max(step, 2 * h)


def unit_of(values: Array) -> float:
    """Return a power of two of the finite values' size, at which nothing over- or underflows."""
    size = float(np.max(abs(values), where=np.isfinite(values), initial=0.0))
    return float(2.0 ** np.floor(np.log2(max(size, MIN_NOISE / np.finfo(np.float64).eps))))


def _kink(path: Path, h: float) -> float | None:
    """Return where a kink is, if the second differences gather in one place, also seen closer."""
    offsets, values = path(_grid(path, h))
    for _ in range(2):
        bends = abs(np.diff(np.diff(values)))
        pairs = bends[:-1] + bends[1:]
        most = int(np.argmax(pairs))
        if not pairs[most] >= SINGLE_KINK_SHARE * bends.sum():
            return None
        middle = float(offsets[most + 1] + offsets[most + 2]) / 2
        width = float(offsets[1] - offsets[0])
        offsets, values = path(middle + 0.4 * width * np.arange(-4, 5))
    return middle


Limit = tuple[float, float, int]
"""A limit, how wrong it may be, and from which of the steps it comes."""

RATIO = 8.0
"""Of neighbouring steps."""

FINER_RATIO = 2.0
"""The same where kinks are at x or next to it."""

FINER_STEPS = 12
"""How many of these there are before noise is as large as quotients."""

MAX_STEPS = 40
"""Steps at most."""

MIN_LIMIT_FACTOR = 8.0
"""Times its noise that a limit has to be, for a quotient to tell whether it is left."""

POWER_STEPS = 4
"""Of the smallest steps at which noise is small, over which f follows a power of the step."""

MIN_REST_FACTOR = 64.0
"""Times its noise that what is left of f has to be for its power to be told."""

MAX_JUMP_POWER = 0.01
"""Largest power of the step that is a jump: what is left of f stays the same."""

MAX_VERTICAL_POWER = 0.9
"""Largest power at which the slope is infinite, as that of a root is: 1/2."""

MIN_CONVERGING_POWER = 1.15
MAX_CONVERGING_POWER = 1.85
"""Powers of the step between which what is left of f falls slowly where the claim is right."""

MAX_POWER_CHANGE = 0.05
"""By how much the power may change over these steps."""

NOISE_FACTOR = 8.0
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
    jumps : bool
        Whether f jumps at x, so that the limits are those of the slopes beside it.
    is_excused : bool
        Whether the limits contradict the claim, but quotients at smaller steps do not, by kinks
        next to x, or by noise.
    """

    below: float
    above: float
    errors: tuple[float, float]
    step: float
    refuted: bool
    both: float = np.nan
    error: float = np.inf
    jumps: bool = False
    is_excused: bool = False

    @property
    def closest(self) -> float:
        """What lies between the limits and is next to the claim: 0, if it is between them.

        At a jump the limit that is next to it.
        """
        if self.error <= sum(self.errors):
            return self.both
        limits = [limit for limit in (self.below, self.above) if not np.isnan(limit)]
        if not limits:
            return float("nan")
        if self.jumps:
            return min(limits, key=abs)
        return float(np.clip(0.0, min(limits), max(limits)))

    @property
    def smallest_error(self) -> float:
        """What the closest limit may be wrong by."""
        known = [error for error in self.errors if not np.isnan(error)]
        return float(np.nanmin([self.error, sum(known) if known else np.inf]))

    @property
    def is_smooth(self) -> bool:
        """Whether f has no kink or jump at x."""
        return not (self.has_kink or self.jumps)

    @property
    def has_kink(self) -> bool:
        """Whether the limits differ by more than twice their errors."""
        return not self.jumps and _differ(self.below, self.above, sum(self.errors))


def one_sided(
    remainder: Callable[[Array], tuple[Array, Array]], noise: float, top: float, least: float
) -> OneSided:
    """Return what the one-sided quotients tell, from steps that fall from the top one.

    Parameters
    ----------
    remainder : callable
        ``t -> (t, r(t))`` of many t, with those that x really goes; nan where f has no value.
    noise : float
        By how much a value may be wrong.
    top, least : float
        The largest and the smallest step.
    """
    with np.errstate(all="ignore"):
        found, largest = _told(remainder, noise, top, least, RATIO)
        if found.refuted or found.jumps or not (found.has_kink or found.is_excused) or not largest:
            return found
        # Kinks next to x leave few steps between them and those that noise hides.
        start = min(top, 2 * noise * FINER_RATIO**FINER_STEPS / largest)
        finer, _ = _told(remainder, noise, start, least, FINER_RATIO)
    return finer if finer.refuted else found


def _told(
    remainder: Callable[[Array], tuple[Array, Array]],
    noise: float,
    top: float,
    least: float,
    ratio: float,
) -> tuple[OneSided, float]:
    """Return what steps of this ratio tell, and the largest quotient."""
    steps: list[float] = []
    rests: tuple[list[float], list[float]] = ([], [])
    lengths: tuple[list[float], list[float]] = ([], [])
    hidden: list[float] = []
    lost = 0
    for k in range(MAX_STEPS):
        step = top / ratio**k
        if step < least or lost == 2:
            break
        for side, (length, rest) in enumerate(
            zip(*remainder(np.array([-step, step])), strict=True)
        ):
            rests[side].append(float(rest) if length else float("nan"))
            lengths[side].append(float(length))
        steps.append(step)
        shortest = min(abs(side[-1]) for side in lengths)
        hidden.append(2 * noise / (shortest or float("nan")))
        seen = [abs(np.array(r[-2:]) / t[-2:]) for r, t in zip(rests, lengths, strict=True)]
        lost = lost + 1 if hidden[-1] > NOISE_FACTOR * np.nan_to_num(seen, nan=np.inf).max() else 0
    sides = [np.array(pair) for pair in zip(rests, lengths, strict=True)]
    powers = [_power(r, noise, ratio) for r, _ in sides]
    jumps = any(power <= MAX_JUMP_POWER for power in powers)
    below, above = (
        _without_far_ends(
            np.append(np.nan, np.diff(r) / np.diff(t)) if power <= MAX_JUMP_POWER else r / t
        )
        for (r, t), power in zip(sides, powers, strict=True)
    )
    for quotients, power in zip((below, above), powers, strict=True):
        if MAX_JUMP_POWER < power < MAX_VERTICAL_POWER:
            clear = np.flatnonzero(abs(quotients) > MIN_REST_FACTOR * np.array(hidden))
            quotients[clear[-1] :] = np.copysign(np.inf, quotients[clear[-1]])
    errors = np.array(hidden)
    if jumps:
        errors *= ratio / (ratio - 1)
    finite = np.abs(np.concatenate([below, above]))
    largest = float(np.max(finite[np.isfinite(finite)], initial=0))
    measured: set[int] = set()
    while True:
        limits = _told_by_both(_limits(below, above, errors, jumps, ratio), below, above)
        if limits[0] is None and limits[1] is None:
            return OneSided(np.nan, np.nan, (np.nan, np.nan), least, False), largest
        excuses = _excuses(below, above, limits, errors, jumps)
        if excuses is None:
            break
        # Of limits all, then of excuses one by one, for without it there may be none.
        left = {limit[2] for limit in limits if limit is not None} - measured
        asked = left or set(sorted(excuses - measured)[:1])
        if not asked:
            break
        for k in asked:
            measured.add(k)
            # The excuses may be small by chance, but fall with the step.
            for step in (steps[k],) if left else (steps[k], steps[k] / ratio):
                if step * (STEP_MULTIPLES[1] - STEP_MULTIPLES[0]) >= least:  # x has points for that
                    errors[k] = np.fmax(errors[k], 2 * noise_around(remainder, step) / steps[k])
    if excuses == set():
        limits = _converging(limits, (below, above), powers, errors)
        excuses = _excuses(below, above, limits, errors, jumps)
    lower, upper, both = limits
    none = (float("nan"), float("nan"), 0)
    (first, first_error, i), (second, second_error, j) = lower or none, upper or none
    step = steps[min(i, j)] if lower and upper else steps[max(i, j)]
    mean, error = both[:2] if both else (float("nan"), float("inf"))
    found = OneSided(
        first, second, (first_error, second_error), step, excuses == set(), mean, error, jumps,
        bool(excuses),
    )  # fmt: skip
    return found, largest


def _power(rests: Array, noise: float, ratio: float) -> float:
    """Return the power of the step that what is left of f follows at the smallest steps.

    Nan if it follows none: f is then lost in its noise, or too few steps are clear of it.
    """
    clear = rests[(abs(rests) > MIN_REST_FACTOR * noise) & np.isfinite(rests)][-POWER_STEPS:]
    if len(clear) < POWER_STEPS or np.ptp(np.sign(clear)):
        return float("nan")
    powers = np.log(clear[:-1] / clear[1:]) / np.log(ratio)
    return float(powers.mean()) if np.ptp(powers) < MAX_POWER_CHANGE else float("nan")


def _without_far_ends(quotients: Array) -> Array:
    """Return nan in place of what is infinite at a larger step than others: there f ends."""
    finite = np.flatnonzero(np.isfinite(quotients))
    if finite.size:
        ends = np.isinf(quotients)
        ends[finite[-1] :] = False
        quotients[ends] = np.nan
    return quotients


def _limits(
    below: Array, above: Array, hidden: Array, jumps: bool, ratio: float
) -> list[Limit | None]:
    """Return the limits of both sides, and that of their mean, which means nothing at a jump."""
    both = None if jumps else _limit_of_both(below, above, hidden, ratio)
    return [_limit(below, hidden), _limit(above, hidden), both]


def _converging(
    limits: list[Limit | None], sides: tuple[Array, Array], powers: list[float], hidden: Array
) -> list[Limit | None]:
    """Return the limits, 0 for a side's quotients that fall by a power of the step, as t**0.2.

    However slowly they do, that is their limit. Where f ends at x, for nothing else is known there;
    of smooth functions, whose remainders fall with the square of the step, noise tells the rest.
    """
    found = [*limits]
    for k, (quotients, power) in enumerate(zip(sides, powers, strict=True)):
        clear = np.flatnonzero(abs(quotients) > MIN_REST_FACTOR * hidden)
        is_slow = MIN_CONVERGING_POWER < power < MAX_CONVERGING_POWER
        if is_slow and limits[k] is not None and np.isnan(sides[1 - k][clear[-1]]):
            found[k] = 0.0, float(abs(quotients[clear[-1]])), int(clear[-1])
            found[2] = None
    return found


def _told_by_both(limits: list[Limit | None], below: Array, above: Array) -> list[Limit | None]:
    """Return the limits without that of a side which tells nothing, for f ends next to x there.

    It has no value at the step from which the other side's limit comes, and is lost in the noise at
    those at which it has one.
    """
    lower, upper, both = limits
    if lower is None or upper is None:
        return limits
    if np.isnan(below[upper[2]]) and abs(lower[0]) <= lower[1]:
        return [None, upper, None]
    if np.isnan(above[lower[2]]) and abs(upper[0]) <= upper[1]:
        return [lower, None, None]
    return [lower, upper, both]


def _excuses(
    below: Array, above: Array, limits: list[Limit | None], hidden: Array, jumps: bool
) -> set[int] | None:
    """Return the steps at which quotients excuse a claim that their limits contradict.

    None where the limits do not contradict it; none at all where it is refuted: by both sides, or
    by their mean, which means nothing at a kink; at a jump by each side alone.
    """
    lower, upper, both = limits
    sides = [(below, lower), (above, upper)]
    if jumps:
        found = [_excuses_of([side], hidden) for side in sides if side[1] is not None]
        known = [each for each in found if each is not None]
        if len(known) < len(found):
            return None
        # A jump that is next to x makes the slope between two steps large, and no other one.
        return {k for each in known for k in each if {k - 1, k + 1} & each}
    found = [_excuses_of(sides, hidden)]
    is_kink = lower and upper and _differ(lower[0], upper[0], lower[1] + upper[1])
    if both is not None and not is_kink:
        found.append(_excuses_of([((below + above) / 2, both)], hidden))
    known = [each for each in found if each is not None]
    if not known or not all(known):
        return set() if known else None
    return set().union(*known)


def _differ(below: float, above: float, error: float) -> bool:
    """Say whether the limits of both sides differ by more than twice their errors together."""
    return bool(abs(above - below) > 2 * error)


def _limit(quotients: Array, hidden: Array) -> Limit | None:
    """Return a side's quotient where it is known best, with its error, and at which step."""
    if np.isinf(quotients).any():
        first = int(np.argmax(np.isinf(quotients)))
        return float(quotients[first]), 0.0, first
    # Of a smooth function a quotient is wrong by less than what the larger step changes it by.
    return _best(quotients, hidden[1:] + abs(np.diff(quotients)))


def _limit_of_both(below: Array, above: Array, hidden: Array, ratio: float) -> Limit | None:
    """Return the mean of both sides where it is known best, with its error, and at which step.

    A kink of size J at x makes the difference of the sides J at every step, where that of a smooth
    function falls with the step.
    """
    mean, difference = (below + above) / 2, above - below
    kink = abs(ratio * difference[1:] - difference[:-1]) / (ratio - 1)
    return _best(mean, hidden[1:] + abs(np.diff(mean)) / 2 + kink)


def _best(quotients: Array, errors: Array) -> Limit | None:
    """Return the quotient with the smallest error; that of the first one is not known."""
    known = np.where(np.isfinite(errors), errors, np.inf)
    if not np.isfinite(known).any():
        return None
    best = int(np.argmin(known))
    return float(quotients[best + 1]), float(known[best]), best + 1


def _excuses_of(sides: list[tuple[Array, Limit | None]], hidden: Array) -> set[int] | None:
    """Return the steps at which quotients say something else than limits that differ from 0.

    None if not all limits differ, to the same side.
    """
    known = [(quotients, *limit) for quotients, limit in sides if limit is not None]
    signs = {np.sign(value) if abs(value) > error else 0.0 for _, value, error, _ in known}
    sign = signs.pop()
    if signs or not sign:
        return None
    nearest = min(abs(value) for _, value, _, _ in known)
    excuses: set[int] = set()
    for quotients, value, _, best in known:
        smaller = sign * quotients[best + 1 :] + hidden[best + 1 :] < nearest / 2
        excuses.update((best + 1 + np.flatnonzero(smaller)).tolist())
        excuses.update(_open_steps(quotients, value, best, hidden))
    return excuses


def _open_steps(quotients: Array, limit: float, best: int, hidden: Array) -> list[int]:
    """Return the last clear steps, if quotients leave their limit and still change there.

    By kinks so close to x that noise hides what is nearer.
    """
    clear = np.flatnonzero(hidden < abs(limit) / MIN_LIMIT_FACTOR)
    if not clear.size or clear[-1] <= best:
        return []
    last, before = quotients[clear[-1]], quotients[clear[-1] - 1]
    change = hidden[clear[-1]] + hidden[clear[-1] - 1]
    is_open = abs(last - limit) > abs(limit) / 8 and abs(last - before) > change
    return [int(clear[-1]) - 1, int(clear[-1])] if is_open else []
