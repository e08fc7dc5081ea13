"""Arrays for intermediate results, kept from call to call."""

import math
from collections.abc import Hashable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Workspace:
    """Arrays by name, made anew only when their shape changes."""

    def __init__(self) -> None:
        self._arrays: dict[Hashable, NDArray[Any]] = {}

    def get(
        self, name: Hashable, shape: tuple[int, ...], dtype: DTypeLike = np.float64
    ) -> NDArray[Any]:
        """Return the array of that name: zeros when new, afterwards as the last call left it."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = _aligned_zeros(shape, np.dtype(dtype))
        return array


def _aligned_zeros(shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return zeros that start at a multiple of 64 bytes, so that no vector spans two lines."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.zeros(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)
