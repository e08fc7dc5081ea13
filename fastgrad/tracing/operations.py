"""Recorded operations: nodes, the kinds of NumPy functions, and the subscripts of products."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from string import ascii_lowercase
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_PICK_GAIN = 2
"""How many times fewer elements are to be picked than computed, at least, to be picked before."""


@dataclass(eq=False, slots=True, repr=False)
class Node:
    """One recorded operation: ``value = function(*arguments, **keywords)``.

    Attributes
    ----------
    function : callable or None
        A pure function of its arguments; None for the array that stands at the beginning.
    arguments : tuple
        Arrays, numbers and nested sequences of them; what other nodes computed is given as `Node`.
    keywords : dict
        Never holds a `Node`.
    value : ndarray or NumPy scalar
        What it computed.
    depends : bool
        Whether the value was computed from the array that stands at the beginning.
    known_kind : str
        Its kind, once that has been asked for.
    """

    function: Callable[..., Any] | None
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    value: Any
    depends: bool
    known_kind: str = ""
    _sources: NDArray[np.intp] | None = field(default=None, init=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape."""
        shape: tuple[int, ...] = self.value.shape
        return shape

    @property
    def kind(self) -> str:
        """The kind of the operation, as `kind_of` tells it."""
        if not self.known_kind:
            self.known_kind = kind_of(self.function, self.arguments, self.keywords)
        return self.known_kind

    def replace(self, function: Callable[..., Any] | None, arguments: tuple[Any, ...]) -> None:
        """Let the same value be computed in another way."""
        self.function, self.arguments, self.keywords, self.known_kind = function, arguments, {}, ""

    def with_arguments(self, arguments: tuple[Any, ...]) -> "Node":
        """Return a node that computes the same value from arguments that are nested alike."""
        return Node(
            self.function,
            arguments,
            self.keywords,
            self.value,
            depends=True,
            known_kind=self.known_kind,
        )

    def compute(self, arguments: Any) -> Any:
        """Apply the operation to other arguments."""
        assert self.function is not None
        return self.function(*arguments, **self.keywords)

    @property
    def sources(self) -> NDArray[np.intp]:
        """The place that each element of a move's result comes from; of the value's shape.

        Places are counted from 1, in the elements of all that is moved, one array after the other,
        each in C order; 0 stands for a zero that is new.
        """
        if self.function is gathered:
            of_gathered: NDArray[np.intp] = self.arguments[1]
            return of_gathered
        if self._sources is None:
            end = 1

            def places(argument: Any) -> NDArray[np.intp]:
                nonlocal end
                shape = np.shape(value_of(argument))
                start, end = end, end + int(np.prod(shape))
                return np.arange(start, end).reshape(shape)

            moved, *how = self.arguments
            self._sources = np.asarray(self.compute((replaced(moved, places), *how)))
        return self._sources

    def inputs(self) -> list["Node"]:
        """Return the nodes among the arguments."""
        found: list[Node] = []
        for argument in self.arguments:
            if type(argument) is Node:
                found.append(argument)
            elif issubclass(type(argument), BRANCHED):
                found += [leaf for leaf in leaves(argument) if type(leaf) is Node]
        return found


def value_of(argument: Any) -> Any:
    """Return what a node computed; any other argument as it is."""
    return argument.value if type(argument) is Node else argument


BRANCHED = tuple, list
"""What is nested; told by types, for a stand-in that is asked for its class takes its time."""


def leaves(tree: Any) -> list[Any]:
    """Return what is in nested tuples and lists."""
    if not issubclass(type(tree), BRANCHED):
        return [tree]
    result: list[Any] = []
    for branch in tree:
        if issubclass(type(branch), BRANCHED):
            result += leaves(branch)
        else:
            result.append(branch)
    return result


def replaced(tree: Any, replace: Callable[[Any], Any]) -> Any:
    """Return nested tuples and lists with every leaf replaced."""
    if not issubclass(type(tree), BRANCHED):
        return replace(tree)
    branches = [
        replaced(branch, replace) if issubclass(type(branch), BRANCHED) else replace(branch)
        for branch in tree
    ]
    return tuple(branches) if issubclass(type(tree), tuple) else branches


def between(nodes: list[Node], root: Node, target: Node) -> list[Node]:
    """Return the nodes after the root, in order, that the target is computed from."""
    after = {root}
    inputs = {node: node.inputs() for node in nodes}
    for node, leaves_of_node in inputs.items():
        if not after.isdisjoint(leaves_of_node):
            after.add(node)
    needed = {target}
    for node in reversed(nodes):
        if node in needed:
            needed.update(inputs[node])
    return [node for node in nodes if node in after and node in needed and node is not root]


