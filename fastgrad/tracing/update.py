"""How does a product change when a few places of one factor do? By a matrix of low rank."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing.batched import Stack
from fastgrad.tracing.labels import Labels, common
from fastgrad.tracing.nodes import Node, value_of
from fastgrad.tracing.subscripts import factors
from fastgrad.typing import Array

LOST = 8
"""How many times smaller than what it replaces a term may be, before adding the difference of both
to the sum loses more digits than computing the sum anew."""


@dataclass(frozen=True, eq=False)
class Update:
    """A product one of whose factors has units along the axis that is summed over.

    Moving unit u changes the product by the sum over the unit's places k on that axis of
    ``change[..., k] other[k, ...]``.

    Attributes
    ----------
    factor : Node
        The moved one.
    axis : int
        Its axis that is summed over.
    other : array of shape (places, columns)
    places : int array of shape (units, places of each)
    order : tuple of int
        How the axes (the factor's rows, columns) become the product's.
    """

    node: Node
    factor: Node
    axis: int
    other: Array
    places: NDArray[np.intp]
    order: tuple[int, ...]
    columns: tuple[int, ...]

    @classmethod
    def of(cls, node: Node, spec: str, which: int, labels: Labels, units: int) -> "Update | None":
        """Return None unless all units lie along the one axis that is summed over, alike."""
        terms, out = spec.split("->")
        pair = terms.split(",")
        mine, others = pair[which], pair[1 - which]
        summed = [c for c in mine if c in others]
        if len(summed) != 1 or summed[0] in out or set(mine + others) - {summed[0]} != set(out):
            return None
        axis = mine.index(summed[0])
        along = common(labels, tuple(k for k in range(labels.ndim) if k != axis))
        if along is None:
            return None
        along = along.reshape(-1)
        counts = np.bincount(along, minlength=units + 1)[1:]
        if not counts.size or counts.min() != counts.max():
            return None
        places = np.argsort(along, kind="stable")[np.count_nonzero(along == 0) :]
        factor, other = factors(node)[which], factors(node)[1 - which]
        other = np.asarray(value_of(other))
        other = np.moveaxis(other, others.index(summed[0]), 0)
        kept = mine.replace(summed[0], "") + others.replace(summed[0], "")
        return cls(
            node, factor, axis, other.reshape(len(other), -1),
            places.reshape(len(counts), -1), tuple(kept.index(c) for c in out),
            other.shape[1:],
        )  # fmt: skip

    def apply(
        self, separate: Mapping[Node, Stack], units: Labels, *, side_by_side: bool = False
    ) -> Array:
        """Return the product's versions, one for each unit and amount.

        Side by side in memory if asked for, and if each unit has one place.
        """
        places = self.places[units - 1]
        values = np.moveaxis(separate[self.factor].values, self.axis + 1, -1)
        base = np.moveaxis(self.factor.value, self.axis, -1)
        if side_by_side and places.shape[1] == 1:
            lone = places[:, 0]
            versions = self._side_by_side(values[..., lone] - base[..., lone], lone)
        else:
            change = values - base
            amounts, *rows, length = change.shape
            # (units, amounts * rows, places of each) @ (units, places of each, columns)
            mine = change.reshape(-1, length)[:, places].transpose(1, 0, 2)
            product: Array = mine @ self.other[places]
            product = product.reshape(len(units) * amounts, *rows, *self.columns)
            versions = product.transpose(0, *(1 + axis for axis in self.order))
            versions += self.node.value
        for k in self._cancelling(values, base, places):
            versions[k * len(values) : (k + 1) * len(values)] = self._anew(values, base, places[k])
        return versions

    def _cancelling(self, values: Array, base: Array, places: NDArray[np.intp]) -> list[int]:
        """Return which units' terms make up almost all of a product, and shrink when moved.

        The change then cancels the product, as where the one likely component of a mixture is
        moved away; what is left over has the rounding error of what was there before.
        """
        shrinks = ~(LOST * abs(values) >= abs(base)).all(axis=0)  # nan counts as well
        shrinks &= base != 0
        if not shrinks.any():
            return []
        mine = np.where(shrinks, abs(base), 0)[..., places].sum(axis=-1)  # (*rows, units)
        most = abs(self.other)[places].sum(axis=1).max(axis=-1, initial=0)  # of each unit
        all_terms = (abs(base) @ abs(self.other)).min(axis=-1, initial=np.inf)
        dominates = ~(mine * most <= (1 - 1 / LOST) * all_terms[..., np.newaxis])
        dominates &= mine > 0
        return np.flatnonzero(dominates.reshape(-1, len(places)).any(axis=0)).tolist()

    def _anew(self, values: Array, base: Array, places: NDArray[np.intp]) -> Array:
        """Return the versions of one unit, one for each amount, without the recorded product."""
        moved = np.broadcast_to(base, values.shape).copy()
        moved[..., places] = values[..., places]
        product = (moved @ self.other).reshape(*moved.shape[:-1], *self.columns)
        return product.transpose(0, *(1 + axis for axis in self.order))

    def _side_by_side(self, change: Array, places: NDArray[np.intp]) -> Array:
        """Return the recorded product plus outer products; the last axis in memory is versions'."""
        amounts, *rows, _ = change.shape
        mine = change.transpose(*range(1, change.ndim), 0)
        mine = np.ascontiguousarray(mine).reshape(*rows, *(1,) * len(self.columns), -1)
        other = np.repeat(self.other[places].T, amounts, axis=1).reshape(*self.columns, -1)
        product = (mine * other).transpose(*self.order, -1)
        product += self.node.value[..., np.newaxis]
        return np.moveaxis(product, -1, 0)
