"""The gradient asked for again: at x, next to x, and in the mode that its loss has in training.

What is wrong only at x itself is a kink's doing: there is no derivative at a kink, and what
backpropagation returns there is a convention. Where several kinks meet, as at ties of a maximum or
with a batch of empty samples, their effects may even cancel in f, but not in the convention. A
little farther the kinks are left behind.
"""

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from fastgrad.checking.kinks_at_x import may_have_kink
from fastgrad.checking.log_offset import (
    Explanation,
    about,
    explain_by_offset,
    offset_along,
    sentence_of,
)
from fastgrad.checking.noise import ANALYTIC_ROUNDING_EPS, measure_noise
from fastgrad.checking.numerical import (
    SMALL_FAULT_SHARE,
    NumericalGradient,
    largest_magnitude,
    numerical_gradients,
)
from fastgrad.checking.random_directions import DirectionalCheck
from fastgrad.checking.subject import GradientUnderTest, Part, loss_of_net
from fastgrad.differences.arguments import is_structure, like
from fastgrad.directional import displace, restorer
from fastgrad.jit.interrupts import raise_interrupt
from fastgrad.typing import Array

DISTANCES = (2.0**-6, 2.0**-5, 2.0**-4)
"""How far the points next to x are that are tried, in units of each array's largest element.

A fault is at all of them, a kink hardly at each.
"""

DIRECTIONS_NEXT_TO_X = 6
"""Random directions there, where those at x tell nothing."""

MIN_SIZE_SHARE = 0.5
"""Part of the largest element of all by which small arrays are moved, such as biases near 0."""

MAX_ERROR_SHARE = 1e-2
"""Share to which errors fall in the mode that the gradient runs in."""

TRAINING_FLAGS = frozenset(
    [
        *("train", "training", "train_flg", "train_flag"),
        *("is_train", "is_training", "train_mode", "training_mode"),
    ]
)
"""Names of parameters that are true in training mode."""

INFERENCE_FLAGS = frozenset(["test", "is_test", "test_mode", "eval", "is_eval", "inference"])
"""Names of parameters that are false in training mode."""

TRAINING_MODES = {"test": "train", "eval": "train", "inference": "training"}
"""Values of a parameter ``mode``, and what means training."""

ADDED_UP = (
    "each call adds the right gradient to what the last one left: set the gradients to zero before "
    "they are summed."
)
"""What is said of a gradient that grows from call to call."""

METHODS = ("loss", "predict", "forward")
"""What may take such a parameter; the first one that does decides."""


def explain_by_repetition(wrong: list[NumericalGradient]) -> Explanation:
    """Ask for the gradient at the same x once more, and again: it may depend on earlier calls.

    It was first asked for before f was called at all.
    """
    subject = wrong[0].subject
    if not subject.can_reevaluate:
        return Explanation(wrong)
    names = [w.name for w in wrong]
    old = [w.part.analytic for w in wrong]
    new = [part.analytic for part in subject.analytic_parts_after_loss() if part.name in names]
    later = [part.analytic for part in subject.analytic_parts() if part.name in names]
    if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(old, new, strict=True)):
        return Explanation(wrong)
    if all(_is_nearly_right(w, after) for w, after in zip(wrong, new, strict=True)):
        sentence = (
            "right only after loss(x, t) was called: the backward pass uses what the layers keep "
            "from the last forward pass; call loss(x, t) in gradient(x, t)."
        )
    elif all(
        _is_nearly_right(w, after - before)
        for w, before, after in zip(wrong, new, later, strict=True)
    ):
        sentence = ADDED_UP
    else:
        place = int(np.nanargmax(abs(new[0] - old[0])))
        sentence = _not_deterministic(wrong[0].part, new[0], place)
    return Explanation(wrong, [], [about(names, sentence)], is_complete=True)


def _is_nearly_right(numerical: NumericalGradient, gradient: Array) -> bool:
    """Return whether a gradient is right, up to a small fault such as the 1e-7's."""
    return not numerical.is_wrong(gradient, SMALL_FAULT_SHARE * largest_magnitude(numerical.value))


