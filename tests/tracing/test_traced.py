"""Are traced gradients the loop's, to its round-off, for nets as learners write them?"""

import itertools
import warnings

import hypothesis.extra.numpy as hnp
import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import EPS, H
from pairwise import pairwise

from fastgrad import numerical_gradient
from fastgrad.engines import loop, selection, traced
from fastgrad.tracing import first_calls

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=60)


@pytest.fixture(autouse=True, scope="module")
def _no_luck():
    """Measure the analysis alone: the certificate would mend its defects."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traced, "CERTIFY", False)
        yield


def size_of(f, x):
    """Return what rounding is relative to: the loss, or what it is summed from."""
    return abs(float(f(x)))


def assert_the_loops(f, x, *, h=H, size=None, engine="traced"):
    """Check every element against the loop, to both sides' round-off."""
    before = x.tobytes("A")
    result = numerical_gradient(f, x, h, engine=engine)
    assert x.tobytes("A") == before
    expected = loop.gradient(f, x, h)
    assert x.tobytes("A") == before
    assert (result.shape, result.dtype, result.strides) == (x.shape, x.dtype, expected.strides)
    bound = 4 * EPS * (size_of(f, x) if size is None else size) / h
    deviation = np.abs(result - expected)
    assert deviation.max() <= bound, f"{deviation.max() / bound:.3g} times the bound"
    # The test must be able to fail: gradients are not lost in the bound.
    assert np.abs(expected).max() > 1e3 * bound
    return result


def exact_quotient(f, x, h):
    """Return the quotient of f with longdouble arguments; f must compute in their type."""
    values = x.astype(np.longdouble)
    flat = values.reshape(-1)
    result = np.empty(x.shape, np.longdouble)
    for i in range(x.size):
        old = flat[i]
        flat[i] = old + np.longdouble(h)
        above = f(values)
        flat[i] = old - np.longdouble(h)
        below = f(values)
        flat[i] = old
        result.reshape(-1)[i] = (above - below) / (2 * np.longdouble(h))
    return result


# Styles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", nets.CASES)
def test_nets_in_every_style_are_traced_to_the_loops_round_off(name):
    f, x = nets.CASES[name]()
    assert_the_loops(f, x)


SCALES = (1.0, 255.0)
"""Inputs are at most so large: as fractions, and as raw pixels."""


@pytest.mark.parametrize(
    ("activation", "loss", "scale"),
    pairwise(nets.ACTIVATIONS, ["mean of squares", "book's cross entropy"], SCALES),
)
def test_every_activation_is_traced_for_small_and_for_raw_inputs(activation, loss, scale):
    assert_the_loops(*nets.one_layer(nets.ACTIVATIONS[activation], nets.LOSSES[loss], 3, scale))


@pytest.mark.parametrize(
    ("loss", "activation", "scale"),
    pairwise(nets.LOSSES, ["identity", "tanh", "maximum", "softsign"], SCALES),
)
def test_every_loss_is_traced_for_small_and_for_raw_inputs(loss, activation, scale):
    assert_the_loops(*nets.one_layer(nets.ACTIVATIONS[activation], nets.LOSSES[loss], 4, scale))


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        *((name, "mean of squares") for name in nets.SMOOTH),
        *(("tanh", name) for name in nets.SMOOTH_LOSSES),
    ],
)
def test_the_exact_quotient_is_missed_by_less_than_the_loops_round_off(activation, loss, scale):
    f, x = nets.one_layer(nets.ACTIVATIONS[activation], nets.LOSSES[loss], 5, scale)
    result = numerical_gradient(f, x, engine="traced")
    exact = exact_quotient(f, x, H)
    assert exact.dtype == np.longdouble
    # Where samples mix, whole losses are subtracted, as in the loop.
    factor = 4 if loss in nets.MIXING_LOSSES else 1
    assert np.abs(result - exact).max() <= factor * EPS * size_of(f, x) / H


@pytest.mark.skipif(np.finfo(np.longdouble).eps > EPS / 100, reason="longdouble is float64 here")
@pytest.mark.parametrize("loss", ["mean of squares", "book's cross entropy"])
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "maximum", "where", "abs"])
def test_what_it_deviates_from_the_loop_by_is_the_loops_own_error(activation, loss):
    f, x = nets.one_layer(nets.ACTIVATIONS[activation], nets.LOSSES[loss], 5)
    result, looped = numerical_gradient(f, x, engine="traced"), loop.gradient(f, x, H)
    exact = loop.gradient(f, x.astype(np.longdouble), H)
    assert exact.dtype == np.longdouble
    error, error_of_the_loop = abs(result - exact).max(), abs(looped - exact).max()
    # The loop subtracts sums over 11 samples. What it rounds, each sample rounds to its own part.
    assert error <= error_of_the_loop / 2
    assert abs(abs(result - looped).max() - error_of_the_loop) <= error


