"""What is checked: a function or a net, its parameters, and the gradient that is claimed."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgrad.differences.arguments import (
    Call,
    as_array,
    element,
    is_structure,
    leaves,
    like,
    require_arguments,
    require_floating_array,
    require_function,
    require_separate,
    require_unmasked,
)
from fastgrad.differences.domain import as_kinds, require_users
from fastgrad.differences.problem import Problem
from fastgrad.differences.quotients import as_floats
from fastgrad.engines import loop
from fastgrad.engines.compiled import is_jitted
from fastgrad.engines.joint_gradients import recordings_kept_in
from fastgrad.gradient import numerical_gradient
from fastgrad.jit.interrupts import is_limited, raise_interrupt, require_time, value_in_time
from fastgrad.lazy import LazyModule
from fastgrad.network import TwoLayerNet
from fastgrad.schemes import Scheme, as_scheme, central_quotient
from fastgrad.typing import Array, Moves, Report, SchemeName

if TYPE_CHECKING:
    from fastgrad.engines import traced
else:  # loaded only if functions are recorded
    traced = LazyModule("fastgrad.engines.traced")

NO_VALUE = (ValueError, OverflowError)
"""What f may raise at points outside of its domain, as ``math.log`` does: it has no value there."""

MIN_STEP_SPACINGS = 2.0**26
"""Spacings of x that a step is to have at least, in double precision; half the bits elsewhere."""

MAX_TOLD_SHARE = 0.95
"""Share of a check that is reported before its end."""


@dataclass(frozen=True, eq=False)
class Part:
    """One array of parameters, and what is claimed of it.

    Attributes
    ----------
    name : str
        As the user calls it.
    problem : Problem
        f, and the array x that is moved, in place.
    analytic : array (x.size,)
        The gradient that is checked, in C order, in double precision at least.
    analytic_eps : float
        The relative precision of the type in which it came.
    """

    name: str
    problem: Problem
    analytic: Array
    analytic_eps: float

    @property
    def x(self) -> Array:
        """The array itself."""
        return self.problem.x

    def index(self, place: int) -> tuple[int, ...]:
        """Return the index of an element, given its place in C order."""
        return tuple(int(i) for i in np.unravel_index(place, self.x.shape))

    def element(self, place: int) -> str:
        """Write an element as in Python, as W1[1, 2]."""
        return element(self.name, self.index(place))


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
    outside : exception class, or tuple of such, optional
        What else than `NO_VALUE` f raises where it has no value.

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
        outside: Any = None,
    ) -> None:
        require_function(f)
        self.outside = outside
        self.no_value: tuple[type[Exception], ...] = NO_VALUE
        if outside is not None:
            self.no_value = (*NO_VALUE, *as_kinds(outside))
        """What f raises where it has no value."""
        self.f, self.x, self.args, self.engine, self.batch = f, x, args, engine, batch
        self._users_f = f
        found = self._problems()
        self._gradient = gradient if callable(gradient) else None
        gradients = self._ask() if self._gradient else as_analytic_gradients(gradient, x, batch)
        names = [_name(problem.name, batch) for problem in found]
        self.parts = [
            Part(name, problem, *analytic)
            for name, problem, analytic in zip(names, found, gradients, strict=True)
        ]
        self.is_own_net = batch is not None and batch.differences_itself
        """Whether f is the loss of fastgrad's own net, which differences itself."""
        self.evaluations = 0
        """How often f was called, the calls by engines for whole gradients aside."""
        self.keeps_step = False
        """Whether the user chose the step."""
        self.report: Report | None = None
        """Who is told how far a check has come, in elements."""
        self._told = 0.0
        self._recordings: list[Any] = []

    def tell(self, share: float) -> None:
        """Report that a share of the check is done; the last one is for its end to report."""
        share = min(share, MAX_TOLD_SHARE - self._told)
        if self.report is not None and share > 0:
            self._told += share
            self.report(share * sum(part.x.size for part in self.parts))

    def find_batch(self) -> None:
        """Probe for the net and the batch whose loss f is, if they were not given."""
        if self.batch is None and not self.args:
            self.batch = batch_behind(self.f, self.x, self.raw_value())

    def _problems(self) -> list[Problem]:
        """Check x, and return a problem for each of its arrays.

        Their step is none that is used: engines are given theirs, and check it.
        """
        require_arguments(self.args)
        arrays = [*leaves(self.x)]
        for name, array in arrays:
            require_floating_array(name, array, 1e-4)
            require_unmasked(name, array)
        require_separate(arrays)
        structure = self.x if is_structure(self.x) else None
        plain = structure is None and not self.args
        return [
            Problem(
                self.f if plain else Call(self.f, self.args, structure, array),
                array, name, central_quotient, 1e-4, None,
            )
            for name, array in arrays
        ]  # fmt: skip

    def with_function(self, f: Callable[[Any], Any]) -> GradientUnderTest:
        """Return the same with another function of the same x, differenced as any function is."""
        other = copy(self)
        other.f, other.is_own_net, other._recordings = f, False, []
        other.parts = [
            replace(part, problem=problem)
            for part, problem in zip(self.parts, other._problems(), strict=True)
        ]
        return other

    @property
    def can_reevaluate(self) -> bool:
        """Whether the gradient can be had at other points, too."""
        return self._gradient is not None

    def asks(self, gradient: Callable[[], Any]) -> None:
        """Take this function for the one that returns the gradient of x as it is."""
        self._gradient = lambda *_: gradient()

    def analytic_parts(self) -> list[Part]:
        """Call the gradient, and return the parts with what it claims of x as it is now."""
        return [
            Part(part.name, part.problem, *analytic)
            for part, analytic in zip(self.parts, self._ask(), strict=True)
        ]

    def analytic_parts_after_loss(self) -> list[Part]:
        """Return the same, once f was called: layers keep what the last forward pass left."""
        self.call_loss()
        return self.analytic_parts()

    def call_loss(self) -> None:
        """Call the user's f, whatever function of x is differenced in its place."""
        value_or_nan(self.no_value, self._users_f, self.x, *self.args)

    def _ask(self) -> list[tuple[Array, float]]:
        """Call the gradient, and return its arrays."""
        assert self._gradient is not None
        require_time()
        return as_analytic_gradients(self._gradient(self.x, *self.args), self.x, self.batch)

    def raw_value(self) -> Any:
        """Return what f returns at x; what it raises there is the caller's."""
        require_time()
        self.evaluations += 1
        return self.f(self.x, *self.args)

    def value(self) -> Any:
        """Return f of x as it is now, in double precision at least; nan where it has no value."""
        self.evaluations += 1
        with np.errstate(all="ignore"):
            return number_of(value_or_nan(self.no_value, self.f, self.x, *self.args))

    def values(self, problem: Problem, place: int, points: Array) -> Array:
        """Return f, in double precision at least, where one element is moved to these points.

        Nan where f has no value, because x has left its domain.
        """
        self.evaluations += len(points)
        moves = Moves(np.array([place], dtype=np.intp), points.reshape(1, -1))
        with np.errstate(all="ignore"):
            f = partial(value_or_nan, self.no_value, problem.f)
            found = loop.values(f, problem.x, moves)[0]
        return as_floats(found)

    def along(self, part: Part, place: int, offsets: Array) -> tuple[Array, Array]:
        """Return where an element really goes, as offsets from x, and f there."""
        old = part.x.view(np.ndarray).reshape(-1)[place]
        with np.errstate(all="ignore"):
            points = (old + offsets).astype(part.x.dtype)
        values = self.values(part.problem, place, points)
        wide = np.result_type(part.x.dtype, values.dtype)
        return points.astype(wide) - wide.type(old), values

    def steps(self, part: Part, h: float) -> float | Array:
        """Return the step, or one for each element, where h is lost in the rounding of x.

        Powers of two then: x, too, is a multiple of such a step's last bits.
        """
        sizes = abs(as_floats(part.x.view(np.ndarray)))
        eps = float(np.finfo(part.x.dtype).eps)
        grain = (8.0 if self.keeps_step else min(MIN_STEP_SPACINGS, eps**-0.5)) * eps
        if not sizes.size or not float(sizes.max()) * grain > 2 * h:
            return h
        with np.errstate(divide="ignore"):
            steps: Array = np.maximum(h, 2.0 ** np.round(np.log2(sizes * grain)))
            return steps

    def quotients(
        self,
        parts: Sequence[Part],
        h: float,
        scheme: SchemeName | Scheme = "central",
        share: float = 0.0,
    ) -> list[Array]:
        """Return the difference quotients of these parts, by the engine.

        Parameters
        ----------
        parts, h, scheme
        share : float
            Of a check, which is reported while they are computed.
        """
        reported = 0.0

        def tell(done: int, total: int) -> None:
            nonlocal reported
            require_time()
            self.tell(share * done / total - reported)
            reported = share * done / total

        if self.is_own_net and self.batch is not None:
            net, engine = self.batch.net, "response" if self.engine == "auto" else self.engine
            found = net.numerical_gradient(self.batch.x, self.batch.t, h, engine=engine)
            return [_flat(found[part.name]) for part in parts]
        steps = [self.steps(part, h) for part in parts]
        if self._recordings and all(isinstance(step, float) for step in steps):
            known, arrays = self._recordings, [part.x for part in parts]
            with suppress(*self.no_value):  # of elements that are compared
                found = traced.further_gradients(known, arrays, h, as_scheme(scheme))
                if found is not None:
                    self.tell(share)
                    return found
            self._recordings.clear()
        with recordings_kept_in(self._recordings):
            if len(parts) == len(self.parts):
                return self._differenced(self.f, self.x, steps, self.args, scheme, tell)
            share /= len(parts)
            return [
                self._differenced(part.problem.f, part.x, [step], (), scheme, tell)[0]
                for part, step in zip(parts, steps, strict=True)
            ]

    def is_recorded(self, part: Part) -> bool:
        """Say whether further quotients of a part take few calls of f."""
        return any(x is part.x for recording in self._recordings for x in recording.arrays)

    def _differenced(
        self,
        f: Any,
        x: Any,
        steps: list[float | Array],
        args: tuple[Any, ...],
        scheme: SchemeName | Scheme = "central",
        tell: Callable[[int, int], None] | None = None,
    ) -> list[Array]:
        """Return the quotients of f, nan where it has no value; None is said to the user of it."""
        plain = all(isinstance(step, float) for step in steps)
        h: Any = max(steps, default=1e-4) if plain else like(x, iter(steps))
        engine: Any = self.engine if plain or self.engine != "traced" else "auto"
        require_time()
        progress: Any = False if self.report is None or tell is None else tell
        if is_limited():
            if is_jitted(f):  # which is not called by Python
                progress = progress or (lambda *_: require_time())
            else:
                f = partial(value_in_time, f)
        with np.errstate(all="ignore"), warnings.catch_warnings():
            # The report says which quotients are not finite.
            warnings.filterwarnings("ignore", "the difference quotient at")
            given = {"args": args, "engine": engine, "scheme": scheme}
            try:
                found = numerical_gradient(f, x, h, progress=progress, **given)
            except self.no_value:
                f = partial(value_or_nan, self.no_value, f)
                found = numerical_gradient(f, x, h, **given)
        return [_flat(array) for _, array in leaves(found)]

    def quotients_of_sample(self, part: Part, n: int, h: float) -> Array:
        """Return those of the loss of a single sample of the batch."""
        assert self.batch is not None
        if self.is_own_net:
            x, t = self.batch.sample(n)
            return _flat(self.batch.net.numerical_gradient(x, t, h)[part.name])
        return self._differenced(self.batch.loss_of(n), part.x, [self.steps(part, h)], ())[0]


