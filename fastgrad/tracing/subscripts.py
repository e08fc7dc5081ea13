"""Which axes does a product sum over? Its subscripts, as `numpy.einsum` has them, tell."""

from string import ascii_lowercase
from typing import Any

import numpy as np

from fastgrad.tracing.nodes import Node, value_of


def factors(node: Node) -> tuple[Any, Any]:
    """Return a product's two arguments."""
    start = 1 if node.function is np.einsum else 0
    return node.arguments[start], node.arguments[start + 1]


def product_spec(node: Node) -> str | None:
    """Return a product's subscripts as `numpy.einsum` has them, or None if there are none."""
    if node.function is np.einsum:
        return _explicit(node.arguments)
    a, b = (np.ndim(value_of(factor)) for factor in factors(node))
    if min(a, b) == 0 or (node.function is np.matmul and max(a, b) > 2 and (b != 2 or a < 2)):
        return None
    left, right = list(ascii_lowercase[:a]), list(ascii_lowercase[a : a + b])
    for i, j in _contracted(node, a, b):
        right[j] = left[i]
    out = [c for c in left + right if (c in left) != (c in right)]
    return f"{''.join(left)},{''.join(right)}->{''.join(out)}"


def _contracted(node: Node, a: int, b: int) -> list[tuple[int, int]]:
    """Return the pairs of axes that are summed over."""
    if node.function is not np.tensordot:
        return [(a - 1, b - 1 if node.function is np.inner or b == 1 else b - 2)]
    axes = node.arguments[2] if len(node.arguments) > 2 else 2
    if isinstance(axes, int):
        axes = (range(a - axes, a), range(axes))
    return list(zip(*(np.atleast_1d(side).tolist() for side in axes), strict=True))


def _explicit(arguments: tuple[Any, ...]) -> str | None:
    """Return einsum's subscripts in explicit form, if there are two factors without diagonals."""
    if len(arguments) != 3 or not isinstance(arguments[0], str) or "." in arguments[0]:
        return None
    terms, arrow, out = arguments[0].replace(" ", "").partition("->")
    if not arrow:
        out = "".join(sorted(c for c in set(terms) - {","} if terms.count(c) == 1))
    if any(len(set(term)) < len(term) for term in terms.split(",")):
        return None
    return f"{terms}->{out}"
