"""Extrema that shift all scores cancel, and are held; those that matter are moved."""

import numpy as np
import pytest
from looped import assert_traced_as_looped
from nets import EPS, H

from fastgrad.engines import loop, traced
from fastgrad.tracing import operations
from fastgrad.tracing.recorder import Recording, record
from fastgrad.tracing.replay import Replay
from fastgrad.tracing.smoothness import cancelling_shifts

RANDOM = np.random.default_rng(0)
ROWS, INPUTS, CLASSES = 7, 6, 4
X, W = RANDOM.normal(size=(ROWS, INPUTS)), RANDOM.normal(size=(INPUTS, CLASSES))
T = RANDOM.integers(0, CLASSES, ROWS)
EVERY = np.arange(ROWS)


def by_columns(a):
    a = a.T
    e = np.exp(a - np.max(a, axis=0))
    return (e / np.sum(e, axis=0)).T


def log_softmax(a):
    shifted = a - a.max(axis=1, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=1, keepdims=True))


def log_of_sum(a):
    largest = np.max(a, axis=1, keepdims=True)
    return largest + np.log(np.mean(np.exp(-largest + a), axis=1, keepdims=True)) - a


def softmax(a, shift=lambda largest: largest, scale=1.0):
    e = np.exp(a - shift(a.max(axis=1, keepdims=True)))
    return scale * e / e.sum(axis=1, keepdims=True)


HELD = {
    "softmax": lambda a: np.log(softmax(a)[EVERY, T] + 1e-7),
    "softmax of columns": lambda a: np.log(by_columns(a) + 1e-7)[EVERY, T],
    "logarithms alone": lambda a: log_softmax(a)[EVERY, T],
    "logarithm of a sum": lambda a: log_of_sum(a)[EVERY, T] ** 2,
    "scaled": lambda a: softmax(a, scale=2.0) ** 2,
}

MOVED = {
    "half of it": lambda a: (
        softmax(a, lambda largest: 0.5 * largest) + np.exp(a - 0.5 * a.max(axis=1, keepdims=True))
    ),
    "itself": lambda a: a.max(axis=1) ** 2,
    "the other way": lambda a: (
        np.log(np.exp(a - (m := a.max(axis=1, keepdims=True))).sum(axis=1, keepdims=True)) - m
    ),
    "exponentials alone": lambda a: np.exp(a - a.max(axis=1, keepdims=True)),
    "a number added to them": lambda a: np.log(
        np.exp(a - a.max(axis=1, keepdims=True)).sum(axis=1) + 1e-3
    ),
    "the square of the shifted": lambda a: (a - a.max(axis=1, keepdims=True)) ** 2,
    "over other rows": lambda a: (
        (e := np.exp(a - a.max(axis=1, keepdims=True))) / e.sum(axis=1, keepdims=True)[::-1]
    ),
    "added up over rows": lambda a: (e := np.exp(a - a.max(axis=1, keepdims=True))) / e.sum(axis=0),
    "once too often": lambda a: (
        (e := np.exp(a - a.max(axis=1, keepdims=True))) / e.sum(axis=1, keepdims=True) ** 2
    ),
}


def replay_of(expression):
    recording = Recording()
    root = recording.start(X @ W)
    output = record(lambda: np.sum(expression(root)), recording)
    ids = np.broadcast_to(np.arange(1, CLASSES + 1), (ROWS, CLASSES))
    return Replay(recording.nodes, root.node, ids, output.arguments[0])


@pytest.mark.parametrize("name", HELD)
def test_a_shift_that_cancels_is_found(name):
    replay = replay_of(HELD[name])
    (node,) = cancelling_shifts(replay)
    assert node.function is np.max
    held = Replay([replay.root, *replay.nodes], replay.root, replay.unit_ids[replay.root],
                  replay.target, held={node})  # fmt: skip
    assert node not in held.nodes
    assert held.without_holding().nodes == replay.nodes
    moved = X @ W + 0.01 * RANDOM.normal(size=(5, ROWS, CLASSES))
    np.testing.assert_allclose(
        held.all_versions(moved), replay.all_versions(moved), rtol=1e-13, atol=1e-13
    )


@pytest.mark.parametrize("name", MOVED)
def test_a_shift_that_matters_is_not(name):
    assert not cancelling_shifts(replay_of(MOVED[name]))


