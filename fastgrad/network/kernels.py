"""Compiled kernels: the forward pass, odd responses, and the largest magnitude of an array.

N samples, I inputs, H hidden units, K classes. Rows of units are padded to whole vectors (Hp, Kp),
with weights of zero. Threads write disjoint elements, and an element is always summed in the same
order: the results do not depend on the number of threads.
"""

from typing import Any

import numpy as np

from fastgrad.jit.kernel import compiled, inlined, kernel, tasks_for
from fastgrad.jit.vectors import (
    LANES_PER_VECTOR,
    exp,
    load,
    magnitude,
    repeat,
    store,
    total,
    where_negative,
)
from fastgrad.network.functions import LOG_OFFSET
from fastgrad.typing import Doubles

MAGNITUDE_BITS = 0x7FFF_FFFF_FFFF_FFFF  # all bits of a float64 but its sign


@kernel("(float64[:, ::1], float64[::1], float64[:, ::1], float64[:, ::1], float64[:, ::1])")
def activate(
    task: int, tasks: int, w2_transposed: Any, b2: Any, z: Any, sigmoid_slope: Any, p: Any
) -> None:
    """Compute the rest of the forward pass: z = sigmoid(z + b1), p = softmax(z W2 + b2).

    With e = e^-|a| <= 1, one of sigmoid(a), 1 - sigmoid(a) is 1 / (1 + e), the other e / (1 + e):
    both, and their product, the slope, have full relative precision.

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
    """
    samples, hidden = z.shape
    classes = b2.size
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
        for k in range(0, p.shape[1], LANES_PER_VECTOR):
            store(p, (n, k), exp(load(p, (n, k)) - largest))
        normalizer = 0.0
        for k in range(classes):
            normalizer += p[n, k]
        for k in range(classes):
            p[n, k] /= normalizer
        for k in range(classes, p.shape[1]):
            p[n, k] = 0.0


@kernel(
    "(float64[:, ::1], float64[:, ::1], float64[:, ::1], int64[::1], float64[:, ::1], "
    "float64[::1], float64[:, ::1], float64[:, :, ::1], float64[::1], float64[:, ::1], "
    "float64[:, :, ::1], float64[:, :, ::1], float64[:, :, ::1])"
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
    scales: Any,
    scratch: Any,
    c: Any,
    d: Any,
) -> None:
    """Measure the odd responses of all units at T shifts; write the coefficients of their powers.

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
    scales : float64 array of shape (2, T)
        What the coefficients are multiplied by: the hidden layer's, then the output layer's.
    scratch : float64 array of shape (tasks, T + series, LANES_PER_VECTOR)
        Overwritten.
    c : float64 array of shape (T, N, Hp)
        Overwritten by the scaled coefficients of the hidden units' odd responses.
    d : float64 array of shape (T, N, Kp)
        Overwritten by those of the logits.
    """
    samples, hidden = z.shape
    classes = w2_transposed.shape[0] - 1
    terms = points.size
    responses = scratch[task, :terms]
    moments = scratch[task, terms:]
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
                scale = load(sigmoid_slope, (n, j)) * inverse(excess)  # slope / (raised * lowered)
                up = evaluate_series(moments, grown * (lowered * scale))
                down = evaluate_series(moments, shrunk * (raised * scale))
                store(responses, (i, 0), log_ratio(p_label, up, down))
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
                store(responses, (i, 0), log_ratio(p_label, load(up_row, 0), load(down_row, 0)))
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
def log_ratio(p_label: float, up: Any, down: Any) -> Any:
    """Return the odd response log((y_t^- + eps) / (y_t^+ + eps)) of the loss, without cancellation.

    A shift multiplies the softmax's denominator, relative to the label's logit, by 1 + Q, so
    y_t = p_label / (1 + Q). With `up` and `down` the Q of the two shifts, that ratio is
    (1 + u) / (1 - u) for

        u = p_label (up - down) / (p_label (2 + up + down) + 2 eps (1 + up) (1 + down)),

    whose denominator is 2 (p_label + eps) (1 + v) with a small v; its logarithm is 2 artanh(u), of
    which seven terms are full precision up to |u| = 0.09.
    """
    half = 0.5 / (p_label + LOG_OFFSET)
    v = (half * (p_label + 2.0 * LOG_OFFSET)) * (up + down) + (half * 2.0 * LOG_OFFSET) * up * down
    u = (half * p_label) * (up - down) * inverse(v)
    square = u * u
    series = square * (1.0 / 13.0) + 1.0 / 11.0
    series = series * square + 1.0 / 9.0
    series = series * square + 1.0 / 7.0
    series = series * square + 1.0 / 5.0
    series = series * square + 1.0 / 3.0
    return 2.0 * (u + u * (square * series))


