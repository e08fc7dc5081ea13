"""f's values alone show whether f rounds them, and to what."""

import numpy as np
import pytest

from fastgrad.differences.richardson import step_at
from fastgrad.differences.rounding import resolution

STEPS = 0.25 * step_at(np.arange(8))[:, np.newaxis] * [1, -1]


def spacing(f, x):
    return resolution(np.vectorize(f)(x + STEPS)[np.newaxis])[0]


@pytest.mark.parametrize("digits", [1, 4, 8])
def test_decimals_and_printed_digits_are_seen(digits):
    np.testing.assert_allclose(spacing(lambda x: round(x, digits), 1.3), 10.0**-digits)
    assert (
        spacing(lambda x: round(1e-3 * x, 3 + digits), 1.3) >= 0.99 * 10.0 ** (-3 - digits)
    ).all()
    found = spacing(lambda x: float(f"{30 * x:.{digits + 2}g}"), 0.3)
    # Values from 1.5 to 16.5: those from 10 on are ten times as far apart.
    np.testing.assert_allclose(found[[0, -1]], [10.0**-digits, 10.0 ** (-digits - 1)])


@pytest.mark.parametrize("kind", [np.float16, np.float32])
def test_the_spacing_of_narrower_floats_is_seen(kind):
    found = spacing(lambda x: float(kind(np.exp(x))), 0.3)
    np.testing.assert_array_equal(found[-1], np.spacing(kind(np.exp(0.3))))


@pytest.mark.parametrize("x", [0.0, 1.0, 0.3, 1e6, 1e-6])
@pytest.mark.parametrize(
    "f", [lambda x: x, lambda x: x * x - 3, np.sin, lambda x: 1.5, np.sign, lambda x: max(x, 0.0)]
)
def test_exact_functions_and_few_values_are_not_taken_for_rounded(f, x):
    assert not spacing(f, x).any()


def test_what_is_not_finite_is_left_out():
    values = np.array([[[0.1, np.nan], [np.inf, 0.2], [0.35, 0.4]]])
    np.testing.assert_allclose(resolution(values), [[0.01, 0.01, 0.01]])
