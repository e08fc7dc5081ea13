"""The engines that call f from Python: on x, moved in place, or on stacks of moved copies of x.

And how far any engine has come: a bar, or a function that is told how many elements are done.
"""

import reprlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from itertools import repeat
from numbers import Complex, Real
from typing import Any

import numpy as np

from fastgrad.differences.arguments import as_returned, check_end, remedy_for
from fastgrad.differences.guard import Original, require_unchanged
from fastgrad.differences.quotients import fill, join, memory_order
from fastgrad.schemes import Scheme, central_quotient
from fastgrad.typing import Array, Moves, Places, Progress, Report, Values

SCALAR_TYPES = frozenset({float, int, np.float64, np.float32, np.longdouble})
"""Types of values that are taken as they are; values of any other type are looked at first."""

DOUBLE_TYPES = frozenset({float, np.float64})
"""Types of values that are doubles all together."""

BLOCK_ELEMENTS = 512
"""Elements whose points are Python lists at a time: few enough to stay in the processor's cache."""

MAX_COMPARED_BYTES = 512
"""Bytes of x up to which it is compared with what it was after each element; else after a block."""

REPORT_SECONDS = 0.1
"""Seconds between two reports, about."""

ELEMENT_TOLERANCE = 1e-6
"""What elements may lack that are reported in parts, by points or steps of theirs."""


def values(f: Callable[[Array], Any], x: Array, moves: Moves) -> Array:
    """Return f at each point to which an element of x is moved.

    Parameters
    ----------
    f : callable
        Called with x itself, so it may as well read x elsewhere: once for each point, in order.
    x : array
        Writable. Moved in place; bit-identical afterwards, even if f raises or the user interrupts.
    moves : Moves
        Where n elements are moved, m times each.

    Returns
    -------
    array (n, m, *shape)
        In the type that f returns; Python's and NumPy's integers as Python's, which never wrap.

    Raises
    ------
    TypeError, ValueError
        If f does not return a number (or an array of the shape), or writes into x. What f raises
        passes unchanged.
    """
    take: Callable[[Any], Any] = _complex_number if x.dtype.kind == "c" else real_number
    if moves.shape:
        take = partial(_array, moves.shape)
    original = Original(x)
    is_small = original.copy.nbytes <= MAX_COMPARED_BYTES
    blocks = _blocks(moves.places, moves.points, first_alone=not is_small)
    results, are_doubles = _results(f, x, original, take, blocks)
    return _collected(results, are_doubles, (*moves.points.shape, *moves.shape))


def gradient_of_few(f: Callable[[Array], Any], x: Array, h: float) -> tuple[Array, list[Any]]:
    """Return the bits of the book's quotients that `gradient` returns, and f at all points.

    Of an x that `are_few` says yes to, and with fewer arrays: they took longer than a cheap f.
    """
    original = Original(x)
    block = [(i, x_i + h, x_i - h) for i, x_i in enumerate(original.copy.reshape(-1).tolist())]
    results, are_doubles = _results(f, x, original, real_number, [block])
    if not are_doubles:
        with np.errstate(all="ignore"):
            found = central_quotient.combine(_collected(results, are_doubles, (x.size, 2)), h)
        return found.astype(np.float64).reshape(x.shape), results
    values, width = map(float, results), 2 * h
    pairs = zip(values, values, strict=True)  # f above and below each element
    return np.array([(above - below) / width for above, below in pairs]).reshape(x.shape), results


def are_few(x: Array) -> bool:
    """Say whether x is a plain array of a few doubles."""
    is_plain = type(x) is np.ndarray and x.dtype == np.float64 and x.flags.carray
    return is_plain and x.nbytes <= MAX_COMPARED_BYTES


