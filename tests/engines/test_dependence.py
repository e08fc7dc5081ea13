"""An f that does not depend on x, or is random, is said to be; no other is."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from counting import counted

from fastgrad import numerical_gradient, reference

INDEPENDENT = "f does not depend on x.*another array"
RANDOM = "f is random"


class Layer:
    def __init__(self, params, key):
        self.params, self.key, self.W = params, key, params[key]
        self.x = np.random.default_rng(0).normal(size=(30, len(self.W)))

    def loss(self, _):
        return np.tanh(self.x @ self.W).sum()


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (10, 4), (60, 50)])
def test_a_layer_that_holds_another_array_is_told_apart_from_a_gradient_of_zeros(shape):
    params = {"W": np.random.default_rng(0).normal(size=shape)}
    layer = Layer(params, "W")
    params["W"] = params["W"] - 0.1  # the layer keeps the old one
    before = params["W"].copy()
    f = counted(layer.loss)
    with pytest.warns(RuntimeWarning, match=INDEPENDENT) as said:
        got = numerical_gradient(f, params["W"])
    assert [warning.filename for warning in said] == [__file__]
    assert not got.any()
    assert f.calls < 2 * before.size + 40
    assert f.calls < 50 or before.size < 50
    assert params["W"].tobytes() == before.tobytes()
    params["W"] = layer.W
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numerical_gradient(layer.loss, params["W"]).any()


@pytest.mark.parametrize("dtype", [np.float32, np.longdouble])
@pytest.mark.parametrize(("n", "h"), [(3, 1e-3), (40, 1e-3), (100, "auto")])
def test_independence_is_told_of_other_types_too(dtype, n, h):
    held, x = np.ones(n, dtype), np.ones(n, dtype)
    for given in (x, {"a": held, "b": x}, [x]):
        with pytest.warns(RuntimeWarning, match=r"f does not depend on x.*another array"):
            numerical_gradient(lambda _: (held**2).sum(), given, h)
    assert x.tobytes() == held.tobytes()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numerical_gradient(lambda _: (x**2).sum(), x, h).all()


def test_steps_are_not_measured_for_an_array_that_f_does_not_depend_on():
    held, x = np.ones((20, 10)), np.ones((20, 10))
    f = counted(lambda _: (held**2).sum())
    with pytest.warns(RuntimeWarning, match=INDEPENDENT):
        assert not numerical_gradient(f, x, "auto").any()
    assert f.calls < 40


class Standardised:
    """A net whose second layer is 0 at first; the mean of the first one's output is kept."""

    def __init__(self, dtype):
        r = np.random.default_rng(0)
        sizes = (40, 10), (10, 8)
        self.x, self.W = (r.normal(size=size).astype(dtype) for size in sizes)
        self.V, self.mean = np.zeros((8, 3), dtype), np.zeros(8, dtype)

    def loss(self, _):
        a = self.x @ self.W
        self.mean = 0.9 * self.mean + 0.1 * a.mean(axis=0)
        return ((np.tanh(a - a.mean(axis=0)) @ self.V) ** 2).sum()


FLAT = {
    "a minimum": (lambda x: (x**2).sum(), np.zeros(5)),
    "large minimum": (lambda x: (x**2).sum(), np.zeros(500)),
    "a step function": (lambda x: float((x > 0).sum()), np.linspace(-3, -1, 200)),
    "rounded": (lambda x: np.round(x).sum(), np.full(200, 0.2)),
    "dead units": (lambda x: np.maximum(x - 10, 0).sum(), np.zeros(200)),
    "branches": (lambda x: 1.0 if float(x[0]) > 3 else 2.0, np.zeros(200)),
    "nan is ignored": (lambda x: float(np.nansum(np.where(x > 9, x, 0))), np.zeros(200)),
    "clipped": (lambda x: np.clip(x, -1, 1).sum(), np.full(300, 5.0)),
    "dead units in float32": (
        lambda x: float(np.maximum(x - 10, 0).sum()),
        np.zeros(20, np.float32),
    ),
    "rounded in float32": (lambda x: np.round(x).sum(), np.full(200, 0.2, np.float32)),
    "branches in longdouble": (
        lambda x: 1.0 if float(x[0]) > 3 else 2.0,
        np.zeros(20, np.longdouble),
    ),
    "a step that float32 loses": (
        lambda x: float((x > 3000).sum()),
        np.full(20, 2000, np.float32),
    ),
    "few": (lambda x: np.sign(x).sum(), np.full(2, 5.0)),
}


@pytest.mark.parametrize("name", FLAT)
def test_a_gradient_of_zeros_alone_is_no_independence(name):
    f, x = FLAT[name]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "f is called")
        got = numerical_gradient(f, x)
    assert not got.any()


