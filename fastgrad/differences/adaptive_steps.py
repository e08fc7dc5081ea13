"""Adaptive steps: difference quotients at falling or growing steps, until their limit is found.

An `Extrapolation` chooses the steps of many elements of x at once, for any function.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgrad.differences.bounds import first_steps
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import (
    Rows,
    as_floats,
    moved,
    precision,
    representable,
    values_where_defined,
)
from fastgrad.differences.richardson import (
    RATIO,
    TRUNCATION_FACTOR,
    Limits,
    Rivals,
    limits,
    step_at,
)
from fastgrad.differences.rounding import JUMP_CALLS, are_short, is_flat, jumps, resolution
from fastgrad.schemes import Scheme
from fastgrad.typing import Array, Flags, Moves, Places, Report, Values

EPS = 2.0**-52
"""The precision of doubles."""

FIRST_STEP = 0.25
"""The first step in units of abs(x); small enough to stay on x's side of a pole at 0."""

SHRINK_FACTOR = 2.0**-16
"""By how much the first step is made smaller where the quotients at larger ones do not converge."""

BEND_POWERS = 1, 3
"""The first two powers of h in half the difference of f's slopes on both sides of x."""

FIRST_STEPS = 4
"""Steps that are tried at once: two are extrapolated, a third tells how well, a fourth how fast."""

FIRST_STEPS_BY_STACKS = 7
"""The same where a call of f serves several points: most elements take as many in all."""

SUFFICIENT_STEPS = 8
"""Steps after which an error that is small already is left as it is."""

SMALLEST_SPACING = 5e-324
"""The spacing of the smallest numbers."""

ROUNDING_FACTOR = 100
"""How many times its rounding error a derivative's error is where nothing else limits it."""

MAX_STEPS = 17
"""Steps after which any is."""

MAX_STALLED_STEPS = 6
"""Steps without a better estimate after which a function that does not converge is left."""

SMOOTH_ERROR = 1e-6
"""A relative error from which the steps are small enough for f to look smooth."""

DIVERGENCE_ERROR = 1e-3
"""A relative error from which the first step was probably of the wrong size."""

REMAINDER_FACTOR = 4
"""How many times the last difference a slow series may still be off: for powers of h as low as 1/2
the rest is 1 / (1 - 2**-0.5) = 3.4 times as large."""

MIN_ERROR_EPS = 8
"""Rounding errors of the derivative itself that nobody needs to get below."""

GROWTH_STEPS = 8
"""Steps over which quotients grow, without an end in sight, where a slope is infinite."""

MIN_GROWTH_RATIO = 0.95
"""How many times as large as the growth before a growth is that leads to no limit."""

MAX_JUMP = 1e-2
"""The largest jumps, relative to f, that are taken for rounded values."""

DROWNING_SHARE = 0.01
"""Of the largest quotient that the rounding of the first may be: two digits of it are right."""

MIN_CLEAR_SHARE = 0.5
"""Of its own error, the least that the limit of a jump of f's slope must be to count as one."""

MAX_FALL = 1.05 * RATIO
"""Of the jump of a smooth f's slope that is seen at a step, the most at the next smaller one."""

NOISE_STEPS = 3
"""Smallest steps from which the noise of f is judged."""

CLEAR_SHARE = 0.1
"""Times a contradiction that larger steps must agree to for it to be looked into."""


@dataclass(eq=False)
class Outcome(Rows):
    """Derivatives with respect to some elements.

    Attributes
    ----------
    values, errors, steps : float array (n,)
        The derivatives themselves, their estimated absolute errors, and the smallest steps that
        they are made of.
    largest, widest, height : float array (n,)
        The largest quotient that has been seen, the largest step at which it is not 0, and how much
        f has been seen to change, the largest quotient times its step.
    coarse : float array (n,)
        How wrong f may be at the smallest step by rounding its values itself, 0 if it does not.
    roundoff_limited : bool array (n,)
        Whether a much larger first step may be better: rounding has cost most of the digits.
    diverging : bool array (n,)
        Whether a much smaller one may be, because the quotients do not converge.
    rough : bool array (n,)
        Whether errors stopped falling far above what rounding explains.
    """

    values: Array
    errors: Array
    steps: Array
    largest: Array
    widest: Array
    height: Array
    coarse: Array
    roundoff_limited: Flags
    diverging: Flags
    rough: Flags


