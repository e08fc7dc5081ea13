"""SciPy's optimizers with fastgrad's gradients: two fits to real digits.

python examples/fit.py                    both fits, by SciPy's own differences and by fastgrad's
python examples/fit.py --iterations 5     stop the first one early

The digits are those that come with fastgrad. 1. Softmax regression by `scipy.optimize.minimize`:
1,970 weights tell ten digits apart. 2. A ring of ink by `scipy.optimize.least_squares`: seven
numbers describe the average zero.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import least_squares, minimize

from fastgrad import Gradient, jacobian
from fastgrad.datasets import load_mnist_sample
from fastgrad.typing import Array

COLOURS = {"2-point": "#8a8f98", "3-point": "#3d6fb4", "fastgrad": "#d1495b"}


@dataclass
class Fit:
    """What became of a fit.

    Attributes
    ----------
    seconds, losses : list of float
        After each iteration, the time since the start and the loss.
    calls : int
        Of the function, its gradient's included.
    solution : array
    """

    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    calls: int = 0
    solution: Array = field(default_factory=lambda: np.zeros(0))


def main() -> None:
    """Fit both, print the tables and save the picture."""
    arguments = parse_arguments()
    (images, labels), _ = load_mnist_sample()
    regressions = {
        name: fit_regression(coarse(images[:500]), labels[:500], jac, arguments.iterations)
        for name, jac in (("2-point", "2-point"), ("3-point", "3-point"), ("fastgrad", None))
    }
    print("Softmax regression: 500 digits of 14 x 14 pixels, 1,970 weights, L-BFGS-B")
    print_table(regressions)
    print("fastgrad records f and replays only what follows the weights, which is not counted.")
    zero = images[labels == 0].mean(axis=0).reshape(28, 28)
    rings = {
        name: fit_ring(zero, jac)
        for name, jac in (("2-point", "2-point"), ("3-point", "3-point"), ("fastgrad", None))
    }
    print("\nA ring of ink: 784 pixels of the average zero, 7 parameters, least squares")
    print_table(rings)
    draw(regressions, zero, rings["fastgrad"].solution, arguments.output)
    print(f"\nThe curves and the ring are drawn in {arguments.output}")


# The first fit: a scalar loss of many weights


def coarse(images: Array) -> Array:
    """Return rows of 784 pixels as rows of 196, each the mean of 2 x 2, and a 1 for the offset."""
    blocks = images.reshape(-1, 14, 2, 14, 2)
    pixels = blocks.mean(axis=(2, 4)).reshape(-1, 196)
    return np.hstack([pixels, np.ones((len(pixels), 1))])


def fit_regression(x: Array, t: Array, jac: str | None, iterations: int) -> Fit:
    """Fit the weights by L-BFGS-B, with SciPy's differences or, for None, with fastgrad's."""
    rows, fit = np.arange(len(x)), Fit()

    def loss(w: Array) -> Any:
        fit.calls += 1
        scores = x @ w.reshape(197, 10)
        # They stay small, so that no maximum need be subtracted before the exponential.
        return np.mean(np.log(np.sum(np.exp(scores), axis=1)) - scores[rows, t])

    def note(intermediate_result: Any) -> None:
        fit.seconds.append(time.perf_counter() - start)
        fit.losses.append(float(intermediate_result.fun))

    gradient = Gradient(loss) if jac is None else jac
    start = time.perf_counter()
    options = {"maxiter": iterations, "maxfun": 10**9}
    result = minimize(
        loss, np.zeros(1970), jac=gradient, method="L-BFGS-B", callback=note, options=options
    )
    fit.solution = result.x
    return fit


# The second fit: many residuals of a few parameters


def ring(p: Array, rows: Array, columns: Array) -> Array:
    """Return the ink of an ellipse's blurred outline.

    Parameters
    ----------
    p : array (7,)
        The height and the width of the line, the centre's row and column, the half axes, the tilt.
    rows, columns : arrays
        Where the pixels are.
    """
    height, width, row, column, long, short, tilt = p
    along = (rows - row) * np.cos(tilt) + (columns - column) * np.sin(tilt)
    across = (columns - column) * np.cos(tilt) - (rows - row) * np.sin(tilt)
    radius = np.sqrt((along / long) ** 2 + (across / short) ** 2 + 1e-12)
    ink: Array = height * np.exp(-(((radius - 1) / width) ** 2))
    return ink


def fit_ring(image: Array, jac: str | None) -> Fit:
    """Fit the ring by least squares, with SciPy's differences or, for None, with fastgrad's."""
    rows, columns = np.indices(image.shape).astype(float)
    fit = Fit()

    def residuals(p: Array) -> Array:
        fit.calls += 1
        return (ring(p, rows, columns) - image).reshape(-1)

    def by_fastgrad(p: Array) -> Array:
        return np.asarray(jacobian(residuals, p))

    method: Callable[[Array], Array] | str = by_fastgrad if jac is None else jac
    start = time.perf_counter()
    guess = np.array([0.5, 0.3, 14.0, 14.0, 8.0, 6.0, 0.0])
    result = least_squares(residuals, guess, jac=method, x_scale="jac")
    fit.seconds.append(time.perf_counter() - start)
    fit.losses.append(float(2 * result.cost / image.size))
    fit.solution = result.x
    return fit


# What is shown


def print_table(fits: dict[str, Fit]) -> None:
    """Print what each way cost and reached."""
    print(f"{'derivatives by':<18}{'loss':>12}{'calls of f':>12}{'seconds':>10}")
    for name, fit in fits.items():
        label = name if name == "fastgrad" else f"SciPy, {name}"
        print(f"{label:<18}{fit.losses[-1]:>12.8f}{fit.calls:>12,}{fit.seconds[-1]:>10.3f}")


def draw(regressions: dict[str, Fit], zero: Array, p: Array, path: Path) -> None:
    """Save the loss against time, and the average zero with the ring that was fitted to it."""
    figure = Figure(figsize=(10, 4.4), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1))
    draw_losses(left, regressions)
    right.imshow(zero, cmap="Greys")
    _, _, row, column, long, short, tilt = p
    angle = np.linspace(0, 2 * np.pi, 200)
    along, across = long * np.cos(angle), short * np.sin(angle)
    rows = row + along * np.cos(tilt) - across * np.sin(tilt)
    columns = column + along * np.sin(tilt) + across * np.cos(tilt)
    right.plot(columns, rows, color=COLOURS["fastgrad"], lw=2, label="fitted ring")
    right.set_title("The average zero", loc="left")
    right.set_xlabel("column of pixels")
    right.set_ylabel("row of pixels")
    right.legend(loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=144, format="png")


def draw_losses(axes: Axes, fits: dict[str, Fit]) -> None:
    """Draw the loss of each regression against the time it took."""
    for name, fit in fits.items():
        label = name if name == "fastgrad" else f"SciPy, {name}"
        axes.plot(fit.seconds, fit.losses, ".-", color=COLOURS[name], label=label)
    axes.set_xscale("log")
    axes.set_xlabel("seconds (logarithmic)")
    axes.set_ylabel("loss")
    axes.set_title("Softmax regression by L-BFGS-B; gradients by", loc="left")
    axes.grid(color="#e6e8eb")
    axes.legend()


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Fit real digits by SciPy's optimizers, with their differences and fastgrad's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--iterations", type=positive_integer, default=15, help="of the first fit, at most"
    )
    parser.add_argument("--output", type=Path, default=Path("output/fit.png"), help="the picture")
    return parser.parse_args()


def positive_integer(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":
    main()
