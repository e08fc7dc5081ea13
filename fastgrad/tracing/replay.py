"""What does a recorded function give when units of one of its arrays are moved?

The arrays after the one that is moved come in two forms.

- As long as every element depends on one unit at most, moving all units at once tells, for each
  element, what it becomes when its own unit is moved: one array an amount serves all units. An
  array of *labels* says which unit each element depends on (0: none).
- From the first operation that mixes units on, there is one version of the array for each unit and
  amount. Where that operation is a product, the versions are the recorded result plus a change of
  low rank.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.batched import (
    Batched,
    Stack,
    batched,
    factors,
    product_spec,
    reduced_axes,
    sources,
)
from fastgrad.tracing.recorder import Node, leaves, replaced

Array = NDArray[Any]
Labels = NDArray[np.intp]

BATCH = 2**18
"""Elements of the largest array that is computed at a time: calling NumPy then costs little."""


CALL = 1_000
"""Elements that could be computed in the time of one call of a function for one version."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one of the recorded arrays becomes.

    Attributes
    ----------
    units : array of int
        The units that were moved, counted from 1.
    values : array
        If labels is None, of shape (units, amounts, *shape). Otherwise of shape (amounts, *shape):
        what each element becomes when its own unit is moved.
    labels : array of the array's shape, or None
    """

    units: NDArray[np.intp]
    values: Array
    labels: Labels | None


class Replay:
    """The operations from one recorded array to another.

    Parameters
    ----------
    nodes : list of Node
        The recording.
    root : Node
        The array that is moved.
    labels : int array of the root's shape
        Which unit each of its elements belongs to, counted from 1; 0 for none.
    target : Node
        The array that is wanted.
    """

    def __init__(self, nodes: list[Node], root: Node, labels: Labels, target: Node) -> None:
        self.root = root
        self.target = target
        self.units = np.arange(1, int(labels.max(initial=0)) + 1)
        self.nodes = between(nodes, root, target)
        self.labels: dict[Node, Labels] = {root: labels}
        self._batched: dict[Node, Batched] = {node: batched(node) for node in self.nodes}
        for node in self.nodes:
            merged = self._merged_labels(node)
            if merged is not None:
                self.labels[node] = merged
        self._spare = self._find_spare()
        self._mixed = [node for node in self.nodes if node not in self.labels]
        self._updates = {node: self._as_update(node) for node in self._mixed}
        self._spreads = {
            leaf
            for node in self._mixed
            if self._updates[node] is None
            for leaf in node.inputs()
            if leaf in self.labels
        }

    @property
    def is_separate(self) -> bool:
        """Whether each element of the target depends on one unit at most."""
        return not self._mixed

    @property
    def mixed_operations(self) -> int:
        """How many operations are computed for each unit by itself."""
        return len(self._mixed)

    def cost(self, amounts: int) -> float:
        """Return about how many elements are computed to move all units by so many amounts."""
        separate = sum(_effort(node) for node in self.nodes if node in self.labels)
        mixed = sum(map(_effort, self._mixed)) + sum(node.value.size for node in self._spreads)
        return float(amounts * (separate + mixed * len(self.units)))

    def all_versions(self, values: Array) -> Array:
        """Return the target's versions for any versions of the root, of shape (m, *root.shape)."""
        largest = max(node.value.size for node in [self.root, *self.nodes])

        def versions(part: Array) -> Array:
            stacks = self._run(self.nodes, {self.root: Stack(part)}, len(part))
            return stacks[self.target].values

        return np.concatenate(list(_in_threads(versions, _parts(values, largest))))

    def moved(self, values: Array, units: NDArray[np.intp] | None = None) -> Iterator[Outcome]:
        """Return what the target becomes, for some units at a time.

        Parameters
        ----------
        values : array of shape (amounts, *root.shape)
            The root with all units moved.
        units : array of int, optional
            The units that are wanted; without it, all.
        """
        amounts = len(values)
        separate: dict[Node, Stack] = {self.root: Stack(values)}
        self._run([n for n in self.nodes if n in self.labels], separate, amounts)
        wanted = self.units if units is None else units
        if self.is_separate:
            yield Outcome(wanted, separate[self.target].values, self.labels[self.target])
            return
        largest = max(node.value.size for node in [*self._mixed, *self._spreads])

        def outcome(chunk: Labels) -> Outcome:
            versions = self._run_mixed(separate, chunk, amounts)
            shape = (len(chunk), amounts, *self.target.shape)
            return Outcome(chunk, versions.reshape(shape), labels=None)

        yield from _in_threads(outcome, _parts(wanted, largest * amounts))

    def _run(self, nodes: list[Node], stacks: dict[Node, Stack], m: int) -> dict[Node, Stack]:
        """Compute stacks of m versions, one node after the other."""
        for node in nodes:
            spare = self._spare.get(node)
            arguments = replaced(node.arguments, lambda a: _stack_or_value(a, stacks, spare))  # noqa: B023
            stacks[node] = Stack(self._batched[node](arguments, m))
        return stacks

    def _find_spare(self) -> dict[Node, Node]:
        """Return, for NumPy's elementwise functions, the argument that nothing else will need."""
        last_user = {leaf: node for node in self.nodes for leaf in node.inputs()}
        kinds = {node: operations.kind_of(*node.operation) for node in self.nodes}
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

    def _run_mixed(self, separate: dict[Node, Stack], units: Labels, amounts: int) -> Array:
        """Compute one version for each unit and amount, the units in the outer order."""
        stacks: dict[Node, Stack] = {}
        for node in self._mixed:
            update = self._updates[node]
            if update is not None:
                stacks[node] = Stack(update.apply(separate, units))
                continue
            for leaf in node.inputs():
                if leaf in separate and leaf not in stacks:
                    stacks[leaf] = Stack(self._spread(leaf, separate[leaf].values, units))
            self._run([node], stacks, len(units) * amounts)
        return stacks[self.target].values

    def _spread(self, node: Node, values: Array, units: Labels) -> Array:
        """Turn what each element becomes for its own unit into versions, one a unit and amount."""
        labels = self.labels[node]
        own = labels == units.reshape(-1, *(1,) * labels.ndim)
        versions = np.where(own[:, np.newaxis], values, node.value)
        return versions.reshape(-1, *node.shape)

    def _merged_labels(self, node: Node) -> Labels | None:
        """Return which unit each element of a node depends on; None if units are mixed."""
        if any(leaf.depends and self._is_mixed(leaf) for leaf in node.inputs()):
            return None
        match operations.kind_of(*node.operation):
            case operations.ELEMENTWISE:
                return self._broadcast_labels(node)
            case operations.MOVE:
                moved = leaves(node.arguments[0])
                blocks = [np.zeros(1, np.intp), *(self._labels_of(x).reshape(-1) for x in moved)]
                result: Labels = np.concatenate(blocks)[sources(node)]
                return result
            case operations.REDUCTION:
                labels, axes = self._labels_of(node.arguments[0]), reduced_axes(node)
                merged = _common(labels, axes)
                return None if merged is None else merged.reshape(node.shape)
            case operations.PRODUCT:
                return self._labels_of_product(node)
        return None

    def _labels_of_product(self, node: Node) -> Labels | None:
        """Return the labels of a product that does not sum over different ones."""
        spec = product_spec(node)
        if spec is None:
            return None
        terms, out = spec.split("->")
        result = np.zeros(node.shape, np.intp)
        for factor, term in zip(factors(node), terms.split(","), strict=True):
            summed = tuple(axis for axis, letter in enumerate(term) if letter not in out)
            merged = _common(self._labels_of(factor), summed)
            if merged is None:
                return None
            kept = [letter for letter in term if letter in out]
            merged = merged.transpose([kept.index(letter) for letter in out if letter in kept])
            shape = [n if c in kept else 1 for c, n in zip(out, node.shape, strict=True)]
            if _conflict(result, merged.reshape(shape)):
                return None
            result = np.maximum(result, merged.reshape(shape))
        return result

    def _is_mixed(self, leaf: Node) -> bool:
        return leaf in self._batched and leaf not in self.labels

    def _labels_of(self, argument: Any) -> Labels:
        if type(argument) is Node and argument in self.labels:
            return self.labels[argument]
        shape = argument.shape if type(argument) is Node else np.shape(argument)
        return np.zeros(shape, np.intp)

    def _broadcast_labels(self, node: Node) -> Labels | None:
        result = np.zeros(node.shape, np.intp)
        for leaf in node.inputs():
            if leaf in self.labels:
                labels = self.labels[leaf]
                if _conflict(result, labels):
                    return None
                result = np.maximum(result, labels)
        return result

    def _as_update(self, node: Node) -> "Update | None":
        """Return a product as a change of low rank, if its one moved factor allows that."""
        if operations.kind_of(*node.operation) != operations.PRODUCT:
            return None
        spec = product_spec(node)
        if spec is None:
            return None
        pair = factors(node)
        moved = [type(a) is Node and (a in self.labels or a in self._batched) for a in pair]
        if sum(moved) != 1 or pair[moved.index(True)] not in self.labels:
            return None
        which = moved.index(True)
        return Update.of(node, spec, which, self.labels[pair[which]], len(self.units))


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
        How the axes (versions, the factor's rows, columns) become the product's.
    """

    node: Node
    factor: Node
    axis: int
    other: Array
    places: NDArray[np.intp]
    order: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, node: Node, spec: str, which: int, labels: Labels, units: int) -> "Update | None":
        """Return None unless all units lie along the one axis that is summed over, alike."""
        terms, out = spec.split("->")
        pair = terms.split(",")
        mine, others = pair[which], pair[1 - which]
        summed = [c for c in mine if c in others]
        if len(summed) != 1 or summed[0] in out or set(mine + others) - {summed[0]} != set(out):
            return None
        axis = mine.index(summed[0])
        along = _common(labels, tuple(k for k in range(labels.ndim) if k != axis))
        if along is None:
            return None
        along = along.reshape(-1)
        counts = np.bincount(along, minlength=units + 1)[1:]
        if not counts.size or counts.min() != counts.max():
            return None
        places = np.argsort(along, kind="stable")[np.count_nonzero(along == 0) :]
        factor, other = factors(node)[which], factors(node)[1 - which]
        other = np.asarray(other.value if type(other) is Node else other)
        other = np.moveaxis(other, others.index(summed[0]), 0)
        kept = mine.replace(summed[0], "") + others.replace(summed[0], "")
        return cls(
            node, factor, axis, other.reshape(len(other), -1),
            places.reshape(len(counts), -1), tuple(1 + kept.index(c) for c in out),
            other.shape[1:],
        )  # fmt: skip

    def apply(self, separate: dict[Node, Stack], units: Labels) -> Array:
        """Return the product's versions, one for each unit and amount."""
        change = np.moveaxis(separate[self.factor].values - self.factor.value, self.axis + 1, -1)
        amounts, *rows, length = change.shape
        places = self.places[units - 1]
        # (units, amounts * rows, places of each) @ (units, places of each, columns)
        mine = change.reshape(-1, length)[:, places].transpose(1, 0, 2)
        product: Array = mine @ self.other[places]
        product = product.reshape(len(units) * amounts, *rows, *self.columns)
        versions = product.transpose(0, *self.order)
        versions += self.node.value
        return versions


def between(nodes: list[Node], root: Node, target: Node) -> list[Node]:
    """Return the nodes after the root, in order, that the target is computed from."""
    after = {root}
    for node in nodes:
        if any(leaf in after for leaf in node.inputs()):
            after.add(node)
    needed = {target}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.inputs())
    return [node for node in nodes if node in after and node in needed and node is not root]