def nothing_yet(first: Array) -> Outcome:
    """Return that nothing has been found yet, from these first steps."""
    n = len(first)
    outcome = Outcome(*np.zeros((7, n)), *np.zeros((3, n), dtype=bool))
    outcome.values[:], outcome.errors[:] = np.nan, np.inf
    outcome.steps[:] = outcome.widest[:] = first
    return outcome


@dataclass(eq=False)
class Search(Rows):
    """Where the search for the steps of some elements stands.

    Attributes
    ----------
    rows, places : int array (n,)
        Which elements they are: their numbers at the beginning, and indices into x.
    first, most, smallest : float array (n,)
        The first step, and the largest and the smallest ones that may be taken.
    top : int array (n,)
        The number of the largest step that has been taken: 0 is the first, larger ones are below.
    stalled : int array (n,)
        For how many steps the error has not become half as large.
    upwards : bool array (n,)
        Whether the next step is a larger one.
    """

    rows: Places
    places: Places
    first: Array
    most: Array
    smallest: Array
    top: Places
    stalled: Places
    upwards: Flags

    @classmethod
    def begun(cls, places: Places, first: Array, most: Array, x: Array) -> "Search":
        """Return the search at its beginning."""
        rows, (top, stalled) = np.arange(len(places)), np.zeros((2, len(places)), dtype=int)
        spacing = np.spacing(abs(x.view(np.ndarray).reshape(-1)[places])).astype(np.float64)
        return cls(rows, places, first, most, 2 * spacing, top, stalled, top > 0)


