"""Hypotheses about a fault, from the gradient and its parameter alone."""

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.diagnosis import Diagnosis, FailedParameter, Hypothesis
from fastgrad.typing import Array

LARGEST = 64
"""Elements, the largest ones, from whose ratios a constant is estimated."""

NEAR = 1e-3
"""How near an estimated constant must be to one with a meaning to be taken for it."""


def diagnose(case: FailedParameter) -> Diagnosis | None:
    """Return the first guess that is proven, or None."""
    return case.first_proven(guess for hypothesis in HYPOTHESES for guess in hypothesis(case))


def _factor(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that it is a multiple of the right one."""
    places = _largest(case.claim)
    times = float(np.median(case.claim[places] / case.value[places]))
    if not np.isfinite(times) or times == 0:
        return
    for constant, words in meanings(case.samples, case.shape):
        if abs(times / constant - 1) < NEAR:
            yield Hypothesis(words, case.claim / constant, seen=case.claim / constant)
    right = case.claim / times
    yield Hypothesis(
        f"{times:.6g} times what it should be, in every element.", right, 1, seen=right
    )


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
    excess = case.claim - case.value
    for direction, words in ((case.x, "the parameter itself"), (np.sign(case.x), "its sign")):
        if not direction.any():
            continue
        places = _largest(direction)
        rate = float(np.median(excess[places] / direction[places]))
        has, lacks = ("loss", "gradient") if rate < 0 else ("gradient", "loss")
        yield Hypothesis(
            f"{abs(rate):.4g} times {words} is {'missing' if rate < 0 else 'too much'}: the {has} "
            f"has this weight decay (regularisation), the {lacks} has not.",
            case.claim - rate * direction,
            1,
        )


def _order(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that its elements are right, but in other places."""
    shape = case.shape
    if len(shape) < 2:
        if len(shape) == 1:
            yield Hypothesis("right, but in reverse order.", case.claim[::-1])
        return
    claim = case.claim.reshape(shape)
    for axes in permutations(range(len(shape))):
        if [*axes] != sorted(axes) and tuple(shape[a] for a in axes) == shape:
            yield Hypothesis(
                "transposed: return .T."
                if len(shape) == 2
                else f"its axes are exchanged: return .transpose{axes}.",
                claim.transpose(axes).reshape(-1),
            )
    yield Hypothesis(
        f"reshaped where it should be transposed: it is .reshape{shape} of its transpose.",
        claim.reshape(shape[::-1]).T.reshape(-1),
    )
    for axis in range(len(shape)):
        yield Hypothesis(
            f"right, but in reverse order along axis {axis}.", np.flip(claim, axis).ravel()
        )
    yield Hypothesis(
        "its last two axes are reversed: a filter is turned where it should not be, or the reverse "
        "(convolution and correlation).",
        claim[..., ::-1, ::-1].reshape(-1),
    )


def _exchanged(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that it is that of another parameter."""
    for other in case.others:
        if other.part.x.shape == case.shape:
            name = other.part.name
            yield Hypothesis(
                f"it is the gradient of {name}.", case.claim - other.value + case.value,
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
            case.claim - total + case.value,
            slack=case.value.size * case.numerical.round_off,
        )


def _factor_and_decay(case: FailedParameter) -> Iterator[Hypothesis]:
    """Hypothesis that all but its weight decay is a multiple of the right one."""
    if not case.x.any():
        return
    basis = np.stack([case.value, case.x], axis=1)
    chosen = np.arange(case.claim.size)
    for _ in range(2):  # the second time without elements at kinks
        times, rate = np.linalg.lstsq(basis[chosen], case.claim[chosen], rcond=None)[0]
        error = abs(case.claim - times * case.value - rate * case.x)
        chosen = np.flatnonzero(error <= np.quantile(error, 0.95))
    if not np.isfinite(times) or min(abs(times), abs(times - 1)) < NEAR:
        return
    for constant, words in meanings(case.samples, case.shape):
        if abs(times / constant - 1) < NEAR:
            times, what = constant, words
            break
    else:
        what = f"{times:.6g} times what it should be."
    decay = rate / (1 - times)
    yield Hypothesis(
        f"all but its weight decay, {decay:.4g} times the parameter: {what}",
        (case.claim - rate * case.x) / times,
        2,
        seen=(case.claim - rate * case.x) / times - decay * case.x,
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
    count = min(LARGEST, int(np.count_nonzero(sizes)))
    return np.argsort(-sizes, kind="stable")[: max(count, 1)]
