"""The objects that a function can reach: arrays that it is not given, and what it may change.

References are followed from the function. What they lead to is noted as it is, so that everything
that a recorded call of the function changes, and the stand-ins, can be put back.

Python runs the handlers of signals, Ctrl-C's among them, between its own instructions. What is put
back here is put back by one call of a function written in C, which calls nothing written in Python,
so that no interrupt can divide it.
"""

import collections
import contextlib
import functools
import gc
import itertools
import operator
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from fastgrad.jit.interrupts import raise_interrupt, uninterrupted
from fastgrad.tracing.recorder import NotTraceable, Recording, is_of_library
from fastgrad.tracing.stand_in import Recorded

Assign = Callable[[Any], None]

MAX_OBJECTS = 20_000
"""How many objects are looked at, at most."""

MAX_CODES = 4096
"""Codes of functions, at most, of which it is kept what is known."""

FORMULAS = frozenset({"fastgrad.network.functions", "fastgrad.reference"})
"""Modules of fastgrad's own that hold functions as users write them."""

Restore = Callable[[], Any]

exhaust = collections.deque[object](maxlen=0).extend
"""Runs through an iterator, in C."""


@dataclass(frozen=True, eq=False)
class Reference:
    """A place that holds an object, and can be made to hold another one.

    Attributes
    ----------
    held : object
        What it holds, an array mostly.
    assign : callable or None
        ``assign(object)`` replaces it; None where that is impossible, as in a set.
    within : tuple (assign, tuple) or None
        The tuple in which it is, perhaps within others, and what replaces that; assign is None
        then.
    """

    held: Any
    assign: Assign | None
    within: tuple[Assign, tuple[Any, ...]] | None = None


@dataclass(frozen=True, eq=False)
class Surroundings:
    """The objects that a function can reach, sorted by what is done with them.

    Attributes
    ----------
    references : list of Reference
        The places that hold arrays.
    objects : list of Reference
        The places that hold one of the objects that were asked for.
    functions : list of function
        The user's.
    restore : list of callable
        All of them, called without arguments, put back what now is in attributes, globals,
        variables of closures, dicts, lists and deques. None runs any code written in Python.
    others : list
        Arrays of other libraries, such as tensors, whose memory is not known.
    """

    references: list[Reference] = field(default_factory=list)
    objects: list[Reference] = field(default_factory=list)
    functions: list[types.FunctionType] = field(default_factory=list)
    restore: list[Callable[[], Any]] = field(default_factory=list)
    others: list[Any] = field(default_factory=list)


def find_references(f: Callable[..., Any]) -> list[Reference]:
    """Return the places, reachable from a function, that hold arrays."""
    around = look_around(f)
    assert around is not None
    return around.references


