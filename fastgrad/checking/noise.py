"""How exact values of f are, and the one model of what its differences may be wrong by.

Let values of f be wrong by a level at most, and let x be moved along v: one element, or many. With
``q(s) = (f(x + s v) - f(x - s v)) / (2 s)`` the derivative along v is

    (4 q(h) - q(2 h)) / 3,  wrong by  0.02 |q(2 h) - q(h)| / 3 + 1.5 level / h  at most,

by truncation and by round-off, if f is smooth from x - 2 h v to x + 2 h v (`extrapolate`). A
one-sided quotient is wrong by 2 level / s, and by what it changes with the step s: which holds
beside kinks, too (`fastgrad.checking.probe`). Whoever computes a gradient in a type of precision
eps rounds it by 32 eps of its size. Every stage of a check knows its numbers to that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from fastgrad.checking.subject import GradientUnderTest, Part, number_of
from fastgrad.differences.arguments import as_returned
from fastgrad.differences.quotients import precision
from fastgrad.directional import displace, restorer
from fastgrad.lazy import lazy
from fastgrad.typing import Array

STEP = 1e-4
"""The book's step, for values of double precision."""

POINTS_PER_SIDE = 3
"""Points to each side of x at which the noise is measured along a path."""

FOURTH_DIFFERENCE = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
"""Weights of the fourth difference, of which a smooth f leaves nothing at small steps."""

DEVIATIONS = 4.0
"""Standard deviations that are taken for the most that a value is wrong by."""

MAX_NET_LOSS = 17.0
"""What the loss of fastgrad's own net does not exceed."""

STEP_DIVISORS = (4, 64, 1024, 16384)
"""By what the step is divided along a path, to tell noise from trends."""

WIDE_STEP_DIVISORS = (0.25, 1 / 64)
"""The same for larger steps, where plateaus of f may be seen that are wider than the step."""

MAX_NOISE_RATIO = 8.0
"""Ratio up to which the spreads at neighbouring steps are of the same noise.

These steps have the ratio 16: a kink's spreads have it, too, and those of smooth functions its
fourth power.
"""

GROWTH_RATIO = 2.0
"""Ratio above which the spreads at three or more neighbouring steps are those of a power of the
distance to x, as of a root at 0: a root's are 4, those of noise come down again."""

HALVINGS = 24
"""How often an interval is halved to tell rounding from kinks and waves."""

LAST_HALVINGS = 4
"""Of these, how many of the last the same jump is to be seen in."""

MIN_TELLING_PATHS = 2
"""Of three elements, how many have to change f; otherwise all move at once, for one of them."""

JUMP_FACTOR = 8.0
"""Times what the values on one side of x alone show that noise may be; more is a jump at x."""

TREND_RATIO = 32.0
"""Times the noise at x that it may be at the points where gradients are measured; more is no noise,
but f's trend."""

STEP_MULTIPLES = 1 + np.arange(-8, 9) / 16
"""Multiples of a step at which the noise is measured of the values which it reaches."""

TERMS = 4.0
"""Times eps of the terms ``x_i g_i``, as a root of the sum of squares, that f's noise is at least:
a sum of them that is nearly 0 is not more exact than they are."""

MIN_NOISE = 4 * float(np.finfo(np.float64).smallest_subnormal)
"""What no value is more exact than."""

EXTRAPOLATION_SHARE = 0.02
"""Share of the truncation error that extrapolation leaves, where f is smooth over the step."""

ANALYTIC_ROUNDING_EPS = 32.0
"""Times eps of its type that a gradient is rounded by, in units of its size."""

COARSE_EPS_FACTOR = 2.0**20
"""Times eps of double precision from which f is said to compute in a coarser one."""


Direction = Sequence[Array]
"""A direction v: an array for each one that is moved."""


