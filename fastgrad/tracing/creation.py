"""How is an array recorded that a function creates, and then fills with recorded values?

``np.zeros`` is given no array, so none of NumPy's protocols tells a stand-in of the call; yet
learners' im2col begins with it. While a function is recorded that needs it, and only then, the
functions that create arrays are replaced in NumPy's namespace.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np

from fastgrad.tracing.recorder import Recording
from fastgrad.tracing.references import is_of_library

CREATORS = ("zeros", "empty", "ones", "full")

_lock = threading.RLock()


@contextmanager
def created_arrays_recorded(recording: Recording) -> Iterator[None]:
    """Let arrays that the user's code creates in this thread be recorded constants.

    Calls from other threads and from libraries, NumPy's own among them, get plain arrays as ever.
    """
    thread = threading.get_ident()

    def recorded(create: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(create)
        def create_recorded(*arguments: Any, **keywords: Any) -> Any:
            array = create(*arguments, **keywords)
            caller = sys._getframe(1).f_globals.get("__name__", "")
            if threading.get_ident() != thread or not recording.is_open or is_of_library(caller):
                return array
            return recording.constant(array)

        return create_recorded

    with _lock:
        originals = {name: getattr(np, name) for name in CREATORS}
        try:
            for name, create in originals.items():
                setattr(np, name, recorded(create))
            yield
        finally:
            for name, create in originals.items():
                setattr(np, name, create)
