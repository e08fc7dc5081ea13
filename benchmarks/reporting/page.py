"""RESULTS.md: the table of all figures, and a section for each part of the report."""

import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from benchmarks.measure.machine import processor, versions
from benchmarks.reporting import functions, nets
from benchmarks.reporting.result import FIGURES_HEAD, Result, Scale, table

Benchmark = Callable[[Result, Scale, Path], None]
"""Measures, draws into a folder, and adds to the result; its docstring says what of."""

PARTS: dict[str, Benchmark] = {
    benchmark.__name__: benchmark
    for benchmark in (
        nets.cold_start,
        nets.dense,
        nets.hard_problems,
        nets.batches,
        nets.traced,
        nets.book_nets,
        nets.untraceable,
        nets.training,
        nets.growth,
        functions.schemes,
        functions.compiled,
        functions.adaptive,
        functions.honesty,
        functions.workers,
        functions.checking,
    )
}
"""What the report is made of, in its order."""

BENCHMARKS: dict[str, Benchmark] = PARTS | {
    "density": nets.density,
    "random_gradients": functions.random_gradients,
}

PICTURES = {
    "dense": {
        "time.png": "Time of one gradient",
        "error.png": "Error against the exact quotient",
    },
    "traced": {"traced.png": "Time of one gradient of learners' nets"},
    "growth": {
        "growth_samples.png": "Cost against samples",
        "growth_inputs.png": "Cost against inputs",
        "growth_hidden.png": "Cost against hidden units",
    },
    "schemes": {
        "schemes.png": "Error against step for each scheme",
        "functions_time.png": "Time of a gradient against the number of variables",
    },
}

INTRODUCTION = """# Results

Written by `python -m benchmarks report`, which measures nothing while others keep the machine busy;
each part says when and by what it was measured. Contenders take turns in short blocks in one run;
a ratio is given of the medians and of the minima of single calls. Accuracy is asserted, by
`pytest benchmarks/`, too; time never is.

## Figures to reach
"""


def measure(name: str, scale: Scale, folder: Path) -> Result:
    """Run a benchmark in a fresh process, so that none has what others loaded or started."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(run, name, scale, folder).result()


def run(name: str, scale: Scale, folder: Path) -> Result:
    """Run a benchmark, which draws its pictures into the folder."""
    result = Result(name)
    BENCHMARKS[name](result, scale, folder)
    return result


def title(name: str) -> str:
    """Return the first line of a benchmark's docstring."""
    return (BENCHMARKS[name].__doc__ or "").splitlines()[0].rstrip(".")


def section(result: Result, command: str) -> str:
    """Return a part of the page, without its figures."""
    lines = [
        f"## {result.name}: {title(result.name)}",
        f"Measured on {time.strftime('%Y-%m-%d')} by `{command}` on {processor()}; {versions()}.",
        *result.text,
    ]
    pictures = PICTURES.get(result.name, {})
    lines += [f"![{words}](plots/{picture})" for picture, words in pictures.items()]
    return "\n\n".join(lines) + "\n"


def merge(page: Path, result: Result, command: str) -> None:
    """Write a part and its figures into the page, and keep the others."""
    figures, sections = read(page)
    figures[result.name], sections[result.name] = result.figures, section(result, command)
    rows = [row for name in PARTS for row in figures.get(name, [])]
    parts = [sections[name] for name in PARTS if name in sections]
    text = "\n".join([INTRODUCTION, table(FIGURES_HEAD, rows), "", *parts])
    page.write_text(text, encoding="utf-8")


def read(page: Path) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the figures and the section of each part that the page has, if there is one."""
    figures: dict[str, list[str]] = {}
    sections: dict[str, str] = {}
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    for found in re.finditer(r"^\|.*`python -m benchmarks (\w+)` \|$", text, re.M):
        figures.setdefault(found[1], []).append(found[0])
    for found in re.finditer(r"^## (\w+): .*?(?=^## |\Z)", text, re.M | re.S):
        sections[found[1]] = found[0].rstrip() + "\n"
    return figures, sections
