"""Arguments: checks that name the rule, the value and the remedy; and structures of arrays."""

import math
import reprlib
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from itertools import islice
from numbers import Real
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from fastgrad.typing import Array, Places, Structure

PROBE_SCALE = 2.0**-10
"""By how much x is moved to see what f does beside it, in units of ``max(abs(x[i]), 1)``: near it,
and more than rounding takes away. It is also the step of problems that are moved along lines."""


def require_function(f: object) -> None:
    """Refuse what cannot be called."""
    if not callable(f):
        raise TypeError(
            f"f is a {type(f).__name__}, which cannot be called; pass a function of one array, "
            "such as lambda x: (x**2).sum()"
        )


def require_arguments(args: object, of: str = "f") -> None:
    """Refuse further arguments of a function that are no tuple."""
    if not isinstance(args, tuple):
        raise TypeError(
            f"args is a {type(args).__name__}; pass a tuple of {of}'s further arguments"
        )


def require_flag(name: str, value: object) -> None:
    """Refuse an option that is neither True nor False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(
            f"{name} is {reprlib.repr(value)} of type {type(value).__name__}, but it is True or "
            "False; pass one of them"
        )


def with_keywords(f: Any, kwargs: Any) -> Any:
    """Return f with further keyword arguments.

    Raises
    ------
    TypeError
        If they are given in another way than by a mapping of names.
    """
    if kwargs is None:
        return f
    require_function(f)
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise TypeError(
            f"kwargs is {reprlib.repr(kwargs)}, but it holds f's further arguments by their names; "
            "pass a dict such as {'scale': 2.0}"
        )
    return partial(f, **kwargs)


def as_number(name: str, value: object, meaning: str, example: str) -> float:
    """Return a real number as a float, infinite where no float can hold it; refuse anything else.

    Examples
    --------
    >>> as_number("h", 1, "the step is a real number", "one such as 1e-4")
    1.0
    """
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value[()]
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(
            f"{name} is {value!r} of type {type(value).__name__}, but {meaning}; pass {example}"
        )
    try:
        return float(value)
    except OverflowError:  # a whole number, or a fraction
        return math.inf


def as_positive_number(h: object) -> float:
    """Return the step h as a float.

    Raises
    ------
    TypeError
        If h is not a real number.
    ValueError
        If h is not positive and finite.

    Examples
    --------
    >>> as_positive_number(1)
    1.0
    """
    step = as_number("h", h, "the step is a real number", "one such as 1e-4")
    if not 0 < step < math.inf:
        raise ValueError(
            f"h is {step}, but the step is positive and finite; pass one such as 1e-4"
            f"{other_side(step)}"
        )
    return step


def other_side(step: float) -> str:
    """Return what to do for a step that is negative, as SciPy takes it, to end a message."""
    return ", and scheme='backward' for the other side of x" if step < 0 else ""


def check_end(kind: str) -> str:
    """Return what to do about an f that returns no real numbers, but this kind of dtype."""
    if kind == "c":
        return "differentiate lambda x: f(x).real and lambda x: f(x).imag, one by one"
    several = ", and that all of its numbers are in one array" if kind == "O" else ""
    return f"check what f ends with{several}"


def require_floating_array(name: str, x: object, h: object) -> None:
    """Refuse what cannot be moved by a step in place."""
    if isinstance(x, (complex, np.complexfloating)):
        x = np.array(x)
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
    if may_share_elements(x):
        raise ValueError(
            f"elements of {name} share memory, so that none of them can be moved alone; pass a "
            f"copy such as {name}.copy()"
        )


def may_share_elements(x: Array) -> bool:
    """Say whether some elements of an array have the same place in memory, as in a broadcast one.

    Examples
    --------
    >>> may_share_elements(np.broadcast_to(np.ones(3), (2, 3)))
    True
    """
    if x.flags.forc or not x.size:
        return False
    extent = x.dtype.itemsize
    axes = [(abs(stride), n) for stride, n in zip(x.strides, x.shape, strict=True) if n > 1]
    for stride, length in sorted(axes):
        if stride < extent:  # axes are interleaved: look at each element
            start = np.zeros(1, dtype=np.int64)
            for step, n in axes:
                start = np.add.outer(np.arange(n) * step, start).reshape(-1)
            places = np.sort(start)
            return bool((np.diff(places) < x.dtype.itemsize).any())
        extent += stride * (length - 1)
    return False


def is_masked_array(x: object) -> bool:
    """Say whether x is a masked array; NumPy's module of them, which takes long, is not loaded."""
    loaded = sys.modules.get("numpy.ma")  # by whoever has made one
    return isinstance(x, getattr(loaded, "MaskedArray", ()))


