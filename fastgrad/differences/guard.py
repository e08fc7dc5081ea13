"""The guard of x: it is copied before f is called, and bit for bit as it was afterwards.

x is moved in place, so that f may read it elsewhere. What f itself writes into it would spoil the
difference quotients, and the user's array: it is noticed, and refused. Threads take turns
where one moves what another reads.
"""

import os
import sys
import time
import warnings
from _thread import RLock, get_ident  # `threading` takes as long to load as a gradient
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastgrad.differences.arguments import element_at, is_masked_array, is_structure, leaves
from fastgrad.lazy import LazyModule
from fastgrad.typing import Array, Flags

if TYPE_CHECKING:
    from fastgrad.tracing import references
else:
    references = LazyModule("fastgrad.tracing.references")

SHORT_BYTES = 1 << 15
"""Size of an array up to which its bytes are compared as a Python object, which is faster."""

Value = TypeVar("Value")

INTEGERS: dict[int, Any] = {4: np.int32, 8: np.int64}
"""Types of as many bytes, whose numbers are the same where the bits are."""


Extent = tuple[int, int]
"""Where memory begins and ends."""

ANNOUNCED_SECONDS = 60.0
"""Waiting for a turn after which it is said."""

SHORTEST_PAUSE, LONGEST_PAUSE = 5e-5, 0.02
"""Seconds after which a waiting thread looks again: few at first, twice as many each time."""


