"""The gradient asked for again: at x, next to x, and in the mode that its loss has in training.

What is wrong only at x itself is a kink's doing: there is no derivative at a kink, and what
backpropagation returns there is a convention. Where several kinks meet, as at ties of a maximum or
with a batch of empty samples, their effects may even cancel in f, but not in the convention. A
little farther the kinks are left behind.
"""

import inspect
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fastgrad.checking.diagnosis import NEARLY
from fastgrad.checking.log_offset import offset_along
from fastgrad.checking.noise import Noise
from fastgrad.checking.numerical import NumericalGradient, largest_magnitude, numerical_gradients
from fastgrad.checking.random_directions import COUNT, DirectionalCheck
from fastgrad.checking.subject import Batch, GradientUnderTest, Part, index_text, loss_of_net
from fastgrad.directional import move, restoration
from fastgrad.interrupts import raise_interrupt
from fastgrad.typing import Array

DISTANCES = (2.0**-6, 2.0**-5, 2.0**-4)
"""How far the points next to x are that are tried, in units of each array's largest element.

A fault is at all of them, a kink hardly at each.
"""

LEAST = 0.5
"""Part of the largest element of all by which small arrays are moved, such as biases near 0."""


def wrong_next_to_x(
    subject: GradientUnderTest, noise: Noise, h: float, parts: list[Part]
) -> list[Part]:
    """Return the parts whose gradient is wrong at points next to x as well.

    The gradient is asked for there anew, and compared with differences there. x comes back bit for
    bit.
    """
    random = np.random.default_rng(0)
    for distance in DISTANCES:
        if parts:
            directions = _directions([part.x for part in subject.parts], random)
            parts = _wrong_at(subject, noise, h, parts, directions, distance)
    return parts


def next_to_x(
    subject: GradientUnderTest, noise: Noise, random: np.random.Generator, slack: float
) -> tuple[bool, float | None]:
    """Return whether the gradient is right along directions from points next to x.

    With the number under the logarithm, if it is right but for that. Next to x is where exact ties,
    such as units at 0, are left behind.
    """
    if not subject.can_ask_again:
        return False, None
    arrays = [part.x for part in subject.parts]
    offset = None
    for distance in DISTANCES[:2]:
        put_back, originals = restoration(arrays)
        try:
            move(arrays, originals, _directions(arrays, random), distance, [None] * len(arrays))
            subject.value()  # layers keep what the last forward pass left
            parts = [
                replace(part, claim=claim.values)
                for part, claim in zip(subject.parts, subject.claims(), strict=True)
                if part.x.size
            ]
            check = DirectionalCheck.drawn(subject, parts, noise, slack, random, COUNT // 2)
            if not check.measure().agrees:
                offset = offset_along(check)
                if offset is None:
                    return False, None
        finally:
            put_back()
            subject.value()
    return True, offset


def _wrong_at(
    subject: GradientUnderTest,
    noise: Noise,
    h: float,
    parts: list[Part],
    directions: list[Array],
    distance: float,
) -> list[Part]:
    """Return the parts whose gradient is wrong at x + distance * directions."""
    arrays = [part.x for part in subject.parts]
    put_back, originals = restoration(arrays)
    try:
        move(arrays, originals, directions, distance, [None] * len(arrays))
        subject.value()  # layers keep what the last forward pass left
        claims = dict(zip((p.name for p in subject.parts), subject.claims(), strict=True))
        there = [replace(part, claim=claims[part.name].values) for part in parts]
        found = numerical_gradients(subject, noise, h, there)
        return [
            part
            for part, numerical in zip(parts, found, strict=True)
            if len(numerical.confirmed_errors(numerical.part.claim))
        ]
    finally:
        put_back()
        subject.value()


def _directions(arrays: list[Array], random: np.random.Generator) -> list[Array]:
    """Return by what each array is moved, in units of the distance."""
    sizes = [float(abs(array).max(initial=0)) for array in arrays]
    largest = max(sizes, default=0.0) or 1.0
    return [
        max(size, LEAST * largest)
        * random.uniform(-1, 1, array.shape).astype(np.result_type(array.dtype, np.float64))
        for array, size in zip(arrays, sizes, strict=True)
    ]


def changes_when_repeated(
    subject: GradientUnderTest, faulty: list[NumericalGradient]
) -> str | None:
    """Return what that shows, if a second call at the same x, after one of f, gives other numbers.

    Parameters
    ----------
    subject : GradientUnderTest
        Its gradient was first asked for before f was called at all.
    faulty : list of NumericalGradient
        The parameters whose gradient is wrong.
    """
    if not subject.can_ask_again:
        return None
    subject.value()
    first, second = _claims(subject), _claims(subject)
    old = [numerical.part.claim for numerical in faulty]
    new = [first[numerical.part.name] for numerical in faulty]
    later = [second[numerical.part.name] for numerical in faulty]
    if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(old, new, strict=True)):
        return None
    if all(_is_right(numerical, after) for numerical, after in zip(faulty, new, strict=True)):
        return (
            "right only after loss(x, t) was called: the backward pass uses what the layers keep "
            "from the last forward pass; call loss(x, t) in gradient(x, t)."
        )
    if all(
        _is_right(numerical, after - before)
        for numerical, before, after in zip(faulty, new, later, strict=True)
    ):
        return (
            "each call adds the right gradient to what the last one left: set the gradients to "
            "zero before they are summed."
        )
    worst = faulty[0].part
    place = int(np.nanargmax(abs(new[0] - old[0])))
    return (
        f"not deterministic: two calls at the same x gave {old[0][place]:.6g} and "
        f"{new[0][place]:.6g} at {index_text(worst.name, worst.index(place))}."
    )


