"""The compiled loop that evaluates f at several points at once, and the operations on lanes."""

import builtins
import math
import operator
import re
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import lower_builtin
from numpy.typing import NDArray

from fastgrad.jit.lanes import (
    LANES_TYPE,
    POINTS_AT_ONCE,
    REAL,
    TRUTH,
    VECTOR,
    WORDS,
    LanesArray,
    LanesType,
    as_lanes,
    count_where,
    differ,
    disagreements,
    each_lane,
    either,
    joined,
    number_of,
    store_lanes,
    vector_of,
)
from fastgrad.typing import Array

Evaluate = Callable[[NDArray[np.intp], Array, Array], None]

FAST_MATH = re.compile(r" (fast|nnan|ninf|nsz|arcp|contract|afn|reassoc) ")
"""What lets the compiler round otherwise for lanes than for a number."""

OPTIONS = ("fastmath", "error_model", "boundscheck")
"""The options of a jitted function on which its values depend."""


class LanesLoop:
    """The loop over the moved points of a jitted function of numbers, several at a time.

    Its values have the bits of the loop over single points. The first ones are compared with them,
    and if there is a difference, whatever the reason, lanes are no longer used for f. Points where
    f is nan or infinite are evaluated again, one by one.

    Parameters
    ----------
    f : jitted function
        ``f(x, *arguments) -> float``. What is compiled is a copy, so that f itself, and the file
        that its author may let numba keep it in, stay as they are.
    arguments : numba tuple type
        The types of f's arguments; the first is x, a float64 array in C order.
    code : str
        The LLVM code of f for numbers, with all that it calls.

    Raises
    ------
    Exception
        Whatever numba says of a function that cannot be compiled for lanes; ValueError if it might
        have other bits there.
    """

    def __init__(self, f: Any, arguments: Any, code: str) -> None:
        if f.targetoptions.get("parallel") or f.locals or FAST_MATH.search(code):
            raise ValueError("lanes may have other bits than numbers")
        options = {name: f.targetoptions[name] for name in OPTIONS if name in f.targetoptions}
        self.run: Any = numba.njit(nogil=True)(_lanes_loop(numba.njit(**options)(f.py_func)))
        matrix = types.float64[:, ::1]
        numbers = types.Array(types.float64, arguments[0].ndim + 1, "C")
        further = types.Tuple(arguments.types[1:])
        self.run.compile(
            (numbers, matrix, further, types.intp[::1], matrix, matrix, types.boolean[::1])
        )
        self._compared = self._differs = False

    def rows(self, points: Array) -> int:
        """Return how many elements are moved at a time, if each is moved to so many points."""
        return max(1, int(POINTS_AT_ONCE // max(1, points.shape[1])))

    def evaluation(
        self, elements: Array, arguments: tuple[Any, ...], one_by_one: Evaluate
    ) -> Evaluate:
        """Return a thread's way of evaluating f at points where single elements of x are moved.

        Parameters
        ----------
        elements : float64 array
            Those of x, flat. They are copied, and stay as they are.
        arguments : tuple
            Of f, x among them.
        one_by_one : callable
            What evaluates the points that lanes cannot.

        Returns
        -------
        callable
            ``evaluate(places, points, out)``, as the loop over single points is called.
        """
        x, *further = arguments
        numbers = np.empty((*x.shape, WORDS))
        flat = numbers.reshape(-1, WORDS)
        flat[:, 0], flat[:, 1] = 0.0, elements
        often_void: bool | np.bool_ = False

        def evaluate(places: NDArray[np.intp], points: Array, out: Array) -> None:
            nonlocal often_void
            # Read before the other: a thread that finds a difference says so first.
            compared = self._compared
            if often_void or self._differs:
                one_by_one(places, points, out)
                return
            void = np.zeros(len(places), dtype=np.bool_)
            try:
                self.run(numbers, flat, tuple(further), places, points, out, void)
            except Exception:  # f's own; it is raised again if single points raise it
                flat[:, 0] = 0.0
                void[...] = True
            again = np.flatnonzero(void) if compared else np.arange(len(places))
            if len(again):
                values = np.empty((len(again), points.shape[1]))
                one_by_one(places[again], points[again], values)
                if not compared:
                    if not np.array_equal(values[~void], out[~void], equal_nan=True):
                        self._differs = True
                    if not void.all():
                        self._compared = True
                often_void = 2 * np.count_nonzero(void) > len(places)
                out[again] = values

        return evaluate


def _lanes_loop(f: Any) -> Callable[..., None]:
    """Return the loop over points of a function, several in lanes at once."""

    def run(
        numbers: Array,
        flat: Array,
        further: tuple[Any, ...],
        places: NDArray[np.intp],
        points: Array,
        out: Array,
        void: NDArray[np.bool_],
    ) -> None:
        rows, columns = points.shape
        found = np.empty(POINTS_AT_ONCE)
        i, k = 0, 0
        for start in range(0, rows * columns, POINTS_AT_ONCE):
            count = min(POINTS_AT_ONCE, rows * columns - start)
            first_i, first_k = i, k
            for lane in range(count):
                number = flat[places[i]]
                if number[0] == 0.0:
                    number[0] = 1.0
                    number[2:] = number[1]
                number[2 + lane] = points[i, k]
                i, k = (i, k + 1) if k + 1 < columns else (i + 1, 0)
            before: int = disagreements()
            store_lanes(found, 0, f(as_lanes(numbers), *further))
            disagreed = disagreements() != before
            i, k = first_i, first_k
            for lane in range(count):
                flat[places[i], 0] = 0.0
                out[i, k] = found[lane]
                void[i] |= disagreed or not np.isfinite(found[lane])
                i, k = (i, k + 1) if k + 1 < columns else (i + 1, 0)

    return run


# Operations ---------------------------------------------------------------------------------------

Write = Callable[..., Any]
"""What writes an operation, given the context, the builder, and vectors or numbers alike."""


def _first_of_all(builder: Any, values: list[Any]) -> Any:
    """Write that the first lane's whole number or truth goes for all; count where others differ."""
    first, *others = values
    for other in others:
        count_where(builder, builder.icmp_unsigned("!=", first, other))
    return first


def _takes_lanes(arguments: tuple[Any, ...]) -> bool:
    """Say whether some of the arguments' types are lanes, and all others numbers; or arrays."""
    elements = [kind.dtype if isinstance(kind, types.Array) else kind for kind in arguments]
    return any(isinstance(kind, LanesType) for kind in elements) and all(
        isinstance(kind, (LanesType, *REAL)) for kind in elements
    )


def register_lowering(
    function: Callable[..., Any],
    resolve: Callable[[Any, tuple[Any, ...]], Any],
    write: Callable[..., Any],
    kinds: Iterable[tuple[Any, ...]],
    *,
    prefer_literal: bool = False,
) -> None:
    """Register what a function of lanes, or of arrays of them, returns, and how it is computed.

    Parameters
    ----------
    function : callable
    resolve : callable
        ``resolve(typing context, types of the arguments)`` returns numba's type of the result, or
        None for arguments that are not for it.
    write : callable
        Writes the operation, as numba's `lower_builtin` takes it.
    kinds : iterable of tuples
        The classes of types of arguments for which it does.
    prefer_literal : bool
        Whether the type of a number that stands in the source is to tell it.
    """

    def generic(self: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        returned = None if keywords else resolve(self.context, arguments)
        return None if returned is None else returned(*arguments)

    parts = {"key": function, "generic": generic, "prefer_literal": prefer_literal}
    infer_global(function, types.Function(type("Template", (AbstractTemplate,), parts)))
    for kind in kinds:
        lower_builtin(function, *kind)(write)


def _register_elementwise(
    function: Callable[..., Any], write: Callable[..., Any], arity: int
) -> None:
    """Let numba type a function of numbers for lanes, and lower it by what is written for it."""

    def resolve(context: Any, arguments: tuple[Any, ...]) -> Any:
        if len(arguments) != arity or not _takes_lanes(arguments):
            return None
        scalar = _of_numbers(context, function, arguments)
        return None if scalar is None else _as_lanes(scalar.return_type)

    kinds = product((LanesType, *REAL), repeat=arity)
    register_lowering(function, resolve, write, (kind for kind in kinds if LanesType in kind))


def _of_numbers(context: Any, function: Any, arguments: tuple[Any, ...]) -> Any:
    """Return the signature of a function for numbers in the places of lanes, or None."""
    return context.resolve_function_type(function, tuple(map(_as_numbers, arguments)), {})


def _as_numbers(kind: Any) -> Any:
    """Return the type that a function for single points has in the place of one with lanes."""
    if isinstance(kind, types.Array) and isinstance(kind.dtype, LanesType):
        return types.Array(types.float64, kind.ndim, kind.layout)
    return types.float64 if isinstance(kind, LanesType) else kind


def _as_lanes(kind: Any) -> Any:
    """Return the type of what an operation returns for lanes, given that for numbers; or None."""
    if isinstance(kind, types.Array):
        element = _as_lanes(kind.dtype)
        return LanesArray(kind.ndim, kind.layout) if element is LANES_TYPE else element and kind
    return LANES_TYPE if isinstance(kind, types.Float) else kind if isinstance(kind, REAL) else None


def _lane_by_lane(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return what lowers a function as the same function of numbers, for one lane after another."""

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        scalar = _of_numbers(context.typing_context, function, case.args)
        implementation = context.get_function(
            context.typing_context.resolve_value_type(function), scalar
        )
        context.add_linking_libs(getattr(implementation, "libs", ()))
        of_floats = isinstance(scalar.return_type, types.Float)
        in_lanes = [isinstance(kind, LanesType) for kind in case.args]
        kinds = [_as_numbers(kind) for kind in case.args]

        def of_numbers(numbers: list[Any]) -> Any:
            given = [
                context.cast(builder, number, kind, wanted)
                for number, kind, wanted in zip(numbers, kinds, scalar.args, strict=True)
            ]
            result = implementation(builder, given)
            if not of_floats:
                return result
            return context.cast(builder, result, scalar.return_type, types.float64)

        def at_each() -> Any:
            of_each = [
                each_lane(builder, vector_of(builder, value)) if i else [value] * POINTS_AT_ONCE
                for i, value in zip(in_lanes, values, strict=True)
            ]
            results = [of_numbers([*numbers]) for numbers in zip(*of_each, strict=True)]
            return joined(builder, results) if of_floats else _first_of_all(builder, results)

        def at_all() -> Any:
            return of_numbers(
                [
                    number_of(builder, value) if i else value
                    for i, value in zip(in_lanes, values, strict=True)
                ]
            )

        lanes = [value for i, value in zip(in_lanes, values, strict=True) if i]
        return either(builder, differ(builder, lanes), at_each, at_all)

    return write


def _of_vectors(write: Write) -> Callable[..., Any]:
    """Return what lowers a function by instructions for whole vectors, and for numbers."""

    def generate(context: Any, builder: Any, case: Any, values: Any) -> Any:
        lanes = [
            context.cast(builder, value, kind, LANES_TYPE)
            for kind, value in zip(case.args, values, strict=True)
        ]
        return either(
            builder,
            differ(builder, lanes),
            lambda: write(context, builder, *(vector_of(builder, value) for value in lanes)),
            lambda: write(context, builder, *(number_of(builder, value) for value in lanes)),
        )

    return generate


def _filled(kind: Any, number: float) -> Any:
    """Return a constant: a number, or a vector of it."""
    return ir.Constant(kind, [number] * POINTS_AT_ONCE if kind == VECTOR else number)


def _bits(builder: Any, truths: Any) -> Any:
    """Write the instructions that make an integer of truths, one bit for each."""
    return builder.bitcast(truths, ir.IntType(POINTS_AT_ONCE if truths.type != TRUTH else 1))


def _count_in_any(builder: Any, truths: Any) -> None:
    """Write that a disagreement is counted if a truth holds in any lane."""
    bits = _bits(builder, truths)
    count_where(builder, builder.icmp_unsigned("!=", bits, bits.type(0)))


def _arithmetic(instruction: str) -> Callable[..., Any]:
    """Return what writes an instruction of arithmetic."""
    return _of_vectors(lambda _, builder, x, y: getattr(builder, instruction)(x, y))


def _comparison(predicate: str) -> Callable[..., Any]:
    """Return what writes a comparison, and counts where lanes take different branches."""

    def write(context: Any, builder: Any, x: Any, y: Any) -> Any:
        compare = builder.fcmp_unordered if predicate == "!=" else builder.fcmp_ordered
        truths = compare(predicate, x, y)
        _count_in_any(builder, builder.fcmp_unordered("uno", x, y))
        if truths.type == TRUTH:
            return truths
        bits = _bits(builder, truths)
        some = builder.icmp_unsigned("!=", bits, bits.type(0))
        not_all = builder.icmp_unsigned("!=", bits, bits.type(2**POINTS_AT_ONCE - 1))
        count_where(builder, builder.and_(some, not_all))
        return builder.extract_element(truths, ir.IntType(32)(0))

    return _of_vectors(write)


def _divide(context: Any, builder: Any, x: Any, y: Any) -> Any:
    """Divide; where Python would raise ZeroDivisionError, call it a disagreement."""
    if context.error_model.raise_on_fp_zero_division:
        _count_in_any(builder, builder.fcmp_ordered("==", y, _filled(y.type, 0.0)))
    return builder.fdiv(x, y)


def _intrinsic_function(name: str) -> Callable[..., Any]:
    """Return what lowers a function by LLVM's of the same name, which is exact to the last bit."""

    def write(context: Any, builder: Any, x: Any) -> Any:
        kind = ir.FunctionType(x.type, [x.type])
        suffix = f"v{POINTS_AT_ONCE}f64" if x.type == VECTOR else "f64"
        function = get_or_insert_function(builder.module, kind, f"llvm.{name}.{suffix}")
        return builder.call(function, [x])

    return _of_vectors(write)


def _resolve_power(_: Any, arguments: tuple[Any, ...]) -> Any:
    """Take small whole exponents in the source, which numba turns into products, too."""
    base, exponent = arguments
    if not isinstance(base, LanesType) or not isinstance(exponent, types.IntegerLiteral):
        return None
    return LANES_TYPE if 0 <= exponent.literal_value <= 0x10000 else None


def _write_power(context: Any, builder: Any, case: Any, values: Any) -> Any:
    """Write a power with a whole exponent as products."""
    exponent = case.args[1].literal_value
    whole = _of_vectors(lambda _, builder, base: _multiplied(builder, base, exponent))
    return whole(context, builder, LANES_TYPE(LANES_TYPE), values[:1])


def _multiplied(builder: Any, power: Any, exponent: int) -> Any:
    """Multiply in numba's order, whose bits are wanted."""
    result = _filled(power.type, 1.0)
    while exponent:
        if exponent & 1:
            result = builder.fmul(result, power)
        exponent >>= 1
        power = builder.fmul(power, power)
    return result


register_lowering(
    operator.pow,
    _resolve_power,
    _write_power,
    [(LanesType, types.IntegerLiteral)],
    prefer_literal=True,
)


def _extreme(predicate: str) -> Callable[..., Any]:
    """Return what lowers max or min: the first one that no later one exceeds, as in Python."""

    def write(context: Any, builder: Any, first: Any, *others: Any) -> Any:
        for other in others:
            first = builder.select(builder.fcmp_ordered(predicate, other, first), other, first)
        return first

    return _of_vectors(write)


UNARY: dict[Any, Callable[..., Any]] = {
    operator.neg: _of_vectors(lambda _, builder, x: builder.fneg(x)),
    operator.pos: _of_vectors(lambda _, builder, x: x),
    builtins.float: _of_vectors(lambda _, builder, x: x),
    builtins.abs: _intrinsic_function("fabs"),
    math.fabs: _intrinsic_function("fabs"),
    math.sqrt: _intrinsic_function("sqrt"),
    np.sqrt: _intrinsic_function("sqrt"),
}

BINARY: dict[Any, Callable[..., Any]] = {
    operator.add: _arithmetic("fadd"),
    operator.iadd: _arithmetic("fadd"),
    operator.sub: _arithmetic("fsub"),
    operator.isub: _arithmetic("fsub"),
    operator.mul: _arithmetic("fmul"),
    operator.imul: _arithmetic("fmul"),
    operator.truediv: _of_vectors(_divide),
    operator.itruediv: _of_vectors(_divide),
    operator.lt: _comparison("<"),
    operator.le: _comparison("<="),
    operator.gt: _comparison(">"),
    operator.ge: _comparison(">="),
    operator.eq: _comparison("=="),
    operator.ne: _comparison("!="),
}


EXTREMES: dict[Any, Callable[..., Any]] = {
    builtins.max: _extreme(">"),
    builtins.min: _extreme("<"),
}


LANE_BY_LANE_FUNCTIONS = (
    *(operator.floordiv, operator.ifloordiv, operator.mod, operator.imod, operator.not_),
    *(operator.pow, operator.ipow, builtins.pow),
    *(builtins.bool, builtins.int, builtins.round),
    *(function for function in vars(math).values() if callable(function)),
    *{function for function in vars(np).values() if isinstance(function, np.ufunc)},
)
"""Taken lane by lane: all of ``math``, all of NumPy's functions of single numbers."""


for _arities, _functions in (((1,), UNARY), ((2,), BINARY), ((2, 3, 4), EXTREMES)):
    for _arity in _arities:
        for _function, _write in _functions.items():
            _register_elementwise(_function, _write, _arity)
for _function in LANE_BY_LANE_FUNCTIONS:
    if _function not in UNARY:
        for _arity in (1, 2):
            _register_elementwise(_function, _lane_by_lane(_function), _arity)


# Reductions of arrays -----------------------------------------------------------------------------


def _mean(a: Any) -> Any:
    """Return the mean, as numba computes it."""
    return np.sum(a) / a.size


def _prod(a: Any) -> Any:
    """Return the product, in C order, as numba computes it."""
    result = 1.0
    for number in a.flat:
        result *= number
    return result


def _register_reduction(name: str, reduce: Callable[[Any], Any]) -> None:
    """Let numba know a function and a method that reduce an array of lanes to a number."""

    def resolve(_: Any, arguments: tuple[Any, ...]) -> Any:
        is_one = len(arguments) == 1 and isinstance(arguments[0], LanesArray)
        return LANES_TYPE if is_one else None

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        return context.compile_internal(builder, reduce, case, values)

    register_lowering(getattr(np, name), resolve, write, [(LanesArray,)])
    lower_builtin(f"lanes.{name}", LanesArray)(write)


_register_reduction("mean", _mean)
_register_reduction("prod", _prod)
