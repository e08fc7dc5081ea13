"""Notes of a report: elements at kinks, coarse arithmetic, and steps that do not suit f."""

from collections.abc import Iterator

import numpy as np

from fastgrad.checking.elements import Probe
from fastgrad.checking.noise import Noise
from fastgrad.checking.numerical import NumericalGradient, largest_magnitude
from fastgrad.checking.subject import index_text

SAMPLE = 1000
"""Elements whose truncation errors are looked at."""

HIDDEN = 1e-3
"""Share of the largest element from which the report says that smaller errors are not seen."""


def kinks(right: list[NumericalGradient], h: float) -> Iterator[str]:
    """Say which elements of right gradients are at kinks, or need a smaller step.

    Parameters
    ----------
    right : list of NumericalGradient
    h : float
        The step.
    """
    for numerical in right:
        probes = [*numerical.probes.values()]
        at = [each for each in probes if each.kind == "kink" and not each.distance]
        near = [each for each in probes if each.kind == "kink" and each.distance]
        rough = [each for each in probes if each.kind == "step"]
        jumps = [each for each in probes if each.kind == "jump"]
        unclear = [each for each in probes if each.kind == "unclear"]
        name = numerical.part.name
        if at:
            worst = max(at, key=lambda each: abs(each.above - each.below))
            yield (
                f"{name}: {_elements(len(at))} at a kink of f, as {_where(numerical, worst)}: the "
                f"derivative is {worst.below:.4g} from below and {worst.above:.4g} from above. The "
                "gradient lies between the two, so it is right."
            )
        if jumps:
            first = jumps[0]
            yield (
                f"{name}: {_elements(len(jumps))} at a jump of f, as {_where(numerical, first)}, "
                f"where it has no derivative: its slope is {first.below:.4g} below and "
                f"{first.above:.4g} above. The gradient is one of these."
            )
        if unclear:
            first = unclear[0]
            yield (
                f"{name}: {_elements(len(unclear))} where the differences cannot tell, as "
                f"{_where(numerical, first)}: the derivative is {first.below:.4g} from below and "
                f"{first.above:.4g} from above at a step of {first.step:.1g}, and something else "
                "at smaller ones, by kinks next to x or by noise. The gradient may be wrong there."
            )
        if near:
            nearest = min(near, key=lambda each: abs(each.distance))
            yield (
                f"{name}: {_elements(len(near))} within a step of a kink of f, as "
                f"{_where(numerical, nearest)}, with one at {nearest.distance:+.1e} from it. At a "
                f"step of {nearest.step:.1g} the gradient agrees."
            )
        if rough:
            yield (
                f"{name}: {_elements(len(rough))} where f varies within the step {h:g}, as "
                f"{_where(numerical, rough[0])}. At a step of {rough[0].step:.1g} the gradient "
                "agrees."
            )


def precision(right: list[NumericalGradient], noise: Noise, h: float) -> Iterator[str]:
    """Say how exact f is, and below which size errors are not seen, where that is large."""
    if noise.is_coarse:
        digits = max(0.0, -np.log10(noise.relative))
        what = (
            "it computes in float32. With x and the batch in float64 the check is sharper."
            if digits > 6
            else "its values are noisy, as those of an iteration or a simulation."
        )
        yield f"f has only {digits:.0f} digits, errors of about {noise.level:.0e}: {what}"
    for numerical in right:
        if not numerical.part.x.size:
            continue
        every = max(1, numerical.part.x.size // SAMPLE)
        known = [place for place, each in numerical.probes.items() if each.kind in ("kink", "jump")]
        unseen = np.setdiff1d(np.arange(0, numerical.part.x.size, every), known)
        truncation = float(np.median(numerical.truncation[unseen])) if unseen.size else 0.0
        hidden = numerical.round_off + truncation
        largest = largest_magnitude(numerical.value)
        if not hidden > HIDDEN * largest > 0:
            continue
        if truncation > numerical.round_off:
            balance = (numerical.round_off / (2 * truncation)) ** (1 / 3)
            better = float(f"{h * max(balance, 1e-6):.0e}")
            reason = f"the step {h:g} is too large for f"
        elif not noise.is_coarse:
            better = noise.step
            reason = f"the round-off of f, divided by the step {h:g}, is as large"
        else:
            continue
        remedy = f"; pass h={better:g}" if _is_better(numerical, noise, better) else ""
        yield f"{numerical.part.name}: errors below {hidden:.0e} are not seen: {reason}{remedy}."


def _is_better(numerical: NumericalGradient, noise: Noise, step: float) -> bool:
    """Return whether a third step's differences are surer, at the largest element."""
    part, place = numerical.part, int(np.argmax(abs(numerical.value)))
    old = part.x.view(np.ndarray).reshape(-1)[place]
    points = (old + step * np.array([1.0, -1.0, 2.0, -2.0])).astype(part.x.dtype)
    f = numerical.subject.values(part.problem, place, points)
    near, far = (f[0] - f[1]) / (2 * step), (f[2] - f[3]) / (4 * step)
    error = abs(far - near) / 3 + 1.5 * noise.level / step
    return bool(error < (float(numerical.truncation[place]) + numerical.round_off) / 2)


def _where(numerical: NumericalGradient, found: Probe) -> str:
    return index_text(numerical.part.name, numerical.part.index(found.place))


def _elements(count: int) -> str:
    return "1 element is" if count == 1 else f"{count} elements are"
