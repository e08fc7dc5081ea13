"""What is the exact gradient? Backpropagation, for comparison only; no engine uses it."""

from typing import Any

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastgrad.network import kernels
from fastgrad.network.forward import Forward, WorkArrays, block_scratch, divide
from fastgrad.network.functions import LOG_OFFSET
from fastgrad.network.jit import Kernel

Array = NDArray[np.float64]


def gradient(w2: Array, run: Forward, labels: NDArray[np.intp], work: WorkArrays) -> Array:
    """Return the derivatives of the mean loss -log(y_t + 1e-7), the 1e-7 included.

    Parameters
    ----------
    w2 : array of shape (H, K)
    run : Forward
        The forward pass at the parameters.
    labels : array of shape (N,)
    work : WorkArrays
        Scratch, kept from call to call.

    Returns
    -------
    array of shape (I H + H + H K + K,), new
    """
    (samples, inputs), hidden, classes = run.x.shape, *w2.shape
    # The sums over the samples are those of the responses, with a single power.
    hidden_errors = work.get("hidden errors", (1, samples, hidden))
    errors = work.get("errors", (1, samples, classes))
    tasks = numba.get_num_threads()
    propagate(
        run.slope, run.p, labels, np.ascontiguousarray(w2.T), tasks, hidden_errors[0], errors[0]
    )
    tasks, block = divide(inputs)
    none = block_scratch(0, work, np.float32)
    result = np.empty(inputs * hidden + hidden + hidden * classes + classes)
    kernels.sum_responses(
        run.x, run.z, hidden_errors, errors, run.sparse, block,
        *block_scratch(tasks, work), *none, result,
    )  # fmt: skip
    return result


def _propagate(
    slope: Any, p: Any, labels: Any, w2_rows: Any, tasks: int, hidden_errors: Any, errors: Any
) -> None:
    """Compute the mean loss's derivatives by each pre-activation.

        errors[n, k] = p_t / (p_t + 1e-7) (p_k - [k = t]) / N
        hidden_errors[n, j] = z (1 - z) sum over k of errors[n, k] W2[j, k]

    Parameters
    ----------
    slope : float64 array of shape (N, H)
        z (1 - z).
    p : float64 array of shape (N, K)
    labels : integer array of shape (N,)
    w2_rows : float64 array of shape (K, H)
        W2 transposed.
    tasks : int
        How many parts the samples are divided into.
    hidden_errors, errors : float64 arrays of shape (N, H) and (N, K)
        Overwritten.
    """
    samples, hidden = slope.shape
    classes = p.shape[1]
    for task in prange(tasks):
        for n in range(samples * task // tasks, samples * (task + 1) // tasks):
            label = labels[n]
            scale = p[n, label] / (p[n, label] + LOG_OFFSET) / samples
            for j in range(hidden):
                hidden_errors[n, j] = 0.0
            others = 0.0  # 1 - p_t, without cancellation
            for k in range(classes):
                if k != label:
                    others += p[n, k]
            for k in range(classes):
                error = scale * (-others if k == label else p[n, k])
                errors[n, k] = error
                for j in range(hidden):
                    hidden_errors[n, j] += error * w2_rows[k, j]
            for j in range(hidden):
                hidden_errors[n, j] *= slope[n, j]


propagate = Kernel(_propagate)
