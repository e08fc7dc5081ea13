"""What rounding does to f: to its quotients, whether it jumps, and which digits its values have."""

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import Rows, moved, short, values_where_defined
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.schemes import Scheme
from fastgrad.typing import Array, Flags, Moves, Places, Values

EXTRA_CALLS = 6
"""Calls of f an element, beside the scheme's own, that find a step where f is smooth."""

SAMPLE_POSITIONS = (-0.97, -0.71, -0.43, -0.19, 0.11, 0.37, 0.59, 0.89)
"""Where f is looked at, in units of the wide step: no simple ratios, which periods may have."""

FLAT_SHARE = 2.0**-20
"""Part of the wide step over which f is constant, if it is piecewise."""

SPREAD_FACTOR = 8
"""Times the spread of slopes beyond which changes are not explained by it."""

JUMP_CALLS = 2 * len(SAMPLE_POSITIONS)
"""How often f is called."""

MIN_DISTINCT_VALUES = 4
"""Values of f, no two alike, that must all be short numbers: one is, by accident, at times."""

MIN_DISTANCE = 2.0**-45
"""The distance of two short numbers, relative to the larger one, at least."""

MAX_BITS = 43
"""Binary digits of the longest short number: of random ones one in 1,000 is shorter."""

MAX_DIGITS = 12
"""Decimal digits of the longest short number: of random ones one in 1,000 is shorter."""


@dataclass(eq=False)
class Quotients(Rows):
    """Quotients of several elements, or of one at several steps, a row for each: nan if f raises.

    Attributes
    ----------
    values : array (n, outputs)
        The quotients.
    steps : array (n,)
        Their steps, as bounds allow them.
    lifts : array (n, outputs)
        How far f gets from f(x).
    truncations : array (n, outputs)
        What quotients of lower accuracy at the same points say of truncation; 0 without such.
    """

    values: Array
    steps: Array
    lifts: Array
    truncations: Array


