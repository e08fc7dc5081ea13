"""Checks tell right gradients from wrong ones, whatever form they come in."""

import dataclasses
import math

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cases.backward import (
    FAULTS,
    FaultyNet,
    LayeredNet,
    faulty_batch,
    random_net,
    softmax,
)
from fastgrad import TwoLayerNet, check_gradient, reference, slope_test
from tests.nets import CASES

REPEATABLE = settings(derandomize=True, deadline=None, max_examples=40)
NETS = 60


def squares(x):
    return float((x**2).sum())


@pytest.mark.parametrize("start", range(0, NETS, 10))
def test_no_right_backward_pass_is_called_wrong(start):
    """Kinks, empty and repeated samples, ties of a maximum, float32: see `random_net`."""
    for seed in range(start, start + 10):
        net, x, t = random_net(np.random.default_rng(seed))
        report = check_gradient(net, x=x, t=t)
        assert report, f"seed {seed}\n{report}"


@pytest.mark.parametrize("name", FAULTS)
def test_every_planted_fault_is_found_and_named(name):
    net, (x, t) = FaultyNet(FAULTS[name], 3), faulty_batch()
    report = check_gradient(net, x=x, t=t)
    assert not report
    assert FAULTS[name].words in str(report)


@pytest.mark.parametrize("name", FAULTS)
def test_every_planted_fault_is_found_along_random_directions(name):
    net, (x, t) = FaultyNet(FAULTS[name], 2), faulty_batch()
    report = check_gradient(net, x=x, t=t, fast=True)
    assert not report
    assert FAULTS[name].words in str(report)


def test_only_the_faulty_parameters_are_called_wrong():
    net, (x, t) = FaultyNet(FAULTS["a factor 2"], 3), faulty_batch()
    report = check_gradient(net, x=x, t=t)
    assert [row.name for row in report.rows if row.verdict == "wrong"] == ["W2"]
    assert report.summary == (
        "The gradient of W2 is wrong, that of W1, b1, b2, W3 and b3 is right."
    )


@REPEATABLE
@given(seed=st.integers(0, 2**32 - 1), error=st.floats(1e-7, 1e3))
def test_any_error_in_one_element_is_found(seed, error):
    """The error is above what the differences of a cubic of size 1 carry, some 1e-10."""
    random = np.random.default_rng(seed)
    x, place = random.uniform(-1, 1, 12), random.integers(12)
    gradient = 3 * x**2
    assert check_gradient(lambda x: float((x**3).sum()), x, gradient)
    gradient[place] += random.choice([-1, 1]) * error
    report = check_gradient(lambda x: float((x**3).sum()), x, gradient)
    assert not report
    assert report.rows[0].absolute.index == (place,)


class BatchNormNet:
    """Normalises over the samples, so that they mix; with the book's loss."""

    def __init__(self, fault=""):
        random = np.random.default_rng(0)
        self.fault = fault
        self.params = {
            "W1": random.normal(size=(9, 5)),
            "gamma": random.uniform(1, 2, 5),
            "W2": random.normal(size=(5, 7)),
        }

    def predict(self, x):
        a = x @ self.params["W1"]
        self.centred = a - a.mean(axis=0)
        self.std = np.sqrt((self.centred**2).mean(axis=0) + 1e-6)
        self.normal = self.centred / self.std
        self.z = np.tanh(self.params["gamma"] * self.normal)
        return softmax(self.z @ self.params["W2"])

    def loss(self, x, t):
        return -np.log(self.predict(x)[np.arange(len(t)), t] + 1e-7).mean()

    def gradient(self, x, t):
        y = self.predict(x)
        error = (y - (self.fault != "targets") * np.eye(7)[t]) / len(t)
        slopes = (error @ self.params["W2"].T) * (1 - self.z**2)
        normal = slopes * self.params["gamma"]
        spread = (normal * self.normal).mean(axis=0) * (self.fault != "variance")
        centred = (normal - spread * self.normal) / self.std
        return {
            "W1": x.T @ (centred - centred.mean(axis=0)),
            "gamma": (slopes * self.normal).sum(axis=0),
            "W2": self.z.T @ error,
        }


