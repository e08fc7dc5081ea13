"""How is a compiled function evaluated at several points at once? With lanes in numbers' places.

A jitted function compiles for whatever it is given. Given an array whose elements are not numbers
but lanes, one for each of several points (`lane_values`), the same function does the same
operations for all these points, in the processor's vector instructions: each lane has the bits that
a call for its point alone would have, for no operation is left out, added or moved. Nothing is
known of the function but what numba knows, and what has no meaning for lanes is not compiled: item
assignment to arrays of numbers, array expressions, ``np.dot`` and the like are refused by numba
itself.

Points may part: where a function branches on a comparison (or uses a whole number that it has made
of an element), the first lane decides for all. Where another lane would have decided otherwise, a
*disagreement* is counted, and the results of that call are void.
"""

import ctypes
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typeconv.castgraph import Conversion
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_cast, models, register_model
from numba.np.arrayobj import populate_array

from fastgrad.engines.lane_values import (
    LANES,
    NUMBER,
    VALUE,
    VECTOR,
    differ,
    each_lane,
    either,
    first_of,
    of_number,
    of_numbers,
    vector_of,
)

INTEGER = ir.IntType(64)

IN_MEMORY = ir.ArrayType(NUMBER, 1 + LANES)
"""A mark, whose bits are not all zero if the points differ, and a number for each lane; if they do
not, the first lane's is that of all."""

REAL = (types.Float, types.Integer, types.Boolean)
"""The types of numbers that operations combine with lanes, as they do with float64."""

ATTRIBUTES = {"T", "copy", "dtype", "flat", "flatten", "ndim", "ravel", "reshape", "shape", "size"}
"""What an array of lanes has. Others, such as strides, would tell that it is not one of numbers."""

_count = ctypes.c_int64(0)


class LanesType(types.Type):
    """The type of a float64 number at each of `LANES` points, to numba."""

    def __init__(self) -> None:
        super().__init__(name=f"lanes({LANES})")

    def can_convert_from(self, context: object, other: object) -> Conversion | None:
        """Take a real number: the same at all points."""
        return Conversion.safe if isinstance(other, REAL) else None

    def unify(self, context: object, other: object) -> types.Type | None:
        """Hold what is a number at first, and then depends on x, as a sum that starts at 0."""
        return self if isinstance(other, REAL) else None

    def __reduce__(self) -> Any:
        """Refuse to be pickled.

        Functions that f calls may be cached on disk by their author; code for lanes holds addresses
        of this process, and no cache that fastgrad has not made shall name its types.
        """
        raise TypeError("code for lanes is not cached")


class LanesArray(types.Array):
    """The type of an array of lanes, which can be read."""

    def __init__(self, ndim: int, layout: Any = "C") -> None:
        super().__init__(LANES_TYPE, ndim, layout, readonly=True, aligned=False)

    def copy(
        self, dtype: Any = None, ndim: Any = None, layout: Any = None, readonly: Any = None
    ) -> Any:
        """Return the type of what is made of such an array: a part, or a copy."""
        if (dtype is not None and dtype != self.dtype) or readonly is False:
            return super().copy(dtype, ndim, layout, readonly)
        ndim = self.ndim if ndim is None else ndim
        return LanesArray(ndim, self.layout if layout is None else layout)


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
        _, *others = each_lane(builder, builder.extract_value(value, 2))
        kept = [builder.bitcast(mark, NUMBER), first_of(builder, value), *others]
        data = ir.Constant(IN_MEMORY, ir.Undefined)
        for i, number in enumerate(kept):
            data = builder.insert_value(data, number, i)
        return data

    def from_data(self, builder: Any, data: Any) -> Any:
        """Write the instructions that make a value of what was in memory."""
        mark, *numbers = [builder.extract_value(data, i) for i in range(1 + LANES)]
        return of_numbers(builder, _is_set(builder, builder.bitcast(mark, INTEGER)), numbers)

    def load_from_data_pointer(self, builder: Any, pointer: Any, align: Any = None) -> Any:
        """Write the instructions that load a value, and no lanes that are not needed."""
        first = builder.gep(builder.bitcast(pointer, NUMBER.as_pointer()), [INTEGER(1)])
        mark = builder.load(builder.bitcast(pointer, INTEGER.as_pointer()), align=8)
        return either(
            builder,
            _is_set(builder, mark),
            lambda: builder.load(builder.bitcast(first, VECTOR.as_pointer()), align=8),
            lambda: builder.load(first, align=8),
        )


def _is_set(builder: Any, mark: Any) -> Any:
    return builder.icmp_unsigned("!=", mark, INTEGER(0))


@infer_getattr
class LanesArrayAttributes(AttributeTemplate):
    """Which attributes of an array of lanes numba finds; before it looks among those of arrays."""

    key = LanesArray

    def generic_resolve(  # type: ignore[override]  # which numba declares as not implemented
        self, array: LanesArray, name: str
    ) -> None:
        """Refuse all but a few; what they are is found as for any array."""
        if name not in ATTRIBUTES:
            raise TypingError(f"an array of lanes has no {name}")


def _number_to_lanes(context: Any, builder: Any, kind: Any, _: Any, number: Any) -> Any:
    return of_number(builder, context.cast(builder, number, kind, types.float64))


for real in REAL:
    lower_cast(real, LanesType)(_number_to_lanes)


def _as_lanes(context: Any, numbers: Any) -> Any:
    """View a contiguous float64 array ``(*shape, 1 + LANES)`` as one of lanes, of that shape.

    Of each ``1 + LANES`` numbers the first is the mark: 0, or 1 if the points differ.
    """
    lanes_array = LanesArray(numbers.ndim - 1)

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        source = context.make_array(numbers)(context, builder, values[0])
        view = context.make_array(lanes_array)(context, builder)
        populate_array(
            view,
            data=builder.bitcast(source.data, IN_MEMORY.as_pointer()),
            shape=cgutils.unpack_tuple(builder, source.shape)[:-1],
            strides=cgutils.unpack_tuple(builder, source.strides)[:-1],
            itemsize=INTEGER(8 * (1 + LANES)),
            meminfo=source.meminfo,
            parent=source.parent,
        )
        context.nrt.incref(builder, lanes_array, view._getvalue())
        return view._getvalue()

    return lanes_array(numbers), write


def _store_lanes(context: Any, numbers: Any, start: Any, lanes: Any) -> Any:
    """Write lanes to the `LANES` elements of a contiguous float64 array from start on."""

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


as_lanes: Any = intrinsic(_as_lanes)
store_lanes: Any = intrinsic(_store_lanes)
disagreements: Any = intrinsic(_disagreements)


def _counter() -> Any:
    address = INTEGER(ctypes.addressof(_count))
    return address.inttoptr(INTEGER.as_pointer())


def count_where(builder: Any, condition: Any) -> None:
    """Write the instructions that count a disagreement."""
    with builder.if_then(condition, likely=False):
        builder.atomic_rmw("add", _counter(), INTEGER(1), "monotonic")
