"""Stand-ins for arrays, which note the NumPy operations that a function applies to them."""

import sys
import threading
import time
import types
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import ref

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.constants import Constants
from fastgrad.tracing.libraries import is_of_library
from fastgrad.tracing.nodes import Node, leaves, replaced

CONVERTED = "it is converted to a plain array"

IN_PLACE = "an array that is not recorded is changed in place"

BRANCH = "a branch depends on its value", "write np.where, np.maximum or np.clip instead"

FLOAT = "it is converted to a float before the end", "compute with NumPy, convert what is returned"

INDEX = "an index depends on the array", "multiply by a mask, or use np.where, instead"

MOST_BYTES = 100_000_000
"""Memory that the results of recorded operations may take, besides 16 times the largest one's."""

OF_FLOATS = frozenset({np.add, np.subtract, np.multiply, np.negative, np.positive, np.divide})
"""What Python's floats compute as NumPy's do."""


class NotTraceable(Exception):
    """The function does something that cannot be recorded; the message says what."""


class TooCheap(NotTraceable):
    """The loop takes so little time that recording cannot pay."""


@dataclass(eq=False)
class Recording:
    """The operations of one call of a function, in their order.

    Attributes
    ----------
    seconds, most_operations : float
        The recording ends, with a reason, if it takes longer or notes more of them.
    creates : bool
        Whether arrays that the function creates get stand-ins.
    nodes : list of Node
        Those that depend on the array that stands at the beginning; it is the first.
    reason : str or None
        Why the recording ended early. Noted here because the function may catch the exception.
    needs_constants : bool
        Whether it ended where stand-ins for all arrays might help.
    is_open : bool
        Whether operations are still noted. Afterwards stand-ins compute what their arrays would.
    constants : Constants
        What else was computed with.
    alive : list of weak references
        To all stand-ins.
    fixed : list of ndarray
        Arrays of the user's in whose places no stand-in can be put.
    """

    seconds: float = float("inf")
    most_operations: float = float("inf")
    creates: bool = False
    nodes: list[Node] = field(default_factory=list)
    reason: str | None = None
    needs_constants: bool = False
    is_open: bool = True
    constants: Constants = field(default_factory=Constants)
    alive: list["ref[Recorded]"] = field(default_factory=list)
    fixed: list[NDArray[Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.thread = threading.get_ident()
        self.deadline = time.perf_counter() + self.seconds
        self._operations = 0
        self._bytes = 0
        self._largest = 0
        self._of_memory: dict[int, list[ref[Recorded]]] = {}

    def start(self, values: NDArray[Any]) -> "Recorded":
        """Return the stand-in for the array that has these values."""
        stand_in = self._new(Node(None, (), {}, values, depends=True))
        stand_in.is_x = True
        return stand_in

    def constant(self, values: NDArray[Any]) -> "Recorded":
        """Return a stand-in for an array that does not depend on the one at the beginning.

        What is written into the stand-in is written into the array, too.
        """
        stand_in = self._new(Node(None, (), {}, values, depends=False))
        stand_in.memory = values
        return stand_in

    def stop(self, reason: str, remedy: str = "") -> NotTraceable:
        """Note why the recording ends, and return what to raise."""
        place = place_of(sys._getframe(1))
        text = "; ".join(filter(None, (reason + place, remedy)))
        self.reason = self.reason or text
        return NotTraceable(text)

    def apply(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Compute, and note the operation."""
        every = [*leaves(arguments), *leaves(list(keywords.values()))]
        for leaf in every:
            if type(leaf) is Recorded:
                leaf.require_current()
        depends = any(type(leaf) is Recorded and leaf.node.depends for leaf in every)
        of_floats = depends and any(type(leaf) is Recorded and leaf.is_float for leaf in every)
        if of_floats and self.is_open:
            self._require_of_floats(function, every)
        try:
            value = function(
                *replaced(arguments, plain),
                **{key: replaced(value, plain) for key, value in keywords.items()},
            )
        except Exception as error:  # the function may catch it, which is a branch
            if depends and self.is_open:
                self.stop(f"np.{_name(function)} raises {type(error).__name__}: {error}")
            raise
        if not self.is_open:
            return value
        self._spend()
        if not isinstance(value, (np.ndarray, np.generic)):
            if depends:
                raise self.stop(f"np.{_name(function)} returns no array")
            return value
        if not depends:
            result = self._new(Node(None, (), {}, value, depends=False))
            self._note_origin(result, function, arguments, keywords)
            return result
        if any(
            type(leaf) is Recorded and leaf.node.depends for leaf in leaves([*keywords.values()])
        ):
            raise self.stop(f"np.{_name(function)} is given an array by keyword")
        self._require_numbers(value)
        nodes = replaced(arguments, self._as_argument)
        kept = {key: replaced(value, self._as_argument) for key, value in keywords.items()}
        result = self._new(Node(function, nodes, kept, value, depends=True))
        self._note_origin(result, function, arguments, keywords)
        if of_floats:
            result.is_float = all(
                a.is_float if type(a) is Recorded else type(a) in (int, float) for a in every
            )
        return result

    def _note_origin(
        self,
        result: "Recorded",
        function: Any,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        """Note how a view of another array is taken, so that it can be taken again."""
        value, parent = result.node.value, arguments[0]
        if getattr(value, "base", None) is None or type(parent) is not Recorded:
            return
        if function in operations.VIEWS and _share(value, parent.node.value):
            how = replaced(arguments[1:], self._as_argument)
            result.origin = parent, function, how, dict(keywords)
            if parent.memory is not None:
                seen = function(parent.memory, *replaced(arguments[1:], plain), **keywords)
                result.memory = seen if _share(seen, parent.memory) else None

    def created_like(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Create an array of another one's shape; record what it is filled with."""
        plain_keywords = {key: replaced(value, plain) for key, value in keywords.items()}
        array = function(*replaced(arguments, plain), **plain_keywords)
        fill = keywords.get("fill_value", arguments[1] if len(arguments) > 1 else None)
        fill = fill if function is np.full_like else None
        if not self.creates and not _moves(fill):
            return array
        created = self.created(array)
        if _moves(fill):
            created[...] = fill
        return created

    def created(self, array: NDArray[Any]) -> "Recorded":
        """Return a stand-in for an array that nothing else refers to."""
        return self._new(Node(None, (), {}, array, depends=False))

    def change(self, target: Any, result: "Recorded") -> Any:
        """Let a stand-in be what an operation in place made of it."""
        if type(target) is not Recorded:
            self.needs_constants = True
            raise self.stop(IN_PLACE, "let f make a new array")
        old = target.node.value
        if isinstance(old, np.generic):
            return result  # a number is never changed: its name is given to another
        value = result.node.value
        if (old.shape, old.dtype) != (value.shape, value.dtype):
            raise self.stop("an operation in place changes the shape or dtype")
        if not (target.node.depends or result.node.depends):
            old[...] = value
            return target
        if target.origin is not None and target.origin[1] is operations.item:
            parent, _, (index,), _ = target.origin
            self.assign(parent, index, result)
            return target  # which is brought up to date when it is used again
        self._outdate_views(target)
        if value.strides != old.strides or not isinstance(value, np.ndarray):
            result.node.value = copy_like(old, value)  # for views to be views, and copies copies
        if target.memory is not None:
            target.memory[...] = value
        target.node, target.is_pending, target.origin = result.node, False, None
        self.note_memory(target)
        return target

    def assign(self, target: "Recorded", index: Any, value: Any) -> None:
        """Let a stand-in be what the assignment of a value to a place made of it.

        Assignments that follow each other are one operation, whose result is not copied for each.
        """
        if type(value) is Recorded:
            value.require_current()
            value = self._copy_if_shared(value, target)
        if target.origin is not None and target.origin[1] is operations.item:
            arguments = [target, value], [index]
            self.change(target, self.apply(operations.assigned, arguments, {}))
            return
        self._outdate_views(target)
        self._spend()
        new = plain(value)
        place = replaced(index, plain)
        if not target.is_pending:
            result = copy_like(target.node.value, target.node.value)
            before = self._as_argument(target)
            if target.memory is not None and before is not target.node:
                before = target.node.value.copy("K")  # for this will be written into memory
            result[place] = new
            target.node = Node(operations.assigned, ([before], []), {}, result, depends=True)
            target.is_pending, target.origin = True, None
            self.note_memory(target)
        else:
            target.node.value[place] = new
        moved, places = target.node.arguments
        moved.append(self._as_argument(value))
        places.append(replaced(index, self._as_argument))
        if target.memory is not None:
            target.memory[place] = new

    def _copy_if_shared(self, value: "Recorded", target: "Recorded") -> "Recorded":
        """Return a value as it is before the array that it may be a part of changes."""
        if not isinstance(value.node.value, np.ndarray):
            return value
        if not _share(value.node.value, target.node.value):
            return value
        copied: Recorded = self.apply(np.copy, (value,), {})
        return copied

    def _as_argument(self, leaf: Any) -> Any:
        """Return a leaf of the arguments as a node holds it."""
        if type(leaf) is Recorded:
            if leaf.node.depends:
                return leaf.read()
            leaf = leaf.node.value
        if isinstance(leaf, np.ndarray):
            if type(leaf) is not np.ndarray and not isinstance(leaf, np.memmap):
                raise self.stop(f"it computes with an array of the class {type(leaf).__name__}")
            if leaf.dtype.hasobject:
                raise self.stop("it computes with an array of objects")
            kept = self.constants.keep(leaf)
            self._count_bytes(0)
            return np.asarray(kept)
        return plain(leaf)

    def _new(self, node: Node) -> "Recorded":
        if node.depends:
            self.nodes.append(node)
        stand_in = Recorded(self, node)
        self.alive.append(ref(stand_in))
        self.note_memory(stand_in)
        return stand_in

    def note_memory(self, stand_in: "Recorded") -> None:
        """Note whose memory a stand-in's array is."""
        value = stand_in.node.value
        if isinstance(value, np.ndarray):
            owner = _owner(value)
            if owner not in self._of_memory:
                self._of_memory[owner] = []
                self._count_bytes(value.nbytes if stand_in.node.depends else 0)
            self._of_memory[owner].append(ref(stand_in))

    def _outdate_views(self, target: "Recorded") -> None:
        """Note that an array is going to be changed: what shares its memory changes, too.

        When that is used again, it is taken again; if that is impossible, the recording ends.
        """
        if target.is_x:
            raise self.stop("it changes x", "let f change a copy, x.copy()")
        target.require_current()
        array = target.node.value
        owner = _owner(array)
        sharing = [r for r in self._of_memory[owner] if r() is not None]
        self._of_memory[owner] = sharing
        for other in (reference() for reference in sharing):
            if other is None or other is target:
                continue
            if _share(other.node.value, array):
                if other.is_x:
                    raise self.stop("it changes x", "let f change a copy, x.copy()")
                other.is_outdated = True
        for memory in (array, target.memory):
            if memory is not None and any(_share(a, memory) for a in self.fixed):
                raise self.stop("an array is changed in place that can be read in another way")

    def _require_of_floats(self, function: Any, every: list[Any]) -> None:
        """Refuse what a Python float would compute in another way than NumPy."""
        values = [plain(leaf) for leaf in every]
        is_double = all(
            type(v) in (int, float) or getattr(v, "dtype", None) == np.float64 for v in values
        )
        if not (function in OF_FLOATS and is_double):
            raise self.stop(*FLOAT)
        if function is np.divide and not np.all(values[1]):
            raise self.stop(*FLOAT)

    def _require_numbers(self, value: Any) -> None:
        if type(value) is not np.ndarray and isinstance(value, np.ndarray):
            raise self.stop(f"it computes an array of the class {type(value).__name__}")
        if value.dtype.kind not in "fiubc":
            raise self.stop(f"it computes with numbers of the dtype {value.dtype}")

    def _spend(self) -> None:
        """Count an operation; end the recording if that was too much."""
        if threading.get_ident() != self.thread:
            raise self.stop("another thread computes with it")
        self._operations += 1
        if self._operations > self.most_operations or time.perf_counter() > self.deadline:
            raise self.stop(
                f"recording more than {self._operations - 1:,} operations would take too long",
                "compute with whole arrays instead of their elements",
            )

    def _count_bytes(self, more: int) -> None:
        self._bytes += more
        self._largest = max(self._largest, more)
        allowed = MOST_BYTES + 16 * self._largest
        if self._bytes + self.constants.bytes > allowed:
            raise self.stop(
                f"the results of its operations take more than {allowed / 1e6:,.0f} MB",
                "compute with whole arrays instead of their elements",
            )


def _name(function: Any) -> str:
    return getattr(function, "__name__", "an operation")


def _owner(array: NDArray[Any]) -> int:
    """Return what all arrays in the same memory have in common."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return id(array)


def _share(a: NDArray[Any], b: NDArray[Any]) -> bool:
    """Say whether two arrays have elements in the same place, or whether that is hard to say."""
    if not np.may_share_memory(a, b):
        return False
    try:
        return bool(np.shares_memory(a, b, 1000))  # type: ignore[arg-type]  # so the stubs
    except np.exceptions.TooHardError:
        return True


def copy_like(pattern: NDArray[Any], values: Any) -> NDArray[Any]:
    """Return a copy of values that lies in memory as another array does."""
    if pattern.flags.c_contiguous or pattern.flags.f_contiguous or not pattern.size:
        result = np.empty_like(pattern)
    else:
        steps = [(n - 1) * step for n, step in zip(pattern.shape, pattern.strides, strict=True)]
        before = -sum(step for step in steps if step < 0)
        memory = np.empty(sum(map(abs, steps)) + pattern.itemsize, np.uint8)
        first = memory[before : before + pattern.itemsize].view(pattern.dtype)
        result = as_strided(first, pattern.shape, pattern.strides)
    result[...] = values
    return result


def plain(leaf: Any) -> Any:
    """Return what a stand-in stands for; anything else as it is."""
    if type(leaf) is Recorded:
        return leaf.node.value
    if type(leaf) is slice and Recorded in map(type, (leaf.start, leaf.stop, leaf.step)):
        return slice(*(_as_int(end) for end in (leaf.start, leaf.stop, leaf.step)))
    return leaf


def _as_int(end: Any) -> Any:
    return end.__index__() if type(end) is Recorded else end


class Recorded(NDArrayOperatorsMixin):
    """Stands in for an array while a function is recorded, and computes as the array would.

    It is no ndarray: code that takes an array's memory rather than calling a NumPy function gets
    an exception, not values whose origin is lost. Once the recording is closed it hands out plain
    arrays.

    Attributes
    ----------
    recording : Recording
    node : Node
        What computed its values.
    memory : ndarray or None
        The user's array for which it stands: what is written goes there, too.
    is_x : bool
        Whether it stands for x or a part of it, which must not be changed.
    is_float : bool
        Whether it stands for a Python float.
    is_pending : bool
        Whether the node is an assignment that nothing has read, so that others can join it.
    is_outdated : bool
        Whether its array would have changed with another one, of which it is a view.
    origin : tuple or None
        Of a view: the stand-in of which it is one, and the function and further arguments that
        make it.
    """

    __slots__ = (
        "__weakref__", "is_float", "is_outdated", "is_pending", "is_x", "memory", "node", "origin",
        "recording",
    )  # fmt: skip

    __array_priority__ = 1000.0

    def __init__(self, recording: Recording, node: Node) -> None:
        self.recording = recording
        self.node = node
        self.memory: NDArray[Any] | None = None
        self.origin: tuple[Recorded, Callable[..., Any], Any, dict[str, Any]] | None = None
        self.is_x = self.is_float = self.is_pending = self.is_outdated = False

    @property  # type: ignore[misc]  # an attribute, to mypy
    def __class__(self) -> type:  # so that isinstance(x, np.ndarray) holds
        return float if self.is_float else type(self.node.value)

    def require_current(self) -> None:
        """Take a view again if the array has changed of which it is one; or refuse to be used."""
        if not (self.is_outdated and self.recording.is_open):
            return
        if self.origin is None:
            raise self.recording.stop(
                "a view is used of an array that was changed in place since", "take the view again"
            )
        parent, function, how, keywords = self.origin
        self.is_outdated = False
        self.node = self.recording.apply(function, (parent, *how), keywords).node
        self.recording.note_memory(self)

    def read(self) -> Node:
        """Return the node, as the argument of another one."""
        if self.is_pending:
            self.is_pending = False
            self.recording.nodes.append(self.node)
        return self.node

    def value(self) -> Any:
        """Return what it stands for."""
        value = self.node.value
        return float(value) if self.is_float else value

    def plain_node(self) -> Node:
        """Return a node of its own for what it stands for, which shares no memory."""
        value = self.node.value
        return Node(None, (), {}, value.copy() if isinstance(value, np.ndarray) else value, False)

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **keywords: Any
    ) -> Any:
        recording = self.recording
        if not recording.is_open:
            keywords = {key: plain(value) for key, value in keywords.items()}
            call = partial(getattr(ufunc, method), *map(plain, inputs), **keywords)
            if out is None or isinstance(plain(out[0]), np.generic):
                return call()
            call(out=tuple(map(plain, out)))
            return out[0]
        if method == "at" or ufunc.nout != 1:
            raise recording.stop(f"np.{ufunc.__name__}.{method} is not recorded")
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        where = keywords.pop("where", True) if method == "__call__" else True
        with nullcontext() if where is True else np.errstate(all="ignore"):
            result = recording.apply(function, inputs, keywords)
        if where is not True:
            if out is None:
                raise recording.stop(f"np.{ufunc.__name__} is given where= without out=")
            result = recording.apply(np.where, (where, result, out[0]), {})
        return result if out is None else recording.change(out[0], result)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, arguments: Any, keywords: Any
    ) -> Any:
        recording = self.recording
        if not recording.is_open:
            keywords = {key: replaced(value, plain) for key, value in keywords.items()}
            return function(*replaced(arguments, plain), **keywords)
        if function in operations.LIKE:
            return recording.created_like(function, arguments, keywords)
        if function is np.copyto and len(arguments) == 2 and not keywords:
            target, values = arguments
            if type(target) is not Recorded:
                recording.needs_constants = True
                raise recording.stop(IN_PLACE, "let f make a new array")
            target[...] = values
            return None
        if function in operations.OF_THE_SHAPE:
            keywords = {key: plain(value) for key, value in keywords.items()}
            return function(*replaced(arguments, plain), **keywords)
        if len(arguments) >= operations.OUT.get(function, len(arguments) + 1):
            raise recording.stop(f"np.{function.__name__} is given its result's array")
        if function not in operations.KINDS:
            raise recording.stop(f"np.{function.__name__} is not recorded")
        out = keywords.pop("out", None)
        arguments, keywords = operations.positional(tuple(arguments), keywords)
        in_place = False
        if function is np.nan_to_num:
            in_place = not (arguments[1] if len(arguments) > 1 else keywords.pop("copy", True))
            arguments = (*arguments[:1], True, *arguments[2:])[: len(arguments)]
        result = recording.apply(function, arguments, keywords)
        if in_place:
            return recording.change(arguments[0], result)
        return result if out is None else recording.change(out, result)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not self.recording.is_open:
            return getattr(self.value(), name)
        if self.is_float:
            raise self.recording.stop(*FLOAT)
        if name in operations.METHODS:
            function = operations.METHODS[name]
            return lambda *arguments, **keywords: function(self, *arguments, **keywords)
        raise self.recording.stop(f"the array's attribute {name} is not recorded")

    # What follows are an array's attributes and methods.

    def _array(self) -> Any:
        if self.is_float and self.recording.is_open:
            raise self.recording.stop(*FLOAT)
        return self.value()

    shape = property(lambda self: self._array().shape)
    ndim = property(lambda self: self._array().ndim)
    size = property(lambda self: self._array().size)
    dtype = property(lambda self: self._array().dtype)
    nbytes = property(lambda self: self._array().nbytes)
    itemsize = property(lambda self: self._array().itemsize)
    strides = property(lambda self: self._array().strides)
    T = property(lambda self: np.transpose(self))

    def __len__(self) -> int:
        return len(self._array())

    def __iter__(self) -> Iterator[Any]:
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        if self.recording.is_open and _moves(index):
            raise self.recording.stop(*INDEX)
        return self.recording.apply(operations.item, (self, index), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        recording = self.recording
        if not isinstance(self.node.value, np.ndarray):
            raise TypeError("a number does not support item assignment")
        depends = any(type(leaf) is Recorded and leaf.node.depends for leaf in leaves(value))
        if not recording.is_open or not (self.node.depends or depends or _moves(index)):
            self.node.value[replaced(index, plain)] = replaced(value, plain)
            return
        if depends and type(value) is not Recorded:
            value = recording.apply(operations.array_of, (value,), {})
        if not _moves(index):
            recording.assign(self, index, value)
            return
        mask = type(index) is Recorded and index.dtype == bool and index.shape == self.shape
        if not mask or np.size(plain(value)) != 1:
            raise recording.stop("a place that depends on the array is assigned to")
        if np.ndim(plain(value)):
            value = np.reshape(value, ())
        chosen: Any = np.where(index, value, self)
        recording.change(self, chosen)

    def reshape(self, *shape: Any, **keywords: Any) -> Any:
        """Record an array's method."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, **keywords)

    def transpose(self, *axes: Any) -> Any:
        """Record an array's method."""
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def flatten(self, order: Any = "C") -> Any:
        """Record an array's method."""
        return np.copy(np.ravel(self, order))

    def copy(self, order: Any = "C") -> Any:
        """Record an array's method, which lays memory out in another order than `numpy.copy`."""
        return np.copy(self, order) if isinstance(self.node.value, np.ndarray) else self

    def fill(self, value: Any) -> None:
        """Record an array's method."""
        self[...] = value

    def item(self) -> Any:
        """Record an array's method; the number stays a stand-in."""
        return self.as_float()

    def astype(self, dtype: Any, order: Any = "K", copy: bool = True) -> Any:
        """Record an array's method."""
        if not copy and np.dtype(dtype) == self.dtype and order in ("K", "A"):
            return self
        if order not in ("K", "A"):
            raise self.recording.stop("astype is given an order")
        return self.recording.apply(operations.converted, (self, np.dtype(dtype)), {})

    def as_float(self) -> Any:
        """Return a stand-in for the Python float that its one element is."""
        if not (self.recording.is_open and self.node.depends):
            return float(self.node.value)
        if np.size(self.node.value) != 1:
            raise self.recording.stop("an array of several elements is converted to a float")
        if np.ndim(self.node.value):
            return self.reshape(()).as_float()
        if self.node.value.dtype != np.float64:
            return self.astype(np.float64).as_float()
        result = Recorded(self.recording, self.read())
        result.is_float = True
        self.recording.alive.append(ref(result))
        return result

    def __copy__(self) -> Any:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self._constant("it is pickled").__reduce_ex__(protocol)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        if self.recording.is_open and self.node.depends:
            self.recording.needs_constants = True
        value = self._constant(CONVERTED, "call a function of NumPy's that fastgrad records")
        return np.array(value, dtype) if copy else np.asarray(value, dtype)

    def __bool__(self) -> bool:
        return bool(self._constant(*BRANCH))

    def __int__(self) -> int:
        return int(self._constant("it is converted to an int"))

    def __index__(self) -> int:
        value = self._constant(*INDEX)
        index: int = value.__index__()
        return index

    def __round__(self, digits: int = 0) -> Any:
        return np.round(self, digits)

    def __complex__(self) -> complex:
        return complex(self._constant("it is converted to a complex number"))

    def __float__(self) -> float:
        return float(self._constant(*FLOAT))

    def __contains__(self, value: Any) -> bool:
        return value in self._constant(*BRANCH)

    def __hash__(self) -> int:
        if isinstance(self.node.value, np.ndarray):
            raise TypeError("unhashable type: 'numpy.ndarray'")
        return hash(self._constant("it is looked up by its value"))

    def __format__(self, spec: str) -> str:
        return format(self._constant("it is written as text"), spec)

    def __str__(self) -> str:
        return str(self._constant("it is written as text"))

    def __repr__(self) -> str:
        return repr(self._constant("it is written as text"))

    def _constant(self, reason: str, remedy: str = "") -> Any:
        """Return the value, if it does not depend on the array at the beginning."""
        self.require_current()
        if self.recording.is_open and self.node.depends:
            raise self.recording.stop(reason, remedy)
        return self.value()


def _moves(index: Any) -> bool:
    """Say whether an index depends on the array at the beginning."""
    return any(type(leaf) is Recorded and leaf.node.depends for leaf in leaves(index))


def place_of(frame: types.FrameType | None) -> str:
    """Name the innermost of the user's functions that run, and its line."""
    while frame is not None and frame.f_code is not record.__code__:
        if not is_of_library(frame.f_globals.get("__name__", "")):
            return _named(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return ""


def _named(code: types.CodeType, line: int | None) -> str:
    file = code.co_filename.replace("\\", "/").rpartition("/")[2]
    return f" (in {code.co_qualname.rpartition('<locals>.')[2]}, line {line} of {file})"


def record(call: Callable[[], Any], recording: Recording) -> Node:
    """Run a call that computes with stand-ins, and return the node of its result.

    Raises
    ------
    NotTraceable
        If something in it cannot be recorded, or raises. It refers to no frame of the function,
        whose variables are stand-ins.
    """
    refusal = None
    try:
        result = call()
    except NotTraceable as error:
        refusal = str(error)
    except Exception as error:
        refusal = f"it raises {type(error).__name__}: {error}{_place_of_error(error)}"
        error.__traceback__ = None  # somebody may keep the error
    finally:
        recording.is_open = False
    if recording.reason is not None or refusal is not None:
        raise NotTraceable(recording.reason or refusal)
    if type(result) is not Recorded:
        raise NotTraceable("its result is not computed from the array by NumPy operations")
    output = result.read()
    if np.size(output.value) != 1 or not output.depends:
        raise NotTraceable("its result is not a number that is computed from the array")
    return output


def _place_of_error(error: BaseException) -> str:
    """Name the innermost of the user's functions that an error passed, and its line."""
    place, step = "", error.__traceback__
    while step is not None:
        if not is_of_library(step.tb_frame.f_globals.get("__name__", "")):
            place = _named(step.tb_frame.f_code, step.tb_lineno)
        step = step.tb_next
    return place
