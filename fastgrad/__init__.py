"""Numerical gradients at the price of backpropagation: the public names.

>>> import numpy as np
>>> numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0])).round(6)
array([6., 8.])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fastgrad import reference, schemes
from fastgrad.adaptive import differentiate
from fastgrad.datasets import load_mnist
from fastgrad.directional import directional_derivative, hessian_vector_product
from fastgrad.gradient import Gradient, explain, numerical_gradient
from fastgrad.hessians import hessian
from fastgrad.jacobians import jacobian
from fastgrad.network import TwoLayerNet, cross_entropy_error, sigmoid, softmax

if TYPE_CHECKING:
    from fastgrad.checking.check import check_gradient
    from fastgrad.checking.taylor_test import slope_test

__version__ = "0.1.0"

__all__ = [
    "Gradient",
    "TwoLayerNet",
    "check_gradient",
    "cross_entropy_error",
    "differentiate",
    "directional_derivative",
    "explain",
    "hessian",
    "hessian_vector_product",
    "jacobian",
    "load_mnist",
    "numerical_gradient",
    "reference",
    "schemes",
    "sigmoid",
    "slope_test",
    "softmax",
]

LAZY = {
    "check_gradient": "fastgrad.checking.check",
    "slope_test": "fastgrad.checking.taylor_test",
}
"""Names that are loaded when they are first asked for: their files take as long as all others."""


def __getattr__(name: str) -> Any:
    """Load what is not loaded yet."""
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(LAZY[name]), name)
    return value
