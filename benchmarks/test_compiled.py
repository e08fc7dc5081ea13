"""How fast, and how exact, is the gradient of a compiled function, beside other libraries'?"""

import pytest

from benchmarks.compiled import against_loop_by_hand, against_others, loop_overheads
from benchmarks.conftest import Record
from benchmarks.functions import ROSENBROCK


def test_others(record: Record, smoke: bool) -> None:
    for library in ("scipy", "numdifftools", "jacobi"):
        pytest.importorskip(library)
    rows = against_others(ROSENBROCK, 10 if smoke else 1000, 1 if smoke else 5)
    assert not any("LARGER ERROR" in row[-1] for row in rows) or smoke
    for f, way, milliseconds, error, faster in rows:
        record(**{f"{way} of {f}": f"{milliseconds} ms, error {error} {faster}"})


@pytest.mark.parametrize("n", [1000, 4000])
def test_loop_by_hand(record: Record, smoke: bool, n: int) -> None:
    _, single, one, two = against_loop_by_hand(ROSENBROCK, *((10, 1) if smoke else (n, 15)))
    record(f=single, one_thread_over_by_hand=one, one_thread_over_two=two)


def test_loop_overhead(record: Record, smoke: bool) -> None:
    for name, (call, once) in loop_overheads(*((10, 1) if smoke else (1000, 15))).items():
        record(**{name: f"{call} us a call beyond f, {once} us a gradient"})
