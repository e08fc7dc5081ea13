"""Masks and maxima pick elements: what is replayed of these alone is what all of f would give."""

import numpy as np
import pytest
from looped import assert_traced_as_looped
from nets import IS_EXTENDED

from fastgrad import numerical_gradient
from fastgrad.engines import loop, traced
from fastgrad.tracing import picks, unit_responses
from fastgrad.tracing.affine import find_stage
from fastgrad.tracing.replay import Replay
from fastgrad.tracing.row_losses import RowLosses
from fastgrad.tracing.trace import trace_call

EPS = float(np.finfo(np.float64).eps)
H = 1e-4


def windows(images, size, stride=1):
    """Lay the windows of (N, C, H, W) out as rows, as the book does."""
    n, channels, height, width = images.shape
    down, across = (height - size) // stride + 1, (width - size) // stride + 1
    col = np.zeros((n, channels, size, size, down, across), images.dtype)
    for y in range(size):
        for x in range(size):
            col[:, :, y, x] = images[
                :, :, y : y + stride * down : stride, x : x + stride * across : stride
            ]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(n * down * across, -1)


def relu_by_mask(a):
    out = a.copy()
    out[a <= 0] = 0
    return out


RELUS = {
    "mask": relu_by_mask,
    "maximum": lambda a: np.maximum(a, 0),
    "where": lambda a: np.where(a > 0, a, 0),
    "product": lambda a: a * (a > 0),
    "both signs": lambda a: np.where((a > -0.1) & ~(a > 0.2), 0, a),
    "minimum": lambda a: 0.5 + np.minimum(a - 3, np.zeros(a.shape)),
}

POOLS = {
    "max": lambda col: col.max(axis=1),
    "min": lambda col: np.min(col, axis=-1, keepdims=True),
    "tree": lambda col: np.maximum(
        np.maximum(col[:, 0], col[:, 1]), np.maximum(col[:, 2], col[:, 3])
    ),
}

RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.uniform(size=(3, 1, 9, 9)) * (RANDOM.uniform(size=(3, 1, 9, 9)) > 0.4)
FILTERS = RANDOM.normal(size=(4, 1, 4, 4))
AFTER = RANDOM.normal(size=(4 * 9, 5)) / 20
TARGETS = RANDOM.normal(size=(3, 5))


class Net:
    """conv - relu - pool - affine - tanh - mean of squares, in the type of x."""

    def __init__(self, relu="mask", pool="max", images=IMAGES, bias=0.0):
        self.relu, self.pool = RELUS[relu], POOLS[pool]
        self.images, self.bias = images, bias

    def __call__(self, x):
        kind = np.asarray(x).dtype if type(x) is np.ndarray else np.float64
        images, after, targets = (a.astype(kind) for a in (self.images, AFTER, TARGETS))
        col = windows(images, 4)
        out = np.dot(col, x.reshape(4, -1).T) + self.bias
        out = self.relu(out.reshape(len(images), 6, 6, 4).transpose(0, 3, 1, 2))
        pooled = self.pool(windows(out, 2, 2).reshape(-1, 4)).reshape(len(images), 3, 3, 4)
        scores = np.tanh(np.dot(pooled.transpose(0, 3, 1, 2).reshape(len(images), -1), after))
        return ((scores - targets) ** 2).mean()


@pytest.fixture
def counted(monkeypatch):
    """Count how often picks are used; without the certificate, which would mend them."""
    used = []

    def counting(*arguments):
        used.append(picks.picked(*arguments))
        return used[-1]

    monkeypatch.setattr(unit_responses, "picked", counting)
    monkeypatch.setattr(picks, "MIN_GAIN", 0)
    monkeypatch.setattr(traced, "CERTIFY", False)
    return used


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("relu", RELUS)
def test_filters_before_masks_and_maxima_are_the_loops(relu, pool, counted):
    assert_traced_as_looped(Net(relu, pool), FILTERS.copy())
    (used,) = counted
    assert used is not None
    assert used[1].node.value.size < 3 * 36 * 4


