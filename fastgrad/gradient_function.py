"""What is the gradient as a function? An object that is called with x, such as optimizers want."""

from collections.abc import Callable
from inspect import signature
from typing import Any

import numpy as np

from fastgrad.arguments import as_array, require_function
from fastgrad.gradient import numerical_gradient
from fastgrad.structures import is_structure, leaves, like


class Gradient:
    """The gradient of f as a function of x: ``Gradient(f)(x)``.

    It computes what `numerical_gradient` does, and takes what that takes, lists of numbers,
    integers, and arrays that are read-only. It can be pickled if f can.

    Parameters
    ----------
    f : callable
        ``f(x, *args) -> number``. Of an x that cannot be moved in place it is given a copy.
    h : float, array or "auto"
        The step.
    args : tuple
        Further arguments of f, where the object is called without any.
    **options
        All others of `numerical_gradient`: engine, scheme and so on.

    Raises
    ------
    TypeError
        If f is not callable, or `numerical_gradient` has no such option. All else is checked when
        the object is called.

    Examples
    --------
    As `scipy.optimize.minimize(f, start, jac=gradient)` would call it:

    >>> gradient = Gradient(lambda x, a: a * (x**2).sum(), h="auto")
    >>> gradient([3, 4], 2.0).round(6)
    array([12., 16.])
    """

    def __init__(
        self,
        f: Callable[..., Any],
        h: Any = 1e-4,
        *,
        args: tuple[Any, ...] = (),
        **options: Any,
    ) -> None:
        require_function(f)
        signature(numerical_gradient).bind(f, None, h, args=args, **options)
        self.f, self.h, self.args, self.options = f, h, args, options

    def __call__(self, x: Any, *args: Any) -> Any:
        """Return the gradient at x, an array like x; a structure if x is one of arrays.

        Parameters
        ----------
        x : array, list of numbers, or structure of arrays
            As it was, afterwards.
        *args
            Further arguments of f, instead of those given to the object.

        Raises
        ------
        TypeError, ValueError
            As from `numerical_gradient`.
        """
        given = args or self.args
        return numerical_gradient(self.f, _movable(x), self.h, args=given, **self.options)

    def __repr__(self) -> str:
        """Return how it was made."""
        options = {"h": self.h, "args": self.args, **self.options}
        return f"Gradient({', '.join([repr(self.f), *(f'{k}={v!r}' for k, v in options.items())])})"


def _movable(x: Any) -> Any:
    """Return x, with copies of floats for the arrays whose elements cannot be moved in place.

    What can be moved is not copied: f may read it elsewhere.
    """
    if not is_structure(x) or not any(isinstance(leaf, np.ndarray) for _, leaf in leaves(x)):
        return _movable_array(x)
    arrays = [leaf for _, leaf in leaves(x)]
    movable = [_movable_array(array) for array in arrays]
    same = all(new is old for new, old in zip(movable, arrays, strict=True))
    return x if same else like(x, iter(movable))


def _movable_array(x: Any) -> Any:
    if isinstance(x, np.ndarray) and x.dtype.kind == "f" and x.flags.writeable:
        return x
    as_array("x", x, "pass an array, or a list of numbers")
    array = np.array(x, subok=True)
    return array.astype(float) if array.dtype.kind in "iu" else array
