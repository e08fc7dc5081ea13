"""The choice of an engine, and of workers and progress, for everything that differentiates.

Some calls of f beforehand tell what the loop would not say: a layer that holds another array than
the one that is moved gives a gradient of zeros, and an f that is random one of noise.
"""

import reprlib
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from fastgrad.differences.arguments import is_structure, require_flag, warn_caller
from fastgrad.differences.guard import Original
from fastgrad.differences.problem import Problem
from fastgrad.engines import joint_gradients, loop
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.lazy import LazyModule
from fastgrad.schemes import Scheme
from fastgrad.tracing import first_calls
from fastgrad.tracing.first_calls import CHEAP_CALLS, DIFFERENT_RESULTS, FirstCalls
from fastgrad.typing import (
    Array,
    EngineName,
    GradientEngine,
    GradientEngineName,
    Map,
    Moves,
    Progress,
    Report,
    SchemeName,
    Values,
)

if TYPE_CHECKING:
    from fastgrad.differences import analytic
    from fastgrad.engines import compiled, traced
    from fastgrad.engines import elementwise as elementwise_calls
    from fastgrad.engines import workers as worker_pools
    from fastgrad.jit import jitted
    from fastgrad.tracing import trace
else:  # many files
    analytic = LazyModule("fastgrad.differences.analytic")
    jitted = LazyModule("fastgrad.jit.jitted")
    compiled = LazyModule("fastgrad.engines.compiled")
    elementwise_calls = LazyModule("fastgrad.engines.elementwise")
    worker_pools = LazyModule("fastgrad.engines.workers")
    traced = LazyModule("fastgrad.engines.traced")
    trace = LazyModule("fastgrad.tracing.trace")

ENGINES: dict[str, Values] = {
    "loop": loop.values,
    "compiled": lambda f, x, moves: compiled.values(f, x, moves),
}
"""Name -> how f is evaluated where elements of x are moved, for any scheme."""

GRADIENT_ENGINES: dict[str, GradientEngine] = {
    "traced": lambda f, x, h, scheme: traced.gradient(f, x, h, scheme)
}
"""Name -> what gives a gradient at once, without f at each moved point."""

MIN_TRACED_ELEMENTS = 8
"""Elements of x from which recording may pay: with fewer, the loop calls f about as often."""

MIN_ANNOUNCED_ELEMENTS = 5_000
"""Elements of x from which the user is told that the loop is used, and why."""

INDEPENDENCE_MESSAGE = (
    "f does not depend on {}: its value stays the same to the last bit, however that is moved, and "
    "the gradient is 0. Does a layer hold another array, as after params[key] = params[key] - m? "
    "Write params[key] -= m, or let f read its argument"
)

KEPT_MESSAGE = (
    "f keeps {} itself, and does not see it move: moved in place, it leaves f as it is, and a copy "
    "moved by as much does not, so that the gradient of 0 is wrong. Let f keep a copy, as in "
    "self.last = x.copy()"
)

RANDOMNESS_MESSAGE = (
    "f is random, or changes with each call: it is {} and {} at one point, so that its difference "
    "quotients are noise; draw what is random outside of f, or seed it inside"
)

MAX_REPEAT_EPS = 256
"""How many eps apart, relative to their size, two values may be that are taken for the same: sums
may be added up in another order."""

MAX_REPEATS = 4
"""How often f is called again at a point."""

POINTS_PER_REPEAT = 16
"""Points from which f is called twice at one point beforehand, and once more for so many more;
with fewer it is called again only if its values differ by much."""

MIN_RANDOM_DIFFERENCE = 1e-3
"""Differences of values, relative to the largest, by which f may be random."""

NEAR_MOVE_STEPS = (1, 8, 64)
"""How far all of x is moved at once, up and down at random, in steps."""

MIN_MOVE_ULPS = 8
"""By how many units in its last place an element is moved at least: a step may be lost."""

FAR_MOVE_SCALES = (1.0, 1e3)
"""How far x is moved where f has not changed, in units of the largest element, or of 1."""


