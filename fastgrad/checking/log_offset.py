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
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fastgrad.checking.noise import Direction, Noise, evaluate_along, extrapolate
from fastgrad.checking.numerical import (
    MAX_FIRST_SUSPECTS,
    NumericalGradient,
    largest_magnitude,
    take_smaller_step,
)
from fastgrad.checking.probe import probe_element
from fastgrad.checking.random_directions import (
    DIRECTION_COUNT,
    KINK_DIVISOR,
    DirectionalCheck,
    random_direction,
    step_along,
)
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.typing import Array, Places

OFFSETS = (1e-7, 1e-8, 1e-6, 1e-10, 1e-12, 1e-5)
"""What is added to probabilities before their logarithm is taken; the book's comes first."""

MAX_MISFIT_SHARE = 1e-3
"""Share of what is to be explained to which it is to be, at most."""

MISFIT_SHARE_PER_STEP = 64.0
"""Times the step s that this share is: more than what s**2 leaves, in double precision 1e-5."""

SLOPE_NOISE_FACTOR = 32.0
"""Times the relative noise that it is taken for, of what is differenced to that share."""

MAX_SAMPLES = 512
"""Samples whose losses are evaluated one by one at most."""

MEAN_SHARE = 1e-7
"""Share to which a loss is to be the mean of those of its samples."""


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
    if classes is not None and classes.would_change(agreeing):
        classes = None
    take_smaller_step(suspected)
    offsets: dict[str, float | None] = {}
    errors = {}
    by_elements = False
    if classes is not None:
        is_recorded = all(subject.is_recorded(w.part) for w in suspected)
        by_elements = is_recorded and not classes.are_losses
        errors = {w.name: Errors.of(w) for w in suspected}
        whole = _offset_of(suspected, errors, classes)
        for w in reversed(suspected):
            # Errors of a small array are hidden in what all together may be wrong by.
            is_clear = _are_clear(errors[w.name].values, errors[w.name].bounds)
            alone = whole is None or (is_clear and not by_elements)
            offsets[w.name] = _offset_of([w], errors, classes) if alone else whole
            if offsets[w.name] and (by_elements or not (whole or classes.are_losses)):
                break  # with that number, the differences without it tell of the others
    right = [
        w
        for w in suspected
        if classes is not None
        and not by_elements
        and (d := offsets.get(w.name)) is not None
        and (subject.is_own_net or errors[w.name].hides(_misfit_share(w.noise)))
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
    return zeros if subject.value() >= -np.log(max(OFFSETS)) * zeros / here.size else 0


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
    rest = subject.with_function(partial(_rest, classes, offset))
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
    suspected: Sequence[NumericalGradient], known: dict[str, Errors], classes: RightClasses
) -> float | None:
    """Return the number under the logarithm that explains all errors, along random directions."""
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
    return _offset_behind(classes, parts, noise, zip(directions, wanted, allowed, strict=True))


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
    offset = _offset_of_measured(check, classes)
    if offset is None:
        check.measure(to_end=True)
        offset = _offset_of_measured(check, classes)
        if offset is None:
            return None
    share, s = _misfit_share(check.noise), _step_of_slopes(check.parts, check.noise)
    rounded = classes.rounded(classes.snapshot(), offset, check.noise.eps) / s
    if all(share * abs(r.analytic - r.value) + rounded <= r.error for r in check.results):
        measured = len(check.results)
        rest, count = check.directions[measured:], check.count - measured
        taken = partial(_taken_along, classes, check.parts, check.noise, offset)
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


def _taken_along(
    classes: RightClasses, parts: Sequence[Part], noise: Noise, offset: float, direction: Direction
) -> tuple[float, float]:
    """Return what the number takes from the loss's slope along a direction, and its error."""
    s = _step_of_slopes(parts, noise)
    up, down = evaluate_along(parts, direction, (s, -s), classes.snapshot)
    slope = -classes.slope(up, down, s, offset)
    return slope, _misfit_share(noise) * abs(slope) + classes.rounded(up, offset, noise.eps) / s


