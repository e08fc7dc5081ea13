"""The state of all that a function can reach, to be compared with what it is at another call.

Where two states are the same, a function that computes with nothing else does the same: code is,
numbers, containers, generators of random numbers, and arrays, bit for bit. What holds an object
that cannot be compared, as a file or a lock, has no state. What cannot be reached, as the clock,
shows in the function's value only.
"""

import abc
import collections
import dis
import re
import types
from collections.abc import Callable, Iterable
from functools import cached_property, lru_cache, partial
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import numpy as np

from fastgrad.tracing.references import (
    MAX_CODES,
    attributes_of,
    is_a,
    is_foreign,
    names_of,
    slots_of,
)
from fastgrad.tracing.stand_in import owner_of
from fastgrad.typing import Array

MAX_BYTES = 2**26
"""The bytes of all arrays, at most, which are copied."""

MAX_OBJECTS = 5_000
"""How many objects are compared, at most."""

IMMUTABLE_TYPES = frozenset(
    {str, bytes, int, bool, type(None), type(...), range, np.ufunc, type(np.sum), types.CodeType}
    | {re.Pattern}
)
"""Classes of objects that never change, and are equal where they are the same."""

SEQUENCE_TYPES: tuple[Any, ...] = list, tuple, collections.deque
CONTAINER_TYPES = frozenset({dict, collections.OrderedDict, *SEQUENCE_TYPES})
SET_TYPES = frozenset({set, frozenset})
"""Classes of objects that hold others, which are entered; sets only if these never change."""

METACLASSES = frozenset({type, abc.ABCMeta})
"""Classes of classes, whose attributes are entered."""

METHOD_TYPES = frozenset({staticmethod, classmethod})
"""Classes of what holds a function of a class."""

DESCRIPTOR_TYPES = frozenset(
    {types.GetSetDescriptorType, types.MemberDescriptorType}
    | {type(collections.namedtuple("One", "item").item)}  # type: ignore[attr-defined]
)
"""Classes of what a class has for its slots and fields, which holds nothing itself."""

C_DESCRIPTOR_TYPES = frozenset(
    {types.WrapperDescriptorType, types.MethodDescriptorType, types.ClassMethodDescriptorType}
)
"""Classes of what is only in classes written in C, whose objects may hold what cannot be seen."""

UNBOUND = object()
"""Stands for what a variable of a closure holds before it is assigned to."""

NAMESPACE_READERS = frozenset({"locals", "vars", "eval", "exec", "dir"})
"""Functions by which code gets at variables that it does not name."""


class Incomparable(Exception):
    """An object can be reached whose state cannot be told."""


class State:
    """The state of what a function can reach.

    It keeps none of the user's objects alive but code, and copies of the arrays.

    Attributes
    ----------
    arrays : list of weak references
        To the arrays, in the order in which they are reached.

    Raises
    ------
    Incomparable
        If it cannot be told.
    """

    def __init__(self, f: Any) -> None:
        walk = _Walk(f)
        self._structure = walk.structure
        self._copies = [bytearray(_bytes_of(array)) for array in walk.arrays]
        self.arrays = [ref(array) for array in walk.arrays]

    def place_of(self, x: Array) -> int | None:
        """Return which of the arrays x is."""
        return next((k for k, array in enumerate(self.arrays) if array() is x), None)

    def is_that_of(self, f: Any) -> bool:
        """Say whether it is the state of what a function can reach now."""
        try:
            walk = _Walk(f)
        except Incomparable:
            return False
        return self._structure == walk.structure and all(
            copied.__eq__(_bytes_of(array))  # by memcmp
            for array, copied in zip(walk.arrays, self._copies, strict=True)
        )


def state_of(f: Any) -> State | None:
    """Return the state of what a function can reach; None if it cannot be told."""
    try:
        return State(f)
    except Incomparable:
        return None


def _bytes_of(array: Array) -> Array:
    """Return an array's elements as bytes; without a copy where they lie side by side."""
    in_order = array if array.flags.c_contiguous else array.T
    return np.ascontiguousarray(in_order).reshape(-1).view(np.uint8)