class Options(TypedDict, total=False):
    """Options that all derivatives take."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] | None
    vectorized: bool
    workers: int | Map | None
    progress: Progress
    outside: Any


class GradientOptions(Options, total=False):
    """The options of gradients."""

    engine: GradientEngineName
    scheme: SchemeName | Scheme
    relative: bool
    bounds: Any
    elementwise: bool


class ProductOptions(Options, total=False):
    """The options of products with vectors."""

    engine: EngineName


class MatrixOptions(ProductOptions, total=False):
    """The options of Jacobians and Hessians, all but the sparsity."""

    scheme: SchemeName | Scheme
    relative: bool
    bounds: Any


class DifferentiateOptions(MatrixOptions, total=False):
    """The options of `fastgrad.differentiate`."""

    tolerance: float | None
    order: int
    diagonal: bool
    elementwise: bool


class Evaluator:
    """How derivatives are evaluated, and who is told how far that has come.

    Attributes
    ----------
    asked : str
        The engine that the user has asked for.
    engine : str
        The engine that evaluates f at moved points.
    progress : bool or callable
        Who is to be told.
    """

    def __init__(
        self,
        asked: str,
        engine: str,
        values: Values,
        progress: Progress,
        workers: "worker_pools.WorkerPool | None",
    ) -> None:
        self.asked, self.engine, self.progress = asked, engine, progress
        self._values, self._workers = values, workers

    def values(self, report: Report | None) -> Values:
        """Return how f is evaluated, and report told how many elements are; None is not told."""
        if self._workers is not None:
            return self._workers.values(report)
        return self._values if report is None else loop.reporting(self._values, report)

    @property
    def stacked(self) -> bool:
        """Whether f takes a stack of points."""
        return self.engine == "vectorized"

    @property
    def is_elementwise(self) -> bool:
        """Whether f is evaluated at all elements of x at once."""
        return self.engine == "elementwise"

    @property
    def has_workers(self) -> bool:
        """Whether workers share the loop's calls."""
        return self._workers is not None

    @property
    def is_as_in_the_book(self) -> bool:
        """Whether the book's numbers are promised, for its scheme and steps."""
        return self.asked in ("auto", "loop") and not (self.stacked or self.is_elementwise)

    @property
    def probes(self) -> bool:
        """Whether f is called some times more, to see if it is random, or independent of x."""
        return self.asked == "auto" and self.engine == "loop" and not self.has_workers

    def shown(self, total: int) -> AbstractContextManager[Report | None]:
        """Give a block what elements are reported to, so many in all; None if nobody is told."""
        return nullcontext() if self.progress is False else loop.shown(self.progress, total)

    def require_served(self, problems: list[Problem]) -> None:
        """Refuse what an engine that gives gradients at once does not serve, if asked for one."""
        if self.asked in GRADIENT_ENGINES and not all(each.is_uniform for each in problems):
            raise ValueError(
                f"engine is {self.asked!r}, which serves real schemes with one step for all "
                "elements, and no bounds; pass engine='auto' or engine='loop' for others"
            )

    def require_analytic(self, problems: list[Problem], scheme: Scheme | None = None) -> int:
        """Refuse an f that complex steps do not serve, if some are taken; count its calls.

        ``scheme`` is what gives first derivatives, where it is not that of the problems.
        """
        asked = [each for each in problems if (scheme or each.scheme).is_complex]
        return analytic.require_analytic(asked, stacked=self.stacked) if asked else 0

    def gradient_in_advance(self, problem: Problem) -> Array | None:
        """Return the gradient if it has been computed together with another one."""
        if self.asked not in GRADIENT_ENGINES and self._why_not_tried(problem):
            return None
        return joint_gradients.computed_in_advance(
            problem.f, problem.x, problem.steps, problem.scheme
        )

    def first_calls(self, problem: Problem) -> FirstCalls | None:
        """Return calls of f at x itself, if it depends on them whether f is traced."""
        if self._why_not_tried(problem):
            return None
        return FirstCalls(problem.f, problem.x, once=True)

    def gradient_at_once(self, problem: Problem, first: FirstCalls | None) -> Array | None:
        """Return the gradient by an engine that needs no values at moved points, if one serves.

        Parameters
        ----------
        problem : Problem
        first : FirstCalls, optional
            What `first_calls` has returned.

        Returns
        -------
        array like x, or None
            None if f is to be evaluated at moved points. If x does not enter f, that is said, and
            the quotients are 0.

        Raises
        ------
        ValueError
            If the engine was asked for, and cannot serve f.
        """
        f, x, h, scheme = problem.f, problem.x, problem.steps, problem.scheme
        if self.asked in GRADIENT_ENGINES:
            return GRADIENT_ENGINES[self.asked](f, x, h, scheme)
        if first is None:
            return None
        if not joint_gradients.is_asked_for_several(f):  # the recorded call is the second one
            first.confirm()
        reason = _why_not_recorded(problem, first)
        if not reason:
            result, reason = traced.gradient_if_faster(f, x, h, scheme, first)
            if result is not None:
                return result
            if reason == traced.UNUSED and is_independent(f, x, h):
                warn_caller(INDEPENDENCE_MESSAGE.format(problem.name))
                return np.zeros_like(x)
        first.confirm()
        if x.size >= MIN_ANNOUNCED_ELEMENTS and reason not in ("", CHEAP_CALLS, DIFFERENT_RESULTS):
            warn_caller(  # of an f whose calls differ, the loop tells
                f"f is called {_calls(problem):,} times, because it cannot be traced: "
                f"{reason}; fastgrad.explain(f, x) tells more, engine='loop' silences this"
            )
        return None

    def explain(self, problem: Problem) -> str:
        """Say how the central quotients of a function would be evaluated, and at what cost."""
        f, x, h = problem.f, problem.x, problem.steps
        calls = _calls(problem)
        by_loop = f"The loop: {'at least ' if problem.automatic else ''}{calls:,} calls of f"
        if self.engine == "compiled":
            reason = compiled.why_not_compilable(f, x)
            if reason:
                return f"{by_loop}.\nNot compiled, because {reason}."
            return f"Compiled: {calls:,} calls of f in a compiled loop."
        reason = self._why_not_tried(problem)
        if not reason:
            first = FirstCalls(f, x)
            reason = _why_not_recorded(problem, first)
        if not reason:
            text, reason = traced.explain(f, x, h, calls, first)
            if text:
                return text
            if reason == traced.UNUSED and is_independent(f, x, h):
                return f"No engine is needed: {INDEPENDENCE_MESSAGE.format(problem.name)}."
        return f"{by_loop}.\nNot traced, because {reason}."

    def _why_not_tried(self, problem: Problem) -> str:
        """Say why f is not traced, whatever it is; "" if that depends on f."""
        if self.asked != "auto" or self.engine != "loop":
            return "another engine is asked for"
        if problem.x.size < MIN_TRACED_ELEMENTS:
            return "x has too few elements for recording f to pay"
        if problem.is_lost:
            return "the step is lost when it is added to some elements of x"
        if not problem.is_uniform:
            return "not all elements of x are moved by one step"
        return ""


