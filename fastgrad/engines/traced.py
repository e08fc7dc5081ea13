"""The engine for NumPy functions: the operations are recorded once, and replayed."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgrad.differences.validation import warn_caller
from fastgrad.engines.certificate import Certificate, Disagreement
from fastgrad.engines.directions import NearbyValues
from fastgrad.interrupts import OutOfTimeError, ending_at, raise_interrupt
from fastgrad.schemes import Scheme, central_quotient
from fastgrad.tracing import first_calls
from fastgrad.tracing.first_calls import FirstCalls
from fastgrad.tracing.recorder import UNUSED as UNUSED
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.strategy import choose_strategies
from fastgrad.tracing.trace import InDouble, Trace, trace_call
from fastgrad.typing import Array, Doubles

CERTIFY = True
"""Whether the quotients are compared with f itself. Read at each call; without it, tests measure
the analysis alone."""


DEAR_REPLAY_SECONDS = 0.1
"""Seconds of a replay from which it is not done once more, with a small step, to certify it."""


MAX_SINGLE_DIFFERENCE = 1e-3
"""How far f in double precision may differ from f in single precision, relatively: more than what
rounding does, but where most of its digits cancel."""

MAX_EXPLAINING_SECONDS = 2.0
"""How long a replay is measured for `explain`."""


class Mistaken(NotTraceable):
    """What was replayed is not f; the message says where."""


def gradient(
    f: Callable[[Doubles], Any], x: Doubles, h: float, scheme: Scheme = central_quotient
) -> Doubles:
    """Return the difference quotient of f for every element of x; the central one by default.

    One call of f is recorded. Then, instead of all of f for every element, only those operations
    are replayed that come after the place where x enters: for an affine stage ``X @ x`` whose rows
    turn out to be independent, a few times for each of its units. The losses are f's own, at moved
    points; no rule of differentiation is used.

    Parameters
    ----------
    f : callable
        ``f(x) -> number``, computed from x by NumPy operations.
    x : array of float64 or float32
        Writable. Moved in place while f is recorded and checked; bit-identical afterwards. With
        respect to a float32 array f is differenced in double precision, by the steps that the array
        can hold.
    h : float
        The step.
    scheme : Scheme
        Of real offsets.

    Returns
    -------
    ndarray like x
        Within the loop's round-off of its quotients: for a central one some eps / h times the sum
        of the magnitudes of what f adds up. That is more than abs(f) where terms cancel, or where
        the logarithm of a number near 1 is taken.

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


def gradient_if_faster(
    f: Callable[[Doubles], Any], x: Doubles, h: float, scheme: Scheme, first: FirstCalls
) -> tuple[Doubles | None, str]:
    """Return the gradient; or None, and why f is not traced: it cannot be, or not faster.

    The reason is "" where a warning has told it.
    """
    mistake = reason = ""
    try:
        return traced_gradient(f, x, h, scheme, if_faster=True, first=first), ""
    except Mistaken as where:
        mistake = str(where)
    except NotTraceable as refusal:
        reason = str(refusal)
    if mistake:  # after the except clauses: a warning that is an error has no other as its cause
        warn_caller(
            f"f could not be traced, and is called for each element instead: {mistake}. If f "
            "gives the same value at each call, this is a defect of fastgrad: please report f; "
            "engine='loop' silences this"
        )
    return None, reason


def traced_gradient(
    f: Callable[[Doubles], Any],
    x: Doubles,
    h: float,
    scheme: Scheme = central_quotient,
    *,
    if_faster: bool = False,
    first: FirstCalls | None = None,
) -> Doubles:
    """Return the gradient, or raise `NotTraceable`; also if the loop would be as fast, if asked.

    The first calls of f are made if they have not been; that they are not cheap is known.
    """
    if x.dtype == np.float32:
        if scheme != central_quotient:
            raise NotTraceable("x is of float32, and the scheme not the central one")
        with in_double(f, x, first) as (wide, first_wide):
            quotients = traced_gradient(
                wide, wide.x, h, scheme, if_faster=if_faster, first=first_wide
            )
        distance = ((x + np.float32(h)) - (x - np.float32(h))).astype(np.float64)
        result = np.zeros_like(x)
        result[...] = quotients * (distance / (2 * h))
        return result
    calls = x.size * sum(offset != 0 for offset in scheme.offsets)
    trace = trace_call(f, x, h, calls, first, is_limited=if_faster)
    limit = calls * trace.seconds / len(by_distance(scheme)) if if_faster else np.inf
    start = time.perf_counter()
    replayed = _replayed(trace, h, scheme, limit)
    if CERTIFY:
        seconds = time.perf_counter() - start
        _certify(f, x, h, scheme, trace, replayed, seconds)
    quotients = replayed.quotients
    result = np.zeros_like(x)
    result[...] = quotients.reshape(x.shape)
    return result


