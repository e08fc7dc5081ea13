"""Does the report command run? On small problems."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks import figures
from benchmarks.pairing import Times
from benchmarks.report import main


def test_report_writes_its_table_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def offline() -> Any:
        raise ConnectionError

    monkeypatch.setattr(figures, "load_mnist", offline)
    monkeypatch.setattr(figures, "first_gradient_times", lambda _: (2.0, Times([1.0])))
    main(["--smoke", "--output", str(tmp_path)])
    assert (tmp_path / "RESULTS.md").read_text().count("|") > 50
    assert len(list((tmp_path / "plots").glob("*.png"))) == 6
    assert "written" in capsys.readouterr().out
