"""Worker processes, by loky: they stay for the next call, and end when they have been idle.

loky leaves the user's main program out of its processes, and they share no memory and no locks with
this one. A function goes to them once, in a file: while the file is there, what is sent for the
function is wanted. (A future that has been cancelled is more than loky can kill.)
"""

import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, wait
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

from fastgrad.jit.interrupts import LostWorkerError, uninterrupted

IDLE_SECONDS = 30.0
"""How long processes wait for another call: many times what it takes to start them."""

GRACE_SECONDS = 0.2
"""How long processes may take to end what nobody wants any more. Then they are killed, and the next
call has to start others."""

ENVIRONMENT = {
    # What holds the threads of libraries that threadpoolctl does not know, or before they start.
    **dict.fromkeys(("OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS", "NUMBA_NUM_THREADS"), "1"),
    # A worker's memory belongs to f: loky would take what one f needs more than another for a leak.
    "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18",
}
"""Variables that are otherwise in workers."""

# Where a process has been idle too long just as there is work again, loky starts another and warns.
# Where warnings are errors, that would end the others, too.
warnings.filterwarnings("ignore", "A worker stopped while some jobs were given", UserWarning)


def require_packages() -> None:
    """Refuse workers where their packages are missing."""
    for name in ("loky", "cloudpickle", "psutil", "threadpoolctl"):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(
                f"workers need {name}, which is not installed; pip install 'fastgrad[workers]', "
                "or pass workers=None",
                name=name,
            )


def may_start() -> bool:
    """Return whether this process may start others: not if it is a daemon, as a pool's worker."""
    return not multiprocessing.current_process().daemon


def start(workers: int, fresh: bool = False) -> threading.Event:
    """Start this thread's processes, if they do not run; return what is set once one works.

    If fresh, those that run are killed first: they may know a module as it was before.
    """
    works = threading.Event()
    while True:
        with suppress(BrokenExecutor), _deaf_children():  # one was killed, and that is just noticed
            future = _executor(workers, fresh).submit(os.getpid)
            future.add_done_callback(lambda _: works.set())
            return works


def map_in_processes(
    workers: int, function: Callable[[Any], Any], items: Iterable[Any]
) -> Iterator[Any]:
    """Yield the results of a function for each item, in order; raise LostWorkerError if one died.

    If that is left early, what has not begun is not done, and processes that do not end what they
    do are killed.

    Each method of a future takes its lock. Ctrl-C between that and the block that lets go of it
    would leave it taken, and loky's thread would wait for it for ever. So Ctrl-C strikes only where
    this thread waits for a queue.
    """
    file, futures = "", list[Future[Any]]()
    done: list[SimpleQueue[object]] = []
    try:
        with _deaf_children():
            executor, file = _executor(workers), _written(function)
            for item in items:
                futures.append(executor.submit(_call, file, item))
                done.append(SimpleQueue())
                futures[-1].add_done_callback(done[-1].put)
        for future, arrived in zip(futures, done, strict=True):
            arrived.get()
            with uninterrupted():
                result = future.result()
            yield result
    except BrokenExecutor as error:
        raise LostWorkerError(
            "a worker process ended before its task: it was killed, crashed or ran out of memory; "
            "pass fewer workers, or workers=None to see f fail here"
        ) from error
    finally:
        with uninterrupted():
            with suppress(OSError):  # there may be none, and Windows keeps a file while it is read
                os.unlink(file)
            if wait(futures, GRACE_SECONDS).not_done:
                executor.shutdown(wait=True, kill_workers=True)


def _executor(workers: int, fresh: bool = False) -> Any:
    """Return this thread's processes, others than those that have been killed."""
    require_packages()
    from loky import get_reusable_executor

    executor = get_reusable_executor(
        workers,
        timeout=IDLE_SECONDS,
        reuse=False if fresh else "auto",
        kill_workers=True,
        initializer=_begin,
        initargs=(os.getpid(),),  # a forked child must not use its parent's
        env=ENVIRONMENT,
    )
    if multiprocessing.parent_process() is not None and not hasattr(executor, "ends"):
        # A child of multiprocessing's waits for its own before it ends, and before loky ends them.
        from multiprocessing import util

        executor.ends = util.Finalize(None, executor.shutdown, (True, True), exitpriority=20)
    return executor


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Let Ctrl-C strike after the block, and not at all the processes that are started in it.

    A signal that this thread blocks is blocked in them from the first moment; on Windows they are
    deaf only from `_begin` on.
    """
    with uninterrupted():
        if not hasattr(signal, "pthread_sigmask"):
            yield
            return
        from multiprocessing import resource_tracker

        resource_tracker.ensure_running()  # it would unblock the signal when it starts
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _written(function: Callable[[Any], Any]) -> str:
    """Return a file with a function and what processes are to have in common with this one."""
    import cloudpickle

    pickled = cloudpickle.dumps(function)
    descriptor, name = tempfile.mkstemp(prefix=f"fastgrad-{uuid4().hex}-")
    with open(descriptor, "wb") as file:
        pickle.dump((os.getcwd(), dict(os.environ), sys.path, pickled), file)
    return name


# In a worker

_file = ""
"""Where the function was that this worker has unpickled last."""
_function: Callable[[Any], Any]


def _begin(parent: int) -> None:
    """Begin a worker's life: deaf to Ctrl-C, which is its parent's, and not to outlive that."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    """End this worker once its parent has ended."""
    import psutil

    # One that is dead exists until somebody has asked how it ended.
    while psutil.pid_exists(parent) and os.getppid() == parent:
        time.sleep(0.1)
    with suppress(OSError):
        os.unlink(_file)
    os._exit(1)


def _call(file: str, item: Any) -> Any:
    """Return the result of the function in a file for an item, if somebody wants it still."""
    global _file, _function
    if file != _file:
        _file = ""
        with open(file, "rb") as opened:  # it fails where nobody wants a result any more
            folder, environment, path, pickled = pickle.load(opened)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment | ENVIRONMENT)
        sys.path[:] = path
        _function = pickle.loads(pickled)
        _file = file
    return _function(item) if os.path.exists(file) else None
