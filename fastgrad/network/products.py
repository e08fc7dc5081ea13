"""How are whole matrices multiplied? In blocks that fit the caches, one numba thread a block."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.network.jit import inlined, kernel, tasks_for
from fastgrad.network.tile import ROWS, VECTORS, multiply_narrow_tile, multiply_wide_tile
from fastgrad.network.vectors import LANES, load, store
from fastgrad.network.work import WorkArrays

Array = NDArray[np.float64]

# The sizes of a block, for a first-level cache of 32 to 48 KB and a second-level one of 1 to 2 MB.
RUN = 128  # products summed at a time: so deep, a wide tile's part of b stays in the first level
COLUMNS = 11 * VECTORS * LANES  # and the block's part of b, and its results, in the second
MOST_ROWS = 504


@inlined
def pack_rows(a: Any, first: int, last: int, power: int, packed: Any) -> None:
    """Copy columns `first` to `last` of a, to some power, as tiles of `ROWS` rows.

    Parameters
    ----------
    a : float64 array of shape (rows, depth), with any strides
    first, last : int
    power : int
        Odd and positive.
    packed : 1-D float64 array, with space for whole tiles
        Overwritten: tile by tile, one column of ROWS elements after the other, the last tile
        padded with zeros.
    """
    rows = a.shape[0]
    run = last - first
    for start in range(0, rows, ROWS):
        tile = packed[start * run : (start + ROWS) * run]
        if start + ROWS <= rows:
            for k in range(run):
                for row in range(ROWS):
                    tile[k * ROWS + row] = a[start + row, first + k]
        else:
            for k in range(run):
                for row in range(ROWS):
                    inside = start + row < rows
                    tile[k * ROWS + row] = a[start + row, first + k] if inside else 0.0
        if power > 1:
            for e in range(0, ROWS * run, LANES):
                value = load(tile, e)
                square = value * value
                for _ in range(power // 2):
                    value = value * square
                store(tile, e, value)


@kernel("(float64[:, :], float64[:, :], float64[:, :, :], int64, float64[:, ::1])")
def sum_products_kernel(
    task: int, tasks: int, out: Any, a: Any, b: Any, block: int, packed: Any
) -> None:
    """Compute out = a @ b[0] + a^3 @ b[1] + a^5 @ b[2] + ..., with elementwise powers.

    An element's products are summed in runs of at most `RUN`, in order: it has the same bits
    however many tasks there are.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the rows are divided into.
    out : float64 array of shape (rows, columns)
        Overwritten. A row's elements are contiguous.
    a : float64 array of shape (rows, depth), with any strides
    b : float64 array of shape (terms, depth, at least columns)
        A row's elements are contiguous.
    block : int
        Rows a task, at most `MOST_ROWS`.
    packed : float64 array of shape (tasks, (MOST_ROWS + ROWS) * RUN)
        Scratch, overwritten.
    """
    rows, columns = out.shape
    terms, depth = b.shape[:2]
    runs = -(-depth // RUN)
    first = min(task * block, rows)
    last = min(first + block, rows)
    own = out[first:last]
    for left in range(0, columns, COLUMNS):
        right = min(left + COLUMNS, columns)
        for m in range(terms):
            for r in range(runs):
                k = depth * r // runs
                end = depth * (r + 1) // runs
                add = m + r > 0
                pack_rows(a[first:last], k, end, 2 * m + 1, packed[task])
                j = left
                while j < right:
                    wide = j + VECTORS * LANES <= right
                    for i in range(0, last - first, ROWS):
                        tile = packed[task, i * (end - k) : (i + ROWS) * (end - k)]
                        if wide:
                            multiply_wide_tile(own, i, j, tile, b[m], k, add)
                        else:
                            multiply_narrow_tile(own, i, j, tile, b[m], k, add)
                    j += VECTORS * LANES if wide else LANES


def sum_products(out: Array, a: Array, b: Array, work: WorkArrays) -> None:
    """Compute out = a @ b[0] + a^3 @ b[1] + a^5 @ b[2] + ..., with elementwise powers.

    Parameters
    ----------
    out : array of shape (rows, columns)
        Overwritten. A row's elements are contiguous.
    a : array of shape (rows, depth), with any strides
    b : array of shape (terms, depth, at least columns)
        A row's elements are contiguous.
    work : WorkArrays
        Scratch.
    """
    terms, depth, _ = b.shape
    threads = tasks_for(terms * depth * out.size // LANES)
    tasks = threads * -(-len(out) // (threads * MOST_ROWS))
    packed = work.get("packed", (tasks, (MOST_ROWS + ROWS) * RUN))
    sum_products_kernel(tasks, out, a, b, -(-len(out) // tasks), packed)
