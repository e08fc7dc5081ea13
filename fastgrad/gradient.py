"""What is the gradient of f at x? Check the arguments, choose an engine, call it."""

import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastgrad.engines import auto, loop, traced
from fastgrad.steps import as_positive_number

Array = TypeVar("Array", bound=np.ndarray[Any, np.dtype[np.floating[Any]]])

ENGINES: dict[str, Callable[..., Any]] = {
    "auto": auto.gradient,
    "loop": loop.gradient,
    "traced": traced.gradient,
}
"""Name -> ``engine(f, x, h)``, which returns an array like x."""


def numerical_gradient(
    f: Callable[[Array], Any], x: Array, h: float = 1e-4, *, engine: str = "auto"
) -> Array:
    """Return the central difference quotient of f for every element of x.

    ``(f(x + h e_i) - f(x - h e_i)) / (2 h)``, which is the partial derivative up to a truncation
    error of ``h**2 / 6`` times the third derivative, and a round-off error of about
    ``eps * abs(f(x)) / h``.

    Parameters
    ----------
    f : callable
        ``f(x) -> number``, or an array of one element. It is called with x itself, whose elements
        are moved in place one after the other; so f may ignore its argument and read the same
        array elsewhere, as in ``lambda W: self.loss(x, t)``.
    x : ndarray of float64, float32 or longdouble
        Any shape and memory layout; writable. Bit-identical afterwards, whatever happens.
    h : float
        The step.
    engine : {"auto", "loop", "traced"}
        How f is evaluated. "loop" serves any function and gives the book's numbers bit for bit.
        "traced" records the NumPy operations of f once and replays only what follows the place
        where x enters; its quotients are within the loop's own round-off of the loop's. "auto"
        takes "traced" where it can and where x has enough elements, otherwise "loop".

    Returns
    -------
    ndarray like x
        Shape, dtype, layout and subclass of x, as `numpy.zeros_like` keeps them.

    Raises
    ------
    TypeError
        If f is not callable or returns no number, x is not an array of a floating-point dtype
        that can hold the step, or h is not a real number.
    ValueError
        If x is read-only, h is not positive and finite or is lost when it is added to an element
        of x, f returns several numbers, the engine is unknown, or it is "traced" and f cannot be
        traced.

    Warns
    -----
    RuntimeWarning
        If a quotient is nan or infinite; it is returned as it is. If "auto" has to take the loop
        for a large x; the reason is named.

    Notes
    -----
    The traced engine measures the loss at moved points as the loop does, but at fewer. Where that
    is not certain to give the loop's quotients, more points are measured, or the loop is used. One
    limit remains: a feature of the loss that is narrower than the step itself, such as a spike
    between two measured points, is not seen.

    References
    ----------
    K. Saito, *Deep Learning from Scratch*, O'Reilly Japan, 2016, section 4.4.

    Examples
    --------
    >>> numerical_gradient(lambda x: (x**2).sum(), np.array([3.0, 4.0])).round(6)
    array([6., 8.])
    """
    _require_function(f)
    _require_floating_array(x, h)
    step = _require_step(h, x)
    evaluate = _require_engine(engine)
    gradient: Array = evaluate(f, x, step) if x.size else np.zeros_like(x)
    _warn_of_nonfinite(gradient)
    return gradient


def explain(f: Callable[[Array], Any], x: Array, h: float = 1e-4) -> None:
    """Print how ``numerical_gradient(f, x, h)`` would be evaluated, and about how long it takes.

    The place where x enters f, what is replayed how often, and the expected seconds beside the
    loop's; or the reason why the loop is used.

    Parameters
    ----------
    f, x, h
        As `numerical_gradient` takes them; f is called a few times.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`.

    Examples
    --------
    >>> explain(lambda x: (x**2).sum(), np.arange(60.0))  # doctest: +ELLIPSIS
    Traced: 2 operations of f depend on x.
    ...
    - 60 elements of x are moved up and down; 1 operations are replayed, 0 of them for each unit.
    """
    _require_function(f)
    _require_floating_array(x, h)
    print(auto.explain(f, x, _require_step(h, x)))


