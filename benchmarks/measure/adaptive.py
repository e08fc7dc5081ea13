"""Derivatives with error estimates, beside those of numdifftools and jacobi.

On the same functions at the same points, by the calls of f that each makes. The constants of
`fastgrad.differences.adaptive_steps` were chosen on `TUNED`; the other sets were not looked at.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.cases.suite import Case, Function, drawn
from fastgrad import differentiate

TUNED = 1
"""Seed of the random points on which constants were chosen, together with the published points."""

HELD_OUT = 8128
"""Seed of the random points that were not looked at when constants were chosen."""

Method = Callable[[Callable[[Any], Any], float], tuple[float, float]]
"""Derivative and estimated error of a function of one number."""


@dataclass(frozen=True)
class Score:
    """How a method fared on a set of cases.

    Attributes
    ----------
    errors, estimates : list of float
        True and estimated errors, relative to the derivative.
    calls : list of int
        How often f was called for each derivative.
    """

    errors: list[float]
    estimates: list[float]
    calls: list[int]

    @property
    def covered(self) -> float:
        """Return how many of the true errors are not above the estimated ones."""
        pairs = zip(self.errors, self.estimates, strict=True)
        return float(np.mean([error <= estimate for error, estimate in pairs]))

    def quantile(self, part: float) -> float:
        """Return the true error that this part of the cases does not exceed; nan counts as inf."""
        known = [error if np.isfinite(error) else np.inf for error in self.errors]
        return float(np.quantile(known, part, method="higher"))


def scaled(seed: int, each: int) -> Iterator[Case]:
    """Yield every function at random points, as f(x / s), with s from a millionth to a million."""
    generator = np.random.default_rng(seed)
    for case in drawn(seed, each):
        s = float(2.0 ** generator.integers(-20, 21))
        yield Case(_stretched(case.function, s), case.x * s)


def _stretched(function: Function, s: float) -> Function:
    """Return the function of x / s."""

    def f(x: Any) -> Any:
        return function.f(x / s)

    def derivative(x: Any) -> Any:
        return function.derivative(x / s) / s

    low, high = function.domain
    return Function(f"{function.name} of x / {s:g}", f, derivative, (low * s, high * s), ())


def by_fastgrad(f: Callable[[Any], Any], x: float) -> tuple[float, float]:
    """Return what `differentiate` finds."""
    found = differentiate(lambda x: f(x[()]), np.array(x))
    return float(found.gradient), float(found.error)


def by_jacobi(f: Callable[[Any], Any], x: float) -> tuple[float, float]:
    """Return what jacobi finds, as it comes."""
    from jacobi import jacobi

    value, error = jacobi(f, x)
    return float(value), float(error)


def by_numdifftools(f: Callable[[Any], Any], x: float) -> tuple[float, float]:
    """Return what numdifftools finds, as it comes."""
    from numdifftools import Derivative

    derivative = Derivative(f)
    derivative.full_output = True
    value, details = derivative(x)[:2]
    # An object in version 0.9, the estimate itself in 0.11.
    return float(value), float(getattr(details, "error_estimate", details))


METHODS: dict[str, Method] = {
    "fastgrad.differentiate": by_fastgrad,
    "jacobi": by_jacobi,
    "numdifftools": by_numdifftools,
}


def score(method: Method, cases: Sequence[Case], dtype: type = float) -> Score:
    """Return how a method fares, warnings aside, where x and f are of a type."""
    result = Score([], [], [])
    for case in cases:
        x, calls = dtype(case.x), 0

        def f(x: Any, case: Case = case) -> Any:
            nonlocal calls
            calls += 1
            return case.function.f(x)

        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            value, estimate = method(f, x)
        exact = case.function.exact(x)
        result.errors.append(abs(value - exact) / abs(exact))
        result.estimates.append(estimate / abs(exact))
        result.calls.append(calls)
    return result
