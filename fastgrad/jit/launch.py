"""Launches of kernels on numba's threads, which take the arguments from memory.

numba's own parallel loops take as long again to compile as the loop itself. Here a kernel is
compiled serially, as ``function(task, tasks, ...)``, and `numba.guvectorize` spreads the task
numbers over the threads. It compiles one small function for all kernels, which calls them by
address.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.base import BaseContext
from numba.core.callconv import CPUCallConv
from numba.core.cgutils import for_range, get_null_value, unpack_tuple
from numba.core.codegen import JITCodeLibrary
from numba.core.cpu import CPUContext
from numba.extending import intrinsic

LOOKED_UP = (
    *(BaseContext.make_array, BaseContext.make_tuple, BaseContext.get_dummy_value),
    *(BaseContext.get_abi_sizeof, CPUContext.call_conv, JITCodeLibrary.get_pointer_to_function),
    *(CPUCallConv.get_function_type, CPUCallConv.call_function),
)
"""What is looked up no sooner than when a kernel is compiled: it has to be there now."""

INTEGER = ir.IntType(64)
# What runs a task: of the task, the number of tasks, and where the arguments are.
RUNNER = ir.FunctionType(ir.VoidType(), [INTEGER, INTEGER, INTEGER.as_pointer()])

MEMORY_TYPE = types.Array(types.int64, 1, "C")
MEMORY_WORDS = 512
"""How many 64-bit words a launch may take; a 3-D array takes eleven."""


def new_memory() -> Any:
    """Return memory for the launch of a kernel: the runner's and its address, the arguments."""
    return np.zeros(MEMORY_WORDS, np.int64)


def prepare(
    address: int, serially: bool, tasks: int, memory: Any, arguments: tuple[Any, ...]
) -> None:
    """Write a kernel's arguments to memory, for `launch`; or run all tasks at once.

    Compiled once for each kernel, with the types of its arguments.

    Parameters
    ----------
    address : int
        Of the compiled kernel.
    serially : bool
        Whether to run the tasks here, one after the other.
    tasks : int
    memory : int64 array of shape (MEMORY_WORDS,)
        Overwritten. It holds no references: the arguments must stay alive until they are used.
    arguments : tuple of arrays and scalars
        The kernel's, after the task and the number of tasks.
    """
    _prepare(address, serially, tasks, memory, arguments)


def prepare_type(arguments: tuple[Any, ...]) -> Any:
    """Return the type of `prepare` for a kernel's types of arguments."""
    packed = types.Tuple(arguments)
    return types.none(types.int64, types.boolean, types.int64, MEMORY_TYPE, packed)


def address_of(kernel: Any) -> int:
    """Return where the code of a kernel is, which is compiled once."""
    (result,) = kernel.overloads.values()
    return int(result.library.get_pointer_to_function(result.fndesc.llvm_func_name))


def run_task(task: int, tasks: int, memory: Any) -> None:
    """Run a task of the kernel that `prepare` has written to memory."""
    _run(task, tasks, memory)


RUN_TASK_TYPES = [types.none(types.int64, types.int64, MEMORY_TYPE)]


def _type_prepare(
    typing: Any, address: Any, serially: Any, tasks: Any, memory: Any, arguments: Any
) -> Any:
    """Return the type of `_prepare` and what writes its instructions, as numba asks for them."""

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        address, serially, tasks, memory, arguments = values
        words = context.make_array(MEMORY_TYPE)(context, builder, memory).data
        packed = _without_references(context, builder, case.args[4], arguments)
        if context.get_abi_sizeof(packed.type) > 8 * (MEMORY_WORDS - 2):
            raise ValueError("the kernel's arguments need more memory; raise MEMORY_WORDS")
        place = _word(builder, words, 2)
        runner = _write_runner(context, builder.module, case.args[4], packed.type)
        builder.store(builder.ptrtoint(runner, INTEGER), words)
        builder.store(address, _word(builder, words, 1))
        builder.store(packed, builder.bitcast(place, packed.type.as_pointer()), align=8)
        with builder.if_then(serially), for_range(builder, tasks) as loop:
            builder.call(runner, [loop.index, tasks, place])
        return context.get_dummy_value()

    return types.none(address, serially, tasks, memory, arguments), write


_prepare: Any = intrinsic(_type_prepare)


def _type_run(typing: Any, task: Any, tasks: Any, memory: Any) -> Any:
    """Return the type of `_run` and what writes its instructions, as numba asks for them."""

    def write(context: Any, builder: Any, case: Any, values: Any) -> Any:
        task, tasks, memory = values
        words = context.make_array(MEMORY_TYPE)(context, builder, memory).data
        runner = builder.inttoptr(builder.load(words), RUNNER.as_pointer())
        builder.call(runner, [task, tasks, _word(builder, words, 2)])
        return context.get_dummy_value()

    return types.none(task, tasks, memory), write


_run: Any = intrinsic(_type_run)


def _word(builder: Any, words: Any, i: int) -> Any:
    """Write the address of the i-th word after a pointer, or before it."""
    return builder.gep(words, [INTEGER(i)])


def _without_references(context: Any, builder: Any, kind: Any, arguments: Any) -> Any:
    """Write the tuple of arguments anew, with arrays that numba does not count references of."""
    values = []
    for item, value in zip(kind.types, unpack_tuple(builder, arguments), strict=True):
        if isinstance(item, types.Array):
            array = context.make_array(item)(context, builder, value)
            array.meminfo = get_null_value(array.meminfo.type)
            array.parent = get_null_value(array.parent.type)
            value = array._getvalue()
        values.append(value)
    return context.make_tuple(builder, kind, values)


def _write_runner(context: Any, module: Any, kind: Any, layout: Any) -> Any:
    """Write the function that takes the arguments from memory and calls the kernel with a task."""
    runner = ir.Function(module, RUNNER, module.get_unique_name("runner"))
    runner.linkage = "internal"
    builder = ir.IRBuilder(runner.append_basic_block())
    task, tasks, place = runner.args
    accepted = (types.int64, types.int64, *kind.types)
    function = context.call_conv.get_function_type(types.none, accepted)
    kernel = builder.inttoptr(builder.load(_word(builder, place, -1)), function.as_pointer())
    packed = builder.load(builder.bitcast(place, layout.as_pointer()), align=8)
    arguments = [task, tasks, *unpack_tuple(builder, packed)]
    context.call_conv.call_function(builder, kernel, types.none, accepted, arguments)
    builder.ret_void()
    return runner