@pytest.mark.parametrize("h", [1e-1, 1e-2, 1e-3, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("activation", ["tanh", "maximum", "clip", "softmax"])
def test_other_steps_are_served(activation, h):
    loss = nets.LOSSES["mean of squares"]
    assert_the_loops(*nets.one_layer(nets.ACTIVATIONS[activation], loss, 6), h=h)


# Kinks -------------------------------------------------------------------------------------------

KINKED = {
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


# Convolution -------------------------------------------------------------------------------------


def im2col(images, height, width, stride=1, pad=0):
    N, C, H, W = images.shape
    out_h = (H + 2 * pad - height) // stride + 1
    out_w = (W + 2 * pad - width) // stride + 1
    img = np.pad(images, [(0, 0), (0, 0), (pad, pad), (pad, pad)], "constant")
    col = np.zeros((N, C, height, width, out_h, out_w))
    for y in range(height):
        for x in range(width):
            col[:, :, y, x] = img[
                :, :, y : y + stride * out_h : stride, x : x + stride * out_w : stride
            ]
    return col.transpose(0, 4, 5, 1, 2, 3).reshape(N * out_h * out_w, -1)


class ConvolutionalNet:
    def __init__(self, stride=1, pad=0):
        random = np.random.default_rng(11)
        side = ((6 + 2 * pad - 3) // stride + 1) // 2
        self.stride, self.pad = stride, pad
        self.params = {
            "W1": random.normal(size=(4, 2, 3, 3)),
            "b1": random.normal(size=4),
            "W2": random.normal(size=(4 * side * side, 5)),
        }

    def loss(self, images, t):
        W1, b1 = self.params["W1"], self.params["b1"]
        N, _, H, W = images.shape
        out_h = (H + 2 * self.pad - 3) // self.stride + 1
        out_w = (W + 2 * self.pad - 3) // self.stride + 1
        col = im2col(images, 3, 3, self.stride, self.pad)
        self.col = col
        out = np.dot(col, W1.reshape(4, -1).T) + b1
        out = out.reshape(N, out_h, out_w, -1).transpose(0, 3, 1, 2)
        out = np.maximum(out, 0)
        half_h, half_w = out_h // 2, out_w // 2
        pooled = im2col(out[:, :, : 2 * half_h, : 2 * half_w], 2, 2, 2).reshape(-1, 4)
        pooled = np.max(pooled, axis=1).reshape(N, half_h, half_w, 4).transpose(0, 3, 1, 2)
        flat = pooled.reshape(N, -1)
        return nets.cross_entropy_error(nets.softmax(flat @ self.params["W2"]), t)


@pytest.mark.parametrize(("stride", "pad"), [(1, 0), (1, 1), (2, 1)])
def test_convolution_by_im2col_is_traced(stride, pad):
    net = ConvolutionalNet(stride, pad)
    images = np.random.default_rng(12).random((3, 2, 6, 6))
    for key in ("W1", "W2"):
        assert_the_loops(lambda _: net.loss(images, np.array([0, 4, 2])), net.params[key])
        assert type(net.col) is np.ndarray


def test_a_stack_of_small_matrices_is_traced():
    random = np.random.default_rng(13)
    Q, K = random.normal(size=(3, 5, 6)), random.normal(size=(6, 10))
    V = random.normal(size=(3, 5, 10))

    def loss(K):
        keys = Q @ K
        scores = keys @ V.transpose(0, 2, 1)
        return np.mean(nets.softmax_by_keepdims(scores) ** 2)

    assert_the_loops(loss, K)


# Inputs, layouts and types -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda random: random.random((9, 7)).astype(np.float32),
        lambda random: random.integers(0, 256, (9, 7)).astype(np.uint8),
        lambda random: random.integers(-3, 4, (9, 7)),
        lambda random: random.random((9, 7)) < 0.5,
        lambda random: np.eye(7)[random.integers(0, 7, 9)],
        lambda random: np.where(random.random((9, 7)) < 0.5, -1.0, 1.0),
        lambda random: np.zeros((9, 7)),
        lambda random: np.where(np.arange(9)[:, np.newaxis] == 4, 0, random.random((9, 7))),
        lambda random: np.asfortranarray(random.random((9, 7))),
        lambda random: random.random((18, 14))[::-2, ::2],
        lambda random: -random.random((9, 7)),
        lambda random: random.random((9, 7)) * 10.0 ** np.arange(-3, 4),
        lambda random: np.repeat(random.random((1, 7)), 9, axis=0),
    ],
    ids=[
        "float32", "pixels", "integers", "bools", "one-hot", "signs", "zeros", "a blank sample",
        "Fortran", "strided", "negative", "of all sizes", "equal samples",
    ],
)  # fmt: skip
def test_inputs_of_any_kind_are_served(make):
    random = np.random.default_rng(14)
    X = make(random)
    W, V = random.normal(size=(7, 12)) / max(1, abs(X.astype(float)).max()), random.normal(size=12)
    b = random.normal(size=12)
    for act in (np.tanh, lambda a: np.maximum(a, 0)):
        f = lambda W, act=act: 1 + np.mean((act(np.dot(X, W) + b) @ V) ** 2)  # noqa: E731
        result = numerical_gradient(f, W, engine="traced")
        expected = loop.gradient(f, W, H)
        assert np.abs(result - expected).max() <= 4 * EPS * size_of(f, W) / H


def test_samples_of_nan_that_are_masked_out_do_no_harm():
    random = np.random.default_rng(15)
    X, W = random.normal(size=(9, 7)), random.normal(size=(7, 12))
    X[3] = np.nan
    valid = ~np.isnan(X).any(axis=1, keepdims=True)
    assert_the_loops(lambda W: np.sum(np.where(valid, np.tanh(X @ W), 0) ** 2), W)


@pytest.mark.usefixtures("_eager")
@pytest.mark.parametrize("size", [1e3, 1e6, 1e30, 1e300])
def test_a_sample_of_huge_inputs_spoils_no_other(size):
    random = np.random.default_rng(16)
    X, W = random.normal(size=(9, 7)), random.normal(size=(7, 12))
    X[3] *= size
    f = lambda W: np.sum(np.tanh(X @ W) ** 2)  # noqa: E731
    result = numerical_gradient(f, W)  # traced or not
    expected = loop.gradient(f, W, H)
    assert np.abs(result - expected).max() <= 4 * EPS * size_of(f, W) / H


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda W: W.T.copy().T,
        lambda W: W[::-1, ::-1],
        lambda W: np.repeat(np.repeat(W, 2, 0), 3, 1)[::2, 1::3],
        lambda W: np.concatenate([W, W], axis=1)[:, 3 : 3 + W.shape[1]],
        lambda W: np.stack([W, W])[1],
    ],
    ids=["Fortran", "transposed", "reversed", "strided", "columns", "row"],
)
@pytest.mark.parametrize("f", [
    lambda W: np.mean(np.tanh(nets.INPUT @ W) ** 2),
    lambda W: np.sum(W**2) + np.sum(np.sin(W)),
], ids=["stage", "penalty"])  # fmt: skip
def test_layouts_of_x_are_kept(layout, f):
    assert_the_loops(f, layout(nets.two_layers()["W1"]))


