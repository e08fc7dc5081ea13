"""Structures: dicts, lists and tuples of arrays, such as a network's parameters."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastgrad.typing import Array, Structure


def leaves(structure: object, name: str = "x") -> Iterator[tuple[str, Any]]:
    """Iterate over what is in a structure, each with its name, as ``x['W1']``.

    Examples
    --------
    >>> list(leaves({"a": 1, "b": [2, 3]}))
    [("x['a']", 1), ("x['b'][0]", 2), ("x['b'][1]", 3)]
    """
    if isinstance(structure, dict):
        for key, part in structure.items():
            yield from leaves(part, f"{name}[{key!r}]")
    elif isinstance(structure, (list, tuple)):
        for index, part in enumerate(structure):
            yield from leaves(part, f"{name}[{index}]")
    else:
        yield name, users_array(structure)


def users_array(x: Any) -> Any:
    """Return the array for which x stands in; anything else as it is.

    While another thread records a function, arrays in dicts and attributes that both can reach are
    replaced by stand-ins (`fastgrad.tracing.stand_in`).
    """
    seen = getattr(type(x), "seen_by_gradient", None)
    return x if seen is None else seen(x)


def like(structure: Structure, items: Iterator[Any]) -> Structure:
    """Return a structure of the same form with these leaves.

    Subclasses of dict and list become plain ones; named tuples stay what they are.

    Examples
    --------
    >>> like({"a": 1, "b": (2, 3)}, iter("xyz"))
    {'a': 'x', 'b': ('y', 'z')}
    """
    result: Any
    if isinstance(structure, dict):
        result = {key: like(part, items) for key, part in structure.items()}
    elif isinstance(structure, (list, tuple)):
        result = [like(part, items) for part in structure]
        if isinstance(structure, tuple):
            is_named = hasattr(structure, "_fields")
            result = type(structure)(*result) if is_named else tuple(result)
    else:
        result = next(items)
    return result  # type: ignore[no-any-return]


def is_structure(x: object) -> bool:
    """Say whether x is a dict, list or tuple."""
    return isinstance(x, (dict, list, tuple))


def require_separate(arrays: Iterable[tuple[str, Array]]) -> None:
    """Refuse arrays that share elements: what moves in one of them would move in the other, too."""
    extents = [(*byte_bounds(array), name, array) for name, array in arrays if array.size]
    reached: list[tuple[int, str, Array]] = []
    for start, end, name, array in sorted(extents, key=lambda extent: extent[0]):
        reached = [before for before in reached if before[0] > start]
        for _, other_name, other in reached:
            if np.shares_memory(array, other):
                raise ValueError(
                    f"{other_name} and {name} share memory, so that neither can be moved alone; "
                    "pass the array once, or a copy in one of the places"
                )
        reached.append((end, name, array))


class Call:
    """A function with its further arguments, and the structure in which one array is moved.

    Attributes
    ----------
    f : callable
        What is called: ``f(x, *args)``.
    args : list
        The further arguments.
    whole : structure or None
        What f is given as x instead of the array that is moved, which is one of its leaves.
    moved : array or None
        That leaf.
    """

    def __init__(
        self, f: Callable[..., Any], args: tuple[Any, ...], whole: Any, moved: Any
    ) -> None:
        self.f = f
        self.args = [*args]
        self.whole = whole
        self.moved = moved

    def __call__(self, x: Any) -> Any:
        """Return ``f(x, *args)``; another array than the leaf takes the leaf's place."""
        return self.f(self.given(x), *self.args)

    def given(self, x: Any) -> Any:
        """Return what f is given as x: the structure with this array in it."""
        if self.whole is None:
            return x
        if x is self.moved:
            return self.whole
        return like(
            self.whole, (x if part is self.moved else part for _, part in leaves(self.whole))
        )
