"""FiniteDifferences.jl: schemes of many points, Jacobians, products, and structures.

Answers to test/methods.jl and test/grad.jl; values by interpolation (derivative 0) are left out.
"""

from functools import partial
from itertools import product
from math import cos, exp, factorial, pi, sin, sqrt

import numpy as np

from fastgrad import (
    differentiate,
    directional_derivative,
    jacobian,
    numerical_gradient,
    vector_jacobian_product,
)
from fastgrad.schemes import from_offsets

from . import Case

PEER = "FiniteDifferences.jl"

ROOT_EPS = {np.float32: 2.0**-11.5, np.float64: 2.0**-26}
"""The relative tolerances of each precision where none are given."""

RTOL = ROOT_EPS[np.float64]


def central(points, derivative=1):
    """Return the scheme on points around x, without x itself if their number is even."""
    half = points // 2
    return from_offsets([k for k in range(-half, half + 1) if k or points % 2], derivative)


def forward(points, derivative=1):
    """Return the scheme on x and the points above it."""
    return from_offsets(range(points), derivative)


def backward(points, derivative=1):
    """Return the scheme on x and the points below it."""
    return from_offsets(range(1 - points, 1), derivative)


METHODS = {"forward": forward, "backward": backward, "central": central}

measured = partial(numerical_gradient, h="auto")
"""A gradient by measured steps."""

pulled_back = partial(vector_jacobian_product, h="auto")
"""The same of a product on the left."""


def derivative_of_sinc(x):
    """Return the derivative of sin(pi x) / (pi x)."""
    y = pi * np.asarray(x, float)
    series = -y * sum((-(y**2)) ** k / (2 * k + 3) / factorial(2 * k + 1) for k in range(8))
    safe = np.where(y == 0, 1.0, y)
    return pi * np.where(abs(y) < 1, series, (np.cos(safe) - np.sin(safe) / safe) / safe)[()]


FUNCTIONS_AT_1 = {
    "sin": (np.sin, cos(1), -sin(1)),
    "exp": (np.exp, exp(1), exp(1)),
    "x**2": (np.square, 2.0, 2.0),
    "sqrt(x + 1)": (lambda x: np.sqrt(x + 1), 0.5 / sqrt(2), -0.25 / 2**1.5),
}

# f, x, the derivative, and absolute tolerances of one-sided schemes and of central ones.
TIGHT = {
    "0": (lambda x: 0, 0, 0.0, 0.0, 0.0),
    "x": (lambda x: x, 0, 1.0, 5e-15, 5e-16),
    "exp at 0": (np.exp, 0, 1.0, 5e-13, 5e-14),
    "sin at 0": (np.sin, 0, 1.0, 1e-14, 5e-16),
    "cos at 0": (np.cos, 0, 0.0, 5e-14, 5e-14),
    "exp at 1": (np.exp, 1, exp(1), 5e-12, 5e-13),
    "sin at 1": (np.sin, 1, cos(1), 5e-13, 5e-14),
    "cos at 1": (np.cos, 1, -sin(1), 5e-13, 5e-14),
    "sinc": (np.sinc, 0, 0.0, 5e-12, 5e-14),
    "derivative of sinc": (derivative_of_sinc, 0, -(pi**2) / 3, 5e-9, 5e-10),
}


def cases():
    """Yield all."""
    yield from correctness()
    yield from accuracy()
    yield from options()
    yield from jacobians()
    yield from several_arguments()
    yield from products()
    yield from complex_numbers()


def correctness():
    """Yield ten points of each method, first and second derivatives, in both precisions."""
    for (name, (f, *exact)), (method, scheme) in product(FUNCTIONS_AT_1.items(), METHODS.items()):
        if name.startswith("sqrt") and method != "forward":
            continue
        for dtype, order in ((np.float32, 1), (np.float64, 1), (np.float64, 2)):
            call = partial(measured, f, np.array(1, dtype), scheme=scheme(10, order))
            title = f"Correctness: {name}, {method}(10, {order}), {dtype.__name__}"
            yield Case(title, call, exact[order - 1], ROOT_EPS[dtype])


def accuracy():
    """Yield the errors that they promise for single points."""
    for (name, (f, x, exact, *tolerances)), (method, scheme), points in product(
        TIGHT.items(), METHODS.items(), (6, 7, 14)
    ):
        atol = tolerances[method == "central"]
        if points == 14:
            atol = 1e-13 if f is derivative_of_sinc else 5e-15
        if points < 14 or method == "central":
            call = partial(differentiate, f, x, scheme=scheme(points))
            yield Case(f"Accuracy: {name}, {method}({points}, 1)", call, exact, 0.0, atol)


