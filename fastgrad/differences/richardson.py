"""Richardson extrapolation of f's difference quotients, over steps that are chosen as it goes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.jumps import CALLS, is_flat, jumps, resolution
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import moved, values_where_defined
from fastgrad.differences.steps import as_floats, precision, representable
from fastgrad.schemes import Scheme
from fastgrad.typing import Array, Report, Values

START = 4
"""Steps that are tried at once: two are extrapolated, a third tells how well, a fourth how fast."""

ENOUGH = 8
"""Steps after which an error that is small already is left as it is."""

TINY = 5e-324
"""The spacing of the smallest numbers."""

NEAR = 100
"""How many times its rounding error a derivative's error is where nothing else limits it."""

MOST = 17
"""Steps after which any is."""

PATIENCE = 6
"""Steps without a better estimate after which a function that does not converge is left."""

SMALL = 1e-6
"""A relative error from which the steps are small enough for f to look smooth."""

LOST = 1e-3
"""A relative error from which the first step was probably of the wrong size."""

SLOW = 4
"""How many times the last difference a slow series may still be off: for powers of h as low as 1/2
the rest is 1 / (1 - 2**-0.5) = 3.4 times as large."""

EXACT = 8
"""Rounding errors of the derivative itself that nobody needs to get below."""

RATIO = 1 / 1.923
"""Of a step to the one before: nearly 1/2, but no two steps have a simple ratio, so that no wave
fits into all of them; and no short number, so that values of f are short only if f rounds them."""

GROWING = 8
"""Steps over which quotients grow, without an end in sight, where a slope is infinite."""

STEADY = 0.95
"""How many times as large as the growth before a growth is that leads to no limit."""

PLAUSIBLE = 1e-2
"""The largest jumps, relative to f, that are taken for rounded values."""

NOISY = 3
"""Smallest steps from which the noise of f is judged."""

CLEARLY = 0.1
"""Times a contradiction that larger steps must agree to for it to be looked into."""


FALLS = 4
"""How many times larger the truncation of a smaller step may be than by its leading power."""

FEWEST = 5
"""Steps among which runs are looked at for noise, at least."""

DOUBT = 4
"""Times the bounds of errors that quotients at smaller steps may differ from a limit."""

OUTCOME = np.dtype(
    [
        *((name, float) for name in ("values", "errors", "steps", "largest", "widest", "height")),
        *((name, bool) for name in ("starved", "lost", "rough")),
        ("coarse", float),
    ]
)
"""Derivatives with respect to an element: the derivative itself, its estimated absolute error, and
the smallest step that it is made of; the largest quotient that has been seen, the largest step at
which it is not 0, and how much f has been seen to change, the largest quotient times its step;
whether a much larger first step may be better, because rounding has cost most of the digits, or a
much smaller one, because the quotients do not converge, and whether errors stopped falling far
above what rounding explains; and how wrong f may be at the smallest step by rounding its values
itself, 0 if it does not."""

Outcome = Any
"""A record array of `OUTCOME`."""


def nothing_yet(first: Array) -> Outcome:
    """Return that nothing has been found yet, from these first steps."""
    outcome: Outcome = np.zeros(len(first), OUTCOME).view(np.recarray)
    outcome.values, outcome.errors = np.nan, np.inf
    outcome.steps = outcome.widest = first
    return outcome