@dataclass(frozen=True)
class Noise:
    """How exact values of f are.

    Attributes
    ----------
    level : float
        By how much a value may be wrong, at the points where gradients are measured.
    height : float
        The size of f: the largest of ``abs(f)`` at x and next to it, and of ``x_i`` times the slope
        along x_i.
    eps : float
        The relative precision of the coarser of x's type and that of f's result.
    repeats : bool
        Whether two calls at the same x gave the same value.
    values : pair
        These values.
    """

    level: float
    height: float
    eps: float
    repeats: bool
    values: tuple[float, float]

    @property
    def relative(self) -> float:
        """The level in units of f's size; eps, where f is 0 and at values that are hardly any."""
        known = self.height > MIN_NOISE / self.eps
        return max(self.level / self.height, self.eps) if known else self.eps

    @property
    def is_coarse(self) -> bool:
        """Whether f computes in less than double precision, whatever it returns."""
        return self.relative >= COARSE_EPS_FACTOR * float(np.finfo(np.float64).eps)

    @property
    def step(self) -> float:
        """The step: the book's in double precision, a power of two near the cube root elsewhere."""
        if self.relative < 1e4 * float(np.finfo(np.float64).eps):
            return STEP
        return float(min(2.0 ** np.round(np.log2(self.relative ** (1 / 3))), 2.0**-6))

    @property
    def why_not(self) -> str | None:
        """Why f cannot be differenced at all, if so."""
        first, second = self.values
        if not np.isfinite(first):
            return f"f is {first} at x, so it has no differences there."
        if not self.repeats:
            return (
                f"f is not deterministic: two calls at the same x gave {first:.10g} and "
                f"{second:.10g}. Dropout, random augmentation, a state that f changes? Fix the "
                "random seed in each call, or switch it off."
            )
        return None


class Path:
    """f where x is moved along a direction, of an element or many, and what is claimed of it.

    Parameters
    ----------
    along : callable
        ``offsets -> (offsets by which x really moves, f there)``.
    analytic : float
        The derivative that is claimed.
    least : float, or callable that returns it
        The smallest offset at which x moves as it should, about.
    known : dict, optional
        What along returns for offsets, as far as it is known.
    """

    def __init__(
        self,
        along: Callable[[Array], tuple[Array, Array]],
        analytic: float,
        least: float | Callable[[], float],
        known: dict[Any, tuple[Any, Any]] | None = None,
    ) -> None:
        self.analytic, self._least, self._along = analytic, least, along
        self._known = dict(known or {})

    @property
    def here(self) -> Any:
        """What f is at x, if it was asked for; else None."""
        return self._known.get(0.0, (0.0, None))[1]

    @lazy
    def least(self) -> float:
        """The smallest offset at which x moves as it should, about."""
        return self._least() if callable(self._least) else self._least

    def __call__(self, offsets: Array) -> tuple[Array, Array]:
        """Return by which offsets x really moves, and f there; f is asked once for each."""
        offsets = np.where(np.isnan(offsets), np.inf, offsets)  # x is too large: f has no value
        new = [t for t in dict.fromkeys(offsets.tolist()) if t not in self._known]
        if new:
            pairs = zip(*self._along(np.array(new)), strict=True)
            self._known.update(zip(new, pairs, strict=True))
        lengths, values = zip(*(self._known[t] for t in offsets.tolist()), strict=True)
        return np.array(lengths), np.array(values)


def element_path(
    subject: GradientUnderTest,
    part: Part,
    place: int,
    analytic: float = np.nan,
    here: Any = None,
) -> Path:
    """Return the path along one element; here is f at x, if it is known."""
    old = part.x.view(np.ndarray).reshape(-1)[place]
    known = {} if here is None else {0.0: (0.0, here)}
    return Path(partial(subject.along, part, place), analytic, float(np.spacing(abs(old))), known)


def evaluate_along(
    parts: Sequence[Part],
    direction: Direction,
    steps: Sequence[float],
    value: Callable[[], Any],
    kept: tuple[Callable[[], None], list[Array]] | None = None,
) -> list[Any]:
    """Return a value where the parts' arrays are moved by each of the steps; they come back.

    As `restorer` has kept them, if it was asked before.
    """
    arrays = [part.x for part in parts]
    put_back, originals = kept or restorer(arrays)
    try:
        values = []
        for step in steps:
            displace(arrays, originals, [*direction], step, [None] * len(arrays))
            values.append(value())
        return values
    finally:
        put_back()


