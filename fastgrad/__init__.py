"""Numerical gradients at the price of backpropagation: the public names.

>>> import numpy as np
>>> from fastgrad import numerical_gradient
>>> numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0])).round(6)
array([6., 8.])
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastgrad import reference, schemes
    from fastgrad.adaptive import differentiate
    from fastgrad.checking.check import check_gradient
    from fastgrad.checking.taylor_test import slope_test
    from fastgrad.datasets import load_mnist
    from fastgrad.directional import directional_derivative, hessian_vector_product
    from fastgrad.gradient import Gradient, explain, numerical_gradient
    from fastgrad.hessians import hessian
    from fastgrad.jacobians import jacobian
    from fastgrad.network import TwoLayerNet, cross_entropy_error, sigmoid, softmax

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
    "Gradient": "gradient",
    "TwoLayerNet": "network",
    "check_gradient": "checking.check",
    "cross_entropy_error": "network",
    "datasets": "datasets",
    "differentiate": "adaptive",
    "directional_derivative": "directional",
    "explain": "gradient",
    "hessian": "hessians",
    "hessian_vector_product": "directional",
    "jacobian": "jacobians",
    "load_mnist": "datasets",
    "numerical_gradient": "gradient",
    "reference": "reference",
    "schemes": "schemes",
    "sigmoid": "network",
    "slope_test": "checking.taylor_test",
    "softmax": "network",
}
"""Name -> where it is loaded from when it is first asked for: a worker needs next to nothing."""


def __getattr__(name: str) -> Any:
    """Load what is not loaded yet."""
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"fastgrad.{LAZY[name]}")
    value = globals()[name] = getattr(module, name, module)
    return value


def __dir__() -> list[str]:
    """Name what is not loaded yet, too."""
    return sorted(globals().keys() | LAZY)
