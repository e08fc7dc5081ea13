"""`TwoLayerNet`, the book's network, differenced at the price of backpropagation."""

import reprlib
from functools import partial
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from fastgrad.differences.guard import turn
from fastgrad.gradient import numerical_gradient
from fastgrad.lazy import LazyModule
from fastgrad.network.functions import class_indices, cross_entropy_error
from fastgrad.network.parameters import Parameters
from fastgrad.typing import Doubles, Map, NetEngineName

if TYPE_CHECKING:
    from fastgrad.network import evaluation
else:  # it loads numba and the kernels, which takes a second
    evaluation = LazyModule("fastgrad.network.evaluation")


class TwoLayerNet:
    """The two-layer network of *Deep Learning from Scratch*, trained by central differences.

    ``p = softmax(sigmoid(x W1 + b1) W2 + b2)``, with the loss ``mean of -log(p[label] + 1e-7)``.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        I, H and K: at least 1.
    weight_init_std : float
        The standard deviation of the initial weights. W1, then W2, are drawn with the global
        `numpy.random.randn`, so the same `numpy.random.seed` gives the book's numbers; the biases
        start at zero.

    Attributes
    ----------
    params : Parameters
        W1 (I, H), b1 (H,), W2 (H, K), b2 (K,): views of one contiguous buffer.

    Raises
    ------
    TypeError, ValueError
        If a size is not a whole number or below 1, or the deviation is not a finite number.

    Examples
    --------
    >>> np.random.seed(0)
    >>> net = TwoLayerNet(input_size=4, hidden_size=3, output_size=2)
    >>> x, t = np.random.rand(5, 4), np.array([0, 1, 1, 0, 1])
    >>> grads = net.numerical_gradient(x, t)
    >>> grads["W1"].shape
    (4, 3)
    >>> bool(abs(grads.buffer - net.gradient(x, t).buffer).max() < 1e-9)
    True
    >>> before = net.loss(x, t)
    >>> net.params.buffer -= 0.1 * grads.buffer
    >>> net.loss(x, t) < before
    True

    References
    ----------
    K. Saito, *Deep Learning from Scratch*, O'Reilly Japan, 2016, section 4.5.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
    ) -> None:
        inputs = _size("input_size", input_size)
        hidden = _size("hidden_size", hidden_size)
        classes = _size("output_size", output_size)
        deviation = _deviation(weight_init_std)
        self._params = Parameters(
            {"W1": (inputs, hidden), "b1": (hidden,), "W2": (hidden, classes), "b2": (classes,)}
        )
        self._params["W1"] = deviation * np.random.randn(inputs, hidden)
        self._params["W2"] = deviation * np.random.randn(hidden, classes)

    @property
    def params(self) -> Parameters:
        """The parameters by name; assign to its keys or to its `buffer`, not to it."""
        return self._params

    def predict(self, x: ArrayLike) -> Doubles:
        """Return the probability of each class.

        Parameters
        ----------
        x : array_like of real numbers, shape (N, I) or (I,)
            The samples; finite. Computed in float64 whatever their dtype.

        Returns
        -------
        ndarray of shape (N, K), or (K,) for a 1-D x
        """
        p = evaluation.probabilities(self._params, x)
        return p[0] if np.ndim(x) == 1 else p

    def loss(self, x: ArrayLike, t: ArrayLike) -> float:
        """Return the mean cross entropy, ``-log(p[label] + 1e-7)``.

        Parameters
        ----------
        x : array_like of real numbers, shape (N, I) or (I,)
        t : array_like
            Class indices of shape (N,) or (N, 1), or one-hot or soft targets of shape (N, K), of
            which the largest entry counts, as in the book.
        """
        return float(cross_entropy_error(self._predict_for(x, t), t))

    def accuracy(self, x: ArrayLike, t: ArrayLike) -> float:
        """Return the share of samples whose most probable class is theirs; arguments as `loss`."""
        p = np.atleast_2d(self._predict_for(x, t))
        return float((p.argmax(axis=1) == class_indices(t, *p.shape)).mean())

    def numerical_gradient(
        self,
        x: ArrayLike,
        t: ArrayLike,
        h: float = 1e-4,
        *,
        engine: NetEngineName = "response",
        workers: int | Map | None = None,
    ) -> Parameters:
        """Return ``(loss(theta + h e_p) - loss(theta - h e_p)) / (2 h)`` for every parameter p.

        Parameters
        ----------
        x : array_like of real numbers, shape (N, I) or (I,)
        t : array_like
            The targets, as `loss` takes them.
        h : float
            The step.
        engine : {"response", "direct", "loop"}
            Of a subclass that overrides `predict` or `loss`, the general engines difference its own
            loss: "loop", or, for the others, the fastest that serves it.
            How the differences are evaluated. "response" measures the loss at a few shifts of each
            unit and sums over the samples, at about the cost of backpropagation; it is exact to
            rounding, by a bound that is proven in `fastgrad.network.response.plan_responses`,
            and hands over to "direct" where the step or the inputs are too large for the bound.
            "direct" moves every parameter and recomputes what it touches. "loop" is the book's
            loop.
        workers : int or map-like, optional
            Who computes shards of the batch, whose gradients are averaged: so many processes of
            this machine (-1: one for each core), or a parallel ``map(function, items)``, such as
            `fastgrad.cluster.dask_map` makes of a cluster. The result is that of the whole batch up
            to rounding. It pays on other machines, for batches of many thousand samples; here it
            pays with the slow engines only, since one process uses all cores anyway, and new ones
            take about a second to load the kernels.

        Returns
        -------
        fastgrad.network.parameters.Parameters
            The quotients, of the names and shapes of `params`, in a buffer of their own.

        Raises
        ------
        TypeError, ValueError
            If x, t or h are not as described, x has a nan or an infinity, h is lost when it is
            added to a parameter, or the engine is unknown. Nothing has been computed then.

        Warns
        -----
        RuntimeWarning
            If a quotient is not finite, as when a parameter is nan; it is returned as it is.
        """
        names = get_args(NetEngineName)
        if not isinstance(engine, str) or engine not in names:
            existing = ", ".join(map(repr, names))
            raise ValueError(f"engine is {engine!r}, which does not exist; pass one of {existing}")
        if self._differs_in(*LOSS_METHODS):
            return self._gradient_of_another_loss(x, t, h, engine, workers)
        with turn([self._params.buffer], ()):
            return evaluation.numerical_gradient(self._params, x, t, h, engine, workers)

    numercial_gradient = numerical_gradient  # as the article spells it

    def gradient(self, x: ArrayLike, t: ArrayLike) -> Parameters:
        """Return the derivatives of `loss` by backpropagation, for comparison; arguments as there.

        Exact for this loss. The book's own backpropagation ignores the 1e-7 under the logarithm,
        so it differs from this by a factor of ``p / (p + 1e-7)`` a sample.
        """
        changed = [name for name in LOSS_METHODS if self._differs_in(name)]
        if changed and not self._differs_in("gradient"):
            raise NotImplementedError(
                f"{type(self).__name__} has a {changed[0]} of its own, but the gradient of "
                "TwoLayerNet is that of its loss; override gradient, too, or take "
                "numerical_gradient, which differences any loss"
            )
        with turn([], (self._params,)):
            return evaluation.exact_gradient(self._params, x, t)

    def _predict_for(self, x: ArrayLike, t: ArrayLike) -> Doubles:
        """Return the predictions; targets that do not fit are refused before they are computed."""
        if not self._differs_in("predict"):
            evaluation.require_targets(self._params, x, t)
        return self.predict(x)

    def _differs_in(self, *names: str) -> bool:
        """Say whether a subclass, or this net by itself, has other attributes of these names."""
        kind = type(self)
        return any(
            getattr(kind, name, None) is not OWN_METHODS[name] or name in self.__dict__
            for name in names
        )

    def _gradient_of_another_loss(
        self, x: ArrayLike, t: ArrayLike, h: float, engine: NetEngineName, workers: int | Map | None
    ) -> Parameters:
        """Return the differences of a loss that is not this class's, by the general engines."""
        params = self.params
        gradients = numerical_gradient(
            partial(_loss_of, self, x, t),
            {**params},
            h,
            engine="loop" if engine == "loop" else "auto",
            workers=workers,
        )
        if not isinstance(params, Parameters):
            return gradients
        return params.over(np.concatenate([array.ravel() for array in gradients.values()]))


LOSS_METHODS = ("params", "predict", "loss")
"""On what the loss depends."""

MAX_SIZE = 2**40
"""The largest size of a layer."""

OWN_METHODS = {name: getattr(TwoLayerNet, name) for name in (*LOSS_METHODS, "gradient")}
"""The class's own attributes."""


def _loss_of(net: TwoLayerNet, x: ArrayLike, t: ArrayLike, _: object) -> float:
    """Return the loss, whatever the last argument is: the net reads its parameters itself."""
    return net.loss(x, t)


def _size(name: str, value: Any) -> int:
    try:
        size = index(value)
    except TypeError:
        raise TypeError(
            f"{name} is {value!r}, but a size is a whole number; pass an int of at least 1"
        ) from None
    if size < 1:
        raise ValueError(f"{name} is {size}, but a size is at least 1; pass a larger one")
    if size > MAX_SIZE:
        raise ValueError(
            f"{name} is {reprlib.repr(size)}, which no memory holds; pass at most {MAX_SIZE:,}"
        )
    return size


def _deviation(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
        raise ValueError(
            f"weight_init_std is {value!r}, but a standard deviation is a finite number; "
            "pass one such as 0.01"
        )
    return float(value)
