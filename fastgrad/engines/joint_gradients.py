"""Gradients of several arrays at one point, computed together when the first is asked for.

A learner who trains asks for the gradients of W1, b1, W2 and b2 by closures over one net, which
ignore what they are given; and then again, at other parameters. So from the second point on all of
them are computed when the first is asked for, from one recording of f; those of a dict of arrays
always are. They are kept until each of the others is asked for, if all that f can reach is the same
then (`tracing.state`), and its value. What cannot be reached may have changed nevertheless, a file
or ``globals()["name"]``: so f is called once more, at a nearby point, before one is given out.

Each thread keeps one point, with copies of the arrays that f reaches, until these are freed.
"""

from _thread import _local
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

import numpy as np

from fastgrad.differences.arguments import Call, leaves
from fastgrad.interrupts import raise_interrupt
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

MAX_REMEMBERED_FUNCTIONS = 16
"""How many functions, at most, are remembered with what has been asked for at a point."""

Request = tuple[int, float]
"""An array, by its place among those that f reaches, and the h of the gradient that is wanted."""


class Point:
    """All that f can reach at one time, and the gradients that are asked for there.

    Attributes
    ----------
    asked : list of Request
        What has been asked for here.
    expected : tuple of Request
        What was asked for at the point before.
    gradients : dict of pairs of arrays
        What has been computed of that, and not been asked for yet: a gradient, and slopes.
    """

    def __init__(self, state: "states.State", key: Any, value: float, first: Request) -> None:
        self.asked = [first]
        self.gradients: dict[Request, tuple[Array, Array]] = {}
        self.expected: tuple[Request, ...] = _kept.requests.get(key, ())
        self._state: states.State | None = state
        self._key, self._value = key, value
        forget = partial(_forget, ref(self))
        likely = first, *self.expected
        arrays = [state.arrays[place]() for place, _ in likely if place < len(state.arrays)]
        self._watched = [ref(array, forget) for array in arrays if array is not None]

    def place_of(self, x: Array) -> int | None:
        """Return which of the arrays that f reaches x is."""
        return None if self._state is None else self._state.place_of(x)

    @property
    def expected_arrays(self) -> dict[Request, Array]:
        """The arrays whose gradients are likely to be asked for next, if all can move at once."""
        state, first = self._state, self.asked[0]
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

    def is_that_of(self, reached: Any, value: float) -> bool:
        """Say whether all that can be reached from there is as it was, and f's value."""
        state = self._state
        return state is not None and value == self._value and state.is_that_of(reached)

    def is_like(self, f: Callable[..., Any]) -> bool:
        """Say whether several gradients were asked for of a function that has the same code."""
        code = _code_of(f)
        return len(self.asked) > 1 and code is not None and code == self._key[0]

    def forget(self) -> None:
        """Forget all, for an array has been freed: nobody can ask for the others' gradients."""
        self._state = None
        self.gradients.clear()

    def end(self) -> None:
        """Note what has been asked for, as what will be at the next point."""
        requests = _kept.requests
        if requests.get(self._key) != ():
            requests.pop(self._key, None)
            requests[self._key] = tuple(self.asked)  # the last one now
        while len(requests) > MAX_REMEMBERED_FUNCTIONS:
            del requests[next(iter(requests))]

    def give_up(self, *, for_good: bool) -> None:
        """Compute nothing in advance at the next point, or at any: it was in vain."""
        if for_good:
            _kept.requests[self._key] = ()
        else:
            _kept.requests.pop(self._key, None)


def _forget(point: "ref[Point]", _: Any) -> None:
    if (kept := point()) is not None:
        kept.forget()


class _Kept(_local):
    """What a thread keeps: a point, and what has been asked for at those before, by functions."""

    def __init__(self) -> None:
        self.point: Point | None = None
        self.requests: dict[Any, tuple[Request, ...]] = {}


_kept = _Kept()


def _reached_from(f: Callable[..., Any]) -> Any:
    """Return from where all that f computes with can be reached, whichever array it is given.

    None if what it is given may matter.
    """
    if type(f) is Call and f.whole is not None:
        return f.f, f.whole, f.args
    return f if states.ignores_argument(f) else None


def _code_of(f: Callable[..., Any]) -> Any:
    return states.code_of(f.f if type(f) is Call else f)


def is_asked_for_several(f: Callable[..., Any]) -> bool:
    """Say whether f, or another one of its code, was just asked for several gradients."""
    return _kept.point is not None and _kept.point.is_like(f)


def computed_in_advance(
    f: Callable[..., Any], x: Array, h: float, scheme: Scheme, first: FirstCalls
) -> Array | None:
    """Return a gradient that has been computed in advance, if it is the one that is asked for.

    Parameters
    ----------
    f, x, h, scheme
        What is asked for.
    first : FirstCalls
        Of f, which has just been called. They are told if they belong to the point that is kept.
    """
    point = _kept.point
    if point is None or first.refusal or scheme != central_quotient:
        return None
    place = point.place_of(x)
    if place is None or (place, h) in point.asked:  # again: another round begins
        return None
    reached = _reached_from(f)
    if reached is None or not point.is_that_of(reached, first.values[0]):
        return None
    first.is_unchanged = True
    point.asked.append((place, h))
    gradient, slopes = point.gradients.pop((place, h), (None, None))
    return gradient if _are_slopes(slopes, f, x, h, first.values[0]) else None


def _are_slopes(g: Array | None, f: Callable[..., Any], x: Array, h: float, value: float) -> bool:
    """Say whether f changes as slopes say, to a point near x, in a random direction."""
    if g is None:
        return False
    saved = x.copy(order="K")
    direction = np.random.default_rng().uniform(-1, 1, x.shape)
    step = h / NEARBY_STEP_DIVISOR
    nearby = saved + step * (direction + np.copysign(1, direction))
    moved = nearby - saved
    try:
        x[...] = nearby
        change = float(np.asarray(f(x), np.float64).reshape(())) - value
    except Exception as error:  # which f does not raise at x
        raise_interrupt(error)
        return False
    finally:
        x[...] = saved
    allowed = MAX_CHANGE_SHARE * step * float(np.linalg.norm(g)) + MAX_CHANGE_EPS * EPS * abs(value)
    return abs(change - float(np.sum(g.reshape(x.shape) * moved))) <= allowed


def new_point(
    f: Callable[..., Any], x: Array, h: float, scheme: Scheme, first: FirstCalls
) -> Point | None:
    """Return the point of a call, if it can be compared; None if it is the one that is kept.

    Parameters
    ----------
    f, x, h, scheme, first
        As for `computed_in_advance`, which has been asked.
    """
    if first.is_unchanged or first.refusal or scheme != central_quotient:
        return None
    before, _kept.point = _kept.point, None
    if before is not None:
        before.end()
    reached = _reached_from(f)
    state = None if reached is None else states.state_of(reached)
    place = None if state is None else state.place_of(x)
    if state is None or place is None:
        return None
    key = _code_of(f), len(state.arrays)
    if type(f) is Call and key not in _kept.requests:
        places = [state.place_of(array) for _, array in leaves(f.whole)]
        _kept.requests[key] = tuple((each, h) for each in places if each is not None)
    _kept.point = Point(state, key, first.values[0], (place, h))
    return _kept.point
