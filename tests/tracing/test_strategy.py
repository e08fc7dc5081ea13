"""Structures of recordings, kept for the next one of the same operations, are right for that."""

import gc
import weakref

import numpy as np
import pytest
from nets import EPS, H

from fastgrad import cross_entropy_error, numerical_gradient, sigmoid, softmax
from fastgrad.engines import loop, traced
from fastgrad.tracing import strategy

ROWS, INPUTS, UNITS, CLASSES = 12, 9, 5, 3


@pytest.fixture(autouse=True)
def without_structures(monkeypatch):
    """Begin with none."""
    monkeypatch.setattr(strategy, "_structures", {})


@pytest.fixture
def analyses(monkeypatch):
    """Return a list that grows by an item for each term whose operations are analyzed."""
    made = []

    def noted(nodes, target):
        made.append(target)
        return find_stage(nodes, target)

    find_stage = strategy.find_stage
    monkeypatch.setattr(strategy, "find_stage", noted)
    return made


class Net:
    """The book's net, which can leave units out and normalize them, as later chapters do."""

    def __init__(self, seed=0):
        random = np.random.default_rng(seed)
        self.params = {
            "W1": random.standard_normal((INPUTS, UNITS)),
            "b1": random.standard_normal(UNITS),
            "W2": random.standard_normal((UNITS, CLASSES)),
            "b2": random.standard_normal(CLASSES),
        }
        self.is_training = False
        self.mean, self.kept = random.standard_normal(UNITS), random.random((ROWS, UNITS)) > 0.3

    def loss(self, x, t):
        """Return the loss of a batch, by numbers of classes."""
        p = self.params
        a = np.dot(x, p["W1"]) + p["b1"]
        a = (a - a.mean(axis=0)) if self.is_training else a - self.mean
        y = softmax(np.dot(sigmoid(a), p["W2"]) + p["b2"])
        return -np.sum(np.log(y[np.arange(len(x)), t] + 1e-7)) / len(x)

    def gradient(self, name, x, t):
        """Return that of one array."""
        return traced.gradient(lambda W: self.loss(x, t), self.params[name], H)


def batch(seed, rows=ROWS):
    random = np.random.default_rng(seed)
    return random.random((rows, INPUTS)), random.integers(0, CLASSES, rows)


def assert_the_loops(f, arrays):
    """Check the analysis alone against the loop, for one array after the other."""
    for x in arrays:
        result = traced.gradient(f, x, H)
        expected = loop.gradient(f, x, H)
        assert abs(result - expected).max() <= 16 * EPS * (1 + abs(f(x))) / H


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """Let no certificate mend what is wrong."""
    monkeypatch.setattr(traced, "CERTIFY", False)


def test_a_loop_that_trains_is_analyzed_in_its_first_step(analyses):
    net = Net()
    for step in range(4):
        gradients = {name: net.gradient(name, *batch(step)) for name in net.params}
        for name, gradient in gradients.items():
            net.params[name] -= 0.1 * gradient
    assert len(analyses) == 4  # of each array once


def test_gradients_have_the_same_bits_with_what_was_kept(analyses):
    net = Net()
    for seed in range(3):
        for name in net.params:
            kept = net.gradient(name, *batch(seed))
            held = dict(strategy._structures)
            strategy._structures.clear()
            anew = net.gradient(name, *batch(seed))
            assert np.array_equal(kept, anew)
            strategy._structures.update(held)
    assert len(analyses) == 4 * 4


