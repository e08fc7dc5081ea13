"""What does f return? Numbers of some shape and precision, from which automatic steps follow."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.arguments import as_returned
from fastgrad.problem import Problem, problems
from fastgrad.schemes import Scheme
from fastgrad.steps import choose_steps, precision

Array = NDArray[Any]

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
    """Return a problem for every array in x, and f at x as an array of floats; f is called once.

    Unlike those of `problems`, automatic steps are not measured, for f may return many numbers:
    they are the scheme's best for functions that vary over distances of ``max(abs(x[i]), 1)``.
    With ``stacked`` f takes a stack of points.

    Raises
    ------
    TypeError, ValueError
        As from `problems`, before f is called; TypeError if f does not return real numbers.
    """
    if isinstance(h, str) and h == "auto" and not relative:
        found = problems(f, x, ANY, args=args, scheme=scheme, relative=True, bounds=bounds)
        base = value_at(found, f, x, args, stacked)
        return [
            replace(
                problem,
                steps=choose_steps(
                    "auto",
                    problem.x,
                    problem.scheme,
                    relative=False,
                    eps=precision(problem.x, base),
                ),
            )
            for problem in found
        ], base
    if isinstance(h, str):  # refused, but by the rule that it breaks
        choose_steps(h, np.zeros(()), problems(f, x, ANY)[0].scheme, relative=relative, eps=1.0)
    found = problems(f, x, h, args=args, scheme=scheme, relative=relative, bounds=bounds)
    return found, value_at(found, f, x, args, stacked)


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


def as_floats(values: Array) -> Array:
    """Return values in double precision at least; integers, too."""
    kind = values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)
    return values.astype(np.result_type(kind, np.float64), copy=False)
