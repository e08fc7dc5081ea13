"""What is left of a replay if only some rows are wanted? Of each array the elements of those rows.

Kinks are few, but all of a row's units pass the kink of a later unit: that row is then measured
hundreds of times. Rows do not mix, so the others need not be computed along with it.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.batched import sources
from fastgrad.tracing.labels import Labels, propagated
from fastgrad.tracing.nodes import Node, leaves, value_of
from fastgrad.tracing.plan import Stage
from fastgrad.tracing.replay import SAME, Replay
from fastgrad.tracing.rows import Rows
from fastgrad.tracing.subscripts import factors, product_spec
from fastgrad.typing import Array

Cut = tuple[int, NDArray[np.intp]]
"""The axis along which the rows of an array lie, and the places on it that are kept."""

Arguments = tuple[Callable[..., Any] | None, tuple[Any, ...]]


class NotDivisible(Exception):
    """An operation cannot be applied to some of the rows alone."""


def restricted(rows: Rows, stage: Stage, kept: NDArray[np.intp]) -> tuple[Rows, Stage] | None:
    """Return the same rows and stage with only some of the rows.

    Every operation is applied to the recorded values of what is kept, which must give what was
    recorded.

    Parameters
    ----------
    rows : Rows
        Which must not mix.
    stage : Stage
    kept : int array
        Row numbers from 0, rising.

    Returns
    -------
    Rows, Stage
        Their rows are numbered anew. None if an operation is of another kind than those that can be
        divided, or an array's rows do not lie along one axis.
    """
    numbers = np.zeros(rows.count + 1, np.intp)
    numbers[kept + 1] = np.arange(1, len(kept) + 1)
    replay = rows.replay
    labels = propagated(replay.nodes, replay.root, stage.rows)
    try:
        cuts = {node: _cut(labels[node], numbers) for node in (replay.root, *replay.nodes)}
        root = Node(None, (), {}, _taken(replay.root.value, cuts[replay.root]), True)
        new = {replay.root: root}
        for node in replay.nodes:
            new[node] = _divided(node, new, cuts)
    except (NotDivisible, KeyError):
        return None
    units = _taken(stage.labels, cuts[replay.root])
    target = new[replay.target]
    few = Rows(
        Replay([*new.values()], root, units, target),
        numbers[_taken(rows.owners, cuts[replay.target])],
        len(kept),
    )
    its_rows = numbers[_taken(stage.rows, cuts[replay.root])]
    return few, Stage(root, stage.inputs[kept], stage.where, units, its_rows)


def _cut(labels: Labels, numbers: Labels) -> Cut:
    """Return the axis on which an array's rows lie, and where on it those are that are kept."""
    for axis in range(labels.ndim if labels.size else 0):
        line = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
        if np.array_equal(line, np.broadcast_to(line[:, :1], line.shape)):
            return axis, np.flatnonzero((numbers[line[:, 0]] > 0) | (line[:, 0] == 0))
    raise NotDivisible


def _taken(array: Array, cut: Cut) -> Array:
    axis, places = cut
    return np.take(array, places, axis)


def _divided(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Node:
    """Return the operation on what is kept of its arguments."""
    kind = operations.kind_of(*node.operation)
    if kind not in DIVIDERS:
        raise NotDivisible
    function, arguments = DIVIDERS[kind](node, new, cuts)
    keywords = {} if kind == operations.MOVE else node.keywords
    result = Node(function, arguments, keywords, None, True)
    result.value = np.asarray(result.compute([value_of(argument) for argument in arguments]))
    expected = _taken(node.value, cuts[node])
    largest = abs(expected).max(initial=0)
    if result.value.shape != expected.shape or not np.allclose(
        result.value, expected, rtol=0, atol=SAME * float(largest), equal_nan=True
    ):
        raise NotDivisible
    return result


def _elementwise(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Arguments:
    axis, places = cuts[node]

    def divided(argument: Any) -> Any:
        if type(argument) is Node and argument in new:
            return new[argument]
        value = value_of(argument)
        mine = axis - len(node.shape) + np.ndim(value)  # broadcasting counts from the right
        return np.take(value, places, mine) if mine >= 0 and value.shape[mine] > 1 else value

    if any(map(np.ndim, node.keywords.values())):
        raise NotDivisible
    return node.function, tuple(map(divided, node.arguments))


def _reduction(node: Node, new: Mapping[Node, Node], _: Mapping[Node, Cut]) -> Arguments:
    return node.function, (new[node.arguments[0]], *node.arguments[1:])


def _product(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Arguments:
    spec = product_spec(node)
    if spec is None:
        raise NotDivisible
    terms, out = spec.split("->")
    axis, places = cuts[node]
    pair: list[Any] = []
    for factor, term in zip(factors(node), terms.split(","), strict=True):
        if type(factor) is Node and factor in new:
            pair.append(new[factor])
        elif out[axis] in term:
            pair.append(np.take(value_of(factor), places, term.index(out[axis])))
        else:
            pair.append(value_of(factor))
    if node.function is np.einsum:
        return node.function, (node.arguments[0], *pair)
    return node.function, (*pair, *node.arguments[2:])


def _move(node: Node, new: Mapping[Node, Node], cuts: Mapping[Node, Cut]) -> Arguments:
    """Return where what is kept of the result stands in what is kept of the one array it is of."""
    source, *others = leaves(node.arguments[0])
    if others:
        raise NotDivisible
    numbers = np.zeros(source.value.size + 1, np.intp)
    kept = _taken(np.arange(1, len(numbers)).reshape(source.shape), cuts[source]).reshape(-1)
    numbers[kept] = np.arange(1, len(kept) + 1)
    places = numbers[_taken(sources(node), cuts[node])]
    if not places.all():
        raise NotDivisible
    return operations.item, (new[source], np.unravel_index(places - 1, new[source].shape))


DIVIDERS: dict[str, Callable[[Node, Mapping[Node, Node], Mapping[Node, Cut]], Arguments]] = {
    operations.ELEMENTWISE: _elementwise,
    operations.REDUCTION: _reduction,
    operations.PRODUCT: _product,
    operations.MOVE: _move,
}
"""How operations of each kind are applied to some rows: a function, and its arguments."""
