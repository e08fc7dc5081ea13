"""How are the benchmarks run? Their options, and the facts that they report beside the times."""

from collections.abc import Callable

import pytest

from benchmarks.machine import processor, versions

Record = Callable[..., None]

facts_key = pytest.StashKey[list[str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("fastgrad")
    group.addoption(
        "--smoke", action="store_true", help="each benchmark once, small, to see that it runs"
    )
    group.addoption(
        "--extrapolate",
        action="store_true",
        help="time a seeded sample of the parameters instead of the book's whole loop",
    )
    group.addoption(
        "--full-training", action="store_true", help="train 10,000 steps instead of 1,000"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[facts_key] = []
    if config.getoption("--smoke"):
        config.option.benchmark_disable = True  # call once, time nothing


@pytest.fixture(scope="session")
def smoke(request: pytest.FixtureRequest) -> bool:
    """Whether only to see that the benchmarks run."""
    return bool(request.config.getoption("--smoke"))


@pytest.fixture(scope="session")
def extrapolate(request: pytest.FixtureRequest, smoke: bool) -> bool:
    """Whether to time a sample of the book's loop."""
    return smoke or bool(request.config.getoption("--extrapolate"))


@pytest.fixture(scope="session")
def steps(request: pytest.FixtureRequest, smoke: bool) -> int:
    """How long to train."""
    if smoke:
        return 20
    return 10_000 if request.config.getoption("--full-training") else 1_000


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    """Give ``record(name=fact, ...)``: into the final summary, and a benchmark's extra_info."""
    extra: dict[str, object] = {}
    if "benchmark" in request.fixturenames:
        extra = request.getfixturevalue("benchmark").extra_info
        extra["versions"] = versions()

    def add(**facts: object) -> None:
        for name, fact in facts.items():
            written = f"{fact:.3g}" if isinstance(fact, float) else str(fact)
            extra[name] = fact if isinstance(fact, float | int) else written
            line = f"{request.node.name}: {name.replace('_', ' ')}: {written}"
            request.config.stash[facts_key].append(line)

    return add


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    if facts := config.stash[facts_key]:
        terminalreporter.section("accuracy and ratios")
        terminalreporter.line(f"{processor()}; {versions()}")
        for fact in facts:
            terminalreporter.line(fact)
