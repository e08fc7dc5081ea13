"""Are the derivatives of the benchmarks' functions right? Compared with mpmath's own."""

import mpmath
import numpy as np
import pytest

from benchmarks.cases.suite import FUNCTIONS, Function, drawn, published


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
