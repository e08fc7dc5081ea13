"""The engine for NumPy functions: the operations are recorded once, and replayed."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from math import inf
from typing import Any, NamedTuple

import numpy as np

from fastgrad.differences.arguments import warn_caller
from fastgrad.differences.guard import extend_turn
from fastgrad.engines import joint_gradients
from fastgrad.engines.certificate import Certificate, Disagreement, NotFiniteError, wrong
from fastgrad.engines.directions import NearbyValues
from fastgrad.jit.concurrency import single_blas_thread
from fastgrad.jit.interrupts import OutOfTimeError, ending_at, raise_interrupt
from fastgrad.schemes import Scheme, central_quotient
from fastgrad.tracing import first_calls
from fastgrad.tracing.first_calls import FirstCalls
from fastgrad.tracing.recorder import UNUSED as UNUSED
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.references import Slot, temporarily_replaced
from fastgrad.tracing.strategy import TermStrategy, choose_strategies, duration
from fastgrad.tracing.trace import (
    MAX_RECORDING_SHARE,
    MIN_RECORDING_SECONDS,
    InDouble,
    Trace,
    trace_call,
)
from fastgrad.tracing.unit_responses import Weights
from fastgrad.typing import Array, Doubles

CERTIFY = True
"""Whether the quotients are compared with f itself. Read at each call; without it, tests measure
the analysis alone."""

EXPENSIVE_REPLAY_SECONDS = 0.1
"""Seconds of a replay from which it is not done once more, with a small step, to certify it."""

MAX_SINGLE_DIFFERENCE = 1e-3
"""How far f in double precision may differ from f in single precision, relatively: more than what
rounding does, but where most of its digits cancel."""

MAX_KEPT_BYTES = 1 << 28
"""Bytes of a recording, at most, that is kept for further steps."""

ELEMENTS_COMPARED = 3
"""How many elements are compared with f at a further step."""

MAX_EXPLAINING_SECONDS = 2.0
"""How long a replay is measured for `explain`."""

MAX_REMEMBERED_REFUSALS = 256
"""Of how many functions, by their code, it is remembered that they were recorded in vain."""


class Mistaken(NotTraceable):
    """What was replayed is not f; the message says where."""


@dataclass(frozen=True, eq=False)
class Replayed:
    """What a replay gives.

    Attributes
    ----------
    quotients, slopes : arrays (elements of x,)
        In C order.
    uneven : array (elements of x,)
        By how much slopes differ, as a rule, if moves up and down are answered differently.
    bends : array (elements of x,)
        By how much quotients by a move up alone are larger; nan if that is not known.
    has_slopes : bool
        Whether slopes are known.
    bias : int or None
        The number of another array, whose elements come last.
    """

    quotients: Doubles
    slopes: Doubles
    uneven: Doubles
    bends: Doubles
    has_slopes: bool
    bias: int | None = None

    @classmethod
    def joined(cls, parts: "list[Replayed]") -> "Replayed":
        """Return those of several arrays, one after the other."""
        return cls(
            np.concatenate([part.quotients for part in parts]),
            np.concatenate([part.slopes for part in parts]),
            np.concatenate([part.uneven for part in parts]),
            np.concatenate([part.bends for part in parts]),
            all(part.has_slopes for part in parts),
        )

    def split(self, size: int) -> "tuple[Replayed, Replayed]":
        """Return those of the first elements, so many, and of the others."""
        first, second = (
            Replayed(
                self.quotients[part],
                self.slopes[part],
                self.uneven[part],
                self.bends[part],
                self.has_slopes,
            )
            for part in (slice(size), slice(size, None))
        )
        return first, second


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

    The reason is "" where a warning has told it. A function whose loop is short is not recorded in
    vain each time: only when its loops have taken so long that it is a small part of that.
    """
    mistake = reason = ""
    looped = x.size * len(scheme.outer) * first.seconds
    code = joint_gradients.code_of(f)
    refused = Refused() if code is None else _refused(code, x.shape)
    if refused.seconds > 0:
        refused.seconds -= MAX_RECORDING_SHARE * looped
        return None, refused.reason
    start = time.perf_counter()
    try:
        return traced_gradient(f, x, h, scheme, if_faster=True, first=first), ""
    except Mistaken as where:
        mistake = str(where)
    except NotTraceable as refusal:
        reason = refused.reason = str(refusal)
    if reason and MAX_RECORDING_SHARE * looped < MIN_RECORDING_SECONDS:
        refused.seconds = time.perf_counter() - start
    if mistake:  # after the except clauses: a warning that is an error has no other as its cause
        warn_caller(
            f"f could not be traced, and is called for each element instead: {mistake}. If f "
            "gives the same value at each call, this is a defect of fastgrad: please report f; "
            "engine='loop' silences this"
        )
    return None, reason


