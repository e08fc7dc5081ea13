"""How good are derivatives with error estimates? ``python -m benchmarks.adaptive`` compares them.

With numdifftools and jacobi, on the same functions at the same points, by the calls of f that each
makes. The constants of `fastgrad.differences.richardson` were chosen on `TUNED`; the other sets
were not looked at.
"""

import argparse
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.suite import Case, Function, drawn, published
from fastgrad import differentiate, numerical_gradient

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


def score(method: Method, cases: Sequence[Case]) -> Score:
    """Return how a method fares, warnings aside."""
    result = Score([], [], [])
    for case in cases:
        calls = 0

        def f(x: Any, case: Case = case) -> Any:
            nonlocal calls
            calls += 1
            return case.function.f(x)

        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            value, estimate = method(f, case.x)
        exact = case.exact
        result.errors.append(abs(value - exact) / abs(exact))
        result.estimates.append(estimate / abs(exact))
        result.calls.append(calls)
    return result


def float32_errors(cases: Sequence[Case], h: Any) -> list[float]:
    """Return the relative errors of fixed-scheme gradients at a float32 x; inf if refused."""
    errors = []
    for case in cases:
        x = np.array(case.x, np.float32)
        exact = case.function.exact(x)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                value = float(numerical_gradient(lambda x, f=case.function.f: f(x[()]), x, h))
            except ValueError:  # the step is lost
                value = np.inf
        errors.append(abs(value - exact) / abs(exact))
    return errors


def float32_score(cases: Sequence[Case]) -> Score:
    """Return how `differentiate` fares at a float32 x, f computing in float32."""
    result = Score([], [], [])
    for case in cases:
        x = np.array(case.x, np.float32)
        exact = case.function.exact(x)
        with np.errstate(all="ignore"):
            found = differentiate(lambda x, f=case.function.f: f(x[()]), x)
        result.errors.append(abs(float(found.gradient) - exact) / abs(exact))
        result.estimates.append(float(found.error) / abs(exact))
        result.calls.append(found.evaluations)
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, in Markdown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.adaptive")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    each = 1 if parser.parse_args(arguments).smoke else 20
    known = list(published())
    sets = {
        "published points": known,
        f"random points, tuned on (seed {TUNED})": list(drawn(TUNED, each)),
        f"random points, held out (seed {HELD_OUT})": list(drawn(HELD_OUT, each)),
        f"across twelve decades of scale, held out (seed {HELD_OUT})": list(scaled(HELD_OUT, each)),
    }
    print(
        "| cases | method | true error below the estimate | median relative error | 90 % below |"
        " calls of f: median | mean |"
    )
    print("|" + " --- |" * 7)
    for name, cases in sets.items():
        for method, call in METHODS.items():
            print(_row(f"{len(cases)} {name}", method, score(call, cases)))
    cases = [*known, *drawn(HELD_OUT, each)]
    print(
        _row(
            f"{len(cases)} of the first and third, x and f float32",
            "fastgrad.differentiate",
            float32_score(cases),
        )
    )
    fixed, automatic = float32_errors(cases, 1e-4), float32_errors(cases, "auto")
    lost = [a for a, f in zip(automatic, fixed, strict=True) if not f < 1]
    print(
        f"\nIn float32 `numerical_gradient` with a step of 1e-4 loses all digits, or refuses the "
        f'step, in {len(lost)} of these {len(cases)} cases; with `h="auto"` the largest error of '
        f"those is {max(lost, default=0):.0e}, and {sum(a < 1e-3 for a in automatic)} of all are "
        "below 1e-3."
    )


def _row(cases: str, method: str, result: Score) -> str:
    cells = (
        cases,
        method,
        f"{100 * result.covered:.1f} %",
        f"{result.quantile(0.5):.1e}",
        f"{result.quantile(0.9):.1e}",
        f"{np.median(result.calls):.0f}",
        f"{np.mean(result.calls):.1f}",
    )
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
