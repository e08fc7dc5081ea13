"""How is a NumPy network differenced without its loop? Its operations are recorded and replayed."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.engines import loop
from fastgrad.schemes import Scheme, central_quotient
from fastgrad.tracing.parts import Part, plan
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.trace import Trace, trace_call

Array = NDArray[np.float64]

CHEAP = 0.006
"""Seconds that recording and replaying take at least, whatever f is, besides calls of f."""

CHECKS = 2
"""How many elements, drawn at random, are compared with the loop; the largest quotient is, too."""


def gradient(
    f: Callable[[Array], Any], x: Array, h: float, scheme: Scheme = central_quotient
) -> Array:
    """Return ``(f(x + h e_i) - f(x - h e_i)) / (2 h)`` for every element i of x.

    One call of f is recorded. Then, instead of all of f for every element, only those operations
    are replayed that come after the place where x enters: for an affine stage ``X @ x`` whose rows
    turn out to be independent, a few times for each of its units. The losses are f's own, at moved
    points; no rule of differentiation is used.

    Parameters
    ----------
    f : callable
        ``f(x) -> number``, computed from x by NumPy operations.
    x : float64 array
        Writable. Moved in place while f is recorded and checked; bit-identical afterwards.
    h : float
        The step.
    scheme : Scheme
        A central one; a sum of such quotients, whose steps are multiples of h.

    Returns
    -------
    ndarray like x
        Within the round-off of the loop, eps abs(f) / h, of its quotients.

    Raises
    ------
    ValueError
        If f cannot be traced; the message says why.
    """
    try:
        return traced_gradient(f, x, h, scheme)
    except NotTraceable as refusal:
        raise ValueError(
            f"f cannot be traced: {refusal}; pass engine='auto' or engine='loop'"
        ) from refusal


def traced_gradient(
    f: Callable[[Array], Any],
    x: Array,
    h: float,
    scheme: Scheme = central_quotient,
    *,
    if_faster: bool = False,
) -> Array:
    """Return the gradient, or raise `NotTraceable`; also if the loop would be as fast, if asked."""
    pairs = [
        (offset, numerator)
        for offset, numerator in zip(scheme.offsets, scheme.numerators, strict=True)
        if offset > 0
    ]
    if len(pairs) == 1:
        ((offset, _),) = pairs
        return _quotients(f, x, offset * h, if_faster=if_faster)
    result = np.zeros_like(x)
    for offset, numerator in pairs:
        # numerator (f(x + o h) - f(x - o h)) / (denominator h), from the quotient over 2 o h.
        weight = numerator * 2 * offset / scheme.denominator
        result += weight * _quotients(f, x, offset * h, if_faster=if_faster)
    return result


def _quotients(f: Callable[[Array], Any], x: Array, h: float, *, if_faster: bool) -> Array:
    """Return the book's quotients."""
    trace = trace_call(f, x, h, CHEAP if if_faster else None)
    result = np.zeros_like(x)
    quotients = result.reshape(-1)
    limit = 2 * x.size * trace.seconds if if_faster else np.inf
    try:
        with np.errstate(all="ignore"):
            for part in plan(trace, h, limit):
                part.add_to(quotients)
    except NotTraceable:
        raise
    except Exception as error:  # whatever it is, the loop can do without
        raise NotTraceable(f"its replay raises {type(error).__name__}: {error}") from error
    result[...] = quotients.reshape(x.shape)
    _check(f, x, h, result, trace)
    return result


def _check(f: Callable[[Array], Any], x: Array, h: float, quotients: Array, trace: Trace) -> None:
    """Compare a few quotients with f itself, as a last resort against what was missed.

    First all of them at once: the elements are moved together, up or down at random, which takes
    two calls of f and gives the sum of their quotients, as far as their moves do not act on each
    other. If it does not, the loop decides, element by element.
    """
    flat = quotients.reshape(-1)
    random = np.random.default_rng()
    largest = int(np.argmax(abs(flat)))
    drawn = random.choice(x.size, min(CHECKS + 1, x.size), replace=False)
    places = np.array([largest, *drawn[drawn != largest][:CHECKS]])
    signs = random.choice([-1.0, 1.0], len(places))
    tolerance = 32 * np.finfo(np.float64).eps * trace.magnitude / h + 1e-6 * abs(flat[largest])
    together = _moved_together(f, x, h, places, signs)
    if abs(signs @ flat[places] - together) <= tolerance:
        return
    looped = loop.gradient(f, x, h, places).reshape(-1)
    for place in places:
        if not abs(flat[place] - looped[place]) <= tolerance:
            raise NotTraceable(
                f"at element {place} the replay gives {flat[place]:.6g}, "
                f"but calls of f give {looped[place]:.6g}"
            )


def _moved_together(
    f: Callable[[Array], Any], x: Array, h: float, places: NDArray[np.intp], signs: Array
) -> float:
    """Return the difference quotient of f along a line on which some elements are moved by +-h."""
    elements, old = x.flat, x.flat[places]

    def along(s: Array) -> Any:
        elements[places] = old + s[0] * signs
        return f(x)

    try:
        return float(loop.gradient(along, np.zeros(1), h)[0])
    finally:
        elements[places] = old


def explain(f: Callable[[Array], Any], x: Array, h: float) -> str:
    """Say how the gradient of f would be evaluated, and at what cost."""
    calls = 2 * x.size
    try:
        trace = trace_call(f, x, h, CHEAP)
        with np.errstate(all="ignore"):
            parts = plan(trace, h, calls * trace.seconds)
    except NotTraceable as refusal:
        return f"The loop: {calls:,} calls of f.\nNot traced, because {refusal}."
    return "\n".join([_heading(trace, parts, calls), *(part.describe() for part in parts)])


def _heading(trace: Trace, parts: list[Part], calls: int) -> str:
    seconds = sum(part.seconds for part in parts)
    return (
        f"Traced: {len(trace.nodes) - 1} operations of f depend on x.\n"
        f"Expected: about {seconds:.2g} s; the loop's {calls:,} calls would take about "
        f"{calls * trace.seconds:.2g} s."
    )
