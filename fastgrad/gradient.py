"""`numerical_gradient`, `Gradient` and `explain`: difference quotients for every element of x."""

from collections.abc import Callable, Mapping
from functools import partial
from inspect import signature
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np

from fastgrad.differences.arguments import (
    is_structure,
    like,
    require_function,
    users_array,
    warn_caller,
    warn_of_nonfinite,
    with_keywords,
)
from fastgrad.differences.conversions import BOOK_STEP, movable, takes_conversions
from fastgrad.differences.guard import guarded
from fastgrad.differences.problem import Problem, problems
from fastgrad.differences.quotients import at
from fastgrad.engines import loop
from fastgrad.engines.selection import (
    INDEPENDENCE_MESSAGE,
    POINTS_PER_REPEAT,
    Evaluator,
    Explanation,
    GradientOptions,
    Repeating,
    choose_evaluator,
    is_independent,
    is_repeated,
    look_again,
    why_constant,
)
from fastgrad.lazy import LazyModule
from fastgrad.schemes import Scheme, as_scheme, central_quotient
from fastgrad.typing import (
    Array,
    ArrayLike,
    Function,
    GradientEngineName,
    Map,
    NumberList,
    Progress,
    Report,
    SchemeName,
    Structure,
)

if TYPE_CHECKING:
    from fastgrad.differences import domain, measured_steps
    from fastgrad.engines import compiled
    from fastgrad.engines import elementwise as elementwise_calls
else:  # most gradients need none of them
    domain = LazyModule("fastgrad.differences.domain")
    measured_steps = LazyModule("fastgrad.differences.measured_steps")
    compiled = LazyModule("fastgrad.engines.compiled")
    elementwise_calls = LazyModule("fastgrad.engines.elementwise")

MIN_EXAMINED_ELEMENTS = 64
"""Elements from which it pays to look first whether f depends on them: by three calls of f."""

TRACED_STEPS = 2.0**-17, 2.0**-14
"""The steps at which a recorded f is differenced where the step is to be measured: about the best
one for functions that vary over distances of 1, and one at which they differ 63 times as much."""

MAX_TRACED_SIZE = 2.0**20
"""Size of elements that are moved by these steps without losing digits of them."""

MAX_MEASURED_SHARE = 0.05
"""Share of the elements that are measured one by one where others need not be."""


@overload
def numerical_gradient(
    f: Function, x: float, h: Any = ..., **_: Unpack[GradientOptions]
) -> np.float64: ...


@overload
def numerical_gradient(
    f: Function, x: NumberList, h: Any = ..., **_: Unpack[GradientOptions]
) -> Array: ...


@overload
def numerical_gradient(
    f: Function, x: Structure, h: Any = ..., **_: Unpack[GradientOptions]
) -> Structure: ...


