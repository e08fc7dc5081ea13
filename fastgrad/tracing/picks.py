"""Elements of a stage that masks and maxima pick: replays that move these alone.

An operation *picks* if each element of its result moves by just as much as one element of its
arguments, or not at all: masks, as of a ReLU, maxima, as of pooling, and moves. Which one it is
depends on decisions, such as ``a > 0``. Where the stage is moved so little that no decision
changes, the result is what was recorded, plus what one element of the stage has been moved by. The
stage's other elements need not be moved, nor the operations replayed. Elements for which a decision
may change are *undecided*: these alone are computed by the recorded operations.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.affine import Stage, propagate
from fastgrad.tracing.batched import Batched, Stack, batched, reduced_axes
from fastgrad.tracing.operations import Node, leaves, replaced, value_of
from fastgrad.tracing.replay import REPLAY_TOLERANCE, Replay
from fastgrad.tracing.row_losses import RowLosses
from fastgrad.tracing.smoothness import EXTREMA, name_of
from fastgrad.typing import Array, Places

MIN_INPUTS = 8
"""For fewer inputs, finding what is picked takes as long as it saves."""

MIN_GAIN = 2
"""How many times fewer elements are to be computed, at least."""

MAX_UNDECIDED_SHARE = 0.1
"""The share of elements that may be undecided."""

DECISION_MARGIN_EPS = 8
"""Units of rounding, of the largest number, by which a decision may be missed."""


@dataclass(eq=False)
class Picks:
    """Which element of the stage each element of an array moves with.

    Attributes
    ----------
    value : array
    source : int array of its shape
        The place in the stage, counted from 1; 0 if it does not move.
    sure : bool array of its shape
        Whether it is so however the stage is moved within reach.
    """

    value: Array
    source: Places
    sure: NDArray[np.bool_]


def picked(rows: RowLosses, stage: Stage, largest: float) -> tuple[RowLosses, Stage] | None:
    """Return the same losses and stage with only those elements of the stage that are picked.

    Parameters
    ----------
    rows : RowLosses
    stage : Stage
    largest : float
        How far weights are moved at most.

    Returns
    -------
    RowLosses, Stage
        The stage's array has one axis, and holds by how much it is moved. None if an operation
        before the units mix does not pick, or little would be saved.
    """
    replay, root = rows.replay, stage.node
    separate = [node for node in replay.nodes if node in replay.unit_ids]
    mixed = [node for node in replay.nodes if node not in replay.unit_ids]
    read = {leaf for node in mixed for leaf in node.inputs()}
    ends = [node for node in separate if node in read]
    work = root.value.size + sum(node.value.size for node in separate if not is_view(node))
    if (
        root in read
        or replay.is_separate
        or len(stage.used_inputs) < MIN_INPUTS
        or MIN_GAIN * sum(3 * node.value.size for node in ends) > work
        or not all(_may_pick(node) for node in separate)
        or any(node.value.dtype != np.float64 for node in ends)
    ):
        return None
    reach = _reach(stage, separate, largest)
    if not np.isfinite(reach).all():
        return None
    picks = _follow(root, separate, reach)
    undecided = {node: np.flatnonzero(~picks[node].sure) for node in ends}
    size = sum(node.value.size for node in ends)
    if sum(map(len, undecided.values())) > MAX_UNDECIDED_SHARE * size:
        return None
    needed = _needed(separate, undecided)
    return _assembled(rows, stage, mixed, picks, undecided, needed, reach)


def _reach(stage: Stage, nodes: list[Node], largest: float) -> Array:
    """Return by how much each element of a stage is moved at most, rounding included; first, 0."""
    arrays = [node.value for node in [stage.node, *nodes] if node.value.dtype.kind == "f"]
    size = max(max(array.max(initial=0), -array.min(initial=0)) for array in arrays)
    of_rows = largest * abs(stage.inputs).max(axis=1)
    of_rows[of_rows > 0] += DECISION_MARGIN_EPS * np.finfo(np.float64).eps * size
    return np.concatenate([np.zeros(1), of_rows[stage.rows - 1].reshape(-1)])


def _assembled(
    rows: RowLosses,
    stage: Stage,
    mixed: list[Node],
    picks: Mapping[Node, Picks],
    undecided: Mapping[Node, Places],
    needed: Mapping[Node, Places],
    reach: Array,
) -> tuple[RowLosses, Stage] | None:
    """Return the losses by operations on what is picked; None if they are not the same."""
    replay, root = rows.replay, stage.node
    is_kept = np.zeros(root.value.size + 1, bool)
    for end in undecided:
        is_kept[np.where(picks[end].sure, picks[end].source, 0)] = True
    is_kept[needed.get(root, np.zeros(0, np.intp)) + 1] = True
    is_kept &= reach > 0
    is_kept[np.argmax(stage.unit_ids) + 1] = True  # of the last unit: all of them are counted
    number = np.where(is_kept, np.cumsum(is_kept), 0)
    kept = np.flatnonzero(is_kept) - 1
    few = Node(None, (), {}, np.zeros(len(kept)), True)  # by how much each is moved
    before: list[Node] = []

    def add(function: Callable[..., Any], *arguments: Any) -> Node:
        node = Node(function, arguments, {}, None, True)
        node.value = np.asarray(node.compute(replaced(arguments, value_of)))
        before.append(node)
        return node

    anew = _computed_anew(root, few, number, needed, [n for n in replay.nodes if n in needed], add)
    new: dict[Node, Node] = {}
    for end, places in undecided.items():
        source = np.where(picks[end].sure, number[picks[end].source], 0)
        moved = few
        if places.size:
            recorded = end.value.reshape(-1)[places]
            moved = add(np.concatenate, [few, add(np.subtract, anew[end], recorded)])
            np.put(source, places, len(kept) + 1 + np.arange(len(places)))  # in any layout
        new[end] = add(np.add, add(operations.gathered, moved, source), end.value)
    if not _are_same(root, replay, few, before, new, kept, reach):
        return None
    unit_ids = propagate(before, few, stage.unit_ids.reshape(-1)[kept])
    unit_ids.update((node, replay.unit_ids[end]) for end, node in new.items())
    functions = {}
    for node in mixed:
        arguments = replaced(node.arguments, lambda leaf: _renamed(leaf, new))
        new[node] = Node(node.function, arguments, node.keywords, node.value, True)
        functions[new[node]] = replay.functions[node]
    nodes = [few, *before, *(new[node] for node in mixed)]
    target = new[replay.target]
    shorter = Replay(nodes, few, unit_ids[few], target, unit_ids, functions)
    return (
        RowLosses(shorter, rows.row_of_element, rows.count),
        Stage(few, stage.inputs, stage.where, unit_ids[few], stage.rows.reshape(-1)[kept]),
    )


def _renamed(leaf: Any, new: Mapping[Node, Node]) -> Any:
    """Return what stands for a leaf."""
    return new.get(leaf, leaf) if type(leaf) is Node else leaf


def _are_same(
    root: Node,
    replay: Replay,
    few: Node,
    before: list[Node],
    new: Mapping[Node, Node],
    kept: Places,
    reach: Array,
) -> bool:
    """Say whether both recordings give the same where all of the stage is moved at random."""
    shifts = np.random.default_rng(0).integers(-1, 2, root.value.size, np.int8) * reach[1:]
    moved = root.value + shifts.reshape(root.shape)
    separate = {n: replay.functions[n] for n in replay.nodes if n in replay.unit_ids}
    expected = _replayed(separate, {root: Stack(moved[np.newaxis])})
    given = _replayed({n: batched(n) for n in before}, {few: Stack(shifts[np.newaxis, kept])})
    return all(
        abs(expected[end].values - given[node].values).max(initial=0)
        <= REPLAY_TOLERANCE * abs(end.value).max(initial=0)
        for end, node in new.items()
    )


def _replayed(functions: dict[Node, Batched], stacks: dict[Node, Stack]) -> dict[Node, Stack]:
    """Return what nodes compute from one other version of some."""
    for node, function in functions.items():
        versions = replaced(
            node.arguments,
            lambda leaf: stacks.get(leaf, leaf.value) if type(leaf) is Node else leaf,
        )
        stacks[node] = Stack(function(versions, 1))
    return stacks


# Which element is picked --------------------------------------------------------------------------


COMPARISONS = frozenset(
    {"greater", "greater_equal", "less", "less_equal", "equal", "not_equal", "logical_not"}
    | {"logical_and", "logical_or", "invert", "bitwise_and", "bitwise_or"}
)
"""Functions that decide."""

CHOICES = frozenset({"maximum", "minimum", "fmax", "fmin", "where", "multiply"})
"""Functions that pick one of two elements; to multiply by a truth picks it or zero."""

SUMS = frozenset({"add", "subtract", "positive"})
"""Functions that add what does not move."""


def _may_pick(node: Node) -> bool:
    """Say whether an operation picks, as far as its function and arguments tell."""
    kind, name = node.kind, name_of(node)
    if kind == operations.MOVE:
        return len(leaves(node.arguments[0])) == 1
    if kind == operations.REDUCTION:
        return name in EXTREMA and node.value.dtype == np.float64 and len(node.inputs()) == 1
    if kind != operations.ELEMENTWISE or node.keywords:
        return False
    dtypes = [np.asarray(value_of(argument)).dtype.kind for argument in node.arguments]
    if name == "where":
        return len(dtypes) == 3 and dtypes[0] == "b"
    if name == "multiply":
        return dtypes.count("b") == 1
    if name == "subtract":
        return type(node.arguments[1]) is not Node
    if name == "add":
        return sum(type(argument) is Node for argument in node.arguments) == 1
    return name in COMPARISONS | CHOICES | SUMS


def is_view(node: Node) -> bool:
    """Say whether an operation's result is, or may be, its argument in another shape."""
    return node.function in operations.VIEWS or node.function is np.copy


