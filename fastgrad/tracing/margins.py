"""Margins: how far the arguments of an operation may move before it stops being smooth."""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import log, pi
from typing import Any

import numpy as np

from fastgrad.tracing import operations
from fastgrad.tracing.batched import reduced_axes
from fastgrad.tracing.graph import Node, replaced, value_of
from fastgrad.typing import Array

SMOOTH_DISTANCES = {
    **dict.fromkeys(("exp", "expm1", "exp2", "sin", "cos", "sinh", "cosh"), 2.0),
    **dict.fromkeys(("logaddexp", "logaddexp2", "expit", "log_expit"), pi / 2),
    **dict.fromkeys(("tanh", "erf", "erfc"), pi / 4),
    "arctan": 0.5,
}
"""How far functions stay smooth from any argument on: half as far as the nearest complex pole may
be; without poles, as far as a few terms of the series reach."""

POLES_AT_ZERO = frozenset({"sqrt", "cbrt", "log", "log2", "log10", "reciprocal"})

ROUNDING_OFFSETS = {
    "floor": 0.0,
    "ceil": 0.0,
    "trunc": 0.0,
    "rint": 0.5,
    "round": 0.5,
    "around": 0.5,
}
"""How far above whole numbers functions jump."""

COMPARISONS = frozenset(
    {"greater", "greater_equal", "less", "less_equal", "equal", "not_equal"}
    | {"maximum", "minimum", "fmax", "fmin"}
)
"""Functions that decide by the sign of their arguments' difference."""

SIGN_TESTS = frozenset(
    {"absolute", "fabs", "sign", "where", "any", "all"}
    | {"logical_and", "logical_or", "logical_xor", "logical_not"}
)
"""Functions that decide by the signs of arguments, or whether they are 0."""

EXTREMA = frozenset({"max", "min", "amax", "amin"})

SMOOTH_FUNCTIONS = frozenset(
    {"add", "subtract", "multiply", "negative", "positive", "square", "conjugate"}
    | {"sum", "mean", "prod", "var", "nan_to_num", "isnan", "isinf", "isfinite"}
)
"""Polynomials, which are smooth however far they are moved as long as their degree is low; and
decisions by nan and inf, neither of which a polynomial fits."""

MAX_LOW_DEGREE = 8
"""The highest degree that counts as low."""


@dataclass(frozen=True, eq=False)
class Margin:
    """The distance of a quantity from the nearest place where an operation is not smooth.

    Attributes
    ----------
    quantity : Node
        An argument of the operation, or what has been made of its arguments.
    distance : array of the quantity's shape
    is_sign : bool
        Whether there is one such place only, ``quantity.value - distance``.
    """

    quantity: Node
    distance: Array
    is_sign: bool = False


def margins(node: Node) -> Iterator[Margin]:
    """Return the margins of an operation, as far as arguments that depend on x are concerned.

    Decisions by whole numbers and bools are those of earlier operations. An operation that is not
    known may be smooth nowhere: its distances are 0.
    """
    kind, name, arguments = operations.kind_of(*node.operation), name_of(node), node.arguments
    first, second = arguments[0], arguments[1] if len(arguments) > 1 else None
    if kind == operations.PRODUCT or name in SMOOTH_FUNCTIONS:
        return
    if kind == operations.MOVE:
        if name == "assigned":
            for value in first[1:]:
                yield from _converted(value, node.value.dtype)
    elif name == "converted":
        yield from _converted(first, node.value.dtype)
    elif name in SMOOTH_DISTANCES:
        moved = _operation(np.subtract, first, second) if name.startswith("logadd") else first
        yield from margin_if_moved(
            moved, np.full(np.shape(value_of(moved)), SMOOTH_DISTANCES[name])
        )
    elif name in POLES_AT_ZERO:
        yield from margin_if_moved(first, value_of(first) / 2)
    elif name == "log1p":
        yield from margin_if_moved(first, (1 + value_of(first)) / 2)
    elif name == "divide":
        yield from margin_if_moved(second, value_of(second) / 2)
    elif name == "std":
        value = np.asarray(np.var(*replaced(arguments, value_of), **node.keywords))
        yield from margin_if_moved(Node(np.var, arguments, node.keywords, value, True), value / 2)
    elif name == "power":
        yield from _of_power(first, second)
    elif name in ROUNDING_OFFSETS:
        digits = second if second is not None else node.keywords.get("decimals", 0)
        scaled = _operation(np.multiply, first, 10.0**digits)
        yield from _whole_numbers(_operation(np.subtract, scaled, ROUNDING_OFFSETS[name]))
    elif name in ("floor_divide", "remainder", "fmod") and not moves(second):
        yield from _whole_numbers(_operation(np.divide, first, second))
    elif name in COMPARISONS:
        yield from _sign(first, second)
    elif name in SIGN_TESTS:
        tested = arguments if name.startswith("logical") else arguments[:1]
        yield from (margin for argument in tested for margin in _sign(argument, 0.0))
    elif name == "clip":
        bounds = [*arguments[1:], *node.keywords.values()]
        yield from (m for bound in bounds if bound is not None for m in _sign(first, bound))
    elif name in EXTREMA or name in ("argmax", "argmin"):
        yield from _sign(first, _largest(node))
    else:
        for argument in node.inputs():
            yield from margin_if_moved(argument, np.zeros(argument.shape))


