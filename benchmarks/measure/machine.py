"""The machine that is measured on: its processor and versions, and whether it is idle."""

import math
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

SHOWN_PERCENT = 10.0
"""Share of a core from which on a process is named."""

MESSAGE_SECONDS = 60.0
"""Seconds between two messages that say for whom it waits."""


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


def busy_cores(seconds: float = 3.0) -> tuple[float, list[str]]:
    """Return how many cores others keep busy while this process sleeps, and which processes do.

    The processes are named with their numbers, the busiest first.
    """
    processes = list(psutil.process_iter())
    for process in processes:
        _share(process)  # which counts from here on
    psutil.cpu_percent()
    time.sleep(seconds)
    cores = float(psutil.cpu_percent()) / 100 * (os.cpu_count() or 1)
    shares = sorted(
        ((_share(process), process) for process in processes), key=lambda pair: -pair[0]
    )
    return cores, [name for share, process in shares[:3] if share > 10 and (name := _name(process))]


def wait_until_idle(max_seconds: float = MAX_WAIT_SECONDS) -> None:
    """Return when others leave the machine alone; give up after some minutes, with a sentence.

    Meanwhile say for whom it waits, once a minute.
    """
    start = time.monotonic()
    said = -math.inf
    while (busy := busy_cores())[0] > BUSY_CORES:
        cores, names = busy
        seconds = time.monotonic() - start
        who = f"{cores:.1f} cores{': ' * bool(names)}{', '.join(names)}"
        if seconds > max_seconds:
            raise SystemExit(
                f"Other processes have kept the machine busy for {max_seconds / 60:.0f} minutes, "
                f"now {who}; what is timed beside them is too long. End them, or pass --anyway, "
                "which measures but leaves the page as it is."
            )
        if seconds >= said + MESSAGE_SECONDS:
            left = (max_seconds - seconds) / 60
            print(f"Waiting, for {left:.0f} minutes at most: others keep {who} busy.", flush=True)
            said = seconds


def _share(process: psutil.Process) -> float:
    """Return the percentage of a core that a process took since this was last asked."""
    try:
        return float(process.cpu_percent())
    except psutil.Error:  # it has ended, or is nobody's business
        return 0.0


def _name(process: psutil.Process) -> str:
    """Return how a process was started, in short, and its number."""
    try:
        command = " ".join([process.name(), *process.cmdline()[1:]])
    except psutil.Error:
        command = "a process that has ended"
    return f"{command[:40]} ({process.pid})"