def test_samples_may_mix():
    x, t = faulty_batch()
    report = check_gradient(BatchNormNet(), x=x, t=t)
    assert report
    assert "but for the 1e-07" in report.findings[0]


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("variance", "gamma, which the backward pass reaches before, is right: look at what comes"),
        ("targets", "All are wrong, W2 included: look first at where the backward pass begins"),
    ],
)
def test_a_fault_without_a_name_is_placed(fault, words):
    x, t = faulty_batch()
    report = check_gradient(BatchNormNet(fault), x=x, t=t)
    assert not report
    assert words in str(report)


def test_structures_are_checked_part_by_part():
    x = {"a": np.array([1.0, 2.0]), "b": [np.array(3.0), np.ones((2, 2))]}

    def f(x):
        return float((x["a"] ** 2).sum() + x["b"][0] ** 3 + x["b"][1].sum())

    gradient = {"b": [27.0, np.ones((2, 2))], "a": 2 * x["a"]}
    assert check_gradient(f, x, gradient)
    gradient["b"][0] = 26.0
    report = check_gradient(f, x, gradient)
    assert [row.verdict for row in report.rows] == ["right", "wrong", "right"]
    assert report["x['b'][0]"].absolute.error == pytest.approx(1.0)


@pytest.mark.parametrize("engine", ["auto", "loop", "traced"])
def test_the_engine_is_the_users_choice(engine):
    f, x = CASES["book W1"]()
    right = reference.numerical_gradient(f, x)
    assert check_gradient(f, x, right, engine=engine, rtol=1e-7)
    assert not check_gradient(f, x, 2 * right, engine=engine)


def test_jitted_functions_are_checked():
    @numba.njit
    def f(x):
        return np.sum(np.sin(x))

    x = np.linspace(0, 1, 5)
    assert check_gradient(f, x, np.cos)
    assert not check_gradient(f, x, np.sin)


def test_further_arguments_reach_f_and_the_gradient():
    x = np.array([1.0, 2.0])
    report = check_gradient(lambda x, a: a * squares(x), x, lambda x, a: 2 * a * x, args=(3.0,))
    assert report


def test_fastgrads_own_net_is_right_and_sharply_judged():
    np.random.seed(0)
    net, (x, t) = TwoLayerNet(9, 5, 7), faulty_batch()
    assert check_gradient(net, x=x, t=t)
    gradient = net.gradient(x, t)
    gradient["W1"][3, 2] += 1e-9
    report = check_gradient(net, x=x, t=t, gradient=gradient)
    assert not report
    # The responses have no cancellation: a loop's round-off is eps / h, 2e-12.
    assert report["W1"].absolute.round_off < 1e-15
    assert report["W1"].absolute.index == (3, 2)


def test_a_subclass_with_a_backward_pass_of_its_own_is_checked():
    class Mine(TwoLayerNet):
        def gradient(self, x, t):
            return {name: 2 * values for name, values in super().gradient(x, t).items()}

    np.random.seed(0)
    x, t = faulty_batch()
    report = check_gradient(Mine(9, 5, 7), x=x, t=t)
    assert "W1, b1, W2, b2: 2 times too large" in report.findings[0]


def test_the_books_own_net_is_right_but_for_its_1e_7():
    np.random.seed(0)
    x, t = faulty_batch()
    report = check_gradient(reference.TwoLayerNet(9, 5, 7, 0.5), x=x, t=t)
    assert report
    assert "but for the 1e-07" in report.findings[0]


@pytest.mark.parametrize("fast", [False, True])
def test_x_comes_back_bit_for_bit(fast):
    net, (x, t) = FaultyNet(FAULTS["a sample left out"], 2), faulty_batch()
    net.params["b1"][0] = -0.0
    before = {key: values.tobytes() for key, values in net.params.items()}
    check_gradient(net, x=x, t=t, fast=fast)
    assert {key: values.tobytes() for key, values in net.params.items()} == before


