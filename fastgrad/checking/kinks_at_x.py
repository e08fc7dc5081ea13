"""Whether f has a kink at x: by the operations that f is made of, or by both sides of x.

Kinks whose effects cancel in f, as those of ``relu(x) - relu(-x)`` at 0, show in no value of f. But
an operation of f decides there by a sign that x leaves open, or by the largest of equal numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from fastgrad.checking.noise import STEP, Noise
from fastgrad.checking.random_directions import check_direction, random_direction
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.lazy import LazyModule

if TYPE_CHECKING:
    from fastgrad.tracing import first_calls, recorder, smoothness, trace
    from fastgrad.tracing.operations import Node
else:  # loaded only if a gradient is right next to x alone
    first_calls = LazyModule("fastgrad.tracing.first_calls")
    recorder = LazyModule("fastgrad.tracing.recorder")
    smoothness = LazyModule("fastgrad.tracing.smoothness")
    trace = LazyModule("fastgrad.tracing.trace")

GAPS = frozenset({"equal", "not_equal", "divide", "log1p", "power", "std"})
"""What says of a single number that f is another one there, or has none; beside poles at 0."""

NEAR_EPS = 64.0
"""Times eps of its type, in units of the largest, that what an operation decides by is rounded."""

DIRECTIONS = 4
"""Random directions along which both sides are asked, where operations tell of no kink."""


def may_have_kink(subject: GradientUnderTest, part: Part, noise: Noise) -> bool:
    """Say whether f has a kink where it is moved along an array, as far as it can be told.

    Where f is coarse, as in float32, kinks that are next to x cannot be told from smooth curves.
    """
    if noise.is_coarse:
        return True
    f, x = part.problem.f, part.x
    try:
        nodes, _ = trace.record_call(f, x, STEP, first_calls.FirstCalls(f, x))
    except recorder.NotTraceable:
        nodes = []
    eps = NEAR_EPS * float(np.finfo(x.dtype).eps)
    if any(_is_at_kink(node, eps) for node in nodes if node.arguments):
        return True
    random = np.random.default_rng(0)
    directions = (random_direction([part], random, subject) for _ in range(DIRECTIONS))
    found = [check_direction(subject, [part], v, noise) for v in directions]
    return any(probe.kind in ("kink", "jump", "unclear") for probe in found)


def _is_at_kink(node: Node, eps: float) -> bool:
    """Say whether an operation decides by what is 0, or by the largest of equal numbers.

    Up to a share eps of the largest number that it is given.
    """
    name = smoothness.name_of(node)
    if name in GAPS or name in smoothness.POLES_AT_ZERO:
        return False
    chosen = node.value.size if name in smoothness.EXTREMA else 0
    return any(
        np.count_nonzero(abs(margin.distance) <= eps * abs(margin.quantity.value).max(initial=0.0))
        > chosen
        for margin in smoothness.margins(node)
    )
