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


def gradient(params: Parameters, x: Doubles, labels: NDArray[np.intp], h: float) -> Doubles:
    """Return the central differences of the mean loss for all parameters.

    Moving W1[i, j] by h changes column j of the hidden layer alone, and moving W2[j, k] one logit:
    a loss costs O(N K) instead of a forward pass.

    Parameters
    ----------
    params : Parameters
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
    ones = np.ones((len(x), 1))  # a bias is the weight of an input that is 1
    matrices = (np.append(x, ones, axis=1), a, np.append(z, ones, axis=1), logits)
    columns = [_padded_columns(array) for array in matrices]
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
def find_losses(
    logits: Any, change: Any, weights: Any, labels: Any, shifted: Any, losses: Any
) -> None:
    """Compute -log(softmax(logits + weights change)[label] + 1e-7) for each sample.

    Parameters
    ----------
    logits : float64 array of shape (K, Np)
    change : float64 array of shape (Np,)
        By how much something moves that all logits depend on, sample by sample.
    weights : float64 array of shape (K,)
        How much each logit moves with it.
    labels : int64 array of shape (N,)
    shifted : float64 array of shape (K, Np)
        Scratch, overwritten.
    losses : float64 array of shape (Np,)
        Overwritten; from N on without meaning.
    """
    classes = weights.size
    for q in range(0, losses.size, LANES_PER_VECTOR):
        largest = load(logits, (0, q)) + load(change, q) * weights[0]
        for k in range(classes):
            logit = load(logits, (k, q)) + load(change, q) * weights[k]
            store(shifted, (k, q), logit)
            largest = larger(logit, largest)
        total = repeat(0.0)
        for k in range(classes):
            power = exp(load(shifted, (k, q)) - largest)
            total = total + power
            store(shifted, (k, q), power)
        store(losses, q, total)
    for q in range(labels.size):
        losses[q] = -math.log(shifted[labels[q], q] / losses[q] + LOG_OFFSET)


@inlined
def move_unit(a: Any, z: Any, inputs: Any, shift: float, change: Any) -> None:
    """Compute the change of a hidden unit's output where a weight into it moves by `shift`.

    Parameters
    ----------
    a, z, inputs : float64 arrays of shape (Np,)
        The unit's pre-activation and output, and the input of the moved weight, sample by sample.
    shift : float
    change : float64 array of shape (Np,)
        Overwritten.
    """
    for q in range(0, change.size, LANES_PER_VECTOR):
        moved = load(a, q) + load(inputs, q) * shift
        e = exp(0.0 - magnitude(moved))
        upper = 1.0 / (1.0 + e)
        store(change, q, where_negative(moved, e * upper, upper) - load(z, q))


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
    x : float64 array of shape (I + 1, Np)
        The batch and a column of ones, transposed and padded with zeros, as the next three are.
    a : float64 array of shape (H, Np)
        The hidden layer's pre-activation.
    z : float64 array of shape (H + 1, Np)
        Its output, and ones.
    logits : float64 array of shape (K, Np)
    labels : int64 array of shape (N,)
    h : float
        The step.
    result : float64 array like theta
        Overwritten.
    """
    hidden = a.shape[0]
    classes, width = logits.shape
    samples = labels.size
    border = x.shape[0] * hidden  # between the hidden layer's parameters and the output layer's
    parameters = theta.size
    weights = np.zeros(classes)
    change = np.zeros(width)
    shifted = np.zeros((classes, width))
    losses = np.zeros((2, width))
    for p in range(parameters * task // tasks, parameters * (task + 1) // tasks):
        for side in range(2):
            moved = theta[p] - h if side else theta[p] + h
            shift = moved - theta[p]
            if p < border:
                unit = p % hidden
                move_unit(a[unit], z[unit], x[p // hidden], shift, change)
                first = border + unit * classes
                own = theta[first : first + classes]
                find_losses(logits, change, own, labels, shifted, losses[side])
            else:
                weights[:] = 0.0
                weights[(p - border) % classes] = shift
                outputs = z[(p - border) // classes]
                find_losses(logits, outputs, weights, labels, shifted, losses[side])
        # The losses differ by little: summed sample by sample, little is rounded away.
        result[p] = 0.0
        for q in range(samples):
            result[p] += losses[0, q] - losses[1, q]
        result[p] /= 2.0 * h * samples
