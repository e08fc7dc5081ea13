"""TwoLayerNet is the book's class: parameters, formulas, names, and training."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import EPS, round_off

from fastgrad import TwoLayerNet, reference
from fastgrad.network import response
from fastgrad.network.two_layer_net import ENGINES, check

H = 1e-4
NAMES = ["W1", "b1", "W2", "b2"]
REPEATABLE = settings(derandomize=True, deadline=None, max_examples=30)


@pytest.fixture
def net():
    """Return a small net whose biases are not zero."""
    np.random.seed(3)
    made = TwoLayerNet(6, 5, 4, weight_init_std=0.5)
    made.params["b1"] = np.random.randn(5)
    made.params["b2"] = np.random.randn(4)
    return made


@pytest.fixture
def x():
    return np.random.default_rng(0).random((7, 6))


@pytest.fixture
def labels():
    return np.array([0, 3, 1, 1, 2, 0, 3])


def pickled(net):
    """Return the net as it comes back from a pickle."""
    return pickle.loads(pickle.dumps(net))


def book_of(net):
    """Return the book's net with the same parameters."""
    book = reference.TwoLayerNet(1, 1, 1)
    book.params = {name: values.copy() for name, values in net.params.items()}
    return book


@REPEATABLE
@given(
    sizes=st.tuples(*[st.integers(1, 9)] * 3),
    deviation=st.sampled_from([0.01, 0.0, 2, -1.0, np.float32(0.5)]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_same_seed_gives_the_books_parameters(sizes, deviation, seed):
    np.random.seed(seed)
    book = reference.TwoLayerNet(*sizes, deviation)
    after = np.random.rand()
    np.random.seed(seed)
    net = TwoLayerNet(*sizes, weight_init_std=deviation)
    assert list(net.params) == list(book.params) == NAMES
    for name, values in book.params.items():
        np.testing.assert_array_equal(net.params[name], values)
    assert np.random.rand() == after  # and as many numbers were drawn


def test_sizes_may_be_numpys_whole_numbers():
    net = TwoLayerNet(np.int64(3), np.uint8(2), True)
    assert net.params.shapes == {"W1": (3, 2), "b1": (2,), "W2": (2, 1), "b2": (1,)}


def test_the_arguments_have_the_books_names():
    net = TwoLayerNet(input_size=3, hidden_size=2, output_size=4, weight_init_std=0.1)
    assert net.params.buffer.size == 3 * 2 + 2 + 2 * 4 + 4


@REPEATABLE
@given(
    sizes=st.tuples(*[st.integers(1, 9)] * 4),
    deviation=st.sampled_from([0.01, 1.0, 10.0]),
    seed=st.integers(0, 2**32 - 1),
)
def test_prediction_loss_and_accuracy_are_the_books(sizes, deviation, seed):
    np.random.seed(seed)
    net, samples = TwoLayerNet(*sizes[:3], deviation), sizes[3]
    x = np.random.rand(samples, sizes[0])
    targets = np.eye(sizes[2])[np.random.randint(0, sizes[2], samples)]
    book = book_of(net)
    expected, p = book.predict(x), net.predict(x)
    assert p.shape == expected.shape
    # A probability is rounded as a loss is: by some multiples of eps, relative to its size.
    rounding = 2 * H * round_off(net, x, targets.argmax(axis=1), H, whole=True)
    assert (np.abs(p - expected) <= samples * rounding * np.maximum(expected, EPS)).all()
    assert abs(net.loss(x, targets) - book.loss(x, targets)) <= rounding
    # Two classes may be equally probable but for rounding: the book's choice counts then.
    first_two = np.sort(expected, axis=1)[:, -2:]
    if np.ptp(first_two, axis=1).min() > rounding * samples:
        assert net.accuracy(x, targets) == book.accuracy(x, targets)


def test_the_numerical_gradient_is_the_books(net, x, labels):
    expected = book_of(net).numerical_gradient(x, labels)
    bound = 2 * round_off(net, x, labels, H, whole=True)
    for engine in ENGINES:
        gradient = net.numerical_gradient(x, labels, engine=engine)
        assert list(gradient) == NAMES
        for name, values in expected.items():
            assert gradient[name].shape == values.shape
            assert np.abs(gradient[name] - values).max() <= bound


def test_backpropagation_is_the_books_but_for_the_offset_under_the_logarithm(net, x, labels):
    expected = book_of(net).gradient(x, labels)
    gradient = net.gradient(x, labels)
    assert list(gradient) == NAMES
    # The book's ignores the 1e-7: a factor of p / (p + 1e-7) for each sample. What is left are
    # the roundings of some sums of no more than 7 products.
    p = net.predict(x)[np.arange(7), labels]
    largest = max(np.abs(values).max() for values in expected.values())
    for name, values in expected.items():
        assert np.abs(gradient[name] - values).max() <= (1e-7 / p.min() + 32 * EPS) * largest


def test_backpropagation_is_exact_for_the_loss_with_its_offset(net, x, labels):
    # With a label of probability 1e-7 the offset halves the gradient.
    net.params["b2"][1] = -16.0
    labels[:] = 1
    h = 1e-3
    quotient = net.numerical_gradient(x, labels, h)
    gradient = net.gradient(x, labels)
    # The truncation error is h^2/6 times a third derivative, here below that of 1/4 log(1 + e^s).
    assert np.abs(gradient.buffer - quotient.buffer).max() <= h**2 / 6
    ratio = np.abs(gradient.buffer).max() / max(
        np.abs(values).max() for values in book_of(net).gradient(x, labels).values()
    )
    assert 0.1 < ratio < 0.9


def test_the_quotients_distance_from_the_derivative_shrinks_with_the_square_of_the_step(
    net, x, labels
):
    exact = net.gradient(x, labels).buffer
    steps = np.array([0.08, 0.04, 0.02, 0.01])
    errors = [np.abs(net.numerical_gradient(x, labels, h).buffer - exact).max() for h in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    # Accuracy order 2; the next term of the error is of order h^2 beside it.
    assert abs(slope - 2) <= steps[0] ** 2


@pytest.mark.parametrize("engine", ENGINES)
def test_one_sample_may_be_one_dimensional(net, x, labels, engine):
    batch = net.numerical_gradient(x[:1], labels[:1], engine=engine)
    for t in (labels[0], labels[:1], np.eye(4)[labels[0]], int(labels[0])):
        assert net.numerical_gradient(x[0], t, engine=engine) == batch
    assert net.predict(x[0]).shape == (4,)
    assert net.predict(x[0]).tolist() == net.predict(x[:1])[0].tolist()
    assert net.loss(x[0], labels[0]) == net.loss(x[:1], labels[:1])
    assert net.accuracy(x[0], labels[0]) in (0.0, 1.0)
    assert net.gradient(x[0], labels[0]) == net.gradient(x[:1], labels[:1])


@pytest.mark.parametrize(
    "form",
    [
        lambda t: t[:, np.newaxis],
        lambda t: np.eye(4)[t],
        lambda t: np.eye(4, dtype=np.uint8)[t],
        lambda t: 0.1 + 0.5 * np.eye(4)[t],
        lambda t: t.astype(np.uint8),
        lambda t: t.astype(float),
        lambda t: t.tolist(),
        lambda t: np.repeat(t, 2)[::2],
    ],
    ids=["column", "one-hot", "one-hot bytes", "soft", "bytes", "floats", "list", "strided"],
)
def test_targets_of_any_form_are_the_same(net, x, labels, form):
    t = form(labels)
    assert net.loss(x, t) == net.loss(x, labels)
    assert net.accuracy(x, t) == net.accuracy(x, labels)
    assert net.gradient(x, t) == net.gradient(x, labels)
    for engine in ENGINES:
        expected = net.numerical_gradient(x, labels, engine=engine)
        assert net.numerical_gradient(x, t, engine=engine) == expected


def test_the_articles_soft_targets_are_those_of_its_own_prediction(net, x):
    t = net.predict(x)
    gradient = net.numerical_gradient(x, t)
    assert gradient == net.numerical_gradient(x, t.argmax(axis=1))
    expected = book_of(net).numerical_gradient(x, t)
    bound = 2 * round_off(net, x, t.argmax(axis=1), H, whole=True)
    for name, values in expected.items():
        assert np.abs(gradient[name] - values).max() <= bound


def test_the_articles_spelling_is_an_alias(net, x, labels):
    assert TwoLayerNet.numercial_gradient is TwoLayerNet.numerical_gradient
    assert net.numercial_gradient(x, labels) == net.numerical_gradient(x, labels)


def test_the_step_is_1e_4_unless_given(net, x, labels):
    default = net.numerical_gradient(x, labels)
    for h in (1e-4, np.float64(1e-4)):
        assert net.numerical_gradient(x, labels, h) == default
        assert net.numerical_gradient(x, labels, h=h) == default
    assert net.numerical_gradient(x, labels, 1) != default
    assert net.numerical_gradient(x, labels, 0.5) != default


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8, np.int64, bool, ">f8", "f8"])
def test_samples_of_any_real_dtype_are_computed_in_float64(net, x, labels, dtype, engine):
    values = (3 * x).astype(dtype)
    expected = net.numerical_gradient(values.astype(np.float64), labels, engine=engine)
    assert net.numerical_gradient(values, labels, engine=engine) == expected
    assert net.predict(values).tolist() == net.predict(values.astype(np.float64)).tolist()
    assert net.gradient(values, labels) == net.gradient(values.astype(np.float64), labels)


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=1)[:, ::2],
        lambda x: x[::-1].copy()[::-1],
        lambda x: x.tolist(),
        lambda x: np.broadcast_to(x, (1, *x.shape))[0],
        lambda x: np.frombuffer(b"1" + x.tobytes(), np.float64, offset=1).reshape(x.shape),
        lambda x: x.view(type("Subclass", (np.ndarray,), {})),
    ],
    ids=["Fortran", "strided", "reversed", "list", "read-only", "unaligned", "subclass"],
)
def test_samples_of_any_layout_give_the_same_bits_and_stay_as_they_are(net, x, labels, layout):
    values = layout(x)
    before = copy.deepcopy(values)
    for engine in ENGINES:
        expected = net.numerical_gradient(x, labels, engine=engine)
        assert net.numerical_gradient(values, labels, engine=engine) == expected
    assert net.gradient(values, labels) == net.gradient(x, labels)
    assert net.loss(values, labels) == net.loss(x, labels)
    assert np.array_equal(values, before)


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_that_is_passed_or_kept_is_changed(net, x, labels, engine):
    params, samples, targets = net.params.buffer.tobytes(), x.tobytes(), labels.tobytes()
    net.numerical_gradient(x, labels, engine=engine)
    net.gradient(x, labels)
    net.loss(x, labels)
    assert net.params.buffer.tobytes() == params
    assert (x.tobytes(), labels.tobytes()) == (samples, targets)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_gradient_and_a_prediction_are_new_arrays_every_time(net, x, labels, engine):
    first = net.numerical_gradient(x, labels, engine=engine)
    kept, p = first.copy(), net.predict(x)
    kept_p = p.copy()
    net.numerical_gradient(1 - x, labels, engine=engine)
    net.predict(1 - x)
    net.gradient(1 - x, labels)
    assert first == kept
    assert p.tolist() == kept_p.tolist()
    assert not np.shares_memory(first.buffer, net.params.buffer)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", NAMES)
