"""Layers with all kinds of activations and losses, in unmodified NumPy."""

import numpy as np
from nets import (
    CLASSES,
    INPUTS,
    SAMPLES,
    cross_entropy_error,
    sigmoid,
    softmax,
    softmax_by_keepdims,
)

ACTIVATIONS = {
    "identity": lambda a: a,
    "sigmoid": sigmoid,
    "tanh": np.tanh,
    "softplus": lambda a: np.logaddexp(0, a),
    "maximum": lambda a: np.maximum(0, a),
    "where": lambda a: np.where(a > 0, a, 0),
    "mask product": lambda a: a * (a > 0),
    "leaky where": lambda a: np.where(a > 0, a, 0.01 * a),
    "leaky maximum": lambda a: np.maximum(0.01 * a, a),
    "clip": lambda a: np.clip(a, -0.3, 0.3),
    "clip method": lambda a: a.clip(-0.3, 0.3),
    "abs": np.abs,
    "abs operator": abs,
    "elu": lambda a: np.where(a > 0, a, np.exp(np.minimum(a, 0)) - 1),
    "gelu": lambda a: 0.5 * a * (1 + np.tanh(np.sqrt(2 / np.pi) * (a + 0.044715 * a**3))),
    "swish": lambda a: a * sigmoid(a),
    "sine": np.sin,
    "square": np.square,
    "cube": lambda a: a**3,
    "softsign": lambda a: a / (1 + abs(a)),
    "hard sigmoid": lambda a: np.maximum(0, np.minimum(1, 0.2 * a + 0.5)),
    "maxout": lambda a: np.maximum(a, a[:, ::-1]),
    "row normalised": lambda a: a / np.sqrt((a**2).sum(axis=1, keepdims=True) + 1e-3),
    "layer norm": lambda a: (a - a.mean(1, keepdims=True)) / (a.std(axis=1, keepdims=True) + 1e-3),
    "softmax": softmax_by_keepdims,
    "log-sum-exp": lambda a: a - np.log(np.sum(np.exp(a), axis=1, keepdims=True)),
    "cumsum": lambda a: np.cumsum(np.tanh(a), axis=1),
    "sorted": lambda a: np.sort(a, axis=1) * np.arange(a.shape[1]),
    "outer": lambda a: np.einsum("ni,nj->nij", a, a)[:, 0, :],
    "concatenated": lambda a: np.concatenate([np.tanh(a), a**2], axis=1)[:, ::2],
    "padded": lambda a: np.pad(np.tanh(a), ((0, 0), (1, 2))),
    "gated": lambda a: sigmoid(a[:, :6]) * np.tanh(a[:, 6:12]),
}
SMOOTH = [
    "identity", "sigmoid", "tanh", "softplus", "gelu", "swish", "sine", "square", "cube",
    "row normalised", "layer norm", "softmax", "log-sum-exp", "cumsum", "outer", "concatenated",
    "padded", "gated",
]  # fmt: skip
"""Activations that are smooth, so that the exact quotient can be had from longdouble."""


LOSSES = {
    "mean of squares": lambda y, t: np.mean(np.square(y - t)),
    "half sum of squares": lambda y, t: 0.5 * np.sum((y - t) ** 2),
    "mean of sums": lambda y, t: np.mean(np.sum((y - t) ** 2, axis=1)),
    "one-hot cross entropy": lambda y, t: (
        -np.sum(t * np.log(softmax_by_keepdims(y) + 1e-7)) / y.shape[0]
    ),
    "indexed cross entropy": lambda y, t: (
        np.sum(-np.log(softmax(y)[np.arange(len(y)), t.argmax(axis=1)])) / len(y)
    ),
    "book's cross entropy": lambda y, t: cross_entropy_error(softmax(y), t),
    "log-sum-exp": lambda y, t: np.mean(np.log(np.exp(y).sum(axis=1)) - (t * y).sum(axis=1)),
    "binary cross entropy": lambda y, t: (
        -(t * np.log(sigmoid(0.1 * y)) + (1 - t) * np.log(1 - sigmoid(0.1 * y))).mean()
    ),
    "hinge": lambda y, t: np.maximum(0, 1 - (2 * t - 1) * y).sum() / len(y),
    "hinge by where": lambda y, t: np.mean(
        np.where((2 * t - 1) * y < 1, 1 - (2 * t - 1) * y, 0).sum(axis=1)
    ),
    "absolute": lambda y, t: np.abs(y - t).mean(),
    "huber": lambda y, t: np.where(
        abs(y - t) < 0.5, 0.5 * (y - t) ** 2, 0.5 * abs(y - t) - 0.125
    ).mean(),
    "root mean square": lambda y, t: np.sqrt(np.mean((y - t) ** 2)),
    "largest": lambda y, t: np.max((y - t) ** 2),
    "norm": lambda y, t: np.linalg.norm(y - t),
    "correlation": lambda y, t: 1 - np.sum(y * t) / np.sqrt(np.sum(y**2) * np.sum(t**2)),
    "first samples only": lambda y, t: np.sum((y[:3] - t[:3]) ** 2),
    "variance": lambda y, t: np.var(y - t),
    "element by element": lambda y, t: sum((y[i, i % 4] - t[i, 0]) ** 2 for i in range(len(y))),
    "assembled": lambda y, t: assembled(y, t),
}
SMOOTH_LOSSES = [
    "mean of squares", "half sum of squares", "mean of sums", "one-hot cross entropy",
    "indexed cross entropy", "book's cross entropy", "log-sum-exp", "binary cross entropy",
    "root mean square", "norm", "correlation", "first samples only", "variance",
    "element by element", "assembled",
]  # fmt: skip
MIXING_LOSSES = ["root mean square", "norm", "correlation", "variance"]
"""Losses to which no sample adds a part of its own."""


def assembled(y, t):
    """Return a loss that is built up with +=, -= and *=."""
    loss = 0.0
    loss += 0.5 * np.sum((y - t) ** 2)
    loss /= len(y)
    loss -= 0.1 * np.mean(y)
    loss *= 2
    return loss


def one_layer(activation, loss, seed=0, scale=1.0):
    """Return the loss of a layer with an activation, and the layer's weights."""
    random = np.random.default_rng(seed)
    X = scale * random.random((SAMPLES, INPUTS))
    W = random.normal(size=(INPUTS, 12)) / scale
    b = random.normal(size=12)
    V = random.normal(size=(np.shape(activation(np.ones((1, 12))))[1], CLASSES))
    t = np.eye(CLASSES)[random.integers(0, CLASSES, SAMPLES)]
    return (lambda W: loss(activation(np.dot(X, W) + b) @ V, t)), W
