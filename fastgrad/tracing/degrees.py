"""Of how many factors is a product made? If of many, it may be a spike, however smooth they are."""

from collections.abc import Iterator, Mapping

import numpy as np

from fastgrad.tracing import operations
from fastgrad.tracing.margins import LOW_DEGREE, Margin, is_low_power, moves, name_of, within
from fastgrad.tracing.nodes import Node, value_of

MULTIPLYING = frozenset({"multiply", "divide", "square", "var", "prod", "power"})


def degree(node: Node, degrees: Mapping[Node, int]) -> int:
    """Return the degree of a polynomial: of how many moved factors an operation's value is made.

    Functions that are no polynomials, but smooth within their margins, count as straight.

    Parameters
    ----------
    node : Node
    degrees : dict
        Those of its arguments; a node that is not there has 1.
    """
    factors = [degrees.get(leaf, 1) for leaf in node.inputs() if moves(leaf)]
    kind, name = operations.kind_of(*node.operation), name_of(node)
    if not factors:
        return 0
    if kind == operations.PRODUCT or name in ("multiply", "divide"):
        return sum(factors)
    if name in ("square", "var", "std"):
        return 2 * factors[0]
    if name == "prod":
        return factors[0] * _factors_of(node)
    if name == "power" and is_low_power(value_of(node.arguments[1])):
        return max(1, int(value_of(node.arguments[1]))) * factors[0]
    return max(factors)


def steepness(node: Node, degrees: Mapping[Node, int]) -> Iterator[Margin]:
    """Return the margins of a product of many factors, in which a spike may be hidden.

    It is close to a polynomial of low degree as long as its logarithm is: while none of its factors
    changes by more than half, or, of a product of all elements, by its share of 2. The degrees are
    those of all nodes up to this one.
    """
    if degrees[node] <= LOW_DEGREE:
        return
    kind, name = operations.kind_of(*node.operation), name_of(node)
    if kind != operations.PRODUCT and name not in MULTIPLYING:
        return
    share = max(2.0, _factors_of(node) / 2) if name == "prod" else 2.0
    for argument in dict.fromkeys(node.inputs()):
        if moves(argument):
            yield from within(argument, abs(argument.value) / share)


def _factors_of(node: Node) -> int:
    """Return how many elements are multiplied to one of a ``prod``."""
    return int(np.size(value_of(node.arguments[0])) // max(1, np.size(node.value)))
