"""Vectors of numbers in kernels, as wide as the processor's registers.

LLVM's own vectoriser gives up on loops that read many arrays, and leaves half of a 512-bit register
unused. So kernels say themselves what is a vector: `load` makes one of `LANES` neighbouring
elements of an array, ``+ - * /`` work lane by lane, also with a number, and `store` writes one
back. As plain Python (with the JIT off) a vector is a NumPy array of `LANES` elements; kernels
write ``x = x + y`` rather than ``x += y``, which would change an array that has two names.
"""

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.core.typing.templates import ConcreteTemplate, infer_global
from numba.extending import lower_builtin, models, register_model

from fastgrad.jit.kernel import inlined

# Chains of operations are contracted to fused ones where the machine has them; nothing else.
FLAGS = ("contract",)


def _vector_bytes() -> int:
    """Return the width of the widest registers that numba generates code for."""
    features = cpu_target.target_context.codegen().magic_tuple()[2]
    return 64 if "+avx512f" in features else 32 if "+avx" in features else 16


VECTOR_BYTES = _vector_bytes()
LANES = VECTOR_BYTES // 8


def padded(length: int) -> int:
    """Return the smallest multiple of `LANES` that is not below a length."""
    return -(-length // LANES) * LANES


def load(array: Any, place: Any) -> Any:
    """Return `LANES` elements from a place on as a vector; the array is contiguous.

    A place in a matrix is a tuple (row, column): ``load(z, (n, j))`` is compiled in less time than
    ``load(z[n], j)``. Indices are not negative, and all elements exist.
    """
    *row, i = np.atleast_1d(place)
    return array[tuple(row)][i : i + LANES].copy()


def store(array: Any, place: Any, vector: Any) -> None:
    """Write a vector to the `LANES` elements of an array from a place on, as `load` takes it."""
    *row, i = np.atleast_1d(place)
    array[tuple(row)][i : i + LANES] = vector


def load_part(array: Any, i: int, count: int) -> Any:
    """Return array[i : i + count] as a vector, then zeros; a count may be too large or negative."""
    vector = np.zeros(LANES)
    used = max(0, min(count, LANES))
    vector[:used] = array[i : i + used]
    return vector


def store_part(array: Any, i: int, count: int, vector: Any) -> None:
    """Write a vector's first lanes to array[i : i + count]; as `load_part` for other counts."""
    used = max(0, min(count, LANES))
    array[i : i + used] = vector[:used]


def repeat(number: float) -> Any:
    """Return a vector with the same number in every lane."""
    return np.full(LANES, number)


def total(vector: Any) -> float:
    """Add the lanes of a vector, the first ones first."""
    result = 0.0
    for lane in vector:
        result += float(lane)
    return result


def magnitude(vector: Any) -> Any:
    """Return the absolute values."""
    return np.abs(vector)


def where_negative(vector: Any, negative: Any, other: Any) -> Any:
    """Choose `negative` in the lanes where the vector is below zero, `other` elsewhere."""
    return np.where(vector < 0.0, negative, other)


def larger(x: Any, y: Any) -> Any:
    """Return the larger of two numbers in every lane; where either is nan, y."""
    return np.where(x > y, x, y)


@inlined
def exp(x: Any) -> Any:
    """Return e**x lane by lane, within one unit in the last place, without a call.

    With k the integer nearest to x / ln 2 and r = x - k ln 2, e**x = 2**k e**r; |r| < 0.35 lets
    thirteen terms of the series of e**r reach full precision. ln 2 comes in two parts, of which the
    first has 32 significant bits, so that its product with k is exact (Cody and Waite, 1980,
    "Software Manual for the Elementary Functions", chapter 6).

    x is limited to [-708, 709]: no underflow to zero and no overflow. nan stays nan.
    """
    x = limited(x, -708.0, 709.0)
    k = nearest(x * 1.4426950408889634)
    r = (x - k * 0.6931471803691238) - k * 1.9082149292705877e-10
    series = r * (1.0 / 6227020800.0) + 1.0 / 479001600.0
    series = series * r + 1.0 / 39916800.0
    series = series * r + 1.0 / 3628800.0
    series = series * r + 1.0 / 362880.0
    series = series * r + 1.0 / 40320.0
    series = series * r + 1.0 / 5040.0
    series = series * r + 1.0 / 720.0
    series = series * r + 1.0 / 120.0
    series = series * r + 1.0 / 24.0
    series = series * r + 1.0 / 6.0
    series = series * r + 0.5
    series = series * r + 1.0
    series = series * r + 1.0
    return series * power_of_two(k)


def limited(vector: Any, low: float, high: float) -> Any:
    """Limit every lane to [low, high]; nan stays nan."""
    return np.clip(vector, low, high)


def nearest(vector: Any) -> Any:
    """Round every lane to a whole number below 2**51 in magnitude."""
    return np.rint(vector)


def power_of_two(vector: Any) -> Any:
    """Return 2**k for lanes that hold whole numbers k from -1022 to 1023; nan stays nan or not."""
    return np.exp2(vector)


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


def register_lowering(function: Callable[..., Any], *cases: Any) -> Callable[..., Any]:
    """Register instructions as what a Python function or operator is in kernels.

    Parameters
    ----------
    function : callable
        What kernels call; as plain Python it runs as it stands.
    cases : numba signatures
        What it accepts and returns.

    Returns
    -------
    decorator
        For ``write(builder, *arguments)``, which returns the LLVM value of the result. An array
        comes as its numba structure, with the attributes ``data``, ``shape`` and ``strides``.
    """
    template = type("Template", (ConcreteTemplate,), {"key": function, "cases": list(cases)})
    infer_global(function)(template)

    def decorate(write: Callable[..., Any]) -> Callable[..., Any]:
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
        return write

    return decorate


def repeated(builder: Any, number: Any, lanes: int = LANES) -> Any:
    """Write the instructions that fill a vector with one number or integer."""
    empty = ir.Constant(ir.VectorType(number.type, lanes), ir.Undefined)
    first = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    one = builder.insert_element(empty, number, ir.IntType(32)(0))
    return builder.shuffle_vector(one, empty, first)


def _constant(number: float) -> Any:
    return ir.Constant(VECTOR_IR, [number] * LANES)


def _register_operator(operation: Callable[..., Any], instruction: str) -> None:
    """Register an operator on two vectors, or on a vector and a number."""

    @register_lowering(
        operation, VECTOR(VECTOR, VECTOR), VECTOR(VECTOR, NUMBER), VECTOR(NUMBER, VECTOR)
    )
    def write(builder: Any, x: Any, y: Any) -> Any:
        x, y = (v if v.type == VECTOR_IR else repeated(builder, v) for v in (x, y))
        return getattr(builder, instruction)(x, y, flags=FLAGS)


_register_operator(operator.add, "fadd")
_register_operator(operator.sub, "fsub")
_register_operator(operator.mul, "fmul")
_register_operator(operator.truediv, "fdiv")


def _address(builder: Any, array: Any, place: Any) -> Any:
    indices = [place] if place.type == ir.IntType(64) else cgutils.unpack_tuple(builder, place)
    i = indices[0]
    for axis in range(1, len(indices)):
        length = builder.extract_value(array.shape, axis)
        i = builder.add(builder.mul(i, length), indices[axis])
    return builder.bitcast(builder.gep(array.data, [i]), VECTOR_IR.as_pointer())


@register_lowering(load, *(VECTOR(array, place) for array, place in PLACES))
def _write_load(builder: Any, array: Any, place: Any) -> Any:
    return builder.load(_address(builder, array, place), align=8)


@register_lowering(store, *(types.none(array, place, VECTOR) for array, place in PLACES))
def _write_store(builder: Any, array: Any, place: Any, vector: Any) -> None:
    builder.store(vector, _address(builder, array, place), align=8)


def lanes_below(builder: Any, count: Any, lanes: int = LANES) -> Any:
    """Write the instructions that tell which lanes have a number below an integer."""
    numbers = ir.Constant(ir.VectorType(ir.IntType(64), lanes), [*range(lanes)])
    return builder.icmp_signed("<", numbers, repeated(builder, count, lanes))


def bytes_of(number: Any) -> int:
    """Return the size of a floating-point type."""
    return 4 if number == ir.FloatType() else 8


def write_masked_load(builder: Any, address: Any, mask: Any) -> Any:
    """Write the instructions that load the chosen lanes, and zero into the others."""
    vector = address.type.pointee
    size = bytes_of(vector.element)
    zeros = ir.Constant(vector, [0.0] * vector.count)
    operands = [address, ir.IntType(32)(size), mask, zeros]
    name = f"llvm.masked.load.v{vector.count}f{8 * size}.p0"
    return write_call(builder, name, vector, operands)


def write_masked_store(builder: Any, address: Any, mask: Any, vector: Any) -> None:
    """Write the instructions that store the chosen lanes."""
    operands = [vector, address, ir.IntType(32)(8), mask]
    name = f"llvm.masked.store.v{vector.type.count}f64.p0"
    write_call(builder, name, ir.VoidType(), operands)


def write_prefetch(builder: Any, address: Any) -> None:
    """Write the instruction that fetches what will be written; the address need not exist."""
    for_writing, closest, data = (ir.IntType(32)(flag) for flag in (1, 3, 1))
    operands = [address, for_writing, closest, data]
    write_call(builder, "llvm.prefetch.p0", ir.VoidType(), operands)


def write_call(builder: Any, name: str, result: Any, operands: list[Any]) -> Any:
    """Write the call of one of LLVM's intrinsic functions."""
    kind = ir.FunctionType(result, [operand.type for operand in operands])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)


