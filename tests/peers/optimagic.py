"""optimagic: derivatives of functions of arrays, numbers, and structures of both.

Answers to tests/optimagic/differentiation, on data of the same kind: a logit model. Of the tests of
its steps and options, those that ask what a user's arguments do.
"""

from dataclasses import dataclass
from functools import partial
from itertools import product

import numpy as np

from fastgrad import differentiate, hessian, jacobian, numerical_gradient, schemes

from . import Case

PEER = "optimagic"

METHODS = ("forward", "backward", "central")


def cases():
    """Yield all."""
    yield from likelihoods()
    yield from numbers()
    yield from structures()
    yield from steps()
    yield from refusals()


def likelihoods():
    """Yield cases of a logit model, of each observation and of all."""
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(100, 4)), np.ones(100)])
    p = np.array([0.4, -0.7, 1.1, 0.2, -0.3])
    y = (rng.random(100) < 1 / (1 + np.exp(-x @ p))).astype(float)
    chance = 1 / (1 + np.exp(-x @ p))
    slopes = (y - chance)[:, np.newaxis] * x
    curvature = -(chance * (1 - chance) * x.T) @ x

    def of_each(p):
        return -np.log1p(np.exp((1 - 2 * y) * (x @ p)))

    def of_all(p):
        return of_each(p).sum()

    infinite = (np.full(5, -np.inf), np.full(5, np.inf))
    for method in METHODS:
        call = partial(jacobian, of_each, p, scheme=method, bounds=infinite)
        yield Case(f"test_first_derivative_jacobian: {method}", call, slopes, 0, 1.5e-6)
        call = partial(numerical_gradient, of_all, p, "auto", scheme=method)
        truth = slopes.sum(axis=0)
        yield Case(f"test_first_derivative_gradient: {method}", call, truth, 0, 1.5e-4)
    yield Case(
        "test_first_derivative_jacobian_works_at_defaults",
        partial(jacobian, of_each, p),
        slopes,
        0,
        1.5e-6,
    )
    for method in (*METHODS, schemes.central(4)):
        call = partial(hessian, of_all, p, scheme=method)
        yield Case(f"test_second_derivative_hessian: {method}", call, curvature, 0, 1.5e-3)


@dataclass
class Output:
    """What a function returns beside its value."""

    value: float
    message: str


def numbers():
    """Yield cases of one number or a few, by single steps and by extrapolation."""

    def square(x):
        return x**2

    for method in METHODS:
        call = partial(differentiate, square, 3.0, scheme=method)
        yield Case(f"test_first_derivative_scalar: {method}", call, 6.0, 1e-14)
    for method in (*METHODS, schemes.central(4)):
        call = partial(hessian, square, 3.0, scheme=method)
        yield Case(f"test_second_derivative_scalar: {method}", call, 2.0, 0, 1.5e-6)
    ones = np.ones(3)
    for name, f, truth in (
        (
            "gradient",
            lambda x: np.sin(x[0]) + np.cos(x[1]) + x[2] - x[2],
            [np.cos(1), -np.sin(1), 0],
        ),
        (
            "jacobian",
            lambda x: np.array([np.sin(x[0]) + np.cos(x[1]), np.exp(x[2])]),
            [[np.cos(1), -np.sin(1), 0], [0, 0, np.e]],
        ),
    ):
        for find in (differentiate, jacobian):
            test = f"test_first_derivative_{name}_richardson: {find.__name__}"
            yield Case(test, partial(find, f, ones), truth, 0, 1.5e-6)

    def described(x):
        return Output(x @ x, "success")

    def value(x):
        return described(x).value

    call = partial(jacobian, value, ones)
    yield Case("test_first_derivative_with_unpacking", call, [2, 2, 2], 0, 1.5e-6)
    call = partial(hessian, value, ones)
    yield Case("test_second_derivative_with_unpacking", call, 2 * np.eye(3), 0, 1.5e-4)


