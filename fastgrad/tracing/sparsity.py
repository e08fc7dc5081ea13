"""Sparsity of a recorded function: which elements of its result are computed from which of x.

Every operation passes on, for each element of its result, the set of elements of x that it is
computed from: a row of a sparse matrix. A set may hold too many elements, never too few.
"""

from collections.abc import Callable, Mapping
from functools import partial, reduce
from math import prod
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.lazy import LazyModule
from fastgrad.tracing import operations
from fastgrad.tracing.batched import reduced_axes
from fastgrad.tracing.first_calls import FirstCalls
from fastgrad.tracing.operations import Node, between, factors, leaves, product_spec, value_of
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.trace import record_call
from fastgrad.typing import Array, Places

if TYPE_CHECKING:
    from scipy import sparse
else:  # an extra
    sparse = LazyModule("scipy.sparse")

MAX_MULTIPLICATIONS = 1 << 24
"""Multiplications of a product of arrays that are looked at one by one."""

MAX_ENTRIES = 1 << 26
"""Elements that the sets of one operation may hold."""

LINEAR_FUNCTIONS = frozenset(
    {np.add, np.subtract, np.negative, np.positive, np.sum, np.mean, np.cumsum, np.trace, np.diff}
    | {operations.converted}
)
"""Functions that are linear in all arguments together."""

LINEAR_IN_FIRST = frozenset({np.divide})
"""Functions that are linear in the first argument alone."""

Sets = Any
"""A `scipy.sparse.csr_array` of bool: in row i the elements of x that element i depends on."""


def recorded_sparsity(f: Callable[[Any], Any], x: Array, h: float) -> Sets:
    """Return which elements of f(x) are computed from which of x, ``(f(x).size, x.size)``.

    Parameters
    ----------
    f : callable
        ``f(x)`` -> array.
    x : array
    h : float
        By parts of which x is moved while f is recorded.

    Raises
    ------
    NotTraceable
        If f does what cannot be recorded, or the sets would be too large.
    """

    def total(x: Any) -> Any:
        return np.sum(f(x))

    nodes, output = record_call(total, x, h, FirstCalls(total, x))
    result = output.arguments[0]
    if output.function is not np.sum or type(result) is not Node:
        raise NotTraceable("it does not return an array that is computed from x")
    return _sets(nodes, result, x.size)[result]


def recorded_hessian_sparsity(f: Callable[[Any], Any], x: Array, h: float) -> Sets:
    """Return with respect to which pairs of elements f has a second derivative, (x.size, x.size).

    Those on which together an element depends that an operation computes which is not linear.

    Parameters
    ----------
    f : callable
        ``f(x) -> number``.
    x, h
        As for `recorded_sparsity`.

    Raises
    ------
    NotTraceable
        As from `recorded_sparsity`.
    """
    nodes, output = record_call(f, x, h, FirstCalls(f, x))
    sets = _sets(nodes, output, x.size)
    together = [sparse.csr_array((1, x.size), dtype=bool)]
    for node in sets:
        if node is not nodes[0]:
            together += _pairs(node, sets)
    every = sparse.vstack(together, format="csr")
    if (np.diff(every.indptr).astype(float) ** 2).sum() > MAX_ENTRIES:
        raise NotTraceable("too many elements of x have a part in one operation")
    return sparse.csr_array(every.T @ every)


def _sets(nodes: list[Node], output: Node, n: int) -> dict[Node, Sets]:
    """Return the sets of all operations from the first node to the output."""
    sets = {nodes[0]: sparse.csr_array(sparse.eye_array(n, dtype=bool))}
    for node in between(nodes, nodes[0], output):
        sets[node] = _sets_of(node, sets, n)
        if sets[node].nnz > MAX_ENTRIES:
            raise NotTraceable("its elements depend on too many of x")
    return sets


def _pairs(node: Node, sets: Mapping[Node, Sets]) -> list[Sets]:
    """Return sets of elements of x that an operation mixes in another way than linearly."""
    inputs = [leaf for leaf in leaves(node.arguments) if _is_known(leaf, sets)]
    if node.kind == operations.PRODUCT and product_spec(node) is not None:
        return [reduce(add, _multiplied(node, sets))] if len(inputs) > 1 else []
    if node.kind == operations.MOVE or node.function in LINEAR_FUNCTIONS:
        return []
    if node.function in LINEAR_IN_FIRST and inputs == [node.arguments[0]]:
        return []
    return [] if node.function is np.multiply and len(inputs) == 1 else [sets[node]]


