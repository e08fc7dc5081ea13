"""Nothing of a recording remains in what f keeps, nor in how Python collects garbage."""

import collections
import dis
import gc
import itertools
import pickle
import random as python_random
import sys
import threading
import types
from contextlib import nullcontext

import numpy as np
import pytest
from looped import assert_the_loops
from nets import H

from fastgrad import numerical_gradient
from fastgrad.tracing import first_calls, trace
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.stand_in import Recorded
from fastgrad.tracing.trace import trace_call

R = np.random.default_rng(0)
X, Y = R.normal(size=(30, 6)), R.normal(size=30)
W0 = R.normal(size=(6, 4))


pytestmark = pytest.mark.usefixtures("cheap_functions_traced")


@pytest.fixture
def left():
    """Return a function that counts the stand-ins that have come to exist since."""

    def count():
        gc.collect()
        return sum(type(o) is Recorded for o in gc.get_objects())

    gc.freeze()  # what there is already, which would take a second to look through
    yield count
    gc.unfreeze()


# Nothing remains ---------------------------------------------------------------------------------

COUNT = 0
LAST = None


class Remembers:
    """Keeps what it computes in every kind of place."""

    kept = None
    __slots__ = ("__dict__", "slot")

    def __init__(self):
        self.slot = None
        self.total, self.last, self.history = 0.0, 0.0, []
        self.by_name = {"loss": 0.0}
        self.ordered = collections.OrderedDict(loss=0.0)
        self.recent = collections.deque(maxlen=3)
        self.namespace = types.SimpleNamespace(loss=0.0)
        self.objects = np.array([None, 0.0], object)
        self.hidden = iter(({"out of reach": 0.0}, 0))
        self.calls = 0
        self.fails = False

        def remember(loss):
            nonlocal inner
            inner = loss
            remember.last = loss

        inner = 0.0
        self.remember = remember
        self.inner = lambda: inner

    def __call__(self, W):
        global COUNT, LAST
        self.calls += 1
        COUNT += 1
        z = np.tanh(X @ W)
        loss = np.sum(z**2)
        self.total += loss
        self.message = f"{self.last:.3f}"
        self.last = self.slot = self.namespace.loss = Remembers.kept = LAST = self.objects[0] = loss
        self.history.append(loss)
        self.recent.append(loss)
        self.by_name["loss"] += loss
        self.by_name[f"loss {self.calls}"] = loss
        self.ordered["last"] = [z, (loss, {"z": z})]
        self.remember(loss)
        if self.fails and isinstance(z, Recorded):
            raise self.fails("mine")
        return loss

    def places(self):
        return [
            self.total, self.last, self.slot, self.namespace.loss, Remembers.kept, LAST,
            *self.objects, *self.history, *self.recent, *self.by_name.values(),
            *self.ordered.values(), self.remember.last, self.inner(),
        ]  # fmt: skip


@pytest.mark.parametrize("fails", [None, ValueError, KeyboardInterrupt])
def test_what_f_remembers_holds_no_stand_in(fails, left):
    f = Remembers()
    f(W0)
    f.fails = fails
    if fails is KeyboardInterrupt:
        with pytest.raises(KeyboardInterrupt):
            numerical_gradient(f, W0.copy())
    else:
        numerical_gradient(f, W0.copy())
    assert {type(v) for v in f.places()} <= {float, np.float64, list, type(None)}
    pickle.dumps((f.history, f.by_name, f.ordered, f.recent))
    assert left() == 0
    f.fails = None
    numerical_gradient(f, W0.copy(), engine="traced")
    assert len(f.history) == f.calls == len(f.by_name) - 1
    assert left() == 0


def test_a_recorded_call_counts_for_nothing(monkeypatch):
    f = Remembers()
    # One plain call, and the recorded one.
    monkeypatch.setattr(first_calls, "SHORT_CALL_SECONDS", 0.0)
    count = COUNT
    trace_call(f, W0.copy(), H)
    assert (f.calls, len(f.history), len(f.by_name), COUNT - count) == (1, 1, 2, 1)
    assert f.total == f.history[0] == f(W0)


def test_what_was_out_of_reach_holds_plain_values_afterwards(left):
    box = {"object": Remembers()}
    number = id(box)  # nothing that f refers to leads to the box itself
    registry = gc.get_objects

    def f(W):
        z = np.tanh(X @ W)
        for o in registry():
            if id(o) == number and isinstance(z, Recorded):
                o["z"] = z
                o["list"] = [z, z.sum()]
                o["nested"] = ("z", (z, [(z.mean(),)]))
                o["object"].slot = z
        return np.sum(z**2)

    trace_call(f, W0.copy(), H)
    assert type(box["z"]) is np.ndarray
    assert [type(v) for v in box["list"]] == [np.ndarray, np.float64]
    name, (z, [(mean,)]) = box["nested"]
    assert (name, type(z), type(mean)) == ("z", np.ndarray, np.float64)
    assert type(box["object"].slot) is np.ndarray
    assert left() == 0


def test_a_dict_that_is_iterated_over_is_not_disturbed():
    params = {"unused": 0, "W1": W0.copy(), "b": np.ones(4), "W2": R.normal(size=(4, 3))}
    del params["unused"]

    def loss(_):
        return np.sum((np.tanh(X @ params["W1"] + params["b"]) @ params["W2"]) ** 2)

    assert [key for key in params if trace_call(loss, params[key], H)] == ["W1", "b", "W2"]


