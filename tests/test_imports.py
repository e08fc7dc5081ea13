"""Imports in fastgrad/ point down, from floor to floor, and never in a circle."""

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]

Edge = tuple[str, str]

FLOORS = (
    {"fastgrad", "testing"},
    {"checking", "hessians", "hessian_rows"},
    {"gradient", "jacobians", "adaptive", "directional", "network", "cluster", "sparse"},
    {"probing"},
    {"colouring"},
    {"engines"},
    {"differences"},
    {"schemes", "tracing", "jit", "datasets", "reference"},
    {"typing", "lazy"},
)
"""Files and folders of fastgrad/, from the top floor down; each imports from its own and lower."""

UPWARD: dict[Edge, str] = {}
"""Known imports that point upward, and why they are there."""

UPWARD_LATER: dict[Edge, str] = {}
"""The same of imports inside functions, and of those for annotations."""

CIRCLES_LATER = {
    frozenset({"tracing.recorder", "tracing.stand_in"}): "stand-ins know their recording",
    frozenset({"checking.report", "checking.plots"}): "a notebook shows a report with its pictures",
}
"""Circles that close by an import inside a function, or for annotations."""


def test_every_file_has_a_floor():
    named = set().union(*FLOORS)
    assert sum(map(len, FLOORS)) == len(named), "a name stands on two floors"
    assert {room(name) for name in modules()} == named


def test_no_import_points_upward():
    at_once, later = imports()
    assert set(upward(at_once)) == set(UPWARD), "imports that point upward, beside those known"
    assert set(upward(later - at_once)) == set(UPWARD_LATER), "the same, inside functions"


def test_no_imports_go_round_in_a_circle():
    at_once, later = imports()
    assert circles(at_once) == set(), "modules that import each other, whichever comes first"
    assert circles(at_once | later) == set(CIRCLES_LATER), "the same, by imports inside functions"


def test_a_planted_circle_and_a_planted_upward_import_are_found():
    problem = "differences.problem"
    edges = {("engines.loop", "gradient"), ("gradient", problem), (problem, "engines.loop")}
    assert upward(edges) == [(problem, "engines.loop"), ("engines.loop", "gradient")]
    assert circles(edges) == {frozenset({"engines.loop", "gradient", problem})}
    source = (
        "from fastgrad import schemes\n"
        "def f():\n    import fastgrad.engines.loop\n"
        "if TYPE_CHECKING:\n    from fastgrad.gradient import numerical_gradient\n"
    )
    known = {"fastgrad", "schemes", "gradient", "engines.loop"}
    assert [*imported(ast.parse(source), known)] == [
        ("schemes", True),
        ("engines.loop", False),
        ("gradient", False),
    ]


def modules() -> dict[str, Path]:
    """Return the files by their names in fastgrad, such as "engines.loop"; it itself is one."""
    files = {}
    for path in sorted((ROOT / "fastgrad").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[short(".".join(parts[:-1] if parts[-1] == "__init__" else parts))] = path
    return files


def short(name: str) -> str:
    return name.removeprefix("fastgrad.")


def room(name: str) -> str:
    """Return the part of a name that stands in the table of floors."""
    return name.partition(".")[0]


@cache
def imports() -> tuple[set[Edge], set[Edge]]:
    """Return who imports whom when it is imported, and who does later or for annotations."""
    files = modules()
    at_once, later = set(), set()
    for name, path in files.items():
        for other, is_at_once in imported(ast.parse(path.read_text(encoding="utf-8")), set(files)):
            (at_once if is_at_once else later).add((name, other))
    return at_once, later


def imported(tree: ast.AST, known: set[str], at_once: bool = True) -> Iterator[tuple[str, bool]]:
    """Yield what a file imports of fastgrad, and whether it does so when it is imported itself."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            module = node.module or ""
            if room(module) == "fastgrad":
                for alias in node.names:
                    name = short(f"{module}.{alias.name}")
                    yield (name if name in known else short(module)), at_once
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if room(alias.name) == "fastgrad":
                    yield short(alias.name), at_once
        else:
            is_later = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
            )
            yield from imported(node, known, at_once and not is_later)


def upward(edges: Iterable[Edge]) -> list[Edge]:
    """Return the imports from a higher floor."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    return sorted(edge for edge in edges if floor[room(edge[0])] > floor[room(edge[1])])


def circles(edges: Iterable[Edge]) -> set[frozenset[str]]:
    """Return the largest sets of modules of which each imports each, if by way of others."""
    reached: dict[str, set[str]] = {}
    for start, end in edges:
        reached.setdefault(start, set()).add(end)
    grows = True
    while grows:
        grows = False
        for ends in reached.values():
            more = set().union(*(reached.get(end, set()) for end in ends)) - ends
            ends |= more
            grows |= bool(more)
    return {
        frozenset(other for other in ends if name in reached.get(other, ()))
        for name, ends in reached.items()
        if name in ends
    }
