"""Bounds: how they may be given, and which schemes and steps keep inside them."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from fastgrad.differences.arguments import element_at
from fastgrad.differences.quotients import limits_of, moved, precision, representable
from fastgrad.schemes import Scheme, backward, forward
from fastgrad.typing import Array, Flags, Places

MAX_SHRINK_FACTOR = 8
"""By how much a step may be shrunk so that a scheme fits: f may be noisier than it is taken to be.
"""

MIN_ROOM_STEPS = 2.0**-13
"""The room before a bound, in first steps, that central quotients need to be extrapolated."""


def as_bounds(name: str, bounds: Any, x: Array) -> tuple[Array, Array] | None:
    """Return the lower and the upper bound of each element of x; None if all are infinite.

    Parameters
    ----------
    name : str
        What messages call x.
    bounds : pair, or sequence of pairs
        The lower and the upper bounds, numbers or arrays of x's shape; infinite or None where there
        is none. SciPy's `Bounds` is such a pair, too. For an x with one axis it may be a sequence
        of ``(low, high)``, one for each element, as SciPy's minimizers take it.
    x : array
        Within the bounds.

    Returns
    -------
    pair of arrays (x.size,), or None
        Copies, in x's dtype: the least and the greatest numbers in it that are within the bounds.
        An element whose bounds are equal is fixed.

    Raises
    ------
    ValueError
        If they are neither, could be both, do not have x's shape, or x is outside.
    """
    if hasattr(bounds, "lb") and hasattr(bounds, "ub"):
        bounds = bounds.lb, bounds.ub
    else:
        bounds = _untransposed(name, bounds, x)
    try:
        low, high = bounds
        lower, upper = _filled(low, -np.inf, x), _filled(high, np.inf, x)
    except (TypeError, ValueError):
        raise ValueError(
            f"bounds are {bounds!r}; pass a pair (lower, upper) of numbers or of arrays of "
            f"{name}'s shape {x.shape}, or a pair (low, high) for each element of an {name} with "
            "one axis"
        ) from None
    flat = x.view(np.ndarray).reshape(-1)
    wrong = ~((flat >= lower) & (flat <= upper))
    wrong &= ~np.isnan(flat) | np.isnan(lower) | np.isnan(upper)
    if wrong.any():
        i = int(np.argmax(wrong))
        where = element_at(name, i, x.shape)
        raise ValueError(
            f"{where} is {flat[i]}, which is outside of its bounds {lower[i]} and "
            f"{upper[i]}; pass an x inside, and bounds that are infinite or None where there is "
            "none"
        )
    if np.isinf(lower).all() and np.isinf(upper).all():
        return None
    inner = _inwards(lower, np.inf, x.dtype), _inwards(upper, -np.inf, x.dtype)
    stuck = (lower < upper) & (inner[0] >= inner[1]) & ~np.isnan(flat)
    if stuck.any():
        i = int(np.argmax(stuck))
        where = element_at(name, i, x.shape)
        raise ValueError(
            f"{where} is {flat[i]}, and every step between its bounds {lower[i]} and "
            f"{upper[i]} is lost in the rounding of {x.dtype}; pass bounds farther apart, or equal "
            "ones for an element that is fixed"
        )
    return inner


def _filled(bound: Any, none: float, x: Array) -> Array:
    """Return a bound of each element of x, flat; what is None is infinite."""
    given = np.asarray(bound)
    if given.dtype == object:
        numbers = [none if number is None else number for number in given.reshape(-1)]
        given = np.array(numbers).reshape(given.shape)
    wide = np.result_type(x.dtype, np.float64)
    if given.dtype.kind not in "fiu":
        raise TypeError
    return np.broadcast_to(given.astype(wide), x.shape).reshape(-1)


def _untransposed(name: str, bounds: Any, x: Array) -> Any:
    """Return a pair (lower, upper), also of a pair (low, high) for each element of x.

    For two elements both readings have one form. The one that leaves no element any room is not
    meant; where neither is excluded by that, the bounds are refused.
    """
    n = x.size
    if x.ndim != 1 or not isinstance(bounds, (list, tuple, np.ndarray)) or len(bounds) != n:
        return bounds
    if isinstance(bounds, tuple) and any(isinstance(part, np.ndarray) for part in bounds):
        return bounds
    try:
        listed = bounds.tolist() if isinstance(bounds, np.ndarray) else bounds
        pairs = np.array([[*pair] for pair in listed], dtype=object)
    except TypeError:  # numbers
        return bounds
    if pairs.shape != (n, 2):
        return bounds
    turned = pairs.T
    if n != 2:
        return tuple(turned)
    as_pair, as_pairs = (_sorted(low, high, x) for low, high in (pairs, turned))
    if as_pair is None or as_pairs is None or _same(as_pair, as_pairs):
        return tuple(pairs if as_pairs is None else turned)
    raise ValueError(
        f"bounds are {bounds!r}, which can be read as a pair (lower, upper) or as a pair "
        f"(low, high) for each of the two elements of {name}; pass "
        f"(np.array({[*pairs[0]]}), np.array({[*pairs[1]]})) for the former, "
        f"(np.array({[*turned[0]]}), np.array({[*turned[1]]})) for the latter"
    )


def _sorted(low: Any, high: Any, x: Array) -> tuple[Array, Array] | None:
    """Return bounds of each element; None if they are not sorted, or leave no element room."""
    try:
        lower, upper = _filled(low, -np.inf, x), _filled(high, np.inf, x)
    except (TypeError, ValueError):
        return None
    return (lower, upper) if (lower <= upper).all() and (lower < upper).any() else None


def _same(one: tuple[Array, Array], other: tuple[Array, Array]) -> bool:
    """Say whether two pairs of bounds are the same."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def _inwards(bound: Array, inside: float, dtype: np.dtype[Any]) -> Array:
    """Return the bounds in a dtype; what rounding would move outwards is moved inwards."""
    with np.errstate(over="ignore"):
        rounded = bound.astype(dtype)
    outside = rounded < bound if inside > 0 else rounded > bound
    return np.where(outside, np.nextafter(rounded, dtype.type(inside)), rounded)


