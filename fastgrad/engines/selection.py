"""The choice of an engine, and of workers and progress, for everything that differentiates."""

import reprlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from fastgrad.differences.trees import is_structure
from fastgrad.differences.validation import require_flag
from fastgrad.engines import compiled, loop
from fastgrad.engines import progress as progress_of
from fastgrad.engines import vectorized as stacks
from fastgrad.engines.compilation import is_jitted
from fastgrad.typing import Map, Progress, Report, Values

ENGINES: dict[str, Values] = {"loop": loop.values, "compiled": compiled.values}
"""Name -> how f is evaluated where elements of x are moved, for any scheme."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A way of evaluating f, and of telling how far it has come.

    Attributes
    ----------
    engine : str
        Its name.
    values : callable
        ``values(report)`` is a `Values`, which tells report how many elements it has evaluated;
        without report it is silent.
    progress : bool or callable
        Who is to be told.
    """

    engine: str
    values: Callable[[Report | None], Values]
    progress: Progress

    @property
    def stacked(self) -> bool:
        """Whether f takes a stack of points."""
        return self.engine == "vectorized"

    def shown(self, total: int) -> AbstractContextManager[Report | None]:
        """Give a block what elements are reported to, so many in all; None if nobody is told."""
        silent = self.progress is False
        return nullcontext() if silent else progress_of.shown(self.progress, total)


def evaluation(
    f: Callable[..., Any] | None,
    x: Any,
    engine: str,
    *,
    vectorized: bool,
    workers: int | Map | None,
    progress: Progress,
    traces: bool = False,
) -> AbstractContextManager[Evaluation]:
    """Choose how f is evaluated during a block: the rule for all that differentiates.

    With engine="auto" it is the best way that serves f. Workers evaluate what is otherwise the
    loop's; other engines use the threads of this process. They start when they are first worth it,
    once for the block, and have ended when it has.

    Parameters
    ----------
    f, x, engine, vectorized, workers, progress
        As `fastgrad.numerical_gradient` takes them. f is None where the block evaluates a function
        of its own.
    traces : bool
        Whether the block can do without evaluations where f is traced.

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
    if engine == "traced" and not traces:
        raise ValueError(
            "engine is 'traced', which serves numerical_gradient alone; pass engine='auto'"
        )
    jitted = is_jitted(f)
    name, values = _chosen(engine, jitted)
    if vectorized:
        if engine != "auto" or is_structure(x):
            raise ValueError(
                "vectorized is True, which asks for one array x and engine='auto': f takes a stack "
                "of points; leave out vectorized"
            )
        name, values = "vectorized", stacks.values
    if workers is not None and (vectorized or engine not in ("auto", "loop")):
        raise ValueError(
            f"engine is {'vectorized' if vectorized else engine!r}, but workers share the loop's "
            "calls of f; leave out workers, or pass engine='loop'"
        )
    if jitted:
        compiled.require_no_dict(x)
    progress_of.require_progress(progress)

    def reported(report: Report | None) -> Values:
        return values if report is None else progress_of.reporting(values, report)

    if workers is None:
        return nullcontext(Evaluation(name, reported, progress))
    return _by_workers(workers, Evaluation(name, reported, progress))


@contextmanager
def _by_workers(workers: int | Map, way: Evaluation) -> Iterator[Evaluation]:
    """Let workers evaluate what is otherwise the loop's during the block."""
    from fastgrad.engines.workers.scheduler import WorkerPool

    with WorkerPool(workers) as pool:
        yield replace(way, values=pool.values) if way.engine == "loop" else way


def _chosen(engine: str, jitted: bool) -> tuple[str, Values]:
    """Return the name of the engine that is asked for, and its way of evaluating f."""
    if engine in ("auto", "traced"):
        return ("compiled", compiled.values_if_served) if jitted else ("loop", loop.values)
    if engine not in ENGINES:
        names = ", ".join(repr(name) for name in ["auto", "traced", *ENGINES])
        raise ValueError(f"engine is {engine!r}, which does not exist; pass one of {names}")
    return engine, ENGINES[engine]
