"""Forks while other threads compute or hold a lock: the child is never left waiting."""

import os
import signal
import threading

import numba
import numpy as np
import pytest
from oracle import JIT

from fastgrad import TwoLayerNet, numerical_gradient
from fastgrad.jit import concurrency
from fastgrad.jit.concurrency import exclusive

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork"),
    pytest.mark.skipif(not JIT, reason="without the JIT there is nothing that computes in threads"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


@numba.njit
def waves(x):
    total = 0.0
    for value in x:
        total += np.sin(value) * value
    return total


def in_child(act):
    """Act in a forked child; return its status, which is not 0 if it fails or takes a minute."""
    child = os.fork()
    if not child:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(60)
            act()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("place", range(len([*concurrency._all_locks()])))
def test_a_lock_that_another_thread_holds_is_free_in_the_child(place):
    held, lock = threading.Event(), [*concurrency._all_locks()][place]

    def hold():
        with lock:
            held.set()
            forking.wait(0.1)

    forking = threading.Event()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def act():
        for each in concurrency._all_locks():
            each.acquire()
            each.release()

    assert in_child(act) == 0
    thread.join()
    act()


def test_numbas_locks_are_among_them_as_soon_as_it_is_imported():
    first, *others = concurrency._all_locks()
    assert exclusive in others
    # The compiler's, and LLVM's, which numba takes while it holds that.
    assert [type(lock).__name__ for lock in others[-2:]] == ["_CompilerLock", type(first).__name__]


def test_children_of_a_busy_process_compute_what_it_computes(repeats):
    x, y = np.random.default_rng(0).normal(size=(2, 400))
    net = TwoLayerNet(5, 4, 3)
    batch = np.random.default_rng(1).random((6, 5)), np.arange(6) % 3

    def answers():
        return (
            numerical_gradient(waves, x).tobytes() + net.numerical_gradient(*batch).buffer.tobytes()
        )

    expected, stop = answers(), threading.Event()

    def work():
        while not stop.is_set():
            numba.njit(lambda x: x.sum())(y[:2])
            numerical_gradient(waves, y)
            net.numerical_gradient(*batch)

    def act():
        if answers() != expected:
            raise ValueError("other bits")

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        assert {in_child(act) for _ in range(repeats(8, 30))} == {0}
    finally:
        stop.set()
        for thread in threads:
            thread.join()
