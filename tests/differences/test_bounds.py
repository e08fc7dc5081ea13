"""f never sees a point outside of the bounds, and the quotient is as accurate there."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fastgrad import differentiate, hessian, jacobian, numerical_gradient, schemes

REPEATABLE = settings(derandomize=True, deadline=None)
SCHEMES = {
    "central 2": schemes.central(),
    "central 4": schemes.central(4),
    "forward 1": schemes.forward(),
    "backward 2": schemes.backward(2),
    "uneven": schemes.from_offsets([-1, 0.5, 2]),
    "second": schemes.central(2, 2),
}


def inside(lower, upper, f=lambda x: float(np.sum(np.exp(x)))):
    def record(x):
        assert (x >= lower).all()
        assert (x <= upper).all()
        return f(x)

    return record


@REPEATABLE
@given(
    data=st.data(),
    dtype=st.sampled_from([np.float32, np.float64, np.longdouble]),
    name=st.sampled_from([*SCHEMES]),
    h=st.one_of(st.floats(1e-6, 1.0), st.just("auto")),
    relative=st.booleans(),
)
def test_no_point_is_outside(data, dtype, name, h, relative):
    size = data.draw(st.integers(1, 3))
    x = np.array(data.draw(st.lists(st.floats(-3, 3, width=32), min_size=size, max_size=size)))
    room = st.one_of(st.just(0.0), st.floats(1e-9, 3), st.just(np.inf))
    below, above = (
        np.array(data.draw(st.lists(room, min_size=size, max_size=size))) for _ in range(2)
    )
    x = x.astype(dtype)
    # Beside x in double precision, so that in float32 most are no numbers of x's dtype.
    lower, upper = x.astype(float) - below, x.astype(float) + above
    assume(bool((lower < upper).all()))
    before = x.copy()
    try:
        numerical_gradient(
            inside(lower, upper),
            x,
            h,
            bounds=(lower, upper),
            scheme=SCHEMES[name],
            relative=relative and h != "auto",
        )
    except ValueError as error:
        assert "is lost" in str(error)  # noqa: PT017 - or a quotient, where there is room
    assert (x == before).all()  # longdouble has bytes that mean nothing


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("name", ["central 2", "central 4", "forward 1", "backward 2"])
def test_at_a_bound_the_accuracy_order_is_kept(name, side):
    scheme, x = SCHEMES[name], np.array([0.5])
    bounds = (x, np.inf) if side == 0 else (-np.inf, x.copy())
    errors = []
    for h in (2.0**-4, 2.0**-5):
        f = inside(*np.broadcast_arrays(bounds[0].copy() if side == 0 else -np.inf, bounds[1]))
        result = numerical_gradient(f, x, h, bounds=bounds, scheme=scheme)
        errors.append(abs(result[0] - np.exp(0.5)))
    slope = np.log2(errors[0] / errors[1])
    assert slope == pytest.approx(scheme.accuracy, abs=0.25)


def test_far_from_the_bounds_the_quotients_keep_their_bits():
    x = np.random.default_rng(0).normal(size=5)
    free = numerical_gradient(np.sum, x, engine="loop")
    assert numerical_gradient(np.sum, x, bounds=(-100, 100)).tobytes() == free.tobytes()
    assert numerical_gradient(np.sum, x, bounds=(-np.inf, np.inf)).tobytes() == free.tobytes()


def test_a_small_room_shortens_the_step():
    x = np.array([1.0])
    lower, upper = np.array([1 - 1e-6]), np.array([1 + 2e-6])
    result = numerical_gradient(inside(lower, upper), x, 1e-2, bounds=(lower, upper))
    # 1e-6 is the step that three points leave: 4 e eps / h of round-off, h**2 of truncation.
    assert abs(result[0] - np.e) <= 16 * np.e * np.finfo(float).eps / 1e-6


@pytest.mark.parametrize(("dtype", "room"), [(np.float32, 1e-8), (np.float64, 1e-17)])
def test_a_room_in_which_every_step_is_lost_is_refused(dtype, room):
    x = np.array([0.0, 1.0], dtype)
    upper = np.array([1, np.nextafter(1.0, 2.0) if dtype is np.float64 else 1 + room])
    with pytest.raises(ValueError, match=r"x\[1\] is 1.0, .* is lost"):
        numerical_gradient(lambda x: x.sum(), x, bounds=([-1, 1], upper))


def test_structures_have_bounds_of_their_own():
    x = {"a": np.zeros(2), "b": np.ones(1)}
    lower, upper = {"a": 0.0, "b": -np.inf}, {"b": np.ones(1), "a": np.array([1.0, 2.0])}

    def f(x):
        assert (x["a"] >= 0).all()
        assert x["b"] <= 1
        return np.sum(x["a"]) + x["b"][0] ** 2

    result = numerical_gradient(f, x, bounds=(lower, upper))
    np.testing.assert_allclose(result["a"], 1, atol=1e-10)
    np.testing.assert_allclose(result["b"], 2, atol=1e-10)


def test_scipys_bounds_are_bounds():
    bounds = SimpleNamespace(lb=np.zeros(2), ub=np.inf)
    result = numerical_gradient(inside(0, np.inf, np.sum), np.zeros(2), bounds=bounds)
    np.testing.assert_allclose(result, 1, atol=1e-10)


@pytest.mark.parametrize(
    ("bounds", "lower", "upper"),
    [
        ([(0, 1), (2, 5), (None, 9)], [0, 2, -np.inf], [1, 5, 9]),
        (np.array([[0, 1], [2, 5], [3, 9.0]]), [0, 2, 3], [1, 5, 9]),
        ([(0, 1), (3, 5), (4, 4)], [0, 3, 4], [1, 5, 4]),
        ((0, None), 0, np.inf),
        ((None, [1, 5, None]), -np.inf, [1, 5, np.inf]),
        (None, -np.inf, np.inf),
    ],
)
@pytest.mark.parametrize("derivative", [numerical_gradient, jacobian, hessian, differentiate])
def test_pairs_of_each_element_and_none_are_bounds(derivative, bounds, lower, upper):
    x = np.array([1.0, 3.0, 4.0])
    result = derivative(inside(lower, upper, lambda x: float((x**3).sum())), x, bounds=bounds)
    free = np.broadcast_to(np.less(lower, upper), 3)
    if derivative is hessian:
        np.testing.assert_allclose(result, np.diag(6 * x * free), atol=1e-3)
        return
    gradient = result.gradient if derivative is differentiate else result
    np.testing.assert_allclose(gradient, 3 * x**2 * free, atol=1e-5)
    assert (gradient[~free] == 0).all()


def test_pairs_of_two_elements_are_never_transposed_silently():
    def gradient(bounds, x=(1.0, 3.0)):
        seen = []
        numerical_gradient(lambda x: seen.append(x.copy()) or 0.0, np.array(x), 0.1, bounds=bounds)
        return np.min(seen, axis=0), np.max(seen, axis=0)

    for ambiguous in ([(0, 1), (2, 5)], [[0, 1], [2, 5]], np.array([[0, 1], [2, 5]])):
        with pytest.raises(ValueError, match=r"pair .*array\(\[0, 1\]\).*array\(\[0, 2\]\)"):
            gradient(ambiguous)
    # Read otherwise, the first two have lower bounds above upper ones, the third leaves no room.
    assert gradient([(0, 1), (-2, 3)])[1].tolist() == [1, 3]
    assert gradient(([0, -2], [1, 3]))[0][0] >= 0
    assert gradient([(0, 3)] * 2)[1].tolist() == [1.1, 3]
    lower, upper = gradient((np.array([0, 1]), np.array([2, 5])))
    assert (lower.tolist(), upper.tolist()) == ([0.9, 2.9], [1.1, 3.1])
    assert gradient([(0, None), (None, 3)])[1].tolist() == [1.1, 3]


def test_a_smaller_central_step_is_taken_where_it_is_more_exact():
    def error(room, h):
        f = inside(1 - room, np.inf)
        return abs(numerical_gradient(f, np.ones(1), h, bounds=(1 - room, None))[0] - np.e)

    # (5e-5)**2 / 6 against (1e-4)**2 / 3 of a one-sided difference, times e.
    assert error(5e-5, 1e-4) < 1.1 * np.e * (5e-5) ** 2 / 6
    # One of 1e-9 would be off by eps / 1e-9.
    assert error(1e-9, 1e-4) < 1.1 * np.e * (1e-4) ** 2 / 3


def test_the_complex_step_needs_no_room():
    x = np.array([1.0])
    f = lambda x: (x**2).sum()  # noqa: E731
    assert numerical_gradient(f, x, 1e-20, scheme="complex", bounds=(1, 2)).tolist() == [2]


@pytest.mark.parametrize(
    ("bounds", "match"),
    [
        ((2, 3), r"x\[0\] is 1.0, which is outside of its bounds 2.0 and 3.0; pass an x inside"),
        ((np.nan, 3), r"x\[0\] is 1.0, which is outside of its bounds nan and 3.0; .*infinite or"),
        (3, r"bounds are 3; pass a pair \(lower, upper\)"),
        ((1, 2, 3), "pass a pair"),
        ((np.zeros(5), 2), r"arrays of x's shape \(2,\)"),
        (("a", "b"), "pass a pair"),
    ],
)
def test_bounds_that_are_none_are_refused(bounds, match):
    with pytest.raises(ValueError, match=match):
        numerical_gradient(np.sum, np.ones(2), bounds=bounds)


def test_the_array_in_a_structure_is_named():
    x = {"a": np.zeros(1), "b": np.array([0.0, 5.0])}
    with pytest.raises(ValueError, match=r"x\['b'\]\[1\] is 5.0, which is outside"):
        numerical_gradient(lambda x: 0.0, x, bounds=(-1, 1))
    with pytest.raises(ValueError, match="bounds are 3; pass a pair"):
        numerical_gradient(lambda x: 0.0, {"a": np.zeros(1)}, bounds=3)
