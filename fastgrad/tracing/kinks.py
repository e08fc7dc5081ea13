"""Responses with kinks, measured piece by piece, and replays of only those rows that have them.

A unit of a row may pass the kink of a ReLU, or another unit may because of it. Its response is
then smooth in pieces. All shifts that the row's inputs make are wanted; a stretch of them is
measured at some and filled in by a cubic if that fits all, and is cut in two otherwise.

Kinks are few, but all of a row's units pass the kink of a later unit: that row is then measured
hundreds of times. Rows do not mix, so the others need not be computed along with it (`restricted`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.affine import Stage, UnitIds, propagate
from fastgrad.tracing.operations import Node, factors, leaves, product_spec, value_of
from fastgrad.tracing.replay import REPLAY_TOLERANCE, Replay
from fastgrad.tracing.row_losses import RowLosses
from fastgrad.typing import Array, Doubles

MAX_GAP_STEPS = 5
"""How many steps lie between two measured shifts at most. What is narrower, and over at both of
them, is found by `fastgrad.tracing.smoothness`."""

MIN_POINTS = 8
"""Where a stretch is measured: twice as often as a cubic needs, so that no kink stays hidden."""

DEGREE = 3

SLOPE_SHIFT_DIVISOR = 64
"""How many times smaller than a row's largest shift that is at which its slope is measured."""

MAX_UNITS_AT_ONCE = 64
"""How many units of a row are moved in one go, one after the other."""


@dataclass(eq=False)
class Response:
    """The response of one unit of one row, at the shifts that the row's inputs make.

    Attributes
    ----------
    row, unit : int
        Counted from 0.
    shifts : array
        Positive, rising; and one more among them, at which the slope is measured.
    values : array of shape (2, shifts)
        By how much the row's loss changes if the unit is moved up, and down.
    known : bool array
        Which of them have been measured or filled in.
    gap : float
        How far apart those that are measured may be.
    may_have_several_kinks : bool
        Whether it may have several kinks, so that all its shifts are measured.
    """

    row: int
    unit: int
    shifts: Doubles
    values: Doubles
    known: NDArray[np.bool_]
    gap: float
    may_have_several_kinks: bool


@dataclass(eq=False)
class Stretch:
    """The shifts of a response from one index to another, both included.

    It may be a guess that there is no kink among them.
    """

    response: Response
    first: int
    last: int
    is_guess: bool = False

    def places(self) -> NDArray[np.intp]:
        """Return the indices of the shifts to measure, close together at the ends."""
        width = self.response.shifts[self.last] - self.response.shifts[self.first]
        count = max(MIN_POINTS, ceil(np.pi / 2 * width / self.response.gap))
        if self.response.may_have_several_kinks or self.last - self.first < 2 * count:
            return np.arange(self.first, self.last + 1)
        fractions = (1 - np.cos(np.linspace(0, np.pi, count))) / 2
        return np.unique(np.rint(self.first + (self.last - self.first) * fractions).astype(np.intp))

    def fill(self, tolerance: float) -> bool:
        """Fill in what was not measured; return False if no cubic fits what was."""
        inside = slice(self.first, self.last + 1)
        shifts, values = self.response.shifts[inside], self.response.values[:, inside]
        known = self.response.known[inside]
        if known.all():
            return True
        middle = (shifts[0] + shifts[-1]) / 2
        powers = np.vander((shifts - middle) / (shifts[-1] - middle), DEGREE + 1)
        if not np.isfinite(values[:, known]).all():
            return False
        fit = np.linalg.lstsq(powers[known], values[:, known].T)[0]
        if not abs(powers[known] @ fit - values[:, known].T).max() <= tolerance:
            return False
        values[:, ~known] = (powers[~known] @ fit).T
        known[:] = True
        return True

    def split(self) -> list["Stretch"]:
        """Cut it in two: where one kink would stand, if it were the only one; next, in the middle.

        A part that a guess has cut off is halved, so that few cuts do whatever the response is.
        """
        middle = (self.first + self.last + 1) // 2
        cut = middle if self.is_guess else self._guess()
        parts = (self.first, cut - 1), (cut, self.last)
        return [Stretch(self.response, *ends, not self.is_guess) for ends in parts]

    def _guess(self) -> int:
        """Return the first index past the kink, if slopes are steady before it and after it."""
        places = self.places()
        shifts, values = self.response.shifts[places], self.response.values[:, places]
        values = values[0] - values[1]
        slopes = np.diff(values) / np.diff(shifts)
        before = abs(slopes - slopes[0]).cumsum()
        after = abs(slopes - slopes[-1])[::-1].cumsum()[::-1]
        gap = int(np.argmin(np.append(0, before[:-1]) + np.append(after[1:], 0)))
        share = (slopes[gap] - slopes[0]) / (slopes[-1] - slopes[0])  # of the gap, past the kink
        kink = shifts[gap + 1] - np.clip(share, 0, 1) * (shifts[gap + 1] - shifts[gap])
        cut = int(np.searchsorted(self.response.shifts, kink, side="right"))
        return min(max(cut, self.first + 1), self.last)


