"""How does the cost grow with each size? The report command plots it."""

import pytest

from benchmarks.conftest import Record
from benchmarks.growth import SIZES, measure_growth


@pytest.mark.parametrize("variable", list(SIZES))
def test_growth(record: Record, variable: str, smoke: bool) -> None:
    growth = measure_growth(variable, smoke, 1 if smoke else 4)
    record(**{variable: growth.sizes})
    for name, seconds in growth.seconds.items():
        record(**{f"{name}, milliseconds": [float(f"{1e3 * s:.3g}") for s in seconds]})
