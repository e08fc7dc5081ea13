"""Strategies for each term of a recorded loss: units' responses, weights, or elements.

A term that depends on x through one affine stage is differenced by moving the stage's units: at a
few shifts if its rows are independent, otherwise as every single weight moves them. Any other term
is differenced by moving the elements of x themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from fastgrad.lazy import lazy
from fastgrad.tracing import operations
from fastgrad.tracing.affine import (
    Stage,
    Term,
    UnitIds,
    find_stage,
    ids_of_result,
    inputs_of_product,
)
from fastgrad.tracing.batched import batched
from fastgrad.tracing.operations import Node, factors, leaves, product_spec
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.replay import REPLAY_TOLERANCE, SECONDS_PER_ELEMENT, Replay
from fastgrad.tracing.row_losses import RowLosses, difference, rows_of_elements
from fastgrad.tracing.smoothness import cancelling_shifts, name_of
from fastgrad.tracing.trace import Trace
from fastgrad.tracing.unit_responses import (
    Changes,
    Weights,
    by_elements,
    by_responses,
    by_weights,
    shifts_of_responses,
)
from fastgrad.typing import Array


@dataclass(frozen=True, eq=False)
class TermStrategy:
    """A term of the loss, and how it is differenced.

    Attributes
    ----------
    term : Term
    replay : Replay
        From what is moved, the stage or x, to the term's array.
    stage : Stage or None
        None if x itself is moved.
    rows : dict of int arrays
        The row of the stage that each element depends on, of arrays in which rows do not mix.
    h : float
        The step.
    x : array (elements of x,)
    weights : pair of floats
        How much is wanted of ``L(x + h) - L(x)``, and of ``L(x - h) - L(x)``.
    limit : float
        The seconds that it may take.
    has_bias : bool
        Whether what is added to the stage is moved, too.
    """

    term: Term
    replay: Replay
    stage: Stage | None
    rows: Mapping[Node, UnitIds]
    h: float
    x: Array
    weights: Weights
    limit: float
    has_bias: bool = False

    @property
    def moves(self) -> int:
        """The number of times that each unit is moved."""
        if self.stage is None:
            return 2
        if self.term.node not in self.rows:
            return 2 * len(self.stage.used_inputs)
        return 2 * shifts_of_responses(self.stage)

    @property
    def seconds(self) -> float:
        """About how long it takes."""
        return SECONDS_PER_ELEMENT * self.moves * self.replay.cost

    def add_to(self, changes: Array, straight: Array, uneven: Array, bends: Array) -> bool:
        """Add the term's weighted changes to those of all terms; say whether straight is known.

        Parameters
        ----------
        changes : array (elements of x,)
            All of them are added to it.
        straight : array (elements of x,)
            What is in proportion to the moves is added to it. If that was not measured, but up and
            down have opposite weights, all of it may be, and is counted as that.
        uneven : array (elements of x,)
            If that was not measured: the sizes of what moves up and down add up to.
        bends : array (elements of x,)
            What they add up to; nan is added to it where that is not known.
        """
        if self.term.scale == 0:  # a penalty that is switched off
            return True
        term_changes = self._changes()
        wanted, of_slopes = term_changes.wanted, term_changes.straight
        is_known = of_slopes is not None
        pairs = (changes, wanted), (straight, of_slopes if is_known else wanted)
        where: Any = slice(wanted.size)
        if self.stage is not None and not self.stage.is_in_order:
            where = self.stage.where.reshape(-1)
        for total, part in (*pairs, (uneven, term_changes.uneven), (bends, term_changes.bends)):
            if part is not None:
                total[where] += part.reshape(-1)
        if term_changes.bends is None:
            bends[where] = np.nan
        return is_known

    def _changes(self) -> Changes:
        """Return by how much the moves change the term, in the way that was chosen."""
        scale = self.term.scale
        weights = scale * self.weights[0], scale * self.weights[1]
        if self.stage is None:
            return by_elements(self._as_one_row(), self.h, weights)
        row_of_element = self.rows.get(self.term.node)
        if row_of_element is not None:
            rows = RowLosses(self.replay, row_of_element, len(self.stage.inputs), self.rows)
            changes = by_responses(rows, self.stage, self.x, self.h, weights)
            if changes is not None:
                return changes
        seconds = SECONDS_PER_ELEMENT * 2 * len(self.stage.used_inputs) * self.replay.cost
        if seconds > self.limit:
            raise NotTraceable("it is not smooth enough for few shifts, and costly to replay")
        return by_weights(self._as_one_row(), self.stage, self.x, self.h, weights)

    def _as_one_row(self) -> RowLosses:
        """Return the term as one row."""
        one = np.ones(self.term.node.shape, np.intp)
        return RowLosses(self.replay.without_holding(), one, 1)

    def describe(self) -> str:
        """Describe in words what is moved, and how often."""
        mixed = self.replay.mixed_operations
        tail = (
            f"{_counted(len(self.replay.nodes), 'operation')} of f replayed, {mixed} for each unit"
        )
        units = len(self.replay.units)
        if self.stage is None:
            used = len(self.replay.used_units)
            return f"- {_counted(used, 'element')} of x moved up and down; {tail}."
        function = getattr(self.stage.node.function, "__name__", "an operation")
        samples, inputs = self.stage.inputs.shape
        rows = "do not mix" if self.term.node in self.rows else "mix"
        sums = f"a sum of {inputs:,} inputs times elements of x"
        return (
            f"- x enters by {function}: {_counted(units, 'unit')}, each "
            f"{sums if inputs > 1 else 'with one element of x'},\n"
            f"  for {_counted(samples, 'row')} of data, which {rows} later on. "
            f"Each unit is moved {self.moves:,} times;\n  {tail}."
        )


def duration(seconds: float) -> str:
    """Return a time in the unit in which people say it: "0.0025 s", "12 min", "4.5 h"."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.2g} {unit}"
    return f"{seconds:.2g} s"


