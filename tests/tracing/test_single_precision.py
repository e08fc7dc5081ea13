"""Functions of float32 arrays are traced in double precision, at the points that float32 has."""

import nets
import numpy as np
import pytest
from nets import EPS, H

from fastgrad import explain, numerical_gradient
from fastgrad.engines import loop

EPS32 = float(np.finfo(np.float32).eps)

RANDOM = np.random.default_rng(0)
X = RANDOM.random((20, 12)).astype("f")
T = RANDOM.integers(0, 5, 20)
SEQUENCES = RANDOM.normal(size=(6, 4, 7)).astype("f")


def softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    x = np.exp(x)
    x /= x.sum(axis=1, keepdims=True)
    return x


class Affine:
    def __init__(self, W, b):
        self.params = [W, b]

    def forward(self, x):
        W, b = self.params
        self.x = x
        return np.dot(x, W) + b


class Relu:
    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out


class Net:
    """Two affine layers, of float32 as in the book's second volume."""

    def __init__(self):
        random = np.random.default_rng(1)
        W1 = (random.normal(size=(12, 15)) / 3).astype("f")
        W2 = (random.normal(size=(15, 5)) / 3).astype("f")
        b1, b2 = np.zeros(15, dtype="f"), np.zeros(5, dtype="f")
        self.params = {"W1": W1, "b1": b1, "W2": W2, "b2": b2}
        self.layers = [Affine(W1, b1), Relu(), Affine(W2, b2)]

    def loss(self, _):
        x = X
        for layer in self.layers:
            x = layer.forward(x)
        self.y = softmax(x)
        return -np.sum(np.log(self.y[np.arange(20), T] + 1e-7)) / 20


class TimeRNN:
    """A recurrent layer unrolled in time, which keeps its states in buffers of float32."""

    def __init__(self):
        random = np.random.default_rng(2)
        Wx = (random.normal(size=(7, 9)) / 3).astype("f")
        Wh = (random.normal(size=(9, 9)) / 3).astype("f")
        V = (random.normal(size=(9, 5)) / 3).astype("f")
        self.params = {"Wx": Wx, "Wh": Wh, "V": V}
        self.h = None

    def loss(self, _):
        N, T_, _ = SEQUENCES.shape
        Wx, Wh, V = self.params.values()
        hs = np.empty((N, T_, 9), dtype="f")
        self.h = np.zeros((N, 9), dtype="f")
        for t in range(T_):
            self.h = np.tanh(np.dot(self.h, Wh) + np.dot(SEQUENCES[:, t, :], Wx))
            hs[:, t, :] = self.h
        y = softmax(np.dot(hs.reshape(N * T_, 9), V))
        return -np.sum(np.log(y[np.arange(N * T_), np.arange(N * T_) % 5])) / (N * T_)


def at_its_points(loss, params, key):
    """Return the loop's quotients by a net of float64, at the points that float32 has."""
    x = params[key]
    wide = x.astype(float)
    quotients = np.zeros(x.shape)
    for i in np.ndindex(*x.shape):
        sides = []
        for point in (np.float32(float(x[i]) + H), np.float32(x[i] - H)):
            moved = wide.copy()
            moved[i] = point
            sides.append(loss(moved))
        quotients[i] = (sides[0] - sides[1]) / (2 * H)
    return quotients


def with_weights(net, key):
    """Return the loss as a function of one array of another precision."""

    def loss(values):
        before = net.params[key]
        for place in (net.params, *(layer.params for layer in vars(net).get("layers", ())[::2])):
            for name, held in place.items() if isinstance(place, dict) else enumerate(place):
                if held is before:
                    place[name] = values
        try:
            return net.loss(None)
        finally:
            for place in (
                net.params,
                *(layer.params for layer in vars(net).get("layers", ())[::2]),
            ):
                for name, held in place.items() if isinstance(place, dict) else enumerate(place):
                    if held is values:
                        place[name] = before

    return loss


@pytest.mark.parametrize("engine", ["auto", "traced"])
@pytest.mark.parametrize("key", ["W1", "b1", "W2", "b2"])
def test_the_gradient_is_the_loops_but_for_its_rounding(key, engine):
    net = Net()
    x = net.params[key]
    before, loss = x.tobytes(), net.loss(None)
    gradient = numerical_gradient(net.loss, x, engine=engine)
    assert (gradient.dtype, gradient.shape, x.tobytes()) == (np.float32, x.shape, before)
    # What it keeps is of float32 again, and its places hold the array itself.
    assert net.layers[0].params[0] is net.params["W1"]
    assert net.y.dtype == np.float32
    looped = loop.gradient(net.loss, x, H)
    assert abs(gradient - looped).max() <= 4 * EPS32 * loss / H
    if engine == "traced":
        exact = at_its_points(with_weights(net, key), net.params, key)
        rounding = 2 * EPS32 * abs(exact).max() + 8 * EPS * loss / H
        assert abs(gradient - exact).max() <= rounding
        assert rounding < 0.01 * abs(looped - exact).max()  # which the loop's own error is not


