"""numdifftools: derivatives by extrapolation, of orders up to ten, with error estimates.

Answers to the tests of core, example_functions, fornberg, limits, multicomplex (derivatives), and
of what it makes of SciPy and statsmodels; algopy's derivatives are no differences. Its complex
methods of higher derivatives are answered by central differences: what is asked for is a number.
"""

from functools import cache, partial
from itertools import product

import mpmath
import numpy as np

from fastgrad import differentiate, directional_derivative, jacobian, schemes

from . import Case

PEER = "numdifftools"

METHODS = ("complex", "central", "forward", "backward")

NAMES = {
    **{name: name for name in ("cos", "sin", "tan", "cosh", "sinh", "tanh", "exp", "expm1")},
    **{name: name for name in ("sqrt", "log", "log1p", "log10")},
    **{f"arc{name}": f"a{name}" for name in ("cos", "sin", "tan", "cosh", "sinh", "tanh")},
}
"""NumPy's names, and mpmath's."""

HIGHEST = {
    **dict.fromkeys(("arcsin", "arccos", "arcsinh", "arccosh", "arctanh"), 3),
    **dict.fromkeys(("arctan", "tan", "tanh", "log", "log2", "log10"), 4),
    **dict.fromkeys(("sqrt", "log1p"), 5),
}
"""The highest derivatives that are compared, where these are not 10."""


@cache
def exact(name, x, n=1):
    """Return the n-th derivative of a function at x, by 60 digits."""
    others = {
        "exp2": lambda x: mpmath.mpf(2) ** x,
        "log2": lambda x: mpmath.log(x, 2),
        "square": lambda x: x * x,
    }
    with mpmath.workdps(60):
        f = others[name] if name in others else getattr(mpmath, NAMES[name])
        return float(mpmath.diff(f, mpmath.mpf(float(x)), n).real)


def scheme_of(method, order, n=1):
    """Return a scheme for the n-th derivative."""
    if method == "complex" and n == 1:
        return "complex"
    if method in ("complex", "central", "central2"):
        return schemes.central(order + order % 2, n)
    return getattr(schemes, method)(order, n)


def rosen(x):
    return (1 - x[0]) ** 2 + 105 * (x[1] - x[0] ** 2) ** 2


def within(found, truth, times):
    """Say whether the error is covered by so many estimates of it, and the rounding of f."""
    return bool(np.all(abs(found.gradient - truth) <= times * (found.error + 1e-16)))


def cases():
    """Yield all."""
    yield from rules()
    yield from of_cosine()
    yield from with_parameters()
    yield from single_functions()
    yield from example_functions()
    yield from high_orders()
    yield from multicomplex()
    yield from jacobians()
    yield from matrices()
    yield from gradients()
    yield from diagonals()
    yield from hessians()
    yield from odd_values()
    yield from not_offered()