@takes_conversions
def numerical_gradient(
    f: Callable[..., Any],
    x: Any,
    h: Any = 1e-4,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    engine: GradientEngineName = "auto",
    scheme: SchemeName | Scheme = "central",
    relative: bool = False,
    bounds: Any = None,
    vectorized: bool = False,
    elementwise: bool = False,
    workers: int | Map | None = None,
    progress: Progress = False,
    outside: Any = None,
) -> Any:
    """Return the gradient of f at x: for every element of x a central difference quotient.

    >>> numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, np.array([3.0, 4.0])).round(8)
    array([6., 8.])

    It is ``(f(x + h e_i) - f(x - h e_i)) / (2 h)``, the partial derivative up to a truncation error
    of ``h**2 / 6`` times the third derivative, and a round-off error of about ``eps / h`` times
    what f adds up: ``abs(f(x))``, or more where terms cancel, or where a loss is the logarithm of
    numbers near 1.

    Parameters
    ----------
    f : callable
        ``f(x) -> number``, or an array of one element. It is called with x itself, whose elements
        are moved in place one after the other; so f may ignore its argument and read the same
        array elsewhere, as in ``lambda W: self.loss(x, t)``.
    x : ndarray of float64, float32 or longdouble; or a dict, list or tuple of such
        Any shape and memory layout; writable. Bit-identical afterwards, whatever happens. f is
        given the structure as a whole. Numbers, and lists of them, become new arrays, which f is
        given. Tensors of PyTorch are moved in their own memory, that of the CPU; in single
        precision h is "auto" by default. So are other libraries' arrays that DLPack hands over, if
        they can be written to. A Series or DataFrame of pandas is made anew around each array. The
        gradient is of the same kind.
    h : number, array like x, structure like x, or "auto"
        The step, or one for each element. "auto" measures which step suits f and the scheme: where
        truncation and round-off are in balance. For each element that takes at most six calls of f
        more than the scheme itself where f is smooth, in the central scheme four; and some twenty
        more, or ten quotients, where it is noisy or varies over short distances. Where f is traced,
        one step is taken for all elements for which a larger one confirms it.
    args : tuple
        Further arguments: f is called as ``f(x, *args)``.
    kwargs : mapping, optional
        Further arguments of f by their names.
    engine : {"auto", "loop", "traced", "compiled"}
        How f is evaluated. "loop" serves any function and gives the book's numbers bit for bit.
        "traced" records the NumPy operations of f once and replays only what follows the place
        where x enters; its quotients are within the loop's own round-off of the loop's. "auto"
        takes "traced" where it can and where that is faster, otherwise "loop". "traced" serves all
        schemes but the complex step, with one step for all elements and no bounds. "compiled"
        serves functions compiled by numba, and "auto" takes it for all of them: the loop is
        compiled as well (once for each function) and runs on all threads, on copies of x, so that
        f must depend on its arguments alone. Ctrl-C waits for some 0.05 s, or the calls for one
        element.
    scheme : {"central", "forward", "backward", "complex"} or Scheme
        The points and weights; `fastgrad.schemes` makes others, as ``schemes.central(4)``. With a
        scheme of derivative 2, the result is the second derivative for each element of x. The
        complex step needs a function that computes with its argument, by analytic operations, and
        a tiny step, such as 1e-20 or "auto"; six calls of f compare it with real steps first.
    relative : bool
        Whether h is in units of ``abs(x[i])``; where x is 0, it is taken as it is.
    bounds : pair of numbers, arrays or structures like x
        f is never called with an element of x outside of (lower, upper): near a bound the step is
        smaller, or a one-sided scheme of the same accuracy is used. None is no bound; where both
        are equal, the derivative is 0. A pair (low, high) for each element of an x with one axis
        is taken, too; two pairs for two elements, which may be meant in two ways, are refused.
    vectorized : bool
        Whether f takes a stack of points, an array ``(m, *x.shape)``, and returns ``(m,)`` values.
        A stack takes 1 MiB at most, and x itself is never moved.
    elementwise : bool
        Whether f returns an array of x's shape, each element of which depends on the same one of x
        alone: then all are differentiated at once, by as many calls as the scheme has points, and
        two that see whether it is so. A step "auto" is the scheme's best one for functions that
        vary over distances of ``max(abs(x[i]), 1)``, not measured.
    workers : int or map-like, optional
        Who calls f where the loop would: so many processes of this machine (-1: one for each
        core), or ``workers(function, items)``, a parallel `map` such as those of executors, of
        multiprocessing pools and of `fastgrad.cluster.dask_map`. Each worker has a copy of f and x,
        in which f reads the copy that is moved. With any number, 1 included, the results have the
        same bits, because BLAS computes with one thread then. Processes stay for the next call, and
        end after half a minute without one. With engine="auto" a function that is compiled or
        traced needs no workers.
    progress : bool or callable
        True shows a bar while the loop runs; a callable is called as ``progress(done, total)``,
        with numbers of elements, about ten times a second.
    outside : exception class or tuple of such, optional
        What f raises where it is not defined: then it counts as nan there. Where a quotient is not
        finite, a one-sided one of the same accuracy takes its place, and the elements are named in
        a warning; an element that has none is refused. With h="auto" and a central scheme one-sided
        quotients take the place of others in any case, if there are any.

    Returns
    -------
    ndarray like x, or a structure of such
        Shape, dtype, layout and subclass of x, as `numpy.zeros_like` keeps them. Subclasses of
        dict and list become plain ones.

    Raises
    ------
    TypeError
        If f is not callable or returns no number, x is not an array of a floating-point dtype
        that can hold the step, or h is not a real number.
    ValueError
        If x is read-only or elements of it share memory, h is not positive and finite or is lost
        when it is added to an element of x, f writes into x or returns several numbers, the engine
        is unknown, or it is "traced" and f cannot be traced, the scheme is "complex" and f not
        analytic; if ``outside`` is given, and f is defined on neither side of an element.
    RuntimeError
        If a worker process is killed.
    ModuleNotFoundError
        If workers or a bar are asked for, and what they need is not installed.

    Warns
    -----
    RuntimeWarning
        If a quotient is nan or infinite; it is returned as it is. If the step is lost where the
        book's numbers are promised: by "loop" and "auto", in the central scheme with one step; then
        they are returned as they are, 0 or coarse. If h is "auto" and no step suits f at an
        element. If engine="auto" has to take the loop for a large x; the reason is named. If f
        turns out to be random, or not to depend on x or an array in it: of plain Python functions
        with engine="auto", without ``vectorized`` and workers; of subclasses of arrays the former
        alone. If f has another value in a worker than here, because it is random or reads x in a
        global of an imported module: it is left to this process then. If a traced or compiled
        gradient was found to be wrong: it says where, and what is returned are quotients of f's own
        values.

    Notes
    -----
    All elements of traced gradients, and of the first compiled ones of a function, are compared
    with a few calls of f itself, along random directions.

    The traced engine measures the loss at moved points as the loop does, but at fewer. Where that
    is not certain to give the loop's quotients, more points are measured, or the loop is used: near
    kinks, jumps and poles of every operation, near products of many factors that change by much,
    and wherever an operation is not known. With respect to a float32 x the loss is traced in double
    precision, at the points that x can hold: its quotients have the loop's rounding no more.

    Several threads may call this, and what else differentiates, at once. A call waits while another
    thread moves an array that f reads, or reads one that is to be moved here; what f reads is found
    by following its references. Other code that reads x meanwhile finds it moved, and what it
    writes into x is lost.

    References
    ----------
    K. Saito, *Deep Learning from Scratch*, O'Reilly Japan, 2016, section 4.4.

    Examples
    --------
    >>> numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0])).round(6)
    array([6., 8.])
    >>> numerical_gradient(lambda x: x["a"] * x["b"], {"a": np.array(3.0), "b": np.array(4.0)})
    {'a': array(4.), 'b': array(3.)}
    >>> numerical_gradient(lambda x: np.sqrt(x).sum(), np.ones(1), 1e-3, bounds=(1, 2)).round(6)
    array([0.5])
    >>> numerical_gradient(lambda s: (s**3).sum(axis=1), np.ones(2), vectorized=True).round(6)
    array([3., 3.])
    """
    x = users_array(x)
    f = with_keywords(f, kwargs)
    if outside is not None:
        shape = None if elementwise is True else ()
        f = domain.where_defined(
            f, outside, shape=shape, stacked=vectorized is True, elementwise=elementwise is True
        )
    with guarded(f, x, args) as guard:
        evaluator = choose_evaluator(
            f,
            x,
            engine,
            vectorized=vectorized,
            elementwise=elementwise,
            workers=workers,
            progress=progress,
            at_once=True,
        )
        parts = problems(
            f,
            x,
            h,
            args=args,
            scheme=scheme,
            relative=relative,
            bounds=bounds,
            as_in_the_book=evaluator.is_as_in_the_book,
        )
        evaluator.require_served(parts)
        evaluator.require_analytic(parts)
        with evaluator.shown(sum([part.x.size for part in parts])) as report:
            gradients = []
            for part in parts:
                gradients.append(_gradient(part, evaluator, report))
                if outside is not None or part.automatic:
                    _derive_from_one_side(part, gradients[-1], evaluator, outside)
                if len(parts) > 1:  # else the end of the block is near
                    guard.check()
                name = part.name, part.x.ndim
                warn_of_nonfinite(gradients[-1], "the difference quotient at {}", name)
    if not is_structure(x):
        return gradients[0]
    return like(x, iter(gradients))


