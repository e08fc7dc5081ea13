"""Functions that return arrays, with their Jacobians by formula.

Residuals of J. J. Moré, B. S. Garbow and K. E. Hillstrom, "Testing unconstrained optimization
software", ACM Transactions on Mathematical Software 7 (1981), 17-41, at their starting points;
models that are fitted to data, right-hand sides of differential equations, coordinates, layers.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgrad.typing import Array


@dataclass(frozen=True)
class VectorFunction:
    """A function of an array, its Jacobian, and where it is differentiated.

    Attributes
    ----------
    name : str
    f, jacobian : callable
        ``f(x)``, (m,), and the Jacobian, (m, n), in the type of x.
    x : array (n,)
    """

    name: str
    f: Callable[[Any], Any]
    jacobian: Callable[[Any], Any]
    x: Array

    @property
    def exact(self) -> Array:
        """The Jacobian at x, in extended precision where the machine has it."""
        return np.asarray(self.jacobian(self.x.astype(np.longdouble)))

    def loss(self, x: Any) -> Any:
        """Return half the sum of squares."""
        return (self.f(x) ** 2).sum() / 2

    @property
    def hessian_of_loss(self) -> Array:
        """The Hessian of `loss` at x: complex steps of its gradient, in extended precision."""
        step = np.sqrt(np.finfo(np.longdouble).tiny)  # its square is nothing beside 1
        columns = []
        for j in range(self.x.size):
            x = self.x.astype(np.clongdouble)
            x[j] += 1j * step
            columns.append((self.jacobian(x).T @ self.f(x)).imag / step)
        return np.array(columns)


FUNCTIONS: list[VectorFunction] = []
"""All of them."""


def _add(name: str, f: Callable[[Any], Any], jacobian: Callable[[Any], Any], *x: float) -> None:
    FUNCTIONS.append(VectorFunction(name, f, jacobian, np.array(x, float)))


def _rows(*rows: Any) -> Any:
    """Return an array of rows of numbers."""
    return np.array(rows)


def _columns(*columns: Any) -> Any:
    """Return an array of columns, which are arrays or numbers."""
    return np.stack(np.broadcast_arrays(*columns), axis=-1)


def _data(count: int, start: float = 1.0, step: float = 1.0) -> Array:
    return start + step * np.arange(count)


def tridiagonal(x: Any) -> Any:
    """Return the residual of C. G. Broyden, Mathematics of Computation 19 (1965), 577-593."""
    residual = (3 - 2 * x) * x + 1
    residual[1:] -= x[:-1]
    residual[:-1] -= 2 * x[1:]
    return residual


def tridiagonal_bands(x: Any) -> list[Any]:
    """Return the diagonals of its Jacobian: below, on and above the main one."""
    return [np.full_like(x[1:], -1), 3 - 4 * x, np.full_like(x[1:], -2)]


_add(
    "Rosenbrock",
    lambda x: np.array([10 * (x[1] - x[0] ** 2), 1 - x[0]]),
    lambda x: _rows([-20 * x[0], 10], [-1, 0]),
    *(-1.2, 1),
)
_add(
    "Freudenstein and Roth",
    lambda x: np.array(
        [
            -13 + x[0] + ((5 - x[1]) * x[1] - 2) * x[1],
            -29 + x[0] + ((x[1] + 1) * x[1] - 14) * x[1],
        ]
    ),
    lambda x: _rows([1, 10 * x[1] - 3 * x[1] ** 2 - 2], [1, 3 * x[1] ** 2 + 2 * x[1] - 14]),
    *(0.5, -2),
)
_add(
    "Powell, badly scaled",
    lambda x: np.array([1e4 * x[0] * x[1] - 1, np.exp(-x[0]) + np.exp(-x[1]) - 1.0001]),
    lambda x: _rows([1e4 * x[1], 1e4 * x[0]], [-np.exp(-x[0]), -np.exp(-x[1])]),
    *(0, 1),
)
_add(
    "Brown, badly scaled",
    lambda x: np.array([x[0] - 1e6, x[1] - 2e-6, x[0] * x[1] - 2]),
    lambda x: _rows([1, 0], [0, 1], [x[1], x[0]]),
    *(1, 1),
)
_add(
    "Beale",
    lambda x: np.array([1.5, 2.25, 2.625]) - x[0] * (1 - x[1] ** _data(3)),
    lambda x: _columns(x[1] ** _data(3) - 1, x[0] * _data(3) * x[1] ** _data(3, 0)),
    *(1, 1),
)
_add(
    "Jennrich and Sampson",
    lambda x: 2 + 2 * _data(10) - np.exp(_data(10) * x[0]) - np.exp(_data(10) * x[1]),
    lambda x: -_data(10)[:, np.newaxis] * np.exp(_columns(_data(10) * x[0], _data(10) * x[1])),
    *(0.3, 0.4),
)


def _helical_jacobian(x: Any) -> Any:
    square = x[0] ** 2 + x[1] ** 2
    turn, radius = 50 / (square * 4 * np.arctan(x[0] / x[0])), 10 / np.sqrt(square)
    return _rows([turn * x[1], -turn * x[0], 10], [radius * x[0], radius * x[1], 0], [0, 0, 1])


_add(
    "Helical valley",
    lambda x: np.array(
        [
            10 * x[2] - 50 * np.arctan(x[1] / x[0]) / (4 * np.arctan(x[0] / x[0])),
            10 * (np.sqrt(x[0] ** 2 + x[1] ** 2) - 1),
            x[2],
        ]
    ),
    _helical_jacobian,
    *(1.5, 0.5, 0.25),
)
_U, _V = _data(15), 15 - _data(15, 0)
_W = np.minimum(_U, _V)
_add(
    "Bard",
    lambda x: 1 - x[0] - _U / (_V * x[1] + _W * x[2]),
    lambda x: _columns(
        -1,
        _U * _V / (_V * x[1] + _W * x[2]) ** 2,
        _U * _W / (_V * x[1] + _W * x[2]) ** 2,
    ),
    *(1, 1, 1),
)


def _bell(x: Any) -> Any:
    return np.exp(-x[1] * (_data(15, -3.5, 0.5) - x[2]) ** 2 / 2)


_add(
    "Gaussian",
    lambda x: x[0] * _bell(x) - 0.4,
    lambda x: (
        _bell(x)[:, np.newaxis]
        * _columns(
            1,
            -x[0] * (_data(15, -3.5, 0.5) - x[2]) ** 2 / 2,
            x[0] * x[1] * (_data(15, -3.5, 0.5) - x[2]),
        )
    ),
    *(0.4, 1, 0),
)


def _meyer(x: Any) -> Any:
    return np.exp(x[1] / (_data(16, 50, 5) + x[2]))


_add(
    "Meyer",
    lambda x: x[0] * _meyer(x) - 3e4,
    lambda x: (
        _meyer(x)[:, np.newaxis]
        * _columns(
            1,
            x[0] / (_data(16, 50, 5) + x[2]),
            -x[0] * x[1] / (_data(16, 50, 5) + x[2]) ** 2,
        )
    ),
    *(0.02, 4000, 250),
)
_T = _data(10, 0.125, 0.125)
_add(
    "Box, three dimensions",
    lambda x: np.exp(-_T * x[0]) - np.exp(-_T * x[1]) - x[2] * (np.exp(-_T) - np.exp(-10 * _T)),
    lambda x: _columns(
        -_T * np.exp(-_T * x[0]), _T * np.exp(-_T * x[1]), np.exp(-10 * _T) - np.exp(-_T)
    ),
    *(0, 10, 20),
)
_add(
    "Powell, singular",
    lambda x: np.array(
        [
            x[0] + 10 * x[1],
            2 * (x[2] - x[3]),
            (x[1] - 2 * x[2]) ** 2,
            3 * (x[0] - x[3]) ** 2,
        ]
    ),
    lambda x: _rows(
        [1, 10, 0, 0],
        [0, 0, 2, -2],
        [0, 2 * (x[1] - 2 * x[2]), -4 * (x[1] - 2 * x[2]), 0],
        [6 * (x[0] - x[3]), 0, 0, -6 * (x[0] - x[3])],
    ),
    *(3, -1, 0, 1),
)
_add(
    "Wood",
    lambda x: np.array(
        [
            10 * (x[1] - x[0] ** 2),
            1 - x[0],
            9 * (x[3] - x[2] ** 2),
            1 - x[2],
            3 * (x[1] + x[3] - 2),
            0.25 * (x[1] - x[3]),
        ]
    ),
    lambda x: _rows(
        [-20 * x[0], 10, 0, 0],
        [-1, 0, 0, 0],
        [0, 0, -18 * x[2], 9],
        [0, 0, -1, 0],
        [0, 3, 0, 3],
        [0, 0.25, 0, -0.25],
    ),
    *(-3, -1, -3, -1),
)


def _kowalik_jacobian(x: Any) -> Any:
    below, above = _T**2 + _T * x[2] + x[3], _T**2 + _T * x[1]
    slope = x[0] * above / below**2
    return _columns(-above / below, -x[0] * _T / below, slope * _T, slope)


_add(
    "Kowalik and Osborne",
    lambda x: 0.1 - x[0] * (_T**2 + _T * x[1]) / (_T**2 + _T * x[2] + x[3]),
    _kowalik_jacobian,
    *(0.25, 0.39, 0.415, 0.39),
)
_T20 = _data(20, 0.2, 0.2)


def _brown_dennis_jacobian(x: Any) -> Any:
    first = 2 * (x[0] + _T20 * x[1] - np.exp(_T20))
    second = 2 * (x[2] + x[3] * np.sin(_T20) - np.cos(_T20))
    return _columns(first, first * _T20, second, second * np.sin(_T20))


_add(
    "Brown and Dennis",
    lambda x: (
        (x[0] + _T20 * x[1] - np.exp(_T20)) ** 2 + (x[2] + x[3] * np.sin(_T20) - np.cos(_T20)) ** 2
    ),
    _brown_dennis_jacobian,
    *(25, 5, -5, -1),
)
_T33 = _data(33, 0, 10)
_add(
    "Osborne 1",
    lambda x: 0.8 - x[0] - x[1] * np.exp(-_T33 * x[3]) - x[2] * np.exp(-_T33 * x[4]),
    lambda x: (
        -_columns(
            1,
            np.exp(-_T33 * x[3]),
            np.exp(-_T33 * x[4]),
            -_T33 * x[1] * np.exp(-_T33 * x[3]),
            -_T33 * x[2] * np.exp(-_T33 * x[4]),
        )
    ),
    *(0.5, 1.5, -1, 0.01, 0.02),
)
_add(
    "Biggs, exponentials",
    lambda x: x[2] * np.exp(-_T * x[0]) - x[3] * np.exp(-_T * x[1]) + x[5] * np.exp(-_T * x[4]),
    lambda x: _columns(
        -_T * x[2] * np.exp(-_T * x[0]),
        _T * x[3] * np.exp(-_T * x[1]),
        np.exp(-_T * x[0]),
        -np.exp(-_T * x[1]),
        -_T * x[5] * np.exp(-_T * x[4]),
        np.exp(-_T * x[4]),
    ),
    *(1, 2, 1, 1, 1, 1),
)
_add(
    "Trigonometric",
    lambda x: 8 - np.cos(x).sum() + _data(8) * (1 - np.cos(x)) - np.sin(x),
    lambda x: np.broadcast_to(np.sin(x), (8, 8)) + np.diag(_data(8) * np.sin(x) - np.cos(x)),
    *np.full(8, 1 / 8),
)


def _without_one(x: Any) -> Any:
    """Return the product of all others, for each element."""
    return np.array([np.prod(np.delete(x, i)) for i in range(len(x))])


_add(
    "Brown, almost linear",
    lambda x: np.append(x[:-1] + x.sum() - len(x) - 1, np.prod(x) - 1),
    lambda x: np.vstack([(np.ones((6, 6), x.dtype) + np.eye(6))[:-1], _without_one(x)]),
    *np.full(6, 0.5),
)
_KNOTS = _data(8) / 9


def _boundary_value(x: Any) -> Any:
    residual = 2 * x + (x + _KNOTS + 1) ** 3 / 162
    residual[1:] -= x[:-1]
    residual[:-1] -= x[1:]
    return residual


_add(
    "Discrete boundary value",
    _boundary_value,
    lambda x: np.diag(2 + (x + _KNOTS + 1) ** 2 / 54) - np.eye(8, k=1) - np.eye(8, k=-1),
    *(_KNOTS * (_KNOTS - 1)),
)
_add(
    "Broyden, tridiagonal",
    tridiagonal,
    lambda x: sum(
        np.diag(band, k) for k, band in zip((-1, 0, 1), tridiagonal_bands(x), strict=True)
    ),
    *np.full(10, -1.0),
)
_BAND = np.tri(10, k=1) - np.tri(10, k=-6) - np.eye(10)
_add(
    "Broyden, banded",
    lambda x: x * (2 + 5 * x**2) + 1 - _BAND @ (x * (1 + x)),
    lambda x: np.diag(2 + 15 * x**2) - _BAND * (1 + 2 * x),
    *np.full(10, -1.0),
)
_add(
    "Linear, full rank",
    lambda x: np.append(x, np.zeros(4, x.dtype)) - 0.2 * x.sum() - 1,
    lambda x: np.vstack([np.eye(6), np.zeros((4, 6))]) - 0.2 + 0 * x,
    *np.ones(6),
)
_add(
    "Variably dimensioned",
    lambda x: np.append(x - 1, [_data(6) @ (x - 1), (_data(6) @ (x - 1)) ** 2]),
    lambda x: np.vstack([np.eye(6), _data(6), 2 * (_data(6) @ (x - 1)) * _data(6)]),
    *(1 - _data(6) / 6),
)


def _chebyshev(x: Any) -> tuple[Any, Any]:
    """Return the first six shifted polynomials, and their derivatives by x."""
    y = 2 * x - 1
    values, slopes = [np.ones_like(y), y], [np.zeros_like(y), np.ones_like(y)]
    for _ in range(5):
        slopes.append(2 * values[-1] + 2 * y * slopes[-1] - slopes[-2])
        values.append(2 * y * values[-1] - values[-2])
    return np.array(values[1:]), 2 * np.array(slopes[1:])


_add(
    "Chebyshev quadrature",
    lambda x: _chebyshev(x)[0].mean(axis=1),
    lambda x: _chebyshev(x)[1] / len(x),
    *(_data(6) / 7),
)

# Models that are fitted to data ------------------------------------------------------------------


def _logistic(z: Any) -> Any:
    return 1 / (1 + np.exp(-z))


def _growth_jacobian(x: Any) -> Any:
    share = _logistic(x[1] * (_T20 - x[2]))
    slope = x[0] * share * (1 - share)
    return _columns(share, slope * (_T20 - x[2]), -slope * x[1])


_add(
    "logistic growth",
    lambda x: x[0] * _logistic(x[1] * (_T20 - x[2])),
    _growth_jacobian,
    *(10, 1.5, 2),
)
_add(
    "Michaelis and Menten",
    lambda x: x[0] * _T20 / (x[1] + _T20),
    lambda x: _columns(_T20 / (x[1] + _T20), -x[0] * _T20 / (x[1] + _T20) ** 2),
    *(200, 0.06),
)
_add(
    "damped wave",
    lambda x: x[0] * np.exp(-x[1] * _T20) * np.cos(x[2] * _T20),
    lambda x: (
        np.exp(-x[1] * _T20)[:, np.newaxis]
        * _columns(
            np.cos(x[2] * _T20),
            -_T20 * x[0] * np.cos(x[2] * _T20),
            -_T20 * x[0] * np.sin(x[2] * _T20),
        )
    ),
    *(2, 0.3, 6),
)
_add(
    "power law",
    lambda x: x[0] * _T20 ** x[1],
    lambda x: _columns(_T20 ** x[1], x[0] * _T20 ** x[1] * np.log(_T20.astype(x.dtype))),
    *(3, 1.5),
)


def _hill_jacobian(x: Any) -> Any:
    t = _T20.astype(x.dtype)
    share = 1 / (1 + (x[1] / t) ** x[2])
    slope = x[0] * share * (1 - share)
    return _columns(share, -slope * x[2] / x[1], slope * np.log(t / x[1]))


_add(
    "Hill",
    lambda x: x[0] / (1 + (x[1] / _T20) ** x[2]),
    _hill_jacobian,
    *(5, 1.3, 2.5),
)
_add(
    "Arrhenius",
    lambda x: x[0] * np.exp(-x[1] / _data(12, 300, 20)),
    lambda x: (
        np.exp(-x[1] / _data(12, 300, 20))[:, np.newaxis] * _columns(1, -x[0] / _data(12, 300, 20))
    ),
    *(1e7, 5000),
)

# Differential equations, coordinates, layers -----------------------------------------------------

_add(
    "Lotka and Volterra",
    lambda x: np.array([1.5 * x[0] - x[0] * x[1], x[0] * x[1] - 3 * x[1]]),
    lambda x: _rows([1.5 - x[1], -x[0]], [x[1], x[0] - 3]),
    *(10, 5),
)
_add(
    "Lorenz",
    lambda x: np.array([10 * (x[1] - x[0]), x[0] * (28 - x[2]) - x[1], x[0] * x[1] - 2.5 * x[2]]),
    lambda x: _rows([-10, 10, 0], [28 - x[2], -1, -x[0]], [x[1], x[0], -2.5]),
    *(1.5, -2.5, 20),
)
_add(
    "Van der Pol",
    lambda x: np.array([x[1], 1000 * (1 - x[0] ** 2) * x[1] - x[0]]),
    lambda x: _rows([0, 1], [-2000 * x[0] * x[1] - 1, 1000 * (1 - x[0] ** 2)]),
    *(2, -0.66),
)
_add(
    "Robertson",
    lambda x: np.array(
        [
            -0.04 * x[0] + 1e4 * x[1] * x[2],
            0.04 * x[0] - 1e4 * x[1] * x[2] - 3e7 * x[1] ** 2,
            3e7 * x[1] ** 2,
        ]
    ),
    lambda x: _rows(
        [-0.04, 1e4 * x[2], 1e4 * x[1]],
        [0.04, -1e4 * x[2] - 6e7 * x[1], -1e4 * x[1]],
        [0, 6e7 * x[1], 0],
    ),
    *(0.9, 2e-5, 0.1),
)
_add(
    "polar coordinates",
    lambda x: np.array([np.sqrt(x[0] ** 2 + x[1] ** 2), np.arctan(x[1] / x[0])]),
    lambda x: _rows([*(x / np.sqrt((x**2).sum()))], [-x[1] / (x**2).sum(), x[0] / (x**2).sum()]),
    *(3, -4),
)
_add(
    "spherical coordinates",
    lambda x: (
        x[0] * np.array([np.sin(x[1]) * np.cos(x[2]), np.sin(x[1]) * np.sin(x[2]), np.cos(x[1])])
    ),
    lambda x: _rows(
        [
            np.sin(x[1]) * np.cos(x[2]),
            x[0] * np.cos(x[1]) * np.cos(x[2]),
            -x[0] * np.sin(x[1]) * np.sin(x[2]),
        ],
        [
            np.sin(x[1]) * np.sin(x[2]),
            x[0] * np.cos(x[1]) * np.sin(x[2]),
            x[0] * np.sin(x[1]) * np.cos(x[2]),
        ],
        [np.cos(x[1]), -x[0] * np.sin(x[1]), 0],
    ),
    *(2, 0.7, 4),
)
_add(
    "arm of two links",
    lambda x: np.array(
        [2 * np.cos(x[0]) + np.cos(x[0] + x[1]), 2 * np.sin(x[0]) + np.sin(x[0] + x[1])]
    ),
    lambda x: _rows(
        [-2 * np.sin(x[0]) - np.sin(x[0] + x[1]), -np.sin(x[0] + x[1])],
        [2 * np.cos(x[0]) + np.cos(x[0] + x[1]), np.cos(x[0] + x[1])],
    ),
    *(0.4, 1.1),
)
_MATRIX = np.random.default_rng(0).normal(size=(6, 5))
_POINT = np.random.default_rng(1).normal(size=5)


def _softmax(x: Any) -> Any:
    return np.exp(x) / np.exp(x).sum()


_add(
    "softmax",
    _softmax,
    lambda x: np.diag(_softmax(x)) - np.outer(_softmax(x), _softmax(x)),
    *_POINT,
)
_add(
    "log of a softmax",
    lambda x: x - np.log(np.exp(x).sum()),
    lambda x: np.eye(5) - _softmax(x),
    *_POINT,
)
_add(
    "layer of tanh",
    lambda x: np.tanh(_MATRIX @ x),
    lambda x: _MATRIX / np.cosh(_MATRIX @ x)[:, np.newaxis] ** 2,
    *_POINT,
)
_add(
    "layer of sigmoids",
    lambda x: _logistic(_MATRIX @ x),
    lambda x: (_logistic(_MATRIX @ x) * _logistic(-_MATRIX @ x))[:, np.newaxis] * _MATRIX,
    *_POINT,
)
_add(
    "unit vector",
    lambda x: x / np.sqrt((x**2).sum()),
    lambda x: (np.eye(5) - np.outer(x, x) / (x**2).sum()) / np.sqrt((x**2).sum()),
    *_POINT,
)
_add(
    "outer product",
    lambda x: np.outer(x, x).reshape(-1),
    lambda x: np.kron(x[:, np.newaxis], np.eye(5)) + np.kron(np.eye(5), x[:, np.newaxis]),
    *_POINT,
)