class TrialQuotients:
    """Quotients of a problem's elements at steps that are tried, and what rounding costs them.

    Parameters
    ----------
    problem : Problem
        Its steps are not looked at; f is called within its bounds.
    values : callable
        How f is evaluated.
    base : array
        f(x), of any shape.
    eps : float
        The relative precision of f's values.

    Attributes
    ----------
    noise : float
        How many times larger than by eps errors of f's values are.
    raised : dict
        What f has raised when an element was moved, by the index of the element.
    """

    def __init__(self, problem: Problem, values: Values, base: Array, eps: float) -> None:
        self.problem, self.values, self.shape, self.eps = problem, values, base.shape, eps
        self.base = base.reshape(-1).astype(np.result_type(base, np.float64))
        self.magnitude = abs(self.base)
        self.x = problem.x.view(np.ndarray).reshape(-1)
        self.smallest = 64 * np.spacing(abs(self.x)).astype(np.float64)
        self.noise = 1.0
        self.raised: dict[int, Exception] = {}
        self._last: tuple[Array, Array, Array] = np.empty(0, np.intp), np.empty((0, 0)), self.x

    def at(self, places: Places, steps: Array, *, exactly: bool = False) -> Quotients:
        """Return quotients at about these steps, or exactly these."""
        if not exactly:
            steps = short(np.maximum(steps, self.smallest[places]), self.x[places])
        count = self.base.size
        taken: Quotients | None = None
        for scheme, some, lengths in self.problem.partition_of(places, steps):
            if not len(some):
                continue
            values = self._values(some, moved(self.problem.x, some, scheme.outer, lengths))
            lifted = np.max(abs(values - self.base), axis=1)
            if len(scheme.outer) < len(scheme.offsets):  # x itself comes last
                here = np.broadcast_to(self.base, (len(some), 1, count))
                values = np.concatenate([values, here], axis=1)
            found = scheme.combine(values, lengths)
            truncation = np.zeros_like(found)
            if scheme.inner:
                truncation = self._truncation(scheme, values, lengths, found)
            part = Quotients(found, lengths.copy(), lifted, truncation)
            if len(some) == len(places):  # nothing to be put together: large arrays are not copied
                return part
            taken = self._empty(steps) if taken is None else taken
            taken[np.searchsorted(places, some)] = part
        return self._empty(steps) if taken is None else taken

    def _empty(self, steps: Array) -> Quotients:
        """Return quotients of 0."""
        nothing = np.zeros((len(steps), self.base.size), self.base.dtype)
        return Quotients(nothing, steps.copy(), nothing.copy(), nothing.copy())

    def _values(self, places: Places, points: Array) -> Array:
        """Return f at these points; what has been found at other steps is not evaluated again."""
        x, f, count = self.problem.x, self.problem.f, self.base.size
        raised, shape, dtype = self.raised, self.shape, self.base.dtype
        if points.shape[1] <= EXTRA_CALLS:
            moves = Moves(places, points, shape)
            found = values_where_defined(self.values, f, x, moves, raised)
            return found.reshape(*points.shape, count).astype(dtype, copy=False)
        values = np.empty((*points.shape, count), dtype)
        new = [*range(points.shape[1])]
        old_places, old_points, old_values = self._last
        if np.isin(places, old_places).all():
            rows = np.searchsorted(old_places, places)
            for k, before in itertools.product([*new], range(old_points.shape[1])):
                if k in new and (old_points[rows, before] == points[:, k]).all():
                    values[:, k] = old_values[rows, before]
                    new.remove(k)
        moves = Moves(places, np.ascontiguousarray(points[:, new]), shape)
        found = values_where_defined(self.values, f, x, moves, raised)
        values[:, new] = found.reshape(len(places), len(new), count)
        if len(new) == points.shape[1]:
            self._last = places, points, values
        return values

    def _truncation(self, scheme: Scheme, values: Array, steps: Array, quotients: Array) -> Array:
        """Return the truncation that quotients of lower accuracy at the same points indicate.

        Of a quotient of accuracy a it is about ``q**a`` of the slopes around x, if f varies over
        the distance ``h / q``. What f is at x, too, has to follow from the points around.
        """
        size = slope_sizes(scheme, quotients, np.max(abs(values - self.base), axis=1), steps)
        between = np.tensordot(values[:, : len(scheme.outer)], scheme.interpolation, (1, 0))
        gap = abs(between - self.base) / column(steps) ** scheme.derivative
        q = (gap / size) ** (1 / max(len(scheme.outer) - scheme.derivative, 1))
        for inner in scheme.inner:
            nearer = values[:, [scheme.offsets.index(offset) for offset in inner.offsets]]
            error = abs(inner.combine(nearer, steps) - quotients)
            q = np.fmax(q, (error / size) ** (1 / inner.accuracy))
        truncation: Array = np.where(size > 0, size * q**scheme.accuracy, gap)
        return truncation

    def rounding(self, places: Any, quotients: Quotients) -> Array:
        """Return what rounding costs each output."""
        scheme, steps = self.problem.scheme, column(quotients.steps)
        # Operations inside f are rounded relative to their arguments: as if x itself were, by half
        # an eps at most, in two points that rarely add.
        distance = np.maximum(
            abs(np.reshape(self.x[places], (-1, 1)).astype(np.float64)) / 4, steps
        )
        if scheme.derivative == 1:
            slopes = abs(quotients.values)
        else:
            slopes = quotients.lifts / (scheme.reach[1] * steps)
        height = self.magnitude + slopes * distance
        result: Array = scheme.round_off(height, steps, self.eps * self.noise)
        return result


def slope_sizes(scheme: Scheme, quotients: Array, lifts: Array, steps: Array) -> Array:
    """Return how large derivatives are around x: first ones may vanish at x itself."""
    slopes: Array = abs(quotients)
    if scheme.derivative == 1:
        slopes = np.maximum(slopes, lifts / column(scheme.reach[1] * steps))
    return slopes


def column(numbers: Array) -> Array:
    """Return numbers as a column, one for each row of an array of outputs."""
    return numbers[:, np.newaxis]


# Jumps and digits --------------------------------------------------------------------------------


