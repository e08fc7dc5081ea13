"""The engine for functions that numba has compiled: a compiled loop, on all threads."""

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from numbers import Number
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.arguments import Call, warn_caller
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import at
from fastgrad.engines import loop
from fastgrad.jit import jitted
from fastgrad.jit.concurrency import Work, exclusive, spread, thread_count
from fastgrad.jit.jitted import CompiledLoop, NotCompilableError, arrays_in, compiled_loop
from fastgrad.lazy import LazyModule
from fastgrad.schemes import central_quotient
from fastgrad.tracing.first_calls import share
from fastgrad.typing import Array, Moves, Values

if TYPE_CHECKING:
    from fastgrad.engines import certificate as certificates
else:  # many calculations need none
    certificates = LazyModule("fastgrad.engines.certificate")

MAX_OVERLAP_WORK = 10_000
"""How hard NumPy looks for elements that two arrays share, before they are taken to share some."""


def values(f: Callable[..., Any], x: Array, moves: Moves) -> Array:
    """Return f at each point to which an element of x is moved.

    As `loop.values`, and with its bits (of an f without fastmath), but for this: x itself is never
    moved. Each thread moves the elements of a copy, takes copies of all writable arrays among f's
    further arguments, and is called in no certain order. So f must depend on its arguments alone.
    What it has read of globals is what it reads when it is called: numba takes them as constants,
    and the loop is made of the same compiled code.

    Once an f has taken a quarter of a second, and if it is made of operations on single numbers
    and of array expressions, it is evaluated at several points at once (`lanes`), in a
    fraction of the time.

    Parameters
    ----------
    f : jitted function, or `Call` of one
        If it returns arrays or starts threads itself, that is fine, too. It runs in one thread here
        if it starts threads, if it is given lists, dicts or sets (of numbers), or if arguments to
        which it may write share memory.
    x, moves
        As for `loop.values`; x of float64, float32 or their complex types.

    Raises
    ------
    TypeError, ValueError
        If f or x cannot be served, or f writes into x; the message says why. It is a
        `NotCompilableError` where the loop would serve. What f raises passes unchanged: of several
        exceptions the one that the loop would have met first.
    """
    import numba

    call = f if isinstance(f, Call) else Call(f, (), None, None)
    if not is_jitted(call.f):
        if vars(numba.config)["DISABLE_JIT"]:
            return loop.values(f, x, moves)
        raise TypeError(
            f"f is a {type(call.f).__name__}, which numba has not compiled; decorate it with "
            "@numba.njit, or pass engine='auto' or 'loop'"
        )
    whole = (call.given(x), *call.args)
    arrays = [*arrays_in(whole)]
    _require_served(x, whole[0], arrays)
    shared = _share_memory([array for array in arrays if array is not x])
    first = _Copies(whole, x, shared)
    shape = moves.shape
    compiled = compiled_loop(call.f, first.elements, first.arguments, shape)
    for constant in compiled.constants:
        _require_variable(x, arrays, constant())
    if not shape:
        _require_type(compiled.dtype, x.dtype)
    places, points = _ready(first.found(moves.places), np.intp), _ready(moves.points, x.dtype)
    out = np.empty((*points.shape, *shape), compiled.dtype)

    prepared = [first]
    turn = exclusive if compiled.alone else nullcontext()
    in_lanes = None
    if whole[0] is x and sum(array is x for array in arrays) == 1:
        in_lanes = compiled.lanes(call.f)

    def new_work() -> Work:
        copies = prepared.pop() if prepared else _Copies(whole, x, shared)
        one_by_one: Callable[..., None] = partial(compiled.run, copies.elements, copies.arguments)
        evaluate = one_by_one
        if in_lanes is not None:
            evaluate = in_lanes.evaluation(copies.elements, copies.arguments, one_by_one)

        def work(chunk: slice) -> None:
            i = chunk.start
            with turn:
                if not i:  # the very first call by itself, for f may undo in the next what it did
                    one_by_one(places[:1], points[:1, :1], out[:1, :1])
                    copies.require_unwritten()
                    one_by_one(places[:1], points[:1, 1:], out[:1, 1:])
                    i = 1
                if i < chunk.stop:
                    evaluate(places[i : chunk.stop], points[i : chunk.stop], out[i : chunk.stop])
                copies.require_unwritten()

        return work

    alone = compiled.alone or shared or not _can_be_copied(whole)
    threads = (lambda: 1) if alone else thread_count
    grain = 1 if in_lanes is None else in_lanes.rows(points)
    case = (x.size, points.shape[1], grain)
    start = time.perf_counter()
    item = spread(new_work, len(places), threads, grain, compiled.item_seconds(case))
    compiled.note(time.perf_counter() - start, case, item)
    if not shape:
        _recent.run = _Run(f, x, partial(_Copies, whole, x, shared), call.f, compiled)
    return out.astype(object) if out.dtype.kind in "iub" and not shape else out