@dataclass
class Refused:
    """Why functions of some code could not be traced, and the seconds to be made up for."""

    reason: str = ""
    seconds: float = 0.0


@lru_cache(MAX_REMEMBERED_REFUSALS)
def _refused(code: Any, shape: tuple[int, ...]) -> Refused:
    """Return what is remembered of a code and a shape of x."""
    return Refused()


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

    The first calls of f are made if they have not been; that they are not cheap is known. From the
    replay on, BLAS has one thread, in f as well: where other processes compute, several wait for
    each other longer than one takes.
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
    if first is None:
        first = FirstCalls(f, x)
    point = joint_gradients.new_point(f, x, h, scheme, first)
    expected = {} if point is None else point.expected_arrays
    if not extend_turn([*expected.values()]):
        expected = {}
    others = [*expected.values()]
    calls = x.size * sum(offset != 0 for offset in scheme.offsets)
    trace = trace_call(f, x, h, calls, first, is_limited=if_faster, others=others)
    limit = calls * trace.seconds / len(by_distance(scheme)) if if_faster else np.inf
    with single_blas_thread(is_listed_once=True):
        start = time.perf_counter()
        if point is not None and expected:
            gradients = _joint_gradients(f, [x, *others], h, trace, limit, start)
            if gradients is not None:
                point.gradients = dict(zip(expected, gradients[1:], strict=True))
                return gradients[0].gradient
            if not trace.others:
                point.give_up()
        replayed = _replayed(trace, h, scheme, limit)
        if not CERTIFY or _certify(f, x, h, scheme, trace, replayed, time.perf_counter() - start):
            _note(Recording(f, [x], [trace]))
    return _like(x, replayed.quotients)


def _like(x: Array, quotients: Array) -> Array:
    """Return quotients as an array like x."""
    result = np.zeros_like(x)
    result[...] = quotients.reshape(x.shape)
    return result


def _joint_gradients(
    f: Callable[[Doubles], Any],
    arrays: list[Doubles],
    h: float,
    trace: Trace,
    limit: float,
    start: float,
) -> list[joint_gradients.InAdvance] | None:
    """Return gradients of several arrays, of which the trace of the first is given.

    They are certified together, as one. None if they cannot be.
    """
    traces = [trace, *(each for each in trace.others if each is not None)]
    if len(traces) < len(arrays):
        return None
    try:
        whole = Replayed.joined(_replays(traces, h, central_quotient, limit))
    except NotTraceable:
        return None
    if CERTIFY:
        joined = Joined(f, arrays)
        seconds = time.perf_counter() - start
        certificate = _certificate(joined, joined.x, h, central_quotient, traces, whole, seconds)
        try:
            certificate.mend()
        except Disagreement:
            return None
        if certificate.said:
            return None
    _note(Recording(f, arrays, traces))
    ends = np.cumsum([array.size for array in arrays])[:-1]
    slopes = whole.slopes if whole.has_slopes else whole.quotients
    parts = zip(
        *(np.split(each, ends) for each in (whole.quotients, slopes, whole.uneven)), strict=True
    )
    return [  # in arrays of their own, for the others may be freed before
        joint_gradients.InAdvance(_like(array, quotients), straight.copy(), uneven.copy())
        for array, (quotients, straight, uneven) in zip(arrays, parts, strict=True)
    ]


def _replays(traces: list[Trace], h: float, scheme: Scheme, limit: float) -> list[Replayed]:
    """Return the quotients of all arrays of a recording; the limit is that of the first."""
    replays: dict[int, Replayed] = {}
    for k in sorted(range(len(traces)), key=lambda k: not traces[k].biases):
        if k not in replays:  # else a bias, which is moved with what it is added to
            replayed = _replayed(traces[k], h, scheme, inf if k else limit, traces)
            if replayed.bias is None:
                replays[k] = replayed
            else:
                size = traces[k].nodes[0].value.size
                replays[k], replays[replayed.bias] = replayed.split(size)
    return [replays[k] for k in range(len(traces))]


