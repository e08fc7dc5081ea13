"""The gradient asked for again: at x, where it may depend on what came before, and next to x.

What is wrong only at x itself is a kink's doing: there is no derivative at a kink, and what
backpropagation returns there is a convention. Where several kinks meet, as at ties of a maximum or
with a batch of empty samples, their effects may even cancel in f, but not in the convention. A
little farther the kinks are left behind.
"""

from dataclasses import replace

import numpy as np

from fastgrad.checking.diagnosis import NEARLY
from fastgrad.checking.log_offset import offset_along
from fastgrad.checking.noise import Noise
from fastgrad.checking.numerical import NumericalGradient, largest_magnitude, numerical_gradients
from fastgrad.checking.random_directions import COUNT, DirectionalCheck
from fastgrad.checking.subject import GradientUnderTest, Part, index_text
from fastgrad.directional import move, restoration
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
