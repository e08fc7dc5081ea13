"""How much faster is the loop on several workers? All costs included, those of a first call too.

python -m benchmarks.workers           functions of 1 ms, 1,000 parameters, two workers
python -m benchmarks.workers -n 4      four workers
"""

import argparse
import time
from collections.abc import Callable

import numpy as np

from benchmarks.machine import disturbance, processor
from benchmarks.pairing import Times, stopwatch
from fastgrad import numerical_gradient
from fastgrad.engines.workers import scheduler as engine
from fastgrad.typing import Array

Function = Callable[[Array], float]


def in_python(seconds: float) -> Function:
    """Return a function that takes about so long, a loop in Python."""

    def function(turns: int) -> Function:
        def f(x: Array) -> float:
            total = float(x @ x)
            for i in range(turns):
                total += i * 1e-9
            return total

        return f

    return _lasting(function, seconds)


def in_numpy(seconds: float) -> Function:
    """Return a function that takes about so long, in NumPy: products, and functions of elements."""
    matrix = np.random.default_rng(0).normal(size=(60, 60)) / 8

    def function(turns: int) -> Function:
        def f(x: Array) -> float:
            a = np.resize(x, (60, 60))
            for _ in range(turns):
                a = np.tanh(a @ matrix)
            return float(a.sum())

        return f

    return _lasting(function, seconds)


def _lasting(function: Callable[[int], Function], seconds: float) -> Function:
    """Return function(turns), with as many turns as take so long."""
    x = np.ones(1000)

    def shortest(turns: int) -> float:
        f = function(turns)
        return min(stopwatch(lambda: f(x)) for _ in range(20))

    turns = 1
    while shortest(turns) < seconds / 4:
        turns *= 2
    return function(max(1, round(turns * seconds / shortest(turns))))


def measure(f: Function, parameters: int, workers: int, rounds: int) -> tuple[Times, Times, bool]:
    """Time the gradient with one worker and with several, in turn.

    Returns
    -------
    one, several : Times
    same : bool
        Whether they agree bit for bit.
    """
    x = np.random.default_rng(1).normal(size=parameters)
    one: list[float] = []
    several: list[float] = []
    same = True
    for _ in range(rounds):
        results = []
        for number, seconds in ((workers, several), (1, one)):
            start = time.perf_counter()
            results.append(numerical_gradient(f, x, engine="loop", workers=number))
            seconds.append(time.perf_counter() - start)
        same = same and results[0].tobytes() == results[1].tobytes()
    return Times(one), Times(several), same


def main() -> None:
    """Print times and ratios; the first call starts what later ones need."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-n", "--workers", type=int, default=2)
    parser.add_argument("--parameters", type=int, default=1000)
    parser.add_argument("--milliseconds", type=float, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    print(processor())
    print(disturbance(), end="\n" * bool(disturbance()))
    number = engine.count(arguments.workers)
    print(f"{arguments.parameters:,} parameters, f of {arguments.milliseconds:g} ms")
    several_workers = f"{number} workers"
    print(f"{'f':8}{'1 worker':>10}{several_workers:>11}{'first call':>12}{'ratio':>7}{'first':>7}")
    for name, make in (("Python", in_python), ("NumPy", in_numpy)):
        f = make(arguments.milliseconds / 1e3)
        one, several, same = measure(f, arguments.parameters, number, arguments.rounds)
        first = several.seconds[0]
        print(
            f"{name:8}{one.minimum:>8.2f} s{several.minimum:>9.2f} s{first:>10.2f} s"
            f"{one.minimum / several.minimum:>7.2f}{one.minimum / first:>7.2f}"
            f"  {'same bits' if same else 'OTHER BITS'}"
        )
    print("Minima of the rounds; only the first call of the first line has to start everything.")


if __name__ == "__main__":
    main()
