"""Propagation through the net: forward, with the loss at shifted units, and backward; and sums.

N samples, I inputs, H hidden units, K classes. Rows of units are padded to whole vectors (Hp, Kp),
with weights of zero. Threads write disjoint elements, and an element is always summed in the same
order: the results do not depend on the number of threads.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.kernel import (
    LANES_PER_VECTOR,
    exp,
    inlined,
    kernel,
    load,
    magnitude,
    padded,
    repeat,
    store,
    tasks_for,
    total,
    where_negative,
)
from fastgrad.jit.matrix_products import (
    is_sparse,
    multiply,
    sum_polynomials,
    sum_sparse_products,
)
from fastgrad.network.functions import LOG_OFFSET
from fastgrad.network.parameters import Parameters, aligned
from fastgrad.typing import Doubles

NO_LABELS = np.empty(0, np.int64)


class Shifts(NamedTuple):
    """At which T shifts of each unit the loss is measured, and what is made of its responses.

    Attributes
    ----------
    points : array of shape (T,)
        The shifts as fractions of the largest.
    interpolation : array of shape (T, T)
        What turns responses into coefficients.
    factors : array of shape (a multiple of 4,)
        1/r! for r = 1, 2, ..., as many as the shifted logits need.
    is_small : bool
        Whether all that moves does so by so little that `log_ratio` and `inverse` are exact with
        few terms.
    growths : array of shape (2, 2, T)
        e^s - 1 and e^-s - 1 at the shifts of the hidden layer, then of the output layer.
    scales : array of shape (2, T)
        What the coefficients are multiplied by: the hidden layer's, then the output layer's.
    """

    points: Doubles
    interpolation: Doubles
    factors: Doubles
    is_small: bool
    growths: Doubles
    scales: Doubles


NO_SHIFTS = Shifts(
    np.empty(0), np.empty((0, 0)), np.empty(0), False, np.empty((2, 2, 0)), np.empty((2, 0))
)


class Forward(NamedTuple):
    """The results of a forward pass.

    Attributes
    ----------
    params : Parameters
        W1 (I, H), b1, W2 (H, K), b2: what it was run with.
    x : array of shape (N, I)
        The batch.
    nonzeros : int
        How many entries of x are not zero.
    z, sigmoid_slope : arrays of shape (N, Hp)
        The hidden layer's output, and z (1 - z).
    p : array of shape (N, Kp)
        The probabilities.
    c, d : arrays of shape (T, N, Hp) and (T, N, Kp)
        The coefficients of the odd responses to shifts of the hidden units, and of the logits.
    """

    params: Parameters
    x: Doubles
    nonzeros: int
    z: Doubles
    sigmoid_slope: Doubles
    p: Doubles
    c: Doubles
    d: Doubles

    def sum_over_samples(
        self,
        out: Doubles,
        c: Doubles,
        d: Doubles,
        reach: float = 1.0,
        exact: int | None = None,
        add: bool = False,
    ) -> None:
        """Sum odd polynomials of each weight's input over the samples.

            G_W1[i, j] = sum over n, m of P_m(x[n, i]) c[m, n, j],   G_b1[j] the same of an input 1,

        with the polynomials of `sum_polynomials`; and with z and d in place of x and c the same for
        W2, b2. A bias is the weight of an input that is 1: in the gradient, as in the parameters,
        it lies as one more row below its weights.

        Parameters
        ----------
        out : array of shape (I H + H + H K + K,)
            Overwritten.
        c, d : arrays of shape (terms, N, Hp) and (terms, N, Kp)
            The coefficients.
        reach : float
            At least the largest magnitude in x, and 1.
        exact : int, optional
            How many terms of x are summed in float64; see `sum_polynomials`.
        add : bool
            Whether to add to `out`, the sum over other samples.
        """
        hidden, classes = self.params["W2"].shape
        border = out.size - (hidden + 1) * classes
        first, second = out[:border].reshape(-1, hidden), out[border:].reshape(-1, classes)
        if is_sparse(self.x, self.nonzeros):
            sum_sparse_products(first, self.x.T, c, self.nonzeros, reach, add)
        else:
            sum_polynomials(first, self.x, c, reach, exact, add)
        sum_polynomials(second, self.z, d, add=add)


def run_forward(
    params: Parameters,
    x: Doubles,
    nonzeros: int,
    labels: NDArray[np.intp] = NO_LABELS,
    shifts: Shifts = NO_SHIFTS,
) -> Forward:
    """Run x through the net, and measure the loss at shifts of each unit.

    Parameters
    ----------
    params : Parameters
        W1, b1, W2, b2.
    x : array of shape (N, I), C-contiguous
    nonzeros : int
        How many entries of x are not zero.
    labels : array of shape (N,)
        Not needed without shifts.
    shifts : Shifts
    """
    w1, b1, w2, b2 = params.values()
    hidden, classes = w2.shape
    terms = len(shifts.points)
    w2_transposed = np.zeros((classes + 1, padded(hidden)))
    w2_transposed[:classes, :hidden] = w2.T
    w2_transposed[classes, :hidden] = b1
    block = aligned(2 + terms, len(x), padded(hidden))
    z, sigmoid_slope, c = block[0], block[1], block[2:]
    if padded(hidden) > hidden:
        z[:, hidden:] = 0.0
    p, d = np.empty((len(x), padded(classes))), np.empty((terms, len(x), padded(classes)))
    if is_sparse(x, nonzeros):
        sum_sparse_products(z, x, w1[np.newaxis], nonzeros)
    else:
        multiply(z, x, w1)
    # An exponential takes thirty operations, a shift fifty.
    operations = z.size * (classes * (1 + len(shifts.factors)) + 30 + 50 * terms)
    tasks = tasks_for(operations // LANES_PER_VECTOR)
    propagate(tasks, w2_transposed, b2, z, sigmoid_slope, p, labels, *shifts, c, d)
    return Forward(params, x, nonzeros, z, sigmoid_slope, p, c, d)


@kernel(
    "(float64[:, ::1], float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1], "
    "int64[::1], float64[::1], float64[:, ::1], float64[::1], boolean, float64[:, :, ::1], "
    "float64[:, ::1], float64[:, :, ::1], float64[:, :, ::1])"
)
def propagate(
    task: int,
    tasks: int,
    w2_transposed: Any,
    b2: Any,
    z: Any,
    sigmoid_slope: Any,
    p: Any,
    labels: Any,
    points: Any,
    interpolation: Any,
    factors: Any,
    is_small: bool,
    growths: Any,
    scales: Any,
    c: Any,
    d: Any,
) -> None:
    """Compute the rest of the forward pass, and the coefficients of the units' odd responses.

    z = sigmoid(z + b1), p = softmax(z W2 + b2). With e = e^-|a| <= 1, one of sigmoid(a),
    1 - sigmoid(a) is 1 / (1 + e), the other e / (1 + e): both, and their product, the slope, have
    full relative precision.

    A shift by s changes a sigmoid's output by z (1 - z) m / (1 + z m) with m = e^s - 1, and a logit
    by s. `log_ratio` turns what this does to the softmax's denominator into the odd response.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the samples are divided into.
    w2_transposed : float64 array of shape (K + 1, Hp)
        W2 transposed, and b1 as its last row; zeros as padding.
    b2 : float64 array of shape (K,)
    z : float64 array of shape (N, Hp)
        x W1; overwritten by the hidden layer's output.
    sigmoid_slope : float64 array of shape (N, Hp)
        Overwritten by z (1 - z).
    p : float64 array of shape (N, Kp)
        Overwritten by the probabilities, and zeros as padding.
    labels : int64 array of shape (N,)
        Not read without shifts.
    points, interpolation, factors, is_small, growths, scales
        As in `Shifts`.
    c : float64 array of shape (T, N, Hp)
        Overwritten by the scaled coefficients of the hidden units' odd responses.
    d : float64 array of shape (T, N, Kp)
        Overwritten by those of the logits.
    """
    samples, hidden = z.shape
    classes = b2.size
    terms = points.size
    responses = np.empty((terms, LANES_PER_VECTOR))
    moments = np.empty((factors.size, LANES_PER_VECTOR))
    odds = np.empty(p.shape[1])
    for n in range(samples * task // tasks, samples * (task + 1) // tasks):
        for j in range(0, hidden, LANES_PER_VECTOR):
            a = load(z, (n, j)) + load(w2_transposed, (classes, j))
            e = exp(0.0 - magnitude(a))
            larger = 1.0 / (1.0 + e)
            smaller = e * larger
            store(z, (n, j), where_negative(a, smaller, larger))
            store(sigmoid_slope, (n, j), smaller * larger)
        largest = b2[0]
        for k in range(classes):
            products = repeat(0.0)
            for j in range(0, hidden, LANES_PER_VECTOR):
                products = products + load(z, (n, j)) * load(w2_transposed, (k, j))
            p[n, k] = total(products) + b2[k]
            largest = p[n, k] if k == 0 else max(largest, p[n, k])
        for k in range(classes, p.shape[1]):  # the padding, too, goes through the exponential
            p[n, k] = largest
        for k in range(0, p.shape[1], LANES_PER_VECTOR):
            store(p, (n, k), exp(load(p, (n, k)) - largest))
        normalizer = 0.0
        for k in range(classes):
            normalizer += p[n, k]
        for k in range(classes):
            p[n, k] /= normalizer
        for k in range(classes, p.shape[1]):
            p[n, k] = 0.0
        if terms == 0:
            continue

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

        for k in range(odds.size):
            odds[k] = p[n, k]
        odds[label] = -others  # less than zero: raising its logit is lowering all others
        for k in range(0, odds.size, LANES_PER_VECTOR):
            odd = load(odds, k)
            for i in range(terms):
                grown, shrunk = repeat(growths[1, 0, i]), repeat(growths[1, 1, i])
                up = magnitude(odd) * where_negative(odd, shrunk, grown)
                down = magnitude(odd) * where_negative(odd, grown, shrunk)
                store(responses, (i, 0), log_ratio(p_label, up, down, is_small))
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


# Backpropagation ----------------------------------------------------------------------------------


def backpropagate(run: Forward, labels: NDArray[np.intp]) -> Doubles:
    """Compute the derivatives of the mean loss -log(y_t + 1e-7), the 1e-7 included.

        errors[n, k] = p_t / (p_t + 1e-7) (p_k - [k = t]) / N
        hidden_errors[n, j] = z (1 - z) sum over k of errors[n, k] W2[j, k]

    For comparison only: no engine uses it.

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
    samples = np.arange(len(labels))
    p_label = run.p[samples, labels]
    errors = run.p.copy()
    with np.errstate(all="ignore"):  # what is not finite shows in the result
        errors[samples, labels] = 0.0
        errors[samples, labels] = -errors.sum(axis=1)  # p_t - 1, without cancellation
        errors *= (p_label / (p_label + LOG_OFFSET) / len(labels))[:, np.newaxis]
        weights = run.params["W2"]
        hidden, classes = weights.shape
        hidden_errors = errors[:, :classes] @ weights.T * run.sigmoid_slope[:, :hidden]
    result = np.empty_like(run.params.buffer)
    run.sum_over_samples(result, hidden_errors[np.newaxis], errors[np.newaxis])
    return result
