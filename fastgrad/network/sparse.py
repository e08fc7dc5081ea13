"""Products with a matrix that is mostly zeros, row by row.

Four fifths of MNIST's pixels are zero. `find_entries` lists the others once a batch; the forward
pass goes through them sample by sample, the sums over the samples input by input.
"""

from typing import Any

import numpy as np

from fastgrad.jit.kernel import inlined, kernel, tasks_for
from fastgrad.jit.vectors import LANES_PER_VECTOR, load_part, store_part
from fastgrad.network.workspace import Workspace
from fastgrad.typing import Doubles

# Above this share of nonzeros whole blocks are multiplied: they do more, but at a higher rate.
# `python -m benchmarks density` finds the two equal at a tenth to a quarter, the more the fewer
# hidden units there are; digits, whose zeros lie side by side, have a fifth and are at least as
# fast this way.
MAX_DENSITY = 0.25


# Columns that are summed at a time: seven vectors, whose sums stay in registers. So many additions
# are under way at once that none waits for another; 50, 100 and 1,000 columns waste few lanes.
GROUP_COLUMNS = 7 * LANES_PER_VECTOR


@inlined
def add_rows(out: Any, j: int, scales: Any, rows: Any, count: int, matrix: Any, add: bool) -> None:
    """Compute out[g] = sum over e < count of scales[e] matrix[rows[e], g], or add that to it.

    The columns g are the group of up to `GROUP_COLUMNS` that starts at j.

    Parameters
    ----------
    out : float64 array of shape (columns,)
        Overwritten from j to j + GROUP_COLUMNS.
    j : int
    scales : float64 array of shape (at least count,)
    rows : int32 array of shape (at least count,)
    count : int
    matrix : float64 array of shape (any, at least columns)
    add : bool
        Whether to add to `out` or to overwrite it.
    """
    width = out.size - j
    old = width if add else 0
    sum0 = load_part(out, j, old)
    sum1 = load_part(out, j + LANES_PER_VECTOR, old - LANES_PER_VECTOR)
    sum2 = load_part(out, j + 2 * LANES_PER_VECTOR, old - 2 * LANES_PER_VECTOR)
    sum3 = load_part(out, j + 3 * LANES_PER_VECTOR, old - 3 * LANES_PER_VECTOR)
    sum4 = load_part(out, j + 4 * LANES_PER_VECTOR, old - 4 * LANES_PER_VECTOR)
    sum5 = load_part(out, j + 5 * LANES_PER_VECTOR, old - 5 * LANES_PER_VECTOR)
    sum6 = load_part(out, j + 6 * LANES_PER_VECTOR, old - 6 * LANES_PER_VECTOR)
    for e in range(count):
        scale = scales[e]
        row = matrix[rows[e]]
        sum0 = sum0 + scale * load_part(row, j, width)
        sum1 = sum1 + scale * load_part(row, j + LANES_PER_VECTOR, width - LANES_PER_VECTOR)
        sum2 = sum2 + scale * load_part(row, j + 2 * LANES_PER_VECTOR, width - 2 * LANES_PER_VECTOR)
        sum3 = sum3 + scale * load_part(row, j + 3 * LANES_PER_VECTOR, width - 3 * LANES_PER_VECTOR)
        sum4 = sum4 + scale * load_part(row, j + 4 * LANES_PER_VECTOR, width - 4 * LANES_PER_VECTOR)
        sum5 = sum5 + scale * load_part(row, j + 5 * LANES_PER_VECTOR, width - 5 * LANES_PER_VECTOR)
        sum6 = sum6 + scale * load_part(row, j + 6 * LANES_PER_VECTOR, width - 6 * LANES_PER_VECTOR)
    store_part(out, j, width, sum0)
    store_part(out, j + LANES_PER_VECTOR, width - LANES_PER_VECTOR, sum1)
    store_part(out, j + 2 * LANES_PER_VECTOR, width - 2 * LANES_PER_VECTOR, sum2)
    store_part(out, j + 3 * LANES_PER_VECTOR, width - 3 * LANES_PER_VECTOR, sum3)
    store_part(out, j + 4 * LANES_PER_VECTOR, width - 4 * LANES_PER_VECTOR, sum4)
    store_part(out, j + 5 * LANES_PER_VECTOR, width - 5 * LANES_PER_VECTOR, sum5)
    store_part(out, j + 6 * LANES_PER_VECTOR, width - 6 * LANES_PER_VECTOR, sum6)


