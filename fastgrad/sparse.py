"""Sparse Jacobians and Hessians: columns without a common row are moved together.

In a row of the Jacobian whose columns belong to different groups, ``f(x + h (e_j + e_k + ...))[i]``
changes as if the one column that row i has in the group were moved alone. So as few groups as can
be found take the place of x's elements.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.colouring import as_structure, groups_of, require_scipy
from fastgrad.differences.arguments import (
    PROBE_SCALE,
    Call,
    as_array,
    element_at,
    is_structure,
    users_array,
    warn_of_nonfinite,
)
from fastgrad.differences.conversions import takes_conversions
from fastgrad.differences.domain import Elements, WhereDefined, by_halves
from fastgrad.differences.guard import guarded
from fastgrad.differences.problem import Problem, prepare, problems
from fastgrad.differences.quotients import precision
from fastgrad.directional import Line
from fastgrad.lazy import LazyModule
from fastgrad.probing import (
    ROUNDING_EPS,
    UndefinedError,
    probed,
    probed_pairs,
    scales_of,
    value_at,
)
from fastgrad.typing import Array, Flags, Places, SparseArray

if TYPE_CHECKING:
    from scipy import sparse

    from fastgrad.tracing import recorder
    from fastgrad.tracing import sparsity as recordings
else:  # an extra, and many files
    recorder = LazyModule("fastgrad.tracing.recorder")
    recordings = LazyModule("fastgrad.tracing.sparsity")
    sparse = LazyModule("scipy.sparse")

CHECK_TOLERANCE = 1e-6
"""The part of a row's change above which it is looked into, if the Jacobian does not explain it."""

CURVATURE_TOLERANCE = 1e-5
"""The same of second derivatives, all together."""

ROOM_EXPONENTS = 4.0
"""Powers of two by which the room of a group's elements before their bounds differs at most."""

MAX_SUSPECTS = 4
"""Rows that are looked into, each by some calls of f."""


def _is_detected(sparsity: Any) -> bool:
    """Say whether sparsity is "detect"; refuse other words."""
    if isinstance(sparsity, str) and sparsity != "detect":
        raise ValueError(f"sparsity is {sparsity!r}; pass 'detect', or an array of 0 and 1")
    return isinstance(sparsity, str)


def structure_and_groups(
    sparsity: Any, f: Callable[[Any], Any], x: Array, base: Array, bounds: Any
) -> tuple[Any, Places]:
    """Return what is given, or detected, as `ColumnGroups` takes it."""
    if _is_detected(sparsity):
        return _detected(f, x, base, bounds)
    if isinstance(sparsity, tuple) and len(sparsity) != 2:
        raise ValueError(
            f"sparsity is a tuple of {len(sparsity)}, but a tuple is a pair of an array and the "
            "numbers of columns' groups; pass what detect_sparsity returns, or an array"
        )
    structure, groups = sparsity if isinstance(sparsity, tuple) else (sparsity, None)
    structure = as_structure(structure)
    shape = base.size, x.size
    if structure.shape != shape:
        raise ValueError(
            f"sparsity has shape {structure.shape}, but f(x) has {shape[0]} elements and x has "
            f"{shape[1]}; pass an array of shape {shape}"
        )
    if groups is None:
        return structure, groups_of(structure)
    groups = as_array("groups", groups, "pass what group_columns returns")
    if groups.shape != shape[1:] or groups.dtype.kind not in "iu" or groups.min(initial=0) < 0:
        raise ValueError(
            f"groups have shape {groups.shape} and dtype {groups.dtype}, but they are the numbers "
            "of columns' groups; pass what group_columns returns"
        )
    arrays = structure.data, groups[structure.indices], structure.indptr
    taken = sparse.csr_array(arrays, shape=(shape[0], int(groups.max(initial=0)) + 1))
    if not taken.has_canonical_format:
        taken.sum_duplicates()
    if taken.nnz < structure.nnz:
        raise ValueError(
            "groups put two columns together that have a row in common, so that they cannot be "
            "told apart; pass what group_columns returns"
        )
    return structure, groups


