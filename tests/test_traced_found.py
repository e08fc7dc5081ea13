"""Functions that random search (tests/fuzz) found to be differenced wrongly, shortened."""

import numpy as np
import pytest

from fastgrad import numerical_gradient
from fastgrad.engines import loop, traced

EPS = float(np.finfo(np.float64).eps)
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(7, 4)).round(1)
W = RANDOM.normal(size=(4, 3))


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
