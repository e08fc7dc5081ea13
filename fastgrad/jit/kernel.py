"""Kernels, compiled and launched, and the vectors that they compute with.

Every jit option stands here, with its reason. Kernels are kept on disk in numba's cache, where that
works, and where they are whole. numba gives up where there is no folder that it may write to, where
the disk is full, and where a file cannot be read; and it runs whatever code a damaged file holds.
So what it has written for a kernel is sealed with checksums. What has no seal that fits is deleted,
and compiled again.

LLVM's own vectoriser gives up on loops that read many arrays, and leaves half of a 512-bit register
unused. So kernels say themselves what is a vector: `load` makes one of `LANES_PER_VECTOR`
neighbouring elements of an array, ``+ - * /`` work lane by lane, also with a number, and `store`
writes one back. What each function does stands here for a vector of one lane, which is a number:
so it runs as plain Python, and so it is compiled where `instructions` cannot be written.
"""

import functools
import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

import numba
import numba.extending
import numpy as np

from fastgrad.jit.concurrency import Pace, exclusive, thread_count
from fastgrad.lazy import lazy

Function = TypeVar("Function", bound=Callable[..., Any])
Compiled = TypeVar("Compiled")

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


def _spare_scipy() -> None:
    """Let numba load its functions of arrays without SciPy's linear algebra: that takes 0.2 s.

    At first it only looks whether it is there; where a user's function needs it, numba asks again.
    """
    with suppress(ImportError, AttributeError):  # numba does not promise these names
        from numba.np import linalg

        ensure = linalg.ensure_blas
        linalg.ensure_blas = lambda: None
        try:
            import_module("numba.np.arraymath")
        finally:
            linalg.ensure_blas = ensure


if find_spec("scipy") is not None:
    _spare_scipy()

# Whether kernels are compiled; NUMBA_DISABLE_JIT=1 lets everything run as plain Python.
JIT = not vars(numba.config)["DISABLE_JIT"]

try:
    from fastgrad.jit import instructions

    HAND_WRITTEN = JIT
except Exception:  # numba does not promise the names that they are written with
    instructions = None  # type: ignore[assignment]  # no module: `HAND_WRITTEN` says so
    HAND_WRITTEN = False
"""Whether vectors and launches are written in LLVM's instructions. If not, a vector is a number,
and a kernel's tasks run one after the other: slower, with the same results but for round-off."""

pace = Pace()
_must_run_serially = False


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
        The Python function itself.
    """

    def __init__(self, function: Callable[..., None], signature: str) -> None:
        self.py_func = function
        self.signature = f"void(int64, int64, {signature[1:]}"

    def __call__(self, tasks: int, *arguments: Any) -> None:
        """Run the kernel on arrays and scalars; every result is written into an argument."""
        with exclusive:
            if not HAND_WRITTEN:
                for task in range(tasks):
                    self._plain(task, tasks, *arguments)
                return
            if tasks == 1 or _must_run_serially:
                self._run(True, tasks, arguments)
                return
            kind = (self, tasks, *map(_size, arguments))
            alone, start = pace.on_one_thread, pace.clock()
            self._run(alone, tasks, arguments)
            seconds = pace.clock() - start
            if alone:
                pace.note_one_thread(kind, seconds)
            else:
                pace.note(kind, seconds, tasks)

    @lazy
    def _plain(self) -> Callable[..., None]:
        """Compile the kernel for calls from Python; with the JIT off it is the function itself."""
        plain: Callable[..., None] = compiled(self.py_func, self.py_func, self.signature)
        return plain

    @lazy
    def _run(self) -> Callable[[bool, int, tuple[Any, ...]], None]:
        """Compile the kernel and what launches it, or load them from numba's cache."""
        thread_count()  # starts them: only then is known what spreads work over them
        # Only other compiled code calls the kernel: entries for Python would take time to compile.
        kernel = compiled(self.py_func, self.py_func, self.signature, no_cpython_wrapper=True)
        (signature,) = kernel.nopython_signatures
        run = compiled(instructions.run, self.py_func, instructions.run_type(signature.args[2:]))
        return functools.partial(run, instructions.address_of(kernel))


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

    return _cached(renamed, compile_)


