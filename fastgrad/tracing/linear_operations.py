"""Operations that are linear while no decision changes: how much their results change.

Of products and sums, changes are computed. All else, as masks, maxima and moves, gives a `View`: it
takes each element from somewhere, or leaves it as it is.
"""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.batched import Batched, Stack, reduced_axes
from fastgrad.tracing.operations import Node, leaves, product_spec, value_of
from fastgrad.tracing.picks import SUMS, is_view
from fastgrad.tracing.smoothness import EXTREMA, name_of
from fastgrad.typing import Array, Places

DECISION_MARGIN_EPS = 64
"""Units of rounding, of the largest number that is compared, by which a change may be missed."""

ROUNDINGS = 4
"""Units of rounding up to which a change is none."""

SUM_MARGIN = 1e-9
"""By how much more a change may be missed, of the sum of all parts."""

MIN_ROW_PRODUCTS = 2**11
"""Products of a row from which on each row is multiplied by itself, of what changes."""

ORDERINGS = frozenset({"greater", "greater_equal", "less", "less_equal", "equal", "not_equal"})
"""Functions that compare, and decide."""

CHOOSING = frozenset({"maximum", "minimum", "fmax", "fmin"})
"""Functions that compare two elements, and pick one."""

ADDING = SUMS | {"negative"}
"""Functions by which changes go as values do, where what does not move counts as 0."""

Changes = dict[Node, Array]
"""By how much m versions of arrays differ from what was recorded, of shape (1 + elements, m): in
C order, after a row of zeros for what does not change."""


class View(NamedTuple):
    """What an array's elements change by: each by as much as one of another array, or not at all.

    Attributes
    ----------
    source : Node
        The other array.
    places : int array of the array's shape
        In the other array, counted from 1; 0 for what does not change.
    """

    source: Node
    places: Places


Views = Mapping[Node, View]
"""Of the arguments of an operation that move."""


class Decisions(NamedTuple):
    """What is compared of an array's elements, with each other or with what does not change.

    Attributes
    ----------
    source : Node
        The array.
    first, second : int arrays
        The places of both, as in a `View`.
    gaps : array
        How far they are apart.
    owners : int array
        Of which elements of the node that compares, counted from 0.
    margin : float
        What rounding may change of a difference.
    """

    source: Node
    first: Places
    second: Places
    gaps: Array
    owners: Places
    margin: float

    def near(self, reach: Array) -> Places:
        """Return which may change, where elements change by no more than their reach."""
        return np.flatnonzero(~(reach[self.first] + reach[self.second] <= self.gaps))

    def compared(self, which: Places, changes: Array) -> Array:
        """Return by how much some of the differences change."""
        return np.asarray(changes[self.first[which]] - changes[self.second[which]])


class Choice(NamedTuple):
    """An operation that picks each of its elements from some of an array's, by what it compares.

    Attributes
    ----------
    view : View
        What it picks as long as no decision changes.
    decisions : Decisions
    inputs : int array of shape (elements, k + 1)
        The places of all that each element looks at; at last, of what it picks.
    values : array of shape (elements, k)
        What was recorded there.
    pick : callable
        ``pick(values)`` of shape (some, k, m) is of shape (some, m).
    margin : float
        How far the first two are to be apart for f to pick the same; 0 if all is continuous.
    """

    view: View
    decisions: Decisions
    inputs: Places
    values: Array
    pick: Callable[[Array], Array]
    margin: float

    def changes(self, changes: Changes) -> Array:
        """Return what the elements change by as long as no decision changes."""
        return taken(self.view, changes)

    def excess(self, elements: Places, changes: Array) -> tuple[Array, NDArray[np.bool_]]:
        """Return by how much more elements change than that, of shape (elements, m).

        And whether f is sure to decide so.

        Parameters
        ----------
        elements : int array
        changes : array of shape (elements, k + 1, m)
            Of their inputs.
        """
        recorded = self.values[elements][..., np.newaxis]
        moved = recorded + changes[:, :-1]
        excess = self.pick(moved) - self.pick(recorded) - changes[:, -1]
        rounding = ROUNDINGS * np.finfo(np.float64).eps * abs(moved).max(axis=1)
        is_sure = np.isfinite(excess)
        if self.margin:
            is_still = changes[:, 0] == changes[:, 1]
            is_sure &= is_still | (abs(moved[:, 0] - moved[:, 1]) > self.margin)
        return np.where(abs(excess) <= rounding, 0, excess), is_sure


def taken(view: View, changes: Changes) -> Array:
    """Return the changes of an array, of shape (*shape, m)."""
    return np.take(changes[view.source], view.places, axis=0)


