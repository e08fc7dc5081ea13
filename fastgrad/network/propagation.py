"""Forward propagation and backpropagation through the net, and sums over the samples."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.kernel import kernel, tasks_for
from fastgrad.jit.matrix_products import (
    is_sparse,
    multiply,
    sum_polynomials,
    sum_sparse_products,
)
from fastgrad.jit.vectors import (
    LANES_PER_VECTOR,
    exp,
    load,
    magnitude,
    padded,
    repeat,
    store,
    total,
    where_negative,
)
from fastgrad.network.functions import LOG_OFFSET
from fastgrad.network.parameters import Parameters
from fastgrad.typing import Doubles


@dataclass(frozen=True)
class Forward:
    """The results of a forward pass.

    Attributes
    ----------
    params : Parameters
        W1 (I, H), b1, W2 (H, K), b2: what it was run with.
    x : array of shape (N, I)
        The batch.
    nonzeros : int
        How many entries of x are not zero.
    w2_transposed : array of shape (K + 1, Hp)
        W2 transposed, and b1; rows are padded to whole vectors, here with zeros.
    z, sigmoid_slope : arrays of shape (N, Hp)
        The hidden layer's output, and z (1 - z).
    p : array of shape (N, Kp)
        The probabilities.
    """

    params: Parameters
    x: Doubles
    nonzeros: int
    w2_transposed: Doubles
    z: Doubles
    sigmoid_slope: Doubles
    p: Doubles

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


def run_forward(params: Parameters, x: Doubles, nonzeros: int) -> Forward:
    """Run x through the net.

    Parameters
    ----------
    params : Parameters
        W1, b1, W2, b2.
    x : array of shape (N, I), C-contiguous
    nonzeros : int
        How many entries of x are not zero.
    """
    w1, b1, w2, b2 = params.values()
    hidden, classes = w2.shape
    w2_transposed = np.empty((classes + 1, padded(hidden)))
    w2_transposed[:classes, :hidden] = w2.T
    w2_transposed[classes, :hidden] = b1
    w2_transposed[:, hidden:] = 0.0
    z = np.empty((len(x), padded(hidden)))
    z[:, hidden:] = 0.0
    sigmoid_slope = np.empty_like(z)
    p = np.zeros((len(x), padded(classes)))  # the padding, too, goes through the exponential
    if is_sparse(x, nonzeros):
        sum_sparse_products(z, x, w1[np.newaxis], nonzeros)
    else:
        multiply(z, x, w1)
    tasks = tasks_for(z.size * (classes + 30) // LANES_PER_VECTOR)  # thirty for the exponential
    activate(tasks, w2_transposed, b2, z, sigmoid_slope, p)
    return Forward(params, x, nonzeros, w2_transposed, z, sigmoid_slope, p)


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
        weights = run.w2_transposed[:-1]
        hidden_errors = errors[:, : len(weights)] @ weights * run.sigmoid_slope
    result = np.empty_like(run.params.buffer)
    run.sum_over_samples(result, hidden_errors[np.newaxis], errors[np.newaxis])
    return result
