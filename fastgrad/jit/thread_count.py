"""The number of threads that numba uses, asked for in a way that no interrupt can spoil.

`numba.get_num_threads` takes a lock of `multiprocessing` at each call. Ctrl-C between taking it and
entering the block that lets go of it leaves it taken, and every other thread that asks waits for
ever. Once numba's threads have started, what counts them is called without that lock.
"""

import numba
from numba.np.ufunc import parallel

from fastgrad.interrupts import uninterrupted


def thread_count() -> int:
    """Return how many threads compiled code uses now, as `numba.set_num_threads` has it."""
    count = getattr(parallel, "_get_num_threads", None)  # numba does not promise this name
    if count is not None and getattr(parallel, "_is_initialized", False):
        return int(count())
    with uninterrupted():
        return int(numba.get_num_threads())
