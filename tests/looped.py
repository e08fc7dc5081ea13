"""Judge gradients by the loop's, to the round-off of both."""

import numpy as np
from nets import EPS, H

from fastgrad import numerical_gradient
from fastgrad.engines import loop


def size_of(f, x):
    """Return what rounding is relative to: the loss, or what it is summed from."""
    return abs(float(f(x)))


def assert_the_loops(f, x, *, h=H, size=None, engine="auto"):
    """Check every element against the loop, to both sides' round-off."""
    before = x.tobytes("A")
    result = numerical_gradient(f, x, h, engine=engine)
    assert x.tobytes("A") == before
    expected = loop.gradient(f, x, h)
    assert x.tobytes("A") == before
    assert (result.shape, result.dtype, result.strides) == (x.shape, x.dtype, expected.strides)
    bound = 4 * EPS * (size_of(f, x) if size is None else size) / h
    deviation = np.abs(result - expected)
    assert deviation.max() <= bound, f"{deviation.max() / bound:.3g} times the bound"
    # The test must be able to fail: gradients are not lost in the bound.
    assert np.abs(expected).max() > 1e3 * bound
    return result


def assert_traced_as_looped(f, x):
    """Check every element of a traced gradient, of a net whose loss is about 1, with its step."""
    got = numerical_gradient(f, x, H, engine="traced")
    expected = loop.gradient(f, x, H)
    assert abs(got - expected).max() <= 8 * EPS * max(1, abs(f(x))) / H
    assert abs(expected).max() > 1e-3
    return got
