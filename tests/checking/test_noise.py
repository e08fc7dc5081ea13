"""The noise of f is measured, and told from kinks and from what f does."""

import numpy as np
import pytest

from fastgrad import check_backward
from fastgrad.checking.noise import STEP, measure_noise
from fastgrad.checking.subject import as_gradient_under_test

EPS = float(np.finfo(float).eps)


def noise_of(f, x, h=None):
    return measure_noise(as_gradient_under_test(f, x, None, np.ones(np.shape(x)), (), "auto"), h)


def noisy(level, seed=0):
    """Return a smooth function with errors of a known standard deviation, the same at each x."""

    def f(x):
        key = abs(hash(x.tobytes())) % 2**32
        return float(np.sin(x).sum()) + level * np.random.default_rng(key).normal()

    return f


@pytest.mark.parametrize("level", [1e-12, 1e-9, 1e-6, 1e-3])
def test_the_level_is_four_standard_deviations_of_the_errors(level):
    """Of 9 differences a line, the middle one of 3 lines: right within a factor of 3."""
    levels = [noise_of(noisy(level), np.linspace(0.1, 1 + s, 5)).level for s in range(20)]
    assert 4 * level / 3 < np.median(levels) < 4 * level * 3


def test_eps_times_f_is_the_least_that_is_believed():
    found = noise_of(lambda x: 1024.0 + 0 * x[0], np.ones(3))
    assert found.level == 1024 * EPS


def test_one_line_with_a_kink_does_not_count():
    x = np.array([0.5, 0.25, 1e-6])
    found = noise_of(lambda x: float((x**2).sum() + abs(x[2])), x)
    assert found.level < 1e-15


def test_a_function_that_varies_quickly_is_not_taken_for_noise():
    found = noise_of(lambda x: float(np.sin(1e3 * x).sum()), np.array([0.1, 0.3, 0.7]), 1e-2)
    # The argument is rounded by eps, which the slope of 1e3 makes 1e3 eps.
    assert found.level < 4e3 * EPS
    assert not found.is_coarse


def test_float32_asks_for_a_larger_step():
    x = np.linspace(0.1, 1, 5).astype(np.float32)
    found = noise_of(lambda x: np.exp(x).sum(), x)
    assert found.is_coarse
    assert 2.0**-10 <= found.step <= 2.0**-6
    assert noise_of(lambda x: np.exp(x).sum(), x.astype(float)).step == STEP


def test_rounding_to_float32_is_seen_where_it_makes_no_jumps_next_to_x():
    """Ten numbers near 1 are wrong by 2**-24 at most, uniformly: a variance of a third.

    At x none of them is, and the smallest steps see the sine in double precision alone. Of 9
    differences a line the level is right within a factor of 3.
    """
    w = np.random.default_rng(0).random((10, 5))

    def f(x):
        return float((1 + w @ x).astype("f").sum(dtype=float) + np.sin(x).sum())

    level = 4 * np.sqrt(10 / 3) * 2.0**-24
    assert level / 3 < noise_of(f, np.zeros(5)).level < 3 * level


def test_waves_between_the_steps_are_no_noise():
    found = noise_of(lambda x: float((x**2 + 1e-6 * np.sin(1e7 * x)).sum()), np.full(3, 0.3))
    # Arguments are rounded by eps times themselves, which the waves' slope of 10 makes 30 eps.
    assert found.level < 4 * 30 * EPS


def test_elements_that_f_does_not_vary_with_do_not_hide_its_noise():
    """A gradient of zeros says nothing of where to look; the rows 2, 3 and 4 are not in f."""
    random = np.random.default_rng(0)
    W, dout = random.normal(size=(5, 3)), random.normal(size=(2, 3))

    def forward(W):
        out = np.empty((2, 3), "f")
        out[:] = W[:2]
        return out, None

    def backward(dout, _):
        return np.vstack([dout, np.zeros((3, 3))])

    assert check_backward(forward, (W,), dout, backward)
    for fast in (False, True):
        report = check_backward(forward, (W,), dout, lambda *_: np.zeros((5, 3)), fast=fast)
        assert not report
