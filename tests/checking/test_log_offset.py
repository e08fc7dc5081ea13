"""The number under the logarithm is told from a fault."""

import numpy as np
import pytest

from benchmarks.cases.backward import LayeredNet, faulty_batch, softmax
from fastgrad import check_gradient


class Probabilities(LayeredNet):
    """As in the book's chapter 4: predict returns probabilities, and the loss adds a number."""

    offset = 1e-7

    def scores(self, x):
        return super().predict(x)

    def predict(self, x):
        return softmax(self.scores(x))

    def loss(self, x, t):
        p = self.predict(x)[np.arange(len(x)), t]
        return -np.mean(np.log(p + self.offset))

    def gradient(self, x, t):
        return self.collect(self.loss_function.derivative(self.scores(x), t))


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("offset", [1e-7, 1e-8, 1e-6])
def test_the_number_is_named_and_no_fault(offset, fast):
    x, t = faulty_batch()
    net = Probabilities([9, 6, 7], "sigmoid")
    net.offset = offset
    report = check_gradient(net, x=x, t=t, fast=fast)
    assert report
    assert f"right, but for the {offset:g} that the loss adds" in str(report)


def test_one_hot_targets_mean_the_same():
    x, t = faulty_batch()
    net = LayeredNet([9, 6, 7], "sigmoid")
    one_hot = np.eye(7)[t]
    loss, gradient = net.loss, net.gradient
    net.loss = lambda x, t: loss(x, t.argmax(axis=1))
    net.gradient = lambda x, t: gradient(x, t.argmax(axis=1))
    report = check_gradient(net, x=x, t=one_hot)
    assert report
    assert "but for the 1e-07" in str(report)


def test_kinks_do_not_hide_it():
    x, t = faulty_batch()
    x[:3] = 0
    net = LayeredNet([9, 6, 7], "relu")
    net.params["b1"][...] = 0
    report = check_gradient(net, x=x, t=t)
    assert report
    assert "but for the 1e-07" in str(report)


def test_an_error_as_small_but_of_another_kind_is_a_fault():
    x, t = faulty_batch()
    net = LayeredNet([9, 6, 7], "sigmoid", "cross entropy")
    gradient = {name: values * (1 + 1e-7) for name, values in net.gradient(x, t).items()}
    report = check_gradient(net, x=x, t=t, gradient=gradient)
    assert not report
    assert "logarithm and" not in str(report)


def test_nets_without_predict_are_none_of_its_business():
    class Net:
        params = {"w": np.array([1.0, 2.0])}  # noqa: RUF012

        def loss(self, x, t):
            return float(((x @ self.params["w"] - t) ** 2).mean())

        def gradient(self, x, t):
            return {"w": 2 * x.T @ (x @ self.params["w"] - t) / len(x) * (1 + 1e-6)}

    random = np.random.default_rng(0)
    report = check_gradient(Net(), x=random.normal(size=(5, 2)), t=random.normal(size=5))
    assert not report


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("samples", [1, 7])
def test_it_is_named_without_predict_by_the_samples_losses(samples, fast):
    class Net:
        def __init__(self, net):
            self.net, self.params = net, net.params

        def loss(self, x, t):
            return self.net.loss(x, t)

        def gradient(self, x, t):
            return self.net.gradient(x, t)

    x, t = faulty_batch()
    net = Net(LayeredNet([9, 6, 7], "tanh"))
    for name in ("W1", "W2"):  # probabilities small enough for differences far above round-off
        net.params[name] *= 3
    report = check_gradient(net, x=x[:samples], t=t[:samples], fast=fast)
    assert report
    assert "but for the 1e-07" in str(report)
    wrong = net.gradient(x[:samples], t[:samples])
    wrong["W1"][0, 0] *= 1.01
    assert not check_gradient(net, x=x[:samples], t=t[:samples], gradient=wrong, fast=fast)


def test_tiny_functions_are_not_explained_by_it():
    x = np.array([1.0, 1.4])
    right = -340 * x * np.exp(-170 * (x @ x))
    assert not check_gradient(lambda v: float(np.exp(-170 * (v @ v))), x, right * [1, 1.001])


def test_a_function_with_further_arguments_may_be_wrong_too():
    """It is positive, as the loss of one sample is, and so may have a number under a logarithm."""
    x = np.array([1.0, 2.0, 3.0])
    report = check_gradient(lambda x, a: a * float(x @ x), x, lambda x, a: 2.2 * a * x, args=(1.5,))
    assert not report
    assert "1.1 times what it should be" in str(report)


@pytest.mark.parametrize("seed", [12, 27])
@pytest.mark.parametrize("fast", [False, True])
def test_beside_a_saturated_sample_an_error_of_a_thousandth_is_a_fault(seed, fast):
    """There the number changes the gradient by as much as the gradient itself is."""
    random = np.random.default_rng(seed)
    net = LayeredNet([6, 5, 4], "tanh" if seed % 2 else "sigmoid")
    for values in net.params.values():
        values[...] = random.normal(size=values.shape) * random.choice([1, 3, 8])
    x, t = random.normal(size=(8, 6)), random.integers(0, 4, 8)
    report = check_gradient(net, x=x, t=t, fast=fast)
    assert report
    assert "but for the 1e-07" in str(report)
    wrong = net.gradient(x, t)
    wrong["b1"][abs(wrong["b1"]).argmax()] *= 1.001
    assert not check_gradient(net, x=x, t=t, gradient=wrong, fast=fast)


class Mixing(LayeredNet):
    """A net whose samples mix, as in batch normalisation, with the 1e-7 in its loss."""

    def predict(self, x):
        return super().predict(x - x.mean(axis=0))


