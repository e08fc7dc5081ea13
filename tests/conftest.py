"""What tests of several files need: --slow, processes, interrupts when told to, a steady clock."""

import gc
import itertools
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from fastgrad.checking import check
from fastgrad.engines import traced
from fastgrad.jit import jitted
from fastgrad.tracing import first_calls, references, trace

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs are deaf to it, and so would be all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--slow",
        action="store_true",
        help="repeat random searches as often as before a release, in place of a few times",
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config):
    """Run tests of a single file in this process: another one would have nothing to do."""
    files = {argument.partition("::")[0] for argument in config.args}
    return 0 if len(files) == 1 and Path(*files).is_file() else None  # as many as there are cores


@pytest.fixture(autouse=True, scope="session")
def blas_threads():
    """Give BLAS one thread beside other processes of pytest: two would wait for each other's core.

    Here alone: processes that tests start have as many as users' processes.
    """
    with threadpool_limits(1 if "PYTEST_XDIST_WORKER" in os.environ else None, "blas"):
        yield


@pytest.fixture
def threadpools():
    """Return `threadpoolctl.threadpool_info`, while BLAS has two threads if it can be told so."""
    with threadpool_limits(2, "blas"):
        yield threadpool_info


@pytest.fixture
def repeats(request):
    """Return ``repeats(few, many)``: how often a random search is repeated, many with --slow."""
    is_slow = request.config.getoption("--slow")
    return lambda few, many: many if is_slow else few


@pytest.fixture
def strike():
    """Return ``strike(seconds, call, note)``: call again and again until a KeyboardInterrupt.

    It is raised after that time, and note() is called before. Python drops what is raised in
    callbacks of C code and in finalizers, and a test would wait for ever: then another one follows.
    What is dropped in silence, after `UNSEEN_SECONDS`, more than any machine takes to end the call:
    a second one while it ends would be another test. The garbage collector is off for the same
    reason, since hypothesis registers a callback.
    """
    if not hasattr(signal, "setitimer"):
        pytest.skip("needs a timer signal")
    notes = []

    def interrupt(*_):
        for note in notes:
            note()
        raise KeyboardInterrupt

    def strike(seconds, call, note=None):
        notes[:] = [note] if note else []
        with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - whenever it is raised
            signal.setitimer(signal.ITIMER_REAL, seconds, UNSEEN_SECONDS)
            while True:
                call()
        signal.setitimer(signal.ITIMER_REAL, 0)

    def unraisable(dropped):
        if dropped.exc_type is KeyboardInterrupt:
            signal.setitimer(signal.ITIMER_REAL, 1, UNSEEN_SECONDS)
        else:
            told(dropped)

    previous, told = signal.signal(signal.SIGALRM, interrupt), sys.unraisablehook
    sys.unraisablehook = unraisable
    gc.disable()
    yield strike
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.enable()
    sys.unraisablehook = told
    signal.signal(signal.SIGALRM, previous)


UNSEEN_SECONDS = 30.0
"""Seconds after which an interrupt is repeated that Python has dropped in silence."""


@pytest.fixture
def wait_until():
    """Return ``wait_until(condition)``: for what happens in other threads, but not for ever."""

    def wait_until(condition):
        deadline = time.monotonic() + 60
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(1e-3)

    return wait_until


@pytest.fixture
def cheap_functions_traced(monkeypatch):
    """Let auto try to trace all but the smallest arrays, however cheap f is."""
    monkeypatch.setattr(first_calls, "MIN_TRACING_SECONDS", 0.0)


@pytest.fixture
def torch(monkeypatch):
    """Return PyTorch, of which no more is looked at than of what holds users' arrays.

    Tensors lead to all of it: tens of thousands of objects, which the clock ends for users, but not
    here, where recordings may take their time.
    """
    monkeypatch.setattr(references, "MAX_OBJECTS", 500)
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def no_certificate():
    """Measure the analysis of what was traced alone: the certificate would mend its defects."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traced, "CERTIFY", False)
        yield


@pytest.fixture
def lanes_at_once(monkeypatch):
    """Let compiled functions be evaluated in lanes from their first gradient on."""
    monkeypatch.setattr(jitted, "LANES_SECONDS", float("-inf"))


@pytest.fixture
def interrupted_at():
    """Return ``interrupted_at(n, call)``: interrupt where the n-th function is entered or left.

    It says whether there were so many. There, and in loops, Python runs the handlers of signals;
    not between any two lines.
    """

    def interrupted_at(event_number, call):
        events = 0

        def trace(frame, event, argument):
            nonlocal events
            events += event in ("call", "return")
            if events == event_number and event in ("call", "return"):
                raise KeyboardInterrupt
            return trace

        sys.settrace(trace)
        try:
            call()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    return interrupted_at


CALL, REPLAY = 0.0009, 0.09
"""Seconds that a call of f, and all of a replay, take in tests, whatever they take."""


@pytest.fixture(autouse=True, scope="session")
def steady():
    """Let no decision depend on how fast or how busy the machine is.

    Calls of f and replays are taken to last `CALL` and `REPLAY` seconds, and recordings and checks
    may take their time: so the same engine is chosen, and as much is compared, in every run.
    """
    with pytest.MonkeyPatch.context() as patch:
        for module, seconds in ((first_calls, CALL), (traced, REPLAY)):
            ticks = itertools.count(0, seconds).__next__
            clocks = SimpleNamespace(perf_counter=ticks, monotonic=time.monotonic)
            patch.setattr(module, "time", clocks)
        patch.setattr(trace, "MIN_RECORDING_SECONDS", 10.0)
        patch.setattr(traced, "MIN_RECORDING_SECONDS", 0.0)  # no refusal is remembered
        patch.setattr(traced, "EXPENSIVE_REPLAY_SECONDS", 2 * REPLAY)
        patch.setattr(traced, "MAX_EXPLAINING_SECONDS", 100.0)
        patch.setattr(check, "COMPARISON_SECONDS", 1e6)
        yield
