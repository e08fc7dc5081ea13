"""Recordings have bounds, and what is refused says why and where."""

import tracemalloc

import numpy as np
import pytest
from looped import assert_the_loops
from nets import H

from fastgrad import numerical_gradient
from fastgrad.engines import loop
from fastgrad.tracing import recorder, trace
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.stand_in import Recorded
from fastgrad.tracing.trace import trace_call

R = np.random.default_rng(0)
X, Y = R.normal(size=(30, 6)), R.normal(size=30)
W0 = R.normal(size=(6, 4))


pytestmark = pytest.mark.usefixtures("cheap_functions_traced")


def reason_of(f, x):
    with pytest.raises(NotTraceable) as refused:
        trace_call(f, x, H)
    return str(refused.value)


# Bounds ------------------------------------------------------------------------------------------


def test_very_many_small_operations_go_to_the_loop_early(monkeypatch):
    D = R.normal(size=3000)
    noted = []
    stop = recorder.Recording.stop

    def noting(self, *reason):
        noted.append(len(self.nodes))
        return stop(self, *reason)

    monkeypatch.setattr(recorder.Recording, "stop", noting)

    def f(x):
        s = 0.0
        for d in D:
            s = s + (x[0] - d) ** 2
        return s

    x = np.ones(10)
    assert numerical_gradient(f, x).tobytes() == loop.gradient(f, x, H).tobytes()
    assert noted
    assert max(noted) < 2 * len(D)


def test_data_in_many_objects_is_not_looked_through_for_long(monkeypatch):
    monkeypatch.setattr(trace, "MIN_RECORDING_SECONDS", 0.03)
    rows = [[float(i), "name"] for i in range(200_000)]

    def f(W):
        return np.sum(np.tanh(X @ W)) + 0 * len(rows)

    with pytest.raises(NotTraceable, match="reach so many objects"):
        trace_call(f, W0.copy(), H, calls=20, is_limited=True)


def test_assignments_one_after_the_other_take_the_memory_of_one():
    images = R.normal(size=(4, 30, 30))

    def f(W):
        out = np.zeros((4, 3, 28, 28))
        for n in range(4):
            for i in range(28):
                out[n, :, i, :] = (images[n, i, :9] @ W[:, :3])[:, np.newaxis] * images[n, i, 2:]
        return np.mean(out**2)

    W = R.normal(size=(9, 9))
    tracemalloc.start()
    try:
        f(W)
        plain = tracemalloc.get_traced_memory()[1]
        numerical_gradient(f, W, engine="traced")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < plain + 20e6
    assert_the_loops(f, W)


def test_memory_has_a_bound(monkeypatch):
    monkeypatch.setattr(recorder, "MAX_BYTES", 10_000)

    def f(W):
        z = X @ W
        for _ in range(40):
            z = np.tanh(z)
        return np.sum(z)

    assert "take more than" in reason_of(f, W0.copy())


# What a refusal says -----------------------------------------------------------------------------


def test_a_refusal_names_the_function_its_line_and_a_remedy():
    def inner(z):
        if z.sum() > 0:
            return z
        return -z

    def f(W):
        return np.sum(inner(X @ W))

    line = inner.__code__.co_firstlineno + 1
    said = reason_of(f, W0.copy())
    assert f"(in inner, line {line} of test_trace.py); write np.where" in said

    said = reason_of(lambda W: np.ndarray.sum(W), W0.copy())
    assert "doesn't apply to a stand-in for an array (in" in said

    def outer(W):
        raise_in(W)
        return np.sum(W)

    def raise_in(W):
        if isinstance(W, Recorded):
            raise ValueError("mine")

    line = raise_in.__code__.co_firstlineno + 2
    assert f"ValueError: mine (in raise_in, line {line} of" in reason_of(outer, W0.copy())
