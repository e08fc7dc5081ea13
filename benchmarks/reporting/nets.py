"""Benchmarks of the book's net, of training it, and of nets that learners write."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.cases.learners_nets import CASES
from benchmarks.cases.two_layer_net import Problem, gradients, mnist_problem, random_problem
from benchmarks.measure.accuracy import (
    EXTENDED,
    exact_quotients,
    hard_cases,
    mpmath_quotients,
    roundoff_bound,
)
from benchmarks.measure.book_loop import books_loop
from benchmarks.measure.cold_start import first_gradient_times, import_times
from benchmarks.measure.density import SHARES, sparse_over_dense
from benchmarks.measure.growth import (
    BASE,
    CONVOLUTIONAL_SAMPLES,
    SIZES,
    SMOKE_BASE,
    seconds_by_size,
)
from benchmarks.measure.timing import Times, compare, ratio
from benchmarks.measure.traced import (
    compare_with_loop,
    overhead,
    untraceable_functions,
)
from benchmarks.measure.training import RATE, accuracy, digits, everyone, numerical, pytorch, train
from benchmarks.reporting import pictures
from benchmarks.reporting.pictures import GROWTH, LABELS, WORDS
from benchmarks.reporting.result import ROUNDOFF_UNITS, Result, Scale
from fastgrad import numerical_gradient
from fastgrad.jit import matrix_products


def cold_start(result: Result, scale: Scale, folder: Path) -> None:
    """Fresh processes: the import, and the first gradient."""
    imports = import_times(1 if scale.smoke else 11)
    beyond = imports["fastgrad"].median - imports["numpy"].median
    result.figure("`import fastgrad` beyond numpy's import", "0.1 s", f"{beyond:.3f} s")
    empty, warm = first_gradient_times(1 if scale.smoke else 3)
    what = "fresh process to first gradient, {} kernel cache"
    result.figure(what.format("warm"), "1 s", f"{warm.median:.2f} s")
    result.figure(what.format("empty"), "6 s", f"{empty:.2f} s")


def dense(result: Result, scale: Scale, folder: Path) -> None:
    """One gradient of the book's net on dense random samples, the 47 s case."""
    problem = random_problem(20, 49, 10) if scale.smoke else random_problem()
    net, x, t = problem.net, problem.x, problem.t
    loop = books_loop(problem, None if scale.whole_loop else 96)
    direct_call = partial(net.numerical_gradient, x, t, engine="direct")
    calls = gradients(problem)
    direct = compare({"direct": direct_call}, min(scale.rounds, 5))["direct"]
    times = {"loop": loop.times, "direct": direct} | compare(calls, scale.rounds)
    result.text.append(f"The book's loop: {loop.summary}.")
    _times_table(result, {f"{problem}, dense random": times})
    result.figure(
        "response against the book's loop, 784-100-10, 100 dense samples",
        "at least 50,000 times faster",
        str(ratio(loop.times, times["response"])),
    )
    result.figure(
        "direct against the book's loop, same case",
        "at least 150 times faster",
        str(ratio(loop.times, direct)),
    )
    if "PyTorch" in times:
        result.figure(
            "response over PyTorch autograd, same case, float64, same threads",
            "at most 0.8",
            str(ratio(times["response"], times["PyTorch"])),
        )
    result.figure(
        "response over backpropagation in NumPy, same case",
        "at most 1.3",
        str(ratio(times["response"], times["NumPy"])),
    )
    medians = {name: taken.median for name, taken in times.items()}
    pictures.times(medians, f"One gradient of {problem}, float64", folder / "time.png")

    quotients = {"direct": direct_call().buffer, "response": net.numerical_gradient(x, t).buffer}
    bound = roundoff_bound(net.loss(x, t))
    for name, values in quotients.items():
        result.check(loop.deviation(values) <= ROUNDOFF_UNITS * bound, f"{name} is near the loop")
    deviation = loop.deviation(quotients["response"])
    result.figure(
        "largest deviation of response from the loop, same case",
        f"the loop's own round-off, eps L / h = {bound:.1e}",
        f"{deviation:.1e}, {deviation / bound:.2f} eps L / h",
    )
    backpropagation = net.gradient(x, t).buffer
    for name in ("PyTorch", "JAX"):
        if name in calls:
            arrays = [np.asarray(values).ravel() for values in calls[name]()]
            error = abs(np.concatenate(arrays) - backpropagation).max()
            result.check(error <= 1e-14, f"{name}'s gradient is that of backpropagation")
    if EXTENDED:
        exact = exact_quotients(problem)
        errors = {"loop": exact.errors(loop.quotients, loop.entries)}
        errors |= {name: exact.errors(values) for name, values in quotients.items()}
        for name, values in errors.items():
            limit = 1e-14 if name == "response" else ROUNDOFF_UNITS * bound
            result.check(values.max() <= limit, f"{name} is near the exact quotient")
        result.figure(
            "largest error against the exact quotient, same case, all four parameters",
            "at most 1e-14",
            ", ".join(f"{name} {values.max():.1e}" for name, values in errors.items()),
        )
        title = f"Rounding error of single entries, {problem}"
        pictures.errors(errors, title, folder / "error.png")


