"""Which sample does each element of the losses belong to? Rows are poisoned, to see it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.tracing.plan import Stage
from fastgrad.tracing.replay import Labels, Replay

Array = NDArray[Any]


def owners(replay: Replay, stage: Stage, shift: float) -> Labels | None:
    """Return the row of the stage that each element of the target depends on.

    The rows are numbered in binary. For each digit, all rows that have it set are poisoned, then
    all others. An element that changes both times depends on two rows at least; if there is none,
    the digits for which an element changes are its row's number. So 2 log2(rows) replays prove the
    independence of all pairs of rows. Two poisons are used: nan, which spreads through arithmetic
    of any size but is lost in comparisons, and shifts as large as those that will be made.

    Parameters
    ----------
    replay : Replay
        From the stage to the losses.
    stage : Stage
    shift : float
        The largest shift that will be made.

    Returns
    -------
    int array of the target's shape, or None
        Row numbers from 1, 0 for an element that depends on none. None if rows are mixed.
    """
    count = len(stage.inputs)
    if count == 1:
        return np.ones(replay.target.shape, np.intp)
    base, losses = stage.node.value, replay.target.value
    random = np.random.default_rng(0)
    shifted = base + shift * random.uniform(0.5, 1, base.shape) * random.choice([-1, 1], base.shape)
    # Versions are summed in other orders than the recorded array was.
    rounding = abs(replay.all_versions(base[np.newaxis])[0] - losses).max(initial=0)
    rounding = 8 * rounding + 32 * np.finfo(np.float64).eps * abs(losses).max(initial=0)
    found = np.zeros(losses.shape, np.intp)
    touched: Any = None
    for digits in (range(1), range(1, count.bit_length())):  # most mixtures show at the first
        versions = [
            np.where((stage.rows >> digit) & 1 == is_set, poison, base)
            for digit in digits
            for is_set in (1, 0)
            for poison in (np.nan, shifted)
        ]
        changed = ~(abs(replay.all_versions(np.stack(versions)) - losses) <= rounding)
        for digit, (nan, move, nan_else, move_else) in zip(
            digits, changed.reshape(-1, 4, *losses.shape), strict=True
        ):
            by_set, by_others = nan | move, nan_else | move_else
            if np.any(by_set & by_others):
                return None
            if touched is not None and np.any(touched != (by_set | by_others)):
                return None
            touched = by_set | by_others
            found |= by_set.astype(np.intp) << digit
    return found
