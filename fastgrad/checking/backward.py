"""`check_backward`: whether a layer's backward pass is right, for all of its inputs in one call."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fastgrad.checking.check import check_gradient
from fastgrad.checking.report import Report
from fastgrad.differences.arguments import (
    as_array,
    as_returned,
    is_structure,
    leaves,
    require_floating_array,
    users_array,
)
from fastgrad.differences.conversions import BOOK_STEP, is_number
from fastgrad.differences.guard import guarded
from fastgrad.typing import Array, GradientEngineName, Progress


def check_backward(
    forward: Callable[..., Any],
    inputs: Any,
    dout: Any,
    backward: Callable[..., Any],
    *,
    args: tuple[Any, ...] = (),
    h: float | None = None,
    engine: GradientEngineName = "auto",
    rtol: float = 0.0,
    fast: bool = False,
    max_seconds: float | None = None,
    progress: Progress = False,
) -> Report:
    """Compare what a layer passes back with the differences of what it passes on.

    What is differenced is the sum of all elements of ``out * dout``, with respect to each input:
    `check_gradient` compares it with what backward returns, element by element, and says what is
    wrong.

    Parameters
    ----------
    forward : callable
        ``forward(*inputs, *args)`` -> out, or a tuple of out, as many as there are in ``dout``, and
        a cache. Called again and again, with inputs that are moved in place.
    inputs : array, tuple or list of arrays, or dict of arrays
        What the layer is given: one array, several, or several by their names. Bit-identical
        afterwards, whatever happens.
    dout : array, tuple of arrays, or None
        What is passed back to the layer, of the shape of out; a tuple if it has several outs. None
        draws numbers for one out, the same ones each time.
    backward : callable
        ``backward(dout, cache)``, or ``backward(dout)`` if forward returns no cache -> what it
        passes back: an array, a tuple in the order of the inputs, or a dict. It is called right
        after forward.
    args : tuple
        Further arguments of forward, which are not moved: strides, modes.
    h, engine, rtol, fast, max_seconds, progress
        As for `check_gradient`.

    Returns
    -------
    Report
        With a row for each input, by its name if forward tells it; true if all are right.

    Raises
    ------
    TypeError, ValueError
        As from `check_gradient`; if dout does not have the shape of out, or backward returns
        another number of arrays than there are inputs.

    Examples
    --------
    >>> def affine_forward(x, w, b):
    ...     return x @ w + b, (x, w)
    >>> def affine_backward(dout, cache):
    ...     x, w = cache
    ...     return dout @ w.T, x.T @ dout, -dout.sum(axis=0)
    >>> inputs = np.eye(2, 3), np.ones((3, 4)), np.zeros(4)
    >>> report = check_backward(affine_forward, inputs, None, affine_backward)
    >>> [(row.name, row.verdict) for row in report.rows]
    [('x', 'right'), ('w', 'right'), ('b', 'wrong')]
    >>> print(report.findings[0])
    b: the sign is wrong: it is -1 times what it should be. Corrected for that, every element \
