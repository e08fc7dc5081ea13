"""Pieces of a replay that are linear: a few versions tell those by all weights.

Between the stage and the scores, a net of convolutions, ReLUs and pooling is linear as long as no
unit passes a kink and no maximum passes to another element: a *decision* changes then. What a
weight does is then the sum of what it moves; where none of its moves changes a decision, that is
known without a replay of its own.
"""

from collections import Counter
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.concurrency import in_threads
from fastgrad.jit.interrupts import require_time
from fastgrad.tracing import operations
from fastgrad.tracing.affine import MAX_CANCELLATION, Stage, propagate
from fastgrad.tracing.batched import Batched, Stack, chosen, reduced_axes
from fastgrad.tracing.operations import Node, between, product_spec, value_of
from fastgrad.tracing.picks import SUMS
from fastgrad.tracing.replay import BATCH_ELEMENTS, Outcome, Replay
from fastgrad.tracing.row_losses import RowLosses
from fastgrad.tracing.smoothness import EXTREMA, name_of
from fastgrad.typing import Array, Places

MIN_GAIN = 2
"""How many times more elements than are read of a piece a product in it is to compute, at least."""

MAX_PIECE_BYTES = 2**26
"""The memory that changes may take: of one array by all units, and of all decisions by one unit."""

DECISION_MARGIN_EPS = 64
"""Units of rounding, of the largest number that is compared, by which a change may be missed."""

ODD_EPS = 16
"""Units of rounding, of the largest number, by which moves up and down may differ."""

UNITS_TRIED = 4
"""By how many units it is measured how often decisions may change."""

MAX_CHANGING_SHARE = 0.6
"""The share of their weights that may change some: if more do, the other units are not tried."""

MAX_SPARSE_SHARE = 0.5
"""The share of rows up to which only those that change are computed."""

MAX_READS = 2**20
"""Pairs of rows and of kinds of elements up to which rows that change are looked for."""

VERSIONS_AT_ONCE = 24
"""How many changes of all arrays are computed at a time."""

SINGLE_MARGIN = 1e-6
"""By how much more a change may be missed, of the sum of all parts, for they are of float32."""

ORDERINGS = frozenset({"greater", "greater_equal", "less", "less_equal", "equal", "not_equal"})
"""Functions that compare, and decide."""

ADDING = SUMS | {"negative"}
"""Functions by which changes go as values do, where what does not move counts as 0."""

PICKING = frozenset({"maximum", "minimum", "fmax", "fmin"}) | EXTREMA
"""Functions that compare, and pick."""

Changes = dict[Node, Array]
"""By how much m versions of arrays differ from what was recorded, of shape (m, *shape)."""


