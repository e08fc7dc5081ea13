"""Random functions with their right gradients, on which gradient checks are tried.

Four kinds: linear ones, ones at kinks or at the edge of their domain, ones that compute in float32,
and ordinary ones. And a table of NumPy's and SciPy's elementary functions with their derivatives.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.typing import Array


@dataclass(frozen=True)
class Example:
    """A function with its gradient.

    Attributes
    ----------
    kind, name : str
    f : callable
    x, gradient : array
    smooth : array of bool
        Where a wrong gradient is one: at a kink anything between two slopes is right.
    """

    kind: str
    name: str
    f: Callable[[Array], Any]
    x: Array
    gradient: Array
    smooth: NDArray[np.bool_]


def example(seed: int) -> Example:
    """Return the example with this number, of the four kinds in turn."""
    random = np.random.default_rng([2029, seed])
    kind = [*KINDS][seed % len(KINDS)]
    makers = KINDS[kind]
    maker = makers[int(random.integers(len(makers)))]
    f, x, gradient, *smooth = maker(random)
    where = smooth[0] if smooth else np.ones(x.shape, np.bool_)
    return Example(kind, maker.__name__, f, x, np.asarray(gradient), where)


def planted(given: Example, random: np.random.Generator, share: float = 1e-4) -> Array | None:
    """Return the gradient with an error of this share in one element; None if no one can see it.

    That is told by central differences at many steps, in float32 up to a check's own: the
    error has to be 20 times what these differ by from each other, and round-off.
    """
    places = np.flatnonzero(given.smooth.reshape(-1) & (given.gradient.reshape(-1) != 0))
    if not places.size:
        return None
    place = int(random.choice(places))
    wrong = np.array(given.gradient, float, order="C")
    error = share * wrong.reshape(-1)[place] * float(random.choice([-1, 1]))
    direction = np.zeros(given.x.size)
    direction[place] = 1
    if not VISIBLE * known_to(given, direction.reshape(given.x.shape)) < abs(error):
        return None
    wrong.reshape(-1)[place] += error
    return wrong


VISIBLE = 20.0
"""Times what differences differ by that an error is to be seen by them."""


def known_to(given: Example, direction: Array) -> float:
    """Return how well differences know a derivative along a direction, at the best step.

    Known is what neighbouring steps agree on, and what is the derivative: beyond a kink next to x
    they agree on something else.

    A check can hardly be asked for more: where noise hides the steps between x and the kink, f's
    values are those of the derivative beyond it. Of 5,570 errors this leaves out 20, all of
    weighted absolute values next to 0; a full check sees 8 of them, and approves 12.
    """
    x, single = given.x, given.kind == "float32"
    eps = float(np.finfo(np.float32 if single else np.float64).eps)
    size = max(1.0, float(np.max(abs(x[direction != 0])))) * (2.0**-8 if single else 2.0**-10)
    exact = float(np.sum(np.asarray(given.gradient, float) * direction))
    rows, best = [], np.inf
    with np.errstate(all="ignore"):
        for step in size * 2.0 ** -np.arange(40):
            up, down = ((x + s * direction).astype(x.dtype) for s in (step, -step))
            went = float(np.max(abs(up.astype(float) - down))) or np.nan
            above, below = _value(given.f, up), _value(given.f, down)
            terms = float(np.linalg.norm(x * given.gradient))
            noise = 4 * eps * max(abs(above), abs(below), terms) / went
            quotient = (above - below) / went * float(np.max(abs(direction)))
            rows.append((quotient, noise))
            if len(rows) > 2:
                # The largest of two changes: one may be small by chance.
                change = max(abs(rows[-1][0] - rows[-2][0]), abs(rows[-2][0] - rows[-3][0]))
                best = np.fmin(best, max(change + noise, abs(quotient - exact)))
    return float(best)


def _value(f: Callable[[Array], Any], x: Array) -> float:
    try:
        return float(f(x))
    except (ValueError, OverflowError):
        return float("nan")


def _scale(random: np.random.Generator, low: float, high: float) -> float:
    return float(10 ** random.uniform(low, high))


def _point(random: np.random.Generator, low: float = -3, high: float = 3) -> Array:
    x: Array = random.normal(size=int(random.integers(1, 13))) * _scale(random, low, high)
    return x


# Linear functions


def weighted(random: np.random.Generator) -> Any:
    """Make a product with weights; half of the time orthogonal to them, so that f is nearly 0."""
    x = _point(random)
    w = random.normal(size=x.size) * _scale(random, -6, 6)
    if random.random() < 0.5:
        x = x - w * (w @ x) / (w @ w)
    if not x.any():
        x = x + 1
    return lambda v: float(w @ v), x, w


def summed(random: np.random.Generator) -> Any:
    """Make a sum, by NumPy or by Python."""
    x = _point(random)
    f = (lambda v: v.sum()) if random.random() < 0.5 else (lambda v: sum(v.tolist()))
    return f, x, np.ones(x.size)


def mean_of_standardised(random: np.random.Generator) -> Any:
    """Make the mean of a linear model of data whose columns have the mean 0."""
    x = _point(random)
    data = random.normal(size=(int(random.integers(5, 60)), x.size))
    data = (data - data.mean(axis=0)) / data.std(axis=0)
    return lambda v: float((data @ v).mean()), x, data.mean(axis=0), np.zeros(x.shape, np.bool_)


def with_constant(random: np.random.Generator) -> Any:
    """Make a linear function beside a large constant."""
    x, c = _point(random, -1, 1), _scale(random, 0, 8)
    w = random.normal(size=x.size)
    return lambda v: float(c + (w * v).sum()), x, w


def huge(random: np.random.Generator) -> Any:
    """Make a linear function of huge or tiny numbers."""
    x = random.normal(size=3) * _scale(random, -150, 150)
    w = random.normal(size=3) * _scale(random, -100, 100)
    return lambda v: float(w @ v), x, w


# Kinks and edges


def _near(random: np.random.Generator, size: int) -> Array:
    """Return points of which some are at 0, some next to it."""
    x = random.normal(size=size)
    x[random.random(size) < 0.3] = 0
    close = random.random(size) < 0.3
    x[close] *= _scale(random, -12, -3)
    return x


def absolute(random: np.random.Generator) -> Any:
    """Make an L1 norm, with weights."""
    x = _near(random, int(random.integers(1, 9)))
    w = random.normal(size=x.size)
    return lambda v: float((w * abs(v)).sum()), x, w * np.sign(x), x != 0


def hinge(random: np.random.Generator) -> Any:
    """Make a sum of hinges, by Python's max, which returns an int where they are 0."""
    x = random.normal(size=4) + 1
    x[random.random(4) < 0.3] = 1
    return lambda v: sum(max(0, 1 - u) for u in v), x, np.where(x < 1, -1.0, 0.0), x != 1


