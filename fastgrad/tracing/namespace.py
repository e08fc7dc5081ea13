"""The meaning of the names `np`, `float` and `type` in functions that are recorded.

NumPy's protocols tell a stand-in of the functions that it is given to, but not of those that are
given none, as ``np.zeros``, or that want an ndarray's memory, as ``np.asarray``; and ``float``
takes any number apart. To the functions of the user that f may call, these names therefore mean
objects of ours for the time of a recording. NumPy itself is not changed: to all other code, and in
all other threads, everything is what it is.
"""

import builtins
import dis
import operator
import types
from collections.abc import Callable, Iterable
from functools import lru_cache, wraps
from threading import get_ident
from typing import Any

import numpy as np
from numpy.lib import stride_tricks
from numpy.lib.stride_tricks import as_strided

from fastgrad.tracing import operations
from fastgrad.tracing.operations import leaves
from fastgrad.tracing.recorder import Recording
from fastgrad.tracing.references import names_of
from fastgrad.tracing.stand_in import Recorded

Function = Callable[..., Any]

CREATORS = (
    np.zeros, np.empty, np.ones, np.zeros_like, np.empty_like, np.ones_like, np.full_like,
)  # fmt: skip

CONVERTERS: dict[Function, Any] = {
    np.asarray: None, np.asanyarray: None, np.array: None, np.ascontiguousarray: "C",
    np.asfortranarray: "F",
}  # fmt: skip
"""Functions that turn anything into an array, with the order that its memory has then."""


REDUCTIONS = np.sum, np.mean, np.max, np.min, np.prod, np.std, np.var
"""Functions that are given lists of recorded numbers, which NumPy does not look into."""


def stand_ins(recording: Recording, functions: Iterable[types.FunctionType]) -> dict[int, Any]:
    """Return what takes the place of NumPy and of its functions, by the id of each.

    Parameters
    ----------
    recording : Recording
    functions : iterable of function
        Those that it may be put into.
    """
    replaced: dict[Function, Function] = {}
    for convert, order in CONVERTERS.items():
        replaced[convert] = _converting(recording, convert, order)
    replaced |= {reduce: _reducing(recording, reduce) for reduce in REDUCTIONS}
    replaced[np.full] = _filling(recording)
    if recording.creates:
        replaced |= {create: _creating(recording, create) for create in CREATORS}
    named: dict[str, tuple[Any, Any]]
    named = {function.__name__: (function, stand_in) for function, stand_in in replaced.items()}
    named |= {"r_": (np.r_, _Joining(np.r_, 0)), "c_": (np.c_, _Joining(np.c_, -1))}
    striding = _striding(recording)
    tricks = _copy(stride_tricks, as_strided=striding)
    library = _copy(np.lib, stride_tricks=tricks)
    numpy = _copy(np, lib=library, **{name: stand_in for name, (_, stand_in) in named.items()})
    if recording.creates and not any(map(_may_compare_classes, functions)):
        numpy.__class__ = _numpy_with(_ArrayClass(recording), recording)
    return {
        **{id(function): stand_in for function, stand_in in named.values()},
        **{id(as_strided): striding, id(stride_tricks): tricks, id(np.lib): library, id(np): numpy},
    }


_MODULES: tuple[Any, ...] = np, np.lib, stride_tricks, np.r_, np.c_

_FUNCTIONS: tuple[Any, ...] = as_strided, np.full, *CREATORS, *CONVERTERS, *REDUCTIONS

REPLACED = frozenset(map(id, _MODULES + _FUNCTIONS))
"""The ids of all that `stand_ins` may replace."""


def _copy(module: types.ModuleType, **replaced: Any) -> types.ModuleType:
    """Return a copy of a module in which some names mean other objects."""
    copied = types.ModuleType(module.__name__)
    vars(copied).update(vars(module) | replaced)
    return copied


def _may_compare_classes(function: types.FunctionType) -> bool:
    """Say whether a function may ask what a class is: ``type(x) is np.ndarray``."""
    return not names_of(function.__code__).isdisjoint({"type", "__class__"})


