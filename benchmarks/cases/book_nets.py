"""The later nets of the book, each with a batch: what gradients of them are measured on."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.cases.book_volume_1 import DeepConvNet, MultiLayerNet, SimpleConvNet
from benchmarks.cases.book_volume_2 import AttentionSeq2seq, Rnnlm
from benchmarks.cases.learners_nets import NO_KINKS, Case, digits
from benchmarks.measure.accuracy import SEED
from fastgrad.typing import Array

TRAINED_STEPS, TRAINED_BATCH, RATE = 10, 20, 0.1
"""Steps of training before a net of images is measured, the digits in each, the learning rate.

Biases are all 0 at first, and so is what follows from the blank part of a digit: a gradient costs
less there than ever after."""


def multi_layer_net(smoke: bool = False) -> Case:
    """Return 784-4x100-10 with ReLU units on digits."""
    return _of_digits("MultiLayerNet", _layers(smoke), 5 if smoke else 100)


def with_batchnorm(smoke: bool = False) -> Case:
    """Return the same with batch normalisation, in training mode."""
    net = _layers(smoke, use_batchnorm=True)
    return _of_digits("MultiLayerNetExtend, batch normalisation", net, 5 if smoke else 100)


def with_dropout(smoke: bool = False) -> Case:
    """Return the same with dropout, which is random."""
    net = _layers(smoke, use_batchnorm=True, use_dropout=True)
    return _whole("MultiLayerNetExtend, dropout, 100 digits", net, *digits(100))


def simple_conv_net(smoke: bool = False) -> Case:
    """Return SimpleConvNet with 30 filters of 5x5 on digits."""
    np.random.seed(SEED)
    net = SimpleConvNet(*((3, 5, 6) if smoke else (30, 5, 100)))
    return _of_digits("SimpleConvNet", net, 2 if smoke else 50)


def deep_conv_net(smoke: bool = False) -> Case:
    """Return DeepConvNet on digits."""
    np.random.seed(SEED)
    net = DeepConvNet((2, 2, 3, 3, 4, 4) if smoke else (16, 16, 32, 32, 64, 64), 5 if smoke else 50)
    return _of_digits("DeepConvNet", net, 2 if smoke else 1)


def rnnlm(smoke: bool = False) -> Case:
    """Return the model of language of volume 2 with its simple recurrent layer."""
    return _language_model("SimpleRnnlm", smoke, lstm=False)


def lstm(smoke: bool = False) -> Case:
    """Return the same with LSTM."""
    return _language_model("Rnnlm, LSTM", smoke, lstm=True)


def attention(smoke: bool = False) -> Case:
    """Return the translator of volume 2 with attention, on random words."""
    np.random.seed(SEED)
    vocabulary, wordvec, hidden = (7, 3, 4) if smoke else (59, 16, 32)
    samples, length, translated = (2, 3, 3) if smoke else (10, 8, 5)
    net = AttentionSeq2seq(vocabulary, wordvec, hidden)
    xs = np.random.randint(0, vocabulary, (samples, length))
    ts = np.random.randint(0, vocabulary, (samples, translated))
    title = f"AttentionSeq2seq, {vocabulary} words, {hidden} units, {samples} x {length}"
    return _whole(title, net, xs, ts)


BOOK_NETS: Mapping[str, Callable[[bool], Case]] = {
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


def _layers(smoke: bool, **options: Any) -> MultiLayerNet:
    np.random.seed(SEED)
    return MultiLayerNet(784, [5, 4] if smoke else [100] * 4, 10, **options)


def _of_digits(title: str, net: Any, samples: int) -> Case:
    x, t = digits(samples + TRAINED_STEPS * TRAINED_BATCH)
    if "Conv" in title:
        x = x.reshape(-1, 1, 28, 28)
    for first in range(samples, len(x), TRAINED_BATCH):
        batch = slice(first, first + TRAINED_BATCH)
        for name, slopes in net.gradient(x[batch], t[batch]).items():
            net.params[name] -= RATE * slopes
    title = f"{title}, {samples} digit{'s' * (samples > 1)}"
    return _whole(title, net, x[:samples], t[:samples])


def _language_model(title: str, smoke: bool, lstm: bool) -> Case:
    np.random.seed(SEED)
    vocabulary, units, samples, length = (6, 3, 2, 3) if smoke else (100, 40, 10, 5)
    net = Rnnlm(vocabulary, units, units, lstm)
    words: NDArray[np.int64] = np.random.randint(0, vocabulary, (samples, length + 1))
    title = f"{title}, {vocabulary} words, {units} units, {samples} x {length}"
    return _whole(title, net, words[:, :-1], words[:, 1:])


def _whole(title: str, net: Any, x: Array, t: Array) -> Case:
    """Return a case of all parameters."""
    return Case(title, net, x, t, list(net.params), NO_KINKS)