@pytest.mark.filterwarnings("ignore:.* is lost")
def test_where_a_step_is_lost_two_more_calls_tell_that_f_depends_on_x():
    f, x = counted(lambda x: float(x.sum())), np.full(20, 20_000, np.float32)
    assert not numerical_gradient(f, x).any()
    assert f.calls == 40 + 3 + 2  # the loop's, to see if it is random, and these


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("form", [lambda W: W, lambda W: {"W": W}], ids=["array", "dict"])
def test_what_a_net_keeps_is_not_spoiled_where_its_loss_does_not_change(dtype, form):
    net = Standardised(dtype)
    x = form(net.W)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = numerical_gradient(net.loss if x is net.W else lambda x: net.loss(x["W"]), x, 1e-3)
    assert not np.any(result if x is net.W else result["W"])
    assert net.mean.any()
    # A running mean of outputs at points within a step of W.
    assert abs(net.mean).max() < 10 * abs((net.x @ net.W).mean(axis=0)).max()


@pytest.mark.parametrize("n", [2, 20, 700])
def test_a_random_f_is_said_to_be(n):
    np.random.seed(0)

    def dropout(x):
        return float((x * (np.random.rand(n) > 0.5) * np.random.rand(n)).sum())

    with pytest.warns(RuntimeWarning, match=RANDOM) as said:
        numerical_gradient(dropout, np.ones(n))
    assert len(said) == 1

    def seeded(x):
        np.random.seed(1)
        return dropout(x)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "f is called")
        numerical_gradient(seeded, np.ones(n))


def test_a_long_random_f_is_said_to_be_before_the_loop():
    X, W = np.random.default_rng(0).normal(size=(300, 60)), np.ones((60, 30))
    calls_before = []
    np.random.seed(0)
    f = counted(lambda W: ((X @ W) * (np.random.rand(300, 30) > 0.5)).sum())

    def told(message, *rest, **more):
        calls_before.append((f.calls, str(message)))

    with warnings.catch_warnings():
        warnings.showwarning = told
        warnings.simplefilter("always")
        numerical_gradient(f, W)
    assert any("f is random" in message and calls < 20 for calls, message in calls_before)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_a_small_smooth_f_is_called_as_often_as_by_the_book(n):
    f = counted(lambda x: (x**3).sum())
    numerical_gradient(f, np.ones(n))
    assert f.calls == 2 * n


@pytest.mark.parametrize("n", [3, 50])
def test_the_loop_makes_the_books_calls_and_says_nothing(n):
    for f in (counted(lambda x: 3.0), counted(lambda x: np.random.rand())):
        np.random.seed(0)
        got = numerical_gradient(f, np.ones(n), engine="loop")
        assert f.calls == 2 * n
        np.random.seed(0)
        assert got.tobytes() == reference.numerical_gradient(f, np.ones(n)).tobytes()


@pytest.mark.parametrize("form", [dict, list])
def test_of_several_arrays_it_is_named_which_one_f_does_not_depend_on(form):
    parts = {"W": np.ones(30), "b": np.ones(2)}
    x, key = (parts, "b") if form is dict else ([*parts.values()], 1)
    with pytest.warns(RuntimeWarning) as said:
        numerical_gradient(lambda p: (p["W" if form is dict else 0] ** 2).sum(), x)
    assert [f"does not depend on x[{key!r}]:" in str(one.message) for one in said] == [True]


def test_a_random_f_of_float32_is_said_to_be():
    with pytest.warns(RuntimeWarning, match=RANDOM):
        numerical_gradient(lambda x: float(x.sum() * np.random.rand()), np.ones(30, np.float32))


FRESH = """
import sys
import numpy as np
before = {*sys.modules}
from fastgrad import numerical_gradient
from fastgrad.tracing import first_calls
first_calls.MIN_TRACING_SECONDS = np.inf
calls = []
numerical_gradient(lambda x: calls.append(1) or (x**2).sum(), np.ones(20))
assert len(calls) == 40 + 3, len(calls)
loaded = sys.modules.keys() - before
assert "fastgrad.tracing.trace" not in loaded
assert not loaded & {"numba", "dataclasses", "fractions", "threading", "signal", "numpy.typing"}
"""


def test_little_is_loaded_for_an_f_whose_calls_are_cheap():
    subprocess.run([sys.executable, "-c", FRESH], check=True)


class Remembering:
    """Computes anew where its argument is not the last one, of which it keeps a copy, or not."""

    def __init__(self, keep):
        self.keep, self.last = keep, None

    def __call__(self, x):
        if self.last is None or not np.array_equal(self.last, x):
            self.last, self.value = self.keep(x), (x**2).sum()
        return self.value


@pytest.mark.parametrize("n", [3, 20])
def test_an_f_that_compares_x_with_x_itself_is_said_not_to_see_it_move(n):
    x = np.ones(n)
    with pytest.warns(RuntimeWarning, match=r"f keeps x itself.*x\.copy\(\)"):
        assert not numerical_gradient(Remembering(lambda x: x), x).any()
    assert (x == 1).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert numerical_gradient(Remembering(np.copy), x).all()
        assert not numerical_gradient(lambda x: np.floor(x + 0.5).sum(), x).any()  # which is flat
