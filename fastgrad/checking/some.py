"""The comparison of as many elements, drawn at random, as time allows."""

from collections.abc import Sequence

import numpy as np

from fastgrad.checking.directions import COUNT, Direction, draw, measure, step_along
from fastgrad.checking.noise import Noise, with_terms
from fastgrad.checking.report import Report
from fastgrad.checking.subject import OutOfTimeError, Part, Subject, index_text
from fastgrad.checking.suspects import Look, look
from fastgrad.checking.witness import largest_magnitude


def check_some(
    subject: Subject,
    noise: Noise,
    h: float,
    rtol: float,
    parts: Sequence[Part],
    along: Sequence[Direction] | None,
) -> Report:
    """Compare along directions, if that was not done, then single elements until time is over.

    Parameters
    ----------
    subject, noise, h, rtol
        As the comparison of all elements takes them.
    parts : sequence of Part
        Those whose elements are compared.
    along : sequence of Direction or None
        What was measured along directions, of all parts.
    """
    random = np.random.default_rng()
    noise = with_terms(noise, parts, [part.claim for part in parts])
    counts = dict.fromkeys((part.name for part in parts), 0)
    wrong: tuple[Part, Look] | None = None
    found = [*(along or [])]
    try:
        if along is None:
            found = _along(subject, noise, random, rtol)
        places = [(part, place) for part in parts for place in _drawn(part, random)]
        for k in random.permutation(len(places)).tolist():
            part, place = places[k]
            seen = look(subject, part, place, float(part.claim[place]), noise, h)
            counts[part.name] += 1
            error = abs(seen.value - float(part.claim[place]))
            if seen.contradicts and not error <= rtol * largest_magnitude(part.claim):
                wrong = (part, seen)
                break
    except OutOfTimeError:
        pass
    agree = bool(found) and all(direction.verdict == "agrees" for direction in found)
    refuted = any(direction.verdict == "refuted" for direction in found)
    findings = [_sentence(parts, counts)]
    if wrong is not None:
        part, seen = wrong
        where = index_text(part.name, part.index(seen.place))
        summary = f"The gradient of {part.name} is wrong."
        findings.insert(
            0,
            f"{where} is {part.claim[seen.place]:.6g}, but the differences give {seen.value:.6g}.",
        )
    elif refuted:
        summary = "The gradient is wrong along random directions."
    elif agree:
        summary = "The gradient is right along random directions."
    else:
        summary = "Time was over before the gradient was found right or wrong."
    return Report(agree and wrong is None, (), tuple(findings), summary, h, subject.evaluations)


MOST = 4096
"""Elements of a part that are drawn."""


def _drawn(part: Part, random: np.random.Generator) -> list[int]:
    count = min(part.x.size, MOST)
    chosen: list[int] = random.choice(part.x.size, count, replace=False).tolist()
    return chosen


def _along(
    subject: Subject, noise: Noise, random: np.random.Generator, rtol: float
) -> list[Direction]:
    parts = [part for part in subject.parts if part.x.size]
    slack = rtol * float(np.sqrt(sum(float(part.claim @ part.claim) for part in parts)))
    s = step_along(noise)
    lines = [draw(parts, random, subject, s) for _ in range(COUNT)]
    return [measure(subject, parts, line, noise, slack) for line in lines]


def _sentence(parts: Sequence[Part], counts: dict[str, int]) -> str:
    """Say how much was compared."""
    shares = ", ".join(f"{counts[part.name]:,} of {part.name}'s {part.x.size:,}" for part in parts)
    return (
        f"Time was over before all elements were compared: only {shares} were, drawn at random. "
        "Pass a larger max_seconds to compare more, or fast=True for random directions alone."
    )
