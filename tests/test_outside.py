"""Where f is not defined on one side of x, the derivative is that of the other side, and named."""

import numpy as np
import pytest
from counting import counted

from fastgrad import jacobian, numerical_gradient, schemes

EDGE = np.array([0.0, 4.0, 1.0])


def by_nan(x):
    if x[0] < 0 or x[2] > 1:
        return np.nan
    return np.exp(x[0]) + np.sqrt(x[1]) + np.exp(x[2])


def by_exception(x):
    if x[0] < 0:
        raise ZeroDivisionError("below")
    if x[2] > 1:
        raise ValueError("above")
    return float(by_nan(x))


OUTSIDE = (ValueError, ZeroDivisionError)


@pytest.mark.parametrize("f", [by_nan, by_exception])
@pytest.mark.parametrize(
    "options",
    [{}, {"h": 1e-6}, {"h": "auto"}, {"h": np.full(3, 1e-5)}, {"scheme": schemes.central(4)}],
)
def test_the_other_side_gives_the_derivative(f, options):
    x = EDGE.copy()
    with pytest.warns(RuntimeWarning, match=r"one side of x\[0\], the first of 2 such elements"):
        result = numerical_gradient(f, x, outside=OUTSIDE, **options)
    # One-sided quotients of order 2: h**2 / 3 times third derivatives, at a step of 1e-4.
    np.testing.assert_allclose(result, [1, 0.25, np.e], rtol=0, atol=2e-8)
    assert x.tobytes() == EDGE.tobytes()


def test_structures_and_arrays():
    x = {"a": EDGE[:1].copy(), "b": EDGE[1:].copy()}

    def f(x):
        return by_exception(np.concatenate([x["a"], x["b"]]))

    with pytest.warns(RuntimeWarning) as said:
        result = numerical_gradient(f, x, outside=OUTSIDE)
    assert ["x['a'][0]" in str(w.message) or "x['b'][1]" in str(w.message) for w in said] == [
        True
    ] * 2
    assert np.isfinite(result["a"]).all()
    with pytest.warns(RuntimeWarning, match=r"one side of x\[0\]"):
        J = jacobian(lambda x: np.array([by_exception(x), x[1]]), EDGE.copy(), outside=OUTSIDE)
    np.testing.assert_allclose(J, [[1, 0.25, np.e], [0, 1, 0]], rtol=0, atol=2e-8)


def test_no_other_call_is_made_where_f_is_defined():
    plain, guarded = (counted(lambda x: float((x**2).sum())) for _ in range(2))
    x = np.ones(3)
    assert (
        numerical_gradient(plain, x) == numerical_gradient(guarded, x, outside=ValueError)
    ).all()
    assert plain.calls == guarded.calls


def test_what_is_defined_on_no_side_stays_nan_with_the_warning():
    x = np.array([0.0, 1.0])
    with pytest.warns(RuntimeWarning, match=r"quotient at x\[0\] is nan"):
        result = numerical_gradient(lambda x: x[1] if x[0] == 0 else np.nan, x, outside=ValueError)
    assert np.isnan(result[0])


def test_other_exceptions_pass_and_bad_kinds_are_refused():
    with pytest.raises(ValueError, match="above"):
        numerical_gradient(by_exception, EDGE.copy(), outside=ZeroDivisionError)
    for outside in ("ValueError", ValueError("x"), (ValueError, 3), int, KeyboardInterrupt):
        with pytest.raises(TypeError, match="outside is"):
            numerical_gradient(by_nan, EDGE.copy(), outside=outside)


def test_automatic_steps_take_the_side_where_f_is_a_number_without_being_asked():
    def f(x):
        with np.errstate(invalid="ignore"):
            return (x * np.sqrt(x)).sum() + x.sum()

    x = np.array([0.0, 1.0])
    with pytest.warns(RuntimeWarning, match=r"one side of x\[0\]"):
        np.testing.assert_allclose(numerical_gradient(f, x, "auto"), [1, 2.5], rtol=1e-4)
    with pytest.warns(RuntimeWarning, match=r"one side of x\[0\]"):
        np.testing.assert_allclose(jacobian(f, x), [1, 2.5], rtol=1e-4)
    with pytest.warns(RuntimeWarning, match=r"quotient at x\[0\] is nan"):
        assert np.isnan(numerical_gradient(f, x)[0])  # as the book's loop has it
