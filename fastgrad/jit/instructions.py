"""LLVM instructions of vectors, tiles of matrix products and launches, which numba is taught.

They are written with inner parts of numba. Where one of these has gone, this module cannot be
imported; the functions of `vectors` are then compiled as they stand, and kernels launched by plain
loops.
"""

import functools
import operator
from collections.abc import Callable
from itertools import chain
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.base import BaseContext
from numba.core.callconv import CPUCallConv
from numba.core.cgutils import (
    alloca_once,
    alloca_once_value,
    for_range,
    get_null_value,
    get_or_insert_function,
    unpack_tuple,
)
from numba.core.codegen import JITCodeLibrary
from numba.core.cpu import CPUContext
from numba.core.registry import cpu_target
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import intrinsic, lower_builtin, models, register_model
from numba.np.ufunc import workqueue  # type: ignore[attr-defined]  # which is written in C

REQUIRED_ATTRIBUTES = (
    *(BaseContext.make_array, BaseContext.make_tuple, BaseContext.get_dummy_value),
    *(CPUContext.call_conv, JITCodeLibrary.get_pointer_to_function),
    *(CPUCallConv.get_function_type, CPUCallConv.call_function),
    *(workqueue.parallel_for, workqueue.get_num_threads),  # under these names in other pools, too
)
"""What is looked up no sooner than when a kernel is compiled: it has to be there now."""

# Chains of operations are contracted to fused ones where the machine has them; nothing else.
FLAGS = ("contract",)


def _vector_bytes() -> int:
    """Return the width of the widest registers that numba generates code for."""
    features = cpu_target.target_context.codegen().magic_tuple()[2]
    return 64 if "+avx512f" in features else 32 if "+avx" in features else 16


VECTOR_BYTES = _vector_bytes()
LANES = VECTOR_BYTES // 8


class VectorType(types.Type):
    """The type of a vector of `LANES` float64 numbers, to numba."""


@register_model(VectorType)
class VectorModel(models.PrimitiveModel):
    """A vector is one LLVM value."""

    def __init__(self, manager: Any, vector_type: VectorType) -> None:
        models.PrimitiveModel.__init__(self, manager, vector_type, VECTOR_IR)


VECTOR = VectorType(name="vector")
VECTOR_IR = ir.VectorType(ir.DoubleType(), LANES)
INTEGERS_IR = ir.VectorType(ir.IntType(64), LANES)
NUMBER = types.float64
ROW = types.Array(types.float64, 1, "C")
PLACES = [
    (ROW, types.intp),
    *((types.Array(types.float64, n, "C"), types.UniTuple(types.intp, n)) for n in (2, 3)),
]

Write = Callable[..., Any]
"""``write(builder, *arguments)`` returns the LLVM value of a result. An array comes as its numba
structure, with the attributes ``data``, ``shape`` and ``strides``."""

LOWERING: dict[str, tuple[Write, tuple[Any, ...]]] = {}
"""Instructions by name, and the signatures for which they are."""


def _lowering(name: str, *cases: Any) -> Callable[[Write], Write]:
    """Decorate what writes the instructions of a name, for some numba signatures."""

    def decorate(write: Write) -> Write:
        LOWERING[name] = write, cases
        return write

    return decorate


def register(function: Callable[..., Any], name: str, **constants: Any) -> None:
    """Register instructions as what a Python function is in kernels; it stays as it is in Python.

    Parameters
    ----------
    function : callable
    name : str
        Of the instructions, in `LOWERING`.
    **constants
        What else the writer of the instructions is passed.
    """
    write, cases = LOWERING[name]
    register_lowering(function, functools.partial(write, **constants), *cases)


