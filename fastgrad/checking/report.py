"""Reports of a check: true or false by themselves, and readable as a table, with notes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np

from fastgrad.checking.noise import Noise, extrapolate
from fastgrad.checking.numerical import NumericalGradient, largest_magnitude
from fastgrad.checking.probe import Probe
from fastgrad.differences.arguments import element, html_table
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

    def _repr_html_(self) -> str:
        """Return the same for a notebook, with a map of the differences of what is wrong."""
        from html import escape

        parts = [f"<p><b>{escape(self.summary)}</b></p>"]
        if self.rows:
            parts.append(html_table(HEADINGS, _lines(self.rows)))
        if self.findings:
            items = "".join(f"<li>{escape(finding)}</li>" for finding in self.findings)
            parts.append(f"<ul>{items}</ul>")
        return "".join([*parts, *self._maps()])

    def _maps(self) -> Iterator[str]:
        """Yield a picture for each row that is wrong, where matplotlib is installed."""
        from fastgrad.checking.plots import draw_difference, inline

        for row in self.rows:
            if row.verdict == "wrong":
                yield inline(partial(draw_difference, self, row.name))


HEADINGS = ("", "", "error", "at", "gradient", "numerical", "round-off", "truncation", "")
LEFT_COLUMNS = (0, 1, 3, 8)
"""Columns that are flushed left."""


def table(rows: tuple[Row, ...]) -> str:
    """Return the rows as lines of text: the largest absolute and the largest relative error."""
    lines = [HEADINGS, *_lines(rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADINGS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if k in LEFT_COLUMNS else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _lines(rows: tuple[Row, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the table's lines, two for each row."""
    for row in rows:
        if row.absolute is None:
            yield (row.name, "no elements", *[""] * 6, row.verdict)
            continue
        first = f"{row.absolute.error:.1e}"
        yield (row.name, "absolute", first, *_cells(row.name, row.absolute), row.verdict)
        if row.relative is not None:
            second = f"{row.relative.relative_error:.1e}"
            yield ("", "relative", second, *_cells(row.name, row.relative), "")


def _cells(name: str, shown: Element) -> tuple[str, ...]:
    """Return an element's numbers as a row of the table."""
    digits = _digits(shown)
    return (
        element(name, shown.index),
        f"{shown.gradient:.{digits}e}",
        f"{shown.numerical:.{digits}e}",
        f"{shown.round_off:.0e}",
        f"{shown.truncation:.0e}",
    )


def _digits(shown: Element) -> int:
    """Return how many digits show in what the two values differ."""
    relative = shown.relative_error
    if not 0 < relative < np.inf:
        return 6
    return int(min(max(2 - np.floor(np.log10(relative)), 3), 12))


MIN_VALUE_FACTOR = 1e3
"""Times its own errors that a value is to be large for its relative error to mean something."""


def row_of(numerical: NumericalGradient, verdict: Verdict) -> Row:
    """Return the report's row for a part, with what closer looks told of single elements."""
    part = numerical.part
    value, truncation = numerical.value.copy(), numerical.truncation.copy()
    for place, probe in numerical.probes.items():
        value[place], truncation[place] = probe.value, probe.error

    def worst(errors: Array, least: float) -> Element | None:
        place = int(np.argmax(errors)) if errors.size else 0  # the first nan, if there is one
        if not errors.size or errors[place] < least:
            return None
        index, analytic = part.index(place), float(part.analytic[place])
        of_place = float(value[place])
        error = abs(analytic - of_place)
        moved = float(np.broadcast_to(numerical.moved, value.shape)[place])
        round_off = numerical.round_off + moved
        return Element(index, error, analytic, of_place, round_off, float(truncation[place]))

    with np.errstate(all="ignore"):
        error = abs(part.analytic - value)
        size = np.maximum(abs(part.analytic), abs(value))
        size += MIN_VALUE_FACTOR * (truncation + numerical.round_off)
        smallest = float(np.finfo(np.float64).smallest_subnormal)
        absolute, relative = worst(error, 0.0), worst(error / size, smallest)
    shape = part.x.shape
    return Row(
        part.name, verdict, absolute, relative, part.analytic.reshape(shape), value.reshape(shape)
    )


def summary_of(
    right: list[NumericalGradient], wrong: list[NumericalGradient], others: list[str]
) -> str:
    """Say which gradients are wrong and which are right; others are known by directions alone."""
    names = [numerical.name for numerical in wrong]
    if not wrong:
        text = "The gradient is right."
        if any(
            probe.kind == "unclear" for numerical in right for probe in numerical.passed.values()
        ):
            text = "The gradient is right, as far as the differences can tell."
    elif not right and not others:
        text = "The gradient is wrong" + (f": {in_words(names)}." if len(wrong) > 1 else ".")
    else:
        text = f"The gradient of {in_words(names)} is wrong"
        text += f", that of {in_words([each.name for each in right])} is right." if right else "."
    if others:
        text += f" {in_words(others)} agreed along random directions."
    return text


