"""Turns of threads: calls that move what others read come one after the other.

A call moves arrays in place, and its function reads those and others. Two calls of different
threads are in each other's way if one moves what the other reads; then the later one waits. What a
function reads is found by following its references, which is done only while several threads are
at it. Calls within a call, of the same thread, never wait for it.
"""

import os
import sys
import threading
import time
import warnings
from collections.abc import Sequence
from types import FrameType
from typing import Any

from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

Extent = tuple[int, int]
"""Where memory begins and ends."""

LONG = 60.0
"""Seconds of waiting after which it is said."""

SHORTEST, LONGEST = 5e-5, 0.02
"""Seconds after which a waiting thread looks again: few at first, twice as many each time."""


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
        self._frame = _entered_from()
        self._read: list[Extent] | None = None

    def goes_on(self) -> bool:
        """Say whether the function that makes it has not returned.

        Where Ctrl-C strikes as a block is entered or left, what would end the call may wait until
        the exception's traceback is dropped.
        """
        frame = sys._current_frames().get(self.thread)
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None

    @property
    def moved(self) -> list[Extent]:
        """Where the memory is that it moves."""
        return [byte_bounds(array) for array in self._moved if array.size]

    def read(self) -> list[Extent] | None:
        """Return where the memory is that it reads; None if that cannot be found out now."""
        if self._read is None:
            from fastgrad.tracing.references import find_references

            try:
                arrays = [reference.held for reference in find_references(self._things)]
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


def _entered_from() -> FrameType | None:
    """Return the frame whose block is entered: the first one that is not of a context manager."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in _MANAGERS:
        frame = frame.f_back
    return frame


_MANAGERS = frozenset({"contextlib", "fastgrad.differences.guard", __name__})


def _overlap(some: list[Extent], others: list[Extent]) -> bool:
    return any(a < d and c < b for a, b in some for c, d in others)


_calls: dict[_Call, None] = {}
"""The calls that are being made."""

_waiting: dict[int, set[int]] = {}
"""Which threads wait for which."""

_lock = threading.RLock()
"""Held while these are looked at. Not a condition to be notified: that takes and lets go of its
lock in Python code, where Ctrl-C may leave it taken for ever; this one does it in C."""


class turn:
    """Wait until no other thread is in the way, and hold others up during the block.

    Not a generator, which would take longer than all else: an interrupt that strikes as the block
    is entered or left may leave the call among those that are made until its function has returned,
    and then it counts no more.

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

    def __init__(self, moved: Sequence[NDArray[Any]], things: tuple[Any, ...]) -> None:
        self._moved, self._things = moved, things

    def __enter__(self) -> None:
        """Wait for the turn."""
        self._call = _Call(self._moved, self._things)
        with _lock:
            if not _calls:
                _calls[self._call] = None
                return
        _begin(self._call)

    def __exit__(self, *_: object) -> None:
        """End it."""
        _calls.pop(self._call, None)  # which no interrupt can divide


def _begin(call: _Call) -> None:
    """Let a call be made, as soon as none is in its way."""
    start, pause, said = time.monotonic(), SHORTEST, False
    for other in [*_calls]:  # whose end an interrupt has struck, or whose thread has ended
        if not other.goes_on():
            _calls.pop(other, None)
    try:
        while True:
            with _lock:
                others = {other.thread for other in [*_calls] if call.is_in_the_way_of(other)}
                if others and (ended := [other for other in [*_calls] if not other.goes_on()]):
                    for other in ended:
                        _calls.pop(other, None)
                    continue
                if not others:
                    _calls[call] = None
                    return
                holds_up = any(other.thread == call.thread for other in [*_calls])
                if holds_up and call.thread in _waited_for(others):
                    raise RuntimeError(
                        "two threads wait for each other: each is within a call of fastgrad that "
                        "moves what the other reads, and makes another one; make such calls in one "
                        "thread"
                    )
                _waiting[call.thread] = others
            time.sleep(pause)
            pause = min(2 * pause, LONGEST)
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
    global _lock
    _lock = threading.RLock()
    _calls.clear()
    _waiting.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_others)
