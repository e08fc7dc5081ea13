"""Numerical gradients at the price of backpropagation: the public names.

>>> import numpy as np
>>> numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0])).round(6)
array([6., 8.])
"""

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
