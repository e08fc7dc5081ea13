"""Is it the number under the logarithm? The book's loss is -log(p + 1e-7), its gradient -log(p)'s.

The gradient of the mean of ``-log(p)`` is that of ``-log(p + d)`` and of ``c = log(1 + d / p)``. So
where a backward pass leaves d out, it differs from f's derivative by the derivative of c, which is
measured here from the probabilities that the net predicts.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.directions import COUNT, Direction, draw, evaluate_along, step_along
from fastgrad.checking.noise import Noise
from fastgrad.checking.subject import Part, Subject
from fastgrad.checking.witness import Witness, largest_magnitude

Array = NDArray[Any]

OFFSETS = (1e-7, 1e-8, 1e-6, 1e-10, 1e-12, 1e-5)
"""What is added to probabilities before their logarithm is taken; the book's comes first."""

SMALL_ELEMENT = 1e-4
"""Share of the largest element that such a difference does not exceed, in nearly all elements."""

EXACT = 1e-3
"""Share of what is to be explained to which it is to be: more than what d**2 and s**2 leave."""

SMALL = 1e-2
"""Share of the gradient that such a difference does not exceed."""


def left_out_offset(suspected: Sequence[Witness], seed: int = 0) -> float | None:
    """Return the number under the logarithm that these gradients leave out, if it is that.

    Proven along random directions, in which elements with larger errors do not move: those must
    be right, such as elements near kinks. Where that fails, `without_offset` tells.

    Parameters
    ----------
    suspected : sequence of Witness
        Of parameters whose gradient differs.
    seed : int
        Of the directions.
    """
    errors, masks, bounds = [], [], []
    for witness in suspected:
        error = witness.part.claim - witness.value
        small = abs(error) <= SMALL_ELEMENT * largest_magnitude(witness.value)
        # Near a kink the truncation error is large beside what is to be explained.
        small &= witness.truncation <= np.median(abs(error))
        errors.append(np.where(small, error, 0.0))
        bounds.append(np.where(small, witness.truncation + witness.round_off, 0.0))
        masks.append(small)
        size, least = np.linalg.norm(errors[-1]), 4 * np.linalg.norm(bounds[-1])
        if not least < size <= SMALL * np.linalg.norm(witness.value):
            return None
    predicted = log_probabilities(suspected[0].subject) if suspected else None
    if predicted is None:
        return None
    parts = [witness.part for witness in suspected]
    random, s = np.random.default_rng(seed), step_along(suspected[0].noise)
    error, bound = np.concatenate(errors), np.concatenate(bounds)
    left = [*OFFSETS]
    for _ in range(COUNT):
        line = draw(parts, random)
        for v, small in zip(line, masks, strict=True):
            v[~small.reshape(v.shape)] = 0
        up, down = evaluate_along(parts, line, (s, -s), predicted)
        v = np.concatenate([v.reshape(-1) for v in line])
        wanted = float(v @ error)
        tau = 6 * float(np.linalg.norm(v * bound)) + EXACT * abs(wanted)
        left = [d for d in left if abs(wanted - _slope(up, down, s, d)) <= tau]
    if not left or any(_is_wrong_elsewhere(*pair) for pair in zip(suspected, masks, strict=True)):
        return None
    return left[0]


def _is_wrong_elsewhere(witness: Witness, small: NDArray[np.bool_]) -> bool:
    """Return whether one of the larger errors is a fault."""
    rest = np.where(small, witness.value, witness.part.claim)
    return len(witness.contradictions(rest)) > 0


def offset_along(
    subject: Subject,
    parts: Sequence[Part],
    lines: Sequence[Sequence[Array]],
    directions: Sequence[Direction],
    noise: Noise,
    slack: float,
) -> float | None:
    """Return the number that explains the errors along directions, if there is one."""
    predicted = log_probabilities(subject)
    if predicted is None:
        return None
    s = step_along(noise)
    left = [*OFFSETS]
    for line, direction in zip(lines, directions, strict=True):
        up, down = evaluate_along(parts, line, (s, -s), predicted)
        error = direction.claimed - direction.measured
        slopes = {d: _slope(up, down, s, d) for d in left}
        allowed = direction.allowed + slack
        left = [d for d in left if abs(error - slopes[d]) <= allowed + EXACT * abs(slopes[d])]
    return left[0] if left else None


def without_offset(subject: Subject, offset: float) -> Subject | None:
    """Return the subject whose loss has no number under the logarithm; None if that is unknown."""
    predicted = log_probabilities(subject)
    if predicted is None:
        return None
    return subject.with_function(partial(_loss_without, subject.f, predicted, offset))


def _loss_without(f: Any, predicted: Any, offset: float, params: Any) -> Any:
    return f(params) + _rest(predicted(), offset)


def log_probabilities(subject: Subject) -> Callable[[], Array] | None:
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
            subject.parts, draw(subject.parts, random), (0.0, 0.125), lambda: np.array(predict(x))
        )
        are_scores = not all(
            (y >= 0).all() and np.allclose(y.sum(axis=-1), 1, atol=1e-5) for y in moved
        )
        places = (np.arange(shape[0]), labels)
        predicted = partial(_log_predicted, predict, x, shape, places, are_scores)
        with np.errstate(divide="ignore"):
            found = predicted()
    except Exception:  # a net of another kind
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


def _slope(up: Array, down: Array, s: float, offset: float) -> float:
    """Return the difference quotient of the mean of log(1 + d / p), from log(p) at both points."""
    return float(_rest(up, offset) - _rest(down, offset)) / (2 * s)


def _rest(logarithms: Array, offset: float) -> Any:
    """Return the mean of log(1 + d / p), by operations that can be traced."""
    return np.mean(np.logaddexp(0.0, np.log(offset) - logarithms))


def sentence_of(offset: float, subject: Subject) -> str:
    """Say what it is, and that it is none of the reader's faults."""
    whose = "as the book's do: that difference is the book's" if offset == 1e-7 else "no fault"
    text = (
        f"right, but for the {offset:g} that the loss adds under the logarithm and the gradient "
        f"leaves out, {whose}."
    )
    predicted = log_probabilities(subject)
    below = 0 if predicted is None else int(np.count_nonzero(predicted() < np.log(offset)))
    if below:
        text += (
            f" {below} of the samples {'has' if below == 1 else 'have'} a smaller probability than "
            "that: there the loss is nearly flat, and its differences nearly 0, but the gradient "
            "is not."
        )
    return text
