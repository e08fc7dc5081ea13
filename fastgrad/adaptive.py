"""Gradients with error estimates, by adaptive extrapolation, element by element."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Unpack, overload

import numpy as np

from fastgrad.differences.adaptive_steps import EPS, FIRST_STEP, Extrapolation, Outcome
from fastgrad.differences.arguments import (
    as_number,
    as_returned,
    check_end,
    element_at,
    html_table,
    is_structure,
    leaves,
    like,
    require_flag,
    users_array,
    with_keywords,
)
from fastgrad.differences.conversions import takes_conversions
from fastgrad.differences.derivative_of_one import derivative_of_one
from fastgrad.differences.guard import guarded
from fastgrad.differences.problem import Problem, problems, value_at
from fastgrad.differences.quotients import as_floats, derivatives, memory_order, precision
from fastgrad.directional import Pairs
from fastgrad.engines.elementwise import CheckedCalls
from fastgrad.engines.loop import in_parts, real_number, reporting
from fastgrad.engines.remembered import RememberedValues, ValuesOfEach
from fastgrad.engines.selection import DifferentiateOptions, Evaluator, choose_evaluator
from fastgrad.lazy import LazyModule
from fastgrad.schemes import Scheme, as_scheme, central_quotient, second_of
from fastgrad.typing import (
    Array,
    Arrays,
    EngineName,
    Flags,
    Function,
    Map,
    Number,
    NumberList,
    Places,
    Progress,
    Report,
    SchemeName,
    Structure,
    Values,
)

if TYPE_CHECKING:
    from fastgrad.differences import domain
else:  # for functions that are undefined on one side
    domain = LazyModule("fastgrad.differences.domain")

STATUSES = ("converged", "round-off", "no limit")
"""What may become of a derivative."""

MEANINGS = {
    "converged": "converged",
    "round-off": "limited by round-off",
    "no limit": "without a limit that was found",
}
"""The same in words."""

STATUS_DTYPE = f"<U{max(map(len, STATUSES))}"
"""The type of arrays of them."""

MAX_ROUNDOFF_ERROR = 0.1
"""The relative error up to which round-off is blamed for it: a limit has been seen."""

MAX_SINGLE_ELEMENTS = 6
"""Elements up to which each is looked at by itself first: of more, arrays take less time, and
workers have more to do at once."""

BLOCK_ELEMENTS = 1 << 9
"""Elements whose quotients are held in memory at a time."""

BLOCK_ELEMENTS_AT_ONCE = 1 << 15
"""The same where each call of f evaluates all of x, those of other blocks, too."""


MAX_SHOWN = 10
"""Derivatives, at most, in a notebook's table."""


@dataclass(frozen=True, eq=False)
class Derivatives(Generic[Structure]):
    """A gradient, how wrong it may be, and how it was found.

    Attributes
    ----------
    gradient : array of shape ``f(x).shape + x.shape``, or structure like x
        The derivatives: of an f that returns several numbers, its Jacobian; of one in an array of
        shape (1,), as of a number, an array of x's shape.
    error : array or structure like x
        The estimated absolute error of each: truncation, and a bound of what rounding costs; at a
        kink half the jump of the slope; infinite where no derivative was found, or the slope is.
    step : array or structure like x
        The smallest step that each derivative is made of.
    status : array or structure like x
        What became of each: "converged" to half of the digits of x and f at least, or to the
        tolerance; "round-off", which leaves fewer; or "no limit", where none was found, as at a
        kink.
    evaluations : int
        How often f was evaluated.
    engine : str
        The engine that was chosen: "loop", "compiled" or "vectorized".
    seconds : float
        How long it took.
    """

    gradient: Structure
    error: Structure
    step: Structure
    status: Structure
    evaluations: int
    engine: str
    seconds: float

    def __str__(self) -> str:
        """Return in a sentence what became of the derivatives."""
        found = [str(each) for _, part in leaves(self.status) for each in np.ravel(part)]
        counts = {each: found.count(each) for each in STATUSES if each in found}
        what = ", ".join(f"{number:,} {MEANINGS[each]}" for each, number in counts.items())
        return f"{len(found):,} derivatives by {self.evaluations:,} evaluations of f: {what}."

    def _repr_html_(self) -> str:
        """Return that, and a table of the first derivatives, for a notebook."""
        parts = zip(leaves(self.gradient), leaves(self.error), leaves(self.status), strict=True)
        lines = (
            (
                element_at(name, place, np.shape(values)),
                f"{np.ravel(values)[place]:.10g}",
                f"{np.ravel(errors)[place]:.0e}",
                str(np.ravel(statuses)[place]),
            )
            for (name, values), (_, errors), (_, statuses) in parts
            for place in range(np.size(values))
        )
        headings = ("element of x", "derivative", "error", "status")
        return f"<p>{self}</p>" + html_table(headings, islice(lines, MAX_SHOWN))


