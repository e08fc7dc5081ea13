"""The weights are the known ones, and each scheme is as accurate as it says."""

import math
import pickle
from fractions import Fraction

import mpmath
import nets
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastgrad import (
    differentiate,
    directional_derivative,
    hessian,
    jacobian,
    numerical_gradient,
    reference,
    schemes,
)
from fastgrad.engines.traced import by_distance
from fastgrad.schemes import (
    Scheme,
    as_scheme,
    backward,
    central,
    complex_step,
    finite_difference_weights,
    forward,
    from_offsets,
)

REPEATABLE = settings(derandomize=True, deadline=None)

# B. Fornberg (1988), tables 1 and 3: offsets, numerators, denominator, derivative.
TABLES = {
    "central 2": (central(2), {1: 1, -1: -1}, 2),
    "central 4": (central(4), {1: 8, -1: -8, 2: -1, -2: 1}, 12),
    "central 6": (central(6), {1: 45, -1: -45, 2: -9, -2: 9, 3: 1, -3: -1}, 60),
    "central 8": (
        central(8),
        {1: 672, -1: -672, 2: -168, -2: 168, 3: 32, -3: -32, 4: -3, -4: 3},
        840,
    ),
    "forward 1": (forward(1), {1: 1, 0: -1}, 1),
    "forward 2": (forward(2), {2: -1, 1: 4, 0: -3}, 2),
    "forward 3": (forward(3), {3: 2, 2: -9, 1: 18, 0: -11}, 6),
    "forward 4": (forward(4), {4: -3, 3: 16, 2: -36, 1: 48, 0: -25}, 12),
    "backward 1": (backward(1), {-1: -1, 0: 1}, 1),
    "backward 2": (backward(2), {-2: 1, -1: -4, 0: 3}, 2),
    "backward 3": (backward(3), {-3: -2, -2: 9, -1: -18, 0: 11}, 6),
    "backward 4": (backward(4), {-4: 3, -3: -16, -2: 36, -1: -48, 0: 25}, 12),
    "second, central 2": (central(2, 2), {1: 1, -1: 1, 0: -2}, 1),
    "second, central 4": (central(4, 2), {1: 16, -1: 16, 2: -1, -2: -1, 0: -30}, 12),
    "third, central 2": (central(2, 3), {1: -2, -1: 2, 2: 1, -2: -1}, 2),
}

ACCURACY = {
    "uneven": (from_offsets([-1, 0, 2]), 2),
    "shifted": (from_offsets([1, 2, 3.5]), 2),
    "complex step": (complex_step, 2),
    **{name: (scheme, int(name[-1])) for name, (scheme, _, _) in TABLES.items()},
}
each_scheme = pytest.mark.parametrize(("scheme", "accuracy"), ACCURACY.values(), ids=ACCURACY)


@pytest.mark.parametrize(("scheme", "weights", "denominator"), TABLES.values(), ids=TABLES)
def test_the_weights_are_the_published_ones(scheme, weights, denominator):
    assert dict(zip(scheme.offsets, scheme.numerators, strict=True)) == weights
    assert scheme.denominator == denominator


@each_scheme
def test_the_accuracy_order_is_read_off_the_weights(scheme, accuracy):
    assert scheme.accuracy == accuracy


def quotient(scheme, f, x, h):
    """Apply a scheme by the numbers' own arithmetic: mpmath's, or fractions."""
    terms = [n * f(x + o * h) for o, n in zip(scheme.offsets, scheme.numerators, strict=True)]
    return sum(terms) / (scheme.denominator * h**scheme.derivative)


@each_scheme
def test_the_slope_of_the_error_is_the_accuracy_order(scheme, accuracy):
    # 60 digits, so that round-off hides nothing; at steps where h**(p + 1) is a thousandth.
    with mpmath.workdps(60):
        x, steps = mpmath.mpf("0.7"), [mpmath.mpf("1e-4"), mpmath.mpf("1e-5")]
        exact = mpmath.diff(mpmath.exp, x, scheme.derivative)
        errors = [abs(mpmath.re(quotient(scheme, mpmath.exp, x, h)) - exact) for h in steps]
        slope = mpmath.log10(errors[0] / errors[1])
    assert float(slope) == pytest.approx(accuracy, abs=1e-2)


