"""A gradient that a cluster computes: the loop's calls of f are spread over Dask's workers.

python examples/dask_cluster.py                              on two processes of this machine
python examples/dask_cluster.py --scheduler tcp://host:8786  on a cluster of yours
"""

import argparse
import time
from typing import Any

import numpy as np
from dask.distributed import Client

from fastgrad import numerical_gradient
from fastgrad.cluster import dask_map
from fastgrad.typing import Array


def orbit(start: Array) -> float:
    """Return how far a body is from its starting point after a while, step by step in Python.

    The function that is differentiated: nothing here can be recorded or compiled, and a call takes
    some milliseconds.

    Parameters
    ----------
    start : array (n, 4)
        The places and velocities of bodies that do not attract each other.
    """
    distance = 0.0
    for x, y, u, v in start.tolist():
        a, b = x, y
        for _ in range(200):
            pull = 0.01 / (a * a + b * b) ** 1.5
            u, v = u - pull * a, v - pull * b
            a, b = a + 0.01 * u, b + 0.01 * v
        distance += (a - x) ** 2 + (b - y) ** 2
    return distance


def main() -> None:
    """Compare the gradient and its time with those of this process alone."""
    arguments = parse_arguments()
    np.random.seed(arguments.seed)
    start = np.random.uniform(0.5, 1.5, (arguments.bodies, 4))

    began = time.perf_counter()
    alone = numerical_gradient(orbit, start, engine="loop")
    alone_seconds = time.perf_counter() - began

    with connect(arguments.scheduler) as client:
        workers = dask_map(client)
        began = time.perf_counter()
        together = numerical_gradient(orbit, start, engine="loop", workers=workers, progress=True)
        seconds = time.perf_counter() - began
        print(f"Workers: {len(client.scheduler_info()['workers'])}")
    print(f"Elements: {start.size}, each moved up and down")
    print(f"This process alone: {alone_seconds:.2f} s")
    print(f"The cluster: {seconds:.2f} s")
    print(f"Same bits: {together.tobytes() == alone.tobytes()}")


def connect(scheduler: str | None) -> Any:
    """Connect to a cluster, or start one of two processes that ends with the client."""
    if scheduler:
        return Client(scheduler)
    return Client(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0")


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Differentiate a slow function by the processes of a Dask cluster.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--scheduler", help="a running cluster's address; None: start one")
    parser.add_argument("--bodies", type=at_least_one, default=60, help="4 parameters each")
    parser.add_argument("--seed", type=int, default=0, help="0 to 2**32 - 1")
    return parser.parse_args()


def at_least_one(text: str) -> int:
    """Read a whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


if __name__ == "__main__":  # Dask's workers import this file
    main()