def rules():
    """Yield cases of weights: of extrapolated quotients, and Fornberg's."""
    forward = {1: [-1, 2], 2: [1 / 3, -2, 8 / 3], 3: [-1 / 21, 2 / 3, -8 / 3, 64 / 21]}
    central = {1: [-1 / 3, 4 / 3], 2: [1 / 45, -4 / 9, 64 / 45]}
    for (name, rules, sides), terms in product(
        (("forward", forward, (1,)), ("backward", forward, (-1,)), ("central", central, (1, -1))),
        (1, 2, 3),
    ):
        if terms not in rules:
            continue
        steps = [0.5**k for k in range(terms + 1)]

        def weights(sides=sides, steps=steps):
            scheme = schemes.from_offsets([0, *(s * step for s in sides for step in steps)])
            found = dict(zip(scheme.offsets, scheme.numerators, strict=True))
            side, width = sides[0], len(sides)
            return [found[side * s] * side * s * width / scheme.denominator for s in steps]

        yield Case(f"TestRichardson: {name}, {terms} terms", weights, rules[terms], 1e-7, 1e-8)
    points = range(-2, 3)
    for n, row in enumerate(
        (
            [0, 0, 1, 0, 0],
            [1 / 12, -2 / 3, 0, 2 / 3, -1 / 12],
            [-1 / 12, 4 / 3, -5 / 2, 4 / 3, -1 / 12],
            [-1 / 2, 1, 0, -1, 1 / 2],
            [1, -4, 6, -4, 1],
        )
    ):
        call = partial(floats, points, n)
        yield Case(f"test_all_weights: derivative {n}", call, row, 1e-7, 1e-12)
    for n, half, row in (
        (1, 1, np.array([-1, 0, 1]) / 2),
        (1, 2, np.array([1, -8, 0, 8, -1]) / 12),
        (1, 3, np.array([-1, 9, -45, 0, 45, -9, 1]) / 60),
        (1, 4, np.array([3, -32, 168, -672, 0, 672, -168, 32, -3]) / 840),
        (2, 1, np.array([1, -2, 1])),
        (2, 2, np.array([-1, 16, -30, 16, -1]) / 12),
        (2, 3, np.array([2, -27, 270, -490, 270, -27, 2]) / 180),
        (2, 4, np.array([-9, 128, -1008, 8064, -14350, 8064, -1008, 128, -9]) / 5040),
    ):
        call = partial(floats, range(-half, half + 1), n)
        yield Case(f"test_weights: ({n}, {2 * half + 1})", call, row, 1e-7, 1e-15)


def floats(points, n):
    """Return the weights of a derivative as floats."""
    return [float(weight) for weight in schemes.finite_difference_weights([*points], n)]


def of_cosine():
    """Yield cases of derivatives of cos up to the seventh, of all methods and orders."""
    for method, n, order in product(METHODS, range(1, 7), (2, 4, 6, 8)):
        if n <= {"complex": 1, "central": 6}.get(method, 5):
            call = partial(differentiate, np.cos, np.pi / 2, scheme=scheme_of(method, order, n))
            name = f"test_high_order_derivative_cos: {method}, n {n}, order {order}"
            yield Case(name, call, exact("cos", np.pi / 2, n), 1e-7, 1e-4)
    points = (7.6564547238847105, 8.9428143931508, 2.2204460492503134e-14, 0.0, 1.0, 3.3, 10.0)
    for method, n, x in product(METHODS, range(1, 8), points):
        if n > {"complex": 7, "central": 6}.get(method, 4):
            continue
        orders = {"central": (2, 4, 6), "complex": (2,)}.get(method, (1, 2, 3, 4))
        for order in orders:
            if method == "complex" and 1 < n < 7:
                continue  # central differences again
            truth = exact("cos", x, n)

            def excess(x=x, method=method, order=order, n=n, truth=truth):
                found = differentiate(np.cos, x, scheme=scheme_of(method, order, n))
                allowed = 1e-6 * abs(truth) + 100 * found.error + 1e-14
                return bool(abs(found.gradient - truth) <= allowed)

            name = f"test_derivative_of_cos_x: {x}, {method}, n {n}, order {order}"
            yield Case(name, excess, True)


def with_parameters():
    """Yield cases of further arguments, for each kind of derivative."""

    def f(x, a, b=1):
        return b * a * x * x * x

    def total(x, a, b=1):
        return f(x, a, b).sum()

    kinds = {
        "Derivative": (f, {"elementwise": True}, 6, ()),
        "Gradient": (total, {}, 6, (1,)),
        "Jacobian": (f, {}, 6, (1, 1)),
        "Hessdiag": (total, {"order": 2, "diagonal": True}, 12, (1,)),
        "Hessian": (total, {"order": 2}, 12, (1, 1)),
    }
    for (kind, (g, options, truth, shape)), method, x in product(
        kinds.items(), METHODS, (0.0, 1.0)
    ):
        if "order" in options and method == "complex":
            continue
        point = np.full(shape[:1], x)
        options = {"args": (1.0,), "kwargs": {"b": 2}, "scheme": method, **options}
        find = differentiate
        if kind == "Jacobian":
            find, options["scheme"] = jacobian, scheme_of(method, 4)
        call = partial(find, g, point, **options)
        name = f"test_fun_with_additional_parameters: {kind}, {method}, {x}"
        yield Case(name, call, np.full(shape, truth * x), 1e-7, 1e-13)
        if not x:
            call = partial(find, g, point, 1e-20 if method == "complex" else 0.5, **options)
            name = f"test_derivative_with_step_options: {kind}, {method}"
            yield Case(name, call, np.zeros(shape), 1e-7, 1e-13)


