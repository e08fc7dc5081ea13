"""How is a gradient compared with differences? In full, or along random directions first."""

from collections.abc import Sequence

import numpy as np

from fastgrad.checking.directions import (
    COUNT,
    disagreeing,
    draw,
    measure,
    sentence,
)
from fastgrad.checking.findings import Findings
from fastgrad.checking.noise import Noise, measure_noise
from fastgrad.checking.offset import offset_along, sentence_of
from fastgrad.checking.report import Report
from fastgrad.checking.rows import row_of
from fastgrad.checking.subject import Part, Subject
from fastgrad.checking.witness import largest_magnitude, witnesses


def compare(subject: Subject, h: float | None, rtol: float, *, fast: bool) -> Report:
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
    """
    noise = measure_noise(subject, h)
    reason = _why_not(noise)
    if reason is not None:
        return Report(
            False, (), (reason,), "The gradient cannot be checked.", noise.step, subject.evaluations
        )
    if fast and not subject.is_own_net:  # which is differenced in full by fewer calls
        return _check_fast(subject, noise, h, rtol)
    return _check_parts(subject, noise, h, rtol, subject.parts)


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


def _check_fast(subject: Subject, noise: Noise, h: float | None, rtol: float) -> Report:
    """Compare along random directions, and in full where they disagree."""
    random = np.random.default_rng()
    parts = [part for part in subject.parts if part.x.size]
    length = float(np.sqrt(sum(float(part.claim @ part.claim) for part in parts)))
    lines = [draw(parts, random) for _ in range(COUNT)]
    directions = [measure(subject, parts, line, noise) for line in lines]
    slack = rtol * length
    summary = "The gradient is right along random directions."
    findings = [sentence(directions, length)]
    if not all(direction.agrees(slack) for direction in directions):
        offset = offset_along(subject, parts, lines, directions, noise, slack)
        if offset is None:
            return _check_parts(subject, noise, h, rtol, disagreeing(subject, noise, random, slack))
        findings.append(f"It is {sentence_of(offset, subject)}")
    return Report(True, (), tuple(findings), summary, noise.step, subject.evaluations)


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
