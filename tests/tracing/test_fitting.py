"""Polynomials are told from what is none, and their coefficients are found."""

import numpy as np
import pytest

from fastgrad.tracing.fitting import (
    MAX_DEVIATIONS,
    MAX_KINK_SHARE,
    are_exceptions,
    fit,
    kinks,
    misfits,
    odd_and_even,
)

ROWS, UNITS, TERMS, NOISE = 30, 20, 2, 1e-15
POINTS = np.cos(np.arange(3) * np.pi / 6)
EVERY_ROW = np.ones((ROWS, 1), bool)


def polynomials(seed):
    """Return coefficients, odd and even, and the changes that they make upwards and downwards."""
    random = np.random.default_rng(seed)
    odd, even = 1e-6 * random.normal(size=(2, TERMS, ROWS, UNITS))
    s = POINTS.reshape(-1, 1, 1)
    up = sum(odd[m] * s ** (2 * m + 1) + even[m] * s ** (2 * m + 2) for m in range(TERMS))
    down = sum(-odd[m] * s ** (2 * m + 1) + even[m] * s ** (2 * m + 2) for m in range(TERMS))
    measured = np.stack([up, down], axis=1).transpose(0, 1, 3, 2)
    return 2 * odd, 2 * even, measured + NOISE * random.normal(size=measured.shape)


def fitted(measured, may_have_kink=None):
    noise = np.full((ROWS, 1), 2 * NOISE)
    may_have_kink = np.zeros((ROWS, UNITS), bool) if may_have_kink is None else may_have_kink
    parts = odd_and_even(measured)
    kinked = kinks(misfits(parts, POINTS, TERMS), len(POINTS) - TERMS, noise, may_have_kink)
    return {sign: fit(parts[sign], POINTS, TERMS, sign, kinked) for sign in parts}, kinked


def test_coefficients_of_both_parts_are_found_to_rounding():
    odd, even, measured = polynomials(0)
    coefficients, kinked = fitted(measured)
    assert not kinked.any()
    # The magnitudes in a row of the pseudo-inverse, which multiply rounding, add up to less than 8.
    bound = 8 * MAX_DEVIATIONS * NOISE
    np.testing.assert_allclose(coefficients[-1], odd, rtol=0, atol=bound)
    np.testing.assert_allclose(coefficients[1], even, rtol=0, atol=bound)
    assert bound < 1e-6 * abs(odd).max()


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("kink", [0.1, 0.55, 0.95])
def test_a_kink_on_either_side_is_seen_in_its_row_and_unit_alone(way, kink):
    _, _, measured = polynomials(2)
    measured[:, way, 7, 11] += 1e-6 * np.maximum(POINTS - kink, 0)
    coefficients, kinked = fitted(measured)
    assert np.argwhere(kinked).tolist() == [[11, 7]]
    assert not coefficients[-1][:, 11, 7].any()
    assert not coefficients[1][:, 11, 7].any()


def test_what_may_have_a_kink_counts_as_one_however_well_it_fits():
    may_have_kink = np.zeros((ROWS, UNITS), bool)
    may_have_kink[3, 4] = True
    _, kinked = fitted(polynomials(3)[2], may_have_kink)
    assert np.array_equal(kinked, may_have_kink)


def test_many_kinks_are_no_exceptions():
    may_have_kink = np.zeros((ROWS, UNITS), bool)
    may_have_kink.flat[: int(MAX_KINK_SHARE * may_have_kink.size) + 1] = True
    assert not are_exceptions(may_have_kink, EVERY_ROW)
    assert are_exceptions(fitted(polynomials(4)[2])[1], EVERY_ROW)


def test_nan_is_no_polynomial():
    _, _, measured = polynomials(5)
    measured[1, 0, 2, 3] = np.nan
    _, kinked = fitted(measured)
    assert np.argwhere(kinked).tolist() == [[3, 2]]


def test_in_a_row_that_misses_in_the_mean_those_that_miss_most_are_no_polynomials():
    _, _, measured = polynomials(6)
    # No response misses by the 8 deviations that one may; the row's mean is more than 3.
    beside = np.linalg.svd(POINTS[:, np.newaxis] ** [1, 3])[0][:, TERMS]
    missed = np.where(np.arange(UNITS) < UNITS // 2, 6, 1) * 2 * NOISE
    measured[:, 0, :, 5] += beside[:, np.newaxis] * missed
    coefficients, kinked = fitted(measured)
    assert np.argwhere(kinked).tolist() == [[5, unit] for unit in range(UNITS // 2)]
    assert not coefficients[-1][:, kinked].any()


def test_many_rows_that_miss_in_the_mean_are_no_polynomials():
    _, _, measured = polynomials(7)
    beside = np.linalg.svd(POINTS[:, np.newaxis] ** [1, 3])[0][:, TERMS]
    measured[:, 0] += beside.reshape(-1, 1, 1) * 12 * NOISE
    _, kinked = fitted(measured)
    assert not are_exceptions(kinked, EVERY_ROW)