def norms(changes: Array) -> Array:
    """Return the norms of the changes of elements by all moves.

    By the inequality of Cauchy and Schwarz, what adds up shares of moves changes an element by no
    more than the norm of the shares times this.
    """
    return np.asarray(np.sqrt(np.einsum("ij,ij->i", changes, changes)))


def as_changes(versions: Array) -> Array:
    """Return changes from versions that come one after the other."""
    size = prod(versions.shape[1:])
    result = np.empty((1 + size, len(versions)))
    result[0] = 0
    result[1:] = np.moveaxis(versions, 0, -1).reshape(size, -1)
    return result


def _places(argument: Any, shape: tuple[int, ...], views: Views) -> Places:
    """Return the places of an argument's elements, broadcast to a shape."""
    places = views[argument].places if type(argument) is Node and argument in views else 0
    return np.broadcast_to(places, shape)


def _source(views: Views) -> Node | None:
    """Return the one array that all views are of; None if they are of several."""
    sources = {view.source for view in views.values()}
    return sources.pop() if len(sources) == 1 else None


def view_of(node: Node, views: Views) -> View | None:
    """Return the view that a node's result is; None if it is none.

    Parameters
    ----------
    node : Node
    views : dict of View
        Of those of its arguments that move.
    """
    name, arguments, source = name_of(node), node.arguments, _source(views)
    moves = [type(a) is Node and a in views for a in arguments]
    if source is None or node.value.dtype != np.float64:
        return None
    places: Places
    match node.kind:
        case operations.MOVE if is_view(node):
            places = node.compute((views[arguments[0]].places, *arguments[1:]))
        case operations.MOVE:
            parts = [
                _places(part, np.shape(value_of(part)), views).reshape(-1)
                for part in leaves(arguments[0])
            ]
            places = np.concatenate([np.zeros(1, np.intp), *parts])[node.sources]
        case _ if node.keywords.keys() - {"axis", "keepdims"}:
            return None
        case operations.REDUCTION if name in EXTREMA and moves[0]:
            places = _lines(node, views[arguments[0]].places)[_best(node)].reshape(node.shape)
        case operations.ELEMENTWISE if name in CHOOSING or (name == "where" and not moves[0]):
            first, second = arguments[-2:]
            is_first = value_of(arguments[0])
            if name != "where":
                is_first = node.value == is_first
            first, second = (_places(a, node.shape, views) for a in (first, second))
            places = np.where(is_first, first, second)
        case operations.ELEMENTWISE if sum(moves) > 1:
            return None
        case operations.ELEMENTWISE if name in SUMS and not (name == "subtract" and moves[1]):
            places = _places(arguments[moves.index(True)], node.shape, views)
        case operations.ELEMENTWISE if name == "multiply":
            mask = value_of(arguments[moves.index(False)])
            if np.asarray(mask).dtype != np.bool_:
                return None
            places = np.where(mask, _places(arguments[moves.index(True)], node.shape, views), 0)
        case _:
            return None
    return View(source, places)


def change_of(node: Node, views: Views, function: Batched) -> Any:
    """Return what computes a node's changes from those of others; None if it is not linear."""
    name, arguments, shape = name_of(node), node.arguments, node.shape
    moves = [type(a) is Node and a in views for a in arguments]
    if node.value.dtype != np.float64 or node.keywords.keys() - {"axis", "keepdims"}:
        return None
    values = [value_of(a) for a in arguments]
    match node.kind:
        case operations.ELEMENTWISE if name in ADDING:
            values = [0.0] * len(values)
        case operations.ELEMENTWISE:
            is_linear = name == "multiply" or (name == "divide" and moves[0])
            if not is_linear or sum(moves) > 1:
                return None
        case operations.MOVE | operations.REDUCTION:
            if not moves[0] or (node.kind == operations.REDUCTION and name not in ("sum", "mean")):
                return None
        case operations.PRODUCT:
            spec = product_spec(node)
            if sum(moves) > 1 or spec is None:
                return None
            if moves[0] and spec == "ab,bd->ad":
                return partial(_multiplied, views[arguments[0]], np.asarray(values[1]))
        case _:
            return None

    def change(changes: Changes) -> Array:
        versions = [
            Stack(np.moveaxis(taken(views[argument], changes), -1, 0)) if moves_too else value
            for argument, value, moves_too in zip(arguments, values, moves, strict=True)
        ]
        m = next(iter(changes.values())).shape[1]
        return as_changes(np.broadcast_to(function(tuple(versions), m), (m, *shape)))

    return change


