"""A check ends when its time is over, and says what was compared and what was not."""

import numpy as np
import pytest

from benchmarks.cases.backward import LayeredNet, faulty_batch
from fastgrad import check_gradient
from fastgrad.checking.check import Comparison
from fastgrad.checking.noise import measure_noise
from fastgrad.checking.subject import as_gradient_under_test


class Clock:
    """Time that goes by one second with each call of f."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr("fastgrad.jit.interrupts.time.monotonic", lambda: self.now)

    def slow(self, f):
        def called(x):
            self.now += 1
            return f(x)

        return called


def squares(x):
    return float((x**2).sum() / 2)


@pytest.mark.parametrize("seconds", [300, 1e9])
def test_a_right_gradient_is_right_whether_time_suffices_or_not(monkeypatch, seconds):
    x = np.random.default_rng(0).normal(size=400)
    before, clock = x.tobytes(), Clock(monkeypatch)
    report = check_gradient(clock.slow(squares), x, x.copy(), engine="loop", max_seconds=seconds)
    assert report
    assert x.tobytes() == before
    if seconds == 300:
        assert clock.now < 320
        assert "Time was over before all elements were compared: only" in str(report)
        assert "of x's 400" in str(report)
        assert "right along random directions" in report.summary
    else:
        assert "Time" not in str(report)


def test_a_wrong_gradient_is_wrong_though_time_is_over(monkeypatch):
    x = np.random.default_rng(0).normal(size=400)
    wrong = x.copy()
    wrong[7] += 0.01
    report = check_gradient(
        Clock(monkeypatch).slow(squares), x, wrong, engine="loop", max_seconds=300
    )
    assert not report


def test_what_cannot_be_told_in_time_is_neither_right_nor_wrong(monkeypatch):
    """Many kinks at x, of a gradient that cannot be asked again: directions tell nothing."""
    x, clock = np.zeros(4000), Clock(monkeypatch)
    f = clock.slow(lambda v: float(abs(v).sum()))
    report = check_gradient(f, x, np.full(4000, 0.3), engine="loop", fast=True, max_seconds=200)
    assert clock.now < 300
    assert not report
    assert "before the gradient was found right or wrong" in report.summary


@pytest.mark.parametrize("fast", [False, True])
def test_a_gradient_that_adds_up_is_wrong_though_time_is_over(monkeypatch, fast):
    x, left = np.random.default_rng(0).normal(size=400), [0.0]

    def adding(v):
        left[0] = left[0] + v
        return left[0]

    f = Clock(monkeypatch).slow(squares)
    report = check_gradient(f, x, adding, engine="loop", fast=fast, max_seconds=300)
    assert not report
    assert "set the gradients to zero before they are summed" in report.findings[0]


@pytest.mark.parametrize(
    ("seconds", "error"), [(0, ValueError), ("a", TypeError), (True, TypeError)]
)
def test_max_seconds_is_a_positive_number(seconds, error):
    with pytest.raises(error, match="max_seconds is"):
        check_gradient(squares, np.ones(2), np.ones(2), max_seconds=seconds)


def test_units_at_a_kink_leave_a_fast_check_fast():
    """Blank samples and biases of 0: all units are exactly at 0, where no direction tells."""
    x, t = faulty_batch()
    x[:4] = 0
    net = LayeredNet([9, 40, 7], "relu")
    net.params["b1"][...] = 0
    report = check_gradient(net, x=x, t=t, fast=True)
    assert report
    assert "points next to x" in report.summary
    assert report.evaluations < 150


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("seconds", [3, 20, 45, 100])
@pytest.mark.parametrize("name", ["smooth", "kinks", "wrong"])
def test_no_stage_of_a_check_takes_longer_than_is_granted(monkeypatch, name, seconds, fast):
    """Measuring noise, random directions, their explanation, single elements: f takes a second."""
    f, gradient = {
        "smooth": (squares, lambda x: x.copy()),
        "kinks": (lambda x: float(abs(x).sum()), np.sign),
        "wrong": (squares, lambda x: 1.01 * x),
    }[name]
    x = np.zeros(60) if name == "kinks" else np.random.default_rng(0).normal(size=60)
    clock = Clock(monkeypatch)
    report = check_gradient(clock.slow(f), x, gradient, fast=fast, max_seconds=seconds)
    assert clock.now <= 1.1 * seconds + 1
    assert not (report and name == "wrong")
    if report and "along random directions" not in report.summary:
        assert [row.verdict for row in report.rows] == ["right"]
    elif not report and name != "wrong":
        assert "Time was over" in str(report)
        assert "gradient is wrong" not in report.summary


@pytest.mark.parametrize("fault", [1.0, 1.01])
def test_single_elements_may_leave_out_the_number_under_the_logarithm(fault):
    random = np.random.default_rng(0)
    net = LayeredNet([4, 3, 3], "sigmoid")
    for array in net.params.values():
        array *= 100  # probabilities so small that the 1e-7 shows
    x, t = random.normal(size=(5, 4)), random.integers(0, 3, 5)
    gradient = net.gradient

    def spoiled(x, t):
        found = gradient(x, t)
        found["b2"] = found["b2"] * fault
        return found

    net.gradient = spoiled
    subject = as_gradient_under_test(net, x, t, None, (), "auto")
    noise = measure_noise(subject, None)
    comparison = Comparison(subject, noise, noise.step, 0.0, np.inf)
    report = comparison.of_some_elements(subject.parts, None)
    if fault == 1:
        assert "is wrong" not in report.summary
        assert "the 1e-07 that the loss adds" in str(report)
    else:
        assert "is wrong" in report.summary
