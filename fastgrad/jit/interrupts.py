"""What ends a calculation early: Ctrl-C, and the time that it is given."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, Any

from fastgrad.lazy import LazyModule

if TYPE_CHECKING:
    import signal
    import threading
else:  # most calls need neither
    signal, threading = LazyModule("signal"), LazyModule("threading")


class LostWorkerError(RuntimeError):
    """A worker process ended before its task."""


def raise_interrupt(error: BaseException) -> None:
    """Raise the KeyboardInterrupt behind a SystemError, if there is one, and a lost worker.

    An interrupt that strikes while a C function computes, and that the function does not look for,
    comes to light at the next call, as "SystemError: <built-in function ...> returned a result with
    an exception set", with the interrupt as its cause.

    Examples
    --------
    >>> error = SystemError("<built-in function get_ident> returned a result with an exception set")
    >>> raise_interrupt(error)
    >>> error.__cause__ = KeyboardInterrupt()
    >>> try:
    ...     raise_interrupt(error)
    ... except KeyboardInterrupt:
    ...     print("interrupted")
    interrupted
    """
    while isinstance(error, SystemError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, LostWorkerError) or not isinstance(error, Exception):
        raise error


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C, or the alarm of a timeout, strike after the block instead of within.

    Blocking the signals would not do: one that this thread blocks is delivered to another, such as
    BLAS's, and Python then raises here all the same.
    """
    arrived: list[int] = []
    try:
        with _handled_by(lambda handler, number, frame: arrived.append(number)):
            yield
    finally:
        for number in arrived:
            signal.raise_signal(number)


@contextmanager
def never_lost() -> Iterator[None]:
    """Raise at the end of the block, if it ends otherwise, what Ctrl-C or an alarm raised in it.

    It strikes at once. But what is raised in a callback of C code is dropped by Python, and some
    code makes an exception of its own of it, as numba's compiler does: "RuntimeError: generator
    raised StopIteration".
    """
    struck: list[BaseException] = []

    def note(handler: Handler, number: int, frame: FrameType | None) -> None:
        try:
            handler(number, frame)
        except BaseException as error:
            struck.append(error)
            raise

    with _handled_by(note):
        try:
            yield
        except Exception:
            if not struck:
                raise
    if struck:
        raise struck[0] from None


Handler = Callable[[int, "FrameType | None"], Any]
"""What Python calls for a signal."""


@contextmanager
def _handled_by(handle: Callable[[Handler, int, FrameType | None], Any]) -> Iterator[None]:
    """Let Ctrl-C, an end and an alarm be handled by ``handle(handler, number, frame)`` meanwhile.

    The handler is the one that they have otherwise. In threads but the main one nothing is changed:
    Python never raises them there.
    """
    is_over, handlers = False, dict[int, Handler]()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGALRM", signal.SIGINT)):
            if callable(handler := signal.getsignal(number)):
                handlers[number] = handler

    def handle_or_pass(number: int, frame: FrameType | None) -> None:
        # One may strike while the others' handlers are put back, and leave this one in their place.
        if is_over:
            handlers[number](number, frame)
        else:
            handle(handlers[number], number, frame)

    try:
        for number in handlers:
            signal.signal(number, handle_or_pass)
        yield
    finally:
        is_over = True
        for number, handler in handlers.items():
            signal.signal(number, handler)


class OutOfTimeError(BaseException):
    """The time is over. No `Exception`: no handler of what f or its recording raises holds it."""


_end: ContextVar[float] = ContextVar("end", default=math.inf)


@contextmanager
def ending_at(end: float) -> Iterator[None]:
    """Let the block end at a time of `time.monotonic`, or at that of an outer block if earlier.

    It ends by an OutOfTimeError, the next time that it asks.
    """
    token = _end.set(min(end, _end.get()))
    try:
        yield
    finally:
        _end.reset(token)


def is_limited() -> bool:
    """Say whether there is a time to end at."""
    return _end.get() < math.inf


def require_time() -> None:
    """Raise an OutOfTimeError if the time is over.

    Asked before each call of f, and before each operation that is replayed in its place.
    """
    if time.monotonic() > _end.get():
        raise OutOfTimeError


def value_in_time(f: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``f(*arguments)``, unless the time is over."""
    require_time()
    return f(*arguments)
