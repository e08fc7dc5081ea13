"""Functions that random search (tests/fuzz) found to be differenced wrongly, shortened."""

import numpy as np
import pytest

from fastgrad import numerical_gradient
from fastgrad.engines import loop, traced

EPS = float(np.finfo(np.float64).eps)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(7, 4)).round(1)
W = RANDOM.normal(size=(4, 3))
DIVISORS = abs(RANDOM.normal(size=(7, 3))).round(0)


def assert_the_loops(f, x, h=1e-4):
    """Check the analysis alone, without the certificate; whatever is warned of is an error."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(traced, "CERTIFY", False)
        got = numerical_gradient(f, x, h, engine="traced")
    assert abs(got - loop.gradient(f, x, h)).max() <= 8 * EPS * max(1, abs(f(x))) / h


def test_a_loss_that_forgets_all_rows_has_no_response_and_no_warning():
    def f(w):
        kept = np.zeros((7, 3))
        kept[:] = np.tanh(X @ w)
        kept[...] = 0
        return kept.sum()

    assert_the_loops(f, W)


def divided_where_it_may_be(w):
    z = X @ w
    return np.divide(z, DIVISORS, out=2 * z, where=DIVISORS != 0).sum()


def logarithms_of_what_is_positive(w):
    z = X @ w
    return (np.log(z, out=np.zeros_like(z), where=z > 0) ** 2).sum()


def some_changed_in_place(w):
    z = X @ w
    np.exp(z, out=z, where=DIVISORS > 0.5)
    return (z**2).sum()


@pytest.mark.parametrize(
    "f", [divided_where_it_may_be, logarithms_of_what_is_positive, some_changed_in_place]
)
def test_a_function_that_leaves_elements_out_leaves_them_as_they_were(f):
    assert_the_loops(f, W)


def test_a_buffer_of_one_element_is_filled():
    def f(w):
        filled = np.zeros(1)
        filled[...] = np.tanh(w)
        return filled.sum()

    assert_the_loops(f, np.array([0.3]))


def test_elements_of_an_array_that_f_creates_are_assigned_one_by_one():
    series = np.arange(12.0)

    def f(w):
        filtered = np.zeros(8)
        for n in range(8):
            filtered[n] = np.tanh((series[n : n + 4] * w).sum())
        return (filtered**2).sum()

    assert_the_loops(f, RANDOM.normal(size=4) / 10)


def test_a_term_may_be_a_truth():
    def f(w):
        return (w > 0.2) * 3.0 + w

    assert_the_loops(f, np.array(0.2 - 3e-5))


def test_powers_of_numbers_are_pythons_which_round_otherwise_than_those_of_arrays():
    random = np.random.default_rng(1)
    for _ in range(50):
        x = random.random(8) + 0.5

        def f(x):
            total = np.sum(x) ** 1.7
            total **= 3
            return total + 2.5 ** x[0] + x[1] ** x[2] + sum(v**3 for v in x)

        assert_the_loops(f, x)


def test_a_sum_of_no_elements_is_no_term():
    assert_the_loops(lambda w: np.tanh(X @ w).sum() + (w[:0] ** 2).sum(), W)
    assert_the_loops(lambda w: (w[:0] ** 2).sum(), W)


def test_a_loss_of_steps_alone_is_constant_in_a_linear_piece():
    others = RANDOM.normal(size=(3, 2))
    assert_the_loops(lambda w: np.log(7.5 + ((X @ w @ others > 2.0) * 1.0 @ others.T).sum()), W)


@pytest.mark.parametrize("offset", [0.79, 1e-6])
def test_a_number_without_axes_may_be_near_a_kink(offset):
    others = RANDOM.normal(size=(3, 2))
    x = RANDOM.normal(size=2)
    middle = others[0] @ x - offset

    def f(w):
        filled = np.zeros(3)
        filled[0] = np.hypot((others @ w)[0] - middle, 0)
        return w.sum() + (filled**2).sum() + filled.sum()

    assert_the_loops(f, x)


def test_a_linear_loss_has_no_decisions_to_compare():
    left, middle, right = (RANDOM.normal(size=size) for size in ((7, 7), (3, 2), (2, 5)))
    weights = RANDOM.normal(size=35)
    assert_the_loops(lambda w: weights @ (left @ (X @ w) @ middle @ right).ravel(), W)
