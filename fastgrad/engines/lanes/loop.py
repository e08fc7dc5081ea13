"""The compiled loop that evaluates f at several points at once, one in each lane."""

import re
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numpy.typing import NDArray

from fastgrad.engines.lanes import operations  # noqa: F401  (numba learns them)
from fastgrad.engines.lanes.types import POINTS_AT_ONCE, WORDS, as_lanes, disagreements, store_lanes
from fastgrad.jit.jitted import finish
from fastgrad.typing import Array

Evaluate = Callable[[NDArray[np.intp], Array, Array], None]

FAST_MATH = re.compile(r" (fast|nnan|ninf|nsz|arcp|contract|afn|reassoc) ")
"""What lets the compiler round otherwise for lanes than for a number."""

OPTIONS = ("fastmath", "error_model", "boundscheck")
"""The options of a jitted function on which its values depend."""


class LanesLoop:
    """The loop over the moved points of a jitted function of numbers, several at a time.

    Its values have the bits of the loop over single points. The first ones are compared with them,
    and if there is a difference, whatever the reason, lanes are no longer used for f. Points where
    f is nan or infinite are evaluated again, one by one.

    Parameters
    ----------
    f : jitted function
        ``f(x, *arguments) -> float``. What is compiled is a copy, so that f itself, and the file
        that its author may let numba keep it in, stay as they are.
    arguments : numba tuple type
        The types of f's arguments; the first is x, a float64 array in C order.
    code : str
        The LLVM code of f for numbers, with all that it calls.

    Raises
    ------
    Exception
        Whatever numba says of a function that cannot be compiled for lanes; ValueError if it might
        have other bits there.
    """

    def __init__(self, f: Any, arguments: Any, code: str) -> None:
        if f.targetoptions.get("parallel") or f.locals or FAST_MATH.search(code):
            raise ValueError("lanes may have other bits than numbers")
        options = {name: f.targetoptions[name] for name in OPTIONS if name in f.targetoptions}
        self.run: Any = numba.njit(nogil=True)(_lanes_loop(numba.njit(**options)(f.py_func)))
        matrix = types.float64[:, ::1]
        numbers = types.Array(types.float64, arguments[0].ndim + 1, "C")
        further = types.Tuple(arguments.types[1:])
        self.run.compile(
            (numbers, matrix, further, types.intp[::1], matrix, matrix, types.boolean[::1])
        )
        finish(self.run)
        self._compared = self._differs = False

    def rows(self, points: Array) -> int:
        """Return how many elements are moved at a time, if each is moved to so many points."""
        return max(1, int(POINTS_AT_ONCE // max(1, points.shape[1])))

    def evaluation(
        self, elements: Array, arguments: tuple[Any, ...], one_by_one: Evaluate
    ) -> Evaluate:
        """Return a thread's way of evaluating f at points where single elements of x are moved.

        Parameters
        ----------
        elements : float64 array
            Those of x, flat. They are copied, and stay as they are.
        arguments : tuple
            Of f, x among them.
        one_by_one : callable
            What evaluates the points that lanes cannot.

        Returns
        -------
        callable
            ``evaluate(places, points, out)``, as the loop over single points is called.
        """
        x, *further = arguments
        numbers = np.empty((*x.shape, WORDS))
        flat = numbers.reshape(-1, WORDS)
        flat[:, 0], flat[:, 1] = 0.0, elements
        often_void: bool | np.bool_ = False

        def evaluate(places: NDArray[np.intp], points: Array, out: Array) -> None:
            nonlocal often_void
            # Read before the other: a thread that finds a difference says so first.
            compared = self._compared
            if often_void or self._differs:
                one_by_one(places, points, out)
                return
            void = np.zeros(len(places), dtype=np.bool_)
            try:
                self.run(numbers, flat, tuple(further), places, points, out, void)
            except Exception:  # f's own; it is raised again if single points raise it
                flat[:, 0] = 0.0
                void[...] = True
            again = np.flatnonzero(void) if compared else np.arange(len(places))
            if len(again):
                values = np.empty((len(again), points.shape[1]))
                one_by_one(places[again], points[again], values)
                if not compared:
                    if not np.array_equal(values[~void], out[~void], equal_nan=True):
                        self._differs = True
                    if not void.all():
                        self._compared = True
                often_void = 2 * np.count_nonzero(void) > len(places)
                out[again] = values

        return evaluate


def _lanes_loop(f: Any) -> Callable[..., None]:
    def run(
        numbers: Array,
        flat: Array,
        further: tuple[Any, ...],
        places: NDArray[np.intp],
        points: Array,
        out: Array,
        void: NDArray[np.bool_],
    ) -> None:
        rows, columns = points.shape
        found = np.empty(POINTS_AT_ONCE)
        i, k = 0, 0
        for start in range(0, rows * columns, POINTS_AT_ONCE):
            count = min(POINTS_AT_ONCE, rows * columns - start)
            first_i, first_k = i, k
            for lane in range(count):
                number = flat[places[i]]
                if number[0] == 0.0:
                    number[0] = 1.0
                    number[2:] = number[1]
                number[2 + lane] = points[i, k]
                i, k = (i, k + 1) if k + 1 < columns else (i + 1, 0)
            before: int = disagreements()
            store_lanes(found, 0, f(as_lanes(numbers), *further))
            disagreed = disagreements() != before
            i, k = first_i, first_k
            for lane in range(count):
                flat[places[i], 0] = 0.0
                out[i, k] = found[lane]
                void[i] |= disagreed or not np.isfinite(found[lane])
                i, k = (i, k + 1) if k + 1 < columns else (i + 1, 0)

    return run
