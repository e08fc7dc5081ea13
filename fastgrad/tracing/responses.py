"""How does a recorded loss change with each weight? Units are moved, and their responses summed up.

Weight W[i, j] moves unit j of row n of an affine stage by h X[n, i]. Where rows do not mix, the
change of the loss L from -h to h is a sum over rows of *odd unit responses*

    R[n, j](s) = l_n(a[n, j] + s) - l_n(a[n, j] - s),     L(h) - L(-h) = sum_n R[n, j](h X[n, i])

and R, an odd function of one number, is measured at a few shifts instead of one an input. So is,
for schemes that are not central, the even one, ``l_n(a + s) + l_n(a - s) - 2 l_n(a)``, for which
stands the *sign* 1, and -1 for the odd one. *Weights* say what is wanted: how much of L(h) - L(0)
and how much of L(-h) - L(0).
"""

from collections.abc import Iterator
from functools import partial
from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing.decisions import Decisions, Watch
from fastgrad.tracing.fitting import LIMIT, fit
from fastgrad.tracing.kinks import GAP, by_kinked_rows
from fastgrad.tracing.plan import Stage
from fastgrad.tracing.replay import BATCH
from fastgrad.tracing.rows import Rows

Array = NDArray[np.float64]
Weights = tuple[float, float]

MOST_VALUES = 3
"""Up to so many different inputs, responses are measured at just these shifts."""

MOST_POINTS = 1_000
"""At more shifts than that, responses are not measured: each weight is moved by itself."""

TERMS = (2, 3, 5)
"""How many odd powers are tried, in turn."""

TINY = 2.0**-24
"""A shift, relative to the largest, whose response differs from a straight line by rounding."""

NOISY = 1e-9
"""What rounding is never as large as, relative to the largest loss."""


def by_weights(rows: Rows, stage: Stage, distances: Array, weights: Weights) -> Array:
    """Return the changes of the loss with the weights, each from the row's own losses.

    No smoothness is assumed, and no independence: with ``count=1`` all rows may mix. A side whose
    weight is 0 is not looked at.

    Parameters
    ----------
    rows, stage, weights
        As for `by_responses`.
    distances : array of shape (2, I, units)
        By how much each weight is moved up, and down.

    Returns
    -------
    array of shape (I, units)
    """
    inputs = stage.inputs
    result = np.zeros((inputs.shape[1], len(rows.replay.units)))
    sides = [side for side in (0, 1) if weights[side]]
    for some in _blocks(inputs.shape[1], len(sides) * stage.node.value.size):
        of_inputs = np.moveaxis(inputs[stage.rows - 1][..., some], -1, 0)
        moved = [of_inputs * distances[side, some][:, stage.labels - 1] for side in sides]
        change = rows.changes(np.concatenate(moved) + stage.node.value).sum(axis=-1).T
        for side, its in zip(sides, np.split(change, len(sides)), strict=True):
            result[some] += weights[side] * its
    return result


def by_responses(
    rows: Rows, stage: Stage, h: float, distances: Array, weights: Weights
) -> tuple[Array, Array | None] | None:
    """Return the changes of the loss with the weights from a few responses a unit.

    The rows must not mix. Where a response is no polynomial of few terms, as where a unit passes
    the kink of a ReLU, it is measured at the very shifts that the row's inputs make.

    Parameters
    ----------
    rows : Rows
    stage : Stage
    h : float
        The step.
    distances : array of shape (2, I, units)
        By how much each weight is moved up, and down: h and -h, but for rounding.
    weights : pair of floats
        How much is wanted of what the loss changes by when weights are moved up, and down.

    Returns
    -------
    changes : array of shape (I, units)
    straight : array of shape (I, units), or None
        What of it is in proportion to the weights' moves: without it, the loss bends. None if that
        is not known.

    None if too many responses are no polynomials.
    """
    magnitudes = _few_magnitudes(stage.inputs)
    if magnitudes is not None and not magnitudes.size:
        nothing = np.zeros((stage.inputs.shape[1], len(rows.replay.units)))
        return nothing, nothing
    if magnitudes is not None:
        by_values = _by_values(rows, stage, h, distances, weights, magnitudes)
        return None if by_values is None else (by_values, None)
    largest = float(abs(stage.inputs).max())
    if not np.isfinite(largest):  # a row of its own, perhaps, but no shift for all
        return None
    noise = _noise(rows, stage, h * largest)
    if noise.max() > NOISY * abs(rows.replay.target.value).max():  # many units stand at a jump
        return None
    if _count(largest, TERMS[0]) > MOST_POINTS:
        return None
    up, down = weights
    of_sign = {
        sign: share for sign, share in ((-1, (up - down) / 2), (1, (up + down) / 2)) if share
    }
    decisions = Decisions(rows.replay, stage, h * largest)
    measured = np.zeros((0, 0))
    for terms in TERMS:
        points = _points(largest, terms)
        if len(points) != len(measured):
            watch = Watch(decisions, len(points))
            measured = _measure(rows, stage, h * largest, points, watch)
        found = fit(measured, points, terms, noise, watch.near, rows.alive, tuple(of_sign))
        if found is not None:
            coefficients, kinked = found
            shares = stage.inputs / largest
            result = np.zeros((stage.inputs.shape[1], len(rows.replay.units)))
            straight = None
            for sign, share in of_sign.items():
                first, others = _summed(shares, coefficients[sign], sign)
                if sign < 0:
                    straight = share * first
                result += share * (first + others)
            if kinked.any():
                tolerance = LIMIT * noise[:, 0]
                more = by_kinked_rows(rows, stage, h, weights, kinked, watch.unclear, tolerance)
                result += more[0]
                if straight is not None:
                    straight += more[1]
            return result, straight
    return None


