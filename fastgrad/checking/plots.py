"""Plots of checks: the V of errors against steps, a map of differences, Taylor's test."""

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from fastgrad.checking.noise import measure_noise
from fastgrad.checking.report import Report
from fastgrad.checking.subject import as_gradient_under_test
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

MIN_COLOURED_DIFFERENCE = 1e-6
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
    subject = as_gradient_under_test(f, x, t, gradient, (), "auto")
    names = [part.name for part in subject.parts]
    if name is not None and name not in names:
        raise ValueError(f"name is {name!r}, which does not exist; pass one of {', '.join(names)}")
    part = subject.parts[names.index(name) if name is not None else 0]
    place = int(
        np.argmax(abs(part.analytic))
        if index is None
        else np.ravel_multi_index(tuple(index), part.x.shape)
    )
    noise = measure_noise(subject, h)
    chosen = noise.step if h is None else h
    steps = np.append(STEPS, chosen)
    errors = _errors(subject, part, place, steps)
    title = f"{part.element(place)}: error against the step"
    with curves(path, title, "step h", "|central difference - gradient|") as axes:
        axes.plot(STEPS, errors[:-1], ".-", color=BLUE, lw=1.2, ms=5, label="measured")
        axes.plot(STEPS, noise.level / STEPS, "--", color=GREY, lw=1, label="round-off, noise / h")
        label = f"the step of the check, {chosen:g}"
        axes.plot(chosen, errors[-1], "o", color=RED, ms=9, mec="white", mew=1.5, label=label)
        axes.set_ylim(0.3 * min([*errors[errors > 0], noise.level / chosen]), None)


def _errors(subject: Any, part: Any, place: int, steps: Array) -> Array:
    """Return by how much the central differences of each step differ from what is claimed."""
    offsets, values = subject.along(part, place, np.concatenate([steps, -steps]))
    up, down = np.split(values, 2)
    widths = offsets[: len(steps)] - offsets[len(steps) :]
    with np.errstate(all="ignore"):
        return abs((up - down) / widths - part.analytic[place])


def draw_difference(report: Report, name: str, path: str | Path | BytesIO) -> None:
    """Draw where in a parameter the gradient and the differences differ: a map of its elements.

    Parameters
    ----------
    report : Report
        As `fastgrad.check_gradient` returns it.
    name : str
        The parameter. Its first axis is drawn downwards, all others to the right.
    path : str, Path or BytesIO
        The PNG file to write.

    Raises
    ------
    KeyError
        If the report has no such row.
    ModuleNotFoundError
        If matplotlib is not installed.
    """
    row = report[name]
    error = abs(np.atleast_1d(row.gradient - row.numerical)).astype(np.float64)
    image = error.reshape(len(error), -1) if error.ndim > 1 else error.reshape(1, -1)
    largest = float(np.nanmax(image, initial=0))
    scale = float(np.nanmax(abs(row.numerical), initial=0)) or 1.0
    width = float(np.clip(1.8 + 5.0 * image.shape[1] / max(image.shape), 4.6, 7.0))
    height = float(np.clip(1.4 + 3.5 * image.shape[0] / max(image.shape), 2.0, 5.0))
    with _axes(path, width, height) as axes:
        from matplotlib.colors import LogNorm

        floor = MIN_COLOURED_DIFFERENCE * scale  # what is below is as light as what agrees
        shown = axes.imshow(
            np.maximum(image, floor),
            norm=LogNorm(floor, max(largest, 10 * floor)),
            cmap="magma_r",
            aspect="auto",
            interpolation="nearest",
        )
        for spine in axes.spines.values():
            spine.set_visible(True)
        axes.figure.colorbar(shown, ax=axes).set_label("|gradient - numerical|")
        axes.set_title(f"{name} is {row.verdict}: where it differs")
        for axis in (axes.xaxis, axes.yaxis):
            axis.get_major_locator().set_params(integer=True)
        is_map = error.ndim > 1
        axes.set(xlabel="column" if is_map else "element", ylabel="row" if is_map else "")
        if not is_map:
            axes.set_yticks([])


def inline(draw: Callable[[BytesIO], None]) -> str:
    """Return what is drawn as a picture within a page; "" where matplotlib is not installed."""
    picture = BytesIO()
    try:
        draw(picture)
    except ModuleNotFoundError:
        return ""
    return f'<img src="data:image/png;base64,{b64encode(picture.getvalue()).decode()}">'


@contextmanager
def _axes(path: str | Path | BytesIO, width: float, height: float) -> Iterator[Any]:
    """Write what the block draws into a PNG file, by a figure that needs no screen."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            'pictures need matplotlib, which is not installed; pip install "fastgrad[plots]"'
        ) from None
    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        yield figure.subplots()
        figure.savefig(path, format="png")


@contextmanager
def curves(path: str | Path | BytesIO, title: str, x_label: str, y_label: str) -> Iterator[Any]:
    """Write the curves that the block draws, with logarithmic axes."""
    with _axes(path, 7.0, 4.4) as axes:
        axes.set(xscale="log", yscale="log", xlabel=x_label, ylabel=y_label)
        axes.set_title(title)
        yield axes
        axes.grid()
        axes.set_axisbelow(True)
        axes.legend(frameon=False)
