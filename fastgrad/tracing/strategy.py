"""Strategies for each term of a recorded loss: units' responses, weights, or elements.

A term that depends on x through one affine stage is differenced by moving the stage's units: at a
few shifts if its rows are independent, otherwise as every single weight moves them. Any other term
is differenced by moving the elements of x themselves.
"""

from dataclasses import dataclass

import numpy as np

from fastgrad.tracing.affine import Stage, Term, UnitIds, find_stage
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.replay import (
    REPLAY_TOLERANCE,
    Replay,
    RowLosses,
    difference,
    find_row_of_element,
)
from fastgrad.tracing.trace import Trace
from fastgrad.tracing.unit_responses import (
    Changes,
    Weights,
    by_elements,
    by_responses,
    by_weights,
    shifts_of_responses,
)
from fastgrad.typing import Array

SECONDS_PER_ELEMENT = 4e-9
"""About what an element of a replayed array costs, at least; for the choice."""


@dataclass(frozen=True, eq=False)
class TermStrategy:
    """A term of the loss, and how it is differenced.

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
        """The number of times that each unit is moved."""
        if self.stage is None:
            return 2
        if self.row_of_element is None:
            return 2 * len(self.stage.used_inputs)
        return 2 * shifts_of_responses(self.stage)

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return SECONDS_PER_ELEMENT * self.replay.cost(self.moves)

    def add_to(self, changes: Array, straight: Array, uneven: Array) -> bool:
        """Add the term's weighted changes to those of all terms; say whether straight is known.

        Parameters
        ----------
        changes : array (elements of x,)
            All of them are added to it.
        straight : array (elements of x,)
            What is in proportion to the moves is added to it. If that was not measured, but up and
            down have opposite weights, all of it may be, and is counted as that.
        uneven : array (elements of x,)
            If that was not measured: the sizes of what moves up and down add up to.
        """
        if self.term.scale == 0:  # a penalty that is switched off
            return True
        term_changes = self._changes()
        where = slice(None) if self.stage is None else self.stage.where
        changes[where] += term_changes.wanted
        if term_changes.uneven is not None:
            uneven[where] += term_changes.uneven
        is_known = term_changes.straight is not None
        straight[where] += term_changes.straight if is_known else term_changes.wanted
        return is_known

    def _changes(self) -> Changes:
        scale = self.term.scale
        weights = scale * self.weights[0], scale * self.weights[1]
        if self.stage is None:
            return by_elements(self._as_one_row(), self.h, weights)
        if self.row_of_element is not None:
            rows = RowLosses(self.replay, self.row_of_element, len(self.stage.inputs))
            changes = by_responses(rows, self.stage, self.x, self.h, weights)
            if changes is not None:
                return changes
        seconds = SECONDS_PER_ELEMENT * self.replay.cost(2 * len(self.stage.used_inputs))
        if seconds > self.limit:
            raise NotTraceable("it is not smooth enough for few shifts, and costly to replay")
        return by_weights(self._as_one_row(), self.stage, self.x, self.h, weights)

    def _as_one_row(self) -> RowLosses:
        """Return the term as one row."""
        return RowLosses(self.replay, np.ones(self.term.node.shape, np.intp), 1)

    def describe(self) -> str:
        """Describe in words what is moved, and how often."""
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


def choose_strategies(
    trace: Trace, h: float, limit: float, weights: Weights = (1.0, -1.0)
) -> list[TermStrategy]:
    """Choose how each term is differenced.

    Parameters
    ----------
    trace : Trace
    h : float
        The step.
    limit : float
        The seconds that all may take: those of the loop.
    weights : pair of floats
        Which changes are wanted, as in `TermStrategy`.

    Raises
    ------
    NotTraceable
        If they would take longer.
    """
    strategies = [_choose_strategy(trace, term, h, limit, weights) for term in trace.terms]
    seconds = sum(strategy.seconds for strategy in strategies)
    if seconds > limit:
        raise NotTraceable(
            f"replaying would take about {seconds:.2g} s, and the loop about {limit:.2g} s"
        )
    return strategies


def _choose_strategy(
    trace: Trace, term: Term, h: float, limit: float, weights: Weights
) -> TermStrategy:
    stage = find_stage(trace.nodes, term.node)
    if stage is None:
        root = trace.nodes[0]
        unit_ids = np.arange(1, root.value.size + 1).reshape(root.shape)
        replay = Replay(trace.nodes, root, unit_ids, term.node)
    else:
        replay = Replay(trace.nodes, stage.node, stage.unit_ids, term.node)
    replayed = replay.all_versions(replay.root.value[np.newaxis])[0]
    error = abs(difference(replayed, term.node.value)).max(initial=0)
    if not error <= REPLAY_TOLERANCE * abs(term.node.value).max(initial=0):
        raise NotTraceable("a replay does not give what it computed")
    rows = None if stage is None else find_row_of_element(replay, stage)
    x = trace.nodes[0].value.reshape(-1)
    return TermStrategy(term, replay, stage, rows, h, x, weights, limit)
