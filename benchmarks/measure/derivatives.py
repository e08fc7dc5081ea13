"""Jacobians, Hessians, elementwise derivatives and checks of PyTorch, beside other packages.

Sparse Jacobians beside SciPy's `approx_derivative`, Hessians beside numdifftools and statsmodels,
elementwise derivatives beside `scipy.differentiate`, checks beside `torch.autograd.gradcheck`.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numba
import numpy as np

from benchmarks.cases import rosenbrock
from benchmarks.cases.vector_functions import FUNCTIONS, tridiagonal, tridiagonal_bands
from benchmarks.measure.timing import Times, compare
from fastgrad import (
    check_gradient,
    detect_sparsity,
    differentiate,
    group_columns,
    hessian,
    jacobian,
)
from fastgrad.typing import Array

SLOW = {"studentized_range", "levy_stable"}
"""Distributions whose values take a second each."""

QUANTILES = 0.1, 0.3, 0.5, 0.7, 0.9
"""Where distributions are differentiated."""

jitted_tridiagonal: Any = numba.njit(tridiagonal)
"""Compiled: there are no operations of NumPy to be recorded."""


class Counted:
    """A function that counts its calls, and at how many numbers it is evaluated."""

    def __init__(self, f: Callable[..., Any]) -> None:
        self.f, self.calls, self.numbers = f, 0, 0

    def __call__(self, x: Any, *args: Any) -> Any:
        """Call f."""
        self.calls += 1
        self.numbers += np.size(x)
        return self.f(x, *args)


def largest_error(found: Any, exact: Any) -> float:
    """Return the largest error, relative to the largest element."""
    return float(abs(found - exact).max() / abs(exact).max())


# Sparse Jacobians ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Way:
    """How long a way to a derivative takes, how often it calls f, and how wrong it is."""

    times: Times
    calls: int
    error: float


def sparse_jacobians(n: int, rounds: int) -> dict[str, Way]:
    """Return the ways to the Jacobian of Broyden's tridiagonal residual of n variables."""
    from scipy import sparse
    from scipy.optimize._numdiff import approx_derivative

    x = np.random.default_rng(0).uniform(-1.5, -0.5, n)
    exact = sparse.diags_array(tridiagonal_bands(x), offsets=[-1, 0, 1]).tocsr()
    structure = exact.astype(bool)
    pair = structure, group_columns(structure)
    theirs = sparse.csr_matrix(structure), pair[1]
    eps = np.finfo(float).eps
    ways: dict[str, Callable[[Any], Any]] = {
        "SciPy, 3-point": lambda f: approx_derivative(f, x, "3-point", sparsity=theirs),
        "fastgrad, a given step": lambda f: jacobian(f, x, eps ** (1 / 3), sparsity=pair),
        'fastgrad, h="auto"': lambda f: jacobian(f, x, sparsity=pair),
        "SciPy, 2-point": lambda f: approx_derivative(f, x, "2-point", sparsity=theirs),
        "fastgrad, forward, a given step": lambda f: jacobian(
            f, x, eps**0.5, scheme="forward", sparsity=pair
        ),
        "detection alone": lambda f: detect_sparsity(f, x),
        "fastgrad of a compiled f": lambda f: jacobian(jitted(f), x, sparsity=pair),
        "detection alone of a compiled f": lambda f: detect_sparsity(jitted(f), x),
    }

    def jitted(f: Any) -> Any:
        if isinstance(f, Counted):
            f.f = jitted_tridiagonal
            return f
        return jitted_tridiagonal

    times = compare({name: partial(way, tridiagonal) for name, way in ways.items()}, rounds)
    found = {}
    for name, way in ways.items():
        counted = Counted(tridiagonal)
        derivative = way(counted)
        if isinstance(derivative, tuple):
            assert (derivative[0] != structure).nnz == 0
            error = 0.0
        else:
            error = largest_error(derivative, exact)
        found[name] = Way(times[name], counted.calls, error)
    return found


# Hessians -----------------------------------------------------------------------------------------


def dense_function(n: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """Return a smooth function of n variables that all have to do with each other; its Hessian."""
    a = np.random.default_rng(0).normal(size=(n + 10, n)) / 6

    def f(x: Any) -> Any:
        return np.log(np.exp(a @ x).sum()) + 0.5 * (np.tanh(a @ x) ** 2).sum()

    def exact(x: Any) -> Any:
        u = a.astype(x.dtype) @ x
        p, t = np.exp(u) / np.exp(u).sum(), np.tanh(u)
        s = 1 - t**2
        return a.T @ ((np.diag(p) - np.outer(p, p) + np.diag(s**2 - 2 * t**2 * s)) @ a)

    return f, exact


def rosenbrock_hessian(x: Any) -> Any:
    """Return the Hessian of `rosenbrock.plain`."""
    diagonal = np.zeros_like(x)
    diagonal[:-1] += 1200 * x[:-1] ** 2 - 400 * x[1:] + 2
    diagonal[1:] += 200
    beside = -400 * x[:-1]
    return np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)


