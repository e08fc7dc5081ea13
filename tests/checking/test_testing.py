"""An assertion fails with the report, under pytest with no plug-in, and passes silently."""

import subprocess
import sys
from inspect import signature
from pathlib import Path

import numpy as np
import pytest

from fastgrad import check_gradient, testing
from fastgrad.testing import assert_gradient

ROOT = Path(__file__).parents[2]


def squares(x):
    return float((x**2).sum())


@pytest.mark.parametrize("fast", [False, True])
def test_a_right_gradient_passes(fast):
    x = np.linspace(-1, 1, 7)
    assert assert_gradient(squares, x, 2 * x, fast=fast) is None


def test_the_message_is_the_report():
    x = np.linspace(-1, 1, 7)
    with pytest.raises(AssertionError) as caught:
        assert_gradient(squares, x, -2 * x)
    assert str(caught.value).strip() == str(check_gradient(squares, x, -2 * x))


def test_all_options_but_the_progress_are_those_of_a_check(monkeypatch):
    given = {"t": None, "h": 1e-3, "args": (3.0,), "engine": "loop", "rtol": 1e-6}
    given |= {"fast": True, "max_seconds": 9.0, "outside": OSError}
    assert {*given} == {*signature(check_gradient).parameters} - {*"fx", "gradient", "progress"}
    seen = []
    monkeypatch.setattr(testing, "check_gradient", lambda *a, **options: seen.append((a, options)))
    with pytest.raises(AssertionError):  # None is no right report
        assert_gradient(squares, 1.0, 2.0, **given)
    assert seen == [((squares, 1.0, 2.0), given)]


FAILING = """
import numpy as np
from fastgrad.testing import assert_gradient

def test_backward():
    x = np.array([1.0, 2.0, 3.0])
    assert_gradient(lambda x: float((x**2).sum()), x, x)
"""


def test_pytest_shows_the_report_and_the_callers_line(tmp_path):
    (tmp_path / "test_it.py").write_text(FAILING)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_it.py"]
    finished = subprocess.run(
        [*command, "-o", f"pythonpath={ROOT}", "--rootdir", tmp_path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 1, finished.stdout + finished.stderr
    assert "E       - x: half of what it should be" in finished.stdout
    assert "test_it.py:7: AssertionError" in finished.stdout
    assert "testing.py" not in finished.stdout