def test_no_interrupt_leaves_a_stand_in(strike, left, repeats):
    f, dice = Remembers(), python_random.Random(0)
    x = W0.copy()
    numerical_gradient(f, x, engine="traced")  # whatever is imported only now
    names, code = set(globals()), f.__call__.__code__
    for _ in range(repeats(50, 500)):
        strike(dice.uniform(1e-4, 4e-3), lambda: numerical_gradient(f, x, engine="traced"))
        assert {type(v) for v in f.places()} <= {float, np.float64, list, type(None)}
        assert x.tobytes() == W0.tobytes()
        assert globals().keys() == names
        assert f.__call__.__code__ is code
        assert globals()["np"] is np is __import__("numpy")
        for kept in (f.history, f.by_name):
            kept.clear()
        f.by_name["loss"] = 0.0
    assert left() == 0


def _package():
    """Return a module of the user's with another one in it, which keeps what it computes."""
    package, layers = types.ModuleType("package"), types.ModuleType("package.layers")
    source = (
        "import numpy as np\n"
        "losses = 0.0\n"
        "def squares(z, xp=np):\n"
        "    out = xp.asarray(xp.zeros(z.shape))\n"
        "    out[:] = z\n"
        "    return xp.sum(out**2)\n"
    )
    exec(source, vars(layers))
    package.layers = layers
    return package


package = _package()


def test_modules_in_modules_and_modules_given_as_defaults_are_followed(left):
    def f(w):
        loss = package.layers.squares(X @ w)
        package.layers.losses = package.layers.losses + loss
        return loss

    assert_the_loops(f, W0.copy(), engine="traced")
    assert package.layers.squares.__defaults__ == (np,)
    assert type(package.layers.losses) is np.float64
    assert not left()


def test_functions_of_fastgrad_are_recorded_as_attributes_of_its_module():
    source = (
        "import fastgrad\n"
        "def f(w):\n"
        "    y = fastgrad.softmax(fastgrad.sigmoid(X @ w))\n"
        "    return fastgrad.cross_entropy_error(y, t)\n"
    )
    namespace = {"X": X, "t": np.arange(30) % 4}
    exec(source, namespace)
    assert_the_loops(namespace["f"], W0.copy(), engine="traced")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("collects", [False, True])
def test_the_garbage_collector_is_as_it_was_before_f_was_recorded(collects, fails):
    calls = 0

    def f(W):
        nonlocal calls
        calls += 1
        if fails and calls > 2:  # as it is recorded
            raise ZeroDivisionError
        return np.sum(np.tanh(X @ W))

    was = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        with pytest.raises(NotTraceable) if fails else nullcontext():
            trace_call(f, W0.copy(), H)
        assert gc.isenabled() == collects
    finally:
        (gc.enable if was else gc.disable)()


def test_a_recording_pauses_the_collector_once_no_other_one_has_paused_it(monkeypatch):
    order = []
    collector = types.SimpleNamespace(
        isenabled=lambda: order.append("asked") or True,
        disable=lambda: order.append("paused"),
        enable=lambda: order.append("on"),
    )
    lock = types.SimpleNamespace(
        acquire=lambda *_: order.append("alone") or True, release=lambda: order.append("not alone")
    )
    monkeypatch.setattr(trace, "gc", collector)
    monkeypatch.setattr(trace, "_one_at_a_time", lock)
    trace_call(lambda W: np.sum(np.tanh(X @ W)), W0.copy(), H)
    assert order == ["alone", "asked", "paused", "on", "not alone"]


def after_calls(code):
    """Return the offsets of what follows calls, where Python runs the handlers of signals.

    Without those of which another handler catches what is raised: it would be that of the call.
    """
    entries = dis.Bytecode(code).exception_entries

    def handler(offset):
        return [entry.target for entry in entries if entry.start <= offset < entry.end]

    steps = [*dis.get_instructions(code)]
    return {
        after.offset
        for call, after in itertools.pairwise(steps)
        if call.opname.startswith("CALL") and handler(call.offset) == handler(after.offset)
    }


@pytest.mark.parametrize("function", ["_record_alone", "_close"])
def test_no_interrupt_after_a_call_leaves_a_recording_open_or_others_waiting(function):
    code = getattr(trace, function).__code__
    at_entry = -1
    places = [at_entry, *after_calls(code)]

    def recorded(interrupt):
        def instruction(frame, event, _):
            if event == "opcode" and frame.f_lasti == interrupt:
                raise KeyboardInterrupt
            return instruction

        def called(frame, *_):
            frame.f_trace_opcodes = frame.f_code is code
            if frame.f_trace_opcodes and interrupt == at_entry:
                raise KeyboardInterrupt
            return instruction if frame.f_trace_opcodes else None

        before = sys.gettrace()
        sys.settrace(called)
        try:
            trace_call(lambda W: np.sum(np.tanh(X @ W)), W0.copy(), H)
        finally:
            sys.settrace(before)

    def is_free():
        is_taken = trace._one_at_a_time.acquire(blocking=False)
        if is_taken:
            trace._one_at_a_time.release()
        free.append(is_taken)

    interrupts = 0
    for place in places:
        free = []
        try:
            recorded(place)
        except KeyboardInterrupt:
            interrupts += 1
        another = threading.Thread(target=is_free)
        another.start()
        another.join()
        assert free == [True]
        assert not trace._open
        assert gc.isenabled()
    assert interrupts >= 2
