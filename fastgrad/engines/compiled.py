"""How is a function that numba has compiled evaluated? In a compiled loop, on all threads."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from numbers import Number
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.engines import loop
from fastgrad.engines.compilation import NotCompilableError, compiled_loop, is_jitted
from fastgrad.engines.threads import Work, spread
from fastgrad.structures import Call

Array = NDArray[Any]


def values(
    f: Callable[..., Any],
    x: Array,
    places: NDArray[np.intp],
    points: Array,
    shape: tuple[int, ...] = (),
) -> Array:
    """Return f at each point to which an element of x is moved.

    As `loop.values`, and with its bits (of an f without fastmath), but for this: x itself is never
    moved. Each thread moves the elements of a copy, takes copies of all writable arrays among f's
    further arguments, and is called in no certain order. So f must depend on its arguments alone.

    Once an f has taken a quarter of a second, and if it is made of operations on single numbers
    and of array expressions, it is evaluated at several points at once (`lanes_loop`), in a
    fraction of the time.

    Parameters
    ----------
    f : jitted function, or `Call` of one
        If it returns arrays or starts threads itself, that is fine, too; the latter runs in one
        thread here, and so does an f with arguments other than arrays, numbers, strings and
        tuples of them.
    x, places, points, shape
        As for `loop.values`; x of float64, float32 or their complex types.

    Raises
    ------
    TypeError, ValueError
        If f or x cannot be served; the message says why. What f raises passes unchanged: of
        several exceptions the one that the loop would have met first.
    """
    try:
        return _values(f, x, places, points, shape)
    except NotCompilableError as refusal:
        reason = str(refusal)
    raise ValueError(
        f"engine is 'compiled', which cannot serve f: {reason}; pass engine='auto' or 'loop'"
    )


def values_if_served(
    f: Callable[..., Any],
    x: Array,
    places: NDArray[np.intp],
    points: Array,
    shape: tuple[int, ...] = (),
) -> Array:
    """Return what `values` does, or `loop.values` where the loop cannot be compiled."""
    try:
        return _values(f, x, places, points, shape)
    except NotCompilableError:
        pass
    return loop.values(f, x, places, points, shape)


def refusal(f: Callable[..., Any], x: Array) -> str:
    """Return why the loop cannot be compiled for a jitted f; "" if it can, and is now."""
    if not x.size:
        return ""
    here = np.zeros(1, dtype=np.intp)
    try:
        _values(f, x, here, x.reshape(-1)[here].reshape(1, 1), ())
    except NotCompilableError as reason:
        return str(reason)
    return ""


def require_no_dict(x: object) -> None:
    """Refuse what no function compiled by numba can take, in whatever loop."""
    if isinstance(x, dict):
        raise TypeError(
            "x is a dict, which a function compiled by numba cannot take; pass a tuple of arrays"
        )


def _values(
    f: Callable[..., Any],
    x: Array,
    places: NDArray[np.intp],
    points: Array,
    shape: tuple[int, ...],
) -> Array:
    import numba

    call = f if isinstance(f, Call) else Call(f, (), None, None)
    if not is_jitted(call.f):
        if vars(numba.config)["DISABLE_JIT"]:
            return loop.values(f, x, places, points, shape)
        raise TypeError(
            f"f is a {type(call.f).__name__}, which numba has not compiled; decorate it with "
            "@numba.njit, or pass engine='auto' or 'loop'"
        )
    whole = (call.given(x), *call.args)
    arrays = _leaves(whole)
    _require_served(x, whole[0], arrays)
    first = _copies(whole, x)
    compiled = compiled_loop(call.f, *first, shape)
    for array in compiled.constants:
        _require_variable(x, array())
    if not shape:
        _require_type(compiled.dtype, x.dtype)
    places, points = _ready(places, np.intp), _ready(points, x.dtype)
    out = np.empty((*points.shape, *shape), compiled.dtype)

    prepared = [first]
    in_lanes = None
    if whole[0] is x and sum(array is x for array in arrays) == 1:
        in_lanes = compiled.lanes(call.f)

    def new_work() -> Work:
        copies = prepared.pop() if prepared else _copies(whole, x)
        evaluate: Callable[..., None] = partial(compiled.run, *copies)
        if in_lanes is not None:
            evaluate = in_lanes.evaluation(*copies, evaluate)

        def work(chunk: slice) -> None:
            with _turn(compiled.alone):
                evaluate(places[chunk], points[chunk], out[chunk])

        return work

    alone = compiled.alone or not _can_be_copied(whole)
    threads = (lambda: 1) if alone else numba.get_num_threads
    grain = 1 if in_lanes is None else in_lanes.rows(points)
    case = (x.size, points.shape[1], grain)
    start = time.perf_counter()
    item = spread(new_work, len(places), threads, grain, compiled.item_seconds(case))
    compiled.note(time.perf_counter() - start, case, item)
    return out.astype(object) if out.dtype.kind in "iub" and not shape else out


def _ready(array: Array, dtype: Any) -> Array:
    """Return an array as the loop is compiled for: writable, in C order, and of this dtype."""
    if array.flags.carray and array.dtype == dtype:
        return array
    return np.require(array, dtype, ["C", "W"])  # which takes its time to see that


def _turn(alone: bool) -> AbstractContextManager[object]:
    """Give the lock under which threads are launched, for an f that launches them."""
    if not alone:
        return nullcontext()
    from fastgrad.network.jit import exclusive

    return exclusive()


def _copies(whole: tuple[Any, ...], x: Array) -> tuple[Array, tuple[Any, ...]]:
    """Return the elements of a copy of x, flat, and all arguments with copies in their places."""
    scratch = x.copy(order="C")
    return scratch.reshape(-1), _copied(whole, x, scratch)


def _copied(value: Any, x: Array, scratch: Array) -> Any:
    """Return an argument for a thread: x's copy, a copy of what f might write, or the same."""
    if value is x:
        return scratch
    if isinstance(value, np.ndarray):
        return value.copy(order="K") if value.flags.writeable else value
    if isinstance(value, tuple):
        parts = [_copied(part, x, scratch) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    return value


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
    if any(array is not x and np.may_share_memory(array, x) for array in arrays):
        raise NotCompilableError("another array shares memory with x")


def _require_own_memory(x: Array) -> None:
    """Refuse an x some of whose elements may be the same."""
    extent = x.dtype.itemsize
    for stride, length in sorted(zip(map(abs, x.strides), x.shape, strict=True)):
        if length > 1 and stride < extent:
            raise NotCompilableError("elements of x may share memory")
        extent += stride * (length - 1)


def _leaves(value: Any) -> list[Array]:
    """Return the arrays in tuples of tuples."""
    if isinstance(value, tuple):
        return [array for part in value for array in _leaves(part)]
    return [value] if isinstance(value, np.ndarray) else []


def _require_variable(x: Array, constant: Array | None) -> None:
    """Refuse an x that f also reads as a constant: f would not see that it moves, or only half."""
    if constant is not None and np.may_share_memory(x, constant):
        raise ValueError(
            "f also reads x as a variable from outside, which numba has taken as a constant; let "
            "f read its argument alone, or pass x.copy() if the constant is meant not to move"
        )


def _require_type(returned: np.dtype[Any], dtype: np.dtype[Any]) -> None:
    """Refuse complex values for a real x, and real ones for a complex x."""
    if (returned.kind == "c") != (dtype.kind == "c"):
        raise TypeError(
            f"f returned {returned} for an x of {dtype}; "
            "the complex step needs a function that computes with its argument, without abs, max "
            "and the like, and other schemes need one that returns real numbers"
        )