def require_unmasked(name: str, x: object) -> None:
    """Refuse an array with masked elements, which have no value to be compared."""
    if is_masked_array(x) and np.ma.is_masked(x):
        raise ValueError(
            f"{name} has masked elements, which have no value; pass the others, as in "
            f"{name}.compressed(), or numbers for all, as in {name}.filled(0.0)"
        )


def no_array(name: str, values: Any, remedy: str) -> TypeError:
    """Return what to raise where no array can be made of an argument."""
    return TypeError(f"{name} is {reprlib.repr(values)}, of which no array can be made; {remedy}")


def as_array(name: str, values: Any, remedy: str) -> Array:
    """Return an argument as an array; refuse what none can be made of."""
    try:
        return np.asarray(values)
    except Exception as error:  # whatever a foreign object raises
        raise no_array(name, values, remedy) from error


def as_real_array(name: str, values: Any, remedy: str) -> Array:
    """Return an argument as an array of real numbers; refuse anything else."""
    array = as_array(name, values, remedy)
    if array.dtype.kind not in "fiu":
        raise TypeError(f"{name} has dtype {array.dtype}, but it is real; pass floats")
    return array


def as_returned(value: Any) -> Array:
    """Return a copy of what f returned as an array; refuse what is none.

    A copy, for f may return the same array every time; of floats, where it is of fractions or other
    real numbers.
    """
    if is_masked_array(value) and np.ma.is_masked(value):
        raise TypeError(
            "f returned a masked value, which is no number; let it return numbers, for instance by "
            ".filled(0.0) of what is masked"
        )
    try:
        array = np.array(value)
        if array.dtype == object and all(isinstance(each, Real) for each in array.flat):
            with suppress(OverflowError):  # of a whole number that no float holds
                return array.astype(np.float64)
        return array
    except ValueError:
        raise TypeError(
            f"f returned {reprlib.repr(value)}, a {type(value).__name__} whose parts do not form "
            f"an array; {remedy_for(value)}"
        ) from None


def remedy_for(value: Any) -> str:
    """Return what to do about an f that returned more than a number."""
    if isinstance(value, tuple) and len(value) > 1:
        return "if it is a value with its gradient, pass lambda x: f(x)[0]"
    return "reduce the array, for instance by .sum() or .mean()"


def require_moved(
    name: str,
    x: Array,
    places: Places,
    points: Array,
    steps: Any,
    *,
    may_be_lost: bool = False,
) -> bool:
    """Refuse steps that are lost in the rounding of an element of x; or warn, if they may be.

    ``points[i]`` is where ``x.flat[places[i]]`` is moved to, by multiples of ``steps[i]``. Returns
    whether all are moved.
    """
    values = x.view(np.ndarray).reshape(-1)[places]
    stuck = (points == values.reshape(-1, 1)).any(axis=1)
    if not stuck.any():
        return True
    infinite = stuck & np.isinf(values)
    first = int(np.argmax(infinite if infinite.any() else stuck))
    value, where = values[first], element_at(name, places[first], x.shape)
    if infinite.any():
        raise ValueError(f"{where} is {value}, which no step changes; pass finite values")
    step = steps[first] if np.ndim(steps) else steps
    remedy = "a larger h" if values.dtype.itemsize >= 8 else f"{name}.astype(float), or a larger h"
    message = (
        f"{where} is {value}, where {values.dtype} has a spacing of "
        f"{np.spacing(abs(value)):.3g}, so a step of {step} is lost; pass {remedy}"
    )
    if not may_be_lost:
        raise ValueError(message)
    warn_caller(message)
    return False


