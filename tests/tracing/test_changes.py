"""Slopes are right where moves of one size are measured and few elements pass a kink."""

import numpy as np
import pytest
from nets import H

from fastgrad.engines import loop, traced
from fastgrad.schemes import central_quotient, forward
from fastgrad.tracing.trace import trace_call


def relu(a):
    return np.maximum(a, 0)


random = np.random.default_rng(4)
DATA = random.normal(size=(30, 40))
BIASES = random.normal(size=40)
BIASES[11] = 2e-5 - DATA[3, 11]
ELEMENTS = random.normal(size=40)
ELEMENTS[7] = 3e-5
WEIGHTS = random.normal(size=(40, 10))
SPARSE = DATA * (random.random(DATA.shape) < 0.1)
WEIGHTS[:, 4] -= (SPARSE[3] @ WEIGHTS[:, 4] - 1e-5) * SPARSE[3] / np.sum(SPARSE[3] ** 2)

FUNCTIONS = {
    "biases": (lambda b: np.mean(np.tanh(relu(DATA + b))), BIASES),
    "elements": (lambda x: np.sum(relu(x) + x**2 * np.roll(x, 1)), ELEMENTS),
    "weights whose rows mix": (lambda W: np.var(np.tanh(relu(SPARSE @ W)).sum(1)), WEIGHTS),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_slopes_are_measured_by_small_moves_where_few_elements_pass_a_kink(name):
    f, x = FUNCTIONS[name]
    replayed = traced._replayed(trace_call(f, x, H), H, central_quotient, np.inf)
    slopes = loop.gradient(f, x, H / 64).reshape(-1)
    assert replayed.has_slopes
    assert replayed.uneven.any()
    assert 1 <= np.count_nonzero(abs(replayed.quotients - slopes) > 1e-6) <= 40
    np.testing.assert_allclose(replayed.slopes, slopes, rtol=0, atol=2e-8)


def test_moves_up_alone_are_known_where_weights_are_moved_one_by_one():
    """Two changes of f are rounded by some eps f each; responses are measured both ways at once."""
    f, W = FUNCTIONS["weights whose rows mix"]
    bends = traced._replayed(trace_call(f, W, H), H, central_quotient, np.inf).bends
    expected = loop.gradient(f, W, H, scheme=forward()) - loop.gradient(f, W, H)
    rounding = 8 * np.finfo(float).eps * f(W) / H
    np.testing.assert_allclose(bends.reshape(W.shape), expected, rtol=0, atol=rounding)
    f, b = FUNCTIONS["biases"]
    assert np.isnan(traced._replayed(trace_call(f, b, H), H, central_quotient, np.inf).bends).all()


def test_a_term_with_the_factor_0_changes_nothing():
    f = lambda b: np.mean(np.tanh(DATA + b)) + 0.0 * np.sum(b**2)  # noqa: E731
    result = traced.gradient(f, BIASES, H)
    np.testing.assert_allclose(result, loop.gradient(f, BIASES, H), rtol=0, atol=1e-11)


@pytest.mark.parametrize(
    ("penalty", "is_known"),
    [
        (lambda W: 0.05 * np.sum(W**2), True),
        (lambda W: 0.5 * (W * W).sum() - np.sum(W), True),
        (lambda W: np.sum(np.square(W.T[1:]) / 3), True),
        (lambda W: np.sum(W**2 * W), False),
        (lambda W: np.sum(W**2) + np.sum(abs(W)), False),
        (lambda W: np.sum(np.exp(W)), False),
        (lambda W: np.sum(1 / (4 + W)), False),
    ],
)
def test_slopes_of_polynomials_of_degree_two_are_known(penalty, is_known):
    """Moves up and down then change f by slopes alone, and by what is the same for both."""
    trace = trace_call(penalty, WEIGHTS.copy(), H)
    replayed = traced._replayed(trace, H, central_quotient, np.inf)
    assert replayed.has_slopes
    assert (not replayed.uneven.any()) == is_known
    exact = loop.gradient(penalty, WEIGHTS.copy(), H / 64)
    tolerance = 1e-7 if is_known else 1e-5  # of rounding, and of what bends
    np.testing.assert_allclose(
        replayed.slopes.reshape(WEIGHTS.shape), exact, rtol=0, atol=tolerance
    )
