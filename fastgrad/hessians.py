"""Hessians, symmetric arrays x.shape + x.shape, and their products with vectors."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Any, Generic, Unpack, overload

import numpy as np

from fastgrad.differences.analytic import require_analytic
from fastgrad.differences.arguments import (
    PROBE_SCALE,
    like,
    users_array,
    warn_of_nonfinite,
    with_keywords,
)
from fastgrad.differences.conversions import takes_conversions
from fastgrad.differences.domain import (
    WhereDefined,
    derive_from_one_side,
    one_sided_schemes,
    require_a_side,
    warn_of_one_sided,
)
from fastgrad.differences.guard import guarded
from fastgrad.differences.measured_steps import QUOTIENTS, measured
from fastgrad.differences.problem import Problem, prepare, problems, value_at
from fastgrad.differences.quotients import derivatives, fill, memory_order, moved
from fastgrad.directional import (
    along,
    as_directions,
    coarsest,
    displace,
    one_by_one,
    restorer,
)
from fastgrad.engines.loop import in_parts
from fastgrad.engines.selection import Evaluator, MatrixOptions, ProductOptions, choose_evaluator
from fastgrad.gradient import DerivativeFunction
from fastgrad.lazy import LazyModule, lazy
from fastgrad.schemes import Scheme, as_scheme, central, first_of, second_of
from fastgrad.typing import (
    Array,
    ArrayLike,
    EngineName,
    Flags,
    Function,
    Key,
    Map,
    Matrix,
    Nested,
    Number,
    NumberList,
    Places,
    Progress,
    Report,
    SchemeName,
    SparseArray,
    Structure,
    Values,
)

if TYPE_CHECKING:
    from fastgrad import sparse
else:  # most Hessians are dense
    sparse = LazyModule("fastgrad.sparse")


@overload
def hessian(
    f: Function, x: ArrayLike, h: Any = ..., *, sparsity: None = ..., **_: Unpack[MatrixOptions]
) -> Array: ...


@overload
def hessian(
    f: Function, x: ArrayLike, h: Any = ..., *, sparsity: Any, **_: Unpack[MatrixOptions]
) -> SparseArray: ...


@overload
def hessian(f: Function, x: float, h: Any = ..., **_: Unpack[MatrixOptions]) -> Array | Number: ...


@overload
def hessian(
    f: Function, x: dict[Key, Array], h: Any = ..., **_: Unpack[MatrixOptions]
) -> dict[Key, dict[Key, Array]]: ...


@overload
def hessian(
    f: Function, x: list[Array], h: Any = ..., **_: Unpack[MatrixOptions]
) -> list[list[Array]]: ...


@overload
def hessian(
    f: Function, x: tuple[Array, ...], h: Any = ..., **_: Unpack[MatrixOptions]
) -> tuple[tuple[Array, ...], ...]: ...


@overload
def hessian(f: Function, x: Nested, h: Any = ..., **_: Unpack[MatrixOptions]) -> Any: ...


@overload
def hessian(f: Function, x: Structure, h: Any = ..., **_: Unpack[MatrixOptions]) -> Structure: ...


@takes_conversions
def hessian(
    f: Callable[..., Any],
    x: Any,
    h: Any = "auto",
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    engine: EngineName = "auto",
    scheme: SchemeName | Scheme = "central",
    relative: bool = False,
    bounds: Any = None,
    vectorized: bool = False,
    workers: int | Map | None = None,
    progress: Progress = False,
    sparsity: Any = None,
    outside: Any = None,
) -> Any:
    """Return the second derivatives of f with respect to all pairs of elements of x.

    ``H[i, i] = (f(x + h e_i) - 2 f(x) + f(x - h e_i)) / h**2``, and for i before j
    ``H[i, j] = H[j, i] = (f(++) - f(+-) - f(-+) + f(--)) / (4 h h)`` with f where both elements are
    moved up or down: symmetric by construction.

    Parameters
    ----------
    f : callable
        ``f(x, *args)`` -> number, or array of real numbers. It is called with x itself, whose
        elements are moved in place one or two at a time, so f may ignore its argument and read the
        same array elsewhere.
    x : array of float64, float32 or longdouble, or dict, list or tuple of such
        Bit-identical afterwards, whatever happens.
    h : "auto", number, or array of x's shape
        The step. "auto" is measured for each element, by the second derivative with respect to it,
        from the best one for functions that vary over distances of ``max(abs(x[i]), 1)``, about
        3e-4 of that; half of the digits are right then. Other steps are replaced by the
        ``(x + h) - x`` that x can hold.
    args : tuple
        Further arguments of f.
    kwargs : mapping, optional
        Further arguments of f by their names.
    engine : {"auto", "loop", "compiled"}
        How f is evaluated at moved points, as for `numerical_gradient`.
    scheme : str or Scheme
        The scheme for first derivatives that is applied twice: "central"; "forward" or "backward",
        which take a quarter of the calls and are less exact; ``schemes.central(4)``, which takes
        four times as many and gives some digits more. "complex" takes the complex step for one of
        the two, and central differences of that: two calls for each element, with two thirds of the
        digits, for an f that computes with its argument by analytic operations.
    relative : bool
        Whether h is in units of ``abs(x[i])``.
    bounds : pair, or sequence of pairs, optional
        The lower and upper bounds of x, which no point goes beyond: near them the differences are
        one-sided, of the same order.
    vectorized, workers, progress
        As for `numerical_gradient`; what is counted are the elements of the Hessian. Workers share
        the calls of f for one row after the other.
    sparsity : array or SciPy sparse array, (x.size, x.size), or "detect", optional
        Which second derivatives may be different from 0: those that are, in either triangle; no
        others are computed. "detect" finds them in the recorded operations of f, however small they
        are; if there are none, by about 10 calls of f for each element of a band: those that show
        in f's digits, where elements are moved by an eighth of ``max(abs(x[i]), 1)``. x is one
        array, and f returns a number.
    outside : exception class or tuple of such, optional
        What f raises where it is not defined, as for `numerical_gradient`.

    Returns
    -------
    array of shape ``f(x).shape + x.shape + x.shape``
        In the floating-point type that f returns. With n elements f is called about ``2 n**2``
        times. If x is a structure, one like x of structures like x: ``H["a"]["b"]`` holds the
        derivatives with respect to elements of ``x["a"]`` and ``x["b"]``. With ``sparsity`` a
        `scipy.sparse.csr_array`, (x.size, x.size).

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`; if entries that ``sparsity`` leaves out are not 0, or it is
        "detect" and f can neither be recorded nor called around x.
    ModuleNotFoundError
        If a sparse Hessian is asked for, and SciPy is not installed.

    Warns
    -----
    RuntimeWarning
        If a derivative is nan or infinite; it is returned as it is.

    References
    ----------
    M. Abramowitz and I. A. Stegun, *Handbook of Mathematical Functions*, 1964, 25.3.23, 25.3.26.

    Examples
    --------
    >>> hessian(lambda x: x[0] ** 2 * x[1], np.array([1.0, 2.0])).round(5)
    array([[4., 2.],
           [2., 0.]])
    """
    x = users_array(x)
    f = with_keywords(f, kwargs)
    if outside is not None:
        f = WhereDefined(f, outside, stacked=vectorized is True)
    first = as_scheme(scheme)
    _require_first_derivative(first)
    if sparsity is not None:
        sparse.require_one_array(x)
    with guarded(f, x, args) as guard:
        evaluator = choose_evaluator(
            f, x, engine, vectorized=vectorized, workers=workers, progress=progress
        )
        found, base = prepare(
            f,
            x,
            h,
            args=args,
            scheme=central() if first.is_complex else second_of(first),
            relative=relative,
            bounds=bounds,
            stacked=evaluator.stacked,
        )
        if first.is_complex:
            require_analytic(found, stacked=evaluator.stacked)
        guard.check()  # before steps are measured by an f that changes x
        structure = None if sparsity is None else sparse.hessian_structure(sparsity, found[0], base)
        with evaluator.shown(sum(problem.x.size for problem in found) ** 2) as report:
            work = _Hessian(found, base, first, evaluator, report, structure, outside)
            if structure is not None:
                return work.sparse()
            blocks = work.blocks()
        work.warn_of_mended()
        axes = [(problem.name, problem.x.ndim) for problem in found]
        for a, row in enumerate(blocks):
            for block, other in zip(row[a:], axes[a:], strict=True):
                names = ("f(x)", base.ndim), axes[a], other
                warn_of_nonfinite(block, "the second derivative of {} by {} and {}", *names)
    return like(x, (like(x, iter(row)) for row in blocks))


@overload
def hessian_vector_product(
    f: Function, x: float, v: Any, **_: Unpack[ProductOptions]
) -> np.float64: ...


@overload
def hessian_vector_product(
    f: Function, x: NumberList, v: Any, **_: Unpack[ProductOptions]
) -> Array: ...


@overload
def hessian_vector_product(
    f: Function, x: Structure, v: Any, **_: Unpack[ProductOptions]
) -> Structure: ...


@takes_conversions
def hessian_vector_product(
    f: Callable[..., Any],
    x: Any,
    v: Any,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    engine: EngineName = "auto",
    vectorized: bool = False,
    workers: int | Map | None = None,
    progress: Progress = False,
    outside: Any = None,
) -> Any:
    """Return the Hessian of f times v, without the Hessian.

    ``(g(x + h v) - g(x - h v)) / (2 h)`` with g the central difference gradient: 4 calls of f for
    each element of x. All steps are measured, as for `hessian`, by about 6 calls more for each;
    about half of the digits are right.

    Parameters
    ----------
    f : callable
        ``f(x, *args) -> number``. It is called with x itself, which is moved in place.
    x : array of float64, float32 or longdouble, or dict, list or tuple of such
        Bit-identical afterwards, whatever happens.
    v : array of x's shape, or structure like x
        Real and finite.
    args : tuple
        Further arguments of f.
    kwargs : mapping, optional
        Further arguments of f by their names.
    engine : {"auto", "loop", "compiled"}
        How f is evaluated at moved points, as for `numerical_gradient`.
    vectorized, workers, progress, outside
        As for `numerical_gradient`.

    Returns
    -------
    array or structure like x
        In x's type.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`; if v does not fit x.

    Warns
    -----
    RuntimeWarning
        If a derivative is nan or infinite; it is returned as it is.

    Examples
    --------
    >>> x, v = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    >>> hessian_vector_product(lambda x: x[0] ** 2 * x[1], x, v).round(5)
    array([6., 2.])
    """
    x = users_array(x)
    f = with_keywords(f, kwargs)
    if outside is not None:
        f = WhereDefined(f, outside, stacked=vectorized is True)
    with guarded(f, x, args) as guard:
        evaluator = choose_evaluator(
            f, x, engine, vectorized=vectorized, workers=workers, progress=progress
        )
        found = problems(f, x, PROBE_SCALE, args=args, relative=True)
        directions = as_directions(v, x, found)
        base = value_at(found, f, x, args, evaluator.stacked)
        guard.check()
        _require_single_number(base)
        scheme, eps = central(2, 2), coarsest(found, base)
        part, line = along(f, x, args, found, directions, "auto", scheme, automatic=True)
        seconds = problems(f, x, "auto", args=args, scheme=scheme)
        arrays = [problem.x for problem in found]
        put_back, originals = restorer(arrays)
        on_line = one_by_one(choose_evaluator(None, x, vectorized=vectorized).values(None))
        value = base.reshape(())
        [(outer, _, [length])] = _schemes(line, on_line, value, outside, eps)
        put_back()
        # A power of two: the direction is multiplied without rounding.
        step = float(part * 2.0 ** np.round(np.log2(length)))
        gradients: list[list[Array]] = [[] for _ in found]
        with evaluator.shown(sum(array.size for array in arrays)) as report:
            values = evaluator.values(in_parts(report, 1 / (2 * QUOTIENTS)))
            chosen = [
                _schemes(each, values, value, outside) if each.x.size else [] for each in seconds
            ]
            share = 1 / (2 * len(outer.offsets))  # each element so often
            values = evaluator.values(in_parts(report, share))
            for offset in outer.offsets:
                displace(arrays, originals, directions, offset * step, [None] * len(arrays))
                for problem, inner, rows in zip(found, chosen, gradients, strict=True):
                    rows.append(_gradient(problem, inner, values))
        put_back()
    products = [np.zeros_like(array) for array in arrays]
    for problem, result, rows in zip(found, products, gradients, strict=True):
        result[...] = outer.combine(np.array(rows)[np.newaxis], step)[0]
        if outside is not None:
            require_a_side(problem, result.reshape(-1))
        warn_of_nonfinite(result, "the product at {}", (problem.name, problem.x.ndim))
    return like(x, iter(products))


class Hessian(DerivativeFunction, Generic[Matrix]):
    """The Hessian of f as a function of x: ``Hessian(f)(x)``.

    It computes what `hessian` does, and takes what `fastgrad.Gradient` takes. As ``hess`` of
    SciPy's ``minimize``, and its ``product`` as ``hessp``.

    Parameters
    ----------
    f : callable
        ``f(x, *args) -> number``.
    h, args, argnum, **options
        As for `fastgrad.Gradient`; options are those of `hessian`.

    Raises
    ------
    TypeError, ValueError
        As from `fastgrad.Gradient`.

    Examples
    --------
    >>> hess = Hessian(lambda x: x[0] ** 2 * x[1])
    >>> hess([1.0, 2.0]).round(5)
    array([[4., 2.],
           [2., 0.]])
    >>> hess.product([1.0, 2.0], [1.0, 1.0]).round(5)
    array([6., 2.])
    """

    computed_by = hessian

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: "Hessian[Array]", f: Function, h: Any = ..., *, sparsity: None = ..., **_: Any
        ) -> None: ...

        @overload
        def __init__(
            self: "Hessian[SparseArray]", f: Function, h: Any = ..., *, sparsity: Any, **_: Any
        ) -> None: ...

        def __init__(self, f: Function, h: Any = "auto", **_: Any) -> None: ...

    @overload
    def __call__(self, x: ArrayLike | float, /, *args: Any) -> Matrix: ...

    @overload
    def __call__(self, x: dict[Key, Array], /, *args: Any) -> dict[Key, dict[Key, Array]]: ...

    @overload
    def __call__(self, x: list[Array], /, *args: Any) -> list[list[Array]]: ...

    @overload
    def __call__(self, x: tuple[Array, ...], /, *args: Any) -> tuple[tuple[Array, ...], ...]: ...

    def __call__(self, x: Any, /, *args: Any) -> Any:
        """Return the Hessian, an array; a structure of structures of arrays if x is one."""
        return super().__call__(x, *args)

    @overload
    def product(self, x: ArrayLike | float, v: Any, *args: Any) -> Array: ...

    @overload
    def product(self, x: Structure, v: Any, *args: Any) -> Structure: ...

    def product(self, x: Any, v: Any, *args: Any) -> Any:
        """Return the Hessian at x times v, as `hessian_vector_product` does, without the Hessian.

        Parameters
        ----------
        x : array or list of numbers
            The argument that is moved.
        v : array of x's shape
        *args
            The others.
        """
        names = ("engine", "vectorized", "workers", "progress", "outside")
        options = {name: self.options[name] for name in names if name in self.options}
        f, x, others = self.at((*args[: self.argnum], x, *args[self.argnum :]))
        return hessian_vector_product(f, x, v, args=others, **options)


def _require_single_number(base: Array) -> None:
    """Refuse an f that returns several numbers."""
    if base.size != 1:
        raise ValueError(
            f"f returned an array of shape {base.shape}, but the product is that of a function "
            "which returns a single number; reduce the array, for instance by .sum()"
        )


def _require_first_derivative(scheme: Scheme) -> None:
    """Refuse a scheme that is not applied twice."""
    if scheme.derivative != 1:
        raise ValueError(
            f"scheme gives derivatives of order {scheme.derivative}, but the one that is given is "
            "applied twice; pass one for first derivatives, such as schemes.central(4)"
        )


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


class _Hessian:
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


def _schemes(
    problem: Problem, values: Values, base: Array, outside: Any, eps: float | None = None
) -> list[tuple[Scheme, Places, Array]]:
    """Return schemes for first derivatives by steps that suit second ones, on f's side of x."""
    known = measured(problem, values, base, eps, farther=False)
    steps, quotients = known.steps, np.asarray(known.quotients)
    order = memory_order(problem.x)
    found = derive_from_one_side(problem, quotients, values, base, outside=outside, farther=False)
    for _, places, _ in found:
        order = order[~np.isin(order, places)]
    central_ones = problem.scheme, order, np.broadcast_to(steps, problem.x.size)[order]
    return [(first_of(each[0]), *each[1:]) for each in (central_ones, *found) if len(each[1])]


def _gradient(
    problem: Problem, schemes: list[tuple[Scheme, Places, Array]], values: Values
) -> Array:
    """Return the gradient by these schemes and steps, in C order."""
    result = np.zeros(problem.x.shape)
    for scheme, places, steps in schemes:
        exact = 2.0 ** np.round(np.log2(steps))
        fill(result, values, problem.f, problem.x, places, exact, scheme)
    return result