def register_lowering(function: Callable[..., Any], write: Write, *cases: Any) -> None:
    """Register instructions as what a Python function or operator is in kernels."""
    template = type("Template", (ConcreteTemplate,), {"key": function, "cases": list(cases)})
    infer_global(function, types.Function(template))

    def generate(context: Any, builder: Any, case: Any, values: Any) -> Any:
        operands = [
            context.make_array(kind)(context, builder, value)
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(case.args, values, strict=True)
        ]
        result = write(builder, *operands)
        return context.get_dummy_value() if result is None else result

    for case in cases:
        lower_builtin(function, *case.args)(generate)


def repeated(builder: Any, number: Any, lanes: int = LANES) -> Any:
    """Write the instructions that fill a vector with one number or integer."""
    empty = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    one = builder.insert_element(empty, number, ir.IntType(32)(0))
    return builder.shuffle_vector(one, empty, first)


def _constant(number: float) -> Any:
    """Return a vector with the same number in every lane."""
    return ir.Constant(VECTOR_IR, [number] * LANES)


def _register_operator(operation: Callable[..., Any], instruction: str) -> None:
    """Register an operator on two vectors, or on a vector and a number."""

    def write(builder: Any, x: Any, y: Any) -> Any:
        x, y = (v if v.type == VECTOR_IR else repeated(builder, v) for v in (x, y))
        return getattr(builder, instruction)(x, y, flags=FLAGS)

    cases = VECTOR(VECTOR, VECTOR), VECTOR(VECTOR, NUMBER), VECTOR(NUMBER, VECTOR)
    register_lowering(operation, write, *cases)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")
_register_operator(operator.truediv, "fdiv")


def _address(builder: Any, array: Any, place: Any) -> Any:
    """Write the address of the vector that begins at a place of an array."""
    indices = [place] if place.type == ir.IntType(64) else unpack_tuple(builder, place)
    i = indices[0]
    for axis in range(1, len(indices)):
        length = builder.extract_value(array.shape, axis)
        i = builder.add(builder.mul(i, length), indices[axis])
    return builder.bitcast(builder.gep(array.data, [i]), VECTOR_IR.as_pointer())


@_lowering("load", *(VECTOR(array, place) for array, place in PLACES))
def _write_load(builder: Any, array: Any, place: Any) -> Any:
    """Write what loads a vector."""
    return builder.load(_address(builder, array, place), align=8)


@_lowering("store", *(types.none(array, place, VECTOR) for array, place in PLACES))
def _write_store(builder: Any, array: Any, place: Any, vector: Any) -> None:
    """Write what stores a vector."""
    builder.store(vector, _address(builder, array, place), align=8)


def _lanes_below(builder: Any, count: Any, lanes: int = LANES) -> Any:
    """Write the instructions that tell which lanes have a number below an integer."""
    numbers = ir.Constant(ir.VectorType(ir.IntType(64), lanes), [*range(lanes)])
    return builder.icmp_signed("<", numbers, repeated(builder, count, lanes))


def _bytes_of(number: Any) -> int:
    """Return the size of a float64 or int32."""
    return 8 if number == ir.DoubleType() else 4


def _zeros(vector: Any) -> Any:
    """Return a vector of zeros."""
    zero = 0.0 if vector.element == ir.DoubleType() else 0
    return ir.Constant(vector, [zero] * vector.count)


def _write_masked_load(builder: Any, address: Any, mask: Any) -> Any:
    """Write the instructions that load the chosen lanes, and zero into the others."""
    vector = address.type.pointee
    size = _bytes_of(vector.element)
    kind = "f64" if size == 8 else "i32"
    operands = [address, ir.IntType(32)(size), mask, _zeros(vector)]
    return write_call(builder, f"llvm.masked.load.v{vector.count}{kind}.p0", vector, operands)


def _write_masked_store(builder: Any, address: Any, mask: Any, vector: Any) -> None:
    """Write the instructions that store the chosen lanes."""
    size = _bytes_of(vector.type.element)
    name = f"llvm.masked.store.v{vector.type.count}{'f64' if size == 8 else 'i32'}.p0"
    operands = [vector, address, ir.IntType(32)(size), mask]
    write_call(builder, name, ir.VoidType(), operands)


