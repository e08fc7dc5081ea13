"""What happens between two measured shifts is seen: decisions flipped and flipped back, poles."""

import functools
from itertools import product

import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import EPS, H
from pairwise import pairwise

from fastgrad.engines import loop, traced
from fastgrad.tracing import smoothness, strategy, unit_responses
from fastgrad.tracing.kinks import Slots
from fastgrad.tracing.recorder import Recording
from fastgrad.tracing.smoothness import SmoothnessMonitor

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=60)


pytestmark = pytest.mark.usefixtures("no_certificate")


def relu(a):
    result = a.copy()
    result[a <= 0] = 0
    return result


def spike(z, power):
    """Return a number below 1, squared over and over: nothing but products."""
    for _ in range(power):
        z = z * z
    return z


# Each is 0, or steady, but for |z| of about w.
NARROW = {
    "maximum": lambda z, w: np.maximum(0, 1 - abs(z) / w),
    "minimum": lambda z, w: np.minimum(abs(z) / w, 1),
    "fmax": lambda z, w: np.fmax(0, 1 - np.fabs(z) / w),
    "ReLU by mask": lambda z, w: relu(1 - abs(z) / w),
    "comparison": lambda z, w: 1.0 * (abs(z) < w),
    "two comparisons": lambda z, w: 1.0 * ((z > -w) & (z < w)),
    "product of masks": lambda z, w: (z > -w) * (z < w),
    "product of ReLUs": lambda z, w: np.maximum(z / w + 1, 0) * np.maximum(1 - z / w, 0),
    "logical_and": lambda z, w: np.logical_and(z > -w, z < w) * 1.0,
    "where": lambda z, w: np.where(z > -w, np.where(z < w, 1.0, 0.0), 0.0),
    "where of a number": lambda z, w: np.where(np.maximum(0, 1 - abs(z) / w), 1.0, 0.0),
    "clip": lambda z, w: np.clip(z / w, -1, 1) - np.clip(z / w - 2, -1, 1),
    "clip by keyword": lambda z, w: (1 - abs(z) / w).clip(min=0),
    "sign": lambda z, w: np.sign(z + w) - np.sign(z - w),
    "floor": lambda z, w: np.floor(5 + (z + w) / 100) - np.floor(5 + (z - w) / 100),
    "round": lambda z, w: np.round((z + w) / 100 + 0.5) - np.rint((z - w) / 100 + 0.5),
    "round to digits": lambda z, w: np.round((z + w) / 100 + 0.05, 1) - np.round(z / 100 + 0.05, 1),
    "mod": lambda z, w: np.mod(z + w, np.full(z.shape[1], 100.0)) - np.mod(z - w, 100.0),
    "integers": lambda z, w: ((z + w) / 50 + 7).astype(int) - ((z - w) / 50 + 7).astype(int),
    "bools": lambda z, w: np.maximum(0, 1 - abs(z) / w).astype(bool) * 1.0,
    "stored integers": lambda z, w: stored((z + w) / 50 + 7) - stored((z - w) / 50 + 7),
    "largest": lambda z, w: np.max(np.stack([0 * z, 1 - abs(z) / w]), axis=0),
    "smallest": lambda z, w: np.stack([0 * z + 1, abs(z) / w], axis=2).min(axis=-1),
    "place of the largest": lambda z, w: np.argmax(np.stack([1 + 0 * z, 2 - abs(z) / w]), axis=0),
    "exp": lambda z, w: np.exp(-((z / w) ** 2)),
    "power of a number": lambda z, w: 2.0 ** -((z / w) ** 2),
    "tanh": lambda z, w: np.tanh(z / w + 1) - np.tanh(z / w - 1),
    "logaddexp": lambda z, w: (
        np.logaddexp(0, z / w + 1) + np.logaddexp(0, z / w - 1) - 2 * np.logaddexp(0, z / w)
    ),
    "arctan": lambda z, w: np.arctan(z / w + 1) - np.arctan(z / w - 1),
    "pole beside the line": lambda z, w: 1 / (1 + (z / w) ** 2),
    "power": lambda z, w: (1 + (z / w) ** 2) ** -1.5,
    "sqrt": lambda z, w: np.sqrt((z / w) ** 2 + 1) - np.sqrt((z / w) ** 2 + 0.5),
    "log": lambda z, w: np.log1p(1 / ((z / w) ** 2 + 1)) + np.log((z / w) ** 2 + 1),
    "std": lambda z, w: np.std(np.stack([z / w, 0 * z]), axis=0) - abs(z) / w / 2,
    "unknown function": lambda z, w: np.hypot(z / w, 1) - np.hypot(z / w, 2),
}