class turn:
    """Wait until no other thread is in the way, and hold others up during the block.

    A block moves arrays in place, and its function reads those and others. Two blocks of different
    threads are in each other's way if one moves what the other reads; then the later one waits.
    What a function reads is found by following its references, which is done only while several
    threads are at it. Blocks within a block, of the same thread, never wait for it.

    Not a generator, which would take longer than all else: an interrupt that strikes as the block
    is entered or left may leave it among those that go on until its function has returned, and then
    it counts no more.

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

    def __init__(self, moved: Sequence[Array], things: Any) -> None:
        self._moved, self._things = moved, things
        self._read: list[Extent] | None = None

    def __enter__(self) -> Self:
        """Wait for the turn."""
        self.thread = get_ident()
        self._frame = _entered_from()
        with _lock:
            is_first = not _turns
            if is_first:
                _turns[self] = None
        if not is_first:
            _begin(self)
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        _turns.pop(self, None)  # which no interrupt can divide

    def goes_on(self) -> bool:
        """Say whether the function that takes it has not returned.

        Where Ctrl-C strikes as a block is entered or left, what would end it may wait until the
        exception's traceback is dropped.
        """
        frame = sys._current_frames().get(self.thread)
        while frame is not None and frame is not self._frame:
            frame = frame.f_back
        return frame is not None

    def move_also(self, arrays: Sequence[Array]) -> None:
        """Move further arrays during the block."""
        self._moved = [*self._moved, *arrays]
        self._read = None

    @property
    def moved(self) -> list[Extent]:
        """Where the memory is that it moves."""
        return [byte_bounds(array) for array in self._moved if array.size]

    def read(self) -> list[Extent] | None:
        """Return where the memory is that it reads; None if that cannot be found out now."""
        if self._read is None:
            try:
                around = references.look_around(self._things)
            except Exception:  # another thread changes what is looked at
                return None
            if around is None or around.others:
                return None
            arrays = [reference.held for reference in around.references]
            self._read = [*self.moved, *(byte_bounds(array) for array in arrays if array.size)]
        return self._read

    def is_in_the_way_of(self, other: "turn") -> bool:
        """Say whether one of two moves what the other reads; yes, if in doubt."""
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


class guarded(turn):
    """Keep x as it is, whatever f does during the block; threads that share arrays take turns.

    Not a generator, which would take longer.

    Parameters
    ----------
    f : callable
        What is called during the block, or the net whose loss is.
    x : array or structure
        What is moved. Anything else is let pass, for those who refuse it.
    args : tuple
        Further arguments of f.

    Raises
    ------
    ValueError
        At the end of the block, if f has changed x and nothing else has been raised.
    """

    _originals: Sequence["Original"] = ()
    _containers: Sequence[tuple[Any, Any]] = ()

    def __init__(self, f: Any, x: Any, args: Any = ()) -> None:
        self._x = x
        if is_structure(x):
            self._named = [(name, array) for name, array in leaves(x) if _is_movable(array)]
        else:
            self._named = [("x", x)] if _is_movable(x) else []
        super().__init__([array for _, array in self._named], (f, x, args))

    def __enter__(self) -> Self:
        """Wait for the turn, and take x as it is then for what it is to be in the end."""
        super().__enter__()
        try:
            self._originals = [Original(array, name) for name, array in self._named]
            if is_structure(self._x):
                self._containers = [*_containers(self._x)]
        except BaseException:
            super().__exit__()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        """Put x back, and end the turn."""
        try:
            if raised[0] is None:
                self.check()
        finally:
            self.put_back()
            super().__exit__()

    def __del__(self) -> None:
        """Put x back where Ctrl-C has struck before the end of the block could begin."""
        if self._originals:
            self.put_back()

    def check(self) -> None:
        """Refuse an f that has changed x."""
        for original in self._originals:
            original.require()
        for container, before in self._containers:
            if not _is_as_before(container, before):
                raise ValueError(
                    f"f changes x: it puts other things into a {type(container).__name__} in it, "
                    "which would not be moved; x is as it was again. Let f compute with a copy of "
                    "its own, as in lambda x: f(copy.copy(x))"
                )

    def put_back(self) -> None:
        """Put everything back, bit for bit."""
        for original in self._originals:
            original.put_back()
        for container, before in self._containers:
            if not _is_as_before(container, before):
                container.clear()
                (container.update if isinstance(container, dict) else container.extend)(before)
        self._originals = self._containers = ()


class Original:
    """What an array is now, to be compared with what it is later.

    Parameters
    ----------
    array : array
    name : str
        What messages call it.

    Attributes
    ----------
    plain : array
        The array itself, as a plain one: a subclass could give another meaning to indexing, or
        interrupt a restoration.
    copy : array
        What is in it now.
    is_masked : bool
        Whether it is a masked array, which has a mask as well.
    """

    def __init__(self, array: Any, name: str = "x") -> None:
        self._array, self._name = array, name
        self.plain = array.view(np.ndarray)
        self.copy = self.plain.copy(order="K")
        self.is_masked = type(array) is not np.ndarray and is_masked_array(array)
        self._mask: Any = np.ma.getmaskarray(array).copy() if self.is_masked else None

    def require(self) -> None:
        """Refuse an f that has changed the array."""
        name = self._name
        require_unchanged(self.plain, self.copy, name)
        if self._array.shape != self.plain.shape:
            raise ValueError(
                f"f changes x: it gives {name} the shape {self._array.shape}, which was "
                f"{self.plain.shape}; x is as it was again. Let f compute with another array, as "
                "x.reshape(-1), instead of assigning to x.shape"
            )
        if self.is_masked and self._is_masked_anew():
            raise ValueError(
                f"f changes x: it masks elements of {name}, or takes away their masks; x is as it "
                "was again. Let f compute with a copy, as in lambda x: f(x.copy())"
            )

    def value_at(self, f: Callable[[Any], Value], point: Array) -> Value:
        """Return f of the array where it is moved to a point; it is as it was afterwards.

        What f returns must not be a view of the array.
        """
        try:
            self.plain[...] = point.reshape(self.plain.shape)
            return f(self._array)
        finally:
            self.put_back()

    def put_back(self) -> None:
        """Let the array be what it was, bit for bit."""
        self.plain[...] = self.copy  # one assignment, which no interrupt can divide
        array = self._array
        if array.shape != self.plain.shape:
            array.shape = self.plain.shape
        if not array.flags.writeable:
            array.flags.writeable = True
        if self.is_masked and self._is_masked_anew():
            array.mask = self._mask

    def _is_masked_anew(self) -> bool:
        """Say whether the array has another mask than before."""
        return not np.array_equal(np.ma.getmaskarray(self._array), self._mask)


def _is_movable(thing: Any) -> bool:
    """Say whether it is an array whose elements can be moved in place."""
    return isinstance(thing, np.ndarray) and thing.dtype.kind == "f" and thing.flags.writeable


def _containers(x: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over the dicts and lists in x that could get other items, and what is in them."""
    if isinstance(x, (dict, list)):
        yield x, ({**x} if isinstance(x, dict) else [*x])
    if is_structure(x):
        for part in x.values() if isinstance(x, dict) else x:
            yield from _containers(part)


