"""Traced gradients are the loop's, to its round-off, for nets as learners write them."""

import itertools
import warnings
from functools import partial

import hypothesis.extra.numpy as hnp
import layers
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
from fastgrad.engines import loop, selection, traced
from fastgrad.tracing import first_calls

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=60)


pytestmark = pytest.mark.usefixtures("no_certificate")


assert_the_loops = partial(looped.assert_the_loops, engine="traced")


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
    pairwise(layers.ACTIVATIONS, ["mean of squares", "book's cross entropy"], SCALES),
)
def test_every_activation_is_traced_for_small_and_for_raw_inputs(activation, loss, scale):
    assert_the_loops(
        *layers.one_layer(layers.ACTIVATIONS[activation], layers.LOSSES[loss], 3, scale)
    )


@pytest.mark.parametrize(
    ("loss", "activation", "scale"),
    pairwise(layers.LOSSES, ["identity", "tanh", "maximum", "softsign"], SCALES),
)
def test_every_loss_is_traced_for_small_and_for_raw_inputs(loss, activation, scale):
    assert_the_loops(
        *layers.one_layer(layers.ACTIVATIONS[activation], layers.LOSSES[loss], 4, scale)
    )


@pytest.mark.skipif(not nets.IS_EXTENDED, reason="longdouble is float64 here")
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize(
    ("activation", "loss"),
    [
        *((name, "mean of squares") for name in layers.SMOOTH),
        *(("tanh", name) for name in layers.SMOOTH_LOSSES),
    ],
)
def test_the_exact_quotient_is_missed_by_less_than_the_loops_round_off(activation, loss, scale):
    f, x = layers.one_layer(layers.ACTIVATIONS[activation], layers.LOSSES[loss], 5, scale)
    result = numerical_gradient(f, x, engine="traced")
    exact = exact_quotient(f, x, H)
    assert exact.dtype == np.longdouble
    # Where samples mix, whole losses are subtracted, as in the loop.
    factor = 4 if loss in layers.MIXING_LOSSES else 1
    assert np.abs(result - exact).max() <= factor * EPS * size_of(f, x) / H


@pytest.mark.skipif(not nets.IS_EXTENDED, reason="longdouble is float64 here")
@pytest.mark.parametrize("loss", ["mean of squares", "book's cross entropy"])
@pytest.mark.parametrize("activation", ["identity", "sigmoid", "tanh", "maximum", "where", "abs"])
def test_what_it_deviates_from_the_loop_by_is_the_loops_own_error(activation, loss):
    f, x = layers.one_layer(layers.ACTIVATIONS[activation], layers.LOSSES[loss], 5)
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
    loss = layers.LOSSES["mean of squares"]
    assert_the_loops(*layers.one_layer(layers.ACTIVATIONS[activation], loss, 6), h=h)


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


@pytest.mark.usefixtures("cheap_functions_traced")
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
    others = [values.astype(np.longdouble)] if nets.IS_EXTENDED else []
    for x in [values.view(Kind), mapped, values.astype(">f8"), *others]:
        result = numerical_gradient(f, x)
        expected = loop.gradient(f, x, H)
        assert type(result) is type(expected)
        assert result.dtype == x.dtype
        np.testing.assert_array_equal(result, expected)
        with pytest.raises(ValueError, match="x is not a plain array of float64 or float32"):
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
            z = layers.ACTIVATIONS[name](a)
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


@pytest.mark.usefixtures("cheap_functions_traced")
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


@pytest.mark.usefixtures("cheap_functions_traced")
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


@pytest.mark.usefixtures("cheap_functions_traced")
def test_auto_gives_the_traced_engines_gradient_where_it_can():
    f, x = nets.CASES["book W1"]()
    result = numerical_gradient(f, x)
    assert result.tobytes() == numerical_gradient(f, x, engine="traced").tobytes()
    assert result.tobytes() != loop.gradient(f, x, H).tobytes()


@pytest.mark.usefixtures("cheap_functions_traced")
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


@pytest.mark.parametrize("waves", [1.0, 3e3])
def test_noise_is_measured_where_more_than_rounding_of_the_sum_is_missed(waves, monkeypatch):
    """Of waves that are not much longer than the moves, a response is no short polynomial."""
    from fastgrad.tracing import unit_responses

    measured, measure = [], unit_responses._noise
    monkeypatch.setattr(
        unit_responses, "_noise", lambda moves: measured.append(moves) or measure(moves)
    )
    x = nets.two_layers()["W1"]
    # The sine has the rounding of its argument.
    assert_the_loops(lambda W: np.mean(np.sin(waves * (nets.INPUT @ W)) ** 2), x, size=10 * waves)
    assert bool(measured) is (waves > 1)


def test_bits_do_not_depend_on_the_number_of_threads(monkeypatch, threadpools):
    """Neither on that of the replay's, nor of BLAS's."""
    from fastgrad.jit import concurrency
    from fastgrad.tracing import replay

    monkeypatch.setattr(replay, "BATCH_ELEMENTS", 200)
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    monkeypatch.setattr(concurrency, "MIN_SHARED_NUMPY_SECONDS", 0.0)

    def normalised(W):
        a = nets.INPUT @ W
        z = np.maximum((a - a.mean(axis=0)) / np.sqrt(a.var(axis=0) + 1e-6), 0)
        return np.mean(np.tanh(z @ np.outer(np.arange(W.shape[1]), [0.1, -0.2, 0.3])) ** 2)

    cases = [nets.CASES[name]() for name in ("book W1", "relu layers W1", "columns W1")]
    for f, x in [*cases, (normalised, nets.two_layers()["W1"])]:
        bits = set()
        for threads in (1, 2, 5):
            monkeypatch.setattr(concurrency, "core_count", lambda threads=threads: threads)
            bits.add(numerical_gradient(f, x, engine="traced").tobytes())
        assert len(bits) == 1
        assert_the_loops(f, x)
    assert {pool["num_threads"] for pool in threadpools() if pool["user_api"] == "blas"} == {2}


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