@contextmanager
def in_double(
    f: Callable[[Any], Any], x: Array, first: FirstCalls | None
) -> Iterator[tuple[InDouble, FirstCalls]]:
    """Give a block f of a float32 x as a function of a float64 one, and its first calls.

    What it computes is what f does, up to rounding. In the end f is called once as it is, so that
    what it keeps is of float32 again.
    """
    first = FirstCalls(f, x) if first is None else first
    if first.refusal:
        raise NotTraceable(first.refusal)
    try:
        wide = InDouble(f, x)
        first_wide = FirstCalls(wide, wide.x)
        if first_wide.refusal:
            raise NotTraceable(first_wide.refusal)
        difference = abs(first_wide.values[0] - first.values[0])
        if not difference <= MAX_SINGLE_DIFFERENCE * abs(first.values[0]):
            raise NotTraceable("it is another function of x in double precision")
        first_wide.seconds = first.seconds  # which the loop would take
        yield wide, first_wide
    finally:
        first.make(1)


@dataclass(frozen=True, eq=False)
class Replayed:
    """What a replay gives.

    Attributes
    ----------
    quotients, slopes : arrays (elements of x,)
        In C order.
    uneven : array (elements of x,)
        By how much slopes differ, as a rule, if moves up and down are answered differently.
    known : bool
        Whether slopes are known.
    """

    quotients: Doubles
    slopes: Doubles
    uneven: Doubles
    known: bool


def _replayed(trace: Trace, h: float, scheme: Scheme, limit: float) -> Replayed:
    """Return the quotients of all elements, and the slopes."""
    total, straight, uneven = np.zeros((3, trace.nodes[0].value.size))
    known = scheme.derivative == 1
    try:
        with np.errstate(all="ignore"):
            for offset, weights in by_distance(scheme).items():
                for strategy in choose_strategies(trace, offset * h, limit, weights):
                    known &= strategy.add_to(total, straight, uneven)
            total /= scheme.denominator * h**scheme.derivative
            straight /= scheme.denominator * h
            uneven /= scheme.denominator * h
    except NotTraceable:
        raise
    except Exception as error:  # whatever it is, the loop can do without
        raise_interrupt(error)
        raise NotTraceable(f"its replay raises {type(error).__name__}: {error}") from error
    return Replayed(total, straight, uneven, known)


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


def _certify(
    f: Callable[[Doubles], Any],
    x: Doubles,
    h: float,
    scheme: Scheme,
    trace: Trace,
    replayed: Replayed,
    seconds: float,
) -> None:
    """Compare the quotients with f, and mend them; see `certificate`."""

    def slopes(step: float) -> Doubles:
        return _replayed(trace, step, central_quotient, np.inf).slopes

    floats = [node.value.dtype for node in trace.nodes if node.value.dtype.kind in "fc"]
    eps = max(float(np.finfo(dtype).eps) for dtype in floats)
    norms = [abs(term.scale) * np.linalg.norm(np.ravel(term.node.value)) for term in trace.terms]
    own = float(np.linalg.norm(norms))
    certificate = Certificate(
        NearbyValues(f, x, h, scheme, trace.magnitude, own, eps),
        replayed.quotients,
        slopes,
        replayed.slopes if replayed.known else None,
        replayed.uneven,
        is_dear=seconds > DEAR_REPLAY_SECONDS,
        price=seconds / trace.seconds,
    )
    try:
        certificate.mend()
    except Disagreement as where:
        raise Mistaken(f"its replay is not f: {where}") from where
    if certificate.said:
        warn_caller(
            f"the traced gradient was wrong: {certificate.said}; it has been mended by calls of f. "
            "If f gives the same value at each call, this is a defect of fastgrad: please report f"
        )


def explain(
    f: Callable[[Doubles], Any], x: Doubles, h: float, calls: int, first: FirstCalls
) -> tuple[str, str]:
    """Return what is replayed, and at what cost; or "", and why f would not be traced.

    By the central scheme, for which the loop would call f so many times. It is replayed, for a
    while, to see how long that takes.
    """
    if x.dtype == np.float32:
        try:
            with in_double(f, x, first) as (wide, first_wide):
                return explain(wide, wide.x, h, calls, first_wide)
        except NotTraceable as refusal:
            return "", str(refusal)
    start, at_least = time.perf_counter(), ""
    try:
        trace = trace_call(f, x, h, calls, first, is_limited=True)
        looped = calls * trace.seconds
        with np.errstate(all="ignore"):
            parts = choose_strategies(trace, h, looped)
        try:
            with ending_at(time.monotonic() + MAX_EXPLAINING_SECONDS):
                _replayed(trace, h, central_quotient, looped)
        except OutOfTimeError:
            at_least = "at least "
    except NotTraceable as refusal:
        return "", str(refusal)
    own = first_calls.TRACING_CALLS * trace.seconds
    seconds = max(time.perf_counter() - start, sum(part.seconds for part in parts)) + own
    heading = (
        f"Traced: {len(trace.nodes) - 1} operations of f depend on x.\n"
        f"Expected: {at_least}about {seconds:.2g} s; the loop's {calls:,} calls would take about "
        f"{looped:.2g} s.\n"
        f"Some {first_calls.TRACING_CALLS} calls of f record and check: about {own:.2g} s of it."
    )
    return "\n".join([heading, *(part.describe() for part in parts)]), ""