def _gradient(problem: Problem, evaluator: Evaluator, report: Report | None) -> Array:
    """Return the gradient of one array: at once, if that serves, else from values of f."""
    f, x = problem.f, problem.x
    if not x.size:
        return np.zeros_like(x)
    if evaluator.is_elementwise:
        base = elementwise_calls.CheckedCalls(f, x).base.reshape(-1)
        return problem.gradient(evaluator.values(report), base)
    probes = evaluator.probes
    if problem.automatic:
        if probes and _is_measured_in_vain(problem):
            warn_caller(INDEPENDENCE_MESSAGE.format(problem.name))
            return np.zeros_like(x)
        result = _traced_by_two_steps(problem, evaluator, report)
        if result is not None:
            return result
        part = 1 / measured_steps.QUOTIENTS
        problem = measured_steps.measured(problem, evaluator.values(loop.in_parts(report, part)))
    result = evaluator.gradient_in_advance(problem)
    if result is not None:
        return result
    first = evaluator.first_calls(problem)
    result = evaluator.gradient_at_once(problem, first)
    if result is not None:
        return result
    values = evaluator.values(report)
    few = values is loop.values and problem.is_as_in_the_book and loop.are_few(x)
    if not probes:
        result = loop.gradient_of_few(f, x, problem.steps)[0] if few else problem.gradient(values)
        if evaluator.engine == "compiled" and problem.is_uniform:
            compiled.certify(problem, values, result)
        return result
    is_short = 2 * x.size < POINTS_PER_REPEAT  # then f is called again afterwards, if at all
    if few and (is_short or is_repeated(first, 2 * x.size)):
        result, found = loop.gradient_of_few(f, x, problem.steps)
        if is_short:
            look_again(values, f, x, at(x + problem.steps), found)
    else:
        result = problem.gradient(Repeating(values, evaluator.values(None), first))
    is_zero = not np.count_nonzero(result.view(np.ndarray))
    message = why_constant(f, x, problem.steps) if is_zero and problem.is_uniform else None
    if message is not None:
        warn_caller(message.format(problem.name))
    return result


