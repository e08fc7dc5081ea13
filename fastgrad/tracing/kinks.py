"""Responses with kinks, measured at all shifts that a row's inputs make, in those rows alone.

A unit of a row may pass the kink of a ReLU, or another unit may because of it. Such responses are
few, and each is measured by a row of its own in a replay of these rows alone (`restricted`): rows
do not mix.

Where all moves in proportion to the unit, but for decisions such as ``a > 0``, it does so between
two shifts at which all decisions are the same: the first that would change in between, in the order
of the operations, depends on what moves in proportion, and passes its place once at most. So what
is between is filled in, and other stretches are cut there, until no shift is left in them. That
pays where there is much to be measured.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.affine import Stage, UnitIds, propagate
from fastgrad.tracing.batched import Stack
from fastgrad.tracing.operations import Node, factors, leaves, product_spec, value_of
from fastgrad.tracing.replay import BATCH_ELEMENTS, REPLAY_TOLERANCE, Replay
from fastgrad.tracing.row_losses import RowLosses
from fastgrad.tracing.smoothness import NonSmoothPlaces
from fastgrad.typing import Array, Doubles, Places

MAX_DIRECT = BATCH_ELEMENTS
"""Elements of a stage, at all shifts of its rows, up to which each shift is measured by itself: to
find out where all moves in proportion takes as long."""

SLOPE_SHIFT_DIVISOR = 64
"""How many times smaller than a row's largest shift that is at which its slope is measured."""


