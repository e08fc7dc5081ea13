"""The affine stage where x enters a recorded function, its units and rows, and the loss's terms.

The unit, or row, that each element depends on is passed from operation to operation. An id is the
number of a unit or row, counted from 1; 0 stands for none. The result of an operation that mixes
elements of different ids, whatever their values, has no ids.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.lazy import lazy
from fastgrad.tracing import operations
from fastgrad.tracing.batched import Stack, reduced_axes
from fastgrad.tracing.operations import Node, between, factors, leaves, product_spec, value_of
from fastgrad.typing import Array

UnitIds = NDArray[np.intp]
"""For each element of an array, the id of the unit (or of the row) that it depends on."""


def propagate(
    nodes: list[Node],
    root: Node,
    ids: UnitIds,
    known: Mapping[Node, UnitIds] = MappingProxyType({}),
) -> dict[Node, UnitIds]:
    """Return the ids of the elements of all nodes that do not mix them.

    Parameters
    ----------
    nodes : list of Node
        Those after the root, in order.
    root : Node
    ids : int array of the root's shape
    known : dict, optional
        The ids of some nodes.
    """
    ids_of = {root: ids, **known}
    mixed: set[Node] = set()
    for node in nodes:
        if node in ids_of:
            continue
        is_mixed = not mixed.isdisjoint(node.inputs())
        result = None if is_mixed else ids_of_result(node, ids_of)
        if result is None:
            mixed.add(node)
        else:
            ids_of[node] = result
    return ids_of


def single_id(ids: UnitIds, axes: tuple[int, ...]) -> UnitIds | None:
    """Return the one id, 0 apart, along each line of some axes; None if any line has several."""
    if ids.size:
        first = ids[tuple(slice(1) if axis in axes else slice(None) for axis in range(ids.ndim))]
        if np.all(ids == first):  # most often, and in less time
            return np.asarray(first.squeeze(axes))
    largest: UnitIds = ids.max(axis=axes, initial=0)
    smallest = np.where(ids > 0, ids, np.iinfo(np.intp).max).min(axis=axes, initial=2**62)
    return np.asarray(largest) if np.all((largest == 0) | (smallest == largest)) else None


def ids_of_result(node: Node, ids_of: Mapping[Node, UnitIds]) -> UnitIds | None:
    """Return the ids of a node's elements; None if it mixes different ones."""
    match node.kind:
        case operations.ELEMENTWISE:
            return _merged(node, [ids_of[leaf] for leaf in node.inputs() if leaf in ids_of])
        case operations.MOVE:
            moved = leaves(node.arguments[0])
            if len(moved) == 1 and node.function in operations.VIEWS:
                return np.asarray(node.compute((_of(moved[0], ids_of), *node.arguments[1:])))
            blocks = [np.zeros(1, np.intp), *(_of(part, ids_of).reshape(-1) for part in moved)]
            return np.asarray(np.concatenate(blocks)[node.sources])
        case operations.REDUCTION:
            result = single_id(_of(node.arguments[0], ids_of), reduced_axes(node))
            return None if result is None else result.reshape(node.shape)
        case operations.PRODUCT:
            return _of_product(node, ids_of)
    return None


def _of(argument: Any, ids_of: Mapping[Node, UnitIds]) -> UnitIds:
    """Return the ids of an argument's elements."""
    if type(argument) is Node and argument in ids_of:
        return ids_of[argument]
    return np.zeros(argument.shape if type(argument) is Node else np.shape(argument), np.intp)


def _of_product(node: Node, ids_of: Mapping[Node, UnitIds]) -> UnitIds | None:
    """Return the ids of a product that does not sum over different ones."""
    spec = product_spec(node)
    if spec is None:
        return None
    terms, out = spec.split("->")
    parts = []
    for factor, term in zip(factors(node), terms.split(","), strict=True):
        summed = tuple(axis for axis, letter in enumerate(term) if letter not in out)
        ids = single_id(_of(factor, ids_of), summed)
        if ids is None:
            return None
        kept = [letter for letter in term if letter in out]
        ids = ids.transpose([kept.index(letter) for letter in out if letter in kept])
        shape = [n if c in kept else 1 for c, n in zip(out, node.shape, strict=True)]
        parts.append(ids.reshape(shape))
    return _merged(node, parts)


def _merged(node: Node, parts: list[UnitIds]) -> UnitIds | None:
    """Return the ids of arrays that are broadcast together, if nowhere two of them differ."""
    if parts and parts[0].shape == node.shape and all(ids is parts[0] for ids in parts):
        return parts[0]
    result = np.zeros(node.shape, np.intp)
    for ids in parts:
        if np.any((result != ids) & (result > 0) & (ids > 0)):
            return None
        result = np.maximum(result, ids)
    return result