def single_functions():
    """Yield cases of single functions."""
    at_all = partial(differentiate, elementwise=True)
    cube = np.full((3, 2), 2.0)
    waves = np.linspace(0, 2 * np.pi, 13)
    for name, call, truth, rtol, atol in (
        ("cube", partial(at_all, lambda x: x * x * x, cube), 3 * cube**2, 1e-8, 0),
        ("exp", partial(differentiate, np.exp, 0), 1.0, 1e-8, 0),
        ("sin", partial(at_all, np.sin, waves), np.cos(waves), 1e-7, 1e-8),
        ("sinh", partial(differentiate, np.sinh, 0.0, scheme="backward"), 1.0, 1e-7, 0),
        ("log, central", partial(differentiate, np.log, 0.001), 1000.0, 1e-7, 0),
        ("log", partial(differentiate, np.log, 0.001, scheme="forward"), 1000.0, 1e-7, 0),
    ):
        yield Case(f"TestDerivative: {name}", call, truth, rtol, atol)
    v = np.array([1.0, -1.0])
    slope = 743.87633380824832
    call = partial(directional_derivative, rosen, [2.0, 3.0], v / np.sqrt(2))
    yield Case("TestDerivative.test_directional_diff", call, slope)
    call = partial(directional_derivative, rosen, [2.0, 3.0], v, scheme=schemes.central(4))
    yield Case("TestGradient.test_directional_diff: v", call, slope * np.sqrt(2))

    def by_gradient():
        return differentiate(rosen, [2.0, 3.0]).gradient @ v / np.sqrt(2)

    yield Case("TestGradient.test_directional_diff: gradient", by_gradient, slope)
    call = partial(differentiate, lambda x: np.inf * np.ones_like(x), 0)
    yield Case("test_infinite_functions", call, np.nan, refusal="inf|nan")


def example_functions():
    """Yield cases of 19 functions, of their derivatives up to the tenth."""
    names = {*NAMES, "exp2", "log2", "square"} - {"arccosh", "arctanh"}
    x = 0.5
    for name, n, method in product(sorted(names), range(1, 11), METHODS):
        if n > HIGHEST.get(name, 10) or (n > 7 and method != "complex"):
            continue
        if method == "complex" and 1 < n < 8:
            continue  # central differences again
        truth = exact(name, x, n)
        f = getattr(np, name)
        atol = 1.5e-4 if method == "central" or n == 1 else 1.5e-2

        test = f"test_high_order_derivative: {name}, {n}, {method}"
        order = 8 if n > 7 else 2 + (n == 5)
        call = cache(partial(differentiate, f, x, scheme=scheme_of(method, order, n)))  # for both
        yield Case(test, call, truth, 0, atol)

        def covered(call=call, truth=truth):
            return within(call(), truth, 15)

        yield Case(f"{test}, error", covered, True)
    for name, method in product(sorted(names), METHODS):
        f, truth = getattr(np, name), exact(name, x)
        call = partial(differentiate, f, x, scheme=method)
        yield Case(f"test_first_order_derivative: {name}, {method}", call, truth, 0, 1.5e-7)
        call = partial(jacobian, f, x, scheme=method)
        test = "test_first_order_derivative: statsmodels"
        yield Case(f"{test}, {name}, {method}", call, truth, 0, 1.5e-7)


