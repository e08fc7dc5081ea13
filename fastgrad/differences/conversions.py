"""What may stand for arrays: numbers, lists of them, arrays of other libraries, series of pandas.

Numbers, and lists of them, become new arrays, which f is given. A tensor of PyTorch in the memory
of the CPU is moved where it is, and f is given the tensor; so is any other library's array that
hands over its memory by DLPack. Series and data frames are made anew, with their labels, around
each array. Derivatives are returned in the kind of x.
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
interrupts: Any = LazyModule("fastgrad.jit.interrupts")  # which loads threading

Function = TypeVar("Function", bound=Callable[..., Any])

LIKE_X = frozenset({"gradient", "jacobian", "v", "h", "bounds"})
"""Arguments that may be of the kind of x."""

PRODUCTS = frozenset({"jvp", "vjp"})
"""Functions of x, and of what is multiplied by the Jacobian."""

CPU = 1
"""The number of the CPU among DLPack's types of devices."""

BOOK_STEP = 1e-4
"""The book's step."""


def takes_conversions(function: Function) -> Function:
    """Decorate a function of f and x, for which x may be something else than arrays.

    Where the book's step is taken by default, tensors in single precision get measured steps: their
    values have too few digits for it.
    """
    takes_books_step = BOOK_STEP in (function.__defaults__ or ())
    before_h = [*function.__code__.co_varnames].index("h") - 2 if takes_books_step else 0

    @wraps(function)
    def converting(f: Any, x: Any = None, *arguments: Any, **options: Any) -> Any:
        if type(x) is np.ndarray:  # as mostly
            return function(f, x, *arguments, **options)
        kind = None if hasattr(f, "params") else kind_of(x)  # of a net, x is a batch
        if kind is None:
            return function(f, x, *arguments, **options)
        conversion = kind(x)
        if takes_books_step and conversion.is_single and len(arguments) <= before_h:
            options.setdefault("h", "auto")
        return conversion.of_result(
            function(
                conversion.function(f),
                conversion.arrays,
                *map(conversion.argument, arguments),
                **{name: conversion.option(name, value) for name, value in options.items()},
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
    if any(map(_is_exported, parts)):
        return Exported
    return Numbers if any(map(is_number, parts)) else None


def _is_exported(x: Any) -> bool:
    """Say whether x hands over its memory by DLPack, and is no array of NumPy."""
    return hasattr(type(x), "__dlpack__") and not isinstance(x, np.ndarray)


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
        if isinstance(leaf, np.longdouble):
            return np.array(leaf)
        return np.array(as_number("x", leaf, "it is made of real numbers", "numbers such as 1.0"))

    def option(self, name: str, value: Any) -> Any:
        """Return an option with arrays in the place of what is of the kind of x."""
        if name in PRODUCTS and callable(value):
            return self.product(value)
        return self.argument(value) if name in LIKE_X else value

    def product(self, function: Any) -> Any:
        """Return a product with the Jacobian, ``function(x, v)``, as a function of arrays."""
        return function

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
    is_long = any(isinstance(leaf, np.longdouble) for _, leaf in leaves(numbers))
    try:
        return np.array(numbers, np.longdouble if is_long else np.float64)
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

    def product(self, function: Any) -> Any:
        """Return a product with the Jacobian, ``function(x, v)``, as a function of arrays."""

        def of_values(values: Any, v: Any, *args: Any) -> Any:
            return self.argument(function(self._around(values), self.in_kind(v, values), *args))

        return of_values

    def in_kind(self, new: Any, old: Any) -> Any:
        """Return the derivatives with the labels of x, if they have its shape."""
        is_like = isinstance(new, np.ndarray) and new.shape == old.shape
        return self._around(new) if is_like else new


class Exported(Numbers):
    """Arrays of other libraries, moved in their own memory, as DLPack hands it over.

    Attributes
    ----------
    given : array, or structure of arrays
        What f is given, and computes with.
    """

    why_not_traced = "it computes with arrays of another library"

    def __init__(self, x: Any) -> None:
        super().__init__(x)
        pairs = zip(leaves(x), leaves(self.arrays), strict=True)
        parts = [old if self.is_own(old) else new for (_, old), (_, new) in pairs]
        self.given = like(x, iter(parts))
        self._example = next(part for part in parts if self.is_own(part))

    def is_own(self, x: Any) -> bool:
        """Say whether x is one of the other library's arrays."""
        return _is_exported(x)

    def array(self, leaf: Any) -> Any:
        """Return the memory of a leaf of x."""
        if not self.is_own(leaf):
            return super().array(leaf)
        name, array = type(leaf).__name__, None
        try:
            if leaf.__dlpack_device__()[0] == CPU:
                array = np.from_dlpack(leaf)
                reason = "its memory is read-only"
            else:
                reason = f"it lies on the device {leaf.__dlpack_device__()}"
        except Exception as error:  # whatever its library raises
            interrupts.raise_interrupt(error)
            reason = f"it does not hand over its memory ({error})"
        if array is None or not array.flags.writeable:
            raise TypeError(
                f"x is a {name}, which cannot be moved in place, for {reason}; pass an array of "
                "NumPy, and let f make of it what it computes with"
            )
        return array

    def option(self, name: str, value: Any) -> Any:
        """Return an option with arrays in the place of what is of the kind of x."""
        if name == "vectorized" and value:
            raise ValueError(
                "vectorized is True, but f is given x itself, which is moved in its own memory; "
                "pass an array of NumPy, or leave vectorized out"
            )
        return super().option(name, value)

    def function(self, f: Any) -> Any:
        """Return f as a function of the arrays: it is given those whose memory they are."""

        def of_memory(arrays: Any, *args: Any) -> Any:
            if any(leaf.dtype.kind == "c" for _, leaf in leaves(arrays)):
                raise ValueError(
                    "scheme is 'complex', but x is moved in its own memory, which is real; pass "
                    "another scheme"
                )
            return self.called(f, self.given, *args)

        if not callable(f):
            return f
        of_memory.why_not_traced = self.why_not_traced  # type: ignore[attr-defined]  # a function's
        # What it reads is looked for as in the user's own.
        of_memory.__module__ = getattr(f, "__module__", None) or "__main__"
        return of_memory

    def called(self, function: Any, *arguments: Any) -> Any:
        """Return what a function of the user's gives, as arrays."""
        return self.numbers(function(*arguments))

    def product(self, function: Any) -> Any:
        """Return a product with the Jacobian, ``function(x, v)``, as a function of arrays."""
        return lambda _, v, *args: self.numbers(function(self.given, self.as_factor(v), *args))

    def numbers(self, value: Any) -> Any:
        """Return the library's arrays as NumPy's, or its numbers; anything else as it is."""
        if self.is_own(value):
            return self.as_array(value)[()]
        if is_structure(value):
            return like(value, (self.numbers(leaf) for _, leaf in leaves(value)))
        return value

    def as_array(self, value: Any) -> Any:
        """Return an array of the library, wherever it is, as one of NumPy."""
        return np.from_dlpack(value) if value.__dlpack_device__()[0] == CPU else np.array(value)

    def argument(self, value: Any) -> Any:
        """Return what goes with x, such as a gradient, as arrays."""
        if callable(value) and not self.is_own(value):
            return lambda _, *args: self.numbers(value(self.given, *args))
        return self.numbers(value)

    def as_factor(self, array: Any) -> Any:
        """Return an array as the library's own, in the precision in which f computes."""
        return self.as_own(array.astype(self.as_array(self._example).dtype))

    def as_own(self, array: Any) -> Any:
        """Return an array of NumPy as one of the library, if that makes some of others."""
        if not hasattr(self._example, "__array_namespace__"):
            return array
        library = self._example.__array_namespace__()
        return library.from_dlpack(np.ascontiguousarray(array).reshape(array.shape))

    def in_kind(self, new: Any, old: Any) -> Any:
        """Return the derivatives with respect to one of the library's arrays as such."""
        if self.is_own(old) and isinstance(new, np.ndarray):
            return self.as_own(new)
        return super().in_kind(new, old)


class Tensors(Exported):
    """Tensors of PyTorch, moved in their own memory, without a record of gradients."""

    why_not_traced = "it computes with tensors of PyTorch"

    def __init__(self, x: Any) -> None:
        self.torch: Any = sys.modules["torch"]
        super().__init__(x)
        self._memories = [(leaf, leaf.detach()) for _, leaf in leaves(x) if self.is_own(leaf)]
        self.is_single = any(
            self.is_own(leaf) and leaf.dtype == self.torch.float32 for _, leaf in leaves(x)
        )

    def is_own(self, x: Any) -> bool:
        """Say whether x is a tensor."""
        return isinstance(x, self.torch.Tensor)

    def array(self, leaf: Any) -> Any:
        """Return the memory of a tensor."""
        if not self.is_own(leaf):
            return super().array(leaf)
        if leaf.dtype not in (self.torch.float32, self.torch.float64):
            raise TypeError(
                f"x has a tensor of {leaf.dtype}, whose elements cannot be moved by small steps; "
                "pass x.double(), and of a module dict(module.named_parameters())"
            )
        try:
            return leaf.detach().numpy()
        except (TypeError, RuntimeError) as error:
            raise TypeError(
                f"x is a tensor on {leaf.device} of {leaf.dtype} and {leaf.layout}, whose elements "
                f"cannot be moved in place: {error}; pass a dense one of the CPU, as x.cpu()"
            ) from None

    def called(self, function: Any, *arguments: Any) -> Any:
        """Return what a function of the user's gives, as arrays; no gradients are recorded."""
        with self.torch.no_grad():
            result = super().called(function, *arguments)
        moved = [pair for pair in self._memories if pair[0].data_ptr() != pair[1].data_ptr()]
        for leaf, memory in moved:
            leaf.data = memory
        if moved:
            raise ValueError(
                "f moves a tensor of x to other memory, as module.double() does, so that it does "
                "not see x move; do that before, and let f compute"
            )
        return result

    def as_array(self, value: Any) -> Any:
        """Return a tensor, wherever it is, as an array."""
        return value.detach().to_dense().cpu().numpy()

    def as_own(self, array: Any) -> Any:
        """Return an array as a tensor."""
        return self.torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