@overload
def differentiate(
    f: Function, x: float, h: Any = ..., **_: Unpack[DifferentiateOptions]
) -> Derivatives[Array | Number]: ...


@overload
def differentiate(
    f: Function, x: NumberList, h: Any = ..., **_: Unpack[DifferentiateOptions]
) -> Derivatives[Array]: ...


@overload
def differentiate(
    f: Function, x: Arrays, h: Any = ..., **_: Unpack[DifferentiateOptions]
) -> Derivatives[Arrays]: ...


@overload
def differentiate(
    f: Function, x: Structure, h: Any = ..., **_: Unpack[DifferentiateOptions]
) -> Derivatives[Structure]: ...


@takes_conversions
def differentiate(
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
    tolerance: float | None = None,
    order: int = 1,
    diagonal: bool = False,
    vectorized: bool = False,
    elementwise: bool = False,
    workers: int | Map | None = None,
    progress: Progress = False,
    outside: Any = None,
) -> Derivatives[Any]:
    """Return the gradient of f with an estimated error for every element of x.

    Difference quotients at steps that fall by about a half, no two of which have a simple ratio,
    are extrapolated to the limit 0 (Richardson). Further ones are smaller while truncation costs
    most, larger while rounding does, until the error no longer falls: mostly 5 to 7 steps in all.

    Parameters
    ----------
    f : callable
        ``f(x, *args)`` -> number, or array of real numbers. It is called with x itself, whose
        elements are moved in place one after the other, so f may ignore its argument and read the
        same array elsewhere.
    x : array of float64, float32 or longdouble, or dict, list or tuple of such
        Bit-identical afterwards, whatever happens.
    h : "auto", number, or array of x's shape
        The first step, rounded down to a power of two.
        "auto" is a quarter of ``abs(x[i])``, and 1/4 where that is 0 or leaves no digits.
    args : tuple
        Further arguments of f.
    kwargs : mapping, optional
        Further arguments of f by their names.
    engine : str
        How f is evaluated at moved points, as for `numerical_gradient`.
    scheme : str or Scheme
        Which quotients are extrapolated. The complex step needs no extrapolation: of a given one,
        half is taken, too, to tell how exact it is.
    relative : bool
        Whether h is in units of ``abs(x[i])``.
    bounds : pair, or sequence of pairs, optional
        The lower and upper bounds of x, which no point goes beyond: near one the steps are smaller,
        or one-sided.
    tolerance : float, optional
        The relative error that is small enough; 0 or more. By default as small as can be.
    order : {1, 2}
        2 gives second derivatives: for each two elements of x, an array, a symmetric Hessian, found
        from those along single elements and along each two together, in central differences.
    diagonal : bool
        Whether only the second derivatives with respect to single elements are wanted.
    vectorized, elementwise, workers, progress
        As for `numerical_gradient`. An element counts as half done after its first steps. An
        elementwise f is called with stacks of points, arrays ``(k, *x.shape)``, where it returns
        for them what it does for single ones; mostly 4 or 5 times in all.
    outside : exception class or tuple of such, optional
        What f raises where it is not defined, as for `numerical_gradient`.

    Returns
    -------
    Derivatives
        Frozen: gradient, error, step, status, evaluations, engine, seconds. Printed by ``str``, a
        sentence on what became of the derivatives.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`, before f is called; or if tolerance is not a number of 0 or
        more.

    Notes
    -----
    f is called a quarter of ``abs(x[i])`` away from x, and farther where rounding costs most. Where
    it raises it is not defined; what it raises is raised only if no derivative is found. Pass
    bounds or h where it must not be called.

    Values that are computed in float32, rounded or printed have fewer digits than their type: they
    show by themselves how exact they are. Larger steps are not believed where smaller ones
    contradict, unless f jumps otherwise: that is looked at beside x, by 16 calls at a time. Where
    quotients grow without an end in sight, as at an infinite slope, the error is infinite.

    The error is an estimate, not a bound. Rounding is taken to cost eps times ``abs(f)`` and times
    ``abs(x df/dx)``, eps being that of the coarser of x's type and f's, or more where the quotients
    show it. A feature that falls between all points is not seen. Where f is the same at all of
    them, the derivative is 0 with no error to speak of: it may change farther away, all the same.
    Of 9,000 waves and 3,000 rounded functions 1 is wrong by more than ten times its estimate
    (`python -m benchmarks honesty`, seeds 0 to 2).

    References
    ----------
    C. J. F. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering
    Software 4 (1982), 75-76.

    Examples
    --------
    >>> found = differentiate(lambda x: np.exp(x).sum(), np.array([0.0, 1.0]))
    >>> found.gradient.round(12)
    array([1.        , 2.71828183])
    >>> bool((abs(found.gradient - np.exp([0.0, 1.0])) <= found.error).all())
    True
    >>> bool((found.error < 1e-12).all())
    True
    """
    start = time.perf_counter()
    chosen = as_scheme(scheme)
    limit = _as_tolerance(tolerance)
    automatic = isinstance(h, str) and h == "auto"
    require_flag("relative", relative)
    if isinstance(h, str) and not automatic:
        raise TypeError(f"h is {h!r}; pass a number, an array of x's shape, or 'auto'")
    if automatic and relative:
        raise ValueError("h is 'auto', which is relative to x already; leave out relative")
    is_hessian = _is_hessian(order, diagonal, chosen, elementwise)
    if order == 2:
        chosen = second_of(chosen)
    if is_hessian and is_structure(x):
        raise TypeError(
            f"x is a {type(x).__name__}, but order=2 asks for one array; put the arrays into one, "
            "pass diagonal=True, or use hessian"
        )
    first = 1e-20 if automatic and chosen.is_complex else FIRST_STEP if automatic else h
    wide = relative or (automatic and not chosen.is_complex)
    results: list[list[Array]] = []
    evaluations, value, pairs = 0, None, None
    x = users_array(x)
    f = with_keywords(f, kwargs)
    if outside is not None:
        stacked, by_elements = vectorized is True, elementwise is True
        f = domain.WhereDefined(f, outside, stacked=stacked, elementwise=by_elements)
    with guarded(f, x, args):
        evaluator = choose_evaluator(
            f,
            x,
            engine,
            vectorized=vectorized,
            elementwise=elementwise,
            workers=workers,
            progress=progress,
        )
        found = problems(f, x, first, args=args, scheme=chosen, relative=wide, bounds=bounds)
        evaluations += evaluator.require_analytic(found)
        if is_hessian:
            given, value = found[0], _value_at_x(found[0], evaluator)
            ways = np.ones(given.x.size)
            if outside is not None:
                ways = domain.ways_inside(given, evaluator.values(None), np.shape(value))
                evaluations += 2 * given.x.size
            pairs = Pairs(f, args, given, ways)
            steps = FIRST_STEP * pairs.scales if automatic else found[0].steps
            found = [pairs.problem(chosen, steps)]
        with evaluator.shown(sum(problem.x.size for problem in found)) as report:
            for problem in found:
                arrays, count = _differentiate(
                    problem, evaluator, report, limit, automatic, value, outside, pairs
                )
                results.append(arrays)
                evaluations += count
        if pairs is not None:
            pairs.put_back()
    if pairs is not None:
        eps = precision(pairs.arrays[0], np.asarray(value))
        results = [_of_pairs(pairs, results[0], np.asarray(value), limit, eps)]
    gradient, error, step, status = (like(x, iter([each[k] for each in results])) for k in range(4))
    return Derivatives(
        gradient, error, step, status, evaluations, evaluator.engine, time.perf_counter() - start
    )