def hessians(n: int) -> dict[tuple[str, str], tuple[int, float]]:
    """Return how often each way to a Hessian calls f, and how wrong it is, of two functions."""
    x = rosenbrock.start(n)
    ways: dict[str, Callable[[Any], Any]] = {
        "fastgrad, complex": lambda f: hessian(f, x, scheme="complex"),
        "fastgrad, central": lambda f: hessian(f, x),
        "fastgrad.differentiate": lambda f: differentiate(f, x, order=2).gradient,
    }
    if find_spec("statsmodels"):
        numdiff: Any = import_module("statsmodels.tools.numdiff")
        ways["statsmodels, complex"] = lambda f: numdiff.approx_hess_cs(x, f)
        ways["statsmodels, central"] = lambda f: numdiff.approx_hess(x, f)
    if find_spec("numdifftools"):
        numdifftools: Any = import_module("numdifftools")
        ways["numdifftools, complex"] = lambda f: numdifftools.Hessian(f, method="complex")(x)
        ways["numdifftools, central"] = lambda f: numdifftools.Hessian(f)(x)
    functions = {
        "Rosenbrock": (rosenbrock.plain, rosenbrock_hessian),
        "dense": dense_function(n),
    }
    found = {}
    for name, (f, exact) in functions.items():
        wanted = exact(x.astype(np.longdouble))
        for way, call in ways.items():
            counted = Counted(f)
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                error = largest_error(call(counted), wanted)
            found[name, way] = counted.calls, error
    return found


# Estimated errors ---------------------------------------------------------------------------------


@dataclass
class Coverage:
    """How many true errors of derivatives are not above their estimates.

    Attributes
    ----------
    entries, covered : int
        Of derivatives that are not 0.
    zeros, zeros_covered : int
        Of the others.
    worst : float
        The largest true error that is above its estimate, over that.
    names : list of str
        The functions of which an entry is not covered.
    """

    entries: int = 0
    covered: int = 0
    zeros: int = 0
    zeros_covered: int = 0
    worst: float = 0.0
    names: list[str] = field(default_factory=list)

    def add(self, name: str, found: Any, exact: Array) -> None:
        """Count what `differentiate` has found."""
        true, estimated = abs(found.gradient - exact), found.error
        covered, is_zero = true <= estimated, exact == 0
        self.entries += int(np.sum(~is_zero))
        self.covered += int(np.sum(covered & ~is_zero))
        self.zeros += int(np.sum(is_zero))
        self.zeros_covered += int(np.sum(covered & is_zero))
        if not covered.all():
            self.names.append(name)
            with np.errstate(divide="ignore"):
                self.worst = max(self.worst, float((true / estimated)[~covered].max()))


def coverage(every: int) -> dict[str, Coverage]:
    """Return how Jacobians and Hessians of half the sums of squares fare, of some functions."""
    result = {"Jacobians": Coverage(), "Hessians": Coverage()}
    for function in FUNCTIONS[::every]:
        name, x = function.name, function.x.copy()
        result["Jacobians"].add(name, differentiate(function.f, x), function.exact)
        second = differentiate(function.loss, x, order=2)
        result["Hessians"].add(name, second, function.hessian_of_loss)
    return result


# Elementwise --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Elementwise:
    """How a way to derivatives of all elements of an array fares.

    Attributes
    ----------
    errors : list of float
        The largest of each distribution, relative to its largest density at the points.
    calls, points : list of float
        How often each distribution is called, and at how many points for each of x.
    """

    errors: list[float] = field(default_factory=list)
    calls: list[int] = field(default_factory=list)
    points: list[float] = field(default_factory=list)


def densities(every: int) -> tuple[dict[str, Elementwise], list[str]]:
    """Differentiate the distribution functions of scipy.stats; return their names, too."""
    from scipy import stats
    from scipy.differentiate import derivative
    from scipy.stats._distr_params import distcont

    tight = {"rtol": 1e-13, "atol": 0.0}
    ways: dict[str, Callable[[Any, Array], Any]] = {
        "fastgrad.differentiate": lambda f, x: differentiate(f, x, elementwise=True).gradient,
        "the same, tolerance=1e-8": lambda f, x: (
            differentiate(f, x, elementwise=True, tolerance=1e-8).gradient
        ),
        "scipy.differentiate": lambda f, x: derivative(f, x).df,
        "the same, rtol=1e-13": lambda f, x: derivative(f, x, tolerances=tight).df,
    }
    found = {way: Elementwise() for way in ways}
    named = [case for case in distcont if isinstance(case[0], str) and case[0] not in SLOW]
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        for name, parameters in named[::every]:
            distribution = getattr(stats, name)(*parameters)
            x = distribution.ppf(QUANTILES)
            density = distribution.pdf(x)
            x, density = x[np.isfinite(density)], density[np.isfinite(density)]
            for way, call in ways.items():
                counted = Counted(distribution.cdf)
                error = largest_error(call(counted, x.copy()), density)
                found[way].errors.append(error if np.isfinite(error) else np.inf)
                found[way].calls.append(counted.calls)
                found[way].points.append(counted.numbers / len(x))
    return found, [name for name, _ in named[::every]]


