"""Gradient, Jacobian and Hessian are what optimizers want: callable with any x, and picklable."""

import pickle
from functools import partial

import numba
import numpy as np
import pytest

from fastgrad import Gradient, Hessian, Jacobian, hessian, jacobian, numerical_gradient
from fastgrad.schemes import central

START = np.array([-1.2, 1.0, 0.7, 2.0])


def rosenbrock(x, a=100.0):
    return (a * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


jitted_rosenbrock = numba.njit(rosenbrock)


@pytest.mark.parametrize("f", [rosenbrock, jitted_rosenbrock])
def test_it_computes_what_numerical_gradient_does_with_all_its_options(f):
    options = {"scheme": central(4), "relative": True, "engine": "auto"}
    result = Gradient(f, 1e-3, **options)(START, 50.0)
    expected = numerical_gradient(f, START, 1e-3, args=(50.0,), **options)
    assert result.tobytes() == expected.tobytes()


def test_arguments_of_the_call_replace_those_of_the_object():
    gradient = Gradient(rosenbrock, args=(1.0,))
    for a, result in ((1.0, gradient(START)), (3.0, gradient(START, 3.0))):
        assert (result == numerical_gradient(rosenbrock, START, "auto", args=(a,))).all()


def read_only(x):
    array = np.array(x)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("form", [list, tuple, read_only, np.array], ids=lambda form: form.__name__)
def test_x_may_be_a_list_or_read_only_and_stays_as_it_is(form):
    x = form([1.0, 2.0, 3.0])
    result = Gradient(rosenbrock)(x)
    expected = numerical_gradient(rosenbrock, np.array([1.0, 2.0, 3.0]), "auto")
    assert result.tolist() == expected.tolist()
    assert np.array(x).tolist() == [1, 2, 3]


def test_integers_become_floats():
    expected = numerical_gradient(rosenbrock, np.array([1.0, 2.0]), "auto")
    assert (Gradient(rosenbrock)([1, 2]) == expected).all()
    assert (Gradient(rosenbrock)(np.array([1, 2])) == expected).all()
    assert Gradient(lambda x: x**2)(3).round(6) == 6


def test_what_is_no_real_number_is_refused_as_ever():
    for x in (np.array([1j]), np.array(["1"]), np.zeros(2, bool), np.zeros(2, np.float16)):
        with pytest.raises(TypeError, match="x has dtype"):
            Gradient(rosenbrock)(x)


def test_an_x_that_can_be_moved_in_place_may_be_read_elsewhere():
    params = {"W": np.array([3.0, 4.0]), "b": np.array([1.0])}
    gradient = Gradient(lambda _: (params["W"] ** 2).sum() + params["b"][0] ** 2)
    assert gradient(params["W"]).round(6).tolist() == [6, 8]
    result = gradient(params)
    assert result["W"].round(6).tolist() == [6, 8]
    assert result["b"].round(6).tolist() == [2]


def test_structures_of_arrays_are_copied_where_they_must_be():
    x = {"a": read_only([1.0, 2.0]), "b": (np.array([3]), np.array([4.0]))}

    def f(x):
        return (x["a"] ** 2).sum() + (x["b"][0] * x["b"][1])[0]

    result = Gradient(f)(x)
    assert result["a"].round(6).tolist() == [2, 4]
    assert [part.round(6).tolist() for part in result["b"]] == [[4], [3]]
    assert x["a"].tolist() == [1, 2]


@pytest.mark.parametrize("f", [rosenbrock, jitted_rosenbrock])
def test_it_can_be_pickled_if_f_can(f):
    gradient = Gradient(f, "auto", args=(10.0,), scheme=central(4))
    before = gradient(START)
    assert pickle.loads(pickle.dumps(gradient))(START).tobytes() == before.tobytes()


def test_what_cannot_be_called_and_unknown_options_are_refused_at_once():
    with pytest.raises(TypeError, match="f is a float, which cannot be called"):
        Gradient(1.0)
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        Gradient(rosenbrock, step=1e-4)


def test_it_says_how_it_was_made():
    text = repr(Gradient(rosenbrock, 1e-3, engine="loop"))
    assert text.startswith("Gradient(<function rosenbrock at ")
    assert text.endswith(">, h=0.001, args=(), engine='loop')")


@pytest.mark.parametrize("f", [rosenbrock, jitted_rosenbrock])
@pytest.mark.parametrize("method", ["BFGS", "L-BFGS-B", "CG"])
def test_scipy_minimizes_with_it(f, method):
    optimize = pytest.importorskip("scipy.optimize")
    found = optimize.minimize(f, START, (10.0,), method, jac=Gradient(f))
    assert found.success
    # L-BFGS-B stops by default when f falls by less than 2e-9, CG and BFGS at a slope of 1e-5; the
    # smallest curvature of f near its minimum is above 0.1.
    assert abs(found.x - 1).max() < 1e-3


def test_partial_functions_are_served():
    expected = numerical_gradient(rosenbrock, START, "auto", args=(5.0,))
    assert (Gradient(partial(rosenbrock, a=5.0))(START) == expected).all()


def system(x, a=10.0):
    return np.array([a * (x[1] - x[0] ** 2), 1 - x[0], x[0] * x[1]])


def test_jacobians_and_hessians_are_functions_of_x_as_well():
    x = np.array([0.5, 2.0])
    assert (Jacobian(system)([0.5, 2.0]) == jacobian(system, x)).all()
    assert (Jacobian(system, 1e-6, args=(3.0,))(x) == jacobian(system, x, 1e-6, args=(3.0,))).all()
    assert (Hessian(rosenbrock)([0.5, 2.0], 3.0) == hessian(rosenbrock, x, args=(3.0,))).all()
    copied = pickle.loads(pickle.dumps(Jacobian(system, scheme=central(4))))
    assert (copied(x, 3.0) == jacobian(system, x, args=(3.0,), scheme=central(4))).all()
    assert repr(Hessian(rosenbrock, 1e-3)).endswith(">, h=0.001, args=())")
    with pytest.raises(TypeError, match="unexpected keyword argument 'step'"):
        Hessian(rosenbrock, step=1e-4)


@pytest.mark.parametrize("kind", [Gradient, Jacobian, Hessian])
def test_another_argument_than_the_first_may_be_moved(kind):
    def f(t, x, a):
        assert t == "t"
        return rosenbrock(x, a)

    there, here = kind(f, argnum=1), kind(rosenbrock)
    assert (there("t", START, 3.0) == here(START, 3.0)).all()
    assert "argnum=1" in repr(there)
    with pytest.raises(TypeError, match="argnum is 1, but"):
        there("t")
    with pytest.raises(ValueError, match="argnum is -1"):
        kind(f, argnum=-1)


@pytest.mark.parametrize("scheme", ["central", "forward"])
def test_the_value_comes_with_the_gradient_and_is_computed_once(scheme):
    calls = []

    def f(x, a):
        calls.append(x.copy())
        return rosenbrock(x, a)

    gradient = Gradient(f, 1e-6, scheme=scheme)
    value, slopes = gradient.with_value(START, 3.0)
    at_start = sum(x.tobytes() == START.tobytes() for x in calls)
    assert value == rosenbrock(START, 3.0)
    assert (slopes == gradient(START, 3.0)).all()
    assert at_start == 1


def test_scipy_takes_them():
    optimize = pytest.importorskip("scipy.optimize")
    integrate = pytest.importorskip("scipy.integrate")
    found = optimize.minimize(Gradient(rosenbrock).with_value, START, (10.0,), "CG", jac=True)
    assert found.success
    hess = Hessian(rosenbrock)
    for more in ({"hess": hess}, {"hessp": hess.product}):
        found = optimize.minimize(
            rosenbrock, START, (10.0,), "trust-ncg", jac=Gradient(rosenbrock), **more
        )
        assert abs(found.x - 1).max() < 1e-3
    assert optimize.least_squares(system, [0.5, 0.5], jac=Jacobian(system)).success
    assert optimize.root(
        lambda x: system(x)[:2], [0.5, 0.5], jac=Jacobian(lambda x: system(x)[:2])
    ).success

    def decay(t, y):
        return np.array([-1e3 * (y[0] - np.cos(t)), y[0] - y[1]])

    found = integrate.solve_ivp(decay, (0, 1), [0.0, 0.0], "BDF", jac=Jacobian(decay, argnum=1))
    assert found.success


def test_conjugate_gradients_take_fewer_iterations_than_with_the_books_step():
    optimize = pytest.importorskip("scipy.optimize")
    start = np.tile([-1.2, 1.0], 3)
    auto, book = (
        optimize.minimize(rosenbrock, start, method="CG", jac=Gradient(rosenbrock, h)).nit
        for h in ("auto", 1e-4)
    )
    assert auto < book
