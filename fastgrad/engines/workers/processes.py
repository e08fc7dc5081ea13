"""Worker processes, by loky: they stay for the next call, and end when they have been idle.

loky leaves the user's main program out of its processes, and they share no memory and no locks with
this one. A function goes to them once, in a file: while the file is there, what is sent for the
function is wanted.
"""

import importlib.util
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, wait
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

from fastgrad.interrupts import LostWorkerError, uninterrupted
from fastgrad.jit.forks import free_after_fork

IDLE_SECONDS = 30.0
"""How long processes wait for another call: many times what it takes to start them."""

GRACE_SECONDS = 0.2
"""How long processes may take to end what nobody wants any more. Then they are killed, and the next
call has to start others."""

ONE_THREAD = dict.fromkeys(
    (
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "VECLIB_MAXIMUM_THREADS",
        "OMP_NUM_THREADS",
        "NUMBA_NUM_THREADS",
    ),
    "1",
)
"""What holds a library's threads in a process that has not loaded it yet."""

# A worker's memory belongs to f: loky would take what one f needs more than another for a leak.
ENVIRONMENT = ONE_THREAD | {"LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}

_lock = threading.Lock()
free_after_fork(_lock)
_idle: dict[int, list[tuple["Processes", threading.Timer]]] = {}
"""By the process that they belong to: a forked child must not use its parent's."""


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


class Processes:
    """An executor of loky's, and the pipe by whose end its processes see that this one has ended.

    Attributes
    ----------
    workers : int
    ready : Future
        Done as soon as one of them works.
    """

    def __init__(self, workers: int) -> None:
        from loky import ProcessPoolExecutor

        reader, self._writer = multiprocessing.Pipe(duplex=False)
        self.workers = workers
        self._executor = ProcessPoolExecutor(
            workers, initializer=_begin, initargs=(reader,), env=ENVIRONMENT
        )
        with _deaf_children():
            self.ready = self.submit(os.getpid)

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
        """Return the future of the function's result."""
        future: Future[Any] = self._executor.submit(function, *arguments)
        return future

    def are_broken(self) -> bool:
        """Return whether one of them has been killed."""
        try:
            self.submit(os.getpid)
        except BrokenExecutor:
            return True
        return False

    def end(self, kill: bool) -> None:
        """End all processes, at once or when they are idle."""
        self._executor.shutdown(wait=True, kill_workers=kill)
        self._writer.close()


class ProcessPool:
    """Processes that are taken, or started, when they are first needed, and kept until `close`."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._reused = self._fresh = False  # whether they have, or must not have, worked before
        self._processes: Processes | None = None
        self._futures: list[Future[Any]] = []
        self._function: Any = None
        self._file: Path | None = None

    @property
    def is_running(self) -> bool:
        """Whether there are processes."""
        return self._processes is not None

    def start(self) -> Future[Any]:
        """See that there are processes; return what is done as soon as one of them works."""
        require_packages()
        with uninterrupted():  # or a process could be started that nobody knows of
            while self._processes is None:
                found = None if self._fresh else _take(self.workers)
                self._reused = found is not None
                self._processes = found or Processes(self.workers)
                if found is not None and found.are_broken():  # one was killed while it was idle
                    self.close(kill=True)
            return self._processes.ready

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """Return the results of a function for each item, in order.

        Raises
        ------
        LostWorkerError
            If a process ends before its task.
        """
        self.start()
        with uninterrupted(), _death_explained():
            assert self._processes is not None
            if function is not self._function:
                self._share(function)
            self._futures = [each for each in self._futures if not _is_over(each)]
            new = []
            for item in items:
                new.append(self._processes.submit(_call, str(self._file), item))
                self._futures.append(new[-1])
        return map(_result, new)

    def renew(self) -> bool:
        """Let go of the processes; return whether new ones may do better, which are next then.

        Those that have worked before have imported modules, and f may have changed these since.
        """
        self._fresh = self._reused
        self.close(kill=self._fresh)
        self._reused = False
        return self._fresh

    def close(self, kill: bool = False) -> None:
        """Leave the processes to the next call, if they have ended their tasks; else kill them."""
        with uninterrupted():
            processes, self._processes = self._processes, None
            futures, self._futures = self._futures, []
            self._unshare()
            if processes is None:
                return
            if not kill:
                wait(futures, GRACE_SECONDS)
            if kill or not all(map(_is_over, futures)):
                processes.end(kill=True)
            else:
                _give_back(processes)

    def _share(self, function: Callable[[Any], Any]) -> None:
        """Put a function where processes find it, with what they are to have in common with us."""
        import cloudpickle

        self._unshare()
        pickled = cloudpickle.dumps(function)
        descriptor, name = tempfile.mkstemp(prefix=f"fastgrad-{uuid4().hex}-")
        self._file = Path(name)
        with open(descriptor, "wb") as file:
            pickle.dump((os.getcwd(), dict(os.environ), sys.path, pickled), file)
        self._function = function

    def _unshare(self) -> None:
        """Take the function away: what has not begun is not wanted."""
        if self._file is not None:
            with suppress(OSError):  # Windows keeps a file while it is read
                self._file.unlink()
        self._file = self._function = None


def _take(workers: int) -> Processes | None:
    """Return idle processes, so many, if there are any."""
    with _lock:
        idle = _idle.setdefault(os.getpid(), [])
        for index, (processes, timer) in enumerate(idle):
            if processes.workers == workers:
                timer.cancel()
                del idle[index]
                return processes
    return None


def _give_back(processes: Processes) -> None:
    """Keep processes for the next call, for a while."""
    if multiprocessing.parent_process() is not None and not _is_worker:
        processes.end(kill=True)  # before it ends, a child of multiprocessing's waits for its own
        return
    timer = threading.Timer(IDLE_SECONDS, _retire, [processes])
    timer.daemon = True  # the end of the program does not wait for it
    with _lock:
        _idle.setdefault(os.getpid(), []).append((processes, timer))
    timer.start()


def _retire(processes: Processes) -> None:
    """End processes, if they are idle still."""
    with _lock:
        idle = _idle.get(os.getpid(), [])
        kept = [each for each in idle if each[0] is not processes]
        found = len(kept) < len(idle)
        idle[:] = kept
    if found:
        processes.end(kill=False)


def _is_over(future: Future[Any]) -> bool:
    """Return whether a process has returned a result."""
    return future.done() and future.exception() is None


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

_is_worker = False
_file = ""
"""Where the function was that this worker has unpickled last."""
_function: Callable[[Any], Any]


def _begin(parent: Any) -> None:
    """Begin a worker's life: deaf to Ctrl-C, and not to outlive its parent."""
    global _is_worker
    _is_worker = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):  # children of f are not to be deaf
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, args=(parent,), daemon=True).start()


def _end_with_parent(parent: Any) -> None:
    with suppress(EOFError, OSError):
        parent.recv_bytes()  # nothing ever comes
    with suppress(OSError):
        os.unlink(_file)
    os._exit(1)


def _call(file: str, item: Any) -> Any:
    """Return the result of the function in a file for an item; None if nobody wants it any more."""
    global _file, _function
    try:
        if file != _file:
            _file = ""
            with open(file, "rb") as opened:
                folder, environment, path, pickled = pickle.load(opened)
            os.chdir(folder)
            _let_environment_be(environment | ENVIRONMENT)
            sys.path[:] = path
            _function = pickle.loads(pickled)
            _file = file
        elif not os.path.exists(file):
            return None
        return _function(item)
    except FileNotFoundError:
        if os.path.exists(file):
            raise
        return None
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):  # there may be none
                stream.flush()


def _let_environment_be(wanted: dict[str, str]) -> None:
    if dict(os.environ) != wanted:
        os.environ.clear()
        os.environ.update(wanted)
