"""Whether f is analytic, as the complex step assumes: compared along one direction with real steps.

Where f takes the real part, the modulus or the conjugate of something, what depends on that is lost
in the imaginary part, and complex steps would give another number than the derivative.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from fastgrad.differences.arguments import as_returned
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import precision
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.typing import Array

EXACT_STEP = 1e-10
"""The relative step up to which complex quotients have no truncation error to speak of."""

SHRINK = 8
"""How many times shorter the second real step is than the first."""

MARGIN = 10
"""How many times the error that quotients show by themselves is believed to be theirs."""

ROUNDING_ERRORS = 64
"""Rounding errors of f's values, in eps, that quotients may be off by without showing it."""


def require_analytic(problems: Iterable[Problem], *, stacked: bool) -> int:
    """Refuse an f whose complex quotients are not its real ones; return how often it was called.

    That is six times for each array, and a seventh time where the complex step is a large one. Both
    are measured along one direction that is drawn at random, always the same one. A difference
    counts where real quotients at two steps, and on both sides of x, agree with each other: so
    neither next to kinks and jumps nor where f is noise or varies over shorter distances.

    Parameters
    ----------
    problems : iterable of Problem
        Their x is moved, and as it was afterwards.
    stacked : bool
        Whether f takes a stack of points.

    Raises
    ------
    ValueError
        If f is not analytic.
    """
    with np.errstate(all="ignore"):
        return sum(_require_analytic(each, stacked) for each in problems if each.x.size)


def _require_analytic(problem: Problem, stacked: bool) -> int:
    """Refuse an f that is not analytic in one array; return how often it was called."""
    x = problem.x.view(np.ndarray)
    before = x.copy(order="K")
    wide = before.astype(np.result_type(x.dtype, np.float64))
    scale = np.maximum(abs(wide), 1)
    random = np.random.default_rng(0)
    direction = random.choice([-1.0, 1.0], x.shape) * random.uniform(0.5, 1, x.shape) * scale
    calls = _Calls(problem, stacked)
    try:
        try:
            [value] = calls.values([before])
            step = precision(x, value) ** (1 / 3)
            if problem.bounds is not None:
                lower, upper = (limit.reshape(x.shape) for limit in problem.bounds)
                reach = step * abs(direction)
                direction *= (before - reach >= lower) & (before + reach <= upper)
            steps = step, -step, step / SHRINK, -step / SHRINK
            points = [(wide + s * direction).astype(x.dtype) for s in steps]
            f = np.array([value, *calls.values(points)]).real
        finally:
            x[...] = before
        length = float(np.min(np.reshape(problem.steps, -1) / scale.reshape(-1)))
        lengths = [length] if length <= EXACT_STEP else [length, length / 2]
        complex_f = np.array(calls.values([wide + 1j * each * direction for each in lengths]))
    except Exception as error:  # which derivatives raise by themselves, if they meet it
        raise_interrupt(error)
        return calls.count
    if (f.dtype.kind, complex_f.dtype.kind) != ("f", "c"):
        return calls.count
    quotients = [each.imag / t for each, t in zip(complex_f, lengths, strict=True)]
    by_complex, truncation = quotients[-1], abs(quotients[0] - quotients[-1])
    farther = (f[1] - f[2]) / (2 * step)
    above, below = (f[3] - f[0]) * SHRINK / step, (f[0] - f[4]) * SHRINK / step
    by_real, apart = (above + below) / 2, abs(farther - (above + below) / 2)
    eps = precision(x, value)
    rounding = ROUNDING_ERRORS * eps * abs(f).max(axis=0) * SHRINK / step
    size = np.maximum(abs(by_real), abs(by_complex))
    own = apart + abs(above - below) / 2 + truncation
    allowed = MARGIN * own + rounding + eps ** (1 / 5) * size
    is_wrong = (abs(by_complex - by_real) > allowed) & (apart <= abs(by_real) / MARGIN + rounding)
    if is_wrong.any():
        k = np.unravel_index(int(np.argmax(is_wrong)), is_wrong.shape)
        raise ValueError(
            f"f is not analytic in {problem.name}: along a direction its derivative is "
            f"{by_real[k]:.6g} by real steps, but {by_complex[k]:.6g} by complex ones, as where f "
            "takes the conjugate, the real part, the modulus or the sign of something, or where "
            "numba rounds a power; pass another scheme, such as 'central'"
        )
    return calls.count


class _Calls:
    """Calls of f, with their count."""

    def __init__(self, problem: Problem, stacked: bool) -> None:
        self.problem, self.stacked, self.count = problem, stacked, 0

    def values(self, points: list[Array]) -> list[Array]:
        """Return f at these points: real ones in x's own place, complex ones in another array."""
        f, x = self.problem.f, self.problem.x
        if self.stacked:
            self.count += 1
            return [*as_returned(f(np.array(points)))]
        found = []
        place: Any = x.astype(points[0].dtype) if points[0].dtype.kind == "c" else x
        for point in points:
            place.view(np.ndarray)[...] = point
            self.count += 1
            found.append(as_returned(f(place)))
        return found
