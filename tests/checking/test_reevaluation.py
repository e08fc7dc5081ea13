"""Is what is wrong at x alone told from a fault?"""

import numpy as np

from fastgrad import check_gradient


def relu_difference(x):
    """Return relu(x) - relu(-x), which is x: two kinks at 0 that cancel."""
    return float((np.maximum(x, 0) - np.maximum(-x, 0)).sum())


def by_convention(x):
    """Return its gradient with relu'(0) = 0, as backpropagation has it: 0 at 0, though f is x."""
    return (x > 0) * 1.0 + (-x > 0) * 1.0


def test_kinks_that_cancel_are_no_fault_of_a_gradient_that_can_be_asked_again():
    x = np.array([0.0, 0.0, 1.0])
    report = check_gradient(relu_difference, x, by_convention)
    assert report
    assert "agrees at a point next to it" in report.findings[0]


def test_of_a_mere_array_nothing_can_be_asked_again():
    x = np.array([0.0, 0.0, 1.0])
    assert not check_gradient(relu_difference, x, by_convention(x))


def test_a_fault_is_one_next_to_x_too():
    x = np.array([0.0, 0.0, 1.0])
    assert not check_gradient(relu_difference, x, lambda x: 2 * by_convention(x))


def test_x_and_what_f_keeps_are_as_before():
    x = np.array([0.0, -0.0, 1.0])
    before, seen = x.tobytes(), []

    def f(x):
        seen[:] = [x.copy()]
        return relu_difference(x)

    check_gradient(f, x, by_convention)
    assert x.tobytes() == before
