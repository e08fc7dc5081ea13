"""Matrix products on all threads: in tiles whose sums stay in registers, or of nonzeros alone.

LLVM's loop vectoriser does not keep a tile of results in registers, so the tile's instructions are
written out in `jit/instructions.py`, once, for every width of vectors. The method is that of Goto
and van de Geijn (2008), "Anatomy of high-performance matrix multiplication",
doi:10.1145/1356052.1356053, but that factors are read where they are: only where many rows share
the second one, its columns are copied first.
"""

import math
from functools import lru_cache
from typing import Any

import numpy as np

from fastgrad.jit.kernel import (
    HAND_WRITTEN,
    LANES_PER_VECTOR,
    VECTOR_BYTES,
    compiled,
    inlined,
    kernel,
    load,
    load_part,
    lowered,
    repeat,
    store,
    store_part,
    store_words,
    tasks_for,
)
from fastgrad.typing import Doubles

# The rows of a tile, and its vectors a row: its sums take 24 of 32 registers, or 12 of 16.
TILE_ROWS, TILE_VECTORS = (8, 3) if LANES_PER_VECTOR == 8 else (4, 3)

# The bytes of a vector at the edge: few columns are computed that are not there, where a processor
# computes 512 bits in two halves.
EDGE_BYTES = min(VECTOR_BYTES, 32)

# Products summed at a time: a tile's columns of the second factor stay in a cache of 256 KB, and
# results are read and written as often as there are runs.
RUN_LENGTH = 512

# The largest magnitude of rounded integers: RUN_LENGTH products are less than 2^31.
MAX_INTEGER = 2047

# Rows from which on it pays to copy the second factor.
MIN_ROWS_TO_PACK = 256

# Products from which on integers pay: to see that they suffice takes time, too.
MIN_INTEGER_PRODUCTS = 1_000_000


def multiply(out: Doubles, a: Doubles, b: Doubles) -> None:
    """Compute out = a @ b.

    Parameters
    ----------
    out : array of shape (rows, at least columns)
        Overwritten, as far as b has columns.
    a : array of shape (rows, depth)
    b : array of shape (depth, columns)
    """
    sum_float64_products(_tasks(out, b), out, a, b, 1.0, 1.0, False)


def sum_polynomials(
    out: Doubles,
    x: Doubles,
    c: Doubles,
    reach: float = 1.0,
    exact: int | None = None,
    add: bool = False,
) -> None:
    """Sum odd polynomials of inputs over the samples, and the same of a last input that is 1.

        out[i, j] = sum over n of x[n, i] c[0, n, j] + sum over n, m > 0 of P_m(x[n, i]) c[m, n, j]

    with the Chebyshev polynomials P_m(x) = T_(2m+1)(x / reach).

    Parameters
    ----------
    out : array of shape (inputs + 1, any)
        Overwritten, as far as c has columns.
    x : array of shape (samples, at least inputs), C-contiguous
        Further columns are left out.
    c : array of shape (terms, samples, columns), C-contiguous
        Columns that `out` does not have are left out.
    reach : float
        At least the largest magnitude in x, and 1.
    exact : int, optional
        From this term on, polynomials and coefficients are rounded to integers between
        +-`MAX_INTEGER`, which are summed exactly, and faster.
    add : bool
        Whether to add to `out` or to overwrite it.
    """
    inputs = len(out) - 1
    tasks = _tasks(out, c[0])
    sum_float64_products(tasks, out, x[:, :inputs].T, c[0], 1.0, 1.0, add)
    for m in range(1, len(c)):
        one = math.cos((2 * m + 1) * math.acos(1 / reach))  # the polynomial of an input that is 1
        if exact is None or m < exact:
            factor = np.empty_like(x)
            evaluate_polynomials(tasks_for(x.size), factor, x, m, reach)
            sum_float64_products(tasks, out, factor[:, :inputs].T, c[m], one, 1.0, True)
        else:
            largest, _ = magnitude_and_nonzeros(c[m])
            words, coefficients = rounded(x, m, reach), rounded(c[m], 0, largest or 1.0)
            integer = math.floor(MAX_INTEGER * one + 0.5)
            word = integer << 16 | integer & 0xFFFF
            scale = largest / MAX_INTEGER**2
            sum_integer_products(tasks, out, words[:, :inputs].T, coefficients, word, scale, True)


