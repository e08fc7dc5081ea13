"""Types that annotations share: arrays, ways of evaluating f, map-like callables, progress."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeAlias, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from scipy.sparse import csr_array

    Array = NDArray[Any]
    """An array of any dtype."""

    Doubles = NDArray[np.float64]
    """An array of float64."""

    Places = NDArray[np.intp]
    """Elements of an array, by their numbers in C order; or other indices."""

    Flags = NDArray[np.bool_]
    """An array of truth values."""

    SparseArray: TypeAlias = csr_array
    """What is returned where a sparsity is given."""
else:  # to load `numpy.typing` takes longer than a small gradient
    Array = Doubles = Places = Flags = np.ndarray
    SparseArray = Any

Structure = TypeVar("Structure")
"""What x is, an array or a dict, list or tuple of arrays; and so what is returned of its form."""

Arrays = TypeVar("Arrays", Array, dict[str, Array], list[Array], tuple[Array, ...])
"""Arrays that are replaced by others of any shape and type."""

Nested = dict[Any, Any] | list[Any] | tuple[Any, ...]
"""A structure of structures."""

Key = TypeVar("Key")
"""What names the arrays of a dict."""

Matrix = TypeVar("Matrix")
"""A Jacobian or Hessian: an array, or a sparse one."""

EngineName = Literal["auto", "loop", "compiled"]
"""How f is evaluated, for all derivatives."""

GradientEngineName = Literal["auto", "loop", "traced", "compiled"]
"""The same for gradients, which an engine may give at once."""

NetEngineName = Literal["response", "direct", "loop"]
"""How a `TwoLayerNet` is differenced."""

SchemeName = Literal["central", "forward", "backward", "complex"]
"""The schemes that have a name."""

NumberList = Sequence[float] | Sequence[Sequence[float]]
"""What becomes one array: a list of numbers, or of lists of them."""

ArrayLike = Array | NumberList
"""What is moved as one array."""

Number = np.floating[Any]
"""A derivative with respect to a number."""

Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
"""What calls a function for each item, anywhere, and returns the results in order."""

Progress = bool | Callable[[int, int], Any]
"""Whether a bar is shown, or what is told how far it has come."""

Report = Callable[[float], None]
"""Told how many elements have been evaluated since the last time; parts of them, too."""


class Moves(NamedTuple):
    """Points to which single elements of an array x are moved, and the shape of f there.

    Attributes
    ----------
    places : array (n,)
        The elements, one after the other, as indices into x in C order.
    points : array (n, m)
        The values that are put there, one after the other; of x's dtype.
    shape : tuple of int
        The shape of what f returns.
    """

    places: Places
    points: Array
    shape: tuple[int, ...] = ()

    def part(self, rows: slice) -> "Moves":
        """Return those of some of the elements."""
        return Moves(self.places[rows], self.points[rows], self.shape)

    def singly(self) -> "Moves":
        """Return the same moves, each as an element's only one."""
        each = self.places.repeat(self.points.shape[1])
        return Moves(each, self.points.reshape(-1, 1), self.shape)


Function = Callable[..., Any]
"""What is differentiated: ``f(x, *args)``."""

Values = Callable[[Callable[[Any], Any], Array, Moves], Array]
"""What an engine is: ``values(f, x, moves)`` evaluates f where single elements of x are moved.

It returns an array ``(n, m, *moves.shape)`` of f where ``x.flat[places[i]]`` is ``points[i, k]``.
x is bit-identical afterwards, whatever happens. An engine serves all derivatives, schemes, steps
and bounds, of which it knows nothing.
"""


class GradientEngine(Protocol):
    """What an engine is that gives a gradient at once, without f at each moved point.

    It serves `fastgrad.numerical_gradient` alone, and real schemes with one step for all elements.
    """

    def __call__(self, f: Callable[[Any], Any], x: Array, h: float, scheme: Any) -> Array:
        """Return the difference quotients by a `fastgrad.schemes.Scheme`, a new array like x.

        x is bit-identical afterwards, whatever happens. A ValueError says why f cannot be served.
        """
        ...
