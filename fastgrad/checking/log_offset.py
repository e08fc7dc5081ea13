"""The number under the logarithm: the book's loss is -log(p + 1e-7), its gradient that of -log(p).

The gradient of the mean of ``-log(p)`` is that of ``-log(p + d)`` and of ``c = log(1 + d / p)``. So
where a backward pass leaves d out, it differs from f's derivative by the derivative of c, which is
measured here: from the probabilities that the net predicts, or else from the losses of its samples
one by one, if the loss is their mean.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.numerical import NumericalGradient, largest_magnitude
from fastgrad.checking.random_directions import (
    COUNT,
    DirectionalCheck,
    evaluate_along,
    random_direction,
    step_along,
)
from fastgrad.checking.subject import Batch, GradientUnderTest
from fastgrad.interrupts import raise_interrupt
from fastgrad.typing import Array

OFFSETS = (1e-7, 1e-8, 1e-6, 1e-10, 1e-12, 1e-5)
"""What is added to probabilities before their logarithm is taken; the book's comes first."""

SMALL_ELEMENT = 1e-4
"""Share of the largest element that such a difference does not exceed, in nearly all elements."""

EXACT = 1e-3
"""Share of what is to be explained to which it is to be: more than what d**2 and s**2 leave."""

SAMPLES = 512
"""Samples whose losses are evaluated one by one at most."""

MEAN = 1e-7
"""Share to which a loss is to be the mean of those of its samples."""

SMALL = 1e-2
"""Share of the gradient that such a difference does not exceed."""


def left_out_offset(suspected: Sequence[NumericalGradient], seed: int = 0) -> float | None:
    """Return the number under the logarithm that these gradients leave out, if it is that.

    Proven along random directions: of all elements, or else of those with small errors, if the
    others are right, such as elements near kinks. Where that fails, `without_offset` tells.

    Parameters
    ----------
    suspected : sequence of NumericalGradient
        Of parameters whose gradient differs.
    seed : int
        Of the directions.
    """
    classes = right_classes(suspected[0].subject) if suspected else None
    if classes is None:
        return None
    errors = [numerical.part.claim - numerical.value for numerical in suspected]
    if not all(np.isfinite(error).all() for error in errors):
        return None
    bounds = [numerical.bounds for numerical in suspected]
    everything = [np.ones(error.shape, np.bool_) for error in errors]
    found = _explaining(suspected, classes, errors, bounds, everything, seed)
    if found is not None:
        return found
    masks = []
    for numerical, error in zip(suspected, errors, strict=True):
        small = abs(error) <= SMALL_ELEMENT * largest_magnitude(numerical.value)
        # Near a kink the truncation error is large beside what is to be explained.
        small &= numerical.truncation <= np.median(abs(error))
        if not np.linalg.norm(error[small]) <= SMALL * np.linalg.norm(numerical.value):
            return None
        masks.append(small)
    found = _explaining(suspected, classes, errors, bounds, masks, seed)
    if found is None or any(
        _is_wrong_elsewhere(*pair) for pair in zip(suspected, masks, strict=True)
    ):
        return None
    return found


def _explaining(
    suspected: Sequence[NumericalGradient],
    classes: "RightClasses",
    errors: Sequence[Array],
    bounds: Sequence[Array],
    masks: Sequence[NDArray[np.bool_]],
    seed: int,
) -> float | None:
    """Return the number that explains the errors of these elements along random directions."""
    for error, bound, mask in zip(errors, bounds, masks, strict=True):
        if not 4 * np.linalg.norm(bound[mask]) < np.linalg.norm(error[mask]):
            return None
    parts = [numerical.part for numerical in suspected]
    random, s = np.random.default_rng(seed), step_along(suspected[0].noise)
    all_errors, all_bounds = np.concatenate(errors), np.concatenate(bounds)
    left, seen = [*OFFSETS], dict.fromkeys(OFFSETS, False)
    for _ in range(COUNT):
        line = random_direction(parts, random)
        for v, mask in zip(line, masks, strict=True):
            v[~mask.reshape(v.shape)] = 0
        up, down = evaluate_along(parts, line, (s, -s), classes.snapshot)
        v = np.concatenate([v.reshape(-1) for v in line])
        wanted = float(v @ all_errors)
        tau = 6 * float(np.linalg.norm(v * all_bounds)) + EXACT * abs(wanted)
        slopes = {d: classes.slope(up, down, s, d) for d in left}
        left = [d for d in left if abs(wanted - slopes[d]) <= tau]
        for d in left:
            seen[d] |= abs(slopes[d]) > 2 * tau
    left = [d for d in left if seen[d]]
    return left[0] if left else None


def _is_wrong_elsewhere(numerical: NumericalGradient, small: NDArray[np.bool_]) -> bool:
    """Return whether one of the larger errors is a fault."""
    rest = np.where(small, numerical.value, numerical.part.claim)
    return len(numerical.confirmed_errors(rest)) > 0