class LinearPiece:
    """The operations from which on units mix, as far as they are linear while no decision changes.

    These are products with what does not move, sums, moves, and what picks. There, what several
    elements of an array do together is the sum of what each of them does, and the opposite where
    they move the other way. A few changes tell those by all weights of a unit.

    Attributes
    ----------
    origin : Node
        The array in which no units mix that it begins with.
    later, ends : lists of Node
        The operations that follow, and the arrays of the piece that these read.
    gaps : array
        By how much what each decision compares differs, one node after the other.
    pays : bool
        Whether much is computed, and little of it read.
    """

    def __init__(self, replay: Replay) -> None:
        mixed = [node for node in replay.nodes if node not in replay.unit_ids]
        self._updates = {node: update for node in mixed if (update := replay.as_update(node))}
        origins = {_origin(replay, update.factor) for update in self._updates.values()}
        self.pays = len(origins) == 1
        if not self.pays:
            return
        (self.origin,) = origins
        numbers = np.arange(1, self.origin.value.size + 1).reshape(self.origin.shape)
        self._sources = {}
        for node, update in self._updates.items():
            path = between([self.origin, *replay.nodes], self.origin, update.factor)
            places = propagate(path, self.origin, numbers)[update.factor]
            self._sources[node] = np.moveaxis(places, update.axis, -1)
        self.later: list[Node] = []
        self._steps: list[tuple[Node, Any, Any]] = []
        linear, decided = set[Node](), set[Node]()
        moved, gaps = {replay.root, *replay.nodes}, [np.zeros(0)]
        readers = Counter(leaf for node in replay.nodes for leaf in node.inputs())
        for node in mixed:
            moving = moved.intersection(node.inputs()) - decided
            compares = name_of(node) in ORDERINGS
            change = compared = None
            if not moving:
                decided.add(node)
                continue
            if node in self._updates:
                change = self._updates[node].of_changes
            elif moving <= linear and not compares:
                change = _change(node, moving, replay.functions[node])
                windows = node.arguments[0]
                if change and _is_of_windows(node, moving) and readers[windows] == 1:
                    other = np.asarray(value_of(node.arguments[1]))
                    if of_rows := _product_of_windows(windows, other):
                        change = of_rows
                        self._steps = [step for step in self._steps if step[0] is not windows]
            if not (change or (compares and moving <= linear)):
                self.later.append(node)
                continue
            if compares or name_of(node) in PICKING:
                gap, compared = _decision(node, moving)
                gaps.append(gap.reshape(-1))
            self._steps.append((node, change, compared))
            (decided if compares else linear).add(node)
        self.gaps = np.concatenate(gaps)
        read = {leaf for node in self.later for leaf in node.inputs()} | {replay.target}
        self.ends = [node for node in mixed if node in linear & read]
        products = [n for n in linear if n.kind == operations.PRODUCT and n not in self._updates]
        computed = max((node.value.size for node in products), default=0)
        reads_separate = not read.isdisjoint(replay.unit_ids)
        is_end_small = MIN_GAIN * sum(node.value.size for node in self.ends) <= computed
        self.pays = is_end_small and not reads_separate

    def changes(self, unit: int, moves: Array) -> tuple[Array, Array]:
        """Return what moves of the elements of the origin, by one unit, change.

        Parameters
        ----------
        unit : int
        moves : array of shape (count, elements of the origin)

        Returns
        -------
        compared : array of shape (count, decisions)
            The changes of what decisions compare.
        ends : array of shape (count, elements of all ends)
        """
        count, with_zero = len(moves), np.pad(moves, ((0, 0), (1, 0)))
        compared = np.empty((count, self.gaps.size), np.float32)
        ends = np.empty((count, sum(node.value.size for node in self.ends)))
        sources = {
            node: np.take(self._sources[node], update.places[unit - 1], axis=-1)
            for node, update in self._updates.items()
        }
        for start in range(0, count, VERSIONS_AT_ONCE):
            part = slice(start, min(start + VERSIONS_AT_ONCE, count))
            m, place, changes = part.stop - start, 0, Changes()
            for node, change, compare in self._steps:
                require_time()
                if compare is not None:
                    values = compare(changes)
                    columns = slice(place, place := place + values[0].size)
                    compared[part, columns] = values.reshape(m, -1)
                if node in sources:
                    own = np.take(with_zero[part], sources[node], axis=1)
                    changes[node] = change(own, unit)
                elif change is not None:
                    changes[node] = change(changes, m)
            parts = [changes[node].reshape(m, -1) for node in self.ends]
            np.concatenate(parts, axis=1, out=ends[part])
        return compared, ends