def stored(values):
    result = np.zeros(np.shape(values), np.int64) + 0 * (values > 0)
    result[:] = values
    return result


def layer_with_features(feature, width, seed, *, layer=1, scale=1.0):
    """Return a loss in which some units of some rows pass a feature, and the weights.

    Parameters
    ----------
    feature : callable
        ``feature(z, width)``.
    layer : {1, 2}
        Whether the units themselves pass it, or those that they move.
    """
    random = np.random.default_rng(seed)
    samples, inputs, units = 8, 40, 12
    X = scale * random.random((samples, inputs))
    W, V = random.normal(size=(inputs, units)) / scale / 6, random.normal(size=(units, 4))
    U = random.normal(size=(4, 3))
    a = X @ W
    centre = a + 10 if layer == 1 else np.tanh(a) @ V + 10
    for n in random.permutation(samples)[: 3 if layer == 1 else 1]:
        j, k = random.integers(units), random.integers(4)
        slope = 1 if layer == 1 else V[j, k] * (1 - np.tanh(a[n, j]) ** 2)
        centre[n, j if layer == 1 else k] += random.uniform(-1, 1) * slope * H * X[n].max() - 10

    def loss(W):
        a = X @ W
        z, out = (a, V) if layer == 1 else (np.tanh(a) @ V, U)
        return 1 + np.mean(((0.1 * z + feature(z - centre, width)) @ out) ** 2)

    return loss, W


def deviation(f, x, width):
    """Return by how much the traced gradient misses the loop's, and how much rounding may."""
    result, expected = traced.traced_gradient(f, x, H), loop.gradient(f, x, H)
    # What is rounded in z, up to some 10, is divided by the width.
    return abs(result - expected).max(), 4 * EPS * abs(f(x)) / H + 10 * EPS / width / H


FACTORS = (NARROW, [1, 2], [(3e-6, 1.0), (3e-7, 1.0), (1e-3, 255.0)], range(3))
FEATURES = pairwise(*FACTORS)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", NARROW)
def test_features_narrower_than_the_step_are_seen(name, repeats):
    for feature, layer, (width, scale), seed in repeats(FEATURES, product(*FACTORS)):
        if feature == name:
            f, x = layer_with_features(NARROW[name], width, seed, layer=layer, scale=scale)
            missed, rounded = deviation(f, x, width)
            assert missed <= rounded, (layer, width, seed)


@REPEATABLE
@given(
    name=st.sampled_from(["maximum", "two comparisons", "clip", "largest", "exp", "sqrt"]),
    exponent=st.floats(-7, -3),
    seed=st.integers(0, 10_000),
    layer=st.sampled_from([1, 2]),
)
def test_features_of_any_width_are_seen(name, exponent, seed, layer):
    f, x = layer_with_features(NARROW[name], 10**exponent, seed, layer=layer)
    missed, rounded = deviation(f, x, 10**exponent)
    assert missed <= rounded


