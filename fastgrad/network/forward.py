"""How is the forward pass run, and how are its sums over the samples? Dense or sparse."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgrad.network import kernels, sparse
from fastgrad.network.jit import tasks_for
from fastgrad.network.parameters import Parameters
from fastgrad.network.products import sum_products
from fastgrad.network.vectors import LANES, padded
from fastgrad.network.work import WorkArrays

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Forward:
    """What a forward pass leaves behind, in work arrays that the next pass overwrites.

    Attributes
    ----------
    x : array of shape (N, I)
        The batch.
    entries : Entries or None
        The nonzero entries of x, if they are few.
    wide : array of shape (K + 1, Hp)
        W2 transposed, and b1; rows are padded to whole vectors, here with zeros.
    z, slope : arrays of shape (N, Hp)
        The hidden layer's output, and z (1 - z).
    p : array of shape (N, Kp)
        The probabilities.
    work : WorkArrays
        Scratch.
    """

    x: Array
    entries: sparse.Entries | None
    wide: Array
    z: Array
    slope: Array
    p: Array
    work: WorkArrays

    def sum_over_samples(
        self, c: Array, d: Array, gradient: Parameters, rounded: int | None = None
    ) -> None:
        """Sum coefficients of odd powers of each weight's input over the samples.

            G_W1 = sum over m of (x^(2m+1))' c[m],   G_b1 = sum over m, n of c[m, n],

        and with z and d in place of x and c the same for W2, b2: a bias's input is 1.

        Parameters
        ----------
        c, d : arrays of shape (terms, N, Hp) and (terms, N, Kp)
            The coefficients.
        gradient : Parameters
            Overwritten.
        rounded : int, optional
            From this power of x on, float32 suffices; see `sum_products`.
        """
        w1, b1, w2, b2 = gradient.values()
        if self.entries is not None:
            self.entries.sum(c, w1)
        else:
            sum_products(w1, self.x.T, c, self.work, rounded)
        # Columns that are padded to whole vectors go through the faster tiles.
        sums = self.work.get("sums", (len(w2), d.shape[2]))
        sum_products(sums, self.z[:, : len(w2)].T, d, self.work)
        w2[...] = sums[:, : b2.size]
        with np.errstate(over="ignore", invalid="ignore"):  # what overflows shows in the sums
            b1[...] = c.sum(axis=(0, 1))[: b1.size]
            b2[...] = d.sum(axis=(0, 1))[: b2.size]


def run_forward(params: Parameters, x: Array, nonzeros: int, work: WorkArrays) -> Forward:
    """Run x through the net.

    Parameters
    ----------
    params : Parameters
        W1, b1, W2, b2.
    x : array of shape (N, I), C-contiguous
    nonzeros : int
        How many entries of x are not zero.
    work : WorkArrays
        The result's arrays are among them: the next pass overwrites them.
    """
    w1, b1, w2, b2 = params.values()
    hidden, classes = w2.shape
    wide = work.get("wide", (classes + 1, padded(hidden)))
    wide[:classes, :hidden] = w2.T
    wide[classes, :hidden] = b1
    z = work.get("z", (len(x), padded(hidden)))
    slope = work.get("slope", z.shape)
    p = work.get("p", (len(x), padded(classes)))
    entries = sparse.Entries(x, nonzeros, work) if nonzeros <= sparse.DENSEST * x.size else None
    if entries is None:
        sum_products(z[:, :hidden], x, w1[np.newaxis], work)
    else:
        entries.multiply(w1, z)
    tasks = tasks_for(z.size * (classes + 30) // LANES)  # thirty for the exponential
    kernels.activate(tasks, wide, b2, z, slope, p)
    return Forward(x, entries, wide, z, slope, p, work)
