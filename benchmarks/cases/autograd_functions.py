"""An autograd function of PyTorch that is written by hand, and ten with a planted fault."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

torch: Any = import_module("torch")  # as Any, so that types are checked without it, too

DECAY = 0.125
"""How much of x itself the function adds."""

Backward = Callable[[Any, Any], Any]
"""The derivatives by x, from x and those by the outputs."""


def _right(x: Any, error: Any) -> Any:
    return error * (1 - torch.tanh(x) ** 2 + DECAY) / len(x)


def _without(index: Any) -> Backward:
    """Return a backward pass that leaves something out."""

    def backward(x: Any, error: Any) -> Any:
        result = _right(x, error)
        result[index] = 0
        return result

    return backward


@dataclass(frozen=True)
class Fault:
    """A wrong backward pass, and the words that name it in a report; none if it has no name."""

    backward: Backward
    words: str


FAULTS = {
    "the sign": Fault(lambda x, error: -_right(x, error), "the sign is wrong"),
    "twice": Fault(lambda x, error: 2 * _right(x, error), "2 times too large"),
    "the mean is forgotten": Fault(
        lambda x, error: len(x) * _right(x, error), "20 times too large"
    ),
    "the mean is taken twice": Fault(
        lambda x, error: _right(x, error) / len(x), "20 times too small"
    ),
    "a factor": Fault(lambda x, error: 0.7 * _right(x, error), "0.7 times what it should be"),
    "rows in reverse order": Fault(
        lambda x, error: _right(x, error).flip(0), "in reverse order along axis 0"
    ),
    "a transposition": Fault(
        lambda x, error: _right(x, error).T.reshape(x.shape),
        "reshaped where it should be transposed",
    ),
    "a row is left out": Fault(_without(3), "row 3"),
    "a column is left out": Fault(_without((slice(None), 3)), "column 3"),
    "another function's derivative": Fault(
        lambda x, error: error * (1 - torch.tanh(x) + DECAY) / len(x), ""
    ),
}
"""Ten of them."""


def function(backward: Backward = _right) -> Callable[[Any], Any]:
    """Return ``(tanh(x) + x / 8) / len(x)`` with a backward pass."""

    def forward(context: Any, x: Any) -> Any:
        context.save_for_backward(x)
        return (torch.tanh(x) + DECAY * x) / len(x)

    def backwards(context: Any, error: Any) -> Any:
        (x,) = context.saved_tensors
        return backward(x, error)

    methods = {"forward": staticmethod(forward), "backward": staticmethod(backwards)}
    layer: Any = type("Layer", (torch.autograd.Function,), methods)
    apply: Callable[[Any], Any] = layer.apply
    return apply


def inputs(rows: int, columns: int) -> Any:
    """Return random inputs, which are differentiated."""
    torch.manual_seed(0)
    return torch.randn(rows, columns, dtype=torch.float64, requires_grad=True)


def module(width: int, dtype: Any = torch.float64) -> tuple[Callable[[Any], Any], dict[str, Any]]:
    """Return the loss of a network of about 2 width^2 parameters, and these."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, width),
        torch.nn.Tanh(),
        torch.nn.Linear(width, 10),
    ).to(dtype)
    x, t = torch.randn(32, width, dtype=dtype), torch.randint(0, 10, (32,))
    return lambda _: torch.nn.functional.cross_entropy(net(x), t), dict(net.named_parameters())