def _offset_of_measured(check: DirectionalCheck, classes: RightClasses) -> float | None:
    """Return the number that explains the errors that were measured, if there is one."""
    errors = [result.analytic - result.value for result in check.results]
    if check.has_kinks or not np.isfinite(errors).all():
        return None
    allowed = [result.error + check.slack for result in check.results]
    along = zip(check.directions, errors, allowed, strict=False)
    return _offset_behind(classes, check.parts, check.noise, along, min_factor=1.0)


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
    classes: RightClasses,
    parts: Sequence[Part],
    noise: Noise,
    errors: Iterable[tuple[Direction, float, float]],
    min_factor: float = 2.0,
) -> float | None:
    """Return the number that explains errors along directions, each with what it may be off by.

    Along one of them it has to change the loss by more than so many times that.
    """
    left, seen = [*OFFSETS], dict.fromkeys(OFFSETS, False)
    s, exact = _step_of_slopes(parts, noise), _misfit_share(noise)
    for direction, error, allowed in errors:
        up, down = evaluate_along(parts, direction, (s, -s), classes.snapshot)
        slopes = {d: classes.slope(up, down, s, d) for d in left}
        rounded = {d: classes.rounded(up, d, noise.eps) / s for d in left}
        left = [
            d
            for d in left
            if abs(error - slopes[d]) <= allowed + exact * abs(slopes[d]) + rounded[d]
        ]
        if not left:
            return None
        for d in left:
            seen[d] |= abs(slopes[d]) > min_factor * allowed
    return next((d for d in left if seen[d]), None)


def _misfit_share(noise: Noise) -> float:
    """Return the share by which what an offset explains may miss."""
    return min(MAX_MISFIT_SHARE, MISFIT_SHARE_PER_STEP * step_along(noise))


def _step_of_slopes(parts: Sequence[Part], noise: Noise) -> float:
    """Return the step at which the right classes' probabilities are differenced.

    It crosses fewer kinks than that of f: what rounds them is as much smaller as the number is that
    is added to them.
    """
    s, share = step_along(noise), _misfit_share(noise)
    rounding = max(largest_magnitude(part.x) * float(np.finfo(part.x.dtype).eps) for part in parts)
    hidden = max(SLOPE_NOISE_FACTOR * noise.relative, rounding)
    return min(s, max(s / KINK_DIVISOR**2, hidden / share))


def _rest(classes: RightClasses, offset: float, *_: Any) -> Any:
    """Return what the offset adds to the loss, whatever else is given."""
    return classes.rest(classes.snapshot(), offset)


def _loss_without(f: Any, classes: RightClasses, offset: float, *arguments: Any) -> Any:
    """Return the loss as it would be without the offset."""
    return f(*arguments) + classes.rest(classes.snapshot(), offset)


@dataclass(frozen=True)
class RightClasses:
    """The right classes' probabilities p, as far as they are known.

    Attributes
    ----------
    snapshot : callable
        Returns numbers that tell them as the parameters are now: their logarithms, or the losses of
        single samples, ``-log(p + d)``.
    are_losses : bool
    """

    snapshot: Callable[[], Array]
    are_losses: bool

    def rest(self, snapshot: Array, offset: float) -> Any:
        """Return the mean of log(1 + d / p), by operations that can be traced."""
        if self.are_losses:
            with np.errstate(all="ignore"):  # nan, if the losses are too large for this number
                return -np.mean(np.log1p(-offset * np.exp(snapshot)))
        return np.mean(np.logaddexp(0.0, np.log(offset) - snapshot))  # d / p may be inf

    def rounded(self, snapshot: Array, offset: float, eps: float) -> float:
        """Return what it is rounded by: eps of itself, and what eps of the logarithms makes of it.

        Of that, the share d / (p + d) is left, which is less than 1, and than log(1 + d / p).
        """
        size = abs(float(self.rest(snapshot, offset)))
        return eps * (size + min(size, 1.0) * largest_magnitude(snapshot))

    def slope(self, up: Array, down: Array, s: float, offset: float) -> float:
        """Return the difference quotient of that."""
        with np.errstate(all="ignore"):
            return float(self.rest(up, offset) - self.rest(down, offset)) / (2 * s)

    def without(self, subject: GradientUnderTest, offset: float) -> GradientUnderTest:
        """Return the subject whose loss has no such number under the logarithm."""
        return subject.with_function(partial(_loss_without, subject.f, self, offset))

    def would_change(self, agreeing: Sequence[NumericalGradient]) -> bool:
        """Say whether the loss of a single sample without a number contradicts what agrees with it.

        All derivatives of -log(p + d) differ from those of -log(p) by the share d / (p + d).
        """
        here = self.snapshot() if self.are_losses and agreeing else np.zeros(0)
        if here.size != 1:
            return False
        with np.errstate(all="ignore"):
            share = min(OFFSETS) * float(np.exp(here[0]))
            return any(
                (share * abs(each.part.analytic) > MIN_ERROR_FACTOR * each.bounds).any()
                for each in agreeing
            )

    def below(self, offset: float) -> int:
        """Return how many probabilities are smaller than the offset."""
        here = self.snapshot()
        hidden = here > -np.log(2 * offset) if self.are_losses else here < np.log(offset)
        return int(np.count_nonzero(hidden))


