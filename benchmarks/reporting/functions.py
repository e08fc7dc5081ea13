"""Benchmarks of gradients of any function, of their error estimates, and of gradient checks."""

from pathlib import Path

import numpy as np

from benchmarks.cases import suite
from benchmarks.cases.backward import FAULTS
from benchmarks.cases.random_gradients import example, primitives
from benchmarks.measure import adaptive as estimates
from benchmarks.measure.checking import (
    calls_of_fast,
    costs,
    coverage,
    false_alarms,
    planted_faults,
    rates,
)
from benchmarks.measure.compiled import (
    RIVALS,
    STYLES,
    against_loop_by_hand,
    against_others,
    loop_overheads,
)
from benchmarks.measure.honesty import count_dishonest
from benchmarks.measure.schemes import (
    ENOUGH,
    SCHEMES,
    SIZES,
    STEPS,
    X,
    automatic_step,
    best_possible,
    measure_times,
    relative_error,
    slope_of_error,
    suite_errors,
)
from benchmarks.measure.small import FEW, derivatives, few_variables, first_calls
from benchmarks.measure.timing import ratio
from benchmarks.measure.workers import in_numpy, in_python, lasting, one_and_two
from benchmarks.reporting import pictures
from benchmarks.reporting.result import Result, Scale


def small(result: Result, scale: Scale, folder: Path) -> None:
    """What users time first: functions of few numbers, and the first call of a fresh process."""
    rounds = 1 if scale.smoke else 15
    found = derivatives(rounds)
    times, calls, error = found["fastgrad.differentiate"]
    what = "`differentiate(f, x)`, one variable, a cheap f"
    result.figure(what, "at most 0.5 ms", f"{times.milliseconds} ms, {calls} calls")
    result.check(error < 1e-13, "a derivative is exact to its last digits")
    result.table(
        "How long does one derivative of exp(sin(x)) with an error estimate take?",
        "way | ms: median (minimum) | calls of f | relative error",
        (
            (name, times.milliseconds, f"{calls}", f"{error:.0e}")
            for name, (times, calls, error) in found.items()
        ),
    )
    few = few_variables(rounds)
    ours, hand = few["fastgrad.numerical_gradient"], few["a loop by hand"]
    what = f"`numerical_gradient` of {FEW} variables, f of 1 us, beyond a loop by hand"
    beyond = 1e6 * (ours.minimum - hand.minimum)
    result.figure(what, "at most 25 us", f"{beyond:.3g} us (minima)")
    first = first_calls(1 if scale.smoke else 11)
    mine, theirs = (1e3 * call.median for _, call in first.values())
    what = "first gradient of a fresh process, a cheap f, beyond SciPy's, after the imports"
    result.figure(what, "at most 5 ms", f"{mine - theirs:.3g} ms (medians)")
    result.table(
        "How long do the import and the first gradient of a fresh process take, after NumPy's "
        "import?",
        "way | import, ms: median (minimum) | first gradient, ms",
        (
            (name, imported.milliseconds, call.milliseconds)
            for name, (imported, call) in first.items()
        ),
    )


def schemes(result: Result, scale: Scale, folder: Path) -> None:
    """Schemes, steps, and gradients by other packages."""
    _schemes(result, folder)
    _steps(result, 1 if scale.smoke else 5, 4 if scale.smoke else STEPS)
    sizes = SIZES[:2] if scale.smoke else SIZES
    seconds, errors = measure_times(sizes)
    result.table(
        "How long does one gradient of Rosenbrock's function of n variables take? Milliseconds, "
        "the shortest; fastgrad and SciPy evaluate it twice a variable, numdifftools and "
        "jacobi more often, to extrapolate:",
        " | ".join(["way", *(f"n = {size:,}" for size in sizes), "largest relative error"]),
        (
            (
                name,
                *(f"{1e3 * times[size]:.3g}" if size in times else "" for size in sizes),
                f"{errors[name]:.0e}",
            )
            for name, times in seconds.items()
        ),
    )
    for name, error in errors.items():
        # eps**(2/3) times the function's scale, for steps that suit a scale of 1.
        ours = name.startswith("fastgrad")
        result.check(error < 1e-6 or not ours, f"{name} is Rosenbrock's gradient")
    pictures.times_by_size(
        {name: (times, times.values()) for name, times in seconds.items()},
        "One gradient of Rosenbrock's function of n variables",
        folder / "functions_time.png",
    )