def test_changes_between_two_calls_are_seen():
    net = Net()
    x, t = batch(0)

    def f(_):
        return net.loss(x, t)

    assert_the_loops(f, net.params.values())
    x, t = batch(1)  # new data
    assert_the_loops(f, net.params.values())
    x, t = batch(2, ROWS // 2)  # the end of an epoch
    assert_the_loops(f, net.params.values())
    x, t = batch(3)
    for name in net.params:  # parameters replaced
        net.params[name] = net.params[name] * 0.9
    assert_the_loops(f, net.params.values())
    net.is_training = True  # rows mix now
    assert_the_loops(f, net.params.values())
    net.is_training = False
    assert_the_loops(f, net.params.values())
    x = x.astype(np.float32)
    assert_the_loops(f, net.params.values())
    t[...] = 0  # labels changed in place
    assert_the_loops(f, net.params.values())


@pytest.mark.parametrize("seed", range(3))
def test_rows_and_units_that_an_array_moves_elsewhere_are_told_anew(seed, analyses):
    random = np.random.default_rng(seed)
    x, w = random.random((ROWS, INPUTS)), random.standard_normal((INPUTS, UNITS))
    weights = random.random((ROWS, UNITS))
    place = np.arange(ROWS)

    def by_rows(w):
        a = np.tanh(x @ w)[place]
        return np.sum(np.sin(a * weights).sum(axis=1) ** 2)

    def by_units(w):
        a = np.tanh(x @ w)[:, place[:UNITS] % UNITS]
        return np.sum(np.sin(a * weights).sum(axis=1) ** 2)

    for f in (by_rows, by_units):
        assert_the_loops(f, [w])
        before = len(analyses)
        place[...] = random.permutation(ROWS)
        assert_the_loops(f, [w])
        assert len(analyses) == before + 1  # rows, or units, stand elsewhere
        place[...] = random.integers(0, ROWS, ROWS)  # some twice, some never
        assert_the_loops(f, [w])
        place[...] = np.arange(ROWS)


def test_what_is_taken_of_x_by_an_array_is_not_kept():
    random = np.random.default_rng(0)
    x, w = random.random((ROWS, INPUTS)), random.standard_normal((2 * INPUTS, UNITS))
    some = np.arange(INPUTS)

    def f(w):
        return np.sum(np.tanh(x @ w[some]) ** 2)

    assert_the_loops(f, [w])
    some += INPUTS
    assert_the_loops(f, [w])
    some[...] = np.random.default_rng(1).permutation(2 * INPUTS)[:INPUTS]
    assert_the_loops(f, [w])


@pytest.mark.parametrize(
    "change",
    [
        lambda a, k: np.sum(a, axis=k),
        lambda a, k: np.max(a, axis=k),
        lambda a, k: np.mean(a, k),
        lambda a, k: np.einsum("ij,ij->" + "ij"[1 - k], a, np.arange(25.0).reshape(5, 5)),
        lambda a, k: np.tensordot(a, np.arange(5.0), ((k,), (0,))),
        lambda a, k: np.swapaxes(a, 0, k).sum(axis=1),
        lambda a, k: np.roll(a, 1, axis=1 - k).sum(axis=k),
        lambda a, k: (a, a.T)[k] @ np.arange(5.0),
    ],
)
def test_operations_that_differ_in_an_argument_are_told_apart(change):
    random = np.random.default_rng(0)
    x, w = random.random((UNITS, INPUTS)), random.standard_normal((INPUTS, UNITS))
    for k in (1, 0, 1, 0):
        assert_the_loops(lambda w, k=k: np.sum(np.sin(change(np.tanh(x @ w), k))), [w])
    assert strategy._structures


def test_what_is_kept_holds_no_array_of_the_users_and_is_bounded():
    held = []
    for rows in range(2, 2 + strategy.MAX_STRUCTURES + 5):
        net, (x, t) = Net(), batch(0, rows)
        net.gradient("W1", x, t)
        held += [weakref.ref(array) for array in (x, t, net.mean, *net.params.values())]
        assert len(strategy._structures) <= strategy.MAX_STRUCTURES
    del net, x, t
    gc.collect()
    assert not any(reference() is not None for reference in held)
    assert len(strategy._structures) == strategy.MAX_STRUCTURES


def test_structures_that_are_large_are_not_kept(monkeypatch):
    net, (x, t) = Net(), batch(0)
    assert_the_loops(lambda W: net.loss(x, t), net.params.values())
    sizes = [structure.nbytes for structure in strategy._structures.values()]
    assert len(sizes) == 4
    strategy._structures.clear()
    monkeypatch.setattr(strategy, "MAX_KEPT_BYTES", sum(sizes[1:]))
    assert_the_loops(lambda W: net.loss(x, t), net.params.values())
    assert [structure.nbytes for structure in strategy._structures.values()] == sizes[1:]
    strategy._structures.clear()
    monkeypatch.setattr(strategy, "MAX_STRUCTURE_BYTES", max(sizes) - 1)
    assert_the_loops(lambda W: net.loss(x, t), net.params.values())
    kept = [structure.nbytes for structure in strategy._structures.values()]
    assert kept == [size for size in sizes if size < max(sizes)]


@pytest.mark.parametrize(
    "product",
    [
        lambda a: np.einsum("ij->j", a),
        lambda a: np.einsum("ij,ij,ij->i", a, a, a),
        lambda a: np.einsum("ii->i", a[:UNITS]),
        lambda a: np.dot(a, 2.0),
        lambda a: np.tensordot(a, np.ones((UNITS, 2)), (np.array([1]), np.array([0]))),
        lambda a: a @ np.ones((2, UNITS, 3)),
        lambda a: np.vdot(a, a),
    ],
)
def test_products_of_any_form_are_traced(product):
    random = np.random.default_rng(0)
    x, w = random.random((ROWS, INPUTS)), random.standard_normal((INPUTS, UNITS))
    for _ in range(2):
        assert_the_loops(lambda w: np.sum(np.sin(product(np.tanh(x @ w)))), [w])


def test_a_function_of_the_users_own_is_not_kept():
    double = np.frompyfunc(lambda v: 2 * v, 1, 1)
    random = np.random.default_rng(0)
    x, w = random.random((ROWS, INPUTS)), random.standard_normal((INPUTS, UNITS))
    gradient = numerical_gradient(lambda w: np.sum(double(x @ w).astype(float)), w)
    assert np.allclose(gradient, 2 * x.sum(axis=0)[:, np.newaxis])
    assert not strategy._structures


def test_the_books_functions_serve_in_any_order():
    random = np.random.default_rng(0)
    x, w = random.random((ROWS, INPUTS)), random.standard_normal((INPUTS, CLASSES))
    t = random.integers(0, CLASSES, ROWS)
    for loss in (cross_entropy_error, lambda y, t: np.sum((y - np.eye(CLASSES)[t]) ** 2)) * 2:
        assert_the_loops(lambda w, loss=loss: loss(softmax(x @ w), t), [w])
