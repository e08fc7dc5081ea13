"""How is the forward pass run? On a batch, in numba's thread pool, in work arrays used again."""

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray

from fastgrad.network import kernels, products

Array = NDArray[np.float64]

DENSEST_SPARSE = 0.4  # measured: above this share of nonzeros whole blocks are faster


class WorkArrays:
    """Arrays by name, kept from call to call as long as their shapes stay the same."""

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def get(self, name: str, shape: tuple[int, ...], dtype: DTypeLike = np.float64) -> NDArray[Any]:
        """Return the array of that name, with any content; make it anew if its shape changed."""
        array = self._arrays.get(name)
        if array is None or array.shape != shape:
            array = self._arrays[name] = np.empty(shape, dtype)
        return array


@dataclass(frozen=True)
class Forward:
    """What a forward pass leaves behind.

    Attributes
    ----------
    x : array of shape (N, I)
        The batch.
    sparse : bool
        Whether enough of x is zero to skip its zeros.
    z, slope : arrays of shape (N, H)
        The hidden layer's output, and z (1 - z).
    p : array of shape (N, K)
        The probabilities.
    """

    x: Array
    sparse: bool
    z: Array
    slope: Array
    p: Array


def run_forward(
    theta: Array, x: Array, nonzeros: int, hidden: int, classes: int, work: WorkArrays
) -> Forward:
    """Run x through the net.

    Parameters
    ----------
    theta : array of shape (I H + H + H K + K,)
        The flat parameter buffer.
    x : array of shape (N, I), C-contiguous
    nonzeros : int
        How many entries of x are not zero.
    hidden, classes : int
        H and K.
    work : WorkArrays
        The result's arrays are among them: the next pass overwrites them.
    """
    samples = len(x)
    sparse = nonzeros <= DENSEST_SPARSE * x.size
    z = work.get("z", (samples, hidden))
    slope = work.get("slope", (samples, hidden))
    p = work.get("p", (samples, classes))
    tasks, block = divide(samples)
    tiles, panels = block_scratch(tasks, work)
    kernels.forward(theta, x, sparse, block, tiles, panels, z, slope, p)
    return Forward(x, sparse, z, slope, p)


def divide(length: int) -> tuple[int, int]:
    """Divide rows among the threads: how many tasks, and how many rows each."""
    threads = numba.get_num_threads()
    tasks = threads * -(-length // (threads * products.MOST_ROWS))
    return tasks, -(-length // tasks)


def block_scratch(
    tasks: int, work: WorkArrays, dtype: DTypeLike = np.float64
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the tiles and panels that `products.multiply_block` needs in each task."""
    name, size = np.dtype(dtype).name, np.dtype(dtype).itemsize
    return (
        work.get(f"tiles {name}", (tasks, products.TILES_BYTES // size), dtype),
        work.get(f"panels {name}", (tasks, products.PANELS_BYTES // size), dtype),
    )
