"""Arrays are found wherever a function can read them, and are put back."""

import collections
import dataclasses
import functools
import types
import unittest.mock
import weakref

import numba
import numpy as np
import pytest

from fastgrad import numerical_gradient
from fastgrad.tracing import references
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.references import find_references, is_of_library, temporarily_replaced

X = np.arange(6.0).reshape(2, 3)


def same(f, x):
    """Return the references to an array that can be replaced."""
    return [r for r in find_references(f) if r.held is x and r.assign is not None]


class Bag:
    def __init__(self, **attributes):
        vars(self).update(attributes)

    def read(self):
        return self

    def __call__(self):
        return self


class Slots:
    __slots__ = ("W", "other")


class MoreSlots(Slots):
    __slots__ = "V"


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    W: np.ndarray


def closure(held):
    return lambda: held


def _closure():
    x = X.copy()
    return closure(x), x, lambda f: f.__closure__[0].cell_contents


def _nested_closure():
    x = X.copy()
    inner = closure(x)
    return closure(inner), x, lambda f: inner.__closure__[0].cell_contents


def _default():
    x = X.copy()

    def f(values=[x]):  # noqa: B006
        return values

    return f, x, lambda f: f.__defaults__[0][0]


def _keyword_default():
    x = X.copy()

    def f(*, W=x):
        return W

    return f, x, lambda f: f.__kwdefaults__["W"]


def _attribute():
    bag = Bag(W=X.copy())
    return closure(bag), bag.W, lambda f: bag.W


def _bound_method():
    bag = Bag(W=X.copy())
    return bag.read, bag.W, lambda f: bag.W


def _callable_object():
    bag = Bag(W=X.copy())
    return bag, bag.W, lambda f: bag.W


def _dict_in_list():
    held = [{"params": {"W": X.copy()}}]
    return closure(held), held[0]["params"]["W"], lambda f: held[0]["params"]["W"]


def _dict_of_objects():
    held = {1: Bag(layers=[Bag(W=X.copy())])}
    return closure(held), held[1].layers[0].W, lambda f: held[1].layers[0].W


def _tuple_of_objects():
    bag = Bag(W=X.copy())
    return closure((1, (bag,))), bag.W, lambda f: bag.W


def _ordered_dict():
    held = collections.OrderedDict(W=X.copy())
    return closure(held), held["W"], lambda f: held["W"]


def _default_dict():
    held = collections.defaultdict(list, W=X.copy())
    return closure(held), held["W"], lambda f: held["W"]


def _subclass_of_list():
    held = type("Layers", (list,), {})([X.copy()])
    return closure(held), held[0], lambda f: held[0]


def _partial():
    held = [X.copy()]
    f = functools.partial(lambda a, b: a, held, b=1)
    return f, held[0], lambda f: held[0]


def _partial_keyword():
    f = functools.partial(lambda a, b: a, b=X.copy())
    return f, f.keywords["b"], lambda f: f.keywords["b"]


def _slots():
    held = MoreSlots()
    held.W, held.V = X.copy(), 1
    return closure(held), held.W, lambda f: held.W


def _frozen():
    held = Frozen(X.copy())
    return closure(held), held.W, lambda f: held.W


def _namespace():
    held = types.SimpleNamespace(W=X.copy())
    return closure(held), held.W, lambda f: held.W


def _class_attribute():
    kind = type("Model", (), {"W": X.copy(), "__module__": __name__})
    return closure(kind), kind.W, lambda f: kind.W


def _inherited_class_attribute():
    base = type("Base", (), {"W": X.copy(), "__module__": __name__})
    kind = type("Model", (base,), {"__module__": __name__})
    return closure(kind()), base.W, lambda f: base.W


def _property():
    x = X.copy()
    kind = type("Model", (), {"W": property(lambda self, x=[x]: x[0]), "__module__": __name__})
    return closure(kind()), x, lambda f: kind.W.fget.__defaults__[0][0]


def _global():
    return reads_globals, GLOBAL["W"], lambda f: GLOBAL["W"]


def _global_in_a_comprehension():
    return reads_globals_inside, GLOBAL["W"], lambda f: GLOBAL["W"]


def _decorated():
    x = X.copy()

    def f():
        return x

    @functools.wraps(f)
    def wrapper():
        return f()

    return wrapper, x, lambda _: f.__closure__[0].cell_contents


