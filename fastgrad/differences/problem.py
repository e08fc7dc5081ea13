"""Problems: a function of one array, its scheme and steps, and the shape of what it returns."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.differences.arguments import (
    Call,
    as_returned,
    check_end,
    is_structure,
    leaves,
    require_arguments,
    require_floating_array,
    require_function,
    require_moved,
    require_separate,
)
from fastgrad.differences.quotients import (
    MAX_ELEMENTS_AT_ONCE,
    choose_steps,
    fill,
    limits_of,
    memory_order,
    moved,
    representable,
)
from fastgrad.lazy import LazyModule, lazy
from fastgrad.schemes import Scheme, as_scheme, central_quotient
from fastgrad.typing import Array, Places, Values

if TYPE_CHECKING:
    from fastgrad.differences import bounds as limits
else:  # most problems have none
    limits = LazyModule("fastgrad.differences.bounds")


DERIVED = {"is_uniform", "is_as_in_the_book", "partition"}
"""Attributes of a problem that follow from others."""


class Problem:
    """A function of one array, and how it is to be differenced; not to be changed.

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
    automatic : bool
        Whether the steps are only where to start measuring.
    quotients : array (x.size, ...), or None
        The derivatives by these steps, in C order, where they are known.
    is_lost : bool
        Whether some elements do not move, because the step is lost in their rounding.
    is_uniform : bool
        Whether all elements are moved alike: by one step, on the real line, without bounds.
    is_as_in_the_book : bool
        Whether it is the book's: central quotients, by one step for all elements.
    """

    def __init__(
        self,
        f: Callable[[Any], Any],
        x: Array,
        name: str,
        scheme: Scheme,
        steps: Any,
        bounds: tuple[Array, Array] | None,
        automatic: bool = False,
        quotients: Array | None = None,
        is_lost: bool = False,
    ) -> None:
        self.f, self.x, self.name = f, x, name
        self.scheme, self.steps, self.bounds = scheme, steps, bounds
        self.automatic, self.quotients, self.is_lost = automatic, quotients, is_lost
        one_step = not isinstance(steps, np.ndarray)
        self.is_uniform = bounds is None and one_step and not scheme.is_complex
        self.is_as_in_the_book = self.is_uniform and scheme == central_quotient

    def replaced(self, **changes: Any) -> "Problem":
        """Return the same problem, but for some attributes."""
        same = {name: value for name, value in vars(self).items() if name not in DERIVED}
        return Problem(**(same | changes))

    def gradient(self, values: Values, base: Array | None = None) -> Array:
        """Return the derivatives, an array like x, by this way of evaluating f.

        They are 0 with respect to elements whose bounds are equal. ``base`` is f at x, if it has a
        value there for each element.
        """
        if self.quotients is not None:
            known = np.zeros_like(self.x)
            known.view(np.ndarray)[...] = self.quotients.reshape(self.x.shape)  # and no mask
            return known
        if self.is_uniform:
            result = np.empty_like(self.x)
            places = memory_order(self.x)
            fill(result, values, self.f, self.x, places, self.steps, self.scheme, (), base)
            return result
        result = np.zeros_like(self.x)
        for scheme, places, steps in self.partition:
            fill(result, values, self.f, self.x, places, steps, scheme, (), base)
        return result

    @lazy
    def partition(self) -> list[tuple[Scheme, Places, Any]]:
        """Which elements are moved in which scheme by which steps: all that can be."""
        places = memory_order(self.x)
        several = isinstance(self.steps, np.ndarray)
        return self.partition_of(places, self.steps[places] if several else self.steps)

    def partition_of(self, places: Places, steps: Any) -> list[tuple[Scheme, Places, Any]]:
        """Return which of these elements are moved in which scheme by which steps."""
        if self.bounds is None:
            return [(self.scheme, places, steps)]
        return [*limits.within(self.scheme, self.x, places, steps, self.bounds)]


def problems(
    f: Callable[..., Any],
    x: Any,
    h: Any,
    *,
    args: tuple[Any, ...] = (),
    scheme: str | Scheme = "central",
    relative: bool = False,
    bounds: Any = None,
    as_in_the_book: bool = False,
) -> list[Problem]:
    """Check the arguments, and return a problem for every array in x; f is not called.

    Where the book's numbers are promised, a step that is lost in the rounding of x is warned of,
    and taken; elsewhere it is refused.

    Raises
    ------
    TypeError, ValueError
        If one of them is not usable.
    """
    require_function(f)
    require_arguments(args)
    chosen = as_scheme(scheme)
    if not is_structure(x):
        require_floating_array("x", x, h)
        call = Call(f, args, None, x) if args else f
        return [_problem(call, "x", x, h, chosen, relative, bounds, as_in_the_book)]
    arrays = [*leaves(x)]
    for name, array in arrays:
        require_floating_array(name, array, h)
    if len(arrays) > 1:
        require_separate(arrays)
    given = zip(arrays, _parts(h, x, arrays, "h"), _bounds_of(bounds, x, arrays), strict=True)
    return [
        _problem(
            Call(f, args, x, array), name, array, step, chosen, relative, bound, as_in_the_book
        )
        for (name, array), step, bound in given
    ]


def _problem(
    f: Callable[[Any], Any],
    name: str,
    x: Array,
    h: Any,
    scheme: Scheme,
    relative: bool,
    bounds: Any,
    as_in_the_book: bool,
) -> Problem:
    """Return the problem of one array, once its step and bounds have been checked."""
    steps = choose_steps(h, x, scheme, relative=relative)
    pair = None if bounds is None else limits.as_bounds(name, bounds, x)
    problem = Problem(f, x, name, scheme, steps, pair, isinstance(h, str))
    book = as_in_the_book and problem.is_as_in_the_book
    problem.is_lost = not _require_steps(problem, may_be_lost=book)
    return problem


def _require_steps(problem: Problem, *, may_be_lost: bool) -> bool:
    """Refuse a step that is lost, or leads out of the range of x's dtype; say if all is moved."""
    x, moving = problem.x, True
    if not x.size:
        return moving
    eps, tiny, largest = limits_of(x.dtype)
    plain = x.view(np.ndarray)
    if x.size <= MAX_ELEMENTS_AT_ONCE:  # of so few, Python's numbers are faster
        numbers = plain.reshape(-1).tolist()
        size = max(max(numbers), -min(numbers))
    else:
        size = np.abs(plain).max()
    # Neighbours of a number in x are no farther away.
    spacing = eps * float(size) + tiny
    if problem.is_uniform:
        nearest, farthest = problem.scheme.reach
        if problem.steps * nearest > spacing and 2 * problem.steps * farthest < largest:
            return moving  # as mostly
    for scheme, places, steps in problem.partition:
        if not scheme.real or not places.size:
            continue
        several = isinstance(steps, np.ndarray)
        shortest, longest = (steps.min(), steps.max()) if several else (steps, steps)
        nearest, farthest = scheme.reach
        if not float(shortest) * nearest > spacing:
            with np.errstate(all="ignore"):
                points = moved(x, places, scheme.real, steps)
                moving &= require_moved(
                    problem.name, x, places, points, steps, may_be_lost=may_be_lost
                )
        if 2 * float(longest) * farthest >= largest:
            raise ValueError(
                f"h is {longest}, too large for x's dtype {x.dtype}; pass one such as 1e-4"
            )
    return moving


