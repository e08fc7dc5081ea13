"""Each benchmark runs, and its gradients are as exact as they have to be."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.reporting.page import BENCHMARKS, PICTURES, run
from benchmarks.reporting.result import SCALES


@pytest.mark.parametrize("name", BENCHMARKS)
def test_benchmark(
    name: str, benchmark: Any, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    scale = SCALES["smoke" if request.config.getoption("--smoke") else "quick"]
    result = benchmark.pedantic(run, (name, scale, tmp_path), rounds=1)
    benchmark.extra_info["found"] = str(result)
    print(result)
    assert result.failures == []
    assert {path.name for path in tmp_path.iterdir()} == PICTURES.get(name, {}).keys()
