"""The command line, and how parts are merged into the page."""

from pathlib import Path

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
    found.table("a | b", [("1", name)])
    return found


def test_benchmarks_are_listed_with_a_line_each(capsys: Capture) -> None:
    commands.main([])
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
    page.merge(path, result("workers"), "python -m benchmarks report")
    page.merge(path, result("dense", ("x", "1"), ("y", "2")), "python -m benchmarks report")
    before = path.read_text()
    page.merge(path, result("dense", ("x", "3")), "python -m benchmarks report --only dense")
    text = path.read_text()
    assert "| x | at least 1 | 3 | `python -m benchmarks dense` |" in text
    assert "| y |" not in text
    assert text.index("## dense: ") < text.index("## workers: ")
    assert text.partition("## workers")[2] == before.partition("## workers")[2]
    assert text.count("by `python -m benchmarks report --only dense` on ") == 1
    figures, sections = page.read(path)
    assert figures.keys() == {"dense"}
    assert sections.keys() == {"dense", "workers"}


def test_the_committed_page_has_its_pictures_and_every_figure_its_command() -> None:
    folder = Path(page.__file__).parents[1]
    text = (folder / "RESULTS.md").read_text(encoding="utf-8")
    figures, sections = page.read(folder / "RESULTS.md")
    assert sum(map(len, figures.values())) == text.count("`python -m benchmarks ") - text.count(
        "`python -m benchmarks report"
    )
    for name, drawn in page.PICTURES.items():
        for picture in drawn:
            assert f"(plots/{picture})" in sections[name]
            assert (folder / "plots" / picture).is_file()
    assert "not to be trusted" not in text


def test_a_busy_machine_is_waited_for_and_then_refused(monkeypatch: Patch, capsys: Capture) -> None:
    busy = iter([2.0, 1.0, 0.1])
    monkeypatch.setattr(machine, "busy_cores", lambda: next(busy))
    machine.wait_until_idle(600)
    assert capsys.readouterr().out == "Waiting: other processes keep 2.0 cores busy.\n"
    monkeypatch.setattr(machine, "busy_cores", lambda: 2.0)
    with pytest.raises(SystemExit, match="end them, or pass --anyway"):
        machine.wait_until_idle(-1)


def test_nothing_is_written_on_a_busy_machine(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "busy_cores", lambda: 2.0)
    monkeypatch.setattr("time.monotonic", iter([0.0, 1e9]).__next__)
    monkeypatch.setattr(commands, "measure", None)
    with pytest.raises(SystemExit, match="kept the machine busy"):
        commands.main(["report", "--output", str(tmp_path)])
    assert not (tmp_path / "RESULTS.md").exists()


def test_anyway_measures_but_writes_no_page(
    monkeypatch: Patch, tmp_path: Path, capsys: Capture
) -> None:
    monkeypatch.setattr(machine, "busy_cores", lambda: 2.0)
    monkeypatch.setattr(commands, "measure", lambda name, *_: result(name, ("x", "7")))
    commands.main(["report", "--anyway", "--only", "dense", "--output", str(tmp_path)])
    assert "| x | at least 1 | 7 |" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_exact_stays_off_the_page(monkeypatch: Patch, tmp_path: Path) -> None:
    def failing(name: str, *_: object) -> Result:
        found = result(name, ("x", "7"))
        found.check(name != "dense", "as exact as promised")
        return found

    monkeypatch.setattr(commands, "measure", failing)
    monkeypatch.setattr(machine, "busy_cores", lambda: 0.0)
    with pytest.raises(SystemExit, match="dense: as exact as promised"):
        commands.main(["report", "--output", str(tmp_path)])
    _, sections = page.read(tmp_path / "RESULTS.md")
    assert sections.keys() == page.PARTS.keys() - {"dense"}
