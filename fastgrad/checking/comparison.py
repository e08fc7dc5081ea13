"""The comparison of a gradient with differences: in full, or along random directions first."""

import math
import time
from collections.abc import Sequence

import numpy as np

from fastgrad.checking.findings import Findings
from fastgrad.checking.log_offset import offset_along, sentence_of
from fastgrad.checking.noise import Noise, measure_noise, with_terms
from fastgrad.checking.numerical import largest_magnitude, numerical_gradients
from fastgrad.checking.random_directions import DirectionalCheck, disagreeing, length_of
from fastgrad.checking.reevaluation import next_to_x, other_modes
from fastgrad.checking.report import Report, row_of
from fastgrad.checking.sampled import UNDECIDED, check_some
from fastgrad.checking.subject import GradientUnderTest, Part
from fastgrad.interrupts import OutOfTimeError, ending_at

ESCALATED = 30.0
"""Seconds that comparing elements takes at most, where the fast check has to, unless more are
granted."""

WHOLE = 0.6
"""Share of the time in which all elements are to be compared; in the rest some are, by chance."""


def compare(
    subject: GradientUnderTest, h: float | None, rtol: float, *, fast: bool, end: float = math.inf
) -> Report:
    """Return what `fastgrad.check_gradient` does, once its arguments are checked.

    Parameters
    ----------
    subject : GradientUnderTest
    h : float or None
        The step; None if it is to suit f.
    rtol : float
        An error that is accepted in any case, relative to the largest element of each array.
    fast : bool
        Whether random directions are enough, if they agree.
    end : float
        The time of `time.monotonic` at which to end.
    """
    subject.keeps_step = h is not None
    with np.errstate(all="ignore"), ending_at(end):  # what f does outside of its domain
        try:
            noise = measure_noise(subject, h)
        except OutOfTimeError:
            what = "Time was over before anything was compared: pass a larger max_seconds."
            return Report(False, (), (what,), UNDECIDED, h or math.nan, subject.evaluations)
        reason = _why_not(noise)
        if reason is not None:
            summary = "The gradient cannot be checked."
            return Report(False, (), (reason,), summary, noise.step, subject.evaluations)
        if fast and not subject.is_own_net:  # which is differenced in full by fewer calls
            return _check_fast(subject, noise, h, rtol, end)
        return _check_until(subject, noise, h, rtol, subject.parts, end)


def _check_until(
    subject: GradientUnderTest,
    noise: Noise,
    h: float | None,
    rtol: float,
    parts: Sequence[Part],
    end: float,
    check: DirectionalCheck | None = None,
) -> Report:
    """Compare every element of these parts; if time does not suffice, some of them.

    Parameters
    ----------
    end : float
        The time of `time.monotonic` to stop at.
    check : DirectionalCheck, optional
        What was measured along directions.
    """
    try:
        with ending_at(_share_of_time(end)):
            return _check_parts(subject, noise, h, rtol, parts)
    except OutOfTimeError:
        return check_some(subject, noise, noise.step if h is None else h, rtol, parts, check)


def _share_of_time(end: float) -> float:
    """Return until when all elements may be compared, or an explanation be looked for."""
    now = time.monotonic()
    return now + WHOLE * (end - now)


def _check_parts(
    subject: GradientUnderTest,
    noise: Noise,
    h: float | None,
    rtol: float,
    parts: Sequence[Part],
) -> Report:
    """Compare every element of these parts."""
    step = noise.step if h is None else h
    found = numerical_gradients(subject, noise, step, [*parts])
    if rtol:
        for numerical in found:
            numerical.accepted = rtol * largest_magnitude(numerical.value)
    findings = Findings(subject, noise, step, found)
    faulty = findings.collect()
    rows = tuple(row_of(numerical, numerical in faulty) for numerical in findings.found)
    names = [numerical.part.name for numerical in faulty]
    return Report(
        not faulty,
        rows,
        tuple(findings.sentences),
        _summary(names, [part.name for part in parts], subject, is_clear=_is_clear(findings)),
        step,
        subject.evaluations,
    )


def _check_fast(
    subject: GradientUnderTest, noise: Noise, h: float | None, rtol: float, end: float
) -> Report:
    """Compare along random directions, and in full where they disagree."""
    random = np.random.default_rng()
    parts = [part for part in subject.parts if part.x.size]
    noise = with_terms(noise, parts, [part.claim for part in parts])
    check = DirectionalCheck.drawn(subject, parts, noise, rtol * length_of(parts), random)
    explained = None
    try:
        check.measure(closer=False)
        if check.agrees:
            return _agreeing(check)
        end = min(end, time.monotonic() + ESCALATED) if math.isinf(end) else end
        with ending_at(_share_of_time(end)):
            subject.find_batch()
            check.look_closer()
            if check.agrees:
                return _agreeing(check)
            explained = explained_along(check, random)
            check.is_unexplained = explained is None
            chosen = [] if explained else disagreeing(subject, noise, random, check.slack)
    except OutOfTimeError:
        with ending_at(end):
            step = noise.step if h is None else h
            return check_some(subject, noise, step, rtol, parts, check)
    if explained is not None:
        summary, findings = explained
        return Report(
            True, (), (check.summary(), *findings), summary, noise.step, subject.evaluations
        )
    with ending_at(end):
        return _check_until(subject, noise, h, rtol, chosen, end, check)


def _agreeing(check: DirectionalCheck) -> Report:
    summary = "The gradient is right along random directions."
    step, evaluations = check.noise.step, check.subject.evaluations
    return Report(True, (), (check.summary(),), summary, step, evaluations)


def explained_along(
    check: DirectionalCheck, random: np.random.Generator
) -> tuple[str, tuple[str, ...]] | None:
    """Return a summary and findings, if what differs along directions is no fault."""
    subject, right = check.subject, "The gradient is right along random directions"
    offset = offset_along(check)
    if offset is not None:
        return f"{right}.", (f"It is {sentence_of(offset, subject)}",)
    for mode in other_modes(subject):
        there = check.of(mode.subject).measure()
        if there.agrees:
            return f"{right} of the loss in training mode.", (mode.sentence,)
        offset = offset_along(there)
        if offset is not None:
            return f"{right} of the loss in training mode.", (
                mode.sentence,
                f"It is {sentence_of(offset, mode.subject)}",
            )
    if check.has_kinks:
        agrees, offset = next_to_x(subject, check.noise, random, check.slack)
        if agrees:
            kinks = (
                "x is where f has a kink, such as ReLU units at 0: there random directions tell "
                "nothing. fast=False compares every element at x itself."
            )
            more = () if offset is None else (f"It is {sentence_of(offset, subject)}",)
            return f"{right} at points next to x.", (kinks, *more)
    return None


def _is_clear(findings: Findings) -> bool:
    """Return whether the differences could tell of each element that was looked at."""
    probes = [probe for numerical in findings.found for probe in numerical.probes.values()]
    return all(probe.kind != "unclear" for probe in probes)


def _summary(
    wrong: list[str], checked: list[str], subject: GradientUnderTest, *, is_clear: bool
) -> str:
    """Say which gradients are wrong and which are right."""
    right = [name for name in checked if name not in wrong]
    others = [part.name for part in subject.parts if part.name not in checked]
    if not wrong and not is_clear:
        text = "The gradient is right, as far as the differences can tell."
    elif not wrong:
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
