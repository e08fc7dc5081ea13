"""What is the gradient of a recorded loss? Its units are moved, and their responses summed up.

Weight W[i, j] moves unit j of row n of an affine stage by h X[n, i]. Where rows do not mix, the
difference quotient of the loss is a sum over rows of *odd unit responses*

    R[n, j](s) = l_n(a[n, j] + s) - l_n(a[n, j] - s),     G[i, j] = sum_n R[n, j](h X[n, i]) / (2 h)

and R, an odd function of one number, is measured at a few shifts instead of one an input.
"""

from collections.abc import Iterator
from functools import cache
from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing.kinks import by_kinked_rows
from fastgrad.tracing.plan import Stage
from fastgrad.tracing.replay import BATCH
from fastgrad.tracing.rows import Rows

Array = NDArray[np.float64]

MOST_VALUES = 3
"""Up to so many different inputs, responses are measured at just these shifts."""

TERMS = (2, 3, 5)
"""How many odd powers are tried, in turn."""

MOST_KINKS = 0.05
"""The share of responses that may have a kink; above it, more powers are tried."""

TINY = 2.0**-24
"""A shift, relative to the largest, whose response differs from a straight line by rounding."""

LIMIT = 8
"""How many standard deviations of rounding a response may miss its polynomial by."""

NOISY = 1e-9
"""What rounding is never as large as, relative to the largest loss."""

USUAL = 2
"""How many the responses may miss theirs by in the mean: more is no rounding."""


def by_weights(rows: Rows, stage: Stage, h: float) -> Array:
    """Return the difference quotients of the weights, each from the row's own two losses.

    No smoothness is assumed, and no independence: with ``count=1`` all rows may mix.

    Returns
    -------
    array of shape (I, units)
    """
    inputs = stage.inputs
    result = np.empty((inputs.shape[1], len(rows.replay.units)))
    for some in _blocks(inputs.shape[1], 2 * stage.node.value.size):
        shifts = h * inputs[stage.rows - 1][..., some]
        change = rows.changes(_both_ways(stage, np.moveaxis(shifts, -1, 0)))
        odd = change[:, 0::2] - change[:, 1::2]
        result[some] = odd.sum(axis=-1).T / (2 * h)
    return result


def by_responses(rows: Rows, stage: Stage, h: float) -> Array | None:
    """Return the difference quotients of the weights from a few responses a unit.

    The rows must not mix. Where a response is no polynomial of few terms, as where a unit passes
    the kink of a ReLU, it is measured at the very shifts that the row's inputs make.

    Returns
    -------
    array of shape (I, units), or None
        None if too many responses are no polynomials.
    """
    magnitudes = _few_magnitudes(stage.inputs)
    if magnitudes is not None and not magnitudes.size:
        return np.zeros((stage.inputs.shape[1], len(rows.replay.units)))
    if magnitudes is not None:
        return _by_values(rows, stage, h, magnitudes)
    largest = float(abs(stage.inputs).max())
    scaled = stage.inputs / largest
    for terms in TERMS:
        found = _fit(rows, stage, h * largest, terms)
        if found is not None:
            coefficients, kinked, tolerance = found
            power = scaled.T
            result: Array = power @ coefficients[0]
            for m in range(1, terms):
                power = power * scaled.T**2
                result += power @ coefficients[m]
            result /= 2 * h
            if kinked.any():
                result += by_kinked_rows(rows, stage, h, kinked, tolerance)
            return result
    return None


def shifts_of_responses(stage: Stage) -> int:
    """Return at how many shifts responses are measured, if the fewest powers do."""
    magnitudes = _few_magnitudes(stage.inputs)
    return TERMS[0] + 1 if magnitudes is None else len(magnitudes)


def _few_magnitudes(inputs: Array) -> Array | None:
    """Return the magnitudes of inputs, 0 apart, or None if there are more than `MOST_VALUES`."""
    for some in (inputs.reshape(-1)[:1000], inputs):  # most often the beginning tells
        magnitudes = np.unique(abs(some))
        magnitudes = magnitudes[magnitudes > 0]
        if len(magnitudes) > MOST_VALUES:
            return None
    return magnitudes


def _by_values(rows: Rows, stage: Stage, h: float, magnitudes: Array) -> Array:
    """Measure the responses at all magnitudes that the inputs have."""
    shifts = h * magnitudes.reshape(-1, *(1,) * len(stage.node.shape))
    change = rows.changes(_both_ways(stage, shifts))
    result = np.zeros((stage.inputs.shape[1], len(rows.replay.units)))
    for k, magnitude in enumerate(magnitudes):
        signs = (stage.inputs == magnitude) * 1.0 - (stage.inputs == -magnitude)
        result += signs.T @ (change[:, 2 * k] - change[:, 2 * k + 1]).T
    return result / (2 * h)


