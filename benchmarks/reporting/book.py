"""Benchmark of the book's later nets, of checks of their gradients, and of its own class."""

from collections.abc import Mapping
from pathlib import Path

from tqdm import tqdm

from benchmarks.cases.book_nets import BOOK_NETS, with_dropout
from benchmarks.cases.learners_nets import Case
from benchmarks.measure.accuracy import EXTENDED
from benchmarks.measure.book_nets import (
    ArrayRun,
    CheckRun,
    NetRun,
    measure_check,
    measure_net,
    together,
    why_left_to_loop,
)
from benchmarks.measure.timing import blas_threads
from benchmarks.measure.training import RATE, PlainRun, digits, train_plain
from benchmarks.reporting.result import ROUNDOFF_UNITS, Result, Scale

REACH = {
    "multi_layer_net": {"all": 600},
    "with_batchnorm": {"W1": 30},
    "simple_conv_net": {"W1": 40},
    "deep_conv_net": {"W1, W2, W3, W4, W5, W6": 20, "W7, W8": 1000},
}
"""How many times faster than the loop the gradients of arrays are to be, the least of them."""

CONVOLUTIONAL_SECONDS = 8
"""In which all of SimpleConvNet's gradients are to be computed."""

FULL_GRADIENTS = {"multi_layer_net": 5, "simple_conv_net": 4}
"""In how many gradients of all parameters a full check is to be over."""

FAST_CALLS = 100
"""In how many calls of the loss a fast check is to be over."""

STEP_CALLS, STEPS, STEPS_SECONDS = 45, 10_000, 90
"""In how many calls of its loss a step of the book's own class is to be over; and all steps."""

Checks = Mapping[tuple[str, str], CheckRun]
"""By the name of the net, and "full" or "fast"."""


def book_nets(result: Result, scale: Scale, folder: Path) -> None:
    """The book's later nets, checks of their gradients, and training with its own class."""
    cases = {name: make(scale.smoke) for name, make in BOOK_NETS.items()}
    runs: dict[str, NetRun] = {}
    checks: dict[tuple[str, str], CheckRun] = {}
    with tqdm(total=len(cases) + 1, unit=" nets") as bar:
        for name, case in cases.items():
            sample = 2 if scale.smoke else 8
            run = runs[name] = measure_net(case, sample, min(scale.rounds, 2), bar.set_description)
            result.check(run.deviation <= ROUNDOFF_UNITS, f"{case.title} is near its loop")
            is_near = not EXTENDED or run.errors.traced <= max(1, run.errors.loop)
            result.check(is_near, f"{case.title} is near the exact quotients")
            for way in ("full", "fast") if hasattr(case.net, "gradient") else ():
                if way == "fast" or name in FULL_GRADIENTS:
                    bar.set_description(f"{case.title}: check_gradient, {way}")
                    check = measure_check(case, run.threads, fast=way == "fast")
                    checks[name, way] = check
                    is_right = check.right or not check.is_whole
                    result.check(is_right, f"{case.title}'s gradient is right, {way}")
            bar.update()
        bar.set_description("the book's own class")
        (x, t), _, data = digits(scale.smoke)
        steps = [train_plain(x, t, min(scale.steps, 300), count) for count in blas_threads()]
        bar.update()
    _gradients(result, cases, runs)
    _checks(result, cases, runs, checks)
    _training(result, steps, data)
    dropout = with_dropout(scale.smoke)
    result.text.append(f"{dropout.title}: {why_left_to_loop(dropout.loss, dropout.arrays[0])}")


