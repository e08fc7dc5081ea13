"""Where f is not defined on one side of x, the derivative is that of the other side, and named."""

import warnings
from functools import partial

import numpy as np
import pytest
from counting import counted

from fastgrad import (
    Gradient,
    Hessian,
    Jacobian,
    check_gradient,
    check_jacobian,
    differentiate,
    directional_derivative,
    hessian,
    hessian_vector_product,
    jacobian,
    numerical_gradient,
    schemes,
    vector_jacobian_product,
)

EDGE = np.array([0.0, 4.0, 1.0])
V = np.array([1.0, 1.0, -1.0])
"""A direction that leads inside."""

SLOPES = np.array([1, 0.25, np.e])
CURVATURES = np.diag([1, -1 / 32, np.e]) + 0.0


def by_nan(x):
    if x[0] < 0 or x[2] > 1:
        return np.nan
    return np.exp(x[0]) + np.sqrt(x[1]) + np.exp(x[2]) + x[0] * (x[2] - 1)


def by_exception(x):
    if x[0] < 0:
        raise ZeroDivisionError("below")
    if x[2] > 1:
        raise ValueError("above")
    return float(by_nan(x))


def of_a_stack(stack):
    return np.array([by_exception(x) for x in stack])


def array_by_exception(x):
    return np.array([by_exception(x), x[1]])


CURVATURES[0, 2] = CURVATURES[2, 0] = 1.0
OUTSIDE = (ValueError, ZeroDivisionError)
ALL = {"outside": OUTSIDE}
ONE_SIDE = r"one side of x\[0\], the first of 2 such elements"


@pytest.mark.parametrize("f", [by_nan, by_exception])
@pytest.mark.parametrize(
    "options",
    [{}, {"h": 1e-6}, {"h": "auto"}, {"h": np.full(3, 1e-5)}, {"scheme": schemes.central(4)}],
)
def test_the_other_side_gives_the_derivative(f, options):
    x = EDGE.copy()
    with pytest.warns(RuntimeWarning, match=ONE_SIDE):
        result = numerical_gradient(f, x, outside=OUTSIDE, **options)
    # One-sided quotients of order 2: h**2 / 3 times third derivatives, at a step of 1e-4.
    np.testing.assert_allclose(result, SLOPES, rtol=0, atol=2e-8)
    assert x.tobytes() == EDGE.tobytes()


