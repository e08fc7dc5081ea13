"""What is a line through x? Its direction, how far f may go along it, and how x comes back."""

import operator
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np

from fastgrad.arguments import as_array
from fastgrad.problem import Problem
from fastgrad.steps import precision
from fastgrad.structures import is_structure, leaves, like
from fastgrad.typing import Array


def as_directions(v: Any, x: Any, found: list[Problem]) -> list[Array]:
    """Return v's arrays, one for each of x's, as floats.

    Raises
    ------
    TypeError, ValueError
        If v does not have x's form, or is not real and finite.
    """
    parts = [part for _, part in leaves(v, "v")] if is_structure(x) else [v]
    names = [name for name, _ in leaves(v, "v")] if is_structure(x) else ["v"]
    expected = ["v" + problem.name[1:] for problem in found]
    if names != expected:
        raise ValueError(
            f"v has the parts {', '.join(names)}, but x has {', '.join(p.name for p in found)}; "
            "pass a structure of x's form"
        )
    directions = []
    for name, part, problem in zip(names, parts, found, strict=True):
        direction = as_array(name, part, f"pass an array of the shape of {problem.name}")
        if direction.dtype.kind not in "fiu":
            raise TypeError(f"{name} has dtype {direction.dtype}, but it is real; pass floats")
        if direction.shape != problem.x.shape:
            raise ValueError(
                f"{name} has shape {direction.shape}, but {problem.name} has shape "
                f"{problem.x.shape}; pass an array of that shape"
            )
        if not np.isfinite(direction).all():
            raise ValueError(f"{name} is not finite; pass a direction of finite numbers")
        wide = np.result_type(problem.x.dtype, np.float64)
        directions.append(direction.astype(wide))
    return directions


def unit(found: list[Problem], directions: list[Array]) -> float:
    """Return the part of v that moves some element by its own scale, and none by more.

    It is a power of two: the direction is multiplied without rounding.
    """
    fastest = 0.0
    for problem, direction in zip(found, directions, strict=True):
        if problem.x.size:
            scale = np.maximum(abs(problem.x.view(np.ndarray).astype(direction.dtype)), 1)
            fastest = max(fastest, float(np.max(abs(direction) / scale)))
    # For the smallest of directions it is as large as can be.
    exponent = min(np.floor(-np.log2(fastest)), 1023) if fastest > 0 else 0
    return float(2.0**exponent)


def coarsest(found: list[Problem], base: Array) -> float:
    """Return eps of the coarsest one of x's types and that of f's values."""
    return max(
        [precision(problem.x, base) for problem in found], default=float(np.finfo(np.float64).eps)
    )


def restoration(arrays: list[Array]) -> tuple[Callable[[], object], list[Array]]:
    """Return what puts arrays back bit for bit, once, and copies of what they are.

    It is one call of C functions alone, which no interrupt can divide.
    """
    plain = [array.view(np.ndarray) for array in arrays]
    copies = [array.copy() for array in plain]
    assign: Callable[..., None] = operator.setitem
    assignments = map(assign, plain, repeat(Ellipsis), copies)
    return partial(deque[None](maxlen=0).extend, assignments), copies


def require_moving(found: list[Problem], directions: list[Array], step: float) -> None:
    """Refuse a step along v that is lost in the rounding of all of x."""
    for problem, direction in zip(found, directions, strict=True):
        spacing = np.spacing(abs(problem.x.view(np.ndarray)))
        if (abs(step * direction) >= spacing).any() or not direction.any():
            return
    raise ValueError(f"h is {step}, which is lost in the rounding of x + h v; pass a larger h")


def move(
    arrays: list[Array],
    originals: list[Array],
    directions: list[Array],
    s: Any,
    bounds: list[tuple[Array, Array] | None],
) -> None:
    """Move arrays to ``original + s * direction``; what rounding leads out of bounds, to them."""
    for array, original, direction, bound in zip(
        arrays, originals, directions, bounds, strict=True
    ):
        moved = (original + s * direction).astype(array.dtype)
        if bound is not None:
            lower, upper = (limit.reshape(original.shape) for limit in bound)
            moved = np.clip(moved, lower, upper)
        # What is not moved keeps its bits: x + 0 turns -0 into 0.
        plain = array.view(np.ndarray)
        if plain.size == original.size:  # not a stack, which broadcasts
            plain = plain.reshape(original.shape)  # f may have changed the shape
        plain[...] = np.where(direction == 0, original, moved)


class Line:
    """f along a line: ``line(s)`` is ``f(x + s v)``, for the engine that moves s.

    For many places s at once it is f of the stack of points there.

    Parameters
    ----------
    origin : float, optional
        The s at which the line is at x.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        x: Any,
        args: tuple[Any, ...],
        found: list[Problem],
        directions: list[Array],
        origin: float = 0.0,
    ) -> None:
        self.origin = origin
        self.f, self.x, self.args = f, x, args
        self.arrays = [problem.x for problem in found]
        self.originals = [array.view(np.ndarray).copy() for array in self.arrays]
        self.bounds = [problem.bounds for problem in found]
        self.directions = directions

    def __call__(self, s: Array) -> Any:
        """Return f at the place s on the line; x stays there."""
        if s.ndim:
            return self.f(self._stack(s - self.origin), *self.args)
        s = s - self.origin
        if s.dtype.kind == "c":
            moved = [
                original + s[()] * direction
                for original, direction in zip(self.originals, self.directions, strict=True)
            ]
            return self.f(like(self.x, iter(moved)), *self.args)
        move(self.arrays, self.originals, self.directions, s[()], self.bounds)
        return self.f(self.x, *self.args)

    def _stack(self, s: Array) -> Array:
        """Return the points at many places, for an f that takes a stack; x is an array."""
        [x], [original], [direction] = self.arrays, self.originals, self.directions
        each = s.reshape(-1, *[1] * x.ndim)
        if s.dtype.kind == "c":
            return np.asarray(original + each * direction)
        stack = np.empty((len(s), *x.shape), x.dtype)
        move([stack], [original], [direction], each, self.bounds)
        return stack

    def at_first(self, whole: tuple[Array, ...]) -> Any:
        """Return f at the place that comes first, before the arrays of x; x stays there.

        As a function of all that it moves: so that workers know what belongs together.
        """
        return self(whole[0])

    def limits(self) -> tuple[float, float] | None:
        """Return between which s the line keeps inside the bounds."""
        if all(bound is None for bound in self.bounds):
            return None
        lowest, highest = -np.inf, np.inf
        for original, direction, bound in zip(
            self.originals, self.directions, self.bounds, strict=True
        ):
            if bound is None:
                continue
            below, above = (limit.reshape(original.shape) - original for limit in bound)
            with np.errstate(all="ignore"):
                ends = np.where(direction > 0, [below, above], [above, below]) / direction
            moves = direction != 0
            lowest = max(lowest, float(np.max(ends[0][moves], initial=-np.inf)))
            highest = min(highest, float(np.min(ends[1][moves], initial=np.inf)))
        if not lowest < highest:
            raise ValueError(
                "v leads out of bounds at once, upwards and downwards; pass a direction in which "
                "x can be moved"
            )
        return lowest + self.origin, highest + self.origin