def within(
    scheme: Scheme, x: Array, places: Places, steps: Any, bounds: tuple[Array, Array]
) -> Iterator[tuple[Scheme, Places, Array]]:
    """Divide the elements of x among schemes that do not move them across a bound.

    Parameters
    ----------
    scheme : Scheme
        Used wherever it fits, and with a smaller step where that is the more exact way to fit.
        Elsewhere it is a one-sided one, of its accuracy and derivative order, towards the bound
        that is farther away; with a smaller step if it does not fit.
    x, places, steps
        The array, the elements as indices in C order, and their steps.
    bounds : pair of arrays
        As `as_bounds` returns them.

    Yields
    ------
    scheme, places, steps
        Together the yielded places are the given ones, but for those whose bounds are equal: their
        derivative is 0.
    """
    steps = np.broadcast_to(np.asarray(steps, np.float64), places.shape)
    free = bounds[0][places] < bounds[1][places]
    free |= np.isnan(x.view(np.ndarray).reshape(-1)[places])
    places, steps = places[free], steps[free]
    fits = _fits(scheme, x, places, steps, bounds)
    yield scheme, places[fits], steps[fits]
    rest, steps = places[~fits], steps[~fits]
    if not len(rest):
        return
    old = x.view(np.ndarray).reshape(-1)[rest]
    above, below = _rooms(old, rest, bounds)
    shrunk = np.minimum(steps, _largest_steps(scheme, above, below))
    one_sided = forward(scheme.accuracy, scheme.derivative)
    best = np.minimum(steps, np.maximum(above, below) / one_sided.reach[1])
    # Which is more exact: for functions that vary over distances of max(abs(x), 1), as "auto".
    scale, eps = np.maximum(abs(old.astype(np.float64)), 1), precision(x, old)
    central = scheme.expected_error(shrunk / scale, eps)
    chosen = central <= one_sided.expected_error(best / scale, eps)
    chosen &= (shrunk > 0) & (shrunk * MAX_SHRINK_FACTOR >= best)
    for fitting, served in _divided(scheme, chosen, above, below):
        if served.any():
            wanted = (shrunk if fitting is scheme else best)[served]
            yield fitting, rest[served], _fitting(fitting, x, rest[served], wanted, bounds)