@each_scheme
def test_polynomials_are_differenced_exactly_up_to_the_degree_and_not_beyond(scheme, accuracy):
    if scheme.is_complex:
        pytest.skip("fractions are not complex")
    x, h = Fraction(3, 7), Fraction(1, 10)
    for degree in range(scheme.derivative + accuracy + 1):
        derivative = math.perm(degree, scheme.derivative) * (
            x ** (degree - scheme.derivative) if degree >= scheme.derivative else 0
        )
        offsets = [Fraction(o) for o in scheme.offsets]
        exact = Scheme(tuple(offsets), scheme.numerators, scheme.denominator, scheme.derivative)
        difference = quotient(exact, lambda x, degree=degree: x**degree, x, h)
        assert (difference == derivative) == (degree < scheme.derivative + accuracy)


@REPEATABLE
@given(
    offsets=st.lists(st.fractions(-5, 5, max_denominator=9), min_size=2, max_size=7, unique=True),
    data=st.data(),
)
def test_fornbergs_weights_solve_vandermondes_equations(offsets, data):
    derivative = data.draw(st.integers(1, len(offsets) - 1))
    weights = finite_difference_weights(offsets, derivative)
    for power in range(len(offsets)):
        moment = sum(w * o**power for w, o in zip(weights, offsets, strict=True))
        assert moment == (math.factorial(derivative) if power == derivative else 0)


@REPEATABLE
@given(
    offsets=st.lists(st.integers(-40, 40), min_size=3, max_size=6, unique=True),
    a=st.floats(-3, 3),
    b=st.floats(-3, 3),
)
def test_any_offsets_make_a_scheme_that_is_exact_on_parabolas(offsets, a, b):
    scheme = from_offsets([offset / 10 for offset in offsets])
    result = numerical_gradient(lambda x: a * x[0] ** 2 + b * x[0], np.ones(1), 0.5, scheme=scheme)
    # Values of up to 2 (3 * 9 + 3 * 3) = 72, rounded a few times, and so are the offsets.
    weight = sum(abs(n) for n in scheme.numerators) / scheme.denominator
    assert abs(result[0] - (2 * a + b)) <= 8 * 72 * np.finfo(float).eps * (weight / 0.5 + 1)


def test_x_itself_is_evaluated_once_for_all_elements():
    calls = []
    x = np.array([1.0, 2.0, 3.0])
    numerical_gradient(lambda x: calls.append(x.copy()) or x.sum(), x, scheme="forward")
    assert len(calls) == 4
    assert sum((call == x).all() for call in calls) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
@pytest.mark.parametrize("name", ["forward", "backward", "complex"])
def test_each_name_stands_for_a_scheme_of_every_dtype(name, dtype):
    x = np.array([[0.5, 1.5]], dtype)
    h = 1e-20 if name == "complex" else 1e-3
    result = numerical_gradient(lambda x: (x**3).sum(), x, h, scheme=name)
    assert (result.dtype, result.shape) == (x.dtype, x.shape)
    truncation = 0 if name == "complex" else 3 * 1.5 * h
    round_off = 8 * np.finfo(dtype).eps * (4 / (1 if name == "complex" else h))
    # In float32 the step is rounded beside x, too: by eps / h of itself.
    step = 7 * np.finfo(dtype).eps * 1.5 / h if name != "complex" else 0
    assert np.abs(result - 3 * x**2).max() <= truncation * 1.01 + round_off + step


def test_the_default_scheme_keeps_the_books_bits():
    x = np.random.default_rng(0).normal(size=7)
    for scheme in ("central", central(), from_offsets([1, -1]), from_offsets([-1.0, 0, 1.0])):
        result = numerical_gradient(lambda x: np.exp(x).sum(), x, scheme=scheme)
        expected = reference.numerical_gradient(lambda x: np.exp(x).sum(), x)
        assert result.tobytes() == expected.tobytes()


def test_derivative_2_gives_the_diagonal_of_the_hessian():
    x = np.array([1.0, 2.0])
    f = lambda x: x[0] ** 3 + x[0] * x[1] + x[1] ** 4  # noqa: E731
    result = numerical_gradient(f, x, 1e-3, scheme=central(4, 2))
    # Round-off: 16 / 3 eps |f| / h**2; truncation: 0 for a fourth degree.
    np.testing.assert_allclose(result, [6, 48], atol=8 * np.finfo(float).eps * 20 / 1e-6)


