"""SciPy's `optimize._numdiff`, `approx_fprime` and `check_grad`: Jacobians by differences.

Answers to scipy/optimize/tests/test__numdiff.py, and to the tests of the two functions in
test_optimize.py.
"""

import numpy as np

from fastgrad import jacobian

from . import Case

PEER = "SciPy optimize"

METHODS = {"2-point": "forward", "3-point": "central", "cs": "complex"}


def cases():
    """Yield all."""
    for (method, scheme), rtol in zip(METHODS.items(), (1e-6, 1e-9, 1e-12), strict=True):
        yield Case(
            f"test_scalar_scalar: {method}",
            lambda scheme=scheme: jacobian(np.sinh, 1.0, scheme=scheme),
            np.cosh(1.0),
            rtol,
        )
