"""Nodes: recorded operations, with their arguments and the values that they computed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np


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
    """

    function: Callable[..., Any] | None
    arguments: tuple[Any, ...]
    keywords: dict[str, Any]
    value: Any
    depends: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's shape."""
        return np.shape(self.value)

    @property
    def operation(self) -> tuple[Callable[..., Any] | None, tuple[Any, ...], dict[str, Any]]:
        """The function, its arguments and its keywords."""
        return self.function, self.arguments, self.keywords

    def compute(self, arguments: Any) -> Any:
        """Apply the operation to other arguments."""
        assert self.function is not None
        return self.function(*arguments, **self.keywords)

    def inputs(self) -> Iterator["Node"]:
        """Return the nodes among the arguments."""
        return (leaf for leaf in leaves(self.arguments) if type(leaf) is Node)


def value_of(argument: Any) -> Any:
    """Return what a node computed; any other argument as it is."""
    return argument.value if type(argument) is Node else argument


def leaves(tree: Any) -> Iterator[Any]:
    """Iterate over what is in nested tuples and lists."""
    if isinstance(tree, (tuple, list)):
        for branch in tree:
            yield from leaves(branch)
    else:
        yield tree


def replaced(tree: Any, replace: Callable[[Any], Any]) -> Any:
    """Return nested tuples and lists with every leaf replaced."""
    if isinstance(tree, tuple):
        return tuple(replaced(branch, replace) for branch in tree)
    if isinstance(tree, list):
        return [replaced(branch, replace) for branch in tree]
    return replace(tree)


def between(nodes: list[Node], root: Node, target: Node) -> list[Node]:
    """Return the nodes after the root, in order, that the target is computed from."""
    after = {root}
    for node in nodes:
        if any(leaf in after for leaf in node.inputs()):
            after.add(node)
    needed = {target}
    for node in reversed(nodes):
        if node in needed:
            needed.update(node.inputs())
    return [node for node in nodes if node in after and node in needed and node is not root]


def without_repeats(nodes: list[Node], output: Node) -> tuple[list[Node], Node]:
    """Return the nodes without operations that repeat earlier ones on the same arrays."""
    kept: dict[Any, Node] = {}
    same: dict[Node, Node] = {}
    for node in nodes:
        node.arguments = replaced(
            node.arguments, lambda leaf: same.get(leaf, leaf) if type(leaf) is Node else leaf
        )
        shape = repr(replaced(node.arguments, lambda _: 0))
        every = (*leaves(node.arguments), *leaves(list(node.keywords.values())))
        key = (node.function, shape, *node.keywords, *map(_identity, every))
        same[node] = kept.setdefault(key, node)
    return list(kept.values()), same[output]


def _identity(leaf: Any) -> Any:
    """Return what two arguments have in common only if they are the same."""
    return repr(leaf) if isinstance(leaf, (bool, int, float, str, slice, type(None))) else id(leaf)
