"""What is the gradient by odd responses? A few shifts a unit, then sums over the samples."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from fastgrad.network import kernels, products
from fastgrad.network.forward import Forward
from fastgrad.network.jit import tasks_for
from fastgrad.network.survey import survey
from fastgrad.network.vectors import LANES
from fastgrad.response import first_in_float32, interpolation, plan_responses

Array = NDArray[np.float64]


def gradient(run: Forward, labels: NDArray[np.int64], h: float, largest: float) -> Array | None:
    """Compute the central differences of the mean loss for all parameters, if that is certain.

    Parameter W[i, j] shifts unit j of sample n by +-h x[n, i], so its difference quotient is
    ``1 / (2 h N) sum over n of R[n, j](h x[n, i])`` with the odd response R of
    `fastgrad.response`, a sum of few odd powers. A bias is the weight of an input that is 1.

    Parameters
    ----------
    run : Forward
        The forward pass at the parameters.
    labels : array of shape (N,)
    h : float
        The step.
    largest : float
        The largest magnitude in x.

    Returns
    -------
    array of shape (I H + H + H K + K,), or None
        None if no plan is certain to reach full precision; `fastgrad.response.plan_responses` holds
        the proof for those that are.
    """
    weights = run.wide[:-1]
    spread = float((weights.max(axis=0) - weights.min(axis=0)).max())
    reach = max(1.0, largest)  # the largest input of a weight or a bias
    plan = plan_responses(h * reach, spread)
    if plan is None:
        return None
    terms = plan.terms
    growths, scales = _constants(terms, h, reach, len(run.x))
    tasks = tasks_for(run.z.size * (len(run.wide) * plan.factors.size + 50 * terms) // LANES)
    scratch = run.work.get("responses", (tasks, terms + plan.factors.size, LANES))
    c = run.work.get("c", (terms, *run.z.shape))
    d = run.work.get("d", (terms, *run.p.shape))
    kernels.respond(
        tasks, run.z, run.slope, run.p, labels, run.wide,
        plan.points, plan.interpolation, growths, plan.factors, scales, scratch, c, d,
    )  # fmt: skip
    return run.sum_over_samples(c, d, _exact_terms(run, c, reach))


def _exact_terms(run: Forward, c: Array, reach: float) -> int:
    """Choose how many powers of x are summed in float64; float32 suffices for those after them."""
    if run.entries is not None or run.x.shape[1] * c[0].size < products.LONG:
        return len(c)
    magnitudes = [survey(coefficients)[0] for coefficients in c]
    return first_in_float32(magnitudes, reach, products.LONGEST_RUN)


@lru_cache
def _constants(terms: int, h: float, reach: float, samples: int) -> tuple[Array, Array]:
    """Return e^s - 1 and e^-s - 1 at the shifts, and what scales the coefficients.

    Returns
    -------
    growths : array of shape (2, 2, terms)
        For the hidden layer, whose largest shift is h * reach, and the output layer, where it is h.
    scales : array of shape (2, terms)
        1 / (2 h N reach^(2m+1)), and the same with reach 1.
    """
    points, _ = interpolation(terms)
    reaches = np.array([[reach], [1.0]])
    shifts = h * reaches * points
    growths = np.stack([np.expm1(shifts), np.expm1(-shifts)], axis=1)
    powers = 2.0 * np.arange(terms) + 1
    return growths, reaches**-powers / (2 * h * samples)