def jumps(
    problem: Problem,
    values: Values,
    place: int,
    wide: float,
    contradiction: float,
    rounding: float,
    shape: tuple[int, ...] = (),
    output: int = 0,
) -> bool:
    """Say whether f jumps around x, where its quotients at a wide and at a small step contradict.

    A function that is computed in float32, rounded or printed is constant, or smooth, between its
    jumps: its slopes there leave its changes from point to point unexplained, nearly everywhere.
    If f really has a peak, a kink or waves at x, slopes and changes agree in most places, or the
    slopes differ from each other by as much.

    Parameters
    ----------
    problem : Problem
        With a real scheme.
    values : callable
        How f is evaluated: 16 times, no farther away than with the wide step.
    place : int
        The element, as an index into x in C order.
    wide : float
        The wide step, at which the quotient is to be believed if f jumps.
    contradiction : float
        By how much the derivatives differ.
    rounding : float
        How wrong a value of f may be by rounding.
    shape : tuple of int
        The shape of what f returns.
    output : int
        Which of these numbers is looked at.

    Returns
    -------
    bool
        False, too, where f cannot be called.
    """
    d = problem.scheme.derivative
    # Slopes that are exact to a hundredth of what they are to explain.
    slope = contradiction * wide ** (d - 1)
    if not slope > 0:
        return False
    beside = _beside(problem, values, place, wide, 100 * rounding / slope, shape)
    if beside is None:
        return False
    where, found = beside[0], beside[1][..., output]
    with np.errstate(all="ignore"):
        slopes = np.diff(found)[:, 0] / np.diff(where)[:, 0]
        changes = np.diff(found[:, 0]) / np.diff(where[:, 0])
        unexplained = np.median(abs(changes - (slopes[1:] + slopes[:-1]) / 2))
        # Slopes of waves are alike by accident at times; a jump within a narrow pair spoils one.
        spread = np.sort(abs(slopes - np.median(slopes)))[-3]
        return bool(unexplained > SPREAD_FACTOR * spread + slope / 16)


def is_flat(
    problem: Problem,
    values: Values,
    place: int,
    wide: float,
    shape: tuple[int, ...] = (),
    output: int = 0,
    distinct: int = 2,
) -> bool:
    """Say whether f is constant around x, but for jumps: it has values, and no slopes.

    Parameters
    ----------
    problem, values, place, wide, shape, output
        As for `jumps`.
    distinct : int
        How many values f has at least: a mask, which jumps once, has two.
    """
    beside = _beside(problem, values, place, wide, wide * FLAT_SHARE, shape)
    if beside is None:
        return False
    found = beside[1][..., output]
    return bool((found[:, 0] == found[:, 1]).all() and len(np.unique(found)) >= distinct)


def _beside(
    problem: Problem,
    values: Values,
    place: int,
    wide: float,
    narrow: float,
    shape: tuple[int, ...],
) -> tuple[Array, Array] | None:
    """Return pairs of points within the wide step, ``(pairs, 2)``, and f ``(pairs, 2, outputs)``.

    None if there is no room for them, or f cannot be called there.
    """
    x, here = problem.x, np.array([place])
    [(scheme, _, (wide,))] = [
        part for part in problem.partition_of(here, np.array([wide])) if len(part[1])
    ]
    spacing = float(np.spacing(abs(x.view(np.ndarray).reshape(-1)[place])))
    narrow = max(narrow, 4 * spacing)
    offsets = np.array([*scheme.outer, 0.0])
    lowest, highest = wide * offsets.min(), wide * offsets.max() - narrow
    if not 0 < 32 * narrow < highest - lowest:
        return None
    middle, half = (lowest + highest) / 2, (highest - lowest) / 2
    asides = [middle + half * c + n for c in SAMPLE_POSITIONS for n in (0.0, narrow)]
    points = moved(x, here, asides, 1.0)
    if problem.bounds is not None:  # rounding may lead outside
        points = np.clip(points, problem.bounds[0][place], problem.bounds[1][place])
    try:
        measured = values(problem.f, x, Moves(here, points, shape))
    except Exception as error:
        raise_interrupt(error)
        return None
    found = np.asarray(measured.reshape(len(SAMPLE_POSITIONS), 2, -1), float)
    return points.reshape(len(SAMPLE_POSITIONS), 2).astype(np.float64), found


