"""The engine "response": the loss at a few shifts of each unit, summed over the samples.

Shifting one pre-activation of one sample by s changes that sample's loss l; its *odd response* is

    R(s) = l(a + s) - l(a - s) = r_0 T_1(s/S) + r_1 T_3(s/S) + ... + r_{T-1} T_{2T-1}(s/S)

for |s| <= S, with Chebyshev polynomials and up to a truncation error. R is measured at T shifts, at
the positive zeros of T_{2T}, and the r_m are interpolated. The central difference of every weight
into the unit is then a sum over samples of R at s = h x.

`plan_responses` chooses T by a proven bound on the error, `first_in_integers` how exactly to sum.

N samples, I inputs, H hidden units, K classes. Rows of units are padded to whole vectors (Hp, Kp),
with weights of zero. Threads write disjoint elements, and an element is always summed in the same
order: the results do not depend on the number of threads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import factorial, inf, pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit import matrix_products
from fastgrad.jit.kernel import inlined, kernel, tasks_for
from fastgrad.jit.matrix_products import is_sparse, magnitude_and_nonzeros
from fastgrad.jit.vectors import LANES_PER_VECTOR, load, repeat, store
from fastgrad.network.functions import LOG_OFFSET
from fastgrad.network.parameters import Parameters, aligned
from fastgrad.network.propagation import Forward, run_forward
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
) -> Doubles | None:
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
    array of shape (I H + H + H K + K,), or None
        None if no plan is certain to reach full precision; `plan_responses` holds the proof for
        those that are.
    """
    weights = params["W2"]
    spread = float((weights.max(axis=1) - weights.min(axis=1)).max())
    reach = max(1.0, largest)  # the largest input of a weight or a bias
    plan = plan_responses(h * reach, spread)
    if plan is None:
        return None
    samples = len(x)
    growths, scales = _constants(plan.terms, h, reach, samples)
    result = aligned(params.buffer.size)
    blocks = min(samples, -(-samples * len(weights) // BLOCK_OUTPUTS))
    for block in range(blocks):
        rows = slice(samples * block // blocks, samples * (block + 1) // blocks)
        run = run_forward(params, x[rows], nonzeros // blocks)
        _sum_responses(result, run, labels[rows], plan, growths, scales, reach, block > 0)
        del run  # whose memory the next block can have
    return result


def _sum_responses(
    out: Doubles,
    run: Forward,
    labels: NDArray[np.intp],
    plan: "InterpolationPlan",
    growths: Doubles,
    scales: Doubles,
    reach: float,
    add: bool,
) -> None:
    """Measure the responses of a block of samples, and sum them, or add their sums to `out`."""
    c = aligned(plan.terms, *run.z.shape)
    d = np.empty((plan.terms, *run.p.shape))
    operations = run.z.size * (len(run.w2_transposed) * plan.factors.size + 50 * plan.terms)
    respond(
        tasks_for(operations // LANES_PER_VECTOR), run.z, run.sigmoid_slope, run.p, labels,
        run.w2_transposed, plan.points, plan.interpolation, growths, plan.factors, plan.is_small,
        scales, c, d,
    )  # fmt: skip
    run.sum_over_samples(out, c, d, reach, _exact_terms(run, c, reach), add)


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


def _exact_terms(run: Forward, c: Doubles, reach: float) -> int:
    """Choose how many terms are summed in float64; integers suffice for those after them."""
    products = run.x.shape[1] * c[0].size
    if is_sparse(run.x, run.nonzeros) or products < matrix_products.MIN_INTEGER_PRODUCTS:
        return len(c)
    magnitudes = [magnitude_and_nonzeros(coefficients)[0] for coefficients in c]
    return first_in_integers(reach * magnitudes[0], magnitudes[1:])


# Plans --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class InterpolationPlan:
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


# Kernels ------------------------------------------------------------------------------------------


@kernel(
    "(float64[:, ::1], float64[:, ::1], float64[:, ::1], int64[::1], float64[:, ::1], "
    "float64[::1], float64[:, ::1], float64[:, :, ::1], float64[::1], boolean, float64[:, ::1], "
    "float64[:, :, ::1], float64[:, :, ::1])"
)
def respond(
    task: int,
    tasks: int,
    z: Any,
    sigmoid_slope: Any,
    p: Any,
    labels: Any,
    w2_transposed: Any,
    points: Any,
    interpolation: Any,
    growths: Any,
    factors: Any,
    is_small: bool,
    scales: Any,
    c: Any,
    d: Any,
) -> None:
    """Measure the odd responses of all units at T shifts; write their coefficients.

    A shift by s changes a sigmoid's output by z (1 - z) m / (1 + z m) with m = e^s - 1, and a logit
    by s. `log_ratio` turns what this does to the softmax's denominator into the odd response.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the samples are divided into.
    z, sigmoid_slope : float64 arrays of shape (N, Hp)
        The hidden layer's output, and z (1 - z).
    p : float64 array of shape (N, Kp)
    labels : int64 array of shape (N,)
    w2_transposed : float64 array of shape (K + 1, Hp)
        W2 transposed, and another row.
    points : float64 array of shape (T,)
        The shifts as fractions of the largest.
    interpolation : float64 array of shape (T, T)
    growths : float64 array of shape (2, 2, T)
        e^s - 1 and e^-s - 1 at the shifts of the hidden layer, then of the output layer.
    factors : float64 array of shape (series,)
        1/r! for r = 1, 2, ..., as many as the shifted logits need.
    is_small : bool
        As in the `InterpolationPlan`.
    scales : float64 array of shape (2, T)
        What the coefficients are multiplied by: the hidden layer's, then the output layer's.
    c : float64 array of shape (T, N, Hp)
        Overwritten by the scaled coefficients of the hidden units' odd responses.
    d : float64 array of shape (T, N, Kp)
        Overwritten by those of the logits.
    """
    samples, hidden = z.shape
    classes = w2_transposed.shape[0] - 1
    terms = points.size
    responses = np.empty((terms, LANES_PER_VECTOR))
    moments = np.empty((factors.size, LANES_PER_VECTOR))
    for n in range(samples * task // tasks, samples * (task + 1) // tasks):
        label = labels[n]
        p_label = p[n, label]
        others = 0.0  # 1 - p_label, without cancellation
        for k in range(classes):
            if k != label:
                others += p[n, k]

        for j in range(0, hidden, LANES_PER_VECTOR):
            find_moments(p[n], label, w2_transposed, j, factors, moments)
            output = load(z, (n, j))
            for i in range(terms):
                grown, shrunk = growths[0, 0, i], growths[0, 1, i]
                raised = 1.0 + output * grown
                lowered = 1.0 + output * shrunk
                excess = output * (grown + shrunk) + output * output * (grown * shrunk)
                scale = load(sigmoid_slope, (n, j)) * inverse(
                    excess, is_small
                )  # slope / (raised * lowered)
                up = evaluate_series(moments, grown * (lowered * scale))
                down = evaluate_series(moments, shrunk * (raised * scale))
                store(responses, (i, 0), log_ratio(p_label, up, down, is_small))
            interpolate(responses, points, interpolation, scales[0], n, j, c)

        up_row, down_row = moments[0], moments[1]
        for k in range(0, p.shape[1], LANES_PER_VECTOR):
            for i in range(terms):
                grown, shrunk = growths[1, 0, i], growths[1, 1, i]
                store(up_row, 0, load(p, (n, k)) * grown)
                store(down_row, 0, load(p, (n, k)) * shrunk)
                if k <= label < k + LANES_PER_VECTOR:  # raising its logit is lowering all others
                    up_row[label - k] = others * shrunk
                    down_row[label - k] = others * grown
                store(
                    responses,
                    (i, 0),
                    log_ratio(p_label, load(up_row, 0), load(down_row, 0), is_small),
                )
            interpolate(responses, points, interpolation, scales[1], n, k, d)


@inlined
def find_moments(
    p: Any, label: int, w2_transposed: Any, j: int, factors: Any, moments: Any
) -> None:
    """Compute the moments of the weights that leave units j to j + LANES_PER_VECTOR.

        moments[r - 1] = 1/r! sum over k of p_k (W2[j, k] - W2[j, t])^r

    Moving such a unit's output by delta then multiplies the softmax's denominator, relative to the
    label's logit, by 1 + sum over r of moments[r - 1] delta^r.

    Parameters
    ----------
    p : float64 array of shape (Kp,)
        The sample's probabilities.
    label : int
        t, the sample's class.
    w2_transposed : float64 array of shape (K + 1, Hp)
        W2 transposed, and another row.
    factors : float64 array of shape (a multiple of 4,)
        1/r! for r = 1, 2, ...
    moments : float64 array of shape (size of factors, LANES_PER_VECTOR)
        Overwritten.
    """
    own = load(w2_transposed, (label, j))
    for r in range(0, factors.size, 4):  # four at a time, whose sums stay in registers
        sum0 = repeat(0.0)
        sum1 = repeat(0.0)
        sum2 = repeat(0.0)
        sum3 = repeat(0.0)
        for k in range(w2_transposed.shape[0] - 1):
            if k != label:
                difference = load(w2_transposed, (k, j)) - own
                term = repeat(p[k])
                for _ in range(r):
                    term = term * difference
                term = term * difference
                sum0 = sum0 + term
                term = term * difference
                sum1 = sum1 + term
                term = term * difference
                sum2 = sum2 + term
                sum3 = sum3 + term * difference
        store(moments, (r, 0), sum0 * factors[r])
        store(moments, (r + 1, 0), sum1 * factors[r + 1])
        store(moments, (r + 2, 0), sum2 * factors[r + 2])
        store(moments, (r + 3, 0), sum3 * factors[r + 3])


@inlined
def evaluate_series(moments: Any, delta: Any) -> Any:
    """Return sum over r of moments[r - 1] delta^r, by Horner's rule."""
    result = load(moments, (moments.shape[0] - 1, 0))
    for r in range(moments.shape[0] - 2, -1, -1):
        result = result * delta + load(moments, (r, 0))
    return result * delta


@inlined
def log_ratio(p_label: float, up: Any, down: Any, is_small: bool) -> Any:
    """Return the odd response log((y_t^- + eps) / (y_t^+ + eps)) of the loss, without cancellation.

    A shift multiplies the softmax's denominator, relative to the label's logit, by 1 + Q, so
    y_t = p_label / (1 + Q). With `up` and `down` the Q of the two shifts, that ratio is
    (1 + u) / (1 - u) for

        u = p_label (up - down) / (p_label (2 + up + down) + 2 eps (1 + up) (1 + down)),

    whose denominator is 2 (p_label + eps) (1 + v) with a small v; its logarithm is 2 artanh(u), of
    which seven terms are full precision up to |u| = 0.09, and three up to 0.0011.

    If the plan `is_small`, no logit moves by more than M = 5e-4 beside the label's, or 1e-3 in the
    output layer, nor a pre-activation by more than S = 1e-3: there |u| <= 1.01e-3, and with
    |up + down| <= 1.1 M (S + M), or S^2 in the output layer, |v| <= 2.1e-6.
    """
    half = 0.5 / (p_label + LOG_OFFSET)
    v = (half * (p_label + 2.0 * LOG_OFFSET)) * (up + down) + (half * 2.0 * LOG_OFFSET) * up * down
    u = (half * p_label) * (up - down) * inverse(v, is_small)
    square = u * u
    if is_small:
        return 2.0 * (u + u * (square * (square * (1.0 / 5.0) + 1.0 / 3.0)))
    series = square * (1.0 / 13.0) + 1.0 / 11.0
    series = series * square + 1.0 / 9.0
    series = series * square + 1.0 / 7.0
    series = series * square + 1.0 / 5.0
    series = series * square + 1.0 / 3.0
    return 2.0 * (u + u * (square * series))


@inlined
def inverse(v: Any, is_small: bool) -> Any:
    """Return 1 / (1 + v) for |v| <= 0.1, by products: a division of vectors takes as long as ten.

    (1 - v) (1 + v^2) (1 + v^4) (1 + v^8) = (1 - v^16) / (1 + v); for |v| <= 2.4e-6, of which the
    cube is below 2^-56, it is 1 - v + v^2.
    """
    if is_small:
        return v * v - v + 1.0
    square = v * v
    fourth = square * square
    return ((1.0 - v) * (1.0 + square)) * ((1.0 + fourth) * (1.0 + fourth * fourth))


@inlined
def interpolate(
    responses: Any, points: Any, interpolation: Any, scales: Any, n: int, j: int, c: Any
) -> None:
    """Turn responses at T shifts into the coefficients of T polynomials, each times its scale.

    The response at the smallest shift, continued as a straight line, is taken off the others first.
    What is left of them is small, and so is what rounding does to the coefficients after the first.

    Parameters
    ----------
    responses : float64 array of shape (T, LANES_PER_VECTOR)
        Measured at points[i] S.
    points : float64 array of shape (T,)
        The largest first.
    interpolation : float64 array of shape (T, T)
    scales : float64 array of shape (T,)
    n, j : int
        The sample and the first unit.
    c : float64 array of shape (T, N, any)
        c[:, n, j : j + LANES_PER_VECTOR] is overwritten.
    """
    terms = points.size
    line = load(responses, (terms - 1, 0)) * (1.0 / points[terms - 1])
    for m in range(terms):
        coefficient = line if m == 0 else repeat(0.0)
        for i in range(terms - 1):
            rest = load(responses, (i, 0)) - line * points[i]
            coefficient = coefficient + rest * interpolation[m, i]
        store(c, (m, n, j), coefficient * scales[m])
