"""The record of one call of a function: all its operations, checked, and nothing else changed."""

import gc
import operator
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import compress
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.tracing import operations
from fastgrad.tracing.affine import Term, split_into_terms
from fastgrad.tracing.first_calls import FirstCalls, share
from fastgrad.tracing.namespace import BUILTINS, REPLACED, stand_ins, with_stand_ins
from fastgrad.tracing.operations import Node, merge_moves, picks_first, without_repeats
from fastgrad.tracing.recorder import UNUSED, NotTraceable, Recording, places_in, record
from fastgrad.tracing.references import (
    MAX_TUPLE_DEPTH,
    Assign,
    Reference,
    Slot,
    Surroundings,
    attributes_of,
    exhaust,
    is_a,
    look_around,
    replace_leftovers,
    temporarily_replaced,
)
from fastgrad.tracing.stand_in import Recorded
from fastgrad.typing import Doubles

MAX_RECORDING_SHARE = 0.07
"""The part of the loop's time that a recording may take."""

MIN_RECORDING_SECONDS = 0.03
"""The seconds that a recording may always take."""

SECONDS_PER_OPERATION = 6e-5
"""About what noting and planning an operation takes."""

MIN_OPERATIONS = 120
"""How many operations may always be noted."""

MAX_SECONDS = 10.0
"""How long to wait for another thread's recording; and how long a recording may take, besides the
loop's time, where tracing has been asked for."""


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
    others : tuple of Trace or None
        The same call, with what depends on other arrays; None of an array that f does not use.
    biases : dict
        Of products to which, before all else, another array is added: the number of that array
        among all that are moved.
    """

    nodes: list[Node]
    terms: list[Term]
    value: float
    seconds: float
    others: "tuple[Trace | None, ...]" = ()
    biases: Mapping[Node, int] = field(default_factory=dict)

    @property
    def magnitude(self) -> float:
        """The sum of the magnitudes of all that is added up to the result, and the result's."""
        terms = (abs(term.scale) * abs(term.node.value).sum() for term in self.terms)
        return abs(self.value) + float(sum(terms))

    @property
    def own_magnitude(self) -> float:
        """The root of the sum of the squares of all that is added up to the result."""
        terms = [abs(term.scale) * np.linalg.norm(np.ravel(term.node.value)) for term in self.terms]
        return float(np.linalg.norm(terms))


def trace_call(
    f: Callable[[Doubles], Any],
    x: Doubles,
    h: float,
    calls: int = 0,
    first: FirstCalls | None = None,
    *,
    is_limited: bool = False,
    others: Sequence[Doubles] = (),
) -> Trace:
    """Record one call of f.

    While f is recorded, all elements of x are moved, each by another part of h, and the stand-ins
    hold their old values: had f read x's memory past the stand-ins, its result would be another
    than that of a plain call. Afterwards all that f can reach is as it was before.

    Parameters
    ----------
    f, x, h
        The function, a float64 array, and the step.
    calls : int
        How often the loop would call f.
    first : FirstCalls, optional
        The first calls of f, if they have been made.
    is_limited : bool
        Whether recording is given no more than a small part of the time of the loop's calls.
    others : sequence of float64 arrays
        Further arrays that f can reach, apart from each other in memory, which are moved, too. If
        f cannot be recorded so, x is moved alone, and there are no others.

    Raises
    ------
    NotTraceable
        If f does what cannot be recorded.
    """
    first = FirstCalls(f, x) if first is None else first
    _require_no_refusal(first)
    value, seconds = first.values[0], first.seconds
    if np.isnan(x).any():
        raise NotTraceable("x has elements that are nan")
    part = MAX_RECORDING_SHARE * calls * seconds
    limits = max(MIN_RECORDING_SECONDS, part), max(MIN_OPERATIONS, part / SECONDS_PER_OPERATION)
    if not is_limited:
        limits = MAX_SECONDS + calls * seconds, inf
    if others:
        traces = _record_together(f, [x, *others], h, limits, first)
        if traces and traces[0] is not None:
            return replace(traces[0], others=tuple(traces[1:]))
    nodes, output = _record_or_raise(f, x, h, limits, first)
    if value != _number(output.value):
        first.make(1)
        _require_no_refusal(first)
        raise NotTraceable("it reads x, or changes what it computes with, behind the recording")
    nodes, output = without_repeats(nodes, output)
    nodes = picks_first(nodes)
    merge_moves(nodes)
    return Trace(nodes, split_into_terms(output), value, seconds)


