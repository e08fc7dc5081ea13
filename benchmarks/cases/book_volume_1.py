"""Nets of the book's first volume in plain NumPy, which know nothing of fastgrad.

Names, control flow and NumPy idioms are those of the book's own code (K. Saito, *Deep Learning from
Scratch*, chapters 5 to 8), backpropagation included, but for dropout's; the words are ours.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from benchmarks.cases.learners_nets import Affine, Relu, example
from fastgrad.typing import Array

# Layers


class SoftmaxWithLoss:
    """Turns scores into probabilities, and those into the mean cross-entropy."""

    def forward(self, x: Array, t: Array) -> Any:
        """Return the loss."""
        self.t = t
        self.y = example.softmax(x)
        self.loss = example.cross_entropy_error(self.y, self.t)
        return self.loss

    def backward(self, dout: float = 1) -> Array:
        """Return the derivatives by the scores; as the book, without its 1e-7."""
        batch_size = self.t.shape[0]
        dx: Array = self.y.copy()
        dx[np.arange(batch_size), self.t] -= 1
        dx *= dout / batch_size
        return dx


class BatchNormalization:
    """Makes the mean of each unit over the batch 0, and its variance 1, in training mode."""

    def __init__(self, gamma: Array, beta: Array, momentum: float = 0.9) -> None:
        self.gamma, self.beta, self.momentum = gamma, beta, momentum
        self.running_mean: Any = None
        self.running_var: Any = None

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return the normalised, scaled and shifted batch; note its running mean and variance."""
        if self.running_mean is None:
            _, D = x.shape
            self.running_mean = np.zeros(D)
            self.running_var = np.zeros(D)
        if train_flg:
            mu = x.mean(axis=0)
            xc = x - mu
            var = np.mean(xc**2, axis=0)
            std = np.sqrt(var + 10e-7)
            xn = xc / std
            self.batch_size = x.shape[0]
            self.xc, self.xn, self.std = xc, xn, std
            self.running_mean = self.momentum * self.running_mean + (1 - self.momentum) * mu
            self.running_var = self.momentum * self.running_var + (1 - self.momentum) * var
        else:
            xc = x - self.running_mean
            xn = xc / np.sqrt(self.running_var + 10e-7)
        out: Array = self.gamma * xn + self.beta
        return out

    def backward(self, dout: Array) -> Array:
        """Return the derivatives by x, and keep those by the parameters; in training mode."""
        self.gradients = [
            (self.gamma, np.sum(self.xn * dout, axis=0)),
            (self.beta, dout.sum(axis=0)),
        ]
        dxn = self.gamma * dout
        dxc = dxn / self.std
        dstd = -np.sum((dxn * self.xc) / (self.std * self.std), axis=0)
        dvar = 0.5 * dstd / self.std
        dxc += (2.0 / self.batch_size) * self.xc * dvar
        dmu = np.sum(dxc, axis=0)
        dx: Array = dxc - dmu / self.batch_size
        return dx


class Dropout:
    """Switches units off at random, in training mode."""

    def __init__(self, dropout_ratio: float = 0.5) -> None:
        self.dropout_ratio = dropout_ratio

    def forward(self, x: Array, train_flg: bool = True) -> Array:
        """Return the batch, some of whose units are 0 or, in test mode, all of them smaller."""
        if train_flg:
            self.mask = np.random.rand(*x.shape) > self.dropout_ratio
            return x * self.mask
        return x * (1.0 - self.dropout_ratio)


def im2col(input_data: Array, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0) -> Array:
    """Lay every window of an array of images (N, C, H, W) out as a row."""
    N, C, H, W = input_data.shape
    out_h = (H + 2 * pad - filter_h) // stride + 1
    out_w = (W + 2 * pad - filter_w) // stride + 1
    img = np.pad(input_data, [(0, 0), (0, 0), (pad, pad), (pad, pad)], "constant")
    col = np.zeros((N, C, filter_h, filter_w, out_h, out_w))
    for y in range(filter_h):
        y_max = y + stride * out_h
        for x in range(filter_w):
            x_max = x + stride * out_w
            col[:, :, y, x, :, :] = img[:, :, y:y_max:stride, x:x_max:stride]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(N * out_h * out_w, -1)


def col2im(
    col: Array,
    input_shape: tuple[int, ...],
    filter_h: int,
    filter_w: int,
    stride: int = 1,
    pad: int = 0,
) -> Array:
    """Add every row up where its window was."""
    N, C, H, W = input_shape
    out_h = (H + 2 * pad - filter_h) // stride + 1
    out_w = (W + 2 * pad - filter_w) // stride + 1
    col = col.reshape(N, out_h, out_w, C, filter_h, filter_w).transpose(0, 3, 4, 5, 1, 2)
    img = np.zeros((N, C, H + 2 * pad + stride - 1, W + 2 * pad + stride - 1))
    for y in range(filter_h):
        y_max = y + stride * out_h
        for x in range(filter_w):
            x_max = x + stride * out_w
            img[:, :, y:y_max:stride, x:x_max:stride] += col[:, :, y, x, :, :]
    return img[:, :, pad : H + pad, pad : W + pad]


