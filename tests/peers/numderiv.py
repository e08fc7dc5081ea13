"""R's numDeriv: gradients, Jacobians and Hessians by Richardson extrapolation and simple steps.

Answers to tests/grad01.R, jacobian01.R, hessian01.R.
"""

from functools import partial

import numpy as np

from fastgrad import differentiate, jacobian

from . import Case

PEER = "numDeriv"


def both(x):
    return np.concatenate([np.sin(x), np.cos(x)])


def slopes_of_both(x):
    return np.concatenate([np.diag(np.cos(x)), np.diag(-np.sin(x))])


def total(x):
    return np.sin(x).sum()


def cases():
    """Yield all."""
    circle = np.arange(11) * np.pi / 5
    for name, f, x, options, digits in (
        ("a number", np.sin, np.pi, {}, 12),
        ("a sum", total, circle, {}, 10),
        ("each", np.sin, circle, {"elementwise": True}, 12),
    ):
        call = partial(differentiate, f, x, **options)
        yield Case(f"grad01: {name}, Richardson", call, np.cos(x), 0, 10.0**-digits)
        call = partial(differentiate, f, x, scheme="forward", tolerance=1e-4, **options)
        yield Case(f"grad01: {name}, simple", call, np.cos(x), 0, 1e-4)
    call = partial(differentiate, np.sin, np.array([np.pi]))
    yield Case("jacobian01: 1", call, [-1], 0, 1e-10)
    x = np.array([np.pi, 2 * np.pi])
    yield Case("jacobian01: 2", partial(differentiate, np.sin, x), np.diag(np.cos(x)), 0, 1e-10)
    for number, point in enumerate((x, np.array([0, 2 * np.pi]), circle), start=3):
        call = partial(differentiate, both, point)
        yield Case(f"jacobian01: {number}", call, slopes_of_both(point), 0, 1e-10)
    yield from hessians()


def hessians():
    """Yield cases of second derivatives, by f and by its gradient."""
    x = np.pi / 4
    call = partial(differentiate, np.sin, x, order=2)
    yield Case("hessian01: 1", call, -np.sin(x), 0, 1e-8)
    x = np.arange(3) * np.pi
    call = partial(differentiate, total, x, order=2)
    yield Case("hessian01: 2", call, np.zeros((3, 3)), 0, 1e-12)

    def gradient(x):
        return differentiate(total, x).gradient

    call = partial(jacobian, gradient, x)
    yield Case("hessian01: 3", call, np.zeros((3, 3)), 0, 1e-8)

    def doubled(x):
        return np.exp(2 * x).sum()

    for numbers, x, digits in (
        ((5, 6), np.array([1.0]), (7, 10)),
        ((7, 8), np.array([1.0, 3.0, 5.0]), (5, 6)),
    ):
        exact = np.diag(4 * np.exp(2 * x))
        call = partial(differentiate, doubled, x, order=2)
        yield Case(f"hessian01: {numbers[0]}", call, exact, 0, 10.0 ** -digits[0])
        # Several numbers, also of one x.
        call = partial(differentiate, lambda x: np.append(2 * np.exp(2 * x), 0), x)
        yield Case(
            f"hessian01: {numbers[1]}", call, np.vstack([exact, 0 * x]), 0, 10.0 ** -digits[1]
        )
