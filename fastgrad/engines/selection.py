"""The choice of an engine, and of workers and progress, for everything that differentiates."""

import reprlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.differences.arguments import is_structure, require_flag, warn_caller
from fastgrad.differences.problem import Problem
from fastgrad.engines import joint_gradients, loop
from fastgrad.engines.dependence import INDEPENDENCE_MESSAGE, is_independent
from fastgrad.lazy import LazyModule
from fastgrad.tracing import first_calls
from fastgrad.tracing.first_calls import CHEAP_CALLS, DIFFERENT_RESULTS, FirstCalls
from fastgrad.typing import Array, GradientEngine, Map, Progress, Report, Values

if TYPE_CHECKING:
    from fastgrad.engines import compiled, traced
    from fastgrad.engines import progress as progress_of
    from fastgrad.engines import workers as worker_pools
    from fastgrad.jit import jitted
else:  # many files
    jitted = LazyModule("fastgrad.jit.jitted")
    progress_of = LazyModule("fastgrad.engines.progress")
    compiled = LazyModule("fastgrad.engines.compiled")
    worker_pools = LazyModule("fastgrad.engines.workers")
    traced = LazyModule("fastgrad.engines.traced")


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
        return self._values if report is None else progress_of.reporting(self._values, report)

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
        return nullcontext() if self.progress is False else progress_of.shown(self.progress, total)

    def require_served(self, problems: list[Problem]) -> None:
        """Refuse what an engine that gives gradients at once does not serve, if asked for one."""
        if self.asked in GRADIENT_ENGINES and not all(each.is_uniform for each in problems):
            raise ValueError(
                f"engine is {self.asked!r}, which serves real schemes with one step for all "
                "elements, and no bounds; pass engine='auto' or engine='loop' for others"
            )

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
        progress_of.require_progress(progress)
    values: Values
    if vectorized:
        name, values = "vectorized", loop.stacked_values
    elif elementwise:
        name, values = "elementwise", loop.elementwise_values
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
