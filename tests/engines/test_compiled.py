"""The compiled loop gives the loop's bits, on any threads, and leaves x and f alone."""

import gc
import multiprocessing
import os
import threading
import weakref
from collections import namedtuple
from concurrent.futures import ThreadPoolExecutor
from unittest import mock

import hypothesis.extra.numpy as hnp
import numba
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba.core.errors import NumbaError
from oracle import JIT

from fastgrad import numerical_gradient
from fastgrad.engines import compiled
from fastgrad.jit import concurrency, jitted
from fastgrad.schemes import central, forward

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=40)
needs_jit = pytest.mark.skipif(not JIT, reason="numba compiles nothing here")


@numba.njit
def wave(x):
    total = 0.0
    for value in x.flat:
        total += np.sin(value) * value + total / 3
    return total


@numba.njit
def rosenbrock(x, a):
    total = 0.0
    for i in range(x.size - 1):
        total += a * (x[i + 1] - x[i] ** 2) ** 2 + (1 - x[i]) ** 2
    return total


@numba.njit
def picky(x, fatal):
    if x[0] > fatal:
        raise ValueError("first", 1)
    if x[-1] > fatal:
        raise KeyError("last", 2.5)
    return x.sum()


TIERS = ["numbers", "lanes"] if JIT else ["numbers"]


@pytest.fixture(params=TIERS)
def each_tier(request, monkeypatch):
    """Evaluate one point at a time, and, where that is possible, several."""
    worth = -np.inf if request.param == "lanes" else np.inf
    monkeypatch.setattr(jitted, "LANES_SECONDS", worth)


def numbers(size=400, seed=0):
    return np.random.default_rng(seed).normal(size=size)


@pytest.fixture
def busy_threads(monkeypatch):
    """Let threads start for any work, on two threads at least."""
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    monkeypatch.setattr(numba, "get_num_threads", lambda: 3)


@REPEATABLE
@given(
    x=hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=0, max_dims=2, max_side=4),
        elements=st.floats(-100, 100, width=32),
    ),
    order=st.sampled_from("CF"),
    reverse=st.booleans(),
    scheme=st.sampled_from([central(), central(4), forward()]),
)
@example(x=np.float32([[1, 2], [3, 4]]), order="F", reverse=True, scheme=central())
def test_bits_are_the_loops_for_any_shape_layout_and_scheme(x, order, reverse, scheme):
    x = np.asarray(x, order=order)
    x = x[::-1] if reverse and x.ndim else x
    before = x.tobytes("A")
    results = []
    for worth, engine in [(np.inf, "compiled"), (-np.inf, "compiled"), (0.0, "auto"), (0, "loop")]:
        with mock.patch.object(jitted, "LANES_SECONDS", worth):
            results.append(numerical_gradient(wave, x, 1e-2, engine=engine, scheme=scheme))
    assert len({result.tobytes("A") for result in results}) == 1
    assert (results[0].dtype, results[0].strides) == (results[-1].dtype, results[-1].strides)
    assert x.tobytes("A") == before


@pytest.mark.parametrize("count", [1, 2, 3, 7])
@pytest.mark.parametrize("size", [1, 2, 400])
@pytest.mark.usefixtures("each_tier")
def test_bits_are_the_same_for_any_number_of_threads(count, size, monkeypatch):
    expected = numerical_gradient(rosenbrock, numbers(size), args=(3.0,), engine="loop")
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    monkeypatch.setattr(numba, "get_num_threads", lambda: count)
    for _ in range(5):
        result = numerical_gradient(rosenbrock, numbers(size), args=(3.0,), engine="compiled")
        assert result.tobytes() == expected.tobytes()


def test_the_complex_step_is_served():
    x = numbers(9)
    result = numerical_gradient(wave, x, "auto", scheme="complex", engine="compiled")
    assert result.tobytes() == numerical_gradient(wave, x, "auto", scheme="complex").tobytes()
    loops = numerical_gradient(wave, x, "auto", scheme="complex", engine="loop")
    assert result.tobytes() == loops.tobytes()

    @numba.njit
    def real(x):
        return np.abs(x).sum()

    with pytest.raises(TypeError, match=r"f returned .* complex"):
        numerical_gradient(real, x, "auto", scheme="complex", engine="compiled")


