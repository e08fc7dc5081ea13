"""Checks of layers: convolution, batch normalisation, an LSTM and attention.

python examples/check_layers.py             each layer, and each with a fault
python examples/check_layers.py attention   one of them
"""

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np

from fastgrad import check_backward
from fastgrad.typing import Array

# The learner's code: a forward pass returns what it passes on, and what the backward pass needs.


def conv_forward(x: Array, w: Array, b: Array, stride: int, pad: int) -> tuple[Array, Any]:
    """Convolve images (N, C, H, W) with filters (F, C, HH, WW)."""
    N, _, H, W = x.shape
    F, _, HH, WW = w.shape
    padded = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    rows, columns = (H + 2 * pad - HH) // stride + 1, (W + 2 * pad - WW) // stride + 1
    out = np.zeros((N, F, rows, columns))
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride, j * stride
            window = padded[:, :, top : top + HH, left : left + WW]
            out[:, :, i, j] = np.tensordot(window, w, axes=([1, 2, 3], [1, 2, 3])) + b
    return out, (padded, w, stride, pad)


def conv_backward(dout: Array, cache: Any) -> tuple[Array, Array, Array]:
    """Pass back to images, filters and biases."""
    padded, w, stride, pad = cache
    HH, WW = w.shape[2:]
    dpadded, dw = np.zeros_like(padded), np.zeros_like(w)
    for i in range(dout.shape[2]):
        for j in range(dout.shape[3]):
            top, left = i * stride, j * stride
            window = (..., slice(top, top + HH), slice(left, left + WW))
            dpadded[window] += np.tensordot(dout[:, :, i, j], w, axes=1)
            dw += np.tensordot(dout[:, :, i, j].T, padded[window], axes=1)
    dx = dpadded[:, :, pad : dpadded.shape[2] - pad, pad : dpadded.shape[3] - pad]
    return dx, dw, dout.sum(axis=(0, 2, 3))


def batchnorm_forward(x: Array, gamma: Array, beta: Array) -> tuple[Array, Any]:
    """Normalise each column over the batch."""
    deviation = np.sqrt(x.var(axis=0) + 1e-5)
    normal = (x - x.mean(axis=0)) / deviation
    return gamma * normal + beta, (gamma, normal, deviation)


def batchnorm_backward(dout: Array, cache: Any) -> tuple[Array, Array, Array]:
    """Pass back to the batch, and to scale and shift."""
    gamma, normal, deviation = cache
    dnormal = dout * gamma
    dx = dnormal - dnormal.mean(axis=0) - normal * (dnormal * normal).mean(axis=0)
    return dx / deviation, (dout * normal).sum(axis=0), dout.sum(axis=0)


def sigmoid(a: Array) -> Array:
    """Squash to 0 ... 1."""
    result: Array = 1 / (1 + np.exp(-a))
    return result


def lstm_forward(
    x: Array, h: Array, c: Array, Wx: Array, Wh: Array, b: Array
) -> tuple[Array, Array, Any]:
    """Take one step in time: a hidden state and a cell state come out, then the cache."""
    i, f, o, g = np.split(x @ Wx + h @ Wh + b, 4, axis=1)
    i, f, o, g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
    next_c = f * c + i * g
    return o * np.tanh(next_c), next_c, (x, h, c, Wx, Wh, i, f, o, g, next_c)


def lstm_backward(dnext_h: Array, dnext_c: Array, cache: Any) -> tuple[Array, ...]:
    """Pass back to the input, both states, both weights and the bias."""
    x, h, c, Wx, Wh, i, f, o, g, next_c = cache
    squashed = np.tanh(next_c)
    dc = dnext_c + dnext_h * o * (1 - squashed**2)
    da = np.hstack(
        [
            dc * g * i * (1 - i),
            dc * c * f * (1 - f),
            dnext_h * squashed * o * (1 - o),
            dc * i * (1 - g**2),
        ]
    )
    return da @ Wx.T, da @ Wh.T, dc * f, x.T @ da, h.T @ da, da.sum(axis=0)


