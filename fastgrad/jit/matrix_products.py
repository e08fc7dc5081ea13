"""Matrix products on all threads: in tiles whose sums stay in registers, or of nonzeros alone.

LLVM's loop vectoriser does not keep a tile of results in registers, so the tile's instructions are
written out in `jit/instructions.py`, once, for every width of vectors. The method is that of Goto
and van de Geijn (2008), "Anatomy of high-performance matrix multiplication",
doi:10.1145/1356052.1356053, but that factors are read where they are: only where many rows share
the second one, its columns are copied first.
"""

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
MAX_PRODUCT = float(MAX_INTEGER**2)

HALF_TILE = TILE_ROWS // 2
TILE_COLUMNS = TILE_VECTORS * LANES_PER_VECTOR
WORD_COLUMNS = 2 * TILE_COLUMNS  # of integers, which come in words of half the bytes

# Rows from which on it pays to copy the second factor.
MIN_ROWS_TO_PACK = 256

# Elements of the first factor in a block of rows, a second-level cache of 1 MB: in smaller blocks
# the second factor, which may be larger, passes by more often than it has to.
BLOCK_FACTORS = 2**17

# Products from which on integers pay: to see that they suffice takes time, too.
MIN_INTEGER_PRODUCTS = 1_000_000


def multiply(out: Doubles, a: Doubles, b: Doubles) -> None:
    """Compute out = a @ b.

    Parameters
    ----------
    out : array of shape (rows, at least columns)
        Overwritten, as far as b has columns.
    a : array of shape (rows, depth), C-contiguous
    b : array of shape (depth, columns), C-contiguous
    """
    c = b[np.newaxis]
    sum_products(_tasks(out, c), out, a, False, c, 1.0, IN_FLOAT64, False)


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
    largest = np.zeros(len(c))
    for m in range(len(c) if exact is None else exact, len(c)):
        largest[m] = magnitude_and_nonzeros(c[m])[0] or 1.0
    sum_products(_tasks(out, c), out, x, True, c, reach, largest, add)


IN_FLOAT64 = np.zeros(1)
"""A single term, which is summed in float64."""