@cache
def _points(terms: int) -> tuple[Array, Array, Array, Array]:
    """Return where responses are measured, and how they become coefficients and residuals.

    Returns
    -------
    points : array of shape (terms + 1,)
        As fractions of the largest shift, which is among them: a kink beyond the last point would
        not be seen.
    fit : array of shape (terms, terms + 1)
        Takes responses to the coefficients of odd powers, by least squares.
    odd, even : arrays of shape (terms + 1,)
        Unit vectors that take odd and even polynomials of so many terms to 0. No kink escapes both.
    """
    points = np.array([cos(i * pi / (2 * terms + 2)) for i in range(terms + 1)])
    powers = points[:, np.newaxis] ** (2 * np.arange(terms) + 1)
    odd = np.linalg.svd(powers.T)[2][-1]
    even = np.linalg.svd((powers * points[:, np.newaxis]).T)[2][-1]
    return points, np.linalg.pinv(powers), odd, even


def _fit(
    rows: Rows, stage: Stage, largest: float, terms: int
) -> tuple[Array, NDArray[np.bool_], Array] | None:
    """Measure responses up to a largest shift, and fit odd polynomials to them.

    Returns
    -------
    coefficients : array of shape (terms, rows, units)
        Zero where there is a kink.
    kinked : bool array of shape (rows, units)
        Where the fit is not exact to rounding.
    tolerance : array of shape (rows,)
        What rounding may do to a response.

    None if that is so for more than isolated units.
    """
    points, fit, odd, even = _points(terms)
    shifts = largest * points.reshape(-1, *(1,) * len(stage.node.shape))
    change = rows.changes(_both_ways(stage, shifts))
    response = change[:, 0::2] - change[:, 1::2]
    curvature = change[:, 0::2] + change[:, 1::2]
    residual = np.maximum(
        abs(np.einsum("i,uin->nu", odd, response)), abs(np.einsum("i,uin->nu", even, curvature))
    )
    noise = _noise(rows, stage, largest)
    if noise.max() > NOISY * abs(rows.replay.target.value).max():  # many units stand at a jump
        return None
    kinked = ~(residual <= LIMIT * noise)
    alive = rows.alive
    smooth = (residual / np.where(noise > 0, noise, 1))[alive & ~kinked]
    if kinked[alive[:, 0]].mean() > MOST_KINKS or np.sqrt(np.mean(smooth**2)) > USUAL:
        return None
    coefficients = np.einsum("mi,uin->mnu", fit, response)
    coefficients[:, kinked] = 0
    return coefficients, kinked, LIMIT * noise[:, 0]


def _noise(rows: Rows, stage: Stage, largest: float) -> Array:
    """Return the standard deviation of rounding in each row's response, of shape (rows, 1).

    Shifts are so small that the loss is a straight line: that at twice the shift the response is
    not twice as large is rounding, and so is the loss's curvature.
    """
    every = max(1, len(rows.replay.units) // 8)
    tiny = TINY * largest * np.array([1.0, 2.0]).reshape(-1, *(1,) * len(stage.node.shape))
    change = rows.changes(_both_ways(stage, tiny), rows.replay.units[::every])
    odd = (change[:, 2] - change[:, 3]) - 2 * (change[:, 0] - change[:, 1])
    even = change[:, 0] + change[:, 1]
    # The median, for a unit may stand at a kink; of a normal variable's magnitude it is 0.67.
    usual = np.median(np.maximum(abs(odd) / np.sqrt(5), abs(even)), axis=0) / 0.67
    target = rows.replay.target.value.reshape(-1)
    losses = np.bincount(rows.owners.reshape(-1), abs(target), rows.count + 1)[1:]
    return np.asarray(np.maximum(usual, np.finfo(np.float64).eps * losses)[:, np.newaxis])


def _both_ways(stage: Stage, shifts: Array) -> Array:
    """Return the stage moved up, down, up, down, ... by shifts that stand along the first axis."""
    base = stage.node.value
    values = np.empty((2 * len(shifts), *base.shape))
    values[0::2] = base + shifts
    values[1::2] = base - shifts
    return values


def _blocks(count: int, elements_each: int) -> Iterator[slice]:
    """Cut a range into slices that stand for some millions of elements each."""
    length = max(1, 8 * BATCH // elements_each)
    return (slice(k, min(k + length, count)) for k in range(0, count, length))
