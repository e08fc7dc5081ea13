"""Options of the benchmarks' tests: one process, and each benchmark once, as small as can be."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("fastgrad").addoption(
        "--smoke", action="store_true", help="small, to see that the benchmarks run"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Let all run in this process: what is measured should be alone."""
    return 0
