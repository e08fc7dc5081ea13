"""Pieces that are linear while no decision changes: a few versions tell what all weights do."""

import numpy as np
import pytest
from looped import assert_traced_as_looped

from fastgrad import numerical_gradient
from fastgrad.engines import loop, traced
from fastgrad.schemes import central_quotient
from fastgrad.tracing import changed_decisions, linear_operations, linear_pieces, unit_responses
from fastgrad.tracing.trace import trace_call
from tests.tracing.test_picks import POOLS, RELUS, windows

EPS = float(np.finfo(np.float64).eps)
H = 1e-4
RANDOM = np.random.default_rng(3)
IMAGES = RANDOM.uniform(size=(1, 2, 12, 12)) * (RANDOM.uniform(size=(1, 1, 12, 12)) > 0.3)
FIRST = RANDOM.normal(size=(4, 2, 3, 3)) / 3
SECOND = RANDOM.normal(size=(6, 4, 3, 3)) / 5
THIRD = RANDOM.normal(size=(5, 6, 2, 2)) / 4
AFTER = RANDOM.normal(size=(5 * 9, 3)) / 5


TAILS = {
    "scores": lambda a: a,
    "scaled": lambda a: 3.0 - a / 2.0 * np.array([1.0, 2.0, 3.0]),
    "stable softmax": lambda a: a - a.max(axis=1, keepdims=True),
    "masked": lambda a: np.where(np.array([True, False, True]), a, 0.5) + a * np.array([False]),
    "wider": lambda a: np.maximum(a.T, np.array([[0.1, -0.2]])).sum(axis=1).reshape(1, 3),
    "both": lambda a: np.maximum(a, a[:, ::-1]) - np.minimum(a, 0.1),
}


JUMPS = {"apart": lambda a: np.where(a > 0, a + 0.5, 0), "sum": lambda a: a + (a > 0)}


class Net:
    """conv - relu - conv - relu - pool - conv - relu - affine - log of softmax."""

    def __init__(self, relu="mask", pool="max", tail="scores", first=None, bias=0.0):
        self.relu, self.pool, self.tail = RELUS[relu], POOLS[pool], TAILS[tail]
        self.first = self.relu if first is None else first
        self.arrays = [FIRST.copy(), SECOND.copy(), THIRD.copy()]
        self.bias = bias

    def __call__(self, x):
        kind = np.asarray(x).dtype if type(x) is np.ndarray else np.float64
        images, after = IMAGES.astype(kind), AFTER.astype(kind)
        out = self.first(self.convolved(images, 0))
        out = self.relu(self.convolved(out, 1) + self.bias)
        out = self.pool(windows(out, 2, 2).reshape(-1, 4)).reshape(1, 4, 4, 6).transpose(0, 3, 1, 2)
        out = self.relu(self.convolved(out, 2))
        scores = self.tail(out.reshape(1, -1) @ after)
        return np.log(np.exp(scores).sum()) - scores[0, 1]

    def convolved(self, images, number):
        filters = self.arrays[number]
        size = filters.shape[-1]
        side = images.shape[-1] - size + 1
        out = np.dot(windows(images, size), filters.reshape(len(filters), -1).T)
        return out.reshape(len(images), side, side, -1).transpose(0, 3, 1, 2)


@pytest.fixture
def known(monkeypatch):
    """Note which weights pieces told; without the certificate, which would mend them."""
    found = []

    def noting(*arguments):
        result = linear_pieces.by_linear_piece(*arguments)
        found.append(None if result is None else result.is_known)
        return result

    monkeypatch.setattr(unit_responses, "by_linear_piece", noting)
    monkeypatch.setattr(traced, "CERTIFY", False)
    return found


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("number", range(2))
def test_filters_of_each_layer_are_the_loops(number, tail, known):
    f = Net(tail=tail)
    assert_traced_as_looped(f, f.arrays[number])
    assert known[0].mean() > 0.5


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("relu", RELUS)
def test_masks_and_maxima_of_all_kinds_are_decided(relu, pool, known):
    f = Net(relu, pool)
    assert_traced_as_looped(f, f.arrays[0])
    assert known[0].mean() > 0.5


@pytest.mark.skipif(np.finfo(np.longdouble).eps > EPS / 100, reason="longdouble is float64 here")
@pytest.mark.parametrize("number", range(2))
def test_the_quotient_in_extended_precision_is_missed_by_no_more_than_rounding(number, known):
    f = Net()
    got = numerical_gradient(f, f.arrays[number], H, engine="traced")
    f.arrays = [a.astype(np.longdouble) for a in f.arrays]
    exact = loop.gradient(f, f.arrays[number], H)
    assert exact.dtype == np.longdouble
    assert abs(got - exact).max() <= 2 * EPS * f(FIRST) / H
    assert known[0].mean() > 0.5


