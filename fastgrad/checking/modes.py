"""The loss of a net in its other mode: in training, where it runs in test mode by default."""

import inspect
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fastgrad.checking.batch import Batch, loss_of_net
from fastgrad.checking.subject import GradientUnderTest
from fastgrad.interrupts import raise_interrupt

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
