"""How does f change along a direction? All of x is moved at once, and put back."""

import operator
from collections import deque
from collections.abc import Callable
from functools import partial
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences import Values, derivatives, memory_order
from fastgrad.engines import loop
from fastgrad.jacobian import values_for
from fastgrad.problem import Problem, problems
from fastgrad.returned import ANY, precision, value_at
from fastgrad.schemes import Scheme, as_scheme, central
from fastgrad.structures import is_structure, leaves, like

Array = NDArray[Any]


def directional_derivative(
    f: Callable[..., Any],
    x: Any,
    v: Any,
    h: Any = "auto",
    *,
    args: tuple[Any, ...] = (),
    scheme: str | Scheme = "central",
    bounds: Any = None,
) -> Any:
    """Return ``d/ds f(x + s v)`` at s = 0, by a few calls of f, however many elements x has.

    ``(f(x + h v) - f(x - h v)) / (2 h)`` in the central scheme: the gradient times v, or the
    Jacobian times v.

    Parameters
    ----------
    f : callable
        ``f(x, *args)`` -> number or array of real numbers. It is called with x itself, which is
        moved in place, so f may ignore its argument and read the same array elsewhere.
    x : array of float64, float32 or longdouble, or dict, list or tuple of such
        Bit-identical afterwards, whatever happens.
    v : array of x's shape, or structure like x
        The direction, of any length; real and finite.
    h : "auto" or number
        The step, in units of v. "auto" is the scheme's best one for functions that vary over
        distances of ``max(abs(x[i]), 1)``.
    args : tuple
        Further arguments of f.
    scheme : str or Scheme
        The difference scheme.
    bounds : pair, optional
        The lower and upper bounds of x, which no point goes beyond: where there is little room, the
        derivative is one-sided.

    Returns
    -------
    number or array of f(x)'s shape
        In the floating-point type that f returns.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`; if v does not fit x, or both directions lead out of bounds.

    Examples
    --------
    >>> x, v = np.array([3.0, 4.0]), np.array([1.0, 2.0])
    >>> float(directional_derivative(lambda x: (x**2).sum(), x, v).round(8))
    22.0
    >>> directional_derivative(lambda x: x[:2] * x[1], x, v).round(8)
    array([10., 16.])
    """
    chosen = as_scheme(scheme)
    found = problems(f, x, ANY, args=args, scheme=chosen, relative=True, bounds=bounds)
    directions = as_directions(v, x, found)
    line = _Line(f, x, args, found, directions)
    position = np.zeros(())
    limits = line.limits()
    first = 1.0 if isinstance(h, str) and h == "auto" else h
    along = problems(line, position, first, scheme=chosen, bounds=limits)[0]
    base = value_at(found, f, x, args)
    if first is not h:
        step = auto_step(found, directions, chosen, base)
        along = problems(line, position, step, scheme=chosen, bounds=limits)[0]
    [(fitting, places, steps)] = [part for part in along.divided() if len(part[1])]
    if not chosen.is_complex:
        require_moving(found, directions, float(np.max(steps)))
    put_back, _ = restoration([problem.x for problem in found])
    try:
        slopes = derivatives(loop.values, line, position, places, steps, fitting, base.shape)
    finally:
        put_back()
    slope = slopes[0]
    return slope.astype(base.dtype)[()] if base.shape else base.dtype.type(slope)


