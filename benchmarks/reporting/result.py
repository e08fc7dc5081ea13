"""How much is measured, and what a benchmark makes of it: figures to reach, and tables."""

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

FIGURES_HEAD = "what | reach | measured | printed by"


@dataclass
class Result:
    """What a benchmark found.

    Attributes
    ----------
    name : str
        The benchmark's.
    figures : list of str
        Rows of the table of figures, in Markdown, each ending with the command that prints it.
    text : list of str
        Paragraphs and tables.
    failures : list of str
        What is not as exact as it has to be; times are never judged.
    """

    name: str
    figures: list[str] = field(default_factory=list)
    text: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def figure(self, what: str, reach: str, measured: str) -> None:
        """Add a figure, with what it is to reach."""
        self.figures.append(row((what, reach, measured, f"`python -m benchmarks {self.name}`")))

    def table(self, head: str, rows: Iterable[Sequence[str]]) -> None:
        """Add a table to the text."""
        self.text.append(table(head, map(row, rows)))

    def check(self, ok: object, requirement: str) -> None:
        """Note the requirement as failed unless it is met."""
        if not ok:
            self.failures.append(f"{self.name}: {requirement}")


def row(cells: Sequence[str]) -> str:
    """Write a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def table(head: str, rows: Iterable[str]) -> str:
    """Write a table in Markdown, of rows and a head that are written, the head without its ends."""
    return "\n".join([row([head]), row(["---"] * len(head.split(" | "))), *rows])