def test_x_comes_back_and_the_exception_passes_when_f_raises():
    x = np.array([1.0, -0.0, 3.0])
    before, calls = x.tobytes(), iter(range(50))

    def f(x):
        if next(calls) == 17:
            raise ZeroDivisionError("on purpose")
        return squares(x)

    with pytest.raises(ZeroDivisionError, match="on purpose"):
        check_gradient(f, x, 2 * x)
    assert x.tobytes() == before


def test_kinks_are_no_faults_and_are_named():
    x = np.array([0.0, 1.0, -2.0, 1e-5])
    report = check_gradient(lambda x: float(abs(x).sum()), x, np.where(x < 0, -1.0, 1.0))
    assert report
    assert "1 element is at a kink of f, as x[0]: the derivative is -1 from below and 1" in str(
        report
    )
    assert "1 element is within a step of a kink of f, as x[3]" in str(report)


@pytest.mark.parametrize("analytic", [-1.2, 1.2])
def test_a_gradient_outside_of_the_one_sided_derivatives_is_wrong_at_a_kink(analytic):
    x = np.array([0.0, 1.0])
    assert not check_gradient(lambda x: float(abs(x).sum()), x, np.array([analytic, 1.0]))


def test_functions_that_vary_within_the_step_are_looked_at_closer():
    x = np.array([0.1, 1.0, -2.0])
    right = 1e6 * np.cos(1e6 * x)
    report = check_gradient(lambda x: float(np.sin(1e6 * x).sum()), x, right)
    assert report
    assert "f varies within the step" in str(report)
    assert not check_gradient(lambda x: float(np.sin(1e6 * x).sum()), x, 1.1 * right)


def test_a_function_that_is_not_deterministic_is_told():
    random = np.random.default_rng(0)
    report = check_gradient(lambda x: random.random(), np.ones(3), np.ones(3))
    assert not report
    assert "not deterministic" in report.findings[0]


def test_a_gradient_that_is_not_deterministic_is_told():
    random = np.random.default_rng(0)
    x = np.array([1.0, 2.0, 3.0])
    report = check_gradient(squares, x, lambda x: 2 * x * random.random(3))
    assert not report
    assert "not deterministic" in report.findings[0]


def test_values_kept_from_an_earlier_call_are_told():
    x = np.array([1.0, 2.0, 3.0])
    kept = [np.zeros(3)]

    def f(x):
        kept[0] = x.copy()
        return squares(x)

    report = check_gradient(f, x, lambda x: 2 * kept[0])
    assert not report
    assert "right only after loss(x, t) was called" in report.findings[0]


def test_gradients_that_add_up_over_calls_are_told():
    x = np.array([1.0, 2.0, 3.0])
    total = np.full(3, 0.5)

    def gradient(x):
        nonlocal total
        total = total + 2 * x
        return total

    report = check_gradient(squares, x, gradient)
    assert not report
    assert "each call adds the right gradient to what the last one left" in report.findings[0]


def test_float32_is_judged_by_its_own_precision():
    x, t = faulty_batch()
    net = LayeredNet([9, 7, 7], "sigmoid", dtype=np.float32)
    report = check_gradient(net, x=x.astype(np.float32), t=t)
    assert report
    assert "it computes in float32" in str(report)


def test_float32_inside_of_f_is_found_out():
    x = np.random.default_rng(0).normal(size=5)
    report = check_gradient(lambda x: float(np.exp(x.astype(np.float32)).sum()), x, np.exp(x))
    assert report
    assert "it computes in float32" in str(report)


@pytest.mark.parametrize(("h", "words"), [(1.0, "is too large for f"), (1e-13, "the round-off")])
def test_an_unfit_step_is_named_with_a_better_one(h, words):
    x = np.random.default_rng(0).normal(size=5)
    report = check_gradient(lambda x: float(np.exp(x).sum()), x, np.exp(x), h=h)
    assert report
    assert words in str(report)
    better = float(str(report).rpartition("pass h=")[2].rstrip("."))
    again = check_gradient(lambda x: float(np.exp(x).sum()), x, np.exp(x), h=better)
    assert again
    assert "not seen" not in str(again)