@register_lowering(load_part, VECTOR(ROW, types.intp, types.intp))
def _write_load_part(builder: Any, array: Any, i: Any, count: Any) -> Any:
    return write_masked_load(builder, _address(builder, array, i), lanes_below(builder, count))


@register_lowering(store_part, types.none(ROW, types.intp, types.intp, VECTOR))
def _write_store_part(builder: Any, array: Any, i: Any, count: Any, vector: Any) -> None:
    write_masked_store(builder, _address(builder, array, i), lanes_below(builder, count), vector)


@register_lowering(repeat, VECTOR(NUMBER))
def _write_repeat(builder: Any, number: Any) -> Any:
    return repeated(builder, number)


@register_lowering(total, NUMBER(VECTOR))
def _write_total(builder: Any, vector: Any) -> Any:
    result = ir.Constant(ir.DoubleType(), 0.0)
    for lane in range(LANES):
        result = builder.fadd(result, builder.extract_element(vector, ir.IntType(32)(lane)))
    return result


@register_lowering(magnitude, VECTOR(VECTOR))
def _write_magnitude(builder: Any, vector: Any) -> Any:
    bits = builder.bitcast(vector, INTEGERS_IR)
    magnitude_bits = ir.Constant(INTEGERS_IR, [0x7FFF_FFFF_FFFF_FFFF] * LANES)
    return builder.bitcast(builder.and_(bits, magnitude_bits), VECTOR_IR)


