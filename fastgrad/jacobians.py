"""Jacobians: derivatives of functions that return many numbers, arrays f(x).shape + x.shape."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Unpack, overload

import numpy as np

from fastgrad.differences.arguments import (
    as_real_array,
    as_returned,
    like,
    require_function,
    users_array,
    warn_of_nonfinite,
    with_keywords,
)
from fastgrad.differences.conversions import takes_conversions
from fastgrad.differences.domain import WhereDefined, derive_from_one_side
from fastgrad.differences.guard import guarded
from fastgrad.differences.measured_steps import QUOTIENTS, measured
from fastgrad.differences.problem import Problem, prepare
from fastgrad.differences.quotients import BLOCK_DERIVATIVES, as_floats, fill
from fastgrad.engines.loop import in_parts
from fastgrad.engines.selection import GradientOptions, MatrixOptions, choose_evaluator
from fastgrad.gradient import DerivativeFunction, numerical_gradient
from fastgrad.lazy import LazyModule
from fastgrad.schemes import Scheme
from fastgrad.typing import (
    Array,
    ArrayLike,
    Arrays,
    EngineName,
    Function,
    Map,
    Matrix,
    Number,
    NumberList,
    Progress,
    SchemeName,
    SparseArray,
    Structure,
    Values,
)

if TYPE_CHECKING:
    from fastgrad import sparse
else:  # most Jacobians are dense
    sparse = LazyModule("fastgrad.sparse")

QUOTIENTS_AT_ONCE = 1 << 14
"""Quotients that are measured together in the loop, by some dozens of arrays: few enough for the
processor's cache, and for memory that is not given back in between (`python -m benchmarks
derivatives`)."""


@overload
def jacobian(
    f: Function, x: NumberList, h: Any = ..., *, sparsity: None = ..., **_: Unpack[MatrixOptions]
) -> Array: ...


@overload
def jacobian(
    f: Function, x: ArrayLike, h: Any = ..., *, sparsity: Any, **_: Unpack[MatrixOptions]
) -> SparseArray: ...


@overload
def jacobian(f: Function, x: float, h: Any = ..., **_: Unpack[MatrixOptions]) -> Array | Number: ...


@overload
def jacobian(
    f: Function, x: Arrays, h: Any = ..., *, sparsity: None = ..., **_: Unpack[MatrixOptions]
) -> Arrays: ...


@overload
def jacobian(f: Function, x: Structure, h: Any = ..., **_: Unpack[MatrixOptions]) -> Structure: ...


@takes_conversions
def jacobian(
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
    """Return the derivatives of all that f returns with respect to all elements of x.

    ``J[i, j] = d f(x)[i] / d x[j]``, with as many indices for i as f(x) has axes and as many for j
    as x has: derivatives have the shape ``f(x).shape + x.shape``. Where f returns a number, that is
    the gradient.

    Parameters
    ----------
    f : callable
        ``f(x, *args)`` -> number or array of real numbers, always of one shape. It is called with
        x itself, whose elements are moved in place one after the other, so f may ignore its
        argument and read the same array elsewhere.
    x : array of float64, float32 or longdouble, or dict, list or tuple of such
        Bit-identical afterwards, whatever happens.
    h : "auto", number, or array of x's shape
        The step. "auto" is measured as for `numerical_gradient`: a step for each element that suits
        all that f returns, by one to three quotients where f is smooth. It starts with the scheme's
        best one for functions that vary over distances of ``max(abs(x[i]), 1)``, for central
        quotients about 1e-5 of that. Other steps are replaced by the ``(x + h) - x`` that x can
        hold.
    args : tuple
        Further arguments of f.
    kwargs : mapping, optional
        Further arguments of f by their names.
    engine : {"auto", "loop", "compiled"}
        How f is evaluated at moved points, as for `numerical_gradient`.
    scheme : str or Scheme
        The difference scheme; ``fastgrad.schemes.central(4)`` gives some digits more.
    relative : bool
        Whether h is in units of ``abs(x[i])``.
    bounds : pair, or sequence of pairs, optional
        The lower and upper bounds of x, which no point goes beyond.
    vectorized, workers, progress
        As for `numerical_gradient`. An f that takes a stack of m points returns an array
        ``(m, *f(x).shape)``.
    sparsity : array or SciPy sparse array, (f(x).size, x.size), or pair, or "detect", optional
        Which derivatives may be different from 0, in C order: those that are. Elements of x that no
        element of f(x) depends on together are moved together. "detect" finds them
        (`fastgrad.detect_sparsity`, which returns a pair to be passed again), a pair is such an
        array and the number of each column's group (`fastgrad.group_columns`). x is one array.
    outside : exception class or tuple of such, optional
        What f raises where it is not defined, as for `numerical_gradient`.

    Returns
    -------
    array of shape ``f(x).shape + x.shape``, or a structure like x of such arrays
        In the floating-point type that f returns. With a given step f is called once, and as often
        as the scheme has points besides x itself for each element of x. With ``sparsity`` a
        `scipy.sparse.csr_array` (f(x).size, x.size); f is called as often as the scheme has points
        for each group, and once along all of x, to see that nothing has been left out.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`; if f returns arrays of different shapes, or other things than
        real numbers; if an entry that ``sparsity`` leaves out is not 0.
    ModuleNotFoundError
        If a sparse Jacobian is asked for, and SciPy is not installed.

    Warns
    -----
    RuntimeWarning
        If a derivative is nan or infinite; it is returned as it is.

    Examples
    --------
    >>> jacobian(lambda x: np.array([x[0] * x[1], x[0] ** 2, 3.0]), np.array([2.0, 5.0])).round(8)
    array([[5., 2.],
           [4., 0.],
           [0., 0.]])

    As ``jac`` of SciPy's ``least_squares(residuals, start, jac=...)``:

    >>> jac = lambda x: jacobian(lambda x: x**2 - [1, 4], x)
    >>> jac(np.array([1.0, 2.0])).round(8)
    array([[2., 0.],
           [0., 4.]])

    Of an f each of whose elements depends on two of x, by two groups:

    >>> jacobian(lambda x: x[1:] * x[:-1], np.arange(5.0), sparsity="detect").toarray().round(8)
    array([[1., 0., 0., 0., 0.],
           [0., 2., 1., 0., 0.],
           [0., 0., 3., 2., 0.],
           [0., 0., 0., 4., 3.]])
    """
    x = users_array(x)
    f = with_keywords(f, kwargs)
    if outside is not None:
        f = WhereDefined(f, outside, stacked=vectorized is True)
    is_sparse = sparsity is not None
    if is_sparse:
        sparse.require_one_array(x)
    with guarded(f, x, args) as guard:
        evaluator = choose_evaluator(
            None if is_sparse else f,
            x,
            engine,
            vectorized=vectorized,
            workers=workers,
            progress=progress,
        )
        if is_sparse and evaluator.engine == "compiled":
            raise ValueError(
                "engine is 'compiled', which moves single elements, but with sparsity groups of "
                "them are moved; leave out one of both"
            )
        found, base = prepare(
            f,
            x,
            h,
            args=args,
            scheme=scheme,
            relative=relative,
            bounds=bounds,
            stacked=evaluator.stacked,
        )
        evaluator.require_analytic(found)
        guard.check()  # before steps are measured by an f that changes x
        groups = None
        if is_sparse:
            groups = sparse.ColumnGroups(
                f, args, found[0], sparsity, base, stacked=evaluator.stacked
            )
            found = [groups.problem]
        with evaluator.shown(sum(problem.x.size for problem in found)) as report:
            values = evaluator.values(report)
            measuring = evaluator.values(in_parts(report, 1 / QUOTIENTS))
            parts = []
            in_loop = evaluator.engine == "loop" and not evaluator.has_workers
            at_once = QUOTIENTS_AT_ONCE if in_loop else BLOCK_DERIVATIVES
            for problem in found:
                steps = measured(problem, measuring, base, at_once=at_once)
                columns = _columns(steps, values, base, in_loop)
                again = evaluator.values(None)
                derive_from_one_side(
                    problem, columns, again, base, outside=outside, elements=groups
                )
                rows = columns.reshape(problem.x.size, base.size).T
                rows = rows.astype(base.dtype, copy=groups is None)
                parts.append(rows.reshape(base.shape + problem.x.shape))
                if groups is None:
                    names = ("f(x)", base.ndim), (problem.name, problem.x.ndim)
                    warn_of_nonfinite(parts[-1], "the derivative of {} by {}", *names)
        if groups is not None:
            return groups.expanded(parts[0], base)
    return like(x, iter(parts))


class Jacobian(DerivativeFunction, Generic[Matrix]):
    """The Jacobian of f as a function of x: ``Jacobian(f)(x)``.

    It computes what `jacobian` does, and takes what `fastgrad.Gradient` takes. As ``jac`` of
    SciPy's ``least_squares`` and ``root``, and of ``solve_ivp`` with ``argnum=1``.

    Parameters
    ----------
    f : callable
        ``f(x, *args)`` -> array.
    h, args, argnum, **options
        As for `fastgrad.Gradient`; options are those of `jacobian`.

    Raises
    ------
    TypeError, ValueError
        As from `fastgrad.Gradient`.

    Examples
    --------
    >>> jac = Jacobian(lambda t, y: np.array([y[1], -t * y[0]]), argnum=1)
    >>> jac(3.0, [1.0, 2.0]).round(8)
    array([[ 0.,  1.],
           [-3.,  0.]])
    """

    computed_by = jacobian

    if TYPE_CHECKING:

        @overload
        def __init__(
            self: "Jacobian[Array]", f: Function, h: Any = ..., *, sparsity: None = ..., **_: Any
        ) -> None: ...

        @overload
        def __init__(
            self: "Jacobian[SparseArray]", f: Function, h: Any = ..., *, sparsity: Any, **_: Any
        ) -> None: ...

        def __init__(self, f: Function, h: Any = "auto", **_: Any) -> None: ...

    @overload
    def __call__(self, x: ArrayLike | float, /, *args: Any) -> Matrix: ...

    @overload
    def __call__(self, x: Arrays, /, *args: Any) -> Arrays: ...

    @overload
    def __call__(self, x: Structure, /, *args: Any) -> Structure: ...

    def __call__(self, x: Any, /, *args: Any) -> Any:
        """Return the Jacobian, an array; a structure of arrays if x is one."""
        return super().__call__(x, *args)


@overload
def vector_jacobian_product(
    f: Function, x: float, v: Any, h: Any = ..., **_: Unpack[GradientOptions]
) -> np.float64: ...


@overload
def vector_jacobian_product(
    f: Function, x: NumberList, v: Any, h: Any = ..., **_: Unpack[GradientOptions]
) -> Array: ...


@overload
def vector_jacobian_product(
    f: Function, x: Structure, v: Any, h: Any = ..., **_: Unpack[GradientOptions]
) -> Structure: ...


@takes_conversions
def vector_jacobian_product(
    f: Callable[..., Any],
    x: Any,
    v: Any,
    h: Any = 1e-4,
    *,
    args: tuple[Any, ...] = (),
    **options: Any,
) -> Any:
    """Return v times the Jacobian of f, without the Jacobian: the gradient of ``(f(x) * v).sum()``.

    What a layer passes back, if v is what is passed back to it: the numerical gradient of an array
    function. `fastgrad.check_backward` compares the two.

    Parameters
    ----------
    f : callable
        ``f(x, *args)`` -> array.
    x : array or structure
        As `numerical_gradient` takes it.
    v : array of f(x)'s shape
        Real.
    h, args, **options
        As `numerical_gradient` takes them, all but ``vectorized``.

    Returns
    -------
    array or structure like x

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`; if v does not have the shape of f(x).

    Examples
    --------
    >>> A = np.arange(6.0).reshape(2, 3)
    >>> vector_jacobian_product(lambda x: A @ x, np.ones(3), np.array([1.0, 10.0])).round(6)
    array([30., 41., 52.])
    """
    weights = as_floats(as_real_array("v", v, "pass an array of the shape of f(x)"))
    f = with_keywords(f, options.pop("kwargs", None))
    require_function(f)
    if options.get("outside") is not None:  # around f alone: v of another shape is refused
        options["outside"] = f = WhereDefined(f, options["outside"], weights.shape)
    return numerical_gradient(partial(weighted_sum, f, weights), x, h, args=args, **options)


def weighted_sum(f: Callable[..., Any], weights: Array, x: Any, *args: Any) -> Any:
    """Return the sum of what f returns, times weights of the same shape."""
    values = f(x, *args)
    if not hasattr(values, "shape"):
        values = as_returned(values)
    if np.shape(values) != weights.shape:
        raise ValueError(
            f"v has shape {weights.shape}, but f returns an array of shape {np.shape(values)}; "
            "pass an array of that shape"
        )
    return np.sum(values * weights)


def _columns(problem: Problem, values: Values, base: Array, in_loop: bool) -> Array:
    """Return the derivatives with respect to each element of one array, (x.size, *base.shape).

    Evaluated in the loop, f has the bits of ``base`` at x itself.
    """
    f, x, columns = problem.f, problem.x, problem.quotients
    if columns is None:
        columns = np.zeros((x.size, *base.shape), base.dtype)
        here = np.broadcast_to(base, columns.shape) if in_loop else None
        for scheme, places, steps in problem.partition if columns.size else ():
            fill(columns, values, f, x, places, steps, scheme, base.shape, here)
    return columns
