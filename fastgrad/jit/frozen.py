"""Comparison of a jitted function's compiled code with the code that it would have now.

numba takes globals, variables of surrounding functions, and attributes of modules as constants
when it compiles. Code for other types that is compiled later may have other constants. Where it
must have the same, the function is compiled anew for the old types, too, and both codes are
compared; and so with all jitted functions that it calls.
"""

import re
from collections.abc import Iterator
from typing import Any

import numba
from numba import types

from fastgrad.jit.jitted import code_of, finish

COMPILATION_NUMBERS = re.compile(r"B\d+v\d+|0x[0-9a-f]+|pickle(?:buf|data)\.\d+|\[\d+ x i8\]")
"""Numbers in the names of code, and the names' lengths: each compilation has others."""

MISFIT = re.compile(
    r"^@\.const\.pickledata\.(\w+) = .*(unable to broadcast argument \d+ to output array)\\0AFile ",
    re.MULTILINE,
)
"""The text of the exception that numba raises where shapes do not fit. It also says which line of
any function numba looked at last before."""

MISFITS = tuple(f"@.const.pickle{part}.unable to broadcast" for part in ("data", "buf"))
"""How the lines of its constants begin, once they are named after its first words."""

CONSTANT_LIBRARIES = {"builtins", "cmath", "math", "numba", "numpy", "operator", "_operator"}
"""Modules in whose functions nothing changes. Others may teach numba functions of their own, which
it compiles for each set of types, too."""


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

    def call(given: Any) -> Any:
        return f(*given)

    caller: Any = numba.njit(call)
    caller.compile((types.Tuple(arguments),))
    finish(caller)
    code = code_of(caller)
    for name, text in MISFIT.findall(code):
        code = code.replace(name, text)
    lines = COMPILATION_NUMBERS.sub("", code).splitlines()
    constants = sorted(
        line for line in lines if line.startswith("@") and not line.startswith(MISFITS)
    )
    return constants, [line for line in lines if not line.startswith("@")]


def _calls(annotation: Any) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """Iterate over the jitted functions that a function calls, and the types for which it does."""
    for expression, signature in annotation.calltypes.items():
        if getattr(expression, "op", "") == "call":
            called = annotation.typemap.get(expression.func.name)
            if isinstance(called, types.Dispatcher):
                given = (kind for kind in signature.args if not isinstance(kind, types.Omitted))
                yield called.dispatcher, tuple(given)


def _is_constant(kind: Any) -> bool:
    """Say whether a value that is a function is one that we look into, or one of a library."""
    if not isinstance(kind, types.Function):
        return True
    module = getattr(kind.typing_key, "__module__", None) or "builtins"
    return str(module).split(".")[0] in CONSTANT_LIBRARIES
