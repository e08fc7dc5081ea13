"""The book's loop: what it returns for all elements or some, and how long each takes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.cases.two_layer_net import Problem
from benchmarks.measure.accuracy import SEED, sampled_entries
from benchmarks.measure.timing import Times, stopwatch
from fastgrad import reference
from fastgrad.typing import Array


@dataclass(frozen=True)
class LoopRun:
    """What the loop did.

    Attributes
    ----------
    seconds, quotients : array of float
        The time of each element that was visited, and what the loop returned for it.
    entries : array of int
        Which these are, by their place in all arrays, one after the other.
    parameters : int
        How many there are.
    """

    seconds: NDArray[np.float64]
    quotients: NDArray[np.float64]
    entries: NDArray[np.int64]
    parameters: int

    @property
    def times(self) -> Times:
        """The time of the whole loop, if every parameter took as long as this one did."""
        return Times(list(self.seconds * self.parameters))

    @property
    def summary(self) -> str:
        """Say what was run and how long it took."""
        if len(self.entries) == self.parameters:
            return (
                f"{self.seconds.sum():.3g} s for all {self.parameters:,} parameters, "
                f"{2 * self.parameters:,} evaluations of the loss"
            )
        return (
            f"{self.times.median:.3g} s, extrapolated: {self.parameters:,} times the median of "
            f"{len(self.entries):,} parameters that were drawn with seed {SEED}"
        )

    def deviation(self, gradient: NDArray[np.float64]) -> float:
        """Return the largest deviation of a gradient, given as a flat array, from the loop's."""
        return float(abs(gradient[self.entries] - self.quotients).max())


def run_loop(
    loss: Callable[[Array], Any],
    arrays: Sequence[Array],
    entries: NDArray[np.int64] | None = None,
    rounds: int = 1,
    between: Callable[[], object] = lambda: None,
) -> LoopRun:
    """Let the loop visit some elements or, with a progress bar, all; do something between rounds.

    It visits one-element views, and does to each what the whole loop does: two whole forward
    passes, whichever element it is.
    """
    flat = [values.reshape(-1) for values in arrays]
    views = [values[i : i + 1] for values in flat for i in range(len(values))]
    whole = entries is None
    chosen = np.arange(len(views)) if entries is None else entries
    seconds: list[float] = []
    quotients: list[float] = []

    def visit(view: Array) -> None:
        quotients.append(float(reference.numerical_gradient(loss, view)[0]))

    loss(arrays[0])  # warm up
    with tqdm(total=len(chosen), unit=" elements", mininterval=1, disable=not whole) as bar:
        for chunk in np.array_split(chosen, rounds):
            for entry in chunk:
                seconds.append(stopwatch(partial(visit, views[entry])))
                bar.update()
            between()
    return LoopRun(np.array(seconds), np.array(quotients), chosen, len(views))


def books_loop(problem: Problem, per_array: int | None = 96) -> LoopRun:
    """Run the book's loop over the book's net: over a sample of each array, or everything."""
    net = reference.TwoLayerNet(1, 1, 1)
    net.params = {name: values.copy() for name, values in problem.net.params.items()}
    entries = None
    if per_array:
        sample = sampled_entries(net.params, per_array)
        entries = np.array([place for place, _, _ in sample])
    return run_loop(lambda _: net.loss(problem.x, problem.t), list(net.params.values()), entries)
