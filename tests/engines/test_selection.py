"""All derivatives take the same options, with the same bits, checks and errors."""

import os
import random
import signal
import sys
import time
from contextlib import contextmanager

import numba
import numpy as np
import psutil
import pytest

import fastgrad
from fastgrad import schemes
from fastgrad.adaptive import Derivatives
from fastgrad.engines import processes, selection, workers
from fastgrad.jit import concurrency

V = np.random.default_rng(2).normal(size=12)


def gradient(f, x, **options):
    return fastgrad.numerical_gradient(f, x, engine=options.pop("engine", "loop"), **options)


def directional(f, x, **options):
    return fastgrad.directional_derivative(f, x, directions(x), **options)


def product(f, x, **options):
    return fastgrad.hessian_vector_product(f, x, directions(x), **options)


def directions(x):
    """Return some direction of x's form."""
    if isinstance(x, dict):
        return {name: directions(part) for name, part in x.items()}
    return np.resize(V, x.shape)


DERIVATIVES = {
    "numerical_gradient": gradient,
    "differentiate": fastgrad.differentiate,
    "jacobian": fastgrad.jacobian,
    "hessian": fastgrad.hessian,
    "directional_derivative": directional,
    "hessian_vector_product": product,
}
OF_STRUCTURES = {name: d for name, d in DERIVATIVES.items() if name != "hessian"}
OF_ENGINES = {name: d for name, d in DERIVATIVES.items() if name != "directional_derivative"}
SOME = {"differentiate": fastgrad.differentiate, "jacobian": fastgrad.jacobian}
"""Those that ask f again where it raises, each in a way of its own: enough to start processes."""


def each(derivatives):
    return pytest.mark.parametrize("derivative", derivatives.values(), ids=derivatives.keys())


def content(result):
    """Return the bytes of all that has been found."""
    if isinstance(result, Derivatives):
        return content([result.gradient, result.error, result.step]), result.evaluations
    if isinstance(result, dict):
        result = [*result.values()]
    if isinstance(result, list):
        return [content(part) for part in result]
    return np.asarray(result).tobytes()


@pytest.fixture
def all_to_workers(monkeypatch):
    """Let workers have whatever they can."""
    for limit in ("WORTHWHILE_SECONDS", "MAX_START_SECONDS"):
        monkeypatch.setattr(workers, limit, 0)


@pytest.fixture
def pools(monkeypatch):
    """Return a list of the numbers of processes in each pool that is used."""
    started, known, executor = [], [], processes._executor

    def counted(workers, fresh=False):
        result = executor(workers, fresh)
        if not any(result is each for each in known):
            known.append(result)
            started.append(workers)
        return result

    monkeypatch.setattr(processes, "_executor", counted)
    return started


def smooth(shape=(4, 3)):
    """Return a function with a matrix product, whose bits depend on BLAS's threads, and an x."""
    generator = np.random.default_rng(0)
    x, matrix = generator.normal(size=shape), generator.normal(size=(int(np.prod(shape)), 40))
    return (lambda x: float(np.tanh(x.reshape(-1) @ matrix).sum())), x


# Workers


@each(DERIVATIVES)
@pytest.mark.parametrize("how", [3, map])  # other tests have two
@pytest.mark.usefixtures("all_to_workers")
def test_any_number_of_workers_gives_the_same_bits(derivative, how, pools):
    f, x = smooth()
    before = x.tobytes()
    expected = derivative(f, x, workers=1)
    assert pools == []
    result = derivative(f, x, workers=how)
    assert content(result) == content(expected)
    assert x.tobytes() == before
    assert pools == ([] if how is map else [how])  # one for all that is evaluated


@each(OF_STRUCTURES)
@pytest.mark.parametrize("how", [2, map])
@pytest.mark.parametrize("scheme", ["central", "complex"])
@pytest.mark.usefixtures("all_to_workers")
def test_one_pool_serves_all_arrays_of_a_structure(derivative, how, scheme, pools):
    theta = np.random.default_rng(0).normal(size=12)
    x = {"W": theta[:9].reshape(3, 3), "b": theta[9:], "c": np.array(0.5)}

    def f(x, scale):  # reads another view of what is moved
        parts = (x["W"] ** 3).sum() * x["b"][0] + np.sin(x["b"] * x["c"]).sum()
        return scale * (parts if scheme == "complex" else float(parts + theta[-1] ** 2))

    options = {} if derivative is product else {"scheme": scheme}
    expected = derivative(f, x, args=(3.0,), workers=1, **options)
    result = derivative(f, x, args=(3.0,), workers=how, **options)
    assert content(result) == content(expected)
    assert pools == ([] if how is map else [how])


