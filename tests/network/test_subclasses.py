"""A subclass of TwoLayerNet with a loss of its own is differenced by that loss, or refused."""

import numpy as np
import pytest

from fastgrad import TwoLayerNet, check_gradient, numerical_gradient

X, T = np.random.default_rng(0).random((8, 6)), np.arange(8) % 4


class Relu(TwoLayerNet):
    def predict(self, x):
        p = self.params
        a = np.maximum(x @ p["W1"] + p["b1"], 0) @ p["W2"] + p["b2"]
        y = np.exp(a - a.max(axis=1, keepdims=True))
        return y / y.sum(axis=1, keepdims=True)


class Decaying(TwoLayerNet):
    def loss(self, x, t):
        return super().loss(x, t) + 0.05 * sum((w**2).sum() for w in self.params.values())

    def gradient(self, x, t):
        found = super().gradient(x, t)
        found.buffer += 0.1 * self.params.buffer
        return found


class Scaled(TwoLayerNet):
    """With parameters of its own."""

    @property
    def params(self):
        return {**super().params, "scale": self.scale}

    def loss(self, x, t):
        return super().loss(x * self.scale, t)


def made(kind):
    np.random.seed(0)
    net = kind(6, 5, 4, 0.5)
    net.scale = np.array(2.0)
    return net


def by_itself():
    net = made(TwoLayerNet)
    net.predict = lambda x: Relu.predict(net, x)
    return net


NETS = {
    "predict": lambda: made(Relu),
    "loss": lambda: made(Decaying),
    "params": lambda: made(Scaled),
    "an attribute": by_itself,
}


@pytest.mark.parametrize("name", NETS)
def test_the_quotients_of_a_subclass_are_those_of_its_own_loss(name):
    net = NETS[name]()
    plain = made(TwoLayerNet).numerical_gradient(X, T)
    for engine in ("response", "loop"):
        got = net.numerical_gradient(X, T, engine=engine)
        assert [*got] == [*net.params]
        for key, array in net.params.items():
            want = numerical_gradient(lambda _: net.loss(X, T), array, engine="loop")
            # Both have the loop's round-off, eps * loss / h.
            np.testing.assert_allclose(got[key], want, rtol=0, atol=1e-10)
        assert any(abs(got[key] - plain[key]).max() > 1e-3 for key in plain)


def test_loss_and_accuracy_of_a_subclass_follow_from_what_it_predicts():
    net = made(Relu)
    p = net.predict(X)
    assert net.loss(X, T) == pytest.approx(-np.log(p[np.arange(8), T] + 1e-7).mean(), rel=1e-14)
    assert net.accuracy(X, T) == (p.argmax(axis=1) == T).mean()


@pytest.mark.parametrize("name", ["predict", "params", "an attribute"])
def test_backpropagation_of_another_loss_is_refused(name):
    with pytest.raises(NotImplementedError, match=r"override gradient.*numerical_gradient"):
        NETS[name]().gradient(X, T)


def test_a_subclass_may_override_its_gradient_and_is_checked_by_its_own_loss():
    assert check_gradient(made(Decaying), x=X, t=T)


def test_a_subclass_that_changes_nothing_of_the_loss_keeps_its_engines_and_backpropagation():
    class Named(TwoLayerNet):
        name = "mine"

        def accuracy(self, x, t):
            return 0.0

    net, plain = made(Named), made(TwoLayerNet)
    assert net.numerical_gradient(X, T) == plain.numerical_gradient(X, T)
    assert net.gradient(X, T) == plain.gradient(X, T)


def test_the_nets_loop_goes_on_where_a_step_is_lost_as_the_book_does():
    net = made(TwoLayerNet)
    net.params["W2"][0, 0] = 3e12
    with pytest.raises(ValueError, match="which is lost"):
        net.numerical_gradient(X, T)
    with pytest.warns(RuntimeWarning, match=r"which is lost .* params\['W2'\]"):
        got = net.numerical_gradient(X, T, engine="loop")
    assert got["W2"][0, 0] == 0