def name_of(node: Node) -> str:
    """Return the name of a node's function, if it is NumPy's, SciPy's or the recorder's own."""
    name = str(getattr(node.function, "__name__", ""))
    modules = np, operations, sys.modules.get("scipy.special")
    return name if any(getattr(m, name, None) is node.function for m in modules) else ""


def moves(argument: Any) -> bool:
    """Say whether an argument is moved, and not from one whole number to another."""
    if type(argument) is not Node or not argument.depends:
        return False
    return np.asarray(argument.value).dtype.kind not in "iub"


def _operation(function: Callable[..., Any], *arguments: Any) -> Node:
    """Return an operation that has not been recorded."""
    value = np.asarray(function(*map(value_of, arguments)))
    return Node(function, arguments, {}, value, any(map(moves, arguments)))


def margin_if_moved(quantity: Any, distance: Any) -> Iterator[Margin]:
    """Return the margin of a quantity, if it is moved."""
    if moves(quantity):
        yield Margin(quantity, np.asarray(distance))


def _whole_numbers(quantity: Any) -> Iterator[Margin]:
    value = value_of(quantity)
    yield from margin_if_moved(quantity, value - np.rint(value))


def _sign(a: Any, b: Any) -> Iterator[Margin]:
    """Return the margin of a decision by the sign of ``a - b``."""
    if not (moves(a) or moves(b)):
        return
    distance = np.asarray(value_of(a) - value_of(b))
    if moves(a) and a.shape == distance.shape and type(b) is not Node:
        yield Margin(a, distance, is_sign=True)  # saves a subtraction of all versions
    else:
        yield Margin(_operation(np.subtract, a, b), distance, is_sign=True)


def _converted(argument: Any, dtype: Any) -> Iterator[Margin]:
    """Return the margins of an array that takes another dtype."""
    if dtype.kind == "b":
        yield from _sign(argument, 0.0)
    elif dtype.kind in "iu":
        yield from _whole_numbers(argument)


def _of_power(base: Any, exponent: Any) -> Iterator[Margin]:
    a, b = value_of(base), value_of(exponent)
    if moves(exponent):
        is_exponential = not moves(base) and np.ndim(a) == 0 and a > 0
        distance = SMOOTH_DISTANCES["exp"] / max(1, abs(log(a))) if is_exponential else 0.0
        yield from margin_if_moved(exponent, np.full(np.shape(b), distance))
    elif not is_low_power(b):
        # a**b = exp(b log(a)), and exp is to move by 2 at most.
        yield from margin_if_moved(base, a / np.maximum(2, abs(b) / 2))


def is_low_power(exponent: Any) -> bool:
    """Say whether a power with this exponent is a polynomial of low degree."""
    return np.ndim(exponent) == 0 and exponent % 1 == 0 and 0 <= exponent <= MAX_LOW_DEGREE


def _largest(node: Node) -> Node:
    """Return that element of a reduction's argument that is the largest, or smallest, so far."""
    array, axes = node.arguments[0], reduced_axes(node)
    value = np.asarray(value_of(array))
    kept = [axis for axis in range(value.ndim) if axis not in axes]
    places = np.arange(value.size).reshape(value.shape).transpose([*kept, *axes])
    places = places.reshape(*(value.shape[axis] for axis in kept), -1)
    find = np.argmax if "max" in name_of(node) else np.argmin
    which = find(value.reshape(-1)[places], axis=-1)[..., np.newaxis]
    place = np.expand_dims(np.take_along_axis(places, which, -1)[..., 0], axes)
    return _operation(operations.item, _operation(np.ravel, array), place)