def warn_caller(message: str) -> None:
    """Warn in the name of whoever called fastgrad."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and (
        str(frame.f_globals.get("__name__")).partition(".")[0] in ("fastgrad", "contextlib")
    ):
        level, frame = level + 1, frame.f_back
    warnings.warn(message, RuntimeWarning, stacklevel=level)


def warn_of_nonfinite(
    derivatives: Array,
    what: str,
    *names: tuple[str, int],
    index_of: Callable[[int], Iterable[Any]] | None = None,
) -> None:
    """Warn of derivatives that are nan or infinite.

    ``what`` says which one is the first, with a place for each name; that is of an array with so
    many axes. ``index_of`` tells the indices for a number, if these are not the array's own.
    """
    found = derivatives.view(np.ndarray)
    finite = np.isfinite(found)
    if np.count_nonzero(finite) < finite.size:
        first = int(np.argmax(~finite))
        indices = iter(index_of(first) if index_of else np.unravel_index(first, finite.shape))
        elements = [element(name, [*islice(indices, axes)]) for name, axes in names]
        warn_caller(
            f"{what.format(*elements)} is {found.flat[first]}, the first of "
            f"{finite.size - finite.sum()} that are not finite; f is nan or infinite there"
        )


def element_at(name: str, place: Any, shape: tuple[int, ...]) -> str:
    """Write the element with this number in C order, as `element` does."""
    return element(name, np.unravel_index(int(place), shape))


def element(name: str, index: Any) -> str:
    """Write an element as in Python: x[1, 2], or x alone if it has no axes."""
    return f"{name}[{', '.join(str(int(i)) for i in index)}]" if len(index) else name


def html_table(headings: Iterable[str], lines: Iterable[Iterable[str]]) -> str:
    """Write a table as notebooks show it.

    Examples
    --------
    >>> html_table(("a", "b"), [("1", "<2")])
    '<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>&lt;2</td></tr></table>'
    """
    from html import escape  # which only notebooks need

    def row(cells: Iterable[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    return f"<table>{row(headings, 'th')}{''.join(row(line, 'td') for line in lines)}</table>"


# Structures: dicts, lists and tuples of arrays ----------------------------------------------------


def leaves(structure: object, name: str = "x") -> Iterator[tuple[str, Any]]:
    """Iterate over what is in a structure, each with its name, as ``x['W1']``.

    Examples
    --------
    >>> list(leaves({"a": 1, "b": [2, 3]}))
    [("x['a']", 1), ("x['b'][0]", 2), ("x['b'][1]", 3)]
    """
    if isinstance(structure, dict):
        for key, part in structure.items():
            yield from leaves(part, f"{name}[{key!r}]")
    elif isinstance(structure, (list, tuple)):
        for index, part in enumerate(structure):
            yield from leaves(part, f"{name}[{index}]")
    else:
        yield name, users_array(structure)


def users_array(x: Any) -> Any:
    """Return the array for which x stands in; anything else as it is.

    While another thread records a function, arrays in dicts and attributes that both can reach are
    replaced by stand-ins (`fastgrad.tracing.stand_in`).
    """
    seen = getattr(type(x), "seen_by_gradient", None)
    return x if seen is None else seen(x)


def like(structure: Structure, items: Iterator[Any]) -> Structure:
    """Return a structure of the same form with these leaves.

    Subclasses of dict and list become plain ones; named tuples stay what they are.

    Examples
    --------
    >>> like({"a": 1, "b": (2, 3)}, iter("xyz"))
    {'a': 'x', 'b': ('y', 'z')}
    """
    result: Any
    if isinstance(structure, dict):
        result = {key: like(part, items) for key, part in structure.items()}
    elif isinstance(structure, (list, tuple)):
        result = [like(part, items) for part in structure]
        if isinstance(structure, tuple):
            is_named = hasattr(structure, "_fields")
            result = type(structure)(*result) if is_named else tuple(result)
    else:
        result = next(items)
    return result  # type: ignore[no-any-return]  # a structure like the given one


def is_structure(x: object) -> bool:
    """Say whether x is a dict, list or tuple."""
    return isinstance(x, (dict, list, tuple))


def require_separate(arrays: Iterable[tuple[str, Array]]) -> None:
    """Refuse arrays that share elements: what moves in one of them would move in the other, too."""
    extents = [(*byte_bounds(array), name, array) for name, array in arrays if array.size]
    reached: list[tuple[int, str, Array]] = []
    for start, end, name, array in sorted(extents, key=lambda extent: extent[0]):
        reached = [before for before in reached if before[0] > start]
        for _, other_name, other in reached:
            if np.shares_memory(array, other):
                raise ValueError(
                    f"{other_name} and {name} share memory, so that neither can be moved alone; "
                    "pass the array once, or a copy in one of the places"
                )
        reached.append((end, name, array))


class Call:
    """A function with its further arguments, and the structure in which one array is moved.

    Attributes
    ----------
    f : callable
        What is called: ``f(x, *args)``.
    args : list
        The further arguments.
    whole : structure or None
        What f is given as x instead of the array that is moved, which is one of its leaves.
    moved : array or None
        That leaf.
    """

    def __init__(
        self, f: Callable[..., Any], args: tuple[Any, ...], whole: Any, moved: Any
    ) -> None:
        self.f = f
        self.args = [*args]
        self.whole = whole
        self.moved = moved

    def __call__(self, x: Any) -> Any:
        """Return ``f(x, *args)``; another array than the leaf takes the leaf's place."""
        return self.f(self.given(x), *self.args)

    def given(self, x: Any) -> Any:
        """Return what f is given as x: the structure with this array in it."""
        if self.whole is None:
            return x
        if x is self.moved:
            return self.whole
        return like(
            self.whole, (x if part is self.moved else part for _, part in leaves(self.whole))
        )
