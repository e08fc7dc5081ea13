"""What there is to say about a check: faults by name, kinks, coarse arithmetic, unfit steps."""

from contextlib import suppress

import numpy as np

from fastgrad.checking.diagnosis import (
    Diagnosis,
    FailedParameter,
    diagnose,
    diagnose_samples,
    location,
)
from fastgrad.checking.log_offset import OFFSETS, left_out_offset, sentence_of, without_offset
from fastgrad.checking.noise import Noise, measure_noise
from fastgrad.checking.numerical import NumericalGradient, largest_magnitude, numerical_gradients
from fastgrad.checking.reevaluation import changes_when_repeated, other_modes, wrong_next_to_x
from fastgrad.checking.report import kinks, precision
from fastgrad.checking.subject import GradientUnderTest, index_text
from fastgrad.interrupts import OutOfTimeError


class Findings:
    """What was found, in sentences.

    Parameters
    ----------
    subject, noise, h
        As the numerical gradients have them.
    found : list of NumericalGradient
        All that are compared.
    """

    def __init__(
        self, subject: GradientUnderTest, noise: Noise, h: float, found: list[NumericalGradient]
    ) -> None:
        self.subject, self.noise, self.h, self.found = subject, noise, h, found
        self.sentences: list[str] = []

    def collect(self) -> list[NumericalGradient]:
        """Write down the sentences, and return the gradients whose part is really wrong."""
        suspected = [w for w in self.found if len(w.suspicious(w.part.claim))]
        if suspected:
            self.subject.find_batch()
        faulty = self._without_offset(suspected)
        try:
            faulty = self._in_other_mode(faulty)
            again = changes_when_repeated(self.subject, faulty) if faulty else None
            if again is not None:
                self._note([numerical.part.name for numerical in faulty], again)
            else:
                faulty = self._without_kinks(faulty)
                self._diagnose(faulty)
        except OutOfTimeError:
            self.sentences.append(
                "Time was over before it was found out what is wrong, or whether f has kinks at x."
            )
        right = [numerical for numerical in self.found if numerical not in faulty]
        self.sentences += kinks(right, self.h)
        with suppress(OutOfTimeError):  # the gradients have been compared
            self.sentences += precision(right, self.noise, self.h)
        return faulty

    def _note(self, names: list[str], sentence: str) -> None:
        self.sentences.append(f"{', '.join(names)}: {sentence}")

    def _case(self, numerical: NumericalGradient) -> FailedParameter:
        others = [other for other in self.found if other is not numerical]
        samples = self.subject.batch.samples if self.subject.batch else 0
        return FailedParameter(numerical, numerical.part.claim, others, samples)

    def _without_offset(self, suspected: list[NumericalGradient]) -> list[NumericalGradient]:
        """Return those that f contradicts, and by more than the number under the logarithm.

        That is tested along random directions first, which is cheap. What is left then comes back
        with the differences of the loss without that number, if others show that the gradient is to
        be understood so.
        """
        whole = left_out_offset(suspected)
        offsets = {w.part.name: left_out_offset([w]) if whole is None else whole for w in suspected}
        agree = [name for name, offset in offsets.items() if offset is not None]
        offset = next((o for o in offsets.values() if o is not None), OFFSETS[0])
        left = [w for w in suspected if w.part.name not in agree and is_wrong(w)]
        other = None
        if left and not self.subject.is_own_net:
            other = without_offset(self.subject, offset)
        if other is not None:
            names = [w.part.name for w in left]
            parts = [part for part in other.parts if part.name in names]
            noise = measure_noise(other, self.h)
            again = numerical_gradients(other, noise, self.h, parts)
            before = {w.part.name: largest_magnitude(w.part.claim - w.value) for w in left}
            still = [w for w in again if not EXPLAINED * w.round_off < before[w.part.name]]
            by_name = {w.part.name: w for w in left}
            still += [w for w in again if w not in still and not _explains(by_name[w.part.name], w)]
            still += [w for w in again if w not in still and is_wrong(w)]
            agree += [w.part.name for w in again if w not in still]
            if agree:
                self._replace(again)
                left = still
        if agree:
            names = [w.part.name for w in self.found if w.part.name in agree]
            self._note(names, sentence_of(offset, self.subject))
        return left

    def _in_other_mode(self, faulty: list[NumericalGradient]) -> list[NumericalGradient]:
        """Return those that are wrong in training mode, too, if the net's loss has one.

        If the gradient is much nearer to that loss, or parts of it are right there, what is left is
        found out there.
        """
        if not faulty:
            return faulty
        for mode in other_modes(self.subject):
            names = [numerical.part.name for numerical in faulty]
            parts = [part for part in mode.subject.parts if part.name in names]
            noise = measure_noise(mode.subject, self.h)
            there = numerical_gradients(mode.subject, noise, self.h, parts)
            inner = Findings(mode.subject, noise, self.h, there)
            still = inner._without_offset([w for w in there if len(w.suspicious(w.part.claim))])
            nearer = _distance(there) <= NEARER * _distance(faulty)
            if not nearer and len(still) == len(faulty):
                continue
            self.sentences += inner.sentences
            whole = "every element agrees."
            sentence = mode.sentence
            if still:
                before, after = _distance(faulty), _distance(there)
                fall = f"the largest error falls from {before:.1e} to {after:.1e}."
                sentence = sentence.replace(whole, fall)
            self._note(names, sentence)
            self._replace(inner.found)
            return still
        return faulty

    def _replace(self, better: list[NumericalGradient]) -> None:
        """Take other differences for the same parts."""
        by_name = {numerical.part.name: numerical for numerical in better}
        self.found = [by_name.get(numerical.part.name, numerical) for numerical in self.found]

    def _without_kinks(self, wrong: list[NumericalGradient]) -> list[NumericalGradient]:
        """Return those that are wrong next to x, too, if the gradient can be had there."""
        if not wrong or not self.subject.can_ask_again:
            return wrong
        parts = [numerical.part for numerical in wrong]
        subject = wrong[0].subject
        still = {part.name for part in wrong_next_to_x(subject, wrong[0].noise, self.h, parts)}
        names = [part.name for part in parts if part.name not in still]
        if names:
            self._note(
                names,
                "differs at x, but agrees at a point next to it: x is where f has no derivative, "
                "such as a ReLU at 0 or a tie of a maximum.",
            )
        return [numerical for numerical in wrong if numerical.part.name in still]

    def _diagnose(self, faulty: list[NumericalGradient]) -> None:
        """Name what is wrong, the same words for all parts that share it."""
        facts: dict[str, list[str]] = {}
        proofs: dict[str, list[tuple[str, Diagnosis]]] = {}
        unknown: list[str] = []
        for numerical in faulty:
            name, claim = numerical.part.name, numerical.part.claim
            fact = self._fact(numerical)
            if fact is not None:
                facts.setdefault(fact, []).append(name)
                continue
            case = self._case(numerical)
            proof = diagnose(case)
            if proof is None and self.subject.batch is not None:
                proof = diagnose_samples(case, self.subject.batch)
            if proof is not None:
                proofs.setdefault(proof.sentence, []).append((name, proof))
            else:
                facts.setdefault(location(case), []).append(name)
                if claim.size > 1:
                    unknown.append(name)
        for sentence, named in proofs.items():
            found = [proof for _, proof in named]
            self._note([name for name, _ in named], f"{sentence} {_corrected(found)}")
        for sentence, names in facts.items():
            self._note(names, sentence)
        self._note_where_to_look(faulty, unknown)

    def _fact(self, numerical: NumericalGradient) -> str | None:
        """Return what is plain to see."""
        claim = numerical.part.claim
        if not np.isfinite(claim).all():
            place = int(np.argmin(np.isfinite(claim)))
            where = index_text(numerical.part.name, numerical.part.index(place))
            return f"{where} is {claim[place]}."
        if not np.isfinite(numerical.value).all():
            place = int(np.argmin(np.isfinite(numerical.value)))
            where = index_text(numerical.part.name, numerical.part.index(place))
            return f"f is not finite within the step {self.h:g} of {where}: pass a smaller h."
        if not claim.any():
            return "all zeros: it is never computed, or it is overwritten."
        return None

    def _note_where_to_look(self, faulty: list[NumericalGradient], unknown: list[str]) -> None:
        """Say between which layers the fault is, if it has no name and its place shows it."""
        names = [numerical.part.name for numerical in self.found]
        wrong = [numerical.part.name for numerical in faulty]
        if not unknown or len(names) < 2:
            return
        first, last = names.index(wrong[0]), names.index(wrong[-1])
        before, after = names[:first], names[last + 1 :]
        if wrong == unknown == names:
            self.sentences.append(
                f"All are wrong, {names[-1]} included: look first at where the backward pass "
                "begins, the derivative of the loss by the scores."
            )
        elif wrong[-1] not in unknown:
            self.sentences.append(
                f"Repair {wrong[-1]} first: what the backward pass hands on to the parameters "
                "before it may be wrong with it."
            )
        elif before and last - first < len(wrong):
            self.sentences.append(
                f"{before[-1]}, which the backward pass reaches later, is right: look only at the "
                f"lines that compute {', '.join(wrong)}, for what is handed on is right."
            )
        elif after and last - first < len(wrong):
            what = ", such as an activation's derivative" if len(wrong) > 1 else ""
            self.sentences.append(
                f"{after[0]}, which the backward pass reaches before, is right: look at what comes "
                f"between {after[0]} and {wrong[-1]}{what}."
            )


