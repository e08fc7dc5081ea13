"""FiniteDiff.jl: derivatives, gradients, Jacobians and Hessians by three methods, and colouring.

Answers to test/finitedifftests.jl, coloring_tests.jl, out_of_place_tests.jl and
cache_reuse_tests.jl. Where they pass a cache, a function object is called again; in the place of
``dir=-1`` stands the backward scheme; complex numbers are pairs of real ones.
"""

from functools import partial
from itertools import product
from math import cos, pi, sin, sqrt

import numpy as np

from fastgrad import (
    Gradient,
    Hessian,
    Jacobian,
    detect_sparsity,
    directional_derivative,
    hessian,
    jacobian,
    numerical_gradient,
)

from . import Case
from .finitedifferences_jl import parts_of, rotation

PEER = "FiniteDiff.jl"

METHODS = ("forward", "central", "complex")

ROOT_EPS = 2.0**-26
"""Their relative step of forward differences, and the tolerance where none is given."""

measured = partial(numerical_gradient, h="auto")
"""A gradient by measured steps."""


def cases():
    """Yield all."""
    for part in (derivatives, complex_derivatives, gradients, jacobians, hessians):
        yield from part()
    for part in (coloured, small_patterns, reused, shapes):
        yield from part()


def three(name, derivative, f, x, exact, tolerances):
    """Yield a case for each method, with its absolute tolerance."""
    for method, atol in zip(METHODS, tolerances, strict=False):
        yield Case(f"{name}: {method}", partial(derivative, f, x, scheme=method), exact, 0.0, atol)


def one_sided(name, derivative, f, x, exact, atol):
    """Yield the cases of an f that raises above x: below it is differenced, above it raises."""
    limit = np.array(x)

    def below(x):
        if np.any(np.asarray(x) > limit):
            raise ArithmeticError("outside")
        return f(x)

    call = partial(derivative, below, x, scheme="backward")
    yield Case(f"{name}: dir=-1", call, exact, 0.0, atol)
    call = partial(derivative, below, x, scheme="forward")
    yield Case(f"{name}: forward where f raises", call, refusal="^outside$")


def derivatives():
    """Yield derivatives at pi / 4, and at 100 points at once."""
    name, tolerances = "Derivative single point", (1e-4, 1e-8, 1e-15)
    yield from three(name, measured, np.sin, pi / 4, sqrt(2) / 2, tolerances)
    yield from one_sided(name, measured, np.sin, pi / 4, sqrt(2) / 2, 1e-4)
    x = np.linspace(-2 * pi, 2 * pi, 100)
    each = partial(measured, elementwise=True)
    yield from three("Derivative StridedArray", each, np.sin, x, np.cos(x), tolerances)
    for method, atol in zip(METHODS, tolerances, strict=True):
        again = Gradient(np.sin, scheme=method, elementwise=True)
        call = partial(again_at, again, x / 2, x)
        yield Case(f"Derivative, {method}_cache", call, np.cos(x), 0.0, atol)


def again_at(derivative, first, x):
    """Return what a function object gives at x after a call elsewhere."""
    derivative(first)
    return derivative(x)


def minus_sine(x):
    """Return the derivative of the cosine."""
    return -np.sin(x)