def right_classes(subject: GradientUnderTest) -> RightClasses | None:
    """Return what is known of the right classes' probabilities, or None.

    By what the net predicts; or by the losses of single samples, if f is their mean. A function
    without a batch is taken for the loss of one sample.
    """
    known = _predicted.get(subject)
    if known is not None:
        return known
    predicted = _log_probabilities(subject)
    if predicted is not None:
        _predicted[subject] = RightClasses(predicted, are_losses=False)
        return _predicted[subject]
    samples = subject.batch.samples if subject.batch else 1
    if not 1 <= samples <= MAX_SAMPLES:
        return None
    losses = partial(_losses, subject, samples)
    try:
        found, loss = losses(), float(subject.value())
    except Exception as error:  # a net that takes no single samples
        raise_interrupt(error)
        return None
    is_mean = np.isfinite(found).all() and abs(float(found.mean()) - loss) <= MEAN_SHARE * abs(loss)
    return RightClasses(losses, are_losses=True) if is_mean and loss > 0 else None


_predicted: WeakKeyDictionary[GradientUnderTest, RightClasses] = WeakKeyDictionary()
"""What subjects are known to predict, as long as they are there."""


def _losses(subject: GradientUnderTest, samples: int) -> Array:
    """Return the loss of each sample."""
    if samples == 1 or subject.batch is None:
        return np.array([subject.value()])
    return np.array([float(subject.batch.loss_of(n)(None)) for n in range(samples)])


def _log_probabilities(subject: GradientUnderTest) -> Callable[[], Array] | None:
    """Return a function for the logarithms of the right classes' predicted probabilities, or None.

    What it computes can be traced: whether predict returns probabilities or scores is seen once.
    """
    batch = subject.batch
    net = batch.net if batch else None
    predict = getattr(net, "predict", None) or getattr(net, "forward", None)
    if batch is None or not callable(predict):
        return None
    x, t = batch.x, np.asarray(batch.t)
    try:
        y = np.asarray(predict(x))
        shape = y.reshape(-1, y.shape[-1]).shape
        labels = t.reshape(shape).argmax(axis=1) if t.size == y.size else t.reshape(-1)
        # Scores may be probabilities by chance, but not next to x as well.
        y, direction = np.array(y), random_direction(subject.parts, np.random.default_rng(0))
        moved = evaluate_along(subject.parts, direction, (0.125,), lambda: np.array(predict(x)))
        are_scores = not all(
            (y >= 0).all() and np.allclose(y.sum(axis=-1), 1, atol=1e-5) for y in (y, *moved)
        )
        places = (np.arange(shape[0]), labels)
        predicted = partial(_log_predicted, predict, x, shape, places, are_scores)
        with np.errstate(divide="ignore"):
            found = _log_predicted(lambda _: y, x, shape, places, are_scores)
    except Exception as error:  # a net of another kind
        raise_interrupt(error)
        return None
    return predicted if (found < np.inf).all() and found.ndim == 1 else None


def _log_predicted(
    predict: Any, x: Any, shape: tuple[int, ...], places: Any, are_scores: bool
) -> Array:
    """Return the logarithms of the probabilities of the right classes."""
    y = predict(x).reshape(shape)
    right: Array
    if not are_scores:
        right = np.log(y[places].astype(np.float64))
        return right
    # Not by way of the probabilities, which may be too small for a float.
    shifted = (y - y.max(axis=1, keepdims=True)).astype(np.float64)
    right = shifted[places] - np.log(np.exp(shifted).sum(axis=1))
    return right


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
