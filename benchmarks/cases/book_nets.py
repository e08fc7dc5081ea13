"""The later nets of the book (both volumes) in plain NumPy, which know nothing of fastgrad.

Names, control flow and NumPy idioms are those of the book's own code (K. Saito, *Deep Learning from
Scratch*, volume 1, chapters 5 to 8; volume 2, chapters 5, 6 and 8), the words are ours. Backward
passes are left out, for nothing here calls them; what forward passes keep for them is not.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases.learners_nets import NO_KINKS, Affine, Case, Relu, digits, example
from benchmarks.measure.accuracy import SEED
from fastgrad.typing import Array

# Layers of volume 1


class SoftmaxWithLoss:
    """Turns scores into probabilities, and those into the mean cross-entropy."""

    def forward(self, x: Array, t: Array) -> Any:
        """Return the loss."""
        self.t = t
        self.y = example.softmax(x)
        self.loss = example.cross_entropy_error(self.y, self.t)
        return self.loss


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


# Nets of volume 1


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


# Layers of volume 2, which are unrolled in time


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + exp(-x))."""
    out: Array = 1 / (1 + np.exp(-x))
    return out


def softmax(x: Array) -> Array:
    """Return probabilities, one row a sample."""
    x = x - x.max(axis=1, keepdims=True)
    x = np.exp(x)
    x /= x.sum(axis=1, keepdims=True)
    return x


class TimeEmbedding:
    """Looks vectors of words up, one moment after the other."""

    def __init__(self, W: Array) -> None:
        self.W = W

    def forward(self, xs: Array) -> Array:
        """Return the vectors, of shape (N, T, D)."""
        N, T = xs.shape
        _, D = self.W.shape
        out = np.empty((N, T, D), dtype=self.W.dtype)
        for t in range(T):
            out[:, t, :] = self.W[xs[:, t]]
        return out


class RNN:
    """One moment of a simple recurrent layer."""

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        self.params = [Wx, Wh, b]

    def forward(self, x: Array, h_prev: Array) -> Array:
        """Return the next hidden state."""
        Wx, Wh, b = self.params
        t = np.dot(h_prev, Wh) + np.dot(x, Wx) + b
        h_next: Array = np.tanh(t)
        self.cache = (x, h_prev, h_next)
        return h_next


class LSTM:
    """One moment of a layer of long short-term memory."""

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        self.params = [Wx, Wh, b]

    def forward(self, x: Array, h_prev: Array, c_prev: Array) -> tuple[Array, Array]:
        """Return the next hidden state and memory."""
        Wx, Wh, b = self.params
        _, H = h_prev.shape
        A = np.dot(x, Wx) + np.dot(h_prev, Wh) + b
        f, g, i, o = A[:, :H], A[:, H : 2 * H], A[:, 2 * H : 3 * H], A[:, 3 * H :]
        f, g, i, o = sigmoid(f), np.tanh(g), sigmoid(i), sigmoid(o)
        c_next = f * c_prev + g * i
        h_next = o * np.tanh(c_next)
        self.cache = (x, h_prev, c_prev, i, f, g, o, c_next)
        return h_next, c_next


class TimeRNN:
    """A simple recurrent layer at all moments."""

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        self.params = [Wx, Wh, b]

    def forward(self, xs: Array) -> Array:
        """Return the hidden states, of shape (N, T, H)."""
        Wx, _, _ = self.params
        N, T, _ = xs.shape
        _, H = Wx.shape
        self.layers = []
        hs = np.empty((N, T, H), dtype=Wx.dtype)
        self.h = np.zeros((N, H), dtype=Wx.dtype)
        for t in range(T):
            layer = RNN(*self.params)
            self.h = layer.forward(xs[:, t, :], self.h)
            hs[:, t, :] = self.h
            self.layers.append(layer)
        return hs