def structures():
    """Yield cases of structures: their steps, bounds and derivatives."""

    def f(p):
        return p["a"] @ p["a"] + 2 * p["b"]

    p = {"a": np.array([1.0, 2, 3]), "b": 4.0}
    around = ({"a": p["a"] - 1, "b": 3.0}, {"a": p["a"] + 1, "b": 5.0})
    gradient = {"a": [2, 4, 6], "b": 2}
    curvature = {"a": {"a": 2 * np.eye(3), "b": np.zeros(3)}, "b": {"a": np.zeros(3), "b": 0.0}}
    for name, options in {
        "step_size": {"h": p},
        "min_steps": {"h": {"a": np.array([0.2, 0.5, 0.7]), "b": 0.2}, "bounds": around},
    }.items():
        call = partial(numerical_gradient, f, p, **options)
        yield Case(f"test_first_derivative_pytree_{name}", call, gradient, 1e-5, 1e-8)
        call = partial(hessian, f, p, **options)
        yield Case(f"test_second_derivative_pytree_{name}", call, curvature, 1e-5, 1e-8)
    call = partial(
        numerical_gradient, f, {"a": np.array([1, 2, 3]), "b": 4}, h={"a": [1] * 3, "b": 1}
    )
    yield Case(
        "test_first_derivative_pytree_step_size: whole numbers",
        call,
        gradient,
        1e-5,
        refusal="int64.*pass",
    )
    x = np.array([1.0, 2, 3])
    matrix = np.arange(9.0).reshape(3, 3)
    products = {"a": 2.0, "b": 1.0}

    def both(x):
        return np.array([x.sum(), x.prod()])

    def both_times(p):
        return p["b"] * both(p["a"])

    of_product = np.array([[0, 3, 2], [3, 0, 1], [2, 1, 0]])
    second = np.stack([np.zeros((3, 3)), of_product])
    first = np.array([[1, 1, 1], [6, 3, 2]])
    for name, f, p, truth, curvature in (
        ("scalar_input_scalar_output", lambda p: p**2, 1.0, 2.0, 2.0),
        ("array_input_scalar_output", lambda p: p @ p, x, 2 * x, 2 * np.eye(3)),
        (
            "dict_input_scalar_output",
            lambda p: p["a"] * p["b"],
            {"a": 1.0, "b": 2.0},
            products,
            {"a": {"a": 0.0, "b": 1.0}, "b": {"a": 1.0, "b": 0.0}},
        ),
        ("array_input_array_output", both, x, first, second),
        (
            "array_dict_input_array_output",
            both_times,
            {"a": x, "b": 2.0},
            {"a": 2 * first, "b": [6, 6]},
            {
                "a": {"a": 2 * second, "b": first},
                "b": {"a": first, "b": np.zeros(2)},
            },
        ),
    ):
        yield Case(f"test_{name}: first", partial(jacobian, f, p), truth, 0, 1.5e-5)
        yield Case(f"test_{name}: second", partial(hessian, f, p), curvature, 0, 1.5e-5)

    def flat_first(p):
        """Return a sum times a product of which one factor is 0."""
        return p["a"].sum() * p["b"].prod()

    p = {"a": x, "b": matrix}
    slopes = np.zeros((3, 3))
    slopes[0, 0] = 6 * np.prod(np.arange(1.0, 9))
    call = partial(jacobian, flat_first, p)
    test = "test_array_dict_input_scalar_output"
    yield Case(f"{test}: first", call, {"a": np.zeros(3), "b": slopes}, 1e-9, 1.5e-5)
    across = np.zeros((3, 3, 3))
    across[:, 0, 0] = np.prod(np.arange(1.0, 9))
    call = partial(hessian, flat_first, p)

    def parts(call=call):
        found = call()
        return found["a"]["a"], found["a"]["b"], found["b"]["a"]

    truth = (np.zeros((3, 3)), across, np.moveaxis(across, 0, -1))
    yield Case(f"{test}: second", parts, truth, 1e-6, 1e-2)

    def structure_out(p):
        value = both_times(p)
        return [value[0], {"c": 0.0, "d": value[1]}]

    for order, find in enumerate((jacobian, hessian), start=1):
        yield Case(
            f"test_array_dict_input_dict_output: {order}",
            partial(find, structure_out, {"a": x, "b": 2.0}),
            {},
            refusal="all of its numbers are in one array",
        )


