"""The drawings in docs/pictures/: `python tools/draw_docs.py` writes them, or into another folder.

They are SVG, whose text stays text: small files, sharp at any size.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

FOLDER = Path(__file__).parents[1] / "docs" / "pictures"
INK, GREY, PALE, RED, BLUE = "#2b2f36", "#8a8f98", "#dfe2e6", "#d1495b", "#3d6fb4"
PALE_RED, PALE_BLUE = "#f6dade", "#d8e2f1"

STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fastgrad",
    "font.family": "sans-serif",
    "font.size": 11,
    "text.color": INK,
}


def main() -> None:
    """Draw all."""
    parser = argparse.ArgumentParser(description="Draw the pictures of the documentation.")
    parser.add_argument("--output", type=Path, default=FOLDER, help="the folder to write them to")
    draw_all(parser.parse_args().output)


def draw_all(folder: Path) -> None:
    """Write each picture to an SVG file that has its name."""
    folder.mkdir(parents=True, exist_ok=True)
    for draw, width, height in PICTURES:
        with rc_context(STYLE):
            figure = Figure(figsize=(width, height), layout="constrained")
            draw(figure.subplots())
            path = folder / f"{draw.__name__}.svg"
            figure.savefig(path, metadata={"Date": None, "Creator": None})


def one_unit(axes: Axes) -> None:
    """Draw two weights into one unit: each shifts it, by its own input's share."""
    bare(axes, (-1.6, 8.4), (-0.7, 3.7))
    inputs = [(0.0, 3.0 - k) for k in range(4)]
    units = [(3.0, 2.6 - 1.1 * k) for k in range(3)]
    for start in inputs:
        for end in units:
            axes.plot(*zip(start, end, strict=True), color=PALE, lw=1, zorder=0)
    moved = (1, RED, "0.8"), (2, BLUE, "0.3")
    for k, colour, pixel in moved:
        axes.plot(*zip(inputs[k], units[1], strict=True), color=colour, lw=2, zorder=1)
        axes.text(-0.35, 3.0 - k, f"x = {pixel}", color=colour, ha="right", va="center")
    for place in inputs:
        axes.plot(*place, "s", ms=15, color="white", mec=GREY)
    for place in units:
        axes.plot(*place, "o", ms=19, color="white", mec=GREY)
    axes.plot(*units[1], "o", ms=19, color="#f2ecd9", mec=INK)
    axes.text(3.0, 1.5, "a", ha="center", va="center")
    axes.text(3.6, 1.95, "weight + h:  a + 0.8 h", color=RED, va="center")
    axes.text(3.6, 1.05, "weight + h:  a + 0.3 h", color=BLUE, va="center")
    axes.text(0.0, 3.55, "inputs", ha="center", color=GREY)
    axes.text(3.0, 3.55, "units", ha="center", color=GREY)


def response(axes: Axes) -> None:
    """Draw the odd response of a sigmoid unit: measured at two shifts, asked for at many."""

    def loss(s: Any) -> Any:
        return np.log1p(np.exp(2.2 - 3.0 / (1 + np.exp(-s))))

    def odd(s: Any) -> Any:
        return loss(s) - loss(-s)

    s = np.linspace(-4, 4, 200)
    points = 4 * np.cos(np.array([1, 3]) * np.pi / 8)  # Chebyshev's, for two odd powers
    asked = 4 * np.random.default_rng(3).random(40) ** 2
    axes.axhline(0, color=PALE, lw=1)
    axes.axvline(0, color=PALE, lw=1)
    axes.plot(s, odd(s), color=GREY, lw=1.5)
    axes.plot(asked, odd(asked), "|", color=BLUE, ms=12, label="asked for by the 784 weights")
    axes.plot(points, odd(points), "o", color=RED, ms=9, label="measured")
    axes.set(xticks=[0, 4], xticklabels=["0", "h max(x)"], yticks=[])
    axes.set_xlabel("shift s of the unit")
    axes.set_ylabel("loss(a + s) - loss(a - s)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")


def replay(axes: Axes) -> None:
    """Draw what is computed again for a weight of the second layer, and what is not."""
    bare(axes, (-0.1, 10.1), (-1.3, 1.3))
    stages = ["x W1 + b1", "ReLU", "· W2 + b2", "ReLU", "· W3 + b3", "softmax", "loss"]
    colours = [PALE, PALE, PALE_BLUE, PALE_RED, PALE_RED, PALE_RED, PALE_RED]
    edges = [GREY, GREY, BLUE, RED, RED, RED, RED]
    for k, (text, colour, edge) in enumerate(zip(stages, colours, edges, strict=True)):
        box(axes, 1.45 * k, text, colour, edge)
        if k:
            arrow = {"arrowstyle": "-|>", "color": GREY}
            axes.annotate("", (1.45 * k, 0), (1.45 * k - 0.25, 0), arrowprops=arrow)
    for start, end, colour, text in (
        (0.0, 2.65, GREY, "computed once"),
        (2.9, 4.1, BLUE, "shifted"),
        (4.35, 9.9, RED, "replayed: one column, and whole rows behind W3"),
    ):
        axes.plot([start, end], [-0.65, -0.65], color=colour, lw=1.5)
        axes.text((start + end) / 2, -0.95, text, color=colour, ha="center", va="center")


