"""What may stand for arrays: numbers, lists of them, tensors of PyTorch, and series of pandas.

Numbers, and lists of them, become new arrays, which f is given. A tensor in the memory of the CPU
is moved where it is, and f is given the tensor. Series and data frames are made anew, with their
labels, around each array. Derivatives are returned in the kind of x.
"""

import sys
from collections.abc import Callable
from functools import wraps
from itertools import product
from numbers import Real
from typing import Any, TypeVar, cast

import numpy as np

from fastgrad.differences.arguments import as_number, is_structure, leaves, like
from fastgrad.lazy import LazyModule

dataclasses: Any = LazyModule("dataclasses")

Function = TypeVar("Function", bound=Callable[..., Any])

LIKE_X = frozenset({"gradient", "jacobian", "v", "h", "bounds"})
"""Arguments that may be of the kind of x."""

BOOK_STEP = 1e-4
"""The book's step."""


def takes_conversions(function: Function) -> Function:
    """Decorate a function of f and x, for which x may be something else than arrays.

    Where the book's step is taken by default, tensors in single precision get measured steps: their
    values have too few digits for it.
    """
    takes_books_step = BOOK_STEP in (function.__defaults__ or ())

    @wraps(function)
    def converting(f: Any, x: Any = None, *arguments: Any, **options: Any) -> Any:
        if type(x) is np.ndarray:  # as mostly
            return function(f, x, *arguments, **options)
        kind = None if hasattr(f, "params") else kind_of(x)  # of a net, x is a batch
        if kind is None:
            return function(f, x, *arguments, **options)
        conversion = kind(x)
        if takes_books_step and conversion.is_single and not arguments:
            options.setdefault("h", "auto")
        return conversion.of_result(
            function(
                conversion.function(f),
                conversion.arrays,
                *map(conversion.argument, arguments),
                **{
                    name: conversion.argument(value) if name in LIKE_X else value
                    for name, value in options.items()
                },
            )
        )

    return cast(Function, converting)


def kind_of(x: Any) -> "type[Numbers] | None":
    """Return how x is converted; None if it is made of arrays, or of what is refused."""
    if _is_of("pandas", x, "Series", "DataFrame"):
        return Labelled
    parts = [leaf for _, leaf in leaves(x)]
    if any(_is_of("torch", leaf, "Tensor") for leaf in parts):
        return Tensors
    return Numbers if any(map(is_number, parts)) else None


def _is_of(package: str, x: Any, *classes: str) -> bool:
    """Say whether x is of a class of a package, which is not loaded if nobody has."""
    module = sys.modules.get(package)
    kinds = [getattr(module, name, None) for name in classes] if module is not None else []
    return isinstance(x, tuple(kind for kind in kinds if isinstance(kind, type)))


def is_number(x: Any) -> bool:
    """Say whether x is a real number, and no array."""
    return isinstance(x, Real) and not isinstance(x, (bool, np.bool_))


class Numbers:
    """Numbers, and lists of them, as new arrays.

    Attributes
    ----------
    original : number, list, tuple or dict
        x as it was given.
    arrays : array, or structure of arrays
        What is moved, and what f is given.
    is_single : bool
        Whether f computes in single precision.
    """

    is_single = False

    def __init__(self, x: Any) -> None:
        self.original = x
        self.arrays = like(x, (self.array(leaf) for _, leaf in leaves(x)))
        is_named = not isinstance(x, (list, tuple)) or hasattr(x, "_fields")
        if not is_named and all(is_number(leaf) for _, leaf in leaves(x)):
            self.original = self.arrays = _rectangular(x)

    def array(self, leaf: Any) -> Any:
        """Return the array that stands for a leaf of x."""
        if not is_number(leaf):
            return leaf
        return np.array(as_number("x", leaf, "it is made of real numbers", "numbers such as 1.0"))

    def function(self, f: Any) -> Any:
        """Return f as a function of the arrays."""
        return f

    def argument(self, value: Any) -> Any:
        """Return what goes with x, such as a gradient, as arrays."""
        return value

    def of_result(self, result: Any) -> Any:
        """Return derivatives in the kind of x; anything else as it is."""
        if hasattr(type(result), "__dataclass_fields__") and hasattr(result, "step"):
            names = ("gradient", "error", "step")
            changes = {name: self.of_result(getattr(result, name)) for name in names}
            return dataclasses.replace(cast(Any, result), **changes)
        if is_structure(self.original) and is_structure(result):
            originals = [old for _, old in leaves(self.original)]
            derivatives = [new for _, new in leaves(result)]
            if len(derivatives) > len(originals):  # second ones, with respect to each two leaves
                pairs = zip(derivatives, product(originals, repeat=2), strict=True)
                return like(result, (self.in_kind(self.in_kind(d, a), b) for d, (a, b) in pairs))
            return like(result, map(self.in_kind, derivatives, originals))
        return result if is_structure(self.original) else self.in_kind(result, self.original)

    def in_kind(self, new: Any, old: Any) -> Any:
        """Return the derivatives with respect to a leaf of x in its kind."""
        return new[()] if is_number(old) and isinstance(new, np.ndarray) else new


