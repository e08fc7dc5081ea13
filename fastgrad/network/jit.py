"""How are kernels compiled and launched? Every jit option stands here once, with its reason."""

import os
import threading
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numba

OPTIONS: dict[str, Any] = {
    # Divide as NumPy does (0/0 is nan): a Python ZeroDivisionError would need a branch a division.
    "error_model": "numpy",
    # Fused multiply-add and nothing else: full fastmath turns (x + h) - x into h, isnan into False.
    "fastmath": {"contract"},
    # Other Python threads go on while a kernel runs.
    "nogil": True,
}

_exclusive = threading.RLock()
_must_run_serially = False


def exclusive() -> AbstractContextManager[object]:
    """Give the lock under which kernels run: one launch at a time in a process.

    numba's workqueue threading layer aborts the process when two Python threads launch parallel
    kernels at once, and a net's work arrays serve one call at a time. The lock is reentrant.
    """
    return _exclusive


class Kernel:
    """A parallel kernel, cached on disk, with a serial twin for forked children.

    GNU OpenMP ends a child process that was forked after its threads had started, as soon as the
    child launches a parallel region. In such a child the serial twin runs: the same Python
    function, the same bits (nothing is ever reduced across threads), one thread.

    Parameters
    ----------
    function : callable
        The Python function; its parallel loops are written with `numba.prange`.

    Attributes
    ----------
    py_func : callable
        The Python function itself, for comparison in tests.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.py_func = function
        self._parallel = numba.njit(parallel=True, cache=True, **OPTIONS)(function)
        # A function of another name, because numba's cache tells functions apart by name and line
        # alone and would hand the parallel machine code to the serial twin.
        twin = types.FunctionType(
            function.__code__, function.__globals__, f"{function.__name__}_serial"
        )
        twin.__qualname__ = f"{function.__qualname__}_serial"
        twin.__module__ = function.__module__
        self._serial = numba.njit(cache=True, **OPTIONS)(twin)

    def __call__(self, *arguments: Any) -> None:
        """Run the kernel on arrays and scalars; every result is written into an argument."""
        with _exclusive:
            (self._serial if _must_run_serially else self._parallel)(*arguments)


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that only kernels call; LLVM inlines it where that pays."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS)(function)
    return compiled


def _note_fork() -> None:
    """Start the child with a free lock, and serially if the parent's threads were running."""
    global _exclusive, _must_run_serially
    _exclusive = threading.RLock()
    try:
        numba.threading_layer()
    except ValueError:  # no thread had been started: the child may start its own
        return
    _must_run_serially = True


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_note_fork)