def changed_when_asked_again(
    subject: GradientUnderTest, parts: Sequence[Part], rtol: float
) -> tuple[list[str], list[str]]:
    """Return the names of right parts whose gradient is another one the next time, and a sentence.

    A change is more than half of the gradient's digits: summing in another order changes less, and
    what is nothing but rounding by some eps of the largest element of all.

    Parameters
    ----------
    subject : GradientUnderTest
    parts : sequence of Part
        With what the first call claimed of x.
    rtol : float
        A change that is accepted in any case, relative to the largest element of the part.
    """
    if not subject.can_reevaluate:
        return [], []
    again = {part.name: part.analytic for part in subject.analytic_parts_after_loss()}
    largest = max((largest_magnitude(part.analytic) for part in parts), default=0.0)

    def is_another(part: Part, gradient: Array) -> bool:
        share = max(part.analytic_eps**0.5, rtol)
        rounding = ANALYTIC_ROUNDING_EPS * part.analytic_eps * largest
        allowed = max(share * largest_magnitude(part.analytic), rounding)
        return not (abs(gradient - part.analytic) <= allowed).all()

    changed = [part for part in parts if is_another(part, again[part.name])]
    if not changed:
        return [], []
    later = {part.name: part.analytic for part in subject.analytic_parts()}
    added = [
        (part, after - before)
        for part in changed
        for before, after in pairwise((part.analytic, again[part.name], later[part.name]))
    ]
    if not any(is_another(part, gradient) for part, gradient in added):
        sentence = ADDED_UP
    else:
        place = int(np.nanargmax(abs(again[changed[0].name] - changed[0].analytic)))
        sentence = _not_deterministic(changed[0], again[changed[0].name], place)
    names = [part.name for part in changed]
    return names, [about(names, f"the first call is right, but {sentence}")]


def _not_deterministic(part: Part, again: Array, place: int) -> str:
    """Say which two values two calls at the same x gave."""
    return (
        f"not deterministic: two calls at the same x gave {part.analytic[place]:.6g} and "
        f"{again[place]:.6g} at {part.element(place)}."
    )


def explain_by_kinks(wrong: list[NumericalGradient]) -> Explanation:
    """Compare the gradient with differences at points next to x, where kinks at x are left behind.

    It is asked for there anew, and f has to have a kink at x. x comes back bit for bit.
    """
    subject = wrong[0].subject
    if not subject.can_reevaluate:
        return Explanation(wrong)
    random, still = np.random.default_rng(0), {w.name for w in wrong}
    for distance in DISTANCES:
        if still:
            with _analytic_parts_next_to_x(subject, random, distance) as parts:
                if parts is None:
                    return Explanation(wrong)
                there = [part for part in parts if part.name in still]
                found = numerical_gradients(subject, wrong[0].noise, wrong[0].h, there)
                still = {w.name for w in found if w.is_wrong()}
    right = [w for w in wrong if w.name not in still and may_have_kink(w.subject, w.part, w.noise)]
    sentence = (
        "differs at x, but agrees at a point next to it: x is where f has no derivative, such as a "
        "ReLU at 0 or a tie of a maximum."
    )
    sentences = [about([w.name for w in right], sentence)] if right else []
    left = [w for w in wrong if w not in right]
    alone = [w.name for w in left if w.name not in still]
    if alone:
        sentences.append(about(alone, "agrees at a point next to x, but f shows no kink at x."))
    return Explanation(left, right, sentences)


