"""Groups of a sparse Jacobian's columns: those of one group have no row in common."""

import importlib.util
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.differences.arguments import as_array
from fastgrad.lazy import LazyModule
from fastgrad.typing import Places

if TYPE_CHECKING:
    from scipy import sparse

    from fastgrad.jit import kernel
else:  # an extra, and many files
    kernel = LazyModule("fastgrad.jit.kernel")
    sparse = LazyModule("scipy.sparse")


def group_columns(structure: Any) -> Places:
    """Return the number of each column's group: columns of one group have no row in common.

    Parameters
    ----------
    structure : array or SciPy sparse array, (m, n)
        Which entries may be different from 0: those that are.

    Returns
    -------
    array (n,) of int
        Column after column, those with most entries in their rows first, gets the first group that
        fits (greedy colouring).

    References
    ----------
    A. R. Curtis, M. J. D. Powell and J. K. Reid, "On the estimation of sparse Jacobian matrices",
    IMA Journal of Applied Mathematics 13 (1974), 117-119.

    Examples
    --------
    >>> group_columns([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]])
    array([1, 0, 1, 0])
    """
    require_scipy()
    return groups_of(as_structure(structure))


def groups_of(by_rows: Any) -> Places:
    """Return the number of each column's group, of a structure by rows."""
    groups = np.full(by_rows.shape[1], -1, np.int64)
    by_columns = by_rows.tocsc()
    taken_by = np.full(len(groups) + 1, -1, np.int64)
    # Those first that fit least: with the most entries in all their rows.
    entries = by_columns.T.astype(np.int64) @ np.diff(by_rows.indptr)
    order = np.argsort(-entries, kind="stable")
    arrays = order, by_columns.indptr, by_columns.indices, by_rows.indptr, by_rows.indices
    _colouring()(*(array.astype(np.int64) for array in arrays), groups, taken_by)
    return groups


def _colour(
    order: Any,
    starts: Any,
    rows: Any,
    row_starts: Any,
    columns: Any,
    groups: Any,
    taken_by: Any,
) -> None:
    """Write the group of each column: the first one that no column with a common row is in."""
    for j in order:
        for k in range(starts[j], starts[j + 1]):
            for m in range(row_starts[rows[k]], row_starts[rows[k] + 1]):
                group = groups[columns[m]]
                if group >= 0:
                    taken_by[group] = j
        group = 0
        while taken_by[group] == j:
            group += 1
        groups[j] = group


@cache
def _colouring() -> Callable[..., None]:
    integers = "int64[::1]"
    signature = f"void({', '.join([integers] * 7)})"
    return kernel.compiled(_colour, _colour, signature)  # type: ignore[no-any-return]  # numba has no types


def require_scipy() -> None:
    """Refuse sparse arrays where SciPy is missing."""
    if importlib.util.find_spec("scipy") is None:
        raise ModuleNotFoundError(
            "sparse Jacobians need scipy, which is not installed; pip install 'fastgrad[sparse]'",
            name="scipy",
        )


def as_structure(structure: Any) -> Any:
    """Return where entries are, as a sparse array of bool by rows; refuse what is no matrix."""
    if not sparse.issparse(structure):
        structure = as_array("sparsity", structure, "pass an array (f(x).size, x.size) of 0 and 1")
    if structure.ndim != 2 or structure.dtype.kind not in "biuf":
        raise ValueError(
            f"sparsity is an array of shape {structure.shape} and dtype {structure.dtype}, but it "
            "says by 0 and 1 which entries, (f(x).size, x.size), may be different from 0; pass "
            "such an array, or 'detect'"
        )
    matrix = sparse.csr_array(structure).astype(bool)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix
