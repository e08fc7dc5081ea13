"""The option of the benchmarks' tests: each benchmark once, as small as can be."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("fastgrad").addoption(
        "--smoke", action="store_true", help="small, to see that the benchmarks run"
    )