@contextmanager
def _analytic_parts_next_to_x(
    subject: GradientUnderTest, random: np.random.Generator, distance: float
) -> Iterator[list[Part] | None]:
    """Move x while the block runs, and give it what the gradient claims there; None if it raises.

    x may be outside of the domain of both, whatever they raise there; or no number any more.
    """
    arrays = [part.x for part in subject.parts]
    sizes = [float(abs(array).max(initial=0)) for array in arrays]
    largest = max(sizes, default=0.0) or 1.0
    directions = [
        max(size, MIN_SIZE_SHARE * largest)
        * random.uniform(-1, 1, array.shape).astype(np.result_type(array.dtype, np.float64))
        for array, size in zip(arrays, sizes, strict=True)
    ]
    put_back, originals = restorer(arrays)
    try:
        displace(arrays, originals, directions, distance, [None] * len(arrays))
        parts = None
        if all(np.isfinite(array).all() for array in arrays):
            try:
                parts = subject.analytic_parts_after_loss()
            except Exception as error:
                raise_interrupt(error)
        yield parts
    finally:
        put_back()
        subject.call_loss()


@dataclass(frozen=True, eq=False)
class Mode:
    """A net's loss in training mode.

    Attributes
    ----------
    subject : GradientUnderTest
        A copy of the net in that mode, beside the same gradient.
    sentence : str
        What it means if the gradient is right there.
    """

    subject: GradientUnderTest
    sentence: str


def explain_by_mode(wrong: list[NumericalGradient]) -> Explanation:
    """Compare the gradient with the loss in training mode, if the net has one.

    If the gradient is much nearer to that loss, or parts of it are right there, what is left is to
    be found out there.
    """
    mode = training_mode(wrong[0].subject)
    if mode is None:
        return Explanation(wrong)
    h, names = wrong[0].h, [w.name for w in wrong]
    parts = [part for part in mode.subject.parts if part.name in names]
    there = numerical_gradients(mode.subject, measure_noise(mode.subject, h), h, parts)
    inner = explain_by_offset([w for w in there if len(w.suspicious())])
    before, after = (max(w.largest_error for w in found) for found in (wrong, there))
    if not after <= MAX_ERROR_SHARE * before and len(inner.wrong) == len(wrong):
        return Explanation(wrong)
    sentence = mode.sentence
    if inner.wrong:
        fall = f"the largest error falls from {before:.1e} to {after:.1e}."
        sentence = sentence.replace("every element agrees.", fall)
    agreeing = [w for w in there if not len(w.suspicious())]
    sentences = [*inner.sentences, about(names, sentence)]
    return Explanation(inner.wrong, inner.right + agreeing, sentences)


def training_mode(subject: GradientUnderTest) -> Mode | None:
    """Return the loss in training mode, if the net has one and f is its loss in test mode.

    Of a copy of the net: training changes running means. Where the loss is random in that mode, as
    with dropout, it and the gradient are evaluated with the same random numbers, drawn by
    ``np.random``.
    """
    batch = subject.batch
    if batch is None or subject.is_own_net:
        return None
    flags = _training_flags(batch.net)
    if not flags:
        return None
    method, own = next(iter(flags.items()))
    name, value = next(iter(own.items()))
    words = (
        f"{method} takes {name}: the gradient is that of the loss with {name}={value!r}, in "
        "training mode, and loss(x, t) runs in test mode"
    )
    end = ". Compared with that loss, every element agrees."
    try:
        net = deepcopy(batch.net)
        for method, own in flags.items():
            setattr(net, method, partial(_with_flags, getattr(net, method), own))
        same = [net.params[key] for key, array in batch.net.params.items() if array is subject.x]
        x = net.params if subject.x is batch.net.params else same[0]
        f: Callable[..., Any] = partial(loss_of_net, net, batch.x, batch.t)
        asked = partial(net.gradient, batch.x, batch.t) if subject.can_reevaluate else None
        gradients = iter([part.analytic.reshape(part.x.shape) for part in subject.parts])
        gradient = like(subject.x, gradients) if is_structure(subject.x) else next(gradients)
        if float(f(None)) != float(f(None)):
            f = partial(seeded, f)
            if callable(getattr(net, "predict", None)):
                net.predict = partial(seeded, net.predict)
            if asked is None or float(f(None)) != float(f(None)):
                return None
            asked = partial(seeded, asked)
            gradient = asked()
            words += ", and both are random, as with dropout"
            end = ". Compared with that loss, by the same random numbers, every element agrees."
        batch = replace(batch, net=net)
        other = GradientUnderTest(f, x, gradient, (), subject.engine, batch, subject.outside)
        # The net may have been found behind a function, of whose x the parts are named.
        other.parts = [
            replace(part, name=own.name)
            for part, own in zip(other.parts, subject.parts, strict=True)
        ]
    except Exception as error:  # a net that cannot be copied, or takes the parameter otherwise
        raise_interrupt(error)
        return None
    if asked is not None:
        other.asks(asked)
    other.keeps_step = subject.keeps_step
    return Mode(other, words + end)


