"""How much faster is the loop on two workers? As a ratio of times, for functions of 1 ms."""

from collections.abc import Callable
from typing import Any

import pytest

from benchmarks import workers
from benchmarks.conftest import Record


@pytest.mark.parametrize("make", [workers.in_python, workers.in_numpy])
def test_two_workers(make: Callable[[float], Any], record: Record, smoke: bool) -> None:
    f = make(1e-4 if smoke else 1e-3)
    one, several, same = workers.measure(f, 50 if smoke else 1000, 2, 1 if smoke else 3)
    record(
        one_worker_seconds=one.minimum,
        two_workers_seconds=several.minimum,
        times_faster=one.minimum / several.minimum,
        same_bits=same,
    )
    assert same