@pytest.mark.parametrize("fast", [False, True])
def test_what_forward_returns_tells_as_what_predict_returns(fast):
    random = np.random.default_rng(0)
    net, x, t = Mixing([4, 6, 5], "sigmoid"), random.normal(size=(8, 4)), random.integers(0, 5, 8)
    net.forward, net.predict = net.predict, None
    net.gradient = lambda x, t: net.collect(net.loss_function.derivative(net.forward(x), t))
    net.loss = lambda x, t: net.loss_function.value(net.forward(x), t)
    report = check_gradient(net, x=x, t=t, fast=fast)
    assert report
    assert "the 1e-07 that the loss adds" in str(report)


def test_small_errors_that_are_not_explained_are_told_once_and_lead_nowhere_else():
    random = np.random.default_rng(0)
    net, x, t = Mixing([4, 6, 5], "sigmoid"), random.normal(size=(8, 4)), random.integers(0, 5, 8)
    scores, net.predict = net.predict, None
    net.gradient = lambda x, t: net.collect(net.loss_function.derivative(scores(x), t))
    net.loss = lambda x, t: net.loss_function.value(scores(x), t)
    report = check_gradient(net, x=x, t=t)
    assert not report
    [finding] = report.findings
    assert finding.startswith("W1, b1, W2, b2: no error is larger than 1e-05 of the largest")
    assert "a net with a method predict(x)" in finding


def test_a_number_that_would_change_what_agrees_explains_nothing():
    """f is 11.5, as a loss of one sample may be: 1e-7 would change all derivatives by 0.01."""

    def f(p):
        return np.log(1e5) + float(np.sin(p["a"]).sum() + np.sin(p["b"]).sum())

    x = {"a": np.array([0.3, -0.3]), "b": np.array([0.5, -0.5])}
    report = check_gradient(f, x, {"a": np.cos(x["a"]) / 0.99, "b": np.cos(x["b"])})
    assert [row.verdict for row in report.rows] == ["wrong", "right"]


def test_many_weights_do_not_hide_an_error_of_a_small_array_beside_it():
    """All together may be wrong by more than that error; the small array by itself may not."""
    random = np.random.default_rng(0)
    x, t = random.normal(size=(6, 2000)) / 20, random.integers(0, 7, 6)
    net = Probabilities([2000, 6, 7], "sigmoid")
    assert check_gradient(net, x=x, t=t)
    wrong = net.gradient(x, t)
    wrong["W2"][2, 3] += 3e-9  # the 1e-7 makes errors of 1e-7, and each is known to 2e-11
    report = check_gradient(net, x=x, t=t, gradient=wrong)
    assert not report
    assert "only W2[2, 3] is wrong" in str(report)


@pytest.mark.parametrize("fast", [False, True])
def test_no_error_hides_in_what_the_number_takes_from_a_saturated_loss(fast):
    """A loss of 8, whose slope along a direction is the number's to a share from 1e-5 to 1.

    Of that, random directions know a share of 1e-5: errors of 1e-6 passed.
    """
    random = np.random.default_rng(0)
    net = LayeredNet([30, 20, 10], "sigmoid")
    for values in net.params.values():
        values *= 8
    x, t = random.random((20, 30)), random.integers(0, 10, 20)
    assert net.loss(x, t) > 8
    report = check_gradient(net, x=x, t=t, fast=fast)
    assert report
    assert "1e-07" in str(report)
    wrong = net.gradient(x, t)
    wrong["W1"] = wrong["W1"] * (1 + 1e-6)
    assert not check_gradient(net, x=x, t=t, gradient=wrong, fast=fast)


def test_beside_the_number_one_element_of_a_recorded_net_is_known_to_its_own_round_off():
    x, t = faulty_batch()
    net = Probabilities([9, 6, 7], "sigmoid")
    report = check_gradient(net, x=x, t=t, engine="traced")
    assert report
    assert "but for the 1e-07" in str(report)
    wrong = net.gradient(x, t)
    wrong["W1"][2, 3] += 3 * report.rows[0].absolute.round_off  # 2: the value may be wrong, too
    report = check_gradient(net, x=x, t=t, gradient=wrong, engine="traced")
    assert not report
    assert "only W1[2, 3] is wrong" in str(report)


def saturated(kind, seed=1, scale=30):
    """Return a net, and a batch in which the right class is far behind another of most samples."""
    random = np.random.default_rng(seed)
    net = kind([12, 6, 7], "relu")
    for values in net.params.values():
        values[...] = scale * random.normal(size=values.shape)
    return net, random.normal(size=(20, 12)), random.integers(0, 7, 20)


@pytest.mark.parametrize("fast", [False, True])
def test_scores_tell_of_probabilities_that_no_float_holds(fast):
    net, x, t = saturated(LayeredNet)
    assert (softmax(net.predict(x))[np.arange(20), t] == 0).sum() > 10
    report = check_gradient(net, x=x, t=t, fast=fast)
    assert report
    assert "1e-07" in str(report)
    for name in ("W1", "W2", "b2"):
        wrong = net.gradient(x, t)
        wrong[name].flat[abs(wrong[name]).argmax()] *= 1.01
        assert not check_gradient(net, x=x, t=t, gradient=wrong, fast=fast)


@pytest.mark.parametrize("fast", [False, True])
def test_where_probabilities_are_0_it_is_said_that_nothing_can_be_told(fast):
    net, x, t = saturated(Probabilities)
    report = check_gradient(net, x=x, t=t, fast=fast)
    assert not report
    [finding] = report.findings
    assert finding.startswith("W1, b1, W2, b2: of 14 of the samples")
    assert "Let predict(x) return the scores" in finding