def _cycle():
    bag = Bag(W=X.copy())
    bag.me = [bag, {"bag": bag}]
    return closure(bag), bag.W, lambda f: bag.W


GLOBAL = {"W": X.copy()}


def reads_globals():
    return GLOBAL["W"]


def reads_globals_inside():
    return [(lambda: GLOBAL["W"])() for _ in range(1)]


PLACES = {
    name.removeprefix("_").replace("_", " "): make
    for name, make in list(globals().items())
    if name.startswith("_") and not name.startswith("__") and isinstance(make, types.FunctionType)
}


def test_all_places_are_tested():
    assert len(PLACES) == 25


@pytest.mark.parametrize("name", PLACES)
def test_an_array_is_found_replaced_and_put_back(name):
    f, x, read = PLACES[name]()
    assert read(f) is x
    found = same(f, x)
    assert found
    stand_in = object()
    assert (
        temporarily_replaced([(r.assign, x, stand_in) for r in found], lambda: read(f)) is stand_in
    )
    assert read(f) is x


@pytest.mark.parametrize(
    "held",
    [
        (X,),
        frozenset(),
        (1, (X, 2)),
        collections.namedtuple("Weights", "W")(X),
    ],
    ids=["tuple", "frozenset", "nested", "named tuple"],
)
def test_what_cannot_be_replaced_is_reported_without_a_way_to_do_so(held):
    found = [r for r in find_references(closure(held)) if r.held is X]
    assert all(r.assign is None for r in found)
    assert bool(found) == bool(held)


def test_views_are_references_too():
    bag = Bag(flat=X.reshape(-1), transposed=X.T, other=X.copy())
    arrays = [r.held for r in find_references(closure(bag))]
    assert any(array is bag.flat for array in arrays)
    assert any(array is bag.transposed for array in arrays)
    assert sum(np.shares_memory(array, X) for array in arrays) == 2


def test_the_same_array_is_found_in_every_place():
    bag = Bag(a=X, b=[X, X], c={"d": X})
    assert len(same(closure(bag), X)) == 4


def test_globals_that_are_not_named_are_not_looked_at():
    def f():
        return 1

    assert not same(f, GLOBAL["W"])


def test_libraries_are_not_followed():
    assert is_of_library("numpy")
    assert is_of_library("numpy.linalg")
    assert is_of_library("fastgrad.engines.loop")
    assert is_of_library("collections.abc")
    assert not is_of_library("numpys")
    assert not is_of_library("__main__")
    assert not is_of_library(__name__)
    found = find_references(lambda: np.linalg.norm(X))
    assert [r.held is X for r in found] == [True]


def test_no_more_than_so_many_objects_are_looked_at(monkeypatch):
    monkeypatch.setattr(references, "MAX_OBJECTS", 50)
    deep = Bag(W=X)
    for _ in range(100):
        deep = [deep]
    assert not same(closure(deep), X)
    monkeypatch.undo()
    assert len(same(closure(deep), X)) == 1


def test_looking_calls_none_of_the_users_code():
    x = X.copy()

    class Shy:
        def __init__(self, x):
            self.W = x

        def __eq__(self, other):
            raise AssertionError

        def __hash__(self):
            raise AssertionError

        def __getattr__(self, name):
            if name.startswith("__"):
                raise AttributeError(name)
            raise AssertionError(name)

        def __iter__(self):
            raise AssertionError

        def __len__(self):
            raise AssertionError

        def __bool__(self):
            raise AssertionError

        @property
        def costly(self):
            raise AssertionError

    shy = Shy(x)
    assert len(same(closure([shy, {"a": shy}]), x)) == 1


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_arrays_are_put_back_whatever_is_raised(error):
    bag = Bag(a=X, b=[X], c={"d": X})
    found = same(closure(bag), X)

    def fail():
        assert {bag.a, bag.b[0], bag.c["d"]} == set("xyz")
        raise error

    with pytest.raises(error):
        temporarily_replaced(
            [(r.assign, X, name) for r, name in zip(found, "xyz", strict=True)], fail
        )
    assert bag.a is bag.b[0] is bag.c["d"] is X


