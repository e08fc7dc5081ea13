"""Recordings: the NumPy operations that one call of a function applies to stand-ins."""

import re
import sys
import threading
import time
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any
from weakref import ref

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.tracing import operations
from fastgrad.tracing.first_calls import share
from fastgrad.tracing.operations import Node, is_same, leaves, replaced
from fastgrad.tracing.stand_in import (
    FLOAT,
    IN_PLACE,
    INDEX,
    Constants,
    Recorded,
    is_selection,
    moves,
    owner_of,
    plain,
)

MAX_BYTES = 100_000_000
"""Memory that the results of recorded operations may take, besides 16 times the largest one's."""

FLOAT_OPERATIONS = frozenset(
    {np.add, np.subtract, np.multiply, np.negative, np.positive, np.divide}
)
"""What Python's floats compute as NumPy's do."""

MAX_MODULES = 4096
"""Names of modules, at most, of which it is kept whether they are a library's."""

_LIBRARIES = (
    frozenset({"fastgrad", "numba", "numpy", "scipy", "matplotlib", "tqdm", "pytest", "_pytest"})
    | sys.stdlib_module_names
)
"""Libraries whose functions are not looked into: they hold no array of the user's."""


class NotTraceable(Exception):
    """The function does something that cannot be recorded; the message says what."""


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
    alive : list of weak references
        To all stand-ins.
    fixed : list of ndarray
        Arrays of the user's in whose places no stand-in can be put.
    slots : list of tuple
        The places in which stand-ins are, and what they held, as `references.Slot` has them.
    pauses_gc : bool
        Whether garbage is collected again when it has ended.
    constants : Constants
        What else was computed with.
    """

    seconds: float = float("inf")
    most_operations: float = float("inf")
    creates: bool = False
    nodes: list[Node] = field(default_factory=list)
    reason: str | None = None
    needs_constants: bool = False
    is_open: bool = True
    alive: list[ref[Recorded]] = field(default_factory=list)
    fixed: list[NDArray[Any]] = field(default_factory=list)
    slots: list[tuple[Callable[[Any], None], Any, Any]] = field(default_factory=list)
    pauses_gc: bool = False

    def __post_init__(self) -> None:
        self.thread = threading.get_ident()
        self.constants = Constants()
        self._deadline = time.perf_counter() + self.seconds
        self._deadline_of_thread = time.thread_time() + self.seconds
        self._operations = 0
        self._bytes = 0
        self._largest = 0
        self._of_memory: dict[int, list[ref[Recorded]]] = {}

    def start(self, values: NDArray[Any]) -> Recorded:
        """Return the stand-in for the array that has these values."""
        stand_in = self._new(Node(None, (), {}, values, depends=True))
        stand_in.is_x = True
        return stand_in

    def constant(self, values: NDArray[Any]) -> Recorded:
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
        recorded = [leaf for leaf in every if type(leaf) is Recorded]
        for leaf in recorded:
            leaf.require_current()
        is_noted = all(leaf.is_noted() for leaf in recorded)
        depends = any(leaf.node.depends for leaf in recorded)
        if is_noted and any(map(is_selection, recorded)):
            return self._apply_to_selected(function, arguments, keywords)
        of_floats = depends and any(leaf.is_float for leaf in recorded)
        if of_floats and is_noted:
            self._require_of_floats(function, every)
        try:
            value = function(
                *replaced(arguments, plain),
                **{key: replaced(value, plain) for key, value in keywords.items()},
            )
        except Exception as error:  # the function may catch it, which is a branch
            raise_interrupt(error)
            if depends and is_noted:
                self.stop(f"np.{_name(function)} raises {type(error).__name__}: {error}")
            raise
        if not is_noted:
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
        if moves([*keywords.values()]):
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

    def select(self, array: Recorded, mask: Recorded) -> Recorded:
        """Record the elements that a mask selects which depends on the array at the beginning."""
        array.require_current()
        mask.require_current()
        self._spend()
        value = array.node.value[mask.node.value]
        return self._new_selection(array, mask.read(), value)

    def _apply_to_selected(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Recorded:
        """Record an operation on what a mask selects as one on the whole arrays.

        What it makes of elements that are not selected is never used.
        """
        every = list(leaves(arguments))
        masks = [leaf.node.arguments[1] for leaf in every if is_selection(leaf)]
        others = [leaf for leaf in every if not is_selection(leaf)]
        kind = operations.kind_of(function, arguments, keywords)
        adds = function in (np.sum, np.mean) and len(every) == 1 and not keywords
        is_alike = masks and all(is_same(mask, masks[0]) for mask in masks)
        if not (is_alike and (adds or kind == operations.ELEMENTWISE)) or any(
            np.ndim(plain(leaf)) for leaf in others
        ):
            raise self.stop(*INDEX)
        value = function(*replaced(arguments, plain), **keywords)
        wholes = replaced(
            arguments, lambda leaf: self.whole_of(leaf) if is_selection(leaf) else leaf
        )
        mask = self._another(masks[0])
        with np.errstate(all="ignore"):
            if not adds:
                result = self.apply(function, wholes, keywords)
                plain(result)[masks[0].value] = value  # to the last bit
                return self._new_selection(result, masks[0], value)
            result = self.apply(np.sum, (np.where(mask, wholes[0], 0),), {})
            if function is np.mean:
                result = self.apply(np.divide, (result, np.sum(mask)), {})
        result.node.value = value  # for which elements were added in another order
        return result  # type: ignore[no-any-return]

    def _new_selection(self, array: Any, mask: Node, value: NDArray[Any]) -> Recorded:
        """Return a stand-in for what a mask selects of an array."""
        whole = self._as_argument(array)
        return self._new(Node(operations.selected, (whole, mask), {}, value, depends=True))

    def whole_of(self, selection: Recorded) -> Any:
        """Return the array of which a mask selects elements."""
        whole = selection.node.arguments[0]
        return self._another(whole) if type(whole) is Node else whole

    def _another(self, node: Node) -> Recorded:
        """Return another stand-in for what a node has computed."""
        stand_in = Recorded(self, node)
        self.alive.append(ref(stand_in))
        return stand_in

    def _note_origin(
        self,
        result: Recorded,
        function: Any,
        arguments: tuple[Any, ...],
        keywords: dict[str, Any],
    ) -> None:
        """Note how a view of another array is taken, so that it can be taken again."""
        value, parent = result.node.value, arguments[0]
        if getattr(value, "base", None) is None or type(parent) is not Recorded:
            return
        if function in operations.VIEWS and share(value, parent.node.value):
            how = replaced(arguments[1:], self._as_argument)
            result.origin = parent, function, how, dict(keywords)
            if parent.memory is not None:
                seen = function(parent.memory, *replaced(arguments[1:], plain), **keywords)
                result.memory = seen if share(seen, parent.memory) else None

    def strided(self, array: Recorded, view: NDArray[Any]) -> Recorded:
        """Return a stand-in for a view of an array's memory, whose elements may overlap."""
        array.require_current()
        if not array.node.depends:
            return self._new(Node(None, (), {}, view, depends=False))
        places = places_in(array.node.value, view)
        if places is None or view.dtype != array.node.value.dtype:
            raise self.stop("np.as_strided looks at more than the array")
        result: Recorded = self.apply(operations.item, (np.ravel(array), places), {})
        result.node.value = view  # which tells whose memory it is
        self.note_memory(result)
        return result

    def created_like(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Create an array of another one's shape; record what it is filled with."""
        plain_keywords = {key: replaced(value, plain) for key, value in keywords.items()}
        array = function(*replaced(arguments, plain), **plain_keywords)
        fill = keywords.get("fill_value", arguments[1] if len(arguments) > 1 else None)
        fill = fill if function is np.full_like else None
        if not self.creates and not moves(fill):
            return array
        created = self.created(array)
        if moves(fill):
            created[...] = fill
        return created

    def created(self, array: NDArray[Any]) -> Recorded:
        """Return a stand-in for an array that nothing else refers to."""
        return self._new(Node(None, (), {}, array, depends=False))

    def change(self, target: Any, result: Recorded) -> Any:
        """Make a stand-in the result of an operation in place on it."""
        if type(target) is not Recorded:
            self.needs_constants = True
            raise self.stop(IN_PLACE, "let f make a new array")
        if is_selection(target) != is_selection(result):
            raise self.stop(*INDEX)
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

    def assign(self, target: Recorded, index: Any, value: Any) -> None:
        """Make a stand-in the result of assigning a value to a place in it.

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

    def _copy_if_shared(self, value: Recorded, target: Recorded) -> Recorded:
        """Return a value as it is before the array that it may be a part of changes."""
        if not isinstance(value.node.value, np.ndarray):
            return value
        if not share(value.node.value, target.node.value):
            return value
        copied: Recorded = self.apply(np.copy, (value,), {})
        return copied

    def _as_argument(self, leaf: Any) -> Any:
        """Return a leaf of the arguments as a node holds it."""
        if type(leaf) is Recorded:
            if is_selection(leaf):
                raise self.stop(*INDEX)
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

    def _new(self, node: Node) -> Recorded:
        """Return a stand-in for the result of a new node."""
        if node.depends:
            self.nodes.append(node)
        stand_in = Recorded(self, node)
        self.alive.append(ref(stand_in))
        self.note_memory(stand_in)
        return stand_in

    def note_memory(self, stand_in: Recorded) -> None:
        """Note whose memory a stand-in's array is."""
        value = stand_in.node.value
        if isinstance(value, np.ndarray):
            owner = owner_of(value)
            if owner not in self._of_memory:
                self._of_memory[owner] = []
                self._count_bytes(value.nbytes if stand_in.node.depends else 0)
            self._of_memory[owner].append(ref(stand_in))

    def _outdate_views(self, target: Recorded) -> None:
        """Note that an array is going to be changed: what shares its memory changes, too.

        When that is used again, it is taken again; if that is impossible, the recording ends.
        """
        if target.is_x:
            raise self.stop("it changes x", "let f change a copy, x.copy()")
        target.require_current()
        array = target.node.value
        owner = owner_of(array)
        sharing = [r for r in self._of_memory[owner] if r() is not None]
        self._of_memory[owner] = sharing
        for other in (reference() for reference in sharing):
            if other is None or other is target:
                continue
            if share(other.node.value, array):
                if other.is_x:
                    raise self.stop("it changes x", "let f change a copy, x.copy()")
                other.is_outdated = True
        for memory in (array, target.memory):
            if memory is not None and any(share(a, memory) for a in self.fixed):
                raise self.stop("an array is changed in place that can be read in another way")

    def _require_of_floats(self, function: Any, every: list[Any]) -> None:
        """Refuse what a Python float would compute in another way than NumPy."""
        values = [plain(leaf) for leaf in every]
        is_double = all(
            type(v) in (int, float) or getattr(v, "dtype", None) == np.float64 for v in values
        )
        if not (function in FLOAT_OPERATIONS and is_double):
            raise self.stop(*FLOAT)
        if function is np.divide and not np.all(values[1]):
            raise self.stop(*FLOAT)

    def _require_numbers(self, value: Any) -> None:
        """Refuse results that are no plain arrays of numbers."""
        if type(value) is not np.ndarray and isinstance(value, np.ndarray):
            raise self.stop(f"it computes an array of the class {type(value).__name__}")
        if value.dtype.kind not in "fiubc":
            raise self.stop(f"it computes with numbers of the dtype {value.dtype}")

    def is_late(self) -> bool:
        """Say whether the recording has taken its time, not counting that of other programs."""
        if time.perf_counter() < self._deadline:  # which is asked in less time
            return False
        return time.thread_time() > self._deadline_of_thread

    def _spend(self) -> None:
        """Count an operation; end the recording if that was too much."""
        self._operations += 1
        if self._operations > self.most_operations or self.is_late():
            raise self.stop(
                f"recording more than {self._operations - 1:,} operations would take too long",
                "compute with whole arrays instead of their elements",
            )

    def _count_bytes(self, more: int) -> None:
        """Count memory; end the recording if it takes too much."""
        self._bytes += more
        self._largest = max(self._largest, more)
        allowed = MAX_BYTES + 16 * self._largest
        if self._bytes + self.constants.bytes > allowed:
            raise self.stop(
                f"the results of its operations take more than {allowed / 1e6:,.0f} MB",
                "compute with whole arrays instead of their elements",
            )


def _name(function: Any) -> str:
    """Return a function's name."""
    return getattr(function, "__name__", "an operation")


def place_of(frame: types.FrameType | None) -> str:
    """Name the innermost of the user's functions that run, and its line."""
    while frame is not None and frame.f_code is not record.__code__:
        if not is_of_library(frame.f_globals.get("__name__", "")):
            return _named(frame.f_code, frame.f_lineno)
        frame = frame.f_back
    return ""


def _named(code: types.CodeType, line: int | None) -> str:
    """Return a function, line and file in words."""
    file = code.co_filename.replace("\\", "/").rpartition("/")[2]
    return f" (in {code.co_qualname.rpartition('<locals>.')[2]}, line {line} of {file})"


@lru_cache(MAX_MODULES)
def is_of_library(module: str) -> bool:
    """Say whether a module, by its name, belongs to Python or to one of these libraries."""
    return module.partition(".")[0] in _LIBRARIES


UNUSED = "its result is not computed from the array, which it does not use"
"""The reason where no operation was given the array at the beginning."""


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
        raise_interrupt(error)
        refusal = f"it raises {type(error).__name__}: {_in_words(error)}{_place_of_error(error)}"
        error.__traceback__ = None  # somebody may keep the error
    finally:
        recording.is_open = False
    if recording.reason is not None or refusal is not None:
        raise NotTraceable(recording.reason or refusal)
    if type(result) is not Recorded:
        if len(recording.nodes) == 1:
            raise NotTraceable(UNUSED)
        raise NotTraceable("its result is not computed from the array by NumPy operations")
    if is_selection(result):
        raise NotTraceable("; ".join(INDEX))
    output = result.read()
    if np.size(output.value) != 1 or not output.depends:
        raise NotTraceable("its result is not a number that is computed from the array")
    return output


def _in_words(error: Exception) -> str:
    """Return what an error says, with words for the class of stand-ins."""
    return re.sub(r"'?\bRecorded\b'?( object)?", "stand-in for an array", str(error))


def _place_of_error(error: BaseException) -> str:
    """Name the innermost of the user's functions that an error passed, and its line."""
    place, step = "", error.__traceback__
    while step is not None:
        if not is_of_library(step.tb_frame.f_globals.get("__name__", "")):
            place = _named(step.tb_frame.f_code, step.tb_lineno)
        step = step.tb_next
    return place


# Memory -------------------------------------------------------------------------------------------


def places_in(array: NDArray[Any], view: NDArray[Any]) -> NDArray[np.intp] | None:
    """Return the place in an array, in C order, of each element of a view of its memory.

    None if the view holds more than the array's elements.
    """
    own, wanted = _addresses(array).reshape(-1), _addresses(view)
    order = np.argsort(own)
    index = order[np.minimum(np.searchsorted(own, wanted, sorter=order), max(0, own.size - 1))]
    return index if np.array_equal(own[index], wanted) else None


def _addresses(array: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of each element in memory."""
    start = array.__array_interface__["data"][0]
    axes = [np.arange(n) * step for n, step in zip(array.shape, array.strides, strict=True)]
    grids = np.meshgrid(*axes, indexing="ij", sparse=True) if axes else []
    return np.asarray(np.broadcast_to(start + sum(grids), array.shape))


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
