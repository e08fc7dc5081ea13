"""What is wrong at x alone, or in test mode alone, is told from a fault."""

import numpy as np
import pytest

from fastgrad import check_gradient, slope_test


def relu_difference(x):
    """Return relu(x) - relu(-x), which is x: two kinks at 0 that cancel."""
    return float((np.maximum(x, 0) - np.maximum(-x, 0)).sum())


def by_convention(x):
    """Return its gradient with relu'(0) = 0, as backpropagation has it: 0 at 0, though f is x."""
    return (x > 0) * 1.0 + (-x > 0) * 1.0


def test_kinks_that_cancel_are_no_fault_of_a_gradient_that_can_be_asked_again():
    x = np.array([0.0, 0.0, 1.0])
    report = check_gradient(relu_difference, x, by_convention)
    assert report
    assert "agrees at a point next to it" in report.findings[0]


def test_next_to_the_largest_number_are_none_at_which_a_gradient_could_be_asked_again():
    x = np.array([np.finfo(float).max, 1.0])
    report = check_gradient(lambda x: float(np.sin(x).sum()), x, lambda x: 2 * np.cos(x))
    assert not report
    assert "f is not finite" in report.findings[0]


def test_of_a_mere_array_nothing_can_be_asked_again():
    x = np.array([0.0, 0.0, 1.0])
    assert not check_gradient(relu_difference, x, by_convention(x))


def test_a_fault_is_one_next_to_x_too():
    x = np.array([0.0, 0.0, 1.0])
    assert not check_gradient(relu_difference, x, lambda x: 2 * by_convention(x))


def test_x_and_what_f_keeps_are_as_before():
    x = np.array([0.0, -0.0, 1.0])
    before, seen = x.tobytes(), []

    def f(x):
        seen[:] = [x.copy()]
        return relu_difference(x)

    check_gradient(f, x, by_convention)
    assert x.tobytes() == before


class Net:
    """A layer with batch normalisation or dropout before squares of the errors."""

    def __init__(self, kind):
        random = np.random.default_rng(0)
        self.kind, self.running = kind, np.ones(4)
        self.params = {"W": random.normal(size=(3, 4)), "V": random.normal(size=4)}

    def scores(self, x, train):
        a = x @ self.params["W"]
        self.c, self.s, self.keep = a, np.ones(4), np.ones(a.shape)
        if self.kind == "normalisation":
            self.c = a - a.mean(axis=0) if train else a
            self.s = np.sqrt((self.c**2).mean(axis=0) + 1e-3) if train else self.running
            if train:
                self.running = 0.9 * self.running + 0.1 * self.s
        elif train:
            self.keep = np.random.rand(*a.shape) > 0.3
        self.z = self.c / self.s * self.keep
        return self.z @ self.params["V"]

    def loss(self, x, t, train_flg=False):
        return float(((self.scores(x, train_flg) - t) ** 2).mean() / 2)

    def gradient(self, x, t):
        error = (self.scores(x, True) - t) / len(t)
        d = np.outer(error, self.params["V"]) * self.keep
        if self.kind == "normalisation":
            unit = self.c / self.s
            d = (d - d.mean(axis=0) - unit * (d * unit).mean(axis=0)) / self.s
        return {"W": x.T @ d, "V": self.z.T @ error}


class ByPredict(Net):
    """The mode is an argument of predict alone, and a word."""

    def predict(self, x, mode="test"):
        return self.scores(x, mode == "train")

    def loss(self, x, t):
        return float(((self.predict(x) - t) ** 2).mean() / 2)


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("kind", ["normalisation", "dropout"])
@pytest.mark.parametrize("net", [Net, ByPredict])
def test_the_mode_is_named_and_the_gradient_right_in_it(net, kind, fast):
    random = np.random.default_rng(1)
    x, t = random.normal(size=(20, 3)), random.normal(size=20)
    net = net(kind)
    before, state = {k: v.tobytes() for k, v in net.params.items()}, np.random.get_state()[1].sum()
    report = check_gradient(net, x=x, t=t, fast=fast)
    assert report, str(report)
    assert "in training mode" in str(report)
    assert ("dropout" in str(report)) == (kind == "dropout")
    assert {k: v.tobytes() for k, v in net.params.items()} == before
    if kind == "normalisation":
        assert np.random.get_state()[1].sum() == state
        assert slope_test(net, x=x, t=t)


def test_a_fault_in_training_mode_is_one():
    random = np.random.default_rng(1)
    x, t = random.normal(size=(20, 3)), random.normal(size=20)
    net = Net("normalisation")
    wrong = net.gradient(x, t)
    wrong["V"] = 1.25 * wrong["V"]
    report = check_gradient(net, x=x, t=t, gradient=wrong)
    assert not report
    assert "1.25 times" in str(report)