def complex_derivatives():
    """Yield derivatives of complex functions by their parts, at one point and at 100."""
    z, x = pi / 4 * (1 + 1j), np.linspace(-2 * pi, 2 * pi, 100)
    f = partial(parts_of, lambda x: (np.sin(x) + np.cos(x))[()])
    exact = rotation(np.cos(z) - np.sin(z))
    for method, one, many in (("forward", 1e-3, 1e-3), ("central", 1e-7, 1e-6)):
        call = partial(jacobian, f, np.array([z.real, z.imag]), scheme=method)
        yield Case(f"Derivative single point C -> C: {method}", call, exact, 0.0, one)
        for name, part in (("real", np.real), ("imaginary", np.imag)):
            line = lambda s, part=part: part(np.sin(x * (1 + 1j) + s) + np.cos(x * (1 + 1j) + s))  # noqa: E731
            call = partial(measured, line, 0 * x, scheme=method, elementwise=True)
            slopes = part(np.cos(x * (1 + 1j)) - np.sin(x * (1 + 1j)))
            title = f"Derivative StridedArray C -> C: {name} part, {method}"
            yield Case(title, call, slopes, 0.0, many)
        for name, g, slope in (
            ("real", np.sin, np.cos),
            ("imaginary", np.cos, lambda x: -np.sin(x)),
        ):
            title = f"R -> C: {name} part, {method}"
            call = partial(measured, g, pi / 4, scheme=method)
            yield Case(f"Derivative single point {title}", call, slope(pi / 4), 0.0, one)
            call = partial(measured, g, x, scheme=method, elementwise=True)
            yield Case(f"Derivative StridedArray {title}", call, slope(x), 0.0, many)
        call = partial(jacobian, lambda x: np.sin(x) + 1j * np.cos(x), pi / 4, scheme=method)
        remedy = "complex128.*; differentiate lambda x: f.x..real and lambda x: f.x..imag"
        yield Case(f"Derivative R -> C itself: {method}", call, 0.0, refusal=remedy)


def gradients():
    """Yield gradients of functions of two numbers, and derivatives of two functions of one."""
    name, tolerances = "Gradient vector->scalar", (1e-4, 1e-8, 1e-15)
    x = np.random.default_rng(0).random(2)
    f = lambda x: 2 * x[0] + x[1] ** 2  # noqa: E731
    exact = np.array([2.0, 2 * x[1]])
    yield from three(name, measured, f, x, exact, tolerances)
    yield from one_sided(name, measured, f, x, exact, 1e-4)
    call = partial(numerical_gradient, f, x, ROOT_EPS, scheme="forward")
    yield Case(f"{name}: relstep", call, exact, 0.0, 1e-4)
    z = x * (1 + 1j)
    g = partial(parts_of, lambda a, b: 2 * a + 2j * a + b**2)
    exact = np.hstack([rotation(2 + 2j), rotation(2 * z[1])])
    yield from three("Gradient C^N -> C", jacobian, g, z.view(float), exact, tolerances[:2])
    squares = lambda p: (p**2).sum()  # noqa: E731
    yield from three(
        "Gradient C^N -> R", measured, squares, np.ones(4), 2 * np.ones(4), (1e-4, 1e-8)
    )
    g = lambda x: np.array([2 * x[0], x[1] ** 2])  # noqa: E731
    yield from three("Gradient R^N -> C", jacobian, g, np.ones(2), 2 * np.eye(2), (1e-4, 1e-8))
    t = 2 * pi * np.random.default_rng(1).random()
    pair = lambda t: np.array([np.sin(t), np.cos(t)])  # noqa: E731
    slopes = [cos(t), -sin(t)]
    yield from three("Gradient scalar->vector", jacobian, pair, t, slopes, tolerances)
    yield from one_sided("Gradient scalar->vector", jacobian, pair, t, slopes, 1e-4)
    constant = lambda t: read_only(pair(t))  # noqa: E731
    yield from three("Immutable output", jacobian, constant, 1.0, [cos(1), -sin(1)], (1e-4, 1e-4))
    c = t * (1 + 1j)
    g = lambda p: parts_of(lambda c: pair(c[0]), [p])  # noqa: E731
    exact = np.stack([rotation(np.cos(c)), rotation(-np.sin(c))], axis=1)
    at, size = np.array([c.real, c.imag]), abs(exact).max()
    within = (1e-4 * size, 3e-7 * size)
    yield from three("Gradient complex-valued", jacobian, g, at, exact, within)
    for at in (np.array([1.7, 2.0]), np.array([0.3, 0.9])):
        atol = ROOT_EPS * np.linalg.norm(2 * at)
        call = partial(measured, squares, at, scheme="forward")
        yield Case(f"Non-allocating cache: {at}", call, 2 * at, 0.0, atol)


