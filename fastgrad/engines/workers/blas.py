"""The threads of BLAS, wherever f is called on behalf of workers: all but one rest.

With more, workers would fight for the cores; and BLAS's sums depend on the number of its threads.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastgrad.interrupts import uninterrupted
from fastgrad.jit.forks import free_after_fork

_lock = threading.Lock()
free_after_fork(_lock)
_holders = 0
_limits: Any = None


@contextmanager
def single_blas_thread() -> Iterator[None]:
    """Let BLAS and OpenMP compute with one thread in this process during the block.

    Blocks of several Python threads may overlap: the last to end gives the threads back. Without
    threadpoolctl, which all workers need, nothing is held.
    """
    global _holders, _limits
    try:
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError:
        yield
        return
    held = False
    try:
        # Python drops an interrupt that strikes while threadpoolctl lists the libraries.
        with _lock, uninterrupted():
            if not _holders:
                _limits = threadpool_limits(limits=1)
            _holders += 1
            held = True
        yield
    finally:
        if held:
            with _lock, uninterrupted():
                _holders -= 1
                if not _holders:
                    _limits.restore_original_limits()
