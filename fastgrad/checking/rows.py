"""The rows of a report: where the absolute and the relative error of a part are largest."""

import numpy as np

from fastgrad.checking.report import Element, Row
from fastgrad.checking.witness import BLOCK, Witness
from fastgrad.typing import Array

VISIBLE = 1e3
"""Times its own errors that a value is to be large for its relative error to mean something."""


def row_of(witness: Witness, wrong: bool) -> Row:
    """Return the report's row for a part."""
    part = witness.part
    for place, look in (witness.looks | witness.failed).items():
        witness.value[place], witness.truncation[place] = look.value, look.error
    absolute, relative = _largest_errors(witness, part.claim)
    shape = part.x.shape
    return Row(
        part.name,
        "wrong" if wrong else "right",
        None if absolute is None else _element(witness, absolute),
        None if relative is None else _element(witness, relative),
        part.claim.reshape(shape),
        witness.value.reshape(shape),
    )


def _largest_errors(witness: Witness, claim: Array) -> tuple[int | None, int | None]:
    """Return the places of the largest absolute and relative error; nan is larger than all."""
    places: list[int | None] = [None, None]
    largest = [-1.0, 0.0]
    with np.errstate(all="ignore"):
        for start in range(0, claim.size, BLOCK):
            block = slice(start, start + BLOCK)
            given, value = claim[block], witness.value[block]
            error = abs(given - value)
            size = np.maximum(abs(given), abs(value))
            size += VISIBLE * (witness.truncation[block] + witness.round_off)
            for k, errors in enumerate((error, error / size)):
                place = int(np.argmax(errors))  # the first nan, if there is one
                if not (np.isnan(largest[k]) or errors[place] <= largest[k]):
                    largest[k], places[k] = float(errors[place]), start + place
    return places[0], places[1]


def _element(witness: Witness, place: int) -> Element:
    part = witness.part
    gradient, numerical = float(part.claim[place]), float(witness.value[place])
    return Element(
        part.index(place),
        abs(gradient - numerical),
        gradient,
        numerical,
        witness.round_off,
        float(witness.truncation[place]),
    )
