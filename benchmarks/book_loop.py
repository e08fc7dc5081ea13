"""How long does the book's loop take, and what does it return? The whole run, or a sample of it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.accuracy import SEED, sampled_entries
from benchmarks.pairing import Times
from benchmarks.problems import Problem
from fastgrad import reference


@dataclass(frozen=True)
class LoopRun:
    """What the loop did.

    Attributes
    ----------
    seconds : array of float
        The time of each parameter that was visited.
    entries : array of int
        Which of the net's parameters these are, by their place in its buffer.
    quotients : array of float
        What the loop returned for them.
    parameters : int
        How many the net has.
    """

    seconds: NDArray[np.float64]
    entries: NDArray[np.int64]
    quotients: NDArray[np.float64]
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


def run_loop(problem: Problem) -> LoopRun:
    """Run the reference loop over every parameter of the reference net, with a progress bar."""
    net = _reference_net(problem)
    parameters = len(problem.net.params.buffer)
    with tqdm(total=2 * parameters, unit=" losses", mininterval=1) as bar:
        loss = _TimedLoss(net, problem, bar.update)
        parts = [reference.numerical_gradient(loss, values) for values in net.params.values()]
        seconds = loss.seconds()
    quotients = np.concatenate([part.ravel() for part in parts])
    return LoopRun(seconds, np.arange(parameters), quotients, parameters)


def sample_loop(problem: Problem, per_array: int = 96) -> LoopRun:
    """Run the reference loop over a seeded sample of each array.

    The loop visits one-element views of the parameters, and does to each what the whole loop does:
    two whole forward passes, whichever parameter it is.
    """
    net = _reference_net(problem)
    sample = list(sampled_entries(problem.net, per_array))
    views = [net.params[name].reshape(-1)[i : i + 1] for _, name, i in sample]
    net.loss(problem.x, problem.t)  # warm up
    loss = _TimedLoss(net, problem)
    parts = [reference.numerical_gradient(loss, view) for view in views]
    seconds = loss.seconds()
    entries = np.array([place for place, _, _ in sample])
    return LoopRun(seconds, entries, np.concatenate(parts), len(problem.net.params.buffer))


class _TimedLoss:
    """The loss as the book's closure, which notes the time of each call: 0.1 us of hundreds."""

    def __init__(
        self,
        net: reference.TwoLayerNet,
        problem: Problem,
        progress: Callable[[], object] = lambda: None,
    ) -> None:
        self._net, self._problem, self._progress = net, problem, progress
        self._starts: list[float] = []

    def __call__(self, _: NDArray[Any]) -> Any:
        self._starts.append(time.perf_counter())
        self._progress()
        return self._net.loss(self._problem.x, self._problem.t)

    def seconds(self) -> NDArray[np.float64]:
        """Return the time of each parameter until now: from its first call to the next one's."""
        return np.diff([*self._starts[::2], time.perf_counter()])


def _reference_net(problem: Problem) -> reference.TwoLayerNet:
    """Return the book's net with the problem's parameters."""
    net = reference.TwoLayerNet(1, 1, 1)
    net.params = {name: values.copy() for name, values in problem.net.params.items()}
    return net
