"""The machine that is measured on: its processor and versions, and whether it is idle."""

import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

PACKAGES = ("numpy", "numba", "torch", "jax")

BUSY_CORES = 0.5
"""Cores in use by others from which on times are not right."""

MAX_WAIT_SECONDS = 600.0


def processor() -> str:
    """Return the processor's model name and the number of cores; nothing names the machine."""
    model = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        lines = facts.read_text().splitlines()
        model = next(
            (s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")), model
        )
    return f"{model}, {os.cpu_count()} cores"


def versions() -> str:
    """Return the versions of Python and of the packages that are compared."""
    found = [f"Python {platform.python_version()}"]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            found.append(f"no {package}")
    return ", ".join(found)


def busy_cores(seconds: float = 3.0) -> float:
    """Return how many cores others keep busy while this process sleeps."""
    return float(psutil.cpu_percent(seconds)) / 100 * (os.cpu_count() or 1)


def wait_until_idle(max_seconds: float = MAX_WAIT_SECONDS) -> None:
    """Return when others leave the machine alone; give up after some minutes, with a sentence."""
    end, told = time.monotonic() + max_seconds, False
    while (cores := busy_cores()) > BUSY_CORES:
        if time.monotonic() > end:
            raise SystemExit(
                f"Other processes have kept the machine busy for {max_seconds / 60:.0f} minutes, "
                f"now {cores:.1f} cores, and what is timed beside them is too long: end them, or "
                "pass --anyway, which measures but leaves the page as it is."
            )
        if not told:
            print(f"Waiting: other processes keep {cores:.1f} cores busy.", flush=True)
            told = True
