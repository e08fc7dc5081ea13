"""Is a Gradient what optimizers want: callable with any x, reusable, and picklable?"""

import pickle
from functools import partial

import numba
import numpy as np
import pytest

from fastgrad import Gradient, numerical_gradient
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
    assert (gradient(START) == numerical_gradient(rosenbrock, START, args=(1.0,))).all()
    assert (gradient(START, 3.0) == numerical_gradient(rosenbrock, START, args=(3.0,))).all()


def read_only(x):
    array = np.array(x)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize("form", [list, tuple, read_only, np.array], ids=lambda form: form.__name__)
def test_x_may_be_a_list_or_read_only_and_stays_as_it_is(form):
    x = form([1.0, 2.0, 3.0])
    result = Gradient(rosenbrock)(x)
    assert result.tolist() == numerical_gradient(rosenbrock, np.array([1.0, 2.0, 3.0])).tolist()
    assert np.array(x).tolist() == [1, 2, 3]


def test_integers_become_floats():
    expected = numerical_gradient(rosenbrock, np.array([1.0, 2.0]))
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
    found = optimize.minimize(f, START, (10.0,), method, jac=Gradient(f, "auto"))
    assert found.success
    # L-BFGS-B stops by default when f falls by less than 2e-9, CG and BFGS at a slope of 1e-5; the
    # smallest curvature of f near its minimum is above 0.1.
    assert abs(found.x - 1).max() < 1e-3


def test_partial_functions_are_served():
    expected = numerical_gradient(rosenbrock, START, args=(5.0,))
    assert (Gradient(partial(rosenbrock, a=5.0))(START) == expected).all()