def test_slopes_are_right_where_weights_change_a_decision(monkeypatch):
    """At a step that reaches no kink: its rounding is some eps f / 1e-7."""
    monkeypatch.setattr(linear_pieces, "MAX_CHANGING_SHARE", 1)
    f = Net()
    f.bias = 1e-5 - f.convolved(f.relu(f.convolved(IMAGES, 0)), 1)[:, 2].max()  # pooling picks it
    x = f.arrays[0]
    replayed = traced._replayed(trace_call(f, x, H), H, central_quotient, np.inf)
    slopes = loop.gradient(f, x, 1e-7).reshape(-1)
    assert abs(replayed.quotients - slopes).max() > 1e-5
    np.testing.assert_allclose(replayed.slopes, slopes, rtol=0, atol=16 * EPS * f(x) / 1e-7)


@pytest.mark.parametrize("relu", ["mask", "maximum", "where", "product", *JUMPS])
@pytest.mark.parametrize("distance", [0.0, 1e-9, 3e-5])
def test_what_weights_do_that_change_a_decision_is_known_unless_it_is_a_jump(distance, relu, known):
    f = Net()
    f.relu = (RELUS | JUMPS)[relu]
    outputs = np.sort(f.convolved(f.first(f.convolved(IMAGES, 0)), 1)[:, 2].reshape(-1))
    f.bias = -outputs[len(outputs) // 2] + distance  # one stands as near as that to its kink
    assert_traced_as_looped(f, f.arrays[0])
    if relu not in JUMPS:
        assert known[0].all()
    elif distance:  # from 0 on it may be a jump after which nothing is near to another decision
        assert not known[0].all()


@pytest.mark.parametrize("pool", ["max", "min"])
def test_filters_whose_own_outputs_stand_at_a_kink_are_the_loops(pool, known):
    """Their places in memory are those of a transposed array, which no replay is to depend on."""
    f = Net(pool=pool)
    outputs = np.sort(f.convolved(f.first(f.convolved(IMAGES, 0)), 1)[:, 2].reshape(-1))
    f.bias = -outputs[4 * len(outputs) // 10]
    assert_traced_as_looped(f, f.arrays[1])


def test_what_follows_is_moved_by_those_elements_alone_that_change_a_decision(known, monkeypatch):
    found = []

    def noting(steps, choices, plain, parts):
        found.append((parts, changed_decisions.excesses(steps, choices, plain, parts)))
        return found[-1][1]

    monkeypatch.setattr(linear_pieces, "excesses", noting)
    f = Net()
    f.bias = 3e-5 - f.convolved(f.first(f.convolved(IMAGES, 0)), 1)[:, 2].max()
    assert_traced_as_looped(f, f.arrays[0])
    parts, (of_parts, _) = found[0]
    first, *moved = np.concatenate([each.values for each in of_parts], axis=1).any(axis=(0, 1))
    assert not first
    assert moved
    assert all(moved)
    assert len(moved) < sum(len(near) for part in parts for near, _ in part.told.near.values())
    assert known[0].all()


def test_weights_are_replayed_where_what_they_add_would_take_much_memory(known, monkeypatch):
    monkeypatch.setattr(changed_decisions, "MAX_EXCESS_BYTES", 0)
    f = Net()
    outputs = np.sort(f.convolved(f.first(f.convolved(IMAGES, 0)), 1)[:, 2].reshape(-1))
    f.bias = -outputs[len(outputs) // 2]
    assert_traced_as_looped(f, f.arrays[0])
    assert 0 < known[0].mean() < 1


@pytest.mark.parametrize("units", [[2], [0, 1, 2, 3]])
def test_units_that_a_relu_switches_off_change_nothing(units, known):
    f = Net()
    f.bias = np.zeros((1, 6, 1, 1))
    f.bias[:, units] = -100
    assert_traced_as_looped(f, f.arrays[1])
    assert known[0][:, units].all()


def test_where_most_weights_change_decisions_all_are_replayed(known):
    f = Net()
    f.bias = 1e-5 - f.convolved(f.relu(f.convolved(IMAGES, 0)), 1)  # all stand at their kinks
    assert_traced_as_looped(f, f.arrays[0])
    assert all(each is None for each in known)


def test_what_bends_before_a_piece_is_replayed(known):
    f = Net(first=np.tanh)
    assert_traced_as_looped(f, f.arrays[0])
    assert known == [None] * len(known)


@pytest.mark.parametrize("products", [0, 2**30])
def test_rows_are_multiplied_one_by_one_or_all_at_once(products, known, monkeypatch):
    monkeypatch.setattr(linear_operations, "MIN_ROW_PRODUCTS", products)
    f = Net()
    assert_traced_as_looped(f, f.arrays[0])
    assert known[0].mean() > 0.5


def test_windows_that_do_not_move_may_be_multiplied_by_what_does(known):
    f = Net()
    still = np.eye(4)[[0, 1, 1, 3, 2]]
    f.tail = lambda a: (windows(still.reshape(1, 1, 5, 4), 2)[:3] @ np.repeat(a.T, 4, axis=0)[:4]).T
    assert_traced_as_looped(f, f.arrays[0])


@pytest.mark.parametrize("bytes_", [0, 10_000])
def test_pieces_that_would_take_much_memory_are_left_alone(bytes_, known, monkeypatch):
    monkeypatch.setattr(linear_pieces, "MAX_PIECE_BYTES", bytes_)
    f = Net()
    assert_traced_as_looped(f, f.arrays[0])
    assert known == [None] * len(known)
