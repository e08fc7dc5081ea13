"""`TwoLayerNet`, the book's network, differenced at the price of backpropagation.

Arguments are checked once, in Python, before any kernel runs. `ENGINES` is the table of engines.
"""

import math
import reprlib
from collections.abc import Callable
from functools import partial
from numbers import Real
from operator import index
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fastgrad.differences.arguments import as_array, as_positive_number, element, warn_caller
from fastgrad.differences.guard import turn
from fastgrad.engines import loop
from fastgrad.gradient import numerical_gradient
from fastgrad.jit.concurrency import exclusive
from fastgrad.lazy import LazyModule
from fastgrad.network.functions import LOG_OFFSET, class_indices, cross_entropy_error
from fastgrad.network.parameters import Parameters
from fastgrad.typing import Doubles, Map, NetEngineName

if TYPE_CHECKING:
    from fastgrad.engines import processes
    from fastgrad.engines import workers as worker_pools
    from fastgrad.jit import matrix_products
    from fastgrad.network import propagation, response
else:  # numba and the kernels, which take a second, and processes
    processes = LazyModule("fastgrad.engines.processes")
    worker_pools = LazyModule("fastgrad.engines.workers")
    matrix_products = LazyModule("fastgrad.jit.matrix_products")
    propagation = LazyModule("fastgrad.network.propagation")
    response = LazyModule("fastgrad.network.response")

ROWS_AT_ONCE = 256
"""Rows that are evaluated at a time: their float64 copy stays in the second-level cache."""

MAX_SHARD_SAMPLES = 2_000
"""Samples of a shard for a map, of which nobody knows how many workers it has."""


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

    def __repr__(self) -> str:
        """Return the sizes, and the engine of `numerical_gradient` by default."""
        inputs, hidden = self._params["W1"].shape
        engine = "auto" if self._differs_in(*LOSS_METHODS) else "response"
        sizes = f"{inputs}-{hidden}-{len(self._params['b2'])}"
        return f"<{type(self).__name__} {sizes}, engine {engine!r}>"

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
        p = probabilities(self._params, x)
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
            return central_differences(self._params, x, t, h, engine, workers)

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
            return exact_gradient(self._params, x, t)

    def _predict_for(self, x: ArrayLike, t: ArrayLike) -> Doubles:
        """Return the predictions; targets that do not fit are refused before they are computed."""
        if not self._differs_in("predict"):
            require_targets(self._params, x, t)
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
    """Return a size as an int; refuse what is none."""
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
    """Return a standard deviation as a float; refuse what is none."""
    if isinstance(value, bool) or not isinstance(value, Real) or not np.isfinite(float(value)):
        raise ValueError(
            f"weight_init_std is {value!r}, but a standard deviation is a finite number; "
            "pass one such as 0.01"
        )
    return float(value)


# Predictions and gradients ------------------------------------------------------------------------


class Batch(NamedTuple):
    """A checked batch, and the net that it is meant for.

    Attributes
    ----------
    params : Parameters
    x : array of shape (N, I)
    labels : array of shape (N,)
    largest : float
        The largest magnitude in x.
    nonzeros : int
        How many entries of x are not zero.
    """

    params: Parameters
    x: Doubles
    labels: NDArray[np.intp]
    largest: float
    nonzeros: int

    def forward(self) -> "propagation.Forward":
        """Run the batch through the net as it is now."""
        return propagation.run_forward(self.params, self.x, self.nonzeros)


def probabilities(params: Parameters, x: ArrayLike) -> Doubles:
    """Return the net's output for a batch of any size, shape (N, K)."""
    samples = as_samples(x, len(params["W1"]))
    classes = len(params["b2"])
    result = np.empty((len(samples), classes))
    with exclusive:
        for start in range(0, len(samples), ROWS_AT_ONCE):
            rows = as_kernels_take_it(samples[start : start + ROWS_AT_ONCE])
            _, nonzeros = largest_and_nonzeros(rows, start)
            run = propagation.run_forward(params, rows, nonzeros)
            result[start : start + ROWS_AT_ONCE] = run.p[:, :classes]
    return result


def require_targets(params: Parameters, x: ArrayLike, t: ArrayLike) -> None:
    """Refuse targets that do not fit the batch, before anything is computed."""
    class_indices(t, len(as_samples(x, len(params["W1"]))), len(params["b2"]))


