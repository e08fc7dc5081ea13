"""The comparison of a gradient with differences: in full, or along random directions first."""

import math
import time
from collections.abc import Sequence

import numpy as np

from fastgrad.checking.directions import (
    COUNT,
    Direction,
    disagreeing,
    draw,
    measure,
    sentence,
    step_along,
)
from fastgrad.checking.findings import Findings
from fastgrad.checking.modes import other_modes
from fastgrad.checking.neighbour import next_to_x
from fastgrad.checking.noise import Noise, measure_noise, with_terms
from fastgrad.checking.offset import offset_along, sentence_of
from fastgrad.checking.report import Report
from fastgrad.checking.rows import row_of
from fastgrad.checking.some import check_some
from fastgrad.checking.subject import OutOfTimeError, Part, Subject
from fastgrad.checking.witness import largest_magnitude, witnesses
from fastgrad.typing import Array

ESCALATED = 30.0
"""Seconds that comparing elements takes at most, where the fast check has to, unless more are
granted."""

WHOLE = 0.6
"""Share of the time in which all elements are to be compared; in the rest some are, by chance."""


def compare(
    subject: Subject, h: float | None, rtol: float, *, fast: bool, max_seconds: float | None = None
) -> Report:
    """Return what `fastgrad.check_gradient` does, once its arguments are checked.

    Parameters
    ----------
    subject : Subject
    h : float or None
        The step; None if it is to suit f.
    rtol : float
        An error that is accepted in any case, relative to the largest element of each array.
    fast : bool
        Whether random directions are enough, if they agree.
    max_seconds : float or None
        What comparing elements may take.
    """
    end = math.inf if max_seconds is None else time.monotonic() + max_seconds
    subject.keeps_step = h is not None
    with np.errstate(all="ignore"):  # overflows, and what f does outside of its domain
        return _compare(subject, h, rtol, fast, max_seconds, end)


def _compare(
    subject: Subject,
    h: float | None,
    rtol: float,
    fast: bool,
    max_seconds: float | None,
    end: float,
) -> Report:
    noise = measure_noise(subject, h)
    reason = _why_not(noise)
    if reason is not None:
        return Report(
            False, (), (reason,), "The gradient cannot be checked.", noise.step, subject.evaluations
        )
    if fast and not subject.is_own_net:  # which is differenced in full by fewer calls
        allowed = end if max_seconds is not None else time.monotonic() + ESCALATED
        return _check_fast(subject, noise, h, rtol, allowed)
    return _check_until(subject, noise, h, rtol, subject.parts, end)


def _check_until(
    subject: Subject,
    noise: Noise,
    h: float | None,
    rtol: float,
    parts: Sequence[Part],
    end: float,
    along: Sequence[Direction] | None = None,
) -> Report:
    """Compare every element of these parts; if time does not suffice, some of them.

    Parameters
    ----------
    end : float
        The time of `time.monotonic` to stop at.
    along : sequence of Direction, optional
        What was measured along directions.
    """
    now = time.monotonic()
    subject.deadline = now + WHOLE * (end - now)
    try:
        return _check_parts(subject, noise, h, rtol, parts)
    except OutOfTimeError:
        subject.deadline = end
    return check_some(subject, noise, noise.step if h is None else h, rtol, parts, along)


def _check_parts(
    subject: Subject,
    noise: Noise,
    h: float | None,
    rtol: float,
    parts: Sequence[Part],
) -> Report:
    """Compare every element of these parts."""
    step = noise.step if h is None else h
    found = witnesses(subject, noise, step, [*parts])
    if rtol:
        for witness in found:
            witness.accepted = rtol * largest_magnitude(witness.value)
    findings = Findings(subject, noise, step, found)
    faulty = findings.collect()
    rows = tuple(row_of(witness, witness in faulty) for witness in findings.found)
    names = [witness.part.name for witness in faulty]
    return Report(
        not faulty,
        rows,
        tuple(findings.sentences),
        _summary(names, [part.name for part in parts], subject),
        step,
        subject.evaluations,
    )


