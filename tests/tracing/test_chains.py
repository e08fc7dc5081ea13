"""Compiled chains of operations give what NumPy gives, one operation after the other."""

import signal

import nets
import numpy as np
import pytest
from looped import assert_the_loops
from nets import EPS, H
from test_traced import exact_quotient
from test_traced_replay import EXPRESSIONS, LABELS, SQUARE, A, close, recorded, scale_of, versions

from fastgrad import numerical_gradient
from fastgrad.jit import matrix_products
from fastgrad.tracing import batched, chains, replay
from fastgrad.tracing.chains import Chain
from fastgrad.tracing.replay import Replay

pytestmark = pytest.mark.skipif(
    vars(chains.numba.config)["DISABLE_JIT"], reason="nothing is compiled with the JIT off"
)

MORE = {
    "normalised": lambda x: np.where(
        (y := (z := x - x.mean(axis=0)) / np.sqrt(np.mean(z**2, axis=0) + 1e-6)) > 0, y, 0.1 * y
    ),
    "mean kept": lambda x: (x - x.mean(axis=0, keepdims=True)) * A,
    "sum of a part": lambda x: (x * x)[:, :3] + (2 * x).sum(axis=0)[3:] * x[:, 3:],
    "sums of sums": lambda x: (x + x.sum(axis=0)) - (x * x.sum(axis=0)).sum(axis=0),
    "of a cube": lambda x: (x.reshape(2, 2, 6) - x.reshape(2, 2, 6).mean(axis=(0, 1))) * 2.0,
    "middle axis": lambda x: x.reshape(2, 2, 6).sum(axis=1) - 1,
    "copied": lambda x: (y := (x + 1).copy()) * y.reshape(x.shape),
    "copy of an argument": lambda x: np.abs(x.copy()) + np.square(-x),
    "nan and infinite": lambda x: np.maximum(np.sqrt(x), 1 / (x - x)) + np.minimum(x, np.nan),
    "masks": lambda x: x * (x > 0) * (A >= 0) + np.where(A > 0, x, 3),
    "numbers": lambda x: (x - 2) / np.float32(3) + (x <= True),
    "compared and wanted": lambda x: np.stack([x > 0.5, (x + 1 > 0) & (x < 2)]) + 0.0,
    "single column": lambda x: (y := x[:, :1] * 2 + 1) + y * x,
}


def chains_of(every):
    return [step for step in every._steps if type(step) is Chain]


@pytest.mark.parametrize("name", [*EXPRESSIONS, *MORE])
def test_chains_give_what_their_operations_give(name, monkeypatch):
    """As plain Python, for to compile all would take a minute."""
    monkeypatch.setattr(chains, "compiled", chains.as_function)
    monkeypatch.setattr(replay, "MIN_KERNEL_ELEMENTS", 0)
    monkeypatch.setattr(replay, "MIN_COMPILED_ELEMENTS", 0)
    expression = {**EXPRESSIONS, **MORE}[name]
    values, before = versions(3), A.copy()
    with np.errstate(all="ignore"):
        nodes, target = recorded(lambda x: expression(x @ SQUARE))
        every = Replay(nodes, nodes[0], LABELS["columns"], target)
        expected = np.concatenate([outcome.values for outcome in every.moved(values)])
        every.compile_if_slow(1)
        found = np.concatenate([outcome.values for outcome in every.moved(values)])
    assert nodes[0].value.tobytes() == before.tobytes()
    assert found.dtype == expected.dtype
    assert close(found, expected, scale_of(nodes)) or np.isnan(expected).any()
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    if name in MORE:
        assert chains_of(every)
        assert np.array_equal(found, expected, equal_nan=True)


