"""Limits of sequences of difference quotients at ever smaller steps, with error estimates.

Formulas on numbers alone: nothing here calls a function that is differentiated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fastgrad.typing import Array

FALLS = 4
"""How many times larger the truncation of a smaller step may be than by its leading power."""

ENOUGH = 5
"""Steps among which runs are looked at for noise, at least."""

DOUBT = 4
"""Times the bounds of errors that quotients at smaller steps may differ from a limit."""


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
        smooth = np.minimum(runs.first[np.argmin(own, axis=1)], columns - ENOUGH)
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