@pytest.mark.parametrize("key", ["Wx", "Wh", "V"])
def test_a_net_unrolled_in_time_is_traced(key):
    net = TimeRNN()
    loss = net.loss(None)
    gradient = numerical_gradient(net.loss, net.params[key], engine="traced")
    looped = loop.gradient(net.loss, net.params[key], H)
    assert abs(gradient - looped).max() <= 4 * EPS32 * loss / H
    assert net.h.dtype == np.float32


@pytest.mark.parametrize("share", [-0.8, 0.0, 0.5])
def test_kinks_within_the_step_are_seen(share):
    net = Net()
    w, b = net.params["W1"], net.params["b1"]
    b[3] = np.float32(share * H * X[4].max() - X[4].astype(float) @ w[:, 3])
    gradient = numerical_gradient(net.loss, w, engine="traced")
    exact = at_its_points(with_weights(net, "W1"), net.params, "W1")
    without = np.arange(15) != 3
    largest = abs(exact).max()
    rounding = 2 * EPS32 * largest
    assert abs(gradient - exact)[:, without].max() <= rounding
    # By how much both steps differ counts half where one of them passes the kink.
    differ = EPS32 * abs(w).max() / H
    assert abs(gradient - exact)[:, 3].max() <= rounding + differ * largest


def test_explain_says_that_it_is_traced(capsys):
    random = np.random.default_rng(3)
    data, w = random.random((300, 200)), random.normal(size=(200, 30)).astype("f")
    explain(lambda w: np.mean(np.tanh(data @ w) ** 2), w)
    assert capsys.readouterr().out.startswith("Traced")


def test_a_reader_of_the_memory_is_noticed():
    w = np.linspace(0.1, 1, 20).astype("f")
    memory = memoryview(w).cast("B")

    def f(v):
        return np.sum(v**2) * np.frombuffer(memory, "f")[3]

    with pytest.raises(ValueError, match="cannot be traced"):
        numerical_gradient(f, w, engine="traced")


def test_another_function_in_double_precision_is_refused():
    def f(w):
        return np.sum(w**2) * (2 if w.dtype == np.float32 else 3)

    with pytest.raises(ValueError, match="another function of x in double precision"):
        numerical_gradient(f, np.linspace(0.1, 1, 20).astype("f"), engine="traced")


@pytest.mark.parametrize("engine", ["auto", "traced"])
def test_views_of_the_array_are_differenced_too(engine):
    w = RANDOM.normal(size=(6, 4)).astype("f")
    held = {"tied": w.T, "some": (w[1:3, ::-2], 1.0)}  # as the weights of an embedding are
    before = [*held.values()]

    def loss(v):
        return np.mean(np.tanh(v @ held["tied"]) ** 2) + np.sum(held["some"][0] ** 3)

    gradient = numerical_gradient(loss, w, engine=engine)
    assert all(now is then for now, then in zip(held.values(), before, strict=True))
    looped = loop.gradient(loss, w, H)
    assert abs(gradient - looped).max() <= 4 * EPS32 * loss(w) / H
    wide = w.astype(np.float64)
    held["tied"], held["some"] = wide.T, (wide[1:3, ::-2], 1.0)
    if engine == "traced":
        exact = loop.gradient(loss, wide, H)
        scale = ((w + np.float32(H)) - (w - np.float32(H))).astype(float) / (2 * H)
        assert abs(gradient - exact * scale).max() <= 4 * EPS32 * abs(exact).max()


def test_an_array_that_holds_more_than_x_is_refused():
    whole = np.linspace(0.1, 1, 20).astype("f")
    with pytest.raises(ValueError, match="where x cannot be replaced"):
        numerical_gradient(lambda v: np.sum(v**2) + whole.sum(), whole[:9], engine="traced")


def test_random_functions_are_refused():
    w = nets.two_layers()["W1"].astype("f")
    with pytest.raises(ValueError, match="different results"):
        numerical_gradient(lambda v: np.sum(v**2) * np.random.rand(), w, engine="traced")