def write_call(builder: Any, name: str, result: Any, operands: list[Any]) -> Any:
    """Write the call of one of LLVM's intrinsic functions."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(get_or_insert_function(builder.module, kind, name), operands)


@_lowering("load_part", VECTOR(ROW, types.intp, types.intp))
def _write_load_part(builder: Any, array: Any, i: Any, count: Any) -> Any:
    """Write what loads the first lanes of a vector."""
    return _write_masked_load(builder, _address(builder, array, i), _lanes_below(builder, count))


@_lowering("store_part", types.none(ROW, types.intp, types.intp, VECTOR))
def _write_store_part(builder: Any, array: Any, i: Any, count: Any, vector: Any) -> None:
    """Write what stores the first lanes of a vector."""
    _write_masked_store(builder, _address(builder, array, i), _lanes_below(builder, count), vector)


_lowering("repeat", VECTOR(NUMBER))(repeated)


@_lowering("total", NUMBER(VECTOR))
def _write_total(builder: Any, vector: Any) -> Any:
    """Write what adds the lanes, the first ones first."""
    result = ir.Constant(ir.DoubleType(), 0.0)
    for lane in range(LANES):
        result = builder.fadd(result, builder.extract_element(vector, ir.IntType(32)(lane)))
    return result


@_lowering("magnitude", VECTOR(VECTOR))
def _write_magnitude(builder: Any, vector: Any) -> Any:
    """Write what takes absolute values."""
    return write_call(builder, f"llvm.fabs.v{LANES}f64", VECTOR_IR, [vector])


@_lowering("where_negative", VECTOR(VECTOR, VECTOR, VECTOR))
def _write_where_negative(builder: Any, vector: Any, negative: Any, other: Any) -> Any:
    """Write what chooses by the sign of each lane."""
    return builder.select(builder.fcmp_ordered("<", vector, _constant(0.0)), negative, other)


@_lowering("larger", VECTOR(VECTOR, VECTOR))
def _write_larger(builder: Any, x: Any, y: Any) -> Any:
    """Write what chooses the larger of two numbers in each lane, or y."""
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


@_lowering("smaller", VECTOR(VECTOR, VECTOR))
def _write_smaller(builder: Any, x: Any, y: Any) -> Any:
    """Write what chooses the smaller of two numbers in each lane, or y."""
    return builder.select(builder.fcmp_ordered("<", x, y), x, y)


# Adding 1.5 * 2**52 rounds to a whole number and leaves it in the low bits of the sum.
_ROUNDER = 1.5 * 2.0**52


@_lowering("nearest", VECTOR(VECTOR))
def _write_nearest(builder: Any, vector: Any) -> Any:
    """Write what rounds each lane to a whole number."""
    return builder.fsub(builder.fadd(vector, _constant(_ROUNDER)), _constant(_ROUNDER))


WORDS = types.Array(types.int32, 1, "C")


@_lowering("store_words", types.none(WORDS, types.intp, types.intp, VECTOR, VECTOR))
def _write_store_words(builder: Any, array: Any, i: Any, count: Any, low: Any, high: Any) -> None:
    """Write what rounds two vectors to 16 bits, and stores them in one word a lane."""
    words = ir.VectorType(ir.IntType(32), LANES)
    low, high = (
        builder.trunc(
            builder.bitcast(builder.fadd(vector, _constant(_ROUNDER)), INTEGERS_IR), words
        )
        for vector in (low, high)
    )
    mask, shift = (ir.Constant(words, [number] * LANES) for number in (0xFFFF, 16))
    both = builder.or_(builder.and_(low, mask), builder.shl(high, shift))
    address = builder.bitcast(builder.gep(array.data, [i]), words.as_pointer())
    _write_masked_store(builder, address, _lanes_below(builder, count), both)


@_lowering("power_of_two", VECTOR(VECTOR))
def _write_power_of_two(builder: Any, vector: Any) -> Any:
    """Write what computes 2 to the power of whole numbers, by their bits."""
    whole = builder.bitcast(builder.fadd(vector, _constant(_ROUNDER)), INTEGERS_IR)
    biased = builder.add(whole, ir.Constant(INTEGERS_IR, [1023] * LANES))
    exponent = builder.shl(biased, ir.Constant(INTEGERS_IR, [52] * LANES))
    return builder.bitcast(exponent, VECTOR_IR)


# Tiles of matrix products -------------------------------------------------------------------------


_MATRIX, *_PLACE = types.Array(types.float64, 2, "A"), types.intp, types.intp


def _integer(value: int) -> Any:
    """Return an integer of 64 bits."""
    return ir.Constant(ir.IntType(64), value)


def _address_after(builder: Any, pointer: Any, count: Any, stride: Any) -> Any:
    """Write the address that lies so many strides, in bytes, after a pointer."""
    start = builder.bitcast(pointer, ir.IntType(8).as_pointer())
    return builder.bitcast(builder.gep(start, [builder.mul(count, stride)]), pointer.type)


@_lowering(
    "tile",
    *(
        types.none(_MATRIX, *2 * [types.Array(word, 2, "A")], NUMBER, types.boolean)
        for word in (types.float64, types.int32)
    ),
)
def _write_tile(
    builder: Any,
    out: Any,
    a: Any,
    b: Any,
    scale: Any,
    add: Any,
    *,
    tile_rows: int,
    vectors: int,
    vector_bytes: int,
    partial: bool,
    where: Any = None,
) -> None:
    """Write the instructions of a tile; if `partial`, its last vector may exceed the columns.

    Where `out` has half the rows or fewer, only these are computed, and no others are read. With an
    array `where`, only those columns of a and rows of b are multiplied.
    """
    word = b.data.type.pointee
    lanes = vector_bytes // _bytes_of(word)
    word_ir, result_ir = (ir.VectorType(kind, lanes) for kind in (word, ir.DoubleType()))

    def vector(pointer: Any, v: int) -> Any:
        """Write the address of the v-th vector after a pointer."""
        moved = builder.gep(pointer, [_integer(v * lanes)])
        return builder.bitcast(moved, ir.VectorType(pointer.type.pointee, lanes).as_pointer())

    rows, columns = unpack_tuple(builder, out.shape, 2)
    out_stride, _ = unpack_tuple(builder, out.strides, 2)
    (depth,) = unpack_tuple(builder, a.shape if where is None else where.shape)[-1:]
    a_row_stride, a_stride = unpack_tuple(builder, a.strides, 2)
    b_stride, _ = unpack_tuple(builder, b.strides, 2)
    inside = _lanes_below(builder, columns, lanes)

    out_rows, a_rows = (
        [_address_after(builder, data, _integer(r), stride) for r in range(tile_rows)]
        for data, stride in ((out.data, out_stride), (a.data, a_row_stride))
    )
    sums = [[alloca_once(builder, word_ir) for _ in range(vectors)] for _ in range(tile_rows)]
    for register in chain(*sums):
        builder.store(_zeros(word_ir), register)

    # The old results are needed only after the loop: let them come into the cache meanwhile.
    for_writing, closest, data = (ir.IntType(32)(flag) for flag in (1, 3, 1))
    for out_row in out_rows:
        for v in range(vectors):
            address = builder.bitcast(vector(out_row, v), ir.IntType(8).as_pointer())
            operands = [address, for_writing, closest, data]
            write_call(builder, "llvm.prefetch.p0", ir.VoidType(), operands)

    def write_products(a_rows: list[Any]) -> None:
        with for_range(builder, depth) as loop:
            k = loop.index if where is None else builder.load(builder.gep(where.data, [loop.index]))
            b_row = _address_after(builder, b.data, k, b_stride)
            factors = [
                _write_masked_load(builder, vector(b_row, v), inside)
                if partial
                else builder.load(vector(b_row, v), align=_bytes_of(word))
                for v in range(vectors)
            ]
            for a_row, row_sums in zip(a_rows, sums, strict=False):
                element = builder.load(_address_after(builder, a_row, k, a_stride))
                factor = repeated(builder, element, lanes)
                for register, b_vector in zip(row_sums, factors, strict=True):
                    total = _write_multiply_add(builder, factor, b_vector, builder.load(register))
                    builder.store(total, register)

    half = tile_rows // 2
    few_rows = a_rows[:1]  # and, where the last one is reached, that one again
    for r in range(1, half):
        is_there = builder.icmp_signed("<", _integer(r), rows)
        few_rows.append(builder.select(is_there, a_rows[r], few_rows[-1]))
    with builder.if_else(builder.icmp_signed("<=", rows, _integer(half))) as (few, all_rows):
        with few:
            write_products(few_rows)
        with all_rows:
            write_products(a_rows)

    scales = repeated(builder, scale, lanes)
    everywhere = ir.Constant(inside.type, [1] * lanes)
    mask = inside if partial else everywhere
    old_mask = builder.select(add, mask, _zeros(inside.type))
    for r, row_sums in enumerate(sums):
        with builder.if_then(builder.icmp_signed("<", _integer(r), rows)):
            for v, register in enumerate(row_sums):
                place = vector(out_rows[r], v)
                old = _write_masked_load(builder, place, old_mask)
                result = builder.load(register)
                if word_ir != result_ir:
                    result = builder.sitofp(result, result_ir)
                new = builder.fadd(old, builder.fmul(result, scales, flags=FLAGS), flags=FLAGS)
                _write_masked_store(builder, place, mask, new)


@_lowering("picked_tile", types.none(*3 * [_MATRIX], types.Array(types.int64, 1, "C")))
def _write_picked_tile(
    builder: Any, out: Any, a: Any, b: Any, where: Any, **constants: Any
) -> None:
    """Write the instructions of a tile of some columns of a, and rows of b."""
    one, false = ir.Constant(ir.DoubleType(), 1.0), ir.Constant(ir.IntType(1), 0)
    _write_tile(builder, out, a, b, one, false, where=where, **constants)


def _write_multiply_add(builder: Any, x: Any, y: Any, total: Any) -> Any:
    """Write total + x y; a product of words is the sum of those of their two 16-bit integers."""
    if x.type.element == ir.DoubleType():
        return builder.fadd(total, builder.fmul(x, y, flags=FLAGS), flags=FLAGS)
    # So written, LLVM has one or two instructions for it: pmaddwd and paddd, or vpdpwssd.
    halves, lanes = 2 * x.type.count, ir.VectorType(ir.IntType(32), x.type.count)
    short, long = (ir.VectorType(ir.IntType(bits), halves) for bits in (16, 32))
    products = builder.mul(*(builder.sext(builder.bitcast(word, short), long) for word in (x, y)))
    low, high = (
        builder.shuffle_vector(products, products, ir.Constant(lanes, [*range(half, halves, 2)]))
        for half in (0, 1)
    )
    return builder.add(total, builder.add(low, high))


# Launches -----------------------------------------------------------------------------------------

# numba's own parallel loops take as long again to compile as the loop itself. Here a kernel is
# compiled serially, as ``function(task, tasks, ...)``, and what is under these loops spreads the
# task numbers over the threads: it calls a function in each of them with a range of them.

INTEGER, POINTER = ir.IntType(64), ir.IntType(8).as_pointer()
# What runs a range: of the first task, as an address, how many there are, a step that is ignored,
# and where the kernel and its arguments are.
RUNNER = ir.FunctionType(
    ir.VoidType(), [POINTER.as_pointer(), INTEGER.as_pointer(), INTEGER.as_pointer(), POINTER]
)


def run(address: int, serially: bool, tasks: int, arguments: tuple[Any, ...]) -> None:
    """Run all tasks of a kernel, on as many threads as numba uses.

    Compiled once for each kernel, with the types of its arguments.

    Parameters
    ----------
    address : int
        Of the compiled kernel.
    serially : bool
        Whether to run the tasks here, one after the other.
    tasks : int
    arguments : tuple of arrays and scalars
        The kernel's, after the task and the number of tasks.
    """
    _run(address, serially, tasks, arguments)


def run_type(arguments: tuple[Any, ...]) -> Any:
    """Return the type of `run` for a kernel's types of arguments."""
    return types.none(types.int64, types.boolean, types.int64, types.Tuple(arguments))