class Recording(NamedTuple):
    """A function that was recorded, and by which arrays; its gradient has been certified."""

    f: Callable[[Any], Any]
    arrays: list[Doubles]
    traces: list[Trace]

    def called(self, _: Any = None) -> Any:
        """Return f, whatever it is given: it reads the arrays."""
        return self.f(self.arrays[0])

    @property
    def is_valid(self) -> bool:
        """Whether the arrays and f are as they were."""
        pairs = zip(self.arrays, self.traces, strict=True)
        return (
            all(np.array_equal(x, trace.nodes[0].value) for x, trace in pairs)
            and float(np.asarray(self.called()).reshape(())) == self.traces[0].value
        )


def _note(recording: Recording) -> None:
    """Keep a recording for further steps, if somebody wants it, and it is not too large."""
    known = joint_gradients.recordings.get()
    if known is None:
        return
    if sum(node.value.nbytes for each in recording.traces for node in each.nodes) <= MAX_KEPT_BYTES:
        known.append(recording)


def further_gradients(
    known: Sequence[Recording], arrays: Sequence[Array], h: float, scheme: Scheme
) -> list[Doubles] | None:
    """Return gradients, flat, from recordings of f if all is as it was then; None if not.

    Some elements that are drawn at random are compared with f.
    """
    wanted = {id(x) for x in arrays}
    found: dict[int, Doubles] = {}
    with single_blas_thread(is_listed_once=True):
        for recording in known:
            _, own, traces = recording
            names = [id(x) for x in own]
            if wanted.isdisjoint(names):
                continue
            if not recording.is_valid:
                return None
            limit = own[0].size * len(scheme.outer) * traces[0].seconds / len(by_distance(scheme))
            try:
                if wanted.issuperset(names):
                    replays = _replays(traces, h, scheme, limit)
                    found |= {id(x): each.quotients for x, each in zip(own, replays, strict=True)}
                else:
                    for x, trace in zip(own, traces, strict=True):
                        if id(x) in wanted:
                            found[id(x)] = _replayed(trace, h, scheme, inf).quotients
            except NotTraceable:
                return None
        if wanted != found.keys() or not _agree(known, found, h, scheme):
            return None
    return [found[id(x)] for x in arrays]


def _agree(
    known: Sequence[Recording], found: Mapping[int, Doubles], h: float, scheme: Scheme
) -> bool:
    """Say whether some elements are f's own, drawn from arrays that are drawn at random."""
    random = np.random.default_rng()
    places = [(each, k) for each in known for k, x in enumerate(each.arrays) if id(x) in found]
    for j in random.choice(len(places), min(ELEMENTS_COMPARED, len(places)), replace=False):
        recording, k = places[j]
        x = recording.arrays[k]
        values = _nearby(recording.called, x, h, scheme, [recording.traces[k]])
        if wrong(values, found[id(x)], random.integers(x.size, size=1)).size:
            return False
    return True


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


def _replayed(
    trace: Trace, h: float, scheme: Scheme, limit: float, traces: Sequence[Trace] = ()
) -> Replayed:
    """Return the quotients of all elements, and the slopes.

    Of the arrays whose traces are given, one that is added to the stage is moved with it.
    """
    size, bias = trace.nodes[0].value.size, None
    known = scheme.derivative == 1
    try:
        with np.errstate(all="ignore"):
            replays = []
            for offset, weights in by_distance(scheme).items():
                strategies, bias = _strategies(trace, offset * h, limit, weights, traces)
                replays += strategies
            size += 0 if bias is None else traces[bias].nodes[0].value.size
            total, straight, uneven, bends = np.zeros((4, size))
            for strategy in replays:
                known &= strategy.add_to(total, straight, uneven, bends)
            total /= scheme.denominator * h**scheme.derivative
            for each in (straight, uneven, bends):
                each /= scheme.denominator * h
    except NotTraceable:
        raise
    except Exception as error:  # whatever it is, the loop can do without
        raise_interrupt(error)
        raise NotTraceable(f"its replay raises {type(error).__name__}: {error}") from error
    return Replayed(total, straight, uneven, bends, known, bias)