# PyTorch ------------------------------------------------------------------------------------------


def check_function(apply: Callable[[Any], Any], x: Any) -> Any:
    """Return the report of `check_gradient` of a function of tensors, weighted and summed."""
    torch: Any = import_module("torch")
    weights = torch.randn(x.shape, dtype=x.dtype, generator=torch.Generator().manual_seed(1))

    def f(x: Any) -> Any:
        return (apply(x) * weights).sum()

    return check_gradient(f, x, lambda x: by_autograd(lambda y: f(y[0]), [x])[0])


def by_autograd(f: Callable[[Any], Any], tensors: Sequence[Any]) -> Any:
    """Return the gradient of f by PyTorch."""
    torch: Any = import_module("torch")
    with torch.enable_grad():
        leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        return torch.autograd.grad(f(leaves), leaves)


@dataclass(frozen=True)
class Autograd:
    """What came of checking functions of PyTorch.

    Attributes
    ----------
    times : dict of str to Times
        Of the checks of a right one.
    faults : dict of str to (bool, bool, bool)
        Whether each planted fault is found, and named, and found by gradcheck.
    modules : list of Module
    """

    times: dict[str, Times]
    faults: dict[str, tuple[bool, bool, bool]]
    modules: "list[Module]"


@dataclass(frozen=True)
class Module:
    """What came of checking all parameters of a module along random directions.

    Attributes
    ----------
    dtype : str
    size : int
        How many parameters it has.
    passes : dict of str to bool
        Whether it passes a check.
    calls : int
        Of the loss, by fastgrad's.
    times : dict of str to Times
    """

    dtype: str
    size: int
    passes: dict[str, bool]
    calls: int
    times: dict[str, Times]


def autograd(rows: int, columns: int, width: int, rounds: int) -> Autograd:
    """Check an `autograd.Function`, wrong ones, and modules."""
    torch: Any = import_module("torch")
    cases: Any = import_module("benchmarks.cases.autograd_functions")
    torch.set_num_threads(1)
    x, right = cases.inputs(rows, columns), cases.function()
    gradcheck = torch.autograd.gradcheck
    calls: dict[str, Callable[[], Any]] = {
        "check_gradient": lambda: check_function(right, x),
        "gradcheck, slow": lambda: gradcheck(right, (x,)),
        "gradcheck, slow, of its sum": lambda: gradcheck(lambda x: right(x).sum(), (x,)),
        "gradcheck, fast": lambda: gradcheck(right, (x,), fast_mode=True),
    }
    assert all(call() for call in calls.values())
    faults = {}
    for name, fault in cases.FAULTS.items():
        wrong = cases.function(fault.backward)
        report = check_function(wrong, x)
        named = fault.words != "" and fault.words in str(report)
        passes = gradcheck(wrong, (x,), raise_exception=False)
        faults[name] = not report, named, not passes
    modules = []
    for dtype in ("float64", "float32"):
        loss, parameters = cases.module(width, getattr(torch, dtype))
        values = loss(parameters)
        gradient = dict(
            zip(parameters, torch.autograd.grad(values, [*parameters.values()]), strict=True)
        )
        counted = Counted(loss)
        check_gradient(counted, parameters, gradient, fast=True)
        checks: dict[str, Callable[[], Any]] = {
            "check_gradient": partial(check_gradient, loss, parameters, gradient, fast=True),
            "gradcheck": partial(
                gradcheck,
                lambda *values, loss=loss: loss(values),
                (*parameters.values(),),
                fast_mode=True,
                raise_exception=False,
            ),
        }
        with warnings.catch_warnings():  # gradcheck's, of single precision
            warnings.simplefilter("ignore")
            passes = {name: bool(check()) for name, check in checks.items()}
            times = compare(checks, min(rounds, 3))
        size = sum(values.numel() for values in parameters.values())
        modules.append(Module(dtype, size, passes, counted.calls, times))
    return Autograd(compare(calls, rounds), faults, modules)
