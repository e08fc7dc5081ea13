"""The engines: "response", the loss at a few shifts of each unit, and "direct", of each parameter.

Shifting one pre-activation of one sample by s changes that sample's loss l; its *odd response* is

    R(s) = l(a + s) - l(a - s) = r_0 T_1(s/S) + r_1 T_3(s/S) + ... + r_{T-1} T_{2T-1}(s/S)

for |s| <= S, with Chebyshev polynomials and up to a truncation error. R is measured at T shifts, at
the positive zeros of T_{2T}, and the r_m are interpolated. The central difference of every weight
into the unit is then a sum over samples of R at s = h x.

`plan_responses` chooses T by a proven bound on the error, `first_in_integers` how exactly to sum.

"direct" moves every parameter, and computes again what it touches.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from math import factorial, inf, pi
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit import matrix_products
from fastgrad.jit.concurrency import thread_count
from fastgrad.jit.kernel import (
    LANES_PER_VECTOR,
    exp,
    inlined,
    kernel,
    larger,
    load,
    magnitude,
    padded,
    repeat,
    store,
    where_negative,
)
from fastgrad.jit.matrix_products import is_sparse, magnitude_and_nonzeros
from fastgrad.network.functions import LOG_OFFSET, sigmoid
from fastgrad.network.parameters import Parameters, aligned
from fastgrad.network.propagation import Forward, Shifts, run_forward
from fastgrad.typing import Doubles

MAX_TERMS = 6

TOLERANCE = 2e-13

# Outputs of hidden units that are computed at a time, those of a block of samples: what is kept for
# each takes some ten megabytes, whatever the batch.
BLOCK_OUTPUTS = 2**18


def gradient(
    params: Parameters,
    x: Doubles,
    nonzeros: int,
    labels: NDArray[np.intp],
    h: float,
    largest: float,
) -> tuple[Doubles, float] | None:
    """Compute the central differences of the mean loss for all parameters, if that is certain.

    Parameter W[i, j] shifts unit j of sample n by +-h x[n, i], so its difference quotient is
    ``1 / (2 h N) sum over n of R[n, j](h x[n, i])`` with the odd response R, a sum of few odd
    polynomials (see `plan_responses`). A bias is the weight of an input that is 1.

    Parameters
    ----------
    params : Parameters
        W1, b1, W2, b2.
    x : array of shape (N, I), C-contiguous
    nonzeros : int
        How many entries of x are not zero.
    labels : array of shape (N,)
    h : float
        The step.
    largest : float
        The largest magnitude in x.

    Returns
    -------
    (array of shape (I H + H + H K + K,), float), or None
        With a bound on the magnitudes in it; nan if a response is. None if no plan is certain to
        reach full precision; `plan_responses` holds the proof for those that are.
    """
    weights = params["W2"]
    of_class = np.ascontiguousarray(weights.T)  # whose columns are compared faster than rows
    spread = float((of_class.max(axis=0) - of_class.min(axis=0)).max())
    reach = max(1.0, largest)  # the largest input of a weight or a bias
    plan = plan_responses(h * reach, spread)
    if plan is None:
        return None
    samples = len(x)
    shifts = Shifts(*plan, *_constants(plan.terms, h, reach, samples))
    result = aligned(params.buffer.size)
    bound = 0.0
    blocks = min(samples, -(-samples * len(weights) // BLOCK_OUTPUTS))
    for block in range(blocks):
        rows = slice(samples * block // blocks, samples * (block + 1) // blocks)
        run = run_forward(params, x[rows], nonzeros // blocks, labels[rows], shifts)
        magnitudes = [magnitude_and_nonzeros(coefficients)[0] for coefficients in run.c]
        exact = _exact_terms(run, reach, magnitudes)
        run.sum_over_samples(result, run.c, run.d, reach, exact, block > 0)
        # Polynomials are at most 1, but the first of x: at most reach. Rounding makes less of 2.
        largest_d, _ = magnitude_and_nonzeros(run.d)
        bound += 2 * len(run.x) * (reach * sum(magnitudes) + len(run.d) * largest_d)
        del run  # whose memory the next block can have
    return result, bound


@lru_cache
def _constants(terms: int, h: float, reach: float, samples: int) -> tuple[Doubles, Doubles]:
    """Return e^s - 1 and e^-s - 1 at the shifts, and what scales the coefficients.

    Returns
    -------
    growths : array of shape (2, 2, terms)
        For the hidden layer, whose largest shift is h * reach, and the output layer, where it is h.
    scales : array of shape (2, terms)
        1 / (2 h N), and for the first term of the hidden layer, which is a multiple of x itself,
        1 / (2 h N reach).
    """
    points, _ = interpolation(terms)
    reaches = np.array([[reach], [1.0]])
    shifts = h * reaches * points
    growths = np.stack([np.expm1(shifts), np.expm1(-shifts)], axis=1)
    scales = np.full((2, terms), 1 / (2 * h * samples))
    scales[0, 0] /= reach
    return growths, scales


def _exact_terms(run: Forward, reach: float, magnitudes: Sequence[float]) -> int:
    """Choose how many terms are summed in float64; integers suffice for those after them.

    Parameters
    ----------
    run : Forward
    reach : float
    magnitudes : sequence of float
        The largest magnitude of each coefficient in ``run.c``.
    """
    products = run.x.shape[1] * run.c[0].size
    if is_sparse(run.x, run.nonzeros) or products < matrix_products.MIN_INTEGER_PRODUCTS:
        return len(run.c)
    return first_in_integers(reach * magnitudes[0], magnitudes[1:])


# Plans --------------------------------------------------------------------------------------------


class InterpolationPlan(NamedTuple):
    """The shifts at which odd responses are measured, and the matrix that interpolates them.

    Attributes
    ----------
    points : array of shape (terms,)
        The shifts as fractions of the largest, S.
    interpolation : array of shape (terms, terms)
        r_m = sum over i of interpolation[m, i] R(points[i] S).
    factors : array of shape (4, 8 or 12,)
        1/r! for r = 1, 2, ...: the terms of the series of e^u - 1 that the shifted logits need.
    is_small : bool
        Whether all that moves does so by so little that `log_ratio` and `inverse` are exact with
        few terms.
    """

    points: Doubles
    interpolation: Doubles
    factors: Doubles
    is_small: bool

    @property
    def terms(self) -> int:
        """T, the number of odd powers kept."""
        return len(self.points)


def plan_responses(shift: float, spread: float) -> InterpolationPlan | None:
    """Choose the fewest terms that provably reach full precision, or None where none do.

    The bound holds for a sigmoid unit that feeds a softmax with cross entropy -log(y_t + 1e-7).
    Its loss is an analytic function of a complex shift s for |s| <= rho = (pi/4) min(1, 1/(0.325
    spread)): there |sigma'| <= 0.325, so no logit moves by more than pi/4 against the label's, and
    the softmax's denominator, relative to the label's logit, keeps a real part above 0.32. With the
    unit's natural scale

        Lambda = spread (1 - p_t) p_t / (p_t + 1e-7) z (1 - z)

    the loss's derivative stays below 47 Lambda, so R(s)/s, a function of s^2, below 94 Lambda.
    Interpolating that at T Chebyshev points of s^2 leaves an error of at most

        230 Lambda (S / (2 rho))^(2T)

    The bound is crude, far above the errors that occur. A logit of the output layer,
    shifted by itself, obeys it with spread 1.

    Parameters
    ----------
    shift : float
        S, the largest shift of a pre-activation.
    spread : float
        The largest difference between two weights that leave the same unit.

    Returns
    -------
    InterpolationPlan or None
        None if shift or spread is not finite, or too large for `MAX_TERMS` terms.

    Examples
    --------
    >>> plan_responses(1e-4, 0.06).terms   # the book's step, pixels up to 1
    2
    >>> plan_responses(255e-4, 0.06).terms  # pixels up to 255
    5
    >>> plan_responses(2.55, 5.0) is None
    True
    """
    half = shift * max(1.0, 0.325 * spread) / (pi / 2)  # S / (2 rho)
    if not half < 1:  # nor nan, nor so large that its powers overflow
        return None
    moved = 0.26 * shift * spread  # the most that a logit moves; |sigma'| <= 0.26 for real shifts
    for terms in range(2, MAX_TERMS + 1):
        if not 230 * half ** (2 * terms) <= TOLERANCE:
            continue
        for series in (4, 8, 12):
            if moved**series / factorial(series + 1) <= 2**-56:
                is_small = shift <= 1e-3 and moved <= 5e-4
                return InterpolationPlan(*interpolation(terms), _factors(series), is_small)
    return None


@lru_cache
def _factors(count: int) -> Doubles:
    """Return 1/r! for r = 1 to count."""
    return np.array([1 / factorial(r) for r in range(1, count + 1)])


@lru_cache
def interpolation(terms: int) -> tuple[Doubles, Doubles]:
    """Return the positive zeros of T_2T, and the matrix 2/T T_(2m+1)(zero_i).

    At these points the odd Chebyshev polynomials are orthogonal: the matrix is the inverse of that
    of their values, and none of its entries is large.
    """
    odd = 2 * np.arange(terms) + 1
    return np.cos(odd * pi / (4 * terms)), 2 / terms * np.cos(np.outer(odd, odd) * pi / (4 * terms))


def first_in_integers(largest: float, magnitudes: Sequence[float]) -> int:
    """Choose the first term whose sum over the samples is certain to be exact enough in integers.

    Term m sums T_(2m+1)(x / reach) c[m] over N samples. The polynomial, at most 1 in magnitude, is
    rounded by at most 1/2 of 1 / `MAX_INTEGER`, and c[m] by 1/2 of its largest magnitude over that;
    the integers are summed exactly. So the sum is moved by at most

        N |c[m]| 1.01 / `MAX_INTEGER`.

    All terms together may not exceed `TOLERANCE` of N reach |c[0]|. The |c[m]| are the largest
    magnitudes that were measured: nothing is assumed of the coefficients.

    Parameters
    ----------
    largest : float
        reach |c[0]|; may be nan or inf, as the next.
    magnitudes : sequence of float
        The largest magnitude of each coefficient from c[1] on.

    Returns
    -------
    int
        At least 1; one more than there are magnitudes if none is certain.

    Examples
    --------
    >>> first_in_integers(1e-3, [1e-14])
    1
    >>> first_in_integers(1e-3, [1e-10, 1e-16])
    2
    """
    allowed = TOLERANCE * largest
    for m in range(len(magnitudes), 0, -1):
        allowed -= 1.01 / matrix_products.MAX_INTEGER * magnitudes[m - 1]
        if not (0 <= allowed < inf and (magnitudes[m - 1] == 0 or magnitudes[m - 1] > 1e-290)):
            return m + 1
    return 1


# The engine "direct" ------------------------------------------------------------------------------

TASKS_PER_THREAD = 8  # small tasks keep all threads busy to the end


def direct_gradient(params: Parameters, x: Doubles, labels: NDArray[np.intp], h: float) -> Doubles:
    """Return the central differences of the mean loss for all parameters, each of which is moved.

    Nothing is assumed of the loss but what the net computes: this serves steps and inputs that are
    too large for odd responses, and judges the faster engine. Moving W1[i, j] by h changes column j
    of the hidden layer alone, and moving W2[j, k] one logit: a loss costs O(N K) instead of a
    forward pass.

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
