"""How fast is the gradient of a compiled function? ``python -m benchmarks.compiled`` prints it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any
from zlib import crc32

import numba
import numpy as np

from benchmarks.functions import ROSENBROCK, Array, Problem
from benchmarks.machine import disturbance, processor, versions
from benchmarks.pairing import Times, compare, ratio, stopwatch
from fastgrad import numerical_gradient, reference
from fastgrad.engines import loop
from fastgrad.schemes import central

Function = Callable[[Array], Any]
Row = tuple[str, ...]
Rows = list[Row]

FOUR = central(4)
SECOND = "fastgrad, central, h=1e-5"
FOURTH = "fastgrad, central(4), h=0.03"
MEASURED = 'fastgrad, central(4), h="auto"'

RIVALS = {
    "SciPy, 3-point": (SECOND, 50),
    "numdifftools": (FOURTH, 500),
    "jacobi": (FOURTH, 500),
}
"""Each with what it is compared with, which is no less exact, and how many times faster to be."""


def ways(f: Function, x: Array) -> dict[str, Callable[[], Array]]:
    """Return calls for the gradient, by name; those of other libraries with their defaults.

    The schemes of accuracy 4 are exact for Rosenbrock's function, which is of degree 4, and so the
    step may be large; "auto" finds that by itself.
    """
    approx_derivative = import_module("scipy.optimize._numdiff").approx_derivative
    by_numdifftools = import_module("numdifftools").Gradient(f)
    jacobian = import_module("jacobi").jacobi
    return {
        SECOND: lambda: numerical_gradient(f, x, 1e-5),
        FOURTH: lambda: numerical_gradient(f, x, 0.03, scheme=FOUR),
        MEASURED: lambda: numerical_gradient(f, x, "auto", scheme=FOUR),
        "SciPy, 3-point": lambda: approx_derivative(f, x, "3-point"),
        "numdifftools": lambda: by_numdifftools(x),
        "jacobi": lambda: jacobian(f, x)[0],
    }


def against_others(problem: Problem, n: int, rounds: int) -> Rows:
    """Measure each way to the gradient: time, error, and how many times faster fastgrad is."""
    x = problem.start(n)
    exact = problem.exact(x)
    rows: Rows = []
    compiled = {"njit": problem.jitted, "njit(fastmath=True)": problem.jitted_fastmath}
    for name, f in compiled.items():
        calls = ways(f, x)
        _let_lanes_be_compiled(calls[SECOND])
        errors = {way: float(np.max(np.abs(call() - exact))) for way, call in calls.items()}
        times = compare(calls, rounds)
        for way, taken in times.items():
            faster = ""
            if way in RIVALS:
                ours, wanted = RIVALS[way]
                faster = f"{ratio(taken, times[ours])} than {ours}; {wanted} wanted"
                if errors[ours] > errors[way]:
                    faster += ", BUT WITH A LARGER ERROR"
            rows.append((name, way, _milliseconds(taken), f"{errors[way]:.2g}", faster))
    return rows


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


def against_loop_by_hand(problem: Problem, style: str, n: int, rounds: int) -> Row:
    """Measure the compiled engine on one thread, and on two, beside a loop that is written out."""
    f, x = STYLES[style](problem), problem.start(n)

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
    times = compare(calls, rounds)
    single = times["by hand"].minimum / (2 * n)
    two = str(ratio(times["by hand"], times["two"])) if "two" in times else "one core"
    return (
        style,
        f"{n:,}",
        f"{1e6 * single:.2g} us",
        str(ratio(times["one"], times["by hand"])),
        two,
    )


STYLES: dict[str, Callable[[Problem], Function]] = {
    "a loop": lambda problem: problem.jitted,
    "arrays": lambda problem: problem.jitted_arrays,
    "np.dot": lambda problem: problem.jitted_dot,
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


def loop_overheads(n: int, rounds: int, microseconds: float = 5.0) -> dict[str, Row]:
    """Return the microseconds that a gradient takes beyond f: for each call, and once.

    Of an f that takes so many microseconds; what a gradient takes once is that of one element.
    """
    # C code that makes and touches no objects, on few bytes: an f of as many steps of Python's
    # differs by 10 % from one contender to the next, one that fills the cache slows all of them.
    content = bytes(4000)
    repeats = (None,) * max(1, round(1e-6 * microseconds / _seconds_of(content)))

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
    many, one = np.random.default_rng(0).random(n), np.ones(1)
    best = {name: [np.inf, np.inf] for name in calls}
    for turn in range(20 * rounds):
        for name, call in calls.items():
            for k, x in enumerate((many, one)):
                best[name][k] = min(best[name][k], _seconds_at_depth(turn % 10, partial(call, x)))
    alone = best.pop("f alone")
    beyond = {name: 1e6 * np.subtract(seconds, alone) for name, seconds in best.items()}
    return {name: (f"{(m - o) / (2 * n - 2):.3f}", f"{o:.0f}") for name, (m, o) in beyond.items()}


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


def _milliseconds(taken: Times) -> str:
    return f"{1e3 * taken.median:.3g} ({1e3 * taken.minimum:.3g})"


def tables(n: int = 1000, rounds: int = 15) -> str:
    """Measure everything, and return it as tables in Markdown."""
    others: Rows = [
        ("f", "gradient by", "ms: median (minimum)", "largest error", "fastgrad is faster")
    ]
    others += against_others(ROSENBROCK, n, min(rounds, 5))
    hand: Rows = [
        (
            "f is",
            "n",
            "f takes",
            "one thread / by hand; 1.05 wanted",
            "by hand / two threads; 1.8 wanted",
        )
    ]
    hand += [
        against_loop_by_hand(ROSENBROCK, style, size, rounds)
        for style in STYLES
        for size in (n, 2 * n, 4 * n)
    ]
    overheads: Rows = [
        ("plain loop", "us a call beyond f's 5; 0.5 and below the textbook's wanted", "us once")
    ]
    overheads += [(name, *beyond) for name, beyond in loop_overheads(n, rounds).items()]
    heading = f"{ROSENBROCK.name}, n = {n:,}; {processor()}; {versions()}"
    return "\n\n".join([heading, *map(_table, (others, hand, overheads))])


def _table(rows: Rows) -> str:
    lines = [rows[0], tuple("---" for _ in rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    print(disturbance())
    print(tables())
