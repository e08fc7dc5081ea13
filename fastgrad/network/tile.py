"""How is one small tile of a matrix product computed? In registers, in the machine's widest vectors.

LLVM's loop vectoriser keeps neither a tile of results in registers nor, on processors that have
them, uses 512-bit vectors. So the tile's instructions are written out here, once, for every width.
Following Goto and van de Geijn (2008), "Anatomy of high-performance matrix multiplication",
doi:10.1145/1356052.1356053.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

Tile = Callable[[Any, Any, Any, bool], None]


def _registers() -> tuple[int, int, int]:
    """Return the width of a vector in bytes, and a tile's rows and vectors a row that fit."""
    features = cpu_target.target_context.codegen().magic_tuple()[2]
    if "+avx512f" in features:
        return 64, 8, 3  # 24 of 32 registers hold sums
    if "+avx" in features:
        return 32, 4, 3  # 12 of 16
    return 16, 4, 3


VECTOR_BYTES, ROWS, VECTORS = _registers()


def lanes(array: Any) -> int:
    """Return how many elements of an array's dtype a vector holds, as a constant of the kernel."""
    return VECTOR_BYTES // int(array.itemsize)


def _lanes_of_type(array: Any) -> int:
    return VECTOR_BYTES * 8 // int(array.dtype.bitwidth)


overload(lanes)(lambda array: _constant(_lanes_of_type(array)))


def _constant(value: int) -> Callable[..., int]:
    """Wrap a number as the implementation of an overload."""
    return lambda array: value


def _tile(vectors: int) -> Tile:
    """Make the function that computes tiles of up to `ROWS` rows and `vectors` vectors a row."""

    def multiply(out: Any, a: Any, panel: Any, add: bool) -> None:
        """Compute out = a @ panel, or out += a @ panel if `add`.

        Parameters
        ----------
        out : float64 array of shape (1 to ROWS, 1 to the tile's width)
            Overwritten. A row's elements are contiguous.
        a : contiguous float64 or float32 array of size ROWS * depth
            The first factor, one column of ROWS elements after the other, padded with any values.
            The products and their sum are taken in its dtype.
        panel : contiguous array of a's dtype, of size depth * width
            The second factor, one row after the other, padded to the tile's width.
        add : bool
            Whether to add to `out` or to overwrite it.
        """
        rows, columns = out.shape
        depth = len(a) // ROWS
        product = a.reshape(depth, ROWS)[:, :rows].T @ panel.reshape(depth, -1)[:, :columns]
        out[...] = out + product if add else product

    generator = _tile_instructions(vectors)
    overload(multiply)(lambda out, a, panel, add: _caller(generator))
    return multiply


def _caller(generator: Any) -> Callable[..., None]:
    """Wrap an intrinsic as the implementation of an overload."""
    return lambda out, a, panel, add: generator(out, a, panel, add)


def _tile_instructions(vectors: int) -> Any:
    """Make the intrinsic behind `multiply`: the sums live in ROWS x vectors registers."""

    def tile(typing_context: Any, out: Any, a: Any, panel: Any, add: Any) -> Any:
        return types.void(out, a, panel, add), lambda *call: _generate(vectors, *call)

    return intrinsic(tile)


