"""Dicts, lists and tuples of arrays are differentiated in place, each by itself."""

from fractions import Fraction
from typing import NamedTuple

import mpmath
import numpy as np
import pytest

from fastgrad import (
    TwoLayerNet,
    differentiate,
    directional_derivative,
    hessian,
    hessian_vector_product,
    jacobian,
    numerical_gradient,
)
from fastgrad.differences.arguments import is_structure, leaves, like


class Line(NamedTuple):
    slope: np.ndarray
    height: np.ndarray


def test_the_result_has_the_form_of_x():
    x = {
        "list": [np.ones(2), np.full((2, 1), 2.0)],
        "line": Line(np.array(3.0), np.array([4.0])),
        "nested": {"tuple": (np.array([5.0]),), "empty": {}},
        1: np.zeros((0, 3)),
    }

    def f(argument):
        assert argument is x
        parts = [np.sum(part**2) for _, part in leaves(argument)]
        return sum(parts)

    result = numerical_gradient(f, x)
    assert [name for name, _ in leaves(result)] == [name for name, _ in leaves(x)]
    assert type(result["line"]) is Line
    assert type(result["nested"]["tuple"]) is tuple
    assert result["nested"]["empty"] == {}
    for (_, gradient), (_, part) in zip(leaves(result), leaves(x), strict=True):
        assert gradient.shape == part.shape
        np.testing.assert_allclose(gradient, 2 * part, rtol=1e-8)


@pytest.mark.parametrize("x", [{}, [], (), {"a": []}])
def test_an_empty_structure_gives_an_empty_one_and_no_call(x):
    def refuse(x):
        raise AssertionError("called")

    for h in (1e-4, "auto"):
        assert numerical_gradient(refuse, x, h) == x


def test_a_networks_parameters_are_a_structure():
    np.random.seed(0)
    net = TwoLayerNet(4, 3, 2)
    x, t = np.random.rand(5, 4), np.array([0, 1, 1, 0, 1])
    before = net.params.buffer.copy()
    result = numerical_gradient(lambda params: net.loss(x, t), net.params, engine="loop")
    expected = net.numerical_gradient(x, t, engine="loop")
    assert type(result) is dict
    assert [*result] == [*net.params]
    for name, gradient in result.items():
        # Both are loops: each value of the loss is rounded by some eps.
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=8 * 2.2e-16 * 0.7 / 1e-4)
    np.testing.assert_array_equal(net.params.buffer, before)


def test_a_structure_of_large_arrays_is_traced():
    rng = np.random.default_rng(0)
    X, params = rng.normal(size=(30, 40)), {"W": rng.normal(size=(40, 20)), "b": np.zeros(20)}
    f = lambda p, X: np.sum(np.tanh(X @ p["W"] + p["b"]) ** 2) / len(X)  # noqa: E731
    traced = numerical_gradient(f, params, args=(X,), engine="traced")
    looped = numerical_gradient(f, params, args=(X,), engine="loop")
    for name in params:
        bound = 32 * np.finfo(float).eps * f(params, X) / 1e-4
        np.testing.assert_allclose(traced[name], looped[name], rtol=0, atol=bound)


def test_the_complex_step_takes_a_leafs_place_in_the_structure():
    x = {"a": np.array([2.0]), "b": (np.array(3.0),)}
    result = numerical_gradient(
        lambda x, k: k * (x["a"] ** 2 * x["b"][0]).sum(), x, "auto", args=(5,), scheme="complex"
    )
    np.testing.assert_allclose(result["a"], [60], rtol=1e-15)
    np.testing.assert_allclose(result["b"][0], 20, rtol=1e-15)


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda a: [a, a], r"x\[0\] and x\[1\]"),
        (lambda a: {"W": a, "row": a[1:]}, r"x\['W'\] and x\['row'\]"),
        (lambda a: (a[:2], [a[1:]]), r"x\[0\] and x\[1\]\[0\]"),
        (lambda a: [a[::2], a[1::2], a[::-1]], "x"),
    ],
)
def test_arrays_that_share_memory_are_refused(make, names):
    with pytest.raises(ValueError, match=f"{names}.* share memory, so that neither"):
        numerical_gradient(lambda x: 0.0, make(np.arange(4.0)))


def test_interleaved_views_that_share_no_element_are_served():
    a = np.arange(4.0)
    result = numerical_gradient(lambda x: (x[0] * x[1]).sum(), [a[::2], a[1::2]])
    np.testing.assert_allclose(result, [[1, 3], [0, 2]], atol=1e-10)