def hard_problems(result: Result, scale: Scale, folder: Path) -> None:
    """The error where digits are easily lost: large pixels and weights, any step."""
    worst, place = 0.0, ""
    for name, problem, h in list(hard_cases())[:: 7 if scale.smoke else 1]:
        gradient = problem.net.numerical_gradient(problem.x, problem.t, h).buffer
        error = float(mpmath_quotients(problem, 6, h).errors(gradient).max())
        largest = float(abs(gradient).max())
        # Where the step is too large for the response, direct takes over, with its rounding.
        rounding = ROUNDOFF_UNITS * roundoff_bound(problem.net.loss(problem.x, problem.t), h)
        limit = 1e-13 * largest if h <= 1e-5 else max(1e-11 * largest, rounding)
        result.check(error <= limit, f"no digits are lost for {name}")
        if error / largest > worst:
            worst, place = error / largest, name
    result.figure(
        "largest error, x up to 255, weights up to 5, h from 1e-2 to 1e-7, saturated, near-certain",
        "at most 1e-11 of the largest entry, or direct takes over",
        f"{worst:.1e} ({place})",
    )


def batches(result: Result, scale: Scale, folder: Path) -> None:
    """One gradient of the book's net on digits, and of a wide net, beside autograd."""
    wide = random_problem(30, 49, 40) if scale.smoke else random_problem(1000, hidden=1000)
    cases: list[tuple[str, str, Problem]] = [
        ("digits", "no slower", mnist_problem(hidden=50)),
        ("digits", "no slower", mnist_problem(hidden=100)),
        ("dense random", "at most 1", wide),
    ]
    rows = {}
    for kind, reach, problem in cases:
        times = rows[f"{problem}, {kind}"] = compare(gradients(problem), scale.rounds)
        if "PyTorch" in times:
            measured = str(ratio(times["response"], times["PyTorch"]))
            result.figure(f"response over PyTorch autograd, {problem}, {kind}", reach, measured)
        if EXTENDED:
            gradient = problem.net.numerical_gradient(problem.x, problem.t).buffer
            error = exact_quotients(problem, per_array=4).errors(gradient).max()
            result.check(error <= 1e-14, f"{problem}, {kind} is near the exact quotient")
    _times_table(result, rows)


TRACED = {
    "two_layers": "at least 3,000 times faster",
    "two_layers_dense": "at least 3,000 times faster",
    "layered": "at least 1,500 times faster",
    "deep": "at least 500 times faster",
}


