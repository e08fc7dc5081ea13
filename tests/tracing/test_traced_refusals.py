"""The loop takes over, and says so, where tracing might be wrong."""

import math
import warnings

import nets
import numpy as np
import pytest
from nets import EPS, INPUT, H, two_layers

from fastgrad import numerical_gradient
from fastgrad.engines import loop, selection, traced
from fastgrad.tracing import trace

W1 = two_layers()["W1"]


pytestmark = pytest.mark.usefixtures("cheap_functions_traced")


def hidden(W):
    """Return a layer's activations, and a loss of them."""
    z = np.tanh(INPUT @ W)
    return z, np.mean(z**2)


# What cannot be recorded -------------------------------------------------------------------------


def branch_on_loss(W):
    _, loss = hidden(W)
    if loss > 0.3:
        loss = 2 * loss
    return loss


def branch_on_largest(W):
    z, loss = hidden(W)
    return loss if z.max() < 5 else 0.0


def loop_until(W):
    z, loss = hidden(W)
    while np.sum(z) > 1:
        z = z - 0.1
    return loss + np.mean(z)


def branch_in_try(W):
    _, loss = hidden(W)
    try:
        if loss > 0.3:
            return 2 * loss
    except Exception:
        return loss
    return loss


def builtin_max(W):
    z, loss = hidden(W)
    return max(loss, np.mean(z))


def python_floats(W):
    return sum(float(w) ** 2 for w in W.ravel())


def python_list(W):
    return sum(w * w for row in W.tolist() for w in row)


def math_in_the_middle(W):
    _, loss = hidden(W)
    return 2 * math.sqrt(loss) + 0.0


def number_in_the_middle(W):
    z, loss = hidden(W)
    return loss * float(np.max(z))


def unknown_function(W):
    z, loss = hidden(W)
    return loss + np.interp(0.3, [0.0, 1.0], z[0, :2])


def histogram(W):
    z, loss = hidden(W)
    return loss + np.histogram(z, 3)[0][0]


def unbuffered_addition(W):
    z, loss = hidden(W)
    total = np.zeros(3)
    np.add.at(total, [0, 1, 1], z[0, :3])
    return loss + total[1]


def index_by_value(W):
    z, loss = hidden(W)
    return loss + z[np.arange(len(z)), np.argmax(z, axis=1)].mean()


def table_by_value(W):
    z, loss = hidden(W)
    return loss * np.take(np.arange(2.0, 40.0), np.argmax(z))


def selected(W):
    z, _ = hidden(W)
    return np.mean(z[z > 0.1] ** 2)


def formatted(W):
    _, loss = hidden(W)
    return float(f"{float(loss):.12f}")


def memory(W):
    return hidden(np.frombuffer(W).reshape(W.shape))[1]


def nested(W):
    return np.sum(numerical_gradient(lambda V: hidden(V)[1], W[:2, :2].copy()) ** 2)


def fourier(W):
    return np.mean(np.abs(np.fft.fft(W, axis=0)) ** 2)


UNRECORDED = [
    branch_on_loss, branch_on_largest, loop_until, branch_in_try, builtin_max, python_floats,
    python_list, math_in_the_middle, number_in_the_middle, unknown_function, histogram,
    unbuffered_addition, index_by_value, table_by_value, selected, formatted, fourier,
]  # fmt: skip


@pytest.mark.parametrize("f", UNRECORDED, ids=lambda f: f.__name__)
def test_what_is_not_recorded_goes_to_the_loop_quietly(f):
    x = W1.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = numerical_gradient(f, x)
    # Bit for bit where it is the loop; a recorder that learns more is within the round-off.
    expected = loop.gradient(f, x, H)
    assert np.abs(result - expected).max() <= 4 * EPS * max(1.0, abs(f(x))) / H
    assert x.tobytes() == W1.tobytes()


REASONS = [
    (branch_on_loss, "a branch depends on its value"),
    (branch_in_try, "a branch depends on its value"),
    (math_in_the_middle, "converted to a float before the end"),
    (python_list, "attribute tolist is not recorded"),
    (unknown_function, "interp|plain array"),
    (index_by_value, "an index depends on the array"),
    (lambda W: 1.0, "not computed from the array"),
    (lambda W: np.sum(INPUT), "not computed from the array"),
    (lambda W: hidden(W)[0], "not a number"),
    (lambda W: None, "not a number|its result is nan"),
    (lambda W: np.log(0 * hidden(W)[1] - 1), "nan|RuntimeWarning"),
    (lambda W: 1 / 0, "it raises ZeroDivisionError at x itself"),
]


@pytest.mark.parametrize(("f", "reason"), REASONS, ids=[reason for _, reason in REASONS])
def test_the_traced_engine_says_why_it_refuses(f, reason):
    with pytest.raises(ValueError, match=f"f cannot be traced: .*({reason}).*engine='loop'"):
        numerical_gradient(f, W1.copy(), engine="traced")


# What differs from call to call ------------------------------------------------------------------


def test_dropout_is_refused():
    dropout, x = nets.Dropout(), W1.copy()
    np.random.seed(0)
    with pytest.raises(ValueError, match="two calls of it give different results"):
        numerical_gradient(lambda W: np.mean(dropout.forward(INPUT @ W) ** 2), x, engine="traced")
    assert type(dropout.mask) is np.ndarray
    assert x.tobytes() == W1.tobytes()


def test_dropout_that_is_seeded_in_every_call_is_served():
    dropout, x = nets.Dropout(), W1.copy()

    def loss(W):
        np.random.seed(3)
        return np.mean(dropout.forward(np.tanh(INPUT @ W)) ** 2)

    result = numerical_gradient(loss, x, engine="traced")
    assert np.abs(result - loop.gradient(loss, x, H)).max() <= 4 * EPS * loss(x) / H