def resolution(values: Array) -> Array:
    """Return the spacing of f's values, where f rounds them itself.

    What is computed in float32 has at most 24 significant binary digits; what is rounded has few
    decimals, what is printed few significant decimal digits. Values of a smooth function at points
    that are no short numbers themselves have all the digits of their type.

    Parameters
    ----------
    values : float array (n, steps, points)
        f where n elements of x are moved by several steps; what is not finite is left out.

    Returns
    -------
    float array (n, steps)
        The distance to the next value that f can have, at each step; 0 where values of f have more
        digits than `MAX_BITS` and `MAX_DIGITS`.

    Examples
    --------
    >>> resolution(np.array([[[0.123, 0.1], [2.5, 2.25]]])).round(6)
    array([[0.001, 0.01 ]])
    """
    known = np.where(np.isfinite(values), values, 0).astype(np.float64)
    spacing = np.zeros(known.shape[:2])
    with np.errstate(all="ignore"):
        flat = np.sort(known.reshape(len(known), -1), axis=1)
        # Short numbers are farther apart than a few roundings of one of them.
        apart = np.diff(flat, axis=1) > MIN_DISTANCE * np.maximum(
            abs(flat[:, 1:]), abs(flat[:, :-1])
        )
        several = np.count_nonzero(apart, axis=1) + 1 >= MIN_DISTINCT_VALUES
        if several.any():
            known = known[several]
            decimal = _grid(*_decimal(known), 10.0, MAX_DIGITS)
            binary = _grid(*_binary(known), 2.0, MAX_BITS)
            spacing[several] = np.maximum(decimal, binary)
    return spacing


def are_short(values: Array) -> Flags:
    """Say which numbers are not finite, or have as few digits as values that are rounded."""
    known = np.where(np.isfinite(values), values, 0).astype(float)
    with np.errstate(all="ignore"):
        return np.asarray((_binary(known)[1] <= MAX_BITS) | (_decimal(known)[1] <= MAX_DIGITS))


def _binary(values: Array) -> tuple[Array, Array]:
    """Return exponents, and the number of binary digits; 0 for 0."""
    fractions, exponents = np.frexp(abs(values))
    whole = np.ldexp(fractions, 53).astype(np.int64)
    digits = 53 - np.log2(np.maximum(whole & -whole, 1))
    return exponents.astype(np.float64), np.where(whole > 0, digits, 0)


def _decimal(values: Array) -> tuple[Array, Array]:
    """Return exponents, and the number of decimal digits: 0 for 0, inf beyond `MAX_DIGITS`."""
    size = abs(values)
    exponents = np.floor(np.log10(np.where(size > 0, size, 1))) + 1
    scaled = size * 10.0 ** (MAX_DIGITS - exponents)
    whole = np.rint(scaled)
    # Twelve digits are exact to 1e12 eps = 2e-4; the power of ten is rounded, and the product.
    short = abs(scaled - whole) <= 1e-3
    digits = np.where(short, MAX_DIGITS, np.inf)
    if short.any():
        digits -= sum(whole % 10.0**k == 0 for k in range(1, MAX_DIGITS + 1))
    return exponents, np.where(size > 0, digits, 0)


def _grid(exponents: Array, digits: Array, base: float, most: int) -> Array:
    """Return the spacing of numbers at each step; 0 where some are long."""
    nonzero = digits > 0
    longest = digits.max(axis=(1, 2), keepdims=True)
    # Either as many significant digits everywhere, or as many behind the point.
    last = np.where(nonzero, exponents - digits, np.inf).min(axis=(1, 2), keepdims=True)
    largest = np.where(nonzero, exponents, -np.inf).max(axis=2, keepdims=True)
    spacing = base ** np.maximum(largest - longest, last)
    result: Array = np.where(longest <= most, spacing, 0)[..., 0]
    return result
