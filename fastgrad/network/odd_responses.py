"""Odd responses of a unit to shifts, interpolated from a few of them within a bound on the error.

Shifting one pre-activation of one sample by s changes that sample's loss l; its *odd response* is

    R(s) = l(a + s) - l(a - s) = r_0 (s/S) + r_1 (s/S)^3 + ... + r_{T-1} (s/S)^(2T-1),   |s| <= S,

up to a truncation error. R is measured at T shifts, at the Chebyshev points of s^2 in [0, S^2], and
the r_m are interpolated. The central difference of every weight into the unit is then a sum over
samples of R at s = h x.

`gradient` computes these sums; `plan_responses` chooses T by a proven bound on the error.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import cos, factorial, pi

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.kernel import tasks_for
from fastgrad.jit.vectors import LANES_PER_VECTOR
from fastgrad.network import kernels, matrix_products
from fastgrad.network.forward import Forward
from fastgrad.network.kernels import magnitude_and_nonzeros
from fastgrad.typing import Doubles

MAX_TERMS = 6

TOLERANCE = 2e-13


def gradient(run: Forward, labels: NDArray[np.int64], h: float, largest: float) -> Doubles | None:
    """Compute the central differences of the mean loss for all parameters, if that is certain.

    Parameter W[i, j] shifts unit j of sample n by +-h x[n, i], so its difference quotient is
    ``1 / (2 h N) sum over n of R[n, j](h x[n, i])`` with the odd response R, a sum of few odd
    powers (see `plan_responses`). A bias is the weight of an input that is 1.

    Parameters
    ----------
    run : Forward
        The forward pass at the parameters.
    labels : array of shape (N,)
    h : float
        The step.
    largest : float
        The largest magnitude in x.

    Returns
    -------
    array of shape (I H + H + H K + K,), or None
        None if no plan is certain to reach full precision; `plan_responses` holds the proof for
        those that are.
    """
    weights = run.w2_transposed[:-1]
    spread = float((weights.max(axis=0) - weights.min(axis=0)).max())
    reach = max(1.0, largest)  # the largest input of a weight or a bias
    plan = plan_responses(h * reach, spread)
    if plan is None:
        return None
    terms = plan.terms
    growths, scales = _constants(terms, h, reach, len(run.x))
    tasks = tasks_for(
        run.z.size * (len(run.w2_transposed) * plan.factors.size + 50 * terms) // LANES_PER_VECTOR
    )
    scratch = run.work.get("responses", (tasks, terms + plan.factors.size, LANES_PER_VECTOR))
    c = run.work.get("c", (terms, *run.z.shape))
    d = run.work.get("d", (terms, *run.p.shape))
    kernels.respond(
        tasks, run.z, run.sigmoid_slope, run.p, labels, run.w2_transposed,
        plan.points, plan.interpolation, growths, plan.factors, scales, scratch, c, d,
    )  # fmt: skip
    return run.sum_over_samples(c, d, _exact_terms(run, c, reach))


@lru_cache
def _constants(terms: int, h: float, reach: float, samples: int) -> tuple[Doubles, Doubles]:
    """Return e^s - 1 and e^-s - 1 at the shifts, and what scales the coefficients.

    Returns
    -------
    growths : array of shape (2, 2, terms)
        For the hidden layer, whose largest shift is h * reach, and the output layer, where it is h.
    scales : array of shape (2, terms)
        1 / (2 h N reach^(2m+1)), and the same with reach 1.
    """
    points, _ = interpolation(terms)
    reaches = np.array([[reach], [1.0]])
    shifts = h * reaches * points
    growths = np.stack([np.expm1(shifts), np.expm1(-shifts)], axis=1)
    powers = 2.0 * np.arange(terms) + 1
    return growths, reaches**-powers / (2 * h * samples)


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

    Solved in exact fractions: the entries reach hundreds, and what rounding would do to them does
    not cancel between the powers.
    """
    points = np.array([cos((2 * i + 1) * pi / (4 * terms)) for i in range(terms)])
    rows = [[Fraction(c) ** (2 * m + 1) for m in range(terms)] for c in points]
    inverse = _inverse(rows)
    return points, np.array([[float(entry) for entry in row] for row in inverse])


def _inverse(matrix: list[list[Fraction]]) -> list[list[Fraction]]:
    """Invert a matrix of fractions by Gauss and Jordan's elimination; its pivots are not zero."""
    size = len(matrix)
    rows = [[*row, *(Fraction(int(i == j)) for j in range(size))] for i, row in enumerate(matrix)]
    for pivot in range(size):
        rows[pivot] = [entry / rows[pivot][pivot] for entry in rows[pivot]]
        for i in range(size):
            if i != pivot:
                factor = rows[i][pivot]
                rows[i] = [a - factor * b for a, b in zip(rows[i], rows[pivot], strict=True)]
    return [row[size:] for row in rows]


def _exact_terms(run: Forward, c: Doubles, reach: float) -> int:
    """Choose how many powers of x are summed in float64; float32 suffices for those after them."""
    if run.entries is not None or run.x.shape[1] * c[0].size < matrix_products.MIN_FLOAT32_PRODUCTS:
        return len(c)
    magnitudes = [magnitude_and_nonzeros(coefficients)[0] for coefficients in c]
    return first_in_float32(magnitudes, reach, matrix_products.MAX_RUN_LENGTH)


def first_in_float32(magnitudes: Sequence[float], reach: float, run: int) -> int:
    """Choose the first term whose sum over the samples is certain to be exact enough in float32.

    Term m sums x^(2m+1) c[m] over N samples. Let both be rounded to float32 and multiplied there,
    and runs of the products be summed there. Each of these roundings moves a product by at most
    2^-24 of its size, or 2^-150 where it underflows: run + 3 roundings move the sum by at most

        N ((run + 4) 2^-24 X |c[m]| + 2^-150 (X + |c[m]| + 1))   with X = reach^(2m+1).

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
        allowed -= (run + 4) * 2**-24 * power * largest + 2**-150 * (power + largest + 1)
        if not (allowed >= 0 and run * power * largest < 2**126 and largest < 2**126):
            break
        first = m
    return first