def _counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def choose_strategies(
    trace: Trace,
    h: float,
    limit: float,
    weights: Weights = (1.0, -1.0),
    biases: Mapping[Node, Array] = MappingProxyType({}),
) -> list[TermStrategy]:
    """Choose how each term is differenced.

    Parameters
    ----------
    trace : Trace
    h : float
        The step.
    limit : float
        The seconds that all may take: those of the loop.
    weights : pair of floats
        Which changes are wanted, as in `TermStrategy`.
    biases : dict of arrays (units,)
        Of products, what is added to them: as if these elements came after those of x.

    Raises
    ------
    NotTraceable
        If they would take longer.
    """
    signature = signature_of(trace.nodes)
    strategies = []
    for term in trace.terms:
        stage, replay, rows = _analyzed(trace.nodes, signature, term.node)
        x = trace.nodes[0].value.reshape(-1)
        wider = None
        # What moves with each weight's own shift gains nothing by it; and a bias moves what inputs
        # of 0 leave as it is, as a blank part of a picture does: more than is to be moved then.
        if stage is not None and stage.node in biases and term.node in rows:
            wider = stage.with_bias(x.size)
            x = np.concatenate([x, biases[stage.node]])
        strategies.append(
            TermStrategy(
                term,
                replay,
                wider or stage,
                rows,
                h,
                x,
                weights,
                limit,
                has_bias=wider is not None,
            )
        )
    seconds = sum(strategy.seconds for strategy in strategies)
    if seconds > limit:
        raise NotTraceable(
            f"replaying would take about {seconds:.2g} s, and the loop about {limit:.2g} s"
        )
    return strategies


def _require_same(replay: Replay) -> None:
    """Refuse a replay that does not give what was recorded, where nothing is moved."""
    recorded = replay.target.value
    error = abs(difference(replay.all_versions(replay.root.value[np.newaxis])[0], recorded))
    if not error.max(initial=0) <= REPLAY_TOLERANCE * abs(recorded).max(initial=0):
        raise NotTraceable("a replay does not give what it computed")


