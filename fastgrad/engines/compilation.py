"""The loop over moved points that is compiled for a jitted function, once for each set of types."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences.arguments import Call
from fastgrad.interrupts import never_lost
from fastgrad.jit import concurrency, jitted
from fastgrad.jit.jitted import code_of, finish
from fastgrad.typing import Array

if TYPE_CHECKING:
    from fastgrad.jit.lanes_loop import LanesLoop

Run = Callable[[Array, tuple[Any, ...], NDArray[np.intp], Array, Array], None]

LOOPS_ATTRIBUTE = "_fastgrad_loops"
"""The attribute of a jitted function where its loops are: they live as long as the function."""

LAYOUT_FLAGS = 0x001 | 0x002 | 0x100 | 0x400
"""NumPy's flags for C and Fortran order, alignment, and writing: what numba's type of an array says
beside its dtype and axes."""


class NotCompilableError(ValueError):
    """The loop over this function cannot be compiled, for a reason."""

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"engine is 'compiled', which cannot serve f: {reason}; pass engine='auto' or 'loop'"
        )
        self.reason = reason


LANES_SECONDS = 0.25
"""Seconds that it takes to compile a loop over several points at a time, beside those for f."""

LANES_COMPILATIONS = 2
"""How many times f is compiled for that: in lanes, and as it is, to see whether it is the same."""


@dataclass(eq=False)
class CompiledLoop:
    """The compiled loop over the moved points of one function, for one set of types.

    Attributes
    ----------
    run : callable
        ``run(elements, arguments, places, points, out)``: put ``points[i, k]`` into
        ``elements[places[i]]``, and ``f(*arguments)`` into ``out[i, k]``. The elements are those of
        an array among the arguments, all of which f sees; if it raises, one of them stays moved.
    dtype : numpy dtype
        Of out.
    alone : bool
        Whether it must run in one thread, since f starts threads of its own.
    constants : list of weak references
        The arrays that f reads without being passed them. numba took them as constants.
    overload : object
        The compiled f that was called when this was made, as numba keeps it.
    arguments : numba tuple type or None
        The types of f's arguments, if they may suit `lanes`: x is the first, of float64 in C order,
        and f returns a float64.
    seconds : float
        How long the loop has run until now.
    certified, price : float
        How long it had run when a gradient was last certified, and how long that took.
    """

    run: Run
    dtype: np.dtype[Any]
    alone: bool
    constants: list[weakref.ref[Array]]
    overload: Any
    arguments: Any
    seconds: float = 0.0
    certified: float = 0.0
    price: float = 0.0
    _lanes: list["LanesLoop | None"] = field(default_factory=list)  # empty until it is tried
    _last: tuple[object, float] | None = None

    def note(self, seconds: float, case: object, item_seconds: float) -> None:
        """Remember how long the loop has run, and how long an element took in a case."""
        self.seconds += seconds
        self._last = case, item_seconds

    def item_seconds(self, case: object) -> float | None:
        """Return how long an element took last; None if that was another case, or never."""
        return self._last[1] if self._last is not None and self._last[0] == case else None

    def lanes(self, f: Any) -> "LanesLoop | None":
        """Return the loop over several points at a time; None if f, whose loop this is, has none.

        It is compiled once the loop over single points has taken as long as that may take:
        `LANES_SECONDS`, and `LANES_COMPILATIONS` times what numba took to compile f.
        """
        worth = LANES_SECONDS + LANES_COMPILATIONS * jitted.compile_seconds(self.overload)
        if self.arguments is None or self.seconds < worth:
            return None
        if not self._lanes:
            self.price = 0.0  # what is new is certified at once
            made = None
            # Whatever numba says of lanes, f computes with numbers.
            with suppress(Exception), never_lost():
                with concurrency.importing:  # which takes a second
                    from fastgrad.jit.lanes_loop import LanesLoop
                # Its constants must be certain to be those that f has.
                if jitted.is_as_now(f, self.arguments.types):
                    made = LanesLoop(f, self.arguments, code_of(self.run))
            self._lanes.append(made)
        return self._lanes[0]


def is_jitted(f: object) -> bool:
    """Say whether f, or what a `Call` calls, was compiled by numba's jit, without importing numba.

    With ``NUMBA_DISABLE_JIT=1`` nothing is.
    """
    return jitted.is_jitted(f.f if isinstance(f, Call) else f)


def compiled_loop(
    f: Any, elements: Array, arguments: tuple[Any, ...], shape: tuple[int, ...]
) -> CompiledLoop:
    """Return the loop for a jitted function, what `run` takes, and the shape of what f returns.

    It is compiled when it is first asked for with such types, beside f itself,
    and found again afterwards. It lives on the function, as an attribute, and goes with it.

    Raises
    ------
    NotCompilableError
        If numba cannot compile f for the arguments, or f returns something else than a number (or
        an array, if there is a shape).
    """
    loops: dict[Any, CompiledLoop | str] = vars(f).setdefault(LOOPS_ATTRIBUTE, {})
    try:
        key = (elements.dtype, kind(arguments), shape)
        found = loops.get(key)
    except (ValueError, TypeError) as error:  # numba has no type for it, or one without a hash
        raise NotCompilableError(_first_line(error)) from None
    # f.recompile() replaces what was compiled, because f's constants have changed.
    if isinstance(found, CompiledLoop) and not any(
        kept is found.overload for kept in f.overloads.values()
    ):
        found = None
    if found is None:
        found = loops[key] = _compiled(f, elements, arguments, shape)
    if isinstance(found, str):
        raise NotCompilableError(found)
    return found


def _compiled(
    f: Any, elements: Array, arguments: tuple[Any, ...], shape: tuple[int, ...]
) -> CompiledLoop | str:
    """Return the loop, or why it cannot be compiled."""
    try:
        with never_lost():
            return _compile(f, elements, arguments, shape)
    except NotCompilableError as refusal:
        return refusal.reason
    except Exception as error:  # whatever numba says; its inner names are not promised
        return f"numba said {type(error).__name__}: {_first_line(error)}"


def kind(value: Any) -> Any:
    """Return what tells a value's type for numba, which takes much longer to say it itself."""
    if isinstance(value, tuple):
        return (type(value), *map(kind, value))
    if type(value) is not np.ndarray:
        import numba

        return numba.typeof(value)
    return value.dtype, value.ndim, value.flags.num & LAYOUT_FLAGS


