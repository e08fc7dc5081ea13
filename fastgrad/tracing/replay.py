"""Replays of the operations from a moved array to the loss, for many moves at once.

The arrays after the one that is moved come in two forms.

- As long as every element depends on one unit at most, moving all units at once tells, for each
  element, what it becomes when its own unit is moved: one array an amount serves all units. An
  array of *unit_ids* says which unit each element depends on (0: none).
- From the first operation that mixes units on, there is one version of the array for each unit and
  amount. Where that operation is a product, the versions are the recorded result plus a change of
  low rank.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.interrupts import never_lost, require_time
from fastgrad.jit.concurrency import in_threads
from fastgrad.lazy import lazy
from fastgrad.tracing import operations
from fastgrad.tracing.affine import UnitIds, propagate, single_id
from fastgrad.tracing.batched import Batched, Stack, batched, without_zeros
from fastgrad.tracing.chains import Chain, chained
from fastgrad.tracing.operations import (
    BRANCHED,
    Node,
    between,
    factors,
    product_spec,
    replaced,
    value_of,
)
from fastgrad.typing import Array

Observer = Callable[[Node, Mapping[Node, Stack], "NDArray[np.intp] | None"], None]
"""``observe(node, versions, units)`` is called before an operation is computed, with its arguments'
versions: one for each unit and amount, or, without units, one for each amount."""

BATCH_ELEMENTS = 2**17
"""Elements of the largest array that is computed at a time: calling NumPy then costs little, and
what one operation hands on to the next stays in a core's own cache."""

COMPILED_BATCH_ELEMENTS = 5 * 2**16
"""The same of compiled replays, which hand on more to each other by each call."""

np.empty(2**23, np.uint8)
# Got and given back at once: from then on GNU's malloc keeps twice as much for the arrays to come.
# Otherwise it gives a batch's memory back to the system, which clears each page for the next one.

REPLAY_TOLERANCE = 1e-10
"""By how much what is replayed may differ from what was recorded, relative to the largest."""

MIN_COMPILED_ELEMENTS = 10**10
"""The elements that a replay computes from which it compiles chains of its operations: as long as
NumPy takes for so many, compiling takes, too."""

MIN_KERNEL_ELEMENTS = 10**9
"""The same from which kernels pay that have been compiled before, and are kept on disk."""

SECONDS_PER_ELEMENT = 2e-9
"""About what an element of a replayed array costs, at least; for choices."""

ELEMENTS_PER_CALL = 1_000
"""Elements that could be computed in the time of one call of a function for one version."""

MAX_CANCELLATION = 8
"""How many times smaller than what it replaces a term may be, before adding the difference of both
to the sum loses more digits than computing the sum anew."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The values of one of the recorded arrays when units are moved.

    Attributes
    ----------
    units : array of int
        The units that were moved, counted from 1.
    values : array
        If unit_ids is None, of shape (units, amounts, *shape). Otherwise (amounts, *shape): what
        each element becomes when its own unit is moved.
    unit_ids : array of the array's shape, or None
    """

    units: NDArray[np.intp]
    values: Array
    unit_ids: UnitIds | None


