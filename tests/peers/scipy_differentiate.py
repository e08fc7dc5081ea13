"""SciPy's `differentiate`: derivatives, Jacobians and Hessians of elementwise functions.

Answers to scipy/differentiate/tests/test_differentiate.py, on NumPy arrays.
"""

from functools import partial
from itertools import product

import numpy as np
from scipy import special
from scipy.optimize import rosen, rosen_der, rosen_hess

from fastgrad import differentiate, schemes
from fastgrad.adaptive import STATUSES

from . import Case

PEER = "SciPy differentiate"


def density(x):
    return np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)


def cases():
    """Yield all."""
    yield from derivatives()
    yield from distributions()
    yield from statuses()
    yield from steps()
    yield from special_ones()
    yield from refusals()
    yield from jacobians()
    yield from hessians()


def at_all(f, x, **options):
    """Return the derivatives of an elementwise f."""
    return differentiate(f, x, elementwise=True, **options)


def derivatives():
    """Yield cases of shapes, types and arrays of functions."""
    few, many = 0.6, np.linspace(-0.05, 1.05, 10)
    for name, x in {"0.6": few, "10 points": many}.items():
        yield Case(f"test_basic: {name}", partial(at_all, special.ndtr, x), density(x))

        def covered(x=x):
            found = at_all(special.ndtr, x)
            return np.ravel(abs(found.gradient - density(x)) <= found.error)

        yield Case(f"test_basic: error at {name}", covered, np.full(np.size(x), True))
    for (name, scheme), shape in product(
        {"order 1": "forward", "order 6": schemes.central(6)}.items(),
        ((), (12,), (3, 4), (3, 2, 2)),
    ):
        x = np.linspace(-0.05, 1.05, 12).reshape(shape) if shape else np.array(0.6)
        name = f"test_vectorization: {name}, {shape}"
        call = partial(at_all, special.ndtr, x, scheme=scheme)
        rtol = 1e-6 if scheme == "forward" else 1e-7
        yield Case(name, call, density(x), rtol)

        def differences(x=x, scheme=scheme):
            """Return how far what is found at all points is from what is found at each."""
            together = at_all(special.ndtr, x, scheme=scheme)
            alone = [at_all(special.ndtr, each, scheme=scheme) for each in np.ravel(x)]
            numbers = [
                np.ravel(getattr(together, part)) - [float(getattr(a, part)) for a in alone]
                for part in ("gradient", "error", "step")
            ]
            changed = np.ravel(together.status) != [str(a.status) for a in alone]
            return np.stack([*numbers, changed])

        yield Case(f"{name}, one by one", differences, np.zeros((4, x.size)), 0, 1e-6)

        def evaluations(x=x, scheme=scheme):
            calls = []
            found = at_all(lambda x: calls.append(0) or special.ndtr(x), x, scheme=scheme)
            return found.evaluations - len(calls)

        yield Case(f"{name}, evaluations", evaluations, 0)
    for scheme, x, dtype in product(
        ("backward", "central", "forward"), (0.65, [0.65, 0.7]), (np.float32, np.float64)
    ):
        x = np.array(x, dtype)

        def typed(x=x, scheme=scheme):
            found = at_all(np.exp, x, scheme=scheme)
            return found.gradient.dtype == found.error.dtype == found.step.dtype == x.dtype

        name = f"test_dtype: {scheme}, {x.size}, {x.dtype}"
        yield Case(f"{name}, types", typed, True)
        call = partial(at_all, np.exp, x, scheme=scheme)
        yield Case(name, call, np.exp(x), float(np.finfo(dtype).eps) ** 0.5)

    def several(x):
        return np.stack([x, np.sin(3 * x), x + np.sin(10 * x), np.sin(20 * x) * (x - 1) ** 2])

    call = partial(differentiate, several, np.array(0.0))
    yield Case("test_preserve_shape", call, [1, 3, 11, 20])

    def power(x, p):
        return x**p

    x, p = np.arange(1.0, 5), np.array([2, 3])
    wide = np.broadcast_to(x[:, np.newaxis], (4, 2)).copy()
    for scheme in ("backward", "central", "forward"):
        call = partial(at_all, power, wide, args=(p,), scheme=scheme)
        yield Case(f"test_vectorized_step_direction_args: {scheme}", call, p * wide ** (p - 1))


