"""What is the loss of each row? The elements of an array of losses are summed by their rows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing.labels import Labels
from fastgrad.tracing.replay import Look, Outcome, Replay

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rows:
    """How the elements of the losses are summed to one loss a row.

    Parameters
    ----------
    replay : Replay
        From the stage to the losses.
    owners : int array of the losses' shape
        The row of each element, counted from 1; 0 for none.
    count : int
        The number of rows.
    """

    replay: Replay
    owners: Labels
    count: int

    def changes(
        self, values: Array, units: NDArray[np.intp] | None = None, look: Look | None = None
    ) -> Array:
        """Return how much moving each unit changes each row's loss.

        Parameters
        ----------
        values : array of shape (amounts, *root.shape)
            The stage with all units moved.
        units : array of int, optional
            The units that are wanted; without it, all.
        look : callable, optional
            What is told of each operation.

        Returns
        -------
        array of shape (units, amounts, rows)
        """
        parts = [self._summed(outcome) for outcome in self.replay.moved(values, units, look)]
        return np.concatenate(parts)

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows have a loss, as an array of shape (rows, 1)."""
        return np.bincount(self.owners.reshape(-1), minlength=self.count + 1)[1:, np.newaxis] > 0

    def losses(self, values: Array) -> Array:
        """Return by how much each row's loss changes, for any versions of the stage.

        Parameters
        ----------
        values : array of shape (m, *root.shape)

        Returns
        -------
        array of shape (m, rows)
        """
        return self._by_row(difference(self.replay.all_versions(values), self.replay.target.value))

    def _summed(self, outcome: Outcome) -> Array:
        change = difference(outcome.values, self.replay.target.value)
        if outcome.labels is None:
            units, amounts = change.shape[:2]
            return self._by_row(change.reshape(-1, *self.owners.shape)).reshape(units, amounts, -1)
        labels, owners = outcome.labels.reshape(-1), self.owners.reshape(-1)
        counted = (labels > 0) & (owners > 0)
        place = (labels[counted] - 1) * self.count + owners[counted] - 1
        size = len(self.replay.units) * self.count
        sums = [np.bincount(place, row.reshape(-1)[counted], size) for row in change]
        by_unit = np.stack(sums).reshape(len(change), -1, self.count).transpose(1, 0, 2)
        return np.asarray(by_unit[outcome.units - 1], np.float64)

    def _by_row(self, change: Array) -> Array:
        """Sum versions of the target's elements, of shape (m, *shape), by their rows."""
        owners = self.owners.reshape(-1)
        order = np.argsort(owners, kind="stable")[np.count_nonzero(owners == 0) :]
        present, starts = np.unique(owners[order], return_index=True)
        change = change.reshape(len(change), -1)
        if not np.array_equal(order, np.arange(owners.size)):
            change = change[:, order]
        if len(present) < len(order):
            change = np.add.reduceat(change, starts, axis=1)
        if len(present) == self.count:
            return change
        result = np.zeros((len(change), self.count))
        result[:, present - 1] = change
        return result


def difference(values: Array, recorded: Array) -> Array:
    """Return by how much values differ; integers, which might wrap around, as floats."""
    if recorded.dtype.kind in "iub":
        return values.astype(np.float64) - np.asarray(recorded, np.float64)
    return np.asarray(values - recorded)
