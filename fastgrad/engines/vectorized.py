"""The engine for functions that take many points at once, on stacks of moved copies of x."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.validation import as_returned
from fastgrad.typing import Array

MEMORY = 2**20
"""Bytes that a stack of points takes at most; a single point may take more. What fits a processor's
cache is evaluated faster than what does not."""


def values(
    f: Callable[[Array], Any],
    x: Array,
    places: NDArray[np.intp],
    points: Array,
    shape: tuple[int, ...] = (),
) -> Array:
    """Return f at each point to which an element of x is moved.

    Parameters
    ----------
    f : callable
        ``f(stack)``, where stack is an array ``(m, *x.shape)`` of its own, in C order and x's
        dtype, that f may change; returns an array ``(m, *shape)``. It is called as often as it
        takes for stacks of at most `MEMORY` bytes.
    x : array
        Never touched.
    places : array (n,)
        The elements that are moved, as indices into x in C order.
    points : array (n, m)
        The values that are put there; of x's dtype.
    shape : tuple of int
        The shape of what f returns for a point.

    Returns
    -------
    array (n, m, *shape)
        In the type that f returns; integers as Python's, which never wrap.

    Raises
    ------
    TypeError, ValueError
        If f returns anything but real numbers (complex ones for a complex x) in that shape. What f
        raises passes unchanged.

    Examples
    --------
    >>> x = np.array([1.0, 2.0])
    >>> values(lambda stack: stack.sum(axis=1), x, np.array([1]), np.array([[2.5, 1.5]]))
    array([[3.5, 2.5]])
    """
    moved, targets = np.repeat(places, points.shape[1]), points.reshape(-1)
    flat = x.view(np.ndarray).reshape(-1)
    rows = max(1, MEMORY // max(flat.nbytes, 1))
    results = []
    for start in range(0, len(targets), rows):
        block = slice(start, start + rows)
        count = len(targets[block])
        stack = np.empty((count, flat.size), x.dtype)  # anew: f may have changed the last one
        stack[:] = flat
        stack[np.arange(count), moved[block]] = targets[block]
        results.append(_checked(f(stack.reshape(count, *x.shape)), (count, *shape), x))
    collected = np.concatenate(results) if results else np.empty((0, *shape))
    return collected.reshape(*points.shape, *shape)


def _checked(returned: Any, shape: tuple[int, ...], x: Array) -> Array:
    """Return a copy of what f returned, in numbers that never wrap."""
    result = as_returned(returned)
    if result.shape != shape:
        raise ValueError(
            f"f returned an array of shape {result.shape} for a stack of shape "
            f"{(shape[0], *x.shape)}, but with vectorized=True it returns one of shape {shape}, a "
            "value for each point; reduce all axes but the first, or leave out vectorized"
        )
    kinds = "c" if x.dtype.kind == "c" else "fiu"
    if result.dtype.kind not in kinds:
        wanted = "complex numbers for a complex x" if kinds == "c" else "real numbers"
        raise TypeError(
            f"f returned an array of dtype {result.dtype}, but it must return {wanted}; "
            "check what f ends with"
        )
    return result.astype(object) if result.dtype.kind in "iu" else result
