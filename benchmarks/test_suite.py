"""The derivatives of the benchmarks' functions, compared with mpmath's own."""

import mpmath
import numpy as np
import pytest

from benchmarks.cases import vector_functions
from benchmarks.cases.suite import FUNCTIONS, Function, drawn, published
from benchmarks.cases.vector_functions import VectorFunction


@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.name)
def test_derivatives_are_those_of_the_functions(function: Function) -> None:
    for x in (*function.points, np.mean(function.domain) + 0.1 * np.diff(function.domain)[0]):
        value = function.f(np.longdouble(x))
        h = np.longdouble(1e-6) * max(abs(x), 0.001)
        slope = (function.f(x + h) - function.f(x - h)) / (2 * h)
        # Round-off is eps |f| / h; truncation h^2 |f'''| / 6, far below 1e-6 of the derivative.
        eps = float(np.finfo(np.longdouble).eps)
        tolerance = 8 * eps * abs(value) / h + 1e-6 * abs(function.exact(x))
        assert abs(slope - function.exact(x)) <= tolerance


@pytest.mark.parametrize("function", vector_functions.FUNCTIONS, ids=lambda function: function.name)
def test_jacobians_are_those_of_the_functions(function: VectorFunction) -> None:
    exact, tiny = function.exact, np.sqrt(np.finfo(np.longdouble).tiny)
    for j in range(function.x.size):
        x = function.x.astype(np.clongdouble)
        x[j] += 1j * tiny
        # Complex steps leave the rounding of f alone; eps of double precision is far above that.
        column = function.f(x).imag / tiny
        np.testing.assert_allclose(exact[:, j], column, 1e-15, 1e-17 * abs(exact).max())
    # Of a unit vector it is 0: what is left is the rounding of products that cancel each other.
    hessian = function.hessian_of_loss
    np.testing.assert_allclose(hessian, hessian.T, 1e-15, 1e-17 * abs(exact).max() ** 2)


def test_cases_are_seeded_and_inside_their_domains() -> None:
    first, second = list(drawn(3, 2)), list(drawn(3, 2))
    assert first == second
    assert len({str(case.function.name) for case in first}) == len(FUNCTIONS)
    for case in first:
        assert case.function.domain[0] <= case.x <= case.function.domain[1]
        assert np.isfinite(case.function.f(case.x))
        assert np.isfinite(case.exact)


def test_exact_derivatives_leave_mpmaths_precision_alone() -> None:
    before = mpmath.mp.dps
    assert next(published()).exact == pytest.approx(np.cos(1e-3))
    assert mpmath.mp.dps == before