def read_only(array):
    """Return an array that cannot be written to."""
    array.flags.writeable = False
    return array


def powers(x, unit=1):
    """Return two functions of two numbers."""
    return np.array([(unit * x[0] + 3) * (x[1] ** 3 - 7) + 18, np.sin(x[1] * np.exp(x[0]) - 1)])


def slopes_of_powers(x, unit=1):
    """Return their derivatives."""
    e = np.exp(x[0])
    first = [unit * (x[1] ** 3 - 7), 3 * (3 + unit * x[0]) * x[1] ** 2]
    return np.array([first, np.array([e * x[1], e]) * np.cos(1 - e * x[1])])


def jacobians():
    """Yield Jacobians, their products with vectors, and those of other shapes."""
    rng = np.random.default_rng(3)
    x, v = rng.random((2, 2))
    J = slopes_of_powers(x)
    yield from three("Jacobian", jacobian, powers, x, J, (1e-6, 1e-8, 1e-14))
    yield from one_sided("Jacobian", jacobian, powers, x, J, 1e-6)
    call = partial(jacobian, powers, x, ROOT_EPS, scheme="forward")
    yield Case("Jacobian: relstep", call, J, 0.0, 1e-6)
    along = lambda f, x, **options: directional_derivative(f, x, v, **options)  # noqa: E731
    yield from three("JVP", along, powers, x, J @ v, (1e-6, 1e-8, 1e-14))
    yield from one_sided("JVP", along, powers, x, J @ v, 1e-6)
    z = x + 1j * v
    exact = np.block([[rotation(each) for each in row] for row in slopes_of_powers(z, 1j)])
    f = lambda p: powers(p.view(complex), 1j).view(float)  # noqa: E731
    yield from three("Jacobian C^N -> C^N", jacobian, f, z.view(float), exact, (1e-4, 1e-8))
    square, unit = rng.random((2, 2)), np.eye(4).reshape(2, 2, 2, 2)
    yield from three("Jacobian, 2 x 2", jacobian, np.copy, square, unit, (1e-8, 1e-8, 1e-8))
    f = lambda x: x**2 + np.sin(x)  # noqa: E731
    x = np.linspace(*rng.random(2), 2)
    J = np.diag(2 * x + np.cos(x))
    yield from three("Jacobian of a range", jacobian, f, x, J, (1e-4, 1e-8, 1e-14))
    yield from one_sided("Jacobian of a range", jacobian, f, x, J, 1e-4)


def hessians():
    """Yield Hessians, and what is asked for at arrays that must not be written to."""
    x = np.random.default_rng(4).random(2)
    f = lambda x: np.sin(x[0]) + np.cos(x[1])  # noqa: E731
    exact = np.diag([-sin(x[0]), -cos(x[1])])
    yield Case("Hessian", partial(hessian, f, x), exact, 0.0, 1e-4)
    yield Case("Hessian: cache", partial(again_at, Hessian(f), 3 * x, x), exact, 0.0, 1e-4)
    squares = lambda x: (x**2).sum()  # noqa: E731
    for start in (1.0, 5.0):
        call = partial(again_at, Hessian(squares), np.arange(4) + start, np.arange(1.0, 5.0))
        yield Case(f"Hessian Cache of {start}", call, 2 * np.eye(4), 0.0, 4 * ROOT_EPS)
    constant = read_only(np.ones(2))
    remedy = "x is read-only, but it is perturbed in place; pass a writable array such as x.copy()"
    for method in METHODS:
        call = partial(measured, np.sum, constant, scheme=method)
        yield Case(f"Immutable x, gradient: {method}", call, np.ones(2), refusal=remedy)
        call = partial(measured, np.sum, constant.copy(), scheme=method)
        yield Case(f"Immutable x copied, gradient: {method}", call, np.ones(2), ROOT_EPS)
        call = partial(jacobian, np.copy, constant.copy(), scheme=method)
        yield Case(f"Immutable x copied, Jacobian: {method}", call, np.eye(2), 0.0, ROOT_EPS)
    call = partial(hessian, lambda x: squares(x) / 2, constant.copy())
    yield Case("Immutable x copied, Hessian", call, np.eye(2), 0.0, 2 * ROOT_EPS)


