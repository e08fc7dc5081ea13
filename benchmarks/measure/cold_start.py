"""Seconds until a fresh process has its first gradient, with kernels in the cache or not."""

import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from benchmarks.measure.timing import Times, compare

ROOT = Path(__file__).resolve().parents[2]

FIRST_GRADIENT = """
import numpy as np
from fastgrad import TwoLayerNet
net = TwoLayerNet(784, 100, 10)
x, t = np.random.rand(100, 784), np.random.randint(0, 10, 100)
net.numerical_gradient(x, t)
print("done", flush=True)
"""


def import_times(rounds: int) -> dict[str, Times]:
    """Time fresh processes that import numpy, and ones that import fastgrad, alternately."""
    return compare(
        {name: partial(_run, f"import {name}") for name in ("numpy", "fastgrad")}, rounds
    )


def first_gradient_times(warm_rounds: int) -> tuple[float, Times]:
    """Return the seconds from the start of a process to its first gradient.

    Python keeps bytecode, as it does by default: the first process may compile this package's.

    Returns
    -------
    empty : float
        With nothing in numba's cache: the kernels are compiled.
    warm : Times
        With the cache that the first process left.
    """
    with tempfile.TemporaryDirectory() as cache:
        empty, *warm = (_seconds_to_gradient(cache) for _ in range(1 + warm_rounds))
    return empty, Times(warm)


def _seconds_to_gradient(cache: str) -> float:
    """Start a process and wait for its first line of output."""
    environment = os.environ | {"NUMBA_CACHE_DIR": cache, "PYTHONDONTWRITEBYTECODE": ""}
    start = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", FIRST_GRADIENT], cwd=ROOT, env=environment, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        seconds = time.perf_counter() - start
    if line.strip() != b"done":
        raise RuntimeError("the process ended before its first gradient; its error is above")
    return seconds


def _run(code: str) -> None:
    """Run code in a fresh process, from the root of the checkout."""
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
