"""What must be known of an array before work starts? Its largest entry, its zeros, a nan or inf."""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numpy.typing import NDArray

from fastgrad.network.jit import compiled, kernel, tasks_for
from fastgrad.network.vectors import LANES, NUMBER, teach

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


def survey(values: NDArray[np.float64]) -> tuple[float, int]:
    """Return the largest magnitude and the number of nonzero entries of a contiguous array.

    A nan counts as larger than inf, and inf as larger than any number. An empty array has (0.0, 0).
    """
    row = values.reshape(-1)
    tasks = tasks_for(row.size // (2 * LANES))  # a vector takes half as long as in most kernels
    if tasks == 1:
        largest, nonzeros = _survey_row(row)
        return largest, nonzeros
    parts = np.empty(tasks), np.empty(tasks, np.int64)
    survey_parts(tasks, row, *parts)
    return float(parts[0].max()), int(parts[1].sum())  # the maximum of NumPy is nan if one is


def _survey(values: Any) -> tuple[float, int]:
    """Survey a row: compare the magnitudes as integers, in whose order they stand.

    LLVM vectorises that, and not the comparison of numbers among which there may be a nan.
    """
    largest = 0
    nonzeros = 0
    for i in range(values.size):
        magnitude = bits_of(values[i]) & MAGNITUDE
        largest = max(largest, magnitude)
        nonzeros += magnitude != 0
    return float_of(largest), nonzeros


_survey_row = compiled(_survey, _survey, "Tuple((float64, int64))(float64[::1])")


@kernel("(float64[::1], float64[::1], int64[::1])")
def survey_parts(task: int, tasks: int, values: Any, largest: Any, nonzeros: Any) -> None:
    """Survey a row part by part.

    Parameters
    ----------
    task, tasks : int
        Which task, and how many parts the row is divided into.
    values : float64 array
    largest : float64 array of shape (tasks,)
        Overwritten.
    nonzeros : int64 array of shape (tasks,)
        Overwritten.
    """
    size = values.size
    part = values[size * task // tasks : size * (task + 1) // tasks]
    largest[task], nonzeros[task] = _survey_row(part)
