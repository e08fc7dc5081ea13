"""Workers compute what this process would, bit for bit, and none of them stays behind."""

import multiprocessing
import os
import random
import signal
import sys
import threading
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from fractions import Fraction
from types import SimpleNamespace

import elsewhere
import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import TwoLayerNet, numerical_gradient, schemes
from fastgrad.differences.quotients import join
from fastgrad.engines import processes, workers
from fastgrad.engines.workers import WorkItem
from fastgrad.typing import Moves

REPEATABLE = settings(derandomize=True, deadline=None)


@pytest.fixture(autouse=True)
def every_gradient_is_worth_processes(monkeypatch):
    monkeypatch.setattr(workers, "WORTHWHILE_SECONDS", 0)
    monkeypatch.setattr(workers, "MAX_START_SECONDS", 0)


def by_loop(f, x, workers=None, **options):
    return numerical_gradient(f, x, engine="loop", workers=workers, **options)


def product(n=300):
    """Return a function with a matrix product in it, whose bits depend on BLAS's threads."""
    matrix = np.random.default_rng(1).normal(size=(n, 40))
    return lambda x: float(np.tanh(x.reshape(-1) @ matrix).sum())


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_workers_give_the_same_bits_in_any_type(dtype):
    x = np.random.default_rng(0).normal(size=(20, 15)).astype(dtype)
    h = 1e-2 if dtype == np.float32 else 1e-4
    f, before = product(), x.copy()
    expected = by_loop(f, x, 1, h=h)
    result = by_loop(f, x, 2, h=h)
    assert result.dtype == dtype
    assert np.array_equal(result, expected)  # the padding of a longdouble may differ
    assert np.abs(expected).min() > 0
    assert np.array_equal(x, before)


def executors():
    spawned = multiprocessing.get_context("spawn")
    return [
        lambda: ThreadPoolExecutor(3),
        lambda: ProcessPoolExecutor(2, mp_context=spawned),
    ]


@pytest.mark.parametrize("executor", executors(), ids=["threads", "processes"])
def test_an_executors_map_gives_the_same_bits(executor):
    x, f = np.random.default_rng(0).normal(size=300), product()
    with executor() as running:
        result = by_loop(f, x, running.map)
    assert result.tobytes() == by_loop(f, x, 1).tobytes()


def test_a_pools_map_and_the_builtin_give_the_same_bits():
    x, f = np.random.default_rng(0).normal(size=300), product()
    expected = by_loop(f, x, 1)
    assert by_loop(f, x, map).tobytes() == expected.tobytes()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert by_loop(f, x, pool.map).tobytes() == expected.tobytes()
        pool.close()
        pool.join()


@pytest.mark.parametrize("scheme", ["forward", "complex", schemes.central(4)])
def test_every_scheme_is_served(scheme):
    x = np.random.default_rng(0).normal(size=100)
    result = by_loop(lambda x: (np.sin(x) * x).sum(), x, 2, scheme=scheme)
    expected = by_loop(lambda x: (np.sin(x) * x).sum(), x, 1, scheme=scheme)
    assert result.tobytes() == expected.tobytes()


def test_layouts_subclasses_and_lone_numbers_are_served():
    whole = np.random.default_rng(0).normal(size=(12, 10))
    for x in (whole.T, whole[::2, ::-1], np.asfortranarray(whole), np.array(2.0), np.empty(0)):
        result = by_loop(lambda x: (x**3).sum(), x, 2)
        assert result.tobytes() == by_loop(lambda x: (x**3).sum(), x, 1).tobytes()
        assert result.strides == by_loop(lambda x: (x**3).sum(), x).strides
    masked = np.ma.masked_array([1.0, 2.0, 3.0], mask=[False, True, False])
    assert isinstance(by_loop(lambda x: (x**2).sum(), masked, 2), np.ma.MaskedArray)


def test_whole_numbers_and_fractions_are_subtracted_as_ever():
    x = np.linspace(-1, 1, 50)
    for f in (lambda x: int(1e6 * x.sum()), lambda x: Fraction(float(x.sum())) ** 2):
        assert by_loop(f, x, 2).tobytes() == by_loop(f, x, 1).tobytes()


