"""Differences of f beside a claimed gradient: each element, with what they know it to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.noise import (
    ANALYTIC_ROUNDING_EPS,
    EXTRAPOLATION_SHARE,
    Noise,
    extrapolate,
    with_terms,
)
from fastgrad.checking.probe import ROUGHNESS_FACTOR, Kind, Probe, probe_element
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.differences.quotients import as_floats
from fastgrad.lazy import LazyModule, lazy
from fastgrad.schemes import central
from fastgrad.typing import Array, Places

if TYPE_CHECKING:
    from fastgrad.network import response
else:  # it loads numba
    response = LazyModule("fastgrad.network.response")

EPS = float(np.finfo(np.float64).eps)

MAX_FIRST_SUSPECTS = 4
"""Suspects of a part that are looked at one by one, before a smaller step clears some of them."""

MAX_FIRST_SIDES = 2
"""Of these, how many are looked at from both sides before all others are."""

MAX_CORRECTED_SUSPECTS = 16
"""Suspects of a corrected gradient from which it is given up, if they are more than their share."""

MAX_PROBED_ELEMENTS = 512
"""How many are looked at one by one at most, after smaller steps have cleared the others."""

MAX_TRUNCATION_SHARE = 1e-5
"""Share of a value up to which the truncation error is taken for what it is estimated to be."""

MAX_COUNTED_ELEMENTS = 48
"""Elements of a wrong gradient that are looked at one by one to count the wrong ones."""

SUSPECT_STEP_DIVISOR = 64
"""By what the step is divided to clear suspects next to a kink."""

BEND_STEP_DIVISOR = 8
"""By what it is divided where suspects differ by less than noise hides at the smaller step."""

MAX_QUOTIENT_CHANGE = 0.25
"""Share of a quotient by which that at twice the step may differ: over a jump it is a half."""

STEP_RATIO = 8
"""Ratio of neighbouring steps at which both sides are looked at."""

SMALLER_STEPS = 2
"""How many smaller steps are taken."""

MIN_ENGINE_SHARE = 0.25
"""Share of an array's elements from which an engine takes the quotients, of all of them."""

MIN_RECORDED_ELEMENTS = 8
"""Elements from which it takes them where f has been recorded."""

MAX_CHANGE = 0.25
"""Share of the difference of both sides by which each may change with the step at a kink."""

MIN_ERROR_FACTOR = 4.0
"""Times what noise hides that a gradient differs by, for a smaller step to excuse it."""

MAX_SUSPECT_SHARE = 0.05
"""Part of the elements beyond which suspects of a corrected gradient are not looked at."""

SHARE_PER_GRADIENT = 0.35
"""Share of a check's progress that is reported for the differences at a step."""

