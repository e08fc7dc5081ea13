"""Which NumPy operations does a function apply to an array? A stand-in for the array notes them."""

import dis
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any
from weakref import ref

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.nodes import Node, leaves, replaced

CONVERTED = "it is converted to a plain array"


class NotTraceable(Exception):
    """The function does something that cannot be recorded; the message says what."""


class TooCheap(NotTraceable):
    """The loop takes so little time that recording cannot pay."""


@dataclass(eq=False)
class Recording:
    """The operations of one call of a function, in their order.

    Attributes
    ----------
    nodes : list of Node
        Those that depend on the array that stands at the beginning; it is the first.
    reason : str or None
        Why the recording ended early. Noted here because the function may catch the exception.
    returned : Node or None
        What the function converted to a float, in the statement that returns it.
    """

    nodes: list[Node] = field(default_factory=list)
    reason: str | None = None
    returned: Node | None = None
    is_open: bool = True
    alive: list["ref[Recorded]"] = field(default_factory=list)

    def start(self, values: NDArray[Any]) -> "Recorded":
        """Return the stand-in for the array that has these values."""
        return self._new(Node(None, (), {}, values, depends=True))

    def constant(self, values: NDArray[Any]) -> "Recorded":
        """Return a stand-in for an array that does not depend on the one at the beginning."""
        return self._new(Node(None, (), {}, values, depends=False))

    def stop(self, reason: str) -> NotTraceable:
        """Note why the recording ends, and return what to raise."""
        self.reason = self.reason or reason
        return NotTraceable(reason)

    def apply(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> Any:
        """Compute, and note the operation."""
        if any(type(leaf) is Recorded for leaf in leaves(list(keywords.values()))):
            raise self.stop(f"np.{function.__name__} is given an array by keyword")
        value = function(*replaced(arguments, _value_of), **keywords)
        if not self.is_open:
            return value
        nodes = replaced(arguments, lambda leaf: leaf.node if type(leaf) is Recorded else leaf)
        depends = any(type(leaf) is Node and leaf.depends for leaf in leaves(nodes))
        if not isinstance(value, (np.ndarray, np.generic)):
            if depends:
                raise self.stop(f"np.{function.__name__} returns no array")
            return value
        return self._new(Node(function, nodes, keywords, value, depends))

    def change(self, target: Any, result: "Recorded") -> Any:
        """Let a stand-in be what an operation in place made of it."""
        if not self.is_open:
            (target.node.value if type(target) is Recorded else target)[...] = result
            return target
        if type(target) is Recorded and isinstance(target.node.value, np.generic):
            return result  # a number is never changed: its name is given to another
        if type(target) is not Recorded:
            raise self.stop("an array that is not recorded is changed in place")
        if (target.shape, target.dtype) != (result.shape, result.dtype):
            raise self.stop("an operation in place changes the dtype")
        for other in (reference() for reference in self.alive):
            if other is None or other is target:
                continue
            if np.may_share_memory(other.node.value, target.node.value):
                raise self.stop("an array is changed in place while a view of it is in use")
        target.node = result.node
        return target

    def _new(self, node: Node) -> "Recorded":
        if node.depends:
            self.nodes.append(node)
        stand_in = Recorded(self, node)
        self.alive.append(ref(stand_in))
        return stand_in


def _value_of(leaf: Any) -> Any:
    return leaf.node.value if type(leaf) is Recorded else leaf


class Recorded(NDArrayOperatorsMixin):
    """Stands in for an array while a function is recorded, and computes as the array would.

    It is no ndarray: code that takes an array's memory rather than calling a NumPy function gets
    an exception, not values whose origin is lost. Once the recording is closed it hands out plain
    arrays.
    """

    __array_priority__ = 1000.0

    def __init__(self, recording: Recording, node: Node) -> None:
        self.recording = recording
        self.node = node

    @property  # type: ignore[misc]  # an attribute, to mypy
    def __class__(self) -> type:  # so that isinstance(x, np.ndarray) holds
        return np.ndarray

    def __array_ufunc__(
        self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **keywords: Any
    ) -> Any:
        if method not in ("__call__", "reduce") or ufunc.nout != 1:
            raise self.recording.stop(f"np.{ufunc.__name__}.{method} is not recorded")
        function = ufunc if method == "__call__" else ufunc.reduce
        result = self.recording.apply(function, inputs, keywords)
        return result if out is None else self.recording.change(out[0], result)

    def __array_function__(
        self, function: Callable[..., Any], types: Any, arguments: Any, keywords: Any
    ) -> Any:
        if function in operations.OF_THE_SHAPE:
            keywords = {key: _value_of(value) for key, value in keywords.items()}
            return function(*replaced(arguments, _value_of), **keywords)
        if len(arguments) >= operations.OUT.get(function, len(arguments) + 1):
            raise self.recording.stop(f"np.{function.__name__} is given its result's array")
        if function not in operations.KINDS:
            raise self.recording.stop(f"np.{function.__name__} is not recorded")
        out = keywords.pop("out", None)
        arguments, keywords = operations.positional(tuple(arguments), keywords)
        result = self.recording.apply(function, arguments, keywords)
        return result if out is None else self.recording.change(out, result)

    def __getattr__(self, name: str) -> Any:
        if name in operations.METHODS:
            function = operations.METHODS[name]
            return lambda *arguments, **keywords: function(self, *arguments, **keywords)
        if name.startswith("__"):
            raise AttributeError(name)
        raise self.recording.stop(f"the array's attribute {name} is not recorded")

    # What follows are an array's attributes and methods.

    shape = property(lambda self: np.shape(self.node.value))
    ndim = property(lambda self: np.ndim(self.node.value))
    size = property(lambda self: np.size(self.node.value))
    dtype = property(lambda self: self.node.value.dtype)
    T = property(lambda self: np.transpose(self))

    def __len__(self) -> int:
        return len(self.node.value)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        self._require_constant(index)
        return self.recording.apply(operations.item, (self, replaced(index, _value_of)), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        if type(index) is Recorded and index.node.depends:
            if index.dtype != bool or index.shape != self.shape or np.size(value) != 1:
                raise self.recording.stop("a place that depends on the array is assigned to")
            result: Any = np.where(index, value, self)
        elif not self.node.depends and not (type(value) is Recorded and value.node.depends):
            self.node.value[replaced(index, _value_of)] = _value_of(value)
            return
        else:
            arguments = ((self, value), replaced(index, _value_of))
            result = self.recording.apply(operations.assigned, arguments, {})
        self.recording.change(self, result)

    def _require_constant(self, index: Any) -> None:
        if any(type(leaf) is Recorded and leaf.node.depends for leaf in leaves(index)):
            raise self.recording.stop("an index depends on the array")

    def reshape(self, *shape: Any, **keywords: Any) -> Any:
        """Record an array's method."""
        return np.reshape(self, shape[0] if len(shape) == 1 else shape, **keywords)

    def transpose(self, *axes: Any) -> Any:
        """Record an array's method."""
        return np.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    def flatten(self) -> Any:
        """Record an array's method."""
        return np.copy(np.ravel(self))

    def item(self) -> Any:
        """Record an array's method; the number stays a stand-in."""
        return np.reshape(self, ())

    def astype(self, dtype: Any, copy: bool = True) -> Any:
        """Record an array's method."""
        return self.recording.apply(operations.converted, (self, np.dtype(dtype)), {})

    def __copy__(self) -> Any:
        return np.copy(self)

    def __deepcopy__(self, memo: Any) -> Any:
        return np.copy(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self._constant(CONVERTED), dtype)

    def __bool__(self) -> bool:
        return bool(self._constant("a branch depends on its value"))

    def __int__(self) -> int:
        return int(self._constant("it is converted to an int"))

    def __index__(self) -> int:
        return int(self._constant("it is used as an index"))

    def __round__(self, digits: int = 0) -> Any:
        return np.round(self, digits)

    def __complex__(self) -> complex:
        return complex(self._constant("it is converted to a complex number"))

    def __contains__(self, value: Any) -> bool:
        return value in self._constant("a branch depends on its value")

    def __float__(self) -> float:
        if self.recording.is_open and self.node.depends and _is_returned(sys._getframe(1)):
            self.recording.returned = self.node
            return float(self.node.value)
        return float(self._constant("it is converted to a float before the end"))

    def _constant(self, reason: str) -> Any:
        """Return the value, if it does not depend on the array at the beginning."""
        if self.recording.is_open and self.node.depends:
            raise self.recording.stop(reason)
        return self.node.value


def _is_returned(frame: FrameType | None) -> bool:
    """Say whether all callers up to `record` do nothing but return what is being computed."""
    while frame is not None and frame.f_code is not record.__code__:
        after = [
            (instruction.offset, instruction.opname)
            for instruction in dis.get_instructions(frame.f_code)
            if instruction.offset >= frame.f_lasti
        ]
        if after[0] == (frame.f_lasti, "PRECALL"):  # Python 3.11 calls in two instructions
            after = after[2:]
        elif after[0][0] == frame.f_lasti:  # otherwise it stands in the call's inline cache
            after = after[1:]
        if after[0][1] != "RETURN_VALUE":
            return False
        frame = frame.f_back
    return frame is not None


def record(call: Callable[[], Any], recording: Recording) -> Node:
    """Run a call that computes with stand-ins, and return the node of its result.

    Raises
    ------
    NotTraceable
        If something in it cannot be recorded, or raises.
    """
    try:
        result = call()
    except NotTraceable:
        raise
    except Exception as error:
        raise recording.stop(f"it raises {type(error).__name__}: {error}") from error
    finally:
        recording.is_open = False
    if recording.reason is not None:
        raise NotTraceable(recording.reason)
    if type(result) is Recorded:
        output = result.node
    elif recording.returned is not None and type(result) is float:
        output = recording.returned
    else:
        raise NotTraceable("its result is not computed from the array by NumPy operations")
    if np.size(output.value) != 1 or not output.depends:
        raise NotTraceable("its result is not a number that is computed from the array")
    return output
