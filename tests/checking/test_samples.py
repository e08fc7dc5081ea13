"""Is it told which sample a gradient leaves out, counts twice, or is alone in?"""

import numpy as np
import pytest

from benchmarks.cases.backward import LayeredNet
from fastgrad import TwoLayerNet, check_gradient

SAMPLES = 6


class Weighted:
    """A net whose gradient weighs the samples as it likes."""

    def __init__(self, net, weights):
        self.net, self.params, self.weights = net, net.params, weights

    def loss(self, x, t):
        return self.net.loss(x, t)

    def gradient(self, x, t):
        each = [self.net.gradient(x[n : n + 1], t[n : n + 1]) for n in range(len(x))]
        weights = self.weights if len(x) == SAMPLES else np.ones(len(x)) / len(x)
        return {
            name: sum(w * grads[name] for w, grads in zip(weights, each, strict=True))
            for name in self.params
        }


def batch():
    random = np.random.default_rng(3)
    return random.normal(size=(SAMPLES, 4)), np.array([0, 1, 2, 2, 1, 0])


def weights(**changes):
    result = np.ones(SAMPLES)
    for name, weight in changes.items():
        result[int(name[1:])] = weight
    return result


WEIGHTS = {
    "sample 3 is left out: the gradient is that of the others": weights(n3=0) / (SAMPLES - 1),
    "sample 5 is left out of the sum, though it is divided by all 6": weights(n5=0) / SAMPLES,
    "sample 0 counts twice": weights(n0=2) / SAMPLES,
    "only sample 2 counts: the gradients of the others are lost": weights()
    * (np.arange(SAMPLES) == 2),
    "only sample 4 counts, and it is divided by all 6": (np.arange(SAMPLES) == 4) / SAMPLES,
}


@pytest.mark.parametrize("loss", ["cross entropy", "the book's cross entropy"])
@pytest.mark.parametrize("words", WEIGHTS)
def test_the_sample_is_named(words, loss):
    x, t = batch()
    net = Weighted(LayeredNet([4, 3, 3], "tanh", loss), WEIGHTS[words])
    report = check_gradient(net, x=x, t=t)
    assert not report
    assert f"W1, b1, W2, b2: {words}" in str(report)


def test_the_sample_is_named_in_spite_of_weight_decay():
    x, t = batch()
    net = LayeredNet([4, 3, 3], "tanh", "cross entropy", decay=0.1)

    def gradient(params):
        whole, last = net.gradient(x, t), net.gradient(x[-1:], t[-1:])
        decay = {name: 0.1 * params[name] * (name[0] == "W") for name in params}
        return {name: whole[name] - (last[name] - decay[name]) / SAMPLES for name in params}

    report = check_gradient(net, x=x, t=t, gradient=gradient)
    assert not report
    assert "W1, b1, W2, b2: sample 5 is left out of the sum" in str(report)


def test_the_sample_of_fastgrads_own_net_is_named():
    np.random.seed(0)
    net, (x, t) = TwoLayerNet(4, 3, 3, weight_init_std=0.5), batch()
    report = check_gradient(net, x=x, t=t, gradient=net.gradient(x[1:], t[1:]))
    assert "W1, b1, W2, b2: sample 0 is left out: the gradient is that of the others" in str(report)


def test_nothing_is_said_of_samples_where_they_mix():
    class Centred(LayeredNet):
        """The loss is no sum over samples: the batch's mean is taken off first."""

        def predict(self, x):
            return super().predict(x - x.mean(axis=0))

    x, t = batch()
    net = Weighted(Centred([4, 3, 3], "tanh", "cross entropy"), np.ones(SAMPLES))
    report = check_gradient(net, x=x, t=t)
    assert not report
    assert "sample " not in str(report)
