"""Arrays of numbers at several points at once: what a compiled function can do with them.

Operators and NumPy's functions of single numbers go element by element, in the loops that numba
writes for such expressions of arrays of numbers: it only has to be told the types of their results
(`lane_operations`). Sums and the like are here.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.core.extending import overload_classmethod
from numba.core.imputils import lower_constant
from numba.core.typing.templates import (
    AbstractTemplate,
    AttributeTemplate,
    bound_function,
    infer_getattr,
    infer_global,
    signature,
)
from numba.extending import intrinsic, lower_builtin
from numba.np.arrayobj import intrin_alloc, populate_array

from fastgrad.engines.lanes.types import (
    IN_MEMORY,
    INTEGER,
    LANES_TYPE,
    NUMBER,
    TRUTH,
    VALUE,
    VECTOR,
    WORDS,
    LanesArray,
    LanesType,
)

ATTRIBUTES = {
    *("T", "all", "any", "argmax", "argmin", "copy", "cumsum", "dtype", "fill", "flat", "flatten"),
    *("item", "max", "mean", "min", "ndim", "prod", "ravel", "reshape", "shape", "size", "sort"),
    *("std", "sum", "take", "transpose", "var", "_zero_fill"),
}
"""What an array of lanes has. Others, such as strides, would tell that it is not one of numbers."""


_memory: Any = intrin_alloc


def _of_all_elements(_: Any, array: Any, arguments: tuple[Any, ...], keywords: Any) -> Any:
    """Return the signature of a method of an array that reduces it to a number."""
    return None if arguments or keywords else signature(LANES_TYPE)


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
            shape=cgutils.unpack_tuple(builder, source.shape)[:-1],
            strides=cgutils.unpack_tuple(builder, source.strides)[:-1],
            itemsize=INTEGER(8 * WORDS),
            meminfo=source.meminfo,
            parent=source.parent,
        )
        context.nrt.incref(builder, lanes_array, view._getvalue())
        return view._getvalue()

    return lanes_array(numbers), write


as_lanes: Any = intrinsic(_as_lanes)


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


def _mean(a: Any) -> Any:
    return np.sum(a) / a.size


def _prod(a: Any) -> Any:
    result = 1.0
    for number in a.flat:
        result *= number
    return result


def _teach_reduction(name: str, reduce: Callable[[Any], Any]) -> None:
    """Let numba know a function and a method that reduce an array of lanes to a number."""
    function = getattr(np, name)

    class Template(AbstractTemplate):
        key = function

        def generic(self, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
            is_one = len(arguments) == 1 and isinstance(arguments[0], LanesArray)
            return signature(LANES_TYPE, *arguments) if is_one and not keywords else None

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        return context.compile_internal(builder, reduce, case, values)

    infer_global(function, types.Function(Template))
    for key in (function, f"lanes.{name}"):
        lower_builtin(key, LanesArray)(write)


_teach_reduction("mean", _mean)
_teach_reduction("prod", _prod)
