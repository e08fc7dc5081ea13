"""Everything is as it was after a recording, whatever f raises and other threads do."""

import copy
import random as python_random
import threading

import nets
import numpy as np
import pytest
from looped import assert_the_loops
from nets import EPS, INPUT, LABELS, H, two_layers

from fastgrad import numerical_gradient
from fastgrad.engines import loop
from fastgrad.tracing import trace
from fastgrad.tracing.stand_in import Recorded

W1 = two_layers()["W1"]


pytestmark = pytest.mark.usefixtures("cheap_functions_traced")


# Restoration -------------------------------------------------------------------------------------


class Everything:
    """Holds one array in all the places that a stand-in may be put."""

    of_class = None

    def __init__(self, x):
        Everything.of_class = x
        self.x = x
        self.params = {"W": x, "flat": x.reshape(-1)}
        self.list = [x, [x.T]]
        self.nested = nets.Affine(x, np.zeros(x.shape[1]))
        self.hook = None

    def places(self):
        return [
            Everything.of_class, self.x, *self.params.values(), self.list[0], self.list[1][0],
            self.nested.W, self.nested.b,
        ]  # fmt: skip

    def loss(self, _):
        z = np.tanh(self.nested.forward(INPUT))
        if self.hook is not None:
            self.hook(z)
        loss = np.mean(z**2) + 0.1 * np.sum(self.params["flat"] ** 2)
        loss += np.sum(self.list[1][0].T * self.list[0]) + np.mean(Everything.of_class * self.x)
        self.cached = loss
        return loss


def test_every_place_is_put_back_and_caches_are_plain():
    net = Everything(W1.copy())
    places = net.places()
    assert_the_loops(net.loss, net.x)
    numerical_gradient(net.loss, net.x, engine="traced")
    assert all(now is then for now, then in zip(net.places(), places, strict=True))
    assert isinstance(net.cached, np.float64)
    assert type(net.nested.x) is np.ndarray


@pytest.mark.parametrize(
    "error", [ValueError, RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError]
)
@pytest.mark.parametrize("engine", ["auto", "traced"])
def test_every_place_is_put_back_when_f_raises_while_it_is_recorded(error, engine):
    net = Everything(W1.copy())
    places, before, plain = net.places(), net.x.tobytes(), []

    def fail(z):
        if isinstance(z, Recorded):
            raise error("mine")
        plain.append(z)

    net.hook = fail
    if issubclass(error, Exception):
        if engine == "traced":
            with pytest.raises(ValueError, match=f"it raises {error.__name__}: mine"):
                numerical_gradient(net.loss, net.x, engine=engine)
        else:
            result = numerical_gradient(net.loss, net.x)
            net.hook = None
            assert result.tobytes() == loop.gradient(net.loss, net.x, H).tobytes()
        assert isinstance(net.cached, np.float64)
    else:
        with pytest.raises(error, match="mine"):
            numerical_gradient(net.loss, net.x, engine=engine)
    assert plain
    assert all(now is then for now, then in zip(net.places(), places, strict=True))
    assert net.x.tobytes() == before


@pytest.mark.parametrize("fatal", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt("mine")])
def test_what_f_raises_in_any_of_its_calls_passes_unchanged(fatal, error):
    net, calls = Everything(W1.copy()), [0]
    places, before = net.places(), net.x.tobytes()

    def fail(z):
        calls[0] += 1
        if calls[0] >= fatal:
            raise error

    net.hook = fail
    with pytest.raises(type(error)) as raised:
        numerical_gradient(net.loss, net.x)
    assert raised.value is error
    assert all(now is then for now, then in zip(net.places(), places, strict=True))
    assert net.x.tobytes() == before


def test_every_place_is_put_back_wherever_an_interrupt_strikes(strike, repeats):
    net, dice = Everything(W1.copy()), python_random.Random(0)
    places, before = net.places(), net.x.tobytes()
    numerical_gradient(net.loss, net.x, engine="traced")  # whatever is imported only now
    for _ in range(repeats(20, 150)):
        seconds = dice.uniform(1e-4, 1e-2)
        strike(seconds, lambda: numerical_gradient(net.loss, net.x, engine="traced"))
        assert all(now is then for now, then in zip(net.places(), places, strict=True))
        assert net.x.tobytes() == before
    assert type(np.zeros(3)) is np.ndarray


