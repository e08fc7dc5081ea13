"""Values of f near x, and how far rounding reaches in their differences."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgrad.engines import loop
from fastgrad.interrupts import raise_interrupt
from fastgrad.schemes import Scheme
from fastgrad.typing import Array, Places

EPS = float(np.finfo(np.float64).eps)

ROUNDINGS = 6
"""How many times its unit the rounding error of a difference of f may be."""

MIN_STEP_ULPS = 8
"""By how many units in its last place an element is moved at least."""


@dataclass(eq=False)
class Values:
    """Values of f at moved points.

    Attributes
    ----------
    f, x, h, scheme
        As the engine has been given them; x of float64. It is moved in place, and bit-identical
        after each call of f.
    magnitude : float
        The sum of the magnitudes of all that f adds up.
    own_magnitude : float
        What the rounding of the engine's differences is relative to, for each element.
    eps : float
        The relative precision of the numbers that f computes with.
    noise : float
        By how much rounding was seen to change differences of f.
    """

    f: Callable[[Array], Any]
    x: Array
    h: float
    scheme: Scheme
    magnitude: float
    own_magnitude: float
    eps: float = EPS
    noise: float = 0.0

    def __post_init__(self) -> None:
        self.saved = self.x.copy(order="K")
        self.base = self.x.reshape(-1).copy()
        self.unit, self.own_unit = self.eps * self.magnitude, self.eps * self.own_magnitude
        self.spacing = MIN_STEP_ULPS * float(np.spacing(abs(self.base).max(initial=0)))

    def at(self, point: Array) -> float:
        """Return f at a point, an array (elements of x,); nan if it raises there."""
        try:
            self.x[...] = point.reshape(self.x.shape)
            with np.errstate(all="ignore"):
                return float(np.asarray(self.f(self.x)).reshape(()))
        except Exception as error:  # whatever it is, the quotients are not to blame
            raise_interrupt(error)
            return np.nan
        finally:
            self.x[...] = self.saved

    def quotients(self, places: Places, h: float) -> Array:
        """Return f's own quotients of some elements, by calls for each."""
        with np.errstate(all="ignore"):
            looped = loop.gradient(self.f, self.x, h, places, self.scheme)
        return np.asarray(looped.reshape(-1)[places], np.float64)

    def steps(self, step: float, least: float) -> Any:
        """Return a step along a direction; for each element, if one of the least would be lost."""
        if self.spacing <= least:
            return step
        return np.maximum(step, MIN_STEP_ULPS * np.spacing(abs(self.base)))

    def note_noise(self, size: float) -> None:
        """Note by how much rounding has changed a difference."""
        if np.isfinite(size):
            self.noise = max(self.noise, size)

    def rounding_of_slopes(self, slopes: Array, *steps: float) -> Array:
        """Return by how much rounding may part slopes that were measured with two steps."""
        rounding = ROUNDINGS * self.own_unit + self.noise + 4 * EPS * abs(slopes * self.base)
        return np.asarray(rounding * sum(1 / step for step in steps))