def relu(random: np.random.Generator) -> Any:
    """Make a sum of ReLU units of data, of which one may be exactly at 0."""
    data = random.normal(size=(int(random.integers(1, 20)), 5))
    x = random.normal(size=5)
    if random.random() < 0.5:  # the first unit at 0: of several, the effects would add up
        data[0], x[:2] = [1.0, 1.0, 0.0, 0.0, 0.0], x[0] * np.array([1, -1])
    units = data @ x
    w = random.normal(size=len(data))

    def f(v: Array) -> float:
        return float((w * np.maximum(data @ v, 0)).sum())

    smooth = np.ones(5, np.bool_)
    if units[0] == 0:
        smooth[:2] = False
    return f, x, (w * (units > 0)) @ data, smooth


def norm_at_zero(random: np.random.Generator) -> Any:
    """Make the Euclidean norm at 0, where any gradient up to a length of 1 is right."""
    x = np.zeros(int(random.integers(1, 6)))
    gradient = random.uniform(-1, 1, x.size) / np.sqrt(x.size) * float(random.integers(2))
    return lambda v: float(np.linalg.norm(v)), x, gradient, np.zeros(x.shape, np.bool_)


def largest(random: np.random.Generator) -> Any:
    """Make a maximum, with ties."""
    x = np.round(random.normal(size=5), 1)
    if random.random() < 0.5:
        x[random.integers(5)] = x.max()
    gradient = np.zeros(5)
    gradient[x.argmax()] = 1
    tied = np.count_nonzero(x == x.max()) > 1
    return lambda v: v.max(), x, gradient, ~((x == x.max()) & tied)


def edge_of_domain(random: np.random.Generator) -> Any:
    """Make logarithms and roots next to the edge of their domain."""
    x = random.uniform(0.5, 2, 3)
    x[0] = _scale(random, -9, -3)
    if random.random() < 0.5:
        return lambda v: float(np.log(v).sum()), x, 1 / x
    return lambda v: float(np.sqrt(v).sum()), x, 0.5 / np.sqrt(x)