def test_the_complex_step_is_exact_to_the_last_bits():
    x = np.array([0.3, 1.7])
    result = numerical_gradient(
        lambda x: (np.exp(x) * np.sin(x)).sum(), x, "auto", scheme="complex"
    )
    expected = np.exp(x) * (np.sin(x) + np.cos(x))
    np.testing.assert_allclose(result, expected, rtol=8 * np.finfo(float).eps)


def test_a_function_that_drops_the_imaginary_part_is_refused():
    with pytest.raises(TypeError, match=r"for a complex x; the complex step needs a function"):
        numerical_gradient(lambda x: abs(x).sum(), np.ones(2), scheme="complex")
    outside = np.ones(2)
    with pytest.raises(TypeError, match="computes with its argument"):
        numerical_gradient(lambda _: outside.sum(), outside, scheme="complex")


CONJUGATED = {
    "numerical_gradient": lambda f, x: numerical_gradient(f, x, "auto", scheme="complex"),
    "of a structure": lambda f, x: numerical_gradient(
        lambda x: f(x["b"]) + x["a"].sum(), {"a": np.ones(2), "b": x}, "auto", scheme="complex"
    ),
    "of stacks": lambda f, x: numerical_gradient(
        lambda s: np.array([f(x) for x in s]), x, "auto", scheme="complex", vectorized=True
    ),
    "elementwise": lambda f, x: numerical_gradient(
        lambda x: x * np.conj(x), x, "auto", scheme="complex", elementwise=True
    ),
    "jacobian": lambda f, x: jacobian(lambda x: x.sum() + f(x), x, scheme="complex"),
    "sparse": lambda f, x: jacobian(
        lambda x: x * np.conj(x), x, scheme="complex", sparsity=np.eye(3)
    ),
    "hessian": lambda f, x: hessian(f, x, scheme="complex"),
    "directional": lambda f, x: directional_derivative(f, x, np.ones(3), scheme="complex"),
    "differentiate": lambda f, x: differentiate(f, x, scheme="complex"),
    "a large step": lambda f, x: differentiate(f, x, 1e-3, scheme="complex"),
    "at a bound": lambda f, x: numerical_gradient(
        f, x, "auto", scheme="complex", bounds=(np.array([x[0], -9.0, -9.0]), 9.0)
    ),
}


@pytest.mark.parametrize("way", CONJUGATED)
def test_a_function_that_is_not_analytic_is_refused_by_the_complex_step(way):
    x = np.array([1.0, -2.0, 0.5])
    before = x.tobytes()
    with pytest.raises(ValueError, match=r"f is not analytic in x.* by real steps.*'central'"):
        CONJUGATED[way](lambda x: (np.conj(x) * x).sum(), x)
    assert x.tobytes() == before


@pytest.mark.parametrize(
    "f",
    [
        lambda x: np.where(x > 1 - 1e-9, x, -x).sum(),  # a kink and a jump beside x
        lambda x: np.where(x > 1 - 1e-9, x, 5 - x).sum(),
        lambda x: np.sin(1e7 * x).sum(),  # faster than real steps see
        lambda x: np.tanh(3e4 * (x - 1)).sum(),
        lambda x: 1e9 + np.sin(x).sum(),  # rounded
        lambda x: 0 * x.sum(),
    ],
)
def test_the_complex_step_serves_what_real_steps_cannot_judge(f):
    """Also at bounds on both sides, where nothing can be moved."""
    for x in (np.ones(3), np.array([1.0, -2.0, 0.5])):
        for options in ({}, {"bounds": (x, x)}):
            numerical_gradient(f, x, "auto", scheme="complex", **options)