EXPLAINED = 4.0
"""Times what the differences without the number are known to that an error is, to be explained."""

NEARER = 1e-2
"""Share to which errors fall in the mode that the gradient runs in."""


def _explains(before: NumericalGradient, after: NumericalGradient) -> bool:
    """Return whether another loss changes the differences by as much as f showed to be wrong.

    By half of it at least: differences over a jump may agree with anything.
    """
    known = before.round_off + after.round_off
    return all(
        abs(before.part.claim[k] - probe.value) / 2 <= abs(after.value[k] - before.value[k]) + known
        for k, probe in before.failed.items()
    )


def _distance(found: list[NumericalGradient]) -> float:
    """Return the largest error."""
    return max(largest_magnitude(w.part.claim - w.value) for w in found)


def _corrected(proofs: list[Diagnosis]) -> str:
    """Say what is left of the errors of parameters with the same fault."""
    if all(proof.complete for proof in proofs):
        return "Corrected for that, every element agrees."
    before, after = max(p.before for p in proofs), max(p.after for p in proofs)
    return f"Corrected for that, the largest error falls from {before:.1e} to {after:.1e}."


def is_wrong(numerical: NumericalGradient) -> bool:
    """Return whether f contradicts what is claimed."""
    return len(numerical.confirmed_errors(numerical.part.claim)) > 0
