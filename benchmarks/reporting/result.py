"""How much is measured, and what a benchmark makes of it: figures to reach, and tables."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes
    ----------
    whole_loop : bool
        Run the book's loop over every parameter; else over a sample.
    rounds : int
        Blocks of each contender.
    steps, seeds : int
        The length of a training, and how many are repeated.
    smoke : bool
        Shrink every problem.
    seed : int
        The first one of random cases that are searched for faults.
    """

    whole_loop: bool = True
    rounds: int = 15
    steps: int = 10_000
    seeds: int = 5
    smoke: bool = False
    seed: int = 0


SCALES = {
    "full": Scale(),
    "quick": Scale(whole_loop=False, rounds=5, steps=1_000, seeds=1),
    "smoke": Scale(whole_loop=False, rounds=1, steps=10, seeds=1, smoke=True),
}

ROUNDOFF_UNITS = 4
"""Rounding moves the loss by a few units in its last place, as in the sum over samples; eps L / h
stands for one unit in each of the two losses."""

FIGURES_HEAD = "what | reach | measured | printed by"

NUMBER = re.compile(r"([<>] )?[-+]?[\d.,e+-]+( %|%| s)?( \([\d.e+-]+\))?|")
"""What makes a column one of numbers, which stand at its right end."""


@dataclass
class Result:
    """What a benchmark found.

    Attributes
    ----------
    name : str
        The benchmark's.
    figures : list of tuple of str
        Rows of the table of figures, each ending with the command that prints it.
    text : list of str
        Paragraphs, and tables in Markdown.
    failures : list of str
        What is not as exact as it has to be; times are never judged.
    """

    name: str
    figures: list[tuple[str, ...]] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Return all of it in Markdown."""
        figures = [table(FIGURES_HEAD, self.figures)] if self.figures else []
        return "\n\n".join([*figures, *self.text])

    def figure(self, what: str, reach: str, measured: str) -> None:
        """Add a figure, with what it is to reach."""
        self.figures.append((what, reach, measured, f"`python -m benchmarks {self.name}`"))

    def table(self, lead: str, head: str, rows: Iterable[Sequence[str]]) -> None:
        """Add a table to the text, after a paragraph that says what to look at."""
        self.text += [lead, table(head, rows)]

    def check(self, ok: object, requirement: str) -> None:
        """Note the requirement as failed unless it is met."""
        if not ok:
            self.failures.append(f"{self.name}: {requirement}")


def table(head: str, rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown, its columns as wide as their widest cells."""
    titles, cells = head.split(" | "), [list(row) for row in rows]
    columns = list(zip(titles, *cells, strict=True))
    is_number = [
        any(column[1:]) and all(NUMBER.fullmatch(cell) for cell in column[1:]) for column in columns
    ]
    widths = [max(3, *map(len, column)) for column in columns]
    rules = [
        "-" * (width - 1) + ":" if number else "-" * width
        for width, number in zip(widths, is_number, strict=True)
    ]

    def line(row: Sequence[str]) -> str:
        padded = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(row, widths, is_number, strict=True)
        ]
        return f"| {' | '.join(padded)} |"

    return "\n".join(map(line, [titles, rules, *cells]))