def by_kinked_rows(
    rows: RowLosses,
    stage: Stage,
    h: float,
    weights: tuple[float, float],
    kinked: NDArray[np.bool_],
    may_have_several_kinks: NDArray[np.bool_],
    tolerance: Doubles,
) -> tuple[Doubles, Doubles]:
    """Return what the kinked units of rows add to the changes of the loss.

    Parameters
    ----------
    rows : RowLosses
        Which must not mix.
    stage : Stage
    h : float
        The step.
    weights : pair of floats
        How much is wanted of what the loss changes by when weights are moved up, and down.
    kinked, may_have_several_kinks : bool arrays of shape (rows, units)
        Which responses have a kink, and which may have several.
    tolerance : array of shape (rows,)
        By how much a fit may miss a response.

    Returns
    -------
    changes : array of shape (I, units)
    straight : array of shape (I, units)
        What they would be if the loss did not bend.
    """
    result = np.zeros((stage.inputs.shape[1], kinked.shape[1]))
    straight = np.zeros_like(result)
    kept = np.flatnonzero(kinked.any(axis=1))
    few = restricted(rows, stage, kept) if 2 * len(kept) <= rows.count else None
    if few is not None:
        rows, stage = few
        kinked, tolerance = kinked[kept], tolerance[kept]
        may_have_several_kinks = may_have_several_kinks[kept]
    responses: list[Response] = []
    for n in np.flatnonzero(kinked.any(axis=1)).tolist():
        shifts = np.unique(h * abs(stage.inputs[n][stage.inputs[n] != 0]))
        shifts = np.unique([*shifts, *shifts[-1:] / SLOPE_SHIFT_DIVISOR])
        units = np.flatnonzero(kinked[n]).tolist() if shifts.size else []
        responses += [
            Response(
                n,
                j,
                shifts,
                np.zeros((2, shifts.size)),
                np.zeros(shifts.size, bool),
                MAX_GAP_STEPS * h,
                bool(may_have_several_kinks[n, j]),
            )
            for j in units
        ]
    waiting = [Stretch(response, 0, len(response.shifts) - 1) for response in responses]
    while waiting:
        _measure(rows, stage, waiting)
        failed = [s for s in waiting if not s.fill(tolerance[s.response.row])]
        waiting = [part for stretch in failed for part in stretch.split()]
    for response in responses:
        inputs = stage.inputs[response.row]
        place = np.minimum(
            np.searchsorted(response.shifts, h * abs(inputs)), len(response.shifts) - 1
        )
        for side, weight in enumerate(weights):
            if weight:  # a lowered weight raises the unit where the input is negative
                moved = np.where(inputs > 0, side, 1 - side)
                change = np.where(inputs == 0, 0, response.values[moved, place])
                result[:, response.unit] += weight * change
        tiny = np.searchsorted(response.shifts, response.shifts[-1] / SLOPE_SHIFT_DIVISOR)
        above, below = response.values[:, tiny] / response.shifts[tiny]
        slope = (above - below) / 2
        straight[:, response.unit] += (weights[0] - weights[1]) * slope * h * inputs
    return result, straight


