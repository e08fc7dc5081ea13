"""Backward passes: right ones of random nets, and others with a planted fault each.

All are written by hand in plain NumPy, and know nothing of fastgrad.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from fastgrad.typing import Array


class Layer(Protocol):
    """A step forward, and the way back of the error."""

    def forward(self, x: Array) -> Array:
        """Return the outputs for the inputs x."""

    def backward(self, error: Array) -> Array:
        """Return the derivatives by x, from those by the outputs."""


class Affine:
    """Return x W + b; the gradients for both are kept."""

    def __init__(self, weights: Array, biases: Array) -> None:
        self.weights, self.biases = weights, biases

    def forward(self, x: Array) -> Array:
        """Return the outputs."""
        self.x = x
        result: Array = x @ self.weights + self.biases
        return result

    def backward(self, error: Array) -> Array:
        """Return the error of the inputs."""
        self.error = error
        self.weights_gradient = self.x.T @ error
        self.biases_gradient = error.sum(axis=0)
        result: Array = error @ self.weights.T
        return result


class Elementwise:
    """Apply a function to each element.

    Parameters
    ----------
    f, derivative : callable
        The latter of the input and the output.
    """

    def __init__(
        self, f: Callable[[Array], Array], derivative: Callable[[Array, Array], Array]
    ) -> None:
        self.f, self.derivative = f, derivative

    def forward(self, x: Array) -> Array:
        """Return the function's values."""
        self.x = x
        self.out = self.f(x)
        return self.out

    def backward(self, error: Array) -> Array:
        """Return the error of the inputs."""
        return error * self.derivative(self.x, self.out)


class MaxPool:
    """Keep the largest of each pair of units; of two that are equal the first."""

    def forward(self, x: Array) -> Array:
        """Return half as many units."""
        self.pairs = x.reshape(len(x), -1, 2)
        self.largest = self.pairs.argmax(axis=2)[..., np.newaxis]
        return np.take_along_axis(self.pairs, self.largest, axis=2)[..., 0]

    def backward(self, error: Array) -> Array:
        """Hand the error to the unit that was kept."""
        result = np.zeros_like(self.pairs)
        np.put_along_axis(result, self.largest, error[..., np.newaxis], axis=2)
        return result.reshape(len(error), -1)


def _sigmoid(x: Array) -> Array:
    result: Array = 1 / (1 + np.exp(-x))
    return result


ACTIVATIONS: dict[str, Callable[[], Layer]] = {
    "sigmoid": lambda: Elementwise(_sigmoid, lambda x, out: out * (1 - out)),
    "tanh": lambda: Elementwise(np.tanh, lambda x, out: 1 - out**2),
    "relu": lambda: Elementwise(lambda x: np.maximum(x, 0), lambda x, out: (x > 0).astype(x.dtype)),
    "leaky relu": lambda: Elementwise(
        lambda x: np.maximum(x, x.dtype.type(0.125) * x),
        lambda x, out: np.where(x > 0, x.dtype.type(1), x.dtype.type(0.125)),
    ),
    "pool": MaxPool,
}


def softmax(scores: Array) -> Array:
    """Turn each row of scores into probabilities."""
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


@dataclass(frozen=True)
class Loss:
    """A loss of scores and labels: the mean over samples, and its derivative by the scores."""

    value: Callable[[Array, Array], Any]
    derivative: Callable[[Array, Array], Array]


def _book_value(scores: Array, t: Array) -> Any:
    return -np.mean(np.log(softmax(scores)[np.arange(len(t)), t] + 1e-7))


def _exact_value(scores: Array, t: Array) -> Any:
    shifted = scores - scores.max(axis=1, keepdims=True)
    return np.mean(np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(len(t)), t])


def _cross_entropy_derivative(scores: Array, t: Array) -> Array:
    error = softmax(scores)
    error[np.arange(len(t)), t] -= 1
    return error / len(t)


def _squares_value(scores: Array, t: Array) -> Any:
    return np.sum((scores - _one_hot(scores, t)) ** 2) / len(t) / 2


def _squares_derivative(scores: Array, t: Array) -> Array:
    return (scores - _one_hot(scores, t)) / len(t)


