"""Worker processes, by loky: they stay for the next call, and end when they have been idle.

loky leaves the user's main program out of its processes, and they share no memory and no locks with
this one. A function goes to them once, in a file: while the file is there, what is sent for the
function is wanted.
"""

import atexit
import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, wait
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

from fastgrad.interrupts import LostWorkerError, uninterrupted
from fastgrad.jit.concurrency import free_after_fork

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

RESTARTED = "A worker stopped while some jobs were given to the executor"
"""What loky warns of where a process has been idle too long just as there is work again, and has
started another. Where warnings are errors, that would end the others, too."""


def require_packages() -> None:
    """Refuse workers where their packages are missing."""
    for name in ("loky", "cloudpickle", "threadpoolctl"):
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(
                f"workers need {name}, which is not installed; pip install 'fastgrad[workers]', "
                "or pass workers=None",
                name=name,
            )


def may_start() -> bool:
    """Return whether this process may start others: not if it is a daemon, as a pool's worker."""
    return not multiprocessing.current_process().daemon


def process_pool(workers: int, fresh: bool = False) -> "ProcessPool":
    """Return a pool of idle processes, or of new ones; if fresh, the idle ones are ended.

    Those that have worked before have imported modules, and f may have changed these since.
    """
    require_packages()
    pool: ProcessPool | None = None
    try:
        with uninterrupted():  # or a process could be started that nobody knows of
            while pool := _take(workers):
                if not fresh and pool.wake():
                    return pool
                pool.close(kill=True)
            pool = ProcessPool(workers)
    except BaseException:
        if pool is not None:  # an interrupt at the end of the block: nobody knows of the pool
            pool.close()
        raise
    return pool


class ProcessPool:
    """Processes of loky's that evaluate one function at a time; they end when they have been idle.

    Attributes
    ----------
    workers : int
    ready : Future
        Done as soon as one of them works.
    is_reused : bool
        Whether they have worked for another block before.
    owner : int
        The process that they belong to: a forked child must not use its parent's.
    """

    def __init__(self, workers: int) -> None:
        from loky import ProcessPoolExecutor

        # By the end of the pipe they see that this process has ended.
        reader, self._writer = multiprocessing.Pipe(duplex=False)
        self.workers, self.is_reused, self.owner = workers, False, os.getpid()
        self._executor = ProcessPoolExecutor(
            workers, timeout=IDLE_SECONDS, initializer=_begin, initargs=(reader,), env=ENVIRONMENT
        )
        self._futures: list[Future[Any]] = []
        self._function: Any = None
        self._file = ""
        self.wake()

    def wake(self) -> bool:
        """Return whether none of the processes has been killed; they start, if they do not run."""
        if not any(message and message.pattern == RESTARTED for _, message, *_ in warnings.filters):
            warnings.filterwarnings("ignore", RESTARTED, UserWarning)
        try:
            [self.ready] = self._submit(os.getpid, [()])
        except BrokenExecutor:
            return False
        return True

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Return the results of a function for each item, in order.

        Raises
        ------
        LostWorkerError
            If a process ends before its task.
        """
        with uninterrupted(), _death_explained():
            if function is not self._function:
                self._share(function)
            return map(_result, self._submit(_call, [(self._file, item) for item in items]))

    def close(self, kill: bool = False) -> None:
        """Leave the processes to the next pool, if they have ended their tasks; else kill them."""
        with uninterrupted():
            self._unshare()
            kill = kill or bool(wait(self._futures, GRACE_SECONDS).not_done)
            # Before it ends, a child of multiprocessing's waits for its own; a worker does not.
            if kill or (multiprocessing.parent_process() is not None and not _file):
                self._executor.shutdown(wait=True, kill_workers=True)
                self._writer.close()
            else:
                self.is_reused = True
                with _lock:
                    _idle.append(self)

    def _submit(
        self, function: Callable[..., Any], arguments: list[tuple[Any, ...]]
    ) -> list[Future[Any]]:
        """Return the futures of the function's results."""
        with _deaf_children():  # processes start with their first task
            new = [self._executor.submit(function, *each) for each in arguments]
        self._futures = [each for each in self._futures if not each.done()] + new
        return new

    def _share(self, function: Callable[[Any], Any]) -> None:
        """Put a function where processes find it, with what they are to have in common with us."""
        import cloudpickle

        self._unshare()
        pickled = cloudpickle.dumps(function)
        descriptor, self._file = tempfile.mkstemp(prefix=f"fastgrad-{uuid4().hex}-")
        with open(descriptor, "wb") as file:
            pickle.dump((os.getcwd(), dict(os.environ), sys.path, pickled), file)
        self._function = function

    def _unshare(self) -> None:
        """Take the function away: what has not begun is not wanted."""
        with suppress(OSError):  # there may be none, and Windows keeps a file while it is read
            os.unlink(self._file)
        self._file, self._function = "", None


_lock = threading.Lock()
free_after_fork(_lock)
_idle: list[ProcessPool] = []
atexit.register(_idle.clear)  # before loky is taken apart, whose executors say so when they end


def _take(workers: int) -> ProcessPool | None:
    """Return an idle pool of so many processes, if there is one."""
    with _lock:
        for pool in _idle:
            if (pool.workers, pool.owner) == (workers, os.getpid()):
                _idle.remove(pool)
                return pool
    return None


def _result(future: Future[Any]) -> Any:
    """Return a future's result; wait for it in a queue.

    Ctrl-C may strike while ``future.result()`` lets go of its lock, and then it raises RuntimeError
    of that lock in the place of KeyboardInterrupt.
    """
    done: SimpleQueue[object] = SimpleQueue()
    future.add_done_callback(done.put)
    done.get()
    with _death_explained():
        return future.result()


@contextmanager
def _death_explained() -> Iterator[None]:
    try:
        yield
    except BrokenExecutor as error:
        raise LostWorkerError(
            "a worker process ended before its task: it was killed, crashed or ran out of memory; "
            "pass fewer workers, or workers=None to see f fail here"
        ) from error


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Let processes that are started in the block be deaf to Ctrl-C, which is their parent's.

    A signal that this thread blocks is blocked in them from the first moment; on Windows they are
    deaf only from `_begin` on.
    """
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


# In a worker

_file = ""
"""Where the function was that this worker has unpickled last; "" in any other process."""
_function: Callable[[Any], Any]


def _begin(parent: Any) -> None:
    """Begin a worker's life: deaf to Ctrl-C, and not to outlive its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: Any) -> None:
    with suppress(EOFError, OSError):
        parent.recv_bytes()  # nothing ever comes
    with suppress(OSError):
        os.unlink(_file)
    os._exit(1)


def _call(file: str, item: Any) -> Any:
    """Return the result of the function in a file for an item, if somebody wants it still."""
    global _file, _function
    try:
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
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # there may be none
                stream.flush()
