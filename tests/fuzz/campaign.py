"""Many programs, judged one after the other or by several processes, and the statistics."""

import re
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field

from . import functions, jitted, models, nets, sequences
from .judge import BAD, judge

KINDS = {
    "numpy": functions.write,
    "rows": functions.write_by_rows,
    "nets": nets.write,
    "models": models.write,
    "jitted": jitted.write,
    "sequences": sequences.write,
}
"""Kind -> ``write(seed)``, which returns a program; the seed is a list of integers."""

SHARES = {
    "numpy": 0.33, "rows": 0.23, "nets": 0.14, "models": 0.225, "jitted": 0.015, "sequences": 0.06,
}  # fmt: skip
"""How many of all programs are of each kind: functions for numba take seconds to compile."""

CHUNK = 50

MOST_WARNED = 30
"""Of so many programs the warnings are printed."""


@dataclass
class Report:
    """What came of programs.

    Attributes
    ----------
    counts : Counter
        Verdicts, by kind.
    reasons : Counter
        Of refusals and warnings, numbers left out.
    faults : list of (str, int, str)
        Kind of program, its number, and what is wrong.
    warned : list of (str, int, str)
        The same of warnings.
    """

    counts: Counter = field(default_factory=Counter)
    reasons: Counter = field(default_factory=Counter)
    faults: list = field(default_factory=list)
    warned: list = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_wrong(self):
        """Whether a gradient is wrong without a warning, or anything spoiled."""
        return bool(self.faults)

    def add(self, kind, number, verdict):
        """Count a verdict."""
        name = verdict.kind
        if name == "wrong" and verdict.warned:
            name = "wrong, warned of"
        elif verdict.warned:
            self.counts["warned"] += 1
        if name == "excused":
            name = f"excused: {verdict.detail}"
        self.counts[name] += 1
        if name == "refused":
            self.reasons[_general(f"refused: {verdict.detail}")] += 1
        if verdict.warned:
            self.reasons[_general(f"warned: {verdict.warned}")] += 1
            self.warned.append((kind, number, f"warned: {verdict.warned}"))
        if name in BAD:
            self.faults.append((kind, number, f"{name}: {verdict.detail}"))
        self.seconds += verdict.seconds

    def merge(self, other):
        """Add another report's."""
        self.counts += other.counts
        self.reasons += other.reasons
        self.faults += other.faults
        self.warned += other.warned
        self.seconds += other.seconds

    def __str__(self):
        """Say how many came of what, why, and which ones are to be looked at."""
        total = sum(n for name, n in self.counts.items() if name != "warned")
        lines = [f"{total:,} programs, {self.seconds:.0f} s in the engine"]
        lines += [f"  {n:8,} {name}" for name, n in self.counts.most_common()]
        lines += [f"  {n:8,} {reason}" for reason, n in self.reasons.most_common(60)]
        noted = sorted(self.faults) + sorted(self.warned)[:MOST_WARNED]
        lines += [f"{kind} {number}: {what}" for kind, number, what in noted]
        return "\n".join(lines)


def written(kind, seed, number):
    """Return program so-and-so of a seed, whatever others have been written."""
    return KINDS[kind]([[*KINDS].index(kind), seed, number])


def judged(kind, seed, numbers, certify):
    """Return the report on some programs."""
    report = Report()
    for number in numbers:
        report.add(kind, number, judge(written(kind, seed, number), certify=certify))
    return report


def run(counts, seed, certify, processes=1):
    """Judge so many programs of some kinds, as a dict says; return the report."""
    chunks = [
        (kind, seed, range(start, min(start + CHUNK, count)), certify)
        for kind, count in counts.items()
        for start in range(0, count, CHUNK)
    ]
    report = Report()
    bar = _Bar(len(chunks) * CHUNK)
    if processes == 1:
        for chunk in chunks:
            report.merge(judged(*chunk))
            bar.update(CHUNK)
        return report
    with ProcessPoolExecutor(processes) as executor:
        for future in as_completed([executor.submit(judged, *chunk) for chunk in chunks]):
            report.merge(future.result())
            bar.update(CHUNK)
    return report


def _Bar(total):
    """Return tqdm's bar, or something that takes its calls where it is not installed."""
    try:
        from tqdm import tqdm
    except ModuleNotFoundError:
        from types import SimpleNamespace

        return SimpleNamespace(update=lambda n: None)
    return tqdm(total=total, mininterval=5, disable=None)


def _general(reason):
    """Return a reason with its numbers and places left out."""
    reason = re.sub(r" \(in .*", "", reason)
    return re.sub(r"\s+", " ", re.sub(r"-?\d[\d.,e+-]*", "#", reason))[:90]