# Terms and stage ----------------------------------------------------------------------------------


MAX_TERMS = 20
"""Terms up to which a loss is split: each is replayed by itself."""

MAX_INPUT_VALUES = 3
"""If inputs have no more magnitudes than this, responses are measured at just these shifts."""


@dataclass(frozen=True, eq=False)
class Term:
    """A part of the loss: ``scale`` times the sum of an array's elements."""

    node: Node
    scale: float


def split_into_terms(output: Node) -> list[Term]:
    """Write the result as a sum of terms, and of what does not depend on the array at all.

    Sums, differences, constant factors and means of the result's last operations are undone. If
    that gives more than `MAX_TERMS`, as where Python's `sum` adds up samples, it is left alone.
    """
    terms: list[Term] = []
    waiting = [Term(output, 1.0)]
    while waiting:
        term = waiting.pop()
        summands = _summands(term.node)
        if summands is None:
            terms += [term] * bool(term.node.value.size)
        else:
            waiting += [Term(part, term.scale * scale) for part, scale in summands]
    return terms if len(terms) <= MAX_TERMS else [Term(output, 1.0)]


def _summands(node: Node) -> list[tuple[Node, float]] | None:
    """Return what a node's sum is the sum of, each with its factor; None if it is one term."""
    function, arguments = node.function, node.arguments
    if _adds_all(node):
        return [(arguments[0], 1 / arguments[0].value.size if function is np.mean else 1.0)]
    if not isinstance(function, np.ufunc) or node.value.size != 1:
        return None
    if any(np.size(value_of(a)) != 1 for a in arguments):
        return None
    summands: list[tuple[Any, float]] = []
    if function is np.add:
        summands = [(arguments[0], 1.0), (arguments[1], 1.0)]
    elif function is np.subtract:
        summands = [(arguments[0], 1.0), (arguments[1], -1.0)]
    elif function is np.negative:
        summands = [(arguments[0], -1.0)]
    elif function is np.multiply and _is_constant(arguments[0]):
        summands = [(arguments[1], _number(arguments[0]))]
    elif function is np.multiply and _is_constant(arguments[1]):
        summands = [(arguments[0], _number(arguments[1]))]
    elif function is np.divide and _is_constant(arguments[1]):
        summands = [(arguments[0], 1 / _number(arguments[1]))]
    else:
        return None
    return [(part, scale) for part, scale in summands if type(part) is Node and part.depends]


def _adds_all(node: Node) -> bool:
    """Say whether a node is the sum or mean of all elements of an array."""
    return (
        node.function in (np.sum, np.mean)
        and node.kind == operations.REDUCTION
        and type(node.arguments[0]) is Node
        and np.size(node.value) == 1
    )


def _is_constant(argument: Any) -> bool:
    """Say whether an argument does not depend on the array."""
    return not (type(argument) is Node and argument.depends)


def _number(argument: Any) -> float:
    """Return an array of one element as a float."""
    return float(np.asarray(value_of(argument)).reshape(()))