def options():
    """Yield grids, steps and ranges that are given, high orders, and callable objects."""
    custom, five, ten = from_offsets([-2, 0, 5]), central(5), central(10)
    yield Case("Custom grid", partial(measured, np.sin, 1, scheme=custom), cos(1), RTOL)
    call = partial(measured, lambda x: 5, 0, scheme=five)
    yield Case("Integer output", call, 0.0, 1e-12, 1e-12)
    call = partial(measured, np.log, 0.001, scheme=forward(5))
    yield Case("Adaptation improves estimate: adapt=1", call, 1000.0, RTOL)
    call = partial(measured, np.log, 1e-3, scheme=ten, bounds=(1e-4, 1.9e-3))
    yield Case("Limiting step size: max_range=9e-4", call, 1000.0, RTOL)
    call = partial(measured, np.abs, 0.001, scheme=five)
    yield Case("Limiting step size: abs", call, 1.0, RTOL)
    call = partial(numerical_gradient, np.abs, 0.001, 0.0, scheme=five)
    remedy = "h is 0.0, but the step is positive and finite; pass one such as 1e-4"
    yield Case("Limiting step size: max_range=0", call, refusal=remedy)
    cubic = np.poly1d([4.0, 3.0, 2.0, 1.0])
    for name, function, f, scheme, exact, atol in (
        ("exp, central(9, 5)", differentiate, np.exp, central(9, 5), exp(1), 2e-7),
        ("exp, central(15, 5)", measured, np.exp, central(15, 5), exp(1), 1e-10),
        ("polynomial, central(9, 3)", differentiate, cubic, central(9, 3), 24.0, 1e-11),
    ):
        call = partial(function, f, 1.0, scheme=scheme)
        yield Case(f"High orders: {name}", call, exact, 0.0, atol)
    for method, scheme in METHODS.items():
        for x in (1, 1.0):
            call = partial(differentiate, np.exp, x, scheme=scheme(4, 3))
            yield Case(f"extrapolate_fdm: {method}(4, 3) at {x!r}", call, exp(1), 0.0, 1e-7)
        call = partial(measured, np.poly1d([1.0, 0.0, 0.0]), 0.7, scheme=scheme(5))
        yield Case(f"No function, but callable: {method}", call, 1.4, RTOL)
    two = central(2)
    yield Case("Printing", lambda: (two.offsets, two.numerators), ((1, -1), (1, -1)), 0.0)


def jacobians():
    """Yield Jacobians of linear functions and of their sines, also where f raises."""
    scheme = central(5)
    rng = np.random.default_rng(123456)
    A, x, v, w = (rng.standard_normal(shape) for shape in ((3, 2), 2, 2, 3))
    call = partial(measured, lambda x: np.sin(x[0]) + np.cos(x[1]), x, scheme=scheme)
    yield Case("grad: sin + cos", call, [cos(x[0]), -sin(x[1])], RTOL)
    for name, f, exact in (
        ("A x", lambda x: A @ x, A),
        ("sin(A x)", lambda x: np.sin(A @ x), np.cos(A @ x)[:, np.newaxis] * A),
        ("x", lambda x: x, np.eye(2)),
    ):
        call = partial(jacobian, f, x, scheme=scheme)
        yield Case(f"jacobian: {name}", call, exact, RTOL, RTOL)
        call = partial(directional_derivative, f, x, v, scheme=scheme)
        yield Case(f"jvp: {name}", call, exact @ v, RTOL)
        weights = w[: len(exact)]
        call = partial(pulled_back, f, x, weights, scheme=scheme)
        yield Case(f"j'vp: {name}", call, exact.T @ weights, RTOL)
    yield Case("jacobian that raises: x afterwards", after_error, np.zeros(5), 0.0)


def after_error():
    """Return x after a call of f that raised."""
    x = np.zeros(5)

    def f(x):
        raise ArithmeticError(str(x))

    try:
        jacobian(f, x)
    except ArithmeticError:
        return x


def several_arguments():
    """Yield derivatives with respect to several arrays and numbers, tuples and dicts."""
    x, y = np.random.default_rng(0).random((2, 3, 3))
    unit, ones = np.eye(3), np.ones((3, 3))
    of_x = np.einsum("ik,lj->ijkl", unit, y + unit)
    of_y = np.einsum("ik,jl->ijkl", x, unit)
    scaled = 3 * np.einsum("ik,jl->ijkl", unit, unit)
    for name, function, f, at, exact in (
        ("jacobian: matrices", jacobian, lambda p: p[0] @ p[1] + p[0], (x, y), (of_x, of_y)),
        ("jacobian: and number", jacobian, lambda p: p[0] * p[1] + p[0], (x, 2.0), (scaled, x)),
        (
            "grad: matrices",
            measured,
            lambda p: (p[0] @ p[1] + p[0]).sum(),
            (x, y),
            (of_x.sum((0, 1)), of_y.sum((0, 1))),
        ),
        (
            "grad: and number",
            measured,
            lambda p: (p[0] * p[1] + p[0]).sum(),
            (x, 2.0),
            (3 * ones, x.sum()),
        ),
        ("grad: tuple", measured, lambda p: p[0].sum() + p[1], (x, 2.0), (ones, 1.0)),
        (
            "grad: dict",
            measured,
            lambda d: d["x"].sum() + d["y"],
            {"x": x, "y": 2.0},
            {"x": ones, "y": 1.0},
        ),
    ):
        call = partial(function, f, at, scheme=central(5))
        yield Case(f"multi vars {name}", call, exact, RTOL, RTOL)