def test_a_counter_that_changes_the_loss_is_refused():
    calls = [0]

    def loss(W):
        calls[0] += 1
        return np.mean(np.tanh(INPUT @ W) ** 2) + 1e-9 * calls[0]

    with pytest.raises(ValueError, match="two calls of it give different results"):
        numerical_gradient(loss, W1.copy(), engine="traced")


def test_a_counter_that_changes_nothing_is_no_reason_to_refuse():
    calls = [0]

    def loss(W):
        calls[0] += 1
        return np.mean(np.tanh(INPUT @ W) ** 2)

    numerical_gradient(loss, W1.copy(), engine="traced")
    assert 0 < calls[0] < 20


@pytest.mark.parametrize("start", [3, 4])  # while it is compared with calls of f
def test_a_function_that_changes_after_the_recording_is_found_out(start):
    calls = [0]

    def loss(W):
        calls[0] += 1
        return np.sum(np.tanh(INPUT @ W) ** 2) * (1 if calls[0] <= start else 1.5)

    x = W1.copy()
    with pytest.warns(RuntimeWarning, match="calls of f give"):
        result = numerical_gradient(loss, x)
    calls[0] = start + 1
    expected = loop.gradient(loss, x, H)
    assert np.abs(result - expected).max() <= 4 * EPS * loss(x) / H


def test_a_function_that_accumulates_in_its_cache_is_refused():
    class Net:
        def __init__(self):
            self.total = np.zeros(W1.shape[1])

        def loss(self, W):
            self.total += (INPUT @ W).mean(axis=0)
            return np.sum(self.total**2)

    net = Net()
    with pytest.raises(ValueError, match="f cannot be traced"):
        numerical_gradient(net.loss, W1.copy(), engine="traced")
    assert type(net.total) is np.ndarray


# Wrong results are not returned ------------------------------------------------------------------


def test_elements_that_are_checked_together_come_back_bit_for_bit():
    x = np.random.default_rng(3).choice([-0.0, 1e-17, 0.1, 3.0], 60)
    before = x.tobytes()
    numerical_gradient(lambda x: np.sum(np.sin(x)), x, engine="traced")
    assert x.tobytes() == before
    x = np.asfortranarray(x.reshape(12, 5))
    before = x.tobytes("A")
    numerical_gradient(lambda x: np.sum(np.sin(x)), x, engine="traced")
    assert x.tobytes("A") == before


def test_a_replay_that_raises_goes_to_the_loop(monkeypatch):
    from fastgrad.tracing import strategy

    def fail(self, *_):
        raise IndexError("a defect")

    f, x = nets.CASES["book W1"]()
    monkeypatch.setattr(strategy.TermStrategy, "add_to", fail)
    assert numerical_gradient(f, x).tobytes() == loop.gradient(f, x, H).tobytes()


# Warnings ----------------------------------------------------------------------------------------


def test_a_large_array_that_goes_to_the_loop_is_announced(monkeypatch):
    monkeypatch.setattr(selection, "MIN_ANNOUNCED_ELEMENTS", W1.size)
    with pytest.warns(RuntimeWarning, match="f is called 234 times.*a branch depends") as caught:
        result = numerical_gradient(branch_on_loss, W1.copy())
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert result.tobytes() == loop.gradient(branch_on_loss, W1.copy(), H).tobytes()


@pytest.mark.parametrize(
    ("large", "engine", "f"),
    [
        (W1.size + 1, "auto", branch_on_loss),
        (1, "loop", branch_on_loss),
        (1, "auto", lambda W: hidden(W)[1]),
    ],
    ids=["smaller", "the loop was asked for", "traced"],
)
def test_otherwise_nothing_is_announced(large, engine, f, monkeypatch):
    monkeypatch.setattr(selection, "MIN_ANNOUNCED_ELEMENTS", large)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numerical_gradient(f, W1.copy(), engine=engine)


def test_the_loop_is_always_the_loop(monkeypatch):
    def forbidden(*_):
        raise AssertionError("traced")

    monkeypatch.setattr(traced, "traced_gradient", forbidden)
    calls = []
    f = lambda W: calls.append(W) or hidden(W)[1]  # noqa: E731
    x = W1.copy()
    numerical_gradient(f, x, engine="loop")
    assert len(calls) == 2 * x.size
    assert all(W is x for W in calls)


def test_a_function_whose_loop_is_short_is_seldom_recorded_in_vain(monkeypatch):
    recorded = []

    def counted(*arguments, **options):
        recorded.append(1)
        return trace.trace_call(*arguments, **options)

    monkeypatch.setattr(traced, "trace_call", counted)
    monkeypatch.setattr(traced, "MIN_RECORDING_SECONDS", 0.03)
    x, gains = np.linspace(-1, 1, 10), iter(np.linspace(1, 2, 100))
    for gain in gains:
        f = lambda x: gain * float(np.tanh(x).sum()) ** 2  # noqa: B023, E731  # called at once
        assert np.array_equal(numerical_gradient(f, x), loop.gradient(f, x, H))
    # As the clock goes, a recording takes 5 times as long as the loop: 70 times what it may take.
    assert len(recorded) == 2
    large = np.linspace(-1, 1, 600)
    for gain in (1.0, 1.1, 1.2):  # a loop of a second can bear each recording
        numerical_gradient(lambda x: gain * float(np.tanh(x).sum()) ** 2, large)  # noqa: B023
    assert len(recorded) == 5
