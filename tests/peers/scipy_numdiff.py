"""SciPy's `optimize._numdiff`, `approx_fprime` and `check_grad`: Jacobians by differences.

Answers to scipy/optimize/tests/test__numdiff.py, and to the tests of the two functions in
test_optimize.py. A step's sign, which there is the side, is the scheme's here.
"""

import math
from functools import partial
from itertools import product

import numpy as np
from scipy import sparse
from scipy.optimize import rosen

from fastgrad import (
    check_gradient,
    check_jacobian,
    differentiate,
    directional_derivative,
    group_columns,
    jacobian,
    numerical_gradient,
    schemes,
)

from . import Case

PEER = "SciPy optimize"

METHODS = {"2-point": "forward", "3-point": "central", "cs": "complex"}


def vectors(x):
    return np.array([x[0] ** 2, np.tan(x[0]), np.exp(x[0])])


def slopes_of_vectors(x):
    return np.array([2 * x[0], np.cos(x[0]) ** -2, np.exp(x[0])])[:, np.newaxis]


def number(x):
    return np.sin(x[0] * x[1]) * np.log(x[0])


def slopes_of_number(x):
    a, b = x
    wave = np.cos(a * b) * np.log(a)
    return np.array([b * wave + np.sin(a * b) / a, a * wave])


def mixed(x):
    return np.array([x[0] * np.sin(x[1]), x[1] * np.cos(x[0]), x[0] ** 3 * x[1] ** -0.5])


def slopes_of_mixed(x):
    a, b = x
    return np.array(
        [
            [np.sin(b), a * np.cos(b)],
            [-b * np.sin(a), np.cos(a)],
            [3 * a**2 * b**-0.5, -0.5 * a**3 * b**-1.5],
        ]
    )


FUNCTIONS = {
    "scalar_scalar": (np.sinh, np.cosh, 1.0, (1e-6, 1e-9, 1e-12)),
    "scalar_vector": (vectors, slopes_of_vectors, [0.5], (1e-6, 1e-9, 1e-12)),
    "vector_scalar": (number, slopes_of_number, [100.0, -0.5], (1e-6, 1e-7, 1e-12)),
    "vector_vector": (mixed, slopes_of_mixed, [-100.0, 0.2], (1e-5, 1e-6, 1e-12)),
}
"""f, its derivatives, x, and the tolerances of the three methods."""

OPERATORS = {
    "scalar_scalar": (1e-5, 5e-6, 5e-6),
    "scalar_vector": (1e-5, 5e-6, 5e-6),
    "vector_scalar": (1e-5, 5e-6, 1e-7),
    "vector_vector": (1e-5, 1e-6, 1e-7),
}
"""The tolerances of Jacobians times vectors."""


def cases():
    """Yield all."""
    yield from groups()
    yield from adjusted_to_bounds()
    yield from dense()
    yield from with_options()
    yield from precisions()
    yield from checks()
    yield from sparse_ones()
    yield from products()
    yield from sides()
    yield from of_optimize()


def groups():
    """Yield cases of columns that are moved together: three groups, none with two in a row."""
    structure = sparse.diags_array([1, 1, 1], offsets=[-1, 0, 1], shape=(6, 6), dtype=int).toarray()
    structure = np.vstack([structure, np.zeros(6, int)])

    def found(kind, order):
        numbers = group_columns(kind(structure[:, order]))
        sums = [structure[:, order][:, numbers == k].sum(axis=1).max() for k in range(3)]
        return [numbers.max() + 1, *sums]

    kinds = {
        "dense": np.asarray,
        "csr": sparse.csr_array,
        "csc": sparse.csc_array,
        "lil": sparse.lil_array,
    }
    for name, kind in kinds.items():
        for order in ([*range(6)], [1, 2, 4, 3, 5, 0]):
            call = partial(found, kind, order)
            yield Case(f"test_group_columns: {name}, order {order}", call, [3, 1, 1, 1])
    yield Case(
        "test_group_columns: twice", lambda: group_columns(structure), group_columns(structure)
    )


