"""Functions of single elements are differentiated at all of them at once, others are refused."""

import numpy as np
import pytest
from counting import counted

from fastgrad import differentiate, numerical_gradient, schemes

X = np.linspace(0.1, 3, 12).reshape(3, 4)

FUNCTIONS = {
    "sin": (np.sin, np.cos),
    "exp": (np.exp, np.exp),
    "log": (np.log, lambda x: 1 / x),
    "power": (lambda x: x**3.5, lambda x: 3.5 * x**2.5),
    "wave": (lambda x: np.sin(50 * x), lambda x: 50 * np.cos(50 * x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_and_their_errors(name):
    f, slope = FUNCTIONS[name]
    x, count = X.copy(), counted(f)
    found = differentiate(count, x, elementwise=True)
    assert (abs(found.gradient - slope(X)) <= found.error).all()
    assert (found.error <= 1e-7 * abs(slope(X)).max()).all()
    assert found.evaluations == count.calls
    # At x twice, then at stacks: of seven steps, and of one or two more; the wave at smaller ones.
    assert found.evaluations <= (16 if name == "wave" else 5)
    assert found.engine == "elementwise"
    assert x.tobytes() == X.tobytes()
    single = differentiate(lambda x: f(x)[()], X.reshape(-1)[3:4].copy())
    np.testing.assert_allclose(found.gradient.reshape(-1)[3], single.gradient[0], rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "calls", "error"),
    [
        # Truncation by h**2 / 6, h / 2, h**4 / 30; rounding by eps / h.
        ({}, 2, 2e-9 * 20),
        ({"h": "auto"}, 2, 1e-9),
        ({"h": np.full(X.shape, 1e-5)}, 2, 1e-9),
        ({"scheme": "forward", "h": 1e-8}, 2, 1e-6),
        ({"scheme": schemes.central(4), "h": 1e-3}, 4, 1e-11),
        ({"scheme": "complex", "h": "auto"}, 1 + 6, 1e-14),  # six see whether f is analytic
        ({"bounds": (X, X + 1), "h": "auto"}, 4, 1e-6),
    ],
)
def test_as_many_calls_as_the_scheme_has_points(options, calls, error):
    f = counted(np.exp)
    x = X.copy()
    result = numerical_gradient(f, x, elementwise=True, **options)
    assert abs(result - np.exp(X)).max() < error * np.exp(3)
    assert f.calls <= calls + 2  # which see that it is elementwise
    assert x.tobytes() == X.tobytes()


def test_x_may_be_read_elsewhere_in_any_layout():
    x = np.linspace(0.1, 3, 40).reshape(5, 8)[::-2, ::3].T
    before = x.tobytes()
    result = numerical_gradient(lambda _: x**2, x, elementwise=True)
    np.testing.assert_allclose(result, 2 * x, rtol=1e-8)
    assert x.tobytes() == before


def test_single_precision_and_where_f_is_not_defined():
    found = differentiate(np.exp, X.astype(np.float32), elementwise=True)
    assert found.gradient.dtype == np.float32
    assert (abs(found.gradient - np.exp(X.astype(np.float32))) <= found.error).all()
    with np.errstate(all="ignore"):
        found = differentiate(np.sqrt, np.array([-1.0, 4.0]), elementwise=True)
    assert found.error[0] == np.inf or np.isnan(found.gradient[0])
    assert abs(found.gradient[1] - 0.25) <= found.error[1] < 1e-12


SCALES = np.arange(1.0, 13.0).reshape(3, 4)


def refuses_stacks(x):
    if x.ndim > 2:
        raise ValueError("x is not a matrix")
    return np.sin(x)


@pytest.mark.parametrize(
    ("f", "slope", "takes_stacks"),
    [
        (lambda x, _: SCALES * np.sin(x), SCALES * np.cos(X), True),
        (lambda x, _: np.sin(x) * np.arange(1.0, 1 + x.shape[-1]), None, True),
        # A stack is no x of another shape, and is not read elsewhere.
        (lambda x, _: np.arange(x.size).reshape(x.shape) * x, np.arange(12).reshape(3, 4), False),
        (lambda x, _: np.arange(len(x))[:, np.newaxis] * x, np.arange(3)[:, np.newaxis], False),
        (lambda x, here: x * here, 2 * X, False),
        (lambda _, here: here**2, 2 * X, False),
        (lambda x, _: refuses_stacks(x), np.cos(X), False),
    ],
)
def test_stacks_are_passed_where_they_give_the_values_of_single_points(f, slope, takes_stacks):
    x = X.copy()
    count = counted(lambda argument: f(argument, x))
    found = differentiate(count, x, elementwise=True)
    slope = np.cos(X) * np.arange(1.0, 5.0) if slope is None else slope
    assert (abs(found.gradient - slope) <= found.error).all()
    assert found.evaluations == count.calls
    assert (count.calls <= 5) == takes_stacks
    assert x.tobytes() == X.tobytes()


def test_many_elements_take_no_more_calls_than_few():
    f = counted(np.exp)
    x = np.linspace(0.1, 3, 2000)
    found = differentiate(f, x, elementwise=True)
    assert (abs(found.gradient - np.exp(x)) <= found.error).all()
    assert f.calls <= 5


@pytest.mark.parametrize("function", [numerical_gradient, differentiate])
def test_what_is_not_elementwise_is_refused(function):
    x = X.copy()
    with pytest.raises(ValueError, match=r"f\(x\)\[.*\] changes"):
        function(lambda x: x * x.sum(), x, elementwise=True)
    with pytest.raises(ValueError, match=r"f\(x\)\[.*\] changes"):
        function(lambda x: np.roll(x, 1), x, elementwise=True)
    with pytest.raises(ValueError, match=r"shape \(\), but with elementwise=True"):
        function(lambda x: x.sum(), x, elementwise=True)
    with pytest.raises(TypeError, match="complex"):
        function(lambda x: x * 1j, x, elementwise=True)
    assert x.tobytes() == X.tobytes()
    for options in ({"vectorized": True}, {"engine": "loop"}, {"workers": 2}):
        with pytest.raises(ValueError, match="elementwise is True"):
            function(np.sin, x, elementwise=True, **options)
    with pytest.raises(ValueError, match="elementwise is True"):
        function(lambda x: x["a"], {"a": x}, elementwise=True)
    with pytest.raises(TypeError, match="elementwise is 1"):
        function(np.sin, x, elementwise=1)


# Jacobians with errors ----------------------------------------------------------------------------


def system(x):
    return np.array([[np.exp(x[0] * x[1]), x[1] ** 3], [np.sin(x[0]), 2 * x[0] - x[1]]])


def systems_jacobian(x):
    a, b = x
    e = np.exp(a * b)
    return np.array([[[b * e, a * e], [0, 3 * b**2]], [[np.cos(a), 0], [2, -1]]])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"h": 0.1},
        {"scheme": schemes.central(4)},
        {"scheme": "forward"},
        {"scheme": "complex"},
        {"bounds": ([0.3, -5], [2, 5])},
        {"workers": lambda function, items: map(function, items)},
    ],
)
def test_an_array_has_a_jacobian_with_an_error_for_each_entry(options):
    x = np.array([0.3, 1.2])
    f = counted(system)
    found = differentiate(f, x, **options)
    exact = systems_jacobian(x)
    assert found.gradient.shape == found.error.shape == found.step.shape == (2, 2, 2)
    assert (abs(found.gradient - exact) <= found.error).all()
    assert (found.error < 1e-8).all()
    assert found.evaluations < 150
    assert x.tolist() == [0.3, 1.2]


