"""Whether the error estimates of `differentiate` are honest.

Waves that are faster than the first steps, and functions that are computed in float32, rounded or
printed, are what looks converged and is not. A derivative counts as wrong if it is farther from the
exact one than ten times its own estimated error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastgrad import differentiate

WRONG = 10.0
"""Times its estimated error that a derivative may be off."""

SMOOTH: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "exp": (np.exp, np.exp),
    "sine": (np.sin, np.cos),
    "tanh": (np.tanh, lambda u: 1 / np.cosh(u) ** 2),
    "peak": (lambda u: 1 / (1 + u * u), lambda u: -2 * u / (1 + u * u) ** 2),
    "log": (lambda u: np.log1p(u * u), lambda u: 2 * u / (1 + u * u)),
    "cubic": (lambda u: u**3 - 2 * u, lambda u: 3 * u * u - 2),
}
"""Functions and their derivatives."""


@dataclass(frozen=True)
class Case:
    """A function of one number, where it is differentiated, and its derivative there."""

    f: Callable[[Any], float]
    x: float
    exact: float


def waves(count: int, seed: int) -> Iterator[Case]:
    """Yield ``a sin(w x + p)`` with w from 1 to 1,000."""
    draw = np.random.default_rng(seed)
    for _ in range(count):
        w, p, a = 10 ** draw.uniform(0, 3), draw.uniform(0, 7), 10 ** draw.uniform(-3, 3)
        kind = draw.integers(4)
        w = float(round(w)) if kind == 0 else 2 * np.pi * (1 + w // 6) if kind == 1 else w
        sign = draw.choice([-1, 1])
        x = float([draw.normal(), sign * 10 ** draw.uniform(-2, 2), draw.integers(1, 20)][kind % 3])
        phase = np.longdouble(w) * np.longdouble(x) + np.longdouble(p)

        def f(x: Any, a: float = a, w: float = w, p: float = p) -> float:
            return float(a * np.sin(w * x + p))

        yield Case(f, x, float(a * w * np.cos(phase)))


def rough(count: int, seed: int) -> Iterator[Case]:
    """Yield functions of x / s that are computed in float32, rounded or printed."""
    draw = np.random.default_rng(seed)
    for k in range(count):
        f, derivative = [*SMOOTH.values()][draw.integers(len(SMOOTH))]
        s, u, digits = 10 ** draw.uniform(-2, 2), draw.normal(), int(draw.integers(4, 9))
        g = ROUGH[k % len(ROUGH)]
        yield Case(partial(g, f, s, digits), u * s, float(derivative(u)) / s)


ROUGH: list[Callable[[Callable[[Any], Any], float, int, Any], float]] = [
    lambda f, s, digits, x: float(f(np.float32(x) / np.float32(s))),
    lambda f, s, digits, x: float(np.float32(f(x / s))),
    lambda f, s, digits, x: round(float(f(x / s)), digits),
    lambda f, s, digits, x: float(f"{f(x / s):.{digits}g}"),
]
"""How f(x / s) loses digits: in float32, as float32, rounded, and printed."""


def is_wrong(case: Case) -> bool:
    """Say whether the derivative is off by more than ten times its own estimate."""
    with np.errstate(all="ignore"):
        found = differentiate(lambda x: case.f(x[()]), np.array(case.x))
    return not abs(found.gradient - case.exact) <= WRONG * found.error


def count_dishonest(count: int, seed: int) -> dict[str, tuple[int, int]]:
    """Return of how many derivatives how many are wrong, of so many waves and a third of others."""
    cases = {
        "waves, w from 1 to 1,000": [*waves(count, seed)],
        "float32 inside, rounded or printed": [*rough(count // 3, seed)],
    }
    return {name: (len(some), sum(map(is_wrong, some))) for name, some in cases.items()}
