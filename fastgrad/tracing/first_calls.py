"""The first calls of f, at x itself: the values that it gives there, and the time that it takes.

They tell whether f is random, and whether recording it may pay; what records it is not loaded for
an f whose calls are cheap.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.typing import Array

SHORT_CALL_SECONDS = 0.001
"""Seconds below which a call is made twice, since the first one may take longer than others."""

TRACING_CALLS = 6
"""How often f is called to be recorded and, in the end, certified."""

MIN_TRACING_SECONDS = 0.004
"""Seconds that recording and replaying take at least, whatever f is, besides calls of f."""

DIFFERENT_RESULTS = "two calls of it give different results"

CHEAP_CALLS = "calls of it are cheap"

SMALL_X_BYTES = 1 << 15
"""Bytes of x up to which they are compared as Python's objects, which is faster."""

FLOAT_TYPES = frozenset({float, np.float64})
"""Types of values that are floats as they are."""


class FirstCalls:
    """Calls of f at x itself, one or two at first.

    Parameters
    ----------
    f : callable
    x : array
        As it was after each call, whatever f does.
    once : bool
        Whether `confirm` is left to others.

    Attributes
    ----------
    values : list of float
        What f has returned.
    seconds : float
        How long the shortest call has taken.
    refusal : str
        Why f cannot be recorded, if that is known; "" otherwise.
    """

    def __init__(self, f: Callable[[Any], Any], x: Array, *, once: bool = False) -> None:
        self._f, self._x = f, x
        self._plain = x.view(np.ndarray)  # of x's shape, whatever f makes of that
        self._saved = self._plain.copy(order="K")
        self._bytes = self._saved.tobytes() if self._saved.nbytes <= SMALL_X_BYTES else None
        self.values: list[float] = []
        self.seconds, self.refusal = np.inf, getattr(f, "why_not_traced", "")
        is_float = x.dtype.char in "fd" and x.dtype.isnative
        if not is_float or type(x) is not np.ndarray:
            self.refusal = "x is not a plain array of float64 or float32"
        else:
            self.make(1)
            if not once:
                self.confirm()

    def confirm(self) -> None:
        """Call f once more if the first call was short, and the only one."""
        if len(self.values) == 1 and self.seconds < SHORT_CALL_SECONDS:
            self.make(1)

    def make(self, times: int) -> None:
        """Call f so many times more, unless it is known to be of no use."""
        x = self._x
        for _ in range(times):
            if self.refusal:
                return
            start = time.perf_counter()
            try:
                value = self._f(x)
            except Exception as error:  # the loop, which never calls f at x itself, shall decide
                raise_interrupt(error)
                self.refusal = f"it raises {type(error).__name__} at x itself"
                return
            finally:
                seconds = time.perf_counter() - start
                if self._put_back():
                    self.refusal = "it changes x"
            if not self.refusal:
                self.seconds = min(self.seconds, seconds)
                self._note(value)

    def _put_back(self) -> bool:
        """Restore x bit for bit; return whether it had been changed."""
        now, before = self._plain, self._saved
        if self._bytes is not None:
            is_same = now.tobytes() == self._bytes
        else:
            bits = np.dtype(f"i{now.itemsize}")
            is_same = np.array_equal(now.view(bits), before.view(bits))
        if not is_same:
            now[...] = before
        return not is_same

    def _note(self, value: Any) -> None:
        """Add a value to those of f at x, or note why f cannot be recorded."""
        try:
            if type(value) not in FLOAT_TYPES:
                value = np.asarray(value, np.float64).reshape(())
            number = float(value)
        except (TypeError, ValueError, OverflowError):
            self.refusal = "its result is not a number"
            return
        if not abs(number) < np.inf:
            self.refusal = f"its result is {number}"
            return
        self.values.append(number)
        if number != self.values[0]:
            self.refusal = DIFFERENT_RESULTS

    def are_cheap(self, calls: int, least: float) -> bool:
        """Say whether so many calls, but for those that recording takes, take less time."""
        return (calls - TRACING_CALLS) * self.seconds < least


def share(a: Array, b: Array, max_work: int = 1000) -> bool:
    """Say whether two arrays have elements in the same place, or whether that is hard to say.

    How hard is told by max_work, as `numpy.shares_memory` takes it.
    """
    if not np.may_share_memory(a, b):
        return False
    try:
        return bool(np.shares_memory(a, b, max_work))  # type: ignore[arg-type]  # so the stubs
    except np.exceptions.TooHardError:
        return True
