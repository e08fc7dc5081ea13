"""Richardson extrapolation: limits of quotients at falling steps, each with its estimated error.

`limits` extrapolates many sequences at once. A `Tableau` is one sequence in single numbers, to
which quotients are added one by one: for it the operations on arrays would take longer than most
functions do.

L. F. Richardson, "The approximate arithmetical solution by finite differences", Philosophical
Transactions of the Royal Society A 210 (1911), 307-357; C. J. F. Ridders, "Accurate computation of
F'(x) and F'(x)F''(x)", Advances in Engineering Software 4 (1982), 75-76, for the estimated error.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from fastgrad.typing import Array, Flags, Places

RATIO = 1 / 1.923
"""Of a step to the one before: nearly 1/2, but no two steps have a simple ratio, so that no wave
fits into all of them; and no short number, so that values of f are short only if f rounds them."""

TRUNCATION_FACTOR = 4
"""How many times larger the truncation of a smaller step may be than by its leading power."""

MIN_NOISE_STEPS = 5
"""Steps among which runs are looked at for noise, at least."""

BLOCK_ROWS = 1 << 9
"""Sequences whose runs are compared with all quotients at a time: what fits a cache is faster."""

DEVIATION_FACTOR = 4
"""Times the bounds of errors that quotients at smaller steps may differ from a limit."""


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

    @property
    def relative(self) -> Array:
        """The errors in units of the limits; infinite where there is no limit."""
        relative = self.errors / abs(self.values)
        known = np.where(np.isnan(relative), np.inf, relative)
        return np.where(self.errors == 0, 0, known)

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

    Examples
    --------
    The limit of 3 + h**2 from h = 1, 1/2 and 1/4:

    >>> limits(np.array([[4.0, 3.25, 3.0625]]), np.full((1, 3), 1e-16), [2, 4]).values
    array([3.])
    """
    n, m = quotients.shape
    if n > BLOCK_ROWS:
        blocks = [slice(start, start + BLOCK_ROWS) for start in range(0, n, BLOCK_ROWS)]
        parts = [limits(quotients[b], noise[b], powers, ratio, checked=checked) for b in blocks]
        names = [name for name in vars(parts[0]) if name != "runs"]
        columns: dict[str, Any] = {
            name: np.concatenate([vars(part)[name] for part in parts]) for name in names
        }
        return replace(parts[0], **columns)
    runs = _runs(m, ratio, powers[0], powers[1] - powers[0])
    with np.errstate(all="ignore"):
        center = _center(quotients)
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


def _center(quotients: Array) -> Array:
    """Return a quotient of each row, around which they are added up, so that equal ones stay so.

    The last is nearest to the limit, but at the smallest steps it may be nothing but rounding, and
    so large that adding it leaves no digits of the others.
    """
    sizes = np.where(np.isfinite(quotients), abs(quotients), np.inf)
    last, least = sizes[:, -1], np.argmin(sizes, axis=1)
    rows = np.arange(len(sizes))
    chosen = np.where(last <= 2 * sizes[rows, least], -1, least)
    center = quotients[rows, chosen][:, np.newaxis]
    return np.where(np.isfinite(center), center, 0)


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


# One sequence, in single numbers -----------------------------------------------------------------


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

    @property
    def relative(self) -> float:
        """The error in units of the limit."""
        return self.error / abs(self.run.value)


class Tableau:
    """Richardson tableau: quotients at steps with neighbouring numbers, and all runs of neighbours.

    Parameters
    ----------
    powers : pair of int
        The first two powers of h in the quotients' truncation errors.

    Attributes
    ----------
    quotients, noise : dict of float
        What has been added, by the numbers of the steps.
    runs : list of Run
        All of two or more neighbouring quotients.
    """

    def __init__(self, powers: tuple[int, int]) -> None:
        self._first_power, second = powers
        self._distance = second - self._first_power
        self.quotients: dict[int, float] = {}
        self.noise: dict[int, float] = {}
        self.runs: list[Run] = []
        # Of each run its error by itself, and how many times that of rounding its truncation is.
        self._errors: list[float] = []
        self._times: list[float] = []
        self._limits: dict[tuple[int, int], tuple[float, float]] = {}

    def add(self, k: int, quotient: float, noise: float) -> None:
        """Add the quotient at step k, larger or smaller than the others, and the runs with it.

        A run's limit follows from those of the runs without its first, and without its last
        quotient; the weights have alternating signs, so that their sizes add up likewise.
        """
        limits, power = self._limits, self._first_power
        limits[k, k] = quotient, noise
        others = sorted(self.quotients)
        if others and k > others[-1]:
            others.reverse()
        self.quotients[k], self.noise[k] = quotient, noise
        for other in others:  # the nearest one first
            first, last = (other, k) if other < k else (k, other)
            gain = _gain(power)
            power += self._distance
            value, bound = limits[first + 1, last]
            before, its_bound = limits[first, last - 1]
            limit = value + (value - before) * gain
            bound += (bound + its_bound) * gain
            truncation = max(abs(limit - value), abs(limit - before))
            limits[first, last] = limit, bound
            self.runs.append(Run(first, last, limit, truncation, bound))
            self._errors.append(truncation + bound)
            self._times.append(truncation / bound)

    def limit(self) -> Limit:
        """Return the limit by the run whose error is least, as `limits` chooses it."""
        return self._best(self._errors, self._excess())

    def checked_limit(self) -> Limit | None:
        """Return the same, where no smaller steps contradict; None if larger ones know better."""
        excess, errors, rivals = self._excess(), [], []
        slack = {k: noise * (DEVIATION_FACTOR + excess) for k, noise in self.noise.items()}
        smallest = max(slack)
        for run, own in zip(self.runs, self._errors, strict=True):
            beyond = self._unexplained(run, own, slack) if run.last < smallest else 0.0
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
        """Return the limit with the least error."""
        run = self.runs[errors.index(min(errors))]
        return Limit(run, sorted(errors)[1] + excess * run.round_off)

    def _excess(self) -> float:
        """Return how many times the noise f has beyond its bound, 0 if it keeps to it."""
        excess = _tenth_excess(self._times)
        if excess:
            best = self.runs[self._errors.index(min(self._errors))]
            since = min(best.first, max(self.quotients) + 1 - MIN_NOISE_STEPS)
            if since > min(self.quotients):
                pairs = zip(self.runs, self._times, strict=True)
                excess = min(excess, _tenth_excess([t for run, t in pairs if run.first >= since]))
        return excess

    def _unexplained(self, run: Run, own: float, slack: dict[int, float]) -> float:
        """Return how much farther than it may be a quotient at a smaller step is from the limit."""
        quotients, limit, allowed = self.quotients, run.value, DEVIATION_FACTOR * own
        most, scale, ratio = 0.0, 0.0, RATIO**self._first_power
        for k in range(run.last + 1, max(slack) + 1):
            off = abs(quotients[k] - limit)
            if off > slack[k] + allowed:
                if not scale:
                    own_places = range(run.first, run.last + 1)
                    scale = max([abs(quotients[j] - limit) / ratio**j for j in own_places])
                if off > slack[k] + allowed + TRUNCATION_FACTOR * scale * ratio**k:
                    most = max(most, off)
        return most


@cache
def _gain(power: int) -> float:
    """Return what a difference of neighbours is multiplied by to eliminate a power of the step."""
    return 1 / (RATIO**-power - 1)


def _tenth_excess(times: list[float]) -> float:
    """Return the excess of the best tenth of some runs, as `_excess` does."""
    tenth = sorted(times)[len(times) // 10]
    return 2 * tenth if tenth > 1 else 0.0
