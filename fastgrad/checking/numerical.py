"""Differences of f beside a claimed gradient: each element, with what they know it to."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.noise import Noise, with_terms
from fastgrad.checking.probe import EXTRAPOLATED, Probe, probe_element
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.typing import Array

Places = NDArray[np.intp]

EPS = float(np.finfo(np.float64).eps)

FEW = 16
"""Suspects of a part that are looked at one by one at first: the worst ones, and some by chance."""

MANY = 512
"""How many are looked at one by one at most, after smaller steps have cleared the others."""

CLEAR = 1e-5
"""Share of a value up to which the truncation error is taken for what it is estimated to be."""

LOOKED = 12
"""Elements that can be differenced by as many calls of f as a closer look takes."""

COUNTED = 48
"""Elements of a wrong gradient that are looked at one by one to count the wrong ones."""

SMALLER = 64
"""By what the step is divided to clear suspects next to a kink."""

BLOCK = 1 << 13
"""Elements that are compared at a time: their temporary arrays stay in the processor's cache."""

STEADY = 0.25
"""Share of a quotient by which that at twice the step may differ: over a jump it is a half."""

SHARE = 0.05
"""Part of the elements beyond which suspects of a corrected gradient are not looked at."""


@dataclass(eq=False)
class NumericalGradient:
    """The differences for one part.

    Attributes
    ----------
    subject, part, noise, h
        What is differenced, how exact its values are, and the step.
    value : array (size,)
        The central quotients at h and 2 h, extrapolated: ``(4 q(h) - q(2 h)) / 3``.
    truncation : array (size,)
        What the extrapolation changed, ``abs(q(2 h) - q(h)) / 3``: the truncation error of q(h),
        and more than that of the value, if f is smooth.
    round_off : float
        What rounding f may have done to a value.
    moved : array (size,) or 0
        What rounding x + h may have done to it.
    accepted : float
        An error that is accepted in any case.
    probes, failed : dict
        The closer looks at single elements that the claim passed, and did not pass, by place.
    """

    subject: GradientUnderTest
    part: Part
    noise: Noise
    h: float
    value: Array
    truncation: Array
    round_off: float
    moved: Any = 0.0
    accepted: float = 0.0
    probes: dict[int, Probe] = field(default_factory=dict)
    failed: dict[int, Probe] = field(default_factory=dict)
    _smaller: "NumericalGradient | None" = None

    @property
    def bounds(self) -> Array:
        """What each value may be wrong by."""
        with np.errstate(all="ignore"):
            left = self._left(slice(None))
            bounds: Array = left + self.moved + self.round_off
        return bounds

    def _left(self, block: slice) -> Array:
        """Return what extrapolation leaves of the truncation errors; 0 where that is not small.

        Where it is not, as next to a kink, a value may be wrong by anything.
        """
        left = EXTRAPOLATED * self.truncation[block]
        left[~(left <= CLEAR * np.abs(self.value[block]))] = 0
        return left

    def suspicious(self, claim: Array, slack: float = 0.0) -> Places:
        """Return the elements that differ by more than the differences may, or are nan.

        By more than round-off, and what extrapolation leaves of the truncation error.
        """
        limit = self.round_off + self.accepted + slack
        with np.errstate(all="ignore"):
            found = []
            for start in range(0, claim.size, BLOCK):
                block = slice(start, start + BLOCK)
                excess = claim[block] - self.value[block]
                np.abs(excess, out=excess)
                excess -= self._left(block)
                excess -= self.moved if isinstance(self.moved, float) else self.moved[block]
                if not excess.max() <= limit:  # nor if one is nan
                    found.append(start + np.flatnonzero(~(excess <= limit)))
        return np.concatenate(found) if found else np.zeros(0, np.intp)

    def confirmed_errors(
        self, claim: Array, *, corrected: bool = False, slack: float = 0.0
    ) -> Places:
        """Return elements of which f shows that the claim is wrong; none, if it is right.

        Not all of them: a few suspects are looked at one by one, until one is wrong, and only if
        all of those turn out to be near kinks, or to need a smaller step, the others are, too.

        Parameters
        ----------
        claim : array (size,)
        corrected : bool
            Whether it is no claim of the user's but one that is corrected for a guess, which is
            given up if many elements are suspect.
        slack : float
            What is allowed besides the differences' own errors.
        """
        suspects = self.suspicious(claim, slack)
        if not len(suspects) or (corrected and len(suspects) > max(FEW, SHARE * claim.size)):
            return suspects
        if not np.isfinite(claim[suspects]).all():
            return suspects[~np.isfinite(claim[suspects])]
        wrong = self._wrong(claim, self._worst(claim, suspects, FEW), keep=not corrected)
        if len(wrong) or len(suspects) <= FEW:
            return wrong
        left = suspects
        if LOOKED * len(suspects) > claim.size:
            left = np.intersect1d(suspects, self.smaller.suspicious(claim, slack))
        left = np.setdiff1d(left, [*self.probes])
        return self._wrong(claim, self._worst(claim, left, MANY), keep=not corrected)

    @property
    def smaller(self) -> "NumericalGradient":
        """The differences at a smaller step, which reach fewer kinks."""
        if self._smaller is None:
            h = self.h / SMALLER
            [self._smaller] = numerical_gradients(self.subject, self.noise, h, [self.part])
        return self._smaller

    def _worst(self, claim: Array, places: Places, count: int) -> Places:
        """Return those that differ most, in units of what is allowed, and some by chance."""
        if len(places) <= count:
            return places
        excess = abs(claim - self.value)[places] / (self.truncation[places] + self.round_off)
        order = np.argsort(-np.nan_to_num(excess, nan=np.inf))
        drawn = np.random.default_rng(0).permutation(order[count // 2 :])[: count - count // 2]
        worst: Places = places[np.concatenate([order[: count // 2], drawn])]
        return worst

    def _wrong(self, claim: Array, places: Places, *, keep: bool) -> Places:
        """Return the first of the places at which a closer look contradicts the claim."""
        for place in places.tolist():
            found = probe_element(
                self.subject, self.part, place, float(claim[place]), self.noise, self.h
            )
            if keep:
                (self.failed if found.contradicts else self.probes)[place] = found
            if found.contradicts:
                return np.array([place])
        return np.zeros(0, np.intp)

    def wrong(self) -> Places:
        """Return the elements of which f contradicts what the user claims, as far as is looked.

        Elements at kinks are suspects, too: of many, those agree at a smaller step; of the largest
        errors that are left each is looked at.
        """
        claim = self.part.claim
        places = self.suspicious(claim)
        if len(places) > COUNTED:
            places = np.intersect1d(places, self.smaller.suspicious(claim))
        for place in self._worst(claim, places, COUNTED).tolist():
            if np.isfinite(claim[place]) and place not in self.failed and place not in self.probes:
                found = probe_element(
                    self.subject, self.part, place, float(claim[place]), self.noise, self.h
                )
                (self.failed if found.contradicts else self.probes)[place] = found
        return np.setdiff1d(places, [*self.probes])


def numerical_gradients(
    subject: GradientUnderTest, noise: Noise, h: float, parts: list[Part] | None = None
) -> list[NumericalGradient]:
    """Difference f at two steps, and return what that says of each part."""
    chosen = subject.parts if parts is None else parts
    if len(chosen) == len(subject.parts):
        near, far = subject.quotients(h), subject.quotients(2 * h)
    else:
        near = [subject.quotients_of(part, h) for part in chosen]
        far = [subject.quotients_of(part, 2 * h) for part in chosen]
    raised = noise
    if not subject.is_own_net:
        raised = with_terms(noise, chosen, [_steady(*pair) for pair in zip(near, far, strict=True)])
    found = []
    for part, value, other in zip(chosen, near, far, strict=True):
        with np.errstate(all="ignore"):
            # In place, for the arrays may be large: other becomes the truncation error.
            other -= value
            other /= 3
            value -= other
            np.abs(other, out=other)
            round_off = _round_off(subject, part, raised, h, value)
            moved = _moved(subject, part, raised, h, value)
        found.append(NumericalGradient(subject, part, raised, h, value, other, round_off, moved))
    return found


def _steady(near: Array, far: Array) -> Array:
    """Return the quotients, 0 where they depend on the step: those over a jump are no slopes."""
    with np.errstate(all="ignore"):
        return np.where(abs(far - near) <= STEADY * abs(near), near, 0.0)


def _round_off(
    subject: GradientUnderTest, part: Part, noise: Noise, h: float, value: Array
) -> float:
    """Return what rounding may do to the differences of a part, and to what is claimed.

    Extrapolation takes the error of a quotient, level / h, one and a half times. Whoever computes a
    gradient rounds it by some eps of its largest entry.
    """
    claim = 32 * part.claim_eps * largest_magnitude(value)
    own = _response_error(subject, part, h)
    step = subject.steps(part, h)
    longest = step if isinstance(step, float) else float(step.max())
    return (1.5 * noise.level / longest if own is None else own) + claim


def _moved(subject: GradientUnderTest, part: Part, noise: Noise, h: float, value: Array) -> Any:
    """Return how far x goes beside 2 h, or not, relative to that, times the quotients.

    And, where elements have steps of their own, what rounding f does at each.
    """
    if subject.is_own_net or not value.size:
        return 0.0
    x, step = part.x.view(np.ndarray), subject.steps(part, h)
    wide = np.result_type(x.dtype, np.float64)
    up, down = ((x + s).astype(x.dtype).astype(wide) for s in (step, -step))
    share = abs((up - down) / (2 * step) - 1).reshape(-1)
    moved = 2 * share * abs(value)
    if not isinstance(step, float):
        moved += 1.5 * noise.level / step.reshape(-1)
    return moved


def largest_magnitude(values: Array) -> float:
    """Return the largest magnitude, 0 of none; what is not finite aside."""
    if not values.size:
        return 0.0
    largest = max(float(values.max()), -float(values.min()))
    if np.isfinite(largest):
        return largest
    finite = values[np.isfinite(values)]
    return float(abs(finite).max()) if finite.size else 0.0


def _response_error(subject: GradientUnderTest, part: Part, h: float) -> float | None:
    """Return how exact fastgrad's own net is; None if its engine for exact quotients is not used.

    Its quotients carry some eps of the largest that a quotient can be: 1 for a logit, and for a
    weight of the hidden layer a quarter of the input times the spread of what its unit feeds.
    """
    if (
        not subject.is_own_net
        or subject.batch is None
        or subject.engine not in ("auto", "response")
    ):
        return None
    from fastgrad.network.odd_responses import plan_responses  # which loads numba

    params = subject.batch.net.params
    weights = params["W2"]
    spread = float((weights.max(axis=1) - weights.min(axis=1)).max())
    reach = max(1.0, largest_magnitude(np.asarray(subject.batch.x)))
    if plan_responses(2 * h * reach, spread) is None:
        return None
    scale = {"W1": reach * spread / 4, "b1": spread / 4}.get(part.name, 1.0)
    return 64 * EPS * scale
