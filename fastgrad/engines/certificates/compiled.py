"""The certificate of compiled functions' gradients, made as often as their speed allows.

Calls of a compiled function from Python, and what NumPy does around them, take longer than many
gradients. So the first gradient of a function is certified, the first one in lanes, and later ones
as long as that takes a twentieth of the time that gradients take. What is wrong of a compiled loop
is hardly ever wrong once only.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.differences.problem import Problem
from fastgrad.differences.validation import warn_caller
from fastgrad.engines import loop
from fastgrad.schemes import central_quotient
from fastgrad.typing import Array, Values

if TYPE_CHECKING:
    from fastgrad.engines.compilation import CompiledLoop

MIN_GRADIENT_RATIO = 20
"""How many times longer gradients take than their certificates, but for the first ones."""


@dataclass(frozen=True, eq=False)
class Run:
    """The last evaluation of a function in a compiled loop, by this thread.

    Attributes
    ----------
    f, x
        The function and the array, as the engine was given them.
    copies : callable
        Makes copies of f's arguments: ``x`` and, in it, ``arguments``.
    jitted : jitted function
        What takes the arguments.
    compiled : CompiledLoop
    """

    f: Callable[..., Any]
    x: Array
    copies: Callable[[], Any]
    jitted: Any
    compiled: "CompiledLoop"


_recent = threading.local()


def note_run(run: Run) -> None:
    """Remember what this thread has evaluated last."""
    _recent.run = run


def certify(problem: Problem, values: Values, gradient: Array) -> None:
    """Compare a gradient that was evaluated in a compiled loop with f, and mend it.

    Does nothing if another engine has evaluated it, or certificates have become too costly.

    Parameters
    ----------
    problem : Problem
        Of which all elements are moved alike; x stays as it is.
    values : callable
        How f was evaluated.
    gradient : array like x
        The quotients.

    Warns
    -----
    RuntimeWarning
        If it was wrong.
    """
    f, x, h, scheme = problem.f, problem.x, problem.steps, problem.scheme
    run: Run | None = getattr(_recent, "run", None)
    if run is None or run.f is not f or run.x is not x or x.dtype != np.float64:
        return
    compiled = run.compiled
    if compiled.seconds - compiled.certified < MIN_GRADIENT_RATIO * compiled.price:
        return
    from fastgrad.engines.certificates.certificate import Certificate, Disagreement
    from fastgrad.engines.certificates.directions import NearbyValues

    start = time.perf_counter()
    copies = run.copies()

    def value(_: Array) -> Any:
        return run.jitted(*copies.arguments)

    def slopes(step: float) -> Array:
        central = replace(problem, steps=step, scheme=central_quotient, quotients=None)
        return central.gradient(values).reshape(-1)

    quotients = gradient.reshape(-1).copy()
    magnitude = abs(float(value(copies.x)))
    is_slope = scheme.is_central and scheme.derivative == 1
    certificate = Certificate(
        NearbyValues(value, copies.x, h, scheme, magnitude, magnitude),
        quotients,
        slopes,
        quotients.copy() if is_slope else None,
    )
    try:
        certificate.mend()
        said = certificate.said
    except Disagreement as where:
        said = str(where)
        quotients = loop.gradient(value, copies.x, h, scheme=scheme).reshape(-1)
    if said:
        gradient[...] = quotients.reshape(gradient.shape)
        warn_caller(
            f"the compiled gradient was wrong: {said}; it has been mended by calls of f. If f "
            "gives the same value at each call, this is a defect of fastgrad: please report f"
        )
    compiled.price = time.perf_counter() - start
    compiled.certified = compiled.seconds
    _recent.run = None
