"""Checks of functions that return arrays: `check_jacobian`, and `check_backward` of a layer.

Both come down to `check_gradient` of a number: the sum of what f returns, times random weights.
"""

import inspect
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from fastgrad.checking.check import check_gradient
from fastgrad.checking.report import Report
from fastgrad.checking.subject import NO_VALUE
from fastgrad.differences.arguments import (
    as_array,
    as_real_array,
    as_returned,
    element_at,
    is_structure,
    leaves,
    require_arguments,
    require_floating_array,
    require_function,
    users_array,
)
from fastgrad.differences.conversions import (
    BOOK_STEP,
    Exported,
    is_number,
    kind_of,
    takes_conversions,
)
from fastgrad.differences.domain import as_kinds
from fastgrad.differences.guard import Original, guarded
from fastgrad.jacobians import jacobian as numerical_jacobian
from fastgrad.jacobians import weighted_sum
from fastgrad.typing import Array, GradientEngineName, Progress

MAX_ROWS = 3
"""Numbers that f returns whose derivatives are looked at, one by one, where a Jacobian is wrong."""

DIRECTIONS = 3
"""Random directions along which a product with the Jacobian is checked."""


@takes_conversions
def check_jacobian(
    f: Callable[..., Any],
    x: Array,
    jacobian: Any = None,
    *,
    jvp: Callable[..., Any] | None = None,
    vjp: Callable[..., Any] | None = None,
    args: tuple[Any, ...] = (),
    h: float | None = None,
    rtol: float = 0.0,
    max_seconds: float | None = None,
    progress: Progress = False,
    outside: Any = None,
) -> Report:
    """Compare a Jacobian, or products with it, with the differences of f.

    What is compared is the gradient of ``(w * f(x)).sum()``, by `check_gradient`, with random
    weights w that give each number of f the same part. Where it differs, those numbers whose
    derivatives differ most are checked by themselves, and named.

    Parameters
    ----------
    f : callable
        ``f(x, *args)`` -> array.
    x : array
        Bit-identical afterwards, whatever happens.
    jacobian : array or SciPy sparse array, or callable
        What is checked, ``(*f(x).shape, *x.shape)`` or ``(f(x).size, x.size)``; or
        ``jacobian(x, *args)``, which returns that.
    jvp : callable, instead of jacobian
        ``jvp(x, v, *args)`` -> the Jacobian times v, an array of f(x)'s shape.
    vjp : callable, instead of jacobian
        ``vjp(x, w, *args)`` -> w times the Jacobian, an array of x's shape.
    args, h, rtol, max_seconds, progress, outside
        As for `check_gradient`.

    Returns
    -------
    Report
        With a row for the sum, and for each number whose derivatives are wrong.

    Raises
    ------
    TypeError, ValueError
        As from `check_gradient`; if not exactly one of jacobian, jvp and vjp is given, or it has
        another shape.

    Examples
    --------
    >>> A = np.arange(6.0).reshape(2, 3)
    >>> bool(check_jacobian(lambda x: A @ x, np.ones(3), A))
    True
    >>> print(check_jacobian(lambda x: A @ x**2, np.ones(3), [2 * A[0], A[1]]).summary)
    The Jacobian is wrong: f(x)[1].
    >>> bool(check_jacobian(lambda x: A @ x, np.ones(3), jvp=lambda x, v: A @ v))
    True
    """
    given = {"jacobian": jacobian, "jvp": jvp, "vjp": vjp}
    named = [name for name, value in given.items() if value is not None]
    if not named:
        raise TypeError("jacobian is missing; pass what is to be checked, or jvp or vjp instead")
    if len(named) > 1:
        raise TypeError(f"{' and '.join(named)} are given; pass one of them")
    for name, function in (("jvp", jvp), ("vjp", vjp)):
        if function is not None and not callable(function):
            raise TypeError(
                f"{name} is a {type(function).__name__}, which cannot be called; pass a function"
            )
    require_floating_array("x", x, BOOK_STEP)
    require_function(f)
    require_arguments(args)
    options: dict[str, Any] = {"rtol": rtol, "max_seconds": max_seconds, "progress": progress}
    options["outside"] = outside
    with guarded((f, *given.values()), x, args):
        base = as_returned(f(x, *args))
        if base.dtype.kind not in "fiu":
            raise TypeError(f"f returned an array of dtype {base.dtype}; return real numbers")
        if jvp is not None:
            return _check_directions(f, x, jvp, args, base, h, options)
        analytic = None if vjp else _as_jacobian(jacobian, x, args, base)
    weights = np.random.default_rng(0).uniform(0.5, 1, base.shape)
    weights *= np.random.default_rng(1).choice([-1.0, 1.0], base.shape)
    if analytic is not None:
        sizes = np.abs(analytic).max(axis=1, initial=0.0)
        weights /= np.where(sizes > 0, sizes, 1.0).reshape(base.shape)

    def gradient(x: Array, *args: Any) -> Any:
        if vjp is not None:
            return vjp(x, weights.copy(), *args)
        rows = _as_jacobian(jacobian, x, args, base)
        return (weights.reshape(-1) @ rows).reshape(x.shape)

    checked = partial(weighted_sum, f, weights)
    report = check_gradient(checked, x, gradient, args=args, h=h, **options)
    what = "product" if vjp else "Jacobian"
    if report or analytic is None:
        summary = report.summary.replace("gradient", what, 1)
        return replace(report, summary=summary)
    return _with_wrong_rows(report, f, x, args, analytic, base, h, options)


