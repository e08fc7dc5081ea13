"""Responses of the loss to shifts of a unit: measured at few shifts, fitted, summed over rows.

Weight W[i, j] moves unit j of row n of an affine stage by h X[n, i]. Where rows do not mix, the
change of the loss L from -h to h is a sum over rows of *odd unit responses*

    R[n, j](s) = l_n(a[n, j] + s) - l_n(a[n, j] - s),     L(h) - L(-h) = sum_n R[n, j](h X[n, i])

and R, an odd function of one number, is measured at a few shifts instead of one an input. So is,
for schemes that are not central, the even one, ``l_n(a + s) + l_n(a - s) - 2 l_n(a)``, for which
stands the *sign* 1, and -1 for the odd one. *Weights* say what is wanted: how much of L(h) - L(0)
and how much of L(-h) - L(0).

`by_responses` does this. Where it cannot, as where rows mix, `by_weights` moves every weight by
itself, and where there is no affine stage, `by_elements` every element of x.

Where a response was measured at one size of moves only, what is in proportion to the moves is not
known. All of it is, if the loss does not bend: what a move up and a move down change the loss by
then adds up to almost nothing. Where the sum stands out, there is a kink within the move, as a
rule, and the change is measured once more, by small moves (`straightened`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from math import cos, pi

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing.affine import Stage, UnitIds
from fastgrad.tracing.fitting import (
    MAX_DEVIATIONS,
    are_exceptions,
    fit,
    kinks,
    misfits,
    odd_and_even,
    summed,
)
from fastgrad.tracing.kinks import by_kinked_rows
from fastgrad.tracing.linear_pieces import by_linear_piece
from fastgrad.tracing.operations import Node
from fastgrad.tracing.picks import picked
from fastgrad.tracing.replay import BATCH_ELEMENTS, Outcome
from fastgrad.tracing.row_losses import RowLosses
from fastgrad.tracing.smoothness import NonSmoothPlaces, SmoothnessMonitor, is_quadratic
from fastgrad.typing import Array, Places

Weights = tuple[float, float]
"""How much is wanted of L(h) - L(0), and of L(-h) - L(0)."""

MAX_GAP_STEPS = 5
"""How many steps lie between two measured shifts at most. What is narrower, and over at both of
them, is found by `fastgrad.tracing.smoothness`."""

MAX_POINTS = 1_000
"""If more shifts were needed, responses are not measured: each weight is moved by itself."""

TERM_COUNTS = (2, 3, 5)
"""The numbers of odd powers that are tried, in turn."""

ROUNDOFF_SHIFT = 2.0**-24
"""A shift, relative to the largest, whose response differs from a straight line by rounding."""

MAX_NOISE = 1e-9
"""Rounding is always smaller than this, relative to the largest loss."""

SHRINK_FACTOR = 64
"""How many times smaller than a move that is at which its slope is measured."""

MAX_UNEVEN_SHARE = 0.1
"""The share of changes that may stand out."""

UNEVEN_FACTOR = 4
"""How many times larger than all others, but for that share, a sum is that stands out."""

MAX_UNITS_SHARE = 0.25
"""The share of units that may be moved once more: of each, few rows may stand out."""

MIN_ROUNDINGS = 16
"""How many times the unit of rounding it is at least."""

EPS = float(np.finfo(np.float64).eps)


@dataclass(eq=False)
class Changes:
    """The changes of a term, one for each moved element of x, or each weight of a stage.

    Attributes
    ----------
    wanted : array
        By the weights of moves up and down that were asked for.
    straight : array, or None if it is not known
        The part in proportion to the moves.
    uneven : array or None
        If straight was not measured everywhere: how large what moves up and down add up to is.
        Without it, it was measured.
    bends : array or None
        The same with its sign: half of wanted plus bends is what moves up change the term by, as
        weighted. None if that is not known.
    """

    wanted: Array
    straight: Array | None = None
    uneven: Array | None = None
    bends: Array | None = None


def by_responses(
    rows: RowLosses, stage: Stage, x: Array, h: float, weights: Weights
) -> Changes | None:
    """Return the changes of the loss with the weights from a few responses a unit.

    The rows must not mix. Where a response is no polynomial of few terms, as where a unit passes
    the kink of a ReLU, it is measured at the very shifts that the row's inputs make.

    Parameters
    ----------
    rows : RowLosses
    stage : Stage
    x : array (elements of x,)
    h : float
        The step.
    weights : pair of floats
        How much is wanted of what the loss changes by when weights are moved up, and down.

    Returns
    -------
    Changes
        Of shape (I, units). None if too many responses are no polynomials.
    """
    magnitudes = stage.few_magnitudes
    if magnitudes is not None and not magnitudes.size:
        nothing = np.zeros((stage.inputs.shape[1], len(rows.replay.units)))
        return Changes(nothing, nothing)
    if magnitudes is not None:
        return _by_values(rows, stage, x, h, weights, magnitudes)
    largest = stage.largest_input
    if not np.isfinite(largest):  # a row of its own, perhaps, but no shift for all
        return None
    if _count(largest, TERM_COUNTS[0]) > MAX_POINTS:
        return None
    non_smooth = NonSmoothPlaces(rows.replay, stage, rows.row_ids)
    moves = Moves(rows, stage, h * largest, non_smooth.straight_end)
    losses = abs(rows.replay.target.value)
    of_sum = EPS * losses.sum() / rows.count  # as much of its rounding as comes to a row
    noise: Array | None = None
    up, down = weights
    of_sign = {
        sign: share for sign, share in ((-1, (up - down) / 2), (1, (up + down) / 2)) if share
    }
    points = np.zeros(0)
    for terms in TERM_COUNTS:
        wanted = _points(largest, terms)
        if len(wanted) != len(points):
            points = wanted
            monitor = SmoothnessMonitor(non_smooth, len(points))
            parts = odd_and_even(_measure(moves, points, monitor))
        misfit, kinked = misfits(parts, points, terms), monitor.may_have_kink
        of_unit = np.where(kinked, 0, misfit).mean(axis=0)
        if noise is not None or not of_unit.max() <= MAX_DEVIATIONS * of_sum:
            noise = _noise(moves) if noise is None else noise
            if noise.max() > MAX_NOISE * losses.max():  # many units stand at a jump
                return None
            kinked = kinks(misfit, len(points) - terms, noise, kinked)
        if are_exceptions(kinked, rows.has_loss):
            coefficients = {sign: fit(parts[sign], points, terms, sign, kinked) for sign in of_sign}
            least = of_sum if noise is None else noise
            straight, others = summed(stage.inputs / largest, coefficients, of_sign, least)
            if kinked.any():
                more = by_kinked_rows(rows, stage, h, weights, kinked, non_smooth.rows)
                straight += more[1]
                others += more[0] - more[1]
            others += straight
            return Changes(others, straight if -1 in of_sign else None)
    return None


def shifts_of_responses(stage: Stage) -> int:
    """Return at how many shifts responses are measured, if the fewest powers do.

    If that is too often, those of the weights.
    """
    magnitudes = stage.few_magnitudes
    if magnitudes is not None:
        return len(magnitudes)
    count = _count(stage.largest_input, TERM_COUNTS[0])
    return int(count) if count <= MAX_POINTS else len(stage.used_inputs)


def by_weights(rows: RowLosses, stage: Stage, x: Array, h: float, weights: Weights) -> Changes:
    """Return the changes of the loss with the weights, each from the row's own losses.

    No smoothness is assumed, and no independence: with ``count=1`` all rows may mix. A side whose
    weight is 0 is not looked at.

    Parameters
    ----------
    rows, stage, x, h, weights
        As for `by_responses`.

    Returns
    -------
    Changes
        Of shape (I, units).
    """
    largest = float(abs(_distances(stage, x, h)).max(initial=0))
    rows, stage = picked(rows, stage, largest) or (rows, stage)
    shape, units = stage.where.shape, rows.replay.units
    sides = [side for side in (0, 1) if weights[side]]
    change = np.zeros((2, *shape))

    def moved(inputs: Places, size: float, units: Places) -> Array:
        of_units, of_rows = (_without_repeats(ids) - 1 for ids in (stage.unit_ids, stage.rows))
        if (inputs == inputs[:, :1]).all():  # all units are moved by the same ones
            of_inputs = stage.inputs.T[inputs[:, 0]][:, of_rows]
        else:
            of_inputs = stage.inputs.T[inputs][:, of_units, of_rows]
        distances = _distances(stage, x, size, inputs)[:, :, of_units]
        values = np.empty((len(sides), len(of_inputs), *stage.node.shape))
        for of_side, side in zip(values, sides, strict=True):  # with little memory at a time
            np.multiply(of_inputs, distances[side], out=of_side)
            of_side += stage.node.value
        values = values.reshape(-1, *stage.node.shape)
        change = rows.changes(values, units).sum(axis=-1)
        return np.asarray(change.T.reshape(len(sides), len(of_inputs), -1))

    found = None
    if weights[0] == -weights[1]:
        up, down = _distances(stage, x, h)
        found = by_linear_piece(rows, stage, (up - down) / 2)
    if found is None:
        is_left = np.zeros(shape, bool)
        is_left[stage.used_inputs] = True
        rows.replay.compile_if_slow(len(sides) * len(stage.used_inputs))
    else:
        change, is_left = found.change, ~found.is_known
    # No more inputs at a time than what one unit changes has room for, but some.
    largest_mixed = rows.replay.largest
    size = max(stage.node.value.size, largest_mixed, min(8 * largest_mixed, BATCH_ELEMENTS // 2))

    def measure(change: Array, is_left: NDArray[np.bool_], distance: float) -> None:
        counts = is_left.sum(axis=0)
        inputs = np.argsort(~is_left, axis=0, kind="stable")  # those that are left come first
        for start, end in pairwise([0, *np.unique(counts[counts > 0])]):
            of_units = np.flatnonzero(counts >= end)
            for block in _blocks(end - start, len(sides) * size):
                each = inputs[start:end][block]
                where = np.array(sides)[:, np.newaxis, np.newaxis], each[:, of_units], of_units
                change[where] = moved(each, distance, units[of_units])

    measure(change, is_left, h)
    wanted = np.tensordot(weights, change, 1)
    if weights[0] != -weights[1]:
        return Changes(wanted)

    def again(places: Places) -> Array:
        result, is_left = np.zeros((2, *shape)), np.zeros(shape, bool)
        is_left.reshape(-1)[places] = True
        measure(result, is_left, h / SHRINK_FACTOR)
        return result.reshape(2, -1)[:, places].T

    each = change.reshape(2, -1).T
    if found is not None:  # as if no decision changed: that is not even, but its slope is known
        own = np.stack([found.slopes, -found.slopes], axis=-1)
        each = np.where(found.has_slope[..., np.newaxis], own, change.transpose(1, 2, 0))
        each = each.reshape(-1, 2)
    straight, uneven = straightened(each, rows.replay.target.value, again)
    straight, uneven = (straight @ weights).reshape(shape), uneven.reshape(shape)
    return Changes(wanted, straight, abs(weights[0]) * uneven, weights[0] * change.sum(axis=0))


def _without_repeats(ids: UnitIds) -> UnitIds:
    """Return ids of length 1 along the axes along which they were broadcast."""
    return ids[tuple(slice(None) if stride else slice(1) for stride in ids.strides)]


def by_elements(rows: RowLosses, h: float, weights: Weights) -> Changes:
    """Return the changes of the loss with the elements of the array that is moved.

    Parameters
    ----------
    rows : RowLosses
        The loss as one row; each element is a unit of its own.
    h, weights
        As for `by_responses`.
    """
    root = rows.replay.root.value
    sides = [side for side in (0, 1) if weights[side]]

    units, used = rows.replay.units, rows.replay.used_units

    def moved(size: float, units: Places) -> Array:
        values = np.stack([root + (size, -size)[side] for side in sides])
        return np.asarray(rows.changes(values, units)[:, :, 0])

    if len(used) == len(units):
        change = moved(h, units)
    else:
        change = np.zeros((len(units), len(sides)))
        change[used - 1] = moved(h, used) if used.size else 0
    wanted = change @ [weights[side] for side in sides]
    if weights[0] != -weights[1]:
        return Changes(wanted)
    if is_quadratic(rows.replay):
        return Changes(wanted, wanted)
    straight, uneven = straightened(
        change, rows.replay.target.value, lambda places: moved(h / SHRINK_FACTOR, units[places])
    )
    return Changes(wanted, straight @ weights, abs(weights[0]) * uneven)


def straightened(
    change: Array, losses: Array, again: Callable[[Places], Array]
) -> tuple[Array, Array]:
    """Return changes without what kinks do, as far as few units show them; and what is uneven.

    Parameters
    ----------
    change : array of shape (units, 2, ...)
        What moves up, and down, change losses by.
    losses : array
        All that are added up.
    again : callable
        ``again(units)``, counted from 0, are changes of these units by moves that are
        `SHRINK_FACTOR` times smaller.

    Returns
    -------
    straight : array of shape (units, 2, ...)
    uneven : array of shape (units, ...)
        What both moves together change losses by.
    """
    uneven = abs(change[:, 0] + change[:, 1])
    typical = np.quantile(uneven, 1 - MAX_UNEVEN_SHARE) if uneven.size else 0.0
    rounding = EPS * np.linalg.norm(losses.reshape(-1))
    least = UNEVEN_FACTOR * typical + MIN_ROUNDINGS * rounding
    stands_out = uneven > least
    units = np.flatnonzero(stands_out.reshape(len(change), -1).any(axis=1))
    if not 0 < len(units) <= max(1, MAX_UNITS_SHARE * len(change)):
        return change, uneven
    straight = change.copy()
    apart = stands_out[units, np.newaxis]
    straight[units] = np.where(apart, SHRINK_FACTOR * again(units), change[units])
    uneven[stands_out] = 0
    return straight, uneven


# Shifts that make up for all inputs ---------------------------------------------------------------


def _by_values(
    rows: RowLosses, stage: Stage, x: Array, h: float, weights: Weights, magnitudes: Array
) -> Changes | None:
    """Measure the responses at all shifts that the inputs make; None if some are not finite.

    With one input, as a bias has, units are moved by just as much as the loop moves their elements.
    """
    inputs = stage.inputs
    values = [*magnitudes, *-magnitudes]
    if inputs.shape[1] == 1:
        sides = [side for side in (0, 1) if weights[side]]
        cases = [(side, v, (inputs == v) * weights[side]) for side in sides for v in values]
        cases = [(side, v, wanted) for side, v, wanted in cases if wanted.any()]
        distances = _distances(stage, x, h)[:, 0]
        shifts = np.stack([distances[side][stage.unit_ids - 1] * v for side, v, _ in cases])
    else:
        up, down = weights
        both = [(s, up * (inputs == s) + down * (inputs == -s)) for s in values]
        cases = [(0, s, wanted) for s, wanted in both if wanted.any()]
        shifts = h * np.array([s for _, s, _ in cases]).reshape(-1, *(1,) * stage.unit_ids.ndim)
    base, units = stage.node.value, rows.replay.units
    change = rows.changes(base + shifts)
    if not np.isfinite(change).all():  # it may be needed for some weights, and not for others
        return None
    wanted = np.stack([wanted for _, _, wanted in cases])
    result = _by_case(wanted, change)
    if weights[0] != -weights[1]:
        return Changes(result)
    # In the second half of the cases, units are moved the other way.
    pairs = change.reshape(len(units), 2, -1, rows.count)
    straight, uneven = straightened(
        pairs,
        rows.replay.target.value,
        lambda places: rows.changes(base + shifts / SHRINK_FACTOR, units[places]).reshape(
            -1, *pairs.shape[1:]
        ),
    )
    first = slice(len(cases) // 2)
    return Changes(
        result,
        result if straight is pairs else _by_case(wanted, straight.reshape(change.shape)),
        _by_case(abs(wanted[first]), uneven),
    )


def _by_case(wanted: Array, change: Array) -> Array:
    """Add up the changes of all rows, each in its case; of shape (I, units)."""
    return np.tensordot(wanted, change, ((0, 1), (1, 2)))


def _distances(stage: Stage, x: Array, h: float, inputs: Places | None = None) -> Array:
    """Return by how much weights are moved up, and down: h, but for rounding.

    Of all inputs, or of those given for each unit, of shape (any, units); the result has that
    shape, after an axis of two.
    """
    where = stage.where if inputs is None else np.take_along_axis(stage.where, inputs, axis=0)
    weights = x[where]
    return np.stack([(weights + h) - weights, (weights - h) - weights])


# Responses, measured and fitted -------------------------------------------------------------------


def _points(largest: float, terms: int) -> Array:
    """Return the shifts at which responses are measured, as fractions of the largest.

    The largest is among them: a kink beyond the last point would not be seen. They are at most
    `MAX_GAP_STEPS` steps apart, and at least one more than there are terms.
    """
    count = int(_count(largest, terms))
    return np.array([cos(i * pi / (2 * count)) for i in range(count)])


def _count(largest: float, terms: int) -> float:
    """Return at how many shifts responses are measured; inf or nan if the largest is that."""
    return float(np.maximum(terms + 1, np.ceil(pi / 2 * largest / MAX_GAP_STEPS)))


class Moves:
    """Moves of a stage's units by parts of the largest shift, one after the other.

    Where all moves in proportion until one array, only the largest is replayed until there.

    Parameters
    ----------
    rows : RowLosses
    stage : Stage
    largest : float
        The largest shift.
    straight_end : Node or None
        This array.
    """

    def __init__(
        self, rows: RowLosses, stage: Stage, largest: float, straight_end: Node | None
    ) -> None:
        self.rows, self.stage, self.largest = rows, stage, largest
        if straight_end is not None:
            self.before, self.after = rows.split(stage, straight_end)
        self.is_straight = straight_end is not None

    def changes(
        self,
        parts: Array,
        units: Places | None = None,
        monitor: SmoothnessMonitor | None = None,
    ) -> Array:
        """Return how much all losses change, of shape (units, parts, rows)."""
        observe = None if monitor is None else partial(monitor.observe, shifts=parts)
        base = self.stage.node.value
        if not self.is_straight:
            shifts = self.largest * parts.reshape(-1, *(1,) * base.ndim)
            return self.rows.changes(base + shifts, units, observe)
        recorded = self.before.target.value

        def use(outcome: Outcome) -> Array:
            count = len(outcome.units)
            change = outcome.values.reshape(count, -1).T - recorded.reshape(-1, 1)
            reach = None
            if observe is not None:
                reach = (abs(parts).max() * abs(change).max(axis=1)).reshape(recorded.shape)
            versions = np.repeat(change, len(parts), axis=1)  # long lines, for NumPy
            versions *= np.tile(parts, count)
            versions += recorded.reshape(-1, 1)
            versions = versions.T.reshape(-1, *recorded.shape)
            losses = self.after.losses(versions, observe, outcome.units, reach)
            return losses.reshape(count, len(parts), -1)

        observe_before = None if monitor is None else partial(monitor.observe, shifts=np.ones(1))
        values = (base + self.largest)[np.newaxis]
        return np.concatenate(self.before.moved(values, units, observe_before, use))


def _measure(moves: Moves, points: Array, monitor: SmoothnessMonitor) -> Array:
    """Return how all losses change, of shape (points, 2, units, rows): moved up, and down."""
    rows = moves.rows
    result = np.empty((len(points), 2, len(rows.replay.units), rows.count))
    for block in _blocks(len(points), 2 * moves.stage.node.value.size):
        both_ways = np.stack([points[block], -points[block]], axis=1).ravel()
        change = moves.changes(both_ways, None, monitor).transpose(1, 0, 2)
        result[block] = change.reshape(-1, *result.shape[1:])
    return result


def _noise(moves: Moves) -> Array:
    """Return the standard deviation of rounding in each row's response, of shape (rows, 1).

    Shifts are so small that the loss is a straight line: that at twice the shift the response is
    not twice as large is rounding, and so is the loss's curvature.
    """
    rows = moves.rows
    every = max(1, len(rows.replay.units) // 8)
    tiny = ROUNDOFF_SHIFT * np.array([1.0, -1.0, 2.0, -2.0])
    change = moves.changes(tiny, rows.replay.units[::every])
    odd = (change[:, 2] - change[:, 3]) - 2 * (change[:, 0] - change[:, 1])
    even = change[:, 0] + change[:, 1]
    # The median, for a unit may stand at a kink; of a normal variable's magnitude it is 0.67.
    sizes = np.sort(np.maximum(abs(odd) / np.sqrt(5), abs(even)), axis=0)
    deviation = sizes[len(sizes) // 2] / 0.67
    target = rows.replay.target.value.reshape(-1)
    losses = np.bincount(rows.row_of_element.reshape(-1), abs(target), rows.count + 1)[1:]
    return np.asarray(np.maximum(deviation, EPS * losses)[:, np.newaxis])


def _blocks(count: int, elements_each: int) -> Iterator[slice]:
    """Cut a range into slices that stand for some millions of elements each."""
    length = max(1, 8 * BATCH_ELEMENTS // elements_each)
    return (slice(k, min(k + length, count)) for k in range(0, count, length))
