"""What is the limit of difference quotients at ever smaller steps? Richardson's, with its error.

Formulas on numbers alone: nothing here calls a function that is differentiated.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

RATIO = 2
"""Each step is half of the one before: steps that are powers of two are divided by exactly."""


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
    """

    values: Array
    truncation: Array
    round_off: Array
    errors: Array
    first: NDArray[np.intp]
    last: NDArray[np.intp]


def limits(quotients: Array, noise: Array, powers: Sequence[int]) -> Limits:
    """Return the limits of quotients for steps towards zero, each with its estimated error.

    Of quotients ``q(h) = limit + c[0] h**powers[0] + c[1] h**powers[1] + ...`` at the steps h,
    h/2, h/4, ... every run of neighbours is extrapolated, by eliminating as many powers as it
    can: ``T[j..k] = T[j+1..k] + (T[j+1..k] - T[j..k-1]) / (2**power - 1)``. The run is taken
    whose estimated error is least. Its truncation is estimated by the larger one of what the last
    elimination changed, in both of the entries that it was made of: the error of the worse of the
    less accurate entries.

    Parameters
    ----------
    quotients : float array (n, m)
        One ladder a row, from the largest step to the smallest; nan where there is none.
    noise : float array (n, m)
        How wrong each quotient may be by rounding, as an absolute bound.
    powers : sequence of at least m - 1 int
        The powers of h in the quotients' truncation errors, ascending.

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
    candidates: list[tuple[Array, Array, Array]] = []
    table, weights = quotients, np.ones(1)
    with np.errstate(all="ignore"):
        for length, power in enumerate(powers[: columns - 1], start=1):
            gain = 1 / (float(RATIO) ** power - 1)
            coarse, fine = table[:, :-1], table[:, 1:]
            table = fine + gain * (fine - coarse)
            weights = (1 + gain) * np.append(0, weights) - gain * np.append(weights, 0)
            truncation = np.maximum(abs(table - fine), abs(table - coarse))
            windows = [noise[:, k : columns - length + k] for k in range(length + 1)]
            round_off = np.sum(abs(weights)[:, None, None] * windows, axis=0)
            candidates.append((table, truncation, round_off))
    entries, truncations, round_offs = (
        np.concatenate(a, axis=1) for a in zip(*candidates, strict=True)
    )
    errors = truncations + round_offs
    errors[~np.isfinite(errors)] = np.inf
    first = np.concatenate([np.arange(columns - length) for length in range(1, columns)])
    spans = np.repeat(np.arange(1, columns), np.arange(columns - 1, 0, -1))
    rows, best = np.arange(len(quotients)), np.argmin(errors, axis=1)
    least = errors[rows, best]
    found = least < np.inf
    # One run may agree with its parts by accident; two hardly do.
    second = np.sort(errors, axis=1)[:, min(1, errors.shape[1] - 1)]
    second = np.where(second < np.inf, second, least)
    excess = _excess(truncations, round_offs) * np.where(found, round_offs[rows, best], 0)
    return Limits(
        np.where(found, entries[rows, best], np.nan),
        np.where(found, truncations[rows, best], np.inf),
        np.where(found, round_offs[rows, best], np.inf),
        second + excess,
        first[best],
        (first + spans)[best],
    )


def _excess(truncations: Array, round_offs: Array) -> Array:
    """Return how many times the noise f has beyond its bound, 0 if it keeps to it.

    In a smooth function some runs converge to within the bound of their noise. Where even the
    best tenth does not, as much noise as they show is taken to be everywhere, twice.
    """
    with np.errstate(all="ignore"):
        times = np.sort(truncations / round_offs, axis=1)[:, truncations.shape[1] // 10]
    return np.where((times > 1) & (times < np.inf), 2 * times, 0.0)
