"""Kernels compiled by numba, and all else that depends on inner parts of numba and CPython.

- `kernel`: how kernels are compiled, kept on disk, and run on numba's threads.
- `vectors`: numbers computed several at a time, in registers.
- `instructions`: LLVM's, for both of these.
- `jitted`: what numba has compiled for a user's function, and whether its globals are still that.
- `concurrency`: how many threads compute, how chunks of work are spread over Python's while BLAS
  has one, and locks that a forked child finds free.

What numba does not promise stands here and in `engines/lanes/` alone, and nothing needs it: without
`instructions` kernels are plain ones of numba, without `jitted` functions go the loop's way.
`tests/jit/test_private_names.py` has the names.

>>> from fastgrad.jit.kernel import kernel
>>> callable(kernel)
True
"""
