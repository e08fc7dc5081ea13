"""Which loops does the two-layer net run? Forward pass, odd responses, sums over samples.

Every kernel reads the parameters from the flat buffer `theta` (W1, b1, W2, b2, one after the other,
row by row). N samples, I inputs, H hidden units, K classes. Threads write disjoint elements, and an
element is always summed in the same order: the results do not depend on the number of threads.
"""

from typing import Any

import numpy as np
from numba import prange

from fastgrad.network.elementary import exp
from fastgrad.network.functions import LOG_OFFSET
from fastgrad.network.jit import Kernel, inlined
from fastgrad.network.products import multiply_block


def _split(theta: Any, inputs: int, hidden: int, classes: int) -> Any:
    """View the flat buffer as W1 (I, H), b1 (H,), W2 (H, K), b2 (K,)."""
    b1 = inputs * hidden
    w2 = b1 + hidden
    b2 = w2 + hidden * classes
    return (
        theta[:b1].reshape(inputs, hidden),
        theta[b1:w2],
        theta[w2:b2].reshape(hidden, classes),
        theta[b2:],
    )


def _add_scaled_rows(out: Any, scales: Any, rows: Any, matrix: Any, count: int) -> None:
    """Add scales[i] * matrix[rows[i]] to a row, i < count, four at a time to spare loads of it."""
    i = 0
    while i + 4 <= count:
        s0, s1, s2, s3 = scales[i], scales[i + 1], scales[i + 2], scales[i + 3]
        m0, m1 = matrix[rows[i]], matrix[rows[i + 1]]
        m2, m3 = matrix[rows[i + 2]], matrix[rows[i + 3]]
        for j in range(out.size):
            out[j] += (s0 * m0[j] + s1 * m1[j]) + (s2 * m2[j] + s3 * m3[j])
        i += 4
    while i < count:
        scale = scales[i]
        row = matrix[rows[i]]
        for j in range(out.size):
            out[j] += scale * row[j]
        i += 1


def _find_nonzeros(values: Any, nonzeros: Any, where: Any) -> int:
    """Write the nonzero entries of a vector and their indices; return how many there are."""
    count = 0
    for i in range(values.size):
        nonzeros[count] = values[i]
        where[count] = i
        count += values[i] != 0.0  # no branch: zeros come in no pattern that it could predict
    return count


def _activate(a: Any, z: Any, slope: Any) -> None:
    """Compute z = 1 / (1 + e^-a) and slope = z (1 - z), both to full relative precision.

    With e = e^-|a| <= 1, one of z, 1 - z is 1 / (1 + e) and the other is e / (1 + e). `z` may be
    `a` itself.
    """
    for j in range(a.size):
        e = exp(-abs(a[j]))
        larger = 1.0 / (1.0 + e)
        smaller = e * larger
        z[j] = smaller if a[j] < 0.0 else larger
        slope[j] = smaller * larger


def _softmax(logits: Any) -> None:
    """Replace logits by softmax probabilities."""
    largest = logits[0]
    for k in range(1, logits.size):
        largest = max(largest, logits[k])
    total = 0.0
    for k in range(logits.size):
        logits[k] = exp(logits[k] - largest)
        total += logits[k]
    for k in range(logits.size):
        logits[k] /= total


split = inlined(_split)
add_scaled_rows = inlined(_add_scaled_rows)
find_nonzeros = inlined(_find_nonzeros)
activate = inlined(_activate)
softmax = inlined(_softmax)


