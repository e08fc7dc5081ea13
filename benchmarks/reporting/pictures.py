"""Pictures of times, of their growth, and of errors."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from fastgrad.checking.plots import STYLE

# One colour a way to the gradient, everywhere; fastgrad's own are warm, the others cool or grey.
COLOURS = {
    "loop": "#8a8f98",
    "direct": "#e9a23b",
    "response": "#d1495b",
    "traced": "#e9a23b",
    "net.gradient": "#4f9d8f",
    "backpropagation": "#4f9d8f",
    "NumPy": "#7a9a3d",
    "PyTorch": "#3d6fb4",
    "JAX": "#8a6bbf",
    "fastgrad, loop": "#c8553d",
    "fastgrad, vectorized": "#e9a23b",
    "fastgrad, compiled": "#d1495b",
    "SciPy, 3-point": "#3d6fb4",
    "numdifftools": "#8a6bbf",
    "jacobi": "#4f9d8f",
    "forward": "#8a8f98",
    "forward(2)": "#4f9d8f",
    "central": "#d1495b",
    "central(4)": "#e9a23b",
    "central(6)": "#8a6bbf",
    "central(8)": "#3d6fb4",
    "complex": "#30343b",
}
LABELS = {
    "loop": "the book's loop",
    "direct": "direct",
    "response": "response",
    "traced": "traced",
    "net.gradient": "backpropagation, compiled",
    "NumPy": "backpropagation, NumPy",
    "PyTorch": "PyTorch autograd",
    "JAX": "JAX grad, compiled",
}
GROWTH = {
    "loop": "the book's loop",
    "traced": "fastgrad",
    "backpropagation": "backpropagation",
    "response": "TwoLayerNet, fastgrad",
}
"""Ways to make a step of training."""

DASHED = {
    "complex",  # beside central, where it truncates
    "SciPy, 3-point",
    "numdifftools",
    "jacobi",
}
WORDS = {
    "hidden": "hidden units",
    "inputs": "inputs",
    "samples": "samples in the batch",
    "layers": "hidden layers",
    "filters": "filters of a convolution",
}

Curves = Mapping[str, tuple[Iterable[float], Iterable[float]]]
"""Name -> places and values."""


def times(seconds: Mapping[str, float], title: str, path: Path) -> None:
    """Draw the time of one gradient by each way, on a logarithmic axis, the longest at the top."""
    with _picture(path, 8.0, 3.6) as axes:
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
        axes.tick_params(axis="y", length=0)


def traced(seconds: Mapping[str, tuple[float, float]], path: Path) -> None:
    """Draw, for each learner's net, the loop's time and the traced engine's, and their ratio."""
    with _picture(path, 8.0, 0.75 * len(seconds) + 1.4) as axes:
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
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)
        figure: Any = axes.figure
        figure.suptitle("Numerical gradients of nets in plain NumPy", x=0.01, ha="left", size=12)
        figure.legend(loc="outside upper right", ncols=2, frameon=False)


def growth(seconds: Mapping[str, Mapping[str, Mapping[int, float]]], path: Path) -> None:
    """Draw the cost of a step against each size, all axes logarithmic, in a panel each."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9.0, 5.6), layout="constrained")
        panels = figure.subplots(2, 3, sharey=True).flat
        for panel, (variable, curves) in zip(panels, seconds.items(), strict=False):
            _draw(panel, {name: (s, s.values()) for name, s in curves.items()}, "o")
            sizes = list(curves["loop"])
            panel.set_xticks(sizes, [str(size) for size in sizes])
            panel.minorticks_off()
            panel.set_xlabel(WORDS[variable])
        for panel in figure.axes[::3]:
            panel.set_ylabel("seconds for one step")
        legend = figure.axes[-1]
        legend.set_axis_off()
        legend.legend(figure.axes[0].lines, GROWTH.values(), loc="center", frameon=False)
        figure.suptitle("A training step in plain NumPy when one size grows", x=0.01, ha="left")
        figure.savefig(path)


def errors_by_step(
    curves: Curves, best: Mapping[str, tuple[float, float]], title: str, path: Path
) -> None:
    """Draw each scheme's error against its step: a V, with the step of ``h="auto"`` marked."""
    with _curves(path, curves) as axes:
        for name, (step, error) in best.items():
            axes.plot(step, error, "o", color=COLOURS[name], ms=8, mec="white", mew=1.5)
        axes.plot([], [], "o", color="#9aa0a8", ms=8, label='h="auto"')
        axes.set_xlabel("step h")
        axes.set_ylabel("relative error of the derivative")
        axes.set_title(title)


def times_by_size(curves: Curves, title: str, path: Path) -> None:
    """Draw each way's time for a gradient against the number of variables."""
    with _curves(path, curves, "o") as axes:
        axes.set_xlabel("number of variables n")
        axes.set_ylabel("seconds for one gradient")
        axes.set_title(title)


def errors(errors: Mapping[str, NDArray[Any]], title: str, path: Path) -> None:
    """Draw the errors of single entries against the exact quotient, by way to the gradient."""
    with _picture(path, 8.0, 3.6) as axes:
        generator = np.random.default_rng(0)
        smallest = 1e-19  # an entry that is exact to the last bit is drawn here
        for row, (name, values) in enumerate(errors.items()):
            values = np.maximum(values, smallest)
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
        axes.set_yticks(range(len(errors)), [LABELS[name] for name in errors])
        axes.set_ylim(len(errors) - 0.4, -0.6)
        axes.set_xlabel("error against the exact quotient (logarithmic)")
        axes.set_title(title)
        axes.grid(axis="x")
        axes.tick_params(axis="y", length=0)


@contextmanager
def _picture(path: Path, width: float, height: float) -> Iterator[Axes]:
    """Yield axes of a figure that needs no screen, and save it."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots()
        axes.set_axisbelow(True)
        yield axes
        figure.savefig(path)


@contextmanager
def _curves(path: Path, curves: Curves, marker: str = "") -> Iterator[Axes]:
    """Yield logarithmic axes with the curves, to which a legend is added."""
    with _picture(path, 8.5, 5.0) as axes:
        _draw(axes, curves, marker)
        yield axes
        figure: Any = axes.figure
        figure.legend(loc="outside right center", frameon=False)


def _draw(axes: Axes, curves: Curves, marker: str = "") -> None:
    """Draw curves on logarithmic axes."""
    for name, (places, values) in curves.items():
        axes.plot(
            list(places),
            list(values),
            marker + ("--" if name in DASHED else "-"),
            color=COLOURS[name],
            ms=4,
            lw=1.6,
            label=LABELS.get(name, name),
        )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.grid()


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
