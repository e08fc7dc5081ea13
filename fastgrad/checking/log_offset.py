"""The number under the logarithm: the book's loss is -log(p + 1e-7), its gradient that of -log(p).

The gradient of the mean of ``-log(p)`` is that of ``-log(p + d)`` and of ``c = log(1 + d / p)``. So
where a backward pass leaves d out, it differs from f's derivative by the derivative of c, which is
measured here: from the probabilities that the net predicts, or else from the losses of its samples
one by one, if the loss is their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from fastgrad.checking.noise import Direction, Noise, extrapolate
from fastgrad.checking.numerical import (
    MAX_FIRST_SUSPECTS,
    NumericalGradient,
    largest_magnitude,
    take_smaller_step,
)
from fastgrad.checking.probe import Probe, probe_element
from fastgrad.checking.random_directions import DIRECTION_COUNT, DirectionalCheck, random_direction
from fastgrad.checking.right_classes import (
    OFFSETS,
    SLOPE_NOISE_FACTOR,
    Rest,
    RightClasses,
    added_by,
    misfit_share,
    right_classes,
)
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.typing import Array, Places

GUESSING_DIRECTIONS = 3
"""Directions that tell the number, where all elements are compared without it afterwards."""

KINK_ERROR_FACTOR = 4.0
"""Times the largest error away from kinks that one next to a kink may be, to be explained alike."""

MIN_STEP_SHARE = 2.0**-12
"""Share of the step by which is differenced, at least, what the number takes from the loss."""

MAX_STRAIGHT_SHARE = 2.0**-4
"""Share of the step up to which nothing of that is truncated that could be seen."""

ZEROS = (
    "of {} of the samples the right class has the probability 0: there the loss is flat, by the "
    "number that it adds under the logarithm, and differences cannot tell what is right. Let "
    "predict(x) return the scores, of which softmax makes the probabilities; or check the net with "
    "smaller weights."
)
"""What is said where samples have no logarithm of their own."""

MIN_ERROR_FACTOR = 4.0
"""Times what the differences without the number are known to that an error is, to be explained."""


@dataclass(frozen=True)
class Explanation:
    """What explains that gradients differ, or that it explains nothing.

    Attributes
    ----------
    wrong : list of NumericalGradient
        Those that still differ, beside what they are to be compared with.
    right : list of NumericalGradient
        The others, beside what they agree with.
    sentences : list of str
        What was found.
    is_complete : bool
        Whether it is known by that what is wrong.
    """

    wrong: list[NumericalGradient]
    right: list[NumericalGradient] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    is_complete: bool = False

    def then(self, explain: Callable[[list[NumericalGradient]], Explanation]) -> Explanation:
        """Return this, and how another explanation explains what is left, unless it is known."""
        if not self.wrong or self.is_complete:
            return self
        found = explain(self.wrong)
        return Explanation(
            found.wrong,
            self.right + found.right,
            self.sentences + found.sentences,
            found.is_complete,
        )

    def among(self, found: list[NumericalGradient]) -> list[NumericalGradient]:
        """Return the differences of all parts, those of the explanation where it has some."""
        return [*{each.name: each for each in found + self.right + self.wrong}.values()]


def about(names: Sequence[str], sentence: str) -> str:
    """Say something of some parameters."""
    return f"{', '.join(names)}: {sentence}"


def explain_by_offset(
    suspected: list[NumericalGradient], agreeing: Sequence[NumericalGradient] = ()
) -> Explanation:
    """Return which gradients f contradicts, by more than the number under the logarithm.

    That number is found along random directions, which is cheap. Then all elements are compared
    with the differences of the loss without it, where f has been recorded, so that these are cheap,
    too. Elsewhere the directions tell of the arrays one by one, and the differences of what is
    left, if others show that the gradient is to be understood so; and where the number takes so
    much, as from a saturated sample's loss, that along directions an error could hide in it.

    Parameters
    ----------
    suspected : list of NumericalGradient
        All of one subject, with elements that differ by more than the differences may.
    agreeing : sequence of NumericalGradient
        The others.
    """
    if not suspected:
        return Explanation([])
    subject = suspected[0].subject
    classes = right_classes(subject)
    zeros = _hidden_in_zeros(classes, subject)
    if zeros:
        wrong = [w for w in suspected if w.is_wrong()]
        sentences = [about([w.name for w in wrong], ZEROS.format(zeros))] if wrong else []
        right = [w for w in suspected if w not in wrong]
        return Explanation(wrong, right, sentences, is_complete=bool(wrong))
    if classes is not None and _would_change(classes, agreeing):
        classes = None
    take_smaller_step(suspected)
    offsets: dict[str, float | None] = {}
    errors = {}
    by_elements = False
    if classes is not None:
        is_recorded = all(subject.is_recorded(w.part) for w in suspected)
        by_elements = is_recorded and not classes.are_losses
        errors = {w.name: Errors.of(w) for w in suspected}
        count = GUESSING_DIRECTIONS if by_elements else DIRECTION_COUNT
        whole = _offset_of(suspected, errors, classes, count)
        for w in reversed(suspected):
            # Errors of a small array are hidden in what all together may be wrong by.
            is_clear = _are_clear(errors[w.name].values, errors[w.name].bounds)
            alone = whole is None or (is_clear and not by_elements)
            offsets[w.name] = _offset_of([w], errors, classes, count) if alone else whole
            if offsets[w.name] and (by_elements or not (whole or classes.are_losses)):
                break  # with that number, the differences without it tell of the others
    right = [
        w
        for w in suspected
        if classes is not None
        and not by_elements
        and (d := offsets.get(w.name)) is not None
        and (subject.is_own_net or errors[w.name].hides(misfit_share(w.noise)))
        and _is_explained_by(w, errors[w.name], classes, d)
    ]
    known = next((d for d in offsets.values() if d), None)
    offset = known or OFFSETS[0]
    left = [w for w in suspected if w not in right and (known or w.is_wrong())]
    if left and classes is not None and not subject.is_own_net:
        without = _numerical_without(left, classes, offset)
        explained = [after.name for after in without if _is_explained(after)]
        right += [after for after in without if after.name in explained]
        if known:
            left = [w for w in left if w.name not in explained and w.is_wrong()]
        names = [w.name for w in left if w.name not in explained]
        left = [after if right else after.before for after in without if after.name in names]
    names = [part.name for part in subject.parts if part.name in [w.name for w in right]]
    sentences = [about(names, sentence_of(offset, subject))] if names else []
    decided = [w.name for w in left + right]
    right += [w for w in suspected if w.name not in decided]
    return Explanation(left, right, sentences)


def _hidden_in_zeros(classes: RightClasses | None, subject: GradientUnderTest) -> int:
    """Return how many probabilities are 0 as floats, in a loss that is as large by these alone."""
    if classes is None or classes.are_losses:
        return 0
    here = classes.snapshot()
    zeros = int(np.count_nonzero(np.isneginf(here)))
    if not zeros:
        return 0
    return zeros if subject.value() >= -np.log(max(OFFSETS)) * zeros / here.size else 0


def _would_change(classes: RightClasses, agreeing: Sequence[NumericalGradient]) -> bool:
    """Say whether the loss of a single sample without a number contradicts what agrees with it.

    All derivatives of -log(p + d) differ from those of -log(p) by the share d / (p + d).
    """
    here = classes.snapshot() if classes.are_losses and agreeing else np.zeros(0)
    if here.size != 1:
        return False
    with np.errstate(all="ignore"):
        share = min(OFFSETS) * float(np.exp(here[0]))
        return any(
            (share * abs(each.part.analytic) > MIN_ERROR_FACTOR * each.bounds).any()
            for each in agreeing
        )


@dataclass(frozen=True, eq=False)
class Errors:
    """What is claimed beside the differences, at a smaller step next to kinks.

    Attributes
    ----------
    values, bounds : array (size,)
        The errors, and what each may be wrong by itself; 0 where they are left out.
    unclear : places
        Suspects next to kinks: there both steps do not say the same.
    others : places
        Of these, where the error is not as small as elsewhere.
    left_out : places
        The others, and those that agree at the smaller step.
    share : float
        How small that is.
    """

    values: Array
    bounds: Array
    unclear: Places
    others: Places
    left_out: Places
    share: float

    @classmethod
    def of(cls, numerical: NumericalGradient) -> Errors:
        """Take the smaller step for suspects next to kinks, if there are more than a few."""
        analytic, value = numerical.part.analytic, numerical.value
        values, bounds, suspects = analytic - value, numerical.bounds, numerical.suspicious()
        unclear = suspects[:0]
        if len(suspects) > MAX_FIRST_SUSPECTS:
            smaller = numerical.smaller
            known = (bounds + smaller.bounds)[suspects]
            unclear = suspects[~(abs(smaller.value - value)[suspects] <= known)]
            values[unclear] = (analytic - smaller.value)[unclear]
            bounds[unclear] = smaller.bounds[unclear]
        share = KINK_ERROR_FACTOR * largest_magnitude(np.delete(values, unclear))
        size, known = abs(values[unclear]), bounds[unclear]
        others, left_out = unclear[~(size <= known + share)], unclear[~(size > known)]
        left_out = np.union1d(left_out, others)
        values[left_out], bounds[left_out] = 0.0, 0.0
        return cls(values, bounds, unclear, others, left_out, share)

    def hides(self, share: float) -> bool:
        """Say whether the differences hide a share of all errors."""
        return bool(share * np.linalg.norm(self.values) <= np.linalg.norm(self.bounds))


def _is_explained_by(
    before: NumericalGradient, errors: Errors, classes: RightClasses, offset: float
) -> bool:
    """Return whether f without the number contradicts none of the elements that are left."""
    if len(errors.unclear):
        before.still_suspicious(errors.unclear, slack=errors.share)
    other = classes.without(before.subject, offset)
    part = next(part for part in other.parts if part.name == before.name)
    after = replace(before, subject=other, part=part)
    left = before.not_at_kinks(errors.others, slack=errors.share)
    for places in left:
        if before.contradicts(places):  # f itself is asked first: without the number it costs twice
            after.probes = before.probes = before.passed
            if after.contradicts(places):
                return False
    return True


def _numerical_without(
    found: list[NumericalGradient], classes: RightClasses, offset: float
) -> list[WithoutOffset]:
    """Return the differences of the loss without the number, for the same parts.

    They are those of the loss, and of what the number takes from it. The latter is known much
    better than the former: by a step so small that hardly any kink is in its way.
    """
    subject, noise, h = found[0].subject, found[0].noise, found[0].h
    other = classes.without(subject, offset)
    rest = subject.with_function(partial(added_by, classes, offset))
    rest.keeps_step = True
    snapshot = classes.snapshot()
    level = SLOPE_NOISE_FACTOR * classes.rounded(snapshot, offset, noise.relative)
    step = h
    if level < np.inf:
        step = h * min(1.0, max(MIN_STEP_SHARE, level / noise.level))
        noise = replace(noise, level=noise.level + level)
    names = [w.name for w in found]
    parts = [part for part in rest.parts if part.name in names]
    near = far = rest.quotients(parts, step)
    if step > MAX_STRAIGHT_SHARE * h:
        far = rest.quotients(parts, 2 * step)
    other_parts = {part.name: part for part in other.parts}
    without = []
    for w, q, q_far in zip(found, near, far, strict=True):
        taken, truncation, round_off = extrapolate(q, q_far, step, level)
        value, wrong_by = w.value + taken, w.round_off + round_off
        known = value, w.truncation + truncation, wrong_by, w.moved, w.accepted
        part = other_parts[w.name]
        after = WithoutOffset(other, part, noise, h, *known, before=w, taken=taken)
        after.centrals = w.centrals  # which tell what is known; `central` adds what is taken
        without.append(after)
    return without


@dataclass(eq=False, kw_only=True)
class WithoutOffset(NumericalGradient):
    """The differences of the loss without the number.

    Attributes
    ----------
    before : NumericalGradient
        Those of the loss as it is.
    taken : array (size,)
        What the number takes from each of these.
    """

    before: NumericalGradient
    taken: Array

    @property
    def measured(self) -> GradientUnderTest:
        """The subject of which quotients are taken."""
        return self.before.measured

    def central(self, h: float) -> Array:
        """Return the central quotients at another step."""
        return self.before.central(h) + self.taken

    def both_sides(self, places: Places, h: float) -> Array:
        """Return the one-sided quotients there."""
        return self.before.both_sides(places, h) + self.taken[places, np.newaxis]


def _is_explained(after: WithoutOffset) -> bool:
    """Return whether a gradient is that of the other loss, and f shows the difference.

    The differences change by half of what f showed to be wrong at least: differences over a jump
    may agree with anything.
    """
    before = after.before
    known = before.round_off + after.round_off
    return (
        MIN_ERROR_FACTOR * after.round_off < before.largest_error
        and all(
            abs(before.part.analytic[k] - probe.value) / 2 <= abs(after.taken[k]) + known
            for k, probe in before.probes.items()
            if probe.contradicts
        )
        and not after.is_wrong()
    )


def _offset_of(
    suspected: Sequence[NumericalGradient],
    known: dict[str, Errors],
    classes: RightClasses,
    count: int,
) -> float | None:
    """Return the number under the logarithm that explains all errors, along random directions.

    Along so many of them, or all, if none of these shows it.
    """
    errors, bounds = (
        np.concatenate([getattr(known[w.name], name) for w in suspected])
        for name in ("values", "bounds")
    )
    if not np.isfinite(errors).all() or not _are_clear(errors, bounds):
        return None
    parts, noise, random = [w.part for w in suspected], suspected[0].noise, np.random.default_rng(0)
    directions = [
        [_without(v, known[w.name].left_out) for v, w in zip(arrays, suspected, strict=True)]
        for arrays in (random_direction(parts, random) for _ in range(DIRECTION_COUNT))
    ]
    flat = [np.concatenate([v.reshape(-1) for v in arrays]) for arrays in directions]
    wanted = [float(v @ errors) for v in flat]
    allowed = [6 * float(np.linalg.norm(v * bounds)) for v in flat]
    along = zip(directions, wanted, allowed, strict=True)
    return _offset_behind(Rest.of(classes, parts, noise), along, count=count)


def _are_clear(errors: Array, bounds: Array) -> bool:
    """Say whether errors are larger, together, than what they may be wrong by."""
    return bool(4 * np.linalg.norm(bounds) < np.linalg.norm(errors))


def _without(v: Array, places: Places) -> Array:
    """Return a direction that does not move these elements."""
    v.reshape(-1)[places] = 0.0
    return v


def offset_along(check: DirectionalCheck) -> tuple[float, DirectionalCheck] | None:
    """Return the number that explains the errors along directions, if there is one.

    And what came of all of them: where no error was measured, the loss without it has to agree. If
    those that were measured do not tell, all are.
    """
    classes = None if check.has_kinks else right_classes(check.subject)
    if classes is None:
        return None
    known = Rest.of(classes, check.parts, check.noise)
    offset = _offset_of_measured(check, known)
    if offset is None:
        check.measure(to_end=True)
        offset = _offset_of_measured(check, known)
        if offset is None:
            return None

    def is_hidden(result: Probe) -> bool:
        return known.error_of(result.analytic - result.value, offset) <= result.error

    if all(map(is_hidden, check.results)):
        measured = len(check.results)
        rest, count = check.directions[measured:], check.count - measured
        taken = partial(known.taken_along, offset)
        others = replace(check, directions=rest, count=count, results=[], taken=taken)
        results = [*check.results, *others.measure().results]
    else:  # it takes so much that an error could hide in what is known of it
        subject = classes.without(check.subject, offset)
        before = subject.evaluations
        # The parts are its own: those at x, or next to it.
        others = replace(check, subject=subject, results=[])
        results = others.measure().results
        check.subject.evaluations += subject.evaluations - before
    agree = others.agrees and not others.has_kinks
    return (offset, replace(check, results=results)) if agree else None


def _offset_of_measured(check: DirectionalCheck, rest: Rest) -> float | None:
    """Return the number that explains the errors that were measured, if there is one."""
    errors = [result.analytic - result.value for result in check.results]
    if check.has_kinks or not np.isfinite(errors).all():
        return None
    allowed = [result.error + check.slack for result in check.results]
    return _offset_behind(rest, zip(check.directions, errors, allowed, strict=False), 1.0)


def offset_at(
    subject: GradientUnderTest, part: Part, place: int, noise: Noise, h: float
) -> float | None:
    """Return the number under the logarithm without which f does not contradict an element."""
    classes = right_classes(subject)
    if classes is None or not np.isfinite(classes.snapshot()).all():
        return None
    for offset in OFFSETS:
        other = classes.without(subject, offset)
        same = next(each for each in other.parts if each.name == part.name)
        analytic = float(part.analytic[place])
        if not probe_element(other, same, place, analytic, noise, h).contradicts:
            return offset
    return None


def _offset_behind(
    rest: Rest,
    errors: Iterable[tuple[Direction, float, float]],
    min_factor: float = 2.0,
    count: int = DIRECTION_COUNT,
) -> float | None:
    """Return the number that explains errors along directions, each with what it may be off by.

    Along one of them it has to change the loss by more than so many times that. More than so many
    directions are only asked where none of these shows a number.
    """
    left, seen = [*OFFSETS], dict.fromkeys(OFFSETS, False)
    for k, (direction, error, allowed) in enumerate(errors):
        if k >= count and any(seen[d] for d in left):
            break
        slopes = rest.slopes_along(direction, left)
        left = [d for d in left if abs(error - slopes[d]) <= allowed + rest.error_of(slopes[d], d)]
        if not left:
            return None
        for d in left:
            seen[d] |= abs(slopes[d]) > min_factor * allowed
    return next((d for d in left if seen[d]), None)


def sentence_of(offset: float, subject: GradientUnderTest) -> str:
    """Say what it is, and that it is none of the reader's faults."""
    whose = "as the book's do: that difference is the book's" if offset == 1e-7 else "no fault"
    text = (
        f"right, but for the {offset:g} that the loss adds under the logarithm and the gradient "
        f"leaves out, {whose}."
    )
    classes = right_classes(subject)
    below = 0 if classes is None else classes.below(offset)
    if below:
        text += (
            f" {below} of the samples {'has' if below == 1 else 'have'} a smaller probability than "
            "that: there the loss is nearly flat, and its differences nearly 0, but the gradient "
            "is not."
        )
    return text
