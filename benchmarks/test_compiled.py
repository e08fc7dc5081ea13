"""How fast, and how exact, is the gradient of a compiled function, beside other libraries'?"""

import pytest

from benchmarks.compiled import STYLES, against_loop_by_hand, against_others, loop_overheads
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
@pytest.mark.parametrize("style", STYLES)
def test_loop_by_hand(record: Record, smoke: bool, style: str, n: int) -> None:
    size = (10, 1) if smoke else (n, 15)
    *_, single, one, two = against_loop_by_hand(ROSENBROCK, style, *size)
    record(f=single, one_thread_over_by_hand=one, by_hand_over_two_threads=two)


def test_loop_overhead(record: Record, smoke: bool) -> None:
    for name, (call, once) in loop_overheads(*((10, 1) if smoke else (1000, 15))).items():
        record(**{name: f"{call} us a call beyond f, {once} us a gradient"})
