"""Elements compared one by one while time lasts, as far as these tests grant it: all of them."""

import numpy as np
import pytest

from benchmarks.cases.backward import LayeredNet
from fastgrad.checking.check import Comparison
from fastgrad.checking.noise import measure_noise
from fastgrad.checking.subject import as_gradient_under_test


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
