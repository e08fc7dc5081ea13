"""The libraries whose functions are not looked into: they hold no array of the user's."""

import sys

_LIBRARIES = (
    frozenset({"fastgrad", "numba", "numpy", "scipy", "matplotlib", "tqdm", "pytest", "_pytest"})
    | sys.stdlib_module_names
)

FORMULAS = frozenset({"fastgrad.network.functions", "fastgrad.reference"})
"""Modules of fastgrad's own that hold functions as users write them."""


def is_of_library(module: str) -> bool:
    """Say whether a module, by its name, belongs to Python or to one of these libraries."""
    return module.partition(".")[0] in _LIBRARIES