def _schemes(result: Result, folder: Path) -> None:
    rows, best = [], {}
    for name, scheme in SCHEMES.items():
        step, slope = automatic_step(scheme), slope_of_error(scheme)
        error = relative_error(scheme, step)
        result.check(abs(slope - scheme.accuracy) <= 0.02, f"{name} is of its accuracy order")
        if name in pictures.COLOURS and not scheme.is_complex:  # any tiny step is as good there
            best[name] = step, error
        points, order = str(len(scheme.offsets)), str(scheme.accuracy)
        rows.append((f"`{name}`", points, order, f"{slope:.3f}", f"{step:.1e}", f"{error:.0e}"))
    result.table(
        f"Do the errors of schemes fall with the step as their order says, for exp(sin(x)) at {X}, "
        'and how small is the one of h="auto"?',
        'scheme | points | accuracy order | slope of the error | step of h="auto" | '
        "relative error there",
        rows,
    )
    steps, curves = np.logspace(-16, 0, 161), {}
    for name in [*best, "complex"]:
        scheme = SCHEMES[name]
        usable = steps if scheme.is_complex else steps[steps > 2e-16]
        curves[name] = usable, [relative_error(scheme, float(h)) for h in usable]
    title = f"Truncation on the right, round-off on the left: exp(sin(x)) at {X}, float64"
    pictures.errors_by_step(curves, best, title, folder / "schemes.png")


def _steps(result: Result, each: int, steps: int) -> None:
    """Count how many digits a fixed and the automatic step keep of published functions."""
    cases = [*suite.published(), *suite.drawn(0, each)]
    rows, limits = [], []
    for dtype in (np.float32, np.float64):
        for h in (1e-4, "auto"):
            errors, calls = suite_errors(cases, dtype, h)
            enough = [error < ENOUGH for error in errors]
            if h == "auto":
                missed = [case for case, kept in zip(cases, enough, strict=True) if not kept]
                limits += [best_possible(case, dtype, steps) for case in missed]
            rows.append(
                (
                    np.dtype(dtype).name,
                    str(h),
                    f"{sum(enough)} of {len(errors)}",
                    f"{sum(e >= 0.1 for e in errors)}",
                    f"{np.median(errors):.0e}",
                    f"{calls / len(errors):.1f}",
                )
            )
    result.table(
        "How many derivatives of `benchmarks/cases/suite.py` does each step keep digits of?",
        "x | h | relative error below 1e-3 | at least 0.1, or refused | median error | "
        "calls of f an element",
        rows,
    )
    result.text += limits


def compiled(result: Result, scale: Scale, folder: Path) -> None:
    """Functions compiled by numba, beside other packages and loops by hand."""
    n, rounds = (10, 1) if scale.smoke else (1000, scale.rounds)
    found = against_others(n, min(rounds, 5))
    rows = []
    for (f, way), (times, error) in found.items():
        faster = ""
        if way in RIVALS:
            ours, wanted = RIVALS[way]
            our_times, our_error = found[f, ours]
            faster = f"{ratio(times, our_times)} than {ours}; {wanted} wanted"
            result.check(our_error <= error or scale.smoke, f"{ours} is as exact as {way}, {f}")
        rows.append((f, way, times.milliseconds, f"{error:.2g}", faster))
    result.table(
        f"How long does a gradient of Rosenbrock's function take, n = {n:,}, and how exact is it?",
        "f | gradient by | ms: median (minimum) | largest error | fastgrad is faster",
        rows,
    )
    rows = []
    for style in STYLES:
        for size in (n, 2 * n, 4 * n):
            turns = against_loop_by_hand(style, size, rounds)
            hand = turns["by hand"]
            single = f"{1e6 * hand.minimum / (2 * size):.2g} us"
            two = str(ratio(hand, turns["two"])) if "two" in turns else "one core"
            rows.append((style, f"{size:,}", single, str(ratio(turns["one"], hand)), two))
    result.table(
        "Is a gradient as fast as a compiled loop by hand, and do two threads pay?",
        "f is | n | f takes | one thread / by hand; 1.05 wanted | "
        "by hand / two threads; 1.8 wanted",
        rows,
    )
    overheads = loop_overheads(n, rounds)
    result.table(
        "How much does the loop cost beyond the calls of f?",
        "plain loop | us a call beyond f's 5; 0.5 and below the textbook's wanted | us once",
        ((name, f"{call:.3f}", f"{once:.0f}") for name, (call, once) in overheads.items()),
    )


