"""Published functions of one number, with their derivatives."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import mpmath
import numpy as np
from mpmath import mp, mpf

Scalar = Any


@dataclass(frozen=True)
class Function:
    """A function of one variable, its derivative, and where it is differentiated.

    Attributes
    ----------
    name : str
    f : callable
        ``f(x)``, elementwise by NumPy, in the type of x.
    derivative : callable
        The derivative, of mpmath's numbers.
    domain : pair of float
        Between which random points are drawn.
    points : tuple of float
        Points that are published, or where it is hard.
    """

    name: str
    f: Callable[[Scalar], Scalar]
    derivative: Callable[[Any], Any]
    domain: tuple[float, float]
    points: tuple[float, ...]

    def exact(self, x: Scalar) -> float:
        """Return the derivative at the number x as it is stored, rounded once."""
        with mpmath.workdps(50):
            return float(self.derivative(mpf(float(x))))


@dataclass(frozen=True)
class Case:
    """A function at a point.

    Attributes
    ----------
    function : Function
    x : float
    """

    function: Function
    x: float

    def __str__(self) -> str:
        """Return the function and the point."""
        return f"{self.function.name} at {self.x:.6g}"

    @property
    def exact(self) -> float:
        """The derivative, rounded once."""
        return self.function.exact(self.x)


# What numdifftools' example functions are: elementary functions, at points all over their domains.
_EXAMPLES = [
    Function("sin", np.sin, mp.cos, (-10, 10), (1e-3, 0.5, 1.0, 3.0)),
    Function("cos", np.cos, lambda x: -mp.sin(x), (-10, 10), (0.5, 1.0, 2.0)),
    Function("tan", np.tan, lambda x: mp.sec(x) ** 2, (-1.4, 1.4), (0.1, 0.7, 1.5)),
    Function("arcsin", np.arcsin, lambda x: 1 / mp.sqrt(1 - x**2), (-0.95, 0.95), (0.1, 0.9, 0.99)),
    Function("arccos", np.arccos, lambda x: -1 / mp.sqrt(1 - x**2), (-0.95, 0.95), (0.1, 0.9)),
    Function("arctan", np.arctan, lambda x: 1 / (1 + x**2), (-10, 10), (0.1, 1.0, 10.0)),
    Function("sinh", np.sinh, mp.cosh, (-5, 5), (0.1, 1.0, 5.0)),
    Function("cosh", np.cosh, mp.sinh, (-5, 5), (0.5, 1.0, 5.0)),
    Function("tanh", np.tanh, lambda x: mp.sech(x) ** 2, (-3, 3), (0.1, 1.0, 3.0)),
    Function("arcsinh", np.arcsinh, lambda x: 1 / mp.sqrt(1 + x**2), (-10, 10), (0.1, 1.0, 100.0)),
    Function("arccosh", np.arccosh, lambda x: 1 / mp.sqrt(x**2 - 1), (1.1, 10), (1.1, 2.0, 10.0)),
    Function("arctanh", np.arctanh, lambda x: 1 / (1 - x**2), (-0.9, 0.9), (0.1, 0.5, 0.9)),
    Function("exp", np.exp, mp.exp, (-5, 5), (0.1, 1.0, 10.0)),
    Function("expm1", np.expm1, mp.exp, (-5, 5), (1e-3, 0.1, 2.0)),
    Function("exp2", np.exp2, lambda x: mp.log(2) * mpf(2) ** x, (-5, 5), (0.1, 1.0, 8.0)),
    Function("square", np.square, lambda x: 2 * x, (-10, 10), (1e-3, 1.0, 1000.0)),
    Function("sqrt", np.sqrt, lambda x: 1 / (2 * mp.sqrt(x)), (0.05, 10), (0.01, 1.0, 1e4)),
    Function("log", np.log, lambda x: 1 / x, (0.05, 10), (0.01, 0.5, 3.0, 1e3)),
    Function("log1p", np.log1p, lambda x: 1 / (1 + x), (-0.9, 10), (1e-3, 0.1, 5.0)),
    Function("log2", np.log2, lambda x: 1 / (x * mp.log(2)), (0.05, 10), (0.1, 3.0, 100.0)),
    Function("log10", np.log10, lambda x: 1 / (x * mp.log(10)), (0.05, 10), (0.1, 3.0, 100.0)),
    Function("inverse", lambda x: 1 / x, lambda x: -1 / x**2, (0.05, 10), (0.01, 1.0, 100.0)),
]


def _by_mpmath(
    name: str,
    f: Callable[[Any, Scalar], Scalar],
    domain: tuple[float, float],
    points: tuple[float, ...],
) -> Function:
    """Return a function written for NumPy and mpmath alike, which differentiates it."""
    return Function(name, partial(f, np), lambda x: mpmath.diff(partial(f, mp), x), domain, points)


# M. Baudin's benchmark problems (package numericalderivative), after Stepleman and Winarsky (1979),
# Gill, Murray, Saunders and Wright (1983), and Oliver and Ruffhead (1975).
_BAUDIN = [
    _by_mpmath("polynomial", lambda m, x: x**2.5, (0.1, 20), (1.0, 5.0)),
    _by_mpmath("scaled exponential", lambda m, x: m.exp(-x / 1e6), (-1e6, 1e6), (1.0, 1e3, 1e6)),
    _by_mpmath(
        "Gill, Murray, Saunders, Wright",
        lambda m, x: (m.exp(x) - 1) ** 2 + (1 / m.sqrt(1 + x**2) - 1) ** 2,
        (-3, 3),
        (1.0,),
    ),
    _by_mpmath("Stepleman, Winarsky 1", lambda m, x: m.exp(x), (-9, -7), (-8.0,)),
    _by_mpmath("Stepleman, Winarsky 2", lambda m, x: m.exp(100 * x), (-0.05, 0.05), (0.01,)),
    _by_mpmath("Stepleman, Winarsky 3", lambda m, x: x**4 + 3 * x**2 - 10 * x, (-3, 3), (0.99999,)),
    _by_mpmath(
        "Stepleman, Winarsky 4", lambda m, x: 10000 * x**3 + 0.01 * x**2 + 5 * x, (-1, 1), (1e-9,)
    ),
    _by_mpmath("Oliver 1", lambda m, x: m.exp(4 * x), (-2, 2), (1.0,)),
    _by_mpmath("Oliver 2", lambda m, x: m.exp(x**2), (-2, 2), (1.0,)),
    _by_mpmath("Oliver 3", lambda m, x: x**2 * m.log(x), (0.1, 5), (1.0,)),
]

# Shapes that losses, potentials and signals have: peaks, waves, saturation, poles.
_SHAPES = [
    _by_mpmath("Runge", lambda m, x: 1 / (1 + 25 * x**2), (-1, 1), (0.1, 0.2, 0.9)),
    _by_mpmath("Gaussian", lambda m, x: m.exp(-(x**2) / 2), (-4, 4), (0.5, 2.0, 4.0)),
    _by_mpmath("fast wave", lambda m, x: m.sin(30 * x), (-3, 3), (0.1, 1.0)),
    _by_mpmath("damped wave", lambda m, x: m.exp(-x) * m.sin(5 * x), (0, 5), (0.5, 2.0)),
    _by_mpmath("logistic", lambda m, x: 1 / (1 + m.exp(-x)), (-6, 6), (0.1, 2.0, 6.0)),
    Function(
        "softplus",
        lambda x: np.logaddexp(0, x),
        lambda x: 1 / (1 + mp.exp(-x)),
        (-6, 6),
        (-3.0, 0.1, 4.0),
    ),
    _by_mpmath("cubic with offset", lambda m, x: x**3 - 2 * x + 100, (-5, 5), (0.1, 2.0)),
    _by_mpmath("Lennard-Jones", lambda m, x: x**-12.0 - x**-6.0, (0.8, 3), (0.9, 1.5)),
    _by_mpmath("power of itself", lambda m, x: x**x, (0.2, 4), (0.5, 1.0, 3.0)),
    _by_mpmath("sinc", lambda m, x: m.sin(x) / x, (0.5, 15), (2.0,)),
    _by_mpmath("chirp", lambda m, x: m.cos(x**2), (0.3, 6), (1.0, 3.0)),
    _by_mpmath("log of cosh", lambda m, x: m.log(m.cosh(x)), (-6, 6), (0.5, 2.0)),
]

FUNCTIONS = _EXAMPLES + _BAUDIN + _SHAPES
"""All functions of the suite."""


def published() -> Iterator[Case]:
    """Yield every function at its own points."""
    for function in FUNCTIONS:
        for x in function.points:
            yield Case(function, x)


def drawn(seed: int, each: int) -> Iterator[Case]:
    """Yield every function at random points of its domain, uniform; seeded."""
    generator = np.random.default_rng(seed)
    for function in FUNCTIONS:
        for x in generator.uniform(*function.domain, size=each):
            yield Case(function, float(x))