def by_kinked_rows(
    rows: RowLosses,
    stage: Stage,
    h: float,
    weights: tuple[float, float],
    kinked: NDArray[np.bool_],
    row_ids: Mapping[Node, UnitIds],
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
    kinked : bool array of shape (rows, units)
        Which responses have a kink.
    row_ids : dict
        The row of each element of all arrays.

    Returns
    -------
    changes : array of shape (I, units)
    straight : array of shape (I, units)
        What they would be if the loss did not bend.
    """
    row, unit = np.nonzero(kinked)
    inputs = stage.inputs[row]
    sizes, place = _magnitudes(stage.inputs, row)
    shifts = h * np.concatenate([-sizes[:, :0:-1], sizes], axis=1)
    slots = Slots(rows, stage, row, unit, row_ids)
    change = _changes(slots, shifts)
    zero, number = sizes.shape[1] - 1, np.arange(len(row))[:, np.newaxis]
    change[:, zero] = 0
    signed = np.where(inputs < 0, -1, 1) * place[:, :-1]
    up, down = (change[number, zero + way * signed] for way in (1, -1))
    tiny = place[:, -1:]
    slope = (change[number, zero + tiny] - change[number, zero - tiny]) / (
        2 * h * np.take_along_axis(sizes, tiny, 1)
    )
    result = np.zeros((2, kinked.shape[1], inputs.shape[1]))
    np.add.at(result[0], unit, weights[0] * up + weights[1] * down)
    np.add.at(result[1], unit, (weights[0] - weights[1]) * slope * h * inputs)
    return result[0].T, result[1].T


def _magnitudes(inputs: Array, row: Places) -> tuple[Array, Places]:
    """Return the magnitudes of some rows' inputs, and of a small one, at which slopes are measured.

    Returns
    -------
    array of shape (rows, magnitudes)
        Rising from 0; the last one is repeated in rows that have fewer.
    int array of shape (rows, I + 1)
        Which of them the inputs have, and the small one.
    """
    which, again = np.unique(row, return_inverse=True)
    of_rows = abs(inputs[which])
    largest = of_rows.max(axis=1, keepdims=True)
    every = np.hstack([of_rows, np.where(largest > 0, largest, 1) / SLOPE_SHIFT_DIVISOR])
    found = [np.unique(np.append(each, 0.0)) for each in every]
    sizes = np.stack(
        [np.pad(each, (0, max(map(len, found)) - len(each)), "edge") for each in found]
    )
    place = np.stack([np.searchsorted(*each) for each in zip(found, every, strict=True)])
    return sizes[again], place[again]


class Slots:
    """Where responses are measured: each in a row of its own, or those of one row in turns.

    Parameters
    ----------
    rows : RowLosses
    stage : Stage
    row, unit : int arrays of shape (responses,)
        Counted from 0.
    row_ids : dict
        The row of each element of all arrays.
    """

    def __init__(
        self,
        rows: RowLosses,
        stage: Stage,
        row: Places,
        unit: Places,
        row_ids: Mapping[Node, UnitIds],
    ) -> None:
        few = restricted(rows, stage, row, row_ids)
        self.rows, self.stage = few or (rows.without_holding(), stage)
        self.are_alone = few is not None
        self._row = np.arange(len(row)) if self.are_alone else row
        self._turn = _occurrences(self._row)
        self.turns = int(self._turn.max()) + 1
        base = self.stage.node.value
        where = np.empty((self.rows.count, stage.where.shape[1]), np.intp)
        places = np.arange(base.size).reshape(base.shape)
        where[self.stage.rows - 1, self.stage.unit_ids - 1] = places
        self._element = where[self._row, unit]

    def moved(self, shifts: Array) -> Array:
        """Return versions of the stage in which units are moved.

        Parameters
        ----------
        shifts : array of shape (responses, amounts)
        """
        base = self.stage.node.value
        versions = np.tile(base.reshape(-1), (shifts.shape[1], self.turns, 1))
        versions[:, self._turn, self._element] += shifts.T
        return versions.reshape(-1, *base.shape)

    def own(self, losses: Array) -> Array:
        """Return the losses of versions, of shape (versions, rows), that are each response's own.

        Of shape (responses, amounts).
        """
        by_turn = losses.reshape(-1, self.turns, self.rows.count)
        return by_turn[:, self._turn, self._row].T


def _occurrences(numbers: Places) -> Places:
    """Return how often each number has come before."""
    order = np.argsort(numbers, kind="stable")
    _, starts, counts = np.unique(numbers[order], return_index=True, return_counts=True)
    result = np.empty_like(order)
    result[order] = np.arange(len(order)) - np.repeat(starts, counts)
    return result


def _changes(slots: Slots, shifts: Array) -> Array:
    """Return by how much losses change, of shape (responses, shifts).

    The shifts rise; as many of them are below 0 as above.
    """
    path = None
    if slots.are_alone and shifts.shape[1] * slots.stage.node.value.size > MAX_DIRECT:
        non_smooth = NonSmoothPlaces(slots.rows.replay, slots.stage, slots.rows.row_ids)
        with suppress(NotDivisible, KeyError):  # rows do not have as many elements each
            path = None if non_smooth.straight_end is None else StraightPath(slots, non_smooth)
    versions: Callable[[slice], Array] = lambda columns: slots.moved(shifts[:, columns])  # noqa: E731
    if path is not None:
        versions = path.filled_in(shifts)
    rows = slots.rows if path is None else path.after
    result = np.empty_like(shifts)
    length = max(1, 8 * BATCH_ELEMENTS // (slots.turns * rows.replay.root.value.size))
    for start in range(0, result.shape[1], length):
        columns = slice(start, start + length)
        result[:, columns] = slots.own(rows.losses(versions(columns)))
    return result


class StraightPath:
    """The operations from a stage to where nothing is straight any more, and what they decide.

    Attributes
    ----------
    after : RowLosses
        From there on.
    """

    def __init__(self, slots: Slots, non_smooth: NonSmoothPlaces) -> None:
        self._slots, self._non_smooth = slots, non_smooth
        end = non_smooth.straight_end
        assert end is not None
        self._before, self.after = slots.rows.split(slots.stage, end)
        quantities = [m.quantity for node in self._before.nodes for m in non_smooth.margins[node]]
        self._orders = {}
        for node in (end, *quantities):
            ids = self._non_smooth.rows[node]
            self._orders[node], starts = _by_rows(ids, slots.rows.count)
            if np.ptp(np.diff(starts)):
                raise NotDivisible

    def _by_row(self, node: Node, versions: Array) -> Array:
        """Return versions of an array in the form (responses, versions, elements of a row)."""
        in_order = versions.reshape(len(versions), -1)[:, self._orders[node]]
        return in_order.reshape(len(versions), self.after.count, -1).swapaxes(0, 1)

    def measured(self, shifts: Array) -> tuple[Array, Array]:
        """Return each response's own elements of the end, and what decides by its sign.

        Parameters
        ----------
        shifts : array of shape (responses, amounts)

        Returns
        -------
        arrays of shape (responses, amounts, elements), (responses, amounts, decisions)
        """
        versions = self._slots.moved(shifts)
        deciding = [np.zeros((*shifts.shape, 0))]

        def observe(node: Node, stacks: Mapping[Node, Stack], _: Any) -> None:
            for margin in self._non_smooth.margins[node]:
                quantity = margin.quantity
                moved = self._non_smooth.versions(quantity, stacks, len(versions))
                deciding.append(self._by_row(quantity, moved - (quantity.value - margin.distance)))

        end = self._before.all_versions(versions, observe)
        return self._by_row(self._before.target, end), np.concatenate(deciding, axis=2)

    def filled_in(self, shifts: Array) -> Callable[[slice], Array]:
        """Return what gives versions of the end at some of the shifts.

        A stretch of shifts between which decisions change is cut where the first of them does.
        """
        responses, count = shifts.shape
        columns = np.arange(count)
        first = [0, count // 2, count - 1]
        ends, deciding = map(np.concatenate, self.measured(shifts[:, first]))
        place = np.full(shifts.shape, -1)  # among those that are measured
        place[:, first] = np.arange(len(ends)).reshape(responses, -1)
        while True:
            response, column = np.nonzero(place >= 0)
            stretches = np.flatnonzero((np.diff(response) == 0) & (np.diff(column) > 1))
            measured = deciding[place[response, column]]
            low, high = measured[stretches], measured[stretches + 1]
            changes = np.sign(low) != np.sign(high)
            wanted = np.flatnonzero(changes.any(axis=1))
            if not wanted.size:
                break
            which = wanted, changes[wanted].argmax(axis=1)
            low, high, stretches = low[which], high[which], stretches[wanted]
            response, left, right = response[stretches], column[stretches], column[stretches + 1]
            start = shifts[response, left]
            kink = start + (shifts[response, right] - start) * low / (low - high)
            cut = np.count_nonzero(shifts[response] <= kink[:, np.newaxis], axis=1)
            cut = np.clip(cut, left + 1, right)
            response, column = np.tile(response, 2), np.concatenate([cut - 1, cut])
            is_new = place[response, column] < 0
            response, column = response[is_new], column[is_new]
            turn = _occurrences(response)
            amounts = np.zeros((responses, turn.max() + 1))
            amounts[response, turn] = shifts[response, column]
            place[response, column] = len(ends) + np.arange(len(column))
            more = [a[response, turn] for a in self.measured(amounts)]
            ends, deciding = np.concatenate([ends, more[0]]), np.concatenate([deciding, more[1]])
        left = np.maximum.accumulate(np.where(place >= 0, columns, 0), axis=1)
        right = np.where(place >= 0, columns, count)[:, ::-1]
        right = np.minimum.accumulate(right, axis=1)[:, ::-1]
        end = self._before.target

        def versions(block: slice) -> Array:
            number = np.arange(responses)[:, np.newaxis]
            low, high = left[:, block], right[:, block]
            width = shifts[number, high] - shifts[number, low]
            share = (shifts[:, block] - shifts[number, low]) / np.where(width > 0, width, 1)
            start = ends[place[number, low]]
            own = start + share[..., np.newaxis] * (ends[place[number, high]] - start)
            result = np.empty((own.shape[1], end.value.size))
            result[:, self._orders[end]] = own.swapaxes(0, 1).reshape(len(result), -1)
            return result.reshape(-1, *end.shape)

        return versions


# Some rows alone ----------------------------------------------------------------------------------


class Cut(NamedTuple):
    """The rows that are kept of an array.

    Attributes
    ----------
    axis : int
        Along which rows lie.
    places : int array
        On this axis, those of the first row that is kept, of the second, and so on.
    rows, new_rows : int arrays
        The row of each element of the array, and the new number of each that is kept.
    """

    axis: int
    places: Places
    rows: UnitIds
    new_rows: UnitIds


Arguments = tuple[Callable[..., Any] | None, tuple[Any, ...]]


class NotDivisible(Exception):
    """An operation cannot be applied to some of the rows alone."""


def restricted(
    rows: RowLosses,
    stage: Stage,
    kept: NDArray[np.intp],
    row_ids: Mapping[Node, UnitIds] | None = None,
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
        Row numbers from 0. One that is repeated becomes several rows.
    row_ids : dict, optional
        The row of each element of all arrays, if that is known.

    Returns
    -------
    RowLosses, Stage
        Their rows are numbered anew. None if an operation is of another kind than those that can be
        divided, or an array's rows do not lie along one axis.
    """
    replay, root = rows.replay, rows.replay.root
    if row_ids is None:
        row_ids = propagate(replay.recorded, root, stage.rows)
    by_ids: dict[int, Cut] = {}  # most arrays share the ids of their elements
    cuts: dict[Node, Cut] = {}
    new: dict[Node, Node] = {}
    try:
        for node in (root, *replay.recorded):
            ids = row_ids[node]
            if id(ids) not in by_ids:
                by_ids[id(ids)] = _cut(ids, kept, rows.count)
            cut = cuts[node] = by_ids[id(ids)]
            if node is root:
                new[node] = Node(None, (), {}, _taken(root.value, cut), True)
            else:
                new[node] = _divided(node, new, cuts)
    except (NotDivisible, KeyError):
        return None
    units = _taken(stage.unit_ids, cuts[root])
    few = Replay([*new.values()], new[root], units, new[replay.target], {})
    new_rows = {new[node]: cut.new_rows for node, cut in cuts.items()}
    return (
        RowLosses(few, new_rows[new[replay.target]], len(kept), new_rows),
        Stage(new[root], stage.inputs[kept], stage.where, units, cuts[root].new_rows),
    )


def _cut(row_ids: UnitIds, kept: Places, count: int) -> Cut:
    """Return the axis on which an array's rows lie, and where on it those are that are kept."""
    for axis in range(row_ids.ndim if row_ids.size else 0):
        line = np.moveaxis(row_ids, axis, 0).reshape(row_ids.shape[axis], -1)
        if np.array_equal(line, np.broadcast_to(line[:, :1], line.shape)):
            order, starts = _by_rows(line[:, 0], count)
            places = [order[starts[n] : starts[n + 1]] for n in kept]
            new = np.repeat(np.arange(1, len(kept) + 1), np.diff(starts)[kept])
            shape = *row_ids.shape[:axis], len(new), *row_ids.shape[axis + 1 :]
            new = np.broadcast_to(new.reshape(-1, *(1,) * (row_ids.ndim - 1 - axis)), shape)
            return Cut(axis, np.concatenate(places), row_ids, new)
    raise NotDivisible


def _by_rows(row_ids: UnitIds, count: int) -> tuple[Places, Places]:
    """Return the elements of an array, row after row, and where each row begins, and the last ends.

    An element that is of no row is refused.
    """
    flat = row_ids.reshape(-1)
    order = np.argsort(flat, kind="stable")
    starts = np.searchsorted(flat[order], np.arange(1, count + 2))
    if starts[0]:
        raise NotDivisible
    return order, starts


def _taken(array: Array, cut: Cut) -> Array:
    """Return some places of an array along an axis."""
    return np.take(array, cut.places, cut.axis)


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
    tolerance = REPLAY_TOLERANCE * float(abs(expected).max(initial=0))
    if not (
        np.array_equal(result.value, expected)
        or (result.value.shape == expected.shape and _are_close(result.value, expected, tolerance))
    ):
        raise NotDivisible
    return result


def _are_close(a: Array, b: Array, tolerance: float) -> bool:
    """Say what `np.allclose` does, which takes long."""
    is_close = a.dtype.kind == "f" and abs(a - b).max(initial=0) <= tolerance
    return bool(is_close) or np.allclose(a, b, rtol=0, atol=tolerance, equal_nan=True)


def _elementwise(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Arguments:
    """Return an elementwise operation on some places along an axis."""
    axis, places = cuts[node][:2]

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
    """Return a reduction of which some places are computed."""
    return node.function, (new[node.arguments[0]], *node.arguments[1:])


def _product(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Arguments:
    """Return a product of which some places along an axis are computed."""
    spec = product_spec(node)
    if spec is None:
        raise NotDivisible
    terms, out = spec.split("->")
    axis, places = cuts[node][:2]
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
    sources, rows = _taken(node.sources, cuts[node]) - 1, cuts[node].new_rows
    if others or sources.min(initial=0) < 0:
        raise NotDivisible
    (order, starts), (new_order, new_starts) = (
        _by_rows(ids, ids.max(initial=0)) for ids in (cuts[source].rows, cuts[source].new_rows)
    )
    number = np.empty_like(order)  # of an element within its row
    number[order] = np.arange(len(order)) - np.repeat(starts[:-1], np.diff(starts))
    places = new_order[new_starts[rows - 1] + number[sources]]
    return operations.item, (new[source], np.unravel_index(places, new[source].shape))


DIVIDERS: dict[str, Callable[[Node, Mapping[Node, Node], Mapping[Node, Cut]], Arguments]] = {
    operations.ELEMENTWISE: _elementwise,
    operations.REDUCTION: _reduction,
    operations.PRODUCT: _product,
    operations.MOVE: _move,
}
"""How operations of each kind are applied to some rows: a function, and its arguments."""
