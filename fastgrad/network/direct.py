"""What is the gradient by weight perturbation? Every parameter moved, what it touches recomputed.

Nothing is assumed of the loss but what the net computes: this is the engine for steps and inputs
that are too large for odd responses, and the judge of the faster one.
"""

import math
from typing import Any

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastgrad.network.elementary import exp
from fastgrad.network.functions import LOG_OFFSET, sigmoid
from fastgrad.network.jit import Kernel, inlined
from fastgrad.network.kernels import find_nonzeros, split

Array = NDArray[np.float64]

TASKS_A_THREAD = 8  # small tasks keep all threads busy to the end


def gradient(
    theta: Array, x: Array, labels: NDArray[np.intp], h: float, hidden: int, classes: int
) -> Array:
    """Return the central differences of the mean loss for all parameters.

    Moving W1[i, j] by h changes column j of the hidden layer alone, and moving W2[j, k] one logit:
    a loss costs O(N K) instead of a forward pass. Samples whose x[n, i] is zero keep their loss and
    drop out of the difference.

    Parameters
    ----------
    theta : array of shape (I H + H + H K + K,)
        The flat parameter buffer; only copies of it are perturbed.
    x : array of shape (N, I)
    labels : array of shape (N,)
    h : float
        The step.
    hidden, classes : int
        H and K.

    Returns
    -------
    array like theta
    """
    w1, b1, w2, b2 = split(theta, x.shape[1], hidden, classes)
    a = x @ w1 + b1
    z = sigmoid(a)
    logits = z @ w2 + b2
    columns = [np.ascontiguousarray(array.T) for array in (a, z, logits)]
    result = np.empty_like(theta)
    tasks = TASKS_A_THREAD * numba.get_num_threads()
    perturb_all(theta, x, *columns, labels, h, tasks, result)
    return result


def _find_losses(logits: Any, labels: Any, count: int, losses: Any) -> None:
    """Compute -log(softmax(logits)[label] + 1e-7) of `count` samples.

    Parameters
    ----------
    logits : float64 array of shape (K, at least count)
        Used up.
    labels : integer array of shape (at least count,)
    losses : float64 array of shape (at least count,)
        Overwritten.
    """
    classes = logits.shape[0]
    largest = losses
    for q in range(count):
        largest[q] = logits[0, q]
    for k in range(1, classes):
        for q in range(count):
            # a nan must not lose against a number
            largest[q] = largest[q] if largest[q] > logits[k, q] else logits[k, q]
    for k in range(classes):
        for q in range(count):
            logits[k, q] = exp(logits[k, q] - largest[q])
    for q in range(count):
        total = 0.0
        for k in range(classes):
            total += logits[k, q]
        losses[q] = -math.log(logits[labels[q], q] / total + LOG_OFFSET)


def _shift_unit(
    a: Any, z: Any, scales: Any, shift: float, logits: Any, weights: Any, count: int, shifted: Any
) -> None:
    """Compute the logits after a hidden unit's pre-activation moves by scales[q] * shift.

    Parameters
    ----------
    a, z, scales : float64 arrays of shape (at least count,)
        The unit's pre-activation and output, and the input of the moved weight, sample by sample.
    shift : float
        How far the weight moves.
    logits : float64 array of shape (K, at least count)
    weights : float64 array of shape (K,)
        From the unit to the logits.
    shifted : float64 array of shape (K, at least count)
        Overwritten.
    """
    classes = logits.shape[0]
    for q in range(count):
        moved = a[q] + scales[q] * shift
        e = exp(-abs(moved))
        larger = 1.0 / (1.0 + e)
        change = (e * larger if moved < 0.0 else larger) - z[q]
        for k in range(classes):
            shifted[k, q] = logits[k, q] + change * weights[k]