@settings(REPEATABLE, max_examples=40)
@given(
    st.lists(
        st.one_of(st.floats(-9, 9), st.integers(-9, 9), st.floats(-9, 9, width=32).map(np.float32)),
        min_size=1,
    ),
    st.integers(1, 5),
)
def test_values_are_joined_as_if_collected_at_once(numbers, size):
    def collected(values):
        array = np.array(values)
        return np.array(values, dtype=object) if array.dtype.kind in "biu" else array

    parts = [collected(numbers[i : i + size]) for i in range(0, len(numbers), size)]
    joined, expected = join(parts), collected(numbers)
    assert joined.dtype == expected.dtype
    assert joined.tolist() == expected.tolist()


def test_a_short_loop_is_not_worth_processes(monkeypatch):
    monkeypatch.setattr(workers, "WORTHWHILE_SECONDS", 100)
    monkeypatch.setattr(processes, "start", _refuse)
    x = np.arange(30.0)
    assert by_loop(np.sum, x, 2).tobytes() == by_loop(np.sum, x, 1).tobytes()


def test_this_process_begins_while_the_first_processes_start(monkeypatch):
    x, calls = np.arange(500.0), []

    def f(x):
        calls.append(0)
        return (x**2).sum()

    def start(workers, fresh):
        return SimpleNamespace(is_set=lambda: len(calls) >= 50)

    monkeypatch.setattr(processes, "start", start)
    monkeypatch.setattr(workers, "MAX_START_SECONDS", 1e6)
    result = by_loop(f, x, 2)
    assert 50 <= len(calls) < 1000
    assert result.tobytes() == by_loop(lambda x: (x**2).sum(), x, 1).tobytes()


# f reads x elsewhere


def in_a_cell(x):
    return lambda _: float((x**3).sum())


def in_an_attribute(x):
    net = SimpleNamespace(params={"W": x})
    return lambda _: float((net.params["W"] ** 3).sum())


def in_another_function(x):
    def loss():
        return float((x**3).sum())

    return lambda _: loss()


def as_a_view_of_it(x):
    views = x.reshape(-1)[5:], x.reshape(-1)[:5], x.T
    return lambda _: float((views[0] ** 3).sum() + (views[1] ** 3).sum() + views[2][0, 0])


@pytest.mark.parametrize(
    "function", [in_a_cell, in_an_attribute, in_another_function, as_a_view_of_it]
)
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_function_that_reads_x_elsewhere_reads_the_copy_that_is_moved(function, order):
    x = np.asarray(np.random.default_rng(0).normal(size=(10, 6)), order=order)
    if function is as_a_view_of_it and order == "F":
        x = x.T
    f = function(x)
    result = by_loop(f, x, 2)
    assert np.abs(result).min() > 0
    assert result.tobytes() == by_loop(f, x, 1).tobytes()


def test_x_may_be_a_view_of_what_the_function_reads():
    theta = np.random.default_rng(0).normal(size=60)
    w, b = theta[:50].reshape(5, 10), theta[50:]
    for x in (w, b, w[1:3, ::2], theta):
        result = by_loop(lambda _: float((theta**3).sum() + (w @ b).sum()), x, 2)
        assert np.abs(result).min() > 0
        assert (
            result.tobytes()
            == by_loop(lambda _: float((theta**3).sum() + (w @ b).sum()), x, 1).tobytes()
        )


def test_a_nets_parameters_are_differenced_in_its_loss():
    np.random.seed(0)
    net = TwoLayerNet(4, 3, 2, weight_init_std=1)
    x, t = np.random.rand(5, 4), np.array([0, 1, 1, 0, 1])
    result = by_loop(lambda _: net.loss(x, t), net.params["W1"], map)
    np.testing.assert_allclose(result, net.gradient(x, t)["W1"], rtol=0, atol=1e-7)


def test_structures_and_arguments_travel_too():
    x = {"W": np.random.default_rng(0).normal(size=(6, 5)), "b": [np.ones(5)]}
    scale = np.arange(5.0)

    def f(params, scale, power):
        return float(((params["W"] * scale + params["b"][0]) ** power).sum())

    result = by_loop(f, x, 2, args=(scale, 3))
    expected = by_loop(f, x, 1, args=(scale, 3))
    assert result["W"].tobytes() == expected["W"].tobytes()
    assert result["b"][0].tobytes() == expected["b"][0].tobytes()


@pytest.mark.parametrize(
    ("f", "how"),
    [(elsewhere.one_square, 2), (elsewhere.one_square, map), (elsewhere.all_squares, map)],
    ids=["one, processes", "one, map", "all, map"],
)
def test_a_modules_global_is_never_differenced_as_a_constant(f, how):
    x, before = elsewhere.table, elsewhere.table.copy()
    expected = by_loop(f, x, 1)
    with pytest.warns(RuntimeWarning, match="another value in a worker.*module's global"):
        result = by_loop(f, x, how)
    assert result.tobytes() == expected.tobytes()
    assert (x == before).all()


