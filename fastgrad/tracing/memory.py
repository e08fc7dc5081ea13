"""The memory of arrays: elements that they share, and copies with the same layout."""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray


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
