"""Where do worker processes come from? Copies of a small process that has NumPy loaded already.

Python's own ways are unfit: "fork" copies this process, with locks that its other threads (of BLAS,
numba, a progress bar) may hold and that nobody in the copy will ever release; "spawn" and
"forkserver" run the user's main program again in every worker. So this is a fork server of our
own, which leaves the main program out. It starts once; then pools are there at once.
"""

import io
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any

from fastgrad.engines.interrupts import uninterrupted

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

PRELOADED = [
    "fastgrad.engines.workers",
    "fastgrad.engines.processes",
    "concurrent.futures.process",
    "cloudpickle",
    "threadpoolctl",
]

_lock = threading.Lock()

if sys.platform == "win32":
    from multiprocessing.context import SpawnContext as Context
else:
    from multiprocessing import forkserver, popen_forkserver, reduction, spawn, util
    from multiprocessing.context import ForkServerContext, ForkServerProcess, set_spawning_popen

    _server: Any

    def _new_server() -> None:
        """Begin with a server that is ours alone: the one of multiprocessing stays the user's."""
        global _server, _lock
        _server, _lock = forkserver.ForkServer(), threading.Lock()
        _server.set_forkserver_preload(PRELOADED)

    _new_server()
    os.register_at_fork(after_in_child=_new_server)  # a copied process has no say in the first one

    class Popen(popen_forkserver.Popen):
        """Starts a process by our server, and without the main program."""

        def _launch(self: Any, process: Any) -> None:
            preparation = spawn.get_preparation_data(process.name)
            for name in ("init_main_from_name", "init_main_from_path"):
                preparation.pop(name, None)
            message = io.BytesIO()
            set_spawning_popen(self)
            try:
                reduction.dump(preparation, message)
                reduction.dump(process, message)
            finally:
                set_spawning_popen(None)
            self.sentinel, writer = _server.connect_to_new_process(self._fds)
            # The process sees by this end's closing that its parent has gone.
            ends = os.dup(writer), self.sentinel
            self.finalizer = util.Finalize(self, _close, ends)
            with open(writer, "wb") as pipe:
                pipe.write(message.getbuffer())
            self.pid = forkserver.read_signed(self.sentinel)

    class Process(ForkServerProcess):
        """A process that our server starts."""

        @staticmethod
        def _Popen(process: Any) -> Any:
            return Popen(process)

    class Context(ForkServerContext):
        """What a pool asks for processes."""

        Process = Process


def prepare() -> bool:
    """See that a pool can start at once; return False if that will take another tenth of a second.

    Raises
    ------
    ModuleNotFoundError
        If a package is missing that workers need.
    """
    require_packages()
    if sys.platform == "win32":
        return True
    with _lock:
        ready = _server._forkserver_pid is not None
        before = {name: os.environ.get(name) for name in ONE_THREAD}
        try:
            os.environ.update(ONE_THREAD)
            _server.ensure_running()
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
    return ready


def require_packages() -> None:
    """Refuse workers where their packages are missing."""
    try:
        import cloudpickle  # noqa: F401  (is it there?)
        import threadpoolctl  # noqa: F401  (and it?)
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"workers need {error.name}, which is not installed; pip install 'fastgrad[workers]', "
            "or pass workers=None",
            name=error.name,
        ) from None


@contextmanager
def pool(
    workers: int, initializer: Callable[..., None] | None = None, *arguments: Any
) -> Iterator[Callable[[Callable[..., Any], Any], Iterator[Any]]]:
    """Give ``map(function, items)`` over processes that have ended when the block has.

    The initializer is called with the arguments in every process. If the block ends before the
    processes are done, as by KeyboardInterrupt, they are killed at once.

    Raises
    ------
    RuntimeError
        If a process ends before its task.
    """
    prepare()
    started: list[Any] = []
    context: Any = Context()

    def begin(*args: Any, **kwargs: Any) -> Any:
        started.append(type(context).Process(*args, **kwargs))
        return started[-1]

    context.Process = begin
    setup = (os.getcwd(), dict(os.environ) | ONE_THREAD, initializer, arguments)
    executor = ProcessPoolExecutor(workers, context, _set_up, setup)
    futures: list[Future[Any]] = []

    def submit(function: Callable[..., Any], items: Any) -> Iterator[Any]:
        futures[:] = [future for future in futures if not future.done()]
        with uninterrupted():  # or a process could be started that nobody knows of
            new = [executor.submit(function, item) for item in items]
            futures.extend(new)
        return map(_result, new)

    try:
        yield submit
    except BrokenProcessPool as error:
        raise RuntimeError(
            "a worker process ended before its task: it was killed, crashed or ran out of memory; "
            "pass fewer workers, or workers=None to see f fail here"
        ) from error
    finally:
        # Not cancelled: before Python 3.12 a pool that has lost a process cannot cope with that.
        if not all(future.done() for future in futures):
            with uninterrupted():
                for process in started:
                    if process.pid is not None:
                        process.kill()
        executor.shutdown(wait=True)


def _result(future: Future[Any]) -> Any:
    """Return a future's result; wait for it in a queue.

    Ctrl-C may strike while ``future.result()`` lets go of its lock, and then it raises RuntimeError
    of that lock in the place of KeyboardInterrupt.
    """
    done: SimpleQueue[object] = SimpleQueue()
    future.add_done_callback(done.put)
    done.get()
    return future.result()


def _close(*ends: int) -> None:
    for end in ends:
        os.close(end)


def _set_up(
    folder: str,
    environment: dict[str, str],
    initializer: Callable[..., None] | None,
    arguments: tuple[Any, ...],
) -> None:
    """Begin a worker's life: where its parent works, deaf to Ctrl-C, and not to outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's to answer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.chdir(folder)
    os.environ.update(environment)
    if initializer is not None:
        initializer(*arguments)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