def address_of(kernel: Any) -> int:
    """Return where the code of a kernel is, which is compiled once."""
    (result,) = kernel.overloads.values()
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def _type_run(typing: Any, address: Any, serially: Any, tasks: Any, arguments: Any) -> Any:
    """Return the type of `_run` and what writes its instructions, as numba asks for them."""

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        address, serially, tasks, arguments = values
        packed = _without_references(context, builder, case.args[3], arguments)
        layout = ir.LiteralStructType([INTEGER, INTEGER, packed.type])
        data = alloca_once(builder, layout)
        for i, value in enumerate((address, tasks, packed)):
            builder.store(value, builder.gep(data, [ir.IntType(32)(0), ir.IntType(32)(i)]))
        first, count, step = (
            alloca_once_value(builder, value)
            for value in (ir.Constant(POINTER, None), tasks, INTEGER(1))
        )
        runner = _write_runner(context, builder.module, case.args[3], layout)
        operands = [first, count, step, builder.bitcast(data, POINTER)]
        with builder.if_else(serially) as (here, in_threads):
            with here:
                builder.call(runner, operands)
            with in_threads:
                pointers = [builder.bitcast(value, POINTER) for value in (runner, *operands)]
                threads = write_call(builder, "get_num_threads", INTEGER, [])
                operands = [*pointers, INTEGER(0), INTEGER(1), threads]
                write_call(builder, "numba_parallel_for", ir.VoidType(), operands)
        return context.get_dummy_value()

    return types.none(address, serially, tasks, arguments), write