def test_it_is_said_where_differences_are_0_because_f_is_rounded():
    # The spacing of doubles at 1e15 is 1/8: squares of small numbers do not change the sum.
    report = check_gradient(lambda x: 1e15 + (x**2).sum(), np.array([1.0, 2.0]), [9.0, 4.0])
    assert report
    assert "are not seen: the round-off of f" in str(report)


def test_rtol_accepts_small_errors_only():
    x = np.array([1.0, 2.0])
    assert not check_gradient(squares, x, 2 * x * (1 + 1e-6))
    assert check_gradient(squares, x, 2 * x * (1 + 1e-6), rtol=1e-5)
    assert not check_gradient(squares, x, 2 * x * (1 + 1e-4), rtol=1e-5)


def test_a_small_error_without_a_net_hints_at_the_logarithm():
    x, t = faulty_batch()
    net = LayeredNet([9, 7, 7], "sigmoid")
    W, right = net.params["W1"], net.gradient(x, t)["W1"]
    # What a function computes inside of it, no one can find: here the net is in a list.
    hidden = [net]
    report = check_gradient(lambda W: hidden[0].loss(x, t), W, right)
    assert not report
    assert "gone where the loss is checked without it" in report.findings[0]
    p = np.arange(len(x)), t
    assert check_gradient(lambda W: -np.mean(np.log(softmax(net.predict(x))[p])), W, right)


def test_the_net_behind_a_function_is_found():
    x, t = faulty_batch()
    net = LayeredNet([9, 7, 7], "sigmoid")
    W, right = net.params["W1"], net.gradient(x, t)["W1"]
    for fast in (False, True):
        report = check_gradient(lambda W: net.loss(x, t), W, right, fast=fast)
        assert report
        assert "but for the 1e-07" in str(report)
        assert not check_gradient(lambda W: net.loss(x, t), W, right * 1.0001, fast=fast)


def test_nan_in_the_gradient_is_named():
    x = np.array([1.0, 2.0])
    report = check_gradient(squares, x, np.array([2.0, np.nan]))
    assert not report
    assert report.findings == ("x: x[1] is nan.",)


@pytest.mark.filterwarnings("ignore:the difference quotient:RuntimeWarning")
def test_f_that_is_not_finite_is_named():
    report = check_gradient(lambda x: float("nan"), np.ones(2), np.ones(2))
    assert not report
    assert "f is nan at x" in report.findings[0]
    x = np.array([0.5, 1.0])
    report = check_gradient(lambda v: 1.0 if v[0] == 0.5 else np.nan, x, np.ones(2))
    assert not report
    assert "not finite within the step 0.0001 of x[0]: pass a smaller h" in report.findings[0]


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize(
    ("f", "slope"),
    [
        (lambda v: float(np.sqrt(v).sum()), lambda v: 0.5 / np.sqrt(v)),
        (lambda v: float(np.log(v).sum()), lambda v: 1 / v),
        (lambda v: math.log(v[0]) + math.log(v[1]), lambda v: 1 / v),
        (lambda v: float((v * np.sqrt(v)).sum()), lambda v: 1.5 * np.sqrt(v)),
    ],
)
def test_a_domain_that_ends_beside_x_is_kept_to(f, slope, fast):
    """Nan, or a ValueError of math.log, is what f has there; no warning of NumPy's either."""
    x = np.array([1e-5, 1.0])
    assert check_gradient(f, x, slope(x), fast=fast)
    assert not check_gradient(f, x, slope(x) * [1.0001, 1.0], fast=fast)
    assert slope_test(f, x, slope(x))
    assert not slope_test(f, x, slope(x) * [1.001, 1.0])


def test_empty_arrays_have_nothing_to_check():
    report = check_gradient(lambda x: 1.0, np.zeros((0, 3)), np.zeros((0, 3)))
    assert report
    assert "no elements" in str(report)
    assert check_gradient(lambda x: 1.0, {}, {})