@inlined
def inverse(v: Any) -> Any:
    """Return 1 / (1 + v) for |v| <= 0.1, by products: a division of vectors takes as long as ten.

    (1 - v) (1 + v^2) (1 + v^4) (1 + v^8) = (1 - v^16) / (1 + v).
    """
    square = v * v
    fourth = square * square
    return ((1.0 - v) * (1.0 + square)) * ((1.0 + fourth) * (1.0 + fourth * fourth))


@inlined
def interpolate(
    responses: Any, points: Any, interpolation: Any, scales: Any, n: int, j: int, c: Any
) -> None:
    """Turn responses at T shifts into the coefficients of T odd powers, each times its scale.

    The response at the smallest shift, continued as a straight line, is taken off the others first.
    What is left of them is small, so rounding in the interpolation's large entries does no harm.

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


# The largest magnitude ----------------------------------------------------------------------------


def magnitude_and_nonzeros(values: Doubles) -> tuple[float, int]:
    """Return the largest magnitude and the number of nonzero entries of a contiguous array.

    A nan counts as larger than inf, and inf as larger than any number. An empty array has (0.0, 0).
    """
    row = values.reshape(-1)
    vectors = row.size // LANES_PER_VECTOR
    tasks = tasks_for(vectors // 2)  # each takes half as long as in most kernels
    if tasks == 1:
        largest, nonzeros = _row_magnitude_and_nonzeros(row)
        return largest, nonzeros
    parts = np.empty(tasks), np.empty(tasks, np.int64)
    magnitude_and_nonzeros_of_parts(tasks, row, *parts)
    return float(parts[0].max()), int(parts[1].sum())  # the maximum of NumPy is nan if one is


@kernel("(float64[::1], float64[::1], int64[::1])")
def magnitude_and_nonzeros_of_parts(
    task: int, tasks: int, values: Any, largest: Any, nonzeros: Any
) -> None:
    """Find the largest magnitude and the nonzeros of each part of a row.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the row is divided into.
    values : float64 array
    largest : float64 array of shape (tasks,)
        Overwritten.
    nonzeros : int64 array of shape (tasks,)
        Overwritten.
    """
    size = values.size
    part = values[size * task // tasks : size * (task + 1) // tasks]
    largest[task], nonzeros[task] = _row_magnitude_and_nonzeros(part)


@inlined
def bits_of(value: float) -> Any:
    """Read a float64's 64 bits as an integer."""
    return np.float64(value).view(np.int64)


@inlined
def float_of(bits: int) -> Any:
    """Read an integer's 64 bits as a float64; the inverse of `bits_of`."""
    return np.int64(bits).view(np.float64)


def _magnitude_and_nonzeros(values: Any) -> tuple[float, int]:
    """Return them for a row: magnitudes are compared as integers, which have the same order.

    LLVM vectorises that, and not the comparison of numbers among which there may be a nan.
    """
    largest = 0
    nonzeros = 0
    for i in range(values.size):
        magnitude = bits_of(values[i]) & MAGNITUDE_BITS
        largest = max(largest, magnitude)
        nonzeros += magnitude != 0
    return float_of(largest), nonzeros


_row_magnitude_and_nonzeros = compiled(
    _magnitude_and_nonzeros, _magnitude_and_nonzeros, "Tuple((float64, int64))(float64[::1])"
)
