"""Polynomials fitted to the responses of rows, what they miss by, and what they add up to.

Responses are odd polynomials of the shift, and curvatures even ones, of few terms. Their *signs*
are -1 and 1, as in `unit_responses`, which measures them.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgrad.typing import Array, Doubles

MAX_KINK_SHARE = 0.05
"""The share of responses that may have a kink; above it, more powers are tried."""

MAX_DEVIATIONS = 8
"""How many standard deviations of rounding a response may miss its polynomial by, at one shift."""

MAX_MEAN_DEVIATIONS = 3
"""The same in the mean over many shifts, or over the units of a row."""

SINGLE_EPS = float(np.finfo(np.float32).eps)


def odd_and_even(measured: Doubles) -> dict[int, Doubles]:
    """Return responses and curvatures, each of shape (points, units, rows), by their signs."""
    up, down = measured[:, 0], measured[:, 1]
    return {-1: up - down, 1: up + down}


def misfits(parts: dict[int, Doubles], points: Doubles, terms: int) -> Doubles:
    """Return how far responses and curvatures are from polynomials, of shape (rows, units).

    A kink at +s changes both, in proportions that no pair of an odd polynomial and an even one
    has: none escapes both.

    Parameters
    ----------
    parts : dict of arrays
        As `odd_and_even` gives them.
    points : array of shape (points,)
        The shifts, as fractions of the largest.
    terms : int
    """
    polynomials = _polynomials(tuple(points), terms)
    of_each = (_residual(part, polynomials[sign].unreached) for sign, part in parts.items())
    return np.asarray(np.maximum(*of_each).T)


def kinks(
    misfit: Doubles, freedom: int, noise: Doubles, may_have_kink: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return where a fit is not exact to rounding, or may be by chance, of shape (rows, units).

    Parameters
    ----------
    misfit : array of shape (rows, units)
    freedom : int
        How many more points there are than terms.
    noise : array of shape (rows, 1)
        The standard deviation of rounding.
    may_have_kink : bool array of shape (rows, units)
        Which responses may have a kink however well polynomials fit.
    """
    # One point may miss by more than many do in the mean.
    allowed = MAX_MEAN_DEVIATIONS + (MAX_DEVIATIONS - MAX_MEAN_DEVIATIONS) / np.sqrt(freedom)
    kinked = may_have_kink | ~(misfit <= allowed * noise)
    relative = np.where(kinked, 0, misfit / np.where(noise > 0, noise, 1))
    of_row = np.sqrt(np.mean(relative**2, axis=1, keepdims=True))
    # Where a row misses in the mean, those that miss by more are measured, and no others.
    kinked |= (of_row > MAX_MEAN_DEVIATIONS) & (relative > MAX_MEAN_DEVIATIONS)
    return np.asarray(kinked)


def are_exceptions(kinked: NDArray[np.bool_], has_loss: NDArray[np.bool_]) -> bool:
    """Say whether few responses have a kink, of the rows that have a loss."""
    responses = np.count_nonzero(has_loss) * kinked.shape[1]
    return bool(np.count_nonzero(kinked[has_loss[:, 0]]) <= MAX_KINK_SHARE * responses)


def fit(
    part: Doubles, points: Doubles, terms: int, sign: int, kinked: NDArray[np.bool_]
) -> Doubles:
    """Return the coefficients of polynomials, of shape (terms, rows, units); 0 at kinks.

    Parameters
    ----------
    part : array of shape (points, units, rows)
        Responses, or curvatures.
    points, terms
        As for `misfits`.
    sign : int
        Which of the two.
    kinked : bool array of shape (rows, units)
    """
    inverse = _polynomials(tuple(points), terms)[sign].inverse
    coefficients = np.einsum("mi,iun->mnu", inverse, part)
    coefficients[:, kinked] = 0
    return np.asarray(coefficients)


class Polynomials(NamedTuple):
    """Sums of some powers of points, as a space.

    Attributes
    ----------
    inverse : array of shape (terms, points)
        Turns values at the points into coefficients.
    unreached : array of shape (points, points - terms)
        A base of what no coefficients give.
    """

    inverse: Array
    unreached: Array


@lru_cache
def _polynomials(points: tuple[float, ...], terms: int) -> dict[int, Polynomials]:
    """Return the odd polynomials and the even ones of so many terms, by their signs."""
    column = np.array(points)[:, np.newaxis]
    odd = column ** (2 * np.arange(terms) + 1)
    return {
        sign: Polynomials(np.linalg.pinv(powers), np.linalg.svd(powers)[0][:, terms:])
        for sign, powers in ((-1, odd), (1, odd * column))
    }


def _residual(values: Doubles, unreached: Doubles) -> Doubles:
    """Return how far values are from sums of powers: the root mean square of what is left over."""
    left = np.einsum("ik,i...->k...", unreached, values)
    return np.asarray(np.sqrt(np.mean(left**2, axis=0)))


def summed(
    shares: Array,
    coefficients: dict[int, Array],
    of_sign: dict[int, float],
    noise: Array | float,
) -> tuple[Array, Array]:
    """Return the sums over rows n of powers of shares, times coefficients and what is wanted of it.

    That of the first power, and that of all others; each of shape (I, units). In single precision
    where that changes each row's part by less than its noise.
    """
    straight, others = np.zeros((2, shares.shape[1], next(iter(coefficients.values())).shape[2]))
    for sign, share in of_sign.items():
        first, *more = coefficients[sign]
        power = shares.T if sign < 0 else shares.T**2
        (straight if sign < 0 else others)[...] += power @ (share * first)
        if np.all(SINGLE_EPS * sum(map(abs, more)) <= noise):
            power = power.astype(np.float32)
        square = power**2 if sign < 0 else power
        for coefficient in more:
            power = power * square
            size = float(abs(coefficient).max(initial=0)) or 1.0
            product = power @ (coefficient / size).astype(power.dtype)
            others += np.multiply(product, share * size, dtype=np.float64)
    return straight, others