def _is_right(numerical: NumericalGradient, gradient: Array) -> bool:
    """Return whether a gradient is right, up to a small fault such as the 1e-7's."""
    nearly = NEARLY * largest_magnitude(numerical.value)
    return not len(numerical.confirmed_errors(gradient, corrected=True, slack=nearly))


def _claims(subject: GradientUnderTest) -> dict[str, Array]:
    """Return what the gradient claims now, by name."""
    names = [part.name for part in subject.parts]
    return dict(zip(names, (claim.values for claim in subject.claims()), strict=True))


FLAGS = frozenset(
    [
        *("train", "training", "train_flg", "train_flag"),
        *("is_train", "is_training", "train_mode", "training_mode"),
    ]
)
"""Names of parameters that are true in training mode."""

OPPOSITE = frozenset(["test", "is_test", "test_mode", "eval", "is_eval", "inference"])
"""Names of parameters that are false in training mode."""

WORDS = {"test": "train", "eval": "train", "inference": "training"}
"""Values of a parameter ``mode``, and what means training."""

METHODS = ("loss", "predict", "forward")
"""What may take such a parameter; the first one that does decides."""


@dataclass(frozen=True, eq=False)
class Mode:
    """A net's loss in its other mode.

    Attributes
    ----------
    subject : GradientUnderTest
        A copy of the net in that mode, beside the same gradient.
    sentence : str
        What it means if the gradient is right there.
    """

    subject: GradientUnderTest
    sentence: str