def test_single_numbers_and_fortran_order_are_checked():
    assert check_gradient(lambda x: x[()] ** 2, np.array(3.0), np.array(6.0))
    x = np.asfortranarray(np.random.default_rng(0).normal(size=(3, 4)))
    weights = np.arange(12.0).reshape(3, 4)
    assert check_gradient(lambda x: float((weights * x**2).sum()), x, 2 * weights * x)


def test_the_report_is_frozen():
    report = check_gradient(squares, np.ones(2), 2 * np.ones(2))
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.right = False
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.rows[0].verdict = "wrong"


def test_fast_checks_of_many_parameters_call_f_less_than_100_times():
    x = np.random.default_rng(0).normal(size=100_000)
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        return float(np.tanh(x).sum() / 1000)

    gradient = (1 - np.tanh(x) ** 2) / 1000
    report = check_gradient(f, x, gradient, fast=True)
    assert report
    assert calls < 100
    assert report.evaluations <= calls


def test_kinks_within_the_step_are_cleared_together():
    """Of many samples and units some are at a kink within 1e-4, each for all of its inputs."""
    random = np.random.default_rng(0)
    net = LayeredNet([20, 40, 30, 7], "relu")
    x, t = random.normal(size=(200, 20)), random.integers(0, 7, 200)
    report = check_gradient(net, x=x, t=t)
    assert report
    assert "elements are where f varies within the step" in str(report)
    assert report.evaluations < 300  # a closer look takes some 50 for each element
    wrong = net.gradient(x, t)
    wrong["W1"][3, 2] *= 1.01
    report = check_gradient(net, x=x, t=t, gradient=wrong)
    assert "only W1[3, 2] is wrong" in str(report)


def given(**arguments):
    return arguments


REFUSED = [
    (
        given(f=3, x=np.ones(2), gradient=np.ones(2)),
        TypeError,
        "f is a int, which cannot be called",
    ),
    (given(f=squares, x=np.ones(2)), TypeError, "gradient is missing"),
    (given(f=squares, x=np.ones(2), gradient=np.ones(2), t=1), TypeError, "t is given, but f"),
    (given(f=squares, x=np.ones(2, int), gradient=np.ones(2)), TypeError, "x has dtype int"),
    (given(f=squares, x=np.ones(2), gradient=np.ones(2), h=-1), ValueError, "h is -1"),
    (given(f=squares, x=np.ones(2), gradient=np.ones(2), rtol=-1), ValueError, "rtol is -1"),
    (given(f=squares, x=np.ones(2), gradient=np.ones(2), rtol="a"), TypeError, "rtol is 'a'"),
    (given(f=squares, x=np.ones(2), gradient=np.ones(2), args=3), TypeError, "args is a int"),
    (given(f=squares, x=np.ones(2), gradient=np.ones(2), engine="x"), ValueError, "engine is 'x'"),
    (given(f=LayeredNet([2, 2]), x=np.ones(2)), TypeError, "but t is missing"),
    (given(f=LayeredNet([2, 2]), t=np.ones(2)), TypeError, "but x is missing"),
]


@pytest.mark.parametrize(("arguments", "error", "words"), REFUSED)
def test_unusable_arguments_are_refused_by_name(arguments, error, words):
    with pytest.raises(error, match=words):
        check_gradient(**arguments)


def test_nets_without_a_gradient_or_a_dict_of_parameters_are_refused():
    class Net:
        params: object = {"W": np.ones(2)}

        def loss(self, x, t):
            return 0.0

    net = Net()
    with pytest.raises(TypeError, match=r"without a method gradient\(x, t\)"):
        check_gradient(net, x=np.ones((1, 2)), t=np.ones(1))
    net.params = np.ones(2)
    net.gradient = None
    with pytest.raises(TypeError, match=r"f.params is a ndarray"):
        check_gradient(net, x=np.ones((1, 2)), t=np.ones(1), gradient=np.ones(2))