# Structures, which recordings have in common --------------------------------------------------


MAX_STRUCTURES = 64
"""How many structures are kept, those that were used last."""

MAX_STRUCTURE_BYTES, MAX_KEPT_BYTES = 2**24, 2**26
"""The bytes of the largest structure that is kept, and of all of them."""

MAX_NODES = 1_000
"""The operations of the longest recording whose structure is kept."""

Analysis = tuple[Stage | None, Replay, Mapping[Node, UnitIds]]
"""A term's stage, if it has one; its replay; the rows of elements where they do not mix."""


def _analyzed(nodes: list[Node], signature: Any, target: Node) -> Analysis:
    """Return what the operations of a term tell: as they told of another recording, if they did.

    In a loop that trains, each step records the same operations on other values.
    """
    key = signature, nodes.index(target)
    structure = _structures.pop(key, None)
    known = structure.read(nodes, target) if structure is not None else None
    if structure is not None and known is not None:
        _structures[key] = structure  # the last one now
        return known
    stage = find_stage(nodes, target)
    if stage is None:
        unit_ids = np.arange(1, nodes[0].value.size + 1).reshape(nodes[0].shape)
        replay, rows = Replay(nodes, nodes[0], unit_ids, target), {}
    else:
        replay = Replay(nodes, stage.node, stage.unit_ids, target)
        rows = rows_of_elements(replay, stage)
        held = cancelling_shifts(replay) if target in rows else None
        if held:
            replay = Replay(nodes, stage.node, stage.unit_ids, target, held=held)
    _require_same(replay)
    if signature is not None and (stage is None or target in rows):
        assert replay.cost >= 0 <= replay.largest  # told once for all
        structure = Structure.of(nodes, stage, replay, rows)
        if structure.nbytes <= MAX_STRUCTURE_BYTES:
            _structures[key] = structure
        for oldest in [*_structures]:
            kept = [*_structures.values()]
            if len(kept) <= MAX_STRUCTURES and sum(s.nbytes for s in kept) <= MAX_KEPT_BYTES:
                break
            _structures.pop(oldest, None)
    return stage, replay, rows


@dataclass(frozen=True, eq=False)
class Structure:
    """What the operations of a recording tell of a term, whatever values they compute with.

    It holds no array of the user's, nor values of one: numbers of elements, units and rows.

    Attributes
    ----------
    nodes : list of Node
        They stand for those of a recording, and have no values.
    stage : Stage or None
        The affine stage, without inputs unless it is a sum: then all are 1, or -1.
    replay : Replay
    rows : dict of int arrays
        For each node that does not mix them.
    varying : list of int
        The places of nodes that move elements to where arrays say, which may hold other numbers in
        another recording: the labels of a batch, say.
    """

    nodes: list[Node]
    stage: Stage | None
    replay: Replay
    rows: Mapping[Node, UnitIds]
    varying: list[int]

    @classmethod
    def of(
        cls, nodes: list[Node], stage: Stage | None, replay: Replay, rows: Mapping[Node, UnitIds]
    ) -> "Structure":
        """Return the structure of a recording that has been analyzed."""
        same = {node: Node(None, (), {}, None, True) for node in nodes}
        if stage is not None:
            inputs = np.zeros(0) if stage.node.kind == operations.PRODUCT else stage.inputs
            stage = stage.of(same[stage.node], inputs)
        return cls(
            [*same.values()],
            stage,
            replay.of(same),
            {same[node]: ids for node, ids in rows.items()},
            [k for k, node in enumerate(nodes) if node in replay.nodes and _varies(node)],
        )

    @lazy
    def nbytes(self) -> int:
        """How much memory it takes, but for the places that elements are moved to."""
        of_stage = [s.where, s.unit_ids, s.rows] if (s := self.stage) is not None else []
        arrays = *of_stage, *self.replay.unit_ids.values(), *self.rows.values()
        return sum({id(array): array.nbytes for array in arrays}.values())

    def read(self, nodes: list[Node], target: Node) -> Analysis | None:
        """Return what it tells of a recording of this signature; None if other elements move."""
        same = dict(zip(self.nodes, nodes, strict=True))
        replay = self.replay.of(same)
        rows = {same[node]: ids for node, ids in self.rows.items()}
        for node in (nodes[k] for k in self.varying):
            replay.functions[node] = batched(node)
            for known in (rows, replay.unit_ids):
                if node in known:
                    ids = ids_of_result(node, known)
                    if ids is None or not (
                        np.array_equal(ids, known[node])
                        or (known is not rows and replay.takes_ids(node, ids))
                    ):
                        return None
        stage = self.stage
        if stage is not None:
            is_product = replay.root.kind == operations.PRODUCT
            inputs = inputs_of_product(replay.root) if is_product else stage.inputs
            stage = stage.of(replay.root, inputs)
        return stage, replay, rows