@pytest.mark.parametrize("scheme", [central(2), central(4), central(8), forward(2), central(2, 2)])
def test_the_optimal_step_balances_truncation_and_round_off(scheme):
    # Of the exponential at 0, all of whose derivatives are 1: as the rule assumes.
    eps, best = np.finfo(float).eps, scheme.optimal_step(np.finfo(float).eps)
    p, d = scheme.accuracy, scheme.derivative
    with mpmath.workdps(60):
        truncation = abs(quotient(scheme, mpmath.exp, mpmath.mpf(0), mpmath.mpf(best)) - 1)
    round_off = scheme.round_off(1.0, best, eps)
    # Where the sum is least, p T = d R; higher terms of the series shift it by some percent.
    assert float(truncation) * p == pytest.approx(d * round_off, rel=0.3)


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: central(3), ValueError, "accuracy is 3, but a central scheme's is even"),
        (lambda: central(0), ValueError, "accuracy is 0, but it is 1 or more"),
        (lambda: central(2.5), TypeError, "accuracy is 2.5 of type float, but .* whole number"),
        (lambda: forward(2, 0), ValueError, "derivative is 0, but it is 1 or more"),
        (lambda: from_offsets([1, 1]), ValueError, "must differ from each other"),
        (lambda: from_offsets([1, np.nan]), ValueError, "each must be finite"),
        (lambda: from_offsets([1, 1j]), TypeError, "each must be a real number"),
        (lambda: from_offsets([0, 1], 2), ValueError, "pass at least 3"),
        (lambda: Scheme((1, -1), (1, -1), 1), ValueError, "do not give derivative 1; pass .*from_"),
        (lambda: Scheme((0, 1), (-1, 1), 1), ValueError, "0 comes last"),
        (lambda: Scheme((1, 1), (1, -1), 2), ValueError, "must differ"),
        # Differences of real parts are lost at 1e-20: 0 for the second derivative of exp.
        (lambda: Scheme((1j, 0), (-2, 2), 1, 2), ValueError, "nothing may cancel.*pass 'complex'"),
        (lambda: Scheme((1 + 1j, 0), (1, -1), 1 + 1j), ValueError, "nothing may cancel"),
        (lambda: as_scheme("middle"), ValueError, "scheme is 'middle', .*pass one of 'central'"),
        (lambda: as_scheme(4), TypeError, r"scheme is a int; pass a name, or .*central\(4\)"),
    ],
)
def test_what_is_no_scheme_is_refused_with_the_remedy(make, error, match):
    with pytest.raises(error, match=match):
        make()


def test_offsets_may_be_numpys_numbers_and_fractions():
    assert from_offsets(np.array([-1, 1])) == central()
    assert from_offsets(np.array([-1, 1], np.float32)) == central()
    halves = from_offsets([Fraction(1, 2), Fraction(-1, 2)])
    assert halves == Scheme((0.5, -0.5), (1, -1), 1)


def test_schemes_with_a_name_are_those_that_are_computed():
    computed = {"central": central(), "forward": forward(), "backward": backward()}
    named = {name: as_scheme(name) for name in computed}
    assert named == computed
    assert [repr(scheme) for scheme in named.values()] == [*map(repr, computed.values())]
    assert {hash(scheme) for scheme in named.values()} == {*map(hash, computed.values())}


def test_a_scheme_cannot_be_changed_and_can_be_pickled():
    scheme = from_offsets([-1, 0.5, 2])
    with pytest.raises(AttributeError, match="cannot be changed"):
        scheme.derivative = 2
    assert pickle.loads(pickle.dumps(scheme)) == scheme != central()


def test_weights_that_no_float_holds_are_rounded():
    scheme = central(60)
    assert isinstance(scheme.numerators[0], float)
    assert (scheme.accuracy, scheme.is_central) == (60, True)


LARGE = np.random.default_rng(0).normal(size=(40, 60))


def network(x):
    return (np.tanh(LARGE @ x.reshape(60, 20)) ** 2).sum()


REAL = {
    "forward": schemes.forward(),
    "backward": schemes.backward(),
    **{f"central({accuracy})": schemes.central(accuracy) for accuracy in (2, 4, 6, 8)},
    "forward(3)": schemes.forward(3),
    "backward(2)": schemes.backward(2),
    "uneven": schemes.from_offsets([-1, 0.5, 2]),
    "second": schemes.central(2, 2),
    "second, one-sided": schemes.forward(2, 2),
    "third": schemes.central(2, 3),
}


def round_off(f, x, h, scheme):
    """Return what rounding costs the loop: eps abs(f) by the weights, over a power of the step."""
    return scheme.round_off(abs(float(f(x))), h, float(np.finfo(float).eps))


@pytest.mark.parametrize("h", [1e-4, 1e-2])
@pytest.mark.parametrize("name", REAL)
def test_the_traced_engine_serves_every_real_scheme(name, h):
    x = np.random.default_rng(1).normal(size=(60, 20)) / 10
    before, scheme = x.copy(), REAL[name]
    traced = numerical_gradient(network, x, h, engine="traced", scheme=scheme)
    looped = numerical_gradient(network, x, h, engine="loop", scheme=scheme)
    # What the loop loses, and as much again where x itself is rounded after it has been moved.
    bound = 4 * round_off(network, x, h, scheme)
    np.testing.assert_allclose(traced, looped, rtol=0, atol=bound)
    np.testing.assert_array_equal(x, before)
    assert scheme.derivative > 2 or abs(looped).max() > 100 * bound  # or nothing is tested


