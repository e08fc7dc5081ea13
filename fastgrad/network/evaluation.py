"""How does the net evaluate what it is asked? Checks, then kernels, then plain arrays."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.engines import loop
from fastgrad.network import backpropagation, direct, responses
from fastgrad.network.batch import (
    as_kernels_take_it,
    as_samples,
    as_step,
    largest_and_nonzeros,
)
from fastgrad.network.forward import Forward, run_forward
from fastgrad.network.functions import LOG_OFFSET
from fastgrad.network.jit import exclusive
from fastgrad.network.labels import class_indices
from fastgrad.network.parameters import Parameters
from fastgrad.network.survey import survey
from fastgrad.network.work import WorkArrays
from fastgrad.typing import Map

Array = NDArray[np.float64]

# Rows that are evaluated at a time: their float64 copy stays in the second-level cache.
ROWS_AT_A_TIME = 256


# Parameters, inputs and steps up to this, and steps down to its inverse, have finite quotients: the
# layers' sums are finite, so the probabilities are, a loss, -log(p + 1e-7), is below 17, and a
# quotient below 17 / h. The powers in odd responses, x^13 and W2^12 at most, stay below 1e260.
MODERATE = 1e20


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
    work : WorkArrays
        The net's scratch.
    """

    params: Parameters
    x: Array
    labels: NDArray[np.int64]
    largest: float
    nonzeros: int
    work: WorkArrays

    def forward(self) -> Forward:
        """Run the batch through the net as it is now."""
        return run_forward(self.params, self.x, self.nonzeros, self.work)


def probabilities(params: Parameters, x: ArrayLike, work: WorkArrays) -> Array:
    """Return the net's output for a batch of any size, shape (N, K)."""
    samples = as_samples(x, len(params["W1"]))
    classes = len(params["b2"])
    result = np.empty((len(samples), classes))
    with exclusive():
        for start in range(0, len(samples), ROWS_AT_A_TIME):
            rows = as_kernels_take_it(samples[start : start + ROWS_AT_A_TIME])
            _, nonzeros = largest_and_nonzeros(rows, start)
            run = run_forward(params, rows, nonzeros, work)
            result[start : start + ROWS_AT_A_TIME] = run.p[:, :classes]
    return result


def loss(params: Parameters, x: ArrayLike, t: ArrayLike, work: WorkArrays) -> float:
    """Return the mean cross entropy of a batch of any size."""
    labels = _labels(params, x, t)
    return mean_loss(probabilities(params, x, work), labels)


def accuracy(params: Parameters, x: ArrayLike, t: ArrayLike, work: WorkArrays) -> float:
    """Return the share of samples whose most probable class is theirs."""
    labels = _labels(params, x, t)
    return float((probabilities(params, x, work).argmax(axis=1) == labels).mean())


def loss_of(p: ArrayLike, t: ArrayLike) -> float:
    """Return the mean cross entropy of the probabilities that any net predicts."""
    rows = np.atleast_2d(np.asarray(p))
    return mean_loss(rows, class_indices(t, *rows.shape))


def accuracy_of(p: ArrayLike, t: ArrayLike) -> float:
    """Return the share of samples whose most probable class is theirs, as any net predicts it."""
    rows = np.atleast_2d(np.asarray(p))
    return float((rows.argmax(axis=1) == class_indices(t, *rows.shape)).mean())


def _labels(params: Parameters, x: ArrayLike, t: ArrayLike) -> NDArray[np.intp]:
    """Refuse targets that do not fit the batch, before anything is computed."""
    return class_indices(t, len(as_samples(x, len(params["W1"]))), len(params["b2"]))


def mean_loss(p: Array, labels: NDArray[np.int64] | NDArray[np.intp]) -> float:
    """Return the mean cross entropy of probabilities of shape (N, K)."""
    return float(-np.log(p[np.arange(len(p)), labels] + LOG_OFFSET).mean())


