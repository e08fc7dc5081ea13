"""How are kernels compiled and launched? Every jit option stands here once, with its reason."""

import os
import threading
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
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
    """A parallel kernel, compiled when first called, cached on disk, with a serial twin.

    GNU OpenMP ends a child process that was forked after its threads had started, as soon as the
    child launches a parallel region. In such a child the serial twin runs: the same Python
    function, the same bits (nothing is ever reduced across threads), one thread.

    Parameters
    ----------
    function : callable
        The Python function; its parallel loops are written with `numba.prange`.
    signature : str
        The types of its arguments, so that each kernel is compiled once, whatever the layouts of
        the arrays that it is called with.

    Attributes
    ----------
    py_func : callable
        The Python function itself, for comparison in tests.
    """

    def __init__(self, function: Callable[..., None], signature: str) -> None:
        self.py_func = function
        self.signature = signature

    def __call__(self, *arguments: Any) -> None:
        """Run the kernel on arrays and scalars; every result is written into an argument."""
        with _exclusive:
            (self._serial if _must_run_serially else self._parallel)(*arguments)

    @cached_property
    def _parallel(self) -> Callable[..., None]:
        compiled: Callable[..., None] = numba.njit(
            self.signature, parallel=True, cache=True, **OPTIONS
        )(self.py_func)
        return compiled

    @cached_property
    def _serial(self) -> Callable[..., None]:
        # Another name, because numba's cache tells functions apart by name and line alone and
        # would hand the parallel machine code to the serial twin.
        function = self.py_func
        name = f"{function.__name__}_serial"
        twin = types.FunctionType(function.__code__, function.__globals__, name)
        twin.__module__, twin.__qualname__ = function.__module__, name
        compiled: Callable[..., None] = numba.njit(self.signature, cache=True, **OPTIONS)(twin)
        return compiled


def inlined(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function that only kernels call; as Python it is its `py_func`."""
    compiled: Callable[..., Any] = numba.njit(
        no_cpython_wrapper=True, no_cfunc_wrapper=True, **OPTIONS
    )(function)
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
