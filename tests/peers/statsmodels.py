"""statsmodels: gradients and Hessians of likelihoods.

Answers to statsmodels/tools/tests/test_numdiff.py, on data of the same kind: a logit model of two
classes and four parameters, and one of three classes. Its three ways to a Hessian by real
differences are one here.
"""

from functools import partial
from itertools import product

import numpy as np

from fastgrad import Jacobian, hessian, jacobian, numerical_gradient

from . import Case

PEER = "statsmodels"


class Logit:
    """The logarithm of the likelihood of classes, which a linear model gives; a class more is 0.

    Parameters
    ----------
    observations, classes, variables : int
    """

    def __init__(self, observations, classes, variables):
        rng = np.random.default_rng(187678)
        self.x = np.column_stack(
            [rng.normal(size=(observations, variables - 1)), np.ones(observations)]
        )
        self.classes = classes - 1
        truth = rng.normal(size=(variables, self.classes))
        chances = self.chances(self.x @ truth).cumsum(axis=1)
        drawn = (rng.random((observations, 1)) > chances).sum(axis=1)
        self.y = np.eye(classes)[:, : self.classes][drawn]
        self.parameters = truth.T.ravel() + 0.1 * rng.normal(size=truth.size)

    def chances(self, scores):
        powers = np.exp(scores)
        return powers / (1 + powers.sum(axis=1, keepdims=True))

    def scores(self, p):
        return self.x @ p.reshape(self.classes, -1).T

    def loglike(self, p):
        scores = self.scores(p)
        return (self.y * scores).sum() - np.log1p(np.exp(scores).sum(axis=1)).sum()

    def score(self, p):
        return ((self.y - self.chances(self.scores(p))).T @ self.x).ravel()

    def hessian(self, p):
        chances = self.chances(self.scores(p))
        n = p.size
        spread = np.einsum("ij,jk->ijk", chances, np.eye(self.classes))
        spread -= np.einsum("ij,ik->ijk", chances, chances)
        return -np.einsum("ijk,ia,ib->jakb", spread, self.x, self.x).reshape(n, n)


def cases():
    """Yield all."""
    yield from likelihoods()
    yield from sums_of_squares()
    yield from shapes_and_types()


def likelihoods():
    """Yield cases of scores, and of Hessians by scores and by likelihoods."""
    for name, model in {"Logit": Logit(32, 2, 4), "MNLogit": Logit(300, 3, 6)}.items():
        p = model.parameters
        score, curvature = model.score(p), model.hessian(p)
        for scheme, decimals in (("forward", 1), ("complex", 11)):
            call = partial(jacobian, model.loglike, p, scheme=scheme)
            yield Case(f"{name}.test_score: {scheme}", call, score, 0, 1.5 * 10.0**-decimals)
        for scheme, rtol, atol in (
            ("complex", 1e-13, 0),
            ("complex", 0, 1.5e-8),
            ("central", 1e-9 if name == "Logit" else 0, 1.5e-4 * (name != "Logit")),
            ("forward", 0, 1.5e-4),
        ):
            call = partial(jacobian, model.score, p, scheme=scheme)
            test = f"{name}.test_hess: score, {scheme}, {rtol or atol}"
            if rtol == 1e-13:
                atol = 1e-13  # elements that cancel
            yield Case(test, call, curvature, rtol, atol)
        for scheme, h, rtol, atol in (
            ("complex", "auto", 1e-9, 1e-9),
            ("forward", 1e-6, 0, 1.5e-1),
            ("central", 1e-4, 0, 1.5e-3),
            ("central", "auto", 0, 1.5e-4),
        ):
            if name == "MNLogit" and h != "auto":
                continue  # they are said not to work there
            call = partial(hessian, model.loglike, p, h, scheme=scheme)
            yield Case(f"{name}.test_hess: {scheme}, {h}", call, curvature, rtol, atol)
        for h in (1e-6, 1e-4):
            call = partial(numerical_gradient, model.loglike, p, h)
            yield Case(f"{name}.test_hess: gradient, {h}", call, score, 0, 1.5e-1)


def sums_of_squares():
    """Yield cases of a linear function, of squares and of their sum."""
    rng = np.random.RandomState(187678)
    x = rng.randn(200, 3)
    y = x.sum(axis=1) + 0.1 * rng.randn(200)
    fitted = np.linalg.pinv(x) @ y

    def linear(p, x):
        return (x @ p).sum(0)

    def squares(p, y, x):
        return (y - x @ p) ** 2

    def total(p, y, x):
        return squares(p, y, x).sum(0)

    def slopes(p):
        return -2 * x * (y - x @ p)[:, np.newaxis]

    for name, f, args, gradient, curvature in (
        ("Fun", linear, (x,), lambda p: x.sum(axis=0), np.zeros((3, 3))),
        ("Fun1", squares, (y, x), slopes, None),
        ("Fun2", total, (y, x), lambda p: slopes(p).sum(axis=0), 2 * x.T @ x),
    ):
        for where, p in {"ones": np.ones(3), "fitted": fitted}.items():
            name_of = f"TestDerivative{name}.{{}}: {where}"
            find = partial(jacobian, f, p, args=args)

            def both_sides(find=find):
                return (find(1e-6, scheme="forward") + find(1e-6, scheme="backward")) / 2

            yield Case(name_of.format("test_grad_fun1_fd"), both_sides, gradient(p), 0, 1.5e-6)
            call = partial(find, 1e-8)
            yield Case(name_of.format("test_grad_fun1_fdc"), call, gradient(p), 0, 1.5e-5)
            call = partial(find, scheme="complex")
            yield Case(name_of.format("test_grad_fun1_cs"), call, gradient(p), 0, 1.5e-13)
            if curvature is None:
                continue
            for scheme, atol in (("forward", 1.5e-3), ("central", 1.5e-3), ("complex", 1.5e-6)):
                call = partial(hessian, f, p, args=args, scheme=scheme)
                test = name_of.format(f"test_hess_fun1, {scheme}")
                yield Case(test, call, curvature, 0, atol)


def shapes_and_types():
    """Yield cases of whole and complex numbers, of columns and of rows."""

    def double(x):
        return 2 * x

    for name, x in {
        "int": np.array([1, 2]),
        "float": np.array([1.0, 2.0]),
        "complex": np.array([1 + 0j, 2 + 0j]),
    }.items():
        call, truth = partial(Jacobian(double), x), 2 * np.eye(2)
        yield Case(f"test_dtypes: {name}", call, truth, 1e-7, 1e-10, refusal="complex.*pass")
    call = partial(jacobian, double, np.array([1, 2]))
    yield Case("test_dtypes: int, in place", call, 2 * np.eye(2), refusal="int64.*pass")
    for (name, shape), scheme in product(
        {"column": (2, 1), "flat": (2,), "row": (1, 2)}.items(), ("forward", "complex")
    ):
        x = np.array([1.0, 2.0]).reshape(shape)
        call = partial(numerical_gradient, double, x, "auto", scheme=scheme, elementwise=True)
        yield Case(f"test_vectorized: {name}, {scheme}", call, np.full(shape, 2.0), 1e-8)
    call = partial(hessian, lambda x: (x**2).sum(), np.array([1.0, 2.0, 3.0]))
    yield Case("test_approx_hess_matches_approx_hess3", call, 2 * np.eye(3), 1e-7, 1e-6)