def numerical_gradient(
    params: Parameters,
    x: ArrayLike,
    t: ArrayLike,
    h: float,
    engine: str,
    work: WorkArrays,
    workers: int | Map | None = None,
) -> Parameters:
    """Return the central differences of the mean loss, by the named engine."""
    require_engine(engine)
    largest, _ = survey(params.buffer)
    step = as_step(h, params, largest, may_be_lost=engine == "loop")
    batch = check(params, x, t, work)
    if np.isnan(largest):  # a parameter that is nan makes every loss nan, and every difference
        result = params.over(np.full_like(params.buffer, np.nan))
    elif workers is not None:
        from fastgrad.network import shards

        of_samples = partial(_quotients_of, params, step, engine)
        flat = shards.gradient(of_samples, batch.x, batch.labels, workers)
        result = params.over(flat)
    else:
        result = params.over(quotients(batch, step, engine))
    if not all(size <= MODERATE for size in (largest, batch.largest, step, 1 / step)):
        _warn_of_nonfinite(result)
    return result


def require_engine(engine: object) -> None:
    """Refuse an engine that the net does not have."""
    if not isinstance(engine, str) or engine not in ENGINES:
        names = ", ".join(repr(name) for name in ENGINES)
        raise ValueError(f"engine is {engine!r}, which does not exist; pass one of {names}")


def quotients(batch: Batch, step: float, engine: str) -> Array:
    """Return the central differences as a new flat array."""
    with exclusive():
        return ENGINES[engine](batch, step)


def _quotients_of(
    params: Parameters, step: float, engine: str, x: Array, labels: NDArray[np.int64]
) -> Array:
    """Return the central differences for some of the samples, wherever that is computed."""
    return quotients(check(params, x, labels, WorkArrays()), step, engine)


def exact_gradient(params: Parameters, x: ArrayLike, t: ArrayLike, work: WorkArrays) -> Parameters:
    """Return the derivatives of the mean loss, by backpropagation."""
    batch = check(params, x, t, work)
    with exclusive():
        return params.over(backpropagation.gradient(batch.forward(), batch.labels))


def check(params: Parameters, x: ArrayLike, t: ArrayLike, work: WorkArrays) -> Batch:
    """Refuse what the net cannot evaluate."""
    samples = as_kernels_take_it(as_samples(x, len(params["W1"])))
    labels = class_indices(t, len(samples), len(params["b2"])).astype(np.int64, copy=False)
    largest, nonzeros = largest_and_nonzeros(samples)
    return Batch(params, samples, labels, largest, nonzeros, work)


def _by_responses(batch: Batch, h: float) -> Array:
    """Measure a few shifts a unit; where no certain plan exists, perturb every weight."""
    result = responses.gradient(batch.forward(), batch.labels, h, batch.largest)
    return _by_perturbation(batch, h) if result is None else result


def _by_perturbation(batch: Batch, h: float) -> Array:
    """Move every parameter, and recompute what it touches."""
    return direct.gradient(batch.params, batch.x, batch.labels, h)


def _by_loop(batch: Batch, h: float) -> Array:
    """Run the book's loop over each parameter; the loss ignores the array that it is given."""
    return np.concatenate(
        [
            loop.gradient(lambda _: mean_loss(batch.forward().p, batch.labels), view, h).ravel()
            for view in batch.params.values()
        ]
    )


ENGINES: dict[str, Callable[[Batch, float], Array]] = {
    "response": _by_responses,
    "direct": _by_perturbation,
    "loop": _by_loop,
}
"""Name -> ``engine(batch, h)``, which returns the gradient as a new flat array."""


def _warn_of_nonfinite(gradient: Parameters) -> None:
    """Warn, in the name of the caller of the net's method, of quotients that are no numbers."""
    largest, _ = survey(gradient.buffer)
    if not np.isfinite(largest):
        name, view = next((n, v) for n, v in gradient.items() if not np.isfinite(v).all())
        index = ", ".join(map(str, np.argwhere(~np.isfinite(view))[0]))
        warnings.warn(
            f"the difference quotient at {name}[{index}] is not finite: "
            "the loss is nan or infinite there; look for nan or huge values in params",
            RuntimeWarning,
            stacklevel=4,
        )