def _multiplied(view: View, other: Array, changes: Changes) -> Array:
    """Return the changes of a matrix, such as one of windows, times another one.

    Row by row, of those elements alone that change: not of what a ReLU switches off.
    """
    values, rows, (depth, columns) = changes[view.source], len(view.places), other.shape
    result = np.empty((1 + rows * columns, values.shape[1]))
    result[0] = 0
    of_rows = result[1:].reshape(rows, columns, values.shape[1])
    if depth * columns < MIN_ROW_PRODUCTS:
        np.matmul(other.T, taken(view, changes), out=of_rows)
        return result
    is_moved = np.asarray(values.any(axis=1))[view.places]
    places, factors = view.places[is_moved], np.nonzero(is_moved)[1]
    start = 0
    for of_row, end in zip(of_rows, is_moved.sum(axis=1).cumsum().tolist(), strict=True):
        if start == end:
            of_row[...] = 0
            continue
        own = other.take(factors[start:end], axis=0)
        np.matmul(own.T, values.take(places[start:end], axis=0), out=of_row)
        start = end
    return result


def decisions_of(node: Node, views: Views) -> Decisions | None:
    """Return what a node compares; None if it does not, or elements of several arrays."""
    name, source = name_of(node), _source(views)
    if source is None:
        return None
    if node.kind == operations.REDUCTION and name in EXTREMA:
        array = node.arguments[0]
        best, lines = _best(node), _lines(node, array.value)
        first, sides = _lines(node, views[array].places), [lines, lines[best][:, np.newaxis]]
        second, owners = first[best][:, np.newaxis], np.arange(len(lines))[:, np.newaxis]
    elif name in ORDERINGS | CHOOSING:
        sides = [np.asarray(value_of(side), np.float64) for side in node.arguments[:2]]
        first, second = (_places(side, node.shape, views) for side in node.arguments[:2])
        owners = np.arange(node.value.size).reshape(node.shape)
    else:
        return None
    size = max(float(abs(side).max(initial=0)) for side in sides)
    margin = DECISION_MARGIN_EPS * float(np.finfo(np.float64).eps) * size
    gaps: Any = abs(sides[0] - sides[1]) - margin
    gaps = np.where(gaps > 0, gaps, 0)  # nan, too
    parts = [a.reshape(-1) for a in np.broadcast_arrays(first, second, gaps, owners)]
    first, second, gaps, owners = (a[parts[0] != parts[1]] for a in parts)
    return Decisions(source, first, second, gaps, owners, margin)


def mask_of(node: Node) -> Node | None:
    """Return the mask by which a node picks one of two, or an element or 0; None if it does not."""
    name = name_of(node)
    bools = [a for a in node.arguments if type(a) is Node and a.value.dtype == np.bool_]
    if name == "multiply" and len(bools) == 1:
        return bools[0]
    if name == "where" and bools[:1] == [node.arguments[0]] and len(node.arguments) == 3:
        return bools[0]
    return None


def choice_of(node: Node, view: View, decisions: Decisions, mask: Node, views: Views) -> Choice:
    """Return a node as a choice.

    Parameters
    ----------
    node : Node
    view : View
        What it is as long as no decision changes.
    decisions : Decisions
    mask : Node
        What compares: the node itself, or a mask that it reads.
    views : dict of View
        Of all that moves.
    """
    places = np.append(0, view.places)
    arguments, margin = node.arguments, 0.0
    if node.kind == operations.REDUCTION:
        array = arguments[0]
        inputs, values = _lines(node, views[array].places), _lines(node, array.value)
        pick: Any = partial(np.max if "max" in name_of(node) else np.min, axis=1)
    else:
        sides = [*mask.arguments[:2]]
        function: Any = mask.function
        if mask is node:

            def pick(values: Array) -> Array:
                return np.asarray(function(values[:, 0], values[:, 1]))

        else:
            margin = decisions.margin
            picked = [a for a in arguments if a is not mask]
            sides += picked if len(picked) == 2 else [*picked, 0.0]

            def pick(values: Array) -> Array:
                first, second, one, other = np.moveaxis(values, 1, 0)
                return np.asarray(np.where(function(first, second), one, other))

        of_sides = [_places(side, node.shape, views).reshape(-1) for side in sides]
        inputs = np.stack(of_sides, axis=1)
        recorded = [np.broadcast_to(value_of(side), node.shape).reshape(-1) for side in sides]
        values = np.stack(recorded, axis=1).astype(np.float64)
    inputs = np.concatenate([inputs, places[1:, np.newaxis]], axis=1)
    return Choice(View(view.source, places), decisions, inputs, values, pick, margin)


def _best(node: Node) -> tuple[Places, Places]:
    """Return which element of each line a reduction has picked."""
    lines = _lines(node, node.arguments[0].value)
    return np.arange(len(lines)), (lines == node.value.reshape(-1, 1)).argmax(axis=1)


def _lines(node: Node, values: Any) -> Any:
    """Return what is reduced, of shape (lines, elements of each)."""
    axes = reduced_axes(node)
    moved = np.moveaxis(values, axes, range(-len(axes), 0))
    return moved.reshape(prod(moved.shape[: -len(axes)]), -1)