def test_functions_that_create_arrays_are_numpys_own_again():
    creators = {name: getattr(np, name) for name in ("zeros", "empty", "ones", "full")}

    def stored(W):
        z = np.zeros((nets.SAMPLES, W.shape[1]))
        z[:5] = np.tanh(INPUT[:5] @ W)
        return np.mean(z**2)

    def failing(W):
        z = np.zeros((nets.SAMPLES, W.shape[1]))
        z[:5] = np.tanh(INPUT[:5] @ W)
        if isinstance(W, Recorded) and isinstance(z, Recorded):
            raise KeyboardInterrupt
        return np.mean(z**2)

    assert_the_loops(stored, W1.copy())
    assert {name: getattr(np, name) for name in creators} == creators
    with pytest.raises(KeyboardInterrupt):
        numerical_gradient(failing, W1.copy())
    assert {name: getattr(np, name) for name in creators} == creators


@pytest.mark.parametrize("engine", ["auto", "traced"])
def test_layers_hold_plain_arrays_after_success_and_after_refusal(engine):
    net = nets.LayerNet()
    x = net.params["W1"]
    numerical_gradient(lambda _: net.loss(INPUT, LABELS), x, engine=engine)
    assert all(type(value) in (np.ndarray, np.float64, type(None)) for value in net.caches())

    def refused(_):
        return net.loss(INPUT, LABELS) if net.loss(INPUT, LABELS) > 0 else 0.0

    if engine == "traced":
        with pytest.raises(ValueError, match="a branch depends on its value"):
            numerical_gradient(refused, x, engine=engine)
    else:
        numerical_gradient(refused, x)
    assert all(type(value) in (np.ndarray, np.float64, type(None)) for value in net.caches())
    # They hold those of x itself, or of the loop's last point, which is h away.
    np.testing.assert_allclose(net.layers["Affine1"].forward(INPUT), INPUT @ x + net.params["b1"])


def test_what_f_collects_while_it_is_recorded_works_like_arrays_afterwards():
    collected = []

    def loss(W):
        z = np.tanh(INPUT @ W)
        collected.append(z)
        return np.mean(z**2)

    numerical_gradient(loss, W1.copy(), engine="traced")
    expected = np.tanh(INPUT @ W1)
    for z in collected:
        assert np.abs(np.asarray(z) - expected).max() <= 2 * H
        assert type(z + 1) is np.ndarray
        assert type(z.sum()) in (np.float64, np.ndarray)
        assert float(z.mean()) == pytest.approx(expected.mean(), abs=2 * H)
        assert bool((z < 2).all())
        assert copy.deepcopy(z).shape == expected.shape


# Threads -----------------------------------------------------------------------------------------


def test_threads_may_trace_different_nets_at_the_same_time(monkeypatch):
    monkeypatch.setattr(trace, "MAX_SECONDS", 600)  # however long the others' recordings take
    names = ["book W1", "relu layers W1", "columns W1", "sigmoid layers", "recurrent"]
    expected = {name: numerical_gradient(*nets.CASES[name](), engine="traced") for name in names}
    barrier, failures = threading.Barrier(len(names)), []

    def work(name):
        try:
            f, x = nets.CASES[name]()
            barrier.wait()
            for _ in range(10):
                result = numerical_gradient(f, x, engine="traced")
                deviation = np.abs(result - expected[name]).max()
                if not deviation <= EPS * abs(f(x)) / H:
                    failures.append((name, deviation))
        except BaseException as error:
            failures.append((name, error))
            raise

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_arrays_created_by_other_threads_are_plain_while_one_is_recorded():
    stop, odd = threading.Event(), []

    def create():
        while not stop.is_set():
            array = np.zeros(3)
            if type(array) is not np.ndarray:
                odd.append(array)

    def stored(W):
        z = np.zeros((nets.SAMPLES, W.shape[1]))
        z[:5] = np.tanh(INPUT[:5] @ W)
        return np.mean(z**2)

    thread = threading.Thread(target=create)
    thread.start()
    try:
        for _ in range(20):
            numerical_gradient(stored, W1.copy(), engine="traced")
    finally:
        stop.set()
        thread.join()
    assert not odd


def test_a_function_may_itself_take_a_gradient():
    x = np.random.default_rng(4).normal(size=60)

    def slope(x):
        return float(np.sum(numerical_gradient(lambda y: np.sum(np.sin(y[:3])), x) ** 2))

    result = numerical_gradient(slope, x)
    assert result.tobytes() == loop.gradient(slope, x, H).tobytes()
    assert np.abs(result).max() > 0.1
