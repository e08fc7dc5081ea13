"""The exact difference quotient of the net's loss, the judge of the engines' accuracy.

The quotient (loss(theta + h e_p) - loss(theta - h e_p)) / (2 h) is evaluated as it stands, by the
book's formulas, with so many digits that its cancellation does not show.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import mpmath
import numba
import numpy as np

from fastgrad.network.functions import LOG_OFFSET, sigmoid
from fastgrad.network.response import plan_responses

JIT = not numba.config.DISABLE_JIT
"""Whether kernels are compiled. As plain Python they are a thousand times slower."""

EPS = float(np.finfo(np.float64).eps)
DIGITS = 80  # a probability of 1 - 1e-44 and a step of 1e-7 leave more than 20 of them


@dataclass(frozen=True)
class Arithmetic:
    """Numbers with more digits than float64, in NumPy arrays."""

    number: Callable[[Any], Any]
    exp: Callable[[Any], Any]
    log: Callable[[Any], Any]
    precision: Callable[[], AbstractContextManager[Any]]


EXTENDED = Arithmetic(np.longdouble, np.exp, np.log, nullcontext)
MULTIPLE = Arithmetic(
    np.frompyfunc(mpmath.mpf, 1, 1),
    np.frompyfunc(mpmath.exp, 1, 1),
    np.frompyfunc(mpmath.log, 1, 1),
    lambda: mpmath.workdps(DIGITS),
)


def worst_error(net, x, labels, h, gradient, tolerance, count=24):
    """Return the largest error of a gradient's entries, at some of them.

    Parameters
    ----------
    net : TwoLayerNet
    x : array of shape (N, I)
    labels : int array of shape (N,)
    h : float
        The step.
    gradient : Parameters
        What is judged.
    tolerance : float
        What the caller is going to compare the error with: the judge's own is far below it.
    count : int
        Of each parameter, the `count` largest entries are judged, and as many by chance.
    """
    errors, run = [], _run(net, x, labels, h, tolerance)
    for name, entries in chosen_entries(gradient, count).items():
        exact = run.quotients(name, entries)
        errors.append(np.abs(gradient[name].ravel()[entries] - exact).max())
    return float(max(errors))


def chosen_entries(gradient, count):
    """Return flat indices into each parameter: the largest entries, and some by chance."""
    generator = np.random.default_rng(0)
    return {
        name: np.union1d(
            np.argsort(-np.abs(values), axis=None)[:count],
            generator.integers(0, values.size, count),
        )
        for name, values in gradient.items()
    }


def quotients(net, x, labels, h, name, entries, tolerance):
    """Return the difference quotients at flat indices into a parameter, as float64.

    They are evaluated in `np.longdouble` if its round-off, a few eps of a loss and a logit divided
    by h, stays below the tolerance, and otherwise with `DIGITS` decimal digits. Moving W1[i, j] by
    h moves unit j's pre-activation by h x[:, i], and moving W2[j, k] moves logit k by h z[:, j];
    nothing else of the forward pass changes, so nothing else is evaluated again.
    """
    return _run(net, x, labels, h, tolerance).quotients(name, entries)


def _run(net, x, labels, h, tolerance):
    """Return a forward pass with the digits that the tolerance asks for."""
    extended = float(np.finfo(np.longdouble).eps) * loss_scale(net, x, labels) / h
    arithmetic = EXTENDED if extended <= tolerance / 2 else MULTIPLE
    with arithmetic.precision(), np.errstate(over="ignore", under="ignore"):
        return _Run(net, x, labels, h, arithmetic)


class _Run:
    """A forward pass, and the difference quotients around it."""

    def __init__(self, net, x, labels, h, arithmetic):
        self.arithmetic, self.number = arithmetic, arithmetic.number
        self.exp, self.log = arithmetic.exp, arithmetic.log
        number = self.number
        self.x, self.labels, self.h = x, labels, number(h)
        self.offset = number(LOG_OFFSET)
        w1, b1, w2, b2 = net.params.values()
        # Rounded to 64 bits. It does not cancel: both losses start from it, so that it changes the
        # quotient by as much of itself; and this product takes minutes in many digits.
        a = np.longdouble(x) @ np.longdouble(w1) + np.longdouble(b1)
        high = a.astype(np.float64)
        self.a = number(high) + number((a - high).astype(np.float64))
        self.w2, b2 = number(w2), number(b2)
        self.z = self.sigmoid(self.a)
        self.logits = self.z @ self.w2 + b2

    def quotients(self, name, entries):
        """Return the difference quotients at flat indices into a parameter, as float64."""
        with self.arithmetic.precision(), np.errstate(over="ignore", under="ignore"):
            return np.array([float(self.quotient(name, entry)) for entry in entries])

    def quotient(self, name, entry):
        """Return the difference quotient of the mean loss at one entry of a parameter."""
        units = self.z.shape[1] if name in ("W1", "b1") else self.logits.shape[1]
        i, j = divmod(int(entry), units)
        raised, lowered = (self.losses(name, i, j, step) for step in (self.h, -self.h))
        return (raised - lowered).sum() / (2 * self.h * len(self.labels))

    def losses(self, name, i, j, step):
        """Return every sample's loss when one entry of a parameter is moved."""
        logits = self.logits.copy()
        if name in ("W1", "b1"):
            shifts = step * self.number(self.x[:, i]) if name == "W1" else step
            change = self.sigmoid(self.a[:, j] + shifts) - self.z[:, j]
            logits += change[:, np.newaxis] * self.w2[j]
        else:
            logits[:, j] += step * self.z[:, i] if name == "W2" else step
        powers = self.exp(logits - logits.max(axis=1, keepdims=True))
        p = powers[np.arange(len(powers)), self.labels] / powers.sum(axis=1)
        return -self.log(p + self.offset)

    def sigmoid(self, a):
        """Return 1 / (1 + e^-a)."""
        return 1 / (1 + self.exp(-a))