def exact_gradient(params: Parameters, x: ArrayLike, t: ArrayLike) -> Parameters:
    """Return the derivatives of the mean loss, by backpropagation."""
    batch = check(params, x, t)
    with exclusive:
        return params.over(propagation.backpropagate(batch.forward(), batch.labels))


def central_differences(
    params: Parameters,
    x: ArrayLike,
    t: ArrayLike,
    h: float,
    engine: str,
    workers: int | Map | None = None,
) -> Parameters:
    """Return the central differences of the mean loss, by the named engine."""
    largest, _ = matrix_products.magnitude_and_nonzeros(params.buffer)
    step = as_step(h, params, largest, may_be_lost=engine == "loop")
    batch = check(params, x, t)
    bound = math.inf
    if np.isnan(largest):  # a parameter that is nan makes every loss nan, and every difference
        flat = np.full_like(params.buffer, np.nan)
    elif workers is not None:
        flat = mean_of_shards(batch, step, engine, workers)
    else:
        flat, bound = quotients(batch, step, engine)
    gradient = params.over(flat)
    if not bound < math.inf:
        _warn_of_nonfinite(gradient)
    return gradient


def quotients(batch: Batch, step: float, engine: str) -> tuple[Doubles, float]:
    """Return the central differences as a new flat array, and a bound on their magnitudes."""
    with exclusive:
        return ENGINES[engine](batch, step)


# Engines ------------------------------------------------------------------------------------------


def _by_responses(batch: Batch, h: float) -> tuple[Doubles, float]:
    """Measure a few shifts a unit; where no certain plan exists, perturb every weight."""
    result = response.gradient(
        batch.params, batch.x, batch.nonzeros, batch.labels, h, batch.largest
    )
    return _by_perturbation(batch, h) if result is None else result


def _by_perturbation(batch: Batch, h: float) -> tuple[Doubles, float]:
    """Move every parameter, and recompute what it touches."""
    return response.direct_gradient(batch.params, batch.x, batch.labels, h), math.inf


def _by_loop(batch: Batch, h: float) -> tuple[Doubles, float]:
    """Run the book's loop over each parameter; the loss ignores the array that it is given."""
    samples = np.arange(len(batch.x))

    def loss(_: object) -> float:
        p_label = batch.forward().p[samples, batch.labels]
        return float(-np.log(p_label + LOG_OFFSET).mean())

    arrays = batch.params.values()
    return np.concatenate([loop.gradient(loss, array, h).ravel() for array in arrays]), math.inf


ENGINES: dict[str, Callable[[Batch, float], tuple[Doubles, float]]] = {
    "response": _by_responses,
    "direct": _by_perturbation,
    "loop": _by_loop,
}
"""Name -> ``engine(batch, h)``, which returns the gradient as a new flat array, and a bound on the
magnitudes in it; inf if none is known."""


# Workers ------------------------------------------------------------------------------------------


