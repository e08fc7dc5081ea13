"""How fast, and how exact, is the gradient of a learner's net? Beside the book's loop, in turns."""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.accuracy import EXTENDED, SEED, roundoff_bound
from benchmarks.book_loop import LoopRun
from benchmarks.learners_nets import STEP, Case
from benchmarks.pairing import Times, compare, stopwatch
from fastgrad import numerical_gradient, reference
from fastgrad.engines import loop as any_loop
from fastgrad.typing import Array, GradientEngineName

Function = Callable[[Array], Any]

MOST_KINKED = 32
"""How many elements that pass a kink are compared with the loop, besides those drawn."""

MOST_EXACT = 16
"""How many elements of each parameter, and over a kink, are computed in extended precision."""


@dataclass(frozen=True)
class Errors:
    """The largest errors of the same quotients, in units of eps L / h.

    Attributes
    ----------
    loop, traced : float
        Against extended precision; nan where np.longdouble is no wider than float64.
    deviation : float
        Of the traced ones from the loop's: at most the sum of both errors.
    elements : int
        How many were compared.
    """

    loop: float
    traced: float
    deviation: float
    elements: int


@dataclass(frozen=True)
class Run:
    """What was measured of a case.

    Attributes
    ----------
    case : Case
    loop : LoopRun
        Places are those in all the parameters, one after the other.
    traced : Times
        Of whole gradients, with all that fastgrad does to check them.
    deviation : float
        The largest from the loop, in units of its round-off, eps L / h.
    kinked : int
        How many of the elements compared pass a kink.
    errors : Errors
    """

    case: Case
    loop: LoopRun
    traced: Times
    deviation: float
    kinked: int
    errors: Errors

    @property
    def accuracy(self) -> str:
        """Say how far the quotients are from the loop's."""
        kinks = f", {self.kinked} of them over a kink," if self.kinked else ""
        compared = len(self.loop.entries) + self.kinked
        return f"{self.deviation:.2f} eps L / h at {compared:,} elements{kinks} compared"


def measure(case: Case, per_array: int = 96, rounds: int = 7, whole: bool = False) -> Run:
    """Let the loop visit elements and fastgrad compute gradients, in turns.

    Parameters
    ----------
    case : Case
    per_array : int
        How many elements of each parameter are drawn for the loop.
    rounds : int
        How many gradients are timed, each after its share of the loop.
    whole : bool
        The loop visits all elements, which it shows by a progress bar.
    """
    flat = [values.reshape(-1) for values in case.arrays]
    starts = np.cumsum([0, *(len(values) for values in flat)])
    views = [values[i : i + 1] for values in flat for i in range(len(values))]
    entries = np.arange(len(views)) if whole else _drawn(starts, per_array)

    gradient = _gradient(case)  # warm up
    quotients: list[float] = []
    seconds, traced = [], []
    with tqdm(total=len(entries), unit=" elements", mininterval=1, disable=not whole) as bar:
        for chunk in np.array_split(entries, rounds):
            for place in chunk:
                call = partial(_visit, case, views[place], quotients)
                seconds.append(stopwatch(call))
                bar.update()
            traced.append(stopwatch(partial(_gradient, case)))
    loop = LoopRun(np.array(seconds), entries, np.array(quotients), len(views))

    kinked = np.random.default_rng(SEED).permutation(case.kinked)[:MOST_KINKED]
    for place in kinked:
        _visit(case, views[place], quotients)
    compared = gradient[np.concatenate([entries, kinked])]
    deviation = float(abs(compared - np.array(quotients)).max())
    bound = roundoff_bound(case.loss(case.x))
    errors = measure_errors(case, min(per_array, MOST_EXACT))
    return Run(case, loop, Times(traced), deviation / bound, len(kinked), errors)


