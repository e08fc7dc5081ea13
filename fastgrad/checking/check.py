"""Is a hand-written gradient right, and if not, whose fault is it? `check_gradient` says so."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.directions import (
    COUNT,
    disagreeing,
    draw,
    measure,
    sentence,
)
from fastgrad.checking.findings import Findings
from fastgrad.checking.forms import as_subject
from fastgrad.checking.noise import Noise, measure_noise
from fastgrad.checking.offset import offset_along, sentence_of
from fastgrad.checking.report import Report
from fastgrad.checking.rows import row_of
from fastgrad.checking.subject import Part, Subject
from fastgrad.checking.witness import largest_magnitude, witnesses
from fastgrad.steps import as_positive_number

Array = NDArray[Any]


def check_gradient(
    f: Any,
    x: Any = None,
    gradient: Any = None,
    *,
    t: Any = None,
    h: float | None = None,
    args: tuple[Any, ...] = (),
    engine: str = "auto",
    rtol: float = 0.0,
    fast: bool = False,
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
        more, at a point next to x, before it is called wrong. Of a net: its ``gradient`` by
        default.
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
        Whether to compare along 8 random directions only, by about 60 calls of f for any number of
        parameters. The report says which errors that misses how improbably. Arrays whose gradient
        does not pass are then checked in full.

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
    accepted = _as_tolerance(rtol)
    subject = as_subject(f, x, t, gradient, args, engine)
    noise = measure_noise(subject, step)
    reason = _why_not(noise)
    if reason is not None:
        return Report(
            False, (), (reason,), "The gradient cannot be checked.", noise.step, subject.evaluations
        )
    if fast and not subject.is_own_net:  # which is differenced in full by fewer calls
        return _check_fast(subject, noise, step, accepted)
    return _check_parts(subject, noise, step, accepted, subject.parts)


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


def _as_tolerance(rtol: object) -> float:
    if isinstance(rtol, bool) or not isinstance(rtol, int | float | np.floating):
        raise TypeError(f"rtol is {rtol!r}, but it is a relative error; pass one such as 1e-6")
    if not 0 <= rtol < 1:
        raise ValueError(f"rtol is {rtol}, but it is from 0 to below 1; pass one such as 1e-6")
    return float(rtol)