@each(DERIVATIVES)
@pytest.mark.usefixtures("all_to_workers")
def test_a_function_that_ignores_its_argument_reads_the_copy_that_is_moved(derivative):
    theta = np.random.default_rng(0).normal(size=12)
    x = theta[:8].reshape(2, 4)
    expected = derivative(lambda _: float((theta**3).sum() * theta[0]), x, workers=1)
    result = derivative(lambda _: float((theta**3).sum() * theta[0]), x, workers=2)
    assert content(result) == content(expected)


@each(DERIVATIVES)
@pytest.mark.usefixtures("all_to_workers")
@pytest.mark.filterwarnings("ignore:h is 'auto', but no step suits f")  # it is random
def test_a_random_function_is_left_to_this_process(derivative):
    random = np.random.default_rng(0)
    with pytest.warns(RuntimeWarning, match="another value in a worker; it is random"):
        derivative(lambda x: float((x**3).sum() + random.random()), np.ones(4), workers=map)


@each(SOME)
@pytest.mark.usefixtures("all_to_workers")
def test_a_function_with_another_value_in_a_worker_is_left_to_this_process(derivative, pools):
    here, x = os.getpid(), np.random.default_rng(0).normal(size=4)
    table = x.copy()

    def f(x):
        return float((x**3).sum() + (os.getpid() != here))

    with pytest.warns(RuntimeWarning, match="another value in a worker") as caught:
        result = derivative(f, x, workers=2)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert pools == [2, 2]  # the first may have processes that know a module as it was before
    assert content(result) == content(derivative(f, table, workers=1))


@each(SOME)
@pytest.mark.usefixtures("all_to_workers")
def test_a_killed_worker_is_an_error_and_not_one_of_f(derivative, pools):
    here, x = os.getpid(), np.random.default_rng(0).normal(size=5)
    before = x.tobytes()

    def f(x):
        if os.getpid() != here:
            os.kill(os.getpid(), signal.SIGKILL)
        return float((x**2).sum())

    with pytest.raises(RuntimeError, match="a worker process ended before its task"):
        derivative(f, x, workers=2)
    assert x.tobytes() == before
    assert pools == [2]  # f is not asked again, as it is where it raises


@each(SOME)
@pytest.mark.usefixtures("all_to_workers")
def test_what_f_raises_in_a_worker_is_raised_here(derivative):
    class Mine(Exception):
        pass

    here, x = os.getpid(), np.linspace(1, 2, 2)
    before, calls = x.copy(), []

    def f(x):
        if os.getpid() != here:
            calls.append(0)
        if len(calls) > 2:  # the first two are at test points
            raise Mine("too far")
        return float((x**2).sum())

    with pytest.raises(Mine, match="too far"):
        derivative(f, x, workers=2)
    assert (x == before).all()


@each(DERIVATIVES)
@pytest.mark.usefixtures("all_to_workers")
def test_an_interrupt_leaves_x_intact_and_no_worker(derivative, strike):
    x, dice = np.linspace(1, 2, 12), random.Random(0)
    before = x.tobytes()

    def slow(x):
        time.sleep(2e-4)
        return float((x**2).sum())

    derivative(slow, x, workers=2)
    idle = len(psutil.Process().children(recursive=True))
    for _ in range(5):
        strike(dice.uniform(1e-3, 0.06), lambda: derivative(slow, x, workers=2))
        assert x.tobytes() == before
    end = time.monotonic() + processes.IDLE_SECONDS + 20
    while len(psutil.Process().children(recursive=True)) > idle:
        assert time.monotonic() < end, "workers are left"
        time.sleep(0.01)


@each(DERIVATIVES)
def test_short_calculations_start_no_processes(derivative, monkeypatch, pools):
    monkeypatch.setattr(workers, "WORTHWHILE_SECONDS", 1e6)
    f, x = smooth((6,))
    assert content(derivative(f, x, workers=2)) == content(derivative(f, x, workers=1))
    assert pools == []


def test_many_short_calculations_are_worth_processes_together(monkeypatch, pools):
    monkeypatch.setattr(workers, "WORTHWHILE_SECONDS", 0.05)

    def slow(x):
        time.sleep(1e-3)
        return float((x**2).sum())

    # 2 * 10**2 calls: the longest row is 18 of them.
    fastgrad.hessian(slow, np.ones(10), workers=2)
    assert pools == [2]