def _stack_or_value(leaf: Any, stacks: dict[Node, Stack], spare: Node | None) -> Any:
    if type(leaf) is not Node or leaf not in stacks:
        return leaf.value if type(leaf) is Node else leaf
    return Stack(stacks[leaf].values, is_spare=True) if leaf is spare else stacks[leaf]


def _effort(node: Node) -> int:
    """Return about how many elements could be computed in the time of one version of a node."""
    kind = operations.kind_of(*node.operation)
    return int(node.value.size) + (CALL if kind == operations.OTHER else 0)


def _parts(array: Array, elements_each: int) -> list[Array]:
    """Cut an array along its first axis into parts that stand for about `BATCH` elements each."""
    length = max(1, BATCH // max(1, elements_each))
    return [array[k : k + length] for k in range(0, len(array), length)]


def _in_threads(compute: Callable[[Array], Any], parts: list[Array]) -> Iterator[Any]:
    """Compute parts in threads, for NumPy lets others run while it computes; keep their order."""

    def quietly(part: Array) -> Any:
        with np.errstate(all="ignore"):  # which holds in one thread only
            return compute(part)

    if len(parts) == 1:
        yield quietly(parts[0])
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield from pool.map(quietly, parts)


def _conflict(labels: Labels, others: Labels) -> bool:
    """Say whether two arrays of labels, broadcast, have different ones in some place."""
    return bool(np.any((labels != others) & (labels > 0) & (others > 0)))


def _common(labels: Labels, axes: tuple[int, ...]) -> Labels | None:
    """Return the one label, 0 apart, that stands along axes; None where there are several."""
    largest: Labels = labels.max(axis=axes, initial=0)
    smallest = np.where(labels > 0, labels, np.iinfo(np.intp).max).min(axis=axes, initial=2**62)
    return np.asarray(largest) if np.all((largest == 0) | (smallest == largest)) else None
