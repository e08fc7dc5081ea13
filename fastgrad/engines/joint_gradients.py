"""Gradients of several arrays at one point, computed together when the first is asked for.

A learner who trains asks for the gradients of W1, b1, W2 and b2 by closures over one net, which
ignore what they are given; and then again, at other parameters. So from the second point on all of
them are computed when the first is asked for, from one recording of f; those of a dict of arrays
always are. They are kept until each of the others is asked for, if all that f can reach is the same
then (`tracing.state`). What cannot be reached may have changed nevertheless, a file or
``globals()["name"]``: so f is called once, at a nearby point, before one is given out. That its
value is what it was, and its slopes tell, shows both.

Each thread keeps one point, with copies of the arrays that f reaches, until these are freed.
"""

from _thread import _local
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

import numpy as np

from fastgrad.differences.arguments import Call, leaves
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.lazy import LazyModule
from fastgrad.schemes import Scheme, central_quotient
from fastgrad.tracing.first_calls import FirstCalls
from fastgrad.typing import Array

if TYPE_CHECKING:
    from fastgrad.tracing import state as states
else:  # loaded only if functions are recorded
    states = LazyModule("fastgrad.tracing.state")

EPS = float(np.finfo(np.float64).eps)

NEARBY_STEP_DIVISOR = 1024
"""How many times smaller than h the step to a nearby point is: f is straight until there."""

MAX_CHANGE_SHARE = 1e-3
"""The share of the gradient's norm by which f may change otherwise than the gradient says. What is
refused though it is right costs time only."""

MAX_CHANGE_EPS = 16
"""How many eps of f's value this change may be off, besides."""

MAX_SUM_FACTOR = 3
"""How many times its standard deviation a sum of independent parts may be."""

MAX_REMEMBERED_FUNCTIONS = 16
"""How many functions, at most, are remembered with what has been asked for at a point."""

recordings: ContextVar[list[Any] | None] = ContextVar("recordings", default=None)
"""Where recordings are kept for `traced.further_gradients`, if a caller wants these."""

Request = tuple[int, float]
"""An array, by its place among those that f reaches, and the h of the gradient that is wanted."""


class InAdvance(NamedTuple):
    """A gradient that nobody has asked for yet.

    Attributes
    ----------
    gradient, slopes : arrays
    uneven : array
        By how much slopes differ, as a rule, where kinks are near.
    """

    gradient: Array
    slopes: Array
    uneven: Array


@contextmanager
def recordings_kept_in(known: list[Any]) -> Iterator[None]:
    """Keep what is recorded in the block, with the arrays that f reads."""
    token = recordings.set(known)
    try:
        yield
    finally:
        recordings.reset(token)


class Point:
    """All that f can reach at one time, and the gradients that are asked for there.

    Attributes
    ----------
    asked : list of Request
        What has been asked for here.
    expected : tuple of Request
        What was asked for at the point before.
    gradients : dict of InAdvance
        What has been computed of that, and not been asked for yet.
    key : pair
        The code of f, and how many arrays it reaches.
    state : State or None
        None if one of the arrays has been freed.
    value : float
        What f is here.
    """

    def __init__(
        self, state: "states.State", key: tuple[Any, int], value: float, first: Request
    ) -> None:
        self.asked = [first]
        self.gradients: dict[Request, InAdvance] = {}
        self.expected: tuple[Request, ...] = _kept.requests.get(key, ())
        self.state: states.State | None = state
        self.key, self.value = key, value
        forget = partial(_forget, ref(self))
        likely = first, *self.expected
        arrays = [state.arrays[place]() for place, _ in likely if place < len(state.arrays)]
        self._watched = [ref(array, forget) for array in arrays if array is not None]

    @property
    def expected_arrays(self) -> dict[Request, Array]:
        """The arrays whose gradients are likely to be asked for next, if all can move at once."""
        state, first = self.state, self.asked[0]
        if state is None or first not in self.expected:
            return {}
        found: dict[Request, Any] = {first: state.arrays[first[0]]()}
        for place, h in self.expected:
            array = state.arrays[place]() if place < len(state.arrays) else None
            if (
                h == first[1]
                and array is not None
                and array.dtype == np.float64
                and array.flags.writeable
                and not np.isnan(array).any()
                and not any(np.may_share_memory(array, other) for other in found.values())
            ):
                found[place, h] = array
        del found[first]
        return found

    def forget(self) -> None:
        """Forget all, for an array has been freed: nobody can ask for the others' gradients."""
        self.state = None
        self.gradients.clear()

    def end(self) -> None:
        """Note what has been asked for, as what will be at the next point."""
        requests = _kept.requests
        if requests.get(self.key) != ():
            requests.pop(self.key, None)
            requests[self.key] = tuple(self.asked)  # the last one now
        while len(requests) > MAX_REMEMBERED_FUNCTIONS:
            del requests[next(iter(requests))]

    def give_up(self) -> None:
        """Compute nothing in advance any more: the arrays cannot be moved together."""
        _kept.requests[self.key] = ()


