"""Rollback of a recorded call: all that it has changed, and the stand-ins, are put back.

Python runs the handlers of signals, Ctrl-C's among them, between its own instructions. What is put
back here is put back by one call of a function written in C, which calls nothing written in Python,
so that no interrupt can divide it.
"""

import collections
import functools
import gc
import itertools
import operator
import types
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from fastgrad.interrupts import raise_interrupt, uninterrupted
from fastgrad.tracing.recorder import NotTraceable, Recording
from fastgrad.tracing.references import Restore, attributes_of, exhaust, is_a, slots_of

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