def _derive_from_one_side(
    problem: Problem, gradient: Array, evaluator: Evaluator, outside: Any
) -> None:
    """Replace quotients that are not finite by one-sided ones, where these are."""
    plain = gradient.view(np.ndarray)
    if not np.isfinite(plain).all():
        flat, base = plain.reshape(-1), None
        if evaluator.is_elementwise:
            base = elementwise_calls.CheckedCalls(problem.f, problem.x).base.reshape(-1)
        values = evaluator.values(None)
        domain.derive_from_one_side(problem, flat, values, outside=outside, of_elements=base)
        plain[...] = flat.reshape(plain.shape)


def _traced_by_two_steps(
    problem: Problem, evaluator: Evaluator, report: Report | None
) -> Array | None:
    """Return central quotients of a recorded f at a step that a larger one confirms, if it can be.

    They differ by 63 times the truncation at the small step, if that falls as it should. Elements
    where that is too much, as at kinks, are measured one by one.
    """
    x = problem.x
    if not _may_take_two_steps(problem):
        return None
    quotients = []
    for h in TRACED_STEPS:
        uniform = problem.replaced(steps=h, automatic=False)
        first = evaluator.first_calls(uniform)
        result = evaluator.gradient_at_once(uniform, first)
        if first is None or result is None:
            return None
        quotients.append(result)
        rounding = np.finfo(np.float64).eps * abs(first.values[0]) / TRACED_STEPS[0]
    small, large = quotients
    allowed = measured_steps.SMOOTH_TRUNCATION * abs(small) + measured_steps.NOISE_FACTOR * rounding
    apart = np.flatnonzero(~(abs(large - small) <= allowed))
    if len(apart) > MAX_MEASURED_SHARE * x.size:
        return None
    if len(apart):
        values = evaluator.values(None if report is None else loop.in_parts(report, 1 / 3))
        known = measured_steps.measured(problem, values, places=apart).quotients
        assert known is not None
        small.reshape(-1)[apart] = known[apart]
    return small


