"""What is known of the probabilities of a batch's right classes, and of numbers added to these.

By what a net predicts; or else by the losses of its samples one by one, if the loss is their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from fastgrad.checking.noise import Direction, Noise, evaluate_along
from fastgrad.checking.numerical import largest_magnitude
from fastgrad.checking.random_directions import KINK_DIVISOR, random_direction, step_along
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.typing import Array

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


def misfit_share(noise: Noise) -> float:
    """Return the share by which what an offset explains may miss."""
    return min(MAX_MISFIT_SHARE, MISFIT_SHARE_PER_STEP * step_along(noise))


def added_by(classes: RightClasses, offset: float, *_: Any) -> Any:
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

    def without(self, subject: GradientUnderTest, offset: float) -> GradientUnderTest:
        """Return the subject whose loss has no such number under the logarithm."""
        return subject.with_function(partial(_loss_without, subject.f, self, offset))

    def below(self, offset: float) -> int:
        """Return how many probabilities are smaller than the offset."""
        here = self.snapshot()
        hidden = here > -np.log(2 * offset) if self.are_losses else here < np.log(offset)
        return int(np.count_nonzero(hidden))


@dataclass(frozen=True, eq=False)
class Rest:
    """What numbers add to the loss, along directions.

    Attributes
    ----------
    classes, parts, noise
        What is differenced, what is moved for that, and how exact f is.
    here : array
        The snapshot at x.
    step : float
        By which it is differenced.
    is_one_sided : bool
        Whether from x, and not from the other side.
    """

    classes: RightClasses
    parts: Sequence[Part]
    noise: Noise
    here: Array
    step: float
    is_one_sided: bool

    @classmethod
    def of(cls, classes: RightClasses, parts: Sequence[Part], noise: Noise) -> Rest:
        """Choose the step, which crosses fewer kinks than that of f.

        What rounds it is as much smaller as the number is that is added to the probabilities. Where
        it is as small as that, one side is as straight as both are by f's.
        """
        rounding = max(
            largest_magnitude(part.x) * float(np.finfo(part.x.dtype).eps) for part in parts
        )
        hidden = max(SLOPE_NOISE_FACTOR * noise.relative, rounding) / misfit_share(noise)
        largest = step_along(noise)
        least = largest / KINK_DIVISOR**2
        step = min(largest, max(least, hidden))
        return cls(classes, parts, noise, classes.snapshot(), step, step == least)

    def slopes_along(self, direction: Direction, offsets: Sequence[float]) -> dict[float, float]:
        """Return the slope along a direction for each of these numbers."""
        steps = (self.step,) if self.is_one_sided else (self.step, -self.step)
        end, *others = evaluate_along(self.parts, direction, steps, self.classes.snapshot)
        start = others[0] if others else self.here
        with np.errstate(all="ignore"):
            return {
                d: float(self.classes.rest(end, d) - self.classes.rest(start, d)) / self._length
                for d in offsets
            }

    def error_of(self, slope: float, offset: float) -> float:
        """Return what a slope may be wrong by: a share of it, and what rounding does to values."""
        with np.errstate(all="ignore"):
            rounded = self.classes.rounded(self.here, offset, self.noise.eps)
        return misfit_share(self.noise) * abs(slope) + 2 * rounded / self._length

    @property
    def _length(self) -> float:
        return self.step if self.is_one_sided else 2 * self.step

    def taken_along(self, offset: float, direction: Direction) -> tuple[float, float]:
        """Return what a number takes from the loss's slope along a direction, and its error."""
        slope = -self.slopes_along(direction, [offset])[offset]
        return slope, self.error_of(slope, offset)


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