def _one_hot(scores: Array, t: Array) -> Array:
    return np.eye(scores.shape[1], dtype=scores.dtype)[t]


LOSSES = {
    "the book's cross entropy": Loss(_book_value, _cross_entropy_derivative),
    "cross entropy": Loss(_exact_value, _cross_entropy_derivative),
    "squares": Loss(_squares_value, _squares_derivative),
}


class LayeredNet:
    """Affine layers with activations between them, a loss, and weight decay.

    Parameters
    ----------
    sizes : list of int
        Of each affine layer's input, and of the last one's output.
    activation : str
    loss : str
    decay : float
    dtype : dtype
    """

    def __init__(
        self,
        sizes: list[int],
        activation: str = "relu",
        loss: str = "the book's cross entropy",
        decay: float = 0.0,
        dtype: Any = np.float64,
        random: np.random.Generator | None = None,
    ) -> None:
        random = random or np.random.default_rng(0)
        self.loss_function, self.decay = LOSSES[loss], decay
        self.params: dict[str, Array] = {}
        self.layers: list[Layer] = []
        self.affine: list[Affine] = []
        for i, outputs in enumerate(sizes[1:], start=1):
            inputs = sizes[i - 1]
            width = outputs
            if activation == "pool" and i < len(sizes) - 1:
                width = 2 * outputs
            weights = random.normal(size=(inputs, width)) / np.sqrt(inputs)
            self.params[f"W{i}"] = weights.astype(dtype)
            self.params[f"b{i}"] = (0.1 * random.normal(size=width)).astype(dtype)
            self.affine.append(Affine(self.params[f"W{i}"], self.params[f"b{i}"]))
            self.layers += [self.affine[-1], ACTIVATIONS[activation]()]
        self.layers.pop()

    def predict(self, x: Array) -> Array:
        """Return the scores."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        """Return the mean loss of the batch, and the penalty."""
        value = self.loss_function.value(self.predict(x), t)
        if self.decay:
            for affine in self.affine:
                value = value + 0.5 * self.decay * np.sum(affine.weights**2)
        return value

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient for all parameters, by backpropagation."""
        return self.collect(self.loss_function.derivative(self.predict(x), t))

    def collect(self, error: Array) -> dict[str, Array]:
        """Hand the error of the scores back through the layers."""
        for layer in reversed(self.layers):
            error = layer.backward(error)
        gradients = {}
        for i, affine in enumerate(self.affine, start=1):
            gradients[f"W{i}"] = affine.weights_gradient + self.decay * affine.weights
            gradients[f"b{i}"] = affine.biases_gradient
        return gradients