def adjusted_to_bounds():
    """Yield cases of points that are to stay within bounds, by a function that is nan outside."""
    middle, ones = np.array([0.0, 0.85, -0.85]), np.ones(3)
    near, low, high = np.array([0.0, 0.03]), np.full(2, -0.03), np.full(2, 0.05)
    places = {
        "no_bounds": (np.zeros(3), 0.01, -np.inf * ones, np.inf * ones),
        "with_bound": (middle, 0.1, -ones, ones),
        "tight_bounds": (near, 0.1, low, high),
    }
    accuracies = {
        "1-sided, 1 step": schemes.forward(1),
        "1-sided, 2 steps": schemes.forward(2),
        "2-sided, 1 step": schemes.central(2),
        "2-sided, 2 steps": schemes.central(4),
    }
    for (place, (x, h, lower, upper)), (name, scheme) in product(
        places.items(), accuracies.items()
    ):
        power = scheme.accuracy if scheme.accuracy < 4 else 4

        def f(x, lower=lower, upper=upper, power=power):
            return ((x + 2) ** power).sum() if ((lower <= x) & (x <= upper)).all() else np.nan

        call = partial(numerical_gradient, f, x, h, scheme=scheme, bounds=(lower, upper))
        yield Case(f"test_{place}: {name}", call, power * (x + 2) ** (power - 1), 1e-10)


def dense():
    """Yield cases of steps that fit f, of given ones, and of calls that others make."""
    for name, (f, slopes, x, tolerances) in FUNCTIONS.items():
        exact = slopes(np.asarray(x))
        for (method, scheme), rtol in zip(METHODS.items(), tolerances, strict=True):
            workers = map if name == "scalar_vector" and method == "3-point" else None
            call = partial(jacobian, f, x, scheme=scheme, workers=workers)
            yield Case(f"test_{name}: {method}", call, exact, rtol)
    for name, tolerances in {
        "scalar_scalar": (1e-6, 1e-9, 1e-12),
        "vector_scalar": (1e-6, 3e-9, 1e-12),
    }.items():
        f, slopes, x, _ = FUNCTIONS[name]
        for (method, scheme), rtol in zip(METHODS.items(), tolerances, strict=True):
            # The tolerances are less than what rounding costs at such steps: sqrt(eps), or the
            # 1.49e-8 that stands for it.
            h = 2**-26 if name == "scalar_scalar" else 1.49e-8
            call = partial(jacobian, f, x, h, scheme=scheme)
            yield Case(f"test_{name}_abs_step: {method}", call, slopes(np.asarray(x)), rtol)
    for method, scheme in METHODS.items():
        test, x = "test_workers_evaluations_and_nfev", [0.5, 1.5, 2.0]
        call = partial(jacobian, rosen, x, scheme=scheme)
        yield Case(f"{test}: {method}, map", partial(call, workers=map), call(), 0.0)

        def counts(scheme=scheme, x=x):
            calls = []
            found = differentiate(lambda x: calls.append(0) or rosen(x), x, scheme=scheme)
            return found.evaluations - len(calls)

        yield Case(f"{test}: {method}, calls", counts, 0)


