"""A check of an autograd function: gradcheck says yes or no, fastgrad says why not.

python examples/check_torch.py     needs PyTorch: pip install torch
"""

import argparse
import time
from typing import Any

import torch

from fastgrad import check_gradient


class Swish(torch.autograd.Function):  # type: ignore[misc]  # where there is no PyTorch
    """``x * sigmoid(x)``, with a backward pass by hand."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        """Return the values, and keep what the backward pass needs."""
        s = torch.sigmoid(x)
        ctx.save_for_backward(x, s)
        return x * s

    @staticmethod
    def backward(ctx: Any, dout: torch.Tensor) -> torch.Tensor:
        """Pass back."""
        x, s = ctx.saved_tensors
        return dout * (s + x * s * (1 - s))


class Forgotten(Swish):
    """The same, but for the second term, which is forgotten."""

    @staticmethod
    def backward(ctx: Any, dout: torch.Tensor) -> torch.Tensor:
        """Pass back."""
        _, s = ctx.saved_tensors
        return dout * s


class Doubled(Swish):
    """The same, twice as large."""

    @staticmethod
    def backward(ctx: Any, dout: torch.Tensor) -> torch.Tensor:
        """Pass back."""
        return 2 * Swish.backward(ctx, dout)


def main() -> None:
    """Check the functions, and a module's gradients in place."""
    description = "Check a right autograd.Function of PyTorch and two wrong ones, beside gradcheck."
    argparse.ArgumentParser(description=description).parse_args()
    torch.manual_seed(0)
    x = torch.randn(200, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(200, dtype=torch.float64)
    for function in (Swish, Forgotten, Doubled):

        def loss(x: torch.Tensor, function: Any = function) -> torch.Tensor:
            return (weights * function.apply(x)).sum()

        def gradient(x: torch.Tensor, loss: Any = loss) -> torch.Tensor:
            return torch.autograd.grad(loss(x), x)[0]

        start = time.perf_counter()
        answer = torch.autograd.gradcheck(function.apply, x, raise_exception=False)
        seconds = time.perf_counter() - start
        start = time.perf_counter()
        report = check_gradient(loss, x, gradient)
        print(f"{function.__name__}: {(function.__doc__ or '').strip()}")
        print(f"gradcheck, {seconds:.2g} s: {answer}")
        print(f"fastgrad, {time.perf_counter() - start:.2g} s: {report}", end="\n\n")

    module = torch.nn.Sequential(torch.nn.Linear(64, 32), torch.nn.Tanh(), torch.nn.Linear(32, 10))
    samples = torch.randn(20, 64)
    parameters = dict(module.named_parameters())

    def loss_of_module(_: Any) -> torch.Tensor:
        return (module(samples) ** 2).mean()

    loss_of_module(None).backward()
    report = check_gradient(
        loss_of_module,
        parameters,
        {name: each.grad for name, each in parameters.items()},
        fast=True,
    )
    print(f"A module in single precision, moved where it is: {report}")


if __name__ == "__main__":
    main()