SOME_SCHEMES = ["forward", "backward", "central(4)", "uneven", "second"]


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, SOME_SCHEMES[(k + turn) % 5]) for k, case in enumerate(nets.CASES) for turn in (0, 2)],
)
def test_nets_are_differenced_by_any_scheme(case, name):
    """By responses, at kinks, by the few inputs of a bias, by weights and by elements."""
    f, x = nets.CASES[case]()
    scheme, h = REAL[name], 1e-3
    traced = numerical_gradient(f, x, h, engine="traced", scheme=scheme)
    looped = numerical_gradient(f, x, h, engine="loop", scheme=scheme)
    # Some of the losses are sums of terms that cancel, and the loop loses as much in each.
    np.testing.assert_allclose(traced, looped, rtol=0, atol=8 * round_off(f, x, h, scheme))


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("scale", [1, 255])
def test_kinks_are_seen_by_any_scheme(name, scale):
    random = np.random.default_rng(2)
    X, W = scale * random.random((12, 9)), random.normal(size=(9, 13))
    X[3, 4] = X[5] = 0
    kinks = 0.4e-4 * scale * random.choice([-1, 1, 3], (12, 13)) * (random.random((12, 13)) < 0.03)
    b = np.where(kinks != 0, kinks - X @ W, 0)
    f = lambda W: np.mean(np.maximum(X @ W + b, 0) ** 2 + np.tanh(X @ W / scale))  # noqa: E731
    scheme = REAL[name]
    traced = numerical_gradient(f, W, engine="traced", scheme=scheme)
    looped = numerical_gradient(f, W, engine="loop", scheme=scheme)
    np.testing.assert_allclose(traced, looped, rtol=0, atol=4 * round_off(f, W, 1e-4, scheme))


@pytest.mark.parametrize("name", ["forward", "forward(3)", "second, one-sided"])
def test_a_function_that_ends_at_x_is_measured_by_one_sided_schemes_on_its_side(name):
    """Where it is nan, or steep, or has a kink on the other side, no scheme has a point."""
    random = np.random.default_rng(3)
    X, ones, x = random.random((5, 12)), np.ones((5, 12)), np.zeros((12, 5))
    options = {"h": 2e-3, "scheme": REAL[name]}
    functions = [
        lambda x: np.sum(np.sqrt(x + 1e-3)),
        lambda x: np.sum(np.sqrt(X @ x + 1e-5) + np.tanh(X @ x)),
        lambda x: np.sum(np.sqrt(ones @ x + 1e-3)),
        lambda x: np.sum(1 / (X @ x + 4e-4) ** 2),
    ]
    for f in functions:
        with np.errstate(all="ignore"):
            looped = numerical_gradient(f, x, engine="loop", **options)
            result = numerical_gradient(f, x, engine="traced", **options)
        assert np.isfinite(looped).all()
        atol = 8 * round_off(f, x, 2e-3, REAL[name])
        np.testing.assert_allclose(result, looped, rtol=1e-11, atol=atol)


def test_a_scheme_is_what_f_changes_by_on_both_sides():
    x, h = 0.3, 0.1
    for scheme in REAL.values():
        total = 0.0
        for distance, (above, below) in by_distance(scheme).items():
            up, down, here = np.exp([x + distance * h, x - distance * h, x])
            total += above * (up - here) + below * (down - here)
        points = np.exp(x + h * np.array(scheme.offsets))
        expected = scheme.combine(points[np.newaxis], h)[0]
        assert total / (scheme.denominator * h**scheme.derivative) == pytest.approx(expected, 1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"scheme": "complex"},
        {"bounds": (-9, 9)},
        {"relative": True},
        {"h": np.full((60, 20), 1e-4)},
        {"h": "auto"},
    ],
)
def test_what_the_traced_engine_does_not_serve_is_refused(options):
    x = np.random.default_rng(1).normal(size=(60, 20))
    with pytest.raises(ValueError, match="engine is 'traced', which serves real schemes"):
        numerical_gradient(network, x, engine="traced", **options)
