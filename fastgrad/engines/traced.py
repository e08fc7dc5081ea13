"""How is a NumPy network differenced without its loop? Its operations are recorded and replayed."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.engines import loop
from fastgrad.schemes import Scheme, central_quotient
from fastgrad.tracing.parts import Part, plan
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.replay import keep_memory
from fastgrad.tracing.trace import Trace, trace_call

Array = NDArray[np.float64]

CHEAP = 0.004
"""Seconds that recording and replaying take at least, whatever f is, besides calls of f."""

CERTIFY = True
"""Whether the quotients are compared with f itself. Read at each call; without it, tests measure
the analysis alone."""

CHECKS = 2
"""How many elements, drawn at random, are checked by calls of f; the largest quotient is, too."""


def gradient(
    f: Callable[[Array], Any], x: Array, h: float, scheme: Scheme = central_quotient
) -> Array:
    """Return the difference quotient of f for every element of x; the central one by default.

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
        Of real offsets.

    Returns
    -------
    ndarray like x
        Within the round-off of the loop, eps abs(f) / h for a central quotient, of its quotients.

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
    calls = x.size * sum(offset != 0 for offset in scheme.offsets)
    trace = trace_call(f, x, h, calls, CHEAP if if_faster else None)
    keep_memory()
    result = np.zeros_like(x)
    total = result.reshape(-1)
    weights = by_distance(scheme)
    limit = calls * trace.seconds / len(weights) if if_faster else np.inf
    try:
        with np.errstate(all="ignore"):
            for offset, its in weights.items():
                for part in plan(trace, offset * h, limit, its):
                    part.add_to(total)
            total /= scheme.denominator * h**scheme.derivative
    except NotTraceable:
        raise
    except Exception as error:  # whatever it is, the loop can do without
        raise NotTraceable(f"its replay raises {type(error).__name__}: {error}") from error
    result[...] = total.reshape(x.shape)
    if CERTIFY:
        _check(f, x, h, scheme, result, trace)
    return result


def by_distance(scheme: Scheme) -> dict[float, tuple[float, float]]:
    """Write a scheme by what f changes by when x is moved up, and down, by the same distance.

    Returns
    -------
    dict of pairs
        For each distance, in steps, the weights of ``f(x + s) - f(x)`` and of ``f(x - s) - f(x)``.

    Examples
    --------
    >>> by_distance(central_quotient)
    {1: (1, -1)}
    """
    weight = dict(zip(scheme.offsets, scheme.numerators, strict=True))
    distances = dict.fromkeys(abs(offset) for offset in scheme.offsets if offset)
    return {each: (weight.get(each, 0), weight.get(-each, 0)) for each in distances}


def _check(
    f: Callable[[Array], Any], x: Array, h: float, scheme: Scheme, quotients: Array, trace: Trace
) -> None:
    """Compare a few quotients with f itself, as a last resort against what was missed.

    First all of them at once: the elements are moved together, up or down at random, which takes
    two calls of f and gives the sum of their quotients, as far as their moves do not act on each
    other. If it does not, the loop decides, element by element; so it does at once if the scheme is
    not central, for then they do act on each other, by second derivatives.
    """
    flat = quotients.reshape(-1)
    random = np.random.default_rng()
    largest = int(np.argmax(abs(flat)))
    drawn = random.choice(x.size, min(CHECKS + 1, x.size), replace=False)
    places = np.array([largest, *drawn[drawn != largest][:CHECKS]])
    round_off = scheme.round_off(trace.magnitude, h, float(np.finfo(np.float64).eps))
    tolerance = 32 * round_off + 1e-6 * abs(flat[largest])
    if scheme.is_central and scheme.derivative == 1:
        signs = random.choice([-1.0, 1.0], len(places))
        together = _moved_together(f, x, h, scheme, places, signs)
        if abs(signs @ flat[places] - together) <= tolerance:
            return
    looped = loop.gradient(f, x, h, places, scheme).reshape(-1)
    for place in places:
        if not abs(flat[place] - looped[place]) <= tolerance:
            raise NotTraceable(
                f"at element {place} the replay gives {flat[place]:.6g}, "
                f"but calls of f give {looped[place]:.6g}"
            )


def _moved_together(
    f: Callable[[Array], Any],
    x: Array,
    h: float,
    scheme: Scheme,
    places: NDArray[np.intp],
    signs: Array,
) -> float:
    """Return the difference quotient of f along a line on which some elements are moved by +-h."""
    elements, old = x.flat, x.flat[places]

    def along(s: Array) -> Any:
        elements[places] = old + s[0] * signs
        return f(x)

    try:
        return float(loop.gradient(along, np.zeros(1), h, scheme=scheme)[0])
    finally:
        elements[places] = old


def explain(f: Callable[[Array], Any], x: Array, h: float) -> str:
    """Say how the gradient of f would be evaluated, and at what cost."""
    calls = 2 * x.size
    try:
        trace = trace_call(f, x, h, calls, CHEAP)
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
