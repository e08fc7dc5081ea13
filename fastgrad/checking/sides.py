"""One-sided quotients of many elements at once, and which gradients are excused by a kink."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.typing import Array, Places

STEP_RATIO = 8
"""Ratio of neighbouring steps at which both sides are looked at."""

SMALLER_STEPS = 2
"""How many smaller steps are taken."""

MIN_ENGINE_SHARE = 0.25
"""Share of an array's elements from which an engine takes the quotients, of all of them."""

MIN_RECORDED_ELEMENTS = 8
"""Elements from which it takes them where f has been recorded."""

MAX_CHANGE = 0.25
"""Share of the difference of both sides by which each may change with the step at a kink."""

MIN_ERROR_FACTOR = 4.0
"""Times what noise hides that a gradient differs by, for a smaller step to excuse it."""


def hidden_at(subject: GradientUnderTest, part: Part, level: float, h: float) -> Array:
    """Return by how much noise of this level may change each element's one-sided quotients."""
    return 2 * level / _steps(subject, part, h)


def is_by_engine(subject: GradientUnderTest, part: Part, places: Places, h: float) -> bool:
    """Say whether an engine is to take the quotients of so many elements, and of all others."""
    is_uniform = isinstance(subject.steps(part, h), float) and not subject.is_own_net
    is_cheap = len(places) >= MIN_RECORDED_ELEMENTS and subject.is_recorded(part)
    return is_uniform and (is_cheap or len(places) >= MIN_ENGINE_SHARE * part.x.size)


def sides_of(
    subject: GradientUnderTest, part: Part, places: Places, h: float, central: Array | None = None
) -> Array:
    """Return the one-sided difference quotients of these elements, a row (below, above) for each.

    By two calls of f for each of them; of many by an engine, by two gradients of the part.

    Parameters
    ----------
    subject, part, places
    h : float
        The step.
    central : array (size,), optional
        The central quotients at this step: by half as many calls then.
    """
    if not len(places):
        return np.empty((0, 2))
    if is_by_engine(subject, part, places, h):
        [above] = subject.quotients([part], h, "forward")
        [below] = subject.quotients([part], h, "backward") if central is None else [0 * above]
        below, above = below[places], above[places]
    else:
        here: Any = subject.value()
        signs = np.array([-1.0, 1.0] if central is None else [1.0])
        quotients = []
        for place, step in zip(places.tolist(), _steps(subject, part, h)[places], strict=True):
            lengths, values = subject.along(part, place, step * signs)
            quotients.append((values - here) / lengths)
        below, above = np.array(quotients)[:, 0], np.array(quotients)[:, -1]
    if central is not None:
        below = 2 * central[places] - above
    return np.stack([below, above], axis=1)


def excused_by(
    far: Array, near: Array, hidden: Array, analytic: Array
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return at which elements a gradient is excused: by a kink at x, and by one next to x.

    At a kink the sides stay the same from step to step, other than those of a curve or a jump, and
    the gradient is between them. Next to one it agrees at the smaller step with their mean, or with
    one of them: the kink is on the other side.

    Parameters
    ----------
    far, near : array (n, 2)
        Both sides at the larger and at the smaller step.
    hidden : array (n,)
        What the gradient may differ by.
    analytic : array (n,)
        What is claimed.
    """
    difference = abs(near[:, 1] - near[:, 0])
    change = abs(near - far).max(axis=1)
    has_kink = (change <= MAX_CHANGE * difference) & (difference > 2 * hidden)
    distance = abs(analytic - near.mean(axis=1))
    between = distance <= difference / 2 + change / (STEP_RATIO - 1) + hidden
    on_a_side = abs(near - analytic[:, np.newaxis]).min(axis=1)
    agrees = np.minimum(distance, on_a_side) <= hidden
    return has_kink & between, ~has_kink & agrees


def _steps(subject: GradientUnderTest, part: Part, h: float) -> Array:
    steps: Array = np.broadcast_to(subject.steps(part, h), part.x.shape).reshape(-1)
    return steps
