"""Second derivatives with respect to all pairs of elements of x, row by row.

Next to a corner of f's domain, where f is not defined on all sides of x, by one-sided schemes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.differences.domain import (
    derive_from_one_side,
    one_sided_schemes,
    require_a_side,
    warn_of_one_sided,
)
from fastgrad.differences.measured_steps import QUOTIENTS, measured
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import derivatives, fill, moved
from fastgrad.engines.loop import in_parts
from fastgrad.engines.selection import Evaluator
from fastgrad.lazy import LazyModule, lazy
from fastgrad.schemes import Scheme, first_of
from fastgrad.typing import Array, Flags, Places, Report, Values

if TYPE_CHECKING:
    from fastgrad import sparse
else:  # most Hessians are dense
    sparse = LazyModule("fastgrad.sparse")


@dataclass(frozen=True, eq=False)
class Part:
    """Elements of an array that are moved alike.

    Attributes
    ----------
    problem : Problem
        The array.
    outer, inner : Scheme
        What is applied to the first derivatives, and what gives these.
    second : Scheme or None
        What gives the second derivative with respect to an element; None if the others do.
    places, steps : arrays (n,)
    """

    problem: Problem
    outer: Scheme
    inner: Scheme
    second: Scheme | None
    places: Places
    steps: Array

    def without(self, places: Places) -> "Part":
        """Return the others."""
        left = ~np.isin(self.places, places)
        return replace(self, places=self.places[left], steps=self.steps[left])


Pairing = tuple[int, Part, Places, Array]
"""How far behind in x the array is whose elements are paired with one, their part, these, and their
steps."""


class HessianRows:
    """The Hessian of a function of one or several arrays, row by row."""

    def __init__(
        self,
        found: list[Problem],
        base: Array,
        first: Scheme,
        evaluator: Evaluator,
        report: Report | None,
        structure: Any,
        outside: Any,
    ) -> None:
        self.base, self.evaluator, self.report = base, evaluator, report
        self.structure, self.outside = structure, outside
        measuring = evaluator.values(in_parts(report, 1 / QUOTIENTS))
        self.problems = [
            # Nothing is subtracted in complex steps: there is no rounding to be measured.
            problem if first.is_complex else measured(problem, measuring, base, farther=False)
            for problem in found
        ]
        self.parts = [[*self._parts_of(problem, first)] for problem in self.problems]
        self.diagonals: dict[int, Array] = {}
        self.one_sided = np.zeros(0, np.intp)
        """The elements that are not moved to both sides of x, of the last array."""
        self.mended = [set[int]() for _ in found]
        self.has_sides = outside is not None and not first.is_complex
        for a, problem in enumerate(self.problems):
            if self.has_sides or (found[a].automatic and problem.scheme.is_symmetric):
                self._take_sides(a, found[a])

    def _take_sides(self, a: int, given: Problem) -> None:
        """Derive with respect to elements of an array from the side on which f is defined."""
        diagonal = self.diagonals[a] = self._diagonal(a)
        values = self.evaluator.values(None)
        sides = derive_from_one_side(
            given, diagonal, values, self.base, outside=self.outside, farther=False
        )
        self.one_sided = np.concatenate([self.one_sided[:0], *(some for _, some, _ in sides)])
        for side, places, steps in sides:
            parts = [part.without(places) for part in self.parts[a]]
            one_sided = Part(given, first_of(side), first_of(side), side, places, steps)
            self.parts[a] = [part for part in [*parts, one_sided] if len(part.places)]

    @staticmethod
    def _parts_of(problem: Problem, first: Scheme) -> Iterator[Part]:
        """Yield the elements of an array that are moved alike, with what they are derived by."""
        for scheme, places, steps in problem.partition if problem.x.size else ():
            if len(places):
                lengths = np.broadcast_to(steps, places.shape)
                if first.is_complex:
                    yield Part(problem, scheme, first, None, places, lengths)
                else:
                    outer = first_of(scheme)
                    yield Part(problem, outer, outer, scheme, places, lengths)

    def blocks(self) -> list[list[Array]]:
        """Return the derivatives with respect to each two arrays."""
        shape, sizes = self.base.shape, [problem.x.size for problem in self.problems]
        result = [[np.zeros((m, n, *shape), self.base.dtype) for n in sizes] for m in sizes]
        for a, place, b, row in self.rows():
            result[a][b][place] = row
        for a, size in enumerate(sizes):
            lower = np.tril_indices(size, -1)
            result[a][a][lower] = result[a][a].swapaxes(0, 1)[lower]
            for b in range(a):
                result[a][b] = result[b][a].swapaxes(0, 1)
        axes = *range(2, 2 + len(shape)), 0, 1
        shapes = [problem.x.shape for problem in self.problems]
        return [
            [
                block.transpose(axes).reshape(shape + m + n)
                for n, block in zip(shapes, row, strict=True)
            ]
            for m, row in zip(shapes, result, strict=True)
        ]

    def sparse(self) -> Any:
        """Return the entries of the structure."""
        upper = np.zeros(self.structure.nnz, self.base.dtype)
        starts, columns = self.structure.indptr, self.structure.indices
        for _, place, _, row in self.rows():
            entries = slice(starts[place], starts[place + 1])
            upper[entries] = row[columns[entries]].reshape(-1)
        self.warn_of_mended()
        problem = self.problems[0]
        return sparse.symmetric(upper, self.structure, problem, self.base, self.one_sided)

    def rows(self) -> Iterator[tuple[int, int, int, Array]]:
        """Iterate over (a, i, b, row): what is derived by element i of array a, and all of array b.

        Those before it in x are left 0.
        """
        for a, parts in enumerate(self.parts):
            diagonal = self._diagonal(a)
            for part in parts:
                for k, place in enumerate(part.places.tolist()):
                    rows = self._row(a, part, k)
                    if part.second is not None:
                        rows[0][place] = diagonal[place]
                    yield from ((a, place, a + b, row) for b, row in enumerate(rows))

    def _diagonal(self, a: int) -> Array:
        """Return the second derivatives with respect to single elements, if not all at once."""
        if a in self.diagonals:
            return self.diagonals[a]
        if (known := self.problems[a].quotients) is not None:
            return np.asarray(known)
        schemes = [part.second for part in self.parts[a]]
        return self._filled(a, schemes, self.evaluator.values(self.report))

    @lazy
    def _gradients(self) -> list[Array]:
        """The first derivatives at x itself, which one-sided schemes need for every row."""
        values = self.evaluator.values(None)
        inner = [[part.inner for part in parts] for parts in self.parts]
        return [self._filled(a, schemes, values) for a, schemes in enumerate(inner)]

    def _filled(self, a: int, schemes: Sequence[Scheme | None], values: Values) -> Array:
        """Return the quotients for an array, by a scheme for each of its parts that has one."""
        f, x, shape = self.problems[a].f, self.problems[a].x, self.base.shape
        result = np.zeros((x.size, *shape), self.base.dtype)
        for part, scheme in zip(self.parts[a], schemes, strict=True):
            if scheme is not None:
                fill(result, values, f, x, part.places, part.steps, scheme, shape)
        return result

    def _row(self, a: int, part: Part, k: int) -> list[Array]:
        """Return the derivatives with respect to an element, and all behind it in x."""
        place = int(part.places[k])
        wanted = [
            (b, other, other.places[chosen], other.steps[chosen])
            for b, others in enumerate(self.parts[a:])
            for other in others
            if (chosen := self._is_wanted(place, other, is_same=b == 0)).any()
        ]
        if part.outer.offsets[-1] == 0 and wanted:
            _ = self._gradients  # before x is moved
        rows = self._mixed(a, part, k, wanted)
        if self.has_sides:
            for b, other, places, lengths in wanted:
                self._mend(rows[b], a, part, k, (b, other, places, lengths))
        return rows

    def _mend(self, row: Array, a: int, part: Part, k: int, given: Pairing) -> None:
        """Replace what is not finite, as next to a corner of f's domain, by one-sided schemes."""
        b, other, places, lengths = given
        sides = [one_sided_schemes(each) for each in (part.outer, other.inner)]
        for outer, inner in product(*sides):
            missing = ~np.isfinite(row[places].astype(np.float64))
            left = missing.reshape(len(places), -1).any(axis=1)
            if not left.any():
                return
            some = places[left]
            one_sided = b, replace(other, inner=inner), some, lengths[left]
            found = self._mixed(a, replace(part, outer=outer), k, [one_sided], anew=True)[b][some]
            good = missing[left] & np.isfinite(found.astype(np.float64))
            row[some] = np.where(good, found, row[some])
            gained = some[good.reshape(len(some), -1).any(axis=1)].tolist()
            self.mended[a + b].update(gained)
            self.mended[a].update(part.places[k : k + 1].tolist() if gained else [])
        require_a_side(self.problems[a + b], row)

    def warn_of_mended(self) -> None:
        """Name the elements whose mixed derivatives alone are one-sided."""
        for problem, places in zip(self.problems, self.mended, strict=True):
            warn_of_one_sided(problem, np.array(sorted(places)))

    def _mixed(
        self, a: int, part: Part, k: int, wanted: list[Pairing], *, anew: bool = False
    ) -> list[Array]:
        """Return the derivatives with respect to an element, and others in x.

        With ``anew`` the first derivatives at x itself are computed by the schemes given.
        """
        x, scheme, shape = part.problem.x, part.outer, self.base.shape
        here, step = part.places[k : k + 1], part.steps[k : k + 1]
        place = int(here[0])
        rows = [np.zeros((each.x.size, *shape), self.base.dtype) for each in self.problems[a:]]
        targets = moved(x, here, scheme.offsets, step)[0]
        elements = x.view(np.ndarray).flat
        old = elements[place]
        # Two elements of the Hessian, which is symmetric, are found together.
        report = None if anew else in_parts(self.report, 2 / len(targets))
        values = self.evaluator.values(report)
        for offset, target, numerator in zip(
            scheme.offsets, targets, scheme.numerators, strict=True
        ):
            elements[place] = target
            for b, other, places, lengths in wanted:
                f, y = other.problem.f, other.problem.x
                slopes = (
                    derivatives(values, f, y, places, lengths, other.inner, shape)
                    if offset or anew
                    else self._gradients[a + b][places]
                )
                # Of Python's integers, which never wrap, slopes are objects.
                rows[b][places] += numerator * slopes.astype(rows[b].dtype)
        elements[place] = old
        return [row / (scheme.denominator * float(step[0])) for row in rows]

    def _is_wanted(self, place: int, other: Part, *, is_same: bool) -> Flags:
        """Say which elements of a part are paired with one, of the same array or one before."""
        if not is_same:
            return np.ones(len(other.places), bool)
        behind: Flags = other.places > place
        if other.second is None:
            behind |= other.places == place
        if self.structure is not None:
            behind &= np.isin(other.places, self.structure[[place]].indices)
        return behind
