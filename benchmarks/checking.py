"""How good gradient checks are: ``python -m benchmarks.checking`` prints it, in Markdown.

With ``--rates 20000`` how often right gradients of random functions are called wrong, and wrong
ones right (`benchmarks.gradients`). Otherwise planted faults that are found and named, right
backward passes that are called wrong, estimated errors beside true ones, and what a check costs
beside the two gradients that it compares.
"""

import argparse
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.backward import FAULTS, FaultyNet, LayeredNet, faulty_batch, random_net
from benchmarks.gradients import Example, example, planted, primitives
from benchmarks.pairing import compare, ratio
from benchmarks.suite import drawn
from fastgrad import TwoLayerNet, check_gradient, numerical_gradient, slope_test
from fastgrad.typing import Array

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


WAYS: dict[str, Callable[[Example, Array], object]] = {
    "full": lambda given, gradient: check_gradient(given.f, given.x, gradient),
    "fast": lambda given, gradient: check_gradient(given.f, given.x, gradient, fast=True),
    "slope_test": lambda given, gradient: slope_test(given.f, given.x, gradient, seed=0),
}


@dataclass
class Rate:
    """What came of one way to check the gradients of one kind.

    Attributes
    ----------
    right, alarms : int
        Right gradients, and how many were called wrong.
    wrong, approved : int
        Gradients with an error that differences see, and how many passed.
    names : list of str
        What failed.
    """

    right: int = 0
    alarms: int = 0
    wrong: int = 0
    approved: int = 0
    names: list[str] = field(default_factory=list)


def rates(examples: Iterable[Example], every: int = 1) -> dict[tuple[str, str], Rate]:
    """Return what comes of checking right gradients, and each so many with an error planted.

    The error is one of 1e-4 in one element: what the full check has to see.
    """
    found: dict[tuple[str, str], Rate] = {}
    for k, given in enumerate(examples):
        with np.errstate(all="ignore"):
            bad = planted(given, np.random.default_rng(k)) if k % every == 0 else None
            for way, check in WAYS.items():
                rate = found.setdefault((given.kind, way), Rate())
                rate.right += 1
                if not check(given, given.gradient):
                    rate.alarms += 1
                    rate.names.append(f"{given.name} {k}: called wrong")
                if bad is not None and way == "full":
                    rate.wrong += 1
                    if check(given, bad):
                        rate.approved += 1
                        rate.names.append(f"{given.name} {k}: approved")
    return found


def print_rates(count: int, first: int = 0) -> None:
    """Print the rates of random functions, and of elementary ones."""
    found = rates((example(seed) for seed in range(first, first + count)), every=7)
    found |= rates(primitives(first))
    print("| kind | check | right | called wrong | wrong by 1e-4 in one element | approved |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (kind, way), rate in found.items():
        seen = f"{rate.wrong:,} | {rate.approved}" if way == "full" else "|"
        print(f"| {kind} | {way} | {rate.right:,} | {rate.alarms} | {seen} |")
    for (kind, way), rate in found.items():
        if rate.names:
            print(f"\n{kind}, {way}: {'; '.join(rate.names[:20])}")


def planted_faults() -> list[Found]:
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
    parser.add_argument("--rates", type=int, metavar="N", help="check N random gradients instead")
    parser.add_argument("--first", type=int, default=0, help="the first one's number")
    chosen = parser.parse_args(arguments)
    if chosen.rates:
        print_rates(chosen.rates, chosen.first)
        return
    smoke = chosen.smoke
    print("| planted fault | two layers | three layers |\n| --- | --- | --- |")
    results = planted_faults()
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