def stencil(n):
    """Return the second differences of n values as a matrix."""
    return np.diag(np.ones(n - 1), -1) - 2 * np.eye(n) + np.diag(np.ones(n - 1), 1)


def second_differences(x):
    """Return these differences, with 0 beyond both ends."""
    padded = np.concatenate([[0], x, [0]])
    return padded[:-2] - 2 * x + padded[2:]


def counted(f, x, **options):
    """Return a Jacobian as an array, and how often f was called."""
    calls = []

    def counting(x):
        calls.append(1)
        return f(x)

    found = jacobian(counting, x, **options)
    return found.toarray() if "sparsity" in options else found, len(calls)


def coloured():
    """Yield Jacobians of tridiagonal structure.

    f is called once more at x, and to check; by the complex step seven times, to see that it is
    analytic.
    """
    x, exact = np.random.default_rng(5).random(30), stencil(30)
    call = partial(counted, second_differences, x, h=ROOT_EPS, scheme="forward")
    yield Case("coloring: dense, calls", call, (exact, 31), ROOT_EPS, 1e-6)
    for method, calls in zip(METHODS, (4, 6, 3), strict=True):
        more = {"forward": 1, "central": 2, "complex": 9}[method]
        for name, sparsity in (("mask", exact), ("groups", (exact, np.tile([0, 1, 2], 10)))):
            options = {"h": 2.0**-20, "scheme": method, "sparsity": sparsity}
            call = partial(counted, second_differences, x, **options)
            title = f"coloring: tridiagonal, {name}, {method}"
            yield Case(title, call, (exact, calls + more), ROOT_EPS, 1e-8)
    rectangular = lambda x: (x[:4] - 3) ** 2 + x[:4] * x[4:] + (x[4:] + 4) ** 2 - 3  # noqa: E731
    a, b = np.arange(1, 5) + 0.5, np.arange(1, 5) + 1.5
    slopes = np.hstack([np.diag(2 * (a - 3) + b), np.diag(a + 2 * (b + 4))])
    for method, (name, sparsity) in product(METHODS, {"mask": slopes, "detect": "detect"}.items()):
        call = partial(jacobian, rectangular, np.r_[a, b], scheme=method, sparsity=sparsity)
        title = f"coloring: non-square, {name}, {method}"
        yield Case(title, lambda call=call: call().toarray(), slopes, 1e-6, 1e-6)


def neighbours(x):
    """Return of a square of values the sums of five of them, at the edges with themselves."""
    x = x.reshape(100, 100)
    padded = np.pad(x, 1, mode="edge")
    vertical, horizontal = padded[:, 1:-1], padded[1:-1]
    return (x + vertical[:-2] + vertical[2:] + horizontal[:, :-2] + horizontal[:, 2:]).reshape(-1)


