"""Richardson extrapolation of f's difference quotients, over steps that are chosen as it goes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastgrad.differences.bounds import first_steps
from fastgrad.differences.jumps import CALLS, are_short, is_flat, jumps, resolution
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import (
    as_floats,
    moved,
    precision,
    representable,
    values_where_defined,
)
from fastgrad.schemes import Scheme
from fastgrad.typing import Array, Flags, Places, Report, Values

BEND_POWERS = 1, 3
"""The first two powers of h in half the difference of f's slopes on both sides of x."""

START = 4
"""Steps that are tried at once: two are extrapolated, a third tells how well, a fourth how fast."""

SUFFICIENT_STEPS = 8
"""Steps after which an error that is small already is left as it is."""

SMALLEST_SPACING = 5e-324
"""The spacing of the smallest numbers."""

ROUNDING_FACTOR = 100
"""How many times its rounding error a derivative's error is where nothing else limits it."""

MAX_STEPS = 17
"""Steps after which any is."""

PATIENCE = 6
"""Steps without a better estimate after which a function that does not converge is left."""

SMOOTH_ERROR = 1e-6
"""A relative error from which the steps are small enough for f to look smooth."""

DIVERGENCE_ERROR = 1e-3
"""A relative error from which the first step was probably of the wrong size."""

REMAINDER_FACTOR = 4
"""How many times the last difference a slow series may still be off: for powers of h as low as 1/2
the rest is 1 / (1 - 2**-0.5) = 3.4 times as large."""

ERROR_FLOOR = 8
"""Rounding errors of the derivative itself that nobody needs to get below."""

RATIO = 1 / 1.923
"""Of a step to the one before: nearly 1/2, but no two steps have a simple ratio, so that no wave
fits into all of them; and no short number, so that values of f are short only if f rounds them."""

GROWTH_STEPS = 8
"""Steps over which quotients grow, without an end in sight, where a slope is infinite."""

MIN_GROWTH_RATIO = 0.95
"""How many times as large as the growth before a growth is that leads to no limit."""

MAX_JUMP = 1e-2
"""The largest jumps, relative to f, that are taken for rounded values."""

NOISE_STEPS = 3
"""Smallest steps from which the noise of f is judged."""

CLEAR_SHARE = 0.1
"""Times a contradiction that larger steps must agree to for it to be looked into."""


TRUNCATION_FACTOR = 4
"""How many times larger the truncation of a smaller step may be than by its leading power."""

MIN_NOISE_STEPS = 5
"""Steps among which runs are looked at for noise, at least."""

DEVIATION_FACTOR = 4
"""Times the bounds of errors that quotients at smaller steps may differ from a limit."""


@dataclass(eq=False)
class Outcome:
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

    def __getitem__(self, rows: Any) -> "Outcome":
        """Return a copy of some rows."""
        return Outcome(*(column[rows] for column in vars(self).values()))

    def __setitem__(self, rows: Any, other: "Outcome") -> None:
        """Replace some rows."""
        for column, new in zip(vars(self).values(), vars(other).values(), strict=True):
            column[rows] = new


def nothing_yet(first: Array) -> Outcome:
    """Return that nothing has been found yet, from these first steps."""
    values, errors, steps, largest, widest, height, coarse = np.zeros((7, len(first)))
    limited, diverging, rough = np.zeros((3, len(first)), dtype=bool)
    values[:], errors[:], steps[:], widest[:] = np.nan, np.inf, first, first
    return Outcome(
        values, errors, steps, largest, widest, height, coarse, limited, diverging, rough
    )


def step_at(index: Any) -> Any:
    """Return a step of the sequence in units of the one with index 0; larger ones come before.

    Examples
    --------
    >>> [round(float(step_at(k)), 3) for k in (-1, 0, 1, 2, 3)]
    [1.923, 1.0, 0.52, 0.27, 0.141]
    """
    return RATIO ** np.asarray(index, np.float64)


@dataclass(frozen=True, eq=False)
class _Runs:
    """All runs of two or more neighbouring steps, and what does not depend on quotients.

    Attributes
    ----------
    weights : array (m, runs)
        Of the quotients in the limit; 0 outside of the run.
    magnitudes, inside : array (m, runs)
        Their sizes, and where they are not 0.
    after : bool array (m, runs)
        Which steps are smaller than all of a run.
    first, last : int array (runs,)
        Where a run begins and ends.
    parts : int array (2, runs)
        The runs without the first, and without the last step: indices into the quotients and the
        runs after them.
    falls : array (m, 1)
        The leading power of the steps, with which truncation falls.
    """

    weights: Array
    magnitudes: Array
    inside: Flags
    after: Flags
    first: Places
    last: Places
    parts: Places
    falls: Array