def test_a_function_without_a_finite_test_value_is_left_to_this_process():
    x = np.ones(30)
    with pytest.warns(RuntimeWarning, match=r"alone: it is nan, infinite or raises.*at once"):
        result = by_loop(
            lambda x: x.sum() if abs(x - 1).max() > 9 or sum(x != 1) < 2 else 1 / 0, x, 2
        )
    assert result.tobytes() == by_loop(lambda x: x.sum(), x, 1).tobytes()


# Failures


def make_failing(error, x, place, *arguments):
    """Return f that raises where one element alone is moved, but at no test point."""
    before = x.copy()

    def f(x):
        moved = x != before
        if moved[place] and moved.sum() == 1:
            raise error(*arguments)
        return x.sum()

    return f


@pytest.mark.parametrize("how", [2, None], ids=["processes", "map"])
def test_what_f_raises_in_a_worker_is_raised_here(how):
    class Mine(Exception):
        pass

    x = np.ones(100)
    f = make_failing(Mine, x, 50, "too far")
    with pytest.raises(Mine, match="too far") as raised:
        by_loop(f, x, how or map)
    assert "in f\n" in str(raised.value.__cause__)
    assert (x == 1).all()


def test_an_exception_that_cannot_travel_is_named():
    class Two(Exception):
        def __init__(self, first, second):
            super().__init__(f"{first}{second}")

    x = np.ones(100)
    with pytest.raises(RuntimeError, match="f raised Two: ab"):
        by_loop(make_failing(Two, x, 50, "a", "b"), x, 2)


def test_a_killed_worker_is_an_error():
    x = np.ones(100)

    def f(y):
        if (y != 1).sum() == 1 and y[70] != 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return y.sum()

    with pytest.raises(RuntimeError, match="a worker process ended before its task"):
        by_loop(f, x, 2)
    assert (x == 1).all()
    assert by_loop(lambda y: y.sum(), x, 2).round(6).tolist() == [1] * 100


def test_what_cannot_be_sent_is_refused():
    lock, x = threading.Lock(), np.ones(30)
    with pytest.raises(TypeError, match=r"f, or what it reads, cannot be sent.*lock"):
        by_loop(lambda x: x.sum() if lock else 0, x, 2)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(0, ValueError), (-2, ValueError), (True, TypeError), (2.5, TypeError), ("2", TypeError)],
)
def test_workers_must_be_a_number_or_a_map(wrong, error):
    with pytest.raises(error, match=r"workers is .*; pass a number of processes, -1 for all"):
        by_loop(np.sum, np.ones(3), wrong)


def test_all_cores_are_minus_one():
    assert workers.count(-1) >= 1
    assert workers.count(np.int64(3)) == 3


def test_a_map_must_keep_the_order_and_the_number(monkeypatch):
    monkeypatch.setattr(workers, "MAX_CHUNK_SECONDS", 0)  # a chunk for each point
    x = np.linspace(0, 1, 9)

    def backwards(function, items):
        return [function(item) for item in items][::-1]

    with pytest.raises(ValueError, match="workers returned 0 results for"):
        by_loop(np.sum, x, lambda function, items: [])
    with pytest.raises(ValueError, match="answer to another chunk"):
        by_loop(np.sum, x, backwards)


@pytest.mark.parametrize(
    "returned",
    [
        lambda results: None,
        lambda results: 7,
        lambda results: [1],
        lambda results: "results",
        lambda results: [results],
        lambda results: [*results, 1],
        lambda results: results * 2,
        lambda results: [result.values for result in results],
    ],
)
def test_a_map_that_returns_nonsense_is_refused_in_its_name(returned):
    def nonsense(function, items):
        return returned([function(item) for item in items])

    with pytest.raises((TypeError, ValueError), match=r"workers returned .*; pass a callable"):
        by_loop(lambda x: (x**2).sum(), np.ones(5), nonsense)


@pytest.mark.parametrize("package", ["loky", "cloudpickle", "psutil", "threadpoolctl"])
def test_a_missing_package_is_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    for how in (2, map):
        with pytest.raises(ModuleNotFoundError, match=rf"workers need {package}.*\[workers\]"):
            by_loop(np.sum, np.ones(3), how)
    assert by_loop(np.sum, np.ones(3), 1).round(6).tolist() == [1, 1, 1]


