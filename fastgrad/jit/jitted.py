"""Functions that users have compiled by numba's jit: the loop over moved points for one of them.

A loop is compiled once for each function and set of types (`compiled_loop`), beside f itself. Below
it stands what numba has compiled, by inner parts of its dispatchers.

numba takes globals, variables of surrounding functions, and attributes of modules as constants
when it compiles. Code for other types that is compiled later may have other constants. Where it
must have the same, the function is compiled anew for the old types, too, and both codes are
compared (`is_as_now`); and so with all jitted functions that it calls.

Without one of these parts the compiled engine says that it cannot serve the function, and the loop
does. numba itself is imported when it is needed: whoever jits a function has imported it.
"""

import re
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.jit.interrupts import never_lost
from fastgrad.lazy import LazyModule
from fastgrad.typing import Array, Places

if TYPE_CHECKING:
    from fastgrad.jit import concurrency
    from fastgrad.jit.lanes_loop import LanesLoop
else:  # most functions are not jitted
    concurrency = LazyModule("fastgrad.jit.concurrency")

Run = Callable[[Array, tuple[Any, ...], Places, Array, Array], None]

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
        worth = LANES_SECONDS + LANES_COMPILATIONS * compile_seconds(self.overload)
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
                if is_as_now(f, self.arguments.types):
                    made = LanesLoop(f, self.arguments, code_of(self.run))
                    finish(made.run)
            self._lanes.append(made)
        return self._lanes[0]


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
    if reason := why_not_own_code(f, tuple(given.types)):
        raise NotCompilableError(reason)
    signature = signature_of(f, tuple(given.types))
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
    """Refuse values that are no numbers, truth values or text."""
    from numba import types

    if not isinstance(inner, (types.Number, types.Boolean, types.UnicodeType)):
        raise NotCompilableError(f"an argument holds values of numba's type {inner}")


