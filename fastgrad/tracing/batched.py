"""Recorded operations, applied to many versions of their arguments at once.

A `Stack` holds m versions of an array along a new first axis. Elementwise operations, moves,
reductions and products take whole stacks; any other function is called version by version.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from string import ascii_letters
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fastgrad.jit.concurrency import importing
from fastgrad.lazy import LazyModule
from fastgrad.tracing import operations
from fastgrad.tracing.operations import Node, factors, leaves, product_spec, replaced, value_of
from fastgrad.typing import Array

matrix_products: Any = LazyModule("fastgrad.jit.matrix_products")

MAX_WINDOW = 9
"""Elements of windows that are laid one beside the other: those of pooling."""

MAX_SHORT_LINE = 16
"""Elements of lines whose extrema are taken element by element of all lines: scores of classes."""

Batched = Callable[[Any, int], Array]
"""``batched(arguments, m)`` -> array of shape (m, *node.shape). The arguments are the node's, with
a `Stack` of m versions or a plain value in the place of each node."""


@dataclass(eq=False, slots=True)
class Stack:
    """m versions of an array: ``values[k]`` is the k-th.

    If it is spare, an operation may write its result there: new memory takes longer to get than
    most operations take. The reach is by how much elements are moved at most, if that is known.
    """

    values: Array
    is_spare: bool = False
    reach: Array | None = None


def batched(node: Node) -> Batched:
    """Return a function that applies a node's operation to versions of its arguments.

    It holds no values of the node: it serves every node of the same operation and shapes.
    """
    match node.kind:
        case operations.ELEMENTWISE:
            return _elementwise(node)
        case operations.MOVE:
            return _move(node)
        case operations.REDUCTION if type(node.arguments[0]) is Node:
            return _reduction(node)
        case operations.PRODUCT if product_spec(node) is not None:
            return _product(node)
    return _one_by_one(node)


def _one_by_one(node: Node) -> Batched:
    """Return an operation that is called for each version by itself."""
    function: Any = node.function
    shape, dtype, keywords = node.shape, node.value.dtype, node.keywords

    def apply(arguments: Any, m: int) -> Array:
        results = np.empty((m, *shape), dtype)
        for k in range(m):
            results[k] = function(*replaced(arguments, partial(_version, k=k)), **keywords)
        return results

    return apply


def _version(argument: Any, k: int) -> Any:
    """Return one version of an argument; what does not move is the same in all."""
    return argument.values[k] if type(argument) is Stack else argument


def _elementwise(node: Node) -> Batched:
    """Broadcast from the right, as NumPy does, behind the axis of the versions."""
    axes = len(node.shape)
    function: Any = node.function
    keywords = node.keywords
    is_choice = function is np.where and node.value.dtype == np.float64 and len(node.arguments) == 3

    def aligned(argument: Any) -> Any:
        if type(argument) is not Stack:
            return argument
        values = argument.values
        if values.ndim > axes:
            return values
        m, *shape = values.shape
        return values.reshape(m, *(1,) * (axes - len(shape)), *shape)

    def apply(arguments: Any, m: int) -> Array:
        operands = [aligned(argument) for argument in arguments]  # none of them is nested
        if is_choice:
            return chosen(*operands)
        spare = [a.values for a in arguments if type(a) is Stack and a.is_spare]
        if spare:
            operands = [_lying_as(spare[0], operand) for operand in operands]
            return np.asarray(function(*operands, out=spare[0]))
        return np.asarray(function(*operands, **keywords))

    return apply


def _lying_as(array: Array, operand: Any) -> Any:
    """Return an operand whose versions lie side by side if an array's do: NumPy is quicker then."""
    if not _are_side_by_side(array) or np.ndim(operand) != array.ndim:
        return operand
    if operand.size == array.size or operand.strides[0] in (0, operand.itemsize):
        return operand
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(operand, 0, -1)), -1, 0)


def chosen(condition: Any, first: Any, second: Any) -> Array:
    """Return what `np.where` does, of float64, without a branch for each element.

    Where neighbours differ at random, as the signs of units do, a processor guesses each second
    branch wrong, and waits.
    """
    first, second = (np.asarray(a, np.float64).view(np.int64) for a in (first, second))
    is_first = np.asarray(condition, bool).view(np.int8)
    if first.ndim == 0 and not first:
        bits: Array = (is_first - np.int8(1)).astype(np.int64)  # all where the condition is false
        fits = np.broadcast(bits, second).shape == bits.shape
        bits = np.bitwise_and(bits, second, out=bits if fits else None)
    else:
        bits = np.negative(is_first).astype(np.int64)  # all where it is true
        bits = (first ^ second) & bits ^ second
    return bits.view(np.float64)


# Reductions --------------------------------------------------------------------------------------


