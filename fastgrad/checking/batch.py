"""The net and the samples that f is the loss of: the whole batch, or sample by sample."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np

from fastgrad.differences.trees import leaves
from fastgrad.interrupts import raise_interrupt, require_time
from fastgrad.network import TwoLayerNet
from fastgrad.typing import Array


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
    parameters, and two arrays whose loss is the function's value.

    Parameters
    ----------
    f : callable
    x : array or structure
    value : number
        What f returns at x.
    """
    objects = _referred(f)
    moved = [array for _, array in leaves(x)]
    nets = [each for each in objects if _has_parameters(each, moved)]
    arrays = [each for each in objects if isinstance(each, np.ndarray) and each.ndim]
    pairs = [(a, b) for a in arrays for b in arrays if a is not b and len(a) == len(b)]
    for net in nets:
        for a, b in pairs[:MOST]:
            require_time()
            try:
                if bool(net.loss(a, b) == value):
                    return Batch(net, a, b, is_given=False)
            except Exception as error:  # not the net's kind of batch
                raise_interrupt(error)
                continue
    return None


MOST = 12
"""Pairs of arrays that a net's loss is tried with."""


def _referred(f: Any) -> list[Any]:
    """Return the objects that a function refers to, by its closure, arguments and globals."""
    objects = [*f.args, *f.keywords.values()] if isinstance(f, partial) else []
    function = f.func if isinstance(f, partial) else f
    objects.append(getattr(function, "__self__", None))
    function = getattr(function, "__func__", function)
    code = getattr(function, "__code__", None)
    if code is None or not isinstance(function, FunctionType):
        return objects
    for cell in function.__closure__ or ():
        try:
            objects.append(cell.cell_contents)
        except ValueError:  # not assigned yet
            continue
    objects += function.__defaults__ or ()
    objects += [
        function.__globals__[name] for name in code.co_names if name in function.__globals__
    ]
    return objects


def _has_parameters(each: Any, moved: list[Array]) -> bool:
    """Return whether an object is a net with these arrays among its parameters."""
    params = getattr(each, "params", None)
    if not isinstance(params, dict) or not callable(getattr(each, "loss", None)):
        return False
    return all(any(array is mine for mine in params.values()) for array in moved)