def _loop(f: Any, shape: tuple[int, ...]) -> Run:
    """Return the loop; numba leaves out what is never done for an f that returns numbers."""

    def run(
        elements: Array,
        arguments: tuple[Any, ...],
        places: Places,
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


# What numba has compiled -------------------------------------------------------------------------

COMPILATION_NUMBERS = (
    r"B\d+v\d+|0x[0-9a-f]+|pickle(?:buf|data)\.\d+(?:\.sha1)?(?:\.\d+)?|\[\d+ x i8\]"
)
"""Numbers in the names of code, and the names' lengths: each compilation has others. Exceptions are
named after where they lie in memory, and numbered where one lay before."""

MISFIT = (
    r"(?m)^@\.const\.pickledata\.([\w.]+) = "
    r".*(unable to broadcast argument \d+ to output array)\\0AFile "
)
"""The text of the exception that numba raises where shapes do not fit. It also says which line of
any function numba looked at last before."""

MISFITS = tuple(f"@.const.pickle{part}.unable to broadcast" for part in ("data", "buf"))
"""How the lines of its constants begin, once they are named after its first words."""

CONSTANT_LIBRARIES = {"builtins", "cmath", "math", "numba", "numpy", "operator", "_operator"}
"""Modules in whose functions nothing changes. Others may teach numba functions of their own, which
it compiles for each set of types, too."""


def is_jitted(function: object) -> bool:
    """Say whether a function was compiled by numba's jit, without importing numba.

    With ``NUMBA_DISABLE_JIT=1`` nothing is.
    """
    # numba.extending.is_jitted says the same in ten times the time: it imports the class each time.
    imported = sys.modules.get("numba.core.dispatcher")  # by whoever has jitted f
    return isinstance(function, getattr(imported, "Dispatcher", ()))


def signature_of(f: Any, given: tuple[Any, ...]) -> Any:
    """Return the signature with which compiled code calls f for these types; compile f for them.

    It is None if f was compiled in object mode, or is declared for other types.
    """
    import numba
    from numba.core.registry import cpu_target

    return numba.typeof(f).get_call_type(cpu_target.typing_context, given, {})


def why_not_own_code(f: Any, given: tuple[Any, ...]) -> str:
    """Return why f's compiled code for these types may not be what a call of it runs; "" if it is.

    numba takes globals as constants when it compiles: code that is compiled later may have others.
    So the loop must be made of the code that a call runs: for just these types, which numba
    compiles where it can. Where it cannot, it may convert them to others.
    """
    if f.targetoptions.get("inline", "never") != "never":
        return "it is inlined, so that its globals are read again"
    wanted = tuple(f._compiler.fold_argument_types(given, {})[1])
    if not f._can_compile and wanted not in f.overloads and len(f.overloads) > 1:
        return "it is declared for several other types"
    return ""


def compile_seconds(overload: Any) -> float:
    """Return how long numba took to compile a function, 0 if it does not know or did not."""
    timers = (overload.metadata or {}).get("timers", {})
    return float(timers.get("compiler_lock", 0.0))


def finish(run: Any) -> None:
    """Compile a jitted function no more, and drop the references that would keep it alive."""
    compiled: Any
    for key, compiled in run.overloads.items():
        # numba keeps all compiled code in a table. By its annotations, which are for print-outs
        # only, a loop's would keep its function alive, and the function keeps the loop.
        run.overloads[key] = compiled._replace(type_annotation=None)
    run.disable_compile()


def code_of(run: Any) -> str:
    """Return the LLVM code of a function that is compiled once, and of all that it calls."""
    code: str
    (code,) = run.inspect_llvm().values()
    return code


def is_as_now(f: Any, arguments: tuple[Any, ...], seen: set[Any] | None = None) -> bool:
    """Say whether f is certain to have the constants that it would have if it were compiled now.

    Parameters
    ----------
    f : jitted function
    arguments : tuple of numba types
        It has been compiled for them.
    seen : set, optional
        The functions and types that are looked at already.
    """
    import numba

    seen = set() if seen is None else seen
    if (f, arguments) in seen:
        return True
    seen.add((f, arguments))
    anew = numba.jit(locals=f.locals, **f.targetoptions)(f.py_func)
    if _code(f, arguments) != _code(anew, arguments):
        return False
    (compiled,) = anew.overloads.values()
    kinds = compiled.type_annotation.typemap
    return all(map(_is_constant, kinds.values())) and all(
        is_as_now(called, given, seen) for called, given in _calls(compiled.type_annotation)
    )


def _code(f: Any, arguments: tuple[Any, ...]) -> tuple[list[str], list[str]]:
    """Return the constants in the code of f for these types and of all that it calls, and the rest.

    The constants are in alphabetical order, for numba writes them down in any.
    """
    import numba

    def call(given: Any) -> Any:
        return f(*given)

    caller: Any = numba.njit(call)
    caller.compile((numba.types.Tuple(arguments),))
    finish(caller)
    code = code_of(caller)
    for name, text in re.findall(MISFIT, code):
        code = code.replace(name, text)
    lines = re.sub(COMPILATION_NUMBERS, "", code).splitlines()
    constants = sorted(
        line for line in lines if line.startswith("@") and not line.startswith(MISFITS)
    )
    return constants, [line for line in lines if not line.startswith("@")]


def _calls(annotation: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Iterate over the jitted functions that a function calls, and the types for which it does."""
    from numba import types

    for expression, signature in annotation.calltypes.items():
        if getattr(expression, "op", "") == "call":
            called = annotation.typemap.get(expression.func.name)
            if isinstance(called, types.Dispatcher):
                given = (kind for kind in signature.args if not isinstance(kind, types.Omitted))
                yield called.dispatcher, tuple(given)


def _is_constant(kind: Any) -> bool:
    """Say whether a value that is a function is one that we look into, or one of a library."""
    from numba import types

    if not isinstance(kind, types.Function):
        return True
    module = getattr(kind.typing_key, "__module__", None) or "builtins"
    return str(module).split(".")[0] in CONSTANT_LIBRARIES
