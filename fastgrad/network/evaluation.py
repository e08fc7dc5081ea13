"""The net's predictions, losses and gradients: arguments checked, then computed by an engine.

Arguments are checked once, in Python, before any kernel runs. `ENGINES` is the table of engines.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.differences.steps import as_positive_number
from fastgrad.differences.validation import as_array, warn_caller
from fastgrad.engines import loop
from fastgrad.jit.concurrency import exclusive
from fastgrad.network import backpropagation, direct, odd_responses
from fastgrad.network.forward import Forward, run_forward
from fastgrad.network.functions import LOG_OFFSET, class_indices
from fastgrad.network.kernels import magnitude_and_nonzeros
from fastgrad.network.parameters import Parameters
from fastgrad.network.workspace import Workspace
from fastgrad.typing import Doubles, Map

# Rows that are evaluated at a time: their float64 copy stays in the second-level cache.
ROWS_AT_ONCE = 256

# Parameters, inputs and steps up to this, and steps down to its inverse, have finite quotients: the
# layers' sums are finite, so the probabilities are, a loss, -log(p + 1e-7), is below 17, and a
# quotient below 17 / h. The powers in odd responses, x^13 and W2^12 at most, stay below 1e260.
MAX_MODERATE_SIZE = 1e20


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
    work : Workspace
        The net's scratch.
    """

    params: Parameters
    x: Doubles
    labels: NDArray[np.int64]
    largest: float
    nonzeros: int
    work: Workspace

    def forward(self) -> Forward:
        """Run the batch through the net as it is now."""
        return run_forward(self.params, self.x, self.nonzeros, self.work)


def probabilities(params: Parameters, x: ArrayLike, work: Workspace) -> Doubles:
    """Return the net's output for a batch of any size, shape (N, K)."""
    samples = as_samples(x, len(params["W1"]))
    classes = len(params["b2"])
    result = np.empty((len(samples), classes))
    with exclusive:
        for start in range(0, len(samples), ROWS_AT_ONCE):
            rows = as_kernels_take_it(samples[start : start + ROWS_AT_ONCE])
            _, nonzeros = largest_and_nonzeros(rows, start)
            run = run_forward(params, rows, nonzeros, work)
            result[start : start + ROWS_AT_ONCE] = run.p[:, :classes]
    return result


def loss(params: Parameters, x: ArrayLike, t: ArrayLike, work: Workspace) -> float:
    """Return the mean cross entropy of a batch of any size."""
    labels = _labels(params, x, t)
    return mean_loss(probabilities(params, x, work), labels)


def accuracy(params: Parameters, x: ArrayLike, t: ArrayLike, work: Workspace) -> float:
    """Return the share of samples whose most probable class is theirs."""
    labels = _labels(params, x, t)
    return float((probabilities(params, x, work).argmax(axis=1) == labels).mean())


def mean_loss(p: Doubles, labels: NDArray[np.int64] | NDArray[np.intp]) -> float:
    """Return the mean cross entropy of probabilities of shape (N, K)."""
    return float(-np.log(p[np.arange(len(p)), labels] + LOG_OFFSET).mean())


def loss_of(p: ArrayLike, t: ArrayLike) -> float:
    """Return the mean cross entropy of the probabilities that any net predicts."""
    rows = np.atleast_2d(np.asarray(p))
    return mean_loss(rows, class_indices(t, *rows.shape))


def accuracy_of(p: ArrayLike, t: ArrayLike) -> float:
    """Return the share of samples whose most probable class is theirs, as any net predicts it."""
    rows = np.atleast_2d(np.asarray(p))
    return float((rows.argmax(axis=1) == class_indices(t, *rows.shape)).mean())