def in_words(names: Sequence[str]) -> str:
    """Return "W1, b1 and W2"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


SAMPLE = 1000
"""Elements whose truncation errors are looked at."""

HIDDEN_ERROR_SHARE = 1e-3
"""Share of the largest element from which the report says that smaller errors are not seen."""


NOTES = {
    "kink": (
        "at a kink of f, as {at}: the derivative is {probe.below:.4g} from below and "
        "{probe.above:.4g} from above. The gradient lies between the two, so it is right."
    ),
    "jump": (
        "at a jump of f, as {at}, where it has no derivative: its slope is {probe.below:.4g} below "
        "and {probe.above:.4g} above. The gradient is one of these."
    ),
    "unclear": (
        "where the differences cannot tell, as {at}: the derivative is {probe.below:.4g} from "
        "below and {probe.above:.4g} from above at a step of {probe.step:.1g}, and something else "
        "at smaller ones, by kinks next to x or by noise. The gradient may be wrong there."
    ),
    "near": (
        "within a step of a kink of f, as {at}, with one at {probe.distance:+.1e} from it. At a "
        "step of {probe.step:.1g} the gradient agrees."
    ),
    "step": (
        "where f varies within the step {h:g}, as {at}. At a step of {probe.step:.1g} the gradient "
        "agrees."
    ),
}
"""Kind of a closer look, "near" where a kink is beside x -> what is said of such elements."""


def kinks(right: list[NumericalGradient], h: float) -> Iterator[str]:
    """Say which elements of right gradients are at kinks, or need a smaller step.

    Parameters
    ----------
    right : list of NumericalGradient
    h : float
        The step.
    """
    for numerical in right:
        part = numerical.part
        for kind, text in NOTES.items():
            probes = {
                place: each
                for place, each in numerical.passed.items()
                if kind == ("near" if each.distance else each.kind)
            }
            if probes:
                place = max(probes, key=lambda place: _prominence(probes[place]))
                count = "1 element is" if len(probes) == 1 else f"{len(probes)} elements are"
                words = text.format(at=part.element(place), probe=probes[place], h=h)
                yield f"{part.name}: {count} {words}"


def _prominence(probe: Probe) -> float:
    """Return what is largest for the strongest kink, or that which is nearest to x."""
    return -abs(probe.distance) if probe.distance else abs(probe.above - probe.below)


def precision(right: list[NumericalGradient], noise: Noise, h: float) -> Iterator[str]:
    """Say how exact f is, and below which size errors are not seen, where that is large."""
    if noise.is_coarse:
        digits = max(0.0, -np.log10(noise.relative))
        what = (
            "it computes in float32. With x and the batch in float64 the check is sharper."
            if digits > 6
            else "its values are noisy, as those of an iteration or a simulation."
        )
        yield f"f has only {digits:.0f} digits, errors of about {noise.level:.0e}: {what}"
    for numerical in right:
        if not numerical.part.x.size:
            continue
        every = max(1, numerical.part.x.size // SAMPLE)
        known = [k for k, each in numerical.passed.items() if each.kind in ("kink", "jump")]
        unseen = np.setdiff1d(np.arange(0, numerical.part.x.size, every), known)
        truncation = float(np.median(numerical.truncation[unseen])) if unseen.size else 0.0
        hidden = numerical.round_off + truncation
        # Where f is coarse all differences may be 0, and the gradient that is claimed is not.
        claimed = largest_magnitude(numerical.part.analytic)
        largest = max(largest_magnitude(numerical.value), claimed)
        if not hidden > HIDDEN_ERROR_SHARE * largest > 0:
            continue
        if truncation > numerical.round_off:
            balance = (numerical.round_off / (2 * truncation)) ** (1 / 3)
            better = float(f"{h * max(balance, 1e-6):.0e}")
            reason = f"the step {h:g} is too large for f"
        elif not noise.is_coarse:
            better = noise.step
            reason = f"the round-off of f, divided by the step {h:g}, is as large"
        else:
            continue
        remedy = f"; pass h={better:g}" if _is_better(numerical, noise, better) else ""
        yield f"{numerical.part.name}: errors below {hidden:.0e} are not seen: {reason}{remedy}."


def _is_better(numerical: NumericalGradient, noise: Noise, step: float) -> bool:
    """Return whether a third step's differences are surer, at the largest element."""
    part, place = numerical.part, int(np.argmax(abs(numerical.value)))
    _, f = numerical.subject.along(part, place, step * np.array([1.0, -1.0, 2.0, -2.0]))
    near, far = (f[0] - f[1]) / (2 * step), (f[2] - f[3]) / (4 * step)
    _, truncation, round_off = extrapolate(near, far, step, noise.level)
    return bool(
        truncation + round_off < (float(numerical.truncation[place]) + numerical.round_off) / 2
    )
