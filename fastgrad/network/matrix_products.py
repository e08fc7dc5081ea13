"""Matrix products on all threads: in tiles whose sums stay in registers, or of nonzeros alone.

LLVM's loop vectoriser does not keep a tile of results in registers, so the tile's instructions are
written out in `jit/instructions.py`, once, for every width of vectors. The method is that of Goto
and van de Geijn (2008), "Anatomy of high-performance matrix multiplication",
doi:10.1145/1356052.1356053.

With NumPy's products, by its BLAS, in place of the tiles, the gradient of 784-100-10 with 100 dense
samples takes 1.9 times as long on one thread, or 1.7 times if it, too, multiplies the cubes in
float32 (784-1000-10 with 1,000 samples: 1.2 times, or the same); and with two threads on a machine
that is busy 50 times as long, since those of OpenBLAS wait for each other where
`fastgrad.jit.concurrency.Pace` goes on with one.
"""

from typing import Any

import numpy as np

from fastgrad.jit.kernel import compiled, inlined, kernel, tasks_for
from fastgrad.jit.vectors import (
    LANES_PER_VECTOR,
    VECTOR_BYTES,
    load_part,
    lowered,
    repeat,
    store_part,
)
from fastgrad.typing import Doubles

# The rows of a tile, and its vectors a row: its sums take 24 of 32 registers, or 12 of 16.
TILE_ROWS, TILE_VECTORS = (8, 3) if LANES_PER_VECTOR == 8 else (4, 3)

# Bytes of a vector in the tiles of the last columns. Of two that are half as wide, the second one
# is often not needed.
NARROW_BYTES = min(VECTOR_BYTES, 32)

# Products summed at a time, and rows: the block of the first factor, 190 KB, stays in a cache of
# 256 KB, and results are read and written as often as there are runs. With 128 and 184 products of
# 1,000 samples with 1,000 units take 1.07 times as long.
RUN_LENGTH = 336
BLOCK_ROWS = 72

# Products from which on float32 pays: to see that it suffices takes some microseconds.
MIN_FLOAT32_PRODUCTS = 1_000_000


