"""Directional derivatives: x is moved along a line."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from fastgrad.differences.arguments import (
    PROBE_SCALE,
    Call,
    as_real_array,
    is_structure,
    leaves,
    like,
    users_array,
    warn_of_nonfinite,
    with_keywords,
)
from fastgrad.differences.conversions import takes_conversions
from fastgrad.differences.domain import WhereDefined, derive_from_one_side
from fastgrad.differences.guard import guarded
from fastgrad.differences.measured_steps import QUOTIENTS, measured
from fastgrad.differences.problem import Problem, problems, value_at
from fastgrad.differences.quotients import derivatives, precision
from fastgrad.engines.loop import in_parts
from fastgrad.engines.selection import choose_evaluator
from fastgrad.schemes import Scheme, as_scheme
from fastgrad.typing import Array, Map, Moves, Places, Progress, SchemeName, Values


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
        direction = as_real_array(name, part, f"pass an array of the shape of {problem.name}")
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


def restorer(arrays: list[Array]) -> tuple[Callable[[], None], list[Array]]:
    """Return what puts arrays back bit for bit, and copies of what they are."""
    plain = [array.view(np.ndarray) for array in arrays]
    copies = [array.copy() for array in plain]

    def put_back() -> None:
        for array, copy in zip(plain, copies, strict=True):
            array[...] = copy

    return put_back, copies


def require_moving(found: list[Problem], directions: list[Array], step: float) -> None:
    """Refuse a step along v that is lost in the rounding of all of x."""
    for problem, direction in zip(found, directions, strict=True):
        spacing = np.spacing(abs(problem.x.view(np.ndarray)))
        if (abs(step * direction) >= spacing).any() or not direction.any():
            return
    raise ValueError(f"h is {step}, which is lost in the rounding of x + h v; pass a larger h")


def displace(
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
        plain = array.view(np.ndarray)
        if bound is None and _is_plain(plain, original, direction, s):
            np.multiply(direction, s, out=plain)  # without arrays in between: moves cost as calls
            still = None if plain.all() else plain == 0
            plain += original
        else:
            step = s * direction
            moved = (original + step).astype(array.dtype, copy=False)
            if bound is not None:
                lower, upper = (limit.reshape(original.shape) for limit in bound)
                moved = np.clip(moved, lower, upper)
            if plain.size == original.size:  # not a stack, which broadcasts
                plain = plain.reshape(original.shape)  # f may have changed the shape
            plain[...] = moved
            still = None if np.all(step) else np.reshape(step == 0, plain.shape)
        if still is not None:  # what is not moved keeps its bits: x + 0 turns -0 into 0
            np.copyto(plain, original, where=still)


def _is_plain(array: Array, original: Array, direction: Array, s: Any) -> bool:
    """Say whether an array can be moved in place: all is of its shape and type."""
    return (
        array.shape == original.shape == direction.shape
        and array.dtype == original.dtype == np.result_type(direction, s)
    )


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
        distances = self.distances(s)
        if self.is_stack(s):
            return self.f(self._stack(distances), *self.args)
        if s.dtype.kind == "c":
            moved = [
                original + distances * direction
                for original, direction in zip(self.originals, self.directions, strict=True)
            ]
            return self.f(like(self.x, iter(moved)), *self.args)
        displace(self.arrays, self.originals, self.directions, distances, self.bounds)
        return self.f(self.x, *self.args)

    def is_stack(self, s: Array) -> bool:
        """Say whether s is many places."""
        return s.ndim > 0

    def distances(self, s: Array) -> Any:
        """Return what each direction is multiplied by to get to s; for many places, of each."""
        distances = s - self.origin
        return distances.reshape(-1, *[1] * self.arrays[0].ndim) if s.ndim else distances[()]

    def _stack(self, distances: Array) -> Array:
        """Return the points at many places, for an f that takes a stack; x is an array."""
        [x], [original], [direction] = self.arrays, self.originals, self.directions
        if distances.dtype.kind == "c":
            return np.asarray(original + distances * direction)
        stack = np.empty((len(distances), *x.shape), x.dtype)
        displace([stack], [original], [direction], distances, self.bounds)
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


class Pairs(Line):
    """f along each element of an array x, and along each two of them together.

    ``pairs(t)`` is f where element i is moved by ``(t[i] - 1) * ways[i] * scales[i]``, and behind
    those elements i and j of pair k are, by ``t[x.size + k]``; for the engine that moves t.

    Parameters
    ----------
    given : Problem
        Of x.
    ways : array (x.size,)
        1 for elements of which t moves upwards, -1 for others.

    Attributes
    ----------
    scales : array (x.size,)
        ``abs(x)`` rounded down to powers of two; 1 where x is 0.
    first, second : arrays of int
        The elements of each t; the same one twice for those along single elements.
    """

    def __init__(
        self, f: Callable[..., Any], args: tuple[Any, ...], given: Problem, ways: Array
    ) -> None:
        x, n, self.given, self.ways = given.x, given.x.size, given, ways
        size = abs(x.view(np.ndarray).reshape(-1).astype(np.float64))
        with np.errstate(divide="ignore"):
            self.scales = np.where(size > 0, 2.0 ** np.floor(np.log2(size)), 1.0)
        pairs = np.triu_indices(n, 1)
        self.first, self.second = (np.concatenate([np.arange(n), each]) for each in pairs)
        super().__init__(f, x, args, [given], [np.ones(x.shape)], origin=1.0)

    def problem(self, scheme: Scheme, steps: Any) -> Problem:
        """Return f as a problem of t, with these steps of x."""
        position = np.ones(len(self.first))
        lengths = np.broadcast_to(steps, self.scales.shape) / self.scales
        h = np.minimum(lengths[self.first], lengths[self.second])
        [along] = problems(self, position, h, scheme=scheme, bounds=self.limits())
        whole = (position, *self.arrays)
        return along.replaced(f=Call(self.at_first, (), whole, position))

    def is_stack(self, s: Array) -> bool:
        """Say whether s is many places."""
        return s.ndim > 1

    def distances(self, s: Array) -> Any:
        """Return how far each element is moved."""
        [x] = self.arrays
        rows = np.atleast_2d(s) - self.origin
        result = np.zeros((len(rows), x.size), rows.dtype)
        for row, moves in zip(result, rows, strict=True):
            for k in np.flatnonzero(moves):
                for i in {int(self.first[k]), int(self.second[k])}:
                    row[i] += moves[k] * self.ways[i] * self.scales[i]
        return result.reshape(s.shape[:-1] + x.shape)

    def limits(self) -> Any:
        """Return between which t the elements keep inside the bounds."""
        [bounds], [original] = self.bounds, self.originals
        if bounds is None:
            return None
        room = [(limit - original.reshape(-1)) / self.scales * self.ways for limit in bounds]
        ends = np.minimum(*room), np.maximum(*room)
        lower, upper = (each[[self.first, self.second]] for each in ends)
        return lower.max(axis=0) + self.origin, upper.min(axis=0) + self.origin

    def put_back(self) -> None:
        """Put x back bit for bit."""
        [x], [original] = self.arrays, self.originals
        x.view(np.ndarray)[...] = original

    def hessian(self, along: Array, *, is_error: bool = False) -> Array:
        """Return the second derivatives, by those along t; or the errors of these.

        Along a pair that is ``s_i**2 H_ii + 2 s_i s_j H_ij + s_j**2 H_jj``.
        """
        n, sign = len(self.scales), 1.0 if is_error else -1.0
        ways = np.ones(n) if is_error else self.ways
        i, j = self.first[n:], self.second[n:]
        mixed = along[..., n:] + sign * (along[..., i] + along[..., j])
        scale = self.scales[self.first] * self.scales[self.second]
        scale *= ways[self.first] * ways[self.second]
        scale[n:] *= 2
        return self.entries(np.concatenate([along[..., :n], mixed], axis=-1) / scale)

    def elements_of(self, places: Places) -> Places:
        """Return the elements of these t, of pairs only where neither is among single ones."""
        single = places[places < len(self.scales)]
        both = np.stack([self.first[places], self.second[places]])
        others = both[:, ~np.isin(both, single).any(axis=0)]
        return np.concatenate([single, others.reshape(-1)])

    def columns_of(self, along: Array) -> Array:
        """Return what belongs to each t, (t.size, ...), for each element: of all pairs with it."""
        result = along[: len(self.scales)].copy()
        for each in (self.first, self.second):
            np.add.at(result, each, 0 * along)  # nan, where that of a pair is
        return result

    def entries(self, along: Array) -> Array:
        """Return a symmetric array of what belongs to elements and pairs, (..., x.size, x.size)."""
        n = len(self.scales)
        result = np.empty((*along.shape[:-1], n, n), along.dtype)
        result[..., self.first, self.second] = result[..., self.second, self.first] = along
        return result


@takes_conversions
def directional_derivative(
    f: Callable[..., Any],
    x: Any,
    v: Any,
    h: Any = "auto",
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    scheme: SchemeName | Scheme = "central",
    bounds: Any = None,
    vectorized: bool = False,
    workers: int | Map | None = None,
    progress: Progress = False,
    outside: Any = None,
) -> Array | np.floating[Any]:
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
        The step, in units of v. "auto" is measured, as for `numerical_gradient`, by two or three
        quotients where f is smooth.
    args : tuple
        Further arguments of f.
    kwargs : mapping, optional
        Further arguments of f by their names.
    scheme : str or Scheme
        The difference scheme.
    bounds : pair, optional
        The lower and upper bounds of x, which no point goes beyond: where there is little room, the
        derivative is one-sided.
    vectorized, workers, progress
        As for `numerical_gradient`; what is counted, and shared by workers, are the calls of f.
    outside : exception class or tuple of such, optional
        What f raises where it is not defined, as for `numerical_gradient`.

    Returns
    -------
    number or array of f(x)'s shape
        In the floating-point type that f returns.

    Raises
    ------
    TypeError, ValueError
        As from `numerical_gradient`; if v does not fit x, or both directions lead out of bounds.

    Warns
    -----
    RuntimeWarning
        If a derivative is nan or infinite; it is returned as it is.

    Examples
    --------
    >>> x, v = np.array([3.0, 4.0]), np.array([1.0, 2.0])
    >>> float(directional_derivative(lambda x: (x**2).sum(), x, v).round(8))
    22.0
    >>> directional_derivative(lambda x: x[:2] * x[1], x, v).round(8)
    array([10., 16.])
    """
    chosen = as_scheme(scheme)
    x = users_array(x)
    f = with_keywords(f, kwargs)
    if outside is not None:
        f = WhereDefined(f, outside, stacked=vectorized is True)
    with guarded(f, x, args):
        evaluator = choose_evaluator(
            None, x, "auto", vectorized=vectorized, workers=workers, progress=progress
        )
        found = problems(f, x, PROBE_SCALE, args=args, scheme=chosen, relative=True, bounds=bounds)
        directions = as_directions(v, x, found)
        automatic = isinstance(h, str) and h == "auto" and not chosen.is_complex
        part, line = along(f, x, args, found, directions, h, chosen, automatic=automatic)
        [(fitting, places, steps)] = [some for some in line.partition if len(some[1])]
        base = value_at(found, f, x, args, evaluator.stacked)
        evaluator.require_analytic(found)
        if not (automatic or chosen.is_complex):
            require_moving(found, directions, float(np.max(steps)))
        put_back, _ = restorer([problem.x for problem in found])
        with evaluator.shown(len(fitting.offsets)) as report:
            if automatic:
                values = one_by_one(evaluator.values(in_parts(report, 1 / QUOTIENTS)))
                known = measured(line, values, base, coarsest(found, base))
                slopes = np.asarray(known.quotients)
            else:
                values = one_by_one(evaluator.values(report))
                slopes = derivatives(values, line.f, line.x, places, steps, fitting, base.shape)
            again = one_by_one(evaluator.values(None))
            derive_from_one_side(line, slopes, again, base, outside=outside)
        put_back()
    slope: Array | np.floating[Any] = np.asarray(slopes[0] / part, base.dtype)[()]
    warn_of_nonfinite(np.asarray(slope), "the derivative of {} along v", ("f(x)", base.ndim))
    return slope


def along(
    f: Callable[..., Any],
    x: Any,
    args: tuple[Any, ...],
    found: list[Problem],
    directions: list[Array],
    h: Any,
    scheme: Scheme,
    *,
    automatic: bool,
) -> tuple[float, Problem]:
    """Return the part of v that s is the multiple of, and f as a problem of s alone.

    For automatic steps s is 1 at x, and some element is moved by its own scale where s is 2: then
    s has the scale and the rounding of x.
    """
    part, origin = (unit(found, directions), 1.0) if automatic else (1.0, 0.0)
    line = Line(f, x, args, found, [part * direction for direction in directions], origin)
    position = np.full((), origin)
    [along] = problems(line, position, h, scheme=scheme, bounds=line.limits())
    whole = (position, *(problem.x for problem in found))
    return part, along.replaced(f=Call(line.at_first, (), whole, position), name="x along v")


def one_by_one(values: Values) -> Values:
    """Return the same way of evaluating f, to which each point is a place of its own."""

    def each(f: Callable[[Any], Any], x: Array, moves: Moves) -> Array:
        return values(f, x, moves.singly()).reshape(*moves.points.shape, *moves.shape)

    return each