def _parts(given: Any, x: Any, arrays: list[tuple[str, Any]], name: str) -> list[Any]:
    """Return what is given for each array in x: by a structure of x's form, or one for all."""
    if not (is_structure(given) and is_structure(x)):
        return [given] * len(arrays)
    places = [place for place, _ in arrays]
    parts = dict(leaves(given))
    if parts.keys() != set(places):
        raise ValueError(
            f"{name} has the parts {', '.join(parts)}, but x has {', '.join(places)}; "
            "pass a structure of x's form, or one value for all"
        )
    return [parts[place] for place in places]


def _bounds_of(bounds: Any, x: Any, arrays: list[tuple[str, Any]]) -> list[Any]:
    """Return the pair of bounds for each array in x."""
    if bounds is None or not is_structure(x):
        return [bounds] * len(arrays)
    try:
        lower, upper = bounds
    except (TypeError, ValueError):
        raise ValueError(f"bounds are {bounds!r}; pass a pair (lower, upper)") from None
    pairs = (_parts(bound, x, arrays, "bounds") for bound in (lower, upper))
    return [*zip(*pairs, strict=True)]


def prepare(
    f: Callable[..., Any],
    x: Any,
    h: Any,
    *,
    args: tuple[Any, ...],
    scheme: str | Scheme,
    relative: bool,
    bounds: Any,
    stacked: bool = False,
) -> tuple[list[Problem], Array]:
    """Return a problem for every array in x, and f at x as an array of floats, by one call.

    Given steps are replaced by those that x can hold; automatic ones are to be measured. With
    ``stacked`` f takes a stack of points.

    Raises
    ------
    TypeError, ValueError
        As from `problems`, before f is called; TypeError if f does not return real numbers.
    """
    found = problems(f, x, h, args=args, scheme=scheme, relative=relative, bounds=bounds)
    base = value_at(found, f, x, args, stacked)
    return [problem if problem.automatic else _exact(problem) for problem in found], base


def _exact(problem: Problem) -> Problem:
    """Return the problem with the distances by which its elements are really moved."""
    if problem.scheme.is_complex:
        return problem
    flat = problem.x.view(np.ndarray).reshape(-1)
    steps = np.broadcast_to(np.asarray(problem.steps, np.float64), flat.shape)
    return problem.replaced(steps=representable(steps, flat))


def value_at(
    found: list[Problem],
    f: Callable[..., Any],
    x: Any,
    args: tuple[Any, ...],
    stacked: bool = False,
) -> Array:
    """Return f at x as an array of floats; of an f that takes a stack, from one of x alone."""
    if stacked:
        value = as_returned(found[0].f(x.view(np.ndarray)[np.newaxis].copy()))
        if value.shape[:1] != (1,):
            raise ValueError(
                f"f returned an array of shape {value.shape} for a stack of shape "
                f"{(1, *x.shape)}, but with vectorized=True the first axis of what it returns is "
                "that of the points; reduce other axes, or leave out vectorized"
            )
        value = value[0]
    else:
        value = as_returned(found[0].f(found[0].x) if found else f(x, *args))
    if value.dtype.kind == "c" and found and found[0].scheme.is_complex and not value.imag.any():
        value = value.real  # f computes with complex numbers throughout
    if value.dtype.kind not in "fiub":
        raise TypeError(
            f"f returned an array of dtype {value.dtype}, but it must return real numbers; "
            f"{check_end(value.dtype.kind)}"
        )
    return value if value.dtype.kind == "f" else value.astype(np.float64)
