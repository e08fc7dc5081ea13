"""What must be known of an array before work starts? Its largest entry, its zeros, a nan or inf."""

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types

from fastgrad.network.jit import OPTIONS
from fastgrad.network.vectors import NUMBER, teach

MAGNITUDE = 0x7FFF_FFFF_FFFF_FFFF  # all bits of a float64 but its sign


def bits_of(value: float) -> int:
    """Read a float64's 64 bits as an integer."""
    return int(np.float64(value).view(np.int64))


def float_of(bits: int) -> float:
    """Read an integer's 64 bits as a float64; the inverse of `bits_of`."""
    return float(np.int64(bits).view(np.float64))


@teach(bits_of, types.int64(NUMBER))
def _write_bits_of(builder: Any, value: Any) -> Any:
    return builder.bitcast(value, ir.IntType(64))


@teach(float_of, NUMBER(types.int64))
def _write_float_of(builder: Any, bits: Any) -> Any:
    return builder.bitcast(bits, ir.DoubleType())


def _survey(values: Any) -> tuple[float, int]:
    """Return the largest magnitude and the number of nonzero entries of a 1-D float64 array.

    A nan counts as larger than inf, and inf as larger than any number: the magnitudes are compared
    as integers, in whose order they stand, and which LLVM vectorises. An empty array has (0.0, 0).
    """
    largest = 0
    nonzeros = 0
    for i in range(values.size):
        magnitude = bits_of(values[i]) & MAGNITUDE
        largest = max(largest, magnitude)
        nonzeros += magnitude != 0
    return float_of(largest), nonzeros


survey = numba.njit("Tuple((float64, int64))(float64[::1])", cache=True, **OPTIONS)(_survey)
