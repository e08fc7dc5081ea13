"""The growth of a training step's cost with the sizes of a net and of its batch."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cases.book_volume_1 import MultiLayerNet, SimpleConvNet
from benchmarks.cases.learners_nets import NO_KINKS, Case, digits
from benchmarks.cases.two_layer_net import random_problem
from benchmarks.measure.accuracy import SEED, sampled_entries
from benchmarks.measure.book_loop import run_loop
from benchmarks.measure.timing import stopwatch
from fastgrad import numerical_gradient
from fastgrad.typing import Array

SIZES = {
    "hidden": (12, 25, 50, 100, 200, 400),
    "inputs": (49, 98, 196, 392, 784, 1568),
    "samples": (10, 30, 100, 300, 1000),
    "layers": (1, 2, 3, 4, 6),
    "filters": (4, 8, 15, 30, 60),
}
SMOKE_SIZES = {
    "hidden": (5, 12),
    "inputs": (16, 49),
    "samples": (5, 20),
    "layers": (1, 2),
    "filters": (1, 2),
}

# The sizes that stay as they are.
BASE = {"samples": 100, "inputs": 784, "hidden": 100, "layers": 1}
SMOKE_BASE = {"samples": 10, "inputs": 49, "hidden": 10, "layers": 1}
CONVOLUTIONAL_SAMPLES = 10

PER_ARRAY = 4
"""How many elements of each array the loop visits."""

PATIENCE = 3.0
"""Seconds of steps of one kind after which no more are made."""

RATE = 0.01


def seconds_by_size(variable: str, smoke: bool, rounds: int) -> dict[str, dict[int, float]]:
    """Return the seconds of one step by each way, at each number of what grows.

    The shortest step; for the loop, the shortest time of a parameter, times their number.
    """
    seconds: dict[str, dict[int, float]] = {}
    for size in (SMOKE_SIZES if smoke else SIZES)[variable]:
        for way, value in _seconds(variable, size, smoke, rounds).items():
            seconds.setdefault(way, {})[size] = value
    return seconds


def _seconds(variable: str, size: int, smoke: bool, rounds: int) -> dict[str, float]:
    case = _case(variable, size, smoke)
    net: Any = case.net
    params = net.params

    def numerical() -> dict[str, Array]:
        return {name: numerical_gradient(case.loss, values) for name, values in params.items()}

    entries = np.array([place for place, _, _ in sampled_entries(params, PER_ARRAY)])
    seconds = {
        "loop": run_loop(case.loss, case.arrays, entries).times.minimum,
        "traced": _shortest_step(params, numerical, rounds),
        "backpropagation": _shortest_step(params, partial(net.gradient, case.x, case.t), rounds),
    }
    if variable in ("hidden", "inputs", "samples"):
        sizes = (SMOKE_BASE if smoke else BASE) | {variable: size}
        own = random_problem(sizes["samples"], sizes["inputs"], sizes["hidden"])
        gradient = partial(own.net.numerical_gradient, own.x, own.t)
        gradient()  # its kernels may have to be compiled first
        seconds["response"] = _shortest_step(own.net.params, gradient, rounds)
    return seconds


def _case(variable: str, size: int, smoke: bool) -> Case:
    """Return a convolutional net on digits, or layers of ReLU units on dense random samples."""
    np.random.seed(SEED)
    if variable == "filters":
        net: Any = SimpleConvNet(size, 5, 5 if smoke else 100)
        x, t = digits(2 if smoke else CONVOLUTIONAL_SAMPLES)
        x = x.reshape(-1, 1, 28, 28)
    else:
        sizes = (SMOKE_BASE if smoke else BASE) | {variable: size}
        net = MultiLayerNet(sizes["inputs"], [sizes["hidden"]] * sizes["layers"], 10)
        x = np.random.rand(sizes["samples"], sizes["inputs"])
        t = np.random.randint(0, 10, len(x))
    return Case(f"{size} {variable}", net, x, t, list(net.params), NO_KINKS)


def _shortest_step(params: Any, gradient: Callable[[], Any], rounds: int) -> float:
    """Return the seconds of the shortest of some steps, each of which moves the parameters."""

    def step() -> None:
        grads = gradient()
        for name in grads:
            params[name] -= RATE * grads[name]

    seconds = [stopwatch(step)]  # warms up, too, unless it is long
    while len(seconds) <= rounds and sum(seconds) < PATIENCE:
        seconds.append(stopwatch(step))
    return min(seconds)