def adaptive(result: Result, scale: Scale, folder: Path) -> None:
    """Gradients with error estimates, beside other packages."""
    each = 1 if scale.smoke else 20
    tuned, held_out = estimates.TUNED, estimates.HELD_OUT
    published = list(suite.published())
    sets = {
        "published points": published,
        f"random points, tuned on (seed {tuned})": list(suite.drawn(tuned, each)),
        f"random points, held out (seed {held_out})": list(suite.drawn(held_out, each)),
        f"across twelve decades of scale, held out (seed {held_out})": list(
            estimates.scaled(held_out, each)
        ),
    }
    scores = {
        (f"{len(cases)} {name}", method): estimates.score(call, cases)
        for name, cases in sets.items()
        for method, call in estimates.METHODS.items()
    }
    cases = [*published, *suite.drawn(held_out, each)]
    single = f"{len(cases)} of the first and third, x and f float32"
    by_fastgrad = estimates.METHODS["fastgrad.differentiate"]
    scores[single, "fastgrad.differentiate"] = estimates.score(by_fastgrad, cases, np.float32)
    rows = []
    for (name, method), score in scores.items():
        ours, calls = scores[name, "fastgrad.differentiate"], np.array(score.calls)
        result.check(ours.covered >= 0.95, f"errors are honest for {name}")
        result.check(
            ours.quantile(0.5) <= score.quantile(0.5)
            and np.mean(ours.calls) <= calls.mean()
            and np.median(ours.calls) <= np.median(calls),
            f"{method} needs more calls and has larger errors for {name}",
        )
        quantiles = [f"{score.quantile(part):.1e}" for part in (0.5, 0.9)]
        covered = f"{100 * score.covered:.1f} %"
        rows.append(
            (name, method, covered, *quantiles, f"{np.median(calls):.0f}", f"{calls.mean():.1f}")
        )
    result.table(
        "Are error estimates honest, and the errors small, for few calls of f?",
        "cases | method | true error below the estimate | median relative error | 90 % below | "
        "calls of f: median | mean",
        rows,
    )
    fixed, automatic = (suite_errors(cases, np.float32, h)[0] for h in (1e-4, "auto"))
    lost = [a for a, f in zip(automatic, fixed, strict=True) if not f < 1]
    result.text.append(
        f"In float32 `numerical_gradient` with a step of 1e-4 loses all digits, or refuses the "
        f'step, in {len(lost)} of these {len(cases)} cases; with `h="auto"` the largest error of '
        f"those is {max(lost, default=0):.0e}, and {sum(a < 1e-3 for a in automatic)} of all are "
        "below 1e-3."
    )


def honesty(result: Result, scale: Scale, folder: Path) -> None:
    """Whether error estimates are honest for what looks smooth and is not."""
    count = 30 if scale.smoke else 3000
    rows = []
    for name, (cases, wrong) in count_dishonest(count, scale.seed).items():
        rows.append((name, f"{cases}", f"{wrong} ({100 * wrong / cases:.2f} %)"))
    lead = "How many derivatives are further from the truth than ten times their error estimate?"
    result.table(lead, "functions | cases | beyond ten times their estimate; 0.1 % wanted", rows)


