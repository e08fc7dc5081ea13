"""RESULTS.md: the table of all figures, and a section for each part of the report."""

import os
import re
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context, parent_process
from pathlib import Path
from threading import Thread

from benchmarks.measure.machine import processor, versions
from benchmarks.reporting import book, functions, nets
from benchmarks.reporting.derivatives import derivatives
from benchmarks.reporting.result import FIGURES_HEAD, Result, Scale, table

Benchmark = Callable[[Result, Scale, Path], None]
"""Measures, draws into a folder, and adds to the result; its docstring says what of."""

PARTS: dict[str, Benchmark] = {
    benchmark.__name__: benchmark
    for benchmark in (
        nets.cold_start,
        functions.small,
        nets.dense,
        nets.hard_problems,
        nets.batches,
        nets.traced,
        book.book_nets,
        nets.untraceable,
        nets.training,
        nets.growth,
        functions.schemes,
        functions.compiled,
        functions.adaptive,
        functions.honesty,
        derivatives,
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
    "growth": {"growth.png": "Cost of a step against sizes of the net and the batch"},
    "schemes": {
        "schemes.png": "Error against step for each scheme",
        "functions_time.png": "Time of a gradient against the number of variables",
    },
}

INTRODUCTION = """# Results

Written by `python -m benchmarks report`, which measures nothing while others keep the machine busy;
one part is measured again by `python -m benchmarks report --only NAME`. Contenders take turns in
short blocks in one run; a ratio is given of the medians and of the minima of single calls.
Accuracy is asserted, by `pytest benchmarks/`, too; time never is.

## Figures to reach
"""


def measure(name: str, scale: Scale, folder: Path) -> Result:
    """Run a benchmark in a fresh process, so that none has what others loaded or started."""
    with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
        return pool.submit(run, name, scale, folder).result()


def end_with_parent() -> None:
    """Let this process end as soon as the one that started it has ended, however that did."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    Thread(target=wait, daemon=True).start()


def run(name: str, scale: Scale, folder: Path) -> Result:
    """Run a benchmark, which draws its pictures into the folder."""
    result = Result(name)
    BENCHMARKS[name](result, scale, folder)
    return result


def title(name: str) -> str:
    """Return the first line of a benchmark's docstring."""
    return (BENCHMARKS[name].__doc__ or "").splitlines()[0].rstrip(".")


def section(result: Result, scale: str) -> str:
    """Return a part of the page, without its figures; say how much was measured, unless all."""
    less = "" if scale == "full" else f", with `--{scale}`,"
    lines = [
        f"## {result.name}: {title(result.name)}",
        f"Measured on {time.strftime('%Y-%m-%d')}{less} on {processor()}; {versions()}.",
        *(result.text or ["All that it finds is in the table of figures above."]),
    ]
    pictures = PICTURES.get(result.name, {})
    lines += [f"![{words}](plots/{picture})" for picture, words in pictures.items()]
    return "\n\n".join(lines) + "\n"


def merge(page: Path, result: Result, scale: str) -> None:
    """Write a part and its figures into the page, and keep the others."""
    figures, sections = read(page)
    figures[result.name], sections[result.name] = result.figures, section(result, scale)
    rows = [row for name in PARTS for row in figures.get(name, [])]
    parts = [sections[name] for name in PARTS if name in sections]
    text = "\n".join([INTRODUCTION, table(FIGURES_HEAD, rows), "", *parts])
    page.write_text(text, encoding="utf-8")


def read(page: Path) -> tuple[dict[str, list[tuple[str, ...]]], dict[str, str]]:
    """Return the figures and the section of each part that the page has, if there is one."""
    figures: dict[str, list[tuple[str, ...]]] = {}
    sections: dict[str, str] = {}
    text = page.read_text(encoding="utf-8") if page.exists() else ""
    for found in re.finditer(r"^\|.*`python -m benchmarks (\w+)` *\|$", text, re.M):
        cells = tuple(cell.strip() for cell in found[0].strip("|").split(" | "))
        figures.setdefault(found[1], []).append(cells)
    for found in re.finditer(r"^## (\w+): .*?(?=^## |\Z)", text, re.M | re.S):
        sections[found[1]] = found[0].rstrip() + "\n"
    return figures, sections
