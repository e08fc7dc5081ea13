"""Whenever Ctrl-C strikes in a call of f, it is raised, and x is bit for bit what it was."""

import warnings

import numpy as np
import pytest

from fastgrad import (
    check_backward,
    check_jacobian,
    detect_sparsity,
    differentiate,
    directional_derivative,
    hessian,
    hessian_vector_product,
    jacobian,
    numerical_gradient,
    vector_jacobian_product,
)

X = np.array([0.5, -0.0, 1.25, 3.0, -2.0])
V = np.array([1.0, 2.0, 3.0, -1.0, 0.5])
BANDS = np.eye(5) + np.eye(5, k=1)
OUTSIDE = {"outside": ArithmeticError}


def array(x):
    if (x < -2).any() or (x > 3).any():
        raise ArithmeticError
    return np.sin(x) + np.append(x[1:] ** 2, 0)


def number(x):
    return float(array(x).sum())


def each(x):
    return np.array([np.sin(v) for v in x])


def row(x):
    return np.diag(np.cos(x)) + np.diag(2 * x[1:], 1)


DERIVATIVES = {
    "sparse": (array, lambda f, x: jacobian(f, x, 1e-4, sparsity=BANDS, **OUTSIDE)),
    "detected": (lambda x: [*map(float, array(x))], lambda f, x: detect_sparsity(f, x)),
    "hessian": (number, lambda f, x: hessian(f, x, 1e-3, **OUTSIDE)),
    "product": (number, lambda f, x: hessian_vector_product(f, x, V, **OUTSIDE)),
    "transposed": (array, lambda f, x: vector_jacobian_product(f, x, V, **OUTSIDE)),
    "line": (array, lambda f, x: directional_derivative(f, x, V, **OUTSIDE)),
    "order 2": (number, lambda f, x: differentiate(f, x, order=2, **OUTSIDE)),
    "array": (array, lambda f, x: differentiate(f, x, **OUTSIDE)),
    "elementwise": (each, lambda f, x: differentiate(f, x, elementwise=True)),
    "all at once": (each, lambda f, x: numerical_gradient(f, x, elementwise=True)),
    "check": (array, lambda f, x: check_jacobian(f, x, 1.1 * row(x), **OUTSIDE)),
    "check of products": (array, lambda f, x: check_jacobian(f, x, jvp=lambda x, v: row(x) @ v)),
    "layer": (
        lambda x: (np.sin(x), x.copy()),
        lambda f, x: check_backward(f, x, None, lambda dout, x: dout * np.sin(x)),
    ),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_x_is_restored_wherever_it_strikes(name):
    f, derive = DERIVATIVES[name]
    calls, strikes_at = 0, 0

    def struck(x):
        nonlocal calls
        calls += 1
        if calls == strikes_at:
            raise KeyboardInterrupt("mine")
        return f(x)

    x = X.copy()
    if name == "check of products":  # without an end of the domain at x
        x *= 0.9
    before = x.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of derivatives from one side
        derive(struck, x)
        assert x.tobytes() == before
        number_of_calls = calls
        for part in np.linspace(0, 1, 12):
            calls, strikes_at = 0, 1 + int(part * (number_of_calls - 1))
            with pytest.raises(KeyboardInterrupt, match="mine"):
                derive(struck, x)
            assert x.tobytes() == before
