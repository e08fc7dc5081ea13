"""Which functions of many variables are differentiated? Known ones, with their exact gradients."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """A function of an array, and its gradient by its formula.

    Attributes
    ----------
    name : str
    f : callable
        ``f(x) -> float``, in plain NumPy.
    jitted : callable
        The same, written as a loop and compiled by numba.
    jitted_fastmath : callable
        The same again with fastmath, which lets the compiler use vector instructions for the sum.
    jitted_arrays : callable
        ``f`` as it stands, in array expressions, compiled by numba.
    jitted_dot : callable
        The same as a sum of squares by ``np.dot``, compiled by numba.
    exact : callable
        ``exact(x)``, the gradient at x, in extended precision where the machine has it.
    start : callable
        ``start(n)``, a seeded point of n variables.
    """

    name: str
    f: Callable[[Array], Any]
    jitted: Callable[[Array], Any]
    jitted_fastmath: Callable[[Array], Any]
    jitted_arrays: Callable[[Array], Any]
    jitted_dot: Callable[[Array], Any]
    exact: Callable[[Array], NDArray[np.longdouble]]
    start: Callable[[int], Array]


def rosenbrock(x: Array) -> Any:
    """Return ``sum(100 (x[i+1] - x[i]**2)**2 + (1 - x[i])**2)``.

    H. H. Rosenbrock, "An automatic method for finding the greatest or least value of a function",
    The Computer Journal 3 (1960), 175-184; in n variables as in `scipy.optimize.rosen`.
    """
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def rosenbrock_loop(x: Array) -> float:
    """Return what `rosenbrock` does."""
    total = 0.0
    for i in range(x.size - 1):
        total += 100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2
    return total


def rosenbrock_dot(x: Array) -> Any:
    """Return what `rosenbrock` does."""
    valley, ridge = 10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]
    return np.dot(valley, valley) + np.dot(ridge, ridge)


def rosenbrock_gradient(x: Array) -> NDArray[np.longdouble]:
    """Return the gradient of `rosenbrock`."""
    wide = x.astype(np.longdouble)
    gradient = np.zeros_like(wide)
    distance = wide[1:] - wide[:-1] ** 2
    gradient[1:] += 200 * distance
    gradient[:-1] += -400 * wide[:-1] * distance - 2 * (1 - wide[:-1])
    return gradient


def around_the_valley(n: int) -> Array:
    """Return a point where the terms are neither zero nor large."""
    return np.random.default_rng(0).uniform(0.5, 1.5, n)


ROSENBROCK = Problem(
    "Rosenbrock",
    rosenbrock,
    numba.njit(rosenbrock_loop),
    numba.njit(fastmath=True)(rosenbrock_loop),
    numba.njit(rosenbrock),
    numba.njit(rosenbrock_dot),
    rosenbrock_gradient,
    around_the_valley,
)