def test_what_is_wrong_at_kinks_beside_them_and_at_huge_values_is_found():
    def absolute(v):
        return float(abs(v).sum())

    for fast in (False, True):
        assert not check_gradient(absolute, np.zeros(4), np.full(4, 2.0), fast=fast)
        assert not check_gradient(np.linalg.norm, np.zeros(3), np.full(3, 5.0), fast=fast)
        for size in (1e308, 1e-300):
            x = np.array([0.3, 0.5])
            right = size * np.cos(x) / 4

            def waves(v, size=size):
                return float(size * np.sin(v).sum() / 4)

            assert check_gradient(waves, x, right, fast=fast)
            assert not check_gradient(waves, x, 1.001 * right, fast=fast)
    for place, analytic in ((1e-4, 3.3), (4e-5, 3.01), (4e-5, 2.467)):
        x = np.array([place, 1.0])
        assert not check_gradient(lambda v: abs(v[0]) + 2 * v[0] + v[1] ** 2, x, [analytic, 2.0])
        assert check_gradient(lambda v: abs(v[0]) + 2 * v[0] + v[1] ** 2, x, [3.0, 2.0])


def test_elements_at_kinks_are_not_counted_as_wrong_beside_wrong_ones():
    x = np.array([0.0, 1e-5, 0.7, -0.4, 0.2])
    gradient = np.array([0.0, 1.0, 1.0, -1.0, 1.5])
    report = check_gradient(lambda v: float(abs(v).sum()), x, gradient)
    assert not report
    assert "only x[4] is wrong" in str(report)


def test_each_element_has_a_step_that_it_can_hold():
    for x in (np.array([1e10, 1.0]), np.array([1e200, -3e200])):
        w = np.array([1.0, 2.0])
        assert check_gradient(lambda v: v[0] + 2 * v[1], x, w)
        assert not check_gradient(lambda v: v[0] + 2 * v[1], x, w * [1.0001, 1])


@pytest.mark.parametrize("check", [check_gradient, slope_test])
def test_f_that_returns_an_array_is_refused_where_nothing_can_be_moved_either(check):
    with pytest.raises(ValueError, match="must return a single number"):
        check(lambda x: np.zeros(2), np.empty(0), np.empty(0))


@pytest.mark.parametrize("option", ["rtol", "max_seconds"])
def test_whole_numbers_that_no_float_holds_are_refused(option):
    with pytest.raises(ValueError, match=option):
        check_gradient(lambda x: (x**2).sum(), np.ones(2), 2 * np.ones(2), **{option: 10**400})


@pytest.mark.parametrize("fast", [False, True])
def test_in_float32_noise_at_a_smaller_step_clears_no_wrong_gradient(fast):
    """Elements of 3e-3: at the smaller step what rounds f is as large as they are."""
    x = {"W": np.linspace(-1, 1, 100).astype(np.float32), "b": np.float32([0.5])}
    report = check_gradient(
        lambda p: np.float32(2) + np.float32(3e-3) * np.sin(p["W"]).sum() + np.sin(p["b"][0]),
        x,
        lambda p: {"W": np.zeros_like(p["W"]), "b": np.cos(p["b"])},
        fast=fast,
    )
    assert not report


class DotNet:
    """A net that calls methods of its batch, a plain array, as many courses write it."""

    def __init__(self):
        random = np.random.default_rng(0)
        self.params, self.calls = {"W": random.normal(size=(30, 8)), "b": random.normal(size=8)}, 0

    def loss(self, x, t):
        self.calls += 1
        self.h = np.tanh(x.dot(self.params["W"]) + self.params["b"])
        return np.mean((self.h - t) ** 2)

    def gradient(self, x, t):
        self.loss(x, t)
        dz = 2 * (self.h - t) / t.size * (1 - self.h**2)
        return {"W": x.T.dot(dz), "b": dz.sum(axis=0)}


def test_a_net_that_calls_methods_of_its_batch_is_traced(cheap_functions_traced):
    random = np.random.default_rng(1)
    x, t = random.normal(size=(9, 30)), random.normal(size=(9, 8))
    net = DotNet()
    assert check_gradient(net, x=x, t=t)
    assert net.calls < 2 * 30 * 8  # as many as one loop