def high_orders():
    """Yield cases of what Fornberg finds by circles in the complex plane, up to the tenth."""
    digits = 10 if np.finfo(np.longdouble).eps < 1e-18 else 6
    for name in (*NAMES, "exp2", "log2", "square"):
        test = f"test_high_order_derivative: circles, {name}"
        for x in (0.1, 0.5, 0.98):
            x += name == "arccosh"
            for n in range(1, min(HIGHEST.get(name, 10), digits) + 1):
                f, point = getattr(np, name), np.array(x, np.longdouble)
                # By extrapolation where poles are near, by fixed steps for those without.
                find, order = (differentiate, 8) if name in HIGHEST or n < 5 else (jacobian, 12)
                call = partial(find, f, point, scheme=schemes.central(order, n))
                yield Case(f"{test}, {x}, {n}", call, exact(name, x, n), 1e-6, 1e-8)
        if name not in HIGHEST:
            yield Case(f"{test}, 11 to 19", lacking="circles")


def multicomplex():
    """Yield cases of first and second derivatives at several points at once."""
    names = [*NAMES, "exp2", "log2", "square"]
    for name, n in product(names, (1, 2)):
        x = np.linspace((0.0001, 0.01)[n - 1], 0.98, 5) + (name == "arccosh")
        truth = [exact(name, each, n) for each in x]
        call = partial(differentiate, getattr(np, name), x, elementwise=True, order=n)
        yield Case(f"multicomplex: {name}, {n}", call, truth, 1e-7)
    ranges = {
        "cos": (-0.99, 0.99, 1e-7),
        "log": (0.001, 5, 1e-7),
        "arccos": (-0.98, 0.98, 1e-5),
        "arccosh": (1.2, 5, 1e-5),
        "arctan": (0, 2, 1e-7),
    }
    for (name, (low, high, atol)), n in product(ranges.items(), (1, 2)):
        x = np.linspace(low, high, 5 + (name == "log"))
        truth = [exact(name, each, n) for each in x]
        call = partial(differentiate, getattr(np, name), x, elementwise=True, order=n)
        yield Case(f"TestBicomplex.test_der_{name}: {n}", call, truth, 1e-7, atol * (n > 1))
    x = np.linspace(-0.98, 0.98, 4)
    for n, truth in ((1, np.sign(x)), (2, np.zeros(4))):
        call = partial(differentiate, abs, x, elementwise=True, order=n)
        yield Case(f"TestBicomplex.test_der_abs: {n}", call, truth, 1e-7, 1e-6 * (n > 1))


def exponential(x):
    return x[0] * x[1] * x[2] + np.exp(x[0]) * x[1]


def powers(x):
    return np.array([x, x**2, x**3]).ravel()


