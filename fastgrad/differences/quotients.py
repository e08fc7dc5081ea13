"""Difference quotients, element by element: steps, the points that they lead to, and f there."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from numbers import Real
from typing import Any, Self

import numpy as np

from fastgrad.differences.arguments import as_array, as_positive_number, element_at, other_side
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.schemes import Scheme
from fastgrad.typing import Array, Moves, Places, Values

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
    base: Array | None = None,
) -> None:
    """Write the derivatives of f into ``result``, of one element of x after the other.

    As `derivatives` returns them, only for a block of elements after the other. Elements at other
    places stay as they are.
    """
    elements: Any = result.view(np.ndarray)
    elements = elements.reshape(-1, *shape) if elements.flags.c_contiguous else elements.flat
    if len(places) <= MAX_ELEMENTS_AT_ONCE and not shape:
        elements[places] = derivatives(values, f, x, places, steps, scheme, (), base)
        return
    length = max(1, BLOCK_DERIVATIVES // max(math.prod(shape), 1))
    for start in range(0, len(places), length):
        block = slice(start, start + length)
        step = steps[block] if isinstance(steps, np.ndarray) else steps
        some = places[block]
        elements[some] = derivatives(values, f, x, some, step, scheme, shape, base)


def derivatives(
    values: Values,
    f: Callable[[Any], Any],
    x: Array,
    places: Places,
    steps: Any,
    scheme: Scheme,
    shape: tuple[int, ...] = (),
    base: Array | None = None,
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
    base : array (x.size, *shape), optional
        f at x for each element, if it is known.

    Returns
    -------
    array (n, *shape)
        In the type that f returns.
    """
    if scheme.is_complex:
        x = x.astype(np.result_type(x.dtype, np.complex128))
    outer = scheme.outer
    measured = values(f, x, Moves(places, moved(x, places, outer, steps), shape))
    if len(outer) < len(scheme.offsets):  # x itself: the last offset, the same for all elements
        if base is None:
            here = values(f, x, at(x, shape))
        elif base.dtype == measured.dtype:
            here = base[places, np.newaxis]
        else:  # it may be another number for each element
            old = x.view(np.ndarray).reshape(-1)[places, np.newaxis]
            here = values(f, x, Moves(places, old, shape))
        everywhere = np.broadcast_to(here, (len(places), 1, *shape))
        measured = np.concatenate([measured, everywhere], axis=1)
    if measured.dtype.kind in "iub":  # NumPy's integers wrap around when they are subtracted
        measured = measured.astype(np.float64)
    with np.errstate(all="ignore"):
        return scheme.combine(measured, steps)


def values_where_defined(
    values: Values,
    f: Callable[[Any], Any],
    x: Array,
    moves: Moves,
    raised: dict[int, Exception],
) -> Array:
    """Return f at these points; nan where it raises, for it is not defined there then.

    What it raises is added to ``raised``, by the indices of elements.
    """
    try:
        return values(f, x, moves)
    except Exception as error:
        raise_interrupt(error)
    places, points, shape = moves
    found = np.full((*points.shape, *shape), np.nan)
    for i, j in np.ndindex(points.shape):
        try:
            one = Moves(places[i : i + 1], points[i : i + 1, j : j + 1], shape)
            found[i, j] = values(f, x, one)[0, 0]
        except Exception as error:
            raise_interrupt(error)
            raised[int(places[i])] = error
    return found


def at(x: Array, shape: tuple[int, ...] = ()) -> Moves:
    """Return x itself, as the only point to which its first element is moved."""
    point = x.view(np.ndarray).reshape(-1)[:1].reshape(1, 1)
    return Moves(np.zeros(1, dtype=np.intp), point, shape)


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
        return old[:, np.newaxis] + distances  # type: ignore[no-any-return]  # an array
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


class Rows:
    """Arrays as attributes, with a row for each element; subclasses are dataclasses of them."""

    def __getitem__(self, rows: Any) -> Self:
        """Return some rows."""
        return type(self)(*(column[rows] for column in vars(self).values()))

    def __setitem__(self, rows: Any, other: Self) -> None:
        """Replace some rows."""
        for column, new in zip(vars(self).values(), vars(other).values(), strict=True):
            column[rows] = new


# Steps --------------------------------------------------------------------------------------------