def _shift_logit(scales: Any, shift: float, logits: Any, k: int, count: int, shifted: Any) -> None:
    """Compute the logits after logit k moves by scales[q] * shift; arguments as `_shift_unit`."""
    for row in range(logits.shape[0]):
        for q in range(count):
            shifted[row, q] = logits[row, q]
    for q in range(count):
        shifted[k, q] += scales[q] * shift


find_losses = inlined(_find_losses)
shift_unit = inlined(_shift_unit)
shift_logit = inlined(_shift_logit)


def _gather(row: Any, where: Any, count: int, gathered: Any) -> None:
    """Copy the entries of a row at the first `count` indices."""
    for q in range(count):
        gathered[q] = row[where[q]]


gather = inlined(_gather)


def _perturb_all(
    theta: Any, x: Any, a: Any, z: Any, logits: Any, labels: Any, h: float, tasks: int, result: Any
) -> None:
    """Move every parameter by +-h, one after the other, and take the difference of the losses.

    Parameters
    ----------
    theta : float64 array of shape (I H + H + H K + K,)
        Each task perturbs a copy of its own, in place, and puts every value back.
    x : float64 array of shape (N, I)
    a, z : float64 arrays of shape (H, N)
        The hidden layer's pre-activation and output, transposed.
    logits : float64 array of shape (K, N)
    labels : integer array of shape (N,)
    h : float
        The step.
    tasks : int
        How many parts the work is cut into.
    result : float64 array like theta
        Overwritten.
    """
    samples, inputs = x.shape
    hidden = a.shape[0]
    classes = logits.shape[0]
    for task in prange(tasks):
        buffer = theta.copy()
        w2 = split(buffer, inputs, hidden, classes)[2]
        ones = np.ones(samples)
        scales = np.empty(samples)
        where = np.empty(samples, np.intp)
        some_a = np.empty(samples)
        some_z = np.empty(samples)
        some_labels = np.empty(samples, np.intp)
        some_logits = np.empty((classes, samples))
        shifted = np.empty((classes, samples))
        raised = np.empty(samples)
        lowered = np.empty(samples)

        # W1 row by row; row I is b1, whose input is 1.
        for i in range((inputs + 1) * task // tasks, (inputs + 1) * (task + 1) // tasks):
            count = find_nonzeros(x[:, i] if i < inputs else ones, scales, where)
            gather(labels, where, count, some_labels)
            for k in range(classes):
                gather(logits[k], where, count, some_logits[k])
            for j in range(hidden):
                gather(a[j], where, count, some_a)
                gather(z[j], where, count, some_z)
                p = i * hidden + j
                saved = buffer[p]
                for sign in (1.0, -1.0):
                    buffer[p] = saved + sign * h
                    shift = buffer[p] - saved
                    shift_unit(some_a, some_z, scales, shift, some_logits, w2[j], count, shifted)
                    find_losses(shifted, some_labels, count, raised if sign > 0.0 else lowered)
                buffer[p] = saved
                result[p] = difference(raised, lowered, count) / (2.0 * h * samples)

        # W2 row by row; row H is b2, whose input is 1.
        for j in range((hidden + 1) * task // tasks, (hidden + 1) * (task + 1) // tasks):
            unit = z[j] if j < hidden else ones
            for k in range(classes):
                p = inputs * hidden + hidden + j * classes + k
                saved = buffer[p]
                for sign in (1.0, -1.0):
                    buffer[p] = saved + sign * h
                    shift = buffer[p] - saved
                    shift_logit(unit, shift, logits, k, samples, shifted)
                    find_losses(shifted, labels, samples, raised if sign > 0.0 else lowered)
                buffer[p] = saved
                result[p] = difference(raised, lowered, samples) / (2.0 * h * samples)


def _difference(raised: Any, lowered: Any, count: int) -> float:
    """Sum the differences sample by sample: they are small, so little is rounded away."""
    total = 0.0
    for q in range(count):
        total += raised[q] - lowered[q]
    return total


difference = inlined(_difference)
perturb_all = Kernel(_perturb_all)