def _as_jacobian(jacobian: Any, x: Array, args: tuple[Any, ...], base: Array) -> Array:
    """Return a Jacobian as an array (f(x).size, x.size)."""
    found = jacobian(x, *args) if callable(jacobian) else jacobian
    found = found.toarray() if hasattr(found, "toarray") else found
    shapes = base.shape + x.shape, (base.size, x.size)
    array = as_real_array("jacobian", found, f"pass one of shape {shapes[0]}")
    if array.shape not in shapes:
        hint = "; is it transposed?" if array.shape == shapes[1][::-1] else ""
        raise ValueError(
            f"jacobian has shape {array.shape}, but f(x) has shape {base.shape} and x has shape "
            f"{x.shape}{hint}; pass one of shape {shapes[0]}"
        )
    return array.reshape(shapes[1]).astype(np.result_type(array.dtype, np.float64))


def _with_wrong_rows(
    report: Report,
    f: Callable[..., Any],
    x: Array,
    args: tuple[Any, ...],
    analytic: Array,
    base: Array,
    h: float | None,
    options: dict[str, Any],
) -> Report:
    """Return the report on a wrong Jacobian, with the numbers of f whose derivatives are wrong."""
    shape = analytic.shape
    numerical = _numerical_jacobian(f, x, args, options["outside"], shape).reshape(shape)
    with np.errstate(all="ignore"):
        sizes = np.maximum(np.abs(analytic), np.abs(numerical)).max(axis=1, keepdims=True)
        apart = (np.abs(analytic - numerical) / np.where(sizes > 0, sizes, 1)).max(axis=1)
    rows, findings, names = [*report.rows], [*report.findings], []
    evaluations = report.evaluations
    for i in np.argsort(-apart)[:MAX_ROWS].tolist():
        name = element_at("f(x)", i, base.shape)
        row = analytic[i].reshape(x.shape)
        one = check_gradient(partial(_number, f, i), x, row, args=args, h=h, **options)
        evaluations += one.evaluations
        if not one:
            names.append(name)
            rows += [replace(row, name=name) for row in one.rows]
            findings += [f"{name}: {finding}" for finding in one.findings]
    if analytic.shape[0] == analytic.shape[1]:
        slack = 1e-6 * np.abs(numerical).max(initial=0.0)
        if np.allclose(analytic.T, numerical, rtol=1e-5, atol=slack):
            findings.insert(0, "It is transposed: its rows belong to x, and its columns to f(x).")
    more = ", and perhaps others" if len(names) == MAX_ROWS < base.size else ""
    where = f": {', '.join(names)}{more}" if names else ""
    summary = f"The Jacobian is wrong{where}."
    return Report(False, tuple(rows), tuple(findings), summary, report.h, evaluations)