def numerical_gradient(
    params: Parameters,
    x: ArrayLike,
    t: ArrayLike,
    h: float,
    engine: str,
    work: Workspace,
    workers: int | Map | None = None,
) -> Parameters:
    """Return the central differences of the mean loss, by the named engine."""
    require_engine(engine)
    largest, _ = magnitude_and_nonzeros(params.buffer)
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
    if not all(size <= MAX_MODERATE_SIZE for size in (largest, batch.largest, step, 1 / step)):
        _warn_of_nonfinite(result)
    return result


def quotients(batch: Batch, step: float, engine: str) -> Doubles:
    """Return the central differences as a new flat array."""
    with exclusive:
        return ENGINES[engine](batch, step)


def _quotients_of(
    params: Parameters, step: float, engine: str, x: Doubles, labels: NDArray[np.int64]
) -> Doubles:
    """Return the central differences for some of the samples, wherever that is computed."""
    return quotients(check(params, x, labels, Workspace()), step, engine)


def exact_gradient(params: Parameters, x: ArrayLike, t: ArrayLike, work: Workspace) -> Parameters:
    """Return the derivatives of the mean loss, by backpropagation."""
    batch = check(params, x, t, work)
    with exclusive:
        return params.over(backpropagation.gradient(batch.forward(), batch.labels))


# Engines ------------------------------------------------------------------------------------------


def _by_responses(batch: Batch, h: float) -> Doubles:
    """Measure a few shifts a unit; where no certain plan exists, perturb every weight."""
    result = odd_responses.gradient(batch.forward(), batch.labels, h, batch.largest)
    return _by_perturbation(batch, h) if result is None else result


def _by_perturbation(batch: Batch, h: float) -> Doubles:
    """Move every parameter, and recompute what it touches."""
    return direct.gradient(batch.params, batch.x, batch.labels, h)


def _by_loop(batch: Batch, h: float) -> Doubles:
    """Run the book's loop over each parameter; the loss ignores the array that it is given."""
    return np.concatenate(
        [
            loop.gradient(lambda _: mean_loss(batch.forward().p, batch.labels), view, h).ravel()
            for view in batch.params.values()
        ]
    )


ENGINES: dict[str, Callable[[Batch, float], Doubles]] = {
    "response": _by_responses,
    "direct": _by_perturbation,
    "loop": _by_loop,
}
"""Name -> ``engine(batch, h)``, which returns the gradient as a new flat array."""


def require_engine(engine: object) -> None:
    """Refuse an engine that the net does not have."""
    if not isinstance(engine, str) or engine not in ENGINES:
        names = ", ".join(repr(name) for name in ENGINES)
        raise ValueError(f"engine is {engine!r}, which does not exist; pass one of {names}")


# Arguments ----------------------------------------------------------------------------------------


def check(params: Parameters, x: ArrayLike, t: ArrayLike, work: Workspace) -> Batch:
    """Refuse what the net cannot evaluate."""
    samples = as_kernels_take_it(as_samples(x, len(params["W1"])))
    labels = class_indices(t, len(samples), len(params["b2"])).astype(np.int64, copy=False)
    largest, nonzeros = largest_and_nonzeros(samples)
    return Batch(params, samples, labels, largest, nonzeros, work)


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


def _labels(params: Parameters, x: ArrayLike, t: ArrayLike) -> NDArray[np.intp]:
    """Refuse targets that do not fit the batch, before anything is computed."""
    return class_indices(t, len(as_samples(x, len(params["W1"]))), len(params["b2"]))


def _warn_of_nonfinite(gradient: Parameters) -> None:
    """Warn, in the name of the caller of the net's method, of quotients that are no numbers."""
    largest, _ = magnitude_and_nonzeros(gradient.buffer)
    if not np.isfinite(largest):
        name, view = next((n, v) for n, v in gradient.items() if not np.isfinite(v).all())
        index = ", ".join(map(str, np.argwhere(~np.isfinite(view))[0]))
        warnings.warn(
            f"the difference quotient at {name}[{index}] is not finite: "
            "the loss is nan or infinite there; look for nan or huge values in params",
            RuntimeWarning,
            stacklevel=4,
        )
