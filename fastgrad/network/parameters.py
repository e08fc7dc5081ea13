"""The net's parameters: one flat buffer, and the dict's arrays as views of it."""

import math
from collections.abc import Mapping
from operator import index
from typing import Any, NoReturn, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.differences.arguments import as_array
from fastgrad.typing import Doubles


class Parameters(dict[str, Doubles]):
    """A dict of float64 arrays that are reshaped views of one contiguous buffer.

    Kernels work on `buffer`, everybody else on the dict: both see the same numbers. Assigning to
    a key therefore copies the values into the view, instead of putting another array in its
    place, and keys can be neither added nor removed. An array read from the dict stays a view:
    it changes with the parameters, as an array of a plain dict does under ``-=``.

    Parameters
    ----------
    shapes : mapping of str to tuple of int
        The name and shape of each parameter, in the order in which they lie in the buffer. All
        are zero at first.

    Raises
    ------
    KeyError
        If an unknown name is read or assigned.
    TypeError
        If a key is removed or added, or an assigned value does not hold real numbers.
    ValueError
        If an assigned value has another shape; nothing is broadcast.

    Examples
    --------
    >>> params = Parameters({"W": (2, 3), "b": (3,)})
    >>> params["b"] = [1, 2, 3]
    >>> params["W"] -= 0.5
    >>> params.buffer
    array([-0.5, -0.5, -0.5, -0.5, -0.5, -0.5,  1. ,  2. ,  3. ])
    >>> params.buffer *= 2
    >>> params["b"]
    array([2., 4., 6.])
    """

    __slots__ = ("_buffer",)

    _buffer: Doubles

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        sizes = [_size(name, shape) for name, shape in shapes.items()]
        buffer = aligned(sum(sizes))
        buffer.fill(0.0)
        self._bind(shapes, buffer)

    def _bind(self, shapes: Mapping[str, tuple[int, ...]], buffer: Doubles) -> Self:
        """Make buffer the home of the parameters, and the arrays its views."""
        self._buffer = buffer
        start = 0
        for name, shape in shapes.items():
            stop = start + math.prod(shape)
            super().__setitem__(name, buffer[start:stop].reshape(shape))
            start = stop
        return self

    @property
    def buffer(self) -> Doubles:
        """All parameters in a row, shape (size,); assigning copies the values into it."""
        return self._buffer

    @buffer.setter
    def buffer(self, values: ArrayLike) -> None:
        _copy_into(self._buffer, values, "buffer")

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter, as the constructor takes them."""
        return {name: view.shape for name, view in self.items()}

    def __setitem__(self, name: str, values: ArrayLike) -> None:
        _copy_into(self[name], values, name)

    def __missing__(self, name: object) -> NoReturn:
        raise KeyError(f"unknown parameter {name!r}; the parameters are {', '.join(self)}")

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Assign several parameters; if one of the values is refused, none is assigned."""
        # Copies, because a value may be a view of the very buffer that is about to change.
        values = {
            name: _checked(self[name], value, name).copy()
            for name, value in dict(*args, **kwargs).items()
        }
        for name, value in values.items():
            self[name] = value

    # typeshed has dict's ``|=`` return any dict of the union's types; this one stays what it is.
    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]
        self.update(other)
        return self

    def copy(self) -> Self:
        """Return parameters of the same values with a buffer of their own."""
        return type(self).__new__(type(self))._bind(self.shapes, self._buffer.copy())

    __copy__ = copy

    def over(self, buffer: Doubles) -> Self:
        """Return parameters of the same names and shapes whose home is the given buffer.

        Parameters
        ----------
        buffer : float64 ndarray of shape (size,), contiguous
            Not copied: it becomes the new object's `buffer`.
        """
        return type(self).__new__(type(self))._bind(self.shapes, buffer)

    def __reduce__(self) -> tuple[Any, ...]:
        # The buffer travels once and the views are made anew, so they stay tied to it.
        return _rebuild, (type(self), self.shapes, self._buffer)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return self.keys() == other.keys() and all(
            np.array_equal(view, other[name]) for name, view in self.items()
        )

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = None

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {shape}" for name, shape in self.shapes.items())
        return f"{type(self).__name__}({shapes})"

    def setdefault(self, name: str, default: Any = None) -> Doubles:
        """Return the parameter; a name that does not exist is refused."""
        if name not in self:
            self._refuse()
        return self[name]

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse to add or remove a parameter."""
        raise TypeError(
            f"the parameters {', '.join(self)} share one buffer, so none can be added or "
            "removed; assign values to them, or take dict(params)"
        )

    __delitem__ = pop = popitem = clear = _refuse


def aligned(*shape: int) -> Doubles:
    """Return an array that starts at a multiple of 64 bytes, so that no vector spans two lines."""
    size = math.prod(shape)
    memory = np.empty(size + 8)
    start = -memory.__array_interface__["data"][0] % 64 // 8
    return memory[start : start + size].reshape(shape)


def _copy_into(view: Doubles, values: ArrayLike, name: str) -> None:
    """Write values into view; NumPy keeps it right if the two overlap."""
    # After params[name] -= step Python assigns the view to itself: nothing is left to do.
    if values is not view:
        view[...] = _checked(view, values, name)


def _checked(view: Doubles, values: ArrayLike, name: str) -> NDArray[Any]:
    """Return values as an array that view can hold."""
    array = as_array(name, values, "pass an array of real numbers")
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"{name} is made of float64 numbers and cannot hold dtype {array.dtype}; "
            "pass an array of real numbers"
        )
    if array.shape != view.shape:
        raise ValueError(
            f"{name} has shape {view.shape}, the assigned value has shape {array.shape}; "
            "pass an array of exactly that shape"
        )
    return array


def _size(name: str, shape: tuple[int, ...]) -> int:
    """Return the number of elements of a shape."""
    if any(index(length) < 0 for length in shape):
        raise ValueError(f"{name} has shape {shape}; pass lengths that are not negative")
    return math.prod(shape)


def _rebuild(
    kind: type[Parameters], shapes: dict[str, tuple[int, ...]], buffer: Doubles
) -> Parameters:
    """Put a pickled or deep-copied Parameters together again."""
    return kind.__new__(kind)._bind(shapes, np.require(buffer, requirements="W"))
