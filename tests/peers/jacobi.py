"""jacobi: derivatives with error estimates, also where f is not defined on one side.

Answers to tests/test_jacobi.py; those of tests/test_propagate.py ask for covariances. Its methods
-1, 0 and 1 are the backward, central and forward schemes; without one, of quotients that are not
finite others take the place. Errors of up to 1e-10 are asked for.
"""

from functools import partial
from itertools import product

import numpy as np

from fastgrad import differentiate, jacobian, numerical_gradient

from . import Case

PEER = "jacobi"

SCHEMES = {-1: "backward", 0: "central", 1: "forward"}

FACTORS = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])


def cases():
    """Yield all."""
    yield from vectors()
    yield from sides()
    yield from options()
    yield from refused()
    yield from covariances()


def errors(*args, **options):
    """Return the estimated errors."""
    return differentiate(*args, **options).error


def both(name, f, x, exact, **options):
    """Yield a case of the derivatives, and one of their errors."""
    yield Case(f"{name}: value", partial(differentiate, f, x, **options), exact, atol=1e-10)
    zero = np.zeros_like(exact)[()]
    yield Case(f"{name}: error", partial(errors, f, x, **options), zero, 0.0, 1e-10)


def outer_slopes(x):
    """Return the derivatives of the outer product of x with itself."""
    unit = np.eye(len(x))
    return np.einsum("ik,j->ijk", unit, x) + np.einsum("i,jk->ijk", x, unit)


def vectors():
    """Yield derivatives of functions of a number, a vector and a matrix."""
    yield from both("test_squeeze", np.exp, 0, 1.0)
    x = np.array([1.0, 2.0, 3.0])
    for name, f, exact in (
        ("1", lambda x: 1.0, np.zeros(3)),
        ("exp", np.exp, np.diag(np.exp(x))),
        ("x**2", np.square, np.diag(2 * x)),
        ("ones", np.ones_like, np.zeros((3, 3))),
        ("1 / x", lambda x: x**-1, np.diag(-(x**-2))),
        ("sqrt(x + 1)", lambda x: (x + 1) ** 0.5, np.diag(0.5 * (x + 1) ** -0.5)),
        ("mean", lambda x: np.mean(x**2), 2 * x / 3),
        ("outer", lambda x: np.outer(x, x), outer_slopes(x)),
    ):
        yield from both(f"test_1d, {name}", f, x, exact)
    yield from both("test_0d", lambda x: FACTORS * x**2, 2, 4 * FACTORS)
    x = [[1, 2, 3], [3, 4, 5]]
    exact = np.einsum("ij,ik,jl->ijkl", 2 * FACTORS * x, np.eye(2), np.eye(3))
    call = partial(differentiate, lambda x: FACTORS * x**2, x)
    yield Case("test_2d", call, exact, atol=1e-12)


def above(x):
    """Return x, which is not defined below 0."""
    return x if x >= 0 else np.nan


def below(x):
    """Return x, which is not defined above 0."""
    return x if x <= 0 else np.nan


def sides():
    """Yield derivatives at a kink, at the end of where f is defined, and at nan."""
    # The slope jumps from -1 to 1: fastgrad's error says so, theirs is 0.
    yield Case("test_abs_at_zero: value", partial(differentiate, np.abs, 0), 0.0)
    yield Case("test_abs_at_zero: half the jump", partial(errors, np.abs, 0), 1.0)
    for f in (np.positive, above, below):
        call = partial(numerical_gradient, f, 0, "auto", outside=ArithmeticError)
        yield Case(f"test_method_auto: {f.__name__}", call, 1.0, atol=1e-10)
        for method, scheme in SCHEMES.items():
            # Of both sides fastgrad takes that which is defined, and warns; theirs is nan there.
            is_defined = method == 0 or f is np.positive or f is (below, None, above)[method + 1]
            name = f"test_method: {f.__name__}, {method}"
            if is_defined:
                yield from both(name, f, 0, 1.0, scheme=scheme)
            else:
                yield Case(f"{name}: value", partial(differentiate, f, 0, scheme=scheme), np.nan)
                yield Case(f"{name}: error", partial(errors, f, 0, scheme=scheme), np.inf)
    x = np.array([2.0, np.nan, 3.0])
    exact = np.array([[4.0, np.nan, 0.0], [np.nan, np.nan, np.nan], [0.0, np.nan, 6.0]])
    f = lambda x: x**2 + 3  # noqa: E731
    yield Case("test_on_nan: value", partial(differentiate, f, x), exact)
    bound = np.where(np.isnan(exact), np.inf, 0.0)
    yield Case("test_on_nan: error", partial(errors, f, x), bound, 0.0, 1e-12)


