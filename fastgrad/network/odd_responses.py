"""Odd responses of a unit to shifts, interpolated from a few of them within a bound on the error.

Shifting one pre-activation of one sample by s changes that sample's loss l; its *odd response* is

    R(s) = l(a + s) - l(a - s) = r_0 (s/S) + r_1 (s/S)^3 + ... + r_{T-1} (s/S)^(2T-1),   |s| <= S,

up to a truncation error. R is measured at T shifts, at the Chebyshev points of s^2 in [0, S^2], and
the r_m are interpolated. The central difference of every weight into the unit is then a sum over
samples of R at s = h x.

`plan_responses` chooses T by a proven bound on the error, `first_in_float32` how exactly to sum.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import cos, factorial, pi

import numpy as np

from fastgrad.typing import Doubles

MAX_TERMS = 6

TOLERANCE = 2e-13


@dataclass(frozen=True)
class InterpolationPlan:
    """The shifts at which odd responses are measured, and the matrix that interpolates them.

    Attributes
    ----------
    points : array of shape (terms,)
        The shifts as fractions of the largest, S.
    interpolation : array of shape (terms, terms)
        r_m = sum over i of interpolation[m, i] R(points[i] S).
    factors : array of shape (4, 8 or 12,)
        1/r! for r = 1, 2, ...: the terms of the series of e^u - 1 that the shifted logits need.
    """

    points: Doubles
    interpolation: Doubles
    factors: Doubles

    @property
    def terms(self) -> int:
        """T, the number of odd powers kept."""
        return len(self.points)


def plan_responses(shift: float, spread: float) -> InterpolationPlan | None:
    """Choose the fewest terms that provably reach full precision, or None where none do.

    The bound holds for a sigmoid unit that feeds a softmax with cross entropy -log(y_t + 1e-7).
    Its loss is an analytic function of a complex shift s for |s| <= rho = (pi/4) min(1, 1/(0.325
    spread)): there |sigma'| <= 0.325, so no logit moves by more than pi/4 against the label's, and
    the softmax's denominator, relative to the label's logit, keeps a real part above 0.32. With the
    unit's natural scale

        Lambda = spread (1 - p_t) p_t / (p_t + 1e-7) z (1 - z)

    the loss's derivative stays below 47 Lambda, so R(s)/s, a function of s^2, below 94 Lambda.
    Interpolating that at T Chebyshev points of s^2 leaves an error of at most

        230 Lambda (S / (2 rho))^(2T)

    The bound is crude, far above the errors that occur. A logit of the output layer,
    shifted by itself, obeys it with spread 1.

    Parameters
    ----------
    shift : float
        S, the largest shift of a pre-activation.
    spread : float
        The largest difference between two weights that leave the same unit.

    Returns
    -------
    InterpolationPlan or None
        None if shift or spread is not finite, or too large for `MAX_TERMS` terms.

    Examples
    --------
    >>> plan_responses(1e-4, 0.06).terms   # the book's step, pixels up to 1
    2
    >>> plan_responses(255e-4, 0.06).terms  # pixels up to 255
    5
    >>> plan_responses(2.55, 5.0) is None
    True
    """
    half = shift * max(1.0, 0.325 * spread) / (pi / 2)  # S / (2 rho)
    if not half < 1:  # nor nan, nor so large that its powers overflow
        return None
    moved = 0.26 * shift * spread  # the most that a logit moves; |sigma'| <= 0.26 for real shifts
    for terms in range(2, MAX_TERMS + 1):
        if not 230 * half ** (2 * terms) <= TOLERANCE:
            continue
        for series in (4, 8, 12):
            if moved**series / factorial(series + 1) <= 2**-56:
                return InterpolationPlan(*interpolation(terms), _factors(series))
    return None


@lru_cache
def _factors(count: int) -> Doubles:
    """Return 1/r! for r = 1 to count."""
    return np.array([1 / factorial(r) for r in range(1, count + 1)])


@lru_cache
def interpolation(terms: int) -> tuple[Doubles, Doubles]:
    """Return the points c_i and the inverse of the matrix c_i^(2m+1), rounded once.

    Column i of the inverse holds the coefficients of the product over j != i of
    (u - c_j^2) / (c_i^2 - c_j^2), divided by c_i. They are computed in exact fractions: they reach
    hundreds, and what rounding would do to them does not cancel between the powers.
    """
    points = np.array([cos((2 * i + 1) * pi / (4 * terms)) for i in range(terms)])
    squares = [Fraction(c) ** 2 for c in points]
    inverse = np.empty((terms, terms))
    for i, own in enumerate(squares):
        polynomial = [1 / Fraction(points[i])]
        for other in squares[:i] + squares[i + 1 :]:
            raised, lowered = [Fraction(0), *polynomial], [*polynomial, Fraction(0)]
            pairs = zip(raised, lowered, strict=True)
            polynomial = [(up - other * same) / (own - other) for up, same in pairs]
        inverse[:, i] = [float(coefficient) for coefficient in polynomial]
    return points, inverse


def first_in_float32(magnitudes: Sequence[float], reach: float, run: int) -> int:
    """Choose the first term whose sum over the samples is certain to be exact enough in float32.

    Term m sums x^(2m+1) c[m] over N samples. Let x and c[m] be rounded to float32, the square of x,
    its powers and their products with c[m] be computed there, and runs of the products be summed
    there. A rounding moves what it rounds by at most 2^-24 of its size, or 2^-150 where that
    underflows; that of x counts 2m + 1 times in its power, that of its square m times. So
    run + 4m + 3 roundings move the sum by at most

        N ((run + 4m + 5) 2^-24 X |c[m]| + 2^-150 (X + |c[m]| + 1))   with X = reach^(2m+1).

    All terms together may not exceed `TOLERANCE` of N reach |c[0]|. The |c[m]| are the largest
    magnitudes that were measured: nothing is assumed of the coefficients. In the book's case
    X |c[1]| is 1e-9 reach |c[0]|, so the bound is 1e-14 of it; what occurs is a thousandth of that.
    A bias, whose x is 1, has at most 1/reach of that error, since X >= reach: `TOLERANCE` of
    N |c[0]| again.

    Parameters
    ----------
    magnitudes : sequence of float
        The largest magnitude of each coefficient; any may be nan or inf.
    reach : float
        The largest |x|, or more.
    run : int
        How many products are summed in float32 at most.

    Returns
    -------
    int
        At least 1; the number of terms if none is certain.

    Examples
    --------
    >>> first_in_float32([1e-3, 1e-12], reach=1.0, run=200)
    1
    >>> first_in_float32([1e-3, 1e-9], reach=1.0, run=200)
    2
    """
    first = len(magnitudes)
    if not reach <= 1e3:  # whose powers float32 has
        return first
    allowed = TOLERANCE * reach * magnitudes[0]
    for m in range(first - 1, 0, -1):
        power, largest = reach ** (2 * m + 1), magnitudes[m]
        allowed -= (run + 4 * m + 5) * 2**-24 * power * largest
        allowed -= 2**-150 * (power + largest + 1)
        if not (allowed >= 0 and run * power * largest < 2**126 and largest < 2**126):
            break
        first = m
    return first