def is_jitted(f: object) -> bool:
    """Say whether f, or what a `Call` calls, was compiled by numba's jit, without importing numba.

    With ``NUMBA_DISABLE_JIT=1`` nothing is.
    """
    return jitted.is_jitted(f.f if isinstance(f, Call) else f)


def why_not_compilable(f: Callable[..., Any], x: Array) -> str:
    """Return why the loop cannot be compiled for a jitted f; "" if it can, and is now."""
    if not x.size:
        return ""
    try:
        values(f, x, at(x))
    except NotCompilableError as refusal:
        return refusal.reason
    return ""


def require_no_dict(x: object) -> None:
    """Refuse what no function compiled by numba can take, in whatever loop."""
    if isinstance(x, dict):
        raise TypeError(
            "x is a dict, which a function compiled by numba cannot take; pass a tuple of arrays"
        )


def values_or_loop(f: Callable[..., Any], x: Array, moves: Moves) -> Array:
    """Return what `values` does, or `loop.values` where the loop cannot be compiled."""
    try:
        return values(f, x, moves)
    except NotCompilableError:
        pass
    return loop.values(f, x, moves)


def _ready(array: Array, dtype: Any) -> Array:
    """Return an array as the loop is compiled for: writable, in C order, and of this dtype."""
    if array.flags.carray and array.dtype == dtype:
        return array
    return np.require(array, dtype, ["C", "W"])  # which takes its time to see that


