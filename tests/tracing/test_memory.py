"""Memory over many steps of training: it stays, is freed with f, and keeps no array of the user."""

import gc
import tracemalloc
import weakref

import numpy as np
import pytest

from fastgrad import numerical_gradient

pytestmark = pytest.mark.usefixtures("cheap_functions_traced")

INPUTS, HIDDEN, CLASSES = 100, 8, 4

MAX_GROWTH_BYTES = 100_000
"""What many steps may add. A single batch takes 24 kB."""

MAX_LEFT_BYTES = 300_000
"""What may be left of f when it is gone: what its operations are, without values."""


class Net:
    def __init__(self):
        random = np.random.default_rng(0)
        sizes = {"W1": (INPUTS, HIDDEN), "b1": HIDDEN, "W2": (HIDDEN, CLASSES), "b2": CLASSES}
        self.params = {key: 0.1 * random.normal(size=size) for key, size in sizes.items()}

    def loss(self, x, t):
        W1, b1, W2, b2 = self.params.values()
        self.z = np.maximum(x @ W1 + b1, 0)
        a = self.z @ W2 + b2
        y = np.exp(a - a.max(axis=1, keepdims=True))
        self.y = y / y.sum(axis=1, keepdims=True)
        return -np.sum(np.log(self.y[np.arange(len(t)), t] + 1e-7)) / len(t)


def train(net, steps, seen=None):
    """Train as the book does, with new data in each step, and a smaller batch in every tenth."""
    random = np.random.default_rng(1)
    for step in range(steps):
        n = 17 if step % 10 == 9 else 30
        x, t = random.normal(size=(n, INPUTS)), random.integers(0, CLASSES, n)
        f = lambda _: net.loss(x, t)  # noqa: B023, E731 - called in this step alone
        gradients = {key: numerical_gradient(f, net.params[key]) for key in ("W1", "b1", "W2")}
        for key, gradient in gradients.items():
            if step % 5:
                net.params[key] -= 0.1 * gradient
            else:
                net.params[key] = net.params[key] - 0.1 * gradient
        if seen is not None:
            seen += map(weakref.ref, (x, t, f, *gradients.values(), *net.params.values()))


@pytest.fixture
def traced_memory():
    """Return a function that says how many bytes are in use."""
    tracemalloc.start(1)

    def in_use():
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    yield in_use
    tracemalloc.stop()


def test_many_steps_take_no_more_memory_than_few_and_all_is_freed(traced_memory, repeats):
    train(Net(), 10)  # what is imported, and kept once for all functions
    before = traced_memory()
    net = Net()
    train(net, 20)
    after_few = traced_memory()
    train(net, repeats(30, 180))
    assert traced_memory() - after_few < MAX_GROWTH_BYTES
    del net
    assert traced_memory() - before < MAX_LEFT_BYTES


def test_many_functions_take_no_more_memory_than_few(traced_memory):
    train(Net(), 10)
    before = traced_memory()
    for _ in range(8):
        train(Net(), 2)
    assert traced_memory() - before < MAX_GROWTH_BYTES


def test_nothing_that_is_kept_keeps_the_users_arrays_alive():
    seen = []
    net = Net()
    train(net, 12, seen)
    last = [*net.params.values()]
    net.z = net.y = None
    gc.collect()
    alive = [reference() for reference in seen if reference() is not None]
    assert all(any(thing is array for array in last) for thing in alive)
    of_net = weakref.ref(net)
    del net, last, alive
    gc.collect()
    assert of_net() is None
    assert not any(reference() is not None for reference in seen)


def peak_of_replay(moments):
    """Return how many bytes a gradient takes of a recurrent layer unrolled in time."""
    random = np.random.default_rng(2)
    W, inputs = random.normal(size=(20, 20)) / 5, random.normal(size=(10, 20))

    def f(W):
        h = inputs
        for _ in range(moments):
            h = np.tanh(h @ W + inputs)
        return np.sum(h**2)

    numerical_gradient(f, W, engine="traced")
    tracemalloc.start()
    try:
        numerical_gradient(f, W, engine="traced")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_replay_keeps_no_versions_that_no_later_operation_needs():
    assert peak_of_replay(40) < 2 * peak_of_replay(5)