def _is_hessian(order: int, diagonal: bool, scheme: Scheme, elementwise: bool) -> bool:
    """Say whether second derivatives of pairs of elements are wanted; refuse other orders."""
    require_flag("diagonal", diagonal)
    require_flag("elementwise", elementwise)
    if type(order) is not int or order not in (1, 2):
        raise ValueError(f"order is {order!r}; pass 1 or 2")
    if order == 1 and diagonal:
        raise ValueError("diagonal is True, which asks for order=2; pass that, too")
    if order == 2 and (scheme.derivative != 1 or scheme.is_complex):
        raise ValueError(
            "order is 2, which takes the scheme for second derivatives that goes with a real one "
            "for first ones; pass one such as schemes.central(4), or leave scheme out"
        )
    return order == 2 and not (diagonal or elementwise)


def _of_pairs(
    pairs: Pairs, results: list[Array], base: Array, tolerance: float, eps: float
) -> list[Array]:
    """Return Hessian, errors, steps and status by what was found along pairs of elements."""
    along, errors, steps, status = results
    hessian, error = pairs.hessian(along), pairs.hessian(errors, is_error=True)
    scales = np.minimum(pairs.scales[pairs.first], pairs.scales[pairs.second])
    step = pairs.entries(steps * scales)
    is_limited = pairs.entries(status != STATUSES[2])
    heights = abs(base)[..., np.newaxis, np.newaxis] / np.outer(pairs.scales, pairs.scales)
    status = _status(hessian, error, heights, is_limited, tolerance, eps)
    shape = pairs.arrays[0].shape
    return [each.reshape(base.shape + shape + shape) for each in (hessian, error, step, status)]