def mean_of_shards(batch: Batch, step: float, engine: str, workers: int | Map) -> Doubles:
    """Return the difference quotients, of which workers compute those of shards of the batch.

    The loss is a mean over samples, and so is its difference quotient: that of N samples is the sum
    of ``n_k / N`` times that of the ``n_k`` samples of shard k.

    Parameters
    ----------
    batch : Batch
    step : float
    engine : str
    workers : int or map-like
        As `fastgrad.numerical_gradient` takes them.
    """
    samples = len(batch.x)
    parts = (
        -(-samples // MAX_SHARD_SAMPLES)
        if callable(workers)
        else min(worker_pools.count(workers), samples)
    )
    arrays = (np.array_split(array, parts) for array in (batch.x, batch.labels))
    shards = [*zip(*arrays, strict=True)]
    task = partial(share_of_shard, batch.params, samples, step, engine)
    total = np.zeros(batch.params.buffer.shape)
    # What is not finite shows in the result.
    with np.errstate(all="ignore"):
        run: Map = map
        if callable(workers):
            run = workers
        elif parts > 1 and processes.may_start():
            run = partial(processes.map_in_processes, parts)
        for share in worker_pools.checked(run(task, shards), np.ndarray, parts):
            total += share
    return total


def share_of_shard(
    params: Parameters,
    samples: int,
    step: float,
    engine: str,
    shard: tuple[Doubles, NDArray[np.intp]],
) -> Doubles:
    """Return what a shard contributes to the quotients of so many samples, wherever that is."""
    batch = check(params, *shard)
    flat, _ = quotients(batch, step, engine)
    return len(batch.x) / samples * flat


# Arguments ----------------------------------------------------------------------------------------


def check(params: Parameters, x: ArrayLike, t: ArrayLike) -> Batch:
    """Refuse what the net cannot evaluate."""
    samples = as_kernels_take_it(as_samples(x, len(params["W1"])))
    labels = class_indices(t, len(samples), len(params["b2"]))
    return Batch(params, samples, labels, *largest_and_nonzeros(samples))


def as_samples(x: ArrayLike, inputs: int) -> NDArray[Any]:
    """Return x as a batch: an array of shape (N, inputs), N at least 1, in a dtype of its own.

    Parameters
    ----------
    x : array_like of real numbers, shape (N, inputs) or (inputs,)
        A 1-D x is a batch of one.
    inputs : int
        The features of a sample.

    Raises
    ------
    TypeError
        If x does not hold real numbers.
    ValueError
        If x has another shape, or no samples.
    """
    array = as_array("x", x, f"pass an array of shape (N, {inputs})")
    if array.dtype.kind not in "fiub":
        raise TypeError(
            f"x has dtype {array.dtype}, but a sample is made of real numbers; pass x.astype(float)"
        )
    if array.ndim == 1:
        array = array.reshape(1, -1)
    if array.ndim != 2 or array.shape[1] != inputs:
        raise ValueError(
            f"x has shape {np.shape(x)}, but the net takes {inputs} features a sample: "
            f"(N, {inputs}) or ({inputs},); pass x.reshape(-1, {inputs}) if it holds whole samples"
        )
    if not len(array):
        raise ValueError(f"x has shape {array.shape}: no samples; pass at least one")
    return array


def as_kernels_take_it(samples: NDArray[Any]) -> Doubles:
    """Return samples in float64, C-contiguous, aligned and writable: themselves if they are.

    Kernels only read them, but are compiled for one type of array, and to numba a read-only array
    (a memory map, a broadcast) has another one.
    """
    if samples.flags.carray and samples.dtype == np.float64:
        return samples
    return np.array(samples, np.float64, order="C")


def largest_and_nonzeros(x: Doubles, start: int = 0) -> tuple[float, int]:
    """Return the largest magnitude in x and how many entries are not zero; refuse nan and inf.

    Parameters
    ----------
    x : float64 array of shape (N, I), C-contiguous
    start : int
        The number of its first sample, for the message.

    Raises
    ------
    ValueError
        If an entry is nan or infinite.
    """
    largest, nonzeros = matrix_products.magnitude_and_nonzeros(x)
    if not math.isfinite(largest):
        row, column = np.argwhere(~np.isfinite(x))[0]
        raise ValueError(
            f"x[{start + row}, {column}] is {x[row, column]}, but the features are finite numbers; "
            "remove or replace such samples"
        )
    return largest, nonzeros


def as_step(h: object, params: Parameters, largest: float, *, may_be_lost: bool = False) -> float:
    """Return h as a float, if it moves every parameter.

    Parameters
    ----------
    h : object
        The step.
    params : Parameters
    largest : float
        The largest magnitude among them; nan if one is nan, which no step is lost in.
    may_be_lost : bool
        Whether a step that does not move a parameter is warned of, and taken: as the book does.

    Raises
    ------
    TypeError
        If h is not a real number.
    ValueError
        If h is not positive and finite, or is lost when it is added to a parameter.
    """
    step = as_positive_number(h)
    if largest + step == largest or largest - step == largest:
        name = next(name for name, view in params.items() if largest in abs(view))
        message = (
            f"h is {step}, which is lost when it is added to params[{name!r}], whose largest "
            f"entry is {largest:.6g}; pass a larger h or smaller parameters"
        )
        if not may_be_lost or math.isinf(largest):
            raise ValueError(message)
        warn_caller(message)
    return step


def _warn_of_nonfinite(gradient: Parameters) -> None:
    """Warn, in the name of the caller of the net's method, of quotients that are no numbers."""
    largest, _ = matrix_products.magnitude_and_nonzeros(gradient.buffer)
    if not math.isfinite(largest):
        name, view = next((n, v) for n, v in gradient.items() if not np.isfinite(v).all())
        warn_caller(
            f"the difference quotient at {element(name, np.argwhere(~np.isfinite(view))[0])} is "
            "not finite: the loss is nan or infinite there; look for nan or huge values in params"
        )
