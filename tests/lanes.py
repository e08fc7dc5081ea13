"""What tests of functions in lanes share."""

import numpy as np

from fastgrad import numerical_gradient
from fastgrad.jit import jitted


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).uniform(0.1, 2.0, shape)


def lanes_of(f):
    """Return the loop in lanes of a function that has been differenced; None if it has none."""
    (kept,) = vars(f)[jitted.LOOPS_ATTRIBUTE].values()
    return kept.lanes(f)


def require_same_bits(f, x, *, args=(), **options):
    """Compare the compiled loop with the plain one."""
    before = x.tobytes()
    result = numerical_gradient(f, x, args=args, engine="compiled", **options)
    expected = numerical_gradient(f, x, args=args, engine="loop", **options)
    assert result.tobytes() == expected.tobytes()
    assert x.tobytes() == before


def require_lanes(f):
    """Require that a function that has been differenced was evaluated in lanes."""
    loop = lanes_of(f)
    assert loop is not None
    assert loop._compared
    assert not loop._differs
