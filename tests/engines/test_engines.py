"""The net's engines are as exact as they say: by the exact quotient, each other and the book."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import (
    EPS,
    JIT,
    MULTIPLE,
    chosen_entries,
    largest_shift,
    largest_slope,
    quotients,
    round_off,
    worst_error,
)

from fastgrad import TwoLayerNet, reference
from fastgrad.jit import matrix_products
from fastgrad.network import response, two_layer_net
from fastgrad.network.response import MAX_TERMS, TOLERANCE

H = 1e-4
REPEATABLE = settings(derandomize=True, deadline=None, max_examples=60 if JIT else 8)


def make_case(inputs, hidden, classes, samples, *, seed=0, deviation=0.01, largest=1.0, zeros=0.0):
    """Return a net, and a batch of x in [0, largest], of which a share is zero, with labels."""
    np.random.seed(seed)
    net = TwoLayerNet(inputs, hidden, classes, deviation)
    generator = np.random.default_rng(seed)
    x = largest * generator.random((samples, inputs))
    x[generator.random(x.shape) < zeros] = 0.0
    return net, x, generator.integers(0, classes, samples)


def largest_entry(gradient):
    return float(np.abs(gradient.buffer).max())


def deviation_of(one, other):
    return float(np.abs(one.buffer - other.buffer).max())


@pytest.fixture
def takeovers(monkeypatch):
    """Return a list that grows by one whenever a gradient comes from weight perturbation."""
    calls = []
    compute = response.direct_gradient

    def gradient(*args):
        calls.append(args)
        return compute(*args)

    monkeypatch.setattr(response, "direct_gradient", gradient)
    return calls


# The book's case: 784 pixels, 100 hidden units, 10 digits, 100 samples.
BOOK = (784, 100, 10, 100) if JIT else (30, 10, 10, 8)


@pytest.mark.parametrize("zeros", [0.0, 0.8])
def test_responses_are_exact_to_1e_14_in_the_books_case(zeros, takeovers):
    net, x, labels = make_case(*BOOK, zeros=zeros)
    gradient = net.numerical_gradient(x, labels, H)
    assert worst_error(net, x, labels, H, gradient, 1e-14) <= 1e-14
    assert not takeovers


@pytest.mark.parametrize("zeros", [0.0, 0.8])
def test_direct_is_exact_to_its_round_off_in_the_books_case(zeros):
    net, x, labels = make_case(*BOOK, zeros=zeros)
    gradient = net.numerical_gradient(x, labels, H, engine="direct")
    bound = round_off(net, x, labels, H)
    assert worst_error(net, x, labels, H, gradient, bound) <= bound


def test_responses_deviate_from_the_books_loop_within_its_round_off():
    net, x, labels = make_case(*BOOK)
    gradient = net.numerical_gradient(x, labels, H)
    # Two losses are rounded in some 4 operations a sample and samples/8 + 3 sums by eps/2 each.
    bound = (len(x) // 8 + 7) * EPS / 2 * net.loss(x, labels) / H
    book = reference.TwoLayerNet(*BOOK[:3])
    book.params = {name: values.copy() for name, values in net.params.items()}
    for name, entries in chosen_entries(gradient, 4).items():
        values = book.params[name].reshape(-1)
        for entry in entries:
            old = values[entry]
            values[entry] = old + H
            raised = book.loss(x, labels)
            values[entry] = old - H
            lowered = book.loss(x, labels)
            values[entry] = old
            quotient = (raised - lowered) / (2 * H)
            assert abs(gradient[name].flat[entry] - quotient) <= bound


# Pixels up to 255 and weights of standard deviation 1: most hidden units are saturated, and most
# predictions certain. Then the same with few inputs, and with weights that make it worse.
HARSH = [
    {"inputs": 784 if JIT else 20, "hidden": 20 if JIT else 9, "classes": 10, "largest": 255.0},
    {"inputs": 784 if JIT else 20, "hidden": 20 if JIT else 9, "classes": 10, "largest": 1.0},
    {"inputs": 30 if JIT else 8, "hidden": 16 if JIT else 9, "classes": 5, "largest": 255.0},
    {"inputs": 9, "hidden": 17, "classes": 3, "largest": 1.0, "deviation": 10.0},
    {"inputs": 9, "hidden": 17, "classes": 11, "largest": 1e-3, "deviation": 1.0},
]


@pytest.mark.parametrize("h", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7])
@pytest.mark.parametrize("case", HARSH)
def test_responses_are_exact_to_1e_11_or_hand_over(case, h, takeovers):
    net, x, labels = make_case(**{"deviation": 1.0, "samples": 6 if JIT else 4} | case)
    gradient = net.numerical_gradient(x, labels, h)
    bound = round_off(net, x, labels, h) if takeovers else 1e-11 * largest_entry(gradient)
    assert worst_error(net, x, labels, h, gradient, bound, count=8 if JIT else 3) <= bound


@pytest.mark.parametrize("largest", [1.0, 255.0])
@pytest.mark.parametrize("terms", range(2, MAX_TERMS + 1))
def test_responses_are_exact_up_to_the_largest_step_of_every_number_of_terms(
    terms, largest, takeovers
):
    net, x, labels = make_case(9, 8, 4, 6, deviation=1.0, largest=largest)
    if largest > 1:
        net.params["W1"] /= largest  # so that the units are not saturated
    spread = float(np.ptp(net.params["W2"], axis=1).max())
    h = 0.99 * largest_shift(terms, spread) / max(1.0, x.max())
    gradient = net.numerical_gradient(x, labels, h)
    assert not takeovers
    # The proven bound on the truncation error, and as much for rounding.
    bound = 2 * TOLERANCE * largest_slope(net, x)
    assert worst_error(net, x, labels, h, gradient, bound) <= bound <= 1e-11 * largest


@pytest.mark.parametrize("h", [1e-3, 1e-5, 1e-7])
@pytest.mark.parametrize("certainty", [5.0, 20.0, 40.0, 100.0])
@pytest.mark.parametrize("right", [True, False])
def test_responses_are_exact_where_the_prediction_is_nearly_certain(h, certainty, right, takeovers):
    net, x, labels = make_case(12, 8, 4, 6, deviation=0.3)
    labels[:] = 1
    net.params["b2"][1 if right else 2] = certainty
    gradient = net.numerical_gradient(x, labels, h)
    assert not takeovers
    # The largest entry is as small as e^-100 here, which is no excuse.
    bound = 1e-11 * largest_entry(gradient)
    assert bound > 0
    assert worst_error(net, x, labels, h, gradient, bound, count=6) <= bound


@pytest.mark.parametrize("saturated", [-800.0, -40.0, 40.0, 800.0])
def test_responses_are_exact_where_units_are_saturated(saturated, takeovers):
    net, x, labels = make_case(6, 10, 4, 5, deviation=0.5)
    net.params["b1"][::2] = saturated
    gradient = net.numerical_gradient(x, labels, H)
    bound = 1e-11 * largest_entry(gradient)
    assert worst_error(net, x, labels, H, gradient, bound) <= bound
    # Those units by themselves: sigmoid' is e^-40, and no digit of it is lost near an output of 1;
    # or e^-800, less than a float64 can be, in place of which kernels take e^-708.
    if abs(saturated) == 40.0:
        exact = quotients(net, x, labels, H, "b1", np.arange(0, 10, 2), 0.0)
        assert np.abs(gradient["b1"][::2] / exact - 1).max() <= 1e-11
    else:
        assert np.abs(gradient["b1"][::2]).max() <= np.exp(-708) * np.ptp(net.params["W2"])
    assert not takeovers


def test_both_judges_agree():
    net, x, labels = make_case(9, 7, 4, 5, deviation=1.0)
    for name, values in net.params.items():
        entries = np.arange(values.size)
        extended = quotients(net, x, labels, H, name, entries, np.inf)
        multiple = quotients(net, x, labels, H, name, entries, 0.0)
        # A few roundings of the losses in the one, and the final rounding to float64 in both.
        bound = 20 * np.finfo(np.longdouble).eps / H + EPS
        assert np.abs(extended - multiple).max() <= bound
    assert MULTIPLE.number(1.0) == 1


@pytest.mark.parametrize(
    ("inputs", "hidden", "classes", "samples"),
    [(1, 1, 1, 1), (1, 1, 2, 1), (2, 3, 2, 4), (5, 8, 3, 7), (7, 17, 10, 9), (3, 5, 17, 2)],
)
@pytest.mark.parametrize("engine", ["response", "direct", "loop"])
def test_every_engine_agrees_with_the_books_loop(engine, inputs, hidden, classes, samples):
    net, x, labels = make_case(inputs, hidden, classes, samples, deviation=0.5)
    book = reference.TwoLayerNet(inputs, hidden, classes)
    book.params = {name: values.copy() for name, values in net.params.items()}
    quotient = book.numerical_gradient(x, np.eye(classes)[labels])
    gradient = net.numerical_gradient(x, labels, engine=engine)
    bound = 2 * round_off(net, x, labels, H, whole=True)
    for name, values in quotient.items():
        assert gradient[name].shape == values.shape
        assert np.abs(gradient[name] - values).max() <= bound


@REPEATABLE
@given(
    sizes=st.tuples(*[st.integers(1, 20 if JIT else 9)] * 4),
    zeros=st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    largest=st.sampled_from([1e-3, 1.0, 255.0]),
    signed=st.booleans(),
    deviation=st.sampled_from([0.01, 1.0, 10.0]),
    h=st.sampled_from([1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7]),
    seed=st.integers(0, 2**32 - 1),
)
def test_responses_agree_with_direct_on_any_net(sizes, zeros, largest, signed, deviation, h, seed):
    net, x, labels = make_case(*sizes, seed=seed, deviation=deviation, largest=largest, zeros=zeros)
    if signed:
        x -= largest / 2 * (x != 0)
    net.params["b1"] = np.random.randn(sizes[1])
    net.params["b2"] = np.random.randn(sizes[2])
    before = net.params.buffer.tobytes()
    response = net.numerical_gradient(x, labels, h)
    perturbation = net.numerical_gradient(x, labels, h, engine="direct")
    assert net.params.buffer.tobytes() == before
    bound = round_off(net, x, labels, h) + TOLERANCE * largest_slope(net, x)
    assert deviation_of(response, perturbation) <= bound


@REPEATABLE
@given(
    sizes=st.tuples(*[st.integers(1, 20 if JIT else 9)] * 4),
    order=st.sampled_from(["C", "F", "strided", "reversed"]),
    engine=st.sampled_from(["response", "direct"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_layout_of_x_does_not_change_a_bit(sizes, order, engine, seed):
    net, x, labels = make_case(*sizes, seed=seed, deviation=1.0)
    expected = net.numerical_gradient(x, labels, engine=engine)
    if order == "strided":
        other = np.repeat(np.repeat(x, 2, axis=0), 3, axis=1)[::2, ::3]
    elif order == "reversed":
        other = x[::-1, ::-1].copy()[::-1, ::-1]
    else:
        other = np.array(x, order=order)
    assert net.numerical_gradient(other, labels, engine=engine) == expected


def test_k_equal_1_has_no_gradient():
    net, x, labels = make_case(4, 5, 1, 6, deviation=1.0)
    for engine in two_layer_net.ENGINES:
        # The only class has probability 1, whatever is moved.
        assert not net.numerical_gradient(x, labels, engine=engine).buffer.any()


@pytest.mark.parametrize(
    ("h", "largest", "deviation", "hands_over"),
    [
        (1e-4, 1.0, 0.01, False),
        (1e-4, 255.0, 0.01, False),
        (1e-4, 255.0, 1.0, False),
        (1e-2, 1.0, 0.01, False),
        (1e-2, 255.0, 0.01, True),
        (1.0, 1.0, 0.01, True),
        (1e-2, 1.0, 100.0, True),
        (1e-4, 1e6, 0.01, True),
    ],
)
def test_only_large_shifts_hand_over_to_direct(h, largest, deviation, hands_over, takeovers):
    net, x, labels = make_case(6, 5, 4, 3, deviation=deviation, largest=largest)
    gradient = net.numerical_gradient(x, labels, h)
    assert len(takeovers) == hands_over
    if hands_over:
        assert gradient == net.numerical_gradient(x, labels, h, engine="direct")


def test_a_batch_of_large_inputs_hands_over_and_the_next_does_not(takeovers):
    net, x, labels = make_case(6, 5, 4, 3)
    expected = net.numerical_gradient(x, labels)
    net.numerical_gradient(1e6 * x, labels)
    assert len(takeovers) == 1
    assert net.numerical_gradient(x, labels) == expected
    assert len(takeovers) == 1


# One more and one less than the vectors, tiles and blocks that kernels work in.
LARGE = [(11, 271, 4, 9), (9, 5, 3, 515), (530, 6, 3, 7), (300, 530, 19, 40), (130, 9, 70, 260)]


@pytest.mark.skipif(not JIT, reason="large sizes take minutes as plain Python")
@pytest.mark.parametrize("sizes", LARGE)
@pytest.mark.parametrize("zeros", [0.0, 0.8])
def test_sizes_beyond_a_block_are_exact(sizes, zeros):
    net, x, labels = make_case(*sizes, zeros=zeros, deviation=0.1)
    gradient = net.numerical_gradient(x, labels, h=1e-3)
    # A sum of n products is rounded by n eps/2 of their magnitudes at most: over the inputs, the
    # units, the classes and the samples.
    bound = sum(sizes) * EPS / 2 * largest_slope(net, x)
    assert worst_error(net, x, labels, 1e-3, gradient, bound, count=6) <= bound


@pytest.mark.skipif(not JIT, reason="large sizes take minutes as plain Python")
@pytest.mark.parametrize("largest", [1.0, 30.0])
def test_later_terms_in_integers_cost_no_accuracy(largest, monkeypatch):
    net, x, labels = make_case(*BOOK, largest=largest)
    rounded = set()
    run = matrix_products.sum_products

    def record(*arguments):
        *_, largest, _ = arguments
        rounded.add(bool(largest.any()))
        run(*arguments)

    monkeypatch.setattr(matrix_products, "sum_products", record)
    gradient = net.numerical_gradient(x, labels, H)
    assert True in rounded
    rounded.clear()
    monkeypatch.setattr(matrix_products, "MIN_INTEGER_PRODUCTS", math.inf)
    exact = net.numerical_gradient(x, labels, H)
    assert True not in rounded
    # All entries are compared with sums in float64 below, so that few need the judge's many digits.
    error = worst_error(net, x, labels, H, gradient, 1e-15, count=4)
    assert error <= 1e-15 * max(1, largest_entry(exact))
    assert deviation_of(gradient, exact) <= TOLERANCE * largest_entry(exact)


def test_zeros_are_skipped_without_changing_the_gradient():
    net, x, labels = make_case(60, 30, 10, 50, zeros=0.8)
    sparse = net.numerical_gradient(x, labels)
    # The same numbers in a batch that is too dense for the lists of nonzeros to pay.
    wider = TwoLayerNet(300, 30, 10)
    for name in ("b1", "W2", "b2"):
        wider.params[name] = net.params[name]
    wider.params["W1"][:60] = net.params["W1"]
    wider.params["W1"][60:] = 0.0
    dense = wider.numerical_gradient(np.append(x, np.ones((50, 240)), axis=1), labels)
    # Sums of 50 samples, of 60 inputs and of 30 units, in another order.
    bound = (50 + 60 + 30) * EPS * largest_slope(net, x)
    assert np.abs(dense["W1"][:60] - sparse["W1"]).max() <= bound
    for name in ("b1", "W2", "b2"):
        assert np.abs(dense[name] - sparse[name]).max() <= bound


def test_direct_does_not_warn_of_what_overflows_on_the_way():
    net, x, labels = make_case(4, 3, 2, 3, deviation=5.0)
    gradient = net.numerical_gradient(np.full_like(x, 1e308), labels, engine="direct")
    assert np.isfinite(gradient.buffer).all()


@pytest.mark.parametrize(("largest", "h"), [(1e160, 1e-4), (1.0, 1e160), (1e150, 1e150)])
def test_huge_inputs_and_steps_hand_over_instead_of_overflowing(largest, h, takeovers):
    net, x, labels = make_case(3, 4, 2, 3, largest=largest)
    gradient = net.numerical_gradient(x, labels, h)
    assert np.isfinite(gradient.buffer).all()
    assert len(takeovers) == 1
