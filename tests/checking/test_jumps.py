"""Where f jumps, only the slopes beside it are right; where its slope is infinite, no number is."""

import numpy as np
import pytest

from fastgrad import check_gradient, slope_test

JUMPS = {
    "step from below": (lambda v: float((v >= 0).sum()), 0.0, 0.0),
    "step from above": (lambda v: int((v > 0.3).sum()), 0.3, 0.0),
    "floor": (lambda v: float(np.floor(v).sum()), 2.0, 0.0),
    "round": (lambda v: float(np.round(v).sum()), 2.5, 0.0),
    "sign": (lambda v: float(np.sign(v).sum()), 0.0, 0.0),
    "remainder": (lambda v: float((v % 1.0).sum()), 3.0, 1.0),
    "sum with a small step": (lambda v: float((v + 1e-6 * (v >= 0)).sum()), 0.0, 1.0),
}


def verdicts(f, x, gradient):
    report = check_gradient(f, x, gradient)
    others = check_gradient(f, x, gradient, fast=True), slope_test(f, x, gradient, seed=0)
    return report, [bool(each) for each in (report, *others)]


@pytest.mark.parametrize("name", JUMPS)
def test_at_a_jump_only_the_slope_beside_it_is_right(name):
    f, place, slope = JUMPS[name]
    x, beside = np.array([place, 0.2]), slope  # the second element is elsewhere
    for analytic in (slope, slope + 1, slope - 0.5, 5e3):
        gradient = np.array([analytic, beside])
        report, found = verdicts(f, x, gradient)
        assert found == [analytic == slope] * 3
        if analytic == slope:
            assert "at a jump of f, as x[0]" in str(report)


def test_between_the_slopes_beside_a_jump_nothing_is_right():
    x = np.array([1.0, 1.2])
    for analytic in (0.0, 0.5, 1.0):
        _, found = verdicts(lambda v: float((v * (v > 1)).sum()), x, np.array([analytic, 1.0]))
        assert found == [analytic != 0.5] * 3


def test_between_the_slopes_of_a_kink_all_is_right_and_said():
    x = np.array([0.0, 1.0])
    report, found = verdicts(lambda v: float(abs(v).sum()), x, np.array([0.3, 1.0]))
    assert found == [True] * 3
    assert "at a kink of f, as x[0]" in str(report)


@pytest.mark.parametrize("analytic", [0.0, 1.0, -2.0, 1e6])
def test_an_infinite_slope_is_no_number(analytic):
    x = np.array([0.0, 1.0])
    _, found = verdicts(lambda v: float(np.cbrt(v).sum()), x, np.array([analytic, 1 / 3]))
    assert found == [False] * 3
    _, found = verdicts(lambda v: float(np.sqrt(v).sum()), x, np.array([analytic, 1 / 2]))
    assert found == [False] * 3


@pytest.mark.parametrize("place", [0.001, 0.998, 1.0003, 100.0])
def test_next_to_a_jump_the_slope_is_known_in_float32_as_well(place):
    """Over the jump a quotient is 1 / (2 h), which is neither f's size nor its slope."""
    x = np.array([place])
    for analytic in (0.0, 1.0, 0.5, -1.0):
        _, found = verdicts(lambda v: np.floor(v.astype(np.float32)).sum(), x, np.array([analytic]))
        assert found == [analytic == 0] * 3


def test_no_number_under_a_logarithm_explains_a_jump():
    def f(v):
        return (np.floor(v.astype(np.float32)) + v.astype(np.float32)).sum()

    for analytic in (0.0, 1.0):
        _, found = verdicts(f, np.array([0.998]), np.array([analytic]))
        assert found == [analytic == 1] * 3


def test_where_f_is_0_at_x_its_unit_is_that_of_the_values_beside_it():
    x = np.array([0.998, 0.2])
    for analytic in (0.0, 1.0):
        _, found = verdicts(lambda v: float(np.floor(v).sum()), x, np.array([analytic, 0.0]))
        assert found == [analytic == 0] * 3


def test_a_far_end_of_f_is_no_infinite_slope():
    """Where f is infinite from 1e-3 on, smaller steps tell; where it is so beside x, one side."""
    x = np.array([0.0])
    for analytic in (1.0, 2.0):
        report, _ = verdicts(
            lambda v: float(v[0]) if v[0] < 1e-3 else np.inf, x, np.array([analytic])
        )
        assert bool(report) == (analytic == 1)
    assert check_gradient(lambda v: 0.0 if v[0] >= 0 else np.inf, x, np.zeros(1))


def test_a_slope_test_names_the_jump_even_if_nothing_is_left_on_one_side():
    x = np.array([2.0, 0.2])
    found = slope_test(lambda v: float(np.floor(v).sum()), x, np.zeros(2), seed=0)
    assert np.isnan(found.slope)
    assert "f jumps at x along 1 of 2 elements" in str(found)