@dataclass(frozen=True, eq=False)
class Stage:
    """The affine stage ``a[n, j] = sum over i of inputs[n, i] x[where[i, j]] + ...``.

    Attributes
    ----------
    node : Node
        What computes a, in whatever layout.
    inputs : float64 array of shape (rows, I)
    where : int array of shape (I, units)
        Which element of x, flattened in C order, stands for each weight.
    unit_ids, rows : int arrays of the node's shape
        The unit j and the row n of each element, counted from 1.
    """

    node: Node
    inputs: Array
    where: NDArray[np.intp]
    unit_ids: UnitIds
    rows: UnitIds

    def with_bias(self, start: int) -> "Stage | None":
        """Return the stage with one more input, which is 1.

        Its weights are what is added to each row: further elements of x, from the start on. None
        if the units do not lie along the last axis, one after the other.
        """
        if not self.has_units_last:
            return None
        inputs = np.column_stack([self.inputs, np.ones(len(self.inputs))])
        where = np.vstack([self.where, np.arange(start, start + self.where.shape[1])])
        wider = Stage(self.node, inputs, where, self.unit_ids, self.rows)
        vars(wider)["is_in_order"] = self.is_in_order and start == self.where.size
        return wider

    def of(self, node: Node, inputs: Array) -> "Stage":
        """Return the same stage of another recording."""
        stage = Stage(node, inputs, self.where, self.unit_ids, self.rows)
        known = {"is_in_order": self.is_in_order, "has_units_last": self.has_units_last}
        vars(stage).update(known)
        return stage

    @lazy
    def has_units_last(self) -> bool:
        """Whether the units lie along the last axis, one after the other."""
        shape = (*self.unit_ids.shape[:-1], self.where.shape[1])
        in_order = np.broadcast_to(np.arange(1, self.where.shape[1] + 1), shape)
        return np.array_equal(self.unit_ids, in_order)

    @lazy
    def is_in_order(self) -> bool:
        """Whether the weights are the first elements of x, one after the other."""
        return np.array_equal(self.where.reshape(-1), np.arange(self.where.size))

    @lazy
    def few_magnitudes(self) -> Array | None:
        """The magnitudes of inputs, 0 apart; None if they are more than `MAX_INPUT_VALUES`."""
        beginning = self.inputs.reshape(-1)[:1000]  # which mostly tells
        some = beginning[beginning != 0][: 4 * MAX_INPUT_VALUES]
        if len({*abs(some).tolist()}) > MAX_INPUT_VALUES:
            return None
        magnitudes = np.unique(abs(self.inputs))
        magnitudes = magnitudes[magnitudes > 0]
        return magnitudes if len(magnitudes) <= MAX_INPUT_VALUES else None

    @lazy
    def largest_input(self) -> float:
        """The largest of the inputs' magnitudes."""
        return float(max(self.inputs.max(), -self.inputs.min()))

    @lazy
    def used_inputs(self) -> NDArray[np.intp]:
        """Which inputs are not 0 in all rows: weights of others, as of blank pixels, move none."""
        return np.flatnonzero(self.inputs.any(axis=0))


def find_stage(nodes: list[Node], target: Node) -> Stage | None:
    """Return the one affine stage through which a target depends on the array, if there is one.

    Parameters
    ----------
    nodes : list of Node
        The recording; the first stands for the array itself.
    target : Node
    """
    array = nodes[0]
    views: dict[Node, NDArray[np.intp]] = {
        array: np.arange(1, array.value.size + 1).reshape(array.shape)
    }
    stage: tuple[Node, Node] | None = None
    for node in between(nodes, array, target):
        viewed = [leaf for leaf in node.inputs() if leaf in views]
        if not viewed:
            continue
        kind = node.kind
        if kind == operations.MOVE and node.arguments[0] is viewed[0]:
            places = node.sources
            if not places.all():
                return None
            views[node] = views[viewed[0]].reshape(-1)[places - 1]
        elif stage is not None or len(viewed) > 1:
            return None
        else:
            stage = node, viewed[0]
    if stage is None or np.bincount(views[stage[1]].reshape(-1)).max() > 1:
        return None
    node, weights = stage
    if node.value.dtype != np.float64:  # complex, say: it is moved by real shifts of doubles
        return None
    kind = node.kind
    if kind == operations.PRODUCT:
        return _stage_of_product(node, views[weights] - 1)
    if node.function in (np.add, np.subtract):
        return _stage_of_sum(node, weights, views[weights] - 1)
    return None


def _stage_of_product(node: Node, where: NDArray[np.intp]) -> Stage | None:
    """Read a stage off a product of the weights with an array that does not depend on them."""
    spec = product_spec(node)
    if spec is None or sum(not _is_constant(a) for a in factors(node)) != 1:
        return None
    weight_axes, input_axes = _weight_and_input_axes(node, spec)
    out = spec.partition("->")[2]
    summed = [c for c in weight_axes if c in input_axes]
    units = [c for c in weight_axes if c not in input_axes]
    rows = [c for c in input_axes if c not in weight_axes]
    if set(out) != set(units + rows):
        return None
    inputs = inputs_of_product(node)
    return Stage(
        node,
        inputs,
        where.transpose([weight_axes.index(c) for c in summed + units]).reshape(
            inputs.shape[1], -1
        ),
        _numbered(out, node.shape, units),
        _numbered(out, node.shape, rows),
    )


def inputs_of_product(node: Node) -> Array:
    """Return what a stage's weights are multiplied by, of shape (rows, I)."""
    spec = product_spec(node)
    assert spec is not None
    weight_axes, input_axes = _weight_and_input_axes(node, spec)
    constant = next(a for a in factors(node) if _is_constant(a))
    inputs = np.asarray(value_of(constant), np.float64)
    summed = [input_axes.index(c) for c in weight_axes if c in input_axes]
    rows = [axis for axis, c in enumerate(input_axes) if c not in weight_axes]
    count = int(np.prod([inputs.shape[axis] for axis in summed]))
    return inputs.transpose(rows + summed).reshape(-1, count)