def _status(
    values: Array, errors: Array, heights: Array, is_limited: Flags, tolerance: float, eps: float
) -> Array:
    """Return what became of derivatives.

    Parameters
    ----------
    values, errors : arrays
    heights : array
        The size of f over the distances at which it varies: derivatives far below it are 0.
    is_limited : array of bool
        Whether it is round-off that few digits are to be blamed on.
    tolerance, eps : float
        The relative errors that are small enough, and of f's values.
    """
    with np.errstate(invalid="ignore"):
        size = np.fmax(abs(values), heights)
        converged = errors <= np.fmax(max(eps**0.5, tolerance) * size, np.finfo(np.float64).tiny)
        blamed = is_limited & (errors <= MAX_ROUNDOFF_ERROR * size)
    converged, blamed = (each & np.isfinite(errors) for each in (converged, blamed))
    return np.where(converged, STATUSES[0], np.where(blamed, STATUSES[1], STATUSES[2]))


def _differentiate(
    problem: Problem,
    evaluator: Evaluator,
    report: Report | None,
    tolerance: float,
    retry: bool,
    base: Any,
    outside: Any,
    pairs: Pairs | None,
) -> tuple[list[Array], int]:
    """Return the gradient, the error, the step and the status; and the evaluations.

    ``base`` is f(x), if that has been evaluated; it is counted here. The problem is that of pairs
    of elements, if there are any.
    """
    if not problem.x.size:
        nothing = np.zeros(problem.x.shape, STATUS_DTYPE)
        return [*(np.zeros_like(problem.x) for _ in range(3)), nothing], 0
    given, values_of = problem, evaluator.values
    each: ValuesOfEach | CheckedCalls | None = None
    if evaluator.is_elementwise:
        each = CheckedCalls(problem.f, problem.x)
        base, values_of = each.base.reshape(-1), each.values
    else:
        base = _value_at_x(problem, evaluator) if base is None else base
    if each is None and (base.ndim == 0 or base.shape == (1,)):
        base = base.reshape(())[()]
    elif each is None:
        each = ValuesOfEach(evaluator, problem, base.shape)
        base = np.repeat(base.reshape(-1), problem.x.size)
        problem, values_of = each.problem, each.values
    x, scheme = problem.x, problem.scheme
    gradient, error, step = results = [np.zeros_like(x) for _ in range(3)]
    places = memory_order(x)
    size = np.maximum(abs(x.view(np.ndarray)), 1) ** scheme.derivative
    heights = abs(base.reshape(x.shape) if base.ndim else base) / size
    is_limited = np.ones(x.size, bool)
    if scheme.is_complex:
        steps, calls = problem.steps, 1 if retry else 2
        all_values = values_of(report if retry else in_parts(report, 1 / 2))
        quotients = derivatives(all_values, problem.f, x, places, steps, scheme)
        # Nothing is subtracted: what is left is the rounding of the operations inside f.
        errors = 8 * precision(x, quotients) * abs(quotients)
        if not retry:  # a given step may be large: half of it tells what that costs
            larger, steps = quotients, steps / 2
            quotients = derivatives(all_values, problem.f, x, places, steps, scheme)
            errors += abs(quotients - larger)
        _write(results, places, quotients, errors, steps)
        eps = precision(x, quotients)
        status = _status(gradient, error, heights, is_limited.reshape(x.shape), tolerance, eps)
        count = each.evaluations if each else calls * x.size * len(scheme.offsets)
        return [gradient, error, step, status], 1 + count
    half = in_parts(report, 1 / 2)
    values, begin = values_of(None), values_of(half)
    remembered = RememberedValues(values)
    several = evaluator.is_elementwise
    extrapolation = Extrapolation(problem, remembered, base, tolerance, retry, several)
    steps = np.full(x.size, problem.steps, np.float64)
    if retry:  # where nothing is left of the step's power
        gone = steps**scheme.derivative < np.finfo(np.float64).tiny / EPS
        steps = np.where(gone, FIRST_STEP, steps)
    is_single = not (evaluator.has_workers or evaluator.is_elementwise)
    if len(places) <= MAX_SINGLE_ELEMENTS and is_single:
        known = _one_by_one(extrapolation, remembered, steps)
        for place, numbers in known.items():
            _write(results, place, *numbers)
        if report is not None:
            report(len(known))
        places = np.array([place for place in places.tolist() if place not in known], np.intp)
        begin = remembered if half is None else reporting(remembered, half)

    def extrapolate(
        by: Extrapolation, places: Places, begin: Values, report: Report | None
    ) -> None:
        length = BLOCK_ELEMENTS_AT_ONCE if several else BLOCK_ELEMENTS
        for start in range(0, len(places), length):
            some = places[start : start + length]
            outcome = by.derivatives(some, steps[some], begin, report)
            _examine(by, some, outcome)
            # The derivative is rounded to double precision, and to x's type.
            eps = max(float(np.finfo(x.dtype).eps), EPS)
            errors = outcome.errors + eps / 2 * abs(np.nan_to_num(outcome.values))
            _write(results, some, outcome.values, errors, outcome.steps)
            by_rounding = outcome.roundoff_limited | (outcome.coarse > 0)
            is_limited[some] = by_rounding & ~outcome.diverging

    extrapolate(extrapolation, places, begin, half)
    undefined = _undefined(gradient)
    is_asked = len(undefined) > 0 and (outside is not None or scheme.is_symmetric)
    for side in domain.one_sided_schemes(scheme) if is_asked else ():
        by = extrapolation.replaced(problem.replaced(scheme=side))
        extrapolate(by, _undefined(gradient), remembered, None)
        extrapolation.evaluations += by.evaluations
    if is_asked:
        of = given if pairs is None else pairs.given
        defined = np.setdiff1d(undefined, _undefined(gradient)) % given.x.size
        if outside is not None:
            columns = gradient.view(np.ndarray).reshape(-1, given.x.size).T
            domain.require_a_side(of, columns if pairs is None else pairs.columns_of(columns))
        domain.warn_of_one_sided(of, defined if pairs is None else pairs.elements_of(defined))
    eps = extrapolation.eps
    status = _status(gradient, error, heights, is_limited.reshape(x.shape), tolerance, eps)
    count = each.evaluations if each else extrapolation.evaluations + remembered.evaluations
    return [gradient, error, step, status], 1 + count