_run: Any = intrinsic(_type_run)


def _without_references(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
    """Write the tuple of arguments anew, with arrays that numba does not count references of."""
    values = []
    for item, value in zip(kind.types, unpack_tuple(builder, arguments), strict=True):
        if isinstance(item, types.Array):
            array = context.make_array(item)(context, builder, value)
            array.meminfo = get_null_value(array.meminfo.type)
            array.parent = get_null_value(array.parent.type)
            value = array._getvalue()
        values.append(value)
    return context.make_tuple(builder, kind, values)


def _write_runner(context: Any, module: Any, kind: Any, layout: Any) -> Any:
    """Write the function that calls a kernel with each task of a range."""
    runner = ir.Function(module, RUNNER, module.get_unique_name("runner"))
    runner.linkage = "internal"
    builder = ir.IRBuilder(runner.append_basic_block())
    first, count, _, data = runner.args
    data = builder.load(builder.bitcast(data, layout.as_pointer()))
    address, tasks, packed = (builder.extract_value(data, i) for i in range(3))
    accepted = (types.int64, types.int64, *kind.types)
    function = context.call_conv.get_function_type(types.none, accepted)
    kernel = builder.inttoptr(address, function.as_pointer())
    start = builder.ptrtoint(builder.load(first), INTEGER)
    with for_range(builder, builder.load(count)) as loop:
        arguments = [builder.add(start, loop.index), tasks, *unpack_tuple(builder, packed)]
        context.call_conv.call_function(builder, kernel, types.none, accepted, arguments)
    builder.ret_void()
    return runner
