"""A recorded f gets what it gets otherwise, and NumPy is left alone."""

import dataclasses
import gc
import math
import os
import pickle
import threading
import types
from functools import partial

import numpy as np
import pytest
from nets import EPS, H

from fastgrad import cross_entropy_error, numerical_gradient, sigmoid, softmax
from fastgrad.engines import loop
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.stand_in import Recorded
from fastgrad.tracing.trace import trace_call

R = np.random.default_rng(0)
X, Y = R.normal(size=(30, 6)), R.normal(size=30)
W0 = R.normal(size=(6, 4))


pytestmark = pytest.mark.usefixtures("cheap_functions_traced")


def assert_the_loops(f, x, engine="auto"):
    before = x.tobytes()
    got = numerical_gradient(f, x, engine=engine)
    assert x.tobytes() == before
    expected = loop.gradient(f, x, H)
    scale = max(1.0, abs(float(f(x))))
    assert np.abs(got - expected).max() <= 16 * EPS * scale / H


# The same as without recording -------------------------------------------------------------------


def at_a_kink(values):
    """Return parameters of which one is within a step of where ``max(w - 1, 0)`` has its kink."""
    w = values.reshape(-1)[:20].copy() * 0.5
    w[7] = 1 - 3e-5
    return w


def filled(W):
    mean = X @ W[:, 0]
    s = np.full_like(mean, np.exp(W[0, 1]))
    t = np.full(mean.shape, np.exp(W[0, 2]))
    return (0.5 * ((Y - mean) / s) ** 2 + np.log(s) * t).sum()


def like(W):
    z = X @ W
    a, b, c = np.zeros_like(z), np.ones_like(z), np.empty_like(z)
    a[:, 0], b[2] = z[:, 1] ** 2, np.tanh(z[0])
    c[...] = z
    return (a * b + c**2).sum()


def filled_anew(W):
    D, total = np.zeros((6, 3)), 0.0
    for k in range(3):
        D[...] = 0
        D[:, k] = 1
        total = (
            total + np.sum((X @ D - 1) * (X @ (W @ np.ones((4, 3)) + D))) + (W[0] * D[0, k]).sum()
        )
    return total


def of_no_copy(W):
    z = X @ W
    y = z.astype(np.float64, copy=False)
    y[y < 0] = 0
    return (z**2).sum() + 3 * z.sum()


def cleaned(W):
    z = np.log(X @ W)
    with np.errstate(invalid="ignore"):
        np.nan_to_num(z, copy=False, nan=-1.0, neginf=-2.0)
    return (z**2).sum()


def copied(W):
    return (
        ((X @ W).T.copy() ** 2).sum()
        + (X @ W).T.copy().reshape(-1)[3]
        + np.copy((X @ W).T).ravel()[7]
    )


def as_arrays(W):
    z = np.asarray(X @ np.asarray(W))
    a = np.array(np.ascontiguousarray(z.T))
    a[0] = 1
    return (z**2).mean() + np.array([z[0, 0], a[1, 2], 3]).sum() + np.sum(np.array([z, a.T]) ** 2)


def of_scalars(W):
    def leaky(v):
        return (v if v > 0 else 0.1 * v) if np.isscalar(v) else np.maximum(v, 0.1 * v)

    return leaky(X @ W).sum() + leaky(W[:1, :2].sum() + 9)


def of_classes(W):
    z = np.sum(np.tanh(X @ W))
    known = type(z) is np.float64, isinstance(z, float), type(W) in (np.ndarray, list)
    return z * sum(known) + isinstance(W, np.ndarray)


def of_floats(W):
    z = X @ W
    return float(np.sum(z**2)) / len(z) + 0.5 * float(np.sum(W**2)) - float(z[0, 0])


BUFFER = np.empty((30, 4))


def buffered(W):
    np.dot(X, W, out=BUFFER)
    buffer = BUFFER
    buffer *= 0.5
    buffer[0] = 0
    buffer[1] += W[0]
    return np.sum(BUFFER**2)


def narrowed(W):
    z = (X @ W).astype(np.float32)
    return float(np.sum(z.astype(float) ** 2)) + (W.astype(np.uint8) * 0.0).sum()


def swallowing(W):
    try:
        z = np.interp(W[0], [0, 1], [0, 2])
    except Exception:
        z = W[0]
    return z.sum() + np.sum(W**2)


