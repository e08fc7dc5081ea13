"""Strategies for each term of a recorded loss: units' responses, weights, or elements.

A term that depends on x through one affine stage is differenced by moving the stage's units: at a
few shifts if its rows are independent, otherwise as every single weight moves them. Any other term
is differenced by moving the elements of x themselves.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from fastgrad.tracing.affine import Stage, Term, find_stage
from fastgrad.tracing.changes import Changes
from fastgrad.tracing.dependence import UnitIds
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.replay import SAME, Replay
from fastgrad.tracing.row_losses import RowLosses, difference, find_row_of_element
from fastgrad.tracing.trace import Trace
from fastgrad.tracing.unit_responses import (
    Weights,
    by_elements,
    by_responses,
    by_weights,
    shifts_of_responses,
)
from fastgrad.typing import Array, Places

SECONDS_AN_ELEMENT = 4e-9
"""About what an element of a replayed array costs; for the choice of a way, and for `explain`."""


class Straight(IntEnum):
    """What is known of that part of changes that is in proportion to the moves."""

    UNKNOWN = 0
    ASSUMED = 1
    MEASURED = 2


@dataclass(frozen=True, eq=False)
class Part:
    """A term, and the way it is differenced.

    Attributes
    ----------
    term : Term
    replay : Replay
        From what is moved, the stage or x, to the term's array.
    stage : Stage or None
        None if x itself is moved.
    row_of_element : int array or None
        The row of the stage that each element of the term's array depends on, if rows do not mix.
    h : float
        The step.
    x : array (elements of x,)
    weights : pair of floats
        How much is wanted of ``L(x + h) - L(x)``, and of ``L(x - h) - L(x)``.
    limit : float
        The seconds that it may take.
    """

    term: Term
    replay: Replay
    stage: Stage | None
    row_of_element: UnitIds | None
    h: float
    x: Array
    weights: Weights
    limit: float

    @property
    def moves(self) -> int:
        """How often each unit is moved."""
        if self.stage is None:
            return 2
        if self.row_of_element is None:
            return 2 * int(self.stage.inputs.shape[1])
        return 2 * shifts_of_responses(self.stage)

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return SECONDS_AN_ELEMENT * self.replay.cost(self.moves)

    def add_to(self, changes: Array, straight: Array, uneven: Array) -> Straight:
        """Add the term's weighted changes to those of all, an array (elements of x,).

        And what of it is in proportion to the moves. If that was not measured, but up and down
        have opposite weights, all of it may be, and is counted as that; and to the last array is
        added how large what moves up and down add up to is.
        """
        if self.term.scale == 0:  # a penalty that is switched off
            return Straight.MEASURED
        found, where = self._changes(), slice(None) if self.stage is None else self.stage.where
        _add(changes, where, found.wanted)
        _add(straight, where, found.wanted if found.straight is None else found.straight)
        if found.uneven is not None:
            _add(uneven, where, found.uneven)
        if found.straight is None:
            return Straight.UNKNOWN
        return Straight.MEASURED if found.uneven is None else Straight.ASSUMED

    def _changes(self) -> Changes:
        scale = self.term.scale
        weights = scale * self.weights[0], scale * self.weights[1]
        if self.stage is None:
            return by_elements(self._whole(), self.h, weights)
        found = None
        if self.row_of_element is not None:
            rows = RowLosses(self.replay, self.row_of_element, len(self.stage.inputs))
            found = by_responses(rows, self.stage, self.x, self.h, weights)
        if found is None:
            by_every_weight = SECONDS_AN_ELEMENT * self.replay.cost(2 * self.stage.inputs.shape[1])
            if by_every_weight > self.limit:
                raise NotTraceable("it is not smooth enough for few shifts, and costly to replay")
            found = by_weights(self._whole(), self.stage, self.x, self.h, weights)
        return found

    def _whole(self) -> RowLosses:
        """Return the term as one row."""
        return RowLosses(self.replay, np.ones(self.term.node.shape, np.intp), 1)

    def describe(self) -> str:
        """Say what is moved, and how often."""
        mixed = self.replay.mixed_operations
        tail = f"{len(self.replay.nodes)} operations are replayed, {mixed} of them for each unit"
        units = len(self.replay.units)
        if self.stage is None:
            return f"- {units:,} elements of x are moved up and down; {tail}."
        function = getattr(self.stage.node.function, "__name__", "an operation")
        samples, inputs = self.stage.inputs.shape
        rows = "independent" if self.row_of_element is not None else "not independent"
        return (
            f"- x enters an affine stage ({function}) of {inputs:,} inputs and {units:,} units, "
            f"with {samples:,} rows, which are {rows}.\n"
            f"  Each unit is moved {self.moves:,} times; {tail}."
        )


def _add(changes: Array, where: Places | slice, values: Array) -> None:
    """Add values to changes at places that differ."""
    if isinstance(where, slice):
        changes += values
        return
    places = where.reshape(-1)
    first = int(places[0]) if places.size else 0
    if np.array_equal(places, np.arange(first, first + places.size)):  # a slice is faster
        changes[first : first + places.size] += values.reshape(-1)
    else:
        changes[where] += values


def plan(trace: Trace, h: float, limit: float, weights: Weights = (1.0, -1.0)) -> list[Part]:
    """Choose a way for each term.

    Parameters
    ----------
    trace : Trace
    h : float
        The step.
    limit : float
        The seconds that all may take: those of the loop.
    weights : pair of floats
        Which changes are wanted, as in `Part`.

    Raises
    ------
    NotTraceable
        If they would take longer.
    """
    parts = [_part(trace, term, h, limit, weights) for term in trace.terms]
    seconds = sum(part.seconds for part in parts)
    if seconds > limit:
        raise NotTraceable(
            f"replaying would take about {seconds:.2g} s, and the loop about {limit:.2g} s"
        )
    return parts


def _part(trace: Trace, term: Term, h: float, limit: float, weights: Weights) -> Part:
    stage = find_stage(trace.nodes, term.node)
    if stage is None:
        root = trace.nodes[0]
        unit_ids = np.arange(1, root.value.size + 1).reshape(root.shape)
        replay = Replay(trace.nodes, root, unit_ids, term.node)
    else:
        replay = Replay(trace.nodes, stage.node, stage.unit_ids, term.node)
    again = replay.all_versions(replay.root.value[np.newaxis])[0]
    sizes = abs(term.node.value)
    if not abs(difference(again, term.node.value)).max(initial=0) <= SAME * sizes.max(initial=0):
        raise NotTraceable("a replay does not give what it computed")
    rows = None
    if stage is not None:
        rows = find_row_of_element(replay, stage)
    x = trace.nodes[0].value.reshape(-1)
    return Part(term, replay, stage, rows, h, x, weights, limit)
