"""How many training steps a second? By central differences and by backpropagation."""

import numpy as np

from benchmarks import training
from benchmarks.conftest import Record
from benchmarks.training import RATE, Trainer, train
from fastgrad.datasets import load_mnist_sample


def test_steps_per_second(record: Record, steps: int) -> None:
    (x, t), _ = load_mnist_sample()
    train(training.everyone(x, t), 3)
    trainers = training.everyone(x, t)
    times = train(trainers, steps)
    for name, blocks in times.items():
        record(**{f"{name}, steps a second": steps / sum(blocks.seconds)})
    if "PyTorch" in times:
        _assert_same_path(record, trainers, steps)


def _assert_same_path(record: Record, trainers: list[Trainer], steps: int) -> None:
    """Compare the parameters after training with PyTorch's.

    A quotient at h = 1e-4 is within 1e-8 of the derivative, its truncation error, and a step adds
    the learning rate's share of it, little of which dies away.
    """
    ends = {trainer.name: trainer.parameters() for trainer in trainers}
    for name in ("numerical_gradient", "net.gradient"):
        deviation = float(np.abs(ends[name] - ends["PyTorch"]).max())
        record(**{f"{name}, largest deviation from PyTorch's parameters": deviation})
        assert deviation <= steps * RATE * 1e-8