def cubes(x):
    """Return numbers whose derivatives are 3 x**2."""
    return x**3 + 3


def options():
    """Yield fixed elements, separate ones, tolerances, and lists for vectors."""
    x = np.array([1.0, 2.0, 3.0, 4.0])
    lower, upper = np.where([0, 1, 1, 0], x, -np.inf), np.where([0, 1, 1, 0], x, np.inf)
    call = partial(jacobian, cubes, x, bounds=(lower, upper))
    yield Case("test_mask: bounds that are equal", call, np.diag([3.0, 0.0, 0.0, 48.0]))
    for at, exact in ((2, 12.0), ([1, 2], [3.0, 12.0])):
        call = partial(differentiate, cubes, at, elementwise=True)
        yield Case(f"test_diagonal: {at}", call, exact)
    exact = np.diag([3.0, 12.0, 27.0])
    for tolerance in (None, 0.1, 1e-3):
        call = partial(differentiate, cubes, [1, 2, 3], tolerance=tolerance)
        yield Case(f"test_rtol: {tolerance}", call, exact, 0.03, 1e-5)
    call = partial(allowed_errors, cubes, [1, 2, 3])
    yield Case("test_rtol: larger errors", call, np.ones((3, 3), bool))
    f = lambda x: [x[0], 2 * x[1], x[1] ** 2]  # noqa: E731
    exact = [[1.0, 0.0], [0.0, 2.0], [0.0, 4.0]]
    for scheme in SCHEMES.values():
        call = partial(differentiate, f, (1, 2), scheme=scheme)
        yield Case(f"test_non_array_arguments: {scheme}", call, exact, atol=1e-12)


def allowed_errors(f, x):
    """Return whether errors with a coarse tolerance are no smaller than others, up to rounding."""
    coarse, fine = errors(f, x, tolerance=0.1), errors(f, x)
    return coarse >= fine - 1e-14


def refused():
    """Yield what both refuse."""
    positive = "the step is positive and finite; pass one such as 1e-4"
    for step in (0, -1):
        call = partial(differentiate, cubes, 1, step)
        yield Case(f"test_bad_step_0: {step}", call, refusal=positive)
    for tolerance in (-1, -0.1):
        call = partial(differentiate, cubes, 1, tolerance=tolerance)
        yield Case(f"test_bad_maxgrad: {tolerance}", call, refusal="0 or more and finite; pass one")
    for method in (-2, -3, 2, 3):
        call = partial(differentiate, cubes, 1, scheme=method)
        yield Case(f"test_bad_method: {method}", call, refusal="scheme is a int; pass a name, or")
    for scheme, (value, remedy) in product(
        SCHEMES.values(),
        (
            ([1, [1, 2]], "whose parts do not form an array; reduce the array"),
            ("s", "must return a real number; check what f ends with"),
            (("a", "b"), "must return real numbers; check what f ends with"),
        ),
    ):
        call = partial(differentiate, lambda x, value=value: value, (1, 2), scheme=scheme)
        yield Case(f"test_bad_return_value_2: {value}, {scheme}", call, refusal=remedy)


def covariances():
    """Yield what asks for covariances."""
    names = {
        "00": 1,
        "01": 3,
        "10": 2,
        "11": 2,
        "cov_1d_2d": 8,
        "two_arguments_1": 2,
        "two_arguments_2": 1,
        "bad_number_of_arguments": 1,
        "bad_input_dimensions": 2,
        "diagonal_1": 1,
        "diagonal_2": 1,
        "diagonal_3": 1,
        "on_nan_1": 2,
        "on_nan_2": 1,
        "mask_on_binary_function_1": 1,
        "mask_on_binary_function_2": 1,
        "non_array_arguments_and_return_value": 4,
        "bad_return_value_2": 12,
    }
    for name, count in names.items():
        for number in range(count):
            yield Case(f"propagate: test_{name}, {number}", lacking="covariance")