def number_of(returned: Any) -> Any:
    """Return what f returned as a number in double precision at least."""
    return as_floats(np.array([loop.real_number(returned)]))[0]


def value_or_nan(
    no_value: tuple[type[Exception], ...], f: Callable[..., Any], *arguments: Any
) -> Any:
    """Return ``f(*arguments)``, nan if it raises that it has no value there."""
    require_time()
    try:
        return f(*arguments)
    except no_value as error:
        require_users(error)
        return float("nan")


def _name(name: str, batch: Batch | None) -> str:
    """Return x['W1'] as W1 if it is a net's parameter."""
    plain = re.fullmatch(r"x\['(\w+)'\]", name)
    if batch is None:
        return name
    return plain[1] if plain else f"params{name[1:]}"


def _flat(array: Array) -> Array:
    """Return elements in C order, in double precision at least."""
    return as_floats(array.view(np.ndarray)).reshape(-1)


def as_analytic_gradients(gradient: Any, x: Any, batch: Any = None) -> list[tuple[Array, float]]:
    """Return the arrays of a gradient, in the order of those of x, with their precisions.

    Flat, in C order, in double precision at least; copies, for layers reuse their arrays. With each
    comes eps of the type in which it came. The batch's number of samples tells what a wrong shape
    comes from.

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
) -> tuple[Array, float]:
    """Return one array of a gradient, and its precision."""
    array = as_array(name, given, f"pass an array of shape {np.shape(x)}")
    if array.dtype == object and any(each is None for each in array.flat):
        raise TypeError(
            f"{name} {'holds' if array.ndim else 'is'} None, as the attribute grad of a tensor is "
            "before loss.backward(), and where the loss does not depend on the tensor; call that "
            "first, and return zeros where nothing depends on it"
        )
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
    flat = np.array(as_floats(array), order="C").reshape(-1)
    return flat, max(eps, np.finfo(float).eps)


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


def as_gradient_under_test(
    f: Any,
    x: Any,
    t: Any,
    gradient: Any,
    args: tuple[Any, ...],
    engine: str,
    outside: Any = None,
) -> GradientUnderTest:
    """Tell the two forms apart: a function with its x, or a net with a batch x, t."""
    if not is_net(f):
        if t is not None:
            raise TypeError(
                f"t is given, but f, a {type(f).__name__}, is no net with params and loss(x, t); "
                "pass check_gradient(net, x=x, t=t), or a function without t"
            )
        if gradient is None:
            raise TypeError(
                "gradient is missing; pass what is to be checked: an array like x, or a function "
                "that returns one"
            )
        return GradientUnderTest(f, x, gradient, args, engine, outside=outside)
    if t is None or x is None:
        raise TypeError(
            f"f is a net, a {type(f).__name__}, but {'x' if x is None else 't'} is missing; pass "
            "check_gradient(net, x=x, t=t), the batch on which its loss is to be checked"
        )
    if gradient is None and not callable(getattr(f, "gradient", None)):
        raise TypeError(
            f"f is a net, a {type(f).__name__}, without a method gradient(x, t); give it one, or "
            "pass what is to be checked as gradient"
        )
    return _of_net(f, x, t, gradient, engine, outside)


def moved_by(f: Any, x: Any) -> Any:
    """Return what is moved when f is checked: x, or the parameters and the batch of a net."""
    return (f.params, x) if is_net(f) else x


def is_net(f: Any) -> bool:
    """Say whether f is a net: with parameters, and a loss of its own."""
    return hasattr(f, "params") and callable(getattr(f, "loss", None))


def _of_net(
    net: Any, x: Any, t: Any, gradient: Any, engine: str, outside: Any
) -> GradientUnderTest:
    """Return what is checked of a net: its loss, and what its backward pass returns."""
    if not is_structure(net.params):
        raise TypeError(
            f"f.params is a {type(net.params).__name__}, but it is to be a dict of arrays; pass "
            "check_gradient(f, x, gradient) with a function and its array"
        )

    def backward(_: Any) -> Any:
        return net.gradient(x, t)

    given = backward if gradient is None else gradient
    # The traced engine looks for parameters in partials, but not in fastgrad's own functions.
    f = partial(loss_of_net, net, x, t)
    return GradientUnderTest(f, net.params, given, (), engine, Batch(net, x, t), outside)


@dataclass(frozen=True, eq=False)
class Batch:
    """The net and the batch that f is the loss of.

    Attributes
    ----------
    net : object
        With ``loss(x, t)``.
    x, t : array
    is_given : bool
        Whether the user gave them as such, and not a function.
    """

    net: Any
    x: Array
    t: Array
    is_given: bool = True

    @property
    def samples(self) -> int:
        """The number of samples; 0 if x does not hold one a row, with a target each."""
        x, t = np.asarray(self.x), np.asarray(self.t)
        return len(x) if x.ndim > 1 and t.ndim and len(t) == len(x) else 0

    def sample(self, n: int) -> tuple[Array, Array]:
        """Return a batch of one sample."""
        return self.x[n : n + 1], self.t[n : n + 1]

    def loss_of(self, n: int) -> Callable[[Any], Any]:
        """Return the loss of a sample alone, as a function of the parameters."""
        return partial(loss_of_net, self.net, *self.sample(n))

    @property
    def differences_itself(self) -> bool:
        """Whether the net is a TwoLayerNet, whose loss no subclass has changed."""
        return (
            self.is_given
            and isinstance(self.net, TwoLayerNet)
            and all(
                getattr(type(self.net), name) is getattr(TwoLayerNet, name)
                for name in ("params", "predict", "loss", "numerical_gradient")
            )
        )


def loss_of_net(net: Any, x: Any, t: Any, _: Any) -> Any:
    """Return the loss, whatever the last argument is: the net reads its parameters itself."""
    require_time()
    return net.loss(x, t)


def batch_behind(f: Any, x: Any, value: Any) -> Batch | None:
    """Return the batch whose loss a function is, such as ``lambda _: net.loss(x, t)``, or None.

    Looked for among what the function refers to: a net that has the arrays of x among its
    parameters, and two arrays whose loss is the function's value at x.
    """
    objects = _referred(f)
    moved = [array for _, array in leaves(x)]
    nets = [each for each in objects if _has_parameters(each, moved)]
    arrays = [each for each in objects if isinstance(each, np.ndarray) and each.ndim]
    pairs = [(a, b) for a in arrays for b in arrays if a is not b and len(a) == len(b)]
    for net in nets:
        for a, b in pairs[:MAX_PAIRS]:
            require_time()
            try:
                if bool(net.loss(a, b) == value):
                    return Batch(net, a, b, is_given=False)
            except Exception as error:  # not the net's kind of batch
                raise_interrupt(error)
                continue
    return None


MAX_PAIRS = 12
"""Pairs of arrays that a net's loss is tried with."""


def _referred(f: Any) -> list[Any]:
    """Return the objects that a function refers to, by its closure, arguments and globals."""
    objects = []
    if isinstance(f, partial):
        objects += [*f.args, *f.keywords.values()]
        f = f.func
    objects += [getattr(f, "__self__", None), *(getattr(f, "__defaults__", None) or ())]
    with suppress(TypeError, ValueError):  # no Python function, or a name without a value yet
        names = inspect.getclosurevars(f)
        objects += [*names.nonlocals.values(), *names.globals.values()]
    return objects


def _has_parameters(each: Any, moved: list[Array]) -> bool:
    """Return whether an object is a net with these arrays among its parameters."""
    params = getattr(each, "params", None)
    if not isinstance(params, dict) or not callable(getattr(each, "loss", None)):
        return False
    return all(any(array is mine for mine in params.values()) for array in moved)
