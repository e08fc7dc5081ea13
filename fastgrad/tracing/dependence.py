"""The unit, or row, that each element depends on, passed from operation to operation.

A label is a number from 1; 0 stands for none. An operation that mixes elements of different labels,
whatever their values, leaves no labels behind.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.batched import reduced_axes, sources
from fastgrad.tracing.graph import Node, leaves
from fastgrad.tracing.operations import factors, product_spec

Labels = NDArray[np.intp]


def propagated(nodes: list[Node], root: Node, labels: Labels) -> dict[Node, Labels]:
    """Return the labels of the elements of all nodes that do not mix them.

    Parameters
    ----------
    nodes : list of Node
        Those after the root, in order.
    root : Node
    labels : int array of the root's shape
    """
    found = {root: labels}
    mixed: set[Node] = set()
    for node in nodes:
        result = None if any(leaf in mixed for leaf in node.inputs()) else _labels(node, found)
        if result is None:
            mixed.add(node)
        else:
            found[node] = result
    return found


def common(labels: Labels, axes: tuple[int, ...]) -> Labels | None:
    """Return the one label, 0 apart, that stands along axes; None where there are several."""
    largest: Labels = labels.max(axis=axes, initial=0)
    smallest = np.where(labels > 0, labels, np.iinfo(np.intp).max).min(axis=axes, initial=2**62)
    return np.asarray(largest) if np.all((largest == 0) | (smallest == largest)) else None


def _labels(node: Node, found: Mapping[Node, Labels]) -> Labels | None:
    """Return the labels of a node's elements; None if it mixes different ones."""
    match operations.kind_of(*node.operation):
        case operations.ELEMENTWISE:
            return _merged(node, [found[leaf] for leaf in node.inputs() if leaf in found])
        case operations.MOVE:
            moved = leaves(node.arguments[0])
            blocks = [np.zeros(1, np.intp), *(_of(part, found).reshape(-1) for part in moved)]
            return np.asarray(np.concatenate(blocks)[sources(node)])
        case operations.REDUCTION:
            result = common(_of(node.arguments[0], found), reduced_axes(node))
            return None if result is None else result.reshape(node.shape)
        case operations.PRODUCT:
            return _of_product(node, found)
    return None


def _of(argument: Any, found: Mapping[Node, Labels]) -> Labels:
    """Return the labels of an argument's elements."""
    if type(argument) is Node and argument in found:
        return found[argument]
    return np.zeros(argument.shape if type(argument) is Node else np.shape(argument), np.intp)


def _of_product(node: Node, found: Mapping[Node, Labels]) -> Labels | None:
    """Return the labels of a product that does not sum over different ones."""
    spec = product_spec(node)
    if spec is None:
        return None
    terms, out = spec.split("->")
    parts = []
    for factor, term in zip(factors(node), terms.split(","), strict=True):
        summed = tuple(axis for axis, letter in enumerate(term) if letter not in out)
        labels = common(_of(factor, found), summed)
        if labels is None:
            return None
        kept = [letter for letter in term if letter in out]
        labels = labels.transpose([kept.index(letter) for letter in out if letter in kept])
        shape = [n if c in kept else 1 for c, n in zip(out, node.shape, strict=True)]
        parts.append(labels.reshape(shape))
    return _merged(node, parts)


def _merged(node: Node, parts: list[Labels]) -> Labels | None:
    """Return the labels of arrays that are broadcast together, if nowhere two of them differ."""
    if len(parts) == 1 and parts[0].shape == node.shape:
        return parts[0]
    result = np.zeros(node.shape, np.intp)
    for labels in parts:
        if np.any((result != labels) & (result > 0) & (labels > 0)):
            return None
        result = np.maximum(result, labels)
    return result
