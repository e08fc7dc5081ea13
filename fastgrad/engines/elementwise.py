"""Functions of single elements: f at points for all elements of x at once, by few calls."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastgrad.differences.arguments import PROBE_SCALE, as_returned, element_at
from fastgrad.differences.guard import Original
from fastgrad.engines.loop import MAX_STACK_BYTES, numbers
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.typing import Array, Flags, Moves, Report, Values

MAX_ROUNDING_EPS = 64
"""How many eps, relative to it, a value may change by rounding."""


def values(f: Callable[[Array], Any], x: Array, moves: Moves) -> Array:
    """Return f at each point to which an element of x is moved, for all elements at once.

    Parameters
    ----------
    f : callable
        ``f(x)`` -> array of x's shape, each element of which depends on the same one of x alone.
        It is called m times.
    x : array
        Moved in place; bit-identical afterwards, even if f raises or the user interrupts.
    moves : Moves
        Where n different elements are moved, m times each.

    Returns
    -------
    array (n, m)
        In the type that f returns.

    Raises
    ------
    TypeError, ValueError
        If f returns no real numbers, or in another shape.

    Examples
    --------
    >>> moves = Moves(np.array([0, 1]), np.array([[2.0, 3.0], [4.0, 5.0]]))
    >>> values(lambda x: x**2, np.ones(2), moves)
    array([[ 4.,  9.],
           [16., 25.]])
    """
    places, points, _ = moves
    is_complex = points.dtype.kind == "c"
    original = Original(x)
    columns = []
    try:
        for k in range(points.shape[1]):
            point = original.copy.astype(points.dtype)
            point.flat[places] = points[:, k]
            if not is_complex:
                original.plain[...] = point
            value = _value_of_each(f, point if is_complex else x)
            columns.append(value.reshape(-1)[places])
    finally:
        original.put_back()
    return np.stack(columns, axis=1) if columns else np.empty(points.shape)


class CheckedCalls:
    """An elementwise function, called at stacks of points where it takes them; calls are counted.

    A stack is an array ``(k, *x.shape)``, with which what is of x's shape is broadcast. That f
    takes stacks is no more than a guess, for it may look at x's shape, or read x elsewhere. The
    first one therefore ends with a point at which f of x itself is known, and has to return the
    same there; otherwise, and where f raises, x is moved in place from then on.

    Parameters
    ----------
    f : callable
        As `values` takes it. It is called twice.
    x : array
        Bit-identical afterwards.

    Attributes
    ----------
    base : array
        f(x), in double precision.
    evaluations : int
        How often f was called, beside the call at x itself.

    Raises
    ------
    TypeError, ValueError
        If an element of f(x) changes where other elements of x are moved, or f returns something
        else than real numbers in x's shape.
    """

    def __init__(self, f: Callable[[Array], Any], x: Array) -> None:
        self.base = _value_of_each(f, x).astype(np.float64)
        original = Original(x)
        flat = original.copy.reshape(-1)
        is_moved = np.random.default_rng(0).permutation(flat.size) % 2 == 0
        self._point = np.where(is_moved, flat + PROBE_SCALE * np.maximum(abs(flat), 1), flat)
        with np.errstate(all="ignore"):
            value = original.value_at(partial(_value_of_each, f), self._point)
        self._value, self.evaluations = value.reshape(-1).astype(np.float64), 1
        changed = np.flatnonzero(_differ(self._value, self.base.reshape(-1), x) & ~is_moved)
        if len(changed):
            raise ValueError(
                f"elementwise is True, but {element_at('f(x)', changed[0], x.shape)} changes where "
                "other elements of x than this one are moved; leave elementwise out"
            )
        self._takes_stacks = type(x) is np.ndarray and bool(np.isfinite(self._value).any())
        self._is_proven = False

    def values(self, report: Report | None) -> Values:
        """Return how f is evaluated, as `Evaluator.values` does."""
        return partial(self._values, report)

    def _values(
        self, report: Report | None, f: Callable[[Any], Any], x: Array, moves: Moves
    ) -> Array:
        found = self._by_stacks(f, x, moves)
        if found is None:
            self.evaluations += moves.points.shape[1]
            found = values(f, x, moves)
        if report is not None:
            report(len(moves.places))
        return found

    def _by_stacks(self, f: Callable[[Any], Any], x: Array, moves: Moves) -> Array | None:
        """Return what `values` does, by few calls; None if x is to be moved in place."""
        places, points, _ = moves
        rows = MAX_STACK_BYTES // max(x.nbytes, 1) - len(x.shape) - 1
        if not self._takes_stacks or rows < 2 or points.shape[1] < 2 or points.dtype != x.dtype:
            return None
        results = []
        for start in range(0, points.shape[1], rows):
            some = points[:, start : start + rows]
            count = some.shape[1]
            length = count if self._is_proven else count + 1
            while length in x.shape:  # else f might take the number of points for one of elements
                length += 1
            stack_shape = (length, *x.shape)
            stack = np.empty((length, x.size), x.dtype)
            stack[:count], stack[count:] = x.reshape(-1), self._point
            stack[:count, places] = some.T
            self.evaluations += 1
            try:
                result = as_returned(f(stack.reshape(stack_shape)))
            except Exception as error:
                if self._is_proven:
                    raise
                raise_interrupt(error)
                self._takes_stacks = False
                return None
            if not self._is_proven:
                self._is_proven = self._takes_stacks = self._is_as_known(result, stack_shape, x)
                if not self._is_proven:
                    return None
            result = numbers(_of_shape(result, stack_shape), x)
            results.append(result.reshape(length, -1)[:count, places])
        return np.concatenate(results).T

    def _is_as_known(self, result: Array, shape: tuple[int, ...], x: Array) -> bool:
        """Say whether the last value in what f has returned for a stack is the one it must be."""
        if result.shape != shape or result.dtype.kind not in "fiu":
            return False
        last = result[-1].reshape(-1).astype(np.float64)
        return not _differ(last, self._value, x).any()


def _differ(values: Array, others: Array, x: Array) -> Flags:
    """Say where values differ by more than rounding, or one of both is nan."""
    with np.errstate(invalid="ignore"):
        slack = MAX_ROUNDING_EPS * np.finfo(x.dtype).eps * np.minimum(abs(values), abs(others))
        return np.asarray((abs(values - others) > slack) | (np.isnan(values) != np.isnan(others)))


def _value_of_each(f: Callable[[Array], Any], x: Array) -> Array:
    """Return f(x), an array of x's shape."""
    return numbers(_of_shape(as_returned(f(x)), x.shape), x)


def _of_shape(result: Array, shape: tuple[int, ...]) -> Array:
    """Return what f has returned; refuse another shape than that of its argument."""
    if result.shape != shape:
        raise ValueError(
            f"f returned an array of shape {result.shape}, but with elementwise=True it returns "
            f"one of x's shape {shape}; leave elementwise out"
        )
    return result