def without_repeats(nodes: list[Node], output: Node) -> tuple[list[Node], Node]:
    """Return the nodes without copies, and repetitions of earlier operations on the same arrays."""
    kept: dict[Any, Node] = {}
    same: dict[Node, Node] = {}
    for node in nodes:
        if node.function is None:  # one of the arrays at the beginning
            kept[node] = same[node] = node
            continue
        node.arguments = replaced(
            node.arguments, lambda leaf: same.get(leaf, leaf) if type(leaf) is Node else leaf
        )
        source = node.arguments[0] if node.function in SHAPING else None
        if type(source) is Node and source.shape == node.shape:
            same[node] = source
            continue
        shape = repr(replaced(node.arguments, lambda _: 0))
        every = [*leaves(node.arguments), *leaves(list(node.keywords.values()))]
        key = (node.function, shape, *node.keywords, *map(_identity, every))
        same[node] = kept.setdefault(key, node)
    return list(kept.values()), same[output]


@np.errstate(invalid="ignore")  # of signalling nans, as np.empty may find them in memory
def merge_moves(nodes: list[Node]) -> None:
    """Let moves that put parts of one array together take them from there, in one move each.

    As in the book's im2col: a window's elements are slices of a padded array, put into zeros; then
    axes are permuted, and the shape changes.
    """
    moves = {node for node in nodes if node.kind == MOVE}
    joining = {node for node in moves if len(leaves(node.arguments[0])) > 1}
    wanted = set(joining)
    for node in reversed(nodes):
        if node in wanted:
            wanted.update(leaf for leaf in node.inputs() if leaf in moves)
    origins: dict[Node, tuple[Node, NDArray[np.intp]]] = {}
    for node in nodes:
        if node not in moves:
            continue
        is_after = any(leaf.function is gathered for leaf in node.inputs())
        if not (is_after or node in wanted):
            continue
        origin = _origin(node, origins)
        if origin is None:
            continue
        origins[node] = origin
        if is_after or node in joining:
            node.function, node.arguments, node.keywords = gathered, origin, {}


def _origin(
    node: Node, origins: dict[Node, tuple[Node, NDArray[np.intp]]]
) -> tuple[Node, NDArray[np.intp]] | None:
    """Return the array, and the places in it, that a move takes all elements from, but for zeros.

    Moves before it are in origins. None if there are several arrays.
    """
    found: set[Node] = set()
    others: list[Any] = []

    def places(part: Any) -> NDArray[np.intp]:
        if not (type(part) is Node and part.depends):
            others.append(value_of(part))
            return np.zeros(np.shape(others[-1]), np.intp)
        source, of_source = origins.get(part, (part, None))
        found.add(source)
        if of_source is None:
            of_source = np.arange(1, part.value.size + 1)
        return of_source.reshape(part.shape)

    parts, *how = replaced(node.arguments[0], places), *node.arguments[1:]
    if len(found) != 1 or any(np.any(other) for other in others):
        return None
    source = found.pop()
    if source.value.dtype != node.value.dtype or np.ndim(source.value) == 0:
        return None
    # Places are moved as the elements are: this takes less time than to number these first.
    return source, np.ascontiguousarray(node.compute((parts, *how)))


def picks_first(nodes: list[Node]) -> list[Node]:
    """Return nodes in which elements are picked before they are computed with, not afterwards.

    As the probability of each row's own class is, of all that a softmax gives.
    """
    readers = Counter(leaf for node in nodes for leaf in node.inputs())
    result: list[Node] = []
    dropped: set[Node] = set()
    waiting = [*nodes]
    while waiting:
        node = waiting.pop()
        if node in dropped:
            continue
        result.append(node)
        source = node.arguments[0] if node.kind == MOVE else None
        if type(source) is Node and readers[source] == 1 and _is_picked(source, node):
            places, shape = node.sources - 1, source.shape
            picked = {leaf: _gathered(leaf, shape, places) for leaf in source.inputs()}
            for leaf in picked:
                readers[leaf] -= source.inputs().count(leaf) - 1
            waiting += picked.values()
            dropped.add(source)
            node.replace(
                source.function,
                tuple(
                    picked[a] if type(a) is Node else _picked(a, shape, places)
                    for a in source.arguments
                ),
            )
    return result[::-1]


def _is_picked(source: Node, node: Node) -> bool:
    """Say whether a move has no more than some elements of an elementwise operation's."""
    is_elementwise = source.kind == ELEMENTWISE and not source.keywords
    is_smaller = is_elementwise and MIN_PICK_GAIN * node.value.size <= source.value.size
    return is_smaller and bool(node.sources.all())


def _gathered(leaf: Node, shape: tuple[int, ...], places: NDArray[np.intp]) -> Node:
    """Return what picks from an array what would be at places if it were broadcast to a shape."""
    numbers = np.arange(1, leaf.value.size + 1).reshape(leaf.shape)
    sources = _picked(numbers, shape, places)
    return Node(gathered, (leaf, sources), {}, leaf.value.reshape(-1)[sources - 1], leaf.depends)


