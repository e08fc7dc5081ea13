"""How is a compiled function evaluated at several points at once? With lanes in numbers' places.

A jitted function compiles for whatever it is given. Given an array whose elements are not numbers
but vectors, one lane for each of several points, the same function does the same operations for all
these points, in the processor's vector instructions: each lane has the bits that a call for its
point alone would have, for no operation is left out, added or moved. Nothing is known of the
function but what numba knows, and what has no meaning for lanes is not compiled: item assignment to
arrays of numbers, array expressions, ``np.dot`` and the like are refused by numba itself.

Points may part: where a function branches on a comparison (or uses a whole number that it has made
of an element), the first lane decides for all. Where another lane would have decided otherwise, a
*disagreement* is counted, and the results of that call are void.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.typeconv.castgraph import Conversion
from numba.core.typing.templates import AttributeTemplate, infer_getattr
from numba.extending import intrinsic, lower_cast, models, register_model
from numba.np.arrayobj import populate_array

from fastgrad.network.vectors import VECTOR_BYTES, repeated

LANES = 2 * VECTOR_BYTES // 8
"""Points at a time: two registers' worth, so that one operation need not wait for the other."""

VECTOR = ir.VectorType(ir.DoubleType(), LANES)
NUMBERS = ir.ArrayType(ir.DoubleType(), LANES)
INTEGER = ir.IntType(64)

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
    """Lanes are a vector to compute with; in memory, they need no more alignment than numbers."""

    def __init__(self, manager: Any, lanes_type: LanesType) -> None:
        models.PrimitiveModel.__init__(self, manager, lanes_type, VECTOR)

    def get_data_type(self) -> Any:
        """Return what lanes are in memory."""
        return NUMBERS

    def as_data(self, builder: Any, lanes: Any) -> Any:
        """Write the instructions that make a vector what is in memory."""
        numbers = ir.Constant(NUMBERS, ir.Undefined)
        for i, number in enumerate(each_lane(builder, lanes)):
            numbers = builder.insert_value(numbers, number, i)
        return numbers

    def from_data(self, builder: Any, numbers: Any) -> Any:
        """Write the instructions that make a vector of what was in memory."""
        return joined(builder, [builder.extract_value(numbers, i) for i in range(LANES)])

    def load_from_data_pointer(self, builder: Any, pointer: Any, align: Any = None) -> Any:
        """Write the instruction that loads a vector."""
        return builder.load(builder.bitcast(pointer, VECTOR.as_pointer()), align=8)


def each_lane(builder: Any, lanes: Any) -> Iterator[Any]:
    """Iterate over the lanes of a vector."""
    for lane in range(LANES):
        yield builder.extract_element(lanes, ir.IntType(32)(lane))


def joined(builder: Any, numbers: list[Any]) -> Any:
    """Write the instructions that make a vector of numbers."""
    lanes = ir.Constant(VECTOR, ir.Undefined)
    for lane, number in enumerate(numbers):
        lanes = builder.insert_element(lanes, number, ir.IntType(32)(lane))
    return lanes


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
    return repeated(builder, context.cast(builder, number, kind, types.float64), LANES)


for real in REAL:
    lower_cast(real, LanesType)(_number_to_lanes)


def _as_lanes(context: Any, numbers: Any) -> Any:
    """View a contiguous float64 array of shape ``(*shape, LANES)`` as one of lanes, of shape."""
    lanes_array = LanesArray(numbers.ndim - 1)

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        source = context.make_array(numbers)(context, builder, values[0])
        view = context.make_array(lanes_array)(context, builder)
        populate_array(
            view,
            data=builder.bitcast(source.data, NUMBERS.as_pointer()),
            shape=cgutils.unpack_tuple(builder, source.shape)[:-1],
            strides=cgutils.unpack_tuple(builder, source.strides)[:-1],
            itemsize=INTEGER(8 * LANES),
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
        builder.store(values[2], builder.bitcast(address, VECTOR.as_pointer()), align=8)
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
