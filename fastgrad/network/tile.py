"""How is one small tile of a matrix product computed? Its sums stay in registers.

LLVM's loop vectoriser does not keep a tile of results in registers, so the tile's instructions are
written out here, once, for every width of vectors. The method is that of Goto and van de Geijn
(2008), "Anatomy of high-performance matrix multiplication", doi:10.1145/1356052.1356053.
"""

from collections.abc import Callable
from itertools import chain
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastgrad.network.vectors import (
    FLAGS,
    LANES,
    VECTOR_BYTES,
    bytes_of,
    lanes_below,
    repeated,
    teach,
    write_masked_load,
    write_masked_store,
    write_prefetch,
)

# The rows of a tile, and its vectors a row: 24 of 32 registers, or 12 of 16, hold sums.
ROWS, VECTORS = (8, 3) if LANES == 8 else (4, 3)


def multiply_wide_tile(
    out: Any, i: int, j: int, a: Any, b: Any, k: int, left: int, add: bool
) -> None:
    """Compute a tile of a product, `ROWS` by `VECTORS` vectors: out[i:, j:] = a @ b[k:, left:].

    Parameters
    ----------
    out : float64 array of shape (rows, columns)
        Overwritten at the tile's place, up to its last row. A row's elements are contiguous.
    i, j : int
        The tile's first row and column.
    a : contiguous float64 or float32 array of size ROWS * depth
        The first factor, one column of ROWS elements after the other; rows that `out` does not
        have are computed, but not stored.
    b : array of a's type, of shape (any, any)
        The second factor is b[k : k + depth, left : left + width]. A row's elements are contiguous.
        A vector of float32 has twice the lanes, and its products are summed in float32.
    k, left : int
        Its first row and column.
    add : bool
        Whether to add to `out` or to overwrite it.
    """
    _multiply_tile(VECTORS, out, i, j, a, b, k, left, add)


def multiply_narrow_tile(
    out: Any, i: int, j: int, a: Any, b: Any, k: int, left: int, add: bool
) -> None:
    """Do the same as `multiply_wide_tile` for one vector a row, up to the last column."""
    _multiply_tile(1, out, i, j, a, b, k, left, add)


def _multiply_tile(
    vectors: int, out: Any, i: int, j: int, a: Any, b: Any, k: int, left: int, add: bool
) -> None:
    """Compute a tile as plain Python."""
    depth = len(a) // ROWS
    tile = out[i : i + ROWS, j : j + vectors * VECTOR_BYTES // a.itemsize]
    rows, columns = tile.shape
    product = a.reshape(depth, ROWS)[:, :rows].T @ b[k : k + depth, left : left + columns]
    tile[...] = tile + product if add else product


def _teach_tile(function: Callable[..., None], vectors: int, *, partial: bool) -> None:
    """Let kernels call a tile function as the instructions that `_write_tile` writes."""
    out, *place = types.Array(types.float64, 2, "A"), types.intp, types.intp
    cases = [
        types.none(
            out, *place, types.Array(kind, 1, "C"), types.Array(kind, 2, "A"), *place, types.boolean
        )
        for kind in (types.float64, types.float32)
    ]

    @teach(function, *cases)
    def write(builder: Any, *arguments: Any) -> None:
        _write_tile(builder, vectors, partial, *arguments)


_teach_tile(multiply_wide_tile, VECTORS, partial=False)
_teach_tile(multiply_narrow_tile, 1, partial=True)


def _write_tile(
    builder: Any,
    vectors: int,
    partial: bool,
    out: Any,
    i: Any,
    j: Any,
    a: Any,
    b: Any,
    k: Any,
    left: Any,
    add: Any,
) -> None:
    """Write the instructions of a tile; if `partial`, its last vector may exceed the columns."""
    number = b.data.type.pointee
    lanes = VECTOR_BYTES // bytes_of(number)
    factor_ir, result_ir = (ir.VectorType(kind, lanes) for kind in (number, ir.DoubleType()))

    def integer(value: int) -> Any:
        return ir.Constant(ir.IntType(64), value)

    def element(pointer: Any, stride: Any, row: Any, column: Any) -> Any:
        """Write the address of a row's element; the rows are some bytes apart."""
        byte = ir.IntType(8).as_pointer()
        size = integer(bytes_of(pointer.type.pointee))
        place = builder.add(builder.mul(row, stride), builder.mul(column, size))
        moved = builder.gep(builder.bitcast(pointer, byte), [place])
        return builder.bitcast(moved, pointer.type)

    def vector(pointer: Any, v: int) -> Any:
        """Write the address of the v-th vector after a pointer."""
        moved = builder.gep(pointer, [integer(v * lanes)])
        return builder.bitcast(moved, ir.VectorType(pointer.type.pointee, lanes).as_pointer())

    rows, columns = cgutils.unpack_tuple(builder, out.shape, 2)
    out_stride, _ = cgutils.unpack_tuple(builder, out.strides, 2)
    b_stride, _ = cgutils.unpack_tuple(builder, b.strides, 2)
    depth = builder.sdiv(cgutils.unpack_tuple(builder, a.shape, 1)[0], integer(ROWS))
    inside = lanes_below(builder, builder.sub(columns, j), lanes)

    out_rows = [element(out.data, out_stride, builder.add(i, integer(r)), j) for r in range(ROWS)]
    sums = [[cgutils.alloca_once(builder, factor_ir) for _ in range(vectors)] for _ in range(ROWS)]
    for register in chain(*sums):
        builder.store(ir.Constant(factor_ir, [0.0] * lanes), register)

    # The old results are needed only after the loop: let them come into the cache meanwhile.
    for out_row in out_rows:
        for v in range(vectors):
            write_prefetch(builder, vector(out_row, v))

    with cgutils.for_range(builder, depth) as loop:
        b_row = element(b.data, b_stride, builder.add(k, loop.index), left)
        factors = [
            write_masked_load(builder, vector(b_row, v), inside)
            if partial
            else builder.load(vector(b_row, v), align=bytes_of(number))
            for v in range(vectors)
        ]
        column = builder.gep(a.data, [builder.mul(loop.index, integer(ROWS))])
        for r, row_sums in enumerate(sums):
            factor = repeated(builder, builder.load(builder.gep(column, [integer(r)])), lanes)
            for register, b_vector in zip(row_sums, factors, strict=True):
                product = builder.fmul(factor, b_vector, flags=FLAGS)
                total = builder.fadd(builder.load(register), product, flags=FLAGS)
                builder.store(total, register)

    for r, row_sums in enumerate(sums):
        with builder.if_then(builder.icmp_signed("<", builder.add(i, integer(r)), rows)):
            for v, register in enumerate(row_sums):
                place = vector(out_rows[r], v)
                everywhere = ir.Constant(inside.type, [1] * lanes)
                nowhere = ir.Constant(inside.type, [0] * lanes)
                mask = inside if partial else everywhere
                old = write_masked_load(builder, place, builder.select(add, mask, nowhere))
                found = builder.load(register)
                if factor_ir != result_ir:
                    found = builder.fpext(found, result_ir)
                new = builder.fadd(old, found)
                write_masked_store(builder, place, mask, new)
