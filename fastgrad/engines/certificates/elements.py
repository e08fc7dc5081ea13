"""Comparisons of single elements' quotients with f's own."""

from typing import Any

import numpy as np

from fastgrad.engines import loop
from fastgrad.engines.certificates.evaluations import EPS, ROUNDINGS, Values
from fastgrad.typing import Array, Places

NEARBY_STEP_SHARES = (2**-12, 2**-13, 2**-14)
"""By which parts of h other steps differ, at which quotients are the same but for noise."""


ELEMENTS_AT_ONCE = 3
"""How many elements are moved at once, up or down at random. Equal faults of an odd number of
elements do not cancel."""


def wrong(values: Values, quotients: Array, places: Places) -> Places:
    """Return at which places quotients are not f's, to its rounding.

    Most often elements do not act on each other: then a few are moved together, and only from
    where the sum of their quotients is another one, each is by itself.

    Parameters
    ----------
    values : Values
    quotients : array (elements of x,)
    places : int array
    """
    for start in range(0, len(places), ELEMENTS_AT_ONCE):
        if not _agree(values, quotients, places[start : start + ELEMENTS_AT_ONCE]):
            return _wrong(values, quotients, places[start:])
    return places[:0]


def _agree(values: Values, quotients: Array, places: Places) -> bool:
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


def _rounding(values: Values, places: Places, quotients: Array) -> Array:
    """Return by how much rounding may part quotients from f's."""
    scale = values.scheme.round_off(1.0, values.h, 1.0)
    rounding = (ROUNDINGS * (values.unit + values.own_unit) + 2 * values.noise) * scale
    of_steps = 4 * EPS / values.h * abs(values.base[places] * quotients)
    return np.asarray(rounding + of_steps + EPS * abs(quotients))


def _rounding_of_moved(values: Values, places: Places) -> Array:
    """Return by how much rounding of f where elements are moved may part quotients from f's.

    Where f is 0 at x, it is not at the moved points.
    """
    sizes = np.empty(len(places))
    for k, place in enumerate(places):
        step = np.zeros_like(values.base)
        step[place] = values.h
        sizes[k] = max(abs(values.at(values.base + step)), abs(values.at(values.base - step)))
    return np.asarray(ROUNDINGS * values.eps * sizes * values.scheme.round_off(1.0, values.h, 1.0))


def _wrong(values: Values, quotients: Array, places: Places) -> Places:
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
