"""What is the gradient by odd responses? A few shifts a unit, then sums over the samples."""

import numba
import numpy as np
from numpy.typing import NDArray

from fastgrad.network import kernels
from fastgrad.network.forward import Forward, WorkArrays, block_scratch, divide
from fastgrad.network.survey import widest_row
from fastgrad.response import plan_responses

Array = NDArray[np.float64]


def gradient(
    w2: Array, run: Forward, labels: NDArray[np.intp], h: float, largest: float, work: WorkArrays
) -> Array | None:
    """Return the central differences of the mean loss for all parameters, or None.

    Parameter W[i, j] shifts unit j of sample n by +-h x[n, i], so its difference quotient is
    ``1 / (2 h N) sum over n of R[n, j](h x[n, i])`` with the odd response R of
    `fastgrad.response`, a sum of few odd powers. A bias is the weight of an input that is 1.

    Parameters
    ----------
    w2 : array of shape (H, K)
    run : Forward
        The forward pass at the parameters.
    labels : array of shape (N,)
    h : float
        The step.
    largest : float
        The largest magnitude in x.
    work : WorkArrays
        Scratch, kept from call to call.

    Returns
    -------
    array of shape (I H + H + H K + K,), new, or None
        None if no plan is certain to reach full precision; `fastgrad.response.plan_responses`
        holds the proof for those that are.
    """
    reach = max(1.0, largest)  # the largest input of a weight or a bias
    plan = plan_responses(h * reach, widest_row(w2))
    if plan is None:
        return None
    (samples, inputs), hidden, classes = run.x.shape, *w2.shape
    terms = plan.terms
    shifts = h * plan.points * np.array([[reach], [1.0]])
    growths = np.stack([np.expm1(shifts), np.expm1(-shifts)], axis=1)
    powers = 2 * np.arange(terms) + 1
    scales = np.array([[reach], [1.0]]) ** -powers / (2 * h * samples)

    c = work.get("c", (terms, samples, hidden))
    d = work.get("d", (terms, samples, classes))
    scratch = work.get(
        "responses",
        (numba.get_num_threads(), 5 + terms + plan.series, max(hidden, classes)),
    )
    kernels.respond(
        run.z, run.slope, run.p, labels, np.ascontiguousarray(w2.T),
        plan.points, plan.interpolation, growths, scales, scratch, c, d,
    )  # fmt: skip

    tasks, block = divide(inputs)
    singles = block_scratch(tasks if plan.single else 0, work, np.float32)
    result = np.empty(inputs * hidden + hidden + hidden * classes + classes)
    kernels.sum_responses(
        run.x, run.z, c, d, run.sparse, block, *block_scratch(tasks, work), *singles, result
    )
    return result
