"""The same gradient at points next to x: what is wrong only at x itself is a kink's doing.

At a kink there is no derivative, and what backpropagation returns there is a convention. Where
several kinks meet, as at ties of a maximum or with a batch of empty samples, their effects may even
cancel in f, but not in the convention. A little farther the kinks are left behind.
"""

from dataclasses import replace

import numpy as np

from fastgrad.checking.directions import COUNT, DirectionalCheck
from fastgrad.checking.noise import Noise
from fastgrad.checking.offset import offset_along
from fastgrad.checking.subject import Part, Subject
from fastgrad.checking.witness import witnesses
from fastgrad.line import move, restoration
from fastgrad.typing import Array

DISTANCES = (2.0**-6, 2.0**-5, 2.0**-4)
"""How far the points next to x are that are tried, in units of each array's largest element.

A fault is at all of them, a kink hardly at each.
"""

LEAST = 0.5
"""Part of the largest element of all by which small arrays are moved, such as biases near 0."""


def wrong_next_to_x(subject: Subject, noise: Noise, h: float, parts: list[Part]) -> list[Part]:
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
    subject: Subject, noise: Noise, random: np.random.Generator, slack: float
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
    subject: Subject,
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
        found = witnesses(subject, noise, h, there)
        return [
            part
            for part, witness in zip(parts, found, strict=True)
            if len(witness.contradictions(witness.part.claim))
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
