"""The book's sigmoid, softmax and cross entropy; and class indices from any form of labels."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.differences.validation import no_array

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
        Class indices, one-hot or soft targets: see `fastgrad.network.functions.class_indices`.
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


# Labels -------------------------------------------------------------------------------------------


def class_indices(t: ArrayLike, samples: int, classes: int) -> NDArray[np.intp]:
    """Return the class index of each sample, whatever form its target has.

    Parameters
    ----------
    t : array_like of real numbers
        Class indices of shape ``(samples,)`` or ``(samples, 1)``: whole numbers from 0 to
        ``classes - 1`` of any dtype. Or one-hot or soft targets of shape ``(samples, classes)``,
        whose largest entry counts, as in the book. For a single sample also a number, or a row
        of ``classes`` entries. Where both readings fit (``classes == 1``) it is a target, as in
        the book, and the index is 0.
    samples, classes : int
        How many of each the batch has.

    Returns
    -------
    ndarray of intp, shape (samples,)
        A new array.

    Raises
    ------
    TypeError
        If ``t`` does not hold real numbers.
    ValueError
        If the shape fits neither form, a label is not a whole number or out of range, or a
        target is nan.

    Examples
    --------
    >>> class_indices([2, 0], samples=2, classes=3)
    array([2, 0])
    >>> class_indices([[0.1, 0.2, 0.7], [1, 0, 0]], samples=2, classes=3)
    array([2, 0])
    """
    try:
        array = np.asarray(t)
    except (TypeError, ValueError, RuntimeError) as error:
        raise no_array("t", t, "pass class indices or one-hot rows as numbers") from error
    if array.dtype.kind not in "iufb":
        raise TypeError(
            f"t has dtype {array.dtype}, which does not hold class labels; "
            "pass class indices or one-hot rows as numbers"
        )
    if _is_a_row_a_sample(array.shape, samples, classes):
        return _largest_entries(array.reshape(samples, classes))
    if not _is_a_label_a_sample(array.shape, samples):
        raise ValueError(_misfit(array.shape, samples, classes))
    labels = array.reshape(samples)
    if array.dtype.kind == "f":
        _require_small_whole_numbers(labels, classes)
    indices = labels.astype(np.intp)
    # Seen as unsigned, a negative index is a huge one: a single comparison finds both ends.
    if samples and indices.view(np.uintp).max() >= classes:
        raise ValueError(_out_of_range(labels, (indices < 0) | (indices >= classes), classes))
    return indices


def _is_a_row_a_sample(shape: tuple[int, ...], samples: int, classes: int) -> bool:
    """Tell whether t holds one entry for each sample and class."""
    return (
        shape == (samples, classes)
        or (samples == 1 and shape == (classes,))
        or (classes == 1 and shape == (samples,))
    )


def _is_a_label_a_sample(shape: tuple[int, ...], samples: int) -> bool:
    """Tell whether t holds one entry for each sample."""
    return shape == (samples,) or shape == (samples, 1) or (samples == 1 and shape == ())


def _largest_entries(targets: NDArray[Any]) -> NDArray[np.intp]:
    """Return the column of each row's largest entry, the first one if several are equal."""
    indices: NDArray[np.intp] = targets.argmax(axis=1)
    # argmax takes a nan for the largest entry of its row, so only the winners need a look.
    if targets.dtype.kind == "f":
        winners = targets[np.arange(len(targets)), indices]
        if np.isnan(winners).any():
            row = int(np.argmax(np.isnan(winners)))
            raise ValueError(
                f"t[{row}, {indices[row]}] is nan, so sample {row} has no largest target; "
                "pass targets without nan"
            )
    return indices


def _require_small_whole_numbers(labels: NDArray[Any], classes: int) -> None:
    """Refuse floating-point labels that no cast to an index would keep."""
    whole = labels == np.floor(labels)
    if not whole.all():
        first = int(np.argmin(whole))
        raise ValueError(
            f"t[{first}] is {labels[first]}, but a class index is a whole number; pass whole "
            f"numbers from 0 to {classes - 1}, or one row of {classes} targets a sample"
        )
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        raise ValueError(_out_of_range(labels, outside, classes))


def _out_of_range(labels: NDArray[Any], outside: NDArray[np.bool_], classes: int) -> str:
    """Return the message that names the first label that is no class."""
    first = int(np.argmax(outside))
    return (
        f"t[{first}] is {labels[first]}, but the class indices go from 0 to {classes - 1}; "
        "pass labels of these classes, or a net with more outputs"
    )


def _misfit(shape: tuple[int, ...], samples: int, classes: int) -> str:
    """Return the message about a wrong shape, with those that would be right."""
    return (
        f"t has shape {shape}, but the batch has {samples} samples and {classes} classes; pass "
        f"class indices of shape ({samples},) or targets of shape ({samples}, {classes})"
    )
