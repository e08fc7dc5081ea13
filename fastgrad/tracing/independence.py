"""Which row of a stage does each loss depend on? The operations tell, and nan is the witness."""

import numpy as np

from fastgrad.tracing.labels import Labels, propagated
from fastgrad.tracing.plan import Stage
from fastgrad.tracing.replay import Replay


def owners(replay: Replay, stage: Stage) -> Labels | None:
    """Return the row of the stage that each element of the losses depends on.

    The rows' numbers are passed on from operation to operation, as those of units are:
    where an operation mixes elements of two rows, whatever their values, that is the end.
    What this says of the operations is then put to the test by `is_confirmed`.

    Parameters
    ----------
    replay : Replay
        From the stage to the losses.
    stage : Stage

    Returns
    -------
    int array of the losses' shape, or None
        Row numbers from 1; None if rows are mixed.
    """
    found = propagated(replay.nodes, stage.node, stage.rows).get(replay.target)
    return found if found is not None and is_confirmed(replay, stage, found) else None


def is_confirmed(replay: Replay, stage: Stage, owners: Labels) -> bool:
    """Poison rows with nan, and see that no loss of another row becomes nan.

    The rows are numbered in binary: for each digit, all rows that have it set are poisoned, then
    all others. So 2 log2(rows) replays test all pairs of rows.
    """
    digits = range(len(stage.inputs).bit_length())
    versions = [
        np.where((stage.rows >> digit) & 1 == is_set, np.nan, stage.node.value)
        for digit in digits
        for is_set in (1, 0)
    ]
    spread = np.isnan(replay.all_versions(np.stack(versions)))
    allowed = [
        ((owners >> digit) & 1 == is_set) & (owners > 0) for digit in digits for is_set in (1, 0)
    ]
    return not np.any(spread & ~np.stack(allowed))