def look_around(
    f: Callable[..., Any],
    wanted: frozenset[int] = frozenset(),
    is_late: Callable[[], bool] = bool,
) -> Surroundings | None:
    """Return what is reachable from a function.

    Followed are closures, defaults, bound methods, partials, the globals that functions name,
    attributes and the items of containers.

    Parameters
    ----------
    f : callable
    wanted : set of int
        The ids of objects of which the places are wanted, besides those of arrays.
    is_late : callable
        Asked again and again: if it says True, the result is None.
    """
    around = Surroundings()
    seen: dict[int, Any] = {}  # kept, or another object might get the same id
    tuples: set[int] = set()  # that hold arrays: each place of theirs is wanted
    shared: dict[type, bool] = {}
    waiting: list[tuple[Any, bool, Assign | None, Any]] = [(f, True, None, None)]
    while waiting and len(seen) < MAX_OBJECTS:
        holder, is_restored, assign_holder, within = waiting.pop()
        if id(holder) in seen and id(holder) not in tuples:
            continue
        seen[id(holder)] = holder
        kind = type(holder)
        if kind is types.FunctionType:
            if is_foreign(holder):
                continue
            around.functions.append(holder)
        if kind not in shared:
            shared[kind] = _is_shared_with_threads(kind)
        is_restored = is_restored and not shared[kind]
        if is_restored:
            around.restore.extend(restoring(holder))
        if not is_a(holder, tuple):
            within = None
        elif assign_holder is not None:
            within = assign_holder, holder
        for item, assign in _items(holder):
            if is_late():
                return None
            if type(item) in _LEAVES:
                continue
            if type(item) is Recorded:
                item = item.seen_by_gradient()
            of_item = type(item)
            if issubclass(of_item, np.ndarray):
                around.references.append(Reference(item, assign, within))
                if within is not None:
                    tuples |= {id(holder), id(within[1])}
                if item.dtype == object:
                    around.restore.append(functools.partial(item.__setitem__, ..., item.copy()))
                    waiting.append((tuple(item.ravel()), is_restored, None, None))
            elif not issubclass(of_item, np.generic):
                if hasattr(of_item, "__dlpack__"):
                    around.others.append(item)
                if id(item) in wanted:
                    around.objects.append(Reference(item, assign, within))
                waiting.append((item, is_restored, assign, within))
    namespaces: dict[int, tuple[dict[str, Any], set[str]]] = {}
    for function in around.functions:
        names = namespaces.setdefault(id(function.__globals__), (function.__globals__, set()))[1]
        names.update(names_of(function.__code__))
    for namespace, names in namespaces.values():
        around.restore.extend(restoring_names(namespace, names))
    return around


def _is_shared_with_threads(kind: type) -> bool:
    """Say whether threads, or processes, work together by the objects of a class.

    What they hold may be changed by others while f is recorded, and is not put back.
    """
    return str(getattr(kind, "__module__", "")).partition(".")[0] in _OF_THREADS


_OF_THREADS = frozenset(
    {"threading", "_thread", "queue", "_queue", "concurrent", "multiprocessing", "asyncio"}
    | {"logging", "io", "_io", "socket", "selectors", "subprocess", "tqdm", "distributed", "dask"}
)


_LEAVES = frozenset(
    {str, bytes, int, float, complex, bool, type(None), np.float64, np.ufunc, types.CodeType}
    | {type(np.sum), types.GetSetDescriptorType, types.MemberDescriptorType, weakref.ref}
)
"""Classes of objects that are not followed."""

_NUMBERS = frozenset({str, bytes, int, float, complex, bool, type(None), np.float64})

_CONTAINERS = (dict, list, tuple)


def _items(holder: Any) -> Iterator[tuple[Any, Assign | None]]:
    """Iterate over what an object refers to, each with a way to replace it."""
    kind = type(holder)
    if kind is types.FunctionType:
        yield from _of_function(holder)
    elif kind is types.BuiltinFunctionType:
        if not is_a(holder.__self__, types.ModuleType):
            yield holder.__self__, None
    elif issubclass(kind, functools._lru_cache_wrapper):
        yield holder.__wrapped__, None
    elif kind is types.MethodType:
        yield holder.__self__, None
        yield holder.__func__, None
    elif issubclass(kind, functools.partial):
        state = functools.partial.__reduce__(holder)[2]  # a tuple of its function, arguments, ...
        assign = functools.partial.__setstate__  # type: ignore[attr-defined]  # so the stubs
        yield state, functools.partial(assign, holder)
    elif kind is dict:
        yield from _of_dict(holder)
    elif kind is list:
        yield from _of_list(holder)
    elif kind is collections.deque:
        for i, item in enumerate(holder):
            yield item, functools.partial(collections.deque.__setitem__, holder, i)
    elif issubclass(kind, memoryview):
        yield np.asarray(holder), None
    elif issubclass(kind, type):
        for name, item in vars(holder).items():
            function = item
            if is_a(item, (classmethod, staticmethod)):
                function = item.__func__
            elif is_a(item, property):
                function = item.fget
            if is_a(function, (types.FunctionType, np.ndarray, *_CONTAINERS)):
                yield function, functools.partial(type.__setattr__, holder, name)
    elif _is_numbas(kind):
        if (function := (attributes_of(holder) or {}).get("py_func")) is not None:
            yield function, None
    elif not issubclass(kind, types.ModuleType):
        yield from _of_object(holder)


