"""Checks of gradients where f's domain ends at x, or next to it."""

import math

import numpy as np
import pytest

from fastgrad import check_gradient, slope_test

INSIDE = [0.7, 1.3, 2.1]
rng = np.random.default_rng(0)
ENDS = rng.permutation(np.concatenate([np.zeros(15), np.ones(15), rng.uniform(0.1, 0.9, 30)]))


def exp_on_its_domain(x):
    return np.where((x < 0) | (x > 3), np.nan, np.exp(x)).sum()


def exp_or_raises(x):
    return math.fsum(math.exp(v) + 0 * math.sqrt(v) for v in x.tolist())


def exp_between(x):
    return math.fsum(math.exp(v) + 0 * math.sqrt(v * (1 - v)) for v in x.tolist())


def sum_of(f):
    def total(x):
        with np.errstate(all="ignore"):
            return f(x).sum()

    return total


def root(x):
    return 0.5 / np.sqrt(x)


CASES = {
    "x**1.5 at 0": (sum_of(lambda x: x * np.sqrt(x)), 0.0, lambda x: 1.5 * np.sqrt(x)),
    "exp at 0": (exp_on_its_domain, 0.0, np.exp),
    "exp raises": (exp_or_raises, 0.0, np.exp),
    "exp next to 0": (exp_on_its_domain, 1e-16, np.exp),
    "exp near 0": (exp_or_raises, 1e-12, np.exp),
    "sin at 3": (
        sum_of(lambda x: np.where(x > 3, np.nan, np.sin(x))), 3.0, np.cos,
    ),
    "sqrt near 0": (sum_of(np.sqrt), 1e-9, root),
    "sqrt nearer": (sum_of(np.sqrt), 1e-16, root),
    "log near 0": (sum_of(np.log), 1e-7, lambda x: 1 / x),
    "log next to 0": (sum_of(np.log), 1e-300, lambda x: 1 / x),
    "x log x": (sum_of(lambda x: x * np.log(x)), 1e-9, lambda x: np.log(x) + 1),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_gradient_is_told_at_the_edge_of_the_domain(name):
    f, edge, slope = CASES[name]
    x = np.array([edge, *INSIDE])
    right, before = slope(x), x.tobytes()
    assert check_gradient(f, x, right)
    for factors in ([1.01, 1, 1, 1], [1, 1, 1.01, 1], [-1, 1, 1, 1]):
        if right[0] or factors[0] == 1:
            assert not check_gradient(f, x, right * factors), factors
    assert not check_gradient(f, x, np.array([max(0.01, right[0]), 0, 0, 0]) + right)
    assert x.tobytes() == before


@pytest.mark.parametrize("name", ["exp raises", "exp near 0", "log near 0"])
def test_so_along_random_directions(name):
    f, edge, slope = CASES[name]
    x = np.array([edge, *INSIDE])
    for _ in range(3):  # of directions
        assert check_gradient(f, x, slope(x), fast=True)
        assert not check_gradient(f, x, slope(x) * [-1, 1, 1, 1], fast=True)
    assert " of length inf" not in str(check_gradient(f, x, slope(x), fast=True))


def test_an_edge_that_is_as_near_as_some_thousand_neighbours_of_x():
    x = np.array([1 - 1e-12, 0.1, 0.2, 0.3])
    right = 1 / np.sqrt((1 - x) * (1 + x))
    assert check_gradient(sum_of(np.arcsin), x, right)
    for factors in ([1.01, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1.01, 1]):
        assert not check_gradient(sum_of(np.arcsin), x, right * factors)


def test_many_elements_at_both_ends():
    x, right = ENDS.copy(), np.exp(ENDS)
    wrong = right.copy()
    wrong[np.flatnonzero(x == 1)[3]] *= 1.01
    for check in (check_gradient, lambda *args: slope_test(*args, seed=1)):
        assert check(exp_between, x, right)
        assert not check(exp_between, x, wrong)
    assert x.tobytes() == ENDS.tobytes()


@pytest.mark.parametrize("name", ["exp at 0", "sin at 3", "log next to 0", "x log x"])
def test_taylors_test_leads_inside(name):
    f, edge, slope = CASES[name]
    x = np.array([edge, *INSIDE])
    assert slope_test(f, x, slope(x), seed=0)
    assert not slope_test(f, x, slope(x) * [1, 1, 1.01, 1], seed=0)
    assert not slope_test(f, x, -slope(x), seed=0)


def test_a_slope_that_falls_slowly_to_0_at_the_edge():
    f = sum_of(lambda x: x**1.2)
    x = np.array([0.0, *INSIDE])
    right = 1.2 * x**0.2
    # At 1e-13, where noise begins to hide it, the slope is still 0.003.
    assert check_gradient(f, x, right)
    assert slope_test(f, x, right, seed=0)
    assert not check_gradient(f, x, right + np.array([0.05, 0, 0, 0]))


def test_a_gradient_that_raises_next_to_x_is_wrong_all_the_same():
    def f(x):
        if (x < 0).any():
            raise ArithmeticError
        return float((x * np.sqrt(x)).sum())

    def gradient(x):
        return f(x) * 0 + 1.515 * np.sqrt(x)

    x = np.array([0.0, *INSIDE])
    for options in ({}, {"fast": True}):
        report = check_gradient(f, x, gradient, outside=ArithmeticError, **options)
        assert report.summary == "The gradient is wrong."
    assert not slope_test(f, x, gradient, outside=ArithmeticError, seed=0)


def test_what_noise_hides_next_to_the_edge_is_said():
    x = np.array([1e-30, *INSIDE])
    report = check_gradient(sum_of(np.sqrt), x, root(x))
    assert report.summary == "The gradient is right, as far as the differences can tell."
    assert "The gradient may be wrong there" in str(report)
    assert not check_gradient(sum_of(np.sqrt), x, root(x) * [-1, 1, 1, 1])
