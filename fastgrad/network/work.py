"""Where do intermediate results go? Into arrays that are kept from call to call."""

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class WorkArrays:
    """Arrays by name, made anew only when their shape changes."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """Return the array of that name: zeros when new, afterwards as the last call left it."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = np.zeros(shape, dtype)
        return array
