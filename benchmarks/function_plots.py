"""What do differences of any function look like? Error by step, and time by size."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.plots import COLOURS
from fastgrad.checking.plots import STYLE

SCHEME_COLOURS = {
    "forward": "#8a8f98",
    "forward(2)": "#4f9d8f",
    "central": "#d1495b",
    "central(4)": "#e9a23b",
    "central(6)": "#8a6bbf",
    "central(8)": "#3d6fb4",
    "complex": "#30343b",
}
WAY_COLOURS = {
    "fastgrad, loop": "#c8553d",
    "fastgrad, vectorized": "#e9a23b",
    "fastgrad, compiled": "#d1495b",
    "SciPy approx_derivative, 3-point": COLOURS["PyTorch"],
    "numdifftools": COLOURS["JAX"],
    "jacobi": COLOURS["net.gradient"],
}

Curve = tuple[Sequence[float], Sequence[float]]


def plot_errors_by_step(
    curves: Mapping[str, Curve], best: Mapping[str, tuple[float, float]], title: str, path: Path
) -> None:
    """Draw each scheme's error against its step: a V, with the step of ``h="auto"`` marked.

    Parameters
    ----------
    curves : mapping of str to (steps, errors)
    best : mapping of str to (step, error)
        What is marked.
    title : str
    path : Path
        The picture to write.
    """
    with mpl.rc_context(STYLE):
        axes = _axes(8.5, 5.2)
        for name, (steps, errors) in curves.items():
            dashes = "--" if name == "complex" else "-"  # beside central, where it truncates
            axes.plot(steps, errors, dashes, color=SCHEME_COLOURS[name], lw=1.6, label=name)
            if name in best:
                step, error = best[name]
                axes.plot(step, error, "o", color=SCHEME_COLOURS[name], ms=8, mec="white", mew=1.5)
        axes.plot([], [], "o", color="#9aa0a8", ms=8, label='h="auto"')
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("step h")
        axes.set_ylabel("relative error of the derivative")
        axes.set_title(title)
        _finish(axes, path)


def plot_times_by_size(curves: Mapping[str, Curve], title: str, path: Path) -> None:
    """Draw each way's time for a gradient against the number of variables."""
    with mpl.rc_context(STYLE):
        axes = _axes(8.5, 5.2)
        for name, (sizes, seconds) in curves.items():
            style = "o-" if name.startswith("fastgrad") else "s--"
            axes.plot(sizes, seconds, style, color=WAY_COLOURS[name], ms=4, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("number of variables n")
        axes.set_ylabel("seconds for one gradient")
        axes.set_title(title)
        _finish(axes, path)


def _axes(width: float, height: float) -> Axes:
    return Figure(figsize=(width, height), layout="constrained").subplots()


def _finish(axes: Axes, path: Path) -> None:
    axes.grid()
    axes.set_axisbelow(True)
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(loc="outside right center", frameon=False)
    figure.savefig(path)