def other_modes(subject: GradientUnderTest) -> Iterator[Mode]:
    """Yield the loss in training mode, if the net has one and f is its loss in test mode.

    Of a copy of the net: training changes running means. Where the loss is random in that mode, as
    with dropout, it and the gradient are evaluated with the same random numbers, drawn by
    ``np.random``.
    """
    if subject.batch is None or subject.is_own_net:
        return
    named = _flag(subject.batch.net)
    if named is None:
        return
    method, name, value = named
    claims = [part.claim for part in subject.parts]
    try:
        net = deepcopy(subject.batch.net)
        _set_mode(net, {name: value})
        batch = Batch(net, subject.batch.x, subject.batch.t, is_given=subject.batch.is_given)
        arrays = _same_parameters(subject, net)
        f: Callable[..., Any] = partial(loss_of_net, net, batch.x, batch.t)
        first, second = float(f(None)), float(f(None))
        words = (
            f"{method} takes {name}: the gradient is that of the loss with {name}={value!r}, in "
            f"training mode, and loss(x, t) runs in test mode"
        )
        if first != second:
            if not subject.can_ask_again or arrays is None:
                return
            f = partial(seeded, f)
            if callable(getattr(net, "predict", None)):
                net.predict = partial(seeded, net.predict)
            if float(f(None)) != float(f(None)):
                return
            found = seeded(net.gradient, batch.x, batch.t)
            gradient: Any = found if isinstance(subject.x, dict) else None
            if gradient is None:
                return
            words += ", and both are random, as with dropout"
            end = ". Compared with that loss, by the same random numbers, every element agrees."
        else:
            gradient = _like(subject, claims)
            end = ". Compared with that loss, every element agrees."
        if arrays is None:
            return
        other = GradientUnderTest(f, arrays, gradient, (), subject.engine, batch)
        if subject.can_ask_again:
            again = partial(net.gradient, batch.x, batch.t)
            other.asks(partial(seeded, again) if first != second else again)
        other.keeps_step = subject.keeps_step
    except Exception as error:  # a net that cannot be copied, or takes the parameter otherwise
        raise_interrupt(error)
        return
    yield Mode(other, words + end)


def seeded(f: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``f(*arguments)`` with the global random numbers of a fixed seed, then put back."""
    state = np.random.get_state()
    try:
        np.random.seed(0)
        return f(*arguments)
    finally:
        np.random.set_state(state)


def _flag(net: Any) -> tuple[str, str, Any] | None:
    """Return which method takes which parameter, and its value in training mode."""
    for method in METHODS:
        try:
            parameters = inspect.signature(getattr(net, method)).parameters
        except (AttributeError, TypeError, ValueError):
            continue
        for name, parameter in parameters.items():
            value = _training_value(name, parameter.default)
            if value is not None:
                return method, name, value
    return None


def _training_value(name: str, default: Any) -> Any:
    """Return the value that a parameter has in training mode; None if it has it by default."""
    if name in FLAGS and not default:
        return True
    if name in OPPOSITE and default is True:
        return False
    return WORDS.get(default) if isinstance(default, str) else None


def _set_mode(net: Any, flags: dict[str, Any]) -> None:
    """Give a copy of a net methods that run in this mode."""
    for method in METHODS:
        plain = getattr(net, method, None)
        if plain is None:
            continue
        own = {
            name: _training_value(name, parameter.default)
            for name, parameter in inspect.signature(plain).parameters.items()
            if name in flags or _training_value(name, parameter.default) is not None
        }
        chosen = {name: value for name, value in own.items() if value is not None}
        if chosen:
            setattr(net, method, partial(_with_flags, plain, chosen))


def _with_flags(method: Callable[..., Any], flags: dict[str, Any], *args: Any, **given: Any) -> Any:
    """Call a method in the mode that is asked for, unless the caller says which."""
    names = [*inspect.signature(method).parameters][: len(args)]
    return method(*args, **{**{k: v for k, v in flags.items() if k not in names}, **given})


def _same_parameters(subject: GradientUnderTest, net: Any) -> Any:
    """Return the copy's arrays in place of those of x, or None."""
    assert subject.batch is not None
    if subject.x is subject.batch.net.params:
        return net.params
    if isinstance(subject.x, np.ndarray):
        for name, array in subject.batch.net.params.items():
            if array is subject.x:
                return net.params[name]
    return None


def _like(subject: GradientUnderTest, claims: list[Any]) -> Any:
    from fastgrad.differences.trees import is_structure, like

    arrays = [
        claim.reshape(part.x.shape) for claim, part in zip(claims, subject.parts, strict=True)
    ]
    return like(subject.x, iter(arrays)) if is_structure(subject.x) else arrays[0]
