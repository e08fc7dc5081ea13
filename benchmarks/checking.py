"""How good are gradient checks? ``python -m benchmarks.checking`` prints it, in Markdown.

Planted faults that are found and named, right backward passes that are called wrong, estimated
errors beside true ones, and what a check costs beside the two gradients that it compares.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.backward import FAULTS, FaultyNet, LayeredNet, faulty_batch, random_net
from benchmarks.pairing import compare, ratio
from benchmarks.suite import drawn
from fastgrad import TwoLayerNet, check_gradient, numerical_gradient

Array = NDArray[Any]

SEED = 2027
"""Of the points at which estimated errors are compared with true ones."""

FIRST_NET = 20_000
"""Seed of the first random net; none of these was looked at while the check was written."""


@dataclass(frozen=True)
class Found:
    """What a check says of a planted fault.

    Attributes
    ----------
    fault : str
    layers : int
    found, named, found_fast : bool
    """

    fault: str
    layers: int
    found: bool
    named: bool
    found_fast: bool


def planted() -> list[Found]:
    """Check every planted fault in both nets, in full and along random directions."""
    x, t = faulty_batch()
    results = []
    for name, fault in FAULTS.items():
        for layers in (2, 3):
            report = check_gradient(FaultyNet(fault, layers), x=x, t=t)
            fast = check_gradient(FaultyNet(fault, layers), x=x, t=t, fast=True)
            named = not report and fault.words in str(report)
            results.append(Found(name, layers, not report, named, not fast))
    return results


def false_alarms(count: int, first: int = FIRST_NET) -> tuple[list[int], int, int]:
    """Return the seeds of right nets that are called wrong; how many have kinks, are in float32."""
    wrong, kinks, singles = [], 0, 0
    for seed in range(first, first + count):
        net, x, t = random_net(np.random.default_rng(seed))
        report = check_gradient(net, x=x, t=t)
        kinks += "kink" in str(report) or "no derivative" in str(report)
        singles += net.params["W1"].dtype == np.float32
        if not report:
            wrong.append(seed)
    return wrong, kinks, singles


def coverage(count: int) -> tuple[int, int, int]:
    """Return in how many cases the true error is below the estimate, how many pass, and how many.

    Functions of one number at random points, with derivatives in extended precision.
    """
    covered = passed = total = 0
    for case in drawn(SEED, 1 + count // 40):
        if total == count:
            break
        x = np.array(case.x)
        exact = case.exact
        with np.errstate(all="ignore"):
            report = check_gradient(lambda x, f=case.function.f: f(x[()]), x, np.array(exact))
        element = report.rows[0].absolute
        assert element is not None
        covered += abs(element.numerical - exact) <= element.truncation + element.round_off
        passed += bool(report)
        total += 1
    return covered, passed, total


def costs(rounds: int, small: bool) -> list[tuple[str, float, float]]:
    """Return, for each net, the time of a check, full and fast, over that of both gradients."""
    inputs, hidden, samples = (20, 10, 10) if small else (784, 100, 100)
    np.random.seed(0)
    x, t = np.random.rand(samples, inputs), np.random.randint(0, 10, samples)
    nets: dict[str, Any] = {
        "fastgrad's TwoLayerNet": TwoLayerNet(inputs, hidden, 10),
        "a learner's, the book's loss": LayeredNet([inputs, hidden, 10], "sigmoid"),
        "a learner's, ReLU": LayeredNet([inputs, hidden, 10], "relu"),
    }
    rows = []
    for name, net in nets.items():

        def numerical(net: Any = net) -> object:
            if isinstance(net, TwoLayerNet):
                return net.numerical_gradient(x, t)
            return numerical_gradient(lambda _: net.loss(x, t), net.params)

        def both(net: Any = net, numerical: Any = numerical) -> object:
            return net.gradient(x, t), numerical()

        def check(net: Any = net) -> object:
            return check_gradient(net, x=x, t=t)

        def fast(net: Any = net) -> object:
            return check_gradient(net, x=x, t=t, fast=True)

        times = compare({"both gradients": both, "full": check, "fast": fast}, rounds)
        both_times = times["both gradients"]
        rows.append(
            (name, ratio(times["full"], both_times).minima, ratio(times["fast"], both_times).minima)
        )
    return rows


def calls_of_fast(size: int) -> int:
    """Return how often a fast check of so many parameters calls f."""
    x = np.random.default_rng(0).normal(size=size)
    calls = 0

    def f(x: Array) -> float:
        nonlocal calls
        calls += 1
        return float(np.tanh(x).sum() / size)

    assert check_gradient(f, x, (1 - np.tanh(x) ** 2) / size, fast=True)
    return calls


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checking")
    parser.add_argument("--smoke", action="store_true", help="only see that it runs")
    smoke = parser.parse_args(arguments).smoke
    print("| planted fault | two layers | three layers |\n| --- | --- | --- |")
    results = planted()
    for name in FAULTS:
        cells = [_verdict(found) for found in results if found.fault == name]
        print(f"| {name} | {' | '.join(cells)} |")
    count = 20 if smoke else 1000
    wrong, kinks, singles = false_alarms(count)
    seeds = f" (seeds {wrong})" if wrong else ""
    covered, passed, total = coverage(count)
    print("\n| what | measured |\n| --- | --- |")
    print(f"| faults found, of {len(results)} | {sum(found.found for found in results)} |")
    print(f"| faults named | {sum(found.named for found in results)} |")
    print(f"| faults found with fast=True | {sum(found.found_fast for found in results)} |")
    print(
        f"| right random nets called wrong, of {count}: {kinks} at kinks, {singles} in float32 | "
        f"{len(wrong)}{seeds} |"
    )
    print(f"| true error below the estimated, of {total} cases | {covered} |")
    print(f"| right derivatives passed, of the same | {passed} |")
    size = 1000 if smoke else 1_000_000
    print(f"| calls of f with fast=True, {size:,} parameters | {calls_of_fast(size)} |")
    print("\n| net | full check | fast check |\n| --- | --- | --- |")
    for name, full, fast in costs(1 if smoke else 15, smoke):
        print(f"| {name} | {full:.2g} | {fast:.2g} |")
    print(
        "\nTimes over that of one backpropagation and one numerical gradient together, minima in "
        "alternation."
    )


def _verdict(found: Found) -> str:
    named = "named" if found.named else "not named"
    fast = "found fast" if found.found_fast else "missed fast"
    return f"found, {named}, {fast}" if found.found else f"missed, {fast}"


if __name__ == "__main__":
    main()