def _may_take_two_steps(problem: Problem) -> bool:
    """Say whether two steps that are known may do, whatever f is."""
    x = problem.x
    is_usual = problem.scheme == central_quotient and problem.bounds is None
    is_large = x.dtype == np.float64 and x.size >= MIN_EXAMINED_ELEMENTS
    return is_usual and is_large and bool(np.abs(x).max() < MAX_TRACED_SIZE)


def _is_measured_in_vain(problem: Problem) -> bool:
    """Say whether there are many steps to measure, of elements on which f does not depend."""
    many = problem.x.size >= MIN_EXAMINED_ELEMENTS
    moves_freely = problem.bounds is None and not problem.scheme.is_complex
    return many and moves_freely and is_independent(problem.f, problem.x, BOOK_STEP)


@takes_conversions
def explain(
    f: Callable[..., Any], x: Array, h: float = 1e-4, *, args: tuple[Any, ...] = ()
) -> None:
    """Print how ``numerical_gradient(f, x, h)`` would be evaluated, and about how long it takes.

    The place where x enters f, what is replayed how often, and the expected seconds, those of calls
    of f included, beside the loop's; or the reason why the loop is used. To tell the seconds, it is
    replayed, for two of them at most.

    Parameters
    ----------
    f, x, h, args
        As `numerical_gradient` takes them; f is called a few times.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`.

    Examples
    --------
    >>> explain(lambda x: (x**2).sum(), np.arange(3.0))
    The loop: 6 calls of f.
    Not traced, because x has too few elements for recording f to pay.
    """
    x = users_array(x)
    with guarded(f, x, args):
        evaluator = choose_evaluator(f, x, at_once=True)
        book, texts = evaluator.is_as_in_the_book, []
        for problem in problems(f, x, h, args=args, as_in_the_book=book):
            text = ""
            if problem.automatic and _may_take_two_steps(problem):
                text = evaluator.explain(problem.replaced(steps=TRACED_STEPS[0], automatic=False))
            if text.startswith("Traced"):
                text += "\nThat is done for two steps, of which one confirms the other."
            else:
                text = evaluator.explain(problem)
            texts.append(text)
    Explanation("\n".join(texts)).show()


class DerivativeFunction:
    """A derivative of f as a function of x; of which one, the class that inherits tells.

    Attributes
    ----------
    f, h, args, options
        As the object was made.
    argnum : int
        Which of f's arguments is moved.
    """

    computed_by: Callable[..., Any]

    def __init__(
        self,
        f: Callable[..., Any],
        h: Any = "auto",
        *,
        args: tuple[Any, ...] = (),
        argnum: int = 0,
        **options: Any,
    ) -> None:
        require_function(f)
        if not isinstance(argnum, int) or argnum < 0:
            raise ValueError(
                f"argnum is {argnum!r}, but it is the number of the argument that is moved, "
                "counted from 0; pass 0 for the first"
            )
        signature(type(self).computed_by).bind(f, None, h, args=args, **options)
        self.f, self.h, self.args, self.argnum, self.options = f, h, args, argnum, options

    def __call__(self, x: Any, /, *args: Any) -> Any:
        """Return the derivative at x, or at the argument that is moved; as it was, afterwards.

        Parameters
        ----------
        x, *args
            The arguments of f. Without any behind the one that is moved, those given to the object
            are used.

        Raises
        ------
        TypeError, ValueError
            As from the function that computes it.
        """
        f, x, args = self.at((x, *args))
        return type(self).computed_by(f, x, self.h, args=args, **self.options)

    def at(self, arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], Any, tuple[Any, ...]]:
        """Return a function whose first argument is moved, x that can be moved, and the others."""
        if len(arguments) <= self.argnum:
            raise TypeError(
                f"argnum is {self.argnum}, but there are {len(arguments)} arguments, counted from "
                "0; pass the one that is moved, too"
            )
        if len(arguments) == self.argnum + 1:
            arguments += self.args
        others = arguments[: self.argnum] + arguments[self.argnum + 1 :]
        f = partial(_with_first_at, self.argnum, self.f) if self.argnum else self.f
        return f, movable(arguments[self.argnum]), others

    def __repr__(self) -> str:
        """Return how it was made."""
        options = {"h": self.h, "args": self.args, **self.options}
        if self.argnum:
            options["argnum"] = self.argnum
        given = ", ".join([repr(self.f), *(f"{name}={value!r}" for name, value in options.items())])
        return f"{type(self).__name__}({given})"


