"""How accurate is each scheme, and how fast are gradients? ``python -m benchmarks.schemes``."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from benchmarks import suite
from benchmarks.function_plots import plot_errors_by_step, plot_times_by_size
from benchmarks.functions import ROSENBROCK
from benchmarks.pairing import compare
from fastgrad import numerical_gradient, schemes
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
DRAWN = ("forward", "forward(2)", "central", "central(4)", "central(6)", "central(8)", "complex")
X = 0.7
"""Where the function of the first table is differentiated."""

SIZES = (10, 30, 100, 300, 1000, 3000)
ENOUGH = 1e-3
"""The relative error that a step is to keep below."""

STEPS = 24_000
"""Steps, in 24 groups, that are tried where the automatic one does not keep below."""

LONGEST = 1.0
"""Seconds of a gradient above which a way is not measured for larger problems."""


def table(smoke: bool = False, plots: Path | None = None) -> str:
    """Return what was measured, in Markdown; draw it, too, if given a folder."""
    parts = [_schemes_table(plots), _suite_table(1 if smoke else 5), _times_table(smoke, plots)]
    return "\n\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables, and write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.schemes", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    parser.add_argument(
        "--output", type=Path, default=Path(__file__).parent / "plots", help="for the pictures"
    )
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    print(table(options.smoke, options.output))


# Accuracy


def wave(x: Array) -> Any:
    """Return ``exp(sin(x))`` of an array of one element."""
    return np.exp(np.sin(x)).sum()


def _exact() -> float:
    return float(np.cos(X) * np.exp(np.sin(X)))


def error(scheme: Scheme, h: float | str) -> float:
    """Return the relative error of a scheme's quotient in double precision."""
    quotient = numerical_gradient(wave, np.array([X]), h, scheme=scheme, engine="loop")[0]
    return max(float(abs(quotient / _exact() - 1)), 1e-17)


def automatic_step(scheme: Scheme) -> float:
    """Return the step that ``h="auto"`` measures."""
    (problem,) = problems(wave, np.array([X]), "auto", scheme=scheme)
    return float(np.max(problem.measured(loop.values).steps))


def slope(scheme: Scheme) -> float:
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


def _schemes_table(plots: Path | None) -> str:
    rows = []
    for name, scheme in SCHEMES.items():
        step = automatic_step(scheme)
        rows.append(
            (
                f"`{name}`",
                str(len(scheme.offsets)),
                str(scheme.accuracy),
                f"{slope(scheme):.3f}",
                f"{step:.1e}",
                f"{error(scheme, step):.0e}",
            )
        )
    if plots is not None:
        steps = np.logspace(-16, 0, 161)
        curves, best = {}, {}
        for name in DRAWN:
            scheme = SCHEMES[name]
            usable = steps if scheme.is_complex else steps[steps > 2e-16]
            curves[name] = (usable.tolist(), [error(scheme, float(h)) for h in usable])
            if not scheme.is_complex:  # its step is as small as need be, 1e-20
                best[name] = (automatic_step(scheme), error(scheme, automatic_step(scheme)))
        title = f"Truncation on the right, round-off on the left: exp(sin(x)) at {X}, float64"
        plot_errors_by_step(curves, best, title, plots / "schemes.png")
    head = (
        "scheme",
        "points",
        "accuracy order",
        "slope of the error",
        'step of h="auto"',
        "relative error there",
    )
    return f"Schemes, of exp(sin(x)) at {X}:\n\n" + _markdown(head, rows)


def _suite_table(each: int) -> str:
    """Return how many digits a fixed and the automatic step keep of published functions."""
    cases = [*suite.published(), *suite.drawn(0, each)]
    rows, limits = [], []
    for dtype in (np.float32, np.float64):
        for h in (1e-4, "auto"):
            errors, calls = _suite_errors(cases, dtype, h)
            if h == "auto":
                missed = [case for case, e in zip(cases, errors, strict=True) if not e < ENOUGH]
                limits += [_limit(case, dtype) for case in missed]
            rows.append(
                (
                    np.dtype(dtype).name,
                    str(h),
                    f"{sum(e < ENOUGH for e in errors)} of {len(errors)}",
                    f"{sum(e >= 0.1 for e in errors)}",
                    f"{np.median(errors):.0e}",
                    f"{calls / len(errors):.1f}",
                )
            )
    head = (
        "x",
        "h",
        "relative error below 1e-3",
        "at least 0.1, or refused",
        "median error",
        "calls of f an element",
    )
    table = _markdown(head, rows)
    return "\n\n".join(
        ["The functions of `benchmarks/suite.py`, central differences:", table, *limits]
    )


