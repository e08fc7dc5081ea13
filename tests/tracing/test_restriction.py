"""A replay of some rows gives what these rows give in the replay of all."""

import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_traced_replay import COLUMNS, EXPRESSIONS, ROWS, A, close, recorded, scale_of

from fastgrad import numerical_gradient
from fastgrad.tracing import kinks
from fastgrad.tracing.affine import Stage, propagate
from fastgrad.tracing.kinks import restricted
from fastgrad.tracing.replay import Replay
from fastgrad.tracing.row_losses import RowLosses

REPEATABLE = settings(derandomize=True, deadline=None)


def rows_and_stage(expression, axis=0):
    """Return the array as a stage of rows along an axis, and the rows of an expression of it."""
    nodes, target = recorded(lambda x: expression(x) + 0.0)  # losses are no bools
    root = nodes[0]
    number = np.arange(1, A.shape[axis] + 1)
    rows = np.broadcast_to(number[:, np.newaxis] if axis == 0 else number, A.shape)
    labels = np.broadcast_to(np.arange(1, A.shape[1 - axis] + 1).reshape(-1, *(1,) * axis), A.shape)
    count = A.shape[axis]
    inputs = np.arange(3.0 * count).reshape(count, 3)
    stage = Stage(root, inputs, np.arange(labels.max() * 3).reshape(3, -1), labels, rows)
    replay = Replay(nodes, root, labels, target)
    row_of_element = propagate(replay.nodes, root, rows).get(target)
    return None if row_of_element is None else (RowLosses(replay, row_of_element, count), stage)


def assert_the_same(expression, axis, kept):
    """Check the losses of the rows that are kept; return whether they can be had alone."""
    found = rows_and_stage(expression, axis)
    few = None if found is None else restricted(*found, np.array(kept))
    if few is None:
        return False
    rows, stage = found
    some, its_stage = few
    moved = A + 0.5 * np.random.default_rng(5).normal(size=(3, *A.shape))
    with np.errstate(all="ignore"):
        expected = rows.losses(moved)[:, kept]
        result = some.losses(np.take(moved, kept, 1 + axis))
    assert some.count == len(its_stage.inputs) == len(kept)
    assert close(result, expected, 10 * scale_of(rows.replay.nodes) * rows.replay.target.value.size)
    assert np.array_equal(its_stage.inputs, stage.inputs[kept])
    assert np.array_equal(its_stage.node.value, np.take(A, kept, axis))
    assert np.array_equal(its_stage.unit_ids, np.take(stage.unit_ids, kept, axis))
    ordered = np.take(its_stage.rows, 0, 1 - axis)
    assert ordered.tolist() == list(range(1, len(kept) + 1))
    return True


DIVISIBLE = [
    "add", "row", "column", "twice", "exp", "where", "where constant",
    "where nested", "clip", "clip by arrays", "round", "astype", "mask product", "slice", "fancy",
    "labels", "row mask", "transpose", "new axes", "flip", "repeat", "take", "sum last",
    "sum keepdims", "softmax", "layer", "loss", "einsum", "tensordot", "dot", "inner",
]  # fmt: skip


@pytest.mark.parametrize("name", DIVISIBLE)
def test_what_nets_are_made_of_can_be_had_for_some_rows(name):
    for kept in ([2], [0, 3], [0, 1, 2, 3], [3, 1, 1, 3]):
        assert assert_the_same(EXPRESSIONS[name], 0, kept)


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_rows_alone_are_the_rows_among_all_or_cannot_be_had(name):
    for axis in (0, 1):
        assert_the_same(EXPRESSIONS[name], axis, [1, 2])


@REPEATABLE
@given(
    first=st.sampled_from(list(EXPRESSIONS)),
    second=st.sampled_from(["layer", "softmax", "loss", "transpose", "sum last", "labels"]),
    kept=st.sets(st.integers(0, ROWS - 1), min_size=1),
)
def test_rows_of_compositions_are_the_rows_among_all(first, second, kept):
    def expression(x):
        y = EXPRESSIONS[first](x)
        return EXPRESSIONS[second](y) if np.shape(y) == (ROWS, COLUMNS) else np.tanh(y)

    assert_the_same(expression, 0, sorted(kept))


def test_what_has_other_values_for_some_rows_alone_is_not_divided():
    """A constant that the operation reads as a whole is found out by what it computes."""
    _, stage = rows_and_stage(EXPRESSIONS["loss"])
    rows, _ = rows_and_stage(EXPRESSIONS["loss"])
    assert restricted(rows, stage, np.array([1])) is not None
    rows.replay.nodes[-1].value = rows.replay.nodes[-1].value + 1e-6
    assert restricted(rows, stage, np.array([1])) is None


def test_kinked_rows_give_the_same_quotients_among_all_and_by_what_is_straight(monkeypatch):
    """Two layers of ReLU, of which a few rows pass a kink of the second."""
    random = np.random.default_rng(6)
    X, W, V = random.random((40, 9)), random.normal(size=(9, 7)), random.normal(size=(7, 5))
    t, calls = random.integers(0, 5, 40), []
    c = np.zeros((40, 5))
    for row, unit in ((3, 2), (3, 4), (17, 0)):
        c[row, unit] = 0.4 * nets.H - (np.maximum(X @ W, 0) @ V)[row, unit]

    def loss(W):
        z = np.maximum(np.maximum(X @ W, 0) @ V + c, 0)
        return nets.cross_entropy_error(nets.softmax(z), t)

    def note(*arguments):
        calls.append(restricted(*arguments))
        return calls[-1]

    monkeypatch.setattr(kinks, "restricted", note)
    few = numerical_gradient(loss, W, engine="traced")
    assert [rows.count for rows, _ in calls] == [4]  # a row for each response
    monkeypatch.setattr(kinks, "MAX_DIRECT", 0)
    straight = numerical_gradient(loss, W, engine="traced")
    assert len(calls) == 2
    monkeypatch.setattr(kinks, "restricted", lambda *_: None)
    among_all = numerical_gradient(loss, W, engine="traced")
    for result in (few, straight):
        assert np.abs(result - among_all).max() <= nets.EPS * loss(W) / nets.H