def _results(
    f: Callable[[Array], Any],
    x: Array,
    original: Original,
    take: Callable[[Any], Any],
    blocks: Iterable[Iterable[tuple[int, Any, Any]]],
) -> tuple[list[Any], bool]:
    """Return f at each point, and whether these are all doubles.

    What is of another type than the value before is looked at by ``take``.
    """
    exact = SCALAR_TYPES if take is real_number else frozenset()
    results: list[Any] = []
    usual: type | None = None
    kinds: set[type] = set()
    plain, saved = original.plain, original.copy
    elements = _elements(plain)
    small = saved.nbytes <= MAX_COMPARED_BYTES
    before = saved.tobytes() if small else b""
    bits = getattr(elements, "tobytes", plain.tobytes)
    # The fastest of the forms that were tried (`python -m benchmarks compiled`): as few steps of
    # Python's as can be for each call, for after a long f the processor predicts none. So two calls
    # are written out, which most schemes make for each element.
    try:
        for block in blocks:
            for i, target, second in block:
                old = elements[i]  # not what it was at first: f may have written into it
                elements[i] = target
                value = f(x)
                if elements[i] != target:  # f has written there, or it is a nan
                    _require_moved(original, i, target)
                if type(value) is not usual:
                    value = value if type(value) in exact else take(value)
                    kinds.add(type(value))
                    usual = type(value) if type(value) in exact else None
                results.append(value)
                if second is not None:
                    elements[i] = second
                    value = f(x)
                    if elements[i] != second:
                        _require_moved(original, i, second)
                    if type(value) is not usual:
                        value = value if type(value) in exact else take(value)
                        kinds.add(type(value))
                        usual = type(value) if type(value) in exact else None
                    results.append(value)
                elements[i] = old
                if small and bits() != before:
                    original.require()
            if not small or original.is_masked:
                original.require()
    finally:
        plain[...] = saved  # one assignment, which no interrupt can divide
    return results, kinds <= DOUBLE_TYPES


def _collected(results: list[Any], are_doubles: bool, shape: tuple[int, ...]) -> Array:
    """Return values of f as an array: integers as Python's."""
    if are_doubles:  # NumPy need not look at each
        return np.array(results, np.float64).reshape(shape)
    collected = np.array(results)
    if collected.dtype.kind in "biu":
        collected = np.array(results, dtype=object)
    return collected.reshape(shape)


def _require_moved(original: Original, i: int, target: Any) -> None:
    """Refuse an f that has written into the element that is moved while it computes.

    But not one that puts back there what was there, as a net does whose pruned weights are 0.
    """
    moved = original.plain.copy()
    if moved.flat[i] != original.copy.flat[i]:
        moved.flat[i] = target
        require_unchanged(original.plain, moved)


