"""The comparison of as many elements, drawn at random, as time allows."""

from collections.abc import Sequence

import numpy as np

from fastgrad.checking.log_offset import OFFSETS, offset_along, sentence_of, without_offset
from fastgrad.checking.noise import Noise, with_terms
from fastgrad.checking.numerical import largest_magnitude
from fastgrad.checking.probe import Probe, probe_element
from fastgrad.checking.random_directions import DirectionalCheck, length_of
from fastgrad.checking.report import Report
from fastgrad.checking.subject import GradientUnderTest, Part, index_text
from fastgrad.interrupts import OutOfTimeError

UNDECIDED = "Time was over before the gradient was found right or wrong."

MOST = 4096
"""Elements of a part that are drawn."""


def check_some(
    subject: GradientUnderTest,
    noise: Noise,
    h: float,
    rtol: float,
    parts: Sequence[Part],
    check: DirectionalCheck | None,
) -> Report:
    """Compare along directions, if that was not done, then single elements until time is over.

    Parameters
    ----------
    subject, noise, h, rtol
        As the comparison of all elements takes them.
    parts : sequence of Part
        Those whose elements are compared.
    check : DirectionalCheck or None
        What was measured along directions.
    """
    random = np.random.default_rng()
    noise = with_terms(noise, parts, [part.claim for part in parts])
    counts = dict.fromkeys((part.name for part in parts), 0)
    wrong: tuple[Part, Probe] | None = None
    is_fast, explained = check is not None, set[float]()
    if check is None:
        moved = [part for part in subject.parts if part.x.size]
        check = DirectionalCheck.drawn(subject, moved, noise, rtol * length_of(moved), random)
    try:
        if not is_fast:
            check.measure()
        if check.refutes and not check.is_unexplained:
            check.is_unexplained = offset_along(check) is None
        places = [(part, place) for part in parts for place in _drawn(part, random)]
        for k in random.permutation(len(places)).tolist():
            part, place = places[k]
            seen = probe_element(subject, part, place, float(part.claim[place]), noise, h)
            counts[part.name] += 1
            error = abs(seen.value - float(part.claim[place]))
            if seen.contradicts and not error <= rtol * largest_magnitude(part.claim):
                offset = _offset_at(subject, part, place, noise, h)
                if offset is None:
                    wrong = (part, seen)
                    break
                explained.add(offset)
    except OutOfTimeError:
        pass
    findings = [_compared(parts, counts, is_fast=is_fast)]
    if check.agrees:
        findings.append(check.summary())
    findings += [f"Those that differ are {sentence_of(d, subject)}" for d in explained]
    if wrong is not None:
        part, seen = wrong
        where = index_text(part.name, part.index(seen.place))
        summary = f"The gradient of {part.name} is wrong."
        findings.insert(
            0,
            f"{where} is {part.claim[seen.place]:.6g}, but the differences give {seen.value:.6g}.",
        )
    elif check.refutes and check.is_unexplained:
        summary = "The gradient is wrong along random directions."
    elif check.agrees:
        summary = "The gradient is right along random directions."
    else:
        summary = UNDECIDED
    right = check.agrees and wrong is None
    return Report(right, (), tuple(findings), summary, h, subject.evaluations)


def _offset_at(
    subject: GradientUnderTest, part: Part, place: int, noise: Noise, h: float
) -> float | None:
    """Return the number under the logarithm without which f does not contradict an element."""
    for offset in OFFSETS:
        other = without_offset(subject, offset)
        for same in () if other is None else other.parts:
            if other is not None and same.name == part.name:
                claim = float(part.claim[place])
                if not probe_element(other, same, place, claim, noise, h).contradicts:
                    return offset
    return None


def _drawn(part: Part, random: np.random.Generator) -> list[int]:
    count = min(part.x.size, MOST)
    chosen: list[int] = random.choice(part.x.size, count, replace=False).tolist()
    return chosen


def _compared(parts: Sequence[Part], counts: dict[str, int], *, is_fast: bool) -> str:
    """Say how much was compared."""
    shares = ", ".join(f"{counts[part.name]:,} of {part.name}'s {part.x.size:,}" for part in parts)
    remedy = "" if is_fast else ", or fast=True for random directions alone"
    return (
        f"Time was over before all elements were compared: only {shares} were, drawn at random. "
        f"Nothing is known of single elements among the others. Pass a larger max_seconds to "
        f"compare more{remedy}."
    )
