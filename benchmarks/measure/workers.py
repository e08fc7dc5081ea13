"""The loop on several workers, all costs included, those of a first call too."""

import time
from collections.abc import Callable

import numpy as np

from benchmarks.measure.timing import Times, stopwatch
from fastgrad import numerical_gradient
from fastgrad.typing import Array

Function = Callable[[Array], float]


def in_python(turns: int) -> Function:
    """Return a loop in Python."""

    def f(x: Array) -> float:
        total = float(x @ x)
        for i in range(turns):
            total += i * 1e-9
        return total

    return f


def in_numpy(turns: int) -> Function:
    """Return a function in NumPy: products, and functions of elements."""
    matrix = np.random.default_rng(0).normal(size=(60, 60)) / 8

    def f(x: Array) -> float:
        a = np.resize(x, (60, 60))
        for _ in range(turns):
            a = np.tanh(a @ matrix)
        return float(a.sum())

    return f


def lasting(seconds: float, function: Callable[[int], Function]) -> Function:
    """Return function(turns), with as many turns as take about so long."""
    x = np.ones(1000)

    def shortest(turns: int) -> float:
        f = function(turns)
        return min(stopwatch(lambda: f(x)) for _ in range(20))

    turns = 1
    while shortest(turns) < seconds / 4:
        turns *= 2
    return function(max(1, round(turns * seconds / shortest(turns))))


def one_and_two(f: Function, parameters: int, rounds: int) -> tuple[Times, Times, bool]:
    """Time the gradient with one worker and with two, in turn, and compare them bit for bit."""
    x = np.random.default_rng(1).normal(size=parameters)
    seconds: dict[int, list[float]] = {2: [], 1: []}
    results: dict[int, Array] = {}
    same = True
    for _ in range(rounds):
        for number in seconds:
            start = time.perf_counter()
            results[number] = numerical_gradient(f, x, engine="loop", workers=number)
            seconds[number].append(time.perf_counter() - start)
        same = same and results[2].tobytes() == results[1].tobytes()
    return Times(seconds[1]), Times(seconds[2]), same