class ColumnGroups(Line, Elements):
    """f where all elements of a group are moved together, for the engine that moves t.

    ``groups(t)`` is ``f(x + d * (t - origin)[groups])``: the derivative with respect to ``t[g]``
    holds, in each row, the one that x's element in group g and that row has, times its ``d``.

    Parameters
    ----------
    problem : Problem
        Of x as a whole, with its steps and bounds.
    sparsity : array, pair or "detect"
        As `fastgrad.jacobian` takes it.
    base : array
        f(x).
    stacked : bool
        Whether f takes a stack of points.

    Attributes
    ----------
    problem : Problem
        Of t.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        args: tuple[Any, ...],
        problem: Problem,
        sparsity: Any,
        base: Array,
        *,
        stacked: bool,
    ) -> None:
        x, scheme = problem.x, problem.scheme
        # What f raises concerns the elements that are outside, not their whole group.
        self._kinds = f.kinds if isinstance(f, WhereDefined) else ()
        f = f.f if isinstance(f, WhereDefined) else f
        plain = Call(f, args, None, x)
        self._single, self._base = partial(_of_single, plain) if stacked else plain, base
        self.is_detected = _is_detected(sparsity)
        self.structure, self.groups = structure_and_groups(
            sparsity, self._single, x, base, problem.bounds
        )
        is_measured = problem.automatic and not scheme.is_complex
        self._were_outside = np.zeros(x.size, bool)
        self.scales = scales_of(x)
        directions = self.scales if is_measured else np.broadcast_to(problem.steps, x.size)
        if problem.bounds is not None:
            directions = directions * self._heed(x, *problem.bounds)
        self.number = int(self.groups.max(initial=-1)) + 1
        # For automatic steps t is 1 at x: then it has the scale and the rounding of x.
        origin = 1.0 if is_measured else 0.0
        Elements.__init__(self, problem)
        Line.__init__(self, f, x, args, [problem], [directions.reshape(x.shape)], origin)
        # Elements that move, by their groups: those of group g from starts[g] to starts[g + 1].
        movable = np.flatnonzero(directions)
        self._order = movable[np.argsort(self.groups[movable], kind="stable")]
        sizes = np.bincount(self.groups[movable], minlength=self.number)
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self._sorted = [each.reshape(-1)[self._order] for each in (x.view(np.ndarray), directions)]
        position = np.full(self.number, origin)
        h = "auto" if problem.automatic else 1.0
        [of_groups] = problems(self, position, h, scheme=scheme, bounds=self._limits())
        whole = (position, x)
        self.problem = of_groups.replaced(
            f=Call(self.at_first, (), whole, position), name="the group of columns "
        )

    def _heed(self, x: Array, lower: Array, upper: Array) -> Array:
        """Return 1 for each element, -1 if it has more room below, 0 if none; divide groups by it.

        For a group is moved as far as the one of its elements can that has the least room.
        """
        flat = x.view(np.ndarray).reshape(-1)
        below, above = flat - lower, upper - flat
        room = np.minimum(np.maximum(below, above), self.scales)
        is_free = room > 0
        exponents = np.zeros(len(room), np.int64)
        exponents[is_free] = -np.log2(room[is_free] / self.scales[is_free]) // ROOM_EXPONENTS
        pairs = np.stack([self.groups, exponents])
        self.groups = np.unique(pairs, axis=1, return_inverse=True)[1].reshape(-1)
        return np.asarray(np.where(above < below, -1.0, 1.0) * is_free)

    def _limits(self) -> tuple[Array, Array] | None:
        """Return between which t all elements of a group keep inside their bounds."""
        [bounds], [original], [direction] = self.bounds, self.originals, self.directions
        if bounds is None:
            return None
        lowest, highest = np.full(self.number, -np.inf), np.full(self.number, np.inf)
        moves = direction.reshape(-1) != 0
        way = direction.reshape(-1)[moves]
        ends = [(limit - original.reshape(-1))[moves] / way for limit in bounds]
        np.maximum.at(lowest, self.groups[moves], np.minimum(*ends))
        np.minimum.at(highest, self.groups[moves], np.maximum(*ends))
        return lowest + self.origin, highest + self.origin

    def is_stack(self, s: Array) -> bool:
        """Say whether s is many places."""
        return s.ndim > 1

    def distances(self, s: Array) -> Any:
        """Return what each element's direction is multiplied by."""
        distances = (s - self.origin)[..., self.groups]
        return distances.reshape(s.shape[:-1] + self.arrays[0].shape)

    def __call__(self, s: Array) -> Any:
        """Return f at a place, or many; nan in rows of elements that are outside there."""
        try:
            return self._where_groups_are(s)
        except self._kinds:
            if s.dtype.kind == "c":
                raise
            points = self._stack(self.distances(np.atleast_2d(s)))
            rows = [self._where_defined(point.reshape(-1))[0] for point in points]
            return np.reshape(rows, s.shape[:-1] + self._base.shape)

    def _where_groups_are(self, s: Array) -> Any:
        """Return f where groups are moved; x stays there."""
        if self.is_stack(s) or s.dtype.kind == "c":
            return Line.__call__(self, s)
        # As `displace` does, of the elements of few groups: one of them is moved at a time.
        [x], [original] = self.arrays, self.originals
        point = original.reshape(-1).copy()
        for group in np.flatnonzero(s != self.origin):
            some = slice(self._starts[group], self._starts[group + 1])
            old, direction = (each[some] for each in self._sorted)
            moved = (old + (s[group] - self.origin) * direction).astype(point.dtype, copy=False)
            point[self._order[some]] = self._inside(moved, self._order[some])
        plain = x.view(np.ndarray)
        plain[...] = point.reshape(plain.shape)  # f may have changed the shape
        return self.f(self.x, *self.args)

    def _where_defined(self, point: Array) -> tuple[Array, Flags]:
        """Return f at a point, flat, nan in rows of elements that are outside; and which are."""
        [x], [original] = self.arrays, self.originals
        numbers = np.result_type(self._base, np.float64)
        if not self._were_outside.any():
            with suppress(*self._kinds):
                x.view(np.ndarray)[...] = original  # groups have been moved
                found = value_at(self._single, x, point)
                return found.astype(numbers, copy=False), np.zeros(x.size, bool)
        is_outside = point != original.reshape(-1)
        own = self._rows_of(np.flatnonzero(is_outside))
        result = self._base.reshape(-1).astype(numbers)
        result[own] = np.nan
        others = np.setdiff1d(np.arange(len(result)), own)
        for places, found in self._values_at(point):
            rows = self._rows_of(places)
            result[others], result[rows] = found[others], found[rows]
            is_outside[places] = False
        self._were_outside |= is_outside
        return result, is_outside

    def _values_at(self, point: Array) -> Iterator[tuple[Places, Array]]:
        """Yield elements that can be moved to a point together, and f, flat, where they are."""
        [x], [original] = self.arrays, self.originals
        flat = original.reshape(-1)

        def value(places: Places) -> Array:
            there = flat.copy()
            there[places] = point[places]
            x.view(np.ndarray)[...] = original  # groups have been moved
            return value_at(self._single, x, there)

        is_moved = point != flat
        sets = [np.flatnonzero(is_moved)]
        if self._were_outside.any():  # it is known what may be
            apart = is_moved & self._were_outside
            sets = [np.flatnonzero(each) for each in (is_moved & ~apart, apart)]
        return by_halves(value, [each for each in sets if len(each)], self._kinds)

    def _rows_of(self, places: Places) -> Places:
        """Return the rows that have an entry in some columns."""
        return np.flatnonzero(self.structure[:, places].sum(axis=1))

    def expanded(self, columns: Array, base: Array) -> Any:
        """Return the sparse Jacobian, checked, by the derivatives with respect to groups."""
        columns = columns.reshape(base.size, self.number)
        rows = np.repeat(np.arange(self.structure.shape[0]), np.diff(self.structure.indptr))
        places = self.structure.indices
        [direction] = self.directions
        steps = direction.reshape(-1)[places].astype(columns.dtype)
        of_groups = self.groups[places]
        changes = columns[rows, of_groups]
        with np.errstate(all="ignore"):
            entries = np.where(steps == 0, 0, changes / steps)
        arrays = entries, places.copy(), self.structure.indptr.copy()
        jacobian = sparse.csr_array(arrays, shape=self.structure.shape)
        columns[rows, of_groups] = 0  # what is left has no entry
        stray = np.zeros(len(columns))
        if columns.any():
            stray = abs(columns).max(axis=1)
            sizes = stray.copy()
            np.maximum.at(sizes, rows, abs(changes))
            stray /= np.where(sizes > 0, sizes, 1)
        self._require_complete(jacobian, base, stray)
        shapes = base.shape, self.arrays[0].shape
        _warn_of_nonfinite(jacobian, "the derivative of {} by {}", "f(x)", shapes)
        return jacobian

    def _require_complete(self, jacobian: Any, base: Array, stray: Array) -> None:
        """Refuse a structure that leaves entries out, as f shows where all elements are moved.

        By one more call of f: if that contradicts a row, or ``stray`` says that it changed with
        groups without an entry in it, its elements outside of the structure are moved alone.
        """
        [original], [direction] = self.originals, self.directions
        flat, base = original.reshape(-1), base.reshape(-1)
        eps = precision(flat, base)
        parts = np.random.default_rng(0).uniform(0.5, 1, flat.size) * np.sign(direction).reshape(-1)
        inward = np.ones(flat.size)
        point = self._inside((flat + eps**0.5 * self.scales * parts).astype(flat.dtype))
        with np.errstate(all="ignore"):
            found, is_outside = self._where_defined(point)
            missing = np.isnan(found) & ~np.isnan(base)
            if missing.any():
                is_outside |= np.asarray(self.structure[missing].sum(axis=0)).reshape(-1) > 0
            if is_outside.any():
                inward[is_outside] = -1.0
                steps = eps**0.5 * self.scales * parts * inward
                point = self._inside((flat + steps).astype(flat.dtype))
                self._were_outside[:] = False  # all at once, if that can be
                found, _ = self._where_defined(point)
            change, moves = found - base, point.astype(base.dtype) - flat
            known = abs(jacobian) @ abs(moves)
            rounding = ROUNDING_EPS * eps * abs(base)
            apart = abs(change - jacobian @ moves) - CHECK_TOLERANCE * known - rounding
            # In units of the row, so that those of large numbers come before no others.
            expected = known + rounding
            unexplained = np.fmax(apart / np.where(expected > 0, expected, 1), stray)
        suspects = np.flatnonzero(unexplained > 0)
        for i in suspects[np.argsort(-unexplained[suspects])][:MAX_SUSPECTS]:
            self._require_complete_row(int(i), base, eps, inward)

    def _require_complete_row(self, i: int, base: Array, eps: float, inward: Array) -> None:
        """Refuse a structure if element i of f(x) changes with elements outside of it."""
        [x], [original], [direction] = self.arrays, self.originals, self.directions
        flat, ways = original.reshape(-1), np.sign(direction).reshape(-1) * inward
        slack = ROUNDING_EPS * eps * abs(base[i])
        outside = np.setdiff1d(np.flatnonzero(ways), self.structure[[i]].indices)

        def changes(places: Places) -> bool:
            point = flat.copy()
            point[places] += (PROBE_SCALE * self.scales * ways)[places]
            found = self._values_at(self._inside(point))
            return any(abs(each[i] - base[i]) > slack for _, each in found)

        again = value_at(self._single, x, flat)[i]
        if not abs(again - base[i]) > slack and changes(outside):
            place = element_at("x", _one_of(outside, changes), original.shape)
            if self.is_detected:
                raise ValueError(
                    f"sparsity is 'detect', but that element {i} of f(x) changes with {place} has "
                    "not been seen where parts of x are nan, or moved; pass an array of 0 and 1"
                )
            raise ValueError(
                f"sparsity says that element {i} of f(x) does not depend on {place}, but it "
                "changes with that; mark the entry, or pass sparsity='detect'"
            )

    def _inside(self, point: Array, places: Any = ...) -> Array:
        """Return a point as it is, or the one within the bounds that is next to it."""
        [bounds] = self.bounds
        if bounds is None:
            return point
        return np.asarray(np.clip(point, *(limit[places] for limit in bounds)))

    def with_any(self, flags: Flags) -> Places:
        """Return the elements of x of which some derivatives are flagged, (groups, f's size)."""
        if not flags.any():
            return np.empty(0, np.intp)
        rows, columns = self.structure.nonzero()
        return np.unique(columns[flags[self.groups[columns], rows]])

    def with_all(self, flags: Flags) -> Places:
        """Return those of which all are."""
        rows, columns = self.structure.nonzero()
        flagged = flags[self.groups[columns], rows]
        return np.setdiff1d(columns[flagged], columns[~flagged])


