"""The forward pass, and sums over the samples, of dense or sparse batches."""

from dataclasses import dataclass

import numpy as np

from fastgrad.jit.kernel import tasks_for
from fastgrad.jit.vectors import LANES_PER_VECTOR, padded
from fastgrad.network import kernels, sparse
from fastgrad.network.matrix_products import sum_products
from fastgrad.network.parameters import Parameters
from fastgrad.network.workspace import Workspace
from fastgrad.typing import Doubles


@dataclass(frozen=True)
class Forward:
    """The results of a forward pass, in arrays of a workspace that the next pass overwrites.

    Attributes
    ----------
    params : Parameters
        W1 (I, H), b1, W2 (H, K), b2: what it was run with.
    x : array of shape (N, I)
        The batch.
    entries : Entries or None
        The nonzero entries of x, if they are few.
    w2_transposed : array of shape (K + 1, Hp)
        W2 transposed, and b1; rows are padded to whole vectors, here with zeros.
    z, sigmoid_slope : arrays of shape (N, Hp)
        The hidden layer's output, and z (1 - z).
    p : array of shape (N, Kp)
        The probabilities.
    work : Workspace
        Scratch.
    """

    params: Parameters
    x: Doubles
    entries: sparse.Entries | None
    w2_transposed: Doubles
    z: Doubles
    sigmoid_slope: Doubles
    p: Doubles
    work: Workspace

    def sum_over_samples(self, c: Doubles, d: Doubles, exact: int | None = None) -> Doubles:
        """Sum coefficients of odd powers of each weight's input over the samples.

            G_W1 = sum over m of (x^(2m+1))' c[m],   G_b1 = sum over m, n of c[m, n],

        and with z and d in place of x and c the same for W2, b2. A bias is the weight of an input
        that is 1: in the gradient, as in the parameters, it lies as one more row below its weights.

        Parameters
        ----------
        c, d : arrays of shape (terms, N, Hp) and (terms, N, Kp)
            The coefficients.
        exact : int, optional
            How many powers of x are summed in float64; see `sum_products`.

        Returns
        -------
        array of shape (I H + H + H K + K,)
        """
        hidden, classes = self.params["W2"].shape
        result = np.empty_like(self.params.buffer)
        border = result.size - (hidden + 1) * classes
        first, second = result[:border].reshape(-1, hidden), result[border:].reshape(-1, classes)
        if self.entries is not None:
            self.entries.sum(c, first)
        else:
            sum_products(first, self.x.T, c, self.work, exact)
        # Columns that are padded to whole vectors go through the faster tiles.
        sums = self.work.get("sums", (hidden + 1, d.shape[2]))
        sum_products(sums, self.z[:, :hidden].T, d, self.work)
        second[...] = sums[:, :classes]
        return result


def run_forward(params: Parameters, x: Doubles, nonzeros: int, work: Workspace) -> Forward:
    """Run x through the net.

    Parameters
    ----------
    params : Parameters
        W1, b1, W2, b2.
    x : array of shape (N, I), C-contiguous
    nonzeros : int
        How many entries of x are not zero.
    work : Workspace
        The result's arrays are among them: the next pass overwrites them.
    """
    w1, b1, w2, b2 = params.values()
    hidden, classes = w2.shape
    w2_transposed = work.get("w2_transposed", (classes + 1, padded(hidden)))
    w2_transposed[:classes, :hidden] = w2.T
    w2_transposed[classes, :hidden] = b1
    z = work.get("z", (len(x), padded(hidden)))
    sigmoid_slope = work.get("sigmoid_slope", z.shape)
    p = work.get("p", (len(x), padded(classes)))
    entries = sparse.Entries(x, nonzeros, work) if nonzeros <= sparse.MAX_DENSITY * x.size else None
    if entries is None:
        sum_products(z[:, :hidden], x, w1[np.newaxis], work)
    else:
        entries.multiply(w1, z)
    tasks = tasks_for(z.size * (classes + 30) // LANES_PER_VECTOR)  # thirty for the exponential
    kernels.activate(tasks, w2_transposed, b2, z, sigmoid_slope, p)
    return Forward(params, x, entries, w2_transposed, z, sigmoid_slope, p, work)
