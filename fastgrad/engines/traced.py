"""How is a NumPy network differenced without its loop? Its operations are recorded and replayed."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds
from numpy.typing import NDArray

from fastgrad.engines import loop
from fastgrad.tracing import operations
from fastgrad.tracing.independence import owners
from fastgrad.tracing.plan import Stage, Term, find_stage, split_into_terms
from fastgrad.tracing.recorder import Node, NotTraceable, Recorded, Recording, record
from fastgrad.tracing.references import find_references, replaced_by
from fastgrad.tracing.replay import Replay
from fastgrad.tracing.responses import Rows, by_responses, by_weights

Array = NDArray[np.float64]

CHECKS = 3
"""Elements drawn at random whose quotient is compared with the loop's; the largest is, too."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded call of a function."""

    nodes: list[Node]
    terms: list[Term]
    value: float
    seconds: float


def gradient(f: Callable[[Array], Any], x: Array, h: float) -> Array:
    """Return the central difference quotient of f for every element of x."""
    trace = trace_call(f, x, h)
    result = np.zeros(x.size)
    with np.errstate(all="ignore"):
        for term in trace.terms:
            _add_term(result, trace, term, h)
    gradient = result.reshape(x.shape)
    _spot_check(f, x, h, gradient, trace)
    out = np.zeros_like(x)
    out[...] = gradient
    return out


def _add_term(result: Array, trace: Trace, term: Term, h: float) -> None:
    stage = find_stage(trace.nodes, term.node)
    if stage is None:
        result += term.scale * _by_elements(trace.nodes, term, h)
        return
    replay = Replay(trace.nodes, stage.node, stage.labels, term.node)
    quotients = None
    shift = h * float(abs(stage.inputs).max())
    owner = owners(replay, stage, shift)
    if owner is not None:
        rows = Rows(replay, owner, len(stage.inputs))
        quotients = by_responses(rows, trace.nodes, stage, h)
    if quotients is None:
        whole = Rows(replay, np.ones(term.node.shape, np.intp), 1)
        quotients = by_weights(whole, stage, h)
    result[stage.where] += term.scale * quotients


def _by_elements(nodes: list[Node], term: Term, h: float) -> Array:
    root = nodes[0]
    labels = np.arange(1, root.value.size + 1).reshape(root.shape)
    replay = Replay(nodes, root, labels, term.node)
    rows = Rows(replay, np.ones(term.node.shape, np.intp), 1)
    change = rows.changes(np.stack([root.value + h, root.value - h]))
    return (change[:, 0, 0] - change[:, 1, 0]) / (2 * h)


def trace_call(f: Callable[[Array], Any], x: Array, h: float) -> Trace:
    """Record one call of f, and make sure that nothing escaped."""
    if x.dtype != np.float64 or type(x) is not np.ndarray:
        raise NotTraceable("only plain float64 arrays are traced")
    start = time.perf_counter()
    before = _number(f(x))
    seconds = time.perf_counter() - start
    saved = x.copy(order="K")
    recording = Recording()
    root = recording.start(saved)
    references = find_references(f, x)
    pairs = [(r, _stand_in(root, r.array, x)) for r in references]
    pairs = [(r, s) for r, s in pairs if s is not None]
    random = np.random.default_rng(0)
    moved = x + h * random.uniform(0.5, 1, x.shape) * random.choice([-1, 1], x.shape)
    try:
        x[...] = moved
        with replaced_by([r for r, _ in pairs], [s for _, s in pairs]):
            output = record(lambda: f(root), recording)
    finally:
        x[...] = saved
    if not _number(f(x)) == before == _number(output.value):
        raise NotTraceable("two calls of it give different results")
    for node in recording.nodes[1:]:
        again = node.compute(_values(node.arguments))
        if not np.array_equal(again, node.value, equal_nan=True):
            raise NotTraceable("an array that it computes with is changed afterwards")
    return Trace(recording.nodes, split_into_terms(output), before, seconds)


def _values(tree: Any) -> Any:
    from fastgrad.tracing.recorder import replaced

    return replaced(tree, lambda leaf: leaf.value if type(leaf) is Node else leaf)


def _number(value: Any) -> float:
    if np.size(value) != 1:
        raise NotTraceable("its result is not a number")
    return float(np.asarray(value).reshape(()))


def _stand_in(root: Recorded, view: NDArray[Any], x: Array) -> Any:
    """Return what stands in for x or a view of it; None for an array that holds more."""
    if view is x:
        return root
    if view.dtype != x.dtype:
        return None
    places, mine = _addresses(x).reshape(-1), _addresses(view)
    order = np.argsort(places)
    found = np.minimum(np.searchsorted(places, mine, sorter=order), x.size - 1)
    index = order[found]
    if not np.array_equal(places[index], mine):
        return None
    return root.recording.apply(operations.item, (np.ravel(root), index), {})


def _addresses(array: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of each element in memory."""
    start = array.__array_interface__["data"][0]
    steps = zip(array.shape, array.strides, strict=True)
    grids = np.meshgrid(*(np.arange(n) * stride for n, stride in steps), indexing="ij", sparse=True)
    return np.broadcast_to(start + sum(grids), array.shape)


def _spot_check(f: Any, x: Array, h: float, quotients: Array, trace: Trace) -> None:
    random = np.random.default_rng()
    flat = quotients.reshape(-1)
    places = {int(np.argmax(abs(flat))), *random.integers(x.size, size=CHECKS).tolist()}
    sizes = sum(abs(term.scale) * abs(term.node.value).sum() for term in trace.terms)
    tolerance = 32 * np.finfo(float).eps * float(sizes) / h + 1e-6 * abs(flat).max()
    looped = loop.gradient(f, x, h, places).reshape(-1)
    for place in places:
        expected = looped[place]
        if not abs(flat[place] - expected) <= tolerance:
            raise NotTraceable(
                f"a check at element {place} gives {expected:.6g} instead of {flat[place]:.6g}"
            )
