"""Difference quotients from values of f at moved points, element by element."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from fastgrad.interrupts import raise_interrupt
from fastgrad.schemes import Scheme
from fastgrad.typing import Array, Places, Values

BLOCK_DERIVATIVES = 1 << 16
"""Derivatives whose values of f are held in memory at a time."""

MAX_ELEMENTS_AT_ONCE = 64
"""Elements whose points are computed at once; those of more take longer so than offset by offset.
"""


def fill(
    result: Array,
    values: Values,
    f: Callable[[Any], Any],
    x: Array,
    places: Places,
    steps: Any,
    scheme: Scheme,
    shape: tuple[int, ...] = (),
) -> None:
    """Write the derivatives of f into ``result``, of one element of x after the other.

    As `derivatives` returns them, only for a block of elements after the other. Elements at other
    places stay as they are.
    """
    elements: Any = result.view(np.ndarray)
    elements = elements.reshape(-1, *shape) if elements.flags.c_contiguous else elements.flat
    if len(places) <= MAX_ELEMENTS_AT_ONCE and not shape:
        elements[places] = derivatives(values, f, x, places, steps, scheme)
        return
    length = max(1, BLOCK_DERIVATIVES // max(math.prod(shape), 1))
    for start in range(0, len(places), length):
        block = slice(start, start + length)
        step = steps[block] if isinstance(steps, np.ndarray) else steps
        elements[places[block]] = derivatives(values, f, x, places[block], step, scheme, shape)


def derivatives(
    values: Values,
    f: Callable[[Any], Any],
    x: Array,
    places: Places,
    steps: Any,
    scheme: Scheme,
    shape: tuple[int, ...] = (),
) -> Array:
    """Return the derivatives of f with respect to the elements of x at these places.

    Parameters
    ----------
    values : callable
        How f is evaluated.
    f, x
        The function, and an array of floats.
    places : array (n,)
        Indices into x in C order; the order of evaluation.
    steps : float or array (n,)
        The steps.
    scheme : Scheme
        The offsets, in units of the steps, and the weights.
    shape : tuple of int
        The shape of what f returns.

    Returns
    -------
    array (n, *shape)
        In the type that f returns.
    """
    if scheme.is_complex:
        x = x.astype(np.result_type(x.dtype, np.complex128))
    outer = scheme.outer
    measured = values(f, x, places, moved(x, places, outer, steps), shape)
    if len(outer) < len(scheme.offsets):  # x itself: the last offset, the same for all elements
        here = np.zeros(1, dtype=np.intp)
        base = values(f, x, here, at(x), shape)
        everywhere = np.broadcast_to(base, (len(places), 1, *shape))
        measured = np.concatenate([measured, everywhere], axis=1)
    if measured.dtype.kind in "iub":  # NumPy's integers wrap around when they are subtracted
        measured = measured.astype(np.float64)
    with np.errstate(all="ignore"):
        return scheme.combine(measured, steps)


def values_where_defined(
    values: Values,
    f: Callable[[Any], Any],
    x: Array,
    places: Places,
    points: Array,
    raised: dict[int, Exception],
    shape: tuple[int, ...] = (),
) -> Array:
    """Return f at these points; nan where it raises, for it is not defined there then.

    What it raises is added to ``raised``, by the indices of elements.
    """
    try:
        return values(f, x, places, points, shape)
    except Exception as error:
        raise_interrupt(error)
    found = np.full((*points.shape, *shape), np.nan)
    for i, j in np.ndindex(points.shape):
        try:
            one = points[i : i + 1, j : j + 1]
            found[i, j] = values(f, x, places[i : i + 1], one, shape)[0, 0]
        except Exception as error:
            raise_interrupt(error)
            raised[int(places[i])] = error
    return found


def at(x: Array) -> Array:
    """Return x itself as a point to which its first element is moved, an array ``(1, 1)``."""
    return x.view(np.ndarray).reshape(-1)[:1].reshape(1, 1)


def join(parts: list[Array]) -> Array:
    """Return arrays of values as one, of the type that they would have if collected at once."""
    if len({part.dtype for part in parts}) == 1:
        return np.concatenate(parts)
    mixed = np.array([value for part in parts for value in part.reshape(-1)])
    if mixed.dtype.kind in "biu":
        mixed = mixed.astype(object)
    return mixed.reshape(-1, *parts[0].shape[1:])


def moved(x: Array, places: Places, offsets: Sequence[Any], steps: Any) -> Array:
    """Return where elements of x are moved to, an array ``(len(places), len(offsets))``.

    As in the book, what is raised is computed in double precision at least, and what is lowered in
    x's own type; for float64 it is the same.
    """
    old = x.view(np.ndarray).reshape(-1)[places]
    few = len(old) <= MAX_ELEMENTS_AT_ONCE and old.dtype == np.float64
    if few and not isinstance(steps, np.ndarray):  # at once, which is faster
        distances = [offset * steps for offset in offsets]
        return old[:, np.newaxis] + distances  # type: ignore[no-any-return]
    wide = old if old.dtype.itemsize > 4 else old.astype(np.float64)
    points = np.empty((len(places), len(offsets)), dtype=old.dtype)
    for k, offset in enumerate(offsets):
        upwards = isinstance(offset, complex) or offset > 0
        points[:, k] = (wide if upwards else old) + offset * steps
    return points


def memory_order(x: Array) -> Places:
    """Return the flat (C-order) indices of x in the order in which np.nditer visits them."""
    if x.flags.c_contiguous:
        return np.arange(x.size)
    visits = np.nditer(x, flags=["c_index"])
    return np.array([visits.index for _ in visits], dtype=np.intp)
