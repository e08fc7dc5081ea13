"""Nets in plain NumPy as learners write them, which know nothing of fastgrad, with a batch each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.measure.accuracy import SEED
from fastgrad.datasets import load_mnist_sample
from fastgrad.typing import Array

example: Any = import_module("examples.your_own_net")

STEP = 1e-4
"""The book's h."""


class Net(Protocol):
    """Parameters, and a loss that reads them."""

    params: dict[str, Array]

    def loss(self, x: Array, t: Array) -> Any:
        """Return a number."""


@dataclass(frozen=True)
class Case:
    """What is measured: the gradient of a net's loss for some of its parameters.

    Attributes
    ----------
    title : str
    net : Net
    x, t : ndarray
        The batch, as the loader gives it: float32 pixels, labels.
    names : sequence of str
        The parameters.
    kinked : array of int
        Places in the first of them, of elements that take a unit over the kink of a ReLU.
    """

    title: str
    net: Net
    x: Array
    t: Array
    names: Sequence[str]
    kinked: NDArray[np.intp]

    @property
    def arrays(self) -> list[Array]:
        """The parameters themselves, which the net reads."""
        return [self.net.params[name] for name in self.names]

    def loss(self, _: Array) -> Any:
        """Return the loss, as the book's closure does: whatever it is given."""
        return self.net.loss(self.x, self.t)


NO_KINKS = np.zeros(0, np.intp)


def two_layers(smoke: bool = False) -> Case:
    """Return the net of examples/your_own_net.py on digits: 784-100-10, sigmoid units."""
    x, t = digits(10 if smoke else 100)
    return _two_layers(x[:, 300:349] if smoke else x, t, "digits")


def two_layers_dense(smoke: bool = False) -> Case:
    """Return the same net on 100 dense random samples in float64: the 47 s case."""
    np.random.seed(SEED)
    samples, inputs = (10, 49) if smoke else (100, 784)
    x, t = np.random.rand(samples, inputs), np.random.randint(0, 10, samples)
    return _two_layers(x, t, "dense samples")


def layered(smoke: bool = False) -> Case:
    """Return a net of Affine and ReLU objects: 784-100-100-10, with weight decay."""
    return _layered([784, 20, 20, 10] if smoke else [784, 100, 100, 10], smoke)


def deep(smoke: bool = False) -> Case:
    """Return the like with five hidden layers of 100 units."""
    return _layered([784, *[10 if smoke else 100] * 5, 10], smoke)


CASES: dict[str, Callable[[bool], Case]] = {
    case.__name__: case for case in (two_layers, two_layers_dense, layered, deep)
}


def digits(samples: int) -> tuple[Array, Array]:
    """Return the first digits of the embedded sample of MNIST."""
    (x, t), _ = load_mnist_sample()
    return x[:samples], t[:samples]


def _two_layers(x: Array, t: Array, kind: str) -> Case:
    np.random.seed(SEED)
    net = example.Net(x.shape[1], len(x), 10)
    title = f"two layers, {x.shape[1]}-{len(x)}-10, {len(x)} {kind}"
    return Case(title, net, x, t, list(net.params), NO_KINKS)


def _layered(sizes: list[int], smoke: bool) -> Case:
    np.random.seed(SEED)
    params: dict[str, Array] = {}
    layers: list[Any] = []
    for i in range(1, len(sizes)):
        scale = np.sqrt(2 / sizes[i - 1])
        params[f"W{i}"] = scale * np.random.randn(sizes[i - 1], sizes[i])
        params[f"b{i}"] = np.zeros(sizes[i])
        layers += [Affine(params[f"W{i}"], params[f"b{i}"]), Relu()]
    net = LayeredNet(params, layers[:-1], weight_decay=0.1)
    x, t = digits(10 if smoke else 100)
    hidden = f"{sizes[1]}-{sizes[2]}" if len(sizes) == 4 else f"{len(sizes) - 2} x {sizes[1]}"
    title = f"ReLU and weight decay, {sizes[0]}-{hidden}-{sizes[-1]}, {len(x)} digits"
    return Case(title, net, x, t, list(params), _kinked(x, params["W1"]))


def _kinked(x: Array, weights: Array) -> NDArray[np.intp]:
    """Return where a step moves a unit of the first layer, which has no bias yet, over 0."""
    a = abs(x @ weights)
    kinked = np.zeros(weights.shape, bool)
    for n, j in zip(*np.nonzero(a < STEP * x.max()), strict=True):
        kinked[:, j] |= STEP * x[n] > a[n, j]
    return np.flatnonzero(kinked)


# The learners' code


class Affine:
    """Each output depends on all inputs. The arrays are those in the net's `params`."""

    def __init__(self, weights: Array, biases: Array) -> None:
        self.weights, self.biases = weights, biases

    def forward(self, x: Array) -> Array:
        """Return x W + b, one row a sample."""
        self.original_x_shape = x.shape
        self.x = x.reshape(x.shape[0], -1)
        out: Array = np.dot(self.x, self.weights) + self.biases
        return out

    def backward(self, dout: Array) -> Array:
        """Return the derivatives by x, and keep those by the parameters."""
        self.gradients = [
            (self.weights, np.dot(self.x.T, dout)),
            (self.biases, np.sum(dout, axis=0)),
        ]
        dx: Array = np.dot(dout, self.weights.T)
        return dx.reshape(self.original_x_shape)


class Relu:
    """Negative inputs become 0."""

    def forward(self, x: Array) -> Array:
        """Return max(x, 0)."""
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out

    def backward(self, dout: Array) -> Array:
        """Return the derivatives by x."""
        dout[self.mask] = 0
        return dout


class LayeredNet:
    """Layers one after the other, and a penalty on large weights.

    Parameters
    ----------
    params : dict of ndarray
        The very arrays that the layers hold.
    layers : list
        Each with a method `forward`.
    weight_decay : float
        The penalty is half of it, times the sum of the squares of all weights.
    """

    def __init__(
        self, params: dict[str, Array], layers: list[Any], weight_decay: float = 0.0
    ) -> None:
        self.params, self.layers, self.weight_decay = params, layers, weight_decay

    def predict(self, x: Array) -> Array:
        """Return the scores of the classes."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        """Return the cross-entropy and the penalty."""
        penalty: Any = 0
        if self.weight_decay:
            for name, values in self.params.items():
                if name.startswith("W"):
                    penalty += 0.5 * self.weight_decay * np.sum(values**2)
        return example.cross_entropy_error(example.softmax(self.predict(x)), t) + penalty