def distributions():
    """Yield cases of the cumulative distributions of scipy.stats."""
    from scipy import stats  # which takes a second to load, in one of pytest's processes alone
    from scipy.stats._distr_params import distcont

    for name, parameters in distcont:
        distribution = getattr(stats, name)(*parameters)
        is_slow = name in {"studentized_range", "kstwo", "ksone", "genexpon", "vonmises"}

        def call(distribution=distribution):
            return at_all(distribution.cdf, distribution.median() + 0.1)

        def density(distribution=distribution):
            return distribution.pdf(distribution.median() + 0.1)

        yield Case(f"test_accuracy: {name}{parameters}", call, density, 1e-7, 1e-10, slow=is_slow)


def statuses():
    """Yield cases of what becomes of derivatives, and of tolerances."""
    rng = np.random.default_rng(5651219684984213)

    def several(x):
        noisy = np.exp(x) * rng.random()
        return np.stack([x - 2.5, noisy, np.exp(x), np.full_like(x, np.nan)])

    expected = ["converged", "no limit", "converged", "no limit"]
    numbers = [STATUSES.index(each) for each in expected]

    def of_each(x):
        noisy = np.exp(x[1]) * rng.random()
        return np.array([x[0] - 2.5, noisy, np.exp(x[2]), np.nan])

    def found(f, x, **options):
        status = differentiate(f, x, **options).status
        return [STATUSES.index(str(each)) for each in np.ravel(status)]

    yield Case("test_flags_preserve_shape", partial(found, several, np.array(1.0)), numbers)
    call = partial(found, of_each, np.ones(4), elementwise=True)
    yield Case("test_flags", call, numbers)
    exact = density(1.0)
    for tolerance in (1e-3, 1e-6):
        call = partial(at_all, special.ndtr, 1.0, tolerance=tolerance)
        yield Case(f"test_convergence: {tolerance}", call, exact, tolerance)

    def fewer():
        counts = [at_all(special.ndtr, 1.0, tolerance=t).evaluations for t in (1e-3, 1e-6, None)]
        return counts == sorted(counts)

    yield Case("test_convergence: calls", fewer, True)


def steps():
    """Yield cases of sides, and of first steps."""

    def inside(x):
        return np.where((x < 0) | (x > 2), np.nan, np.exp(x))

    x = np.linspace(0, 2, 10)
    call = partial(at_all, inside, x, bounds=(0, 2))
    yield Case("test_step_direction: by bounds", call, np.exp(x))
    for scheme, h in product(("backward", "central", "forward"), np.logspace(-3, 0, 10)):
        call = partial(at_all, np.exp, np.array(0.0), h=h, scheme=scheme)
        yield Case(f"test_initial_step: {scheme}, {h:.4g}", call, 1.0)
    for h in (0.5, 0.05):
        call = partial(at_all, special.ndtr, 1.0, h=h)
        yield Case(f"test_step_parameters: {h}", call, density(1.0))
    for scheme, h in product(("backward", "central", "forward"), (0.5, 1.0, 0.5**0.5)):
        call = partial(at_all, special.ndtr, 1.0, h=h, scheme=scheme)
        yield Case(f"test_step_parameters: {scheme}, {h:.3}", call, density(1.0))


def special_ones():
    """Yield cases of whole numbers, polynomials, and slopes that are 0."""

    def large(x):
        assert np.asarray(x).dtype.kind == "f"
        return x**99 - 1

    yield Case("test_special_cases: int", partial(at_all, large, 7), 99 * 7.0**98)
    for n in range(6):

        def polynomial(x, n=n):
            return 2 * x**n

        for name, scheme in {
            "central": "central",
            f"order {max(n, 2)}": schemes.central(n + n % 2 or 2),
        }.items():
            call = partial(at_all, polynomial, np.array(1.5), scheme=scheme)
            exact = 2 * n * 1.5 ** (n - 1)
            yield Case(f"test_special_cases: x**{n}, {name}", call, exact, 1e-15, 1e-15)
    call = partial(at_all, lambda x, c: c * x - 1, 2, args=(3,))
    yield Case("test_special_cases: a further argument", call, 3.0)
    flat = {
        "cube": lambda x: (x - 1) ** 3,
        "powers": lambda x: np.where(x > 1, (x - 1) ** 5, (x - 1) ** 3),
    }
    for (name, f), scheme in product(flat.items(), ("backward", "central", "forward")):
        call = partial(at_all, f, np.array(1.0), scheme=scheme)
        yield Case(f"test_saddle_gh18811: {name}, {scheme}", call, 0.0, 1e-7, 1e-16)