def _sets_of(node: Node, sets: Mapping[Node, Sets], n: int) -> Sets:
    """Return the sets of an operation's elements, of n elements of x."""
    inputs = [leaf for leaf in node.inputs() if leaf in sets]
    match node.kind:
        case operations.ELEMENTWISE:
            return reduce(add, [sets[leaf][_numbers(leaf.shape, node.shape)] for leaf in inputs])
        case operations.MOVE:
            none = partial(sparse.csr_array, dtype=bool)
            blocks = [none((1, n))]
            for leaf in leaves(node.arguments[0]):
                empty = np.size(value_of(leaf)), n
                blocks.append(sets[leaf] if _is_known(leaf, sets) else none(empty))
            return sparse.vstack(blocks, format="csr")[node.sources.reshape(-1)]
        case operations.REDUCTION if inputs == [node.arguments[0]]:
            [leaf] = inputs
            axes = reduced_axes(node)
            kept = tuple(1 if axis in axes else n for axis, n in enumerate(leaf.shape))
            return _unions(_numbers(kept, leaf.shape), _numbers(leaf.shape), sets[leaf], prod(kept))
        case operations.PRODUCT if product_spec(node) is not None:
            return reduce(add, _of_product(node, sets))
    if node.function is np.diff and len(node.arguments) == 1 and not node.keywords:
        [leaf] = inputs
        numbers = _numbers(leaf.shape).reshape(leaf.shape)
        first, second = numbers[..., :-1].reshape(-1), numbers[..., 1:].reshape(-1)
        return sets[leaf][first] + sets[leaf][second]
    # Any other function may compute each element from all that it is given.
    together = [sets[leaf].sum(axis=0) > 0 for leaf in inputs]
    union = sparse.csr_array(np.any(together, axis=0)[np.newaxis])
    size = prod(node.shape)
    if union.nnz * size > MAX_ENTRIES:
        raise NotTraceable("its elements depend on too many of x")
    return union[np.zeros(size, np.intp)]


def _numbers(shape: tuple[int, ...], target: tuple[int, ...] = ()) -> Places:
    """Return the numbers of an array's elements, in the order of what it is broadcast to."""
    numbers = np.arange(prod(shape)).reshape(shape)
    return np.broadcast_to(numbers, target or shape).reshape(-1)


def _unions(results: Places, elements: Places, sets: Sets, size: int) -> Sets:
    """Return ``size`` sets: element ``elements[k]`` adds its own to set ``results[k]``."""
    shape = size, sets.shape[0]
    return sparse.csr_array((np.ones(len(results), bool), (results, elements)), shape) @ sets


def _of_product(node: Node, sets: Mapping[Node, Sets]) -> list[Sets]:
    """Return the sets by each factor; what is multiplied by a constant 0 is left out."""
    results = _multiplications(node, sets)[0]
    numbers = np.arange(len(results))
    return [_unions(results, numbers, each, prod(node.shape)) for each in _multiplied(node, sets)]


def _multiplied(node: Node, sets: Mapping[Node, Sets]) -> list[Sets]:
    """Return for each factor that depends on x the sets of what is multiplied, in order."""
    _, elements = _multiplications(node, sets)
    return [sets[factor][numbers] for factor, numbers in elements if _is_known(factor, sets)]


def _multiplications(
    node: Node, sets: Mapping[Node, Sets]
) -> tuple[Places, list[tuple[Any, Places]]]:
    """Return to which element of a product each multiplication adds, and what is multiplied."""
    spec = product_spec(node)
    assert spec is not None
    terms, out = spec.split("->")
    pairs = [*zip(factors(node), terms.split(","), strict=True)]
    sizes: dict[str, int] = {}
    for factor, term in pairs:
        sizes |= dict(zip(term, np.shape(value_of(factor)), strict=True))
    shape = tuple(sizes.values())
    if prod(shape) > MAX_MULTIPLICATIONS:
        raise NotTraceable("it multiplies arrays by too many multiplications to look at each")
    index = dict(zip(sizes, np.indices(shape, sparse=True), strict=True))

    def numbers(term: str) -> Places:
        each: Any = np.zeros((1,) * len(shape), np.intp)
        for c in term:
            each = each * sizes[c] + index[c]
        return np.broadcast_to(each, shape).reshape(-1)

    is_used = np.ones(prod(shape), bool)
    for factor, term in pairs:
        if not _is_known(factor, sets):
            is_used &= np.asarray(value_of(factor)).reshape(-1)[numbers(term)] != 0
    return numbers(out)[is_used], [(factor, numbers(term)[is_used]) for factor, term in pairs]


def _is_known(argument: Any, sets: Mapping[Node, Sets]) -> bool:
    """Say whether an argument depends on x."""
    return type(argument) is Node and argument in sets
