"""The reference is the book: quotients by hand, and the book's faults where it has them."""

import math

import numpy as np
import pytest

from fastgrad import reference

H = 1e-4


def test_the_quotients_of_the_books_example_are_the_printed_ones():
    gradient = reference.numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0]))
    assert gradient.tolist() == [6.00000000000378, 7.999999999999119]


def test_the_quotients_are_those_computed_by_hand():
    gradient = reference.numerical_gradient(lambda x: x[0] ** 3 * x[1], np.array([1.5, 2.0]))
    assert gradient.tolist() == [
        ((1.5 + H) ** 3 * 2.0 - (1.5 - H) ** 3 * 2.0) / (2 * H),
        (1.5**3 * (2.0 + H) - 1.5**3 * (2.0 - H)) / (2 * H),
    ]


def test_f_is_called_twice_an_element_with_the_raised_value_first():
    calls: list[list[float]] = []
    x = np.array([1.0, 2.0])

    def record(argument):
        assert argument is x
        calls.append(argument.tolist())
        return 0.0

    reference.numerical_gradient(record, x)
    assert calls == [[1 + H, 2], [1 - H, 2], [1, 2 + H], [1, 2 - H]]


def test_elements_are_visited_in_memory_order():
    x = np.arange(6.0).reshape(2, 3)[::-1].T
    visited: list[float] = []

    def record(argument):
        visited.append(float(argument[np.unravel_index(np.argmax(argument % 1), x.shape)]) // 1)
        return 0.0

    reference.numerical_gradient(record, x)
    assert visited[::2] == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_result_keeps_the_layout(order):
    x = np.ones((2, 3), order=order)
    assert reference.numerical_gradient(np.sum, x).strides == x.strides


def test_a_closure_that_ignores_its_argument_is_differenced():
    x = np.array([1.0, 2.0])
    gradient = reference.numerical_gradient(lambda _: x[0] * x[1], x)
    assert gradient.round(9).tolist() == [2, 1]


def test_integers_give_the_books_wrong_numbers():
    gradient = reference.numerical_gradient(lambda x: (x**2).sum(), np.array([1, 2]))
    # Lowered to 0 and 1, raised to 1 and 2: (1 - 0) / 2h and (4 - 1) / 2h.
    assert gradient.tolist() == [5000, 15000]


def test_x_stays_perturbed_if_f_raises_as_in_the_book():
    x = np.array([1.0])
    with pytest.raises(ZeroDivisionError):
        reference.numerical_gradient(lambda _: 1 / 0, x)
    assert x[0] == 1 + H


def test_weights_are_drawn_as_in_the_book():
    np.random.seed(7)
    net = reference.TwoLayerNet(3, 4, 2, weight_init_std=0.1)
    np.random.seed(7)
    first, second = np.random.randn(3, 4), np.random.randn(4, 2)
    assert list(net.params) == ["W1", "b1", "W2", "b2"]
    np.testing.assert_array_equal(net.params["W1"], 0.1 * first)
    np.testing.assert_array_equal(net.params["W2"], 0.1 * second)
    assert net.params["b1"].tolist() == [0] * 4
    assert net.params["b2"].tolist() == [0] * 2


def tiny_net():
    """Return a net of one input, one hidden unit and two outputs."""
    net = reference.TwoLayerNet(1, 1, 2)
    net.params["W1"] = np.array([[0.5]])
    net.params["b1"] = np.array([-1.0])
    net.params["W2"] = np.array([[2.0, -1.0]])
    net.params["b2"] = np.array([0.25, 0.75])
    return net


def test_prediction_and_loss_are_those_computed_by_hand():
    hidden = 1 / (1 + math.exp(-(3.0 * 0.5 - 1.0)))
    first, second = math.exp(2 * hidden + 0.25), math.exp(-hidden + 0.75)
    probability = second / (first + second)
    net, x = tiny_net(), np.array([[3.0]])
    # A dozen roundings of at most eps / 2 each.
    within = {"rel": 12 * np.finfo(float).eps, "abs": 0.0}
    assert net.predict(x)[0, 1] == pytest.approx(probability, **within)
    assert net.loss(x, np.array([1])) == pytest.approx(-math.log(probability + 1e-7), **within)


def test_accuracy_counts_labels_and_one_hot_rows_alike():
    net, x = tiny_net(), np.array([[3.0], [3.0], [3.0], [3.0]])
    labels = np.array([0, 1, 0, 0])
    assert net.accuracy(x, labels) == 0.75
    assert net.accuracy(x, np.eye(2)[labels]) == 0.75


@pytest.mark.parametrize("form", ["indices", "one-hot"])
def test_backpropagation_agrees_with_the_numerical_gradient(form):
    np.random.seed(0)
    net = reference.TwoLayerNet(4, 5, 3, weight_init_std=0.5)
    x, t = np.random.rand(6, 4), np.random.randint(0, 3, 6)
    t = t if form == "indices" else np.eye(3)[t]
    exact, quotient = net.gradient(x, t), net.numerical_gradient(x, t)
    assert list(exact) == list(quotient) == list(net.params)
    # The 1e-7 in the loss scales a sample's error by p / (p + 1e-7); the truncation error is
    # h^2 / 6 times a third derivative of order 1, the round-off error about eps / h.
    tolerance = 1e-7 / net.predict(x).min() + H**2 + 10 * np.finfo(float).eps / H
    for name in exact:
        assert exact[name].shape == quotient[name].shape == net.params[name].shape
        assert np.abs(exact[name] - quotient[name]).max() < tolerance


def test_a_single_sample_has_a_numerical_gradient():
    net = tiny_net()
    one = net.numerical_gradient(np.array([3.0]), np.array([1]))
    batch = net.numerical_gradient(np.array([[3.0]]), np.array([1]))
    for name in one:
        # Both losses round differently, by a few eps, and the quotient divides that by 2h.
        assert np.abs(one[name] - batch[name]).max() <= 8 * np.finfo(float).eps / H
