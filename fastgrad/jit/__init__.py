"""Kernels compiled by numba, and all else that depends on inner parts of numba and CPython.

- `kernel`, `launch`: how kernels are compiled, and run on numba's threads.
- `cache`: compiled kernels on disk; without a folder for them, they are compiled again.
- `vectors`: numbers computed several at a time, in registers.
- `frozen`: whether a jitted function's globals are still what was compiled.
- `forks`, `thread_count`: locks that a forked child finds free, and numba's number of threads.

>>> from fastgrad.jit.kernel import kernel
>>> callable(kernel)
True
"""
