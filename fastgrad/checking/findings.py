"""What is there to say about a check? Faults by name, kinks, coarse arithmetic, unfit steps."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.checking.diagnosis import Case, Proof, diagnose, location
from fastgrad.checking.neighbour import wrong_next_to_x
from fastgrad.checking.noise import Noise
from fastgrad.checking.offset import OFFSETS, left_out_offset, sentence_of, without_offset
from fastgrad.checking.samples import diagnose_samples
from fastgrad.checking.subject import Subject, index_text
from fastgrad.checking.witness import Witness, largest_magnitude, witnesses

Array = NDArray[Any]

SAMPLE = 1000
"""Elements whose truncation errors are looked at."""

HIDDEN = 1e-3
"""Share of the largest element from which the report says that smaller errors are not seen."""


class Findings:
    """What was found, in sentences.

    Parameters
    ----------
    subject, noise, h
        As the witnesses have them.
    found : list of Witness
        All that are compared.
    """

    def __init__(self, subject: Subject, noise: Noise, h: float, found: list[Witness]) -> None:
        self.subject, self.noise, self.h, self.found = subject, noise, h, found
        self.sentences: list[str] = []

    def collect(self) -> list[Witness]:
        """Write down the sentences, and return the witnesses whose part is really wrong."""
        suspected = [w for w in self.found if len(w.suspects(w.part.claim))]
        faulty = self._without_kinks(self._without_offset(suspected))
        if faulty:
            self._diagnose(faulty)
        self._note_looks(faulty)
        self._note_precision(faulty)
        return faulty

    def _note(self, names: list[str], sentence: str) -> None:
        self.sentences.append(f"{', '.join(names)}: {sentence}")

    def _case(self, witness: Witness) -> Case:
        others = [other for other in self.found if other is not witness]
        samples = self.subject.batch.samples if self.subject.batch else 0
        return Case(witness, witness.part.claim, others, samples)

    def _without_offset(self, suspected: list[Witness]) -> list[Witness]:
        """Return those that f contradicts, and by more than the number under the logarithm.

        That is tested along random directions first, which is cheap. What is left then comes back
        with the differences of the loss without that number, if others show that the gradient is to
        be understood so.
        """
        if self.subject.batch is None:
            return [w for w in suspected if is_wrong(w)]
        offsets = {w.part.name: left_out_offset(self._case(w)) for w in suspected}
        agree = [name for name, offset in offsets.items() if offset is not None]
        offset = next((o for o in offsets.values() if o is not None), OFFSETS[0])
        left = [w for w in suspected if w.part.name not in agree and is_wrong(w)]
        other = None
        if left and not self.subject.is_own_net:
            other = without_offset(self.subject, offset)
        if other is not None:
            names = [w.part.name for w in left]
            parts = [part for part in other.parts if part.name in names]
            again = witnesses(other, self.noise, self.h, parts)
            still = [w for w in again if is_wrong(w)]
            agree += [w.part.name for w in again if w not in still]
            if agree:
                self._replace(again)
                left = still
        if agree:
            names = [w.part.name for w in self.found if w.part.name in agree]
            self._note(names, sentence_of(offset))
        return left

    def _replace(self, better: list[Witness]) -> None:
        """Take other witnesses for the same parts."""
        by_name = {witness.part.name: witness for witness in better}
        self.found = [by_name.get(witness.part.name, witness) for witness in self.found]

    def _without_kinks(self, wrong: list[Witness]) -> list[Witness]:
        """Return those that are wrong next to x, too, if the gradient can be had there."""
        if not wrong or not self.subject.can_ask_again:
            return wrong
        parts = [witness.part for witness in wrong]
        subject = wrong[0].subject
        still = {part.name for part in wrong_next_to_x(subject, self.noise, self.h, parts)}
        names = [part.name for part in parts if part.name not in still]
        if names:
            self._note(
                names,
                "differs at x, but agrees at a point next to it: x is where f has no derivative, "
                "such as a ReLU at 0 or a tie of a maximum.",
            )
        return [witness for witness in wrong if witness.part.name in still]

    def _diagnose(self, faulty: list[Witness]) -> None:
        """Name what is wrong, the same words for all parts that share it."""
        if self._is_kept_from_earlier(faulty):
            return
        facts: dict[str, list[str]] = {}
        proofs: dict[str, list[tuple[str, Proof]]] = {}
        unknown: list[str] = []
        for witness in faulty:
            name, claim = witness.part.name, witness.part.claim
            fact = self._fact(witness)
            if fact is not None:
                facts.setdefault(fact, []).append(name)
                continue
            case = self._case(witness)
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

    def _fact(self, witness: Witness) -> str | None:
        """Return what is plain to see."""
        claim = witness.part.claim
        if not np.isfinite(claim).all():
            place = int(np.argmin(np.isfinite(claim)))
            where = index_text(witness.part.name, witness.part.index(place))
            return f"{where} is {claim[place]}."
        if not claim.any():
            return "all zeros: it is never computed, or it is overwritten."
        return None

    def _is_kept_from_earlier(self, faulty: list[Witness]) -> bool:
        """Tell, and say so, if the gradient is another one when it is asked for again at x."""
        if not self.subject.can_ask_again:
            return False
        self.subject.value()
        again = dict(zip((p.name for p in self.subject.parts), self.subject.claims(), strict=True))
        names = [w.part.name for w in faulty]
        new = {name: again[name].values for name in names}
        if all(np.array_equal(new[w.part.name], w.part.claim, equal_nan=True) for w in faulty):
            return False
        if not any(len(w.contradictions(new[w.part.name], corrected=True)) for w in faulty):
            self._note(
                names,
                "right only after loss(x, t) was called: the backward pass uses what the layers "
                "keep from the last forward pass; call loss(x, t) in gradient(x, t).",
            )
        elif all(
            np.allclose(new[w.part.name], 2 * w.part.claim, rtol=1e-6, atol=0) for w in faulty
        ):
            self._note(
                names,
                "a second call at the same point returned twice as much: each call adds to what "
                "the last one left; set the gradients to zero first.",
            )
        else:
            worst = faulty[0].part
            place = int(np.nanargmax(abs(new[worst.name] - worst.claim)))
            self._note(
                names,
                "not deterministic: two calls at the same x gave "
                f"{worst.claim[place]:.6g} and {new[worst.name][place]:.6g} at "
                f"{index_text(worst.name, worst.index(place))}.",
            )
        return True

    def _note_where_to_look(self, faulty: list[Witness], unknown: list[str]) -> None:
        """Say between which layers the fault is, if it has no name and its place shows it."""
        names = [witness.part.name for witness in self.found]
        wrong = [witness.part.name for witness in faulty]
        if not unknown or len(names) < 2:
            return
        first, last = names.index(wrong[0]), names.index(wrong[-1])
        before, after = names[:first], names[last + 1 :]
        if wrong[-1] not in unknown:
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

    def _note_looks(self, faulty: list[Witness]) -> None:
        """Say which elements are at kinks, or need a smaller step."""
        for witness in self.found:
            if witness in faulty:
                continue
            looks = [*witness.looks.values()]
            kinks = [found for found in looks if found.kind == "kink"]
            steps = [found for found in looks if found.kind == "step"]
            part = witness.part
            at = [found for found in kinks if not found.distance]
            if at:
                worst = max(at, key=lambda found: abs(found.above - found.below))
                where = index_text(part.name, part.index(worst.place))
                self._note(
                    [part.name],
                    f"{_elements(len(at))} at a kink of f, as {where}: the derivative is "
                    f"{worst.below:.4g} from below and {worst.above:.4g} from above. The gradient "
                    "lies between the two, so it is right.",
                )
            if len(at) < len(kinks):
                nearest = min((f for f in kinks if f.distance), key=lambda f: abs(f.distance))
                where = index_text(part.name, part.index(nearest.place))
                self._note(
                    [part.name],
                    f"{_elements(len(kinks) - len(at))} within a step of a kink of f, as {where}, "
                    f"with one at {nearest.distance:+.1e} from it. At a step of "
                    f"{nearest.step:.1g} the gradient agrees.",
                )
            if steps:
                worst = steps[0]
                where = index_text(part.name, part.index(worst.place))
                self._note(
                    [part.name],
                    f"{_elements(len(steps))} where f varies within the step {self.h:g}, as "
                    f"{where}. At a step of {worst.step:.1g} the gradient agrees.",
                )

    def _note_precision(self, faulty: list[Witness]) -> None:
        """Say below which size errors are not seen, where that is large."""
        if self.noise.is_coarse:
            digits = -np.log10(self.noise.relative)
            what = (
                "it computes in float32. With x and the batch in float64 the check is sharper."
                if digits > 6
                else "its values are noisy, as those of an iteration or a simulation."
            )
            self.sentences.append(
                f"f has only {digits:.0f} digits, errors of about {self.noise.level:.0e}: {what}"
            )
        for witness in self.found:
            part = witness.part
            if not part.x.size or witness in faulty:
                continue
            largest = largest_magnitude(witness.value)
            every = max(1, part.x.size // SAMPLE)
            truncation = float(np.median(witness.truncation[::every]))
            hidden = witness.round_off + truncation
            if not hidden > HIDDEN * largest or not largest > 0:
                continue
            if truncation > witness.round_off:
                balance = (witness.round_off / (2 * truncation)) ** (1 / 3)
                better = float(f"{self.h * max(balance, 1e-6):.0e}")
                reason = f"the step {self.h:g} is too large for f"
            elif not self.noise.is_coarse:
                better = self.noise.step
                reason = f"the round-off of f, divided by the step {self.h:g}, is as large"
            else:
                continue
            place = int(np.argmax(abs(witness.value)))
            remedy = f"; pass h={better:g}" if self._is_better(witness, place, better) else ""
            self._note([part.name], f"errors below {hidden:.0e} are not seen: {reason}{remedy}.")

    def _is_better(self, witness: Witness, place: int, step: float) -> bool:
        """Return whether a third step's differences are surer at the largest element."""
        part = witness.part
        old = part.x.view(np.ndarray).reshape(-1)[place]
        points = (old + step * np.array([1.0, -1.0, 2.0, -2.0])).astype(part.x.dtype)
        f = self.subject.values(part.problem, place, points)
        near, far = (f[0] - f[1]) / (2 * step), (f[2] - f[3]) / (4 * step)
        error = abs(far - near) / 3 + 1.5 * self.noise.level / step
        now = float(witness.truncation[place]) + witness.round_off
        return bool(error < now / 2)


def _elements(count: int) -> str:
    return "1 element is" if count == 1 else f"{count} elements are"


def _corrected(proofs: list[Proof]) -> str:
    """Say what is left of the errors of parameters with the same fault."""
    if all(proof.whole for proof in proofs):
        return "Corrected for that, every element agrees."
    before, after = max(p.before for p in proofs), max(p.after for p in proofs)
    return f"Corrected for that, the largest error falls from {before:.1e} to {after:.1e}."


def is_wrong(witness: Witness) -> bool:
    """Return whether f contradicts what is claimed."""
    return len(witness.contradictions(witness.part.claim)) > 0
