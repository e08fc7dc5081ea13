"""The types of results as mypy sees them: `mypy` reads this file, and pytest runs it."""

from typing import TYPE_CHECKING, Any, assert_type

import numpy as np
import pytest

from fastgrad import (
    Gradient,
    Hessian,
    Jacobian,
    detect_sparsity,
    differentiate,
    directional_derivative,
    hessian,
    hessian_vector_product,
    jacobian,
    numerical_gradient,
    vector_jacobian_product,
)
from fastgrad.adaptive import Derivatives
from fastgrad.typing import Array, Number, SparseArray

Vector = np.ndarray[tuple[int], np.dtype[np.float64]]


class Tensor:
    """Stands for a tensor of PyTorch, which mypy need not know: all but arrays and numbers."""


def squares(x: Any) -> Any:
    parts = x.values() if isinstance(x, dict) else x if isinstance(x, (list, tuple)) else [x]
    return sum(np.sum(np.asarray(part) ** 2) for part in parts)


def vector() -> Vector:
    return np.ones(2)


def test_gradients_are_of_the_kind_of_x() -> None:
    x = vector()
    assert_type(numerical_gradient(squares, x), Vector)
    assert_type(numerical_gradient(squares, {"a": x})["a"], Vector)
    assert_type(numerical_gradient(squares, [x, vector()]), list[Vector])
    assert_type(numerical_gradient(squares, (x, vector())), tuple[Vector, Vector])
    assert_type(numerical_gradient(squares, [1, 2]), Array)
    assert_type(numerical_gradient(squares, [[1.0, 2.0]]), Array)
    assert_type(numerical_gradient(squares, 3, engine="loop", h="auto"), np.float64)
    assert_type(Gradient(squares)([1.0, 2.0]), Array)
    assert_type(Gradient(squares)({"a": x}), dict[str, Vector])
    assert_type(Gradient(squares).with_value(x), tuple[Any, Array])


def test_jacobians_are_arrays_or_structures_of_arrays() -> None:
    x = vector()
    assert_type(jacobian(np.sin, x, outside=ValueError), Array)
    assert_type(jacobian(np.sin, [1.0, 2.0]), Array)
    assert_type(jacobian(np.sin, 1.0), Array | Number)
    assert_type(jacobian(squares, {"a": x}), dict[str, Array])
    assert_type(jacobian(squares, [x, vector()]), list[Array])
    assert_type(jacobian(squares, (x, vector())), tuple[Array, ...])
    assert_type(Jacobian(np.sin)(x), Array)
    assert_type(Jacobian(squares)({"a": x}), dict[str, Array])
    assert_type(vector_jacobian_product(np.sin, x, x, outside=ValueError), Vector)
    assert_type(vector_jacobian_product(np.sin, [1.0], [1.0]), Array)
    assert_type(directional_derivative(np.sin, x, x, outside=ValueError), Array | Number)


def test_hessians_are_arrays_or_structures_of_structures() -> None:
    x = vector()
    assert_type(hessian(squares, x, outside=(ValueError, ArithmeticError)), Array)
    assert_type(hessian(squares, 1.0), Array | Number)
    assert_type(hessian(squares, {"a": x}), dict[str, dict[str, Array]])
    assert_type(hessian(squares, [x, vector()]), list[list[Array]])
    assert_type(hessian(squares, (x, vector())), tuple[tuple[Array, ...], ...])
    assert_type(Hessian(squares)(x), Array)
    assert_type(Hessian(squares)({"a": x}), dict[str, dict[str, Array]])
    assert_type(Hessian(squares).product(x, x), Array)
    assert_type(hessian_vector_product(squares, x, x, outside=ValueError), Vector)
    assert_type(hessian_vector_product(squares, [1.0], [1.0]), Array)


def test_estimated_derivatives_are_typed_as_jacobians() -> None:
    x = vector()
    assert_type(differentiate(np.sin, x, tolerance=1e-3, outside=ValueError), Derivatives[Array])
    assert_type(differentiate(np.sin, 1.0).gradient, Array | Number)
    assert_type(differentiate(squares, {"a": x}).error, dict[str, Array])


def test_sparse_results_are_those_of_scipy() -> None:
    pytest.importorskip("scipy")
    x = vector()
    assert_type(jacobian(np.sin, x, sparsity="detect"), SparseArray)
    assert_type(Jacobian(np.sin, sparsity="detect")(x), SparseArray)
    assert_type(hessian(squares, x, sparsity="detect"), SparseArray)
    assert_type(detect_sparsity(np.sin, x)[0], SparseArray)


if TYPE_CHECKING:
    tensor = Tensor()
    assert_type(numerical_gradient(squares, tensor), Tensor)
    assert_type(jacobian(squares, tensor), Tensor)
    assert_type(hessian(squares, tensor), Tensor)
    assert_type(hessian_vector_product(squares, tensor, tensor), Tensor)
    assert_type(differentiate(squares, {"a": tensor}).gradient, dict[str, Tensor])
    # A name that is none of the engines is no argument.
    jacobian(squares, tensor, engine="lop")  # type: ignore[call-overload]
    numerical_gradient(squares, tensor, engine="lop")  # type: ignore[call-overload]
