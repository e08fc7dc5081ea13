"""The growth of a gradient's cost with the samples, inputs and hidden units."""

from benchmarks.cases.two_layer_net import Problem, gradients, random_problem
from benchmarks.measure.book_loop import books_loop
from benchmarks.measure.timing import compare

SIZES = {
    "samples": (10, 30, 100, 300, 1000),
    "inputs": (49, 98, 196, 392, 784, 1568),
    "hidden": (12, 25, 50, 100, 200, 400),
}
SMOKE_SIZES = {"samples": (5, 20), "inputs": (16, 49), "hidden": (5, 12)}

# The sizes that stay as they are.
BASE = {"samples": 100, "inputs": 784, "hidden": 100}
SMOKE_BASE = {"samples": 10, "inputs": 49, "hidden": 10}


def seconds_by_size(variable: str, smoke: bool, rounds: int) -> dict[str, dict[int, float]]:
    """Return the seconds of one gradient by each way, at each number of samples, inputs or units.

    The shortest call; for the loop, the shortest time of a parameter, times their number.
    """
    seconds: dict[str, dict[int, float]] = {}
    for size in (SMOKE_SIZES if smoke else SIZES)[variable]:
        problem = random_problem(**((SMOKE_BASE if smoke else BASE) | {variable: size}))
        for name, value in _seconds(problem, rounds).items():
            seconds.setdefault(name, {})[size] = value
    return seconds


def _seconds(problem: Problem, rounds: int) -> dict[str, float]:
    net, x, t = problem.net, problem.x, problem.t
    loop = books_loop(problem, per_array=8).times.minimum
    direct = compare({"direct": lambda: net.numerical_gradient(x, t, engine="direct")}, rounds=1)
    fast = compare(gradients(problem), rounds)
    return {"loop": loop} | {name: times.minimum for name, times in (direct | fast).items()}
