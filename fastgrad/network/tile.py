"""How is one small tile of a matrix product computed? Its sums stay in registers.

LLVM's loop vectoriser does not keep a tile of results in registers, so the tile's instructions are
written out here, once, for every width of vectors. The method is that of Goto and van de Geijn
(2008), "Anatomy of high-performance matrix multiplication", doi:10.1145/1356052.1356053.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from fastgrad.network.vectors import (
    FLAGS,
    VECTOR_BYTES,
    lanes_below,
    repeated,
    teach,
    write_call,
    write_masked_load,
    write_masked_store,
)

# The rows of a tile, and its vectors a row: 24 of 32 registers, or 12 of 16, hold sums.
ROWS, VECTORS = (8, 3) if VECTOR_BYTES == 64 else (4, 3)


def multiply_wide_tile(out: Any, a: Any, panel: Any, add: bool) -> None:
    """Compute out = a @ panel, or out += a @ panel if `add`, for a tile `VECTORS` vectors wide.

    Parameters
    ----------
    out : float64 array of shape (1 to ROWS, 1 to the tile's width)
        Overwritten. A row's elements are contiguous.
    a : contiguous float64 or float32 array of size ROWS * depth
        The first factor, one column of ROWS elements after the other, padded with any values.
        The products and their sums are taken in its dtype.
    panel : contiguous array of a's dtype, of size depth * width
        The second factor, one row after the other, padded to the tile's width.
    add : bool
        Whether to add to `out` or to overwrite it.
    """
    rows, columns = out.shape
    depth = len(a) // ROWS
    product = a.reshape(depth, ROWS)[:, :rows].T @ panel.reshape(depth, -1)[:, :columns]
    out[...] = out + product if add else product


def multiply_narrow_tile(out: Any, a: Any, panel: Any, add: bool) -> None:
    """Do the same as `multiply_wide_tile` for a tile one vector wide."""
    multiply_wide_tile(out, a, panel, add)


def lanes(array: Any) -> int:
    """Return how many elements of a float64 or float32 array a vector holds."""
    return VECTOR_BYTES // int(array.itemsize)


DOUBLES = types.Array(types.float64, 1, "C")
SINGLES = types.Array(types.float32, 1, "C")
TABLE = types.Array(types.float64, 2, "A")


@teach(lanes, types.intp(DOUBLES), types.intp(SINGLES))
def _write_lanes(builder: Any, array: Any) -> Any:
    single = array.data.type.pointee == ir.FloatType()
    return ir.Constant(ir.IntType(64), VECTOR_BYTES // (4 if single else 8))


def _teach_tile(function: Callable[..., None], vectors: int) -> None:
    """Let kernels call a tile function as its instructions."""
    cases = [types.none(TABLE, kind, kind, types.boolean) for kind in (DOUBLES, SINGLES)]

    @teach(function, *cases)
    def write(builder: Any, out: Any, a: Any, panel: Any, add: Any) -> None:
        single = a.data.type.pointee == ir.FloatType()
        _write_tile(_Writer(builder, 4 if single else 8), vectors, out, a, panel, add)


_teach_tile(multiply_wide_tile, VECTORS)
_teach_tile(multiply_narrow_tile, 1)


def _write_tile(write: "_Writer", vectors: int, out: Any, a: Any, panel: Any, add: Any) -> None:
    """Write the instructions of one tile of `ROWS` rows."""
    builder = write.builder
    rows, columns = cgutils.unpack_tuple(builder, out.shape, 2)
    row_stride, _ = cgutils.unpack_tuple(builder, out.strides, 2)
    (size,) = cgutils.unpack_tuple(builder, a.shape, 1)

    # Rows beyond the last take its address: they are computed along, but never stored.
    last = builder.sub(rows, write.integer(1))
    out_rows = []
    for r in range(ROWS):
        beyond = builder.icmp_signed(">", write.integer(r), last)
        row = builder.select(beyond, last, write.integer(r))
        out_rows.append(write.moved(out.data, builder.mul(row, row_stride)))
    for out_row in out_rows:  # needed only after the loop; they come from memory meanwhile
        for v in range(vectors):
            write.prefetch(write.moved(out_row, write.integer(v * VECTOR_BYTES)))

    sums = [[write.zeroed_register() for _ in range(vectors)] for _ in range(ROWS)]
    with cgutils.for_range(builder, builder.sdiv(size, write.integer(ROWS))) as loop:
        panel_row = builder.mul(loop.index, write.integer(vectors * VECTOR_BYTES))
        column = builder.mul(loop.index, write.integer(ROWS * write.item_bytes))
        factors = [
            write.load_vector(panel.data, builder.add(panel_row, write.integer(v * VECTOR_BYTES)))
            for v in range(vectors)
        ]
        for r, row_sums in enumerate(sums):
            place = builder.add(column, write.integer(r * write.item_bytes))
            factor = write.load_repeated(a.data, place)
            for register, vector in zip(row_sums, factors, strict=True):
                write.multiply_add(register, factor, vector)

    for r, (out_row, row_sums) in enumerate(zip(out_rows, sums, strict=True)):
        with builder.if_then(builder.icmp_signed("<", write.integer(r), rows)):
            for v, register in enumerate(row_sums):
                write.store(out_row, v, columns, register, add)


class _Writer:
    """The instructions that a tile consists of, for one size of its factors' elements."""

    def __init__(self, builder: Any, item_bytes: int) -> None:
        self.builder = builder
        self.item_bytes = item_bytes
        self.lanes = VECTOR_BYTES // item_bytes
        self.scalar = ir.FloatType() if item_bytes == 4 else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.out_vector = ir.VectorType(ir.DoubleType(), self.lanes)

    def integer(self, value: int) -> Any:
        return ir.Constant(ir.IntType(64), value)

    def moved(self, pointer: Any, bytes_: Any, to: Any = None) -> Any:
        """Move a pointer by some bytes, and let it point to type `to`."""
        byte = ir.IntType(8)
        moved = self.builder.gep(self.builder.bitcast(pointer, byte.as_pointer()), [bytes_])
        return moved if to is None else self.builder.bitcast(moved, to.as_pointer())

    def prefetch(self, pointer: Any) -> None:
        """Fetch what will be written into the closest cache."""
        for_writing, closest, data = (ir.IntType(32)(flag) for flag in (1, 3, 1))
        operands = [pointer, for_writing, closest, data]
        write_call(self.builder, "llvm.prefetch.p0", ir.VoidType(), operands)

    def zeroed_register(self) -> Any:
        """Declare a vector variable; LLVM keeps it in a register."""
        register = cgutils.alloca_once(self.builder, self.vector)
        self.builder.store(ir.Constant(self.vector, [0.0] * self.lanes), register)
        return register

    def load_vector(self, pointer: Any, bytes_: Any) -> Any:
        return self.builder.load(self.moved(pointer, bytes_, self.vector), align=self.item_bytes)

    def load_repeated(self, pointer: Any, bytes_: Any) -> Any:
        number = self.builder.load(self.moved(pointer, bytes_, self.scalar))
        return repeated(self.builder, number, self.lanes)

    def multiply_add(self, register: Any, x: Any, y: Any) -> None:
        """Add x * y to a register."""
        product = self.builder.fmul(x, y, flags=FLAGS)
        old = self.builder.load(register)
        self.builder.store(self.builder.fadd(old, product, flags=FLAGS), register)

    def store(self, out_row: Any, v: int, columns: Any, register: Any, add: Any) -> None:
        """Write vector v of a row of sums to `out`, or add it, up to the last of the columns."""
        builder = self.builder
        value = builder.load(register)
        if self.item_bytes == 4:
            value = builder.fpext(value, self.out_vector)
        left = builder.sub(columns, self.integer(v * self.lanes))
        inside = lanes_below(builder, left, self.lanes)
        nowhere = ir.Constant(inside.type, [0] * self.lanes)
        place = self.moved(out_row, self.integer(v * self.lanes * 8), self.out_vector)
        old = write_masked_load(builder, place, builder.select(add, inside, nowhere))
        write_masked_store(builder, place, inside, builder.fadd(old, value))