def small_patterns():
    """Yield Jacobians with a given pattern, of a square of 10,000 elements, and patterns."""
    for name, f, x, exact in (
        ("_f", lambda x: [x[0] ** 2 + x[1] ** 2, x[0] + x[1]], [5.0, 3.0], [[10, 6], [1, 1]]),
        ("_f2", lambda x: [x[0] ** 2 + x[1] ** 2, x[0]], [-3.0, 2.0], [[-6, 4], [1, 0]]),
        ("_f3", lambda x: [x[0] ** 2 + x[1] ** 2 - x[0]], [-3.0, 2.0], [[-7, 4]]),
        (
            "_f4",
            lambda x: [x[0] ** 2 + x[1] ** 2 - x[0], x[0] * x[1], x[0] * x[2], x[0]],
            [-3.0, 2.0, 13.3],
            [[-7, 4, 0], [2, -3, 0], [13.3, 0, -3], [1, 0, 0]],
        ),
        ("_f5", lambda x: [x[0] ** 2 + x[1] ** 2], [5.0, 3.0], [[10, 6]]),
    ):
        options = {"scheme": "forward", "sparsity": np.array(exact) != 0}
        h = ROOT_EPS * np.maximum(np.abs(x), 1)
        call = partial(counted, lambda x, f=f: np.array(f(x)), np.array(x), h=h, **options)
        atol = ROOT_EPS * np.linalg.norm(exact)
        yield Case(f"coloring: {name}", lambda call=call: call()[0], exact, 0.0, atol)
    x = np.random.default_rng(6).random(10_000)
    call = partial(jacobian, neighbours, x, 2.0**-10, sparsity="detect")
    yield Case("coloring: 100 x 100", lambda call=call, x=x: call() @ x, neighbours(x), 1e-9)
    for pattern in ([[1, 1], [0, 1]], [[1, 1, 1]], [[1, 1], [1, 1], [1, 1]], [[1, 1], [1, 1]]):
        M = np.array(pattern, float)
        call = partial(detect_sparsity, lambda x, M=M: M @ x, np.ones(M.shape[1]))
        yield Case(f"findstructralnz: {pattern}", lambda c=call: c()[0].toarray() != 0, M != 0)


def reused():
    """Yield what is computed at x by function objects that have been used elsewhere before."""
    exact, x = np.array([[2.0, 0.0], [0.0, 3.0], [4.0, 0.0]]), np.array([1.0, 2.0])
    f = lambda x: exact @ x  # noqa: E731
    for method, start in product(METHODS, (0.0, 1e10)):
        call = partial(again_at, Jacobian(f, scheme=method), np.full(2, start), x)
        yield Case(f"JacobianCache reuse, {method}, {start}", call, exact, 0.0, 1e-6)
        again = Gradient(lambda x: x @ x, scheme=method)
        call = partial(again_at, again, np.full(3, start), np.array([1.0, 2.0, 3.0]))
        yield Case(f"GradientCache reuse, {method}, {start}", call, [2.0, 4.0, 6.0], 0.0, 1e-5)
        title = f"JacobianCache and sparsity, {method}, {start}"
        again = Jacobian(f, scheme=method, sparsity=exact)
        call = partial(again_at, again, np.full(2, start), x)
        yield Case(title, lambda call=call: call().toarray(), exact, 0.0, 1e-6)
    v = np.array([1.0, 0.0])
    along = lambda f, x, **options: directional_derivative(f, x, v, **options)  # noqa: E731
    yield from three("JVPCache reuse", along, f, x, exact[:, 0], (1e-6, 1e-6, 1e-6))
    yield Case("x afterwards", lambda: x, np.array([1.0, 2.0]), 0.0)
    again = Hessian(lambda x: x[0] ** 2 + 2 * x[1] ** 2)
    call = partial(again_at, again, np.full(2, 1e10), x)
    yield Case("HessianCache reuse", call, np.diag([2.0, 4.0]), 0.0, 1e-3)


def shapes():
    """Yield Jacobians of vectors that have one element, or are constant."""
    for name, f, x, exact in (
        ("SVector of 30", second_differences, np.ones(30), stencil(30)),
        ("1 x 1", np.copy, np.ones(1), [[1.0]]),
        ("2 x 1", lambda x: np.r_[x, x], np.ones(1), [[1.0], [1.0]]),
    ):
        yield from three(name, jacobian, f, x, exact, 3 * [ROOT_EPS * np.linalg.norm(exact)])