def _change(node: Node, moving: set[Node], function: Batched) -> Any:
    """Return what computes a node's change from those of others; None if it is not linear."""
    name, arguments, shape = name_of(node), node.arguments, node.shape
    moves = [type(a) is Node and a in moving for a in arguments]
    if node.value.dtype != np.float64 or node.keywords.keys() - {"axis", "keepdims"}:
        return None
    values = [value_of(a) for a in arguments]
    match node.kind:
        case operations.REDUCTION if name in EXTREMA and moves[0]:
            best = _best(node)
            return lambda changes, m: _lines(node, changes[arguments[0]])[:, *best].reshape(
                m, *shape
            )
        case operations.ELEMENTWISE if name in PICKING or (name == "where" and not moves[0]):
            first, second = arguments[-2:]
            is_first = values[0] if name == "where" else node.value == values[0]
            return lambda changes, m: np.broadcast_to(
                chosen(is_first, *(_aligned_change(a, node, changes) for a in (first, second))),
                (m, *shape),
            )
        case operations.ELEMENTWISE if name in ADDING:
            values = [0.0] * len(values)
        case operations.ELEMENTWISE:
            is_linear = name == "multiply" or (name == "divide" and moves[0])
            if not is_linear or sum(moves) > 1:
                return None
        case operations.MOVE | operations.REDUCTION:
            if not moves[0] or (node.kind == operations.REDUCTION and name not in ("sum", "mean")):
                return None
        case operations.PRODUCT:
            if sum(moves) > 1 or product_spec(node) is None:
                return None
        case _:
            return None

    def change(changes: Changes, m: int) -> Array:
        versions = [
            Stack(changes[argument]) if moves_too else value
            for argument, value, moves_too in zip(arguments, values, moves, strict=True)
        ]
        return np.broadcast_to(function(tuple(versions), m), (m, *shape))

    return change


def _is_of_windows(node: Node, moving: set[Node]) -> bool:
    """Say whether a node is the product of a matrix of windows, which moves make, and another."""
    return (
        node.kind == operations.PRODUCT
        and product_spec(node) == "ab,bd->ad"
        and type(windows := node.arguments[0]) is Node
        and windows.kind == operations.MOVE
        and windows in moving
    )


def _product_of_windows(windows: Node, other: Array) -> Any:
    """Return what computes the change of a product, of those rows alone that change.

    None if finding these takes long: images of a batch have their own rows each.
    """
    (source,) = windows.inputs()
    places = windows.sources
    rows, columns = places.shape
    # Elements that the same rows read, as all channels of a pixel, are of one kind.
    drawn = np.repeat(np.random.default_rng(0).random(rows), columns)
    kinds = np.unique(
        np.bincount(places.reshape(-1), drawn, 1 + source.value.size), return_inverse=True
    )[1]
    order = np.argsort(kinds, kind="stable")
    starts = np.searchsorted(kinds[order], np.arange(kinds.max() + 1))
    if len(starts) * rows > MAX_READS:
        return None
    reads = np.zeros((len(starts), rows), np.float32)
    reads[kinds[places].reshape(-1), np.repeat(np.arange(rows), columns)] = 1

    def change(changes: Changes, m: int) -> Array:
        values = np.zeros((m, 1 + source.value.size))
        values[:, 1:] = changes[source].reshape(m, -1)
        is_moved = np.logical_or.reduceat(np.take(values != 0, order, axis=1), starts, axis=1)
        versions, moved = np.nonzero(is_moved.astype(np.float32) @ reads)
        if len(moved) > MAX_SPARSE_SHARE * m * rows:
            product = np.take(values, places, axis=1).reshape(-1, columns) @ other
            return np.asarray(product.reshape(m, rows, -1))
        product = np.zeros((m, rows, other.shape[1]))
        index = places[moved] + values.shape[1] * versions[:, np.newaxis]
        product[versions, moved] = np.take(values.reshape(-1), index) @ other
        return product

    return change


