"""How is f evaluated at moved points? The engine is chosen here, for all that differentiates."""

from collections.abc import Callable
from typing import Any

from fastgrad.differences import Map, Report, Values
from fastgrad.engines import compiled, loop
from fastgrad.engines.compilation import is_jitted

ENGINES: dict[str, Values] = {"loop": loop.values, "compiled": compiled.values}
"""Name -> how f is evaluated where elements of x are moved, for any scheme."""


def choose(f: Callable[..., Any], engine: str) -> Values:
    """Return the way of evaluating f that is asked for; with "auto" the best one that serves it.

    Raises
    ------
    ValueError
        If there is no such engine.
    """
    if engine == "auto":
        return compiled.values_if_served if is_jitted(f) else loop.values
    if engine not in ENGINES:
        names = ", ".join(repr(name) for name in ["auto", "traced", *ENGINES])
        raise ValueError(f"engine is {engine!r}, which does not exist; pass one of {names}")
    return ENGINES[engine]


def spread(values: Values, workers: int | Map | None, report: Report | None) -> Values:
    """Return the same way of evaluating f, but by workers, and reported.

    Workers evaluate what is otherwise the loop's; other engines use the threads of this process.

    Raises
    ------
    TypeError, ValueError
        If workers are no number and no map.
    """
    if workers is not None:
        from fastgrad.engines.workers import over

        by_workers = over(workers, report)
        if values is loop.values:
            return by_workers
    if report is not None:
        from fastgrad.progress import reporting

        return reporting(values, report)
    return values
