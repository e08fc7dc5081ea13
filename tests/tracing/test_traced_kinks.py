"""Kinks within a step, and samples that mix, are differenced as the loop does it."""

from functools import partial

import looped
import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from looped import size_of
from nets import EPS, H
from pairwise import pairwise

from fastgrad import numerical_gradient
from fastgrad.engines import loop, selection
from fastgrad.tracing import kinks

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=60)


pytestmark = pytest.mark.usefixtures("no_certificate")


@pytest.fixture(autouse=True, scope="module")
def as_in_large_nets():
    """Look for what moves in proportion, in nets so small that this does not pay."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kinks, "MAX_DIRECT", 0)
        yield


assert_the_loops = partial(looped.assert_the_loops, engine="traced")


SCALES = (1.0, 255.0)
"""Inputs are at most so large: as fractions, and as raw pixels."""

# Kinks -------------------------------------------------------------------------------------------


def scaled_in_place(a):
    y = a.copy()
    y[a <= 0] *= 0.1
    return y


def exponential_by_mask(a):
    y = np.copy(a)
    negative = y <= 0
    y[negative] = 0.5 * (np.exp(y[negative]) - 1)
    return y


def by_both_masks(a):
    y = np.zeros_like(a)
    positive = a > 0
    y[positive] = a[positive] ** 2 + a[positive]
    y[~positive] = np.sin(-a[~positive])
    return y


KINKED = {
    "scaled in place": scaled_in_place,
    "exponential by mask": exponential_by_mask,
    "by both masks": by_both_masks,
    "maximum": lambda a: np.maximum(a, 0),
    "where": lambda a: np.where(a > 0, a, 0),
    "mask product": lambda a: a * (a > 0),
    "leaky": lambda a: np.where(a > 0, a, 0.1 * a),
    "clip": lambda a: np.clip(a, 0, 1),
    "abs": np.abs,
    "jump": lambda a: np.where(a > 0, a + 1, a),
    "curved": lambda a: np.where(a > 0, np.tanh(a), np.sin(3 * a)),
}


def layer_at_kinks(activation, places, *, seed=0, samples=10, units=30, summed=False, scale=1.0):
    """Return a layer some of whose pre-activations are at fractions of the largest shift.

    Parameters
    ----------
    places : list of (sample, unit, fraction)
        Where the pre-activation is `fraction` times h times the sample's largest input.
    summed : bool
        Whether the loss sums the activations themselves, or the squares of a further layer.
    """
    random = np.random.default_rng(seed)
    X = scale * random.normal(size=(samples, 7))
    W = random.normal(size=(7, units)) / scale
    b = np.zeros((samples, units))
    for n, j, fraction in places:
        b[n, j] = fraction * H * abs(X[n]).max() - X[n] @ W[:, j]
    V = random.normal(size=(units, 3))

    def loss(W):
        z = activation(np.dot(X, W) + b)
        return np.sum(z * z + z) if summed else np.mean((z @ V) ** 2)

    return loss, W


FRACTIONS = [-0.999, -0.6, -0.1, 0.0, 1e-9, 0.5, 0.9999]


@pytest.mark.parametrize(
    ("activation", "fraction", "summed", "scale"),
    pairwise(KINKED, FRACTIONS, [True, False], SCALES),
)
def test_a_single_kink_within_the_step_is_seen(activation, fraction, summed, scale):
    f, x = layer_at_kinks(
        KINKED[activation], [(4, 17, fraction)], summed=summed, scale=scale, units=40
    )
    # Of the loss, which is a sum of squares of both signs' terms, no more than this is rounded.
    assert_the_loops(f, x, size=2 * size_of(f, x))


@REPEATABLE
@given(
    activation=st.sampled_from(list(KINKED)),
    places=st.lists(
        st.tuples(st.integers(0, 9), st.integers(0, 29), st.floats(-1.1, 1.1)),
        min_size=1,
        max_size=12,
        unique_by=lambda place: place[:2],
    ),
    seed=st.integers(0, 100),
    summed=st.booleans(),
    scale=st.sampled_from([1.0, 30.0]),
)
def test_kinks_anywhere_are_seen(activation, places, seed, summed, scale):
    f, x = layer_at_kinks(KINKED[activation], places, seed=seed, summed=summed, scale=scale)
    assert_the_loops(f, x, size=2 * size_of(f, x))


@pytest.mark.parametrize("fraction", [0.5, 0.99, 0.9999, 0.99999, -0.9999])
def test_a_kink_is_seen_beside_a_unit_that_rests_on_its_own(fraction):
    random = np.random.default_rng(1)
    X, W, V = (random.normal(size=shape) for shape in [(6, 8), (8, 40), 40])
    W[:, 0] = 0  # so that the unit is at the kink of every sample, exactly
    b = np.zeros(40)
    n = np.argmax(abs(X).max(axis=1))
    b[1] = fraction * H * abs(X).max() - X[n] @ W[:, 1]
    assert_the_loops(lambda W: np.mean((np.maximum(np.dot(X, W) + b, 0) @ V) ** 2), W)


@pytest.mark.parametrize("activation", KINKED)
def test_weights_of_zero_leave_every_unit_at_its_kink(activation):
    random = np.random.default_rng(2)
    X, V = random.normal(size=(6, 8)), random.normal(size=(20, 3))
    W = np.zeros((8, 20))
    act = KINKED[activation]

    def loss(W):
        z = act(np.dot(X, W)) + W.sum(axis=0)  # for what is even would have a quotient of 0
        return 1 + np.mean(z @ V + (z @ V) ** 2)

    assert_the_loops(loss, W, size=10)


def test_pixels_of_zero_leave_the_blank_samples_at_their_kinks():
    random = np.random.default_rng(3)
    X = random.random((12, 9)) * (random.random((12, 9)) < 0.2)
    X[3] = 0
    W, V = random.normal(size=(9, 20)), random.normal(size=(20, 4))
    b = np.zeros(20)
    for x in (W, b):
        assert_the_loops(lambda _: np.mean((np.maximum(X @ W + b, 0) @ V) ** 2), x)


def test_pixels_that_are_blank_in_the_whole_batch_move_nothing_where_rows_mix():
    random = np.random.default_rng(3)
    X = random.random((12, 9)) * [1, 0, 1, 1, 0, 1, 0, 1, 1]
    W, V = random.normal(size=(9, 20)), random.normal(size=(20, 4))

    def f(W):
        a = X @ W
        a = (a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-6)
        return np.mean((np.maximum(a, 0) @ V - X[:, :4]) ** 2)

    gradient = assert_the_loops(f, W)
    assert not gradient[[1, 4, 6]].any()


def test_a_hinge_by_where_is_seen_just_below_its_kink():
    random = np.random.default_rng(4)
    X, W = random.normal(size=(40, 8)), random.normal(size=(8, 20))
    for fraction in (-0.95, -0.8, -0.6, -0.4, 0.6):
        n, j = int(np.argmax(abs(X).max(axis=1))), 3
        b = np.zeros(20)
        b[j] = fraction * H * abs(X).max() - (X @ W)[n, j]

        def loss(W, b=b):
            margin = np.dot(X, W) + b
            return np.sum(np.where(margin > 0, margin, 0))

        assert_the_loops(loss, W)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("activation", KINKED)
def test_kinks_among_hundreds_of_inputs_are_seen(activation, scale):
    random = np.random.default_rng(5)
    X = scale * random.random((6, 200)) * (random.random((6, 200)) < 0.7)
    W = random.normal(size=(200, 40)) / scale / 7
    V, t = random.normal(size=(40, 4)), random.normal(size=(6, 4))
    b, a = np.zeros((6, 40)), X @ W
    columns = [3, 8, 21]
    for n, j in enumerate(columns):
        b[n, j] = random.uniform(-1, 1) * H * X[n].max() - a[n, j]

    def loss(W):
        return np.mean((KINKED[activation](np.dot(X, W) + b) @ V - t) ** 2)

    result = numerical_gradient(loss, W, engine="traced")
    places = [40 * i + j for i in range(0, 200, 3) for j in columns]
    expected = loop.gradient(loss, W, H, places)
    deviation = np.abs(result - expected).ravel()[places]
    assert deviation.max() <= 4 * EPS * size_of(loss, W) / H
    assert np.abs(expected).max() > 0.01 * scale


@pytest.mark.parametrize(
    ("scale", "width"),
    [
        (1.0, 3e-6),
        (255.0, 1e-3),
    ],
)
@pytest.mark.parametrize("shape", ["triangle", "box"])
def test_features_narrower_than_the_largest_shift_are_seen(shape, scale, width):
    """As of fuzzy sets, and of histograms, whose bins are passed by in a step."""
    random = np.random.default_rng(6)
    X = scale * random.random((6, 200))
    W = random.normal(size=(200, 40)) / scale / 7
    V, t = random.normal(size=(40, 4)), random.normal(size=(6, 4))
    b, a = np.zeros((6, 40)), X @ W
    columns = [3, 8, 21, 30, 39]
    for n, j in enumerate(columns):
        b[n, j] = 0.3 + (0.2 + 0.1 * n) * H * X[n].max() - a[n, j]

    def loss(W):
        a = np.dot(X, W) + b
        distance = abs(a - 0.3) / width
        feature = np.maximum(0, 1 - distance) if shape == "triangle" else 1.0 * (distance < 1)
        return np.mean(((a + feature) @ V - t) ** 2)

    result = numerical_gradient(loss, W)  # traced or not
    places = [40 * i + j for i in range(200) for j in columns]
    expected = loop.gradient(loss, W, H, places)
    deviation = np.abs(result - expected).ravel()[places]
    # What is rounded in a is divided by the width.
    assert deviation.max() <= 4 * EPS * size_of(loss, W) / min(H, width * H)


# Samples that mix --------------------------------------------------------------------------------

MIXTURES = {
    "batch normalisation": lambda a: (a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-6),
    "mean of all": lambda a: a - a.mean(),
    "largest sample": lambda a: a / (1 + abs(a).max()),
    "largest but nan": lambda a: a - np.fmax.reduce(a, axis=0),
    "softmax over samples": lambda a: np.exp(a) / np.exp(a).sum(axis=0),
    "Gram matrix": lambda a: np.tanh(a @ a.T) @ a,
    "next sample": lambda a: a * np.roll(a, 1, axis=0),
    "first sample": lambda a: a * a[0],
    "one pair": lambda a: np.concatenate([a[:4], a[4:5] * a[9:10], a[5:]]),
    "reversed": lambda a: np.tanh(a) * a[::-1],
    "sorted samples": lambda a: np.sort(a, axis=0) * np.arange(len(a))[:, np.newaxis],
    "median": lambda a: a - np.median(a, axis=0),
    "a share of the mean": lambda a: a + 1e-6 * a.mean(axis=0),
    "reshaped": lambda a: a.reshape(-1, 8).cumsum(axis=1).reshape(a.shape),
    "regrouped": lambda a: a.T.reshape(a.shape),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_samples_that_mix_are_replayed_weight_by_weight(name):
    random = np.random.default_rng(7)
    X, W, V = (random.normal(size=shape) for shape in [(12, 7), (7, 18), (18, 3)])
    t = random.normal(size=(12, 3))
    assert_the_loops(lambda W: np.mean((MIXTURES[name](X @ W) @ V - t) ** 2), W)


@pytest.mark.parametrize("distance", [1e-6, 1e-5, 2e-5, 3e-5, 4.5e-5, -1e-5, -4e-5])
@pytest.mark.parametrize("factor", [2.0, 1 + 1e-7])
def test_a_threshold_that_only_whole_batches_cross_is_seen(distance, factor):
    random = np.random.default_rng(8)
    X, W = random.random((40, 8)), random.normal(size=(8, 60))
    threshold = (X @ W).mean(axis=0) + 10
    threshold[3] -= 10 - distance

    def loss(W):
        a = np.dot(X, W)
        gated = np.where(a.mean(axis=0) > threshold, factor * a, a)
        return np.sum(gated**2) / 40

    assert_the_loops(loss, W)


def test_an_outlier_among_the_losses_does_not_hide_that_samples_mix():
    random = np.random.default_rng(9)
    X, W = random.normal(size=(12, 7)), random.normal(size=(7, 18))
    weights = np.where(np.arange(12) == 5, 1e9, 1.0)

    def loss(W):
        a = np.tanh(X @ W)
        return np.sum(weights * ((a - 1e-3 * np.fmax.reduce(a, axis=0)) ** 2).sum(axis=1))

    assert_the_loops(loss, W)


def test_batch_normalisation_layers_are_served_and_keep_plain_running_means():
    random = np.random.default_rng(10)
    X, t = random.random((12, 7)), np.eye(4)[random.integers(0, 4, 12)]
    affine = nets.Affine(random.normal(size=(7, 18)), np.zeros(18))
    norm, V = nets.BatchNorm(18), random.normal(size=(18, 4))

    def loss(_):
        z = np.maximum(norm.forward(affine.forward(X)), 0)
        return nets.cross_entropy_error(nets.softmax(z @ V), t)

    for x in (affine.W, norm.gamma, norm.beta):
        if x.size >= selection.MIN_TRACED_ELEMENTS:
            assert_the_loops(loss, x)
        else:
            assert_the_loops(loss, x, engine="auto")
        assert type(norm.running_mean) is np.ndarray
        assert type(affine.x) is np.ndarray
