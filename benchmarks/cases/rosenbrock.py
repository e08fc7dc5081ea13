"""Rosenbrock's function in several forms, and its gradient by its formula."""

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def plain(x: Array) -> Any:
    """Return ``sum(100 (x[i+1] - x[i]**2)**2 + (1 - x[i])**2)``.

    H. H. Rosenbrock, "An automatic method for finding the greatest or least value of a function",
    The Computer Journal 3 (1960), 175-184; in n variables as in `scipy.optimize.rosen`.
    """
    return np.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def as_loop(x: Array) -> float:
    """Return what `plain` does."""
    total = 0.0
    for i in range(x.size - 1):
        total += 100 * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2
    return total


def of_stack(s: Array) -> Any:
    """Return what `plain` does, of each row."""
    return np.sum(100 * (s[:, 1:] - s[:, :-1] ** 2) ** 2 + (1 - s[:, :-1]) ** 2, axis=1)


def with_dot(x: Array) -> Any:
    """Return what `plain` does."""
    valley, ridge = 10 * (x[1:] - x[:-1] ** 2), 1 - x[:-1]
    return np.dot(valley, valley) + np.dot(ridge, ridge)


def exact_gradient(x: Array) -> NDArray[np.longdouble]:
    """Return the gradient, in extended precision where the machine has it."""
    wide = x.astype(np.longdouble)
    gradient = np.zeros_like(wide)
    distance = wide[1:] - wide[:-1] ** 2
    gradient[1:] += 200 * distance
    gradient[:-1] += -400 * wide[:-1] * distance - 2 * (1 - wide[:-1])
    return gradient


def start(n: int) -> Array:
    """Return a seeded point where the terms are neither zero nor large."""
    return np.random.default_rng(0).uniform(0.5, 1.5, n)


jitted: Any = numba.njit(as_loop)
jitted_fastmath: Any = numba.njit(fastmath=True)(as_loop)
"""The same, which lets the compiler use vector instructions for the sum."""
