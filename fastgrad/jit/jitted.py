"""Jitted functions: the code that numba compiled for one, and its release from numba's tables."""

from typing import Any


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
    (compiled,) = run.overloads.values()
    code: str = compiled.library.get_llvm_str()
    return code
