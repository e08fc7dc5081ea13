"""How Sphinx builds these pages: `sphinx-build -W --keep-going -j auto docs build/docs`."""

import os
import re
from pathlib import Path
from typing import Any, TypeVar

import nbformat
from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx

import fastgrad

ROOT = Path(__file__).parents[1]
os.environ.pop("MPLBACKEND", None)  # or notebooks would show no figures

project = "fastgrad"
author = "The fastgrad developers"
copyright = author
version = release = fastgrad.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "numpydoc",
    "sphinx_copybutton",
]

# Pages
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
nb_output_stderr = "remove"  # bars of progress
nb_merge_streams = True

# The reference
autosummary_generate = False
autodoc_typehints = "none"  # the docstrings say it in words
autodoc_member_order = "bysource"
default_role = "autolink"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

# Links: those within must lead somewhere; `sphinx-build -b linkcheck` follows the others.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(collections|numpy|scipy|multiprocessing|distributed)\..*"),
    (r"py:.*", r"fastgrad\.network\.\w+\.(class_indices|plan_responses)"),  # not for users
]
linkcheck_timeout = 20

# The look
html_theme = "pydata_sphinx_theme"
html_title = "fastgrad"
templates_path = ["_templates"]
html_static_path = ["_static"]
html_css_files = ["fastgrad.css"]
html_sidebars = {"get_started": []}
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "navigation_with_keys": False,
    "show_prev_next": True,
    "article_header_end": ["notebook"],
    "secondary_sidebar_items": ["page-toc"],
    "footer_start": ["copyright"],
    "footer_end": [],
    "header_links_before_dropdown": 8,
}

PAGES = {
    f"{ROOT}/ARCHITECTURE": "architecture",
    f"{ROOT}/CONTRIBUTING": "contributing",
    f"{ROOT}/benchmarks/RESULTS": "benchmarks",
}
"""Files of the repository that pages include -> the pages."""


def lead_to_pages(app: Sphinx, doctree: nodes.document) -> None:
    """Let links to files that are included here lead to the pages that include them."""
    for link in doctree.findall(pending_xref):
        link["reftarget"] = PAGES.get(link["reftarget"], link["reftarget"])


def leave_out(app: Sphinx, what: str, name: str, member: Any, skip: bool, options: Any) -> Any:
    """Leave out type variables, of which numpydoc takes no docstring."""
    return True if isinstance(member, TypeVar) else None


def draw_rooms(app: Sphinx, doctree: nodes.document) -> None:
    """Show the picture of the rooms where ARCHITECTURE.md has its text, which GitHub draws."""
    for block in doctree.findall(nodes.literal_block):
        if block.get("language") == "mermaid":
            block.replace_self(nodes.image(uri="pictures/rooms.svg", alt="The rooms"))


def offer_notebook(
    app: Sphinx, name: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Write a page that was executed as a notebook beside it, and tell the template."""
    source = Path(app.env.mystnb_config.output_folder) / f"{name}.ipynb"
    if source.is_file() and app.builder.format == "html":
        notebook = nbformat.read(source, 4)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = LINK.sub(r"\1", INCLUDE.sub(r"*(See the page: \1.)*", cell.source))
        notebook.cells.insert(0, nbformat.v4.new_code_cell(INSTALL))
        page = Path(app.outdir) / f"{name}.ipynb"
        page.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, page)
        context["notebook"] = f"{Path(name).name}.ipynb"


INSTALL = """\
try:
    import fastgrad
except ModuleNotFoundError:  # as in Colab
    %pip install --quiet "fastgrad[examples]"
"""
"""With what a notebook begins that was downloaded."""

INCLUDE = re.compile(r"^```\{include\} (\S+)\n.*?^```$", re.MULTILINE | re.DOTALL)
"""What Jupyter does not know."""

LINK = re.compile(r"\[([^\]]+)\]\((?!https?:)[^)]+\)")
"""A link to another page, which the notebook has not beside it."""


def visit_inline(translator: Any, node: nodes.math) -> None:
    """Write a formula within a sentence."""
    translator.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(translator: Any, node: nodes.math_block) -> None:
    """Write a formula on a line of its own."""
    translator.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def setup(app: Sphinx) -> None:
    """Formulas are MathML, which browsers draw by themselves: no script, and no network."""
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
    app.connect("autodoc-skip-member", leave_out)
    app.connect("doctree-read", lead_to_pages)
    app.connect("doctree-read", draw_rooms, priority=400)  # before images are collected
    app.connect("html-page-context", offer_notebook)


html_math_renderer = "mathml"