def offset_along(check: DirectionalCheck) -> float | None:
    """Return the number that explains the errors along directions, if there is one."""
    classes = right_classes(check.subject)
    if classes is None or not all(np.isfinite(result.measured) for result in check.results):
        return None
    s = step_along(check.noise)
    left, seen = [*OFFSETS], dict.fromkeys(OFFSETS, False)
    for line, result in zip(check.lines, check.results, strict=True):
        up, down = evaluate_along(check.parts, line, (s, -s), classes.snapshot)
        error = result.claimed - result.measured
        slopes = {d: classes.slope(up, down, s, d) for d in left}
        allowed = result.allowed + check.slack
        left = [d for d in left if abs(error - slopes[d]) <= allowed + EXACT * abs(slopes[d])]
        for d in left:
            seen[d] |= abs(slopes[d]) > 2 * allowed
    left = [d for d in left if seen[d]]
    return left[0] if left else None


def without_offset(subject: GradientUnderTest, offset: float) -> GradientUnderTest | None:
    """Return the subject whose loss has no number under the logarithm; None if that is unknown."""
    classes = right_classes(subject)
    if classes is None:
        return None
    return subject.with_function(partial(_loss_without, subject.f, classes, offset))


def _loss_without(f: Any, classes: "RightClasses", offset: float, params: Any) -> Any:
    return f(params) + classes.rest(classes.snapshot(), offset)


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
        return np.mean(np.logaddexp(0.0, np.log(offset) - snapshot))

    def slope(self, up: Array, down: Array, s: float, offset: float) -> float:
        """Return the difference quotient of that."""
        with np.errstate(all="ignore"):
            return float(self.rest(up, offset) - self.rest(down, offset)) / (2 * s)

    def below(self, offset: float) -> int:
        """Return how many probabilities are smaller than the offset."""
        here = self.snapshot()
        hidden = here > -np.log(2 * offset) if self.are_losses else here < np.log(offset)
        return int(np.count_nonzero(hidden))


def right_classes(subject: GradientUnderTest) -> RightClasses | None:
    """Return what is known of the right classes' probabilities, or None."""
    predicted = log_probabilities(subject)
    if predicted is not None:
        return RightClasses(predicted, are_losses=False)
    losses = _sample_losses(subject)
    return None if losses is None else RightClasses(losses, are_losses=True)


def _sample_losses(subject: GradientUnderTest) -> Callable[[], Array] | None:
    """Return a function for the losses of single samples, if f is their mean.

    A function without a batch is taken for the loss of one sample.
    """
    batch = subject.batch
    losses: Callable[[], Array]
    if batch is None or batch.samples == 1:
        losses = partial(_only_loss, subject)
    elif not 1 < batch.samples <= SAMPLES:
        return None
    else:
        losses = partial(_losses, batch)
    try:
        found, whole = losses(), float(subject.value())
    except Exception as error:  # a net that takes no single samples
        raise_interrupt(error)
        return None
    is_mean = np.isfinite(found).all() and abs(float(found.mean()) - whole) <= MEAN * abs(whole)
    return losses if is_mean and whole > 0 else None


def _only_loss(subject: GradientUnderTest) -> Array:
    return np.array([subject.value()])


def _losses(batch: Batch) -> Array:
    return np.array([float(batch.loss_of(n)(None)) for n in range(batch.samples)])


def log_probabilities(subject: GradientUnderTest) -> Callable[[], Array] | None:
    """Return a function for the logarithms of the right classes' predicted probabilities, or None.

    What it computes can be traced: whether predict returns probabilities or scores is seen once.
    """
    batch = subject.batch
    predict = getattr(batch.net, "predict", None) if batch else None
    if batch is None or not callable(predict):
        return None
    x, t = batch.x, np.asarray(batch.t)
    try:
        y = np.asarray(predict(x))
        shape = y.reshape(-1, y.shape[-1]).shape
        labels = t.reshape(shape).argmax(axis=1) if t.size == y.size else t.reshape(-1)
        # Scores may be probabilities by chance, but not next to x as well.
        random = np.random.default_rng(0)
        moved = evaluate_along(
            subject.parts,
            random_direction(subject.parts, random),
            (0.0, 0.125),
            lambda: np.array(predict(x)),
        )
        are_scores = not all(
            (y >= 0).all() and np.allclose(y.sum(axis=-1), 1, atol=1e-5) for y in moved
        )
        places = (np.arange(shape[0]), labels)
        predicted = partial(_log_predicted, predict, x, shape, places, are_scores)
        with np.errstate(divide="ignore"):
            found = predicted()
    except Exception as error:  # a net of another kind
        raise_interrupt(error)
        return None
    return predicted if np.isfinite(found).all() and found.ndim == 1 else None


def _log_predicted(
    predict: Any, x: Any, shape: tuple[int, ...], places: Any, are_scores: bool
) -> Array:
    y = predict(x).reshape(shape)
    right: Array
    if not are_scores:
        right = np.log(y[places])
        return right
    # Not by way of the probabilities, which may be too small for a float.
    shifted = y - y.max(axis=1, keepdims=True)
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