def workers(result: Result, scale: Scale, folder: Path) -> None:
    """The loop on two processes, f of 1 ms, 1,000 parameters."""
    seconds, parameters, rounds = (1e-4, 20, 1) if scale.smoke else (1e-3, 1000, 5)
    rows = []
    for name, make in (("Python", in_python), ("NumPy", in_numpy)):
        one, two, same = one_and_two(lasting(seconds, make), parameters, rounds)
        result.check(same, f"the bits of {name}'s gradient are those of one process")
        first = two.seconds[0]
        taken = [f"{s:.2f} s" for s in (one.minimum, two.minimum, first)]
        ratios = [f"{one.minimum / s:.2f}" for s in (two.minimum, first)]
        rows.append((name, *taken, *ratios, "same" if same else "OTHER"))
    result.table(
        "How much faster are two workers, and the first call, which in the first line starts them? "
        "The shortest of the rounds:",
        "f | 1 worker | 2 workers | first call | ratio | first | bits",
        rows,
    )


def checking(result: Result, scale: Scale, folder: Path) -> None:
    """Checks of gradients: planted faults, false alarms, and costs."""
    faults = planted_faults()
    result.table(
        "Is each fault found and named, in a net of two layers and in one of three?",
        "planted fault | two layers | three layers",
        ((name, *(found.verdict for found in faults if found.fault == name)) for name in FAULTS),
    )
    result.check(all(f.found and f.found_fast for f in faults), "faults are found")
    for layers in (2, 3):
        named = sum(f.named for f in faults if f.layers == layers)
        result.check(named >= 10, f"of 12 faults in {layers} layers 10 are named")
    count = 20 if scale.smoke else 1000
    wrong, kinks, singles = false_alarms(count)
    result.check(not wrong, "right nets are not called wrong")
    covered, passed, total = coverage(count)
    result.check(covered >= 0.95 * total, "estimated errors cover true ones")
    size = 1000 if scale.smoke else 1_000_000
    calls = calls_of_fast(size)
    result.check(calls < 100, "a fast check takes less than 100 calls")
    seeds = f" (seeds {wrong})" if wrong else ""
    right = f"right random nets called wrong, of {count}: {kinks} at kinks, {singles} in float32"
    result.table(
        "How many faults are found in all, and how often is a right gradient called wrong?",
        "what | measured",
        [
            (f"faults found, of {len(faults)}", f"{sum(f.found for f in faults)}"),
            ("faults named", f"{sum(f.named for f in faults)}"),
            ("faults found with fast=True", f"{sum(f.found_fast for f in faults)}"),
            (right, f"{len(wrong)}{seeds}"),
            (f"true error below the estimated, of {total} cases", f"{covered}"),
            ("right derivatives passed, of the same", f"{passed}"),
            (f"calls of f with fast=True, {size:,} parameters", f"{calls}"),
        ],
    )
    result.table(
        "How long is a check, over a backpropagation and a numerical gradient together? Minima:",
        "net | full check | fast check",
        (
            (name, f"{full:.2g}", f"{fast:.2g}")
            for name, full, fast in costs(min(scale.rounds, 5), scale.smoke)
        ),
    )


def random_gradients(result: Result, scale: Scale, folder: Path) -> None:
    """Checks of gradients of 20,000 random functions, and of elementary ones: right or wrong."""
    count = 40 if scale.smoke else 20_000
    found = rates(map(example, range(scale.seed, scale.seed + count)), every=7)
    elementary = [*primitives(scale.seed)]
    found |= rates(elementary[::20] if scale.smoke else elementary)
    rows = []
    for (kind, way), rate in found.items():
        planted = (f"{rate.wrong:,}", f"{rate.approved}") if way == "full" else ("", "")
        rows.append((kind, way, f"{rate.right:,}", f"{rate.alarms}", *planted))
    result.table(
        "How many right gradients are called wrong, and how many wrong ones approved?",
        "kind | check | right | called wrong | wrong by 1e-4 in one element | approved",
        rows,
    )
    for (kind, way), rate in found.items():
        if rate.names:
            result.text.append(f"{kind}, {way}: {'; '.join(rate.names[:20])}")
