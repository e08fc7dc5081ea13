"""Does the report command run? On small problems."""

from pathlib import Path

import pytest

from benchmarks.report import main


def test_report_writes_its_table_and_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--smoke", "--output", str(tmp_path)])
    assert (tmp_path / "RESULTS.md").read_text().count("|") > 50
    assert len(list((tmp_path / "plots").glob("*.png"))) == 5
    assert "written" in capsys.readouterr().out
