"""The state of what a function can reach is the same, and only if it is."""

import collections
import functools
import gc
import itertools
import threading
import types
import weakref

import numpy as np
import pytest

from fastgrad.tracing import state
from fastgrad.tracing.state import ignores_argument, state_of


class Holder:
    """Holds something, in an attribute."""

    def __init__(self, thing):
        self.thing = thing

    def read(self, _):
        return self.thing


class Slots:
    """Holds something in a slot."""

    __slots__ = ("thing",)


class Named(collections.namedtuple("Named", "a b")):
    """A tuple of a class of its own."""


def slotted(thing):
    holder = Slots()
    holder.thing = thing
    return holder


ARRAY = np.arange(6.0)

PAIRS = {
    "integers": (1, 2),
    "an integer and a bool": (1, True),
    "an integer and a float": (1, 1.0),
    "floats": (0.1, 0.2),
    "the sign of zero": (0.0, -0.0),
    "complex numbers": (1j, 2j),
    "numbers of NumPy": (np.float64(1), np.float64(2)),
    "numbers of two types of NumPy": (np.float64(1), np.float32(1)),
    "strings": ("a", "b"),
    "lists": ([1, 2], [1, 3]),
    "lengths of lists": ([1, 2], [1, 2, 2]),
    "lists and tuples": ([1], (1,)),
    "dicts": ({"a": 1}, {"a": 2}),
    "keys": ({"a": 1}, {"b": 1}),
    "sets": ({1, 2}, {1, 3}),
    "sets and frozen ones": ({1}, frozenset({1})),
    "deques": (collections.deque([1]), collections.deque([2])),
    "tuples with names": (Named(1, 2), Named(1, 3)),
    "arrays": (ARRAY, np.arange(1.0, 7)),
    "an element": (ARRAY, np.array([0, 1, 2, 3, 4, np.nextafter(5, 6)])),
    "dtypes of arrays": (ARRAY, ARRAY.astype(np.float32)),
    "shapes of arrays": (ARRAY, ARRAY.reshape(2, 3)),
    "layouts of arrays": (ARRAY.reshape(2, 3), np.asfortranarray(ARRAY.reshape(2, 3))),
    "arrays of strings": (np.array(["a"]), np.array(["b"])),
    "one array twice": ((a := ARRAY.copy(), a), (ARRAY.copy(), ARRAY.copy())),
    "a view and a copy": ((a, a[1:]), (a, a[1:].copy())),
    "views of other places": ((a, a[1:3]), (a, a[2:4])),
    "objects": (Holder(1), Holder(2)),
    "slots": (slotted(1), slotted(2)),
    "namespaces": (types.SimpleNamespace(a=1), types.SimpleNamespace(a=2)),
    "classes": (Holder, Slots),
    "dtypes": (np.dtype(float), np.dtype(int)),
    "functions": (lambda: 1, lambda: 2),
    "defaults": (lambda a=1: a, lambda a=2: a),
    "ufuncs": (np.sin, np.cos),
    "functions of NumPy": (np.sum, np.mean),
    "functions of Python": (len, sum),
    "methods": (Holder(1).read, Holder(2).read),
    "partial functions": (functools.partial(sum, [1]), functools.partial(sum, [2])),
    "generators of random numbers": (np.random.default_rng(1), np.random.default_rng(2)),
    "legacy ones": (np.random.RandomState(1), np.random.RandomState(2)),
}


@pytest.mark.parametrize(("one", "other"), PAIRS.values(), ids=PAIRS.keys())
def test_what_differs_is_seen(one, other):
    held = one

    def f(_):
        return held

    before = state_of(f)
    assert before.is_that_of(f)
    held = other
    assert not before.is_that_of(f)
    held = one
    assert before.is_that_of(f)
    holder = Holder(one)
    before = state_of(holder.read)
    assert before.is_that_of(holder.read)
    assert before.is_that_of(Holder(one).read)
    assert not before.is_that_of(Holder(other).read)


@pytest.mark.parametrize(
    "thing",
    [
        threading.Lock(), itertools.count(), iter([1]), (i for i in [1]), {(1, 2)}, open,
        np.random.RandomState(1).rand,
        np.ma.array([1.0]), np.array([None]), functools.lru_cache(len), [0] * 10_000, types,
        {(1, 2): 3}, type("Meta", (type,), {})("Class", (), {}), memoryview(b"1"),
    ],
    ids=lambda thing: type(thing).__name__,
)  # fmt: skip
def test_what_cannot_be_compared_has_no_state_or_is_a_constant(thing):
    found = state_of(lambda _: thing)
    assert found is None or thing in (open, types)


def test_globals_defaults_and_attributes_of_classes_and_functions_are_seen(monkeypatch):
    def f(_, a=[1]):  # noqa: B006
        return Holder(LENGTH), a, f.calls

    f.calls = 0
    for change in (
        lambda: monkeypatch.setitem(globals(), "LENGTH", 3),
        lambda: f.__defaults__[0].append(1),
        lambda: setattr(f, "calls", f.calls + 1),
        lambda: monkeypatch.setattr(Holder, "read", lambda self, x: x),
        lambda: monkeypatch.setattr(Holder, "number", 1, raising=False),
        lambda: (
            monkeypatch.setattr(state, "MAX_BYTES", state.MAX_BYTES + 1) or f.__dict__.pop("calls")
        ),
    ):
        before = state_of(f)
        assert before.is_that_of(f)
        change()
        assert not before.is_that_of(f)


LENGTH = 2


def test_a_closure_may_be_written_on_another_line():
    holder = Holder(ARRAY)
    before = state_of(lambda _: holder.read(0))
    assert before.is_that_of(lambda _: holder.read(0))
    assert not before.is_that_of(lambda _: holder.read(1))


def test_arrays_of_more_bytes_than_allowed_have_no_state(monkeypatch):
    monkeypatch.setattr(state, "MAX_BYTES", 2 * ARRAY.nbytes)
    assert state_of(lambda _: (ARRAY, a)) is not None
    monkeypatch.setattr(state, "MAX_BYTES", 2 * ARRAY.nbytes - 1)
    assert state_of(lambda _: (ARRAY, a)) is None


def test_a_state_keeps_no_object_of_the_users_alive():
    holder = Holder({"W": ARRAY.copy()})
    holder.thing["hook"] = functools.partial(Holder.read, holder)
    alive = [weakref.ref(each) for each in (holder, *holder.thing.values())]
    found = state_of(holder.read)
    assert found.place_of(holder.thing["W"]) == 0
    del holder
    gc.collect()
    assert [each() for each in alive] == 3 * [None]


def test_what_a_function_does_with_its_argument_is_told_by_its_code():
    def unused(x):
        return ARRAY.sum()

    def inner(x):
        return lambda: x

    def looking(x):
        return locals()

    def reassigned(x):
        x = ARRAY
        return x.sum()

    def starred(*x):
        return ARRAY

    class Callable:
        def __call__(self, x):
            return 1

    assert ignores_argument(unused)
    assert ignores_argument(Holder(1).read)
    assert not any(map(ignores_argument, (inner, looking, reassigned, starred, Callable(), len)))
    assert not ignores_argument(functools.partial(unused))
