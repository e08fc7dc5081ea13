"""Gradients are excused by kinks at x and next to it, and by nothing else."""

import numpy as np
import pytest

from benchmarks.cases.backward import LayeredNet, faulty_batch
from fastgrad import check_gradient
from fastgrad.checking.numerical import excused_by, sides_of
from fastgrad.checking.subject import as_gradient_under_test

STEP = 2.0**-20
HIDDEN = np.full(1, 1e-9)

ALONG = {
    "kink": lambda t: np.where(t > 0, 3 * t, t),
    "kink next to x": lambda t: np.maximum(t, STEP / 2),
    "kink within the smaller step": lambda t: np.maximum(t, STEP / 20),
    "curve": lambda t: t + 1e5 * t**2,
    "jump": lambda t: np.where(t > 0, 1.0, 0.0),
    "root": lambda t: np.sqrt(abs(t)),
}


@pytest.mark.parametrize(
    ("name", "claim", "excused"),
    [
        *(("kink", claim, 1 <= claim <= 3) for claim in (0.99, 1.0, 2.5, 3.0, 3.01, -2.0)),
        *(("kink next to x", claim, claim == 0) for claim in (0.0, 0.01, -1.0, 1.0)),
        *(("kink within the smaller step", claim, claim == 0) for claim in (0.0, 0.01, 0.2, 1.0)),
        *(("curve", claim, claim == 1) for claim in (1.0, 1.001, 0.99)),
        *(("curve", 1 + slope * STEP / 8, False) for slope in (1e5, -1e5)),  # one side's quotient
        *((name, claim, False) for name in ("jump", "root") for claim in (1.0, 100.0, -1e5)),
    ],
)
def test_a_claim_is_excused_between_the_sides_of_a_kink_alone(name, claim, excused):
    quotients = []
    for step in (STEP, STEP / 8):
        below, here, above = ALONG[name](np.array([-step, 0.0, step]))
        quotients.append(np.array([[(here - below) / step, (above - here) / step]]))
    at_kink, next_to_kink = excused_by(*quotients, HIDDEN, np.array([claim]))
    assert bool(at_kink[0] | next_to_kink[0]) == excused
    assert not (at_kink[0] and name != "kink")


@pytest.mark.parametrize("count", [3, 40])
def test_both_sides_are_the_same_by_the_engine_and_by_calls(count):
    """A few elements are moved by calls of f, of many all by an engine."""
    x = np.random.default_rng(0).normal(size=40)
    x[::2] = 0
    subject = as_gradient_under_test(lambda v: float(abs(v).sum()), x, None, x, (), "auto")
    found = sides_of(subject, subject.parts[0], np.arange(count), STEP)
    expected = np.where((x == 0)[:, np.newaxis], [-1.0, 1.0], np.sign(x)[:, np.newaxis])
    # The rounding of f, 32 to a few units of 4e-15, over the step.
    assert np.allclose(found, expected[:count], rtol=0, atol=1e-14 / STEP)
    halved = sides_of(subject, subject.parts[0], np.arange(count), STEP, expected.mean(axis=1))
    assert np.allclose(halved, expected[:count], rtol=0, atol=3e-14 / STEP)


def relu_net():
    """Return a net whose biases are all at kinks: two thirds of its samples are blank."""
    x, t = faulty_batch()
    x[:5] = 0
    net = LayeredNet([9, 40, 7], "relu")
    net.params["b1"][...] = 0
    return net, x, t


def test_many_elements_at_kinks_cost_few_calls_each():
    net, x, t = relu_net()
    report = check_gradient(net, x=x, t=t)
    assert report
    assert "at a kink of f" in str(report)
    # Those that measure noise, and two small steps to either side of each of the 40 biases.
    assert report.evaluations < 60 + 5 * 40


@pytest.mark.parametrize("place", [0, 17])
def test_a_fault_among_elements_at_kinks_is_found(place):
    net, x, t = relu_net()
    gradient = net.gradient(x, t)
    size = abs(gradient["b1"]).max()
    gradient["b1"][place] += 3 * size
    report = check_gradient(net, x=x, t=t, gradient=gradient)
    assert not report
    assert f"b1[{place}]" in str(report)