def _forward(
    theta: Any,
    x: Any,
    sparse: bool,
    block: int,
    tiles: Any,
    panels: Any,
    z: Any,
    slope: Any,
    p: Any,
) -> None:
    """Compute the forward pass: z = sigmoid(x W1 + b1), p = softmax(z W2 + b2).

    Parameters
    ----------
    theta : float64 array of shape (I H + H + H K + K,)
    x : float64 array of shape (N, I), C-contiguous
    sparse : bool
        Whether to skip the zeros of x rather than to multiply blocks.
    block : int
        Samples a task, at most `products.MOST_ROWS`.
    tiles, panels : float64 arrays of shape (tasks, any)
        Scratch for `multiply_block`, overwritten.
    z, slope : float64 arrays of shape (N, H)
        Overwritten: the hidden layer's output, and z (1 - z).
    p : float64 array of shape (N, K)
        Overwritten: the probabilities.
    """
    samples, inputs = x.shape
    hidden = z.shape[1]
    classes = p.shape[1]
    for task in prange(tiles.shape[0]):
        w1, b1, w2, b2 = split(theta, inputs, hidden, classes)
        first = min(task * block, samples)
        last = min(first + block, samples)
        if sparse:
            nonzeros = np.empty(inputs)
            where = np.empty(inputs, np.intp)
            for n in range(first, last):
                for j in range(hidden):
                    z[n, j] = 0.0
                count = find_nonzeros(x[n], nonzeros, where)
                add_scaled_rows(z[n], nonzeros, where, w1, count)
        else:
            multiply_block(
                z[first:last, 0:hidden],
                x[first:last, 0:inputs],
                1,
                w1[0:inputs, 0:hidden],
                tiles[task],
                panels[task],
                False,
            )
        for n in range(first, last):
            for j in range(hidden):
                z[n, j] += b1[j]
            activate(z[n], z[n], slope[n])
        multiply_block(
            p[first:last, 0:classes],
            z[first:last, 0:hidden],
            1,
            w2[0:hidden, 0:classes],
            tiles[task],
            panels[task],
            False,
        )
        for n in range(first, last):
            for k in range(classes):
                p[n, k] += b2[k]
            softmax(p[n])


def _log_ratio(p_t: float, up: float, down: float) -> float:
    """Return the odd response log((y_t^- + eps) / (y_t^+ + eps)) without cancellation.

    A shift multiplies the softmax's denominator, relative to the label's logit, by 1 + Q, so
    y_t = p_t / (1 + Q). With `up` and `down` the Q of the two shifts, the ratio is (1 + u) / (1 - u)
    for

        u = p_t (up - down) / (p_t (2 + up + down) + 2 eps (1 + up) (1 + down))

    and its logarithm 2 artanh(u), of which seven terms are full precision up to |u| = 0.08.
    """
    u = p_t * (up - down)
    u /= p_t * (2.0 + up + down) + (2.0 * LOG_OFFSET) * (1.0 + up) * (1.0 + down)
    v = u * u
    series = 1.0 / 13.0
    series = series * v + 1.0 / 11.0
    series = series * v + 1.0 / 9.0
    series = series * v + 1.0 / 7.0
    series = series * v + 1.0 / 5.0
    series = series * v + 1.0 / 3.0
    return 2.0 * u * (1.0 + v * series)


def _find_moments(p: Any, label: int, w2_rows: Any, moments: Any, carry: Any) -> None:
    """Compute the moments of the weights that leave each unit, relative to the label's weight.

        moments[r - 1, j] = 1/r! sum over k != t of p_k (W2[j, k] - W2[j, t])^r

    so that shifting unit j's output by delta multiplies the softmax's denominator, relative to the
    label's logit, by 1 + sum over r of moments[r - 1, j] delta^r.

    Parameters
    ----------
    p : float64 array of shape (K,)
        The sample's probabilities.
    label : int
        t, the sample's class.
    w2_rows : float64 array of shape (K, H)
        W2 transposed.
    moments : float64 array of shape (4, 8 or 12, H)
        Overwritten.
    carry : float64 array of shape (H,)
        Scratch, overwritten.
    """
    classes, hidden = w2_rows.shape
    for r in range(moments.shape[0]):
        for j in range(hidden):
            moments[r, j] = 0.0
    own = w2_rows[label]
    for k in range(classes):
        if k == label:
            continue
        row = w2_rows[k]
        for j in range(hidden):
            carry[j] = p[k]
        for r in range(0, moments.shape[0], 4):  # four moments at a time to spare loads
            m0, m1, m2, m3 = moments[r], moments[r + 1], moments[r + 2], moments[r + 3]
            f0, f1, f2, f3 = 1.0 / (r + 1), 1.0 / (r + 2), 1.0 / (r + 3), 1.0 / (r + 4)
            for j in range(hidden):
                difference = row[j] - own[j]
                term0 = carry[j] * difference * f0
                term1 = term0 * difference * f1
                term2 = term1 * difference * f2
                term3 = term2 * difference * f3
                m0[j] += term0
                m1[j] += term1
                m2[j] += term2
                m3[j] += term3
                carry[j] = term3


def _evaluate_series(moments: Any, delta: Any, q: Any) -> None:
    """Compute q = sum over r of moments[r - 1] delta^r, by Horner's rule, four terms at a time."""
    for j in range(q.size):
        q[j] = 0.0
    for r in range(moments.shape[0] - 4, -1, -4):
        m0, m1, m2, m3 = moments[r], moments[r + 1], moments[r + 2], moments[r + 3]
        for j in range(q.size):
            d = delta[j]
            q[j] = (((q[j] * d + m3[j]) * d + m2[j]) * d + m1[j]) * d + m0[j]
    for j in range(q.size):
        q[j] *= delta[j]