def _value_at_x(problem: Problem, evaluator: Evaluator) -> Any:
    """Return f at x as floats, an array if it returns one of several numbers."""
    if evaluator.stacked:
        return value_at([problem], problem.f, problem.x, (), stacked=True)
    value = problem.f(problem.x)
    array = as_returned(value)
    if array.size == 1:
        array = np.asarray(real_number(value)).reshape(array.shape)
    elif array.dtype.kind not in "fiub":
        raise TypeError(
            f"f returned an array of dtype {array.dtype}, but it must return real numbers; "
            f"{check_end(array.dtype.kind)}"
        )
    return as_floats(array)


def _undefined(gradient: Array) -> Places:
    """Return where no derivative has been found."""
    return np.flatnonzero(np.isnan(gradient.view(np.ndarray)))


def _write(results: list[Array], places: Any, values: Any, errors: Any, steps: Any) -> None:
    """Write what has been found of some elements into the gradient, the error and the step."""
    for result, numbers in zip(results, (values, errors, steps), strict=True):
        result.view(np.ndarray).flat[places] = numbers


def _examine(extrapolation: Extrapolation, places: Places, outcome: Outcome) -> None:
    """Raise what f has raised at all steps; look closer at slopes of 0, and at fixed elements."""
    for k in np.flatnonzero(np.isnan(outcome.values)):
        if int(places[k]) in extrapolation.raised:
            raise extrapolation.raised[int(places[k])]
    # A derivative of exactly 0 where f changes: between two of its jumps?
    for k in np.flatnonzero((outcome.values == 0) & (outcome.errors < outcome.largest)):
        # Out to where it certainly has changed.
        if extrapolation.is_flat(int(places[k]), 2 * float(outcome.widest[k])):
            outcome.errors[k] = outcome.largest[k]
    bounds = extrapolation.problem.bounds
    if bounds is not None:  # what cannot be moved has the derivative 0
        fixed = bounds[0][places] == bounds[1][places]
        outcome.values[fixed] = outcome.errors[fixed] = 0


