"""What f returns: numbers of some shape and precision, from which automatic steps follow."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from fastgrad.arguments import as_returned
from fastgrad.problem import Problem, problems
from fastgrad.schemes import Scheme
from fastgrad.steps import representable
from fastgrad.typing import Array

ANY = 2.0**-10
"""A relative step that is never lost, with which the other arguments are checked."""


def prepared(
    f: Callable[..., Any],
    x: Any,
    h: Any,
    *,
    args: tuple[Any, ...],
    scheme: str | Scheme,
    relative: bool,
    bounds: Any,
    stacked: bool = False,
) -> tuple[list[Problem], Array]:
    """Return a problem for every array in x, and f at x as an array of floats, by one call.

    Given steps are replaced by those that x can hold; automatic ones are to be measured. With
    ``stacked`` f takes a stack of points.

    Raises
    ------
    TypeError, ValueError
        As from `problems`, before f is called; TypeError if f does not return real numbers.
    """
    found = problems(f, x, h, args=args, scheme=scheme, relative=relative, bounds=bounds)
    base = value_at(found, f, x, args, stacked)
    return [problem if problem.automatic else _exact(problem) for problem in found], base


def _exact(problem: Problem) -> Problem:
    """Return the problem with the distances by which its elements are really moved."""
    if problem.scheme.is_complex:
        return problem
    flat = problem.x.view(np.ndarray).reshape(-1)
    steps = np.broadcast_to(np.asarray(problem.steps, dtype=np.float64), flat.shape)
    return replace(problem, steps=representable(steps, flat))


def value_at(
    found: list[Problem],
    f: Callable[..., Any],
    x: Any,
    args: tuple[Any, ...],
    stacked: bool = False,
) -> Array:
    """Return f at x as an array of floats; of an f that takes a stack, from one of x alone."""
    if stacked:
        value = as_returned(found[0].f(x.view(np.ndarray)[np.newaxis].copy()))
        if value.shape[:1] != (1,):
            raise ValueError(
                f"f returned an array of shape {value.shape} for a stack of shape "
                f"{(1, *x.shape)}, but with vectorized=True the first axis of what it returns is "
                "that of the points; reduce other axes, or leave out vectorized"
            )
        value = value[0]
    else:
        value = as_returned(found[0].f(found[0].x) if found else f(x, *args))
    if value.dtype.kind not in "fiub":
        raise TypeError(
            f"f returned an array of dtype {value.dtype}, but it must return real numbers; check "
            "what f ends with"
        )
    return value if value.dtype.kind == "f" else value.astype(np.float64)
