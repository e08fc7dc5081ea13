"""Structures of functions that cannot be recorded: what changes where parts of x are moved."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.colouring import groups_of
from fastgrad.differences.arguments import as_returned
from fastgrad.differences.guard import Original
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.lazy import LazyModule
from fastgrad.typing import Array, Flags, Places

if TYPE_CHECKING:
    from scipy import sparse
else:  # an extra
    sparse = LazyModule("scipy.sparse")

PROBE_SCALE = 2.0**-10
"""By how much elements are moved to see what changes, in units of ``max(abs(x[i]), 1)``."""

MAX_BLOCKS = 16
"""Blocks of x that are looked at first."""

PARTS = 4
"""Parts that a block is divided into: as many calls of f as by halves twice, and half the work."""


class UndefinedError(Exception):
    """f is not defined where x is moved to."""


def probed(f: Callable[[Any], Any], x: Array, base: Array) -> tuple[Any, Places]:
    """Return f's structure: which elements of f(x) change with which of x, and groups of columns.

    First by elements of x that are replaced by nan, which goes through nearly all that computes
    with them, as no move does for certain: products with 0 hide it. What does not pass nan on, as a
    maximum does not always, is seen where elements are moved; if any is, or f refuses nan, all is
    done by both.
    """
    probes = _Probes(f, x, base)
    try:
        structure = _divided(probes.where_poisoned, len(probes.base), x.size)
        groups = groups_of(structure)
        if not probes.contradict(structure, groups):
            return structure, groups
    except UndefinedError:
        pass
    structure = _divided(probes.anyhow, len(probes.base), x.size)
    return structure, groups_of(structure)


def scales_of(x: Array) -> Array:
    """Return the distances over which f is taken to vary: powers of two up to max(abs(x), 1)."""
    size = np.maximum(abs(x.view(np.ndarray).reshape(-1).astype(np.float64)), 1)
    return 2.0 ** np.floor(np.log2(size))


def value_at(f: Callable[[Any], Any], x: Array, point: Array) -> Array:
    """Return f where x is moved to a point, flat; x is as it was afterwards."""
    return Original(x).value_at(lambda x: as_returned(f(x)).reshape(-1), point)


class _Probes:
    """What changes where elements of x are moved, one way or the other, or replaced by nan."""

    def __init__(self, f: Callable[[Any], Any], x: Array, base: Array) -> None:
        self.f, self.original, self.base = f, Original(x), base.reshape(-1)
        self.is_nan = self.base != self.base
        self.flat = x.view(np.ndarray).reshape(-1).copy()
        random = np.random.default_rng(0)
        moves = PROBE_SCALE * scales_of(x) * random.uniform(0.5, 1, x.size)
        moves *= random.choice([-1.0, 1.0], x.size)
        self.ways = [(self.flat + s * moves).astype(x.dtype) for s in (1, -1)]
        self.nan = np.full_like(self.flat, np.nan)
        self.side = random.uniform(size=x.size) < 0.5

    def where_poisoned(self, moved: Flags) -> Flags:
        """Return which elements of f(x) change where x's are replaced by nan."""
        return self._changed(moved, self.nan)

    def anyhow(self, moved: Flags) -> Flags:
        """Return which elements of f(x) change where x's are moved either way, or nan."""
        changed = np.zeros(len(self.base), bool)
        for values in (*self.ways, self.nan):
            try:
                changed |= self._changed(moved, values)
            except UndefinedError:
                continue
        return changed

    def contradict(self, structure: Any, groups: Places) -> bool:
        """Say whether f shows an entry that a structure leaves out.

        In each group some elements are moved one way, then the others the other way. An entry that
        is left out shows unless the one of its row is moved with it, which is as likely as not: of
        several some will.
        """
        for group in range(int(groups.max(initial=-1)) + 1):
            for side, values in zip((self.side, ~self.side), self.ways, strict=True):
                moved = (groups == group) & side
                if moved.any():
                    expected = structure.astype(np.int64) @ moved.astype(np.int64) > 0
                    if (self._changed(moved, values) & ~expected).any():
                        return True
        return False

    def _changed(self, moved: Flags, values: Array) -> Flags:
        """Return which elements of f(x) change where some of x take other values."""
        point = np.where(moved, values, self.flat)
        try:
            with np.errstate(all="ignore"):
                found = self.original.value_at(lambda x: as_returned(self.f(x)).reshape(-1), point)
                return np.asarray((found != self.base) & ~(self.is_nan & (found != found)), bool)
        except Exception as error:
            raise_interrupt(error)
            raise UndefinedError from error


def _divided(changed: Callable[[Flags], Flags], m: int, n: int) -> Any:
    """Return a structure (m, n), found by blocks of x that are divided until each is one element.

    Blocks that no element of f depends on together are moved together.
    """
    size = 1
    while n > MAX_BLOCKS * size:
        size *= PARTS
    parts = -(-n // size)
    structure = sparse.csr_array(np.ones((m, min(n, 1)), bool))
    while n:
        structure = _split(structure, changed, size, parts, n)
        if size == 1:
            break
        size, parts = size // PARTS, PARTS
    return structure


def _split(structure: Any, changed: Callable[[Flags], Flags], size: int, parts: int, n: int) -> Any:
    """Return the structure of blocks of a size, by that of blocks so many times as large."""
    groups, known = groups_of(structure), structure.tocoo()
    of_entries, of_elements = groups[known.col], np.repeat(groups, size * parts)[:n]
    part = np.arange(n) // size % parts
    order = np.argsort(of_entries, kind="stable")
    ends = np.cumsum(np.bincount(of_entries, minlength=int(groups.max(initial=-1)) + 1))
    rows, columns = [], []
    for group, some in enumerate(np.split(order, ends[:-1])):
        row, block, in_group = known.row[some], known.col[some], of_elements == group
        for k in range(parts):
            hit = changed(in_group & (part == k))[row]
            rows.append(row[hit])
            columns.append(block[hit] * parts + k)
    entries = np.concatenate(rows), np.concatenate(columns)
    shape = structure.shape[0], -(-n // size)
    return sparse.csr_array((np.ones(len(entries[0]), bool), entries), shape)
