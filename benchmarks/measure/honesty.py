"""Whether the error estimates of `differentiate` are honest.

Waves that are faster than the first steps, and functions that are computed in float32, rounded or
printed, are what looks converged and is not. A derivative counts as wrong if it is farther from the
exact one than ten times its own estimated error.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
    """A function of one number, where it is differentiated, and its derivative there.

    Attributes
    ----------
    name : str
    f : callable
    x, exact : float
    """

    name: str
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
        yield Case(f"sin({w} x + {p})", _wave(a, w, p), x, float(a * w * np.cos(phase)))


def _wave(a: float, w: float, p: float) -> Callable[[Any], float]:
    return lambda x: float(a * np.sin(w * x + p))


def rough(count: int, seed: int) -> Iterator[Case]:
    """Yield functions of x / s that are computed in float32, rounded or printed."""
    draw = np.random.default_rng(seed)
    for k in range(count):
        name = list(SMOOTH)[draw.integers(len(SMOOTH))]
        f, derivative = SMOOTH[name]
        s, u, digits = 10 ** draw.uniform(-2, 2), draw.normal(), int(draw.integers(4, 9))
        kind, g = list(ROUGH.items())[k % len(ROUGH)]
        exact = float(derivative(u)) / s
        yield Case(f"{name}, {kind}, {digits} digits", _rough(g, f, s, digits), u * s, exact)


ROUGH: dict[str, Callable[[Callable[[Any], Any], float, float, int], float]] = {
    "in float32": lambda f, x, s, _: float(f(np.float32(x) / np.float32(s))),
    "as float32": lambda f, x, s, _: float(np.float32(f(x / s))),
    "rounded": lambda f, x, s, digits: round(float(f(x / s)), digits),
    "printed": lambda f, x, s, digits: float(f"{f(x / s):.{digits}g}"),
}
"""How f(x / s) loses digits."""


def _rough(
    g: Callable[[Callable[[Any], Any], float, float, int], float],
    f: Callable[[Any], Any],
    s: float,
    digits: int,
) -> Callable[[Any], float]:
    return lambda x: g(f, x, s, digits)


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
