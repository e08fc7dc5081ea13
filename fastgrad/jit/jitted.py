"""What numba has compiled for a jitted function, by inner parts of its dispatchers.

numba takes globals, variables of surrounding functions, and attributes of modules as constants
when it compiles. Code for other types that is compiled later may have other constants. Where it
must have the same, the function is compiled anew for the old types, too, and both codes are
compared (`is_as_now`); and so with all jitted functions that it calls.

Without one of these parts the compiled engine says that it cannot serve the function, and the loop
does. numba itself is imported when it is needed: whoever jits a function has imported it.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

COMPILATION_NUMBERS = r"B\d+v\d+|0x[0-9a-f]+|pickle(?:buf|data)\.\d+|\[\d+ x i8\]"
"""Numbers in the names of code, and the names' lengths: each compilation has others."""

MISFIT = (
    r"(?m)^@\.const\.pickledata\.(\w+) = "
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
