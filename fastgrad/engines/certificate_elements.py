"""Quotients of single elements are compared with f's own."""

import numpy as np

from fastgrad.engines.certificate_values import EPS, ROUNDINGS, Values
from fastgrad.typing import Array, Places

NEARBY = (2**-12, 2**-13, 2**-14)
"""By which parts of h other steps differ, at which quotients are the same but for noise."""


def wrong(values: Values, quotients: Array, places: Places) -> Places:
    """Return at which places quotients are not f's, to its rounding.

    Parameters
    ----------
    values : Values
    quotients : array (elements of x,)
    places : int array
    """
    looped = values.quotients(places, values.h)
    off = abs(quotients[places] - looped)
    scale = values.scheme.round_off(1.0, values.h, 1.0)
    rounding = (ROUNDINGS * (values.unit + values.own_unit) + 2 * values.noise) * scale
    rounding += 4 * EPS / values.h * abs(values.base[places] * looped) + EPS * abs(looped)
    suspect = np.flatnonzero(~(off <= rounding))
    if not suspect.size:
        return places[suspect]
    # f's own quotients may be worth no more: of noise, the second differences are as large.
    doubt = np.zeros(len(suspect))
    for share in NEARBY:
        above, below = (
            values.quotients(places[suspect], values.h * (1 + sign * share)) for sign in (1, -1)
        )
        doubt = np.maximum(doubt, abs(above - 2 * looped[suspect] + below))
    both = np.isfinite(looped[suspect]) & np.isfinite(quotients[places[suspect]])
    certain = ~(both & (off[suspect] <= 4 * doubt))
    return np.asarray(places[suspect[certain]])