def test_a_shift_by_which_alone_x_reaches_the_loss_is_moved():
    """It cancels, but there would be no operation left to replay."""
    others = RANDOM.normal(size=(ROWS, CLASSES))

    def expression(a):
        largest = a.max(axis=1, keepdims=True)
        return largest + np.log(np.exp(others - largest).sum(axis=1, keepdims=True))

    assert not cancelling_shifts(replay_of(expression))
    got = traced.gradient(lambda w: np.sum(expression(X @ w)), W, H)
    # Of each row's loss rounding leaves a few eps, and the derivative is 0.
    assert abs(got).max() <= 8 * EPS * abs(expression(X @ W)).sum() / H


@pytest.mark.parametrize("name", [*HELD, *MOVED])
@pytest.mark.parametrize("scale", [1.0, 3e4])
def test_gradients_are_the_loops_whether_it_cancels_or_not(name, scale, monkeypatch):
    """By large inputs, too, which move scores by more than exponentials bear."""
    monkeypatch.setattr(traced, "CERTIFY", False)
    every = (HELD | MOVED)[name]
    weights = RANDOM.random((ROWS, CLASSES))

    def expression(a):
        result = every(a)
        return weights[:, : result.size // ROWS].reshape(result.shape) * result

    x = X.copy()
    x[:3] *= scale
    w = W / scale
    if scale == 1.0:
        assert_traced_as_looped(lambda w: np.sum(expression(np.tanh(x @ w))) / ROWS, w)
    got = traced.gradient(lambda w: np.mean(expression(x @ w)), w, 1e-4)
    with np.errstate(all="ignore"):
        expected = loop.gradient(lambda w: np.mean(expression(x @ w)), w, 1e-4)
    np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-8 * abs(expected).max())


def test_picks_stand_before_what_is_computed_with_them():
    recording = Recording()
    root = recording.start(X @ W)
    output = record(lambda: np.sum(HELD["softmax"](root)), recording)
    values = {node: node.value.copy() for node in recording.nodes}
    nodes = operations.picks_first(recording.nodes)
    assert nodes[-1] is output
    assert sum(node.value.size > ROWS for node in nodes) == 3  # scores, shifted, exponentials
    for k, node in enumerate(nodes):
        assert set(node.inputs()) <= set(nodes[:k])
        if node.function is not None:
            arguments = operations.replaced(node.arguments, operations.value_of)
            assert node.compute(arguments).tobytes() == node.value.tobytes()
        if node in values:
            assert node.value.tobytes() == values[node].tobytes()


@pytest.mark.parametrize(
    "expression",
    [
        lambda a: (y := np.exp(a) / 3)[EVERY, T].sum() + y.sum(),  # computed anyway
        lambda a: np.exp(a)[EVERY].sum(),  # all of it
        lambda a: np.tanh(a[EVERY, T]).sum(),
        lambda a: a.sum(axis=1)[::3].sum(),
    ],
)
def test_picks_stay_where_nothing_is_saved(expression):
    recording = Recording()
    root = recording.start(X @ W)
    record(lambda: expression(root), recording)
    nodes = [(node, node.function, node.arguments) for node in recording.nodes]
    assert operations.picks_first(recording.nodes) == [node for node, _, _ in nodes]
    assert all(node.function is f and node.arguments is a for node, f, a in nodes)


def test_keywords_of_what_picks_are_not_passed_on():
    recording = Recording()
    root = recording.start(X @ W)
    output = record(lambda: np.sum(np.take(np.square(root) + 1, [0], axis=1)), recording)
    before = output.value.tobytes()
    nodes = operations.picks_first(recording.nodes)
    assert [node.keywords for node in nodes if node.function is np.add] == [{}]
    assert np.sum(np.square((X @ W)[:, [0]]) + 1).tobytes() == before


def test_what_is_picked_twice_or_broadcast_is_picked_from_each():
    recording = Recording()
    root = recording.start(X @ W)
    output = record(
        lambda: np.sum(((z := np.exp(root)) * z - root.sum(axis=1)[:, np.newaxis])[EVERY, T]),
        recording,
    )
    before = output.value.tobytes()
    nodes = operations.picks_first(recording.nodes)
    for node in nodes[1:]:
        node.value = node.compute(operations.replaced(node.arguments, operations.value_of))
    assert output.value.tobytes() == before
    assert max(node.value.size for node in nodes[1:]) == ROWS
