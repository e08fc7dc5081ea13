"""How does the cost of a gradient grow with the samples, inputs and hidden units? By sweeps."""

from dataclasses import dataclass

from benchmarks.book_loop import sample_loop
from benchmarks.pairing import compare
from benchmarks.problems import Problem, gradients, random_problem

SIZES = {
    "samples": (10, 30, 100, 300, 1000),
    "inputs": (49, 98, 196, 392, 784, 1568),
    "hidden": (12, 25, 50, 100, 200, 400),
}
SMOKE_SIZES = {"samples": (5, 20), "inputs": (16, 49), "hidden": (5, 12)}

# The sizes that stay as they are.
BASE = {"samples": 100, "inputs": 784, "hidden": 100}
SMOKE_BASE = {"samples": 10, "inputs": 49, "hidden": 10}


@dataclass(frozen=True)
class Growth:
    """The cost of one gradient against one size.

    Attributes
    ----------
    variable : str
        "samples", "inputs" or "hidden".
    sizes : tuple of int
    others : dict of str to int
        The sizes that stay as they are.
    seconds : dict of str to list of float
        By way to the gradient, the seconds at each size: the shortest call; for the loop, the
        shortest time of a parameter in a sample of them, times their number.
    """

    variable: str
    sizes: tuple[int, ...]
    others: dict[str, int]
    seconds: dict[str, list[float]]


def measure_growth(variable: str, smoke: bool = False, rounds: int = 4) -> Growth:
    """Time one gradient by every way at each size; the loop is extrapolated."""
    base = SMOKE_BASE if smoke else BASE
    sizes = (SMOKE_SIZES if smoke else SIZES)[variable]
    seconds: dict[str, list[float]] = {}
    for size in sizes:
        problem = random_problem(**(base | {variable: size}))
        for name, value in _measure(problem, rounds).items():
            seconds.setdefault(name, []).append(value)
    others = {name: size for name, size in base.items() if name != variable}
    return Growth(variable, sizes, others, seconds)


def _measure(problem: Problem, rounds: int) -> dict[str, float]:
    """Return the seconds of one gradient by each way."""
    net, x, t = problem.net, problem.x, problem.t
    loop = sample_loop(problem, per_array=8).times.minimum
    direct = compare({"direct": lambda: net.numerical_gradient(x, t, engine="direct")}, rounds=1)
    fast = compare(gradients(problem), rounds)
    return {"loop": loop} | {name: times.minimum for name, times in (direct | fast).items()}
