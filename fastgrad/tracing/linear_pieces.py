"""Pieces of a replay that are linear: a few versions tell those by all weights.

Between the stage and the scores, a net of convolutions, ReLUs and pooling is linear as long as no
unit passes a kink and no maximum passes to another element: a *decision* changes then. What a
weight does is then the sum of what it moves; where none of its moves changes a decision, that is
known without a replay of its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.concurrency import in_threads
from fastgrad.jit.interrupts import require_time
from fastgrad.tracing import operations
from fastgrad.tracing.affine import MAX_CANCELLATION, Stage, propagate
from fastgrad.tracing.batched import Stack
from fastgrad.tracing.linear_operations import (
    ORDERINGS,
    SUM_MARGIN,
    Changes,
    Decisions,
    View,
    as_changes,
    change_of,
    decisions_of,
    taken,
    view_of,
)
from fastgrad.tracing.operations import Node, between
from fastgrad.tracing.replay import BATCH_ELEMENTS, SECONDS_PER_ELEMENT, Outcome, Replay
from fastgrad.tracing.row_losses import RowLosses
from fastgrad.tracing.smoothness import name_of
from fastgrad.typing import Array, Places

MIN_GAIN = 2
"""How many times more elements than are read of a piece a product in it is to compute, at least."""

MAX_PIECE_BYTES = 2**26
"""The memory that changes may take: of one array by all units, and of all arrays by one unit."""

ODD_EPS = 16
"""Units of rounding, of the largest number, by which moves up and down may differ."""

UNITS_TRIED = 4
"""By how many units it is measured how often decisions may change."""

MAX_CHANGING_SHARE = 0.9
"""The share of their weights that may change some: if more do, the other units are not tried."""

VERSIONS_AT_ONCE = 48
"""About how many changes of all arrays are computed at a time."""


class Moves(NamedTuple):
    """Moves of the elements of the origin, by one unit.

    Attributes
    ----------
    unit : int
    values : array of shape (count, 1 + elements of the origin)
        After a zero.
    times : float
        The largest norm of the shares that a weight has in them.
    """

    unit: int
    values: Array
    times: float


class LinearPiece:
    """The operations from which on units mix, as far as they are linear while no decision changes.

    These are products with what does not move, sums, moves, and what picks. There, what several
    elements of an array do together is the sum of what each of them does, and the opposite where
    they move the other way. A few changes tell those by all weights of a unit.

    Changes are computed of products and sums alone; all other arrays are views of these.

    Attributes
    ----------
    origin : Node
        The array in which no units mix that it begins with.
    later, ends : lists of Node
        The operations that follow, and the arrays of the piece that these read.
    size : int
        The elements of all arrays whose changes are computed.
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
            self._sources[node] = np.moveaxis(places, update.axes[0], -1)
        self.later: list[Node] = []
        self._steps: dict[Node, Any] = {}
        self._views: dict[Node, View] = {}
        decided, moved = set[Node](), {replay.root, *replay.nodes}
        compared: dict[Node, list[Any]] = {}
        last: dict[Node, Node] = {}  # reader of each source
        for node in mixed:
            moving = moved.intersection(node.inputs()) - decided
            views = {leaf: self._views[leaf] for leaf in moving & self._views.keys()}
            change: Any = None
            view: View | None = None
            if not moving:
                decided.add(node)
                continue
            if node in self._updates:
                change = partial(self._changes_of_update, node)
            elif len(views) == len(moving):
                if decisions := decisions_of(node, views):
                    compared.setdefault(decisions[0], []).append(decisions[1])
                    if name_of(node) in ORDERINGS:
                        decided.add(node)
                        continue
                view = view_of(node, views)
                change = view or change_of(node, views, replay.functions[node])
            if change is None:
                self.later.append(node)
                continue
            if view is None:
                self._steps[node] = change
                last |= {each.source: node for each in views.values()}
                view = View(node, np.arange(1, node.value.size + 1).reshape(node.shape))
            self._views[node] = view
        self._decisions = {
            source: Decisions(*map(np.concatenate, zip(*parts, strict=True)))
            for source, parts in compared.items()
        }
        self.size = sum(node.value.size for node in self._steps)
        read = {leaf for node in self.later for leaf in node.inputs()} | {replay.target}
        self.ends = [node for node in mixed if node in self._views and node in read]
        of_ends = {self._views[node].source for node in self.ends}
        self._finished = {
            node: {source for source, reader in last.items() if reader is node} - of_ends
            for node in self._steps
        }
        products = [n for n in self._steps if n.kind == operations.PRODUCT]
        computed = max((n.value.size for n in products if n not in self._updates), default=0)
        reads_separate = not read.isdisjoint(replay.unit_ids)
        is_end_small = MIN_GAIN * sum(node.value.size for node in self.ends) <= computed
        self.pays = is_end_small and not reads_separate

    def changes(self, moves: Sequence[Moves]) -> tuple[Array, Array, Array]:
        """Return what moves of the elements of the origin change.

        Returns
        -------
        compared : array of shape (some decisions, all moves)
            The changes of what those decisions compare that may change.
        gaps : array of shape (some decisions,)
            How far that is apart.
        ends : array of shape (elements of all ends, all moves)
        """
        m = sum(len(each.values) for each in moves)
        times = max(each.times for each in moves)
        changes, compared, gaps = Changes(), [np.zeros((0, m))], [np.zeros(0)]
        for node, change in self._steps.items():
            require_time()
            changes[node] = change(moves if node in self._updates else changes)
            if node in self._decisions:
                some = self._decisions[node].near(changes[node], times)
                compared.append(some[0])
                gaps.append(some[1])
            for source in self._finished[node]:  # memory in a core's cache, for the next ones
                del changes[source]
        ends = [taken(self._views[n], changes).reshape(n.value.size, m) for n in self.ends]
        return np.concatenate(compared), np.concatenate(gaps), np.concatenate(ends)

    def _changes_of_update(self, node: Node, moves: Sequence[Moves]) -> Array:
        """Return the changes of a product by which units mix."""
        update, columns = self._updates[node], []
        for each in moves:
            places = np.take(self._sources[node], update.places[each.unit - 1], axis=-1)
            of_unit = update.of_changes(np.take(each.values, places, axis=1), each.unit)
            columns.append(of_unit.reshape(len(of_unit), node.value.size))
        return as_changes(np.concatenate(columns))


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
    is_even = ~(abs(up + down) <= tolerance)
    is_odd = np.stack([~is_even[:, ids == unit].any(axis=1) for unit in replay.units])
    is_moved = up.any(axis=0)
    elements = [np.flatnonzero((ids == unit) & is_moved) for unit in replay.units]
    count = min(len(used), max(map(len, elements)))  # of moves of a unit
    if 8 * count * piece.size > MAX_PIECE_BYTES:
        return None
    base = np.concatenate([node.value.reshape(-1) for node in piece.ends])
    by_weights = np.pad(up, ((0, 0), (1, 0)))

    def shared(unit: int) -> tuple[Moves, Array]:
        """Return moves, and the share that each weight has in each of them."""
        own = elements[unit - 1]
        if len(own) >= len(used):
            return Moves(unit, by_weights, 1.0), np.eye(len(used))
        single, share = np.zeros((len(own), by_weights.shape[1])), up[:, own]
        single[np.arange(len(own)), 1 + own] = 1
        return Moves(unit, single, float(np.linalg.norm(share, axis=1).max(initial=0))), share

    def of_units(units: Places) -> tuple[Array, Array, NDArray[np.bool_]]:
        moves, shares = zip(*map(shared, units), strict=True)
        compared, gaps, ends = piece.changes(moves)
        starts = np.cumsum([0, *(len(each.values) for each in moves)])
        known, changes = np.empty((len(units), len(used)), bool), []
        for k, share in enumerate(shares):
            of_unit = slice(starts[k], starts[k + 1])
            own = compared[:, of_unit].T
            reach = (1 + SUM_MARGIN) * (abs(share).max(axis=0) @ abs(own))
            near = np.flatnonzero(~(reach <= gaps))
            least = gaps[near] - SUM_MARGIN * reach[near]
            known[k] = (abs(share @ own[:, near]) <= least).all(axis=1)
            changes.append(share @ ends[:, of_unit].T)
        change = np.concatenate(changes)
        # The slopes by larger moves, which rounding matters less to.
        values = base + np.concatenate([s * change for s in (1, -1, 2, -2, 4, -4)])
        is_exact = (abs(values) >= abs(base) / MAX_CANCELLATION) & np.isfinite(values)
        known &= is_exact.all(axis=1).reshape(6, *known.shape)[:2].all(axis=0)
        ends_at = np.cumsum([node.value.size for node in piece.ends])[:-1]
        stacks = {
            node: Stack(np.ascontiguousarray(part).reshape(-1, *node.shape))
            for node, part in zip(piece.ends, np.split(values, ends_at, axis=1), strict=True)
        }
        losses = replay.run(piece.later, stacks, len(values))[replay.target].values
        by_row = rows.summed(Outcome(units[:1], losses[np.newaxis], unit_ids=None))
        by_both = by_row.sum(axis=-1).reshape(3, 2, *known.shape)
        _, twice, four_times = (by_both[:, 0] - by_both[:, 1]) / 2
        return by_both[0], (8 * twice - four_times) / 12, known

    change, slopes = np.zeros((2, *distances.shape)), np.zeros(distances.shape)
    all_known, has_slope = np.ones((2, *distances.shape), bool)
    tried = replay.units[:: max(1, len(replay.units) // UNITS_TRIED)]
    for units in filter(len, (tried, np.setdiff1d(replay.units, tried))):
        versions = count * len(units)
        parts = np.array_split(units, min(len(units), max(2, round(versions / VERSIONS_AT_ONCE))))
        seconds = SECONDS_PER_ELEMENT * piece.size * versions / len(parts)
        for part, found in zip(parts, in_threads(of_units, parts, seconds), strict=True):
            where: Any = np.ix_(used, part - 1)
            of_both, straight, known = found
            change[:, *where] = of_both.transpose(0, 2, 1)
            slopes[where] = straight.T
            all_known[where] = (is_odd[part - 1] & known).T
            has_slope[where] = (is_odd[part - 1] & np.isfinite(straight)).T
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
