"""Chains of operations of a replay, compiled to loops over the elements of one version at a time.

What lies between two products, such as a normalisation and its activation, is a dozen operations.
NumPy takes each of them through the arrays of all versions; a compiled `Chain` computes one version
after the other, each element by as many operations as follow each other, without the interpreter.
It adds up in NumPy's order, and contracts nothing.

To compile takes seconds: `fastgrad.tracing.replay.Replay.compile_if_slow` does it.
"""

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np

from fastgrad.jit.concurrency import importing
from fastgrad.lazy import LazyModule
from fastgrad.tracing import operations
from fastgrad.tracing.batched import Stack, moves_nothing, reduced_axes
from fastgrad.tracing.operations import Node, leaves, value_of

numba: Any = LazyModule("numba")

MAX_COMPILED = 64
"""How many compiled chains are kept, those that were used last."""

EXPRESSIONS: dict[Callable[..., Any], str] = {
    np.add: "{} + {}",
    np.subtract: "{} - {}",
    np.multiply: "{} * {}",
    np.divide: "{} / {}",
    np.negative: "-{}",
    np.square: "{0} * {0}",
    np.sqrt: "np.sqrt({})",
    np.absolute: "abs({})",
    np.greater: "{} > {}",
    np.greater_equal: "{} >= {}",
    np.less: "{} < {}",
    np.less_equal: "{} <= {}",
    np.maximum: "{0} if {0} >= {1} or {0} != {0} else {1}",
    np.minimum: "{0} if {0} <= {1} or {0} != {0} else {1}",
    np.where: "{1} if {0} else {2}",
}
"""Elementwise operations, as Python writes them of numbers."""

Updates = Mapping[Node, tuple[Node, Node]]

DTYPES = np.float64, np.bool_
"""Those of what is computed in chains."""