def _picked(array: Any, shape: tuple[int, ...], places: NDArray[np.intp]) -> Any:
    """Return some elements of an array that is broadcast to a shape."""
    return np.broadcast_to(array, shape).reshape(-1)[places] if np.ndim(array) else array


def is_same(a: Node, b: Node) -> bool:
    """Say whether two nodes are one, or the same operation on the same arrays and numbers."""
    if a is b:
        return True
    pairs = zip(a.arguments, b.arguments, strict=False)
    return (
        (a.function, a.keywords, len(a.arguments)) == (b.function, {}, len(b.arguments))
        and not b.keywords
        and all(
            is_same(one, other)
            if type(one) is type(other) is Node
            else _identity(one) == _identity(other)
            for one, other in pairs
        )
    )


def _identity(leaf: Any) -> Any:
    """Return what two arguments have in common only if they are the same."""
    return repr(leaf) if isinstance(leaf, (bool, int, float, str, slice, type(None))) else id(leaf)


# Kinds --------------------------------------------------------------------------------------------


ELEMENTWISE = "elementwise"  # an element of the result depends on one element of each argument

MOVE = "move"  # elements are copied to other places; what is new is zero

REDUCTION = "reduction"  # the first argument is reduced along axes

PRODUCT = "product"  # linear in each of two arguments

OTHER = "other"  # any pure function


def item(array: Any, index: Any) -> Any:
    """Return array[index]."""
    return array[index]


def gathered(array: Any, places: Any) -> Any:
    """Return an array's elements at places, counted from 1 in C order; 0 stands for a zero."""
    return np.concatenate([np.zeros(1, array.dtype), np.reshape(array, -1)])[places]


def selected(array: Any, mask: Any) -> Any:
    """Return the elements of an array that a mask selects, whose number may change with it."""
    return array[mask]


def assigned(array_and_values: Any, indices: Any) -> Any:
    """Return a copy of an array in which each index has been assigned its value, in turn."""
    array, *values = array_and_values
    result = array.copy()
    for index, value in zip(indices, values, strict=True):
        result[index] = value
    return result


def array_of(items: Any) -> Any:
    """Return an array of numbers and arrays in nested lists."""
    return np.array(items)


def converted(array: Any, dtype: Any) -> Any:
    """Return an array or a number in another dtype."""
    return array.astype(dtype)


def power(base: Any, exponent: Any) -> Any:
    """Return base**exponent of two numbers, which np.power may round otherwise."""
    return base**exponent


def _append(arr: Any, values: Any, axis: int | None = None) -> Any:
    """Return what np.append does."""
    if axis is None:
        return np.concatenate([np.ravel(arr), np.ravel(values)])
    return np.concatenate([np.reshape(each, np.shape(each)) for each in (arr, values)], axis)


def _insert(arr: Any, obj: Any, values: Any, axis: int | None = None) -> Any:
    """Return what np.insert does, of values that it does not round."""
    places = np.insert(_numbered(arr), obj, np.size(arr) + _numbered(values), axis)
    return np.concatenate([np.ravel(arr), np.ravel(values)])[places]


def _delete(arr: Any, obj: Any, axis: int | None = None) -> Any:
    """Return what np.delete does."""
    return np.ravel(arr)[np.delete(_numbered(arr), obj, axis)]


def _numbered(array: Any) -> NDArray[np.intp]:
    """Return the number of each element, in C order."""
    return np.arange(np.size(array)).reshape(np.shape(array))


BY_PLACES: dict[Callable[..., Any], Callable[..., Any]] = {
    np.append: _append,
    np.insert: _insert,
    np.delete: _delete,
}
"""Functions that are recorded as others, which join arrays and pick elements."""

REDUCTIONS: tuple[Callable[..., Any], ...] = (
    np.sum, np.mean, np.max, np.min, np.prod, np.argmax, np.argmin, np.any, np.all, np.var, np.std,
    np.amax, np.amin,
)  # fmt: skip