def _decision(node: Node, moving: set[Node]) -> tuple[Array, Any]:
    """Return how far apart what a node compares is, and what computes by how much that changes."""
    if node.kind == operations.REDUCTION:
        array, best = node.arguments[0], _best(node)

        def compared(changes: Changes) -> Array:
            lines = _lines(node, changes[array])
            return np.asarray(lines - lines[:, *best][..., np.newaxis])

        gap, sides = compared({array: array.value[np.newaxis]}), [array.value]
    else:
        first, second = node.arguments
        sides = [np.asarray(value_of(side), np.float64) for side in (first, second)]
        gap = sides[0] - sides[1]
        is_second = type(first) is not Node or first not in moving

        def compared(changes: Changes) -> Array:
            both = [_aligned_change(side, node, changes) for side in (first, second)]
            change = both[0] - both[1] if len(moving) > 1 else both[int(is_second)]
            return np.broadcast_to(change, (len(change), *gap.shape))

    size = max(abs(side).max(initial=0) for side in sides)
    return np.maximum(abs(gap) - DECISION_MARGIN_EPS * np.finfo(np.float64).eps * size, 0), compared


def _best(node: Node) -> tuple[Places, Places]:
    """Return which element of each line a reduction has picked."""
    lines = _lines(node, node.arguments[0].value[np.newaxis])[0]
    return np.arange(len(lines)), (lines == node.value.reshape(-1, 1)).argmax(axis=1)


def _lines(node: Node, values: Array) -> Array:
    """Return versions of what is reduced, of shape (m, lines, elements of each)."""
    axes = [1 + axis for axis in reduced_axes(node)]
    moved = np.moveaxis(values, axes, range(-len(axes), 0))
    return moved.reshape(len(values), prod(moved.shape[1 : -len(axes)]), -1)


def _aligned_change(argument: Any, node: Node, changes: Changes) -> Any:
    """Return what an argument of an elementwise operation changes by; 0 if it does not move."""
    if type(argument) is not Node or argument not in changes:
        return 0.0
    m, *shape = changes[argument].shape
    return changes[argument].reshape(m, *(1,) * (len(node.shape) - len(shape)), *shape)


@dataclass(frozen=True, eq=False)
class LinearMoves:
    """What moves of weights do, as far as a linear piece tells.

    Attributes
    ----------
    change : array of shape (2, inputs, units)
        What moving weights up, and down, changes the loss by.
    is_known : bool array of shape (inputs, units)
        Whether it is that: no decision changes.
    slopes : array of shape (inputs, units)
        The part of moves up that is in proportion to them, as if no decision changed.
    has_slope : bool array of shape (inputs, units)
    """

    change: Array
    is_known: NDArray[np.bool_]
    slopes: Array
    has_slope: NDArray[np.bool_]


