"""How do gradients of any function fare? ``python -m benchmarks.functions_report`` writes it down.

Runs what measures each part, in a process of its own, and puts what it prints on one page.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from benchmarks.machine import disturbance, processor, versions

PARTS = {
    "schemes": "Schemes, steps, and other packages",
    "compiled": "Functions compiled by numba",
    "adaptive": "Gradients with error estimates",
    "workers": "Several processes",
    "checking": "Checks of gradients",
}
"""Module in benchmarks -> heading. Each prints its tables, in Markdown or as plain text."""

SMOKE = {
    "schemes": ["--smoke"],
    "adaptive": ["--smoke"],
    "checking": ["--smoke"],
    "workers": ["--parameters", "20", "--rounds", "1"],
}
"""What makes them small."""

PICTURES = {
    "schemes.png": "Error against step for each scheme",
    "functions_time.png": "Time of a gradient against the number of variables",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything, and write FUNCTIONS.md and the pictures in plots/."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.functions_report", description="Measure and write FUNCTIONS.md."
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help="only these: " + ", ".join(PARTS))
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent, help="the folder to write to"
    )
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    options = parser.parse_args(arguments)
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"there are no parts {', '.join(sorted(unknown))}; pass {', '.join(PARTS)}")
    plots = options.output / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    warning = disturbance()
    sections = []
    for name in options.parts or PARTS:
        if find_spec(f"benchmarks.{name}") is None:
            print(f"benchmarks/{name}.py is not there")
            continue
        start = time.perf_counter()
        flags = SMOKE.get(name, []) if options.smoke else []
        extra = ["--output", str(plots)] if name == "schemes" else []
        sections.append(_section(name, flags, extra))
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    path = options.output / "FUNCTIONS.md"
    path.write_text(_page(sections, warning), encoding="utf-8")
    print(f"written: {path} and {plots}")


def _section(name: str, flags: list[str], extra: list[str]) -> str:
    """Return what a module prints, under its heading."""
    command = [sys.executable, "-m", f"benchmarks.{name}", *flags, *extra]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise SystemExit(f"python -m benchmarks.{name} failed:\n{finished.stderr}")
    shown = " ".join(["python -m", f"benchmarks.{name}", *flags])
    printed = finished.stdout.strip()
    if "---" not in printed:  # no table in Markdown
        printed = f"```text\n{printed}\n```"
    return f"## {PARTS[name]}\n\nPrinted by `{shown}`.\n\n{printed}\n"


def _page(sections: list[str], warning: str) -> str:
    software = ", ".join(f"{name} {number}" for name, number in versions().items())
    pictures = [f"![{title}](plots/{name})" for name, title in PICTURES.items()]
    lines = [
        "# Gradients of any function",
        "",
        f"Written by `python -m benchmarks.functions_report` on {processor()}; {software}.",
        *([warning] if warning else []),
        "",
        *pictures,
        "",
        *sections,
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
