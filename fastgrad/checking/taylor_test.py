"""Taylor's test of a gradient: the remainder falls with the square of the step."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fastgrad.checking.noise import (
    Direction,
    Noise,
    evaluate_along,
    measure_noise,
    with_terms,
)
from fastgrad.checking.plots import BLUE, GREEN, GREY, RED, curves, inline
from fastgrad.checking.probe import Probe, probe_up_to_edge, unit_of
from fastgrad.checking.random_directions import (
    DirectionalCheck,
    direction_path,
    random_direction,
)
from fastgrad.checking.reevaluation import explained_along
from fastgrad.checking.subject import (
    GradientUnderTest,
    Part,
    as_gradient_under_test,
    moved_by,
)
from fastgrad.differences.arguments import users_array
from fastgrad.differences.conversions import takes_conversions
from fastgrad.differences.guard import guarded
from fastgrad.typing import Array

STEPS = 2.0 ** -np.arange(4, 34)
"""The steps along the direction, in units of its length."""

MIN_REMAINDER_FACTOR = 8.0
"""Times its round-off that a remainder is to be for the slope to be read off it."""

SLOPE_REMAINDERS = 5
"""Remainders, the last clear ones, from which the slope is read."""

MIN_DIRECTIONS = 3
"""Directions along which an error must be explained, for it to be none."""

MOST_GROUPS = 40
"""Further directions, at most, along which those elements are looked for that are at kinks."""

MOST_DIVISIONS = 64
"""Divisions of the elements, at most, for each of which it is asked to which side f is defined."""

INSIDE_STEP = 24
"""Which of the steps f is to be defined at: a small one, next to which its domain may end."""

MAX_EDGE_ERROR = 1e-3
"""Share of the gradient times the direction that it may be wrong by where f is on one side alone.
"""

UNEVEN_RATIO = 100.0
"""Ratio of the largest and the smallest element of a gradient from which they are evened."""

SMALLEST_SHARE = 1e-10
"""Part of the largest element that smaller ones are evened to."""

SLOPE_THRESHOLD = 1.5
"""Slopes above are taken for 2, slopes below for 1."""


@dataclass(frozen=True, eq=False)
class Slope:
    """How the first-order remainder falls with the step; true if the gradient is right.

    Attributes
    ----------
    right : bool
        Whether the remainder falls faster than the step, at small steps, or is lost in round-off
        throughout; at a kink of f, whether the gradient is between the slopes on both sides.
    slope : float
        The exponent, from the smallest steps whose remainder is clear; nan if none is.
    steps : array
        Along a random direction of length 1.
    remainders : array
        ``abs(f(x + s v) - f(x) - s gradient v)``.
    round_off : float
        What of each is round-off.
    error : float
        What the gradient times the direction is too small by, as small steps tell; 0 if it may be
        right.
    reason : str
        Why the gradient is not right whatever the slope: it or f is not finite, or f is random.
    notes : tuple of str
        What else was found, as by `check_gradient`, that makes an error no fault.
    is_clear : bool
        Whether the differences could tell, along each direction that was probed.
    """

    right: bool
    slope: float
    steps: Array
    remainders: Array
    round_off: float
    error: float = 0.0
    reason: str = ""
    notes: tuple[str, ...] = ()
    is_clear: bool = True

    def __bool__(self) -> bool:
        """Return whether the gradient is right."""
        return self.right

    def __str__(self) -> str:
        """Return the verdict in a sentence."""
        if self.reason:
            return f"Wrong: {self.reason}"
        if self.right and self.notes:
            return "\n- ".join([self._summary, *self.notes])
        if np.isnan(self.slope) and self.right:
            return f"Right: the remainder is round-off, {self.round_off:.0e}, at every step."
        falls = f"the remainder falls with the power {self.slope:.2f} of the step"
        if not self.right:
            if self.slope < SLOPE_THRESHOLD:
                return f"Wrong: {falls}; with 2 if the gradient is right, with 1 if it is wrong."
            return (
                f"Wrong: at small steps f's slope differs from the gradient's by {self.error:.1e}."
            )
        return f"Right: {falls}; with 2 if the gradient is right, with 1 if it is wrong."

    @property
    def _summary(self) -> str:
        """Return the verdict on a gradient that is right."""
        if self.is_clear:
            return "Right, but for what is no fault."
        return "Right, as far as the differences can tell."

    def _repr_html_(self) -> str:
        """Return the verdict and the plot, for a notebook."""
        from html import escape

        return f"<p>{escape(str(self))}</p>{'' if self.reason else inline(self.plot)}"

    def plot(self, path: str | Path | BytesIO) -> None:
        """Draw the remainders against the steps, beside the slopes 1 and 2, into a PNG file.

        Raises
        ------
        ModuleNotFoundError
            If matplotlib is not installed.
        """
        steps, remainders = self.steps, self.remainders
        title = f"The gradient is {'right' if self else 'wrong'}: slope {self.slope:.2f}"
        x_label = "step s along a random direction v"
        with curves(path, title, x_label, "|f(x + s v) - f(x) - s gradient v|") as axes:
            colour = GREEN if self else RED
            axes.plot(steps, remainders, ".-", color=colour, lw=1.2, ms=5, label="remainder")
            for power, dashes in ((1, ":"), (2, "--")):
                falling = remainders[0] * (steps / steps[0]) ** power
                axes.plot(steps, falling, dashes, color=GREY, lw=1, label=f"slope {power}")
            axes.axhline(self.round_off, color=BLUE, lw=0.8, label="round-off")
            axes.set_ylim(0.05 * self.round_off, 3 * max(remainders.max(), self.round_off))


@takes_conversions
def slope_test(
    f: Any,
    x: Any = None,
    gradient: Any = None,
    *,
    t: Any = None,
    args: tuple[Any, ...] = (),
    seed: int | None = None,
    outside: Any = None,
) -> Slope:
    """Return how ``f(x + s v) - f(x) - s gradient v`` falls with s, along a random direction v.

    By Taylor, it is ``s**2 / 2`` times the second derivative along v, and more powers of s, if and
    only if the gradient is right in this direction; otherwise it is s times the error. About 60
    calls of f, whatever the number of parameters; about as many again along a direction to which
    all elements contribute as much, where they differ in size; and, where f has kinks at x, along
    up to 40 parts of the direction, until it is known which elements these concern.

    Parameters
    ----------
    f, x, gradient, t, args, outside
        As for `check_gradient`.
    seed : int, optional
        Of the direction.

    Returns
    -------
    Slope

    Raises
    ------
    TypeError, ValueError
        As from `check_gradient`.

    Notes
    -----
    An error is seen if it is larger than what the curvature makes of the smallest clear step, which
    is about the root of the round-off: some 1e-7 of the gradient.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> round(slope_test(lambda x: (x**4).sum(), x, 4 * x**3, seed=0).slope, 1)
    2.0
    >>> bool(slope_test(lambda x: (x**4).sum(), x, 4.1 * x**3, seed=0))
    False
    """
    if seed is not None and (
        isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0
    ):
        raise TypeError(
            f"seed is {seed!r}, but it is a whole number of 0 or more; pass one or None"
        )
    x = users_array(x)
    with guarded((f, gradient), moved_by(f, x), args):
        subject = as_gradient_under_test(f, x, t, gradient, args, "auto", outside)
        noise = measure_noise(subject, None)
        parts = [part for part in subject.parts if part.x.size]
        noise = with_terms(noise, parts, [part.analytic for part in parts])
        random = np.random.default_rng(seed)
        v: Direction = _unit(random_direction(parts, random))
        with np.errstate(all="ignore"):
            # Times the root of the size, not the norm: squares of large elements overflow.
            sizes = [part.x.size**0.5 * float(abs(part.x.view(np.ndarray)).max()) for part in parts]
            steps = STEPS * max([1.0, *sizes])
            path, rounding = direction_path(subject, parts, v)
            _, (here, *values) = path(np.append(0.0, steps))
            if np.isfinite(here) and not np.isfinite(values).any():
                v = _leading_inside(subject, parts, v, float(steps[INSIDE_STEP]))
                path, rounding = direction_path(subject, parts, v)
                _, (here, *values) = path(np.append(0.0, steps))
            unit = unit_of(np.array([here, *values]))
            rests = (np.array(values) - here) / unit - path.analytic / unit * steps
            remainders, round_off = unit * abs(rests), 2 * noise.level
            slope = _read(steps, remainders, MIN_REMAINDER_FACTOR * round_off + rounding * steps)
            reason = _why_not(noise, parts, rests)
            if reason:
                return Slope(False, slope, steps, remainders, round_off, np.nan, reason)

            def judge(v: Direction) -> Probe:
                path, rounding = direction_path(subject, parts, v)
                return probe_up_to_edge(path, noise.level, float(steps[0]), rounding)

            judged, v, notes = _judge_further(parts, v, judge, random)
            right = not judged.contradicts
            if judged.contradicts:
                subject.find_batch()
                # One direction may be explained by chance: further ones must be, too.
                others = [_unit(random_direction(parts, random)) for _ in range(MIN_DIRECTIONS - 1)]
                results = [replace(each, kind="smooth") for each in (judged, *map(judge, others))]
                directions, count = [v, *others], len(results)
                check = DirectionalCheck(
                    subject, parts, noise, 0.0, directions, count, results=results
                )
                explained = explained_along(check, random)
                if explained is not None:
                    right, notes = True, explained[2]
        unclear = [] if judged.contradicts else _unclear(judged)
        return Slope(
            right, slope, steps, remainders, round_off, judged.value - judged.analytic, "",
            (*notes, *unclear), is_clear=not unclear,
        )  # fmt: skip


def _unit(direction: Direction) -> list[Array]:
    """Return a direction of length 1."""
    length = np.sqrt(sum(float((v**2).sum()) for v in direction)) or 1.0
    return [v / length for v in direction]


def _leading_inside(
    subject: GradientUnderTest, parts: list[Part], direction: Direction, step: float
) -> list[Array]:
    """Return the direction with signs by which f is defined at this step; as it is, if with none.

    Elements are divided in the order of their values, for those at one end of f's domain are about
    the same, until all of a division can be moved to one side.
    """
    sizes = [abs(v) for v in direction]
    order = np.argsort(np.concatenate([part.x.view(np.ndarray).reshape(-1) for part in parts]))
    ends = np.cumsum([v.size for v in direction])[:-1]

    def as_arrays(flat: Array) -> list[Array]:
        pieces = zip(np.split(flat, ends), sizes, strict=True)
        return [piece.reshape(v.shape) * v for piece, v in pieces]

    left, chosen = [order], np.zeros(len(order))
    for _ in range(MOST_DIVISIONS):
        if not left:
            break
        some, way = left.pop(), np.zeros(len(order))
        for sign in (1.0, -1.0):
            way[some] = sign
            [value] = evaluate_along(parts, as_arrays(way), [step], subject.value)
            if np.isfinite(value):
                chosen[some] = sign
                break
        else:
            if len(some) > 1:
                left += [*np.array_split(some, 2)]
    return as_arrays(chosen) if chosen.all() else [*direction]


def _judge_further(
    parts: list[Part],
    v: Direction,
    judge: Callable[[Direction], Probe],
    random: np.random.Generator,
) -> tuple[Probe, Direction, list[str]]:
    """Probe along a direction, and further ones where it tells too little.

    Where elements of the gradient differ much in size, along one to which each contributes as much.
    Where f has a kink or jump at x, along parts of the direction, halved until they have none or
    are of a single element: what is between the slopes along all of them hides errors of others,
    and where kinks of both signs meet, right gradients may lie beside both slopes. So where f is
    defined on one side alone and the gradient seems to be wrong: next to the edge of its domain f
    may vary over distances by which others hardly move. What decides is returned, with its
    direction and notes.
    """
    judged = judge(v)
    even = None if _is_decided(judged) and judged.contradicts else _evened(parts, v)
    if even is not None:
        found = judge(even)
        if not found.is_smooth or found.contradicts:
            judged, v = found, even
    if _is_decided(judged):
        return judged, v, []
    ends = np.cumsum([part.x.size for part in parts])[:-1]
    flat = np.concatenate([array.reshape(-1) for array in v])
    groups = deque(np.array_split(random.permutation(flat.size), min(2, flat.size)))
    singles: list[Probe] = []
    for _ in range(MOST_GROUPS):
        if not groups:
            break
        members = groups.popleft()
        chosen = np.zeros_like(flat)
        chosen[members] = flat[members]
        pieces = zip(np.split(chosen, ends), parts, strict=True)
        share = [piece.reshape(part.x.shape) for piece, part in pieces]
        found = judge(share)
        if found.contradicts and (_is_decided(found) or len(members) == 1):
            return found, share, []
        if _is_decided(found) or (found.is_smooth and len(members) == 1):
            continue
        if len(members) == 1:
            singles.append(found)
        else:
            groups.extend(np.array_split(members, 2))
    unseen = sum(map(len, groups))
    unclear = [each for each in singles if each.kind == "unclear"]
    singles = [each for each in singles if each.kind != "unclear"]
    if unclear and (not judged.contradicts or judged.is_smooth):
        judged = replace(unclear[0], contradicts=bool(unseen))
    elif judged.contradicts and judged.is_smooth:
        judged = replace(judged, contradicts=bool(unseen))
    elif judged.contradicts:
        signs = {np.sign(each.above - each.below) for each in singles if each.kind != "jump"}
        judged = replace(judged, contradicts=bool(unseen) or len(signs) < 2)
    return judged, v, _notes(singles, 0 if judged.is_smooth else unseen, flat.size)


def _is_decided(judged: Probe) -> bool:
    """Say whether f is smooth, and, if it is defined on one side alone, agrees to some digits."""
    is_at_edge = np.isnan(judged.below) != np.isnan(judged.above)
    is_exact = judged.error <= MAX_EDGE_ERROR * abs(judged.analytic)
    return judged.is_smooth and not (is_at_edge and (judged.contradicts or not is_exact))


def _evened(parts: list[Part], direction: Direction) -> list[Array] | None:
    """Return a direction to which all elements of the gradient contribute as much.

    None where they nearly do so along the given one.
    """
    sizes = np.concatenate([abs(part.analytic) for part in parts]) if parts else np.zeros(0)
    known = sizes[sizes > 0]
    if not known.size or not known.max() > UNEVEN_RATIO * known.min():
        return None
    least = max(float(known.min()), SMALLEST_SHARE * float(known.max()))
    return [
        v * (least / np.maximum(abs(part.analytic), least)).reshape(v.shape)
        for v, part in zip(direction, parts, strict=True)
    ]


def _notes(singles: list[Probe], unseen: int, size: int) -> list[str]:
    """Say where the gradient is a convention, and which elements were not told from those."""
    kinks = sum(each.kind != "jump" for each in singles)
    jumps = len(singles) - kinks
    notes = []
    if kinks:
        notes.append(
            f"f has a kink at x along {kinks} of {size:,} elements: there the gradient is between "
            "both slopes."
        )
    if jumps:
        notes.append(
            f"f jumps at x along {jumps} of {size:,} elements: there the gradient is a slope "
            "beside it."
        )
    if unseen:
        notes.append(
            f"f has kinks at x along {unseen:,} of {size:,} elements or some of them: there the "
            "gradient is between both slopes, and smaller errors are not seen. check_gradient "
            "compares each element."
        )
    return notes


def _unclear(judged: Probe) -> list[str]:
    """Say that the differences cannot tell, if so."""
    if judged.kind != "unclear":
        return []
    return [
        f"the gradient times the direction is {judged.analytic:.4g}, but f's slope there is "
        f"{judged.below:.4g} from below and {judged.above:.4g} from above at a step of "
        f"{judged.step:.1g}, and something else at smaller ones, by kinks next to x or by noise. "
        "The gradient may be wrong."
    ]


def _why_not(noise: Noise, parts: list[Part], remainders: Array) -> str | None:
    """Return why there is nothing to test, or None."""
    if not all(np.isfinite(part.analytic).all() for part in parts):
        return "the gradient is not finite."
    if noise.why_not is None and parts and not np.isfinite(remainders).any():
        return "f is not finite next to x."
    return noise.why_not


def _read(steps: Array, remainders: Array, least: Array) -> float:
    """Return the slope over the smallest steps down to which all remainders are clear."""
    hidden = np.flatnonzero(~(remainders > least))
    count = int(hidden[0]) if len(hidden) else len(steps)
    if count < 2:
        return float("nan")
    last = slice(max(0, count - SLOPE_REMAINDERS), count)
    return float(np.polyfit(np.log(steps[last]), np.log(remainders[last]), 1)[0])