class Convolution:
    """Filters W of shape (FN, C, FH, FW) look at every window."""

    def __init__(self, W: Array, b: Array, stride: int = 1, pad: int = 0) -> None:
        self.W, self.b, self.stride, self.pad = W, b, stride, pad

    def forward(self, x: Array) -> Array:
        """Return the filters' answers, of shape (N, FN, out_h, out_w)."""
        FN, _, FH, FW = self.W.shape
        N, _, H, W = x.shape
        out_h = 1 + int((H + 2 * self.pad - FH) / self.stride)
        out_w = 1 + int((W + 2 * self.pad - FW) / self.stride)
        col = im2col(x, FH, FW, self.stride, self.pad)
        col_W = self.W.reshape(FN, -1).T
        out: Array = np.dot(col, col_W) + self.b
        out = out.reshape(N, out_h, out_w, -1).transpose(0, 3, 1, 2)
        self.x, self.col, self.col_W = x, col, col_W
        return out

    def backward(self, dout: Array) -> Array:
        """Return the derivatives by x, and keep those by the parameters."""
        FN, _, FH, FW = self.W.shape
        dout = dout.transpose(0, 2, 3, 1).reshape(-1, FN)
        self.gradients = [
            (self.W, np.dot(self.col.T, dout).T.reshape(self.W.shape)),
            (self.b, np.sum(dout, axis=0)),
        ]
        dcol = np.dot(dout, self.col_W.T)
        return col2im(dcol, self.x.shape, FH, FW, self.stride, self.pad)


class Pooling:
    """Keeps the largest pixel of each window."""

    def __init__(self, pool_h: int, pool_w: int, stride: int = 1, pad: int = 0) -> None:
        self.pool_h, self.pool_w, self.stride, self.pad = pool_h, pool_w, stride, pad

    def forward(self, x: Array) -> Array:
        """Return the largest pixels, of shape (N, C, out_h, out_w)."""
        N, C, H, W = x.shape
        out_h = int(1 + (H - self.pool_h) / self.stride)
        out_w = int(1 + (W - self.pool_w) / self.stride)
        col = im2col(x, self.pool_h, self.pool_w, self.stride, self.pad)
        col = col.reshape(-1, self.pool_h * self.pool_w)
        arg_max = np.argmax(col, axis=1)
        out: Array = np.max(col, axis=1)
        out = out.reshape(N, out_h, out_w, C).transpose(0, 3, 1, 2)
        self.x, self.arg_max = x, arg_max
        return out

    def backward(self, dout: Array) -> Array:
        """Return the derivatives by x."""
        dout = dout.transpose(0, 2, 3, 1)
        pool_size = self.pool_h * self.pool_w
        dmax = np.zeros((dout.size, pool_size))
        dmax[np.arange(self.arg_max.size), self.arg_max.flatten()] = dout.flatten()
        dcol = dmax.reshape(dout.shape[0] * dout.shape[1] * dout.shape[2], -1)
        return col2im(dcol, self.x.shape, self.pool_h, self.pool_w, self.stride, self.pad)


# Nets


def backpropagation(net: Any, layers: Iterable[Any]) -> dict[str, Array]:
    """Return the gradient for the net's parameters, after a call of its loss.

    A net's `loss` keeps in its layers what this needs.
    """
    dout = net.last_layer.backward()
    by_array: dict[int, Array] = {}
    for layer in reversed([*layers]):
        dout = layer.backward(dout)
        by_array |= {id(values): found for values, found in getattr(layer, "gradients", ())}
    return {name: by_array[id(values)] for name, values in net.params.items()}