def _interpolate(
    responses: Any, points: Any, interpolation: Any, scales: Any, n: int, c: Any
) -> None:
    """Turn responses at T shifts into the coefficients of T odd powers, each times its scale.

    The response at the smallest shift, continued as a straight line, is taken off the others first.
    What is left of them is small, so rounding in the interpolation's large entries does no harm.

    Parameters
    ----------
    responses : float64 array of shape (T, units)
        Measured at points[i] S; used up.
    points : float64 array of shape (T,)
        The largest first.
    interpolation : float64 array of shape (T, T)
    scales : float64 array of shape (T,)
    n : int
        The sample.
    c : float64 array of shape (T, N, units)
        c[:, n] is overwritten.
    """
    terms, units = responses.shape
    smallest = responses[terms - 1]
    for j in range(units):
        smallest[j] /= points[terms - 1]
    for i in range(terms - 1):
        for j in range(units):
            responses[i, j] -= smallest[j] * points[i]
    for m in range(terms):
        out = c[m, n]
        line = scales[0] if m == 0 else 0.0
        for j in range(units):
            out[j] = line * smallest[j]
        for i in range(terms - 1):
            weight = interpolation[m, i] * scales[m]
            for j in range(units):
                out[j] += weight * responses[i, j]


log_ratio = inlined(_log_ratio)
find_moments = inlined(_find_moments)
evaluate_series = inlined(_evaluate_series)
interpolate = inlined(_interpolate)


