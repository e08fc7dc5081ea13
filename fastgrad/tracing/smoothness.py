"""Smoothness of a recorded function while units are moved: where a response may have a kink.

Between kinks, jumps and poles a response is smooth, and a few shifts tell all of it. So every
operation is asked for its *margins*: a quantity q that it computes with, and the distance d from q
to the nearest place where the operation is not smooth, such as q itself for ``abs(q)``. Where q is
smooth it is close to a polynomial in the shift s, of degree n = 2 count, say, as count shifts are
measured up and down. They are Chebyshev's points ``cos(k pi / n)``, so that nowhere between them

    |q(s) - q(0)| <= Lambda max over k of |q(s_k) - q(0)|,     Lambda = 1 + 2/pi log(n + 1)

(L. N. Trefethen, *Approximation Theory and Approximation Practice*, 2013, theorem 15.2). If that is
at most |d| for the first operation, then what it gives to the next one is smooth in turn; and so
on, to the losses. Otherwise the response of this unit and row *may have a kink*, and is measured
more closely.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import log, pi
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.lazy import lazy
from fastgrad.tracing import operations
from fastgrad.tracing.affine import Stage, UnitIds, ids_of_result, propagate
from fastgrad.tracing.batched import Stack, batched, reduced_axes
from fastgrad.tracing.operations import Node, between, replaced, value_of
from fastgrad.tracing.replay import Replay
from fastgrad.typing import Array

PRODUCT_FUNCTIONS = frozenset({"multiply", "divide", "square", "var", "prod", "power"})

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

STRAIGHT_FUNCTIONS = frozenset(
    {"add", "subtract", "multiply", "negative", "positive", "sum", "mean", "where", "absolute"}
    | {"clip", "logical_and", "logical_or", "logical_not", *COMPARISONS, *EXTREMA}
)
"""Functions that are straight between the places where decisions change; of a product with what
is moved, if only one of its factors is."""

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


class NonSmoothPlaces:
    """The margins of all operations between a stage and the losses: where they are not smooth.

    The rows must not mix. Those of the elements of some arrays may be known.
    """

    def __init__(
        self,
        replay: Replay,
        stage: Stage,
        row_ids: Mapping[Node, UnitIds] = MappingProxyType({}),
    ) -> None:
        self.size = len(stage.inputs), len(replay.units)
        degrees: dict[Node, int] = {}
        for node in replay.nodes:
            degrees[node] = degree(node, degrees)
        self.margins = {node: [*margins(node), *steepness(node, degrees)] for node in replay.nodes}
        self.straight_end = _straight_end(replay, degrees, self.margins)
        recorded = {replay.root, *replay.nodes}
        unrecorded = [
            node
            for of_node in self.margins.values()
            for margin in of_node
            for node in _unrecorded(margin.quantity, recorded)
        ]
        self.batched = {node: batched(node) for node in unrecorded}
        self.nodes = [*replay.recorded, *unrecorded]
        self.stage = stage
        self._row_ids, self._unit_ids = row_ids, replay.unit_ids

    @lazy
    def rows(self) -> dict[Node, UnitIds]:
        """The row of each element of all arrays; wanted only if there may be a kink."""
        return propagate(self.nodes, self.stage.node, self.stage.rows, self._row_ids)

    @lazy
    def units(self) -> dict[Node, UnitIds]:
        """The unit of each element of the arrays that do not mix them, and of what these make."""
        return propagate([*self.batched], self.stage.node, self.stage.unit_ids, self._unit_ids)

    def versions(self, node: Node, stacks: Mapping[Node, Stack], m: int) -> Array:
        """Return m versions of a quantity, from those of recorded arrays."""
        if node in stacks:
            return stacks[node].values

        def of(leaf: Any) -> Any:
            if type(leaf) is Node and (leaf in stacks or leaf in self.batched):
                return Stack(self.versions(leaf, stacks, m))
            return value_of(leaf)

        return self.batched[node](replaced(node.arguments, of), m)


def is_quadratic(replay: Replay) -> bool:
    """Say whether all is a polynomial of degree 2 at most, as a penalty on weights is.

    What moves up and down by the same change it by, one less the other, is in proportion to them.
    """
    degrees: dict[Node, int] = {}
    for node in replay.nodes:
        degrees[node] = degree(node, degrees)
    return max(degrees.values(), default=1) <= 2 and not any(
        True for node in replay.nodes for _ in margins(node)
    )


def _straight_end(
    replay: Replay, degrees: Mapping[Node, int], margins: Mapping[Node, Any]
) -> Node | None:
    """Return the last array that moves in proportion to the shift, and that all else comes through.

    Until there, operations add up, multiply by what does not move, and decide: within their margins
    a move by a part of the largest shift moves it by just that part. None if that is at most what
    does not mix units, and is moved at all shifts in no time.
    """
    straight = {replay.root}
    after = {replay.root, *replay.nodes}
    number = {node: k for k, node in enumerate(replay.nodes)}
    last_use = {leaf: number[node] for node in replay.nodes for leaf in node.inputs()}
    end, used_until = None, last_use.get(replay.root, 0)
    for k, node in enumerate(replay.nodes):
        moved = [leaf for leaf in node.inputs() if leaf in after]
        if straight.issuperset(moved) and _is_straight(node, moved, degrees, margins):
            straight.add(node)
            if used_until <= k and node.value.dtype == np.float64:
                end = node
        used_until = max(used_until, last_use.get(node, k))
    return None if end is None or end in replay.unit_ids else end


def _is_straight(
    node: Node, moved: list[Node], degrees: Mapping[Node, int], margins: Mapping[Node, Any]
) -> bool:
    """Say whether an operation of what is straight is, too, or decides by it."""
    if node not in margins or degrees[node] > 1 or node.value.dtype not in (np.float64, np.bool_):
        return False
    if node.kind in (operations.MOVE, operations.PRODUCT):
        return True
    if name_of(node) == "divide":
        return not any(leaf is node.arguments[1] for leaf in moved)
    if name_of(node) == "converted":
        return moved[0].value.dtype in (np.float64, np.bool_)
    return name_of(node) in STRAIGHT_FUNCTIONS


class SmoothnessMonitor:
    """Finds the units of rows that come close to a place that is not smooth while they are moved.

    Parameters
    ----------
    non_smooth : NonSmoothPlaces
    count : int
        At how many shifts, up and down, the responses are measured.

    Attributes
    ----------
    may_have_kink : bool array of shape (rows, units)
        Which responses may pass a kink, a jump or a pole.
    """

    def __init__(self, non_smooth: NonSmoothPlaces, count: int) -> None:
        self.non_smooth = non_smooth
        self.factor = 1 + 2 / pi * log(2 * count + 1)
        # Then q moves one way only: by Markov's inequality the slope of a polynomial of degree n
        # is at most n^2 times its largest value (A. A. Markov, 1889).
        self.straight = 1 / (2 * (2 * count) ** 2 * self.factor)
        self.may_have_kink = np.zeros(non_smooth.size, bool)

    def observe(
        self,
        node: Node,
        stacks: Mapping[Node, Stack],
        units: NDArray[np.intp] | None,
        shifts: Array,
    ) -> None:
        """Compare an operation's quantities, before it is computed, with their margins.

        Parameters
        ----------
        node : Node
        stacks : dict
            The versions of its arguments.
        units : array of int or None
            Those moved, the outer order of the versions; None if each element's own unit is moved.
        shifts : array
            By how much, as parts of the largest: the inner order of the versions.
        """
        count = len(shifts) * (1 if units is None else len(units))
        for margin in self.non_smooth.margins.get(node, ()):
            reach = abs(margin.distance) / self.factor
            stack = stacks.get(margin.quantity)
            if stack is None:
                stack = Stack(self.non_smooth.versions(margin.quantity, stacks, count))
            if stack.reach is not None:
                inside = stack.reach <= reach
            else:
                low, high = stack.values.min(axis=0), stack.values.max(axis=0)
                base = margin.quantity.value
                inside = (low >= base - reach) & (high <= base + reach)
            if not inside.all():  # of any version; nan is looked at below
                self._note(margin, stack.values, np.flatnonzero(~inside), units, shifts)

    def _note(
        self,
        margin: Margin,
        moved: Array,
        elements: NDArray[np.intp],
        units: NDArray[np.intp] | None,
        shifts: Array,
    ) -> None:
        """Note which units of which rows have moved elements of a quantity beyond their margins."""
        shape = margin.quantity.shape
        where: tuple[Any, ...] = np.unravel_index(elements, shape) if shape else ()
        change = moved[slice(None), *where] - margin.quantity.value[where]
        reach = abs(np.reshape(margin.distance, -1)[elements]) / self.factor
        outside = (abs(change) > reach).reshape(-1, len(shifts), len(elements)).any(axis=1)
        outer, which = np.nonzero(outside)
        change = change.reshape(-1, len(shifts), len(elements))[outer, :, which]
        element = elements[which]
        distance, row = (
            np.reshape(a, -1)[element]
            for a in (margin.distance, self.non_smooth.rows[margin.quantity])
        )
        if units is None:
            unit = self.non_smooth.units[margin.quantity].reshape(-1)[element]
        else:
            unit = units[outer]
        slopes = change / shifts
        slope = slopes.sum(axis=1) / len(shifts)
        is_straight = abs(slopes - slope[:, np.newaxis]).max(axis=1) <= self.straight * abs(slope)
        # Of what is straight, as in a net of ReLU units, it is known where the sign changes.
        beyond = abs(distance) > (1 + 2 * self.straight) * abs(slope)
        counts = (unit > 0) & (row > 0) & ~(is_straight & beyond & margin.is_sign)
        self.may_have_kink[row[counts] - 1, unit[counts] - 1] = True


def _unrecorded(quantity: Node, recorded: set[Node]) -> list[Node]:
    """Return the operations that a quantity is made by and that are not recorded, in order."""
    if quantity in recorded or not quantity.depends:
        return []
    return [*(node for leaf in quantity.inputs() for node in _unrecorded(leaf, recorded)), quantity]


def cancelling_shifts(replay: Replay) -> set[Node]:
    """Return the extrema that do not matter: the largest scores by which a softmax shifts all.

    Where the target depends on the root by nothing else, they matter: none would be left to replay.
    """
    extrema = {node for node in replay.nodes if name_of(node) in EXTREMA}
    held = {node for node in extrema if _cancels(node, replay.nodes, replay.target)}
    rest = [node for node in replay.nodes if node not in held]
    return held if between(rest, replay.root, replay.target) else set()


def _cancels(node: Node, after: list[Node], target: Node) -> bool:
    """Say whether numbers that are added to an array, to each element its own, change nothing."""
    ids = {node: np.arange(1, node.value.size + 1).reshape(node.shape)}
    effects: dict[Node, tuple[bool, int]] = {node: (False, 1)}
    for other in after:
        if effects.keys().isdisjoint(other.inputs()):
            continue
        effect, found = _effect(other, effects), ids_of_result(other, ids)
        if effect is None or found is None or not found.all():
            return False
        if effect[1]:
            effects[other], ids[other] = effect, found
    return target not in effects


def _effect(node: Node, effects: Mapping[Node, tuple[bool, int]]) -> tuple[bool, int] | None:
    """Return what a shift of arguments does to a result: by how many times it is shifted too.

    Or by how many times its exponential it is multiplied; then the first is true. None if it is
    neither.
    """
    name, arguments = name_of(node), node.arguments
    none = False, 0
    found = [effects.get(a, none) if type(a) is Node else none for a in arguments]
    scales = any(scale for scale, _ in found)
    first, second = found[0], found[1] if len(found) > 1 else none
    numbers = first[1], second[1]
    match name:
        case "exp" if not scales:
            return True, numbers[0]
        case "log" if scales:
            return False, numbers[0]
        case "add" | "subtract" if not scales:
            return False, numbers[0] + numbers[1] * (1 if name == "add" else -1)
        case "negative" if not scales:
            return False, -numbers[0]
        case "negative" | "positive":
            return first
        case "multiply" | "divide" if all(scale or not number for scale, number in found):
            return True, numbers[0] + numbers[1] * (1 if name == "multiply" else -1)
        case "sum" | "mean" if scales and node.kind == operations.REDUCTION:
            return first
    if node.kind == operations.MOVE and node.sources.all() and type(arguments[0]) is Node:
        return first
    return None


# Margins: how far arguments may move -----------------------------------------------------------


def margins(node: Node) -> Iterator[Margin]:
    """Return the margins of an operation, as far as arguments that depend on x are concerned.

    Decisions by whole numbers and bools are those of earlier operations. An operation that is not
    known may be smooth nowhere: its distances are 0.
    """
    kind, name, arguments = node.kind, name_of(node), node.arguments
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
    function = node.function
    if function not in _names:
        name = str(getattr(function, "__name__", ""))
        modules = np, operations, sys.modules.get("scipy.special")
        if not any(getattr(m, name, None) is function for m in modules):
            return ""
        _names[function] = name
    return _names[function]


_names: dict[Any, str] = {}
"""Of functions that are known."""


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
    """Yield how far a quantity is from whole numbers."""
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
    """Yield how far a power's arguments may move before it is not smooth."""
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


# Degrees of products ------------------------------------------------------------------------------


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
    kind, name = node.kind, name_of(node)
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
    if degrees[node] <= MAX_LOW_DEGREE:
        return
    kind, name = node.kind, name_of(node)
    if kind != operations.PRODUCT and name not in PRODUCT_FUNCTIONS:
        return
    share = max(2.0, _factors_of(node) / 2) if name == "prod" else 2.0
    for argument in dict.fromkeys(node.inputs()):
        if moves(argument):
            yield from margin_if_moved(argument, abs(argument.value) / share)


def _factors_of(node: Node) -> int:
    """Return how many elements are multiplied to one of a ``prod``."""
    return int(np.size(value_of(node.arguments[0])) // max(1, np.size(node.value)))
