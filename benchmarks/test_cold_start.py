"""How long does a fresh process take to its first gradient? In seconds, by kernel cache."""

from typing import Any

from benchmarks.cold_start import first_gradient_times, import_times
from benchmarks.conftest import Record


def test_import(benchmark: Any, record: Record, smoke: bool) -> None:
    times = benchmark.pedantic(import_times, (1 if smoke else 11,), rounds=1)
    beyond = times["fastgrad"].median - times["numpy"].median
    record(numpy_seconds=times["numpy"].median, seconds_beyond_numpy=beyond)


def test_first_gradient(benchmark: Any, record: Record, smoke: bool) -> None:
    empty, warm = benchmark.pedantic(first_gradient_times, (1 if smoke else 3,), rounds=1)
    record(seconds_with_empty_cache=empty, seconds_with_warm_cache=warm.median)