def _compile(
    f: Any, elements: Array, arguments: tuple[Any, ...], shape: tuple[int, ...]
) -> CompiledLoop:
    """Compile the loop for the types of the elements and of f's arguments."""
    import numba
    from numba import types

    number, given = numba.typeof(elements).dtype, numba.typeof(arguments)
    for each in given.types:
        _require_apart(each)
    if reason := jitted.why_not_own_code(f, tuple(given.types)):
        raise NotCompilableError(reason)
    signature = jitted.signature_of(f, tuple(given.types))
    if signature is None:
        raise NotCompilableError("it was compiled in object mode, or declared for other types")
    returned = signature.return_type
    if shape and isinstance(returned, types.Array) and returned.ndim == len(shape):
        dtype = np.dtype(str(returned.dtype))
    elif not shape and isinstance(returned, (types.Number, types.Boolean)):
        dtype = np.dtype(str(returned))
        if dtype.kind in "fc":  # numba hands float32 to Python as a double, too
            dtype = np.result_type(dtype, np.float64)
    else:
        raise NotCompilableError(f"f returns {returned}, not {'an array' if shape else 'a number'}")
    run: Any = numba.njit(nogil=True)(_loop(f, shape))
    places, points = types.Array(types.intp, 1, "C"), types.Array(number, 2, "C")
    out = types.Array(numba.from_dtype(dtype), 2 + len(shape), "C")
    run.compile((types.Array(number, 1, "C"), given, places, points, out))
    finish(run)
    # What f calls is linked into the loop, so that its launches of threads, and its calls of
    # Python functions by objmode, show there.
    code = code_of(run)
    if "PyObject_Call" in code:
        raise NotCompilableError("it calls Python functions, which may read x elsewhere")
    alone = "numba_parallel_for" in code
    functions = [f, *(argument for argument in arguments if is_jitted(argument))]
    constants = [weakref.ref(array) for each in functions for array in _constants(each, set())]
    first = given.types[0]
    of_numbers = returned == number == types.float64 and not alone
    suits_lanes = of_numbers and isinstance(first, types.Array) and first.layout == "C"
    overload = f.overloads[signature.args]
    return CompiledLoop(run, dtype, alone, constants, overload, given if suits_lanes else None)


def _require_apart(given: Any) -> None:
    """Refuse an argument of a numba type in which x may be, where the loop would not move it."""
    from numba import types

    plain = (types.Number, types.Boolean, types.UnicodeType, types.NoneType, types.Dispatcher)
    if isinstance(given, types.BaseTuple):
        parts: Any = given
        for part in parts.types:
            _require_apart(part)
    elif isinstance(given, (types.ListType, types.List, types.Set)):
        _require_number(given.dtype)
    elif isinstance(given, types.DictType):
        _require_number(given.key_type)
        _require_number(given.value_type)
    elif not isinstance(given, (types.Array, *plain)):
        raise NotCompilableError(f"an argument is of numba's type {given}, which may hold x")


def _require_number(inner: Any) -> None:
    from numba import types

    if not isinstance(inner, (types.Number, types.Boolean, types.UnicodeType)):
        raise NotCompilableError(f"an argument holds values of numba's type {inner}")


def _loop(f: Any, shape: tuple[int, ...]) -> Run:
    """Return the loop; numba leaves out what is never done for an f that returns numbers."""

    def run(
        elements: Array,
        arguments: tuple[Any, ...],
        places: NDArray[np.intp],
        points: Array,
        out: Array,
    ) -> None:
        for i in range(len(places)):
            old = elements[places[i]]
            for k in range(points.shape[1]):
                elements[places[i]] = points[i, k]
                value = f(*arguments)
                if shape and value.shape != shape:
                    raise ValueError(
                        "f returned arrays of different shapes; it must return arrays of one shape"
                    )
                out[i, k] = value
            elements[places[i]] = old

    return run


def _constants(f: Any, seen: set[Any]) -> Iterator[Array]:
    """Iterate over the arrays that f, or a jitted function it calls, reads from outside."""
    seen.add(f)
    function = f.py_func
    for value in (*_globals(function.__code__, function.__globals__), *_cells(function)):
        yield from arrays_in(value)
        if is_jitted(value) and value not in seen:
            yield from _constants(value, seen)


def _globals(code: CodeType, names: dict[str, Any]) -> Iterator[Any]:
    """Iterate over the globals that code names, in inner functions, too, and those of modules."""
    for name in code.co_names:
        if name in names:
            value = names[name]
            yield value
            if isinstance(value, ModuleType):
                yield from (vars(value)[part] for part in code.co_names if part in vars(value))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            yield from _globals(inner, names)


def _cells(function: Any) -> Iterator[Any]:
    """Iterate over the variables of the functions around a function that it reads."""
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # an empty cell
            yield cell.cell_contents


def arrays_in(value: Any) -> Iterator[Array]:
    """Iterate over the arrays that a value is, or holds in tuples of tuples."""
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, tuple):
        for part in value:
            yield from arrays_in(part)


def _first_line(error: Exception) -> str:
    """Return the lines of numba's message that say what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:2]).rstrip(":.") or type(error).__name__
