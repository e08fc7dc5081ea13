"""What is checked: a function or a net, its parameters, and the gradient that is claimed."""

import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from fastgrad.checking.batch import Batch, batch_behind
from fastgrad.checking.claims import AnalyticGradient, as_analytic_gradients
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import at
from fastgrad.differences.trees import Call, is_structure, leaves, like, require_separate
from fastgrad.differences.validation import (
    require_floating_array,
    require_function,
    require_unmasked,
)
from fastgrad.engines import loop
from fastgrad.engines.compilation import is_jitted
from fastgrad.gradient import numerical_gradient
from fastgrad.interrupts import is_limited, require_time, value_in_time
from fastgrad.schemes import central_quotient
from fastgrad.typing import Array

NO_VALUE = (ValueError, OverflowError)
"""What f may raise at points outside of its domain, as ``math.log`` does: it has no value there."""

GRAIN = 2.0**26
"""Spacings of x that a step is to have at least, in double precision; half the bits elsewhere."""


@dataclass(frozen=True, eq=False)
class Part:
    """One array of parameters, and what is claimed of it.

    Attributes
    ----------
    name : str
        As the user calls it.
    problem : Problem
        f, and the array x that is moved, in place.
    claim : array (x.size,)
        The gradient that is checked, in C order, in double precision at least.
    claim_eps : float
        The relative precision of the type in which it came.
    """

    name: str
    problem: Problem
    claim: Array
    claim_eps: float

    @property
    def x(self) -> Array:
        """The array itself."""
        return self.problem.x

    def index(self, place: int) -> tuple[int, ...]:
        """Return the index of an element, given its place in C order."""
        return tuple(int(i) for i in np.unravel_index(place, self.x.shape))