def _limit(case: suite.Case, dtype: Any) -> str:
    """Say how good a step can be at all, whatever finds it."""
    steps = np.geomspace(1e-5, 10, STEPS).reshape(24, -1)
    errors = np.array([_suite_errors([case], dtype, float(h))[0][0] for h in steps.flat])
    typical = np.median(np.nan_to_num(errors, nan=np.inf).reshape(steps.shape), axis=1)
    around = np.exp(np.mean(np.log(steps[np.argmin(typical)])))
    return (
        f"{case}, {np.dtype(dtype).name}: of {errors.size:,} steps from 1e-5 to 10 the best, by "
        f"chance, leaves a relative error of {np.nanmin(errors):.1e}; the median of those around "
        f"{around:.0e}, where it is least, is {np.min(typical):.1e}."
    )


def _suite_errors(cases: list[suite.Case], dtype: Any, h: Any) -> tuple[list[float], int]:
    """Return the relative errors, infinite where the step is refused, and the calls of f."""
    errors, calls = [], 0
    for case in cases:
        x = np.array([case.x], dtype)
        exact = case.function.exact(x[0])

        def f(x: Any, case: suite.Case = case) -> Any:
            nonlocal calls
            calls += 1
            return case.function.f(x)[0]

        try:
            with np.errstate(all="ignore"):
                result = float(numerical_gradient(f, x, h)[0])
        except ValueError:
            result = np.inf
        errors.append(abs(result - exact) / abs(exact))
    return errors, calls


# Time


def rosenbrock_of_stack(s: Array) -> Any:
    """Return Rosenbrock's function of each row."""
    return np.sum(100 * (s[:, 1:] - s[:, :-1] ** 2) ** 2 + (1 - s[:, :-1]) ** 2, axis=1)


def ways(x: Array) -> dict[str, Callable[[], Any]]:
    """Return the ways to Rosenbrock's gradient at x; of the peers those that are installed."""
    f, jitted = ROSENBROCK.f, ROSENBROCK.jitted
    found: dict[str, Callable[[], Any]] = {
        "fastgrad, loop": lambda: numerical_gradient(f, x, 1e-5, engine="loop"),
        "fastgrad, vectorized": lambda: numerical_gradient(
            rosenbrock_of_stack, x, 1e-5, vectorized=True
        ),
        "fastgrad, compiled": lambda: numerical_gradient(jitted, x, 1e-5, engine="compiled"),
    }
    try:
        from scipy.optimize._numdiff import approx_derivative

        found["SciPy approx_derivative, 3-point"] = lambda: approx_derivative(f, x)
    except ImportError:
        pass
    try:
        from numdifftools import Gradient

        found["numdifftools"] = lambda: Gradient(f)(x)
    except ImportError:
        pass
    try:
        from jacobi import jacobi

        found["jacobi"] = lambda: jacobi(f, x)[0]
    except ImportError:
        pass
    return found


def measure_times(sizes: Sequence[int]) -> tuple[dict[str, dict[int, float]], dict[str, float]]:
    """Return the shortest seconds of each way for each size, and the largest relative error."""
    seconds: dict[str, dict[int, float]] = {}
    errors: dict[str, float] = {}
    for size in sizes:
        x = ROSENBROCK.start(size)
        exact = ROSENBROCK.exact(x)
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


def _times_table(smoke: bool, plots: Path | None) -> str:
    sizes = SIZES[:2] if smoke else SIZES
    seconds, errors = measure_times(sizes)
    if plots is not None:
        curves = {name: ([*times], [*times.values()]) for name, times in seconds.items()}
        title = "One gradient of Rosenbrock's function of n variables"
        plot_times_by_size(curves, title, plots / "functions_time.png")
    rows = [
        (
            name,
            *(f"{1e3 * times[size]:.3g}" if size in times else "" for size in sizes),
            f"{errors[name]:.0e}",
        )
        for name, times in seconds.items()
    ]
    head = ("way", *(f"n = {size:,}" for size in sizes), "largest relative error")
    return (
        "One gradient of Rosenbrock's function, in milliseconds (the shortest of several); "
        "fastgrad and SciPy evaluate it twice a variable, numdifftools and jacobi more often, "
        "to extrapolate:\n\n" + _markdown(head, rows)
    )


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows))


if __name__ == "__main__":
    main()