def _record_together(
    f: Callable[[Doubles], Any],
    arrays: list[Doubles],
    h: float,
    limits: tuple[float, float],
    first: FirstCalls,
) -> list[Trace | None]:
    """Return a trace for each array, of one call that is recorded; none if it cannot be."""
    result = _record_as_needed(f, arrays, h, limits)
    if isinstance(result, Refusal) or np.ravel(result[1].value)[0] != first.values[0]:
        return []
    nodes, output = without_repeats(*result)
    roots = nodes[: len(arrays)]
    inputs = {node: node.inputs() for node in picks_first(nodes)}
    biases = _find_biases(roots, inputs)
    return [_part(root, inputs, output, biases, first) for root in roots]


def _find_biases(roots: list[Node], inputs: Mapping[Node, list[Node]]) -> dict[Node, int]:
    """Return the products to which nothing is done but adding an array to each row, and which."""
    users: dict[Node, list[Node]] = {node: [] for node in inputs}
    for node, leaves in inputs.items():
        for leaf in leaves:
            users[leaf].append(node)
    found: dict[Node, int] = {}
    for k, root in enumerate(roots):
        if len(users[root]) == 1 and users[root][0].function is np.add:
            (node,) = users[root]
            others = [leaf for leaf in inputs[node] if leaf is not root]
            if (
                len(others) == 1
                and others[0].kind == operations.PRODUCT
                and users[others[0]] == [node]
                and others[0].shape == node.shape
                and root.value.size == node.shape[-1] == root.shape[-1]
            ):
                found[others[0]] = k
    return found


def _part(
    root: Node,
    inputs: Mapping[Node, list[Node]],
    output: Node,
    biases: Mapping[Node, int],
    first: FirstCalls,
) -> Trace | None:
    """Return what depends on one of the arrays of a recording, where all others are constant."""
    own = {root: root}

    def argument(leaf: Any) -> Any:
        return own.get(leaf, leaf.value) if type(leaf) is Node else leaf

    for node, leaves in inputs.items():
        if not own.keys().isdisjoint(leaves):
            own[node] = node.with_arguments(operations.replaced(node.arguments, argument))
    if output not in own:
        return None
    part = [*own.values()]
    merge_moves(part)
    return Trace(
        part,
        split_into_terms(own[output]),
        first.values[0],
        first.seconds,
        biases={own[product]: k for product, k in biases.items() if product in own},
    )


def record_call(
    f: Callable[[Doubles], Any], x: Doubles, h: float, first: FirstCalls
) -> tuple[list[Node], Node]:
    """Record one call of f; return its operations as they are, and that of its result.

    Raises
    ------
    NotTraceable
        If f does what cannot be recorded.
    """
    _require_no_refusal(first)
    limits = MAX_SECONDS, inf
    nodes, output = _record_or_raise(f, x, h, limits, first)
    if first.values[0] != _number(output.value):
        raise NotTraceable("it reads x, or changes what it computes with, behind the recording")
    return nodes, output


def is_used(f: Callable[[Any], Any], x: NDArray[Any], h: float) -> bool:
    """Say whether f computes with x, an array of any real type; True where it cannot be told.

    No operation of an f that does not is given x, nor does f look at it in another way.
    """
    if type(x) is not np.ndarray:
        return True
    result = _record_as_needed(f, [x], h)
    f(x)  # so that buffers which f fills hold what a whole call leaves
    return type(result) is not Refusal or result.reason != UNUSED


def _record_as_needed(
    f: Callable[[Any], Any],
    arrays: list[Any],
    h: float,
    limits: tuple[float, float] = (MAX_SECONDS, inf),
) -> "tuple[list[Node], Node] | Refusal":
    """Record one call of f; once more, thoroughly, if an array took a recorded value unasked."""
    result = _record_alone(f, arrays, h, Recording(*limits))
    if isinstance(result, Refusal) and result.is_of_constants:
        return _record_alone(f, arrays, h, Recording(*limits, creates=True))
    return result


def _record_or_raise(
    f: Callable[[Doubles], Any],
    x: Doubles,
    h: float,
    limits: tuple[float, float],
    first: FirstCalls,
) -> tuple[list[Node], Node]:
    """Return the nodes of a call of f, and its result; raise NotTraceable if there are none."""
    result = _record_as_needed(f, [x], h, limits)
    if isinstance(result, Refusal):
        first.make(1)  # so that buffers which f fills hold what a whole call leaves
        raise NotTraceable(result.reason)
    return result


@dataclass(frozen=True)
class Refusal:
    """The reason why a recording failed, without the exception, whose frames hold stand-ins."""

    reason: str
    is_of_constants: bool