def path_of_all(subject: GradientUnderTest, here: Any) -> Path:
    """Return the path along which all elements move, up or down at random; here is f at x."""
    parts, random = [part for part in subject.parts if part.x.size], np.random.default_rng(0)
    direction = [random.choice([-1.0, 1.0], part.x.shape) for part in parts]

    def along(offsets: Array) -> tuple[Array, Array]:
        values = evaluate_along(parts, direction, offsets.tolist(), subject.value)
        return offsets, np.array(values)

    spacings = [float(np.spacing(abs(part.x.view(np.ndarray)).max())) for part in parts]
    return Path(along, np.nan, max(spacings), {0.0: (0.0, here)})


def extrapolate(near: Any, far: Any, h: float, level: float) -> tuple[Any, Any, float]:
    """Return the value of central quotients at h and 2 h, its truncation, and its round-off.

    The truncation is that of the quotient at h; of it the share ``EXTRAPOLATION_SHARE`` is left.
    """
    change = (far - near) / 3
    return near - change, abs(change), 1.5 * level / h


def measure_noise(subject: GradientUnderTest, h: float | None) -> Noise:
    """Return how exact values of f are, from calls at x and along three elements.

    An element is moved by some quarters of the step. The fourth differences of the values there
    have the variance 70 sigma^2 if the values have independent errors of variance sigma^2, and are
    below ``(h / 4)**4`` times the fourth derivative otherwise. Where they are large, smaller steps
    tell what they are: noise stays as it is, what a kink makes of them falls with the step, and the
    rest nearly vanishes. Of three elements the middle result counts; where f does not vary with
    two of them, all elements are moved instead. Less than eps ``abs(f)`` is not believed, nor less
    than eps of the terms ``x_i g_i`` (`with_terms`).

    References
    ----------
    R. W. Hamming, *Introduction to Applied Numerical Analysis*, 1971, chapter 1; J. J. Moré and
    S. M. Wild, "Estimating computational noise", SIAM Journal on Scientific Computing 33 (2011),
    1292-1314.
    """
    if subject.is_own_net:
        # No need to measure what is known: a mean of -log(p + 1e-7), which is below 17, in float64.
        eps = float(np.finfo(np.float64).eps)
        return Noise(4 * eps * MAX_NET_LOSS, MAX_NET_LOSS, eps, True, (MAX_NET_LOSS, MAX_NET_LOSS))
    returned = subject.raw_value()
    raw, first, second = as_returned(returned), number_of(returned), subject.value()
    height = float(abs(first))
    # Integers and Python's numbers have no precision of their own: what they were computed in has.
    raw = raw if raw.dtype.kind == "f" else np.zeros(1)
    eps = max((precision(part.x, raw) for part in subject.parts), default=precision(raw, raw))
    repeats = bool(first == second) or (bool(np.isnan(first)) and bool(np.isnan(second)))
    level = float(abs(first - second))
    if repeats and np.isfinite(height):
        step = h if h is not None else Noise(eps, 1.0, eps, True, (0, 0)).step
        spreads, rough, sizes = [], [], [height]
        elements = _elements(subject)
        paths = [element_path(subject, *each, here=first) for each in elements]
        for path, (part, place) in zip(paths, elements, strict=True):
            x = float(part.x.view(np.ndarray).reshape(-1)[place])
            sizes.append(_size(path, step / STEP_DIVISORS[0], x))
        telling = [path for path in paths if np.ptp(_points(path, step / STEP_DIVISORS[0])[1])]
        if paths and len(telling) < MIN_TELLING_PATHS:
            paths = [*telling, path_of_all(subject, first)]
        for path in paths:
            spread = _spread(path, step / STEP_DIVISORS[0])
            if spread > 4 * eps * height:
                rough.append(path)
            else:
                spreads.append(spread)
        if len(rough) > 1 or not spreads:
            divisors = [*reversed(STEP_DIVISORS), WIDE_STEP_DIVISORS[0]]
            spreads += [_steady_noise(path, step, divisors) for path in rough]
        else:  # whatever it is, the middle one is not larger than this
            spreads = [max(spreads)]
        height = max(sizes)
        level = max(
            eps * height, DEVIATIONS * float(np.median(spreads)) if spreads else 0.0, MIN_NOISE
        )
    noise = Noise(level, height, eps, repeats, (float(first), float(second)))
    return noise if h is not None or noise.step == STEP else _at_its_step(subject, noise)


