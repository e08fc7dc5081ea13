"""The share of nonzeros from which on a batch is better multiplied whole: `sparse.MAX_DENSITY`.

``python -m benchmarks.density`` prints the time of a gradient by both ways, and where they cross.
"""

import numpy as np

from benchmarks.pairing import compare, ratio
from benchmarks.problems import Problem, random_problem
from fastgrad.network import sparse

SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)


def sparse_over_dense(problem: Problem, rounds: int = 15) -> float:
    """Return how many times as long a gradient takes entry by entry as in whole blocks."""

    def run(densest: float) -> None:
        sparse.MAX_DENSITY = densest
        problem.net.numerical_gradient(problem.x, problem.t)

    chosen = sparse.MAX_DENSITY
    try:
        times = compare({"sparse": lambda: run(1.0), "dense": lambda: run(-1.0)}, rounds)
    finally:
        sparse.MAX_DENSITY = chosen
    return ratio(times["sparse"], times["dense"]).medians


def crossover(hidden: int, samples: int = 100, rounds: int = 15) -> float:
    """Print the ratio at each share of nonzeros, and return the share at which it reaches 1."""
    whole = random_problem(samples, hidden=hidden)
    places = np.random.rand(*whole.x.shape)
    ratios = [
        sparse_over_dense(Problem(whole.net, whole.x * (places < share), whole.t), rounds)
        for share in SHARES
    ]
    shown = ", ".join(f"{share:.0%}: {r:.2f}" for share, r in zip(SHARES, ratios, strict=True))
    print(f"{whole}: sparse over dense at {shown}")
    return float(np.interp(1.0, ratios, SHARES))


if __name__ == "__main__":
    for hidden in (50, 100, 300):
        print(f"  crossing at {crossover(hidden):.0%} nonzeros; now {sparse.MAX_DENSITY:.0%}")