def test_an_exception_leaves_every_array_as_it_was():
    x = [np.array([1.0]), np.array([2.0])]

    def fail(x):
        if x[1] != 2:
            raise ZeroDivisionError
        return float(x[0][0])

    with pytest.raises(ZeroDivisionError):
        numerical_gradient(fail, x)
    assert [part[0] for part in x] == [1, 2]


@pytest.mark.parametrize(
    ("x", "error", "match"),
    [
        ({"a": "1.0"}, TypeError, r"x\['a'\] is a str, .*or a structure of arrays"),
        ([np.zeros(2), None], TypeError, r"x\[1\] is a NoneType"),
        ([np.zeros(2, int)], TypeError, r"x\[0\] has dtype int64, .*pass x\[0\]\.astype\(float\)"),
    ],
)
def test_a_leaf_that_is_no_floating_array_is_named(x, error, match):
    with pytest.raises(error, match=match):
        numerical_gradient(lambda x: 0.0, x)


def test_steps_of_another_form_are_refused():
    x = {"a": np.zeros(2), "b": np.zeros(2)}
    with pytest.raises(ValueError, match=r"h has the parts x\['a'\], but x has x\['a'\], x\['b'\]"):
        numerical_gradient(lambda x: 0.0, x, {"a": 1e-4})


def test_a_quotient_that_is_not_finite_is_named_with_its_array():
    x = {"a": np.zeros(1), "b": np.zeros(2)}
    with pytest.warns(RuntimeWarning, match=r"at x\['b'\]\[1\] is nan") as caught:
        numerical_gradient(lambda x: np.nan if x["b"][1] else x["a"][0], x)
    assert caught[0].filename == __file__


def test_what_is_a_structure():
    assert all(is_structure(x) for x in ({}, [], (), Line(1, 2)))
    assert not any(is_structure(x) for x in (np.zeros(1), 1.0, "x", None))
    assert like([1, (2,)], iter("ab")) == ["a", ("b",)]


EVERY_FUNCTION = pytest.mark.parametrize(
    "function",
    [
        numerical_gradient,
        jacobian,
        hessian,
        lambda f, x, **options: differentiate(f, x, **options).gradient,
        lambda f, x, **options: hessian_vector_product(f, x, x, **options),
        lambda f, x, **options: directional_derivative(f, x, x, **options),
    ],
)


@EVERY_FUNCTION
def test_f_may_return_fractions_and_other_real_numbers(function):
    x = np.array([1.0, 2.0])
    expected = function(lambda x: float(x[0] ** 2 * x[1]), x)
    for kind in (Fraction, mpmath.mpf):
        result = function(lambda x, kind=kind: kind(float(x[0] ** 2 * x[1])), x)
        np.testing.assert_allclose(result.astype(float), expected, rtol=1e-12, atol=1e-12)


@EVERY_FUNCTION
def test_further_arguments_may_be_given_by_name(function):
    def f(x, a, *, b=0.0):
        return a * (x**3).sum() + b * x.prod()

    x = np.array([1.0, 2.0])
    expected = function(lambda x: f(x, 2.0, b=3.0), x.copy())
    np.testing.assert_array_equal(function(f, x, args=(2.0,), kwargs={"b": 3.0}), expected)
    np.testing.assert_array_equal(function(f, x, kwargs={"a": 2.0, "b": 3.0}), expected)
    for kwargs in ([("b", 3.0)], {1: 2.0}, 3):
        with pytest.raises(TypeError, match="kwargs is"):
            function(f, x, kwargs=kwargs)


@pytest.mark.parametrize("x", [1 + 1j, np.complex64(1), [1.0, 1j], np.ones(2, complex)])
def test_a_complex_x_is_refused_with_what_to_pass_instead(x):
    with pytest.raises(TypeError, match="for real x only; pass the real and the imaginary part"):
        numerical_gradient(np.abs, x)


@pytest.mark.parametrize("derivative", [numerical_gradient, jacobian, hessian])
def test_a_complex_value_of_f_is_refused_with_what_to_differentiate_instead(derivative):
    with pytest.raises(TypeError, match=r"f\(x\).real and lambda x: f\(x\).imag, one by one"):
        derivative(lambda x: np.exp(1j * x[0]), np.ones(2))
