"""Cases with which other packages test their derivatives, and what fastgrad makes of them.

A file for each package yields its cases: the functions, points, exact derivatives and tolerances
are theirs, the code is not. A case is one assertion of theirs on one input. What they ask of their
inner parts counts only where fastgrad has the same question to answer.
``python -m tests.peers`` prints how many are right, and names all others.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

import numpy as np

from fastgrad.adaptive import Derivatives

VERDICTS = ("right", "wrong", "refused", "lacking")
"""What may become of a case: "refused" is one whose error message names a remedy."""

LACKING = {
    "grids": "derivatives of values that are given on a grid",
    "PDE operators": "gradient, divergence and Laplace operators on grids",
    "limits": "limits of functions, also along paths in the complex plane",
    "circles": "derivatives of more than tenth order, from values on circles in the complex plane",
    "residues": "residues at poles",
    "covariance": "covariances that are propagated through a function",
}
"""What fastgrad does not offer."""


@dataclass(frozen=True)
class Case:
    """One assertion of another package's tests.

    Attributes
    ----------
    name : str
        The test that it stands in, and the input: ``"TestDerivative.test_basic: x = 0.6"``.
    call : callable
        Calls fastgrad, and returns what is compared with expected; of Derivatives, the gradient.
    expected : number, array, dict, list or tuple of such, or callable; or None
        A callable returns what is expected. None where the other package refuses the input as well.
    rtol, atol : float
        The other package's tolerances, as `numpy.testing.assert_allclose` takes them.
    refusal : str, optional
        A pattern of the message by which fastgrad refuses, with what it tells to do instead.
    lacking : str, optional
        The key in `LACKING` of what would be needed.
    slow : bool
        Whether it is left out without ``--slow``: one of many that are alike.
    """

    name: str
    call: Callable[[], Any] | None = None
    expected: Any = None
    rtol: float = 1e-7
    atol: float = 0.0
    refusal: str | None = None
    lacking: str | None = None
    slow: bool = False


def peers() -> dict[str, ModuleType]:
    """Return the files of cases by the names of the packages, their `PEER`."""
    names = [found.name for found in iter_modules(__path__)]
    modules = [
        import_module(f"{__name__}.{name}") for name in names if not name.startswith(("_", "test_"))
    ]
    return {module.PEER: module for module in modules}


def cases_of(module: ModuleType) -> Iterator[Case]:
    """Yield the cases of a file, all of which have names of their own."""
    names = set()
    for case in module.cases():
        assert case.name not in names, f"two cases are named {case.name!r}"
        names.add(case.name)
        yield case


def judged(case: Case) -> tuple[str, str]:
    """Return the verdict on a case, and in words what was found if it is not right."""
    if case.lacking is not None:
        return "lacking", LACKING[case.lacking]
    assert case.call is not None, case.name
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = case.call()
            expected = case.expected() if callable(case.expected) else case.expected
    except Exception as error:
        told = f"{type(error).__name__}: {error}"
        if case.refusal is None or not re.search(case.refusal, str(error), re.DOTALL):
            return "wrong", told
        return ("right", "") if case.expected is None else ("refused", told)
    if expected is None:
        return "wrong", f"not refused: {found}"
    if isinstance(found, Derivatives):
        found = found.gradient
    try:
        _compare(found, expected, case.rtol, case.atol)
    except AssertionError as error:
        return "wrong", " ".join(str(error).split())
    return "right", ""


def _compare(found: Any, expected: Any, rtol: float, atol: float) -> None:
    """Compare numbers and arrays, or structures of such, by shape and value."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), f"keys {list(found)}"
        for key in expected:
            _compare(found[key], expected[key], rtol, atol)
    elif isinstance(expected, tuple):  # a list is an array
        assert len(found) == len(expected), f"{len(found)} arrays"
        for each, wanted in zip(found, expected, strict=True):
            _compare(each, wanted, rtol, atol)
    else:
        assert np.shape(found) == np.shape(expected), f"shape {np.shape(found)}"
        np.testing.assert_allclose(found, expected, rtol, atol, verbose=True)