def _is_as_before(container: Any, before: Any) -> bool:
    """Say whether a list or dict holds the same objects as before."""
    if len(container) != len(before):
        return False
    if isinstance(container, dict):
        items = zip(container.items(), before.items(), strict=True)
        return all(k is key and v is value for (k, v), (key, value) in items)
    return all(item is other for item, other in zip(container, before, strict=True))


def is_unchanged(now: Array, before: Array) -> bool:
    """Say whether an array has the bits that it had before; a nan is a nan, whatever its bits."""
    if now.nbytes <= SHORT_BYTES:
        if now.tobytes() == before.tobytes():
            return True
    else:
        kind = INTEGERS.get(now.dtype.itemsize)
        if kind is not None and np.array_equal(now.view(kind), before.view(kind)):
            return True
    return not _changed(now, before).any()


def require_unchanged(now: Array, before: Array, name: str = "x") -> None:
    """Refuse an f that has changed an array; before is what it was."""
    if is_unchanged(now, before):
        return
    first = int(np.argmax(_changed(now, before)))
    where = element_at(name, first, now.shape)
    raise ValueError(
        f"f changes x: it has written {now.flat[first]} into {where}, which was "
        f"{before.flat[first]}, so that the differences would be wrong; x is as it was again. Let "
        "f compute with a copy, as in lambda x: f(x.copy()), or write w = w - m where it says "
        "w -= m"
    )


def _changed(now: Array, before: Array) -> Flags:
    """Return which elements differ."""
    if now.dtype.kind == "c":
        return _changed(now.real, before.real) | _changed(now.imag, before.imag)
    same = (now == before) & (np.signbit(now) == np.signbit(before))
    result: Flags = ~(same | (np.isnan(now) & np.isnan(before)))
    return result


def extend_turn(arrays: Sequence[Array]) -> bool:
    """Let the turn of this thread move further arrays, if no other thread has one; say whether."""
    with _lock:
        own = [one for one in _turns if one.thread == get_ident()]
        if len(own) < len(_turns) or not own:
            return False
        own[-1].move_also(arrays)
        return True


def _entered_from() -> FrameType | None:
    """Return the frame whose block is entered: the first one outside of this file."""
    frame: FrameType | None = sys._getframe(2)
    while frame is not None and frame.f_globals is globals():
        frame = frame.f_back
    return frame


def _overlap(some: list[Extent], others: list[Extent]) -> bool:
    """Say whether any two pieces of memory overlap."""
    return any(a < d and c < b for a, b in some for c, d in others)


_turns: dict["turn", None] = {}
"""Those that go on."""

_waiting: dict[int, set[int]] = {}
"""Which threads wait for which."""

_lock = RLock()
"""Held while these are looked at. Not a condition to be notified: that takes and lets go of its
lock in Python code, where Ctrl-C may leave it taken for ever; this one does it in C."""


def _begin(one: turn) -> None:
    """Let a turn begin, as soon as no other is in its way."""
    start, pause, said = time.monotonic(), SHORTEST_PAUSE, False
    _forget_ended()
    try:
        while True:
            with _lock:
                others = {other.thread for other in [*_turns] if one.is_in_the_way_of(other)}
                if others and _forget_ended():
                    continue
                if not others:
                    _turns[one] = None
                    return
                holds_up = any(other.thread == one.thread for other in [*_turns])
                if holds_up and one.thread in _waited_for(others):
                    raise RuntimeError(
                        "two threads wait for each other: each is within a call of fastgrad that "
                        "moves what the other reads, and makes another one; make such calls in one "
                        "thread"
                    )
                _waiting[one.thread] = others
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
            if not said and time.monotonic() - start > ANNOUNCED_SECONDS:
                said = True
                warnings.warn(
                    f"this thread has waited {ANNOUNCED_SECONDS:.0f} s for another one, which "
                    "moves an array that is read here, or reads one that is moved here; it goes on "
                    "waiting",
                    RuntimeWarning,
                    stacklevel=2,
                )
    finally:
        _waiting.pop(one.thread, None)


def _forget_ended() -> bool:
    """Forget turns whose end an interrupt has struck, or whose thread has ended; say if any."""
    ended = [turn for turn in [*_turns] if not turn.goes_on()]
    for turn in ended:
        _turns.pop(turn, None)
    return bool(ended)


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
    _lock = RLock()
    _turns.clear()
    _waiting.clear()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_forget_others)