def _at_its_step(subject: GradientUnderTest, noise: Noise) -> Noise:
    """Return the noise as it is at the points where gradients are measured by a larger step.

    Larger numbers may be added there than at x.
    """
    step = 2 * noise.step / POINTS_PER_SIDE
    here = noise.values[0]
    spreads = [_spread(element_path(subject, *e, here=here), step) for e in _elements(subject)]
    level = DEVIATIONS * float(np.median(spreads)) if spreads else 0.0
    return replace(noise, level=level) if noise.level < level < TREND_RATIO * noise.level else noise


def with_terms(noise: Noise, parts: Sequence[Part], gradients: Sequence[Array]) -> Noise:
    """Return the noise, no less than what the terms ``x_i g_i`` of f are rounded by."""
    squares = 0.0
    with np.errstate(all="ignore"):
        for part, gradient in zip(parts, gradients, strict=True):
            terms = part.x.view(np.ndarray).reshape(-1) * gradient
            norm = float(np.linalg.norm(terms[np.isfinite(terms)]))
            squares = float(np.hypot(squares, norm))
    level = max(noise.level, TERMS * noise.eps * squares)
    return replace(noise, level=level) if np.isfinite(level) else noise


def noise_along(path: Path, h: float) -> float:
    """Return how exact values of f are along a path, over steps up to 64 h."""
    level = DEVIATIONS * _steady_noise(path, h, [*reversed(STEP_DIVISORS), *WIDE_STEP_DIVISORS])
    there = spread_over(path, 2 * h)
    return max(level, there) if there < TREND_RATIO * level else level


def noise_around(along: Callable[[Array], tuple[Array, Array]], step: float) -> float:
    """Return how exact values are at the points that a step reaches, by others next to them.

    Values at small multiples of one step, from x on, may all be rounded alike: those of a sum whose
    terms are in proportion to x and cancel lie on a line by chance.
    """
    spreads = []
    for points in (-step * STEP_MULTIPLES, step * STEP_MULTIPLES):
        lengths, values = along(points)
        # What rounding x + t changes is no noise.
        slopes = np.gradient(values, lengths)
        spreads.append(deviation(values - slopes * (lengths - points)))
    return DEVIATIONS * max(spreads)


def spread_over(path: Path, distance: float) -> float:
    """Return how exact f's values are if what is no polynomial of degree 3 over it is noise."""
    return DEVIATIONS * _spread(path, distance / POINTS_PER_SIDE)


