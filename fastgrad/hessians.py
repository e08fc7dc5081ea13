"""Hessians, symmetric arrays x.shape + x.shape, and their products with vectors."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Unpack, overload

import numpy as np

from fastgrad.differences.arguments import (
    PROBE_SCALE,
    like,
    users_array,
    warn_of_nonfinite,
    with_keywords,
)
from fastgrad.differences.conversions import takes_conversions
from fastgrad.differences.domain import WhereDefined, derive_from_one_side, require_a_side
from fastgrad.differences.guard import guarded
from fastgrad.differences.measured_steps import QUOTIENTS, measured
from fastgrad.differences.problem import Problem, prepare, problems, value_at
from fastgrad.differences.quotients import fill, memory_order
from fastgrad.directional import along, as_directions, coarsest, displace, one_by_one, restorer
from fastgrad.engines.loop import in_parts
from fastgrad.engines.selection import MatrixOptions, ProductOptions, choose_evaluator
from fastgrad.gradient import DerivativeFunction
from fastgrad.hessian_rows import HessianRows
from fastgrad.lazy import LazyModule
from fastgrad.schemes import Scheme, as_scheme, central, first_of, second_of
from fastgrad.typing import (
    Array,
    ArrayLike,
    EngineName,
    Function,
    Key,
    Map,
    Matrix,
    Nested,
    Number,
    NumberList,
    Places,
    Progress,
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
        evaluator.require_analytic(found, first)  # found is of the other scheme, which is real
        guard.check()  # before steps are measured by an f that changes x
        structure = None if sparsity is None else sparse.hessian_structure(sparsity, found[0], base)
        with evaluator.shown(sum(problem.x.size for problem in found) ** 2) as report:
            work = HessianRows(found, base, first, evaluator, report, structure, outside)
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
