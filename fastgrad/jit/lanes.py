"""Numba types of a number at several points at once: one number, or a vector of them.

Where single elements of x are moved, most of what f computes is the same at all points: whatever
does not depend on those elements, and all that precedes their use. So lanes say, as f runs, whether
the points differ. While they do not, an operation is done once, with a number, and with a vector
from there on. The processor predicts which it will be, and LLVM writes a path of its own for a loop
of f in which nothing differs.

A jitted function compiles for whatever it is given. Given an array whose elements are not numbers
but lanes, one for each of several points (`types`), the same function does the same
operations for all these points, in the processor's vector instructions: each lane has the bits that
a call for its point alone would have, for no operation is left out, added or moved. Nothing is
known of the function but what numba knows, and what has no meaning for lanes is not compiled: item
assignment to arrays of numbers, ``np.dot`` and the like are refused by numba itself.

Points may part: where a function branches on a comparison (or uses a whole number that it has made
of an element), the first lane decides for all. Where another lane would have decided otherwise, a
*disagreement* is counted, and the results of that call are void. So it is where a nan is compared,
whichever way: numba's own functions, such as ``np.max``, look for nan first in arrays of numbers,
but not in arrays of other types.
"""

import ctypes
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import unpack_tuple
from numba.core.errors import TypingError
from numba.core.imputils import lower_constant
from numba.core.typeconv.castgraph import Conversion
from numba.core.typing.templates import (
    AttributeTemplate,
    bound_function,
)
from numba.extending import (
    infer_getattr,
    intrinsic,
    lower_cast,
    models,
    overload_attribute,
    overload_classmethod,
    register_model,
)
from numba.np.arrayobj import intrin_alloc, populate_array

from fastgrad.jit.instructions import VECTOR_BYTES, repeated

POINTS_AT_ONCE = 4 * VECTOR_BYTES // 8
"""Points at a time: as many registers' worth as leave a loop enough of them."""

NUMBER = ir.DoubleType()
VECTOR = ir.VectorType(NUMBER, POINTS_AT_ONCE)
TRUTH = ir.IntType(1)
VALUE = ir.LiteralStructType([TRUTH, NUMBER, VECTOR])
"""Whether the points differ; the number if they do not; the vector of all lanes if they do."""


def as_value(builder: Any, apart: Any, number: Any, vector: Any) -> Any:
    """Write the instructions that make lanes of their parts."""
    value = ir.Constant(VALUE, ir.Undefined)
    for place, part in enumerate((apart, number, vector)):
        value = builder.insert_value(value, part, place)
    return value


def of_number(builder: Any, number: Any) -> Any:
    """Write the instructions that make lanes of a number: it is the same at all points."""
    return as_value(builder, TRUTH(0), number, ir.Constant(VECTOR, ir.Undefined))


def differ(builder: Any, values: list[Any]) -> Any:
    """Write the instructions that say whether the points differ in some of several lanes."""
    first, *others = [builder.extract_value(value, 0) for value in values]
    for other in others:
        first = builder.or_(first, other)
    return first


def number_of(builder: Any, value: Any) -> Any:
    """Write the instruction that takes the number of all points, where they do not differ."""
    return builder.extract_value(value, 1)


def vector_of(builder: Any, value: Any) -> Any:
    """Write the instructions that make a vector of lanes, whether the points differ or not."""
    vector = builder.extract_value(value, 2)
    return either(
        builder,
        differ(builder, [value]),
        lambda: vector,
        lambda: repeated(builder, number_of(builder, value), POINTS_AT_ONCE),
    )


def either(
    builder: Any, condition: Any, at_each: Callable[[], Any], at_all: Callable[[], Any]
) -> Any:
    """Write what is done where the points differ, and what is done where they do not.

    Parameters
    ----------
    condition : LLVM value
        Whether they differ.
    at_each, at_all : callable
        They write it, and return the results: of one type, or a vector and a number.

    Returns
    -------
    LLVM value
        Of that one type; or lanes.
    """
    with builder.if_else(condition, likely=False) as (then, otherwise):
        with then:
            vector, first_end = at_each(), builder.block
        with otherwise:
            number, second_end = at_all(), builder.block

    def merged(first: Any, second: Any) -> Any:
        result = builder.phi(first.type)
        result.add_incoming(first, first_end)
        result.add_incoming(second, second_end)
        return result

    if vector.type == number.type:
        return merged(vector, number)
    none, nowhere = ir.Constant(number.type, ir.Undefined), ir.Constant(vector.type, ir.Undefined)
    return as_value(builder, condition, merged(none, number), merged(vector, nowhere))


def each_lane(builder: Any, vector: Any) -> list[Any]:
    """Write the instructions that take a vector apart."""
    return [builder.extract_element(vector, ir.IntType(32)(lane)) for lane in range(POINTS_AT_ONCE)]