def _with_first_at(place: int, f: Callable[..., Any], x: Any, *others: Any) -> Any:
    """Call f with x in another place among its arguments."""
    return f(*others[:place], x, *others[place:])


class Gradient(DerivativeFunction):
    """The gradient of f as a function of x: ``Gradient(f)(x)``.

    It computes what `numerical_gradient` does, and takes what that takes, lists of numbers,
    integers, and arrays that are read-only. It can be pickled if f can.

    Parameters
    ----------
    f : callable
        ``f(x, *args) -> number``. Of an x that cannot be moved in place it is given a copy.
    h : float, array or "auto"
        The step; by default the one that suits f, not the book's.
    args : tuple
        Further arguments of f, where the object is called without any.
    argnum : int
        Which of f's arguments is moved: 1 for x in ``f(t, x)``.
    **options
        All others of `numerical_gradient`: engine, scheme and so on.

    Raises
    ------
    TypeError
        If f is not callable, or `numerical_gradient` has no such option. All else is checked when
        the object is called.

    Examples
    --------
    As `scipy.optimize.minimize(f, start, jac=gradient)` would call it:

    >>> gradient = Gradient(lambda x, a: a * (x**2).sum())
    >>> gradient([3, 4], 2.0).round(6)
    array([12., 16.])

    Or ``minimize(gradient.with_value, start, jac=True)``:

    >>> value, slopes = gradient.with_value([3, 4], 2.0)
    >>> float(value)
    50.0
    """

    computed_by = numerical_gradient

    @overload
    def __call__(self, x: ArrayLike | float, /, *args: Any) -> Array: ...

    @overload
    def __call__(self, x: Structure, /, *args: Any) -> Structure: ...

    def __call__(self, x: Any, /, *args: Any) -> Any:
        """Return the gradient, an array like x; a structure if x is one of arrays."""
        return super().__call__(x, *args)

    @overload
    def with_value(self, x: ArrayLike | float, /, *args: Any) -> tuple[Any, Array]: ...

    @overload
    def with_value(self, x: Structure, /, *args: Any) -> tuple[Any, Structure]: ...

    def with_value(self, x: Any, /, *args: Any) -> tuple[Any, Any]:
        """Return f at x, and the gradient; f(x) is computed once.

        Parameters
        ----------
        x, *args
            The arguments of f, as for a call.
        """
        f, x, args = self.at((x, *args))
        value = f(x, *args)
        scheme = as_scheme(self.options.get("scheme", "central"))
        if scheme.offsets[-1] == 0 and isinstance(x, np.ndarray):
            f = KnownAtPoint(f, x, value)
        return value, numerical_gradient(f, x, self.h, args=args, **self.options)


class KnownAtPoint:
    """A function whose value at one point is known, and not computed again."""

    def __init__(self, f: Callable[..., Any], x: Array, value: Any) -> None:
        self.f, self.point, self.value = f, x.tobytes(), value

    def __call__(self, x: Array, *args: Any) -> Any:
        """Return f at x."""
        return self.value if x.tobytes() == self.point else self.f(x, *args)