def _weight_and_input_axes(node: Node, spec: str) -> tuple[str, str]:
    """Return the letters of the axes of the weights, and of what they are multiplied by."""
    first, second = spec.partition("->")[0].split(",")
    return (second, first) if _is_constant(factors(node)[0]) else (first, second)


def _numbered(letters: str, shape: tuple[int, ...], counted: list[str]) -> UnitIds:
    """Return numbers from 1 along some of an array's axes, in the order of their letters."""
    lengths = [shape[letters.index(c)] for c in counted]
    numbers = np.arange(1, int(np.prod(lengths)) + 1).reshape(lengths)
    by_axis = sorted(counted, key=letters.index)
    numbers = numbers.transpose([counted.index(c) for c in by_axis])
    return np.broadcast_to(
        numbers.reshape([n if c in counted else 1 for c, n in zip(letters, shape, strict=True)]),
        shape,
    )


def _stage_of_sum(node: Node, weights: Node, where: NDArray[np.intp]) -> Stage | None:
    """Read a stage off a sum to which the weights, a bias, are broadcast."""
    if sum(type(a) is Node and a.depends for a in node.arguments) != 1 or node.keywords:
        return None
    sign = -1.0 if node.function is np.subtract and node.arguments[1] is weights else 1.0
    aligned = where.reshape((1,) * (len(node.shape) - where.ndim) + where.shape)
    letters = "abcdefghijklmnopqrstuvwxyz"[: len(node.shape)]
    units = [c for c, length in zip(letters, aligned.shape, strict=True) if length > 1]
    rows = [c for c in letters if c not in units]
    unit_ids = _numbered(letters, node.shape, units)
    row_numbers = _numbered(letters, node.shape, rows)
    inputs = np.full((int(row_numbers.max(initial=0)), 1), sign)
    return Stage(node, inputs, aligned.reshape(1, -1), unit_ids, row_numbers)


# Products as changes of low rank ------------------------------------------------------------------


MAX_CANCELLATION = 8
"""How many times smaller than what it replaces a term may be, before adding the difference of both
to the sum loses more digits than computing the sum anew."""


