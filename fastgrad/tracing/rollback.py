"""Rollback of a recorded call: all that it has changed, and the stand-ins, are put back.

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
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from fastgrad.interrupts import raise_interrupt, uninterrupted
from fastgrad.tracing.libraries import is_of_library
from fastgrad.tracing.recorder import NotTraceable, Recording

Result = TypeVar("Result")

Slot = tuple[Callable[[Any], None], Any, Any]
"""A place that holds an object: what assigns another to it, what it holds, what it is to hold."""

Restore = Callable[[], Any]

MIN_LONG_ITEMS = 100_000
"""Items from which on a list is made as long as it was, instead of being filled again."""

_exhaust = collections.deque[object](maxlen=0).extend


def temporarily_replaced(
    slots: list[Slot], call: Callable[[], Result], restore: Iterable[Restore] = ()
) -> Result:
    """Return ``call()``, made while slots hold their new objects.

    Whatever happens, the old ones are then put back, and after that ``restore`` is called.
    """
    assigns, old, new = zip(*slots, strict=True)
    put_in = functools.partial(_exhaust, map(operator.call, assigns, new))
    back = itertools.chain(map(operator.call, assigns, old), map(operator.call, restore))
    put_back = functools.partial(_exhaust, back)
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
        yield from _of_function(holder)
        return
    if is_a(holder, dict):
        yield from _of_dict(holder)
    elif is_a(holder, list):
        yield _of_list(holder)
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
    if kind not in _WITHOUT_ATTRIBUTES:
        yield from _of_attributes(holder)


_WITHOUT_ATTRIBUTES = frozenset({dict, list, tuple, set, collections.deque, types.ModuleType})


def _of_function(function: types.FunctionType) -> Iterator[Restore]:
    for cell in function.__closure__ or ():
        try:
            yield functools.partial(setattr, cell, "cell_contents", cell.cell_contents)
        except ValueError:  # an empty cell
            yield functools.partial(delattr, cell, "cell_contents")
    yield from _of_dict(function.__dict__)


def restoring_names(namespace: dict[str, Any], names: set[str]) -> Iterator[Restore]:
    """Return what puts back some globals, and those of the user's modules among them."""
    seen: set[int] = set()
    waiting = [namespace]
    while waiting:
        namespace = waiting.pop()
        seen.add(id(namespace))
        yield from _of_names(namespace, names)
        items = [namespace[name] for name in names & namespace.keys()]
        modules = [item for item in items if is_a(item, types.ModuleType)]
        new = [module for module in modules if id(vars(module)) not in seen]
        waiting += [vars(module) for module in new if not is_of_library(module.__name__)]


def _of_names(namespace: dict[str, Any], names: set[str]) -> Iterator[Restore]:
    held = {name: namespace[name] for name in names & namespace.keys()}
    yield functools.partial(dict.update, namespace, held)
    pop = functools.partial(dict.pop, namespace)
    absent = map(pop, names - held.keys(), itertools.repeat(None))
    yield functools.partial(_exhaust, absent)


def _of_dict(holder: dict[Any, Any]) -> Iterator[Restore]:
    kind: Any = collections.OrderedDict if is_a(holder, collections.OrderedDict) else dict
    held = dict.copy(holder)
    if kind is dict:
        yield functools.partial(dict.update, holder, held)
    else:
        assign = functools.partial(kind.__setitem__, holder)
        yield functools.partial(_exhaust, map(assign, held.keys(), held.values()))
    if set(map(type, held)) <= {str, int, bytes}:  # hashed without code written in Python
        keys = itertools.chain.from_iterable(map(list, (holder,)))  # when it is needed
        new = itertools.filterfalse(held.__contains__, keys)
        pop = functools.partial(kind.pop, holder)
        yield functools.partial(_exhaust, map(pop, new, itertools.repeat(None)))


def _of_list(holder: list[Any]) -> Restore:
    length = list.__len__(holder)
    if length < MIN_LONG_ITEMS:
        every = slice(None)
        return functools.partial(list.__setitem__, holder, every, list.__getitem__(holder, every))
    return functools.partial(list.__delitem__, holder, slice(length, None))


def _of_attributes(holder: Any) -> Iterator[Restore]:
    attributes = attributes_of(holder)
    if attributes is not None:
        yield from _of_dict(attributes)
    for slot, value in slots_of(holder):
        yield functools.partial(slot.__set__, holder, value)


def slots_of(holder: Any) -> Iterator[tuple[Any, Any]]:
    """Iterate over the slots of an object that hold something."""
    for base in type(holder).__mro__:
        for slot in vars(base).values() if "__slots__" in vars(base) else ():
            if is_a(slot, types.MemberDescriptorType):
                with contextlib.suppress(AttributeError):
                    yield slot, slot.__get__(holder)


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