KINDS: dict[Callable[..., Any], str] = {
    **dict.fromkeys((np.where, np.clip, np.nan_to_num, np.round, np.around), ELEMENTWISE),
    **dict.fromkeys((converted, power), ELEMENTWISE),
    **dict.fromkeys(
        (
            item, assigned, gathered, array_of, np.copy, np.reshape, np.ravel, np.squeeze,
            np.expand_dims, np.transpose, np.swapaxes, np.moveaxis, np.rollaxis, np.broadcast_to,
            np.flip, np.fliplr, np.flipud, np.rot90, np.roll, np.repeat, np.tile, np.take, np.diag,
            np.diagonal, np.tril, np.triu, np.atleast_1d, np.atleast_2d, np.concatenate, np.stack,
            np.hstack, np.vstack, np.dstack, np.column_stack, np.pad,
            np.lib.stride_tricks.sliding_window_view,
        ),
        MOVE,
    ),
    **dict.fromkeys(REDUCTIONS, REDUCTION),
    **dict.fromkeys((np.matmul, np.dot, np.inner, np.einsum, np.tensordot), PRODUCT),
    **dict.fromkeys(
        (
            np.outer, np.vdot, np.trace, np.cumsum, np.cumprod, np.diff, np.sort, np.median,
            np.kron, np.linalg.norm, np.linalg.solve, np.linalg.inv, np.linalg.det, np.convolve,
            np.linalg.slogdet,
        ),
        OTHER,
    ),
}  # fmt: skip

OUT_POSITIONS: dict[Callable[..., Any], int] = {
    **dict.fromkeys((np.max, np.min, np.amax, np.amin, np.argmax, np.argmin, np.any, np.all), 3),
    **dict.fromkeys((np.dot, np.round, np.around, np.concatenate, np.stack, np.median), 3),
    **dict.fromkeys((np.sum, np.mean, np.prod, np.var, np.std, np.clip, np.take), 4),
    **dict.fromkeys((np.cumsum, np.cumprod), 4),
    np.outer: 3,
    np.trace: 6,
}
"""How many positional arguments there are if the last one is the array to write the result into."""

CREATORS_LIKE = frozenset({np.zeros_like, np.ones_like, np.empty_like, np.full_like})
"""Functions that create an array of the shape of another."""

SHAPE_FUNCTIONS = frozenset({np.shape, np.ndim, np.size, np.iscomplexobj, np.result_type})
"""Functions whose result does not depend on the values of the first argument."""

VIEWS = frozenset(
    {item, np.reshape, np.ravel, np.squeeze, np.expand_dims, np.transpose, np.swapaxes}
    | {np.lib.stride_tricks.sliding_window_view}
    | {np.moveaxis, np.rollaxis, np.flip, np.fliplr, np.flipud, np.atleast_1d, np.atleast_2d}
)
"""Functions whose result may be a view of the first argument."""

SHAPING = frozenset({np.copy, np.reshape, np.ravel})
"""Functions that give another shape at most: where it is the same, so are all elements."""


def clipped(array: Any, min: Any = None, max: Any = None, *out: Any, **keywords: Any) -> Any:
    """Return np.clip's result: as an array's method it may be given one limit alone."""
    return np.clip(array, min, max, *out, **keywords)


METHODS: dict[str, Callable[..., Any]] = {
    "clip": clipped,
    **{
        method.__name__: method
        for method in (
            np.all, np.any, np.argmax, np.argmin, np.cumprod, np.cumsum, np.diagonal, np.dot,
            np.max, np.mean, np.min, np.prod, np.ravel, np.repeat, np.round, np.squeeze, np.std,
            np.sum, np.swapaxes, np.take, np.trace, np.var,
        )
    },
}  # fmt: skip
"""An array's methods, as functions of the array."""


def kind_of(function: Callable[..., Any] | None, arguments: tuple[Any, ...], keywords: Any) -> str:
    """Return the kind of a recorded operation."""
    if isinstance(function, np.ufunc):
        if function.signature is not None:
            return PRODUCT if function is np.matmul and not keywords else OTHER
        listed = any(isinstance(a, (list, tuple)) for a in arguments)
        return OTHER if keywords or listed else ELEMENTWISE
    kind = KINDS.get(function, OTHER) if function is not None else OTHER
    if kind == ELEMENTWISE and any(isinstance(a, (list, tuple)) for a in arguments):
        return OTHER
    if kind == REDUCTION and (len(arguments) > 2 or set(keywords) - {"axis", "keepdims", "ddof"}):
        return OTHER
    if kind == PRODUCT and keywords:
        return OTHER
    if kind == MOVE and function is np.pad and not _pads_with_zeros(arguments, keywords):
        return OTHER
    return kind


def _pads_with_zeros(arguments: tuple[Any, ...], keywords: Any) -> bool:
    """Say whether `np.pad` puts zeros around an array."""
    mode = arguments[2] if len(arguments) > 2 else keywords.get("mode", "constant")
    return mode == "constant" and not np.any(keywords.get("constant_values", 0))


def positional(
    arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return arguments with the array, if it was given by keyword, in the first place."""
    for name in ("a", "x", "arr", "array"):
        if not arguments and name in keywords:
            keywords = dict(keywords)
            return (keywords.pop(name),), keywords
    return arguments, keywords


# Subscripts of products ---------------------------------------------------------------------------


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