PRODUCTS = {  # cos(s z)^(2^16) is exp(-(z / w)^2 / 2), periodic, if s = 2^-8 / w
    "multiply": lambda z: spike(z, 16),
    "square": lambda z: functools.reduce(lambda z, _: np.square(z), range(16), z),
    "power": lambda z: np.power(z, 2**16),
    "powers": lambda z: functools.reduce(lambda z, _: z**4, range(8), z),
    "prod": lambda z: functools.reduce(lambda z, _: np.stack([z] * 16).prod(axis=0), range(4), z),
    "einsum": lambda z: functools.reduce(lambda z, _: np.einsum("ij,ij->ij", z, z), range(16), z),
    "scaled": lambda z: functools.reduce(lambda z, _: 2 * (0.5 * z) * z, range(16), z),
    "divide": lambda z: functools.reduce(lambda z, _: z / (1 / z), range(16), z),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("name", PRODUCTS)
def test_narrow_spikes_that_are_made_by_products_alone_are_seen(name):
    for seed in range(3):
        f, x = layer_with_features(lambda z, w: PRODUCTS[name](np.cos(z / w / 2**8)), 1e-6, seed)
        missed, rounded = deviation(f, x, 1e-6)
        assert missed <= rounded


# It costs little far from kinks -------------------------------------------------------------------


@pytest.fixture
def kinks(monkeypatch):
    """Let no weight be moved by itself, and count responses with a kink."""
    found = []

    def note(rows, stage, h, signs, kinked, non_smooth):
        found.append(int(kinked.sum()))
        return original(rows, stage, h, signs, kinked, non_smooth)

    def forbidden(*_):
        raise AssertionError("weights are moved by themselves")

    original = unit_responses.by_kinked_rows
    monkeypatch.setattr(unit_responses, "by_kinked_rows", note)
    monkeypatch.setattr(strategy, "by_weights", forbidden)
    return found


def test_scores_that_are_all_equal_do_not_matter_to_a_softmax(kinks):
    """As at the beginning, if the weights are zero."""
    X, t, _ = nets.batch(3, samples=30)
    for softmax in (nets.softmax, nets.softmax_by_keepdims):
        W = np.zeros((X.shape[1], 4))
        f = lambda W, softmax=softmax: nets.cross_entropy_error(softmax(X @ W), t)  # noqa: E731
        assert abs(traced.traced_gradient(f, W, H) - loop.gradient(f, W, H)).max() <= 4 * EPS / H
    assert not kinks


@pytest.mark.parametrize(
    ("activation", "is_straight"),
    [
        (lambda a: np.maximum(a, 0), True),
        (relu, True),
        (lambda a: np.where(a > 0, a, 0.1 * a), True),
        (lambda a: a * (a > 0).astype(float), True),
        (lambda a: np.clip(a, 0, 9) - np.abs(a) / np.full(a.shape[1], 2.0), True),
        (lambda a: np.where(a > 0, a, np.exp(np.minimum(a, 0)) - 1), False),
    ],
)
def test_a_unit_that_passes_one_kink_is_measured_at_few_shifts(
    kinks, monkeypatch, activation, is_straight
):
    """If all is straight but for that; otherwise at all its shifts, in a row of its own."""
    random = np.random.default_rng(1)
    X, W = random.random((20, 30)), random.normal(size=(30, 40))
    V, U = random.normal(size=(40, 10)), random.normal(size=(10, 3))
    b, c = np.zeros((20, 40)), np.zeros((20, 10))
    b[4, 7] = 0.4 * H - (X @ W)[4, 7]
    z = activation(X @ W + b)
    c[9, 2] = 0.3 * H * V[np.argmax(z[9]), 2] - (z @ V)[9, 2]

    def f(W):
        return np.mean((activation(activation(X @ W + b) @ V + c) @ U) ** 2)

    def moved(slots, shifts):
        amounts.append(shifts.shape[1])
        return original(slots, shifts)

    amounts, original = [], Slots.moved
    monkeypatch.setattr(Slots, "moved", moved)
    monkeypatch.setattr("fastgrad.tracing.kinks.MAX_DIRECT", 0)  # as in a larger net
    result = traced.traced_gradient(f, W, H)
    assert abs(result - loop.gradient(f, W, H)).max() <= 4 * EPS * f(W) / H
    assert 2 <= kinks[0] <= 41  # the other kink is passed by all units of its row
    shifts = 2 * (30 + 1) + 1
    assert sum(amounts) <= (3 + 2 * np.ceil(np.log2(shifts / 2)) if is_straight else shifts)


HIDDEN_LAYERS = {
    "relu": lambda z, V: relu(z @ V),
    "leaky": lambda z, V: np.where(z @ V > 0, z @ V, 0.1 * (z @ V)),
    "beside itself": lambda z, V: z + np.maximum(z @ V, 0) / 2,
    "transposed": lambda z, V: np.clip(-(V.T @ z.T), 0, 9).T,
    "pairs": lambda z, V: np.repeat((z @ V).reshape(len(z), -1, 2).max(axis=2), 2, axis=1),
    "centred": lambda z, V: abs(z @ V) - (z @ V).mean(axis=1, keepdims=True),
}


@pytest.mark.parametrize("name", HIDDEN_LAYERS)
def test_what_moves_in_proportion_is_the_loops_and_the_exact_quotients(name, monkeypatch):
    random = np.random.default_rng(7)
    layer, shapes = HIDDEN_LAYERS[name], [(12, 10), (10, 10), (10, 10), (10, 4)]
    X, t = random.random((30, 12)), random.integers(0, 4, 30)
    weights = [random.normal(size=shape) for shape in shapes]
    U = weights[1:]

    def f(W):
        z = layer(layer(X @ W, U[0]), U[1]) @ U[2]
        e = np.exp(z - z.max(axis=1, keepdims=True))
        return -np.mean(np.log(e[np.arange(30), t] / e.sum(axis=1)))

    def note(*arguments):
        ends.append(original(*arguments))
        return ends[-1]

    ends, original = [], smoothness._straight_end
    monkeypatch.setattr(smoothness, "_straight_end", note)
    W, unit = weights[0], EPS * f(weights[0]) / H
    result = traced.traced_gradient(f, W, H)
    assert ends[0] is not None
    assert ends[0].shape == (30, 4)
    monkeypatch.setattr(smoothness, "_straight_end", lambda *_: None)
    assert abs(result - traced.traced_gradient(f, W, H)).max() <= unit
    assert abs(result - loop.gradient(f, W, H)).max() <= 4 * unit
    if nets.IS_EXTENDED:
        X, U = X.astype(np.longdouble), [V.astype(np.longdouble) for V in U]
        for place in np.ndindex(W.shape):
            move = np.zeros(W.shape, np.longdouble)
            move[place] = H
            assert abs((f(W + move) - f(W - move)) / (2 * move[place]) - result[place]) <= unit


@pytest.mark.parametrize("is_above", [np.greater, np.greater_equal])
def test_a_unit_that_stands_at_a_jump_is_on_its_side_of_it(kinks, is_above):
    random = np.random.default_rng(2)
    X, W, b = random.random((20, 30)), random.normal(size=(30, 8)), np.zeros((20, 8))
    U = random.normal(size=(8, 3))
    b[3, 5] = -(X @ W)[3, 5]
    b[9, 2] = 0.3 * H * X[9].max() - (X @ W)[9, 2]

    def f(W):
        a = X @ W + b
        return np.mean((np.where(is_above(a, 0), a + 1e-3, a) @ U) ** 2)

    result = traced.traced_gradient(f, W, H)
    assert abs(result - loop.gradient(f, W, H)).max() <= 4 * EPS * f(W) / H
    assert kinks == [2]


@pytest.mark.parametrize("name", ["book W1", "sigmoid layers", "einsum", "slices of one vector"])
def test_smooth_nets_are_nowhere_near_a_kink(name, kinks):
    traced.traced_gradient(*nets.CASES[name](), H)
    assert not kinks


# The bounds --------------------------------------------------------------------------------------


class NothingNonSmooth:
    size = (1, 1)


@REPEATABLE
@given(count=st.integers(2, 40), seed=st.integers(0, 1000))
def test_polynomials_exceed_what_is_measured_by_no_more_than_the_factor(count, seed):
    n = 2 * count
    points = np.cos(np.arange(n + 1) * np.pi / n)
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], n + 1)
    if seed % 2:  # the worst: signs that alternate, but for a repetition in the middle
        signs = (-1.0) ** np.arange(n + 1) * np.where(np.arange(n + 1) > count, -1, 1)
    coefficients = np.polynomial.chebyshev.chebfit(points, signs, n)
    fine = np.polynomial.chebyshev.chebval(np.linspace(-1, 1, 50 * n), coefficients)
    assert abs(fine).max() <= SmoothnessMonitor(NothingNonSmooth(), count).factor * (1 + 1e-9)