def test_blas_has_one_thread_in_workers_and_its_own_again_here(threadpools):
    x = np.ones(40)

    def f(x):
        threads = [library["num_threads"] for library in threadpools()]
        if max(threads, default=1) > 1:
            raise RuntimeError(f"threads: {threads}")
        return (x[:20] @ x[20:]).sum()

    before = threadpools()
    by_loop(f, x, 2)
    assert threadpools() == before


@REPEATABLE
@given(st.integers(1, 10**5), st.floats(0, 10), st.integers(0, 64), st.integers(1, 2000))
def test_chunks_keep_their_limits(places, each, number, outputs):
    x = np.zeros((places, 1))
    item = WorkItem(0, Moves(np.arange(places), x, (outputs,)), [], {})
    size = workers._chunk_size(places, each, number, item)
    assert size * each <= workers.MAX_CHUNK_SECONDS or size == 1
    assert size * outputs * x.itemsize <= workers.MAX_CHUNK_BYTES or size == 1
    assert size * number * workers.CHUNKS_PER_WORKER <= places or size == 1 or not number


def test_python_threads_may_use_workers_at_the_same_time(threadpools):
    before = threadpools()
    x, f = np.random.default_rng(0).normal(size=300), product()
    expected = by_loop(f, x, 1)
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(by_loop(product(), x.copy(), 2)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.tobytes() for result in results] == 2 * [expected.tobytes()]
    assert threadpools() == before


def gradient_of_squares(x):
    return numerical_gradient(lambda x: (x**2).sum(), x, engine="loop", workers=2)


@pytest.mark.parametrize(
    "method", sorted({"fork", "spawn"} & {*multiprocessing.get_all_start_methods()})
)
def test_a_pools_workers_that_may_not_start_processes_compute_themselves(method):
    x = np.arange(30.0)
    by_loop(lambda x: x.sum(), x, 2)  # so that a forked process knows of ours
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of fork, beside threads
        with multiprocessing.get_context(method).Pool(1) as pool:
            result = pool.apply(gradient_of_squares, (x,))
            pool.close()
            pool.join()
    assert result.tobytes() == gradient_of_squares(x).tobytes()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a fork")
def test_a_forked_process_has_workers_of_its_own():
    x = np.arange(300.0)
    expected = gradient_of_squares(x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if not process:
        code = 1
        try:
            code = int(gradient_of_squares(x).tobytes() != expected.tobytes())
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0


def test_an_interrupt_may_strike_at_any_time(strike, wait_until):
    x = np.arange(100.0)
    before, dice = x.tobytes(), random.Random(0)

    def slow(x):
        time.sleep(1e-4)
        return (x**2).sum()

    by_loop(slow, x, 2)
    here = psutil.Process()
    idle = len(here.children(recursive=True))
    for _ in range(30):
        strike(dice.uniform(1e-3, 0.05), lambda: by_loop(slow, x, 2))
        assert x.tobytes() == before
    wait_until(lambda: len(here.children(recursive=True)) <= idle)


def test_an_interrupt_does_not_divide_what_a_future_does(monkeypatch, strike):
    x = np.arange(100.0)
    by_loop(np.sum, x, 2)
    divided = []

    def struck(method):
        def wrapper(*arguments):
            if threading.current_thread() is threading.main_thread():
                try:
                    signal.raise_signal(signal.SIGALRM)
                except KeyboardInterrupt:
                    divided.append(method.__name__)
                    raise
            return method(*arguments)

        return wrapper

    for name in ("result", "done", "add_done_callback", "cancel"):
        monkeypatch.setattr(Future, name, struck(getattr(Future, name)))
    with pytest.raises(KeyboardInterrupt):
        by_loop(np.sum, x, 2)
    assert not divided


# What needs no workers


def test_a_function_that_is_traced_is_not_sent_anywhere():
    data = np.random.default_rng(1).normal(size=(200, 30))
    w = np.random.default_rng(0).normal(size=(30, 20))
    result = numerical_gradient(lambda w: np.tanh(data @ w).sum(), w, workers=_refuse)
    expected = numerical_gradient(lambda w: np.tanh(data @ w).sum(), w, engine="traced")
    assert result.tobytes() == expected.tobytes()


def _refuse(*arguments):
    raise AssertionError("not needed")


def test_automatic_steps_are_measured_by_the_workers_too():
    x = np.random.default_rng(0).normal(size=40)
    result = by_loop(lambda x: np.exp(x).sum(), x, 2, h="auto")
    assert result.tobytes() == by_loop(lambda x: np.exp(x).sum(), x, 1, h="auto").tobytes()
