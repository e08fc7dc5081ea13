"""How are whole matrices multiplied? In blocks that fit the caches, one numba thread a block."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.network.jit import inlined, kernel, tasks_for
from fastgrad.network.tile import ROWS, VECTORS, multiply_narrow_tile, multiply_wide_tile
from fastgrad.network.vectors import LANES, load, store
from fastgrad.network.work import WorkArrays

Array = NDArray[np.float64]

# The sizes of a block, for caches of 32 KB and 512 KB, or more.
WIDTH = VECTORS * LANES  # the columns of a wide tile
# Products summed at a time: so deep, a tile's part of b stays in the first level. In b itself it
# takes up more lines of the cache than in a copy without gaps.
RUN = 128
PACKED_RUN = 2400 // WIDTH
# Elements of a at a time: they take 190 KB of the second level.
BLOCK = 24_000

# A copy pays off when b's rows lie in a page of memory each, and each of its parts is used often.
PAGE = 512
MANY_ROWS = 256


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


@inlined
def pack_columns(b: Any, first: int, last: int, columns: int, packed: Any) -> None:
    """Copy rows `first` to `last` of b as panels of `WIDTH` columns.

    Parameters
    ----------
    b : float64 array of shape (depth, at least columns)
        A row's elements are contiguous.
    first, last, columns : int
    packed : float64 array of shape (panels * (last - first) or more, WIDTH)
        Overwritten: panel by panel, one row after the other, the last panel padded with anything.
    """
    run = last - first
    for k in range(run):
        for j in range(0, columns, WIDTH):
            row = j // WIDTH * run + k
            for column in range(min(WIDTH, columns - j)):
                packed[row, column] = b[first + k, j + column]


@kernel(
    "(float64[:, :], float64[:, :], float64[:, :, :], int64, int64, float64[:, ::1], "
    "float64[:, :, ::1])"
)
def sum_products_kernel(
    task: int,
    tasks: int,
    out: Any,
    a: Any,
    b: Any,
    share: int,
    longest: int,
    packed_a: Any,
    packed_b: Any,
) -> None:
    """Compute out = a @ b[0] + a^3 @ b[1] + a^5 @ b[2] + ..., with elementwise powers.

    An element's products are summed in runs of at most `longest`, in order: it has the same bits
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
    share, longest : int
        Rows a task, and the length of a run, at most.
    packed_a : float64 array of shape (tasks, BLOCK)
        Scratch, overwritten.
    packed_b : float64 array of shape (tasks, panels * longest, WIDTH), or with no panels
        Scratch, overwritten; without it, b is used as it lies.
    """
    rows, columns = out.shape
    terms, depth = b.shape[:2]
    runs = -(-depth // longest)
    block = BLOCK // longest // ROWS * ROWS
    packs = packed_b.shape[1] > 0
    for m in range(terms):
        for r in range(runs):
            k = depth * r // runs
            end = depth * (r + 1) // runs
            run = end - k
            add = m + r > 0
            if packs:
                pack_columns(b[m], k, end, columns, packed_b[task])
            source = packed_b[task] if packs else b[m]
            for first in range(min(task * share, rows), min((task + 1) * share, rows), block):
                last = min(first + block, (task + 1) * share, rows)
                own = out[first:last]
                pack_rows(a[first:last], k, end, 2 * m + 1, packed_a[task])
                j = 0
                while j < columns:
                    wide = j + WIDTH <= columns
                    row = j // WIDTH * run if packs else k
                    column = j % WIDTH if packs else j
                    for i in range(0, last - first, ROWS):
                        tile = packed_a[task, i * run : (i + ROWS) * run]
                        if wide:
                            multiply_wide_tile(own, i, j, tile, source, row, column, add)
                        else:
                            multiply_narrow_tile(own, i, j, tile, source, row, column, add)
                    j += WIDTH if wide else LANES


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
    rows, columns = out.shape
    tasks = tasks_for(terms * depth * out.size // LANES)
    share = -(-rows // tasks)
    packs = columns >= PAGE and rows >= MANY_ROWS
    panels = -(-columns // WIDTH) if packs else 0
    longest = PACKED_RUN if packs else RUN
    packed_a = work.get("packed a", (tasks, BLOCK))
    packed_b = work.get(f"{panels} panels of b", (tasks, panels * longest, WIDTH))
    sum_products_kernel(tasks, out, a, b, share, longest, packed_a, packed_b)
