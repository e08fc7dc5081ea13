"""How noisy are the values of f? What rounding makes of them, measured, and the step that suits."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.subject import Part, Subject
from fastgrad.steps import precision

Array = NDArray[Any]

STEP = 1e-4
"""The book's step, for values of double precision."""

REACH = 3
"""Points to each side of x on a line along which the noise is measured."""

FOURTH = np.array([1.0, -4.0, 6.0, -4.0, 1.0])
"""Weights of the fourth difference, of which a smooth f leaves nothing at small steps."""

DEVIATIONS = 4.0
"""Standard deviations that are taken for the most that a value is wrong by."""

LARGEST = 17.0
"""What the loss of fastgrad's own net does not exceed."""

SPREADS = (4, 64, 1024, 16384)
"""By what the step is divided on a line, to tell noise from trends."""

COARSE = 2.0**20
"""Times eps of double precision from which f is said to compute in a coarser one."""


@dataclass(frozen=True)
class Noise:
    """How exact values of f are.

    Attributes
    ----------
    level : float
        By how much a value may be wrong, at the points where gradients are measured.
    height : float
        ``abs(f(x))``.
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
        """The level in units of ``abs(f(x))``; of eps, where f is 0."""
        return max(self.level / self.height, self.eps) if self.height else self.eps

    @property
    def is_coarse(self) -> bool:
        """Whether f computes in less than double precision, whatever it returns."""
        return self.relative >= COARSE * float(np.finfo(np.float64).eps)

    @property
    def step(self) -> float:
        """The step: the book's in double precision, a power of two near the cube root elsewhere."""
        if self.relative < 1e4 * float(np.finfo(np.float64).eps):
            return STEP
        return float(min(2.0 ** np.round(np.log2(self.relative ** (1 / 3))), 2.0**-6))


def measure_noise(subject: Subject, h: float | None) -> Noise:
    """Return how exact values of f are, from calls at x and along a few lines through it.

    Along a line, one element is moved by some quarters of the step. The fourth differences of the
    values there have the variance 70 sigma^2 if the values have independent errors of variance
    sigma^2, and are below ``(h / 4)**4`` times the fourth derivative otherwise. Where they are
    large, smaller steps tell what they are: noise stays as it is, the others nearly vanish. Of
    three lines the middle result counts, for a kink may lie on one of them. Less than eps
    ``abs(f)`` is not believed.

    References
    ----------
    R. W. Hamming, *Introduction to Applied Numerical Analysis*, 1971, chapter 1; J. J. Moré and
    S. M. Wild, "Estimating computational noise", SIAM Journal on Scientific Computing 33 (2011),
    1292-1314.
    """
    if subject.is_own_net:
        # No need to measure what is known: a mean of -log(p + 1e-7), which is below 17, in float64.
        eps = float(np.finfo(np.float64).eps)
        return Noise(4 * eps * LARGEST, LARGEST, eps, True, (LARGEST, LARGEST))
    first, second = subject.value(), subject.value()
    height = float(abs(first))
    raw = np.asarray(subject.f(subject.x, *subject.args))
    eps = max((precision(part.x, raw) for part in subject.parts), default=precision(raw, raw))
    repeats = bool(first == second) or (bool(np.isnan(first)) and bool(np.isnan(second)))
    step = h if h is not None else Noise(eps * height, height, eps, True, (0, 0)).step
    if repeats and np.isfinite(height):
        expected = eps * height
        spreads = [_noise_on(subject, *line, step, expected) for line in _lines(subject)]
        level = max(eps * height, DEVIATIONS * float(np.median(spreads)) if spreads else 0.0)
    else:
        level = max(eps * height, float(abs(first - second)))
    return Noise(level, height, eps, repeats, (float(first), float(second)))


def _lines(subject: Subject) -> list[tuple[Part, int]]:
    """Return three elements, of the first, the middle and the last part, for which f varies most.

    By what is claimed of them, for nothing else is known yet.
    """
    parts = [part for part in subject.parts if part.claim.size]
    if not parts:
        return []
    chosen = [parts[0], parts[len(parts) // 2], parts[-1]]
    lines = []
    for k, part in enumerate(chosen):
        sizes = np.nan_to_num(abs(part.claim), nan=0.0, posinf=0.0)
        among = min(k + 1, sizes.size) if chosen.count(part) > 1 else 1
        lines.append((part, int(np.argpartition(sizes, -among)[-among])))
    return lines


def _noise_on(subject: Subject, part: Part, place: int, h: float, expected: float) -> float:
    """Return the standard deviation of the errors of f's values along a line."""
    spread = _spread(subject, part, place, h / SPREADS[0])
    if not spread > 4 * expected:
        return spread
    smaller = [_spread(subject, part, place, h / divisor) for divisor in SPREADS[1:]]
    # From the smallest step up, as long as it stays about the same: a trend would grow by 65,536.
    noise = 0.0
    for level in [*reversed(smaller), spread]:
        if noise and level > 30 * noise:
            break
        noise = max(noise, level)
    return noise


def _spread(subject: Subject, part: Part, place: int, step: float) -> float:
    """Return the standard deviation of f's values along a line, trends of degree 3 aside."""
    old = part.x.view(np.ndarray).reshape(-1)[place]
    step = max(step, 8 * float(np.spacing(abs(old))))
    points = (old + step * np.arange(-REACH, REACH + 1)).astype(part.x.dtype)
    values = subject.values(part.problem, place, points)
    differences = np.convolve(values, FOURTH, mode="valid")
    return float(np.sqrt(np.mean(differences.astype(np.float64) ** 2) / 70))
