"""The memory of arrays: elements that they share, copies of them, and whether they change."""

import zlib
from typing import Any
from weakref import ref

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fastgrad.typing import Array

MIN_LARGE_BYTES = 2**20
"""Bytes of an array from which on it is not copied, which would take as long as using it."""


def owner_of(array: NDArray[Any]) -> int:
    """Return what all arrays in the same memory have in common."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return id(array)


def share(a: NDArray[Any], b: NDArray[Any], max_work: int = 1000) -> bool:
    """Say whether two arrays have elements in the same place, or whether that is hard to say.

    How hard is told by max_work, as `numpy.shares_memory` takes it.
    """
    if not np.may_share_memory(a, b):
        return False
    try:
        return bool(np.shares_memory(a, b, max_work))  # type: ignore[arg-type]  # so the stubs
    except np.exceptions.TooHardError:
        return True


def copy_like(pattern: NDArray[Any], values: Any) -> NDArray[Any]:
    """Return a copy of values that lies in memory as another array does."""
    if pattern.flags.c_contiguous or pattern.flags.f_contiguous or not pattern.size:
        result = np.empty_like(pattern)
    else:
        steps = [(n - 1) * step for n, step in zip(pattern.shape, pattern.strides, strict=True)]
        before = -sum(step for step in steps if step < 0)
        memory = np.empty(sum(map(abs, steps)) + pattern.itemsize, np.uint8)
        first = memory[before : before + pattern.itemsize].view(pattern.dtype)
        result = as_strided(first, pattern.shape, pattern.strides)
    result[...] = values
    return result


def may_share_elements(x: NDArray[Any]) -> bool:
    """Say whether some elements of an array have the same place in memory, as in a broadcast one.

    Examples
    --------
    >>> may_share_elements(np.broadcast_to(np.ones(3), (2, 3)))
    True
    """
    if x.flags.forc or not x.size:
        return False
    extent = x.dtype.itemsize
    axes = [(abs(stride), n) for stride, n in zip(x.strides, x.shape, strict=True) if n > 1]
    for stride, length in sorted(axes):
        if stride < extent:  # axes are interleaved: look at each element
            start = np.zeros(1, dtype=np.int64)
            for step, n in axes:
                start = np.add.outer(np.arange(n) * step, start).reshape(-1)
            places = np.sort(start)
            return bool((np.diff(places) < x.dtype.itemsize).any())
        extent += stride * (length - 1)
    return False


class Constants:
    """Arrays that do not depend on x, kept as they were when an operation used them.

    A function may fill the same buffer again and again. What an operation was given is therefore
    compared with what the same array held before, and copied if that has changed. Of a large array
    the checksum is noted instead, and looked at again in the end.

    Attributes
    ----------
    bytes : int
        How much memory the copies take.
    """

    def __init__(self) -> None:
        self.bytes = 0
        self._copies: dict[int, tuple[ref[Array], Array]] = {}
        self._large: dict[int, tuple[Array, Array, int]] = {}

    def keep(self, array: Array) -> Array:
        """Return what an array holds now, as an array that will not change.

        Of a large one itself is returned; `are_unchanged` says in the end whether it is the same.
        """
        if array.nbytes >= MIN_LARGE_BYTES:
            if id(array) not in self._large:  # which keeps the array, and so its id
                self._large[id(array)] = array, array.view(), _checksum(array)
            return self._large[id(array)][1]
        if id(array) in self._copies:
            reference, copied = self._copies[id(array)]
            is_alike = (array.shape, array.dtype) == (copied.shape, copied.dtype)
            if reference() is array and is_alike and array.tobytes() == copied.tobytes():
                return copied
        copied = array.copy("K")
        self._copies[id(array)] = ref(array), copied
        self.bytes += copied.nbytes
        return copied

    def are_unchanged(self) -> bool:
        """Say whether all large arrays hold what they held."""
        return all(_checksum(view) == checksum for _, view, checksum in self._large.values())


def _checksum(array: Array) -> int:
    """Return a number that changes if an element does."""
    in_order = array if array.flags.c_contiguous else array.T
    return zlib.crc32(np.ascontiguousarray(in_order).data)  # which copies slices only