class Explanation(str):
    """How a gradient would be evaluated: a text."""

    def show(self) -> None:
        """Display it in a notebook, print it elsewhere."""
        ipython = sys.modules.get("IPython")
        if ipython is not None and hasattr(ipython.get_ipython(), "kernel"):
            ipython.display.display(self)
        else:
            print(self)

    def _repr_html_(self) -> str:
        """Return the sentences as a paragraph, and a list of what is replayed."""
        from html import escape  # which only notebooks need

        first, *items = (escape(part).replace("\n", "<br>") for part in self.split("\n- "))
        listed = "".join(f"<li>{item}</li>" for item in items)
        return f"<p>{first}</p>" + (f"<ul>{listed}</ul>" if listed else "")


def choose_evaluator(
    f: Callable[..., Any] | None,
    x: Any,
    engine: str = "auto",
    *,
    vectorized: bool = False,
    elementwise: bool = False,
    workers: int | Map | None = None,
    progress: Progress = False,
    at_once: bool = False,
) -> Evaluator:
    """Choose how f is evaluated: the rule for all that differentiates.

    With engine="auto" it is the best way that serves f. Workers evaluate what is otherwise the
    loop's, and start when they are first worth it; other engines use the threads of this process.

    Parameters
    ----------
    f, x, engine, vectorized, elementwise, workers, progress
        As `fastgrad.numerical_gradient` takes them. f is None where the caller evaluates a function
        of its own.
    at_once : bool
        Whether the caller takes gradients that an engine gives at once.

    Raises
    ------
    TypeError, ValueError
        If an option is not usable, or not with the others; nothing has been called by then.
    ModuleNotFoundError
        If a bar is asked for, and what draws it is not installed.
    """
    require_flag("vectorized", vectorized)
    if not isinstance(engine, str):
        raise TypeError(f"engine is {reprlib.repr(engine)}; pass the name of one, such as 'auto'")
    if engine in GRADIENT_ENGINES and not at_once:
        raise ValueError(
            f"engine is {engine!r}, which serves numerical_gradient alone; pass engine='auto'"
        )
    if vectorized and (engine != "auto" or is_structure(x)):
        raise ValueError(
            "vectorized is True, which asks for one array x and engine='auto': f takes a stack "
            "of points; leave out vectorized"
        )
    require_flag("elementwise", elementwise)
    if elementwise and (engine != "auto" or vectorized or workers is not None or is_structure(x)):
        raise ValueError(
            "elementwise is True, which asks for one array x and engine='auto', without vectorized "
            "and workers: f is evaluated at all elements of x at once; leave out the others"
        )
    if workers is not None and (vectorized or engine not in ("auto", "loop")):
        raise ValueError(
            f"engine is {'vectorized' if vectorized else engine!r}, but workers share the loop's "
            "calls of f; leave out workers, or pass engine='loop'"
        )
    is_jitted = "numba" in sys.modules and jitted.is_jitted(f)
    if is_jitted:
        compiled.require_no_dict(x)
    if progress is not False:
        loop.require_progress(progress)
    values: Values
    if vectorized:
        name, values = "vectorized", loop.stacked_values
    elif elementwise:
        name, values = "elementwise", elementwise_calls.values
    elif engine == "auto" or engine in GRADIENT_ENGINES:
        name, values = ("compiled", compiled.values_or_loop) if is_jitted else ("loop", loop.values)
    elif engine in ENGINES:
        name, values = engine, ENGINES[engine]
    else:
        names = ", ".join(repr(name) for name in ["auto", *GRADIENT_ENGINES, *ENGINES])
        raise ValueError(f"engine is {engine!r}, which does not exist; pass one of {names}")
    pool = None
    if workers is not None:
        pool = worker_pools.WorkerPool(workers)
    return Evaluator(engine, name, values, progress, pool if name == "loop" else None)


