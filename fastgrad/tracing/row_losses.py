"""Losses as sums by the rows that they depend on; and whether rows mix.

They do not if the operations say so, and a test with nan confirms it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import chain, combinations, count, islice
from math import comb

import numpy as np
from numpy.typing import NDArray

from fastgrad.lazy import lazy
from fastgrad.tracing.affine import Stage, UnitIds, propagate
from fastgrad.tracing.operations import Node
from fastgrad.tracing.replay import Observer, Outcome, Replay
from fastgrad.typing import Doubles, Places


def rows_of_elements(replay: Replay, stage: Stage) -> dict[Node, UnitIds]:
    """Return the row of the stage that each element of the losses, and of other arrays, depends on.

    The rows' numbers are passed on from operation to operation, as those of units are:
    an operation that mixes elements of two rows, whatever their values, has no rows.
    `is_confirmed` then tests what the operations say.

    Parameters
    ----------
    replay : Replay
        From the stage to the losses.
    stage : Stage

    Returns
    -------
    dict of int arrays
        Row numbers from 1. Arrays in which rows are mixed are left out.
    """
    rows = propagate(replay.nodes, stage.node, stage.rows)
    if replay.target in rows and not is_confirmed(replay, stage, rows[replay.target]):
        del rows[replay.target]
    return rows


def is_confirmed(replay: Replay, stage: Stage, row_of_element: UnitIds) -> bool:
    """Poison rows with nan, and see that no loss of another row becomes nan.

    Each row is poisoned in a set of replays of its own, and all sets have the same size: none holds
    another. So for any two rows there is a replay in which the first is poisoned and the second
    is not. No fewer replays test all pairs (E. Sperner, 1928).
    """
    poisoned = _sets(len(stage.inputs))
    versions = np.where(poisoned[:, stage.rows], np.nan, stage.node.value)
    spread = np.isnan(replay.all_versions(versions))
    return not np.any(spread & ~poisoned[:, row_of_element])


def _sets(rows: int) -> NDArray[np.bool_]:
    """Return in which replays each row, counted from 1, is poisoned, of shape (replays, 1 + rows).

    Row 0 stands for none.
    """
    replays = next(n for n in count(2) if comb(n, n // 2) >= rows)
    sets = islice(combinations(range(replays), replays // 2), rows)
    members = np.fromiter(chain.from_iterable(sets), np.intp).reshape(rows, replays // 2)
    poisoned = np.zeros((replays, 1 + rows), bool)
    poisoned[members.T, np.arange(1, rows + 1)] = True
    return poisoned


@dataclass(frozen=True, eq=False)
class RowLosses:
    """The losses of rows, as sums of the elements of an array of losses.

    Parameters
    ----------
    replay : Replay
        From the stage to the losses.
    row_of_element : int array of the losses' shape
        The row of each element, counted from 1; 0 for none.
    count : int
        The number of rows.
    row_ids : dict, optional
        The row of each element of other arrays, as far as it is known.
    """

    replay: Replay
    row_of_element: UnitIds
    count: int
    row_ids: Mapping[Node, UnitIds] = field(default_factory=dict)

    def changes(
        self,
        values: Doubles,
        units: NDArray[np.intp] | None = None,
        observe: Observer | None = None,
    ) -> Doubles:
        """Return how much moving each unit changes each row's loss.

        Parameters
        ----------
        values : array of shape (amounts, *root.shape)
            The stage with all units moved.
        units : array of int, optional
            The units that are wanted; without it, all.
        observe : callable, optional
            What is told of each operation.

        Returns
        -------
        array of shape (units, amounts, rows)
        """
        parts = self.replay.moved(values, units, observe, self.summed)
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def split(self, stage: Stage, end: Node) -> "tuple[Replay, RowLosses]":
        """Return the replay until an array through which all goes, and the losses from there."""
        replay = self.replay
        nodes, functions = [replay.root, *replay.nodes], replay.functions
        before = Replay(nodes, stage.node, stage.unit_ids, end, replay.unit_ids, functions)
        none = np.zeros(end.shape, np.intp)
        after = Replay(nodes, end, none, replay.target, {}, functions)
        return before, replace(self, replay=after)

    def without_holding(self) -> "RowLosses":
        """Return the same where nothing is held."""
        return replace(self, replay=self.replay.without_holding())

    @property
    def has_loss(self) -> NDArray[np.bool_]:
        """Which rows have a loss, as an array of shape (rows, 1)."""
        elements = np.bincount(self.row_of_element.reshape(-1), minlength=self.count + 1)
        return elements[1:, np.newaxis] > 0

    def losses(
        self,
        values: Doubles,
        observe: Observer | None = None,
        units: NDArray[np.intp] | None = None,
        reach: Doubles | None = None,
    ) -> Doubles:
        """Return by how much each row's loss changes, for any versions of the stage.

        Parameters
        ----------
        values : array of shape (m, *root.shape)
        observe, units, reach
            As for `Replay.all_versions`.

        Returns
        -------
        array of shape (m, rows)
        """
        versions = self.replay.all_versions(values, observe, units, reach)
        return self._by_row(difference(versions, self.replay.target.value))

    def summed(self, outcome: Outcome) -> Doubles:
        """Return each row's change, of shape (units, amounts, rows)."""
        change = difference(outcome.values, self.replay.target.value)
        if outcome.unit_ids is None:
            units, amounts = change.shape[:2]
            by_row = self._by_row(change.reshape(-1, *self.row_of_element.shape))
            return by_row.reshape(units, amounts, -1)
        unit_ids, row_of_element = outcome.unit_ids.reshape(-1), self.row_of_element.reshape(-1)
        counted = (unit_ids > 0) & (row_of_element > 0)
        place = (unit_ids[counted] - 1) * self.count + row_of_element[counted] - 1
        size, flat = len(self.replay.units) * self.count, change.reshape(len(change), -1)
        if flat.shape[1] != size or not np.array_equal(place, np.arange(size)):
            flat = np.stack([np.bincount(place, row[counted], size) for row in flat])
        by_unit = flat.reshape(len(change), -1, self.count).take(outcome.units - 1, axis=1)
        return np.asarray(by_unit.transpose(1, 0, 2), np.float64)

    @lazy
    def _order(self) -> tuple[Places | None, Places, Places]:
        """The elements row after row, or None if they lie so; the rows; where each begins."""
        rows = self.row_of_element.reshape(-1)
        order = None
        if not (np.all(rows[1:] >= rows[:-1]) and np.all(rows[:1] > 0)):
            order = np.argsort(rows, kind="stable")[np.count_nonzero(rows == 0) :]
            rows = rows[order]
        starts = np.flatnonzero(np.append(rows[:1] > 0, rows[1:] != rows[:-1]))
        return order, rows[starts], starts

    def _by_row(self, change: Doubles) -> Doubles:
        """Sum versions of the target's elements, of shape (m, *shape), by their rows."""
        order, present, starts = self._order
        change = change.reshape(len(change), -1)
        if order is not None:
            change = change[:, order]
        if len(present) < change.shape[1]:
            change = np.add.reduceat(change, starts, axis=1)
        if len(present) == self.count:
            return change
        result = np.zeros((len(change), self.count))
        result[:, present - 1] = change
        return result


def difference(values: Doubles, recorded: Doubles) -> Doubles:
    """Return by how much values differ; integers, which might wrap around, as floats."""
    if recorded.dtype.kind in "iub":
        return values.astype(np.float64) - np.asarray(recorded, np.float64)
    return np.asarray(values - recorded)
