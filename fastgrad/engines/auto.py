"""The automatic choice between the traced engine and the loop, and what `explain` prints."""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastgrad.differences.validation import warn_caller
from fastgrad.engines import compiled, probe
from fastgrad.engines.compilation import is_jitted
from fastgrad.schemes import Scheme
from fastgrad.tracing import first_calls
from fastgrad.tracing.first_calls import DIFFERENT, FirstCalls
from fastgrad.typing import Array

SMALLEST = 8
"""Elements of x from which recording may pay: with fewer, the loop calls f about as often."""

LARGE = 5_000
"""Elements of x from which the user is told that the loop is used, and why."""


def gradient(
    f: Callable[[Any], Any], x: Array, h: float, scheme: Scheme, name: str, first: FirstCalls
) -> Array | None:
    """Return the difference quotients, of a real scheme, by tracing; None if f is to be called.

    By the loop, if f is cheap or untraceable, as its first calls may show. If x, of that name in
    messages, does not enter f, that is said, and the quotients are 0.
    """
    calls = x.size * len(scheme.outer)
    refused = first.refusal
    if not refused:
        if first.are_cheap(calls, first_calls.CHEAP):
            return None  # without loading what records f
        result, refused = _traced(f, x, h, scheme, name, first)
        if result is not None:
            return result
    if refused not in ("", DIFFERENT) and x.size >= LARGE:  # random: that is said of the loop
        warn_caller(
            f"f is called {calls:,} times, because it cannot be traced: "
            f"{refused}; fastgrad.explain(f, x) tells more, engine='loop' silences this"
        )
    return None


def _traced(
    f: Callable[[Any], Any], x: Array, h: float, scheme: Scheme, name: str, first: FirstCalls
) -> tuple[Array | None, str]:
    """Return the quotients by tracing; or None, and why f cannot be traced, "" if that is said."""
    from fastgrad.engines import traced
    from fastgrad.engines.certificates.traced import warn_of_a_mistake
    from fastgrad.tracing.recorder import UNUSED, NotTraceable, TooCheap

    mistaken = refused = ""
    try:
        return traced.traced_gradient(f, x, h, scheme, if_faster=True, first=first), ""
    except TooCheap:
        pass
    except traced.Mistaken as mistake:
        mistaken = str(mistake)
    except NotTraceable as refusal:
        refused = str(refusal)
    # After the except clauses: what f raises now is not raised "during handling" of a refusal.
    if mistaken:
        warn_of_a_mistake(
            f"f could not be traced, and is called for each element instead: {mistaken}. If f "
            "gives the same value at each call, this is a defect of fastgrad: please report f; "
            "engine='loop' silences this"
        )
    if refused == UNUSED and probe.is_independent(f, x, h):
        warn_caller(probe.INDEPENDENT.format(name))
        return np.zeros_like(x), ""
    return None, refused


def by_tracing(f: Callable[[Any], Any], x: Array, h: float, scheme: Scheme) -> Array:
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
