"""Arrays that are reached by another way than f's argument are differenced there, too."""

import collections
import types

import nets
import numpy as np
import pytest
from looped import assert_the_loops
from nets import EPS, INPUT, H, two_layers

from fastgrad import numerical_gradient
from fastgrad.engines import loop, traced

W1 = two_layers()["W1"]


pytestmark = pytest.mark.usefixtures("cheap_functions_traced")


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


# Buffers and caches -----------------------------------------------------------------------------


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