class _Copies:
    """The arguments of f for one thread, with a copy of x in x's places.

    Parameters
    ----------
    whole : tuple
        All arguments as the user has passed them; of them arrays to which f may write are copied,
        too, each once.
    x : array
    shared : bool
        Whether some share memory, so that they are left as they are.

    Attributes
    ----------
    x : array
        The copy of x.
    elements : array (n,)
        Its memory, with gaps if x has some.
    arguments : tuple
        All arguments, of the types that they have for numba.
    """

    def __init__(self, whole: tuple[Any, ...], x: Array, shared: bool) -> None:
        copy, self.elements = _copy(x)
        copies = {id(x): copy}
        if not shared:
            for array in arrays_in(whole):
                if array.flags.writeable and id(array) not in copies:
                    copies[id(array)], _ = _copy(array)
        self.arguments: tuple[Any, ...] = _with(copies, whole)
        self.x, self._before = copy, self.elements.tobytes()

    def found(self, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where the elements at these places of x, in C order, are in its copy's memory."""
        if self.x.flags.c_contiguous:
            return places
        indices = np.arange(self.elements.size)
        scale = indices.itemsize / self.elements.itemsize
        strides = [int(scale * stride) for stride in self.x.strides]
        where = np.ndarray(self.x.shape, indices.dtype, indices, 0, strides)
        return where.reshape(-1)[places]

    def require_unwritten(self) -> None:
        """Refuse an f that has changed elements of x other than the one that was moved."""
        if self.elements.tobytes() != self._before:
            raise ValueError(
                "f changes its argument x, so that its values do not belong to the points; let it "
                "work on a copy, as in f(x.copy())"
            )


def _copy(array: Array) -> tuple[Array, Array]:
    """Return a copy that is laid out as numba's types tell it, and its memory as a flat array."""
    gap, like = 1, np.empty_like(array, order="K", subok=False)
    if (like.flags.c_contiguous, like.flags.f_contiguous) != (
        array.flags.c_contiguous,
        array.flags.f_contiguous,
    ):  # every second element of the memory, as of a slice
        gap = 2
    memory = np.zeros(gap * array.size, array.dtype)
    copy: Array = np.ndarray(
        array.shape, array.dtype, memory, 0, tuple(gap * stride for stride in like.strides)
    )
    copy[...] = array
    if not array.flags.aligned:
        raise NotCompilableError("an argument is not aligned in memory")
    return copy, memory


def _with(copies: dict[int, Array], value: Any) -> Any:
    """Return an argument with copies, which are told by the arrays' numbers, in their places."""
    if isinstance(value, tuple):
        parts = [_with(copies, part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return copies.get(id(value), value)


def _share_memory(arrays: list[Array]) -> bool:
    """Say whether arrays share memory to which f may write: copies would be apart."""
    apart = [*{id(array): array for array in arrays}.values()]
    return any(
        (first.flags.writeable or second.flags.writeable) and share(first, second, MAX_OVERLAP_WORK)
        for i, first in enumerate(apart)
        for second in apart[:i]
    )


def _can_be_copied(value: Any) -> bool:
    """Say whether threads can have their own: a list, say, f might change in all at once."""
    if isinstance(value, tuple):
        return all(_can_be_copied(part) for part in value)
    return (
        value is None or isinstance(value, (np.ndarray, Number, np.bool_, str)) or is_jitted(value)
    )


def _require_served(x: Array, given: Any, arrays: list[Array]) -> None:
    """Refuse an x that the compiled loop would not move as the plain loop does.

    f is given it as ``given`` or in it, and the arrays among all its arguments are listed.
    """
    require_no_dict(given)
    if type(x) is not np.ndarray or x.dtype.char not in "fdFD" or not x.dtype.isnative:
        raise NotCompilableError(f"x is a {type(x).__name__} of dtype {x.dtype}")
    if not x.flags.c_contiguous:
        _require_own_memory(x)
    if not any(array is x for array in arrays):
        raise NotCompilableError(f"x is in a {type(given).__name__}")
    if any(array is not x and share(array, x, MAX_OVERLAP_WORK) for array in arrays):
        raise NotCompilableError("another array shares memory with x")


def _require_own_memory(x: Array) -> None:
    """Refuse an x some of whose elements may be the same."""
    extent = x.dtype.itemsize
    for stride, length in sorted(zip(map(abs, x.strides), x.shape, strict=True)):
        if length > 1 and stride < extent:
            raise NotCompilableError("elements of x may share memory")
        extent += stride * (length - 1)


def _require_variable(x: Array, arrays: list[Array], constant: Array | None) -> None:
    """Refuse an x that f also reads as a constant: f would not see that it moves, or only half."""
    if constant is None:
        return
    if np.may_share_memory(x, constant):
        raise ValueError(
            "f also reads x as a variable from outside, which numba has taken as a constant; let "
            "f read its argument alone, or pass x.copy() if the constant is meant not to move"
        )
    if any(array.flags.writeable and share(array, constant, MAX_OVERLAP_WORK) for array in arrays):
        raise NotCompilableError("an argument is also read as a variable from outside")


def _require_type(returned: np.dtype[Any], dtype: np.dtype[Any]) -> None:
    """Refuse complex values for a real x, and real ones for a complex x."""
    if (returned.kind == "c") != (dtype.kind == "c"):
        raise TypeError(
            f"f returned {returned} for an x of {dtype}; "
            "the complex step needs a function that computes with its argument, without abs, max "
            "and the like, and other schemes need one that returns real numbers"
        )


# Certificates -------------------------------------------------------------------------------------

MIN_GRADIENT_RATIO = 20
"""How many times longer gradients take than their certificates, but for the first one of a
function, and the first one in lanes: calls of it from Python take longer than many gradients, and
what is wrong of a compiled loop is hardly ever wrong once only."""


class _Run(NamedTuple):
    """An evaluation in a compiled loop: f and x as given, copies of all arguments, and the loop."""

    f: Callable[..., Any]
    x: Array
    copies: Callable[[], _Copies]
    jitted: Any
    compiled: CompiledLoop


_recent = threading.local()
"""The last run of each thread."""


def certify(problem: Problem, values: Values, gradient: Array) -> None:
    """Compare a gradient that was evaluated in a compiled loop with f, and mend it.

    Does nothing if another engine has evaluated it, or certificates have become too costly.

    Parameters
    ----------
    problem : Problem
        Of which all elements are moved alike; x stays as it is.
    values : callable
        How f was evaluated.
    gradient : array like x
        The quotients.

    Warns
    -----
    RuntimeWarning
        If it was wrong.
    """
    f, x, h, scheme = problem.f, problem.x, problem.steps, problem.scheme
    run: _Run | None = getattr(_recent, "run", None)
    _recent.run = None  # which would keep x alive
    if run is None or run.f is not f or run.x is not x or x.dtype != np.float64:
        return
    compiled = run.compiled
    if compiled.seconds - compiled.certified < MIN_GRADIENT_RATIO * compiled.price:
        return
    start = time.perf_counter()
    copies = run.copies()

    def value(_: Array) -> Any:
        return run.jitted(*copies.arguments)

    def slopes(step: float) -> Array:
        central = problem.replaced(steps=step, scheme=central_quotient, quotients=None)
        return central.gradient(values).reshape(-1)

    quotients = gradient.reshape(-1).copy()
    magnitude = abs(float(value(copies.x)))
    is_slope = scheme.is_central and scheme.derivative == 1
    certificate = certificates.Certificate(
        certificates.NearbyValues(value, copies.x, h, scheme, magnitude, magnitude),
        quotients,
        slopes,
        quotients.copy() if is_slope else None,
    )
    try:
        certificate.mend()
        said = certificate.said
    except certificates.Disagreement as where:
        quotients = loop.gradient(value, copies.x, h, scheme=scheme).reshape(-1)
        is_same = np.array_equal(quotients, gradient.reshape(-1), equal_nan=True)
        said = "" if is_same else str(where)
    if said:
        gradient[...] = quotients.reshape(gradient.shape)
        warn_caller(
            f"the compiled gradient was wrong: {said}; it has been mended by calls of f. If f "
            "gives the same value at each call, this is a defect of fastgrad: please report f"
        )
    compiled.price = time.perf_counter() - start
    compiled.certified = compiled.seconds
    _recent.run = None
