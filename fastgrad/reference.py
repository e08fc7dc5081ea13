"""The textbook's gradient loop and its net, in plain NumPy.

This is the oracle that everything faster is compared with, and the baseline that its time is
measured against. It behaves as the book does (K. Saito, *Deep Learning from Scratch*, O'Reilly
Japan, 2016, chapters 3 to 5) on NumPy 2, silent faults included; each docstring names them.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastgrad.typing import Array


def numerical_gradient(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> Array:
    """Return the central difference quotient of f for every element of x.

    ``(f(x + h e_i) - f(x - h e_i)) / (2 h)``, by 2 calls of f for each element, in memory order.

    Parameters
    ----------
    f : callable
        ``f(x) -> number``; called with x itself, one element of which is moved.
    x : ndarray
        Perturbed in place. Each element is put back afterwards, unless f raises.
    h : float
        The step.

    Returns
    -------
    ndarray like x
        In x's dtype. Hence wrong, silently, for integers (steps and quotients are cut off) and
        float16 (the step is lost); for float32 right to about 3 digits.

    Examples
    --------
    >>> numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0])).round(6)
    array([6., 8.])
    """
    gradient = np.zeros_like(x)
    visits = np.nditer(x, flags=["multi_index"], op_flags=["readwrite"])
    while not visits.finished:
        i = visits.multi_index
        old = x[i]
        x[i] = float(old) + h
        above = f(x)
        x[i] = old - h
        below = f(x)
        gradient[i] = (above - below) / (2 * h)
        x[i] = old
        visits.iternext()
    return gradient


def sigmoid(x: Array) -> Array:
    """Return ``1 / (1 + exp(-x))``; NumPy warns of overflow where x is very negative."""
    result: Array = 1 / (1 + np.exp(-x))
    return result


def softmax(x: Array) -> Array:
    """Return ``exp(x_k) / sum_k exp(x_k)`` over the last axis, shifted by the largest x."""
    exponentials = np.exp(x - np.max(x, axis=-1, keepdims=True))
    result: Array = exponentials / np.sum(exponentials, axis=-1, keepdims=True)
    return result


def cross_entropy_error(y: Array, t: Array) -> Any:
    """Return the mean over samples of ``-log(y_t + 1e-7)``.

    Targets as large as y are one-hot or soft, and their argmax counts; others are class indices.
    Indices of shape (N, 1) give a wrong loss, silently: they broadcast to N x N.
    """
    if y.ndim == 1:
        y, t = y.reshape(1, -1), t.reshape(1, -1)
    if t.size == y.size:
        t = t.argmax(axis=1)
    samples = y.shape[0]
    return -np.sum(np.log(y[np.arange(samples), t] + 1e-7)) / samples


class TwoLayerNet:
    """The book's net: affine, sigmoid, affine, softmax, with the cross-entropy loss.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        The number of units of each layer.
    weight_init_std : float
        The weights are normal with this standard deviation, drawn by the global
        `numpy.random.randn`, first W1 and then W2; the biases are zero.

    Attributes
    ----------
    params : dict
        W1 (input, hidden), b1 (hidden,), W2 (hidden, output), b2 (output,), in this order.
    """

    def __init__(
        self, input_size: int, hidden_size: int, output_size: int, weight_init_std: float = 0.01
    ) -> None:
        self.params: dict[str, Array] = {
            "W1": weight_init_std * np.random.randn(input_size, hidden_size),
            "b1": np.zeros(hidden_size),
            "W2": weight_init_std * np.random.randn(hidden_size, output_size),
            "b2": np.zeros(output_size),
        }

    def predict(self, x: Array) -> Array:
        """Return the probabilities of the classes for x of shape (N, input) or (input,)."""
        hidden = sigmoid(x @ self.params["W1"] + self.params["b1"])
        return softmax(hidden @ self.params["W2"] + self.params["b2"])

    def loss(self, x: Array, t: Array) -> Any:
        """Return the cross-entropy error of the prediction for x against the targets t."""
        return cross_entropy_error(self.predict(x), t)

    def accuracy(self, x: Array, t: Array) -> float:
        """Return the fraction of the rows of x whose most probable class is that of t."""
        labels = t if t.ndim == 1 else t.argmax(axis=1)
        return float(np.sum(self.predict(x).argmax(axis=1) == labels) / x.shape[0])

    def numerical_gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the central difference quotient of the loss for every parameter."""
        return {
            name: numerical_gradient(lambda _: self.loss(x, t), values)
            for name, values in self.params.items()
        }

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient by backpropagation, for x of shape (N, input).

        It ignores the 1e-7 in the loss, and of soft targets it takes every entry where the loss
        takes the largest: two differences from the gradient of `loss` that are the book's.
        """
        hidden = sigmoid(x @ self.params["W1"] + self.params["b1"])
        output_error = softmax(hidden @ self.params["W2"] + self.params["b2"])
        if t.size == output_error.size:
            output_error -= t
        else:
            output_error[np.arange(len(x)), t] -= 1
        output_error /= len(x)
        hidden_error = (output_error @ self.params["W2"].T) * hidden * (1 - hidden)
        return {
            "W1": x.T @ hidden_error,
            "b1": hidden_error.sum(axis=0),
            "W2": hidden.T @ output_error,
            "b2": output_error.sum(axis=0),
        }