class _Walk:
    """A walk through all that a function can reach, the same where that is the same.

    Attributes
    ----------
    structure : list
        What is met on the way, but for what is in arrays.
    arrays : list of arrays
    """

    def __init__(self, f: Any) -> None:
        self.structure: list[Any] = []
        self.arrays: list[Array] = []
        self._waiting: list[Any] = [f]
        self._met: list[Any] = []  # kept, or another object might get the same id
        self._numbers: dict[int, int] = {}
        self._memory: dict[int, tuple[int, int]] = {}
        self._bytes = 0
        self._go()

    def _go(self) -> None:
        """Note all that waits, and what it refers to."""
        waiting, note, numbers = self._waiting, self.structure.append, self._numbers
        while waiting:
            thing = waiting.pop()
            kind = type(thing)
            note(kind)
            if kind in IMMUTABLE_TYPES:
                note(thing)
            elif kind is float or kind is complex:
                note(repr(thing))  # tells -0.0 from 0.0
            elif id(thing) in numbers:
                note(numbers[id(thing)])
            else:
                numbers[id(thing)] = len(numbers)
                self._met.append(thing)
                if len(self.structure) > MAX_OBJECTS:
                    raise Incomparable
                self._enter(thing, kind)

    def _enter(self, thing: Any, kind: Any) -> None:
        """Note what an object of this class holds."""
        if kind is np.ndarray:
            self._note_array(thing)
        elif kind in CONTAINER_TYPES:
            self._note_items(thing)
        elif kind is types.FunctionType:
            self._note_function(thing)
        elif kind is types.MethodType:
            self._waiting += thing.__func__, thing.__self__
        elif kind in METACLASSES:
            self._note_class(thing)
        elif kind is partial:
            self._waiting += thing.func, thing.args, thing.keywords, attributes_of(thing)
        elif kind is types.ModuleType:
            self._note_module(thing, ())
        elif kind is types.BuiltinFunctionType:
            is_method = not is_a(thing.__self__, (types.ModuleType, type(None)))
            self.structure.append(thing.__name__ if is_method else thing)
            self._waiting.append(thing.__self__ if is_method else None)
        elif kind in SET_TYPES and IMMUTABLE_TYPES.issuperset(map(type, thing)):
            self.structure.append(tuple(thing))  # in the order in which f meets them
        elif kind is np.random.Generator:
            self._waiting += thing.bit_generator.state.items()
        elif kind is np.random.RandomState:
            self._waiting += thing.get_state(legacy=False).items()
        elif is_a(thing, np.dtype) and not thing.hasobject:
            self.structure.append(thing)
        elif is_a(thing, np.generic) and not thing.dtype.hasobject:
            self.structure.append(thing.tobytes())
        elif _is_of_python(kind):
            self._note_object(thing)
        else:
            raise Incomparable

    def _note_array(self, array: Array) -> None:
        """Note an array's layout and memory; what it holds is compared later."""
        self._bytes += array.nbytes
        if array.dtype.hasobject or self._bytes > MAX_BYTES:
            raise Incomparable
        self.arrays.append(array)
        start = array.__array_interface__["data"][0]
        number, first = self._memory.setdefault(owner_of(array), (len(self._memory), start))
        self.structure.append((array.dtype, array.shape, array.strides, number, start - first))

    def _note_items(self, holder: Any) -> None:
        """Note the items of a container, in their order."""
        if is_a(holder, dict):
            keys: Iterable[Any] = dict.keys(holder)
            if not IMMUTABLE_TYPES.issuperset(map(type, keys)):
                raise Incomparable
            self.structure += keys
            self._waiting += dict.values(holder)
        else:
            kind = next(kind for kind in SEQUENCE_TYPES if is_a(holder, kind))
            items = [*kind.__iter__(holder)]
            if len(items) > MAX_OBJECTS:
                raise Incomparable
            self.structure.append(len(items))
            self._waiting += items

    def _note_function(self, function: types.FunctionType) -> None:
        """Note a function's code, and what it can read."""
        if is_foreign(function) and not function.__closure__:
            self.structure.append(function)
            return
        code = _described(function.__code__)
        self.structure.append(code.without_place)
        for cell in function.__closure__ or ():
            try:
                self._waiting.append(cell.cell_contents)
            except ValueError:
                self.structure.append(UNBOUND)
        self._waiting += function.__defaults__, function.__kwdefaults__, function.__dict__ or None
        self._note_names(function.__globals__, code.names)

    def _note_names(self, namespace: dict[str, Any], names: Iterable[str]) -> None:
        """Note what the names that code uses stand for in a namespace."""
        for name in names:
            if name in namespace:
                self.structure.append(name)
                item = namespace[name]
                if type(item) is types.ModuleType:
                    self._note_module(item, names)
                else:
                    self._waiting.append(item)

    def _note_module(self, module: types.ModuleType, names: Iterable[str]) -> None:
        """Note a library's module, or what names may mean in one of the user's."""
        if is_foreign(module):
            self.structure.append(module)
        elif names and id(module) not in self._numbers:
            self._numbers[id(module)] = len(self._numbers)
            self._note_names(vars(module), names)
        else:
            raise Incomparable

    def _note_class(self, kind: type) -> None:
        """Note a class: its bases, methods and attributes."""
        if is_foreign(kind):
            self.structure.append(kind)
            return
        self._waiting += kind.__mro__[1:-1]
        for name, item in vars(kind).items():
            if type(item) in METHOD_TYPES:
                item = item.__func__
            elif type(item) is property:
                item = item.fget, item.fset, item.fdel
            elif type(item) is cached_property:
                item = item.func
            is_special = name.startswith("__") or name == "_abc_impl"
            if type(item) in DESCRIPTOR_TYPES or (
                is_special and type(item) is not types.FunctionType
            ):
                continue
            self.structure.append(name)
            self._waiting.append(item)

    def _note_object(self, thing: Any) -> None:
        """Note an object of a user's class: its attributes, and items if it has some."""
        self._waiting.append(type(thing))
        if is_a(thing, tuple(CONTAINER_TYPES)):
            self._note_items(thing)
        self._waiting.append(attributes_of(thing))
        for slot, item in slots_of(thing):
            self.structure.append(slot.__name__)
            self._waiting.append(item)