DERIVATIVES = {
    "jacobian": (partial(jacobian, array_by_exception), [SLOPES, [0, 1, 0]]),
    "jacobian vectorized": (partial(jacobian, of_a_stack, vectorized=True), SLOPES),
    "jacobian workers": (partial(jacobian, by_exception, h=1e-5), SLOPES),
    "gradient vectorized": (partial(numerical_gradient, of_a_stack, vectorized=True), SLOPES),
    "product": (
        lambda x, **o: vector_jacobian_product(array_by_exception, x, np.array([1.0, 2.0]), **o),
        np.array([0, 2, 0]) + SLOPES,
    ),
    "Gradient": (lambda x, **o: Gradient(by_exception, **o)(x), SLOPES),
    "Jacobian": (lambda x, **o: Jacobian(by_exception, **o)(x), SLOPES),
    "differentiate": (lambda x, **o: differentiate(by_exception, x, **o).gradient, SLOPES),
    "differentiate arrays": (
        lambda x, **o: differentiate(array_by_exception, x, **o).gradient,
        [SLOPES, [0, 1, 0]],
    ),
}
SECOND = {
    "hessian": (partial(hessian, by_exception), CURVATURES),
    "hessian nan": (partial(hessian, by_nan, h=1e-3), CURVATURES),
    "hessian vectorized": (partial(hessian, of_a_stack, vectorized=True), CURVATURES),
    "hessian forward": (partial(hessian, by_exception, scheme="forward", h=1e-6), CURVATURES),
    "Hessian": (lambda x, **o: Hessian(by_exception, **o)(x), CURVATURES),
    "order 2": (lambda x, **o: differentiate(by_exception, x, order=2, **o).gradient, CURVATURES),
    "diagonal": (
        lambda x, **o: differentiate(by_nan, x, order=2, diagonal=True, **o).gradient,
        CURVATURES.diagonal(),
    ),
    "product": (lambda x, **o: hessian_vector_product(by_exception, x, V, **o), CURVATURES @ V),
    "Hessian.product": (lambda x, **o: Hessian(by_nan, **o).product(x, V), CURVATURES @ V),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_so_in_all_first_derivatives(name):
    derive, exact = DERIVATIVES[name]
    x, options = EDGE.copy(), {"workers": map} if "workers" in name else {}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        np.testing.assert_allclose(derive(x, outside=OUTSIDE, **options), exact, rtol=0, atol=3e-8)
    about = [str(each.message) for each in said if "one side of" in str(each.message)]
    assert len(about) == 1
    assert "x[0], the first of 2 such elements" in about[0]
    assert {each.filename for each in said} == {__file__}
    assert x.tobytes() == EDGE.tobytes()


@pytest.mark.parametrize("name", SECOND)
def test_so_in_all_second_derivatives(name):
    derive, exact = SECOND[name]
    x = EDGE.copy()
    with pytest.warns(RuntimeWarning, match=r"one side of x"):
        found = derive(x, outside=OUTSIDE)
    # Half of the digits at best, and one-sided: of the forward scheme a fifth, at a step of 1e-6
    # by 4 eps abs(f) / h**2 = 5e-3.
    atol = 2e-2 if "forward" in name else 1e-5
    np.testing.assert_allclose(found, exact, rtol=0, atol=atol)
    assert x.tobytes() == EDGE.tobytes()


@pytest.mark.parametrize("derive", [numerical_gradient, jacobian, differentiate])
def test_workers_are_believed_where_the_domain_ends(derive):
    x, calls = np.repeat([0.0, 1.0, 0.5], 4)[::-1].copy(), []

    def f(x):
        if (x < 0).any() or (x > 1).any():
            raise ArithmeticError
        return float(np.exp(x).sum())

    def counting_map(function, items):
        calls.append(len(items))
        return map(function, items)

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = derive(f, x, 1e-4, workers=counting_map, outside=ArithmeticError)
    assert ["one side of x[" in str(each.message) for each in said] == [True]
    assert calls
    gradient = found.gradient if derive is differentiate else found
    np.testing.assert_allclose(gradient, np.exp(x), rtol=1e-7)  # h**2 / 3


def test_a_corner_of_the_domain_between_two_axes_is_left_for_mixed_derivatives():
    def f(x):
        if x[0] * x[1] < 0:
            raise ArithmeticError
        return x[0] ** 2 * x[1] + 3 * x[0] * x[1]

    with pytest.warns(RuntimeWarning, match=ONE_SIDE):
        found = hessian(f, np.zeros(2), 1e-3, outside=ArithmeticError)
    # One-sided differences of order 2 are exact for polynomials of degree 2 in each element.
    np.testing.assert_allclose(found, [[0, 3], [3, 0]], atol=1e-8)


def test_a_line_that_leads_outside_on_one_side():
    x = EDGE.copy()
    for h in ("auto", 1e-5):
        with pytest.warns(RuntimeWarning, match="one side of x along v:"):
            slope = directional_derivative(by_exception, x, V, h, outside=OUTSIDE)
        assert abs(slope - SLOPES @ V) < 1e-8
    with pytest.raises(ValueError, match="neither side of x along v:"):
        directional_derivative(by_exception, x, np.ones(3), outside=OUTSIDE)
    assert x.tobytes() == EDGE.tobytes()


def roots(x):
    if (x < 0).any() or (x > 1).any():
        raise ArithmeticError("outside of [0, 1]")
    return x * np.sqrt(x) + np.append(x[1:] ** 2, 0)


ENDS = np.array([0.0, 0.5, 1.0, 0.0, 1.0, 0.25, 1.0, 0.0, 0.75])
STRUCTURE = np.eye(9) + np.eye(9, k=1)


@pytest.mark.parametrize("stacked", [False, True])
def test_groups_of_columns_are_outside_element_by_element(stacked):
    pytest.importorskip("scipy")
    f = (lambda stack: np.array([roots(x) for x in stack])) if stacked else roots
    x, options = ENDS.copy(), {"vectorized": stacked, "outside": ArithmeticError}
    exact = np.diag(1.5 * np.sqrt(ENDS)) + np.diag(2 * ENDS[1:], 1)
    with pytest.warns(RuntimeWarning, match=r"one side of x\[0\], the first of 6 such elements"):
        found = jacobian(f, x, 1e-6, sparsity=STRUCTURE, **options)
    # At 0 the quotient of x**1.5 is 0.6 times the root of the step.
    np.testing.assert_allclose(found.toarray(), exact, rtol=0, atol=1e-3)
    missing = STRUCTURE.copy()
    missing[3, 4] = 0  # at the upper end, in a group with elements at the lower one
    with (
        pytest.warns(RuntimeWarning, match="one side"),
        pytest.raises(ValueError, match=r"element 3 of f\(x\) does not depend on x\[4\]"),
    ):
        jacobian(f, x, 1e-6, sparsity=missing, **options)
    assert x.tobytes() == ENDS.tobytes()


def test_elements_are_outside_one_by_one_where_all_are_moved_at_once():
    def f(x):
        return np.array([a * np.sqrt(b) for a, b in zip(x, map(root_of, x), strict=True)])

    def root_of(value):
        if not 0 <= value <= 1:
            raise ArithmeticError
        return value

    for options in ({"h": 1e-6}, {"h": "auto"}):
        with pytest.warns(RuntimeWarning, match="the first of 6 such elements"):
            found = numerical_gradient(
                f, ENDS, elementwise=True, outside=ArithmeticError, **options
            )
        np.testing.assert_allclose(found, 1.5 * np.sqrt(ENDS), rtol=0, atol=5e-3)
    with pytest.warns(RuntimeWarning, match="the first of 6 such elements"):
        found = differentiate(f, ENDS, elementwise=True, outside=ArithmeticError)
    assert (abs(found.gradient - 1.5 * np.sqrt(ENDS)) <= found.error).all()


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


def test_no_other_call_is_made_where_f_is_defined():
    plain, guarded = (counted(lambda x: float((x**2).sum())) for _ in range(2))
    x = np.ones(3)
    assert (
        numerical_gradient(plain, x) == numerical_gradient(guarded, x, outside=ValueError)
    ).all()
    assert (hessian(plain, x, 1e-3) == hessian(guarded, x, 1e-3, outside=ValueError)).all()
    assert plain.calls == guarded.calls


def test_what_is_defined_on_no_side_is_refused_and_nan_without_the_option():
    def f(x):
        return x[1] if x[0] == 0 else np.nan

    x = np.array([0.0, 1.0])
    for derive in (numerical_gradient, jacobian, hessian, differentiate):
        with pytest.raises(ValueError, match=r"f is defined on neither side of x\[0\]: it raises"):
            derive(f, x, outside=ValueError)
    with pytest.warns(RuntimeWarning, match=r"quotient at x\[0\] is nan"):
        assert np.isnan(numerical_gradient(f, x)[0])
    with pytest.raises(ValueError, match="f is not defined at x itself, where it raises ZeroDiv"):
        jacobian(lambda x: 1 / 0, x, outside=ArithmeticError)
    with pytest.raises(ValueError, match=r"^v has shape \(2,\)"):  # no error of f's
        vector_jacobian_product(np.sin, np.ones(3), np.ones(2), outside=ValueError)


def test_arrays_without_elements_are_on_no_side():
    x = {"a": np.ones((0, 3)), "b": np.array([1.0, 2.0])}
    result = hessian_vector_product(lambda x: (x["b"] ** 3).sum(), x, x, outside=ValueError)
    assert result["a"].shape == (0, 3)
    np.testing.assert_allclose(result["b"], 6 * x["b"] ** 2, rtol=1e-6)  # half of the digits


def test_other_exceptions_pass_and_bad_kinds_are_refused():
    with pytest.raises(ValueError, match="above"):
        numerical_gradient(by_exception, EDGE.copy(), outside=ZeroDivisionError)
    for outside in ("ValueError", ValueError("x"), (ValueError, 3), int, KeyboardInterrupt):
        with pytest.raises(TypeError, match="outside is"):
            numerical_gradient(by_nan, EDGE.copy(), outside=outside)
        with pytest.raises(TypeError, match="outside is"):
            check_gradient(by_nan, EDGE.copy(), SLOPES, outside=outside)


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


def test_checks_take_the_side_where_f_is_defined():
    wrong = SLOPES * [1, 1, 1.01]
    with pytest.raises(ZeroDivisionError):
        check_gradient(by_exception, EDGE.copy(), SLOPES)
    for options in ({}, {"fast": True}):
        assert check_gradient(by_exception, EDGE.copy(), SLOPES, outside=OUTSIDE, **options)
        assert not check_gradient(by_exception, EDGE.copy(), wrong, outside=OUTSIDE, **options)
    rows = np.array([SLOPES, [0, 1, 0]])
    assert check_jacobian(array_by_exception, EDGE.copy(), rows, outside=OUTSIDE)
    report = check_jacobian(array_by_exception, EDGE.copy(), rows * [1, 1, 1.01], outside=OUTSIDE)
    assert report.summary == "The Jacobian is wrong: f(x)[0]."


def test_many_elements_at_the_edge_are_no_defect_of_what_records_f():
    x = np.random.default_rng(0).uniform(0.1, 1, 3000)
    x[:900] = 0

    def f(x):
        return float(np.where(x < 0, np.nan, np.exp(x)).sum())

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = numerical_gradient(f, x, outside=ValueError)
    np.testing.assert_allclose(found, np.exp(x), rtol=1e-7)
    assert not [each for each in said if "please report" in str(each.message)]
