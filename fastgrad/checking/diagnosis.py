"""Faults by name: hypotheses, each proven by a gradient that agrees once it is corrected for it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.log_offset import about
from fastgrad.checking.numerical import (
    SMALL_FAULT_SHARE,
    NumericalGradient,
    largest_magnitude,
)
from fastgrad.checking.subject import Batch
from fastgrad.engines import loop
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.typing import Array, Moves

MIN_ELEMENTS_PER_CONSTANT = 3
"""Elements that a constant has to explain: any one element is explained by some constant."""


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What may be wrong, and what the gradient would be without it.

    Attributes
    ----------
    sentence : str
        What follows the parameter's name and a colon.
    corrected : array (size,)
        The gradient, corrected for it: equal to the differences if the guess is right.
    constants : int
        How many numbers in it were fitted.
    slack : float
        What the correction adds to the error of the differences.
    seen : array (size,), optional
        What has to be larger than the differences' errors for the guess to mean something, besides
        the correction: a factor of what is 0 is no factor.
    """

    sentence: str
    corrected: Array
    constants: int = 0
    slack: float = 0.0
    seen: Array | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, and what is left of the error without it.

    Attributes
    ----------
    sentence : str
        What is wrong; the same for every parameter with this fault.
    before, after : float
        The largest error, as it is, and once the gradient is corrected.
    complete : bool
        Whether what is left is within the differences' own errors.
    """

    sentence: str
    before: float
    after: float
    complete: bool


@dataclass(frozen=True, eq=False)
class FailedParameter:
    """A parameter whose gradient is wrong.

    Attributes
    ----------
    numerical : NumericalGradient
    others : sequence of NumericalGradient
        The other parameters.
    """

    numerical: NumericalGradient
    others: Sequence[NumericalGradient]

    @property
    def analytic(self) -> Array:
        """What is claimed."""
        return self.numerical.part.analytic

    @property
    def samples(self) -> int:
        """The number of samples, 0 if it is not known."""
        batch = self.numerical.subject.batch
        return batch.samples if batch else 0

    @property
    def value(self) -> Array:
        """The numerical gradient."""
        return self.numerical.value

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""
        return self.numerical.part.x.shape

    @property
    def x(self) -> Array:
        """The parameter, in C order."""
        return self.numerical.part.x.view(np.ndarray).reshape(-1).astype(self.value.dtype)

    def proves(self, guess: Hypothesis, slack: float = 0.0) -> bool:
        """Return whether the corrected gradient agrees with f, up to some slack, everywhere."""
        if not np.isfinite(guess.corrected).all():
            return False
        numerical, slack = self.numerical, slack + guess.slack
        allowed = numerical.truncation + numerical.round_off + slack
        for size in (self.analytic - guess.corrected, guess.seen):
            if size is None:
                continue
            visible = int(np.count_nonzero(abs(size) > 4 * allowed))
            if visible < (MIN_ELEMENTS_PER_CONSTANT * guess.constants or 1):
                return False
        return not numerical.is_wrong(guess.corrected, slack)

    def first_proven(self, guesses: Iterable[Hypothesis]) -> Diagnosis | None:
        """Return the first guess that is proven, or None.

        First of those that leave no error beyond the differences' own, then of those that leave
        next to none: a second, small fault, such as the 1e-7 under the logarithm, hides none.
        """
        with np.errstate(all="ignore"):
            tried = []
            for guess in guesses:
                if self.proves(guess):
                    return self._proof(guess, complete=True)
                tried.append(guess)
            nearly = SMALL_FAULT_SHARE * largest_magnitude(self.value)
            for guess in tried:
                if self.proves(guess, nearly):
                    return self._proof(guess, complete=False)
        return None

    def _proof(self, guess: Hypothesis, *, complete: bool) -> Diagnosis:
        """Return a guess with the largest errors before and after."""
        after = largest_magnitude(guess.corrected - self.value)
        return Diagnosis(guess.sentence, self.numerical.largest_error, after, complete)


def location(case: FailedParameter) -> str:
    """Say which elements are wrong: those of a few slices along an axis, if it is so."""
    wrong = _strong(case)
    count = int(np.count_nonzero(wrong))
    if 0 < count <= 3 and wrong.size > 3:
        places = np.flatnonzero(wrong)
        indices = [case.numerical.part.element(int(place)) for place in places]
        end = f"; {_hint(case)}" if count > 1 and is_small(case.numerical) else "."
        return f"only {', '.join(indices)} {'is' if count == 1 else 'are'} wrong{end}"
    shaped = wrong.reshape(case.shape)
    for axis in range(shaped.ndim):
        others = tuple(a for a in range(shaped.ndim) if a != axis)
        slices = np.flatnonzero(shaped.any(axis=others))
        if 0 < len(slices) <= max(1, shaped.shape[axis] // 10) and shaped.shape[axis] > 1:
            where = _slices_text(axis, shaped.ndim, slices)
            rest = case.analytic.reshape(case.shape).take(slices, axis)
            if not rest.any():
                return (
                    f"{where} zero, all others are right: that unit, class or feature is left out."
                )
            return f"only {where} wrong, all others are right."
    if is_small(case.numerical):
        return _hint(case)
    if count == wrong.size:
        return f"all {count:,} elements are wrong." if count > 1 else "it is wrong."
    return f"{count:,} of {wrong.size:,} elements are wrong."


def _hint(case: FailedParameter) -> str:
    """Say what may make differences as small, and what to do then."""
    how = "check_gradient(net, x=x, t=t) finds it by the scores that predict(x) returns"
    if case.numerical.subject.batch is not None:
        how = "a net with a method predict(x), which returns the scores, lets the check find it"
    return (
        f"no error is larger than {SMALL_FAULT_SHARE:.0e} of the largest element. A number that is "
        "added under a logarithm, as the book's 1e-7, makes such differences: they are gone where "
        f"the loss is checked without it; {how}, and rtol={SMALL_FAULT_SHARE:.0e} accepts errors "
        "as small."
    )


def is_small(numerical: NumericalGradient) -> bool:
    """Return whether errors are as small as those of a number under a logarithm."""
    largest = largest_magnitude(numerical.value) or 1
    return numerical.largest_error <= SMALL_FAULT_SHARE * largest


def _strong(case: FailedParameter) -> NDArray[np.bool_]:
    """Return which elements are wrong by more than a thousandth of what the worst one is.

    Elements at kinks, where the differences are not what is claimed either, are not among them.
    """
    error = abs(case.analytic - case.value)
    suspects = np.zeros(error.shape, bool)
    suspects[case.numerical.wrong_places()] = True
    finite = error[np.isfinite(error) & suspects]
    found: NDArray[np.bool_] = suspects & ~(error <= 1e-3 * finite.max(initial=0))
    return found


def _slices_text(axis: int, dimensions: int, slices: NDArray[np.intp]) -> str:
    """Return slices along an axis in words, with their verb."""
    kinds = {1: ("element",), 2: ("row", "column")}.get(dimensions)
    kind = kinds[axis] if kinds else f"slice along axis {axis},"
    shown = ", ".join(str(int(s)) for s in slices[:5]) + (", ..." if len(slices) > 5 else "")
    if len(slices) == 1:
        return f"{kind} {shown} is"
    return f"{kind.rstrip(',')}s {shown} are"


MAX_RATIOS = 64
"""Elements, the largest ones, from whose ratios a constant is estimated."""

CONSTANT_TOLERANCE = 1e-3
"""How near an estimated constant must be to one with a meaning to be taken for it."""


def diagnose(wrong: list[NumericalGradient], found: list[NumericalGradient]) -> list[str]:
    """Name what is wrong, in the same words for all parts that share it.

    Parameters
    ----------
    wrong : list of NumericalGradient
    found : list of NumericalGradient
        Of all parts, the wrong ones among them.
    """
    facts: dict[str, list[str]] = {}
    proofs: dict[str, list[Diagnosis]] = {}
    sharing: dict[str, list[str]] = {}
    unknown: list[str] = []
    for numerical in wrong:
        case = FailedParameter(numerical, [other for other in found if other is not numerical])
        fact = _fact(numerical)
        proof = None if fact is not None else proven(case)
        if proof is not None:
            proofs.setdefault(proof.sentence, []).append(proof)
            sharing.setdefault(proof.sentence, []).append(numerical.name)
            continue
        facts.setdefault(fact or location(case), []).append(numerical.name)
        if fact is None and case.analytic.size > 1 and not is_small(numerical):
            unknown.append(numerical.name)
    return [
        *(about(sharing[words], f"{words} {_corrected(same)}") for words, same in proofs.items()),
        *(about(names, words) for words, names in facts.items()),
        *_location_sentences([w.name for w in found], [w.name for w in wrong], unknown),
    ]


def proven(case: FailedParameter) -> Diagnosis | None:
    """Return the first guess that is proven, or None."""
    guesses = (guess for hypothesis in HYPOTHESES for guess in hypothesis(case))
    return case.first_proven(guesses) or case.first_proven(_of_samples(case))


def _fact(numerical: NumericalGradient) -> str | None:
    """Return what is plain to see."""
    part = numerical.part
    if not np.isfinite(part.analytic).all():
        place = int(np.argmin(np.isfinite(part.analytic)))
        return f"{part.element(place)} is {part.analytic[place]}."
    if not np.isfinite(numerical.value).all():
        where = part.element(int(np.argmin(np.isfinite(numerical.value))))
        return f"f is not finite within the step {numerical.h:g} of {where}: pass a smaller h."
    if not part.analytic.any():
        return "all zeros: it is never computed, or it is overwritten."
    return None


def _corrected(proofs: list[Diagnosis]) -> str:
    """Say what is left of the errors of parameters with the same fault."""
    if all(proof.complete for proof in proofs):
        return "Corrected for that, every element agrees."
    before, after = max(p.before for p in proofs), max(p.after for p in proofs)
    return f"Corrected for that, the largest error falls from {before:.1e} to {after:.1e}."


def _location_sentences(names: list[str], wrong: list[str], unknown: list[str]) -> Iterator[str]:
    """Say between which layers the fault is, if it has no name and its place shows it."""
    if not unknown or len(names) < 2:
        return
    first, last = names.index(wrong[0]), names.index(wrong[-1])
    before, after = names[:first], names[last + 1 :]
    if wrong == unknown == names:
        yield (
            f"All are wrong, {names[-1]} included: look first at where the backward pass begins, "
            "the derivative of the loss by the scores."
        )
    elif wrong[-1] not in unknown:
        yield (
            f"Repair {wrong[-1]} first: what the backward pass hands on to the parameters before "
            "it may be wrong with it."
        )
    elif before and last - first < len(wrong):
        yield (
            f"{before[-1]}, which the backward pass reaches later, is right: look only at the "
            f"lines that compute {', '.join(wrong)}, for what is handed on is right."
        )
    elif after and last - first < len(wrong):
        what = ", such as an activation's derivative" if len(wrong) > 1 else ""
        yield (
            f"{after[0]}, which the backward pass reaches before, is right: look at what comes "
            f"between {after[0]} and {wrong[-1]}{what}."
        )


def _factor(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that it is a multiple of the right one."""
    places = _largest(case.analytic)
    times = float(np.median(case.analytic[places] / case.value[places]))
    if not np.isfinite(times) or times == 0:
        return
    for constant, words in meanings(case.samples, case.shape):
        if abs(times / constant - 1) < CONSTANT_TOLERANCE:
            yield Hypothesis(words, case.analytic / constant, seen=case.analytic / constant)
    right = case.analytic / times
    words = f"{times:.6g} times what it should be, in every element."
    if abs(times - 1) < SMALL_FAULT_SHARE:  # as the number under one sample's logarithm makes it
        words = f"1 {times - 1:+.1e} times what it should be, in every element; {_hint(case)}"
    yield Hypothesis(words, right, 1, seen=right)


