"""Which figures does fastgrad promise, and what is measured? The rows of the results table."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks import plots, training
from benchmarks.accuracy import (
    EXTENDED,
    exact_quotients,
    hard_problems,
    mpmath_quotients,
    roundoff_bound,
)
from benchmarks.book_loop import run_loop, sample_loop
from benchmarks.cold_start import first_gradient_times, import_times
from benchmarks.growth import SIZES, measure_growth
from benchmarks.learners_nets import CASES
from benchmarks.pairing import Times, compare, ratio
from benchmarks.problems import Problem, gradients, mnist_problem, random_problem
from benchmarks.traced import Errors, measure, overhead, untraceable
from fastgrad import load_mnist
from fastgrad.datasets import load_mnist_sample


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes
    ----------
    whole_loop : bool
        Run the book's loop over every parameter; else over a sample.
    rounds : int
        Blocks of each contender.
    steps, seeds : int
        The length of a training, and how many are repeated.
    smoke : bool
        Shrink every problem.
    """

    whole_loop: bool = True
    rounds: int = 15
    steps: int = 10_000
    seeds: int = 5
    smoke: bool = False


FULL = Scale()
QUICK = Scale(whole_loop=False, rounds=5, steps=1_000, seeds=1)
SMOKE = Scale(whole_loop=False, rounds=1, steps=10, seeds=1, smoke=True)


@dataclass(frozen=True)
class Figure:
    """A row of the table: what, what it is to reach, what was measured, what prints it."""

    what: str
    reach: str
    measured: str
    command: str


@dataclass
class Results:
    """What was found: the figures, and tables of times and errors, each with its heading."""

    figures: list[Figure] = field(default_factory=list)
    times: dict[str, dict[str, Times]] = field(default_factory=dict)
    errors: dict[str, Errors] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, reach: str, measured: str, command: str) -> None:
        """Print a figure and keep it."""
        print(f"  {what}: {measured}", flush=True)
        self.figures.append(Figure(what, reach, measured, command))


def measure_dense(results: Results, scale: Scale, folder: Path) -> None:
    """Measure the 47 s case: the loop, every engine and the others; time, deviation and error."""
    problem = random_problem(20, 49, 10) if scale.smoke else random_problem()
    net, x, t = problem.net, problem.x, problem.t
    loop = run_loop(problem) if scale.whole_loop else sample_loop(problem)
    direct_call = partial(net.numerical_gradient, x, t, engine="direct")
    times = compare(gradients(problem), scale.rounds)
    direct = compare({"direct": direct_call}, min(scale.rounds, 5))
    results.times[f"{problem}, dense random"] = {"loop": loop.times} | direct | times
    results.notes.append(f"The book's loop: {loop.summary}.")
    command = "pytest benchmarks/test_dense.py"

    results.add(
        "response against the book's loop, 784-100-10, 100 dense samples",
        "at least 50,000 times faster",
        str(ratio(loop.times, times["response"])),
        command,
    )
    results.add(
        "direct against the book's loop, same case",
        "at least 150 times faster",
        str(ratio(loop.times, direct["direct"])),
        command,
    )
    if "PyTorch" in times:
        results.add(
            "response over PyTorch autograd, same case, float64, same threads",
            "at most 1",
            str(ratio(times["response"], times["PyTorch"])),
            command,
        )
    response, perturbed = net.numerical_gradient(x, t).buffer, direct_call().buffer
    bound = roundoff_bound(net.loss(x, t))
    results.add(
        "largest deviation of response from the loop, same case",
        f"the loop's own round-off, eps L / h = {bound:.1e}",
        f"{loop.deviation(response):.1e}, {loop.deviation(response) / bound:.2f} eps L / h",
        command,
    )
    if EXTENDED:
        exact = exact_quotients(problem)
        errors = {
            "loop": exact.errors(loop.entries, loop.quotients),
            "direct": exact.errors(np.arange(len(perturbed)), perturbed),
            "response": exact.errors(np.arange(len(response)), response),
        }
        results.add(
            "largest error against the exact quotient, same case, all four parameters",
            "at most 1e-14",
            ", ".join(f"{name} {values.max():.1e}" for name, values in errors.items()),
            command,
        )
        title = f"Rounding error of single entries, {problem}"
        plots.plot_errors(errors, title, folder / "error.png")
    medians = {name: t.median for name, t in results.times[f"{problem}, dense random"].items()}
    plots.plot_times(medians, f"One gradient of {problem}, float64", folder / "time.png")


def measure_hard_problems(results: Results, scale: Scale, folder: Path) -> None:
    """Measure the error where digits are easily lost."""
    worst, place = 0.0, ""
    for name, problem, h in list(hard_problems())[:: 7 if scale.smoke else 1]:
        gradient = problem.net.numerical_gradient(problem.x, problem.t, h).buffer
        error = mpmath_quotients(problem, 6, h).error(gradient) / float(abs(gradient).max())
        if error > worst:
            worst, place = error, name
    results.add(
        "same error, x up to 255, weights up to 5, h from 1e-2 to 1e-7, saturated, near-certain",
        "at most 1e-11 of the largest entry, or direct takes over",
        f"{worst:.1e} ({place})",
        "pytest benchmarks/test_accuracy.py",
    )


def measure_batches(results: Results, scale: Scale, folder: Path) -> None:
    """Measure sparse digits and a wide net beside autograd."""
    wide = random_problem(30, 49, 40) if scale.smoke else random_problem(1000, hidden=1000)
    cases: list[tuple[str, str, Problem]] = [
        ("digits", "no slower", mnist_problem(hidden=50)),
        ("digits", "no slower", mnist_problem(hidden=100)),
        ("dense random", "at most 1.3", wide),
    ]
    for kind, reach, problem in cases:
        times = compare(gradients(problem), scale.rounds)
        results.times[f"{problem}, {kind}"] = times
        if "PyTorch" in times:
            results.add(
                f"response over PyTorch autograd, {problem}, {kind}",
                reach,
                str(ratio(times["response"], times["PyTorch"])),
                "pytest benchmarks/test_batches.py",
            )