def hessian_vector_product(
    f: Callable[..., Any],
    x: Any,
    v: Any,
    *,
    args: tuple[Any, ...] = (),
    engine: str = "auto",
) -> Any:
    """Return the Hessian of f times v, without the Hessian.

    ``(g(x + h v) - g(x - h v)) / (2 h)`` with g the central difference gradient: 4 calls of f for
    each element of x. Both steps are the best ones for second derivatives of functions that vary
    over distances of ``max(abs(x[i]), 1)``; about half of the digits are right.

    Parameters
    ----------
    f : callable
        ``f(x, *args) -> number``. It is called with x itself, which is moved in place.
    x : array of float64, float32 or longdouble, or dict, list or tuple of such
        Bit-identical afterwards, whatever happens.
    v : array of x's shape, or structure like x
        Real and finite.
    args : tuple
        Further arguments of f.
    engine : {"auto", "loop", "compiled"}
        How f is evaluated at moved points, as for `numerical_gradient`.

    Returns
    -------
    array or structure like x
        In x's type.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`; if v does not fit x.

    Examples
    --------
    >>> x, v = np.array([1.0, 2.0]), np.array([1.0, 1.0])
    >>> hessian_vector_product(lambda x: x[0] ** 2 * x[1], x, v).round(5)
    array([6., 2.])
    """
    values = values_for(f, engine)
    found = problems(f, x, ANY, args=args, relative=True)
    directions = as_directions(v, x, found)
    base = value_at(found, f, x, args)
    if base.size != 1:
        raise ValueError(
            f"f returned an array of shape {base.shape}, but a Hessian is that of a function which "
            "returns a single number; reduce the array, for instance by .sum()"
        )
    step = auto_step(found, directions, central(2, 2), base)
    arrays = [problem.x for problem in found]
    gradients = []
    put_back, originals = restoration(arrays)
    try:
        for shift in (step, -step):
            _move(arrays, originals, directions, shift, [None] * len(arrays))
            gradients.append([_gradient(problem, values, base) for problem in found])
    finally:
        put_back()
    products = [np.zeros_like(array) for array in arrays]
    for product, up, down in zip(products, *gradients, strict=True):
        product[...] = (up - down) / (2 * step)
    return like(x, iter(products))


def _gradient(problem: Problem, values: Values, base: Array) -> Array:
    """Return the central difference gradient, by steps that suit second derivatives."""
    x, result = problem.x, np.zeros(problem.x.shape)
    if x.size:
        places = memory_order(x)
        sizes = np.maximum(abs(x.view(np.ndarray).reshape(-1)[places].astype(float)), 1)
        exponents = np.round(np.log2(central(2, 2).optimal_step(precision(x, base)) * sizes))
        quotients = derivatives(values, problem.f, x, places, 2.0**exponents, central())
        result.flat[places] = quotients
    return result


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
        direction = np.asarray(part)
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


def auto_step(found: list[Problem], directions: list[Array], scheme: Scheme, base: Array) -> float:
    """Return the scheme's best step along v, for what is moved farthest in its own scale."""
    fastest = 0.0
    eps = float(np.finfo(np.float64).eps)
    for problem, direction in zip(found, directions, strict=True):
        if problem.x.size:
            scale = np.maximum(abs(problem.x.view(np.ndarray).astype(direction.dtype)), 1)
            fastest = max(fastest, float(np.max(abs(direction) / scale)))
            eps = max(precision(problem.x, base), eps)
    step = scheme.optimal_step(eps)
    # A power of two: the direction is multiplied without rounding.
    return float(2.0 ** np.round(np.log2(step / fastest))) if fastest > 0 else step


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


def _move(
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
            lower, upper = (limit.reshape(array.shape) for limit in bound)
            moved = np.clip(moved, lower, upper)
        # What is not moved keeps its bits: x + 0 turns -0 into 0.
        array.view(np.ndarray)[...] = np.where(direction == 0, original, moved)


class _Line:
    """f along a line: ``line(s)`` is ``f(x + s v)``, for the engine that moves s."""

    def __init__(
        self,
        f: Callable[..., Any],
        x: Any,
        args: tuple[Any, ...],
        found: list[Problem],
        directions: list[Array],
    ) -> None:
        self.f, self.x, self.args = f, x, args
        self.arrays = [problem.x for problem in found]
        self.originals = [array.view(np.ndarray).copy() for array in self.arrays]
        self.bounds = [problem.bounds for problem in found]
        self.directions = directions

    def __call__(self, s: Array) -> Any:
        """Return f at the place s on the line; x stays there."""
        if s.dtype.kind == "c":
            moved = [
                original + s[()] * direction
                for original, direction in zip(self.originals, self.directions, strict=True)
            ]
            return self.f(like(self.x, iter(moved)), *self.args)
        _move(self.arrays, self.originals, self.directions, s[()], self.bounds)
        return self.f(self.x, *self.args)

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
        return lowest, highest