def _measure(rows: RowLosses, stage: Stage, stretches: list[Stretch]) -> None:
    """Measure stretches at their places, as far as that has not been done.

    Rows do not mix, so one version of the stage serves a unit of every row.
    """
    wanted = {
        (id(stretch.response), place): (stretch.response, place)
        for stretch in stretches
        for place in stretch.places()
        if not stretch.response.known[place]
    }
    turns: list[list[tuple[Response, int]]] = []
    taken: dict[int, int] = {}
    for response, place in wanted.values():  # each row moves one of its units in a turn
        turn = taken[response.row] = taken.get(response.row, -1) + 1
        if turn == len(turns):
            turns.append([])
        turns[turn].append((response, place))
    for start in range(0, len(turns), MAX_UNITS_AT_ONCE):
        _take(rows, stage, turns[start : start + MAX_UNITS_AT_ONCE])


def _take(rows: RowLosses, stage: Stage, turns: list[list[tuple[Response, int]]]) -> None:
    """Measure responses, those of a turn in one version of the stage moved up, and one down."""
    base = stage.node.value
    where = np.empty((len(stage.inputs), stage.where.shape[1]), np.intp)
    where[stage.rows - 1, stage.unit_ids - 1] = np.arange(base.size).reshape(base.shape)
    moved = np.tile(base.reshape(-1), (len(turns), 2, 1))
    for versions, turn in zip(moved, turns, strict=True):
        elements = [where[response.row, response.unit] for response, _ in turn]
        shifts = np.array([response.shifts[place] for response, place in turn])
        versions[:, elements] += [shifts, -shifts]
    losses = rows.losses(moved.reshape(-1, *base.shape)).reshape(len(turns), 2, -1)
    for (up, down), turn in zip(losses, turns, strict=True):
        for response, place in turn:
            response.values[:, place] = up[response.row], down[response.row]
            response.known[place] = True


# Some rows alone ----------------------------------------------------------------------------------


Cut = tuple[int, NDArray[np.intp]]
"""The axis along which the rows of an array lie, and the places on it that are kept."""

Arguments = tuple[Callable[..., Any] | None, tuple[Any, ...]]


class NotDivisible(Exception):
    """An operation cannot be applied to some of the rows alone."""


def restricted(
    rows: RowLosses, stage: Stage, kept: NDArray[np.intp]
) -> tuple[RowLosses, Stage] | None:
    """Return the same rows and stage with only some of the rows.

    Every operation is applied to the recorded values of what is kept, which must give what was
    recorded.

    Parameters
    ----------
    rows : RowLosses
        Which must not mix.
    stage : Stage
    kept : int array
        Row numbers from 0, rising.

    Returns
    -------
    RowLosses, Stage
        Their rows are numbered anew. None if an operation is of another kind than those that can be
        divided, or an array's rows do not lie along one axis.
    """
    numbers = np.zeros(rows.count + 1, np.intp)
    numbers[kept + 1] = np.arange(1, len(kept) + 1)
    replay = rows.replay
    row_ids = propagate(replay.nodes, replay.root, stage.rows)
    try:
        cuts = {node: _cut(row_ids[node], numbers) for node in (replay.root, *replay.nodes)}
        root = Node(None, (), {}, _taken(replay.root.value, cuts[replay.root]), True)
        new = {replay.root: root}
        for node in replay.nodes:
            new[node] = _divided(node, new, cuts)
    except (NotDivisible, KeyError):
        return None
    units = _taken(stage.unit_ids, cuts[replay.root])
    target = new[replay.target]
    few = RowLosses(
        Replay([*new.values()], root, units, target),
        numbers[_taken(rows.row_of_element, cuts[replay.target])],
        len(kept),
    )
    kept_rows = numbers[_taken(stage.rows, cuts[replay.root])]
    return few, Stage(root, stage.inputs[kept], stage.where, units, kept_rows)


