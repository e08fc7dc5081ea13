"""Does the loop take over where tracing might be wrong, and is everything as it was before?"""

import collections
import copy
import math
import random as python_random
import threading
import types
import warnings

import nets
import numpy as np
import pytest
from nets import EPS, INPUT, LABELS, H, two_layers

from fastgrad import numerical_gradient
from fastgrad.engines import loop, selection, traced
from fastgrad.tracing import first_calls, trace
from fastgrad.tracing.stand_in import Recorded

W1 = two_layers()["W1"]


@pytest.fixture(autouse=True)
def _eager(monkeypatch):
    """Let auto try to trace all but the smallest arrays, however cheap f is."""
    monkeypatch.setattr(first_calls, "MIN_TRACING_SECONDS", 0.0)


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


def test_a_cache_that_is_overwritten_in_place_is_not_mistaken_for_a_constant():
    class Net:
        def __init__(self):
            self.a = np.zeros((nets.SAMPLES, W1.shape[1]))

        def loss(self, W):
            self.a[...] = INPUT @ W
            first = np.sum(np.tanh(self.a))
            self.a *= 0.5
            return first + np.sum(self.a**2) + 0.1 * np.sum(W**2)

    net, x = Net(), W1.copy()
    result = numerical_gradient(net.loss, x)
    size = nets.SAMPLES * W1.shape[1] + net.loss(x)
    assert np.abs(result - loop.gradient(net.loss, x, H)).max() <= 4 * EPS * size / H
    net.loss(x)
    assert type(net.a) is np.ndarray
    assert net.a.tobytes() == (INPUT @ x * 0.5).tobytes()


@pytest.mark.parametrize(
    "write",
    [
        lambda a, buffer: np.dot(INPUT, a, buffer),
        lambda a, buffer: np.dot(INPUT, a, out=buffer),
        lambda a, buffer: np.matmul(INPUT, a, buffer),
        lambda a, buffer: np.clip(INPUT @ a, -1, 1, buffer),
        lambda a, buffer: np.multiply(INPUT @ a, 2, buffer),
        lambda a, buffer: np.concatenate((INPUT[:5] @ a, INPUT[5:] @ a), 0, buffer),
        lambda a, buffer: np.round(INPUT @ a, 9, buffer),
        lambda a, buffer: np.cumsum(INPUT @ a, 0, None, buffer),
        lambda a, buffer: np.take(INPUT @ a, range(nets.SAMPLES), 0, buffer),
        lambda a, buffer: np.einsum("ni,ij->nj", INPUT, a, out=buffer),
        lambda a, buffer: np.copyto(buffer, INPUT @ a),
        lambda a, buffer: buffer.__setitem__(..., INPUT @ a),
        lambda a, buffer: np.put(buffer, range(buffer.size), INPUT @ a),
        lambda a, buffer: np.sum((INPUT @ a)[np.newaxis], 0, None, buffer),
        lambda a, buffer: np.mean((INPUT @ a)[np.newaxis], 0, None, buffer),
        lambda a, buffer: np.max((INPUT @ a)[np.newaxis], 0, buffer),
        lambda a, buffer: np.add.reduce((INPUT @ a)[np.newaxis], 0, None, buffer),
        lambda a, buffer: np.stack([INPUT[0] @ a] * nets.SAMPLES, 0, buffer),
    ],
    ids=[
        "dot", "dot out", "matmul", "clip", "multiply", "concatenate", "round", "cumsum", "take",
        "einsum", "copyto", "assignment", "put", "sum", "mean", "max", "add.reduce", "stack",
    ],
)  # fmt: skip
def test_what_is_written_into_a_buffer_is_not_lost(write):
    buffer, x = np.empty((nets.SAMPLES, W1.shape[1])), W1.copy()

    def loss(W):
        write(W, buffer)
        return np.mean(np.tanh(buffer) ** 2) + 0.1 * np.sum(W**2)

    assert_the_loops(loss, x)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool, np.float64])
