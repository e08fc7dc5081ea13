"""How does a product change when a few places of one factor do? By a matrix of low rank."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing.batched import Stack
from fastgrad.tracing.labels import Labels, common
from fastgrad.tracing.nodes import Node, value_of
from fastgrad.tracing.subscripts import factors

Array = NDArray[Any]


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
            places = places[:, 0]
            return self._side_by_side(values[..., places] - base[..., places], places)
        change = values - base
        amounts, *rows, length = change.shape
        # (units, amounts * rows, places of each) @ (units, places of each, columns)
        mine = change.reshape(-1, length)[:, places].transpose(1, 0, 2)
        product: Array = mine @ self.other[places]
        product = product.reshape(len(units) * amounts, *rows, *self.columns)
        versions = product.transpose(0, *(1 + axis for axis in self.order))
        versions += self.node.value
        return versions

    def _side_by_side(self, change: Array, places: NDArray[np.intp]) -> Array:
        """Return the recorded product plus outer products; the last axis in memory is versions'."""
        amounts, *rows, _ = change.shape
        mine = change.transpose(*range(1, change.ndim), 0)
        mine = np.ascontiguousarray(mine).reshape(*rows, *(1,) * len(self.columns), -1)
        other = np.repeat(self.other[places].T, amounts, axis=1).reshape(*self.columns, -1)
        product = (mine * other).transpose(*self.order, -1)
        product += self.node.value[..., np.newaxis]
        return np.moveaxis(product, -1, 0)