def _one_by_one(
    extrapolation: Extrapolation, remembered: RememberedValues, steps: Array
) -> dict[int, tuple[float, float, float]]:
    """Return the derivatives with respect to elements in which f looks smooth; errors and steps."""
    problem, tolerance = extrapolation.problem, extrapolation.tolerance
    f, x, known = problem.f, problem.x, {}
    if x.dtype != np.float64 or problem.bounds is not None or problem.scheme != central_quotient:
        return {}
    for place, here in enumerate(x.view(np.ndarray).reshape(-1).tolist()):
        evaluate = partial(remembered.of_one, f, x, place)
        first = float(steps[place])
        base = float(extrapolation.base_at(place))
        found = derivative_of_one(evaluate, here, base, first, tolerance)
        if found is not None:
            value, error, step = found
            known[place] = value, error + EPS / 2 * abs(value), step
    return known


def _as_tolerance(tolerance: object) -> float:
    """Return the tolerance as a float; 0 if there is none."""
    if tolerance is None:
        return 0.0
    limit = as_number("tolerance", tolerance, "it is a relative error", "a number such as 1e-8")
    if not 0 <= limit < math.inf:
        raise ValueError(
            f"tolerance is {tolerance}, but it is 0 or more and finite; pass one such as 1e-8"
        )
    return limit
