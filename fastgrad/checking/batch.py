"""Of which net and which samples is f the loss? A batch, whole or sample by sample."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastgrad.network import TwoLayerNet

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Batch:
    """The net and the batch that f is the loss of.

    Attributes
    ----------
    net : object
        With ``loss(x, t)``.
    x, t : array
    """

    net: Any
    x: Array
    t: Array

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
        return isinstance(self.net, TwoLayerNet) and all(
            getattr(type(self.net), name) is getattr(TwoLayerNet, name)
            for name in ("params", "predict", "loss", "numerical_gradient")
        )


def loss_of_net(net: Any, x: Any, t: Any, _: Any) -> Any:
    """Return the loss, whatever the last argument is: the net reads its parameters itself."""
    return net.loss(x, t)
