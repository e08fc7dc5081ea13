"""Training as the book does it: by differences, by backpropagation, and in PyTorch."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.cases.two_layer_net import PyTorchNet
from benchmarks.measure.timing import PAUSE, Times, compare
from fastgrad import TwoLayerNet, load_mnist, numerical_gradient, reference
from fastgrad.datasets import load_mnist_sample
from fastgrad.network.parameters import Parameters
from fastgrad.typing import Array

Part = tuple[Array, Array]
"""Images and labels."""

HIDDEN, BATCH, RATE = 50, 100, 0.1  # the book's


@dataclass(frozen=True)
class Trainer:
    """A way to train.

    Attributes
    ----------
    name : str
    step : callable
        ``step() -> loss``: choose a batch, update the parameters, return the batch's loss.
    parameters : callable
        ``parameters() -> array``: all of them, flat, in the order of fastgrad's buffer.
    """

    name: str
    step: Callable[[], float]
    parameters: Callable[[], Array]


def digits(smoke: bool) -> tuple[Part, Part, str]:
    """Return MNIST's digits to learn and to test with, or the embedded sample's, and which."""
    if not smoke:
        with suppress(ConnectionError, ImportError):
            return *load_mnist(), "full MNIST"
    return *load_mnist_sample(), "the embedded sample of MNIST"


def numerical(x: Array, t: Array, seed: int = 0) -> Trainer:
    """Train by central differences."""
    return _trainer("numerical_gradient", TwoLayerNet.numerical_gradient, x, t, seed)


def pytorch(x: Array, t: Array) -> Trainer:
    """Train by PyTorch's autograd in float64, with the same batches and the same steps."""
    return _pytorch_trainer("PyTorch", "float64", True, x, t)


def everyone(x: Array, t: Array) -> list[Trainer]:
    """Return a trainer of each kind that is installed, all before their first step."""
    trainers = [numerical(x, t), _trainer("net.gradient", TwoLayerNet.gradient, x, t)]
    if find_spec("torch"):
        trainers += [
            pytorch(x, t),
            # One forward pass less:
            _pytorch_trainer("PyTorch, loss before the update", "float64", False, x, t),
            # Not the same arithmetic:
            _pytorch_trainer("PyTorch, float32", "float32", True, x, t),
        ]
    return trainers


@dataclass(frozen=True)
class PlainRun:
    """What training the book's own class took, its import of the gradient changed.

    Attributes
    ----------
    threads : int
        Of BLAS.
    call : float
        Seconds of a call of its loss.
    steps : Times
        Of single steps.
    deviation : float
        The largest of a batch's loss from that of the same training by backpropagation.
    """

    threads: int
    call: float
    steps: Times
    deviation: float


def train_plain(x: Array, t: Array, steps: int, threads: int) -> PlainRun:
    """Train the book's own class for some steps, beside a net that learns by backpropagation."""
    with threadpool_limits(threads, "blas"):
        plain, exact = plain_numpy(x, t), _trainer("", TwoLayerNet.gradient, x, t, seed=0)
        net = reference.TwoLayerNet(x.shape[1], HIDDEN, 10)
        loss = partial(net.loss, x[:BATCH], _one_hot(t[:BATCH]))
        call = compare({"loss": loss}, 3)["loss"].median
        seconds, deviation = [], 0.0
        for _ in range(steps):
            start = time.perf_counter()
            value = plain.step()
            seconds.append(time.perf_counter() - start)
            deviation = max(deviation, abs(value - exact.step()))
    return PlainRun(threads, call, Times(seconds), deviation)


def plain_numpy(x: Array, t: Array, seed: int = 0) -> Trainer:
    """Train the book's own class by `fastgrad.numerical_gradient` of one array after the other."""
    start, batches = _start(x, seed)
    net = reference.TwoLayerNet(x.shape[1], HIDDEN, 10)
    net.params = {name: values.copy() for name, values in start.params.items()}
    labels = _one_hot(t)

    def step() -> float:
        chosen = batches.choice(len(x), BATCH)
        x_batch, t_batch = x[chosen], labels[chosen]
        grads = {
            name: numerical_gradient(lambda _: net.loss(x_batch, t_batch), values)
            for name, values in net.params.items()
        }
        for name in net.params:
            net.params[name] -= RATE * grads[name]
        return float(net.loss(x_batch, t_batch))

    return Trainer(
        "numerical_gradient, the book's class",
        step,
        lambda: np.concatenate([values.ravel() for values in net.params.values()]),
    )


def train(trainers: Sequence[Trainer], steps: int, block: int = 100) -> dict[str, Times]:
    """Train each for so many steps, in alternating blocks; return the seconds of the blocks.

    Warm up with other trainers of the same kind before.
    """
    seconds: dict[str, list[float]] = {trainer.name: [] for trainer in trainers}
    for start in range(0, steps, block):
        for trainer in trainers:
            time.sleep(PAUSE)
            begin = time.perf_counter()
            for _ in range(min(block, steps - start)):
                trainer.step()
            seconds[trainer.name].append(time.perf_counter() - begin)
    return {name: Times(values) for name, values in seconds.items()}


def accuracy(trainer: Trainer, x: Array, t: Array) -> float:
    """Return the share of samples that a trained net classifies rightly."""
    net = TwoLayerNet(x.shape[1], HIDDEN, 10)
    net.params.buffer[:] = trainer.parameters()
    return net.accuracy(x, t)


def _trainer(
    name: str, gradient: Callable[..., Parameters], x: Array, t: Array, seed: int = 0
) -> Trainer:
    """Train a fastgrad net, as the book does, by one of its gradients."""
    net, batches = _start(x, seed)

    def step() -> float:
        chosen = batches.choice(len(x), BATCH)
        x_batch, t_batch = x[chosen], t[chosen]
        grads = gradient(net, x_batch, t_batch)
        net.params.buffer -= RATE * grads.buffer
        return net.loss(x_batch, t_batch)

    return Trainer(name, step, lambda: net.params.buffer)


def _pytorch_trainer(name: str, dtype: str, loss_after: bool, x: Array, t: Array) -> Trainer:
    """Train a PyTorch net: fewest operations, no optimiser object, no data loader."""
    torch: Any = import_module("torch")
    start, batches = _start(x, seed=0)
    net = PyTorchNet(start, dtype)

    def step() -> float:
        chosen = batches.choice(len(x), BATCH)
        x_batch = torch.from_numpy(x[chosen]).to(net.dtype)
        t_batch = torch.from_numpy(t[chosen]).long()
        loss = net.loss(x_batch, t_batch)
        grads = torch.autograd.grad(loss, net.params)
        with torch.no_grad():
            for values, gradient in zip(net.params, grads, strict=True):
                values.sub_(gradient, alpha=RATE)
            if loss_after:
                loss = net.loss(x_batch, t_batch)
        return float(loss.item())

    def parameters() -> Array:
        return np.concatenate([values.detach().numpy().ravel() for values in net.params])

    return Trainer(name, step, parameters)


def _one_hot(t: Array) -> Array:
    """Return labels as the book's training has them."""
    return np.eye(10)[t]


def _start(x: Array, seed: int) -> tuple[TwoLayerNet, np.random.RandomState]:
    """Return the net before training and the source of the batches, the same for every trainer."""
    np.random.seed(seed)
    return TwoLayerNet(x.shape[1], HIDDEN, 10), np.random.RandomState(seed)
