"""Whether a gradient is the loop's, to the round-off of f itself, and f's objects are as they were.

Of a sequence of calls each is judged by itself, by the loop on a namespace that is built anew:
whatever the engine keeps from call to call must be right for what has changed since then.

Where the two differ by more than a few eps abs(f) / h, f's own round-off is measured: f is
evaluated in extended precision, and the loop is run again with all data moved by a little. A
quotient that moves by as much by itself is noise, or stands at a tie, where the last bit decides:
it is *excused*.
"""

import collections
import re
import time
import types
import warnings
from dataclasses import dataclass

import numpy as np

from fastgrad import numerical_gradient
from fastgrad.engines import loop, traced
from fastgrad.jit import jitted
from fastgrad.tracing import first_calls
from fastgrad.tracing.recorder import NotTraceable
from fastgrad.tracing.trace import trace_call

from .program import SCHEMES, data_of

EPS = float(np.finfo(np.float64).eps)

AGAIN = 8
"""How often the loop is run with data that are moved."""

MOVED = 4 * EPS
"""By how much, relative to the data."""

FARTHER = 2.0**-30
"""By how much they are moved to see other rounding errors: where f rounds coarsely, as ``1 - p`` of
a p near 1 does, moves of some eps meet the same ones. Only compared with extended precision."""

SPELLED = {"float32": "float32|'f4'", "float16": "float16"}
"""What less precise numbers are called in programs."""

BAD = ("wrong", "spoiled", "raised")
"""Verdicts that are faults of fastgrad."""

TIMES = 10
"""How many times its measured round-off a quotient may be off."""


@dataclass
class Verdict:
    """What came of one program.

    Attributes
    ----------
    kind : str
        "right", "refused", "wrong", "excused", "spoiled", "raised", or "unfit".
    detail : str
        The reason of a refusal, or what is wrong.
    warned : str
        What was warned of.
    seconds : float
        What the engine under test took.
    """

    kind: str
    detail: str = ""
    warned: str = ""
    seconds: float = 0.0


def judge(program, *, certify=True):
    """Return the verdict on a program; that on the first bad call, or the last one, of several.

    Parameters
    ----------
    program : Program
    certify : bool
        Whether the engine compares what it returns with f, or the analysis stands alone.
    """
    verdict, seconds = Verdict("unfit", "nothing is called"), 0.0
    try:
        here = program.start()
    except Exception as error:
        return Verdict("unfit", f"{type(error).__name__}: {error}")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, (step, called) in enumerate(program.calls):
            try:
                exec(step, here)
            except Exception as error:
                return Verdict("unfit", f"{type(error).__name__}: {error}")
            verdict = _judge_call(called, here, certify)
            seconds += verdict.seconds
            if verdict.kind in BAD or verdict.warned:
                verdict.detail += f" (call {number})" if step else ""
                if _remembers_calls(program, number):
                    verdict = Verdict("unfit", "f's value depends on its calls before")
                break
    verdict.seconds = seconds
    return verdict


def _remembers_calls(program, number):
    """Say whether f has another value in a call of a sequence where it was called before that."""
    here, calls = program.start(), program.calls[: number + 1]
    for step, _ in calls:
        exec(step, here)
        value = _function(here)(here["x"])
    plain = calls[-1][1].build()
    return not np.array_equal(value, _function(plain)(plain["x"]), equal_nan=True)


def _judge_call(program, here, certify):
    """Return the verdict on a call in a namespace in which f may have been called before."""
    try:
        plain = program.build()
        f = _function(plain)
        with warnings.catch_warnings(record=True) as usual:
            warnings.simplefilter("always")
            value = f(plain["x"])
            if not np.array_equal(value, f(plain["x"])):
                return Verdict("unfit", "f is not a function")
            expected = _loop(program, plain)
    except Exception as error:  # whatever the program does
        return Verdict("unfit", f"{type(error).__name__}: {error}")
    before = [array.copy(order="K") for array in _constants(here)]
    start = time.perf_counter()
    try:
        got, said = _gradient(program, here, certify)
        known = {str(warning.message) for warning in usual}
        if not np.any(expected):
            said = [message for message in said if "f does not depend on x" not in message]
        verdict = Verdict("right", warned="; ".join(m for m in said if m not in known))
    except ValueError as refusal:
        if not re.search("cannot be traced|cannot serve f", str(refusal)):
            return Verdict("raised", f"ValueError: {refusal}")
        verdict = Verdict("refused", str(refusal.__cause__ or refusal))
    except Exception as error:  # which f itself does not raise
        return Verdict("raised", f"{type(error).__name__}: {error}")
    verdict.seconds = time.perf_counter() - start
    if verdict.kind == "right":
        verdict.kind, verdict.detail = compared(program, got, expected, value)
    spoiled = _spoiled(here, before, value)
    if spoiled and verdict.kind != "wrong":
        verdict.kind, verdict.detail = "spoiled", spoiled
    return verdict