def measure_errors(case: Case, per_array: int = MOST_EXACT) -> Errors:
    """Compare the loop and the traced engine with the same quotients in np.longdouble.

    The engine is asked for: by default, arrays for which the loop is faster are left to it.

    Parameters
    ----------
    case : Case
    per_array : int
        How many elements of each parameter are drawn, and how many that pass a kink.
    """
    starts = np.cumsum([0, *(values.size for values in case.arrays)])
    kinked = np.random.default_rng(SEED).permutation(case.kinked)[:per_array]
    places = np.unique([*_drawn(starts, per_array), *kinked])
    looped = _quotients(case, starts, places)
    unit = roundoff_bound(case.loss(case.x))
    traced = _gradient(case, engine="traced")[places]
    deviation = float(abs(traced - looped).max() / unit)
    if not EXTENDED:
        return Errors(np.nan, np.nan, deviation, len(places))
    exact = _quotients(_in_extended_precision(case), starts, places)
    assert exact.dtype == np.longdouble
    loop_error, error = (float(abs(some - exact).max() / unit) for some in (looped, traced))
    return Errors(loop_error, error, deviation, len(places))


def _quotients(case: Case, starts: NDArray[np.int64], places: NDArray[np.int64]) -> Array:
    """Return the loop's quotients at places that are sorted, in the parameters' precision."""
    parts = []
    for values, (start, end) in zip(case.arrays, pairwise(starts), strict=True):
        mine = places[(places >= start) & (places < end)] - start
        quotients = any_loop.gradient(case.loss, values, STEP, mine)
        parts.append(quotients.reshape(-1)[mine])
    return np.concatenate(parts)


def _in_extended_precision(case: Case) -> Case:
    """Return a case that computes in np.longdouble, whose arrays of zeros can hold that, too."""
    wide = {id(values): values.astype(np.longdouble) for values in case.net.params.values()}
    net = deepcopy(
        case.net, dict(wide)
    )  # wherever the net holds a parameter, it holds the wide one
    plain_loss = net.loss

    def loss(x: Array, t: Array) -> Any:
        with patch.object(np, "zeros", partial(np.zeros, dtype=np.longdouble)):
            return plain_loss(x, t)

    net.loss = loss  # type: ignore[method-assign]  # this net's alone
    return replace(case, net=net, x=case.x.astype(np.longdouble))


def _drawn(starts: NDArray[np.int64], per_array: int) -> NDArray[np.int64]:
    """Draw places of each array, in an order that mixes the arrays."""
    generator = np.random.default_rng(SEED)
    drawn = [
        start + generator.permutation(end - start)[:per_array] for start, end in pairwise(starts)
    ]
    return generator.permutation(np.concatenate(drawn))


def _gradient(case: Case, engine: GradientEngineName = "auto") -> Array:
    """Return what the learner's unmodified call does, for all parameters."""
    parts = [numerical_gradient(case.loss, values, engine=engine) for values in case.arrays]
    return np.concatenate([part.reshape(-1) for part in parts])


def _visit(case: Case, view: Array, quotients: list[float]) -> None:
    """Let the book's loop do to one element what it does to each."""
    quotients.append(float(reference.numerical_gradient(case.loss, view)[0]))


def untraceable(inputs: int = 100, samples: int = 100) -> dict[str, tuple[Function, Array]]:
    """Return functions that cannot be traced, each of an array of shape (inputs, 10)."""
    generator = np.random.default_rng(SEED)
    x, weights = generator.random((samples, inputs)), 0.1 * generator.standard_normal((inputs, 10))

    def branch(w: Array) -> Any:
        a = np.dot(x, w)
        return np.mean(a**2) if np.max(a) > 0 else np.mean(abs(a))

    def dropout(w: Array) -> Any:
        a = np.dot(x, w)
        return np.mean((a * (np.random.rand(*a.shape) > 0.5)) ** 2)

    def conversion(w: Array) -> Any:
        return np.mean(np.dot(x, np.array(w.tolist())) ** 2)

    return {
        "a branch on the value": (branch, weights),
        "dropout": (dropout, weights),
        "x.tolist()": (conversion, weights),
    }


def overhead(f: Function, x: Array, rounds: int) -> Mapping[str, Times]:
    """Time "auto", which finds that f cannot be traced, beside "loop"; and the finding alone."""

    def refusal() -> None:
        with suppress(ValueError):
            numerical_gradient(f, x, engine="traced")

    engines = {name: partial(numerical_gradient, f, x, engine=name) for name in ("auto", "loop")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "f is random", RuntimeWarning)  # dropout is
        return compare({**engines, "refusal": refusal}, rounds)