def step_at(rung: Any) -> Any:
    """Return the step at a rung of the ladder in units of the first one, which is at rung 0.

    Examples
    --------
    >>> [round(float(step_at(k)), 3) for k in (-1, 0, 1, 2, 3)]
    [1.923, 1.0, 0.52, 0.27, 0.141]
    """
    return RATIO ** np.asarray(rung, dtype=float)


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
    rivals, doubts : array (n,)
        What larger steps say who agree among themselves, and how far they are from agreeing; nan
        and infinite where smaller steps contradict no such limit.
    widest : int array (n,)
        The column of the largest step that the rival is made of.
    nearest : int array (n,)
        The column of its smallest step.
    """

    values: Array
    truncation: Array
    round_off: Array
    errors: Array
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    rivals: Array
    doubts: Array
    widest: NDArray[np.intp]
    nearest: NDArray[np.intp]


def limits(
    quotients: Array,
    noise: Array,
    powers: Sequence[int],
    steps: Sequence[float] | None = None,
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
        One ladder a row, from the largest step to the smallest; nan where there is none.
    noise : float array (n, m)
        How wrong each quotient may be by rounding, as an absolute bound.
    powers : sequence of at least m - 1 int
        The powers of h in the quotients' truncation errors, ascending, equally far apart.
    steps : sequence of m float, optional
        The steps, in any unit; by default 1, 1/2, 1/4, ...
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
    columns = quotients.shape[1]
    h = np.array(steps if steps is not None else 0.5 ** np.arange(columns), dtype=float)
    runs = _runs(tuple(h.tolist()), powers[0], powers[1] - powers[0] if len(powers) > 1 else 1)
    n, count = len(quotients), len(runs.weights)
    with np.errstate(all="ignore"):
        # Around one of them: what is equal stays so.
        center = np.nan_to_num(quotients[:, -1:], nan=0.0, posinf=0.0, neginf=0.0)
        entries, round_offs = np.zeros((n, count), quotients.dtype), np.zeros((n, count))
        for k in range(columns):
            within = runs.weights[:, k] != 0
            weights = runs.weights[within, k]
            entries[:, within] += weights * (quotients[:, k : k + 1] - center)
            round_offs[:, within] += abs(weights) * noise[:, k : k + 1]
        entries += center
        without = [np.concatenate([quotients, entries], axis=1)[:, part] for part in runs.parts]
        truncations = np.maximum(abs(entries - without[0]), abs(entries - without[1]))
        own = truncations + round_offs
        own[~np.isfinite(own)] = np.inf
        # With large steps f may be far from smooth.
        smooth = np.minimum(runs.first[np.argmin(own, axis=1)], columns - FEWEST)
        excess = np.minimum(
            *(
                _excess(truncations, round_offs, runs.first >= start[:, np.newaxis])
                for start in (np.zeros(n), smooth)
            )
        )
        errors = own
        if checked:
            slack = noise * (DOUBT + excess[:, np.newaxis])
            errors = own + _unexplained(quotients, slack, entries, own, runs, h, powers[0])
            errors[np.isnan(errors)] = np.inf
    rows, best = np.arange(n), np.argmin(errors, axis=1)
    found = errors[rows, best] < np.inf
    # One run may agree with its parts by accident; two hardly do.
    second = np.sort(errors, axis=1)[:, min(1, errors.shape[1] - 1)]
    second = np.where(second < np.inf, second, errors[rows, best])
    values = np.where(found, entries[rows, best], np.nan)
    with np.errstate(invalid="ignore"):
        excess = excess * np.where(found, round_offs[rows, best], 0)
        # Larger steps that agree among themselves, and not with what is taken.
        apart = abs(entries - values[:, np.newaxis])
        rival = (errors > own + apart / 2) & (runs.last < runs.last[best][:, np.newaxis])
        doubts = np.where(rival, own, np.inf)
        other = np.argmin(doubts, axis=1)
    return Limits(
        values,
        np.where(found, truncations[rows, best], np.inf),
        np.where(found, round_offs[rows, best], np.inf),
        second + excess,
        runs.first[best],
        runs.last[best],
        np.where(doubts[rows, other] < np.inf, entries[rows, other], np.nan),
        doubts[rows, other],
        runs.first[other],
        runs.last[other],
    )


@dataclass(frozen=True, eq=False)
class _Runs:
    """All runs of two or more neighbouring steps.

    Attributes
    ----------
    weights : array (runs, m)
        Of the quotients in the limit; 0 outside of the run.
    first, last : int array (runs,)
        Where a run begins and ends.
    parts : pair of int array (runs,)
        The runs without the first, and without the last step: indices into the quotients and the
        runs after them.
    """

    weights: Array
    first: NDArray[np.intp]
    last: NDArray[np.intp]
    parts: tuple[NDArray[np.intp], NDArray[np.intp]]


@lru_cache(maxsize=256)
def _runs(steps: tuple[float, ...], power: int, distance: int) -> _Runs:
    """Return all runs for powers that begin with one and are so far apart.

    ``w[i]`` is proportional to ``h[i]**-power / prod(h[i]**distance - h[j]**distance)``: divided
    differences in ``h**distance`` leave nothing of lower powers.
    """
    m, h = len(steps), np.array(steps)
    numbers = {(k, k): k for k in range(m)}
    weights: list[Array] = []
    first, last = [], []
    for length in range(1, m):
        for start in range(m - length):
            numbers[start, start + length] = m + len(weights)
            some = h[start : start + length + 1] / h[start]
            apart = some[:, np.newaxis] ** distance - some**distance
            np.fill_diagonal(apart, 1)
            row = np.zeros(m)
            own = 1 / (some**power * np.prod(apart, axis=1))
            row[start : start + length + 1] = own / own.sum()
            weights.append(row)
            first.append(start)
            last.append(start + length)
    ends = [*zip(first, last, strict=True)]
    return _Runs(
        np.array(weights),
        np.array(first),
        np.array(last),
        (
            np.array([numbers[a + 1, b] for a, b in ends]),
            np.array([numbers[a, b - 1] for a, b in ends]),
        ),
    )


def _unexplained(
    quotients: Array, slack: Array, entries: Array, own: Array, runs: _Runs, h: Array, power: int
) -> Array:
    """Return how much farther than it may be a quotient at a smaller step is from each limit."""
    columns = quotients.shape[1]
    result = np.zeros_like(own)
    off = abs(quotients[:, :, np.newaxis] - entries[:, np.newaxis, :])  # (n, m, runs)
    inside = runs.weights.T != 0
    # What the run's own quotients are off by falls with this power of the step.
    scale = np.where(inside, off / h[:, np.newaxis] ** power, 0).max(axis=1)
    for k in range(2, columns):
        after = runs.last < k
        allowed = slack[:, k : k + 1] + DOUBT * own[:, after]
        allowed += FALLS * scale[:, after] * h[k] ** power
        excess = off[:, k, after] - allowed
        result[:, after] = np.fmax(result[:, after], np.where(excess > 0, off[:, k, after], 0))
    return result


def _excess(truncations: Array, round_offs: Array, among: NDArray[np.bool_]) -> Array:
    """Return how many times the noise f has beyond its bound, 0 if it keeps to it.

    In a smooth function some runs converge to within the bound of their noise. Where even the
    best tenth of those that begin where f is smooth does not, as much noise as they show is taken
    to be everywhere, twice.
    """
    with np.errstate(all="ignore"):
        times = np.where(among, truncations / round_offs, np.nan)
        times = np.sort(times, axis=1)[np.arange(len(times)), np.sum(among, axis=1) // 10]
    return np.where((times > 1) & (times < np.inf), 2 * times, 0.0)


class Ladder:
    """The difference quotients of one scheme at a geometric sequence of steps, for some of x.

    Parameters
    ----------
    problem : Problem
        What is differentiated.
    values : callable
        How f is evaluated.
    base : float
        f at x, for schemes that need it and for noticing kinks; nan if it is not known.
    scheme : Scheme
        Real; used instead of the problem's.
    first : callable, optional
        How f is evaluated at the steps that are tried at once.
    ended : callable, optional
        Told for how many elements more there is nothing left to be done.
    patience : int, optional
        Steps without a better estimate after which an element is left.

    Attributes
    ----------
    raised : dict
        What f has raised when an element was moved, by the index of the element.
    """

    def __init__(
        self,
        problem: Problem,
        values: Values,
        base: Any,
        scheme: Scheme,
        first: Values | None = None,
        ended: Report | None = None,
        patience: int = PATIENCE,
    ) -> None:
        self.problem, self.values, self.base, self.scheme = problem, values, base, scheme
        self.first, self.ended = first or values, ended or (lambda elements: None)
        self.patience = patience
        self.outer = scheme.outer
        self.sees_kinks = scheme.is_central and scheme.derivative == 1
        distance = 2 if scheme.is_symmetric else 1
        self.powers = [scheme.accuracy + distance * k for k in range(MOST)]
        self.evaluations = 0
        self.raised: dict[int, Exception] = {}

    def climb(
        self, places: NDArray[np.intp], first: Array, most: Array, tolerance: float
    ) -> Outcome:
        """Return the derivatives with respect to the elements of x at these places.

        Parameters
        ----------
        places : int array (n,)
            Indices into x in C order.
        first, most : float array (n,)
            The step to begin with, a power of two, and the largest one that is allowed.
        tolerance : float
            The relative error that is small enough.
        """
        with np.errstate(all="ignore"):
            return self._climb(places, first, most, tolerance)

    def _climb(
        self, places: NDArray[np.intp], first: Array, most: Array, tolerance: float
    ) -> Outcome:
        count = len(places)
        outcome = nothing_yet(first)
        x = self.problem.x.view(np.ndarray).reshape(-1)[places]
        smallest = 2 * np.spacing(abs(x)).astype(float)
        active, top, waited = np.arange(count), np.zeros(count, int), np.zeros(count, dtype=int)
        raised = np.zeros(count, dtype=bool)
        rungs, seen = self._rungs(self.first, places, first[:, None] * step_at(np.arange(START)))
        while True:
            exact, rungs = rungs, self._coarsened(rungs, seen)
            if rungs is not exact:
                heights = (rungs[1] * rungs[3] ** self.scheme.derivative)[:, -1]
                outcome.coarse[active] = np.where(rungs[1, :, -1] > exact[1, :, -1], heights, 0)
            found, errors = self._limits(rungs)
            relative = errors / abs(found.values)
            relative = np.where(errors == 0, 0, np.where(np.isnan(relative), np.inf, relative))
            before = outcome.errors[active]
            # Far out, f may be flat, or seem to be: what contradicts smaller steps is not believed.
            astray = raised & _contradicts(found.values, errors, outcome.values[active], before)
            # Smaller steps may correct what has been found, larger ones only improve it.
            taken = ~astray & ~(raised & ~(errors < before))
            chosen, rows = active[taken], np.arange(len(active))
            outcome.values[chosen] = found.values[taken]
            outcome.errors[chosen] = errors[taken]
            outcome.steps[chosen] = rungs[3][rows, found.last][taken]
            slopes = abs(np.where(np.isfinite(rungs[0]), rungs[0], 0))
            outcome.largest[active] = np.max(slopes, axis=1)
            outcome.widest[active] = rungs[3][rows, np.argmax(slopes > 0, axis=1)]
            outcome.height[active] = np.max(slopes * rungs[3] ** self.scheme.derivative, axis=1)
            rounding = found.round_off > found.truncation
            starved = rounding & (relative > self._eps**0.5) & (found.first == 0)
            outcome.starved[active] = starved
            unexplained = (errors > 4 * found.round_off) | (errors == np.inf)
            outcome.lost[active] = ~starved & unexplained & (relative > LOST)
            waited = np.where((errors < 0.5 * before) | (errors == np.inf), 0, waited + 1)
            rough = ~starved & (errors > NEAR * found.round_off) & (waited > 0)
            outcome.rough[active] = rough & (relative > tolerance)
            tried = rungs.shape[2]
            bottom = top + tried - 1
            higher, lower = first[active] * step_at(top - 1), first[active] * step_at(bottom + 1)
            upwards = rounding & (found.first == 0) & (higher <= most[active])
            small = relative < SMALL
            done = (relative <= max(tolerance, EXACT * self._eps)) | (tried >= MOST)
            # What is far from rounding, and no longer improves, may be noise.
            near = errors < NEAR * found.round_off
            done |= small & ((waited > 0) & near | (tried >= ENOUGH)) | (waited >= self.patience)
            done |= (4 * found.round_off > errors) & ~upwards & (errors < np.inf)
            done |= ~upwards & (lower < smallest[active])
            ends = done | astray
            for row in np.flatnonzero(ends & outcome.rough[active]):
                self._take_for_noise(outcome, active[row], rungs[:, row])
            for row in np.flatnonzero(ends & (found.doubts < np.inf)):
                self._look_into(places, outcome, active[row], rungs[:, row], found, row)
            stays = ~ends
            for row in np.flatnonzero(~stays & outcome.lost[active]):
                if _grows(rungs[:, row]):
                    outcome.errors[active[row]] = np.inf
            self.ended(int(np.count_nonzero(~stays)))
            if not stays.any():
                return outcome
            active, waited, upwards = active[stays], waited[stays], upwards[stays]
            rungs, seen = exact[:, stays], seen[stays]
            top, bottom = top[stays], bottom[stays]
            top, raised = np.where(upwards, top - 1, top), upwards
            steps = np.where(upwards, higher[stays], lower[stays])[:, None]
            new, values = self._rungs(self.values, places[active], steps)
            rungs = np.where(
                upwards[:, None],
                np.concatenate([new, rungs], axis=2),
                np.concatenate([rungs, new], axis=2),
            )
            seen = np.where(
                upwards[:, None, None],
                np.concatenate([values, seen], axis=1),
                np.concatenate([seen, values], axis=1),
            )

    def _coarsened(self, rungs: Array, values: Array) -> Array:
        """Return the rungs with the noise of an f that rounds its values, if it does."""
        spacing = resolution(values)
        if not spacing.any():
            return rungs
        quotients, noise, bends, steps = rungs
        coarse = self.scheme.round_off(spacing, steps, 1.0)
        return np.stack([quotients, np.fmax(noise, coarse), bends, steps])

    def _limits(self, rungs: Array) -> tuple[Limits, Array]:
        """Return the derivatives, and their errors: with half the jump of the slope at a kink."""
        quotients, noise, bends, _ = rungs
        steps = step_at(np.arange(quotients.shape[1])).tolist()  # in units of the largest
        found = limits(quotients, noise, self.powers, steps, checked=True)
        errors = found.errors
        slow = found.truncation > SMALL * abs(found.values)
        errors[slow] += (SLOW - 1) * found.truncation[slow]
        if self.sees_kinks:
            jump = limits(bends, noise * 2, range(1, 2 * MOST, 2), steps)
            kink = np.fmax(abs(jump.values) - jump.errors, 0)
            # What grows towards x is a spike at x itself, seen from outside.
            rows = np.arange(len(bends))
            narrow = abs(bends[rows, found.last])
            columns = np.arange(bends.shape[1])
            inside = (columns >= found.first[:, None]) & (columns < found.last[:, None])
            wide = np.where(inside, abs(bends), 0).max(axis=1)
            spike = np.where(narrow >= wide, narrow - 2 * noise[rows, found.last], 0)
            errors = errors + np.fmax(kink, spike)
        return found, errors

    def _take_for_noise(self, outcome: Outcome, element: Any, rungs: Array) -> None:
        """Let what the smallest steps disagree by be noise of f at all steps.

        Runs of quotients agree by accident at times: noise is judged by those that depend on it
        most, where truncation is least.
        """
        quotients, noise, bends, steps = rungs
        d, value = self.scheme.derivative, outcome.values[element]
        gain = 1 / (RATIO ** -self.powers[0] - 1)
        pairs = (1 + gain) * quotients[1:] - gain * quotients[:-1]
        heights = abs(pairs - value) * steps[1:] ** d / (1 + 2 * gain)
        if (heights[-NOISY + 1 :] < heights[-NOISY:-1] / 2).all():
            return  # what still falls is truncation
        # Truncation falls by this from step to step.
        falls = FALLS * RATIO ** (self.powers[1] + d)
        heights = np.where(np.isfinite(heights), heights, 0)
        heights[1:] -= np.minimum(falls * heights[:-1], heights[1:])
        height = np.max(heights[-NOISY:])
        rungs = np.stack([quotients, np.fmax(noise, height / steps**d), bends, steps])
        found, errors = self._limits(rungs[:, np.newaxis])
        if np.isfinite(errors[0]) and errors[0] > outcome.errors[element]:
            outcome.values[element], outcome.errors[element] = found.values[0], errors[0]
            outcome.steps[element] = steps[found.last[0]]

    def _look_into(
        self,
        places: NDArray[np.intp],
        outcome: Outcome,
        element: Any,
        rungs: Array,
        found: Limits,
        row: Any,
    ) -> None:
        """Take what larger steps say instead, if it is jumps of f why smaller ones contradict."""
        rival, doubt = found.rivals[row], found.doubts[row]
        contradiction = float(abs(rival - outcome.values[element]))
        if outcome.coarse[element] > 0 or not doubt < CLEARLY * contradiction:
            return
        quotients, noise, bends, steps = rungs
        d, nearest = self.scheme.derivative, int(found.nearest[row])
        rounding = float(noise[nearest] * steps[nearest] ** d)
        wide = {float(steps[found.widest[row]]), float(steps[0])}
        place = int(places[element])
        if not any(self.jumps(place, step, contradiction, rounding) for step in sorted(wide)):
            return
        # So high are the jumps, at least.
        height = np.nanmax(abs(quotients - rival)[nearest + 1 :] * steps[nearest + 1 :] ** d)
        if height > PLAUSIBLE * rounding / self._eps:
            return
        noise = np.maximum(noise, height / steps**d)
        again, errors = self._limits(np.stack([quotients, noise, bends, steps])[:, np.newaxis])
        outcome.values[element], outcome.errors[element] = again.values[0], errors[0]
        outcome.steps[element] = steps[again.last[0]]
        outcome.starved[element] = outcome.lost[element] = False

    def jumps(self, place: int, step: float, contradiction: float, rounding: float) -> bool:
        """Say whether f jumps within this step, as `fastgrad.differences.jumps.jumps` does."""
        self.evaluations += CALLS
        return jumps(self.problem, self.values, place, step, contradiction, rounding)

    def is_flat(self, place: int, step: float) -> bool:
        """Say whether f is piecewise constant, as `fastgrad.differences.jumps.is_flat` does."""
        self.evaluations += CALLS
        return is_flat(self.problem, self.values, place, step)

    def _rungs(self, values: Values, places: NDArray[np.intp], steps: Array) -> tuple[Array, Array]:
        """Return quotients, their noise, bends and steps, an array ``(4, *steps.shape)``; and f."""
        x, outer = self.problem.x, self.outer
        flat = x.view(np.ndarray).reshape(-1)[places]
        steps = np.stack([representable(column, flat) for column in steps.T], axis=1)
        points = np.concatenate(
            [moved(x, places, outer, steps[:, k]) for k in range(steps.shape[1])], axis=1
        )
        f, raised = self.problem.f, self.raised
        measured = values_where_defined(values, f, x, places, points, raised)
        self.evaluations += points.size
        self._eps = precision(x, measured)
        seen = wide = as_floats(measured).reshape(*steps.shape, len(outer))
        if len(outer) < len(self.scheme.offsets):
            wide = np.concatenate([wide, np.full_like(wide[..., :1], self.base)], axis=2)
        with np.errstate(all="ignore"):
            quotients = self.scheme.combine(wide.reshape(-1, wide.shape[2]), steps.reshape(-1))
            quotients = quotients.reshape(steps.shape)
            distance = abs(flat.astype(float))[:, None]
            # Operations inside f are rounded relative to their arguments: as if x itself were.
            magnitude = abs(wide).max(axis=2) + distance**self.scheme.derivative * abs(quotients)
            noise = self.scheme.round_off(magnitude + TINY / self._eps, steps, self._eps)
            bends = np.zeros_like(quotients)
            if self.sees_kinks:
                there, mirrored = wide[..., 0], wide[..., self.outer.index(-self.outer[0])]
                distances = abs(self.outer[0]) * steps
                bends = ((there - self.base) + (mirrored - self.base)) / (2 * distances)
        return np.stack([quotients, noise, bends, steps]), seen


def _grows(rungs: Array) -> bool:
    """Say whether quotients grow towards x without an end in sight, as at an infinite slope."""
    quotients, noise, _, steps = rungs[:, -GROWING - 1 :]
    with np.errstate(all="ignore"):
        growth = np.diff(quotients)
        rates = growth / -np.diff(np.log(steps))
        steady = abs(rates[1:]) >= STEADY * abs(rates[:-1])
        seen = (rates * quotients[-1] > 0) & (abs(growth) > 4 * noise[1:])
        return len(rates) == GROWING and bool(steady.all() and seen.all())


def contradicts(new: Outcome, old: Outcome) -> NDArray[np.bool_]:
    """Say where two outcomes differ by more than both of their errors."""
    return _contradicts(new.values, new.errors, old.values, old.errors)


def _contradicts(new: Array, its: Array, old: Array, error: Array) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(abs(new - old) > its + error)  # not where one of them is nan
