"""How good gradient checks are: faults found and named, right gradients called wrong, and costs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from benchmarks.cases.backward import FAULTS, FaultyNet, LayeredNet, faulty_batch, random_net
from benchmarks.cases.random_gradients import Example, planted
from benchmarks.cases.suite import drawn
from benchmarks.measure.timing import compare, ratio
from fastgrad import TwoLayerNet, check_gradient, numerical_gradient, slope_test
from fastgrad.typing import Array

SEED = 2027
"""Of the points at which estimated errors are compared with true ones."""

FIRST_NET = 20_000
"""Seed of the first random net; none of these was looked at while the check was written."""


@dataclass(frozen=True)
class Found:
    """What a check says of a planted fault."""

    fault: str
    layers: int
    found: bool
    named: bool
    found_fast: bool

    @property
    def verdict(self) -> str:
        """Say it in a few words."""
        named = "named" if self.named else "not named"
        fast = "found fast" if self.found_fast else "missed fast"
        return f"found, {named}, {fast}" if self.found else f"missed, {fast}"


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

        def both(net: Any = net) -> object:
            if isinstance(net, TwoLayerNet):
                return net.gradient(x, t), net.numerical_gradient(x, t)
            return net.gradient(x, t), numerical_gradient(lambda _: net.loss(x, t), net.params)

        full = partial(check_gradient, net, x=x, t=t)
        times = compare({"both": both, "full": full, "fast": partial(full, fast=True)}, rounds)
        slower, quicker = (ratio(times[way], times["both"]).minima for way in ("full", "fast"))
        rows.append((name, slower, quicker))
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
