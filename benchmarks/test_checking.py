"""Are faults found and named, and is nothing called wrong that is right?"""

import pytest

from benchmarks import checking
from benchmarks.backward import FAULTS
from benchmarks.conftest import Record


def test_faults_are_found_and_named(record: Record) -> None:
    results = checking.planted_faults()
    record(found=sum(r.found for r in results), named=sum(r.named for r in results))
    assert all(r.found and r.found_fast for r in results)
    for layers in (2, 3):
        assert sum(r.named for r in results if r.layers == layers) >= 10


def test_right_nets_are_not_called_wrong(record: Record, smoke: bool) -> None:
    count = 20 if smoke else 1000
    wrong, kinks, singles = checking.false_alarms(count)
    record(false_alarms=len(wrong), nets=count, at_kinks=kinks, in_float32=singles)
    assert not wrong


def test_estimated_errors_cover_the_true_ones(record: Record, smoke: bool) -> None:
    covered, passed, total = checking.coverage(40 if smoke else 1000)
    record(covered=covered, passed=passed, cases=total)
    assert covered >= 0.95 * total


def test_a_million_parameters_take_less_than_100_calls(record: Record, smoke: bool) -> None:
    calls = checking.calls_of_fast(1000 if smoke else 1_000_000)
    record(calls=calls)
    assert calls < 100


def test_the_tables_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    checking.main(["--smoke"])
    printed = capsys.readouterr().out
    assert printed.count("found, ") >= 2 * len(FAULTS)
    assert "| a learner's, ReLU |" in printed
