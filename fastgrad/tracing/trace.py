"""What happens in one call of a function? It is recorded, and made sure that nothing escaped."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing import operations
from fastgrad.tracing.creation import created_arrays, one_at_a_time
from fastgrad.tracing.nodes import Node, replaced, value_of, without_repeats
from fastgrad.tracing.plan import Term, split_into_terms
from fastgrad.tracing.recorder import (
    CONVERTED,
    NotTraceable,
    Recorded,
    Recording,
    TooCheap,
    record,
)
from fastgrad.tracing.references import Place, Reference, exchanged, find_references

Array = NDArray[np.float64]


CALLS = 5
"""How often f is called to be recorded and, in the end, checked."""


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded call of a function.

    Attributes
    ----------
    nodes : list of Node
        The operations that depend on x, in order; the first stands for x itself.
    terms : list of Term
        What the result is the sum of, constants apart.
    value : float
        The result.
    seconds : float
        How long one call takes.
    """

    nodes: list[Node]
    terms: list[Term]
    value: float
    seconds: float

    @property
    def magnitude(self) -> float:
        """The sum of the magnitudes of all that is added up to the result, and the result's."""
        terms = (abs(term.scale) * abs(term.node.value).sum() for term in self.terms)
        return abs(self.value) + float(sum(terms))


def trace_call(
    f: Callable[[Array], Any],
    x: Array,
    h: float,
    calls: int = 0,
    least_seconds: float | None = None,
) -> Trace:
    """Record one call of f.

    While f is recorded, all elements of x are moved, each by another part of h, and the stand-ins
    hold their old values: had f read x's memory past the stand-ins, its result would be another
    than that of a plain call. A plain call afterwards puts plain arrays where f keeps its own.

    Parameters
    ----------
    f, x, h
        The function, a float64 array, and the step.
    calls : int
        How often the loop would call f.
    least_seconds : float, optional
        If these calls, but for those that tracing makes as well, would take less, nothing is
        recorded.

    Raises
    ------
    NotTraceable
        If f does what cannot be recorded.
    """
    if x.dtype != np.float64 or type(x) is not np.ndarray:
        raise NotTraceable("x is not a plain float64 array")
    saved = x.copy(order="K")
    before, seconds = _call(f, x, saved)
    if least_seconds is not None and (calls - CALLS) * seconds < least_seconds:
        raise TooCheap("calls of it are cheap")
    references = find_references(f)
    try:
        nodes, output = _record_twice(f, x, h, saved, references)
    except NotTraceable:
        _call(f, x, saved)
        raise
    after, again = _call(f, x, saved)
    if before != after:
        raise NotTraceable("two calls of it give different results")
    if before != _number(output.value):
        raise NotTraceable("it reads x, or changes what it computes with, behind the recording")
    for node in nodes[1:]:
        value = node.compute(replaced(node.arguments, value_of))
        same = np.array_equal(value, node.value) or np.array_equal(value, node.value, True)
        if not same:  # nan is the same as nan, but to see that takes longer
            raise NotTraceable("an array that it computes with is changed afterwards")
    nodes, output = without_repeats(nodes, output)
    return Trace(nodes, split_into_terms(output), before, min(seconds, again))


def _record_twice(
    f: Callable[[Array], Any], x: Array, h: float, saved: Array, references: list[Reference]
) -> tuple[list[Node], Node]:
    """Record one call of f; once more, thoroughly, if an array took a recorded value unasked."""
    try:
        return _record(f, x, h, saved, references, thorough=False)
    except NotTraceable as refusal:
        if str(refusal) != CONVERTED:
            raise
        return _record(f, x, h, saved, references, thorough=True)


def _record(
    f: Callable[[Array], Any],
    x: Array,
    h: float,
    saved: Array,
    references: list[Reference],
    *,
    thorough: bool,
) -> tuple[list[Node], Node]:
    """Record one call of f; if thorough, with stand-ins for all other arrays, too.

    A plain array's own methods, as in ``data.dot(x)``, do not ask what they are given.
    """
    recording = Recording()
    random = np.random.default_rng(0)
    moved = random.random(x.shape)
    moved[moved < 0.5] -= 1
    moved *= h
    moved += x
    root = recording.start(saved)
    places: list[Place] = [(partial(x.__setitem__, ...), saved, moved)]
    for reference in references:
        put, array = reference.put, reference.array
        if np.shares_memory(array, x):
            stand_in = _stand_in(root, array, x)
            if stand_in is None or put is None:
                raise NotTraceable("it can reach x's memory where no stand-in can be put")
            places.append((put, array, stand_in))
        elif thorough and put is not None:
            places.append((put, array, recording.constant(array)))
    call = partial(record, lambda: f(root), recording)  # type: ignore[arg-type]  # a stand-in
    if thorough:
        with one_at_a_time:
            output = exchanged(places + created_arrays(recording), call)
    else:
        output = exchanged(places, call)
    return recording.nodes, output


def _call(f: Callable[[Array], Any], x: Array, saved: Array) -> tuple[float, float]:
    """Return a plain call's result and its seconds, and x as it was."""
    start = time.perf_counter()
    try:
        value = f(x)
    except Exception as error:  # the loop, which never calls f at x itself, shall decide
        raise NotTraceable(f"it raises {type(error).__name__} at x itself") from error
    seconds = time.perf_counter() - start
    if not np.array_equal(x, saved):
        x[...] = saved
        raise NotTraceable("it changes x")
    return _number(value), seconds


def _number(value: Any) -> float:
    """Return a result as a finite float."""
    try:
        number = float(np.asarray(value, np.float64).reshape(()))
    except (TypeError, ValueError):
        raise NotTraceable("its result is not a number") from None
    if not np.isfinite(number):
        raise NotTraceable(f"its result is {number}")
    return number


def _stand_in(root: Recorded, view: NDArray[Any], x: Array) -> Recorded | None:
    """Return what stands in for x or a view of it; None for an array that holds more than x."""
    if view is x:
        return root
    if view.dtype != x.dtype:
        return None
    places, mine = _addresses(x).reshape(-1), _addresses(view)
    order = np.argsort(places)
    index = order[np.minimum(np.searchsorted(places, mine, sorter=order), x.size - 1)]
    if not np.array_equal(places[index], mine):
        return None
    result: Recorded = root.recording.apply(operations.item, (np.ravel(root), index), {})
    return result


def _addresses(array: NDArray[Any]) -> NDArray[np.int64]:
    """Return the place of each element in memory."""
    start = array.__array_interface__["data"][0]
    axes = [np.arange(n) * step for n, step in zip(array.shape, array.strides, strict=True)]
    grids = np.meshgrid(*axes, indexing="ij", sparse=True) if axes else []
    return np.asarray(np.broadcast_to(start + sum(grids), array.shape))