@dataclass(frozen=True, eq=False)
class Update:
    """A product one of whose factors has units along the axis that is summed over.

    Moving unit u changes the product by the sum over the unit's places k on that axis of
    ``change[..., k] other[k, ...]``.

    Attributes
    ----------
    which : int
        Which factor is the moved one.
    axes : pair of int
        Its axis that is summed over, and the other's.
    places : int array of shape (units, places of each)
    order : tuple of int
        How the axes (the factor's rows, columns) become the product's.
    columns : tuple of int
        The lengths of the other's axes that stay.
    node, factor : Node
        The product, or the last of the nodes that add to it what does not move; the moved factor.
    other : array of shape (places, columns)
    sums : tuple of pairs
        What is added: a function, and its second argument.
    """

    which: int
    axes: tuple[int, int]
    places: NDArray[np.intp]
    order: tuple[int, ...]
    columns: tuple[int, ...]
    node: Node
    factor: Node
    other: Array
    sums: tuple[tuple[Any, Any], ...] = ()

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
        axes = moved_axes.index(summed[0]), other_axes.index(summed[0])
        along = single_id(unit_ids, tuple(k for k in range(unit_ids.ndim) if k != axes[0]))
        if along is None:
            return None
        along = along.reshape(-1)
        counts = np.bincount(along, minlength=units + 1)[1:]
        if not counts.size or counts.min() != counts.max():
            return None
        places = np.argsort(along, kind="stable")[np.count_nonzero(along == 0) :]
        kept = moved_axes.replace(summed[0], "") + other_axes.replace(summed[0], "")
        order = tuple(kept.index(c) for c in out)
        columns = tuple(node.shape[order.index(k)] for k in range(unit_ids.ndim - 1, len(order)))
        none = np.zeros(0)
        new = cls(which, axes, places.reshape(len(counts), -1), order, columns, node, node, none)
        return new.of_sum([node])

    def of_sum(self, nodes: list[Node]) -> "Update":
        """Return the same of other nodes: of a product, and of those that add to it, in order.

        It holds no arrays of nodes that have no arguments: those of a structure.
        """
        product, last = nodes[0], nodes[-1]
        if not product.arguments:
            return replace(self, node=last, factor=product, other=np.zeros(0), sums=())
        if product.kind == operations.PRODUCT:
            factor = factors(product)[self.which]
            other = np.asarray(value_of(factors(product)[1 - self.which]))
        else:  # a sum along the axis
            factor = product.arguments[0]
            other = np.ones(factor.shape[self.axes[0]])
        other = np.moveaxis(other, self.axes[1], 0)
        sums = []
        for before, node in pairwise(nodes):
            (constant,) = (a for a in node.arguments if a is not before)
            sums.append((node.function, value_of(constant)))
        other = other.reshape(len(other), -1)
        return replace(self, node=last, factor=factor, other=other, sums=tuple(sums))

    def apply(
        self,
        separate: Mapping[Node, Stack],
        units: UnitIds,
        *,
        side_by_side: bool,
        is_observed: bool,
    ) -> Stack:
        """Return the product's versions, one for each unit and amount.

        Side by side in memory if asked for, and if each unit has one place; with their reach if
        they are observed.
        """
        places, own_values, own_base = self._own(separate, units)
        change = own_values - own_base
        reach = abs(change).max(axis=0)
        cancelling = self._cancelling(own_values, own_base, places, reach)
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
            versions = versions.reshape(-1, *self.node.shape)
            versions += self.node.value
        for k in cancelling:
            count = len(change)
            versions[k * count : (k + 1) * count] = self._anew(separate, places[k])
        is_told = is_observed and not cancelling
        return Stack(versions, reach=self._reach(reach, places) if is_told else None)

    def _reach(self, reach: Array, places: NDArray[np.intp]) -> Array:
        """Return how far each of the product's elements moves at most.

        That of the factor's is of shape (*rows, units, places of each).
        """
        of_rows, of_columns = reach.max(axis=(-2, -1)), abs(self.other[places]).sum(axis=1)
        moved = np.multiply.outer(of_rows, of_columns.max(axis=0).reshape(self.columns))
        return np.asarray(moved.transpose(self.order).reshape(self.node.shape))

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
        change = own_values - own_base
        if self._cancelling(own_values, own_base, places, abs(change).max(axis=0)):
            return None
        amounts, *rows, _, _ = change.shape
        axes = 0, *(1 + axis for axis in self.order)
        change = np.moveaxis(change[..., 0], -1, 0)
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
        values, base = separate[self.factor].values, self.factor.value
        axis = self.axes[0] - base.ndim
        if axis < -1:
            values, base = (np.moveaxis(a, axis, -1) for a in (values, base))
        return places, values.take(places, -1), base.take(places, -1)

    @lazy
    def _all_terms(self) -> Array:
        """For each of the factor's rows, what the magnitudes of all terms add up to, at least."""
        sizes = abs(np.moveaxis(self.factor.value, self.axes[0], -1))
        return np.asarray((sizes @ abs(self.other)).min(axis=-1, initial=np.inf))

    def _cancelling(
        self, own_values: Array, own_base: Array, places: NDArray[np.intp], reach: Array
    ) -> list[int]:
        """Return which units' terms make up almost all of a product, and shrink when moved.

        The change then cancels the product, as where the one likely component of a mixture is
        moved away; what is left over has the rounding error of what was there before.
        """
        sizes = abs(own_base)
        if (reach <= (1 - 1 / MAX_CANCELLATION) * sizes).all():  # most often, and in less time
            return []
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

    def _anew(self, separate: Mapping[Node, Stack], places: NDArray[np.intp]) -> Array:
        """Return the versions of one unit, one for each amount, without the recorded product."""
        values = np.moveaxis(separate[self.factor].values, self.axes[0] + 1, -1)
        base = np.moveaxis(self.factor.value, self.axes[0], -1)
        moved = np.broadcast_to(base, values.shape).copy()
        moved[..., places] = values[..., places]
        product = (moved @ self.other).reshape(*moved.shape[:-1], *self.columns)
        product = product.transpose(0, *(1 + axis for axis in self.order))
        product = product.reshape(-1, *self.node.shape)
        for function, constant in self.sums:
            product = function(product, constant)
        return product

    def _side_by_side(self, change: Array, places: NDArray[np.intp]) -> Array:
        """Return the recorded product plus outer products; the last axis in memory is versions'."""
        amounts, *rows, _ = change.shape
        factor = change.transpose(*range(1, change.ndim), 0)
        factor = np.ascontiguousarray(factor).reshape(*rows, *(1,) * len(self.columns), -1)
        other = np.repeat(self.other[places].T, amounts, axis=1).reshape(*self.columns, -1)
        product = (factor * other).transpose(*self.order, -1).reshape(*self.node.shape, -1)
        product += self.node.value[..., np.newaxis]
        return np.moveaxis(product, -1, 0)