@pytest.mark.parametrize("shape", [(), (1,), (60,), (1, 60), (60, 1), (3, 4, 5), (2, 3, 2, 5)])
def test_arrays_of_any_number_of_axes_are_served(shape):
    x = np.random.default_rng(17).normal(size=shape)
    assert_the_loops(lambda x: np.sum(np.exp(x)) + np.mean(x**2), x)


def test_types_that_the_engine_does_not_know_go_to_the_loop(tmp_path):
    class Kind(np.ndarray):
        pass

    values = nets.two_layers()["W1"]
    mapped = np.memmap(tmp_path / "weights", values.dtype, "w+", shape=values.shape)
    mapped[...] = values
    f = lambda W: np.mean(np.tanh(nets.INPUT @ W) ** 2)  # noqa: E731
    for x in [values.view(Kind), mapped, values.astype(np.float32), values.astype(">f8"),
              values.astype(np.longdouble)]:  # fmt: skip
        result = numerical_gradient(f, x)
        expected = loop.gradient(f, x, H)
        assert type(result) is type(expected)
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(result, expected)
        with pytest.raises(ValueError, match="x is not a plain float64 array"):
            numerical_gradient(f, x, engine="traced")


def test_a_float32_net_of_float64_weights_agrees_with_its_own_loop():
    X = nets.INPUT.astype(np.float32)
    W = nets.two_layers()["W1"]
    f = lambda W: np.mean(np.tanh((X @ W).astype(np.float32)) ** 2)  # noqa: E731
    result = numerical_gradient(f, W)  # traced or not
    deviation = np.abs(result - loop.gradient(f, W, H))
    assert deviation.max() <= 4 * np.finfo(np.float32).eps * size_of(f, W) / H