def _respond(
    z: Any,
    slope: Any,
    p: Any,
    labels: Any,
    w2_rows: Any,
    points: Any,
    interpolation: Any,
    growths: Any,
    scales: Any,
    scratch: Any,
    c: Any,
    d: Any,
) -> None:
    """Measure the odd responses of all units at T shifts; write the coefficients of their powers.

    A shift by s changes a sigmoid's output by z (1 - z) m / (1 + z m) with m = e^s - 1, and a logit
    by s. `_log_ratio` turns what this does to the softmax's denominator into the odd response.

    Parameters
    ----------
    z, slope : float64 arrays of shape (N, H)
        The hidden layer's output, and z (1 - z).
    p : float64 array of shape (N, K)
    labels : integer array of shape (N,)
    w2_rows : float64 array of shape (K, H)
        W2 transposed.
    points : float64 array of shape (T,)
        The shifts as fractions of the largest.
    interpolation : float64 array of shape (T, T)
    growths : float64 array of shape (2, 2, T)
        e^s - 1 and e^-s - 1 at the shifts of the hidden layer, then of the output layer.
    scales : float64 array of shape (2, T)
        What the coefficients are multiplied by: the hidden layer's, then the output layer's.
    scratch : float64 array of shape (tasks, 5 + series + T, max(H, K))
        Overwritten; the samples are divided among the tasks.
    c : float64 array of shape (T, N, H)
        Overwritten: the scaled coefficients of the hidden units' odd responses.
    d : float64 array of shape (T, N, K)
        Overwritten: those of the logits.
    """
    samples, hidden = z.shape
    classes = p.shape[1]
    terms = points.size
    tasks = scratch.shape[0]
    for task in prange(tasks):
        rows = scratch[task, :, :hidden]
        carry, up, down, q_up, q_down = rows[0], rows[1], rows[2], rows[3], rows[4]
        responses = rows[5 : 5 + terms]
        moments = rows[5 + terms :]
        logit_responses = scratch[task, 5 : 5 + terms, :classes]
        for n in range(samples * task // tasks, samples * (task + 1) // tasks):
            label = labels[n]
            p_t = p[n, label]
            others = 0.0  # 1 - p_t, without cancellation
            for k in range(classes):
                if k != label:
                    others += p[n, k]

            find_moments(p[n], label, w2_rows, moments, carry)
            for i in range(terms):
                grown, shrunk = growths[0, 0, i], growths[0, 1, i]
                for j in range(hidden):
                    raised = 1.0 + z[n, j] * grown
                    lowered = 1.0 + z[n, j] * shrunk
                    scale = slope[n, j] / (raised * lowered)
                    up[j] = grown * lowered * scale
                    down[j] = shrunk * raised * scale
                evaluate_series(moments, up, q_up)
                evaluate_series(moments, down, q_down)
                for j in range(hidden):
                    responses[i, j] = log_ratio(p_t, q_up[j], q_down[j])
            interpolate(responses, points, interpolation, scales[0], n, c)

            for i in range(terms):
                grown, shrunk = growths[1, 0, i], growths[1, 1, i]
                for k in range(classes):
                    if k == label:  # raising the label's logit is lowering all others
                        logit_responses[i, k] = log_ratio(p_t, others * shrunk, others * grown)
                    else:
                        logit_responses[i, k] = log_ratio(p_t, p[n, k] * grown, p[n, k] * shrunk)
            interpolate(logit_responses, points, interpolation, scales[1], n, d)


def _add_samples(out: Any, coefficients: Any, first: int, last: int) -> None:
    """Sum coefficients of shape (T, N, units) over powers and samples: a bias's inputs are ones."""
    terms, samples = coefficients.shape[:2]
    for j in range(first, last):
        out[j] = 0.0
    for m in range(terms):
        for n in range(samples):
            for j in range(first, last):
                out[j] += coefficients[m, n, j]


add_samples = inlined(_add_samples)


def _sum_responses(
    x: Any,
    z: Any,
    c: Any,
    d: Any,
    sparse: bool,
    block: int,
    tiles: Any,
    panels: Any,
    single_tiles: Any,
    single_panels: Any,
    gradient: Any,
) -> None:
    """Sum the odd responses over the samples into the gradient of every parameter.

        G_W1 = sum over m of (x^(2m+1))' C_m,   G_b1 = sum over m and n of C_m[n],

    and with z and D in place of x and C the same for W2, b2.

    Parameters
    ----------
    x : float64 array of shape (N, I)
    z : float64 array of shape (N, H)
    c, d : float64 arrays of shape (T, N, H) and (T, N, K)
        The scaled coefficients.
    sparse : bool
        Whether to skip the zeros of x.
    block : int
        Inputs a task, at most `products.MOST_ROWS`.
    tiles, panels : float64 arrays of shape (tasks, any)
        Scratch for `multiply_block`, overwritten.
    single_tiles, single_panels : float32 arrays of shape (tasks, any)
        The same for the cubic term; without elements, that term is summed in float64, too.
    gradient : float64 array of shape (I H + H + H K + K,)
        Overwritten.
    """
    samples, inputs = x.shape
    terms, _, hidden = c.shape
    classes = d.shape[2]
    tasks = tiles.shape[0]
    single = single_panels.size > 0
    for task in prange(tasks):
        w1, b1, w2, b2 = split(gradient, inputs, hidden, classes)
        first = min(task * block, inputs)
        last = min(first + block, inputs)
        if sparse:
            values = np.empty(samples)
            where = np.empty(samples, np.intp)
            for i in range(first, last):
                for j in range(hidden):
                    w1[i, j] = 0.0
                count = find_nonzeros(x[:, i], values, where)
                for m in range(terms):
                    add_scaled_rows(w1[i], values, where, c[m], count)
                    for entry in range(count):
                        values[entry] *= x[where[entry], i] * x[where[entry], i]
        first_unit = hidden * task // tasks
        last_unit = hidden * (task + 1) // tasks
        for m in range(terms):
            if single and m == 1:
                if not sparse:
                    multiply_block(
                        w1[first:last, 0:hidden],
                        x[0:samples, first:last].T,
                        3,
                        c[m][0:samples, 0:hidden],
                        single_tiles[task],
                        single_panels[task],
                        True,
                    )
                multiply_block(
                    w2[first_unit:last_unit, 0:classes],
                    z[0:samples, first_unit:last_unit].T,
                    3,
                    d[m][0:samples, 0:classes],
                    single_tiles[task],
                    single_panels[task],
                    True,
                )
            else:
                if not sparse:
                    multiply_block(
                        w1[first:last, 0:hidden],
                        x[0:samples, first:last].T,
                        2 * m + 1,
                        c[m][0:samples, 0:hidden],
                        tiles[task],
                        panels[task],
                        m > 0,
                    )
                multiply_block(
                    w2[first_unit:last_unit, 0:classes],
                    z[0:samples, first_unit:last_unit].T,
                    2 * m + 1,
                    d[m][0:samples, 0:classes],
                    tiles[task],
                    panels[task],
                    m > 0,
                )
        add_samples(b1, c, first_unit, last_unit)
        if task == 0:
            add_samples(b2, d, 0, classes)


forward = Kernel(_forward)
respond = Kernel(_respond)
sum_responses = Kernel(_sum_responses)