def traced(result: Result, scale: Scale, folder: Path) -> None:
    """One gradient of nets in plain NumPy, as learners write them, beside their own loops."""
    runs = {}
    for name, reach in TRACED.items():
        case = CASES[name](scale.smoke)
        whole = scale.whole_loop and name == "two_layers"
        rounds = min(scale.rounds, 3 if name in ("filters", "deep") else 7)
        per_array = None if whole else 4 if scale.smoke else 96
        run = runs[case.title] = compare_with_loop(case, per_array, rounds)
        measured = str(ratio(run.loop.times, run.traced))
        result.figure(f"a learner's own net against its loop: {case.title}", reach, measured)
        result.check(run.deviation <= ROUNDOFF_UNITS, f"{case.title} is near its loop")
        if EXTENDED:
            # The largest of a few may be either's.
            limit = 1 if scale.smoke else min(1, run.errors.loop)
            result.check(run.errors.traced <= limit, f"{case.title} is near the exact quotients")
    kinked = sum(run.kinked for run in runs.values())
    compared = sum(len(run.loop.entries) for run in runs.values()) + kinked
    result.figure(
        "largest deviation from the loop, same nets",
        "the loop's own round-off, eps L / h, kinks included",
        f"{max(run.deviation for run in runs.values()):.2f} eps L / h at {compared:,} elements, "
        f"{kinked} of them over a kink",
    )
    visited = [f"{len(run.loop.entries):,} of {run.loop.parameters:,}" for run in runs.values()]
    result.text.append(
        f"The loops visited {', '.join(visited)} parameters; where these are not all, their times "
        "are extrapolated. Each side ran with the number of BLAS threads that suits it best."
    )
    _times_table(
        result,
        {title: {"loop": run.loop.times, "traced": run.traced} for title, run in runs.items()},
    )
    result.table(
        "How far are they from the same quotients in extended precision, and traced from the loop? "
        "The largest, in units of round-off, eps L / h:",
        "problem | elements | the loop's error | traced's error | deviation",
        (
            (title, f"{e.elements}", f"{e.loop:.2g}", f"{e.traced:.2g}", f"{e.deviation:.2g}")
            for title, e in ((title, run.errors) for title, run in runs.items())
        ),
    )
    bars = {
        title.replace(", ", "\n", 1): (run.loop.times.median, run.traced.median)
        for title, run in runs.items()
    }
    pictures.traced(bars, folder / "traced.png")


def untraceable(result: Result, scale: Scale, folder: Path) -> None:
    """What it costs to find that a function cannot be traced."""
    cases = untraceable_functions(*((5, 10) if scale.smoke else (100, 100)))
    for name, (f, x) in cases.items():
        times = overhead(f, x, 1 if scale.smoke else 100)
        result.figure(
            f'"auto" over "loop", a function of {x.size:,} that cannot be traced: {name}',
            "at most 1.03",
            f"{ratio(times['auto'], times['loop'])}; the refusal takes "
            f"{times['refusal'].median / times['loop'].median:.1%} of the loop's time",
        )
        if name != "dropout":  # which gives another loss each time
            auto, loop = (numerical_gradient(f, x, engine=engine) for engine in ("auto", "loop"))
            result.check((auto == loop).all(), f"the gradient of {name} is the loop's")


def training(result: Result, scale: Scale, folder: Path) -> None:
    """Training, 784-50-10, batches of 100 digits: choose, gradient, update, loss."""
    (x, t), (x_test, t_test), data = digits(scale.smoke)
    train(everyone(x, t), 3)  # warm up
    steps, trainers = min(scale.steps, 2_000), everyone(x, t)
    rates = {name: steps / times.total for name, times in train(trainers, steps).items()}
    result.table(
        "With which gradient are most steps made in a second?",
        "gradient by | steps a second",
        ((name, f"{r:,.0f}") for name, r in rates.items()),
    )
    ends = {trainer.name: trainer.parameters() for trainer in trainers}
    rivals = [pytorch(x, t)] if "PyTorch" in ends else []
    for name in ("numerical_gradient", "net.gradient") if rivals else ():
        # A quotient at h = 1e-4 is within 1e-8 of the derivative, its truncation error, and a step
        # adds the learning rate's share of it, little of which dies away.
        deviation = abs(ends[name] - ends["PyTorch"]).max()
        result.check(deviation <= steps * RATE * 1e-8, f"{name} trains as PyTorch does")
    trainer = numerical(x, t)
    blocks = train([trainer, *rivals], scale.steps)
    if rivals:
        ours, theirs = blocks["numerical_gradient"], blocks["PyTorch"]
        result.figure(
            f"the same {scale.steps:,} steps over a PyTorch backpropagation loop",
            "at most 1",
            f"{ours.total / theirs.total:.3g} in all "
            f"({ours.total:.3g} s, {theirs.total:.3g} s), {ratio(ours, theirs)}",
        )
    accuracies = [accuracy(trainer, x_test, t_test)]
    for seed in range(1, scale.seeds):
        trainer = numerical(x, t, seed)
        train([trainer], scale.steps)
        accuracies.append(accuracy(trainer, x_test, t_test))
    result.figure(
        f"test accuracy after {scale.steps:,} steps, {data}, seeds 0 to {scale.seeds - 1}",
        "at least 0.94 after 10,000 steps on full MNIST",
        ", ".join(f"{accuracy:.4f}" for accuracy in accuracies),
    )


