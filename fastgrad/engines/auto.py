"""Which engine serves a function best? The compiled or traced one where it can, or the loop."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from fastgrad.arguments import warn_caller
from fastgrad.engines import compiled, probe
from fastgrad.engines.compilation import is_jitted
from fastgrad.schemes import Scheme, central_quotient
from fastgrad.typing import Array

SMALLEST = 8
"""Elements of x from which recording may pay: with fewer, the loop calls f about as often."""

LARGE = 5_000
"""Elements of x from which the user is told that the loop is used, and why."""


def gradient(
    f: Callable[[Any], Any],
    x: Array,
    h: float,
    scheme: Scheme = central_quotient,
    name: str = "x",
) -> Array | None:
    """Return the difference quotients, of a real scheme, by tracing; None if f is to be called.

    By the compiled loop, if f is compiled; by the loop, if x is small or f cheap or untraceable. If
    x, of that name in messages, does not enter f, that is said, and the quotients are 0.
    """
    if x.size < SMALLEST or is_jitted(f):
        return None
    from fastgrad.engines import traced
    from fastgrad.engines.certificate import warn_of_a_mistake
    from fastgrad.tracing.recorder import UNUSED, NotTraceable, TooCheap
    from fastgrad.tracing.trace import DIFFERENT

    refused = mistaken = ""
    try:
        return traced.traced_gradient(f, x, h, scheme, if_faster=True)
    except TooCheap:
        pass
    except traced.Mistaken as mistake:
        mistaken = str(mistake)
    except NotTraceable as refusal:
        refused = str(refusal)
    if mistaken:
        warn_of_a_mistake(
            f"f could not be traced, and is called for each element instead: {mistaken}. If f "
            "gives the same value at each call, this is a defect of fastgrad: please report f; "
            "engine='loop' silences this"
        )
    if refused == UNUSED and probe.is_independent(f, x, h):
        warn_caller(probe.INDEPENDENT.format(name))
        return np.zeros_like(x)
    # After the except clauses: what f raises now is not raised "during handling" of a refusal.
    if refused not in ("", DIFFERENT) and x.size >= LARGE:  # random: that is said of the loop
        calls = x.size * sum(offset != 0 for offset in scheme.offsets)
        warnings.warn(
            f"f is called {calls:,} times, because it cannot be traced: "
            f"{refused}; fastgrad.explain(f, x) tells more, engine='loop' silences this",
            RuntimeWarning,
            stacklevel=4,
        )
    return None


def by_tracing(
    f: Callable[[Any], Any],
    x: Array,
    h: float,
    scheme: Scheme = central_quotient,
    name: str = "x",
) -> Array:
    """Return what the traced engine does, whose many files are read when it is first needed."""
    from fastgrad.engines import traced

    return traced.gradient(f, x, h, scheme)


def explain(f: Callable[[Any], Any], x: Any, h: float) -> str:
    """Say which engine would be used, what it would do, and at what cost."""
    if is_jitted(f):
        refusal = compiled.refusal(f, x)
        if not refusal:
            return f"Compiled: {2 * x.size:,} calls of f in a compiled loop."
        return f"The loop: {2 * x.size:,} calls of f.\nNot compiled, because {refusal}."
    if x.size < SMALLEST:
        return f"The loop: {2 * x.size} calls of f, too few for recording f to pay."
    from fastgrad.engines import traced

    return traced.explain(f, x, h)
