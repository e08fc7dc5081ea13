"""What do several files' tests need? An interrupt that strikes when it is told to."""

import gc
import signal

import pytest


@pytest.fixture
def strike():
    """Return ``strike(seconds, note)``: a KeyboardInterrupt after that time, and note() before it.

    The garbage collector is off meanwhile: Python drops what is raised in its callbacks, and
    hypothesis registers one, so that a test would wait for ever.
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
        signal.setitimer(signal.ITIMER_REAL, seconds)

    previous = signal.signal(signal.SIGALRM, interrupt)
    gc.disable()
    yield strike
    signal.setitimer(signal.ITIMER_REAL, 0)
    gc.enable()
    signal.signal(signal.SIGALRM, previous)