def meanings(samples: int, shape: Sequence[int]) -> Iterator[tuple[float, str]]:
    """Yield constants by which gradients are often too large, each with what that means."""
    yield -1.0, "the sign is wrong: it is -1 times what it should be."
    yield (
        2.0,
        "2 times too large: look for a square in the loss whose 1/2 is missing in one of the two, "
        "or for something that is added twice.",
    )
    yield (
        0.5,
        "half of what it should be: look for a square in the loss whose 2 was lost, or for a 1/2 "
        "too many.",
    )
    meant = {}
    if samples > 1:
        meant[samples] = (
            "the number of samples",
            "the loss is a mean over them, so divide by it.",
            "it is divided by once too often.",
        )
    for axis, length in enumerate(shape):
        if length > 2 and length not in meant:
            meant[length] = (
                f"the length of its axis {axis}",
                "a sum is taken where the loss has a mean, or something is added that often.",
                "a mean is taken where the loss has a sum.",
            )
    if not samples:
        for length in set(range(3, 2049)) - meant.keys():
            meant[length] = (
                "perhaps the number of samples",
                "if the loss is a mean over them, divide by it.",
                "it may be divided by once too often.",
            )
    for length, (what, if_large, if_small) in meant.items():
        yield float(length), f"{length} times too large, which is {what}: {if_large}"
        yield 1.0 / length, f"{length} times too small, which is {what}: {if_small}"
        yield (
            -float(length),
            f"the sign is wrong, and it is {length} times too large, which is {what}: {if_large}",
        )