class Chain:
    """Operations that follow each other, none of which mixes versions.

    Parameters
    ----------
    nodes : list of Node
        Each is `is_link`.
    varying : container of Node
        All nodes that have versions.
    needed : container of Node
        Those whose versions are needed afterwards.
    updates : dict
        For products that are the recorded ones plus a column times a row: these two.

    Attributes
    ----------
    updated : list of Node
        Products of that kind.
    """

    def __init__(
        self, nodes: list[Node], varying: Any, needed: Any, updates: Updates = MappingProxyType({})
    ) -> None:
        self.updated = [node for node in nodes if node in updates]
        self.inputs: list[Node] = []
        self._constants: list[Any] = []
        self._same: dict[Node, Node] = {}  # what is only copied
        self._lines: list[tuple[str, Node | None]] = []  # and the node that a line is for alone
        self._read: set[Node] = set()  # what is read where it was not computed
        self._shape: tuple[int, ...] = ()
        self._open: set[Node] = set()  # what the loop that is being written computes
        self._sums: list[Node] = []
        self._names: dict[Node, str] = {}
        self._varying = {*varying, *(factor for node in self.updated for factor in updates[node])}
        own = set(nodes)
        self.outputs = [node for node in nodes if node in needed]
        for node in nodes:
            if node.kind == operations.MOVE:
                source = leaves(node.arguments[0])[0]
                self._same[node] = self._same.get(source, source)
        stored = dict.fromkeys(self._same.get(node, node) for node in self.outputs)
        self._stored = [node for node in stored if node in own]
        for node in nodes:
            if node in self._same:
                continue
            arguments = [self._same.get(a, a) if type(a) is Node else a for a in node.arguments]
            if node in updates:
                self._add(node, [*updates[node], node.value], "{} * {} + {}")
            elif node.kind == operations.REDUCTION:
                self._add_sum(node, arguments[0])
            else:
                self._add(node, arguments, EXPRESSIONS[node.function])  # type: ignore[index]
        self._close()
        self.source = self._as_source()

    @property
    def is_compiled(self) -> bool:
        """Whether it has been compiled, for another replay, say."""
        return self.source in _compiled

    def compile(self) -> None:
        """Compile it, for the dtypes and axes of its arrays."""
        self.run({a: Stack(np.empty((0, *a.shape), a.value.dtype)) for a in self.inputs}, 0)

    def run(self, stacks: Mapping[Node, Stack], m: int) -> dict[Node, Stack]:
        """Return m versions of what is needed afterwards, from those of the inputs."""
        results = {node: np.empty((m, *node.shape), node.value.dtype) for node in self._stored}
        arrays = [np.ascontiguousarray(stacks[node].values) for node in self.inputs]
        compiled(self.source)(m, *arrays, *self._constants, *results.values())
        return {
            node: Stack(results[same]) if same in results else stacks[same]
            for node in self.outputs
            for same in [self._same.get(node, node)]
        }

    def _add(self, node: Node, arguments: list[Any], expression: str) -> None:
        """Write an elementwise operation, in the loop that is open if it can be."""
        self._enter(node.shape, arguments)
        operands = [self._element(argument) for argument in arguments]
        name = self._names[node] = f"v{len(self._names)}"
        self._lines.append((f"e{name} = {expression.format(*operands)}", None))
        self._lines.append((f"{name}{self._index(node.shape, of=node)} = e{name}", node))
        self._open.add(node)

    def _add_sum(self, node: Node, argument: Any) -> None:
        """Write the sum or mean of what the open loop computes, or of an array."""
        shape = np.shape(value_of(argument))
        self._enter(shape, [argument])
        name = self._names[node] = f"v{len(self._names)}"
        axes = reduced_axes(node)
        kept = shape if len(node.shape) == len(shape) else ()
        index = [
            "0" if axis in axes else f"i{axis}"
            for axis in range(len(shape))
            if kept or axis not in axes
        ]
        place = ", ".join([*self._version(node), *index])
        self._lines.append((f"{name}[{place}] += {self._element(argument)}", None))
        self._sums.append(node)
        self._read.add(node)

    def _enter(self, shape: tuple[int, ...], arguments: list[Any]) -> None:
        """Begin another loop if the open one has another shape, or what is added up is wanted."""
        waits = any(type(a) is Node and a in self._sums for a in arguments)
        # What the loop computes is at hand at the same place only.
        waits |= any(a in self._open and a.shape != shape for a in arguments if type(a) is Node)
        if shape != self._shape or waits:
            self._close()
            self._shape = shape
            self._loop_start = len(self._lines)

    def _close(self) -> None:
        """End the loop: write what stands before it, and after."""
        if not self._shape:
            return
        body, self._lines = self._lines[self._loop_start :], self._lines[: self._loop_start]
        for node in self._sums:
            self._write_loop(node.shape, [(self._whole(node) + " = 0.0", None)])
        self._write_loop(self._shape, body)
        for node in self._sums:
            if node.function is np.mean:
                count = prod(self._shape) // node.value.size
                self._write_loop(node.shape, [(f"{self._whole(node)} /= {count}.0", None)])
        self._open, self._sums, self._shape = set(), [], ()

    def _element(self, argument: Any) -> str:
        """Return how the loop calls the element of an argument."""
        if type(argument) is Node and argument in self._open:
            return f"e{self._names[argument]}"
        shape = np.shape(value_of(argument))
        if type(argument) is Node and argument in self._names:
            self._read.add(argument)
            return self._names[argument] + self._index(shape, of=argument)
        if type(argument) is Node and argument in self._varying:
            if argument not in self.inputs:
                self.inputs.append(argument)
            return f"a{self.inputs.index(argument)}" + self._index(shape, of=argument)
        self._constants.append(_constant(argument))
        return f"c{len(self._constants) - 1}" + (self._index(shape) if shape else "")

    def _index(self, shape: tuple[int, ...], of: Node | None = None) -> str:
        """Return the subscript of the element of an array that is broadcast to the loop's shape."""
        first = len(self._shape) - len(shape)
        places = ["0" if n == 1 else f"i{first + axis}" for axis, n in enumerate(shape)]
        version = self._version(of) if of is not None else []
        return f"[{', '.join([*version, *places])}]"

    def _version(self, node: Node) -> list[str]:
        """Return the subscript of the version, which temporary arrays do not have."""
        return ["m"] if node in self._stored or node not in self._names else []

    def _whole(self, node: Node) -> str:
        """Return how a loop of a sum's own shape calls its element."""
        places = [f"i{axis}" for axis in range(len(node.shape))]
        return f"{self._names[node]}[{', '.join([*self._version(node), *places])}]"

    def _write_loop(self, shape: tuple[int, ...], body: list[tuple[str, Node | None]]) -> None:
        """Write a loop over all elements, with these lines in it."""
        indents = ["    " * axis for axis in range(len(shape) + 1)]
        head = [f"{indents[k]}for i{k} in range({n}):" for k, n in enumerate(shape)]
        self._lines += [(line, None) for line in head]
        self._lines += [(indents[-1] + line, node) for line, node in body]

    def _as_source(self) -> str:
        """Return the function's source, which tells it apart from all others."""
        names = [f"a{k}" for k in range(len(self.inputs))]
        names += [f"c{k}" for k in range(len(self._constants))]
        names += [self._names[node] for node in self._stored]
        used = {*self._read, *self._stored}
        temporary = [
            f"    {name} = np.empty({node.shape}, np.{node.value.dtype.type.__name__})"
            for node, name in self._names.items()
            if node in self._read and node not in self._stored
        ]
        return "\n".join(
            [
                f"def chain({', '.join(['versions', *names])}):",
                *temporary,
                "    for m in range(versions):",
                *(f"        {line}" for line, of in self._lines if of is None or of in used),
            ]
        )


