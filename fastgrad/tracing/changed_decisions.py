"""Decisions that weights change in a linear piece: what they add to what the piece tells.

Where a weight changes a decision, as when a unit passes the kink of a ReLU, an element changes by
another amount than while no decision changes: by an *excess* that is known exactly, for the element
picks from few others. What follows is linear again, in the excess, too: it is moved from there on,
by one, and a weight's part is as much of that as its excess. Elements near to a change are few.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.interrupts import require_time
from fastgrad.tracing.linear_operations import SUM_MARGIN, Changes, Choice, Decisions, norms
from fastgrad.tracing.operations import Node
from fastgrad.typing import Array, Places

NEAR_FACTOR = 3
"""How many times as far as weights change elements alone they may change them with excesses."""

NEAR_SHARE = 0.1
"""And by which share of the largest such change more."""

MAX_EXCESS_BYTES = 2**27
"""The memory that what excesses change may take, of all arrays, and their sizes by all weights."""


class Moves(NamedTuple):
    """Moves of the elements of the origin, by one unit: weights move by shares of norm 1 at most.

    Attributes
    ----------
    unit : int
    values : array of shape (count, 1 + elements of the origin)
        After a zero.
    are_of_weights : bool
        Whether each is what a weight does.
    """

    unit: int
    values: Array
    are_of_weights: bool


class Beside(NamedTuple):
    """What excesses change of an array, beside what weights do.

    Attributes
    ----------
    values : array of shape (1 + elements, m)
    times : float
        The largest norm of the m excesses of a weight.
    reach : array of shape (1 + elements,)
        By how much elements change at most.
    """

    values: Array
    times: float
    reach: Array


class Told(NamedTuple):
    """What moves change while no decision changes, and what may change decisions.

    Attributes
    ----------
    moves : sequence of Moves
    compared, gaps : lists of arrays of shapes (some decisions, moves) and (some decisions,)
        The changes of what those decisions compare that may change, and how far that is apart.
    near : dict of (array of shape (elements,), array of shape (elements, inputs, moves))
        Of each choice, the elements that such decisions are of, and changes of their inputs.
    plain : dict of (array of shape (some decisions,), array of shape (some decisions, moves))
        Of what else compares: which decisions these are, and by how much that changes.
    reaches : dict of array
        How far weights change the elements of arrays at most.
    bounds : dict of (array of shape (decisions,), array of that shape)
        The same of what some decisions compare, which is less than its elements' reaches.
    ends : array of shape (elements of all ends, moves)
    """

    moves: Sequence[Moves]
    compared: list[Array]
    gaps: list[Array]
    near: dict[Node, tuple[Places, Array]]
    plain: dict[Node, tuple[Places, Array]]
    reaches: dict[Node, Array]
    bounds: dict[Node, tuple[Places, Array]]
    ends: Array

    def may_change(self, node: Node, decisions: Decisions, values: Array) -> tuple[Places, Array]:
        """Note which decisions may change; return them, and by how much what they compare does."""
        reach = self.reaches[decisions.source]
        further = NEAR_FACTOR * reach + NEAR_SHARE * reach.max()
        which = decisions.near(np.where(reach > 0, further, 0))
        compared = decisions.compared(which, values)
        if all(each.are_of_weights for each in self.moves):
            bounds = (1 + SUM_MARGIN) * abs(compared).max(axis=1, initial=0)
        else:
            bounds = (1 + SUM_MARGIN) * norms(compared)
        self.bounds[node] = which, bounds
        gaps = decisions.gaps[which]
        near = ~(NEAR_FACTOR * bounds <= gaps)
        self.compared.append(compared[near])
        self.gaps.append(gaps[near])
        return which[near], compared[near]

    def undecided(
        self, node: Node, others: NDArray[np.bool_], decisions: Decisions, beside: Beside
    ) -> Places:
        """Return which decisions of a node, but for others, may change with what moves beside."""
        reach, known = self.reaches[decisions.source], self.bounds[node]
        which = decisions.near(reach + beside.reach)
        which = which[~others[which]]
        bounds = reach[decisions.first[which]] + reach[decisions.second[which]]
        _, at, among = np.intersect1d(which, known[0], return_indices=True)
        bounds[at] = known[1][among]
        bounds += beside.times * norms(decisions.compared(which, beside.values))
        return np.asarray(which[~(bounds <= decisions.gaps[which])])


class Part(NamedTuple):
    """Some units, and what was told of them.

    Attributes
    ----------
    units : int array
    shares : list of arrays of shape (weights, moves)
        For each unit, the shares that its weights have in its moves.
    told : Told
        Of the moves of all of them.
    """

    units: Places
    shares: list[Array]
    told: Told

    def of_weights(self, values: Array) -> Array:
        """Return what all weights do, of shape (..., weights), from what moves do."""
        ends = np.cumsum([share.shape[1] for share in self.shares])[:-1]
        columns = np.split(values, ends, axis=-1)
        each = [own @ share.T for own, share in zip(columns, self.shares, strict=True)]
        return np.concatenate(each, axis=-1)


class Excesses:
    """By how much more than told elements change where the weights of a part move up, and down.

    Attributes
    ----------
    part : Part
    values : array of shape (2, weights, m)
        Of all elements that have been added; at first, of one that never changes.
    are_known : bool array of shape (2, weights)
        Whether no other decisions change.
    """

    def __init__(self, part: Part) -> None:
        shape = 2, sum(map(len, part.shares))
        self.part, self.values, self.are_known = part, np.zeros((*shape, 1)), np.ones(shape, bool)

    def of_choice(
        self, node: Node, choice: Choice, source: Array, sizes: Array
    ) -> tuple[Places, Array]:
        """Find those of a choice, by what the ones before it change of what it picks from.

        Return which elements have some, and these, of shape (2, weights, elements).
        """
        which, rows = self.part.told.near[node]
        owners = choice.decisions.owners
        beside, others = self._beside(source, sizes), np.isin(owners, which)
        open_ = self.part.told.undecided(node, others, choice.decisions, beside)
        more = np.unique(owners[open_])
        if self.part.told.reaches[choice.view.source][choice.inputs[more]].any():
            self.are_known[:] = False
            return which[:0], self.values[..., :0]
        linear = self.part.of_weights(rows)
        still = np.zeros((len(more), *linear.shape[1:]))
        which, linear = np.append(which, more), np.concatenate([linear, still])
        found = np.zeros((*self.are_known.shape, len(which)))
        for side, moved in self._moved(linear, source[choice.inputs[which]]):
            excess, is_sure = choice.excess(which, moved)
            found[side] = excess.T
            self.are_known[side] &= is_sure.all(axis=0)
        some = found.any(axis=(0, 1))
        return which[some], found[..., some]

    def add(self, elements: Places, own: Places, values: Array) -> None:
        """Add those of some elements, in order, of which the part's own have these values."""
        more = np.zeros((*self.are_known.shape, len(elements)))
        more[..., np.searchsorted(elements, own)] = values
        self.values = np.concatenate([self.values, more], axis=-1)

    def compare(self, node: Node, decisions: Decisions, values: Array, sizes: Array) -> None:
        """See whether decisions stay, by what those so far change of what they compare."""
        which, rows = self.part.told.plain[node]
        others = np.isin(np.arange(len(decisions.gaps)), which)
        beside = self._beside(values, sizes)
        self.are_known &= not self.part.told.undecided(node, others, decisions, beside).size
        least = (1 - SUM_MARGIN) * decisions.gaps[which, np.newaxis]
        linear = self.part.of_weights(rows)
        for side, moved in self._moved(linear, decisions.compared(which, values)):
            self.are_known[side] &= (abs(moved) <= least).all(axis=0)

    def _beside(self, values: Array, sizes: Array) -> Beside:
        """Return what they change of an array, of whose elements the norms are given."""
        times = (1 + SUM_MARGIN) * float(np.linalg.norm(self.values, axis=2).max(initial=0))
        return Beside(values, times, times * sizes)

    def _moved(self, linear: Array, values: Array) -> Iterator[tuple[int, Array]]:
        """Yield both sides, and by how much weights change what is told there, with excesses."""
        for side, sign in enumerate((1, -1)):
            yield side, sign * linear + values @ self.values[side].T


