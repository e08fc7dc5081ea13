"""Pieces of a replay that are linear: a few versions tell those by all weights.

Between the stage and the scores, a net of convolutions, ReLUs and pooling is linear as long as no
unit passes a kink and no maximum passes to another element: a *decision* changes then. What a
weight does is then the sum of what it moves; where none of its moves changes a decision, that is
known without a replay of its own.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.concurrency import in_threads
from fastgrad.jit.interrupts import require_time
from fastgrad.tracing import operations
from fastgrad.tracing.affine import MAX_CANCELLATION, Stage, propagate
from fastgrad.tracing.batched import Stack
from fastgrad.tracing.changed_decisions import Moves, Part, Told, excesses
from fastgrad.tracing.linear_operations import (
    ORDERINGS,
    SUM_MARGIN,
    Changes,
    Choice,
    Decisions,
    View,
    as_changes,
    change_of,
    choice_of,
    decisions_of,
    mask_of,
    norms,
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

    def __init__(self, replay: Replay, *, with_choices: bool = True) -> None:
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
        readers = Counter(leaf for node in replay.nodes for leaf in node.inputs())
        self._choices: dict[Node, Choice] = {}
        self._compared: dict[Node, Decisions] = {}
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
                decisions = decisions_of(node, views)
                if decisions and name_of(node) in ORDERINGS:
                    self._compared[node] = decisions
                    decided.add(node)
                    continue
                view = view_of(node, views)
                change = view or change_of(node, views, replay.functions[node])
                mask = node if decisions else mask_of(node) or node
                if mask in self._compared and readers[mask] == 1 and mask.shape == node.shape:
                    decisions = self._compared[mask]
                if view and decisions and decisions.source is view.source:
                    self._compared[mask] = decisions
                    if with_choices:
                        choice = choice_of(node, view, self._compared.pop(mask), mask, self._views)
                        self._choices[node], view, change = choice, None, choice.changes
            if change is None:
                self.later.append(node)
                continue
            if view is None:
                self._steps[node] = change
                last |= {each.source: node for each in views.values()}
                view = View(node, np.arange(1, node.value.size + 1).reshape(node.shape))
            self._views[node] = view
        self._plain: dict[Node, list[Node]] = {}
        for mask, decisions in self._compared.items():
            self._plain.setdefault(decisions.source, []).append(mask)
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
        self.pays = bool(self.ends) and is_end_small and not reads_separate

    def changes(self, moves: Sequence[Moves]) -> Told:
        """Return what moves of the elements of the origin change while no decision changes."""
        m = sum(len(each.values) for each in moves)
        changes, told = Changes(), Told(moves, [], [], {}, {}, {}, {}, np.zeros((0, m)))
        for node, change in self._steps.items():
            require_time()
            values = changes[node] = change(moves if node in self._updates else changes)
            choice = self._choices.get(node)
            if choice is None:
                told.reaches[node] = (1 + SUM_MARGIN) * norms(values)
            else:
                told.reaches[node] = told.reaches[choice.view.source][choice.view.places]
            for mask in self._plain.get(node, ()):
                told.plain[mask] = told.may_change(mask, self._compared[mask], values)
            if choice is not None:
                source = changes[choice.view.source]
                told.may_change(node, choice.decisions, source)
                elements = np.unique(choice.decisions.owners[told.bounds[node][0]])
                told.near[node] = elements, source[choice.inputs[elements]]
            for read in self._finished[node]:  # memory in a core's cache, for the next ones
                del changes[read]
        ends = [taken(self._views[n], changes).reshape(n.value.size, m) for n in self.ends]
        return told._replace(ends=np.concatenate(ends))

    def excesses(self, parts: Sequence[Part]) -> Iterator[tuple[Part, Array, NDArray[np.bool_]]]:
        """Give what weights change the ends more than while no decision changes, part by part.

        Of shape (2, weights, elements of all ends), moved up and down; and whether it is that.
        """
        steps = {n: None if n in self._updates else change for n, change in self._steps.items()}
        plain = {
            source: [(mask, self._compared[mask]) for mask in masks]
            for source, masks in self._plain.items()
        }
        found = excesses(steps, self._choices, plain, parts) if parts else None
        if found is None:
            return
        of_parts, changes = found
        ends = np.concatenate(
            [taken(self._views[n], changes).reshape(n.value.size, -1) for n in self.ends]
        )
        for each in of_parts:
            yield each.part, each.values @ ends.T, each.are_known

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
    if not piece.pays:  # as where one picks from several others
        piece = LinearPiece(replay, with_choices=False)
    if not piece.pays or 16 * len(used) * piece.origin.value.size > MAX_PIECE_BYTES:
        return None
    up, down = _both_ways(replay, stage, distances, piece.origin)
    tolerance = ODD_EPS * np.finfo(np.float64).eps * abs(piece.origin.value).max()
    ids = replay.unit_ids[piece.origin].reshape(-1)
    is_even = ~(abs(up + down) <= tolerance)
    is_odd = np.stack([~is_even[:, ids == unit].any(axis=1) for unit in replay.units])
    if 1 - is_odd.mean() > MAX_CHANGING_SHARE:
        return None
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
            return Moves(unit, by_weights, True), np.eye(len(used))
        share = up[:, own]
        size = float(np.linalg.norm(share, axis=1).max(initial=0)) or 1.0
        single = np.zeros((len(own), by_weights.shape[1]))
        single[np.arange(len(own)), 1 + own] = size
        return Moves(unit, single, False), share / size

    def losses(ends: Array) -> Array:
        """Return what the loss changes by where the ends become something else."""
        ends_at = np.cumsum([node.value.size for node in piece.ends])[:-1]
        stacks = {
            node: Stack(np.ascontiguousarray(part).reshape(-1, *node.shape))
            for node, part in zip(piece.ends, np.split(ends, ends_at, axis=1), strict=True)
        }
        values = replay.run(piece.later, stacks, len(ends))[replay.target].values
        by_row = rows.summed(Outcome(replay.units[:1], values[np.newaxis], unit_ids=None))
        return np.asarray(by_row[0].sum(axis=-1))

    def is_exact(ends: Array) -> NDArray[np.bool_]:
        """Say of which versions of the ends no digits are lost."""
        not_small = abs(ends) >= abs(base) / MAX_CANCELLATION
        return np.asarray((not_small & np.isfinite(ends)).all(axis=1))

    def of_units(units: Places) -> tuple[Part, Array, Array, NDArray[np.bool_]]:
        moves, shares = zip(*map(shared, units), strict=True)
        told = piece.changes(moves)
        part = Part(units, [*shares], told)
        compared = np.concatenate([told.ends[:0], *told.compared])  # of nothing, if f is linear
        gaps = np.concatenate([np.zeros(0), *told.gaps])
        least = (1 - SUM_MARGIN) * gaps[:, np.newaxis]
        known: Any = (abs(part.of_weights(compared)) <= least).all(axis=0)
        change = part.of_weights(told.ends).T
        # The slopes by larger moves, which rounding matters less to.
        ends = base + np.concatenate([s * change for s in (1, -1, 2, -2, 4, -4)])
        known &= is_exact(ends[: 2 * len(change)]).reshape(2, -1).all(axis=0)
        by_both = losses(ends).reshape(3, 2, -1)
        _, twice, four_times = (by_both[:, 0] - by_both[:, 1]) / 2
        return part, by_both[0], (8 * twice - four_times) / 12, known

    change, slopes = np.zeros((2, *distances.shape)), np.zeros(distances.shape)
    all_known, has_slope = np.ones((2, *distances.shape), bool)
    tried = replay.units[:: max(1, len(replay.units) // UNITS_TRIED)]
    told: list[Part] = []
    for units in filter(len, (tried, np.setdiff1d(replay.units, tried))):
        versions = count * len(units)
        parts = np.array_split(units, min(len(units), max(2, round(versions / VERSIONS_AT_ONCE))))
        seconds = SECONDS_PER_ELEMENT * piece.size * versions / len(parts)
        for part, of_both, straight, known in in_threads(of_units, parts, seconds):
            where: Any = np.ix_(used, part.units - 1)
            shape = len(part.units), len(used)
            change[:, *where] = of_both.reshape(2, *shape).transpose(0, 2, 1)
            slopes[where] = straight.reshape(shape).T
            all_known[where] = known.reshape(shape).T
            is_finite = np.isfinite(straight).reshape(shape)
            has_slope[where] = (is_odd[part.units - 1] & is_finite).T
            told.append(part)
        changing = 1 - all_known[used][:, tried - 1].mean()
        near = sum(len(elements) for part in told for elements, _ in part.told.near.values())
        if changing > MAX_CHANGING_SHARE and near > versions:
            return None
    some = [p for p in told if not (all_known[np.ix_(used, p.units - 1)].all())]
    for part, excess, is_sure in piece.excesses(some):
        straight = part.of_weights(part.told.ends).T
        ends = (base + np.stack([straight, -straight]) + excess).reshape(-1, len(base))
        where, shape = np.ix_(used, part.units - 1), (len(part.units), len(used))
        known = (is_sure & is_exact(ends).reshape(2, -1)).all(axis=0).reshape(shape).T
        is_new = known & ~all_known[where]
        by_both = losses(ends).reshape(2, *shape).transpose(0, 2, 1)
        change[:, *where] = np.where(is_new, by_both, change[:, *where])
        all_known[where] |= is_new
    all_known[used] &= is_odd.T
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
