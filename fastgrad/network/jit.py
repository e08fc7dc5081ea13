"""How are kernels compiled and launched? Every jit option stands here once, with its reason."""

import os
import threading
import types
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cache, cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TypeVar

import numba
from numba.extending import register_jitable
from numba.np.ufunc.parallel import threading_layer

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

# Vector operations below which a second thread is not worth compiling the parallel form.
SHORT = 200_000

_exclusive = threading.RLock()
_must_run_serially = False


def exclusive() -> AbstractContextManager[object]:
    """Give the lock under which kernels run: one launch at a time in a process.

    numba's workqueue threading layer aborts the process when two Python threads launch parallel
    kernels at once, and a net's work arrays serve one call at a time. The lock is reentrant.
    """
    return _exclusive


class Kernel:
    """A kernel, compiled when first called and cached on disk: parallel, and serial for one task.

    Both forms come from the same Python function and give the same bits: nothing is ever reduced
    across threads. The serial one takes less time to compile. It also runs in a child
    process that was forked after its parent's threads had started: GNU OpenMP ends such a child as
    soon as it launches a parallel region.

    Parameters
    ----------
    function : callable
        ``function(tasks, ...)``, whose loop over the tasks is written with `numba.prange`.
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

    def __call__(self, tasks: int, *arguments: Any) -> None:
        """Run the kernel on arrays and scalars; every result is written into an argument."""
        with _exclusive:
            serially = tasks == 1 or _must_run_serially
            (self._serial if serially else self._parallel)(tasks, *arguments)

    @cached_property
    def _parallel(self) -> Callable[..., None]:
        return self._compile("parallel")

    @cached_property
    def _serial(self) -> Callable[..., None]:
        return self._compile("serial")

    def _compile(self, form: str) -> Callable[..., None]:
        """Compile one form, or load it from numba's cache on disk.

        The cache tells functions apart by name and line, and looks for changes in the kernel's own
        file only. So the name says which form it is, and of which state of all sources.
        """
        function = self.py_func
        name = f"{function.__name__}_{form}_{_sources()}"
        renamed = types.FunctionType(function.__code__, function.__globals__, name)
        renamed.__module__, renamed.__qualname__ = function.__module__, name
        compiled: Callable[..., None] = numba.njit(
            self.signature, parallel=form == "parallel", cache=True, **OPTIONS
        )(renamed)
        return compiled


@cache
def _sources() -> str:
    """Return a fingerprint of all sources that kernels are compiled from."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()[:16]


def tasks_for(operations: int) -> int:
    """Return into how many tasks to cut a kernel's work: one a thread, or one if it is short.

    Parameters
    ----------
    operations : int
        About how many vectors the kernel computes.
    """
    return numba.get_num_threads() if operations > SHORT else 1


def inlined(function: Function) -> Function:
    """Let kernels call a Python function; called from Python it stays one."""
    registered: Function = register_jitable(**INNER_OPTIONS)(function)
    return registered


def kernel(signature: str) -> Callable[[Callable[..., None]], Kernel]:
    """Decorate a function that becomes a `Kernel` of this signature."""
    return lambda function: Kernel(function, signature)


def _start_child() -> None:
    """Release the child's lock; compute serially if the parent's threads were running."""
    global _must_run_serially
    _exclusive.release()
    try:
        threading_layer()
    except ValueError:  # no thread had been started: the child may start its own
        return
    _must_run_serially = True


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    # A process is forked between kernels, never while another thread compiles or runs one: the
    # child would wait for ever for what that thread has locked.
    os.register_at_fork(
        before=_exclusive.acquire,
        after_in_parent=_exclusive.release,
        after_in_child=_start_child,
    )
