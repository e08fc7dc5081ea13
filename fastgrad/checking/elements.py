"""A closer look at f along one element: whether its gradient is wrong, or the difference is."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from fastgrad.checking.noise import FOURTH, TINY, Noise, noise_along, noise_around, spread_over
from fastgrad.checking.one_sided import OneSided, one_sided
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.typing import Array

Kind = Literal["smooth", "kink", "jump", "step", "unclear"]

ROUGH = 16.0
"""Times the noise from which a fourth difference shows that f is not smooth over the points."""

EXTRAPOLATED = 0.02
"""Share of the truncation error that extrapolation leaves, where f is smooth over the step."""

TOP = 16.0
"""Times h that the largest of the steps is at which one-sided quotients are taken."""

FARTHEST = 256.0
"""The same where f is smooth, but for noise, at h, and as smooth at larger steps."""

SINGLE = 0.6
"""Share of the second differences that a single kink has, and a curve of degree 5 has not."""


@dataclass(frozen=True)
class Probe:
    """What f does near x when one element moves.

    Attributes
    ----------
    place : int
        The element, in C order.
    kind : {"smooth", "kink", "jump", "step", "unclear"}
        Smooth over twice the step to both sides; or with a kink there; or with a jump at x; or not
        smooth at this step without either, so that only a smaller step shows the derivative; or
        such that one-sided quotients contradict the claim, but not those at the smallest steps.
    value, error : float
        The derivative, and how wrong it may be; at a kink the value next to the claim that lies
        between the one-sided derivatives.
    below, above : float
        The one-sided difference quotients; at a jump the slopes beside it.
    step : float
        By which step they were taken.
    distance : float
        Where the kink is, as seen from x; 0 if it is at x, or there is none.
    contradicts : bool
        Whether what is claimed cannot be the derivative, nor lie between the one-sided ones.
    """

    place: int
    kind: Kind
    value: float
    error: float
    below: float
    above: float
    step: float
    distance: float
    contradicts: bool


def probe_element(
    subject: GradientUnderTest, part: Part, place: int, claim: float, noise: Noise, h: float
) -> Probe:
    """Return whether f contradicts a claimed derivative, from calls along one element.

    From f at the multiples of h / 2 up to 2 h the central quotients are extrapolated. If the fourth
    differences are no larger than the noise, f is smooth there, and these quotients judge. What
    hides below a fourth difference D, such as a small kink, changes them by 2 D / h at most.

    If f is not smooth, one-sided quotients at falling steps enclose the derivative, if there is
    one, and what backpropagation may return at a kink: a number between the two one-sided
    derivatives (`fastgrad.checking.one_sided`).

    Nothing is contradicted before the noise of f has been measured along this element, too.
    """
    step = subject.steps(part, h)
    h = step if isinstance(step, float) else float(step.reshape(-1)[place])
    found = _probe(subject, part, place, claim, noise.level, h)
    if found.contradicts:
        own = noise_along(subject, part, place, h)
        if found.kind == "smooth":
            own = max(own, noise_around(subject, part, place, found.step))
        if own > noise.level:
            found = _probe(subject, part, place, claim, own, h)
    return found


def _probe(
    subject: GradientUnderTest, part: Part, place: int, claim: float, level: float, h: float
) -> Probe:
    old = part.x.view(np.ndarray).reshape(-1)[place]
    spacing = float(np.spacing(abs(old)))
    grid = max(h / 2, 8 * spacing)
    offsets, values = _along(subject, part, place, old, grid * np.arange(-4, 5))
    with np.errstate(all="ignore"):
        smooth = _smooth(offsets, values, claim, level, grid)
    if smooth is not None:
        value, least, error, below, above = smooth
        wrong = not abs(claim - value) <= error
        found = Probe(place, "smooth", value, error, below, above, 2 * grid, 0.0, wrong)
        if wrong or abs(claim - value) <= least:
            return found
    top = TOP * h if smooth is None else _farthest(subject, part, place, level, h)
    sides, unit = _sides(subject, part, place, old, claim, level, top)
    if smooth is not None and not sides.refuted:
        return found
    kind: Kind = "step"
    distance = 0.0
    if sides.is_excused:
        kind = "unclear"
    elif sides.jumps:
        kind = "jump"
    elif sides.has_kink:
        kind = "kink"
    elif (place_of := _kink(subject, part, place, old, offsets, values)) is not None:
        kind, distance = "kink", place_of
    with np.errstate(all="ignore"):
        value, below, above = (
            float(claim + unit * rest) for rest in (sides.closest, sides.below, sides.above)
        )
        error = float(unit * sides.smallest_error)
    wrong = sides.refuted or not np.isfinite(sides.closest)
    return Probe(place, kind, value, error, below, above, sides.step, distance, wrong)


def _smooth(
    offsets: Array, values: Array, claim: float, level: float, grid: float
) -> tuple[float, float, float, float, float] | None:
    """Return the derivative, its error, and both one-sided quotients, if f is smooth there.

    The error as it is without a kink that the noise may hide, and with one.
    """
    unit = unit_of(values)
    if unit is None:
        return None
    f, level = values / unit, level / unit
    rough = float(np.max(abs(np.convolve(f, FOURTH, mode="valid"))))
    if not rough <= ROUGH * level:
        return None
    near = (f[6] - f[2]) / (offsets[6] - offsets[2])
    far = (f[8] - f[0]) / (offsets[8] - offsets[0])
    value = near + (near - far) / 3
    below = (f[4] - f[2]) / (offsets[4] - offsets[2])
    above = (f[6] - f[4]) / (offsets[6] - offsets[4])
    least = EXTRAPOLATED * abs(far - near) / 3 + 1.5 * level / grid / 2
    found = unit * np.array([value, least, least + rough / grid, below, above], float)
    if not np.isfinite(found).all():
        return None
    value, least, error, below, above = found.tolist()
    return value, least, error, below, above


def _sides(
    subject: GradientUnderTest,
    part: Part,
    place: int,
    old: Any,
    claim: float,
    level: float,
    top: float,
) -> tuple[OneSided, float]:
    """Return what one-sided quotients tell, in a unit in which f is about 1, and that unit."""
    _, values = _along(subject, part, place, old, top * np.array([0.0, -1.0, 1.0]))
    here, unit = values[:1], largest_unit(values)

    def remainder(t: float) -> tuple[float, float]:
        offsets, values = _along(subject, part, place, old, np.array([t]))
        return float(offsets[0]), float((values[0] - here[0]) / unit - claim / unit * offsets[0])

    least = max(4 * float(np.spacing(abs(old))), float(np.finfo(part.x.dtype).tiny))
    with np.errstate(all="ignore"):
        return one_sided(remainder, level / unit, top, least), unit


def _farthest(subject: GradientUnderTest, part: Part, place: int, level: float, h: float) -> float:
    """Return the largest step over which f is smooth but for this noise; twice h if none is."""
    step = FARTHEST * h
    while step > 4 * h and spread_over(subject, part, place, step) > 2 * level:
        step /= 4
    return max(step, 2 * h)


def unit_of(values: Array) -> float | None:
    """Return a power of two of the values' size, at which nothing over- or underflows."""
    size = float(np.max(abs(values)))
    if not np.isfinite(size):
        return None
    return float(2.0 ** np.floor(np.log2(max(size, TINY / np.finfo(np.float64).eps))))


