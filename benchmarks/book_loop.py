"""How long does the book's loop take, and what does it return? The whole run, or a sample of it."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.accuracy import SEED, sampled_entries
from benchmarks.problems import Problem
from fastgrad import reference


@dataclass(frozen=True)
class LoopRun:
    """What the loop did.

    Attributes
    ----------
    seconds : float
        The time of the whole loop, measured or extrapolated.
    entries : array of int
        Which of the net's parameters, by their place in its buffer, were visited.
    quotients : array of float
        What the loop returned for them.
    parameters : int
        How many the net has.
    """

    seconds: float
    entries: NDArray[np.int64]
    quotients: NDArray[np.float64]
    parameters: int

    @property
    def method(self) -> str:
        """Say how the time was found."""
        if len(self.entries) == self.parameters:
            return f"all {self.parameters:,} parameters, {2 * self.parameters:,} evaluations"
        return (
            f"extrapolated from {len(self.entries):,} of {self.parameters:,} parameters, "
            f"drawn with seed {SEED}"
        )

    def deviation(self, gradient: NDArray[np.float64]) -> float:
        """Return the largest deviation of a gradient, given as a flat array, from the loop's."""
        return float(abs(gradient[self.entries] - self.quotients).max())


def run_loop(problem: Problem, progress: bool = True) -> LoopRun:
    """Run the reference loop over every parameter of the reference net, with a progress bar."""
    net = _reference_net(problem)
    parameters = len(problem.net.params.buffer)
    with tqdm(total=2 * parameters, unit=" losses", mininterval=1, disable=not progress) as bar:

        def loss(_: NDArray[Any]) -> Any:
            bar.update()  # 0.1 us beside a loss of hundreds
            return net.loss(problem.x, problem.t)

        start = time.perf_counter()
        parts = [reference.numerical_gradient(loss, values) for values in net.params.values()]
        seconds = time.perf_counter() - start
    quotients = np.concatenate([part.ravel() for part in parts])
    return LoopRun(seconds, np.arange(parameters), quotients, parameters)


def sample_loop(problem: Problem, per_array: int = 96) -> LoopRun:
    """Run the reference loop over a seeded sample of each array; extrapolate its time.

    The loop visits one-element views of the parameters, and does to each what the whole loop does:
    two whole forward passes, whichever parameter it is.
    """
    net = _reference_net(problem)
    sample = list(sampled_entries(problem.net, per_array))
    views = [net.params[name].reshape(-1)[i : i + 1] for name, i in (s[1:] for s in sample)]

    def loss(_: NDArray[Any]) -> Any:
        return net.loss(problem.x, problem.t)

    loss(views[0])
    start = time.perf_counter()
    parts = [reference.numerical_gradient(loss, view) for view in views]
    seconds = time.perf_counter() - start
    parameters = len(problem.net.params.buffer)
    return LoopRun(
        seconds * parameters / len(sample),
        np.array([place for place, _, _ in sample]),
        np.concatenate(parts),
        parameters,
    )


def _reference_net(problem: Problem) -> reference.TwoLayerNet:
    """Return the book's net with the problem's parameters."""
    net = reference.TwoLayerNet(1, 1, 1)
    net.params = {name: values.copy() for name, values in problem.net.params.items()}
    return net
