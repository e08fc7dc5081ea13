"""The command line, and how parts are merged into the page."""

import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import __main__ as commands
from benchmarks.measure import machine
from benchmarks.reporting import page
from benchmarks.reporting.result import Result

Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def result(name: str, *figures: tuple[str, str]) -> Result:
    found = Result(name)
    for what, measured in figures:
        found.figure(what, "at least 1", measured)
    found.table("What is it?", "a | b", [("1", name)])
    return found


@pytest.mark.parametrize("arguments", [[], ["list"]])
def test_benchmarks_are_listed_with_a_line_each(capsys: Capture, arguments: list[str]) -> None:
    commands.main(arguments)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(page.BENCHMARKS)
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["turbo"], "invalid choice: 'turbo'"),
        (["report", "dense"], "pass --only"),
        (["dense", "--only", "traced"], "are for the report"),
        (["report", "--only", "density"], "invalid choice: 'density'"),
        (["report", "--smoke"], "pass --output"),
    ],
)
def test_what_cannot_be_is_refused(arguments: list[str], message: str, capsys: Capture) -> None:
    with pytest.raises(SystemExit):
        commands.main(arguments)
    assert message in capsys.readouterr().err


def test_a_part_that_is_measured_again_replaces_its_own_figures_alone(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    page.merge(path, result("workers"), "full")
    page.merge(path, result("dense", ("x", "1"), ("y", "2")), "full")
    before = path.read_text()
    page.merge(path, result("dense", ("x", "3")), "quick")
    text = path.read_text()
    assert ("x", "at least 1", "3", "`python -m benchmarks dense`") in page.read(path)[0]["dense"]
    assert "| y" not in text
    assert text.index("## dense: ") < text.index("## workers: ")
    assert text.partition("## workers")[2] == before.partition("## workers")[2]
    assert text.count(", with `--quick`, on ") == 1
    figures, sections = page.read(path)
    assert figures.keys() == {"dense"}
    assert sections.keys() == {"dense", "workers"}


def test_the_committed_page_has_its_pictures_and_every_figure_its_command() -> None:
    folder = Path(page.__file__).parents[1]
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    figures, _ = page.read(folder / "RESULTS.md")
    printed = len(re.findall("`python -m benchmarks (?!report)", text))
    assert sum(map(len, figures.values())) == printed
    shown = text + (folder.parent / "README.md").read_text(encoding="utf-8")
    for picture in (folder / "plots").iterdir():
        assert f"plots/{picture.name})" in shown, f"{picture.name} is shown nowhere"
    for picture in re.findall(r"\(plots/(.+?)\)", text):
        assert (folder / "plots" / picture).is_file()
    assert "not to be trusted" not in text


def test_a_busy_machine_is_waited_for_and_then_refused(monkeypatch: Patch, capsys: Capture) -> None:
    busy = iter([(2.0, ["pytest (7)"]), (1.0, []), (0.1, [])])
    monkeypatch.setattr(machine, "busy_cores", lambda: next(busy))
    machine.wait_until_idle(600)
    told = "Waiting, for 10 minutes at most: others keep 2.0 cores: pytest (7) busy.\n"
    assert capsys.readouterr().out == told
    monkeypatch.setattr(machine, "busy_cores", lambda: (2.0, ["pytest (7)"]))
    with pytest.raises(SystemExit, match=r"2.0 cores: pytest \(7\); .* End them, or pass --anyway"):
        machine.wait_until_idle(-1)


def test_who_keeps_the_machine_busy_is_named(monkeypatch: Patch) -> None:
    class Busy:
        pid = 7

        def cpu_percent(self) -> float:
            return 80.0

        def name(self) -> str:
            return "python"

        def cmdline(self) -> list[str]:
            return ["/usr/bin/python", "-m", "pytest"]

    class Idle(Busy):
        def cpu_percent(self) -> float:
            return 1.0

    class Ended(Busy):
        def cpu_percent(self) -> float:
            raise psutil.NoSuchProcess(self.pid)

    monkeypatch.setattr(psutil, "process_iter", lambda: iter([Idle(), Ended(), Busy()]))
    assert machine.busy_cores(0.1)[1] == ["python -m pytest (7)"]


def test_a_part_ends_when_the_report_is_killed() -> None:
    program = """
import os, time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from benchmarks.reporting.page import end_with_parent
with ProcessPoolExecutor(1, get_context("spawn"), end_with_parent) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(time.sleep, 600).result()
"""
    command = [sys.executable, "-c", program]
    root = Path(page.__file__).parents[2]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) as report:
        assert report.stdout is not None
        part = psutil.Process(int(report.stdout.readline()))
        report.kill()
    part.wait(60)


def test_nothing_is_written_on_a_busy_machine(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "busy_cores", lambda: (2.0, []))
    monkeypatch.setattr("time.monotonic", iter([0.0, 1e9]).__next__)
    monkeypatch.setattr(commands, "measure", None)
    with pytest.raises(SystemExit, match="kept the machine busy"):
        commands.main(["report", "--output", str(tmp_path)])
    assert not (tmp_path / "RESULTS.md").exists()


def test_anyway_measures_but_writes_no_page(
    monkeypatch: Patch, tmp_path: Path, capsys: Capture
) -> None:
    monkeypatch.setattr(machine, "busy_cores", lambda: (2.0, []))
    monkeypatch.setattr(commands, "measure", lambda name, *_: result(name, ("x", "7")))
    commands.main(["report", "--anyway", "--only", "dense", "--output", str(tmp_path)])
    assert "| x    | at least 1 |        7 |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_exact_stays_off_the_page(monkeypatch: Patch, tmp_path: Path) -> None:
    def failing(name: str, *_: object) -> Result:
        found = result(name, ("x", "7"))
        found.check(name != "dense", "as exact as promised")
        return found

    monkeypatch.setattr(commands, "measure", failing)
    monkeypatch.setattr(machine, "busy_cores", lambda: (0.0, []))
    with pytest.raises(SystemExit, match="dense: as exact as promised"):
        commands.main(["report", "--output", str(tmp_path)])
    _, sections = page.read(tmp_path / "RESULTS.md")
    assert sections.keys() == page.PARTS.keys() - {"dense"}