def _tasks(out: Doubles, c: Doubles) -> int:
    """Return into how many tasks to cut the sum of the products of all terms."""
    terms, depth, columns = c.shape
    panels, rest = divmod(min(columns, out.shape[1]), TILE_COLUMNS)
    vectors = TILE_VECTORS * panels + -(-8 * rest // EDGE_BYTES)  # of a row
    return tasks_for(terms * depth * len(out) * vectors)


@kernel(
    "(float64[:, ::1], float64[:, ::1], boolean, float64[:, :, ::1], float64, float64[::1], "
    "boolean)"
)
def sum_products(
    task: int,
    tasks: int,
    out: Any,
    x: Any,
    transposed: bool,
    c: Any,
    reach: float,
    largest: Any,
    add: bool,
) -> None:
    """Compute out = a @ c[0] + P_1(a) @ c[1] + P_2(a) @ c[2] + ..., or add that to `out`.

    The P_m are the polynomials of `sum_polynomials`, elementwise. An element's products are summed
    in runs of at most `RUN_LENGTH`, in order: it has the same bits however many tasks there are.

    Rows are computed in blocks: what a block needs of a stays in the second-level cache while all
    columns of c pass by, and its results while all terms do.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the rows are divided into.
    out : float64 array of shape (rows, any)
        Overwritten, as far as c has columns. A row's elements are contiguous.
    x : float64 array
        a, of shape (rows, depth), if there is a single term; or its transpose, of shape (depth, at
        least rows - 1), where the last row of a is one of ones.
    transposed : bool
        Whether x is the transpose.
    c : float64 array of shape (terms, depth, columns)
        Columns that `out` does not have are left out.
    reach : float
        At least the largest magnitude in a, and 1.
    largest : float64 array of shape (terms,)
        The largest magnitude in c[m], if that term is to be summed in integers; else 0.
    add : bool
    """
    terms, depth, columns = c.shape
    inputs = len(out) - 1 if transposed else len(out)
    tiles = -(-inputs // TILE_ROWS)
    start = tiles * task // tasks * TILE_ROWS
    own = out[: min(inputs, tiles * (task + 1) // tasks * TILE_ROWS), :columns]
    columns = own.shape[1]
    packs = len(own) - start >= MIN_ROWS_TO_PACK
    runs = -(-depth // RUN_LENGTH)
    length = -(-depth // max(1, runs))
    block = max(1, min(tiles, BLOCK_FACTORS // (TILE_ROWS * max(1, length)))) * TILE_ROWS
    panels = np.empty((terms if packs else 0, columns // TILE_COLUMNS, length, TILE_COLUMNS))
    length = length if terms > 1 else 0  # of what the terms after the first need
    pairs = (length + 1) // 2
    # Freed, memory that nobody touches would have the rest given back to the system each time.
    factors = np.empty((length if largest[min(1, terms - 1)] == 0.0 else 0, block))
    words = np.empty((pairs, block), np.int32)
    word_panels = np.empty((terms, columns // WORD_COLUMNS + 1, pairs, WORD_COLUMNS), np.int32)
    for r in range(runs):
        first, end = depth * r // runs, depth * (r + 1) // runs
        products, pairs = end - first, (end - first + 1) // 2
        for m in range(terms):
            if largest[m] > 0.0:
                round_columns(word_panels[m], c[m, first:end], largest[m])
            elif packs:
                copy_columns(panels[m], c[m, first:end])
        for i in range(start, len(own), block):
            rows = own[i : i + block]
            for m in range(terms):
                adds = add or r > 0 or m > 0
                j = 0
                if largest[m] > 0.0:
                    round_inputs(words, x[first:end], i, len(own), m, reach)
                    scale = largest[m] / MAX_PRODUCT
                    while j < columns:
                        is_wide = j + WORD_COLUMNS <= columns
                        word_b = word_panels[m, j // WORD_COLUMNS, :pairs, j % WORD_COLUMNS :]
                        row = 0
                        while row < len(rows):
                            stop = row + (TILE_ROWS if len(rows) - row >= TILE_ROWS else HALF_TILE)
                            factor = words[:pairs, row:].T
                            if is_wide:
                                multiply_wide_tile(rows[row:stop, j:], factor, word_b, scale, adds)
                            else:
                                multiply_narrow_tile(
                                    rows[row:stop, j:], factor, word_b, scale, adds
                                )
                            row = stop
                        j += WORD_COLUMNS if is_wide else EDGE_BYTES // 4
                    continue
                if m > 0:
                    evaluate_inputs(factors, x[first:end], i, len(own), m, reach)
                a = x[first:end, i:].T if transposed else x[i:, first:end]
                a = factors[:products].T if m > 0 else a
                while j < columns:
                    is_wide = j + TILE_COLUMNS <= columns
                    b = c[m, first:end, j:]
                    if is_wide and packs:
                        b = panels[m, j // TILE_COLUMNS, :products]
                    row = 0
                    while row < len(rows):
                        stop = row + (TILE_ROWS if len(rows) - row >= TILE_ROWS else HALF_TILE)
                        if is_wide:
                            multiply_wide_tile(rows[row:stop, j:], a[row:], b, 1.0, adds)
                        else:
                            multiply_narrow_tile(rows[row:stop, j:], a[row:], b, 1.0, adds)
                        row = stop
                    j += TILE_COLUMNS if is_wide else EDGE_BYTES // 8
    if transposed and task == tasks - 1:
        sum_columns(out[inputs, :columns], c, reach, add)


@inlined
def copy_columns(panels: Any, c: Any) -> None:
    """Copy the columns of a matrix to panels of `TILE_COLUMNS`, but for those of a last part."""
    for panel in range(len(panels)):
        for k in range(len(c)):
            for j in range(0, TILE_COLUMNS, LANES_PER_VECTOR):
                store(panels, (panel, k, j), load(c, (k, panel * TILE_COLUMNS + j)))


@inlined
def round_columns(panels: Any, c: Any, largest: float) -> None:
    """Write the integers nearest to `MAX_INTEGER` c / largest to panels of `WORD_COLUMNS`.

    The lower 16 bits of a word are those of an even row, and the upper ones of the next, or zero.
    """
    factor = MAX_INTEGER / largest
    for panel in range(len(panels)):
        for k in range(0, len(c), 2):
            low = c[k, panel * WORD_COLUMNS :]
            high = c[min(k + 1, len(c) - 1), panel * WORD_COLUMNS :]
            high_factor = factor if k + 1 < len(c) else 0.0
            words = panels[panel, k // 2]
            for j in range(0, WORD_COLUMNS, LANES_PER_VECTOR):
                values = load_rest(low, j) * factor, load_rest(high, j) * high_factor
                store_words(words, j, LANES_PER_VECTOR, values[0], values[1])


@inlined
def evaluate_inputs(factors: Any, x: Any, i: int, stop: int, m: int, reach: float) -> None:
    """Compute polynomials of a block of inputs.

    Parameters
    ----------
    factors : float64 array of shape (at least samples, size of the block)
        Overwritten by T_(2m+1)(x / reach).
    x : float64 array of shape (samples, at least stop)
    i, stop : int
        The first input of the block, and the first one after the last block.
    m : int
    reach : float
    """
    for k in range(len(x)):
        row = x[k, i:stop]
        for j in range(0, min(row.size, factors.shape[1]), LANES_PER_VECTOR):
            store(factors, (k, j), evaluate_polynomial(load_rest(row, j) * (1.0 / reach), m))


@inlined
def round_inputs(words: Any, x: Any, i: int, stop: int, m: int, reach: float) -> None:
    """Write the integers nearest to `MAX_INTEGER` times such polynomials, in words of two samples.

    The parameters are those of `evaluate_inputs`.
    """
    for k in range(0, len(x), 2):
        low, high = x[k, i:stop], x[min(k + 1, len(x) - 1), i:stop]
        for j in range(0, min(low.size, words.shape[1]), LANES_PER_VECTOR):
            first = evaluate_polynomial(load_rest(low, j) * (1.0 / reach), m) * MAX_INTEGER
            second = evaluate_polynomial(load_rest(high, j) * (1.0 / reach), m) * MAX_INTEGER
            store_words(words[k // 2], j, LANES_PER_VECTOR, first, second)


@inlined
def sum_columns(out: Any, c: Any, reach: float, add: bool) -> None:
    """Compute the row of `out` that belongs to an input of 1.

    Parameters
    ----------
    out : float64 array of shape (columns,)
    c : float64 array of shape (terms, samples, at least columns)
    reach : float
    add : bool
    """
    if not add:
        out[:] = 0.0
    for m in range(len(c)):
        one = evaluate_polynomial(1.0 / reach, m) if m > 0 else 1.0
        for n in range(c.shape[1]):
            row = c[m, n]
            for j in range(0, out.size, LANES_PER_VECTOR):
                store_rest(out, j, load_rest(out, j) + load_rest(row, j) * one)


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
    a : float64 or int32 array of shape (at least TILE_ROWS, depth), with any strides
        If `out` has half as many rows or fewer, a may have so few, too.
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


@lowered("picked_tile", tile_rows=TILE_ROWS, vectors=2, vector_bytes=VECTOR_BYTES, partial=False)
def multiply_wide_tile_of(out: Any, a: Any, b: Any, where: Any) -> None:
    """Compute a tile of a product, of two vectors a row, by some columns of a and rows of b alone.

    With a third vector, as `multiply_wide_tile` has it, LLVM would run out of registers.
    """
    _multiply_tile(2 * VECTOR_BYTES, out, a[:, where], b[where], 1.0, False)


@lowered("picked_tile", tile_rows=TILE_ROWS, vectors=1, vector_bytes=EDGE_BYTES, partial=True)
def multiply_narrow_tile_of(out: Any, a: Any, b: Any, where: Any) -> None:
    """Compute the same, `EDGE_BYTES` wide, up to the last column."""
    _multiply_tile(EDGE_BYTES, out, a[:, where], b[where], 1.0, False)


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
    if len(a) < TILE_ROWS or b.shape[1] < TILE_COLUMNS:
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
    """Compute out = a @ b, at least `TILE_ROWS` versions; tiles are a row's, in so many of them."""
    versions, rows, depth = a.shape
    columns = b.shape[1]
    words = a.view(np.int64)
    bits = np.empty(depth, np.int64)
    where = np.empty(depth, np.int64)
    for start in range(0, versions, TILE_ROWS):
        is_half = versions - start <= HALF_TILE
        v = start if is_half else min(start, versions - TILE_ROWS)  # some of them once more
        last = min(v + TILE_ROWS, versions) - 1
        for n in range(rows):
            for k in range(depth):
                of_all = np.int64(0)
                for row in range(TILE_ROWS):  # so many that LLVM computes vectors of k
                    of_all |= words[min(v + row, last), n, k]
                bits[k] = of_all
            count = 0
            for k in range(depth):
                where[count] = k
                count += bits[k] & MAGNITUDE_BITS != 0
            tile, own = a[v : v + TILE_ROWS, n], out[v : v + TILE_ROWS, n]
            j = 0
            while j < columns:
                if j + 2 * LANES_PER_VECTOR <= columns:
                    multiply_wide_tile_of(own[:, j:], tile, b[:, j:], where[:count])
                    j += 2 * LANES_PER_VECTOR
                else:
                    multiply_narrow_tile_of(own[:, j:], tile, b[:, j:], where[:count])
                    j += EDGE_BYTES // 8


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