def edge_of_a_ball(random: np.random.Generator) -> Any:
    """Make an arc's sine and a root, next to 1."""
    x = random.uniform(-0.9, 0.9, 3)
    x[0] = 1 - _scale(random, -7, -3)
    if random.random() < 0.5:
        return lambda v: float(np.arcsin(v).sum()), x, 1 / np.sqrt((1 - x) * (1 + x))
    return lambda v: float(np.sqrt((1 - v) * (1 + v)).sum()), x, -x / np.sqrt((1 - x) * (1 + x))


def clipped(random: np.random.Generator) -> Any:
    """Make a function that is cut off on both sides, with points next to the corners."""
    x = random.normal(size=6)
    x[0] = 1 + random.choice([-1, 1]) * _scale(random, -8, -3)
    return lambda v: float((np.clip(v, -1, 1) ** 3).sum()), x, 3 * x**2 * (abs(x) < 1)


# Float32


def _single(random: np.random.Generator, size: int) -> Array:
    x: Array = (random.normal(size=size) * _scale(random, -1, 1)).astype(np.float32)
    return x


def sines_in_float32(random: np.random.Generator) -> Any:
    """Make a sum of sines."""
    x = _single(random, int(random.integers(1, 9)))
    return lambda v: np.sin(v).sum(), x, np.cos(x)


def linear_in_float32(random: np.random.Generator) -> Any:
    """Make a product with weights, half of the time nearly 0."""
    x = _single(random, 6)
    w = _single(random, 6)
    if random.random() < 0.5:
        x = (x - w * (w @ x) / (w @ w)).astype(np.float32)
    return lambda v: w @ v, x, w


def net_in_float32(random: np.random.Generator) -> Any:
    """Make the mean square of tanh units; x is of float32, or f computes in it by itself."""
    data = random.normal(size=(20, 5)).astype(np.float32)
    inside = random.random() < 0.5
    x = random.normal(size=5).astype(np.float64 if inside else np.float32)
    units = np.tanh(data.astype(float) @ x.astype(float))
    gradient = 2 * (units * (1 - units**2)) @ data.astype(float) / 20

    def f(v: Array) -> Any:
        return (np.tanh(data @ v.astype(np.float32)) ** 2).mean()

    return f, x, gradient


def exponentials_in_float32(random: np.random.Generator) -> Any:
    """Make the logarithm of a sum of exponentials, with a gradient in float32."""
    x = _single(random, 5)

    def f(v: Array) -> Any:
        return np.log(np.exp(v - v.max()).sum()) + v.max()

    powers = np.exp(x - x.max())
    return f, x, powers / powers.sum()


# Ordinary functions


def waves(random: np.random.Generator) -> Any:
    """Make sines of any frequency and size, beside a constant."""
    x, w = _point(random, -2, 1), _scale(random, -2, 4)
    size, c = _scale(random, -8, 8), _scale(random, -2, 3) * float(random.integers(2))
    return lambda v: float(size * (c + np.sin(w * v).sum())), x, size * w * np.cos(w * x)


def exponentials(random: np.random.Generator) -> Any:
    """Make exponentials, which may be of very different sizes."""
    x, w = random.normal(size=4), _scale(random, -1, 2.3)
    return lambda v: float(np.exp(w * v).sum()), x, w * np.exp(w * x)


def bell(random: np.random.Generator) -> Any:
    """Make a bell curve, which may be tiny."""
    x, w = random.normal(size=3), _scale(random, -1, 2.2)
    return lambda v: float(np.exp(-w * (v @ v))), x, -2 * w * x * np.exp(-w * (x @ x))


def quadratic(random: np.random.Generator) -> Any:
    """Make a quadratic form."""
    x = _point(random)
    a = random.normal(size=(x.size, x.size))
    return lambda v: float(v @ a @ v), x, (a + a.T) @ x


def rosenbrock(random: np.random.Generator) -> Any:
    """Make Rosenbrock's function."""
    x = random.normal(size=2) * 2
    gradient = [-400 * x[0] * (x[1] - x[0] ** 2) - 2 * (1 - x[0]), 200 * (x[1] - x[0] ** 2)]
    return lambda v: 100 * (v[1] - v[0] ** 2) ** 2 + (1 - v[0]) ** 2, x, gradient


