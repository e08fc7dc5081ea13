"""Limits of hand-made quotients are right, and their errors honest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad.differences.adaptive_steps import SMALLEST_SPACING
from fastgrad.differences.richardson import limits

REPEATABLE = settings(derandomize=True, deadline=None)
EPS = np.finfo(float).eps


def quotients_of(coefficients, powers, columns):
    """Quotients of ``sum(c * h**p)`` at h = 1, 1/2, 1/4, ..."""
    h = 0.5 ** np.arange(columns)
    terms = [c * h**p for c, p in zip(coefficients, powers, strict=True)]
    return np.sum(terms, axis=0)[None, :]


@REPEATABLE
@given(
    limit=st.floats(-10, 10),
    coefficients=st.lists(st.floats(-10, 10), min_size=1, max_size=4),
    even=st.booleans(),
)
def test_powers_are_eliminated_by_further_steps(limit, coefficients, even):
    powers = [2, 4, 6, 8] if even else [1, 2, 3, 4]
    columns = len(coefficients) + 3
    quotients = quotients_of([limit, *coefficients], [0, *powers[: len(coefficients)]], columns)
    # The smallest numbers are rounded to multiples of the least one.
    noise = (EPS * abs(quotients).max() + SMALLEST_SPACING) * np.ones_like(quotients)
    found = limits(quotients, noise, [*powers, 10, 12])
    # The noise is a bound for the rounding of each quotient, so the error must be one of the limit.
    assert abs(found.values[0] - limit) <= found.errors[0]
    # Eliminating all of 1, 2, ..., p weighs noise with less than prod((2**p + 1) / (2**p - 1)),
    # which is below 9. Two runs are made of two that have eliminated all: their differences are
    # rounding alone, two entries' worth; and as much again where that exceeds the noise, twice.
    assert found.errors[0] <= 9 * 9 * noise.max()


def test_the_error_is_the_larger_change_of_the_last_elimination():
    found = limits(np.array([[1.0, 2.0]]), np.zeros((1, 2)), [1, 2])
    # 2 + (2 - 1) / (2 - 1) = 3, which is 2 away from the coarser one.
    assert (found.values[0], found.truncation[0], found.round_off[0]) == (3.0, 2.0, 0.0)
    assert (found.first[0], found.last[0]) == (0, 1)


def test_noise_is_weighted_as_the_quotients_are():
    found = limits(np.array([[1.0, 1.0]]), np.array([[1e-3, 1e-2]]), [2, 4])
    # The weights are 4/3 and -1/3.
    assert found.round_off[0] == pytest.approx((4 * 1e-2 + 1e-3) / 3)


def test_noisy_small_steps_are_left_out():
    h = 0.5 ** np.arange(8)
    quotients = (3 + h**2)[None, :].copy()
    quotients[0, 4:] += [1e-3, -2e-3, 4e-3, -8e-3]
    found = limits(quotients, np.full((1, 8), 1e-15), 2 * np.arange(1, 8))
    assert found.last[0] < 4
    assert abs(found.values[0] - 3) <= found.errors[0] < 1e-12


def test_huge_noise_at_the_smallest_steps_leaves_the_digits_of_the_others():
    # As of a tenth derivative, whose rounding error is divided by the tenth power of the step.
    quotients = quotients_of([3, 1], [0, 2], 8)
    quotients[0, -2:] = -(2.0**53), 2.0**53
    noise = np.array([[*np.full(6, 1e-13), 2.0**54, 2.0**54]])
    found = limits(quotients, noise, [2, 4])
    assert abs(found.values[0] - 3) <= found.errors[0] < 1e-11


def test_missing_quotients_are_left_out():
    quotients = np.array([[np.nan, 4.0, 3.25, 3.0625], [np.nan, np.inf, np.nan, 3.0]])
    found = limits(quotients, np.zeros((2, 4)), [2, 4, 6])
    assert found.values[0] == 3
    assert found.first[0] == 1
    assert np.isnan(found.values[1])
    assert found.errors[1] == np.inf


def test_noise_beyond_its_bound_is_noticed():
    h = 0.5 ** np.arange(8)
    quotients = (3 + 1e-6 * np.random.default_rng(0).normal(size=8) / h)[None, :]
    found = limits(quotients, 1e-16 / h[None, :], 2 * np.arange(1, 8))
    assert abs(found.values[0] - 3) <= found.errors[0]
    assert found.errors[0] > 1e-7


def test_rows_do_not_mix():
    rows = np.random.default_rng(0).normal(size=(20, 6))
    together = limits(rows, abs(rows) * EPS, range(1, 6))
    for k, row in enumerate(rows):
        alone = limits(row[None, :], abs(row[None, :]) * EPS, range(1, 6))
        assert alone.values[0] == together.values[k]
        assert alone.errors[0] == together.errors[k]


def test_the_input_is_not_changed():
    rows = np.random.default_rng(0).normal(size=(3, 5))
    before = rows.copy()
    limits(rows, abs(rows), range(1, 5))
    assert rows.tobytes() == before.tobytes()
