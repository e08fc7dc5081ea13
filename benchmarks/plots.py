"""What do the results look like? One gradient's time, its growth and its error, in pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from benchmarks.growth import Growth
from fastgrad.checking.plots import STYLE

# One colour a way to the gradient, everywhere; fastgrad's own are warm, the others cool or grey.
COLOURS = {
    "loop": "#8a8f98",
    "direct": "#e9a23b",
    "response": "#d1495b",
    "traced": "#c8553d",
    "net.gradient": "#4f9d8f",
    "PyTorch": "#3d6fb4",
    "JAX": "#8a6bbf",
}
LABELS = {
    "loop": "the book's loop",
    "direct": "direct",
    "response": "response",
    "traced": "traced",
    "net.gradient": "backpropagation",
    "PyTorch": "PyTorch autograd",
    "JAX": "JAX grad, compiled",
}
WORDS = {"samples": "samples", "inputs": "inputs", "hidden": "hidden units"}


def plot_times(seconds: Mapping[str, float], title: str, path: Path) -> None:
    """Draw the time of one gradient by each way, on a logarithmic axis, the longest at the top."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(8.0, 3.6)
        names = sorted(seconds, key=lambda name: -seconds[name])
        values = [seconds[name] for name in names]
        bars = axes.barh(
            [LABELS[name] for name in names], values, color=[COLOURS[name] for name in names]
        )
        axes.bar_label(bars, [_duration(value) for value in values], padding=5)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(1e-4, 10 * max(values))
        axes.set_xlabel("seconds for one gradient (logarithmic)")
        axes.set_title(title)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        figure.savefig(path)


def plot_traced(seconds: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Draw, for each learner's net, the loop's time and the traced engine's, and their ratio."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(8.0, 0.75 * len(seconds) + 1.4)
        for row, (loop, traced) in enumerate(seconds.values()):
            for height, name, value in ((-0.19, "loop", loop), (0.19, "traced", traced)):
                label = LABELS[name] if row == 0 else None
                bars = axes.barh(row + height, value, 0.36, color=COLOURS[name], label=label)
                ratio = f"   {_ratio(loop / traced)} times faster" if name == "traced" else ""
                axes.bar_label(bars, [_duration(value) + ratio], padding=5)
        axes.set_yticks(range(len(seconds)), list(seconds))
        axes.set_ylim(len(seconds) - 0.5, -0.5)
        axes.set_xscale("log")
        axes.set_xlim(1e-3, 30 * max(loop for loop, _ in seconds.values()))
        axes.set_xlabel("seconds for one gradient (logarithmic)")
        figure.suptitle("Numerical gradients of nets in plain NumPy", x=0.01, ha="left", size=12)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.tick_params(axis="y", length=0)
        figure.legend(loc="outside upper right", ncols=2, frameon=False)
        figure.savefig(path)


def plot_growth(growth: Growth, path: Path) -> None:
    """Draw the cost against one size, both axes logarithmic, each line labelled at its end."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(8.0, 4.8)
        for name, seconds in growth.seconds.items():
            axes.plot(growth.sizes, seconds, "o-", color=COLOURS[name], markersize=4)
        axes.set_xscale("log")
        axes.set_yscale("log")
        ends = {name: seconds[-1] for name, seconds in growth.seconds.items()}
        for name, height in _spread(ends, axes).items():
            axes.annotate(
                "loop, extrapolated" if name == "loop" else LABELS[name],
                (growth.sizes[-1], height),
                xytext=(10, 0),
                textcoords="offset points",
                color=COLOURS[name],
                va="center",
                annotation_clip=False,
            )
        axes.set_xticks(growth.sizes, [str(size) for size in growth.sizes])
        axes.minorticks_off()
        axes.set_xlabel(WORDS[growth.variable])
        axes.set_ylabel("seconds for one gradient")
        fixed = ", ".join(f"{size} {WORDS[name]}" for name, size in growth.others.items())
        axes.set_title(f"Cost against {WORDS[growth.variable]}; {fixed}")
        axes.grid()
        figure.savefig(path)


def plot_errors(errors: Mapping[str, NDArray[Any]], title: str, path: Path) -> None:
    """Draw the errors of single entries against the exact quotient, by way to the gradient."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure(8.0, 3.6)
        names = list(errors)
        generator = np.random.default_rng(0)
        smallest = 1e-19  # an entry that is exact to the last bit is drawn here
        for row, name in enumerate(names):
            values = np.maximum(errors[name], smallest)
            heights = row + generator.uniform(-0.22, 0.22, len(values))
            axes.plot(values, heights, ".", color=COLOURS[name], alpha=0.45, markersize=4)
            axes.plot(2 * [values.max()], [row - 0.36, row + 0.36], color=COLOURS[name], lw=2)
            axes.annotate(
                f"largest {values.max():.1e}",
                (values.max(), row),
                xytext=(8, 0),
                textcoords="offset points",
                color=COLOURS[name],
                va="center",
            )
        axes.set_xscale("log")
        axes.set_xlim(smallest / 2, 1e-9)
        axes.set_yticks(range(len(names)), [LABELS[name] for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlabel("error against the exact quotient (logarithmic)")
        axes.set_title(title)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        figure.savefig(path)


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure that needs no screen, with one pair of axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _duration(seconds: float) -> str:
    """Write a duration in the unit that suits it."""
    if seconds >= 100:
        return f"{seconds:,.0f} s"
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} µs"


def _ratio(value: float) -> str:
    """Write a ratio with three digits, small ones with two."""
    return f"{float(f'{value:.3g}'):,.0f}" if value >= 100 else f"{value:.2g}"


def _spread(heights: Mapping[str, float], axes: Axes) -> dict[str, float]:
    """Move labels apart, on a logarithmic axis, so that each has a line of its own."""
    low, high = np.log10(axes.get_ylim())
    gap = 0.055 * (high - low)
    names: Sequence[str] = sorted(heights, key=lambda name: heights[name])
    places = [float(np.log10(heights[name])) for name in names]
    for _ in range(200):  # push neighbours apart until all gaps are wide enough
        for i in range(len(places) - 1):
            lack = gap - (places[i + 1] - places[i])
            if lack > 1e-9:
                places[i] -= lack / 2
                places[i + 1] += lack / 2
    return {name: 10**place for name, place in zip(names, places, strict=True)}