def refusals():
    """Yield cases of arguments that cannot be meant so."""
    one = np.array(1.0)

    def same(x):
        return x

    for name, (call, words) in {
        "f is None": (partial(at_all, None, one), "f is.*callable|not callable|NoneType"),
        "x is complex": (partial(at_all, same, np.array(-4 + 1j)), "complex"),
        "another shape": (partial(at_all, lambda x: [1, 2, 3], np.array([-2.0, -3])), "shape"),
        "tolerance -1": (partial(at_all, same, one, tolerance=-1), "tolerance"),
        "tolerance 'ekki'": (partial(at_all, same, one, tolerance="ekki"), "tolerance"),
        "h is an object": (partial(at_all, same, one, h=object()), "h "),
        "order 1.5": (partial(at_all, same, one, order=1.5), "order is 1.5"),
        "order 0": (partial(at_all, same, one, order=0), "order is 0"),
        "elementwise 'herring'": (
            partial(differentiate, same, one, elementwise="herring"),
            "elementwise",
        ),
        "progress 'shrubbery'": (partial(at_all, same, one, progress="shrubbery"), "progress"),
        "no side": (partial(at_all, same, one, scheme=np.nan), "scheme"),
        "h 0": (partial(at_all, same, one, h=0), "h is 0.*pass"),
    }.items():
        yield Case(f"TestDerivative.test_input_validation: {name}", call, refusal=words)
    x = np.ones(3)
    for order, (name, options, words) in product(
        (1, 2),
        (
            ("tolerance -1", {"tolerance": -1}, "tolerance"),
            ("h -1", {"h": -1}, "h is -1.*pass"),
            ("scheme -1", {"scheme": -1}, "scheme"),
            ("bounds -1", {"bounds": -1}, "bounds"),
        ),
    ):
        call = partial(differentiate, rosen, x, order=order, **options)
        yield Case(f"JacobianHessianTest.test_iv: order {order}, {name}", call, refusal=words)


def columns(x, *rows):
    """Return a Jacobian whose entries may be numbers at all points."""
    return np.array([[np.broadcast_to(entry, x.shape[1:]) for entry in row] for row in rows])


def spiral(z):
    x, y = z
    return np.stack([x**2 * y, 5 * x + np.sin(y)])


def slopes_of_spiral(z):
    x, y = z
    return columns(z, [2 * x * y, x**2], [5, np.cos(y)])


def polar(z):
    r, phi = z
    return np.stack([r * np.cos(phi), r * np.sin(phi)])


def slopes_of_polar(z):
    r, phi = z
    cos, sin = np.cos(phi), np.sin(phi)
    return columns(z, [cos, -r * sin], [sin, r * cos])


def sphere(z):
    r, phi, th = z
    return r * np.stack([np.sin(phi) * np.cos(th), np.sin(phi) * np.sin(th), np.cos(phi)])


def slopes_of_sphere(z):
    r, phi, th = z
    s, c, sth, cth = np.sin(phi), np.cos(phi), np.sin(th), np.cos(th)
    return columns(
        z,
        [s * cth, r * c * cth, -r * s * sth],
        [s * sth, r * c * sth, r * s * cth],
        [c, -r * s, 0],
    )


def four(z):
    a, b, c = z
    return np.stack([a, 5 * c, 4 * b**2 - 2 * c, c * np.sin(a)])


def slopes_of_four(z):
    a, b, c = z
    return columns(z, [1, 0, 0], [0, 0, 5], [0, 8 * b, -2], [c * np.cos(a), 0, np.sin(a)])


def five(z):
    a, b, c = z
    return np.stack([5 * b, 4 * a**2 - 2 * np.sin(b * c), b * c])


def slopes_of_five(z):
    a, b, c = z
    wave = -2 * np.cos(b * c)
    return columns(z, [0, 5, 0], [8 * a, c * wave, b * wave], [0, c, b])


