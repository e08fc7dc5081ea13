"""Errors of gradients against the same quotients in extended precision."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import mpmath
import numpy as np
from numpy.typing import NDArray

from benchmarks.cases.two_layer_net import LOG_OFFSET, Problem
from fastgrad import TwoLayerNet
from fastgrad.typing import Array

SEED = 1
"""Of every sample of parameters."""

EXTENDED = np.finfo(np.longdouble).eps < 2e-19
"""Whether np.longdouble is wider than float64 here; it is not on Windows and on ARM Macs."""


def roundoff_bound(loss: float, h: float = 1e-4) -> float:
    """Return eps L / h, how far rounding the two losses may move a difference quotient."""
    return float(np.finfo(float).eps) * loss / h


@dataclass(frozen=True)
class ExactQuotients:
    """The central difference quotients of some parameters, without float64's rounding.

    Attributes
    ----------
    entries : array of int
        Which parameters, by their place in the net's buffer.
    quotients : longdouble array
    """

    entries: NDArray[np.int64]
    quotients: Array

    def errors(self, gradient: Array, entries: Array | None = None) -> Array:
        """Return the errors of a flat gradient, or of its quotients that are known, at entries."""
        known = np.arange(len(gradient)) if entries is None else entries
        _, here, there = np.intersect1d(self.entries, known, return_indices=True)
        return np.asarray(abs(gradient[there] - self.quotients[here]), dtype=float)


def exact_quotients(problem: Problem, per_array: int = 96, h: float = 1e-4) -> ExactQuotients:
    """Difference the loss in np.longdouble, at a seeded sample of each of the four arrays.

    Of the pre-activations only the column that the parameter touches is computed anew. The
    difference is taken sample by sample before the mean, so that its own error, about
    eps L / (2 h sqrt(N)), is 1e-16.
    """
    net, x, t = problem.net, problem.x.astype(np.longdouble), problem.t
    params = {name: values.astype(np.longdouble) for name, values in net.params.items()}
    step = np.longdouble(h)
    a1 = x @ params["W1"] + params["b1"]
    hidden = _sigmoid(a1)
    a2 = hidden @ params["W2"] + params["b2"]

    def losses(a: Array) -> Array:
        exponentials = np.exp(a - a.max(axis=1, keepdims=True))
        p = exponentials[np.arange(len(t)), t] / exponentials.sum(axis=1)
        return np.asarray(-np.log(p + np.longdouble(LOG_OFFSET)))

    def moved(name: str, index: tuple[int, ...], by: Any) -> Array:
        weights, bias = params["W" + name[1]].copy(), params["b" + name[1]].copy()
        (weights if name[0] == "W" else bias)[index] += by
        j = index[-1]
        if name[1] == "1":
            z = hidden.copy()
            z[:, j] = _sigmoid(x @ weights[:, j] + bias[j])
            return losses(z @ params["W2"] + params["b2"])
        a = a2.copy()
        a[:, j] = hidden @ weights[:, j] + bias[j]
        return losses(a)

    places, quotients = [], []
    for place, name, i in sampled_entries(net.params, per_array):
        index = tuple(map(int, np.unravel_index(i, params[name].shape)))
        difference = moved(name, index, step) - moved(name, index, -step)
        places.append(place)
        quotients.append(difference.sum() / (2 * step * len(t)))
    return ExactQuotients(np.array(places), np.array(quotients))


def mpmath_quotients(problem: Problem, per_array: int, h: float) -> ExactQuotients:
    """Difference the whole loss with 50 digits, for small nets, where even longdouble rounds."""
    quotients, places = [], []
    with mpmath.workdps(50):
        x = [[mpmath.mpf(float(value)) for value in row] for row in problem.x]
        params = {
            name: np.array([mpmath.mpf(float(v)) for v in values.ravel()]).reshape(values.shape)
            for name, values in problem.net.params.items()
        }
        step = mpmath.mpf(h)
        for place, name, i in sampled_entries(problem.net.params, per_array):
            values, sides = params[name].reshape(-1), []
            saved = values[i]
            for shift in (step, -step):
                values[i] = saved + shift
                sides.append(_mpmath_loss(params, np.array(x), problem.t))
            values[i] = saved
            places.append(place)
            quotients.append(np.longdouble(str((sides[0] - sides[1]) / (2 * step))))
    return ExactQuotients(np.array(places), np.array(quotients))


def sampled_entries(params: Mapping[str, Array], per_array: int) -> Iterator[tuple[int, str, int]]:
    """Yield, of a seeded sample of each array, the place in all, its name and the place in it."""
    generator, start = np.random.default_rng(SEED), 0
    for name, values in params.items():
        for i in np.sort(generator.permutation(values.size)[:per_array]):
            yield start + int(i), name, int(i)
        start += values.size


def hard_cases() -> Iterator[tuple[str, Problem, float]]:
    """Yield small problems that lose digits: large x and weights, small and large steps."""
    for largest in (1.0, 255.0):
        for deviation in (0.01, 1.0, 5.0):
            for h in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7):
                np.random.seed(3)
                net = TwoLayerNet(12, 8, 5, weight_init_std=deviation)
                x = largest * np.random.rand(6, 12)
                t = net.predict(x).argmax(axis=1)  # certain, where the weights are large
                t[::2] = np.random.randint(0, 5, len(t[::2]))
                yield f"x to {largest:g}, weights {deviation:g}, h {h:g}", Problem(net, x, t), h


def _sigmoid(a: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-a)))


def _mpmath_loss(params: dict[str, Array], x: Array, t: Array) -> Any:
    sigmoid = np.frompyfunc(lambda a: 1 / (1 + mpmath.exp(-a)), 1, 1)
    exponential = np.frompyfunc(mpmath.exp, 1, 1)
    a = sigmoid(x @ params["W1"] + params["b1"]) @ params["W2"] + params["b2"]
    p = exponential(a)
    chosen = p[np.arange(len(t)), t] / p.sum(axis=1)
    return -sum(mpmath.log(value + mpmath.mpf(LOG_OFFSET)) for value in chosen) / len(t)