def growth(result: Result, scale: Scale, folder: Path) -> None:
    """The cost of a training step against hidden units, inputs, batch, layers and filters."""
    seconds, rows = {}, []
    for variable in tqdm(SIZES, unit=" sizes", mininterval=1):
        found = seconds[variable] = seconds_by_size(variable, scale.smoke, min(scale.rounds, 4))
        for size, loop in found["loop"].items():
            loop_over = f"{loop / found['traced'][size]:,.3g}"
            over = f"{found['traced'][size] / found['backpropagation'][size]:,.3g}"
            others = [found.get(way, {}).get(size) for way in [*GROWTH][1:]]
            times = [f"{1e3 * value:,.3g}" if value else "" for value in others]
            what = f"{WORDS[variable]}: {size}"
            rows.append((what, f"{loop:,.3g}", *times, loop_over, over))
    base = SMOKE_BASE if scale.smoke else BASE
    fixed = ", ".join(f"{WORDS[name]}: {size}" for name, size in base.items())
    lead = (
        "What does a step of training cost when one size grows? The book's MultiLayerNet and, with "
        f"filters, its SimpleConvNet ({CONVOLUTIONAL_SAMPLES} digits), by the loop (extrapolated), "
        "by fastgrad and by backpropagation in NumPy; and `TwoLayerNet`. The shortest step; "
        f"{fixed}, but for the one that grows:"
    )
    head = (
        "what grows | loop, s | fastgrad, ms | backpropagation, ms | TwoLayerNet, ms | "
        "loop / fastgrad | fastgrad / backpropagation"
    )
    result.table(lead, head, rows)
    pictures.growth(seconds, folder / "growth.png")


def density(result: Result, scale: Scale, folder: Path) -> None:
    """The share of nonzeros from which on a batch is better multiplied whole."""
    rows = []
    for hidden in (5,) if scale.smoke else (50, 100, 300):
        ratios = sparse_over_dense(hidden, 10 if scale.smoke else 100, scale.rounds)
        crossing = float(np.interp(1.0, ratios, SHARES))
        rows.append((f"{hidden}", *(f"{r:.2f}" for r in ratios), f"{crossing:.0%}"))
    head = " | ".join(f"{share:.0%}" for share in SHARES)
    result.table(
        "From which share of nonzeros on does a batch take longer entry by entry, above 1?",
        f"hidden units: sparse over dense at | {head} | "
        f"equal; now {matrix_products.MAX_DENSITY:.0%}",
        rows,
    )


def _times_table(result: Result, times: Mapping[str, Mapping[str, Times]]) -> None:
    """Add one row a problem, one column a way to the gradient."""
    names = [name for name in LABELS if any(name in taken for taken in times.values())]
    result.table(
        "How long does one gradient take? Milliseconds: median (minimum):",
        " | ".join(["problem", *(LABELS[name] for name in names)]),
        (
            (problem, *(taken[name].milliseconds if name in taken else "" for name in names))
            for problem, taken in times.items()
        ),
    )
