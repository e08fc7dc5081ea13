"""What is a number at several points at once? One number while it is the same, else a vector.

Where single elements of x are moved, most of what f computes is the same at all points: whatever
does not depend on those elements, and all that precedes their use. So lanes say, as f runs, whether
the points differ. While they do not, an operation is done once, with a number, and with a vector
from there on. The processor predicts which it will be, and LLVM writes a path of its own for a loop
of f in which nothing differs.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir

from fastgrad.network.vectors import VECTOR_BYTES, repeated

LANES = 4 * VECTOR_BYTES // 8
"""Points at a time: as many registers' worth as leave a loop enough of them."""

NUMBER = ir.DoubleType()
VECTOR = ir.VectorType(NUMBER, LANES)
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
        lambda: repeated(builder, number_of(builder, value), LANES),
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
    return [builder.extract_element(vector, ir.IntType(32)(lane)) for lane in range(LANES)]


def joined(builder: Any, numbers: list[Any]) -> Any:
    """Write the instructions that make a vector of numbers."""
    vector = ir.Constant(VECTOR, ir.Undefined)
    for lane, number in enumerate(numbers):
        vector = builder.insert_element(vector, number, ir.IntType(32)(lane))
    return vector
