"""What must Ctrl-C not divide? Blocks after which it strikes instead."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C, or the alarm of a timeout, strike after the block instead of within.

    Blocking the signals would not do: one that this thread blocks is delivered to another, such as
    BLAS's, and Python then raises here all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # Python never raises them here
        return
    arrived: list[int] = []
    handlers = {
        number: signal.getsignal(number)
        for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGALRM", signal.SIGINT))
        if callable(signal.getsignal(number))
    }
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: arrived.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in arrived:
            signal.raise_signal(number)