def _tasks(out: Doubles, b: Doubles) -> int:
    """Return into how many tasks to cut a product."""
    return tasks_for(len(b) * out.size // LANES_PER_VECTOR)


def rounded(values: Doubles, m: int, reach: float) -> Any:
    """Return the integers nearest to `MAX_INTEGER` T_(2m+1)(values / reach), in words of two rows.

    Parameters
    ----------
    values : array of shape (rows, columns), C-contiguous
    m : int
    reach : float
        Not zero, and at least the largest magnitude.

    Returns
    -------
    int32 array of shape (half the rows, columns)
        The lower 16 bits are those of an even row, and the upper ones of the next, or zero.
    """
    words = np.empty((-(-len(values) // 2), values.shape[1]), np.int32)
    round_polynomials(tasks_for(values.size), words, values, m, reach)
    return words


@kernel("(int32[:, ::1], float64[:, ::1], int64, float64)")
def round_polynomials(task: int, tasks: int, words: Any, values: Any, m: int, reach: float) -> None:
    """Write what `rounded` returns to `words`."""
    rows, columns = values.shape
    for k in range(len(words) * task // tasks, len(words) * (task + 1) // tasks):
        for i in range(0, columns, LANES_PER_VECTOR):
            low = evaluate_polynomial(load_rest(values[2 * k], i) * (1.0 / reach), m)
            high = repeat(0.0)
            if 2 * k + 1 < rows:
                high = evaluate_polynomial(load_rest(values[2 * k + 1], i) * (1.0 / reach), m)
            store_words(words[k], i, columns - i, low * MAX_INTEGER, high * MAX_INTEGER)


@kernel("(float64[:, ::1], float64[:, ::1], int64, float64)")
def evaluate_polynomials(
    task: int, tasks: int, out: Any, values: Any, m: int, reach: float
) -> None:
    """Compute T_(2m+1)(values / reach)."""
    for n in range(len(out) * task // tasks, len(out) * (task + 1) // tasks):
        for i in range(0, out.shape[1], LANES_PER_VECTOR):
            polynomials = evaluate_polynomial(load_rest(values[n], i) * (1.0 / reach), m)
            store_rest(out[n], i, polynomials)


@inlined
def evaluate_polynomial(u: Any, m: int) -> Any:
    """Return T_(2m+1)(u), by T_(2m+1)(u) = (4 u^2 - 2) T_(2m-1)(u) - T_(2m-3)(u)."""
    ahead = 4.0 * u * u - 2.0
    before = u  # T_-1, as T_1
    last = u
    for _ in range(m):
        following = ahead * last - before
        before = last
        last = following
    return last


def sum_products(
    task: int,
    tasks: int,
    out: Any,
    a: Any,
    b: Any,
    one: Any,
    scale: float,
    add: bool,
) -> None:
    """Compute out = scale * (a @ b), or add that to `out`.

    An element's products are summed in runs of at most `RUN_LENGTH`, in order: it has the same bits
    however many tasks there are.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the rows are divided into.
    out : float64 array of shape (rows, any)
        Overwritten, as far as b has columns. A row's elements are contiguous.
    a : float64 or int32 array of shape (rows or fewer, depth), with any strides
        An int32 is a word of two 16-bit integers; the product of two words is the sum of both
        integers' products.
    b : array of a's type, of shape (depth, columns)
    one : float64 or int32
        What any further row of a consists of.
    scale : float
    add : bool
    """
    tiles = -(-len(out) // TILE_ROWS)
    start = tiles * task // tasks * TILE_ROWS
    depth, columns = b.shape
    own = out[: tiles * (task + 1) // tasks * TILE_ROWS, :columns]
    whole = len(a) - len(a) % TILE_ROWS
    if len(a) == len(out) == whole + TILE_ROWS // 2:  # half a tile is read, and no more
        whole = len(a)
    edge = np.empty((TILE_ROWS, depth), b.dtype)  # the tile that a has only a part of
    for row in range(TILE_ROWS if whole < len(own) else 0):
        for k in range(depth):
            edge[row, k] = a[whole + row, k] if whole + row < len(a) else one
    width = TILE_VECTORS * VECTOR_BYTES // b.itemsize
    packs = len(own) - start >= MIN_ROWS_TO_PACK
    panels = np.empty(
        (own.shape[1] // width if packs else 0, min(depth, RUN_LENGTH), width), b.dtype
    )
    runs = -(-depth * 8 // (RUN_LENGTH * b.itemsize))
    for r in range(runs):
        k, end = depth * r // runs, depth * (r + 1) // runs
        if packs:
            for panel in range(own.shape[1] // width):
                for row in range(k, end):
                    for column in range(width):
                        panels[panel, row - k, column] = b[row, panel * width + column]
        j = 0
        while j < own.shape[1]:
            is_wide = j + width <= own.shape[1]
            factor = panels[j // width, : end - k] if is_wide and packs else b[k:end, j:]
            for i in range(start, len(own), TILE_ROWS):
                tile = a[i : i + TILE_ROWS, k:end] if i < whole else edge[:, k:end]
                if is_wide:
                    multiply_wide_tile(own[i:, j:], tile, factor, scale, add or r > 0)
                else:
                    multiply_narrow_tile(own[i:, j:], tile, factor, scale, add or r > 0)
            j += width if is_wide else EDGE_BYTES // b.itemsize


sum_float64_products = kernel(
    "(float64[:, :], float64[:, :], float64[:, ::1], float64, float64, boolean)"
)(sum_products)
sum_integer_products = kernel(
    "(float64[:, :], int32[:, :], int32[:, ::1], int32, float64, boolean)"
)(sum_products)


# Tiles --------------------------------------------------------------------------------------------


@inlined
def _multiply_tile(width: int, out: Any, a: Any, b: Any, scale: float, add: bool) -> None:
    """Compute a tile without the instructions; its width is in bytes of b."""
    for row in range(min(TILE_ROWS, len(out))):
        for column in range(min(width // b.itemsize, out.shape[1])):
            x, y = a[row], b[:, column]
            if b.itemsize == 8:
                total = (x * y).sum() * scale
            else:  # which has to compile for floats, too
                i, j = x.astype(np.int32), y.astype(np.int32)
                low = (((i & 0xFFFF) ^ 0x8000) - 0x8000) * (((j & 0xFFFF) ^ 0x8000) - 0x8000)
                total = (low + (i >> 16) * (j >> 16)).sum() * scale
            out[row, column] = out[row, column] + total if add else total


@lowered(
    "tile",
    tile_rows=TILE_ROWS,
    vectors=TILE_VECTORS,
    vector_bytes=VECTOR_BYTES,
    partial=False,
)
def multiply_wide_tile(out: Any, a: Any, b: Any, scale: float, add: bool) -> None:
    """Compute a tile of a product, out = scale * (a @ b), of full width.

    The tile has `TILE_ROWS` rows, each of `TILE_VECTORS` vectors.

    Parameters
    ----------
    out : float64 array of shape (any, any)
        Overwritten where the tile is, up to its last row. A row's elements are contiguous.
    a : float64 or int32 array of shape (TILE_ROWS, depth), with any strides
        Rows that `out` does not have are computed, but not stored.
    b : array of a's type, of shape (depth, any)
        A row's elements are contiguous.
    scale : float
    add : bool
        Whether to add to `out` or to overwrite it.
    """
    _multiply_tile(TILE_VECTORS * VECTOR_BYTES, out, a, b, scale, add)


@lowered("tile", tile_rows=TILE_ROWS, vectors=1, vector_bytes=EDGE_BYTES, partial=True)
def multiply_narrow_tile(out: Any, a: Any, b: Any, scale: float, add: bool) -> None:
    """Compute a tile as `multiply_wide_tile` does, but `EDGE_BYTES` wide, up to the last column."""
    _multiply_tile(EDGE_BYTES, out, a, b, scale, add)


# Sparse matrices ----------------------------------------------------------------------------------

# Above this share of nonzeros whole tiles are multiplied: they do more, but at a higher rate.
# `python -m benchmarks density` finds where the two are equal: the later, the more hidden units
# there are.
MAX_DENSITY = 0.27

# Below this share of entries that are not zero in all versions, BLAS takes longer.
MAX_COMMON_DENSITY = 0.75 if HAND_WRITTEN else 0.0

# Columns that are summed at a time: seven vectors, whose sums stay in registers. So many additions
# are under way at once that none waits for another; 50, 100 and 1,000 columns waste few lanes.
GROUP_COLUMNS = 7 * LANES_PER_VECTOR


def is_sparse(x: Doubles, nonzeros: int) -> bool:
    """Say whether a batch has so few nonzeros that they are better multiplied one by one."""
    return nonzeros <= MAX_DENSITY * x.size


def sum_sparse_products(
    out: Doubles,
    a: Doubles,
    b: Doubles,
    nonzeros: int,
    reach: float = 1.0,
    add: bool = False,
) -> None:
    """Compute what `sum_polynomials` does, with a = x', of which few entries are not zero.

    Parameters
    ----------
    out, a, b, reach, add
        As `sum_nonzero_products` takes them.
    nonzeros : int
        How many entries of a are not zero.
    """
    operations = len(b) * (a.size + nonzeros * out.shape[1] // LANES_PER_VECTOR)
    sum_nonzero_products(tasks_for(operations), out, a, b, reach, add)


@kernel("(float64[:, ::1], float64[:, :], float64[:, :, ::1], float64, boolean)")
def sum_nonzero_products(
    task: int, tasks: int, out: Any, a: Any, b: Any, reach: float, add: bool
) -> None:
    """Compute out = a @ b[0] + P_1(a) @ b[1] + P_2(a) @ b[2] + ..., row by row, of nonzeros alone.

    The P_m are the polynomials of `sum_polynomials`, elementwise; they are zero where a is.

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
    reach : float
        At least the largest magnitude in a, and 1.
    add : bool
        Whether to add to `out` or to overwrite it.
    """
    rows = out.shape[0]
    terms, depth, columns = b.shape
    factors = np.empty((terms, depth))
    where = np.empty(depth, np.int64)
    for i in range(rows * task // tasks, rows * (task + 1) // tasks):
        if not add:
            out[i, :columns] = 0.0
        count = 0
        for k in range(depth):
            value = a[i, k] if i < a.shape[0] else 1.0
            factors[0, count] = value
            where[count] = k
            count += value != 0.0  # no branch: nothing could predict it
        for m in range(1, terms):
            for k in range(0, count, LANES_PER_VECTOR):
                values = load_part(factors[0], k, count - k) * (1.0 / reach)
                store_part(factors[m], k, count - k, evaluate_polynomial(values, m))
        for j in range(0, min(columns, out.shape[1]), GROUP_COLUMNS):
            sum_rows(out[i, :columns], j, factors, where, count, b)


def multiply_versions(a: Doubles, b: Doubles) -> Doubles:
    """Return a @ b for versions a of an array of which many entries are zero in all versions.

    These are left out, as where a ReLU is off; so b is to be finite.

    Parameters
    ----------
    a : array of shape (versions, rows, depth)
    b : array of shape (depth, columns)
    """
    if len(a) < TILE_ROWS or b.shape[1] < TILE_VECTORS * LANES_PER_VECTOR:
        return np.asarray(a @ b)
    out = np.empty((*a.shape[:2], b.shape[1]))
    _compiled_versions()(out, np.ascontiguousarray(a), np.ascontiguousarray(b))
    return out


@lru_cache
def _compiled_versions() -> Any:
    """Return the compiled product of versions, the same at each call."""
    types = "void(float64[:, :, ::1], float64[:, :, ::1], float64[:, ::1])"
    return compiled(_multiply_versions, _multiply_versions, types)


def _multiply_versions(out: Any, a: Any, b: Any) -> None:
    """Compute out = a @ b; tiles are a row's, in `TILE_ROWS` versions."""
    versions, rows, depth = a.shape
    columns = b.shape[1]
    width = TILE_VECTORS * LANES_PER_VECTOR
    whole = columns // width
    bits = np.empty(depth, np.int64)
    where = np.empty(depth, np.int64)
    factors = np.zeros((versions + TILE_ROWS, depth))
    panels = np.empty((whole + 1, depth, width))
    for n in range(rows):
        bits[:] = 0
        for v in range(versions):
            row_bits = a[v, n].view(np.int64)
            for k in range(depth):
                bits[k] |= row_bits[k]
        count = 0
        for k in range(depth):
            where[count] = k
            count += bits[k] & MAGNITUDE_BITS != 0
        for v in range(versions):
            row = a[v, n]
            for e in range(count):
                factors[v, e] = row[where[e]]
        for e in range(count):
            row = b[where[e]]
            for panel in range(whole):
                for lane in range(0, width, LANES_PER_VECTOR):
                    store(panels[panel], (e, lane), load(row, panel * width + lane))
            for j in range(whole * width, columns):
                panels[whole, e, j - whole * width] = row[j]
        for v in range(0, versions, TILE_ROWS):
            tile = factors[v : v + TILE_ROWS, :count]
            own = out[v:, n]
            for panel in range(whole):
                place = panel * width
                multiply_wide_tile(own[:, place:], tile, panels[panel, :count], 1.0, False)
            for j in range(whole * width, columns, EDGE_BYTES // 8):
                rest = panels[whole, :count, j - whole * width : columns - whole * width]
                multiply_narrow_tile(own[:, j:], tile, rest, 1.0, False)


@inlined
def sum_rows(out: Any, j: int, factors: Any, where: Any, count: int, b: Any) -> None:
    """Add to out[g] the sum over m and e < count of factors[m, e] b[m, where[e], g].

    The columns g are the group of up to `GROUP_COLUMNS` that starts at j.

    Parameters
    ----------
    out : float64 array of shape (columns,)
        Added to from j to j + GROUP_COLUMNS.
    j : int
    factors : float64 array of shape (terms, at least count)
    where : int64 array of shape (at least count,)
    count : int
    b : float64 array of shape (terms, any, at least columns)
    """
    sum0 = load_rest(out, j)
    sum1 = load_rest(out, j + LANES_PER_VECTOR)
    sum2 = load_rest(out, j + 2 * LANES_PER_VECTOR)
    sum3 = load_rest(out, j + 3 * LANES_PER_VECTOR)
    sum4 = load_rest(out, j + 4 * LANES_PER_VECTOR)
    sum5 = load_rest(out, j + 5 * LANES_PER_VECTOR)
    sum6 = load_rest(out, j + 6 * LANES_PER_VECTOR)
    for m in range(b.shape[0]):
        for e in range(count):
            factor = factors[m, e]
            row = b[m, where[e]]
            sum0 = sum0 + factor * load_rest(row, j)
            sum1 = sum1 + factor * load_rest(row, j + LANES_PER_VECTOR)
            sum2 = sum2 + factor * load_rest(row, j + 2 * LANES_PER_VECTOR)
            sum3 = sum3 + factor * load_rest(row, j + 3 * LANES_PER_VECTOR)
            sum4 = sum4 + factor * load_rest(row, j + 4 * LANES_PER_VECTOR)
            sum5 = sum5 + factor * load_rest(row, j + 5 * LANES_PER_VECTOR)
            sum6 = sum6 + factor * load_rest(row, j + 6 * LANES_PER_VECTOR)
    store_rest(out, j, sum0)
    store_rest(out, j + LANES_PER_VECTOR, sum1)
    store_rest(out, j + 2 * LANES_PER_VECTOR, sum2)
    store_rest(out, j + 3 * LANES_PER_VECTOR, sum3)
    store_rest(out, j + 4 * LANES_PER_VECTOR, sum4)
    store_rest(out, j + 5 * LANES_PER_VECTOR, sum5)
    store_rest(out, j + 6 * LANES_PER_VECTOR, sum6)


@inlined
def load_rest(row: Any, i: int) -> Any:
    """Return the elements of a row from i on as a vector, with zeros after the last one."""
    return load_part(row, i, row.size - i)


@inlined
def store_rest(row: Any, i: int, vector: Any) -> None:
    """Write a vector's lanes to a row from i on, up to its last element."""
    store_part(row, i, row.size - i, vector)


# What is in a matrix ------------------------------------------------------------------------------

MAGNITUDE_BITS = 0x7FFF_FFFF_FFFF_FFFF  # all bits of a float64 but its sign


def magnitude_and_nonzeros(values: Doubles) -> tuple[float, int]:
    """Return the largest magnitude and the number of nonzero entries of a contiguous array.

    A nan counts as larger than inf, and inf as larger than any number. An empty array has (0.0, 0).
    """
    found: tuple[float, int] = _find_magnitude_and_nonzeros(values.reshape(-1).view(np.int64))
    return found


def _magnitude_and_nonzeros(bits: Any) -> tuple[float, int]:
    """Return them for the bits of numbers: as integers, magnitudes have the same order.

    LLVM vectorises that, and not the comparison of numbers among which there may be a nan.
    """
    largest = 0
    nonzeros = 0
    for i in range(bits.size):
        magnitude = bits[i] & MAGNITUDE_BITS
        largest = max(largest, magnitude)
        nonzeros += magnitude != 0
    return np.int64(largest).view(np.float64), nonzeros


_find_magnitude_and_nonzeros = compiled(
    _magnitude_and_nonzeros, _magnitude_and_nonzeros, "Tuple((float64, int64))(int64[::1])"
)