class MultiLayerNet:
    """Affine layers with ReLU between them; with batch normalisation and dropout if asked for."""

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Sequence[int],
        output_size: int,
        weight_decay_lambda: float = 0,
        use_dropout: bool = False,
        dropout_ration: float = 0.5,
        use_batchnorm: bool = False,
    ) -> None:
        self.hidden_layer_num = len(hidden_size_list)
        self.weight_decay_lambda = weight_decay_lambda
        self.params: dict[str, Array] = {}
        all_size_list = [input_size, *hidden_size_list, output_size]
        for idx in range(1, len(all_size_list)):
            scale = np.sqrt(2.0 / all_size_list[idx - 1])
            self.params["W" + str(idx)] = scale * np.random.randn(
                all_size_list[idx - 1], all_size_list[idx]
            )
            self.params["b" + str(idx)] = np.zeros(all_size_list[idx])
        self.layers: dict[str, Any] = OrderedDict()
        for idx in range(1, self.hidden_layer_num + 1):
            self.layers["Affine" + str(idx)] = Affine(
                self.params["W" + str(idx)], self.params["b" + str(idx)]
            )
            if use_batchnorm:
                self.params["gamma" + str(idx)] = np.ones(hidden_size_list[idx - 1])
                self.params["beta" + str(idx)] = np.zeros(hidden_size_list[idx - 1])
                self.layers["BatchNorm" + str(idx)] = BatchNormalization(
                    self.params["gamma" + str(idx)], self.params["beta" + str(idx)]
                )
            self.layers["Activation_function" + str(idx)] = Relu()
            if use_dropout:
                self.layers["Dropout" + str(idx)] = Dropout(dropout_ration)
        idx = self.hidden_layer_num + 1
        self.layers["Affine" + str(idx)] = Affine(
            self.params["W" + str(idx)], self.params["b" + str(idx)]
        )
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x: Array, train_flg: bool = True) -> Array:
        """Return the scores of the classes."""
        for key, layer in self.layers.items():
            if "Dropout" in key or "BatchNorm" in key:
                x = layer.forward(x, train_flg)
            else:
                x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array, train_flg: bool = True) -> Any:
        """Return the cross-entropy and the penalty; in training mode, as gradients want it."""
        y = self.predict(x, train_flg)
        weight_decay = 0
        for idx in range(1, self.hidden_layer_num + 2):
            W = self.params["W" + str(idx)]
            weight_decay += 0.5 * self.weight_decay_lambda * np.sum(W**2)
        return self.last_layer.forward(y, t) + weight_decay

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient by backpropagation."""
        self.loss(x, t)
        grads = backpropagation(self, self.layers.values())
        for name, W in self.params.items():
            if name.startswith("W"):
                grads[name] += self.weight_decay_lambda * W
        return grads


class SimpleConvNet:
    """conv - relu - pool - affine - relu - affine - softmax."""

    def __init__(self, filter_num: int, filter_size: int, hidden_size: int) -> None:
        conv_output_size = 28 - filter_size + 1
        pool_output_size = int(filter_num * (conv_output_size / 2) * (conv_output_size / 2))
        self.params: dict[str, Array] = {}
        self.params["W1"] = 0.01 * np.random.randn(filter_num, 1, filter_size, filter_size)
        self.params["b1"] = np.zeros(filter_num)
        self.params["W2"] = 0.01 * np.random.randn(pool_output_size, hidden_size)
        self.params["b2"] = np.zeros(hidden_size)
        self.params["W3"] = 0.01 * np.random.randn(hidden_size, 10)
        self.params["b3"] = np.zeros(10)
        self.layers: dict[str, Any] = OrderedDict()
        self.layers["Conv1"] = Convolution(self.params["W1"], self.params["b1"])
        self.layers["Relu1"] = Relu()
        self.layers["Pool1"] = Pooling(pool_h=2, pool_w=2, stride=2)
        self.layers["Affine1"] = Affine(self.params["W2"], self.params["b2"])
        self.layers["Relu2"] = Relu()
        self.layers["Affine2"] = Affine(self.params["W3"], self.params["b3"])
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x: Array) -> Array:
        """Return the scores of the classes."""
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        """Return the cross-entropy."""
        y = self.predict(x)
        return self.last_layer.forward(y, t)

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient by backpropagation."""
        self.loss(x, t)
        return backpropagation(self, self.layers.values())


class DeepConvNet:
    """Three times conv - relu - conv - relu - pool, then affine - relu - affine - softmax.

    Dropout is left out, as in the book's net in test mode but for its constant factors.
    """

    def __init__(self, filter_nums: Sequence[int], hidden_size: int) -> None:
        self.params: dict[str, Array] = {}
        self.layers: list[Any] = []
        channels = 1
        for idx, filter_num in enumerate(filter_nums, 1):
            scale = np.sqrt(2.0 / (channels * 3 * 3))
            W = self.params["W" + str(idx)] = scale * np.random.randn(filter_num, channels, 3, 3)
            b = self.params["b" + str(idx)] = np.zeros(filter_num)
            # The fourth one's padding makes the side even, so that it can be halved again.
            self.layers += [Convolution(W, b, 1, pad=2 if idx == 4 else 1), Relu()]
            if idx % 2 == 0:
                self.layers.append(Pooling(pool_h=2, pool_w=2, stride=2))
            channels = filter_num
        sizes = channels * 4 * 4, hidden_size, 10
        for idx in (7, 8):
            before, after = sizes[idx - 7 : idx - 5]
            W = self.params["W" + str(idx)] = np.sqrt(2.0 / before) * np.random.randn(before, after)
            b = self.params["b" + str(idx)] = np.zeros(after)
            self.layers += [Affine(W, b), Relu()]
        self.layers.pop()
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x: Array) -> Array:
        """Return the scores of the classes."""
        for layer in self.layers:
            x = layer.forward(x)
        return x

    def loss(self, x: Array, t: Array) -> Any:
        """Return the cross-entropy."""
        y = self.predict(x)
        return self.last_layer.forward(y, t)

    def gradient(self, x: Array, t: Array) -> dict[str, Array]:
        """Return the gradient by backpropagation."""
        self.loss(x, t)
        return backpropagation(self, self.layers)
