"""Plots of checks: the V of errors against steps, a map of differences, Taylor's test."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fastgrad.checking.noise import measure_noise
from fastgrad.checking.report import Report
from fastgrad.checking.subject import as_gradient_under_test
from fastgrad.checking.taylor_test import Slope
from fastgrad.typing import Array

RED, BLUE, GREY, GREEN = "#d1495b", "#3d6fb4", "#8a8f98", "#4f9d8f"

STYLE: Any = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa0a8",
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "grid.color": "#e6e8eb",
    "savefig.dpi": 144,
    "savefig.facecolor": "white",
}

SEEN = 1e-6
"""Differences below this, in units of the largest element, are not told apart by colour."""

STEPS = 10.0 ** np.arange(-13, 0.01, 0.25)
"""At which the V is drawn."""


def draw_steps(
    f: Any,
    path: str | Path,
    x: Any = None,
    gradient: Any = None,
    *,
    t: Any = None,
    name: str | None = None,
    index: Sequence[int] | None = None,
    h: float | None = None,
) -> None:
    """Draw how far an element's central differences are from the gradient, for steps of all sizes.

    If the gradient is right, this is a V: round-off falls to the left, truncation rises to the
    right. If it is wrong, the V has a flat floor, as high as the error.

    Parameters
    ----------
    f, x, gradient, t, h
        As for `fastgrad.check_gradient`.
    path : str or Path
        The PNG file to write.
    name : str, optional
        Which array of parameters; the first one by default.
    index : sequence of int, optional
        Which element; by default that with the largest gradient.

    Raises
    ------
    ModuleNotFoundError
        If matplotlib is not installed.
    ValueError
        If there is no such array.
    """
    mpl = _matplotlib()
    subject = as_gradient_under_test(f, x, t, gradient, (), "auto")
    names = [part.name for part in subject.parts]
    if name is not None and name not in names:
        raise ValueError(f"name is {name!r}, which does not exist; pass one of {', '.join(names)}")
    part = subject.parts[names.index(name) if name is not None else 0]
    place = int(
        np.argmax(abs(part.claim))
        if index is None
        else np.ravel_multi_index(tuple(index), part.x.shape)
    )
    noise = measure_noise(subject, h)
    chosen = noise.step if h is None else h
    steps = np.append(STEPS, chosen)
    errors = _errors(subject, part, place, steps)
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.0, 4.4)
        axes.plot(STEPS, errors[:-1], ".-", color=BLUE, lw=1.2, ms=5, label="measured")
        axes.plot(STEPS, noise.level / STEPS, "--", color=GREY, lw=1, label="round-off, noise / h")
        label = f"the step of the check, {chosen:g}"
        axes.plot(chosen, errors[-1], "o", color=RED, ms=9, mec="white", mew=1.5, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        lowest = min([*errors[errors > 0], noise.level / chosen])
        axes.set_ylim(0.3 * lowest, None)
        axes.set_xlabel("step h")
        axes.set_ylabel("|central difference - gradient|")
        where = part.element(place)
        axes.set_title(f"{where}: error against the step")
        axes.grid()
        axes.set_axisbelow(True)
        axes.legend(frameon=False)
        figure.savefig(path, format="png")


def _errors(subject: Any, part: Any, place: int, steps: Array) -> Array:
    """Return by how much the central differences of each step differ from what is claimed."""
    old = part.x.view(np.ndarray).reshape(-1)[place]
    points = (old + np.concatenate([steps, -steps])).astype(part.x.dtype)
    values = subject.values(part.problem, place, points)
    up, down = np.split(values, 2)
    widths = (points[: len(steps)] - points[len(steps) :]).astype(values.dtype)
    with np.errstate(all="ignore"):
        return abs((up - down) / widths - part.claim[place])


def draw_difference(report: Report, name: str, path: str | Path) -> None:
    """Draw where in a parameter the gradient and the differences differ: a map of its elements.

    Parameters
    ----------
    report : Report
        As `fastgrad.check_gradient` returns it.
    name : str
        The parameter. Its first axis is drawn downwards, all others to the right.
    path : str or Path
        The PNG file to write.

    Raises
    ------
    KeyError
        If the report has no such row.
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    row = report[name]
    mpl = _matplotlib()
    error = abs(np.atleast_1d(row.gradient - row.numerical)).astype(float)
    image = error.reshape(len(error), -1) if error.ndim > 1 else error.reshape(1, -1)
    largest = float(np.nanmax(image, initial=0))
    scale = float(np.nanmax(abs(row.numerical), initial=0)) or 1.0
    with mpl.rc_context(STYLE):
        width = float(np.clip(1.8 + 5.0 * image.shape[1] / max(image.shape), 4.6, 7.0))
        height = float(np.clip(1.4 + 3.5 * image.shape[0] / max(image.shape), 2.0, 5.0))
        figure, axes = _figure(width, height)
        floor = SEEN * scale  # what is below is as light as what agrees
        shown = axes.imshow(
            np.maximum(image, floor),
            norm=mpl.colors.LogNorm(floor, max(largest, 10 * floor)),
            cmap="magma_r",
            aspect="auto",
            interpolation="nearest",
        )
        for spine in axes.spines.values():
            spine.set_visible(True)
        bar = figure.colorbar(shown, ax=axes)
        bar.set_label("|gradient - numerical|")
        axes.set_title(f"{name} is {row.verdict}: where it differs")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.set_xlabel("column" if error.ndim > 1 else "element")
        axes.set_ylabel("row" if error.ndim > 1 else "")
        if error.ndim == 1:
            axes.set_yticks([])
        figure.savefig(path, format="png")


def draw_slope(slope: Slope, path: str | Path) -> None:
    """Draw the remainders of `fastgrad.slope_test` against the steps."""
    mpl = _matplotlib()
    steps, remainders = slope.steps, slope.remainders
    with mpl.rc_context(STYLE):
        figure, axes = _figure(7.0, 4.4)
        colour = GREEN if slope else RED
        axes.plot(steps, remainders, ".-", color=colour, lw=1.2, ms=5, label="remainder")
        for power, dashes in ((1, ":"), (2, "--")):
            line = remainders[0] * (steps / steps[0]) ** power
            axes.plot(steps, line, dashes, color=GREY, lw=1, label=f"slope {power}")
        axes.axhline(slope.round_off, color=BLUE, lw=0.8, label="round-off")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_ylim(0.05 * slope.round_off, 3 * max(remainders.max(), slope.round_off))
        axes.set_xlabel("step s along a random direction v")
        axes.set_ylabel("|f(x + s v) - f(x) - s gradient v|")
        verdict = "right" if slope else "wrong"
        axes.set_title(f"The gradient is {verdict}: slope {slope.slope:.2f}")
        axes.grid()
        axes.set_axisbelow(True)
        axes.legend(frameon=False)
        figure.savefig(path, format="png")


def _matplotlib() -> Any:
    """Import matplotlib, or say how to get it."""
    try:
        import matplotlib as mpl
        import matplotlib.colors
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'pictures need matplotlib, which is not installed; pip install "fastgrad[plots]"'
        ) from None
    return mpl


def _figure(width: float, height: float) -> tuple[Any, Any]:
    """Return a figure that needs no screen, with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()
