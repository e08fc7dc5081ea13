"""Whether f depends on x, and gives the same value each time: what the loop would not say.

A layer that holds another array than the one that is moved gives a gradient of zeros, and an f that
is random one of noise, after as many calls as there are points. A few calls tell.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.differences.arguments import warn_caller
from fastgrad.differences.guard import Original
from fastgrad.interrupts import raise_interrupt
from fastgrad.lazy import LazyModule
from fastgrad.tracing.first_calls import FirstCalls
from fastgrad.typing import Array, Moves, Values

if TYPE_CHECKING:
    from fastgrad.tracing import trace
else:  # many files
    trace = LazyModule("fastgrad.tracing.trace")

INDEPENDENCE_MESSAGE = (
    "f does not depend on {}: its value stays the same to the last bit, however that is moved, and "
    "the gradient is 0. Does a layer hold another array, as after params[key] = params[key] - m? "
    "Write params[key] -= m, or let f read its argument"
)

RANDOMNESS_MESSAGE = (
    "f is random, or changes with each call: it is {} and {} at one point, so that its difference "
    "quotients are noise; draw what is random outside of f, or seed it inside"
)

MAX_REPEAT_EPS = 256
"""How many eps apart, relative to their size, two values may be that are taken for the same: sums
may be added up in another order."""

MAX_REPEATS = 4
"""How often f is called again at a point."""

POINTS_PER_REPEAT = 16
"""Points from which f is called twice at one point beforehand, and once more for so many more;
with fewer it is called again only if its values differ by much."""

MIN_RANDOM_DIFFERENCE = 1e-3
"""Differences of values, relative to the largest, by which f may be random."""

NEAR_MOVE_STEPS = (1, 8, 64)
"""How far all of x is moved at once, up and down at random, in steps."""

MIN_MOVE_ULPS = 8
"""By how many units in its last place an element is moved at least: a step may be lost."""

FAR_MOVE_SCALES = (1.0, 1e3)
"""How far x is moved where f has not changed, in units of the largest element, or of 1."""


class Repeating:
    """A way of evaluating f that at first calls it again at one point, and warns if it is random.

    Parameters
    ----------
    values : callable
        The way of evaluating f.
    again : callable
        The same, of which nobody is told how far it has come.
    first : FirstCalls, optional
        Calls of f at x itself, if there have been any: then that is the point.
    """

    def __init__(self, values: Values, again: Values, first: FirstCalls | None = None) -> None:
        self._values, self._again, self._first = values, again, first
        self._has_looked = False

    def __call__(self, f: Callable[[Any], Any], x: Array, moves: Moves) -> Array:
        """Evaluate f as `Values` says."""
        number = moves.points.size
        if self._has_looked:
            return self._values(f, x, moves)
        self._has_looked = True
        if number >= POINTS_PER_REPEAT:  # before the many calls
            if not is_repeated(self._first, number):  # it cannot be called at x itself
                calls = 1 + min(MAX_REPEATS, number // POINTS_PER_REPEAT)
                _warn_if_random([_at_first(self._again, f, x, moves) for _ in range(calls)])
            return self._values(f, x, moves)
        found = self._values(f, x, moves)
        if number and found.dtype.kind != "c":
            look_again(self._again, f, x, moves, found.reshape(-1).tolist())
        return found


def is_repeated(first: FirstCalls | None, points: int) -> bool:
    """Call f at x itself as often as suits so many points, and warn if it is random.

    Say whether that is done: it is not where f cannot be called there, nor for few points, after
    which `look_again` looks.
    """
    repeats = min(MAX_REPEATS, points // POINTS_PER_REPEAT)
    if first is None or not repeats:
        return False
    first.make(1 + repeats - len(first.values))
    if len(first.values) < 2:
        return False
    _warn_if_random(first.values)
    return True


def look_again(
    again: Values, f: Callable[[Any], Any], x: Array, moves: Moves, found: list[Any]
) -> None:
    """Call f again at the first of a few points if what was found differs by much; warn if random.

    Parameters
    ----------
    again : callable
        The way of evaluating f.
    f, x, moves
        As `Values` takes them; the first point is enough.
    found : list of numbers
        f at all points, in their order.
    """
    lowest, highest = min(found), max(found)
    if highest - lowest <= MIN_RANDOM_DIFFERENCE * max(highest, -lowest):
        return  # as mostly; comparisons with nan are false
    if _differ(np.array(found), MIN_RANDOM_DIFFERENCE):
        _warn_if_random([found[0], _at_first(again, f, x, moves)])


def _at_first(values: Values, f: Callable[[Any], Any], x: Array, moves: Moves) -> Any:
    """Return f at the first point."""
    return values(f, x, Moves(moves.places[:1], moves.points[:1, :1]))[0, 0]


def _warn_if_random(values: list[Any]) -> None:
    """Warn if values at one point differ by more than rounding."""
    if values.count(values[0]) == len(values):
        return
    if _differ(np.array(values), MAX_REPEAT_EPS * float(np.finfo(np.float64).eps)):
        other = next(value for value in values if value != values[0])
        warn_caller(RANDOMNESS_MESSAGE.format(values[0], other))


def _differ(values: Array, part: float) -> bool:
    """Say whether finite values differ by more than a part of the largest."""
    if values.dtype.kind == "c":
        return False
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        return False
    if not numbers.size or not np.isfinite(numbers).all():
        return False
    return bool(np.ptp(numbers) > part * np.abs(numbers).max())


def is_independent(f: Callable[[Any], Any], x: Array, h: float) -> bool:
    """Say whether f does not depend on x, as far as a few calls can tell.

    First all of x is moved together, by some steps, up and down at random: that most functions do
    not stand. Those that do, as nets of dead units, are recorded, which takes milliseconds. Only
    where no operation of f is given x, it is moved far away, and replaced by nan, which would spoil
    what f keeps of it. Of an f or x that cannot be recorded nothing is said.
    """
    original = Original(x)
    random = np.random.default_rng(0)
    size = max(1.0, float(np.max(np.abs(original.copy), initial=0.0)))

    def same_at(point: Array) -> bool:
        original.plain[...] = point
        return _bits(f(x)) == bits

    try:
        with np.errstate(all="ignore"):
            bits = _bits(f(x))
            least = MIN_MOVE_ULPS * np.spacing(np.abs(original.copy))
            for steps in NEAR_MOVE_STEPS:
                moves = np.maximum(steps * h, least) * random.choice([-1.0, 1.0], x.shape)
                if not (same_at(original.copy + moves) and same_at(original.copy - moves)):
                    return False
            original.put_back()
            if trace.is_used(f, x, h):
                return False
            far = [size * scale * random.normal(size=x.shape) for scale in FAR_MOVE_SCALES]
            return all(map(same_at, [*far, np.full(x.shape, np.nan), original.copy]))
    except Exception as error:  # f cannot be called there, which depends on x
        raise_interrupt(error)
        return False
    finally:
        original.put_back()


def _bits(value: Any) -> bytes:
    """Return what tells values of f apart."""
    number = np.asarray(value, np.float64)
    if number.size != 1:
        raise ValueError
    return number.tobytes()