def test_each_number_of_a_jacobian_is_that_of_the_number_alone():
    x = np.array([0.3, 1.2])
    found = differentiate(system, x)
    for i in np.ndindex(2, 2):
        alone = differentiate(lambda x, i=i: system(x)[i], x)
        np.testing.assert_allclose(found.gradient[i], alone.gradient, rtol=1e-13, atol=1e-14)
        np.testing.assert_allclose(found.error[i], alone.error, rtol=0.5, atol=1e-16)


def test_values_are_shared_by_the_numbers():
    f = counted(system)
    found = differentiate(f, np.array([0.3, 1.2]))
    alone = sum(
        differentiate(lambda x, i=i: system(x)[i], np.array([0.3, 1.2])).evaluations
        for i in np.ndindex(2, 2)
    )
    assert found.evaluations == f.calls
    assert found.evaluations < alone


def test_structures_stacks_and_arrays_of_one_number():
    x = {"a": np.array([0.3]), "b": np.array(1.2)}
    found = differentiate(lambda x: system([x["a"][0], x["b"]]), x)
    assert found.gradient["a"].shape == (2, 2, 1)
    assert found.gradient["b"].shape == (2, 2)
    exact = systems_jacobian(np.array([0.3, 1.2]))
    assert (abs(found.gradient["b"] - exact[..., 1]) <= found.error["b"]).all()
    found = differentiate(
        lambda s: np.array([system(x) for x in s]), np.array([0.3, 1.2]), vectorized=True
    )
    assert (abs(found.gradient - exact) <= found.error).all()
    assert differentiate(lambda x: x[:1] ** 2, np.array([1.0, 2.0])).gradient.shape == (2,)


def test_what_is_no_number_is_refused():
    with pytest.raises(TypeError, match="real numbers"):
        differentiate(lambda x: np.array(["a", "b"]), np.ones(2))


@pytest.mark.parametrize("kind", [np.float32, np.float64, int])
def test_each_element_is_compared_with_f_at_itself_whatever_type_f_returns(kind):
    def f(x):
        return (x**2).astype(kind)

    x = np.array([3.0, 5.0, 7.0])
    result = numerical_gradient(f, x, 0.5, scheme="forward", elementwise=True)
    # (x + h)**2 - x**2 = 2 x h + h**2, of whole numbers the part that is one.
    exact = np.floor(x + 0.25) if kind is int else x + 0.25
    np.testing.assert_array_equal(result, exact / 0.5)