EXAMPLES = {
    "f1": (spiral, slopes_of_spiral, 2),
    "f2": (polar, slopes_of_polar, 2),
    "f3": (sphere, slopes_of_sphere, 3),
    "f4": (four, slopes_of_four, 3),
    "f5": (five, slopes_of_five, 3),
    "rosen": (rosen, rosen_der, 5),
}
"""f of points in columns, its Jacobian, and the number of variables."""


def at_points(f, x, **options):
    """Return the derivatives at each of several points, whose coordinates are along axis 0."""
    flat = x.reshape(len(x), -1)
    found = [differentiate(f, point.copy(), **options).gradient for point in flat.T]
    return np.stack(found, axis=-1).reshape(*found[0].shape, *x.shape[1:])


def jacobians():
    """Yield cases of Jacobians."""
    rng = np.random.default_rng(458912319542)
    for dtype, size, (name, (f, slopes, m)) in product(
        (np.float32, np.float64), ((), (6,), (2, 3)), EXAMPLES.items()
    ):
        x = rng.random((m, *size)).astype(dtype)
        atol = 1e-10 if dtype == np.float64 else 1.99e-3
        rtol = 1e-7 if dtype == np.float64 else 4 * float(np.finfo(dtype).eps) ** 0.5
        name = f"test_examples: {name}, {size}, {dtype.__name__}"
        yield Case(name, partial(at_points, f, x), slopes(x.astype(float)), rtol, atol)

    def uneven(z):
        x, y = z
        return np.stack([np.cos(0.5 * x) * np.cos(y), np.sin(2 * x) * y**2])

    z = np.array([0.5, 0.25])
    exact = [
        [-0.5 * np.sin(0.25) * np.cos(0.25), -np.cos(0.25) * np.sin(0.25)],
        [2 * np.cos(1) * 0.25**2, np.sin(1) * 0.5],
    ]
    yield Case("test_attrs: h 10", partial(differentiate, uneven, z, 10), exact, 1.5e-10)
    for i, j in product(range(2), range(2)):

        def alone(v, i=i, j=j):
            point = z.copy()
            point[j] = v[0]
            return uneven(point)[i]

        call = partial(differentiate, alone, z[j : j + 1], 10)
        yield Case(f"test_attrs: h 10, {i}, {j}", call, exact[i][j : j + 1], 1.5e-10)
    b = np.random.default_rng(23892589425245).random(3)

    def bounded(x):
        inside = b[0] <= x[0] <= b[0] + 0.25 and b[1] - 0.1 <= x[1] <= b[1]
        return five(x) if inside else np.full(3, np.nan)

    bounds = ([b[0], b[1] - 0.1, -np.inf], [b[0] + 0.25, b[1], np.inf])
    call = partial(differentiate, bounded, b, [0.25, 0.1, 0.5], bounds=bounds)
    yield Case("test_step_direction_size", call, slopes_of_five(b), 1e-7, 1e-8)


def hessians():
    """Yield cases of Hessians."""
    rng = np.random.default_rng(458912319542)
    for shape in ((), (4,), (2, 4)):
        x = rng.random((3, *shape))
        exact = np.stack([rosen_hess(each) for each in x.reshape(3, -1).T], axis=-1)
        call = partial(at_points, rosen, x, order=2)
        yield Case(
            f"TestHessian.test_example: {shape}", call, exact.reshape(3, 3, *shape), 1e-7, 1e-8
        )
    x = rng.random(3).astype(np.float32)
    exact = rosen_hess(x.astype(float))
    atol = 1e-2 * abs(exact[exact != 0].min())
    call = partial(differentiate, rosen, x, order=2)
    yield Case("test_float32", call, exact, 4 * 2.0**-11.5, atol)
    z = np.array([0.5, 0.25])

    def counted():
        calls = []

        def f(z):
            calls.append(0)
            return np.sin(z[0]) * z[1] ** 3

        return differentiate(f, z, order=2).evaluations - len(calls)

    yield Case("test_nfev", counted, 0)
    call = partial(differentiate, np.sin, [1.0], order=2, tolerance=1e-15)
    yield Case("test_small_rtol_warning: the value", call, [[[-np.sin(1.0)]]], 1e-7)