def _record_alone(
    f: Callable[[Doubles], Any], moved: list[Doubles], h: float, recording: Recording
) -> tuple[list[Node], Node] | Refusal:
    """Record one call of f while no other thread does, and leave nothing of it anywhere.

    Garbage is not collected meanwhile: in a large program that may take longer than the recording.
    """
    ends: list[Callable[[], Any]] = []  # what ends it, noted before it is begun
    end = map(operator.call, ends)
    try:
        # One call of a function in C, so that an interrupt comes before or after both.
        taken = map(_one_at_a_time.acquire, (True,), (MAX_SECONDS,))
        ends.extend(compress([_one_at_a_time.release], taken))
        if not ends:
            return Refusal("another thread is recorded", is_of_constants=False)
        recording.pauses_gc = gc.isenabled()  # not before: another thread may have paused it
        if recording.pauses_gc:
            ends.insert(0, gc.enable)
        ends.insert(0, partial(_open.pop, id(recording), None))
        _open[id(recording)] = recording
        gc.disable()
        return _record(f, moved, h, recording)
    finally:
        try:
            _close(recording)
        finally:
            exhaust(end)  # in one call, too: not even at its entry can an interrupt prevent it


def _close(recording: Recording) -> None:
    """Leave nothing of a recording anywhere."""
    recording.is_open, recording.slots = False, []  # which hold stand-ins
    replace_leftovers(recording)


_one_at_a_time = threading.RLock()
"""Held while globals of the user's are replaced, and while what f can reach is put back."""

_open: dict[int, Recording] = {}
"""The recording that is being made, and those within it, by the thread that holds the lock."""


def _end_in_child() -> None:
    """End, in a forked process, the recordings of a thread that only its parent has."""
    global _one_at_a_time
    recordings = [*_open.values()]
    if any(recording.thread == threading.get_ident() for recording in recordings):
        return  # f itself has forked, and is recorded in both processes
    _one_at_a_time = threading.RLock()
    _open.clear()
    for recording in reversed(recordings):
        for assign, old, _ in recording.slots:
            with suppress(Exception):  # the place is gone
                assign(old)
        _close(recording)
        if recording.pauses_gc:
            gc.enable()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_end_in_child)


def _record(
    f: Callable[[Doubles], Any], moved: list[Doubles], h: float, recording: Recording
) -> tuple[list[Node], Node] | Refusal:
    """Record one call of f; if it needs them, with stand-ins for all other arrays, too.

    A plain array's own methods, as in ``data.dot(x)``, do not ask what they are given. Of the
    arrays that are moved f is given the first.
    """
    try:
        around = _surroundings(f, recording.is_late)
    except NotTraceable as refusal:
        return Refusal(str(refusal), is_of_constants=False)
    roots: list[Recorded] = []
    slots: list[Slot] = []
    for k, x in enumerate(moved):
        saved = x.copy(order="K")
        root = recording.start(saved)
        root.memory = x
        roots.append(root)
        parts = _parts_of_h()[k : k + x.size]
        if len(parts) < x.size:
            parts = np.resize(_parts_of_h()[k:], x.size)
        elsewhere = x + h * parts.reshape(x.shape)
        slots.append((partial(x.__setitem__, ...), saved, elsewhere))
    replacements: list[tuple[Reference, Any]] = []
    constants: dict[int, Recorded] = {}
    for reference in around.references:
        assign, array = reference.assign, reference.held
        stand_in = None
        of = next((k for k, x in enumerate(moved) if share(array, x)), None)
        if of is not None:
            stand_in = _stand_in(roots[of], array, moved[of])
            if stand_in is None or (assign is None and reference.within is None):
                where = "by another array" if stand_in is None else "where no stand-in can be put"
                return Refusal(f"it can reach x's memory {where}", is_of_constants=False)
        elif recording.creates and type(array) is np.ndarray and (assign or reference.within):
            if id(array) not in constants:
                constants[id(array)] = recording.constant(array)
            stand_in = constants[id(array)]
        elif recording.creates:
            recording.fixed.append(array)
        if stand_in is not None:
            replacements.append((reference, stand_in))
    stand_in_of = stand_ins(recording, around.functions)
    replaced = [at for at in around.objects if id(at.held) in stand_in_of]
    replacements += [(at, stand_in_of[id(at.held)]) for at in replaced]
    slots += _slots_of(replacements)
    for function in around.functions:
        code = with_stand_ins(function.__code__)
        if code is not function.__code__ and function.__globals__.keys().isdisjoint(BUILTINS):
            slots.append((partial(setattr, function, "__code__"), function.__code__, code))
    recording.slots = slots
    call = partial(record, lambda: f(roots[0]), recording)  # type: ignore[arg-type]  # stand-ins
    try:
        output = temporarily_replaced(slots, call, around.restore)
    except NotTraceable as refusal:
        return Refusal(str(refusal), recording.needs_constants)
    if not recording.constants.are_unchanged():
        return Refusal("an array that it computes with is changed afterwards", False)
    return recording.nodes, output


