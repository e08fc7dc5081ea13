"""The slope of the remainder tells right gradients from wrong ones."""

import numpy as np
import pytest

from benchmarks.cases.backward import FAULTS, FaultyNet, LayeredNet, faulty_batch
from benchmarks.cases.random_gradients import example, planted
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


def quartic(x):
    return float((x**4).sum())


WRONG = {
    "nan": np.full(3, np.nan),
    "infinite": np.array([4.0, np.inf, 4.0]),
    "too large": np.full(3, 4e6),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_not_finite_or_too_large_is_wrong(name):
    found = slope_test(quartic, np.ones(3), WRONG[name], seed=0)
    assert not found
    assert str(found).startswith("Wrong")


def test_functions_that_are_nan_or_random_tell_nothing():
    random = np.random.default_rng(0)
    x = np.ones(3)
    assert "f is nan at x" in str(slope_test(lambda x: float("nan"), x, x))
    found = slope_test(lambda x: quartic(x) + random.normal(), x, 4 * x**3)
    assert not found
    assert "f is not deterministic" in str(found)


@pytest.mark.parametrize("seed", range(4))
def test_hard_scales_and_types_are_right(seed):
    x = np.random.default_rng(seed).normal(size=4)
    single = x.astype(np.float32)
    assert slope_test(lambda v: np.sin(v).sum(), single, np.cos(single), seed=seed)
    assert slope_test(lambda v: float(1e8 + np.sin(v).sum()), x, np.cos(x), seed=seed)
    assert slope_test(lambda v: float(np.exp(100 * v).sum()), x, 100 * np.exp(100 * x), seed=seed)
    assert slope_test(lambda v: np.sin(v).sum(), x, np.cos(x).astype(np.float16), seed=seed)
    assert slope_test(lambda v: v.sum(), np.full(4, 1e200), np.ones(4), seed=seed)


def test_at_a_kink_the_gradient_is_between_both_slopes():
    x = np.array([0.0, 1.0])
    found = slope_test(lambda v: float(abs(v).sum()), x, np.sign(x), seed=0)
    assert found
    assert "between both slopes" in str(found)
    assert not slope_test(lambda v: float(abs(v).sum()), x, np.array([3.0, 1.0]), seed=0)


def test_the_number_under_the_logarithm_is_no_fault():
    x, t = faulty_batch()
    found = slope_test(LayeredNet([9, 7, 7], "sigmoid"), x=x, t=t, seed=0)
    assert found
    assert "but for the 1e-07" in str(found)


def test_kinks_closer_than_noise_can_show_seldom_refute():
    """Weights times absolute values, next to kinks by 1e-11 and 5e-15, and at one."""
    given = example(23869)
    assert np.count_nonzero(abs(given.x) < 1e-10) == 3
    wrong = given.gradient + 5.0 * (abs(given.x) > 1e-10)

    def refuted(gradient):
        return sum(not slope_test(given.f, given.x, gradient, seed=seed) for seed in range(20))

    assert refuted(given.gradient) <= 2  # of half of the directions, if single limits are believed
    assert refuted(wrong) > 16


def test_errors_beside_kinks_are_seen():
    """``python -m benchmarks random_gradients`` tries more."""
    tried = 0
    for seed in range(1, 160, 4):
        given = example(seed)
        wrong = planted(given, np.random.default_rng(seed), 0.1)
        if wrong is not None:
            tried += 1
            assert not slope_test(given.f, given.x, wrong, seed=0), (seed, given.name)
        assert slope_test(given.f, given.x, given.gradient, seed=0), (seed, given.name)
    assert tried > 20


def test_elements_that_are_small_beside_others_are_seen():
    """Of 1e8 and 1, an error of a tenth in the second is 1e-9 of a dense direction's slope."""
    x = np.array([1.0, 2.0, 3.0])
    weights = np.array([1e8, 1.0, 2.0])

    def f(v):
        return float((weights * np.sin(v)).sum())

    assert slope_test(f, x, weights * np.cos(x), seed=0)
    assert not slope_test(f, x, weights * np.cos(x) * [1, 1.1, 1], seed=0)