def box(axes: Axes, left: float, text: str, colour: str, edge: str) -> None:
    """Draw an operation."""
    shape = FancyBboxPatch(
        (left, -0.35), 1.2, 0.7, boxstyle="round,pad=0,rounding_size=0.1", fc=colour, ec=edge
    )
    axes.add_patch(shape)
    axes.text(left + 0.6, 0, text, ha="center", va="center")


def lanes(axes: Axes) -> None:
    """Draw four points in the lanes of a vector: at each another element of x is moved."""
    bare(axes, (-1.6, 9.6), (-6.2, 1.4))
    for row in range(6):
        axes.text(-0.25, -row - 0.5, f"x[{row}]", ha="right", va="center")
        for lane in range(4):
            moved = row == lane + 1
            colour = PALE_RED if moved else "white"
            axes.add_patch(
                FancyBboxPatch((lane, -row - 0.95), 0.94, 0.9, boxstyle="square,pad=0",
                               fc=colour, ec=GREY)
            )  # fmt: skip
            text = "x + h" if moved else "x"
            colour = RED if moved else GREY
            axes.text(lane + 0.47, -row - 0.5, text, ha="center", va="center", color=colour)
    for lane in range(4):
        axes.text(lane + 0.47, 0.35, f"lane {lane}", ha="center", color=GREY, fontsize=9)
    axes.text(4.4, -0.5, "the same in all lanes: computed once", va="center", color=GREY)
    axes.text(4.4, -3.0, "they differ: one instruction for four", va="center", color=RED)
    axes.text(4.4, -5.5, "the same, but what is summed differs by now", va="center", color=GREY)


def rooms(axes: Axes) -> None:
    """Draw the rooms of ARCHITECTURE.md, whose diagram says what imports what."""
    bare(axes, (-2.1, 8.6), (-0.5, 5.5))
    text = (FOLDER.parents[1] / "ARCHITECTURE.md").read_text(encoding="utf-8")
    diagram = text.partition("```mermaid\n")[2].partition("```")[0]
    for above, below in re.findall(r"^ +(\w+) --> (.*)$", diagram, re.MULTILINE):
        for room in below.split(" & "):
            (x, y), (x_below, y_below) = ROOMS[above], ROOMS[room]
            arrow = {"arrowstyle": "-|>", "color": GREY}
            ends = (x_below, y_below + 0.33), (x, y - 0.33)
            axes.annotate("", *ends, arrowprops=arrow, zorder=0)
    for name, words in re.findall(r'^ +(\w+)\["(.*)"\]$', diagram, re.MULTILINE):
        x, y = ROOMS[name]
        first, second = re.sub(r"</?[bi]>", "", words).split("<br>")[:2]
        bold = {"fontweight": "bold"} if "<b>" in words else {"fontsize": 7.5}
        shape = FancyBboxPatch(
            (x - 1.9, y - 0.33), 3.8, 0.66, boxstyle="round,pad=0,rounding_size=0.1",
            fc=PALE_BLUE if "<b>" in words else PALE_RED, ec=GREY,
        )  # fmt: skip
        axes.add_patch(shape)
        axes.text(x, y + 0.13, first.rstrip(","), ha="center", va="center", **bold)
        second = second.partition(";")[0].rstrip(",:")
        axes.text(x, y - 0.14, second, ha="center", va="center", fontsize=7.5)


ROOMS = {
    "checking": (3.0, 5.0),
    "public": (0.9, 4.0),
    "network": (5.1, 4.0),
    "engines": (3.0, 3.0),
    "tracing": (0.2, 2.0),
    "jit": (6.6, 1.0),
    "differences": (2.6, 1.0),
    "schemes": (2.6, 0.0),
}
"""Where each room is drawn."""


def bare(axes: Axes, x_limits: tuple[float, float], y_limits: tuple[float, float]) -> None:
    """Draw no axes."""
    axes.set(xlim=x_limits, ylim=y_limits)
    axes.set_axis_off()


PICTURES: tuple[tuple[Callable[[Axes], None], float, float], ...] = (
    (one_unit, 7.0, 3.1), (response, 6.5, 3.6), (replay, 9.0, 2.0), (lanes, 8.0, 3.4),
    (rooms, 8.5, 6.0),
)  # fmt: skip
"""What draws each, and its width and height in inches."""

if __name__ == "__main__":
    main()
