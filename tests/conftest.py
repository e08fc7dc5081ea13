"""What tests of several files need: --slow, interrupts when told to, and a steady clock."""

import gc
import signal
import sys

import pytest

from fastgrad.engines import compilation
from fastgrad.tracing import trace

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell's background jobs are deaf to it, and so would be all that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    parser.addoption(
        "--slow",
        action="store_true",
        help="repeat random searches as often as before a release, in place of a few times",
    )


@pytest.fixture
def repeats(request):
    """Return ``repeats(few, many)``: how often a random search is repeated, many with --slow."""
    is_slow = request.config.getoption("--slow")
    return lambda few, many: many if is_slow else few


@pytest.fixture
def strike():
    """Return ``strike(seconds, note)``: a KeyboardInterrupt after that time, and note() before it.

    And another one each second, until it is called again: Python drops what is raised in callbacks
    of C code and in finalizers, and a test would wait for ever. The garbage collector is off for
    the same reason, since hypothesis registers a callback.
    """
    if not hasattr(signal, "setitimer"):
        pytest.skip("needs a timer signal")
    notes = []

    def interrupt(*_):
        for note in notes:
            note()
        raise KeyboardInterrupt

    def strike(seconds, note=None):
        notes[:] = [note] if note else []
        signal.setitimer(signal.ITIMER_REAL, seconds, 1)

    def unraisable(dropped):
        if dropped.exc_type is not KeyboardInterrupt:
            told(dropped)

    previous, told = signal.signal(signal.SIGALRM, interrupt), sys.unraisablehook
    sys.unraisablehook = unraisable
    gc.disable()
    yield strike
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.enable()
    sys.unraisablehook = told
    signal.signal(signal.SIGALRM, previous)


@pytest.fixture
def lanes_at_once(monkeypatch):
    """Let compiled functions be evaluated in lanes from their first gradient on."""
    monkeypatch.setattr(compilation, "WORTH_LANES", float("-inf"))


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


@pytest.fixture(autouse=True, scope="session")
def patient():
    """Let recordings take their time, however busy the machine is; operations stay limited."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "LEAST", 10.0)
        yield