def _gradients(result: Result, cases: Mapping[str, Case], runs: Mapping[str, NetRun]) -> None:
    """Add a table of gradients, those of vectors together, and one of what is left to the loop."""
    rows, facts = [], []
    for name, run in runs.items():
        title, params = cases[name].title, cases[name].net.params
        vectors = [array for array in params if params[array].ndim == 1]
        arrays = {array: run.arrays[array] for array in params if array not in vectors}
        arrays[f"{len(vectors)} vectors"] = together([run.arrays[array] for array in vectors])
        arrays["all"] = run.whole
        for array, found in arrays.items():
            first = title if array == next(iter(arrays)) else ""
            took = _above(found, f"{found.gradient:.3g}")
            calls = _above(found, f"{found.gradient / run.call:,.0f}")
            elements, loop = f"{found.elements:,}", f"{found.loop:.3g}"
            rows.append((first, array, elements, loop, took, calls, _faster(found)))
        for which, reach in REACH.get(name, {}).items():
            least = min((arrays[a] for a in which.split(", ")), key=lambda run: run.times_faster)
            what = f"{title}, {which}: gradients against the loop"
            result.figure(what, f"at least {reach:,} times faster", _faster(least))
        call = f"{1e3 * run.call:.3g}"
        errors = [f"{error:.2f}" for error in (run.errors.loop, run.errors.traced)]
        threads, deviation = f"{run.threads}", f"{run.deviation:.2f}"
        facts.append((title, call, threads, deviation, *errors, _left(run.reasons)))
    convolutional = runs["simple_conv_net"].whole
    seconds = _above(convolutional, f"{convolutional.gradient:.3g} s")
    what = f"{cases['simple_conv_net'].title}, all parameters"
    result.figure(what, f"at most {CONVOLUTIONAL_SECONDS} s", seconds)
    lead = (
        "How many times faster than the loop are the gradients of each array of weights, of all "
        "vectors (biases, scales and shifts), and of all parameters? The loop's seconds are "
        "extrapolated from the elements that it visited. Each array by itself, and all of them one "
        "after the other, as in training, where the first call computes others in advance. Each "
        "side at its best number of BLAS threads; parameters are new each time; > and < where it "
        "was given up:"
    )
    head = "net | array | elements | loop, s | fastgrad, s | calls of the loss | times faster"
    result.table(lead, head, rows)
    lead = (
        "How far are they from the loop's, in units of its round-off, eps L / h; how far are some "
        "of the loop's, and of fastgrad's, from the same quotients in extended precision; and what "
        "is left to the loop?"
    )
    head = "net | loss, ms | BLAS threads | deviation | loop's error | fastgrad's | to the loop"
    result.table(lead, head, facts)


def _checks(
    result: Result, cases: Mapping[str, Case], runs: Mapping[str, NetRun], checks: Checks
) -> None:
    """Add a table of checks of the nets' own backpropagation."""
    rows = []
    for (name, way), check in checks.items():
        title, run = cases[name].title, runs[name]
        seconds = _above(check, f"{check.seconds:.3g}")
        gradients = _above(check, f"{check.seconds / run.whole.gradient:.2g}")
        calls = _above(check, f"{check.seconds / run.call:,.0f}")
        if way == "full":
            what = f"{title}, check_gradient over its one numerical gradient"
            result.figure(what, f"at most {FULL_GRADIENTS[name]}", gradients)
        else:
            what = f"{title}, check_gradient(fast=True)"
            result.figure(what, f"at most {FAST_CALLS} calls of its loss", calls)
        rows.append((title, way, seconds, gradients, calls, f"{check.calls:,}"))
    lead = (
        "How long does `check_gradient` take to find backpropagation right: over a numerical "
        "gradient of all parameters, and over a call of the loss; > where time was over?"
    )
    head = "net | check | seconds | in gradients | in calls of the loss | calls it makes"
    result.table(lead, head, rows)


def _training(result: Result, runs: list[PlainRun], data: str) -> None:
    """Add a table of the training script with the book's own class."""
    rows = []
    for run in runs:
        calls = f"{run.steps.median / run.call:,.0f}"
        threads = f"{run.threads} BLAS thread{'s' * (run.threads > 1)}"
        what = f"a training step with the book's own class, {threads}"
        result.figure(what, f"at most {STEP_CALLS} calls of its loss", calls)
        # As in the benchmark "training": a quotient is within 1e-8 of the derivative.
        limit = len(run.steps.seconds) * RATE * 1e-8
        result.check(run.deviation <= limit, "the book's class learns as by backpropagation")
        call, step = f"{1e3 * run.call:.3g}", run.steps.milliseconds
        rows.append((threads, call, step, calls, f"{run.deviation:.0e}"))
    seconds = STEPS * min(run.steps.median for run in runs)
    what = f"{STEPS:,} steps of that, {data}, extrapolated from {len(runs[0].steps.seconds)}"
    result.figure(what, f"at most {STEPS_SECONDS} s", f"{seconds:.3g} s")
    lead = (
        "How long is a step of the training script with the book's own class, 784-50-10, whose "
        "import of `numerical_gradient` alone is changed, and how far is the loss of a batch from "
        "that of the same training by backpropagation?"
    )
    head = "BLAS | loss, ms | step, ms: median (minimum) | in calls of the loss | deviation"
    result.table(lead, head, rows)


def _above(run: ArrayRun | CheckRun, measured: str) -> str:
    """Say that it would have been more, where time was over."""
    return measured if run.is_whole else f"> {measured}"


def _faster(run: ArrayRun) -> str:
    """Say how many times faster than the loop a gradient is, or would at most have been."""
    return f"{'' if run.is_whole else '< '}{run.times_faster:,.3g}"


def _left(reasons: Mapping[str, str]) -> str:
    """Say which arrays are left to the loop, by the reason."""
    names: dict[str, list[str]] = {}
    for array, reason in reasons.items():
        names.setdefault(reason, []).append(array)
    return "; ".join(f"{', '.join(arrays)}: {reason}" for reason, arrays in names.items())
