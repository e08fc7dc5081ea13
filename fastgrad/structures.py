"""What may x be? An array, or dicts, lists and tuples of arrays, such as a network's parameters."""

from collections.abc import Callable, Iterator
from typing import Any

Structure = Any
"""An array, or a dict, list or tuple of structures."""


def leaves(structure: Structure, name: str = "x") -> Iterator[tuple[str, Any]]:
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
        yield name, structure


def like(structure: Structure, items: Iterator[Any]) -> Structure:
    """Return a structure of the same form with these leaves.

    Subclasses of dict and list become plain ones; named tuples stay what they are.

    Examples
    --------
    >>> like({"a": 1, "b": (2, 3)}, iter("xyz"))
    {'a': 'x', 'b': ('y', 'z')}
    """
    if isinstance(structure, dict):
        return {key: like(part, items) for key, part in structure.items()}
    if isinstance(structure, (list, tuple)):
        parts = [like(part, items) for part in structure]
        if isinstance(structure, list):
            return parts
        return type(structure)(*parts) if hasattr(structure, "_fields") else tuple(parts)
    return next(items)


def is_structure(x: object) -> bool:
    """Say whether x is a dict, list or tuple."""
    return isinstance(x, (dict, list, tuple))


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
    """

    def __init__(self, f: Callable[..., Any], args: tuple[Any, ...], whole: Structure) -> None:
        self.f = f
        self.args = [*args]
        self.whole = whole

    def __call__(self, x: Any) -> Any:
        """Return ``f(x, *args)``."""
        return self.f(x if self.whole is None else self.whole, *self.args)
