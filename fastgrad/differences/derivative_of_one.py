"""One element's derivative at adaptive steps, in single numbers, where f looks smooth.

Of a few elements operations on arrays would take longer than most functions do. What is not certain
to have the same result as that of an `fastgrad.differences.adaptive_steps.Extrapolation` is left to
that.
"""

import math
from collections.abc import Callable

from fastgrad.differences.adaptive_steps import (
    BEND_POWERS,
    DIVERGENCE_ERROR,
    EPS,
    FIRST_STEPS,
    MAX_FALL,
    MIN_CLEAR_SHARE,
    MIN_ERROR_EPS,
    REMAINDER_FACTOR,
    ROUNDING_FACTOR,
    SMALLEST_SPACING,
    SMOOTH_ERROR,
    SUFFICIENT_STEPS,
)
from fastgrad.differences.richardson import Limit, Run, Tableau, step_at
from fastgrad.schemes import central_quotient

MAX_SIZE, MIN_FIRST_STEP = 1e100, 1e-100
"""Of x and f, and of the first step: nothing overflows, or is lost at the end of the range."""

STEP_RATIOS = {k: float(step_at(k)) for k in range(-SUFFICIENT_STEPS, SUFFICIENT_STEPS + 1)}
"""The sequence of steps, in units of the first one."""

NO_LIMIT = Limit(Run(0, 0, math.nan, math.inf, math.inf), math.inf)
"""That no limit has been found yet."""


def derivative_of_one(
    evaluate: Callable[[list[float]], list[float] | None],
    x: float,
    base: float,
    first: float,
    tolerance: float,
) -> tuple[float, float, float] | None:
    """Return the derivative of f, its error, and the smallest step that it is made of.

    By central quotients at steps that are chosen as an `Extrapolation` chooses them.

    Parameters
    ----------
    evaluate : callable
        What returns f where the element is moved to some points; None where it is not defined.
    x : float
        Where the element is.
    base : float
        f at x.
    first : float
        The step to begin with, rounded down to a power of two.
    tolerance : float
        The relative error that is small enough.

    Returns
    -------
    triple of float, or None
        None if f does not look smooth there, or there is anything else to be looked at.
    """
    size = abs(x)
    if not (size < MAX_SIZE and abs(base) < MAX_SIZE > first > MIN_FIRST_STEP):
        return None
    first = math.ldexp(1.0, math.frexp(first)[1] - 1)

    def step_of(k: int) -> float:
        return (size + first * STEP_RATIOS[k]) - size

    quotients, bends = Tableau(central_quotient.error_powers), Tableau(BEND_POWERS)
    new, upwards, stalled, best = range(FIRST_STEPS), False, 0, NO_LIMIT
    while len(quotients.quotients) < SUFFICIENT_STEPS:
        steps = [step_of(k) for k in new]
        values = evaluate([point for step in steps for point in (x + step, x - step)])
        if values is None or not all(abs(value) < MAX_SIZE for value in values):
            return None
        if (len(new) > 1 and _may_be_rounded(values[0])) or steps[-1] < 2 * math.ulp(x):
            return None
        for k, step, above, below in zip(new, steps, values[::2], values[1::2], strict=True):
            quotient = (above - below) / (2 * step)
            magnitude = max(abs(above), abs(below)) + size * abs(quotient)
            noise = (EPS * magnitude + SMALLEST_SPACING) / step
            quotients.add(k, quotient, noise)
            bends.add(k, ((above - base) + (below - base)) / (2 * step), 2 * noise)
        found = _limit_with_kink(quotients, bends)
        if found is None:
            return None
        # Larger steps may improve what has been found, and are not believed if they contradict.
        apart = abs(found.run.value - best.run.value)
        rejected = upwards and apart > found.error + best.error
        stalled = 0 if found.error < best.error / 2 else stalled + 1
        if not (upwards and (rejected or found.error >= best.error)):
            best = found
        largest, smallest = min(quotients.quotients), max(quotients.quotients)
        upwards = found.run.round_off > found.run.truncation and found.run.first == largest
        is_last = len(quotients.quotients) == SUFFICIENT_STEPS
        if rejected or _is_enough(found, stalled > 0, upwards, is_last, tolerance):
            smooth = _is_smooth(found, stalled > 0, upwards, tolerance)
            return (best.run.value, best.error, step_of(best.run.last)) if smooth else None
        new = range(largest - 1, largest) if upwards else range(smallest + 1, smallest + 2)
    return None


def _limit_with_kink(quotients: Tableau, bends: Tableau) -> Limit | None:
    """Return the limit, its error with half the jump of the slope at a kink; None if in doubt."""
    found = quotients.checked_limit()
    if found is None or not found.run.value:
        return None
    run, error = found
    if run.truncation > SMOOTH_ERROR * abs(run.value):
        error += (REMAINDER_FACTOR - 1) * run.truncation
    sizes = {k: abs(bend) for k, bend in bends.quotients.items()}
    narrow = max(size - 2 * bends.noise[k] for k, size in sizes.items() if k >= run.last)
    wide = sizes[run.last - 1] + 2 * bends.noise[run.last - 1]
    stays = narrow if narrow > MAX_FALL * wide else 0.0
    jump = bends.limit()
    size = abs(jump.run.value)
    kink = size + jump.error if size > MIN_CLEAR_SHARE * jump.error else 0.0
    if stays > run.truncation:
        run = run._replace(truncation=stays)
    return Limit(run, error + max(kink, stays))


def _is_enough(found: Limit, stalled: bool, upwards: bool, is_last: bool, tolerance: float) -> bool:
    """Say whether there need be no further steps."""
    round_off = found.run.round_off
    if found.relative <= max(tolerance, MIN_ERROR_EPS * EPS):
        return True
    if found.relative < EPS**0.5 and (is_last or (stalled and _is_rounding(found))):
        return True
    return 4 * round_off > found.error and not upwards


def _is_smooth(found: Limit, stalled: bool, upwards: bool, tolerance: float) -> bool:
    """Say whether f looks smooth where the steps have ended, and no other first step is better."""
    explained = found.error <= 4 * found.run.round_off or found.relative <= DIVERGENCE_ERROR
    roundoff_limited = upwards and found.relative > EPS**0.5
    rough = not _is_rounding(found) and stalled and found.relative > tolerance
    return explained and not roundoff_limited and not rough


def _is_rounding(found: Limit) -> bool:
    """Say whether rounding explains an error: what is far above it, and stays, may be noise."""
    return found.error < ROUNDING_FACTOR * found.run.round_off


def _may_be_rounded(value: float) -> bool:
    """Say whether a value of f has so few digits that f may round its values itself."""
    if not value:
        return True
    fraction, _ = math.frexp(value)
    if int(fraction * 2**53) % 2**9 == 0:
        return True
    scaled = abs(value) * 10.0 ** (12 - math.ceil(math.log10(abs(value))))
    return abs(scaled - round(scaled)) <= 2e-3
