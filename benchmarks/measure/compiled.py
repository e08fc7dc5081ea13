"""Gradients of functions compiled by numba, beside other libraries and loops by hand."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from zlib import crc32

import numba
import numpy as np

from benchmarks.cases import rosenbrock
from benchmarks.cases.rosenbrock import Array
from benchmarks.measure.timing import Times, compare, stopwatch
from fastgrad import numerical_gradient, reference
from fastgrad.engines import loop
from fastgrad.schemes import central

Function = Callable[[Array], Any]

SECOND = "fastgrad, central, h=1e-5"
FOURTH = "fastgrad, central(4), h=0.03"

RIVALS = {
    "SciPy, 3-point": (SECOND, 50),
    "numdifftools": (FOURTH, 500),
    "jacobi": (FOURTH, 500),
}
"""Each with what it is compared with, which is no less exact, and how many times faster to be."""


def by_others(f: Function, x: Array) -> dict[str, Callable[[], Array]]:
    """Return calls of other libraries for the gradient, with their defaults, by name."""
    approx_derivative = import_module("scipy.optimize._numdiff").approx_derivative
    by_numdifftools = import_module("numdifftools").Gradient(f)
    jacobian = import_module("jacobi").jacobi
    return {
        "SciPy, 3-point": lambda: approx_derivative(f, x, "3-point"),
        "numdifftools": lambda: by_numdifftools(x),
        "jacobi": lambda: jacobian(f, x)[0],
    }


def by_fastgrad(f: Function, x: Array) -> dict[str, Callable[[], Array]]:
    """Return calls for the gradient.

    The schemes of accuracy 4 are exact for Rosenbrock's function, which is of degree 4, and so the
    step may be large; "auto" finds that by itself.
    """
    four = central(4)
    return {
        SECOND: lambda: numerical_gradient(f, x, 1e-5),
        FOURTH: lambda: numerical_gradient(f, x, 0.03, scheme=four),
        'fastgrad, central(4), h="auto"': lambda: numerical_gradient(f, x, "auto", scheme=four),
    }


def against_others(n: int, rounds: int) -> dict[tuple[str, str], tuple[Times, float]]:
    """Return, of each way to the gradient of each compiled function, the time and the error."""
    x = rosenbrock.start(n)
    exact = rosenbrock.exact_gradient(x)
    found = {}
    functions = {"njit": rosenbrock.jitted, "njit(fastmath=True)": rosenbrock.jitted_fastmath}
    for name, f in functions.items():
        calls = by_fastgrad(f, x) | by_others(f, x)
        _let_lanes_be_compiled(calls[SECOND])
        errors = {way: float(np.max(np.abs(call() - exact))) for way, call in calls.items()}
        for way, times in compare(calls, rounds).items():
            found[name, way] = times, errors[way]
    return found


def _gradient_by_hand(f: Function, x: Array, h: float) -> Array:
    """Return the central quotients, as one would write it."""
    result = np.empty_like(x)
    for i in range(x.size):
        old = x[i]
        x[i] = old + h
        above = f(x)
        x[i] = old - h
        below = f(x)
        result[i] = (above - below) / (2 * h)
        x[i] = old
    return result


def against_loop_by_hand(style: str, n: int, rounds: int) -> dict[str, Times]:
    """Measure the compiled engine on one thread, and on two, beside a loop that is written out."""
    f, x = STYLES[style], rosenbrock.start(n)

    def ours(threads: int) -> Array:
        with _threads(threads):
            return numerical_gradient(f, x, engine="compiled")

    calls: dict[str, Callable[[], Any]]
    calls = {"by hand": partial(gradient_by_hand, f, x, 1e-4), "one": partial(ours, 1)}
    if vars(numba.config)["NUMBA_NUM_THREADS"] > 1:
        calls["two"] = partial(ours, 2)
    _let_lanes_be_compiled(calls["one"])
    if (calls["by hand"]() != calls["one"]()).any():
        raise AssertionError("the compiled engine and the loop by hand differ")
    return compare(calls, rounds)


STYLES: dict[str, Function] = {
    "a loop": rosenbrock.jitted,
    "arrays": numba.njit(rosenbrock.plain),
    "np.dot": numba.njit(rosenbrock.with_dot),
}
"""How a function may be written: in single numbers, in expressions of arrays, or with BLAS, which
evaluates one point after the other."""


def _let_lanes_be_compiled(gradient: Callable[[], object], seconds: float = 3.0) -> None:
    """Call a gradient until it has taken as long as the compiled engine waits for."""
    start = time.perf_counter()
    while time.perf_counter() < start + seconds:
        gradient()


gradient_by_hand: Any = numba.njit(_gradient_by_hand)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = numba.get_num_threads()
    numba.set_num_threads(count)
    try:
        yield
    finally:
        numba.set_num_threads(before)


def loop_overheads(n: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Return the microseconds that a gradient takes beyond f: for each call, and once.

    Of an f that takes 5 us; what a gradient takes once is that of one element.
    """
    # C code that makes and touches no objects, on few bytes: an f of as many steps of Python's
    # differs by 10 % from one contender to the next, one that fills the cache slows all of them.
    content = bytes(4000)
    repeats = (None,) * max(1, round(5e-6 / _seconds_of(content)))

    def f(x: Array) -> float:
        for _ in repeats:
            crc32(content)
        return 1.0

    def nothing_else(x: Array) -> None:
        for _ in range(2 * x.size):
            f(x)

    calls: dict[str, Callable[[Array], object]] = {
        "f alone": nothing_else,
        "the textbook's loop": lambda x: reference.numerical_gradient(f, x),
        "the loop alone": lambda x: loop.gradient(f, x, 1e-4),
        "engine='loop'": lambda x: numerical_gradient(f, x, engine="loop"),
    }
    # The processor's time, in turns, of short gradients: what other processes take does not count,
    # and some of many run undisturbed. At several depths of Python's stack, for the addresses.
    points = np.random.default_rng(0).random(n), np.ones(1)
    best = {name: [np.inf, np.inf] for name in calls}
    for turn in range(20 * rounds):
        for name, call in calls.items():
            for k, x in enumerate(points):
                best[name][k] = min(best[name][k], _seconds_at_depth(turn % 10, partial(call, x)))
    alone = best.pop("f alone")
    beyond = {name: 1e6 * np.subtract(seconds, alone) for name, seconds in best.items()}
    return {name: ((many - one) / (2 * n - 2), one) for name, (many, one) in beyond.items()}


def _seconds_at_depth(depth: int, call: Callable[[], object]) -> float:
    """Return the processor's time for a call."""
    if depth:
        return _seconds_at_depth(depth - 1, call)
    start = time.thread_time()
    call()
    return time.thread_time() - start


def _seconds_of(content: bytes) -> float:
    """Return how long a check sum takes."""
    return min(stopwatch(lambda: crc32(content)) for _ in range(1000))
