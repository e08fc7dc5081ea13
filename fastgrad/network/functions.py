"""The book's functions, in its order: activations, losses and difference quotients; and labels.

In plain NumPy, so that a function which uses them is traced as with a reader's own. In a chapter's
file, ``from fastgrad.network.functions import *`` replaces ``from common.functions import *``; some
of them have NumPy from there alone.

Each gives the book's numbers bit for bit. What the book's code computes wrong, silently, is right
here, or refused: each docstring says what.
"""

import reprlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.differences.arguments import (
    no_array,
    require_floating_array,
    require_function,
    warn_caller,
)
from fastgrad.differences.conversions import BOOK_STEP
from fastgrad.gradient import numerical_gradient
from fastgrad.typing import Array

__all__ = [
    "cross_entropy_error",
    "identity_function",
    "np",
    "numerical_diff",
    "numerical_gradient_2d",
    "relu",
    "relu_grad",
    "sigmoid",
    "sigmoid_grad",
    "softmax",
    "softmax_loss",
    "step_function",
    "sum_squared_error",
]

LOG_OFFSET = 1e-7
"""Added to a probability before its logarithm is taken, so that log(0) never happens."""


def identity_function(x: Any) -> Any:
    """Return x itself, as the output layer of a net for regression does.

    Examples
    --------
    >>> identity_function(0.5)
    0.5
    """
    return x


def step_function(x: ArrayLike) -> NDArray[np.int_]:
    """Return 1 where x is positive, and 0 elsewhere, as an array of whole numbers.

    Takes and raises what `relu` does. It is 0 at 0, and where x is nan.

    Examples
    --------
    >>> step_function([-1.0, 0.0, 2.0])
    array([0, 0, 1])
    """
    return np.array(_as_numbers("x", x) > 0, dtype=int)


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


