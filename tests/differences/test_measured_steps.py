"""Automatic steps suit f at any scale, and its roundings are never taken for its derivative."""

import math

import numpy as np
import pytest
from counting import counted

from fastgrad import hessian, jacobian, numerical_gradient, schemes
from fastgrad.differences.problem import problems
from fastgrad.differences.rounding import jumps
from fastgrad.engines import loop

EPS = np.finfo(float).eps
W = np.random.default_rng(0).normal(size=(30, 5))


def auto(f, x, **options):
    return numerical_gradient(f, np.array(x), "auto", **options)


def rosenbrock(x):
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


SCHEMES = [
    *(schemes.central(accuracy) for accuracy in (2, 4, 6, 8)),
    *(side(accuracy) for side in (schemes.forward, schemes.backward) for accuracy in range(1, 5)),
    *(schemes.central(accuracy, 2) for accuracy in (2, 4, 6)),
]


SMOOTH = [  # with their derivatives, the first and the second
    (lambda v: v, np.ones_like, np.zeros_like),
    (lambda v: v**3, lambda v: 3 * v**2, lambda v: 6 * v),
    (np.sin, np.cos, lambda v: -np.sin(v)),
    (lambda v: np.sin(5 * v), lambda v: 5 * np.cos(5 * v), lambda v: -25 * np.sin(5 * v)),
    (np.exp, np.exp, np.exp),
    (np.log, lambda v: 1 / v, lambda v: -1 / v**2),
    (np.sqrt, lambda v: v**-0.5 / 2, lambda v: -(v**-1.5) / 4),
    (lambda v: 1 / v, lambda v: -1 / v**2, lambda v: 2 / v**3),
    (
        lambda v: np.tanh(2 * v) ** 2,
        lambda v: 4 * np.tanh(2 * v) / np.cosh(2 * v) ** 2,
        lambda v: 8 * (1 - 2 * np.sinh(2 * v) ** 2) / np.cosh(2 * v) ** 4,
    ),
    (lambda v: v[:1], lambda v: 1.0 * (v == v[0]), np.zeros_like),
]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s.offsets}, {s.derivative}")
@pytest.mark.parametrize("n", [1, 5, 40])
def test_steps_of_smooth_functions_cost_six_calls_more_whatever_the_scheme(scheme, n):
    x = np.random.default_rng(0).uniform(0.5, 1.5, n)
    p, d = scheme.accuracy, scheme.derivative
    for function, *derivatives in SMOOTH:
        f = counted(lambda x, function=function: float(function(x).sum()))
        found = auto(f, x, scheme=scheme, engine="loop")
        assert f.calls <= (len(scheme.outer) + 6) * n + 1
        expected = derivatives[d - 1](x)
        # Truncation and round-off in balance leave eps**(p / (p + d)), where f and its derivatives
        # are of one size; f is up to n times as large here, and varies over a fifth of x's scale.
        size = max(abs(expected).max(), 1.0)
        assert abs(found - expected).max() <= n * 5**d * 20 * EPS ** (p / (p + d)) * size


@pytest.mark.parametrize(
    ("derivative", "own"), [(jacobian, 2), (hessian, 2 * 40)], ids=["jacobian", "hessian"]
)
def test_jacobians_and_hessians_cost_six_calls_an_element_more_than_the_scheme(derivative, own):
    x = np.random.default_rng(0).uniform(0.5, 1.5, 40)
    for f in (rosenbrock, lambda x: float(np.sin(x).sum()), lambda x: float(x[0])):
        f = counted(f)
        derivative(f, x)
        assert f.calls <= (own + 6) * x.size


