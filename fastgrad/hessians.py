"""Hessians, symmetric arrays x.shape + x.shape, and their products with vectors."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.arguments import is_structure, like, users_array
from fastgrad.differences.conversions import takes_conversions
from fastgrad.differences.guard import guarded
from fastgrad.differences.measured_steps import QUOTIENTS, measured
from fastgrad.differences.problem import PROBE_STEP, Problem, prepare, problems, value_at
from fastgrad.differences.quotients import derivatives, fill, memory_order, moved
from fastgrad.directional import (
    along,
    as_directions,
    coarsest,
    displace,
    one_by_one,
    restorer,
)
from fastgrad.engines.progress import in_parts
from fastgrad.engines.selection import Evaluator, choose_evaluator
from fastgrad.gradient import DerivativeFunction
from fastgrad.schemes import Scheme, backward, central, forward
from fastgrad.typing import Array, EngineName, Map, Progress, Report, Structure, Values

Part = tuple[Scheme, Scheme, NDArray[np.intp], Array]
"""A scheme for second and one for first derivatives, the elements that they fit, their steps."""


@takes_conversions
def hessian(
    f: Callable[..., Any],
    x: Array,
    h: Any = "auto",
    *,
    args: tuple[Any, ...] = (),
    engine: EngineName = "auto",
    relative: bool = False,
    bounds: Any = None,
    vectorized: bool = False,
    workers: int | Map | None = None,
    progress: Progress = False,
) -> Array:
    """Return the second derivatives of f with respect to all pairs of elements of x.

    ``H[i, i] = (f(x + h e_i) - 2 f(x) + f(x - h e_i)) / h**2``, and for i before j
    ``H[i, j] = H[j, i] = (f(++) - f(+-) - f(-+) + f(--)) / (4 h h)`` with f where both elements are
    moved up or down: symmetric by construction.

    Parameters
    ----------
    f : callable
        ``f(x, *args) -> number``. It is called with x itself, whose elements are moved in place
        one or two at a time, so f may ignore its argument and read the same array elsewhere.
    x : array of float64, float32 or longdouble
        Bit-identical afterwards, whatever happens.
    h : "auto", number, or array of x's shape
        The step. "auto" is measured for each element, by the second derivative with respect to it,
        from the best one for functions that vary over distances of ``max(abs(x[i]), 1)``, about
        3e-4 of that; half of the digits are right then. Other steps are replaced by the
        ``(x + h) - x`` that x can hold.
    args : tuple
        Further arguments of f.
    engine : {"auto", "loop", "compiled"}
        How f is evaluated at moved points, as for `numerical_gradient`.
    relative : bool
        Whether h is in units of ``abs(x[i])``.
    bounds : pair, or sequence of pairs, optional
        The lower and upper bounds of x, which no point goes beyond: near them the differences are
        one-sided, of the same order.
    vectorized, workers, progress
        As for `numerical_gradient`; what is counted are the elements of the Hessian. Workers share
        the calls of f for one row after the other.

    Returns
    -------
    array (*x.shape, *x.shape)
        In the floating-point type that f returns. With n elements f is called about ``2 n**2``
        times.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`; if x is a structure.

    References
    ----------
    M. Abramowitz and I. A. Stegun, *Handbook of Mathematical Functions*, 1964, 25.3.23, 25.3.26.

    Examples
    --------
    >>> hessian(lambda x: x[0] ** 2 * x[1], np.array([1.0, 2.0])).round(5)
    array([[4., 2.],
           [2., 0.]])
    """
    if is_structure(x):
        raise TypeError(
            f"x is a {type(x).__name__}, but a Hessian is that of a function of one array; put the "
            "arrays into one, or use hessian_vector_product"
        )
    x = users_array(x)
    with guarded(f, x, args) as guard:
        evaluator = choose_evaluator(
            f, x, engine, vectorized=vectorized, workers=workers, progress=progress
        )
        [problem], base = prepare(
            f,
            x,
            h,
            args=args,
            scheme=central(2, 2),
            relative=relative,
            bounds=bounds,
            stacked=evaluator.stacked,
        )
        guard.check()  # before steps are measured by an f that changes x
        _require_single_number(base)
        result = np.zeros((x.size, x.size), base.dtype)
        with evaluator.shown(x.size**2) as report:
            measuring = evaluator.values(in_parts(report, 1 / QUOTIENTS))
            problem = measured(problem, measuring, base.reshape(()), farther=False)
            _fill(result, problem, evaluator, report)
    lower = np.tril_indices(x.size, -1)
    result[lower] = result.T[lower]
    return result.reshape(x.shape + x.shape)


@takes_conversions
def hessian_vector_product(
    f: Callable[..., Any],
    x: Structure,
    v: Any,
    *,
    args: tuple[Any, ...] = (),
    engine: EngineName = "auto",
    vectorized: bool = False,
    workers: int | Map | None = None,
    progress: Progress = False,
) -> Structure:
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
    engine : {"auto", "loop", "compiled"}
        How f is evaluated at moved points, as for `numerical_gradient`.
    vectorized, workers, progress
        As for `numerical_gradient`.

    Returns
    -------
    array or structure like x
        In x's type.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`; if v does not fit x.

    Examples
    --------
    >>> x, v = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    >>> hessian_vector_product(lambda x: x[0] ** 2 * x[1], x, v).round(5)
    array([6., 2.])
    """
    x = users_array(x)
    with guarded(f, x, args) as guard:
        evaluator = choose_evaluator(
            f, x, engine, vectorized=vectorized, workers=workers, progress=progress
        )
        found = problems(f, x, PROBE_STEP, args=args, relative=True)
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
        line = measured(line, on_line, base.reshape(()), eps, farther=False)
        put_back()
        # A power of two: the direction is multiplied without rounding.
        step = float(part * 2.0 ** np.round(np.log2(line.steps[0])))
        gradients = []
        with evaluator.shown(sum(array.size for array in arrays)) as report:
            values = evaluator.values(in_parts(report, 1 / (2 * QUOTIENTS)))
            chosen = [
                measured(problem, values, base.reshape(()), farther=False).steps
                for problem in seconds
            ]
            values = evaluator.values(in_parts(report, 1 / 4))  # each element twice
            for shift in (step, -step):
                displace(arrays, originals, directions, shift, [None] * len(arrays))
                gradients.append(
                    [
                        _gradient(problem, steps, values)
                        for problem, steps in zip(found, chosen, strict=True)
                    ]
                )
        put_back()
    products = [np.zeros_like(array) for array in arrays]
    for product, up, down in zip(products, *gradients, strict=True):
        product[...] = (up - down) / (2 * step)
    return like(x, iter(products))


class Hessian(DerivativeFunction):
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
        names = ("engine", "vectorized", "workers", "progress")
        options = {name: self.options[name] for name in names if name in self.options}
        f, x, others = self.at((*args[: self.argnum], x, *args[self.argnum :]))
        return hessian_vector_product(f, x, v, args=others, **options)


def _require_single_number(base: Array) -> None:
    """Refuse an f that returns several numbers."""
    if base.size != 1:
        raise ValueError(
            f"f returned an array of shape {base.shape}, but a Hessian is that of a function "
            "which returns a single number; reduce the array, for instance by .sum()"
        )


def _fill(result: Array, problem: Problem, evaluator: Evaluator, report: Report | None) -> None:
    """Write the derivatives with respect to each element and those behind it in x."""
    parts = _parts(problem)
    for second, _, places, steps in parts:
        if problem.quotients is not None:
            result[places, places] = problem.quotients.reshape(-1)[places]
            continue
        result[places, places] = derivatives(
            evaluator.values(report), problem.f, problem.x, places, steps, second
        )
    for part in parts:
        for k in range(len(part[2])):
            _fill_row(result, problem, evaluator, report, part, k, parts)


def _parts(problem: Problem) -> list[Part]:
    """Return which elements are differenced by which schemes."""
    parts = []
    for second, places, steps in problem.partition:
        first = central()
        if second != central(2, 2):
            first = forward(2) if max(second.offsets) > 0 else backward(2)
        parts.append((second, first, places, np.broadcast_to(steps, places.shape)))
    return [part for part in parts if len(part[2])]


def _fill_row(
    result: Array,
    problem: Problem,
    evaluator: Evaluator,
    report: Report | None,
    part: Part,
    k: int,
    parts: list[Part],
) -> None:
    """Write the mixed derivatives of the part's k-th element and all elements behind it in x."""
    x, (_, scheme, places, steps) = problem.x, part
    here, step = places[k : k + 1], steps[k : k + 1]
    targets = moved(x, here, scheme.offsets, step)[0]
    elements, place = x.view(np.ndarray).flat, int(here[0])
    old = elements[place]
    # Two elements of the Hessian, which is symmetric, are found together.
    values = evaluator.values(in_parts(report, 2 / len(targets)))
    for target, numerator in zip(targets, scheme.numerators, strict=True):
        elements[place] = target
        for _, other, others, lengths in parts:
            behind = others > place
            if behind.any():
                slopes = derivatives(values, problem.f, x, others[behind], lengths[behind], other)
                # Of Python's integers, which never wrap, slopes are objects.
                result[place, others[behind]] += numerator * slopes.astype(result.dtype)
    elements[place] = old
    result[place, place + 1 :] /= scheme.denominator * step


def _gradient(problem: Problem, steps: Array, values: Values) -> Array:
    """Return the central difference gradient by these steps, in C order."""
    result, places = np.zeros(problem.x.shape), memory_order(problem.x)
    exact = 2.0 ** np.round(np.log2(steps[places]))
    fill(result, values, problem.f, problem.x, places, exact, central())
    return result