def jacobians():
    """Yield cases of Jacobians: of its own, and by SciPy's and statsmodels' differences."""
    xs = np.arange(0, 1, 0.1)
    ys = 1 + 2 * np.exp(0.75 * xs)

    def residuals(c):
        return (c[0] + c[1] * np.exp(c[2] * xs) - ys) ** 2

    slopes = [[5 * (7 + np.exp(3)), 21 + np.exp(3), 15]]
    for method in METHODS:
        for x in (0.0, 1.0, -1.5, 3.25, 1e-3, 999.0, -1000.0, 1e-300):
            truth = [[1], [2 * x], [3 * x**2]]
            call = partial(differentiate, powers, [x], scheme=method)
            name = f"test_scalar_to_vector: {method}, {x}"
            yield Case(f"TestJacobian.{name}", call, truth, 1e-3, 1e-6)
            call = partial(jacobian, powers, [x], scheme=method)
            yield Case(f"statsmodels.{name}", call, truth, 1e-7, 1e-7)
        for x in (1e10, -1e30, 1e53, -1e-5):
            call = partial(jacobian, powers, [x], scheme=method)
            truth = [[1], [2 * x], [3 * x**2]]
            name = f"scipy.test_scalar_to_vector: {method}, {x}"
            yield Case(name, call, truth, 1e-7, 1e-6)
        x = [3.0, 5.0, 7.0]
        call = partial(differentiate, exponential, x, scheme=method)
        yield Case(f"TestJacobian.test_on_scalar_function: {method}", call, slopes[0])
        for peer in ("scipy", "statsmodels"):
            call = partial(jacobian, exponential, x, scheme=method)
            yield Case(f"{peer}.test_on_scalar_function: {method}", call, slopes[0])
        for order in (2, 4):
            scheme = scheme_of(method, order)
            call = partial(differentiate, residuals, [1, 2, 0.75], scheme=scheme)
            name = f"test_on_vector_valued_function: {method}"
            yield Case(f"TestJacobian.{name}, {order}", call, np.zeros((10, 3)), 0, 1e-12)
        for peer, atol in (("scipy", 1e-6), ("statsmodels", 1e-5)):
            call = partial(jacobian, residuals, [1, 2, 0.75], scheme=method)
            yield Case(f"{peer}.{name}", call, np.zeros((10, 3)), 0, atol)
        call = partial(jacobian, lambda x: x**2, np.ones(500), scheme=method)
        yield Case(f"test_issue_27a: {method}", call, 2 * np.eye(500), 1e-7, 1e-8, slow=True)
    call = partial(jacobian, lambda x: x**2, np.ones(1000), scheme="complex")
    yield Case("test_issue_27b", call, 2 * np.eye(1000), slow=True)
    call = partial(jacobian, lambda x: np.array([(x**2).sum() - 1]), [1.0, 2.0])
    yield Case("test_issue_68", call, [[2, 4]])
    call = partial(differentiate, lambda x: np.stack([x, x]), [1.0, 2.0])
    yield Case("test_issue_25: the same rows", call, [np.eye(2), np.eye(2)], 1e-7, 1e-12)
    call = partial(jacobian, lambda x: np.stack([x, x]), [1, 2])
    yield Case("statsmodels.test_issue_25", call, [np.eye(2), np.eye(2)], 1e-7, 1e-12)
    for k, truth in enumerate(([[18, 9, 12], [6, 3, 2]], [[180, 144, 240], [30, 24, 20]])):

        def two(x):
            return np.stack([x[0] * x[1] * x[2] ** 2, x[0] * x[1] * x[2]])

        call = partial(differentiate, two, np.array([[1.0, 2, 3], [4, 5, 6]])[k])
        yield Case(f"test_issue_25: column {k}", call, truth)
    for name in ("TestJacobian.test_jacobian_fulloutput", "TestGradient.test_gradient_fulloutput"):
        found = partial(differentiate, lambda x, y: x + y, 1, args=(3,))
        yield Case(name, found, 1.0)
        yield Case(f"{name}: error", lambda found=found: bool(found().error < 1e-13), True)


def sums(x):
    return np.array([x[0] ** 2 + x[1] ** 2, x[0] ** 3 + x[1] ** 3])


def matrices():
    """Yield cases of a Jacobian at several points, whose coordinates are along axis 0."""
    points = {
        "[1, 2]": [[1], [2]],
        "[3, 4]": [[3], [4]],
        "2 points": [[1, 2], [3, 4]],
        "4 points": [[1, 2, 3, 4], [5, 6, 7, 8]],
    }
    for (name, x), method in product(points.items(), METHODS):
        x = np.array(x, float)
        truth = np.array([2 * x, 3 * x**2])
        for peer, find in (
            ("TestJacobian", lambda *a, **k: differentiate(*a, **k).gradient),
            ("statsmodels", jacobian),
        ):
            # Statsmodels' step: the powers of whole numbers are rounded less than one expects.
            given = find is jacobian and method in ("forward", "backward")
            options = {"h": 2**-26, "relative": True} if given else {}
            options["scheme"] = method

            def found(find=find, x=x, options=options):
                return np.stack([find(sums, each.copy(), **options) for each in x.T], axis=-1)

            test = f"{peer}.test_on_matrix_valued_function: {name}, {method}"
            yield Case(test, found, truth)