def is_foreign(item: Any) -> bool:
    """Say whether a function, class or module belongs to a library that holds no user's array."""
    module: Any = vars(item).get("__name__") if is_a(item, types.ModuleType) else item.__module__
    return is_a(module, str) and is_of_library(module) and module not in FORMULAS


def _is_numbas(kind: type) -> bool:
    """Say whether a class is numba's, whose objects lead to the whole compiler.

    Of a jitted function only what it was compiled from is the user's.
    """
    module = type.__getattribute__(kind, "__module__")
    return is_a(module, str) and module.partition(".")[0] == "numba"


def _of_dict(holder: dict[Any, Any]) -> Iterator[tuple[Any, Assign | None]]:
    """Yield the items of a dict, and how each is replaced."""
    for key, item in _unless_leaves(list(dict.items(holder)), dict.values(holder)):
        yield item, functools.partial(dict.__setitem__, holder, key)


def _of_list(holder: list[Any]) -> Iterator[tuple[Any, Assign | None]]:
    """Yield the items of a list, and how each is replaced."""
    items = [*list.__iter__(holder)]
    for i, item in _unless_leaves(enumerate(items), items):
        yield item, functools.partial(list.__setitem__, holder, i)


def _unless_leaves(pairs: Iterable[Any], items: Iterable[Any]) -> Iterable[Any]:
    """Return pairs, or none of them if all items are numbers or strings, as in data."""
    return pairs if set(map(type, items)) - _NUMBERS else ()


def _of_function(function: types.FunctionType) -> Iterator[tuple[Any, Assign | None]]:
    """Yield what a function refers to, and how that is replaced."""
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents, functools.partial(setattr, cell, "cell_contents")
        except ValueError:  # an empty cell
            continue
    yield function.__defaults__, functools.partial(setattr, function, "__defaults__")
    if function.__kwdefaults__:
        yield from _of_dict(function.__kwdefaults__)
    if function.__dict__:
        yield from _of_dict(function.__dict__)
    namespace = function.__globals__
    names = names_of(function.__code__)
    for name in names & namespace.keys():
        item = namespace[name]
        yield item, functools.partial(dict.__setitem__, namespace, name)
        if is_a(item, types.ModuleType):
            yield from _of_module(item, names, set())


def _of_module(
    module: types.ModuleType, names: frozenset[str], seen: set[int]
) -> Iterator[tuple[Any, Assign | None]]:
    """Follow what code that names a module may take from it, and from modules in it."""
    seen.add(id(module))
    is_library = is_foreign(module)
    for name in names & vars(module).keys():
        item = vars(module)[name]
        is_new = is_a(item, types.ModuleType) and id(item) not in seen
        if is_new and not (is_library or is_foreign(item)):
            yield from _of_module(item, names, seen)
        if not is_library:
            yield item, functools.partial(dict.__setitem__, vars(module), name)
        elif type(item) is types.FunctionType and item.__module__ in FORMULAS:
            yield item, None


@functools.lru_cache(MAX_CODES)
def names_of(code: types.CodeType) -> frozenset[str]:
    """Return the names of globals and attributes in a function and in those defined in it."""
    inner = [constant for constant in code.co_consts if type(constant) is types.CodeType]
    return frozenset(code.co_names).union(*map(names_of, inner))


def _of_object(holder: Any) -> Iterator[tuple[Any, Assign | None]]:
    """Follow an instance: its items, its attributes and slots, the methods of its class."""
    kind = type(holder)
    slots = [pair for pair in slots_of(holder) if not is_foreign(pair[0].__objclass__)]
    places: list[tuple[Any, Assign | None]] = [
        (item, functools.partial(slot.__set__, holder)) for slot, item in slots
    ]
    if is_a(holder, dict):
        places += _of_dict(holder)
    elif is_a(holder, list):
        places += _of_list(holder)
    attributes = attributes_of(holder)
    if attributes is not None:
        places += _of_dict(attributes)
    yield from places
    # What it holds in yet another way, as a tuple, a set or a property does, cannot be replaced.
    known = {id(item) for item, _ in places} | {id(attributes)}
    others = (item for item in gc.get_referents(holder) if id(item) not in known)
    yield from ((item, None) for item in others if not is_a(item, type))
    if not is_foreign(kind):
        yield from ((base, None) for base in kind.__mro__[:-1])