def _follow(root: Node, nodes: list[Node], reach: Array) -> dict[Node, Picks]:
    """Return the picks of all nodes."""
    numbers = np.arange(1, root.value.size + 1).reshape(root.shape)
    picks = {root: Picks(root.value, numbers, np.ones(root.shape, bool))}
    for node in nodes:
        match node.kind:
            case operations.MOVE:
                source, sure = (_moved(node, picks, name) for name in ("source", "sure"))
                picks[node] = Picks(node.value, source, sure)
            case operations.REDUCTION:
                picks[node] = _of_extremum(node, picks[node.arguments[0]], reach)
            case _:
                picks[node] = _of_elementwise(node, picks, reach)
    return picks


def _moved(node: Node, picks: Mapping[Node, Picks], name: str) -> Any:
    """Return sources of what is moved, or whether they are sure."""
    (source,) = leaves(node.arguments[0])
    array = getattr(picks[source], name)
    if is_view(node):
        return node.compute((array, *node.arguments[1:]))
    new = np.array([name == "sure"], array.dtype)  # a zero moves with nothing, for sure
    return np.concatenate([new, array.reshape(-1)])[node.sources]


def _of_extremum(node: Node, array: Picks, reach: Array) -> Picks:
    """Return the picks of a maximum, or minimum, along axes."""
    axes = reduced_axes(node)
    kept = [axis for axis in range(array.value.ndim) if axis not in axes]

    def lines(values: Array) -> Array:
        shape = [values.shape[axis] for axis in kept]
        return np.ascontiguousarray(values.transpose(*axes, *kept).reshape(-1, *shape))

    value, source, sure = lines(array.value), lines(array.source), lines(array.sure)
    reached = reach[source]
    best = node.value.reshape(value.shape[1:])
    is_best = value == best
    which = is_best.argmax(axis=0)[np.newaxis]
    of_best, reach_of_best = (np.take_along_axis(a, which, 0) for a in (source, reached))
    decided = abs(best - value) >= reached + reach_of_best
    decided |= source == of_best
    sure = (sure & decided).all(axis=0) & is_best.any(axis=0)
    return Picks(node.value, of_best.reshape(node.shape), sure.reshape(node.shape))