@each(DERIVATIVES)
@pytest.mark.filterwarnings("ignore:h is 'auto', but no step suits f")  # where it jumps
def test_blas_has_its_threads_again_afterwards(derivative, threadpools):
    f, x = smooth((6,))
    before, seen = threadpools(), set()

    def observed(x):
        seen.update(library["num_threads"] for library in threadpools())
        return f(x)

    derivative(observed, x, workers=1)
    assert min(seen, default=1) == 1  # of some calls; others are made before any worker is needed
    assert threadpools() == before


def test_blas_has_its_threads_again_after_an_interrupt_at_the_end_of_a_block(
    monkeypatch, threadpools
):
    """Ctrl-C may strike before the threads are given back."""
    f, x = smooth((6,))
    before, seen, entered = threadpools(), set(), []

    @contextmanager
    def interrupted():
        entered.append(True)
        if len(entered) == 2:  # where the first block ends
            raise KeyboardInterrupt
        yield

    def observed(x):
        seen.update(library["num_threads"] for library in threadpools())
        return f(x)

    with monkeypatch.context() as patch:
        patch.setattr(concurrency, "uninterrupted", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fastgrad.numerical_gradient(f, x, workers=1)
    fastgrad.numerical_gradient(observed, x, workers=1)
    assert min(seen, default=1) == 1
    assert threadpools() == before


def test_blas_has_one_thread_while_a_gradient_is_replayed_and_certified(threadpools, monkeypatch):
    monkeypatch.setattr(concurrency, "_blas", None)  # as if no library had been loaded since
    random = np.random.default_rng(0)
    X, W = random.random((30, 12)), random.normal(size=(12, 9))
    before, seen = threadpools(), []

    def f(W):
        seen.append([pool["num_threads"] for pool in before_or_now()])
        return np.mean(np.tanh(X @ W) ** 2)

    def before_or_now():
        return [pool for pool in threadpools() if pool["user_api"] == "blas"]

    fastgrad.numerical_gradient(f, W, engine="traced")
    assert set(seen[0]) == {2}
    assert set(seen[-1]) == {1}
    assert threadpools() == before


# Progress


@each(DERIVATIVES)
@pytest.mark.parametrize("how", [None, 1, 2, map])
@pytest.mark.usefixtures("all_to_workers")
def test_progress_grows_to_its_total(derivative, how, monkeypatch):
    from fastgrad.engines import loop

    monkeypatch.setattr(loop, "REPORT_SECONDS", 0)
    f, x = smooth()
    told = []
    expected = derivative(f, x, workers=how)
    result = derivative(f, x, workers=how, progress=lambda *numbers: told.append(numbers))
    assert content(result) == content(expected)
    total = {fastgrad.hessian: x.size**2, directional: 2}.get(derivative, x.size)
    done = [numbers[0] for numbers in told]
    assert {numbers[1] for numbers in told} == {total}
    assert done[-1] == total
    assert all(low < high for low, high in zip([0, *done], done, strict=False))
    if how is not map:  # who is given all at once
        assert len(done) >= 2


def test_progress_of_a_hessian_is_not_full_before_the_last_row(monkeypatch):
    from fastgrad.engines import loop

    monkeypatch.setattr(loop, "REPORT_SECONDS", 0)
    told, before = [0], []

    def f(x):
        before.append(told[-1])
        return float((x**2).sum())

    fastgrad.hessian(f, np.ones(7), progress=lambda done, total: told.append(done))
    assert told[-1] == 49
    # One pair of elements, by four calls.
    assert before[-4] < 49


@each(DERIVATIVES)
def test_a_bar_needs_its_package(derivative, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    with pytest.raises(ModuleNotFoundError, match=r"tqdm, which is not installed.*\[progress\]"):
        derivative(refuse, np.ones(3), progress=True)


# Stacks


@each(DERIVATIVES)
@pytest.mark.parametrize("shape", [(), (5,), (2, 3)])
@pytest.mark.parametrize("bounds", [None, (0, 9)])
def test_a_function_of_stacks_gives_the_loops_bits(derivative, shape, bounds):
    x = np.array(abs(np.random.default_rng(0).normal(size=shape)))
    if shape:
        x.flat[0] = 0  # at the bound
    before = x.tobytes()

    def one(x, k):
        assert bounds is None or (x >= 0).all()
        return float((np.sin(x) * x.sum() ** 2).sum()) * k

    def stacked(s, k):
        assert s.shape[1:] == shape
        return np.array([one(np.ascontiguousarray(x), k) for x in s])

    options = {"args": (3.0,)}
    if derivative is product:
        if bounds is not None:
            pytest.skip("it takes no bounds")
    else:
        options["bounds"] = bounds
    result = (
        derivative(stacked, x, vectorized=True, engine="auto", **options)
        if (derivative is gradient)
        else derivative(stacked, x, vectorized=True, **options)
    )
    assert content(result) == content(derivative(one, x, **options))
    assert x.tobytes() == before


@each({"jacobian": fastgrad.jacobian, "directional_derivative": directional})
@pytest.mark.parametrize("scheme", ["central", "forward", "complex", schemes.central(4)])
def test_functions_of_stacks_may_return_arrays(derivative, scheme):
    x = np.random.default_rng(0).normal(size=(2, 3))
    result = derivative(lambda s: np.sin(s) ** 2, x, vectorized=True, scheme=scheme)
    expected = derivative(lambda x: np.sin(x) ** 2, x, scheme=scheme)
    assert result.shape == expected.shape
    # NumPy may round a sine differently where it is one of many.
    np.testing.assert_allclose(result, expected, atol=1e-9)


@each({"jacobian": fastgrad.jacobian, "hessian": fastgrad.hessian, "directional": directional})
@pytest.mark.parametrize("f", [lambda s: s.sum(), lambda s: np.ones((2, 3))])
def test_what_is_no_stack_of_values_is_refused(derivative, f):
    match = r"for a stack of shape \(1, 3\), but with vectorized=True the first axis"
    with pytest.raises(ValueError, match=match):
        derivative(f, np.ones(3), vectorized=True)


def test_derivatives_say_that_f_was_given_stacks():
    found = fastgrad.differentiate(lambda s: (s**2).sum(axis=1), np.ones(3), vectorized=True)
    assert found.engine == "vectorized"


# Refusals, before anything is called


def refuse(*arguments):
    raise AssertionError("called")


@each(DERIVATIVES)
@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"workers": 0}, ValueError, "workers is 0; pass a number of processes"),
        ({"workers": 2.5}, TypeError, "workers is 2.5 of type float"),
        ({"progress": 1}, TypeError, "progress is 1; pass True for a bar, or a function"),
        ({"vectorized": True, "workers": 2}, ValueError, "'vectorized', but workers share the"),
    ],
)
def test_options_that_cannot_be_used_are_refused(derivative, options, error, match):
    if derivative is gradient:
        options = {"engine": "auto", **options}
    with pytest.raises(error, match=match):
        derivative(refuse, np.ones(3), **options)


