"""Biases are moved with what they are added to, where that is their only use."""

import numpy as np
import pytest
from nets import EPS, H, sigmoid

from fastgrad import numerical_gradient
from fastgrad.engines import joint_gradients, loop, traced

pytestmark = pytest.mark.usefixtures("cheap_functions_traced")


def standardized(a):
    return (a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-3)


def relu(a):
    return np.maximum(a, 0)


LOSSES = {
    # and how many of b and c are moved with W and V: none where rows mix later on
    "sigmoid": (lambda x, W, b, V, c: np.sum(np.sin(sigmoid(x @ W + b) @ V + c)), 2),
    "added in place": (
        lambda x, W, b, V, c: np.sum(np.sin(added(np.tanh(added(x @ W, b)) @ V, c))), 2,
    ),
    "relu": (lambda x, W, b, V, c: np.sum(np.sin(relu(x @ W + b) @ V + c)), 2),
    "few magnitudes": (lambda x, W, b, V, c: np.sum(np.sin((x > 0.5) @ W + b) @ V + c), 2),
    "rows mix": (lambda x, W, b, V, c: np.sum(np.sin(standardized(x @ W**1 + b) @ V + c)), 1),
    "rows mix at once": (lambda x, W, b, V, c: np.sum(standardized(x @ W + b) ** 3 @ V + c), 1),
    "a row": (lambda x, W, b, V, c: np.sum(np.tanh(x @ W + b[None]) @ V + c[np.newaxis]), 0),
    "the product, too": (
        lambda x, W, b, V, c: np.sum(np.sin(x @ W + b) * (x @ W)) + np.sum(V + c), 0,
    ),
    "the bias, too": (lambda x, W, b, V, c: np.sum(np.sin(x @ W + b) @ V + c) + np.sum(b**4), 1),
    "subtracted": (lambda x, W, b, V, c: np.sum(np.sin(x @ W - b) @ V - c), 0),
    "weights in a penalty": (
        lambda x, W, b, V, c: np.sum(np.sin(x @ W + b) @ V + c) + np.sum(W**2) + np.sum(V**2), 2,
    ),
    "a scale of the weights": (
        lambda x, W, b, V, c: np.mean(np.sin(x @ W + b) @ V + c) * np.sum(np.cos(W)), 1,
    ),
    "columns": (
        lambda x, W, b, V, c: np.sum(np.sin(W.T @ x.T + b.reshape(8, 1))) + np.sum(V + c), 0,
    ),
    "as many rows as units": (lambda x, W, b, V, c: np.sum(np.sin(x @ W + b) @ V.T + c), 2),
}  # fmt: skip


def added(a, b):
    a += b
    return a


@pytest.mark.parametrize(("loss", "biases"), LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("shape", [(8,), (1, 8)], ids=str)
def test_biases_are_moved_with_what_they_are_added_to(loss, biases, shape, monkeypatch):
    draw = np.random.default_rng(3).normal
    params = {"W": draw(size=(9, 8)), "b": draw(size=shape), "V": draw(size=(8, 8))}
    params["c"] = draw(size=8)
    monkeypatch.setattr(joint_gradients, "_kept", joint_gradients._Kept())
    moved, replayed = [], traced._replayed

    def noted(*arguments):
        result = replayed(*arguments)
        moved.append(result.bias)
        return result

    monkeypatch.setattr(traced, "_replayed", noted)
    for _ in range(2):
        del moved[:]
        x = np.random.default_rng(4).random((11, 9))
        x[:, 2] = 0
        x = x[:8] if loss is LOSSES["as many rows as units"][0] else x

        def f(_):
            return loss(x, *params.values())  # noqa: B023  # within the round

        for array in params.values():
            gradient = numerical_gradient(f, array, engine="traced")
            expected = loop.gradient(f, array, H)
            assert abs(gradient - expected).max() <= 1e3 * EPS / H  # what losses are summed from
        for array in params.values():
            array *= 0.99
    assert sum(bias is not None for bias in moved) == biases
