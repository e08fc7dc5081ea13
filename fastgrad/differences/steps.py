"""Steps: how far x is moved; given ones, ones relative to x, and the best ones for a scheme."""

import math
from functools import cache
from numbers import Real
from typing import Any

import numpy as np

from fastgrad.differences.validation import as_array, as_number, element_at
from fastgrad.schemes import Scheme
from fastgrad.typing import Array


def as_positive_number(h: object) -> float:
    """Return the step h as a float.

    Raises
    ------
    TypeError
        If h is not a real number.
    ValueError
        If h is not positive and finite.

    Examples
    --------
    >>> as_positive_number(1)
    1.0
    """
    step = as_number("h", h, "the step is a real number", "one such as 1e-4")
    if not 0 < step < math.inf:
        raise ValueError(f"h is {step}, but the step is positive and finite; pass one such as 1e-4")
    return step


def choose_steps(h: Any, x: Array, scheme: Scheme, *, relative: bool, eps: float) -> Any:
    """Return the steps, a float or an array ``(x.size,)`` in C order.

    Parameters
    ----------
    h : number, array of x's shape, or "auto"
        A number or an array is taken as it is. "auto" is the scheme's optimal step for a function
        that varies over distances of ``max(abs(x[i]), 1)``, as SciPy's differences assume, too:
        what `fastgrad.differences.measured_steps.measured` starts from.
    x : array
        Where f is differentiated.
    scheme : Scheme
        What the steps are used in.
    relative : bool
        Whether h is in units of ``abs(x[i])``; where that is 0, it is taken as it is.
    eps : float
        The relative precision of x and of f's values, the coarser of both; for "auto".

    Raises
    ------
    TypeError, ValueError
        If h is none of these, or not positive and finite.

    Notes
    -----
    Steps that depend on x are made representable: replaced by ``(x + h) - x``, so that the distance
    by which x is moved is the one by which the difference is divided.
    """
    if type(h) is float and relative is False and 0 < h < math.inf:  # as mostly
        return h
    if not isinstance(relative, (bool, np.bool_)):
        raise TypeError(
            f"relative is {relative!r}, but it says whether h is in units of abs(x); pass "
            "relative=True, and the number as h"
        )
    if isinstance(h, str):
        if h != "auto":
            raise TypeError(
                f"h is {h!r} of type str, but the step is a real number; pass one such as 1e-4, "
                "an array of x's shape, or 'auto'"
            )
        if relative:
            raise ValueError("h is 'auto', which is relative to x already; leave out relative")
        step = scheme.optimal_step(eps)
        if scheme.is_complex:
            return step
        flat = x.view(np.ndarray).reshape(-1)
        return short(step * np.maximum(abs(flat.astype(np.float64)), 1), flat)
    is_number = isinstance(h, Real) or not _has_axes(h)
    steps = as_positive_number(h) if is_number else _as_positive_array(h, x.shape)
    if not relative:
        return steps
    flat = x.view(np.ndarray).reshape(-1)
    magnitude = abs(flat.astype(np.float64))
    # Numbers that have lost digits already are as good as 0.
    least = max(float(np.finfo(x.dtype).tiny), float(np.finfo(np.float64).tiny))
    scaled = steps * np.where(magnitude >= least, magnitude, 1)
    return scaled if scheme.is_complex else representable(scaled, flat)


@cache
def limits_of(dtype: np.dtype[Any]) -> tuple[float, float, float]:
    """Return a dtype's precision, and its least and largest normal number."""
    limits = np.finfo(dtype)
    return float(limits.eps), float(limits.tiny), float(limits.max)


def precision(x: Array, values: Array) -> float:
    """Return eps of the coarser one of x's type and that of f's values, if they are floats."""
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    return max(limits_of(x.dtype)[0], limits_of(kind)[0])


def as_floats(values: Array) -> Array:
    """Return values in double precision at least; integers, too."""
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    return values.astype(np.result_type(kind, np.float64), copy=False)


def representable(steps: Array, x: Array) -> Array:
    """Return the distances by which elements are really moved; steps that are lost stay.

    Away from 0, where numbers are coarser: what x can be moved by there, it can be moved by towards
    0, too.

    Examples
    --------
    >>> representable(np.array([1e-4]), np.ones(1, np.float32))
    array([0.00010002])
    """
    with np.errstate(over="ignore", invalid="ignore"):
        size = abs(x)
        exact = ((size + steps).astype(x.dtype) - size).astype(np.float64)
    return np.where(exact > 0, exact, steps)


def short(steps: Array, x: Array) -> Array:
    """Return steps of 8 significant bits, by which most elements are moved without rounding.

    Examples
    --------
    >>> short(np.array([1e-4]), np.ones(1)) * 2**21
    array([210.])
    """
    fractions, exponents = np.frexp(steps)
    return representable(np.ldexp(np.rint(fractions * 256), exponents - 8), x)


def _has_axes(h: Any) -> bool:
    """Say whether h has several steps, or is meant to."""
    return as_array("h", h, "pass a number, or one step for each element").ndim > 0


def _as_positive_array(h: Any, shape: tuple[int, ...]) -> Array:
    """Return the steps of an array of x's shape, flat."""
    steps = as_array("h", h, "pass a number, or one step for each element")
    if steps.dtype.kind not in "fiu":
        raise TypeError(f"h has dtype {steps.dtype}, but steps are real numbers; pass floats")
    if steps.shape != shape:
        raise ValueError(
            f"h has shape {steps.shape}, but x has shape {shape}; pass a number, or one step for "
            "each element"
        )
    flat = steps.astype(np.float64).reshape(-1)
    wrong = ~((flat > 0) & (flat < np.inf))
    if wrong.any():
        first = int(np.argmax(wrong))
        raise ValueError(
            f"{element_at('h', first, shape)} is {steps.flat[first]}, but steps are positive and "
            "finite; pass one such as 1e-4"
        )
    return flat