def joined(builder: Any, numbers: list[Any]) -> Any:
    """Write the instructions that make a vector of numbers."""
    vector = ir.Constant(VECTOR, ir.Undefined)
    for lane, number in enumerate(numbers):
        vector = builder.insert_element(vector, number, ir.IntType(32)(lane))
    return vector


INTEGER = ir.IntType(64)

IN_MEMORY = ir.LiteralStructType([INTEGER, NUMBER, VECTOR], packed=True)
"""A mark, which is not zero if the points differ; the number if they do not, the lanes if so."""

WORDS = 2 + POINTS_AT_ONCE
"""How many float64 numbers that takes."""

REAL = (types.Float, types.Integer, types.Boolean)
"""The types of numbers that operations combine with lanes, as they do with float64."""

_count = ctypes.c_int64(0)


class LanesType(types.Type):
    """The type of a float64 number at each of `POINTS_AT_ONCE` points, to numba."""

    def __init__(self) -> None:
        super().__init__(name=f"lanes({POINTS_AT_ONCE})")

    def can_convert_from(self, context: object, other: object) -> Conversion | None:
        """Take a real number: the same at all points."""
        return Conversion.safe if isinstance(other, REAL) else None

    def unify(self, context: object, other: object) -> types.Type | None:
        """Hold what is a number at first, and then depends on x, as a sum that starts at 0."""
        return self if isinstance(other, REAL) else None

    def cast_python_value(self, value: float) -> float:
        """Return a number, such as the 0 at which sums start, as numba's functions ask for it."""
        return float(value)

    def __reduce__(self) -> Any:
        """Refuse to be pickled.

        Functions that f calls may be cached on disk by their author; code for lanes holds addresses
        of this process, and no cache that fastgrad has not made shall name its types.
        """
        raise TypeError("code for lanes is not cached")


class LanesArray(types.Array):
    """The type of an array of lanes."""

    is_internal = True  # to numba, which otherwise has no loops for expressions with it

    def __init__(self, ndim: int, layout: Any = "C", readonly: bool = False) -> None:
        super().__init__(LANES_TYPE, ndim, layout, readonly=readonly, aligned=False)

    def copy(
        self, dtype: Any = None, ndim: Any = None, layout: Any = None, readonly: Any = None
    ) -> Any:
        """Return the type of what is made of such an array: a part, or a copy."""
        if dtype is not None and dtype != self.dtype:
            return super().copy(dtype, ndim, layout, readonly)
        return LanesArray(
            self.ndim if ndim is None else ndim,
            self.layout if layout is None else layout,
            not self.mutable if readonly is None else readonly,
        )


LANES_TYPE = LanesType()
register_model(LanesArray)(models.ArrayModel)


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    """Lanes are a value to compute with; in memory, they need no more alignment than numbers."""

    def __init__(self, manager: Any, lanes_type: LanesType) -> None:
        models.PrimitiveModel.__init__(self, manager, lanes_type, VALUE)

    def get_data_type(self) -> Any:
        """Return what lanes are in memory."""
        return IN_MEMORY

    def as_data(self, builder: Any, value: Any) -> Any:
        """Write the instructions that make a value what is in memory."""
        mark = builder.zext(differ(builder, [value]), INTEGER)
        number, vector = (builder.extract_value(value, part) for part in (1, 2))
        data = ir.Constant(IN_MEMORY, ir.Undefined)
        for place, part in enumerate((mark, number, vector)):
            data = builder.insert_value(data, part, place)
        return data

    def from_data(self, builder: Any, data: Any) -> Any:
        """Write the instructions that make a value of what was in memory."""
        mark, number, vector = (builder.extract_value(data, part) for part in range(3))
        return as_value(builder, _is_set(builder, mark), number, vector)

    def load_from_data_pointer(self, builder: Any, pointer: Any, align: Any = None) -> Any:
        """Write the instructions that load a value: the number or the lanes, as it is needed."""
        mark, number, vector = (
            builder.gep(pointer, [ir.IntType(32)(0), ir.IntType(32)(part)]) for part in range(3)
        )
        return either(
            builder,
            _is_set(builder, builder.load(mark, align=8)),
            lambda: builder.load(vector, align=8),
            lambda: builder.load(number, align=8),
        )


def _is_set(builder: Any, mark: Any) -> Any:
    """Write whether a mark is set."""
    return builder.icmp_unsigned("!=", mark, INTEGER(0))


def _number_to_lanes(context: Any, builder: Any, kind: Any, _: Any, number: Any) -> Any:
    """Write what turns a number into one for all lanes."""
    return of_number(builder, context.cast(builder, number, kind, types.float64))


