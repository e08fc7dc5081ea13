"""Does the slope tell right from wrong, by itself and drawn?"""

import numpy as np
import pytest

from benchmarks.backward import FAULTS, FaultyNet, LayeredNet, faulty_batch
from fastgrad import slope_test


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_the_remainder_of_a_right_gradient_falls_with_the_square(activation):
    x, t = faulty_batch()
    for seed in range(5):
        found = slope_test(LayeredNet([9, 7, 7], activation, "cross entropy"), x=x, t=t, seed=seed)
        assert found
        # Third derivatives and round-off bend the line by some percent.
        assert found.slope == pytest.approx(2, abs=0.2)
        assert str(found).startswith("Right: the remainder falls with the power 2.0")


@pytest.mark.parametrize("name", FAULTS)
def test_the_remainder_of_a_wrong_gradient_falls_with_the_step(name):
    net, (x, t) = FaultyNet(FAULTS[name], 2), faulty_batch()
    found = slope_test(net, x=x, t=t, seed=0)
    assert not found
    assert found.slope == pytest.approx(1, abs=0.1)


def test_linear_functions_leave_round_off_only():
    x, weights = np.ones(5), np.arange(5.0)
    found = slope_test(lambda x: float(weights @ x), x, weights, seed=0)
    assert found
    assert np.isnan(found.slope)
    assert str(found).startswith("Right: the remainder is round-off")
    assert not slope_test(lambda x: float(weights @ x), x, 1.1 * weights, seed=0)


def test_x_comes_back_bit_for_bit():
    x = np.array([1.0, -0.0, 3.0])
    before = x.tobytes()
    slope_test(lambda x: float((x**2).sum()), x, 2 * x)
    assert x.tobytes() == before
