"""Which elementary functions do kernels use? An exponential that loops over arrays vectorise."""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from fastgrad.network.jit import inlined

LOG2_E = math.log2(math.e)
# ln 2 in two parts: the first has 33 significant bits, so that k * LN2_HIGH is exact (Cody, Waite
# 1980: "Software Manual for the Elementary Functions", chapter 6).
LN2_HIGH = float.fromhex("0x1.62e42feep-1")
LN2_LOW = float.fromhex("0x1.a39ef35793c76p-33")
# Adding 1.5 * 2**52 rounds to an integer and leaves that integer in the low bits of the sum.
ROUNDER = 1.5 * 2.0**52
SMALLEST_EXPONENT = -708.0  # exp of it is just above the smallest normal number
LARGEST_EXPONENT = 709.0


def bits_of(value: float) -> int:
    """Read a float64's 64 bits as an integer."""
    return int(np.float64(value).view(np.int64))


def float_of(bits: int) -> float:
    """Read 64 bits as a float64; the inverse of `bits_of`."""
    bits &= 0xFFFF_FFFF_FFFF_FFFF
    return float(np.uint64(bits).view(np.float64))


def _reinterpretation(source: Any, target: Any, target_ir: Any) -> Any:
    """Make the machine instruction behind `bits_of` and `float_of`, for use inside kernels."""

    def reinterpret(typing_context: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.bitcast(arguments[0], target_ir)

        return target(source), generate

    return intrinsic(reinterpret)


_bits_of = _reinterpretation(types.float64, types.int64, ir.IntType(64))
_float_of = _reinterpretation(types.int64, types.float64, ir.DoubleType())
overload(bits_of)(lambda value: lambda value: _bits_of(value))
overload(float_of)(lambda bits: lambda bits: _float_of(bits))


def _exp(x: float) -> float:
    """Return e**x, within one unit in the last place, by arithmetic that LLVM vectorises.

    With k the integer nearest to x / ln 2 and r = x - k ln 2, e**x = 2**k e**r, and |r| < 0.35 lets
    thirteen terms of the series of e**r reach full precision. A call of the C library's `exp` would
    keep the loop around it scalar, which costs four times as much.

    x is limited to [-708, 709]: there is no underflow to zero and no overflow. nan stays nan.
    """
    x = SMALLEST_EXPONENT if x < SMALLEST_EXPONENT else x
    x = LARGEST_EXPONENT if x > LARGEST_EXPONENT else x
    rounded = x * LOG2_E + ROUNDER
    k = rounded - ROUNDER
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    series = 1.0 / 6227020800.0
    series = series * r + 1.0 / 479001600.0
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
    return series * float_of((bits_of(rounded) + 1023) << 52)


exp = inlined(_exp)