def with_options():
    """Yield cases of relative steps, further arguments, bounds, and functions of math."""
    x = np.array([-0.1, 0.1])
    for method, rtol in {"2-point": 1e-2, "3-point": 1e-4}.items():
        call = partial(jacobian, mixed, x, 1e-4, relative=True, scheme=METHODS[method])
        yield Case(f"test_custom_rel_step: {method}", call, slopes_of_mixed(x), rtol)

    def parametrized(x, c0, c1=1.0):
        return np.array([np.exp(c0 * x[0]), np.exp(c1 * x[1])])

    for method, rtol in {"2-point": 1e-6, "3-point": 1e-9}.items():
        call = partial(
            jacobian,
            parametrized,
            np.ones(2),
            np.array([1e-6, 1e-7]),
            relative=True,
            scheme=METHODS[method],
            args=(-1.0,),
            kwargs={"c1": 1.0},
            bounds=(0.0, 2.0),
        )
        yield Case(f"test_options: {method}", call, [[-np.exp(-1), 0], [0, np.e]], rtol)
    ones = np.ones(2)
    yield Case(
        "test_with_bounds_2_point: x outside",
        partial(jacobian, mixed, np.array([-2.0, 0.2]), bounds=(-ones, ones)),
        refusal="outside.*bounds|bounds.*outside",
    )
    x = np.array([-1.0, 1.0])
    call = partial(jacobian, mixed, x, scheme="forward", bounds=(-ones, ones))
    yield Case("test_with_bounds_2_point: x on both", call, slopes_of_mixed(x), 1e-6)
    x = np.array([1.0, 2.0])
    for name, bounds in {
        "none": None,
        "lower": (ones, np.inf),
        "upper": (-np.inf, 2 * ones),
        "both": (ones, 2 * ones),
    }.items():
        call = partial(jacobian, mixed, x, bounds=bounds)
        yield Case(f"test_with_bounds_3_point: {name}", call, slopes_of_mixed(x), 1e-9)
    x = np.full(2, 10.0)
    for method, h in product(("2-point", "3-point"), ("auto", 1e-6)):
        call = partial(
            jacobian,
            mixed,
            x,
            h,
            relative=h != "auto",
            scheme=METHODS[method],
            bounds=(x - 3e-9, x + 2e-9),
        )
        yield Case(f"test_tight_bounds: {method}, {h}", call, slopes_of_mixed(x), 1e-6)

    def with_nan(x):
        return x if abs(x) <= 1e-8 else np.nan

    for x, (method, rtol) in product((0.0, 1e-8), {"2-point": 1e-6, "3-point": 1e-9}.items()):
        call = partial(jacobian, with_nan, x, 1e-6, scheme=METHODS[method], bounds=(-1e-8, 1e-8))
        yield Case(f"test_bound_switches: {x}, {method}", call, 1.0, rtol)

    def of_math(x):
        return math.exp(np.asarray(x).item())

    for method, rtol in {"2-point": 1e-6, "3-point": 1e-8}.items():
        call = partial(jacobian, of_math, 1.0, scheme=METHODS[method])
        yield Case(f"test_non_numpy: {method}", call, np.e, rtol)
    call = partial(jacobian, of_math, 1.0, scheme="complex")
    yield Case("test_non_numpy: cs", call, refusal="complex")
    call = partial(jacobian, lambda x: np.array([x**2, np.tan(x), np.exp(x)]), 1.0)
    yield Case("test_wrong_dimensions: x of no dimension", call, [2, np.cos(1) ** -2, np.e], 1e-8)


def precisions():
    """Yield cases of float32, and of float16, which holds no step."""
    x = np.linspace(0, 1, 100)
    y = np.random.default_rng(1).random(100)
    p = np.array([-1.0, -1.0])

    def error(p, x, y):
        return p[0] + p[1] * x - y

    exact = np.stack([np.ones(100), x], axis=1)
    single = p.astype(np.float32)
    calls = {
        "float64": partial(jacobian, error, p, scheme="forward", args=(x, y)),
        "x of float32": partial(jacobian, error, single, scheme="forward", args=(x, y)),
        "both of float32": partial(
            jacobian, lambda p: error(p, x, y).astype(np.float32), single, scheme="forward"
        ),
    }
    for name, call in calls.items():
        yield Case(f"test_fp: {name}", call, exact, 0.0, 1e-3)
    for dtype in (np.float16, np.float32, np.float64):
        eps = float(np.finfo(dtype).eps)
        yield Case(
            f"test_fp: error of {dtype.__name__}",
            partial(jacobian, np.sin, np.array(1.0, dtype), scheme="forward"),
            np.cos(1.0),
            0.0,
            eps**0.5 * (np.sin(1.0) / 2 + np.sin(1.0)),
            refusal=r"float16.*pass x\.astype",
        )


def checks():
    """Yield cases of derivatives that are compared with those of f."""
    x = np.array([-10.0, 10])

    def with_argument(x, arg):
        assert arg == 42
        return mixed(x)

    def flat(x):
        return np.array([x[0] * x[1], np.cos(x[0] * x[1])])

    def slopes_of_flat(x):
        wave = -np.sin(x[0] * x[1])
        return np.array([[x[1], x[0]], [x[1] * wave, x[0] * wave]])

    calls = {
        "mixed": partial(check_jacobian, mixed, x, slopes_of_mixed),
        "zero": partial(check_jacobian, flat, np.zeros(2), slopes_of_flat),
        "argument": partial(
            check_jacobian, with_argument, x, lambda x, arg: slopes_of_mixed(x), args=(42,)
        ),
        "keyword": partial(check_jacobian, partial(with_argument, arg=42), x, slopes_of_mixed(x)),
    }
    for name, call in calls.items():
        yield Case(f"test_check_derivative: {name}", lambda call=call: bool(call()), True)


