"""The files that a release needs: one version number, and tools that find what is wrong."""

import re
import tomllib
import zipfile
from pathlib import Path

import yaml  # which distributed needs

import fastgrad
from tools import check_wheel, oldest_requirements

ROOT = Path(__file__).parents[1]


def test_all_files_name_the_same_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    cited = re.search(r"^version: (.+)$", citation, re.MULTILINE)
    assert cited is not None
    assert {project["version"], cited[1]} == {fastgrad.__version__}


def test_the_wheel_s_check_finds_what_is_missing_and_what_does_not_belong(tmp_path):
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "fastgrad").rglob("*.py")]
    wheel = tmp_path / "fastgrad-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in [*files, *check_wheel.DATA, "fastgrad-1.dist-info/METADATA"]:
            archive.writestr(name, "")
    assert check_wheel.check(wheel) == []
    with zipfile.ZipFile(wheel, "w") as archive:
        for name in [*files, "fastgrad/py.typed", "tests/test_release.py"]:
            archive.writestr(name, "")
    assert check_wheel.check(wheel) == [
        "fastgrad/datasets/mnist_sample.npz is missing",
        "tests/test_release.py does not belong here",
    ]


def test_the_data_of_the_wheel_stand_in_the_tree():
    assert all((ROOT / name).is_file() for name in check_wheel.DATA)


def test_the_oldest_requirements_are_the_lower_ends_of_the_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lower = [each.split(",")[0].replace(">=", "==") for each in project["dependencies"]]
    assert oldest_requirements.requirements([])[: len(lower)] == lower
    newest = oldest_requirements.requirements(["numba"])
    assert newest[: len(lower)] == [lower[0], project["dependencies"][1]]


def test_workflows_and_hooks_name_files_that_exist():
    pages = [*(ROOT / ".github").rglob("*.*"), ROOT / ".pre-commit-config.yaml", ROOT / ".ci/run"]
    pages += [ROOT / "RELEASING.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = {*re.findall(r"\b(?:tests|tools|examples|benchmarks)/[\w/]+\.(?:py|md)\b", text)}
    assert {"tests/test_imports.py", "tools/check_wheel.py"} <= named
    assert {name for name in named if not (ROOT / name).is_file()} == set()


def test_workflows_and_forms_are_yaml_with_what_github_asks_for():
    for path in (ROOT / ".github/workflows").glob("*.yml"):
        workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert workflow.keys() >= {"name", "jobs", "permissions"}
        assert all(job["timeout-minutes"] for job in workflow["jobs"].values())
    forms = {path.stem for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml")} - {"config"}
    for form in forms:
        text = (ROOT / f".github/ISSUE_TEMPLATE/{form}.yml").read_text(encoding="utf-8")
        assert yaml.safe_load(text).keys() >= {"name", "description", "body"}
    assert forms
