"""Gradients of learners' nets by the traced engine, beside the book's loop."""

import warnings
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from benchmarks.cases.learners_nets import STEP, Case
from benchmarks.measure.accuracy import EXTENDED, SEED, roundoff_bound, sampled_entries
from benchmarks.measure.book_loop import LoopRun, run_loop
from benchmarks.measure.timing import Times, best_blas_threads, compare, stopwatch
from fastgrad import numerical_gradient
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
    loop : LoopRun
    traced : Times
        Of whole gradients, with all that fastgrad does to check them.
    deviation : float
        The largest from the loop, in units of its round-off, eps L / h.
    kinked : int
        How many of the elements compared pass a kink.
    errors : Errors
    """

    loop: LoopRun
    traced: Times
    deviation: float
    kinked: int
    errors: Errors


def compare_with_loop(case: Case, per_array: int | None = 96, rounds: int = 7) -> Run:
    """Let the loop visit elements and fastgrad compute gradients, in turns.

    Each with the number of BLAS threads with which it takes shortest.

    Parameters
    ----------
    case : Case
    per_array : int or None
        How many elements of each parameter are drawn for the loop; without it all are visited.
    rounds : int
        How many gradients are timed, each after its share of the loop, at parameters of its own.
    """
    gradient = _gradient(case)  # warm up
    traced: list[float] = []
    loops_threads = best_blas_threads(partial(case.loss, case.x))
    own_threads = best_blas_threads(partial(_gradient, case), 2)

    def time_gradient() -> None:
        with threadpool_limits(own_threads, "blas"):
            traced.append(_seconds_elsewhere(case, 1 + 1e-3 * (1 + len(traced))))

    entries = None
    if per_array:  # in an order that mixes the arrays
        entries = np.random.default_rng(SEED).permutation(_drawn(case, per_array))
    with threadpool_limits(loops_threads, "blas"):
        loop = run_loop(case.loss, case.arrays, entries, rounds, time_gradient)
    kinked = np.random.default_rng(SEED).permutation(case.kinked)[:MOST_KINKED]
    deviation = loop.deviation(gradient)
    if kinked.size:
        deviation = max(deviation, run_loop(case.loss, case.arrays, kinked).deviation(gradient))
    unit = roundoff_bound(case.loss(case.x))
    errors = measure_errors(case, min(per_array or MOST_EXACT, MOST_EXACT))
    return Run(loop, Times(traced), deviation / unit, len(kinked), errors)


def _seconds_elsewhere(case: Case, factor: float) -> float:
    """Time a gradient at parameters that are new, as in training, and put the old ones back."""
    saved = [values.copy() for values in case.arrays]
    for values in case.arrays:
        values *= factor
    seconds = stopwatch(partial(_gradient, case))
    for values, before in zip(case.arrays, saved, strict=True):
        values[...] = before
    return seconds


def measure_errors(case: Case, per_array: int = MOST_EXACT) -> Errors:
    """Compare the loop and the traced engine with the same quotients in np.longdouble.

    The engine is asked for: by default, arrays for which the loop is faster are left to it.

    Parameters
    ----------
    case : Case
    per_array : int
        How many elements of each parameter are drawn, and how many that pass a kink.
    """
    kinked = np.random.default_rng(SEED).permutation(case.kinked)[:per_array]
    places = np.unique([*_drawn(case, per_array), *kinked])
    looped = _quotients(case, places)
    unit = roundoff_bound(case.loss(case.x))
    traced = _gradient(case, engine="traced")[places]
    deviation = float(abs(traced - looped).max() / unit)
    if not EXTENDED:
        return Errors(np.nan, np.nan, deviation, len(places))
    exact = _quotients(_in_extended_precision(case), places)
    assert exact.dtype == np.longdouble
    loop_error, error = (float(abs(some - exact).max() / unit) for some in (looped, traced))
    return Errors(loop_error, error, deviation, len(places))


def _quotients(case: Case, places: NDArray[np.int64]) -> Array:
    """Return the loop's quotients at places that are sorted, in the parameters' precision."""
    parts, starts = [], np.cumsum([0, *(values.size for values in case.arrays)])
    for values, (start, end) in zip(case.arrays, pairwise(starts), strict=True):
        mine = places[(places >= start) & (places < end)] - start
        quotients = any_loop.gradient(case.loss, values, STEP, mine)
        parts.append(quotients.reshape(-1)[mine])
    return np.concatenate(parts)


def _in_extended_precision(case: Case) -> Case:
    """Return a case that computes in np.longdouble, whose arrays of zeros can hold that, too."""
    wide = {id(values): values.astype(np.longdouble) for values in case.net.params.values()}
    net = deepcopy(case.net, dict(wide))  # which holds the wide ones wherever it holds parameters
    plain_loss = net.loss

    def loss(x: Array, t: Array) -> Any:
        with patch.object(np, "zeros", partial(np.zeros, dtype=np.longdouble)):
            return plain_loss(x, t)

    net.loss = loss  # type: ignore[method-assign]  # this net's alone
    x = case.x if case.x.dtype.kind == "i" else case.x.astype(np.longdouble)
    return replace(case, net=net, x=x)


def _drawn(case: Case, per_array: int) -> NDArray[np.int64]:
    """Return places of a seeded sample of each array, as in all of them one after the other."""
    params = dict(zip(case.names, case.arrays, strict=True))
    return np.array([place for place, _, _ in sampled_entries(params, per_array)])


def _gradient(case: Case, engine: GradientEngineName = "auto") -> Array:
    """Return what the learner's unmodified call does, for all parameters."""
    parts = [numerical_gradient(case.loss, values, engine=engine) for values in case.arrays]
    return np.concatenate([part.reshape(-1) for part in parts])


def untraceable_functions(inputs: int, samples: int) -> dict[str, tuple[Function, Array]]:
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
        try:
            numerical_gradient(f, x, engine="traced")
        except ValueError:
            return
        raise AssertionError("what cannot be traced was traced")

    engines = {name: partial(numerical_gradient, f, x, engine=name) for name in ("auto", "loop")}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "f is random", RuntimeWarning)  # dropout is
        return compare({**engines, "refusal": refusal}, rounds)
