"""Operations that are linear while no decision changes: how much their results change.

Of products and sums, changes are computed. All else, as masks, maxima and moves, gives a `View`: it
takes each element from somewhere, or leaves it as it is.
"""

from collections.abc import Mapping
from functools import partial
from math import prod
from typing import Any, NamedTuple

import numpy as np

from fastgrad.tracing import operations
from fastgrad.tracing.batched import Batched, Stack, reduced_axes
from fastgrad.tracing.operations import Node, leaves, product_spec, value_of
from fastgrad.tracing.picks import SUMS, is_view
from fastgrad.tracing.smoothness import EXTREMA, name_of
from fastgrad.typing import Array, Places

DECISION_MARGIN_EPS = 64
"""Units of rounding, of the largest number that is compared, by which a change may be missed."""

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
    first, second : int arrays
        The places of both, as in a `View`.
    gaps : array
        How far they are apart.
    """

    first: Places
    second: Places
    gaps: Array

    def near(self, changes: Array, times: float) -> tuple[Array, Array]:
        """Return the changes of what may change by more than it is apart, and how far that is.

        Parameters
        ----------
        changes : array of shape (1 + elements, m)
        times : float
            The largest norm of the shares that a weight has in the m moves. By the inequality of
            Cauchy and Schwarz it changes an element by so many times the norm of m changes at most.
        """
        reach = (1 + SUM_MARGIN) * times * np.sqrt(np.einsum("ij,ij->i", changes, changes))
        near = ~(reach[self.first] + reach[self.second] <= self.gaps)
        return changes[self.first[near]] - changes[self.second[near]], self.gaps[near]


def taken(view: View, changes: Changes) -> Array:
    """Return the changes of an array, of shape (*shape, m)."""
    return np.take(changes[view.source], view.places, axis=0)


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


def decisions_of(node: Node, views: Views) -> tuple[Node, tuple[Places, Places, Array]] | None:
    """Return what a node compares, and of which array; None if it does not, or of several."""
    name, source = name_of(node), _source(views)
    if source is None:
        return None
    if node.kind == operations.REDUCTION and name in EXTREMA:
        array = node.arguments[0]
        best, lines = _best(node), _lines(node, array.value)
        first, sides = _lines(node, views[array].places), [lines, lines[best][:, np.newaxis]]
        second = first[best][:, np.newaxis]
    elif name in ORDERINGS | CHOOSING:
        sides = [np.asarray(value_of(side), np.float64) for side in node.arguments[:2]]
        first, second = (_places(side, node.shape, views) for side in node.arguments[:2])
    else:
        return None
    size = max(float(abs(side).max(initial=0)) for side in sides)
    gaps: Any = abs(sides[0] - sides[1]) - DECISION_MARGIN_EPS * np.finfo(np.float64).eps * size
    first, second, gaps = (a.reshape(-1) for a in np.broadcast_arrays(first, second, gaps))
    matters = first != second
    gaps = np.where(gaps > 0, gaps, 0)  # nan, too
    return source, (first[matters], second[matters], gaps[matters])


def _best(node: Node) -> tuple[Places, Places]:
    """Return which element of each line a reduction has picked."""
    lines = _lines(node, node.arguments[0].value)
    return np.arange(len(lines)), (lines == node.value.reshape(-1, 1)).argmax(axis=1)


def _lines(node: Node, values: Any) -> Any:
    """Return what is reduced, of shape (lines, elements of each)."""
    axes = reduced_axes(node)
    moved = np.moveaxis(values, axes, range(-len(axes), 0))
    return moved.reshape(prod(moved.shape[: -len(axes)]), -1)
