"""The unit, or row, that each element depends on, passed from operation to operation.

An id is the number of a unit or row, counted from 1; 0 stands for none. The result of an operation
that mixes elements of different ids, whatever their values, has no ids.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.batched import reduced_axes, sources
from fastgrad.tracing.graph import Node, leaves
from fastgrad.tracing.operations import factors, product_spec

UnitIds = NDArray[np.intp]
"""For each element of an array, the id of the unit (or of the row) that it depends on."""


def propagate(nodes: list[Node], root: Node, ids: UnitIds) -> dict[Node, UnitIds]:
    """Return the ids of the elements of all nodes that do not mix them.

    Parameters
    ----------
    nodes : list of Node
        Those after the root, in order.
    root : Node
    ids : int array of the root's shape
    """
    ids_of = {root: ids}
    mixed: set[Node] = set()
    for node in nodes:
        result = None if any(leaf in mixed for leaf in node.inputs()) else _ids(node, ids_of)
        if result is None:
            mixed.add(node)
        else:
            ids_of[node] = result
    return ids_of


def single_id(ids: UnitIds, axes: tuple[int, ...]) -> UnitIds | None:
    """Return the one id, 0 apart, along each line of some axes; None if any line has several."""
    largest: UnitIds = ids.max(axis=axes, initial=0)
    smallest = np.where(ids > 0, ids, np.iinfo(np.intp).max).min(axis=axes, initial=2**62)
    return np.asarray(largest) if np.all((largest == 0) | (smallest == largest)) else None


def _ids(node: Node, ids_of: Mapping[Node, UnitIds]) -> UnitIds | None:
    """Return the ids of a node's elements; None if it mixes different ones."""
    match operations.kind_of(*node.operation):
        case operations.ELEMENTWISE:
            return _merged(node, [ids_of[leaf] for leaf in node.inputs() if leaf in ids_of])
        case operations.MOVE:
            moved = leaves(node.arguments[0])
            blocks = [np.zeros(1, np.intp), *(_of(part, ids_of).reshape(-1) for part in moved)]
            return np.asarray(np.concatenate(blocks)[sources(node)])
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
    if len(parts) == 1 and parts[0].shape == node.shape:
        return parts[0]
    result = np.zeros(node.shape, np.intp)
    for ids in parts:
        if np.any((result != ids) & (result > 0) & (ids > 0)):
            return None
        result = np.maximum(result, ids)
    return result
