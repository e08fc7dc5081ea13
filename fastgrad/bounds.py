"""Which scheme keeps inside the bounds? Near a bound a one-sided one, of the same accuracy."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.schemes import Scheme, backward, forward

Array = NDArray[Any]


def as_bounds(bounds: Any, x: Array) -> tuple[Array, Array]:
    """Return the lower and the upper bound of every element of x, flat.

    Parameters
    ----------
    bounds : pair
        The lower and the upper bounds, numbers or arrays of x's shape; infinite where there is
        none. SciPy's `Bounds` is such a pair, too.
    x : array
        Within the bounds.

    Raises
    ------
    ValueError
        If they are no pair, do not have x's shape, x is outside, or they leave no room to move.
    """
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        bounds = bounds.lb, bounds.ub
    try:
        lower, upper = (np.broadcast_to(np.asarray(b, float), x.shape).reshape(-1) for b in bounds)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds are {bounds!r}; pass a pair (lower, upper) of numbers or of arrays of x's "
            f"shape {x.shape}"
        ) from None
    flat = x.view(np.ndarray).reshape(-1)
    for wrong, rule in (
        (~((flat >= lower) & (flat <= upper)), "is outside of its bounds"),
        (~(lower < upper), "cannot move between its bounds"),
    ):
        if wrong.any():
            i = int(np.argmax(wrong))
            index = [int(k) for k in np.unravel_index(i, x.shape)]
            raise ValueError(
                f"x{index or ''} is {flat[i]}, which {rule} {lower[i]} and {upper[i]}; "
                "pass an x inside, and bounds with room between them"
            )
    return lower, upper


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
    old = x.view(np.ndarray).reshape(-1)[places].astype(np.float64)
    steps = np.broadcast_to(np.asarray(steps, dtype=np.float64), places.shape)
    above, below = bounds[1][places] - old, old - bounds[0][places]
    real = [0 if isinstance(offset, complex) else offset for offset in scheme.offsets]
    fits = (max(real) * steps <= above) & (-min(real) * steps <= below)
    yield scheme, places[fits], steps[fits]
    upwards = above >= below
    for side, chosen in (
        (forward(scheme.accuracy, scheme.derivative), ~fits & upwards),
        (backward(scheme.accuracy, scheme.derivative), ~fits & ~upwards),
    ):
        reach = max(abs(offset) for offset in side.offsets)
        # A little less than the room there is, so that rounding does not lead across the bound.
        room = np.maximum(above, below)[chosen] * (1 - 1e-6)
        yield side, places[chosen], np.minimum(steps[chosen], room / reach)
