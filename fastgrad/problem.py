"""What is to be differentiated? A function, one array after the other, each with its steps."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.arguments import require_floating_array, require_function, require_moved
from fastgrad.bounds import as_bounds, within
from fastgrad.differences import Values, fill, memory_order, moved
from fastgrad.schemes import Scheme, as_scheme, central
from fastgrad.steps import choose_steps
from fastgrad.structures import Call, is_structure, leaves

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Problem:
    """A function of one array, and how it is to be differenced.

    Attributes
    ----------
    f : callable
        ``f(x)``; a `Call` if it takes more, or a structure.
    x : array
        What is moved, in place.
    name : str
        What messages call it.
    scheme : Scheme
        The difference scheme.
    steps : float or array (x.size,)
        The steps, in C order.
    bounds : pair of arrays (x.size,), or None
        What no point goes beyond.
    """

    f: Callable[[Any], Any]
    x: Array
    name: str
    scheme: Scheme
    steps: Any
    bounds: tuple[Array, Array] | None

    @property
    def is_the_books(self) -> bool:
        """Whether it is the book's quotient: central, with one step for all elements."""
        return self.scheme == central() and not np.ndim(self.steps) and self.bounds is None

    def gradient(self, values: Values) -> Array:
        """Return the derivatives, an array like x, by this way of evaluating f."""
        result = np.zeros_like(self.x)
        places = memory_order(self.x)
        steps = self.steps[places] if np.ndim(self.steps) else self.steps
        divided = [(self.scheme, places, steps)]
        if self.bounds is not None:
            divided = [*within(self.scheme, self.x, places, steps, self.bounds)]
        for scheme, some, step in divided:
            fill(result, values, self.f, self.x, some, step, scheme)
        return result


def problems(
    f: Callable[..., Any],
    x: Any,
    h: Any,
    *,
    args: tuple[Any, ...] = (),
    scheme: str | Scheme = "central",
    relative: bool = False,
    bounds: Any = None,
) -> list[Problem]:
    """Check the arguments, and return a problem for every array in x.

    Raises
    ------
    TypeError, ValueError
        If one of them is not usable; f has not been called by then, but for the precision of its
        result, if h is "auto".
    """
    require_function(f)
    if not isinstance(args, tuple):
        raise TypeError(f"args is a {type(args).__name__}; pass a tuple of f's further arguments")
    chosen = as_scheme(scheme)
    whole = x if is_structure(x) else None
    arrays = [*leaves(x)]
    for name, array in arrays:
        require_floating_array(name, array, h)
    result = []
    for (name, array), step, bound in zip(
        arrays, _parts(h, x, "h"), _bounds_of(bounds, x), strict=True
    ):
        call = f if whole is None and not args else Call(f, args, whole)
        eps = _precision(call, array) if isinstance(step, str) else 0.0
        steps = choose_steps(step, array, chosen, relative=relative, eps=eps)
        limits = None if bound is None else as_bounds(bound, array)
        problem = Problem(call, array, name, chosen, steps, limits)
        _require_steps(problem)
        result.append(problem)
    return result


def _require_steps(problem: Problem) -> None:
    """Refuse a step that is lost, or leads out of the range of x's dtype."""
    offsets = [o for o in problem.scheme.offsets if o != 0 and not isinstance(o, complex)]
    if not offsets or not problem.x.size:
        return
    largest = float(np.max(problem.steps))
    if 2 * largest * max(map(abs, offsets)) >= float(np.finfo(problem.x.dtype).max):
        raise ValueError(
            f"h is {largest}, too large for x's dtype {problem.x.dtype}; pass one such as 1e-4"
        )
    nearest = min(offsets, key=abs)
    everywhere = np.arange(problem.x.size)
    points = moved(problem.x, everywhere, (nearest, -nearest), problem.steps)
    require_moved(problem.name, problem.x, points, problem.steps)


def _parts(given: Any, x: Any, name: str) -> list[Any]:
    """Return what is given for each array in x: by a structure of x's form, or one for all."""
    places = [place for place, _ in leaves(x)]
    if not (is_structure(given) and is_structure(x)):
        return [given] * len(places)
    parts = [*leaves(given)]
    if [place for place, _ in parts] != places:
        raise ValueError(
            f"{name} has the parts {', '.join(place for place, _ in parts)}, but x has "
            f"{', '.join(places)}; pass a structure of x's form, or one value for all"
        )
    return [part for _, part in parts]


def _bounds_of(bounds: Any, x: Any) -> list[Any]:
    """Return the pair of bounds for each array in x."""
    if bounds is None or not is_structure(x):
        return [bounds] * len([*leaves(x)])
    try:
        lower, upper = bounds
    except (TypeError, ValueError):
        raise ValueError(f"bounds are {bounds!r}; pass a pair (lower, upper)") from None
    return [*zip(_parts(lower, x, "bounds"), _parts(upper, x, "bounds"), strict=True)]


def _precision(f: Callable[[Any], Any], x: Array) -> float:
    """Return eps of the coarser of x's type and that of f's result."""
    dtype = np.asarray(f(x)).dtype
    here = float(np.finfo(x.dtype).eps)
    return max(here, float(np.finfo(dtype).eps)) if dtype.kind in "fc" else here
