"""The largest magnitude and the number of nonzeros."""

import numpy as np
import pytest

from fastgrad.jit.matrix_products import magnitude_and_nonzeros


@pytest.mark.parametrize("shape", [(1,), (2,), (7, 9), (3, 5, 41)])
def test_it_finds_the_largest_magnitude_and_counts_what_is_not_zero(
    shape: tuple[int, ...],
) -> None:
    values = np.random.default_rng(0).standard_normal(shape)
    values.flat[::3] = -0.0
    assert magnitude_and_nonzeros(values) == (np.abs(values).max(), np.count_nonzero(values))


@pytest.mark.parametrize("place", [0, 30, 60])
def test_a_nan_is_larger_than_an_infinity_and_that_than_any_number(place: int) -> None:
    values = np.full(61, -1e308)
    values[place] = -np.inf
    assert magnitude_and_nonzeros(values) == (np.inf, 61)
    values[(place + 31) % 61] = np.nan
    largest, nonzeros = magnitude_and_nonzeros(values)
    assert np.isnan(largest)
    assert nonzeros == 61


def test_an_empty_array_has_nothing() -> None:
    assert magnitude_and_nonzeros(np.empty(0)) == (0.0, 0)
