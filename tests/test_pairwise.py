"""Each two values of any two factors meet in a pairwise selection, which is small."""

import doctest
from itertools import combinations

import pairwise as module
import pytest
from pairwise import pairwise


@pytest.mark.parametrize("sizes", [(4, 2), (8, 7, 2, 2), (5, 2, 3, 3), (2, 2, 2, 2, 2)])
def test_each_two_values_of_two_factors_meet_and_cases_are_few(sizes):
    factors = [[f"{k}: {value}" for value in range(size)] for k, size in enumerate(sizes)]
    cases = pairwise(*factors)
    met = {pair for case in cases for pair in combinations(case, 2)}
    for one, other in combinations(factors, 2):
        assert all((a, b) in met for a in one for b in other)
    largest = sorted(sizes)[-2:]
    assert len(cases) <= largest[0] * largest[1] + 2
    assert cases == pairwise(*factors)


def test_the_example_in_the_docstring_runs():
    assert doctest.testmod(module).failed == 0
