"""Which scheme keeps inside the bounds? Near a bound a one-sided one, of the same accuracy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences import moved
from fastgrad.schemes import Scheme, backward, forward
from fastgrad.steps import representable

Array = NDArray[Any]


def as_bounds(name: str, bounds: Any, x: Array) -> tuple[Array, Array] | None:
    """Return the lower and the upper bound of each element of x; None if all are infinite.

    Parameters
    ----------
    name : str
        What messages call x.
    bounds : pair
        The lower and the upper bounds, numbers or arrays of x's shape; infinite where there is
        none. SciPy's `Bounds` is such a pair, too.
    x : array
        Within the bounds.

    Returns
    -------
    pair of arrays (x.size,), or None
        Copies, in x's dtype: the least and the greatest numbers in it that are within the bounds.

    Raises
    ------
    ValueError
        If they are no pair, do not have x's shape, x is outside, or they leave no room to move.
    """
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        bounds = bounds.lb, bounds.ub
    wide = np.result_type(x.dtype, np.float64)
    try:
        lower, upper = (np.broadcast_to(np.asarray(b, wide), x.shape).reshape(-1) for b in bounds)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds are {bounds!r}; pass a pair (lower, upper) of numbers or of arrays of "
            f"{name}'s shape {x.shape}"
        ) from None
    flat = x.view(np.ndarray).reshape(-1)
    for wrong, rule in (
        (~((flat >= lower) & (flat <= upper)) & ~np.isnan(flat), "is outside of its bounds"),
        (~(lower < upper), "cannot move between its bounds"),
    ):
        if wrong.any():
            i = int(np.argmax(wrong))
            index = [int(k) for k in np.unravel_index(i, x.shape)]
            raise ValueError(
                f"{name}{index or ''} is {flat[i]}, which {rule} {lower[i]} and {upper[i]}; "
                "pass an x inside, and bounds with room between them, infinite where there is none"
            )
    if np.isinf(lower).all() and np.isinf(upper).all():
        return None
    return _inwards(lower, np.inf, x.dtype), _inwards(upper, -np.inf, x.dtype)


def _inwards(bound: Array, inside: float, dtype: np.dtype[Any]) -> Array:
    """Return the bounds in a dtype; what rounding would move outwards is moved inwards."""
    with np.errstate(over="ignore"):
        rounded = bound.astype(dtype)
    outside = rounded < bound if inside > 0 else rounded > bound
    return np.where(outside, np.nextafter(rounded, dtype.type(inside)), rounded)


def within(
    scheme: Scheme, x: Array, places: NDArray[np.intp], steps: Any, bounds: tuple[Array, Array]
) -> Iterator[tuple[Scheme, NDArray[np.intp], Array]]:
    """Divide the elements of x among schemes that do not move them across a bound.

    Parameters
    ----------
    scheme : Scheme
        Used wherever it fits. Elsewhere it is a one-sided one, of its accuracy and derivative
        order, towards the bound that is farther away; with a smaller step if it does not fit.
    x, places, steps
        The array, the elements as indices in C order, and their steps.
    bounds : pair of arrays
        As `as_bounds` returns them.

    Yields
    ------
    scheme, places, steps
        Together the yielded places are the given ones.
    """
    steps = np.broadcast_to(np.asarray(steps, dtype=np.float64), places.shape)
    fits = _fits(scheme, x, places, steps, bounds)
    yield scheme, places[fits], steps[fits]
    rest, steps = places[~fits], steps[~fits]
    old = x.view(np.ndarray).reshape(-1)[rest]
    with np.errstate(over="ignore"):  # room without end
        above, below = bounds[1][rest] - old, old - bounds[0][rest]
    upwards = above >= below
    for side, chosen, room in (
        (forward(scheme.accuracy, scheme.derivative), upwards, above),
        (backward(scheme.accuracy, scheme.derivative), ~upwards, below),
    ):
        reach = max(abs(offset) for offset in side.offsets)
        short = np.minimum(steps[chosen], room[chosen].astype(np.float64) / reach)
        yield side, rest[chosen], _fitting(side, x, rest[chosen], short, bounds)


def _fitting(
    scheme: Scheme, x: Array, places: NDArray[np.intp], steps: Array, bounds: tuple[Array, Array]
) -> Array:
    """Return representable steps that lead nowhere across a bound.

    A representable step may be longer than the room by its rounding; it is halved then. In the end
    it is lost beside x, and x is inside.
    """
    while True:
        exact = representable(steps, x.view(np.ndarray).reshape(-1)[places])
        fits = _fits(scheme, x, places, exact, bounds)
        if fits.all():
            return exact
        steps = np.where(fits, steps, steps / 2)


def _fits(
    scheme: Scheme, x: Array, places: NDArray[np.intp], steps: Array, bounds: tuple[Array, Array]
) -> NDArray[np.bool_]:
    """Say which elements a scheme leaves inside: the very points at which f is evaluated."""
    offsets = [offset for offset in scheme.offsets if not isinstance(offset, complex)]
    points = moved(x, places, offsets, steps)
    lower, upper = bounds[0][places][:, np.newaxis], bounds[1][places][:, np.newaxis]
    outside = (points < lower) | (points > upper)
    inside: NDArray[np.bool_] = ~np.any(outside, axis=1)
    return inside  # a nan is not outside: there are no points to keep inside
