"""`check_gradient`: whether a hand-written gradient is right, and what is wrong with it if not."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.differences.guard import guarded
from fastgrad.differences.steps import as_positive_number
from fastgrad.differences.validation import require_flag
from fastgrad.typing import GradientEngineName, NetEngineName

if TYPE_CHECKING:
    from fastgrad.checking.report import Report


def check_gradient(
    f: Any,
    x: Any = None,
    gradient: Any = None,
    *,
    t: Any = None,
    h: float | None = None,
    args: tuple[Any, ...] = (),
    engine: GradientEngineName | NetEngineName = "auto",
    rtol: float = 0.0,
    fast: bool = False,
    max_seconds: float | None = None,
) -> Report:
    """Compare a gradient with the differences of f, and say what is wrong with it.

    Each element is compared with ``(4 q(h) - q(2 h)) / 3``, from the central difference quotients
    q at two steps. It is wrong if it differs by more than the two errors which these carry
    themselves, truncation and round-off, and if f, looked at closer along that element, has no
    kink that explains it. No tolerance is chosen by hand.

    Parameters
    ----------
    f : callable, or a net
        ``f(x, *args) -> number``, as `numerical_gradient` takes it. Or an object with ``params``, a
        dict of arrays, with ``loss(x, t)`` and with ``gradient(x, t)``, as in the book.
    x : array, or dict, list or tuple of arrays; of a net: the samples of the batch
        What is moved, in place; bit-identical afterwards, whatever happens.
    gradient : array or structure like x, or callable
        What is checked, or ``gradient(x, *args)``, which returns that. A callable is asked once
        more, at a point next to x, before it is called wrong. Of a net: its ``gradient`` by
        default.
    t : array, optional
        The targets, if f is a net.
    h : float, optional
        The step. By default the book's 1e-4, and a larger one where f computes in float32.
    args : tuple
        Further arguments of f.
    engine : str
        How f is differenced, as for `numerical_gradient`; for `TwoLayerNet`, one of its engines.
    rtol : float
        An error that is accepted in any case, relative to the largest element of each array.
    fast : bool
        Whether to compare along 8 random directions only, by about 60 calls of f for any number of
        parameters. The report says which errors that misses how improbably. Arrays whose gradient
        does not pass are then checked in full, for 30 seconds at most if max_seconds is not given.
    max_seconds : float, optional
        How long the check may take: to within a call of f or of the gradient, and some percent.
        When it is over, the report says how many elements were compared, and what random directions
        tell of the others; it is true only if these agree.

    Returns
    -------
    Report
        Frozen; true if the gradient is right. Printed, it is a table of the largest errors, and
        what is wrong in words, each proven by evaluating f.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described, or a gradient has another shape than its parameter.

    Notes
    -----
    What is looked for, when a gradient is wrong: a constant factor (a forgotten mean over the
    batch, a 2), a sign, a transposition, a sum over the wrong axis, a sample, a class or a unit
    that is left out, a weight decay in one of the two only, the 1e-7 in the book's cross entropy
    (which is no fault), values kept from an earlier call. Each guess is tested: corrected for it,
    every element must agree. What agrees within the differences' own errors may still be wrong by
    as much; where these are large, the report says so.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> bool(check_gradient(lambda x: (x**2).sum(), x, lambda x: 2 * x))
    True
    >>> print(check_gradient(lambda x: (x**2).sum() / 2, x, 2 * x).findings[0])
    x: 2 times too large: look for a square in the loss whose 1/2 is missing in one of the two, \
or for something that is added twice. Corrected for that, every element agrees.
    """
    from fastgrad.checking.comparison import compare
    from fastgrad.checking.subject import as_gradient_under_test, moved_by

    step = None if h is None else as_positive_number(h)
    accepted = _as_tolerance(rtol)
    require_flag("fast", fast)
    end = math.inf if max_seconds is None else time.monotonic() + _as_seconds(max_seconds)
    with guarded((f, gradient), moved_by(f, x), args):
        subject = as_gradient_under_test(f, x, t, gradient, args, engine)
        return compare(subject, step, accepted, fast=fast, end=end)


def _as_tolerance(rtol: object) -> float:
    if isinstance(rtol, bool) or not isinstance(rtol, int | float | np.floating):
        raise TypeError(f"rtol is {rtol!r}, but it is a relative error; pass one such as 1e-6")
    if not 0 <= rtol < 1:
        raise ValueError(f"rtol is {rtol}, but it is from 0 to below 1; pass one such as 1e-6")
    return float(rtol)


def _as_seconds(max_seconds: object) -> float:
    if isinstance(max_seconds, bool) or not isinstance(max_seconds, int | float | np.floating):
        raise TypeError(f"max_seconds is {max_seconds!r}, but it is a number; pass one such as 60")
    if not 0 < max_seconds < 2**1000:
        raise ValueError(f"max_seconds is {max_seconds}, but it is positive; pass one such as 60")
    return float(max_seconds)