def _cut(row_ids: UnitIds, numbers: UnitIds) -> Cut:
    """Return the axis on which an array's rows lie, and where on it those are that are kept."""
    for axis in range(row_ids.ndim if row_ids.size else 0):
        line = np.moveaxis(row_ids, axis, 0).reshape(row_ids.shape[axis], -1)
        if np.array_equal(line, np.broadcast_to(line[:, :1], line.shape)):
            return axis, np.flatnonzero((numbers[line[:, 0]] > 0) | (line[:, 0] == 0))
    raise NotDivisible


def _taken(array: Array, cut: Cut) -> Array:
    axis, places = cut
    return np.take(array, places, axis)


def _divided(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Node:
    """Return the operation on what is kept of its arguments."""
    kind = node.kind
    if kind not in DIVIDERS:
        raise NotDivisible
    function, arguments = DIVIDERS[kind](node, new, cuts)
    keywords = {} if kind == operations.MOVE else node.keywords
    result = Node(function, arguments, keywords, None, True)
    result.value = np.asarray(result.compute([value_of(argument) for argument in arguments]))
    expected = _taken(node.value, cuts[node])
    largest = abs(expected).max(initial=0)
    if result.value.shape != expected.shape or not np.allclose(
        result.value, expected, rtol=0, atol=REPLAY_TOLERANCE * float(largest), equal_nan=True
    ):
        raise NotDivisible
    return result


def _elementwise(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Arguments:
    axis, places = cuts[node]

    def divided(argument: Any) -> Any:
        if type(argument) is Node and argument in new:
            return new[argument]
        value = value_of(argument)
        own_axis = axis - len(node.shape) + np.ndim(value)  # broadcasting counts from the right
        is_long = own_axis >= 0 and value.shape[own_axis] > 1
        return np.take(value, places, own_axis) if is_long else value

    if any(map(np.ndim, node.keywords.values())):
        raise NotDivisible
    return node.function, tuple(map(divided, node.arguments))


def _reduction(node: Node, new: Mapping[Node, Node], _: Mapping[Node, Cut]) -> Arguments:
    return node.function, (new[node.arguments[0]], *node.arguments[1:])


def _product(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Arguments:
    spec = product_spec(node)
    if spec is None:
        raise NotDivisible
    terms, out = spec.split("->")
    axis, places = cuts[node]
    pair: list[Any] = []
    for factor, term in zip(factors(node), terms.split(","), strict=True):
        if type(factor) is Node and factor in new:
            pair.append(new[factor])
        elif out[axis] in term:
            pair.append(np.take(value_of(factor), places, term.index(out[axis])))
        else:
            pair.append(value_of(factor))
    if node.function is np.einsum:
        return node.function, (node.arguments[0], *pair)
    return node.function, (*pair, *node.arguments[2:])


def _move(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Arguments:
    """Return where what is kept of the result stands in what is kept of the one array it is of."""
    source, *others = leaves(node.arguments[0])
    if others:
        raise NotDivisible
    numbers = np.zeros(source.value.size + 1, np.intp)
    kept = _taken(np.arange(1, len(numbers)).reshape(source.shape), cuts[source]).reshape(-1)
    numbers[kept] = np.arange(1, len(kept) + 1)
    places = numbers[_taken(node.sources, cuts[node])]
    if not places.all():
        raise NotDivisible
    return operations.item, (new[source], np.unravel_index(places - 1, new[source].shape))


DIVIDERS: dict[str, Callable[[Node, Mapping[Node, Node], Mapping[Node, Cut]], Arguments]] = {
    operations.ELEMENTWISE: _elementwise,
    operations.REDUCTION: _reduction,
    operations.PRODUCT: _product,
    operations.MOVE: _move,
}
"""How operations of each kind are applied to some rows: a function, and its arguments."""