def joined(W):
    z = np.tanh(X @ W)
    loss = np.sum(np.c_[z[:, 0], Y] @ np.r_[W[0, 0], W[1, :1]]) + np.sum(np.r_[z, z] ** 2)
    return loss + np.mean([np.sum(row**2) for row in z]) + len(np.r_[0:3])


def hashed(W):
    seen = {}
    return np.sum(seen.setdefault(np.sum(W), W) ** 2)


def solved(W):
    try:
        return np.linalg.inv(W[:4] * 0).sum() + np.sum(W)
    except np.linalg.LinAlgError:
        return np.sum(W**2)


def of_masked_arrays(W):
    return np.sum((np.ma.masked_less(X, 0) * W[:, 0]) ** 2)


def of_complex(W):
    return np.sum((abs((X[:, :6] + 1e-4j) @ W) - 2) ** 2)


def through_files(W):
    return float(np.sum(pickle.loads(pickle.dumps(X @ W)) ** 2))


def summed(W):
    return math.fsum((100 * np.maximum(abs(W) - 1, 0).sum(), (W**2).sum()))


def longest(W):
    return math.hypot(100 * np.maximum(abs(W) - 1, 0).sum(), np.sum(W**2))


def largest(W):
    return max(map(float, (1000 * np.maximum(abs(W) - 1, -1e-9).sum(), -1.0, (W**2).sum() - 1e3)))


def cached(W):
    from functools import cache

    @cache
    def layer(i):
        return np.tanh(X @ W) * i

    return np.sum(layer(1) + layer(2) * layer(1))


ALL = [
    filled, like, filled_anew, of_no_copy, cleaned, copied, as_arrays, of_scalars, of_classes,
    of_floats, buffered, joined, narrowed, swallowing, hashed, solved, of_masked_arrays, of_complex,
    through_files,
    summed, longest, largest, cached,
]  # fmt: skip

TRACED = {
    filled,
    like,
    filled_anew,
    of_no_copy,
    copied,
    as_arrays,
    of_floats,
    of_classes,
    buffered,
    cached,
}


@pytest.mark.filterwarnings("ignore:invalid value|divide by zero:RuntimeWarning")
@pytest.mark.parametrize("f", ALL, ids=lambda f: f.__name__)
def test_what_f_computes_while_it_is_recorded_is_what_it_computes(f):
    for x in (W0.copy(), np.zeros((6, 4)), np.abs(W0)):
        if f in (summed, longest, largest):
            x[2, 1] = 1 - 3e-5
        if np.isfinite(f(x)):
            assert_the_loops(f, x)
    if f in TRACED:
        numerical_gradient(f, W0.copy(), engine="traced")


def test_classes_that_are_compared_with_float_are_as_ever():
    @dataclasses.dataclass
    class State:  # whose own methods compare classes
        loss: float = 0.0

    state = State()

    def noted(W):
        state.loss = float(np.sum(np.tanh(X @ W)))
        return state.loss

    def compared(W):
        loss = float(np.sum(np.tanh(X @ W)))
        return loss if type(loss) is float and loss.__class__ is float else -loss

    def converted(W):
        return np.sum(W.astype(float) ** 2) + isinstance(1.0, float) + np.zeros(2, dtype=float)[0]

    code = converted.__code__
    assert_the_loops(noted, W0.copy(), "traced")
    assert type(state.loss) is float
    assert_the_loops(converted, W0.copy(), "traced")
    assert converted.__code__ is code
    assert_the_loops(compared, W0.copy())
    with pytest.raises(NotTraceable, match="converted to a float"):
        trace_call(compared, W0.copy(), H)
    assert not any(name.endswith((" float", " type")) for name in globals())


def test_the_packages_formulas_are_traced():
    V, t = R.normal(size=(4, 3)), R.integers(0, 3, 30)
    for targets in (t, np.eye(3)[t]):
        loss = partial(cross_entropy_error, t=targets)
        assert_the_loops(
            lambda W, loss=loss: loss(softmax(sigmoid(X @ W) @ V)), W0.copy(), "traced"
        )