@kernel(
    "(float64[:, ::1], float64[:, ::1], "
    "float64[:, ::1], int32[:, ::1], int64[::1], float64[:, ::1])"
)
def multiply_rows(
    task: int, tasks: int, x: Any, matrix: Any, values: Any, where: Any, counts: Any, out: Any
) -> None:
    """Compute out = x @ matrix; list the nonzero entries of every row of x, and a 1 after them.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the samples are divided into.
    x : float64 array of shape (N, I)
    matrix : float64 array of shape (I, H)
    values : float64 array of shape (N, I + 1)
        Overwritten: first in each row, its nonzero entries, then the 1, which is a bias's input.
    where : int32 array of shape (N, I + 1)
        Overwritten: their columns, in order, then I.
    counts : int64 array of shape (N,)
        Overwritten: how many there are.
    out : float64 array of shape (N, at least H)
        The first H columns are overwritten.
    """
    samples, inputs = x.shape
    hidden = matrix.shape[1]
    for n in range(samples * task // tasks, samples * (task + 1) // tasks):
        count = 0
        for i in range(inputs):
            value = x[n, i]
            values[n, count] = value
            where[n, count] = i
            count += value != 0.0  # no branch: nothing could predict it
        values[n, count] = 1.0
        where[n, count] = inputs
        counts[n] = count + 1
        for j in range(0, hidden, GROUP_COLUMNS):
            add_rows(out[n, :hidden], j, values[n], where[n], count, matrix, False)


@kernel(
    "(float64[:, ::1], int32[:, ::1], int64[::1], float64[:, :, ::1], "
    "float64[:, ::1], float64[:, ::1], int32[:, ::1], float64[:, ::1])"
)
def sum_rows(
    task: int,
    tasks: int,
    values: Any,
    where: Any,
    counts: Any,
    c: Any,
    scales: Any,
    squares: Any,
    samples_of: Any,
    out: Any,
) -> None:
    """Compute out = x' @ c[0] + (x^3)' @ c[1] + ... from the lists of x's nonzero entries.

    Here x has a last column of ones.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the inputs are divided into.
    values, where, counts : arrays
        As `multiply_rows` leaves them.
    c : float64 array of shape (terms, N, at least H)
    scales, squares : float64 arrays of shape (I + 1, N)
        Scratch, overwritten.
    samples_of : int32 array of shape (I + 1, N)
        Scratch, overwritten.
    out : float64 array of shape (I + 1, H)
        Overwritten.
    """
    inputs, samples = scales.shape
    first = inputs * task // tasks
    last = inputs * (task + 1) // tasks
    filled = np.zeros(last - first, np.int64)
    for n in range(samples):
        for e in range(counts[n]):
            i = where[n, e]
            if first <= i < last:
                entry = filled[i - first]
                scales[i, entry] = values[n, e]
                squares[i, entry] = values[n, e] * values[n, e]
                samples_of[i, entry] = n
                filled[i - first] = entry + 1
    for m in range(c.shape[0]):
        for j in range(0, out.shape[1], GROUP_COLUMNS):  # the group's part of c stays in the cache
            for i in range(first, last):
                count = filled[i - first]
                add_rows(out[i], j, scales[i], samples_of[i], count, c[m], m > 0)
        for i in range(first, last):
            for entry in range(filled[i - first]):
                scales[i, entry] *= squares[i, entry]


class Entries:
    """The nonzero entries of a batch.

    Parameters
    ----------
    x : array of shape (N, I), C-contiguous
    nonzeros : int
        How many there are.
    work : Workspace
        Scratch: one set of entries at a time.
    """

    def __init__(self, x: Doubles, nonzeros: int, work: Workspace) -> None:
        self.x = x
        self._nonzeros = nonzeros
        self._work = work
        samples, inputs = x.shape
        self._lists = (
            work.get("entries", (samples, inputs + 1)),
            work.get("columns of entries", (samples, inputs + 1), np.int32),
            work.get("numbers of entries", (samples,), np.int64),
        )

    def multiply(self, matrix: Doubles, out: Doubles) -> None:
        """Compute out[:, :H] = x @ matrix, and list the entries for `sum`."""
        tasks = tasks_for(self._operations(matrix.shape[1]))
        multiply_rows(tasks, self.x, matrix, *self._lists, out)

    def sum(self, c: Doubles, out: Doubles) -> None:
        """Compute out = x' @ c[0] + (x^3)' @ c[1] + ..., with the lists that `multiply` makes.

        A last row of out is for the biases: there x is 1.
        """
        shape = (len(out), len(self.x))
        scales = self._work.get("scales of entries", shape)
        squares = self._work.get("squares of entries", shape)
        samples_of = self._work.get("samples of entries", shape, np.int32)
        tasks = tasks_for(len(c) * self._operations(out.shape[1]))
        sum_rows(tasks, *self._lists, c, scales, squares, samples_of, out)

    def _operations(self, columns: int) -> int:
        """Return about how many vectors a product with so many columns takes."""
        return self.x.size + self._nonzeros * columns // LANES_PER_VECTOR
