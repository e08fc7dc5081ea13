"""Which class does each sample belong to? Every accepted form of t, turned into indices."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.arguments import no_array


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
    """Name the first label that is no class."""
    first = int(np.argmax(outside))
    return (
        f"t[{first}] is {labels[first]}, but the class indices go from 0 to {classes - 1}; "
        "pass labels of these classes, or a net with more outputs"
    )


def _misfit(shape: tuple[int, ...], samples: int, classes: int) -> str:
    """Say which shapes would have been right."""
    return (
        f"t has shape {shape}, but the batch has {samples} samples and {classes} classes; pass "
        f"class indices of shape ({samples},) or targets of shape ({samples}, {classes})"
    )
