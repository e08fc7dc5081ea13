"""How is an array recorded that a function creates, and then fills with recorded values?

``np.zeros`` is given no array, so none of NumPy's protocols tells a stand-in of the call; yet
learners' im2col begins with it. While a function is recorded that needs it, and only then, the
functions that create arrays are replaced in NumPy's namespace.
"""

import sys
import threading
from collections.abc import Callable
from functools import partial, wraps
from typing import Any

import numpy as np

from fastgrad.tracing.recorder import Recording
from fastgrad.tracing.references import Place, is_of_library

CREATORS = ("zeros", "empty", "ones", "full")

one_at_a_time = threading.RLock()
"""Held while they are replaced, so that no thread mistakes another's replacements for NumPy's."""


def created_arrays(recording: Recording) -> list[Place]:
    """Return the places of the functions that create arrays: what they hold, and what records.

    Recorded, as constants, are arrays that the user's code creates in this thread; calls from
    other threads and from libraries, NumPy's own among them, get plain arrays as ever.
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

    creators = {name: getattr(np, name) for name in CREATORS}
    return [
        (partial(setattr, np, name), creators[name], recorded(creators[name])) for name in creators
    ]
