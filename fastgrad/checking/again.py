"""Is the gradient another one when it is asked for again? Then it depends on what came before."""

import numpy as np

from fastgrad.checking.diagnosis import NEARLY
from fastgrad.checking.subject import Subject, index_text
from fastgrad.checking.witness import Witness, largest_magnitude
from fastgrad.typing import Array


def another_when_asked_again(subject: Subject, faulty: list[Witness]) -> str | None:
    """Return what that shows, if a second call at the same x, after one of f, gives other numbers.

    Parameters
    ----------
    subject : Subject
        Its gradient was first asked for before f was called at all.
    faulty : list of Witness
        The parameters whose gradient is wrong.
    """
    if not subject.can_ask_again:
        return None
    subject.value()
    first, second = _claims(subject), _claims(subject)
    old = [witness.part.claim for witness in faulty]
    new = [first[witness.part.name] for witness in faulty]
    later = [second[witness.part.name] for witness in faulty]
    if all(np.array_equal(a, b, equal_nan=True) for a, b in zip(old, new, strict=True)):
        return None
    if all(_is_right(witness, after) for witness, after in zip(faulty, new, strict=True)):
        return (
            "right only after loss(x, t) was called: the backward pass uses what the layers keep "
            "from the last forward pass; call loss(x, t) in gradient(x, t)."
        )
    if all(
        _is_right(witness, after - before)
        for witness, before, after in zip(faulty, new, later, strict=True)
    ):
        return (
            "each call adds the right gradient to what the last one left: set the gradients to "
            "zero before they are summed."
        )
    worst = faulty[0].part
    place = int(np.nanargmax(abs(new[0] - old[0])))
    return (
        f"not deterministic: two calls at the same x gave {old[0][place]:.6g} and "
        f"{new[0][place]:.6g} at {index_text(worst.name, worst.index(place))}."
    )


def _is_right(witness: Witness, gradient: Array) -> bool:
    """Return whether a gradient is right, up to a small fault such as the 1e-7's."""
    nearly = NEARLY * largest_magnitude(witness.value)
    return not len(witness.contradictions(gradient, corrected=True, slack=nearly))


def _claims(subject: Subject) -> dict[str, Array]:
    """Return what the gradient claims now, by name."""
    names = [part.name for part in subject.parts]
    return dict(zip(names, (claim.values for claim in subject.claims()), strict=True))
