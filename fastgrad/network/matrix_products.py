"""Matrix products in small tiles whose sums stay in registers, on all threads.

LLVM's loop vectoriser does not keep a tile of results in registers, so the tile's instructions are
written out in `jit/instructions.py`, once, for every width of vectors. The method is that of Goto
and van de Geijn (2008), "Anatomy of high-performance matrix multiplication",
doi:10.1145/1356052.1356053.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.jit.kernel import inlined, kernel, tasks_for
from fastgrad.jit.vectors import LANES_PER_VECTOR, VECTOR_BYTES, load, lowered, store
from fastgrad.network.workspace import Workspace
from fastgrad.typing import Doubles

# The rows of a tile, and its vectors a row: 24 of 32 registers, or 12 of 16, hold sums.
TILE_ROWS, TILE_VECTORS = (8, 3) if LANES_PER_VECTOR == 8 else (4, 3)

# The sizes of a block, for caches of 32 KB and 512 KB, or more.
TILE_COLUMNS = TILE_VECTORS * LANES_PER_VECTOR  # of a wide tile
# Products summed at a time: so deep, a tile's part of b stays in the first level. In b itself it
# takes up more lines of the cache than in a copy without gaps.
RUN_LENGTH = 128
PACKED_RUN_LENGTH = 2400 // TILE_COLUMNS
MAX_RUN_LENGTH = max(RUN_LENGTH, PACKED_RUN_LENGTH)
# Elements of a at a time: they take 190 KB of the second level.
BLOCK_ELEMENTS = 24_000

# Products from which on float32 pays: to see that it suffices takes some microseconds.
MIN_FLOAT32_PRODUCTS = 1_000_000

# A copy pays off when b's rows lie in a page of memory each, and each of its parts is used often.
MIN_PACKED_COLUMNS = 512
MIN_PACKED_ROWS = 256


def sum_products(
    out: Doubles, a: Doubles, b: Doubles, work: Workspace, exact: int | None = None
) -> None:
    """Compute out = a @ b[0] + a^3 @ b[1] + a^5 @ b[2] + ..., with elementwise powers.

    Parameters
    ----------
    out : array of shape (rows, columns)
        Overwritten. A row's elements are contiguous.
    a : array of shape (rows or fewer, depth), with any strides
        Any further row is one of ones: what such a row weighs is a bias.
    b : array of shape (terms, depth, at least columns)
        A row's elements are contiguous.
    work : Workspace
        Scratch.
    exact : int, optional
        From this term on, products are rounded to float32, and at most `MAX_RUN_LENGTH` of them are
        summed so, in half the time.
    """
    terms, depth, _ = b.shape
    exact = terms if exact is None else exact
    rows, columns = out.shape
    tasks = tasks_for(terms * depth * out.size // LANES_PER_VECTOR)
    share = -(-rows // (tasks * TILE_ROWS)) * TILE_ROWS
    packs = columns >= MIN_PACKED_COLUMNS and rows >= MIN_PACKED_ROWS
    longest = PACKED_RUN_LENGTH if packs else RUN_LENGTH
    panels = -(-columns // TILE_COLUMNS) if packs else 0
    rounded_panels = -(-columns // (2 * TILE_COLUMNS)) if exact < terms else 0
    sum_products_kernel(
        tasks, out, a, b, exact, share, longest,
        _scratch((tasks, BLOCK_ELEMENTS), np.float64, work),
        _scratch((tasks, panels * longest, TILE_COLUMNS), np.float64, work),
        _scratch((tasks, BLOCK_ELEMENTS), np.float32, work),
        _scratch((tasks, rounded_panels * longest, 2 * TILE_COLUMNS), np.float32, work),
    )  # fmt: skip


def _scratch(shape: tuple[int, ...], dtype: type[np.floating], work: Workspace) -> NDArray[Any]:
    """Return scratch that is kept while products of other sizes, or in other tasks, take turns."""
    return work.get(("products", dtype, shape), shape, dtype)


@kernel(
    "(float64[:, :], float64[:, :], float64[:, :, :], int64, int64, int64, float64[:, ::1], "
    "float64[:, :, ::1], float32[:, ::1], float32[:, :, ::1])"
)
def sum_products_kernel(
    task: int,
    tasks: int,
    out: Any,
    a: Any,
    b: Any,
    exact: int,
    share: int,
    longest: int,
    packed_a: Any,
    packed_b: Any,
    rounded_a: Any,
    rounded_b: Any,
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
    a : float64 array of shape (rows or fewer, depth), with any strides
        Any further row is one of ones.
    b : float64 array of shape (terms, depth, at least columns)
        A row's elements are contiguous.
    exact : int
        How many terms are computed in float64; each run of products of the others in float32.
    share, longest : int
        Rows a task, and the length of a run, at most.
    packed_a : float64 array of shape (tasks, BLOCK_ELEMENTS)
        Scratch, overwritten.
    packed_b : float64 array of shape (tasks, panels * longest, TILE_COLUMNS), or with no panels
        Scratch, overwritten; without it, b is used as it lies where it is not rounded.
    rounded_a : float32 array of shape (tasks, BLOCK_ELEMENTS)
        Scratch, overwritten.
    rounded_b : float32 array of shape (tasks, panels * longest, 2 * TILE_COLUMNS)
        Scratch, overwritten; it may have no panels if all terms are exact.
    """
    rows, columns = out.shape
    terms, depth = b.shape[:2]
    runs = -(-depth // longest)
    block = BLOCK_ELEMENTS // longest // TILE_ROWS * TILE_ROWS
    packs = packed_b.shape[1] > 0
    for m in range(terms):
        for r in range(runs):
            k = depth * r // runs
            end = depth * (r + 1) // runs
            run = end - k
            add = m + r > 0
            if m >= exact:
                pack_columns(b[m], k, end, columns, rounded_b[task])
            elif packs:
                pack_columns(b[m], k, end, columns, packed_b[task])
            source = packed_b[task] if packs else b[m]
            for top in range(min(task * share, rows), min((task + 1) * share, rows), block):
                bottom = min(top + block, (task + 1) * share, rows)
                pack_rows(a, top, bottom, k, end, 2 * m + 1, packed_a[task])
                own = out[top:bottom]
                if m >= exact:
                    for e in range(-(-(bottom - top) // TILE_ROWS) * TILE_ROWS * run):
                        rounded_a[task, e] = packed_a[task, e]
                    multiply_packed(own, rounded_a[task], run, rounded_b[task], 0, True, add)
                else:
                    multiply_packed(own, packed_a[task], run, source, k, packs, add)


@inlined
def multiply_packed(
    own: Any, packed: Any, run: int, b: Any, k: int, packs: bool, add: bool
) -> None:
    """Compute own = a @ b, tile by tile, or add that to it.

    Parameters
    ----------
    own : float64 array of shape (rows, columns)
        Overwritten.
    packed : 1-D float64 or float32 array
        a, as `pack_rows` leaves it.
    run : int
        The columns of a.
    b : array of packed's type
        As `pack_columns` leaves it if `packs`; else its rows from k on.
    k : int
    packs, add : bool
    """
    rows, columns = own.shape
    lanes = VECTOR_BYTES // packed.itemsize
    j = 0
    while j < columns:
        wide = j + TILE_VECTORS * lanes <= columns
        row = j // (TILE_VECTORS * lanes) * run if packs else k
        column = j % (TILE_VECTORS * lanes) if packs else j
        for i in range(0, rows, TILE_ROWS):
            tile = packed[i * run : (i + TILE_ROWS) * run]
            if wide:
                multiply_wide_tile(own, i, j, tile, b, row, column, add)
            else:
                multiply_narrow_tile(own, i, j, tile, b, row, column, add)
        j += TILE_VECTORS * lanes if wide else lanes


@inlined
def pack_rows(
    a: Any, top: int, bottom: int, first: int, last: int, power: int, packed: Any
) -> None:
    """Copy columns `first` to `last` of rows of a, to some power, as tiles of `TILE_ROWS` rows.

    Parameters
    ----------
    a : float64 array of shape (rows, depth), with any strides
        Any further row is one of ones.
    top, bottom : int
        The first row, and what is beyond the last one.
    first, last : int
    power : int
        Odd and positive.
    packed : 1-D float64 array, with space for whole tiles
        Overwritten: tile by tile, one column of TILE_ROWS elements after the other.
    """
    rows = a.shape[0]
    run = last - first
    for start in range(top, bottom, TILE_ROWS):
        tile = packed[(start - top) * run : (start - top + TILE_ROWS) * run]
        if start + TILE_ROWS <= rows:
            for k in range(run):
                for row in range(TILE_ROWS):
                    tile[k * TILE_ROWS + row] = a[start + row, first + k]
        else:
            for k in range(run):
                for row in range(TILE_ROWS):
                    inside = start + row < rows
                    tile[k * TILE_ROWS + row] = a[start + row, first + k] if inside else 1.0
        if power > 1:
            for e in range(0, TILE_ROWS * run, LANES_PER_VECTOR):
                value = load(tile, e)
                square = value * value
                for _ in range(power // 2):
                    value = value * square
                store(tile, e, value)


@inlined
def pack_columns(b: Any, first: int, last: int, columns: int, packed: Any) -> None:
    """Copy rows `first` to `last` of b as panels of `TILE_COLUMNS` columns.

    Parameters
    ----------
    b : float64 array of shape (depth, at least columns)
        A row's elements are contiguous.
    first, last, columns : int
    packed : float64 or float32 array of shape (panels * (last - first) or more, width of a tile)
        Overwritten: panel by panel, one row after the other, the last panel padded with anything.
    """
    run = last - first
    width = TILE_VECTORS * VECTOR_BYTES // packed.itemsize
    for k in range(run):
        for j in range(0, columns, width):
            row = j // width * run + k
            for column in range(min(width, columns - j)):
                packed[row, column] = b[first + k, j + column]


# Tiles --------------------------------------------------------------------------------------------


@inlined
def _multiply_tile(
    vectors: int, out: Any, i: int, j: int, a: Any, b: Any, k: int, left: int, add: bool
) -> None:
    """Compute a tile without the instructions."""
    depth = a.size // TILE_ROWS
    rows = min(TILE_ROWS, out.shape[0] - i)
    columns = min(vectors * (VECTOR_BYTES // a.itemsize), out.shape[1] - j)
    for row in range(rows):
        for column in range(columns):
            total = (a[row::TILE_ROWS] * b[k : k + depth, left + column]).sum()
            out[i + row, j + column] = out[i + row, j + column] + total if add else total


@lowered("tile", tile_rows=TILE_ROWS, vectors=TILE_VECTORS, partial=False)
def multiply_wide_tile(
    out: Any, i: int, j: int, a: Any, b: Any, k: int, left: int, add: bool
) -> None:
    """Compute a tile of a product, out[i:, j:] = a @ b[k:, left:], of full width.

    The tile has `TILE_ROWS` rows, each of `TILE_VECTORS` vectors.

    Parameters
    ----------
    out : float64 array of shape (rows, columns)
        Overwritten at the tile's place, up to its last row. A row's elements are contiguous.
    i, j : int
        The tile's first row and column.
    a : contiguous float64 or float32 array of size TILE_ROWS * depth
        The first factor, one column of TILE_ROWS elements after the other; rows that `out` does not
        have are computed, but not stored.
    b : array of a's type, of shape (any, any)
        The second factor is b[k : k + depth, left : left + width]. A row's elements are contiguous.
        A vector of float32 has twice the lanes, and its products are summed in float32.
    k, left : int
        Its first row and column.
    add : bool
        Whether to add to `out` or to overwrite it.
    """
    _multiply_tile(TILE_VECTORS, out, i, j, a, b, k, left, add)


@lowered("tile", tile_rows=TILE_ROWS, vectors=1, partial=True)
def multiply_narrow_tile(
    out: Any, i: int, j: int, a: Any, b: Any, k: int, left: int, add: bool
) -> None:
    """Compute a tile as `multiply_wide_tile` does, but one vector wide, up to the last column."""
    _multiply_tile(1, out, i, j, a, b, k, left, add)
