"""Are the errors that `differentiate` estimates honest, and do others do better by more calls?"""

import numpy as np
import pytest

from benchmarks import adaptive
from benchmarks.conftest import Record
from benchmarks.suite import drawn, published

PEERS = ("jacobi", "numdifftools")


def test_errors_are_honest_and_smaller_than_the_peers(record: Record, smoke: bool) -> None:
    each = 1 if smoke else 20
    cases = [*published(), *drawn(adaptive.HELD_OUT, each), *adaptive.scaled(adaptive.HELD_OUT, 1)]
    ours = adaptive.score(adaptive.by_fastgrad, cases)
    record(true_error_below_the_estimate=ours.covered, median_error=ours.quantile(0.5))
    record(mean_calls=float(np.mean(ours.calls)))
    assert ours.covered >= 0.95
    for name in PEERS:
        pytest.importorskip(name)
        theirs = adaptive.score(adaptive.METHODS[name], cases)
        record(**{f"median error, {name}": theirs.quantile(0.5)})
        record(**{f"mean calls, {name}": float(np.mean(theirs.calls))})
        assert ours.quantile(0.5) <= theirs.quantile(0.5)
        assert np.mean(ours.calls) <= np.mean(theirs.calls)
        assert np.median(ours.calls) <= np.median(theirs.calls)


def test_float32_errors_are_honest(record: Record) -> None:
    ours = adaptive.float32_score([*published()])
    record(true_error_below_the_estimate=ours.covered)
    assert ours.covered >= 0.95


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for name in PEERS:
        pytest.importorskip(name)
    adaptive.main(["--smoke"])
    printed = capsys.readouterr().out
    for name in adaptive.METHODS:
        assert printed.count(f"| {name} |") >= 4