def product(random: np.random.Generator) -> Any:
    """Make a product of all elements."""
    x = random.uniform(0.2, 2, int(random.integers(2, 8))) * random.choice([-1, 1])
    return lambda v: float(v.prod()), x, x.prod() / x


def determinant(random: np.random.Generator) -> Any:
    """Make the logarithm of a determinant."""
    a = random.normal(size=(3, 3))
    x = a @ a.T + np.eye(3)
    return lambda v: np.linalg.slogdet(v)[1], x, np.linalg.inv(x).T


def logistic(random: np.random.Generator) -> Any:
    """Make the loss of logistic regression, with weight decay."""
    data, t = random.normal(size=(30, 6)), random.integers(0, 2, 30)
    x, decay = random.normal(size=6), _scale(random, -4, 0)

    def f(v: Array) -> float:
        return float(np.logaddexp(0, -(2 * t - 1) * (data @ v)).mean() + decay / 2 * (v @ v))

    return f, x, (1 / (1 + np.exp(-(data @ x))) - t) @ data / 30 + decay * x


def minimum(random: np.random.Generator) -> Any:
    """Make a sum of squares at its minimum, or next to it."""
    c = random.normal(size=5)
    x = c + random.normal(size=5) * _scale(random, -12, -2) * float(random.integers(2))
    return lambda v: float(((v - c) ** 2).sum()), x, 2 * (x - c)


KINDS: dict[str, list[Callable[[np.random.Generator], Any]]] = {
    "linear": [weighted, summed, mean_of_standardised, with_constant, huge],
    "kinks and edges": [
        absolute, hinge, relu, norm_at_zero, largest, edge_of_domain, edge_of_a_ball, clipped,
    ],
    "float32": [sines_in_float32, linear_in_float32, net_in_float32, exponentials_in_float32],
    "ordinary": [
        waves, exponentials, bell, quadratic, rosenbrock, product, determinant, logistic, minimum,
    ],
}  # fmt: skip


# Elementary functions


