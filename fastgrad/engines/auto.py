"""Which engine serves a function best? The traced one where it can, the loop elsewhere."""

import warnings
from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from fastgrad.engines import loop
from fastgrad.tracing.recorder import NotTraceable, TooCheap

Array = NDArray[Any]

SMALLEST = 50
"""Elements of x from which recording may pay: it takes about ten calls of f."""

LARGE = 5_000
"""Elements of x from which the user is told that the loop is used, and why."""


def gradient(f: Callable[[Any], Any], x: Array, h: float) -> Array:
    """Return the difference quotients by the fastest engine that serves f and x."""
    if x.size < SMALLEST:
        return loop.gradient(f, x, h)
    from fastgrad.engines import traced

    try:
        return traced.traced_gradient(f, x, h, if_faster=True)
    except TooCheap:
        return loop.gradient(f, x, h)
    except NotTraceable as refusal:
        if x.size >= LARGE:
            warnings.warn(
                f"f is called {2 * x.size:,} times, because it cannot be traced: {refusal}; "
                "fastgrad.explain(f, x) tells more, engine='loop' silences this",
                RuntimeWarning,
                stacklevel=3,
            )
        return loop.gradient(f, x, h)


def explain(f: Callable[[Any], Any], x: Any, h: float) -> str:
    """Say which engine would be used, what it would do, and at what cost."""
    if x.size < SMALLEST:
        return f"The loop: {2 * x.size} calls of f, too few for recording f to pay."
    from fastgrad.engines import traced

    return traced.explain(f, x, h)