@pytest.mark.usefixtures("each_tier")
def test_steps_and_bounds_are_served():
    x = abs(numbers(20))
    options = {"h": np.full(20, 1e-3), "relative": True, "bounds": (0, np.inf), "args": (3.0,)}
    results = [numerical_gradient(rosenbrock, x, engine=e, **options) for e in ("compiled", "loop")]
    assert results[0].tobytes() == results[1].tobytes()


@pytest.mark.parametrize("kind", [np.int64, np.uint64, np.bool_, np.float32])
@needs_jit
def test_values_of_any_type_are_subtracted_as_pythons(kind):
    @numba.njit
    def f(x):
        return kind(0) if x[0] > 0 else kind(1)

    results = [numerical_gradient(f, np.zeros(2), engine=e) for e in ("compiled", "loop")]
    assert results[0].tolist() == results[1].tolist() == [-1 / 2e-4, 0]


Point = namedtuple("Point", ["weights", "rest"])


@pytest.mark.parametrize("form", [lambda *parts: parts, Point])
def test_tuples_and_named_tuples_of_arrays_are_served(form):
    @numba.njit
    def f(x, scale):
        return scale * (x[0] ** 2).sum() * x[1][0].sum() + x[1][1].sum()

    x = form(np.array([[1.0, 2.0]]), (np.array([3.0]), np.array([4.0, 5.0], np.float32)))
    result = numerical_gradient(f, x, 1e-2, args=(2.0,), engine="compiled")
    looped = numerical_gradient(f, x, 1e-2, args=(2.0,), engine="loop")
    assert type(result) is type(x)
    assert result[0].tolist() == looped[0].tolist()
    assert result[0].round(6).tolist() == [[12, 24]]
    assert result[1][0].tolist() == looped[1][0].tolist()
    assert result[1][1].tolist() == looped[1][1].tolist()
    assert x[0].tolist() == [[1, 2]]


@needs_jit
@pytest.mark.parametrize("engine", ["auto", "compiled"])
def test_dicts_are_refused_with_the_remedy(engine):
    with pytest.raises(TypeError, match=r"x is a dict, which .* pass a tuple of arrays"):
        numerical_gradient(wave, {"a": np.ones(2)}, engine=engine)


@needs_jit
def test_lists_are_refused_with_the_remedy():
    with pytest.raises(ValueError, match="x is in a list; pass engine='auto' or 'loop'"):
        numerical_gradient(wave, [np.ones(2)], engine="compiled")


def test_functions_that_numba_has_not_compiled_are_refused():
    if not JIT:
        assert numerical_gradient(never_moved, np.ones(2), engine="compiled").tolist() == [0, 0]
        return
    with pytest.raises(TypeError, match=r"f is a function, which .*decorate it with @numba\.njit"):
        numerical_gradient(never_moved, np.ones(2), engine="compiled")


def never_moved(x):
    return 1.0


@needs_jit
@pytest.mark.parametrize("unserved", ["longdouble", "swapped", "alias", "array", "list", "objects"])
def test_what_cannot_be_compiled_goes_through_the_loop(unserved):
    f, x, args = wave, numbers(4), ()
    if unserved in ("longdouble", "swapped"):
        f = numba.jit(total, forceobj=True)
        x = x.astype(np.longdouble if unserved == "longdouble" else ">f8")
    elif unserved == "alias":
        f, args = numba.njit(product), (x[::-1],)
    elif unserved == "objects":
        f, args = numba.jit(product, forceobj=True), (np.array([1.0, 2.0, 3.0, 4.0], object),)
    elif unserved == "array":
        f = numba.njit(total_in_an_array)
    else:
        f, args = numba.jit(weighed, forceobj=True), ({"weight": 2.0},)
    try:
        f(x, *args)
    except NumbaError:
        pytest.skip("this numba's functions do not take such arguments at all")
    expected = numerical_gradient(f, x, args=args, engine="loop")
    assert (numerical_gradient(f, x, args=args) == expected).all()
    with pytest.raises(ValueError, match="engine is 'compiled', which cannot serve f: "):
        numerical_gradient(f, x, args=args, engine="compiled")


def total(x):
    return np.sum(np.sin(x))


def product(x, y):
    return (x * y).sum()


def total_in_an_array(x):
    return np.array([x.sum()])


def weighed(x, weights):
    return x.sum() * weights["weight"]