@each(OF_STRUCTURES)
def test_stacks_of_structures_are_refused(derivative):
    options = {"engine": "auto"} if derivative is gradient else {}
    with pytest.raises(ValueError, match="vectorized is True, which asks for one array x"):
        derivative(refuse, {"a": np.ones(2)}, vectorized=True, **options)


@each(OF_ENGINES)
def test_engines_that_need_no_workers_refuse_them(derivative):
    with pytest.raises(ValueError, match="engine is 'compiled', but workers share the loop's"):
        derivative(refuse, np.ones(3), engine="compiled", workers=2)
    with pytest.raises(ValueError, match=r"vectorized is True, which asks for .* engine='auto'"):
        derivative(refuse, np.ones(3), engine="loop", vectorized=True)
    with pytest.raises(ValueError, match="engine is 'turbo', which does not exist"):
        derivative(refuse, np.ones(3), engine="turbo")


@numba.njit
def cubes(x):
    total = 0.0
    for value in x:
        total += value**3
    return total


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="nothing is compiled")
@each(OF_ENGINES)
def test_a_compiled_function_needs_no_workers(derivative, pools):
    x = np.linspace(1, 2, 5)
    options = {"engine": "auto"} if derivative is gradient else {}
    result = derivative(cubes, x, workers=2, **options)
    assert content(result) == content(derivative(cubes, x, engine="compiled"))
    assert pools == []


def test_a_row_in_its_table_makes_an_engine_of_what_gives_a_gradient_at_once(monkeypatch):
    monkeypatch.setitem(selection.GRADIENT_ENGINES, "exact", lambda f, x, h, scheme: 2 * x)
    x = np.arange(3.0)
    result = fastgrad.numerical_gradient(refuse, {"a": x}, engine="exact")
    assert result["a"].tolist() == [0, 2, 4]
    with pytest.raises(ValueError, match="engine is 'exact', which serves real schemes with one"):
        fastgrad.numerical_gradient(refuse, x, engine="exact", bounds=(0, 9))
    with pytest.raises(ValueError, match="engine is 'exact', which serves numerical_gradient alon"):
        fastgrad.jacobian(refuse, x, engine="exact")