# Planted faults


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong in a backward pass.

    Attributes
    ----------
    words : str
        What a report has to say of it.
    of_scores : callable
        ``error -> error``: spoils the derivative of the loss by the scores.
    of_gradients : callable
        ``gradients, net, error``: spoils the gradients.
    decay_in_loss, decay_in_gradient : float
    """

    words: str
    of_scores: Callable[[Array], Array] = lambda error: error
    of_gradients: Callable[[dict[str, Array], LayeredNet], None] = lambda gradients, net: None
    decay_in_loss: float = 0.0
    decay_in_gradient: float = 0.0
    layer: str = ""


def _gradient(
    name: str, value: Callable[[Array, LayeredNet], Array]
) -> Callable[[dict[str, Array], LayeredNet], None]:
    def spoil(gradients: dict[str, Array], net: LayeredNet) -> None:
        gradients[name] = value(gradients[name], net)

    return spoil


def _zero(index: Any) -> Callable[[Array], Array]:
    def spoil(error: Array) -> Array:
        error = error.copy()
        error[index] = 0
        return error

    return spoil


SAMPLES = 7
"""As many as there are hidden units and classes: wrong shapes do not give a fault away."""

FAULTS: dict[str, Fault] = {
    "the mean over the batch is forgotten": Fault(
        "7 times too large, which is the number of samples", of_scores=lambda error: SAMPLES * error
    ),
    "divided by the batch twice": Fault(
        "7 times too small, which is the number of samples",
        of_gradients=_gradient("W1", lambda right, net: right / SAMPLES),
    ),
    "a factor 2": Fault(
        "2 times too large", of_gradients=_gradient("W2", lambda right, net: 2 * right)
    ),
    "a sign": Fault("the sign is wrong", of_gradients=_gradient("b1", lambda right, net: -right)),
    "transposed": Fault("transposed", of_gradients=_gradient("W2", lambda right, net: right.T)),
    "a bias summed over the wrong axis": Fault(
        "over the wrong axis",
        of_gradients=_gradient("b1", lambda right, net: net.affine[0].error.sum(axis=1)),
    ),
    "a bias of one sample": Fault(
        "only sample 0 counts",
        of_gradients=_gradient("b1", lambda right, net: net.affine[0].error[0]),
    ),
    "a sample left out": Fault("sample 6 is left out", of_scores=_zero(-1)),
    "a class left out": Fault("column 2 is zero", of_scores=_zero((slice(None), 2))),
    "weight decay missing in the gradient": Fault(
        "0.1 times the parameter itself is missing", decay_in_loss=0.1
    ),
    "weight decay missing in the loss": Fault(
        "0.1 times the parameter itself is too much", decay_in_gradient=0.1
    ),
    "an activation's derivative forgotten": Fault("look at what comes between", layer="activation"),
}
"""Twelve of them, by name."""


class FaultyNet(LayeredNet):
    """A net with a fault in its backward pass: two layers of sigmoids, or three of ReLUs."""

    def __init__(self, fault: Fault, layers: int, seed: int = 0) -> None:
        activation = "sigmoid" if layers == 2 else "relu"
        super().__init__([9] + [SAMPLES] * layers, activation, random=np.random.default_rng(seed))
        self.fault = fault
        if fault.layer:
            first: Any = self.layers[1]
            first.derivative = lambda x, out: np.ones_like(x)

    def loss(self, x: Array, t: Array) -> Any:
        """Return the loss, with the weight decay that it has."""
        self.decay = self.fault.decay_in_loss
        return super().loss(x, t)

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient, with the fault."""
        self.decay = self.fault.decay_in_gradient
        error = self.fault.of_scores(self.loss_function.derivative(self.predict(x), t))
        gradients = self.collect(error)
        self.fault.of_gradients(gradients, self)
        return gradients


def faulty_batch(seed: int = 1) -> tuple[Array, Array]:
    """Return samples and labels for a `FaultyNet`; every class occurs."""
    random = np.random.default_rng(seed)
    return random.normal(size=(SAMPLES, 9)), random.permutation(SAMPLES)


# Right ones


def random_net(random: np.random.Generator) -> tuple[LayeredNet, Array, Array]:
    """Return a net with a right backward pass, samples and labels.

    Of one to three layers, all activations and losses; a third in float32. Many sit at kinks: with
    samples of zeros under zero biases, samples that occur twice, and weights and inputs from a grid
    that make pre-activations exactly 0, or move them to within a step of 0.
    """
    activation = str(random.choice([*ACTIVATIONS]))
    loss = str(random.choice([*LOSSES]))
    dtype = np.float32 if random.random() < 1 / 3 else np.float64
    sizes = [int(n) for n in random.integers(2, 8, size=random.integers(2, 5))]
    decay = float(random.choice([0.0, 0.1]))
    net = LayeredNet(sizes, activation, loss, decay, dtype, random)
    samples = int(random.integers(1, 9))
    x, t = random.normal(size=(samples, sizes[0])), random.integers(0, sizes[-1], samples)
    kind = random.integers(0, 5)
    if kind == 1:  # empty samples
        x[: (samples + 1) // 2] = 0
    if kind == 2:  # samples that occur twice
        x, t = np.concatenate([x, x]), np.concatenate([t, t])
    if kind in (1, 3):
        for affine in net.affine:
            affine.biases[...] = 0
    if kind >= 3:  # a coarse grid
        x = np.round(2 * x) / 2
        for affine in net.affine:
            affine.weights[...] = np.round(2 * affine.weights) / 2
    if kind == 4:  # within a step of it
        for affine in net.affine:
            near = random.choice([-3e-5, -1e-9, 0.0, 1e-7, 2e-5, 1.5e-4], affine.biases.shape)
            affine.biases[...] = np.round(2 * affine.biases) / 2 + near
    return net, x.astype(dtype), t