def _check_fast(subject: Subject, noise: Noise, h: float | None, rtol: float, end: float) -> Report:
    """Compare along random directions, and in full where they disagree."""
    random = np.random.default_rng()
    parts = [part for part in subject.parts if part.x.size]
    with np.errstate(all="ignore"):
        length = float(np.sqrt(sum(float(part.claim @ part.claim) for part in parts)))
    noise = with_terms(noise, parts, [part.claim for part in parts])
    lines = [draw(parts, random, subject, step_along(noise)) for _ in range(COUNT)]
    slack = rtol * length
    directions = [measure(subject, parts, line, noise, slack, closer=False) for line in lines]
    summary = "The gradient is right along random directions."
    if all(direction.verdict == "agrees" for direction in directions):
        what = sentence(directions, length)
        return Report(True, (), (what,), summary, noise.step, subject.evaluations)
    subject.find_batch()
    subject.deadline = end
    try:
        directions = _closer(subject, parts, lines, directions, noise, slack)
        if all(direction.verdict == "agrees" for direction in directions):
            what = sentence(directions, length)
            return Report(True, (), (what,), summary, noise.step, subject.evaluations)
        explained = explained_along(subject, parts, lines, directions, noise, slack, random)
        chosen = [] if explained else disagreeing(subject, noise, random, slack)
    except OutOfTimeError:
        return check_some(subject, noise, noise.step if h is None else h, rtol, parts, directions)
    if explained is not None:
        summary, findings = explained
        findings = (sentence(directions, length), *findings)
        return Report(True, (), findings, summary, noise.step, subject.evaluations)
    return _check_until(subject, noise, h, rtol, chosen, end, directions)


def _closer(
    subject: Subject,
    parts: Sequence[Part],
    lines: Sequence[Sequence[Array]],
    directions: Sequence[Direction],
    noise: Noise,
    slack: float,
) -> list[Direction]:
    """Return the directions, those that are unclear looked at closer; as far as no kink is at x.

    A kink at x, such as units at 0, is one along nearly all directions.
    """
    found: list[Direction] = []
    for line, direction in zip(lines, directions, strict=True):
        if direction.verdict == "kink" and not any(each.verdict == "kink" for each in found):
            direction = measure(subject, parts, line, noise, slack)
        found.append(direction)
    return found


def explained_along(
    subject: Subject,
    parts: Sequence[Part],
    lines: Sequence[Sequence[Array]],
    directions: Sequence[Direction],
    noise: Noise,
    slack: float,
    random: np.random.Generator,
) -> tuple[str, tuple[str, ...]] | None:
    """Return a summary and findings, if what differs along directions is no fault."""
    right = "The gradient is right along random directions"
    offset = offset_along(subject, parts, lines, directions, noise, slack)
    if offset is not None:
        return f"{right}.", (f"It is {sentence_of(offset, subject)}",)
    for mode in other_modes(subject):
        others = [part for part in mode.subject.parts if part.x.size]
        there = [measure(mode.subject, others, line, noise, slack) for line in lines]
        if all(direction.verdict == "agrees" for direction in there):
            return f"{right} of the loss in training mode.", (mode.sentence,)
        offset = offset_along(mode.subject, others, lines, there, noise, slack)
        if offset is not None:
            return f"{right} of the loss in training mode.", (
                mode.sentence,
                f"It is {sentence_of(offset, mode.subject)}",
            )
    if any(direction.verdict == "kink" for direction in directions):
        agrees, offset = next_to_x(subject, noise, random, slack)
        if agrees:
            kinks = (
                "x is where f has a kink, such as ReLU units at 0: there random directions tell "
                "nothing. fast=False compares every element at x itself."
            )
            more = () if offset is None else (f"It is {sentence_of(offset, subject)}",)
            return f"{right} at points next to x.", (kinks, *more)
    return None


def _summary(wrong: list[str], checked: list[str], subject: Subject) -> str:
    """Say which gradients are wrong and which are right."""
    right = [name for name in checked if name not in wrong]
    others = [part.name for part in subject.parts if part.name not in checked]
    if not wrong:
        text = "The gradient is right."
    elif not right and not others:
        text = "The gradient is wrong" + (f": {_list(wrong)}." if len(wrong) > 1 else ".")
    else:
        text = f"The gradient of {_list(wrong)} is wrong"
        text += f", that of {_list(right)} is right." if right else "."
    if others:
        text += f" {_list(others)} agreed along random directions."
    return text


def _list(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _why_not(noise: Noise) -> str | None:
    """Return why f cannot be differenced at all, if so."""
    first, second = noise.values
    if not np.isfinite(first):
        return f"f is {first} at x, so it has no differences there."
    if not noise.repeats:
        return (
            f"f is not deterministic: two calls at the same x gave {first:.10g} and "
            f"{second:.10g}. Dropout, random augmentation, a state that f changes? Fix the random "
            "seed in each call, or switch it off."
        )
    return None