def by_linear_piece(rows: RowLosses, stage: Stage, distances: Array) -> LinearMoves | None:
    """Return what moving weights up, and down, changes the loss by, where no decision changes.

    And the slopes of all, by Richardson's extrapolation as if no decision changed.

    Parameters
    ----------
    rows : RowLosses
        The loss as one row.
    stage : Stage
    distances : array of shape (inputs, units)
        How far weights are moved.

    Returns
    -------
    LinearMoves or None
        None if decisions often change, or it does not pay.
    """
    replay, used = rows.replay, stage.used_inputs
    piece = LinearPiece(replay)
    if not piece.pays or 16 * len(used) * piece.origin.value.size > MAX_PIECE_BYTES:
        return None
    up, down = _both_ways(replay, stage, distances, piece.origin)
    tolerance = ODD_EPS * np.finfo(np.float64).eps * abs(piece.origin.value).max()
    ids = replay.unit_ids[piece.origin].reshape(-1)
    is_odd = [(abs(up + down)[:, ids == unit] <= tolerance).all(axis=1) for unit in replay.units]
    elements = [np.flatnonzero((ids == unit) & up.any(axis=0)) for unit in replay.units]
    if 8 * min(len(used), max(map(len, elements))) * piece.gaps.size > MAX_PIECE_BYTES:
        return None
    base = np.concatenate([node.value.reshape(-1) for node in piece.ends])

    def of_unit(unit: int) -> tuple[Array, Array, NDArray[np.bool_]]:
        own = elements[unit - 1]
        if len(own) < len(used):  # single elements
            share, moves = up[:, own], np.zeros((len(own), up.shape[1]))
            moves[np.arange(len(own)), own] = 1
        else:
            share, moves = np.eye(len(used)), np.where(ids == unit, up, 0)
        compared, ends = piece.changes(unit, moves)
        reach = abs(share).max(axis=0).astype(np.float32) @ abs(compared)
        near = np.flatnonzero(~(reach <= piece.gaps / 2))
        least = piece.gaps[near] - SINGLE_MARGIN * reach[near]
        known = (abs(share @ compared[:, near]) <= least).all(axis=1)
        change = share @ ends
        # The slopes by larger moves, which rounding matters less to.
        values = base + np.concatenate([s * change for s in (1, -1, 2, -2, 4, -4)])
        is_exact = (abs(values) >= abs(base) / MAX_CANCELLATION) & np.isfinite(values)
        known &= is_exact.all(axis=1).reshape(6, -1)[:2].all(axis=0)
        ends_at = np.cumsum([node.value.size for node in piece.ends])[:-1]
        stacks = {
            node: Stack(np.ascontiguousarray(part).reshape(-1, *node.shape))
            for node, part in zip(piece.ends, np.split(values, ends_at, axis=1), strict=True)
        }
        losses = replay.run(piece.later, stacks, len(values))[replay.target].values
        by_row = rows.summed(Outcome(np.array([unit]), losses[np.newaxis], unit_ids=None))
        by_both = by_row.sum(axis=-1).reshape(3, 2, -1)
        _, twice, four_times = (by_both[:, 0] - by_both[:, 1]) / 2
        return by_both[0], (8 * twice - four_times) / 12, known

    change, slopes = np.zeros((2, *distances.shape)), np.zeros(distances.shape)
    all_known, has_slope = np.ones((2, *distances.shape), bool)
    tried = replay.units[:: max(1, len(replay.units) // UNITS_TRIED)]
    for units in (tried, np.setdiff1d(replay.units, tried)):
        for unit, (of_both, straight, known) in zip(
            units, in_threads(of_unit, units.tolist()), strict=True
        ):
            change[:, used, unit - 1] = of_both
            slopes[used, unit - 1] = straight
            all_known[used, unit - 1] = is_odd[unit - 1] & known
            has_slope[used, unit - 1] = is_odd[unit - 1] & np.isfinite(straight)
        if 1 - all_known[used][:, tried - 1].mean() > MAX_CHANGING_SHARE:
            return None
    return LinearMoves(change, all_known, slopes, has_slope)


def _origin(replay: Replay, node: Node) -> Node:
    """Return the array whose elements moves have put where they are in another one."""
    while node.kind == operations.MOVE and type(source := node.arguments[0]) is Node:
        if source not in replay.unit_ids:
            break
        node = source
    return node


def _both_ways(replay: Replay, stage: Stage, distances: Array, node: Node) -> tuple[Array, Array]:
    """Return by how much weights of all units, moved up and down, change an array's elements.

    Each is of shape (used inputs, elements).
    """
    root, used = replay.root, stage.used_inputs
    rows, units = stage.rows - 1, np.where(stage.unit_ids > 0, stage.unit_ids, 1) - 1
    needed = between([root, *replay.nodes], root, node)
    result = np.empty((2, len(used), node.value.size))
    each = max(1, BATCH_ELEMENTS // root.value.size)
    for part in (slice(k, k + each) for k in range(0, len(used), each)):
        moves = stage.inputs.T[used[part]][:, rows] * distances[used[part]][:, units]
        moves[:, stage.unit_ids == 0] = 0
        for side, sign in enumerate((1, -1)):
            stacks = {root: Stack(root.value + sign * moves)}
            values = replay.run(needed, stacks, len(moves))[node].values
            result[side, part] = (values - node.value).reshape(len(moves), -1)
    return result[0], result[1]