def movable(x: Any) -> Any:
    """Return x, with copies of floats for the arrays whose elements cannot be moved in place.

    What can be moved is not copied: f may read it elsewhere. Numbers become arrays.
    """
    if kind_of(x) is Numbers:
        x = Numbers(x).arrays
    if not is_structure(x):
        return _movable_array(x)
    parts = [leaf for _, leaf in leaves(x)]
    converted = [*map(_movable_array, parts)]
    same = all(new is old for new, old in zip(converted, parts, strict=True))
    return x if same else like(x, iter(converted))


def _movable_array(x: Any) -> Any:
    if not isinstance(x, np.ndarray) or (x.dtype.kind == "f" and x.flags.writeable):
        return x
    array = np.array(x, subok=True)
    return array.astype(np.float64) if array.dtype.kind in "iu" else array


def _rectangular(numbers: Any) -> Any:
    """Return an array of nested lists of numbers."""
    try:
        return np.array(numbers, np.float64)
    except OverflowError:
        raise ValueError("x has a number that no float64 can hold; pass smaller ones") from None
    except ValueError:
        raise ValueError(
            "x is a list of lists that do not have the same length; pass a list of arrays"
        ) from None


class Labelled(Numbers):
    """A Series or DataFrame of pandas, made anew around an array of its values."""

    def __init__(self, x: Any) -> None:
        self.original = x
        try:
            self.arrays = np.array(x, np.float64)
        except (TypeError, ValueError):
            kinds = sorted({str(kind) for kind in np.atleast_1d(np.asarray(x.dtypes, object))})
            raise TypeError(
                f"x is a {type(x).__name__} of dtype {', '.join(kinds)}, but it is moved by small "
                "steps; pass columns of numbers"
            ) from None

    def _around(self, values: Any) -> Any:
        x = self.original
        labels = {"columns": x.columns} if x.ndim > 1 else {"name": x.name}
        return type(x)(values, index=x.index, copy=False, **labels)

    def function(self, f: Any) -> Any:
        """Return f as a function of the arrays."""

        def of_values(values: Any, *args: Any) -> Any:
            return f(self._around(values), *args)

        return of_values if callable(f) else f

    def argument(self, value: Any) -> Any:
        """Return what goes with x, such as a gradient, as arrays."""
        if callable(value):
            return self.function(value)
        return np.asarray(value) if _is_of("pandas", value, "Series", "DataFrame") else value

    def in_kind(self, new: Any, old: Any) -> Any:
        """Return the derivatives with the labels of x, if they have its shape."""
        return self._around(new) if np.shape(new) == old.shape else new


class Tensors(Numbers):
    """Tensors of PyTorch, moved in their own memory, without a record of gradients."""

    def __init__(self, x: Any) -> None:
        self.torch: Any = sys.modules["torch"]
        super().__init__(x)
        of_x, of_arrays = leaves(x), leaves(self.arrays)
        self.given = like(
            x,
            (
                old if self._is_tensor(old) else new
                for (_, old), (_, new) in zip(of_x, of_arrays, strict=True)
            ),
        )
        self.is_single = any(
            self._is_tensor(leaf) and leaf.dtype == self.torch.float32 for _, leaf in leaves(x)
        )

    def _is_tensor(self, x: Any) -> bool:
        return isinstance(x, self.torch.Tensor)

    def array(self, leaf: Any) -> Any:
        """Return the memory of a tensor."""
        if not self._is_tensor(leaf):
            return super().array(leaf)
        try:
            return leaf.detach().numpy()
        except (TypeError, RuntimeError) as error:
            raise TypeError(
                f"x is a tensor on {leaf.device} of {leaf.dtype} and {leaf.layout}, whose elements "
                f"cannot be moved in place: {error}; pass a dense one of the CPU, as x.cpu()"
            ) from None

    def function(self, f: Any) -> Any:
        """Return f as a function of the arrays: it is given the tensors, whose memory they are."""

        def of_memory(arrays: Any, *args: Any) -> Any:
            if any(leaf.dtype.kind == "c" for _, leaf in leaves(arrays)):
                raise ValueError(
                    "scheme is 'complex', but tensors are moved in their own memory, which is "
                    "real; pass another scheme"
                )
            with self.torch.no_grad():
                return self.numbers(f(self.given, *args))

        reason = "it computes with tensors of PyTorch"
        of_memory.why_not_traced = reason  # type: ignore[attr-defined]  # functions may have any
        return of_memory if callable(f) else f

    def numbers(self, value: Any) -> Any:
        """Return tensors as arrays, or numbers of NumPy; anything else as it is."""
        if self._is_tensor(value):
            return value.detach().cpu().numpy()[()]
        if is_structure(value):
            return like(value, (self.numbers(leaf) for _, leaf in leaves(value)))
        return value

    def argument(self, value: Any) -> Any:
        """Return what goes with x, such as a gradient, as arrays."""
        if callable(value) and not self._is_tensor(value):
            return lambda _, *args: self.numbers(value(self.given, *args))
        return self.numbers(value)

    def in_kind(self, new: Any, old: Any) -> Any:
        """Return the derivatives with respect to a tensor as a tensor."""
        if self._is_tensor(old) and isinstance(new, np.ndarray):
            return self.torch.from_numpy(np.ascontiguousarray(new).reshape(new.shape))
        return super().in_kind(new, old)