def _of_elementwise(node: Node, picks: Mapping[Node, Picks], reach: Array) -> Picks:
    """Return the picks of a comparison, a choice or a sum."""
    name = name_of(node)
    arguments = [_aligned(argument, node.shape, picks) for argument in node.arguments]
    if name in SUMS:
        (moved,) = node.inputs()
        only = _aligned(moved, node.shape, picks)
        return Picks(node.value, only.source, only.sure)
    sure = np.logical_and.reduce([argument.sure for argument in arguments])
    if name in COMPARISONS:
        if len(arguments) == 2:
            sure = sure & _decided(arguments[0], arguments[1], reach)
        return Picks(node.value, np.zeros(node.shape, np.intp), sure)
    if name == "where":
        mask, first, second = arguments
        decided: Any = mask.sure
        is_first = mask.value
    elif name == "multiply":
        mask, first = sorted(arguments, key=lambda argument: argument.value.dtype.kind != "b")
        second = _aligned(0.0, node.shape, {})
        decided, is_first = mask.sure, mask.value
    else:
        first, second = arguments
        decided = _decided(first, second, reach) & sure
        is_first = node.value == first.value
    return Picks(
        node.value,
        np.where(is_first, first.source, second.source),
        decided & np.where(is_first, first.sure, second.sure),
    )