def choose_steps(h: Any, x: Array, scheme: Scheme, *, relative: bool) -> Any:
    """Return the steps, a float or an array ``(x.size,)`` in C order.

    Parameters
    ----------
    h : number, array of x's shape, or "auto"
        A number or an array is taken as it is. "auto" is the scheme's optimal step for a function
        that varies over distances of ``max(abs(x[i]), 1)``, as SciPy's differences assume, too:
        what `fastgrad.differences.measured_steps.measured` starts from.
    x : array
        Where f is differentiated.
    scheme : Scheme
        What the steps are used in.
    relative : bool
        Whether h is in units of ``abs(x[i])``; where that is 0, it is taken as it is.

    Raises
    ------
    TypeError, ValueError
        If h is none of these, or not positive and finite.

    Notes
    -----
    Steps that depend on x are made representable: replaced by ``(x + h) - x``, so that the distance
    by which x is moved is the one by which the difference is divided.
    """
    if type(h) is float and relative is False and 0 < h < math.inf:  # as mostly
        return h
    if not isinstance(relative, (bool, np.bool_)):
        raise TypeError(
            f"relative is {relative!r}, but it says whether h is in units of abs(x); pass "
            "relative=True, and the number as h"
        )
    if isinstance(h, str):
        if h != "auto":
            raise TypeError(
                f"h is {h!r} of type str, but the step is a real number; pass one such as 1e-4, "
                "an array of x's shape, or 'auto'"
            )
        if relative:
            raise ValueError("h is 'auto', which is relative to x already; leave out relative")
        step = scheme.optimal_step(limits_of(x.dtype)[0])
        if scheme.is_complex:
            return step
        flat = x.view(np.ndarray).reshape(-1)
        return short(step * np.maximum(abs(flat.astype(np.float64)), 1), flat)
    is_number = isinstance(h, Real) or not _has_axes(h)
    steps = as_positive_number(h) if is_number else _as_positive_array(h, x.shape)
    if not relative:
        return steps
    flat = x.view(np.ndarray).reshape(-1)
    magnitude = abs(flat.astype(np.float64))
    # Numbers that have lost digits already are as good as 0.
    least = max(float(np.finfo(x.dtype).tiny), float(np.finfo(np.float64).tiny))
    scaled = steps * np.where(magnitude >= least, magnitude, 1)
    return scaled if scheme.is_complex else representable(scaled, flat)


@cache
def limits_of(dtype: np.dtype[Any]) -> tuple[float, float, float]:
    """Return a dtype's precision, and its least and largest normal number."""
    limits = np.finfo(dtype)
    return float(limits.eps), float(limits.tiny), float(limits.max)


def precision(x: Array, values: Array) -> float:
    """Return eps of the coarser one of x's type and that of f's values, if they are floats."""
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    return max(limits_of(x.dtype)[0], limits_of(kind)[0])


def as_floats(values: Array) -> Array:
    """Return values in double precision at least; integers, too."""
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    return values.astype(np.result_type(kind, np.float64), copy=False)


def representable(steps: Array, x: Array) -> Array:
    """Return the distances by which elements are really moved; steps that are lost stay.

    Away from 0, where numbers are coarser: what x can be moved by there, it can be moved by towards
    0, too.

    Examples
    --------
    >>> representable(np.array([1e-4]), np.ones(1, np.float32))
    array([0.00010002])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        size = abs(x)
        exact = ((size + steps).astype(x.dtype) - size).astype(np.float64)
    return np.where(exact > 0, exact, steps)


def short(steps: Array, x: Array) -> Array:
    """Return steps of 8 significant bits, by which most elements are moved without rounding.

    Examples
    --------
    >>> short(np.array([1e-4]), np.ones(1)) * 2**21
    array([210.])
    """
    fractions, exponents = np.frexp(steps)
    return representable(np.ldexp(np.rint(fractions * 256), exponents - 8), x)


def _has_axes(h: Any) -> bool:
    """Say whether h has several steps, or is meant to."""
    return as_array("h", h, "pass a number, or one step for each element").ndim > 0


def _as_positive_array(h: Any, shape: tuple[int, ...]) -> Array:
    """Return the steps of an array of x's shape, flat."""
    steps = as_array("h", h, "pass a number, or one step for each element")
    if steps.dtype.kind not in "fiu":
        raise TypeError(f"h has dtype {steps.dtype}, but steps are real numbers; pass floats")
    if steps.shape != shape:
        raise ValueError(
            f"h has shape {steps.shape}, but x has shape {shape}; pass a number, or one step for "
            "each element"
        )
    flat = steps.astype(np.float64).reshape(-1)
    wrong = ~((flat > 0) & (flat < np.inf))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"{element_at('h', first, shape)} is {steps.flat[first]}, but steps are positive and "
            f"finite; pass one such as 1e-4{other_side(flat[first])}"
        )
    return flat