def _reduction(node: Node) -> Batched:
    """Return a reduction along the same axes of all versions."""
    function: Any = node.function
    keywords = {key: value for key, value in node.keywords.items() if key != "axis"}
    axes = tuple(axis + 1 for axis in reduced_axes(node))
    axis: Any = axes[0] if len(axes) == 1 else axes
    shape, reduced = node.shape, np.shape(value_of(node.arguments[0]))
    # One element of all lines after the other: NumPy takes long to begin with a line.
    is_of_few = function in (np.max, np.min) and axes == (len(reduced),)
    is_of_few = is_of_few and reduced[-1] <= MAX_SHORT_LINE

    def apply(arguments: Any, m: int) -> Array:
        values = arguments[0].values
        if len(axes) > 1 and function in (np.argmax, np.argmin):
            result = function(values.reshape(m, -1), axis=1)
        elif is_of_few and _are_side_by_side(values):
            result = np.ascontiguousarray(function(values, axis=-1))
        elif is_of_few:
            result = function(np.ascontiguousarray(np.moveaxis(values, -1, 0)), axis=0)
        else:
            result = function(values, axis=axis, **keywords)
        return np.asarray(result).reshape(m, *shape)

    return apply


def reduced_axes(node: Node) -> tuple[int, ...]:
    """Return the axes along which a reduction's argument is reduced."""
    axis = node.arguments[1] if len(node.arguments) > 1 else node.keywords.get("axis")
    ndim = np.ndim(value_of(node.arguments[0]))
    if axis is None or not ndim:  # NumPy reduces a number along axis 0 or -1, too
        return tuple(range(ndim))
    return tuple(int(a) % ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


# Moves -------------------------------------------------------------------------------------------


def _move(node: Node) -> Batched:
    """Return a move of elements, the same in all versions."""
    place = node.sources
    is_without_zeros, steps = bool(place.all()), _steps(place)
    axes = _permutation(node, steps)
    dtype = node.value.dtype
    if axes is not None:
        return lambda arguments, _: leaves(arguments[0])[0].values.transpose(axes)
    if is_reshape(node):
        shape = node.shape
        return lambda arguments, m: leaves(arguments[0])[0].values.reshape(m, *shape)
    in_memory: dict[Any, NDArray[np.intp]] = {}  # of the few layouts that arguments have

    def apply(arguments: Any, m: int) -> Array:
        parts = leaves(arguments[0])
        if len(parts) == 1 and steps is not None:
            flat = np.ascontiguousarray(parts[0].values).reshape(m, -1)
            strides = (flat.strides[0], *(flat.itemsize * step for step in steps))
            return as_strided(flat[:, place.flat[0] - 1 :], (m, *place.shape), strides)
        places = place
        if len(parts) == 1:  # as it lies in memory, which is not always in C order
            values = parts[0].values
            strides = values.strides
            order = tuple(sorted(range(values.ndim), key=lambda axis: -strides[axis]))
            in_order = values.transpose(order)
            if order[0] == 0 and in_order.flags.c_contiguous:
                layout = values.shape[1:], order
                if layout not in in_memory:
                    in_memory[layout] = _places_in_memory(place, *layout)
                places = in_memory[layout]
                parts = [Stack(in_order)]
        if len(parts) == 1 and is_without_zeros:
            return _taken(parts[0].values.reshape(m, -1), places - 1)
        blocks = [np.zeros((m, 1), dtype), *(_flat(part, m) for part in parts)]
        moved = _taken(np.concatenate(blocks, axis=1), places)
        return moved.astype(dtype, copy=False)  # as an assignment rounds

    return apply


def moves_nothing(node: Node) -> bool:
    """Say whether a move's result is its one argument, in the same shape and dtype."""
    return is_reshape(node) and np.shape(value_of(leaves(node.arguments[0])[0])) == node.shape


def is_reshape(node: Node) -> bool:
    """Say whether a move's result is its one argument, of the same dtype, in C order."""
    source, *others = leaves(node.arguments[0])
    return (
        not others
        and (value_of(source).size, value_of(source).dtype) == (node.value.size, node.value.dtype)
        and np.array_equal(node.sources.reshape(-1), np.arange(1, node.value.size + 1))
    )


def _places_in_memory(
    places: NDArray[np.intp], shape: tuple[int, ...], order: tuple[int, ...]
) -> NDArray[np.intp]:
    """Return places, counted from 1 in C order, as they are in the memory of a transposed stack."""
    axes = [axis - 1 for axis in order[1:]]
    numbers = np.arange(1, prod(shape) + 1).reshape([shape[axis] for axis in axes])
    in_c_order = numbers.transpose(np.argsort(axes)).reshape(-1)
    return np.concatenate([np.zeros(1, np.intp), in_c_order])[places]


def _taken(flat: Array, places: NDArray[np.intp]) -> Array:
    """Return ``flat[:, places]``; what is reduced along a short last axis has that as the first."""
    if places.ndim > 1 and places.shape[-1] <= MAX_WINDOW:
        taken = np.take(flat, np.moveaxis(places, -1, 0), axis=1)
        return np.moveaxis(taken, 1, -1)
    if places.ndim == 1 and _are_side_by_side(flat):  # all of which NumPy would copy before
        return flat.T.take(places, axis=0).T
    return np.take(flat, places, axis=1)


def _are_side_by_side(values: Array) -> bool:
    """Say whether the versions of each element follow each other in memory."""
    return len(values) > 1 and values.strides[0] == values.itemsize < values.strides[-1]


def _permutation(node: Node, steps: list[int] | None) -> tuple[int, ...] | None:
    """Return how a stack's axes are permuted, if that is all that a move does."""
    parts = leaves(node.arguments[0])
    shape = np.shape(value_of(parts[0]))
    if steps is None or len(parts) > 1 or sorted(shape) != sorted(node.shape) or 1 in shape:
        return None
    strides = [int(np.prod(shape[axis + 1 :])) for axis in range(len(shape))]
    if sorted(steps) != sorted(strides):
        return None
    return 0, *(1 + strides.index(step) for step in steps)


def _flat(part: Any, m: int) -> Array:
    """Return m versions of an argument, each as one row."""
    if type(part) is Stack:
        return part.values.reshape(m, -1)
    return np.broadcast_to(np.reshape(part, (1, -1)), (m, np.size(part)))


def _steps(place: NDArray[np.intp]) -> list[int] | None:
    """Return the distance of neighbours along each axis, or None where it is not the same."""
    if not place.size or not place.all():
        return None
    first, last = int(place.flat[0]), int(place.flat[-1])
    steps = []
    for axis, length in enumerate(place.shape):
        second = tuple(int(k == axis) for k in range(place.ndim))
        steps.append(int(place[second]) - first if length > 1 else 0)
        last -= steps[-1] * (length - 1)
    if last != first:  # most often, and in less time
        return None
    grid = np.full((), first)
    for step, length in zip(steps, place.shape, strict=True):
        grid = np.expand_dims(grid, -1) + step * np.arange(length)
    return steps if np.array_equal(grid, place) else None


# Products ----------------------------------------------------------------------------------------


def _in_one(left: Array, right: Array) -> Array:
    """Return the product of all versions of a matrix, of shape (m, ...), with another matrix."""
    product = left.reshape(-1, left.shape[-1]) @ right if left.size else left @ right
    return np.asarray(product).reshape(*left.shape[:2], right.shape[1])


def _product(node: Node, multiply: Callable[[Array, Array], Array] = _in_one) -> Batched:
    """Return a product of the versions, as one of matrices where that is possible."""
    spec = product_spec(node)
    assert spec is not None
    terms, out = spec.split("->")
    first, second = terms.split(",")
    version = next(c for c in ascii_letters if c not in spec)
    by_matrices = set(out) == set(first) ^ set(second)  # else letters are in all, or in one only

    def apply(arguments: Any, m: int) -> Array:
        pair = [a for a in arguments if not isinstance(a, str)][:2]
        if by_matrices and type(pair[1]) is not Stack:
            return _by_matrix(pair[0].values, pair[1], first, second, out, multiply)
        if by_matrices and type(pair[0]) is not Stack:
            return _by_matrix(pair[1].values, pair[0], second, first, out, multiply)
        named = [
            (version if type(a) is Stack else "") + term
            for a, term in zip(pair, (first, second), strict=True)
        ]
        values = [a.values if type(a) is Stack else a for a in pair]
        return np.asarray(np.einsum(f"{','.join(named)}->{version}{out}", *values, optimize=True))

    return apply


def without_zeros(node: Node) -> Batched | None:
    """Return what `batched` does, but leaves out what is zero in all versions, if that is faster.

    It is for a product of versions with a matrix, if the recorded values have enough zeros.
    """
    pair = [np.asarray(value_of(factor)) for factor in factors(node)]
    varying = [type(factor) is Node and factor.depends for factor in factors(node)]
    if product_spec(node) is None or sum(varying) != 1:
        return None
    values, other = pair if varying[0] else pair[::-1]
    with importing:
        most = matrix_products.MAX_COMMON_DENSITY * values.size
    is_double = values.dtype == other.dtype == np.float64
    if not is_double or np.count_nonzero(values) > most or not np.isfinite(other).all():
        return None
    return _product(node, matrix_products.multiply_versions)


def _by_matrix(
    values: Array,
    other: Any,
    first: str,
    second: str,
    out: str,
    multiply: Callable[[Array, Array], Array],
) -> Array:
    """Multiply all versions of an array by one matrix, in one product."""
    other = np.asarray(other)
    summed = [c for c in first if c in second]
    rows, columns = ([c for c in term if c not in summed] for term in (first, second))
    left = values.transpose(0, *(1 + first.index(c) for c in rows + summed))
    right = other.transpose([second.index(c) for c in summed + columns])
    length = prod(right.shape[: len(summed)])
    shape = left.shape[: 1 + len(rows)], right.shape[len(summed) :]
    product = multiply(
        left.reshape(len(left), prod(shape[0][1:]), length), right.reshape(length, prod(shape[1]))
    )
    order = (1 + (rows + columns).index(c) for c in out)
    return np.asarray(product.reshape(*shape[0], *shape[1]).transpose(0, *order))
