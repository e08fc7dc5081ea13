"""Vectors of numbers in kernels, as wide as the processor's registers.

LLVM's own vectoriser gives up on loops that read many arrays, and leaves half of a 512-bit register
unused. So kernels say themselves what is a vector: `load` makes one of `LANES_PER_VECTOR`
neighbouring elements of an array, ``+ - * /`` work lane by lane, also with a number, and `store`
writes one back. What each function does stands here for a vector of one lane, which is a number:
so it runs as plain Python, and so it is compiled where `instructions` cannot be written.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from fastgrad.jit.kernel import HAND_WRITTEN, Function, inlined, instructions

VECTOR_BYTES = instructions.VECTOR_BYTES if HAND_WRITTEN else 8
LANES_PER_VECTOR = VECTOR_BYTES // 8


def padded(length: int) -> int:
    """Return the smallest multiple of `LANES_PER_VECTOR` that is not below a length."""
    return -(-length // LANES_PER_VECTOR) * LANES_PER_VECTOR


def lowered(name: str, **constants: Any) -> Callable[[Function], Function]:
    """Decorate a function that is some of the `instructions` in kernels.

    Where they cannot be written, it is compiled as it stands; called from Python it stays as it is.

    Parameters
    ----------
    name : str
        Of the instructions, in `instructions.LOWERING`.
    **constants
        What is known when they are written.
    """

    def decorate(function: Function) -> Function:
        if not HAND_WRITTEN:
            return inlined(function)
        instructions.register(function, name, **constants)
        return function

    return decorate


@lowered("load")
def load(array: Any, place: Any) -> Any:
    """Return `LANES_PER_VECTOR` elements from a place on as a vector; the array is contiguous.

    A place in a matrix is a tuple (row, column): ``load(z, (n, j))`` is compiled in less time than
    ``load(z[n], j)``. Indices are not negative, and all elements exist.
    """
    return array[place]


@lowered("store")
def store(array: Any, place: Any, vector: Any) -> None:
    """Write a vector to the elements of an array from a place on, as `load` takes it."""
    array[place] = vector


@lowered("load_part")
def load_part(array: Any, i: int, count: int) -> Any:
    """Return array[i : i + count] as a vector, then zeros; a count may be too large or negative."""
    return array[i] if count > 0 else 0.0


@lowered("store_part")
def store_part(array: Any, i: int, count: int, vector: Any) -> None:
    """Write a vector's first lanes to array[i : i + count]; as `load_part` for other counts."""
    if count > 0:
        array[i] = vector


@lowered("repeat")
def repeat(number: float) -> Any:
    """Return a vector with the same number in every lane."""
    return number


@lowered("total")
def total(vector: Any) -> float:
    """Add the lanes of a vector, the first ones first."""
    return vector  # type: ignore[no-any-return]  # of one lane


@lowered("magnitude")
def magnitude(vector: Any) -> Any:
    """Return the absolute values."""
    return abs(vector)


@lowered("where_negative")
def where_negative(vector: Any, negative: Any, other: Any) -> Any:
    """Choose `negative` in the lanes where the vector is below zero, `other` elsewhere."""
    return negative if vector < 0.0 else other


@inlined
def larger(x: Any, y: Any) -> Any:
    """Return the larger of two numbers in every lane; where either is nan, y."""
    return where_negative(y - x, x, y)


@inlined
def limited(vector: Any, low: float, high: float) -> Any:
    """Limit every lane to [low, high]; nan stays nan."""
    above = where_negative(vector - low, repeat(low), vector)
    return where_negative(high - above, repeat(high), above)


@lowered("nearest")
def nearest(vector: Any) -> Any:
    """Round every lane to a whole number below 2**51 in magnitude."""
    return np.rint(vector)


@lowered("power_of_two")
def power_of_two(vector: Any) -> Any:
    """Return 2**k for lanes that hold whole numbers k from -1022 to 1023; nan stays nan or not."""
    return np.exp2(vector)


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