def _forget(point: "ref[Point]", _: Any) -> None:
    """Forget what is kept for a point that is no longer in use."""
    if (kept := point()) is not None:
        kept.forget()


class _Kept(_local):
    """What a thread keeps: a point, and what has been asked for at those before, by functions.

    And whether it is the point of the gradient that was asked for last; and a generator of random
    numbers, as it takes time to make one.
    """

    def __init__(self) -> None:
        self.point: Point | None = None
        self.requests: dict[Any, tuple[Request, ...]] = {}
        self.is_current = False
        self._random: Any = None

    @property
    def random(self) -> Any:
        """Random numbers; NumPy's module of these is not loaded before they are needed."""
        if self._random is None:
            self._random = np.random.default_rng()
        return self._random


_kept = _Kept()


def _reached_from(f: Callable[..., Any]) -> Any:
    """Return from where all that f computes with can be reached, whichever array it is given.

    None if what it is given may matter.
    """
    if type(f) is Call and f.whole is not None:
        return f.f, f.whole, f.args
    return f if states.ignores_argument(f) else None


def code_of(f: Callable[..., Any]) -> Any:
    """Return the code of a function, or None."""
    return states.code_of(f.f if type(f) is Call else f)


def is_asked_for_several(f: Callable[..., Any]) -> bool:
    """Say whether f, or another one of its code, was just asked for several gradients."""
    point = _kept.point
    if point is None or len(point.asked) < 2:
        return False
    code = code_of(f)
    return code is not None and code == point.key[0]


def is_at_kept_point() -> bool:
    """Say whether the gradient that was asked for last belongs to a point where f was recorded."""
    return _kept.is_current


def computed_in_advance(f: Callable[..., Any], x: Array, h: float, scheme: Scheme) -> Array | None:
    """Return a gradient that has been computed in advance, if it is the one that is asked for."""
    point, _kept.is_current = _kept.point, False
    state = None if point is None else point.state
    if point is None or state is None or scheme != central_quotient:
        return None
    place = state.place_of(x)
    if place is None or (place, h) in point.asked:  # again: another round begins
        return None
    reached = _reached_from(f)
    if reached is None or not (
        state.is_that_of(reached)
        # What f keeps of its last call, at another point, is replaced by a call at x.
        or (FirstCalls(f, x, once=True).values == [point.value] and state.is_that_of(reached))
    ):
        return None
    point.asked.append((place, h))
    found = point.gradients.pop((place, h), None)
    if found is not None and not _is_as_said(found, f, x, h, point.value):
        found = None
    _kept.is_current = True
    return None if found is None else found.gradient


def _is_as_said(said: InAdvance, f: Callable[..., Any], x: Array, h: float, value: float) -> bool:
    """Say whether f is what a value and slopes say at a point near x, in a random direction."""
    saved = x.copy(order="K")
    direction = _kept.random.uniform(-1, 1, x.shape)
    step = h / NEARBY_STEP_DIVISOR
    nearby = saved + step * (direction + np.copysign(1, direction))
    moved = nearby - saved
    try:
        x[...] = nearby
        change = float(np.asarray(f(x), np.float64).reshape(())) - value
        is_changed = not np.array_equal(x, nearby)
    except Exception as error:  # which f does not raise at x
        raise_interrupt(error)
        return False
    finally:
        x[...] = saved
    slopes, uneven = said.slopes.reshape(x.shape), said.uneven.reshape(x.shape)
    allowed = MAX_CHANGE_SHARE * step * float(np.linalg.norm(slopes))
    allowed += MAX_SUM_FACTOR * float(np.linalg.norm(uneven * moved))
    allowed += MAX_CHANGE_EPS * EPS * abs(value)
    return abs(change - float(np.sum(slopes * moved))) <= allowed and not is_changed


def new_point(
    f: Callable[..., Any], x: Array, h: float, scheme: Scheme, first: FirstCalls
) -> Point | None:
    """Return the point of a call, if it can be compared; None if it is the one that is kept.

    Parameters
    ----------
    f, x, h, scheme, first
        As for `computed_in_advance`, which has been asked.
    """
    if _kept.is_current or first.refusal or scheme != central_quotient:
        return None
    before, _kept.point = _kept.point, None
    if before is not None:
        before.end()
    reached = _reached_from(f)
    state = None if reached is None else states.state_of(reached)
    place = None if state is None else state.place_of(x)
    if state is None or place is None:
        return None
    key = code_of(f), len(state.arrays)
    if type(f) is Call and key not in _kept.requests:
        places = [state.place_of(array) for _, array in leaves(f.whole)]
        _kept.requests[key] = tuple((each, h) for each in places if each is not None)
    _kept.point = Point(state, key, first.values[0], (place, h))
    return _kept.point