def sum_products(out: Doubles, a: Doubles, b: Doubles, exact: int | None = None) -> None:
    """Compute out = a @ b[0] + a^3 @ b[1] + a^5 @ b[2] + ..., with elementwise powers.

    Parameters
    ----------
    out : array of shape (rows, any)
        Overwritten, as far as b has columns. A row's elements are contiguous.
    a : array of shape (rows or fewer, depth), with any strides
        Any further row is one of ones: what such a row weighs is a bias.
    b : array of shape (terms, depth, columns), contiguous
        Columns that `out` does not have are left out.
    exact : int, optional
        From this term on, powers and products are rounded to float32, and at most `RUN_LENGTH`
        products are summed so, in half the time.
    """
    tasks = tasks_for(b.shape[0] * b.shape[1] * out.size // LANES_PER_VECTOR)
    sum_float64_products(tasks, out, a, b[:exact], 0)
    if exact is not None and exact < len(b):
        sum_float32_products(tasks, out, a, b[exact:].astype(np.float32), exact)


def sum_terms(task: int, tasks: int, out: Any, a: Any, b: Any, first: int) -> None:
    """Add the terms a^(2m+1) @ b[m - first] to `out`; if the first one is 0, overwrite it.

    An element's products are summed in runs of at most `RUN_LENGTH`, in order: it has the same bits
    however many tasks there are.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the rows are divided into.
    out : float64 array of shape (rows, any)
        A row's elements are contiguous.
    a : float64 array of shape (rows or fewer, depth), with any strides
        Any further row is one of ones.
    b : float64 or float32 array of shape (terms, depth, columns)
        In its type powers are taken, and runs of products summed.
    first : int
        The first term.
    """
    tiles = -(-out.shape[0] // TILE_ROWS)
    terms, depth, columns = b.shape
    own = out[: tiles * (task + 1) // tasks * TILE_ROWS, :columns]
    runs = -(-depth // RUN_LENGTH)
    packed = np.empty(BLOCK_ROWS * RUN_LENGTH, b.dtype)
    wide = TILE_VECTORS * VECTOR_BYTES // packed.itemsize
    narrow = NARROW_BYTES // packed.itemsize
    for m in range(first, first + terms):
        for r in range(runs):
            k, end = depth * r // runs, depth * (r + 1) // runs
            size = TILE_ROWS * (end - k)
            for top in range(tiles * task // tasks * TILE_ROWS, len(own), BLOCK_ROWS):
                bottom = min(top + BLOCK_ROWS, len(own))
                pack_rows(a[:, k:end], top, bottom, m, packed)
                j = 0
                while j < own.shape[1]:
                    is_wide = j + wide <= own.shape[1]
                    for i in range(top, bottom, TILE_ROWS):
                        place = (i - top) // TILE_ROWS * size
                        tile = packed[place : place + size]
                        if is_wide:
                            multiply_wide_tile(own, i, j, tile, b[m - first], k, j, m + r > 0)
                        else:
                            multiply_narrow_tile(own, i, j, tile, b[m - first], k, j, m + r > 0)
                    j += wide if is_wide else narrow


sum_float64_products = kernel("(float64[:, :], float64[:, :], float64[:, :, ::1], int64)")(
    sum_terms
)
sum_float32_products = kernel("(float64[:, :], float64[:, :], float32[:, :, ::1], int64)")(
    sum_terms
)


@inlined
def pack_rows(a: Any, top: int, bottom: int, m: int, packed: Any) -> None:
    """Copy rows of a, to the power of 2m + 1, as tiles of `TILE_ROWS` rows.

    Parameters
    ----------
    a : float64 array of shape (rows, depth), with any strides
        Any further row is one of ones.
    top, bottom : int
        The first row, and what is beyond the last one.
    m : int
    packed : 1-D float64 or float32 array, with space for whole tiles
        Overwritten: tile by tile, one column of TILE_ROWS elements after the other.
    """
    rows, depth = a.shape
    size = TILE_ROWS * depth
    whole = (min(bottom, rows) - top) // TILE_ROWS if a.strides[0] == a.itemsize else 0
    pack_columns(packed[: whole * size], a, top, m)
    for start in range(top + whole * TILE_ROWS, bottom, TILE_ROWS):
        place = (start - top) * depth
        tile = packed[place : place + size]
        if start + TILE_ROWS > rows:
            tile[:] = 1.0
        pack_tile(tile, a[start : start + TILE_ROWS], m)


@inlined
def pack_tile(tile: Any, a: Any, m: int) -> None:
    """Copy all rows of a, to the power of 2m + 1, into a tile, element by element."""
    rows, depth = a.shape
    for k in range(depth):
        for row in range(rows):
            tile[k * TILE_ROWS + row] = a[row, k]
    if m > 0:
        for e in range(tile.size):
            value = tile[e]
            square = value * value
            for _ in range(m):
                value = value * square
            tile[e] = value


@lowered("pack", tile_rows=TILE_ROWS)
def pack_columns(packed: Any, a: Any, top: int, m: int) -> None:
    """Copy as many tiles as `packed` holds, of rows whose elements in a column lie side by side."""
    size = TILE_ROWS * a.shape[1]
    for place in range(0, packed.size, size):
        start = top + place // size * TILE_ROWS
        pack_tile(packed[place : place + size], a[start : start + TILE_ROWS], m)


# Tiles --------------------------------------------------------------------------------------------


@inlined
def _multiply_tile(
    width_bytes: int, out: Any, i: int, j: int, a: Any, b: Any, k: int, left: int, add: bool
) -> None:
    """Compute a tile without the instructions."""
    depth = a.size // TILE_ROWS
    rows = min(TILE_ROWS, out.shape[0] - i)
    columns = min(width_bytes // a.itemsize, out.shape[1] - j)
    for row in range(rows):
        for column in range(columns):
            total = (a[row::TILE_ROWS] * b[k : k + depth, left + column]).sum()
            out[i + row, j + column] = out[i + row, j + column] + total if add else total


@lowered(
    "tile", tile_rows=TILE_ROWS, vectors=TILE_VECTORS, vector_bytes=VECTOR_BYTES, partial=False
)
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
    _multiply_tile(TILE_VECTORS * VECTOR_BYTES, out, i, j, a, b, k, left, add)


@lowered("tile", tile_rows=TILE_ROWS, vectors=1, vector_bytes=NARROW_BYTES, partial=True)
def multiply_narrow_tile(
    out: Any, i: int, j: int, a: Any, b: Any, k: int, left: int, add: bool
) -> None:
    """Compute a tile as `multiply_wide_tile` does, but one vector wide, up to the last column."""
    _multiply_tile(NARROW_BYTES, out, i, j, a, b, k, left, add)


# Sparse matrices ----------------------------------------------------------------------------------

# Above this share of nonzeros whole tiles are multiplied: they do more, but at a higher rate.
# benchmarks/density.py finds the two equal at a tenth to a quarter, the more the fewer hidden units
# there are; digits, whose zeros lie side by side, have a fifth. With tiles instead, the gradient of
# 784-50-10 with 100 digits takes 1.6 times as long.
MAX_DENSITY = 0.25

# Columns that are summed at a time: seven vectors, whose sums stay in registers. So many additions
# are under way at once that none waits for another; 50, 100 and 1,000 columns waste few lanes.
GROUP_COLUMNS = 7 * LANES_PER_VECTOR


def is_sparse(x: Doubles, nonzeros: int) -> bool:
    """Say whether a batch has so few nonzeros that they are better multiplied one by one."""
    return nonzeros <= MAX_DENSITY * x.size


def sum_sparse_products(out: Doubles, a: Doubles, b: Doubles, nonzeros: int) -> None:
    """Compute what `sum_products` does, of an a that is mostly zeros; `nonzeros` are not."""
    operations = len(b) * (a.size + nonzeros * out.shape[1] // LANES_PER_VECTOR)
    sum_nonzero_products(tasks_for(operations), out, a, b)


@kernel("(float64[:, ::1], float64[:, :], float64[:, :, ::1])")
def sum_nonzero_products(task: int, tasks: int, out: Any, a: Any, b: Any) -> None:
    """Compute out = a @ b[0] + a^3 @ b[1] + a^5 @ b[2] + ..., row by row, of nonzeros alone.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the rows are divided into.
    out : float64 array of shape (rows, any)
        Overwritten, as far as b has columns.
    a : float64 array of shape (rows or fewer, depth), with any strides
        Any further row is one of ones.
    b : float64 array of shape (terms, depth, columns)
        Columns that `out` does not have are left out.
    """
    rows = out.shape[0]
    terms, depth, columns = b.shape
    powers = np.empty((terms, depth))
    where = np.empty(depth, np.int64)
    for i in range(rows * task // tasks, rows * (task + 1) // tasks):
        count = 0
        for k in range(depth):
            value = a[i, k] if i < a.shape[0] else 1.0
            powers[0, count] = value
            where[count] = k
            count += value != 0.0  # no branch: nothing could predict it
        for m in range(1, terms):
            for e in range(count):
                powers[m, e] = powers[m - 1, e] * (powers[0, e] * powers[0, e])
        for j in range(0, min(columns, out.shape[1]), GROUP_COLUMNS):
            sum_rows(out[i, :columns], j, powers, where, count, b)


@inlined
def sum_rows(out: Any, j: int, powers: Any, where: Any, count: int, b: Any) -> None:
    """Compute out[g] = sum over m and e < count of powers[m, e] b[m, where[e], g].

    The columns g are the group of up to `GROUP_COLUMNS` that starts at j.

    Parameters
    ----------
    out : float64 array of shape (columns,)
        Overwritten from j to j + GROUP_COLUMNS.
    j : int
    powers : float64 array of shape (terms, at least count)
    where : int64 array of shape (at least count,)
    count : int
    b : float64 array of shape (terms, any, at least columns)
    """
    width = out.size - j
    sum0 = repeat(0.0)
    sum1 = repeat(0.0)
    sum2 = repeat(0.0)
    sum3 = repeat(0.0)
    sum4 = repeat(0.0)
    sum5 = repeat(0.0)
    sum6 = repeat(0.0)
    for m in range(b.shape[0]):
        for e in range(count):
            power = powers[m, e]
            row = b[m, where[e]]
            sum0 = sum0 + power * load_part(row, j, width)
            sum1 = sum1 + power * load_part(row, j + LANES_PER_VECTOR, width - LANES_PER_VECTOR)
            sum2 = sum2 + power * load_part(
                row, j + 2 * LANES_PER_VECTOR, width - 2 * LANES_PER_VECTOR
            )
            sum3 = sum3 + power * load_part(
                row, j + 3 * LANES_PER_VECTOR, width - 3 * LANES_PER_VECTOR
            )
            sum4 = sum4 + power * load_part(
                row, j + 4 * LANES_PER_VECTOR, width - 4 * LANES_PER_VECTOR
            )
            sum5 = sum5 + power * load_part(
                row, j + 5 * LANES_PER_VECTOR, width - 5 * LANES_PER_VECTOR
            )
            sum6 = sum6 + power * load_part(
                row, j + 6 * LANES_PER_VECTOR, width - 6 * LANES_PER_VECTOR
            )
    store_part(out, j, width, sum0)
    store_part(out, j + LANES_PER_VECTOR, width - LANES_PER_VECTOR, sum1)
    store_part(out, j + 2 * LANES_PER_VECTOR, width - 2 * LANES_PER_VECTOR, sum2)
    store_part(out, j + 3 * LANES_PER_VECTOR, width - 3 * LANES_PER_VECTOR, sum3)
    store_part(out, j + 4 * LANES_PER_VECTOR, width - 4 * LANES_PER_VECTOR, sum4)
    store_part(out, j + 5 * LANES_PER_VECTOR, width - 5 * LANES_PER_VECTOR, sum5)
    store_part(out, j + 6 * LANES_PER_VECTOR, width - 6 * LANES_PER_VECTOR, sum6)


# What is in a matrix ------------------------------------------------------------------------------

MAGNITUDE_BITS = 0x7FFF_FFFF_FFFF_FFFF  # all bits of a float64 but its sign


def magnitude_and_nonzeros(values: Doubles) -> tuple[float, int]:
    """Return the largest magnitude and the number of nonzero entries of a contiguous array.

    A nan counts as larger than inf, and inf as larger than any number. An empty array has (0.0, 0).
    It takes half the time of two reductions of NumPy.
    """
    largest, nonzeros = _largest_bits_and_nonzeros(values.reshape(-1).view(np.int64))
    return float(np.int64(largest).view(np.float64)), nonzeros


def _magnitude_bits_and_nonzeros(bits: Any) -> tuple[int, int]:
    """Return them for the bits of numbers: as integers, magnitudes have the same order.

    LLVM vectorises that, and not the comparison of numbers among which there may be a nan.
    """
    largest = 0
    nonzeros = 0
    for i in range(bits.size):
        magnitude = bits[i] & MAGNITUDE_BITS
        largest = max(largest, magnitude)
        nonzeros += magnitude != 0
    return largest, nonzeros


_largest_bits_and_nonzeros = compiled(
    _magnitude_bits_and_nonzeros, _magnitude_bits_and_nonzeros, "Tuple((int64, int64))(int64[::1])"
)
