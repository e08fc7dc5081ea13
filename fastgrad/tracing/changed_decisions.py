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


class Columns:
    """Which of all excesses are those of which elements of an array.

    Attributes
    ----------
    of : int array of shape (elements,)
        -1 where there is none.
    end : int
        How many excesses there are by now, of this array and those before it.
    """

    def __init__(self, elements: int, end: int, most: int) -> None:
        self.of, self.end, self._most = np.full(elements, -1), end, most

    def take(self, elements: Places) -> bool:
        """Give each of these elements one, if it has none; say whether there are enough."""
        new = elements[self.of[elements] < 0]
        if self.end + len(new) > self._most:
            return False
        self.of[new] = self.end + np.arange(len(new))
        self.end += len(new)
        return True

    def add_to(self, values: Array) -> None:
        """Let each element change by its own excess, too."""
        (elements,) = np.nonzero(self.of >= 0)
        values[1 + elements, self.of[elements]] += 1


class Excesses:
    """By how much more than told elements change where the weights of a part move up, and down.

    Attributes
    ----------
    part : Part
    values : array of shape (2, weights, m)
        Of all elements of which decisions change.
    are_known : bool array of shape (2, weights)
        Whether no other decisions change.
    """

    def __init__(self, part: Part, m: int) -> None:
        shape = 2, sum(map(len, part.shares))
        self.part, self.values, self.are_known = part, np.zeros((*shape, m)), np.ones(shape, bool)

    def add_chosen(
        self, node: Node, choice: Choice, source: Array, sizes: Array, columns: Columns
    ) -> None:
        """Find those of a choice, by what the ones before it change of what it picks from."""
        which, rows = self.part.told.near[node]
        owners = choice.decisions.owners
        beside, others = self._beside(source, sizes), np.isin(owners, which)
        open_ = self.part.told.undecided(node, others, choice.decisions, beside)
        more = np.unique(owners[open_])
        reaches = self.part.told.reaches[choice.view.source][choice.inputs[more]]
        if reaches.any() or not columns.take(np.concatenate([which, more])):
            self.are_known[:] = False
            return
        linear = self.part.of_weights(rows)
        still = np.zeros((len(more), *linear.shape[1:]))
        which, linear = np.append(which, more), np.concatenate([linear, still])
        for side, moved in self._moved(linear, source[choice.inputs[which]]):
            excess, is_sure = choice.excess(which, moved)
            self.values[side][:, columns.of[which]] = excess.T
            self.are_known[side] &= is_sure.all(axis=0)

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
    m = 2 * sum(near)  # as many again may be moved by these
    weights = sum(len(share) for part in parts for share in part.shares)
    size = sum(node.value.size for node in steps)
    if not m or 8 * m * max(size, 2 * weights) > MAX_EXCESS_BYTES:
        return None
    found = [Excesses(part, m) for part in parts]
    changes, count = Changes(), 0
    for node, change in steps.items():
        require_time()
        values = np.zeros((1 + node.value.size, m)) if change is None else change(changes)
        if node in choices:
            choice, columns = choices[node], Columns(node.value.size, count, m)
            source = changes[choice.view.source]
            sizes = norms(source)
            for each in found:
                each.add_chosen(node, choice, source, sizes, columns)
            columns.add_to(values)
            count = columns.end
        for mask, decisions in plain.get(node, ()):
            sizes = norms(values)
            for each in found:
                each.compare(mask, decisions, values, sizes)
        changes[node] = values
    return found, changes