def _blocks(
    places: Places, points: Array, *, first_alone: bool
) -> Iterator[Iterable[tuple[int, Any, Any]]]:
    """Yield, some places at a time, a place and two points to which the element there is moved.

    Or one and None. The first element's points may come one by one, so that x is looked at after
    the first call.
    """
    if first_alone:
        for target in points[:1].reshape(-1).tolist():
            yield [(int(places[0]), target, None)]
    each = points.shape[1]
    for start in range(first_alone, len(places), BLOCK_ELEMENTS):
        some = slice(start, start + BLOCK_ELEMENTS)
        targets = iter(points[some].reshape(-1).tolist())
        pairs = places[some].repeat(each if each % 2 else each // 2).tolist()
        yield zip(pairs, targets, repeat(None) if each % 2 else targets, strict=False)


def _elements(plain: Array) -> Any:
    """Return what reads and writes single elements of a plain array, by flat indices.

    A memoryview is the fastest, but turns numbers into Python's.
    """
    if plain.flags.carray and plain.dtype.char in "fd" and plain.dtype.isnative:
        return plain.reshape(-1).data
    return plain.flat


def gradient(
    f: Callable[[Array], Any],
    x: Array,
    h: float,
    places: Iterable[int] | None = None,
    scheme: Scheme = central_quotient,
) -> Array:
    """Return ``(f(x + h e_i) - f(x - h e_i)) / (2 h)``, by the loop, for the elements i of x.

    Bit-identical with the book's loop (`fastgrad.reference.numerical_gradient`) for float32 and
    float64 in any memory layout. With places, indices into x in C order, only for those; the
    other elements of the result are 0. Other schemes than the book's are served, too.
    """
    chosen = memory_order(x) if places is None else np.array([*places], dtype=np.intp)
    result = np.zeros_like(x)
    fill(result, values, f, x, chosen, h, scheme)
    return result


def real_number(value: Any) -> Any:
    """Return what f returned as a scalar that can be subtracted.

    Arrays of one element are read at once, for f may return the same array every time.
    """
    number = _scalar(value)
    # NumPy's integers wrap around when they are subtracted.
    if isinstance(number, np.integer):
        return int(number)
    if isinstance(number, Real):
        return number
    raise TypeError(
        f"f returned {reprlib.repr(value)} of type {type(value).__name__}, but it must return a "
        f"real number; {check_end(np.asarray(number).dtype.kind)}"
    )


def _complex_number(value: Any) -> Any:
    """Return what f returned for a complex x."""
    number = _scalar(value)
    if isinstance(number, Complex) and not isinstance(number, Real):
        return number
    raise TypeError(
        f"f returned {reprlib.repr(value)} of type {type(value).__name__} for a complex x; the "
        "complex step needs a function that computes with its argument, without abs, max and the "
        "like: pass another scheme, such as 'central'"
    )


def _scalar(value: Any) -> Any:
    """Return the single number that f has returned."""
    if isinstance(value, Complex):
        return value
    array = as_returned(value)
    if array.size != 1:
        raise ValueError(
            f"f returned an array of shape {array.shape}, but it must return a single number; "
            f"{remedy_for(value)}"
        )
    return array.reshape(())[()]


def _array(shape: tuple[int, ...], value: Any) -> Array:
    """Return what f returned, of a shape that is known."""
    array = as_returned(value)
    if array.shape != shape:
        raise ValueError(
            f"f returned an array of shape {array.shape} and, before, one of shape {shape}; "
            "it must return arrays of one shape"
        )
    return array


# Stacks -------------------------------------------------------------------------------------------

MAX_STACK_BYTES = 2**20
"""Bytes that a stack of points takes at most; a single point may take more. What fits a processor's
cache is evaluated faster than what does not."""


def stacked_values(f: Callable[[Array], Any], x: Array, moves: Moves) -> Array:
    """Return f at each point to which an element of x is moved, by calls for many points at once.

    Parameters
    ----------
    f : callable
        ``f(stack)``, where stack is an array ``(m, *x.shape)`` of its own, in C order and x's
        dtype, that f may change; returns an array ``(m, *shape)``. It is called as often as it
        takes for stacks of at most `MAX_STACK_BYTES`.
    x : array
        Never touched.
    moves : Moves
        Where n elements are moved, m times each; with the shape of f for a point.

    Returns
    -------
    array (n, m, *shape)
        In the type that f returns; integers as Python's, which never wrap.

    Raises
    ------
    TypeError, ValueError
        If f returns anything but real numbers (complex ones for a complex x) in that shape. What f
        raises passes unchanged.

    Examples
    --------
    >>> x = np.array([1.0, 2.0])
    >>> moves = Moves(np.array([1]), np.array([[2.5, 1.5]]))
    >>> stacked_values(lambda stack: stack.sum(axis=1), x, moves)
    array([[3.5, 2.5]])
    """
    moved, targets, shape = moves.singly()
    flat = x.view(np.ndarray).reshape(-1)
    rows = max(1, MAX_STACK_BYTES // max(flat.nbytes, 1))
    results = []
    for start in range(0, len(targets), rows):
        block = slice(start, start + rows)
        count = len(targets[block])
        stack = np.empty((count, flat.size), x.dtype)  # anew: f may have changed the last one
        stack[:] = flat
        stack[np.arange(count), moved[block]] = targets[block, 0]
        results.append(_stack_of_results(f(stack.reshape(count, *x.shape)), (count, *shape), x))
    collected = np.concatenate(results) if results else np.empty((0, *shape))
    return collected.reshape(*moves.points.shape, *shape)


def _stack_of_results(returned: Any, shape: tuple[int, ...], x: Array) -> Array:
    """Return a copy of what f returned, in numbers that never wrap."""
    result = as_returned(returned)
    if result.shape != shape:
        raise ValueError(
            f"f returned an array of shape {result.shape} for a stack of shape "
            f"{(shape[0], *x.shape)}, but with vectorized=True it returns one of shape {shape}, a "
            "value for each point; reduce all axes but the first, or leave out vectorized"
        )
    return numbers(result, x)


def numbers(result: Array, x: Array) -> Array:
    """Return what f returned in numbers that never wrap; complex ones for a complex x."""
    kinds = "c" if x.dtype.kind == "c" else "fiu"
    if result.dtype.kind not in kinds:
        wanted = "complex numbers for a complex x" if kinds == "c" else "real numbers"
        raise TypeError(
            f"f returned an array of dtype {result.dtype}, but it must return {wanted}; "
            f"{check_end(result.dtype.kind)}"
        )
    return result.astype(object) if result.dtype.kind in "iu" else result


# Progress -----------------------------------------------------------------------------------------


@contextmanager
def shown(progress: Progress, total: int, delay: float = 0.0) -> Iterator[Report]:
    """Give the block a function to report progress to.

    Parameters
    ----------
    progress : True or callable
        True shows a bar of tqdm's. A callable is called as ``progress(done, total)``, with more
        done each time, and at the end with all, unless an exception ends the block.
    total : int
        How many elements there are.
    delay : float
        Seconds from which a bar is shown.

    Examples
    --------
    >>> with shown(lambda done, total: print(f"{done} of {total}"), total=3) as report:
    ...     report(1)
    ...     report(2)
    3 of 3
    """
    bar: Any = nullcontext()
    if progress is True:
        from tqdm import tqdm

        bar = tqdm(total=total, desc="Elements", unit="", delay=delay)
    done, told, last = 0.0, 0, time.perf_counter()

    def report(elements: float) -> None:
        nonlocal done, told, last
        done = min(done + elements, total)  # x itself may be evaluated once more
        now, whole = time.perf_counter(), int(done + ELEMENT_TOLERANCE)
        if whole > told and (now - last >= REPORT_SECONDS or whole == total):
            if progress is True:
                bar.update(whole - told)
            elif callable(progress):
                progress(whole, total)
            told, last = whole, now

    with bar:
        yield report
        report(total - done)


def require_progress(progress: object) -> None:
    """Refuse what progress cannot be shown by, and a bar that nothing can draw."""
    if not (callable(progress) or isinstance(progress, bool)):
        raise TypeError(
            f"progress is {progress!r}; pass True for a bar, or a function progress(done, total)"
        )
    if progress is True:
        try:
            import tqdm  # noqa: F401  (is it there?)
        except ModuleNotFoundError:
            raise ModuleNotFoundError(
                "progress=True draws its bar with tqdm, which is not installed; "
                "pip install 'fastgrad[progress]', or pass a function progress(done, total)",
                name="tqdm",
            ) from None


def in_parts(report: Report | None, part: float) -> Report | None:
    """Return what reports so large a part of each element; None if nobody is told."""
    return None if report is None else lambda elements: report(part * elements)


def reporting(values: Values, report: Report | None) -> Values:
    """Return the same way of evaluating f, in blocks of about 0.1 s, each reported."""
    return values if report is None else partial(_reported, values, report)


def _reported(
    values: Values, report: Report, f: Callable[[Any], Any], x: Array, moves: Moves
) -> Array:
    """Return the values, and report each part of them when it is there."""
    parts = []
    for part in in_blocks(values, f, x, moves):
        parts.append(part)
        report(len(part))
    return join(parts)


def in_blocks(values: Values, f: Callable[[Any], Any], x: Array, moves: Moves) -> Iterator[Array]:
    """Yield what ``values(f, x, moves)`` returns, in blocks of about 0.1 s."""
    start, size, count = 0, 1, len(moves.places)
    while start < count or not start:
        began = time.perf_counter()
        part = values(f, x, moves.part(slice(start, start + size)))
        start += size
        # Twice as many while the time is hardly measurable.
        size = min(
            2 * size, max(1, int(size * REPORT_SECONDS / max(time.perf_counter() - began, 1e-9)))
        )
        yield part
