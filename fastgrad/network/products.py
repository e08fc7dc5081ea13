"""How are whole matrices multiplied? In blocks that fit the caches, one numba thread a block."""

from typing import Any

import numba
import numpy as np
from numba import prange
from numpy.typing import NDArray

from fastgrad.network.jit import Kernel, inlined
from fastgrad.network.tile import (
    ROWS,
    VECTORS,
    lanes,
    multiply_narrow_tile,
    multiply_wide_tile,
)
from fastgrad.network.vectors import VECTOR_BYTES
from fastgrad.network.work import WorkArrays

Array = NDArray[np.float64]

# The sizes of a block, for a first-level cache of 32 to 48 KB and a second-level one of 1 to 2 MB.
# A tile's row and a panel's column take 1 KB: a wide panel then stays in the first-level cache.
RUN_BYTES = 1024
# Columns and rows of a block: its results, which take 1 MB, stay in the second-level cache.
COLUMNS = 264
MOST_ROWS = 504
# What a block of these sizes needs as scratch, padded to whole tiles and vectors.
TILES_BYTES = (MOST_ROWS + ROWS) * RUN_BYTES
PANELS_BYTES = (COLUMNS + VECTOR_BYTES) * RUN_BYTES


def _pack_rows(a: Any, power: int, packed: Any) -> None:
    """Copy a**power into tiles of `ROWS` rows, each with its columns one after the other.

    Parameters
    ----------
    a : float64 array of shape (rows, depth), with any strides
    power : int
        Odd and positive; taken in float64.
    packed : 1-D array of the factors' dtype, size at least rows * depth, rounded up to whole tiles
        Overwritten; rows beyond the last one of a are left as they are.
    """
    rows, depth = a.shape
    for first in range(0, rows, ROWS):
        tile = packed[first * depth : (first + ROWS) * depth]
        used = min(ROWS, rows - first)
        if used == ROWS and power == 1:
            for k in range(depth):
                for row in range(ROWS):
                    tile[k * ROWS + row] = a[first + row, k]
        elif used == ROWS and power == 3:
            for k in range(depth):
                for row in range(ROWS):
                    value = a[first + row, k]
                    tile[k * ROWS + row] = value * value * value
        else:
            for k in range(depth):
                for row in range(used):
                    value = a[first + row, k]
                    square = value * value
                    for _ in range(power // 2):
                        value *= square
                    tile[k * ROWS + row] = value


def _pack_panels(b: Any, packed: Any) -> None:
    """Copy b into wide panels, then narrow ones, each with its rows one after the other.

    Parameters
    ----------
    b : array of shape (depth, columns)
    packed : 1-D array of the factors' dtype
        Overwritten; the last panel is padded with zeros.
    """
    depth, columns = b.shape
    narrow = lanes(packed)
    width = VECTORS * lanes(packed)
    wide = columns // width
    for k in range(depth):
        for panel in range(wide):
            start = (panel * depth + k) * width
            for column in range(width):
                packed[start + column] = b[k, panel * width + column]
    start = wide * depth * width
    for first in range(wide * width, columns, narrow):
        used = min(narrow, columns - first)
        for k in range(depth):
            for column in range(narrow):
                packed[start + column] = b[k, first + column] if column < used else 0.0
            start += narrow


def _multiply_block(
    out: Any, a: Any, power: int, b: Any, tiles: Any, panels: Any, add: bool
) -> None:
    """Compute out = a**power @ b, or out += a**power @ b if `add`, with one thread.

    An element's products are summed in runs of at most 1 KB, in order: it has the same bits however the
    matrices are cut into blocks. The products are taken in the dtype of the scratch arrays.

    Parameters
    ----------
    out : float64 array of shape (rows, columns)
        Overwritten. A row's elements are contiguous.
    a : float64 array of shape (rows, depth), with any strides
    power : int
        Odd and positive; elementwise.
    b : float64 array of shape (depth, columns)
    tiles, panels : 1-D float64 or float32 arrays
        Scratch, overwritten; at least `TILES_BYTES` and `PANELS_BYTES`.
    add : bool
        Whether to add to `out` or to overwrite it.
    """
    rows, columns = out.shape
    depth = a.shape[1]
    narrow = lanes(panels)
    width = VECTORS * narrow
    longest = RUN_BYTES // panels.itemsize
    runs = (depth + longest - 1) // longest
    for left in range(0, columns, COLUMNS):
        right = min(left + COLUMNS, columns)
        for r in range(runs):
            k = depth * r // runs
            run = depth * (r + 1) // runs - k
            accumulate = add or k > 0
            pack_rows(a[:, k : k + run], power, tiles)
            pack_panels(b[k : k + run, left:right], panels)
            start = 0
            column = left
            while column < right:
                if right - column >= width:
                    panel = panels[start : start + run * width]
                    for i in range(0, rows, ROWS):
                        multiply_wide_tile(
                            out[i : i + ROWS, column : column + width],
                            tiles[i * run : (i + ROWS) * run],
                            panel,
                            accumulate,
                        )
                    column += width
                    start += run * width
                else:
                    panel = panels[start : start + run * narrow]
                    for i in range(0, rows, ROWS):
                        multiply_narrow_tile(
                            out[i : i + ROWS, column : min(column + narrow, right)],
                            tiles[i * run : (i + ROWS) * run],
                            panel,
                            accumulate,
                        )
                    column += narrow
                    start += run * narrow


pack_rows = inlined(_pack_rows)
pack_panels = inlined(_pack_panels)
multiply_block = inlined(_multiply_block)


def _sum_products(
    out: Any, a: Any, power: int, b: Any, add: bool, block: int, tiles: Any, panels: Any
) -> None:
    """Compute out = a^power @ b[0] + a^(power + 2) @ b[1] + ..., or add that to `out` if `add`.

    Parameters
    ----------
    out : float64 array of shape (rows, columns)
        Overwritten. A row's elements are contiguous.
    a : float64 array of shape (rows, depth), with any strides
    power : int
        Odd and positive; elementwise.
    b : float64 array of shape (terms, depth, columns)
    add : bool
        Whether to add to `out` or to overwrite it.
    block : int
        Rows a task, at most `MOST_ROWS`.
    tiles, panels : float64 or float32 arrays of shape (tasks, any)
        Scratch, overwritten; at least `TILES_BYTES` and `PANELS_BYTES` a task. The products are
        taken in their dtype.
    """
    rows, columns = out.shape
    terms, depth = b.shape[:2]
    for task in prange(tiles.shape[0]):
        first = min(task * block, rows)
        last = min(first + block, rows)
        for m in range(terms):
            multiply_block(
                out[first:last, 0:columns],
                a[first:last, 0:depth],
                power + 2 * m,
                b[m],
                tiles[task],
                panels[task],
                add or m > 0,
            )


_SIGNATURE = "(float64[:, :], float64[:, :], int64, float64[:, :, :], boolean, int64, {0}, {0})"
_sum_doubles = Kernel(_sum_products, _SIGNATURE.format("float64[:, ::1]"))
_sum_singles = Kernel(_sum_products, _SIGNATURE.format("float32[:, ::1]"))


def sum_products(
    out: Array,
    a: Array,
    b: Array,
    work: WorkArrays,
    *,
    power: int = 1,
    add: bool = False,
    single: bool = False,
) -> None:
    """Compute out = a^power @ b[0] + a^(power + 2) @ b[1] + ..., or add that to `out` if `add`.

    Parameters
    ----------
    out : array of shape (rows, columns)
        Overwritten. A row's elements are contiguous.
    a : array of shape (rows, depth), with any strides
    b : array of shape (terms, depth, columns), with any strides
    work : WorkArrays
        Scratch.
    power : int
        Odd and positive; elementwise.
    add : bool
        Whether to add to `out` or to overwrite it.
    single : bool
        Whether to multiply in float32.
    """
    threads = numba.get_num_threads()
    tasks = threads * -(-len(out) // (threads * MOST_ROWS))
    kind = np.dtype(np.float32 if single else np.float64)
    tiles = work.get(f"tiles {kind}", (tasks, TILES_BYTES // kind.itemsize), kind)
    panels = work.get(f"panels {kind}", (tasks, PANELS_BYTES // kind.itemsize), kind)
    kernel = _sum_singles if single else _sum_doubles
    kernel(out, a, power, b, add, -(-len(out) // tasks), tiles, panels)
