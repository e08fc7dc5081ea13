"""The engine "response": few terms, exact interpolation, a bound that holds, and integers last."""

from math import factorial, inf, nan, pi

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import EPS, largest_shift

from fastgrad.jit.matrix_products import MAX_INTEGER
from fastgrad.network.functions import LOG_OFFSET
from fastgrad.network.propagation import inverse, log_ratio
from fastgrad.network.response import MAX_TERMS, TOLERANCE, first_in_integers, plan_responses

REPEATABLE = settings(derandomize=True, deadline=None)


@REPEATABLE
@given(
    shifts=st.tuples(st.floats(1e-9, 1.0), st.floats(1e-9, 1.0)).map(sorted),
    spreads=st.tuples(st.floats(0.0, 50.0), st.floats(0.0, 50.0)).map(sorted),
)
def test_a_larger_shift_or_spread_never_takes_fewer_terms(shifts, spreads):
    terms = [
        plan.terms if plan else MAX_TERMS + 1
        for shift, spread in [
            (shifts[0], spreads[0]),
            (shifts[1], spreads[0]),
            (shifts[1], spreads[1]),
        ]
        for plan in [plan_responses(shift, spread)]
    ]
    assert terms == sorted(terms)
    assert terms[0] >= 2


def test_every_number_of_terms_has_its_shifts():
    limits = [largest_shift(terms, spread=1.0) for terms in range(2, MAX_TERMS + 1)]
    assert limits == sorted(set(limits))
    for terms, limit in enumerate(limits, start=2):
        assert plan_responses(limit, 1.0).terms == terms


def test_the_books_case_takes_two_terms():
    assert plan_responses(1e-4, 0.06).terms == 2


@pytest.mark.parametrize(
    ("shift", "spread"), [(2.55, 5.0), (1.0, 0.0), (1e300, 1.0), (1e-4, 1e5), (1e-4, 1e300)]
)
def test_shifts_too_large_for_the_bound_have_no_plan(shift, spread):
    assert plan_responses(shift, spread) is None


@pytest.mark.parametrize(
    ("shift", "spread"), [(nan, 1.0), (inf, 1.0), (1e-4, nan), (1e-4, inf), (nan, nan), (inf, inf)]
)
def test_what_is_not_finite_has_no_plan(shift, spread):
    assert plan_responses(shift, spread) is None


def test_no_shift_and_no_spread_have_a_plan():
    assert plan_responses(0.0, 0.0).terms == 2


def plans():
    """Return a plan of every number of terms."""
    return [
        plan_responses(0.99 * largest_shift(terms, spread=1.0), 1.0)
        for terms in range(2, MAX_TERMS + 1)
    ]


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: f"{plan.terms} terms")
def test_points_are_those_of_chebyshev_in_the_square_of_the_shift(plan):
    # The zeros of the Chebyshev polynomial of degree T in 2 c^2 - 1, the largest first.
    residuals = np.cos(plan.terms * np.arccos(2 * plan.points**2 - 1))
    # The polynomial's slope is at most T^2, and its argument is rounded a few times.
    assert np.abs(residuals).max() <= 8 * plan.terms**2 * EPS
    assert (np.diff(plan.points) < 0).all()
    assert ((plan.points > 0) & (plan.points < 1)).all()


@pytest.mark.parametrize("plan", plans(), ids=lambda plan: f"{plan.terms} terms")
def test_odd_polynomials_are_reproduced_to_rounding(plan):
    terms = plan.terms
    generator = np.random.default_rng(terms)
    matrix = np.cos(np.outer(np.arccos(plan.points), 2 * np.arange(terms) + 1))
    for _ in range(20):
        coefficients = generator.normal(size=terms)
        found = plan.interpolation @ (matrix @ coefficients)
        # The polynomials' slopes are at most (2T)^2, their arguments are rounded by eps / 2, and
        # the entries of a row of the interpolation add up to 2 at most.
        bound = 8 * terms**2 * EPS * np.abs(coefficients).sum()
        assert (np.abs(found - coefficients) <= bound).all()


@pytest.mark.parametrize("spread", [0.0, 0.06, 1.0, 5.0, 20.0])
def test_the_factors_are_a_series_long_enough_for_the_largest_move_of_a_logit(spread):
    for terms in range(2, MAX_TERMS + 1):
        shift = 0.99 * largest_shift(terms, spread)
        plan = plan_responses(shift, spread)
        count = len(plan.factors)
        assert count % 4 == 0
        assert plan.factors.tolist() == [1 / factorial(r) for r in range(1, count + 1)]
        # A logit moves by at most shift * spread / 4 beside the label's; what the series of
        # e^u - 1 leaves out is less than eps/4 of its first term.
        moved = shift * spread / 4
        assert moved**count / factorial(count + 1) <= EPS / 4


def response(z_logit, rest, weights, label, s):
    """Return R(s) of a sigmoid unit that feeds a softmax, in mpmath's precision.

    `rest` are the logits without the unit, `weights` those from the unit to the logits.
    """

    def loss(shift):
        z = 1 / (1 + mpmath.exp(-(z_logit + shift)))
        powers = [mpmath.exp(r + z * w) for r, w in zip(rest, weights, strict=True)]
        return -mpmath.log(powers[label] / mpmath.fsum(powers) + mpmath.mpf(LOG_OFFSET))

    return loss(s) - loss(-s)