class TimeLSTM:
    """A layer of long short-term memory at all moments."""

    def __init__(self, Wx: Array, Wh: Array, b: Array) -> None:
        self.params = [Wx, Wh, b]
        self.h: Any = None

    def forward(self, xs: Array) -> Array:
        """Return the hidden states, of shape (N, T, H), from the state that was set, or zeros."""
        Wx, Wh, _ = self.params
        N, T, _ = xs.shape
        H = Wh.shape[0]
        self.layers = []
        hs = np.empty((N, T, H), dtype=Wx.dtype)
        if self.h is None:
            self.h = np.zeros((N, H), dtype=Wx.dtype)
        self.c = np.zeros((N, H), dtype=Wx.dtype)
        for t in range(T):
            layer = LSTM(*self.params)
            self.h, self.c = layer.forward(xs[:, t, :], self.h, self.c)
            hs[:, t, :] = self.h
            self.layers.append(layer)
        return hs

    def set_state(self, h: Array | None) -> None:
        """Begin with this hidden state next time."""
        self.h = h


class TimeAffine:
    """An affine layer at all moments at once."""

    def __init__(self, W: Array, b: Array) -> None:
        self.params = [W, b]

    def forward(self, x: Array) -> Array:
        """Return the scores, of shape (N, T, V)."""
        N, T, _ = x.shape
        W, b = self.params
        rx = x.reshape(N * T, -1)
        out: Array = np.dot(rx, W) + b
        self.x = x
        return out.reshape(N, T, -1)


class TimeSoftmaxWithLoss:
    """The mean cross-entropy of all moments but those to be ignored."""

    def __init__(self) -> None:
        self.ignore_label = -1

    def forward(self, xs: Array, ts: Array) -> Any:
        """Return the loss."""
        N, T, V = xs.shape
        mask = ts != self.ignore_label
        xs = xs.reshape(N * T, V)
        ts = ts.reshape(N * T)
        mask = mask.reshape(N * T)
        ys = softmax(xs)
        ls = np.log(ys[np.arange(N * T), ts])
        ls *= mask
        loss = -np.sum(ls)
        loss /= mask.sum()
        self.cache = (ts, ys, mask, (N, T, V))
        return loss


class Attention:
    """Weighs the encoder's states by how alike they are to a state of the decoder."""

    def forward(self, hs: Array, h: Array) -> Array:
        """Return the weighted sum, of shape (N, H)."""
        N, T, H = hs.shape
        hr = h.reshape(N, 1, H).repeat(T, axis=1)
        s = np.sum(hs * hr, axis=2)
        self.attention_weight = a = softmax(s)
        ar = a.reshape(N, T, 1).repeat(H, axis=2)
        c: Array = np.sum(hs * ar, axis=1)
        return c


class TimeAttention:
    """Attention at all moments of the decoder."""

    def forward(self, hs_enc: Array, hs_dec: Array) -> Array:
        """Return the weighted sums, of shape (N, T, H)."""
        _, T, _ = hs_dec.shape
        out = np.empty_like(hs_dec)
        self.layers = []
        for t in range(T):
            layer = Attention()
            out[:, t, :] = layer.forward(hs_enc, hs_dec[:, t, :])
            self.layers.append(layer)
        return out


# Nets of volume 2


def _recurrent(D: int, H: int, gates: int) -> list[Array]:
    """Return the weights and biases of a recurrent layer."""
    return [
        np.random.randn(D, gates * H) / np.sqrt(D),
        np.random.randn(H, gates * H) / np.sqrt(H),
        np.zeros(gates * H),
    ]