@cache
def _runs(m: int, ratio: float, power: int, distance: int) -> _Runs:
    """Return all runs among m steps, for powers that begin with one and are so far apart.

    ``w[i]`` is proportional to ``h[i]**-power / prod(h[i]**distance - h[j]**distance)``: divided
    differences in ``h**distance`` leave nothing of lower powers.
    """
    h = ratio ** np.arange(m, dtype=float)
    ends = [(start, start + length) for length in range(1, m) for start in range(m - length)]
    numbers = {(k, k): k for k in range(m)}
    numbers |= {end: m + k for k, end in enumerate(ends)}
    weights = np.zeros((m, len(ends)))
    for k, (start, end) in enumerate(ends):
        some = h[start : end + 1] / h[start]
        apart = some[:, np.newaxis] ** distance - some**distance
        np.fill_diagonal(apart, 1)
        own = 1 / (some**power * np.prod(apart, axis=1))
        weights[start : end + 1, k] = own / own.sum()
    first, last = np.array(ends).T
    return _Runs(
        weights,
        abs(weights),
        weights != 0,
        np.arange(m)[:, np.newaxis] > last,
        first,
        last,
        np.array([[numbers[a + 1, b], numbers[a, b - 1]] for a, b in ends]).T,
        h[:, np.newaxis] ** power,
    )


@dataclass(frozen=True, eq=False)
class Limits:
    """The extrapolated limits, one a row.

    Attributes
    ----------
    values : array (n,)
        The limits; nan where there are not two neighbouring finite quotients.
    truncation, round_off : array (n,)
        The estimated error of the extrapolation, and the bound of what rounding costs.
    errors : array (n,)
        The estimated errors of the limits; infinite where there is none.
    first, last : int array (n,)
        The columns of the largest and of the smallest step that the limit is made of.
    entries, own_errors, all_errors : array (n, runs)
        What each run says, its error by itself, and with what contradicts it.
    runs : _Runs
        All runs.
    """

    values: Array
    truncation: Array
    round_off: Array
    errors: Array
    first: Places
    last: Places
    entries: Array
    own_errors: Array
    all_errors: Array
    runs: _Runs

    def rivals(self) -> "Rivals":
        """Return what larger steps say who agree among themselves, and not with what is taken."""
        with np.errstate(all="ignore"):
            apart = abs(self.entries - self.values[:, np.newaxis])
            rival = self.all_errors > self.own_errors + apart / 2
            rival &= self.runs.last < self.last[:, np.newaxis]
            doubts = np.where(rival, self.own_errors, np.inf)
        rows, best = np.arange(len(doubts)), np.argmin(doubts, axis=1)
        first, last = self.runs.first[best], self.runs.last[best]
        return Rivals(self.entries[rows, best], doubts[rows, best], first, last)


class Rivals(NamedTuple):
    """Limits that smaller steps contradict, one a row.

    Attributes
    ----------
    values, doubts : array (n,)
        What larger steps say, and how far they are from agreeing; infinite where there are none.
    first, last : int array (n,)
        The columns of the largest and of the smallest step that the limit is made of.
    """

    values: Array
    doubts: Array
    first: Places
    last: Places