def seeded(f: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``f(*arguments)`` with the global random numbers of a fixed seed, then put back."""
    state = np.random.get_state()
    try:
        np.random.seed(0)
        return f(*arguments)
    finally:
        np.random.set_state(state)


def _training_flags(net: Any) -> dict[str, dict[str, Any]]:
    """Return which methods have which parameters for the mode, and their values in training."""
    flags = {}
    for method in METHODS:
        with suppress(AttributeError, TypeError, ValueError):
            parameters = inspect.signature(getattr(net, method)).parameters
            values = {
                name: _training_value(name, each.default) for name, each in parameters.items()
            }
            flags[method] = {name: value for name, value in values.items() if value is not None}
    return {method: own for method, own in flags.items() if own}


def _training_value(name: str, default: Any) -> Any:
    """Return the value that a parameter has in training mode; None if it has it by default."""
    if name in TRAINING_FLAGS and not default:
        return True
    if name in INFERENCE_FLAGS and default is True:
        return False
    return TRAINING_MODES.get(default) if isinstance(default, str) else None


def _with_flags(method: Callable[..., Any], flags: dict[str, Any], *args: Any, **given: Any) -> Any:
    """Call a method in the mode that is asked for, unless the caller says which."""
    names = [*inspect.signature(method).parameters][: len(args)]
    return method(*args, **{**{k: v for k, v in flags.items() if k not in names}, **given})


def explained_along(
    check: DirectionalCheck, random: np.random.Generator
) -> tuple[str, DirectionalCheck, list[str]] | None:
    """Return a summary, what agrees, and findings, if what differs along directions is no fault."""
    subject, right = check.subject, "The gradient is right along random directions"
    found = offset_along(check)
    if found is not None:
        return f"{right}.", found[1], _of_offset(found[0], subject)
    mode = training_mode(subject)
    if mode is not None:
        explained = _along(check.of(mode.subject))
        if explained is not None:
            there, offset = explained
            sentences = [mode.sentence, *_of_offset(offset, mode.subject)]
            return f"{right} of the loss in training mode.", there, sentences
    if not (check.has_kinks and subject.can_reevaluate):
        return None
    with _analytic_parts_next_to_x(subject, random, DISTANCES[0]) as analytic_parts:
        if analytic_parts is None:
            return None
        parts = [part for part in analytic_parts if part.x.size]
        drawn = DirectionalCheck.drawn(
            subject, parts, check.noise, check.slack, random, DIRECTIONS_NEXT_TO_X
        )
        explained = _along(drawn)
        if explained is None:
            return None
        there, offset = explained
    kinks = (
        "x is where f has a kink, such as ReLU units at 0: there random directions tell nothing. "
        "fast=False compares every element at x itself."
    )
    return f"{right} at points next to x.", there, [kinks, *_of_offset(offset, subject)]


def _along(check: DirectionalCheck) -> tuple[DirectionalCheck, float | None] | None:
    """Return what agrees along directions, with an offset if it needs one; None if it does not."""
    if check.measure().agrees:
        return check, None
    found = offset_along(check)
    return None if found is None else (found[1], found[0])


def _of_offset(offset: float | None, subject: GradientUnderTest) -> list[str]:
    """Return the sentence about an offset, if there is one."""
    return [] if offset is None else [f"It is {sentence_of(offset, subject)}"]