def attention_forward(q: Array, k: Array, v: Array) -> tuple[Array, Any]:
    """Let each query, a row, look at all keys, and mix the values."""
    scores = q @ k.T / np.sqrt(q.shape[1])
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights @ v, (q, k, v, weights)


def attention_backward(dout: Array, cache: Any) -> tuple[Array, Array, Array]:
    """Pass back to queries, keys and values."""
    q, k, v, weights = cache
    dweights = dout @ v.T
    dscores = weights * (dweights - (dweights * weights).sum(axis=1, keepdims=True))
    dscores /= np.sqrt(q.shape[1])
    return dscores @ k, dscores.T @ q, weights.T @ dout


# The same with a fault each: what a learner writes first.


def conv_backward_faulty(dout: Array, cache: Any) -> tuple[Array, Array, Array]:
    """Forget that the biases' gradient is summed over the batch, too."""
    dx, dw, db = conv_backward(dout, cache)
    return dx, dw, db / len(dout)


def batchnorm_backward_faulty(dout: Array, cache: Any) -> tuple[Array, Array, Array]:
    """Forget that mean and deviation depend on the batch."""
    gamma, _, deviation = cache
    return dout * gamma / deviation, *batchnorm_backward(dout, cache)[1:]


def lstm_backward_faulty(dnext_h: Array, dnext_c: Array, cache: Any) -> tuple[Array, ...]:
    """Forget what comes back along the cell state."""
    return lstm_backward(dnext_h, np.zeros_like(dnext_c), cache)


def attention_backward_faulty(dout: Array, cache: Any) -> tuple[Array, Array, Array]:
    """Forget to divide by the root of the width."""
    dq, dk, dv = attention_backward(dout, cache)
    return dq * np.sqrt(cache[0].shape[1]), dk, dv


def layers() -> dict[str, tuple[Callable[..., Any], Any, Any, tuple[Any, ...], list[Any]]]:
    """Return of each layer: forward, inputs, dout, further arguments, and two backward passes."""
    draw = np.random.default_rng(0).normal
    states = draw(size=(3, 5)), draw(size=(3, 5))
    lstm = draw(size=(3, 4)), *states, draw(size=(4, 20)), draw(size=(5, 20)), draw(size=20)
    return {
        "convolution": (
            conv_forward,
            (draw(size=(3, 3, 6, 6)), draw(size=(4, 3, 3, 3)), draw(size=4)),
            None,
            (1, 1),
            [conv_backward, conv_backward_faulty],
        ),
        "batchnorm": (
            batchnorm_forward,
            (draw(3, 2, (10, 4)), draw(size=4), draw(size=4)),
            None,
            (),
            [batchnorm_backward, batchnorm_backward_faulty],
        ),
        "lstm": (
            lstm_forward,
            lstm,
            (draw(size=(3, 5)), draw(size=(3, 5))),
            (),
            [lstm_backward, lstm_backward_faulty],
        ),
        "attention": (
            attention_forward,
            (draw(size=(5, 4)), draw(size=(6, 4)), draw(size=(6, 3))),
            None,
            (),
            [attention_backward, attention_backward_faulty],
        ),
    }


def main() -> None:
    """Check the layers."""
    of_layer = layers()
    parser = argparse.ArgumentParser(
        description="Check layers' backward passes, right ones and ones with a fault.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("layers", nargs="*", metavar="layer", help=", ".join(of_layer))
    chosen = parser.parse_args().layers or [*of_layer]
    unknown = [name for name in chosen if name not in of_layer]
    if unknown:
        parser.error(f"there is no layer {unknown[0]!r}; choose from {', '.join(of_layer)}")
    for name in chosen:
        forward, inputs, dout, args, passes = of_layer[name]
        for backward in passes:
            print(f"{backward.__name__}: {(backward.__doc__ or '').strip()}")
            print(check_backward(forward, inputs, dout, backward, args=args), end="\n\n")


if __name__ == "__main__":
    main()