PRODUCTS = {
    "plain": lambda x: x @ SQUARE,
    "transposed": lambda x: np.einsum("ik,kj->ji", x, SQUARE),
    "two axes of columns": lambda x: np.einsum("ik,kjl->jil", x, SQUARE.reshape(6, 2, 3)),
    "two axes of rows": lambda x: np.einsum("abk,kj->bja", x.reshape(2, 2, 6), SQUARE),
    "by a vector": lambda x: np.dot(x, SQUARE[0]),
    "from the left": lambda x: np.dot(SQUARE.T, x.T),
    "that cancels": lambda x: np.exp(40 * x) @ SQUARE,
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_chains_take_in_products_of_moved_units(name, monkeypatch):
    monkeypatch.setattr(chains, "compiled", chains.as_function)
    monkeypatch.setattr(replay, "MIN_KERNEL_ELEMENTS", 0)
    monkeypatch.setattr(replay, "MIN_COMPILED_ELEMENTS", 0)
    nodes, target = recorded(lambda x: PRODUCTS[name](x) * 2 + 1)
    every = Replay(nodes, nodes[0], LABELS["columns"], target)
    expected = np.concatenate([outcome.values for outcome in every.moved(versions(3))])
    every.compile_if_slow(1)
    found = np.concatenate([outcome.values for outcome in every.moved(versions(3))])
    assert [chain.updated for chain in chains_of(every)] == [[nodes[-3]]]
    assert found.tobytes() == expected.tobytes()


def normalised_net(dtype=np.float64, *, layers=2, hidden=6):
    """Return the loss of a net whose rows mix, and its first weights."""
    random = np.random.default_rng(3)
    X, V, t = random.random((8, 5)), random.normal(size=(hidden, 4)), random.integers(0, 4, 8)
    between = random.normal(size=(layers - 2, hidden, hidden))
    X, V, between = X.astype(dtype), V.astype(dtype), between.astype(dtype)

    def normalised(a):
        centered = a - a.mean(axis=0)
        out = centered / np.sqrt(np.mean(centered**2, axis=0) + dtype(1e-6))
        mask = out <= 0
        out = out.copy()
        out[mask] = 0
        return out

    def loss(W):
        a = normalised(X @ W)
        for U in between:
            a = normalised(a @ U)
        scores = normalised(a @ V)
        return -np.sum(np.log(nets.softmax(scores)[np.arange(8), t] + dtype(1e-7))) / 8

    return loss, random.normal(size=(5, hidden))


def test_gradients_by_compiled_chains_are_the_loops_and_have_the_same_bits(monkeypatch):
    f, W = normalised_net()
    plain = numerical_gradient(f, W, engine="traced")
    made = []
    monkeypatch.setattr(replay, "MIN_KERNEL_ELEMENTS", 0)
    monkeypatch.setattr(replay, "MIN_COMPILED_ELEMENTS", 0)
    monkeypatch.setattr(
        replay, "chained", lambda *given: made.append(chains.chained(*given)) or made[-1]
    )
    compiled = assert_the_loops(f, W, engine="traced")
    assert any(type(step) is Chain for steps in made for step in steps)
    assert compiled.tobytes() == plain.tobytes()
    if np.finfo(np.longdouble).eps < EPS:
        exact = exact_quotient(normalised_net(np.longdouble)[0], W, H)
        assert abs(compiled - exact).max() <= 4 * EPS * f(W) / H


def test_gradients_by_products_without_zeros_are_the_loops(monkeypatch):
    """Of hidden units that are off, in all versions that are computed together."""
    given = []
    multiply = matrix_products._compiled_versions()
    monkeypatch.setattr(
        matrix_products,
        "_compiled_versions",
        lambda: lambda out, a, b: given.append(a) or multiply(out, a, b),
    )
    monkeypatch.setattr(matrix_products, "MAX_COMMON_DENSITY", 0.75)
    monkeypatch.setattr(replay, "MIN_KERNEL_ELEMENTS", 0)
    shape = {"layers": 4, "hidden": 25}
    f, W = normalised_net(**shape)
    found = assert_the_loops(f, W, engine="traced")
    assert {a.shape[1:] for a in given} == {(8, 25)}
    assert all((a == 0).mean() > 0.25 for a in given)
    if np.finfo(np.longdouble).eps < EPS:
        exact = exact_quotient(normalised_net(np.longdouble, **shape)[0], W, H)
        assert abs(found - exact).max() <= 4 * EPS * f(W) / H


def test_products_with_what_is_not_finite_leave_nothing_out(monkeypatch):
    monkeypatch.setattr(matrix_products, "MAX_COMMON_DENSITY", 1.0)
    for factor, is_left_out in ((SQUARE, True), (np.where(SQUARE < 0, np.inf, SQUARE), False)):
        with np.errstate(invalid="ignore"):
            nodes, _ = recorded(lambda x, factor=factor: x @ factor)
        assert (batched.without_zeros(nodes[1]) is not None) == is_left_out


def test_what_numba_cannot_compile_is_computed_by_numpy(monkeypatch):
    f, W = normalised_net()
    plain = numerical_gradient(f, W, engine="traced")

    def refuse(source):
        raise NotImplementedError(source)

    monkeypatch.setattr(replay, "MIN_KERNEL_ELEMENTS", 0)
    monkeypatch.setattr(replay, "MIN_COMPILED_ELEMENTS", 0)
    monkeypatch.setattr(chains, "compiled", refuse)
    assert numerical_gradient(f, W, engine="traced").tobytes() == plain.tobytes()


def test_an_interrupt_of_numbas_compiler_is_raised(monkeypatch):
    def interrupted(source):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("generator raised StopIteration") from None

    nodes, target = recorded(lambda x: MORE["normalised"](x @ SQUARE))
    every = Replay(nodes, nodes[0], LABELS["columns"], target)
    monkeypatch.setattr(replay, "MIN_KERNEL_ELEMENTS", 0)
    monkeypatch.setattr(replay, "MIN_COMPILED_ELEMENTS", 0)
    monkeypatch.setattr(chains, "compiled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        every.compile_if_slow(1)
    assert not chains_of(every)


def test_short_replays_are_not_compiled():
    nodes, target = recorded(lambda x: MORE["normalised"](x @ SQUARE))
    every = Replay(nodes, nodes[0], LABELS["columns"], target)
    every.compile_if_slow(1)
    assert not chains_of(every)


def test_what_has_been_compiled_serves_other_values_of_the_same_operations(monkeypatch):
    monkeypatch.setattr(replay, "MIN_KERNEL_ELEMENTS", 0)
    monkeypatch.setattr(replay, "MIN_COMPILED_ELEMENTS", 0)
    sources = set()
    for constant in (1.0, 2.0):
        nodes, target = recorded(lambda x, c=constant: c * (x @ SQUARE) + c * A)
        every = Replay(nodes, nodes[0], LABELS["columns"], target)
        expected = np.concatenate([outcome.values for outcome in every.moved(versions(2))])
        every.compile_if_slow(1)
        found = np.concatenate([outcome.values for outcome in every.moved(versions(2))])
        assert found.tobytes() == expected.tobytes()
        sources |= {chain.source for chain in chains_of(every)}
    assert len(sources) == 1