class Replay:
    """The operations from one recorded array to another.

    Parameters
    ----------
    nodes : list of Node
        The recording.
    root : Node
        The array that is moved.
    unit_ids : int array of the root's shape
        Which unit each of its elements belongs to, counted from 1; 0 for none.
    target : Node
        The array that is wanted.
    ids, functions : dicts, optional
        The ids of the elements of all arrays, and what applies operations to versions, as far as
        they are known.
    """

    def __init__(
        self,
        nodes: list[Node],
        root: Node,
        unit_ids: UnitIds,
        target: Node,
        ids: dict[Node, UnitIds] | None = None,
        functions: Mapping[Node, Batched] | None = None,
    ) -> None:
        self.root = root
        self.target = target
        self.units = np.arange(1, int(unit_ids.max(initial=0)) + 1)
        self.nodes = between(nodes, root, target)
        self.unit_ids = propagate(self.nodes, root, unit_ids) if ids is None else ids
        known = functions or {}
        self.functions = {node: known.get(node) or batched(node) for node in self.nodes}
        self._separate = [node for node in self.nodes if node in self.unit_ids]
        self._mixed = [node for node in self.nodes if node not in self.unit_ids]
        self._in_order = [*self._separate, *self._mixed]
        inputs = {node: node.inputs() for node in self._in_order}
        last_user = {leaf: node for node, leaves in inputs.items() for leaf in leaves}
        self._finished: dict[Node, list[Node]] = {}
        for leaf, node in last_user.items():
            self._finished.setdefault(node, []).append(leaf)
        self._spare = self._find_spare(last_user)
        self._updates = {node: self.as_update(node) for node in self._mixed}
        # Sums over a few classes go through memory in order if an element's versions lie side by
        # side; products, if a version's elements do.
        self._side_by_side = not any(
            update is None and node.kind == operations.PRODUCT
            for node, update in self._updates.items()
        )
        self._spread_for = {
            node: [leaf for leaf in inputs[node] if leaf in self.unit_ids]
            for node in self._mixed
            if self._updates[node] is None
        }
        self._spreads = {leaf for spread in self._spread_for.values() for leaf in spread}
        self._steps: list[Any] = self._mixed
        self._in_chains: list[Update] = []
        self._nested = {
            node
            for node in self.nodes
            if any(issubclass(type(argument), BRANCHED) for argument in node.arguments)
        }

    def of(self, same: Mapping[Node, Node]) -> "Replay":
        """Return this replay, before it is compiled, of other nodes, which stand for its own."""
        other = copy(self)
        vars(other).update({key: _with_nodes(held, same) for key, held in vars(self).items()})
        other._updates = {node: other.as_update(node) for node in other._mixed}
        other._steps = other._mixed
        return other

    @property
    def is_separate(self) -> bool:
        """Whether each element of the target depends on one unit at most."""
        return not self._mixed

    @lazy
    def largest(self) -> int:
        """The elements of the largest array that is computed for each unit by itself."""
        return max((node.value.size for node in [*self._mixed, *self._spreads]), default=1)

    def compile_if_slow(self, amounts: int) -> None:
        """Use compiled operations if moving all units by so many amounts takes long.

        Results do not depend on it, but for the rounding of products. Operations that are observed
        are computed one by one; and so are all if numba cannot compile them.
        """
        if self.cost(amounts) < MIN_KERNEL_ELEMENTS or self._steps is not self._mixed:
            return
        updates = {node: update for node, update in self._updates.items() if update is not None}
        pairs = {node: pair for node, update in updates.items() if (pair := update.pair)}
        steps = chained(self._mixed, updates, {self.root, *self.nodes}, self.target, pairs)
        chains = [step for step in steps if type(step) is Chain]
        with suppress(Exception), never_lost():
            for node in self._mixed:
                if node.kind == operations.PRODUCT and node not in updates:
                    self.functions[node] = without_zeros(node) or self.functions[node]
            pays = self.cost(amounts) >= MIN_COMPILED_ELEMENTS
            if pays or all(chain.is_compiled for chain in chains):
                for chain in chains:
                    chain.compile()
                self._steps = steps
                self._in_chains = [updates[node] for chain in chains for node in chain.updated]

    @property
    def mixed_operations(self) -> int:
        """How many operations are computed for each unit by itself."""
        return len(self._mixed)

    def cost(self, amounts: int) -> float:
        """Return about how many elements are computed to move all units by so many amounts."""
        separate = sum(map(_effort, self._separate))
        mixed = sum(map(_effort, self._mixed)) + sum(node.value.size for node in self._spreads)
        return float(amounts * (separate + mixed * len(self.used_units)))

    @lazy
    def used_units(self) -> NDArray[np.intp]:
        """The units that the target depends on: not, say, the words that a batch does not have."""
        read = {leaf for node in self._mixed for leaf in node.inputs()} | {self.target}
        is_used = np.zeros(len(self.units) + 1, bool)
        for node in read & self.unit_ids.keys():
            is_used[self.unit_ids[node]] = True
        return np.flatnonzero(is_used[1:]) + 1

    def all_versions(
        self,
        values: Array,
        added: Mapping[Node, Array] | None = None,
        observe: Observer | None = None,
        units: NDArray[np.intp] | None = None,
    ) -> Array:
        """Return the target's versions for any versions of the root.

        Parameters
        ----------
        values : array of shape (m, *root.shape)
        added : dict, optional
            What is added to the versions of some nodes, besides; of shape (m, *node.shape).
        observe : callable, optional
            What is told of each operation.
        units : array of int, optional
            The units that were moved. With them, or an observer, all is computed at once.
        """
        largest = max(node.value.size for node in [self.root, *self.nodes])

        def of(chunk: UnitIds) -> Array:
            more = {node: array[chunk] for node, array in (added or {}).items()}
            stacks = {self.root: Stack(values[chunk[0] : chunk[-1] + 1])}
            self.run(self._in_order, stacks, len(chunk), observe, units, more)
            return stacks[self.target].values

        is_whole = units is not None or observe is not None
        batch = max(1, len(values) * largest) if is_whole else BATCH_ELEMENTS
        results = in_threads(of, _chunks(np.arange(len(values)), largest, batch))
        return results[0] if len(results) == 1 else np.concatenate(results)

    def moved(
        self,
        values: Array,
        units: NDArray[np.intp] | None = None,
        observe: Observer | None = None,
        use: Callable[[Outcome], Any] = lambda outcome: outcome,
    ) -> list[Any]:
        """Return what is made of what the target becomes, for some units at a time.

        Several threads do this, each for other units.

        Parameters
        ----------
        values : array of shape (amounts, *root.shape)
            The root with all units moved.
        units : array of int, optional
            The units that are wanted; without it, all.
        observe : callable, optional
            What is told of each operation.
        use : callable, optional
            What is made of each `Outcome`; without it, that is returned itself.
        """
        amounts = len(values)
        separate: dict[Node, Stack] = {self.root: Stack(values)}
        self.run(self._separate, separate, amounts, observe)
        wanted = self.units if units is None else units
        if self.is_separate:
            outcome = Outcome(wanted, separate[self.target].values, self.unit_ids[self.target])
            return [use(outcome)]

        def of(chunk: UnitIds) -> Any:
            versions = self._run_mixed(separate, chunk, amounts, observe)
            shape = (len(chunk), amounts, *self.target.shape)
            return use(Outcome(chunk, versions.reshape(shape), unit_ids=None))

        batch = BATCH_ELEMENTS if self._steps is self._mixed else COMPILED_BATCH_ELEMENTS
        chunks = _chunks(wanted, self.largest * amounts, batch)
        share = len(wanted) / len(self.units) / len(chunks) if chunks else 0.0
        return in_threads(of, chunks, SECONDS_PER_ELEMENT * share * self.cost(amounts))

    def run(
        self,
        nodes: list[Node],
        stacks: dict[Node, Stack],
        m: int,
        observe: Observer | None = None,
        units: NDArray[np.intp] | None = None,
        added: Mapping[Node, Array] | None = None,
    ) -> dict[Node, Stack]:
        """Compute stacks of m versions, one node after the other."""
        for node in nodes:
            require_time()
            if observe is not None:
                observe(node, stacks, units)  # before the arguments are written over
            spare = self._spare.get(node)
            if node in self._nested:
                stand_in = partial(_stack_or_value, stacks=stacks, spare=spare)
                arguments = replaced(node.arguments, stand_in)
            else:
                arguments = tuple([_stack_or_value(a, stacks, spare) for a in node.arguments])
            stacks[node] = Stack(self.functions[node](arguments, m))
            if added is not None and node in added:
                stacks[node] = Stack(stacks[node].values + added[node])
            for leaf in self._finished.get(node, ()):  # memory in a core's cache, for the next ones
                stacks.pop(leaf, None)
        return stacks

    def _find_spare(self, last_user: dict[Node, Node]) -> dict[Node, Node]:
        """Return, for NumPy's elementwise functions, the argument that nothing else will need.

        Operations that mix no units are computed before all that do, whatever their order in f; so
        what they hand on to those is needed until the end.
        """
        kinds = {node: node.kind for node in self.nodes}
        moves = [node for node in self.nodes if kinds[node] == operations.MOVE]
        viewed = {self.root, *moves, *(leaf for node in moves for leaf in node.inputs())}
        return {
            node: leaf
            for node in self.nodes
            if isinstance(node.function, np.ufunc) and kinds[node] == operations.ELEMENTWISE
            for leaf in node.inputs()
            if leaf in kinds and leaf not in viewed and last_user[leaf] is node
            if (leaf.shape, leaf.value.dtype) == (node.shape, node.value.dtype)
        }

    def _run_mixed(
        self,
        separate: dict[Node, Stack],
        units: UnitIds,
        amounts: int,
        observe: Observer | None,
    ) -> Array:
        """Compute one version for each unit and amount, the units in the outer order."""
        stacks: dict[Node, Stack] = {}
        steps: list[Any] = self._mixed
        factors_of = [update.factors(separate, units) for update in self._in_chains]
        if observe is None and None not in factors_of:
            steps = self._steps
            stacks = {node: stack for each in factors_of if each for node, stack in each.items()}
        for step in steps:
            require_time()
            update = self._updates.get(step)
            if update is not None:
                versions = update.apply(separate, units, side_by_side=self._side_by_side)
                stacks[step] = Stack(versions)
                continue
            is_chain = type(step) is Chain
            for leaf in step.inputs if is_chain else self._spread_for[step]:
                if leaf in separate and leaf not in stacks:
                    stacks[leaf] = Stack(self._spread(leaf, separate[leaf].values, units))
            if is_chain:
                stacks |= step.run(stacks, len(units) * amounts)
            else:
                self.run([step], stacks, len(units) * amounts, observe, units)
        return stacks[self.target].values

    def _spread(self, node: Node, values: Array, units: UnitIds) -> Array:
        """Turn what each element becomes for its own unit into versions, one a unit and amount."""
        unit_ids = self.unit_ids[node]
        own = unit_ids == units.reshape(-1, *(1,) * unit_ids.ndim)
        versions = np.where(own[:, np.newaxis], values, node.value)
        return versions.reshape(-1, *node.shape)

    def as_update(self, node: Node) -> "Update | None":
        """Return a product as a change of low rank, if its one moved factor allows that."""
        if node.kind != operations.PRODUCT:
            return None
        spec = product_spec(node)
        if spec is None:
            return None
        pair = factors(node)
        moved = [type(a) is Node and (a in self.unit_ids or a in self.functions) for a in pair]
        if sum(moved) != 1 or pair[moved.index(True)] not in self.unit_ids:
            return None
        which = moved.index(True)
        return Update.of(node, spec, which, self.unit_ids[pair[which]], len(self.units))


