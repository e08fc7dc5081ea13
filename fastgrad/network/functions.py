"""What do the net's formulas compute? Sigmoid, softmax and cross entropy, as in the book."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.arguments import no_array
from fastgrad.network.labels import class_indices

LOG_OFFSET = 1e-7
"""Added to a probability before its logarithm is taken, so that log(0) never happens."""


def sigmoid(x: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return ``1 / (1 + exp(-x))`` for each element, without overflow warnings.

    Parameters
    ----------
    x : array_like of real numbers
        Floats keep their dtype; integers and booleans are taken as float64.

    Returns
    -------
    ndarray of x's shape, or a NumPy scalar for a single number
        From 0 to 1. Exactly 0 where ``exp(-x)`` overflows (float64: x below -709.8), just as
        in the book, where the same result comes with a warning.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers.

    Examples
    --------
    >>> sigmoid([-1000.0, 0.0, 1000.0])
    array([0. , 0.5, 1. ])
    """
    values = _as_floats("x", x)
    with np.errstate(over="ignore", under="ignore"):
        result: NDArray[np.floating[Any]] = 1 / (1 + np.exp(-values))
    return result


def softmax(x: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return ``exp(x_k) / sum_k exp(x_k)`` over the last axis.

    The largest entry of each row is subtracted first, which changes nothing but keeps ``exp``
    from overflowing.

    Parameters
    ----------
    x : array_like of real numbers, shape (..., K)
        Floats keep their dtype; integers and booleans are taken as float64.

    Returns
    -------
    ndarray of x's shape
        Probabilities: each row sums to 1.

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers.
    ValueError
        If the rows of x are empty.

    Examples
    --------
    >>> softmax([1000.0, 1000.0])
    array([0.5, 0.5])
    """
    values = _as_floats("x", x)
    if values.shape[-1:] == (0,):
        raise ValueError(
            f"x has shape {values.shape}, but each row has one number or more; pass shape (..., K)"
        )
    with np.errstate(under="ignore"):
        exponentials = np.exp(values - values.max(axis=-1, keepdims=True))
        result: NDArray[np.floating[Any]] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def cross_entropy_error(y: ArrayLike, t: ArrayLike) -> np.floating[Any]:
    """Return the mean over samples of ``-log(y_t + 1e-7)``.

    Parameters
    ----------
    y : array_like of real numbers, shape (N, K), or (K,) for one sample
        Probabilities.
    t : array_like of real numbers
        Class indices, one-hot or soft targets: see `fastgrad.network.labels.class_indices`.
        Of soft targets only the largest counts, as in the book.

    Returns
    -------
    NumPy scalar of y's dtype (float64 if y holds integers)

    Raises
    ------
    TypeError
        If ``y`` or ``t`` does not hold real numbers.
    ValueError
        If ``y`` has no sample or more than two axes, or ``t`` does not fit ``y``.

    Examples
    --------
    >>> float(cross_entropy_error([[0.25, 0.75], [0.5, 0.5]], [1, 0]))  # doctest: +ELLIPSIS
    0.490414...
    """
    probabilities = _as_floats("y", y)
    if probabilities.ndim == 1:
        probabilities = probabilities[np.newaxis]
    if probabilities.ndim != 2 or probabilities.size == 0:
        raise ValueError(
            f"y has shape {probabilities.shape}, but a loss needs one row of probabilities a "
            "sample, at least one; pass shape (samples, classes)"
        )
    samples, classes = probabilities.shape
    of_the_class = probabilities[np.arange(samples), class_indices(t, samples, classes)]
    result: np.floating[Any] = -np.sum(np.log(of_the_class + LOG_OFFSET)) / samples
    return result


def _as_floats(name: str, values: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return values as a floating-point array; the dtype is kept if it is one already."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise no_array(name, values, f"pass np.asarray({name}, dtype=float)") from error
    if array.dtype.kind == "f":
        return array
    # Small integers would be computed in float16, and -x wraps around for unsigned ones.
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    raise TypeError(
        f"{name} has dtype {array.dtype}, which does not hold real numbers; "
        f"pass np.asarray({name}, dtype=float)"
    )