# Random nets -------------------------------------------------------------------------------------


@st.composite
def random_nets(draw):
    """A net of one to three layers, and one of its parameters."""
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    widths = draw(st.lists(st.integers(1, 9), min_size=2, max_size=4))
    samples = draw(st.integers(1, 9))
    names = ["identity", "sigmoid", "tanh", "maximum", "where", "leaky where", "clip", "softmax"]
    activations = [draw(st.sampled_from(names)) for _ in widths[1:]]
    scale = draw(st.sampled_from([1e-3, 1.0, 20.0]))
    rows = draw(st.booleans())
    decay = draw(st.sampled_from([0, 0.1]))
    mixed = draw(st.sampled_from([False, False, True]))
    X = scale * random.normal(size=(samples, widths[0])).round(draw(st.sampled_from([0, 15])))
    weights = [random.normal(size=pair) for pair in itertools.pairwise(widths)]
    biases = [random.normal(size=width) for width in widths[1:]]
    if not rows:
        weights = [W.T.copy() for W in weights]
    t = random.normal(size=(samples, widths[-1]))

    def loss(_):
        z = X
        for W, b, name in zip(weights, biases, activations, strict=True):
            a = np.dot(z, W) + b if rows else (W @ z.T + b[:, np.newaxis]).T
            z = nets.ACTIVATIONS[name](a)
            if mixed:
                z = z - 0.1 * z.mean(axis=0)
        penalty = decay * sum(np.sum(W**2) for W in weights)
        return 1 + np.mean(np.sum((z - t) ** 2, axis=1)) + penalty

    return loss, draw(st.sampled_from([*weights, *biases]))


@REPEATABLE
@given(net=random_nets())
def test_random_nets_agree_with_the_loop(net):
    f, x = net
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = numerical_gradient(f, x, engine="traced")
    expected = loop.gradient(f, x, H)
    assert np.abs(result - expected).max() <= 4 * EPS * size_of(f, x) / H


@REPEATABLE
@given(
    x=hnp.arrays(np.float64, (3, 4), elements=st.floats(-3, 3)),
    power=st.integers(1, 4),
    constant=st.floats(-2, 2),
)
def test_polynomials_of_the_elements_agree_with_the_loop(x, power, constant):
    f = lambda x: np.sum(x**power) * 2 - constant * x.mean() + (x[0] @ x[1]) / 4 + 1  # noqa: E731
    # Terms of both signs are rounded before they are added up.
    size = 2 * np.sum(abs(x) ** power) + abs(constant) * 3 + 9 * 4 + 1
    result = numerical_gradient(f, x, engine="traced")
    assert np.abs(result - loop.gradient(f, x, H)).max() <= 4 * EPS * size / H


# How much is computed ----------------------------------------------------------------------------


class Counted:
    """Counts the calls of a function, in a way that does not change it."""

    def __init__(self, f):
        self.f = f
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return self.f(x)


@pytest.fixture
def _eager(monkeypatch):
    """Let auto trace functions that are cheap, as those of tests are."""
    monkeypatch.setattr(first_calls, "MIN_TRACING_SECONDS", 0.0)