def residuals(x):
    """Return those of the example, of which each depends on three neighbours."""
    e = x[1:] ** 3 - x[:-1] ** 2
    return np.hstack([0, 3 * e]) + np.hstack([2 * e, 0])


def slopes_of_residuals(x):
    n = len(x)
    below, above = -2 * x[:-1], 3 * x[1:] ** 2
    diagonal = np.zeros(n)
    diagonal[1:] += 3 * above
    diagonal[:-1] += 2 * below
    offsets = [-1, 0, 1]
    return sparse.diags_array([3 * below, diagonal, 2 * above], offsets=offsets).toarray()


def sparse_ones():
    """Yield cases of Jacobians whose structure is given."""
    n = 50
    lower, upper = -0.1 * (1 + np.arange(n)), 0.1 * (1 + np.arange(n))
    x = (1 - 1e-7) * np.where(np.arange(n) % 2, upper, lower)
    exact = slopes_of_residuals(x)
    structure = (slopes_of_residuals(np.ones(n)) != 0).astype(int)
    order = np.random.default_rng(121091202).permutation(n)
    shuffled = np.empty(n, int)
    shuffled[order] = group_columns(structure[:, order])

    def found(*args, **options):
        return jacobian(residuals, x, *args, **options).toarray()

    for method, (name, numbers), low, high, workers in product(
        METHODS,
        {"in order": group_columns(structure), "shuffled": shuffled}.items(),
        (-np.inf, lower),
        (np.inf, upper),
        (None, map),
    ):
        sides = [word for word, bound in (("lower", low), ("upper", high)) if np.ndim(bound)]
        name = f"test_all: {method}, {name}, {sides}, {workers}"
        sparsity = (structure, numbers)
        options = {"scheme": METHODS[method], "sparsity": sparsity, "workers": workers}
        yield Case(name, partial(found, bounds=(low, high), **options), exact, 1e-6)
        call = partial(found, 1e-8, relative=True, **options)
        yield Case(f"{name}, rel_step", call, exact, 1e-5)
    yield Case("test_no_precomputed_groups", partial(found, sparsity=structure), exact, 1e-6)
    every = (np.ones((n, n), int), np.arange(n))
    for method, scheme in METHODS.items():
        call = partial(found, 1e-8, scheme=scheme, sparsity=every)
        plain = jacobian(residuals, x, 1e-8, scheme=scheme)
        yield Case(f"test_equivalence: {method}", call, plain, 5e-16, 7e-15)
    yield Case(
        "TestApproxDerivativeSparse.test_check_derivative",
        lambda: bool(
            check_jacobian(residuals, x, lambda x: sparse.csr_array(slopes_of_residuals(x)))
        ),
        True,
    )


def products():
    """Yield cases of Jacobians times vectors, ten for each function and method."""
    for name, tolerances in OPERATORS.items():
        f, slopes, x, _ = FUNCTIONS[name]
        rng = np.random.default_rng(11290049580398)
        for i, (method, rtol) in product(range(10), zip(METHODS, tolerances, strict=True)):
            v = rng.uniform(-10, 10, np.shape(x))
            call = partial(directional_derivative, f, x, v, scheme=METHODS[method])
            exact = np.dot(slopes(np.asarray(x)), v)
            yield Case(f"LinearOperator.test_{name}: {method}, {i}", call, exact, rtol)
    x = np.array([-100.0, 0.2])
    yield Case(
        "LinearOperator.test_exception: x outside of bounds",
        partial(directional_derivative, mixed, x, np.ones(2), bounds=(1, np.inf)),
        refusal="outside.*bounds|bounds.*outside",
    )


