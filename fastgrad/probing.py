"""Structures of functions that cannot be recorded: what changes where parts of x are moved."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.colouring import groups_of
from fastgrad.differences.arguments import PROBE_SCALE, as_returned
from fastgrad.differences.guard import Original
from fastgrad.differences.quotients import precision
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.lazy import LazyModule
from fastgrad.typing import Array, Flags, Places

if TYPE_CHECKING:
    from scipy import sparse
else:  # an extra
    sparse = LazyModule("scipy.sparse")

ROUNDING_EPS = 64.0
"""How many eps of a value its change may be by rounding."""

MAX_BLOCKS = 16
"""Blocks of x that are looked at first."""

PARTS = 4
"""Parts that a block is divided into: as many calls of f as by halves twice, and half the work."""

PAIR_SCALES = 2.0**-3, PROBE_SCALE
"""By how much elements are moved to see which have to do with each other, where f is defined."""


class UndefinedError(Exception):
    """f is not defined where x is moved to."""


def probed(f: Callable[[Any], Any], x: Array, base: Array, bounds: Any) -> tuple[Any, Places]:
    """Return f's structure: which elements of f(x) change with which of x, and groups of columns.

    First by elements of x that are replaced by nan, which goes through nearly all that computes
    with them: products with 0 hide moves. A maximum may swallow nan, but changes then, unless what
    it takes instead is the same; so all elements are beside x, where no two are by accident. If f
    changes on x's other side in a way that the structure does not explain, or refuses nan, all is
    done by moves as well.
    """
    probes = _Probes(f, x, base, bounds)
    try:
        here, there = probes.ways
        by_nan, by_moves = probes.changes_at(here, probes.nan, there)
        structure = _divided(by_nan, by_moves, len(probes.base), x.size)
        groups = groups_of(structure)
        if probes.are_explained_at(there, structure, groups):
            return structure, groups
    except UndefinedError:
        pass
    structure = _divided(probes.anyhow, None, len(probes.base), x.size)
    return structure, groups_of(structure)


def probed_pairs(f: Callable[[Any], Any], x: Array, base: Array, bounds: Any) -> Any:
    """Return which pairs of elements of x f has second derivatives with respect to, symmetric.

    Two blocks of x have to do with each other if how f changes with the one depends on where the
    other is: ``f(a, b) - f(a, 0) - f(0, b) + f(0, 0)`` is not 0, however far they are moved. Those
    that have are halved. What is smaller than the rounding of f is not seen: it is far below that
    of a second derivative that is computed.

    Raises
    ------
    UndefinedError
        If f is not defined around x.
    """
    for scale in PAIR_SCALES:
        try:
            pairs = np.array([*_Pairs(f, x, base, bounds, scale).found()], np.intp).reshape(-1, 2)
            break
        except UndefinedError:
            if scale == PAIR_SCALES[-1]:
                raise
    entries = np.concatenate([pairs, pairs[:, ::-1]]).T
    shape = x.size, x.size
    return sparse.csr_array((np.ones(entries.shape[1], bool), tuple(entries)), shape)


def scales_of(x: Array) -> Array:
    """Return the distances over which f is taken to vary: powers of two up to max(abs(x), 1)."""
    size = np.maximum(abs(x.view(np.ndarray).reshape(-1).astype(np.float64)), 1)
    return 2.0 ** np.floor(np.log2(size))


def value_at(f: Callable[[Any], Any], x: Array, point: Array) -> Array:
    """Return f where x is moved to a point, flat; x is as it was afterwards."""
    return Original(x).value_at(lambda x: as_returned(f(x)).reshape(-1), point)


class _Probes:
    """What changes where elements of x are moved, one way or the other, or replaced by nan."""

    def __init__(self, f: Callable[[Any], Any], x: Array, base: Array, bounds: Any) -> None:
        self.f, self.original, self.base = f, Original(x), base.reshape(-1)
        self.flat = x.view(np.ndarray).reshape(-1).copy()
        self.random = np.random.default_rng(0)
        moves = PROBE_SCALE * scales_of(x) * self.random.uniform(0.5, 1, x.size)
        moves *= self.random.choice([-1.0, 1.0], x.size)
        self.ways = [(self.flat + s * moves).astype(x.dtype) for s in (1, -1)]
        if bounds is not None:
            self.ways = [np.clip(way, *bounds) for way in self.ways]
        self.nan = np.full_like(self.flat, np.nan)

    def changes_at(self, point: Array, *ends: Array) -> list[Callable[[Flags], Flags]]:
        """Return what says which elements of f change where some at a point are at each end."""
        here = self._defined_at(point)
        return [partial(self._changed, here, point, end) for end in ends]

    def _changed(self, here: Array, point: Array, end: Array, moved: Flags) -> Flags:
        return _differ(self._value_at(np.where(moved, end, point)), here)

    def anyhow(self, moved: Flags) -> Flags:
        """Return which elements of f(x) change where x's are moved either way, or nan."""
        changed = np.zeros(len(self.base), bool)
        for values in (*self.ways, self.nan):
            try:
                changed |= _differ(self._value_at(np.where(moved, values, self.flat)), self.base)
            except UndefinedError:
                continue
        return changed

    def are_explained_at(self, point: Array, structure: Any, groups: Places) -> bool:
        """Say whether f changes as a structure says, where elements at a point move towards x.

        By groups, from which all derivatives would follow that the structure has, and all together,
        by other parts.
        """
        eps = precision(self.flat, self.base)
        here, way = self._defined_at(point), self.flat - point
        part = min(eps**0.5 / PROBE_SCALE, 1)
        ends = [
            (point + part * self.random.uniform(0.5, 1, len(way)) * way).astype(point.dtype)
            for _ in range(2)
        ]
        first, second = ((end - point).astype(np.float64) for end in ends)
        entries = structure.tocoo()
        changes = np.zeros(structure.nnz)
        with np.errstate(all="ignore"):
            for group, some in enumerate(_sorted_by(groups[entries.col], groups)):
                found = self._value_at(np.where(groups == group, ends[0], point))
                differ, row = _differ(found, here), entries.row[some]
                changes[some] = (found - here)[row]
                differ[row] = False
                if differ.any():
                    return False
            parts = changes * np.where(first == 0, 0, second / first)[entries.col]
            known, size = (
                np.bincount(entries.row, each, len(here)) for each in (parts, abs(parts))
            )
            apart = abs(self._value_at(ends[1]) - here - known)
            return not (apart > eps**0.25 * size + ROUNDING_EPS * eps * abs(here)).any()

    def _value_at(self, point: Array) -> Array:
        """Return f at a point, flat."""
        try:
            with np.errstate(all="ignore"):
                found = self.original.value_at(lambda x: as_returned(self.f(x)).reshape(-1), point)
            found.astype(np.float64)  # must be numbers
        except Exception as error:
            raise_interrupt(error)
            raise UndefinedError from error
        if found.shape != self.base.shape:
            raise UndefinedError
        return found

    def _defined_at(self, point: Array) -> Array:
        """Return f at a point, where it is to be finite if it is at x."""
        found = self._value_at(point)
        if (np.isfinite(self.base.astype(float)) & ~np.isfinite(found.astype(float))).any():
            raise UndefinedError
        return found


