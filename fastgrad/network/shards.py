"""Shards of a batch for workers: each differences the loss of its samples, and the parent averages.

The loss is a mean over samples, and so is its difference quotient: that of N samples is the sum
of ``n_k / N`` times that of the ``n_k`` samples of shard k.
"""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fastgrad.engines.workers import processes
from fastgrad.engines.workers.scheduler import count, paired
from fastgrad.typing import Doubles, Map

Shard = tuple[Doubles, NDArray[np.int64]]

MAX_SHARD_SAMPLES = 2_000
"""Samples of a shard for a map, of which nobody knows how many workers it has."""


def gradient(
    quotients: Callable[[Doubles, NDArray[np.int64]], Doubles],
    x: Doubles,
    labels: NDArray[np.int64],
    workers: int | Map,
) -> Doubles:
    """Return the difference quotients of the mean loss as a new flat array.

    Parameters
    ----------
    quotients : callable
        ``quotients(x, labels)``, the same of the samples of a shard; workers are sent it.
    x : array of shape (N, I)
    labels : array of shape (N,)
    workers : int or map-like
        As `fastgrad.numerical_gradient` takes them.
    """
    shards = -(-len(x) // MAX_SHARD_SAMPLES) if callable(workers) else min(count(workers), len(x))
    task = partial(_shard_gradient, quotients)
    pairs = [*zip(np.array_split(x, shards), np.array_split(labels, shards), strict=True)]
    if callable(workers):
        return _mean(pairs, workers(task, pairs))
    if shards == 1:
        return quotients(*pairs[0])
    if not processes.may_start():
        return _mean(pairs, map(task, pairs))
    with closing(processes.process_pool(shards)) as pool:
        return _mean(pairs, pool.map(task, pairs))


@dataclass(frozen=True)
class ShardGradient:
    """The flat gradient of a shard's mean loss, and how many samples the shard has."""

    samples: int
    gradient: Doubles


def _mean(shards: list[Shard], gradients: Iterable[ShardGradient]) -> Doubles:
    """Return the mean of the shards' gradients, weighted by their samples."""
    samples = sum(len(x) for x, _ in shards)
    total = np.zeros(())
    with np.errstate(all="ignore"):  # what is not finite shows in the result
        for _, of_shard in paired(shards, gradients, ShardGradient):
            total = total + of_shard.samples / samples * of_shard.gradient
    return total


def _shard_gradient(
    quotients: Callable[[Doubles, NDArray[np.int64]], Doubles], shard: Shard
) -> ShardGradient:
    """Return the gradient of a shard's samples, in a worker."""
    x, labels = shard
    return ShardGradient(len(x), quotients(x, labels))
