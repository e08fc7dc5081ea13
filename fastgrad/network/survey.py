"""What must be known of an array before work starts? Its largest entry, its zeros, a nan or inf."""

from typing import Any

import numba

from fastgrad.network.elementary import bits_of, float_of
from fastgrad.network.jit import OPTIONS

MAGNITUDE = 0x7FFF_FFFF_FFFF_FFFF  # all bits of a float64 but its sign


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


survey = numba.njit(cache=True, **OPTIONS)(_survey)


def _widest_row(matrix: Any) -> float:
    """Return the largest difference between two entries of one row; nan if any entry is nan."""
    widest = 0.0
    for row in range(matrix.shape[0]):
        low = high = matrix[row, 0]
        for column in range(matrix.shape[1]):
            value = matrix[row, column]
            if value != value:
                return float(value)
            low = min(low, value)
            high = max(high, value)
        widest = max(widest, high - low)
    return widest


widest_row = numba.njit(cache=True, **OPTIONS)(_widest_row)