def _with_nodes(held: Any, same: Mapping[Node, Node]) -> Any:
    """Return an attribute of a replay with other nodes in the place of its own."""
    kind = type(held)
    if kind is dict:
        return {same[node]: _with_nodes(value, same) for node, value in held.items()}
    if kind is list or kind is set:
        return kind([same[node] for node in held])
    return same[held] if kind is Node else held


def _stack_or_value(leaf: Any, stacks: dict[Node, Stack], spare: Node | None) -> Any:
    if type(leaf) is not Node or leaf not in stacks:
        return value_of(leaf)
    return Stack(stacks[leaf].values, is_spare=True) if leaf is spare else stacks[leaf]


def _effort(node: Node) -> int:
    """Return about how many elements could be computed in the time of one version of a node."""
    kind = node.kind
    return int(node.value.size) + (ELEMENTS_PER_CALL if kind == operations.OTHER else 0)


def _chunks(array: Array, elements_each: int, batch: int) -> list[Array]:
    """Cut an array along its first axis into equal chunks of about so many elements each."""
    count = max(1, round(len(array) * elements_each / batch))
    length = max(1, -(-len(array) // count))
    return [array[k : k + length] for k in range(0, len(array), length)]


# Products as changes of low rank ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Update:
    """A product one of whose factors has units along the axis that is summed over.

    Moving unit u changes the product by the sum over the unit's places k on that axis of
    ``change[..., k] other[k, ...]``.

    Attributes
    ----------
    factor : Node
        The moved one.
    axis : int
        Its axis that is summed over.
    other : array of shape (places, columns)
    places : int array of shape (units, places of each)
    order : tuple of int
        How the axes (the factor's rows, columns) become the product's.
    """

    node: Node
    factor: Node
    axis: int
    other: Array
    places: NDArray[np.intp]
    order: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(
        cls, node: Node, spec: str, which: int, unit_ids: UnitIds, units: int
    ) -> "Update | None":
        """Return None unless all units lie along the one axis that is summed over, alike."""
        terms, out = spec.split("->")
        pair = terms.split(",")
        moved_axes, other_axes = pair[which], pair[1 - which]
        summed = [c for c in moved_axes if c in other_axes]
        free = set(moved_axes + other_axes) - set(summed)
        if len(summed) != 1 or summed[0] in out or free != set(out):
            return None
        axis = moved_axes.index(summed[0])
        along = single_id(unit_ids, tuple(k for k in range(unit_ids.ndim) if k != axis))
        if along is None:
            return None
        along = along.reshape(-1)
        counts = np.bincount(along, minlength=units + 1)[1:]
        if not counts.size or counts.min() != counts.max():
            return None
        places = np.argsort(along, kind="stable")[np.count_nonzero(along == 0) :]
        factor, other = factors(node)[which], factors(node)[1 - which]
        other = np.asarray(value_of(other))
        other = np.moveaxis(other, other_axes.index(summed[0]), 0)
        kept = moved_axes.replace(summed[0], "") + other_axes.replace(summed[0], "")
        return cls(
            node, factor, axis, other.reshape(len(other), -1),
            places.reshape(len(counts), -1), tuple(kept.index(c) for c in out),
            other.shape[1:],
        )  # fmt: skip

    def apply(
        self, separate: Mapping[Node, Stack], units: UnitIds, *, side_by_side: bool = False
    ) -> Array:
        """Return the product's versions, one for each unit and amount.

        Side by side in memory if asked for, and if each unit has one place.
        """
        values = np.moveaxis(separate[self.factor].values, self.axis + 1, -1)
        base = np.moveaxis(self.factor.value, self.axis, -1)
        places, own_values, own_base = self._own(separate, units)
        cancelling = self._cancelling(own_values, own_base, places)
        change = np.subtract(own_values, own_base, out=own_values)
        if side_by_side and places.shape[1] == 1:
            versions = self._side_by_side(change[..., 0], places[:, 0])
        else:
            amounts, *rows, _, _ = change.shape
            # (units, amounts * rows, places of each) @ (units, places of each, columns)
            of_units = change.reshape(-1, *places.shape).transpose(1, 0, 2)
            other = self.other[places]
            # NumPy's product of a column and a row takes longer than multiplying their elements.
            product: Array = of_units * other if places.shape[1] == 1 else of_units @ other
            product = product.reshape(len(units) * amounts, *rows, *self.columns)
            versions = product.transpose(0, *(1 + axis for axis in self.order))
            versions += self.node.value
        for k in cancelling:
            versions[k * len(values) : (k + 1) * len(values)] = self._anew(values, base, places[k])
        return versions

    def of_changes(self, own: Array, unit: int) -> Array:
        """Return the product's changes, of shape (m, *shape).

        Those of the factor, by one unit, are of shape (m, *rows, places of the unit).
        """
        other = self.other[self.places[unit - 1]]
        product: Array = own.reshape(-1, len(other)) @ other
        product = product.reshape(*own.shape[:-1], *self.columns)
        return product.transpose(0, *(1 + axis for axis in self.order))

    @lazy
    def pair(self) -> tuple[Node, Node] | None:
        """What stands for the column and the row of each version; None if they are several."""
        if self.places.shape[1] > 1 or not self.order or self.node.value.dtype != np.float64:
            return None
        shape = [self.node.shape[self.order.index(axis)] for axis in range(len(self.order))]
        rows = len(shape) - len(self.columns)
        column = np.zeros([*shape[:rows], *(1,) * len(self.columns)]).transpose(self.order)
        row = np.zeros([*(1,) * rows, *self.columns]).transpose(self.order)
        return Node(None, (), {}, column, True), Node(None, (), {}, row, True)

    def factors(self, separate: Mapping[Node, Stack], units: UnitIds) -> dict[Node, Stack] | None:
        """Return the column and the row of each version, one for each unit and amount.

        None if a change cancels what there was before.
        """
        assert self.pair is not None
        places, own_values, own_base = self._own(separate, units)
        if self._cancelling(own_values, own_base, places):
            return None
        amounts, *rows, _, _ = own_values.shape
        axes = 0, *(1 + axis for axis in self.order)
        change = np.moveaxis((own_values - own_base)[..., 0], -1, 0)
        change = change.reshape(-1, *rows, *(1,) * len(self.columns))
        other = np.repeat(self.other[places[:, 0]], amounts, axis=0)
        other = other.reshape(-1, *(1,) * len(rows), *self.columns)
        column, row = self.pair
        return {column: Stack(change.transpose(axes)), row: Stack(other.transpose(axes))}

    def _own(
        self, separate: Mapping[Node, Stack], units: UnitIds
    ) -> tuple[NDArray[np.intp], Array, Array]:
        """Return these units' places, and the factor there, (*rows, units, places), and recorded.

        The factor has an axis of amounts before these.
        """
        places = self.places[units - 1]
        values = np.moveaxis(separate[self.factor].values, self.axis + 1, -1)
        base = np.moveaxis(self.factor.value, self.axis, -1)
        return places, np.take(values, places, -1), np.take(base, places, -1)

    @lazy
    def _all_terms(self) -> Array:
        """For each of the factor's rows, what the magnitudes of all terms add up to, at least."""
        sizes = abs(np.moveaxis(self.factor.value, self.axis, -1))
        return np.asarray((sizes @ abs(self.other)).min(axis=-1, initial=np.inf))

    def _cancelling(
        self, own_values: Array, own_base: Array, places: NDArray[np.intp]
    ) -> list[int]:
        """Return which units' terms make up almost all of a product, and shrink when moved.

        The change then cancels the product, as where the one likely component of a mixture is
        moved away; what is left over has the rounding error of what was there before.
        """
        sizes = abs(own_base)
        shrinks = ~(abs(own_values) >= sizes / MAX_CANCELLATION).all(axis=0)  # nan counts as well
        shrinks &= own_base != 0
        if not shrinks.any():
            return []
        shrinking = np.where(shrinks, sizes, 0).sum(axis=-1)  # (*rows, units)
        most = abs(self.other[places]).sum(axis=1).max(axis=-1, initial=0)  # of each unit
        least = (1 - 1 / MAX_CANCELLATION) * self._all_terms[..., np.newaxis]
        dominates = ~(shrinking * most <= least)
        dominates &= shrinking > 0
        return np.flatnonzero(dominates.reshape(-1, len(places)).any(axis=0)).tolist()

    def _anew(self, values: Array, base: Array, places: NDArray[np.intp]) -> Array:
        """Return the versions of one unit, one for each amount, without the recorded product."""
        moved = np.broadcast_to(base, values.shape).copy()
        moved[..., places] = values[..., places]
        product = (moved @ self.other).reshape(*moved.shape[:-1], *self.columns)
        return product.transpose(0, *(1 + axis for axis in self.order))

    def _side_by_side(self, change: Array, places: NDArray[np.intp]) -> Array:
        """Return the recorded product plus outer products; the last axis in memory is versions'."""
        amounts, *rows, _ = change.shape
        factor = change.transpose(*range(1, change.ndim), 0)
        factor = np.ascontiguousarray(factor).reshape(*rows, *(1,) * len(self.columns), -1)
        other = np.repeat(self.other[places].T, amounts, axis=1).reshape(*self.columns, -1)
        product = (factor * other).transpose(*self.order, -1)
        product += self.node.value[..., np.newaxis]
        return np.moveaxis(product, -1, 0)
