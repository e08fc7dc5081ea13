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
    from fastgrad.checking.array_functions import check_backward, check_jacobian
    from fastgrad.checking.check import check_gradient
    from fastgrad.checking.taylor_test import slope_test
    from fastgrad.datasets import load_mnist
    from fastgrad.directional import directional_derivative
    from fastgrad.gradient import Gradient, explain, numerical_gradient
    from fastgrad.hessians import Hessian, hessian, hessian_vector_product
    from fastgrad.jacobians import Jacobian, jacobian, vector_jacobian_product
    from fastgrad.network import TwoLayerNet
    from fastgrad.network.functions import (
        cross_entropy_error,
        identity_function,
        numerical_diff,
        numerical_gradient_2d,
        relu,
        relu_grad,
        sigmoid,
        sigmoid_grad,
        softmax,
        softmax_loss,
        step_function,
        sum_squared_error,
    )
    from fastgrad.sparse import detect_sparsity

__version__ = "0.1.0"

__all__ = [
    "Gradient",
    "Hessian",
    "Jacobian",
    "TwoLayerNet",
    "check_backward",
    "check_gradient",
    "check_jacobian",
    "cross_entropy_error",
    "detect_sparsity",
    "differentiate",
    "directional_derivative",
    "explain",
    "group_columns",
    "hessian",
    "hessian_vector_product",
    "identity_function",
    "jacobian",
    "load_mnist",
    "numerical_diff",
    "numerical_gradient",
    "numerical_gradient_2d",
    "reference",
    "relu",
    "relu_grad",
    "schemes",
    "sigmoid",
    "sigmoid_grad",
    "slope_test",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
    "vector_jacobian_product",
]

LAZY = {
    "Gradient": "gradient",
    "Hessian": "hessians",
    "Jacobian": "jacobians",
    "TwoLayerNet": "network",
    "check_backward": "checking.array_functions",
    "check_gradient": "checking.check",
    "check_jacobian": "checking.array_functions",
    "cross_entropy_error": "network.functions",
    "datasets": "datasets",
    "detect_sparsity": "sparse",
    "differentiate": "adaptive",
    "directional_derivative": "directional",
    "explain": "gradient",
    "group_columns": "colouring",
    "hessian": "hessians",
    "hessian_vector_product": "hessians",
    "identity_function": "network.functions",
    "jacobian": "jacobians",
    "load_mnist": "datasets",
    "numerical_diff": "network.functions",
    "numerical_gradient": "gradient",
    "numerical_gradient_2d": "network.functions",
    "reference": "reference",
    "relu": "network.functions",
    "relu_grad": "network.functions",
    "schemes": "schemes",
    "sigmoid": "network.functions",
    "sigmoid_grad": "network.functions",
    "slope_test": "checking.taylor_test",
    "softmax": "network.functions",
    "softmax_loss": "network.functions",
    "step_function": "network.functions",
    "sum_squared_error": "network.functions",
    "vector_jacobian_product": "jacobians",
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