def _gradient(program, namespace, certify):
    """Return the gradient under test, and a list of what it warns of."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        held = traced.CERTIFY, jitted.LANES_SECONDS, first_calls.MIN_TRACING_SECONDS
        traced.CERTIFY, first_calls.MIN_TRACING_SECONDS = certify, 0.0
        if program.lanes:
            jitted.LANES_SECONDS = -np.inf
        try:
            result = numerical_gradient(
                namespace["f"], namespace["x"], program.h, engine=program.engine,
                args=namespace.get("ARGUMENTS", ()), scheme=SCHEMES[program.scheme],
            )  # fmt: skip
        finally:
            traced.CERTIFY, jitted.LANES_SECONDS, first_calls.MIN_TRACING_SECONDS = held
    messages = [str(w.message) for w in said if "difference quotient at" not in str(w.message)]
    return result, [*dict.fromkeys(messages)]


def _loop(program, namespace, places=None):
    """Return the loop's quotients for some elements of x."""
    scheme = SCHEMES[program.scheme]
    return loop.gradient(_function(namespace), namespace["x"], program.h, places, scheme)


def _function(namespace):
    """Return f as a function of x alone."""
    f, further = namespace["f"], namespace.get("ARGUMENTS")
    return f if further is None else lambda x: f(x, *further)


# Values ------------------------------------------------------------------------------------------


def compared(program, got, expected, value):
    """Return the verdict on a gradient, given the loop's, and in words what is wrong."""
    got, expected = np.asarray(got).reshape(-1), np.asarray(expected).reshape(-1)
    allowed = TIMES * EPS * abs(float(np.reshape(value, ()))) * _scale(program)
    if program.engine == "compiled":  # which promises the loop's bits
        allowed = 0.0
    off = _difference(got, expected)
    places = np.flatnonzero(~(off <= allowed))
    if not places.size:
        return "right", ""
    noise, exact = measured(program, places)
    beside = np.minimum(off[places], _difference(got[places], exact))
    wrong = ~(beside <= allowed + TIMES * noise)
    if not wrong.any():
        return "excused", "a tie" if (noise > 1e3 * np.median(noise)).any() else "round-off"
    worst = int(np.nanargmax(np.where(wrong, np.where(np.isfinite(beside), beside, np.inf), -1)))
    k = places[worst]
    return "wrong", (
        f"at element {k} {got[k]:.12g}, the loop {expected[k]:.12g}, exact {exact[worst]:.12g}, "
        f"allowed {allowed + TIMES * noise[worst]:.2g}; {int(wrong.sum())} of {got.size} wrong"
    )


