"""The pages in docs/ and the README: every block of Python runs, every public name has an entry.

The blocks of a page share a namespace, as a reader types them one after the other. Sphinx executes
the notebooks among the pages, too; `.ci/run` builds them.
"""

import re
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType

import numba
import pytest
from matplotlib import pyplot

import fastgrad
from fastgrad.datasets import load_mnist_sample
from tools import draw_docs

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"

BLOCK = re.compile(r"^(?:(`{3,})(.+)|<!-- (python))\n((?:.*\n)*?)(?:\1|-->)$", re.MULTILINE)
"""A fenced block and what stands behind its fence; or one that the page does not show."""

OPTIONS = re.compile(r"\A(?::.*\n)+")
"""What a notebook's cell begins with, such as `:tags: [hide-input]`."""


def blocks(path):
    """Return the blocks of Python of a page, and the number of the line before each."""
    text = path.read_text(encoding="utf-8")
    found = []
    for block in BLOCK.finditer(text):
        _, kind, hidden, code = block.groups()
        if hidden or kind.split()[0] in ("python", "{code-cell}"):
            code = OPTIONS.sub(lambda options: "\n" * options[0].count("\n"), code)
            found.append((code, text.count("\n", 0, block.start()) + 1))
    return found


TRANSLATIONS = [
    page for language in ("ko", "ja") for page in sorted((DOCS / language).glob("*.md"))
]

PAGES = [
    ROOT / "README.md",
    *(page for page in sorted(DOCS.rglob("*.md")) if blocks(page) and page not in TRANSLATIONS),
]


def test_all_blocks_are_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "```python\nx = 1\n```\n\n```text\nno\n```\n<!-- python\ny = 2\n-->\n"
        "````{code-cell} ipython3\n:tags: [hide-input]\n\nz = 3\n````\n"
    )
    assert [code.strip() for code, _ in blocks(page)] == ["x = 1", "y = 2", "z = 3"]
    assert [line for _, line in blocks(page)] == [1, 8, 11]


@pytest.mark.skipif(bool(numba.config.DISABLE_JIT), reason="kernels as plain Python are too slow")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_blocks_of_a_page_run(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fastgrad, "load_mnist", load_mnist_sample)  # no test needs a network
    monkeypatch.setattr(pyplot, "show", lambda: None)
    module = ModuleType("__main__")  # processes are sent its functions, as a script's
    monkeypatch.setitem(sys.modules, "__main__", module)
    pyplot.switch_backend("agg")
    try:
        for code, line in blocks(page):
            exec(compile("\n" * line + code, page, "exec"), module.__dict__)
    finally:
        pyplot.close("all")


@pytest.mark.parametrize("page", TRANSLATIONS, ids=lambda page: page.relative_to(DOCS).as_posix())
def test_a_translation_has_the_code_of_the_english_page(page):
    assert [code for code, _ in blocks(page)] == [code for code, _ in blocks(DOCS / page.name)]
    headings = [
        re.findall(r"^#+ ", each.read_text("utf-8"), re.MULTILINE)
        for each in (page, DOCS / page.name)
    ]
    assert page.name == "index.md" or headings[0] == headings[1]


@pytest.mark.parametrize("name", ["README.ko.md", "README.ja.md"])
def test_a_translated_readme_has_blocks_of_the_english_one(name):
    english = (ROOT / "README.md").read_text(encoding="utf-8")
    found = re.findall(r"^```\w+\n.*?^```$", (ROOT / name).read_text("utf-8"), re.M | re.DOTALL)
    places = [english.index(block) for block in found]  # each is there, or this raises an error
    assert len(places) >= 5
    assert places == sorted(places)


def test_no_block_is_without_the_name_of_its_language():
    for page in [ROOT / "README.md", *DOCS.rglob("*.md")]:
        fences = re.findall(r"^(`{3,})(.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert all(kind for _, kind in fences[::2]), page
        assert not any(kind for _, kind in fences[1::2]), page


def test_what_is_included_of_the_results_is_there():
    """As when the report is written anew, with another lead to a table."""
    results = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    for page in DOCS.rglob("*.md"):
        ends = re.findall(r'^:(?:start-after|end-before): "(.*)"$', page.read_text("utf-8"), re.M)
        assert [end for end in ends if end not in results] == [], page


def test_the_drawings_are_those_that_the_command_draws(tmp_path):
    draw_docs.draw_all(tmp_path)
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (DOCS / "pictures").iterdir()}
    shown = [(DOCS / name).read_text(encoding="utf-8") for name in ("how_it_works.md", "conf.py")]
    assert all(f"pictures/{name}" in "".join(shown) for name in drawn)


# The reference

MODULES = (
    "fastgrad", "fastgrad.checking.plots", "fastgrad.cluster", "fastgrad.datasets",
    "fastgrad.network.functions", "fastgrad.reference", "fastgrad.schemes", "fastgrad.testing",
)  # fmt: skip
"""Those whose names users import."""


def public_names(name):
    """Return the names that a module offers: those in ``__all__``, or all that it defines."""
    module = import_module(name)
    defined = [each for each, value in vars(module).items() if is_defined_in(module, value)]
    names = getattr(module, "__all__", [each for each in defined if not each.startswith("_")])
    return {each for each in names if not isinstance(getattr(module, each), ModuleType)}


def is_defined_in(module, value):
    return callable(value) and getattr(value, "__module__", None) == module.__name__


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_has_an_entry_in_the_reference(name):
    text = "\n".join(page.read_text(encoding="utf-8") for page in (DOCS / "api").glob("*.md"))
    if f".. automodule:: {name}\n   :members:" in text:
        return
    entries = {each.rpartition(".")[2] for each in re.findall(r"\.\. auto\w+:: (\S+)", text)}
    assert public_names(name) - entries - NOT_LISTED == set()


def test_every_entry_has_a_line_in_the_table_of_all():
    table = (DOCS / "api" / "index.md").read_text(encoding="utf-8")
    for page in (DOCS / "api").glob("*.md"):
        for name in re.findall(r"auto(?:function|class):: (\S+)", page.read_text("utf-8")):
            assert f"   {name}\n" in table


NOT_LISTED = {"curves", "inline"}  # which draw for others in the package
