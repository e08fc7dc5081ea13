"""Arrays that do not depend on x, kept as they were when an operation used them.

A function may fill the same buffer again and again. What an operation was given is therefore
compared with what the same array held before, and copied if that has changed. Of a large array the
checksum is noted instead, and looked at again in the end.
"""

import zlib
from weakref import ref

import numpy as np

from fastgrad.typing import Array

MIN_LARGE_BYTES = 2**20
"""Bytes of an array from which on it is not copied, which would take as long as using it."""


class Constants:
    """The constants of one recording.

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

        Of a large one itself is returned: `unchanged` says in the end whether it is still the same.
        """
        if array.nbytes >= MIN_LARGE_BYTES:
            if id(array) not in self._large:  # which keeps the array, and so its id
                self._large[id(array)] = array, array.view(), _checksum(array)
            return self._large[id(array)][1]
        if id(array) in self._copies:
            reference, copied = self._copies[id(array)]
            if reference() is array and _are_same(array, copied):
                return copied
        copied = array.copy("K")
        self._copies[id(array)] = ref(array), copied
        self.bytes += copied.nbytes
        return copied

    def are_unchanged(self) -> bool:
        """Say whether all large arrays hold what they held."""
        return all(_checksum(view) == checksum for _, view, checksum in self._large.values())


def _are_same(array: Array, copied: Array) -> bool:
    """Say whether two arrays are the same bit for bit."""
    if (array.shape, array.dtype) != (copied.shape, copied.dtype):
        return False
    if array.itemsize not in (1, 2, 4, 8):
        return array.tobytes() == copied.tobytes()
    bits = f"u{array.itemsize}"
    return bool((array.view(bits) == copied.view(bits)).all())


def _checksum(array: Array) -> int:
    """Return a number that changes if an element does."""
    in_order = array if array.flags.c_contiguous else array.T
    return zlib.crc32(np.ascontiguousarray(in_order).data)  # which copies slices only