def _numpy_with(array_class: "_ArrayClass", recording: Recording) -> type[types.ModuleType]:
    """Return the class of a module whose `ndarray` is another one, but not to other threads."""

    class NumPy(types.ModuleType):
        ndarray = property(lambda _: array_class if _is_recording(recording) else np.ndarray)

    return NumPy


class _ArrayClass:
    """`numpy.ndarray`, as far as functions use it: to create arrays, and to tell them."""

    def __init__(self, recording: Recording) -> None:
        self._create = _creating(recording, np.ndarray)

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        return self._create(*arguments, **keywords)

    def __instancecheck__(self, instance: Any) -> bool:
        return isinstance(instance, np.ndarray)

    def __getattr__(self, name: str) -> Any:
        return getattr(np.ndarray, name)


def _striding(recording: Recording) -> Function:
    """Return `numpy.lib.stride_tricks.as_strided`, which may be given a recorded array."""

    @wraps(as_strided)
    def as_strided_recorded(x: Any, *arguments: Any, **keywords: Any) -> Any:
        if type(x) is not Recorded or not _is_recording(recording):
            return as_strided(x, *arguments, **keywords)
        return recording.strided(x, as_strided(x.node.value, *arguments, **keywords))

    return as_strided_recorded


def _creating(recording: Recording, create: Function) -> Function:
    """Return a function that creates arrays for which there are stand-ins."""

    @wraps(create)
    def create_recorded(*arguments: Any, **keywords: Any) -> Any:
        array = create(*arguments, **keywords)
        if type(array) is not np.ndarray or not _is_recording(recording):
            return array
        return recording.created(array)

    return create_recorded


def _reducing(recording: Recording, reduce: Function) -> Function:
    """Return a reduction that turns a list of recorded numbers into an array."""

    @wraps(reduce)
    def reduce_recorded(*arguments: Any, **keywords: Any) -> Any:
        is_list = bool(arguments) and isinstance(arguments[0], (list, tuple))
        if is_list and _is_recording(recording) and _has_recorded(arguments[0]):
            arguments = _as_array(recording, arguments[0]), *arguments[1:]
        return reduce(*arguments, **keywords)

    return reduce_recorded


def _filling(recording: Recording) -> Function:
    """Return `numpy.full`, which may be given recorded values."""

    @wraps(np.full)
    def full_recorded(
        shape: Any, fill_value: Any, dtype: Any = None, order: Any = "C", **keywords: Any
    ) -> Any:
        if not _is_recording(recording) or keywords:
            return np.full(shape, fill_value, dtype, order, **keywords)
        if not _has_recorded(fill_value):
            array = np.full(shape, fill_value, dtype, order)
            return recording.created(array) if recording.creates else array
        fill = _as_array(recording, fill_value)
        result = recording.created(np.empty(shape, fill.dtype if dtype is None else dtype, order))
        result[...] = fill
        return result

    return full_recorded


def _converting(recording: Recording, convert: Function, order: Any) -> Function:
    """Return a function that turns recorded numbers and arrays into a recorded array."""

    @wraps(convert)
    def convert_recorded(*arguments: Any, **keywords: Any) -> Any:
        if not arguments or not _is_recording(recording) or not _has_recorded(arguments[:1]):
            return convert(*arguments, **keywords)
        names = "dtype", "order" if order is None else "like"
        options = dict(zip(names, arguments[1:3], strict=False)) | keywords
        if len(arguments) > (2 if convert is np.array else 3) or not options.keys() <= _OPTIONS:
            raise recording.stop(f"np.{convert.__name__} is given arguments that are not recorded")
        options.setdefault("copy", convert is np.array)
        if order is not None:
            options |= {"order": order, "least_axes": 1}
        return _as_array(recording, arguments[0], **options)

    return convert_recorded


_OPTIONS = {"dtype", "order", "copy"}