def truncation_and_bound(generator, terms, spread, certainty):
    """Return the measured truncation error of R(s)/s of a random unit, and what bounds it."""
    classes = int(generator.integers(2, 8))
    label = int(generator.integers(classes))
    a = mpmath.mpf(float(3 * generator.normal()))
    weights = generator.uniform(0.0, spread, classes)
    weights[:2] = [0.0, spread]
    generator.shuffle(weights)
    rest = generator.normal(size=classes)
    rest[label] += certainty
    weights, rest = ([mpmath.mpf(float(v)) for v in values] for values in (weights, rest))

    shift = 0.99 * largest_shift(terms, spread)
    plan = plan_responses(shift, spread)
    points = [mpmath.mpf(float(c)) for c in plan.points]
    size = plan.terms
    matrix = mpmath.matrix(size, size)
    for i, c in enumerate(points):
        for m in range(size):
            matrix[i, m] = mpmath.chebyt(2 * m + 1, c)
    measured = mpmath.matrix([response(a, rest, weights, label, c * shift) for c in points])
    coefficients = mpmath.lu_solve(matrix, measured)

    errors = []
    for fraction in np.linspace(0.05, 1.0, 8):
        u = mpmath.mpf(float(fraction))
        whole = mpmath.fsum(coefficients[m] * mpmath.chebyt(2 * m + 1, u) for m in range(size))
        exact = response(a, rest, weights, label, u * shift)
        errors.append(abs(whole - exact) / (u * shift))

    z = 1 / (1 + mpmath.exp(-a))
    powers = [mpmath.exp(r + z * w) for r, w in zip(rest, weights, strict=True)]
    p = powers[label] / mpmath.fsum(powers)
    scale = spread * (1 - p) * p / (p + mpmath.mpf(LOG_OFFSET)) * z * (1 - z)
    radius = pi / 4 / max(1.0, 0.325 * spread)
    bound = 230 * scale * (shift / (2 * radius)) ** (2 * size)
    return float(max(errors) / scale), float(bound / scale)


@pytest.mark.parametrize("certainty", [-30.0, 0.0, 30.0])
@pytest.mark.parametrize("spread", [0.05, 2.0, 10.0])
@pytest.mark.parametrize("terms", range(2, MAX_TERMS + 1))
def test_the_truncation_error_of_random_units_stays_below_its_bound(terms, spread, certainty):
    generator = np.random.default_rng(terms)
    with mpmath.workdps(60):
        for _ in range(4):
            error, bound = truncation_and_bound(generator, terms, spread, certainty)
            assert 0 < error <= bound <= TOLERANCE <= 1e-12


@pytest.mark.parametrize("p_label", [1e-12, 1e-7, 0.1, 1 - 1e-12])
@pytest.mark.parametrize("sizes", [(1e-3, -1e-3), (-5e-4, 4.995e-4), (3e-7, -3e-7), (0.0, 0.0)])
def test_logarithms_of_small_moves_need_few_terms(p_label, sizes):
    up, down = sizes
    found = log_ratio(p_label, up, down, True)
    with mpmath.workdps(40):
        moved = [mpmath.mpf(p_label) / (1 + mpmath.mpf(q)) + mpmath.mpf(LOG_OFFSET) for q in sizes]
        expected = mpmath.log(moved[1] / moved[0])
        # up - down, and each of some ten operations, is rounded by eps / 2.
        assert abs(found - expected) <= 8 * EPS * abs(expected)
    assert abs(found - log_ratio(p_label, up, down, False)) <= 8 * EPS * abs(found)


@pytest.mark.parametrize("v", [2.4e-6, -2.4e-6, 1e-9, 0.0])
def test_inverses_of_small_numbers_need_two_products(v):
    assert abs(inverse(v, True) * (1 + v) - 1) <= 2 * EPS


def test_plans_are_small_only_as_far_as_their_bounds_hold():
    assert plan_responses(1e-4, 5.0).is_small
    assert plan_responses(1e-3, 1.0).is_small
    assert not plan_responses(1.01e-3, 0.0).is_small
    assert not plan_responses(1e-3, 2.0).is_small


def test_integers_are_for_the_last_terms_and_only_while_all_their_roundings_are_tolerated():
    allowed = TOLERANCE * MAX_INTEGER / 1.01
    assert first_in_integers(1.0, [0.9 * allowed]) == 1
    assert first_in_integers(1.0, [1.1 * allowed]) == 2
    assert first_in_integers(1.2, [1.1 * allowed]) == 1
    assert first_in_integers(1.0, [1.1 * allowed, 0.9 * allowed]) == 2
    assert first_in_integers(1.0, [0.6 * allowed, 0.6 * allowed]) == 2
    assert first_in_integers(1.0, [0.4 * allowed, 0.4 * allowed]) == 1
    assert first_in_integers(1.0, [1e-300, 0.0]) == 2  # which cannot be divided by
    assert first_in_integers(1.0, [0.0, 0.0]) == 1
    assert first_in_integers(1.0, []) == 1


@pytest.mark.parametrize("scale", [nan, inf])
def test_what_is_not_finite_stays_in_float64(scale):
    assert first_in_integers(scale, [1e-30]) == 2
    assert first_in_integers(1.0, [scale]) == 2
    assert first_in_integers(scale, [0.0]) == 2
