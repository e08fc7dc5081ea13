"""A time at which what is computed in a thread ends: how a budget of seconds is kept."""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any


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