def limits(
    quotients: Array,
    noise: Array,
    powers: Sequence[int],
    ratio: float = 0.5,
    *,
    checked: bool = False,
) -> Limits:
    """Return the limits of quotients for steps towards zero, each with its estimated error.

    Of quotients ``q(h) = limit + c[0] h**powers[0] + c[1] h**powers[1] + ...`` every run of
    neighbours is extrapolated, by eliminating as many powers as it can: their weights are those
    that sum up to 1 and leave nothing of these powers. The run is taken whose estimated error is
    least. Its truncation is estimated by the larger one of what its first and its last quotient
    have changed: the error of the worse of the runs without one of them.

    Parameters
    ----------
    quotients : float array (n, m)
        One sequence a row, from the largest step to the smallest; nan where there is none.
    noise : float array (n, m)
        How wrong each quotient may be by rounding, as an absolute bound.
    powers : sequence of int
        The first two powers of h in the quotients' truncation errors; others are as far apart.
    ratio : float
        Of each step to the one before.
    checked : bool
        Whether a run is not believed if a quotient at a smaller step is farther from its limit than
        noise and truncation explain: then what is unexplained is part of its error.

    Returns
    -------
    Limits

    References
    ----------
    L. F. Richardson, "The approximate arithmetical solution by finite differences",
    Philosophical Transactions of the Royal Society A 210 (1911), 307-357;
    C. J. F. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering
    Software 4 (1982), 75-76, for the estimated error.

    Examples
    --------
    The limit of 3 + h**2 from h = 1, 1/2 and 1/4:

    >>> limits(np.array([[4.0, 3.25, 3.0625]]), np.full((1, 3), 1e-16), [2, 4]).values
    array([3.])
    """
    n, m = quotients.shape
    runs = _runs(m, ratio, powers[0], powers[1] - powers[0])
    with np.errstate(all="ignore"):
        # Around one of them: what is equal stays so.
        center = np.where(np.isfinite(quotients[:, -1:]), quotients[:, -1:], 0)
        terms = runs.weights * (quotients - center)[:, :, np.newaxis]
        entries = np.add.reduce(np.where(runs.inside, terms, 0), axis=1, initial=0) + center
        terms = runs.magnitudes * noise[:, :, np.newaxis]
        round_offs = np.add.reduce(np.where(runs.inside, terms, 0), axis=1)
        without = np.concatenate([quotients, entries], axis=1)[:, runs.parts]
        truncations = np.maximum.reduce(abs(entries[:, np.newaxis] - without), axis=1)
        own = truncations + round_offs
        own[~np.isfinite(own)] = np.inf
        times = truncations / round_offs
        excess = _excess(times)
        smooth = np.minimum(runs.first[own.argmin(axis=1)], m - MIN_NOISE_STEPS)
        if (smooth > 0).any():  # with large steps f may be far from smooth
            among = runs.first >= smooth[:, np.newaxis]
            later = np.where(among, times, np.nan)
            excess = np.minimum(excess, _excess(later, np.count_nonzero(among, axis=1)))
        errors = own
        if checked:
            slack = noise * (DEVIATION_FACTOR + excess[:, np.newaxis])
            errors = own + _unexplained(quotients, slack, entries, own, runs)
            errors[np.isnan(errors)] = np.inf
        # One run may agree with its parts by accident; two hardly do.
        rows, best = np.arange(n), errors.argmin(axis=1)
        least, second = errors[rows, best], np.sort(errors, axis=1)[:, min(1, len(runs.first) - 1)]
        found = least < np.inf
        second = np.where(second < np.inf, second, least)
        excess = excess * np.where(found, round_offs[rows, best], 0)
        return Limits(
            np.where(found, entries[rows, best], np.nan),
            np.where(found, truncations[rows, best], np.inf),
            np.where(found, round_offs[rows, best], np.inf),
            second + excess,
            runs.first[best],
            runs.last[best],
            entries,
            own,
            errors,
            runs,
        )


def _unexplained(quotients: Array, slack: Array, entries: Array, own: Array, runs: _Runs) -> Array:
    """Return how much farther than it may be a quotient at a smaller step is from each limit."""
    off = abs(quotients[:, :, np.newaxis] - entries[:, np.newaxis])  # (n, m, runs)
    # What the run's own quotients are off by falls with this power of the step.
    scale = np.maximum.reduce(np.where(runs.inside, off / runs.falls, 0), axis=1)
    allowed = slack[:, :, np.newaxis] + DEVIATION_FACTOR * own[:, np.newaxis]
    allowed += (TRUNCATION_FACTOR * scale)[:, np.newaxis] * runs.falls
    result: Array = np.maximum.reduce(np.where(runs.after & (off > allowed), off, 0), axis=1)
    return result


def _excess(times: Array, among: Any = None) -> Array:
    """Return how many times the noise f has beyond its bound, 0 if it keeps to it.

    In a smooth function some runs converge to within the bound of their noise. Where even the
    best tenth of those that begin where f is smooth does not, as much noise as they show is taken
    to be everywhere, twice.
    """
    tenth = times.shape[1] // 10 if among is None else among // 10
    times = np.sort(times, axis=1)[np.arange(len(times)), tenth]
    return np.where((times > 1) & (times < np.inf), 2 * times, 0)