class Extrapolation:
    """Difference quotients at geometric sequences of steps, extrapolated, for elements of x.

    Its numbers are an array ``(4 + points, n, m)``: quotients, how wrong they may be by rounding,
    how far f bends, the steps, and f at the scheme's points, for n elements and m steps.

    Parameters
    ----------
    problem : Problem
        What is differentiated, in a real scheme.
    values : callable
        How f is evaluated.
    base : float or array (x.size,)
        f at x, for schemes that need it and for noticing kinks; one for each element if f has as
        many values there.
    tolerance : float
        The relative error that is small enough.
    retry : bool
        Whether another first step may be taken where that seems to be of the wrong size.
    by_stacks : bool
        Whether a call of f serves several points, so that more steps are tried at once.

    Attributes
    ----------
    evaluations : int
        How often f was evaluated.
    eps : float
        The relative precision of f's values.
    raised : dict
        What f has raised when an element was moved, by the index of the element.
    """

    def __init__(
        self,
        problem: Problem,
        values: Values,
        base: Any,
        tolerance: float = 0.0,
        retry: bool = False,
        by_stacks: bool = False,
    ) -> None:
        self.problem, self.values, self.base, self.tolerance = problem, values, base, tolerance
        self.retry, self.by_stacks = retry, by_stacks
        self.evaluations = 0
        self.raised: dict[int, Exception] = {}
        self.eps = precision(problem.x, np.asarray(base))

    def base_at(self, places: Any) -> Any:
        """Return f at x, as it is differentiated with respect to these elements."""
        return self.base[places] if np.ndim(self.base) else self.base

    def replaced(self, problem: Problem) -> "Extrapolation":
        """Return the same of another problem."""
        given = self.values, self.base, self.tolerance, self.retry, self.by_stacks
        return Extrapolation(problem, *given)

    def derivatives(
        self,
        places: Places,
        first: Array,
        begin: Values | None = None,
        ended: Report | None = None,
    ) -> Outcome:
        """Return the derivatives with respect to the elements of x at these places.

        The arguments are those of `extrapolate`.
        """
        outcome = self.extrapolate(places, first, begin, ended)
        if self.retry:
            self._begin_again(places, first, outcome)
        return outcome

    def extrapolate(
        self,
        places: Places,
        first: Array,
        begin: Values | None = None,
        ended: Report | None = None,
        patience: int = MAX_STALLED_STEPS,
    ) -> Outcome:
        """Return what is found from these first steps.

        Parameters
        ----------
        places : int array (n,)
            Indices into x in C order.
        first : float array (n,)
            The steps to begin with, rounded down to powers of two within the bounds.
        begin : callable, optional
            How f is evaluated at the steps that are tried at once.
        ended : callable, optional
            Told for how many elements more there is nothing left to be done.
        patience : int
            Steps without a better estimate after which an element is left.
        """
        outcome, problem = nothing_yet(first), self.problem
        at_once = FIRST_STEPS
        if self.by_stacks:
            at_once = FIRST_STEPS_BY_STACKS if patience < MAX_STEPS else MAX_STEPS
        parts = first_steps(problem.scheme, problem.x, places, first, problem.bounds)
        with np.errstate(all="ignore"):
            for scheme, chosen, steps, most in parts:
                several = steps[:, np.newaxis] * step_at(np.arange(at_once))
                table = self._evaluate_steps(scheme, places[chosen], several, begin)
                search = Search.begun(places[chosen], steps, most, problem.x)
                for done, found in self._extrapolated(scheme, search, table, patience):
                    outcome[chosen[done]] = found
                    if ended is not None:
                        ended(len(done))
        return outcome

    def _begin_again(self, places: Places, first: Array, outcome: Outcome) -> None:
        """Begin at another size where the first step may be of the wrong one; keep what is right.

        Where quotients do not converge, or stop converging far above their rounding, f may vary
        over much smaller distances: smaller and smaller steps say so by agreeing among themselves.
        """
        problem = self.problem
        base = np.broadcast_to(abs(self.base_at(places)), places.shape)
        d = problem.scheme.derivative
        spacing = np.spacing(abs(problem.x.view(np.ndarray).reshape(-1)[places])).astype(np.float64)
        height = np.fmax(base, outcome.height)
        second = np.where(outcome.roundoff_limited, FIRST_STEP, first * SHRINK_FACTOR)
        larger = outcome.roundoff_limited & (first < FIRST_STEP)
        again = np.flatnonzero(larger | outcome.diverging | outcome.rough)
        while len(again):
            other = self.extrapolate(places[again], second[again], patience=MAX_STEPS)
            before = outcome[again]
            # Smaller steps may see one value alone of an f that rounds its values.
            other.errors[...] = np.fmax(other.errors, before.coarse / other.steps**d)
            with np.errstate(invalid="ignore"):
                apart = abs(other.values - before.values)
                smaller = other.steps < before.steps
                # Smaller steps that agree among themselves are believed, unless f jumps: then they
                # see nothing of it. Larger ones are not, where they contradict smaller ones.
                doubt = np.where(before.diverging, 1, 1 / CLEAR_SHARE) * other.errors
                clear = smaller & (CLEAR_SHARE * apart > doubt) & (apart > before.errors)
                # What is 0 all around may be lost inside f, if it is smooth seen from far away.
                seen = CLEAR_SHARE * abs(other.values) > other.errors
            lost = (height[again] == 0) & (seen | ~other.diverging) & ~smaller
            contradicted = contradicts(other.values, other.errors, before.values, before.errors)
            better = (other.errors < before.errors) & (before.diverging | ~contradicted)
            better |= clear
            doubtful = abs(other.values) + other.errors
            outcome.errors[again[lost]] = np.fmax(before.errors, doubtful)[lost]
            better &= ~lost
            asked = better & smaller & (CLEAR_SHARE * apart > other.errors)
            asked &= apart * other.steps**d <= MAX_JUMP * height[again]
            asked &= before.coarse == 0  # how high its jumps are is known then
            jumping = np.zeros_like(asked)
            for k in np.flatnonzero(asked):
                rounding = precision(problem.x, before.values) * float(base[again[k]])
                place = int(places[again[k]])
                steps = sorted({float(before.steps[k]), float(before.widest[k])})
                if any(self.jumps(place, step, float(apart[k]), rounding) for step in steps):
                    better[k], jumping[k] = False, True
                    if before.diverging[k]:
                        outcome.errors[again[k]] = np.fmax(before.errors[k], apart[k])
            outcome[again[better]] = other[better]
            larger = before.largest > other.largest
            outcome.largest[again] = np.where(larger, before.largest, other.largest)
            outcome.widest[again] = np.where(larger, before.widest, other.widest)
            # What neither converges nor can be noise may have any slope that was seen, or more.
            wild = other.diverging & (other.errors * other.steps**d > MAX_JUMP * height[again])
            unclear = ~better & smaller & (apart > before.errors + other.errors)
            unknown = again[before.diverging & (wild | unclear) & ~jumping]
            outcome.errors[unknown] = np.fmax(outcome.errors[unknown], 2 * outcome.largest[unknown])
            second[again] *= SHRINK_FACTOR
            further = other.diverging & ~before.roundoff_limited & (other.errors < np.inf)
            further &= second[again] > np.fmax(4 * spacing[again], EPS * first[again])
            again = again[further]

    def _extrapolated(
        self, scheme: Scheme, search: Search, table: Array, patience: int
    ) -> Iterator[tuple[Places, Outcome]]:
        """Yield rows of elements, and the derivatives there, as soon as they have been found."""
        best = nothing_yet(search.first)
        may_be_rounded = are_short(table[4, :, 0]).any()  # all values are, where f rounds them
        while True:
            coarse = best.coarse.copy()
            judged = self._coarsened(scheme, table, best) if may_be_rounded else table
            # Values at larger steps may have too many digits for being seen to be rounded.
            unseen = (coarse > 0) & (best.coarse == 0)
            best.coarse[:] = np.where(unseen, coarse, best.coarse)
            tried = table.shape[2]
            found = self._limits(scheme, judged)
            errors, relative = found.errors, found.relative
            before = best.errors.copy()
            # Far out, f may be flat, or seem to be: what contradicts smaller steps is not believed.
            rejected = contradicts(found.values, errors, best.values, before) | unseen
            rejected &= search.upwards
            # Smaller steps may correct what has been found, larger ones only improve it.
            taken = ~rejected & (~search.upwards | (errors < before))
            np.copyto(best.values, found.values, where=taken)
            np.copyto(best.errors, errors, where=taken)
            np.copyto(best.steps, judged[3, np.arange(len(taken)), found.last], where=taken)
            improves = (errors < 0.5 * before) | (errors == np.inf)
            search.stalled = np.where(improves, 0, search.stalled + 1)
            higher = search.first * step_at(search.top - 1)
            lower = search.first * step_at(search.top + tried)
            at_largest = (found.round_off > found.truncation) & (found.first == 0)
            search.upwards = at_largest & (higher <= search.most)
            ends = rejected | self._are_enough(search, found, tried, patience)
            drowned = self._are_drowned(search, table)
            ends |= drowned
            ends |= ~search.upwards & (lower < search.smallest)
            steps = np.where(search.upwards, higher, lower)
            if ends.any():
                best.roundoff_limited = drowned | at_largest & (relative > self.eps**0.5)
                unexplained = (errors > 4 * found.round_off) | (errors == np.inf)
                unexplained &= ~best.roundoff_limited
                best.diverging = unexplained & (relative > DIVERGENCE_ERROR)
                best.rough = ~best.roundoff_limited & (errors > ROUNDING_FACTOR * found.round_off)
                best.rough &= (search.stalled > 0) & (relative > self.tolerance)
                self._finish(scheme, search.places, ends, judged, found, best)
                yield search.rows[ends], best[ends]
                if ends.all():
                    return
                best, search, steps = best[~ends], search[~ends], steps[~ends]
                table = table[:, ~ends]
            new = self._evaluate_steps(scheme, search.places, steps[:, np.newaxis])
            smaller = np.concatenate([table, new], axis=2)
            if search.upwards.any():  # the largest step comes first
                larger = np.concatenate([new, table], axis=2)
                smaller = np.where(search.upwards[:, np.newaxis], larger, smaller)
                search.top = search.top - search.upwards
            table = smaller

    def _are_enough(self, search: Search, found: Limits, tried: int, patience: int) -> Flags:
        """Say of which elements there need be no further steps."""
        if tried >= MAX_STEPS:
            return np.ones(len(found.values), dtype=bool)
        relative = found.relative
        done: Flags = relative <= max(self.tolerance, MIN_ERROR_EPS * self.eps)
        # What is far from rounding, and no longer improves, may be noise.
        near = found.errors < ROUNDING_FACTOR * found.round_off
        enough = (search.stalled > 0) & near | (tried >= SUFFICIENT_STEPS)
        done |= (relative < min(SMOOTH_ERROR, self.eps**0.5)) & enough
        done |= search.stalled >= patience
        rounded = (4 * found.round_off > found.errors) & (found.errors < np.inf)
        return done | rounded & ~search.upwards

    def _are_drowned(self, search: Search, table: Array) -> Flags:
        """Say of which elements rounding leaves no digit, so that another first step is better."""
        if not self.retry:
            return np.zeros(len(search.first), dtype=bool)
        sizes = np.maximum.reduce(np.where(np.isfinite(table[0]), abs(table[0]), 0), axis=1)
        is_small = (search.first < FIRST_STEP / 2) & (search.top == 0)
        is_drowned: Flags = is_small & (DROWNING_SHARE * sizes <= table[1, :, 0])
        return is_drowned

    def _coarsened(self, scheme: Scheme, table: Array, best: Outcome) -> Array:
        """Return the table with the noise of an f that rounds its values, if it does."""
        spacing = resolution(table[4:].transpose(1, 2, 0))
        if not spacing.any():
            best.coarse[:] = 0
            return table
        noise, steps = table[1], table[3]
        coarser = np.fmax(noise, scheme.round_off(spacing, steps, 1.0))
        heights = coarser * steps**scheme.derivative
        best.coarse[:] = np.where(coarser > noise, heights, 0)[:, -1]
        return np.concatenate([table[:1], coarser[np.newaxis], table[2:4]])

    def _limits(self, scheme: Scheme, table: Array) -> Limits:
        """Return the derivatives, and their errors: with half the jump of the slope at a kink."""
        quotients, noise, bends = table[:3]
        found = limits(quotients, noise, scheme.error_powers, RATIO, checked=True)
        truncation = found.truncation
        slow = truncation > SMOOTH_ERROR * abs(found.values)
        errors = np.where(slow, found.errors + (REMAINDER_FACTOR - 1) * truncation, found.errors)
        if _sees_kinks(scheme):
            # Half the jump of f's slope, as it is seen at a step, falls with it where f is smooth.
            sizes, spread, rows = abs(bends), 4 * noise, np.arange(len(bends))
            beyond = np.arange(bends.shape[1]) >= found.last[:, np.newaxis]
            narrow = np.fmax.reduce(np.where(beyond, sizes - spread, 0), axis=1)
            wide = (sizes + spread)[rows, found.last - 1]
            stays = np.where(narrow > MAX_FALL * wide, narrow, 0)
            # A small one that falls to a limit is that of a kink in an f that bends, too.
            jump = limits(bends, 2 * noise, BEND_POWERS, RATIO)
            size = abs(jump.values)
            kink = np.where(size > MIN_CLEAR_SHARE * jump.errors, size + jump.errors, 0)
            errors = errors + np.fmax(kink, stays)
            truncation = np.fmax(truncation, stays)
        return replace(found, errors=errors, truncation=truncation)

    def _finish(
        self,
        scheme: Scheme,
        places: Places,
        ends: Flags,
        table: Array,
        found: Limits,
        best: Outcome,
    ) -> None:
        """Judge what has been found of elements that have ended by all that has been seen."""
        quotients, steps = table[0], table[3]
        slopes = abs(np.where(np.isfinite(quotients), quotients, 0))
        best.largest[:] = np.max(slopes, axis=1)
        best.widest[:] = steps[np.arange(len(steps)), np.argmax(slopes > 0, axis=1)]
        best.height[:] = np.max(slopes * steps**scheme.derivative, axis=1)
        rivals = found.rivals()
        for row in np.flatnonzero(ends):
            if best.rough[row]:
                self._take_for_noise(scheme, best, row, table)
            if rivals.doubts[row] < np.inf:
                self._look_into(scheme, int(places[row]), best, row, table, rivals)
            if best.diverging[row] and _grows(table[:, row]):
                best.errors[row] = np.inf

    def _take_for_noise(self, scheme: Scheme, best: Outcome, row: Any, table: Array) -> None:
        """Let what the smallest steps disagree by be noise of f at all steps.

        Runs of quotients agree by accident at times: noise is judged by those that depend on it
        most, where truncation is least.
        """
        quotients, steps = table[0, row], table[3, row]
        d, powers = scheme.derivative, scheme.error_powers
        gain = 1 / (RATIO ** -powers[0] - 1)
        pairs = (1 + gain) * quotients[1:] - gain * quotients[:-1]
        heights = abs(pairs - best.values[row]) * steps[1:] ** d / (1 + 2 * gain)
        if (heights[-NOISE_STEPS + 1 :] < heights[-NOISE_STEPS:-1] / 2).all():
            return  # what still falls is truncation
        # Truncation falls by this from step to step.
        falls = TRUNCATION_FACTOR * RATIO ** (powers[1] + d)
        heights = np.where(np.isfinite(heights), heights, 0)
        heights[1:] -= np.minimum(falls * heights[:-1], heights[1:])
        other = self._with_noise(scheme, table[:, row], np.max(heights[-NOISE_STEPS:]))
        if best.errors[row] < other[1] < np.inf:
            best.values[row], best.errors[row], best.steps[row] = other

    def _look_into(
        self, scheme: Scheme, place: int, best: Outcome, row: Any, table: Array, rivals: Rivals
    ) -> None:
        """Take what larger steps say instead, if it is jumps of f why smaller ones contradict."""
        rival, doubt = rivals.values[row], rivals.doubts[row]
        contradiction = float(abs(rival - best.values[row]))
        if best.coarse[row] > 0 or not doubt < CLEAR_SHARE * contradiction:
            return
        quotients, noise, _, steps = table[:4, row]
        d, nearest = scheme.derivative, int(rivals.last[row])
        rounding = float(noise[nearest] * steps[nearest] ** d)
        wide = {float(steps[rivals.first[row]]), float(steps[0])}
        if not any(self.jumps(place, step, contradiction, rounding) for step in sorted(wide)):
            return
        # So high are the jumps, at least.
        height = np.nanmax(abs(quotients - rival)[nearest + 1 :] * steps[nearest + 1 :] ** d)
        if height > MAX_JUMP * rounding / self.eps:
            return
        other = self._with_noise(scheme, table[:, row], height)
        best.values[row], best.errors[row], best.steps[row] = other
        best.roundoff_limited[row] = best.diverging[row] = False

    def _with_noise(self, scheme: Scheme, table: Array, height: Any) -> tuple[Any, Any, Any]:
        """Return an element's value, error and step if f is as noisy as this, or more."""
        quotients, noise, bends, steps = table[:4]
        noise = np.fmax(noise, height / steps**scheme.derivative)
        found = self._limits(scheme, np.stack([quotients, noise, bends])[:, np.newaxis])
        return found.values[0], found.errors[0], steps[found.last[0]]

    def jumps(self, place: int, step: float, contradiction: float, rounding: float) -> bool:
        """Say whether f jumps within this step, as `fastgrad.differences.rounding.jumps` does."""
        self.evaluations += JUMP_CALLS
        return jumps(self.problem, self.values, place, step, contradiction, rounding)

    def is_flat(self, place: int, step: float) -> bool:
        """Say whether f is piecewise constant, as `fastgrad.differences.rounding.is_flat` does."""
        self.evaluations += JUMP_CALLS
        return is_flat(self.problem, self.values, place, step)

    def _evaluate_steps(
        self, scheme: Scheme, places: Places, steps: Array, values: Values | None = None
    ) -> Array:
        """Return the tableau's numbers at these steps, ``(4 + points, *steps.shape)``."""
        x, outer, d = self.problem.x, scheme.outer, scheme.derivative
        flat = x.view(np.ndarray).reshape(-1)[places]
        steps = representable(steps, flat[:, np.newaxis])
        points = moved(x, places.repeat(steps.shape[1]), outer, steps.reshape(-1))
        moves = Moves(places, points.reshape(len(places), -1))
        f, raised = self.problem.f, self.raised
        measured = values_where_defined(values or self.values, f, x, moves, raised)
        self.evaluations += points.size
        self.eps = precision(x, measured)
        seen = wide = as_floats(measured).reshape(*steps.shape, len(outer))
        base = np.broadcast_to(self.base_at(places), places.shape)[:, np.newaxis]
        if len(outer) < len(scheme.offsets):
            here = np.broadcast_to(base[..., np.newaxis], (*steps.shape, 1))
            wide = np.concatenate([wide, here], axis=2)
        quotients = scheme.combine(wide.reshape(-1, wide.shape[2]), steps.reshape(-1))
        quotients = quotients.reshape(steps.shape)
        # Operations inside f are rounded relative to their arguments: as if x itself were.
        distance = abs(flat.astype(np.float64))[:, np.newaxis]
        magnitude = np.maximum.reduce(abs(wide), axis=2) + distance**d * abs(quotients)
        noise = scheme.round_off(magnitude + SMALLEST_SPACING / self.eps, steps, self.eps)
        bends = np.zeros_like(quotients)
        if _sees_kinks(scheme):
            there, mirrored = wide[..., 0], wide[..., outer.index(-outer[0])]
            bends = ((there - base) + (mirrored - base)) / (2 * abs(outer[0]) * steps)
        return np.array([quotients, noise, bends, steps, *seen.transpose(2, 0, 1)])


def _sees_kinks(scheme: Scheme) -> bool:
    """Say whether f on both sides of x shows a jump of the slope, which quotients do not."""
    return scheme.is_central and scheme.derivative == 1


def _grows(table: Array) -> bool:
    """Say whether quotients grow towards x without an end in sight, as at an infinite slope."""
    quotients, noise, _, steps = table[:4, -GROWTH_STEPS - 1 :]
    growth = np.diff(quotients)
    rates = growth / -np.diff(np.log(steps))
    steady = abs(rates[1:]) >= MIN_GROWTH_RATIO * abs(rates[:-1])
    seen = (rates * quotients[-1] > 0) & (abs(growth) > 4 * noise[1:])
    return len(rates) == GROWTH_STEPS and bool(steady.all() and seen.all())


def contradicts(new: Array, new_error: Array, old: Array, old_error: Array) -> Flags:
    """Say where two values differ by more than both of their errors; where one is nan, not."""
    with np.errstate(invalid="ignore"):
        return np.asarray(abs(new - old) > new_error + old_error)