def test_arrays_are_put_back_if_replacing_one_of_them_fails():
    bag = Bag(a=X, b=X)
    found = same(closure(bag), X)

    def stubborn(item):
        if item is not X:
            raise RuntimeError("stubborn")

    with pytest.raises(NotTraceable, match=r"cannot be replaced .*stubborn"):
        temporarily_replaced(
            [(assign, X, "new") for assign in (found[0].assign, stubborn, found[1].assign)], list
        )
    assert bag.a is bag.b is X


def test_a_list_that_becomes_shorter_keeps_no_other_array_from_being_put_back():
    bag = Bag(a=X, b=[0, X], c={"d": X})
    temporarily_replaced([(r.assign, X, "new") for r in same(closure(bag), X)], bag.b.pop)
    assert bag.b == [0]
    assert bag.a is bag.c["d"] is X


@pytest.mark.parametrize("seconds", [1e-5, 1e-3, 3e-3, 1e-2])
def test_no_interrupt_strikes_while_only_some_arrays_are_in_their_places(seconds, strike):
    held = dict.fromkeys(range(100_000), "old")
    slots = [(functools.partial(dict.__setitem__, held, i), "old", "new") for i in held]
    seen = []

    strike(
        seconds, lambda: temporarily_replaced(slots, list), lambda: seen.append({*held.values()})
    )
    assert seen in ([{"old"}], [{"new"}])
    assert {*held.values()} == {"old"}


# What raises when it is looked at ----------------------------------------------------------------


class Raises:
    """Like a proxy outside of its context: whatever is asked of it raises."""

    def __getattribute__(self, name):
        raise RuntimeError(name)


class SaysItIs:
    """Like a mock or a proxy, of another class than it says."""

    def __init__(self, kind):
        self.kind = kind

    @property
    def __class__(self):
        return object.__getattribute__(self, "kind")


class RaisesWhenCounted(list):
    def __len__(self):
        raise RuntimeError

    __iter__ = __len__


class Guarded(type):
    """A class whose attributes cannot be assigned to by code in Python."""

    def __setattr__(cls, name, value):
        raise RuntimeError(name)


class OfGuarded(metaclass=Guarded):
    W = X.copy()


class Private:
    __slots__ = ("__W",)

    def __init__(self, w):
        self.__W = w

    def get(self):
        return self.__W


KINDS = types.FunctionType, dict, list, np.ndarray, types.ModuleType, types.CellType

THINGS = {  # made when they are needed: pytest would ask them
    "dead proxy": lambda: weakref.proxy(Bag()),
    "raises": Raises,
    "raises when counted": lambda: RaisesWhenCounted([1, Bag()]),
    "in a deque": lambda: collections.deque([Raises()]),
    "mock": lambda: unittest.mock.MagicMock(spec=dict),
    **{f"says it is a {kind.__name__}": functools.partial(SaysItIs, kind) for kind in KINDS},
}


@pytest.mark.parametrize("name", THINGS)
def test_what_f_can_reach_is_asked_nothing(name):
    thing = THINGS[name]()
    held = Bag(thing=thing, W=X.copy())

    def f(w):
        held.last = np.sum(held.W**2)
        return held.last

    got = numerical_gradient(f, held.W, engine="traced")
    assert np.allclose(got, 2 * X, atol=1e-7)
    assert held.thing is thing
    assert type(held.last) is np.float64


def test_attributes_are_replaced_past_the_code_of_their_class():
    private, module = Private(X.copy()), type("Module", (types.ModuleType,), {})("module")
    vars(module)["W"] = X.copy()
    type(module).__setattr__ = lambda self, name, value: 1 / 0
    namespace = {"module": module, "np": np}
    exec("def f(w): return np.sum(module.W**2)", namespace)
    cases = {
        lambda w: np.sum(OfGuarded.W**2): OfGuarded.W,
        lambda w: np.sum(private.get() ** 2): private.get(),
        namespace["f"]: module.W,
    }
    for f, x in cases.items():
        assert np.allclose(numerical_gradient(f, x, engine="traced"), 2 * X, atol=1e-7)
    assert type(OfGuarded.W) is type(private.get()) is type(module.W) is np.ndarray


def test_of_a_jitted_function_only_what_it_was_compiled_from_is_looked_at():
    table = np.ones(3)

    @numba.njit
    def jitted(x):
        return (table * x).sum()

    jitted(np.ones(3))
    around = references.look_around(jitted)
    assert [reference.held is table for reference in around.references] == [True]
    assert [function.__name__ for function in around.functions] == ["jitted"]