for kind in REAL:
    lower_cast(kind, LanesType)(_number_to_lanes)


@overload_attribute(LanesType, "real")
def _real(lanes: Any) -> Any:
    """Return them as they are: numba's variance asks for it."""

    def real(lanes: Any) -> Any:
        return lanes

    return real


def _store_lanes(context: Any, numbers: Any, start: Any, lanes: Any) -> Any:
    """Write lanes to the `POINTS_AT_ONCE` elements of a contiguous float64 array from start on."""

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        array = context.make_array(numbers)(context, builder, values[0])
        address = builder.gep(array.data, [values[1]])
        pointer = builder.bitcast(address, VECTOR.as_pointer())
        builder.store(vector_of(builder, values[2]), pointer, align=8)
        return context.get_dummy_value()

    return types.none(numbers, types.intp, LANES_TYPE), write


def _disagreements(context: Any) -> Any:
    """Return how many disagreements there have been, in all threads of this process."""

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        return builder.load_atomic(_counter(), "monotonic", align=8)

    return types.int64(), write


store_lanes: Any = intrinsic(_store_lanes)
disagreements: Any = intrinsic(_disagreements)


def _counter() -> Any:
    """Return the address of the count."""
    address = INTEGER(ctypes.addressof(_count))
    return address.inttoptr(INTEGER.as_pointer())


def count_where(builder: Any, condition: Any) -> None:
    """Write the instructions that count a disagreement."""
    with builder.if_then(condition, likely=False):
        builder.atomic_rmw("add", _counter(), INTEGER(1), "monotonic")


# Arrays -------------------------------------------------------------------------------------------

ATTRIBUTES = {
    *("T", "all", "any", "argmax", "argmin", "copy", "cumsum", "dtype", "fill", "flat", "flatten"),
    *("item", "max", "mean", "min", "ndim", "prod", "ravel", "reshape", "shape", "size", "sort"),
    *("std", "sum", "take", "transpose", "var", "_zero_fill"),
}
"""What an array of lanes has. Others, such as strides, would tell that it is not one of numbers."""


def _of_all_elements(_: Any, array: Any, arguments: tuple[Any, ...], keywords: Any) -> Any:
    """Return the signature of a method of an array that reduces it to a number."""
    return None if arguments or keywords else LANES_TYPE()


@infer_getattr
class LanesArrayAttributes(AttributeTemplate):
    """Which attributes of an array of lanes numba finds; before it looks among those of arrays."""

    key = LanesArray

    resolve_mean: Any = bound_function("lanes.mean")(_of_all_elements)
    resolve_prod: Any = bound_function("lanes.prod")(_of_all_elements)

    def generic_resolve(  # type: ignore[override]  # which numba declares as not implemented
        self, array: LanesArray, name: str
    ) -> None:
        """Refuse all but a few; what they are is found as for any array."""
        if name not in ATTRIBUTES:
            raise TypingError(f"an array of lanes has no {name}")


def _as_lanes(context: Any, numbers: Any) -> Any:
    """View a contiguous float64 array ``(*shape, WORDS)`` as one of lanes, of that shape.

    Of each ``WORDS`` numbers the first is the mark, 0 if the points do not differ, and 1 if they
    do; the second is the number at all of them in the first case, and the others are the lanes in
    the second.
    """
    lanes_array = LanesArray(numbers.ndim - 1, readonly=True)

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        source = context.make_array(numbers)(context, builder, values[0])
        view = context.make_array(lanes_array)(context, builder)
        populate_array(
            view,
            data=builder.bitcast(source.data, IN_MEMORY.as_pointer()),
            shape=unpack_tuple(builder, source.shape)[:-1],
            strides=unpack_tuple(builder, source.strides)[:-1],
            itemsize=INTEGER(8 * WORDS),
            meminfo=source.meminfo,
            parent=source.parent,
        )
        context.nrt.incref(builder, lanes_array, view._getvalue())
        return view._getvalue()

    return lanes_array(numbers), write


as_lanes: Any = intrinsic(_as_lanes)


_memory: Any = intrin_alloc


@overload_classmethod(LanesArray, "_allocate")
def _allocate(cls: Any, size: Any, align: Any) -> Any:
    """Allocate memory for the results of expressions, as numba does it for any array."""

    def allocate(cls: Any, size: Any, align: Any) -> Any:  # annotated alike, which numba wants
        return _memory(size, align)

    return allocate


def _constant(context: Any, builder: Any, kind: Any, number: Any) -> Any:
    """Write a constant, such as the 0 at which numba's sums start."""
    nowhere = ir.Constant(VECTOR, ir.Undefined)
    return ir.Constant(VALUE, [TRUTH(0), NUMBER(float(number)), nowhere])


lower_constant(LanesType)(_constant)
