"""Calculus.jl: derivatives, Hessians and checks of simple functions, to three digits.

Answers to test/finite_difference.jl, derivative.jl and check_derivative.jl.
"""

from functools import partial

import numpy as np

from fastgrad import check_gradient, check_jacobian, hessian, jacobian, numerical_gradient, schemes

from . import Case

PEER = "Calculus.jl"

METHODS = ("forward", "central")

TOLERANCE = 1e-3


def wave(x):
    return np.sin(x[0]) + np.cos(x[1])


def slopes_of_wave(x):
    return np.array([np.cos(x[0]), -np.sin(x[1])])


def curvature_of_wave(x):
    return np.diag([-np.sin(x[0]), -np.cos(x[1])])


def cases():
    """Yield all."""
    yield from firsts()
    yield from seconds()
    yield from checks()


def firsts():
    """Yield cases of first derivatives."""
    for name, f, exact in (
        ("square", lambda x: x**2, 2.0),
        ("sin", np.sin, np.cos(1.0)),
        ("exp", lambda x: np.exp(-x), -np.exp(-1.0)),
    ):

        def of_first(x, f=f):
            return f(x[0])

        for method in METHODS:
            call = partial(jacobian, f, 1.0, scheme=method)
            yield Case(f"finite_difference: {name}, {method}", call, exact, 0, TOLERANCE)
            call = partial(numerical_gradient, of_first, [1.0], "auto", scheme=method)
            yield Case(f"finite_difference: {name}, [1], {method}", call, [exact], 0, TOLERANCE)
        yield Case(f"finite_difference: {name}", partial(jacobian, f, 1.0), exact, 0, TOLERANCE)
        call = partial(numerical_gradient, of_first, [1.0])
        yield Case(f"finite_difference: {name}, [1]", call, [exact], 0, TOLERANCE)
    for name, scheme in (("forward", schemes.forward(2)), ("central", schemes.central(4))):
        call = partial(jacobian, lambda x: x**2, 1.0, scheme=scheme)
        yield Case(f"taylor_finite_difference: {name}", call, 2.0, 0, TOLERANCE)
    target = np.array([100.0, 50.0])
    for method in METHODS:
        yield Case(
            f"derivative: scalar, {method}",
            partial(jacobian, np.sin, 0.0, scheme=method),
            1.0,
            0,
            TOLERANCE,
        )
        call = partial(jacobian, lambda x: np.sin(x[0]), [0.0], scheme=method)
        yield Case(f"derivative: vector, {method}", call, [1.0], 0, TOLERANCE)
        call = partial(jacobian, lambda x: ((target - x) ** 2).sum(), target.copy(), scheme=method)
        yield Case(f"gradient: {method}", call, [0, 0], 0, TOLERANCE)
        x = np.random.default_rng(0).random(3)
        call = partial(jacobian, lambda x: x, x, scheme=method)
        yield Case(f"jacobian: {method}", call, np.eye(3), 0, TOLERANCE)
    for x in np.linspace(0, 0.1, 11):
        call = partial(jacobian, np.sin, float(x))
        yield Case(f"derivative: {x:.2f}", call, np.cos(x), 0, TOLERANCE)
    call = partial(numerical_gradient, wave, [0.0, 0.0])
    yield Case("gradient: wave", call, [1, 0], 0, TOLERANCE)


def seconds():
    """Yield cases of second derivatives, by f and by its gradient."""

    def square(x):
        return x**2

    for x in (0.0, 1.0, 10.0, 100.0):
        call = partial(hessian, square, x)
        yield Case(f"second_derivative: {x}", call, 2.0, 0, TOLERANCE)
        call = partial(jacobian, lambda x: 2 * x, x)
        yield Case(f"finite_difference_hessian: gradient, {x}", call, 2.0, 0, TOLERANCE)
    zero = np.zeros(2)
    for name, call in (
        ("f", partial(hessian, wave, zero)),
        ("gradient", partial(jacobian, slopes_of_wave, zero)),
    ):
        yield Case(f"hessian: {name}", call, curvature_of_wave(zero), 0, TOLERANCE)


def checks():
    """Yield cases of derivatives that are compared with those of f."""
    for x in (0.0, 1.0, 10.0, 100.0, 1000.0):
        one, two = np.full(1, x), np.full(2, x)

        def sines(x):
            return np.sin(x).sum()

        for name, call in (
            ("check_derivative", partial(check_gradient, sines, one, np.cos)),
            (
                "check_second_derivative",
                partial(check_jacobian, np.cos, one, lambda x: -np.diag(np.sin(x))),
            ),
            ("check_gradient", partial(check_gradient, wave, two, slopes_of_wave)),
            ("check_hessian", partial(check_jacobian, slopes_of_wave, two, curvature_of_wave)),
        ):
            yield Case(f"{name}: {x}", lambda call=call: bool(call()), True)