def sides():
    """Yield cases of the side that is asked for, at a point where both slopes jump."""

    def roof(x):
        return abs(x[1] + 1) - abs(x[0] + 1)

    infinite = np.inf
    for name, (scheme, bounds, expected) in {
        "forward": ("forward", None, [-1, 1]),
        "backward": ("backward", None, [1, -1]),
        "forward, at an upper bound": ("forward", (-infinite, -1), [1, -1]),
        "backward, at a lower bound": ("backward", (-1, infinite), [-1, 1]),
        "forward and backward": ("forward", ([-1, -infinite], [infinite, -1]), [-1, -1]),
        "backward and forward": ("forward", ([-infinite, -1], [-1, infinite]), [1, 1]),
    }.items():
        call = partial(numerical_gradient, roof, [-1.0, -1.0], 1e-8, scheme=scheme, bounds=bounds)
        yield Case(f"test_absolute_step_sign: {name}", call, expected)
    call = partial(numerical_gradient, roof, [-1.0, -1.0], [1e-8, 1e-8], scheme="forward")
    yield Case("test_absolute_step_sign: a step for each", call, [-1, 1])
    call = partial(numerical_gradient, roof, [-1.0, -1.0], [1e-8, -1e-8])
    yield Case(
        "test_absolute_step_sign: steps of both signs",
        call,
        [-1, -1],
        refusal="h.*positive.*backward",
    )
    x = np.array([1e-5, 0, 1, 1e5])
    for method, sign in product(METHODS, (1, -1)):
        yield Case(
            f"test__compute_absolute_step: {method}, {sign}",
            partial(
                numerical_gradient,
                np.arctan,
                sign * x,
                "auto",
                scheme=METHODS[method],
                elementwise=True,
            ),
            1 / (1 + x**2),
            1e-5,
            1e-9,
        )


def himmelblau(p):
    return (p[0] ** 2 + p[1] - 11) ** 2 + (p[0] + p[1] ** 2 - 7) ** 2


def slopes_of_himmelblau(p):
    x, y = p
    u, v = x**2 + y - 11, x + y**2 - 7
    return np.array([4 * x * u + 2 * v, 2 * u + 4 * y * v])


def curvature_of_himmelblau(p):
    x, y = p
    across = 4 * x + 4 * y
    return np.array([[12 * x**2 + 4 * y - 42, across], [across, 4 * x + 12 * y**2 - 26]])


def of_optimize():
    """Yield cases of `approx_fprime` and `check_grad`."""
    x = np.array([-0.27, -0.9])
    call = partial(jacobian, himmelblau, x, 2**-26, scheme="forward")  # as it is there by default
    yield Case("test_approx_fprime: gradient", call, slopes_of_himmelblau(x), 5e-6)
    call = partial(jacobian, slopes_of_himmelblau, x, 2**-26, scheme="forward")
    yield Case("test_approx_fprime: Jacobian", call, curvature_of_himmelblau(x), 5e-6)

    def expit(x):
        return (1 / (1 + np.exp(-x))).sum()

    def slopes_of_expit(x):
        return np.exp(-x) / (1 + np.exp(-x)) ** 2

    def waves(x):
        return (x * np.sin(x)).sum()

    def slopes_of_waves(x):
        return np.sin(x) + x * np.cos(x)

    many = np.arange(0, 2, 0.2)
    calls = {
        "expit": partial(check_gradient, expit, np.array([1.5]), slopes_of_expit),
        "expit, random directions": partial(
            check_gradient, expit, np.array([1.5]), slopes_of_expit, fast=True
        ),
        "expit, h": partial(check_gradient, expit, np.array([1.5]), slopes_of_expit, h=1e-6),
        "expit, a large h": partial(
            check_gradient, expit, np.array([1.5]), slopes_of_expit, h=1e-1
        ),
        "waves, random directions": partial(
            check_gradient, waves, many, slopes_of_waves, fast=True
        ),
        "Jacobian": partial(check_jacobian, slopes_of_himmelblau, x, curvature_of_himmelblau),
    }
    for name, call in calls.items():
        yield Case(f"test_check_grad: {name}", lambda call=call: bool(call()), True)
    yield Case(
        "test_check_grad: no such direction",
        partial(check_gradient, waves, many, slopes_of_waves, fast="random_projection"),
        refusal="fast",
    )
