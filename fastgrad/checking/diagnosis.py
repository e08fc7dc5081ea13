"""The proof of a guess at a fault: the gradient, corrected for it, agrees in every element."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.numerical import NumericalGradient
from fastgrad.checking.subject import index_text
from fastgrad.typing import Array

ENOUGH = 3
"""Elements that a constant has to explain: any one element is explained by some constant."""

NEARLY = 1e-5
"""Share of the largest element that a second, small fault may leave."""


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """What may be wrong, and what the gradient would be without it.

    Attributes
    ----------
    sentence : str
        What follows the parameter's name and a colon.
    corrected : array (size,)
        The gradient, corrected for it: equal to the differences if the guess is right.
    constants : int
        How many numbers in it were fitted.
    slack : float
        What the correction adds to the error of the differences.
    seen : array (size,), optional
        What has to be larger than the differences' errors for the guess to mean something, besides
        the correction: a factor of what is 0 is no factor.
    """

    sentence: str
    corrected: Array
    constants: int = 0
    slack: float = 0.0
    seen: Array | None = None


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, and what is left of the error without it.

    Attributes
    ----------
    sentence : str
        What is wrong; the same for every parameter with this fault.
    before, after : float
        The largest error, as it is, and once the gradient is corrected.
    complete : bool
        Whether what is left is within the differences' own errors.
    """

    sentence: str
    before: float
    after: float
    complete: bool


@dataclass(frozen=True, eq=False)
class FailedParameter:
    """A parameter whose gradient is wrong.

    Attributes
    ----------
    numerical : NumericalGradient
    claim : array (size,)
    others : sequence of NumericalGradient
        The other parameters.
    samples : int
        The number of samples, 0 if it is not known.
    """

    numerical: NumericalGradient
    claim: Array
    others: Sequence[NumericalGradient]
    samples: int

    @property
    def value(self) -> Array:
        """The numerical gradient."""
        return self.numerical.value

    @property
    def shape(self) -> tuple[int, ...]:
        """The parameter's shape."""
        return self.numerical.part.x.shape

    @property
    def x(self) -> Array:
        """The parameter, in C order."""
        return self.numerical.part.x.view(np.ndarray).reshape(-1).astype(self.value.dtype)

    def proves(self, guess: Hypothesis, slack: float = 0.0) -> bool:
        """Return whether the corrected gradient agrees with f, up to some slack, everywhere."""
        if not np.isfinite(guess.corrected).all():
            return False
        numerical, slack = self.numerical, slack + guess.slack
        allowed = numerical.truncation + numerical.round_off + slack
        for size in (self.claim - guess.corrected, guess.seen):
            if size is None:
                continue
            visible = int(np.count_nonzero(abs(size) > 4 * allowed))
            if visible < (ENOUGH * guess.constants or 1):
                return False
        return not len(numerical.confirmed_errors(guess.corrected, corrected=True, slack=slack))

    def first_proven(self, guesses: Iterable[Hypothesis]) -> Diagnosis | None:
        """Return the first guess that is proven, or None.

        First of those that leave no error beyond the differences' own, then of those that leave
        next to none: a second, small fault, such as the 1e-7 under the logarithm, hides none.
        """
        with np.errstate(all="ignore"):
            tried = []
            for guess in guesses:
                if self.proves(guess):
                    return self._proof(guess, complete=True)
                tried.append(guess)
            nearly = NEARLY * float(abs(self.value).max(initial=0))
            for guess in tried:
                if self.proves(guess, nearly):
                    return self._proof(guess, complete=False)
        return None

    def _proof(self, guess: Hypothesis, *, complete: bool) -> Diagnosis:
        before, after = (_error(each, self.value) for each in (self.claim, guess.corrected))
        return Diagnosis(guess.sentence, before, after, complete)


def _error(corrected: Array, value: Array) -> float:
    """Return the largest error."""
    return float(abs(corrected - value).max(initial=0))


def location(case: FailedParameter) -> str:
    """Say which elements are wrong: those of a few slices along an axis, if it is so."""
    wrong = _strong(case)
    count = int(np.count_nonzero(wrong))
    name = case.numerical.part.name
    if 0 < count <= 3 and wrong.size > 3:
        places = np.flatnonzero(wrong)
        indices = [index_text(name, case.numerical.part.index(int(place))) for place in places]
        return f"only {', '.join(indices)} {'is' if count == 1 else 'are'} wrong."
    whole = wrong.reshape(case.shape)
    for axis in range(whole.ndim):
        others = tuple(a for a in range(whole.ndim) if a != axis)
        slices = np.flatnonzero(whole.any(axis=others))
        if 0 < len(slices) <= max(1, whole.shape[axis] // 10) and whole.shape[axis] > 1:
            where = _slices_text(axis, whole.ndim, slices)
            rest = case.claim.reshape(case.shape).take(slices, axis)
            if not rest.any():
                return (
                    f"{where} zero, all others are right: that unit, class or feature is left out."
                )
            return f"only {where} wrong, all others are right."
    share = _error(case.claim, case.value) / float(abs(case.value).max(initial=0) or 1)
    if share <= NEARLY:
        return (
            f"the largest error is {share:.0e} of the largest element, no more. A number that is "
            "added under a logarithm, as the book's 1e-7, makes such differences: "
            "check_gradient(net, x=x, t=t) tells, and rtol accepts them."
        )
    if count == wrong.size:
        return f"all {count:,} elements are wrong." if count > 1 else "it is wrong."
    return f"{count:,} of {wrong.size:,} elements are wrong."


def _strong(case: FailedParameter) -> NDArray[np.bool_]:
    """Return which elements are wrong by more than a thousandth of what the worst one is.

    Elements at kinks, where the differences are not what is claimed either, are not among them.
    """
    error = abs(case.claim - case.value)
    suspects = np.zeros(error.shape, bool)
    suspects[case.numerical.wrong()] = True
    finite = error[np.isfinite(error) & suspects]
    found: NDArray[np.bool_] = suspects & ~(error <= 1e-3 * finite.max(initial=0))
    return found


def _slices_text(axis: int, dimensions: int, slices: NDArray[np.intp]) -> str:
    kinds = {1: ("element",), 2: ("row", "column")}.get(dimensions)
    kind = kinds[axis] if kinds else f"slice along axis {axis},"
    shown = ", ".join(str(int(s)) for s in slices[:5]) + (", ..." if len(slices) > 5 else "")
    if len(slices) == 1:
        return f"{kind} {shown} is"
    return f"{kind.rstrip(',')}s {shown} are"
