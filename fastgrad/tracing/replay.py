"""Replays of the operations from a moved array to the loss, for many moves at once.

The arrays after the one that is moved come in two forms.

- As long as every element depends on one unit at most, moving all units at once tells, for each
  element, what it becomes when its own unit is moved: one array an amount serves all units. An
  array of *unit_ids* says which unit each element depends on (0: none).
- From the first operation that mixes units on, there is one version of the array for each unit and
  amount. Where that operation is a product, the versions are the recorded result plus a change of
  low rank.
"""

from collections import Counter
from collections.abc import Callable, Container, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from functools import partial
from string import ascii_letters
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.concurrency import in_threads
from fastgrad.jit.interrupts import never_lost, require_time
from fastgrad.lazy import lazy
from fastgrad.tracing import operations
from fastgrad.tracing.affine import UnitIds, Update, propagate
from fastgrad.tracing.batched import Batched, Stack, batched, reduced_axes, without_zeros
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
    held : container of Node
        What stays as it was recorded, though it depends on the root.

    Attributes
    ----------
    recorded, nodes : list of Node
        All operations in between, and those that are replayed.
    """

    def __init__(
        self,
        nodes: list[Node],
        root: Node,
        unit_ids: UnitIds,
        target: Node,
        ids: dict[Node, UnitIds] | None = None,
        functions: Mapping[Node, Batched] | None = None,
        held: Container[Node] = (),
    ) -> None:
        self.root = root
        self.target = target
        self.units = np.arange(1, int(unit_ids.max(initial=0)) + 1)
        self.recorded = self.nodes = between(nodes, root, target)
        if held:
            self.nodes = between([node for node in nodes if node not in held], root, target)
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
        readers = Counter(leaf for leaves in inputs.values() for leaf in leaves)
        self._sums: dict[Node, list[Node]] = {}  # of changes of low rank, and what does not move
        for node in [*self._mixed]:
            if self._as_update(node) is not None:
                self._sums[node] = [node]
            elif (before := self._adds_to(node, readers)) is not None:
                self._sums[node] = [*self._sums.pop(before), node]
                self._mixed.remove(before)
        self._updates = self._make_updates()
        # Sums over a few classes go through memory in order if an element's versions lie side by
        # side; products, if a version's elements do.
        self._side_by_side = not any(
            node.kind == operations.PRODUCT and node not in self._updates for node in self._mixed
        )
        self._spread_for = {
            node: [leaf for leaf in inputs[node] if leaf in self.unit_ids]
            for node in self._mixed
            if node not in self._updates
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
        other._updates = {
            last: update.of_sum(other._sums[last]) for last, update in other._updates.items()
        }
        other._steps = other._mixed
        return other

    def takes_ids(self, node: Node, ids: UnitIds) -> bool:
        """Take other ids of an array's elements, if no more depends on them; say whether."""
        readers = [other for other in self.nodes if node in other.inputs()]
        if any(other in self.unit_ids or other in self._updates for other in readers):
            return False
        self.unit_ids[node] = ids
        for known in ("used_units", "cost"):
            vars(self).pop(known, None)
        return True

    def without_holding(self) -> "Replay":
        """Return the replay in which nothing is held."""
        if len(self.nodes) == len(self.recorded):
            return self
        nodes = [self.root, *self.recorded]
        return Replay(nodes, self.root, self.unit_ids[self.root], self.target)

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
        if amounts * self.cost < MIN_KERNEL_ELEMENTS or self._steps is not self._mixed:
            return
        updates = self._updates
        pairs = {node: pair for node, update in updates.items() if (pair := update.pair)}
        steps = chained(self._mixed, updates, {self.root, *self.nodes}, self.target, pairs)
        chains = [step for step in steps if type(step) is Chain]
        with suppress(Exception), never_lost():
            for node in self._mixed:
                if node.kind == operations.PRODUCT and node not in updates:
                    self.functions[node] = without_zeros(node) or self.functions[node]
            pays = amounts * self.cost >= MIN_COMPILED_ELEMENTS
            if pays or all(chain.is_compiled for chain in chains):
                for chain in chains:
                    chain.compile()
                self._steps = steps
                self._in_chains = [updates[node] for chain in chains for node in chain.updated]

    @property
    def mixed_operations(self) -> int:
        """How many operations are computed for each unit by itself."""
        return len(self._mixed)

    @lazy
    def cost(self) -> int:
        """About how many elements are computed to move all units by one amount."""
        separate = sum(map(_effort, self._separate))
        mixed = sum(map(_effort, self._mixed)) + sum(node.value.size for node in self._spreads)
        return int(separate + mixed * len(self.used_units))

    @lazy
    def used_units(self) -> NDArray[np.intp]:
        """The units that the target depends on: not, say, the words that a batch does not have."""
        mixed = {*self._mixed, *(chain[0] for chain in self._sums.values())}
        read = {leaf for node in mixed for leaf in node.inputs()} | {self.target}
        is_used = np.zeros(len(self.units) + 1, bool)
        for node in read & self.unit_ids.keys():
            is_used[self.unit_ids[node]] = True
        return np.flatnonzero(is_used[1:]) + 1

    def all_versions(
        self,
        values: Array,
        observe: Observer | None = None,
        units: NDArray[np.intp] | None = None,
        reach: Array | None = None,
    ) -> Array:
        """Return the target's versions for any versions of the root.

        Parameters
        ----------
        values : array of shape (m, *root.shape)
        observe : callable, optional
            What is told of each operation.
        units : array of int, optional
            The units that were moved. With them, or an observer, all is computed at once.
        reach : array of the root's shape, optional
            By how much its elements are moved at most.
        """
        largest = max(node.value.size for node in [self.root, *self.nodes])

        def of(chunk: UnitIds) -> Array:
            stacks = {self.root: Stack(values[chunk[0] : chunk[-1] + 1], reach=reach)}
            self.run(self._in_order, stacks, len(chunk), observe, units)
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

        chunks = _chunks(wanted, self.largest * amounts, BATCH_ELEMENTS)
        share = len(wanted) / len(self.units) / len(chunks) if chunks else 0.0
        return in_threads(of, chunks, SECONDS_PER_ELEMENT * share * amounts * self.cost)

    def run(
        self,
        nodes: list[Node],
        stacks: dict[Node, Stack],
        m: int,
        observe: Observer | None = None,
        units: NDArray[np.intp] | None = None,
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
                stacks[step] = update.apply(
                    separate,
                    units,
                    side_by_side=self._side_by_side,
                    is_observed=observe is not None,
                )
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

    def as_update(self, node: Node) -> Update | None:
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

    def _as_update(self, node: Node) -> Update | None:
        """Return the same of a sum along one axis, too: it is a product with ones."""
        if node.function is not np.sum or node.kind != operations.REDUCTION:
            return self.as_update(node)
        factor, axes = node.arguments[0], reduced_axes(node)
        is_double = node.value.dtype == np.float64 == factor.value.dtype
        if factor not in self.unit_ids or len(axes) != 1 or not is_double:
            return None
        letters = ascii_letters[: len(factor.shape)]
        summed = letters[axes[0]]
        spec = f"{letters},{summed}->{letters.replace(summed, '')}"
        return Update.of(node, spec, 0, self.unit_ids[factor], len(self.units))

    def _adds_to(self, node: Node, readers: Mapping[Node, int]) -> Node | None:
        """Return the change of low rank to which a node only adds what does not move."""
        if node.function not in (np.add, np.subtract) or node.keywords:
            return None
        first, second = node.arguments
        if node.function is np.add and type(second) is Node and second in self._sums:
            first, second = second, first
        if type(first) is not Node or first not in self._sums or readers[first] > 1:
            return None
        if type(second) is Node and (second in self.functions or second in self.unit_ids):
            return None
        is_alike = (first.shape, first.value.dtype) == (node.shape, node.value.dtype)
        return first if is_alike else None

    def _make_updates(self) -> dict[Node, Update]:
        """Return how sums of many nodes are brought up to date at once."""
        return {
            last: update.of_sum(chain)
            for last, chain in self._sums.items()
            if (update := self._as_update(chain[0])) is not None
        }


def _with_nodes(held: Any, same: Mapping[Node, Node]) -> Any:
    """Return an attribute of a replay with other nodes in the place of its own."""
    kind = type(held)
    if kind is dict:
        return {same[node]: _with_nodes(value, same) for node, value in held.items()}
    if kind is list or kind is set:
        return kind([same[node] for node in held])
    return same[held] if kind is Node else held


def _stack_or_value(leaf: Any, stacks: dict[Node, Stack], spare: Node | None) -> Any:
    """Return the versions of a leaf, or its value if it does not move."""
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