def _why_not_recorded(problem: Problem, first: FirstCalls) -> str:
    """Say why f is not recorded, as its first calls show; "" if it is."""
    if first.refusal or joint_gradients.is_at_kept_point():  # else it is left to chance
        return first.refusal
    # What records is not loaded for an f whose calls are cheap.
    return CHEAP_CALLS if first.are_cheap(_calls(problem), first_calls.MIN_TRACING_SECONDS) else ""


def _calls(problem: Problem) -> int:
    """Return how often the loop would call f."""
    return problem.x.size * len(problem.scheme.outer)


# Whether f depends on x, or is random -------------------------------------------------------------


class Repeating:
    """A way of evaluating f that at first calls it again at one point, and warns if it is random.

    Parameters
    ----------
    values : callable
        The way of evaluating f.
    again : callable
        The same, of which nobody is told how far it has come.
    first : FirstCalls, optional
        Calls of f at x itself, if there have been any: then that is the point.
    """

    def __init__(self, values: Values, again: Values, first: FirstCalls | None = None) -> None:
        self._values, self._again, self._first = values, again, first
        self._has_looked = False

    def __call__(self, f: Callable[[Any], Any], x: Array, moves: Moves) -> Array:
        """Evaluate f as `Values` says."""
        number = moves.points.size
        if self._has_looked:
            return self._values(f, x, moves)
        self._has_looked = True
        if number >= POINTS_PER_REPEAT:  # before the many calls
            if not is_repeated(self._first, number):  # it cannot be called at x itself
                calls = 1 + min(MAX_REPEATS, number // POINTS_PER_REPEAT)
                _warn_if_random([_at_first(self._again, f, x, moves) for _ in range(calls)])
            return self._values(f, x, moves)
        found = self._values(f, x, moves)
        if number and found.dtype.kind != "c":
            look_again(self._again, f, x, moves, found.reshape(-1).tolist())
        return found


def is_repeated(first: FirstCalls | None, points: int) -> bool:
    """Call f at x itself as often as suits so many points, and warn if it is random.

    Say whether that is done: it is not where f cannot be called there, nor for few points, after
    which `look_again` looks.
    """
    repeats = min(MAX_REPEATS, points // POINTS_PER_REPEAT)
    if first is None or not repeats:
        return False
    first.make(1 + repeats - len(first.values))
    if len(first.values) < 2:
        return False
    _warn_if_random(first.values)
    return True


def look_again(
    again: Values, f: Callable[[Any], Any], x: Array, moves: Moves, found: list[Any]
) -> None:
    """Call f again at the first of a few points if what was found differs by much; warn if random.

    Parameters
    ----------
    again : callable
        The way of evaluating f.
    f, x, moves
        As `Values` takes them; the first point is enough.
    found : list of numbers
        f at all points, in their order.
    """
    lowest, highest = min(found), max(found)
    if highest - lowest <= MIN_RANDOM_DIFFERENCE * max(highest, -lowest):
        return  # as mostly; comparisons with nan are false
    if _differ(np.array(found), MIN_RANDOM_DIFFERENCE):
        _warn_if_random([found[0], _at_first(again, f, x, moves)])


def _at_first(values: Values, f: Callable[[Any], Any], x: Array, moves: Moves) -> Any:
    """Return f at the first point."""
    return values(f, x, Moves(moves.places[:1], moves.points[:1, :1]))[0, 0]


def _warn_if_random(values: list[Any]) -> None:
    """Warn if values at one point differ by more than rounding."""
    if values.count(values[0]) == len(values):
        return
    if _differ(np.array(values), MAX_REPEAT_EPS * float(np.finfo(np.float64).eps)):
        other = next(value for value in values if value != values[0])
        warn_caller(RANDOMNESS_MESSAGE.format(values[0], other))


def _differ(values: Array, part: float) -> bool:
    """Say whether finite values differ by more than a part of the largest."""
    if values.dtype.kind == "c":
        return False
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    if not numbers.size or not np.isfinite(numbers).all():
        return False
    return bool(np.ptp(numbers) > part * np.abs(numbers).max())


def is_independent(f: Callable[[Any], Any], x: Array, h: float) -> bool:
    """Say whether f does not depend on x, as far as a few calls can tell."""
    return why_constant(f, x, h) == INDEPENDENCE_MESSAGE


def why_constant(f: Callable[[Any], Any], x: Array, h: float) -> str | None:
    """Return what to tell of an f that stays the same where x is moved, as far as calls can tell.

    First all of x is moved together, by some steps, up and down at random: that most functions do
    not stand. Those that do, as nets of dead units, are recorded, which takes milliseconds. Only
    where no operation of f is given x, it is moved far away, and replaced by nan, which would spoil
    what f keeps of it. Of an f or x that cannot be recorded nothing is said. A function that
    computes anew only where its argument is not the last one sees a copy move, but not x itself, if
    it has kept that instead of a copy.
    """
    original = Original(x)
    random = np.random.default_rng(0)
    size = max(1.0, float(np.max(np.abs(original.copy), initial=0.0)))

    def same_at(point: Array) -> bool:
        original.plain[...] = point
        return _bits(f(x)) == bits

    try:
        with np.errstate(all="ignore"):
            bits = _bits(f(x))
            least = MIN_MOVE_ULPS * np.spacing(np.abs(original.copy))
            for steps in NEAR_MOVE_STEPS:
                moves = np.maximum(steps * h, least) * random.choice([-1.0, 1.0], x.shape)
                if not (same_at(original.copy + moves) and same_at(original.copy - moves)):
                    return None
            original.put_back()
            seen = _bits(f(original.copy + moves))
            if seen != bits:
                is_steady = _bits(f(original.copy + moves)) == seen
                f(x)  # f may keep what it was given last
                return KEPT_MESSAGE if is_steady else None
            if trace.is_used(f, x, h):
                return None
            far = [size * scale * random.normal(size=x.shape) for scale in FAR_MOVE_SCALES]
            same = all(map(same_at, [*far, np.full(x.shape, np.nan), original.copy]))
            return INDEPENDENCE_MESSAGE if same else None
    except Exception as error:  # f cannot be called there, which depends on x
        raise_interrupt(error)
        return None
    finally:
        original.put_back()


def _bits(value: Any) -> bytes:
    """Return what tells values of f apart."""
    number = np.asarray(value, np.float64)
    if number.size != 1:
        raise ValueError
    return number.tobytes()
