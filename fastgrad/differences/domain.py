"""Where f is not defined: nan in the place of what it raises, and derivatives from one side of x.

A `WhereDefined` is f, but nan where it raises what the user has named. Where a quotient is not
finite then, `derive_from_one_side` takes the scheme of the same accuracy above x, or below, for all
derivatives alike: the elements are named in a warning, and those with no such side refused.
"""

import reprlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from fastgrad.differences.arguments import PROBE_SCALE, element_at, require_function, warn_caller
from fastgrad.differences.guard import Original
from fastgrad.differences.measured_steps import measured
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import derivatives
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.schemes import Scheme, backward, forward
from fastgrad.typing import Array, Flags, Moves, Places, Values


class WhereDefined:
    """A function that is nan where it raises an exception of some kinds.

    Parameters
    ----------
    f : callable
    outside : exception class, or tuple of such
        What it raises where it is not defined.
    shape : tuple of int, optional
        The shape of what it returns, for a point. By default that of what it returns first, at x:
        there it has to be defined.
    stacked : bool
        Whether it takes a stack of points.
    elementwise : bool
        Whether each element of what it returns depends on the same one of its argument alone. It is
        called at x first.

    Attributes
    ----------
    kinds : tuple of exception classes

    Raises
    ------
    TypeError
        If f cannot be called, or outside is something else.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        outside: Any,
        shape: tuple[int, ...] | None = None,
        *,
        stacked: bool = False,
        elementwise: bool = False,
    ) -> None:
        require_function(f)
        self.f, self.kinds, self.shape = f, as_kinds(outside), shape
        self.stacked, self.elementwise = stacked, elementwise
        self._x: Array | None = None

    def __call__(self, x: Any, *args: Any) -> Any:
        """Return f, or nan in its shape where it is not defined."""
        given = x.copy() if self.stacked else x  # f may change a stack
        try:
            value = self.f(x, *args)
        except self.kinds as error:
            require_users(error)
            if self.stacked and len(given) > 1:
                middle = len(given) // 2
                return np.concatenate([self(given[:middle], *args), self(given[middle:], *args)])
            if self.shape is None:
                raise ValueError(
                    f"f is not defined at x itself, where it raises {error!r}; pass an x at which "
                    "it is"
                ) from error
            if self.elementwise:
                return self._by_elements(x, args)
            return np.full((1,) * self.stacked + self.shape, np.nan)[()]
        if self.shape is None:
            self.shape = np.shape(value)[self.stacked :]
            self._x = np.array(x) if self.elementwise else None
        return value

    def _by_elements(self, x: Array, args: tuple[Any, ...]) -> Array:
        """Return f at points of which some elements are outside: nan for those.

        What f raises where no element is moved, as for stacks that it does not take, is raised.
        """
        point = Original(x)

        def value(places: Places) -> Array:
            point.plain[...] = self._x
            point.plain.flat[places] = point.copy.flat[places]
            return np.array(self.f(x, *args))

        moved = np.flatnonzero(point.copy != self._x)
        try:
            result = value(moved[:0]).astype(np.float64)
            result.flat[moved] = np.nan
            for places, found in by_halves(value, [moved], self.kinds):
                result.flat[places] = found.flat[places]
        finally:
            point.put_back()
        return result


def as_kinds(outside: Any) -> tuple[type[Exception], ...]:
    """Return a tuple of exception classes; refuse anything else than such, or one of them."""
    kinds = outside if isinstance(outside, tuple) else (outside,)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise TypeError(
            f"outside is {reprlib.repr(outside)}, but it says what f raises where it is not "
            "defined; pass a class of exceptions such as ValueError, or a tuple of such"
        )
    return kinds


def require_users(error: Exception) -> None:
    """Raise what is not the user's to name: an interrupt, or an exception class of fastgrad's."""
    raise_interrupt(error)
    if type(error).__module__.partition(".")[0] == "fastgrad":
        raise error


def by_halves(
    value: Callable[[Places], Array], sets: list[Places], kinds: tuple[type[Exception], ...]
) -> Iterator[tuple[Places, Array]]:
    """Yield elements of some sets that can be moved together, and a value where they are.

    Those are left out that raise an exception of these kinds when they are moved alone.
    """
    left = [*sets]
    while left:
        some = left.pop()
        try:
            found = value(some)
        except kinds as error:
            require_users(error)
            if len(some) > 1:
                left += [some[: len(some) // 2], some[len(some) // 2 :]]
        else:
            yield some, found


def where_defined(f: Callable[..., Any], outside: Any, **options: Any) -> Callable[..., Any]:
    """Return f as a `WhereDefined`; as it is if outside is one already, around what f calls."""
    return f if isinstance(outside, WhereDefined) else WhereDefined(f, outside, **options)


def ways_inside(problem: Problem, values: Values, shape: tuple[int, ...]) -> Array:
    """Return -1 for each element of x below which alone f is defined, 1 for the others."""
    old = problem.x.view(np.ndarray).reshape(-1)
    steps = PROBE_SCALE * np.maximum(abs(old), 1)
    points = np.stack([old + steps, old - steps], axis=1).astype(old.dtype)
    with np.errstate(all="ignore"):
        found = values(problem.f, problem.x, Moves(np.arange(old.size), points, shape))
    above, below = (np.isfinite(_rows(each, old.size)).all(axis=1) for each in found.swapaxes(0, 1))
    return np.where(below & ~above, -1.0, 1.0)


# Derivatives from one side ------------------------------------------------------------------------


def derive_from_one_side(
    problem: Problem,
    found: Array,
    values: Values,
    base: Array | None = None,
    *,
    outside: Any = None,
    of_elements: Array | None = None,
    farther: bool = True,
    elements: "Elements | None" = None,
) -> list[tuple[Scheme, Places, Array]]:
    """Replace derivatives that are not finite by those of one-sided schemes, where these are.

    Of the same accuracy, first of larger x, then of smaller. That is done if the user has said what
    f raises outside of its domain, or has steps measured for a central scheme. It is said of which
    elements, in a warning.

    Parameters
    ----------
    problem : Problem
        As the user gave it.
    found : array (x.size, ...)
        The derivatives by the scheme of the problem; written into.
    values : callable
        How f is evaluated.
    base : array, optional
        f(x), if f returns an array.
    outside : optional
        What the user has said.
    of_elements : array (x.size,), optional
        f(x), if it has a value for each element.
    farther : bool
        As `measured` takes it.
    elements : Elements, optional
        Those of x to which the derivatives belong, if they are not the problem's own.

    Returns
    -------
    list of (scheme, places, steps)
        By which schemes, and steps, what has been replaced.

    Raises
    ------
    ValueError
        If the user has said what f raises, and it is defined on neither side of an element.
    """
    is_asked = outside is not None or (problem.automatic and problem.scheme.is_symmetric)
    if not is_asked or not found.size or problem.scheme.is_complex:
        return []
    replaced, number = [], problem.x.size
    elements = elements or Elements(problem)
    begun = ~np.isfinite(_rows(found, number))
    for side in one_sided_schemes(problem.scheme):
        missing = ~np.isfinite(_rows(found, number))
        places = np.flatnonzero(missing.any(axis=1))
        if not len(places):
            break
        shape = () if base is None else base.shape
        one_sided = problem.replaced(scheme=side)
        if problem.automatic and of_elements is None:
            parts = [_measured(one_sided, places, values, base, farther)]
        else:
            parts = [*_by_given_steps(one_sided, places, values, shape, of_elements)]
        for scheme, some, steps, new in parts:
            good = missing[some] & np.isfinite(_rows(new, len(some)))
            rows = found[some]
            np.copyto(rows, new, where=good.reshape(rows.shape))
            found[some] = rows
            any_good = good.any(axis=1)
            replaced.append((scheme, some[any_good], steps[any_good]))
    if outside is not None:
        require_a_side(elements.given, found, elements)
    gained = begun & np.isfinite(_rows(found, number))
    warn_of_one_sided(elements.given, elements.with_any(gained))
    return replaced


Part = tuple[Scheme, Places, Array, Array]
"""A scheme, elements, their steps, and the derivatives with respect to them."""


def _measured(
    problem: Problem, places: Places, values: Values, base: Array | None, farther: bool
) -> Part:
    """Return the derivatives with respect to some elements, by measured steps."""
    known = measured(problem, values, base, farther=farther, places=places)
    return problem.scheme, places, known.steps[places], np.asarray(known.quotients)[places]


def _by_given_steps(
    problem: Problem,
    places: Places,
    values: Values,
    shape: tuple[int, ...],
    of_elements: Array | None,
) -> Iterator[Part]:
    """Yield the derivatives with respect to some elements, by the steps of the problem."""
    several = isinstance(problem.steps, np.ndarray)
    given = problem.steps[places] if several else problem.steps
    for scheme, some, steps in problem.partition_of(places, given):
        if len(some):
            by = values, problem.f, problem.x, some, steps, scheme, shape, of_elements
            yield scheme, some, np.broadcast_to(steps, some.shape), derivatives(*by)


def one_sided_schemes(scheme: Scheme) -> tuple[Scheme, ...]:
    """Return the schemes of the same accuracy above x and below; none where no digits were left."""
    try:
        return tuple(side(scheme.accuracy, scheme.derivative) for side in (forward, backward))
    except ValueError:
        return ()


class Elements:
    """The elements of x, to which derivatives (x.size, f's size) belong.

    Attributes
    ----------
    given : Problem
        That of x.
    """

    def __init__(self, given: Problem) -> None:
        self.given = given

    def with_any(self, flags: Flags) -> Places:
        """Return the elements of which some derivatives are flagged."""
        return np.flatnonzero(flags.any(axis=1))

    def with_all(self, flags: Flags) -> Places:
        """Return those of which all are."""
        return np.flatnonzero(flags.all(axis=1)) if flags.size else np.zeros(0, np.intp)


def warn_of_one_sided(given: Problem, places: Places) -> None:
    """Name the elements, if any, whose derivatives are one-sided."""
    if len(places):
        first, more = _named(given, places)
        warn_caller(
            f"f is not defined on one side of {first}{more}: the derivatives are one-sided there"
        )


def require_a_side(given: Problem, found: Array, elements: Elements | None = None) -> None:
    """Refuse an f that is defined on neither side of an element: whose derivatives are all nan."""
    places = (elements or Elements(given)).with_all(np.isnan(_rows(found, len(found))))
    if len(places):
        first, more = _named(given, places)
        raise ValueError(
            f"f is defined on neither side of {first}{more}: it raises what outside names, or is "
            "nan, at the points of both one-sided schemes; pass a smaller h, or an x inside of f's "
            "domain"
        )


def _rows(found: Array, number: int) -> Array:
    """Return derivatives as floats, (number, f's size): those of Python's integers are objects."""
    return found.reshape(-1).astype(np.float64).reshape(number, -1 if found.size else 0)


def _named(problem: Problem, places: Places) -> tuple[str, str]:
    """Return the first element in words, and how many there are, if more."""
    first = element_at(problem.name, int(places.min()), problem.x.shape)
    number = len(np.unique(places))
    return first, f", the first of {number} such elements" if number > 1 else ""
