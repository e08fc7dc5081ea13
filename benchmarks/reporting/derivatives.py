"""Benchmark of Jacobians, Hessians, elementwise derivatives and checks, beside other packages."""

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from benchmarks.measure.derivatives import (
    autograd,
    coverage,
    densities,
    hessians,
    sparse_jacobians,
)
from benchmarks.measure.timing import ratio
from benchmarks.reporting.result import Result, Scale

VARIABLES = 30
"""Of the functions whose Hessians are computed."""


def derivatives(result: Result, scale: Scale, folder: Path) -> None:
    """Jacobians, Hessians, elementwise derivatives and checks of PyTorch, beside other packages."""
    rounds = min(scale.rounds, 5)
    _sparse_jacobians(result, 100 if scale.smoke else 10_000, rounds)
    _hessians(result, 5 if scale.smoke else VARIABLES)
    _coverage(result, 4 if scale.smoke else 1)
    _elementwise(result, 60 if scale.smoke else 1)
    if find_spec("torch"):
        _autograd(result, (20, 5, 10) if scale.smoke else (20, 50, 218), rounds)


def _sparse_jacobians(result: Result, n: int, rounds: int) -> None:
    found = sparse_jacobians(n, rounds)
    result.table(
        f"How long does the sparse Jacobian of Broyden's tridiagonal residual take, n = {n:,}, by "
        "the same three groups of columns?",
        "way | ms: median (minimum) | calls of f | largest error",
        (
            (name, way.times.milliseconds, f"{way.calls}", f"{way.error:.0e}")
            for name, way in found.items()
        ),
    )
    times = {name: way.times for name, way in found.items()}
    for ours, theirs, step in (
        ("fastgrad, a given step", "SciPy, 3-point", "3-point"),
        ('fastgrad, h="auto"', "SciPy, 3-point", '3-point, h="auto"'),
        ("fastgrad, forward, a given step", "SciPy, 2-point", "2-point"),
    ):
        what = f"sparse Jacobian, n = {n:,}, over SciPy's with the same groups, {step}"
        result.figure(what, "at most 1", str(ratio(times[ours], times[theirs])))
        # The errors of a step that is given fall as its power, times another constant.
        result.check(found[ours].error < 1e-6, f"{ours} is the Jacobian")
    for kind in ("", " of a compiled f"):
        one = times['fastgrad, h="auto"' if not kind else "fastgrad of a compiled f"]
        taken = ratio(times[f"detection alone{kind}"], one)
        what = f"detection of its structure{kind} over the Jacobian"
        result.figure(what, "at most 3", str(taken))


def _hessians(result: Result, n: int) -> None:
    found = hessians(n)
    result.table(
        f"How exact is a Hessian, n = {n}, and how often is f called?",
        "f | way | calls of f | largest error",
        ((f, way, f"{calls:,}", f"{error:.0e}") for (f, way), (calls, error) in found.items()),
    )
    for f in dict.fromkeys(f for f, _ in found):
        ways = {
            way: f"{error:.0e} by {calls:,}" for (g, way), (calls, error) in found.items() if g == f
        }
        others = {
            "statsmodels, complex": "fastgrad, complex",
            "numdifftools, complex": "fastgrad, complex",
            "numdifftools, central": "fastgrad.differentiate",
        }
        for way in [way for way in others if way in ways]:
            what = f"Hessian, {f}, n = {n}, error by calls of f: {others[way]} beside {way}"
            result.figure(what, f"{ways[way]}", ways[others[way]])
        # Of complex steps rounding is left, eps**(2/3) where f varies over distances of 1.
        result.check(found[f, "fastgrad, complex"][1] < 1e-9, f"the Hessian is that of {f}")


def _coverage(result: Result, every: int) -> None:
    rows = []
    for kind, found in coverage(every).items():
        share = found.covered / found.entries
        result.figure(
            f"true errors of {found.entries:,} entries of {kind}, not 0, below the estimates",
            "99 %",
            f"{100 * share:.2f} %",
        )
        result.check(share >= 0.99, f"estimates cover the errors of {kind}")
        counts = [found.entries, found.covered, found.zeros, found.zeros_covered]
        worst = f"{found.worst:.2g} times, {', '.join(found.names)}" if found.names else ""
        rows.append((kind, *(f"{count:,}" for count in counts), worst))
    result.table(
        "Do the errors that `differentiate` estimates cover the true ones, of residuals, models "
        "and layers, and of half the sums of their squares?",
        "derivatives | not 0 | covered | 0 | covered | above the estimate",
        rows,
    )


def _elementwise(result: Result, every: int) -> None:
    found, names = densities(every)
    result.table(
        f"How exact are the derivatives of {len(names)} distribution functions of scipy.stats at "
        "all of five points at once, and by how many calls?",
        "way | worst error | 90 % below | median | calls: mean | points for each of x: mean",
        (
            (
                way,
                *(
                    f"{np.quantile(each.errors, part, method='higher'):.0e}"
                    for part in (1, 0.9, 0.5)
                ),
                f"{np.mean(each.calls):.1f}",
                f"{np.mean(each.points):.1f}",
            )
            for way, each in found.items()
        ),
    )
    ours, theirs = found["fastgrad.differentiate"], found["scipy.differentiate"]
    what = f"{len(names)} distributions: worst, median error; calls; points of each element"
    values = [
        f"{max(each.errors):.0e}, {np.median(each.errors):.0e}; {np.mean(each.calls):.1f}; "
        f"{np.mean(each.points):.1f}"
        for each in (ours, theirs)
    ]
    result.figure(f"elementwise, {what}", f"scipy.differentiate: {values[1]}", values[0])
    result.check(np.median(ours.errors) <= np.median(theirs.errors), "elementwise is exact")
    result.check(np.mean(ours.calls) <= np.mean(theirs.calls), "elementwise takes few calls")


def _autograd(result: Result, sizes: tuple[int, int, int], rounds: int) -> None:
    rows, columns, width = sizes
    found = autograd(rows, columns, width, rounds)
    n = rows * columns
    result.table(
        f"How long does it take to check an `autograd.Function` with {n:,} inputs?",
        "check | ms: median (minimum)",
        ((name, times.milliseconds) for name, times in found.times.items()),
    )
    taken = ratio(found.times["check_gradient"], found.times["gradcheck, slow"])
    what = f"check of an `autograd.Function`, {n:,} inputs, over gradcheck's slow mode"
    result.figure(what, "at most 1", str(taken))
    words = {True: "yes", False: "no"}
    result.table(
        "Is each fault planted in it found, and named?",
        "planted fault | found | named | found by gradcheck",
        ((name, *(words[said] for said in each)) for name, each in found.faults.items()),
    )
    seen, named, _ = (sum(each) for each in zip(*found.faults.values(), strict=True))
    result.figure(
        f"planted faults of {len(found.faults)} found, named", "10, 8", f"{seen}, {named}"
    )
    result.check(seen == len(found.faults), "each fault is found")
    result.check(named >= 8, "eight faults are named")
    result.table(
        "How long does a check of all parameters of a module take along random directions, by "
        "check_gradient with fast=True and by gradcheck with fast_mode=True? Both are right.",
        "dtype | parameters | check | passes | calls of the loss | ms: median (minimum)",
        (
            (
                module.dtype,
                f"{module.size:,}",
                name,
                words[module.passes[name]],
                f"{module.calls}" if name == "check_gradient" else "",
                times.milliseconds,
            )
            for module in found.modules
            for name, times in module.times.items()
        ),
    )
    passing = [module.passes["check_gradient"] for module in found.modules]
    result.check(all(passing), "right modules pass")