def first_steps(
    scheme: Scheme,
    x: Array,
    places: Places,
    first: Array,
    bounds: tuple[Array, Array] | None,
) -> Iterator[tuple[Scheme, Places, Array, Array]]:
    """Divide elements among schemes that stay within the bounds, at steps to be extrapolated.

    Parameters
    ----------
    scheme : Scheme
        Used wherever there is a little room for it; else a one-sided one, as by `within`.
    x, places, bounds
        The array, the elements as indices in C order, and bounds as `as_bounds` returns them.
    first : float array (n,)
        The steps that are wished for.

    Yields
    ------
    scheme, chosen, first, most
        A scheme, indices into places, and for these the first steps and the largest ones that stay
        inside, powers of two. Elements whose bounds are equal are left out.
    """
    old = x.view(np.ndarray).reshape(-1)[places].astype(np.float64)
    largest = limits_of(x.dtype)[2] / 8 - abs(old)
    above, below = (np.minimum(largest, room) for room in _rooms(old, places, bounds))
    free = True if bounds is None else bounds[0][places] < bounds[1][places]
    # Central quotients are worth a few digits: f may be singular at the bound.
    fits = _largest_steps(scheme, above, below) >= first * MIN_ROOM_STEPS
    for fitting, served in _divided(scheme, fits, above, below):
        chosen = np.flatnonzero(free & served)
        if len(chosen):
            # Rooms are rounded; a step that is smaller than the true ones stays inside, since what
            # is rounded to the type of x and of its bounds keeps its order.
            rooms = _largest_steps(fitting, above, below)[chosen] * (1 - 1e-15)
            most = _power_of_two(rooms)
            yield fitting, chosen, np.minimum(_power_of_two(first[chosen]), most), most


def _rooms(old: Array, places: Places, bounds: tuple[Array, Array] | None) -> tuple[Array, Array]:
    """Return how far numbers may be moved upwards and downwards: without end, if without bounds."""
    if bounds is None:
        return np.full(old.shape, np.inf), np.full(old.shape, np.inf)
    with np.errstate(over="ignore"):
        above, below = bounds[1][places] - old, old - bounds[0][places]
    return above.astype(np.float64), below.astype(np.float64)


def _largest_steps(scheme: Scheme, above: Array, below: Array) -> Array:
    """Return the largest steps by which a scheme keeps within these distances."""
    up, down = max(0, *scheme.offsets), max(0, *(-offset for offset in scheme.offsets))
    rooms = [room / far for room, far in ((above, up), (below, down)) if far]
    return np.asarray(np.min(rooms, axis=0))


def _divided(
    scheme: Scheme, fits: Flags, above: Array, below: Array
) -> Iterator[tuple[Scheme, Flags]]:
    """Yield the scheme where it fits, and one-sided ones of its orders where there is more room."""
    yield scheme, fits
    if fits.all():
        return
    orders = scheme.accuracy, scheme.derivative
    yield forward(*orders), ~fits & (above >= below)
    yield backward(*orders), ~fits & (above < below)


def _power_of_two(steps: Array) -> Array:
    """Return the largest powers of two that are not larger."""
    fractions, exponents = np.frexp(steps)
    return np.where(fractions > 0, np.ldexp(1.0, exponents - 1), 0.0)


def _fitting(
    scheme: Scheme, x: Array, places: Places, steps: Array, bounds: tuple[Array, Array]
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
    scheme: Scheme, x: Array, places: Places, steps: Array, bounds: tuple[Array, Array]
) -> Flags:
    """Say which elements a scheme leaves inside: the very points at which f is evaluated."""
    offsets = [offset for offset in scheme.offsets if not isinstance(offset, complex)]
    points = moved(x, places, offsets, steps)
    lower, upper = bounds[0][places][:, np.newaxis], bounds[1][places][:, np.newaxis]
    outside = (points < lower) | (points > upper)
    inside: Flags = ~np.any(outside, axis=1)
    return inside  # a nan is not outside: there are no points to keep inside
