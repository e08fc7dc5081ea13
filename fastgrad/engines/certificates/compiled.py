"""The certificate of gradients of compiled functions, as often as their speed allows.

Calls of a compiled function from Python, and what NumPy does around them, take longer than many
gradients. So the first gradient of a function is certified, the first one in lanes, and later ones
as long as that takes a twentieth of the time that gradients take. What is wrong of a compiled loop
is hardly ever wrong once only.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.engines import loop
from fastgrad.schemes import Scheme
from fastgrad.typing import Array

if TYPE_CHECKING:
    from fastgrad.engines.compilation import CompiledLoop

SHARE = 20
"""How many times longer gradients take than their certificates, but for the first ones."""


@dataclass(frozen=True, eq=False)
class Run:
    """What has just been evaluated in a compiled loop, by this thread.

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


def certify(
    f: Callable[..., Any],
    x: Array,
    h: float,
    scheme: Scheme,
    gradient: Array,
    slopes: Callable[[float], Array],
) -> None:
    """Compare a gradient that was evaluated in a compiled loop with f, and mend it.

    Does nothing if another engine has evaluated it, or certificates have become too costly.

    Parameters
    ----------
    f, x, h, scheme
        As the engine was given them; x stays as it is.
    gradient : array like x
        The quotients.
    slopes : callable
        The gradient by another step, and the central quotient.

    Warns
    -----
    RuntimeWarning
        If it was wrong.
    """
    run: Run | None = getattr(_recent, "run", None)
    if run is None or run.f is not f or run.x is not x or x.dtype != np.float64:
        return
    compiled = run.compiled
    if compiled.seconds - compiled.certified < SHARE * compiled.price:
        return
    from fastgrad.engines.certificates.evaluations import Values
    from fastgrad.engines.certificates.traced import Certificate, Disagreement, warn_of_a_mistake

    start = time.perf_counter()
    copies = run.copies()

    def value(_: Array) -> Any:
        return run.jitted(*copies.arguments)

    quotients = gradient.reshape(-1).copy()
    magnitude = abs(float(value(copies.x)))
    is_slope = scheme.is_central and scheme.derivative == 1
    certificate = Certificate(
        Values(value, copies.x, h, scheme, magnitude, magnitude),
        quotients,
        lambda step: slopes(step).reshape(-1),
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
        warn_of_a_mistake(
            f"the compiled gradient was wrong: {said}; it has been mended by calls of f. If f "
            "gives the same value at each call, this is a defect of fastgrad: please report f"
        )
    compiled.price = time.perf_counter() - start
    compiled.certified = compiled.seconds
    _recent.run = None
