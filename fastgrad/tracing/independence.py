"""Which row of a stage does each loss depend on? The operations tell, and nan is the witness."""

from itertools import chain, combinations, count, islice
from math import comb

import numpy as np
from numpy.typing import NDArray

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

    Each row is poisoned in a set of replays of its own, and all sets have the same size: none holds
    another. So for any two rows there is a replay in which the first is poisoned and the second
    is not. No fewer replays test all pairs (E. Sperner, 1928).
    """
    poisoned = _sets(len(stage.inputs))
    versions = np.where(poisoned[:, stage.rows], np.nan, stage.node.value)
    spread = np.isnan(replay.all_versions(versions))
    return not np.any(spread & ~poisoned[:, owners])


def _sets(rows: int) -> NDArray[np.bool_]:
    """Return in which replays each row, counted from 1, is poisoned, of shape (replays, 1 + rows).

    Row 0 stands for none.
    """
    replays = next(n for n in count(2) if comb(n, n // 2) >= rows)
    sets = islice(combinations(range(replays), replays // 2), rows)
    members = np.fromiter(chain.from_iterable(sets), np.intp).reshape(rows, replays // 2)
    poisoned = np.zeros((replays, 1 + rows), bool)
    poisoned[members.T, np.arange(1, rows + 1)] = True
    return poisoned