# What a call may change --------------------------------------------------------------------------


def is_a(thing: Any, kind: Any) -> bool:
    """Say whether a thing is of a class, whatever it says itself, as proxies and mocks do."""
    return issubclass(type(thing), kind)


def attributes_of(holder: Any) -> dict[str, Any] | None:
    """Return an object's attributes; what its class does when it is asked is passed by."""
    try:
        attributes = object.__getattribute__(holder, "__dict__")
    except Exception:  # a property of this name may do anything
        return None
    return attributes if is_a(attributes, dict) else None


def restoring(holder: Any) -> Iterator[Restore]:
    """Return what puts back all that an object refers to now, but for the globals of a function."""
    kind = type(holder)
    if kind is types.FunctionType:
        for cell in holder.__closure__ or ():
            try:
                yield functools.partial(setattr, cell, "cell_contents", cell.cell_contents)
            except ValueError:  # an empty cell
                yield functools.partial(delattr, cell, "cell_contents")
        yield from _restoring_dict(holder.__dict__)
        return
    if is_a(holder, dict):
        yield from _restoring_dict(holder)
    elif is_a(holder, list):
        every = slice(None)
        yield functools.partial(list.__setitem__, holder, every, list.__getitem__(holder, every))
    elif is_a(holder, collections.deque):
        held = [*collections.deque.__iter__(holder)]
        # Cleared first, or it might be too long.
        yield functools.partial(collections.deque.clear, holder)
        yield functools.partial(collections.deque.extend, holder, held)
    elif is_a(holder, type):
        for name, item in vars(holder).items():
            if not (name.startswith("__") or hasattr(type(item), "__get__")):
                yield functools.partial(type.__setattr__, holder, name, item)
        return
    if kind in _WITHOUT_ATTRIBUTES:
        return
    if (attributes := attributes_of(holder)) is not None:
        yield from _restoring_dict(attributes)
    yield from (functools.partial(slot.__set__, holder, item) for slot, item in slots_of(holder))


_WITHOUT_ATTRIBUTES = frozenset({dict, list, tuple, set, collections.deque, types.ModuleType})


def restoring_names(namespace: dict[str, Any], names: set[str]) -> Iterator[Restore]:
    """Return what puts back some globals, and those of the user's modules among them."""
    seen: set[int] = set()
    waiting = [namespace]
    while waiting:
        namespace = waiting.pop()
        seen.add(id(namespace))
        held = {name: namespace[name] for name in names & namespace.keys()}
        yield functools.partial(dict.update, namespace, held)
        yield _restoring_absence(namespace, dict.pop, names - held.keys())
        modules = [item for item in held.values() if is_a(item, types.ModuleType)]
        new = [module for module in modules if id(vars(module)) not in seen]
        waiting += [vars(module) for module in new if not is_of_library(module.__name__)]


def _restoring_dict(holder: dict[Any, Any]) -> Iterator[Restore]:
    """Yield what makes a dict hold what it holds now."""
    kind: Any = collections.OrderedDict if is_a(holder, collections.OrderedDict) else dict
    held = dict.copy(holder)
    if kind is dict:
        yield functools.partial(dict.update, holder, held)
    else:
        assign = functools.partial(kind.__setitem__, holder)
        yield functools.partial(exhaust, map(assign, held.keys(), held.values()))
    if set(map(type, held)) <= {str, int, bytes}:  # hashed without code written in Python
        keys = itertools.chain.from_iterable(map(list, (holder,)))  # when it is needed
        yield _restoring_absence(holder, kind.pop, itertools.filterfalse(held.__contains__, keys))


