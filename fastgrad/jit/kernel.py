"""Kernels, compiled and launched. Every jit option stands here, with its reason."""

import functools
import os
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numba
import numpy as np
from numba import types
from numba.core import config
from numba.core.sigutils import normalize_signature
from numba.extending import register_jitable
from numba.np.ufunc.parallel import threading_layer
from numpy.typing import NDArray

from fastgrad.jit import cache, launch
from fastgrad.jit.forks import free_after_fork
from fastgrad.jit.pace import Pace
from fastgrad.jit.thread_count import thread_count
from fastgrad.lazy import lazy

Function = TypeVar("Function", bound=Callable[..., Any])

OPTIONS: dict[str, Any] = {
    # Divide as NumPy does (0/0 is nan): a Python ZeroDivisionError would need a branch a division.
    "error_model": "numpy",
    # Fused multiply-add and nothing else: full fastmath turns (x + h) - x into h, isnan into False.
    "fastmath": {"contract"},
    # Other Python threads go on while a kernel runs.
    "nogil": True,
}

INNER_OPTIONS: dict[str, Any] = {
    **OPTIONS,
    # A call would pass every array as half a dozen words, and count references.
    "forceinline": True,
    # Python calls the Python functions themselves; entries for it would take time to compile.
    "no_cpython_wrapper": True,
    "no_cfunc_wrapper": True,
}

# Vector operations below which a kernel is done before a second thread has woken up.
MIN_PARALLEL_OPERATIONS = 50_000

# Whether kernels are compiled; NUMBA_DISABLE_JIT=1 lets everything run as plain Python.
JIT = not vars(config)["DISABLE_JIT"]

pace = Pace()
_exclusive = threading.RLock()
_must_run_serially = False


def exclusive() -> AbstractContextManager[object]:
    """Return the lock under which kernels run: one launch at a time in a process.

    numba's workqueue threading layer aborts the process when two Python threads launch parallel
    kernels at once, and a net's work arrays serve one call at a time. The lock is reentrant.
    """
    return _exclusive


class Kernel:
    """A kernel, compiled when first called and cached on disk, whose tasks run on all threads.

    A task gives the same bits in whatever thread it runs: nothing is ever reduced across threads.
    So all run in one while others keep the machine busy (`pace`).
    In a child process that was forked after its parent's threads had started, all tasks run in one
    thread: GNU OpenMP ends such a child as soon as it launches a parallel region.

    Parameters
    ----------
    function : callable
        ``function(task, tasks, ...)``, which does one of several tasks.
    signature : str
        The types of its arguments after the task and the number of tasks, so that each kernel is
        compiled once, whatever the layouts of the arrays that it is called with.

    Attributes
    ----------
    py_func : callable
        The Python function itself, for comparison in tests.
    """

    def __init__(self, function: Callable[..., None], signature: str) -> None:
        self.py_func = function
        self.signature = signature

    def __call__(self, tasks: int, *arguments: Any) -> None:
        """Run the kernel on arrays and scalars; every result is written into an argument."""
        if not JIT:
            for task in range(tasks):
                self.py_func(task, tasks, *arguments)
            return
        with _exclusive:
            ready = self._compiled
            if tasks == 1 or _must_run_serially:
                _run(ready, tasks, arguments, True)
                return
            kind = (self, tasks, *map(_size, arguments))
            alone, start = pace.on_one_thread, pace.clock()
            _run(ready, tasks, arguments, alone)
            seconds = pace.clock() - start
            if alone:
                pace.note_one_thread(kind, seconds)
            else:
                pace.note(kind, seconds, tasks)

    @lazy
    def _compiled(self) -> tuple[int, Callable[..., None], NDArray[np.int64]]:
        """Compile the kernel and what prepares its launch, or load them from numba's cache."""
        arguments, _ = normalize_signature(self.signature)
        case = types.none(types.int64, types.int64, *arguments)
        # Only other compiled code calls the kernel: entries for Python would take time to compile.
        kernel = compiled(self.py_func, self.py_func, case, no_cpython_wrapper=True)
        result = kernel.get_compile_result(case)
        address = result.library.get_pointer_to_function(result.fndesc.llvm_func_name)
        prepare = compiled(launch.prepare, self.py_func, launch.prepare_type(arguments))
        return address, prepare, launch.new_memory()


def _run(
    ready: tuple[int, Callable[..., None], NDArray[np.int64]],
    tasks: int,
    arguments: tuple[Any, ...],
    serially: bool,
) -> None:
    """Run the tasks of a compiled kernel one after the other here, or on all threads."""
    address, prepare, memory = ready
    prepare(address, serially, tasks, memory, arguments)
    if not serially:
        launch.launcher()(np.arange(tasks), tasks, memory)


def _size(argument: Any) -> Any:
    """Return what a kernel's work depends on of an argument."""
    return argument if isinstance(argument, int) else getattr(argument, "shape", None)


def compiled(
    function: Callable[..., Any], owner: Callable[..., Any], signature: Any, **options: Any
) -> Any:
    """Compile a function, a kernel's, say, or load it from numba's cache on disk.

    With the JIT off it is returned as it is. The cache tells functions apart by name and line, and
    looks for changes in the function's own file only. So the name says whose function it is, and of
    which state of all sources.
    """
    if not JIT:
        return function
    name = f"{function.__name__}_{owner.__name__}_{_sources()}"
    renamed = FunctionType(function.__code__, function.__globals__, name)
    renamed.__module__, renamed.__qualname__ = function.__module__, name

    def compile_(with_cache: bool) -> Any:
        return numba.njit(signature, cache=with_cache, **OPTIONS, **options)(renamed)

    return cache.compiled(name, lambda: cache.folder_of(renamed), compile_)


@functools.cache
def _sources() -> str:
    """Return a fingerprint of all sources that kernels are compiled from."""
    package = Path(__file__).parents[1]
    files = sorted([*package.glob("jit/*.py"), *package.glob("network/*.py")])
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def tasks_for(operations: int) -> int:
    """Return into how many tasks to cut a kernel's work: one a thread, or one if it is short.

    Parameters
    ----------
    operations : int
        About how many vectors the kernel computes.
    """
    return thread_count() if operations > MIN_PARALLEL_OPERATIONS else 1


def inlined(function: Function) -> Function:
    """Make a Python function callable from kernels; called from Python it stays as it is."""
    registered: Function = register_jitable(**INNER_OPTIONS)(function)
    return registered


def kernel(signature: str) -> Callable[[Callable[..., None]], Kernel]:
    """Decorate a function that becomes a `Kernel` of this signature."""
    return lambda function: Kernel(function, signature)


def _start_child() -> None:
    """Compute serially if the parent's threads were running."""
    global _must_run_serially
    try:
        threading_layer()
    except ValueError:  # no thread had been started: the child may start its own
        return
    _must_run_serially = True


# A process is forked between kernels, never while another thread compiles or runs one.
free_after_fork(_exclusive)
if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_child)