def steps():
    """Yield cases of given steps, of linear functions and near bounds."""
    matrix = np.arange(1.0, 13).reshape(3, 4)
    for method, h in product(METHODS, (0.1, 0.2)):
        call = partial(jacobian, lambda x: matrix @ x, np.zeros(4), h, scheme=method)
        yield Case(f"test_jacobian_finite_differences: {method}, {h}", call, matrix, 0, 1.5e-6)

    def visited(bounds, scheme, h, x):
        """Return whether f was called beyond bounds, and how large the steps were."""
        seen = []
        numerical_gradient(
            lambda x: seen.append(x.copy()) or (x**2).sum(), x, h, scheme=scheme, bounds=bounds
        )
        lower, upper = bounds
        outside = [not ((lower <= each) & (each <= upper)).all() for each in seen]
        return [any(outside), *np.max(abs(np.array(seen) - x), axis=0)]

    three = np.ones(3)
    x = np.arange(3.0)
    each = np.array([0.1, 0.2, 0.3])
    for name, (bounds, scheme, h, start, sizes) in {
        "scalars_as_base_steps": ((-9 * three, 9 * three), "central", 0.1, three, [0.1] * 3),
        "arrays_as_base_steps": ((-9 * three, 9 * three), "central", each, three, each),
        "forward, at a bound": ((-2 * three, [0.5, 2, 3]), "forward", 0.4, 0 * x, [0.4] * 3),
        "backward, at a bound": ((-0.1 * three, 3 * three), "backward", 1.0, 0 * x, [1] * 3),
        "steps that fit": (
            (np.full(3, -9.0), np.full(3, 9.0)),
            schemes.central(4),
            each,
            x,
            2 * each,
        ),
    }.items():
        call = partial(visited, bounds, scheme, h, start.copy())
        yield Case(f"test_generate_steps: {name}", call, [0, *sizes], 1e-12)
    for name, scheme in (("central", "central"), ("two steps", schemes.central(4))):
        bounds = (np.full(3, -np.inf), np.full(3, 2.5))

        def beyond(scheme=scheme, bounds=bounds):
            return visited(bounds, scheme, np.array([0.1, 0.2, 0.6]), np.arange(3.0))[0]

        yield Case(f"test_generate_steps_binding_min_step: {name}", beyond, False)


def refusals():
    """Yield cases of options that cannot be meant so."""
    x = np.ones(3)

    def total(x):
        return x.sum()

    for name, (options, words) in {
        "step of 0": ({"h": 0}, "h is 0.*pass"),
        "step of -1": ({"h": -1}, "h is -1.*pass"),
        "wrong shape": ({"h": np.full(2, 0.01)}, "h has shape.*pass"),
        "too small": ({"h": np.array([1e-30, 0.01, 0.01])}, "h.*(lost|larger)"),
        "method": ({"scheme": "invalid"}, "scheme is 'invalid'.*pass"),
        "type": ({"scheme": 4.5}, "scheme is.*pass"),
        "n_cores": ({"workers": 0}, "workers is 0.*pass"),
        "batch_evaluator": ({"workers": "invalid"}, "workers.*pass"),
        "engine": ({"engine": "invalid"}, "engine.*pass"),
        "relative": ({"relative": "invalid"}, "relative is.*pass"),
        "bounds": ({"bounds": "invalid"}, "bounds.*pass"),
        "key": ({"wrong_key": "central"}, "wrong_key"),
    }.items():
        call = partial(numerical_gradient, total, x, **options)
        yield Case(f"test_numdiff_options_invalid: {name}", call, refusal=words)