SMALL_FAULT_SHARE = 1e-5
"""Share of the largest element that a second, small fault may leave."""


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
    probes : dict
        The closer looks at single elements so far, by place.
    centrals : dict
        The central quotients of all elements at other steps so far, by the step.
    sides : dict
        Both sides' quotients of all elements by the step, nan where none was taken.
    """

    subject: GradientUnderTest
    part: Part
    noise: Noise
    h: float
    value: Array
    truncation: Array
    round_off: float
    moved: float | Array = 0.0
    accepted: float = 0.0
    probes: dict[int, Probe] = field(default_factory=dict)
    centrals: dict[float, Array] = field(default_factory=dict)
    sides: dict[float, Array] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the part."""
        return self.part.name

    @property
    def measured(self) -> GradientUnderTest:
        """The subject of which quotients are taken."""
        return self.subject

    @property
    def passed(self) -> dict[int, Probe]:
        """The closer looks that do not contradict the analytic gradient, by place."""
        return {place: each for place, each in self.probes.items() if not each.contradicts}

    @property
    def largest_error(self) -> float:
        """The largest error of what is claimed."""
        return largest_magnitude(self.part.analytic - self.value)

    @property
    def bounds(self) -> Array:
        """What each value may be wrong by: round-off, and what extrapolation leaves.

        Of a truncation error that is not small, as next to a kink, nothing is known: a value may be
        wrong by anything there, and 0 stands for that.
        """
        with np.errstate(all="ignore"):
            left = EXTRAPOLATION_SHARE * self.truncation
            left[~(left <= MAX_TRUNCATION_SHARE * np.abs(self.value))] = 0
            bounds: Array = left + self.moved + self.round_off
        return bounds

    def suspicious(self, analytic: Array | None = None, slack: float = 0.0) -> Places:
        """Return the elements that differ by more than the differences may, or are nan.

        Parameters
        ----------
        analytic : array (size,), optional
            What is compared, in place of what the user claims.
        slack : float
            What is allowed besides the differences' own errors.
        """
        with np.errstate(all="ignore"):
            analytic = self.part.analytic if analytic is None else analytic
            excess = np.abs(analytic - self.value) - self.bounds
            return np.flatnonzero(~(excess <= self.accepted + slack))

    def _not_passed(self, places: Places) -> Places:
        """Return those of these elements that no closer look has found to agree."""
        return without(places, np.array([*self.passed], np.intp))

    def is_wrong(self, corrected: Array | None = None, slack: float = 0.0) -> bool:
        """Return whether f shows that the gradient is wrong, or one that is corrected for a guess.

        If there are more than a few suspects, a smaller step clears those next to kinks, by one
        gradient for all of them. What still differs is looked at one by one, until one is wrong. A
        corrected gradient is given up if many elements are suspect.
        """
        analytic = self.part.analytic if corrected is None else corrected
        suspects = self.suspicious(analytic, slack)
        if corrected is None:
            suspects = self._not_passed(suspects)
        if not len(suspects):
            return False
        if corrected is not None and len(suspects) > max(
            MAX_CORRECTED_SUSPECTS, MAX_SUSPECT_SHARE * analytic.size
        ):
            return True
        if not np.isfinite(analytic[suspects]).all():
            return True
        if len(suspects) > MAX_FIRST_SUSPECTS or self.smaller_step in self.centrals:
            suspects = self.still_suspicious(suspects, corrected, slack)
            left = self.not_at_kinks(suspects, corrected, slack)
            return any(self.contradicts(places, corrected) for places in left)
        return self.contradicts(suspects, corrected)

    def still_suspicious(
        self, suspects: Places, corrected: Array | None = None, slack: float = 0.0
    ) -> Places:
        """Return the suspects that differ at a smaller step, too; the others pass.

        It clears what differs so much that the smaller step would show it if it were an error: by
        more than its noise twice, once for the value there, and once for what that may hide.
        """
        analytic = self.part.analytic if corrected is None else corrected
        smaller = self.smaller
        with np.errstate(all="ignore"):
            hidden = abs(analytic - self.value) <= 2 * smaller.bounds
        differing = hidden.copy()
        differing[smaller.suspicious(analytic, slack)] = True
        left = suspects[differing[suspects]]
        if hidden[left].any() and self.measured.is_recorded(self.part):
            left = without(left, self._bent(left[hidden[left]], analytic, slack))
        if corrected is None:
            agreeing = without(suspects, left)
            self._note_agreeing(agreeing, smaller.value, smaller.bounds, smaller.h)
        return left

    def _bent(self, suspects: Places, analytic: Array, slack: float) -> Places:
        """Return the suspects at which f bends by as much as they differ.

        Within twice the step; within a smaller one where noise does not hide there what they
        differ by.
        """
        with np.errstate(all="ignore"):
            middle = self.at_step(self.h / BEND_STEP_DIVISOR)
            is_seen = abs(analytic - self.value)[suspects] > 2 * middle.bounds[suspects]
            passed = []
            for numerical, places in ((middle, suspects[is_seen]), (self, suspects[~is_seen])):
                excess = (abs(analytic - numerical.value) - numerical.bounds - slack)[places]
                if (excess > 0).any():
                    step = numerical.h
                    [fourth] = self.measured.quotients([self.part], step, central(2, derivative=4))
                    rough = abs(fourth[places]) * step**4
                    rough[~(rough > ROUGHNESS_FACTOR * self.noise.level)] = 0.0
                    excess -= 2 * rough / step
                passed.append(places[excess <= 0])
        return np.concatenate(passed)

    def _note_agreeing(self, places: Places, values: Array, errors: Array, h: float) -> None:
        """Note that what is claimed of these agrees with f at a smaller step."""
        analytic, nan = self.part.analytic, float("nan")
        for place in places.tolist():
            known = float(analytic[place]), float(values[place]), float(errors[place])
            probe = Probe("step", *known, nan, nan, h, contradicts=False)
            self.probes.setdefault(place, probe)

    def not_at_kinks(
        self,
        suspects: Places,
        corrected: Array | None = None,
        slack: float = 0.0,
    ) -> Iterator[Places]:
        """Yield those of the worst suspects that no kink excuses, seen from both sides.

        A few first, which tell if the gradient is wrong everywhere; then the others.
        """
        analytic = self.part.analytic if corrected is None else corrected
        suspects = self._worst(analytic, suspects, MAX_PROBED_ELEMENTS)
        first = self._worst(analytic, suspects, MAX_FIRST_SIDES)
        for places in (first, without(suspects, first)):
            yield self._without_kinks(places, corrected, slack)

    def _without_kinks(
        self, suspects: Places, corrected: Array | None = None, slack: float = 0.0
    ) -> Places:
        """Return the suspects that no kink excuses; the others pass.

        Each is looked at by smaller steps down to those where noise hides what it differs by.
        """
        analytic = self.part.analytic if corrected is None else corrected
        left = suspects[:0]
        for k in range(1, 1 + SMALLER_STEPS):
            h = self.smaller.h / STEP_RATIO**k
            with np.errstate(all="ignore"):
                hidden = hidden_at(self.subject, self.part, self.noise.level, h)
                differs = abs(analytic - self.smaller.value)[suspects] - slack
                is_seen = differs > MIN_ERROR_FACTOR * hidden[suspects]
                lost, suspects = suspects[~is_seen], suspects[is_seen]
                differs = abs(analytic - self.value)[lost] - slack
                is_clear = STEP_RATIO * differs > MIN_ERROR_FACTOR * hidden[lost]
                clear = self._not_excused(lost[is_clear], STEP_RATIO * h, corrected, slack)
                left = np.concatenate([left, lost[~is_clear], clear])
                if is_by_engine(self.measured, self.part, suspects, h):
                    central = self.central(h)
                    agrees = abs(analytic - central)[suspects] <= hidden[suspects] + slack
                    if corrected is None:
                        self._note_agreeing(suspects[agrees], central, hidden, h)
                    suspects = suspects[~agrees]
                suspects = self._not_excused(suspects, h, corrected, slack)
        return np.union1d(left, suspects)

    def _not_excused(
        self, places: Places, h: float, corrected: Array | None, slack: float
    ) -> Places:
        """Return the elements that no kink excuses, as both sides at two steps tell."""
        if not len(places):
            return places
        analytic = self.part.analytic if corrected is None else corrected
        hidden = hidden_at(self.subject, self.part, self.noise.level, h)[places] + slack
        far, near = self.both_sides(places, STEP_RATIO * h), self.both_sides(places, h)
        at_kink, next_to_kink = excused_by(far, near, hidden, analytic[places])
        left = np.flatnonzero(~(at_kink | next_to_kink))
        if len(left):  # fewer kinks are between closer steps
            closer = self.both_sides(places[left], 2 * h)
            off = off_limits(closer, near[left], 2, analytic[places[left]])
            next_to_kink[left] = off <= 3 * hidden[left]  # what both steps hide
        excused = at_kink | next_to_kink
        for j in np.flatnonzero(excused).tolist() if corrected is None else ():
            claim, (below, above) = float(analytic[places[j]]), near[j].tolist()
            value = min(max(claim, min(below, above)), max(below, above))
            kind: Kind = "kink" if at_kink[j] else "step"
            known = claim, value, float(hidden[j]), below, above
            self.probes.setdefault(int(places[j]), Probe(kind, *known, h, contradicts=False))
        return places[~excused]

    def central(self, h: float) -> Array:
        """Return the central quotients of all elements at another step; each is taken once."""
        if h not in self.centrals:
            [self.centrals[h]] = self.subject.quotients([self.part], h)
        return self.centrals[h]

    def both_sides(self, places: Places, h: float) -> Array:
        """Return both sides' quotients at another step; each is taken once."""
        known = self.sides.setdefault(h, np.full((self.part.x.size, 2), np.nan))
        new = places[np.isnan(known[places]).any(axis=1)]
        if is_by_engine(self.subject, self.part, new, h):
            new = np.arange(len(known))
        known[new] = sides_of(self.subject, self.part, new, h, self.centrals.get(h))
        taken: Array = known[places]
        return taken

    def at_step(self, h: float) -> "NumericalGradient":
        """Return the differences by a smaller step, and by that alone.

        What is truncated there is much less than what is rounded.
        """
        quotients = self.central(h)
        return _numerical(self.subject, self.part, self.noise, h, quotients, quotients)

    def wrong_places(self) -> Places:
        """Return the elements of which f contradicts what the user claims, as far as is looked.

        Elements at kinks are suspects, too: of many, those agree at a smaller step; of the largest
        errors that are left each is looked at.
        """
        analytic, count = self.part.analytic, MAX_COUNTED_ELEMENTS
        places = self.suspicious()
        if len(places) > count:
            places = self.still_suspicious(places)
            self._without_kinks(self._worst(analytic, places, count))
            places, count = self._not_passed(places), MAX_COUNTED_ELEMENTS // 8
        for place in self._worst(analytic, places, count).tolist():
            if np.isfinite(analytic[place]):
                self._probe(place)
        return self._not_passed(places)

    @property
    def smaller_step(self) -> float:
        """A step that reaches fewer kinks."""
        return self.h / SUSPECT_STEP_DIVISOR

    @lazy
    def smaller(self) -> "NumericalGradient":
        """The differences at a smaller step."""
        return self.at_step(self.smaller_step)

    def _worst(self, analytic: Array, places: Places, count: int) -> Places:
        """Return those that differ most, in units of what is allowed, and some by chance."""
        if len(places) <= count:
            return places
        excess = abs(analytic - self.value)[places] / (self.truncation[places] + self.round_off)
        order = np.argsort(-np.nan_to_num(excess, nan=np.inf))
        drawn = np.random.default_rng(0).permutation(order[count // 2 :])[: count - count // 2]
        worst: Places = places[np.concatenate([order[: count // 2], drawn])]
        return worst

    def contradicts(self, places: Places, corrected: Array | None = None) -> bool:
        """Return whether a closer look at one of the worst of these contradicts the gradient."""
        analytic = self.part.analytic if corrected is None else corrected
        worst = self._worst(analytic, places, MAX_PROBED_ELEMENTS).tolist()
        return any(self._probe(place, corrected).contradicts for place in worst)

    def _probe(self, place: int, corrected: Array | None = None) -> Probe:
        """Look closer at an element; at what the user claims of it only once."""
        known = self.probes.get(place) if corrected is None else None
        if known is not None:
            return known
        analytic = self.part.analytic if corrected is None else corrected
        probe = probe_element(
            self.subject, self.part, place, float(analytic[place]), self.noise, self.h
        )
        if corrected is None:
            self.probes[place] = probe
        return probe


def numerical_gradients(
    subject: GradientUnderTest,
    noise: Noise,
    h: float,
    parts: Sequence[Part],
    rtol: float = 0.0,
) -> list[NumericalGradient]:
    """Difference f at two steps, and return what that says of each part."""
    near, far = (subject.quotients(parts, step, share=SHARE_PER_GRADIENT) for step in (h, 2 * h))
    raised = noise
    if not subject.is_own_net:
        raised = with_terms(noise, parts, [_steady(*pair) for pair in zip(near, far, strict=True)])
    found = []
    for part, *quotients in zip(parts, near, far, strict=True):
        numerical = _numerical(subject, part, raised, h, *quotients)
        numerical.accepted = rtol * largest_magnitude(numerical.value) if rtol else 0.0
        found.append(numerical)
    return found


def take_smaller_step(found: Sequence[NumericalGradient]) -> None:
    """Take the quotients at the smaller step of all that have more than a few suspects, at once."""
    several = [each for each in found if len(each.suspicious()) > MAX_FIRST_SUSPECTS]
    if several:
        subject, step = several[0].measured, several[0].smaller_step
        quotients = subject.quotients([each.part for each in several], step)
        for each, central in zip(several, quotients, strict=True):
            each.centrals[step] = central


def _numerical(
    subject: GradientUnderTest, part: Part, noise: Noise, h: float, near: Array, far: Array
) -> NumericalGradient:
    """Return what the quotients of a part at h and 2 h say."""
    with np.errstate(all="ignore"):
        value, truncation, _ = extrapolate(near, far, h, noise.level)
        round_off = _round_off(subject, part, noise, h, value)
        moved = _moved(subject, part, noise, h, value)
    return NumericalGradient(subject, part, noise, h, value, truncation, round_off, moved)


def _steady(near: Array, far: Array) -> Array:
    """Return the quotients, 0 where they depend on the step: those over a jump are no slopes."""
    with np.errstate(all="ignore"):
        return np.where(abs(far - near) <= MAX_QUOTIENT_CHANGE * abs(near), near, 0.0)


def _round_off(
    subject: GradientUnderTest, part: Part, noise: Noise, h: float, value: Array
) -> float:
    """Return what rounding may do to the differences of a part, and to what is claimed.

    Extrapolation takes the error of a quotient, level / h, one and a half times. Whoever computes a
    gradient rounds it by some eps of its largest entry.
    """
    rounding = ANALYTIC_ROUNDING_EPS * part.analytic_eps * largest_magnitude(value)
    own = _response_error(subject, part, h)
    step = subject.steps(part, h)
    longest = step if isinstance(step, float) else float(step.max())
    return (1.5 * noise.level / longest if own is None else own) + rounding


def _moved(
    subject: GradientUnderTest, part: Part, noise: Noise, h: float, value: Array
) -> float | Array:
    """Return how far x goes beside 2 h, or not, relative to that, times the quotients.

    And, where elements have steps of their own, what rounding f does at each.
    """
    if subject.is_own_net or not value.size:
        return 0.0
    x, step = part.x.view(np.ndarray), subject.steps(part, h)
    up, down = (as_floats((x + s).astype(x.dtype)) for s in (step, -step))
    share = abs((up - down) / (2 * step) - 1).reshape(-1)
    moved: Array = 2 * share * abs(value)
    if not isinstance(step, float):
        moved += 1.5 * noise.level / step.reshape(-1)
    return moved


def without(places: Places, others: Places) -> Places:
    """Return the places that are not among others, in their order."""
    left: Places = places[~np.isin(places, others)]
    return left


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
    params = subject.batch.net.params
    weights = params["W2"]
    spread = float((weights.max(axis=1) - weights.min(axis=1)).max())
    reach = max(1.0, largest_magnitude(np.asarray(subject.batch.x)))
    if response.plan_responses(2 * h * reach, spread) is None:
        return None
    scale = {"W1": reach * spread / 4, "b1": spread / 4}.get(part.name, 1.0)
    return 64 * EPS * scale


def hidden_at(subject: GradientUnderTest, part: Part, level: float, h: float) -> Array:
    """Return by how much noise of this level may change each element's one-sided quotients."""
    return 2 * level / _steps(subject, part, h)


def is_by_engine(subject: GradientUnderTest, part: Part, places: Places, h: float) -> bool:
    """Say whether an engine is to take the quotients of so many elements, and of all others."""
    is_uniform = isinstance(subject.steps(part, h), float) and not subject.is_own_net
    is_cheap = len(places) >= MIN_RECORDED_ELEMENTS and subject.is_recorded(part)
    return is_uniform and (is_cheap or len(places) >= MIN_ENGINE_SHARE * part.x.size)


def sides_of(
    subject: GradientUnderTest, part: Part, places: Places, h: float, central: Array | None = None
) -> Array:
    """Return the one-sided difference quotients of these elements, a row (below, above) for each.

    By two calls of f for each of them; of many by an engine, by two gradients of the part.

    Parameters
    ----------
    subject, part, places
    h : float
        The step.
    central : array (size,), optional
        The central quotients at this step: by half as many calls then.
    """
    if not len(places):
        return np.empty((0, 2))
    if is_by_engine(subject, part, places, h):
        [above] = subject.quotients([part], h, "forward")
        [below] = subject.quotients([part], h, "backward") if central is None else [0 * above]
        below, above = below[places], above[places]
    else:
        here: Any = subject.value()
        signs = np.array([-1.0, 1.0] if central is None else [1.0])
        quotients = []
        for place, step in zip(places.tolist(), _steps(subject, part, h)[places], strict=True):
            lengths, values = subject.along(part, place, step * signs)
            quotients.append((values - here) / lengths)
        below, above = np.array(quotients)[:, 0], np.array(quotients)[:, -1]
    if central is not None:
        below = 2 * central[places] - above
    return np.stack([below, above], axis=1)


def excused_by(
    far: Array, near: Array, hidden: Array, analytic: Array
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return at which elements a gradient is excused: by a kink at x, and by one next to x.

    At a kink the sides stay the same from step to step, other than those of a curve or a jump, and
    the gradient is between them. Next to one it agrees at the smaller step with their mean, or with
    what one of them tends to: the kink is on the other side. One side's quotient by itself is off
    by h f''/2, and would excuse a claim that is wrong by as much.

    Parameters
    ----------
    far, near : array (n, 2)
        Both sides at the larger and at the smaller step.
    hidden : array (n,)
        What the gradient may differ by.
    analytic : array (n,)
        What is claimed.
    """
    difference = abs(near[:, 1] - near[:, 0])
    change = abs(near - far).max(axis=1)
    has_kink = (change <= MAX_CHANGE * difference) & (difference > 2 * hidden)
    distance = abs(analytic - near.mean(axis=1))
    between = distance <= difference / 2 + change / (STEP_RATIO - 1) + hidden
    on_a_side = off_limits(far, near, STEP_RATIO, analytic)
    agrees = np.minimum(distance, on_a_side) <= hidden
    return has_kink & between, ~has_kink & agrees


def off_limits(far: Array, near: Array, ratio: float, analytic: Array) -> Array:
    """Return how far claims are from what the nearer one of both sides tends to, steps to 0."""
    limits = near + (near - far) / (ratio - 1)
    off: Array = abs(limits - analytic[:, np.newaxis]).min(axis=1)
    return off


def _steps(subject: GradientUnderTest, part: Part, h: float) -> Array:
    """Return the step of each element, flat."""
    steps: Array = np.broadcast_to(subject.steps(part, h), part.x.shape).reshape(-1)
    return steps
