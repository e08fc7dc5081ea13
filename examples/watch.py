"""A page that shows training while it goes on: the loss, accuracies, weights, misread digits."""

import time
from collections.abc import Iterator
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from checkpoint import History
from matplotlib.axes import Axes

SECONDS = 0.5
"""How long the net is trained between two pictures."""

DIGITS = 1000
"""Test digits that are read again for each picture."""

COLUMNS = 6
"""Pictures of weights in each of two rows, and of misread digits."""


def watch(steps: Iterator[tuple[Any, History]], images: Any, labels: Any) -> History:
    """Take steps, and show the net between them on a page that matplotlib serves to the browser.

    The page stays when the last step is made, until Ctrl-C.

    Parameters
    ----------
    steps : iterator of (network, history)
        Makes a step each time that it is asked for the next item.
    images, labels : arrays of shapes (N, 784), (N, 10)
        Test digits.

    Returns
    -------
    history

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C came before the last step.
    """
    plt.switch_backend("webagg")
    page = Page(images[:DIGITS], labels[:DIGITS].argmax(axis=1))
    timer = page.figure.canvas.new_timer(interval=20)
    finished: list[History] = []

    def take_steps() -> None:
        stop = time.monotonic() + SECONDS
        for network, history in steps:
            if time.monotonic() > stop:
                page.draw(network, history)
                return
        timer.stop()
        page.draw(network, history)
        finished.append(history)

    timer.add_callback(take_steps)
    timer.start()
    plt.show()
    if not finished:
        raise KeyboardInterrupt
    return finished[0]


class Page:
    """A figure of curves, weights and digits.

    Parameters
    ----------
    images, labels : arrays of shapes (N, 784), (N,)
        The digits to read, and what they are.
    """

    def __init__(self, images: Any, labels: Any) -> None:
        self.images, self.labels = images, labels
        pictures = [[f"{row}{column}" for column in range(COLUMNS)] for row in "abcd"]
        curves = [["loss"] * COLUMNS, ["accuracy"] * COLUMNS]
        layout: Any = [*curves, *pictures]
        self.figure, axes = plt.subplot_mosaic(
            layout,
            figsize=(7, 10),
            height_ratios=[2, 2, 1, 1, 1, 1],
            layout="constrained",
        )
        self.loss: Axes = axes["loss"]
        self.accuracy: Axes = axes["accuracy"]
        self.pictures = [[axes[name] for name in row] for row in pictures]

    def draw(self, network: Any, history: History) -> None:
        """Draw what has been learnt so far."""
        done = len(history.losses)
        self.figure.suptitle(f"After {done:,} steps")
        self._curves(history)
        weights = network.params["W1"]
        for axes, unit in zip(self._row_pair(0), range(weights.shape[1]), strict=False):
            largest = abs(weights[:, unit]).max()
            picture(axes, weights[:, unit], "RdBu", (-largest, largest), f"unit {unit}")
        guesses = network.predict(self.images).argmax(axis=1)
        misread = np.flatnonzero(guesses != self.labels)
        for axes in self._row_pair(2):
            axes.clear()
            axes.axis("off")
        for axes, i in zip(self._row_pair(2), misread, strict=False):
            picture(axes, self.images[i], "gray_r", (0, 1), f"{self.labels[i]} as {guesses[i]}")
        self.figure.canvas.draw_idle()

    def _row_pair(self, first: int) -> list[Axes]:
        return self.pictures[first] + self.pictures[first + 1]

    def _curves(self, history: History) -> None:
        for axes in (self.loss, self.accuracy):
            axes.clear()
            axes.grid(alpha=0.3)
        self.loss.plot(history.losses, color="tab:blue", linewidth=0.8)
        self.loss.set(ylabel="loss of a batch", ylim=(0, None))
        steps, train, test = zip(*history.accuracies, strict=True)
        self.accuracy.plot(steps, train, "o-", color="tab:green", label="training set")
        self.accuracy.plot(steps, test, "s--", color="tab:orange", label="test set")
        self.accuracy.set(ylabel="accuracy", ylim=(0, 1), xlabel="step")
        self.accuracy.set_xlim(self.loss.get_xlim())
        self.accuracy.legend(loc="lower right")


def picture(axes: Axes, pixels: Any, colours: str, limits: tuple[float, float], title: str) -> None:
    """Show 784 numbers as 28 x 28 pixels."""
    axes.clear()
    axes.imshow(pixels.reshape(28, 28), cmap=colours, vmin=limits[0], vmax=limits[1])
    axes.set_title(title, fontsize=9)
    axes.axis("off")
