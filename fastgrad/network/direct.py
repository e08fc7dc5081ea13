"""The engine 'direct': every parameter is moved, and what it touches is computed again.

Nothing is assumed of the loss but what the net computes: this is the engine for steps and inputs
that are too large for odd responses, and the judge of the faster one.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.concurrency import thread_count
from fastgrad.jit.kernel import inlined, kernel
from fastgrad.jit.vectors import (
    LANES_PER_VECTOR,
    exp,
    larger,
    load,
    magnitude,
    padded,
    repeat,
    store,
    where_negative,
)
from fastgrad.network.functions import LOG_OFFSET, sigmoid
from fastgrad.network.parameters import Parameters
from fastgrad.typing import Doubles

TASKS_PER_THREAD = 8  # small tasks keep all threads busy to the end


def gradient(params: Parameters, x: Doubles, labels: NDArray[np.int64], h: float) -> Doubles:
    """Return the central differences of the mean loss for all parameters.

    Moving W1[i, j] by h changes column j of the hidden layer alone, and moving W2[j, k] one logit:
    a loss costs O(N K) instead of a forward pass. Samples whose x[n, i] is zero keep their loss and
    drop out of the difference.

    Parameters
    ----------
    params : Parameters
        Only copies of their buffer are perturbed.
    x : array of shape (N, I)
    labels : array of shape (N,)
    h : float
        The step.

    Returns
    -------
    array of shape (I H + H + H K + K,)
    """
    w1, b1, w2, b2 = params.values()
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows shows in the quotients
        a = x @ w1 + b1
        z = sigmoid(a)
        logits = z @ w2 + b2
    columns = [_padded_columns(array) for array in (x, a, z, logits)]
    result = np.empty_like(params.buffer)
    threads = thread_count()
    tasks = TASKS_PER_THREAD * threads if threads > 1 else 1
    perturb_all(tasks, params.buffer, *columns, labels, h, result)
    return result


def _padded_columns(array: Any) -> Doubles:
    """Return the columns as rows, padded with zeros to whole vectors."""
    columns = np.zeros((array.shape[1], padded(len(array))))
    columns[:, : len(array)] = array.T
    return columns


@inlined
def find_losses(logits: Any, labels: Any, count: int, losses: Any) -> None:
    """Compute -log(softmax(logits)[label] + 1e-7) for `count` samples.

    Parameters
    ----------
    logits : float64 array of shape (K, Np)
        Used up.
    labels : int64 array of shape (at least count,)
    losses : float64 array of shape (Np,)
        Overwritten; from `count` on without meaning.
    """
    classes = logits.shape[0]
    for q in range(0, count, LANES_PER_VECTOR):
        largest = load(logits, (0, q))
        for k in range(1, classes):
            largest = larger(load(logits, (k, q)), largest)
        total = repeat(0.0)
        for k in range(classes):
            power = exp(load(logits, (k, q)) - largest)
            total = total + power
            store(logits, (k, q), power)
        store(losses, q, total)
    for q in range(count):
        losses[q] = -math.log(logits[labels[q], q] / losses[q] + LOG_OFFSET)


@inlined
def shift_unit(
    a: Any, z: Any, scales: Any, shift: float, logits: Any, weights: Any, count: int, shifted: Any
) -> None:
    """Compute the logits after a hidden unit's pre-activation moves by scales[q] * shift.

    Parameters
    ----------
    a, z, scales : float64 arrays of shape (Np,)
        The unit's pre-activation and output, and the input of the moved weight, sample by sample.
    shift : float
        How far the weight moves.
    logits : float64 array of shape (K, Np)
    weights : float64 array of shape (K,)
        From the unit to the logits.
    count : int
        How many samples there are.
    shifted : float64 array of shape (K, Np)
        Overwritten.
    """
    for q in range(0, count, LANES_PER_VECTOR):
        moved = load(a, q) + load(scales, q) * shift
        e = exp(0.0 - magnitude(moved))
        upper = 1.0 / (1.0 + e)
        change = where_negative(moved, e * upper, upper) - load(z, q)
        for k in range(weights.size):
            store(shifted, (k, q), load(logits, (k, q)) + change * weights[k])


@inlined
def shift_logit(scales: Any, shift: float, logits: Any, k: int, count: int, shifted: Any) -> None:
    """Compute the logits after logit k moves by scales[q] * shift; arguments as `shift_unit`."""
    for row in range(logits.shape[0]):
        factor = shift if row == k else 0.0
        for q in range(0, count, LANES_PER_VECTOR):
            store(shifted, (row, q), load(logits, (row, q)) + load(scales, q) * factor)


@inlined
def difference(losses: Any, count: int) -> float:
    """Sum losses[0] - losses[1] sample by sample: small numbers, so little is rounded away."""
    result = 0.0
    for q in range(count):
        result += losses[0, q] - losses[1, q]
    return result


@inlined
def gather(row: Any, where: Any, count: int, gathered: Any) -> None:
    """Copy the entries of a row at the first `count` indices."""
    for q in range(count):
        gathered[q] = row[where[q]]


@kernel(
    "(float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], "
    "int64[::1], float64, float64[::1])"
)
def perturb_all(
    task: int,
    tasks: int,
    theta: Any,
    x: Any,
    a: Any,
    z: Any,
    logits: Any,
    labels: Any,
    h: float,
    result: Any,
) -> None:
    """Move every parameter by +-h, one after the other, and take the difference of the losses.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the work is cut into.
    theta : float64 array of shape (I H + H + H K + K,)
        Each task perturbs a copy of its own, in place, and puts every value back.
    x : float64 array of shape (I, Np)
        The batch, transposed and padded with zeros, as the next three are.
    a, z : float64 arrays of shape (H, Np)
        The hidden layer's pre-activation and output.
    logits : float64 array of shape (K, Np)
    labels : int64 array of shape (N,)
    h : float
        The step.
    result : float64 array like theta
        Overwritten.
    """
    samples = labels.size
    inputs = x.shape[0]
    hidden = a.shape[0]
    classes = logits.shape[0]
    width = logits.shape[1]
    buffer = theta.copy()
    ones = np.ones(width)
    where = np.empty(width, np.int64)
    scales = np.zeros(width)
    some_a = np.zeros(width)
    some_z = np.zeros(width)
    some_labels = np.zeros(width, np.int64)
    some_logits = np.zeros((classes, width))
    shifted = np.zeros((classes, width))
    losses = np.zeros((2, width))

    # W1 row by row; row I is b1, whose input is 1.
    for i in range((inputs + 1) * task // tasks, (inputs + 1) * (task + 1) // tasks):
        inputs_i = x[i] if i < inputs else ones
        count = 0
        for n in range(samples):
            where[count] = n
            count += inputs_i[n] != 0.0
        gather(inputs_i, where, count, scales)
        gather(labels, where, count, some_labels)
        for k in range(classes):
            gather(logits[k], where, count, some_logits[k])
        for j in range(hidden):
            gather(a[j], where, count, some_a)
            gather(z[j], where, count, some_z)
            first = (inputs + 1) * hidden + j * classes
            weights = buffer[first : first + classes]
            p = i * hidden + j
            saved = buffer[p]
            for side in range(2):
                buffer[p] = saved - h if side else saved + h
                shift = buffer[p] - saved
                shift_unit(some_a, some_z, scales, shift, some_logits, weights, count, shifted)
                find_losses(shifted, some_labels, count, losses[side])
            buffer[p] = saved
            result[p] = difference(losses, count) / (2.0 * h * samples)

    # W2 row by row; row H is b2, whose input is 1.
    for j in range((hidden + 1) * task // tasks, (hidden + 1) * (task + 1) // tasks):
        outputs = z[j] if j < hidden else ones
        for k in range(classes):
            p = (inputs + 1) * hidden + j * classes + k
            saved = buffer[p]
            for side in range(2):
                buffer[p] = saved - h if side else saved + h
                shift_logit(outputs, buffer[p] - saved, logits, k, samples, shifted)
                find_losses(shifted, labels, samples, losses[side])
            buffer[p] = saved
            result[p] = difference(losses, samples) / (2.0 * h * samples)
