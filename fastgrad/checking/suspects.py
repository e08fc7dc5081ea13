"""Is a single element's gradient wrong, or the difference? A closer look at f along the element."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.noise import FOURTH, Noise
from fastgrad.checking.subject import Part, Subject

Array = NDArray[Any]

Kind = Literal["smooth", "kink", "step"]

ROUGH = 16.0
"""Times the noise from which a fourth difference shows that f is not smooth over the points."""

MARGINS = (4096.0, 64.0)
"""How sure the one-sided quotients are to be: times the noise that the deviation is, there."""

SINGLE = 0.6
"""Share of the second differences that a single kink has, and a curve of degree 5 has not."""


@dataclass(frozen=True)
class Look:
    """What f does near x when one element moves.

    Attributes
    ----------
    place : int
        The element, in C order.
    kind : {"smooth", "kink", "step"}
        Smooth over twice the step to both sides; or with a kink there; or not smooth at this step
        without a kink, so that only a smaller step shows the derivative.
    value, error : float
        The derivative, and how wrong it may be; at a kink the value next to the claim that lies
        between the one-sided derivatives.
    below, above : float
        The one-sided difference quotients.
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


def look(subject: Subject, part: Part, place: int, claim: float, noise: Noise, h: float) -> Look:
    """Return whether f contradicts a claimed derivative, from calls along one element.

    From f at the multiples of h / 2 up to 2 h the central quotients are extrapolated. If the fourth
    differences are no larger than the noise, f is smooth there, and these quotients judge. What
    hides below a fourth difference D, such as a small kink, changes them by 2 D / h at most.

    If f is not smooth, the step is as small as the noise allows for a deviation of this size, or
    somewhat larger. There the one-sided quotients enclose the derivative, if there is one, and what
    backpropagation may return at a kink: a number between the two one-sided derivatives.
    """
    old = part.x.view(np.ndarray).reshape(-1)[place]
    spacing = float(np.spacing(abs(old)))
    grid = max(h / 2, 8 * spacing)
    offsets, values = _along(subject, part, place, old, grid * np.arange(-4, 5))
    rough = float(np.max(abs(np.convolve(values, FOURTH, mode="valid"))))
    near = (values[6] - values[2]) / (offsets[6] - offsets[2])
    far = (values[8] - values[0]) / (offsets[8] - offsets[0])
    truncation = abs(far - near) / 3
    value = near + (near - far) / 3
    below = (values[4] - values[2]) / (offsets[4] - offsets[2])
    above = (values[6] - values[4]) / (offsets[6] - offsets[4])
    deviation = abs(claim - value)
    if not rough > ROUGH * noise.level:
        error = float(truncation + 1.5 * noise.level / grid / 2 + rough / grid)
        wrong = not deviation <= error
        return Look(
            place, "smooth", float(value), error, float(below), float(above), 2 * grid, 0.0, wrong
        )
    for margin in MARGINS:
        small = margin * noise.level / deviation if deviation > 0 else grid
        small = float(np.clip(small, min(8 * spacing, grid / 4), grid / 4))
        below, above, error = _one_sided(subject, part, place, old, small, noise)
        closest = float(np.clip(claim, min(below, above), max(below, above)))
        wrong = not abs(claim - closest) <= error
        if not wrong:
            break
    kind: Kind = "step"
    distance = 0.0
    if abs(above - below) > 2 * error and _persists(
        subject, part, place, old, small, above - below
    ):
        kind = "kink"
    elif (place_of := _kink(subject, part, place, old, offsets, values)) is not None:
        kind, distance = "kink", place_of
    return Look(place, kind, closest, error, below, above, small, distance, wrong)


def _one_sided(
    subject: Subject, part: Part, place: int, old: Any, step: float, noise: Noise
) -> tuple[float, float, float]:
    """Return the one-sided quotients, from below and from above, and their error by noise."""
    (low, _, high), (first, middle, last) = _along(
        subject, part, place, old, step * np.array([-1.0, 0.0, 1.0])
    )
    error = 2 * noise.level / min(-low, high)
    return float((middle - first) / -low), float((last - middle) / high), float(error)


def _persists(subject: Subject, part: Part, place: int, old: Any, step: float, jump: float) -> bool:
    """Return whether the one-sided quotients differ as much at an eighth of the step."""
    closer = max(step / 8, 4 * float(np.spacing(abs(old))))
    (low, _, high), (first, middle, last) = _along(
        subject, part, place, old, closer * np.array([-1.0, 0.0, 1.0])
    )
    return bool(abs((last - middle) / high - (middle - first) / -low) > abs(jump) / 2)


def _along(
    subject: Subject, part: Part, place: int, old: Any, offsets: Array
) -> tuple[Array, Array]:
    """Return where the element really goes, as offsets from x, and f there."""
    points = (old + offsets).astype(part.x.dtype)
    values = subject.values(part.problem, place, points)
    return (points - old).astype(values.dtype), values


def _kink(
    subject: Subject, part: Part, place: int, old: Any, offsets: Array, values: Array
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