def elementary() -> list[tuple[Any, Any, float, float]]:
    """Return NumPy's and SciPy's elementary functions, their derivatives, and where they are."""
    from scipy import special as sp

    def lambertw(x: Array) -> Any:
        return sp.lambertw(x).real

    root_pi = np.sqrt(np.pi)
    return [
        (np.sin, np.cos, -4, 4),
        (np.cos, lambda x: -np.sin(x), -4, 4),
        (np.tan, lambda x: 1 / np.cos(x) ** 2, -1.4, 1.4),
        (np.arcsin, lambda x: 1 / np.sqrt(1 - x**2), -0.99, 0.99),
        (np.arccos, lambda x: -1 / np.sqrt(1 - x**2), -0.99, 0.99),
        (np.arctan, lambda x: 1 / (1 + x**2), -5, 5),
        (np.sinh, np.cosh, -4, 4),
        (np.cosh, np.sinh, -4, 4),
        (np.tanh, lambda x: 1 / np.cosh(x) ** 2, -4, 4),
        (np.arcsinh, lambda x: 1 / np.sqrt(1 + x**2), -5, 5),
        (np.arccosh, lambda x: 1 / np.sqrt(x**2 - 1), 1.01, 5),
        (np.arctanh, lambda x: 1 / (1 - x**2), -0.99, 0.99),
        (np.exp, np.exp, -5, 5),
        (np.exp2, lambda x: np.log(2) * np.exp2(x), -5, 5),
        (np.expm1, np.exp, -5, 5),
        (np.log, lambda x: 1 / x, 0.01, 5),
        (np.log2, lambda x: 1 / x / np.log(2), 0.01, 5),
        (np.log10, lambda x: 1 / x / np.log(10), 0.01, 5),
        (np.log1p, lambda x: 1 / (1 + x), -0.99, 5),
        (np.sqrt, lambda x: 0.5 / np.sqrt(x), 0.01, 5),
        (np.cbrt, lambda x: np.cbrt(x) / x / 3, 0.01, 5),
        (np.square, lambda x: 2 * x, -5, 5),
        (np.reciprocal, lambda x: -1 / x**2, 0.1, 5),
        (np.negative, lambda x: -np.ones_like(x), -5, 5),
        (np.positive, np.ones_like, -5, 5),
        (np.abs, np.sign, -5, 5),
        (np.fabs, np.sign, -5, 5),
        (np.deg2rad, lambda x: np.full_like(x, np.pi / 180), -90, 90),
        (np.rad2deg, lambda x: np.full_like(x, 180 / np.pi), -5, 5),
        (np.sinc, lambda x: (np.cos(np.pi * x) - np.sinc(x)) / x, 0.1, 5),
        (np.i0, sp.i1, -4, 4),
        (np.floor, np.zeros_like, 0.1, 0.9),
        (np.sign, np.zeros_like, 0.1, 5),
        (sp.expit, lambda x: sp.expit(x) * sp.expit(-x), -5, 5),
        (sp.logit, lambda x: 1 / (x * (1 - x)), 0.01, 0.99),
        (sp.log_expit, lambda x: sp.expit(-x), -5, 5),
        (sp.erf, lambda x: 2 / root_pi * np.exp(-(x**2)), -3, 3),
        (sp.erfc, lambda x: -2 / root_pi * np.exp(-(x**2)), -3, 3),
        (sp.erfinv, lambda x: root_pi / 2 * np.exp(sp.erfinv(x) ** 2), -0.99, 0.99),
        (sp.ndtr, lambda x: np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), -3, 3),
        (sp.gamma, lambda x: sp.gamma(x) * sp.psi(x), 0.2, 5),
        (sp.gammaln, sp.psi, 0.2, 20),
        (sp.psi, lambda x: sp.polygamma(1, x), 0.2, 5),
        (sp.j0, lambda x: -sp.j1(x), -8, 8),
        (sp.j1, lambda x: (sp.j0(x) - sp.jn(2, x)) / 2, -8, 8),
        (sp.y0, lambda x: -sp.y1(x), 0.5, 8),
        (sp.i1, lambda x: (sp.i0(x) + sp.iv(2, x)) / 2, -3, 3),
        (sp.k0, lambda x: -sp.k1(x), 0.2, 5),
        (sp.entr, lambda x: -np.log(x) - 1, 0.01, 5),
        (lambertw, lambda x: sp.lambertw(x).real / x / (1 + sp.lambertw(x).real), 0.1, 5),
        (sp.exprel, lambda x: (x * np.exp(x) - np.expm1(x)) / x**2, 0.5, 4),
        (sp.spence, lambda x: -np.log(x) / (x - 1), 1.5, 5),
        (sp.dawsn, lambda x: 1 - 2 * x * sp.dawsn(x), -3, 3),
        (sp.ellipk, lambda m: (sp.ellipe(m) / (1 - m) - sp.ellipk(m)) / (2 * m), 0.1, 0.9),
        (sp.ellipe, lambda m: (sp.ellipe(m) - sp.ellipk(m)) / (2 * m), 0.1, 0.9),
    ]


FORMS: dict[str, tuple[Callable[[Array, Array], Any], Callable[[Array, Array], Array]]] = {
    "sum": (lambda y, w: y.sum(), lambda y, w: np.ones_like(y)),
    "weighted": (lambda y, w: float(w @ y), lambda y, w: w),
    "squares": (lambda y, w: float((y**2).mean()), lambda y, w: 2 * y / y.size),
    "cubes": (lambda y, w: float((w * y**3).sum()), lambda y, w: 3 * w * y**2),
    "product": (
        lambda y, w: (1 + y**2).prod(), lambda y, w: 2 * y * (1 + y**2).prod() / (1 + y**2),
    ),
    "norm": (
        lambda y, w: np.linalg.norm(np.append(y, 1.0)),
        lambda y, w: y / np.linalg.norm(np.append(y, 1.0)),
    ),
    "determinant": (
        lambda y, w: np.linalg.det(np.eye(y.size) + np.outer(y, w)), lambda y, w: w,
    ),
}  # fmt: skip
"""What is made of the values y of an elementary function, with weights w, and its derivative."""


def primitives(seed: int = 0) -> Iterator[Example]:
    """Yield an example for each elementary function in each form, at random points."""
    for k, (inner, derivative, low, high) in enumerate(elementary()):
        for j, (form, (value, slope)) in enumerate(FORMS.items()):
            random = np.random.default_rng([seed, k, j])
            x, w = random.uniform(low, high, 4), random.normal(size=4)

            def f(v: Array, inner: Any = inner, value: Any = value, w: Any = w) -> Any:
                return value(inner(v), w)

            gradient = slope(inner(x), w) * derivative(x)
            smooth = np.ones(4, np.bool_)
            yield Example("primitives", f"{form} of {inner.__name__}", f, x, gradient, smooth)
