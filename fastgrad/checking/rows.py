"""The rows of a report: where the absolute and the relative error of a part are largest."""

import numpy as np

from fastgrad.checking.numerical import BLOCK, NumericalGradient
from fastgrad.checking.report import Element, Row
from fastgrad.typing import Array

VISIBLE = 1e3
"""Times its own errors that a value is to be large for its relative error to mean something."""


def row_of(numerical: NumericalGradient, wrong: bool) -> Row:
    """Return the report's row for a part."""
    part = numerical.part
    for place, probe in (numerical.probes | numerical.failed).items():
        numerical.value[place], numerical.truncation[place] = probe.value, probe.error
    absolute, relative = _largest_errors(numerical, part.claim)
    shape = part.x.shape
    return Row(
        part.name,
        "wrong" if wrong else "right",
        None if absolute is None else _element(numerical, absolute),
        None if relative is None else _element(numerical, relative),
        part.claim.reshape(shape),
        numerical.value.reshape(shape),
    )


def _largest_errors(numerical: NumericalGradient, claim: Array) -> tuple[int | None, int | None]:
    """Return the places of the largest absolute and relative error; nan is larger than all."""
    places: list[int | None] = [None, None]
    largest = [-1.0, 0.0]
    with np.errstate(all="ignore"):
        for start in range(0, claim.size, BLOCK):
            block = slice(start, start + BLOCK)
            given, value = claim[block], numerical.value[block]
            error = abs(given - value)
            size = np.maximum(abs(given), abs(value))
            size += VISIBLE * (numerical.truncation[block] + numerical.round_off)
            for k, errors in enumerate((error, error / size)):
                place = int(np.argmax(errors))  # the first nan, if there is one
                if not (np.isnan(largest[k]) or errors[place] <= largest[k]):
                    largest[k], places[k] = float(errors[place]), start + place
    return places[0], places[1]


def _element(found: NumericalGradient, place: int) -> Element:
    part = found.part
    gradient, numerical = float(part.claim[place]), float(found.value[place])
    return Element(
        part.index(place),
        abs(gradient - numerical),
        gradient,
        numerical,
        found.round_off,
        float(found.truncation[place]),
    )