@needs_jit
def test_an_x_that_f_also_reads_as_a_constant_is_refused():
    x = np.arange(3.0)
    inner = numba.njit(lambda y: (y - x).sum())

    @numba.njit
    def f(y):
        return inner(y) ** 2

    for engine in ("auto", "compiled"):
        with pytest.raises(ValueError, match="f also reads x as a variable from outside"):
            numerical_gradient(f, x, engine=engine)
    assert numerical_gradient(f, x + 1).round(6).tolist() == [6, 6, 6]


@pytest.mark.usefixtures("each_tier")
def test_x_among_the_arguments_moves_there_too():
    @numba.njit
    def f(x, same):
        return (x * same).sum()

    x = np.array([3.0, 4.0])
    result = numerical_gradient(f, x, args=(x,), engine="compiled")
    assert result.round(6).tolist() == [6, 8]


@pytest.mark.usefixtures("busy_threads")
@pytest.mark.usefixtures("each_tier")
def test_arguments_that_f_writes_to_are_not_shared_between_threads():
    @numba.njit
    def f(x, work):
        for i in range(len(x)):
            work[i] = x[i] ** 3
        return work.sum()

    x, work = numbers(300), np.zeros(300)
    expected = numerical_gradient(f, x, args=(work,), engine="loop")
    work[:] = 0
    for _ in range(10):
        result = numerical_gradient(f, x, args=(work,), engine="compiled")
        assert result.tobytes() == expected.tobytes()
    assert not (JIT and work.any())


@pytest.mark.usefixtures("busy_threads")
def test_lists_among_the_arguments_leave_one_thread():
    @numba.njit
    def f(x, work):
        work[0] = x.sum()
        return work[0] ** 2

    x = numbers(50)
    work = numba.typed.List([1.0]) if JIT else [1.0]
    expected = numerical_gradient(f, x, args=(work,), engine="loop")
    result = numerical_gradient(f, x, args=(work,), engine="compiled")
    assert result.tobytes() == expected.tobytes()


@numba.njit
def through_work(x, work, read):
    for i in range(len(x)):
        work[i] = x[i] ** 3
    return read.sum()


@pytest.mark.usefixtures("busy_threads")
@pytest.mark.parametrize("shared", ["a part", "the same", "beside", "in a tuple"])
def test_arguments_that_share_memory_share_it_in_the_loop_too(shared):
    memory, x = np.zeros((100, 2)), numbers(100)
    work = memory[:, 0]
    read = {"a part": work[:7], "the same": work, "beside": memory[:, 1], "in a tuple": work}[
        shared
    ]
    f, args = through_work, (work, read)
    if shared == "in a tuple":
        f, args = numba.njit(lambda x, both, out: through_work(x, both[0], out)), ((work,), read)
    if not JIT and shared == "in a tuple":
        pytest.skip("a jitted function in the closure is plain here")
    expected = numerical_gradient(f, x, args=args, engine="loop")
    for _ in range(3):
        result = numerical_gradient(f, x, args=args, engine="compiled")
        assert result.tobytes() == expected.tobytes()
    assert (shared == "beside") == (not result.any())


@needs_jit
@pytest.mark.parametrize("hidden", ["in a jitclass", "in a typed list", "by objmode"])
def test_where_x_may_be_seen_to_move_elsewhere_the_loop_moves_x_itself(hidden):
    x = numbers(4)
    if hidden == "in a jitclass":
        holder = numba.experimental.jitclass([("held", numba.float64[::1])])(Holder)(x)
        f = numba.njit(lambda x, holder: (holder.held**2).sum())
    elif hidden == "in a typed list":
        holder = numba.typed.List([x])
        f = numba.njit(lambda x, holder: (holder[0] ** 2).sum())
    else:
        SEEN[0], holder, f = x, 0, numba.njit(by_objmode)
    result = numerical_gradient(f, x, args=(holder,))
    np.testing.assert_allclose(result, 2 * x, rtol=1e-8)
    with pytest.raises(ValueError, match=r"which may hold x|holds values|may read x elsewhere"):
        numerical_gradient(f, x, args=(holder,), engine="compiled")


SEEN = {}


class Holder:
    def __init__(self, held):
        self.held = held


def by_objmode(x, _):
    with numba.objmode(total="float64"):
        total = (SEEN[0] ** 2).sum()
    return total + 0.0