def test_the_shifts_that_are_measured_are_chebyshevs():
    for largest, terms in [(1.0, 2), (1.0, 5), (255.0, 2), (37.0, 3)]:
        points = unit_responses._points(largest, terms)
        n = 2 * len(points)
        expected = np.cos(np.arange(n + 1) * np.pi / n)
        np.testing.assert_allclose([*points, 0, *-points[::-1]], expected, atol=1e-15)


FUNCTIONS = {
    function.__name__: function
    for function in vars(np).values()
    if isinstance(function, np.ufunc) and function.signature is None
    if {"d->d", "dd->d", "d->?", "dd->?"} & set(function.types)
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_numpy_are_known_or_count_as_nowhere_smooth(name):
    recording = Recording()
    x = recording.start(np.array([0.3, 0.4]))
    with np.errstate(all="ignore"):
        node = FUNCTIONS[name](*[x, x + 1][: FUNCTIONS[name].nin]).node
    found = list(smoothness.margins(node))
    assert bool(found) != (name in smoothness.SMOOTH_FUNCTIONS)
    for margin in found:
        assert margin.distance.shape == margin.quantity.shape == node.shape
        if name in ("hypot", "arctan2", "heaviside", "tan", "arcsin", "spacing", "nextafter"):
            assert (margin.distance == 0).all()