def _difference(a, b):
    """Return by how much numbers differ; 0 where both are the same infinity, or nan."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    return np.where(same, 0.0, abs(np.where(same, 0, a) - np.where(same, 0, b))).astype(float)


def measured(program, places):
    """Return the round-off of the loop's quotients, and the quotients without it.

    The round-off is what it differs by from the quotients in extended precision, or, with the data
    moved by a few eps, from itself. At least it is eps of the largest value that is subtracted, of
    all that f adds up (which may cancel), of the least precise numbers that f computes with, and
    what f changes by most often with data that are moved by eps.
    """
    random = np.random.default_rng(0)
    exact, runs, values, noise = None, [], [], np.zeros(len(places))
    for again in range(2 * AGAIN + 1):
        plain = program.build()
        is_near = again <= AGAIN
        if again:
            _move(plain, random, MOVED if is_near else FARTHER)
        data = {name: array.copy() for name, array in data_of(plain).items()}
        run = _loop(program, plain, places).reshape(-1)[places]
        if is_near:
            values.append(float(np.reshape(_function(plain)(plain["x"]), ())))
            runs.append(run)
        try:
            extended = program.build(extended=True)
            for name, array in data.items():
                extended[name][...] = array
            precise = _loop(program, extended, places).reshape(-1)[places]
        except Exception:  # it computes by what has no extended form
            continue
        exact = precise if exact is None else exact
        noise = np.fmax(noise, _difference(run, precise))
    of_f = max(
        _precision(program) * max(_largest(program), _added_up(program)),
        np.median(abs(np.diff(values))) * EPS / MOVED,
    )
    runs = np.array(runs)
    noise = np.fmax(noise, np.ptp(runs, axis=0))
    noise = np.fmax(noise, of_f * _scale(program))
    is_nan = np.isnan(runs)
    noise[is_nan.any(axis=0) & ~is_nan.all(axis=0)] = np.inf
    return noise, runs[0] if exact is None else exact.astype(float)


def _largest(program):
    """Return the largest magnitude of f where the loop calls it."""
    namespace, values = program.build(), []
    f = _function(namespace)

    def noted(x):
        values.append(float(np.reshape(f(x), ())))
        return values[-1]

    _loop(program, namespace | {"f": noted, "ARGUMENTS": None})
    magnitudes = abs(np.array(values))
    return float(magnitudes[np.isfinite(magnitudes)].max(initial=0.0))


def _added_up(program):
    """Return the sum of the magnitudes of all that f adds up; 0 where it cannot be recorded."""
    namespace = program.build()
    try:
        return trace_call(_function(namespace), namespace["x"], program.h).magnitude
    except NotTraceable:
        return 0.0


def _precision(program):
    """Return eps of the least precise numbers of floating point that a program computes with."""
    source = program.source()
    names = [name for name, spelled in SPELLED.items() if re.search(spelled, source)]
    return max(float(np.finfo(name).eps) for name in ["float64", *names])


def _scale(program):
    """Return what a change of f becomes in a quotient."""
    return program.h ** -SCHEMES[program.scheme].derivative


def _move(namespace, random, by):
    """Move all data, relative to their size, by some eps; those that share memory, once."""
    moved = []
    for array in data_of(namespace).values():
        if array.size and not any(np.may_share_memory(array, other) for other in moved):
            size = np.sqrt(np.mean(array**2))
            share = max(by, MOVED / EPS * float(np.finfo(array.dtype).eps))
            array += share * np.maximum(abs(array), size) * random.uniform(-1, 1, array.shape)
            moved.append(array)


# Objects -----------------------------------------------------------------------------------------


def _constants(namespace):
    """Return x and the arrays that f only reads, by the names of a module."""
    return [v for n, v in namespace.items() if isinstance(v, np.ndarray) and n[:4] != "WORK"]


def _spoiled(namespace, before, value):
    """Say what is not as it was: x, data, f's own objects, or f's value."""
    for array, copy in zip(_constants(namespace), before, strict=True):
        if array.tobytes() != copy.tobytes():
            return "x is changed" if array is namespace["x"] else "data are changed"
    left = stand_in_left(namespace)
    if left:
        return f"a {left} is left"
    again = _function(namespace)(namespace["x"])
    if type(again) is not type(value) or not np.array_equal(again, value, equal_nan=True):
        return f"f returns {again!r} instead of {value!r}"
    return ""


def stand_in_left(holder):
    """Return the type of an object of a recording that can be reached from an object, or ""."""
    seen, waiting = set(), [holder]
    while waiting:
        item = waiting.pop()
        if id(item) in seen:
            continue
        seen.add(id(item))
        if type(item).__module__.startswith("fastgrad.tracing"):
            return type(item).__name__
        if isinstance(item, dict):
            waiting += [value for key, value in item.items() if key != "__builtins__"]
        elif isinstance(item, (list, tuple, set, collections.deque)):
            waiting += item
        elif isinstance(item, types.FunctionType):
            waiting += [item.__globals__, item.__defaults__, item.__kwdefaults__]
            waiting += [cell.cell_contents for cell in item.__closure__ or ()]
        elif isinstance(item, types.MethodType):
            waiting += [item.__self__, item.__func__]
        elif isinstance(item, type):
            waiting += [v for n, v in vars(item).items() if not n.startswith("__")]
        elif isinstance(item, np.ndarray) and item.dtype == object:
            waiting += item.ravel().tolist()
        elif type(item).__module__ == "program":
            waiting += [vars(item), type(item)]
    return ""
