"""Ctrl-C strikes after what it must not divide, and each handler is what it was."""

import contextlib
import signal

import pytest

from fastgrad.jit.interrupts import never_lost, uninterrupted


class Struck(BaseException):
    """What the handlers of these tests raise."""


@pytest.fixture
def handler(monkeypatch):
    """Return the handler that SIGINT and SIGTERM have during a test."""

    def raise_struck(number, frame):
        raise Struck(number)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, raise_struck)
    yield raise_struck
    monkeypatch.undo()
    for number, previous in before.items():
        signal.signal(number, previous)


def test_a_signal_strikes_after_the_block(handler):
    reached = []
    with pytest.raises(Struck), uninterrupted():  # noqa: PT012 - what follows the signal is the test
        signal.raise_signal(signal.SIGINT)
        reached.append("the end")
    assert reached
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_signal_that_strikes_among_the_handlers_leaves_none_deaf(handler, monkeypatch):
    original = signal.signal

    def strike_once_restored(number, new):
        original(number, new)
        if new is handler:
            signal.raise_signal(number)

    monkeypatch.setattr("fastgrad.jit.interrupts.signal.signal", strike_once_restored)
    with pytest.raises(Struck), uninterrupted():
        pass
    for number in (signal.SIGINT, signal.SIGTERM):
        with pytest.raises(Struck):
            signal.raise_signal(number)


def dropped():
    with contextlib.suppress(Struck):
        signal.raise_signal(signal.SIGINT)


def another():
    try:
        signal.raise_signal(signal.SIGINT)
    except Struck as error:
        raise RuntimeError("generator raised StopIteration") from error


def passed():
    signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("block", [dropped, another, passed])
def test_a_signal_is_raised_whatever_the_block_makes_of_it(handler, block):
    with pytest.raises(Struck), never_lost():
        block()
    assert signal.getsignal(signal.SIGINT) is handler


def test_what_no_signal_has_raised_passes(handler):
    with pytest.raises(ValueError, match="mine"), never_lost():
        raise ValueError("mine")
    calls = []
    signal.signal(signal.SIGINT, lambda *_: calls.append(0))
    with never_lost():
        signal.raise_signal(signal.SIGINT)
    assert calls == [0]