def test_x_changed_through_a_view_is_refused():
    p = np.random.default_rng(1).normal(size=24)
    W = p.reshape(6, 4)
    W[2, 1] = 0

    def pruned(p):
        W[2, 1] = 0
        return (np.tanh(X @ W) ** 2).mean() + ((p - 0.5) ** 2).sum()

    with pytest.raises(NotTraceable, match=r"it changes x.*x\.copy\(\)"):
        trace_call(pruned, p, H)


def test_arrays_in_tuples_are_found_and_put_back():
    x, buffer = W0.copy(), np.zeros((30, 4))
    net = types.SimpleNamespace(cache=(x, "name", buffer, x.T), calls=[(x, x)])
    before = net.cache

    def f(_, kept=buffer, scale=x[0]):
        kept[:] = np.tanh(X @ net.cache[0])
        return np.sum(net.cache[2] ** 2) + np.sum(net.cache[3].T * net.calls[0][1]) + np.sum(scale)

    defaults = f.__defaults__
    assert_the_loops(f, x, "traced")
    assert net.cache is before
    assert f.__defaults__ is defaults
    assert np.array_equal(buffer, np.tanh(X @ x))


def test_x_may_be_a_view_with_its_axes_in_any_order():
    assert_the_loops(lambda x: np.sum(x**2), np.arange(24.0).reshape(6, 4)[::-2, ::3].T, "traced")


# NumPy is left alone -----------------------------------------------------------------------------


def test_random_numbers_drawn_after_a_buffer_are_plain():
    def dropout(W):
        np.random.seed(3)
        col = np.zeros((30, 4))
        col[:] = X @ W
        mask = np.random.rand(30, 4) > 0.3
        noise = np.random.randn(30, 4) + np.random.default_rng(0).normal(size=(30, 4))
        assert type(mask) is type(noise) is np.ndarray
        return (col * mask + noise).sum()

    for _ in range(10):
        assert_the_loops(dropout, W0.copy(), "traced")


def test_numpy_itself_is_never_changed(monkeypatch):
    functions = {name: id(value) for name, value in vars(np).items()}
    seen = []

    def f(W):
        import numpy

        seen.append({name: id(value) for name, value in vars(numpy).items()} == functions)
        z = np.zeros((30, 4))
        z[...] = X @ W
        return np.sum(z**2)

    assert_the_loops(f, W0.copy(), "traced")
    assert seen
    assert all(seen)


def test_other_threads_get_plain_arrays_from_the_same_functions():
    stop, odd = threading.Event(), []

    def create():
        return np.zeros(3), np.asarray(np.ones(2)), np.full(2, 1.0), X @ np.ones(6), float(Y[0])

    def work():
        while not stop.is_set():
            odd.extend(a for a in create() if isinstance(a, Recorded))

    def f(W):
        z, _ = np.zeros((30, 4)), create()
        z[...] = X @ W
        return float(np.sum(z**2))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(20):
            numerical_gradient(f, W0.copy(), engine="traced")
    finally:
        stop.set()
        thread.join()
    assert not odd


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_fork_while_another_thread_is_recorded_leaves_nothing_of_it_in_the_child():
    """Neither the lock, nor stand-ins, nor a moved x, nor paused garbage collection."""
    held, recorded, forked = {"W": W0.copy()}, threading.Event(), threading.Event()
    before = held["W"].tobytes()
    waits = [True]

    def f(_):
        loss = np.sum(np.tanh(X @ held["W"]))
        if waits and not gc.isenabled():  # as while f is recorded
            recorded.set()
            forked.wait(60)
        return loss

    results = []
    work = lambda: results.append(numerical_gradient(f, held["W"], engine="traced"))  # noqa: E731
    thread = threading.Thread(target=work)
    thread.start()
    assert recorded.wait(60)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            waits.clear()
            is_left = type(held["W"]) is not np.ndarray or held["W"].tobytes() != before
            work()
            code = 2 * is_left + 4 * (not gc.isenabled()) + 8 * (len(results) != 1)
        finally:
            os._exit(code)
    forked.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(results) == 1
    assert held["W"].tobytes() == before


def test_what_threads_compute_for_f_is_not_taken_for_constant():
    def f(W):
        results = []
        thread = threading.Thread(target=lambda: results.append(np.sum(np.tanh(X @ W))))
        thread.start()
        thread.join()
        return np.sum(W**2) + results[0]

    with pytest.raises(NotTraceable, match="another thread"):
        trace_call(f, W0.copy(), H)
    assert_the_loops(f, W0.copy())
