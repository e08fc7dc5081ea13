"""The accuracy of schemes and steps, and the time of gradients beside other packages."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from benchmarks.cases import rosenbrock, suite
from benchmarks.measure.compiled import by_others
from benchmarks.measure.timing import compare
from fastgrad import numerical_gradient, schemes
from fastgrad.differences.measured_steps import measured
from fastgrad.differences.problem import problems
from fastgrad.engines import loop
from fastgrad.schemes import Scheme

Array = NDArray[np.float64]

SCHEMES: dict[str, Scheme] = {
    "forward": schemes.forward(),
    "forward(2)": schemes.forward(2),
    "forward(3)": schemes.forward(3),
    "forward(4)": schemes.forward(4),
    "backward": schemes.backward(),
    "backward(2)": schemes.backward(2),
    "backward(3)": schemes.backward(3),
    "backward(4)": schemes.backward(4),
    "central": schemes.central(),
    "central(4)": schemes.central(4),
    "central(6)": schemes.central(6),
    "central(8)": schemes.central(8),
    "complex": schemes.complex_step,
}
X = 0.7
"""Where the function of the first table is differentiated."""

SIZES = (10, 30, 100, 300, 1000, 3000)
ENOUGH = 1e-3
"""The relative error that a step is to keep below."""

GROUPS = 24
"""Groups of steps that are tried where the automatic one does not keep below."""

STEPS = 100
"""Steps in each of them."""

LONGEST = 1.0
"""Seconds of a gradient above which a way is not measured for larger problems."""


# Accuracy


def wave(x: Array) -> Any:
    """Return ``exp(sin(x))`` of an array of one element."""
    return np.exp(np.sin(x)).sum()


def _exact() -> float:
    return float(np.cos(X) * np.exp(np.sin(X)))


def relative_error(scheme: Scheme, h: float | str) -> float:
    """Return the relative error of a scheme's quotient in double precision."""
    quotient = numerical_gradient(wave, np.array([X]), h, scheme=scheme, engine="loop")[0]
    return max(float(abs(quotient / _exact() - 1)), 1e-17)


def automatic_step(scheme: Scheme) -> float:
    """Return the step that ``h="auto"`` measures."""
    (problem,) = problems(wave, np.array([X]), "auto", scheme=scheme)
    return float(np.max(measured(problem, loop.values).steps))


def slope_of_error(scheme: Scheme) -> float:
    """Return by which power of the step the error falls, measured with 60 digits."""
    with mpmath.workdps(60):
        x = mpmath.mpf(X)
        exact = mpmath.cos(x) * mpmath.exp(mpmath.sin(x))
        errors = []
        for h in (mpmath.mpf("1e-4"), mpmath.mpf("1e-5")):
            pairs = zip(scheme.offsets, scheme.numerators, strict=True)
            total = sum(n * mpmath.exp(mpmath.sin(x + o * h)) for o, n in pairs)
            quotient = total / (scheme.denominator * h)
            errors.append(abs(mpmath.re(quotient) - exact))
        return float(mpmath.log10(errors[0] / errors[1]))


def best_possible(case: suite.Case, dtype: Any, each: int = STEPS) -> str:
    """Say how good a step can be at all, whatever finds it, by so many steps in each group."""
    steps = np.geomspace(1e-5, 10, GROUPS * each).reshape(GROUPS, -1)
    errors = np.array([suite_errors([case], dtype, float(h))[0][0] for h in steps.flat])
    typical = np.median(np.nan_to_num(errors, nan=np.inf).reshape(steps.shape), axis=1)
    around = np.exp(np.mean(np.log(steps[np.argmin(typical)])))
    return (
        f"{case}, {np.dtype(dtype).name}: of {errors.size:,} steps from 1e-5 to 10 the best, by "
        f"chance, leaves a relative error of {np.nanmin(errors):.1e}; the median of those around "
        f"{around:.0e}, where it is least, is {np.min(typical):.1e}."
    )


def suite_errors(cases: Sequence[suite.Case], dtype: Any, h: Any) -> tuple[list[float], int]:
    """Return relative errors, infinite where the step is refused, and the calls of f in all."""
    errors, calls = [], 0
    for case in cases:
        x = np.array([case.x], dtype)
        exact = case.function.exact(x[0])

        def f(x: Any, case: suite.Case = case) -> Any:
            nonlocal calls
            calls += 1
            return case.function.f(x)[0]

        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            try:
                result = float(numerical_gradient(f, x, h)[0])
            except ValueError:
                result = np.inf
        errors.append(abs(result - exact) / abs(exact))
    return errors, calls


# Time


def ways(x: Array) -> dict[str, Callable[[], Any]]:
    """Return the ways to Rosenbrock's gradient at x."""
    calls: dict[str, Callable[[], Any]] = {
        "fastgrad, loop": lambda: numerical_gradient(rosenbrock.plain, x, 1e-5, engine="loop"),
        "fastgrad, vectorized": lambda: numerical_gradient(
            rosenbrock.of_stack, x, 1e-5, vectorized=True
        ),
        "fastgrad, compiled": lambda: numerical_gradient(
            rosenbrock.jitted, x, 1e-5, engine="compiled"
        ),
    }
    return calls | by_others(rosenbrock.plain, x)


def measure_times(sizes: Sequence[int]) -> tuple[dict[str, dict[int, float]], dict[str, float]]:
    """Return the shortest seconds of each way for each size, and the largest relative error."""
    seconds: dict[str, dict[int, float]] = {}
    errors: dict[str, float] = {}
    for size in sizes:
        x = rosenbrock.start(size)
        exact = rosenbrock.exact_gradient(x)
        calls = {
            name: call
            for name, call in ways(x).items()
            if name not in seconds or _affordable(seconds[name], size)
        }
        for name, call in calls.items():
            deviation = float(abs(call() - exact).max() / abs(exact).max())
            errors[name] = max(errors.get(name, 0.0), deviation)
        for name, times in compare(calls, 3).items():
            seconds.setdefault(name, {})[size] = times.minimum
    return seconds, errors


def _affordable(measured: dict[int, float], size: int) -> bool:
    """Say whether a way, of n calls of f, whose time grows by n at least, is not too slow."""
    last = max(measured)
    return measured[last] * (size / last) < LONGEST
