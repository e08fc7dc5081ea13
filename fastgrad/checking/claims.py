"""Gradients that are claimed, fitted to the parameters or refused before any work."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from fastgrad.differences.trees import is_structure, leaves
from fastgrad.differences.validation import as_array
from fastgrad.typing import Array


@dataclass(frozen=True, eq=False)
class AnalyticGradient:
    """What is claimed of one array.

    Attributes
    ----------
    values : array (size,)
        In C order, in double precision at least; a copy, for layers reuse their arrays.
    eps : float
        The relative precision of the type in which it came.
    """

    values: Array
    eps: float


def as_analytic_gradients(gradient: Any, x: Any, batch: Any = None) -> list[AnalyticGradient]:
    """Return the arrays of a gradient, in the order of those of x.

    Parameters
    ----------
    gradient : array or structure
    x : array or structure
        What it is the gradient for.
    batch : Batch, optional
        Whose number of samples tells what a wrong shape comes from.

    Raises
    ------
    TypeError
        If something else than real numbers is in it.
    ValueError
        If it has other parts than x, or a part has another shape.
    """
    if not is_structure(x):
        return [_as_analytic_gradient("gradient", gradient, "x", x, batch)]
    wanted = dict(leaves(x, ""))
    given = dict(leaves(gradient, "")) if is_structure(gradient) else {}
    missing = [name for name in wanted if name not in given]
    if missing:
        parts = ", ".join(f"gradient{name}" for name in missing)
        raise ValueError(
            f"{parts} {'is' if len(missing) == 1 else 'are'} missing: the gradient "
            + (f"has {', '.join(given)}" if given else f"is a {type(gradient).__name__}")
            + f", but the parameters are {', '.join(wanted)}; return an array for each of them"
        )
    return [
        _as_analytic_gradient(f"gradient{name}", given[name], f"x{name}", array, batch)
        for name, array in wanted.items()
    ]


def _as_analytic_gradient(
    name: str, given: Any, x_name: str, x: Array, batch: Any
) -> AnalyticGradient:
    array = as_array(name, given, f"pass an array of shape {np.shape(x)}")
    if array.dtype.kind not in "fiu":
        raise TypeError(
            f"{name} has dtype {array.dtype}, but a gradient is made of real numbers; return an "
            "array of floats"
        )
    shape = np.shape(x)
    if array.shape != shape:
        samples = batch.samples if batch is not None else 0
        raise ValueError(
            f"{name} has shape {array.shape}, but {x_name} has shape {shape}; "
            f"{_remedy(array.shape, shape, samples)}"
        )
    eps = float(np.finfo(array.dtype).eps) if array.dtype.kind == "f" else 0.0
    wide = np.result_type(array.dtype, np.float64)
    return AnalyticGradient(
        np.array(array, wide, order="C").reshape(-1), max(eps, np.finfo(float).eps)
    )


def _remedy(given: tuple[int, ...], wanted: tuple[int, ...], samples: int) -> str:
    """Say what a wrong shape looks like."""
    if given == wanted[::-1]:
        return "these are the same lengths the other way round: it is transposed, return .T"
    if len(wanted) == 1 and given == (samples, *wanted):
        return "this is a row for each sample: sum over them, by .sum(axis=0)"
    if len(wanted) == 1 and samples and given == (samples,):
        return (
            f"{samples} is the number of samples: it is summed over the wrong axis, "
            "sum over the samples, by .sum(axis=0)"
        )
    if np.prod(given, dtype=int) == np.prod(wanted, dtype=int):
        return f"these are as many elements: return .reshape{wanted}, if their order is right"
    if given == ():
        return "this is a single number: sum over the samples alone, by .sum(axis=0)"
    return "return an array of that shape"
