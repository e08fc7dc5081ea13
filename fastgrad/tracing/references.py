"""Where does a function find arrays that it is not given? References are followed from it."""

import collections
import functools
import gc
import operator
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

Put = Callable[[Any], None]
Result = TypeVar("Result")

MOST_OBJECTS = 20_000
"""How many objects are looked at, at most."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A place that holds an array, and can be made to hold another object.

    Attributes
    ----------
    array : ndarray
        What it holds.
    put : callable or None
        ``put(object)`` replaces it; None where that is impossible, as in a tuple.
    """

    array: Array
    put: Put | None


def find_references(f: Callable[..., Any]) -> list[Reference]:
    """Return the places, reachable from a function, that hold arrays.

    Followed are closures, defaults, bound methods, partials, the globals that functions name,
    attributes and the items of containers.
    """
    found: list[Reference] = []
    seen: set[int] = set()
    waiting: list[Any] = [f]
    while waiting and len(seen) < MOST_OBJECTS:
        holder = waiting.pop()
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        for item, put in _items(holder):
            if isinstance(item, np.ndarray):
                found.append(Reference(item, put))
                if item.dtype == object:
                    waiting.append(tuple(item.ravel()))
            elif not isinstance(item, _LEAVES):
                waiting.append(item)
    return found


_LEAVES = (str, bytes, int, float, complex, type(None), np.generic, np.dtype, np.ufunc)

_CONTAINERS = (dict, list, tuple)


def _items(holder: Any) -> Iterator[tuple[Any, Put | None]]:
    """Iterate over what an object refers to, each with a way to replace it."""
    if isinstance(holder, types.FunctionType):
        if not _is_foreign(holder):
            yield from _of_function(holder)
    elif isinstance(holder, types.MethodType):
        yield holder.__self__, None
        yield holder.__func__, None
    elif isinstance(holder, functools.partial):
        yield holder.func, None
        yield from ((item, None) for item in holder.args)
        yield from _of_dict(holder.keywords)
    elif type(holder) is dict:
        yield from _of_dict(holder)
    elif type(holder) is list:
        yield from _of_list(holder)
    elif type(holder) is collections.deque:
        for i, item in enumerate(holder):
            yield item, functools.partial(holder.__setitem__, i)
    elif isinstance(holder, memoryview):
        yield np.asarray(holder), None
    elif isinstance(holder, type):
        for name, item in vars(holder).items():
            function = getattr(item, "__func__", getattr(item, "fget", item))
            if isinstance(function, (types.FunctionType, np.ndarray, *_CONTAINERS)):
                yield function, functools.partial(setattr, holder, name)
    elif not isinstance(holder, types.ModuleType):
        yield from _of_object(holder)


def _is_foreign(item: Any) -> bool:
    """Say whether a function, class or module belongs to a library that holds no user's array."""
    module = getattr(item, "__module__", None) or getattr(item, "__name__", None)
    return isinstance(module, str) and is_of_library(module)


def is_of_library(module: str) -> bool:
    """Say whether a module, by its name, belongs to Python or to one of these libraries."""
    package = module.partition(".")[0]
    return package in _LIBRARIES


_LIBRARIES = (
    frozenset({"fastgrad", "numba", "numpy", "scipy", "matplotlib", "tqdm", "pytest", "_pytest"})
    | sys.stdlib_module_names
)


def _of_dict(holder: dict[Any, Any]) -> Iterator[tuple[Any, Put | None]]:
    for key, item in list(dict.items(holder)):
        yield item, functools.partial(dict.__setitem__, holder, key)


def _of_list(holder: list[Any]) -> Iterator[tuple[Any, Put | None]]:
    for i, item in enumerate(holder):
        yield item, functools.partial(list.__setitem__, holder, i)


def _of_function(function: types.FunctionType) -> Iterator[tuple[Any, Put | None]]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents, functools.partial(setattr, cell, "cell_contents")
        except ValueError:  # an empty cell
            continue
    yield function.__defaults__, None
    if function.__kwdefaults__:
        yield from _of_dict(function.__kwdefaults__)
    namespace = function.__globals__
    names = _names(function.__code__)
    for name in names & namespace.keys():
        item = namespace[name]
        yield item, functools.partial(dict.__setitem__, namespace, name)
        if isinstance(item, types.ModuleType) and not _is_foreign(item):
            for attribute in names & vars(item).keys():
                yield vars(item)[attribute], functools.partial(setattr, item, attribute)


def _names(code: types.CodeType) -> set[str]:
    """Return the names of globals and attributes in a function and in those defined in it."""
    inner = (constant for constant in code.co_consts if isinstance(constant, types.CodeType))
    return set(code.co_names).union(*(_names(constant) for constant in inner))


def _of_object(holder: Any) -> Iterator[tuple[Any, Put | None]]:
    """Follow an instance: its items, its attributes and slots, the methods of its class."""
    kind = type(holder)
    places = [*_of_slots(holder, kind)]
    if isinstance(holder, dict):
        places += _of_dict(holder)
    elif isinstance(holder, list):
        places += _of_list(holder)
    attributes = getattr(holder, "__dict__", None)
    if isinstance(attributes, dict):
        places += _of_dict(attributes)
    yield from places
    # What it holds in yet another way, as a tuple, a set or a property does, cannot be replaced.
    known = {id(item) for item, _ in places} | {id(attributes)}
    others = (item for item in gc.get_referents(holder) if id(item) not in known)
    yield from ((item, None) for item in others if not isinstance(item, type))
    if not _is_foreign(kind):
        yield from ((base, None) for base in kind.__mro__[:-1])


def _of_slots(holder: Any, kind: type) -> Iterator[tuple[Any, Put | None]]:
    for base in kind.__mro__:
        slots = vars(base).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if not _is_foreign(base) and hasattr(holder, name):
                yield getattr(holder, name), functools.partial(object.__setattr__, holder, name)


_exhaust = collections.deque[object](maxlen=0).extend

Place = tuple[Put, Any, Any]
"""How to put an object there, what it holds, and what it shall hold for a time."""


def exchanged(places: list[Place], call: Callable[[], Result]) -> Result:
    """Return ``call()``, made while the new objects are in their places; put the old ones back.

    Whatever happens. Python runs the handlers of signals, Ctrl-C's among them, between its own
    instructions; ``put_in()`` and ``put_back()`` have none, so that no interrupt can divide them.
    """
    puts, old, new = zip(*places, strict=True)
    put_in = functools.partial(_exhaust, map(operator.call, puts, new))
    put_back = functools.partial(_exhaust, map(operator.call, puts, old))
    try:
        put_in()
        return call()
    finally:
        while True:
            try:
                put_back()  # goes on where it ended
                break
            except IndexError:  # the place is gone: a list has become shorter
                continue
