"""Nets of the book's second volume in plain NumPy, unrolled in time; none knows of fastgrad.

Names, control flow and NumPy idioms are those of the book's own code (K. Saito, *Deep Learning from
Scratch*, volume 2, chapters 5, 6 and 8), the words are ours. Backward passes are left out, for
nothing here calls them; what forward passes keep for them is not.
"""

from typing import Any

import numpy as np

from fastgrad.typing import Array

# Layers


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


# Nets


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