class Rnnlm:
    """A model of language: embedding - RNN or LSTM - affine - softmax, at each moment."""

    def __init__(self, vocab_size: int, wordvec_size: int, hidden_size: int, lstm: bool) -> None:
        V, D, H = vocab_size, wordvec_size, hidden_size
        embed_W = np.random.randn(V, D) / 100
        Wx, Wh, b = _recurrent(D, H, 4 if lstm else 1)
        affine_W, affine_b = np.random.randn(H, V) / np.sqrt(H), np.zeros(V)
        self.layers: list[Any] = [
            TimeEmbedding(embed_W),
            (TimeLSTM if lstm else TimeRNN)(Wx, Wh, b),
            TimeAffine(affine_W, affine_b),
        ]
        self.loss_layer = TimeSoftmaxWithLoss()
        self.params = {
            "embed_W": embed_W, "Wx": Wx, "Wh": Wh, "b": b,
            "affine_W": affine_W, "affine_b": affine_b,
        }  # fmt: skip

    def loss(self, xs: Array, ts: Array) -> Any:
        """Return the cross-entropy."""
        if hasattr(self.layers[1], "set_state"):
            self.layers[1].set_state(None)
        for layer in self.layers:
            xs = layer.forward(xs)
        return self.loss_layer.forward(xs, ts)


class AttentionSeq2seq:
    """A translator: an encoder and a decoder with LSTM, and attention between them."""

    def __init__(self, vocab_size: int, wordvec_size: int, hidden_size: int) -> None:
        V, D, H = vocab_size, wordvec_size, hidden_size
        embed_W = np.random.randn(V, D) / 100
        encoder, decoder = _recurrent(D, H, 4), _recurrent(D, H, 4)
        affine_W, affine_b = np.random.randn(2 * H, V) / np.sqrt(2 * H), np.zeros(V)
        self.embed = TimeEmbedding(embed_W)
        self.encoder, self.decoder = TimeLSTM(*encoder), TimeLSTM(*decoder)
        self.attention = TimeAttention()
        self.affine = TimeAffine(affine_W, affine_b)
        self.loss_layer = TimeSoftmaxWithLoss()
        self.params = {
            "embed_W": embed_W,
            **dict(zip(("enc_Wx", "enc_Wh", "enc_b"), encoder, strict=True)),
            **dict(zip(("dec_Wx", "dec_Wh", "dec_b"), decoder, strict=True)),
            "affine_W": affine_W,
            "affine_b": affine_b,
        }

    def loss(self, xs: Array, ts: Array) -> Any:
        """Return the cross-entropy of the translation, each word of which is told the last one."""
        decoder_xs, decoder_ts = ts[:, :-1], ts[:, 1:]
        self.encoder.set_state(None)
        enc_hs = self.encoder.forward(self.embed.forward(xs))
        self.decoder.set_state(enc_hs[:, -1])
        dec_hs = self.decoder.forward(self.embed.forward(decoder_xs))
        c = self.attention.forward(enc_hs, dec_hs)
        out = np.concatenate((c, dec_hs), axis=2)
        score = self.affine.forward(out)
        return self.loss_layer.forward(score, decoder_ts)


# Cases


def multi_layer_net(smoke: bool = False) -> dict[str, Case]:
    """Return 784-4x100-10 with ReLU units on digits."""
    return _of_digits("MultiLayerNet", _layers(smoke), smoke, lambda name: "all parameters")


def with_batchnorm(smoke: bool = False) -> dict[str, Case]:
    """Return the same with batch normalisation, in training mode."""
    net = _layers(smoke, use_batchnorm=True)
    return _of_digits(
        "MultiLayerNetExtend, batch normalisation",
        net,
        smoke,
        lambda name: "W1" if name == "W1" else "all others",
    )


def with_dropout(smoke: bool = False) -> dict[str, Case]:
    """Return the same with dropout, which is random."""
    net = _layers(smoke, use_batchnorm=True, use_dropout=True)
    return _of_digits("MultiLayerNetExtend, dropout", net, smoke, lambda name: "all parameters")


def simple_conv_net(smoke: bool = False) -> dict[str, Case]:
    """Return SimpleConvNet with 30 filters of 5x5 on digits."""
    np.random.seed(SEED)
    net = SimpleConvNet(*((3, 5, 6) if smoke else (30, 5, 100)))
    group = _filters_or_affine(first_affine=2)
    return _of_digits("SimpleConvNet", net, smoke, group, samples=50)


