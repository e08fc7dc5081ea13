"""The files and functions that ARCHITECTURE.md and CONTRIBUTING.md name exist."""

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NAMED = re.compile(r"`([\w/.]+\.py)(?:: ([\w.]+))?`")
"""A file, and perhaps what it defines: `engines/loop.py: values`."""

FOLDERS = ("fastgrad", "benchmarks", "tools", "tests")


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_every_name_on_the_page_exists(page):
    text = " ".join((ROOT / page).read_text(encoding="utf-8").split())  # names may be broken
    named = NAMED.findall(text)
    assert named
    assert [f"{file}: {name}" for file, name in named if not exists(file, name)] == []


def test_names_that_do_not_exist_are_found():
    assert exists("engines/loop.py", "values")
    assert exists("fastgrad/schemes.py", "Scheme.combine")
    assert not exists("engines/loop.py", "value")
    assert not exists("schemes.py", "Scheme.compose")
    assert not exists("engines/loops.py", "")


def test_no_two_files_of_tests_have_one_name():
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []  # pytest would stop there


def exists(file: str, name: str) -> bool:
    """Say whether a file stands somewhere, and defines a name, if one is given."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob(Path(file).name)]
    paths = [path for path in found if path.as_posix().endswith(f"/{file}")]
    return any(not name or name in defined(path) for path in paths)


def defined(path: Path) -> set[str]:
    """Return the names of a file's functions, classes, methods, types and constants."""
    names = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{part.name}" for part in node.body if hasattr(part, "name")}
    return names
