"""`check_gradient`: whether a hand-written gradient is right, and what is wrong with it if not."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastgrad.checking.diagnosis import diagnose
from fastgrad.checking.log_offset import explain_by_offset, offset_along, offset_at, sentence_of
from fastgrad.checking.noise import Noise, measure_noise, with_terms
from fastgrad.checking.numerical import largest_magnitude, numerical_gradients
from fastgrad.checking.probe import Probe, probe_element
from fastgrad.checking.random_directions import DirectionalCheck, disagreeing, length_of
from fastgrad.checking.reevaluation import (
    changed_when_asked_again,
    explain_by_kinks,
    explain_by_mode,
    explain_by_repetition,
    explained_along,
)
from fastgrad.checking.report import (
    Report,
    Row,
    in_words,
    kinks,
    precision,
    row_of,
    summary_of,
)
from fastgrad.checking.subject import (
    GradientUnderTest,
    Part,
    as_gradient_under_test,
    moved_by,
)
from fastgrad.differences.arguments import as_number, as_positive_number, require_flag, users_array
from fastgrad.differences.conversions import takes_conversions
from fastgrad.differences.guard import guarded
from fastgrad.engines.loop import require_progress, shown
from fastgrad.jit.interrupts import OutOfTimeError, ending_at
from fastgrad.typing import GradientEngineName, NetEngineName, Progress

COMPARISON_SECONDS = 30.0
"""Seconds that comparing elements takes at most, where the fast check has to, unless more are
granted."""

FULL_COMPARISON_TIME_SHARE = 0.6
"""Share of the time in which all elements are to be compared; in the rest some are, by chance."""

MIN_DIRECTION_NOISE_EPS = 4.0
"""Times eps of f's size that its noise is at least where all parameters move at once: each sample's
loss is rounded anew then, more of them than where the noise is measured, along single elements."""

BAR_DELAY = 1.0
"""Seconds from which a bar is shown."""

MAX_DRAWN_ELEMENTS = 4096
"""Elements of a part that are drawn."""

TIMEOUT_SUMMARY = "Time was over before the gradient was found right or wrong."


@takes_conversions
def check_gradient(
    f: Any,
    x: Any = None,
    gradient: Any = None,
    *,
    t: Any = None,
    h: float | None = None,
    args: tuple[Any, ...] = (),
    engine: GradientEngineName | NetEngineName = "auto",
    rtol: float = 0.0,
    fast: bool = False,
    max_seconds: float | None = None,
    progress: Progress = False,
    outside: Any = None,
) -> Report:
    """Compare a gradient with the differences of f, and say what is wrong with it.

    Each element is compared with ``(4 q(h) - q(2 h)) / 3``, from the central difference quotients
    q at two steps. It is wrong if it differs by more than the two errors which these carry
    themselves, truncation and round-off, and if f, looked at closer along that element, has no
    kink that explains it. No tolerance is chosen by hand.

    Parameters
    ----------
    f : callable, or a net
        ``f(x, *args) -> number``, as `numerical_gradient` takes it. Or an object with ``params``, a
        dict of arrays, with ``loss(x, t)`` and with ``gradient(x, t)``, as in the book.
    x : array, or dict, list or tuple of arrays; of a net: the samples of the batch
        What is moved, in place; bit-identical afterwards, whatever happens.
    gradient : array or structure like x, or callable
        What is checked, or ``gradient(x, *args)``, which returns that. A callable is asked once
        more: at x before it is called right, at a point next to x before it is called wrong. Of a
        net: its ``gradient`` by default.
    t : array, optional
        The targets, if f is a net.
    h : float, optional
        The step. By default the book's 1e-4, and a larger one where f computes in float32.
    args : tuple
        Further arguments of f.
    engine : str
        How f is differenced, as for `numerical_gradient`; for `TwoLayerNet`, one of its engines.
    rtol : float
        An error that is accepted in any case, relative to the largest element of each array.
    fast : bool
        Whether to compare along 8 random directions only, by 40 to 100 calls of f for any number of
        parameters. The report says which errors that misses how improbably. Arrays whose gradient
        does not pass are then checked in full, for 30 seconds at most if max_seconds is not given.
    max_seconds : float, optional
        How long the check may take: to within a call of f or of the gradient, and some percent.
        When it is over, the report says how many elements were compared, and what random directions
        tell of the others; it is true only if these agree.
    progress : bool or callable
        True shows a bar if the check takes longer than a second; a callable is called as
        ``progress(done, total)``, with numbers of elements: the share that is done of all stages.
    outside : exception class or tuple of such, optional
        What f raises where it is not defined, beside ValueError and OverflowError: it is nan there,
        and elements at the edge are compared on the other side.

    Returns
    -------
    Report
        Frozen; true if the gradient is right. Printed, it is a table of the largest errors, and
        what is wrong in words, each proven by evaluating f.

    Raises
    ------
    TypeError, ValueError
        If the arguments are not as described, or a gradient has another shape than its parameter.

    Notes
    -----
    What is looked for, when a gradient is wrong: a constant factor (a forgotten mean over the
    batch, a 2), a sign, a transposition, a sum over the wrong axis, a sample, a class or a unit
    that is left out, a weight decay in one of the two only, the 1e-7 in the book's cross entropy
    (which is no fault), values kept from an earlier call. Each guess is tested: corrected for it,
    every element must agree. What agrees within the differences' own errors may still be wrong by
    as much; where these are large, the report says so.

    Examples
    --------
    >>> x = np.array([1.0, 2.0, 3.0])
    >>> bool(check_gradient(lambda x: (x**2).sum(), x, lambda x: 2 * x))
    True
    >>> print(check_gradient(lambda x: (x**2).sum() / 2, x, 2 * x).findings[0])
    x: 2 times too large: look for a square in the loss whose 1/2 is missing in one of the two, \