def deep_conv_net(smoke: bool = False) -> dict[str, Case]:
    """Return DeepConvNet on digits."""
    np.random.seed(SEED)
    net = DeepConvNet((2, 2, 3, 3, 4, 4) if smoke else (16, 16, 32, 32, 64, 64), 5 if smoke else 50)
    group = _filters_or_affine(first_affine=7)
    return _of_digits("DeepConvNet", net, smoke, group, samples=2)


def rnnlm(smoke: bool = False) -> dict[str, Case]:
    """Return the model of language of volume 2 with its simple recurrent layer."""
    return _language_model("SimpleRnnlm", smoke, lstm=False)


def lstm(smoke: bool = False) -> dict[str, Case]:
    """Return the same with LSTM."""
    return _language_model("Rnnlm, LSTM", smoke, lstm=True)


def attention(smoke: bool = False) -> dict[str, Case]:
    """Return the translator of volume 2 with attention, on random words."""
    np.random.seed(SEED)
    vocabulary, wordvec, hidden = (7, 3, 4) if smoke else (59, 16, 64)
    samples, length, translated = (2, 3, 3) if smoke else (20, 15, 11)
    net = AttentionSeq2seq(vocabulary, wordvec, hidden)
    xs = np.random.randint(0, vocabulary, (samples, length))
    ts = np.random.randint(0, vocabulary, (samples, translated))
    title = f"AttentionSeq2seq, {vocabulary} words, {hidden} units, {samples} x {length} words"
    return _by_group(Case(title, net, xs, ts, list(net.params), NO_KINKS), _part_of_translator)


BOOK_NETS: Mapping[str, Callable[[bool], dict[str, Case]]] = {
    case.__name__: case
    for case in (
        multi_layer_net,
        with_batchnorm,
        simple_conv_net,
        deep_conv_net,
        rnnlm,
        lstm,
        attention,
    )
}
"""Each returns its groups of parameters, by name; the cases share one net."""


def _layers(smoke: bool, **options: Any) -> MultiLayerNet:
    np.random.seed(SEED)
    return MultiLayerNet(784, [5, 4] if smoke else [100] * 4, 10, **options)


def _of_digits(
    title: str, net: Any, smoke: bool, group_of: Callable[[str], str], samples: int = 100
) -> dict[str, Case]:
    is_convolutional = "Conv" in title
    x, t = digits((2 if is_convolutional else 5) if smoke else samples)
    if is_convolutional:
        x = x.reshape(-1, 1, 28, 28)
    case = Case(f"{title}, {len(x)} digits", net, x, t, list(net.params), NO_KINKS)
    return _by_group(case, group_of)


def _language_model(title: str, smoke: bool, lstm: bool) -> dict[str, Case]:
    np.random.seed(SEED)
    vocabulary, units, samples, length = (6, 3, 2, 3) if smoke else (418, 100, 10, 5)
    net = Rnnlm(vocabulary, units, units, lstm)
    words: NDArray[np.int64] = np.random.randint(0, vocabulary, (samples, length + 1))
    title = f"{title}, {vocabulary} words, {units} units, {samples} x {length} words"
    case = Case(title, net, words[:, :-1], words[:, 1:], list(net.params), NO_KINKS)
    return _by_group(case, _part_of_translator)


def _filters_or_affine(first_affine: int) -> Callable[[str], str]:
    return lambda name: "filters" if int(name[1:]) < first_affine else "affine weights"


def _part_of_translator(name: str) -> str:
    part = name.partition("_")[0]
    return {"embed": "embedding", "affine": "affine"}.get(part, "recurrent")


def _by_group(case: Case, group_of: Callable[[str], str]) -> dict[str, Case]:
    """Return the case once for each group of its parameters."""
    groups: dict[str, list[str]] = {}
    for name in case.net.params:
        groups.setdefault(group_of(name), []).append(name)
    return {
        group: replace(case, title=f"{case.title}: {group}", names=names)
        for group, names in groups.items()
    }