def loss_scale(net, x, labels):
    """Return what rounding is relative to: 1, a sample's loss and the range of its logits."""
    w1, b1, w2, b2 = net.params.values()
    logits = sigmoid(np.asarray(x, np.float64) @ w1 + b1) @ w2 + b2
    return 1.0 + float(sample_losses(net, x, labels).max() + np.ptp(logits, axis=1).max())


def sample_losses(net, x, labels):
    """Return the loss of each sample."""
    return -np.log(net.predict(x)[np.arange(len(labels)), labels] + LOG_OFFSET)


def largest_slope(net, x):
    """Bound the quotients: a logit's by 1, a weight's by mean |x| z (1 - z) times its spread."""
    w1, b1, w2, _ = net.params.values()
    z = sigmoid(x @ w1 + b1)
    inputs = np.append(np.abs(x), np.ones((len(x), 1)), axis=1)
    return max(1.0, float((inputs.T @ (z * (1 - z))).max() / len(x) * np.ptp(w2, axis=1).max()))


def round_off(net, x, labels, h, *, whole=False):
    """Bound the round-off error of a quotient of two losses that are evaluated and subtracted.

    A running error analysis: an operation rounds its result by at most u = eps/2 of it, a function
    by 2 u, and a sum of n products by 4 sqrt(n) u times the sum of their magnitudes (Higham and
    Mary, 2019, doi:10.1137/18M1226312; n u if n < 16). What this makes of a loss is its round-off
    error, and two losses are divided by 2 h. Errors that both losses share, such as that of a
    pre-activation, and the rounding of theta + h, change the quotient by as much of itself.

    Parameters
    ----------
    net : TwoLayerNet
    x : array of shape (N, I)
    labels : int array of shape (N,)
    h : float
        The step.
    whole : bool
        Whether each loss is a forward pass, as in the book's loop, and a mean of at most 128
        samples. Otherwise only what a parameter touches is evaluated again.
    """
    u = EPS / 2
    w1, b1, w2, b2 = net.params.values()
    (samples, inputs), (hidden, classes) = x.shape, w2.shape
    z = sigmoid(x @ w1 + b1)
    # Within a shift by s, the slope of a sigmoid grows at most e^|s|-fold.
    growth = np.exp(min(50.0, h * max(1.0, np.abs(x).max())))
    slope = np.minimum(0.25, z * (1 - z) * growth)
    logits = z @ w2 + b2
    gaps = logits.max(axis=1, keepdims=True) - logits
    losses = sample_losses(net, x, labels)

    a_errors = _growth(inputs + 1) * (np.abs(x) @ np.abs(w1) + np.abs(b1))
    z_errors = slope * a_errors + 5 * z
    shared = z_errors @ np.abs(w2) + _growth(hidden + 1) * (z @ np.abs(w2) + np.abs(b2))
    if whole:
        logit_errors = shared
    else:  # one unit is moved, to a rounded pre-activation
        moved = slope * np.abs(x @ w1 + b1) + 5
        logit_errors = (moved[:, :, np.newaxis] * np.abs(w2)).max(axis=1) + 2 * np.abs(logits)
    loss_errors = 2 * (logit_errors + gaps).max(axis=1) + classes + 7 + 2 * losses
    if whole:  # NumPy sums in 8 parts
        loss_errors += (samples // 8 + 4) * losses.mean()

    spread = np.ptp(w2, axis=1).max()
    reach = np.append(np.abs(x), np.ones((samples, 1)), axis=1)
    relative = samples + 2 * shared.max() + np.abs(net.params.buffer).max() / h
    of_quotient = (reach.T @ (slope * a_errors)).max() / samples * spread
    of_quotient += largest_slope(net, x) * relative
    return float(u * (loss_errors.mean() / h + 2 * of_quotient))


def _growth(count):
    """Return by how many u a sum of products is rounded, relative to the sum of magnitudes."""
    return min(count, 4 * count**0.5)


def largest_shift(terms, spread):
    """Return the largest shift, within a thousandth, that is planned with so many terms."""
    low, high = 0.0, 10.0
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        plan = plan_responses(middle, spread)
        low, high = (middle, high) if plan and plan.terms <= terms else (low, middle)
    return low