or for something that is added twice. Corrected for that, every element agrees.
    """
    step = None if h is None else as_positive_number(h)
    accepted = as_number("rtol", rtol, "it is a relative error", "one such as 1e-06")
    if not 0 <= accepted < 1:
        raise ValueError(f"rtol is {rtol}, but it is from 0 to below 1; pass one such as 1e-6")
    require_flag("fast", fast)
    require_progress(progress)
    end = math.inf
    if max_seconds is not None:
        seconds = as_number("max_seconds", max_seconds, "it is a number", "one such as 60")
        if not 0 < seconds < 2**1000:
            raise ValueError(
                f"max_seconds is {max_seconds}, but it is positive; pass one such as 60"
            )
        end = time.monotonic() + seconds
    x = users_array(x)
    with guarded((f, gradient), moved_by(f, x), args):
        subject = as_gradient_under_test(f, x, t, gradient, args, engine, outside)
        subject.keeps_step = step is not None
        size = sum(part.x.size for part in subject.parts)
        with (
            nullcontext() if progress is False else shown(progress, size, BAR_DELAY) as report,
            np.errstate(all="ignore"),  # what f does outside of its domain
            ending_at(end),
        ):
            subject.report = report
            return _check(subject, step, accepted, end, fast=fast)


def _check(
    subject: GradientUnderTest, h: float | None, rtol: float, end: float, *, fast: bool
) -> Report:
    """Measure how exact f is, and compare all elements, or random directions first."""
    try:
        noise = measure_noise(subject, h)
    except OutOfTimeError:
        what = "Time was over before anything was compared: pass a larger max_seconds."
        return Report(False, (), (what,), TIMEOUT_SUMMARY, h or math.nan, subject.evaluations)
    comparison = Comparison(subject, noise, noise.step if h is None else h, rtol, end)
    reason = noise.why_not
    if reason is not None:
        return comparison.report("The gradient cannot be checked.", [reason], right=False)
    if fast and not subject.is_own_net:  # which is differenced in full by fewer calls
        return comparison.along_directions()
    return comparison.until_end(subject.parts)


@dataclass(frozen=True, eq=False)
class Comparison:
    """A gradient that is compared with differences, in full or as far as time allows.

    Attributes
    ----------
    subject : GradientUnderTest
    noise : Noise
        How exact values of f are.
    h : float
        The step.
    rtol : float
        An error that is accepted in any case, relative to the largest element of each array.
    end : float
        The time of `time.monotonic` at which to end.
    """

    subject: GradientUnderTest
    noise: Noise
    h: float
    rtol: float
    end: float

    def report(
        self, summary: str, findings: Sequence[str], rows: Sequence[Row] = (), *, right: bool
    ) -> Report:
        """Return a report with the step and the calls of f so far."""
        evaluations = self.subject.evaluations
        return Report(right, tuple(rows), tuple(findings), summary, self.h, evaluations)

    def of_all_elements(self, parts: Sequence[Part]) -> Report:
        """Compare every element of these parts, look closer at those that differ, and explain."""
        found = numerical_gradients(self.subject, self.noise, self.h, parts, self.rtol)
        suspected = [numerical for numerical in found if len(numerical.suspicious())]
        if suspected:
            self.subject.find_batch()
        agreeing = [numerical for numerical in found if numerical not in suspected]
        explanation, names = explain_by_offset(suspected, agreeing), list[str]()
        try:
            for explain in (explain_by_mode, explain_by_repetition, explain_by_kinks):
                explanation = explanation.then(explain)
            if not explanation.is_complete:
                names = diagnose(explanation.wrong, explanation.among(found))
        except OutOfTimeError:
            names = [
                "Time was over before it was found out what is wrong, or whether f has kinks at x."
            ]
        compared, wrong = explanation.among(found), explanation.wrong
        if not wrong:
            asked = explanation.right[-1].subject if explanation.right else self.subject
            changed, names = self._asked_again(asked, [each.part for each in compared])
            wrong = [each for each in compared if each.name in changed]
        right = [numerical for numerical in compared if numerical not in wrong]
        sentences = [*explanation.sentences, *names, *kinks(right, self.h)]
        with suppress(OutOfTimeError):  # the gradients have been compared
            sentences += precision(right, self.noise, self.h)
        others = [part.name for part in self.subject.parts if part not in parts]
        return self.report(
            summary_of(right, wrong, others),
            sentences,
            [row_of(each, "wrong" if each in wrong else "right") for each in compared],
            right=not wrong,
        )

    def until_end(
        self, parts: Sequence[Part], directions: DirectionalCheck | None = None
    ) -> Report:
        """Compare every element of these parts; if time does not suffice, some of them.

        Parameters
        ----------
        parts : sequence of Part
        directions : DirectionalCheck, optional
            What was measured along directions.
        """
        try:
            with ending_at(_share_of_time(self.end)):
                return self.of_all_elements(parts)
        except OutOfTimeError:
            return self.of_some_elements(parts, directions)

    def along_directions(self) -> Report:
        """Compare along random directions, and in full where they disagree."""
        random = np.random.default_rng()
        directions = self._directions(random)
        parts, explained, end = directions.parts, None, self.end
        try:
            directions.measure()
            if not directions.agrees:
                end = min(end, time.monotonic() + COMPARISON_SECONDS) if math.isinf(end) else end
                with ending_at(_share_of_time(end)):
                    self.subject.find_batch()
                    explained = explained_along(directions, random)
                    directions.is_unexplained = explained is None
                    if explained is None:
                        parts = disagreeing(directions, random)
        except OutOfTimeError:
            with ending_at(end):
                return self.of_some_elements(parts, directions)
        if directions.agrees:
            explained = "The gradient is right along random directions.", directions, []
        if explained is not None:
            summary, agreeing, findings = explained
            changed, sentences = self._asked_again(agreeing.subject, agreeing.subject.parts)
            if changed:
                summary = f"The gradient of {in_words(changed)} is wrong."
                return self.report(summary, sentences, right=False)
            return self.report(summary, [agreeing.summary(), *findings], right=True)
        with ending_at(end):
            return replace(self, end=end).until_end(parts, directions)

    def _asked_again(
        self, subject: GradientUnderTest, parts: Sequence[Part]
    ) -> tuple[list[str], list[str]]:
        """Return which gradients are others at the second call, and a sentence; none without time.

        Those of net and loss as they are in the mode in which the gradient was found right.
        """
        with suppress(OutOfTimeError), ending_at(self.end):
            return changed_when_asked_again(subject, parts, self.rtol)
        return [], []

    def _directions(self, random: np.random.Generator) -> DirectionalCheck:
        """Return random directions along which the gradient is compared, with what may differ."""
        parts = [part for part in self.subject.parts if part.x.size]
        noise = with_terms(self.noise, parts, [part.analytic for part in parts])
        least = MIN_DIRECTION_NOISE_EPS * noise.eps * noise.height
        noise = replace(noise, level=max(noise.level, least))
        slack = self.rtol * length_of(parts)
        return DirectionalCheck.drawn(self.subject, parts, noise, slack, random)

    def of_some_elements(
        self, parts: Sequence[Part], directions: DirectionalCheck | None
    ) -> Report:
        """Compare along directions, if that was not done, then single elements until time is over.

        Parameters
        ----------
        parts : sequence of Part
            Those whose elements are compared, drawn at random.
        directions : DirectionalCheck or None
            What was measured along directions.
        """
        subject, random = self.subject, np.random.default_rng()
        counts = dict.fromkeys((part.name for part in parts), 0)
        wrong: tuple[Part, int, Probe] | None = None
        is_fast, offsets = directions is not None, set[float]()
        changed, sentences = list[str](), list[str]()
        directions = directions or self._directions(random)
        try:
            if not is_fast:
                directions.measure()
            if directions.agrees:
                changed, sentences = self._asked_again(subject, parts)
            if directions.refutes and not directions.is_unexplained:
                directions.is_unexplained = offset_along(directions) is None
            looked_at = [] if changed else parts
            places = [(part, place) for part in looked_at for place in _drawn(part, random)]
            for k in random.permutation(len(places)).tolist():
                part, place = places[k]
                analytic = float(part.analytic[place])
                seen = probe_element(subject, part, place, analytic, directions.noise, self.h)
                counts[part.name] += 1
                accepted = self.rtol * largest_magnitude(part.analytic)
                if seen.contradicts and not abs(seen.value - analytic) <= accepted:
                    offset = offset_at(subject, part, place, directions.noise, self.h)
                    if offset is None:
                        wrong = (part, place, seen)
                        break
                    offsets.add(offset)
        except OutOfTimeError:
            pass
        findings = [_compared(parts, counts, is_fast=is_fast)]
        if directions.agrees:
            findings.append(directions.summary())
        findings += [f"Those that differ are {sentence_of(d, subject)}" for d in offsets]
        right = directions.agrees and wrong is None and not changed
        if changed:
            findings = sentences
            summary = f"The gradient of {in_words(changed)} is wrong."
        elif wrong is not None:
            part, place, seen = wrong
            summary = f"The gradient of {part.name} is wrong."
            findings.insert(
                0,
                f"{part.element(place)} is {part.analytic[place]:.6g}, but the differences give "
                f"{seen.value:.6g}.",
            )
        elif directions.refutes and directions.is_unexplained:
            summary = "The gradient is wrong along random directions."
        elif right:
            summary = "The gradient is right along random directions."
        else:
            summary = TIMEOUT_SUMMARY
        return self.report(summary, findings, right=right)


def _share_of_time(end: float) -> float:
    """Return until when all elements may be compared, or an explanation be looked for."""
    now = time.monotonic()
    return now + FULL_COMPARISON_TIME_SHARE * (end - now)


def _drawn(part: Part, random: np.random.Generator) -> list[int]:
    """Return elements of a part, drawn at random, in C order's numbers."""
    count = min(part.x.size, MAX_DRAWN_ELEMENTS)
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