def _decay(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that a multiple of the parameter is missing, or too much."""
    excess = case.analytic - case.value
    for direction, words in ((case.x, "the parameter itself"), (np.sign(case.x), "its sign")):
        if not direction.any():
            continue
        places = _largest(direction)
        rate = float(np.median(excess[places] / direction[places]))
        has, lacks = ("loss", "gradient") if rate < 0 else ("gradient", "loss")
        yield Hypothesis(
            f"{abs(rate):.4g} times {words} is {'missing' if rate < 0 else 'too much'}: the {has} "
            f"has this much more weight decay (regularisation) than the {lacks}.",
            case.analytic - rate * direction,
            1,
        )


def _order(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that its elements are right, but in other places."""
    shape = case.shape
    if len(shape) < 2:
        if len(shape) == 1:
            yield Hypothesis("right, but in reverse order.", case.analytic[::-1])
        return
    analytic = case.analytic.reshape(shape)
    for axes in permutations(range(len(shape))):
        if [*axes] != sorted(axes) and tuple(shape[a] for a in axes) == shape:
            yield Hypothesis(
                "transposed: return .T."
                if len(shape) == 2
                else f"its axes are exchanged: return .transpose{axes}.",
                analytic.transpose(axes).reshape(-1),
            )
    yield Hypothesis(
        f"reshaped where it should be transposed: it is .reshape{shape} of its transpose.",
        analytic.reshape(shape[::-1]).T.reshape(-1),
    )
    for axis in range(len(shape)):
        yield Hypothesis(
            f"right, but in reverse order along axis {axis}.", np.flip(analytic, axis).ravel()
        )
    yield Hypothesis(
        "its last two axes are reversed: a filter is turned where it should not be, or the reverse "
        "(convolution and correlation).",
        analytic[..., ::-1, ::-1].reshape(-1),
    )


def _exchanged(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that it is that of another parameter."""
    for other in case.others:
        if other.part.x.shape == case.shape:
            name = other.part.name
            yield Hypothesis(
                f"it is the gradient of {name}.", case.analytic - other.value + case.value,
                slack=other.round_off + float(other.truncation.max(initial=0)),
            )  # fmt: skip


def _summed(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that it is summed over its own elements, and not over the samples alone."""
    if case.value.size < 2:
        return
    value = case.value.reshape(case.shape)
    for axes in [None, *range(value.ndim if value.ndim > 1 else 0)]:
        total = np.broadcast_to(value.sum(axis=axes, keepdims=True), case.shape).reshape(-1)
        where = "all of its elements" if axes is None else f"its axis {axes}"
        yield Hypothesis(
            f"summed over {where}, too: all of them are the same; sum over the samples alone.",
            case.analytic - total + case.value,
            slack=case.value.size * case.numerical.round_off,
        )


def _factor_and_decay(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that all but its weight decay is a multiple of the right one."""
    if not case.x.any():
        return
    # LAPACK has no extended precision.
    basis = np.stack([case.value, case.x], axis=1).astype(np.float64)
    claimed = case.analytic.astype(np.float64)
    chosen = np.arange(claimed.size)
    for _ in range(2):  # the second time without elements at kinks
        times, rate = np.linalg.lstsq(basis[chosen], claimed[chosen], rcond=None)[0]
        error = abs(case.analytic - times * case.value - rate * case.x)
        chosen = np.flatnonzero(error <= np.quantile(error, 0.95))
    if not np.isfinite(times) or min(abs(times), abs(times - 1)) < CONSTANT_TOLERANCE:
        return
    for constant, words in meanings(case.samples, case.shape):
        if abs(times / constant - 1) < CONSTANT_TOLERANCE:
            times, what = constant, words
            break
    else:
        what = f"{times:.6g} times what it should be."
    decay = rate / (1 - times)
    yield Hypothesis(
        f"all but its weight decay, {decay:.4g} times the parameter: {what}",
        (case.analytic - rate * case.x) / times,
        2,
        seen=(case.analytic - rate * case.x) / times - decay * case.x,
    )


HYPOTHESES: list[Callable[[FailedParameter], Iterator[Hypothesis]]] = [
    _factor,
    _decay,
    _order,
    _exchanged,
    _summed,
    _factor_and_decay,
]
"""What yields guesses, the simplest first. Each is tested: none is believed for its looks."""


def _largest(values: Array) -> NDArray[np.intp]:
    """Return the places of the largest elements."""
    sizes = np.nan_to_num(abs(values), nan=0.0)
    count = min(MAX_RATIOS, int(np.count_nonzero(sizes)))
    return np.argsort(-sizes, kind="stable")[: max(count, 1)]


MAX_PLACES = 8
"""Elements at which the samples are told apart, before all of them are compared."""

MAX_SAMPLES = 512
"""Samples beyond which single ones are not looked at."""


def _of_samples(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypotheses about how the samples enter."""
    batch = case.numerical.subject.batch
    if batch is not None and 1 < batch.samples <= MAX_SAMPLES and case.analytic.size:
        try:
            yield from _one_sample(case, batch)
            yield from _wrong_axis(case, batch)
        except Exception as error:  # a net that takes no single samples
            raise_interrupt(error)


Prediction = Callable[[Any, Any, Any], Any]

FORMS: dict[str, Prediction] = {
    "sample {n} is left out: the gradient is that of the others.": (
        lambda q, g, samples: q + (q - g) / (samples - 1)
    ),
    "sample {n} is left out of the sum, though it is divided by all {samples}.": (
        lambda q, g, samples: q - g / samples
    ),
    "sample {n} counts twice.": lambda q, g, samples: q + g / samples,
    "only sample {n} counts: the gradients of the others are lost.": lambda q, g, samples: g,
    "only sample {n} counts, and it is divided by all {samples}: sum over the samples.": (
        lambda q, g, samples: g / samples
    ),
}
"""Sentence -> the gradient of that fault, from the right one and that of sample n alone."""


def _one_sample(case: FailedParameter, batch: Batch) -> Iterator[Hypothesis]:
    """Yield the guesses that fit the elements with the largest errors."""
    problem, h = case.numerical.part.problem, case.numerical.h
    error = np.nan_to_num(abs(case.analytic - case.value))
    places = np.argsort(-error)[:MAX_PLACES]
    old = problem.x.view(np.ndarray).reshape(-1)[places]
    points = np.stack([old + h, old - h], axis=1).astype(problem.x.dtype)
    moves = Moves(places, points)
    values = [loop.values(batch.loss_of(n), problem.x, moves) for n in range(batch.samples)]
    each = np.array([(v[:, 0] - v[:, 1]) / (2 * h) for v in values], dtype=case.value.dtype)
    q, x, analytic = case.value[places], case.x[places], case.analytic[places]
    if not np.allclose(each.mean(axis=0), q, rtol=1e-4, atol=10 * error[places].max() / MAX_PLACES):
        return  # the loss is no mean over samples
    for sentence, predict in FORMS.items():
        # A penalty on x, the same in every sample's loss, is not left out with the sample.
        plain = predict(q, each, batch.samples)
        decay = predict(x, x, batch.samples) - x
        for with_decay in (False, True):
            rates = _rates(analytic - plain, decay) if with_decay else np.zeros(batch.samples)
            misfit = abs(analytic - plain - np.outer(rates, decay)).max(axis=1)
            n = int(np.argmin(misfit))
            if misfit[n] <= 1e-2 * error[places].max():
                alone = case.numerical.subject.quotients_of_sample(case.numerical.part, n, h)
                predicted = predict(case.value, alone, batch.samples)
                predicted = predicted + rates[n] * (predict(case.x, case.x, batch.samples) - case.x)
                yield Hypothesis(
                    sentence.format(n=n, samples=batch.samples),
                    case.analytic - predicted + case.value,
                    slack=_slack(case),
                )


def _rates(misfit: Array, decay: Array) -> Array:
    """Return the multiple of the decay that fits best, for each sample."""
    size = float(decay @ decay)
    rates: Array = misfit @ decay / size if size else np.zeros(len(misfit))
    return rates


def _wrong_axis(case: FailedParameter, batch: Batch) -> Iterator[Hypothesis]:
    """Yield the guess that a bias is summed over its units, and not over the samples."""
    samples, numerical = batch.samples, case.numerical
    if case.analytic.size != samples or max(case.shape, default=0) != samples:
        return
    each = np.stack(
        [
            numerical.subject.quotients_of_sample(numerical.part, n, numerical.h)
            for n in range(samples)
        ]
    )
    predicted = each.sum(axis=1) / samples
    yield Hypothesis(
        "summed over the wrong axis: it has a sum over the units for each sample; sum over the "
        "samples, by .sum(axis=0).",
        case.analytic - predicted + case.value,
        slack=_slack(case) * float(np.sqrt(samples)),
    )


def _slack(case: FailedParameter) -> float:
    """Return what differences of single samples' losses may be wrong by."""
    numerical = case.numerical
    return 8 * numerical.noise.level / numerical.h + 4 * float(numerical.truncation.max(initial=0))