def excesses(
    steps: Mapping[Node, Any],
    choices: Mapping[Node, Choice],
    plain: Mapping[Node, Sequence[tuple[Node, Decisions]]],
    parts: Sequence[Part],
) -> tuple[list[Excesses], Changes] | None:
    """Return the excesses of the weights of each part, and what each of them changes.

    Parameters
    ----------
    steps : dict of callable
        ``change(changes)`` computes a node's changes from those of others; None where weights move
        it, and nothing else.
    choices : dict of Choice
        Those of the nodes that are one.
    plain : dict of (Node, Decisions)
        What else compares elements of each node.
    parts : sequence of Part

    Returns
    -------
    excesses : list of Excesses
    changes : dict of arrays of shape (1 + elements, m)

    None if these are too many.
    """
    near = [len(np.unique(np.concatenate([p.told.near[n][0] for p in parts]))) for n in choices]
    weights = sum(len(share) for part in parts for share in part.shares)
    bytes_each = 8 * max(2 * weights, sum(node.value.size for node in steps))
    if not any(near) or 2 * sum(near) * bytes_each > MAX_EXCESS_BYTES:
        return None
    found = [Excesses(part) for part in parts]
    changes, m = Changes(), 1
    for node, change in steps.items():
        require_time()
        values = np.zeros((1 + node.value.size, m)) if change is None else change(changes)
        if node in choices:
            source = changes[choices[node].view.source]
            sizes = norms(source)
            new = [each.of_choice(node, choices[node], source, sizes) for each in found]
            elements = np.unique(np.concatenate([own for own, _ in new]))
            m += len(elements)
            if m * bytes_each > MAX_EXCESS_BYTES:
                return None
            for each, (own, excess) in zip(found, new, strict=True):
                each.add(elements, own, excess)
            if elements.size:
                changes = {before: _widened(each, m) for before, each in changes.items()}
                values = _widened(values, m)
                values[1 + elements, np.arange(m - len(elements), m)] = 1
        for mask, decisions in plain.get(node, ()):
            sizes = norms(values)
            for each in found:
                each.compare(mask, decisions, values, sizes)
        changes[node] = values
    return found, changes


def _widened(changes: Array, m: int) -> Array:
    """Return an array's changes by m elements, of which the last change nothing of it."""
    return np.pad(changes, ((0, 0), (0, m - changes.shape[1])))