class GradientUnderTest:
    """What is checked: everything that asks f or the gradient goes through here.

    Parameters
    ----------
    f : callable
        ``f(x, *args)``.
    x : array or structure
    gradient : callable or structure like x
        What is claimed, or ``gradient(x, *args)``, which is called before f is.
    args : tuple
    engine : str
        How f is differenced.
    batch : Batch or None
        If f is a net's loss.

    Raises
    ------
    TypeError, ValueError
        If x cannot be moved, or the gradient does not fit it.
    """

    def __init__(
        self,
        f: Callable[..., Any],
        x: Any,
        gradient: Any,
        args: tuple[Any, ...],
        engine: str,
        batch: Batch | None = None,
    ) -> None:
        require_function(f)
        self.f, self.x, self.args, self.engine, self.batch = f, x, args, engine, batch
        found = self._problems()
        self._gradient = gradient if callable(gradient) else None
        claims = self.claims() if self._gradient else as_analytic_gradients(gradient, x, batch)
        names = [_name(problem.name, batch) for problem in found]
        self.parts = [
            Part(name, problem, claim.values, claim.eps)
            for name, problem, claim in zip(names, found, claims, strict=True)
        ]
        self.is_own_net = batch is not None and batch.differences_itself
        """Whether f is the loss of fastgrad's own net, which differences itself."""
        self.evaluations = 0
        """How often f was called, the calls by engines for whole gradients aside."""
        self.keeps_step = False
        """Whether the user chose the step."""

    def find_batch(self) -> None:
        """Probe for the net and the batch whose loss f is, if they were not given."""
        if self.batch is None and not self.args:
            self.batch = batch_behind(self.f, self.x, self.raw_value())

    def _problems(self) -> list[Problem]:
        """Check x, and return a problem for each of its arrays.

        Their step is none that is used: engines are given theirs, and check it.
        """
        if not isinstance(self.args, tuple):
            kind = type(self.args).__name__
            raise TypeError(f"args is a {kind}; pass a tuple of f's further arguments")
        arrays = [*leaves(self.x)]
        for name, array in arrays:
            require_floating_array(name, array, 1e-4)
            require_unmasked(name, array)
        require_separate(arrays)
        whole = self.x if is_structure(self.x) else None
        plain = whole is None and not self.args
        return [
            Problem(
                self.f if plain else Call(self.f, self.args, whole, array),
                array, name, central_quotient, 1e-4, None,
            )
            for name, array in arrays
        ]  # fmt: skip

    def with_function(self, f: Callable[[Any], Any]) -> "GradientUnderTest":
        """Return the same with another function of the same x, differenced as any function is."""
        other = copy(self)
        other.f, other.is_own_net = f, False
        other.parts = [
            replace(part, problem=problem)
            for part, problem in zip(self.parts, other._problems(), strict=True)
        ]
        return other

    @property
    def can_ask_again(self) -> bool:
        """Whether the gradient can be had at other points, too."""
        return self._gradient is not None

    def asks(self, gradient: Callable[[], Any]) -> None:
        """Take this function for the one that returns the gradient of x as it is."""
        self._gradient = partial(_without_arguments, gradient)

    def claims(self) -> list[AnalyticGradient]:
        """Call the gradient, and return what it claims of x as it is now."""
        assert self._gradient is not None
        require_time()
        return as_analytic_gradients(self._gradient(self.x, *self.args), self.x, self.batch)

    def raw_value(self) -> Any:
        """Return what f returns at x; what it raises there is the caller's."""
        require_time()
        return self.f(self.x, *self.args)

    def value(self) -> Any:
        """Return f of x as it is now, in double precision at least."""
        problem = next((part.problem for part in self.parts if part.x.size), None)
        if problem is None:  # nothing can be moved
            return np.float64(loop.real_number(self.f(self.x, *self.args)))
        return self.values(problem, 0, at(problem.x)[0])[0]

    def values(self, problem: Problem, place: int, points: Array) -> Array:
        """Return f, in double precision at least, where one element is moved to these points.

        Nan where f has no value, because x has left its domain.
        """
        self.evaluations += len(points)
        where = np.array([place], dtype=np.intp)
        with np.errstate(all="ignore"):
            found = loop.values(
                partial(value_or_nan, problem.f), problem.x, where, points.reshape(1, -1)
            )[0]
        kind = found.dtype if found.dtype.kind == "f" else np.dtype(np.float64)
        wide: Array = found.astype(np.result_type(kind, np.float64), copy=False)
        return wide

    def steps(self, part: Part, h: float) -> float | Array:
        """Return the step, or one for each element, where h is lost in the rounding of x.

        Powers of two then: x, too, is a multiple of such a step's last bits.
        """
        sizes = abs(part.x.view(np.ndarray).astype(np.result_type(part.x.dtype, np.float64)))
        eps = float(np.finfo(part.x.dtype).eps)
        grain = (8.0 if self.keeps_step else min(GRAIN, eps**-0.5)) * eps
        if not sizes.size or not float(sizes.max()) * grain > 2 * h:
            return h
        with np.errstate(divide="ignore"):
            steps: Array = np.maximum(h, 2.0 ** np.round(np.log2(sizes * grain)))
            return steps

    def quotients(self, h: float) -> list[Array]:
        """Return the central difference quotients of all parts, by the engine."""
        if self.is_own_net and self.batch is not None:
            net, engine = self.batch.net, "response" if self.engine == "auto" else self.engine
            found = net.numerical_gradient(self.batch.x, self.batch.t, h, engine=engine)
            return [_flat(array) for _, array in leaves(found)]
        steps = [self.steps(part, h) for part in self.parts]
        return self._differenced(self.f, self.x, steps, self.args)

    def quotients_of(self, part: Part, h: float) -> Array:
        """Return those of one part."""
        if self.is_own_net or len(self.parts) == 1:
            return self.quotients(h)[[p.name for p in self.parts].index(part.name)]
        problem = part.problem
        return self._differenced(problem.f, problem.x, [self.steps(part, h)], ())[0]

    def _differenced(
        self, f: Any, x: Any, steps: list[float | Array], args: tuple[Any, ...]
    ) -> list[Array]:
        """Return the quotients of f, nan where it has no value; None is said to the user of it."""
        plain = all(isinstance(step, float) for step in steps)
        h: Any = max(steps, default=1e-4) if plain else like(x, iter(steps))
        engine: Any = self.engine if plain or self.engine != "traced" else "auto"
        require_time()
        progress: Any = False
        if is_limited():
            if is_jitted(f):  # which is not called by Python
                progress = _require_time_for
            else:
                f = partial(value_in_time, f)
        with np.errstate(all="ignore"), _without_warnings_of_quotients():
            try:
                found = numerical_gradient(f, x, h, args=args, engine=engine, progress=progress)
            except NO_VALUE:
                f = partial(value_or_nan, f)
                found = numerical_gradient(f, x, h, args=args, engine=engine)
        return [_flat(array) for _, array in leaves(found)]

    def quotients_of_sample(self, part: Part, n: int, h: float) -> Array:
        """Return those of the loss of a single sample of the batch."""
        assert self.batch is not None
        if self.is_own_net:
            x, t = self.batch.sample(n)
            return _flat(self.batch.net.numerical_gradient(x, t, h)[part.name])
        return self._differenced(self.batch.loss_of(n), part.x, [self.steps(part, h)], ())[0]


def _without_arguments(gradient: Callable[[], Any], *_: Any) -> Any:
    return gradient()


def value_or_nan(f: Callable[..., Any], *arguments: Any) -> Any:
    """Return ``f(*arguments)``, nan if it has no value there."""
    require_time()
    try:
        return f(*arguments)
    except NO_VALUE:
        return float("nan")


def _require_time_for(*_: int) -> None:
    """Raise an OutOfTimeError if the time is over, whatever has been done."""
    require_time()


@contextmanager
def _without_warnings_of_quotients() -> Iterator[None]:
    """Silence what the report says: which quotients are not finite."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the difference quotient at")
        yield


def _name(name: str, batch: Batch | None) -> str:
    """Return x['W1'] as W1 if it is a net's parameter."""
    plain = re.fullmatch(r"x\['(\w+)'\]", name)
    if batch is None:
        return name
    return plain[1] if plain else f"params{name[1:]}"


def _flat(array: Array) -> Array:
    """Return elements in C order, in double precision at least."""
    wide = np.result_type(array.dtype, np.float64)
    flat: Array = array.view(np.ndarray).astype(wide, copy=False).reshape(-1)
    return flat


def index_text(name: str, index: Sequence[int]) -> str:
    """Write an element as in Python: W1[1, 2], or the name alone if it has no axes."""
    return f"{name}[{', '.join(map(str, index))}]" if len(index) else name
