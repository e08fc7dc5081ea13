"""Which step suits f? The one at which f's own values show truncation and round-off in balance."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences import Values
from fastgrad.steps import representable

if TYPE_CHECKING:
    from fastgrad.problem import Problem

Array = NDArray[Any]

ROUNDS = 7
"""Steps that are tried for an element at most; each costs its quotients at h and at h / 2."""

GROWTH = 10.0
"""By what a step grows while only round-off shows: its truncation error grows by a power of it."""

VISIBLE = 10.0
"""Times the round-off that a truncation error is to be certain that it is one."""


def measured_steps(problem: Problem, values: Values, eps: float, magnitude: float) -> Array:
    """Return a step for each element, found from quotients of f at h and at h / 2.

    Their difference shows the truncation error T of the scheme; the round-off R is about
    ``eps * abs(f) * sum(abs(weights)) / h``. Where T is much larger than R, the step that balances
    them is known: ``h * (d R / (p T))**(1 / (p + d))``, with p the accuracy and d the derivative
    order. Where it is not, T is hidden, and a larger step is tried; so it is where the balanced
    step turns out to be worse, which shows that f is noisier than its eps. Of all that were tried,
    each element takes the step with the least T + R.

    Parameters
    ----------
    problem : Problem
        With the steps to start from, an array; f is called within its bounds.
    values : callable
        How f is evaluated.
    eps, magnitude : float
        The relative precision of f's values, and ``abs(f(x))``.

    Returns
    -------
    array (x.size,)
        In C order.

    Notes
    -----
    Two quotients for each element that is settled at once, as many functions' are; up to twice
    `ROUNDS` for one whose round-off is large, as a constant's is. If f raises at steps that have
    been changed, no more are tried. A function that oscillates some thousand times within the
    first step is not seen through.

    References
    ----------
    R. S. Stepleman and N. D. Winarsky, "Adaptive numerical differentiation", Mathematics of
    Computation 33 (1979), 1257-1264; P. E. Gill, W. Murray, M. A. Saunders, M. H. Wright,
    "Computing forward-difference intervals for numerical optimization", SIAM Journal on Scientific
    and Statistical Computing 4 (1983), 310-321.
    """
    scheme, flat = problem.scheme, problem.x.view(np.ndarray).reshape(-1)
    p, d = scheme.accuracy, scheme.derivative
    enough = 10 * scheme.round_off(1.0, scheme.optimal_step(eps), eps)
    best = np.array(problem.steps)
    least = np.full(flat.size, np.inf)
    # What is still to be tried: the elements and their steps; whether the step is a computed one;
    # and whether f is noisier than eps, as was seen where a computed step was no better.
    places, steps = np.arange(flat.size), best.copy()
    computed = np.zeros(flat.size, dtype=bool)
    noisy = computed
    for attempt in range(ROUNDS):
        try:
            with np.errstate(all="ignore"):
                whole = problem.derivatives(values, places, steps)
                half = problem.derivatives(values, places, representable(steps / 2, flat[places]))
        except Exception:
            if not attempt:
                raise
            break  # so far from x f is not defined
        with np.errstate(all="ignore"):
            truncation = np.abs(whole - half) * 2.0**p / (2.0**p - 1)
            height = magnitude + np.abs(half) * steps**d
            round_off = scheme.round_off(height, steps, eps)
            error = truncation + round_off
            balance = (d * round_off / (p * truncation)) ** (1 / (p + d))
            good = error <= enough * np.abs(whole)
        better = error < least[places]  # not where it is nan
        best[places[better]], least[places[better]] = steps[better], error[better]
        visible = truncation > VISIBLE * round_off
        outside = ~np.isfinite(error)
        # A truncation error as large as the quotient follows no power of h: the step only shrinks.
        known = visible & (truncation < np.abs(half) / VISIBLE)
        settled = good | (better & computed) | (~better & noisy)
        noisy = noisy | (~better & computed)
        factor = np.where(outside, 1 / GROWTH, np.where(visible, np.maximum(balance, 1e-3), GROWTH))
        go_on = ~settled
        steps = np.where(noisy, best[places] * GROWTH, steps * factor)[go_on]
        places, computed, noisy = places[go_on], (known & ~noisy)[go_on], noisy[go_on]
        # Far enough above the spacing of x that half of it is not lost.
        steps = np.maximum(steps, 64 * np.spacing(np.abs(flat[places])).astype(np.float64))
        steps = representable(steps, flat[places])
        if not places.size:
            break
    return best