def gradients():
    """Yield cases of gradients."""
    x = np.array([1, 2, 3])
    for method, order in product(METHODS, (2, 4)):
        call = partial(
            differentiate, lambda x: (x**2).sum(), x * 1.0, scheme=scheme_of(method, order)
        )
        yield Case(f"test_gradient: {method}, {order}", call, 2.0 * x)
    for peer, method in product(("scipy", "statsmodels"), METHODS):
        call = partial(jacobian, lambda x: (x**2).sum(), [1, 2, 3], scheme=method)
        yield Case(f"{peer}.TestGradient: {method}", call, 2.0 * x)

    def wave(x):
        return 1 / (np.exp(x[0]) + np.cos(x[1]) + 10)

    call = partial(differentiate, wave, [1.0, 2.0])
    yield Case("test_issue_39", call, [-0.017961123762187736, 0.0060082083648822])


def diagonals():
    """Yield cases of second derivatives with respect to single elements."""

    def f(x):
        return x[0] + x[1] ** 2 + x[2] ** 3

    points = {
        "[0, 16, 68]": (0.0, 16.003907623933742, 68.02057249966789),
        "[1, 2, 3]": (1, 2, 3),
        "tiny": (1.2009289063e-314,) * 3,
        "88": (88.01663712016305,) * 3,
        "[0, 20, 54]": (0.0, 19.945812226807096, 54.11322414875562),
        "negative": (-99.5, 12.25, -0.3),
    }
    for (name, x), order, method in product(points.items(), (2, 4, 6), METHODS[1:]):
        call = partial(
            differentiate,
            f,
            np.array(x, float),
            scheme=scheme_of(method, order),
            order=2,
            diagonal=True,
        )
        truth = [0, 2, 6 * x[2]]
        yield Case(f"test_fixed_step: {name}, {method}, {order}", call, truth, 1e-5, 1e-8)
    for order, method in product((2, 4, 6), METHODS[1:]):
        scheme = scheme_of(method, order)
        call = partial(differentiate, f, [1.0, 2, 3], scheme=scheme, order=2, diagonal=True)

        def close(call=call):
            found = call()
            off = abs(found.gradient - [0, 2, 18])
            return bool((off <= 1e-7 * np.array([0, 2, 18]) + min(1e-8, found.error.max())).all())

        yield Case(f"test_default_step: {method}, {order}", close, True)
    for steps in range(3, 7):
        call = partial(differentiate, f, [1.0, 2, 3], 2.0**-steps, order=2, diagonal=True)
        yield Case(f"TestHessdiag.test_complex: {steps}", call, [0, 2, 18], 1e-7, 1e-10)


def hessians():
    """Yield cases of Hessians."""

    def potential(x):
        """Return that of two ions in a trap: a spring each, and their repulsion."""
        mass, frequency, charge = 39.96 * 1.66e-27, 2e6 * np.pi, 1.602176634e-19
        repulsion = charge**2 / (4 * np.pi * 8.8541878128e-12)
        return mass * frequency**2 * (x**2).sum() / 2 + repulsion / abs(x[1] - x[0])

    mass, frequency = 39.96 * 1.66e-27, 2e6 * np.pi
    repulsion = 1.602176634e-19**2 / (4 * np.pi * 8.8541878128e-12)
    apart = (repulsion / (4 * mass * frequency**2)) ** (1 / 3)
    truth = np.array([[5.23748385, -2.61873829], [-2.61873829, 5.23748385]]) * 1e-12
    for peer, order in product(("TestHessian", "statsmodels"), (2, 4)):
        call = partial(
            differentiate, potential, [-apart, apart], order=2, scheme=schemes.central(order)
        )
        yield Case(f"{peer}.test_run_hamiltonian: {order}", call, truth, 1e-4)

    def wave(x):
        return np.cos(x[0] - x[1])

    def pair(x):
        return np.array([np.cos(x[0] * x[1]), np.sin(x[0] * x[1])])

    p, s, c = 15, np.sin(15), np.cos(15)
    truth = [
        [[-25 * c, -p * c - s], [-p * c - s, -9 * c]],
        [[-25 * s, c - p * s], [c - p * s, -9 * s]],
    ]
    e = np.exp(3)
    curvature = [[5 * e, e + 7, 5], [e + 7, 0, 3], [5, 3, 0]]
    for method, order in product(METHODS[1:], (2, 4)):
        scheme = scheme_of(method, order)
        name = f"{method}, {order}"
        call = partial(differentiate, wave, [0.0, 0.0], scheme=scheme, order=2)
        yield Case(f"test_hessian_cos_x_y_at_0_0: {name}", call, [[-1, 1], [1, -1]])
        call = partial(differentiate, exponential, [3.0, 5.0, 7.0], scheme=scheme, order=2)
        yield Case(f"TestHessian.test_on_scalar_function: {name}", call, curvature, 1e-7, 1e-4)
        call = partial(differentiate, pair, [3.0, 5.0], scheme=scheme, order=2)
        yield Case(f"TestHessian.test_on_vector_valued_function: {name}", call, truth, 1e-7, 1e-4)