agrees.
    """
    for name, function in (("forward", forward), ("backward", backward)):
        if not callable(function):
            raise TypeError(
                f"{name} is a {type(function).__name__}, which cannot be called; pass a function"
            )
    if not isinstance(args, tuple):
        raise TypeError(
            f"args is a {type(args).__name__}; pass a tuple of forward's further arguments"
        )
    inputs = users_array(inputs)
    for name, array in leaves(inputs, "inputs"):
        if not is_number(array):
            require_floating_array(name, array, BOOK_STEP)
    layer = _Layer(forward, inputs, backward, args)
    with guarded((forward, backward), layer.inputs, args):
        layer.douts = layer.as_passed_back(dout)
    report = check_gradient(
        partial(weighted_sum, layer.call, layer.douts),
        layer.inputs,
        layer.gradient,
        h=h,
        engine=engine,
        rtol=rtol,
        fast=fast,
        max_seconds=max_seconds,
        progress=progress,
    )
    rows = tuple(replace(row, name=_plain(row.name)) for row in report.rows)
    findings = tuple(map(_plain, report.findings))
    return replace(report, rows=rows, findings=findings, summary=_plain(report.summary))


def _plain(text: str) -> str:
    """Return a text with b instead of x['b']."""
    return re.sub(r"\bx\['(\w+)'\]", r"\1", text)


def weighted_sum(call: Callable[[Any], Any], douts: tuple[Array, ...], x: Any) -> Any:
    """Return the sum of what a function returns, times what is passed back to it."""
    returned = call(x)
    if len(douts) == 1 and not isinstance(returned, tuple):
        return np.sum(returned * douts[0])
    return sum(np.sum(out * dout) for out, dout in zip(returned, douts, strict=False))


class _Layer:
    """A forward and a backward pass, and the inputs by their names.

    Attributes
    ----------
    inputs : dict of arrays
    call : callable
        The forward pass as a function of the inputs.
    douts : tuple of arrays
        What is passed back, for each out.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        inputs: Any,
        backward: Callable[..., Any],
        args: tuple[Any, ...],
    ) -> None:
        self._backward = backward
        self.is_single = not is_structure(inputs)
        self.douts: tuple[Array, ...] = ()
        if isinstance(inputs, dict):
            self.inputs, self.call = inputs, partial(_by_name, forward, args)
        else:
            arrays = [inputs] if self.is_single else [*inputs]
            self.inputs = dict(zip(_names(forward, len(arrays)), arrays, strict=True))
            self.call = partial(_in_order, forward, args)

    def as_passed_back(self, dout: Any) -> tuple[Array, ...]:
        """Return what is passed back for each out, once it fits what forward returns."""
        given = dout if isinstance(dout, tuple) else (dout,)
        outs = self._outs(len(given))
        if dout is None:
            return tuple(np.random.default_rng(0).normal(size=np.shape(out)) for out in outs)
        douts = []
        for k, (out, part) in enumerate(zip(outs, given, strict=True)):
            name = f"dout[{k}]" if len(given) > 1 else "dout"
            array = as_array(name, part, f"pass an array of shape {np.shape(out)}")
            if array.dtype.kind not in "fiu":
                raise TypeError(f"{name} has dtype {array.dtype}, but it is real; pass floats")
            if array.shape != np.shape(out):
                raise ValueError(
                    f"{name} has shape {array.shape}, but forward returns an array of shape "
                    f"{np.shape(out)}; pass one of that shape, or None"
                )
            douts.append(array.astype(np.result_type(array.dtype, np.float64)))
        return tuple(douts)

    def gradient(self, inputs: dict[str, Array]) -> dict[str, Any]:
        """Return what is passed back to each input, after a forward pass."""
        returned = self.call(inputs)
        cache = returned[len(self.douts) :] if isinstance(returned, tuple) else ()
        # Copies, for a layer may write into what it is given.
        passed = self._backward(*(dout.copy() for dout in self.douts), *cache)
        if isinstance(passed, dict):
            return passed
        arrays = [*passed] if isinstance(passed, (tuple, list)) else [passed]
        if len(arrays) != len(self.inputs):
            raise ValueError(
                f"backward returned {len(arrays)} of {len(self.inputs)} gradients; let it return "
                f"one for each input, {', '.join(self.inputs)}, in this order"
            )
        return dict(zip(self.inputs, arrays, strict=True))

    def _outs(self, number: int) -> list[Any]:
        """Return so many outs of a forward pass, as arrays."""
        returned = self.call(self.inputs)
        outs = [*returned[:number]] if isinstance(returned, tuple) else [returned]
        if len(outs) != number:
            raise ValueError(
                f"dout is a tuple of {number}, but forward returns {len(outs)} outs; pass an array "
                "for each out"
            )
        return [*map(as_returned, outs)]


def _in_order(forward: Callable[..., Any], args: tuple[Any, ...], inputs: dict[str, Array]) -> Any:
    return forward(*inputs.values(), *args)


def _by_name(forward: Callable[..., Any], args: tuple[Any, ...], inputs: dict[str, Array]) -> Any:
    return forward(*args, **inputs)


def _names(forward: Callable[..., Any], number: int) -> list[str]:
    """Return what forward calls its first arguments; in0, in1 and so on if it does not tell."""
    try:
        parameters = [*inspect.signature(forward).parameters.values()][:number]
    except (TypeError, ValueError):
        parameters = []
    named = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    names = [each.name for each in parameters if each.kind in named]
    return names if len(names) == number else [f"in{k}" for k in range(number)]
