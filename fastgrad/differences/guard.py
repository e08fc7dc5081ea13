"""The guard of x: it is copied before f is called, and bit for bit as it was afterwards.

x is moved in place, so that f may read it elsewhere. What f itself writes into it would spoil the
difference quotients, and the user's array: it is noticed, and refused.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.trees import is_structure, leaves
from fastgrad.differences.turns import turn
from fastgrad.differences.validation import element_at
from fastgrad.typing import Array

SHORT = 1 << 15
"""Bytes of an array up to which its bytes are compared as a Python object, which is faster."""

INTEGERS: dict[int, Any] = {4: np.int32, 8: np.int64}
"""Types of as many bytes, whose numbers are the same where the bits are."""


@contextmanager
def guarded(f: Any, x: Any, args: Any = ()) -> Iterator["Guard"]:
    """Keep x as it is, whatever f does during the block; threads that share arrays take turns.

    Parameters
    ----------
    f : callable
        What is called during the block, or the net whose loss is.
    x : array or structure
        What is moved. Anything else is let pass, for those who refuse it.
    args : tuple
        Further arguments of f.

    Raises
    ------
    ValueError
        At the end of the block, if f has changed x and nothing else has been raised.
    """
    guard = Guard(x)
    with turn(guard.arrays, (f, x, args)):
        guard.copy()
        try:
            yield guard
            guard.check()
        finally:
            guard.put_back()


class Guard:
    """What x is made of, and copies of that.

    Attributes
    ----------
    arrays : list of arrays
        Those in x that can be moved.
    """

    def __init__(self, x: Any) -> None:
        self._x = x
        self._has_parts = is_structure(x)
        named = [*leaves(x)] if self._has_parts else [("x", x)]
        movable = [(name, array) for name, array in named if _is_movable(array)]
        self.arrays: list[Array] = [array for _, array in movable]
        self._names = [name for name, _ in movable]
        self._originals: list[Original] = []
        self._containers: list[tuple[Any, Any]] = []

    def copy(self) -> None:
        """Take x as it is now for what it is to be in the end."""
        self._originals = [Original(array) for array in self.arrays]
        if self._has_parts:
            self._containers = [*_containers(self._x)]

    def check(self) -> None:
        """Refuse an f that has changed x."""
        for name, original in zip(self._names, self._originals, strict=True):
            original.require(name)
        for container, before in self._containers:
            if not _is_as_before(container, before):
                raise ValueError(
                    f"f changes x: it puts other things into a {type(container).__name__} in it, "
                    "which would not be moved; x is as it was again. Let f compute with a copy of "
                    "its own, as in lambda x: f(copy.copy(x))"
                )

    def put_back(self) -> None:
        """Put everything back, bit for bit."""
        for original in self._originals:
            original.put_back()
        for container, before in self._containers:
            if not _is_as_before(container, before):
                container.clear()
                (container.update if isinstance(container, dict) else container.extend)(before)


class Original:
    """What an array is now, to be compared with what it is later.

    Attributes
    ----------
    plain : array
        The array itself, as a plain one: a subclass could give another meaning to indexing, or
        interrupt a restoration.
    copy : array
        What is in it now.
    is_masked : bool
        Whether it is a masked array, which has a mask as well.
    """

    def __init__(self, array: Any) -> None:
        self._array = array
        self.plain = array.view(np.ndarray)
        self.copy = self.plain.copy(order="K")
        self.is_masked = isinstance(array, np.ma.MaskedArray)
        self._mask: Any = np.ma.getmaskarray(array).copy() if self.is_masked else None

    def require(self, name: str = "x") -> None:
        """Refuse an f that has changed the array."""
        require_unchanged(self.plain, self.copy, name)
        if self._array.shape != self.plain.shape:
            raise ValueError(
                f"f changes x: it gives {name} the shape {self._array.shape}, which was "
                f"{self.plain.shape}; x is as it was again. Let f compute with another array, as "
                "x.reshape(-1), instead of assigning to x.shape"
            )
        if self.is_masked and self._is_masked_anew():
            raise ValueError(
                f"f changes x: it masks elements of {name}, or takes away their masks; x is as it "
                "was again. Let f compute with a copy, as in lambda x: f(x.copy())"
            )

    def put_back(self) -> None:
        """Let the array be what it was, bit for bit."""
        self.plain[...] = self.copy  # one assignment, which no interrupt can divide
        array = self._array
        if array.shape != self.plain.shape:
            array.shape = self.plain.shape
        if not array.flags.writeable:
            array.flags.writeable = True
        if self.is_masked and self._is_masked_anew():
            array.mask = self._mask

    def _is_masked_anew(self) -> bool:
        return not np.array_equal(np.ma.getmaskarray(self._array), self._mask)


def _is_movable(thing: Any) -> bool:
    return isinstance(thing, np.ndarray) and thing.dtype.kind == "f" and thing.flags.writeable


def _containers(x: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over the dicts and lists in x that could get other items, and what is in them."""
    if isinstance(x, (dict, list)):
        yield x, ({**x} if isinstance(x, dict) else [*x])
    if is_structure(x):
        for part in x.values() if isinstance(x, dict) else x:
            yield from _containers(part)


def _is_as_before(container: Any, before: Any) -> bool:
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        items = zip(container.items(), before.items(), strict=True)
        return all(k is key and v is value for (k, v), (key, value) in items)
    return all(item is other for item, other in zip(container, before, strict=True))


def is_unchanged(now: Array, before: Array) -> bool:
    """Say whether an array has the bits that it had before; a nan is a nan, whatever its bits."""
    if now.nbytes <= SHORT:
        if now.tobytes() == before.tobytes():
            return True
    else:
        kind = INTEGERS.get(now.dtype.itemsize)
        if kind is not None and np.array_equal(now.view(kind), before.view(kind)):
            return True
    return not _changed(now, before).any()


def require_unchanged(now: Array, before: Array, name: str = "x") -> None:
    """Refuse an f that has changed an array; before is what it was."""
    if is_unchanged(now, before):
        return
    first = int(np.argmax(_changed(now, before)))
    where = element_at(name, first, now.shape)
    raise ValueError(
        f"f changes x: it has written {now.flat[first]} into {where}, which was "
        f"{before.flat[first]}, so that the differences would be wrong; x is as it was again. Let "
        "f compute with a copy, as in lambda x: f(x.copy()), or write w = w - m where it says "
        "w -= m"
    )


def _changed(now: Array, before: Array) -> NDArray[np.bool_]:
    """Return which elements differ."""
    if now.dtype.kind == "c":
        return _changed(now.real, before.real) | _changed(now.imag, before.imag)
    same = (now == before) & (np.signbit(now) == np.signbit(before))
    result: NDArray[np.bool_] = ~(same | (np.isnan(now) & np.isnan(before)))
    return result
