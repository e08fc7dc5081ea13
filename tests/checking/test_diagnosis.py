"""Each fault is recognised by what it does, or by the samples left out, and nothing by chance."""

import numpy as np
import pytest

from benchmarks.cases.backward import LayeredNet
from fastgrad import TwoLayerNet, check_gradient

RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(4, 4))
A = RANDOM.normal(size=(4, 4))


def f(x):
    return float(np.sum(A * np.sin(x)) + 0.25 * np.sum(x**2))


RIGHT = A * np.cos(W) + 0.5 * W

SPOILED = {
    "the sign is wrong": -RIGHT,
    "2 times too large": 2 * RIGHT,
    "half of what it should be": RIGHT / 2,
    "4 times too large, which is the length of its axis 0": 4 * RIGHT,
    "37 times too large, which is perhaps the number of samples": 37 * RIGHT,
    "100 times too small, which is perhaps the number of samples": RIGHT / 100,
    "0.7 times what it should be": 0.7 * RIGHT,
    "0.5 times the parameter itself is missing": RIGHT - 0.5 * W,
    "0.125 times the parameter itself is too much": RIGHT + 0.125 * W,
    "0.03 times its sign is too much": RIGHT + 0.03 * np.sign(W),
    "all but its weight decay, 0.5 times the parameter: 2 times": 2 * RIGHT - 0.5 * W,
    "transposed: return .T.": RIGHT.T,
    "reverse order along axis 1": RIGHT[:, ::-1],
    "summed over all of its elements": np.full((4, 4), RIGHT.sum()),
    "summed over its axis 0": np.tile(RIGHT.sum(axis=0), (4, 1)),
    "all zeros": np.zeros((4, 4)),
    "column 2 is zero": RIGHT * [1, 1, 0, 1],
    "only row 1 is wrong": RIGHT * np.array([[1], [1.5], [1], [1]]),
    "only x[3, 2] is wrong": RIGHT + np.arange(16).reshape(4, 4) // 14 % 2 * [0, 0, 1, 0],
    "of 16 elements are wrong": RIGHT + np.exp(W),
}


@pytest.mark.parametrize("words", SPOILED)
def test_what_is_wrong_is_recognised(words):
    report = check_gradient(f, W.copy(), SPOILED[words])
    assert not report
    if words == "of 16 elements are wrong":
        words = "all 16 elements are wrong"
    assert words in report.findings[0]


def test_axes_that_are_exchanged_are_named():
    x = RANDOM.normal(size=(2, 3, 3))
    weights = RANDOM.normal(size=(2, 3, 3))
    report = check_gradient(lambda x: float((weights * x).sum()), x, weights.transpose(0, 2, 1))
    assert "its axes are exchanged: return .transpose(0, 2, 1)" in report.findings[0]
    report = check_gradient(lambda x: float((weights * x).sum()), x, weights[..., ::-1, ::-1])
    assert "its last two axes are reversed" in report.findings[0]


def test_gradients_that_are_exchanged_are_named():
    x = {"a": W[0].copy(), "b": W[1].copy()}

    def g(x):
        return float(np.sin(x["a"]).sum() + np.exp(x["b"]).sum())

    report = check_gradient(g, x, {"a": np.exp(W[1]), "b": np.cos(W[0])})
    assert "it is the gradient of x['b']" in report.findings[0]
    assert "it is the gradient of x['a']" in report.findings[1]


def test_reshaped_is_not_transposed():
    x = RANDOM.normal(size=(2, 3))
    weights = RANDOM.normal(size=(2, 3))
    wrong = weights.T.reshape(2, 3)
    report = check_gradient(lambda x: float((weights * x).sum()), x, wrong)
    assert "reshaped where it should be transposed" in report.findings[0]


def test_one_number_is_not_explained_by_any_factor():
    report = check_gradient(lambda x: float(x[0] ** 2), np.array([3.0]), np.array([4.1]))
    assert not report
    assert report.findings == ("x: it is wrong.",)


def test_two_faults_in_one_parameter_leave_the_second_visible():
    wrong = 2 * RIGHT
    wrong[1, 1] += 0.5
    report = check_gradient(f, W.copy(), wrong)
    assert not report
    assert "agrees" not in str(report)


def test_a_fault_is_named_though_elements_are_at_kinks():
    """Half of the elements are at a kink, where the differences say nothing of use."""
    x = RANDOM.normal(size=40)
    x[::2] = 0
    weights = RANDOM.normal(size=40)
    right = np.where(x > 0, weights, 0) + np.cos(x)

    def g(x):
        return float((weights * np.maximum(x, 0)).sum() + np.sin(x).sum())

    assert check_gradient(g, x, right)
    report = check_gradient(g, x, -right)
    assert not report
    assert "wrong" in report.findings[0]


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


@pytest.mark.parametrize(
    ("words", "loss"),
    [
        *((words, "cross entropy") for words in WEIGHTS),
        (next(iter(WEIGHTS)), "the book's cross entropy"),
    ],
)
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


class FixedBatch(LayeredNet):
    """A net that takes batches of six samples only, as with a mask that is drawn once."""

    mask = np.random.default_rng(3).random((6, 4)) > 0.3

    def predict(self, x):
        return super().predict(x.reshape(6, -1) * self.mask)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("factor", [1.0, 6.0, np.array([1.0, 2.0, 1.5])])
def test_a_net_for_one_batch_size_is_checked_as_any_other(factor, fast):
    random = np.random.default_rng(0)
    net, x, t = FixedBatch([4, 5, 3]), random.normal(size=(6, 4)), random.integers(0, 3, 6)
    gradient = net.gradient

    def spoiled(x, t):
        found = gradient(x, t)
        return {**found, "b2": found["b2"] * factor}

    net.gradient = spoiled
    report = check_gradient(net, x=x, t=t, fast=fast)
    assert bool(report) == (np.all(factor == 1))
    if not report:
        assert "The gradient of b2 is wrong" in report.summary
        assert ("6 times too large" in str(report)) == np.isscalar(factor)


def test_decay_that_both_have_but_one_has_more_of_is_told_from_a_missing_one():
    x = np.random.default_rng(0).normal(size=20)
    report = check_gradient(
        lambda v: float(np.sin(v).sum() + 0.05 * (v**2).sum()), x, lambda v: np.cos(v) + 0.2 * v
    )
    assert "0.1 times the parameter itself is too much: the gradient has this much more" in str(
        report
    )


def test_a_fault_is_named_in_extended_precision():
    """LAPACK, by which multiples of the gradient and of x are told apart, has none."""
    x = np.arange(1, 5).astype(np.longdouble)
    report = check_gradient(lambda x: (x**2).sum(), x, 2 * x + [0, 1, 0, 0])
    assert not report
    assert "only x[1] is wrong" in str(report)


def test_errors_as_small_as_those_of_a_number_under_a_logarithm_hint_at_one():
    """Also where they are a factor, written as its difference from 1, or in a few elements."""
    x = np.array([1.0, 2.0, 3.0, 4.0])
    for claim, words in (
        (2 * x * (1 + 3e-6), "1 +3.0e-06 times what it should be"),
        (2 * x * (1 + np.array([0, 3e-6, 0, 2e-6])), "only x[1], x[3] are wrong; no error is"),
    ):
        report = check_gradient(lambda x: float(x @ x), x, claim)
        assert not report
        assert words in report.findings[0]
        assert "gone where the loss is checked without it" in report.findings[0]
