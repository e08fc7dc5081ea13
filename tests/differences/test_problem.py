"""All arguments are checked before f is called, and a problem is divided as it should be."""

import hypothesis.extra.numpy as hnp
import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import numerical_gradient, schemes
from fastgrad.differences.problem import problems
from fastgrad.differences.quotients import moved
from fastgrad.engines.selection import ENGINES


def test_further_arguments_are_handed_over_unchanged():
    data, x = {"k": 3.0}, np.array([1.0, 2.0])

    def f(argument, given, power):
        assert argument is x
        assert given is data
        return data["k"] * (argument**power).sum()

    result = numerical_gradient(f, x, args=(data, 2))
    np.testing.assert_allclose(result, [6, 12], atol=1e-9)


@pytest.mark.parametrize("args", [[1], 3.0, None, {"a": 1}])
def test_args_that_are_no_tuple_are_refused(args):
    with pytest.raises(TypeError, match=rf"args is a {type(args).__name__}; pass a tuple"):
        numerical_gradient(lambda x, a: 0.0, np.ones(1), args=args)


def test_nothing_is_called_before_all_arguments_are_right():
    def refuse(x):
        raise AssertionError("called")

    x = np.ones(2)
    for options in (
        {"engine": "turbo", "h": "auto"},
        {"bounds": (2, 3)},
        {"scheme": "middle"},
        {"h": "auto", "bounds": (2, 3)},
        {"h": "auto", "relative": 2},
        {"h": [1e-4, 1e-30]},
        {"vectorized": True, "engine": "loop"},
    ):
        with pytest.raises((ValueError, TypeError)):
            numerical_gradient(refuse, x, **options)


def test_a_problem_knows_whether_all_elements_are_moved_alike():
    x, f = np.ones(3), np.sum

    def plain(**options):
        return problems(f, x, options.pop("h", 1e-4), **options)[0].is_uniform

    assert plain()
    for scheme in ("forward", "backward", schemes.central(6), schemes.central(2, 3)):
        assert plain(scheme=scheme)
    assert plain(bounds=(-np.inf, np.inf))
    for options in (
        {"scheme": "complex"},
        {"h": np.ones(3)},
        {"h": "auto"},
        {"relative": True},
        {"bounds": (0, np.inf)},
    ):
        assert not plain(**options)


def test_the_elements_are_divided_among_the_schemes_that_fit():
    x = np.array([0.0, 0.5, 1.0])
    (problem,) = problems(np.sum, x, 1e-3, bounds=(0, 1))
    found = {scheme: places.tolist() for scheme, places, _ in problem.partition}
    assert found == {schemes.central(): [1], schemes.forward(2): [0], schemes.backward(2): [2]}


def smooth(x):
    return (x**3).sum() + (x[:-1] * x[1:]).sum()


SCHEMES = {
    **{f"central {a}": schemes.central(a) for a in (2, 4, 6, 8)},
    **{f"forward {a}": schemes.forward(a) for a in (1, 2, 3, 4)},
    **{f"backward {a}": schemes.backward(a) for a in (1, 2, 3, 4)},
    "complex": schemes.complex_step,
    "uneven": schemes.from_offsets([-1, 0, 2]),
}


@pytest.fixture(scope="module")
def jitted():
    """Return the function as numba compiles it: once for all schemes."""
    return numba.njit(smooth)


@pytest.mark.parametrize("engine", [*ENGINES, "auto", "vectorized", "workers"])
@pytest.mark.parametrize("name", SCHEMES)
def test_every_engine_takes_every_scheme(engine, name, jitted):
    x, scheme = np.array([0.5, -1.0, 2.0]), SCHEMES[name]
    exact = 3 * x**2 + [x[1], x[0] + x[2], x[1]]
    # Truncation: x**3 alone, 12 h**p at most; round-off: f is 10 at most, weights 7 at most.
    h = 1e-3
    bound = (12 * h**scheme.accuracy if scheme.accuracy < 3 else 0) + 70 * 4 * 2.2e-16 / h
    if engine == "compiled":
        f = jitted
    elif engine == "vectorized":
        f = lambda s: (s**3).sum(axis=1) + (s[:, :-1] * s[:, 1:]).sum(axis=1)  # noqa: E731
    else:
        f = smooth
    ways = {"vectorized": {"vectorized": True}, "workers": {"workers": map}}
    how = ways.get(engine, {"engine": engine})
    result = numerical_gradient(f, x, h, scheme=scheme, **how)
    np.testing.assert_allclose(result, exact, rtol=0, atol=bound)


@settings(derandomize=True, deadline=None)
@given(
    x=hnp.arrays(np.float32, st.integers(1, 4), elements=st.floats(-(2.0**10), 2.0**10, width=32)),
    exponent=st.integers(-20, -10),
    factor=st.sampled_from([0.75, 1.0, 1.25]),
    scheme=st.sampled_from([schemes.central(), schemes.forward(2), schemes.central(4)]),
)
def test_a_step_is_refused_just_where_a_point_would_be_x_itself(x, exponent, factor, scheme):
    h = factor * 2.0**exponent  # about the spacing of the larger elements
    points = moved(x, np.arange(x.size), scheme.outer, h)
    if (points == x[:, None]).any():
        with pytest.raises(ValueError, match="is lost"):
            problems(np.sum, x, h, scheme=scheme)
    else:
        problems(np.sum, x, h, scheme=scheme)