def _generate(vectors: int, context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Write the instructions of one tile."""
    out_type, a_type, panel_type, _ = signature.args
    out = context.make_array(out_type)(context, builder, arguments[0])
    a = context.make_array(a_type)(context, builder, arguments[1])
    panel = context.make_array(panel_type)(context, builder, arguments[2])
    add = arguments[3]
    write = _Writer(builder, a_type.dtype == types.float32)

    rows, columns = cgutils.unpack_tuple(builder, out.shape, 2)
    out_stride = cgutils.unpack_tuple(builder, out.strides, 2)[0]
    depth = builder.sdiv(cgutils.unpack_tuple(builder, a.shape, 1)[0], write.integer(ROWS))

    # Rows beyond the last repeat its address; they are computed along, but never stored.
    last = builder.sub(rows, write.integer(1))
    out_rows = []
    for r in range(ROWS):
        beyond = builder.icmp_signed(">", write.integer(r), last)
        row = builder.select(beyond, last, write.integer(r))
        out_rows.append(write.offset(out.data, builder.mul(row, out_stride)))

    for out_row in out_rows:  # they are needed at the end, and on their way meanwhile
        for v in range(vectors):
            write.prefetch(out_row, write.integer(v * VECTOR_BYTES), for_writing=True)

    sums = [[write.zeroed_register() for _ in range(vectors)] for _ in range(ROWS)]
    with cgutils.for_range(builder, depth) as loop:
        panel_row = builder.mul(loop.index, write.integer(vectors * VECTOR_BYTES))
        factors = [
            write.load_vector(panel.data, builder.add(panel_row, write.integer(v * VECTOR_BYTES)))
            for v in range(vectors)
        ]
        column = builder.mul(loop.index, write.integer(ROWS * write.item_bytes))
        for r, row_sums in enumerate(sums):
            place = builder.add(column, write.integer(r * write.item_bytes))
            factor = write.load_repeated(a.data, place)
            for vector_sum, vector in zip(row_sums, factors, strict=True):
                write.multiply_add(vector_sum, factor, vector)

    for r, (out_row, row_sums) in enumerate(zip(out_rows, sums, strict=True)):
        with builder.if_then(builder.icmp_signed("<", write.integer(r), rows)):
            for v, vector_sum in enumerate(row_sums):
                write.store(out_row, v, columns, vector_sum, add)
    return context.get_dummy_value()


class _Writer:
    """The vector instructions that a tile consists of, for one dtype of its factors."""

    def __init__(self, builder: Any, single: bool) -> None:
        self.builder = builder
        self.single = single
        self.item_bytes = 4 if single else 8
        self.lanes = VECTOR_BYTES // self.item_bytes
        self.scalar = ir.FloatType() if single else ir.DoubleType()
        self.vector = ir.VectorType(self.scalar, self.lanes)
        self.out_vector = ir.VectorType(ir.DoubleType(), self.lanes)
        self.mask = ir.VectorType(ir.IntType(1), self.lanes)

    def integer(self, value: int) -> Any:
        return ir.Constant(ir.IntType(64), value)

    def offset(self, pointer: Any, bytes_: Any, to: Any = None) -> Any:
        """Move a pointer by some bytes, and let it point to type `to`."""
        byte = ir.IntType(8).as_pointer()
        moved = self.builder.gep(self.builder.bitcast(pointer, byte), [bytes_])
        return moved if to is None else self.builder.bitcast(moved, to.as_pointer())

    def prefetch(self, pointer: Any, bytes_: Any, *, for_writing: bool) -> None:
        flag = ir.IntType(32)
        byte = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]),
            "llvm.prefetch.p0",
        )
        closest_cache, data = flag(3), flag(1)
        self.builder.call(
            function, [self.offset(pointer, bytes_), flag(int(for_writing)), closest_cache, data]
        )

    def zeroed_register(self) -> Any:
        """Declare a vector variable; LLVM keeps it in a register."""
        register = cgutils.alloca_once(self.builder, self.vector)
        self.builder.store(ir.Constant(self.vector, [0.0] * self.lanes), register)
        return register

    def load_vector(self, pointer: Any, bytes_: Any) -> Any:
        return self.builder.load(self.offset(pointer, bytes_, self.vector), align=self.item_bytes)

    def load_repeated(self, pointer: Any, bytes_: Any) -> Any:
        return self.repeated(self.builder.load(self.offset(pointer, bytes_, self.scalar)))

    def repeated(self, value: Any) -> Any:
        """Fill a vector with one value."""
        empty = ir.Constant(ir.VectorType(value.type, self.lanes), ir.Undefined)
        first = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        one = self.builder.insert_element(empty, value, ir.IntType(32)(0))
        return self.builder.shuffle_vector(one, empty, first)

    def multiply_add(self, register: Any, x: Any, y: Any) -> None:
        """Add x * y to a register; "contract" allows the fused instruction where there is one."""
        flags = ("contract",)
        product = self.builder.fmul(x, y, flags=flags)
        self.builder.store(
            self.builder.fadd(self.builder.load(register), product, flags=flags), register
        )

    def store(self, out_row: Any, v: int, columns: Any, register: Any, add: Any) -> None:
        """Write vector v of a row of sums to `out`, or add it, up to the last of the columns."""
        builder = self.builder
        left = builder.sub(columns, self.integer(v * self.lanes))
        lane_numbers = ir.Constant(ir.VectorType(ir.IntType(64), self.lanes), [*range(self.lanes)])
        inside = builder.icmp_signed("<", lane_numbers, self.repeated(left))
        nowhere = ir.Constant(self.mask, [0] * self.lanes)
        value = builder.load(register)
        if self.single:
            value = builder.fpext(value, self.out_vector)
        place = self.offset(out_row, self.integer(v * self.lanes * 8), self.out_vector)
        zeros = ir.Constant(self.out_vector, [0.0] * self.lanes)
        old = self._masked("load", place, builder.select(add, inside, nowhere), zeros)
        self._masked("store", place, inside, builder.fadd(old, value))

    def _masked(self, action: str, place: Any, mask: Any, value: Any) -> Any:
        """Load or store the lanes that the mask selects; `value` is loaded into, or stored."""
        alignment = ir.IntType(32)(8)
        pointer = self.out_vector.as_pointer()
        if action == "load":
            returned, operands = self.out_vector, [place, alignment, mask, value]
        else:
            returned, operands = ir.VoidType(), [value, place, alignment, mask]
        types_ = [pointer if operand is place else operand.type for operand in operands]
        function = cgutils.get_or_insert_function(
            self.builder.module,
            ir.FunctionType(returned, types_),
            f"llvm.masked.{action}.v{self.lanes}f64.p0",
        )
        return self.builder.call(function, operands)


multiply_wide_tile = _tile(VECTORS)
multiply_narrow_tile = _tile(1)
