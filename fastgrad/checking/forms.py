"""The two forms of a gradient under test: a function with its x, or a net with its batch."""

from functools import partial
from typing import Any

from fastgrad.checking.batch import Batch, loss_of_net
from fastgrad.checking.subject import GradientUnderTest
from fastgrad.differences.trees import is_structure


def as_gradient_under_test(
    f: Any, x: Any, t: Any, gradient: Any, args: tuple[Any, ...], engine: str
) -> GradientUnderTest:
    """Tell the two forms apart: a function with its x, or a net with a batch x, t.

    Raises
    ------
    TypeError
        If it is neither.
    """
    if not is_net(f):
        if t is not None:
            raise TypeError(
                f"t is given, but f, a {type(f).__name__}, is no net with params and loss(x, t); "
                "pass check_gradient(net, x=x, t=t), or a function without t"
            )
        if gradient is None:
            raise TypeError(
                "gradient is missing; pass what is to be checked: an array like x, or a function "
                "that returns one"
            )
        return GradientUnderTest(f, x, gradient, args, engine)
    if t is None or x is None:
        raise TypeError(
            f"f is a net, a {type(f).__name__}, but {'x' if x is None else 't'} is missing; pass "
            "check_gradient(net, x=x, t=t), the batch on which its loss is to be checked"
        )
    if gradient is None and not callable(getattr(f, "gradient", None)):
        raise TypeError(
            f"f is a net, a {type(f).__name__}, without a method gradient(x, t); give it one, or "
            "pass what is to be checked as gradient"
        )
    return _of_net(f, x, t, gradient, engine)


def moved_by(f: Any, x: Any) -> Any:
    """Return what is moved when f is checked: x, or the parameters and the batch of a net."""
    return (f.params, x) if is_net(f) else x


def is_net(f: Any) -> bool:
    """Say whether f is a net: with parameters, and a loss of its own."""
    return hasattr(f, "params") and callable(getattr(f, "loss", None))


def _of_net(net: Any, x: Any, t: Any, gradient: Any, engine: str) -> GradientUnderTest:
    if not is_structure(net.params):
        raise TypeError(
            f"f.params is a {type(net.params).__name__}, but it is to be a dict of arrays; pass "
            "check_gradient(f, x, gradient) with a function and its array"
        )

    def backward(_: Any) -> Any:
        return net.gradient(x, t)

    given = backward if gradient is None else gradient
    # The traced engine looks for parameters in partials, but not in fastgrad's own functions.
    f = partial(loss_of_net, net, x, t)
    return GradientUnderTest(f, net.params, given, (), engine, Batch(net, x, t))
