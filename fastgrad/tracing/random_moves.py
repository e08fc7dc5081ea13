"""Random numbers of either sign and magnitudes from 3/4 to 1, by which elements of x are moved."""

import numpy as np

from fastgrad.typing import Array


def random_moves(random: np.random.Generator, shape: int | tuple[int, ...]) -> Array:
    """Return numbers whose sums hardly ever cancel, with few passes through memory.

    Examples
    --------
    >>> moves = random_moves(np.random.default_rng(0), 1000)
    >>> float(abs(moves).min()) >= 0.75, float(abs(moves).max()) <= 1.0
    (True, True)
    """
    moves = random.integers(-(2**31), 2**31, shape, np.int32) * 2.0**-33
    moves += np.copysign(0.75, moves)
    return np.asarray(moves)