@pytest.mark.skipif(not IS_EXTENDED, reason="longdouble is float64 here")
def test_the_quotient_in_extended_precision_is_missed_by_no_more_than_rounding(counted):
    f = Net()
    got = numerical_gradient(f, FILTERS.copy(), H, engine="traced")
    exact = loop.gradient(f, FILTERS.astype(np.longdouble), H)
    assert exact.dtype == np.longdouble
    assert abs(got - exact).max() <= 4 * EPS * f(FILTERS) / H
    assert counted[0] is not None


@pytest.mark.parametrize("distance", [0.0, 1e-6, 3e-5, 9e-5, 1.1e-4])
def test_decisions_that_change_within_the_step_are_computed_anew(distance, counted):
    x = FILTERS.copy()
    f = Net(bias=0.0)
    outputs = np.sort((windows(IMAGES, 4) @ x.reshape(4, -1).T).reshape(-1))
    f.bias = -outputs[len(outputs) // 2] + distance  # one stands as near as that to its kink
    assert_traced_as_looped(f, x)
    assert counted[0] is not None


def test_blank_windows_and_ties_among_them_are_decided(counted):
    images = IMAGES.copy()
    images[:, :, :, 4:] = 0  # with no bias, all outputs there are 0, and stay that
    assert_traced_as_looped(Net(images=images), FILTERS.copy())
    (used,) = counted
    assert used is not None


@pytest.mark.parametrize("alive", [[0], [1, 2], [3], []])
def test_filters_that_answer_nowhere_have_no_gradient(alive, counted):
    x = FILTERS.copy()
    f = Net(bias=np.where(np.isin(np.arange(4), alive), 0.0, -100.0))
    got = numerical_gradient(f, x, H, engine="traced")
    assert abs(got - loop.gradient(f, x, H)).max() <= 8 * EPS * f(x) / H
    assert np.flatnonzero(got.any(axis=(1, 2, 3))).tolist() == alive
    assert counted[0] is not None


def test_where_many_decisions_may_change_all_is_replayed(counted):
    alike = np.full_like(IMAGES, 0.5)  # all that a maximum is taken of is the same
    assert_traced_as_looped(Net(images=alike), FILTERS + 1)
    assert counted == [None]


def test_what_does_not_pick_is_replayed_as_a_whole(counted):
    f = Net()
    f.relu = np.tanh
    assert_traced_as_looped(f, FILTERS.copy())
    assert counted == [None]


def test_few_inputs_or_little_to_gain_are_not_worth_it(counted, monkeypatch):
    monkeypatch.setattr(picks, "MIN_GAIN", 1e9)
    assert_traced_as_looped(Net(), FILTERS.copy())
    monkeypatch.setattr(picks, "MIN_GAIN", 0)
    monkeypatch.setattr(picks, "MIN_INPUTS", 17)
    assert_traced_as_looped(Net(), FILTERS.copy())
    assert counted == [None, None]


def test_a_pick_that_is_not_what_was_recorded_is_refused(counted, monkeypatch):
    def wrong(*arguments):
        right = moved(*arguments)
        return np.roll(right, 1) if right.dtype == np.intp else right

    moved = picks._moved
    monkeypatch.setattr(picks, "_moved", wrong)
    assert_traced_as_looped(Net(), FILTERS.copy())
    assert counted == [None]


@pytest.mark.parametrize("name", ["min", "max"])
@pytest.mark.parametrize("axis", [None, 0, 1, (0, 2)])
def test_extrema_along_any_axes_pick(name, axis):
    inputs, weights = RANDOM.normal(size=(12, 9)), RANDOM.normal(size=(9, 2))

    def f(w):
        a = (inputs @ w).reshape(3, 4, 2).transpose(2, 0, 1)  # of unit 1 and 2
        best = [getattr(each, name)(axis=axis) for each in (a[:1], a[1:])]
        return (np.tanh(best[0]).sum() + best[1].sum()) ** 2

    assert_traced_as_looped(f, weights)


@pytest.mark.parametrize(
    "loss", [lambda a: a.max(axis=0).sum(), lambda a: ((a > 0).max(axis=0) * a[0]).sum() ** 2]
)
def test_losses_that_are_picked_and_extrema_of_truths_are_replayed_as_a_whole(loss, counted):
    inputs, weights = RANDOM.normal(size=(12, 9)), RANDOM.normal(size=(9, 2))
    assert_traced_as_looped(lambda w: loss(inputs @ w), weights)
    assert counted == [None]


def test_the_losses_of_what_is_picked_are_those_of_all(monkeypatch):
    f, x = Net(), FILTERS.copy()
    trace = trace_call(f, x, H)
    (term,) = trace.terms
    stage = find_stage(trace.nodes, term.node)
    replay = Replay(trace.nodes, stage.node, stage.unit_ids, term.node)
    rows = RowLosses(replay, np.ones(term.node.shape, np.intp), 1)
    monkeypatch.setattr(picks, "MIN_GAIN", 0)
    few, few_stage = picks.picked(rows, stage, H)
    for i in range(16):
        shifts = H * stage.inputs[:, i]
        whole = rows.changes(stage.node.value + shifts[stage.rows - 1][np.newaxis])
        given = few.changes(few_stage.node.value + shifts[few_stage.rows - 1][np.newaxis])
        assert abs(given - whole).max() <= 16 * EPS
        assert abs(whole).max() > 1e-8


def random_net(random):
    """Return a loss of masks, maxima and moves in any order, and its first weights; many tie."""
    samples, places, units = random.integers(1, 4), 6, random.integers(1, 4)
    inputs = random.normal(size=(samples * places, 9)).round(random.integers(1, 4))
    inputs[random.uniform(size=len(inputs)) < 0.2] = 0
    steps = [str(step) for step in random.choice([*STEPS], random.integers(1, 5))]
    constants = random.normal(size=(8,)).round(1)
    after = random.normal(size=(500, 4)) / 4

    def f(w):
        a = (inputs @ w).reshape(samples, 2, 3, -1)
        for step in steps:
            a = STEPS[step](a, constants)
        flat = a.transpose(0, 3, 1, 2).reshape(samples, -1)
        return (np.tanh(flat @ after[: flat.shape[1]]) ** 2).mean()

    return f, random.normal(size=(9, units)).round(random.integers(1, 4))


def padded(a, _):
    return np.pad(a, ((0, 0), (1, 0), (0, 1), (0, 0)))


def pooled(a, _):
    wide = a[:, :, : max(1, a.shape[2] // 2 * 2)]
    pairs = wide.reshape(*a.shape[:2], -1, min(2, a.shape[2]), a.shape[3])
    return pairs.max(axis=3)


STEPS = {
    "relu": lambda a, c: np.maximum(a, 0),
    "mask": lambda a, c: relu_by_mask(a),
    "product": lambda a, c: (a > c[0]) * a,
    "band": lambda a, c: np.where((a < c[1]) | (a >= c[2]), a, c[3]),
    "own": lambda a, c: np.where(a > a[:, ::-1], a, a[:, :, ::-1]),
    "of two": lambda a, c: np.minimum(a, a[:, ::-1] + c[4]),
    "shifted": lambda a, c: c[5] + a - c[6],
    "padded": padded,
    "pooled": pooled,
    "largest of rows": lambda a, c: a.max(axis=1, keepdims=True),
    "turned": lambda a, c: a.transpose(0, 2, 1, 3)[:, ::-1],
    "taken": lambda a, c: a[:, [0, -1, 0]],
}


@pytest.mark.parametrize("h", [1e-4, 1e-2, 0.30517])  # none meets a tie
def test_random_masks_maxima_and_moves_are_the_loops(h, counted, repeats, monkeypatch):
    monkeypatch.setattr(picks, "MAX_UNDECIDED_SHARE", 1)
    for seed in range(repeats(20, 500)):
        f, w = random_net(np.random.default_rng(seed))
        got, expected = numerical_gradient(f, w, h, engine="traced"), loop.gradient(f, w, h)
        assert abs(got - expected).max() <= 8 * EPS * max(1, f(w)) / h, seed
    assert sum(used is not None for used in counted) > len(counted) // 2