def is_link(node: Node) -> bool:
    """Say whether an operation can be part of a chain: of doubles and bools, and not of one number.

    Sums along the last axis are left to NumPy, which adds them up pairwise.
    """
    if not node.shape or not node.value.size or node.value.dtype not in DTYPES:
        return False
    match node.kind:
        case operations.MOVE:
            return moves_nothing(node)
        case operations.REDUCTION:
            return _is_sum(node)
    compares = node.function in (np.greater, np.greater_equal, np.less, np.less_equal)
    return (
        node.function in EXPRESSIONS
        and not node.keywords
        and node.value.dtype == (np.bool_ if compares else np.float64)
        and all(np.asarray(value_of(a)).dtype.kind in "fiub" for a in node.arguments)
        and all(a.value.dtype in DTYPES for a in node.inputs())
    )


def _is_sum(node: Node) -> bool:
    """Say whether a node is a sum or mean along axes before the last one."""
    argument = node.arguments[0]
    return (
        node.function in (np.sum, np.mean)
        and "ddof" not in node.keywords
        and type(argument) is Node
        and node.value.dtype == argument.value.dtype == np.float64
        and len(argument.shape) - 1 not in reduced_axes(node)
    )


def chained(
    nodes: list[Node],
    breaks: Any,
    varying: Any,
    target: Node,
    updates: Updates = MappingProxyType({}),
) -> list[Any]:
    """Return operations in order, with those that follow each other put together to chains.

    Parameters
    ----------
    nodes : list of Node
    breaks : container of Node
        Those that are not computed as they stand.
    varying : container of Node
        All nodes that have versions.
    target : Node
        The one that is wanted at last.
    updates : dict
        As for `Chain`.

    Returns
    -------
    list of Node and Chain
        With the JIT off, of nodes alone.
    """
    with importing:
        is_disabled = vars(numba.config)["DISABLE_JIT"]
    if is_disabled:
        return [*nodes]
    runs: list[list[Node]] = []
    is_chain = False
    for node in nodes:
        continues, is_chain = is_chain, node in updates or (node not in breaks and is_link(node))
        if continues and is_chain:
            runs[-1].append(node)
        else:
            runs.append([node])
    result: list[Any] = []
    for k, run in enumerate(runs):
        if len(run) == 1:
            result += run
            continue
        later = {leaf for other in runs[k + 1 :] for node in other for leaf in node.inputs()}
        result.append(Chain(run, varying, later | {target}, updates))
    return result


def _constant(argument: Any) -> Any:
    """Return an array as one of doubles or bools, or a number as that."""
    array = np.asarray(value_of(argument))
    array = array if array.dtype == np.bool_ else array.astype(np.float64, copy=False)
    return np.ascontiguousarray(array) if array.ndim else array.item()


_compiled: dict[str, Any] = {}
"""Functions by their sources."""


def compiled(source: str) -> Any:
    """Return the function of a source, which numba compiles when it is called."""
    function = _compiled.pop(source, None)
    if function is None:
        function = numba.njit(nogil=True, error_model="numpy")(as_function(source))
    _compiled[source] = function  # the last one now
    if len(_compiled) > MAX_COMPILED:
        _compiled.pop(next(iter(_compiled)))
    return function


def as_function(source: str) -> Any:
    """Return the function of a source in plain Python."""
    namespace: dict[str, Any] = {"np": np}
    exec(source, namespace)
    return namespace["chain"]
