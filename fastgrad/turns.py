"""Turns of threads: calls that move what others read come one after the other.

A call moves arrays in place, and its function reads those and others. Two calls of different
threads are in each other's way if one moves what the other reads; then the later one waits. What a
function reads is found by following its references, which is done only while several threads are
at it. Calls within a call, of the same thread, never wait for it.
"""

import os
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

Extent = tuple[int, int]
"""Where memory begins and ends."""

LONG = 60.0
"""Seconds of waiting after which it is said."""

MOMENT = 0.5
"""Seconds after which a waiting thread looks again, should nobody have told it."""


class _Call:
    """A call of a thread.

    Parameters
    ----------
    moved : arrays
        What it moves.
    things : tuple
        From where all that it reads can be reached: the function, x, further arguments.
    """

    def __init__(self, moved: Sequence[NDArray[Any]], things: Any) -> None:
        self.thread = threading.get_ident()
        self._moved, self._things = moved, things
        self._read: list[Extent] | None = None

    @property
    def moved(self) -> list[Extent]:
        """Where the memory is that it moves."""
        return [byte_bounds(array) for array in self._moved if array.size]

    def read(self) -> list[Extent] | None:
        """Return where the memory is that it reads; None if that cannot be found out now."""
        if self._read is None:
            from fastgrad.tracing.references import find_references

            try:
                arrays = [reference.array for reference in find_references(self._things)]
            except Exception:  # another thread changes what is looked at
                return None
            self._read = [*self.moved, *(byte_bounds(array) for array in arrays if array.size)]
        return self._read

    def is_in_the_way_of(self, other: "_Call") -> bool:
        """Say whether one of two calls moves what the other reads; yes, if in doubt."""
        if self.thread == other.thread:
            return False
        if _overlap(self.moved, other.moved):
            return True
        for one, another in ((self, other), (other, self)):
            if one.moved:
                read = another.read()
                if read is None or _overlap(one.moved, read):
                    return True
        return False


def _overlap(some: list[Extent], others: list[Extent]) -> bool:
    return any(a < d and c < b for a, b in some for c, d in others)


_calls: dict[_Call, None] = {}
"""The calls that are being made."""

_waiting: dict[int, set[int]] = {}
"""Which threads wait for which."""

_ended = threading.Condition()


@contextmanager
def turn(moved: Sequence[NDArray[Any]], things: tuple[Any, ...]) -> Iterator[None]:
    """Wait until no other thread is in the way, and hold others up during the block.

    Parameters
    ----------
    moved : arrays
        What is moved during the block.
    things : tuple
        From where all that is read during the block can be reached.

    Raises
    ------
    RuntimeError
        If the other thread waits for this one, in a call within its call.

    Warns
    -----
    RuntimeWarning
        If it waits for a minute.
    """
    call = _Call(moved, things)
    try:
        with _ended:
            if _calls:
                _wait(call)
            _calls[call] = None
        yield
    finally:
        _calls.pop(call, None)  # which no interrupt can divide
        if _waiting:
            with _ended:
                _ended.notify_all()


def _wait(call: _Call) -> None:
    """Wait until no call is in the way."""
    start, said = time.monotonic(), False
    try:
        while others := {other.thread for other in [*_calls] if call.is_in_the_way_of(other)}:
            holds_up = any(other.thread == call.thread for other in [*_calls])
            if holds_up and call.thread in _waited_for(others):
                raise RuntimeError(
                    "two threads wait for each other: each is within a call of fastgrad that moves "
                    "what the other reads, and makes another one; make such calls in one thread"
                )
            _waiting[call.thread] = others
            _ended.wait(MOMENT)
            if not said and time.monotonic() - start > LONG:
                said = True
                warnings.warn(
                    f"this thread has waited {LONG:.0f} s for another one, which moves an array "
                    "that is read here, or reads one that is moved here; it goes on waiting",
                    RuntimeWarning,
                    stacklevel=2,
                )
    finally:
        _waiting.pop(call.thread, None)


def _waited_for(threads: set[int]) -> set[int]:
    """Return for whom these threads wait, and for whom those do, and so on."""
    found: set[int] = set()
    new = {*threads}
    while new:
        new = set().union(*(_waiting.get(thread, ()) for thread in new)) - found
        found |= new
    return found


def _forget_others() -> None:
    """Begin anew in a forked process, which has none of its parent's threads."""
    global _ended
    _ended = threading.Condition()
    _calls.clear()
    _waiting.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_others)