def _restoring_absence(holder: Any, pop: Callable[..., Any], keys: Iterable[Any]) -> Restore:
    """Return what removes keys from a dict."""
    every = map(functools.partial(pop, holder), keys, itertools.repeat(None))
    return functools.partial(exhaust, every)


def slots_of(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over the slots of an object that hold something."""
    for base in type(holder).__mro__:
        for slot in vars(base).values() if "__slots__" in vars(base) else ():
            if is_a(slot, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):
                    yield slot, slot.__get__(holder)


# Rollback -----------------------------------------------------------------------------------------


Result = TypeVar("Result")

Slot = tuple[Callable[[Any], None], Any, Any]
"""A place that holds an object: what assigns another to it, what it holds, what it is to hold."""


def temporarily_replaced(
    slots: list[Slot], call: Callable[[], Result], restore: Iterable[Restore] = ()
) -> Result:
    """Return ``call()``, made while slots hold their new objects.

    Whatever happens, the old ones are then put back, and after that ``restore`` is called.
    """
    assigns, old, new = zip(*slots, strict=True)
    put_in = functools.partial(exhaust, map(operator.call, assigns, new))
    back = itertools.chain(map(operator.call, assigns, old), map(operator.call, restore))
    put_back = functools.partial(exhaust, back)
    try:
        try:
            put_in()
        except Exception as error:
            raise_interrupt(error)
            said = f"it can reach what cannot be replaced ({type(error).__name__}: {error})"
            raise NotTraceable(said) from None
        return call()
    finally:
        while True:
            try:
                put_back()  # goes on where it ended
                break
            except Exception:  # the place is gone: a list has become shorter
                continue


# What is left ------------------------------------------------------------------------------------


def replace_leftovers(recording: Recording) -> None:
    """Put plain arrays and numbers in the places of all stand-ins that are still somewhere.

    In containers that could not be reached from the function, or in objects that only it made.
    Where that is impossible, as in a variable of a generator, they behave as arrays, and hold no
    memory of x's.
    """
    left = [stand_in for reference in recording.alive if (stand_in := reference()) is not None]
    recording.alive.clear()
    if not left:
        return
    with uninterrupted():
        for stand_in in left:
            stand_in.node = stand_in.plain_node()
        plain: dict[int, Any] = {id(stand_in): stand_in.value() for stand_in in left}
        waiting: list[Any] = left
        for _ in range(MAX_TUPLE_DEPTH):  # tuples are replaced by others, in what holds them
            tuples = []
            for holder in gc.get_referrers(*waiting):
                if type(holder) is tuple:
                    tuples.append(holder)
                elif holder is not waiting and holder is not left:
                    _replace_in(holder, plain)
            for held in tuples:
                plain[id(held)] = tuple(plain.get(id(item), item) for item in held)
            waiting = tuples
            if not waiting:
                break


MAX_TUPLE_DEPTH = 4
"""How deep in tuples stand-ins are replaced."""


def _replace_in(holder: Any, plain: dict[int, Any]) -> None:
    """Put plain arrays in the places of stand-ins in a holder."""
    if is_a(holder, dict):
        for key, item in list(dict.items(holder)):
            if id(item) in plain:
                dict.__setitem__(holder, key, plain[id(item)])
    elif is_a(holder, (list, collections.deque)):
        kind: Any = list if is_a(holder, list) else collections.deque
        for i, item in enumerate([*kind.__iter__(holder)]):
            if id(item) in plain:
                kind.__setitem__(holder, i, plain[id(item)])
    elif is_a(holder, types.CellType):
        holder.cell_contents = plain[id(holder.cell_contents)]
    elif not is_a(holder, (types.FrameType, types.GeneratorType)):
        attributes = attributes_of(holder)
        if attributes is not None:
            _replace_in(attributes, plain)
        for slot, item in slots_of(holder):
            if id(item) in plain:
                slot.__set__(holder, plain[id(item)])
