"""Which x and h does the net accept? Checked once, in Python, before any kernel runs."""

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.arguments import as_array, warn_caller
from fastgrad.network.parameters import Parameters
from fastgrad.network.survey import survey
from fastgrad.steps import as_positive_number

Array = NDArray[np.float64]


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


def as_kernels_take_it(samples: NDArray[Any]) -> Array:
    """Return samples in float64, C-contiguous, aligned and writable: themselves if they are.

    Kernels only read them, but are compiled for one type of array, and to numba a read-only array
    (a memory map, a broadcast) has another one.
    """
    if samples.flags.carray and samples.dtype == np.float64:
        return samples
    return np.array(samples, np.float64, order="C")


def largest_and_nonzeros(x: Array, start: int = 0) -> tuple[float, int]:
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
    largest, nonzeros = survey(x)
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