@register_lowering(where_negative, VECTOR(VECTOR, VECTOR, VECTOR))
def _write_where_negative(builder: Any, vector: Any, negative: Any, other: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", vector, _constant(0.0)), negative, other)


@register_lowering(larger, VECTOR(VECTOR, VECTOR))
def _write_larger(builder: Any, x: Any, y: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


@register_lowering(limited, VECTOR(VECTOR, NUMBER, NUMBER))
def _write_limited(builder: Any, vector: Any, low: Any, high: Any) -> Any:
    for limit, sign in ((repeated(builder, low), "<"), (repeated(builder, high), ">")):
        vector = builder.select(builder.fcmp_ordered(sign, vector, limit), limit, vector)
    return vector


# Adding 1.5 * 2**52 rounds to a whole number and leaves it in the low bits of the sum.
_ROUNDER = 1.5 * 2.0**52


@register_lowering(nearest, VECTOR(VECTOR))
def _write_nearest(builder: Any, vector: Any) -> Any:
    return builder.fsub(builder.fadd(vector, _constant(_ROUNDER)), _constant(_ROUNDER))


@register_lowering(power_of_two, VECTOR(VECTOR))
def _write_power_of_two(builder: Any, vector: Any) -> Any:
    whole = builder.bitcast(builder.fadd(vector, _constant(_ROUNDER)), INTEGERS_IR)
    biased = builder.add(whole, ir.Constant(INTEGERS_IR, [1023] * LANES))
    exponent = builder.shl(biased, ir.Constant(INTEGERS_IR, [52] * LANES))
    return builder.bitcast(exponent, VECTOR_IR)
