"""How is any Python function differenced? One coordinate at a time, in place, as in the book."""

import math
from collections.abc import Callable, Iterable
from numbers import Real
from typing import Any, TypeVar

import numpy as np

Array = TypeVar("Array", bound=np.ndarray[Any, np.dtype[np.floating[Any]]])

SCALARS = frozenset({float, int, np.float64, np.float32, np.longdouble})
"""Types that are subtracted as they are; values of any other type are looked at first."""


def gradient(
    f: Callable[[Array], Any], x: Array, h: float, places: Iterable[int] | None = None
) -> Array:
    """Return ``(f(x + h e_i) - f(x - h e_i)) / (2 h)`` for every element i of x.

    Bit-identical with the book's loop (`fastgrad.reference.numerical_gradient`) for float32 and
    float64 in any memory layout: f is called twice for each element, raised first, in memory
    order, and never at x itself. The differences: f may return arrays of one element, and x is
    whole again whatever happens.

    Parameters
    ----------
    f : callable
        ``f(x) -> number``. It is called with x itself, so it may as well read x elsewhere.
    x : ndarray of float32, float64 or longdouble
        Writable. Perturbed in place; bit-identical afterwards, even if f raises or the user
        interrupts.
    h : float
        The step, large enough to change every element of x.
    places : iterable of int, optional
        The elements wanted, as indices into x in C order; the others' quotients stay 0. Without it
        all elements, in memory order.

    Returns
    -------
    ndarray like x
        Layout, dtype and subclass as `numpy.zeros_like` gives them. The quotient is computed in
        the type that f returns.

    Raises
    ------
    TypeError, ValueError
        If f does not return a real number. What f itself raises passes unchanged.
    """
    result: Array = np.zeros_like(x)
    # Plain views: a subclass could give another meaning to indexing, or interrupt a restoration.
    points, quotients = x.view(np.ndarray).flat, result.view(np.ndarray).flat
    # As the book has it, except that float() would round a longdouble.
    widen = float if x.dtype.itemsize <= 8 else x.dtype.type
    width = 2 * h
    for i in _memory_order(x) if places is None else places:
        old = points[i]
        try:
            points[i] = widen(old) + h
            above = f(x)
            if type(above) not in SCALARS:
                above = _real_number(above)
            points[i] = old - h
            below = f(x)
            if type(below) not in SCALARS:
                below = _real_number(below)
        finally:
            points[i] = old
        # Equal values leave the zero that is there. Infinite ones are not subtracted, because
        # NumPy would then warn at each of them, and numerical_gradient does so once for all.
        if above != below:
            quotients[i] = (above - below) / width
        elif abs(above) == math.inf:
            quotients[i] = math.nan
    return result


def _memory_order(x: np.ndarray[Any, Any]) -> Iterable[int]:
    """Return the flat (C-order) indices of x in the order in which np.nditer visits them."""
    if x.flags.c_contiguous:
        return range(x.size)
    visits = np.nditer(x, flags=["c_index"])
    return [visits.index for _ in visits]


def _real_number(value: Any) -> Any:
    """Return what f returned as a scalar that can be subtracted.

    Arrays of one element are read at once, for f may return the same array every time.
    """
    number = value
    if not isinstance(value, Real):
        array = np.asarray(value)
        if array.size != 1:
            raise ValueError(
                f"f returned an array of shape {array.shape}, but it must return a single number; "
                "reduce the array, for instance by .sum() or .mean()"
            )
        number = array.reshape(())[()]
    # NumPy's integers wrap around when they are subtracted.
    if isinstance(number, np.integer):
        return int(number)
    if isinstance(number, Real):
        return number
    raise TypeError(
        f"f returned {value!r} of type {type(value).__name__}, but it must return a real number; "
        "check what f ends with"
    )
