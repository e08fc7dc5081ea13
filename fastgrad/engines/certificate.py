"""A certificate of a whole gradient: all of its elements are compared with a few calls of f.

Two to four calls vouch for the slopes of all elements, along directions drawn at random
(`directions.py`). The quotients themselves, over h, differ from slopes where f bends
within h. Then the engine is asked for slopes at a small step, and of the elements at which f bends
some are compared with f over h. What differs is looked for by halving directions, and taken from f.

What it cannot see: a fault of an element at which f bends within h, if it is not among those that
are compared; and a spike or a step of f, narrower than h, that moved points of the quotient meet
and x and the directions do not. These are left to what finds the quotients.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np

from fastgrad.differences.arguments import element
from fastgrad.engines import loop
from fastgrad.engines.directions import (
    EPS,
    FIRST_STEP_DIVISOR,
    ROUNDINGS,
    Directions,
    Slopes,
    Verdict,
)
from fastgrad.engines.directions import NearbyValues as NearbyValues  # for engines
from fastgrad.engines.joint_gradients import MAX_SUM_FACTOR
from fastgrad.typing import Array, Places

MAX_ROUNDINGS = 1e4
"""From how many units on rounding, as measured, is so large that directions tell too little."""

BENDS_COMPARED = 3
"""How many of the elements at which f bends are compared with f, drawn at random."""

MAX_SEARCHES = 4
"""How often a search for an element that differs is made."""

ELEMENTS_SAMPLED = 8
"""How many elements are compared with f at random, where directions cannot decide."""

MAX_MENDED = 256
"""Up to so many elements, or an eighth of all, are mended one by one."""

DEAR_GRADIENT_CALLS = 40
"""How many times longer than a call of f a gradient takes, if a second direction costs little."""

NEARBY_STEP_SHARES = (2**-12, 2**-13, 2**-14)
"""By which parts of h other steps differ, at which quotients are the same but for noise."""

ELEMENTS_AT_ONCE = 3
"""How many elements are moved at once, up or down at random. Equal faults of an odd number of
elements do not cancel."""


class Disagreement(Exception):
    """So many quotients are not f's that all are to be had from f; the message says where."""


class NotFiniteError(Disagreement):
    """So many quotients are not finite, and f itself is not where some of them are taken."""