def test_parameters_changed_in_any_way_count_in_the_next_call(net, x, labels, name, engine):
    values = net.params[name] + 0.25

    def answers(net):
        return [
            net.predict(x).tolist(),
            net.loss(x, labels),
            net.gradient(x, labels),
            net.numerical_gradient(x, labels, engine=engine),
        ]

    fresh = TwoLayerNet(6, 5, 4)
    fresh.params.buffer = net.params.buffer
    fresh.params[name] = values
    expected = answers(fresh)
    old = answers(net)
    assert old[-1] != expected[-1]
    saved = net.params.buffer.copy()

    net.params[name] += 0.25
    assert answers(net) == expected
    net.params.buffer = saved
    assert answers(net) == old
    net.params[name] = values
    assert answers(net) == expected
    net.params.buffer[:] = saved
    view = net.params[name]
    view.flat[:] = values.flat
    assert answers(net) == expected


def test_batches_of_changing_sizes_and_zeros_do_not_disturb_each_other(net, labels):
    generator = np.random.default_rng(1)
    batches = [
        generator.random((samples, 6)) * (generator.random((samples, 6)) < density)
        for samples in (7, 1, 5, 7, 2)
        for density in (1.0, 0.2, 0.0)
    ]
    for x in batches + batches[::-1]:
        t = labels[: len(x)]
        fresh = TwoLayerNet(6, 5, 4)
        fresh.params.buffer = net.params.buffer
        assert net.numerical_gradient(x, t) == fresh.numerical_gradient(x, t)
        assert net.gradient(x, t) == fresh.gradient(x, t)


