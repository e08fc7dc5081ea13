"""A shorter program with the same fault, found by leaving out statements one after the other."""

import re
from copy import deepcopy

from .judge import judge


def shrunk(program, certify):
    """Return a program from which nothing more can be left out while its verdict stays."""
    verdict = judge(program, certify=certify)

    def still(candidate):
        found = judge(candidate, certify=certify)
        return (found.kind, found.warned[:20]) == (verdict.kind, verdict.warned[:20])

    while True:
        shorter = next(filter(still, _shorter(program)), None)
        if shorter is None:
            return program
        program = shorter


def _shorter(program):
    """Iterate over programs with a little less."""
    for name in ("steps", "body", "setup", "terms"):
        items = getattr(program, name, [])
        for i in reversed(range(len(items))):
            if len(items) > 1 or name != "terms":
                yield _with(program, name, [*items[:i], *items[i + 1 :]])
    for i, line in reversed([*enumerate(program.body)]):
        lines = line.split("\n")
        for j in reversed(range(len(lines))):
            if len(lines) > 1:
                fewer = "\n".join([*lines[:j], *lines[j + 1 :]])
                yield _with(program, "body", [*program.body[:i], fewer, *program.body[i + 1 :]])
        for simple in _simpler(line):
            yield _with(program, "body", [*program.body[:i], simple, *program.body[i + 1 :]])
    for i, term in enumerate(program.terms):
        for simple in dict.fromkeys(re.findall(r"\b[vtm]\d+\b", term)):
            if f"{simple}.sum()" != term and "return" in program.result:
                yield _with(
                    program,
                    "terms",
                    [*program.terms[:i], f"{simple}.sum()", *program.terms[i + 1 :]],
                )
    if program.result != "return loss":
        yield _with(program, "result", "return loss")
    if program.wrapping != "def f(w):\n    BODY":
        yield _with(_with(program, "wrapping", "def f(w):\n    BODY"), "access", "")
    if program.scheme != "central":
        yield _with(program, "scheme", "central")
    if program.h != 1e-4:
        yield _with(program, "h", 1e-4)


def _simpler(line):
    """Iterate over assignments of one of the variables that an expression reads."""
    match = re.fullmatch(r"([vtm]\d+) = (.*)", line)
    if match:
        for name in dict.fromkeys(re.findall(r"\b(?:[vtmA]\d+|w)\b", match[2])):
            if name != match[2]:
                yield f"{match[1]} = {name}"


def _with(program, name, value):
    copy = deepcopy(program)
    setattr(copy, name, value)
    return copy
