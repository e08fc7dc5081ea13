"""Kernels compiled by numba, and all else that depends on inner parts of numba and CPython.

- `kernel`: how kernels are compiled, kept on disk, and run on numba's threads; and vectors, numbers
  that they compute several at a time, in registers.
- `matrix_products`: of dense and of sparse matrices, by these vectors.
- `instructions`: LLVM's, for all of these.
- `jitted`: the loop over moved points for a user's function, and what numba has compiled for that.
- `lanes`, `lanes_loop`: numba is taught a number that has a value at each of several points, and
  the compiled engine's loop evaluates a function of numbers at as many points at once.
- `concurrency`: how many threads compute, how chunks of work are spread over Python's while BLAS
  has one, and locks that a forked child finds free.
- `interrupts`: Ctrl-C, and time that is up.

What numba does not promise stands here alone, and nothing needs it: without `instructions` kernels
are plain ones of numba, without `lanes` f is evaluated at single points, with the same bits, and
without `jitted` functions go the loop's way.
`tests/jit/test_private_names.py` has the names.

>>> from fastgrad.jit.kernel import kernel
>>> callable(kernel)
True
"""