def _require_function(f: object) -> None:
    if not callable(f):
        raise TypeError(
            f"f is a {type(f).__name__}, which cannot be called; pass a function of one array, "
            "such as lambda x: (x**2).sum()"
        )


def _require_floating_array(x: object, h: object) -> None:
    """Refuse what cannot be moved by a step in place."""
    if not isinstance(x, np.ndarray):
        raise TypeError(
            f"x is a {type(x).__name__}, which cannot be perturbed in place; "
            "pass np.asarray(x, dtype=float)"
        )
    if x.dtype.kind == "c":
        raise TypeError(
            f"x has dtype {x.dtype}, but the difference quotient is defined for real x only; "
            "pass the real and the imaginary part as a real array"
        )
    if x.dtype.kind != "f" or x.dtype.itemsize < 4:
        raise TypeError(
            f"x has dtype {x.dtype}, which cannot hold a step of {h}; pass x.astype(float)"
        )
    if not x.flags.writeable:
        raise ValueError(
            "x is read-only, but it is perturbed in place; pass a writable array such as x.copy()"
        )


def _require_step(h: object, x: NDArray[Any]) -> float:
    """Return h as a float, if it moves every element of x up and down."""
    step = as_positive_number(h)
    if 2 * step >= float(np.finfo(x.dtype).max):
        raise ValueError(f"h is {step}, too large for x's dtype {x.dtype}; pass one such as 1e-4")
    values = x.view(np.ndarray)
    # The very values that the loop stores: the raised one is rounded from double precision.
    double = values if x.dtype.itemsize >= 8 else values.astype(np.float64)
    raised = (double + step).astype(x.dtype, copy=False)
    lowered = values - step
    stuck = (raised == values) | (lowered == values)
    if np.count_nonzero(stuck):
        raise ValueError(_lost_step(step, values, _first(stuck)))
    return step


def _lost_step(step: float, values: NDArray[Any], index: tuple[int, ...]) -> str:
    """Say at which element the step is lost, and what helps."""
    value = values[index]
    if np.isinf(value):
        return f"{_element('x', index)} is {value}, which no step changes; pass finite values"
    remedy = "a larger h" if values.dtype.itemsize >= 8 else "x.astype(float), or a larger h"
    return (
        f"{_element('x', index)} is {value}, where {values.dtype} has a spacing of "
        f"{np.spacing(abs(value)):.3g}, so a step of {step} is lost; pass {remedy}"
    )


def _require_engine(engine: str) -> Callable[..., Any]:
    if engine not in ENGINES:
        names = ", ".join(repr(name) for name in ENGINES)
        raise ValueError(f"engine is {engine!r}, which does not exist; pass one of {names}")
    return ENGINES[engine]


def _warn_of_nonfinite(gradient: NDArray[Any]) -> None:
    """Warn, in the name of numerical_gradient's caller, of quotients that are nan or infinite."""
    quotients = gradient.view(np.ndarray)
    finite = np.isfinite(quotients)
    if np.count_nonzero(finite) < finite.size:
        index = _first(~finite)
        warnings.warn(
            f"the difference quotient at {_element('x', index)} is {quotients[index]}, the first "
            f"of {finite.size - finite.sum()} that are not finite; f is nan or infinite there",
            RuntimeWarning,
            stacklevel=3,
        )


def _first(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the index of the first True."""
    return tuple(int(i) for i in np.unravel_index(np.argmax(mask), mask.shape))


def _element(name: str, index: tuple[int, ...]) -> str:
    """Write an element as in Python: x[1, 2], or x alone if it has no axes."""
    return f"{name}[{', '.join(map(str, index))}]" if index else name
