"""The net's predictions and gradients: arguments checked, then computed by an engine.

Arguments are checked once, in Python, before any kernel runs. `ENGINES` is the table of engines.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.differences.arguments import as_array, as_positive_number, element, warn_caller
from fastgrad.engines import loop, processes
from fastgrad.engines.workers import checked, count
from fastgrad.jit.concurrency import exclusive
from fastgrad.jit.matrix_products import magnitude_and_nonzeros
from fastgrad.network import direct, response
from fastgrad.network.functions import LOG_OFFSET, class_indices
from fastgrad.network.parameters import Parameters
from fastgrad.network.propagation import Forward, backpropagate, run_forward
from fastgrad.typing import Doubles, Map

ROWS_AT_ONCE = 256
"""Rows that are evaluated at a time: their float64 copy stays in the second-level cache."""

MAX_SHARD_SAMPLES = 2_000
"""Samples of a shard for a map, of which nobody knows how many workers it has."""


@dataclass(frozen=True)
class Batch:
    """A checked batch, and the net that it is meant for.

    Attributes
    ----------
    params : Parameters
    x : array of shape (N, I)
    labels : array of shape (N,)
    largest : float
        The largest magnitude in x.
    nonzeros : int
        How many entries of x are not zero.
    """

    params: Parameters
    x: Doubles
    labels: NDArray[np.intp]
    largest: float
    nonzeros: int

    def forward(self) -> Forward:
        """Run the batch through the net as it is now."""
        return run_forward(self.params, self.x, self.nonzeros)


def probabilities(params: Parameters, x: ArrayLike) -> Doubles:
    """Return the net's output for a batch of any size, shape (N, K)."""
    samples = as_samples(x, len(params["W1"]))
    classes = len(params["b2"])
    result = np.empty((len(samples), classes))
    with exclusive:
        for start in range(0, len(samples), ROWS_AT_ONCE):
            rows = as_kernels_take_it(samples[start : start + ROWS_AT_ONCE])
            _, nonzeros = largest_and_nonzeros(rows, start)
            run = run_forward(params, rows, nonzeros)
            result[start : start + ROWS_AT_ONCE] = run.p[:, :classes]
    return result


def require_targets(params: Parameters, x: ArrayLike, t: ArrayLike) -> None:
    """Refuse targets that do not fit the batch, before anything is computed."""
    class_indices(t, len(as_samples(x, len(params["W1"]))), len(params["b2"]))


def exact_gradient(params: Parameters, x: ArrayLike, t: ArrayLike) -> Parameters:
    """Return the derivatives of the mean loss, by backpropagation."""
    batch = check(params, x, t)
    with exclusive:
        return params.over(backpropagate(batch.forward(), batch.labels))


def numerical_gradient(
    params: Parameters,
    x: ArrayLike,
    t: ArrayLike,
    h: float,
    engine: str,
    workers: int | Map | None = None,
) -> Parameters:
    """Return the central differences of the mean loss, by the named engine."""
    largest, _ = magnitude_and_nonzeros(params.buffer)
    step = as_step(h, params, largest, may_be_lost=engine == "loop")
    batch = check(params, x, t)
    if np.isnan(largest):  # a parameter that is nan makes every loss nan, and every difference
        flat = np.full_like(params.buffer, np.nan)
    elif workers is not None:
        flat = mean_of_shards(batch, step, engine, workers)
    else:
        flat = quotients(batch, step, engine)
    gradient = params.over(flat)
    _warn_of_nonfinite(gradient)
    return gradient


def quotients(batch: Batch, step: float, engine: str) -> Doubles:
    """Return the central differences as a new flat array."""
    with exclusive:
        return ENGINES[engine](batch, step)


# Engines ------------------------------------------------------------------------------------------


def _by_responses(batch: Batch, h: float) -> Doubles:
    """Measure a few shifts a unit; where no certain plan exists, perturb every weight."""
    result = response.gradient(
        batch.params, batch.x, batch.nonzeros, batch.labels, h, batch.largest
    )
    return _by_perturbation(batch, h) if result is None else result


def _by_perturbation(batch: Batch, h: float) -> Doubles:
    """Move every parameter, and recompute what it touches."""
    return direct.gradient(batch.params, batch.x, batch.labels, h)


def _by_loop(batch: Batch, h: float) -> Doubles:
    """Run the book's loop over each parameter; the loss ignores the array that it is given."""
    samples = np.arange(len(batch.x))

    def loss(_: object) -> float:
        p_label = batch.forward().p[samples, batch.labels]
        return float(-np.log(p_label + LOG_OFFSET).mean())

    arrays = batch.params.values()
    return np.concatenate([loop.gradient(loss, array, h).ravel() for array in arrays])


ENGINES: dict[str, Callable[[Batch, float], Doubles]] = {
    "response": _by_responses,
    "direct": _by_perturbation,
    "loop": _by_loop,
}
"""Name -> ``engine(batch, h)``, which returns the gradient as a new flat array."""


# Workers ------------------------------------------------------------------------------------------


