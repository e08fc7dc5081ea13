"""On what was it measured? The processor and the versions, and nothing that names the machine."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("numpy", "numba", "torch", "jax")


def processor() -> str:
    """Return the processor's model name and the number of cores."""
    model = platform.processor() or platform.machine()
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        lines = facts.read_text().splitlines()
        model = next(
            (s.split(":", 1)[1].strip() for s in lines if s.startswith("model name")), model
        )
    return f"{model}, {os.cpu_count()} cores"


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are compared, where installed."""
    found = {"Python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def disturbance() -> str:
    """Return a warning if other processes were busy in the last minute, else nothing."""
    if not hasattr(os, "getloadavg"):  # Windows
        return ""
    load = os.getloadavg()[0]
    if load < 0.5:
        return ""
    return (
        f"Other processes kept {load:.1f} cores busy before the run: times are not to be trusted."
    )