@lru_cache(1)
def _parts_of_h() -> Doubles:
    """Return the parts of h by which elements are moved: they begin anew where there are more."""
    return np.random.default_rng(0).uniform(0.5, 1.0, 2**16)


def _surroundings(f: Callable[..., Any], is_late: Callable[[], bool]) -> Surroundings:
    """Return what f can reach, or refuse to trace it."""
    try:
        around = look_around(f, REPLACED, is_late)
    except Exception as error:  # of an object that cannot be looked at
        raise_interrupt(error)
        said = f"{type(error).__name__}: {error}"
        refusal = f"it can reach an object that raises, when it is looked at, {said}"
        raise NotTraceable(refusal) from None
    if around is None:
        raise NotTraceable("it can reach so many objects that looking at them takes too long")
    return around


def _slots_of(replacements: list[tuple[Reference, Any]]) -> list[Slot]:
    """Return the slots of references; a tuple as a whole, for its items cannot be replaced."""
    slots: list[Slot] = []
    tuples: dict[int, tuple[Assign, tuple[Any, ...], dict[int, Any]]] = {}
    for reference, new in replacements:
        if reference.assign is not None:
            slots.append((reference.assign, reference.held, new))
        elif reference.within is not None:
            assign, items = reference.within
            place = id(reference.within)
            tuples.setdefault(place, (assign, items, {}))[2][id(reference.held)] = new
    for assign, items, by_id in tuples.values():
        slots.append((assign, items, _tuple_with(items, by_id)))
    return slots


def _tuple_with(
    items: tuple[Any, ...], by_id: dict[int, Any], depth: int = MAX_TUPLE_DEPTH
) -> tuple[Any, ...]:
    """Return a tuple of the same class, with some of the objects in it, or within it, replaced."""
    if depth == 0 or attributes_of(items):  # which another one would not have
        return items
    replaced = [
        by_id.get(id(item), _tuple_with(item, by_id, depth - 1) if is_a(item, tuple) else item)
        for item in tuple.__iter__(items)
    ]
    return tuple.__new__(type(items), replaced)


def _require_no_refusal(first: FirstCalls) -> None:
    """Raise NotTraceable if the first calls have told why f cannot be recorded."""
    if first.refusal:
        raise NotTraceable(first.refusal)


def _number(value: Any) -> float:
    """Return a result as a finite float."""
    try:
        number = float(np.asarray(value, np.float64).reshape(()))
    except (TypeError, ValueError):
        raise NotTraceable("its result is not a number") from None
    if not np.isfinite(number):
        raise NotTraceable(f"its result is {number}")
    return number


def _stand_in(root: Recorded, view: NDArray[Any], x: Doubles) -> Recorded | None:
    """Return what stands in for x or a view of it; None for an array that holds more than x."""
    if view is x:
        return root
    if view.dtype != x.dtype:
        return None
    index = places_in(x, view)
    if index is None:
        return None
    result: Recorded = root.recording.apply(operations.item, (np.ravel(root), index), {})
    result.is_x, result.memory = True, view
    return result


# Single precision --------------------------------------------------------------------------------


class InDouble:
    """f of a float32 array as a function of a float64 one, which f finds wherever the former is.

    What f computes from it is of double precision, too, but for what f rounds itself. While f runs,
    the memory of the former moves along: had f read that in a hidden way, it would show.

    Parameters
    ----------
    f : callable
    x : float32 array

    Attributes
    ----------
    f : callable
        Where it is looked for what f can reach.
    x : float64 array
        Which stands for the float32 one.
    """

    def __init__(self, f: Callable[[Any], Any], x: NDArray[np.float32]) -> None:
        self.f = f
        wide = self.x = x.astype(np.float64)
        around = _surroundings(f, bool)
        places = [at for at in around.references if share(at.held, x)]
        # Each element of a view of x, such as its transpose, is one of x.
        indices = [None if at.held is x else places_in(x, at.held) for at in places]
        for at, index in zip(places, indices, strict=True):
            is_of_x = at.held is x or (index is not None and at.held.dtype == x.dtype)
            if not is_of_x or (at.assign or at.within) is None:
                reason = "it can reach x's memory, of float32, where x cannot be replaced"
                raise NotTraceable(reason)
        memory: Slot = partial(x.__setitem__, ...), x.copy(order="K"), wide

        def call(stand_in: Any) -> Any:
            flat = np.ravel(stand_in)
            new = [stand_in if index is None else flat[index] for index in indices]
            slots = [memory, *_slots_of([*zip(places, new, strict=True)])]
            return temporarily_replaced(slots, lambda: f(stand_in))

        self._call = call  # whose variables are not looked into, for it is none of the user's

    def __call__(self, x: Any) -> Any:
        """Return f where x, or what stands for it, is in the places of the float32 array."""
        return self._call(x)
