"""The first step of an extrapolation: a scheme and a step that stay within the bounds."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.problem import Problem
from fastgrad.schemes import Scheme, backward, forward
from fastgrad.typing import Array

FIRST = 0.25
"""The first step in units of abs(x); small enough to stay on x's side of a pole at 0."""

NARROW = 2.0**-13
"""The room before a bound, in first steps, that central quotients need."""

Part = tuple[Scheme, NDArray[np.intp], Array, Array]
"""A scheme, which of some elements it fits, their first and their largest steps."""


def divided(problem: Problem, places: NDArray[np.intp], first: Array) -> Iterator[Part]:
    """Divide elements among schemes that stay within the bounds.

    Parameters
    ----------
    problem : Problem
        With its scheme and bounds; its steps are not looked at.
    places : int array (n,)
        The elements, as indices into x in C order.
    first : float array (n,)
        The steps that are wished for.

    Yields
    ------
    scheme, chosen, first, most
        A scheme, indices into places, and for these the first steps and the largest ones that stay
        inside, powers of two. Elements whose bounds are equal are left out.
    """
    scheme, x = problem.scheme, problem.x
    old = x.view(np.ndarray).reshape(-1)[places].astype(float)
    largest = float(np.finfo(x.dtype).max) / 8
    above = below = largest - abs(old)
    free: Any = True
    if problem.bounds is not None:
        with np.errstate(over="ignore"):  # room without end
            above = np.minimum(above, problem.bounds[1][places] - old)
            below = np.minimum(below, old - problem.bounds[0][places])
        free = problem.bounds[0][places] < problem.bounds[1][places]
    # Central quotients are worth a few digits: f may be singular at the bound.
    fits = _room(scheme, above, below) >= first * NARROW
    for fitting, served in (
        (scheme, free & fits),
        (forward(scheme.accuracy, scheme.derivative), free & ~fits & (above >= below)),
        (backward(scheme.accuracy, scheme.derivative), free & ~fits & (above < below)),
    ):
        chosen = np.flatnonzero(served)
        if len(chosen):
            most = _power_of_two(_room(fitting, above, below)[chosen])
            yield fitting, chosen, np.minimum(_power_of_two(first[chosen]), most), most


def _room(scheme: Scheme, above: Array, below: Array) -> Array:
    """Return the largest steps of a scheme that stay within these distances, by a margin.

    The distances are rounded; a step that is smaller than the true ones stays inside, since what
    is rounded to the type of x and of its bounds keeps its order.
    """
    up, down = max(0, *scheme.offsets), max(0, *(-offset for offset in scheme.offsets))
    rooms = [space / reach for space, reach in ((above, up), (below, down)) if reach]
    return np.asarray(np.min(rooms, axis=0)) * (1 - 1e-15)


def _power_of_two(steps: Array) -> Array:
    """Return the largest powers of two that are not larger."""
    fractions, exponents = np.frexp(steps)
    return np.where(fractions > 0, np.ldexp(1.0, exponents - 1), 0.0)
