"""Backpropagation, the exact gradient: for comparison only, no engine uses it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.kernel import kernel, tasks_for
from fastgrad.jit.vectors import LANES_PER_VECTOR, load, repeat, store
from fastgrad.network.forward import Forward
from fastgrad.network.functions import LOG_OFFSET
from fastgrad.typing import Doubles


def gradient(run: Forward, labels: NDArray[np.int64]) -> Doubles:
    """Compute the derivatives of the mean loss -log(y_t + 1e-7), the 1e-7 included.

    Parameters
    ----------
    run : Forward
        The forward pass at the parameters.
    labels : array of shape (N,)

    Returns
    -------
    array of shape (I H + H + H K + K,)
    """
    # The sums over the samples are those of the responses, with a single power.
    hidden_errors = run.work.get("hidden errors", (1, *run.z.shape))
    errors = run.work.get("errors", (1, *run.p.shape))
    tasks = tasks_for(hidden_errors.size * len(run.w2_transposed) // LANES_PER_VECTOR)
    propagate(
        tasks, run.sigmoid_slope, run.p, labels, run.w2_transposed, hidden_errors[0], errors[0]
    )
    return run.sum_over_samples(hidden_errors, errors)


@kernel(
    "(float64[:, ::1], float64[:, ::1], int64[::1], float64[:, ::1], "
    "float64[:, ::1], float64[:, ::1])"
)
def propagate(
    task: int,
    tasks: int,
    sigmoid_slope: Any,
    p: Any,
    labels: Any,
    w2_transposed: Any,
    hidden_errors: Any,
    errors: Any,
) -> None:
    """Compute the mean loss's derivatives by each pre-activation.

        errors[n, k] = p_t / (p_t + 1e-7) (p_k - [k = t]) / N
        hidden_errors[n, j] = z (1 - z) sum over k of errors[n, k] W2[j, k]

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the samples are divided into.
    sigmoid_slope : float64 array of shape (N, Hp)
        z (1 - z).
    p : float64 array of shape (N, Kp)
    labels : int64 array of shape (N,)
    w2_transposed : float64 array of shape (K + 1, Hp)
        W2 transposed, and another row.
    hidden_errors, errors : float64 arrays of shape (N, Hp) and (N, Kp)
        Overwritten, but for the padding of errors.
    """
    samples, hidden = sigmoid_slope.shape
    classes = w2_transposed.shape[0] - 1
    for n in range(samples * task // tasks, samples * (task + 1) // tasks):
        label = labels[n]
        others = 0.0  # 1 - p_t, without cancellation
        for k in range(classes):
            if k != label:
                others += p[n, k]
        scale = p[n, label] / (p[n, label] + LOG_OFFSET) / samples
        for k in range(classes):
            errors[n, k] = scale * (-others if k == label else p[n, k])
        for j in range(0, hidden, LANES_PER_VECTOR):
            error = repeat(0.0)
            for k in range(classes):
                error = error + errors[n, k] * load(w2_transposed, (k, j))
            store(hidden_errors, (n, j), error * load(sigmoid_slope, (n, j)))