_structures: dict[Any, Structure] = {}
"""By signatures, and which node is the term's. Those used last come last."""


class _NotComparable(Exception):
    """An argument is none of those that are compared."""


def signature_of(nodes: list[Node]) -> Any:
    """Return what two recordings have in common if all that `Structure` holds is the same for both.

    These are the operations, the shapes and dtypes of what they compute with and of what they
    compute, and all other arguments; but neither the values of arrays nor the numbers that
    elementwise operations compute with. None if a recording is not to be compared.
    """
    if len(nodes) > MAX_NODES:
        return None
    number = {node: k for k, node in enumerate(nodes)}
    views = {nodes[0]}
    result: list[Any] = [(nodes[0].shape, nodes[0].value.dtype)]
    try:
        for node in nodes[1:]:
            if node.kind == operations.MOVE and not views.isdisjoint(node.inputs()):
                if _varies(node):  # parts of x, which stand for other elements each time
                    return None
                views.add(node)
            result.append(_comparable(node, number))
    except _NotComparable:
        return None
    return tuple(result)


def _varies(node: Node) -> bool:
    """Say whether a node moves elements to where arrays say."""
    return node.kind == operations.MOVE and any(
        type(leaf) is np.ndarray for leaf in leaves(node.arguments[1:])
    )


def _comparable(node: Node, number: Mapping[Node, int]) -> Any:
    """Return an operation in a form that can be compared."""
    if not name_of(node):  # of the user's own, or one that nothing is known of
        raise _NotComparable
    kind = node.kind
    if kind == operations.REDUCTION:
        values, how = node.arguments[:1], node.arguments[1:]
    elif kind == operations.PRODUCT and product_spec(node) is not None:
        values = factors(node)
        how = tuple(a for a in node.arguments if not any(a is factor for factor in values))
    else:
        values, how = node.arguments, ()
    return (
        node.function,
        node.shape,
        node.value.dtype,
        _frozen(values, number, is_number=kind == operations.ELEMENTWISE),
        _frozen(how, None),
        tuple((name, _frozen(value, None)) for name, value in node.keywords.items()),
    )


def _frozen(tree: Any, number: Mapping[Node, int] | None, *, is_number: bool = False) -> Any:
    """Return arguments in a form that can be compared; arrays, where they may be, without values.

    Parameters
    ----------
    tree : nested tuples and lists
    number : dict, optional
        The numbers of nodes. Without it, neither they nor arrays may be among the leaves.
    is_number : bool
        Whether numbers are compared by their types alone.
    """
    kind: Any = type(tree)
    if kind in (tuple, list):
        return kind, *(_frozen(branch, number, is_number=is_number) for branch in tree)
    if number is not None and kind is Node:
        return number[tree]
    if number is not None and kind is np.ndarray:
        return tree.shape, tree.dtype
    if kind is slice:
        return kind, _frozen((tree.start, tree.stop, tree.step), None)
    if issubclass(kind, (bool, int, float, complex, np.generic)):
        return kind if is_number else (kind, repr(tree))
    if kind in (str, type(None), type(...)) or isinstance(tree, np.dtype):
        return kind, repr(tree)
    raise _NotComparable