SHAPES = {
    "exp": (np.exp, np.exp, np.exp),
    "sine": (np.sin, np.cos, lambda v: -np.sin(v)),
    "peak": (
        lambda v: 1 / (1 + v * v),
        lambda v: -2 * v / (1 + v * v) ** 2,
        lambda v: (6 * v * v - 2) / (1 + v * v) ** 3,
    ),
    "log": (np.log, lambda v: 1 / v, lambda v: -1 / v**2),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("scale", [1e-8, 1e-6, 1e-3, 1e3, 1e8])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of f, far from x
def test_all_derivatives_find_the_scale_of_f(name, scale):
    f, first, second = SHAPES[name]
    for u in (0.3, 1.0, 1.7):
        x = np.array([u * scale, 0.5])
        # Beside a variable of another scale, and outputs that do not change.
        gradient = auto(lambda x: float(f(x[0] / scale)) + x[1] ** 2, x)
        matrix = jacobian(lambda x: np.array([f(x[0] / scale), 7.0, x[1]]), x)
        np.testing.assert_allclose(gradient, [first(u) / scale, 1], rtol=1e-5)
        np.testing.assert_allclose(matrix[0, 0], first(u) / scale, rtol=1e-5)
        np.testing.assert_allclose(matrix[1:], [[0, 0], [0, 1]], atol=1e-9)
        curvature = hessian(lambda x: float(f(x[0] / scale)), x[:1])[0, 0] * scale**2
        # sqrt(eps) = 1.5e-8; steps by factors of 8 leave one or two digits less.
        assert abs(curvature - second(u)) <= 1e-5 * max(1, abs(second(u)))


def in_float32(x):
    return float((np.tanh(W.astype(np.float32) @ x.astype(np.float32)) ** 2).mean())


def in_float64(x):
    return float((np.tanh(W.astype(np.float32).astype(float) @ x) ** 2).mean())


@pytest.mark.parametrize("seed", range(6))
def test_float32_inside_f_is_not_taken_for_a_derivative_of_0(seed):
    x = np.random.default_rng(seed).normal(size=5)
    true, twice = numerical_gradient(in_float64, x), hessian(in_float64, x)
    # The values have an eps of 6e-8: eps**(2/3) = 1.5e-5 is left, or eps**(1/2) = 2.4e-4.
    for found in (
        auto(in_float32, x),
        auto(in_float32, np.tile(x, 6)[:5]),
        jacobian(lambda x: np.array([1.0, in_float32(x), in_float64(x)]), x)[1],
    ):
        assert abs(found - true).max() < 5e-3 * abs(true).max()
    assert abs(hessian(in_float32, x) - twice).max() < 0.1 * abs(twice).max()


@pytest.mark.parametrize("digits", [3, 5, 8])
def test_rounded_values_are_not_taken_for_a_derivative_of_0(digits):
    for x in np.linspace(0.1, 2, 10):
        found = auto(lambda x: round(float(np.exp(x[0])), digits), [x])[0]
        # The best step leaves 10**(-2 digits / 3), the best in factors of 8 up to 8 times as much.
        assert abs(found / np.exp(x) - 1) < 8 * 10 ** (-2 * digits / 3)


def test_what_is_found_of_the_noise_serves_all_elements():
    x = np.random.default_rng(0).normal(size=60)
    f = counted(lambda x: float((np.tanh(x).astype(np.float32) ** 2).mean()))
    found = auto(f, x)
    expected = 2 * np.tanh(x) / np.cosh(x) ** 2 / 60
    assert abs(found - expected).max() < 1e-2 * abs(expected).max()
    assert f.calls < 16 * x.size


def test_a_kink_beside_x_is_no_noise():
    for x in (1e-3, 1e-5, 3e-7):
        assert auto(lambda x: max(float(x[0]), 0.0), [-x])[0] == 0
        assert abs(auto(lambda x: max(float(x[0]), 0.0), [x])[0] - 1) < 1e-9
        assert abs(auto(lambda x: abs(float(x[0])), [x])[0] - 1) < 1e-9


def test_where_f_raises_it_is_not_defined():
    def f(x):
        if not 0 < x[0] < 2:
            raise ValueError("outside")
        return float(np.log(x[0]) + np.log(2 - x[0]) + np.sin(x[1]))

    for x in (1e-4, 1.0, 2 - 1e-4):
        found = auto(f, [x, 3.0])
        np.testing.assert_allclose(found, [1 / x - 1 / (2 - x), np.cos(3)], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("f", "x", "exact"),
    [
        (lambda x: math.log(x), 1e-12, 1e12),
        (lambda x: math.sqrt(x), 1e-10, 5e4),
        (lambda x: math.asin(x), 0.999999, (1 - 0.999999**2) ** -0.5),
        (lambda x: math.exp(x), 709.0, math.exp(709)),
        (lambda x: math.exp(-(x**2) / 2e-16), 1e-8, -1e8 * math.exp(-0.5)),
        (lambda x: 1e10 + math.sin(x), 1.0, math.cos(1)),
        (lambda x: 1e-300 * math.exp(x), 1.0, 1e-300 * math.e),
    ],
)
def test_edges_of_domains_peaks_and_offsets_are_no_obstacle(f, x, exact):
    found = auto(lambda x: f(float(x[0])), [x])[0]
    # Of 1e10 + sin(x) rounding leaves (2e-6)**(2/3) = 2e-4.
    assert abs(found / exact - 1) < 1e-3


def test_an_f_that_raises_at_all_steps_is_heard():
    x, error = np.array([1.0, 2.0]), ZeroDivisionError("mine")

    def f(v):
        if v[1] != 2:
            raise error
        return v[0]

    with pytest.raises(ZeroDivisionError) as raised:
        auto(f, x)
    assert raised.value is error


def test_elements_are_moved_by_distances_that_x_can_hold():
    x = np.array([1e10, -1e10, 1.0, -1.0, 1.99999, -1e-9, 4e15])
    for h in ("auto", 16.0):
        np.testing.assert_allclose(jacobian(lambda x: x * 1.0, x, h), np.eye(7), atol=1e-14)
    # 1e-5 is five spacings of x.
    assert jacobian(lambda x: x * 1.0, x[:2], 1e-5).tolist() == np.eye(2).tolist()
    curved = hessian(lambda x: (x[0] - 1e6) ** 2, np.array([1e6, 2.0]), 1e-4)
    np.testing.assert_allclose(curved, [[2, 0], [0, 0]], atol=1e-9)


@pytest.mark.parametrize("kind", [int, bool, np.uint8, np.int64])
def test_integers_have_hessians(kind):
    for f in (lambda x: kind(max(0, 1 - x[0])), lambda x: max(kind(0), 1 - x[0])):
        assert hessian(f, np.array([3.0, 1.0])).tolist() == [[0, 0], [0, 0]]
        assert jacobian(f, np.array([3.0, 1.0])).tolist() == [0, 0]


@pytest.mark.parametrize(
    ("f", "expected"),
    [
        (lambda x: round(float(np.exp(x[0])), 4), True),
        (lambda x: float(np.exp(np.float32(x[0]))), True),
        (lambda x: float(np.float32(np.exp(x[0]))) + x[0] ** 2, True),
        (lambda x: float(np.exp(x[0])), False),
        (lambda x: max(float(x[0]) - 1, 0.0), False),
        (lambda x: float(np.exp(-((1e5 * (x[0] - 1)) ** 2)) + x[0]), False),
        (lambda x: float(np.sin(1e5 * x[0])), False),
        (lambda x: 1 / 0, False),
    ],
)
def test_jumps_are_told_from_kinks_peaks_and_waves(f, expected):
    [problem] = problems(f, np.array([1.0]), 1e-4)
    assert jumps(problem, loop.values, 0, 0.03, 0.5, 3 * EPS) is expected


@pytest.mark.parametrize(
    ("f", "x", "exact"),
    [
        (lambda x: x + np.sin(x), 1e8, 1 + np.cos(1e8)),
        (lambda x: np.log(x) + 1e-3 * np.sin(x), 1e8, 1e-8 + 1e-3 * np.cos(1e8)),
    ],
)
def test_larger_steps_are_not_believed_against_smaller_ones_that_agree(f, x, exact):
    x = np.array([x])
    found = numerical_gradient(lambda x: float(f(x[0])), x, "auto")
    assert abs(found[0] - exact) <= 1e-5 * abs(exact)
    found = jacobian(lambda x: np.array([f(x[0]), x[0]]), x)
    assert (abs(found[:, 0] - [exact, 1]) <= 1e-5 * abs(exact)).all()


@pytest.mark.parametrize("digits", [2, 3])
def test_a_plateau_is_no_slope_of_0(digits):
    def f(x):
        return round(float(np.exp(x[0])), digits)

    x = np.array([0.3])
    # As large steps as there are leave an error of a few percent.
    assert abs(numerical_gradient(f, x, "auto")[0] - np.exp(0.3)) < 0.2
    assert abs(jacobian(lambda x: np.array([1.0, f(x)]), x)[1, 0] - np.exp(0.3)) < 0.2
    assert numerical_gradient(lambda x: max(x[0], 0.0), -x, "auto")[0] == 0


@pytest.mark.parametrize("x", [-1.0, 0.26, 0.357, 0.49, 0.4999, 0.7, 3.0])
def test_between_the_jumps_of_a_mask_the_slope_is_0(x):
    x = np.array([x, 0.3])
    assert not jacobian(lambda x: np.where(x > 0.5, 2.0, 1.0), x).any()
    assert not numerical_gradient(lambda x: np.sign(x - 0.5).sum(), x, "auto").any()
    found = jacobian(lambda x: np.where(x > 0.5, x[::-1] ** 2, 3 * x[::-1]), x)
    expected = np.where(x > 0.5, 2 * x[::-1], 3)
    assert abs(found - np.diag(expected)[:, ::-1]).max() < 1e-8


@pytest.mark.parametrize("x", [1e14, 3e15])
def test_it_is_said_where_no_step_suits_f(x):
    with pytest.warns(RuntimeWarning, match=r"no step suits f at x\[1\]"):
        numerical_gradient(lambda v: v[0] ** 2 + np.sin(v[1]), np.array([1.0, x]), "auto")


class Recorded:
    """A function of NumPy operations that takes long enough for being recorded."""

    def __init__(self, operation, decay=0.0):
        random = np.random.default_rng(3)
        self.X = random.normal(size=(200, 60))
        self.W = random.normal(size=(60, 40)) / 8
        self.operation, self.decay, self.calls = operation, decay, 0

    def __call__(self, W):
        self.calls += 1
        return self.operation(self.X @ W).sum() / 200 + self.decay * (W**2).sum()

    def gradient(self, slope):
        return self.X.T @ slope(self.X @ self.W) / 200 + 2 * self.decay * self.W


def test_what_is_recorded_takes_one_step_that_a_larger_one_confirms():
    f = Recorded(np.tanh, decay=0.1)
    found = numerical_gradient(f, f.W, "auto")
    # The step of 2**-17 leaves h**2 / 6 of third derivatives, sums of some 60 pixels below 3,
    # 2 at most each; f, below 20, is rounded to eps.
    bound = 2.0**-34 / 6 * 2 * 3 + 4 * np.finfo(float).eps * 20 * 2**17
    assert abs(found - f.gradient(lambda a: 1 / np.cosh(a) ** 2)).max() < bound
    assert f.calls < 60


def test_elements_at_which_steps_disagree_are_measured_one_by_one():
    f = Recorded(lambda a: np.maximum(a, 0))
    places = np.abs(f.X @ f.W).min(axis=0).argmin()  # a unit with a kink nearby
    found = numerical_gradient(f, f.W, "auto")
    book = numerical_gradient(f, f.W, 1e-4)
    exact = f.gradient(lambda a: a > 0)
    assert abs(found - exact).max() < 1e-7
    assert abs(book - exact)[:, places].max() > 1e-6
    assert f.calls < f.W.size


def test_what_varies_over_short_distances_is_left_to_measured_steps():
    f = Recorded(lambda a: np.sin(1e5 * a))
    small = f.W[:8, :8].copy()
    f.X = f.X[:, :8]
    found = numerical_gradient(f, small, "auto")
    f.W = small
    exact = f.gradient(lambda a: 1e5 * np.cos(1e5 * a))
    assert abs(found - exact).max() < 1e-3 * abs(exact).max()


@pytest.mark.parametrize("scheme", [schemes.central(4, 3), schemes.central(12, 3)])
@pytest.mark.parametrize("distance", [1e-3, 1e-2, 0.3])
def test_third_derivatives_beside_a_pole_are_those_of_its_distance(scheme, distance):
    # x - p is rounded to eps * 3 / distance of itself, which a step of a tenth makes 1e3 of.
    x = -3 + distance
    result = auto(lambda x: float(1 / (x[0] + 3)), [x], scheme=scheme)
    np.testing.assert_allclose(result, -6 / (x + 3) ** 4, rtol=3e-6)


@pytest.mark.parametrize(
    ("f", "x", "exact"),
    [
        (lambda x: np.sqrt(np.exp(-4 / 3 * x)) - 1, 5.307385722561955e-10, -2 / 3),
        (lambda x: np.log(np.cos(x)), -1.537837701063046e-06, 1.537837701063046e-06),
    ],
)
def test_what_cancels_inside_f_leaves_no_plateau_of_slope_0(f, x, exact):
    # f is small beside what its terms are rounded by: at small steps it is constant.
    np.testing.assert_allclose(auto(lambda x: float(f(x[0])), [x]), exact, rtol=1e-4)


def test_it_is_said_where_rounding_hides_all_that_a_derivative_can_be():
    # Beyond 7e-9 there is no f; half an eps of it in its second differences is as much as 4.
    with pytest.warns(RuntimeWarning, match="no step suits f"), np.errstate(invalid="ignore"):
        auto(lambda x: float(np.tanh(np.log(x[0]))), [7.3e-9], scheme=schemes.central(2, 2))


@pytest.mark.filterwarnings("ignore:h is 'auto', but no step")  # for both of them
@pytest.mark.parametrize("scheme", ["central", schemes.central(4), schemes.central(6)])
@pytest.mark.parametrize("kink", [1.5e-4, 5.5e-3])
def test_an_output_that_is_lost_in_rounding_hides_no_kink_of_another(scheme, kink):
    """No step suits both: one is flat up to the kink, the other seen by far steps alone."""

    def f(x):
        u = float(x[0])
        return np.array([0.027 + 0.014 * max(0.0, u - kink), 4.4 + 2.3e-12 * math.sin(u)])

    found = jacobian(f, np.zeros(1), h="auto", scheme=scheme)[:, 0]
    assert found[0] == 0
    # Of eps 4.4 over the largest step, 1 / 4, times some.
    assert abs(found[1] - 2.3e-12) <= 1e-13