def _elements(subject: GradientUnderTest) -> list[tuple[Part, int]]:
    """Return three elements, of the first, the middle and the last part, for which f varies most.

    By what is claimed of them, for nothing else is known yet.
    """
    parts = [part for part in subject.parts if part.analytic.size]
    if not parts:
        return []
    chosen = [parts[0], parts[len(parts) // 2], parts[-1]]
    elements = []
    for k, part in enumerate(chosen):
        sizes = np.nan_to_num(abs(part.analytic), nan=0.0, posinf=0.0)
        among = min(k + 1, sizes.size) if chosen.count(part) > 1 else 1
        elements.append((part, int(np.argpartition(sizes, -among)[-among])))
    return elements


def _steady_noise(path: Path, h: float, divisors: Sequence[float]) -> float:
    """Return the spread that is about the same at neighbouring ones of these shares of the step.

    If either side of x alone shows much less, it is that: what a jump at x makes of fourth
    differences does not fall with the step, as noise does not; but noise is on both sides of x as
    well, where a jump is not.
    """
    spreads = [_spread(path, h / divisor) for divisor in divisors]
    noise = _steady(spreads)
    saturated, divisor = _saturated(spreads, divisors)
    # Next to x may be few of the jumps that rounding makes, so that spreads grow from step to step.
    if saturated > MAX_NOISE_RATIO * noise and _is_rounded(path, h / divisor):
        noise = saturated
    alone = 0.0
    for step in (h / STEP_DIVISORS[0], h / WIDE_STEP_DIVISORS[0]):
        if noise > JUMP_FACTOR * alone:
            multiples = max(step, 8 * path.least) * np.arange(1, 2 * POINTS_PER_SIDE + 2)
            alone = max(alone, min(deviation(path(side * multiples)[1]) for side in (-1, 1)))
    return alone if noise > JUMP_FACTOR * alone else noise


def _steady(spreads: list[float]) -> float:
    """Return the largest of the spreads that are about the same at neighbouring steps, or 0.

    From the smallest step up, until one is much larger: that is no noise any more.

    Parameters
    ----------
    spreads : list of float
        From the smallest step up; 0 where the values are all the same.
    """
    seen = [spread for spread in spreads if spread > 0]
    noise = 0.0
    if len(seen) > 2 and all(larger > GROWTH_RATIO * spread for spread, larger in pairwise(seen)):
        return 0.0
    for spread, larger in pairwise(seen):
        if larger > MAX_NOISE_RATIO * spread:
            break
        noise = max(noise, spread, larger)
    return noise


def _saturated(spreads: list[float], divisors: Sequence[float]) -> tuple[float, float]:
    """Return the largest of all spreads that are about the same at the next step, and its divisor.

    Also where smaller steps show much less. 0 if there are none.
    """
    pairs = zip(pairwise(spreads), divisors[1:], strict=True)
    steady = [(spread, larger, divisor) for (spread, larger), divisor in pairs if spread > 0]
    return max(
        (
            (max(spread, larger), divisor)
            for spread, larger, divisor in steady
            if spread / MAX_NOISE_RATIO <= larger <= MAX_NOISE_RATIO * spread
        ),
        default=(0.0, divisors[0]),
    )


def _is_rounded(path: Path, step: float) -> bool:
    """Say whether f jumps within a step of x, wherever that is, as rounded values do.

    By halving an interval: the half in which the middle value is farther from the mean of both ends
    is kept. That distance stays the same as long as a jump is in it; it is halved by a kink, and
    falls faster where f is smooth, once the interval is shorter than its waves.
    """
    start, end = -step, step
    distances: list[float] = []
    for _ in range(HALVINGS):
        if end - start < 64 * path.least:
            break
        points, values = path(np.linspace(start, end, 5))
        with np.errstate(all="ignore"):
            left, right = (abs(values[k + 1] - (values[k] + values[k + 2]) / 2) for k in (0, 2))
        start, end = (points[0], points[2]) if left > right else (points[2], points[4])
        distances.append(max(left, right))
    if len(distances) <= LAST_HALVINGS:
        return False
    last, before = distances[-1], distances[-1 - LAST_HALVINGS]
    least = 64 * np.finfo(np.float64).eps * float(np.max(abs(values)))
    return bool(before < np.inf and last > max(before / 2, least))


def _points(path: Path, step: float) -> tuple[Array, Array]:
    """Return offsets at even distances on both sides of x, and f there."""
    return path(max(step, 8 * path.least) * np.arange(-POINTS_PER_SIDE, POINTS_PER_SIDE + 1))


def _spread(path: Path, step: float) -> float:
    """Return the standard deviation of f's values along a path, trends of degree 3 aside."""
    return deviation(_points(path, step)[1])


def _size(path: Path, step: float, x: float) -> float:
    """Return the size of f along a path: of its values, or of x times its slope."""
    points, values = _points(path, step)
    with np.errstate(all="ignore"):
        size = float(np.max(abs(values)))
        if not 0 < size < np.inf:
            return 0.0
        term = size * abs(_slope(points, values / size) * x)
    return max(size, term if np.isfinite(term) else 0.0)


def _slope(points: Array, values: Array) -> float:
    """Return the slope of values, the largest change between neighbours aside: it may be a jump."""
    changes = np.diff(values)
    largest = int(np.argmax(abs(changes)))
    width = float(points[-1] - points[0]) - float(points[largest + 1] - points[largest])
    return float(changes.sum() - changes[largest]) / width


def deviation(values: Array) -> float:
    """Return the standard deviation of values at even distances, trends of degree 3 aside."""
    size = float(np.max(abs(values)))
    if not 0 < size < np.inf:
        return 0.0
    # The squares of values near the limits of double precision are not finite.
    differences = np.convolve(values / size, FOURTH_DIFFERENCE, mode="valid").astype(np.float64)
    return size * float(np.sqrt(np.mean(differences**2) / 70))
