"""Is what was passed usable? Each check names the argument, the rule, the value and the remedy."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def require_function(f: object) -> None:
    """Refuse what cannot be called."""
    if not callable(f):
        raise TypeError(
            f"f is a {type(f).__name__}, which cannot be called; pass a function of one array, "
            "such as lambda x: (x**2).sum()"
        )


def require_floating_array(name: str, x: object, h: object) -> None:
    """Refuse what cannot be moved by a step in place."""
    if not isinstance(x, np.ndarray):
        others = ", or a structure of arrays" if name != "x" else ""
        raise TypeError(
            f"{name} is a {type(x).__name__}, which cannot be perturbed in place; "
            f"pass np.asarray(x, dtype=float){others}"
        )
    if x.dtype.kind == "c":
        raise TypeError(
            f"{name} has dtype {x.dtype}, but the difference quotient is defined for real x only; "
            "pass the real and the imaginary part as a real array"
        )
    if x.dtype.kind != "f" or x.dtype.itemsize < 4:
        raise TypeError(
            f"{name} has dtype {x.dtype}, which cannot hold a step of {h}; "
            f"pass {name}.astype(float)"
        )
    if not x.flags.writeable:
        raise ValueError(
            f"{name} is read-only, but it is perturbed in place; pass a writable array such as "
            f"{name}.copy()"
        )


def require_moved(
    name: str, x: NDArray[Any], places: NDArray[np.intp], points: NDArray[Any], steps: Any
) -> None:
    """Refuse steps that are lost in the rounding of an element of x.

    ``points[i]`` is where ``x.flat[places[i]]`` is moved to, by multiples of ``steps[i]``.
    """
    values = x.view(np.ndarray)
    stuck = (points == values.reshape(-1)[places].reshape(-1, 1)).any(axis=1)
    if not stuck.any():
        return
    first = int(np.argmax(stuck))
    index = np.unravel_index(int(places[first]), x.shape)
    value, where = values[index], element(name, index)
    step = steps[first] if np.ndim(steps) else steps
    if np.isinf(value):
        raise ValueError(f"{where} is {value}, which no step changes; pass finite values")
    remedy = "a larger h" if values.dtype.itemsize >= 8 else f"{name}.astype(float), or a larger h"
    raise ValueError(
        f"{where} is {value}, where {values.dtype} has a spacing of "
        f"{np.spacing(abs(value)):.3g}, so a step of {step} is lost; pass {remedy}"
    )


def element(name: str, index: Any) -> str:
    """Write an element as in Python: x[1, 2], or x alone if it has no axes."""
    return f"{name}[{', '.join(str(int(i)) for i in index)}]" if len(index) else name