def mean_of_shards(batch: Batch, step: float, engine: str, workers: int | Map) -> Doubles:
    """Return the difference quotients, of which workers compute those of shards of the batch.

    The loss is a mean over samples, and so is its difference quotient: that of N samples is the sum
    of ``n_k / N`` times that of the ``n_k`` samples of shard k.

    Parameters
    ----------
    batch : Batch
    step : float
    engine : str
    workers : int or map-like
        As `fastgrad.numerical_gradient` takes them.
    """
    samples = len(batch.x)
    parts = -(-samples // MAX_SHARD_SAMPLES) if callable(workers) else min(count(workers), samples)
    arrays = (np.array_split(array, parts) for array in (batch.x, batch.labels))
    shards = [*zip(*arrays, strict=True)]
    task = partial(share_of_shard, batch.params, samples, step, engine)
    total = np.zeros(batch.params.buffer.shape)
    # What is not finite shows in the result.
    with np.errstate(all="ignore"):
        run: Map = map
        if callable(workers):
            run = workers
        elif parts > 1 and processes.may_start():
            run = partial(processes.map_in_processes, parts)
        for share in checked(run(task, shards), np.ndarray, parts):
            total += share
    return total


def share_of_shard(
    params: Parameters,
    samples: int,
    step: float,
    engine: str,
    shard: tuple[Doubles, NDArray[np.intp]],
) -> Doubles:
    """Return what a shard contributes to the quotients of so many samples, wherever that is."""
    batch = check(params, *shard)
    return len(batch.x) / samples * quotients(batch, step, engine)


# Arguments ----------------------------------------------------------------------------------------


def check(params: Parameters, x: ArrayLike, t: ArrayLike) -> Batch:
    """Refuse what the net cannot evaluate."""
    samples = as_kernels_take_it(as_samples(x, len(params["W1"])))
    labels = class_indices(t, len(samples), len(params["b2"]))
    return Batch(params, samples, labels, *largest_and_nonzeros(samples))


def as_samples(x: ArrayLike, inputs: int) -> NDArray[Any]:
    """Return x as a batch: an array of shape (N, inputs), N at least 1, in a dtype of its own.

    Parameters
    ----------
    x : array_like of real numbers, shape (N, inputs) or (inputs,)
        A 1-D x is a batch of one.
    inputs : int
        The features of a sample.

    Raises
    ------
    TypeError
        If x does not hold real numbers.
    ValueError
        If x has another shape, or no samples.
    """
    array = as_array("x", x, f"pass an array of shape (N, {inputs})")
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"x has dtype {array.dtype}, but a sample is made of real numbers; pass x.astype(float)"
        )
    if array.ndim == 1:
        array = array.reshape(1, -1)
    if array.ndim != 2 or array.shape[1] != inputs:
        raise ValueError(
            f"x has shape {np.shape(x)}, but the net takes {inputs} features a sample: "
            f"(N, {inputs}) or ({inputs},); pass x.reshape(-1, {inputs}) if it holds whole samples"
        )
    if not len(array):
        raise ValueError(f"x has shape {array.shape}: no samples; pass at least one")
    return array


def as_kernels_take_it(samples: NDArray[Any]) -> Doubles:
    """Return samples in float64, C-contiguous, aligned and writable: themselves if they are.

    Kernels only read them, but are compiled for one type of array, and to numba a read-only array
    (a memory map, a broadcast) has another one.
    """
    if samples.flags.carray and samples.dtype == np.float64:
        return samples
    return np.array(samples, np.float64, order="C")


def largest_and_nonzeros(x: Doubles, start: int = 0) -> tuple[float, int]:
    """Return the largest magnitude in x and how many entries are not zero; refuse nan and inf.

    Parameters
    ----------
    x : float64 array of shape (N, I), C-contiguous
    start : int
        The number of its first sample, for the message.

    Raises
    ------
    ValueError
        If an entry is nan or infinite.
    """
    largest, nonzeros = magnitude_and_nonzeros(x)
    if not math.isfinite(largest):
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(
            f"x[{start + row}, {column}] is {x[row, column]}, but the features are finite numbers; "
            "remove or replace such samples"
        )
    return largest, nonzeros


def as_step(h: object, params: Parameters, largest: float, *, may_be_lost: bool = False) -> float:
    """Return h as a float, if it moves every parameter.

    Parameters
    ----------
    h : object
        The step.
    params : Parameters
    largest : float
        The largest magnitude among them; nan if one is nan, which no step is lost in.
    may_be_lost : bool
        Whether a step that does not move a parameter is warned of, and taken: as the book does.

    Raises
    ------
    TypeError
        If h is not a real number.
    ValueError
        If h is not positive and finite, or is lost when it is added to a parameter.
    """
    step = as_positive_number(h)
    if largest + step == largest or largest - step == largest:
        name = next(name for name, view in params.items() if largest in abs(view))
        message = (
            f"h is {step}, which is lost when it is added to params[{name!r}], whose largest "
            f"entry is {largest:.6g}; pass a larger h or smaller parameters"
        )
        if not may_be_lost or math.isinf(largest):
            raise ValueError(message)
        warn_caller(message)
    return step


def _warn_of_nonfinite(gradient: Parameters) -> None:
    """Warn, in the name of the caller of the net's method, of quotients that are no numbers."""
    largest, _ = magnitude_and_nonzeros(gradient.buffer)
    if not math.isfinite(largest):
        name, view = next((n, v) for n, v in gradient.items() if not np.isfinite(v).all())
        warn_caller(
            f"the difference quotient at {element(name, np.argwhere(~np.isfinite(view))[0])} is "
            "not finite: the loss is nan or infinite there; look for nan or huge values in params"
        )