def sigmoid_grad(x: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return the derivative of `sigmoid` at x, ``(1 - sigmoid(x)) sigmoid(x)``.

    Takes and raises what `sigmoid` does. Where ``sigmoid(x)`` rounds to 1 it is 0, as in the book.

    Examples
    --------
    >>> sigmoid_grad([-1000.0, 0.0])
    array([0.  , 0.25])
    """
    y = sigmoid(x)
    return (1.0 - y) * y


def relu(x: ArrayLike) -> NDArray[Any]:
    """Return x where it is positive, and 0 elsewhere, in x's dtype; nan stays nan.

    Parameters
    ----------
    x : array_like of real numbers

    Returns
    -------
    ndarray of x's shape, or a NumPy scalar for a single number

    Raises
    ------
    TypeError
        If ``x`` does not hold real numbers.

    Examples
    --------
    >>> relu([-1.0, 0.0, 2.0])
    array([0., 0., 2.])
    """
    result: NDArray[Any] = np.maximum(0, _as_numbers("x", x))
    return result


def relu_grad(x: ArrayLike) -> NDArray[Any]:
    """Return the derivative of `relu` at x, in x's dtype: 1 where x is 0 or more, and 0 elsewhere.

    Takes and raises what `relu` does. At 0, where there is no derivative, it is 1, as in the book;
    a central difference is 1/2 there. Where x is nan it is 0.

    Examples
    --------
    >>> relu_grad([-1.0, 0.0, 2.0])
    array([0., 1., 1.])
    """
    values = _as_numbers("x", x)
    return np.array(values >= 0, dtype=values.dtype)


def softmax(x: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return ``exp(x_k) / sum_k exp(x_k)`` over the last axis, for x of shape (..., K).

    Takes and raises what `sigmoid` does; and ValueError if the rows of x are empty. The largest
    entry of each row is subtracted first, which changes nothing but keeps ``exp`` from overflowing.

    Returns
    -------
    ndarray of x's shape
        Probabilities: each row sums to 1.

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


def sum_squared_error(y: ArrayLike, t: ArrayLike) -> np.floating[Any]:
    """Return half the sum of ``(y - t)**2``.

    Parameters
    ----------
    y : array_like of real numbers
    t : array_like of real numbers
        A target for each number of y: class indices have to be made one-hot. A 1-D array is a
        batch of one, and a single number the target of all.

    Returns
    -------
    NumPy scalar

    Raises
    ------
    TypeError
        If ``y`` or ``t`` does not hold real numbers.
    ValueError
        If ``t`` does not fit ``y``. The book broadcasts: of class indices (N,), or of y of shape
        (N, 1) and t of shape (N,), it sums differences of what does not belong together.

    Examples
    --------
    >>> float(sum_squared_error([0.25, 0.75], [0, 1]))
    0.0625
    """
    values, targets = _as_numbers("y", y), _as_numbers("t", t)
    shapes = [(1, *a.shape) if a.ndim == 1 else a.shape for a in (values, targets)]
    if shapes[0] != shapes[1] and targets.size != 1:
        raise ValueError(
            f"t has shape {targets.shape}, but y has shape {values.shape}; pass a target for each "
            "number of y, as one-hot rows, np.eye(classes)[t], are of class indices"
        )
    if values.dtype.kind != "f" and targets.dtype.kind != "f":  # whose differences may wrap around
        values = values.astype(np.float64)
    result: np.floating[Any] = 0.5 * np.sum((values - targets) ** 2)
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
    probabilities = _as_rows("y", y)
    samples, classes = probabilities.shape
    of_the_class = probabilities[np.arange(samples), class_indices(t, samples, classes)]
    result: np.floating[Any] = -np.sum(np.log(of_the_class + LOG_OFFSET)) / samples
    return result


def softmax_loss(x: ArrayLike, t: ArrayLike) -> np.floating[Any]:
    """Return ``cross_entropy_error(softmax(x), t)``: the loss of scores x of shape (N, K) or (K,).

    Takes and raises what these two do.

    Examples
    --------
    >>> float(softmax_loss([[1.0, 1.0]], [0]))  # doctest: +ELLIPSIS
    0.693146...
    """
    return cross_entropy_error(softmax(_as_rows("x", x)), t)


def _as_rows(name: str, values: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return values as floats, a row for each sample."""
    rows = _as_floats(name, values)
    if rows.ndim == 1:
        rows = rows[np.newaxis]
    if rows.ndim != 2 or rows.size == 0:
        raise ValueError(
            f"{name} has shape {rows.shape}, but a loss needs one row of numbers a sample, at "
            "least one; pass shape (samples, classes)"
        )
    return rows


def _as_numbers(
    name: str, values: ArrayLike, what: str = "real numbers", remedy: str = ""
) -> NDArray[Any]:
    """Return values as an array of real numbers, of the dtype that they have."""
    remedy = remedy or f"pass np.asarray({name}, dtype=float)"
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise no_array(name, values, remedy) from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {array.dtype}, which does not hold {what}; {remedy}")
    return array


def _as_floats(name: str, values: ArrayLike) -> NDArray[np.floating[Any]]:
    """Return values as a floating-point array; the dtype is kept if it is one already."""
    array = _as_numbers(name, values)
    # Small integers would be computed in float16, and -x wraps around for unsigned ones.
    return array if array.dtype.kind == "f" else array.astype(np.float64)


# Difference quotients -----------------------------------------------------------------------------


def numerical_diff(f: Callable[[Any], Any], x: Any) -> Any:
    """Return ``(f(x + h) - f(x - h)) / (2 h)`` with h = 1e-4: the derivative of f of one variable.

    `fastgrad.differentiate` chooses the step, and says how exact the derivative is;
    `fastgrad.numerical_gradient` takes an f of many variables.

    Parameters
    ----------
    f : callable
        ``f(x) -> number``; or, of an array, an array: then each number is a point by itself.
    x : number or array
        Computed in its own precision: float32 leaves about three digits, as in the book.

    Returns
    -------
    What f returns, as differences of it are: a number, or an array.

    Raises
    ------
    TypeError
        If f is not callable, no step can be added to x, or no difference be taken of what f
        returns.

    Warns
    -----
    RuntimeWarning
        If the step is lost when it is added to an x: the quotient is 0, or coarse, as in the book.

    Examples
    --------
    >>> float(round(numerical_diff(lambda x: 0.01 * x**2 + 0.1 * x, 5), 9))
    0.2
    >>> numerical_diff(np.square, np.array([1.0, 2.0])).round(9)
    array([2., 4.])

    References
    ----------
    K. Saito, *Deep Learning from Scratch*, O'Reilly Japan, 2016, section 4.3.
    """
    require_function(f)
    try:
        x_above, x_below = x + BOOK_STEP, x - BOOK_STEP
    except (TypeError, OverflowError) as error:
        raise TypeError(
            f"x is {reprlib.repr(x)}, to which no step of {BOOK_STEP} can be added; pass a number "
            "or an array of numbers"
        ) from error
    if np.any(np.logical_and(abs(x) < np.inf, np.logical_or(x_above == x, x_below == x))):
        warn_caller(
            f"the step of {BOOK_STEP} is lost when it is added to x, {reprlib.repr(x)}; pass "
            "x.astype(float) if it has fewer digits, or numbers that are not as large"
        )
    above = f(x_above)
    if isinstance(above, np.ndarray):
        above = above.copy()  # f may return the same array every time
    below = f(x_below)
    try:
        return (above - below) / (2 * BOOK_STEP)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"f returned {reprlib.repr(below)}, of which no difference can be taken; let it return "
            "a number, or an array of numbers"
        ) from error


def numerical_gradient_2d(f: Callable[[Array], Any], x: Array) -> Array:
    """Return the gradient of f at each of several points, which are the rows of x.

    `fastgrad.numerical_gradient` takes an x of two axes for a single point. The book has both: this
    one draws its fields of gradients.

    Parameters
    ----------
    f : callable
        ``f(point) -> number``. It is given views of x, which are moved in place.
    x : ndarray of float64, float32 or longdouble, shape (points, variables), or (variables,)
        Bit-identical afterwards.

    Returns
    -------
    ndarray like x
        In row i the gradient at ``x[i]``.

    Raises
    ------
    TypeError, ValueError
        If x has other axes, and as from `fastgrad.numerical_gradient`.

    Warns
    -----
    RuntimeWarning
        As `fastgrad.numerical_gradient` does, point by point.

    Examples
    --------
    >>> numerical_gradient_2d(lambda x: (x**2).sum(), np.array([[3.0, 4.0], [0.0, 2.0]])).round(6)
    array([[6., 8.],
           [0., 4.]])

    References
    ----------
    K. Saito, *Deep Learning from Scratch*, O'Reilly Japan, 2016, section 4.4.
    """
    require_function(f)
    require_floating_array("x", x, BOOK_STEP)
    if x.ndim not in (1, 2):
        raise ValueError(
            f"x has shape {x.shape}, but it holds a point in each row, or is one; pass an array of "
            "shape (points, variables)"
        )
    if x.ndim == 1:
        return numerical_gradient(f, x)
    gradients = np.zeros_like(x)
    for i, point in enumerate(x):
        gradients[i] = numerical_gradient(f, point)
    return gradients


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
    remedy = "pass class indices or one-hot rows as numbers"
    array = _as_numbers("t", t, "class labels", remedy)
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