def _numerical_jacobian(
    f: Callable[..., Any], x: Array, args: tuple[Any, ...], outside: Any, shape: tuple[int, ...]
) -> Any:
    """Return the Jacobian by differences, from the side on which f has a value; nan for none."""
    kinds = () if outside is None else as_kinds(outside)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "f is not defined on one side")
        try:
            return numerical_jacobian(f, x, args=args, outside=(*NO_VALUE, *kinds))
        except ValueError:  # on neither side
            return np.full(shape, np.nan)


def _number(f: Callable[..., Any], i: int, x: Any, *args: Any) -> Any:
    """Return one of the numbers that f returns."""
    values = f(x, *args)
    return np.reshape(values if hasattr(values, "shape") else as_returned(values), -1)[i]


def _check_directions(
    f: Callable[..., Any],
    x: Array,
    jvp: Callable[..., Any],
    args: tuple[Any, ...],
    base: Array,
    h: float | None,
    options: dict[str, Any],
) -> Report:
    """Compare products with the Jacobian along random directions."""
    random = np.random.default_rng(0)
    reports = []
    for _ in range(DIRECTIONS):
        v = random.normal(size=x.shape)
        product = as_array("jvp", jvp(x, v.copy(), *args), f"return one of shape {base.shape}")
        if product.shape != base.shape or product.dtype.kind not in "fiu":
            raise ValueError(
                f"jvp returned an array of shape {product.shape} and dtype {product.dtype}, but "
                f"f(x) has shape {base.shape}; return an array of real numbers of that shape"
            )
        weights = random.normal(size=base.shape)
        along = partial(_along, f, x, v, weights, args)
        expected = np.asarray((weights * product).sum())
        # At s = 1 and in x's dtype: then no step is too small for x, nor for what f computes in.
        reports.append(check_gradient(along, np.ones((), x.dtype), expected, h=h, **options))
    report = next((each for each in reports if not each), reports[0])
    rows = tuple(replace(row, name="J v") for row in report.rows)
    verdict = "right along" if report else "wrong along some of"
    summary = f"The product is {verdict} {DIRECTIONS} random directions."
    evaluations = sum(each.evaluations for each in reports)
    return replace(report, rows=rows, summary=summary, evaluations=evaluations)


def _along(
    f: Callable[..., Any], x: Array, v: Array, weights: Array, args: tuple[Any, ...], s: Any
) -> Any:
    """Return a sum of what f returns at x + (s - 1) v, where x itself is moved to."""
    original = Original(x)

    def weighted(x: Array) -> float:
        return float((as_returned(f(x, *args)) * weights).sum())

    return original.value_at(weighted, original.copy + (float(s) - 1) * v)


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
    outside: Any = None,
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
    h, engine, rtol, fast, max_seconds, progress, outside
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
    require_arguments(args, "forward")
    kind = kind_of(inputs)
    own = kind(inputs) if kind is not None and issubclass(kind, Exported) else None
    inputs = users_array(inputs if own is None else own.arrays)
    for name, array in leaves(inputs, "inputs"):
        if not is_number(array):
            require_floating_array(name, array, BOOK_STEP)
    layer = _Layer(forward, inputs, backward, args, own)
    with guarded((forward, backward), layer.inputs, args):
        layer.douts = layer.as_passed_back(dout)
    report = check_gradient(
        layer.weighted_outs,
        layer.inputs,
        layer.gradient,
        h=h,
        engine=engine,
        rtol=rtol,
        fast=fast,
        max_seconds=max_seconds,
        progress=progress,
        outside=outside,
    )
    rows = tuple(replace(row, name=_plain(row.name)) for row in report.rows)
    findings = tuple(map(_plain, report.findings))
    return replace(report, rows=rows, findings=findings, summary=_plain(report.summary))