def _of_single(f: Callable[[Any], Any], x: Any) -> Any:
    """Return what an f that takes a stack of points returns for x alone, without that axis."""
    return f(x[np.newaxis].copy())[0]


def _one_of(places: Places, shows: Callable[[Places], bool]) -> int:
    """Return a place that shows by itself what all show together, found by halving."""
    while len(places) > 1:
        half = places[: len(places) // 2]
        places = half if shows(half) else places[len(half) :]
    return int(places[0])


def require_one_array(x: Any) -> None:
    """Refuse a structure, whose Jacobian is no single matrix, and all without SciPy."""
    require_scipy()
    if is_structure(x):
        raise TypeError(
            f"x is a {type(x).__name__}, but a sparse Jacobian is that with respect to one array; "
            "put the arrays into one"
        )


# Detection ----------------------------------------------------------------------------------------


@takes_conversions
def detect_sparsity(
    f: Callable[..., Any], x: Array, *, args: tuple[Any, ...] = ()
) -> tuple[SparseArray, Places]:
    """Return which entries of f's Jacobian may be different from 0, and groups of its columns.

    As `jacobian` takes them, ``jacobian(f, x, sparsity=detect_sparsity(f, x))``, at this x and at
    others. Where f is made of NumPy operations, they are recorded: what an element is computed from
    does not depend on x then. Otherwise parts of x are moved, and replaced by nan, until it is
    known what each element of f(x) depends on at this x.

    Parameters
    ----------
    f : callable
        ``f(x, *args)`` -> array.
    x : array of float64, float32 or longdouble; or a tensor or list, as for `jacobian`
        Bit-identical afterwards.
    args : tuple
        Further arguments of f.

    Returns
    -------
    scipy.sparse.csr_array of bool, (f(x).size, x.size)
    array (x.size,) of int
        The number of each column's group, as `group_columns` returns it.

    Raises
    ------
    TypeError, ValueError
        As from `jacobian`.
    ModuleNotFoundError
        If SciPy is not installed.

    Examples
    --------
    >>> structure, groups = detect_sparsity(lambda x: x[1:] - x[:-1] ** 2, np.ones(4))
    >>> structure.toarray().astype(int)
    array([[1, 1, 0, 0],
           [0, 1, 1, 0],
           [0, 0, 1, 1]])
    >>> groups
    array([1, 0, 1, 0])
    """
    x = users_array(x)
    require_one_array(x)
    with guarded(f, x, args):
        found, base = prepare(
            f, x, PROBE_SCALE, args=args, scheme="central", relative=True, bounds=None
        )
        return _detected(found[0].f, x, base, None)


def _detected(f: Callable[[Any], Any], x: Array, base: Array, bounds: Any) -> tuple[Any, Places]:
    """Return f's structure and groups of its columns."""
    try:
        structure = recordings.recorded_sparsity(f, x, PROBE_SCALE)
    except recorder.NotTraceable:
        return probed(f, x, base, bounds)
    return structure, groups_of(structure)


# Hessians -----------------------------------------------------------------------------------------


def hessian_structure(sparsity: Any, problem: Problem, base: Array) -> Any:
    """Return which second derivatives are computed: those given or detected, of one triangle."""
    n = problem.x.size
    if base.size != 1:
        raise ValueError(
            f"f returned an array of shape {base.shape}, but a sparse Hessian is that of a "
            "function which returns a single number; leave out sparsity"
        )
    is_detected = _is_detected(sparsity)
    structure = _detected_pairs(problem, base) if is_detected else as_structure(sparsity)
    if structure.shape != (n, n):
        raise ValueError(
            f"sparsity has shape {structure.shape}, but x has {n} elements; pass an array of shape "
            f"{(n, n)}"
        )
    return sparse.csr_array(sparse.triu(structure + structure.T, format="csr"))


def _detected_pairs(problem: Problem, base: Array) -> Any:
    """Return with respect to which pairs of elements f has second derivatives."""
    f, x = problem.f, problem.x
    try:
        return recordings.recorded_hessian_sparsity(f, x, PROBE_SCALE)
    except recorder.NotTraceable as error:
        try:
            return probed_pairs(f, x, base, problem.bounds)
        except UndefinedError as undefined:
            raise ValueError(
                f"sparsity is 'detect', but f cannot be recorded: {error}; and where elements of x "
                f"are moved it is not defined, so that it cannot be seen by calls either; pass an "
                "array of 0 and 1"
            ) from undefined


def symmetric(entries: Array, structure: Any, problem: Problem, base: Array, still: Places) -> Any:
    """Return a sparse Hessian by the entries of its upper triangle, compared with f.

    Along all elements but those that stay still.
    """
    upper = structure.tocoo()
    rows, columns, beside = upper.row, upper.col, upper.row != upper.col
    numbers = np.concatenate([entries, entries[beside]])
    places = np.concatenate([[rows, columns], [columns[beside], rows[beside]]], axis=1)
    whole = sparse.csr_array((numbers, tuple(places)), structure.shape)
    whole.sort_indices()
    _require_curvature(whole, problem, base, still)
    _warn_of_nonfinite(whole, "the second derivative by {} and {}", "x", [problem.x.shape] * 2)
    return whole


def _warn_of_nonfinite(
    matrix: Any, what: str, rows: str, shapes: Sequence[tuple[int, ...]]
) -> None:
    """Warn of entries that are nan or infinite; rows are of f(x) or x, and columns of x."""

    def index_of(k: int) -> Iterator[Any]:
        row = np.searchsorted(matrix.indptr, k, side="right") - 1
        for place, shape in zip((row, matrix.indices[k]), shapes, strict=True):
            yield from np.unravel_index(place, shape)

    names = [(name, len(shape)) for name, shape in zip((rows, "x"), shapes, strict=True)]
    warn_of_nonfinite(matrix.data, what, *names, index_of=index_of)


def _require_curvature(hessian: Any, problem: Problem, base: Array, still: Places) -> None:
    """Refuse a structure that leaves pairs of elements out, as f shows where they are moved.

    By two more calls of f along all of x. If these contradict the Hessian, each element is moved
    alone and with all that it is not paired with: how f changes by the ones must not depend on the
    other, however large the moves are.
    """
    flat, scales = problem.x.view(np.ndarray).reshape(-1).copy(), scales_of(problem.x)
    eps, here = precision(problem.x, base), float(base.reshape(()))
    random = np.random.default_rng(0)
    if problem.bounds is not None:
        lower, upper = problem.bounds
        scales = np.minimum(scales, np.minimum(flat - lower, upper - flat) / PROBE_SCALE)
    v = scales * random.uniform(0.5, 1, len(flat)) * random.choice([-1.0, 1.0], len(flat))
    v[still] = 0

    def value(s: float, places: Places) -> float:
        """Return f where the elements at some places are moved by s v."""
        point = flat.copy()
        point[places] += s * v[places]
        return float(value_at(problem.f, problem.x, point)[0])

    def are_coupled(one: Places, others: Places) -> bool:
        """Say whether how f changes by some elements depends on others."""
        together = np.concatenate([one, others])
        both, first, second = values = [value(PROBE_SCALE, k) for k in (together, one, others)]
        slack = ROUNDING_EPS * eps * max(map(abs, [*values, here]))
        return abs((both - first) - (second - here)) > slack

    def is_curved(one: Places) -> bool:
        """Say whether f has a second derivative along an element, which a kink has not."""
        bends = []
        for scale in (PROBE_SCALE, PROBE_SCALE / 2):
            ends = value(scale, one), value(-scale, one)
            bends.append(abs(ends[0] - 2 * here + ends[1]))
        slack = ROUNDING_EPS * eps * max(map(abs, [*ends, here]))
        return 3 * bends[1] + slack < bends[0] < 5 * bends[1] + slack

    with np.errstate(all="ignore"):
        everywhere, s = np.arange(len(flat)), eps**0.25
        above, below = value(s, everywhere), value(-s, everywhere)
        slack = CURVATURE_TOLERANCE * float(abs(v) @ (abs(hessian) @ abs(v)))
        slack += ROUNDING_EPS * eps * max(abs(above), abs(below), abs(here)) / s**2
        if not abs((above - 2 * here + below) / s**2 - float(v @ (hessian @ v))) > slack:
            return
        diagonal = hessian.diagonal()
        for i in np.flatnonzero(v):
            one = everywhere[i : i + 1]
            if not diagonal[i] and is_curved(one):
                name = element_at("x", i, problem.x.shape)
                raise ValueError(
                    f"sparsity says that f has no second derivative with respect to {name} alone, "
                    "but it is curved along that; mark the entry, or pass sparsity='detect'"
                )
            others = np.setdiff1d(np.flatnonzero(v), [i, *hessian[[i]].indices])
            if not len(others) or not are_coupled(one, others):
                continue
            other = _one_of(others, partial(are_coupled, one))
            names = [element_at("x", place, problem.x.shape) for place in (i, other)]
            raise ValueError(
                f"sparsity says that f has no second derivative with respect to {names[0]} and "
                f"{names[1]}, but how f changes with the one depends on the other; mark the entry, "
                "or pass sparsity='detect'"
            )
