"""The share of nonzeros from which on a batch is better multiplied whole, `MAX_DENSITY`."""

from unittest.mock import patch

import numpy as np

from benchmarks.cases.two_layer_net import Problem, random_problem
from benchmarks.measure.timing import compare, ratio
from fastgrad.jit import matrix_products

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


def sparse_over_dense(hidden: int, samples: int, rounds: int) -> list[float]:
    """Return how many times as long a gradient takes entry by entry as in whole blocks, by share.

    Where that reaches 1 is the share that `matrix_products.MAX_DENSITY` should be.
    """
    whole = random_problem(samples, hidden=hidden)
    places = np.random.rand(*whole.x.shape)
    return [
        _ratio(Problem(whole.net, whole.x * (places < share), whole.t), rounds) for share in SHARES
    ]


def _ratio(problem: Problem, rounds: int) -> float:
    def run(max_density: float) -> None:
        with patch.object(matrix_products, "MAX_DENSITY", max_density):
            problem.net.numerical_gradient(problem.x, problem.t)

    times = compare({"sparse": lambda: run(1.0), "dense": lambda: run(-1.0)}, rounds)
    return ratio(times["sparse"], times["dense"]).medians