def _plain(text: str) -> str:
    """Return a text with b instead of x['b']."""
    return re.sub(r"\bx\['(\w+)'\]", r"\1", text)


class _Layer:
    """A forward and a backward pass, and the inputs by their names.

    Attributes
    ----------
    inputs : dict of arrays
    douts : tuple of arrays
        What is passed back, for each out.
    """

    def __init__(
        self,
        forward: Callable[..., Any],
        inputs: Any,
        backward: Callable[..., Any],
        args: tuple[Any, ...],
        own: Exported | None,
    ) -> None:
        self._backward = backward
        self.douts: tuple[Array, ...] = ()
        if isinstance(inputs, dict):
            self.inputs, self._call = inputs, partial(_by_name, forward, args)
        else:
            arrays = [*inputs] if is_structure(inputs) else [inputs]
            self.inputs = dict(zip(_names(forward, len(arrays)), arrays, strict=True))
            self._call = partial(_in_order, forward, args)
        self._as_arrays: Callable[[Any], Any] = _as_it_is
        self._as_given: Callable[[Any], Any] = _as_it_is
        if own is not None:
            self._as_arrays, self._as_given = own.numbers, own.as_factor
            given = dict(zip(self.inputs, (leaf for _, leaf in leaves(own.given)), strict=True))
            self._call = partial(_without_last, self._call, given)

    def weighted_outs(self, inputs: dict[str, Array]) -> Any:
        """Return the sum of what is passed on, times what is passed back."""
        returned, douts = self._call(inputs), self.douts
        outs = returned[: len(douts)] if isinstance(returned, tuple) else returned
        returned = self._as_arrays(outs)
        if len(douts) == 1 and not isinstance(returned, tuple):
            return np.sum(returned * douts[0])
        return sum(np.sum(out * dout) for out, dout in zip(returned, douts, strict=False))

    def as_passed_back(self, dout: Any) -> tuple[Array, ...]:
        """Return what is passed back for each out, once it fits what forward returns."""
        given = dout if isinstance(dout, tuple) else (dout,)
        outs = self._outs(len(given))
        if dout is None:
            return tuple(np.random.default_rng(0).normal(size=np.shape(out)) for out in outs)
        douts = []
        for k, (out, part) in enumerate(zip(outs, given, strict=True)):
            name = f"dout[{k}]" if len(given) > 1 else "dout"
            array = as_real_array(
                name, self._as_arrays(part), f"pass an array of shape {np.shape(out)}"
            )
            if array.shape != np.shape(out):
                raise ValueError(
                    f"{name} has shape {array.shape}, but forward returns an array of shape "
                    f"{np.shape(out)}; pass one of that shape, or None"
                )
            douts.append(array.astype(np.result_type(array.dtype, np.float64)))
        return tuple(douts)

    def gradient(self, inputs: dict[str, Array]) -> dict[str, Any]:
        """Return what is passed back to each input, after a forward pass."""
        returned = self._call(inputs)
        cache = returned[len(self.douts) :] if isinstance(returned, tuple) else ()
        douts = [dout.copy() for dout in self.douts]  # for a layer may write into what it is given
        passed = self._as_arrays(self._backward(*map(self._as_given, douts), *cache))
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
        returned = self._call(self.inputs)
        outs = [*returned[:number]] if isinstance(returned, tuple) else [returned]
        outs = [*map(self._as_arrays, outs)]
        if len(outs) != number:
            raise ValueError(
                f"dout is a tuple of {number}, but forward returns {len(outs)} outs; pass an array "
                "for each out"
            )
        return [*map(as_returned, outs)]


def _in_order(forward: Callable[..., Any], args: tuple[Any, ...], inputs: dict[str, Array]) -> Any:
    return forward(*inputs.values(), *args)


def _as_it_is(value: Any) -> Any:
    return value


def _without_last(call: Callable[[Any], Any], given: Any, _: Any) -> Any:
    return call(given)


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