class RichardsonTableau:
    """Difference quotients at geometric sequences of steps, extrapolated, for elements of x.

    Its numbers are an array ``(4 + points, n, m)``: quotients, how wrong they may be by rounding,
    how far f bends, the steps, and f at the scheme's points, for n elements and m steps.

    Parameters
    ----------
    problem : Problem
        What is differentiated, in a real scheme.
    values : callable
        How f is evaluated.
    base : float
        f at x, for schemes that need it and for noticing kinks; nan if it is not known.
    tolerance : float
        The relative error that is small enough.

    Attributes
    ----------
    evaluations : int
        How often f was evaluated.
    raised : dict
        What f has raised when an element was moved, by the index of the element.
    """

    def __init__(self, problem: Problem, values: Values, base: Any, tolerance: float = 0.0) -> None:
        self.problem, self.values, self.base, self.tolerance = problem, values, base, tolerance
        self.evaluations = 0
        self.raised: dict[int, Exception] = {}
        self._eps = 0.0

    def extrapolate(
        self,
        places: Places,
        first: Array,
        begin: Values | None = None,
        ended: Report | None = None,
        patience: int = PATIENCE,
    ) -> Outcome:
        """Return the derivatives with respect to the elements of x at these places.

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
        parts = first_steps(problem.scheme, problem.x, places, first, problem.bounds)
        with np.errstate(all="ignore"):
            for scheme, chosen, steps, most in parts:
                table = self._evaluate_steps(
                    scheme, places[chosen], steps[:, np.newaxis] * step_at(np.arange(START)), begin
                )
                for done, found in self._extrapolated(
                    scheme, places[chosen], table, steps, most, patience
                ):
                    outcome[chosen[done]] = found
                    if ended is not None:
                        ended(len(done))
        return outcome

    def _extrapolated(
        self,
        scheme: Scheme,
        places: Places,
        table: Array,
        first: Array,
        most: Array,
        patience: int,
    ) -> Iterator[tuple[Places, Outcome]]:
        """Yield indices into places, and the derivatives there, as soon as they have been found."""
        now = nothing_yet(first)
        x = self.problem.x.view(np.ndarray).reshape(-1)[places]
        smallest = 2 * np.spacing(abs(x)).astype(np.float64)
        active, upwards = np.arange(len(places)), np.zeros(len(places), dtype=bool)
        top, stalled = np.zeros((2, len(places)), dtype=int)
        may_be_rounded = are_short(table[4, :, 0]).any()  # all values are, where f rounds them
        while True:
            judged = self._coarsened(scheme, table, now) if may_be_rounded else table
            tried = table.shape[2]
            found, errors = self._limits(scheme, judged)
            relative = errors / abs(found.values)
            relative = np.where(errors == 0, 0, np.where(np.isnan(relative), np.inf, relative))
            last = now.errors.copy()
            # Far out, f may be flat, or seem to be: what contradicts smaller steps is not believed.
            rejected = upwards & contradicts(found.values, errors, now.values, last)
            # Smaller steps may correct what has been found, larger ones only improve it.
            taken = ~rejected & (~upwards | (errors < last))
            np.copyto(now.values, found.values, where=taken)
            np.copyto(now.errors, errors, where=taken)
            np.copyto(now.steps, judged[3, np.arange(len(active)), found.last], where=taken)
            rounding = found.round_off > found.truncation
            stalled = np.where((errors < 0.5 * last) | (errors == np.inf), 0, stalled + 1)
            higher, lower = first[active] * step_at(top - 1), first[active] * step_at(top + tried)
            upwards = rounding & (found.first == 0) & (higher <= most[active])
            done = (relative <= max(self.tolerance, ERROR_FLOOR * self._eps)) | (tried >= MAX_STEPS)
            # What is far from rounding, and no longer improves, may be noise.
            near = errors < ROUNDING_FACTOR * found.round_off
            done |= (relative < SMOOTH_ERROR) & ((stalled > 0) & near | (tried >= SUFFICIENT_STEPS))
            done |= stalled >= patience
            done |= (4 * found.round_off > errors) & ~upwards & (errors < np.inf)
            done |= ~upwards & (lower < smallest[active])
            ends = done | rejected
            steps = np.where(upwards, higher, lower)
            if ends.any():
                now.roundoff_limited = rounding & (relative > self._eps**0.5) & (found.first == 0)
                unexplained = (errors > 4 * found.round_off) | (errors == np.inf)
                now.diverging = ~now.roundoff_limited & unexplained & (relative > DIVERGENCE_ERROR)
                now.rough = ~now.roundoff_limited & (errors > ROUNDING_FACTOR * found.round_off)
                now.rough &= (stalled > 0) & (relative > self.tolerance)
                self._finish(scheme, places[active], ends, judged, found, now)
                yield active[ends], now[ends]
                if ends.all():
                    return
                stays = ~ends
                now, table, active, top = now[stays], table[:, stays], active[stays], top[stays]
                stalled, upwards, steps = stalled[stays], upwards[stays], steps[stays]
            new = self._evaluate_steps(scheme, places[active], steps[:, np.newaxis])
            before, table = table, np.concatenate([table, new], axis=2)
            if upwards.any():  # the largest step comes first
                larger = np.concatenate([new, before], axis=2)
                table = np.where(upwards[:, np.newaxis], larger, table)
                top = top - upwards

    def _coarsened(self, scheme: Scheme, table: Array, now: Outcome) -> Array:
        """Return the table with the noise of an f that rounds its values, if it does."""
        spacing = resolution(table[4:].transpose(1, 2, 0))
        if not spacing.any():
            return table
        noise, steps = table[1], table[3]
        coarser = np.fmax(noise, scheme.round_off(spacing, steps, 1.0))
        heights = coarser * steps**scheme.derivative
        now.coarse[:] = np.where(coarser > noise, heights, 0)[:, -1]
        return np.concatenate([table[:1], coarser[np.newaxis], table[2:4]])

    def _limits(self, scheme: Scheme, table: Array) -> tuple[Limits, Array]:
        """Return the derivatives, and their errors: with half the jump of the slope at a kink."""
        quotients, noise, bends = table[:3]
        found = limits(quotients, noise, scheme.error_powers, RATIO, checked=True)
        truncation = found.truncation
        slow = truncation > SMOOTH_ERROR * abs(found.values)
        errors = np.where(slow, found.errors + (REMAINDER_FACTOR - 1) * truncation, found.errors)
        if _sees_kinks(scheme):
            jump = limits(bends, noise * 2, BEND_POWERS, RATIO)
            kink = np.fmax(abs(jump.values) - jump.errors, 0)
            # What grows towards x is a spike at x itself, seen from outside.
            rows, columns, sizes = np.arange(len(bends)), np.arange(bends.shape[1]), abs(bends)
            narrow = sizes[rows, found.last]
            inside = (columns >= found.first[:, np.newaxis]) & (columns < found.last[:, np.newaxis])
            wide = np.maximum.reduce(np.where(inside, sizes, 0), axis=1)
            spike = np.where(narrow >= wide, narrow - 2 * noise[rows, found.last], 0)
            errors = errors + np.fmax(kink, spike)
        return found, errors

    def _finish(
        self,
        scheme: Scheme,
        places: Places,
        ends: Flags,
        table: Array,
        found: Limits,
        now: Outcome,
    ) -> None:
        """Judge what has been found of elements that have ended by all that has been seen."""
        quotients, steps = table[0], table[3]
        slopes = abs(np.where(np.isfinite(quotients), quotients, 0))
        now.largest[:] = np.max(slopes, axis=1)
        now.widest[:] = steps[np.arange(len(steps)), np.argmax(slopes > 0, axis=1)]
        now.height[:] = np.max(slopes * steps**scheme.derivative, axis=1)
        rivals = found.rivals()
        for row in np.flatnonzero(ends):
            if now.rough[row]:
                self._take_for_noise(scheme, now, row, table)
            if rivals.doubts[row] < np.inf:
                self._look_into(scheme, int(places[row]), now, row, table, rivals)
            if now.diverging[row] and _grows(table[:, row]):
                now.errors[row] = np.inf

    def _take_for_noise(self, scheme: Scheme, now: Outcome, row: Any, table: Array) -> None:
        """Let what the smallest steps disagree by be noise of f at all steps.

        Runs of quotients agree by accident at times: noise is judged by those that depend on it
        most, where truncation is least.
        """
        quotients, steps = table[0, row], table[3, row]
        d, powers = scheme.derivative, scheme.error_powers
        gain = 1 / (RATIO ** -powers[0] - 1)
        pairs = (1 + gain) * quotients[1:] - gain * quotients[:-1]
        heights = abs(pairs - now.values[row]) * steps[1:] ** d / (1 + 2 * gain)
        if (heights[-NOISE_STEPS + 1 :] < heights[-NOISE_STEPS:-1] / 2).all():
            return  # what still falls is truncation
        # Truncation falls by this from step to step.
        falls = TRUNCATION_FACTOR * RATIO ** (powers[1] + d)
        heights = np.where(np.isfinite(heights), heights, 0)
        heights[1:] -= np.minimum(falls * heights[:-1], heights[1:])
        other = self._with_noise(scheme, table[:, row], np.max(heights[-NOISE_STEPS:]))
        if now.errors[row] < other[1] < np.inf:
            now.values[row], now.errors[row], now.steps[row] = other

    def _look_into(
        self, scheme: Scheme, place: int, now: Outcome, row: Any, table: Array, rivals: Rivals
    ) -> None:
        """Take what larger steps say instead, if it is jumps of f why smaller ones contradict."""
        rival, doubt = rivals.values[row], rivals.doubts[row]
        contradiction = float(abs(rival - now.values[row]))
        if now.coarse[row] > 0 or not doubt < CLEAR_SHARE * contradiction:
            return
        quotients, noise, _, steps = table[:4, row]
        d, nearest = scheme.derivative, int(rivals.last[row])
        rounding = float(noise[nearest] * steps[nearest] ** d)
        wide = {float(steps[rivals.first[row]]), float(steps[0])}
        if not any(self.jumps(place, step, contradiction, rounding) for step in sorted(wide)):
            return
        # So high are the jumps, at least.
        height = np.nanmax(abs(quotients - rival)[nearest + 1 :] * steps[nearest + 1 :] ** d)
        if height > MAX_JUMP * rounding / self._eps:
            return
        other = self._with_noise(scheme, table[:, row], height)
        now.values[row], now.errors[row], now.steps[row] = other
        now.roundoff_limited[row] = now.diverging[row] = False

    def _with_noise(self, scheme: Scheme, table: Array, height: Any) -> tuple[Any, Any, Any]:
        """Return an element's value, error and step if f is as noisy as this, or more."""
        quotients, noise, bends, steps = table[:4]
        noise = np.fmax(noise, height / steps**scheme.derivative)
        found, errors = self._limits(scheme, np.stack([quotients, noise, bends])[:, np.newaxis])
        return found.values[0], errors[0], steps[found.last[0]]

    def jumps(self, place: int, step: float, contradiction: float, rounding: float) -> bool:
        """Say whether f jumps within this step, as `fastgrad.differences.jumps.jumps` does."""
        self.evaluations += CALLS
        return jumps(self.problem, self.values, place, step, contradiction, rounding)

    def is_flat(self, place: int, step: float) -> bool:
        """Say whether f is piecewise constant, as `fastgrad.differences.jumps.is_flat` does."""
        self.evaluations += CALLS
        return is_flat(self.problem, self.values, place, step)

    def _evaluate_steps(
        self, scheme: Scheme, places: Places, steps: Array, values: Values | None = None
    ) -> Array:
        """Return the tableau's numbers at these steps, ``(4 + points, *steps.shape)``."""
        x, outer, d = self.problem.x, scheme.outer, scheme.derivative
        flat = x.view(np.ndarray).reshape(-1)[places]
        steps = representable(steps, flat[:, np.newaxis])
        points = moved(x, places.repeat(steps.shape[1]), outer, steps.reshape(-1))
        points = points.reshape(len(places), -1)
        f, raised = self.problem.f, self.raised
        measured = values_where_defined(values or self.values, f, x, places, points, raised)
        self.evaluations += points.size
        self._eps = precision(x, measured)
        seen = wide = as_floats(measured).reshape(*steps.shape, len(outer))
        if len(outer) < len(scheme.offsets):
            wide = np.concatenate([wide, np.full_like(wide[..., :1], self.base)], axis=2)
        quotients = scheme.combine(wide.reshape(-1, wide.shape[2]), steps.reshape(-1))
        quotients = quotients.reshape(steps.shape)
        # Operations inside f are rounded relative to their arguments: as if x itself were.
        distance = abs(flat.astype(np.float64))[:, np.newaxis]
        magnitude = np.maximum.reduce(abs(wide), axis=2) + distance**d * abs(quotients)
        noise = scheme.round_off(magnitude + SMALLEST_SPACING / self._eps, steps, self._eps)
        bends = np.zeros_like(quotients)
        if _sees_kinks(scheme):
            there, mirrored = wide[..., 0], wide[..., outer.index(-outer[0])]
            bends = ((there - self.base) + (mirrored - self.base)) / (2 * abs(outer[0]) * steps)
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


def contradicts(new: Array, its: Array, old: Array, error: Array) -> Flags:
    """Say where two values differ by more than both of their errors; where one is nan, not."""
    with np.errstate(invalid="ignore"):
        return np.asarray(abs(new - old) > its + error)