def products():
    """Yield Jacobians times vectors on either side, of functions of several arrays."""
    rng = np.random.default_rng(1)
    x, y, v, w = rng.standard_normal((4, 2))
    parts = np.cos(x) * v, np.cos(y) * w
    for name, f, at, along, exact in (
        ("array", lambda z: np.sin(z).sum(), np.r_[x, y], np.r_[v, w], np.sum(parts)),
        ("tuple", lambda p: np.sin(p).sum(), (x, y), (v, w), np.sum(parts)),
        ("vector output", lambda p: np.sin(p).sum(axis=0), (x, y), (v, w), sum(parts)),
        ("tuple output", lambda p: (np.sin(p[0]), np.sin(p[1])), (x, y), (v, w), [*parts]),
    ):
        call = partial(directional_derivative, f, at, along, scheme=central(5))
        yield Case(f"jvp: {name}", call, exact, RTOL)
    for n, m in ((2, 3), (0, 0), (0, 3)):
        x, y, z = (rng.standard_normal(k) for k in (n, m, n + m))
        exact = np.cos(np.r_[x, y]) * z
        call = partial(pulled_back, np.sin, np.r_[x, y], z, scheme=central(5))
        yield Case(f"j'vp: lengths {n} and {m}, array", call, exact, RTOL)
        f = lambda p: np.sin(np.concatenate(p))  # noqa: E731
        call = partial(pulled_back, f, (x, y), z, scheme=central(5))
        yield Case(f"j'vp: lengths {n} and {m}, tuple", call, (exact[:n], exact[n:]), RTOL)


def complex_numbers():
    """Yield derivatives by real and imaginary parts, which are passed as real arrays."""
    scheme = central(5)
    x, y, dx, dy, z = np.random.default_rng(2).standard_normal((5, 2)).view(complex)[:, 0]
    at, along = np.array([x, y]).view(float), np.array([dx, dy]).view(float)
    for name, f, of_x, of_y in (
        ("x + y", lambda x, y: x + y, 1, 1),
        ("x y", lambda x, y: x * y, y, x),
        (
            "5 sin x cos y",
            lambda x, y: 5 * np.sin(x) * np.cos(y),
            5 * np.cos(x) * np.cos(y),
            -5 * np.sin(x) * np.sin(y),
        ),
    ):
        of_parts = partial(parts_of, f)
        exact = np.hstack([rotation(of_x), rotation(of_y)])
        call = partial(jacobian, of_parts, at, scheme=scheme)
        yield Case(f"Complex: jacobian of {name}", call, exact, RTOL, RTOL)
    call = partial(jacobian, partial(parts_of, np.negative), at[:2], scheme=scheme)
    yield Case("Complex: jacobian of -x", call, -np.eye(2), RTOL, RTOL)
    call = partial(measured, lambda p: p @ p, at[:2], scheme=scheme)
    yield Case("Complex: grad of abs(x)**2", call, 2 * at[:2], RTOL)
    call = partial(directional_derivative, of_parts, at, along, scheme=scheme)
    yield Case("Complex: jvp", call, exact @ along, RTOL)
    weights = np.array([z.real, z.imag])
    call = partial(pulled_back, of_parts, at, weights, scheme=scheme)
    yield Case("Complex: j'vp", call, exact.T @ weights, RTOL)
    call = partial(measured, abs, np.array([x]), scheme=scheme)
    remedy = "for real x only; pass the real and the imaginary part as a real array"
    yield Case("Complex: x itself", call, 2 * at[:2], refusal=remedy)


def parts_of(f, p):
    """Return the real and imaginary parts of f of complex numbers, which p has the parts of."""
    value = f(*np.ascontiguousarray(p).view(complex))
    return np.array([value.real, value.imag])


def rotation(z):
    """Return the matrix of a multiplication by a complex number."""
    z = complex(z)
    return np.array([[z.real, -z.imag], [z.imag, z.real]])