@pytest.mark.parametrize("whole", [True, False])
def test_the_mode_is_found_of_a_net_behind_a_function(whole):
    """There parameters have the names of x's parts, in that mode as well."""
    random = np.random.default_rng(1)
    x, t = random.normal(size=(20, 3)), random.normal(size=20)
    net = Net("normalisation")
    right = net.gradient(x, t)
    moved, claimed = (net.params, right) if whole else (net.params["V"], right["V"])
    name = "x['V']" if whole else "x"
    report = check_gradient(lambda _: net.loss(x, t), moved, claimed)
    assert report, str(report)
    assert f"{name}: loss takes train_flg" in str(report)
    right["V"][0] *= 1.001
    assert not check_gradient(lambda _: net.loss(x, t), moved, claimed)


class Adding:
    """A right gradient that is added to what the last call left."""

    def __init__(self):
        self.sum = 0.0

    def __call__(self, x):
        self.sum = self.sum + x
        return self.sum


@pytest.mark.parametrize("options", [{}, {"fast": True}, {"rtol": 1e-3}])
def test_a_gradient_that_is_right_at_the_first_call_alone_is_wrong(options):
    x = np.random.default_rng(0).normal(size=50)
    report = check_gradient(lambda v: float((v**2).sum() / 2), x, Adding(), **options)
    assert not report
    assert "the first call is right, but each call adds the right gradient" in str(report)


@pytest.mark.parametrize("fast", [False, True])
def test_a_gradient_that_is_another_one_at_each_call_is_not_deterministic(fast):
    x, calls = np.random.default_rng(0).normal(size=50), iter(range(100))
    report = check_gradient(
        lambda v: float((v**2).sum() / 2), x, lambda v: v * (1 + next(calls) % 2), fast=fast
    )
    assert not report
    assert "not deterministic" in str(report)


@pytest.mark.parametrize("fast", [False, True])
def test_a_gradient_may_use_what_the_last_call_of_f_has_left(fast):
    x, left = np.random.default_rng(0).normal(size=50), []

    def f(v):
        left[:] = [v.copy()]
        return float((v**2).sum() / 2)

    f(x)
    assert check_gradient(f, x, lambda v: left[0].copy(), engine="loop", fast=fast)


@pytest.mark.parametrize("fast", [False, True])
def test_sums_in_another_order_are_the_same_gradient(fast):
    x, sign = np.random.default_rng(0).normal(size=50), iter([1, -1] * 50)
    assert check_gradient(
        lambda v: float((v**2).sum() / 2), x, lambda v: v * (1 + next(sign) * 1e-13), fast=fast
    )


def test_the_rounding_of_a_gradient_that_is_zero_may_change():
    """As that of a bias before batch normalisation."""
    x = {"W": np.random.default_rng(0).normal(size=(8, 3)), "b": np.ones(3)}
    errors = iter([1e-17, -1e-17] * 50)

    def centred(p):
        y = p["W"] + p["b"]
        return y - y.mean(axis=0)

    assert check_gradient(
        lambda p: float((centred(p) ** 2).sum() / 2),
        x,
        lambda p: {"W": centred(p), "b": np.full(3, next(errors))},
    )


@pytest.mark.parametrize("fast", [False, True])
def test_what_is_wrong_at_x_alone_is_a_fault_where_f_has_no_kink(fast):
    """Also where f decides whether x is a single number, as at 0 / 0."""

    def f(x):
        divisor = np.where(x == 0, 1.0, x)
        return float(np.where(x == 0, 1.0, np.sin(x) / divisor).sum())

    def gradient(x, at_zero):
        divisor = np.where(x == 0, 1.0, x)
        return np.where(x == 0, at_zero, (np.cos(x) * x - np.sin(x)) / divisor**2)

    x = np.array([0.0, 0.5, 1.0])
    assert check_gradient(f, x, lambda x: gradient(x, 0.0), fast=fast)
    report = check_gradient(f, x, lambda x: gradient(x, 1.0), fast=fast)
    assert not report
    assert "agrees at a point next to x, but f shows no kink at x" in report.findings[0]


def test_kinks_that_cancel_are_seen_in_the_operations_of_f_and_others_in_its_values():
    """Of what cannot be recorded, values tell of kinks that do not cancel."""

    def in_python(f):
        return lambda x: sum(f(np.array([float(v)])) for v in x)

    def of_extrema(x):
        return np.eye(2)[x.argmax()] + np.eye(2)[x.argmin()]

    assert check_gradient(lambda x: float(x.max() + x.min()), np.ones(2), of_extrema)
    x = np.array([0.0, 0.0, 1.0])
    assert not check_gradient(in_python(relu_difference), x, by_convention)
    assert check_gradient(
        in_python(lambda v: float((np.maximum(v, 0) - 0.5 * np.maximum(-v, 0)).sum())),
        x,
        lambda x: (x > 0) * 1.0 + (x < 0) * 0.5,
    )