def _differ(values: Array, others: Array) -> Flags:
    """Return which of f's values differ; a nan is a nan."""
    return np.asarray((values != others) & ~((values != values) & (others != others)), bool)


def _divided(
    changed: Callable[[Flags], Flags], otherwise: Callable[[Flags], Flags] | None, m: int, n: int
) -> Any:
    """Return a structure (m, n), found by blocks of x that are divided until each is one element.

    Blocks that no element of f depends on together are moved together. If all elements of f change
    with all blocks, others may be ``otherwise``: nan times the zeros of a matrix is nan.
    """
    size = 1
    while n > MAX_BLOCKS * size:
        size *= PARTS
    parts = -(-n // size)
    structure = sparse.csr_array(np.ones((m, min(n, 1)), bool))
    while n:
        whole, structure = structure, _split(structure, changed, size, parts, n)
        if size == 1:
            break
        if otherwise is not None and structure.nnz == structure.shape[0] * structure.shape[1]:
            found = _split(whole, otherwise, size, parts, n)
            if found.nnz < structure.nnz:
                structure, changed = found, otherwise
        otherwise = None
        size, parts = size // PARTS, PARTS
    return structure


def _split(structure: Any, changed: Callable[[Flags], Flags], size: int, parts: int, n: int) -> Any:
    """Return the structure of blocks of a size, by that of blocks so many times as large."""
    groups, known = groups_of(structure), structure.tocoo()
    of_elements = np.repeat(groups, size * parts)[:n]
    part = np.arange(n) // size % parts
    rows, columns = [], []
    for group, some in enumerate(_sorted_by(groups[known.col], groups)):
        row, block, in_group = known.row[some], known.col[some], of_elements == group
        for k in range(parts):
            hit = changed(in_group & (part == k))[row]
            rows.append(row[hit])
            columns.append(block[hit] * parts + k)
    entries = np.concatenate(rows), np.concatenate(columns)
    shape = structure.shape[0], -(-n // size)
    return sparse.csr_array((np.ones(len(entries[0]), bool), entries), shape)


def _sorted_by(of_entries: Places, groups: Places) -> list[Places]:
    """Return for each group the numbers of its entries."""
    sizes = np.bincount(of_entries, minlength=int(groups.max(initial=-1)) + 1)
    return np.split(np.argsort(of_entries, kind="stable"), np.cumsum(sizes)[:-1])


# Pairs of elements --------------------------------------------------------------------------------


class _Pairs:
    """A function that returns a number, where some elements of x are moved.

    From beside x to its other side, not as far: products with 0, and odd functions, hide nothing.
    """

    def __init__(
        self, f: Callable[[Any], Any], x: Array, base: Array, bounds: Any, scale: float
    ) -> None:
        self.f, self.original, random = f, Original(x), np.random.default_rng(0)
        flat, signs = x.view(np.ndarray).reshape(-1), random.choice([-1.0, 1.0], x.size)
        moves = scale / 2 * scales_of(x) * signs * random.uniform(0.5, 1, (2, x.size))
        ends = [(flat - moves[0]).astype(x.dtype), (flat + moves[1]).astype(x.dtype)]
        self.start, self.end = ends if bounds is None else [np.clip(end, *bounds) for end in ends]
        self.slack = ROUNDING_EPS * precision(x, base)
        self.here = self._value_at()

    def found(self) -> Iterator[tuple[int, int]]:
        """Yield pairs (i, j), i at most j, that have to do with each other."""
        n = len(self.start)
        size = 1 << max(n - 1, 0).bit_length()
        pairs = [(0, 0)] if n else []  # of blocks
        while size > 1:
            size //= 2
            blocks = [slice(k, k + size) for k in range(0, n, size)]
            alone = [self._value_at(block) for block in blocks]
            halves = [
                (i, j)
                for a, b in pairs
                for i in (2 * a, 2 * a + 1)
                for j in (2 * b, 2 * b + 1)
                if i <= j < len(blocks)
            ]
            pairs = [
                (i, j)
                for i, j in halves
                if i == j or self._differ(self._value_at(blocks[i], blocks[j]), alone[i], alone[j])
            ]
        for i, j in pairs:
            if i != j or self._is_curved(i):
                yield i, j

    def _is_curved(self, i: int) -> bool:
        """Say whether f is no straight line along an element."""
        part, end = 0.375, self._value_at(slice(i, i + 1))
        between = self._value_at(slice(i, i + 1), part=part)
        size = max(map(abs, (end, between, self.here)))
        return abs((between - self.here) - part * (end - self.here)) > self.slack * size

    def _differ(self, both: float, one: float, other: float) -> bool:
        """Say whether a change is not the sum of two."""
        size = max(map(abs, (both, one, other, self.here)))
        return abs((both - one) - (other - self.here)) > self.slack * size

    def _value_at(self, *blocks: slice, part: float = 1.0) -> float:
        """Return f where blocks of x are moved, or by a part of that."""
        point = self.start.copy()
        for block in blocks:
            moves = part * (self.end[block] - self.start[block])
            point[block] = self.end[block] if part == 1 else self.start[block] + moves
        try:
            with np.errstate(all="ignore"):
                found = self.original.value_at(lambda x: as_returned(self.f(x)), point)
                value = float(found.reshape(()))
        except Exception as error:
            raise_interrupt(error)
            raise UndefinedError from error
        if not np.isfinite(value):
            raise UndefinedError
        return value
