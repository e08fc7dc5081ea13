"""Nets as learners write them: many styles, each as a loss of a parameter in unmodified NumPy.

A case is ``make() -> loss, x``: a function of one array as `numerical_gradient` takes it, and the
array. Nothing here knows of fastgrad.
"""

import functools
from dataclasses import dataclass, field

import numpy as np

SAMPLES, INPUTS, HIDDEN, CLASSES = 11, 9, 13, 4
EPS = float(np.finfo(np.float64).eps)
H = 1e-4

IS_EXTENDED = bool(np.finfo(np.longdouble).eps < EPS / 100)
"""Whether longdouble has more digits than float64: not on Windows, nor on Macs with ARM."""


# The book's functions ----------------------------------------------------------------------------


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    if x.ndim == 2:
        x = x.T
        x = x - np.max(x, axis=0)
        y = np.exp(x) / np.sum(np.exp(x), axis=0)
        return y.T
    x = x - np.max(x)
    return np.exp(x) / np.sum(np.exp(x))


def softmax_by_keepdims(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy_error(y, t):
    if y.ndim == 1:
        t = t.reshape(1, t.size)
        y = y.reshape(1, y.size)
    if t.size == y.size:
        t = t.argmax(axis=1)
    batch_size = y.shape[0]
    return -np.sum(np.log(y[np.arange(batch_size), t] + 1e-7)) / batch_size


def batch(seed=0, *, samples=SAMPLES, inputs=INPUTS, classes=CLASSES):
    """Return inputs in [0, 1), class indices, and the same labels one-hot."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, samples)
    return random.random((samples, inputs)), labels, np.eye(classes)[labels]


def two_layers(seed=1, deviation=0.5):
    """Return W1, b1, W2, b2 as a dict."""
    random = np.random.default_rng(seed)
    return {
        "W1": deviation * random.normal(size=(INPUTS, HIDDEN)),
        "b1": deviation * random.normal(size=HIDDEN),
        "W2": deviation * random.normal(size=(HIDDEN, CLASSES)),
        "b2": deviation * random.normal(size=CLASSES),
    }


# Classes -----------------------------------------------------------------------------------------


class BookNet:
    """The book's chapter 4: a dict of parameters, and a loss that reads it."""

    def __init__(self):
        self.params = two_layers()

    def predict(self, x):
        W1, W2 = self.params["W1"], self.params["W2"]
        b1, b2 = self.params["b1"], self.params["b2"]
        a1 = np.dot(x, W1) + b1
        z1 = sigmoid(a1)
        a2 = np.dot(z1, W2) + b2
        return softmax(a2)

    def loss(self, x, t):
        return cross_entropy_error(self.predict(x), t)


class Affine:
    def __init__(self, W, b):
        self.W = W
        self.b = b
        self.x = None

    def forward(self, x):
        self.x = x
        return np.dot(x, self.W) + self.b


class Relu:
    def __init__(self):
        self.mask = None

    def forward(self, x):
        self.mask = x <= 0
        out = x.copy()
        out[self.mask] = 0
        return out


class Sigmoid:
    def __init__(self):
        self.out = None

    def forward(self, x):
        self.out = 1 / (1 + np.exp(-x))
        return self.out


class SoftmaxWithLoss:
    def __init__(self):
        self.loss = None
        self.y = None
        self.t = None

    def forward(self, x, t):
        self.t = t
        self.y = softmax(x)
        self.loss = cross_entropy_error(self.y, self.t)
        return self.loss


class LayerNet:
    """The book's chapters 5 and 6: layers that cache what their backward pass would need."""

    def __init__(self, activation=Relu, weight_decay=0.0):
        self.params = two_layers()
        self.weight_decay = weight_decay
        self.layers = {
            "Affine1": Affine(self.params["W1"], self.params["b1"]),
            "Activation": activation(),
            "Affine2": Affine(self.params["W2"], self.params["b2"]),
        }
        self.last_layer = SoftmaxWithLoss()

    def predict(self, x):
        for layer in self.layers.values():
            x = layer.forward(x)
        return x

    def loss(self, x, t):
        decay = 0
        for name in ("W1", "W2"):
            decay += 0.5 * self.weight_decay * np.sum(self.params[name] ** 2)
        return self.last_layer.forward(self.predict(x), t) + decay

    def caches(self):
        """Return what layers keep of the last forward pass."""
        holders = [*self.layers.values(), self.last_layer]
        return [value for holder in holders for value in vars(holder).values()]


class BatchNorm:
    """Normalises over the samples, so samples mix; keeps running means, as the book does."""

    def __init__(self, units):
        self.gamma = np.full(units, 1.5)
        self.beta = np.full(units, 0.25)
        self.running_mean = np.zeros(units)

    def forward(self, x):
        mu = x.mean(axis=0)
        self.running_mean = 0.9 * self.running_mean + 0.1 * mu
        centred = x - mu
        var = np.mean(centred**2, axis=0)
        return self.gamma * (centred / np.sqrt(var + 10e-7)) + self.beta


class Dropout:
    def __init__(self, ratio=0.5):
        self.ratio = ratio
        self.mask = None

    def forward(self, x):
        self.mask = np.random.rand(*x.shape) > self.ratio
        return x * self.mask


class ColumnNet:
    """Andrew Ng's convention: samples are columns, and biases are columns, too."""

    def __init__(self, seed=2):
        random = np.random.default_rng(seed)
        self.W1 = random.normal(size=(HIDDEN, INPUTS))
        self.b1 = random.normal(size=(HIDDEN, 1))
        self.W2 = random.normal(size=(1, HIDDEN))
        self.b2 = random.normal(size=(1, 1))

    def cost(self, X, Y):
        m = X.shape[1]
        A1 = np.tanh(self.W1 @ X + self.b1)
        A2 = sigmoid(np.dot(self.W2, A1) + self.b2)
        logprobs = np.multiply(np.log(A2), Y) + np.multiply(np.log(1 - A2), 1 - Y)
        return np.squeeze(-np.sum(logprobs) / m)


@dataclass
class DataclassNet:
    weights: list = field(default_factory=lambda: list(two_layers().values()))

    def loss(self, x, t):
        W1, b1, W2, b2 = self.weights
        return cross_entropy_error(softmax(np.tanh(x @ W1 + b1) @ W2 + b2), t)


class SlotsNet:
    __slots__ = ("W1", "W2", "b1", "b2")

    def __init__(self):
        for name, values in two_layers().items():
            setattr(self, name, values)

    def loss(self, x, t):
        z = np.logaddexp(0, x @ self.W1 + self.b1)
        return cross_entropy_error(softmax_by_keepdims(z @ self.W2 + self.b2), t)


# Ways to hold the parameter -----------------------------------------------------------------------

INPUT, LABELS, ONE_HOT = batch(5)
GLOBAL_W = two_layers(6)["W1"]
GLOBAL_V = two_layers(6)["W2"]


def loss_of_globals(_=None):
    return cross_entropy_error(softmax(sigmoid(np.dot(INPUT, GLOBAL_W)) @ GLOBAL_V), LABELS)


def loss_of_arguments(W, x, V, t):
    return cross_entropy_error(softmax(np.tanh(x @ W) @ V), t)


class CallableLoss:
    def __init__(self):
        self.weights = {"hidden": [two_layers(7)["W1"]], "out": two_layers(7)["W2"]}

    def __call__(self, _):
        z = np.maximum(0, INPUT @ self.weights["hidden"][0])
        return cross_entropy_error(softmax(z @ self.weights["out"]), LABELS)


def _bound_method():
    net = SlotsNet()

    class Trainer:
        def __init__(self):
            self.net = net

        def loss(self, _):
            return self.net.loss(INPUT, LABELS)

    return Trainer().loss, net.W1


def _book(key, labels):
    def make():
        net = BookNet()
        return lambda W: net.loss(INPUT, labels), net.params[key]

    return make


def _layers(key, activation, decay=0.0):
    def make():
        net = LayerNet(activation, decay)
        return lambda W: net.loss(INPUT, ONE_HOT), net.params[key]

    return make


def _columns(key):
    def make():
        net = ColumnNet()
        Y = (LABELS % 2).reshape(1, -1)
        return lambda _: net.cost(INPUT.T, Y), getattr(net, key)

    return make


def _dataclass(place):
    def make():
        net = DataclassNet()
        return lambda W: net.loss(INPUT, LABELS), net.weights[place]

    return make


def _partial():
    params = two_layers(8)
    f = functools.partial(loss_of_arguments, x=INPUT, V=params["W2"], t=LABELS)
    return f, params["W1"]


def _default_argument():
    W, V = two_layers(9)["W1"], two_layers(9)["W2"]

    def loss(_, weights=[W, V]):  # noqa: B006  (what is tested)
        return cross_entropy_error(softmax(np.tanh(INPUT @ weights[0]) @ weights[1]), LABELS)

    return loss, W


def _keyword_default():
    W, V = two_layers(9)["W1"], two_layers(9)["W2"]

    def loss(_, *, W=W):
        return cross_entropy_error(softmax(np.tanh(INPUT @ W) @ V), LABELS)

    return loss, W


def _class_attribute():
    class Model:
        W = two_layers(10)["W1"]

        @classmethod
        def loss(cls):
            return np.mean(sigmoid(INPUT @ cls.W) ** 2)

    return lambda _: Model.loss(), Model.W


def _property():
    class Model:
        def __init__(self):
            self._W = two_layers(10)["W1"]

        @property
        def W(self):
            return self._W

    model = Model()
    return lambda _: np.mean(sigmoid(INPUT @ model.W) ** 2), model._W


def _view():
    class Model:
        def __init__(self):
            self.W = two_layers(10)["W1"]
            self.transposed = self.W.T

    model = Model()
    return lambda _: np.mean(np.tanh(model.transposed @ INPUT.T) ** 2), model.W


def _flat_view():
    W = two_layers(10)["W1"]
    flat = W.reshape(-1)
    return lambda _: np.mean(np.tanh(INPUT @ flat.reshape(INPUTS, HIDDEN)) ** 2), W


def _reshaped():
    x = two_layers(11)["W1"].reshape(-1)
    return lambda x: np.mean(np.tanh(INPUT @ x.reshape(INPUTS, HIDDEN)) ** 2), x


def _sliced_parameters():
    """All parameters in one vector, as scipy.optimize wants them."""
    x = np.concatenate([values.ravel() for values in two_layers(12).values()])

    def loss(x):
        i = INPUTS * HIDDEN
        W1, b1 = x[:i].reshape(INPUTS, HIDDEN), x[i : i + HIDDEN]
        rest = x[i + HIDDEN :]
        W2, b2 = rest[:-CLASSES].reshape(HIDDEN, CLASSES), rest[-CLASSES:]
        return cross_entropy_error(softmax(np.tanh(INPUT @ W1 + b1) @ W2 + b2), LABELS)

    return loss, x


def _transposed_weights():
    W = two_layers(13)["W1"].T.copy()
    return lambda W: np.mean(np.tanh(INPUT @ W.T) ** 2), W


def _einsum():
    W = two_layers(13)["W1"]
    return lambda W: np.mean(np.tanh(np.einsum("ni,ij->nj", INPUT, W)) ** 2), W


def _tensordot():
    W = two_layers(13)["W1"]
    return lambda W: np.mean(np.tanh(np.tensordot(INPUT, W, 1)) ** 2), W


def _einsum_heads():
    W = np.random.default_rng(14).normal(size=(INPUTS, 3, 5))
    return lambda W: np.mean(np.tanh(np.einsum("ni,ihk->hnk", INPUT, W)).sum(axis=0) ** 2), W


def _tied():
    """An autoencoder with tied weights."""
    W = two_layers(15)["W1"]
    return lambda W: np.mean((np.tanh(INPUT @ W) @ W.T - INPUT) ** 2), W


def _method_dot():
    W = two_layers(15)["W1"]
    return lambda W: np.mean(np.tanh(W.T.dot(INPUT.T)) ** 2), W


def _one_dimensional_input():
    net = BookNet()
    return lambda W: net.loss(INPUT[0], ONE_HOT[0]), net.params["W1"]


def _batch_of_one():
    net = BookNet()
    return lambda W: net.loss(INPUT[:1], LABELS[:1]), net.params["W1"]


def _recurrent():
    random = np.random.default_rng(16)
    W, U = random.normal(size=(INPUTS, 8)), 0.5 * random.normal(size=(8, 8))

    def loss(_):
        state = np.zeros((SAMPLES, 8))
        for step in range(3):
            state = np.tanh(INPUT * (step + 1) @ W + state @ U)
        return np.mean(state**2)

    return loss, U


def _operators_in_place():
    W, b = two_layers(17)["W1"], two_layers(17)["b1"]

    def loss(W):
        a = INPUT @ W
        a += b
        a *= 2
        np.tanh(a, out=a)
        np.maximum(a, -0.25, out=a)
        a -= a.mean(axis=1, keepdims=True)
        return (a**2).mean()

    return loss, W


def _logistic_vector():
    w = np.random.default_rng(18).normal(size=INPUTS * 7)
    X = np.random.default_rng(18).normal(size=(SAMPLES, w.size))
    return lambda w: np.mean(np.logaddexp(0, -(2 * (LABELS > 1) - 1) * (X @ w))), w


def _inputs_as_parameter():
    W = two_layers(19)["W1"]
    x = INPUT.copy()
    return lambda x: np.mean(np.tanh(x @ W) ** 2), x


def _penalty_only():
    W = two_layers(20)["W1"]
    return lambda W: 0.5 * np.sum(W**2) + 0.1 * np.sum(np.abs(W)) + np.linalg.norm(W), W


def _decay_of_all():
    params = two_layers(21)

    def loss(_):
        z = np.maximum(INPUT @ params["W1"] + params["b1"], 0)
        data = cross_entropy_error(softmax(z @ params["W2"] + params["b2"]), LABELS)
        return data + 0.01 * sum(np.sum(W * W) for W in params.values())

    return loss, params["W1"]


def _embedding():
    table = np.random.default_rng(22).normal(size=(20, 5))
    words = np.random.default_rng(22).integers(0, 20, (SAMPLES, 3))
    V = np.random.default_rng(23).normal(size=(5, CLASSES))
    return (
        lambda table: cross_entropy_error(softmax(table[words].mean(axis=1) @ V), LABELS),
        table,
    )


CASES = {
    **{f"book {key}": _book(key, LABELS) for key in ("W1", "b1", "W2", "b2")},
    "book W1, one-hot": _book("W1", ONE_HOT),
    **{f"relu layers {key}": _layers(key, Relu) for key in ("W1", "b1", "W2", "b2")},
    "sigmoid layers": _layers("W1", Sigmoid),
    "relu layers with decay": _layers("W1", Relu, 0.1),
    "relu layers with decay W2": _layers("W2", Relu, 0.1),
    **{f"columns {key}": _columns(key) for key in ("W1", "b1", "W2", "b2")},
    "dataclass W1": _dataclass(0),
    "dataclass W2": _dataclass(2),
    "globals": lambda: (loss_of_globals, GLOBAL_W),
    "bound method and slots": _bound_method,
    "callable object": lambda: (
        lambda loss: (loss, loss.weights["hidden"][0])
    )(CallableLoss()),
    "partial": _partial,
    "default argument": _default_argument,
    "keyword default": _keyword_default,
    "class attribute": _class_attribute,
    "property": _property,
    "transposed view": _view,
    "flat view": _flat_view,
    "reshaped parameter": _reshaped,
    "slices of one vector": _sliced_parameters,
    "transposed weights": _transposed_weights,
    "einsum": _einsum,
    "einsum with heads": _einsum_heads,
    "tensordot": _tensordot,
    "tied weights": _tied,
    "method dot": _method_dot,
    "one-dimensional input": _one_dimensional_input,
    "batch of one": _batch_of_one,
    "recurrent": _recurrent,
    "operators in place": _operators_in_place,
    "logistic regression": _logistic_vector,
    "inputs as parameter": _inputs_as_parameter,
    "penalty only": _penalty_only,
    "decay of all parameters": _decay_of_all,
    "embedding": _embedding,
}  # fmt: skip
"""Losses that the traced engine has to serve."""