TRACED = {
    "two_layers": "at least 1,000 times faster",
    "two_layers_dense": "at least 1,000 times faster",
    "layered": "at least 300 times faster",
    "deep": "",
    "filters": "at least 1.5 times faster",
    "affine_weights": "at least 1,000 times faster",
}


def measure_traced(results: Results, scale: Scale, folder: Path) -> None:
    """Measure learners' nets beside their own loops, and functions that cannot be traced."""
    command = "pytest benchmarks/test_traced.py"
    runs = {}
    for name, reach in TRACED.items():
        whole = scale.whole_loop and name == "two_layers"
        rounds = min(scale.rounds, 3 if name in ("filters", "deep") else 7)
        drawn = 4 if scale.smoke else 96
        runs[name] = run = measure(CASES[name](scale.smoke), drawn, rounds, whole)
        title = run.case.title
        results.times[title] = {"loop": run.loop.times, "traced": run.traced}
        results.errors[title] = run.errors
        results.notes.append(f"The loop of a learner's net, {title}: {run.loop.summary}.")
        measured = str(ratio(run.loop.times, run.traced))
        results.add(f"a learner's own net against its loop: {title}", reach, measured, command)
    results.add(
        "largest deviation from the loop, same nets",
        "the loop's own round-off, eps L / h, kinks included",
        "; ".join(run.accuracy for run in runs.values()),
        command,
    )
    for name, (f, x) in (untraceable(5, 10) if scale.smoke else untraceable()).items():
        times = overhead(f, x, 1 if scale.smoke else 25)
        results.add(
            f'"auto" over "loop", a function of {x.size:,} that cannot be traced: {name}',
            "at most 1.03",
            f"{ratio(times['auto'], times['loop'])}; the refusal takes "
            f"{times['refusal'].median / times['loop'].median:.1%} of the loop's time",
            command,
        )
    bars = {
        run.case.title.replace(", ", "\n", 1): (run.loop.times.median, run.traced.median)
        for run in runs.values()
    }
    plots.plot_traced(bars, folder / "traced.png")


def measure_training(results: Results, scale: Scale, folder: Path) -> None:
    """Train the book's net on MNIST, several times, and beside PyTorch."""
    try:
        (x, t), (x_test, t_test) = load_mnist()
        data = "full MNIST"
    except (ConnectionError, ImportError):
        (x, t), (x_test, t_test) = load_mnist_sample()
        data = "the embedded sample of MNIST"
    training.train(training.everyone(x, t), 3)  # warm up
    steps = min(scale.steps, 2_000)
    rates = training.train(training.everyone(x, t), steps)
    results.rates = {name: steps / sum(times.seconds) for name, times in rates.items()}

    trainer = training.numerical(x, t)
    rivals = [training.pytorch(x, t)] if "PyTorch" in rates else []
    blocks = training.train([trainer, *rivals], scale.steps)
    if rivals:
        total = {name: sum(times.seconds) for name, times in blocks.items()}
        results.add(
            f"the same {scale.steps:,} steps over a PyTorch backpropagation loop",
            "at most 1",
            f"{total['numerical_gradient'] / total['PyTorch']:.3g} in all "
            f"({total['numerical_gradient']:.3g} s, {total['PyTorch']:.3g} s), "
            f"{ratio(blocks['numerical_gradient'], blocks['PyTorch'])}",
            "pytest benchmarks/test_training.py --full-training",
        )
    accuracies = [training.accuracy(trainer, x_test, t_test)]
    for seed in range(1, scale.seeds):
        trainer = training.numerical(x, t, seed)
        training.train([trainer], scale.steps)
        accuracies.append(training.accuracy(trainer, x_test, t_test))
    results.add(
        f"test accuracy after {scale.steps:,} steps, {data}, seeds 0 to {scale.seeds - 1}",
        "at least 0.94 after 10,000 steps on full MNIST",
        ", ".join(f"{accuracy:.4f}" for accuracy in accuracies),
        "python examples/train_mnist.py --seed 0",
    )


def measure_cold_start(results: Results, scale: Scale, folder: Path) -> None:
    """Measure fresh processes."""
    imports = import_times(1 if scale.smoke else 11)
    command = "pytest benchmarks/test_cold_start.py"
    beyond = imports["fastgrad"].median - imports["numpy"].median
    results.add("`import fastgrad` beyond numpy's import", "0.1 s", f"{beyond:.3f} s", command)
    empty, warm = first_gradient_times(1 if scale.smoke else 3)
    what = "fresh process to first gradient, {} kernel cache"
    results.add(what.format("warm"), "1 s", f"{warm.median:.2f} s", command)
    results.add(what.format("empty"), "6 s", f"{empty:.2f} s", command)


def measure_all_growth(results: Results, scale: Scale, folder: Path) -> None:
    """Measure and plot the cost against each size."""
    for variable in SIZES:
        growth = measure_growth(variable, scale.smoke, min(scale.rounds, 4))
        plots.plot_growth(growth, folder / f"growth_{variable}.png")


MEASUREMENTS: dict[str, Callable[[Results, Scale, Path], None]] = {
    "cold start in fresh processes": measure_cold_start,
    "the 47 s case": measure_dense,
    "hard problems": measure_hard_problems,
    "digits and a wide net": measure_batches,
    "learners' nets in plain NumPy": measure_traced,
    "training": measure_training,
    "growth with samples, inputs and hidden units": measure_all_growth,
}