def odd_values():
    """Yield cases of values that are nan or complex."""
    x = np.array([0.5, 1.0, 5.0])

    def masked(x):
        return np.where([True, False, True], np.exp(x), np.nan)

    for method, n in product(METHODS[1:], (1, 2)):
        at_all = partial(differentiate, x=x, elementwise=True, scheme=method, order=n)
        call = partial(at_all, masked)
        truth = at_all(np.exp).gradient * [1, np.nan, 1]
        yield Case(f"test_valid_derivatives_unchanged: {method}, {n}", call, truth, 0)
    for (name, find), full in product(
        {"Jacobian": jacobian, "Gradient": differentiate}.items(), (False, True)
    ):
        scheme = "complex" if full else "central"
        call = partial(find, lambda x: (1 + 1j) * (x**2).sum(), [1.0, 2.0], scheme=scheme)
        yield Case(f"test_complex_output: {name}, {scheme}", call, refusal="complex")
        call = partial(find, lambda x: (x**2).sum(), np.array([1j, 2.0]), scheme=scheme)
        yield Case(f"test_complex_variable: {name}, {scheme}", call, refusal="complex")
        call = partial(find, lambda x: (x**2).sum(), [1.0, 2.0], scheme=scheme)
        yield Case(f"test_real_valued: {name}, {scheme}", call, [2, 4])
    call = partial(jacobian, lambda x: (x**2).sum() + 0j, [1.0, 2.0], scheme="complex")
    yield Case("test_real_value_with_complex_dtype", call, [2, 4])
    call = partial(jacobian, lambda x: (1 + 1j) * x**2, [1.0, 2.0])
    truth = np.diag([2 + 2j, 4 + 4j])
    yield Case("test_central_complex_output", call, truth, refusal="complex.*differentiate lambda")
    for method in METHODS[1:]:
        call = partial(differentiate, lambda x: 1j * x @ x, np.ones(3), order=2, scheme=method)
        truth = 2j * np.eye(3)
        yield Case(
            f"test_complex_hessian_issue_35: {method}",
            call,
            truth,
            refusal="complex.*differentiate lambda",
        )


def not_offered():
    """Yield cases of what fastgrad lacks."""
    for n in range(1, 7):
        yield Case(f"test_fd_derivative: {n}", lacking="grids")
    for name in (
        "TestLimit.test_sinx_div_x: radial",
        "TestLimit.test_sinx_div_x: spiral",
        "TestLimit.test_derivative_of_cos",
        "TestLimit.test_residue_1_div_1_minus_exp_x",
        "TestLimit.test_difficult_limit",
        "TestExtrapolation.test_dea3_on_trapz_sin",
        "TestExtrapolation.test_dea_on_trapz_sin",
        "TestExtrapolation.test_richardson",
        "TestExtrapolation.test_epsal",
    ):
        yield Case(name, lacking="limits")
    for name in ("test_residue_1_div_1_minus_exp_x", "test_residue_1_div_sin_x2"):
        yield Case(f"TestResidue.{name}", lacking="residues")
