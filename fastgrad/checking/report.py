"""Reports of a check: true or false by themselves, and readable as a table."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fastgrad.checking.subject import index_text
from fastgrad.typing import Array

Verdict = Literal["right", "wrong"]


@dataclass(frozen=True)
class Element:
    """An element, what is claimed of it, and what the differences say.

    Attributes
    ----------
    index : tuple of int
    error : float
        The absolute difference of gradient and numerical.
    gradient, numerical : float
        The two values.
    round_off, truncation : float
        What the numerical one may be wrong by itself: by rounding, and by its step.
    """

    index: tuple[int, ...]
    error: float
    gradient: float
    numerical: float
    round_off: float
    truncation: float

    @property
    def relative_error(self) -> float:
        """The error in units of the larger one of the two values."""
        largest = max(abs(self.gradient), abs(self.numerical))
        return self.error / largest if largest else 0.0


@dataclass(frozen=True, eq=False)
class Row:
    """What came of one array of parameters.

    Attributes
    ----------
    name : str
    verdict : {"right", "wrong"}
        Whether some difference is larger than what the numerical side itself may be wrong by, and
        is confirmed by a closer look at f.
    absolute, relative : Element
        Where the absolute and the relative error is largest; the latter among the elements that
        are large enough to be told from 0.
    gradient, numerical : array
        All of both, in the parameter's shape.
    """

    name: str
    verdict: Verdict
    absolute: Element | None
    relative: Element | None
    gradient: Array = field(repr=False)
    numerical: Array = field(repr=False)


@dataclass(frozen=True, eq=False)
class Report:
    """The result of `check_gradient`: true if the gradient is right, and printed as a table.

    Attributes
    ----------
    right : bool
        What ``bool(report)`` is.
    rows : tuple of Row
        One for each array of parameters that was compared element by element.
    findings : tuple of str
        What is wrong, in words, each proven by evaluating f; and what else was seen.
    summary : str
        The first line.
    h : float
        The step.
    evaluations : int
        How often f was called, besides the calls by the engine for whole gradients.
    """

    right: bool
    rows: tuple[Row, ...]
    findings: tuple[str, ...]
    summary: str
    h: float
    evaluations: int

    def __bool__(self) -> bool:
        """Return whether the gradient is right."""
        return self.right

    def __getitem__(self, name: str) -> Row:
        """Return the row of a parameter."""
        for row in self.rows:
            if row.name == name:
                return row
        raise KeyError(
            f"there is no row {name!r}; the rows are {', '.join(row.name for row in self.rows)}"
        )

    def __str__(self) -> str:
        """Return the summary, the table and the findings."""
        parts = [self.summary]
        if self.rows:
            parts.append(table(self.rows))
        parts += [f"- {finding}" for finding in self.findings]
        return "\n".join(parts)


HEADINGS = ("", "", "error", "at", "gradient", "numerical", "round-off", "truncation", "")
LEFT = (0, 1, 3, 8)
"""Columns that are flushed left."""


def table(rows: tuple[Row, ...]) -> str:
    """Return the rows as lines of text: the largest absolute and the largest relative error."""
    lines: list[tuple[str, ...]] = [HEADINGS]
    for row in rows:
        if row.absolute is None:
            lines.append((row.name, "no elements", *[""] * 6, row.verdict))
            continue
        first = f"{row.absolute.error:.1e}"
        lines.append((row.name, "absolute", first, *_cells(row.name, row.absolute), row.verdict))
        if row.relative is not None:
            second = f"{row.relative.relative_error:.1e}"
            lines.append(("", "relative", second, *_cells(row.name, row.relative), ""))
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k in LEFT else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(name: str, element: Element) -> tuple[str, ...]:
    digits = _digits(element)
    return (
        index_text(name, element.index),
        f"{element.gradient:.{digits}e}",
        f"{element.numerical:.{digits}e}",
        f"{element.round_off:.0e}",
        f"{element.truncation:.0e}",
    )


def _digits(element: Element) -> int:
    """Return how many digits show in what the two values differ."""
    relative = element.relative_error
    if not 0 < relative < np.inf:
        return 6
    return int(min(max(2 - np.floor(np.log10(relative)), 3), 12))
