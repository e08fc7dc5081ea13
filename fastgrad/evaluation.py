"""How is f evaluated at moved points? The engine is chosen here, for all that differentiates."""

from collections.abc import Callable
from typing import Any

from fastgrad.differences import Values
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