def _strategies(
    trace: Trace, h: float, limit: float, weights: Weights, traces: Sequence[Trace]
) -> tuple[list[TermStrategy], int | None]:
    """Return how terms are differenced, and which array is moved as a bias of the stage.

    It must enter in no other way: there are as many terms with it as its own trace has.
    """
    biases = trace.biases.items() if traces else ()
    added = {product: traces[k].nodes[0].value.reshape(-1) for product, k in biases}
    strategies = choose_strategies(trace, h, limit, weights, added)
    found = [trace.biases[each.stage.node] for each in strategies if each.has_bias and each.stage]
    if not found:
        return strategies, None
    if len(set(found)) == 1 and len(found) == len(traces[found[0]].terms):
        return strategies, found[0]
    return choose_strategies(trace, h, limit, weights), None


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
) -> bool:
    """Compare the quotients with f, and mend them; say whether all were right."""
    certificate = _certificate(f, x, h, scheme, [trace], replayed, seconds)
    try:
        certificate.mend()
    except NotFiniteError as reason:
        raise NotTraceable(str(reason)) from reason
    except Disagreement as where:
        raise Mistaken(f"its replay is not f: {where}") from where
    if certificate.said:
        warn_caller(
            f"the traced gradient was wrong: {certificate.said}; it has been mended by calls of f. "
            "If f gives the same value at each call, this is a defect of fastgrad: please report f"
        )
    return not certificate.said


def _certificate(
    f: Callable[[Doubles], Any],
    x: Doubles,
    h: float,
    scheme: Scheme,
    traces: list[Trace],
    replayed: Replayed,
    seconds: float,
) -> Certificate:
    """Return what compares quotients with f: those of one array, or of several, joined in x."""

    def slopes(step: float) -> Doubles:
        parts = [_replayed(trace, step, central_quotient, inf).slopes for trace in traces]
        return np.concatenate(parts)

    return Certificate(
        _nearby(f, x, h, scheme, traces),
        replayed.quotients,
        slopes,
        replayed.slopes if replayed.has_slopes else None,
        replayed.uneven,
        replayed.bends if scheme == central_quotient else None,
        is_expensive=seconds > EXPENSIVE_REPLAY_SECONDS,
        price=seconds / traces[0].seconds / len(traces),  # of each array
    )


def _nearby(
    f: Callable[[Doubles], Any], x: Doubles, h: float, scheme: Scheme, traces: list[Trace]
) -> NearbyValues:
    """Return values of f with what rounding may do to them, as its traces tell."""
    nodes = [node for trace in traces for node in trace.nodes]
    floats = {node.value.dtype for node in nodes if node.value.dtype.kind in "fc"}
    return NearbyValues(
        f,
        x,
        h,
        scheme,
        max(trace.magnitude for trace in traces),
        max(trace.own_magnitude for trace in traces),
        max(float(np.finfo(dtype).eps) for dtype in floats),
        takes_any=type(f) is Joined,
    )


class Joined:
    """f of several arrays as a function of one, in which their elements follow each other.

    Attributes
    ----------
    x : array (elements of all arrays,)
    """

    def __init__(self, f: Callable[[Doubles], Any], arrays: list[Doubles]) -> None:
        self._f, self._arrays = f, arrays
        self.x = np.concatenate([array.reshape(-1) for array in arrays])
        self._saved = [array.copy(order="K") for array in arrays]
        self._ends = np.cumsum([array.size for array in arrays])[:-1]

    def __call__(self, x: Doubles) -> Any:
        """Return f where the arrays hold what is in x; they are then as they were."""
        slots: list[Slot] = [
            (partial(array.__setitem__, ...), saved, part.reshape(array.shape))
            for array, saved, part in zip(
                self._arrays, self._saved, np.split(x, self._ends), strict=True
            )
        ]
        return temporarily_replaced(slots, lambda: self._f(self._arrays[0]))


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
        f"Expected: {at_least}about {duration(seconds)}; the loop's {calls:,} calls would take "
        f"about {duration(looped)}.\n"
        f"Some {first_calls.TRACING_CALLS} calls of f record and check: {duration(own)} of it."
    )
    return "\n".join([heading, *(part.describe() for part in parts)]), ""