def test_a_prediction_does_not_depend_on_the_rest_of_its_batch(net):
    # More rows than are evaluated at a time, dense and sparse ones.
    x = np.random.default_rng(2).random((600, 6))
    x[250:300] = 0.0
    whole = net.predict(x)
    for rows in (slice(0, 1), slice(255, 258), slice(511, 514), slice(599, 600)):
        parts = net.predict(x[rows])
        # Sums of 6 and of 5 products may be in another order.
        assert np.abs(whole[rows] - parts).max() <= 16 * EPS
    assert np.abs(whole.sum(axis=1) - 1).max() <= 4 * EPS


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_copies_compute_the_same(net, x, labels, duplicate):
    net.numerical_gradient(x, labels)  # so that there is scratch to leave behind
    other = duplicate(net)
    assert other.params == net.params
    assert other.numerical_gradient(x, labels) == net.numerical_gradient(x, labels)
    assert other.gradient(x, labels) == net.gradient(x, labels)


def test_deep_and_pickled_copies_have_parameters_of_their_own(net, x, labels):
    expected = net.numerical_gradient(x, labels)
    for other in (copy.deepcopy(net), pickled(net)):
        other.params.buffer += 1.0
        assert other.params["W1"][0, 0] == net.params["W1"][0, 0] + 1.0
        assert other.numerical_gradient(x, labels) != expected
        assert net.numerical_gradient(x, labels) == expected


