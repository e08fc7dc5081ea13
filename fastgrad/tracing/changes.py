"""Changes of the loss by moves of x, and the part of them in proportion to the moves.

Where a response was measured at one size of moves only, what is in proportion is not known. All of
it is, if the loss does not bend: what a move up and a move down change the loss by then adds up to
almost nothing. Where the sum stands out, there is a kink within the move, as a rule, and the change
is measured once more, by small moves.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fastgrad.typing import Array, Places

SHRINK_FACTOR = 64
"""How many times smaller than a move that is at which its slope is measured."""

MAX_UNEVEN_SHARE = 0.1
"""The share of changes that may stand out."""

UNEVEN_FACTOR = 4
"""How many times larger than all others, but for that share, a sum is that stands out."""

MAX_UNITS_SHARE = 0.25
"""The share of units that may be moved once more: of each, few rows may stand out."""

MIN_ROUNDINGS = 16
"""How many times the unit of rounding it is at least."""

EPS = float(np.finfo(np.float64).eps)


@dataclass(eq=False)
class Changes:
    """The changes of a term, one for each moved element of x, or each weight of a stage.

    Attributes
    ----------
    wanted : array
        By the weights of moves up and down that were asked for.
    straight : array, or None if it is not known
        The part in proportion to the moves.
    uneven : array or None
        If straight was not measured everywhere: how large what moves up and down add up to is.
        Without it, it was measured.
    """

    wanted: Array
    straight: Array | None = None
    uneven: Array | None = None


def straightened(
    change: Array, losses: Array, again: Callable[[Places], Array]
) -> tuple[Array, Array]:
    """Return changes without what kinks do, as far as few units show them; and what is uneven.

    Parameters
    ----------
    change : array of shape (units, 2, ...)
        What moves up, and down, change losses by.
    losses : array
        All that are added up.
    again : callable
        ``again(units)``, counted from 0, are changes of these units by moves that are
        `SHRINK_FACTOR` times smaller.

    Returns
    -------
    straight : array of shape (units, 2, ...)
    uneven : array of shape (units, ...)
        What both moves together change losses by.
    """
    uneven = abs(change[:, 0] + change[:, 1])
    typical = np.quantile(uneven, 1 - MAX_UNEVEN_SHARE) if uneven.size else 0.0
    rounding = MIN_ROUNDINGS * EPS * float(np.linalg.norm(losses.reshape(-1)))
    least = UNEVEN_FACTOR * typical + rounding
    stands_out = uneven > least
    units = np.flatnonzero(stands_out.reshape(len(change), -1).any(axis=1))
    if not 0 < len(units) <= max(1, MAX_UNITS_SHARE * len(change)):
        return change, uneven
    straight = change.copy()
    apart = stands_out[units, np.newaxis]
    straight[units] = np.where(apart, SHRINK_FACTOR * again(units), change[units])
    uneven[stands_out] = 0
    return straight, uneven