@functools.cache
def _sources() -> str:
    """Return a fingerprint of all sources that kernels are compiled from, and of how."""
    package = Path(__file__).parents[1]
    files = sorted([*package.glob("jit/*.py"), *package.glob("network/*.py")])
    sources = b"".join(file.read_bytes() for file in files)
    return hashlib.sha256(sources + bytes([HAND_WRITTEN])).hexdigest()[:16]


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
    registered: Function = numba.extending.register_jitable(**INNER_OPTIONS)(function)
    return registered


def kernel(signature: str) -> Callable[[Callable[..., None]], Kernel]:
    """Decorate a function that becomes a `Kernel` of this signature."""
    return lambda function: Kernel(function, signature)


def _start_child() -> None:
    """Compute serially if the parent's threads were running."""
    global _must_run_serially
    try:
        numba.threading_layer()  # type: ignore[attr-defined]  # which numba re-exports
    except ValueError:  # no thread had been started: the child may start its own
        return
    _must_run_serially = True


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_start_child)


# Vectors ------------------------------------------------------------------------------------------

VECTOR_BYTES = instructions.VECTOR_BYTES if HAND_WRITTEN else 8
LANES_PER_VECTOR = VECTOR_BYTES // 8


def padded(length: int) -> int:
    """Return the smallest multiple of `LANES_PER_VECTOR` that is not below a length."""
    return -(-length // LANES_PER_VECTOR) * LANES_PER_VECTOR


def lowered(name: str, **constants: Any) -> Callable[[Function], Function]:
    """Decorate a function that is some of the `instructions` in kernels.

    Where they cannot be written, it is compiled as it stands; called from Python it stays as it is.

    Parameters
    ----------
    name : str
        Of the instructions, in `instructions.LOWERING`.
    **constants
        What is known when they are written.
    """

    def decorate(function: Function) -> Function:
        if not HAND_WRITTEN:
            return inlined(function)
        instructions.register(function, name, **constants)
        return function

    return decorate


@lowered("load")
def load(array: Any, place: Any) -> Any:
    """Return `LANES_PER_VECTOR` elements from a place on as a vector; the array is contiguous.

    A place in a matrix is a tuple (row, column): ``load(z, (n, j))`` is compiled in less time than
    ``load(z[n], j)``. Indices are not negative, and all elements exist.
    """
    return array[place]


@lowered("store")
def store(array: Any, place: Any, vector: Any) -> None:
    """Write a vector to the elements of an array from a place on, as `load` takes it."""
    array[place] = vector


@lowered("load_part")
def load_part(array: Any, i: int, count: int) -> Any:
    """Return array[i : i + count] as a vector, then zeros; a count may be too large or negative."""
    return array[i] if count > 0 else 0.0


@lowered("store_part")
def store_part(array: Any, i: int, count: int, vector: Any) -> None:
    """Write a vector's first lanes to array[i : i + count]; as `load_part` for other counts."""
    if count > 0:
        array[i] = vector


@lowered("store_words")
def store_words(array: Any, i: int, count: int, low: Any, high: Any) -> None:
    """Round to whole numbers of 16 bits, and write both of each lane as one int32, the low first.

    To array[i : i + count], as `store_part` does.
    """
    if count > 0:
        array[i] = (np.int32(np.rint(high)) << 16) | (np.int32(np.rint(low)) & 0xFFFF)


@lowered("repeat")
def repeat(number: float) -> Any:
    """Return a vector with the same number in every lane."""
    return number


@lowered("total")
def total(vector: Any) -> float:
    """Add the lanes of a vector, the first ones first."""
    return vector  # type: ignore[no-any-return]  # of one lane


@lowered("magnitude")
def magnitude(vector: Any) -> Any:
    """Return the absolute values."""
    return abs(vector)


@lowered("where_negative")
def where_negative(vector: Any, negative: Any, other: Any) -> Any:
    """Choose `negative` in the lanes where the vector is below zero, `other` elsewhere."""
    return negative if vector < 0.0 else other


@lowered("larger")
def larger(x: Any, y: Any) -> Any:
    """Return the larger of two numbers in every lane; where either is nan, y."""
    return x if x > y else y


@lowered("smaller")
def smaller(x: Any, y: Any) -> Any:
    """Return the smaller of two numbers in every lane; where either is nan, y."""
    return x if x < y else y


@inlined
def limited(vector: Any, low: float, high: float) -> Any:
    """Limit every lane to [low, high]; nan stays nan."""
    return smaller(repeat(high), larger(repeat(low), vector))


@lowered("nearest")
def nearest(vector: Any) -> Any:
    """Round every lane to a whole number below 2**51 in magnitude."""
    return np.rint(vector)


@lowered("power_of_two")
def power_of_two(vector: Any) -> Any:
    """Return 2**k for lanes that hold whole numbers k from -1022 to 1023; nan stays nan or not."""
    return np.exp2(vector)


@inlined
def exp(x: Any) -> Any:
    """Return e**x lane by lane, within one unit in the last place, without a call.

    With k the integer nearest to x / ln 2 and r = x - k ln 2, e**x = 2**k e**r; |r| < 0.35 lets
    thirteen terms of the series of e**r reach full precision. ln 2 comes in two parts, of which the
    first has 32 significant bits, so that its product with k is exact (Cody and Waite, 1980,
    "Software Manual for the Elementary Functions", chapter 6).

    x is limited to [-708, 709]: no underflow to zero and no overflow. nan stays nan.
    """
    x = limited(x, -708.0, 709.0)
    k = nearest(x * 1.4426950408889634)
    r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    series = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0
    series = series * r + 1.0 / 39916800.0
    series = series * r + 1.0 / 3628800.0
    series = series * r + 1.0 / 362880.0
    series = series * r + 1.0 / 40320.0
    series = series * r + 1.0 / 5040.0
    series = series * r + 1.0 / 720.0
    series = series * r + 1.0 / 120.0
    series = series * r + 1.0 / 24.0
    series = series * r + 1.0 / 6.0
    series = series * r + 0.5
    series = series * r + 1.0
    series = series * r + 1.0
    return series * power_of_two(k)


# Compiled kernels on disk -------------------------------------------------------------------------


_works = True


def _cached(function: Callable[..., None], compile_: Callable[[bool], Compiled]) -> Compiled:
    """Return what is compiled, or loaded from the cache; without the cache where that fails.

    Parameters
    ----------
    function : callable
        Whose code it is; its name is in the names of its files.
    compile_ : callable
        ``compile_(cache)`` compiles it, with numba's cache or without.

    Warns
    -----
    RuntimeWarning
        Once, if the cache cannot be used.
    """
    global _works
    if not _works:
        return compile_(False)
    try:
        # Where numba keeps the code of the function, or an error if there is no such folder.
        folder = Path(str(numba.njit(cache=True)(function).stats.cache_path))
        known = _drop_unsealed(folder, function.__name__)
        result = compile_(True)
        checksums = _checksums(folder, function.__name__)
        if checksums != known:
            _write_whole(_seal_of(folder, function.__name__), json.dumps(checksums))
        return result
    except Exception as error:  # an error that is not the cache's is raised again, without it
        result = compile_(False)
        _works = False
        warnings.warn(
            f"numba cannot keep compiled code on disk ({type(error).__name__}: {error}), so that "
            "fastgrad's kernels are compiled again in each process; set the environment variable "
            "NUMBA_CACHE_DIR to a folder that can be written to",
            RuntimeWarning,
            stacklevel=2,
        )
        return result


def _drop_unsealed(folder: Path, name: str) -> dict[str, str]:
    """Delete a function's files unless all are as they were sealed; return their checksums."""
    checksums = _checksums(folder, name)
    with suppress(OSError, ValueError):
        if checksums == json.loads(_seal_of(folder, name).read_text()):
            return checksums
    for file in checksums:
        (folder / file).unlink(missing_ok=True)
    return {}


def _seal_of(folder: Path, name: str) -> Path:
    """Return the file with the checksums of a function's cached code."""
    return folder / f"{name}.seal"


def _write_whole(file: Path, text: str) -> None:
    """Write a file that no other process ever sees in part."""
    partial = file.with_suffix(f".{uuid.uuid4().hex}")
    try:
        partial.write_text(text)
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _checksums(folder: Path, name: str) -> dict[str, str]:
    """Return the checksum of each of the files that numba has written for a function."""
    checksums = {}
    for path in folder.glob(f"*{name}-*.nb[ci]"):
        try:
            checksums[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        except FileNotFoundError:  # another process has just deleted it
            continue
    return checksums