def _summed(inputs: Array, coefficients: Array, sign: int) -> tuple[Array, Array]:
    """Return the sums over rows n of odd, or even, powers of inputs^power coefficients.

    That of the lowest power, and that of all others.
    """
    square = inputs.T**2
    power = inputs.T if sign < 0 else square
    first: Array = power @ coefficients[0]
    others = np.zeros_like(first)
    for coefficient in coefficients[1:]:
        power = power * square
        others += power @ coefficient
    return first, others


def shifts_of_responses(stage: Stage) -> int:
    """Return at how many shifts responses are measured, if the fewest powers do.

    If that is too often, those of the weights.
    """
    magnitudes = _few_magnitudes(stage.inputs)
    if magnitudes is not None:
        return len(magnitudes)
    count = _count(float(abs(stage.inputs).max()), TERMS[0])
    return int(count) if count <= MOST_POINTS else int(stage.inputs.shape[1])


def _few_magnitudes(inputs: Array) -> Array | None:
    """Return the magnitudes of inputs, 0 apart, or None if there are more than `MOST_VALUES`."""
    for some in (inputs.reshape(-1)[:1000], inputs):  # most often the beginning tells
        magnitudes = np.unique(abs(some))
        magnitudes = magnitudes[magnitudes > 0]
        if len(magnitudes) > MOST_VALUES:
            return None
    return magnitudes


def _by_values(
    rows: Rows, stage: Stage, h: float, distances: Array, weights: Weights, magnitudes: Array
) -> Array | None:
    """Measure the responses at all shifts that the inputs make; None if some are not finite.

    With one input, as a bias has, units are moved by just as much as the loop moves their elements.
    """
    inputs = stage.inputs
    if inputs.shape[1] == 1:
        sides = [side for side in (0, 1) if weights[side]]
        values = [*-magnitudes, *magnitudes]
        cases = [(side, v, (inputs == v) * weights[side]) for side in sides for v in values]
        cases = [(side, v, wanted) for side, v, wanted in cases if wanted.any()]
        shifts = np.stack([distances[side, 0][stage.labels - 1] * v for side, v, _ in cases])
    else:
        up, down = weights
        both = [
            (s, up * (inputs == s) + down * (inputs == -s)) for s in [*magnitudes, *-magnitudes]
        ]
        cases = [(0, s, wanted) for s, wanted in both if wanted.any()]
        shifts = h * np.array([s for _, s, _ in cases]).reshape(-1, *(1,) * stage.labels.ndim)
    change = rows.changes(stage.node.value + shifts)
    if not np.isfinite(change).all():  # it may be needed for some weights, and not for others
        return None
    wanted = np.stack([wanted for _, _, wanted in cases])
    result: Array = np.einsum("kni,ukn->iu", wanted, change, optimize=True)
    return result


def _points(largest: float, terms: int) -> Array:
    """Return the shifts at which responses are measured, as fractions of the largest.

    The largest is among them: a kink beyond the last point would not be seen. They are at most
    `GAP` steps apart, and at least one more than there are terms.
    """
    count = int(_count(largest, terms))
    return np.array([cos(i * pi / (2 * count)) for i in range(count)])


def _count(largest: float, terms: int) -> float:
    """Return at how many shifts responses are measured; inf or nan if the largest is that."""
    return float(np.maximum(terms + 1, np.ceil(pi / 2 * largest / GAP)))


def _measure(rows: Rows, stage: Stage, largest: float, points: Array, watch: Watch) -> Array:
    """Return how all losses change, of shape (points, 2, units, rows): moved up, and down."""
    result = np.empty((len(points), 2, len(rows.replay.units), rows.count))
    for some in _blocks(len(points), 2 * stage.node.value.size):
        shifts = largest * points[some].reshape(-1, *(1,) * len(stage.node.shape))
        look = partial(watch.look, shifts=np.stack([points[some], -points[some]], axis=1).ravel())
        change = rows.changes(_both_ways(stage, shifts), look=look).transpose(1, 0, 2)
        result[some] = change.reshape(-1, *result.shape[1:])
    return result


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