@needs_jit
@pytest.mark.usefixtures("each_tier")
@pytest.mark.parametrize("change", ["for good", "and back"])
def test_functions_that_write_into_x_are_refused(change):
    @numba.njit
    def shifted(x):
        x -= x.max()
        return np.log(np.exp(x).sum())

    @numba.njit
    def turned(x):
        x *= -1
        return x.sum()

    x = numbers(30)
    before = x.tobytes()
    with pytest.raises(ValueError, match=r"f changes its argument x.*x\.copy"):
        numerical_gradient(shifted if change == "for good" else turned, x, engine="compiled")
    assert x.tobytes() == before


@numba.njit(parallel=True)
def parallel(x):
    result = np.empty_like(x)
    for i in numba.prange(x.size):
        result[i] = x[i] ** 2
    return result[0] + result[-1]


@needs_jit
@pytest.mark.parametrize("inner", [False, True])
def test_functions_that_start_threads_themselves_run_one_after_the_other(inner, monkeypatch):
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    f = numba.njit(lambda x: parallel(x)) if inner else parallel
    x = numbers(50)
    with ThreadPoolExecutor(2) as pool:
        results = [*pool.map(lambda _: numerical_gradient(f, x.copy()), range(4))]
    expected = numerical_gradient(f, x, engine="loop")
    assert {result.tobytes() for result in results} == {expected.tobytes()}


@pytest.mark.usefixtures("busy_threads")
@pytest.mark.parametrize("engine", ["compiled", "auto", "loop"])
@pytest.mark.usefixtures("each_tier")
def test_exceptions_of_f_pass_unchanged_the_first_one_first(engine):
    x = numbers()
    before = x.tobytes()
    x[0], x[-1] = 0.99995, 0.99995
    for _ in range(20):
        moved = x.copy()
        with pytest.raises(ValueError, match="first") as raised:
            numerical_gradient(picky, moved, args=(1.0,), engine=engine)
        assert raised.value.args == ("first", 1)
        assert moved.tobytes() == x.tobytes() != before
        moved[0] = 0
        with pytest.raises(KeyError) as raised:
            numerical_gradient(picky, moved, args=(1.0,), engine=engine)
        assert raised.value.args == ("last", 2.5)
        assert raised.value.__cause__ is raised.value.__context__ is None


@pytest.mark.usefixtures("each_tier")
def test_an_interrupt_ends_all_threads(strike, monkeypatch, wait_until):
    monkeypatch.setattr(concurrency, "MIN_SHARED_SECONDS", 0.0)
    x = numbers(20_000 if JIT else 200)
    before, running = x.tobytes(), threading.active_count()
    for delay in (0.001, 0.003, 0.01):
        strike(delay, lambda: numerical_gradient(rosenbrock, x, args=(3.0,), engine="compiled"))
        assert x.tobytes() == before
    # Threads that wait for more work end by themselves.
    wait_until(lambda: threading.active_count() <= running)


@pytest.mark.usefixtures("lanes_at_once")  # which compiles both loops
def test_python_threads_may_use_a_function_at_once():
    x = numbers(300 if JIT else 20)
    expected = numerical_gradient(rosenbrock, x, args=(3.0,), engine="loop").tobytes()
    f = numba.njit(getattr(rosenbrock, "py_func", rosenbrock))
    with ThreadPoolExecutor(2) as pool:  # each of which compiles
        tasks = [
            pool.submit(numerical_gradient, f, x.copy(), args=(3.0,), engine="compiled")
            for _ in range(20)
        ]
        assert {task.result().tobytes() for task in tasks} == {expected}


def send_gradient(pipe):
    pipe.send_bytes(numerical_gradient(rosenbrock, numbers(), args=(3.0,)).tobytes())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.usefixtures("busy_threads")
@pytest.mark.usefixtures("each_tier")
def test_a_forked_process_computes_the_same():
    expected = numerical_gradient(rosenbrock, numbers(), args=(3.0,)).tobytes()
    ours, theirs = multiprocessing.get_context("fork").Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=send_gradient, args=(theirs,))
    child.start()
    theirs.close()
    assert ours.recv_bytes() == expected
    child.join()
    assert child.exitcode == 0


def test_copies_of_x_are_freed_at_once():
    x = numbers(10)
    copies = compiled._Copies((x, (x, 1.0)), x, False)
    alive = weakref.ref(copies.arguments[0])
    assert alive() is copies.arguments[1][0] is not x
    gc.disable()  # so that nothing in a cycle is freed
    try:
        del copies
        assert alive() is None
    finally:
        gc.enable()
