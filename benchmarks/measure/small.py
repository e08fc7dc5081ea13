"""What users time first: functions of few numbers, and the first call of a fresh process."""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measure.adaptive import METHODS
from benchmarks.measure.cold_start import ROOT
from benchmarks.measure.timing import Times, compare
from fastgrad import numerical_gradient
from fastgrad.typing import Array

FEW = 8
"""Variables of a small function."""

FIRST_CALL = """
import time
import numpy as np
x = np.arange(8.0)
def f(x):
    return float(x @ x)
start = time.perf_counter()
{imported}
imported = time.perf_counter()
{called}
print(imported - start, time.perf_counter() - imported)
"""

FIRST_CALLS = {
    "fastgrad.numerical_gradient": (
        "from fastgrad import numerical_gradient",
        "numerical_gradient(f, x)",
    ),
    "SciPy's approx_fprime": ("from scipy.optimize import approx_fprime", "approx_fprime(x, f)"),
}
"""An import and a call, by name."""


def derivatives(rounds: int) -> dict[str, tuple[Times, int, float]]:
    """Return the times, the calls of f and the error of one derivative, by each package."""
    x, exact = 0.7, math.cos(0.7) * math.exp(math.sin(0.7))
    calls = 0

    def f(x: Any) -> Any:
        nonlocal calls
        calls += 1
        return np.exp(np.sin(x))

    found = {}
    times = compare({name: partial(method, f, x) for name, method in METHODS.items()}, rounds)
    for name, method in METHODS.items():
        calls = 0
        value, _ = method(f, x)
        found[name] = times[name], calls, abs(value / exact - 1)
    return found


def few_variables(rounds: int) -> dict[str, Times]:
    """Time gradients of a function of a few variables that takes a microsecond."""

    def f(x: Array) -> Any:
        return x.dot(x)

    def by_hand() -> Array:
        gradient = np.empty_like(x)
        for i in range(len(x)):
            old = x[i]
            x[i] = old + 1e-4
            above = f(x)
            x[i] = old - 1e-4
            gradient[i] = (above - f(x)) / 2e-4
            x[i] = old
        return gradient

    x = np.arange(1.0, FEW + 1)
    calls: dict[str, Callable[[], object]] = {
        "a loop by hand": by_hand,
        "fastgrad.numerical_gradient": lambda: numerical_gradient(f, x),
    }
    return compare(calls, rounds)


def first_calls(rounds: int) -> dict[str, tuple[Times, Times]]:
    """Time the import and the first gradient, of fresh processes that have imported NumPy.

    But for the first process of each, which compiles what is imported to bytecode.
    """
    found: dict[str, list[list[float]]] = {name: [] for name in FIRST_CALLS}
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "PYTHONPYCACHEPREFIX": folder,
            "PYTHONDONTWRITEBYTECODE": "",
        }
        for _ in range(1 + rounds):
            for name, (imported, called) in FIRST_CALLS.items():
                program = FIRST_CALL.format(imported=imported, called=called)
                command = [sys.executable, "-c", program]
                printed = subprocess.run(
                    command, cwd=ROOT, check=True, capture_output=True, env=environment
                ).stdout
                found[name].append([float(seconds) for seconds in printed.split()])
    found = {name: pairs[1:] for name, pairs in found.items()}
    return {
        name: (Times([a for a, _ in pairs]), Times([b for _, b in pairs]))
        for name, pairs in found.items()
    }
