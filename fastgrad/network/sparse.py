"""How is a matrix that is mostly zeros multiplied? Row by row, its zeros skipped.

Four fifths of MNIST's pixels are zero. `find_entries` lists the others once a batch; the forward
pass goes through them sample by sample, the sums over the samples input by input.
"""

from typing import Any

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastgrad.network.jit import Kernel, inlined
from fastgrad.network.vectors import LANES, load, load_part, store, store_part
from fastgrad.network.work import WorkArrays

Array = NDArray[np.float64]

DENSEST = 0.35  # measured: above this share of nonzeros, dense blocks are faster


def _add_rows(out: Any, scales: Any, rows: Any, count: int, matrix: Any, add: bool) -> None:
    """Compute out = sum over e < count of scales[e] matrix[rows[e]], or add that to `out`.

    Parameters
    ----------
    out : float64 array of shape (columns,)
        Overwritten.
    scales : float64 array of shape (at least count,)
    rows : int32 array of shape (at least count,)
    count : int
    matrix : float64 array of shape (any, at least columns)
    add : bool
        Whether to add to `out` or to overwrite it.
    """
    columns = out.size
    j = 0
    while j + 4 * LANES <= columns:  # four vectors at a time, whose sums stay in registers
        old = LANES if add else 0  # lanes of `out` to start from; the others start from zero
        sum0 = load_part(out, j, old)
        sum1 = load_part(out, j + LANES, old)
        sum2 = load_part(out, j + 2 * LANES, old)
        sum3 = load_part(out, j + 3 * LANES, old)
        for e in range(count):
            scale = scales[e]
            row = matrix[rows[e]]
            sum0 = sum0 + scale * load(row, j)
            sum1 = sum1 + scale * load(row, j + LANES)
            sum2 = sum2 + scale * load(row, j + 2 * LANES)
            sum3 = sum3 + scale * load(row, j + 3 * LANES)
        store(out, j, sum0)
        store(out, j + LANES, sum1)
        store(out, j + 2 * LANES, sum2)
        store(out, j + 3 * LANES, sum3)
        j += 4 * LANES
    while j < columns:
        width = columns - j
        sum0 = load_part(out, j, width if add else 0)
        for e in range(count):
            sum0 = sum0 + scales[e] * load_part(matrix[rows[e]], j, width)
        store_part(out, j, width, sum0)
        j += LANES


add_rows = inlined(_add_rows)


def _multiply_rows(
    x: Any, matrix: Any, tasks: int, values: Any, where: Any, counts: Any, out: Any
) -> None:
    """Compute out = x @ matrix, and list the nonzero entries of every row of x.

    Parameters
    ----------
    x : float64 array of shape (N, I)
    matrix : float64 array of shape (I, H)
    tasks : int
        How many parts the samples are divided into.
    values : float64 array of shape (N, I)
        Overwritten: first in each row, its nonzero entries.
    where : int32 array of shape (N, I)
        Overwritten: their columns, in order.
    counts : int64 array of shape (N,)
        Overwritten: how many there are.
    out : float64 array of shape (N, at least H)
        The first H columns are overwritten.
    """
    samples, inputs = x.shape
    hidden = matrix.shape[1]
    for task in prange(tasks):
        for n in range(samples * task // tasks, samples * (task + 1) // tasks):
            count = 0
            for i in range(inputs):
                value = x[n, i]
                values[n, count] = value
                where[n, count] = i
                count += value != 0.0  # no branch: nothing could predict it
            counts[n] = count
            add_rows(out[n, :hidden], values[n], where[n], count, matrix, False)


def _sum_rows(
    values: Any, where: Any, counts: Any, c: Any, tasks: int, scales: Any, samples_of: Any, out: Any
) -> None:
    """Compute out = x' @ c[0] + (x^3)' @ c[1] + ... from the lists of x's nonzero entries.

    Parameters
    ----------
    values, where, counts : arrays
        As `_multiply_rows` leaves them.
    c : float64 array of shape (terms, N, at least H)
    tasks : int
        How many parts the inputs are divided into.
    scales : float64 array of shape (I, N)
        Scratch, overwritten.
    samples_of : int32 array of shape (I, N)
        Scratch, overwritten.
    out : float64 array of shape (I, H)
        Overwritten.
    """
    inputs, samples = scales.shape
    for task in prange(tasks):
        first = inputs * task // tasks
        last = inputs * (task + 1) // tasks
        found = np.zeros(last - first, np.int64)
        for n in range(samples):
            for e in range(counts[n]):
                i = where[n, e]
                if first <= i < last:
                    scales[i, found[i - first]] = values[n, e]
                    samples_of[i, found[i - first]] = n
                    found[i - first] += 1
        squares = np.empty(samples)
        for i in range(first, last):
            count = found[i - first]
            for e in range(count):
                squares[e] = scales[i, e] * scales[i, e]
            for m in range(c.shape[0]):
                add_rows(out[i], scales[i], samples_of[i], count, c[m], m > 0)
                for e in range(count):
                    scales[i, e] *= squares[e]


multiply_rows = Kernel(
    _multiply_rows,
    "(float64[:, ::1], float64[:, ::1], int64, "
    "float64[:, ::1], int32[:, ::1], int64[::1], float64[:, ::1])",
)
sum_rows = Kernel(
    _sum_rows,
    "(float64[:, ::1], int32[:, ::1], int64[::1], float64[:, :, ::1], int64, "
    "float64[:, ::1], int32[:, ::1], float64[:, ::1])",
)


class Entries:
    """The nonzero entries of a batch.

    Parameters
    ----------
    x : array of shape (N, I), C-contiguous
    work : WorkArrays
        Scratch: one set of entries at a time.
    """

    def __init__(self, x: Array, work: WorkArrays) -> None:
        self.x = x
        self._work = work
        self._lists = (
            work.get("entries", x.shape),
            work.get("columns of entries", x.shape, np.int32),
            work.get("numbers of entries", x.shape[:1], np.int64),
        )

    def multiply(self, matrix: Array, out: Array) -> None:
        """Compute out[:, :H] = x @ matrix, and list the entries for `sum`."""
        multiply_rows(self.x, matrix, numba.get_num_threads(), *self._lists, out)

    def sum(self, c: Array, out: Array) -> None:
        """Compute out = x' @ c[0] + (x^3)' @ c[1] + ..., after `multiply` has listed the entries."""
        shape = self.x.shape[::-1]
        scales = self._work.get("scales of entries", shape)
        samples_of = self._work.get("samples of entries", shape, np.int32)
        sum_rows(*self._lists, c, numba.get_num_threads(), scales, samples_of, out)
