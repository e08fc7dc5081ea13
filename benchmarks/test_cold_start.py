"""How long does a fresh process take to its first gradient? In seconds, by kernel cache."""

from benchmarks.cold_start import first_gradient_times, import_times
from benchmarks.conftest import Record


def test_import(record: Record, smoke: bool) -> None:
    times = import_times(1 if smoke else 11)
    beyond = times["fastgrad"].median - times["numpy"].median
    record(numpy_seconds=times["numpy"].median, seconds_beyond_numpy=beyond)


def test_first_gradient(record: Record, smoke: bool) -> None:
    empty, warm = first_gradient_times(1 if smoke else 3)
    record(seconds_with_empty_cache=empty, seconds_with_warm_cache=warm.median)
