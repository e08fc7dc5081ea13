"""At which steps is f evaluated? Down a ladder of halved steps, or up it, until the error stays."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.differences import Report, Values, moved
from fastgrad.extrapolation import Limits, limits
from fastgrad.problem import Problem
from fastgrad.schemes import Scheme
from fastgrad.steps import as_floats, precision

Array = NDArray[Any]

START = 4
"""Steps that are tried at once: two are extrapolated, a third tells how well, a fourth how fast."""

ENOUGH = 8
"""Steps after which an error that is small already is left as it is."""

MOST = 16
"""Steps after which any is."""

PATIENCE = 6
"""Steps without a better estimate after which a function that does not converge is left."""

SMALL = 1e-6
"""A relative error from which the steps are small enough for f to look smooth."""

LOST = 1e-3
"""A relative error from which the first step was probably of the wrong size."""

SLOW = 4
"""How many times the last difference a slow series may still be off: for powers of h as low as 1/2
the rest is 1 / (1 - 2**-0.5) = 3.4 times as large."""

EXACT = 8
"""Rounding errors of the derivative itself that nobody needs to get below."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Derivatives with respect to some elements.

    Attributes
    ----------
    values, errors, steps : float array (n,)
        The derivatives, their estimated absolute errors, and the smallest steps they are made of.
    starved, lost : bool array (n,)
        Whether a much larger first step may be better, because rounding has cost most of the
        digits; or a much smaller one, because the quotients do not converge.
    """

    values: Array
    errors: Array
    steps: Array
    starved: NDArray[np.bool_]
    lost: NDArray[np.bool_]

    @classmethod
    def nothing(cls, first: Array) -> "Outcome":
        """Return that nothing has been found yet, from these first steps."""
        no = np.zeros(len(first), dtype=bool)
        nan, infinite = np.full(len(first), np.nan), np.full(len(first), np.inf)
        return cls(nan, infinite, first.copy(), no, no.copy())

    def take(self, places: NDArray[Any]) -> "Outcome":
        """Return the outcome for some of the elements."""
        return Outcome(*(getattr(self, field.name)[places] for field in fields(self)))

    def put(self, places: NDArray[Any], other: "Outcome") -> None:
        """Write in the outcome for some of the elements."""
        for field in fields(self):
            getattr(self, field.name)[places] = getattr(other, field.name)


class Ladder:
    """The difference quotients of one scheme at halved steps, for some elements of x.

    Parameters
    ----------
    problem : Problem
        What is differentiated.
    values : callable
        How f is evaluated.
    base : float
        f at x, for schemes that need it and for noticing kinks; nan if it is not known.
    scheme : Scheme
        Real; used instead of the problem's.
    first : callable, optional
        How f is evaluated at the steps that are tried at once.
    ended : callable, optional
        Told for how many elements more there is nothing left to be done.
    """

    def __init__(
        self,
        problem: Problem,
        values: Values,
        base: Any,
        scheme: Scheme,
        first: Values | None = None,
        ended: Report | None = None,
    ) -> None:
        self.problem, self.values, self.base, self.scheme = problem, values, base, scheme
        self.first, self.ended = first or values, ended or (lambda elements: None)
        self.outer = scheme.outer
        self.sees_kinks = scheme.is_central and scheme.derivative == 1
        weights = dict(zip(scheme.offsets, scheme.numerators, strict=True))
        parity = (-1) ** scheme.derivative
        balanced = all(weights.get(-o) == parity * w for o, w in weights.items())
        self.powers = [scheme.accuracy + (2 if balanced else 1) * k for k in range(MOST)]
        self.evaluations = 0

    def climb(
        self, places: NDArray[np.intp], first: Array, most: Array, tolerance: float
    ) -> Outcome:
        """Return the derivatives with respect to the elements of x at these places.

        Parameters
        ----------
        places : int array (n,)
            Indices into x in C order.
        first, most : float array (n,)
            The step to begin with, a power of two, and the largest one that is allowed.
        tolerance : float
            The relative error that is small enough.
        """
        with np.errstate(all="ignore"):
            return self._climb(places, first, most, tolerance)

    def _climb(
        self, places: NDArray[np.intp], first: Array, most: Array, tolerance: float
    ) -> Outcome:
        count = len(places)
        outcome = Outcome.nothing(first)
        x = self.problem.x.view(np.ndarray).reshape(-1)[places]
        smallest = 2 * np.spacing(abs(x)).astype(float)
        active, top, waited = np.arange(count), first.copy(), np.zeros(count, dtype=int)
        raised = np.zeros(count, dtype=bool)
        rungs = self._rungs(self.first, places, first[:, None] * 0.5 ** np.arange(START))
        while True:
            found, errors = self._limits(rungs)
            relative = errors / abs(found.values)
            relative = np.where(errors == 0, 0, np.where(np.isnan(relative), np.inf, relative))
            before = outcome.errors[active]
            # Far out, f may be flat, or seem to be: what contradicts smaller steps is not believed.
            astray = raised & _contradicts(found.values, errors, outcome.values[active], before)
            better = (errors < before) & ~astray
            chosen = active[better]
            outcome.values[chosen] = found.values[better]
            outcome.errors[chosen] = errors[better]
            outcome.steps[chosen] = (top * 0.5**found.last)[better]
            rounding = found.round_off > found.truncation
            starved = rounding & (relative > self._eps**0.5) & (found.first == 0)
            outcome.starved[active] = starved
            unexplained = (errors > 4 * found.round_off) | (errors == np.inf)
            outcome.lost[active] = ~starved & unexplained & (relative > LOST)
            waited = np.where((errors < 0.5 * before) | (errors == np.inf), 0, waited + 1)
            tried = rungs.shape[2]
            bottom = top * 0.5 ** (tried - 1)
            upwards = rounding & (found.first == 0) & (2 * top <= most[active])
            small = relative < SMALL
            done = (relative <= max(tolerance, EXACT * self._eps)) | (tried >= MOST)
            done |= small & ((waited > 0) | (tried >= ENOUGH)) | (waited >= PATIENCE)
            done |= (4 * found.round_off > errors) & ~upwards & (errors < np.inf)
            done |= ~upwards & (0.5 * bottom < smallest[active])
            stays = ~(done | astray)
            self.ended(int(np.count_nonzero(~stays)))
            if not stays.any():
                return outcome
            active, waited, upwards = active[stays], waited[stays], upwards[stays]
            rungs, top, bottom = rungs[:, stays], top[stays], bottom[stays]
            top, raised = np.where(upwards, 2 * top, top), upwards
            steps = np.where(upwards, top, 0.5 * bottom)[:, None]
            new = self._rungs(self.values, places[active], steps)
            rungs = np.where(
                upwards[:, None],
                np.concatenate([new, rungs], axis=2),
                np.concatenate([rungs, new], axis=2),
            )

    def _limits(self, rungs: Array) -> tuple[Limits, Array]:
        """Return the derivatives, and their errors: with half the jump of the slope at a kink."""
        quotients, noise, bends = rungs
        found = limits(quotients, noise, self.powers)
        errors = found.errors
        slow = found.truncation > SMALL * abs(found.values)
        errors[slow] += (SLOW - 1) * found.truncation[slow]
        if self.sees_kinks:
            jump = limits(bends, noise * 2, range(1, 2 * MOST, 2))
            kink = np.fmax(abs(jump.values) - jump.errors, 0)
            # What grows towards x is a spike at x itself, seen from outside.
            rows = np.arange(len(bends))
            wide, narrow = abs(bends[rows, found.first]), abs(bends[rows, found.last])
            spike = np.where(narrow >= wide, narrow - 2 * noise[rows, found.last], 0)
            errors = errors + np.fmax(kink, spike)
        return found, errors

    def _rungs(self, values: Values, places: NDArray[np.intp], steps: Array) -> Array:
        """Return quotients, their noise and bends, an array ``(3, *steps.shape)``."""
        x, outer = self.problem.x, self.outer
        points = np.concatenate(
            [moved(x, places, outer, steps[:, k]) for k in range(steps.shape[1])], axis=1
        )
        measured = values(self.problem.f, x, places, points)
        self.evaluations += points.size
        self._eps = precision(x, measured)
        wide = as_floats(measured).reshape(*steps.shape, len(outer))
        if len(outer) < len(self.scheme.offsets):
            wide = np.concatenate([wide, np.full_like(wide[..., :1], self.base)], axis=2)
        flat, flat_steps = wide.reshape(-1, wide.shape[2]), steps.reshape(-1)
        with np.errstate(all="ignore"):
            quotients = self.scheme.combine(flat, flat_steps).reshape(steps.shape)
            distance = abs(x.view(np.ndarray).reshape(-1)[places].astype(float))[:, None]
            # Operations inside f are rounded relative to their arguments: as if x itself were.
            magnitude = abs(wide).max(axis=2) + distance**self.scheme.derivative * abs(quotients)
            noise = self.scheme.round_off(magnitude, steps, self._eps)
            bends = np.zeros_like(quotients)
            if self.sees_kinks:
                there, mirrored = wide[..., 0], wide[..., self.outer.index(-self.outer[0])]
                distances = abs(self.outer[0]) * steps
                bends = ((there - self.base) + (mirrored - self.base)) / (2 * distances)
        return np.stack([quotients, noise, bends])


def contradicts(new: Outcome, old: Outcome) -> NDArray[np.bool_]:
    """Say where two outcomes differ by more than both of their errors."""
    return _contradicts(new.values, new.errors, old.values, old.errors)


def _contradicts(new: Array, its: Array, old: Array, error: Array) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        return np.asarray(abs(new - old) > its + error)  # not where one of them is nan