def _aligned(argument: Any, shape: tuple[int, ...], picks: Mapping[Node, Picks]) -> Picks:
    """Return an argument's picks, broadcast to a shape."""
    if type(argument) is Node and argument in picks:
        own = picks[argument]
        if own.value.shape == shape:
            return own
        return Picks(*(np.broadcast_to(a, shape) for a in (own.value, own.source, own.sure)))
    value = np.broadcast_to(value_of(argument), shape)
    none, sure = np.zeros((), np.intp), np.ones((), bool)
    return Picks(value, np.broadcast_to(none, shape), np.broadcast_to(sure, shape))


def _decided(a: Picks, b: Picks, reach: Array) -> NDArray[np.bool_]:
    """Say where ``a - b`` keeps its sign."""
    both = sum(reach[each.source] for each in (a, b) if any(each.source.strides))
    return np.asarray(abs(np.subtract(a.value, b.value, dtype=np.float64)) >= both)


# Undecided elements, computed anew ----------------------------------------------------------------


def _needed(nodes: list[Node], undecided: Mapping[Node, Places]) -> dict[Node, Places]:
    """Return which elements of all arrays undecided ones are computed from: places, rising."""
    is_needed: dict[Node, NDArray[np.bool_]] = {}
    needed: dict[Node, Places] = {}

    def note(node: Node, places: Places) -> None:
        mask = is_needed.setdefault(node, np.zeros(node.value.size, bool))
        mask[places[places >= 0]] = True

    for node in reversed(nodes):
        if undecided.get(node, np.zeros(0)).size:
            note(node, undecided[node])
        if node in is_needed:
            needed[node] = np.flatnonzero(is_needed.pop(node))
            for leaf, places in _read(node, needed[node]):
                note(leaf, places)
    return needed | {root: np.flatnonzero(mask) for root, mask in is_needed.items()}


def _read(node: Node, places: Places) -> list[tuple[Node, Places]]:
    """Return which elements of its arguments some elements of a node are computed from.

    They are counted from 0; -1 stands for a zero. Of a reduction, those along the second axis.
    """
    index = np.unravel_index(places, node.shape)
    if node.kind == operations.MOVE:
        return [(node.inputs()[0], node.sources[index] - 1)]
    if node.kind == operations.REDUCTION:
        (leaf,) = node.inputs()
        axes = reduced_axes(node)
        numbers = np.arange(leaf.value.size).reshape(leaf.shape)
        along = numbers[tuple(slice(None) if axis in axes else 0 for axis in range(numbers.ndim))]
        kept = [axis for axis in range(numbers.ndim) if axis not in axes]
        index = np.unravel_index(places, [numbers.shape[axis] for axis in kept])
        first: Any = np.zeros(1, np.intp)
        if kept:
            whole = dict(zip(kept, index, strict=True))
            first = numbers[tuple(whole.get(axis, 0) for axis in range(numbers.ndim))]
        return [(leaf, np.reshape(first, (-1, 1)) + along.reshape(-1))]
    result = []
    for leaf in node.inputs():
        own = index[len(index) - len(leaf.shape) :]
        at = [k if n > 1 else 0 * k for k, n in zip(own, leaf.shape, strict=True)]
        result.append((leaf, np.ravel_multi_index(at, leaf.shape)))
    return result


def _computed_anew(
    root: Node,
    few: Node,
    number: Places,
    needed: Mapping[Node, Places],
    nodes: list[Node],
    add: Callable[..., Node],
) -> dict[Node, Node]:
    """Add the operations on needed elements alone; return what they give, of one axis."""
    anew: dict[Node, Node] = {}
    if root in needed:
        moved = add(operations.gathered, few, number[needed[root] + 1])  # the others stand still
        anew[root] = add(np.add, moved, root.value.reshape(-1)[needed[root]])
    for node in nodes:
        if node is root:
            continue
        read = iter(_read(node, needed[node]))

        def elements(argument: Any) -> Any:
            if type(argument) is not Node:
                value = np.broadcast_to(argument, node.shape)  # noqa: B023  # called at once
                return value.reshape(-1)[needed[node]]  # noqa: B023
            leaf, places = next(read)  # noqa: B023
            at = np.searchsorted(needed[leaf], places) + 1
            if np.array_equal(at, np.arange(1, anew[leaf].value.size + 1)) and places.min() >= 0:
                return anew[leaf]
            return add(operations.gathered, anew[leaf], np.where(places < 0, 0, at))

        if node.kind == operations.MOVE:
            anew[node] = elements(node.inputs()[0])
        elif node.kind == operations.REDUCTION:
            anew[node] = add(node.function, elements(node.arguments[0]), 1)
        else:
            anew[node] = add(node.function, *[elements(argument) for argument in node.arguments])
    return anew