def test_a_pickled_net_carries_no_scratch(net, x, labels):
    before = len(pickle.dumps(net))
    net.numerical_gradient(np.repeat(x, 50, axis=0), np.repeat(labels, 50))
    assert len(pickle.dumps(net)) == before


def test_params_cannot_be_replaced_by_another_dict(net):
    with pytest.raises(AttributeError):
        net.params = {}


@pytest.mark.parametrize("engine", ENGINES)
def test_training_lowers_the_loss_by_the_key_and_by_the_buffer_alike(net, x, labels, engine):
    other = copy.deepcopy(net)
    losses = [net.loss(x, labels)]
    for _ in range(5):
        grads = net.numerical_gradient(x, labels, engine=engine)
        for key in ("W1", "b1", "W2", "b2"):
            net.params[key] -= 0.1 * grads[key]
        other.params.buffer -= 0.1 * other.numerical_gradient(x, labels, engine=engine).buffer
        assert other.params == net.params
        losses.append(net.loss(x, labels))
    assert losses == sorted(losses, reverse=True)
    assert len(set(losses)) == len(losses)


def test_a_net_tells_its_sizes_and_its_engine():
    assert repr(TwoLayerNet(7, 5, 3)) == "<TwoLayerNet 7-5-3, engine 'response'>"

    class Another(TwoLayerNet):
        def loss(self, x, t):
            return super().loss(x, t) + 1

    assert repr(Another(7, 5, 3)) == "<Another 7-5-3, engine 'auto'>"


@pytest.mark.parametrize("blocked", [False, True])
@pytest.mark.parametrize("largest", [1.0, 30.0])
def test_bounds_of_engines_hold_and_are_finite_only_of_what_is(
    net, x, labels, largest, blocked, monkeypatch
):
    if blocked:
        monkeypatch.setattr(response, "BLOCK_OUTPUTS", 7)
    for engine in ENGINES.values():
        batch = check(net.params, largest * x, labels)
        quotients, bound = engine(batch, H)
        assert abs(quotients).max() <= bound
    net.params["W1"][:2, 0] = 1e308, -1e308  # the pre-activation is inf - inf
    overflowing = check(net.params, np.full_like(x, 1.0 + largest), labels)
    for engine in ENGINES.values():
        with np.errstate(all="ignore"):  # kernels as plain Python say so
            quotients, bound = engine(overflowing, H)
        assert np.isfinite(quotients).all() or not bound < np.inf