def _is_of_python(kind: type) -> bool:
    """Say whether a class is written in Python: its objects hold what can be seen."""
    if kind not in _of_python:
        _of_python[kind] = all(
            base in CONTAINER_TYPES
            or base is types.SimpleNamespace
            or not any(
                type(item) in C_DESCRIPTOR_TYPES
                or (type(item) is types.GetSetDescriptorType and name[:2] != "__")
                for name, item in vars(base).items()
            )
            for base in kind.__mro__[:-1]
        )
    return _of_python[kind]


_of_python: "WeakKeyDictionary[type, bool]" = WeakKeyDictionary()


class _Code(NamedTuple):
    """A function's code without its place and name, and the names that it looks up."""

    without_place: types.CodeType
    names: tuple[str, ...]


@lru_cache(MAX_CODES)
def _described(code: types.CodeType) -> _Code:
    """Return code as it would be in any place, as a closure is written once for each array."""
    without_place = code.replace(
        co_filename="", co_firstlineno=1, co_linetable=b"", co_name="", co_qualname=""
    )
    return _Code(without_place, tuple(sorted(names_of(code))))


def ignores_argument(f: Callable[..., Any]) -> bool:
    """Say whether a function is known never to look at what it is given, as the book's closures.

    Examples
    --------
    >>> ignores_argument(lambda _: 1.0), ignores_argument(lambda x: x.sum())
    (True, False)
    """
    code, place = code_of(f), int(type(f) is types.MethodType)
    return code is not None and _ignores(code, place)


def code_of(f: Callable[..., Any]) -> types.CodeType | None:
    """Return the code of a function or method that is written in Python, wherever it stands."""
    function = f.__func__ if type(f) is types.MethodType else f
    is_of_python = type(function) is types.FunctionType
    return _described(function.__code__).without_place if is_of_python else None


@lru_cache(MAX_CODES)
def _ignores(code: types.CodeType, place: int) -> bool:
    """Say whether code never uses one of its arguments."""
    if code.co_argcount <= place or not NAMESPACE_READERS.isdisjoint(code.co_names):
        return False
    name = code.co_varnames[place]
    if name in code.co_cellvars:
        return False
    used = (each.argval for each in dis.get_instructions(code) if "_FAST" in each.opname)
    return not any(name in one if type(one) is tuple else name == one for one in used)
