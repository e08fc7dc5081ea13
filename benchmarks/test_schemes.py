"""Do the pages on schemes and on gradients of any function come out? On small problems."""

from pathlib import Path

import pytest

from benchmarks import functions_report, schemes


def test_the_slope_of_each_schemes_error_is_its_accuracy_order() -> None:
    for scheme in schemes.SCHEMES.values():
        assert schemes.slope(scheme) == pytest.approx(scheme.accuracy, abs=0.02)


def test_every_way_to_rosenbrocks_gradient_gives_it() -> None:
    _, errors = schemes.measure_times([10])
    # eps**(2/3) times the function's scale, for steps that suit a scale of 1.
    assert max(errors.values()) < 1e-6


def test_the_page_is_written_with_its_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    functions_report.main(["--smoke", "--output", str(tmp_path), "schemes"])
    page = (tmp_path / "FUNCTIONS.md").read_text()
    assert page.count("|") > 100
    assert page.count("## ") == 1
    for name in functions_report.PICTURES:
        assert name in page
        assert (tmp_path / "plots" / name).read_bytes().startswith(b"\x89PNG")
    assert "written" in capsys.readouterr().out


def test_a_part_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        functions_report.main(["turbo"])
    assert "there are no parts turbo; pass schemes, " in capsys.readouterr().err