@dataclass(eq=False)
class Certificate:
    """The comparison of one gradient with f.

    Attributes
    ----------
    values : NearbyValues
        Of f near x.
    quotients : array (elements of x,)
        In C order, as the engine gives them; mended where they are wrong.
    slopes : callable
        ``slopes(s)`` are the engine's central quotients at another step s.
    known : array (elements of x,) or None
        The slopes, if the engine has noticed them while it measured the quotients.
    uneven : array (elements of x,) or None
        By how much these may be wrong, because f answers moves up and down differently. None if
        that is not known.
    bends : array (elements of x,) or None
        By how much quotients by a move up alone are larger, of an engine of central ones; None, or
        nan, if that is not known.
    is_expensive : bool
        Whether it takes too long to measure slopes at another step.
    price : float
        How many calls of f take as long as the quotients did.
    apart : int array
        Elements whose quotients are f's own, or known to be as good.
    example : str
        What was wrong of one element, if anything was.
    mended : int
        How many elements were wrong.
    """

    values: NearbyValues
    quotients: Array
    slopes: Callable[[float], Array]
    known: Array | None = None
    uneven: Array | None = None
    bends: Array | None = None
    is_expensive: bool = False
    price: float = inf
    apart: Places = field(default_factory=lambda: np.zeros(0, np.intp))
    example: str = ""
    mended: int = 0

    def __post_init__(self) -> None:
        self.directions = Directions(self.values, one_suffices=self.price < DEAR_GRADIENT_CALLS)
        self.compared: Slopes  # what f was compared with last

    def mend(self) -> None:
        """Compare all elements, and replace what is not f's.

        Raises
        ------
        Disagreement
            If that is too much to be replaced element by element.
        """
        values = self.values
        self._take_what_is_not_finite()
        if self.known is not None and values.eps == EPS:
            if self.is_expensive and 2 * len(self._bent) > self.quotients.size:
                # Directions would not agree, at none of their steps.
                self.compared = self.directions.begin(self.known, values.h)
                self._compare_uneven(self.known)
                return
            if self._agree(self.known, values.h, if_unclear=False):
                self._compare_bends()
                return
            if self.is_expensive:
                self._compare_uneven(self.known)
                return
        fine = values.h / FIRST_STEP_DIVISOR
        slopes = self.slopes(fine)
        if not np.isfinite(slopes).all():
            self._compare_sample()
            return
        agree = self._any_agree(slopes, fine)
        if agree is not True:
            self.directions.measure_noise(self.compared)
            agree = self._any_agree(slopes, fine)
        if agree is False:
            self._find_faults()
        elif agree and max(values.unit, values.noise) <= MAX_ROUNDINGS * EPS * values.magnitude:
            self._compare_bends()
        else:
            self._compare_sample()

    def _take_what_is_not_finite(self) -> None:
        """Replace quotients that are not finite by f's own."""
        places = np.flatnonzero(~np.isfinite(self.quotients))
        if len(places) > self._most:
            some = places[:: -(-len(places) // MAX_SEARCHES)]
            if not np.isfinite(self.values.quotients(some, self.values.h)).any():
                raise NotFiniteError(f"f is not finite where {len(places):,} elements are moved")
            raise Disagreement(f"{len(places):,} of its quotients are not finite")
        if places.size:
            self.quotients[places] = self.values.quotients(places, self.values.h)
            self._set_apart(places)

    def _set_apart(self, places: Places) -> None:
        """Leave elements out from now on."""
        self.apart = np.union1d(self.apart, places)
        self.directions.leave_out(places)

    @property
    def _most(self) -> int:
        """The largest number of elements that are mended one by one."""
        return max(MAX_MENDED, self.quotients.size // 8)

    # Slopes --------------------------------------------------------------------------------------

    def _agree(self, slopes: Array, step: float, *, if_unclear: bool | None = None) -> bool | None:
        """Say whether f agrees with slopes that were measured with this step."""
        self.compared = self.directions.slopes(slopes, step)
        return self.directions.agree(self.compared, if_unclear=if_unclear)

    def _any_agree(self, slopes: Array, fine: float) -> bool | None:
        """Say whether f agrees with the slopes at a small step, as they are or extrapolated."""
        agree = self._agree(slopes, fine)
        scheme = self.values.scheme
        if agree is not True and scheme.is_central and scheme.accuracy == 2:
            # Richardson's extrapolation: truncation falls with the square of the step.
            if self._agree(slopes - (self.quotients - slopes) / (FIRST_STEP_DIVISOR**2 - 1), fine):
                return True
            self.compared = self.directions.slopes(slopes, fine)
        return agree

    def _compare_uneven(self, slopes: Array) -> None:
        """Compare with f as much as slopes tell that may be wrong where f is uneven.

        All of them, as far as they can be relied on; those that can be, by themselves; and of the
        others some single elements.
        """
        last = self.directions.last
        uneven = np.zeros(slopes.size) if self.uneven is None else self.uneven
        bent = self._bent
        residual, tolerance = self.directions.residual(last.direction, last.step, self.compared)
        moved = self.directions.move(last.direction, last.step).moved
        tolerance += MAX_SUM_FACTOR * float(np.linalg.norm(uneven * moved))
        if not abs(residual) <= tolerance:
            self._find_faults()
            return
        if len(bent) == len(uneven):
            self._compare_sample(bent)
            return
        self.directions.leave_out(bent)
        agree = self._agree(slopes, self.values.h)
        if agree is False:
            self._find_faults()
        elif agree is None:
            self._compare_sample()
        elif bent.size:
            self._compare_sample(bent)
        else:
            self._compare_bends()

    # Single elements -----------------------------------------------------------------------------

    @property
    def _bent(self) -> Places:
        """Elements at which f is known to answer moves up and down differently."""
        uneven = np.zeros(0) if self.uneven is None else self.uneven
        return np.flatnonzero(uneven > self._least_seen)

    @property
    def _least_seen(self) -> float:
        """The smallest error of a slope that directions show at best."""
        return ROUNDINGS * self.values.unit * FIRST_STEP_DIVISOR / (2 * self.values.h)

    def _compare_bends(self) -> None:
        """Compare with f some elements whose quotients are not the slopes: f bends within h."""
        g = self.compared.g
        differences = abs(self.quotients - g)
        if differences.max(initial=0) <= self._least_seen:  # most often, and in less time
            return
        rounding = self.values.rounding_of_slopes(g, self.values.h, self.compared.step)
        bent = ~(differences <= np.maximum(rounding, self._least_seen))
        bent[self.apart] = False
        places = np.flatnonzero(bent)
        if not places.size:
            return
        drawn = self._draw(BENDS_COMPARED, places)
        faults = self._wrong(drawn)
        if faults.size:
            self._replace(places, faults[0])

    def _compare_sample(self, among: Places | None = None) -> None:
        """Compare elements with f that are drawn at random, and the largest.

        Those among which f is uneven bend each other: each is compared by itself.
        """
        places = np.arange(self.quotients.size) if among is None else among
        drawn = self._draw(ELEMENTS_SAMPLED, places)
        largest = places[np.argmax(abs(self.quotients[places]))]
        sample = np.setdiff1d([*drawn, largest], self.apart)
        if among is None:
            faults = wrong(self.values, self.quotients, sample)
        else:
            faults = _wrong(self.values, self.quotients, self._wrong_to_a_side(sample))
        if faults.size:
            raise Disagreement(self._said(faults[0]))

    def _wrong_to_a_side(self, places: Places) -> Places:
        """Return at which places f is not known to be what is said of moves up, or of those down.

        Each time one of the two is drawn: a call of f for each element tells about as much as two.
        """
        values, h = self.values, self.values.h
        if self.bends is None or not places.size:
            return places
        sides = self.directions.random.choice([-1.0, 1.0], places.size)
        point, found = values.base.copy(), np.empty(places.size)
        for k, (place, side) in enumerate(zip(places, sides, strict=True)):
            point[place] = values.base[place] + side * h
            found[k] = values.at(point)
            point[place] = values.base[place]
        changes = (found - values.at(point)) / h
        said = sides * self.quotients[places] + self.bends[places]
        agree = abs(changes - said) <= 2 * _rounding(values, places, self.quotients[places])
        return np.asarray(places[~agree])

    def _draw(self, count: int, places: Places) -> Places:
        """Return so many of some places, drawn at random; all of them if they are fewer."""
        return self.directions.random.choice(places, min(count, places.size), replace=False)

    def _wrong(self, places: Places) -> Places:
        """Return at which places quotients are not f's, to its rounding."""
        return wrong(self.values, self.quotients, np.setdiff1d(places, self.apart))

    # Faults --------------------------------------------------------------------------------------

    def _find_faults(self) -> None:
        """Find elements that make the difference, and take what is wrong there from f.

        Raises
        ------
        Disagreement
            If there are too many.
        """
        for _ in range(MAX_SEARCHES):
            place = self.directions.find_fault(self.compared)
            if place is None:
                break
            few = self.quotients.size <= MAX_MENDED
            if self._wrong(np.array([place])).size:
                self._replace(np.arange(self.quotients.size) if few else self._lines(place), place)
            else:  # f has a kink, just there: no slope, but a quotient
                self._set_apart(np.array([place]))
            if self._agree(self.compared.g, self.compared.step, if_unclear=False):
                self._compare_bends()
                return
            if self.directions.last.verdict is not Verdict.DIFFERS:
                break
        else:
            if self.example:
                raise Disagreement(self.example)
        self._compare_sample()

    def _lines(self, place: int) -> Places:
        """Return the elements of the row, the column and so on in which one is.

        A fault is seldom alone: it spoils a unit, a row, or all elements of some kind.
        """
        numbers = np.arange(self.quotients.size).reshape(self.values.x.shape)
        index: Any = np.unravel_index(place, numbers.shape)
        lines = [numbers[(*index[:k], slice(None), *index[k + 1 :])] for k in range(numbers.ndim)]
        return np.unique(np.concatenate(lines))

    def _replace(self, suspects: Places, example: int) -> None:
        """Take f's own quotients where those of suspects are wrong; one of them is an example."""
        self.example = self.example or self._said(example)
        if len(suspects) > self._most:
            raise Disagreement(self.example)
        # One by one: where some are moved together, equal faults of two may cancel.
        suspects = np.setdiff1d(np.union1d(suspects, [example]), self.apart)
        faults = _wrong(self.values, self.quotients, suspects)
        self.quotients[faults] = self.values.quotients(faults, self.values.h)
        self._set_apart(faults)
        self.mended += len(faults)

    @property
    def said(self) -> str:
        """What was wrong, if anything was."""
        more = f", and {self.mended - 1:,} other elements are wrong" if self.mended > 1 else ""
        return self.example + more

    def _said(self, place: int) -> str:
        """Return in words what the engine and calls of f give at an element."""
        index = np.unravel_index(place, self.values.x.shape)
        looped = self.values.quotients(np.array([place], np.intp), self.values.h)[0]
        got = self.quotients[place]
        digits = next((n for n in (6, 10) if f"{got:.{n}g}" != f"{looped:.{n}g}"), 17)
        return (
            f"at {element('x', index)} it gives {got:.{digits}g}, "
            f"but calls of f give {looped:.{digits}g}"
        )


# Single elements ---------------------------------------------------------------------------------


def wrong(values: NearbyValues, quotients: Array, places: Places) -> Places:
    """Return at which places quotients are not f's, to its rounding.

    Most often elements do not act on each other: then a few are moved together, and only from
    where the sum of their quotients is another one, each is by itself.

    Parameters
    ----------
    values : NearbyValues
    quotients : array (elements of x,)
    places : int array
    """
    for start in range(0, len(places), ELEMENTS_AT_ONCE):
        if not _agree(values, quotients, places[start : start + ELEMENTS_AT_ONCE]):
            return _wrong(values, quotients, places[start:])
    return places[:0]


def _agree(values: NearbyValues, quotients: Array, places: Places) -> bool:
    """Say whether the quotients of some elements add up to that of moving them together."""
    if len(places) < 2 or not values.scheme.is_central or values.scheme.derivative != 1:
        return False
    signs = np.random.default_rng().choice([-1.0, 1.0], len(places))
    elements, old = values.x.flat, values.base[places]

    def along(s: Array) -> Any:
        elements[places] = old + s[0] * signs
        return values.f(values.x)

    try:
        with np.errstate(all="ignore"):
            together = float(loop.gradient(along, np.zeros(1), values.h, scheme=values.scheme)[0])
    finally:
        values.x[...] = values.saved
    given = quotients[places]
    return bool(abs(given @ signs - together) <= _rounding(values, places, given).max())


def _rounding(values: NearbyValues, places: Places, quotients: Array) -> Array:
    """Return by how much rounding may part quotients from f's."""
    scale = values.scheme.round_off(1.0, values.h, 1.0)
    rounding = (ROUNDINGS * (values.unit + values.own_unit) + 2 * values.noise) * scale
    of_steps = 4 * EPS / values.h * abs(values.base[places] * quotients)
    return np.asarray(rounding + of_steps + EPS * abs(quotients))


def _rounding_of_moved(values: NearbyValues, places: Places) -> Array:
    """Return by how much rounding of f where elements are moved may part quotients from f's.

    Where f is 0 at x, it is not at the moved points.
    """
    sizes = np.empty(len(places))
    for k, place in enumerate(places):
        step = np.zeros_like(values.base)
        step[place] = values.h
        sizes[k] = max(abs(values.at(values.base + step)), abs(values.at(values.base - step)))
    return np.asarray(ROUNDINGS * values.eps * sizes * values.scheme.round_off(1.0, values.h, 1.0))


def _wrong(values: NearbyValues, quotients: Array, places: Places) -> Places:
    """Compare each element by itself."""
    looped = values.quotients(places, values.h)
    difference = abs(quotients[places] - looped)
    rounding = _rounding(values, places, looped)
    suspect = np.flatnonzero(~(difference <= rounding))
    if not suspect.size:
        return places[suspect]
    rounding[suspect] += _rounding_of_moved(values, places[suspect])
    suspect = suspect[~(difference[suspect] <= rounding[suspect])]
    # f's own quotients may be worth no more: of noise, the second differences are as large.
    doubt = np.zeros(len(suspect))
    for share in NEARBY_STEP_SHARES:
        above, below = (
            values.quotients(places[suspect], values.h * (1 + sign * share)) for sign in (1, -1)
        )
        doubt = np.maximum(doubt, abs(above - 2 * looped[suspect] + below))
    both = np.isfinite(looped[suspect]) & np.isfinite(quotients[places[suspect]])
    certain = ~(both & (difference[suspect] <= 4 * doubt))
    return np.asarray(places[suspect[certain]])