def test_what_is_stored_in_an_array_of_another_dtype_is_rounded_alike(dtype):
    def loss(W):
        a = 5 * np.tanh(INPUT @ W)
        stored = np.zeros((nets.SAMPLES, 2), dtype)
        stored[:, 0] = a[:, 0]
        stored[:, 1] = a[:, 1]
        return np.sum(stored**2.0) + np.mean(a**2)

    x = W1.copy()
    deviation = np.abs(numerical_gradient(loss, x) - loop.gradient(loss, x, H)).max()
    eps = np.finfo(np.float32).eps if dtype is np.float32 else EPS
    assert deviation <= 4 * eps * loss(x) / H


def assert_the_loops(f, x):
    before = x.tobytes()
    result = numerical_gradient(f, x)
    assert x.tobytes() == before
    expected = loop.gradient(f, x, H)
    bound = 4 * EPS * abs(f(x)) / H
    assert np.abs(result - expected).max() <= bound
    assert np.abs(expected).max() > 1e3 * bound


# Memory that is reached by another way -----------------------------------------------------------


class Holder:
    pass


@pytest.mark.parametrize(
    "make",
    [
        lambda x: (x[:, :4], x[:, 4:]),
        lambda x: (x,),
        lambda x: frozenset([ByIdentity(x)]),
        lambda x: collections.deque([x]),
        lambda x: types.SimpleNamespace(W=x),
        lambda x: collections.OrderedDict(W=x),
        lambda x: collections.UserDict(W=x),
        lambda x: collections.namedtuple("Weights", "W")(x),
        lambda x: memoryview(x),
        lambda x: iter_of(x),
        lambda x: x.view(np.uint8),
        lambda x: x.view(Subclass),
        lambda x: [[x.T], {"a": (x,)}],
        lambda x: types.MappingProxyType({"W": x}),
        lambda x: types.MethodType(lambda self: self, x),
        lambda x: property(lambda _: x),
        lambda x: np.array([x, None], object),
    ],
    ids=[
        "tuple of views", "tuple", "set", "deque", "namespace", "ordered dict", "user dict",
        "named tuple", "memoryview", "closure in a list", "bytes", "subclass", "nested", "mapping",
        "bound method", "property", "object array",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kinked", [False, True])
def test_an_array_that_is_also_read_elsewhere_is_differenced_there_too(make, kinked, monkeypatch):
    monkeypatch.setattr(traced, "CERTIFY", False)  # which would find it
    x = W1.copy()
    holder = Holder()
    holder.held = make(x)
    threshold = x + 10
    threshold[2, 5] = x[2, 5] + 0.95 * H

    def loss(W):
        array = arrays_in(holder.held)
        other = np.maximum(array - threshold, 0) if kinked else 0.1 * array**2
        return np.mean(np.tanh(INPUT @ W) ** 2) + np.sum(other)

    assert_the_loops(loss, x)
    assert arrays_in(holder.held).tobytes() == W1.tobytes()


class ByIdentity:
    def __init__(self, x):
        self.x = x


class Subclass(np.ndarray):
    pass


def iter_of(x):
    return [lambda: x]


def arrays_in(held):
    """Return the (INPUTS, HIDDEN) array that something holds."""
    match held:
        case np.ndarray() if held.dtype == np.uint8:
            return held.view(np.float64)
        case np.ndarray() if held.dtype == object:
            return held[0]
        case np.ndarray():
            return np.asarray(held)
        case memoryview():
            return np.frombuffer(held).reshape(W1.shape)
        case tuple() if len(held) == 2:
            return np.concatenate(held, axis=1)
        case frozenset():
            return next(iter(held)).x
        case [[transposed], {"a": (_,)}]:
            return transposed.T
        case [f] if callable(f):
            return f()
        case types.MethodType():
            return held()
        case property():
            return held.fget(None)
        case types.SimpleNamespace():
            return held.W
        case collections.abc.Mapping():
            return held["W"]
    return held[0]


@pytest.mark.parametrize("make", [
    lambda base: base[:, :13], lambda base: base[1:], lambda base: base[::2, ::2],
    lambda base: base[:9, 3:].T, lambda base: base.reshape(-1)[: base.size // 2],
], ids=["columns", "rows", "strided", "transposed", "half"])  # fmt: skip
def test_an_array_that_is_a_part_of_a_larger_one_is_differenced_in_both(make):
    base = np.random.default_rng(1).normal(size=(12, 20))
    x = make(base)

    def loss(x):
        return np.sum(np.tanh(x) ** 2) + 0.1 * np.sum(base**2) + np.sum(base[1:5] @ base[2:6].T)

    result = numerical_gradient(loss, x)
    expected = loop.gradient(loss, x, H)
    size = (
        np.sum(np.tanh(x) ** 2) + 0.1 * np.sum(base**2) + np.sum(abs(base[1:5]) @ abs(base[2:6].T))
    )
    assert np.abs(result - expected).max() <= 4 * EPS * size / H


def test_a_parameter_that_f_replaces_by_a_copy_has_no_gradient():
    net = Holder()
    net.W = W1.copy()

    def loss(_):
        net.W = net.W.copy()  # from now on, x is not looked at
        return np.mean(np.tanh(INPUT @ net.W) ** 2)

    with pytest.warns(RuntimeWarning, match="f does not depend on x"):
        assert not numerical_gradient(loss, net.W).any()


@pytest.mark.parametrize("engine", ["auto", "traced", "loop"])
def test_a_parameter_that_f_updates_in_place_is_refused(engine):
    x = W1.copy()

    def loss(W):
        W += 0.5
        result = np.mean(np.tanh(INPUT @ W) ** 2)
        W -= 0.5  # W + 0.5 - 0.5 is another number than W
        return result

    with pytest.raises(ValueError, match="changes x"):
        numerical_gradient(loss, x, engine=engine)
    assert x.tobytes() == W1.tobytes()


def test_an_array_that_is_added_to_a_number_leaves_its_other_names_alone(monkeypatch):
    monkeypatch.setattr(traced, "CERTIFY", False)
    x = W1.copy()
    x[3, 4] = 0.0

    def loss(W):
        total = np.mean(np.tanh(INPUT @ W) ** 2)
        data = total
        total += 1e-3 * W[3, 4]  # not the largest quotient, which is checked
        return data

    assert_the_loops(loss, x)


def test_arrays_given_by_keyword_are_told_apart():
    x = np.random.default_rng(2).normal(size=(8, 200))
    low, other = np.full((2, 8, 200), -9.0)
    other[4, 100] = 5.0
    places, others = np.arange(1600), np.arange(1600)
    others[800] = 5
    assert_the_loops(
        lambda x: (
            np.sum(np.clip(x, a_min=low, a_max=None) ** 2)
            + np.sum(np.clip(x, a_min=other, a_max=None) ** 2)
            + np.sum(np.take(x, indices=places) ** 2)
            + np.sum(np.take(x, indices=others) ** 2)
        ),
        x,
    )


def test_einsum_may_use_any_letters():
    x, V = W1.copy(), two_layers()["W2"]

    def loss(W):
        a = np.einsum("AZ,ZB->AB", INPUT, W)
        return np.mean(np.einsum("nZ,Zk->nk", np.tanh(a), V) ** 2)

    assert_the_loops(loss, x)
    square = np.random.default_rng(3).normal(size=(12, 12))  # so that letters fit by chance
    assert_the_loops(
        lambda W: np.mean(np.einsum("aZ,Zb->ab", np.tanh(square @ W), square) ** 2), square.copy()
    )


def test_lists_of_recorded_numbers_may_be_operands():
    def loss(W):
        a = np.tanh(INPUT @ W)
        return 1 + np.mean(a[:, :2] * [a[0, 0], a[1, 1]]) + np.mean(a**2)

    assert_the_loops(loss, W1.copy())


# Restoration -------------------------------------------------------------------------------------


class Everything:
    """Holds one array in all the places that a stand-in may be put."""

    of_class = None

    def __init__(self, x):
        Everything.of_class = x
        self.x = x
        self.params = {"W": x, "flat": x.reshape(-1)}
        self.list = [x, [x.T]]
        self.nested = nets.Affine(x, np.zeros(x.shape[1]))
        self.hook = None

    def places(self):
        return [
            Everything.of_class, self.x, *self.params.values(), self.list[0], self.list[1][0],
            self.nested.W, self.nested.b,
        ]  # fmt: skip

    def loss(self, _):
        z = np.tanh(self.nested.forward(INPUT))
        if self.hook is not None:
            self.hook(z)
        loss = np.mean(z**2) + 0.1 * np.sum(self.params["flat"] ** 2)
        loss += np.sum(self.list[1][0].T * self.list[0]) + np.mean(Everything.of_class * self.x)
        self.cached = loss
        return loss


def test_every_place_is_put_back_and_caches_are_plain():
    net = Everything(W1.copy())
    places = net.places()
    assert_the_loops(net.loss, net.x)
    numerical_gradient(net.loss, net.x, engine="traced")
    assert all(now is then for now, then in zip(net.places(), places, strict=True))
    assert isinstance(net.cached, np.float64)
    assert type(net.nested.x) is np.ndarray


@pytest.mark.parametrize(
    "error", [ValueError, RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError]
)
@pytest.mark.parametrize("engine", ["auto", "traced"])
def test_every_place_is_put_back_when_f_raises_while_it_is_recorded(error, engine):
    net = Everything(W1.copy())
    places, before, plain = net.places(), net.x.tobytes(), []

    def fail(z):
        if isinstance(z, Recorded):
            raise error("mine")
        plain.append(z)

    net.hook = fail
    if issubclass(error, Exception):
        if engine == "traced":
            with pytest.raises(ValueError, match=f"it raises {error.__name__}: mine"):
                numerical_gradient(net.loss, net.x, engine=engine)
        else:
            result = numerical_gradient(net.loss, net.x)
            net.hook = None
            assert result.tobytes() == loop.gradient(net.loss, net.x, H).tobytes()
        assert isinstance(net.cached, np.float64)
    else:
        with pytest.raises(error, match="mine"):
            numerical_gradient(net.loss, net.x, engine=engine)
    assert plain
    assert all(now is then for now, then in zip(net.places(), places, strict=True))
    assert net.x.tobytes() == before


@pytest.mark.parametrize("fatal", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("error", [ZeroDivisionError("mine"), KeyboardInterrupt("mine")])
def test_what_f_raises_in_any_of_its_calls_passes_unchanged(fatal, error):
    net, calls = Everything(W1.copy()), [0]
    places, before = net.places(), net.x.tobytes()

    def fail(z):
        calls[0] += 1
        if calls[0] >= fatal:
            raise error

    net.hook = fail
    with pytest.raises(type(error)) as raised:
        numerical_gradient(net.loss, net.x)
    assert raised.value is error
    assert all(now is then for now, then in zip(net.places(), places, strict=True))
    assert net.x.tobytes() == before


def test_every_place_is_put_back_wherever_an_interrupt_strikes(strike, repeats):
    net, dice, struck = Everything(W1.copy()), python_random.Random(0), 0
    places, before = net.places(), net.x.tobytes()
    numerical_gradient(net.loss, net.x, engine="traced")  # whatever is imported only now
    count = repeats(20, 150)
    for _ in range(count):
        try:
            strike(dice.uniform(1e-4, 1e-2))
            while True:
                numerical_gradient(net.loss, net.x, engine="traced")
        except KeyboardInterrupt:
            struck += 1
        assert all(now is then for now, then in zip(net.places(), places, strict=True))
        assert net.x.tobytes() == before
    assert struck == count
    assert type(np.zeros(3)) is np.ndarray


def test_functions_that_create_arrays_are_numpys_own_again():
    creators = {name: getattr(np, name) for name in ("zeros", "empty", "ones", "full")}

    def stored(W):
        z = np.zeros((nets.SAMPLES, W.shape[1]))
        z[:5] = np.tanh(INPUT[:5] @ W)
        return np.mean(z**2)

    def failing(W):
        z = np.zeros((nets.SAMPLES, W.shape[1]))
        z[:5] = np.tanh(INPUT[:5] @ W)
        if isinstance(W, Recorded) and isinstance(z, Recorded):
            raise KeyboardInterrupt
        return np.mean(z**2)

    assert_the_loops(stored, W1.copy())
    assert {name: getattr(np, name) for name in creators} == creators
    with pytest.raises(KeyboardInterrupt):
        numerical_gradient(failing, W1.copy())
    assert {name: getattr(np, name) for name in creators} == creators


@pytest.mark.parametrize("engine", ["auto", "traced"])
def test_layers_hold_plain_arrays_after_success_and_after_refusal(engine):
    net = nets.LayerNet()
    x = net.params["W1"]
    numerical_gradient(lambda _: net.loss(INPUT, LABELS), x, engine=engine)
    assert all(type(value) in (np.ndarray, np.float64, type(None)) for value in net.caches())

    def refused(_):
        return net.loss(INPUT, LABELS) if net.loss(INPUT, LABELS) > 0 else 0.0

    if engine == "traced":
        with pytest.raises(ValueError, match="a branch depends on its value"):
            numerical_gradient(refused, x, engine=engine)
    else:
        numerical_gradient(refused, x)
    assert all(type(value) in (np.ndarray, np.float64, type(None)) for value in net.caches())
    # They hold those of x itself, or of the loop's last point, which is h away.
    np.testing.assert_allclose(net.layers["Affine1"].forward(INPUT), INPUT @ x + net.params["b1"])


def test_what_f_collects_while_it_is_recorded_works_like_arrays_afterwards():
    collected = []

    def loss(W):
        z = np.tanh(INPUT @ W)
        collected.append(z)
        return np.mean(z**2)

    numerical_gradient(loss, W1.copy(), engine="traced")
    expected = np.tanh(INPUT @ W1)
    for z in collected:
        assert np.abs(np.asarray(z) - expected).max() <= 2 * H
        assert type(z + 1) is np.ndarray
        assert type(z.sum()) in (np.float64, np.ndarray)
        assert float(z.mean()) == pytest.approx(expected.mean(), abs=2 * H)
        assert bool((z < 2).all())
        assert copy.deepcopy(z).shape == expected.shape


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


# Threads -----------------------------------------------------------------------------------------


def test_threads_may_trace_different_nets_at_the_same_time(monkeypatch):
    monkeypatch.setattr(trace, "MAX_SECONDS", 600)  # however long the others' recordings take
    names = ["book W1", "relu layers W1", "columns W1", "sigmoid layers", "recurrent"]
    expected = {name: numerical_gradient(*nets.CASES[name](), engine="traced") for name in names}
    barrier, failures = threading.Barrier(len(names)), []

    def work(name):
        try:
            f, x = nets.CASES[name]()
            barrier.wait()
            for _ in range(10):
                result = numerical_gradient(f, x, engine="traced")
                deviation = np.abs(result - expected[name]).max()
                if not deviation <= EPS * abs(f(x)) / H:
                    failures.append((name, deviation))
        except BaseException as error:
            failures.append((name, error))
            raise

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_arrays_created_by_other_threads_are_plain_while_one_is_recorded():
    stop, odd = threading.Event(), []

    def create():
        while not stop.is_set():
            array = np.zeros(3)
            if type(array) is not np.ndarray:
                odd.append(array)

    def stored(W):
        z = np.zeros((nets.SAMPLES, W.shape[1]))
        z[:5] = np.tanh(INPUT[:5] @ W)
        return np.mean(z**2)

    thread = threading.Thread(target=create)
    thread.start()
    try:
        for _ in range(20):
            numerical_gradient(stored, W1.copy(), engine="traced")
    finally:
        stop.set()
        thread.join()
    assert not odd


def test_a_function_may_itself_take_a_gradient():
    x = np.random.default_rng(4).normal(size=60)

    def slope(x):
        return float(np.sum(numerical_gradient(lambda y: np.sum(np.sin(y[:3])), x) ** 2))

    result = numerical_gradient(slope, x)
    assert result.tobytes() == loop.gradient(slope, x, H).tobytes()
    assert np.abs(result).max() > 0.1