@pytest.mark.usefixtures("_eager")
def test_few_calls_serve_an_array_of_any_size(monkeypatch):
    monkeypatch.setattr(traced, "CERTIFY", True)
    for size in (60, 6000):
        W = np.random.default_rng(18).normal(size=(6, size // 6))
        X = np.random.default_rng(19).random((5, 6))
        f = Counted(lambda W, X=X: np.mean(np.tanh(X @ W) ** 2))
        numerical_gradient(f, W)
        # Two plain calls; a recorded one, of which nothing remains; four for the certificate, and
        # two of one element if that is not enough.
        assert 2 + 4 <= f.calls <= 2 + 4 + 2


@pytest.mark.usefixtures("_eager")
def test_small_arrays_are_left_to_the_loop_by_auto():
    x = np.random.default_rng(20).normal(size=selection.MIN_TRACED_ELEMENTS - 1)
    f = Counted(lambda x: np.sum(x**3))
    result = numerical_gradient(f, x)
    assert f.calls == 2 * x.size
    assert result.tobytes() == loop.gradient(f, x, H).tobytes()
    f = Counted(lambda x: np.sum(x**3))
    numerical_gradient(f, np.append(x, 1.0))
    assert f.calls < x.size


def test_functions_that_are_called_quickly_are_left_to_the_loop_by_auto(monkeypatch):
    monkeypatch.setattr(
        first_calls, "MIN_TRACING_SECONDS", 1.0
    )  # more than all calls together are taken to last
    x = np.random.default_rng(20).normal(size=2 * selection.MIN_TRACED_ELEMENTS)
    f = lambda x: np.sum(x**3)  # noqa: E731
    assert numerical_gradient(f, x).tobytes() == loop.gradient(f, x, H).tobytes()


@pytest.mark.usefixtures("_eager")
def test_auto_gives_the_traced_engines_gradient_where_it_can():
    f, x = nets.CASES["book W1"]()
    result = numerical_gradient(f, x)
    assert result.tobytes() == numerical_gradient(f, x, engine="traced").tobytes()
    assert result.tobytes() != loop.gradient(f, x, H).tobytes()


@pytest.mark.usefixtures("_eager")
@pytest.mark.parametrize("offset", [1.0, 1e6])
def test_a_large_constant_in_the_loss_is_no_reason_to_refuse(offset):
    x = 1e-3 * np.random.default_rng(21).normal(size=60)
    f = lambda x: np.sum(x**2) + offset  # noqa: E731
    result = numerical_gradient(f, x, engine="traced")
    # Exact on quadratics, and not rounded to the constant's digits.
    assert np.abs(result - 2 * x).max() <= 4 * EPS * offset / H


@pytest.mark.parametrize("batch", [1, 50, 1000])
def test_the_size_of_batches_of_versions_does_not_matter(batch, monkeypatch):
    from fastgrad.tracing import replay, unit_responses

    monkeypatch.setattr(replay, "BATCH_ELEMENTS", batch)
    monkeypatch.setattr(unit_responses, "BATCH_ELEMENTS", batch)
    for name in ("book W1", "relu layers b1", "columns W1", "recurrent", "tied weights"):
        assert_the_loops(*nets.CASES[name]())


def test_warnings_of_numpy_are_not_raised_by_the_replay():
    W = nets.two_layers()["W1"]

    def loss(W):  # 0 * log(0) stays away, but a replay with nan, or of both branches, might warn
        a = np.dot(nets.INPUT, W)
        return np.mean(np.log(np.where(a > 0, a, 1.0)) ** 2) + np.mean(a / (1 + abs(a)))

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_the_loops(loss, W, size=2 * size_of(loss, W))


# Products that cancel, and other types -----------------------------------------------------------


def test_a_component_that_is_moved_far_away_leaves_the_others_their_digits():
    """Of a mixture of narrow Gaussians: each sample's density shrinks by many orders."""
    random = np.random.default_rng(0)
    X = random.uniform(0, 1, 20)
    mu, weights = X + 2e-5 * random.normal(size=20), np.full(20, 0.05)

    def loss(mu):
        densities = np.exp(-0.5 * ((X[:, np.newaxis] - mu) / 2e-5) ** 2)
        return -np.log(densities @ weights + 1e-12).sum()

    assert_the_loops(loss, mu)
    # The same, after a stage of several inputs: few values, and a product behind the densities.
    rows = (abs(X[:, np.newaxis] - X) < 1e-9) * 1.0

    def of_a_stage(mu):
        densities = np.exp(-0.5 * (rows @ mu - 1e-5) ** 2 / 4e-10)
        return -np.log(densities * rows @ weights + 1e-12).sum()

    assert_the_loops(of_a_stage, np.random.default_rng(1).normal(size=20) * 2e-5)


def test_complex_numbers_and_unsigned_integers_are_what_they_are_for_the_loop():
    random = np.random.default_rng(0)
    Z = random.normal(size=(40, 12)) + 0.1j * random.normal(size=(40, 12))
    assert_the_loops(lambda x: ((abs(Z @ x) - 2) ** 2).sum(), random.normal(size=12))
    x = random.uniform(10, 200, 60)
    x[5] = 7.0
    assert_the_loops(lambda x: np.sin(x).sum() + x.astype(np.uint8).sum(), x)
