"""The book's net with a batch, and its gradient by fastgrad, PyTorch and JAX."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np

from fastgrad import TwoLayerNet, reference
from fastgrad.datasets import load_mnist_sample
from fastgrad.typing import Array

GradientCall = Callable[[], Any]

LOG_OFFSET = 1e-7  # the loss is -log(p[label] + 1e-7), averaged over the batch


@dataclass(frozen=True)
class Problem:
    """A net and a batch.

    Attributes
    ----------
    net : TwoLayerNet
    x : float64 array of shape (N, I)
    t : int64 array of shape (N,)
        The labels.
    """

    net: TwoLayerNet
    x: Array
    t: Array

    def __str__(self) -> str:
        """Return the sizes of the layers and of the batch."""
        inputs, hidden = self.net.params["W1"].shape
        return f"{inputs}-{hidden}-{len(self.net.params['b2'])}, {len(self.x)} samples"


def random_problem(samples: int = 100, inputs: int = 784, hidden: int = 100) -> Problem:
    """Return dense samples, uniform in [0, 1), in 10 classes; as it stands, the 47 s case."""
    np.random.seed(0)
    net = TwoLayerNet(inputs, hidden, 10)
    return Problem(net, np.random.rand(samples, inputs), np.random.randint(0, 10, samples))


def mnist_problem(samples: int = 100, hidden: int = 50) -> Problem:
    """Return the first digits of the embedded sample, of which four pixels in five are zero."""
    np.random.seed(0)
    (x, t), _ = load_mnist_sample()
    net = TwoLayerNet(x.shape[1], hidden, 10)
    return Problem(net, x[:samples].astype(float), t[:samples].astype(np.int64))


def gradients(problem: Problem) -> dict[str, GradientCall]:
    """Return the ways to the gradient that take about a millisecond, by name, where installed."""
    net, x, t = problem.net, problem.x, problem.t
    plain = reference.TwoLayerNet(1, 1, 1)
    plain.params = dict(net.params)
    calls: dict[str, GradientCall] = {
        "response": lambda: net.numerical_gradient(x, t),
        "net.gradient": lambda: net.gradient(x, t),
        "NumPy": lambda: plain.gradient(x, t),
    }
    if find_spec("torch"):
        calls["PyTorch"] = pytorch_gradient(problem)
    if find_spec("jax"):
        calls["JAX"] = jax_gradient(problem)
    return calls


class PyTorchNet:
    """The same net in PyTorch, with as many threads as fastgrad's kernels.

    The module is imported as `Any`, as JAX below, so that the types check without them installed.

    Parameters
    ----------
    net : TwoLayerNet
        Whose parameters are copied.
    dtype : str
        "float64" or "float32".

    Attributes
    ----------
    params : list of torch.Tensor
        W1, b1, W2, b2; they require gradients.
    """

    def __init__(self, net: TwoLayerNet, dtype: str = "float64") -> None:
        torch: Any = import_module("torch")
        torch.set_num_threads(import_module("numba").get_num_threads())
        self.dtype = getattr(torch, dtype)
        self.params = [
            torch.tensor(values, dtype=self.dtype, requires_grad=True)
            for values in net.params.values()
        ]

    def loss(self, x: Any, t: Any) -> Any:
        """Return the loss of tensors; of several ways to write it, the fastest."""
        torch: Any = import_module("torch")
        w1, b1, w2, b2 = self.params
        hidden = torch.sigmoid(torch.addmm(b1, x, w1))
        p = torch.softmax(torch.addmm(b2, hidden, w2), dim=1)
        return -torch.log(p.gather(1, t[:, None]) + LOG_OFFSET).mean()

    def gradient(self, x: Any, t: Any) -> Any:
        """Return the gradient by autograd, in the order of `params`."""
        torch: Any = import_module("torch")
        return torch.autograd.grad(self.loss(x, t), self.params)


def pytorch_gradient(problem: Problem) -> GradientCall:
    """Return a call for the gradient of a problem by PyTorch's autograd, in float64."""
    torch: Any = import_module("torch")
    net = PyTorchNet(problem.net)
    x, t = torch.from_numpy(problem.x), torch.from_numpy(problem.t)
    return lambda: net.gradient(x, t)


def jax_gradient(problem: Problem) -> GradientCall:
    """Return a call for the gradient of a problem by JAX: compiled, in float64, waited for."""
    jax: Any = import_module("jax")
    jnp: Any = import_module("jax.numpy")
    jax.config.update("jax_enable_x64", True)

    def loss(params: list[Any], x: Any, t: Any) -> Any:
        w1, b1, w2, b2 = params
        p = jax.nn.softmax(jax.nn.sigmoid(x @ w1 + b1) @ w2 + b2)
        return -jnp.log(p[jnp.arange(len(t)), t] + LOG_OFFSET).mean()

    compiled = jax.jit(jax.grad(loss))
    params = [jnp.array(values) for values in problem.net.params.values()]
    x, t = jnp.array(problem.x), jnp.array(problem.t)
    return lambda: jax.block_until_ready(compiled(params, x, t))