def largest_unit(values: Array) -> float:
    """Return the unit of those that are finite: at x, where f may be 0, and a step away."""
    return unit_of(np.where(np.isfinite(values), values, 0.0)) or 1.0


def _along(
    subject: GradientUnderTest, part: Part, place: int, old: Any, offsets: Array
) -> tuple[Array, Array]:
    """Return where the element really goes, as offsets from x, and f there."""
    with np.errstate(all="ignore"):
        points = (old + offsets).astype(part.x.dtype)
    values = subject.values(part.problem, place, points)
    wide = np.result_type(part.x.dtype, values.dtype)
    return points.astype(wide) - wide.type(old), values


def _kink(
    subject: GradientUnderTest, part: Part, place: int, old: Any, offsets: Array, values: Array
) -> float | None:
    """Return where a kink is, if the second differences gather in one place, also seen closer."""
    for _ in range(2):
        bends = abs(np.diff(np.diff(values)))
        pairs = bends[:-1] + bends[1:]
        most = int(np.argmax(pairs))
        if not pairs[most] >= SINGLE * bends.sum():
            return None
        middle = float(offsets[most + 1] + offsets[most + 2]) / 2
        width = float(offsets[1] - offsets[0])
        offsets, values = _along(subject, part, place, old, middle + 0.4 * width * np.arange(-4, 5))
    return middle