def _as_array(
    recording: Recording,
    items: Any,
    dtype: Any = None,
    order: Any = None,
    copy: Any = None,
    least_axes: int = 0,
) -> Any:
    """Return what `numpy.array` would, of a stand-in or of numbers among which there are some."""
    array = items
    if type(items) is not Recorded:
        array = recording.apply(operations.array_of, (items,), {})
        copy = False
    if not isinstance(array.node.value, np.ndarray):
        array, copy = recording.apply(operations.array_of, (array,), {}), False
    if array.ndim < least_axes:
        array = np.reshape(array, (1,))
    if dtype is not None and np.dtype(dtype) != array.dtype:
        array, copy = array.astype(dtype), False
    flags = array.node.value.flags
    if (
        copy
        or (order == "C" and not flags.c_contiguous)
        or (order == "F" and not flags.f_contiguous)
    ):
        return np.copy(array, order or "K")
    return array


class _Joining:
    """`numpy.r_` or `numpy.c_`, which join arrays along the first or the last axis."""

    def __init__(self, joins: Any, axis: int) -> None:
        self.joins = joins
        self.axis = axis

    def __getattr__(self, name: str) -> Any:
        return getattr(self.joins, name)

    def __getitem__(self, key: Any) -> Any:
        parts = key if isinstance(key, tuple) else (key,)
        if not _has_recorded(key) or any(isinstance(part, (slice, str)) for part in parts):
            return self.joins[key]
        if self.axis == 0:
            parts = tuple(np.atleast_1d(part) for part in parts)
        dimensions = {np.ndim(part) for part in parts}
        if dimensions not in ({1}, {2}):
            return self.joins[key]
        if dimensions == {1} and self.axis == -1:
            return np.stack(parts, -1)
        return np.concatenate(parts, self.axis)


def _has_recorded(items: Any) -> bool:
    """Say whether there is a stand-in among these items."""
    return any(type(leaf) is Recorded for leaf in leaves(items))


def _is_recording(recording: Recording) -> bool:
    """Say whether this thread's operations are noted."""
    return recording.is_open and get_ident() == recording.thread


# Built-in classes --------------------------------------------------------------------------------


class _Like(type):
    """The class of classes that are, to all that asks, a built-in one."""

    def __call__(cls, *arguments: Any, **keywords: Any) -> Any:
        builtin = cls.__mro__[1]
        if len(arguments) == 1 and type(arguments[0]) is Recorded:
            return arguments[0].as_float() if builtin is float else arguments[0].__class__
        return builtin(*arguments, **keywords)

    def __instancecheck__(cls, instance: Any) -> bool:
        return isinstance(instance, cls.__mro__[1])

    def __subclasscheck__(cls, subclass: type) -> bool:
        return issubclass(subclass, cls.__mro__[1])

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls.__mro__[1]

    def __hash__(cls) -> int:
        return hash(cls.__mro__[1])

    def __repr__(cls) -> str:
        return repr(cls.__mro__[1])


class Float(float, metaclass=_Like):
    """`float`, but that it turns a stand-in into another one."""

    dtype = np.dtype(float)  # so that NumPy takes it for float where it wants a dtype


class Type(type, metaclass=_Like):
    """`type`, but that it tells of a stand-in what it stands for."""


MARK = "fastgrad's "
"""What the names begin with by which code finds the stand-ins of built-in classes: no program
has such names. They stay among the built-in ones, for other threads may still run that code."""

BUILTINS = frozenset({"float", "type"})

setattr(builtins, MARK + "float", Float)
setattr(builtins, MARK + "type", Type)


@lru_cache(maxsize=500)
def with_stand_ins(code: types.CodeType) -> types.CodeType:
    """Return code that uses `Float` and `Type` instead of the built-in classes.

    Only this code sees them, not the rest of its module. Where a class may be compared with
    `float`, that stays what it is, for ``type(v) is float`` would notice.
    """
    constants = tuple(
        with_stand_ins(constant) if type(constant) is types.CodeType else constant
        for constant in code.co_consts
    )
    names = set(BUILTINS.intersection(code.co_names))
    if names:
        for instruction in dis.get_instructions(code):
            if instruction.opname not in ("LOAD_GLOBAL", "LOAD_NAME"):  # but of an attribute, say
                names.discard(instruction.argval)
    if not {"type", "__class__"}.isdisjoint(code.co_names):
        names.discard("float")
    if not names and all(map(operator.is_, constants, code.co_consts)):
        return code
    renamed = tuple(MARK + name if name in names else name for name in code.co_names)
    return code.replace(co_names=renamed, co_consts=constants)
